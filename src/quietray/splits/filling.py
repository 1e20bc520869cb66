"""Values that stand in for hidden or missing pixels, and estimates of the noise from these values.

NaN marks pixels that were not measured.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["completed", "donut", "filled", "mean_variance", "noise_variance"]

_GROUPS = 8  # groups of pixels of similar brightness
_FEWEST = 256  # pixels in a group


def donut(footprint: int = 0) -> Tensor:
    """Return the weights ``(i, j)`` that fill a hidden pixel from the surroundings of its blind spot; their sum is 1.

    Parameters
    ----------
    footprint
        Half-width of the blind spot.  0 hides only the pixel itself; its direct neighbours have twice the weight of the
        diagonal ones.  Larger values hide a square, which is filled with the mean of the ring around it.

    Examples
    --------
    >>> (donut() * 6).round(decimals=4).tolist()
    [[0.5, 1.0, 0.5], [1.0, 0.0, 1.0], [0.5, 1.0, 0.5]]
    """
    if footprint == 0:
        return torch.tensor([[0.5, 1.0, 0.5], [1.0, 0.0, 1.0], [0.5, 1.0, 0.5]]) / 6
    size = 2 * footprint + 3
    ring = torch.ones(size, size)
    ring[1:-1, 1:-1] = 0
    return ring / ring.sum()


def filled(x: Tensor, weights: Tensor) -> Tensor:
    """Return, for every pixel, the weighted mean of the measured pixels around it.

    The border is mirrored without repeating the edge, so that no pixel contributes to its own value.

    Parameters
    ----------
    x
        ``(batch, 1, y, x)``; NaN marks pixels that were not measured.
    weights
        ``(i, j)``, from :func:`donut`.

    Returns
    -------
    Tensor
        Same shape; 0 where no pixel around was measured.
    """
    reach = weights.shape[-1] // 2
    measured = torch.isfinite(x)
    kernel = weights.to(x)[None, None]

    def spread(values: Tensor) -> Tensor:
        pad = [min(reach, values.shape[-1] - 1)] * 2 + [min(reach, values.shape[-2] - 1)] * 2
        padded = functional.pad(values, pad, mode="reflect")
        missing = [reach - pad[0]] * 2 + [reach - pad[2]] * 2
        return functional.conv2d(functional.pad(padded, missing), kernel)

    total = spread(torch.where(measured, x, torch.zeros_like(x)))
    share = spread(measured.to(x))
    return total / share.clamp_min(1e-6) * (share > 1e-6)


def noise_variance(image: Tensor, reach: int = 0) -> float:
    """Return the mean noise variance of an image, estimated from differences between pixels and their surroundings.

    The difference between a pixel and the mean of the four pixels in a cross around it has 1.25 times the variance of
    the noise.  Edges are excluded by :func:`mean_variance`.

    Parameters
    ----------
    image
        ``(batch, 1, y, x)``; NaN marks pixels that were not measured.
    reach
        Largest distance in pixels at which noise may be correlated; the arms of the cross are one pixel longer.

    Returns
    -------
    float
        Variance of the noise; 0 if the image is smaller than the cross.

    Examples
    --------
    >>> noise = 2 * torch.randn(1, 1, 200, 200, generator=torch.Generator().manual_seed(0))
    >>> 3.8 < noise_variance(noise) < 4.2
    True
    """
    far = reach + 1
    inner = slice(far, -far)
    middle = image[..., inner, inner]
    cross = (
        image[..., inner, : -2 * far]
        + image[..., inner, 2 * far :]
        + image[..., : -2 * far, inner]
        + image[..., 2 * far :, inner]
    )
    measured = torch.isfinite(middle + cross)
    difference = (middle - cross / 4)[measured] / 1.25**0.5
    # a constant removed here would not affect how the five differ from each other
    return mean_variance(difference, (middle + cross)[measured])


def mean_variance(noise: Tensor, brightness: Tensor) -> float:
    """Return the mean variance of noise that depends on brightness, robust to a few outliers.

    The median of the absolute values is taken within groups of similar brightness.

    Parameters
    ----------
    noise, brightness
        One value per pixel, ``(n,)``.

    Returns
    -------
    float
        Mean variance; 0 if there are no values.

    Examples
    --------
    >>> brightness = torch.linspace(0, 1, 10_000)
    >>> noise = brightness.sqrt() * torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    >>> round(mean_variance(noise, brightness), 1)
    0.5
    """
    if not len(noise):
        return 0.0
    groups = noise[brightness.argsort()].abs().chunk(max(1, min(_GROUPS, len(noise) // _FEWEST)))
    return sum(len(group) * (float(group.median()) / 0.6745) ** 2 for group in groups) / len(noise)


def completed(image: Tensor) -> Tensor:
    """Return the image ``(batch, 1, y, x)``, with missing pixels (NaN) filled from their surroundings.

    Examples
    --------
    >>> image = torch.tensor([[1.0, 2.0, 3.0]] * 3)
    >>> image[1, 1] = torch.nan
    >>> completed(image[None, None])[0, 0, 1].round(decimals=4).tolist()
    [1.0, 2.0, 3.0]
    """
    measured = torch.isfinite(image)
    return image if bool(measured.all()) else torch.where(measured, image, filled(image, donut()))
