"""Faulty columns of sinograms: filled from their neighbours, or adjusted to them (ring removal)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from quietray.detector.correction.ranks import mirrored, running_median, sorted_last

__all__ = ["fill_columns", "window_sizes", "without_stripes"]

Lines = Float[Tensor, "row view col"]
Columns = Bool[Tensor, "row col"]

_RATIO = 3.0  # factor by which a stripe must exceed the variation among other columns
_SMOOTH = 10  # width in views of the running mean that an unresponsive column is compared with
_FEWEST_VIEWS, _FEWEST_COLS = 8, 9


def fill_columns(sinograms: Lines, bad: Bool[np.ndarray, "row col"]) -> None:
    """Fill columns in place by linear interpolation between the nearest good ones; with 1 if a row has none.

    Parameters
    ----------
    sinograms
        Sinograms ``(row, view, col)``.
    bad
        Mask ``(row, col)``, on the CPU.

    Examples
    --------
    >>> sinograms = torch.tensor([[[5.0, 1.0, 9.0, 9.0, 4.0]]])
    >>> fill_columns(sinograms, np.array([[True, False, True, True, False]]))
    >>> sinograms.flatten().tolist()
    [1.0, 1.0, 2.0, 3.0, 4.0]
    """
    lost = np.asarray(bad.all(axis=1))
    if lost.any():
        sinograms[torch.from_numpy(lost).to(sinograms.device)] = 1
    row, col = np.nonzero(bad & ~lost[:, None])
    if row.size == 0:
        return
    n_cols = bad.shape[1]
    number = np.arange(n_cols)
    left = np.maximum.accumulate(np.where(bad, -1, number), axis=1)[row, col]
    right = np.minimum.accumulate(np.where(bad, n_cols, number)[:, ::-1], axis=1)[:, ::-1][row, col]
    left, right = np.where(left < 0, right, left), np.where(right == n_cols, left, right)
    share = ((col - left) / np.maximum(right - left, 1)).astype(np.float32)
    share[left == right] = 0
    rows, cols, lefts, rights, shares = (
        torch.from_numpy(part).to(sinograms.device) for part in (row, col, left, right, share[:, None])
    )
    sinograms[rows, :, cols] = sinograms[rows, :, lefts] * (1 - shares) + sinograms[rows, :, rights] * shares


def window_sizes(n_cols: int) -> tuple[int, int]:
    """Return the widths of the running medians for thin and for large stripes: algotom's 21 and 51, or less.

    Examples
    --------
    >>> window_sizes(2048), window_sizes(128)
    ((21, 51), (5, 11))
    """
    return min(21, max(5, n_cols // 32 | 1)), min(51, max(9, n_cols // 12 | 1))


def without_stripes(sinograms: Lines, algorithm: str) -> Lines:
    """Remove stripes from each row's sinogram, which cause rings, with algorithms 3, 5 and 6 of Vo et al. 2018.

    "sorting" sorts the values of each column.  The contribution of the object then varies slowly across the columns and
    that of a stripe does not, so a running median across the columns removes the stripe. "large" does the same with a
    wide window, but only for columns whose mean stands out. "all" first fills unresponsive columns, which vary too
    little or too much between views, then removes large stripes, with all columns adjusted to the level of their
    neighbours, and finally applies "sorting".  Each row is processed separately.  https://doi.org/10.1364/OE.26.028396

    Parameters
    ----------
    sinograms
        Sinograms ``(row, view, col)``, float32, finite; views in any order.
    algorithm
        "none", "sorting", "large" or "all".

    Returns
    -------
    Tensor
        Sinograms ``(row, view, col)``.  Rows with fewer than 8 views or 9 columns are left unchanged; so are rows
        without noise between the columns for "large" and "all", as stripes cannot be recognised there.

    Examples
    --------
    >>> sinograms = torch.rand(1, 90, 40, generator=torch.Generator().manual_seed(0))
    >>> dirty = sinograms.clone(); dirty[:, :, 7] += 3
    >>> round(float(without_stripes(dirty, "sorting")[0, :, 7].mean()), 1)
    0.5
    """
    n_views, n_cols = sinograms.shape[1:]
    if algorithm == "none" or n_views < _FEWEST_VIEWS or n_cols < _FEWEST_COLS or len(sinograms) == 0:
        return sinograms
    small, large = window_sizes(n_cols)
    if algorithm == "sorting":
        return _alike(sinograms, small)
    if algorithm == "large":
        out, noisy = _without_large(sinograms.clone(), large, equal=False)
    else:
        out, noisy = _without_dead(sinograms, large)
        out, still_noisy = _without_large(out, large, equal=True)
        out, noisy = _alike(out, small), noisy & still_noisy
    if not bool(noisy.all()):
        out[~noisy] = sinograms[~noisy]
    return out


def _alike(sinograms: Lines, size: int) -> Lines:
    """Return sinograms in which the sorted values of each column are the running median of its neighbours'."""
    ordered, places = sorted_last(sinograms.transpose(1, 2).contiguous())
    out = torch.empty_like(ordered).scatter_(2, places, running_median(ordered, size))
    return out.transpose(1, 2).contiguous()


