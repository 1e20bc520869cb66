"""Several processes that train one network: the same result as one, whatever happens to them.

The tolerance: in float32 the gradients of the shares are summed in another order than in one process, which changes
their last bits (2^-24, relative), and Adam divides by their size, so that weights move apart by some of these per step.
After the 24 steps of these tests the largest difference of a weight was 2e-7 to 8e-7 of the largest weight, for six
methods; 1e-5 leaves room for ten times as much.  A share that is left out or counted twice changes the first loss by
tens of percent.
"""

import dataclasses
import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

import matrix
import quietray
from group_parts import Forgetful, Normalised, Unreadable
from quietray.cli import main
from quietray.errors import ResourceError, SettingsError
from quietray.networks.unet import UNet
from quietray.running.device import chosen_devices
from quietray.running.output import Output
from quietray.running.run import Run
from quietray.running.settings import Settings, Training
from quietray.running.shared import shared_empty
from quietray.settings import write_toml
from quietray.splits.base import Split
from quietray.splits.inverse import Noise2Inverse
from quietray.splits.masked import Noise2Self
from quietray.splits.projected import Noise2Projection
from quietray.splits.pseudo import GaussianNoise, PseudoCT
from quietray.training.batches import TrainingSet, TrainingVolume
from quietray.training.group import Failed, Group, _cause, packed, unpacked
from quietray.training.learn import _shared_batch
from quietray.training.loop import Fitted, Progress
from quietray.training.sinograms import TrainingSinograms
from quietray.training.state import seeded
from scans import disc_scan, quick

CPU = torch.device("cpu")
QUICK = Training(steps=24, batch=3, patch=16, judgements=4, precision="fp32", patience=10.0)
ALIKE = 1e-5


def volume(split: Split) -> TrainingVolume:
    """Return data of which a corner is outside the field of view, so that patches weigh differently."""
    parts = np.random.default_rng(0).standard_normal((split.n_parts, 12, 40, 40)).astype(np.float32)
    weight = np.ones((40, 40), np.float32)
    weight[:18, :25] = 0
    return TrainingVolume.with_held_out(parts, split, weight)


def train(count: int, split: Split | None = None, settings: Training = QUICK, **more: Any) -> Fitted:
    split = split or Noise2Inverse(3, slices=3)
    given: dict[str, Any] = {
        "build": partial(UNet((4, 6)).build, split.n_slices),
        "data": None,
        "seed": 0,
        "budget": lambda per_step: 60.0,
        "checkpoint": None,
        "watch": lambda step, n_steps, latest: None,
    } | more
    given["data"] = given["data"] or volume(split)
    return Group((CPU,) * count).fit(split, settings=settings, **given)


def same(one: Fitted, other: Fitted) -> None:
    """Check that two trainings agree up to rounding."""
    assert [progress.step for progress in one.history] == [progress.step for progress in other.history]
    for name in ("loss", "error", "noise"):
        values = [[getattr(progress, name) for progress in fitted.history] for fitted in (one, other)]
        assert np.allclose(*values, rtol=ALIKE, atol=0), name
    same_weights(one.network, other.network)


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> None:
    """Check that the weights of two networks agree up to rounding."""
    for ours, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=ALIKE * theirs.abs().max().item())


def members() -> list[psutil.Process]:
    """Return the processes that train for this one."""
    return [one for one in psutil.Process().children() if "quietray.training.member" in one.cmdline()]


