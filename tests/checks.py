"""The laws, as plain functions: each raises AssertionError with a sentence when what it is given breaks the law.

Nothing here knows an implementation; tests/matrix.py lists those, tests/test_laws.py runs every law over every row, and
tests/test_checks.py feeds every law a saboteur that it must reject.

Statistical laws draw from a fixed seed and allow five standard errors.  Each also insists that its standard error is
small, for a law that cannot see a difference says nothing.
"""

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quietray.operators.linear import LinearOperator
from quietray.simulate.noise import NoiseModel
from quietray.splits.base import Split

SIGMAS = 5.0


# --- operators ------------------------------------------------------------------------------------------------------


def check_linear(A: LinearOperator, seed: int = 0, rtol: float = 1e-5) -> None:
    """``A(a x + b y) = a A(x) + b A(y)``."""
    rng = np.random.default_rng(seed)
    x, y = (rng.standard_normal(A.domain_shape).astype(np.float32) for _ in range(2))
    a, b = np.float32(0.7), np.float32(-1.9)
    apart = a * A(x) + b * A(y)
    together = A(a * x + b * y)
    off = np.linalg.norm(together - apart) / np.linalg.norm(apart)
    assert off < rtol, f"A(a x + b y) must be a A(x) + b A(y), got a relative difference of {off:.2g}"


def check_adjoint(A: LinearOperator, seed: int = 0, rtol: float = 1e-4, draws: int = 8) -> None:
    """``<A x, y> = <x, A.T y>``, relative to the size that a random inner product has."""
    assert A.T.domain_shape == A.range_shape, f"A.T must take {A.range_shape}, got {A.T.domain_shape}"
    assert A.T.range_shape == A.domain_shape, f"A.T must return {A.domain_shape}, got {A.T.range_shape}"
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        x = rng.standard_normal(A.domain_shape).astype(np.float32)
        y = rng.standard_normal(A.range_shape).astype(np.float32)
        Ax, Aty = A(x).astype(np.float64), A.T(y).astype(np.float64)
        left, right = float((Ax * y).sum()), float((x * Aty).sum())
        off = abs(left - right) / np.linalg.norm(Ax)
        assert off < rtol, f"<A x, y> must be <x, A.T y>, got {left:.6g} and {right:.6g} (off by {off:.2g})"


