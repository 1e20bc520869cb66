"""A scan may hold any array with a shape, a type and slices, such as dask's: parts are computed when needed."""

import dataclasses
from typing import Any

import numpy as np
import pytest

import quietray
from quietray import Scan, workflows
from quietray.io import read_volume
from quietray.scan import interleaved
from scans import disc_scan, in_slabs, quick


class Lazy:
    """Slices are promises; numpy makes them true, and what was computed is noted."""

    def __init__(self, array: np.ndarray, noted: list[int]) -> None:
        self._array, self._noted = array, noted
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, key: Any) -> "Lazy":
        return Lazy(self._array[key], self._noted)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        self._noted.append(self._array.size)
        return np.array(self._array, dtype)


@pytest.fixture
def noted() -> list[int]:
    return []


@pytest.fixture
def lazy(noted: list[int]) -> Scan:
    scan = quietray.read(disc_scan())
    parts = {name: Lazy(np.asarray(getattr(scan, name)[:]), noted) for name in ("projections", "flats", "darks")}
    noted.clear()
    return dataclasses.replace(scan, **parts)


def test_bands_of_rows_are_computed_alone(lazy, noted):
    plain = quietray.read(disc_scan())
    for views in (slice(None), slice(3, 20, 4), slice(None, None, -2)):
        np.testing.assert_array_equal(lazy[views].read(slice(2, 5)), plain[views].read(slice(2, 5)))
    chosen = np.array([7, 3, 3, 20])
    np.testing.assert_array_equal(lazy[chosen].read(slice(2, 5)), plain[chosen].read(slice(2, 5)))
    assert max(noted) == 32 * 3 * 24


def test_several_detectors(lazy, noted):
    both = dataclasses.replace(lazy, detectors=np.arange(32) % 2)
    parts = both.by_detector()
    np.testing.assert_array_equal(parts[1].read(slice(0, 2)), lazy.read(slice(0, 2))[1::2])
    joined = interleaved({number: part.projections for number, part in parts.items()}, both.detectors)
    np.testing.assert_array_equal(joined[4:9, :2], lazy.read(slice(0, 2))[4:9])
    assert max(noted) == 32 * 2 * 24


def test_runs_compute_a_slab_at_a_time(lazy, noted, tmp_path, monkeypatch):
    in_slabs(monkeypatch, heights=2)
    monkeypatch.setattr("quietray.detector.correction.survey.SAMPLES", 8 * 12 * 24)  # views at once
    monkeypatch.setattr("quietray.detector.correction.glance._ROWS", 3)
    found = workflows.reconstruct(lazy, tmp_path / "lazy.h5", quick(format="h5"))
    plain = workflows.reconstruct(quietray.read(disc_scan()), tmp_path / "plain.h5", quick(format="h5"))
    np.testing.assert_array_equal(read_volume(found)[:], read_volume(plain)[:])
    assert max(noted) < 32 * 12 * 24


def test_written_in_blocks(lazy, noted, tmp_path, monkeypatch):
    monkeypatch.setattr("quietray.io.stacks._BLOCK_BYTES", 2 * 12 * 24 * 2)
    path = quietray.write_scan(tmp_path / "new.h5", lazy)
    np.testing.assert_array_equal(quietray.read(path).read(slice(0, 12)), lazy.read(slice(0, 12)))
    assert max(noted[:-1]) == 2 * 12 * 24
