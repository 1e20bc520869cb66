"""A method of the user's own, in the user's own file: it runs as given, wherever the built-in ones do."""

import dataclasses
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

import quietray
from quietray import workflows
from quietray.checkpoint import replace_file
from quietray.domains import DOMAINS, Domain
from quietray.domains.auto import decided
from quietray.domains.volume import VolumeDomain
from quietray.errors import NoiseError, SettingsError
from quietray.metrics.noreference import Judgement, averaged
from quietray.preparation import prepare as prepare_module
from quietray.running.output import Output
from quietray.running.run import Run
from quietray.running.slabs import SlabTask, Threads
from quietray.running.watch import Watch
from quietray.scan import Scan
from quietray.splits.base import Network, Pair
from scans import disc_scan, in_slabs, quick


class TwoHalves(quietray.Split):
    """Even and odd views, one seen and the other met: a plain class without settings."""

    called: ClassVar[str] = "two-halves"
    n_parts = 2
    n_slices = 1

    def draw(self, samples: Tensor, generator: torch.Generator) -> Pair:
        """Return one half, and the other."""
        first = int(torch.randint(2, (), generator=generator))
        return Pair(samples[:, first], samples[:, 1 - first], torch.ones(1, 1, 1, 1))

    def infer(self, network: Network, samples: Tensor) -> Tensor:
        """Return the mean of both outputs."""
        return (network(samples[:, 0]).float() + network(samples[:, 1]).float()) / 2

    def judge(self, network: Network, samples: Tensor, weight: Tensor) -> Judgement:
        """Judge each output by the other half."""
        noise = (samples[:, 0] - samples[:, 1]).square() / 4
        error = (network(samples[:, 0]).float() - samples[:, 1]).square() - 2 * noise
        return averaged(error, noise, weight)


@dataclass(frozen=True)
class Blind(quietray.Noise2Self):
    """Noise2Self by another name, on radiographs."""

    called: ClassVar[str] = "blind"
    more: int = 3


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflows, "write_report", lambda path, data: replace_file(path, data.title.encode()))
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def short(method: Any, **more: Any) -> quietray.Settings:
    """Return settings of a short run."""
    settings = quick(method=method, whiten="never", **more)
    return dataclasses.replace(settings, training=dataclasses.replace(settings.training, steps=6, judgements=2))


@pytest.mark.parametrize(("method", "domain"), [(TwoHalves(), "volume"), (Blind(grid=3), "radiographs")])
def test_an_own_method_runs_as_given(tmp_path: Path, method: quietray.Split, domain: str) -> None:
    result = quietray.denoise(quietray.read(disc_scan()), tmp_path / "out", short(method))
    facts = result.metrics.method
    assert (facts.name, facts.domain, facts.parts) == (method.called, domain, method.n_parts)
    assert result.metrics.estimate.data_range > 0
    assert result.metrics.evidence is not None
    assert result.settings.method == method or isinstance(method, TwoHalves)
    assert result.denoiser.split.n_parts == method.n_parts
    loaded = quietray.Denoiser.load(tmp_path / "out/model")
    assert type(loaded.split) is type(method)
    whole = quietray.denoise(quietray.read(disc_scan()), tmp_path / "out", short(method), resume=True)
    np.testing.assert_array_equal(whole.volume[:], result.volume[:])
    assert f'name = "{method.called}"' in (tmp_path / "out/run.toml").read_text()


def test_an_own_method_is_not_noise2inverse(tmp_path: Path) -> None:
    """The two deal views alike, and differ in what they do with them: so must the volumes."""
    scan = quietray.read(disc_scan())
    own = quietray.denoise(scan, None, short(TwoHalves()))
    other = quietray.denoise(scan, None, short(quietray.Noise2Inverse(parts=2, slices=1)))
    assert not np.array_equal(own.volume, other.volume)