def check_gradient(A: LinearOperator, seed: int = 0) -> None:
    """In autograd the gradient of ``A`` is ``A.T``, and the gradient of that is ``A`` again."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(A.domain_shape, generator=generator).requires_grad_()
    v = torch.randn(A.range_shape, generator=generator).requires_grad_()
    w = torch.randn(A.domain_shape, generator=generator)
    out = A(x)
    assert out.requires_grad, "A of a tensor that requires a gradient must carry one, got a detached tensor"
    assert np.array_equal(out.detach().numpy(), A(x.detach().numpy())), "A must be the same on a tensor and an array"
    (gradient,) = torch.autograd.grad(out, x, v, create_graph=True)
    wanted = A.T(v.detach().numpy())
    assert np.array_equal(gradient.detach().numpy(), wanted), "the gradient of A must be A.T of the incoming one"
    (again,) = torch.autograd.grad(gradient, v, w)
    assert np.array_equal(again.numpy(), A(w.numpy())), "the gradient of the gradient of A must be A"


# --- noise models ---------------------------------------------------------------------------------------------------


def check_moments(
    model: NoiseModel,
    photons: float = 60.0,
    seed: int = 0,
    frames: int = 240,
    size: int = 48,
    lags: Iterable[tuple[int, int]] = ((0, 0), (0, 1), (1, 0), (1, 1), (0, 3), (3, 0), (2, -1)),
    border: int = 8,
) -> None:
    """Mean and covariance at each lag are the closed forms, away from the border."""
    lit = np.full((frames, size, size), photons, np.float32)
    counts = model.sample(lit, np.random.default_rng(seed)).astype(np.float64)[:, border:-border, border:-border]
    expected = model.mean(lit).astype(np.float64)[:, border:-border, border:-border]
    residual = counts - expected
    per_frame = residual.mean(axis=(1, 2))
    _agree("the mean of the noise", per_frame, 0.0)
    variance = model.covariance(photons, (0, 0))
    n = residual.shape[1]
    for dy, dx in lags:
        y0, y1, x0, x1 = max(0, -dy), n - max(0, dy), max(0, -dx), n - max(0, dx)
        product = residual[:, y0:y1, x0:x1] * residual[:, y0 + dy : y1 + dy, x0 + dx : x1 + dx]
        values = product.mean(axis=(1, 2))
        _agree(f"the covariance at lag {(dy, dx)}", values, model.covariance(photons, (dy, dx)), scale=variance)


# --- splits ---------------------------------------------------------------------------------------------------------


def check_no_leak(split: Split, seed: int = 0, size: int = 9, batch: int = 6, draws: int = 4) -> None:
    """The input of a drawn pair knows nothing of the parts that its target is made of.

    By autograd (exactly zero), and by putting other numbers in those parts (nothing but rounding), for a gradient can
    be cut off while the value still leaks.
    """
    for draw in range(draws):
        samples = _samples(split, seed + draw, size, batch).requires_grad_()
        pair = split.draw(samples, _generator(draw))
        assert pair.target.requires_grad, "the target must be made of the samples, got one that does not depend on them"
        in_target = _parts_behind(pair.target, samples, seed)
        assert in_target.any(dim=1).all(), "every target must be made of some part"
        gradient = torch.autograd.grad(
            (pair.input * torch.randn(pair.input.shape, generator=_generator(seed))).sum(), samples, allow_unused=True
        )[0]
        assert gradient is not None, "the input must depend on the samples, got one that does not"
        leak = float((gradient.abs().amax(dim=(2, 3, 4)) * in_target).max())
        assert leak == 0, f"the input must not depend on the target's parts, got a gradient of {leak:.2g}"

        others = _samples(split, seed + draw + 1000, size, batch)
        swapped = torch.where(in_target[:, :, None, None, None], others, samples.detach())
        again = split.draw(swapped, _generator(draw))
        moved = float((again.input - pair.input.detach()).abs().max())
        assert moved < 1e-5, f"the input must not change with the target's parts, got a change of {moved:.2g}"


def check_coverage(split: Split, seed: int = 0, size: int = 5, draws: int = 12) -> None:
    """Over many draws every part is a target and an input, and inference uses every part and slice."""
    targets = torch.zeros(split.n_parts)
    inputs = torch.zeros(split.n_parts)
    batch = 8
    for draw in range(draws):
        samples = _samples(split, seed, size, batch).requires_grad_()
        pair = split.draw(samples, _generator(seed + draw))
        targets += _parts_behind(pair.target, samples, seed).sum(dim=0)
        inputs += _parts_behind(pair.input, samples, seed).sum(dim=0)
    for name, counts in (("target", targets), ("input", inputs)):
        share = counts / (draws * batch)
        assert counts.min() > 0, f"every part must be in the {name} at times, got shares {share.tolist()}"
        spread = float((share.max() - share.min()) / (share.mean() * (1 - share.mean()) + 1e-9).sqrt())
        assert spread < SIGMAS * (2 / (draws * batch)) ** 0.5, f"parts must be {name}s alike, got {share.tolist()}"

    samples = _samples(split, seed, size, 2).requires_grad_()
    weights = torch.rand(split.n_slices, generator=_generator(seed)) + 0.5
    out = split.infer(lambda x: (x * weights[:, None, None]).sum(dim=1, keepdim=True), samples)
    (gradient,) = torch.autograd.grad(out.sum(), samples)
    used = gradient.abs().amax(dim=(0, 3, 4))
    assert (used > 0).all(), f"inference must use every part and slice, got weights {used.tolist()}"


def check_infer_as_trained(split: Split, seed: int = 0, size: int = 6, draws: int = 200) -> None:
    """Inference shows the network exactly the inputs that training can show it."""
    samples = _samples(split, seed, size, 1)
    seen: list[Tensor] = []

    def network(x: Tensor) -> Tensor:
        seen.append(x)
        return x[:, :1]

    split.infer(network, samples)
    drawn: list[Tensor] = []
    for draw in range(draws):
        given = split.draw(samples, _generator(seed + draw)).input
        if not any(torch.allclose(given, other, atol=1e-5) for other in drawn):
            drawn.append(given)
    shown = [image[None] for given in seen for image in given]
    for one, there, what in ((shown, drawn, "inference"), (drawn, shown, "training")):
        for image in one:
            known = any(image.shape == other.shape and torch.allclose(image, other, atol=1e-5) for other in there)
            assert known, f"training and inference must show the network the same inputs, got one of {what} alone"


def check_unbiased_loss(split: Split, seed: int = 0, draws: int = 1200, size: int = 8) -> None:
    """The expected loss is the loss against the clean target plus a constant: noise moves no minimum.

    The constant is the target's variance.  Tried on linear networks of several strengths.
    """
    clean, _ = _scene(split, seed, size)
    noise = torch.randn((draws, *clean.shape), generator=_generator(seed)) * 0.5
    samples = clean + _within_part(noise)
    generator = _generator(seed)
    middle = clean[0, split.n_slices // 2]
    pairs = split.draw(samples, generator)
    truth = pairs.measure(middle.expand(draws, 1, size, size))
    error = pairs.target - truth
    variance = float(error.square().mean())
    assert variance > 1e-3, "the target must be noisy, got a clean one"
    _agree("the mean of the target's noise", error.mean(dim=(1, 2, 3)).double().numpy(), 0.0, scale=0.5)
    one = torch.ones(1, 1, 1, 1)
    for strength in (0.0, 0.5, 1.0, 2.0):

        def network(x: Tensor, strength: float = strength) -> Tensor:
            return strength * x.mean(dim=1, keepdim=True) + 0.1

        excess = []
        for k in range(draws):
            pair = type(pairs)(
                pairs.input[k : k + 1],
                pairs.target[k : k + 1],
                pairs.weight if len(pairs.weight) == 1 else pairs.weight[k : k + 1],
                pairs.measure,
            )
            clean_pair = type(pairs)(pair.input, truth[k : k + 1], pair.weight, pairs.measure)
            own = (pair.weight.expand_as(pair.target) * error[k : k + 1].square()).sum()
            own = own / pair.weight.expand_as(pair.target).sum()
            excess.append(float(pair.loss(network, one) - clean_pair.loss(network, one) - own))
        what = f"the loss beyond the clean loss and the target's variance, for a network of strength {strength},"
        _agree(what, np.array(excess), 0.0, scale=variance)


def check_judge(split: Split, seed: int = 0, draws: int = 160, batch: int = 6, size: int = 10) -> None:
    """Over many draws of the noise the judgement is the true error of the result, and of the plain average."""
    clean, truth = _scene(split, seed, size)
    generator = _generator(seed)
    weight = (torch.rand((batch, 1, size, size), generator=generator) > 0.3).float()

    def network(x: Tensor) -> Tensor:
        """Denoise badly and not linearly, so that the outputs for different inputs differ."""
        middle = x[:, x.shape[1] // 2][:, None]
        smooth = torch.nn.functional.avg_pool2d(middle, 3, 1, 1, count_include_pad=False)
        return 0.5 * middle + 0.3 * torch.tanh(2 * smooth) + 0.1 * x.mean(dim=1, keepdim=True)

    def mse(x: Tensor) -> float:
        return float((weight * (x - truth).double().square()).sum() / weight.sum())

    rows = []
    for _ in range(draws):
        noise = 0.4 * torch.randn((batch, *clean.shape), generator=generator)
        samples = clean + _within_part(noise)
        judged = split.judge(network, samples, weight)
        assert abs(judged.weight - float(weight.sum())) < 1e-3, "a judgement must carry the sum of its weights"
        plain = samples[:, :, split.n_slices // 2].mean(dim=1, keepdim=True)
        rows.append((judged.error, mse(split.infer(network, samples)), judged.noise, mse(plain)))
    error, true_error, noise, true_noise = np.array(rows).T
    _agree("the judged error minus the true one", error - true_error, 0.0, scale=float(true_error.mean()))
    _agree("the judged noise minus the true one", noise - true_noise, 0.0, scale=float(true_noise.mean()))


# --- networks and tiles ---------------------------------------------------------------------------------------------


def monotone(network: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Give a network positive weights, in float64: brighter input, brighter output, on every path there is."""
    generator = _generator(seed)
    network = network.double()
    with torch.no_grad():
        for name, value in network.named_parameters():
            fan_in = value[0].numel() if value.dim() > 1 else 1
            value.copy_((torch.rand(value.shape, generator=generator, dtype=torch.float64) + 0.5) / fan_in)
            if name.endswith("bias"):
                value.fill_(0.01)
    return network


