"""The laws, as plain functions: each raises AssertionError with a sentence when what it is given breaks the law.

Nothing here knows an implementation; tests/matrix.py lists those, tests/test_laws.py runs every law over every row, and
tests/test_checks.py feeds every law a saboteur that it must reject.

Statistical laws draw from a fixed seed and allow five standard errors.  Each also insists that its standard error is
small, for a law that cannot see a difference says nothing.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quietray.operators.linear import LinearOperator
from quietray.simulate.noise import NoiseModel
from quietray.splits.base import Network, Split

SIGMAS = 5.0
SD = 0.5  # of the noise that splits are tried on


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


@dataclasses.dataclass(frozen=True)
class Case:
    """A split, and under which conditions its laws hold.

    Parameters
    ----------
    split
        The split.
    white
        Whether it needs white noise; else the noise is shared by neighbouring pixels.
    recorrupted
        Whether both of its views hold every measurement, and only the noise in them is independent.
    inference
        The split that infers as this one trains, where it does not do so itself.
    judged
        What is judged, where it is not what that split returns.
    taught
        Whether a network makes its targets, so that they are no measurements and only as right as that network.
    size
        Edge of the only samples that it takes; these are few, for such a split projects them.
    """

    split: Split
    white: bool = False
    recorrupted: bool = False
    inference: Split | None = None
    judged: Callable[[Network, Tensor], Tensor] | None = None
    size: int | None = None
    taught: bool = False


def check_no_leak(case: Case, seed: int = 0, size: int = 9, batch: int = 6, draws: int = 4) -> None:
    """The input of a drawn pair knows nothing of the measurements that its target is made of.

    These are whole parts; of a single part they are pixels.  By autograd (exactly zero), and by putting other numbers
    there (nothing but rounding), for a gradient can be cut off while the value still leaks.
    """
    for draw in range(draws):
        samples = _samples(case, seed + draw, size, batch).requires_grad_()
        pair = case.split.draw(samples, _generator(draw))
        assert pair.target.requires_grad, "the target must be made of the samples, got one that does not depend on them"
        in_target = _behind(pair.target * (pair.weight > 0), samples, seed, case.split.neighbourhood.times)
        assert in_target.flatten(1).any(dim=1).all(), "every target must be made of some measurement"
        gradient = torch.autograd.grad(
            (pair.input * torch.randn(pair.input.shape, generator=_generator(seed))).sum(), samples, allow_unused=True
        )[0]
        assert gradient is not None, "the input must depend on the samples, got one that does not"
        leak = float((gradient.abs() * in_target).max())
        assert leak == 0, f"the input must not depend on what the target is made of, got a gradient of {leak:.2g}"

        others = _samples(case, seed + draw + 1000, size, batch)
        swapped = torch.where(in_target, others, samples.detach())
        again = case.split.draw(swapped, _generator(draw))
        moved = float((again.input - pair.input.detach()).abs().max())
        assert moved < 1e-5, f"the input must not change with what the target is made of, got a change of {moved:.2g}"


def check_coverage(case: Case, seed: int = 0, size: int = 5, draws: int = 150) -> None:
    """Over many draws every part is an input and a target, a clean one a target only; inference uses every noisy part.

    Of a single part, this holds for every pixel.
    """
    split, noisy = case.split, case.split.n_parts - case.split.n_clean
    whole = split.n_parts > 1
    counts = {"target": torch.zeros(()), "input": torch.zeros(())}
    for draw in range(draws):
        samples = _samples(case, seed, size, 1).requires_grad_()
        pair = split.draw(samples, _generator(seed + draw))
        for name, x in (("target", pair.target * (pair.weight > 0)), ("input", pair.input)):
            found = _behind(x, samples, seed)[0].float()
            counts[name] = counts[name] + (found.amax(dim=(1, 2, 3)) if whole else found)
    for name, count in counts.items():
        share = count / draws
        used, unused = (
            (share[:noisy], share[noisy:]) if name == "input" or not split.n_clean else (share[noisy:], share[:noisy])
        )
        assert used.min() > 0, f"every part must be in the {name} at times, got shares {share.tolist()}"
        assert not unused.any(), f"only some parts may be in the {name}, got shares {share.tolist()}"
        spread = float((used.max() - used.min()) / (used.mean() * (1 - used.mean()) + 1e-9).sqrt())
        alike = spread < SIGMAS * (2 / draws) ** 0.5 or (name == "input" and not whole)  # blind spots end at the border
        assert alike, f"parts must be {name}s alike, got {share.tolist()}"

    samples = _samples(case, seed, size, 2)[:, :noisy].requires_grad_()
    weights = torch.rand(split.n_slices, generator=_generator(seed)) + 0.5

    def network(x: Tensor) -> Tensor:
        image = (x * weights[:, None, None]).sum(dim=1, keepdim=True)
        return (image + torch.nn.functional.avg_pool2d(image, 3, 1, 1)).expand(-1, split.n_outputs, -1, -1)

    out = split.infer(network, samples)
    (gradient,) = torch.autograd.grad(out.sum(), samples)
    seen = gradient.abs().amax(dim=(0, 3, 4) if whole else 0)
    assert (seen > 0).all(), f"inference must use every part and slice, got weights {seen.tolist()}"


def check_infer_as_trained(case: Case, seed: int = 0, size: int = 12, draws: int = 200) -> None:
    """Inference shows the network the inputs that training can show it.

    Exactly these; where they hold random numbers, such as have the same mean, and the same distance from it.
    """
    samples = _samples(case, seed, size, 1)
    seen: list[Tensor] = []

    def network(x: Tensor) -> Tensor:
        seen.append(x)
        return x[:, :1].expand(-1, case.split.n_outputs, -1, -1)

    inference = case.inference or case.split
    inference.infer(network, samples[:, : inference.n_parts - inference.n_clean])
    shown = list(torch.cat(seen))
    drawn: list[Tensor] = []
    distinct: list[Tensor] = []
    for draw in range(draws):
        drawn.extend(case.split.draw(samples, _generator(seed + draw)).input)
    for given in drawn:
        if not _among(given, distinct):
            distinct.append(given)
    if len(distinct) > len(drawn) // 2:
        centre = torch.stack(drawn).mean(dim=0)
        for what, of in (
            ("mean", lambda x: x.mean()),
            ("distance from the mean", lambda x: (x - centre).square().mean()),
        ):
            one, other = (torch.stack([of(x) for x in images]).double() for images in (shown, drawn))
            error = float(other.var() * (1 / len(one) + 1 / len(other))) ** 0.5
            off = abs(float(one.mean() - other.mean()))
            assert off <= SIGMAS * error, (
                f"the inputs of training and inference must have the same {what}, got {off} off"
            )
        return
    for images, there, what in ((shown, distinct, "inference"), (distinct, shown, "training")):
        for image in images:
            assert _among(image, there), (
                f"training and inference must show the network the same inputs, got one of {what} alone"
            )


def check_unbiased_loss(case: Case, seed: int = 0) -> None:
    """The expected loss is the loss against the clean target plus a constant: noise moves no minimum.

    The constant is the target's variance.  Tried on linear networks of several strengths.
    """
    split = case.split
    draws, batch, size = (150, 8, 8) if case.size is None else (120, 1, case.size)
    clean, middle = _scene(case, seed, size)
    clean = clean.expand(batch, *clean.shape)
    chance = _generator(seed + 10_000)
    noisy = split.n_clean == 0
    one = torch.ones(1, 1, 1, 1)
    strengths = (0.0, 0.5, 1.0, 2.0)
    errors, excess = [], []
    for draw in range(draws):
        pair = split.draw(clean + _noise(case, clean.shape, chance), _generator(seed + draw))
        ideal = split.draw(clean, _generator(seed + draw)).target
        truth = middle.expand_as(ideal) if ideal.shape[-2:] == middle.shape[-2:] else ideal
        weight = pair.weight.expand_as(truth)
        error = pair.target - truth
        own = (weight * error.square()).sum() / weight.sum()
        clean_pair = dataclasses.replace(pair, target=truth)
        errors.append([float((weight * error).sum() / weight.sum()), float(own)])

        row = []
        for strength in strengths:

            def network(x: Tensor, strength: float = strength) -> Tensor:
                image = x.mean(dim=1, keepdim=True)
                image = strength * (image + torch.nn.functional.avg_pool2d(image, 3, 1, 1)) / 2 + 0.1
                return image.expand(-1, split.n_outputs, -1, -1)

            row.append(float(pair.loss(network, one) - clean_pair.loss(network, one) - own))
        excess.append(row)
    mean, variance = np.array(errors).T
    assert (variance.mean() > 1e-3) == noisy, f"the target must be noisy unless it is clean, got {variance.mean():.2g}"
    scale = float(variance.mean()) if noisy else None
    _agree("the mean of the target's noise", mean, 0.0, scale=SD if noisy else None)
    for strength, values in zip(strengths, np.array(excess).T, strict=True):
        what = f"the loss beyond the clean loss and the target's variance, for a network of strength {strength},"
        _agree(what, values, 0.0, scale=scale, resolution=0.1)


def check_shares(case: Case, seed: int = 0, batch: int = 5) -> None:
    """The loss of a batch, and its gradient, are the sums over its shares, each times its fraction of the weights."""
    size = case.size or 12
    samples = _samples(case, seed, size, batch)
    pair = case.split.draw(samples, _generator(seed))
    weight = torch.ones(1, 1, 1, 1)
    if case.size is None:
        weight = (torch.rand((batch, 1, size, size), generator=_generator(seed + 1)) > 0.4).float()
    strength = torch.ones((), requires_grad=True)

    def network(x: Tensor) -> Tensor:
        image = torch.tanh(strength * x.mean(dim=1, keepdim=True))
        return image.expand(-1, case.split.n_outputs, -1, -1)

    def told(loss: Tensor) -> list[float]:
        return [loss.item(), float(torch.autograd.grad(loss, strength)[0])]

    whole = told(pair.loss(network, weight))
    for count in (1, 2, 3):
        shares = [pair.share(weight, number, count) for number in range(count)]
        found = told(torch.stack([fraction * one.loss(network, own) for one, own, fraction in shares]).sum())
        assert np.allclose(found, whole, rtol=1e-4), (
            f"the loss of a batch and its gradient must be the sums over {count} shares of it, got {found}, not {whole}"
        )


def check_judge(case: Case, seed: int = 0) -> None:
    """Over many draws of the noise the judgement is the true error of the result, and of the plain average."""
    split = case.split
    draws, batch, size = (160, 6, 10) if split.n_parts > 1 else (40, 6, 24)
    if case.size is not None:
        draws, batch, size = 80, 1, case.size
    clean, truth = _scene(case, seed, size)
    noisy, wanted = split.n_parts - split.n_clean, _wanted(split)
    generator = _generator(seed)
    weight = (torch.rand((batch, 1, size, size), generator=generator) > 0.3).float()
    reserved = split.reserved((size, size))
    if reserved is not None:
        weight *= torch.from_numpy(reserved[0])
    judged_result = case.judged or (case.inference or split).infer

    def network(x: Tensor) -> Tensor:
        """Denoise badly and not linearly, so that the outputs for different inputs differ."""
        middle = x[:, wanted] if x.shape[1] == split.n_slices else x[:, x.shape[1] // 2][:, None]
        smooth = torch.nn.functional.avg_pool2d(middle, 3, 1, 1, count_include_pad=False)
        return 0.5 * middle + 0.3 * torch.tanh(2 * smooth) + 0.1 * x.mean(dim=1, keepdim=True)

    def plain(samples: Tensor) -> Tensor:
        if case.judged is not None:
            return case.judged(lambda x: x, samples)
        return samples[:, :, wanted].mean(dim=1)

    def mse(x: Tensor) -> float:
        return float((weight * (x - truth).double().square()).sum() / weight.sum() / split.n_outputs)

    rows = []
    for _ in range(draws):
        samples = clean + _noise(case, (batch, *clean.shape), generator)
        judged = split.judge(network, samples, weight)
        total = split.n_outputs * float(weight.sum())
        assert abs(judged.weight - total) < 1e-3, "a judgement must carry the sum of its weights"
        given = samples[:, :noisy]
        rows.append((judged.error, mse(judged_result(network, given)), judged.noise, mse(plain(given))))
    error, true_error, noise, true_noise = np.array(rows).T
    scale = float(true_noise.mean())
    _agree("the judged error minus the true one", error - true_error, 0.0, scale, resolution=0.1)
    _agree("the judged noise minus the true one", noise - true_noise, 0.0, scale, resolution=0.1)


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
                value.zero_()  # so that darkness stays exactly dark, and the faintest light is seen
    return network


def check_receptive_field(network: torch.nn.Module, n_channels: int, radius: int, stride: int) -> None:
    """The furthest pixel that an output depends on is `radius` away: reached by some phase, exceeded by none.

    Found by brightening one line of the input at a time, in a network whose weights are all positive, and once more by
    autograd.  Lines nearer than that say nothing of the furthest, and are left out.
    """
    network = monotone(network)
    length = 2 * (-(-(radius + 2) // stride) * stride) + 2 * stride
    middle = length // 2 // stride * stride
    phases = torch.arange(middle, middle + stride)
    width = 2 * stride
    for across in (False, True):
        with torch.no_grad():
            dark = torch.zeros(1, n_channels, length, width, dtype=torch.float64)
            before = network(_turned_if(dark, across))
            furthest = torch.zeros(before.shape[1], dtype=torch.int64)
            for line in range(length):
                away = (phases - line).abs()
                if away.max() < radius - 1:
                    continue
                lit = dark.clone()
                lit[:, :, line] = 1e3
                changed = (network(_turned_if(lit, across)) != before)[0]
                seen = (changed.mT if across else changed).any(dim=2)[:, phases]
                furthest = torch.maximum(furthest, (seen * away).amax(dim=1))
        where = "columns" if across else "rows"
        found = furthest.tolist()
        assert found == [radius] * len(found), f"the receptive field must reach {radius} {where}, got {found}"
    image = torch.rand(1, n_channels, length, length, dtype=torch.float64, generator=_generator(0)).requires_grad_()
    for phase in phases[:: max(1, stride // 8)].tolist():
        (gradient,) = torch.autograd.grad(network(image)[0, :, phase, phase].sum(), image)
        reached = gradient[0].abs().amax(dim=0).nonzero() - phase
        assert int(reached.abs().max()) <= radius, f"no gradient may reach further than {radius} pixels"


def check_depth(network: torch.nn.Module, depth: int, size: int = 9) -> None:
    """In three dimensions the furthest slice that a slice of the output depends on is `depth` away.

    Found as the receptive field is, one slice lit at a time, and by autograd.
    """
    network = monotone(network)
    n_slices = 2 * depth + 5
    middle = n_slices // 2
    dark = torch.zeros(1, n_slices, size, size, dtype=torch.float64)
    away = (torch.arange(n_slices) - middle).abs()
    with torch.no_grad():
        before = network(dark)
        assert before.shape == dark.shape, f"every slice must come back, got {tuple(before.shape)}"
        furthest = 0
        for z in range(n_slices):
            lit = dark.clone()
            lit[:, z] = 1e3
            if (network(lit) != before)[0, middle].any():
                furthest = max(furthest, int(away[z]))
    assert furthest == depth, f"a slice must depend on slices up to {depth} away, got {furthest}"
    image = torch.rand(dark.shape, dtype=torch.float64, generator=_generator(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(network(image)[:, middle].sum(), image)
    reached = int(away[gradient[0].abs().amax(dim=(1, 2)) > 0].max())
    assert reached <= depth, f"no gradient may reach further than {depth} slices, got {reached}"


def check_every_weight_learns(network: torch.nn.Module, n_channels: int, size: int = 32) -> None:
    """After one step of gradient descent, for a head may start at zero, every weight has a gradient."""
    x = torch.randn(2, n_channels, size, size, generator=_generator(0))
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        (network(x) - 1).square().mean().backward()
        optimizer.step()
    dead = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not dead, f"every weight must have a gradient, got none for {', '.join(dead)}"


def awake(network: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Move every weight a little, so that no output is zero only because its weights start there."""
    generator = _generator(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=generator)
    return network


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
        assert whole.std() > 0, "the law needs a network that answers, got a constant"
        pieces = tiled(network, x, tile, radius, stride)
    assert pieces.shape == whole.shape, f"tiles must cover {tuple(whole.shape)}, got {tuple(pieces.shape)}"
    off = float((pieces - whole).abs().max() / whole.abs().max())
    assert off < 1e-5, f"tiles of {tile} must give the numbers of the whole of {size}, got a difference of {off:.2g}"