# --- what is refused, and what is told ------------------------------------------------------------------------------


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(SettingsError, match="gpus= must be at least 1, got 0"):
        Settings(gpus=0)
    with pytest.raises(SettingsError, match="auto, cuda or cpu for several gpus=, got 'cuda:1'"):
        Settings(gpus=2, device="cuda:1")
    assert Settings(gpus=1, device="cuda:1").gpus == 1


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_more_gpus_than_there_are_are_refused_with_their_number(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert chosen_devices(device, 2) == (torch.device("cuda", 0), torch.device("cuda", 1))
    with pytest.raises(
        ResourceError, match=r"number of CUDA GPUs that PyTorch can use here, 2, got 3; .* device='cpu'"
    ):
        chosen_devices(device, 3)
    assert chosen_devices("cpu", 3) == (CPU,) * 3


def test_a_command_says_how_many_gpus_there_are_before_it_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as left:
        main(["denoise", str(disc_scan()), "--out", str(tmp_path / "out"), "--gpus", "3"])
    assert left.value.code == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "--gpus must be at most the number of CUDA GPUs that PyTorch can use here, 0, got 3" in told
    assert "--device cpu" in told
    assert not (tmp_path / "out").exists()


def test_a_comparison_trains_in_one_process() -> None:
    run = Run.in_memory(Settings(gpus=3, device="cpu"))
    assert len(run.devices) == 3
    assert len(dataclasses.replace(run, trial=True).devices) == 1


def test_every_process_has_a_patch_and_a_resumed_run_its_batch(tmp_path: Path) -> None:
    def shared(gpus: int, batch: int, place: Path, enlarged: int = 1) -> tuple[int, int, str]:
        settings, notes = Settings(gpus=gpus, device="cpu"), list[str]()
        with Output(place, settings, {}, "zarr", resume=place.exists()) as output:
            run = Run(settings, output)
            run.watch.note = notes.append  # type: ignore[method-assign]
            kept, devices = _shared_batch(batch, enlarged, run)
        return kept, len(devices), " ".join(notes)

    assert shared(1, 1, tmp_path / "one") == (1, 1, "")
    assert shared(2, 4, tmp_path / "even") == (4, 2, "")
    assert shared(3, 1, tmp_path / "small", enlarged=4)[:2] == (1, 3)
    assert "4 patches cannot be divided evenly among 3 processes" in shared(3, 1, tmp_path / "small", enlarged=4)[2]
    assert shared(2, 1, tmp_path / "raised") == (
        2,
        2,
        "The batch size is 2 instead of 1, so that every process has a patch.",
    )
    assert shared(1, 1, tmp_path / "raised")[:2] == (2, 1)
    kept, count, told = shared(3, 1, tmp_path / "raised")
    assert (kept, count) == (2, 2)
    assert "Only 2 processes train: this run was started with 2 patches in every step." in told


def test_a_resumed_run_may_have_other_gpus_but_nothing_else(tmp_path: Path) -> None:
    with Output(tmp_path / "out", Settings(gpus=2), {}, "zarr") as output:
        output.decide("batch", lambda: {"batch": 2})
    with Output(tmp_path / "out", Settings(gpus=1), {}, "zarr", resume=True) as output:
        assert output.resumed
    with pytest.raises(SettingsError, match="got changes in seed;"):
        Output(tmp_path / "out", Settings(gpus=1, seed=1), {}, "zarr", resume=True)


# --- what is drawn --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["volume", "set", "sinograms"])
@pytest.mark.parametrize("count", [2, 3])
def test_the_shares_of_the_processes_are_the_batch_of_one(kind: str, count: int) -> None:
    """Every process draws with a generator of its own, and computes on what no other one has."""
    split: Split = Noise2Inverse(3, slices=3)
    data: Any = volume(split)
    if kind == "set":
        data = TrainingSet((data, data))
    if kind == "sinograms":
        split = matrix.SPLITS["noise2projection-weighted"].split
        rows = np.random.default_rng(0).random((6, 16, 16)).astype(np.float32)
        data = TrainingSinograms.with_held_out(rows)
    for step in range(3):
        seen, fractions = [], 0.0
        for number in range(count):
            generator = seeded(step, "samples")
            samples, weight = data.draw(5, 16, generator)
            pair = split.draw(samples, generator)
            own, _, fraction = pair.share(weight, number, count)
            seen.append(own)
            fractions += float(fraction)
        assert torch.equal(torch.cat([one.input for one in seen]), pair.input)
        assert torch.equal(torch.cat([one.target for one in seen]), pair.target)
        assert min(len(one.target) for one in seen) >= 1
        assert fractions == pytest.approx(1, abs=1e-6)


# --- what is handed over --------------------------------------------------------------------------------------------


def test_large_arrays_are_handed_over_once_and_what_a_process_changes_is_its_own() -> None:
    parts = np.arange(2.0**16, dtype=np.float32).reshape(2, -1)
    with packed({"parts": parts, "again": parts, "weights": torch.ones(3), "none": parts[:, :0]}) as pieces:
        assert len({piece.file for piece in pieces}) == 1
        assert os.fstat(pieces[0].file).st_size < 1.1 * parts.nbytes
        one, other = unpacked(pieces), unpacked(pieces)
    assert one["none"].shape == (2, 0)
    one["parts"][0, 0] = 5
    assert (one["again"][0, 0], other["parts"][0, 0], parts[0, 0]) == (5, 0, 0)
    assert np.array_equal(other["parts"], parts)
    assert torch.equal(other["weights"], torch.ones(3))


def test_what_was_made_in_shared_memory_is_not_copied_and_is_freed() -> None:
    before = set(os.listdir("/proc/self/fd"))
    parts = shared_empty((2, 3, 2**14))
    parts[:] = np.arange(parts.size).reshape(parts.shape)
    with packed({"parts": parts, "half": parts[1]}) as pieces:
        assert len({piece.file for piece in pieces}) == 2, "that of the array, and that of all the rest"
        there = unpacked(pieces)
        assert np.array_equal(there["half"], parts[1])
        parts[0, 0, 0] = 5
        assert there["parts"][0, 0, 0] == 5
        there["parts"][0, 0, 1] = 7
        assert parts[0, 0, 1] == 1
    del parts, there
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) <= before


