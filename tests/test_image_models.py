"""Models of images: trained on pairs of any kind, applied with a guard, fine-tuned on their own output."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quietray
from dicom_files import phantom, write_series
from quietray import ImagePairs, ImageSeries, Settings
from quietray.cli import main
from quietray.domains.image_methods import noise_models, noise_of, together
from quietray.errors import FormatError, GeometryError, NoiseError, ResourceError, SettingsError
from quietray.filters import GaussianFilter
from quietray.inference.denoiser import Denoiser
from quietray.inference.guard import expected_error
from quietray.io import is_pairs, read_images
from quietray.networks import UNet
from quietray.running.settings import Training
from quietray.settings import from_dict, read_toml
from quietray.splits import Noise2Clean, Noise2Inverse, Noise2Noise, Noise2Void, PseudoCT
from scans import disc_scan

SIZE, SD = 64, 80.0
CLEAN = phantom(1, SIZE, sd=0.0)[0].astype(np.float32)


def noisy(seed: int = 0, sd: float = SD, n: int = 6, shared: bool = True) -> ImageSeries:
    return ImageSeries(phantom(n, SIZE, sd, seed, shared).astype(np.float32), None, f"seed {seed}")


def clean(n: int = 6) -> ImageSeries:
    return ImageSeries(np.repeat(CLEAN[None], n, axis=0), None, "clean")


def settings(method: Any, steps: int = 150, **more: Any) -> Settings:
    training = Training(
        steps, batch=1, patch=32, judgements=3, average=0.9, learning_rate=5e-3, patience=1.0, precision="fp32"
    )
    return Settings(method=method, network=UNet((8, 16)), training=training, symmetries=1, seed=1, **more)


def error(images: Any) -> float:
    return float(np.square(np.asarray(images) - CLEAN).mean())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that learned from clean images of two subjects, with models of their noise."""
    folder = tmp_path_factory.mktemp("model")
    pairs = [ImagePairs((noisy(seed),), clean()) for seed in (1, 2)]
    quietray.train_images(pairs, folder, settings(Noise2Clean(), noise_models=True))
    return folder


# pairs


def test_pairs_are_read_by_their_names(tmp_path: Path) -> None:
    for name, images in (("noisy", noisy(1)), ("noisy2", noisy(2)), ("clean", clean())):
        np.save(tmp_path / f"{name}.npy", images.images)
    (tmp_path / "notes.txt").write_text("anything")
    pairs = quietray.read_pairs(tmp_path)
    assert [float(one.images[0, 0, 0]) for one in pairs.noisy] == [noisy(s).images[0, 0, 0] for s in (1, 2)]
    assert pairs.clean is not None
    assert np.array_equal(pairs.clean.images[0], CLEAN)
    assert is_pairs(tmp_path)
    assert not is_pairs(tmp_path / "clean.npy")


def test_folders_that_hold_no_pairs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"must be a folder with one 'noisy'.*got nothing"):
        quietray.read_pairs(tmp_path)
    np.save(tmp_path / "noisy.npy", noisy().images)
    np.save(tmp_path / "clean.npy", clean(3).images)
    with pytest.raises(GeometryError, match=r"must have the images' size and unit, \(6, 64, 64\)"):
        quietray.read_pairs(tmp_path)
    np.save(tmp_path / "clean.tif.npy", clean().images)
    (tmp_path / "clean").mkdir()
    with pytest.raises(FormatError, match="at most one 'clean'"):
        quietray.read_pairs(tmp_path)


