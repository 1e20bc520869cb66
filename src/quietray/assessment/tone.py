"""Correction of mean grey values, from measurements that the network has not seen."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from quietray.inference.denoiser import Denoiser
from quietray.training.batches import TrainingVolume

__all__ = ["tone_of"]

_BLOCK: Final = 8  # in pixels; the noise of a reconstruction is correlated over a few
_PIXELS: Final = 2**19
_SURE: Final = 3.0  # in standard errors
_FEWEST: Final = 24  # least number of blocks


@torch.no_grad()
def tone_of(denoiser: Denoiser, data: TrainingVolume) -> tuple[float, float]:
    """Return the gain and offset that correct the mean of a network's outputs to that of the measurement.

    The noise of a subset is independent of an output that was computed without it, and the mean of the subset is the
    object.  In blocks where the output is smooth, a straight line fitted to both therefore has slope 1 and passes
    through the origin, unless the network shifts grey values.  The line is fitted to half of the blocks and must reduce
    the error of the other half by three standard errors, and vice versa; otherwise, the result is ``(1, 0)``.

    Parameters
    ----------
    denoiser
        The denoiser, whose own tone is ignored.
    data
        Scaled samples, of which the held-out ones are used.

    Returns
    -------
    tuple
        Gain and offset in the network's scale.
    """
    found = [_blocks(denoiser, samples, weight) for samples, weight in data.held_out(_PIXELS)]
    blocks = np.concatenate([np.empty((0, 3)), *found])
    if len(blocks) < _FEWEST:
        return 1.0, 0.0
    smooth = blocks[blocks[:, 2] <= np.median(blocks[:, 2])]
    halves = smooth[::2], smooth[1::2]
    for one, other in (halves, halves[::-1]):
        gain, offset = _line(one)
        seen, target = other[:, 0], other[:, 1]
        better = (target - seen) ** 2 - (target - gain * seen - offset) ** 2
        if not better.mean() > _SURE * better.std(ddof=1) / np.sqrt(len(better)):
            return 1.0, 0.0
    return _line(smooth)


def _line(blocks: Float[np.ndarray, "block 3"]) -> tuple[float, float]:
    """Return slope and offset; if all outputs are equal, only the offset is fitted."""
    seen, target = blocks[:, 0], blocks[:, 1]
    spread = float(seen.var())
    gain = float(np.mean((seen - seen.mean()) * target)) / spread if spread > 1e-4 else 1.0
    gain = float(np.clip(gain, 0.5, 2.0))
    return gain, float(target.mean() - gain * seen.mean())


def _blocks(denoiser: Denoiser, samples: Tensor, weight: Tensor) -> Float[np.ndarray, "block 3"]:
    """Return mean output, mean of the unseen measurement, and roughness of the output, for every complete block."""
    pairs = [
        (denoiser.evaluate(given).cpu().float(), wanted.cpu())
        for given, wanted in denoiser.split.unseen(samples.to(denoiser.device))
    ]
    if not pairs or pairs[0][0].shape[1] != 1:
        return np.empty((0, 3))
    whole = functional.avg_pool2d(weight, _BLOCK)[0, 0].numpy() == 1
    seen, target = (torch.stack([pair[k] for pair in pairs]).mean(dim=0) for k in (0, 1))
    means = [functional.avg_pool2d(each, _BLOCK)[0, 0].numpy() for each in (seen, target, seen**2)]
    return np.stack([means[0][whole], means[1][whole], (means[2] - means[0] ** 2)[whole]], axis=1).astype(float)
