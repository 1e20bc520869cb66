"""Series of images: pictures in and out, their noise measured, methods and filters on them, up to the command line."""

import json
import re
from pathlib import Path
from typing import Any

import h5py
import imagecodecs
import numpy as np
import pydicom
import pytest
import tifffile
import torch

import quietray
from dicom_files import phantom, write_image, write_series
from quietray.assessment.against import evaluate_images
from quietray.cli import main
from quietray.detector.noise.calm import flat_noise, repeated_noise
from quietray.domains.image_methods import image_split, noise_of
from quietray.errors import FormatError, GeometryError, NoiseError, SettingsError
from quietray.filters import BilateralFilter, GaussianFilter, MedianFilter, TotalVariation
from quietray.inference.denoiser import Denoiser, Scale
from quietray.io import ImageSeries, read_images
from quietray.io.images.pictures import PictureFiles
from quietray.networks import UNet
from quietray.running.settings import Auto, Settings, Training
from quietray.settings import from_dict, read_toml
from quietray.splits import (
    APBSN,
    Noise2Clean,
    Noise2Inverse,
    Noise2Noise,
    Noise2Projection,
    Noise2Self,
    Noise2Void,
    Noisier2Noise,
    Recorrupted,
)
from scans import disc_scan

CLEAN = phantom(1, 64, sd=0.0)[0].astype(np.float32)


def pictures(n: int = 4, size: int = 64, sd: float = 40.0, seed: int = 0, shared: bool = False) -> np.ndarray:
    return phantom(n, size, sd, seed, shared).astype(np.float32)


def series(**more: Any) -> ImageSeries:
    return ImageSeries(pictures(**more), None, "here")


def settings(method: Any, steps: int = 20) -> Settings:
    training = Training(steps=steps, batch=1, patch=32, judgements=2, average=0.9, learning_rate=5e-3, precision="fp32")
    return Settings(method=method, network=UNet((8, 8)), training=training, symmetries=1, seed=1)


def error(images: Any) -> float:
    return float(np.square(np.asarray(images) - CLEAN).mean())


# reading and writing


def _write(path: Path, image: np.ndarray) -> Path:
    if path.suffix == ".png":
        path.write_bytes(imagecodecs.png_encode(image))
    elif path.suffix == ".npy":
        np.save(path, image)
    else:
        tifffile.imwrite(path, image, photometric="minisblack", resolution=(200, 100), resolutionunit="CENTIMETER")
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_pictures_come_back_as_they_were(tmp_path: Path, suffix: str, kind: type) -> None:
    images = (phantom(3, 16) // 20).astype(kind)
    for number, image in zip((1, 2, 10), images, strict=True):
        _write(tmp_path / f"image_{number}{suffix}", image)
    found = read_images(tmp_path)
    np.testing.assert_array_equal(found.images, images)
    assert found.origin is not None
    out = tmp_path / "out"
    out.mkdir()
    found.origin.write(out, found.images + np.float32(0.4), "test")
    again = read_images(out)
    np.testing.assert_array_equal(again.images, images)
    assert isinstance(again.origin, PictureFiles)
    assert again.origin.dtype == kind
    assert [path.name for path in again.origin.files] == [f"image_{number}{suffix}" for number in (1, 2, 10)]
    if suffix == ".tif":
        with tifffile.TiffFile(out / "image_1.tif") as file:
            assert file.pages.first.get_resolution("CENTIMETER") == (200, 100)


@pytest.mark.parametrize("suffix", [".tif", ".npy"])
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int16])
def test_stacks_and_types_are_kept(tmp_path: Path, suffix: str, kind: type) -> None:
    images = phantom(3, 16).astype(kind) - kind(2000)
    found = read_images(_write(tmp_path / f"stack{suffix}", images))
    out = tmp_path / "out"
    out.mkdir()
    found.origin.write(out, found.images, "test")
    read = np.load if suffix == ".npy" else tifffile.imread
    again = read(out / f"stack{suffix}")
    assert again.dtype == kind
    np.testing.assert_array_equal(again, images)