def test_names_that_only_begin_like_pairs_are_a_series(tmp_path: Path) -> None:
    for k in range(3):
        np.save(tmp_path / f"noisy_{k}.npy", CLEAN)
    assert not is_pairs(tmp_path)
    folder = tmp_path / "pairs"
    (folder / "noisy").mkdir(parents=True)
    (folder / ".DS_Store").write_text("anything")
    assert is_pairs(folder), "an empty one is said to be empty"
    with pytest.raises(FormatError, match="noisy must hold DICOM, PNG, TIFF or NPY images, got an empty folder"):
        quietray.read_pairs(folder)
    for name in ("noisy2", "noisy10"):
        np.save(folder / f"{name}.npy", noisy(len(name)).images)
    np.save(folder / "noisy/1.npy", noisy(1).images)
    assert [Path(one.source).stem for one in quietray.read_pairs(folder).noisy] == ["noisy", "noisy2", "noisy10"]
    np.save(folder / "noisy.npy", noisy(1).images)
    with pytest.raises(FormatError, match="one 'noisy', perhaps one 'noisy2'"):
        quietray.read_pairs(folder)


# training


@pytest.mark.parametrize(
    ("method", "pair", "name"),
    [
        (Noise2Clean(), lambda s: ImagePairs((noisy(s),), clean()), "noise2clean"),
        (quietray.running.settings.Auto(), lambda s: ImagePairs((noisy(s), noisy(s + 9)), clean()), "noise2clean"),
        (Noise2Noise(), lambda s: ImagePairs((noisy(s), noisy(s + 9))), "noise2noise"),
        (quietray.running.settings.Auto(), lambda s: ImagePairs((noisy(s), noisy(s + 9))), "noise2noise"),
        (Noise2Void(), lambda s: ImagePairs((noisy(s, shared=False),)), "noise2void"),
    ],
)
def test_a_model_of_any_pairs_denoises_images_that_it_never_saw(
    tmp_path: Path, method: Any, pair: Any, name: str
) -> None:
    quietray.train_images([pair(1), pair(2)], tmp_path / "model", settings(method))
    fresh = noisy(5, shared=name != "noise2void")
    result = quietray.apply_images(tmp_path / "model", fresh, None, settings(method))
    assert result.metrics["method"]["name"] == name
    assert error(result.volume) < 0.5 * error(fresh.images)
    assert result.metrics["estimate"]["rmse"] ** 2 == pytest.approx(error(result.volume), rel=0.5)
    assert not any("trained on other images" in told for told in result.warnings)
    facts = Denoiser.load(tmp_path / "model").facts
    assert [one["source"] for one in facts["trained_on"]] == ["seed 1", "seed 2"]


def test_all_subjects_are_in_one_scale(tmp_path: Path) -> None:
    bright = ImageSeries(noisy(2).images + 1000, None, "bright")
    found = quietray.train_images(
        [ImagePairs((noisy(1), noisy(3))), ImagePairs((bright, bright))], tmp_path, settings(Noise2Noise(), 2)
    )
    assert found.scale.low == np.percentile(noisy(1).images, 2)
    assert found.scale.high == np.percentile(bright.images, 98)


