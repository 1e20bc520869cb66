"""The channelised Hotelling observer, against what an ideal one can do."""

import numpy as np
import pytest
from scipy import ndimage

from quietray.errors import GeometryError, SettingsError
from quietray.metrics.observer import detectability, laguerre_gauss

SIZE, WIDTH = 33, 10.0
CHANNELS = laguerre_gauss(SIZE, WIDTH, 4)


def white(count: int, seed: int, sd: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, sd, (count, SIZE, SIZE))


@pytest.mark.parametrize("sd", [0.5, 2.0])
def test_in_white_noise_the_index_is_the_energy_that_channels_see(sd: float) -> None:
    detail = 0.4 * (np.hypot(*(np.indices((SIZE, SIZE)) - SIZE // 2)) <= 4)
    seen = np.linalg.norm(CHANNELS.reshape(4, -1) @ detail.ravel()) / sd
    found = detectability(detail + white(1500, 1, sd), white(3000, 2, sd), CHANNELS)
    assert found.square == pytest.approx(seen**2, abs=4 * found.error)
    assert seen < np.linalg.norm(detail) / sd, "no observer is better than the ideal one"
    assert found.error < 0.1 * seen**2 + 0.02


def test_it_whitens_correlated_noise() -> None:
    """The formula with the true covariance, of noise that neighbours share."""
    kernel = np.zeros((SIZE, SIZE))
    kernel[SIZE // 2, SIZE // 2] = 1
    detail = 3 * CHANNELS[0] + 2 * CHANNELS[1]

    def blurred(count: int, seed: int) -> np.ndarray:
        return ndimage.gaussian_filter(white(count, seed), (0, 1.5, 1.5), mode="wrap")

    flat = CHANNELS.reshape(4, -1)
    blurred_channels = ndimage.gaussian_filter(CHANNELS, (0, 1.5, 1.5), mode="wrap").reshape(4, -1)
    shift = flat @ detail.ravel()
    true = float(np.sqrt(shift @ np.linalg.solve(blurred_channels @ blurred_channels.T, shift)))
    found = detectability(detail + blurred(2000, 1), blurred(4000, 2), CHANNELS)
    assert found.index == pytest.approx(true, rel=0.05)


def test_few_images_do_not_inflate_it() -> None:
    """Ten images with and forty without the detail, as often as it takes to see a bias."""
    detail = 1.5 * CHANNELS[0]
    squares = [detectability(detail + white(10, 3 * k, 1.0), white(40, 3 * k + 1), CHANNELS) for k in range(200)]
    values = [one.square for one in squares]
    assert np.mean(values) == pytest.approx(1.5**2, rel=0.1)
    assert np.mean([one.error for one in squares]) == pytest.approx(np.std(values), rel=0.3), "and it knows its error"


def test_nothing_to_see_is_seen_as_nothing() -> None:
    found = [detectability(white(50, 5 * k), white(200, 5 * k + 1), CHANNELS) for k in range(20)]
    assert abs(np.mean([one.square for one in found])) < 0.05
    assert abs(np.mean([one.contrast for one in found])) < 0.02


def test_a_filter_that_wipes_a_detail_out_lowers_the_index_though_the_noise_falls() -> None:
    detail = 0.8 * (np.hypot(*(np.indices((SIZE, SIZE)) - SIZE // 2)) <= 4)
    present, absent = detail + white(400, 1), white(800, 2)
    before = detectability(present, absent, CHANNELS)
    # a median cuts off what few pixels stand out by, here most of it
    wiped = [0.02 * x + 0.3 * np.random.default_rng(9).normal(0, 1, x.shape) for x in (present, absent)]
    after = detectability(wiped[0], wiped[1], CHANNELS)
    assert wiped[1].std() < 0.5 * absent.std()
    assert after.index < 0.3 * before.index


@pytest.mark.parametrize(
    ("call", "words", "kind"),
    [
        (lambda: laguerre_gauss(9, 0.0), "positive width", SettingsError),
        (lambda: detectability(white(5, 0)[:, 1:], white(40, 1), CHANNELS), "channels' shape", GeometryError),
        (lambda: detectability(white(5, 0), white(7, 1), CHANNELS), "at least 8 images without", GeometryError),
    ],
)
def test_what_cannot_be_judged_is_refused(call, words: str, kind: type) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(kind, match=words):
        call()