def test_whole_numbers_stay_in_their_range(tmp_path: Path) -> None:
    found = read_images(_write(tmp_path / "one.png", np.full((4, 4), 250, np.uint8)))
    out = tmp_path / "out"
    out.mkdir()
    found.origin.write(out, found.images + np.linspace(-300, 300, 16, dtype=np.float32).reshape(1, 4, 4), "test")
    written = imagecodecs.png_decode((out / "one.png").read_bytes())
    assert (written.min(), written.max()) == (0, 255)


def _two_sizes(folder: Path) -> None:
    _write(folder / "a.npy", np.zeros((4, 4), np.uint8))
    _write(folder / "b.npy", np.zeros((4, 5), np.uint8))


def _two_kinds(folder: Path) -> None:
    _write(folder / "a.npy", np.zeros((4, 4), np.uint8))
    _write(folder / "b.png", np.zeros((4, 4), np.uint8))


def _with_words(folder: Path) -> None:
    _write(folder / "a.npy", np.zeros((4, 4), np.uint8))
    (folder / "notes.txt").write_text("words")


def _colours(folder: Path) -> None:
    _write(folder / "a.png", np.zeros((4, 4, 3), np.uint8))


def _not_finite(folder: Path) -> None:
    _write(folder / "a.npy", np.array([[1.0, np.nan], [np.inf, 1.0]]))


def _words(folder: Path) -> None:
    _write(folder / "a.npy", np.array([["a", "b"]]))


def _pickled(folder: Path) -> None:
    np.save(folder / "a.npy", np.array([{}, {}]), allow_pickle=True)


def _truncated(folder: Path) -> None:
    path = _write(folder / "a.png", np.zeros((40, 40), np.uint16))
    path.write_bytes(path.read_bytes()[:40])


def _empty(folder: Path) -> None:
    (folder / "inner").mkdir()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_two_sizes, r"one size and type, got \(4, 5\) uint8 in b.npy and \(4, 4\) uint8 in a.npy"),
        (_two_kinds, r"images of one kind and nothing else, got npy and png"),
        (_with_words, r"images of one kind and nothing else, got also notes.txt"),
        (_colours, r"grey image .* got shape \(4, 4, 3\)"),
        (_not_finite, "finite values, got 2 NaN or infinite"),
        (_words, "integers or floats, got <U1"),
        (_pickled, "readable image, got: ValueError"),
        (_truncated, r"a.png must be a readable image, got: .*copy it again"),
        (_empty, "must hold DICOM, PNG, TIFF or NPY images, got inner"),
    ],
)
def test_pictures_that_are_no_series_are_refused(tmp_path: Path, spoil: Any, said: str) -> None:
    spoil(tmp_path)
    with pytest.raises(FormatError, match=said):
        read_images(tmp_path)


def test_images_that_are_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "slices").mkdir()
    with pytest.raises(FormatError, match=r"must exist, got .*slice \(did you mean 'slices'\?\)"):
        read_images(tmp_path / "slice")


# the noise


@pytest.mark.parametrize("shared", [False, True])
def test_noise_is_measured_in_one_image_as_in_the_difference_of_two(shared: bool) -> None:
    """Means of 2 x 2 white pixels correlate by 1/2 with those beside them, and by 1/4 along the diagonal."""
    one, other = (phantom(4, 192, 40.0, seed, shared).astype(np.float32) for seed in (1, 2))
    weight = np.ones((192, 192), np.float32)
    alone, both = flat_noise(one, weight), repeated_noise(one, other, weight)
    assert alone is not None
    for found in (alone, both):
        assert found.sd == pytest.approx(40, rel=0.05)
        assert found.neighbours == pytest.approx(0.5 if shared else 0.0, abs=0.04)
        assert found.lags[4, 4] == pytest.approx(0.25 if shared else 0.0, abs=0.04)
        assert found.reach == (1 if shared else 0)


@pytest.mark.parametrize("shared", [False, True])
def test_a_few_calm_parts_tell_white_noise_from_shared(shared: bool) -> None:
    """Two of 49 blocks of each image lie clear of the edges of the discs."""
    found = flat_noise(phantom(9, 96, 40.0, shared=shared).astype(np.float32), np.ones((96, 96), np.float32))
    assert found is not None
    assert found.reach == (1 if shared else 0)
    assert found.neighbours == pytest.approx(0.5 if shared else 0.0, abs=0.06)
    assert found.sd == pytest.approx(40, rel=0.1)


