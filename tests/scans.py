"""Tiny simulated scans and what may be asked of them."""

import dataclasses
import functools
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

import quietray
import quietray.preparation.prepare as prepare_module
from quietray import Foam, Noise2Inverse, ParallelBeam, Scan, Scintillator, Settings, Training, UNet, VolumeGrid
from quietray.checkpoint import replace_file
from quietray.running.plan import Plan


@functools.cache
def foam_scan(n_rows: int = 10, n_cols: int = 40, n_views: int = 160, photons: float = 80.0) -> Path:
    """Return the file of a simulated foam on 40 um pixels, enough views for each half, the truth included."""
    foam = Foam.packed(25, 0.35, np.random.default_rng(0), largest=0.3)
    angles = np.linspace(0, np.pi, n_views, endpoint=False)
    beam = ParallelBeam(angles, n_rows, n_cols, rotation_axis=(n_cols - 1) / 2, pixel_size=0.04)
    scan = quietray.acquire(foam, beam, photons=photons, detector=Scintillator(gain=10.0, dark=100.0, read_noise=2.0))
    return write(scan, f"foam_{n_rows}_{n_cols}_{n_views}")


@functools.cache
def disc_scan(n_rows: int = 12, n_cols: int = 24, n_views: int = 32) -> Path:
    """Return the file of a cylinder of 0.05 per pixel, its axis to be found: little to see, but quick to work on."""
    rng = np.random.default_rng(1)
    offset = np.arange(n_cols) - (n_cols - 1) / 2
    chord = 2 * np.sqrt(np.clip((0.35 * n_cols) ** 2 - offset**2, 0, None))
    dose = 200 + 10.0 * np.arange(n_rows)[None, :, None]
    counts = rng.poisson(np.broadcast_to(dose * np.exp(-0.05 * chord), (n_views, n_rows, n_cols)))
    flats = rng.poisson(np.broadcast_to(dose, (20, n_rows, n_cols)))
    beam = ParallelBeam(np.linspace(0, np.pi, n_views, endpoint=False), n_rows, n_cols)
    scan = Scan(
        (counts + 50).astype(np.uint16),
        beam,
        (flats + 50).astype(np.uint16),
        np.full((4, n_rows, n_cols), 50, np.uint16),
    )
    return write(scan, f"disc_{n_rows}_{n_cols}_{n_views}")


def write(scan: Scan, name: str) -> Path:
    """Write a scan into a folder that is removed when Python ends."""
    folder = tempfile.TemporaryDirectory(prefix="quietray-test-")
    _FOLDERS.append(folder)
    threads = torch.get_num_threads()
    path = quietray.write_scan(Path(folder.name) / f"{name}.h5", scan)
    torch.set_num_threads(threads)  # numba, which projects the phantom, takes every core for itself and for torch
    return path


_FOLDERS: list[tempfile.TemporaryDirectory] = []


def quick(steps: int = 12, **more: object) -> Settings:
    """Return settings of a run that takes less than a second, with three judgements."""
    usual: dict[str, object] = {
        "seed": 3,
        "symmetries": 2,
        "rotation_axis": 11.5,
        "method": Noise2Inverse(parts=2, slices=3),
        "network": UNet((4, 8)),
        "training": Training(steps=steps, batch=1, judgements=3, patience=10.0),
    }
    return Settings(**(usual | more))


def in_slabs(monkeypatch: pytest.MonkeyPatch, heights: int = 4, window: int = 8) -> None:
    """Make every plan one of several slabs, trained on a part of the rows."""
    whole = prepare_module.plan_run

    def plan_run(scan: Scan, rows: range, grid: VolumeGrid, **options: object) -> Plan:
        plan = whole(scan, rows, grid, **options)
        slabs = tuple((z, min(z + heights, rows.stop)) for z in range(rows.start, rows.stop, heights))
        first = rows.start + (len(rows) - window) // 2
        return dataclasses.replace(plan, slabs=slabs, windows=((first, first + window),))

    monkeypatch.setattr(prepare_module, "plan_run", plan_run)


def short_report(patch: pytest.MonkeyPatch) -> None:
    """Make every report one of one line, and never wait for the disk: most of the time of so small a run."""
    patch.setattr("quietray.workflows.write_report", lambda path, data: replace_file(path, data.title.encode()))
    patch.setattr(os, "fsync", lambda descriptor: None)


def content(folder: Path) -> dict[str, bytes]:
    """Return every byte below a folder, by path, without the lock that a kill leaves."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}
