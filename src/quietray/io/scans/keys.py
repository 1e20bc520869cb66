"""Image keys: which frames of a stack are radiographs, flats and darks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from quietray.errors import FormatError

__all__ = ["SortedFrames", "split_by_key"]

_MEANING = {0: "projection", 1: "flat", 2: "dark", 3: "invalid", -1: "alignment"}


@dataclass(frozen=True, eq=False)
class SortedFrames:
    """Positions of the frames of each kind.

    Parameters
    ----------
    projections, flats, darks
        Positions ``(n,)``, in the order of the stack.
    notes
        Sentences about frames that were left out.
    """

    projections: Int[np.ndarray, " view"]
    flats: Int[np.ndarray, " flat"]
    darks: Int[np.ndarray, " dark"]
    notes: tuple[str, ...] = ()


def split_by_key(keys: np.ndarray, n_frames: int, place: str) -> SortedFrames:
    """Sort the frames of a stack by their image key, as defined by NeXus (and -1 for alignment, as at the ESRF).

    Parameters
    ----------
    keys
        Integers ``(n_frames,)``: 0 projection, 1 flat, 2 dark, 3 invalid, -1 alignment.
    n_frames
        Number of frames in the stack.
    place
        Where the keys come from, for messages.

    Raises
    ------
    FormatError
        The number of keys does not match the stack, or a key is unknown.

    Examples
    --------
    >>> split_by_key(np.array([2, 1, 0, 0]), 4, "here").projections.tolist()
    [2, 3]
    """
    if keys.size != n_frames:
        raise FormatError(
            f"the image key must have one entry per frame, got {keys.size} in {place} for {n_frames} frames; "
            "name the key that belongs to the data with --image-key"
        )
    if keys.dtype.kind not in "iuf" or not np.isin(keys, list(_MEANING)).all():
        strange = keys[~np.isin(keys, list(_MEANING))][:1] if keys.dtype.kind in "iuf" else keys[:1]
        known = ", ".join(f"{key} {meaning}" for key, meaning in _MEANING.items())
        raise FormatError(f"the image key must be one of {known}, got {strange[0]!r} in {place}; name another dataset")
    found = {key: np.flatnonzero(keys == key) for key in _MEANING}
    if not found[0].size:
        raise FormatError(f"the image key must mark projections with 0, got none among {n_frames} frames in {place}")
    notes = tuple(
        f"Frames marked as {_MEANING[key]} (image key {key}) were left out: {found[key].size}."
        for key in (3, -1)
        if found[key].size
    )
    return SortedFrames(found[0], found[1], found[2], notes)