def test_images_without_calm_parts_have_no_known_noise() -> None:
    assert flat_noise(np.zeros((2, 96, 96), np.float32), np.ones((96, 96), np.float32)) is None
    assert noise_of([series(n=1, size=32)]) is None


def test_structure_is_not_taken_for_noise(rng):
    """Where all parts hold structure, what is measured has not ended three pixels away; plain ones hold noise alone."""
    y, x = np.indices((96, 96))
    blobs = 400.0 * (np.sin(2 * np.pi * y / 14) * np.sin(2 * np.pi * x / 14) > 0)
    noise = rng.normal(0, 40, (6, 96, 96))
    plain, full = (flat_noise((noise + more).astype(np.float32), np.ones((96, 96), np.float32)) for more in (0, blobs))
    assert plain.uniform
    assert plain.unlike < 0.05
    assert plain.sd == pytest.approx(40, rel=0.03)
    assert not full.uniform
    assert full.sd > 1.3 * 40, "structure counts as noise, so that a gain is only known to be at most so much"


def test_noise_of_other_strength_elsewhere_is_seen(rng):
    """Plain parts hold noise of 20, structured ones of 40, a mean power of 1000: by this much intervals are widened."""
    y, x = np.indices((96, 96))
    sd, waves = np.where(x < 48, 20.0, 40.0), np.where(x < 48, 0.0, 300 * np.sin(y / 6))
    images = (waves + sd * rng.normal(0, 1, (6, 96, 96))).astype(np.float32)
    found = flat_noise(images, np.ones((96, 96), np.float32))
    assert found.uniform
    assert found.sd**2 == pytest.approx(1000, rel=0.06)
    assert found.unlike == pytest.approx(1 - 400 / 1000, abs=0.06)


def test_padding_takes_no_part_in_the_noise() -> None:
    images = phantom(4, 192).astype(np.float32)
    images[:, :, :96] += np.random.default_rng(3).normal(0, 900, (4, 192, 96)).astype(np.float32)
    weight = np.ones((192, 192), np.float32)
    weight[:, :96] = 0
    found = flat_noise(images, weight)
    assert found is not None
    assert found.sd == pytest.approx(40, rel=0.1)


# which method judges


def _chosen(method: Any, n: int = 1, **more: Any) -> Any:
    one = series(size=192, **more)
    scale = Scale.of(one.images, one.weight)
    return image_split(method, n, noise_of([one]), scale)


def test_white_noise_is_judged_by_hidden_pixels_shared_noise_by_stein() -> None:
    split, why = _chosen(BilateralFilter())
    assert split == Noise2Self()
    assert "it is white. The error is estimated from hidden pixels." in why
    split, why = _chosen(Auto(), shared=True)
    assert isinstance(split, Recorrupted)
    middle = split.covariance[3]
    assert middle[4] / middle[3] == pytest.approx(0.5, abs=0.05)
    assert "correlated up to 1 pixels away" in why
    assert _chosen(MedianFilter(), 3, shared=True)[0] == Noise2Noise(3)
    assert _chosen(Noise2Void(), shared=True)[0] == Noise2Void()
    assert _chosen(Noisier2Noise())[0].gaussian > 0


