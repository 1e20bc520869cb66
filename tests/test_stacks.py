"""A volume that was reconstructed before is data, too: its slices are read, denoised and written back as they were."""

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import torch
import zarr

import quietray
from quietray import FormatError, GeometryError, SettingsError, VolumeGrid, read_images
from quietray.cli import main
from quietray.detector.noise.calm import flat_noise
from quietray.domains import ImageDomain
from quietray.errors import ResourceError
from quietray.inference.denoiser import Denoiser
from quietray.io import image_format, new_volume
from quietray.io.images.volumes import LazySlices
from quietray.method import METHODS
from quietray.running.plan import plan_images
from quietray.running.run import Run
from quietray.running.settings import Training
from quietray.running.watch import Watch
from quietray.splits import Noise2Self, Noise2Void, Recorrupted
from quietray.splits.neighbourhood import Neighbourhood
from quietray.splits.served import WINDOW
from scans import disc_scan, foam_scan

NAMES = ["v.zarr", "v.h5", "v.tif", "slices", "v.mhd", "v.nii"]
GRID = VolumeGrid((6, 32, 40), voxel_size=0.02, spacing=0.05)


def volume() -> np.ndarray:
    rng = np.random.default_rng(0)
    scene = np.kron(rng.random((6, 4, 5)), np.ones((1, 8, 8)))
    return (scene + rng.normal(0, 0.2, scene.shape)).astype(np.float32)


def written(place: Path, grid: VolumeGrid = GRID) -> Path:
    if place.suffix == ".nii":
        pytest.importorskip("nibabel")
    with new_volume(place, grid, {}) as writer:
        writer.write(0, volume())
    return place


class Told(Watch):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize("name", NAMES)
def test_a_volume_is_denoised_and_comes_back_as_it_was(tmp_path: Path, name: str) -> None:
    """In its format, with its unit and the size of its voxels; and what can be done with it is said."""
    place, told = written(tmp_path / name), Told()
    assert image_format(place) == "volume"
    result = quietray.denoise(place, tmp_path / "out", method="gaussian", watch=told)
    clean = quietray.read_volume(tmp_path / "out/series" / name)
    assert (clean.unit, clean.voxel_size, clean.shape) == ("1/mm", pytest.approx(0.02), (6, 32, 40))
    assert float(clean.facts.get("spacing", 0.05)) == pytest.approx(0.05)
    assert np.array_equal(np.asarray(clean), result.volume)
    assert result.volume.std() < volume().std()
    assert result.unit == "1/mm"
    assert result.scale[1:] == (pytest.approx(0.02), pytest.approx(0.02))
    assert "methods that need projections, such as noise2inverse, cannot be used" in told.notes[0]
    assert "second reconstruction" in told.notes[0]
    again = quietray.denoise(place, tmp_path / "out", method="gaussian", resume=True)
    assert np.array_equal(again.volume, result.volume)


def test_what_reconstruct_wrote_is_denoised(tmp_path: Path, capsys: Any) -> None:
    noisy, out = tmp_path / "noisy.zarr", tmp_path / "out"
    main(["reconstruct", str(disc_scan()), "--out", str(noisy)])
    main(["denoise", str(noisy), "--method", "bilateral", "--out", str(out)])
    assert "cannot be used" in " ".join(capsys.readouterr().err.split())
    before, after = (quietray.read_volume(place) for place in (noisy, out / "series/noisy.zarr"))
    assert before.unit == after.unit
    assert np.asarray(after).std() < np.asarray(before).std()


def test_of_two_reconstructions_the_noise_is_learned(tmp_path: Path) -> None:
    """One of each half of the views: what they share is the object."""
    scan = quietray.read(disc_scan()).with_axis(11.5)
    halves = [quietray.reconstruct(scan[k::2], tmp_path / f"{k}.zarr") for k in (0, 1)]
    series = [read_images(half) for half in halves]
    result = quietray.denoise(series[0], repeats=series[1:], method="noise2noise", budget="4s")
    assert result.metrics["method"]["measurements"] == 2
    assert not any("cannot be used" in note for note in result.notes)


