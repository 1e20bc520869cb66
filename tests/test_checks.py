"""Every law rejects a saboteur, and accepts what obeys it: a law that cannot fail proves nothing."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import checks
import matrix
from quietray.metrics.noreference import Judgement
from quietray.networks.unet import UNet, UNetModule
from quietray.operators.linear import Adjoint, LinearOperator
from quietray.simulate.noise import NoiseModel, Poisson, Scintillator
from quietray.splits.base import Network, Pair, Split
from quietray.splits.inverse import Noise2Inverse
from quietray.types import Radiographs


def rejected(words: str) -> Any:
    return pytest.raises(AssertionError, match=words)


# --- operators ------------------------------------------------------------------------------------------------------


class Dense(LinearOperator):
    """A matrix, to be sabotaged."""

    def __init__(self) -> None:
        self.matrix = np.random.default_rng(0).standard_normal((40, 30)).astype(np.float32)

    domain_shape = (30,)
    range_shape = (40,)

    def forward(self, x: np.ndarray) -> np.ndarray:
        return self.matrix @ x

    def adjoint(self, y: np.ndarray) -> np.ndarray:
        return self.matrix.T @ y


class OnePercentOff(Dense):
    def adjoint(self, y: np.ndarray) -> np.ndarray:
        return np.float32(1.01) * super().adjoint(y)


class OnePixelOff(Dense):
    def adjoint(self, y: np.ndarray) -> np.ndarray:
        return np.roll(super().adjoint(y), 1)


class WrongShape(Dense):
    @property
    def T(self) -> LinearOperator:
        return self


class Affine(Dense):
    def forward(self, x: np.ndarray) -> np.ndarray:
        return super().forward(x) + np.float32(0.1)


class Clipped(Dense):
    def forward(self, x: np.ndarray) -> np.ndarray:
        return np.maximum(super().forward(x), 0)


class Detached(Dense):
    """Autograd ends at this one."""

    def __call__(self, x: Any) -> Any:
        out = self.forward(np.asarray(x.detach() if isinstance(x, Tensor) else x))
        return torch.from_numpy(out) if isinstance(x, Tensor) else out


class _Scaled(torch.autograd.Function):
    """Forward as it should be, backward twice as much; or backward once, then never again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, operator: LinearOperator, twice: bool) -> Tensor:
        ctx.operator, ctx.twice = operator, twice
        return torch.from_numpy(operator.forward(x.detach().numpy()))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        back = torch.from_numpy(ctx.operator.adjoint(gradient.detach().numpy()))
        return (2 * back if ctx.twice else back + 0 * gradient.sum()), None, None


@dataclass
class Sloppy(Dense):
    """An operator whose gradient is another one."""

    twice: bool

    def __post_init__(self) -> None:
        super().__init__()

    def __call__(self, x: Any) -> Any:
        return _Scaled.apply(x, self, self.twice) if isinstance(x, Tensor) else self.forward(x)


def test_the_laws_of_operators_accept_a_matrix() -> None:
    for law in (checks.check_linear, checks.check_adjoint, checks.check_gradient):
        law(Dense())
        law(Adjoint(Dense()))


@pytest.mark.parametrize("saboteur", [OnePercentOff, OnePixelOff, WrongShape])
def test_a_wrong_adjoint_is_rejected(saboteur: type[Dense]) -> None:
    with rejected("A.T"):
        checks.check_adjoint(saboteur())


@pytest.mark.parametrize("saboteur", [Affine, Clipped])
def test_what_is_not_linear_is_rejected(saboteur: type[Dense]) -> None:
    with rejected("a A"):
        checks.check_linear(saboteur())


@pytest.mark.parametrize(
    ("saboteur", "words"),
    [(Detached(), "detached"), (Sloppy(True), "must be A.T"), (Sloppy(False), "gradient of the gradient")],
)
def test_a_wrong_gradient_is_rejected(saboteur: LinearOperator, words: str) -> None:
    with rejected(words):
        checks.check_gradient(saboteur)


# --- noise models ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tampered(NoiseModel):
    """A true model whose numbers pass through `change` before they are told."""

    model: NoiseModel
    mean_factor: float = 1.0
    variance_factor: float = 1.0
    neighbours_factor: float = 1.0

    def sample(self, photons: Radiographs, rng: np.random.Generator) -> Radiographs:
        return self.model.sample(photons, rng)

    def mean(self, photons: Radiographs) -> Radiographs:
        return (self.mean_factor * self.model.mean(photons)).astype(np.float32)

    def covariance(self, photons: float, lag: tuple[int, int]) -> float:
        factor = self.variance_factor if lag == (0, 0) else self.neighbours_factor
        return factor * self.model.covariance(photons, lag)


