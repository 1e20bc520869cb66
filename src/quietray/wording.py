"""Names of settings in messages: flags on the command line, parameters in Python.

Messages are written with flags; :func:`told` converts them for the user of Python before they are shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

__all__ = ["PARAMETERS", "Doubt", "flags_spoken", "listed", "told"]


class Doubt(str):
    """A note that puts in doubt what everything rests on, such as the rotation axis; the verdict on a run names it.

    Examples
    --------
    >>> isinstance(told(Doubt("check the axis, or give --rotation-axis")), Doubt)
    True
    """

    __slots__ = ()


# Flags whose name in Python is not just theirs with underscores. {} stands for the value.
PARAMETERS = {
    **{name: f"Correction({name}={{}})" for name in ("air", "rings", "own_flats", "zingers", "line_integrals")},
    **{name: f"Phase({name}={{}})" for name in ("delta_beta", "alpha", "energy", "distance", "retrieval")},
    **{name: f"Training({name}={{}})" for name in ("steps", "loss")},
    **{name: f"Noise2Inverse({name}={{}})" for name in ("parts", "slices", "times")},
    "algorithm": "reconstruction={}",
    "from": "start={}",
    "channels": "series={}",
    "more": "data={}",
    "cluster": "on_cluster(place={})",
}
_SWITCHES = ("overwrite", "resume", "strict", "line_integrals", "noise_models", "ignore_scanner", "reblur")
_WORDS = {"yes": "True", "no": "False"}
_NAMES = (
    "yes no none auto all view sinogram rad deg cpu zarr h5 tiff bigtiff mhd nii uint16 prior noise2inverse recorrupted"
)
_VALUE = "|".join((r"\d[\w:.x]*", "[A-Z][A-Za-z0-9:]+", *_NAMES.split()))
_FLAG = re.compile(rf"(?<![\w-])--([a-z][a-z0-9-]*)(?: ({_VALUE})(?![\w-]))?")
_flags_are_spoken = False


@contextmanager
def flags_spoken() -> Iterator[None]:
    """Show messages with flags, as on the command line, in all threads of the process."""
    global _flags_are_spoken
    before, _flags_are_spoken = _flags_are_spoken, True
    try:
        yield
    finally:
        _flags_are_spoken = before


def listed(words: Sequence[str]) -> str:
    """Return words as a list in a sentence.

    Examples
    --------
    >>> listed(["views"]), listed(["views", "flats", "darks"])
    ('views', 'views, flats and darks')
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def told(text: str) -> str:
    """Return a message with parameters instead of flags; unchanged within :func:`flags_spoken`.

    Examples
    --------
    >>> told("give a longer --budget, another folder, or --overwrite; --half no if it is none")
    'give a longer budget=, another folder, or overwrite=True; half=False if it is none'
    >>> told("pass --angles 0:180, or --order sinogram; see --parts 2 and --rotate 90")
    "pass angles='0:180', or order='sinogram'; see Noise2Inverse(parts=2) and rotate=90"
    >>> with flags_spoken():
    ...     told("give a longer --budget")
    'give a longer --budget'
    """
    return text if _flags_are_spoken else type(text)(_FLAG.sub(_parameter, text))


def _parameter(found: re.Match[str]) -> str:
    name, value = found[1].replace("-", "_"), found[2]
    if value is None:
        value = "True" if name in _SWITCHES else ""
    elif value in _WORDS:
        value = _WORDS[value]
    elif not re.fullmatch(r"\d+(\.\d+)?", value):
        value = repr(value)
    return PARAMETERS.get(name, name + "={}").format(value)