def test_methods_that_need_projections_are_refused(tmp_path: Path) -> None:
    place = written(tmp_path / "v.zarr")
    for method in ("noise2inverse", "noise2projection"):
        with pytest.raises(SettingsError, match="which needs projections or clean images; use"):
            quietray.denoise(place, method=method)


def test_scans_stay_scans(tmp_path: Path) -> None:
    """A simulated one holds the truth, which is a volume; other layouts say no unit of attenuation."""
    assert image_format(disc_scan()) is None
    assert image_format(foam_scan()) is None
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["exchange/data"] = np.ones((6, 4, 5), np.uint16)
        file["exchange/data"].attrs["units"] = "counts"
    assert image_format(tmp_path / "raw.h5") is None
    zarr.save(str(tmp_path / "raw.zarr"), np.ones((6, 4, 5), np.uint16))
    assert image_format(tmp_path / "raw.zarr") is None
    tifffile.imwrite(tmp_path / "raw.tif", np.ones((6, 4, 5), np.uint16), photometric="minisblack")
    assert image_format(tmp_path / "raw.tif") == "tiff"


def test_tiff_that_says_nothing_is_asked_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "slices").mkdir()
    for number, one in enumerate(volume()):
        tifffile.imwrite(tmp_path / f"slices/{number}.tif", one)
    with pytest.raises(GeometryError, match=r"pass angles='0:180'.*method='recorrupted'"):
        quietray.denoise(tmp_path / "slices")


def test_a_series_of_volumes_and_a_broken_one_are_refused(tmp_path: Path) -> None:
    from quietray.io import SeriesAxis

    with new_volume(tmp_path / "s.h5", GRID, {}, series=SeriesAxis("t", 2)) as writer:
        writer.write(0, np.concatenate([volume(), volume()]))
    with pytest.raises(FormatError, match="must be one volume"):
        read_images(tmp_path / "s.h5")
    with new_volume(tmp_path / "n.h5", GRID, {}) as writer:
        writer.write(0, np.where(volume() > 0.9, np.nan, volume()).astype(np.float32))
    with pytest.raises(FormatError, match="must hold finite values"):
        read_images(tmp_path / "n.h5")


def test_volumes_are_compared_as_volumes(tmp_path: Path) -> None:
    places = [written(tmp_path / name) for name in ("a.zarr", "b.h5")]
    assert quietray.evaluate(*places)["rmse"] == 0


# --- neighbouring slices --------------------------------------------------------------------------------------------


def noisy(n: int = 9, size: int = 96, across: float = 0.0, seed: int = 0) -> np.ndarray:
    """A disc that grows from slice to slice, with white noise that neighbouring slices share or do not."""
    y, x = np.mgrid[:size, :size] - size / 2
    scene = np.stack([np.hypot(y, x) < size * (0.25 + 0.1 * z / n) for z in range(n)]).astype(float)
    white = np.random.default_rng(seed).normal(0, 0.4, (n + 1, size, size))
    return (scene + (1 - across) * white[:-1] + across * white[1:]).astype(np.float32)


def of_volume(images: np.ndarray, step: float | None = 0.1) -> quietray.ImageSeries:
    return quietray.ImageSeries(images, None, "here", unit="1/mm", modality="CT", step=step)


def few_steps(method: Any, steps: int = 8, **more: Any) -> quietray.Settings:
    training = Training(steps=steps, patch=32, judgements=2, average=0.5, learning_rate=5e-3, precision="fp32")
    return quietray.Settings(method=method, network=quietray.UNet((4, 4)), training=training, symmetries=1, **more)


@pytest.mark.parametrize("z", range(9))
def test_the_slice_to_be_denoised_is_never_its_own_neighbour(z: int) -> None:
    seen = Neighbourhood(7, apart=True).indices(z, 9)
    assert seen[3] == z
    assert z not in seen[:3] + seen[4:]
    assert set(seen) <= set(range(9))


