"""Check whether two measurements show the same scene, from their difference beyond noise."""

from __future__ import annotations

import numpy as np

from quietray.errors import NoiseError
from quietray.types import Slice

__all__ = ["require_alike", "unlike"]

_BLOCK = 8  # in pixels
_OTHER = (0.1, 0.2)  # fraction of the scene's and of the fine difference's variance for another scene
_MOVED = 0.04  # fraction of the fine difference's variance; noise correlated over a few pixels stays below it


def unlike(one: Slice, other: Slice) -> tuple[float, float]:
    """Return how much of a scene another measurement does not explain, and how coarse the difference is.

    Both are averaged over blocks, which removes most of the noise but not the scene.  One is fitted to the other,
    because the light may have changed.

    Parameters
    ----------
    one, other
        Images ``(y, x)``.

    Returns
    -------
    share, coarse
        Variance left after the fit, relative to the variance of the blocks of `one`; and relative to the variance of
        the difference inside blocks, which gives 1/64 for white noise.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> scene = np.repeat(np.repeat(rng.random((8, 8)), 8, 0), 8, 1).astype(np.float32)
    >>> noise = rng.normal(0, 0.3, (2, 64, 64)).astype(np.float32)
    >>> share, coarse = unlike(scene + noise[0], scene + noise[1])
    >>> share < 0.3, coarse < 0.04
    (True, True)
    >>> share, coarse = unlike(scene + noise[0], scene.T + noise[1])
    >>> share > 0.5, coarse > 0.2
    (True, True)
    """
    height, width = (min(_BLOCK, max(1, size // 4)) for size in one.shape)

    def blocks(image: Slice) -> np.ndarray:
        y, x = image.shape[0] // height, image.shape[1] // width
        cut = np.asarray(image[: y * height, : x * width], float)
        return cut.reshape(y, height, x, width).swapaxes(1, 2).reshape(y * x, height * width)

    first, second = blocks(one), blocks(other)
    known, seen = first.mean(axis=1), second.mean(axis=1)
    scene = float(known.var())
    if scene == 0:
        return 0.0, 0.0
    slope = float(np.mean((known - known.mean()) * seen)) / scene
    left = max(0.0, float(seen.var()) - slope**2 * scene)
    difference = second - first
    fine = float((difference - difference.mean(axis=1, keepdims=True)).var())
    return left / scene, left / fine if fine > 0 else float("inf") if left > 0 else 0.0


def require_alike(one: Slice, other: Slice, what: str, help_: str) -> bool:
    """Raise if two slices show different objects, or the same object at different positions.

    Parameters
    ----------
    one, other
        Slices ``(y, x)``.
    what
        Description of the slices.
    help_
        Advice for the error message.

    Raises
    ------
    NoiseError
        They show different scenes, or are the same measurement twice.
    """
    if np.array_equal(one, other):
        raise NoiseError(f"{what} must be independent measurements, got the same numbers twice; {help_}")
    share, coarse = unlike(one, other)
    if share > _OTHER[0] and coarse > _OTHER[1]:
        raise NoiseError(
            f"{what} must show one scene, got two whose means over {_BLOCK} x {_BLOCK} pixels differ in {share:.0%} of "
            f"their variance; {help_}"
        )
    return coarse <= _MOVED