def check_any_size(
    network: torch.nn.Module, n_channels: int, stride: int, size: tuple[int, int], n_outputs: int = 1
) -> None:
    """An image of any size is treated as if mirrored below and to the right up to a multiple of the stride."""
    x = torch.randn(1, n_channels, *size, generator=_generator(0))
    below, right = -size[0] % stride, -size[1] % stride
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (0, below), (0, right)), mode="reflect")
    with torch.no_grad():
        out = network(x)
        wanted = network(torch.from_numpy(padded))[..., : size[0], : size[1]]
    assert out.shape == (1, n_outputs, *size), f"an image of {size} must keep its size, got {tuple(out.shape)}"
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


def _samples(case: Case, seed: int, size: int, batch: int) -> Tensor:
    size = case.size or size
    return torch.randn(batch, case.split.n_parts, case.split.n_slices, size, size, generator=_generator(seed))


def _scene(case: Case, seed: int, size: int) -> tuple[Tensor, Tensor]:
    """Return smooth parts ``(part, slice, y, x)``, all alike, and those wanted of them ``(1, output, y, x)``."""
    split, size = case.split, case.size or size
    wave = torch.arange(size) / size + torch.rand((2, split.n_slices, 1), generator=_generator(seed))
    y, x = 0.25 * torch.cos(2 * torch.pi * wave)
    scene = 0.5 + y[:, :, None] + x[:, None, :]
    return scene.expand(split.n_parts, -1, -1, -1), scene[_wanted(split)][None]


