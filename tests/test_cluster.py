"""Slabs on the workers of a cluster: the results of one process, and what becomes of a run when something dies."""

from __future__ import annotations

import errno
import pickle
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quietray
from cluster_parts import Files, kept, notes, slabs_of, task_in
from quietray.detector.correction.correct import RowCounts
from quietray.errors import FormatError, NoiseError, ResourceError, SettingsError
from quietray.running.cluster import Cluster, _crew, _Patience, _Room
from quietray.running.cluster_file import place_of
from quietray.running.ledger import SlabRecord
from quietray.running.output import Output
from quietray.running.plan import Plan
from quietray.running.slabs import Crew, Finished, SlabTask, run_slabs, running_on
from scans import content, disc_scan, quick

distributed = pytest.importorskip("distributed", reason="needs quietray[cluster]")

HURRY = _Patience(alone=5.0, late=0.5, times=2.0, tries=4)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two workers in this very process: no real ones, but the same scheduler."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None, memory_limit=0
        ) as made,
        distributed.Client(made, set_as_default=False) as client,
    ):
        yield Cluster(client, Crew(2, 2**31, 2**28), patience=HURRY)


# ---- the same result


@pytest.mark.parametrize("format", ["zarr", "h5", pytest.param("tiff", marks=pytest.mark.slow)])
def test_a_run_on_a_cluster_is_the_run_of_one_process(
    tmp_path: Path, cluster: Cluster, short_report: None, format: str
) -> None:
    settings = quick(format=format)
    one = quietray.denoise(quietray.read(disc_scan()), tmp_path / "one", settings)
    with running_on(cluster):
        many = quietray.denoise(quietray.read(disc_scan()), tmp_path / "many", settings)
    assert many.metrics["memory"]["slabs"] > one.metrics["memory"]["slabs"] == 1
    np.testing.assert_array_equal(np.asarray(one.volume), np.asarray(many.volume))
    assert one.metrics.estimate == many.metrics.estimate
    assert content(tmp_path / "one" / "model") == content(tmp_path / "many" / "model")
    assert not (tmp_path / "many" / ".work").exists()


@pytest.mark.parametrize(
    "method", ["gaussian", *(pytest.param(name, marks=pytest.mark.slow) for name in ("noise2self", "noise2projection"))]
)
def test_so_is_one_in_memory_of_any_domain(cluster: Cluster, method: str) -> None:
    settings = quick(method=method)
    one = quietray.denoise(quietray.read(disc_scan()), None, settings)
    with running_on(cluster):
        many = quietray.denoise(quietray.read(disc_scan()), None, settings)
    np.testing.assert_array_equal(one.volume, many.volume)


@pytest.mark.parametrize("name", ["volume.zarr", "volume.h5", None])
def test_so_is_a_plain_reconstruction(tmp_path: Path, cluster: Cluster, name: str | None) -> None:
    def made(folder: str) -> np.ndarray:
        place = None if name is None else tmp_path / folder / name
        format = {"format": "h5"} if name == "volume.h5" else {}
        found = quietray.reconstruct(quietray.read(disc_scan()), place, rotation_axis=11.5, **format)
        return np.asarray(found if place is None else quietray.read_volume(found))

    one = made("one")
    with running_on(cluster):
        many = made("many")
    np.testing.assert_array_equal(one, many)
    if name == "volume.zarr":
        assert content(tmp_path / "one" / name) == content(tmp_path / "many" / name)


def test_an_applied_model_is_sent_along(tmp_path: Path, cluster: Cluster, short_report: None) -> None:
    scan = quietray.read(disc_scan())
    quietray.train([scan], tmp_path / "model", quick())
    one = quietray.apply(tmp_path / "model", scan, None, quick())
    with running_on(cluster):
        many = quietray.apply(tmp_path / "model", scan, tmp_path / "out", quick())
    np.testing.assert_array_equal(one.volume, np.asarray(many.volume))


@pytest.mark.slow
def test_a_comparison_has_its_methods_run_by_workers(tmp_path: Path, cluster: Cluster) -> None:
    """The filter of no strength is as good whoever runs it.

    Not to the last digit: the mask of the object is that of the best volume, and with more time there are more filters.
    """
    scan, settings = quietray.read(disc_scan(24, 48, 96)), quick(2, method="auto", rotation_axis=23.5, budget="20s")
    one = quietray.compare(scan, tmp_path / "one", settings)
    with running_on(cluster):
        many = quietray.compare(scan, tmp_path / "many", settings)
    errors = [{standing.name: standing.error for standing in found.standings} for found in (one, many)]
    assert set(errors[1]) >= set(errors[0]) >= {"fbp", "noise2self"}, "filters have more time there"
    assert errors[0]["fbp"] == pytest.approx(errors[1]["fbp"], rel=0.02)


