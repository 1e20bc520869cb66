"""Processing of large slices in tiles: the same result as in one piece, with less memory."""

from __future__ import annotations

import torch
from torch import Tensor

from quietray.errors import ResourceError
from quietray.splits.base import Network

__all__ = ["fitting", "out_of_memory", "tiled"]

_SMALLEST = 64  # pixels of a tile; below it the surroundings that a tile sees take all of the memory


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that there is not enough memory; PyTorch has no kind of its own for processors.

    Examples
    --------
    >>> out_of_memory(MemoryError()), out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    (True, True)
    >>> out_of_memory(RuntimeError("shapes differ"))
    False
    """
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(
        word in str(error) for word in ("t allocate memory", "not enough mem")
    )


def fitting(network: Network, x: Tensor, tile: int, radius: int, stride: int) -> Tensor:
    """Apply a network tile by tile; where memory runs out for all that was planned, in smaller tiles.

    Parameters
    ----------
    network, x, tile, radius, stride
        As of :func:`tiled`.

    Raises
    ------
    ResourceError
        Not even the smallest tile fits.
    """
    while True:
        try:
            return tiled(network, x, tile, radius, stride)
        except Exception as error:
            if not out_of_memory(error):
                raise
            tile = min(tile, max(x.shape[-2:])) // 2
            if tile < _SMALLEST:
                reason = (str(error).splitlines() or ["none free"])[0]
                raise ResourceError(
                    f"a slice of {x.shape[-2]} x {x.shape[-1]} pixels must fit into memory in tiles of {_SMALLEST}, "
                    f"got too little ({reason}); close other programs, or use a smaller --region"
                ) from None
        if x.is_cuda:
            torch.cuda.empty_cache()


def tiled(network: Network, x: Tensor, tile: int, radius: int, stride: int) -> Tensor:
    """Apply a network tile by tile.

    Every tile includes a margin as wide as the receptive field and starts at a multiple of the network's stride, so
    that pooling acts on the same pixels as in the whole slice.

    Parameters
    ----------
    network
        Maps ``(batch, channel, y, x)`` to ``(batch, output, y, x)``.
    x
        Slices.
    tile
        Edge of the part of a tile that is kept, in pixels; rounded up to a multiple of `stride`.
    radius, stride
        Radius of the receptive field, and alignment of the network, in pixels.

    Returns
    -------
    Tensor
        Output ``(batch, output, y, x)``.

    Examples
    --------
    >>> x = torch.rand(1, 1, 50, 70)
    >>> bool((tiled(lambda part: part * 2, x, 16, 3, 4) == x * 2).all())
    True
    """
    height, width = x.shape[-2:]
    tile = -(-tile // stride) * stride
    if tile >= height and tile >= width:
        return network(x)
    halo = -(-radius // stride) * stride
    out: Tensor | None = None
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            y0, x0 = max(0, top - halo), max(0, left - halo)
            y1, x1 = min(height, top + tile + halo), min(width, left + tile + halo)
            done = network(x[..., y0:y1, x0:x1])
            if out is None:
                out = done.new_empty((*done.shape[:2], height, width), dtype=torch.float32)
            bottom, right = min(height, top + tile), min(width, left + tile)
            out[..., top:bottom, left:right] = done[..., top - y0 : bottom - y0, left - x0 : right - x0]
    assert out is not None
    return out