@pytest.mark.parametrize(
    ("method", "n", "said"),
    [
        (Noise2Noise(), 1, "two or more measurements of the same images, got one"),
        (Noise2Void(), 2, "noise2void must have one measurement of the images, got 2"),
        (Noise2Inverse(), 1, "one for images, got noise2inverse, which needs projections"),
        (Noise2Projection(), 1, "one for images, got noise2projection"),
        (Noise2Clean(), 1, "one for images, got noise2clean"),
    ],
)
def test_methods_that_cannot_be_are_refused(method: Any, n: int, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        _chosen(method, n)


def test_recorrupted_needs_noise_that_can_be_read() -> None:
    with pytest.raises(NoiseError, match="measured in uniform regions"):
        image_split(Recorrupted(), 1, None, Scale(0.0, 1.0))
    with pytest.raises(SettingsError, match="recorrupted must be given images"):
        quietray.denoise(quietray.read(disc_scan()), None, Settings(method=Recorrupted()))


# filters, tuned without ground truth


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("start", [GaussianFilter(), pytest.param(TotalVariation(), marks=pytest.mark.slow)])
def test_a_filter_is_tuned_nearly_as_well_as_with_the_truth(start: Any, shared: bool) -> None:
    """Where neighbours share noise, hidden pixels would ask for hardly any filtering: half of the error is left."""
    one = ImageSeries(phantom(4, 128, 80.0, shared=shared).astype(np.float32), None, "here")
    truth = phantom(1, 128, 0.0)[0].astype(np.float32)
    result = quietray.denoise_images(one, None, Settings(method=start))
    found = np.square(result.volume - truth).mean()
    scale = result.denoiser.scale
    scaled, wanted = scale.apply(one.images.copy()), scale.apply(truth.copy())
    name, values = next(iter(start.search.items()))
    oracle = min(
        np.mean([np.square(type(start)(**{name: value}).apply(image) - wanted).mean() for image in scaled])
        for value in np.geomspace(values[1], values[-1], 15)
    )
    assert found < 1.25 * oracle * (scale.high - scale.low) ** 2
    before = float(np.square(one.images - truth).mean())
    estimate = result.metrics["estimate"]
    assert estimate["rmse_noisy"] ** 2 == pytest.approx(before, rel=0.1)
    if shared:
        assert "Stein" in estimate["domain"]
        assert abs((estimate["rmse"] or 0) ** 2 - found) < 0.1 * before


def test_hidden_pixels_would_have_kept_the_noise_that_neighbours_share() -> None:
    """Why Stein's estimate is there: the blind spot's choice on the same images leaves far more noise."""
    from quietray.filters import tune
    from quietray.training.batches import TrainingVolume
    from quietray.training.loop import judge_held_out

    one = phantom(4, 128, 80.0, shared=True).astype(np.float32)
    truth, weight = phantom(1, 128, 0.0)[0].astype(np.float32), np.ones((128, 128), np.float32)
    scale = Scale.of(one, weight)
    scaled = scale.apply(one.copy())
    data = TrainingVolume.with_held_out(scaled[None], Noise2Self(), weight)
    blind = tune(
        GaussianFilter(), lambda f: judge_held_out(Noise2Self(), f.build(1), data, torch.device("cpu"), 2**15).error
    )
    ours = quietray.denoise_images(ImageSeries(one, None, "here"), None, Settings(method=GaussianFilter()))
    left = scale.undo(np.stack([blind.filter.apply(image) for image in scaled]))
    assert np.square(left - truth).mean() > 1.5 * np.square(ours.volume - truth).mean()


def test_repeated_measurements_tune_a_filter_on_their_mean() -> None:
    stacks = [ImageSeries(pictures(seed=seed, sd=80.0, shared=True), None, f"{seed}") for seed in (1, 2)]
    result = quietray.denoise_images(stacks[0], None, Settings(method=MedianFilter()), repeats=stacks[1:])
    assert error(result.volume) < error((stacks[0].images + stacks[1].images) / 2)
    assert result.metrics["noise"]["read_from"] == "the difference of two measurements"
    assert result.metrics["evidence"]["halves"] == "every other measurement"


# networks


@pytest.mark.parametrize("method", [Noise2Void(), Noise2Self(), Noisier2Noise(), APBSN(2, 1, 4, refinements=1)])
def test_methods_for_white_noise_denoise_images(method: Any) -> None:
    one = series(sd=80.0)
    result = quietray.denoise_images(one, None, settings(method, 150))
    assert error(result.volume) < 0.6 * error(one.images)
    assert result.metrics["method"]["domain"] == "images"
    assert result.metrics["scan"]["unit"] == "raw"


def test_recorrupted_removes_noise_that_neighbours_share_and_noise2void_keeps_it() -> None:
    one = ImageSeries(phantom(6, 96, 80.0, shared=True).astype(np.float32), None, "here")
    truth = phantom(1, 96, 0.0)[0].astype(np.float32)
    before = float(np.square(one.images - truth).mean())
    ours, blind = (
        quietray.denoise_images(one, None, settings(method, 300)) for method in (Recorrupted(), Noise2Void())
    )
    left = [float(np.square(result.volume - truth).mean()) / before for result in (ours, blind)]
    assert left[0] < 0.35
    assert left[0] < 0.6 * left[1]
    assert not any("correlates" in warning for warning in ours.warnings)
    assert any("noise2void predicts part of a hidden pixel's noise" in warning for warning in blind.warnings)


def test_two_series_teach_each_other() -> None:
    one, other = (ImageSeries(pictures(seed=seed, sd=80.0, shared=True), None, f"{seed}") for seed in (1, 2))
    result = quietray.denoise_images(one, None, settings(Auto(), 200), repeats=[other])
    assert result.metrics["method"]["name"] == "noise2noise"
    assert error(result.volume) < 0.5 * error((one.images + other.images) / 2)
    with pytest.raises(GeometryError, match=r"must have the images' size and unit"):
        quietray.denoise_images(one, None, settings(Auto()), repeats=[series(size=48)])


def test_padding_stays_as_it_was(tmp_path: Path) -> None:
    stored = phantom(3, 48)
    stored[:, :8] = 4095
    write_series(tmp_path / "ct", stored, PixelPaddingValue=4095)
    result = quietray.denoise_images(read_images(tmp_path / "ct"), tmp_path / "out", Settings(method=GaussianFilter()))
    again = read_images(tmp_path / "out/series")
    assert again.padding[:, :8].all()
    assert not again.padding[:, 8:].any()
    assert result.denoiser.trained is False


# the command line


@pytest.fixture
def run(capsys: Any) -> Any:
    """Return a function that runs a command with --json, and returns the document."""

    def command(*arguments: Any) -> Any:
        capsys.readouterr()
        main([*(str(argument) for argument in arguments), "--json"])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return json.loads(said.out)

    return command


@pytest.fixture
def refused(capsys: Any) -> Any:
    """Return a function that runs a command which must be refused, and returns the sentence."""

    def command(*arguments: Any) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert left.value.code == 2, said.err
        assert said.out == ""
        assert "Traceback" not in said.err
        return said.err.splitlines()[-1].removeprefix("error: ")

    return command


def small(folder: Path) -> Path:
    path = folder / "small.toml"
    path.write_text("symmetries = 1\n[network]\nwidths = [4, 4]\n[training]\nbatch = 1\npatch = 32\njudgements = 2\n")
    return path


def test_filter_writes_dicom_metrics_model_and_report(tmp_path: Path, run: Any) -> None:
    folder, out = write_series(tmp_path / "ct", phantom(9, 96)), tmp_path / "out"
    figures = run("filter", folder, "--filter", "gaussian", "--out", out)
    assert {path.name for path in out.iterdir()} == {"series", "metrics.json", "report.html", "model", "run.toml"}
    assert figures["method"]["name"] == "gaussian"
    assert figures["scan"]["modality"] == "CT"
    assert figures["noise"]["sd"] == pytest.approx(40, rel=0.1)
    stored = from_dict(Settings, read_toml(out / "run.toml")).method
    assert isinstance(stored, GaussianFilter)
    assert stored.sigma == figures["method"]["settings"]["sigma"]
    assert Denoiser.load(out / "model").architecture == stored
    files = sorted((out / "series").iterdir())
    assert [path.name for path in files] == sorted(path.name for path in folder.iterdir())
    assert pydicom.dcmread(files[0]).SeriesDescription == "Thorax 1.0 quietray gaussian"
    page = (out / "report.html").read_text()
    assert "axial, z = 4" in page
    assert "coronal" in page
    assert "\u2212160 to 240 HU" in page  # soft tissue: the files have no window
    shown = page[page.index("<header>") : page.index('<h2 id="record-title">')]
    assert "pixel 500 µm" in shown
    assert "Grey values of all images" in shown
    assert "Filter: gaussian" in shown
    assert not re.search("voxel|volume<|detector row|attenuation|Trained for", shown)
    assert run("evaluate", out, folder)["unit"] == "HU"


def test_denoise_sees_that_it_was_given_images(tmp_path: Path, run: Any) -> None:
    path, out = _write(tmp_path / "image.png", phantom(1, 64)[0]), tmp_path / "out"
    figures = run("denoise", path, "--method", "noise2void", "--steps", 3, "--config", small(tmp_path), "--out", out)
    assert figures["method"]["name"] == "noise2void"
    assert imagecodecs.png_decode((out / "series/image.png").read_bytes()).dtype == np.uint16
    page = (out / "report.html").read_text()
    assert "image 1" in page
    assert "coronal" not in page
    other = write_image(tmp_path / "one.dcm", phantom(1, 64)[0], Modality="DX", WindowCenter=1000, WindowWidth=800)
    run("denoise", other, "--steps", 3, "--config", small(tmp_path), "--out", tmp_path / "dx")
    assert "600 to 1400 raw" in (tmp_path / "dx/report.html").read_text()


def test_a_tiff_without_angles_is_an_image_to_a_method_for_images(tmp_path: Path, run: Any, refused: Any) -> None:
    path = _write(tmp_path / "image.tif", phantom(2, 48))
    run("denoise", path, "--method", "noise2self", "--steps", 3, "--config", small(tmp_path), "--out", tmp_path / "out")
    assert tifffile.imread(tmp_path / "out/series/image.tif").shape == (2, 48, 48)
    assert "pass --angles" in refused("denoise", path, "--out", tmp_path / "other")


def test_a_run_on_images_is_not_written_over_and_is_taken_up_again(tmp_path: Path, run: Any, refused: Any) -> None:
    folder, out = write_series(tmp_path / "ct", phantom(3, 48)), tmp_path / "out"
    arguments = ("denoise", folder, "--method", "noise2self", "--steps", 3, "--config", small(tmp_path), "--out", out)
    run(*arguments)
    before = {path: path.read_bytes() for path in (out / "series").iterdir()}
    assert "must not hold another run, got" in refused(*arguments)
    again = run(*arguments, "--resume")
    assert again["method"]["name"] == "noise2self"
    run(*arguments, "--overwrite")
    assert before == {path: path.read_bytes() for path in (out / "series").iterdir()}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--rows", "0:2"), "--rows must be left out for images"),
        (("--format", "h5"), "--format must be left out for images"),
        (("--algorithm", "sirt"), "--algorithm must be left out for images"),
        (("--trust", "0.5"), "--trust must be left out for images"),
        (("--line-integrals",), "--line-integrals must be left out for images"),
        (("--method", "noise2inverse"), "one for images, got noise2inverse"),
        (("--method", "noise2noise"), "two or more measurements of the same images"),
    ],
)
def test_flags_that_mean_nothing_to_images_are_refused(tmp_path: Path, refused: Any, flags: Any, said: str) -> None:
    folder = write_series(tmp_path / "ct", phantom(2, 24))
    assert said in refused("denoise", folder, "--out", tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["filter", "denoise"])
