"""Series of steps in time and of channels, from the command line to the files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import quietray
from quietray import Correction, Noise2Inverse, ParallelBeam, ParallelProjector, Scan, Settings, Training, UNet
from quietray.cli import main
from quietray.errors import GeometryError, NoiseError, SettingsError
from quietray.filters import GaussianFilter
from quietray.inference.denoiser import Denoiser
from quietray.io.volumes.hdf5 import Hdf5VolumeWriter
from quietray.io.volumes.tiff import TiffVolumeWriter
from quietray.io.volumes.zarr import ZarrVolumeWriter
from quietray.metrics.image import disc
from quietray.preparation.sources import PartReconstruction, SeriesReconstruction
from quietray.report import report_of
from quietray.report.page import _render
from quietray.running.watch import Watch
from quietray.splits.base import Neighbourhood
from scans import content, in_slabs, quick

pytestmark = pytest.mark.usefixtures("short_report")

N, ROWS = 24, 8
INSIDE = disc(N, N, 0.9)
STEADY = Correction(air="none", rings="none", zingers=0.0, bad_pixels=False)


def ball(x: float, value: float = 0.06) -> np.ndarray:
    """Return a cylinder of 0.02 with a rod in it at column `x`."""
    row, col = np.mgrid[:N, :N]
    image = 0.02 * (np.hypot(row - 11.5, col - 11.5) < 10) + value * (np.hypot(row - 11.5, col - x) < 3)
    return np.broadcast_to(image.astype(np.float32), (ROWS, N, N)).copy()


def projected(volume: np.ndarray, angles: np.ndarray) -> tuple[ParallelBeam, np.ndarray]:
    beam = ParallelBeam(angles, ROWS, N, rotation_axis=(N - 1) / 2)
    return beam, np.swapaxes(ParallelProjector(beam)(volume), 0, 1)


def measured(volume: np.ndarray, seed: int, photons: float = 300.0, views: int = 48, shift: float = 0.0) -> Scan:
    """Return a scan of a volume in counts."""
    rng = np.random.default_rng(seed)
    beam, integrals = projected(volume, shift + np.linspace(0, np.pi, views, endpoint=False))
    counts = rng.poisson(photons * np.exp(-integrals)).astype(np.uint16)
    flats = np.full((2, ROWS, N), photons, np.float32)
    flats[0] += 1  # two equal frames would pass for stuck pixels
    return Scan(counts, beam, flats, np.zeros((2, ROWS, N), np.float32), source=f"step {seed}")


def reconstructed(volume: np.ndarray, shift: float = 0.0) -> np.ndarray:
    """Return what a scan without noise would give."""
    beam, integrals = projected(volume, shift + np.linspace(0, np.pi, 48, endpoint=False))
    return quietray.FBP()(ParallelProjector(beam), np.ascontiguousarray(np.swapaxes(integrals, 0, 1)))


def settings(times: int = 3, steps: int = 150, **more: object) -> Settings:
    method = Noise2Inverse(parts=2, slices=1, times=times)
    training = Training(steps=steps, batch=2, judgements=3, patience=10.0, precision="fp32")
    usual = {"method": method, "network": UNet((8, 16)), "training": training, "correction": STEADY}
    return quick(rotation_axis=None, **(usual | more))


def error(volume: np.ndarray, truth: np.ndarray) -> float:
    return float(np.square(np.asarray(volume) - truth)[:, INSIDE].mean())


def fast(**more: object) -> Settings:
    return settings(steps=6, **more)


@pytest.fixture(scope="module")
def scans() -> list[Scan]:
    return [measured(ball(6.0 + 3 * k), k) for k in range(4)]


@pytest.fixture(scope="module")
def moving(scans: list[Scan]) -> quietray.result.Result:
    return quietray.denoise(scans[0], None, settings(), series=scans[1:])


def test_every_step_is_nearest_to_its_own_truth(moving: quietray.result.Result) -> None:
    assert moving.volume.shape == (4, ROWS, N, N)
    distances = [[error(volume, ball(6.0 + 3 * k)) for k in range(4)] for volume in moving.volume]
    assert np.argmin(distances, axis=1).tolist() == [0, 1, 2, 3]


def test_figures_tell_of_every_step(moving: quietray.result.Result, scans: list[Scan]) -> None:
    series = moving.metrics["series"]
    assert (series["of"], series["shown"]) == ("step", 2)
    assert [step["source"] for step in series["each"]] == [scan.source for scan in scans]
    for k, step in enumerate(series["each"]):
        true = 10 * np.log10(step["data_range"] ** 2 / error(moving.volume[k], reconstructed(ball(6.0 + 3 * k))))
        ends = (step[f"psnr_gain_db_at_{end}"] for end in ("least", "most"))
        least, most = (end if end is None else step["psnr_noisy_db"] + end for end in ends)
        assert step["psnr_db"] is None, "one held-out slice is too little for a single figure, as it is for all steps"
        assert "too little was held out" in step["withheld"]
        assert least - 1.0 < true, "estimated without the truth, of so small a volume"
        assert most is None or true < most + 1.0
        assert abs(step["mean"] - moving.volume[k][:, disc(N, N, 1.0)].mean()) < 1e-3
    assert moving.gathered is not None
    np.testing.assert_array_equal(moving.gathered.cuts["axial"][1], moving.volume[2, ROWS // 2])
    np.testing.assert_array_equal(moving.gathered.cuts["coronal"][1], moving.volume[2, :, N // 2])


def test_the_report_says_which_step_it_shows(moving: quietray.result.Result, scans: list[Scan]) -> None:
    page = _render(report_of(moving, scans[0], ""))
    assert "of step 2" in page
    for step in range(len(scans)):
        assert f'alt="step {step}, before denoising"' in page


@pytest.mark.slow
def test_neighbours_in_time_help_where_little_moves() -> None:
    truth = ball(10.0)
    still = [measured(truth, k, photons=60.0, shift=0.02 * k) for k in range(5)]
    errors = []
    for times in (1, 3):
        result = quietray.denoise(still[0], None, settings(times, steps=200), series=still[1:])
        errors.append(np.mean([error(volume, truth) for volume in result.volume]))
    assert errors[1] < 0.85 * errors[0], "at equal steps"


@pytest.fixture(scope="module")
def spectral() -> list[Scan]:
    """Two channels, line integrals of the rod and of the cylinder around it, a hundred times as strong."""
    rng, found = np.random.default_rng(5), []
    for volume in (ball(8.0), 100 * ball(14.0)):
        beam, integrals = projected(volume, np.linspace(0, np.pi, 48, endpoint=False))
        noise = 0.15 * float(integrals.std())
        found.append(Scan((integrals + rng.normal(0, noise, integrals.shape)).astype(np.float32), beam))
    return found


def test_channels_keep_their_own_scale(tmp_path: Path, spectral: list[Scan]) -> None:
    told = settings(method=Noise2Inverse(parts=2, slices=1, channels=2), correction=Correction(line_integrals=True))
    result = quietray.denoise(spectral[0], tmp_path / "out", told, series=spectral[1:])
    for volume, truth in zip(result.volume, (ball(8.0), 100 * ball(14.0)), strict=True):
        assert error(volume, truth) < 0.3 * float(truth[:, INSIDE].var())
    means = [channel["mean"] for channel in result.metrics["series"]["each"]]
    assert 50 < means[1] / means[0] < 150
    assert result.metrics["log_bias"] is None
    loaded = Denoiser.load(tmp_path / "out/model")
    assert loaded.scales == result.denoiser.scales
    assert loaded.scale == loaded.scales[1]
    import zarr

    axes = zarr.open_group(tmp_path / "out/volume.zarr", mode="r").attrs["ome"]["multiscales"][0]["axes"]
    assert [axis["name"] for axis in axes] == ["c", "z", "y", "x"]
    assert axes[0]["type"] == "channel"


def test_one_acquisition_is_cut_into_steps_with_angles_of_their_own() -> None:
    angles = np.arange(106) * 0.0687  # more than two turns of 48 views each, and a rest
    beam, integrals = projected(ball(9.0), angles)
    counts = np.random.default_rng(3).poisson(300 * np.exp(-integrals)).astype(np.uint16)
    first = measured(ball(9.0), 0)
    whole = dataclasses.replace(first, projections=counts, geometry=beam)
    result = quietray.denoise(whole, None, fast(views_per_step=48))
    assert [step["views"] for step in result.metrics["series"]["each"]] == [48, 48]
    assert any("last 10 views, too few for a step, were left out" in note for note in result.notes)
    steps = [
        dataclasses.replace(first, projections=counts[views], geometry=beam[views])
        for views in (slice(0, 48), slice(48, 96))
    ]
    again = quietray.denoise(steps[0], None, fast(), series=steps[1:])
    np.testing.assert_array_equal(result.volume, again.volume)


@pytest.mark.parametrize("format", ["zarr", "h5", "tiff"])
def test_volumes_come_back(tmp_path: Path, scans: list[Scan], format: str) -> None:
    in_memory = quietray.denoise(scans[0], None, fast(), series=scans[1:])
    stored = quietray.denoise(scans[0], tmp_path / "out", fast(format=format), series=scans[1:])
    name = {"zarr": "volume.zarr", "h5": "volume.h5", "tiff": "tiff"}[format]
    volume = quietray.read_volume(tmp_path / "out" / name)
    assert volume.unit == "1/pixel"
    np.testing.assert_array_equal(np.asarray(volume), in_memory.volume)
    np.testing.assert_array_equal(volume[2, 3:5], in_memory.volume[2, 3:5])
    np.testing.assert_array_equal(np.asarray(stored.volume[1:3]), in_memory.volume[1:3])
    assert (tmp_path / "out/report.html").exists()
    assert stored.gathered is not None
    assert list(stored.gathered.steps) == list(range(len(scans)))
    for step, (_, after) in stored.gathered.steps.items():
        np.testing.assert_array_equal(after, in_memory.volume[step, in_memory.volume.shape[1] // 2])


class _Stop(Watch):
    """Interrupts the run when so many slices are denoised."""

    def __init__(self, at: int) -> None:
        self.left = at

    def stage(self, name: str, total: int | None = None):  # type: ignore[no-untyped-def]
        return self._counted() if name == "denoising" else super().stage(name, total)

    from contextlib import contextmanager

    @contextmanager
    def _counted(self):  # type: ignore[no-untyped-def]
        def advance(done: int, text: str = "") -> None:
            self.left -= done
            if self.left < 0:
                raise KeyboardInterrupt

        yield advance


@pytest.mark.parametrize("format", ["zarr", "h5", "tiff"])
def test_killed_runs_go_on(tmp_path: Path, scans: list[Scan], monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    in_slabs(monkeypatch, heights=3, window=8)
    scans, told = scans[:3], fast(format=format)
    quietray.denoise(scans[0], tmp_path / "whole", told, series=scans[1:])
    with pytest.raises(KeyboardInterrupt):
        quietray.denoise(scans[0], tmp_path / "out", told, series=scans[1:], watch=_Stop(3 * 3 + 2))
    with pytest.raises(SettingsError, match="got changes in series"):
        quietray.denoise(scans[0], tmp_path / "out", told, series=scans[1:2], resume=True)
    writer = {"zarr": ZarrVolumeWriter, "h5": Hdf5VolumeWriter, "tiff": TiffVolumeWriter}[format]
    store, written = writer._store, []
    monkeypatch.setattr(writer, "_store", lambda self, z0, block: (written.append(z0), store(self, z0, block)))
    quietray.denoise(scans[0], tmp_path / "out", told, series=scans[1:], resume=True)
    assert written == [3, 11, 19, 6, 14, 22], "all steps of the first slab were done"
    name = {"zarr": "volume.zarr", "h5": "volume.h5", "tiff": "tiff"}[format]
    paths = [tmp_path / folder / name for folder in ("whole", "out")]
    one, other = (content(path) if path.is_dir() else path.read_bytes() for path in paths)
    assert one == other


def test_slabs_see_the_same_neighbours_as_the_whole(scans: list[Scan], monkeypatch: pytest.MonkeyPatch) -> None:
    in_slabs(monkeypatch, heights=3, window=8)
    method = Noise2Inverse(parts=2, slices=3, times=3)
    read: list[tuple[int, int]] = []
    into, kept = PartReconstruction.into, {}

    def counted(self, out, rows, *more):  # type: ignore[no-untyped-def]
        read.append((rows.start, rows.stop))
        kept[self.scan.source] = self
        return into(self, out, rows, *more)

    monkeypatch.setattr(PartReconstruction, "into", counted)
    result = quietray.denoise(scans[0], None, fast(method=method), series=scans[1:])
    assert read[4:] == [(0, 4)] * 4 + [(2, 7)] * 4 + [(5, 8)] * 4, "the window, then every step of each slab"
    parts, _ = SeriesReconstruction(tuple(kept[scan.source] for scan in scans))(slice(0, ROWS))
    whole = result.denoiser.slab(parts, 0, ROWS, n_series=4).reshape(4, ROWS, N, N)
    inside = disc(N, N, 0.95)
    np.testing.assert_allclose(result.volume[..., inside], whole[..., inside], atol=1e-3 * np.ptp(whole))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return what is said of a mistake."""
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    assert left.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_command_line(tmp_path: Path, scans: list[Scan], capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(quietray.write_scan(tmp_path / f"T{k}.h5", scan)) for k, scan in enumerate(scans[:3])]
    out, config = tmp_path / "out", tmp_path / "small.toml"
    config.write_text('method = "noise2inverse"\n[network]\nname = "unet"\nwidths = [4, 8]\n')
    given = ["--steps", "6", "--slices", "1", "--parts", "2", "--times", "3", "--config", str(config), "--air", "none"]
    main(["denoise", files[0], "--series", *files[1:], "--out", str(out), *given])
    again = ["denoise", files[0], "--series", *files[1:], "--config", str(out / "run.toml")]
    main([*again, "--out", str(tmp_path / "again")])
    assert content(out / "volume.zarr") == content(tmp_path / "again/volume.zarr")
    volume, reference = str(out / "volume.zarr"), str(tmp_path / "again/volume.zarr")
    capsys.readouterr()
    main(["evaluate", volume, reference, "--step", "2", "--json"])
    assert json.loads(capsys.readouterr().out)["rmse"] == 0
    assert "give --step 0 to 2" in refused(capsys, "evaluate", volume, reference)
    alone = ("denoise", files[0], "--out", str(tmp_path / "one"))
    assert "with --series or" in refused(capsys, *alone, "--times", "3")
    assert "times must be odd" in refused(capsys, *alone, "--series", files[1], "--times", "2")
    assert "not both" in refused(capsys, *alone, "--series", files[1], "--channels", files[2])
    assert "must be the only one, got 2" in refused(capsys, *alone, "--series", files[1], "--views-per-step", "20")
    assert "by noise2inverse, got noise2self" in refused(capsys, *alone, "--series", files[1], "--method", "noise2self")


