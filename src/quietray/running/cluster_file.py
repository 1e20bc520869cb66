"""Address of a cluster, or how its workers are started, from the command line and TOML files."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from quietray.errors import ResourceError, SettingsError, nearest, require
from quietray.settings import parse_seconds, read_toml

__all__ = ["Place", "place_of"]

_QUEUES: Final = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "lsf": "LSFCluster", "sge": "SGECluster"}
_OURS: Final = {"workers": 1, "dashboard": None, "wait": "24h"}
_LOCAL: Final = {"workers": 1, "threads": 1, "dashboard": None}
_LOOPBACK = "127.0.0.1:8787"
_REACH = 20.0  # seconds to connect to a scheduler
_ALONE = 600.0  # seconds without any worker
_KEPT: Final = ("scheduler", "name", "job_cls", "loop", "asynchronous", "n_workers", "self", "scheduler_cls", "host")

_Started = Iterator[tuple[Any, Callable[[], Any] | None, float]]


@dataclass(frozen=True)
class Place:
    """A cluster to connect to.

    Parameters
    ----------
    told
        Name in messages.
    enter
        Context that starts the cluster or connects to it. It gives a client, a function that reconnects if the
        scheduler does not end with this process, and the seconds to wait for the first worker.
    """

    told: str
    enter: Callable[[], AbstractContextManager[tuple[Any, Callable[[], Any] | None, float]]]

    @contextmanager
    def started(self) -> _Started:
        """Connect, with Dask logging only critical errors."""
        require("distributed", "cluster")
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # the run itself reports losses
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"distributed|contextlib")  # ports in use, large tasks
            with self.enter() as found:
                yield found

    @staticmethod
    def dashboard(client: Any) -> str:
        """Return the address of the dashboard, or why there is none."""
        if importlib.util.find_spec("bokeh") is None:
            return "none, it needs bokeh"
        return str(client.dashboard_link)


def place_of(text: str | os.PathLike[str]) -> Place:
    """Return the cluster that a text describes.

    Parameters
    ----------
    text
        ``local:4``, an address such as ``tcp://HOST:8786``, or the path of a TOML file with one table: ``[local]``,
        ``[slurm]``, ``[pbs]``, ``[lsf]`` or ``[sge]``.

    Raises
    ------
    QuietrayError
        The text is none of these.

    Examples
    --------
    >>> place_of("local:4").told
    'local:4'
    >>> place_of("local:0")
    Traceback (most recent call last):
    quietray.errors.SettingsError: on_cluster(place=) must be local:COUNT with at least one process, got local:0
    """
    text = os.fspath(text)
    if re.fullmatch(r"local(:\d+)?", text):
        count = int(text.partition(":")[2] or os.cpu_count() or 1)
        if not count:
            raise SettingsError(f"--cluster must be local:COUNT with at least one process, got {text}")
        return Place(text, lambda: _local({"workers": count}))
    if re.match(r"(tcp|tls|ucx|ws|wss)://", text):
        return Place(text, lambda: _at(text))
    if not text.endswith(".toml"):
        raise SettingsError(f"--cluster must be local:COUNT, tcp://HOST:PORT or a TOML file, got {text}")
    tables = read_toml(Path(text))
    known = ("local", *_QUEUES)
    if len(tables) != 1 or not isinstance(next(iter(tables.values())), dict):
        got = ", ".join(tables) or "none"
        raise SettingsError(f"{text} must hold one table, [{'], ['.join(known)}], got {got}; leave the others out")
    ((kind, told),) = tables.items()
    if kind not in known:
        raise SettingsError(f"{text} must hold one table, [{'], ['.join(known)}], got [{kind}]{nearest(kind, known)}")
    if kind == "local":
        _must_be_known(told, _LOCAL, f"[local] in {text}")
        _whole(told, "workers", text)
        _whole(told, "threads", text)
        return Place(f"local:{told.get('workers', 1)}", lambda: _local(told))
    _whole(told, "workers", text)
    parse_seconds(told.get("wait", _OURS["wait"]))
    made = getattr(require("dask_jobqueue", "cluster"), _QUEUES[kind])
    _must_be_known(told, {**_OURS, **dict.fromkeys(_keywords(made))}, f"[{kind}] in {text}")
    return Place(f"{kind} ({told.get('workers', 1)} workers)", lambda: _queued(made, kind, told, text))


def _keywords(made: Any) -> list[str]:
    """Return the keywords that dask-jobqueue supports for a batch system."""
    found: dict[str, None] = {}
    for kind in (*made.job_cls.__mro__, *made.__mro__):
        if kind.__module__.startswith("dask_jobqueue") and "__init__" in vars(kind):
            parameters = inspect.signature(kind.__init__).parameters.values()
            found |= dict.fromkeys(one.name for one in parameters if one.kind is not one.VAR_KEYWORD)
    return sorted(found.keys() - set(_KEPT))


def _must_be_known(told: Mapping[str, Any], known: Mapping[str, Any], where: str) -> None:
    for name in told:
        if name not in known:
            raise SettingsError(
                f"'{name}' must be a key of {where}, got an unknown one{nearest(name, known)}; known here: "
                f"{', '.join(sorted(known))}"
            )


def _whole(told: Mapping[str, Any], name: str, text: str) -> None:
    if not (isinstance(told.get(name, 1), int) and told.get(name, 1) >= 1):
        raise SettingsError(f"{name} in {text} must be an integer of at least 1, got {told[name]!r}")


@contextmanager
def _at(address: str) -> _Started:
    from distributed import Client

    def connect() -> Any:
        return Client(address, timeout=_REACH, set_as_default=False)

    try:
        client = connect()
    except (OSError, TimeoutError) as error:
        raise ResourceError(
            f"--cluster must be the address of a running Dask scheduler, got {address}: {error}; start it with `dask "
            "scheduler`"
        ) from None
    try:
        yield client, connect, _ALONE
    finally:
        client.close(timeout=5)


@contextmanager
def _local(told: Mapping[str, Any]) -> _Started:
    """Start processes on this machine, without a memory limit in Dask, because memory is planned by the run."""
    import dask
    from distributed import Client, LocalCluster

    count, threads = told.get("workers", 1), told.get("threads", 1)
    each = os.environ.get("OMP_NUM_THREADS", str(max(1, _processors() // (count * threads))))
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    stated = {name: os.environ.get(name, each) for name in names}  # with MKL, torch takes MKL's
    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ": stated}),
        LocalCluster(
            n_workers=count,
            threads_per_worker=threads,
            memory_limit=0,
            host="127.0.0.1",
            dashboard_address=_dashboard(told),
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client, None, _ALONE


@contextmanager
def _queued(made: Any, kind: str, told: Mapping[str, Any], text: str) -> _Started:
    """Start workers as jobs of a batch system."""
    from distributed import Client

    passed = {name: value for name, value in told.items() if name not in _OURS}
    options = {"dashboard_address": _dashboard(told), **passed.pop("scheduler_options", {})}
    prologue = [f"export PYTHONPATH={os.environ['PYTHONPATH']}"] if os.environ.get("PYTHONPATH") else []
    passed["job_script_prologue"] = [*prologue, *passed.get("job_script_prologue", [])]
    passed.setdefault("python", sys.executable)
    try:
        cluster = made(scheduler_options=options, silence_logs=logging.CRITICAL, **passed)
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        raise SettingsError(f"[{kind}] in {text} must be accepted by dask-jobqueue, got: {error}") from None
    with cluster, Client(cluster, set_as_default=False) as client:
        try:
            cluster.scale(n=told.get("workers", 1))
        except (OSError, RuntimeError) as error:
            raise ResourceError(f"jobs must be accepted by {kind}, got: {error}; correct {text}") from None
        yield client, None, parse_seconds(told.get("wait", _OURS["wait"]))


def _dashboard(told: Mapping[str, Any]) -> str | None:
    """Return the address of the dashboard: only on this machine, unless another one is given."""
    if importlib.util.find_spec("bokeh") is None:
        return None
    return str(told.get("dashboard") or _LOOPBACK)


def _processors() -> int:
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1))
