"""SIRT, CGLS and TV: what they converge to, what they keep to, and how held-out views choose for them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from quietray.errors import GeometryError, SettingsError
from quietray.geometry import FanBeam, ParallelBeam
from quietray.operators.astra import FanProjector, ParallelProjector, SliceProjector
from quietray.operators.linear import LinearOperator
from quietray.operators.sparse import SparseProjector, many_slices
from quietray.reconstruct.analytic import FBP
from quietray.reconstruct.choose import chosen, held_out_every
from quietray.reconstruct.iterative import CGLS, SIRT
from quietray.reconstruct.variational import TV, divergence, gradient

ALGORITHMS = [SIRT(iterations=60), CGLS(iterations=12), TV(weight=0.02, iterations=100)]


def beam(n_views: int = 24, n_rows: int = 2, n_cols: int = 24, pixel_size: float | None = None) -> ParallelBeam:
    angles = np.linspace(0, np.pi, n_views, endpoint=False)
    return ParallelBeam(angles, n_rows, n_cols, pixel_size=pixel_size)


def blocks(n_rows: int = 2, n: int = 24) -> np.ndarray:
    """Return slices that differ, with sharp edges."""
    x = np.zeros((n_rows, n, n), np.float32)
    for z in range(n_rows):
        x[z, 6 : 14 + z, 8:17] = 0.5 + 0.1 * z
        x[z, 9:12, 10:13] = 1.0
    return x


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda each: type(each).__name__)
def test_slices_do_not_depend_on_each_other(algorithm: SIRT | CGLS | TV) -> None:
    x = blocks(3)
    A, one = ParallelProjector(beam(n_rows=3)), ParallelProjector(beam(n_rows=1))
    y = A(x) + np.random.default_rng(0).normal(0, 0.2, A.range_shape).astype(np.float32)
    y[1] *= 5  # one slice of another size must not change the steps of the others, nor their weight
    together, scale = algorithm(A, y), 1e-5 * np.abs(y).max()
    if isinstance(algorithm, TV):  # the steps of TV are those of the geometry
        np.testing.assert_allclose(together[0], algorithm(one, y[:1])[0], atol=scale)
    for z in range(3):
        np.testing.assert_allclose(together[z], algorithm(one, y[z : z + 1])[0], atol=scale)


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda each: type(each).__name__)
def test_units_follow_the_pixel_size(algorithm: SIRT | CGLS | TV) -> None:
    x = blocks()
    if isinstance(algorithm, TV):
        algorithm = TV(weight=0.0, iterations=100)  # the weight has a unit of its own
    pixels, mm = (algorithm(A, A(x)) for A in map(ParallelProjector, (beam(), beam(pixel_size=0.02))))
    np.testing.assert_allclose(pixels, mm, atol=2e-4)


def test_cgls_finds_the_least_squares_solution() -> None:
    A = ParallelProjector(beam(n_views=40, n_rows=1, n_cols=10))
    y = np.random.default_rng(0).normal(0, 1, A.range_shape).astype(np.float32)
    matrix = A.matrix().toarray().astype(np.float64)
    residual = y.ravel() - matrix @ np.linalg.lstsq(matrix, y.ravel().astype(np.float64), rcond=None)[0]
    found = y - A(CGLS(iterations=300)(A, y))
    np.testing.assert_allclose(found.ravel(), residual, atol=0.02 * np.abs(residual).max())


def test_sirt_goes_where_cgls_goes_and_stays_in_the_box() -> None:
    A = SparseProjector(ParallelProjector(beam(n_views=60, n_rows=1, n_cols=16)))
    x = np.zeros((1, 16, 16), np.float32)
    x[0, 5:10, 6:11] = 1
    y = A(x) + np.random.default_rng(0).normal(0, 0.3, A.range_shape).astype(np.float32)
    least, sirt = (float(np.square(A(each(A, y)) - y).sum()) for each in (CGLS(iterations=100), SIRT(iterations=600)))
    assert least <= sirt < 1.05 * least
    boxed = SIRT(iterations=100, box=(0.0, 1.0))(A, y)
    assert boxed.min() == 0.0
    assert boxed.max() == 1.0
    assert np.square(boxed - x).mean() < 0.7 * np.square(SIRT(iterations=100)(A, y) - x).mean()


def test_tv_minimises_its_functional() -> None:
    A = SparseProjector(ParallelProjector(beam(n_views=12, n_rows=1)))
    y = A(blocks(1)) + np.random.default_rng(0).normal(0, 0.3, A.range_shape).astype(np.float32)

    def functional(x: np.ndarray, weight: float) -> float:
        variation = gradient(torch.from_numpy(x), (1, 2)).square().sum(dim=0).sqrt().sum()
        return float(0.5 * np.square(A(x) - y).sum() + weight * variation)

    rng = np.random.default_rng(1)
    for weight in (0.05, 0.5):
        x = TV(weight=weight, iterations=400)(A, y)
        least = functional(x, weight)
        for scale in (0.001, 0.01):
            for _ in range(10):
                aside = x + scale * rng.normal(0, 1, x.shape).astype(np.float32)
                assert functional(aside, weight) > least
        for factor in (0.98, 1.02):
            assert functional(np.float32(factor) * x, weight) > least
        other = weight * 10 if weight < 0.1 else weight / 10
        assert functional(TV(weight=other, iterations=40)(A, y), weight) > least


def test_gradient_and_divergence_are_adjoint() -> None:
    generator = torch.Generator().manual_seed(0)
    for axes in ((1, 2), (0, 1, 2)):
        x = torch.randn(3, 4, 5, generator=generator)
        q = torch.randn(len(axes), 3, 4, 5, generator=generator)
        assert torch.isclose((gradient(x, axes) * q).sum(), -(x * divergence(q, axes)).sum(), atol=1e-4)


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda each: type(each).__name__)
def test_warm_start_callback_and_tensors(algorithm: SIRT | CGLS | TV) -> None:
    A, x = ParallelProjector(beam()), blocks()
    y, seen = A(x), []
    stopped = algorithm(A, y, callback=lambda k, volume: seen.append((k, float(np.abs(volume).max()))) or k == 5)
    assert [k for k, _ in seen] == [1, 2, 3, 4, 5]
    assert np.abs(stopped - x).mean() < np.abs(x).mean()
    from_there, cold = (algorithm(A, y, start=start, callback=lambda k, _: k == 2) for start in (stopped, None))
    assert np.abs(from_there - x).mean() < np.abs(cold - x).mean()
    kept = stopped.copy()
    algorithm(A, y, start=stopped)
    np.testing.assert_array_equal(stopped, kept)  # where it started from is not written to
    as_tensor = algorithm(A, torch.from_numpy(y), callback=lambda k, _: k == 5)
    assert isinstance(as_tensor, torch.Tensor)
    np.testing.assert_array_equal(as_tensor.numpy(), stopped)


def test_the_sparse_matrix_is_the_projector() -> None:
    projector = ParallelProjector(beam(n_rows=5, pixel_size=0.3))
    A, rng = SparseProjector(projector, threads=2), np.random.default_rng(0)
    x, y = rng.random(A.domain_shape, np.float32), rng.random(A.range_shape, np.float32)
    np.testing.assert_allclose(A(x), projector(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(A.T(y), projector.T(y), rtol=1e-4, atol=1e-4)
    assert isinstance(many_slices(projector), SparseProjector)
    assert many_slices(ParallelProjector(beam(n_rows=1))).range_shape == (1, 24, 24)
    assert isinstance(many_slices(ParallelProjector(beam(n_views=2000, n_cols=1000, n_rows=4))), ParallelProjector)


@pytest.mark.parametrize("kind", [ParallelBeam, FanBeam])
@pytest.mark.parametrize("pixel_size", [None, 0.3])
def test_filtered_backprojection_takes_the_matrix_for_the_projector(kind: type, pixel_size: float | None) -> None:
    if kind is FanBeam:
        turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        geometry: ParallelBeam | FanBeam = FanBeam(turn, 5, 24, 60.0, 90.0, rotation_axis=10.5, pixel_size=pixel_size)
        projector: SliceProjector = FanProjector(geometry, geometry.grid((2, 20, 4, 24)))
    else:
        geometry = dataclasses.replace(beam(40, 5, pixel_size=pixel_size), rotation_axis=10.5)
        projector = ParallelProjector(geometry, geometry.grid((2, 20, 4, 24)))
    A = many_slices(projector)
    assert isinstance(A, SparseProjector)
    y = np.random.default_rng(0).random(A.range_shape, np.float32)
    for n in (5, 3):
        here, there = (each.with_slices(n) for each in (A, projector))
        found, wanted = (FBP()(each, np.ascontiguousarray(y[:n])) for each in (here, there))
        np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
        assert here.geometry == there.geometry == geometry.rows(n)
    with pytest.raises(GeometryError, match="sinograms must have shape"):
        FBP()(A, y[:1])


@pytest.mark.parametrize(
    "algorithm",
    [SIRT(), CGLS(), pytest.param(TV(iterations=60), marks=pytest.mark.slow)],
    ids=lambda each: type(each).__name__,
)
def test_held_out_views_choose_nearly_what_the_truth_would(algorithm: SIRT | CGLS | TV) -> None:
    geometry, x = beam(n_views=32, n_rows=4), blocks(4)

    def project(views: np.ndarray) -> LinearOperator:
        return many_slices(ParallelProjector(geometry[views]))

    A, rng = project(np.arange(32)), np.random.default_rng(0)
    y = A(x) + rng.normal(0, 0.5, A.range_shape).astype(np.float32)
    found = chosen(algorithm, project, y)
    errors: list[float] = []
    if isinstance(algorithm, TV):
        errors = [float(np.square(TV(weight, 60)(A, y) - x).mean()) for weight in 0.01 * 2.0 ** np.arange(12)]
    else:  # more iterations go on from fewer, so that the longest run shows all of them
        type(algorithm)(iterations=200)(
            A, y, callback=lambda k, volume: errors.append(float(np.square(volume - x).mean()))
        )
    assert np.square(found(A, y) - x).mean() < 1.25 * min(errors)
    assert min(errors) < 0.7 * min(errors[0], errors[-1])  # there was something to choose
    assert chosen(found, project, y) is found


def test_views_are_held_out_of_every_pair_that_takes_turns() -> None:
    angles = np.linspace(0, np.pi, 64)
    np.testing.assert_array_equal(held_out_every(angles, np.zeros(64, int))[1], np.arange(4, 64, 8))
    np.testing.assert_array_equal(held_out_every(angles)[1], np.arange(4, 64, 8))
    for n_pairs, apart in ((2, np.pi / 2), (3, 2 * np.pi / 3)):
        detectors, turned = (
            np.arange(240 * n_pairs) % n_pairs,
            np.repeat(np.linspace(0, 2 * np.pi, 240, False), n_pairs),
        )
        angles = turned + apart * detectors
        seen, held = held_out_every(angles, detectors)
        np.testing.assert_array_equal(np.sort(np.concatenate([seen, held])), np.arange(240 * n_pairs))
        assert np.bincount(detectors[held]).tolist() == [30] * n_pairs
        directions = np.sort(np.mod(angles[held], 2 * np.pi))
        gaps = np.diff(directions, append=directions[0] + 2 * np.pi) / (2 * np.pi / 240)
        assert gaps.min() > 1.5  # no direction is held out twice
        assert gaps.max() < 4.5
    # a pair of two views has none to spare; three pairs of three views have one each
    np.testing.assert_array_equal(held_out_every(np.arange(8.0), np.arange(8) // 6)[1], [4])
    three = np.repeat(np.arange(3), 3)
    assert np.bincount(three[held_out_every(np.arange(9.0), three)[1]]).tolist() == [1, 1, 1]


def test_the_choice_is_told_by_every_pair() -> None:
    geometry, detectors, asked = beam(n_views=48), np.arange(48) % 2, []

    def project(views: np.ndarray) -> LinearOperator:
        asked.append(views)
        return SparseProjector(ParallelProjector(geometry[views]))

    A = ParallelProjector(geometry)
    chosen(SIRT(), project, A(blocks()), held_out_every(geometry.angles, detectors))
    seen, held = asked
    assert np.bincount(detectors[seen]).tolist() == [21, 21]
    assert np.bincount(detectors[held]).tolist() == [3, 3]


def test_what_is_wrong_is_said() -> None:
    A = ParallelProjector(beam())
    y = np.zeros(A.range_shape, np.float32)
    for algorithm in (SIRT(), CGLS(), TV()):
        with pytest.raises(SettingsError, match="must be known, got None"):
            algorithm(A, y)
    with pytest.raises(GeometryError, match="data must have shape"):
        SIRT(iterations=1)(A, y[:1])
    with pytest.raises(GeometryError, match="volume to start from must have shape"):
        SIRT(iterations=1)(A, y, start=y[:, :1])
    for make, said in (
        (lambda: SIRT(relaxation=2.0), "below 2"),
        (lambda: SIRT(box=(1.0, 1.0)), "least and a largest"),
        (lambda: CGLS(iterations=0), "at least 1"),
        (lambda: TV(weight=-1.0), "0 or more"),
    ):
        with pytest.raises(SettingsError, match=said):
            make()
    with pytest.raises(GeometryError, match="at least 3 views"):
        held_out_every(np.zeros(2))
