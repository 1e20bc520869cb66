"""Cone-beam projection on the CPU with RTK (Apache-2.0, installed with the extra ``cone``)."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from quietray.errors import GeometryError, MissingExtra, require
from quietray.geometry import ConeBeam, VolumeGrid
from quietray.operators.astra import voxel_edge
from quietray.operators.linear import LinearOperator

__all__ = ["ConeProjector"]

_TO_RTK = np.array([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]])  # RTK rotates about y, and its source starts at positive z


class ConeProjector(LinearOperator):
    """Cone-beam projection: volume ``(z, y, x)`` to sinograms ``(row, view, col)``, with its matched adjoint.

    Rays go through pixel centres and are interpolated within the planes that they cross (Joseph 1982,
    doi:10.1109/TMI.1982.4307572).  The unit of the line integrals is the unit of the volume times the voxel size.

    Parameters
    ----------
    geometry
        Cone beam with rectangular pixels that have the same shape in all views.
    grid
        Voxel grid; by default as many voxels as the detector has rows and columns, each as large as a pixel at the
        origin.

    Raises
    ------
    MissingExtra
        RTK is not installed.
    GeometryError
        The pixels are not such rectangles, or the grid has a size in mm although the beam has none.

    Notes
    -----
    Projector and adjoint satisfy ``<A x, y> = <x, A.T y>`` to single precision.  Rit et al.  (2014),
    doi:10.1088/1742-6596/489/1/012079.

    Examples
    --------
    >>> beam = ConeBeam.circular(np.linspace(0, 6, 4), 6, 8, source_axis=20.0, source_detector=30.0)
    >>> A = ConeProjector(beam)  # doctest: +SKIP
    >>> A.domain_shape, A.range_shape  # doctest: +SKIP
    ((6, 8, 8), (6, 4, 8))
    """

    def __init__(self, geometry: ConeBeam, grid: VolumeGrid | None = None) -> None:
        self._itk = _itk()
        self.geometry = geometry
        self.grid = grid or geometry.grid()
        self.edge = voxel_edge(geometry, self.grid)
        across, down = np.linalg.norm(geometry.us, axis=1), np.linalg.norm(geometry.vs, axis=1)
        skew = np.abs(np.einsum("vi,vi->v", geometry.us, geometry.vs)) / (across * down)
        if skew.max() > 1e-6 or np.ptp(down / across) > 1e-6:
            raise GeometryError(
                "the pixels must be rectangles of one shape for projection through RTK, got u and v "
                f"{90 - np.degrees(np.arccos(skew.max())):.2g} degrees off a right angle, and row heights of "
                f"{(down / across).min():g} to {(down / across).max():g} column widths; correct the vectors"
            )
        self._pixel = (float(across[0]), float(down[0]))

    @property
    def domain_shape(self) -> tuple[int, ...]:
        """Shape of the volume, ``(z, y, x)``."""
        return self.grid.shape

    @property
    def range_shape(self) -> tuple[int, ...]:
        """Shape of the sinograms, ``(row, view, col)``."""
        return (self.geometry.n_rows, self.geometry.n_views, self.geometry.n_cols)

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Project the volume."""
        blank = np.zeros(self._stack_shape, np.float32)
        radiographs = self._run("JosephForwardProjectionImageFilter", self._radiographs(blank), self._volume(x))
        return np.ascontiguousarray(radiographs.swapaxes(0, 1)) * self._unit

    def adjoint(self, y: np.ndarray) -> np.ndarray:
        """Backproject the sinograms."""
        radiographs, blank = np.ascontiguousarray(y.swapaxes(0, 1)), np.zeros(self.domain_shape, np.float32)
        return self._run("JosephBackProjectionImageFilter", self._volume(blank), self._radiographs(radiographs)) * (
            self._unit
        )

    @property
    def _stack_shape(self) -> tuple[int, int, int]:
        return (self.geometry.n_views, self.geometry.n_rows, self.geometry.n_cols)

    @property
    def _unit(self) -> np.float32:
        """Factor from RTK's lengths, in the unit of the beam, to voxels times their size."""
        return np.float32((self.grid.voxel_size or 1.0) / self.edge)

    def _run(self, name: str, onto: Any, source: Any) -> np.ndarray:
        itk = self._itk
        kind = itk.Image[itk.F, 3]
        step = getattr(itk.RTK, name)[kind, kind].New()
        step.SetGeometry(self._rays)
        step.SetInput(0, onto)
        step.SetInput(1, source)
        step.Update()
        return np.asarray(itk.array_from_image(step.GetOutput()))

    @cached_property
    def _rays(self) -> Any:
        """RTK's geometry; detectors are moved along their rays until all columns are as wide as those of the first."""
        itk, beam = self._itk, self.geometry
        rays = itk.RTK.ThreeDCircularProjectionGeometry.New()
        for source, centre, u, v in zip(beam.sources, beam.centres, beam.us, beam.vs, strict=True):
            moved = source + (centre - source) * (self._pixel[0] / np.linalg.norm(u))
            points = (itk.Point[itk.D, 3]([float(value) for value in _TO_RTK @ one]) for one in (source, moved))
            ways = (
                itk.Vector[itk.D, 3]([float(value) for value in _TO_RTK @ (one / np.linalg.norm(one))])
                for one in (u, -v)
            )
            if not rays.AddProjection(*points, *ways):
                raise GeometryError(
                    f"a view must have its source in front of the detector, got source {source} and detector {centre}; "
                    "correct the vectors"
                )
        return rays

    def _volume(self, x: np.ndarray) -> Any:
        ways = np.stack([_TO_RTK @ [1, 0, 0], _TO_RTK @ [0, -1, 0], _TO_RTK @ [0, 0, -1]], axis=1)
        z, row, col = self.grid.first
        return self._image(x, [self.edge] * 3, ways, _TO_RTK @ [col, row, z] * self.edge)

    def _radiographs(self, y: np.ndarray) -> Any:
        (across, down), (_, n_rows, n_cols) = self._pixel, self._stack_shape
        first = np.array([-(n_cols - 1) / 2 * across, (n_rows - 1) / 2 * down, 0.0])
        return self._image(y, [across, down, 1.0], np.diag([1.0, -1.0, 1.0]), first)

    def _image(self, array: np.ndarray, spacing: list[float], ways: np.ndarray, first: np.ndarray) -> Any:
        image = self._itk.image_from_array(array)  # a copy, because a view would not keep the array alive
        image.SetSpacing(spacing)
        image.SetDirection(self._itk.matrix_from_array(np.ascontiguousarray(ways)))
        image.SetOrigin([float(value) for value in first])
        return image


def _itk() -> Any:
    """Import ITK with RTK."""
    itk = require("itk", "cone")
    if not hasattr(itk, "RTK"):
        raise MissingExtra("itk-rtk must be installed for this, got ITK without RTK; run: pip install 'quietray[cone]'")
    return itk