def check_receptive_field(network: torch.nn.Module, n_channels: int, radius: int, stride: int) -> None:
    """The furthest pixel that an output depends on is `radius` away: reached by some phase, exceeded by none.

    Found by brightening one line of the input at a time, in a network whose weights are all positive, and once more by
    autograd.
    """
    network = monotone(network)
    length = 2 * (-(-(radius + 2) // stride) * stride) + 2 * stride
    middle = length // 2 // stride * stride
    phases = torch.arange(middle, middle + stride)
    width = 2 * stride
    for across in (False, True):
        furthest = 0
        with torch.no_grad():
            dark = torch.zeros(1, n_channels, length, width, dtype=torch.float64)
            before = network(_turned_if(dark, across))
            for line in range(length):
                lit = dark.clone()
                lit[:, :, line] = 1e3
                changed = (network(_turned_if(lit, across)) != before)[0, 0]
                seen = (changed.T if across else changed).any(dim=1)[phases]
                if seen.any():
                    furthest = max(furthest, int((phases[seen] - line).abs().max()))
        where = "columns" if across else "rows"
        assert furthest == radius, f"the receptive field must reach {radius} {where}, got {furthest}"
    image = torch.rand(1, n_channels, length, length, dtype=torch.float64, generator=_generator(0)).requires_grad_()
    for phase in phases.tolist():
        (gradient,) = torch.autograd.grad(network(image)[0, 0, phase, phase], image)
        reached = gradient[0].abs().amax(dim=0).nonzero() - phase
        assert int(reached.abs().max()) <= radius, f"no gradient may reach further than {radius} pixels"


def check_tiles(
    tiled: Callable[..., Tensor],
    network: torch.nn.Module,
    n_channels: int,
    radius: int,
    stride: int,
    size: tuple[int, int],
    tile: int,
    seed: int = 0,
) -> None:
    """Tile by tile gives the numbers of the whole, to 1e-5 of their size."""
    x = torch.randn(2, n_channels, *size, generator=_generator(seed))
    with torch.no_grad():
        whole = network(x)
        pieces = tiled(network, x, tile, radius, stride)
    assert pieces.shape == whole.shape, f"tiles must cover {tuple(whole.shape)}, got {tuple(pieces.shape)}"
    off = float((pieces - whole).abs().max() / whole.abs().max())
    assert off < 1e-5, f"tiles of {tile} must give the numbers of the whole of {size}, got a difference of {off:.2g}"


def check_any_size(network: torch.nn.Module, n_channels: int, stride: int, size: tuple[int, int]) -> None:
    """An image of any size is treated as if mirrored below and to the right up to a multiple of the stride."""
    x = torch.randn(1, n_channels, *size, generator=_generator(0))
    below, right = -size[0] % stride, -size[1] % stride
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (0, below), (0, right)), mode="reflect")
    with torch.no_grad():
        out = network(x)
        wanted = network(torch.from_numpy(padded))[..., : size[0], : size[1]]
    assert out.shape == (1, 1, *size), f"an image of {size} must keep its size, got {tuple(out.shape)}"
    assert torch.isfinite(out).all(), f"an image of {size} must give numbers"
    off = float((out - wanted).abs().max())
    assert off <= 1e-5 * float(wanted.abs().max()), f"the border of {size} must be mirrored, got a difference of {off}"


