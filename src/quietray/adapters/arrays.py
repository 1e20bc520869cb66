"""Scans from tomopy and algotom: arrays, with angles in radians."""

from __future__ import annotations

from typing import Any

import numpy as np

import quietray

__all__ = ["from_tomopy", "transmissions"]


def from_tomopy(
    projections: Any,
    theta: Any,
    flats: Any = None,
    darks: Any = None,
    *,
    order: str = "projection",
    log: bool = False,
    rotation_axis: float | None = None,
    pixel_size: float | None = None,
) -> quietray.Scan:
    """Return a scan from arrays in the layout of tomopy or algotom.

    Parameters
    ----------
    projections
        Array ``(view, row, col)``, or with ``order="sinogram"`` ``(row, view, col)``: counts with `flats`,
        transmissions without, line integrals with `log`.
    theta
        Angles in radians, ``(view,)``.
    flats, darks
        Frames ``(frame, row, col)`` in counts.
    order
        Which axis comes first: ``projection`` or ``sinogram``.
    log
        Whether the logarithm has already been taken, as by ``tomopy.minus_log``; the array is then copied in memory.
    rotation_axis
        Column of the axis, with 0 at the centre of the first pixel, as in algotom; None to find it.  Some functions of
        tomopy count ``center`` in the same way, others from the edge of the first pixel, which gives half a pixel more.
    pixel_size
        Pixel size in mm.

    Returns
    -------
    Scan
        Scan for :func:`quietray.denoise`, whose ``result.volume`` is ``(z, y, x)``.

    Raises
    ------
    QuietrayError
        The arrays do not match, or do not contain what is stated.

    Examples
    --------
    >>> sinograms = np.full((2, 90, 8), 0.1)
    >>> scan = from_tomopy(sinograms, np.linspace(0, np.pi, 90, endpoint=False), order="sinogram", log=True)
    >>> scan.projections.shape, round(float(scan.projections[0, 0, 0]), 3)
    ((90, 2, 8), 0.905)
    """
    if order not in ("projection", "sinogram"):
        raise quietray.SettingsError(f"order must be 'projection' or 'sinogram', got {order!r}")
    if order == "sinogram":
        if not hasattr(projections, "swapaxes"):
            raise quietray.FormatError(
                f"sinograms must be an array that can swap its axes, got {type(projections).__name__}; "
                "read it into memory first, as with numpy.asarray"
            )
        projections = projections.swapaxes(0, 1) if len(projections.shape) == 3 else projections
    if log:
        if flats is not None or darks is not None:
            raise quietray.SettingsError(
                "flats and darks must be left out with log=True: line integrals are corrected already; "
                "leave them out, or give counts"
            )
        projections = transmissions(projections)
    elif flats is None:
        require_transmissions(projections)
    return quietray.Scan.from_arrays(
        projections,
        theta,
        flats=flats,
        darks=darks,
        degrees=False,
        rotation_axis=rotation_axis,
        pixel_size=pixel_size,
    )


def transmissions(integrals: Any) -> np.ndarray:
    """Return the transmissions that correspond to line integrals.

    Examples
    --------
    >>> [round(one, 3) for one in transmissions([0.0, 1.0]).tolist()]
    [1.0, 0.368]
    """
    return np.exp(-np.asarray(integrals, np.float32))


def require_transmissions(views: Any) -> None:
    """Raise if supposed transmissions look like line integrals, with much of a view at zero or below.

    Raises
    ------
    FormatError
        They do.

    Examples
    --------
    >>> require_transmissions(np.array([[[0.0, -0.1, 0.9]]]))
    Traceback (most recent call last):
    quietray.errors.FormatError: projections without flats must be transmissions, near 1 beside the object, got 67 %
    of a view at 0 or below, as for line integrals; give log=True, or counts with their flats
    """
    view = np.asarray(views[int(views.shape[0]) // 2])
    share = float((view <= 0).mean())
    if share > 0.02:
        raise quietray.FormatError(
            f"projections without flats must be transmissions, near 1 beside the object, got {100 * share:.0f} % of a "
            "view at 0 or below, as for line integrals; give log=True, or counts with their flats"
        )
