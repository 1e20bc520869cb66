"""What a run starts from: the shipped prior, a kept model, or nothing; and that it is honest about it."""

import contextlib
import dataclasses
import hashlib
import json
import math
from importlib.resources import files
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

import quietray
import quietray.training.start as start_module
from quietray import Denoiser, Noise2Inverse, Noise2Self, Noise2Void, Recorrupted, Settings, Training, UNet
from quietray.assessment.tone import tone_of
from quietray.cli import main
from quietray.domains.base import settled
from quietray.errors import QuietrayError, ResourceError, SettingsError
from quietray.images import ImageSeries
from quietray.inference.denoiser import Scale
from quietray.running.ledger import Ledger
from quietray.running.models import distance, forget, nearest_model, remember, remembered
from quietray.running.output import Output, noted_start
from quietray.running.run import Run
from quietray.running.watch import Watch
from quietray.settings import from_dict, read_toml, to_dict
from quietray.simulate.objects import FINE_KINDS, KINDS, random_object
from quietray.splits.neighbourhood import Neighbourhood
from quietray.training.batches import TrainingVolume
from quietray.training.learn import Recipe, _decided
from quietray.training.loop import Fitted, Progress, fit
from quietray.training.start import Known, adapted, shipped_prior, shipped_priors, start_of
from scans import content, disc_scan, quick, short_report

WINDOWS = [
    Noise2Inverse(slices=1),
    Noise2Inverse(slices=3),
    Noise2Inverse(slices=7, parts=2),
    Noise2Inverse(slices=11),
    Noise2Inverse(slices=3, times=3),
    Noise2Inverse(slices=1, channels=4),
]


@pytest.fixture(autouse=True)
def _own_models(tmp_path, monkeypatch):
    monkeypatch.setenv("QUIETRAY_MODELS", str(tmp_path / "kept"))
    short_report(monkeypatch)


# --- the weights ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", shipped_priors())
def test_a_prior_is_small_and_the_one_of_its_card(name):
    place = Path(str(files("quietray") / f"training/priors/{name}.safetensors"))
    card = shipped_prior(name).facts
    assert place.stat().st_size <= 4 * 2**20
    assert hashlib.sha256(place.read_bytes()).hexdigest() == card["sha256"]
    for told in ("corpus", "seeds", "steps", "command", "gain_db", "failures", "machine"):
        assert card[told]
    assert card["gain_db"]["all"] > 6


