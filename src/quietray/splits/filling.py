"""What stands in for pixels that are hidden or were not measured, and the noise that they differ from it by.

NaN marks what was not measured.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["completed", "donut", "filled", "mean_variance", "noise_variance"]

_GROUPS = 8  # of pixels of like brightness
_FEWEST = 256  # pixels in a group


def donut(footprint: int = 0) -> Tensor:
    """Return the weights ``(i, j)`` that a hidden pixel is filled with from around its blind spot; their sum is 1.

    Parameters
    ----------
    footprint
        Half-width of the blind spot.  0 hides the pixel alone and weighs its direct neighbours 1 and its diagonal ones
        0.5; more hides a square and takes the mean of the ring around it.

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
    """Return, at every pixel, the weighted mean of the measured pixels around it.

    The border is mirrored without repeating the edge, so that no pixel enters its own filling.

    Parameters
    ----------
    x
        ``(batch, 1, y, x)``; NaN marks pixels that were not measured.
    weights
        ``(i, j)``, from :func:`donut`.

    Returns
    -------
    Tensor
        Same shape; 0 where nothing around was measured.
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
    """Return the mean variance of the noise in an image, from what pixels differ from those around them.

    A pixel and the mean of four, in a cross around it, differ by 1.25 times the variance; :func:`mean_variance` keeps
    edges from counting.

    Parameters
    ----------
    image
        ``(batch, 1, y, x)``; NaN marks pixels that were not measured.
    reach
        Furthest pixel whose noise may depend on that of the one in the middle; the cross is one pixel larger.

    Returns
    -------
    float
        0 where the image is smaller than the cross.

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
    # the mean of all five says nothing about how they differ
    return mean_variance(difference, (middle + cross)[measured])


def mean_variance(noise: Tensor, brightness: Tensor) -> float:
    """Return the mean variance of noise that hangs on the brightness, from values of which a few are off.

    The median of the absolute values is taken among those of like brightness.

    Parameters
    ----------
    noise, brightness
        ``(n,)``.

    Returns
    -------
    float
        0 without any values.

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
    """Return the image ``(batch, 1, y, x)`` with pixels that were not measured, NaN, filled from around them.

    Examples
    --------
    >>> image = torch.tensor([[1.0, 2.0, 3.0]] * 3)
    >>> image[1, 1] = torch.nan
    >>> completed(image[None, None])[0, 0, 1].round(decimals=4).tolist()
    [1.0, 2.0, 3.0]
    """
    measured = torch.isfinite(image)
    return image if bool(measured.all()) else torch.where(measured, image, filled(image, donut()))