def _without_large(sinograms: Lines, size: int, equal: bool) -> tuple[Lines, Bool[Tensor, " row"]]:
    """Return sinograms, modified in place, without outlying columns; and which rows have enough noise.

    The mean of each column, without the smallest and largest 5 % of the views, is compared with that of the running
    median; `equal` also divides every column by the ratio.
    """
    n_views = sinograms.shape[1]
    ordered, places = sorted_last(sinograms.transpose(1, 2).contiguous())
    smooth = running_median(ordered, size)
    middle = slice(int(0.05 * n_views), n_views - int(0.05 * n_views))
    own, expected = (
        torch.stack([row[:, middle].mean(dim=1, dtype=torch.float64) for row in values]) for values in (ordered, smooth)
    )
    ratio = torch.where(expected != 0, own / expected, 1)
    stripes, noisy = _standing_out(ratio)
    if equal:
        # A column with mean zero cannot be scaled to any level.
        sinograms /= torch.where(ratio != 0, ratio, 1).float()[:, None]
    row, col = stripes.nonzero(as_tuple=True)
    smooth = smooth[row, col]
    sinograms[row, :, col] = torch.empty_like(smooth).scatter_(1, places[row, col], smooth)
    return sinograms, noisy


def _without_dead(sinograms: Lines, size: int) -> tuple[Lines, Bool[Tensor, " row"]]:
    """Return sinograms with unresponsive columns filled, unless they are a third or more; and which rows have noise."""
    n_views, n_cols = sinograms.shape[1:]
    around = mirrored(n_views, _SMOOTH, sinograms.device)
    change = []
    for row in sinograms:
        total = torch.nn.functional.pad(row[around].cumsum(dim=0, dtype=torch.float64), (0, 0, 1, 0))
        smooth = ((total[_SMOOTH:] - total[:-_SMOOTH]) / _SMOOTH).float()
        change.append((row - smooth).abs_().sum(dim=0, dtype=torch.float64))
    varied = torch.stack(change)
    expected = running_median(varied[:, :, None], size)[:, :, 0]
    expected = torch.where(expected != 0, expected, expected.mean(dim=1, keepdim=True))
    stripes, noisy = _standing_out(varied / expected)
    stripes[:, :2] = stripes[:, -2:] = False
    stripes &= (3 * (stripes.sum(dim=1) + 1) <= n_cols)[:, None]
    out = sinograms.clone()
    fill_columns(out, stripes.cpu().numpy())
    return out, noisy


def _standing_out(values: Float[Tensor, "row col"]) -> tuple[Columns, Bool[Tensor, " row"]]:
    """Return which columns, with their neighbours, stand out of their row; and which rows have enough noise.

    Algorithm 4: the sorted values follow a straight line, which is fitted to the middle half of them.  Values beyond
    the ends of the line stand out if they exceed it by `_RATIO` times the noise, which is the rise of the line.
    """
    n_cols = values.shape[1]
    ordered = values.sort(dim=1).values
    drop = int(0.25 * n_cols)
    place = torch.arange(drop, n_cols - drop - 1, device=values.device, dtype=values.dtype)
    middle = ordered[:, drop : n_cols - drop - 1]
    slope = ((place - place.mean()) * middle).sum(dim=1) / ((place - place.mean()) ** 2).sum()
    low = middle.mean(dim=1) - slope * place.mean()
    high = low + slope * (n_cols - 1)
    noise = (high - low).abs()
    above = ((ordered[:, -1] - high).abs() >= _RATIO * noise)[:, None] & (values > (high + _RATIO / 2 * noise)[:, None])
    below = ((low - ordered[:, 0]).abs() >= _RATIO * noise)[:, None] & (values <= (low - _RATIO / 2 * noise)[:, None])
    core = above | below
    stripes = core.clone()
    stripes[:, 1:] |= core[:, :-1]
    stripes[:, :-1] |= core[:, 1:]
    return stripes, noise >= 1e-5