# ---- what may go wrong


def test_each_slab_is_done_once_and_none_that_is_there(tmp_path: Path, cluster: Cluster) -> None:
    task, told = task_in(tmp_path), []
    task.sink.take(Finished(4, np.array([16.0, 25.0], np.float32).reshape(2, 1, 1)))
    run_slabs(slabs_of(6), task, cluster, lambda total: nullcontext(lambda done, text="": told.append(done)))
    np.testing.assert_array_equal(kept(tmp_path), np.arange(12.0, dtype=np.float32) ** 2)
    assert sorted(first for first, _ in notes(tmp_path / "log", "written")) == [0, 2, 4, 6, 8, 10]
    assert 4 not in [first for first, _ in notes(tmp_path / "log", "begun")]
    assert sum(told) == 12


def on_first(cluster: Cluster, error: Exception) -> Any:
    """Return work that fails on one of the workers only: the one that comes first by its address."""
    first = min(cluster.client.scheduler_info(n_workers=-1)["workers"])

    def work(item: int) -> int:
        if distributed.get_worker().address == first:
            raise error
        time.sleep(0.05)
        return item**2

    return work


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), MemoryError(), ResourceError("not here")]
)
def test_what_one_worker_cannot_do_another_one_does(cluster: Cluster, error: Exception) -> None:
    found, told = {}, []
    cluster.all(on_first(cluster, error), range(8), found.__setitem__, lambda done, text: told.append(text))
    assert found == {number: number**2 for number in range(8)}
    assert "the others continue" in told[0]


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (NoiseError("the flats are saturated"), NoiseError, "the flats are saturated"),
        (OSError(errno.ENOSPC, "No space left"), ResourceError, "at least one worker .* No space left"),
        (ZeroDivisionError("ours"), ZeroDivisionError, "ours"),
    ],
)
def test_what_none_can_do_is_told(cluster: Cluster, error: Exception, kind: type[Exception], said: str) -> None:
    def work(item: int) -> None:
        raise error

    with pytest.raises(kind, match=said):
        cluster.all(work, range(4), lambda number, value: None, lambda done, text: None)


def test_a_worker_that_hangs_and_cannot_be_started_again_is_left_alone(tmp_path: Path, cluster: Cluster) -> None:
    """Both are threads here, so that nothing can be killed: what one does not finish the other one does."""
    waited: list[str] = []

    class Hanging:
        def places(self, slab: Any) -> Any:
            return [slab]

        def __call__(self, source: Any, slab: Any, advance: Any) -> Any:
            here = distributed.get_worker().address
            if slab[0] == 2 and not waited:
                waited.append(here)
                end = time.monotonic() + 120  # until the other one has done it, however slow the machine is
                while not (tmp_path / "2.npy").exists() and time.monotonic() < end:
                    time.sleep(0.05)
            yield Finished(slab[0], np.full((2, 1, 1), float(slab[0]), np.float32))

    told: list[str] = []
    task = SlabTask(None, Hanging(), Files(tmp_path))
    cluster.each(task, slabs_of(6), lambda done, text="": told.append(text))
    np.testing.assert_array_equal(kept(tmp_path)[::2], 2.0 * np.arange(6))
    assert "1 workers hang" in told


def test_workers_must_see_the_output_folder(tmp_path: Path) -> None:
    """A copy in another process writes nothing where the run is not, or is over."""
    settings = quick()
    output = Output(tmp_path / "out", settings, {}, "zarr")
    copy = pickle.loads(pickle.dumps(output))
    assert copy.folder == tmp_path / "out"
    none = np.zeros(2, np.int64)
    record = SlabRecord(0, 1, {}, {}, none, none, np.zeros(2), RowCounts())
    (tmp_path / "out" / ".work" / "run.json").unlink()
    with pytest.raises(ResourceError, match="must be visible to all workers during the run, got none on"):
        copy.write(np.zeros((1, 2, 2), np.float32), record)


