"""A run may be killed at any moment: taken up again, it ends as if nothing had happened, and loses nothing."""

import contextlib
import dataclasses
import fnmatch
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import quietray
import quietray.console as console_module
from quietray.cli import main
from quietray.errors import SettingsError
from quietray.io.volumes.hdf5 import Hdf5VolumeWriter
from quietray.io.volumes.tiff import TiffVolumeWriter
from quietray.io.volumes.zarr import ZarrVolumeWriter
from quietray.preparation.sources import PartReconstruction
from quietray.running.watch import Watch
from quietray.settings import write_toml
from quietray.splits import SPLITS, Noise2Self
from scans import content, disc_scan, in_slabs, quick, short_report

VOLUMES = {"zarr": "volume.zarr", "h5": "volume.h5", "tiff": "tiff"}
WRITERS = {"zarr": ZarrVolumeWriter, "h5": Hdf5VolumeWriter, "tiff": TiffVolumeWriter}


class KillAt(Watch):
    """Kills the process after so many units of a stage."""

    def __init__(self, stage: str, units: int) -> None:
        self.wanted, self.units = stage, units

    @contextlib.contextmanager
    def stage(self, name, total=None):
        calls = 0

        def advance(done, text=""):
            nonlocal calls
            calls += 1
            if name == self.wanted and calls == self.units:
                die()

        if name == self.wanted and self.units == 0:
            die()
        yield advance


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at_file(monkeypatch, pattern, number, when):
    """Kill the process before or after the n-th file of that name gets its name."""
    rename, found = os.replace, 0

    def replace(source, target):
        nonlocal found
        hit = fnmatch.fnmatch(Path(target).name, pattern)
        found += hit
        if hit and found == number and when == "before":
            die()
        rename(source, target)
        if hit and found == number:
            die()

    monkeypatch.setattr(os, "replace", replace)


def in_child(work):
    """Run a function in a forked process; return the signal that killed it, or None."""
    child = os.fork()
    if child == 0:
        signal.alarm(600)  # no test waits for ever
        with contextlib.suppress(BaseException):
            work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else None


