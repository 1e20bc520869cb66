"""Versions of software, and peak memory of the process."""

from __future__ import annotations

import platform
import resource
import sys
from importlib import metadata

__all__ = ["peak_memory", "versions"]


def versions() -> dict[str, str]:
    """Return the versions of the software that a result depends on.

    Examples
    --------
    >>> "torch" in versions()
    True
    """
    names = ("quietray", "torch", "lightning-fabric", "astra-toolbox", "finufft", "numpy", "scipy")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}


def peak_memory() -> int:
    """Return the largest resident memory of this process so far, in bytes.

    Examples
    --------
    >>> peak_memory() > 2**20
    True
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
