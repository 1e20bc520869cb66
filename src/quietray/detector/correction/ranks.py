"""Medians, running medians and sorting, for many rows at once.

On CPUs, numpy selects and sorts several times faster than torch and is used instead; the results are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["mirrored", "row_medians", "running_median", "sorted_last", "square_median", "windows_memory"]

WINDOWS = 2**15  # samples per running median and thread, to stay in the cache
DEVICE_WINDOWS = 2**21  # the same for a GPU, where larger kernels are needed

T = TypeVar("T")


def row_medians(
    values: Float[Tensor, "row sample"], chosen: Bool[Tensor, "row sample"] | None = None
) -> Float[Tensor, " row"]:
    """Return the median of each row, or of its chosen samples: for an even number, the mean of the middle two.

    Parameters
    ----------
    values
        Values ``(row, sample)``, finite where chosen.
    chosen
        Mask ``(row, sample)``; a row without chosen samples has the median NaN.

    Examples
    --------
    >>> row_medians(torch.tensor([[4.0, 1, 2, 8], [0, 0, 0, 5]])).tolist()
    [3.0, 0.0]
    """
    return _medians_by_numpy(values, chosen) if values.device.type == "cpu" else _medians_by_torch(values, chosen)


def _medians_by_numpy(values: Float[Tensor, "row sample"], chosen: Bool[Tensor, "row sample"] | None) -> Tensor:
    def one(row: int) -> np.floating:
        own = values[row].numpy()
        own = own if chosen is None else own[chosen[row].numpy()]
        if own.size == 0:
            return own.dtype.type(np.nan)  # type: ignore[no-any-return]
        middle = [(own.size - 1) // 2, own.size // 2]
        low, high = np.partition(own, middle)[middle]
        return (low + high) / 2  # type: ignore[no-any-return]

    return torch.from_numpy(np.array(_for_each(one, len(values)), values.numpy().dtype))


def _medians_by_torch(values: Float[Tensor, "row sample"], chosen: Bool[Tensor, "row sample"] | None) -> Tensor:
    if chosen is not None:
        values = torch.where(chosen, values, torch.nan)
    count = values.isfinite().sum(dim=1)
    low = values.nanmedian(dim=1).values
    above = torch.where(values > low[:, None], values, torch.inf).amin(dim=1)
    high = torch.where((values <= low[:, None]).sum(dim=1) > count // 2, low, above)
    return torch.where(count > 0, (low + high) / 2, torch.nan)


def sorted_last(
    values: Float[Tensor, "row col sample"],
) -> tuple[Float[Tensor, "row col sample"], Int[Tensor, "row col sample"]]:
    """Return float32 values sorted along the last axis, and their original positions; the sort is stable.

    Examples
    --------
    >>> ordered, places = sorted_last(torch.tensor([[[2.0, -1, 2, 0]]]))
    >>> ordered.tolist(), places.tolist()
    ([[[-1.0, 0.0, 2.0, 2.0]]], [[[1, 3, 0, 2]]])
    """
    if values.device.type != "cpu":
        ordered, places = torch.sort(values, dim=-1, stable=True)
        return ordered, places
    bits = (values + 0.0).view(torch.int32)  # avoid negative zero
    keys = (bits ^ (bits >> 31 & 0x7FFFFFFF)).long()  # order-preserving integers followed by their positions
    keys <<= 32
    keys |= torch.arange(values.shape[-1])
    _for_each(lambda row: keys[row].numpy().sort(axis=-1), len(keys))
    bits = keys.view(torch.int32)[..., 1::2] if np.little_endian else keys.view(torch.int32)[..., ::2]
    ordered = (bits ^ (bits >> 31 & 0x7FFFFFFF)).view(torch.float32)
    keys &= 0xFFFFFFFF
    return ordered, keys


def running_median(values: Float[Tensor, "row col sample"], size: int) -> Float[Tensor, "row col sample"]:
    """Return the running median of each sample over neighbouring columns, mirrored at the ends.

    Sorted runs of one column are merged to runs of two, four and eight columns, and then to the window; of the last
    merge, only the middle is computed.  All steps are minima and maxima of two samples, which run at memory speed on
    any device.

    Parameters
    ----------
    values
        Values ``(row, col, sample)``.
    size
        Number of columns in the window; odd.

    Examples
    --------
    >>> running_median(torch.tensor([[[0.0], [9.0], [1.0], [2.0]]]), 3).flatten().tolist()
    [0.0, 1.0, 2.0, 2.0]
    """
    n_rows, n_cols, n = values.shape
    around = mirrored(n_cols, size, values.device)
    step = max(1, _windows_at_once(values.device) // max(1, n_rows * around.numel()))
    out = torch.empty_like(values)
    for first in range(0, n, step):
        some = slice(first, first + step)
        out[:, :, some] = _middle_of_windows([values[:, :, some].index_select(1, around)], size)
    return out


def square_median(frame: Float[Tensor, "row col"], size: int) -> Float[Tensor, "row col"]:
    """Return the median of `size` x `size` pixels around each pixel, mirrored at the edges.

    Examples
    --------
    >>> frame = torch.zeros(4, 5); frame[1, 2] = 9
    >>> float(square_median(frame, 3).max())
    0.0
    """
    n_rows, n_cols = frame.shape
    wide = frame.index_select(1, mirrored(n_cols, size, frame.device))
    rows = mirrored(n_rows, size, frame.device)
    step = max(1, _windows_at_once(frame.device) // wide.shape[1])
    out = torch.empty_like(frame)
    for first in range(0, n_rows, step):
        stop = min(first + step, n_rows)
        padded = wide.index_select(0, rows[first : stop + size - 1])
        column: list[Tensor] = []
        for offset in range(size):
            column = _merged(column, [padded[offset : offset + stop - first]])
        out[first:stop] = _middle_of_windows(column, size)
    return out


def mirrored(n: int, size: int, device: torch.device) -> Int[Tensor, " padded"]:
    """Return the positions in all windows of `size` over `n` places, mirrored at the ends.

    Examples
    --------
    >>> mirrored(4, 3, torch.device("cpu")).tolist()
    [0, 0, 1, 2, 3, 3]
    """
    places = torch.arange(-(size // 2), n + (size - 1) // 2, device=device) % (2 * n)
    return torch.minimum(places, 2 * n - 1 - places)


def windows_memory(lines: int, n_cols: int, size: int, device: torch.device) -> int:
    """Return the memory in bytes that a running median of this many lines takes, besides its input and output.

    About twice as many runs are in memory as there are columns in the window.

    Examples
    --------
    >>> windows_memory(10, 128, 11, torch.device("cpu"))
    121440
    """
    return 8 * size * min(lines * (n_cols + size - 1), max(_windows_at_once(device), n_cols + size - 1))


def _windows_at_once(device: torch.device) -> int:
    """Return how many samples a running median processes at a time."""
    return WINDOWS * torch.get_num_threads() if device.type == "cpu" else DEVICE_WINDOWS


def _middle_of_windows(
    column: list[Float[Tensor, "row padded *sample"]], size: int
) -> Float[Tensor, "row col *sample"]:
    """Return the median of every `size` consecutive columns, each a sorted list of samples."""
    n_cols = column[0].shape[1] - size + 1
    run, length, others, start = column, 1, list[Tensor](), 0
    while 2 * length <= size:
        if size & length:
            others = _merged(others, [one[:, start : start + n_cols] for one in run])
            start += length
        run = _merged([one[:, :-length] for one in run], [one[:, length:] for one in run])
        length *= 2
    run = [one[:, start : start + n_cols] for one in run]
    wanted = len(column) * size // 2 + 1  # the smallest k come from both lists: the best split is the minimum
    best = run[wanted - 1]
    for count, other in enumerate(others, start=1):
        best = torch.minimum(best, torch.maximum(run[wanted - count - 1], other))
    return best


def _merged(one: list[Tensor], other: list[Tensor]) -> list[Tensor]:
    """Return two sorted lists merged into one, element by element of their tensors (Batcher's odd-even merge)."""
    if not one or not other:
        return one or other
    if len(one) == len(other) == 1:
        return [torch.minimum(one[0], other[0]), torch.maximum(one[0], other[0])]
    even, odd = _merged(one[::2], other[::2]), _merged(one[1::2], other[1::2])
    out = [even[0]]
    for high, low in zip(even[1:], odd, strict=False):
        out += [torch.minimum(high, low), torch.maximum(high, low)]
    return out + even[1 + len(odd) :] + odd[len(even) - 1 :]


def _for_each(function: Callable[[int], T], count: int) -> list[T]:
    """Return the results of a function for each number; the function must let other threads run."""
    threads = min(count, torch.get_num_threads())
    if threads <= 1:
        return [function(number) for number in range(count)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, range(count)))