@pytest.mark.parametrize(
    ("saboteur", "words"),
    [
        (Tampered(Poisson(), mean_factor=1.01), "the mean"),
        (Tampered(Poisson(), variance_factor=1.03), "lag .0, 0."),
        (Tampered(Scintillator(response_width=0.5), neighbours_factor=0.9), "lag .0, 1."),
        (Tampered(Scintillator(read_noise=9.0, row_noise=2.0), neighbours_factor=0.0), "lag .0, 1."),
    ],
)
def test_wrong_moments_are_rejected(saboteur: NoiseModel, words: str) -> None:
    checks.check_moments(dataclasses.replace(saboteur, mean_factor=1.0, variance_factor=1.0, neighbours_factor=1.0))
    with rejected(words):
        checks.check_moments(saboteur)


# --- splits ---------------------------------------------------------------------------------------------------------


class SharedMean(Noise2Inverse):
    """Sees the mean of all parts, of which the target is one."""

    def draw(self, samples: Tensor, generator: torch.Generator) -> Pair:
        pair = super().draw(samples, generator)
        return dataclasses.replace(pair, input=samples.mean(dim=1))


class HiddenLeak(Noise2Inverse):
    """Centres the input on the mean of all parts, where no gradient shows it."""

    def draw(self, samples: Tensor, generator: torch.Generator) -> Pair:
        pair = super().draw(samples, generator)
        return dataclasses.replace(pair, input=pair.input - 0.1 * samples.detach().mean(dim=(1, 2, 3, 4))[0])


class SameNumbers(Noise2Inverse):
    """Shows the target itself."""

    def draw(self, samples: Tensor, generator: torch.Generator) -> Pair:
        pair = super().draw(samples, generator)
        return dataclasses.replace(pair, input=pair.target.expand_as(pair.input))


class FirstPartOnly(Noise2Inverse):
    """Always the same part alone."""

    def draw(self, samples: Tensor, generator: torch.Generator) -> Pair:
        return Pair(*self._views(samples.sum(dim=1), samples[:, 0]), torch.ones(1, 1, 1, 1))


class NeverTheLast(Noise2Inverse):
    """The last part is never alone."""

    def draw(self, samples: Tensor, generator: torch.Generator) -> Pair:
        alone = torch.randint(self.parts - 1, (samples.shape[0],), generator=generator)
        views = self._views(samples.sum(dim=1), samples[torch.arange(samples.shape[0]), alone])
        return Pair(*views, torch.ones(1, 1, 1, 1))


class OneChoice(Noise2Inverse):
    """Takes one choice only, at inference."""

    def infer(self, network: Network, samples: Tensor) -> Tensor:
        given, _ = next(self.choices(samples))
        return network(given) + 0 * samples.sum()


class WholeAtOnce(Noise2Inverse):
    """Infers from the mean of all parts, which is less noisy than what was trained on."""

    def infer(self, network: Network, samples: Tensor) -> Tensor:
        return network(samples.mean(dim=1)).float()


class BrightTarget(Noise2Inverse):
    """A target whose noise has a mean."""

    def draw(self, samples: Tensor, generator: torch.Generator) -> Pair:
        pair = super().draw(samples, generator)
        return dataclasses.replace(pair, target=pair.target + 0.1)


class NoSpread(Noise2Inverse):
    """Forgets that the mean of the outputs is better than each of them."""

    def judge(self, network: Network, samples: Tensor, weight: Tensor) -> Judgement:
        judged = super().judge(network, samples, weight)
        outputs = torch.stack([network(given) for given, _ in self.choices(samples)])
        spread = (weight * (outputs - outputs.mean(0)).square().mean(0)).sum() / weight.sum()
        return dataclasses.replace(judged, error=judged.error + float(spread))


class NoVariance(Noise2Inverse):
    """Forgets that the judging part is noisy itself."""

    def judge(self, network: Network, samples: Tensor, weight: Tensor) -> Judgement:
        judged = super().judge(network, samples, weight)
        return dataclasses.replace(judged, error=judged.error + judged.noise)


class NoiseOfOnePart(Noise2Inverse):
    """Tells the noise of one part for that of all."""

    def judge(self, network: Network, samples: Tensor, weight: Tensor) -> Judgement:
        judged = super().judge(network, samples, weight)
        return dataclasses.replace(judged, noise=judged.noise * self.parts)


class Unweighted(Noise2Inverse):
    """Judges pixels that do not count."""

    def judge(self, network: Network, samples: Tensor, weight: Tensor) -> Judgement:
        judged = super().judge(network, samples, torch.ones_like(weight))
        return dataclasses.replace(judged, weight=float(weight.sum()) * 1.1)