@pytest.mark.parametrize("split", [Noise2Self(slices=3), Noise2Void(slices=3), Recorrupted(((0.04,),), slices=3)])
def test_neighbours_are_seen_as_they_are_and_nothing_of_the_target_is(split: Any) -> None:
    samples = torch.rand(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    pair = split.draw(samples, torch.Generator().manual_seed(1))
    assert torch.equal(pair.input[:, ::2], samples[:, 0, ::2])
    assert pair.target.shape == (2, 1, 32, 32)
    used = pair.weight.expand_as(pair.target) > 0
    assert not (pair.input[:, 1:2] == samples[:, 0, 1:2])[used].any()
    given = split.infer(lambda window: window[:, :1] + window[:, 1:2] + window[:, 2:], samples)
    assert torch.allclose(given, samples[:, 0].sum(dim=1, keepdim=True))
    one, alone = torch.ones(1, 1, 1, 1), replace(split, slices=1)
    judged = split.judge(lambda window: 0.9 * window[:, 1:2], samples, one)
    assert judged.error == alone.judge(lambda window: 0.9 * window, samples[:, :, 1:2], one).error


def test_noise_between_slices_is_measured() -> None:
    """Independent; shared with the next slice, as after interpolation; common to all, as rings are."""
    weight = np.ones((96, 96), np.float32)
    one, other = (flat_noise(noisy(across=share), weight, stack=True) for share in (0.0, 0.3))
    assert one is not None
    assert other is not None
    assert one.apart
    assert not other.apart
    assert other.across[0] == pytest.approx(0.7 * 0.3 / (0.7**2 + 0.3**2), abs=0.08)
    rings = np.random.default_rng(1).normal(0, 0.2, (96, 96))
    common = flat_noise(noisy() + rings.astype(np.float32), weight, stack=True)
    assert common is not None
    assert not common.apart
    assert common.across == pytest.approx(3 * [0.2**2 / (0.4**2 + 0.2**2)], abs=0.08)
    assert flat_noise(noisy(), weight).across == ()  # type: ignore[union-attr]


@pytest.mark.parametrize(("method", "repeats"), [("recorrupted", 0), ("noise2self", 0), ("noise2void", 0), ("auto", 1)])
def test_slices_of_a_volume_are_seen_with_their_neighbours(method: str, repeats: int) -> None:
    series = [of_volume(noisy(across=0.3 * repeats, seed=seed)) for seed in range(1 + repeats)]
    settings = few_steps(METHODS[method]())
    result = quietray.denoise(series[0], None, settings, repeats=series[1:])
    assert result.metrics["method"]["slices"] == WINDOW
    assert any(f"The network sees {WINDOW} neighbouring slices" in note for note in result.notes)
    if method != "auto":
        assert result.settings.method.slices == WINDOW


def test_slices_that_share_noise_are_seen_one_at_a_time() -> None:
    told = Told()
    result = quietray.denoise(of_volume(noisy(across=0.3)), None, few_steps(Noise2Self(slices=5)), watch=told)
    assert result.metrics["method"]["slices"] == result.settings.method.slices == 1
    assert result.metrics["noise"]["slice_correlation"] > 0.2
    assert any("one slice at a time: the noise of neighbouring slices correlates by +0." in note for note in told.notes)


def test_unrelated_images_are_told_from_slices(tmp_path: Path) -> None:
    """Which follow one another in numbered files and look alike, unless the user says what they are."""
    for number, one in enumerate(noisy()):
        (tmp_path / "slices").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / f"slices/a{number:02d}.tif", one)
    others = np.random.default_rng(0).random((5, 4, 4)).repeat(24, 1).repeat(24, 2)
    np.save(tmp_path / "others.npy", others.astype(np.float32))
    for images, slices, wanted, said in (
        (of_volume(noisy(), None), None, 1, "treated as unrelated"),
        (of_volume(noisy(), None), 3, 3, "treated as slices of one volume, as requested"),
        (read_images(tmp_path / "slices"), None, WINDOW, "they are numbered"),
        (read_images(tmp_path / "slices"), 1, 1, ""),
        (read_images(tmp_path / "others.npy"), None, 1, "treated as unrelated"),
        (of_volume(noisy(2)), 7, 1, ""),
    ):
        run = Run.in_memory(few_steps(Noise2Void(slices=slices)))
        found = ImageDomain.prepare(run, [images])
        assert found.split.n_slices == wanted
        assert said in " ".join(found.series.notes)


