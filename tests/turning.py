"""An object of discs with closed-form projections, as counts of a detector: what scans with faults are made of."""

import numpy as np

from quietray import ParallelBeam, Scan

# Attenuation per pixel in units of the object's, centre and radius in units of half the detector.
DISCS = ((1.0, 0.05, 0.0, 0.66), (0.7, -0.3, 0.2, 0.14), (-0.6, 0.25, -0.15, 0.2), (1.1, 0.1, 0.4, 0.09))
MU = 0.012


def line_integrals(degrees, n_rows=8, n_cols=96, axis=45.3):
    """Return ``(view, row, col)``; discs get a little smaller from row to row."""
    radius, offset = n_cols / 2, np.arange(n_cols) - axis
    angles = np.deg2rad(np.asarray(degrees, float))[:, None, None]
    size = (1 - 0.3 * np.arange(n_rows) / n_rows)[None, :, None]
    out = np.zeros((len(angles), n_rows, n_cols))
    for value, x, y, r in DISCS:
        away = offset - radius * (x * np.cos(angles) + y * np.sin(angles))
        out += 2 * MU * value * np.sqrt(np.clip((r * radius * size) ** 2 - away**2, 0, None))
    return out


def truth(n=96, row=4, n_rows=8):
    """Return the slice ``(y, x)`` of a row."""
    y, x = (n - 1) / 2 - np.arange(n)[:, None], np.arange(n)[None] - (n - 1) / 2
    out = np.zeros((n, n))
    for value, cx, cy, r in DISCS:
        size = r * n / 2 * (1 - 0.3 * row / n_rows)
        out += MU * value * (np.hypot(x - cx * n / 2, y - cy * n / 2) <= size)
    return out


HALF_TURN = np.arange(180.0)


def measured(degrees=HALF_TURN, seed=0, light=None, photons=2000, **shape):
    """Return views, flats and darks as uint16 counts; `light` is the beam's brightness in every view."""
    rng = np.random.default_rng(seed)
    lines = line_integrals(degrees, **shape)
    _, n_rows, n_cols = lines.shape
    profile = 1 + 0.2 * np.sin(np.linspace(0, 3, n_cols))[None] + 0.1 * np.cos(np.linspace(0, 2, n_rows))[:, None]
    light = np.ones(len(lines)) if light is None else np.asarray(light)

    def shot(mean):
        counts = 8 * rng.poisson(photons * mean) + 100 + rng.normal(0, 2, mean.shape)
        return np.clip(np.rint(counts), 0, 65535).astype(np.uint16)

    views = shot(profile * np.exp(-lines) * light[:, None, None])
    return views, shot(np.broadcast_to(profile, (20, *profile.shape))), shot(np.zeros((10, *profile.shape)))


def as_scan(views, flats, darks, degrees=None, axis=None, **more):
    """Return them as a scan; `axis` is the column of the rotation axis, if it is known."""
    degrees = np.arange(len(views)) * 180 / len(views) if degrees is None else degrees
    beam = ParallelBeam(np.deg2rad(degrees), *views.shape[1:], axis)
    return Scan(views, beam, flats, darks, **more)


def likeness(volume, reach=40):
    """Return the correlation of the middle slice with the truth, and its mean over that of the truth."""
    n, row = volume.shape[-1], volume.shape[0] // 2
    y, x = np.mgrid[:n, :n] - (n - 1) / 2
    inside = np.hypot(x, y) < reach
    found, true = np.asarray(volume[row])[inside], truth(n, row, volume.shape[0])[inside]
    return float(np.corrcoef(found, true)[0, 1]), float(found.mean() / true.mean())
