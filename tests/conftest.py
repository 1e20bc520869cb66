"""What every test gets: one thread unless asked for more, fixed seeds, and the measured data where there is some."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import hypothesis
import numba
import numpy as np
import pytest
import torch

THREADS = int(os.environ.get("QUIETRAY_THREADS", "1"))  # test files run side by side; more would fight for the cores
numba.set_num_threads(min(THREADS, numba.config.NUMBA_NUM_THREADS))
torch.set_num_threads(THREADS)
hypothesis.settings.register_profile("quietray", deadline=None, derandomize=True)
hypothesis.settings.load_profile("quietray")

ROOT = Path(__file__).resolve().parent.parent
collect_ignore = ["plugin"]  # a package of somebody else: importing it is what a test does


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """Fix the global generators, which libraries use; our own code takes an explicit one."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


@pytest.fixture
def short_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every report one of one line; real ones are looked at where reports are tested."""
    from scans import short_report

    short_report(monkeypatch)


@pytest.fixture
def rng() -> np.random.Generator:
    """A numpy generator with a fixed seed."""
    return np.random.default_rng(0)


@pytest.fixture
def generator() -> torch.Generator:
    """A torch generator with a fixed seed."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Return the path of a measured file, ``real_data("tomopy_tooth/tooth.h5")``, or skip the test.

    The folder is $QUIETRAY_DATA, else ``shared/data`` in or beside the repository.
    """
    stated = os.environ.get("QUIETRAY_DATA")
    places = [Path(stated)] if stated else [ROOT / "shared/data", ROOT.parent / "shared/data"]

    def find(relative: str) -> Path:
        for place in places:
            if (place / relative).exists():
                return place / relative
        pytest.skip(f"needs the measured data {relative}, not found; set QUIETRAY_DATA to the folder that holds it")

    return find


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the path of a Chromium browser, or skip the test."""
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if found := shutil.which(name):
            return found
    pytest.skip("needs a Chromium browser on the PATH, found none; install the system's chromium package")


def pytest_sessionstart() -> None:
    """With ``QUIETRAY_BF16=off`` what is to choose bfloat16 by itself finds a processor that has none."""
    if os.environ.get("QUIETRAY_BF16") == "off":
        from quietray.running import precision

        precision._cpu_has_bf16 = lambda: False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked ``gpu`` where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, found none"))


@pytest.fixture(autouse=True)
def _few_threads() -> None:
    """Keep torch on few threads: numba's parallel kernels set it back to all of them."""
    torch.set_num_threads(THREADS)