@pytest.mark.parametrize(
    ("method", "pair", "more", "said"),
    [
        (Noise2Clean(), ImagePairs((noisy(1),)), {}, "must have clean images, got none"),
        (Noise2Noise(), ImagePairs((noisy(1),)), {}, "two or more measurements"),
        (Noise2Inverse(), ImagePairs((noisy(1),)), {}, "one for images, got noise2inverse"),
        (GaussianFilter(), ImagePairs((noisy(1),)), {}, "must have a network"),
        (PseudoCT(), ImagePairs((noisy(1),)), {}, "must have a network"),
        (
            Noise2Void(),
            ImagePairs((noisy(1),)),
            {"noise_models": True},
            "models of the noise must be trained on clean images",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(tmp_path: Path, method: Any, pair: Any, more: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        quietray.train_images([pair], tmp_path / "model", settings(method, 2, **more))
    assert not (tmp_path / "model").exists()


def test_what_is_not_the_models_is_left_in_its_folder(tmp_path: Path) -> None:
    pairs, out = [ImagePairs((noisy(1),), clean())], tmp_path / "out"
    quietray.train_images(pairs * 2, out, settings(Noise2Clean(), 2, noise_models=True))
    (out / "noise/mine.txt").write_text("mine")
    quietray.train_images(pairs, out, settings(Noise2Clean(), 2), overwrite=True)
    assert noise_models(str(out)) == []
    assert (out / "noise/mine.txt").read_text() == "mine"
    with pytest.raises(ResourceError, match="must be a folder that can be written"):
        quietray.train_images(pairs, out / "run.toml", settings(Noise2Clean(), 2), overwrite=True)


def test_pixels_that_one_of_a_pair_did_not_measure_are_no_targets() -> None:
    padding = np.zeros((6, SIZE, SIZE), bool)
    padding[:, :9] = True
    half = ImageSeries(clean().images, None, "padded", padding=padding)
    assert ImagePairs((noisy(1),), half).weight[:9].max() == 0
    assert ImagePairs((noisy(1),), half).weight[9:].min() == 1
    with pytest.raises(GeometryError, match="must have a noisy measurement"):
        ImagePairs(())
    with pytest.raises(SettingsError, match="must be trained on images, got none"):
        quietray.train_images([], "nowhere")


def test_the_noise_of_all_subjects_counts() -> None:
    found = together([noise_of([noisy(1, sd=30.0)]), None, noise_of([noisy(1, sd=90.0)])])
    assert found is not None
    assert found.sd == pytest.approx(np.sqrt((30**2 + 90**2) / 2), rel=0.1)
    assert together([None]) is None


def test_a_model_is_of_one_unit(tmp_path: Path, model: Path) -> None:
    in_hu = ImageSeries(noisy().images, None, "hu", unit="HU")
    with pytest.raises(SettingsError, match="must have one unit, got raw"):
        quietray.train_images([ImagePairs((noisy(),)), ImagePairs((in_hu,))], tmp_path, settings(Noise2Void(), 2))
    with pytest.raises(SettingsError, match=r"trained on images in HU, as those in hu, got one of images in raw"):
        quietray.apply_images(model, in_hu)
    with pytest.raises(SettingsError, match=r"must have been trained on scans .* got one of images in raw"):
        quietray.apply(model, quietray.read(disc_scan()))


# applying


def test_the_guard_leaves_images_as_they_are_that_a_model_would_make_worse(model: Path, tmp_path: Path) -> None:
    quiet = noisy(7, sd=4.0)
    result = quietray.apply_images(model, quiet)
    denoiser = Denoiser.load(model)
    alone = np.stack([denoiser.slice(image[None, None], 0)[0] for image in quiet.images])
    assert error(alone) > error(quiet.images)
    assert np.array_equal(result.volume, quiet.images)
    assert result.metrics["guard"] == {"images": 6, "left_as_they_were": 6}
    assert any("6 of 6 images were left unchanged" in told for told in result.warnings)
    assert any("its noise is" in told for told in result.warnings)
    with pytest.raises(SettingsError, match="the images must be like those that the model was trained on"):
        quietray.apply_images(model, quiet, strict=True)
    loud = quietray.apply_images(model, noisy(7))
    assert loud.metrics["guard"]["left_as_they_were"] == 0


def test_the_figures_are_of_what_was_written(model: Path, tmp_path: Path) -> None:
    quiet = quietray.apply_images(model, noisy(7, sd=4.0), tmp_path / "out")
    estimate = quiet.metrics["estimate"]
    assert estimate["psnr_gain_db_at_most"] == pytest.approx(0.0, abs=1e-6)
    assert estimate["psnr_gain_db"] is estimate["rmse"] is None
    assert "too few uniform regions" in estimate["withheld"], "its noise of 4 is measured as 8"
    assert not any("--budget" in told for told in quiet.warnings), "a model that is applied has none"
    written = from_dict(Settings, read_toml(tmp_path / "out/run.toml"))
    assert written.network == UNet((8, 16)), "the model's, whatever the settings say"


def test_padding_tells_the_guard_nothing() -> None:
    """Where nothing was measured there is no noise, and an edge that no image has."""
    rng = np.random.default_rng(0)
    image = (600 + 100 * (np.indices((96, 96)).sum(axis=0) % 12 < 6) + 40 * rng.standard_normal((96, 96))).astype("f4")
    blur, seen = GaussianFilter(0.8).apply, np.ones((96, 96), np.float32)
    seen[:32] = 0
    padded = np.where(seen > 0, image, np.float32(-1000))
    alone, whole = (expected_error(blur, x, 40.0, weight=w)[1] for x, w in ((image, seen), (padded, seen)))
    assert whole == pytest.approx(alone, rel=0.02)
    assert expected_error(blur, padded, 40.0)[1] > 1.2 * alone


def test_images_without_noise_are_refused_and_one_blank_among_others_is_not(model: Path) -> None:
    with pytest.raises(NoiseError, match="must hold noise, got none"):
        quietray.apply_images(model, ImageSeries(np.ones((4, 64, 64), np.float32), None, "blank"))
    mixed = noisy(8)
    mixed.images[2] = 1000.0
    assert quietray.apply_images(model, mixed).metrics["guard"]["images"] == 6


@pytest.mark.parametrize("shared", [False, True])
def test_the_expected_error_knows_of_shared_noise(shared: bool) -> None:
    lags = np.zeros((7, 7))
    lags[3, 3] = 1.0
    if shared:
        found = np.mean([_lags(noisy(seed).images - CLEAN) for seed in range(4)], axis=0)
        lags = found / found[3, 3]
    blur = GaussianFilter(1.0).apply
    expected, true = [], []
    for seed in range(4):
        for k, image in enumerate(noisy(seed, shared=shared).images):
            done, told = expected_error(blur, image, SD, lags=lags, seed=10 * seed + k)
            expected.append(told**2)
            true.append(error(done))
    assert np.mean(expected) == pytest.approx(np.mean(true), abs=0.02 * SD**2), "two percent of the noise's power"


def _lags(noise: np.ndarray) -> np.ndarray:
    from quietray.detector.noise.lags import autocorrelation

    return np.asarray(autocorrelation(noise.astype(np.float32), np.ones(noise.shape[1:], bool), (3, 3)))


# pseudo-ct


def test_pseudo_ct_goes_on_from_a_model_with_its_models_of_the_noise(model: Path, tmp_path: Path) -> None:
    assert len(noise_models(str(model))) == 2
    assert noise_models(str(tmp_path)) == []
    fresh = noisy(5)
    before = quietray.apply_images(model, fresh)
    result = quietray.denoise_images(fresh, tmp_path / "out", settings(PseudoCT(5), 40, start=str(model)))
    assert "simulated by 2 models of it" in " ".join(result.notes)
    assert error(result.volume) < 1.05 * error(before.volume)
    assert result.metrics["method"]["name"] == "pseudo-ct"
    assert result.metrics["estimate"]["rmse"] <= before.metrics["estimate"]["rmse"] * 1.1
    again = Denoiser.load(tmp_path / "out/model")
    assert again.split == PseudoCT(5)
    assert [one["source"] for one in again.facts["trained_on"]] == ["seed 1", "seed 2", "seed 5"]
    with pytest.raises(SettingsError, match="pseudo-ct must have one measurement of the images, got 2"):
        quietray.denoise_images(fresh, None, settings(PseudoCT(), 2, start=str(model)), repeats=[noisy(6)])
    with pytest.raises(SettingsError, match="got one of noise in raw"):
        quietray.denoise_images(fresh, None, settings(PseudoCT(), 2, start=str(model / "noise/001")))


def test_pseudo_ct_that_makes_it_no_better_changes_nothing(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With far too much noise on its own output it learns to blur, and what judges it sees that."""
    from quietray.domains import image_methods
    from quietray.splits.pseudo import GaussianNoise

    monkeypatch.setattr(image_methods, "EnsembleNoise", lambda sources, block: GaussianNoise(3.0))
    monkeypatch.setattr("quietray.domains.images.FINE_TUNING", 5e-3)
    result = quietray.denoise_images(noisy(5), None, settings(PseudoCT(5), 40, start=str(model)))
    before = Denoiser.load(model).network.state_dict()
    after = result.denoiser.network.state_dict()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_pseudo_ct_without_models_of_the_noise_draws_what_was_measured(tmp_path: Path) -> None:
    quietray.train_images([ImagePairs((noisy(1), noisy(2)))], tmp_path, settings(Noise2Noise()))
    result = quietray.denoise_images(noisy(5), None, settings(PseudoCT(5), 20, start=str(tmp_path)))
    assert "simulated as measured" in " ".join(result.notes)
    assert error(result.volume) < 0.5 * error(noisy(5).images)


def test_pseudo_ct_needs_a_model_of_images(tmp_path: Path, model: Path) -> None:
    with pytest.raises(SettingsError, match="pseudo-ct must start from a trained model, got none"):
        quietray.denoise_images(noisy(), None, settings(PseudoCT()))
    quietray.denoise_images(noisy(), tmp_path / "filtered", Settings(method=GaussianFilter()))
    with pytest.raises(SettingsError, match="a network for single images, got a filter"):
        quietray.denoise_images(noisy(), None, settings(PseudoCT(), start=str(tmp_path / "filtered/model")))
    with pytest.raises(SettingsError, match="pseudo-ct must be given images, got a scan"):
        quietray.denoise(quietray.read(disc_scan()), None, Settings(method=PseudoCT()))


# the command line


def run(capsys: Any, *arguments: Any) -> Any:
    capsys.readouterr()
    main([*(str(argument) for argument in arguments), "--json"])
    return json.loads(capsys.readouterr().out)


def test_train_apply_and_pseudo_ct_on_dicom(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = tmp_path / "small.toml"
    small.write_text("symmetries = 1\n[network]\nwidths = [4, 4]\n[training]\nbatch = 1\npatch = 32\njudgements = 2\n")
    for subject in (1, 2):
        write_series(tmp_path / f"pairs{subject}/noisy", phantom(4, 48, SD, subject))
        write_series(tmp_path / f"pairs{subject}/clean", phantom(4, 48, 0.0))
    series = write_series(tmp_path / "series", phantom(4, 48, SD, 5))
    common = ("--config", small, "--steps", 4)
    facts = run(
        capsys, "train", tmp_path / "pairs1", "--more", tmp_path / "pairs2", "--method", "noise2clean", "--loss", "mae",
        "--noise-models", "--out", tmp_path / "model", *common,
    )  # fmt: skip
    assert facts["domain"] == "images"
    assert facts["unit"] == "HU"
    assert (tmp_path / "model/noise/002/model.json").exists()
    assert 'loss = "mae"' in (tmp_path / "model/run.toml").read_text()
    figures = run(capsys, "apply", tmp_path / "model", series, "--out", tmp_path / "applied")
    assert figures["guard"]["images"] == 4
    assert read_images(tmp_path / "applied/series").images.shape == (4, 48, 48)
    figures = run(
        capsys, "denoise", series, "--method", "pseudo-ct", "--from", tmp_path / "model", "--out", tmp_path / "pct",
        *common,
    )  # fmt: skip
    assert figures["method"]["name"] == "pseudo-ct"
    assert read_images(tmp_path / "pct/series").unit == "HU"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("train", "pairs", "--rows", "0:2"), "--rows must be left out for images"),
        (("train", "pairs", "--clean", "series"), "--clean must go with one series"),
        (("train", "pairs", "--slices", "3"), "--slices must be left out for images"),
        (("train", "series", "--method", "noise2clean"), "must have clean images, got none"),
        (("denoise", "series", "--method", "pseudo-ct"), "must start from a trained model, got none"),
        (("apply", "nowhere", "series"), "the model must exist, got nowhere"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: Any, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_series(tmp_path / "series", phantom(2, 32))
    write_series(tmp_path / "pairs/noisy", phantom(2, 32))
    with pytest.raises(SystemExit) as left:
        main([*arguments, "--out", "out"])
    assert left.value.code == 2
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told
    assert not Path("out").exists()
