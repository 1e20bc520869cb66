"""Beam intensity beside the object, and stripes behind it: air columns, brightness of the views, rings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from quietray.detector.correction.frames import robust_sd, sampled_rows
from quietray.detector.correction.survey import blocks_of_views
from quietray.errors import SettingsError
from quietray.scan import Scan
from quietray.types import Frame, PixelMask

__all__ = ["BeamSurvey", "air_factors", "find_air", "parse_columns", "survey_beam"]

Profile = Float[np.ndarray, "view col"]


@dataclass(frozen=True, eq=False)
class BeamSurvey:
    """Properties of the beam, measured on a sample of the rows.

    Parameters
    ----------
    profile
        ``(view, col)`` transmission averaged over the sampled rows, before any correction of the beam intensity.
    stripes
        Standard deviation over columns of the part of the attenuation that is the same in all views (dimensionless).
    noise
        Contribution of the noise of the views to `stripes` (dimensionless).
    """

    profile: Profile
    stripes: float
    noise: float

    @property
    def stripe_ratio(self) -> float:
        """Stripes relative to the noise in the mean over all views."""
        return self.stripes / self.noise if self.noise > 0 else 0.0


def survey_beam(scan: Scan, flat: Frame, dark: Frame, bad: PixelMask, floor: float) -> BeamSurvey:
    """Measure the mean transmission per view and column, and the stripes, on at most 64 rows.

    A stripe is the same in all views; noise and structure are not.  The mean attenuation over each quarter of the views
    is high-pass filtered across the columns.  The variance of the stripes is the covariance of two independent halves
    of the quarters; the noise is the difference between even and odd views.

    Parameters
    ----------
    flat, dark
        ``(row, col)`` flat minus dark, and dark, in counts.
    bad
        ``(row, col)`` pixels to leave out.
    floor
        Smallest transmission before the log.

    Examples
    --------
    >>> from quietray.geometry import ParallelBeam
    >>> counts = np.full((40, 2, 30), 50.0, np.float32); counts[:, :, 7] = 40
    >>> scan = Scan(counts, ParallelBeam(np.linspace(0, np.pi, 40), 2, 30))
    >>> ones = np.ones((2, 30), np.float32)
    >>> round(float(survey_beam(scan, 50 * ones, 0 * ones, ones < 0, 1e-3).profile[0, 7]), 3)
    0.8
    """
    rows = sampled_rows(scan.n_rows)
    good, flats, darks = ~bad[rows], flat[rows], dark[rows]
    weight = np.where(good, flats, 0)
    total = np.maximum(weight.sum(axis=0), 1e-30)
    profile = np.ones((scan.n_views, scan.n_cols), np.float32)
    sums, used = np.zeros((4, 2, *flats.shape)), np.zeros((4, 2))
    for views, counts in blocks_of_views(scan, rows):
        seen = (counts - darks) / flats
        seen[:, ~good] = 0
        bright = np.percentile(seen[:, good], 95, axis=1) if good.any() else np.ones(len(seen))
        seen = np.minimum(seen, 1.2 * bright[:, None, None].astype(np.float32))
        profile[views] = (seen * weight).sum(axis=1) / total
        attenuation = -np.log(np.maximum(seen, floor))
        for index, view in enumerate(range(views.start, views.stop)):
            part = view * 4 // scan.n_views, view % 2
            sums[part] += attenuation[index]
            used[part] += 1
    empty = total <= 1e-30
    if empty.any() and not empty.all():
        whole = np.flatnonzero(~empty)
        profile[:, empty] = profile[:, whole[np.abs(whole[:, None] - np.flatnonzero(empty)).argmin(axis=0)]]
    stripes, noise = _stripes(sums, used, good)
    return BeamSurvey(profile, stripes, noise)


def _stripes(
    sums: Float[np.ndarray, "4 2 row col"], used: Float[np.ndarray, "4 2"], good: PixelMask
) -> tuple[float, float]:
    """Return the standard deviation of the stripes, and that of the noise in the mean over all views."""
    if used.min() < 2 or sums.shape[-1] < 9 or good.sum() < 9:
        return 0.0, 0.0
    quarters = sums.sum(axis=1) / used.sum(axis=1)[:, None, None]
    parities = sums.sum(axis=0) / used.sum(axis=0)[:, None, None]
    one, other = _high_pass((quarters[0] + quarters[2]) / 2), _high_pass((quarters[1] + quarters[3]) / 2)
    limit = 4 * max(robust_sd(one[good]), robust_sd(other[good]))
    one, other = np.clip(one, -limit, limit), np.clip(other, -limit, limit)
    shared = float(np.mean((one * other)[good]))
    noise = robust_sd(_high_pass((parities[0] - parities[1]) / 2)[good])
    return float(np.sqrt(max(shared, 0.0))), noise


def _high_pass(means: Float[np.ndarray, "row col"]) -> Float[np.ndarray, "row col"]:
    return np.asarray(means - ndimage.median_filter(means, size=(1, 9), mode="mirror"))


def parse_columns(text: str, n_cols: int) -> tuple[tuple[int, int], ...]:
    """Parse columns such as ``"0:90,745:835"``, end exclusive.

    Raises
    ------
    SettingsError
        The text is not such a list, or the columns are outside the detector.

    Examples
    --------
    >>> parse_columns("0:90, 745:835", 835)
    ((0, 90), (745, 835))
    """
    found = []
    for part in text.split(","):
        ends = part.strip().split(":")
        if len(ends) != 2 or not all(end.strip().isdigit() for end in ends):
            raise SettingsError(f"air must be auto, none or columns such as 0:90,745:835, got '{text}'")
        start, stop = int(ends[0]), int(ends[1])
        if not start < stop <= n_cols:
            raise SettingsError(
                f"air columns must be a range start:stop within 0:{n_cols}, got '{part.strip()}'; correct --air"
            )
        found.append((start, stop))
    return tuple(found)


def find_air(profile: Profile) -> tuple[tuple[int, int], ...]:
    """Find columns at the edges that see the open beam in all views; an empty tuple if unclear.

    Parameters
    ----------
    profile
        ``(view, col)`` mean transmission over rows.

    Notes
    -----
    An edge counts as air if its transmission is about 1, apart from a drift of the beam between views, and
    if both edges drift alike (which excludes an object that reaches one edge in some views).  From each such edge, the
    region grows inwards as long as the columns follow the edge.

    Examples
    --------
    >>> profile = np.ones((50, 60), np.float32); profile[:, 20:40] = 0.5
    >>> find_air(profile)
    ((0, 18), (42, 60))
    """
    n_views, n_cols = profile.shape
    width = max(2, min(16, n_cols // 40))
    if n_views < 4 or n_cols < 8:
        return ()
    strips = {"left": profile[:, :width].mean(axis=1), "right": profile[:, -width:].mean(axis=1)}
    sides = [side for side, strip in strips.items() if _is_open(strip)]
    if len(sides) == 2:
        sides = _sides_that_agree(strips["left"], strips["right"])
    elif len(sides) == 1:
        smooth = _smooth(strips[sides[0]])
        sides = sides if np.ptp(np.percentile(smooth, [0.5, 99.5])) < 0.06 else []
    found = []
    for side in sides:
        seen = profile if side == "left" else profile[:, ::-1]
        size = _grow(seen / strips[side][:, None], width)
        if size:
            found.append((0, size) if side == "left" else (n_cols - size, n_cols))
    if sum(stop - start for start, stop in found) > 0.9 * n_cols:
        return ()
    return tuple(found)


def _is_open(strip: Float[np.ndarray, " view"]) -> bool:
    """Whether an edge of the detector can be open beam: a transmission of about 1, without deep dips."""
    low, middle, high = np.percentile(strip, [0.5, 50, 95])
    return bool(0.93 < high < 1.25 and middle > 0.75 and low > 0.6 * middle)


def _sides_that_agree(left: Float[np.ndarray, " view"], right: Float[np.ndarray, " view"]) -> list[str]:
    ratio = left / right
    noise = robust_sd(np.diff(ratio)) / np.sqrt(2)
    ratio = _smooth(ratio / np.median(ratio))
    low, high = np.percentile(ratio, [0.5, 99.5])
    tolerance = 0.02 + 2 * noise
    return [side for side, fine in (("left", low > 1 - tolerance), ("right", high < 1 + tolerance)) if fine]


def _smooth(values: Float[np.ndarray, " view *col"]) -> Float[np.ndarray, " view *col"]:
    size = max(1, min(5, len(values) // 10))
    return np.asarray(ndimage.median_filter(values, size=(size, *(1,) * (values.ndim - 1)), mode="nearest"))


def _grow(relative: Profile, width: int) -> int:
    """Return how many columns from the left follow the edge, minus a margin beside the object."""
    averaged = ndimage.uniform_filter1d(relative, 3, axis=1, mode="nearest")
    change = np.abs(np.diff(averaged, axis=0))
    noise = 1.05 * float(np.median(np.median(change, axis=0)))  # standard deviation of one view in a typical column
    low, middle = np.percentile(_smooth(averaged), [1, 50], axis=0)
    tolerance = max(0.02, 2.2 * noise)
    fine = (np.abs(middle - 1) < max(0.03, 0.7 * noise)) & (low > middle - tolerance) & (low > 1 - 2 * tolerance)
    if np.mean(fine[:width]) < 0.7:
        return 0
    wrong = ndimage.uniform_filter1d((~fine).astype(np.float64), 3, origin=-1, mode="constant", cval=1.0) > 0.99
    size = int(np.argmax(wrong)) if wrong.any() else len(fine)
    size = size - max(1, size // 10) if size < len(fine) else size
    return size if size >= width else 0


def air_factors(
    scan: Scan, flat: Frame, dark: Frame, bad: PixelMask, columns: tuple[tuple[int, int], ...]
) -> tuple[Float[np.ndarray, " view"], bool]:
    """Measure the brightness of each view relative to the flats, on at most 64 rows of the air columns.

    Zingers and bad pixels are left out.  If the beam is constant within the noise of this measurement, all views get
    the same factor, so that the correction adds no noise.

    Returns
    -------
    factors, drifts
        Factors ``(view,)``, float32, 1 for a view as bright as the flats; and whether the beam drifts.

    Examples
    --------
    >>> from quietray.geometry import ParallelBeam
    >>> counts = np.ones((3, 2, 9), np.float32) * np.array([90, 100, 110], np.float32)[:, None, None]
    >>> scan, ones = Scan(counts, ParallelBeam(np.arange(3.0), 2, 9)), np.ones((2, 9), np.float32)
    >>> air_factors(scan, 100 * ones, 0 * ones, ones < 0, ((0, 4),))[0].astype(float).round(3).tolist()
    [0.9, 1.0, 1.1]
    """
    rows = sampled_rows(scan.n_rows)
    chosen = np.concatenate([np.arange(start, stop) for start, stop in columns])
    good = ~bad[rows][:, chosen]
    if not good.any():
        return np.ones(scan.n_views, np.float32), False
    weight, offset = flat[rows][:, chosen][good], dark[rows][:, chosen][good]
    factors, errors = np.ones(scan.n_views), np.zeros(scan.n_views)
    for views, counts in blocks_of_views(scan, rows):
        seen = (counts[:, :, chosen][:, good] - offset) / weight
        middle = np.median(seen, axis=1, keepdims=True)
        deviation = np.abs(seen - middle)
        sd = 1.4826 * np.median(deviation, axis=1, keepdims=True)
        share = np.where(deviation <= np.maximum(5 * sd, 1e-6), weight, 0).astype(np.float64)
        factors[views] = (share * seen).sum(axis=1) / np.maximum(share.sum(axis=1), 1e-30)
        errors[views] = sd[:, 0] / np.sqrt(good.sum())
    drifts = bool(factors.std() > 1.5 * np.median(errors) + 1e-5)
    if not drifts:
        factors[:] = factors.mean()
    return factors.astype(np.float32), drifts