@pytest.mark.slow
def test_a_model_of_neighbouring_slices_is_applied_to_slices_of_a_volume(tmp_path: Path) -> None:
    quietray.denoise(of_volume(noisy()), tmp_path / "out", few_steps(Recorrupted(), 150))
    assert "slices = 5" in (tmp_path / "out/run.toml").read_text()
    result = quietray.apply(tmp_path / "out/model", of_volume(noisy(seed=1)))
    clean = noisy(seed=1) - np.random.default_rng(1).normal(0, 0.4, (10, 96, 96))[:-1]
    assert np.square(result.volume - clean).mean() < 0.5 * 0.4**2
    estimate = result.metrics["estimate"]
    assert estimate["rmse"] ** 2 == pytest.approx(np.square(result.volume - clean).mean(), abs=0.05 * 0.4**2)
    with pytest.raises(SettingsError, match="the model must be given 5 or more slices of one volume"):
        quietray.apply(tmp_path / "out/model", of_volume(noisy(), None))
    shared = quietray.apply(tmp_path / "out/model", of_volume(noisy(across=0.4)))
    assert any("takes correlated noise for the object" in warning for warning in shared.warnings)


def test_slices_are_asked_for_on_the_command_line(tmp_path: Path) -> None:
    with new_volume(tmp_path / "v.h5", VolumeGrid((9, 96, 96), voxel_size=0.02), {}) as writer:
        writer.write(0, noisy())
    (tmp_path / "small.toml").write_text("symmetries = 1\n[network]\nwidths = [4, 4]\n[training]\npatch = 32\n")
    words = ["--config", str(tmp_path / "small.toml"), "--steps", "3", "--out", str(tmp_path / "out"), "--overwrite"]
    main(["denoise", str(tmp_path / "v.h5"), "--method", "recorrupted", "--slices", "3", *words])
    assert "slices = 3" in (tmp_path / "out/run.toml").read_text()
    assert Denoiser.load(tmp_path / "out/model").split.n_slices == 3


def test_radiographs_have_no_neighbouring_slices() -> None:
    with pytest.raises(SettingsError, match="slices must be 1 for radiographs"):
        quietray.denoise(disc_scan(), method=Noise2Self(slices=3))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_neighbouring_slices_gain_where_their_noise_is_independent(seed: int) -> None:
    """0.62 times the error, for both seeds."""
    rng, error = np.random.default_rng(seed), {}
    clean = np.kron(rng.random((32, 32)), np.ones((3, 3)))[None].repeat(9, axis=0)
    images = of_volume((clean + rng.normal(0, 0.4, clean.shape)).astype(np.float32))
    training = Training(400, patch=64, judgements=4, average=0.9, learning_rate=5e-3, precision="fp32", patience=1.0)
    settings = quietray.Settings(network=quietray.UNet((8, 8)), training=training, symmetries=1, seed=seed)
    for slices in (1, 5):
        result = quietray.denoise(images, None, replace(settings, method=Noise2Self(slices=slices)))
        assert result.metrics["method"]["slices"] == slices
        error[slices] = float(np.square(result.volume - clean).mean())
    assert error[5] < 0.8 * error[1]


# --- volumes larger than the memory -----------------------------------------------------------------------------------

TALL = (48, 64, 64)


@pytest.fixture
def tall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[int]]:
    """A volume, and the numbers of slices that are read of it at a time."""
    with new_volume(tmp_path / "tall.h5", VolumeGrid(TALL, voxel_size=0.02), {}) as writer:
        writer.write(0, noisy(*TALL[:2]))
    read: list[int] = []

    def counted(self: LazySlices, key: Any, plainly: Any = LazySlices.__getitem__) -> np.ndarray:
        found = plainly(self, key)
        read.append(len(found) if found.ndim == 3 else 1)
        return found

    monkeypatch.setattr(LazySlices, "__getitem__", counted)
    monkeypatch.setattr("quietray.images._BLOCK", 2**17)
    monkeypatch.setattr("quietray.domains.images.resident_memory", lambda: 0)
    return tmp_path / "tall.h5", read