@pytest.fixture(autouse=True)
def _one_thread():
    """A forked child has none of its parent's OpenMP threads, and dies when it waits for them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _slabs(request, monkeypatch):
    """Every run here has three slabs and, to save time, a report of one line; not where another process runs."""
    if "by_the_system" not in request.node.name:
        in_slabs(monkeypatch, heights=4, window=10)
        short_report(monkeypatch)  # a killed process loses nothing that it wrote, so that there is no need to wait


@pytest.fixture(scope="module")
def scan():
    return quietray.read(disc_scan())


@pytest.fixture(scope="module")
def whole(tmp_path_factory, scan):
    """Runs that nobody disturbed, by format."""
    made = {}

    def run(format="zarr", method="noise2inverse"):
        name = f"{format}-{method}"
        if name not in made:
            made[name] = tmp_path_factory.mktemp("whole") / name
            more = {} if method == "noise2inverse" else {"method": SPLITS[method](), "whiten": "never"}
            quietray.denoise(scan, made[name], quick(format=format, **more))
        return made[name]

    return run


def check_same(out, reference, format="zarr"):
    """Check that two finished runs are the same in all but the time that they took."""
    assert sorted(os.listdir(out)) == sorted(os.listdir(reference))
    assert content(out / "model") == content(reference / "model")
    volumes = [quietray.read_volume(folder / VOLUMES[format]) for folder in (out, reference)]
    assert np.asarray(volumes[0]).tobytes() == np.asarray(volumes[1]).tobytes()
    assert (volumes[0].unit, volumes[0].facts) == (volumes[1].unit, volumes[1].facts)
    if format != "h5":  # which holds the time when it was made
        assert content(out / VOLUMES[format]) == content(reference / VOLUMES[format])
    assert (out / "run.toml").read_text() == (reference / "run.toml").read_text()
    one, other = (json.loads((folder / "metrics.json").read_text()) for folder in (out, reference))
    for name in ("estimate", "volume", "correction", "log_bias", "scan", "method", "warnings", "notes", "run"):
        assert one[name] == other[name]
    histories = [
        [(entry["step"], entry["loss"], entry["error"]) for entry in metrics["training"]["history"]]
        for metrics in (one, other)
    ]
    assert histories[0] == histories[1]


MOMENTS = [
    ("calibrating", 0),
    ("reconstructing", 1),
    ("training", 3),  # before the first checkpoint at step 4
    ("training", 6),  # between two
    ("training", 12),
    ("denoising", 0),
    ("denoising", 6),  # in the middle of the second slab
    ("denoising", 12),
]


@pytest.mark.parametrize(("stage", "units"), MOMENTS)
def test_killed_in_a_stage(tmp_path, scan, whole, stage, units):
    out = tmp_path / "out"
    reference = whole()
    assert in_child(lambda: quietray.denoise(scan, out, quick(), watch=KillAt(stage, units))) == signal.SIGKILL
    assert (out / ".work").is_dir()
    assert not (out / "metrics.json").exists()
    assert not (out / "volume.zarr").exists()
    quietray.denoise(scan, out, quick(), resume=True)
    check_same(out, reference)


FILES = [
    ("plan.json", 1, "before"),
    pytest.param("training.safetensors", 1, "before", marks=pytest.mark.slow),
    ("training.safetensors", 2, "after"),
    ("training.safetensors", 3, "after"),
    pytest.param("inference.json", 1, "before", marks=pytest.mark.slow),
    ("volume.json", 1, "before"),
    ("slab-000000.npz", 1, "before"),
    ("slab-000004.npz", 1, "after"),
    pytest.param("slab-000008.npz", 1, "after", marks=pytest.mark.slow),
    pytest.param("volume.zarr", 1, "before", marks=pytest.mark.slow),
    ("volume.zarr", 1, "after"),
    pytest.param("weights.safetensors", 1, "after", marks=pytest.mark.slow),
    ("run.toml", 2, "after"),
    pytest.param("report.html", 1, "before", marks=pytest.mark.slow),
    pytest.param("metrics.json", 1, "before", marks=pytest.mark.slow),
    ("metrics.json", 1, "after"),
]


@pytest.mark.parametrize(("name", "number", "when"), FILES)
def test_killed_at_a_file(tmp_path, scan, whole, monkeypatch, name, number, when):
    out = tmp_path / "out"
    reference = whole()
    with monkeypatch.context() as patch:
        kill_at_file(patch, name, number, when)
        assert in_child(lambda: quietray.denoise(scan, out, quick())) == signal.SIGKILL
    quietray.denoise(scan, out, quick(), resume=True)
    check_same(out, reference)


@pytest.mark.parametrize("format", ["h5", "tiff"])
@pytest.mark.parametrize(
    ("name", "when"),
    [("slab-000004.npz", "after"), ("VOLUME", "before"), pytest.param("VOLUME", "after", marks=pytest.mark.slow)],
)
def test_killed_with_other_formats(tmp_path, scan, whole, monkeypatch, format, name, when):
    out = tmp_path / "out"
    reference = whole(format)
    with monkeypatch.context() as patch:
        kill_at_file(patch, name.replace("VOLUME", VOLUMES[format]), 1, when)
        assert in_child(lambda: quietray.denoise(scan, out, quick(format=format))) == signal.SIGKILL
    quietray.denoise(scan, out, quick(format=format), resume=True)
    check_same(out, reference, format)


@pytest.mark.parametrize("format", ["zarr", "h5", "tiff"])
def test_a_slab_that_was_torn_is_made_again(tmp_path, scan, whole, monkeypatch, format):
    """Killed while the second slab was written: what is there is wrong, and nothing says that it is done."""
    out, writer = tmp_path / "out", WRITERS[format]
    reference, store = whole(format), writer._store

    def torn(self, z0, block):
        store(self, z0, block if z0 == 0 else np.full_like(block[:2], 1e6))
        if z0 > 0:
            die()

    with monkeypatch.context() as patch:
        patch.setattr(writer, "_store", torn)
        assert in_child(lambda: quietray.denoise(scan, out, quick(format=format))) == signal.SIGKILL
    assert sorted(path.name for path in (out / ".work").glob("slab-*")) == ["slab-000000.npz"]
    quietray.denoise(scan, out, quick(format=format), resume=True)
    check_same(out, reference, format)


@pytest.mark.parametrize("format", ["zarr", "h5", "tiff"])
def test_killed_while_the_volume_is_laid_out(tmp_path, scan, whole, monkeypatch, format):
    out, writer = tmp_path / "out", WRITERS[format]
    reference = whole(format)

    def half(self):
        if format != "h5":
            self.partial.mkdir()
            (self.partial / "zarr.json").write_text("{")
        else:
            self.partial.write_bytes(b"\x89HDF\r\n\x1a\n")
        die()

    with monkeypatch.context() as patch:
        patch.setattr(writer, "_create", half)
        assert in_child(lambda: quietray.denoise(scan, out, quick(format=format))) == signal.SIGKILL
    quietray.denoise(scan, out, quick(format=format), resume=True)
    check_same(out, reference, format)


RADIOGRAPHS = [
    ("correcting", 1),
    ("training", 6),
    pytest.param("denoising", 7, marks=pytest.mark.slow),
    ("radiographs.h5", "before"),
    pytest.param("radiographs.h5", "after", marks=pytest.mark.slow),
    ("reconstructing", 2),
    pytest.param("slab-000004.npz", "after", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("place", "when"), RADIOGRAPHS)
def test_killed_while_radiographs_are_denoised(tmp_path, scan, whole, monkeypatch, place, when):
    out, settings = tmp_path / "out", quick(method=Noise2Self(), whiten="never")
    reference = whole("zarr", "noise2self")
    with monkeypatch.context() as patch:
        watch = Watch() if isinstance(when, str) else KillAt(place, when)
        if isinstance(when, str):
            kill_at_file(patch, place, 1, when)
        assert in_child(lambda: quietray.denoise(scan, out, settings, watch=watch)) == signal.SIGKILL
    quietray.denoise(scan, out, settings, resume=True)
    check_same(out, reference)
    frames = [quietray.read(folder / "radiographs.h5").projections[:] for folder in (out, reference)]
    np.testing.assert_array_equal(*frames)


def test_radiographs_of_a_run_that_is_replaced_are_not_used(tmp_path, scan, whole):
    out, settings = tmp_path / "out", quick(method=Noise2Self(), whiten="never")
    quietray.denoise(scan, out, dataclasses.replace(settings, seed=5))
    quietray.denoise(scan, out, settings, overwrite=True)
    check_same(out, whole("zarr", "noise2self"))


def test_slabs_that_are_done_are_not_done_again(tmp_path, scan, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        kill_at_file(patch, "slab-000004.npz", 1, "after")
        in_child(lambda: quietray.denoise(scan, out, quick()))
    made, steps = [], []
    into = PartReconstruction.into

    def counted(self, parts, rows, *more):
        made.append((rows.start, rows.stop))
        return into(self, parts, rows, *more)

    class Counting(Watch):
        @contextlib.contextmanager
        def stage(self, name, total=None):
            yield lambda done, text="": steps.append(name) if name == "training" else None

    monkeypatch.setattr(PartReconstruction, "into", counted)
    quietray.denoise(scan, out, quick(), resume=True, watch=Counting())
    assert made == [(1, 11), (7, 12)]  # the window to judge on, the last slab with its halo
    assert steps == []


def test_killed_again_and_again(tmp_path, scan, whole):
    """Every resumed run gets a little further, and is killed too."""
    out = tmp_path / "out"
    reference = whole()
    for stage, units in [("training", 5), ("training", 4), ("training", 2), ("denoising", 5), ("denoising", 5)]:
        killed = in_child(lambda: quietray.denoise(scan, out, quick(), resume=True, watch=KillAt(stage, units)))  # noqa: B023
        assert killed == signal.SIGKILL
    quietray.denoise(scan, out, quick(), resume=True)
    check_same(out, reference)


def test_killed_while_the_work_folder_is_removed(tmp_path, scan, whole, monkeypatch):
    """The run was finished: its leftovers go, nothing is computed again."""
    out = tmp_path / "out"
    reference = whole()

    def half(folder, *args, **kwargs):
        (Path(folder) / "slab-000004.npz").unlink()
        (Path(folder) / "training.safetensors").unlink()
        die()

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", half)
        assert in_child(lambda: quietray.denoise(scan, out, quick())) == signal.SIGKILL
    assert (out / ".work").exists()
    quietray.denoise(scan, out, quick(), resume=True, watch=KillAt("calibrating", 0))
    check_same(out, reference)


def test_killed_by_the_system_at_any_time(tmp_path):
    """The real command line, killed from outside."""
    config = tmp_path / "config.toml"
    settings = quick(steps=60)
    fixed = dataclasses.replace(settings.training, precision="fp32")  # of another process, whatever this one is told
    config.write_text(write_toml(dataclasses.replace(settings, training=fixed)))
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    arguments = ["denoise", str(disc_scan()), "--config", str(config), "--max-memory", "8G", "--resume", "--out"]
    code = "import torch; torch.set_num_threads(1); from quietray.cli import main; main()"
    state = killed / ".work/training.safetensors"
    command = [sys.executable, "-c", code, *arguments, str(killed)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not state.exists():
        time.sleep(0.005)
    process.kill()
    _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, said
    assert not (killed / "metrics.json").exists()
    main([*arguments, str(killed)])
    main([*arguments, str(whole)])
    check_same(killed, whole)


@pytest.mark.slow
def test_the_system_may_ask_it_to_end(tmp_path):
    """SIGTERM, as of a scheduler: a sentence with the command that goes on, code 143, and nothing is lost."""
    config, out = tmp_path / "config.toml", tmp_path / "out"
    settings = quick(steps=100)
    fixed = dataclasses.replace(settings.training, precision="fp32", judgements=50)
    config.write_text(write_toml(dataclasses.replace(settings, training=fixed)))
    code = "import torch; torch.set_num_threads(1); from quietray.cli import main; main()"
    arguments = ["denoise", str(disc_scan()), "--config", str(config), "--out", str(out)]
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (out / ".work/training.safetensors").exists():
        time.sleep(0.005)
    process.terminate()
    _, said = process.communicate()
    assert process.returncode == 143, said
    assert shlex.join(["quietray", *arguments, "--resume"]) in said
    whole = tmp_path / "whole"
    for told in ([*arguments, "--resume"], [*arguments[:-1], str(whole)]):
        subprocess.run([sys.executable, "-c", code, *told], check=True, capture_output=True)
    check_same(out, whole)


def test_stopped_by_the_user(tmp_path, scan, whole, monkeypatch, capsys):
    """Ctrl-C ends with a sentence and code 130; what was learned is kept."""
    out, calls = tmp_path / "out", 0
    reference = whole()

    class Stopping(console_module.TerminalWatch):
        @contextlib.contextmanager
        def stage(self, name, total=None):
            def advance(done, text=""):
                nonlocal calls
                calls += name == "training"
                if calls == 6:
                    raise KeyboardInterrupt

            yield advance

    config = tmp_path / "run.toml"
    config.write_text((reference / "run.toml").read_text())
    arguments = ["denoise", str(disc_scan()), "--out", str(out), "--config", str(config)]
    with monkeypatch.context() as patch:
        patch.setattr(console_module, "TerminalWatch", Stopping)
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
    said = capsys.readouterr().err
    assert stopped.value.code == 130
    assert "--resume" in said
    assert "Traceback" not in said
    main([*arguments, "--resume"])
    volumes = [content(folder / "volume.zarr") for folder in (out, reference)]
    assert volumes[0] == volumes[1]


def killed_run(scan, out):
    assert in_child(lambda: quietray.denoise(scan, out, quick(), watch=KillAt("training", 6))) == signal.SIGKILL


CHANGES = {
    "seed": {"seed": 4},
    "budget": {"budget": "5m"},
    "rows": {"rows": "0:11"},
    "rotation_axis": {"rotation_axis": 11.0},
    "training.steps": {"training": dataclasses.replace(quick().training, steps=13)},
    "method.slices": {"method": dataclasses.replace(quick().method, slices=5)},
    "network.widths": {"network": quietray.UNet((4, 4))},
    "correction.rings": {"correction": quietray.Correction(rings="none")},
}


def test_changed_settings_are_refused_by_name(tmp_path, scan):
    out = tmp_path / "out"
    killed_run(scan, out)
    before = content(out)
    for name, change in CHANGES.items():
        with pytest.raises(SettingsError, match=rf"got changes in {name};.*overwrite=True"):
            quietray.denoise(scan, out, dataclasses.replace(quick(), **change), resume=True)
    both = dataclasses.replace(quick(), seed=4, budget="5m")
    with pytest.raises(SettingsError, match="got changes in budget, seed;"):
        quietray.denoise(scan, out, both, resume=True)
    assert content(out) == before


def test_another_scan_is_refused(tmp_path, scan):
    out = tmp_path / "out"
    killed_run(scan, out)
    before = content(out)
    with pytest.raises(SettingsError, match=r"scan\.source"):
        quietray.denoise(dataclasses.replace(scan, source="elsewhere.h5"), out, quick(), resume=True)
    with pytest.raises(SettingsError, match=r"scan\.flats"):
        quietray.denoise(dataclasses.replace(scan, flats=scan.flats[:10]), out, quick(), resume=True)
    with pytest.raises(SettingsError, match=r"scan\.pixel_size"):
        quietray.denoise(quietray.read(disc_scan(), pixel_size=0.1), out, quick(), resume=True)
    with pytest.raises(SettingsError, match=r"scan\.angles, scan\.projections"):
        quietray.denoise(scan[::2], out, quick(), resume=True)
    assert content(out) == before


def test_the_same_scan_may_be_named_differently(tmp_path, whole, monkeypatch):
    """A relative path, after a change of folder, is still the same file."""
    out, path = tmp_path / "out", disc_scan()
    reference = whole()
    killed_run(quietray.read(path), out)
    monkeypatch.chdir(path.parent)
    quietray.denoise(quietray.read(path.name), out, quick(), resume=True)
    weights = "model/weights.safetensors"
    assert (out / weights).read_bytes() == (reference / weights).read_bytes()


def test_nothing_to_resume_is_a_fresh_start(tmp_path, scan, whole):
    (tmp_path / "there").mkdir()
    for name in ("there", "new"):
        quietray.denoise(scan, tmp_path / name, quick(), resume=True)
        check_same(tmp_path / name, whole())


def test_a_finished_run_is_complete(tmp_path, scan, whole, capsys, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(whole(), out)
    before = content(out)
    first = quietray.denoise(scan, None, quick())
    again = quietray.denoise(scan, out, quick(), resume=True, watch=KillAt("calibrating", 0))
    np.testing.assert_array_equal(np.asarray(again.volume), first.volume)
    assert again.metrics["estimate"] == first.metrics["estimate"]
    assert again.warnings == first.warnings
    assert again.notes == first.notes
    assert [entry.error for entry in again.history] == [entry.error for entry in first.history]
    parts = np.random.default_rng(0).random((2, 4, 24, 24), dtype=np.float32)
    np.testing.assert_array_equal(again.denoiser.slice(parts, 1), first.denoiser.slice(parts, 1))
    with pytest.raises(SettingsError, match="got changes in seed"):
        quietray.denoise(scan, out, dataclasses.replace(quick(), seed=4), resume=True)
    assert content(out) == before


def test_a_finished_run_is_complete_on_the_command_line(tmp_path, capsys):
    arguments = ["denoise", str(disc_scan()), "--out", str(tmp_path / "out"), "--steps", "3", "--slices", "1", "--json"]
    main(arguments)
    first = json.loads(capsys.readouterr().out)
    before = content(tmp_path / "out")
    main([*arguments, "--resume"])
    captured = capsys.readouterr()
    assert json.loads(captured.out) == first
    assert "complete" in captured.err
    assert content(tmp_path / "out") == before


def test_a_run_is_never_overwritten_unasked(tmp_path, whole, capsys):
    out = tmp_path / "out"
    shutil.copytree(whole(), out)
    (out / "notes.txt").write_text("mine")
    before = content(out)
    with pytest.raises(SystemExit) as refused:
        main(["denoise", str(disc_scan()), "--out", str(out), "--steps", "3"])
    assert refused.value.code == 2
    said = capsys.readouterr().err
    assert "must not hold another run" in said
    assert "--overwrite" in said
    assert content(out) == before


def test_overwriting_replaces_the_run_and_nothing_else(tmp_path, scan, whole):
    out = tmp_path / "out"
    shutil.copytree(whole("h5"), out)
    (out / "notes.txt").write_text("mine")
    (out / "figures").mkdir()
    (out / "figures/model").write_text("mine too")
    quietray.denoise(scan, out, quick(), overwrite=True)
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "figures/model").read_text() == "mine too"
    (out / "notes.txt").unlink()
    shutil.rmtree(out / "figures")
    check_same(out, whole())


@pytest.mark.parametrize("moment", [("reconstructing", 1), ("training", 6)])
def test_what_is_replaced_stays_until_there_is_something_better(tmp_path, scan, whole, moment):
    out = tmp_path / "out"
    shutil.copytree(whole("h5"), out)
    before = content(out)
    killed = in_child(lambda: quietray.denoise(scan, out, quick(), overwrite=True, watch=KillAt(*moment)))
    assert killed == signal.SIGKILL
    after = content(out)
    assert {name: after[name] for name in before} == before
    quietray.denoise(scan, out, quick(), resume=True)
    check_same(out, whole())


def test_killed_while_the_old_run_is_removed(tmp_path, scan, whole, monkeypatch):
    import quietray.running.output as output_module

    out, remove = tmp_path / "out", output_module.remove
    shutil.copytree(whole("h5"), out)

    def removed(path):
        if path.name == "volume.h5":
            die()
        remove(path)

    with monkeypatch.context() as patch:
        patch.setattr(output_module, "remove", removed)
        assert in_child(lambda: quietray.denoise(scan, out, quick(), overwrite=True)) == signal.SIGKILL
    assert (out / "volume.h5").exists()
    assert not (out / "metrics.json").exists()
    quietray.denoise(scan, out, quick(), resume=True)
    check_same(out, whole())


def test_an_unfinished_run_is_overwritten_too(tmp_path, scan, whole):
    out = tmp_path / "out"
    assert in_child(lambda: quietray.denoise(scan, out, quick(), watch=KillAt("denoising", 6))) == signal.SIGKILL
    settings = dataclasses.replace(quick(), seed=5)
    quietray.denoise(scan, out, settings, overwrite=True)
    reference = quietray.denoise(scan, None, settings)
    np.testing.assert_array_equal(np.asarray(quietray.read_volume(out / "volume.zarr")), reference.volume)
    assert sorted(os.listdir(out)) == sorted(os.listdir(whole()))