def test_bad_series_are_said_in_one_sentence(tmp_path: Path, refused: Any, command: str) -> None:
    folder = write_series(tmp_path / "ct", phantom(4, 24))
    (folder / "IM010").unlink()
    assert "where 1 is missing" in refused(command, folder, "--out", tmp_path / "out")
    colour = write_image(tmp_path / "colour.dcm", phantom(1, 24)[0], SamplesPerPixel=3)
    assert "one grey value" in refused(command, colour, "--out", tmp_path / "out")
    burned = write_image(tmp_path / "burned.dcm", phantom(1, 24)[0], BurnedInAnnotation="YES")
    assert "text burned into its pixels" in refused(command, burned, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_needs_projections_says_that_images_have_none(tmp_path: Path, refused: Any) -> None:
    folder = write_series(tmp_path / "ct", phantom(2, 24))
    for path in (folder, next(folder.iterdir())):
        said = refused("reconstruct", path, "--out", tmp_path / "volume.h5")
        assert "must hold a scan, got a series of images (DICOM)" in said


def test_info_tells_what_is_in_a_series(tmp_path: Path, run: Any) -> None:
    facts = run("info", write_series(tmp_path / "ct", phantom(3, 24)))
    assert facts["images"] == "3 of 24 x 24, CT, HU"
    assert facts["step"] == "2.5 mm from image to image"


# evaluate


def test_evaluate_tells_range_window_and_mask(tmp_path: Path, run: Any, refused: Any) -> None:
    noisy, clean = phantom(2, 48), phantom(2, 48, sd=0.0)
    clean[:, :6] = noisy[:, :6] = 4000
    one = write_series(tmp_path / "noisy", noisy, PixelPaddingValue=4000)
    other = write_series(tmp_path / "clean", clean, PixelPaddingValue=4000)
    figures = run("evaluate", one, other)
    difference = (noisy.astype(float) - clean)[:, 6:]
    span = float(np.ptp(clean[:, 6:]))
    assert figures["rmse"] == pytest.approx(float(np.sqrt(np.square(difference).mean())))
    assert figures["psnr_db"] == pytest.approx(10 * np.log10(span**2 / np.square(difference).mean()))
    assert (figures["data_range"], figures["mask"]) == (span, "all pixels except padding")
    assert figures["data_range_is"] == "max - min of the reference within the mask"
    assert (figures["window"], figures["unit"]) == ("none", "HU")
    narrow = run("evaluate", one, other, "--window", -100, 200)
    clipped = np.clip(noisy.astype(float) - 1024, -100, 200) - np.clip(clean.astype(float) - 1024, -100, 200)
    assert narrow["rmse"] == pytest.approx(float(np.sqrt(np.square(clipped[:, 6:]).mean())))
    assert (narrow["data_range"], narrow["window"]) == (300.0, "-100 to 200 HU")
    disc = run("evaluate", one, other, "--radius", 0.5, "--data-range", 1000)
    assert (disc["mask"], disc["data_range"]) == ("disc of 0.5 half-widths, no padding", 1000.0)
    assert "--rows and --step must be left out" in refused("evaluate", one, other, "--rows", "0:1")
    assert "a lower and a higher" in refused("evaluate", one, other, "--window", 5, 5)


def test_evaluate_wants_one_size_and_unit(tmp_path: Path) -> None:
    ct = write_series(tmp_path / "ct", phantom(2, 24))
    small = _write(tmp_path / "small.npy", phantom(2, 20))
    with pytest.raises(GeometryError, match=r"the reference's size \(2, 20, 20\), got \(2, 24, 24\)"):
        evaluate_images(ct, small)
    hounsfield = write_series(tmp_path / "other", phantom(2, 24), RescaleType="OD")
    with pytest.raises(GeometryError, match="the reference's unit OD, got HU"):
        evaluate_images(ct, hounsfield)
    for more in ({"radius": 0.0}, {"data_range": -1.0}):
        with pytest.raises(SettingsError, match="must be positive"):
            evaluate_images(ct, ct, **more)


def _tissues() -> tuple[np.ndarray, np.ndarray]:
    """Return stored numbers of air, fat and water, and where the water is."""
    y, x = np.mgrid[:96, :96] - 47.5
    stored = np.select([np.hypot(y, x) < 22, np.hypot(y, x) < 40], [1064, 924], 64).astype(np.uint16)
    return np.stack([stored] * 3), np.hypot(y, x) < 22


def test_evaluate_tells_the_bias_of_each_tissue(tmp_path: Path, run: Any, capsys: Any) -> None:
    clean, water = _tissues()
    noise = np.random.default_rng(0).normal(0, 8, clean.shape)
    shifted = np.rint(clean + noise + 15 * water).astype(np.uint16)
    one, other = write_series(tmp_path / "result", shifted), write_series(tmp_path / "clean", clean)
    figures = run("evaluate", one, other, "--window", -160, 40)
    found = {each["tissue"]: each for each in figures["tissues"]}
    assert list(found) == ["air", "fat", "soft tissue"]
    for name, each in found.items():  # the window hides half of the shift of water from RMSE, not from the table
        assert abs(each["bias"] - 15 * (name == "soft tissue")) < 4 * each["error"] < 3, name
    assert figures["window_is"] == "values outside it are clipped, for all these figures"
    assert "values not clipped" in figures["tissues_are"]
    assert figures["ssim_window"] == "Gaussian of sd 1.5 pixels"
    main(["evaluate", str(one), str(other)])
    shown = capsys.readouterr().err
    assert re.search(rf"soft tissue +-30 to 150 HU +{found['soft tissue']['pixels']} +\+1[45]\.\d\d +0\.\d+", shown)
    assert re.search(r"mask +all pixels", shown)
    assert re.search(r"window +none", shown)
    assert "tissues" not in shown


def test_evaluate_tells_no_tissues_but_in_hounsfield_units(tmp_path: Path, run: Any, capsys: Any) -> None:
    clean, _ = _tissues()
    density = write_series(tmp_path / "density", clean, RescaleType="OD")
    ct = write_series(tmp_path / "ct", clean)
    plain = _write(tmp_path / "plain.npy", clean)
    for one, other, unit in ((density, density, "OD"), (plain, ct, "raw, of the reference HU"), (plain, plain, "raw")):
        figures = run("evaluate", one, other)
        assert "tissues" not in figures
        assert figures["unit"] == unit
        main(["evaluate", str(one), str(other)])
        assert "Bias by tissue" not in capsys.readouterr().err
    assert len(run("evaluate", ct, ct)["tissues"]) == 3


def test_evaluate_tells_the_tissues_of_volumes_that_say_hounsfield(tmp_path: Path, run: Any) -> None:
    clean, water = _tissues()
    for name, volume in (("one", clean - 1024.0 + 7 * water), ("other", clean - 1024.0)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["exchange/data"] = volume.astype(np.float32)
            file["exchange/data"].attrs["units"] = "HU"
    figures = run("evaluate", tmp_path / "one.h5", tmp_path / "other.h5")
    assert [(each["tissue"], each["bias"]) for each in figures["tissues"]] == [
        ("air", 0),
        ("fat", 0),
        ("soft tissue", 7),
    ]
    assert (figures["unit"], figures["mask"]) == ("HU", "disc of 0.97 half-widths")


def test_evaluate_takes_tiff_for_images_beside_images(tmp_path: Path, run: Any) -> None:
    """The series that a run left, or NPY, against TIFF; TIFF against TIFF is a volume, which may have a window too."""
    clean, noisy = (phantom(3, 48, sd=sd) for sd in (0.0, 40.0))
    for name, stack in (("clean", clean), ("noisy", noisy), ("run/series", noisy)):
        (tmp_path / name).mkdir(parents=True)
        for number, image in enumerate(stack):
            _write(tmp_path / name / f"{number}.tif", image)
    difference = noisy.astype(float) - clean
    for result in (tmp_path / "run", _write(tmp_path / "noisy.npy", noisy)):
        figures = run("evaluate", result, tmp_path / "clean")
        assert figures["rmse"] == pytest.approx(np.sqrt(np.square(difference).mean()))
        assert (figures["images"], figures["mask"]) == (3, "all pixels")
    low, high = 940, 1000
    figures = run("evaluate", tmp_path / "noisy", tmp_path / "clean", "--window", low, high, "--radius", 2)
    clipped = np.clip(noisy.astype(float), low, high) - np.clip(clean.astype(float), low, high)
    assert figures["rmse"] == pytest.approx(np.sqrt(np.square(clipped).mean()))
    assert (figures["data_range"], figures["data_range_is"]) == (60, "the window's")
    assert (figures["window"], figures["unit"], figures["slices"]) == ("940 to 1000 not stated", "not stated", 3)


def test_evaluate_refuses_pixels_of_another_size(tmp_path: Path, refused: Any) -> None:
    one = write_series(tmp_path / "one", phantom(2, 24))
    other = write_series(tmp_path / "other", phantom(2, 24), PixelSpacing=[0.6, 0.6])
    assert "pixels of (0.6, 0.6) mm, got (0.5, 0.5)" in refused("evaluate", one, other)


# simulated CT, with noise that went through the reconstruction


@pytest.mark.slow
def test_filters_of_correlated_ct_noise_come_near_the_oracle(real_data: Any) -> None:
    found = np.load(real_data("SIMULATED_lcd_ct/lcd_fbp.npz"))
    noisy = found["dose010_present"][:4].astype(np.float32)
    one = ImageSeries(noisy, None, "lcd", unit="HU", modality="CT")
    truth = found["dose100_present"].astype(np.float32).mean(axis=0)
    left = found["dose100_present"].astype(np.float32).var(axis=0, ddof=1).mean() / 10  # noise of that mean
    result = quietray.denoise_images(one, None, Settings(method=GaussianFilter()))
    after = float(np.square(result.volume - truth).mean()) - left
    sigmas = np.geomspace(0.35, 5.6, 17)
    oracle = min(
        float(np.square(np.stack([GaussianFilter(s).apply(image) for image in noisy]) - truth).mean()) for s in sigmas
    )
    assert after < 1.15 * (oracle - left)
    assert result.metrics["noise"]["neighbour_correlation"] == pytest.approx(0.34, abs=0.02)
