"""Medians, order and running medians of many rows: what numpy and scipy say, whichever way they are worked out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from quietray.detector.correction import ranks
from quietray.detector.correction.ranks import row_medians, running_median, sorted_last, square_median

WAYS = [ranks._medians_by_numpy, ranks._medians_by_torch, row_medians]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("n", [1, 2, 5, 8, 101])
def test_medians_of_rows(rng, way, n):
    values = rng.integers(0, 9, (5, n)).astype(np.float32)
    chosen = rng.random((5, n)) < 0.5
    chosen[0], chosen[1] = False, True
    np.testing.assert_array_equal(way(torch.from_numpy(values), None), np.median(values, axis=1))
    found = way(torch.from_numpy(values), torch.from_numpy(chosen))
    assert found[0].isnan()
    for row in range(1, 5):
        if chosen[row].any():
            assert found[row] == np.median(values[row, chosen[row]])


def test_equal_values_keep_their_order(rng):
    values = torch.from_numpy(rng.integers(-4, 5, (2, 7, 60)).astype(np.float32) / 2)
    values[values == 0] *= torch.from_numpy(rng.choice([-1.0, 1.0], int((values == 0).sum()))).float()
    ordered, places = sorted_last(values)
    expected, expected_places = torch.sort(values, dim=-1, stable=True)
    assert torch.equal(ordered, expected)
    assert torch.equal(places, expected_places)


@pytest.mark.parametrize("size", [1, 3, 5, 9, 15, 21, 33, 51])
@pytest.mark.parametrize("at_once", [1, 1000])
def test_running_median(rng, monkeypatch, size, at_once):
    monkeypatch.setattr(ranks, "WINDOWS", at_once)
    values = rng.standard_normal((2, 27, 6)).astype(np.float32)
    expected = ndimage.median_filter(values, (1, size, 1), mode="reflect")
    np.testing.assert_array_equal(running_median(torch.from_numpy(values), size), expected)


@pytest.mark.parametrize("size", [1, 3, 5, 7])
@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (23, 17)])
@pytest.mark.parametrize("at_once", [1, 100])
def test_median_of_squares(rng, monkeypatch, size, shape, at_once):
    monkeypatch.setattr(ranks, "WINDOWS", at_once)
    frame = rng.standard_normal(shape).astype(np.float32)
    expected = ndimage.median_filter(frame, size, mode="reflect")
    np.testing.assert_array_equal(square_median(torch.from_numpy(frame), size), expected)
