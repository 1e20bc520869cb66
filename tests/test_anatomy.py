"""The family of torsos and low-dose noise, against closed forms."""

import itertools
import math

import numpy as np
import pytest

from quietray.errors import SettingsError
from quietray.operators.astra import ParallelProjector
from quietray.reconstruct.analytic import FBP
from quietray.simulate.anatomy import (
    ATTENUATION,
    FIELD,
    attenuation,
    beam,
    hounsfield,
    line_integrals,
    photons_for,
    subject,
)
from quietray.simulate.lowdose import low_dose, lowered_dose


@pytest.mark.parametrize("seed", [0, 7])
def test_every_view_holds_the_whole_mass_of_a_subject(seed: int) -> None:
    torso = subject(seed)
    value, half = torso.table[:, 0], torso.table[:, 1:4] * FIELD / 2
    mass = float((value * 4 / 3 * math.pi * half.prod(axis=1)).sum())
    geometry = beam(5, 136, 64, "full")  # high enough to hold the torso, 800 mm
    views = line_integrals(torso, geometry, supersampling=3).astype(np.float64)
    found = views.sum(axis=(1, 2)) * (FIELD / 64) ** 2
    assert found == pytest.approx(mass, rel=0.003)


def test_a_ray_through_two_tissues_is_their_chords() -> None:
    """The two outermost ellipsoids alone: fat around muscle, seen from the side and from the front."""
    torso = subject(2)
    shells = type(torso)(torso.table[:2])
    views = line_integrals(shells, beam(2, 1, 4201), supersampling=1)[:, 0, 2100]
    fat, muscle = torso.table[:2, 1:4] * FIELD / 2
    for view, axis in zip(views, (1, 0), strict=True):
        inside, outside = 2 * muscle[axis], 2 * (fat[axis] - muscle[axis])
        assert view == pytest.approx(inside * ATTENUATION["muscle"] + outside * ATTENUATION["fat"], rel=1e-4)


def test_subjects_differ_and_hold_no_impossible_tissue() -> None:
    grid = beam(1, 24, 48).grid()
    volumes = [attenuation(subject(seed), grid) for seed in range(6)]
    for one, other in itertools.pairwise(volumes):
        assert np.mean(abs(one - other) > 1e-4) > 0.02
    for volume in volumes:
        hu = hounsfield(volume)
        assert hu.min() > -1001
        assert hu.max() < 2100, "bones must not overlap"
        assert np.mean((hu > -800) & (hu < -700)) > 0.01, "there must be lung"
        assert np.mean((hu > 20) & (hu < 80)) > 0.1, "there must be soft tissue"


def test_reconstruction_brings_tissues_back_in_hounsfield_units() -> None:
    torso, geometry = subject(1), beam(180, 3, 128)
    sinograms = np.ascontiguousarray(line_integrals(torso, geometry).swapaxes(0, 1))
    hu = hounsfield(FBP()(ParallelProjector(geometry), sinograms))
    truth = hounsfield(attenuation(torso, geometry.grid()))
    for tissue, name in ((-743, "lung"), (44, "muscle")):
        inside = abs(truth - tissue) < 2
        assert inside.sum() > 100, name
        assert np.median(hu[inside]) == pytest.approx(tissue, abs=15), name


def test_poisson_images_have_the_mean_psnr_that_was_asked_for() -> None:
    clean = np.concatenate([np.exp(-line_integrals(subject(s), beam(4, 48, 48, "full"))) for s in range(3)])
    photons = photons_for(29.91, clean)
    noisy = np.random.default_rng(0).poisson(photons * clean) / photons
    psnr = -10 * np.log10(np.square(noisy - clean).mean(axis=(1, 2)))
    assert psnr.mean() == pytest.approx(29.91, abs=0.1)
    assert np.ptp(psnr) > 0.1, "images differ in their own"


@pytest.mark.parametrize("electronic", [0.0, 30.0])
def test_low_dose_noise_has_its_closed_form_variance(electronic: float) -> None:
    thickness, photons = 2.0, 2e5
    clean = np.full((4, 200, 200), thickness, np.float32)
    noisy, dark = low_dose(clean, photons, electronic, np.random.default_rng(0))
    counts = photons * math.exp(-thickness)
    assert dark == 0
    assert noisy.var() == pytest.approx((counts + electronic**2) / counts**2, rel=0.02)
    assert noisy.mean() == pytest.approx(thickness, abs=2e-4)


def test_a_quarter_of_the_dose_is_reached_from_either_side() -> None:
    """A scan of a quarter of the photons, and a whole one with noise added, have the same variance."""
    rng, electronic = np.random.default_rng(0), 20.0
    for thickness in (0.5, 3.0):
        clean = np.full((4, 200, 200), thickness, np.float32)
        whole, _ = low_dose(clean, 4e4, electronic, rng)
        added = lowered_dose(whole, 4e4, 0.25, electronic, rng)
        direct, _ = low_dose(clean, 1e4, electronic, rng)
        assert added.var() == pytest.approx(direct.var(), rel=0.03)
        assert added.var() > 3 * whole.var()


def test_too_dark_pixels_are_floored_and_counted() -> None:
    noisy, dark = low_dose(np.full((1, 50, 50), 12.0, np.float32), 1e4, 1.0, np.random.default_rng(0))
    assert 0.2 < dark < 0.8
    assert np.isfinite(noisy).all()


def test_noise_of_few_counts_is_correlated_after_reconstruction() -> None:
    geometry = beam(90, 4, 64)
    clean = np.ascontiguousarray(line_integrals(subject(0), geometry).swapaxes(0, 1))
    noisy, _ = low_dose(clean, 1e4, 5.0, np.random.default_rng(0))
    noise = FBP()(ParallelProjector(geometry), noisy - clean)[:, 24:40, 24:40]
    across = (noise[:, :, 1:] * noise[:, :, :-1]).mean() / noise.var()
    assert across > 0.2, "white noise has 0"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda flat, rng: low_dose(flat, 0.0, 1.0, rng), "photons must be positive"),
        (lambda flat, rng: low_dose(flat, 1.0, -1.0, rng), "electronic noise must not be negative"),
        (lambda flat, rng: lowered_dose(flat, 1.0, 0.0, 1.0, rng), "the share of the dose must be above 0"),
    ],
)
def test_impossible_doses_are_refused(call, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SettingsError, match=words):
        call(np.zeros((1, 2, 2), np.float32), np.random.default_rng(0))
