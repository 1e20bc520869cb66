"""Check of the angular range: views half a turn apart must mirror each other if the angles are right."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from quietray.detector.correction.calibration import Correction
from quietray.detector.correction.layout import line_integrals
from quietray.detector.correction.mirror import mirrored_alike
from quietray.errors import GeometryError
from quietray.geometry import ParallelBeam
from quietray.geometry.grid import in_order
from quietray.scan import Scan

__all__ = ["doubted_sweep", "unchecked_angles"]

_FEWEST = 24  # number of views
_ENOUGH = 500  # views among which pairs by the golden angle are sought
_CLOSE, _APART = np.radians(4.0), np.radians(30.0)  # distance of such a pair from half a turn, and of the stated one
_BASES = 6  # number of views whose partners are examined
_NEAR = np.radians(2.0)  # fraction of a step by which the last view may miss its partner
_BLURS = (2.0, 6.0)  # number of columns
_SURE = (0.5, 0.12)  # difference relative to the stated angles, and least correlation, for another angular range
_GOLDEN_SURE = (0.75, 0.25)  # least correlation, and least difference, for views by the golden angle
_NOISY = (0.4, 8.0)  # the same if only noise differs: fraction of the correlation, and factor over chance
# Factors for the stated angles, and the mistake that each corrects.
_GOLDEN = np.pi / 2 * (np.sqrt(5) - 1)  # of half a turn
# Angles per view, and the range within which they are counted, of views by the golden angle.
_BY_THE_GOLDEN = ((_GOLDEN, 2 * np.pi), (_GOLDEN, np.pi), (2 * (np.pi - _GOLDEN), 2 * np.pi))
_OTHERWISE = {2.0: "twice as far", 0.5: "half as far", 0.9: "nine tenths as far, as with angles in gon"}


def doubted_sweep(scan: Scan, settings: Correction) -> None:
    """Raise if opposite views contradict the angles and mirror each other for another angular range.

    There is no error if the user has stated the order of the axes, nor if the angles cannot be checked: see
    :func:`unchecked_angles`; also for an object that looks the same from all sides, or a wrong direction, which only
    mirrors the volume.

    Parameters
    ----------
    scan
        Scan; only parallel beams are checked.
    settings
        Settings of the correction.

    Raises
    ------
    GeometryError
        The object turned twice as far as stated, half as far, or by the golden angle from view to view, or the angles
        are in gon instead of degrees.
    """
    beam = scan.geometry
    if not isinstance(beam, ParallelBeam) or scan.provenance.get("order") or unchecked_angles(scan):
        return
    angles = np.abs(beam.angles - beam.angles[0])
    pairs = {times: _pairs(angles, np.pi / times) for times in (1.0, *_OTHERWISE)}
    pairs = {times: both for times, both in pairs.items() if len(both)}
    golden = [both for how in _BY_THE_GOLDEN if len(both := _golden_pairs(angles, *how)) >= _BASES // 2]
    wanted = [np.array([0, scan.n_views - 1]), *(both.ravel() for both in (*pairs.values(), *golden))]
    numbers = np.unique(np.concatenate(wanted))
    lines = line_integrals(scan, numbers, settings)
    if lines is None or 1.0 not in pairs or len(pairs) < 2:
        return
    place = {int(number): index for index, number in enumerate(numbers)}
    for blur in _BLURS:
        slopes = np.ascontiguousarray(ndimage.gaussian_filter1d(lines, blur, axis=2, order=1).swapaxes(0, 1))
        alike = {times: _alike(slopes, both, place) for times, both in pairs.items()}
        chance = np.sqrt(3 * blur / (slopes.shape[0] * slopes.shape[2]))
        for times in alike:
            sure = _better(alike[times], alike[1.0], chance / np.sqrt(len(pairs[times])))
            # the object may have fourfold symmetry: does the last view repeat the first, as after whole turns?
            sure &= times != 2.0 or _better(_same(slopes), alike[1.0], chance)
            sure &= times != 0.5 or beam.turns != 2 or _better(alike[times], _same(slopes), chance)
            if sure:
                raise _contradicted(beam, times, alike[times], alike[1.0])
        for both in golden:
            found = _alike(slopes, both, place)
            if found > _GOLDEN_SURE[0] and found - alike[1.0] > _GOLDEN_SURE[1]:
                raise _by_the_golden_angle(beam, found, alike[1.0])


def unchecked_angles(scan: Scan) -> tuple[str, ...]:
    """Return a note if no two views can contradict the angles, with the reason.

    Examples
    --------
    >>> scan = Scan(np.ones((20, 2, 8)), ParallelBeam(np.arange(20) * 0.2, 2, 8))
    >>> print(*unchecked_angles(scan))
    The angles could not be checked against the views, since there are only 20 of them (of 24 or more): wrong ones show
    as doubled or smeared edges.
    """
    beam = scan.geometry
    if not isinstance(beam, ParallelBeam):
        why = "opposite views of a diverging beam are no mirror images"
    elif scan.detectors is not None:
        why = "several detectors take turns"
    elif beam.turns < 1:
        why = "they cover less than half a turn"
    elif scan.n_views < _FEWEST:
        why = f"there are only {scan.n_views} of them (of {_FEWEST} or more)"
    elif not in_order(beam.angles):
        why = "they are not in the order of their angles, as interlaced ones or those by the golden angle"
    else:
        return ()
    told = f"The angles could not be checked against the views, since {why}"
    return (f"{told}: wrong ones show as doubled or smeared edges.",)


def _contradicted(beam: ParallelBeam, times: float, found: float, claimed: float) -> GeometryError:
    said = float(np.rad2deg(beam.coverage))
    return GeometryError(
        f"views half a turn apart must mirror each other, got a correlation of {claimed:.2f} for the stated {said:.0f} "
        f"degrees, and of {found:.2f} if the object turned {_OTHERWISE[times]}; give the true angles, such as --angles "
        f"0:{said * times:.0f}, or --order view if they are right"
    )


def _by_the_golden_angle(beam: ParallelBeam, found: float, claimed: float) -> GeometryError:
    return GeometryError(
        f"views half a turn apart must mirror each other, got angles over {np.rad2deg(beam.coverage):.0f} degrees by "
        f"which they correlate by {claimed:.2f}, and by {found:.2f} if the object turned by the golden angle from view "
        "to view; give the angles as they were, in a text file with --angles, or --order view if they are right"
    )


def _golden_pairs(stated: Float[np.ndarray, " view"], step: float, within: float) -> np.ndarray:
    """Return the pairs of views ``(pair, 2)`` nearest to half a turn apart by the golden angle, but not as stated."""
    golden, stated = np.mod(np.arange(len(stated)) * step, within)[:_ENOUGH], stated[:_ENOUGH]
    off, said = (np.abs(np.mod(one[:, None] - one[None], 2 * np.pi) - np.pi) for one in (golden, stated))
    off[(said < _APART) | (off > _CLOSE)] = np.inf
    first, second = np.unravel_index(np.argsort(off, axis=None, kind="stable"), off.shape)
    once = (first < second) & np.isfinite(np.sort(off, axis=None))
    return np.stack([first[once], second[once]], axis=1)[:_BASES]


def _pairs(angles: Float[np.ndarray, " view"], apart: float) -> np.ndarray:
    """Return pairs of views ``(pair, 2)`` this far apart, evenly spaced; the last view may fall slightly short."""
    step = float(np.median(np.diff(angles)))
    exact = np.flatnonzero(angles + apart <= angles[-1] + 1.05 * step)
    first = exact if len(exact) >= _BASES else np.flatnonzero(angles + apart <= angles[-1] + max(1.05 * step, _NEAR))
    first = first[np.unique(np.linspace(0, len(first) - 1, min(_BASES, len(first))).round().astype(int))]
    second = np.abs(angles[None] - angles[first, None] - apart).argmin(axis=1)
    return np.stack([first, second], axis=1)


def _alike(slopes: Float[np.ndarray, "row view col"], pairs: np.ndarray, place: dict[int, int]) -> float:
    """Return the correlation of views with the mirror images of others, about one axis."""
    ahead, behind = (slopes[:, [place[int(number)] for number in side]] for side in pairs.T)
    return mirrored_alike(ahead, -behind[:, :, ::-1])


def _same(slopes: Float[np.ndarray, "row view col"]) -> float:
    """Return the correlation of the last view with the first, allowing for a drift of the object."""
    return mirrored_alike(slopes[:, :1], slopes[:, -1:])


def _better(found: float, claimed: float, chance: float) -> bool:
    """Return whether views agree so much better than for the stated angles that motion and noise are excluded."""
    more = found - claimed
    clear = 1 - found < _SURE[0] * (1 - claimed) and more > _SURE[1]
    return bool(clear or (claimed < _NOISY[0] * found and more > _NOISY[1] * chance))
