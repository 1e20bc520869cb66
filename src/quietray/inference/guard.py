"""Do no harm: an image that a model would make worse is returned unchanged."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from scipy import ndimage

from quietray.detector.noise.lags import Lags
from quietray.errors import NoiseError
from quietray.inference.denoiser import Denoiser
from quietray.splits.recorrupted import Recorrupted
from quietray.types import Slice, Volume

__all__ = ["Guarded", "expected_error", "guarded", "quiet_noise"]

_BLOCK = 8  # in pixels
_QUIET = 0.1  # fraction of the blocks that certainly hold no structure
_ROUNDS = 10
_STEP = 0.1  # step of the derivative, in standard deviations of the noise
_EDGE = 4  # margin in pixels around missing pixels
_FAR = 1.5  # factor over the noise in training beyond which a model is out of its range


@dataclass(frozen=True, eq=False)
class Guarded:
    """An image after a model was applied, or not.

    Parameters
    ----------
    image
        The denoised image if that helps, else the original one.
    noise
        Root mean square of the noise over the image, in its unit.
    error
        Expected root mean squared error of the model's output.
    helped
        Whether the model was applied.
    warning
        A warning for the user; empty if there is none.
    """

    image: Slice
    noise: float
    error: float
    helped: bool
    warning: str

    @property
    def gain(self) -> float:
        """Expected gain of the model in dB; negative if it would make the image worse."""
        return 20 * math.log10(max(self.noise, 1e-30) / max(self.error, 1e-30))


def guarded(
    denoiser: Denoiser,
    image: Slice,
    sd: Slice | float | None = None,
    *,
    lags: Lags | None = None,
    weight: Slice | None = None,
    margin: float = 0.5,
    draws: int = 4,
    around: Volume | None = None,
) -> Guarded:
    """Denoise an image, unless the model would make it worse.

    The noise of the image is measured, and from it the error of the model's output is estimated without ground truth.
    If the model stores the noise it was trained on, there is a warning if the image has far more.

    Parameters
    ----------
    denoiser
        Denoiser of single images; its fact ``noise_level`` is the noise it was trained on, in its scale.
    image
        Noisy image ``(y, x)``.
    sd
        Standard deviation of the noise, of each pixel or of all; by default measured with :func:`quiet_noise`, which
        assumes white noise.
    lags
        Auto-correlation of the noise, 1 in the centre; white by default, which is wrong for reconstructions.
    weight
        Zero where nothing was measured; by default, all pixels count.
    margin
        Smallest expected gain in dB for which the model is applied, because the expectation has a statistical error.
    draws
        Number of random directions for the derivative.
    around
        The slices ``(slice, y, x)`` that the model sees, with the image in their middle, whose noise must be
        independent; by default the image alone.

    Raises
    ------
    NoiseError
        The noise cannot be measured.

    Examples
    --------
    >>> import torch
    >>> from quietray.filters import GaussianFilter
    >>> from quietray.inference.denoiser import Scale
    >>> from quietray.splits import Noise2Clean
    >>> blur = Denoiser(GaussianFilter(2.0).build(1), GaussianFilter(2.0), Noise2Clean(), Scale(0.0, 1.0))
    >>> stripes = np.tile(np.repeat([0.0, 1.0], 16), (64, 4)).astype(np.float32)
    >>> white = np.random.default_rng(0).standard_normal(stripes.shape).astype(np.float32)
    >>> [guarded(blur, stripes + noise * white).helped for noise in (0.02, 0.5)]
    [False, True]
    """
    seen = image[None].copy() if around is None else around.copy()
    place = len(seen) // 2

    def denoise(x: Slice) -> Slice:
        seen[place] = x
        return np.asarray(denoiser.slice(seen[None], place)[0])

    found = quiet_noise(image) if sd is None else sd
    noise = float(np.sqrt(np.mean(np.square(np.broadcast_to(found, image.shape)[_inside(image, weight)]))))
    if not (math.isfinite(noise) and noise > 0):
        raise NoiseError(f"the noise of an image must be a positive number, got {noise}; state it")
    denoised, error = expected_error(denoise, image, found, lags=lags, weight=weight, draws=draws)
    warnings = []
    helps = error * 10 ** (margin / 20) < noise
    if not helps:
        warnings.append(
            f"the noise of the image, {noise:.3g}, is hardly stronger than the error that the model would leave, or "
            f"weaker ({error:.3g}); the image was returned unchanged"
        )
    trained = denoiser.facts.get("noise_level")
    level = noise / (denoiser.scale.high - denoiser.scale.low)
    if trained and level > _FAR * trained:
        warnings.append(f"the noise of the image is {level / trained:.1f} times that which the model was trained on")
    return Guarded(denoised if helps else image, noise, error, helps, "; ".join(warnings))


def expected_error(
    denoise: Callable[[Slice], Slice],
    image: Slice,
    sd: Slice | float,
    *,
    lags: Lags | None = None,
    weight: Slice | None = None,
    draws: int = 4,
    seed: int = 0,
) -> tuple[Slice, float]:
    """Return the output of a denoiser, and its expected root mean squared error without ground truth.

    Stein's unbiased risk estimate: with white noise of variance ``s^2``, the mean squared error of ``f(y)`` is that of
    ``(f(y) - y)^2 - s^2 + 2 s^2 df(y)/dy`` on average.  The derivative is taken along random signs, or for correlated
    noise along random noise with its auto-correlation.

    Parameters
    ----------
    denoise
        Maps a noisy image to a denoised one.
    image
        Noisy image.
    sd
        Standard deviation of its noise, of each pixel or of all.
    lags
        Auto-correlation of the noise, 1 in the centre; white by default.
    weight
        Zero where nothing was measured; these pixels and those at their edge are left out of the error.
    draws
        Number of random directions.
    seed
        Seed of the directions.

    Notes
    -----
    Stein (1981), doi:10.1214/aos/1176345632; by finite differences: Ramani, Blu & Unser (2008),
    doi:10.1109/TIP.2008.2001404.

    Examples
    --------
    >>> noisy = np.random.default_rng(0).normal(0, 0.5, (256, 256)).astype(np.float32)
    >>> [round(expected_error(lambda x: share * x, noisy, 0.5)[1], 2) for share in (1.0, 0.4)]
    [0.5, 0.2]
    """
    denoised = denoise(image)
    rng = np.random.default_rng(seed)
    spread, inside = np.broadcast_to(np.asarray(sd, np.float32), image.shape), _inside(image, weight)
    slopes = []
    for _ in range(draws):
        signs = _signs(image.shape, lags, rng)
        step = np.float32(_STEP) * spread * signs
        change = (denoise(image + step) - denoise(image - step)).astype(np.float64) / (2 * _STEP)
        slopes.append(float((change * spread * signs)[inside].mean()))
    residual = float(np.square(denoised.astype(np.float64) - image)[inside].mean())
    mse = residual - float(np.square(spread, dtype=np.float64)[inside].mean()) + 2 * float(np.mean(slopes))
    return denoised, math.sqrt(max(mse, 0.0))


def _inside(image: Slice, weight: Slice | None) -> Bool[np.ndarray, "y x"]:
    """Return where an image was measured, a few pixels away from missing pixels; everywhere if nothing is left."""
    if weight is None:
        return np.ones(image.shape, bool)
    inside = np.asarray(ndimage.binary_erosion(weight > 0, iterations=_EDGE, border_value=1))
    return inside if inside.any() else np.ones(image.shape, bool)


def _signs(shape: tuple[int, ...], lags: Lags | None, rng: np.random.Generator) -> Slice:
    """Return random directions of variance 1, with the correlation of the noise."""
    if lags is None or lags.size == 1:
        return np.asarray(rng.choice(np.array([-1, 1], np.float32), shape))
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    return np.asarray(Recorrupted().measured(lags).noise(torch.zeros(shape), generator).numpy(), np.float32)


def quiet_noise(image: Slice) -> float:
    """Return the standard deviation of uniform white noise in an image, from its quietest blocks.

    Diagonal differences of neighbours contain noise and hardly any structure.  Structure can only increase them, so the
    noise is measured in the blocks where they are smallest, and then in all blocks that agree with these within the
    statistical error.

    Parameters
    ----------
    image
        Image ``(y, x)`` of at least 16 x 16 pixels.

    Raises
    ------
    NoiseError
        The image is too small.

    Examples
    --------
    >>> edges = np.tile(np.repeat([0.0, 1.0], 24), (96, 2))
    >>> noisy = edges + np.random.default_rng(0).normal(0, 0.1, edges.shape)
    >>> 0.095 < quiet_noise(noisy) < 0.105
    True
    """
    n_y, n_x = (size // _BLOCK * _BLOCK for size in (image.shape[0] - 1, image.shape[1] - 1))
    if min(n_y, n_x) < _BLOCK:
        raise NoiseError(f"an image must be larger than {_BLOCK} pixels to measure its noise, got {image.shape}")
    x = image.astype(np.float64)
    diagonal = (x[1:, 1:] - x[1:, :-1] - x[:-1, 1:] + x[:-1, :-1]) / 2
    blocks = diagonal[:n_y, :n_x].reshape(n_y // _BLOCK, _BLOCK, n_x // _BLOCK, _BLOCK)
    power = np.sort(np.square(blocks).mean(axis=(1, 3)).ravel())
    n_quiet = max(1, round(_QUIET * len(power)))
    share, spread = _of_white_noise(len(power), n_quiet)
    variance = float(power[:n_quiet].mean()) / share
    for _ in range(_ROUNDS):
        variance = float(power[power <= max(variance * (1 + 3 * spread), power[n_quiet - 1])].mean())
    return math.sqrt(variance)


def _of_white_noise(n_blocks: int, n_quiet: int) -> tuple[float, float]:
    """Return the mean power of the quietest blocks of unit white noise, and the spread of all, by simulation."""
    rng = np.random.default_rng(0)
    white = rng.standard_normal((32, n_blocks, _BLOCK + 1, _BLOCK + 1)).astype(np.float32)
    diagonal = (white[..., 1:, 1:] - white[..., 1:, :-1] - white[..., :-1, 1:] + white[..., :-1, :-1]) / 2
    power = np.sort(np.square(diagonal).mean(axis=(2, 3)), axis=1)
    return float(power[:, :n_quiet].mean()), float(power.std())
