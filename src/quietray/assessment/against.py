"""Comparison of volumes and images with a reference, with range, window and mask stated for every figure."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from quietray.errors import FormatError, GeometryError, SettingsError
from quietray.geometry import ConeBeam
from quietray.io import ImageSeries, LazyFrames, StoredVolume, image_format, read, read_images, read_volume
from quietray.metrics.image import compare, disc
from quietray.metrics.tissue import tissue_bias
from quietray.operators.backprojection import ConeRays
from quietray.operators.beams import rays
from quietray.preparation.prepare import chosen_rows
from quietray.reconstruct import FBP, FDK
from quietray.scan import Scan
from quietray.types import Volume

__all__ = ["both_images", "evaluate_images", "evaluate_volumes", "figures_of"]

_SMOOTHING, _EROSION = 5, 2  # in pixels; for choosing tissues
_CLIPPED = "values outside it are clipped, for all these figures"
_CHOSEN = (
    f"where the median of {_SMOOTHING} x {_SMOOTHING} pixels of the reference lies in the band in most of the "
    f"surrounding pixels, {_EROSION} pixels from the edge of that region; result minus reference, values not clipped"
)


def both_images(result: Path, reference: Path) -> tuple[Path, Path] | None:
    """Return the images that two paths hold, such as ``series`` in the folder of a run; None if either has none.

    TIFF files do not say what they hold, and a volume can be either: they are read as images if the other path holds
    images, and as a volume otherwise.

    Examples
    --------
    >>> both_images(Path("nowhere"), Path("nowhere")) is None
    True
    """
    inner = [path / "series" if image_format(path / "series") else path for path in (result, reference)]
    kinds = [image_format(path) for path in inner]
    if None in kinds or ({*kinds} <= {"tiff", "volume"} and inner == [result, reference]):
        return None
    return inner[0], inner[1]


def evaluate_images(
    result: str | Path | ImageSeries,
    reference: str | Path | ImageSeries,
    *,
    window: tuple[float, float] | None = None,
    data_range: float | None = None,
    radius: float | None = None,
) -> dict[str, Any]:
    """Compare images with a reference.

    Parameters
    ----------
    result, reference
        Series of images, or their paths; a reference with a single image is used for all.
    window, data_range
        See :func:`figures_of`.
    radius
        Only pixels within this fraction of the half-width are compared; None compares all that both have measured.

    Returns
    -------
    dict
        The figures, and descriptions of how they were computed, ready for JSON.

    Raises
    ------
    QuietrayError
        A file cannot be read, or sizes, pixel sizes or units differ.
    """
    images, truth = (one if isinstance(one, ImageSeries) else read_images(one) for one in (result, reference))
    wanted = truth.array
    if len(wanted) == 1:
        wanted = np.broadcast_to(wanted, (images.n_images, *wanted.shape[1:]))
    if wanted.shape != images.images.shape:
        raise GeometryError(f"the images must have the reference's size {wanted.shape}, got {images.images.shape}")
    if images.unit != truth.unit and "raw" not in (images.unit, truth.unit):
        raise GeometryError(f"the images must have the reference's unit {truth.unit}, got {images.unit}")
    if images.spacing and truth.spacing and not np.allclose(images.spacing, truth.spacing, rtol=1e-3):
        raise GeometryError(
            f"the images must have the reference's pixels of {truth.spacing} mm, got {images.spacing}; "
            "compare images of one reconstruction"
        )
    mask, words = _measured(images, truth, radius)
    units = (images.unit, truth.unit)
    figures = figures_of(images.array, wanted, units, mask, words, window=window, data_range=data_range)
    return figures | {"images": images.n_images, "reference": truth.source}


def evaluate_volumes(
    result: Any,
    reference: Any,
    *,
    against: str = "clean-fbp",
    rows: str | None = None,
    radius: float = 0.97,
    window: tuple[float, float] | None = None,
    data_range: float | None = None,
    step: int | None = None,
) -> dict[str, Any]:
    """Compare a volume with a reference.

    Parameters
    ----------
    result
        Volume ``(z, y, x)``, or a series of them: a path or an array, which may be lazy.
    reference
        A volume as above, or a simulated scan.
    against
        For a simulated scan: ``clean-fbp`` is the reconstruction (Ram-Lak, known axis) of its noise-free projections,
        ``phantom`` the phantom on the voxel grid.
    rows
        Slices of the reference that the result covers.
    radius
        Only voxels within this fraction of the half-width are compared.
    window, data_range
        See :func:`figures_of`.
    step
        Step or channel to compare, if the result is a series, or both are.

    Returns
    -------
    dict
        The figures, and descriptions of how they were computed, ready for JSON.

    Raises
    ------
    QuietrayError
        A file cannot be read, or the shapes differ.
    """
    _check_positive("radius", radius)
    _check_positive("data-range", data_range)
    volume = _volume(result)
    chosen = _of_series(volume, step)
    name, truth, unit = _reference(reference, against, rows, step)
    n_y, n_x = truth.shape[1:]
    mask = disc(n_y, n_x, radius) if radius < 2 else np.ones((n_y, n_x), bool)
    words = f"disc of {radius:g} half-widths" if radius < 2 else "all voxels"
    units = (volume.unit or "not stated", unit or "not stated")
    figures = figures_of(chosen, truth, units, mask, words, window=window, data_range=data_range)
    return figures | {"slices": int(truth.shape[0]), "reference": name}


def figures_of(
    images: Volume,
    reference: Float[np.ndarray, "_ _ _"],  # the shape is checked by compare, with a clearer message
    units: tuple[str, str],
    mask: Bool[np.ndarray, "_ _"],
    mask_name: str,
    *,
    window: tuple[float, float] | None = None,
    data_range: float | None = None,
) -> dict[str, Any]:
    """Return PSNR, SSIM, RMSE and bias, with their definitions; if both are in HU, also the bias of each tissue.

    Parameters
    ----------
    images, reference
        Images ``(image, y, x)``.
    units
        Units of the images and of the reference.
    mask
        Pixels of every image to compare.
    mask_name
        Description of the mask.
    window
        Lowest and highest value: both images are clipped to them, and the range is their difference.
    data_range
        Range for PSNR and SSIM; by default that of the window, else that of the reference within the mask.

    Returns
    -------
    dict
        The figures, ready for JSON; ``tissues`` are :class:`quietray.metrics.tissue.TissueBias` of the values before
        clipping.

    Raises
    ------
    QuietrayError
        The shapes differ, the window is empty, or the range is not positive.

    Examples
    --------
    >>> reference = np.linspace(-100, 100, 256, dtype=np.float32).reshape(1, 16, 16)
    >>> found = figures_of(reference + 2, reference, ("raw", "raw"), np.ones((16, 16), bool), "all", window=(0.0, 50.0))
    >>> found["data_range"], found["window"], "tissues" in found
    (50.0, '0 to 50 raw', False)
    """
    _check_positive("data-range", data_range)
    unit = units[0] if units[0] == units[1] else f"{units[0]}, of the reference {units[1]}"
    one, other, span, said = images, reference, data_range, "as asked"
    if window is not None:
        low, high = window
        if not low < high:
            raise SettingsError(f"the window must be a lower and a higher value, got {low:g} {high:g}")
        one, other = np.clip(images, low, high), np.clip(reference, low, high)
        span, said = (high - low, "the window's") if span is None else (span, said)
    if span is None and mask.shape == other.shape[1:] and mask.any():  # otherwise, compare reports what is wrong
        inside = other[:, mask]
        span, said = float(inside.max() - inside.min()), "max - min of the reference within the mask"
    found = asdict(compare(one, other, data_range=span, mask=mask, mask_name=mask_name))
    figures = {"psnr_db": found.pop("psnr"), **found, "data_range_is": said, "window": "none", "unit": unit}
    if window is not None:
        figures |= {"window": f"{window[0]:g} to {window[1]:g} {unit}", "window_is": _CLIPPED}
    if units == ("HU", "HU"):
        biases = tissue_bias(images, reference, mask, smoothing=_SMOOTHING, erosion=_EROSION)
        figures |= {"tissues": [each.record() for each in biases], "tissues_are": _CHOSEN}
    return figures


def _check_positive(name: str, number: float | None) -> None:
    if number is not None and not number > 0:
        raise SettingsError(f"{name} must be positive, got {number:g}")


def _measured(images: ImageSeries, truth: ImageSeries, radius: float | None) -> tuple[np.ndarray, str]:
    """Return the pixels to compare in every image, and a description."""
    _check_positive("radius", radius)
    measured = np.asarray((images.weight > 0) & (truth.weight > 0))
    padded = images.padding is not None or truth.padding is not None
    words = "all pixels except padding" if padded else "all pixels"
    if radius is None or radius >= 2:
        return measured, words
    n_y, n_x = measured.shape
    return measured & disc(n_y, n_x, radius), f"disc of {radius:g} half-widths" + (", no padding" if padded else "")


def _volume(found: Any) -> StoredVolume:
    """Return a volume given as a path or an array; an array has no unit."""
    if isinstance(found, StoredVolume):
        return found
    if isinstance(found, (str, Path)):
        return read_volume(found)
    if len(getattr(found, "shape", ())) not in (3, 4):
        raise FormatError(
            f"a volume must be an array (z, y, x), or a series (step, z, y, x), got {_kind(found)}; give such an "
            "array, or a path"
        )
    return StoredVolume(LazyFrames(found), Path("an array"))


def _kind(found: Any) -> str:
    shape = getattr(found, "shape", None)
    return type(found).__name__ if shape is None else f"one of shape {tuple(shape)}"


def _of_series(volume: StoredVolume, step: int | None) -> Volume:
    """Return a three-dimensional volume: the volume itself, or a step or channel of a series."""
    if len(volume.shape) == 3:
        return np.asarray(volume, dtype=np.float32)
    last = volume.shape[0] - 1
    if step is None or not 0 <= step <= last:
        got = "none" if step is None else step
        raise SettingsError(
            f"a step or channel of the series in {volume.path} must be chosen, got {got}; give --step 0 to {last}"
        )
    return np.asarray(volume[step], dtype=np.float32)


def _reference(found: Any, against: str, rows: str | None, step: int | None) -> tuple[str, Volume, str | None]:
    """Return a description of the reference, its slices, and their unit."""
    scan = found if isinstance(found, Scan) else None
    if isinstance(found, (str, Path)):
        with suppress(FormatError, GeometryError):  # not a scan: a volume has no angles
            scan = read(found)
    if scan is None:
        stored = _volume(found)
        chosen = chosen_rows(rows, stored.shape[-3])
        return f"volume {stored.path.name}", _of_series(stored, step)[chosen.start : chosen.stop], stored.unit
    source = Path(scan.source).name or "the scan"
    chosen = chosen_rows(rows, scan.n_rows)
    band = slice(chosen.start, chosen.stop)
    unit = scan.geometry.grid().unit
    if against == "phantom":
        if scan.truth is None:
            raise FormatError(f"{source} must hold the ground truth, got a measured scan; give a volume")
        return f"phantom in {source}", np.asarray(scan.truth[band], dtype=np.float32), unit
    if scan.clean is None:
        raise FormatError(f"{source} must hold noise-free projections, got a measured scan; give a volume")
    said = f"of the noise-free projections in {source}"
    if isinstance(scan.geometry, ConeBeam):
        whole = np.ascontiguousarray(np.swapaxes(np.asarray(scan.clean[:], np.float32), 0, 1))
        settled = scan.geometry.settled()
        grid = settled.grid().slab(chosen.start, chosen.stop)
        return f"FDK (ram-lak) {said}", FDK()(ConeRays(settled, grid), whole), unit
    sinograms = np.ascontiguousarray(np.swapaxes(np.asarray(scan.clean[:, band], np.float32), 0, 1))
    geometry = scan.geometry.rows(len(chosen))
    A: Any = rays(geometry.settled())
    return f"FBP (ram-lak) {said}", FBP()(A, sinograms), unit
