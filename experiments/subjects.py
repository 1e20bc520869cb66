"""The images of the simulated subjects that gnudi.py and won.py learn from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from quietray.operators.astra import ParallelProjector
from quietray.reconstruct.analytic import FBP
from quietray.simulate.anatomy import beam, line_integrals, subject
from quietray.splits.base import Neighbourhood
from quietray.training.batches import TrainingVolume


def transmissions(seeds: Sequence[int], n_views: int, size: int) -> np.ndarray:
    """Return clean radiographs ``(subject, view, row, col)`` over a full turn; 1 in the open beam."""
    geometry = beam(n_views, size, size, "full")
    return np.stack([np.exp(-line_integrals(subject(seed), geometry)) for seed in seeds])


def sinograms(seeds: Sequence[int], n_slices: int, size: int, n_views: int) -> np.ndarray:
    """Return clean sinograms ``(subject, slice, view, col)`` of slices about 12 mm apart, from the chest
    to the liver."""
    step = max(1, round(12 * size / 420))
    geometry = beam(n_views, n_slices * step, size)
    found = [line_integrals(subject(seed), geometry)[:, ::step] for seed in seeds]
    return np.ascontiguousarray(np.stack(found).swapaxes(1, 2))


def reconstructed(views: np.ndarray, threads: int = 1) -> np.ndarray:
    """Return the filtered backprojections ``(subject, slice, y, x)`` in 1/mm."""
    n_slices, n_views, size = views.shape[1:]
    projector = ParallelProjector(beam(n_views, n_slices, size), threads=threads)
    return np.stack([FBP()(projector, np.ascontiguousarray(each)) for each in views])


def dataset(parts: np.ndarray, n_held_out: int, n_images: int) -> TrainingVolume:
    """Return images ``(part, image, y, x)`` to train on, of which the last subjects, of `n_images` each,
    are held out.

    No image of a held-out subject is ever trained on.
    """
    first = parts.shape[1] - n_held_out * n_images
    weight = np.ones(parts.shape[2:], np.float32)
    return TrainingVolume(
        np.ascontiguousarray(parts, np.float32),
        Neighbourhood(1),
        weight,
        tuple(range(first)),
        tuple(range(first, parts.shape[1])),
    )
