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
from quietray.splits.masked import Noise2Self
from quietray.splits.noisier import Noisier2Noise
from quietray.splits.paired import Noise2Clean
from quietray.splits.projected import Noise2Projection
from quietray.splits.shuffled import APBSN
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


class ComparesSamples(Noise2Inverse):
    def draw(self, samples: Tensor, generator: torch.Generator) -> Pair:
        pair = super().draw(samples, generator)
        return dataclasses.replace(pair, measure=lambda x: x - x.mean(dim=0))


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


class SeesItsTargets(Noise2Self):
    """Hides nothing."""

    def draw(self, samples: Tensor, generator: torch.Generator) -> Pair:
        return dataclasses.replace(super().draw(samples, generator), input=samples[:, 0])


class FillsFromItself(Noise2Self):
    """Fills hidden pixels with a mean that they are part of, where no gradient shows it."""

    def draw(self, samples: Tensor, generator: torch.Generator) -> Pair:
        pair = super().draw(samples, generator)
        own = torch.nn.functional.avg_pool2d(samples[:, 0].detach(), 3, 1, 1)
        return dataclasses.replace(pair, input=torch.where(pair.weight > 0, own, pair.input))


class SomePhases(Noise2Self):
    """Never hides the pixels of the last rows of its grid."""

    def draw(self, samples: Tensor, generator: torch.Generator) -> Pair:
        image = samples[:, 0]
        given, judged = self.phase(image, int(torch.randint(self.n_phases // 2, (), generator=generator)))
        return Pair(given, image, judged)


class UsesTheFirst(Noise2Clean):
    """Infers from one realisation only."""

    def infer(self, network: Network, samples: Tensor) -> Tensor:
        return network(samples[:, 0])


class MeetsNoise(Noise2Clean):
    """Calls a noisy realisation clean."""

    def draw(self, samples: Tensor, generator: torch.Generator) -> Pair:
        return Pair(samples[:, 0], samples[:, 1], torch.ones(1, 1, 1, 1))


class SeesTheClean(Noise2Clean):
    """Shows what it should find."""

    def draw(self, samples: Tensor, generator: torch.Generator) -> Pair:
        return Pair((samples[:, 0] + samples[:, -1]) / 2, samples[:, -1], torch.ones(1, 1, 1, 1))


class AddsNothing(Noisier2Noise):
    """Infers from what was measured, with no noise added."""

    def infer(self, network: Network, samples: Tensor) -> Tensor:
        return network(samples[:, 0])


class OnePass(Noisier2Noise):
    """Judges the mean of several passes and returns one."""

    def infer(self, network: Network, samples: Tensor) -> Tensor:
        return dataclasses.replace(Noisier2Noise(self.poisson, self.gaussian), passes=1).infer(network, samples)


class SeesAllViews(Noise2Projection):
    """Leaves no view out of the reconstruction."""

    def _dealt(self, left_out: int) -> tuple[np.ndarray, np.ndarray]:
        return np.arange(self._beam.n_views), super()._dealt(left_out)[1]


NOISIER = checks.Case(Noisier2Noise(gaussian=checks.SD**2), white=True, recorrupted=True)
BLIND = matrix.SPLITS["noise2self-masked"]
PROJECTED = matrix.SPLITS["noise2projection"]


def in_place_of(case: checks.Case, split: Split, **changes: Any) -> checks.Case:
    return dataclasses.replace(case, split=split, **changes)


def projected(split: Noise2Projection, variance: float | None = None) -> checks.Case:
    bound = split.on(matrix.beam(16, n_cols=16), None if variance is None else torch.full((16, 16), variance))
    return in_place_of(PROJECTED, bound, judged=bound.predict)


@pytest.mark.parametrize(
    ("law", "saboteur", "words"),
    [
        (checks.check_no_leak, SharedMean(3, slices=1, times=3), "got a gradient"),
        (checks.check_no_leak, SharedMean(4, slices=3), "got a gradient"),
        (checks.check_no_leak, SameNumbers(4, slices=1), "got a gradient"),
        (checks.check_no_leak, HiddenLeak(3, slices=1), "got a change"),
        (checks.check_no_leak, SeesTheClean(2), "got a gradient"),
        (checks.check_no_leak, SeesItsTargets(), "got a gradient"),
        (checks.check_no_leak, FillsFromItself(), "got a change"),
        (checks.check_no_leak, projected(SeesAllViews(4)), "got a gradient"),
        (checks.check_shares, ComparesSamples(4, slices=1), "sums over 2 shares"),
        (checks.check_unbiased_loss, SharedMean(4, slices=1), "loss beyond"),
        (checks.check_unbiased_loss, BrightTarget(4, slices=1), "mean of the target's noise"),
        (checks.check_unbiased_loss, MeetsNoise(2), "unless it is clean"),
        (checks.check_unbiased_loss, Noise2Self(), "loss beyond"),  # whose noise must be white
        (checks.check_unbiased_loss, APBSN(1), "loss beyond"),
        (checks.check_unbiased_loss, in_place_of(NOISIER, Noisier2Noise(gaussian=0.8 * checks.SD**2)), "loss beyond"),
        (checks.check_unbiased_loss, projected(SeesAllViews(4)), "loss beyond"),
        (checks.check_coverage, FirstPartOnly(4, slices=1), "every part must be in the target"),
        (checks.check_coverage, NeverTheLast(4, slices=1), "every part must be in the target"),
        (checks.check_coverage, OneChoice(4, slices=3), "inference must use every part"),
        (checks.check_coverage, SomePhases(), "every part must be in the target"),
        (checks.check_coverage, MeetsNoise(2), "every part must be in the"),
        (checks.check_coverage, SeesTheClean(1), "only some parts may be in the input"),
        (checks.check_coverage, UsesTheFirst(2), "inference must use every part"),
        (checks.check_infer_as_trained, WholeAtOnce(4, slices=3), "one of inference alone"),
        (checks.check_infer_as_trained, OneChoice(4, slices=3), "one of training alone"),
        (checks.check_infer_as_trained, UsesTheFirst(2), "one of training alone"),
        (checks.check_infer_as_trained, Noise2Self(), "one of inference alone"),
        (checks.check_infer_as_trained, AddsNothing(gaussian=1.0), "the same distance"),
        (checks.check_judge, NoSpread(3, slices=1), "judged error"),
        (checks.check_judge, NoSpread(4, "1:X", 1), "judged error"),
        (checks.check_judge, NoSpread(3, slices=1, channels=2), "judged error"),
        (checks.check_judge, NoSpread(2, slices=2, volume=True), "judged error"),
        (checks.check_judge, NoVariance(3, slices=3), "judged error"),
        (checks.check_judge, NoiseOfOnePart(2, slices=1), "judged noise"),
        (checks.check_judge, Unweighted(2, slices=1), "sum of its weights"),
        (checks.check_judge, in_place_of(BLIND, Noise2Self()), "judged error"),
        (checks.check_judge, in_place_of(BLIND, BLIND.split, white=False), "judged"),
        (checks.check_judge, in_place_of(NOISIER, Noisier2Noise(gaussian=0.9 * checks.SD**2)), "judged error"),
        (checks.check_judge, in_place_of(NOISIER, OnePass(gaussian=checks.SD**2)), "judged error"),
        (checks.check_judge, projected(Noise2Projection(3), 0.8 * checks.SD**2), "judged error"),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_a_wrong_split_is_rejected(law: Callable[[Any], None], saboteur: Any, words: str) -> None:
    with rejected(words):
        law(saboteur if isinstance(saboteur, checks.Case) else checks.Case(saboteur))


# --- networks and tiles ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("off", [-1, 1])
def test_a_wrong_receptive_field_is_rejected(off: int) -> None:
    settings = UNet((2, 2))
    with rejected("receptive field must reach"):
        checks.check_receptive_field(settings.build(1), 1, settings.radius + off, settings.stride)


class NearOutput(torch.nn.Module):
    """Gives a second output that sees no further than its pixel."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.network(x), x[:, :1]], dim=1)


def test_an_output_that_sees_less_is_rejected() -> None:
    settings = UNet((2, 2))
    with rejected(f"must reach {settings.radius} rows, got .{settings.radius}, 0.$"):
        checks.check_receptive_field(NearOutput(settings.build(1)), 1, settings.radius, settings.stride)


class Telescope(torch.nn.Conv2d):
    """Sees a little of a pixel far away that no line and no positive weight tells of."""

    def forward(self, x: Tensor) -> Tensor:
        far = x.roll((5, 5), (-2, -1))
        return super().forward(x) + 1e-3 * (far - far.detach())


def test_a_gradient_from_afar_is_rejected() -> None:
    checks.check_receptive_field(torch.nn.Conv2d(1, 1, 5, padding=2), 1, 2, 1)
    with rejected("no gradient may reach further than 2 pixels"):
        checks.check_receptive_field(Telescope(1, 1, 5, padding=2), 1, 2, 1)


@pytest.mark.parametrize("off", [-1, 1])
def test_a_wrong_depth_is_rejected(off: int) -> None:
    settings = UNet((2, 2), dimensions=3)
    with rejected("a slice must depend on slices up to"):
        checks.check_depth(settings.build(1), settings.depth + off)


def test_a_network_that_drops_slices_is_rejected() -> None:
    with rejected("every slice must come back"):
        checks.check_depth(UNet((2,)).build(2 * 1 + 5), 1)


class Idle(torch.nn.Conv2d):
    """Keeps a weight that it never uses."""

    def __init__(self) -> None:
        super().__init__(1, 1, 3, padding=1)
        self.idle = torch.nn.Parameter(torch.ones(3))


class Cut(torch.nn.Conv2d):
    """Keeps its weights as they are."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).detach() + self.bias[:, None, None]


@pytest.mark.parametrize(("saboteur", "name"), [(Idle(), "idle"), (Cut(1, 1, 3, padding=1), "weight")])
def test_a_weight_that_never_learns_is_rejected(saboteur: torch.nn.Module, name: str) -> None:
    checks.check_every_weight_learns(torch.nn.Conv2d(1, 1, 3, padding=1), 1)
    with rejected(f"got none for {name}$"):
        checks.check_every_weight_learns(saboteur, 1)


def test_tiles_of_a_network_that_says_nothing_prove_nothing() -> None:
    with rejected("a network that answers"):
        checks.check_tiles(lambda network, x, *given: network(x), lambda x: 0 * x, 1, 3, 1, (9, 9), 4)


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
