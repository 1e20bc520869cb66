"""Densely connected layers without concatenation: many times faster on a CPU, with a fraction of the memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["dense_layers"]

_BLOCK = 8  # layers whose inputs are mixed at once


def dense_layers(x: Tensor, kernels: Sequence[Tensor], bias: Tensor, dilations: Sequence[int]) -> Tensor:
    """Apply densely connected layers: each takes the input and the maps of all previous layers.

    Layer i, at pixel p, is ``relu(bias[i] + sum of kernel[i][j, t] * x[j](p + dilation[i] * t))`` over the taps t and
    all previous maps j, mirrored at the border.

    Parameters
    ----------
    x
        Input, ``(batch, channel, y, x)`` or ``(batch, channel, z, y, x)``.
    kernels
        Kernel of each layer, ``(map, previous map, tap y, tap x)``, or with ``tap z`` before ``tap y``; each axis has
        one or three taps.
    bias
        Bias of all maps of all layers.
    dilations
        Dilation of each layer in pixels.

    Returns
    -------
    Tensor
        The input and the maps of all layers, along the second axis.

    Notes
    -----
    Mixing maps commutes with shifting them.  Each layer therefore first mixes the previous maps into one
    map per tap, with a matrix product that reads the maps in place, and then shifts and adds only those nine.
    Concatenation would copy all maps for every layer, and a convolution with a single output is limited by memory
    bandwidth.  Maps that precede a block of layers are mixed for the whole block at once, which reduces memory traffic
    further.

    Examples
    --------
    >>> x = torch.ones(1, 1, 4, 5)
    >>> maps = dense_layers(x, [torch.ones(1, 1, 3, 3), torch.ones(1, 2, 3, 3)], torch.zeros(2), [1, 2])
    >>> maps.amax(dim=(2, 3)).round(decimals=3).tolist()
    [[1.0, 9.0, 90.0]]
    """
    out: Tensor = _DenseLayers.apply(x, bias, tuple(dilations), *kernels)  # type: ignore[no-untyped-call]
    return out


class _DenseLayers(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, dilations: tuple[int, ...], *kernels: Tensor) -> Tensor:
        width = len(kernels[0])
        maps = x.new_empty(len(x), x.shape[1] + len(bias), *x.shape[2:])
        maps[:, : x.shape[1]] = x
        flat = maps.flatten(2)
        for block in _blocks(len(kernels)):
            before = kernels[block[0]].shape[1]
            matrices = [_as_matrix(kernels[layer]) for layer in block]
            mixed = _product(torch.cat([matrix[:, :before] for matrix in matrices]), flat[:, :before])
            for layer, matrix, taps in zip(block, matrices, mixed.split(_rows(matrices), dim=1), strict=True):
                seen = matrix.shape[1]
                if seen > before:
                    taps = taps + _product(matrix[:, before:], flat[:, before:seen])
                taps = taps.unflatten(2, x.shape[2:]).unflatten(1, (*kernels[layer].shape[2:], width))
                for axis in range(2 - x.dim(), 0):
                    taps = _add_neighbours(taps, dilations[layer], axis)
                taps += bias[layer * width :][:width].view(-1, *[1] * (x.dim() - 2))
                maps[:, seen : seen + width] = taps.relu_()
        ctx.dilations = dilations
        ctx.save_for_backward(maps, *kernels)
        return maps

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        maps, *kernels = ctx.saved_tensors
        of_maps = gradients[0].clone(memory_format=torch.contiguous_format)
        flat, of_flat = maps.flatten(2), of_maps.flatten(2)
        of_kernels: list[Tensor] = []
        for block in reversed(_blocks(len(kernels))):
            before, after = kernels[block[0]].shape[1], kernels[block[-1]].shape[1]
            matrices = [_as_matrix(kernels[layer]) for layer in block]
            mixed: list[Tensor] = []
            for layer, matrix in reversed(list(zip(block, matrices, strict=True))):
                seen, own = matrix.shape[1], slice(matrix.shape[1], matrix.shape[1] + len(kernels[layer]))
                taps = of_maps[:, own].mul_(maps[:, own] > 0)
                for axis in reversed(range(2 - maps.dim(), 0)):
                    kept = kernels[layer].shape[axis]
                    taps = _to_neighbours(taps, ctx.dilations[layer], axis, kept)
                mixed.insert(0, taps.flatten(1, 1 - maps.dim()).flatten(2))
                if seen > before:
                    of_flat[:, before:seen] += _product(matrix[:, before:].T, mixed[0])
            together = torch.cat(mixed, dim=1)
            of_flat[:, :before] += _product(torch.cat([matrix[:, :before] for matrix in matrices]).T, together)
            found = torch.bmm(together, flat[:, :after].mT).sum(dim=0).split(_rows(matrices))
            of_kernels[:0] = [_as_kernel(rows, kernels[layer]) for layer, rows in zip(block, found, strict=True)]
        n_channels = kernels[0].shape[1]
        of_bias = of_flat[:, n_channels:].sum(dim=(0, 2))  # these maps have already passed the rectifiers
        return of_maps[:, :n_channels], of_bias, None, *of_kernels


def _blocks(n_layers: int) -> list[range]:
    return [range(first, min(first + _BLOCK, n_layers)) for first in range(0, n_layers, _BLOCK)]


def _rows(matrices: list[Tensor]) -> list[int]:
    return [len(matrix) for matrix in matrices]


def _product(matrix: Tensor, maps: Tensor) -> Tensor:
    return torch.bmm(matrix.expand(len(maps), -1, -1), maps)  # matmul would copy the maps


def _as_matrix(kernel: Tensor) -> Tensor:
    """Return a kernel ``(map, seen, *tap)`` as ``(tap * map, seen)``."""
    return kernel.movedim((0, 1), (-2, -1)).flatten(0, -2)


def _as_kernel(rows: Tensor, kernel: Tensor) -> Tensor:
    """Return rows ``(tap * map, seen or more)`` in the shape of a kernel."""
    return rows[:, : kernel.shape[1]].view(*kernel.shape[2:], *kernel.shape[:2]).movedim((-2, -1), (0, 1))


def _add_neighbours(taps: Tensor, dilation: int, axis: int) -> Tensor:
    """Sum ``(batch, tap, ...)`` over the taps, each shifted along `axis` and mirrored at the border."""
    if taps.shape[1] == 1:
        return taps[:, 0]
    out = taps[:, 1].clone()
    for tap, source, target, border, mirror in _moves(taps.shape[axis], dilation, taps.device):
        moved, edge = taps[:, tap], len(mirror)
        inside = taps.shape[axis] - edge
        out.narrow(axis, target, inside).add_(moved.narrow(axis, source, inside))
        out.narrow(axis, border, edge).add_(moved.index_select(axis, mirror))
    return out


def _to_neighbours(x: Tensor, dilation: int, axis: int, n_taps: int) -> Tensor:
    """Return ``(batch, tap, ...)``, the adjoint of :func:`_add_neighbours`."""
    if n_taps == 1:
        return x[:, None]
    taps = x.new_zeros(len(x), 3, *x.shape[1:])
    taps[:, 1] = x
    for tap, source, target, border, mirror in _moves(x.shape[axis], dilation, x.device):
        moved, edge = taps[:, tap], len(mirror)
        inside = x.shape[axis] - edge
        moved.narrow(axis, source, inside).copy_(x.narrow(axis, target, inside))
        moved.index_add_(axis, mirror, x.narrow(axis, border, edge))
    return taps


@lru_cache(maxsize=256)
def _moves(n: int, dilation: int, device: torch.device) -> tuple[tuple[int, int, int, int, Tensor], ...]:
    edge = min(dilation, n)
    place = torch.arange(edge)
    before, after = (_mirrored(p, n).to(device) for p in (place - dilation, place + n - edge + dilation))
    return (0, 0, edge, 0, before), (2, edge, 0, n - edge, after)


def _mirrored(position: Tensor, n: int) -> Tensor:
    """Return positions mirrored into ``0 .. n - 1`` about the first and last pixels."""
    period = max(1, 2 * (n - 1))
    return torch.minimum(position % period, -position % period)
