"""Blind spots: what is hidden cannot be seen, dead pixels count nowhere, every pixel is hidden once."""

from __future__ import annotations

import dataclasses
import tempfile

import numpy as np
import pytest
import torch
from torch import Tensor

import quietray
from quietray import Settings, Training, UNet
from quietray.errors import SettingsError
from quietray.simulate.noise import Scintillator
from quietray.splits import SPLITS
from quietray.splits.filling import donut, filled, noise_variance
from quietray.splits.masked import Noise2Self, Noise2Void

pytestmark = pytest.mark.usefixtures("short_report")


def learning(steps: int, whiten: str = "always", method: Noise2Self | Noise2Void | None = None) -> Settings:
    """Return settings of a small network, in the precision in which what is claimed below was measured."""
    training = Training(steps=steps, patch=48, learning_rate=4e-3, average=0.95, precision="fp32")
    return Settings(
        method=method or Noise2Self(),
        whiten=whiten,  # type: ignore[arg-type]
        symmetries=1,
        network=UNet((16, 32)),
        training=training,
    )


ROWS = [
    Noise2Self(),
    Noise2Self(grid=3),
    Noise2Self(grid=6, footprint=2),
    Noise2Self(inference="masked"),
    Noise2Void(),
    Noise2Void(share=1 / 9, reach=1),
]


