"""Noise2Projection: views predicted by those that were seen, turned objects; the laws are in test_laws.py."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import quietray
from checks import check_adjoint, check_gradient
from matrix import beam
from quietray.errors import GeometryError, SettingsError
from quietray.networks import UNet
from quietray.operators.astra import ParallelProjector
from quietray.reconstruct.analytic import FBP
from quietray.running.settings import Training
from quietray.splits.equivariant import rotated
from quietray.splits.projected import Noise2Projection, _FilteredBackprojection
from quietray.training.loop import TrainingData, fit
from quietray.training.sinograms import TrainingSinograms


def blobs(size: int = 32, seed: int = 0) -> Tensor:
    """A smooth object within the disc, ``(1, 1, size, size)``."""
    rng = np.random.default_rng(seed)
    y, x = (np.mgrid[:size, :size] - (size - 1) / 2) / (size / 2)
    image = sum(np.exp(-((y - b) ** 2 + (x - a) ** 2) / 0.05) for a, b in rng.uniform(-0.45, 0.45, (3, 2)))
    return torch.from_numpy(np.asarray(image, np.float32))[None, None]


@pytest.mark.parametrize(
    "geometry", [beam(6, 2, 14), beam(5, 1, 15, rotation_axis=6.0, pixel_size=0.1), beam(9)[np.arange(9) % 3 > 0]]
)
def test_backprojection_with_its_filter_is_an_operator(geometry: quietray.ParallelBeam) -> None:
    A = _FilteredBackprojection(geometry)
    check_adjoint(A)
    check_gradient(A)
    y = np.random.default_rng(0).standard_normal(A.domain_shape).astype(np.float32)
    assert np.array_equal(A(y), FBP()(ParallelProjector(geometry), y))


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_what_is_seen_is_reconstructed_from_the_other_views_with_their_own_angles(parts: int) -> None:
    geometry = beam(10, 2, 16)
    sinograms = np.random.default_rng(0).standard_normal((2, 10, 16)).astype(np.float32)
    split = Noise2Projection(parts).on(geometry)
    samples = torch.from_numpy(sinograms)[:, None, None]
    met = set()
    for seed in range(20):
        pair = split.draw(samples, torch.Generator().manual_seed(seed))
        left_out = next(j for j in range(parts) if torch.equal(pair.target[:, 0], samples[:, 0, 0, j::parts]))
        seen = np.array([view for view in range(10) if view % parts != left_out])
        fbp = FBP()(ParallelProjector(geometry[seen]), sinograms[:, seen])
        assert np.allclose(pair.input[:, 0].numpy(), fbp, atol=1e-5)
        image = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
        projected = ParallelProjector(geometry[left_out::parts])(image[:, 0].numpy())
        assert np.allclose(pair.measure(image)[:, 0].numpy(), projected, atol=1e-5)
        met.add(left_out)
    assert met == set(range(parts))


def test_inference_is_the_mean_over_the_views_left_out() -> None:
    geometry = beam(12, 1, 16)
    sinogram = np.random.default_rng(0).standard_normal((1, 12, 16)).astype(np.float32)
    found = Noise2Projection(3).on(geometry).infer(lambda x: x, torch.from_numpy(sinogram)[:, None, None])
    assert np.allclose(found[:, 0].numpy(), FBP()(ParallelProjector(geometry), sinogram), atol=1e-4)


def test_views_count_by_their_variance() -> None:
    variance = torch.rand(6, 8, generator=torch.Generator().manual_seed(0)) + 0.5
    pair = (
        Noise2Projection(2)
        .on(beam(6, n_cols=8), variance)
        .draw(torch.zeros(1, 1, 1, 6, 8), torch.Generator().manual_seed(0))
    )
    product = [pair.weight[0, 0] * variance[j::2] for j in range(2)]
    assert any(bool(torch.allclose(p, p[:1, :1].expand_as(p))) for p in product)
    assert float(pair.weight.max()) == 1


@pytest.mark.parametrize("angle", [0.3, 1.2, -2.0])
def test_a_turned_object_projects_as_the_object_does_at_turned_angles(angle: float) -> None:
    image = blobs()
    geometry = beam(5, 1, 32)
    turned = rotated(image, torch.tensor([angle]))
    other = quietray.ParallelBeam(geometry.angles - angle, 1, 32)
    one, two = (ParallelProjector(g)(x[0].numpy()) for g, x in ((geometry, turned), (other, image)))
    assert np.abs(one - two).max() < 0.03 * two.max()
    assert np.abs(one - ParallelProjector(geometry)(image[0].numpy())).max() > 0.2 * two.max()


def test_every_image_is_turned_by_its_own_angle() -> None:
    images = torch.cat((blobs(seed=0), blobs(seed=1)))
    angles = torch.tensor([0.5, -1.0])
    both = rotated(images, angles)
    for k in range(2):
        assert torch.allclose(both[k : k + 1], rotated(images[k : k + 1], angles[k : k + 1]))
    # a quarter turn anticlockwise, and nothing outside the disc
    quarter = rotated(images, torch.full((2,), math.pi / 2))
    inside = rotated(torch.ones(1, 1, 32, 32), torch.zeros(1)) > 0
    assert torch.allclose(quarter, torch.rot90(images, 1, (-2, -1)) * inside, atol=1e-4)
    assert float(inside.float().mean()) == pytest.approx(math.pi / 4, abs=0.02)


def test_the_loss_of_turned_objects_is_added_by_its_weight() -> None:
    """By hand: the object turned, projected, reconstructed and sent through the network once more."""
    geometry = beam(8, 1, 16)
    samples = torch.rand(1, 1, 1, 8, 16, generator=torch.Generator().manual_seed(0))

    def network(x: Tensor) -> Tensor:
        return torch.tanh(x) + 0.1

    one = torch.ones(1, 1, 1, 1)
    pair = Noise2Projection(2, equivariance=3.0).on(geometry).draw(samples, torch.Generator().manual_seed(1))
    plain = Noise2Projection(2).on(geometry).draw(samples, torch.Generator().manual_seed(1))
    assert torch.equal(plain.input, pair.input)
    seen = 0 if torch.equal(pair.target[0, 0], samples[0, 0, 0, 1::2]) else 1
    A = ParallelProjector(geometry[seen::2])
    angle = 2 * math.pi * torch.rand(1, generator=_after_one_integer(1))
    turned = rotated(network(pair.input), angle)
    again = network(torch.from_numpy(FBP()(A, A(turned[:, 0].numpy())))[:, None])
    term = (again - turned).square().mean()
    wanted = plain.loss(network, one) + 3 * term
    assert pair.loss(network, one).item() == pytest.approx(wanted.item(), rel=1e-4)
    assert pair.to(torch.device("cpu")).loss(network, one).item() == pytest.approx(wanted.item(), rel=1e-4)


def _after_one_integer(seed: int) -> torch.Generator:
    generator = torch.Generator().manual_seed(seed)
    torch.randint(2, (), generator=generator)
    return generator


def test_what_all_views_agree_on_costs_nothing() -> None:
    """A network that knows the object has no error but the noise, and is judged so."""
    image, geometry = blobs(), beam(16, 1, 32)
    sinogram = torch.from_numpy(ParallelProjector(geometry)(image[0].numpy()))[None, None]
    noise = 0.3 * torch.randn(40, 1, 1, 16, 32, generator=torch.Generator().manual_seed(0))
    split = Noise2Projection(4).on(geometry, torch.full((16, 32), 0.09))

    def network(x: Tensor) -> Tensor:
        return image.expand_as(x)

    pair = split.draw(sinogram + noise, torch.Generator().manual_seed(0))
    assert pair.loss(network, torch.ones(1, 1, 1, 1)).item() == pytest.approx(0.09, rel=0.05)
    judged = split.judge(network, sinogram + noise, torch.ones(1, 1, 1, 1))
    assert judged.error == pytest.approx(0, abs=0.005)
    assert judged.noise > 0.4, "backprojection of 12 noisy views predicts the others badly"
    unknown = Noise2Projection(4).on(geometry).judge(network, sinogram + noise, torch.ones(1, 1, 1, 1))
    assert unknown.error == pytest.approx(0, abs=0.01)


@pytest.fixture(scope="module")
def few_views() -> tuple[quietray.ParallelBeam, np.ndarray, np.ndarray, np.ndarray]:
    """Geometry, noisy and clean sinograms, and the truth, of foam in 20 views at 500 photons, about [0, 1]."""
    foam = quietray.Foam.packed(20, 0.5, np.random.default_rng(0), largest=0.25)
    geometry = beam(20, 12, 48)
    scan = quietray.acquire(foam, geometry, photons=500.0)
    clean = np.asarray(scan.clean[:]).swapaxes(0, 1)
    counts = np.random.default_rng(0).poisson(500 * np.exp(-clean))
    truth = np.asarray(scan.truth[:])
    scale = np.float32(np.percentile(truth, 98))
    noisy = -np.log(np.clip(counts, 1, None) / 500).astype(np.float32)
    return geometry, noisy / scale, (clean / scale).astype(np.float32), truth / scale


@pytest.mark.slow
def test_training_on_views_that_were_left_out_improves_on_backprojection(few_views: Any) -> None:
    geometry, noisy, clean, truth = few_views
    split = Noise2Projection(parts=4).on(geometry, torch.full((20, 48), float(np.square(noisy - clean).mean())))
    data = TrainingSinograms.with_held_out(noisy)
    settings = Training(steps=200, batch=4, precision="fp32", judgements=4, patience=1.0)
    fitted = fit(split, lambda: UNet((8, 16)).build(1), data, settings)
    with torch.no_grad():
        found = split.infer(fitted.network, torch.from_numpy(noisy)[:, None, None])[:, 0].numpy()
    y, x = np.mgrid[:48, :48] - 23.5
    disc = np.hypot(y, x) < 24
    error, before = (
        float(np.square(v - truth)[:, disc].mean()) for v in (found, FBP()(ParallelProjector(geometry), noisy))
    )
    assert error < 0.65 * before

    held = list(data.held_out_rows)
    with torch.no_grad():
        predicted = split.predict(fitted.network, torch.from_numpy(noisy[held])[:, None, None])[:, 0].numpy()
    true = float(np.square(predicted - clean[held]).mean())
    assert fitted.best.error == pytest.approx(true, rel=0.15)
    assert fitted.best.error < 0.7 * fitted.best.noise


def test_rows_that_are_held_out_are_never_trained_on() -> None:
    sinograms = np.arange(20, dtype=np.float32)[:, None, None] * np.ones((1, 3, 4), np.float32)
    data = TrainingSinograms.with_held_out(sinograms, share=0.2)
    assert isinstance(data, TrainingData)
    drawn, weight = data.draw(500, 128, torch.Generator().manual_seed(0))
    assert drawn.shape == (500, 1, 1, 3, 4)
    rows = {int(row) for row in drawn[:, 0, 0, 0, 0]}
    held = [int(samples[0, 0, 0, 0, 0]) for samples, _ in data.held_out()]
    assert len(held) == 4
    assert rows | set(held) == set(range(20))
    assert not rows & set(held)
    assert weight.expand(500, 1, 2, 4).min() == 1
    assert len(list(data.held_out(24))) == 2


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Noise2Projection(1), SettingsError, "parts must be at least 2"),
        (lambda: Noise2Projection(equivariance=-1.0), SettingsError, "equivariance must be at least 0"),
        (lambda: Noise2Projection(4).on(beam(3)), GeometryError, "at least 4 views"),
        (lambda: Noise2Projection(2).on(beam(4), torch.ones(4, 3)), GeometryError, "variance must have shape"),
        (lambda: Noise2Projection(2).on(beam(4), torch.zeros(4, 16)), GeometryError, "variance must be positive"),
        (lambda: TrainingSinograms.with_held_out(np.zeros((1, 4, 4), np.float32)), GeometryError, "at least 2 rows"),
        (
            lambda: Noise2Projection().infer(lambda x: x, torch.zeros(1, 1, 1, 8, 8)),
            SettingsError,
            "must have the scan's geometry",
        ),
        (
            lambda: Noise2Projection(2).on(beam(4)).infer(lambda x: x, torch.zeros(1, 1, 1, 5, 16)),
            GeometryError,
            "must have shape",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()


def test_the_scan_is_no_setting() -> None:
    split = Noise2Projection(3, 0.5).on(beam(6))
    assert quietray.settings.to_dict(split) == {"parts": 3, "equivariance": 0.5}
    assert split == Noise2Projection(3, 0.5)
