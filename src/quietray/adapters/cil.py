"""Scans from the Core Imaging Library (CIL), and volumes for it.

In CIL, the beam rotates about the object by minus the angle, rows of the panel count from its ``origin``, and slices
and rows of a volume count upwards.  In quietray, the beam rotates by the angle, and all of these count downwards.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np

import quietray
from quietray.adapters.arrays import require_transmissions, transmissions

__all__ = ["from_cil", "to_cil"]

_MM = {"mm": 1.0, "um": 1e-3, "µm": 1e-3, "nm": 1e-6, "cm": 10.0, "m": 1e3}
_STRAIGHT = 1e-6  # tolerance of a direction, relative to a unit vector
_AXES = ("angle", "vertical", "horizontal")


def from_cil(data: Any, flats: Any = None, darks: Any = None, *, log: bool = False) -> quietray.Scan:
    """Return a scan from CIL's ``AcquisitionData``.

    Parameters
    ----------
    data
        Parallel or cone beam, 2D or 3D, a single channel, axes in any order: counts with `flats`, transmissions
        without, line integrals with `log`.
    flats, darks
        ``(frame, vertical, horizontal)`` or one frame, in counts, with the layout of the data; AcquisitionData or
        arrays.
    log
        Whether the logarithm has already been taken, as by ``TransmissionAbsorptionConverter``.

    Returns
    -------
    Scan
        Scan in mm if the geometry states its unit of length, else in pixels.

    Raises
    ------
    QuietrayError
        The geometry is not supported, or the data do not contain what is stated.

    Examples
    --------
    >>> scan = from_cil(acquisition, flats, darks)  # doctest: +SKIP
    >>> volume = to_cil(quietray.denoise(scan).volume, acquisition)  # doctest: +SKIP
    """
    geometry = data.geometry
    view = _laid_out(data, geometry)
    opened, dark = (None if one is None else _panel(one, geometry) for one in (flats, darks))
    if log:
        if opened is not None or dark is not None:
            raise quietray.SettingsError(
                "flats and darks must be left out with log=True: line integrals are corrected already; "
                "leave them out, or give counts"
            )
        view = transmissions(view)
    elif opened is None:
        require_transmissions(view)
    scan = quietray.Scan.from_arrays(view, geometry=_beam(geometry), flats=opened, darks=dark)
    return dataclasses.replace(scan, provenance={"format": "CIL AcquisitionData"})


def to_cil(volume: Any, data: Any) -> Any:
    """Return CIL's ``ImageData`` of a volume, at the position of CIL's own reconstruction of the data.

    Parameters
    ----------
    volume
        Volume ``(z, y, x)``: ``result.volume``, or the return value of :func:`quietray.reconstruct`.
    data
        The ``AcquisitionData`` from which the scan was made.

    Returns
    -------
    ImageData
        Attenuation in 1 over the unit of length of the geometry.

    Raises
    ------
    MissingExtra
        CIL is not installed.
    GeometryError
        The volume is not that of the whole data.
    """
    try:
        from cil.framework import ImageData
    except ImportError as error:
        raise quietray.MissingExtra(
            f"CIL must be installed for this, got {error}; it is on conda: conda install -c conda-forge -c "
            "https://tomography.stfc.ac.uk/conda cil, or take numpy.asarray(volume)"
        ) from error
    image = data.geometry.get_ImageGeometry()
    found = np.asarray(volume, np.float32)[::-1, ::-1]
    wanted = (1, *image.shape) if len(image.shape) == 2 else tuple(image.shape)
    if found.shape != wanted:
        raise quietray.GeometryError(
            f"the volume must cover all of the data, {wanted}, got {found.shape}; leave out rows and region"
        )
    known = _MM.get(data.geometry.config.units)
    per_unit = known if known is not None else 1.0 / image.voxel_size_x
    return ImageData(np.ascontiguousarray(found * np.float32(per_unit)).reshape(image.shape), geometry=image)


def _laid_out(data: Any, geometry: Any) -> np.ndarray:
    """Return the data as ``(view, row, col)``, with the highest row first."""
    labels = [str(getattr(label, "value", label)) for label in geometry.dimension_labels]
    array = np.asarray(data.as_array())
    unknown = [label for label in labels if label not in _AXES]
    if unknown:
        raise quietray.FormatError(
            f"the data must have the axes {', '.join(_AXES)}, got {', '.join(labels)}; take one channel, with "
            "data.get_slice(channel=0)"
        )
    order = [labels.index(label) for label in _AXES if label in labels]
    lone = tuple(number for number, label in enumerate(_AXES) if label not in labels)
    return _downwards(np.expand_dims(array.transpose(order), lone), geometry)


def _panel(frames: Any, geometry: Any) -> np.ndarray:
    """Return frames of the panel as ``(frame, row, col)``, with the highest row first."""
    array = np.asarray(frames.as_array() if hasattr(frames, "as_array") else frames)
    n_cols, n_rows = (int(size) for size in geometry.config.panel.num_pixels)
    if array.size % (n_rows * n_cols) or array.shape[-1] != n_cols:
        raise quietray.FormatError(
            f"flats and darks must be frames of the panel, ({n_rows}, {n_cols}), got shape {array.shape}; give them "
            "laid out like the data"
        )
    return _downwards(array.reshape(-1, n_rows, n_cols), geometry)


def _downwards(frames: np.ndarray, geometry: Any) -> np.ndarray:
    """Return frames whose rows point down the panel and whose columns point along its x direction."""
    origin = geometry.config.panel.origin
    rows, cols = (slice(None, None, -1 if word in origin else 1) for word in ("bottom", "right"))
    return frames[:, rows, cols]


def _beam(geometry: Any) -> Any:
    """Return the beam in CIL's frame of reference: the axis along z, the rays along y at angle zero."""
    kind = str(geometry.geom_type).rpartition(".")[2].lower()
    if kind not in ("parallel", "cone"):
        raise quietray.GeometryError(f"the geometry must be a parallel or a cone beam, got {kind}; convert it in CIL")
    geometry = geometry.copy()
    config = geometry.config
    config.system.align_reference_frame("cil")
    angles = np.asarray(config.angles.angle_data, np.float64) + config.angles.initial_angle
    turned = -np.deg2rad(angles) if str(config.angles.angle_unit) == "degree" else -angles
    known = _MM.get(config.units)
    width, height = (float(size) * (known or 1.0) for size in config.panel.pixel_size)
    scale = known or 1.0 / width
    if known is None:
        width, height = 1.0, height / width
    n_cols, n_rows = (int(size) for size in config.panel.num_pixels)
    system, flat = config.system, len(config.system.detector.position) == 2
    u = _in_space(system.detector.direction_x)
    v = np.array([0.0, 0.0, 1.0]) if flat else _in_space(system.detector.direction_y)
    centre = _in_space(system.detector.position) * scale
    size = width if known else None
    if kind == "parallel":
        _require_straight(u, v, _in_space(system.ray.direction))
        axis = (n_cols - 1) / 2 - float(centre @ u) / width
        row = None if flat or np.isclose(width, height) else height
        if row is not None and size is None:
            raise quietray.GeometryError(
                f"pixels must be square if their unit is not known, got {width:g} x {height:g}; give the geometry its "
                "units, such as units='mm'"
            )
        return quietray.ParallelBeam(turned + np.arctan2(u[1], u[0]), n_rows, n_cols, axis, size, row_height=row)
    source = _in_space(system.source.position) * scale
    begun = np.arctan2(source[0], -source[1])
    if flat:
        height = width
    sources, centres, us, vs = (_turned_about_z(one, turned) for one in (source, centre, width * u, -height * v))
    unit: Literal["mm", "pixel"] = "mm" if known else "pixel"
    cone = quietray.ConeBeam(turned + begun, n_rows, n_cols, sources, centres, us, vs, unit)
    towards = -source / np.linalg.norm(source)
    if not flat or abs(float(towards @ u)) > _STRAIGHT:
        return cone
    to_axis, to_detector = float(np.linalg.norm(source)), float((centre - source) @ towards)
    axis = (n_cols - 1) / 2 - float(centre @ u) / width
    return quietray.FanBeam(turned + begun, 1, n_cols, to_axis, to_detector, axis, size)


def _in_space(vector: Any) -> np.ndarray:
    """Return a vector in two or three dimensions as ``(x, y, z)``."""
    found = np.asarray(vector, np.float64).ravel()
    return np.append(found, 0.0) if len(found) == 2 else found


def _turned_about_z(vector: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Return a vector rotated about the z axis by each angle."""
    cos, sin = np.cos(angles), np.sin(angles)
    x, y, z = vector
    return np.stack([cos * x - sin * y, sin * x + cos * y, np.full(len(angles), z)], axis=1)


def _require_straight(u: np.ndarray, v: np.ndarray, ray: np.ndarray) -> None:
    """Raise unless a parallel beam is at a right angle to its panel, with columns along the axis."""
    off = max(abs(float(u[2])), abs(float(v[0])), abs(float(v[1])), abs(float(ray @ u)), abs(float(ray[2])))
    if off > _STRAIGHT or v[2] < 0:
        raise quietray.GeometryError(
            "a parallel beam must be perpendicular to its panel, and the panel parallel to the rotation axis, got a "
            f"tilt of about {np.rad2deg(np.arcsin(min(1.0, off))):.2f} degrees; rotate the radiographs in CIL first"
        )
