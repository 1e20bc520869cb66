"""Columns that are wrong in all views: algotom's numbers, and the line between neighbours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from algotom.prep import removal

from quietray.detector.correction.stripes import fill_columns, without_stripes


def striped(rng, n_rows, n_views, n_cols):
    """Sinograms whose columns hold no value twice, so that there is one order; with stripes of every kind."""
    levels = np.argsort(rng.random((n_rows, n_views, n_cols)), axis=1) + 0.5 * rng.random((n_rows, n_views, n_cols))
    out = 0.01 * levels + 0.3 * rng.standard_normal((n_rows, 1, n_cols))
    out[:, :, n_cols // 3] += 5
    out[:, :, n_cols // 2 : n_cols // 2 + 3] *= 1.5
    out[:, :, n_cols // 5] = 1 + 1e-4 * levels[:, :, n_cols // 5]
    return out.astype(np.float32)


def by_algotom(sinogram, algorithm):
    n_cols = sinogram.shape[1]
    small, large = min(21, max(5, n_cols // 32 | 1)), min(51, max(9, n_cols // 12 | 1))
    return {
        "sorting": lambda: removal.remove_stripe_based_sorting(sinogram, size=small),
        "large": lambda: removal.remove_large_stripe(sinogram, snr=3.0, size=large, norm=False),
        "all": lambda: removal.remove_all_stripe(sinogram, snr=3.0, la_size=large, sm_size=small),
    }[algorithm]()


@pytest.mark.parametrize("algorithm", ["sorting", "large", "all"])
@pytest.mark.parametrize("shape", [(8, 9), (21, 60), (90, 300)])
def test_stripes_are_removed_as_algotom_does(rng, algorithm, shape):
    sinograms = striped(rng, 3, *shape)
    found = without_stripes(torch.from_numpy(sinograms), algorithm).numpy()
    expected = np.stack([by_algotom(sinogram, algorithm) for sinogram in sinograms])
    assert np.mean(expected != sinograms) > 0.01
    # Only "all" divides and fills: one rounding each.
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-7 if algorithm == "all" else 0)


@pytest.mark.parametrize("algorithm", ["large", "all"])
def test_rows_without_noise_are_kept_and_their_neighbours_are_not(rng, algorithm):
    sinograms = torch.from_numpy(striped(rng, 3, 60, 80))
    alone = without_stripes(sinograms[[0, 2]], algorithm)
    sinograms[1] = 0.7
    given = sinograms.clone()
    found = without_stripes(sinograms, algorithm)
    assert torch.equal(sinograms, given)
    assert torch.equal(found[1], sinograms[1])
    assert torch.equal(found[[0, 2]], alone)


def test_columns_are_filled_from_either_side(rng):
    values = rng.random((4, 5, 40)).astype(np.float32)
    bad = rng.random((4, 40)) < 0.4
    bad[1], bad[2] = True, False
    bad[3, :3] = bad[3, -2:] = True
    filled = torch.from_numpy(values.copy())
    fill_columns(filled, bad)
    expected = values.copy()
    expected[1] = 1
    number = np.arange(40)
    for row in (0, 3):
        for view in range(5):
            good = ~bad[row]
            expected[row, view] = np.interp(number, number[good], values[row, view, good])
    np.testing.assert_allclose(filled, expected, rtol=0, atol=2e-7)
    np.testing.assert_array_equal(filled.numpy().transpose(0, 2, 1)[~bad], values.transpose(0, 2, 1)[~bad])
