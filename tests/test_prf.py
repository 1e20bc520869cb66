"""The point response: recovered, its two square roots, its errors, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from quietray.detector.response.prf import (
    PointResponse,
    estimate_point_response,
    point_response,
    unevenness,
)
from quietray.detector.response.roots import root_by_covariance, root_by_spectrum
from quietray.errors import NoiseError, SettingsError
from quietray.simulate.noise import Scintillator
from test_correlation import frames_of, measured, true_lags


def centred(kernel, size):
    out, c, r = np.zeros((size, size)), size // 2, kernel.shape[0] // 2
    q = min(c, r)
    out[c - q : c + q + 1, c - q : c + q + 1] = kernel[r - q : r + q + 1, r - q : r + q + 1]
    return out


@pytest.mark.parametrize("root", ["spectrum", "covariance"])
def test_the_kernel_is_recovered_from_40_frames_at_400_photons(root):
    detector = Scintillator(response_width=0.5)
    found = estimate_point_response(frames_of(detector, shape=(275, 774), seed=3), method="mean", root=root)
    truth = centred(detector.response, found.kernel.shape[0])
    assert np.abs(found.kernel - truth).max() <= 2e-3
    assert np.abs(found.kernel - truth).sum() < 0.04
    assert np.abs((found.kernel - truth) / found.errors).max() < 5
    assert found.kernel.sum() == pytest.approx(1)


def test_differences_tell_nearly_as_much_as_the_mean():
    """Pairs of frames three to six apart are worth 34 of 39 frames; of one distance, they were worth 25."""
    frames = frames_of(Scintillator(response_width=0.5), shape=(275, 387), seed=4)
    found = {method: estimate_point_response(frames, method=method) for method in ("differences", "mean")}
    truth = centred(Scintillator(response_width=0.5).response, found["mean"].kernel.shape[0])
    assert found["differences"].errors.max() < 1.09 * found["mean"].errors.max()
    for one in found.values():
        assert np.sqrt(np.mean(((one.kernel - truth) / one.errors) ** 2)) < 1.4
        assert np.abs(one.kernel - truth).max() < 4e-3


@pytest.mark.parametrize("root", [root_by_spectrum, root_by_covariance])
@pytest.mark.parametrize("width", [0.3, 0.5])
def test_roots_of_exact_lags(root, width):
    """The square root of h * h is h."""
    detector = Scintillator(response_width=width)
    kernel = root(true_lags(detector, 8))
    assert np.abs(kernel - centred(detector.response, kernel.shape[0])).max() < 1e-3


def test_the_two_roots_agree():
    correlation = measured(frames_of(Scintillator(response_width=0.5), shape=(256, 256)))
    by_spectrum, by_covariance = point_response(correlation), point_response(correlation, "covariance")
    small = by_covariance.kernel.shape[0]
    apart = centred(by_spectrum.kernel, small) - by_covariance.kernel
    assert np.abs(apart).max() < 2.5e-3
    assert np.abs(apart / by_covariance.errors).max() < 3


@pytest.mark.parametrize("window", [4, 6, 7, 8, 11, 15])
def test_windows_must_be_1_mod_4(window):
    correlation = measured(frames_of(Scintillator(response_width=0.3), 10, (96, 96)))
    with pytest.raises(SettingsError, match="1 mod 4"):
        point_response(correlation, "covariance", window)
    with pytest.raises(SettingsError, match="1 mod 4"):
        root_by_covariance(np.ones((window, window)))


@pytest.mark.parametrize(("window", "least", "most"), [(5, 0.01, 1.0), (9, 0.0, 0.2), (13, 0.0, 0.02)])
def test_what_a_window_leaves(window, least, most):
    """Correlation that is left when exact lags are cut to a window: 13 is enough for half a pixel."""
    lags = true_lags(Scintillator(response_width=0.5), 16)
    c, r = 16, window // 2
    kernel = root_by_covariance(lags[c - r : c + r + 1, c - r : c + r + 1])
    power = np.fft.fft2(np.fft.ifftshift(centred(lags, 63))).real
    transfer = np.fft.fft2(np.fft.ifftshift(centred(kernel, 63))).real
    white = np.fft.ifft2(power / transfer**2).real
    assert least <= abs(white.sum() / white[0, 0] - 1) <= most


@pytest.mark.parametrize("shape", [(2, 2), (4, 5), (3, 6)])
def test_even_kernels_are_refused(shape):
    with pytest.raises(NoiseError, match="odd sizes"):
        PointResponse(np.full(shape, 1 / np.prod(shape)))


def test_other_kernels_that_are_refused():
    with pytest.raises(NoiseError, match="sum 1"):
        PointResponse(np.ones((3, 3)))
    with pytest.raises(NoiseError, match="symmetric"):
        PointResponse(np.array([[0.1, 0.5, 0.4]]))
    third = PointResponse(np.full((1, 3), 1 / 3))  # zero at a third of the sampling frequency
    with pytest.raises(NoiseError, match=r"stay above 0\.005"):
        third.inverse()
    with pytest.raises(SettingsError, match="floor"):
        PointResponse(np.ones((1, 1)), floor=0.0)
    with pytest.raises(NoiseError, match="large enough"):
        point_response(measured(frames_of(Scintillator(), 10, (4, 64))))


def test_the_inverse_undoes_the_kernel():
    response = PointResponse(Scintillator(response_width=0.7).response)
    inverse = response.inverse()
    n = 256
    product = np.fft.fft2(centred(inverse, n - 1), s=(n, n)) * np.fft.fft2(centred(response.kernel, n - 1), s=(n, n))
    one = np.abs(np.fft.ifft2(product))
    assert one.max() == pytest.approx(1, abs=1e-3)
    assert np.sort(one.ravel())[-2] < 1e-3
    assert inverse.sum() == pytest.approx(1)


def test_amplification_is_stated():
    response = point_response(measured(frames_of(Scintillator(response_width=0.5), shape=(256, 256))))
    assert response.variance_gain == pytest.approx(4.87, rel=0.05)
    truth = np.fft.fft2(Scintillator(response_width=0.5).response, s=(256, 256))
    assert response.white_gain == pytest.approx(np.mean(1 / np.abs(truth) ** 2), rel=0.08)
    assert response.condition == pytest.approx(1 / np.abs(truth).min(), rel=0.1)
    assert PointResponse(np.ones((1, 1))).white_gain == 1


def test_read_noise_narrows_the_whitening_kernel():
    quiet = estimate_point_response(frames_of(Scintillator(response_width=0.5)))
    noisy = estimate_point_response(frames_of(Scintillator(response_width=0.5, read_noise=6.0)))
    assert noisy.kernel.max() > quiet.kernel.max() + 0.05
    assert noisy.least > 2 * quiet.least


def test_an_uneven_response_is_noticed_and_an_even_one_is_not():
    left = frames_of(Scintillator(response_width=0.35), shape=(192, 192))
    right = frames_of(Scintillator(response_width=0.6), shape=(192, 192), seed=1)
    uneven = np.concatenate([left, right], axis=2)
    found = estimate_point_response(uneven, tiles="auto")
    assert found.regions
    wide = [kernel.max() for (_, cols), kernel in found.regions if cols.start >= 192]
    narrow = [kernel.max() for (_, cols), kernel in found.regions if cols.stop <= 192]
    assert max(wide) < min(narrow) - 0.1
    even = estimate_point_response(np.concatenate([left, left[::-1]], axis=2), tiles="auto")
    assert not even.regions
    assert unevenness(measured(left)) == (0.0, False)


def test_a_record_brings_the_response_back():
    region = slice(0, 8), slice(0, 9)
    kernel = np.array([[0.1, 0.8, 0.1]])
    response = PointResponse(kernel, regions=((region, kernel),), blend=False, floor=0.01, facts={"source": "flats"})
    again = PointResponse.from_record(response.record())
    np.testing.assert_allclose(again.kernel, kernel)
    assert again.regions[0][0] == region
    assert (again.blend, again.floor, again.facts) == (False, 0.01, {"source": "flats"})
    with pytest.raises(NoiseError, match="hold its kernel"):
        PointResponse.from_record({})