def test_an_own_method_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_slabs(monkeypatch)
    scan, settings = quietray.read(disc_scan()), short(TwoHalves())
    whole = quietray.denoise(scan, tmp_path / "whole", settings)
    write, count = Output.write, [0]

    def killed(self: Output, *args: Any) -> None:
        count[0] += 1
        if count[0] == 2:
            raise KeyboardInterrupt
        write(self, *args)

    monkeypatch.setattr(Output, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        quietray.denoise(scan, tmp_path / "out", settings)
    again = quietray.denoise(scan, tmp_path / "out", settings, resume=True)
    np.testing.assert_array_equal(again.volume[:], whole.volume[:])


def test_strings_resolve() -> None:
    settings = quietray.Settings(method="noise2self", network="msd", reconstruction="sirt")  # type: ignore[arg-type]
    assert settings == quietray.Settings(
        method=quietray.Noise2Self(), network=quietray.MSD(), reconstruction=quietray.SIRT()
    )


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"method": "bm3d"}, "the method must be one of auto, .*, got 'bm3d'"),
        ({"method": "noise2slef"}, "did you mean 'noise2self'"),
        ({"network": "unett"}, "the network must be one of unet, .*, got 'unett' .did you mean 'unet'"),
        ({"reconstruction": "sirrt"}, "the algorithm must be one of .*, got 'sirrt' .did you mean 'sirt'"),
        ({"budgett": "4m"}, "'budgett' must be a known setting.*did you mean 'budget'"),
        ({"format": "tif"}, "must be one of .*did you mean 'tiff'"),
    ],
)
def test_what_is_not_known_is_an_error(named: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        quietray.denoise(quietray.read(disc_scan()), **named)


def test_another_class_of_the_same_name_is_refused() -> None:
    class Twin(quietray.Noise2Self):
        called: ClassVar[str] = "noise2void"

    with pytest.raises(SettingsError, match="must have a name of its own, got 'noise2void'"):
        quietray.Settings(method=Twin())


def test_settings_that_cannot_be_written_down_are_refused() -> None:
    class Tuned(TwoHalves):
        called: ClassVar[str] = "tuned-halves"

        def __init__(self, strength: float) -> None:
            self.strength = strength

    with pytest.raises(SettingsError, match="must be a frozen dataclass, so that its settings can be written down"):
        quietray.denoise(quietray.read(disc_scan()), None, short(Tuned(2.0)))


# ---- what every domain is


def test_every_domain_has_the_one_shape() -> None:
    for domain in DOMAINS.values():
        assert issubclass(domain, Domain)
        assert not domain.__abstractmethods__


def test_a_method_in_no_domain_is_refused() -> None:
    class Elsewhere(TwoHalves):
        called: ClassVar[str] = "elsewhere"
        domain: ClassVar[str] = "sinograms"

    with pytest.raises(SettingsError, match=r"domain of elsewhere must be one of volume, .*, got 'sinograms'"):
        quietray.denoise(quietray.read(disc_scan()), None, short(Elsewhere()))


# ---- the one loop over slabs


def tasks_of(tmp_path: Path, method: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[list[SlabTask], Any]:
    """Run a method in slabs into a folder; return the tasks of its loops, and the result."""
    seen: list[SlabTask] = []
    over = Run.over
    monkeypatch.setattr(
        Run, "over", lambda self, slabs, task, stage: (seen.append(task), over(self, slabs, task, stage))
    )
    result = quietray.denoise(quietray.read(disc_scan()), tmp_path / "out", short(method))
    return seen, result


@pytest.mark.parametrize("method", ["noise2inverse", "noise2self", "noise2projection", "gaussian"])
def test_tasks_can_be_pickled_and_carry_no_training_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    in_slabs(monkeypatch)
    (task,), result = tasks_of(tmp_path, method, monkeypatch)
    sent = pickle.dumps((task.source, task.work))
    weights = sum(weight.nbytes for weight in result.denoiser.network.parameters())
    assert len(sent) < 60_000 + 2 * weights
    source, work = pickle.loads(sent)
    (slab,) = [one for one in [(4, 8)] if work.places(one)]
    for finished in work(source, slab, lambda slices: None):
        first = finished.first
        np.testing.assert_array_equal(finished.voxels, result.volume[first : first + len(finished.voxels)])


@pytest.mark.parametrize("method", ["noise2inverse", "noise2self"])
def test_threads_give_what_one_slab_after_the_other_gives(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    in_slabs(monkeypatch, heights=2)
    scan, settings = quietray.read(disc_scan()), short(method)
    one = quietray.denoise(scan, None, settings)
    monkeypatch.setattr(workflows, "Run", lambda *args, **known: Run(*args, **known, executor=Threads(3)))
    other = quietray.denoise(scan, None, settings)
    np.testing.assert_array_equal(one.volume, other.volume)
    assert one.metrics.estimate == other.metrics.estimate


def test_an_error_in_one_of_several_threads_is_told() -> None:
    class Failing:
        def places(self, slab: Any) -> Any:
            return [slab]

        def __call__(self, source: Any, slab: Any, advance: Any) -> Any:
            raise NoiseError(f"slab {slab[0]}")

    class Nowhere:
        def done(self, first: int, last: int) -> bool:
            return False

        def take(self, finished: Any) -> None:
            raise AssertionError

    with pytest.raises(NoiseError, match="slab 0"):
        Threads(2).each(SlabTask(None, Failing(), Nowhere()), [(0, 1), (1, 2)], lambda slices: None)


# ---- Auto hands on what it measured


def test_auto_measures_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {"calibrate": 0, "diagnose": 0, "find_rotation_axis": 0}
    scan = dataclasses.replace(quietray.read(disc_scan()), geometry=quietray.read(disc_scan()).geometry)

    def counted(module: Any, name: str) -> None:
        real = getattr(module, name)

        def count(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return real(*args, **kwargs)

        monkeypatch.setattr(module, name, count)

    from quietray.domains import compare, radiographs

    counted(prepare_module, "calibrate")
    counted(prepare_module, "find_rotation_axis")
    counted(compare, "diagnose")
    counted(radiographs, "diagnose")
    settings = dataclasses.replace(short("auto"), rotation_axis=None, budget="1s", whiten="auto")
    found = decided(Run.in_memory(settings, Watch()), [scan])
    assert found.run.calibrated is not None
    VolumeDomain.denoise(found.run, [scan]) if found.run.settings.method.domain == "volume" else None
    assert calls == {"calibrate": 1, "diagnose": 1, "find_rotation_axis": 1}


# ---- figures that do not change


def test_figures_are_typed_frozen_and_a_dictionary() -> None:
    result = quietray.denoise(quietray.read(disc_scan()), None, short("gaussian"))
    metrics = result.metrics
    assert metrics.estimate.psnr_db == metrics["estimate"]["psnr_db"]
    assert "series" not in metrics
    assert metrics.get("trust") is None
    with pytest.raises(TypeError, match="do not change"):
        metrics["seconds"] = 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        metrics.seconds = 1.0  # type: ignore[misc]
    again = pickle.loads(pickle.dumps(metrics))
    assert again == metrics
    assert type(metrics).of(metrics.record()) == metrics


# ---- arrays first


def test_reconstruct_returns_an_array_without_a_place(tmp_path: Path) -> None:
    scan = quietray.read(disc_scan())
    volume = quietray.reconstruct(scan, rotation_axis=11.5)
    place = quietray.reconstruct(scan, tmp_path / "v.zarr", rotation_axis=11.5)
    assert isinstance(scan, Scan)
    np.testing.assert_array_equal(volume, quietray.read_volume(place)[:])
