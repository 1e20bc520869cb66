"""What an older version left on disk: its runs are finished or taken up, its models applied, its settings read.

``data/old_runs`` was made by commit 32ea602, before the modules were moved about.  Nothing there may be changed: a run
that was started before an update must end after it, and a model that took a night must be good for years.

The scan is said to lie in ``/quietray``, where nothing is: a run knows its scan by the place where it was read from, so
that a test says the same of the scan that it reads, or writes the scan's own place into what the run has noted.
"""

import contextlib
import dataclasses
import json
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch

import quietray
from quietray import Correction, Noise2Inverse, Settings, Training, UNet
from quietray.cli import main
from quietray.detector.correction import correct
from quietray.operators.astra import ParallelProjector
from quietray.operators.nufft import ParallelRays
from quietray.reconstruct.ramp import ramp_filtered
from quietray.wording import told

DATA = Path(__file__).resolve().parent / "data/old_runs"
EXPECTED = json.loads((DATA / "expected.json").read_text())
SCAN, IMAGES = Path("/quietray/scan.h5"), Path("/quietray/images.npy")
SETTINGS = Settings(
    method=Noise2Inverse(parts=2, slices=3),
    seed=3,
    rotation_axis=11.5,
    symmetries=2,
    whiten="never",
    correction=Correction(air="none", rings="none"),
    network=UNet((4,)),
    training=Training(
        steps=160,
        batch=1,
        patch=24,
        learning_rate=1e-2,
        average=0.95,
        judgements=4,
        patience=10.0,
        precision="fp32",
    ),
)
APPLIED = 1e-3  # of the range, that other processors may differ by where nothing is trained
TRAINED = 5e-2  # where some steps of training are, or a filter is tuned by what judges it now
CALIBRATED = 8e-2  # where a map of trust is, part of it calibrated then and the rest now

TOML = sorted(path.stem for path in (DATA / "toml").glob("*.toml"))
MODELS = sorted(path.name for path in (DATA / "models").iterdir() if path.name != "images")


@pytest.fixture(autouse=True)
def _backprojection_of_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Filtered backprojection as it was, by areas of rays: all else is compared to what it made."""

    def backproject(rays: ParallelRays, y: np.ndarray, response: np.ndarray, factors: np.ndarray) -> np.ndarray:
        filtered = ramp_filtered(y, "ram-lak") * np.float32(factors)[:, None]
        return ParallelProjector(rays.geometry, rays.grid).adjoint(filtered) / np.float32(rays.grid.voxel_size or 1.0)

    monkeypatch.setattr(ParallelRays, "backproject", backproject)


@pytest.fixture(autouse=True)
def _logarithm_of_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numpy's logarithm, not torch's, which differs in the last bit: every bit of a slice seeds what AP-BSN draws."""

    def attenuate(transmissions: torch.Tensor) -> None:
        np.negative(np.log(transmissions.numpy()), out=transmissions.numpy())

    monkeypatch.setattr(correct, "_attenuate", attenuate)


def scan(name: str = "scan.h5") -> quietray.Scan:
    """Return a scan that says to lie where that of the old runs did."""
    return dataclasses.replace(quietray.read(DATA / name), source=str(SCAN.with_name(name)))


def images() -> quietray.ImageSeries:
    return dataclasses.replace(quietray.read_images(DATA / "images.npy"), source=str(IMAGES))


def copied(name: str, tmp_path: Path, moved: bool = False) -> Path:
    """Return a copy of a run; `moved` to where the scan and the images really are, for the command line."""
    out = tmp_path / name
    shutil.copytree(DATA / name, out)
    for place in (out / "metrics.json", out / ".work/run.json"):
        if moved and place.exists():
            text = place.read_text()
            for said in (SCAN, IMAGES):
                text = text.replace(json.dumps(str(said)), json.dumps(str(DATA / said.name)))
            place.write_text(text)
    return out