def little(shape: tuple[int, int, int] = TALL, n_slices: int = 5, share: float = 0.5) -> int:
    """Return a limit with room for this share of what is needed in one piece, besides what is always needed."""
    whole = plan_images(shape, network=quietray.UNet((4, 4)), n_slices=n_slices, memory=2**40).peak
    return whole - round((1 - share) * 6 * 4 * np.prod(shape))


def test_a_volume_larger_than_the_memory_is_denoised_slab_by_slab(tall: tuple[Path, list[int]], tmp_path: Path) -> None:
    (place, read), settings = tall, few_steps(Recorrupted(), max_memory=str(little()))
    result = quietray.denoise(place, tmp_path / "out", settings)
    memory = result.metrics["memory"]
    assert memory["slabs"] > 1
    assert memory["planned_peak"] <= memory["limit"] == little()
    assert max(read) < TALL[0] / 2
    clean = quietray.read_volume(tmp_path / "out/series/tall.h5")
    assert (clean.shape, clean.unit, clean.voxel_size) == (TALL, "1/mm", pytest.approx(0.02))
    assert np.array_equal(np.asarray(clean), np.asarray(result.volume))
    assert any("read slab by slab" in note for note in result.notes)
    again = quietray.denoise(place, tmp_path / "out", settings, resume=True)
    assert np.array_equal(np.asarray(again.volume), np.asarray(clean))


@pytest.mark.slow
def test_the_plan_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What arrays take at once is less than planned for them, and far less than the volume in one piece."""
    monkeypatch.setattr("quietray.domains.images.resident_memory", lambda: 0)
    monkeypatch.setattr("quietray.images._BLOCK", 2**22)
    shape, others = (300, 128, 128), 2**25  # others: the planes that a report shows, twice, and its text
    with new_volume(tmp_path / "v.h5", VolumeGrid(shape, voxel_size=0.02), {}) as writer:
        for first in range(0, 300, 100):
            writer.write(first, noisy(100, 128, seed=first))
    settings = few_steps("gaussian", max_memory=str(little(shape, 1, 0.2)))
    quietray.denoise(of_volume(noisy(9)), tmp_path / "warm", settings)
    tracemalloc.start()
    try:
        result = quietray.denoise(tmp_path / "v.h5", tmp_path / "out", settings)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    memory = result.metrics["memory"]
    planned = memory["planned_peak"] - plan_images((1, 16, 16), network=quietray.UNet((4, 4)), memory=2**40).peak
    assert memory["slabs"] > 1
    assert peak < planned + others
    assert planned + others < 0.5 * 6 * 4 * np.prod(shape)


@pytest.mark.slow
def test_slabs_are_the_same_to_the_last_bit(tall: tuple[Path, list[int]], tmp_path: Path) -> None:
    quietray.denoise(of_volume(noisy(24, 64)), tmp_path / "out", few_steps(Recorrupted(), 20))
    whole = quietray.apply(tmp_path / "out/model", tall[0])
    parts = quietray.apply(tmp_path / "out/model", tall[0], tmp_path / "parts", max_memory=little())
    assert (whole.metrics["memory"]["slabs"], parts.metrics["memory"]["slabs"] > 1) == (1, True)
    assert np.array_equal(whole.volume, np.asarray(parts.volume))
    assert whole.metrics["guard"] == parts.metrics["guard"]


def test_too_little_memory_is_told_with_what_is_needed(tall: tuple[Path, list[int]]) -> None:
    with pytest.raises(ResourceError, match=r"the smallest slab \(5 images of 64 x 64\).*output folder"):
        quietray.denoise(tall[0], None, few_steps(Recorrupted(), max_memory="300M"))
