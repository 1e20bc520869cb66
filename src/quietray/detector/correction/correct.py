"""From counts to line integrals of the attenuation: flats, darks, beam, bad pixels, zingers, rings.

Global properties are measured once, in `calibrate`.  `correct_rows` acts on the sinogram of each detector row
separately, so the result is bit-identical however the rows are divided into slabs.  Many rows are corrected at a time,
in torch, on the device of their counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Real
from torch import Tensor

from quietray.detector.correction.calibration import Calibration, Correction, calibrate
from quietray.detector.correction.ranks import windows_memory
from quietray.detector.correction.stripes import fill_columns, window_sizes, without_stripes
from quietray.detector.correction.zingers import find_zingers, replace_zingers
from quietray.errors import GeometryError, NoiseError
from quietray.types import Sinograms

__all__ = ["Calibration", "Correction", "RowCounts", "calibrate", "correct_rows", "corrected", "stored", "workspace"]

_AT_ONCE = 2**20  # samples corrected at a time by each thread: a row or two, to stay in the cache
_DEVICE_AT_ONCE = 2**25  # the same for a GPU
_EACH = 36  # largest memory in bytes per sample, besides the counts and the result


@dataclass(frozen=True)
class RowCounts:
    """Numbers of samples that were changed.

    Examples
    --------
    >>> RowCounts(zingers=1, total=10) + RowCounts(floored=2, total=10)
    RowCounts(zingers=1, bad=0, floored=2, total=20)
    """

    zingers: int = 0
    bad: int = 0
    floored: int = 0
    total: int = 0

    def __add__(self, other: RowCounts) -> RowCounts:
        return RowCounts(
            self.zingers + other.zingers,
            self.bad + other.bad,
            self.floored + other.floored,
            self.total + other.total,
        )


def correct_rows(
    counts: Real[np.ndarray, "view row col"],
    calibration: Calibration,
    rows: slice,
    device: torch.device | str | None = None,
) -> tuple[Sinograms, RowCounts]:
    """Convert the counts of a band of rows, for all views, to line integrals of the attenuation.

    ``p = -log(max((counts - dark) / (flat * beam), floor))`` after bad pixels and zingers are replaced, then rings.

    Parameters
    ----------
    counts
        Counts ``(view, row, col)``, as read or as stored.
    calibration
        Calibration of the scan.
    rows
        The detector rows of the band.
    device
        Device for the computation; the CPU by default.

    Returns
    -------
    sinograms, changed
        Line integrals ``(row, view, col)``, float32, dimensionless; and the numbers of samples changed.

    Raises
    ------
    NoiseError
        The counts contain NaN or infinity.
    GeometryError
        The shape of the counts does not match the calibration.

    Examples
    --------
    See `calibrate`.
    """
    sinograms, changed = corrected(stored(counts).to(device or "cpu"), calibration, rows)
    return sinograms.cpu().numpy(), changed


def stored(counts: Real[np.ndarray, "view row col"]) -> Real[Tensor, "view row col"]:
    """Return counts as a tensor, of the stored type if torch supports it, else as float32.

    Examples
    --------
    >>> [str(stored(np.ones((1, 1, 1), kind)).dtype) for kind in ("u2", ">u2")]
    ['torch.uint16', 'torch.float32']
    """
    known = counts.dtype in (np.uint8, np.uint16, np.float32)  # other integer types and byte orders are not supported
    return torch.from_numpy(np.require(counts, None if known else np.float32, ["C", "W"]))


def corrected(
    counts: Real[Tensor, "view row col"], calibration: Calibration, rows: slice
) -> tuple[Float[Tensor, "row view col"], RowCounts]:
    """Convert counts on a device to line integrals on the same device, like :func:`correct_rows`.

    Parameters
    ----------
    counts
        Counts ``(view, row, col)`` as stored (for example uint16) or as float32; they are not modified.
    calibration, rows
        As for :func:`correct_rows`.

    Returns
    -------
    sinograms, changed
        Line integrals ``(row, view, col)``, float32, on the device of the counts; and the numbers of samples changed.

    Examples
    --------
    >>> from quietray.geometry import ParallelBeam
    >>> from quietray.scan import Scan
    >>> stored, beam = np.full((20, 2, 30), 50, np.uint16), ParallelBeam(np.linspace(0, 3, 20), 2, 30)
    >>> calibration = calibrate(Scan(stored, beam, flats=np.full((3, 2, 30), 100.0)))
    >>> sinograms, _ = corrected(torch.from_numpy(stored), calibration, slice(0, 2))
    >>> tuple(sinograms.shape), bool(torch.allclose(sinograms, torch.tensor(2.0).log()))
    ((2, 20, 30), True)
    """
    numbers = range(len(calibration.flat))[rows]
    wanted = (len(calibration.air_factors), len(numbers), calibration.flat.shape[1])
    if tuple(counts.shape) != wanted:
        raise GeometryError(
            f"the counts of rows {rows.start}:{rows.stop} must include all views, {wanted}, got {tuple(counts.shape)}"
        )
    out = torch.empty((wanted[1], wanted[0], wanted[2]), dtype=torch.float32, device=counts.device)
    changed = RowCounts()
    step = _rows_together(counts.device, wanted[0] * wanted[2])
    for first in range(0, len(numbers), step):
        band = out[first : first + step]
        band.copy_(counts[:, first : first + step].transpose(0, 1))
        if not bool(band.sum(dtype=torch.float64).isfinite()):
            n_bad = int(counts.numel() - counts.to(torch.float32).isfinite().count_nonzero())
            raise NoiseError(
                f"projections must be finite counts, got {n_bad} NaN or infinite samples in rows "
                f"{rows.start}:{rows.stop}; correct the file or leave those views out"
            )
        changed += _correct(band, calibration, numbers[first : first + step])
    return out, changed


def workspace(n_views: int, n_cols: int, n_rows: int, device: torch.device | str = "cpu") -> int:
    """Return the peak memory in bytes for correcting this many rows, besides the counts and the result.

    Examples
    --------
    >>> workspace(1500, 2048, 64) == workspace(1500, 2048, 2048)
    True
    """
    lines = n_views * min(n_rows, _rows_together(torch.device(device), n_views * n_cols))
    return _EACH * lines * n_cols + windows_memory(lines, n_cols, max(window_sizes(n_cols)), torch.device(device))


def _rows_together(device: torch.device, row: int) -> int:
    """Return the number of rows of this many samples that are corrected at a time."""
    at_once = _AT_ONCE * torch.get_num_threads() if device.type == "cpu" else _DEVICE_AT_ONCE
    return max(1, at_once // max(1, row))


def _correct(band: Float[Tensor, "row view col"], calibration: Calibration, rows: range) -> RowCounts:
    """Correct the counts of rows in place; each row depends only on itself and the calibration."""
    if calibration.detectors is None:
        return _correct_views(band, calibration, rows)
    changed = RowCounts()
    for number, part in calibration.parts.items():  # zingers and rings are treated per detector
        views = torch.from_numpy(np.flatnonzero(calibration.detectors == number)).to(band.device)
        own = band[:, views]
        changed += _correct_views(own, part, rows)
        band[:, views] = own
    return changed


def _correct_views(band: Float[Tensor, "row view col"], calibration: Calibration, rows: range) -> RowCounts:
    if calibration.settings.line_integrals:
        band.copy_(without_stripes(band, calibration.remove_rings))
        return RowCounts(total=band.numel())
    some = slice(rows.start, rows.stop, rows.step)
    bad, flat, dark = calibration.bad[some], calibration.flat[some], calibration.dark[some]

    def there(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.require(values, None, ["C", "W"])).to(band.device)

    good, beam = there(~bad), there(calibration.air_factors)
    band -= there(dark)[:, None]
    band /= there(flat)[:, None] * beam[:, None]
    fill_columns(band, bad)
    scale = np.array([np.mean(row) for row in flat], np.float32)
    zingers = _mend_zingers(band, calibration, there(scale), good)
    if zingers:
        fill_columns(band, bad)
    low = (band < calibration.floor).sum(dim=1).mul_(good)
    _attenuate(band.clamp_(min=calibration.floor))
    if calibration.remove_rings != "none":
        band.copy_(without_stripes(band, calibration.remove_rings))
    return RowCounts(zingers, int(bad.sum()) * band.shape[1], int(low.sum()), band.numel())


def _attenuate(transmissions: Float[Tensor, "row view col"]) -> None:
    """Convert transmissions to attenuation in place."""
    transmissions.log_().neg_()


def _mend_zingers(
    band: Float[Tensor, "row view col"], calibration: Calibration, scale: Float[Tensor, " row"], good: Tensor
) -> int:
    """Replace zingers in transmissions, and return how many good samples were replaced."""
    settings = calibration.settings
    if settings.zingers == 0:
        return 0
    order = torch.from_numpy(calibration.order).to(band.device)
    ordered = band[:, order]
    light = ordered * scale[:, None, None]
    found = find_zingers(light, settings.zingers, calibration.reach, calibration.quantum, calibration.read_noise)
    if not bool(found.any()):
        return 0
    del light
    band[:, order] = replace_zingers(ordered, found)
    return int(found.sum(dim=1).mul_(good).sum())