def check(volume: Any, expected: dict[str, Any], share: float, raised: float = 0.0) -> None:
    """Check a volume against what the old version made of it, to a share of the range; some voxels may be larger."""
    volume = np.asarray(volume)
    assert list(volume.shape) == expected["shape"]
    few = volume[1::3, 2::5, 2::5] if volume.shape[-1] == 24 else volume[::2, 4::10, 4::10]
    some = np.array(expected["some"])
    near = share * float(np.ptp(some))
    larger = few.ravel() > some + near
    assert larger.mean() <= raised
    np.testing.assert_allclose(few.ravel()[~larger], some[~larger], rtol=0, atol=near)
    assert volume.mean(dtype=float) == pytest.approx(expected["mean"], abs=near)
    assert volume.std(dtype=float) == pytest.approx(expected["sd"], abs=near)


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return every byte below a folder, and when it was written, by path."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


class Heard(next(kind for kind in get_args(get_type_hints(quietray.denoise)["watch"]) if kind is not NoneType)):
    """Keeps what a run tells."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.done: list[tuple[str, int]] = []
        self.notes: list[str] = []

    @contextlib.contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Any]:
        self.stages.append(name)
        yield lambda done, text="": self.done.append((name, done))

    def note(self, text: str) -> None:
        self.notes.append(text)


# --- finished runs ----------------------------------------------------------------------------------------------------


def test_a_finished_run_is_loaded(tmp_path: Path) -> None:
    out, heard = copied("run", tmp_path), Heard()
    before = content(out)
    result = quietray.denoise(scan(), out, SETTINGS, resume=True, watch=heard)
    assert heard.stages == []
    assert "complete" in heard.notes[0]
    assert content(out) == before
    check(result.volume, EXPECTED["run"], 1e-5)  # it is read, not computed
    metrics = json.loads((out / "metrics.json").read_text())
    assert result.metrics["estimate"] == metrics["estimate"]
    assert {key: result.metrics["estimate"][key] for key in EXPECTED["run"]["estimate"]} == EXPECTED["run"]["estimate"]
    assert list(result.warnings) == [told(one) for one in metrics["warnings"]]
    assert list(result.notes) == [told(one) for one in metrics["notes"]]
    assert [entry.step for entry in result.history] == [40, 80, 120, 160]
    assert result.denoiser.split == SETTINGS.method
    assert result.denoiser.architecture == SETTINGS.network
    assert (result.trust, result.folder) == (None, out)


def test_a_finished_run_is_told_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = copied("run", tmp_path, moved=True)
    before = content(out)
    main(["denoise", str(DATA / "scan.h5"), "--config", str(out / "run.toml"), "--out", str(out), "--resume", "--json"])
    said = capsys.readouterr()
    assert "complete" in said.err
    assert json.loads(said.out)["estimate"] == json.loads((out / "metrics.json").read_text())["estimate"]
    assert content(out) == before


def test_a_finished_run_on_images_is_loaded(tmp_path: Path) -> None:
    out, heard = copied("images-run", tmp_path, moved=True), Heard()
    before = content(out)
    words = ["denoise", str(DATA / "images.npy"), "--config", str(out / "run.toml"), "--out", str(out), "--resume"]
    main(words)
    settings = dataclasses.replace(SETTINGS, method=quietray.Noise2Void(), symmetries=1, rotation_axis=None)
    series = quietray.read_images(DATA / "images.npy")
    result = quietray.denoise_images(series, out, settings, resume=True, watch=heard)
    assert heard.stages == []
    assert content(out) == before
    check(result.volume, EXPECTED["images-run"], 5e-3)  # written in whole numbers, as the images were
    assert isinstance(result.denoiser.split, quietray.Noise2Void)


def test_another_run_is_still_told_from_it(tmp_path: Path) -> None:
    out = copied("run", tmp_path)
    other = dataclasses.replace(SETTINGS, seed=4, training=dataclasses.replace(SETTINGS.training, steps=161))
    with pytest.raises(quietray.SettingsError, match=r"got changes in seed, training\.steps;"):
        quietray.denoise(scan(), out, other, resume=True)
    with pytest.raises(quietray.SettingsError, match=r"got changes in scan\.source;"):
        quietray.denoise(quietray.read(DATA / "scan.h5"), out, SETTINGS, resume=True)


def test_its_settings_run_it_again(tmp_path: Path) -> None:
    """To what other processors make of 160 steps."""
    out = tmp_path / "again"
    main(["denoise", str(DATA / "scan.h5"), "--config", str(DATA / "run/run.toml"), "--out", str(out)])
    check(quietray.read_volume(out / "volume.zarr"), EXPECTED["run"], TRAINED)
    assert (out / "run.toml").read_text() == (DATA / "run/run.toml").read_text()


# --- unfinished runs --------------------------------------------------------------------------------------------------

KEPT = {  # what is on disk already and must stay as it is, and the stages that may not be gone through again
    "half-trained": ((), ()),
    "unfinished": (("volume.zarr/0/c/0", "volume.zarr/0/c/1", "volume.zarr/0/c/2"), ("training",)),
    "unfinished-trust": (
        ("volume.zarr/0/c/0", "volume.zarr/0/c/1", "volume.zarr/0/c/2", "trust.zarr/0/c/0", "trust.zarr/0/c/2"),
        ("training",),
    ),
    "unfinished-radiographs": (
        ("radiographs.h5", "volume.zarr/0/c/0", "volume.zarr/0/c/1", "volume.zarr/0/c/2"),
        ("training", "denoising"),
    ),
}


@pytest.mark.parametrize("name", KEPT)
def test_an_unfinished_run_goes_on(tmp_path: Path, name: str) -> None:
    out, heard = copied(name, tmp_path), Heard()
    places, stages = KEPT[name]
    before = _kept(out, places)
    settings = dataclasses.replace(
        SETTINGS,
        method=quietray.Noise2Self() if name == "unfinished-radiographs" else SETTINGS.method,
        trust=0.4 if name == "unfinished-trust" else 0.0,
    )
    result = quietray.denoise(scan(), out, settings, resume=True, watch=heard)
    assert _kept(out, places) == before
    had_slabs = any(path.name.startswith("slab-") for path in (DATA / name / ".work").iterdir())
    assert any("another backprojection (by areas)" in note for note in heard.notes) == had_slabs
    assert [stage for stage, done in heard.done if stage in stages and done] == []
    assert result.metrics["memory"]["slabs"] == 3, "the plan was kept"
    check(result.volume, EXPECTED[name], TRAINED if name == "half-trained" else APPLIED)
    if "trust" in EXPECTED[name]:  # what was done stays; the rest knows of steep places and of lost details
        check(result.trust, EXPECTED[name]["trust"], CALIBRATED, raised=0.05)
    estimate = result.metrics["estimate"]
    assert estimate["domain"].split(",")[0] == EXPECTED[name]["estimate"]["domain"].split(",")[0], "in words of today"
    for key, value in ((key, value) for key, value in EXPECTED[name]["estimate"].items() if key != "domain"):
        known = value if isinstance(value, str) else pytest.approx(value, rel=TRAINED)
        if estimate[key] is None:  # what was told then, and is withheld now
            assert key in ("psnr_db", "psnr_gain_db", "psnr_gain_db_at_least", "rmse")
            assert estimate["withheld"]
        else:
            assert estimate[key] == known, key
    assert result.metrics["training"]["steps"] == 160
    _finished(out)


@pytest.mark.parametrize("name", ["half-trained", "unfinished"])
def test_an_unfinished_run_goes_on_by_the_command_line(tmp_path: Path, name: str) -> None:
    out = copied(name, tmp_path, moved=True)
    main(["denoise", str(DATA / "scan.h5"), "--config", str(out / "run.toml"), "--out", str(out), "--resume"])
    check(quietray.read_volume(out / "volume.zarr"), EXPECTED[name], TRAINED if name == "half-trained" else APPLIED)
    _finished(out)


def test_a_decision_for_a_method_is_kept(tmp_path: Path) -> None:
    """Killed after the methods were compared: they are not compared again."""
    out = copied("unfinished-auto", tmp_path, moved=True)
    before = json.loads((out / ".work/comparison.json").read_text())["comparison"]
    assert tomllib.loads((out / "run.toml").read_text())["method"]["name"] == "auto"
    main(["denoise", str(DATA / "scan.h5"), "--config", str(out / "run.toml"), "--out", str(out), "--resume"])
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["comparison"] == before
    assert metrics["comparison"]["winner"] == EXPECTED["unfinished-auto"]["winner"]
    assert metrics["method"]["name"] == EXPECTED["unfinished-auto"]["method"]
    check(quietray.read_volume(out / "volume.zarr"), EXPECTED["unfinished-auto"], TRAINED)
    _finished(out)


def test_an_unfinished_run_on_images_goes_on(tmp_path: Path) -> None:
    out = copied("unfinished-images", tmp_path)
    settings = dataclasses.replace(SETTINGS, method=quietray.Noise2Void(), symmetries=1, rotation_axis=None)
    result = quietray.denoise_images(images(), out, settings, resume=True)
    check(result.volume, EXPECTED["unfinished-images"], TRAINED)
    assert np.load(out / "series/images.npy").dtype == np.uint16
    _finished(out)


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_applied(name: str) -> None:
    result = quietray.apply(DATA / "models" / name, scan("other.h5"), None, SETTINGS)
    check(result.volume, EXPECTED[f"models/{name}"], APPLIED)
    assert not [text for text in result.warnings if "trained on other scans" in text]


def test_a_model_of_images_is_applied() -> None:
    result = quietray.apply_images(DATA / "models/images", images(), None, SETTINGS)
    check(result.volume, EXPECTED["models/images"], APPLIED)
    assert result.metrics["guard"] == EXPECTED["models/images"]["guard"]


def test_a_model_learns_on(tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, start=str(DATA / "models/volume"))
    check(quietray.denoise(scan(), None, settings).volume, EXPECTED["fine-tuned"], TRAINED)


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TOML)
def test_settings_mean_the_same(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A finished run is complete only with the very settings that it noted, here as the old version understood them."""
    out = copied("run", tmp_path, moved=True)
    metrics = json.loads((out / "metrics.json").read_text())
    metrics["run"]["settings"] = json.loads((DATA / "toml" / f"{name}.json").read_text())
    (out / "metrics.json").write_text(json.dumps(metrics))
    config = str(DATA / "toml" / f"{name}.toml")
    main(["denoise", str(DATA / "scan.h5"), "--config", config, "--out", str(out), "--resume"])
    assert "complete" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["run", "images-run", "unfinished", "unfinished-auto", "models/volume"])
def test_settings_beside_a_run_are_read(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """All of them are known, and only then is it told that the rows asked for are not there."""
    words = ["denoise", str(DATA / "scan.h5"), "--config", str(DATA / name / "run.toml"), "--rows", "30:31"]
    with pytest.raises(SystemExit) as left:
        main([*words, "--out", str(tmp_path / "out")])
    assert left.value.code == 2
    assert "rows must lie within 0:8" in capsys.readouterr().err


def _kept(out: Path, places: tuple[str, ...]) -> dict[str, tuple[bytes, int]]:
    """Return what of the places is there, under its final or its provisional name."""
    found = {}
    for place in places:
        first, _, rest = place.partition("/")
        here = next(path for path in (out / first, out / f".{first}.partial") if path.exists()) / rest
        files = content(here) if here.is_dir() else {"": (here.read_bytes(), here.stat().st_mtime_ns)}
        found |= {f"{place}/{name}": both for name, both in files.items()}
    assert len(found) >= len(places)
    return found


def _finished(out: Path) -> None:
    assert not (out / ".work").exists()
    assert not list(out.glob(".*"))
    for name in ("metrics.json", "run.toml", "report.html", "model/model.json", "model/weights.safetensors"):
        assert (out / name).exists(), name