def images(seed: int = 0, size: tuple[int, int] = (24, 20)) -> Tensor:
    return torch.rand(2, 1, 1, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("split", ROWS, ids=str)
def test_the_network_never_sees_a_target(split: Noise2Self | Noise2Void) -> None:
    """Neither does a dead pixel beside it, which is filled from around itself."""
    samples = images()
    samples[..., ::5, ::7] = torch.nan  # what is filled there must not tell either
    samples.requires_grad_()
    for seed in range(10):
        pair = split.draw(samples, torch.Generator().manual_seed(seed))
        targets = pair.weight > 0
        assert targets.any()
        (gradient,) = torch.autograd.grad(pair.input.sum(), samples)
        assert float(gradient[:, 0][targets].abs().max()) == 0
        assert not bool((pair.input == samples[:, 0])[targets].any())


def test_a_footprint_hides_all_of_its_neighbourhood() -> None:
    split = Noise2Self(grid=6, footprint=2)
    samples = images(3)
    pair = split.draw(samples, torch.Generator().manual_seed(0))
    for y, x in torch.nonzero(pair.weight[0, 0]).tolist()[:4]:
        if not (3 <= y < 21 and 3 <= x < 17):
            continue
        block = pair.input[0, 0, y - 2 : y + 3, x - 2 : x + 3]
        ring = samples[0, 0, 0, y - 3 : y + 4, x - 3 : x + 4].clone()
        expected = (ring.sum() - ring[1:-1, 1:-1].sum()) / 24
        assert torch.allclose(block, expected.expand_as(block))


@pytest.mark.parametrize("split", [Noise2Self(), Noise2Self(grid=3), Noise2Void(share=1 / 9)], ids=str)
def test_the_phases_hide_every_pixel_once(split: Noise2Self | Noise2Void) -> None:
    image = images()[:, 0]
    total = sum(split.hidden(image, index) for index in range(split.n_phases))
    assert torch.equal(torch.as_tensor(total), torch.ones_like(image))


def test_masked_inference_returns_what_the_network_says_of_hidden_pixels() -> None:
    split = Noise2Self(inference="masked")
    image = images()
    expected = filled(image[:, 0], donut())
    assert torch.allclose(split.infer(lambda x: x, image).double(), expected, atol=1e-6)
    assert torch.equal(Noise2Self().infer(lambda x: x, image), image[:, 0].float())


def test_the_filling_is_the_donut_and_mirrors_without_the_edge() -> None:
    image = torch.arange(12, dtype=torch.float64).reshape(1, 1, 3, 4)
    found = filled(image, donut())[0, 0]
    assert float(found[1, 1]) == pytest.approx((1 + 9 + 4 + 6 + 0.5 * (0 + 2 + 8 + 10)) / 6)
    # the corner: right and below count twice, itself never
    assert float(found[0, 0]) == pytest.approx((2 * 1 + 2 * 4 + 4 * 0.5 * 5) / 6)


def test_dead_pixels_enter_nothing() -> None:
    samples = images(5)
    spoiled = samples.clone()
    spoiled[:, :, :, 7, 9] = torch.nan
    for split in ROWS:
        for seed in range(20):
            pair = split.draw(spoiled, torch.Generator().manual_seed(seed))
            assert bool(torch.isfinite(pair.input).all())
            assert bool(torch.isfinite(pair.target).all())
            assert float(pair.weight[:, :, 7, 9].sum()) == 0
    around = filled(spoiled[:, 0], donut())[0, 0, 7, 8]
    near = samples[0, 0, 0]
    weights = (
        1 * (near[6, 8] + near[8, 8] + near[7, 7]) + 0.5 * (near[6, 7] + near[8, 7] + near[6, 9] + near[8, 9])
    ) / 5
    assert float(around) == pytest.approx(float(weights))
    assert bool(torch.isfinite(Noise2Self().infer(lambda x: x, spoiled)).all())


def test_the_judge_knows_the_error_of_a_known_denoiser() -> None:
    """Over white noise on a smooth image, a network that returns the truth plus an offset is judged as that offset."""
    truth = torch.linspace(0, 1, 128, dtype=torch.float64).expand(1, 1, 1, 128, 128)
    noise = 0.2 * torch.randn(1, 1, 1, 128, 128, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for offset in (0.0, 0.3):
        judged = Noise2Self().judge(
            lambda x, offset=offset: truth[:, 0] + offset, truth + noise, torch.ones(1, 1, 1, 1)
        )
        assert judged.noise == pytest.approx(0.04, rel=0.05)
        assert judged.error == pytest.approx(offset**2, abs=0.006)
        low, high = judged.interval()
        assert low < offset**2 < high


@pytest.mark.parametrize("reach", [0, 1, 2, 4])
def test_a_blind_spot_for_shared_noise_hides_it_and_leaves_enough_to_see(reach: int) -> None:
    split = Noise2Self.hiding(reach)
    assert split.footprint == reach
    samples = images(2, (3 * split.grid, 3 * split.grid)).requires_grad_()
    pair = split.draw(samples, torch.Generator().manual_seed(0))
    assert float((pair.input == samples[:, 0]).double().mean()) > 0.5
    y, x = next((y, x) for y, x in torch.nonzero(pair.weight[0, 0]).tolist() if min(y, x) >= split.grid)
    (gradient,) = torch.autograd.grad(pair.input.sum(), samples)
    assert not bool(gradient[0, 0, 0, y - reach : y + reach + 1, x - reach : x + reach + 1].any())


def test_the_judge_of_a_wide_blind_spot_knows_noise_that_neighbours_share() -> None:
    """Noise that is shared 2 pixels away, of variance 0.04: its differences between neighbours would tell far less."""
    white = torch.randn(4, 1, 202, 202, generator=torch.Generator().manual_seed(0))
    noise = 0.2 * 3 * torch.nn.functional.avg_pool2d(white, 3, 1)
    judged = Noise2Self.hiding(2).judge(lambda x: torch.full_like(x, 0.3), noise[:, None], torch.ones(1, 1, 1, 1))
    assert judged.noise == pytest.approx(0.04, rel=0.05)
    assert judged.error == pytest.approx(0.09, abs=0.006)
    assert abs(judged.correlation) < 0.1
    assert noise_variance(noise) < 0.02


def test_residuals_are_watched_at_all_lags_of_the_point_response() -> None:
    """A network that takes away what pixels three apart share leaves residuals that direct neighbours do not show."""
    noise = torch.randn(1, 1, 1, 200, 200, generator=torch.Generator().manual_seed(0))

    def fitting(x: Tensor) -> Tensor:
        return 0.3 * x.roll(3, 3)

    for method in (Noise2Self(), Noise2Void()):
        ones = torch.ones(1, 1, 1, 1)
        assert abs(method.judge(fitting, noise, ones).correlation) < 0.02
        watching = dataclasses.replace(method, watched=6)
        assert watching.judge(fitting, noise, ones).correlation == pytest.approx(-0.3 / 1.09, abs=0.03)
        assert abs(watching.judge(torch.zeros_like, noise, ones).correlation) < 0.03


def test_noise_variance_is_that_of_all_brightnesses_together() -> None:
    """Half of the image ten times as noisy as the other half, as behind a dense object."""
    noise = torch.randn(1, 1, 200, 200, generator=torch.Generator().manual_seed(0))
    dense = torch.arange(200) >= 100
    image = torch.where(dense, 3 + noise, 0.1**0.5 * noise)
    assert noise_variance(image) == pytest.approx(0.55, rel=0.07)
    image[..., 5, 5] = torch.nan
    assert noise_variance(image) == pytest.approx(0.55, rel=0.07)
    assert noise_variance(image[..., :2, :]) == 0


def test_noise_variance_is_not_moved_by_edges() -> None:
    image = 0.1 * torch.randn(1, 1, 200, 200, generator=torch.Generator().manual_seed(0))
    image[..., 100:] += 5
    assert noise_variance(image) == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Noise2Self(grid=1), "at least 2"),
        (lambda: Noise2Self(grid=4, footprint=2), "smaller than the grid"),
        (lambda: Noise2Void(share=0.9), "at most 0.25"),
        (lambda: Noise2Void(reach=0), "at least 1"),
        (lambda: Noise2Self(watched=0), "at least 1"),
    ],
)
def test_settings_are_checked(make: object, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        make()  # type: ignore[operator]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["noise2self", "noise2void"])
def test_radiographs_are_denoised_and_reconstructed(tmp_path, method: str) -> None:  # type: ignore[no-untyped-def]
    """The whole path on a correlated detector: whitened, denoised, written, reconstructed; better than the FBP."""
    foam = quietray.Foam.packed(20, 0.5, np.random.default_rng(0), largest=0.25)
    beam = quietray.ParallelBeam(np.linspace(0, np.pi, 40, endpoint=False), 40, 48, rotation_axis=23.5)
    model = Scintillator(gain=10.0, dark=100.0, response_width=0.5)
    scan = quietray.acquire(foam, beam, photons=100.0, n_flats=80, detector=model)
    result = quietray.denoise(scan, tmp_path / "out", learning(120, method=SPLITS[method]()))  # type: ignore[arg-type]
    assert any("raises the variance" in note for note in result.notes)
    assert result.metrics["method"]["settings"]["watched"] == 6, "the half-width of the point response"

    clean = np.asarray(scan.clean[:])
    white = quietray.read(tmp_path / "out" / "radiographs.h5")
    error = float(np.square(-np.log(white.projections[:]) - clean)[:, 5:-5, 5:-5].mean())
    noisy = -np.log(np.clip((scan.projections[:] - 100.0) / 1000, 0.01, None))
    whitened_noise = result.metrics["estimate"]["rmse_noisy"] ** 2
    assert error < 0.5 * whitened_noise
    assert error < float(np.square(noisy - clean)[:, 5:-5, 5:-5].mean())
    assert "point_response" in white.provenance
    before, after = result.gathered.cuts["axial"]
    assert np.asarray(result.volume[20])[8:40, 8:40] == pytest.approx(after[8:40, 8:40])
    assert after[20:28, 2:5].std() < before[20:28, 2:5].std()


@pytest.mark.slow
def test_the_floored_share_is_that_of_the_whitened_counts(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Few photons: whitening makes counts negative that were not, and they are counted."""
    foam = quietray.Foam.packed(20, 0.5, np.random.default_rng(0), largest=0.25)
    beam = quietray.ParallelBeam(np.linspace(0, np.pi, 24, endpoint=False), 40, 48, rotation_axis=23.5)
    model = Scintillator(gain=10.0, dark=100.0, response_width=0.5)
    scan = quietray.acquire(foam, beam, photons=6.0, n_flats=80, detector=model)
    floored = []
    for whiten in ("never", "always"):
        floored.append(quietray.denoise(scan, tmp_path / whiten, learning(2, whiten)).metrics["correction"]["floored"])
    assert floored[0] < 0.01
    assert floored[1] > max(0.01, 3 * floored[0])


@pytest.mark.slow
def test_noise2self_fails_on_correlated_noise_and_recovers_after_decorrelation() -> None:
    """The claim of Graas & Lucka at toy size: whitened is as good as never correlated, raw is 3 dB worse.

    PSNR is that of the radiographs without their mean error: at 6 photons the logarithm alone shifts them.
    """
    foam = quietray.Foam.packed(20, 0.5, np.random.default_rng(0), largest=0.25)
    beam = quietray.ParallelBeam(np.linspace(0, np.pi, 40, endpoint=False), 40, 48, rotation_axis=23.5)

    def quality(width: float, whiten: str) -> float:
        model = Scintillator(gain=10.0, dark=100.0, response_width=width)
        scan = quietray.acquire(foam, beam, photons=6.0, n_flats=200, detector=model)
        with tempfile.TemporaryDirectory() as folder:
            quietray.denoise(scan, folder, learning(400, whiten))
            found = -np.log(np.clip(quietray.read(f"{folder}/radiographs.h5").projections[:], 1e-6, None))
        clean = np.asarray(scan.clean[:])
        error = (found - clean)[:, 6:-6, 6:-6]
        return float(10 * np.log10(np.ptp(clean) ** 2 / error.var()))

    # Over five seeds of noise and network: whitened is -0.10 +- 0.15 dB from uncorrelated, and raw 5.4 +- 0.8 dB worse.
    uncorrelated, raw, whitened = quality(0.0, "never"), quality(0.5, "never"), quality(0.5, "always")
    assert abs(whitened - uncorrelated) < 0.6
    assert raw < whitened - 3
