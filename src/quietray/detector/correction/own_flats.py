"""Separate flats for angular subsets: every subset is corrected with flats and darks that no other subset uses.

Errors that all subsets share are the same in the input and in the target of a network, and remain: the noise of shared
flats becomes rings.  If flats and darks are divided among the subsets like the views, their noise is independent, too,
and is removed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Real
from torch import Tensor

from quietray.detector.correction.calibration import Calibration
from quietray.detector.correction.correct import RowCounts, correct_rows, corrected, stored
from quietray.detector.correction.frames import dealt_means
from quietray.scan import Scan
from quietray.types import Frame, Radiographs, Sinograms

__all__ = [
    "RINGS_SHARE",
    "Prediction",
    "correct_dealt",
    "corrected_dealt",
    "fewest_flats",
    "noise_of_flats",
    "predict",
    "with_own_flats",
]

RINGS_SHARE = 0.1  # rings' fraction of the noise in a slice; separate flats helped from 0.12 to 0.26, docs/flats.md
_IN_VIEW = 0.76  # factor relative to equal weight of all columns, over the field of view; +- 0.04 for 80 to 384 columns
_LEAST = 0.01  # smallest value relative to the flat of all, before the logarithm
_QUANTA = 20.0  # least number of quanta in a pixel of a subset's mean flat, for the mean of its logarithm


def correct_dealt(counts: Radiographs, calibration: Calibration, rows: slice) -> tuple[Sinograms, RowCounts]:
    """Return the line integrals of a band of rows for all views, each angular subset with its own correction.

    If the subsets share their flats, this is the same as :func:`correct_rows`.  The parameters are the same, too.

    Examples
    --------
    >>> from quietray.detector.correction.calibration import calibrate
    >>> from quietray.geometry import ParallelBeam
    >>> flats = np.full((4, 2, 30), 100.0) + np.array([0, 8, 0, 8])[:, None, None] * (np.arange(30) % 2)
    >>> scan = Scan(np.full((20, 2, 30), 50.0), ParallelBeam(np.linspace(0, 3, 20), 2, 30), flats)
    >>> dealt, _ = correct_dealt(scan.read(slice(2)), with_own_flats(scan, calibrate(scan), 2), slice(2))
    >>> [f"{value:.2f}" for value in dealt[0, :4, 5]]  # the odd views are divided by brighter flats in odd columns
    ['0.71', '0.75', '0.71', '0.75']
    """
    sinograms, changed = corrected_dealt(stored(counts), calibration, rows)
    return sinograms.numpy(), changed


def corrected_dealt(
    counts: Real[Tensor, "view row col"], calibration: Calibration, rows: slice
) -> tuple[Float[Tensor, "row view col"], RowCounts]:
    """Do the same as :func:`correct_dealt`, on the device of the counts; parameters as for :func:`corrected`."""
    n = len(calibration.subsets)
    if n == 0:
        return corrected(counts, calibration, rows)
    n_views, n_rows, n_cols = counts.shape
    out = torch.empty((n_rows, n_views, n_cols), dtype=torch.float32, device=counts.device)
    changed = RowCounts()
    for subset, own in enumerate(calibration.subsets):
        out[:, subset::n], some = corrected(counts[subset::n], own, rows)
        changed += some
    return out, changed


def with_own_flats(scan: Scan, calibration: Calibration, n_subsets: int) -> Calibration:
    """Return a calibration in which each angular subset has its own flats and darks, divided like the views.

    Frames are divided as ``j::K`` in the order of acquisition, so every subset gets flats from before and after the
    scan.  If there are too few darks, they are shared.  Frames of one of several detectors are divided among the
    subsets that contain views of this detector.

    Parameters
    ----------
    scan, calibration
        The scan, with as many flats as :func:`fewest_flats` requires, and its calibration.
    n_subsets
        Number K of subsets ``j::K``.

    Examples
    --------
    See `correct_dealt`.
    """
    dealt = {}
    for number, one in scan.by_detector().items():
        known = calibration if calibration.detectors is None else calibration.parts[number]
        dealt[number] = _fields(one, known, _users(scan, number, n_subsets))
    subsets = []
    for subset in range(n_subsets):
        views = slice(subset, None, n_subsets)
        fields = {number: own[subset] for number, own in dealt.items() if subset in own}
        subsets.append(calibration.of_part(scan[views], views, fields))
    if calibration.detectors is None and calibration.remove_rings == "none":
        subsets = [replace(one, apart=np.log(one.flat / calibration.flat)) for one in subsets]
    return replace(calibration, subsets=tuple(subsets))


def noise_of_flats(scan: Scan, calibration: Calibration, rows: slice) -> Float[np.ndarray, "row view col"] | None:
    """Return line integrals with noise like that of the mean flat, but independent of it, for some rows.

    Half of the difference between the means of even and of odd flats has the noise of the mean of all.  The noise of
    the mean dark is not included.

    Parameters
    ----------
    scan, calibration
        The scan and its calibration.
    rows
        Detector rows.

    Returns
    -------
    ndarray or None
        Of all views; of a single one, if it is the same in all.  None if there are fewer than two flats, or if the
        views do not share them.

    Examples
    --------
    >>> from quietray.detector.correction.calibration import calibrate
    >>> from quietray.geometry import ParallelBeam
    >>> beam, rng = ParallelBeam(np.linspace(0, 3, 100), 20, 400), np.random.default_rng(0)
    >>> scan = Scan(rng.poisson(900, (9, 20, 400)), beam[:9], rng.poisson(900, (8, 20, 400)))
    >>> noise = noise_of_flats(scan, calibrate(scan), slice(0, 20))
    >>> noise.shape, f"{noise.std() * (900 * 8) ** 0.5:.1f}"  # relative to the noise of the mean of 8 flats
    ((20, 1, 400), '1.0')
    """
    if calibration.settings.line_integrals or calibration.subsets:
        return None
    if calibration.detectors is None:
        found = _noise_of_flats(scan, calibration, rows)
        return None if found is None else np.expand_dims(found, 1)
    out = np.empty((rows.stop - rows.start, scan.n_views, scan.n_cols), np.float32)
    for number, one in scan.by_detector().items():
        found = _noise_of_flats(one, calibration.parts[number], rows)
        if found is None:
            return None
        out[:, calibration.detectors == number] = found[:, None]
    return out


def fewest_flats(scan: Scan, n_subsets: int) -> int:
    """Return the smallest number of flats that an angular subset would have, per detector.

    Examples
    --------
    >>> from quietray.geometry import ParallelBeam
    >>> beam = ParallelBeam(np.linspace(0, 3, 20), 2, 30)
    >>> fewest_flats(Scan(np.ones((20, 2, 30)), beam, np.ones((10, 2, 30))), 4)
    2
    """
    return min(
        0 if one.flats is None else int(one.flats.shape[0]) // len(_users(scan, number, n_subsets))
        for number, one in scan.by_detector().items()
    )


@dataclass(frozen=True)
class Prediction:
    """Predicted effect of the noise of the flats.

    Parameters
    ----------
    rings_share
        Variance of the rings that shared flats cause in a slice, relative to that of the noise of the views, over the
        field of view; rings are strongest near the axis.
    view_variance, flat_variance
        Noise variance of one view, in line integrals, and of the mean of all flats; None if the counts per quantum are
        unknown.
    quanta
        Quanta in a pixel of the mean flat of a subset; None if unknown.

    Examples
    --------
    >>> Prediction(0.3, 0.02, 0.0005, 100.0).worth_it
    True
    """

    rings_share: float
    view_variance: float | None
    flat_variance: float | None
    quanta: float | None

    @property
    def enough_light(self) -> bool:
        """Whether the flats of a subset hold enough quanta for the logarithm."""
        return self.quanta is None or self.quanta >= _QUANTA

    @property
    def worth_it(self) -> bool:
        """Whether separate flats are the better choice."""
        return self.rings_share >= RINGS_SHARE and self.enough_light


def predict(scan: Scan, calibration: Calibration, n_subsets: int) -> Prediction:
    """Predict the rings of shared flats, from the counts of the middle row and the numbers of flats and views.

    Notes
    -----
    The noise of a view has the variance ``v = mean(1 / (n T))``, for n quanta and a transmission T; the
    mean of F flats has ``f = 1 / (n F)``.  A pixel at radius r sees N views through 2 r columns, so it sums v over N
    views, but f with about N / (2 r) repetitions per column.  Rings therefore have about ``N f / (2 r v)`` times the
    variance of the noise, 0.7 times that with the ramp filter, and ``0.76 N f / (R v)`` over a field of view of radius
    R, half of the columns.

    Examples
    --------
    >>> from quietray.detector.correction.calibration import calibrate
    >>> from quietray.geometry import ParallelBeam
    >>> beam, rng = ParallelBeam(np.linspace(0, 3, 100), 2, 40), np.random.default_rng(0)
    >>> scan = Scan(rng.poisson(900, (100, 2, 40)), beam, rng.poisson(900, (8, 2, 40)))
    >>> round(predict(scan, calibrate(scan), 4).rings_share, 1)  # 0.76 * 100 / 20 / 8
    0.5
    """
    middle = scan.n_rows // 2
    band = slice(middle, middle + 1)
    sinograms, _ = correct_rows(scan.read(band), calibration, band)
    dimming = float(np.exp(sinograms.astype(np.float64)).mean())
    scans = tuple(scan.by_detector().values())
    n_flats = min(0 if one.flats is None else int(one.flats.shape[0]) for one in scans)
    noiseless = n_flats == 0 or (n_flats >= 3 and calibration.quantum <= 0)  # the data come from a formula
    ratio = 0.0 if noiseless else 1 / (n_flats * dimming)  # variances of the mean of all flats and of a view
    share = _IN_VIEW * 2 * max(one.n_views for one in scans) / scan.n_cols * ratio
    if calibration.quantum <= 0:
        return Prediction(share, None, None, None)
    quanta = float(np.median(calibration.flat[band])) / calibration.quantum
    each = quanta * fewest_flats(scan, n_subsets)
    return Prediction(share, dimming / quanta, 1 / (quanta * n_flats), each)


def _noise_of_flats(scan: Scan, calibration: Calibration, rows: slice) -> Frame | None:
    """Return the same for the views of a single detector, ``(row, col)``."""
    if scan.flats is None or scan.flats.shape[0] < 2:
        return None
    n = int(scan.flats.shape[0])
    share = np.float32(math.sqrt((n + 1) // 2 * (n // 2)) / n)  # a half; slightly less for an odd number
    even, odd = dealt_means(scan.flats[:, rows], 2, calibration.dark[rows], drift=True)
    found: Frame = np.zeros_like(even)
    good = ~calibration.bad[rows]
    found[good] = np.log(np.maximum(1 + share * (even - odd)[good] / calibration.flat[rows][good], _LEAST))
    return found


def _users(scan: Scan, number: int, n_subsets: int) -> list[int]:
    """Return the subsets that the frames of a detector are divided among."""
    if scan.detectors is None or scan.flat_detectors is None:
        return list(range(n_subsets))
    return [int(one) for one in np.unique(np.flatnonzero(scan.detectors == number) % n_subsets)]


def _fields(scan: Scan, calibration: Calibration, users: list[int]) -> dict[int, tuple[Frame, Frame]]:
    """Return flat minus dark, and dark, for each subset that the frames of a detector are divided among.

    All flats have the same mean logarithm as the flat of all frames, so that drift or a small number of frames does not
    make a subset differ.  The logarithm of few counts is biased by half of their relative variance; therefore the mean
    over the subsets of the logarithm is made equal to that of the flat of all frames in every pixel.
    """
    assert scan.flats is not None, "there are no flats to divide among the subsets"
    dark, good = calibration.dark, ~calibration.bad
    flats = dealt_means(scan.flats, len(users), dark, drift=True)
    darks = np.broadcast_to(dark, flats.shape)
    if scan.darks is not None and scan.darks.shape[0] >= len(users):
        darks = dealt_means(scan.darks, len(users))
        flats += dark - darks
    apart = np.zeros_like(flats)
    apart[:, good] = np.log(np.maximum(flats[:, good] / calibration.flat[good], _LEAST))
    apart[:, good] -= apart[:, good].mean(axis=1, keepdims=True)
    apart -= apart.mean(axis=0)
    return {user: (calibration.flat * np.exp(apart[index]), darks[index]) for index, user in enumerate(users)}