def _wanted(split: Split) -> list[int]:
    """Return the slices of a sample that are denoised: the middle one, of every channel; all of a volume."""
    window = split.neighbourhood
    if split.n_outputs == split.n_slices:
        return list(range(split.n_slices))
    if window.channels > 1:
        return [channel * window.slices + window.slices // 2 for channel in range(window.channels)]
    return [split.n_slices // 2]


def _noise(case: Case, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return noise in every part that is not clean; unless white, shared by neighbours, as in reconstructions.

    Steps of a series were measured one after the other and share none.
    """
    noise = SD * torch.randn(shape, generator=generator)
    noise[:, case.split.n_parts - case.split.n_clean :] = 0
    if case.white:
        return noise
    noise = noise + 0.6 * noise.roll(1, -1) + 0.4 * noise.roll(1, -2)
    stacks = noise.unflatten(-3, (case.split.neighbourhood.times, -1))
    return (stacks + 0.3 * stacks.roll(1, -3) if stacks.shape[-3] > 1 else stacks).flatten(-4, -3)


def _among(image: Tensor, images: list[Tensor]) -> bool:
    """Return whether one of the images is this one."""
    alike = [other for other in images if other.shape == image.shape]
    return bool(alike) and float((torch.stack(alike) - image).abs().flatten(1).amax(dim=1).min()) < 1e-5


def _behind(x: Tensor, samples: Tensor, seed: int, times: int = 1) -> Tensor:
    """Return what of the samples the image `x` is made of, whole parts if there are several, in the samples' shape.

    A part of a series holds a measurement of each of its `times`.  The weights are random, so that nothing cancels.
    """
    weights = torch.rand(x.shape, generator=_generator(seed)) + 0.5
    gradient = torch.autograd.grad((x * weights).sum(), samples, retain_graph=True)[0].abs()
    if samples.shape[1] > 1:
        steps = gradient.unflatten(2, (times, -1))
        gradient = steps.amax(dim=(3, 4, 5), keepdim=True).expand_as(steps).flatten(2, 3)
    return gradient > 1e-6


def _turned_if(x: Tensor, across: bool) -> Tensor:
    return x.transpose(-1, -2).contiguous() if across else x


def sizes(*lengths: int) -> list[tuple[int, int]]:
    """Return every pair of lengths."""
    return list(itertools.product(lengths, repeat=2))


def same_weights(one: torch.nn.Module, other: dict[str, Any]) -> bool:
    """Whether a network holds exactly these weights."""
    own = one.state_dict()
    return own.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in own.items())