def test_what_cannot_be_handed_over_is_told() -> None:
    with pytest.raises(SettingsError, match=r"must be picklable, got.*lambda.*leave gpus= out"):
        train(2, build=lambda: UNet((4, 6)).build(3))

    class Mine(Noise2Inverse):
        pass

    Mine.__module__, Mine.__qualname__ = "__main__", "Mine"
    with pytest.raises(SettingsError, match="defined in a module, got Mine of the main program"):
        train(2, Mine(3, slices=3))
    assert not members()


# --- who is to blame ------------------------------------------------------------------------------------------------


def failure(when: float, number: int, error: BaseException | None) -> tuple[float, int, Failed | None]:
    return when, number, None if error is None else Failed(error, "where", when)


@pytest.mark.parametrize(
    ("failures", "blamed"),
    [
        ([failure(2.0, 0, ValueError("mine")), failure(1.0, 1, ValueError("before"))], "before"),
        ([failure(1.0, 0, RuntimeError("[gloo/pair.cc] Connection closed by peer")), failure(2.0, 1, None)], "SIGKILL"),
        ([failure(1.0, 0, RuntimeError("NCCL error")), failure(2.0, 1, MemoryError("full"))], "full"),
        ([failure(1.0, 1, OSError(28, "no space")), failure(2.0, 0, None)], "no space"),
    ],
)
def test_the_first_error_is_told_and_not_that_of_those_who_miss_it(failures: Any, blamed: str) -> None:
    ended = subprocess.Popen(["sleep", "60"])
    ended.kill()
    assert blamed in str(_cause(failures, [ended, ended], None))


# --- two processes --------------------------------------------------------------------------------------------------