def test_steps_see_each_other_by_default(scans: list[Scan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import quietray.workflows as workflows

    asked: list[Settings] = []

    class _AskedError(Exception):
        """Enough was seen."""

    def noted(scan: Scan, out: Path, told: Settings, **more: object) -> None:
        asked.append(told)
        raise _AskedError

    monkeypatch.setattr(workflows, "denoise", noted)
    monkeypatch.setattr("quietray.commands.flags.ScanFlags.read", lambda self: scans[0])
    monkeypatch.chdir(tmp_path)
    for name in "abc":
        (tmp_path / f"{name}.h5").touch()
    for more in (["--series", "b.h5"], ["--views-per-step", "20"], ["--channels", "b.h5", "c.h5"], []):
        with pytest.raises(SystemExit):
            main(["denoise", "a.h5", *more, "--out", "nowhere"])
    first, second, third, last = (told.method for told in asked)
    assert first == second == Noise2Inverse(times=3)
    assert asked[1].views_per_step == 20
    assert third == Noise2Inverse(channels=3)
    assert last == Settings().method


def smaller(scan: Scan) -> Scan:
    return dataclasses.replace(
        scan,
        projections=scan.projections[:, :6],
        flats=scan.flats[:, :6],
        darks=scan.darks[:, :6],
        geometry=scan.geometry.rows(6),
    )


@pytest.mark.parametrize(
    ("more", "told", "words"),
    [
        ({"method": GaussianFilter(1.0)}, SettingsError, "must be denoised by noise2inverse, got gaussian"),
        ({"method": Noise2Inverse(times=7)}, SettingsError, "times must be at most 5 for a series of 4 steps"),
        ({"method": Noise2Inverse(channels=3)}, SettingsError, "3 channels must be given a scan of each, got 4"),
        ({"views_per_step": 20}, SettingsError, "must be the only one, got 4"),
    ],
)
def test_what_a_series_cannot_be(scans: list[Scan], more: dict, told: type[Exception], words: str) -> None:
    with pytest.raises(told, match=words):
        quietray.denoise(scans[0], None, fast(**more), series=scans[1:])


def test_scans_that_do_not_belong_together(scans: list[Scan]) -> None:
    with pytest.raises(GeometryError, match=r"one detector size, got \(8, 24\) in scan 0 and \(6, 24\) in scan 2"):
        quietray.denoise(scans[0], None, fast(), series=[scans[1], smaller(scans[2])])
    sized = dataclasses.replace(scans[1], geometry=dataclasses.replace(scans[1].geometry, pixel_size=0.1))
    with pytest.raises(GeometryError, match="one pixel size"):
        quietray.denoise(scans[0], None, fast(), series=[sized])
    with pytest.raises(SettingsError, match="must be 1 for a single scan"):
        quietray.denoise(scans[0], None, fast())
    with pytest.raises(GeometryError, match="at most half of the 48 views"):
        quietray.denoise(scans[0], None, fast(views_per_step=25))
    with pytest.raises(SettingsError, match="not be given together"):
        quietray.denoise(scans[0], None, fast(), series=scans[1:], repeats=scans[1:])


def test_auto_is_noise2inverse_on_neighbours_in_time(scans: list[Scan]) -> None:
    result = quietray.denoise(scans[0], None, fast(method=Settings().method), series=scans[1:3])
    assert result.denoiser.split.neighbourhood.times == 3
    assert any("Noise2Inverse was used; its network receives 3 of 3 steps" in note for note in result.notes)


def test_a_step_is_never_among_its_own_neighbours() -> None:
    for times in (3, 5, 7):
        for n_series in range(times - 1, times + 3):
            for step in range(n_series):
                seen = Neighbourhood(1, times=times).indices(step, n_series, n_series)
                assert seen[times // 2] == step
                assert seen.count(step) == 1, "its noise would be in the input and in the target"
                assert set(seen) <= set(range(n_series))


def test_memory_counts_every_step(scans: list[Scan], monkeypatch: pytest.MonkeyPatch) -> None:
    import quietray.preparation.prepare as prepare_module

    asked, plan_run = [], prepare_module.plan_run

    def noted(*given: object, **options: object) -> object:
        asked.append(plan_run(*given, **options | {"base": 0}))  # what other tests have left in memory
        return asked[-1]

    monkeypatch.setattr(prepare_module, "plan_run", noted)
    for n in (2, 4):
        quietray.denoise(scans[0], None, fast(), series=scans[1:n])
    row = ROWS * N * N * 4 * 2  # two subsets of one step
    assert len(asked) == 2, "one plan for all steps"
    assert asked[1].peak - asked[0].peak >= 2 * row, "two steps more, each with all its subsets"


def test_line_integrals_are_taken_as_they_are(spectral: list[Scan]) -> None:
    told = settings(method=Settings().method, correction=Correction(line_integrals=True), steps=6)
    result = quietray.denoise(spectral[1], None, told)
    assert result.gathered is not None
    noisy = result.gathered.cuts["axial"][0]
    assert error(noisy[None], 100 * ball(14.0)[:1]) < 0.5 * float(100**2 * ball(14.0)[:, INSIDE].var())
    assert result.metrics["log_bias"] is None
    assert result.metrics["method"]["name"] == "noise2inverse"
    with pytest.raises(NoiseError, match="transmissions"):
        quietray.denoise(spectral[1], None, dataclasses.replace(told, correction=Correction()))
    with pytest.raises(SettingsError, match="must have no flats"):
        quietray.denoise(measured(ball(8.0), 1), None, told)


def test_axes_found_apart_are_made_one(scans: list[Scan]) -> None:
    """Noise moves what is found by fractions of a column: the steps must not wobble by that."""
    unknown = [dataclasses.replace(s, geometry=dataclasses.replace(s.geometry, rotation_axis=None)) for s in scans]
    result = quietray.denoise(unknown[0], None, fast(), series=unknown[1:])
    axes = {step["rotation_axis"] for step in result.metrics["series"]["each"]}
    assert len(axes) == 1
    assert abs(axes.pop() - 11.5) < 0.7
    assert any("the median of those found" in note for note in result.notes)