@pytest.mark.parametrize("split", WINDOWS, ids=str)
def test_one_set_of_weights_serves_every_window(split, generator):
    """Slices that are alike give what they gave with the window that was learned."""
    known = shipped_prior("volume")
    new = start_of("prior", split, UNet()).network(UNet(), split).eval()
    image = torch.rand(1, 1, 40, 40, generator=generator)
    with torch.no_grad():
        wanted = known.network(image.expand(1, 7, -1, -1))
        found = new(image.expand(1, split.n_slices, -1, -1))
        if split.slices > 7:  # further slices are not looked at yet
            other = torch.rand(1, split.n_slices, 40, 40, generator=generator)
            torch.testing.assert_close(new(other), known.network(other[:, 2:9]), atol=1e-4, rtol=0)
    assert found.shape[1] == split.n_outputs
    torch.testing.assert_close(found, wanted.expand_as(found), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("split", "name"),
    [
        (Noise2Self(), "radiographs"),
        (Noise2Self(slices=3), "radiographs"),
        (Noise2Void(), "radiographs"),
        (Recorrupted(), "images"),
        (Recorrupted(slices=5), "images"),
    ],
    ids=str,
)
def test_methods_without_subsets_have_their_own_prior(split, name, generator):
    """Neighbouring slices are not looked at before the first step."""
    start = start_of("prior", split, UNet())
    assert start.said == f"the shipped prior {shipped_prior(name).facts['prior']}"
    network, x = start.network(UNet(), split).eval(), torch.rand(1, split.n_slices, 32, 32, generator=generator)
    middle = split.n_slices // 2
    with torch.no_grad():
        wanted = shipped_prior(name).network(x[:, middle : middle + 1])
        torch.testing.assert_close(network(x), wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("start", ["prior", "auto"])
def test_images_in_any_unit_start_from_the_prior(start):
    """It has no unit and no scale of its own, unlike a model that learned from images."""
    rng = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(rng.standard_normal((3, 64, 64)), (0, 0.7, 0.7))
    images = ImageSeries((1000 + 50 * noise).astype(np.float32), None, "somewhere", unit="HU")
    settings = quick(method=Recorrupted(), network=UNet(), start=start, steps=2)
    result = quietray.denoise(images, None, settings)
    assert result.history[0].step == 0
    assert result.denoiser.facts["started_from"].startswith("the shipped prior images-")
    assert result.denoiser.scale.high > 1000


def test_neighbours_keep_their_kernels():
    """Fewer neighbours: what looked further away looks at the outermost that is left, and the middle stays as it is."""
    before = UNet((4,)).build(5)
    after = adapted(before, UNet((4,)), (Neighbourhood(5), 1), Noise2Inverse(slices=3))
    old, new = before.down[0][0].weight, after.down[0][0].weight
    torch.testing.assert_close(new[:, 1], old[:, 2])
    torch.testing.assert_close(new[:, 0], old[:, 0] + old[:, 1])
    torch.testing.assert_close(new[:, 2], old[:, 3] + old[:, 4])


def test_another_network_has_no_prior_and_another_model_is_refused(tmp_path):
    assert start_of("prior", Noise2Inverse(), UNet((4, 8))) is None
    assert start_of("prior", quietray.Noisier2Noise(), UNet()) is None
    assert start_of("scratch", Noise2Inverse(), UNet()) is None
    model = Denoiser(UNet((4,)).build(3), UNet((4,)), Noise2Inverse(slices=3), Scale(0.0, 1.0))
    model.save(tmp_path / "model")
    start = start_of(str(tmp_path / "model"), Noise2Inverse(), UNet((8,)))
    with pytest.raises(SettingsError, match="must have the network of this run"):
        start.network(UNet((8,)), Noise2Inverse())


# --- training from it -------------------------------------------------------------------------------------------------


class Middle(nn.Module):
    """Returns the middle slice, times a weight: 1 does nothing, which on a clean object is best."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1, 1, 1, 1), weight))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x.mean(dim=1, keepdim=True)


def parts(noise: float = 0.3, seed: int = 0, smooth: float = 1.0) -> TrainingVolume:
    """Two measurements of a slice that goes from 0 to 1, all slices alike."""
    rng = np.random.default_rng(seed)
    clean = np.linspace(0, smooth, 64, dtype=np.float32)[None, None, None] * np.ones((2, 16, 64, 1), np.float32)
    noisy = clean + noise * rng.standard_normal(clean.shape).astype(np.float32)
    split = Noise2Inverse(parts=2, slices=3)
    return TrainingVolume.with_held_out(noisy, split, np.ones((64, 64), np.float32))


def test_a_good_start_is_judged_first_and_may_stay_the_best():
    split, training = Noise2Inverse(parts=2, slices=3), Training(steps=10, learning_rate=50.0, average=0.0, patch=16)
    found = fit(split, Known(lambda: Middle(1.0)), parts(noise=0.02), training)
    assert found.history[0].step == 0
    assert found.best.step == 0
    assert found.network.weight.item() == 1.0
    fresh = fit(split, lambda: Middle(1.0), parts(), training)
    assert fresh.history[0].step > 0


def test_a_start_that_makes_the_scan_worse_is_left(tmp_path):
    split = Noise2Inverse(parts=2, slices=3)
    wrong = UNet((4, 8)).build(3)
    with torch.no_grad():
        wrong.head.bias.fill_(5.0)
    Denoiser(wrong, UNet((4, 8)), split, Scale(0.0, 1.0)).save(tmp_path / "model")
    scan = quietray.read(disc_scan())
    result = quietray.denoise(scan, None, quick(start=str(tmp_path / "model")))
    fresh = quietray.denoise(scan, None, quick())
    assert "random weights, since the model" in result.denoiser.facts["started_from"]
    assert any("made this scan worse" in note for note in result.notes)
    np.testing.assert_array_equal(np.asarray(result.volume), np.asarray(fresh.volume))


@pytest.mark.parametrize(
    ("start", "steps", "words"),
    [("default", 6, "the shipped"), ("default", 300, "random"), ("prior", 300, "the shipped")],
)
def test_by_default_the_prior_is_for_few_steps(start, steps, words, monkeypatch) -> None:
    """After many steps random weights end as good or better; who asks for the prior gets it."""
    begun: list[str] = []
    settings = quick(start=start, network=UNet(), steps=steps)

    def stop(*args, **known):
        raise KeyboardInterrupt

    class Heard(Watch):
        def note(self, text: str) -> None:
            begun.append(text)

    monkeypatch.setattr("quietray.training.group.fit", stop)
    with pytest.raises(KeyboardInterrupt):
        quietray.denoise(quietray.read(disc_scan()), None, settings, watch=Heard())
    (said,) = (text for text in begun if text.startswith("Training starts from"))
    assert said.startswith(f"Training starts from {words}")


@pytest.mark.parametrize(
    ("begun", "start"), [("random weights, since there is time", "scratch"), ("the shipped prior", "prior")]
)
def test_settings_to_run_again_say_what_the_time_decided(begun, start) -> None:
    """On another machine there would be time for another number of steps; further networks of a run begin alike."""
    denoiser = dataclasses.replace(shipped_prior("volume"), facts={"started_from": begun})
    fitted = Fitted(denoiser.network, (), Progress(0, 0, 0.0, 0.0, 0.0, 0.0), "", 0.0)
    settings = quick(start="default", network=UNet())
    assert settled(settings, denoiser, fitted).start == start
    assert settled(dataclasses.replace(settings, start="auto"), denoiser, fitted).start == "auto"
    recipe = Recipe.of(Run.in_memory(settings)).as_begun(denoiser)
    assert (recipe.start is None) == (start == "scratch")
    assert recipe.most == math.inf


def test_a_run_says_what_it_started_from_and_can_be_taken_up_again(tmp_path, monkeypatch):
    """Bit-identical with a prior, too."""
    scan, settings = quietray.read(disc_scan()), quick(start="prior", network=UNet())
    settings = dataclasses.replace(settings, training=dataclasses.replace(settings.training, patch=24))
    whole = quietray.denoise(scan, tmp_path / "whole", settings)
    assert whole.history[0].step == 0
    assert "started from the shipped prior volume-2" in " ".join(whole.notes)
    assert from_dict(Settings, read_toml(tmp_path / "whole/run.toml")).start == "prior"

    class Stop(Watch):
        @contextlib.contextmanager
        def stage(self, name, total=None):
            done = 0

            def advance(count, text=""):
                nonlocal done
                done += 1
                if name == "training" and done == 6:
                    raise KeyboardInterrupt

            yield advance

    with pytest.raises(KeyboardInterrupt):
        quietray.denoise(scan, tmp_path / "again", settings, watch=Stop())
    assert noted_start(tmp_path / "again") == "prior"
    monkeypatch.setattr(start_module.Start, "said", "something else", raising=False)
    again = quietray.denoise(scan, tmp_path / "again", settings, resume=True)
    assert np.asarray(again.volume).tobytes() == np.asarray(whole.volume).tobytes()
    assert content(tmp_path / "again/model") == content(tmp_path / "whole/model")


def test_old_runs_go_on_as_they_began(tmp_path, capsys):
    arguments = ["denoise", str(disc_scan()), "--steps", "2", "--method", "noise2inverse", "--json"]
    main([*arguments, "--from", "scratch", "--out", str(tmp_path / "scratch")])
    assert json.loads(capsys.readouterr().out)["started_from"] == "random weights"
    begun = json.loads((tmp_path / "scratch/metrics.json").read_text())
    del begun["run"]["settings"]["start"]  # as a version that knew no prior wrote it
    (tmp_path / "scratch/metrics.json").write_text(json.dumps(begun))
    main([*arguments, "--resume", "--out", str(tmp_path / "scratch")])
    assert "complete" in capsys.readouterr().err
    assert Settings().start is None, "a file of settings that says nothing means what it meant"


@pytest.mark.parametrize(
    ("begun", "trained", "told"),
    [("volume-2", False, "volume-2"), ("volume-1", False, "volume-2"), ("volume-1", True, "volume-1")],
)
def test_a_run_of_another_version_goes_on_from_what_it_says(begun, trained, told, tmp_path):
    """What has not trained yet takes the prior of today; what has, has its weights in its state."""
    ledger = Ledger(tmp_path)
    ledger.note("start", {"from": begun})

    def decide(name, choose):
        if ledger.noted(name) is None:
            ledger.note(name, choose())
        return ledger.noted(name)

    state = tmp_path / "state"
    if trained:
        state.touch()
    output = Mock(Output, noted=ledger.noted, decide=decide, checkpoint=state)
    for _ in range(2):
        assert _decided(output, "volume-2", lambda: {"from": "volume-2"})["from"] == told
        state.touch()


@pytest.mark.parametrize(("views", "rate"), [(8, 0.1), (32, 1.0)])
def test_few_views_are_learned_from_with_care(views, rate, monkeypatch):
    """Streaks that subsets share would be taken for the object by a network that knows better."""
    rates: list[float] = []

    def stop(self, split, build, data, training, **known):
        rates.append(training.learning_rate)
        raise KeyboardInterrupt

    monkeypatch.setattr("quietray.training.learn.Group.fit", stop)
    scan = quietray.read(disc_scan(n_views=views))
    for start in ("prior", "scratch"):
        with pytest.raises(KeyboardInterrupt):
            quietray.denoise(scan, None, quick(start=start, network=UNet()))
    assert rates == [pytest.approx(rate * Training().learning_rate), Training().learning_rate]


# --- the mean ---------------------------------------------------------------------------------------------------------


def biased(weight: float) -> Denoiser:
    return Denoiser(Middle(weight), UNet((4,)), Noise2Inverse(parts=2, slices=3), Scale(0.0, 1.0))


@pytest.mark.parametrize("weight", [0.95, 1.04])
def test_a_biased_mean_is_found_from_what_was_not_seen(weight):
    """Over six seeds the gain was off by 0.003 and the offset by 0.0013 (standard deviations)."""
    gain, offset = tone_of(biased(weight), parts(noise=0.05))
    assert gain == pytest.approx(1 / weight, abs=0.01)
    assert offset == pytest.approx(0.0, abs=0.006)


@pytest.mark.parametrize("seed", range(3))
def test_a_right_mean_is_left_alone(seed):
    assert tone_of(biased(1.0), parts(seed=seed)) == (1.0, 0.0)


def test_a_tone_is_kept_with_the_model(tmp_path, generator):
    model = dataclasses.replace(shipped_prior("volume"), tone=(1.05, -0.01))
    model.save(tmp_path)
    back, x = Denoiser.load(tmp_path), torch.rand(1, 7, 16, 16, generator=generator)
    assert back.tone == (1.05, -0.01)
    plain = dataclasses.replace(back, tone=(1.0, 0.0))
    torch.testing.assert_close(back.evaluate(x), 1.05 * plain.evaluate(x) - 0.01)


# --- what it may not do -----------------------------------------------------------------------------------------------


def noise_scan(seed: int, image: np.ndarray | None = None, photons: float = 200.0):
    """A cylinder of uniform attenuation, or one with an image in every slice, in simulated counts."""
    from quietray.operators.nufft import ParallelRays

    n, rows, views = 96, 12, 160
    y, x = np.mgrid[:n, :n] - (n - 1) / 2
    body = 0.012 * np.clip(40 - np.hypot(y, x), 0, 1)
    if image is not None:
        body = body * (1 - image)
    beam = quietray.ParallelBeam(np.linspace(0, np.pi, views, endpoint=False), 1, n, (n - 1) / 2)
    rays = ParallelRays(beam)
    lines = rays.project(body[None].astype(np.float32), np.ones(rays.width // 2 + 1, np.float32), np.ones(views))[0]
    rng = np.random.default_rng(seed)
    counts = rng.poisson(photons * np.exp(-lines)[:, None].repeat(rows, axis=1)).astype(np.uint16)
    flats = np.full((4, rows, n), photons, np.float32)
    whole = quietray.ParallelBeam(beam.angles, rows, n, (n - 1) / 2)
    scan = quietray.Scan(counts, whole, flats=flats, darks=np.zeros((2, rows, n), np.float32), source="simulated")
    return scan, body


@pytest.mark.slow
@pytest.mark.parametrize("method", [Noise2Inverse(), Noise2Self()], ids=str)
def test_nothing_is_invented_in_pure_noise(method):
    """Two scans of one cylinder of nothing but noise: what is left in one is not what is left in the other."""
    settings = Settings(method=method, start="prior", symmetries=1, training=Training(steps=20, precision="fp32"))
    cut = (slice(None), slice(30, 66), slice(30, 66))  # well within the cylinder, where it is uniform
    left = [np.asarray(quietray.denoise(noise_scan(seed)[0], None, settings).volume)[cut] for seed in (1, 2)]
    left = [one - one.mean() for one in left]
    noisy = np.asarray(quietray.reconstruct(noise_scan(1)[0]))[cut]
    assert left[0].std() < 0.2 * noisy.std()
    shared = float((left[0] * left[1]).mean() / (left[0].std() * left[1].std()))
    blocks = left[0].size / 7 / 36  # independent patches, at the size of what is left
    assert abs(shared) < 3 / np.sqrt(blocks)


# --- the models of this machine ---------------------------------------------------------------------------------------


def kept(tmp_path, name: str, **facts):
    model = Denoiser(UNet((4,)).build(3), UNet((4,)), Noise2Inverse(slices=3), Scale(0.0, 1.0), facts=facts)
    model.save(tmp_path / f"{name}-model")
    return remember(tmp_path / f"{name}-model", name)


def test_models_are_found_by_their_noise(tmp_path):
    kept(tmp_path, "quiet", noise_level=0.1, correlation=0.0, voxel_size_mm=0.01)
    kept(tmp_path, "loud", noise_level=0.8, correlation=0.0, voxel_size_mm=0.01)
    kept(tmp_path, "shared", noise_level=0.8, correlation=0.5, voxel_size_mm=0.01)
    network = to_dict(UNet((4,)))
    scan = {"noise_level": 0.7, "correlation": 0.45, "voxel_size_mm": 0.01}
    model, far, why = nearest_model(scan, "noise2inverse", "unet", network)
    assert model.name == "shared"
    assert far < 1
    assert why == "its noise is similar"
    model, far, why = nearest_model({**scan, "correlation": 0.0}, "noise2inverse", "unet", network)
    assert model.name == "loud"
    far, why = distance(model.card, {**scan, "noise_level": 0.1})
    assert far > 3
    assert why.startswith("the noise of the scan is 0.1 times that of the model and its neighbouring")
    assert nearest_model(scan, "noise2inverse", "unet", to_dict(UNet((8,)))) is None
    assert nearest_model(scan, "noise2self", "unet", network) is None
    start = start_of("auto", Noise2Inverse(slices=3), UNet((4,)), scan)
    assert start.said.startswith("the kept model shared (distance 0.")


def test_auto_takes_the_prior_where_no_kept_model_is_near(tmp_path):
    model = dataclasses.replace(shipped_prior("volume"), facts={"noise_level": 0.01, "correlation": 0.0})
    model.save(tmp_path / "model")
    remember(tmp_path / "model", "far")
    said = start_of("auto", Noise2Inverse(), UNet(), {"noise_level": 0.5, "correlation": 0.0}).said
    assert said.startswith("the shipped prior volume-2 (the nearest kept model, far, is 9.6")
    assert "the noise of the scan is 50.0 times that of the model" in said


@pytest.mark.slow
def test_the_command_line_lists_adds_shows_and_removes(tmp_path, capsys):
    scan = str(disc_scan())
    out = tmp_path / "out"
    main(["denoise", scan, "--steps", "2", "--method", "noise2inverse", "--out", str(out), "--remember"])
    name = Path(scan).stem
    assert noted_start(out) == "default", "which nobody asked for"
    main(["models", "add", str(out)])
    main(["models", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert sorted(found["models"]) == [name, f"{name}-2"]
    card = found["models"][name]
    assert card["noise_level"] > 0
    assert card["method"] == "noise2inverse"
    assert card["started_from"] == "the shipped prior volume-2"
    main(["models", "remove", name])
    main(["models", "show", f"{name}-2", "--json"])
    assert json.loads(capsys.readouterr().out)["noise_level"] == card["noise_level"]
    assert [one.name for one in remembered()] == [f"{name}-2"]
    main(["models", "show", "prior-volume", "--json"])
    assert json.loads(capsys.readouterr().out)["prior"] == "volume-2"
    with pytest.raises(SystemExit):
        main(["models", "show", "nobody"])
    assert "must be one of those" in capsys.readouterr().err.replace("\n", " ")


def test_what_cannot_be_kept_is_refused(tmp_path):
    kept(tmp_path, "one", noise_level=0.1)
    with pytest.raises(ResourceError, match="must have a new name"):
        remember(tmp_path / "one-model", "one")
    with pytest.raises(SettingsError, match="a plain word"):
        remember(tmp_path / "one-model", "../one")
    with pytest.raises(QuietrayError, match="must hold a model"):
        remember(tmp_path)
    forget("one")
    with pytest.raises(SettingsError, match="must be one of those"):
        forget("one")


# --- looking on -------------------------------------------------------------------------------------------------------


def test_a_preview_is_renewed_at_every_judgement(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("quietray.report.preview.write_report", lambda path, data: seen.append(data))

    class Looking(Watch):
        previews = True

    result = quietray.denoise(quietray.read(disc_scan()), tmp_path / "out", quick(), watch=Looking())
    assert len(seen) == len(result.history) == 3
    assert [len(data.history) for data in seen] == [1, 2, 3]
    assert seen[0].cuts[0].before.shape == seen[0].cuts[0].after.shape
    assert (tmp_path / "out/preview.png").read_bytes()[1:4] == b"PNG"
    again = quietray.denoise(quietray.read(disc_scan()), tmp_path / "out", quick(), overwrite=True)
    assert not (tmp_path / "out/preview.png").exists()
    np.testing.assert_array_equal(np.asarray(again.volume), np.asarray(result.volume))


# --- the corpus -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*KINDS, *FINE_KINDS])
def test_objects_come_from_their_seeds(kind):
    one, same, other = (random_object(kind, (4, 32, 32), np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.01
    assert np.isfinite(one).all()
    assert one.min() >= 0
    assert one.max() == 1
    corners = one[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == 0).all(), "there is air around it"
