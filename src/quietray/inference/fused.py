"""Networks in the form that is fastest on CPUs, with the same weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional

from quietray.networks.decoder import DecoderLevel

__all__ = ["fused"]


def fused(network: nn.Module) -> nn.Module:
    """Return a network that shares the weights of another one, in the form that is fastest on CPUs.

    Every ReLU in a chain (``nn.Sequential``) is fused into the preceding convolution: a separate rectification reads
    and writes all maps once more, which on CPUs takes longer than some convolutions.  The bits stay the same.

    A level of a decoder (:class:`~quietray.networks.decoder.DecoderLevel`) convolves its coarse maps before they are
    enlarged, and adds the convolution of the skipped maps.  This takes fewer products and no concatenation, which took
    as long as all convolutions.  The last bits differ, because the sum is rounded once more.

    Only the copy is rewritten; later changes of the weights affect both.  Without oneDNN or on a GPU, the network
    itself is returned.

    Parameters
    ----------
    network
        Network for inference, not for training.

    Examples
    --------
    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(4, 1, 1))
    >>> x = torch.rand(1, 1, 20, 30)
    >>> with torch.no_grad():
    ...     torch.allclose(fused(network)(x), network(x), atol=1e-6)
    True
    """
    weight = next(network.parameters(), None)
    if weight is None or weight.device.type != "cpu" or not _there():
        return network
    shared: dict[int, object] = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    network = copy.deepcopy(network, shared)
    for parent in list(network.modules()):
        for name, level in parent.named_children():
            if isinstance(level, DecoderLevel) and _raisable(level[0]):
                setattr(parent, name, _Raised(level))
    for chain in [module for module in network.modules() if type(module) is nn.Sequential]:
        for place in range(len(chain) - 1):
            convolution, after = chain[place], chain[place + 1]
            if isinstance(after, nn.ReLU) and _plain(convolution):
                chain[place], chain[place + 1] = _Rectified(convolution), nn.Identity()
    return network


class _Convolution(nn.Module):
    """A convolution whose weights are kept in the form in which they are used, until they change."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution
        self._kept: tuple[object, tuple[Tensor, ...]] = (None, ())

    def _made(self, make: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor | None, ...]:
        """Return the weights that `make` returns, and the bias, in the type of the computation."""
        own, kind = self.convolution, _kind(self.convolution)
        tensors = [tensor for tensor in (own.weight, own.bias) if tensor is not None]
        key = (kind, *((tensor._version, tensor.data_ptr()) for tensor in tensors))
        if self._kept[0] != key:
            weights = [weight.to(kind, memory_format=torch.channels_last) for weight in make()]
            self._kept = key, (*weights, *(bias.detach().to(kind) for bias in tensors[1:]))
        kept = self._kept[1]
        return kept if own.bias is not None else (*kept, None)


class _Rectified(_Convolution):
    """A convolution followed by a rectifier."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the rectified maps, in bfloat16 under autocast."""
        own, kind = self.convolution, _kind(self.convolution)
        if not _supported(kind):
            return torch.relu_(own(x))
        weight, bias = self._made(lambda: (own.weight.detach(),))
        found: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x.to(kind), weight, bias, own.padding, own.stride, own.dilation, own.groups, "relu", [], ""
        )
        return found


class _Raised(_Convolution):
    """A level of a decoder whose first convolution is split into that of the coarse maps and that of the skipped ones.

    A pixel of enlarged maps shares its value with its neighbours.  Its convolution with 3 x 3 weights is that of the
    coarse maps with 2 x 2 sums of these weights, which differ between even and odd rows and columns: four times as many
    coarse maps, from which the enlarged ones are put together.
    """

    def __init__(self, level: DecoderLevel) -> None:
        first, *others = level
        assert _plain(first)
        super().__init__(first)
        self.rectified = bool(others) and isinstance(others[0], nn.ReLU)
        self.others = nn.Sequential(*others[self.rectified :])

    def forward(self, coarse: Tensor, skipped: Tensor) -> Tensor:
        """Return the maps of this level, in bfloat16 under autocast."""
        kind, (n, n_coarse, height, width) = _kind(self.convolution), coarse.shape
        of_coarse, of_skipped, bias = self._made(lambda: self._split(n_coarse))
        assert of_coarse is not None
        assert of_skipped is not None
        low = functional.conv2d(coarse.to(kind), of_coarse, padding=1).unflatten(1, (2, 2, -1))
        x = low.new_empty((n, 2 * height, 2 * width, low.shape[3])).permute(0, 3, 1, 2)
        for odd in ((0, 0), (0, 1), (1, 0), (1, 1)):
            y0, x0 = odd
            x[:, :, y0::2, x0::2] = low[:, y0, x0, :, y0 : y0 + height, x0 : x0 + width]
        skipped = skipped.to(kind).contiguous(memory_format=torch.channels_last)
        if _supported(kind):
            once, then = ((1, 1), (1, 1), (1, 1), 1), "relu" if self.rectified else None
            x = torch.ops.mkldnn._convolution_pointwise_.binary(
                x, skipped, of_skipped, bias, *once, "add", 1.0, then, [], ""
            )
        else:
            x = x + functional.conv2d(skipped, of_skipped, bias, padding=1)
            x = torch.relu_(x) if self.rectified else x
        found: Tensor = self.others(x)
        return found

    def _split(self, n_coarse: int) -> tuple[Tensor, Tensor]:
        """Return the weights ``(odd row, odd column and map, coarse map, 2, 2)`` and ``(map, skipped map, 3, 3)``."""
        coarse, skipped = self.convolution.weight.detach().tensor_split((n_coarse,), dim=1)
        return torch.cat([_summed(_summed(coarse, 2, y), 3, x) for y in (0, 1) for x in (0, 1)]), skipped


def _summed(weight: Tensor, axis: int, odd: int) -> Tensor:
    """Return the weights along an axis for the even or the odd pixels of enlarged maps, in terms of coarse pixels."""
    before, here, after = weight.split(1, dim=axis)
    return torch.cat([before + here, after] if odd else [before, here + after], dim=axis)


def _kind(module: nn.Conv2d) -> torch.dtype:
    """Return the type in which a convolution computes."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else module.weight.dtype


def _supported(kind: torch.dtype) -> bool:
    return kind != torch.bfloat16 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _plain(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    return type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str)


def _raisable(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    if not _plain(module) or module.groups != 1:
        return False
    return (module.kernel_size, module.padding, module.stride, module.dilation) == ((3, 3), (1, 1), (1, 1), (1, 1))


def _there() -> bool:
    known = all(hasattr(torch.ops.mkldnn, name) for name in ("_convolution_pointwise", "_convolution_pointwise_"))
    return torch.backends.mkldnn.is_available() and known
