"""Why a gain is not told as one figure, or not at all."""

from __future__ import annotations

__all__ = [
    "NEAR",
    "Reason",
    "RingFilter",
    "SeemingNoise",
    "Streaks",
    "UnknownNoise",
    "filtered_rings",
    "too_few_views",
    "too_little",
]

NEAR = 0.7  # in dB: a gain is one figure where its 90 % interval reaches no further to either side
_HALF = 1.0  # views in half of the data that a region needs, per pixel of its width
_MISTAKEN = 0.15  # largest fraction of the error that streaks may hide: 0.7 dB of the gain
_LEFT = 0.03  # usual squared error after denoising, as a fraction of the noise: a gain of 15 dB


class Reason(str):
    """Why a gain is not told as one figure; this one still tells both ends of its interval.

    Its kind says which ends of the interval are told all the same (`least`, `most`), and what to do, as the rest of a
    warning (`advice`; empty for none).

    Examples
    --------
    >>> Streaks("half of the views are too few").least, UnknownNoise("the noise is not known").most
    (False, False)
    """

    __slots__ = ()

    least = True
    most = True
    advice = ""


class Streaks(Reason):
    """Streaks count as noise, and make a gain seem larger."""

    __slots__ = ()

    least = False
    advice = (
        ", which would count as noise and make it seem larger. Compare methods (`quietray compare`), or measure more "
        "views."
    )


class RingFilter(Reason):
    """A ring filter hides errors, and makes a gain seem larger."""

    __slots__ = ()

    least = False
    advice = ". If the rings allow it, --rings none gives an estimate."


class SeemingNoise(Reason):
    """Structure was measured as noise, and makes a gain seem larger."""

    __slots__ = ()

    least = False
    advice = ". A second measurement of the same images (--repeats) gives an estimate."


class UnknownNoise(SeemingNoise):
    """The noise is not known, and a gain may be smaller or larger than it seems."""

    __slots__ = ()

    most = False


def too_few_views(
    views: float, columns: int, share: float = 1.0, streaks: float | None = None, left: float | None = None
) -> Reason | None:
    """Return the reason that half of the views are too few for a region to tell its noise from streaks; else None.

    Views that are fewer than the pixels of the region may still be enough, as the object or the detector may be
    blurred.  Therefore measured streaks decide, if they are known.

    Parameters
    ----------
    views
        Number of views in half a turn.
    columns
        Number of detector columns.
    share
        Fraction of the field of view that the region covers.
    streaks
        Streaks that half of the views have, as a fraction of the noise, at most; None if not measured.
    left
        Squared error after denoising, as a fraction of the noise, which streaks make seem smaller; None for that of a
        gain of 15 dB.

    Examples
    --------
    >>> too_few_views(48.0, 64)
    'half of the 48 views are too few for a width of about 62 columns: their noise cannot be distinguished from streaks'
    >>> too_few_views(64.0, 64, 0.25), too_few_views(48.0, 64, streaks=0.002, left=0.05)
    (None, None)
    """
    width = 0.97 * columns * share**0.5
    if views / 2 >= _HALF * width or (streaks is not None and streaks < _MISTAKEN * (_LEFT if left is None else left)):
        return None
    return Streaks(
        f"half of the {views:.0f} views are too few for a width of about {width:.0f} columns: their noise cannot be "
        "distinguished from streaks"
    )


def filtered_rings(rings: str) -> Reason | None:
    """Return the reason that a ring filter hides errors from held-out views; None if there was no filter.

    Examples
    --------
    >>> filtered_rings("all")
    "the ring filter 'all' acts on all views alike, so what it took from the object is not known"
    >>> filtered_rings("none") is None
    True
    """
    if rings == "none":
        return None
    return RingFilter(
        f"the ring filter '{rings}' acts on all views alike, so what it took from the object is not known"
    )


def too_little(gain: float, interval: tuple[float, float]) -> Reason | None:
    """Return the reason that a gain is told by its interval alone; None if it is known to 0.7 dB.

    The estimate of an error is the difference of two larger numbers.  Where it is small beside its uncertainty, its
    logarithm is not only uncertain, but too large on average.

    Examples
    --------
    >>> too_little(9.5, (9.0, 10.1)), too_little(9.5, (7.9, 12.0))
    (None, 'too little was held out to know the gain to 0.7 dB')
    """
    low, high = interval
    near = gain - low <= NEAR and high - gain <= NEAR  # also not if any of them is not a number
    return None if near else Reason(f"too little was held out to know the gain to {NEAR} dB")
