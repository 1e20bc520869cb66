"""Measurements that are taken for repeats of one scene must show one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import quietray
from quietray.errors import NoiseError
from quietray.running.watch import Watch
from quietray.splits import Noise2Noise
from scans import quick


def foam(seed: int, *, of: int = 0, shift: float = 0.0) -> quietray.Scan:
    beam = quietray.ParallelBeam(np.linspace(0, np.pi, 64, endpoint=False), 6, 48, rotation_axis=23.5)
    packed = quietray.Foam.packed(25, 0.3, np.random.default_rng(of), largest=0.25)
    moved = dataclasses.replace(packed, spheres=packed.spheres + np.array([shift, 0, 0, 0]))
    return quietray.acquire(moved, beam, photons=200.0, n_flats=20, seed=seed)


class Heard(Watch):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def repeated(*scans: quietray.Scan) -> list[str]:
    heard = Heard()
    settings = dataclasses.replace(quick(steps=4), method=Noise2Noise(), rotation_axis=23.5)
    quietray.denoise(scans[0], None, settings, repeats=scans[1:], watch=heard)
    return [text for text in heard.notes if "moved" in text]


def test_views_of_a_turning_object_are_no_repeats() -> None:
    with pytest.raises(NoiseError, match=r"must show one scene.*repeats=.*noise2inverse"):
        repeated(foam(0))


def test_repeats_of_another_object_are_refused() -> None:
    with pytest.raises(NoiseError, match=r"scan 0 and scan 1 of the repeats must show one scene"):
        repeated(foam(0), foam(1, of=1))


def test_repeats_of_one_object_are_taken_and_a_move_is_said() -> None:
    assert repeated(foam(0), foam(1)) == []
    assert len(repeated(foam(0), foam(1, shift=0.12))) == 1
