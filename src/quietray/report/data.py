"""Contents of a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Num

from quietray.errors import GeometryError
from quietray.running.planes import Stack
from quietray.types import Slice

__all__ = ["Cut", "Histogram", "ReportData"]

_Plane = Float[np.ndarray, "_ _"]  # of any size


@dataclass(frozen=True, eq=False)
class Cut:
    """One slice through the volume, noisy and denoised.

    Parameters
    ----------
    name
        Direction and position, such as ``axial, z = 64``.
    before, after
        ``(y, x)`` images of one shape, in the unit of the report.  NaN is shown black.
    axes
        Names of the two axes, rows first.
    stack
        Further slices in this direction, to scroll through; None if there are none.
    labels
        Position of each of them, as text.

    Raises
    ------
    GeometryError
        The images are empty or differ in shape.

    Examples
    --------
    >>> noisy = np.zeros((2, 3), np.float32)
    >>> Cut("axial, z = 0", noisy, noisy + 1).axes
    ('y', 'x')
    """

    name: str
    before: Slice
    after: Float[np.ndarray, "_ _"]  # its shape is checked below, with a message
    axes: tuple[str, str] = ("y", "x")
    stack: Stack | None = None
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.before.ndim != 2 or self.before.shape != self.after.shape or 0 in self.before.shape:
            raise GeometryError(
                f"the images of the cut '{self.name}' must be two-dimensional, of one shape and not empty, got "
                f"{self.before.shape} before and {self.after.shape} after; cut both volumes at the same place"
            )


@dataclass(frozen=True, eq=False)
class Histogram:
    """Histogram of grey values of the whole volume.

    Parameters
    ----------
    edges
        ``(bin + 1,)``, increasing, in the unit of the report.
    before, after
        ``(bin,)`` number of voxels in each bin.

    Raises
    ------
    GeometryError
        The numbers of edges and counts do not agree.

    Examples
    --------
    >>> Histogram(np.array([0.0, 1, 2]), before=np.array([5, 5]), after=np.array([0, 10])).after.sum()
    np.int64(10)
    """

    edges: Num[np.ndarray, " edge"]
    before: Num[np.ndarray, " bin"]
    after: Num[np.ndarray, " bin"]

    def __post_init__(self) -> None:
        n_edges = len(self.edges)
        if n_edges < 2 or len(self.before) != n_edges - 1 or len(self.after) != n_edges - 1:
            raise GeometryError(
                f"a histogram must have one edge more than bins, got {n_edges} edges, {len(self.before)} bins before "
                f"and {len(self.after)} after; use the same edges for both"
            )


@dataclass(frozen=True, eq=False)
class ReportData:
    """All contents of the report; no files are read.

    Parameters
    ----------
    title
        Heading, such as the name of the scan.
    unit
        Unit of the grey values, ``1/mm`` or ``1/pixel``.
    voxel_size
        Edge of a voxel in mm, or None if it is not known.
    cuts
        Slices to compare; the profile is taken from the first.
    histogram
        Grey values of the whole volume.
    history
        One record for each estimate of the error during training: ``step``, ``seconds``, ``loss``, and, if available,
        ``psnr`` (dB, on held-out data).
    metrics
        Figures as in ``metrics.json``, nested; None is shown as not known, and ``comparison`` as a ranking.
    headline
        Label and value of the most important figures.
    warnings
        Possible faults of the result, one sentence each.
    notes
        Further remarks, one sentence each.
    settings_toml
        Text of ``run.toml``.
    provenance
        Input, versions, machine and time, nested.
    kind
        Kind of the page, shown above the title.
    pictures
        The same slice, denoised by each method of ``metrics["comparison"]``.
    trust
        ``(y, x)`` uncertainty map of the first cut: standard deviation of the error; None if there is none.
    evidence
        The table ``evidence`` of ``metrics.json``: resolution, noise power and regions, before and after.
    window
        Grey values to show black and white; None for those of the denoised images.
    images
        Whether the result is a series of images, not a volume.
    object
        ``(y, x)`` mask of the object in the first cut; None if it was not separated from air.
    verdict
        Whether to use the result: ``kind`` and ``reason``; None if there is no result yet.
    steps
        Middle slice of some steps or channels of a series, before and after, by name.
    stacks
        Further slices by each method, like `pictures`.
    methods_text
        Paragraph for the methods section of a paper.
    references
        Papers to cite.

    Examples
    --------
    >>> ReportData(title="tooth.h5", unit="1/mm", voxel_size=0.01).warnings
    ()
    """

    title: str
    unit: str
    voxel_size: float | None
    cuts: tuple[Cut, ...] = ()
    histogram: Histogram | None = None
    history: tuple[Mapping[str, float | int | None], ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    headline: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    settings_toml: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "denoising report"
    pictures: Mapping[str, Slice] = field(default_factory=dict)
    trust: Slice | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    window: tuple[float, float] | None = None
    images: bool = False
    object: Bool[np.ndarray, "_ _"] | None = None
    verdict: Mapping[str, str] | None = None
    steps: Mapping[str, tuple[_Plane, _Plane]] = field(default_factory=dict)
    stacks: Mapping[str, Float[np.ndarray, "_ _ _"]] = field(default_factory=dict)
    methods_text: str = ""
    references: tuple[str, ...] = ()