@pytest.mark.parametrize(
    ("law", "saboteur", "words"),
    [
        (checks.check_no_leak, SharedMean(4, slices=3), "got a gradient"),
        (checks.check_no_leak, SameNumbers(4, slices=1), "got a gradient"),
        (checks.check_no_leak, HiddenLeak(3, slices=1), "got a change"),
        (checks.check_unbiased_loss, SharedMean(4, slices=1), "loss beyond"),
        (checks.check_unbiased_loss, BrightTarget(4, slices=1), "mean of the target's noise"),
        (checks.check_coverage, FirstPartOnly(4, slices=1), "every part must be in the target"),
        (checks.check_coverage, NeverTheLast(4, slices=1), "every part must be in the target"),
        (checks.check_coverage, OneChoice(4, slices=3), "inference must use every part"),
        (checks.check_infer_as_trained, WholeAtOnce(4, slices=3), "one of inference alone"),
        (checks.check_infer_as_trained, OneChoice(4, slices=3), "one of training alone"),
        (checks.check_judge, NoSpread(3, slices=1), "judged error"),
        (checks.check_judge, NoSpread(4, "1:X", 1), "judged error"),
        (checks.check_judge, NoVariance(3, slices=3), "judged error"),
        (checks.check_judge, NoiseOfOnePart(2, slices=1), "judged noise"),
        (checks.check_judge, Unweighted(2, slices=1), "sum of its weights"),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_a_wrong_split_is_rejected(law: Callable[[Split], None], saboteur: Split, words: str) -> None:
    with rejected(words):
        law(saboteur)


# --- networks and tiles ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("off", [-1, 1])
def test_a_wrong_receptive_field_is_rejected(off: int) -> None:
    settings = UNet((2, 2))
    with rejected("receptive field must reach"):
        checks.check_receptive_field(settings.build(1), 1, settings.radius + off, settings.stride)


def narrow_tiles(network: Network, x: Tensor, tile: int, radius: int, stride: int) -> Tensor:
    """Tile with a halo that is one pixel too small, yet aligned as far as that allows."""
    return _tiles(network, x, tile, radius - 1)


def misaligned_tiles(network: Network, x: Tensor, tile: int, radius: int, stride: int) -> Tensor:
    """Tile with a halo that is large enough but starts between the network's strides."""
    return _tiles(network, x, tile, -(-radius // stride) * stride + 1)


def _tiles(network: Network, x: Tensor, tile: int, halo: int) -> Tensor:
    out = torch.zeros(x.shape[0], 1, *x.shape[-2:])
    for top in range(0, x.shape[-2], tile):
        for left in range(0, x.shape[-1], tile):
            y0, x0 = max(0, top - halo), max(0, left - halo)
            done = network(x[..., y0 : top + tile + halo, x0 : left + tile + halo])
            kept = done[..., top - y0 : top - y0 + tile, left - x0 : left - x0 + tile]
            out[..., top : top + tile, left : left + tile] = kept
    return out


def test_a_halo_one_pixel_too_small_is_rejected() -> None:
    network = torch.nn.Conv2d(1, 1, 7, padding=3)
    checks.check_tiles(lambda *given: _tiles(*given[:3], 3), network, 1, 3, 1, (40, 33), 8)
    with rejected("the numbers of the whole"):
        checks.check_tiles(narrow_tiles, network, 1, 3, 1, (40, 33), 8)


def test_a_halo_one_stride_too_small_is_rejected() -> None:
    settings = UNet((2, 2, 2))
    network = checks.monotone(settings.build(1), seed=3).float()
    halo = -(-settings.radius // settings.stride) * settings.stride
    checks.check_tiles(lambda *given: _tiles(*given[:3], halo), network, 1, settings.radius, 4, (70, 75), 8)
    with rejected("the numbers of the whole"):
        checks.check_tiles(lambda *given: _tiles(*given[:3], halo - 4), network, 1, settings.radius, 4, (70, 75), 8)


def test_tiles_between_the_strides_are_rejected() -> None:
    settings = matrix.NETWORKS["unet-3-levels"]
    with rejected("the numbers of the whole"):
        checks.check_tiles(misaligned_tiles, settings.build(1), 1, settings.radius, settings.stride, (70, 75), 8)


class ZeroPadded(UNetModule):
    """Fills up with black instead of mirroring."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        stride = self.settings.stride
        padded = torch.nn.functional.pad(x, (0, -width % stride, 0, -height % stride))
        return super().forward(padded)[..., :height, :width]


class Cropping(UNetModule):
    """Drops what does not fit."""

    def forward(self, x: Tensor) -> Tensor:
        stride = self.settings.stride
        return super().forward(x)[..., : x.shape[-2] // stride * stride, : x.shape[-1] // stride * stride]


@pytest.mark.parametrize(("saboteur", "words"), [(ZeroPadded, "mirrored"), (Cropping, "keep its size")])
def test_a_network_that_dislikes_a_size_is_rejected(saboteur: type[UNetModule], words: str) -> None:
    checks.check_any_size(saboteur(UNet((4, 4)), 1), 1, 2, (8, 6))
    with rejected(words):
        checks.check_any_size(saboteur(UNet((4, 4)), 1), 1, 2, (7, 5))