def many() -> dict[str, tuple[Split, Any]]:
    """Return methods whose shares differ in kind: weighed alike or not, with measures, masks, teachers.

    The teacher is made anew with each call, for training changes it.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        teacher = UNet((4, 6)).build(1)
    rows = np.random.default_rng(0).random((6, 16, 16)).astype(np.float32)
    turning = Noise2Projection(4, equivariance=0.1).on(matrix.beam(16, n_cols=16))
    return {
        "noise2inverse": (Noise2Inverse(3, slices=3), None),
        "noise2self": (Noise2Self(grid=3), None),
        "noise2projection": (turning, TrainingSinograms.with_held_out(rows)),
        "noisier2noise": (matrix.SPLITS["noisier2noise"].split, None),
        "apbsn": (matrix.SPLITS["apbsn"].split, None),
        "pseudo-ct": (PseudoCT(period=3).on(teacher, GaussianNoise(0.1)), None),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", many())
def test_two_processes_learn_what_one_learns(name: str) -> None:
    (one_split, data), (two_split, _) = many()[name], many()[name]
    one, two = train(1, one_split, data=data), train(2, two_split, data=data)
    assert len(two.history) == 4
    assert two.processes == 2
    same(two, one)
    if one_split.teacher is not None:
        assert two_split.teacher is not None
        same_weights(two_split.teacher.network, one_split.teacher.network)
    assert not members()


@pytest.mark.slow
@pytest.mark.parametrize("build", [Forgetful(), Normalised()])
def test_a_network_whose_samples_are_not_alone_is_refused(build: Callable[[], torch.nn.Module]) -> None:
    with pytest.raises(SettingsError, match=r"gpus=1 must be given .*: the gradient of 2 processes together"):
        train(2, build=build)
    assert not members()


@pytest.mark.slow
def test_an_error_of_a_process_is_raised_here(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere" / "training.safetensors"
    with pytest.raises(FileNotFoundError) as caught:
        train(2, checkpoint=missing)
    assert "in process 0 of 2 that train" in caught.value.__notes__[0]
    with pytest.raises(ValueError, match="this cannot be read"):
        train(2, data=Unreadable())
    assert not members()


class Stopped(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_what_a_number_of_processes_began_another_number_ends(before: int, after: int, tmp_path: Path) -> None:
    def stop(step: int, n_steps: int | None, latest: Progress | None) -> None:
        if step == 14:
            raise Stopped

    checkpoint = tmp_path / "training.safetensors"
    with pytest.raises(Stopped):
        train(before, checkpoint=checkpoint, watch=stop)
    assert not members()
    same(train(after, checkpoint=checkpoint), train(1))


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_a_process_that_is_killed_ends_the_training_and_nothing_is_lost(number: int, tmp_path: Path) -> None:
    killed = False

    def kill(step: int, n_steps: int | None, latest: Progress | None) -> None:
        nonlocal killed
        if step == 14 and not killed:
            killed = True
            next(one for one in members() if one.cmdline()[-3] == str(number)).kill()

    checkpoint = tmp_path / "training.safetensors"
    begun = time.monotonic()
    with pytest.raises(ResourceError, match=r"all 2 processes .* got one ended by SIGKILL.*continue with resume=True"):
        train(2, settings=dataclasses.replace(QUICK, steps=4000, judgements=1000), checkpoint=checkpoint, watch=kill)
    assert killed
    assert not members()
    assert time.monotonic() - begun < 100
    assert checkpoint.exists()


@pytest.mark.slow
def test_the_budget_counts_from_the_start_of_the_processes() -> None:
    begun = time.monotonic()
    fitted = train(2, settings=dataclasses.replace(QUICK, steps=None), budget=lambda per_step: 30.0)
    spent = time.monotonic() - begun
    assert fitted.history[-1].step > 16
    assert 20 < spent < 45, "about half a minute, of which loading the libraries takes a part"


def command(out: Path, *more: str, gpus: int = 2, steps: int = 12) -> list[str]:
    """Return a command that trains in processes on the CPU."""
    settings = quick(steps=steps)
    fixed = dataclasses.replace(settings.training, precision="fp32", judgements=max(3, steps // 4), batch=2)
    config = out.parent / "config.toml"
    config.write_text(write_toml(dataclasses.replace(settings, training=fixed)))
    told = ["denoise", str(disc_scan()), "--config", str(config), "--max-memory", "8G", "--device", "cpu"]
    return [*told, "--gpus", str(gpus), "--out", str(out), *more]


@pytest.mark.slow
def test_a_run_of_two_processes_is_that_of_one(tmp_path: Path) -> None:
    for gpus in (1, 2):
        main(command(tmp_path / str(gpus), gpus=gpus))
    volumes = [np.asarray(quietray.read_volume(tmp_path / name / "volume.zarr")) for name in ("1", "2")]
    assert np.allclose(*volumes, rtol=0, atol=ALIKE * float(np.ptp(volumes[0])))
    training = [json.loads((tmp_path / name / "metrics.json").read_text())["training"] for name in ("1", "2")]
    assert [one.get("processes") for one in training] == [None, 2]
    assert "12 steps of 2 processes" in (tmp_path / "2" / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("by", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_run_that_is_ended_ends_its_processes_and_is_resumed_by_one(
    by: signal.Signals, code: int, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = command(out, steps=400)
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell may ignore it
    program += "from quietray.cli import main; main()"
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (out / ".work/training.safetensors").exists():
        time.sleep(0.05)
    theirs = psutil.Process(process.pid).children()
    process.send_signal(by)
    _, said = process.communicate()
    assert process.returncode == code, said
    assert len(theirs) == 2
    _, alive = psutil.wait_procs(theirs, timeout=10)
    assert not alive
    if by == signal.SIGKILL:
        return  # nobody is left to say a word
    assert "--resume" in said
    if by == signal.SIGINT:
        return
    main([*arguments, "--resume", "--gpus", "1"])
    training = json.loads((out / "metrics.json").read_text())["training"]
    assert (training["steps"], training.get("processes")) == (400, None)