def test_a_crew_has_the_memory_of_its_poorest_worker() -> None:
    gib = 2**30
    rooms = {
        "a": _Room("one", "1", 8 * gib, 100 * gib, gib),
        "b": _Room("two", "1", None, 10 * gib, 2 * gib),
        "c": _Room("two", "1", None, 10 * gib, gib),
    }
    assert _crew({"a": 2, "b": 1, "c": 1}, rooms) == Crew(4, 3 * gib, 2 * gib)
    assert _crew({"a": 1, "b": 1, "c": 1}, rooms) == Crew(3, 4 * gib, 2 * gib)


def test_a_plan_is_cut_for_a_crew_and_learns_from_the_same_rows() -> None:
    alone = Plan(2**30, 2**29, ((10, 138),), ((10, 138),), 1024)
    small = Plan(2**28, 2**27, ((10, 30), (30, 138)), ((40, 80),), 256)
    shared = alone.shared(alone, 4, 3)
    assert shared.learns_all
    assert not shared.in_one_piece
    assert (len(shared.slabs), shared.windows, shared.tile) == (5, alone.windows, 1024)
    assert shared.slabs[0][0] == 10
    assert all(one[1] == other[0] for one, other in pairwise(shared.slabs))
    assert alone.shared(small, 1, 3).tile == 256
    assert max(last - first for first, last in alone.shared(small, 1, 60).slabs) <= 108
    assert len(alone.shared(alone, 200, 3).slabs) == 128


# ---- how a cluster is named


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("locl:4", "must be local:COUNT, tcp://HOST:PORT or a TOML file, got locl:4"),
        ("local:0", "with at least one process"),
    ],
)
def test_a_cluster_must_be_named_so(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        place_of(text)


@pytest.mark.parametrize(
    ("toml", "kind", "said"),
    [
        ("", SettingsError, r"must hold one table, \[local\], \[slurm\], .*, got none"),
        ("workers = 3", SettingsError, "must hold one table, .*, got workers"),
        ("[slurm]\n[pbs]", SettingsError, "got slurm, pbs"),
        ("[slrum]\nworkers = 2", SettingsError, r"got \[slrum\] \(did you mean 'slurm'\?\)"),
        ("[local]\nworker = 2", SettingsError, r"'worker' .*did you mean 'workers'.*known here: dashboard, threads"),
        ("[local]\nworkers = 0", SettingsError, "an integer of at least 1, got 0"),
        ("[slurm]\nqueu = 'gpu'", SettingsError, "did you mean 'queue'.*known here: .*cores.*walltime"),
        ("[slurm]\nwait = 'long'", SettingsError, "long"),
        ("[slurm", FormatError, "must be TOML"),
    ],
)
def test_a_file_of_a_cluster_is_checked_before_it_is_started(
    tmp_path: Path, toml: str, kind: type[Exception], said: str
) -> None:
    pytest.importorskip("dask_jobqueue", reason="needs quietray[cluster]")
    (tmp_path / "cluster.toml").write_text(toml)
    with pytest.raises(kind, match=said):
        place_of(tmp_path / "cluster.toml")


@pytest.mark.parametrize("kind", ["slurm", "pbs", "lsf", "sge"])
def test_what_a_batch_system_is_told_is_what_dask_jobqueue_makes_of_it(tmp_path: Path, kind: str) -> None:
    jobqueue = pytest.importorskip("dask_jobqueue", reason="needs quietray[cluster]")
    (tmp_path / "cluster.toml").write_text(
        f"[{kind}]\nworkers = 3\nqueue = 'night'\ncores = 2\nmemory = '4 GB'\nwalltime = '02:00:00'"
    )
    assert place_of(tmp_path / "cluster.toml").told == f"{kind} (3 workers)"
    made = getattr(jobqueue, f"{kind.upper()}Cluster").job_cls
    script = made("tcp://here:1", cores=2, memory="4 GB", queue="night", walltime="02:00:00").job_script()
    assert "night" in script


def test_a_scheduler_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quietray.running.cluster_file._REACH", 0.5)
    with pytest.raises(ResourceError, match=r"must be the address of a running Dask scheduler, got tcp://127.0.0.1:9"):
        with quietray.on_cluster("tcp://127.0.0.1:9"):
            raise AssertionError


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the option")
def test_workers_keep_the_memory_of_feature_maps() -> None:
    code = "from quietray.running.cluster import _keep_memory; print(_keep_memory())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True\n"
