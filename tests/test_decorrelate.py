"""Whitening: what it leaves, what it must not do, and the way back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from quietray.detector.noise.lags import DONUT, infill_correlation
from quietray.detector.response.decorrelate import blur, decorrelate, reblur, response_of, whiten
from quietray.detector.response.prf import PointResponse, estimate_point_response
from quietray.detector.response.whitened import WhitenedFrames
from quietray.errors import NoiseError
from quietray.geometry import ParallelBeam
from quietray.io import read, write_scan
from quietray.scan import Scan
from quietray.simulate.noise import Scintillator
from test_correlation import frames_of, measured
from test_prf import centred

BLUR = Scintillator(response_width=0.5)
LARGE = (384, 512)


@pytest.fixture(scope="module")
def response():
    return estimate_point_response(frames_of(BLUR, shape=LARGE, seed=3), method="mean")


@pytest.fixture(scope="module")
def fresh():
    """Frames that the response was not estimated from."""
    return frames_of(BLUR, shape=LARGE, seed=4)


def left_over(frames):
    """The law: summed correlation, and correlation of a pixel with its infill, after whitening."""
    found = measured(frames)
    return found.summed, infill_correlation(found.lags)


def test_whitening_leaves_no_correlation(response, fresh):
    assert left_over(fresh)[0] == pytest.approx(3.868, abs=0.2)
    assert left_over(fresh)[1] == pytest.approx(0.667, abs=0.01)
    summed, infill = left_over(whiten(fresh, response))
    assert abs(summed) <= 0.02
    assert abs(infill) <= 0.01


def test_the_infill_itself_is_independent_of_the_pixel(response, fresh):
    from scipy import ndimage

    white = whiten(fresh, response)[:10]
    noise = white - white.mean(axis=0)
    infill = np.stack([ndimage.correlate(frame, DONUT, mode="reflect") for frame in noise])
    raw = fresh[:10] - fresh[:10].mean(axis=0)
    before = np.stack([ndimage.correlate(frame, DONUT, mode="reflect") for frame in raw])
    assert np.corrcoef(raw.ravel(), before.ravel())[0, 1] == pytest.approx(0.667, abs=0.01)
    assert abs(np.corrcoef(noise.ravel(), infill.ravel())[0, 1]) <= 0.01


def test_the_formula_with_the_square_fails_the_law(response, fresh):
    """1 / |F|^2, as the slide prints it, over-whitens: the saboteur."""
    transfer = np.fft.fft2(np.fft.ifftshift(centred(response.kernel, 255)))
    square = np.fft.fftshift(np.fft.ifft2(np.abs(transfer) ** 2).real)
    wrong = PointResponse(centred(square, 25) / centred(square, 25).sum(), floor=1e-4)
    summed, infill = left_over(whiten(fresh, wrong))
    assert summed < -0.9
    assert abs(infill) > 0.3
    assert whiten(fresh, wrong)[:10].var(axis=0).mean() > 10 * whiten(fresh, response)[:10].var(axis=0).mean()


def test_read_noise_is_whitened_with_the_estimate_not_with_the_truth():
    noisy = Scintillator(response_width=0.5, read_noise=6.0)
    frames, held_out = frames_of(noisy, shape=(256, 256)), frames_of(noisy, shape=(256, 256), seed=1)
    assert abs(left_over(whiten(held_out, estimate_point_response(frames)))[0]) < 0.06
    assert left_over(whiten(held_out, PointResponse(noisy.response)))[0] < -0.3


def test_variance_grows_as_stated(response, fresh):
    white, raw = (stack.var(axis=0, ddof=1).mean() for stack in (whiten(fresh, response)[:20], fresh[:20]))
    assert white / raw == pytest.approx(response.variance_gain, rel=0.02)
    assert white == pytest.approx(400, rel=0.03)  # of the photons themselves


def test_the_border_is_not_biased(response):
    flat = frames_of(BLUR, 60, (64, 64), seed=9)
    ramp = flat * np.linspace(1, 3, 64, dtype=np.float32)[:, None]  # a periodic border would see a jump
    white, raw = whiten(ramp, response)[:].mean(axis=0), ramp.mean(axis=0)
    assert abs(white[0].mean() / raw[0].mean() - 1) < 0.02
    assert abs(whiten(flat, response)[:].mean(axis=0)[0].mean() / flat.mean(axis=0)[0].mean() - 1) < 1e-3
    edge = whiten(np.full((1, 64, 64), 5.0, np.float32), response)[:]
    np.testing.assert_allclose(edge, 5, rtol=1e-4)


def test_a_point_of_light_comes_back():
    kernel = BLUR.response
    image = np.zeros((1, 64, 64), np.float32)
    image[0, 32 - 5 : 32 + 6, 20 - 5 : 20 + 6] = kernel
    sharp = whiten(image, PointResponse(kernel))[0]
    assert sharp[0, 32, 20] == pytest.approx(1, abs=1e-3) if sharp.ndim == 3 else sharp[32, 20] > 0.999
    assert np.sort(np.abs(sharp).ravel())[-2] < 1e-3


def test_blurring_back_is_the_inverse(response, fresh):
    frames = fresh[:3]
    again = blur(whiten(frames, response), response)[:]
    assert np.abs(again - frames).max() < 2e-3 * frames.max()
    assert np.abs(again - frames)[:, 16:-16, 16:-16].max() < 5e-4 * frames.max()


def test_bands_of_rows_and_single_frames_are_those_of_whole_frames(response, fresh):
    white = whiten(fresh[:6], response, zingers=8.0)
    whole = white[:]
    for rows in (slice(0, 5), slice(7, 90), slice(380, 384), slice(3, 60, 4)):
        np.testing.assert_allclose(white[:, rows], whole[:, rows], atol=1e-2)  # of 400 counts
    np.testing.assert_allclose(white[4], whole[4], atol=1e-2)
    np.testing.assert_allclose(white[1:6:2, 11], whole[1:6:2, 11], atol=1e-2)
    np.testing.assert_allclose(white[::-1, 9:12, 5:8], whole[::-1, 9:12, 5:8], atol=1e-2)


def test_bad_pixels_and_zingers_do_not_spread(response):
    frames = frames_of(BLUR, 8, (96, 96), seed=6)
    clean = whiten(frames, response)[:]
    bad = np.zeros((96, 96), bool)
    bad[40, 40] = bad[60:62, 70] = True
    hurt = frames.copy()
    hurt[:, bad] = 60_000
    hurt[3, 20, 20:22] += 5000
    mended = whiten(hurt, response, bad=bad, zingers=8.0, noise=(0.25, 0.0))[:]
    near = np.ones((96, 96), bool)
    for y, x in ((40, 40), (60, 70), (20, 20)):
        near[y - 4 : y + 6, x - 4 : x + 6] = False
    assert np.abs(mended - clean)[:, near].max() < 2
    assert np.abs(mended - clean).max() < 8 * 20
    assert np.abs(whiten(hurt, response)[:] - clean).max() > 10_000


def test_a_thin_bright_gap_is_no_zinger(response):
    rng = np.random.default_rng(0)
    cols = np.arange(120)
    gap = np.stack([np.where(np.abs(cols - 20 - 2 * t) < 1.2, 1000.0, 200.0) for t in range(30)])
    frames = rng.poisson(np.broadcast_to(gap[:, None], (30, 40, 120))).astype(np.float32)
    kept = WhitenedFrames(frames, PointResponse(np.ones((1, 1))), zingers=8.0, reach=3)[:]
    assert (np.abs(kept - frames) > 1).mean() < 1e-3


def test_a_zinger_hides_no_other_in_a_neighbouring_frame():
    frames = frames_of(BLUR, 9, (64, 64), seed=2)
    hurt = frames.copy()
    spots = [(3, 20, 30), (4, 20, 33), (5, 21, 29), (0, 40, 10), (1, 40, 12), (8, 50, 50), (7, 50, 52)]
    for frame, row, col in spots:
        hurt[frame, row, col] += 300  # 33 noise sds
    same = PointResponse(np.ones((1, 1)))
    kept = WhitenedFrames(hurt, same, zingers=6.0, noise=(0.2, 0.0), reach=5)[:]
    for spot in spots:
        assert abs(kept[spot] - frames[spot]) < 5 * 9, spot
    assert (np.abs(kept - hurt) > 0.5).sum() <= len(spots) + 2
    assert np.abs(WhitenedFrames(frames, same, zingers=6.0, noise=(0.2, 0.0), reach=5)[:] - frames).max() < 0.5


@pytest.mark.parametrize("photons", [3.0, 100.0])
def test_blurred_noise_holds_no_zingers(photons):
    frames = frames_of(BLUR, 20, (96, 96), photons=photons)
    kept = WhitenedFrames(frames, PointResponse(np.ones((1, 1))), zingers=6.0, noise=(0.205, 0.0), reach=3)[:]
    assert np.abs(kept - frames).max() < 0.1


def scan_of(detector, n_views=12, shape=(64, 80)):
    rng = np.random.default_rng(0)
    cols = np.linspace(-1.4, 1.4, shape[1])
    views = np.broadcast_to(400 * np.exp(-np.sqrt(np.clip(1 - cols**2, 0, None))), (n_views, *shape))
    return Scan(
        detector.sample(views, rng),
        ParallelBeam(np.linspace(0, np.pi, n_views, endpoint=False), *shape),
        detector.sample(np.full((20, *shape), 400.0), rng),
        detector.sample(np.zeros((5, *shape)), rng),
        source="simulated",
    )


def test_a_scan_is_whitened_with_its_flats_and_darks(tmp_path):
    detector = Scintillator(response_width=0.5, dark=100.0, read_noise=1.0)
    scan = scan_of(detector)
    response = PointResponse(detector.response, facts={"source": "flats"})
    white = decorrelate(scan, response)
    assert abs(measured(white.flats, levelled=True).summed) < 0.4
    assert np.abs(np.mean(white.darks[:])) < 0.1  # the dark is gone from all three
    assert np.mean(white.flats[:]) == pytest.approx(400, rel=0.01)
    assert np.mean(white.projections[:]) == pytest.approx(np.mean(scan.projections) - 100, rel=0.01)
    assert (white.projections[:] < 0).mean() < 0.01
    assert any("-fold" in note for note in white.notes)
    json.dumps(dict(white.provenance))
    path = write_scan(tmp_path / "white.h5", white)
    stored = read(path)
    np.testing.assert_allclose(stored.projections[:], white.projections[:], atol=1e-3)
    for each in (stored, read(write_scan(tmp_path / "white.nx", white))):
        np.testing.assert_allclose(response_of(each).kernel, response.kernel, atol=1e-6)
        np.testing.assert_allclose(each.flats[:], white.flats[:], atol=1e-3)
    with pytest.raises(NoiseError, match="only once"):
        decorrelate(white, response)
    again = reblur(white)
    np.testing.assert_allclose(again.projections[:], scan.projections - np.mean(scan.darks, axis=0), atol=1.0)
    assert response_of(again) is None
    np.testing.assert_allclose(response_of(white).kernel, response.kernel, atol=1e-6)
    with pytest.raises(NoiseError, match="whitened to be blurred"):
        reblur(scan)


def test_line_integrals_survive():
    from quietray.detector.correction.correct import Correction, calibrate, correct_rows

    detector = Scintillator(gain=1.0, response_width=0.5, dark=100.0)
    scan = scan_of(detector, n_views=40)
    white = decorrelate(scan, PointResponse(detector.response))
    plain = Correction(zingers=0.0, air="none", rings="none")
    found, _ = correct_rows(white.read(slice(0, 64)), calibrate(white, plain), slice(0, 64))
    cols = np.linspace(-1.4, 1.4, 80)
    truth = np.sqrt(np.clip(1 - cols**2, 0, None))
    assert np.abs(found.mean(axis=(0, 1)) - truth).max() < 0.03


def test_tiles_fade_into_each_other_and_modules_do_not():
    n = 96
    narrow, wide = Scintillator(response_width=0.3).response, Scintillator(response_width=0.6).response
    size = wide.shape[0]
    kernels = centred(narrow, size), centred(wide, size)
    halves = (slice(0, n), slice(0, n)), (slice(0, n), slice(n, 2 * n))
    image = np.random.default_rng(0).random((2, n, 2 * n)).astype(np.float32)
    modules = PointResponse(kernels[0], regions=tuple(zip(halves, kernels, strict=True)), blend=False)
    first, last = (PointResponse(kernel) for kernel in kernels)
    seen = np.concatenate([blur(image[:, :, :n], first)[:], blur(image[:, :, n:], last)[:]], axis=2)
    np.testing.assert_allclose(blur(image, modules)[:], seen, atol=1e-5)
    assert np.abs(whiten(seen, modules)[:] - image).max() < 5e-3
    tiles = PointResponse(kernels[0], regions=tuple(zip(halves, kernels, strict=True)), blend=True)
    faded = whiten(seen, tiles)[:]
    one, other = whiten(seen, first)[:], whiten(seen, last)[:]
    np.testing.assert_allclose(faded[:, :, : n // 2 - 1], one[:, :, : n // 2 - 1], atol=1e-4)
    np.testing.assert_allclose(faded[:, :, -n // 2 + 1 :], other[:, :, -n // 2 + 1 :], atol=1e-4)
    share = (n - (n - 1) / 2) / n
    np.testing.assert_allclose(faded[:, :, n], (1 - share) * one[:, :, n] + share * other[:, :, n], atol=1e-3)
    np.testing.assert_allclose(whiten(np.full_like(image, 3.0), tiles)[:], 3, rtol=1e-4)  # weights add up to one
    with pytest.raises(NoiseError, match="cover each pixel of the detector"):
        whiten(image, PointResponse(kernels[0], regions=((halves[0], kernels[0]),)))


def test_an_uneven_detector_is_whitened_tile_by_tile():
    left, right = Scintillator(response_width=0.35), Scintillator(response_width=0.6)

    def both(seed):
        return np.concatenate(
            [frames_of(left, shape=(160, 192), seed=seed), frames_of(right, shape=(160, 192), seed=seed + 50)], axis=2
        )

    tiles = tuple((slice(0, 160), slice(start, start + 96)) for start in range(0, 384, 96))
    frames, held_out = both(0), both(1)
    single, tiled = estimate_point_response(frames), estimate_point_response(frames, tiles=tiles, blend=False)

    def sides(response):
        white = whiten(held_out, response)[:]
        return [measured(np.ascontiguousarray(white[:, :, part])).summed for part in (slice(8, 180), slice(204, 376))]

    assert min(np.abs(sides(single))) > 0.3
    assert max(np.abs(sides(tiled))) < 0.15
