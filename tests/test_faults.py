"""Workers, schedulers and clients that die, hang or have no disk: the run completes or resumes, its result unchanged.

All of it with real processes.  Slabs note who began and who wrote them.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster_parts import kept, notes, slabs_of, task_in
from quietray.running.cluster import Cluster, _Patience
from quietray.running.slabs import Crew, run_slabs
from scans import content, disc_scan

distributed = pytest.importorskip("distributed", reason="needs quietray[cluster]")
pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
COUNT, SECONDS = 8, 1.0
SLABS = slabs_of(COUNT)
VOLUME = np.arange(2.0 * COUNT, dtype=np.float32) ** 2
CREW = Crew(2, 2**31, 2**28)


def environment(**more: str) -> dict[str, str]:
    paths = [str(HERE), str(HERE.parent / "src"), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s",
        "OMP_NUM_THREADS": "1",  # as in Dask's workers: the last bits depend on the number of threads
        "QUIETRAY_THREADS": "1",
        **more,
    }


@pytest.fixture(autouse=True)
def _paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let processes that this one starts import what this one does."""
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])


def until(what: Callable[[], Any], seconds: float = 90.0) -> Any:
    """Wait for something, and return it."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)
    return found


def meanwhile(*steps: Callable[[], Any]) -> threading.Thread:
    """Do something beside the run."""
    thread = threading.Thread(target=lambda: [step() for step in steps])
    thread.start()
    return thread


@contextmanager
def local_cluster(**patience: float) -> Iterator[Cluster]:
    """Two workers, each a process with a nanny."""
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, memory_limit=0) as made,
        distributed.Client(made, set_as_default=False) as client,
    ):
        yield Cluster(client, CREW, patience=_Patience(alone=90.0, **patience))


class Processes:
    """A scheduler at an address, and workers: processes that can be killed one by one."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{one.getsockname()[1]}"

    def scheduler(self) -> subprocess.Popen[bytes]:
        port = self.address.rpartition(":")[2]
        return self.started("scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")

    def worker(self, before: tuple[str, ...] = (), **more: str) -> subprocess.Popen[bytes]:
        told = ("--nthreads", "1", "--no-dashboard", "--death-timeout", "20", "--memory-limit", "0")
        return self.started("worker", self.address, *told, before=before, **more)

    def started(self, *words: str, before: tuple[str, ...] = (), **more: str) -> subprocess.Popen[bytes]:
        command = [*before, sys.executable, "-m", "dask", *words]
        process = subprocess.Popen(
            command,
            env=environment(**more),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.stack.callback(killed, process)
        return process

    def client(self) -> Any:
        return self.stack.enter_context(distributed.Client(self.address, timeout=60, set_as_default=False))

    def again(self) -> Any:
        return distributed.Client(self.address, timeout=5, set_as_default=False)


def killed(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that this test started, and those that it started, a nanny's worker."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def processes() -> Iterator[Processes]:
    with ExitStack() as stack:
        yield Processes(stack)


def begun_by(folder: Path) -> int | None:
    """Return the process that began a slab and has not written it."""
    written = {first for first, _ in notes(folder / "log", "written")}
    running = [pid for first, pid in notes(folder / "log", "begun") if first not in written]
    return running[-1] if written and running else None


def run(folder: Path, cluster: Cluster, seconds: float = SECONDS, full: str = "") -> list[str]:
    told: list[str] = []
    stage = nullcontext(lambda done, text="": told.append(text) if text else None)
    run_slabs(SLABS, task_in(folder, seconds, full), cluster, lambda total: stage)
    return told


def assert_each_once(folder: Path) -> None:
    np.testing.assert_array_equal(kept(folder), VOLUME)
    assert sorted(first for first, _ in notes(folder / "log", "written")) == [first for first, _ in SLABS]


def test_a_worker_killed_with_sigkill(tmp_path: Path) -> None:
    found: list[int] = []

    def kill() -> None:
        found.append(until(lambda: begun_by(tmp_path)))
        os.kill(found[0], signal.SIGKILL)

    with local_cluster() as cluster:
        beside = meanwhile(kill)
        run(tmp_path, cluster)
        beside.join()
    assert_each_once(tmp_path)
    begun = notes(tmp_path / "log", "begun")
    lost = next(first for first, pid in reversed(begun) if pid == found[0])
    assert [pid for first, pid in begun if first == lost][-1] != found[0], "its slab was begun again by another process"


def test_a_worker_that_hangs(tmp_path: Path) -> None:
    """A stopped process keeps its connection: only that its slab is late tells."""
    found: list[int] = []

    def stop() -> None:
        found.append(until(lambda: begun_by(tmp_path)))
        os.kill(found[0], signal.SIGSTOP)

    with local_cluster(late=4.0, times=2.0) as cluster:
        beside = meanwhile(stop)
        told = run(tmp_path, cluster)
        beside.join()
    assert_each_once(tmp_path)
    assert any("hang and are started again" in text for text in told)
    assert found[0] not in [pid for _, pid in notes(tmp_path / "log", "written")][-1:]


def test_the_scheduler_killed_and_started_again(tmp_path: Path, processes: Processes) -> None:
    first = [processes.scheduler(), processes.worker(), processes.worker()]
    client = processes.client()
    client.wait_for_workers(2, timeout=90)

    def restart() -> None:
        until(lambda: begun_by(tmp_path))
        for process in first:
            killed(process)
        time.sleep(2.0)
        processes.scheduler(), processes.worker(), processes.worker()

    beside = meanwhile(restart)
    told = run(tmp_path, Cluster(client, CREW, processes.again, _Patience(alone=120.0)))
    beside.join()
    assert_each_once(tmp_path)
    assert any("waiting for" in text for text in told)


def test_a_node_whose_disk_is_full(tmp_path: Path, processes: Processes) -> None:
    processes.scheduler(), processes.worker(), processes.worker(DISK_IS_FULL="yes")
    client = processes.client()
    client.wait_for_workers(2, timeout=90)
    told = run(tmp_path, Cluster(client, CREW, processes.again), full="DISK_IS_FULL")
    assert_each_once(tmp_path)
    assert any("No space left on device" in text and "the others continue" in text for text in told)


# ---- whole commands


def command(*words: str, cluster: str | None = None) -> subprocess.Popen[str]:
    there = [] if cluster is None else ["--cluster", cluster]
    return subprocess.Popen(
        [sys.executable, "-m", "quietray.cli", *words, *there],
        env=environment(),
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def denoise_into(out: Path, *more: str) -> tuple[str, ...]:
    settings = out.parent / "settings.toml"
    settings.write_text(
        "symmetries = 8\nrotation_axis = 31.5\n[method]\nname = 'noise2inverse'\nparts = 2\nslices = 3\n"
        "[training]\nsteps = 6\njudgements = 2\nprecision = 'fp32'\n"
    )
    return ("denoise", str(disc_scan(64, 64, 96)), "--out", str(out), "--config", str(settings), *more)


def voxels(out: Path) -> dict[str, bytes]:
    return content(out / "volume.zarr")


def test_a_client_that_goes_away_resumes_with_the_same_volume(tmp_path: Path, processes: Processes) -> None:
    processes.scheduler(), processes.worker()
    processes.client().wait_for_workers(1, timeout=90)
    serial = command(*denoise_into(tmp_path / "one"))
    assert serial.wait(timeout=300) == 0, serial.stderr.read()

    gone = command(*denoise_into(tmp_path / "out"), cluster=processes.address)
    records = lambda: sorted((tmp_path / "out" / ".work").glob("slab-*.npz"))  # noqa: E731
    until(records, 300)
    os.killpg(gone.pid, signal.SIGKILL)
    gone.wait()
    there = {path.name: path.stat().st_mtime_ns for path in records()}
    assert 0 < len(there) < 8, "it was killed on the way"

    again = command(*denoise_into(tmp_path / "out"), "--resume", cluster=processes.address)
    assert again.wait(timeout=300) == 0, again.stderr.read()
    assert voxels(tmp_path / "out") == voxels(tmp_path / "one")
    assert not (tmp_path / "out" / ".work").exists()
    assert not (tmp_path / "out" / ".volume.zarr.partial").exists()