# --- helpers --------------------------------------------------------------------------------------------------------


def _agree(what: str, values: np.ndarray, wanted: float, scale: float | None = None, resolution: float = 0.05) -> None:
    """The mean of independent `values` is `wanted`, within five standard errors that are small against `scale`."""
    error = float(values.std(ddof=1) / len(values) ** 0.5)
    if scale is not None:
        assert error < resolution * scale, f"{what} must be known to {resolution:.0%} of {scale:.3g}, got {error:.2g}"
    off = float(values.mean()) - wanted
    allowed = SIGMAS * error + 1e-6 * max(1.0, abs(wanted), scale or 0.0)
    assert abs(off) <= allowed, f"{what} must be {wanted:.5g}, got {values.mean():.5g} +- {error:.2g}"


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _samples(split: Split, seed: int, size: int, batch: int) -> Tensor:
    return torch.randn(batch, split.n_parts, split.n_slices, size, size, generator=_generator(seed))


def _scene(split: Split, seed: int, size: int) -> tuple[Tensor, Tensor]:
    """Return clean parts ``(part, slice, y, x)``, all alike, and their middle slice ``(1, 1, y, x)``."""
    scene = torch.rand((split.n_slices, size, size), generator=_generator(seed))
    return scene.expand(split.n_parts, -1, -1, -1), scene[split.n_slices // 2][None, None]


def _within_part(noise: Tensor) -> Tensor:
    """Correlate white noise between neighbouring pixels and slices of a part, as reconstructions are."""
    noise = noise + 0.5 * noise.roll(1, -1) - 0.5 * noise.roll(1, -2)
    return noise + 0.3 * noise.roll(1, -3) if noise.shape[-3] > 1 else noise


def _parts_behind(x: Tensor, samples: Tensor, seed: int) -> Tensor:
    """Return which parts ``(batch, part)`` the image `x` is made of; random weights, so that nothing cancels."""
    weights = torch.rand(x.shape, generator=_generator(seed)) + 0.5
    gradient = torch.autograd.grad((x * weights).sum(), samples, retain_graph=True)[0]
    return gradient.abs().amax(dim=(2, 3, 4)) > 1e-6


def _turned_if(x: Tensor, across: bool) -> Tensor:
    return x.transpose(-1, -2).contiguous() if across else x


def sizes(*lengths: int) -> list[tuple[int, int]]:
    """Return every pair of lengths."""
    return list(itertools.product(lengths, repeat=2))


def same_weights(one: torch.nn.Module, other: dict[str, Any]) -> bool:
    """Whether a network holds exactly these weights."""
    own = one.state_dict()
    return own.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in own.items())
