"""A method for httomo pipelines: takes projections, returns a denoised volume.

httomo reads the properties of a method from its package ``httomo-backends``, where this method must be registered once:
``python -m quietray.adapters.httomo`` writes its record there, and a template of a pipeline.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import quietray
from quietray.adapters.arrays import require_transmissions

__all__ = ["denoise", "output_dims", "register"]

_METHOD = """\
# Description of quietray.adapters.httomo.denoise for httomo, by `python -m quietray.adapters.httomo`.
adapters:
  httomo:
    denoise:
      pattern: sinogram
      output_dims_change: True
      implementation: cpu
      memory_gpu: None
      save_result_default: True
      padding: False
"""
_TEMPLATE = """\
- method: denoise
  module_path: quietray.adapters.httomo
  parameters:
    center: null
    normalised: false
    budget: 10m
    model: null
    method: auto
    device: auto
"""
_SUPPORT = "from quietray.adapters.httomo import output_dims as _calc_output_dim_denoise\n"
_DATABASE = Path("methods_database/packages/backends/quietray")
_WHOLE = "run httomo with one process and max-cpu-slices of {rows} or more"


def denoise(
    data: Any,
    angles_radians: Any,
    flats: Any,
    darks: Any,
    center: float | None = None,
    normalised: bool = False,
    budget: str = "10m",
    model: str | None = None,
    **settings: Any,
) -> np.ndarray:
    """Denoise and reconstruct the data of a pipeline.

    Parameters
    ----------
    data
        ``(view, row, col)`` counts directly from the loader; transmissions with `normalised`.  Training needs all rows;
        a model can be applied to some of them at a time.
    angles_radians
        Angles in radians, ``(view,)``.
    flats, darks
        Frames ``(frame, row, col)`` of all rows; not used with `normalised`.
    center
        Column of the rotation axis as found by httomo; None to find it here.
    normalised
        Whether flats and darks have already been applied.
    budget
        Time for the whole method.
    model
        Folder of a trained model, which is applied without training.
    **settings
        Other settings by name, such as ``method``, ``device``, ``start``; see :class:`quietray.Settings`.

    Returns
    -------
    ndarray
        Attenuation ``(y, row, x)`` in 1/pixel, in httomo's layout of volumes.

    Raises
    ------
    QuietrayError
        The data do not contain what is stated, or rows are missing.

    Examples
    --------
    >>> denoise(np.ones((4, 2, 8)), np.arange(4), np.ones((3, 6, 8)), np.ones((3, 6, 8)))
    Traceback (most recent call last):
    quietray.errors.SettingsError: data must hold all 6 rows, on which the network is trained, got 2; run httomo with
    one process and max-cpu-slices of 6 or more, or give a model
    """
    (n_views, n_rows, n_cols), every = data.shape, int(flats.shape[1])
    if n_rows != every and (model is None or not normalised):
        also = "or give a model" if normalised or model is None else "or normalise first, with normalised: true"
        of_which = "on which the network is trained" if model is None else "like the flats"
        raise quietray.SettingsError(
            f"data must hold all {every} rows, {of_which}, got {n_rows}; {_WHOLE.format(rows=every)}, {also}"
        )
    if normalised:
        require_transmissions(data)
        scan = _scan(data, angles_radians, center)
    else:
        _require_counts(data, flats, n_views)
        scan = _scan(data, angles_radians, center, flats=flats, darks=darks)
    if model is None:
        result = quietray.denoise(scan, budget=budget, half=False, **settings)
    else:
        result = quietray.apply(model, scan, half=False, **settings)
    volume = np.asarray(result.volume, np.float32)
    if volume.shape != (n_rows, n_cols, n_cols):
        raise quietray.SettingsError(
            f"httomo expects a volume of {(n_rows, n_cols, n_cols)}, got {volume.shape}; leave out rows and region"
        )
    return np.ascontiguousarray(volume.swapaxes(0, 1))


def output_dims(non_slice_dims_shape: tuple[int, int], **parameters: Any) -> tuple[int, int]:
    """Return the size of a slice from the numbers of views and columns; called by httomo.

    Examples
    --------
    >>> output_dims((180, 64))
    (64, 64)
    """
    return non_slice_dims_shape[1], non_slice_dims_shape[1]


def register(root: Path | None = None) -> list[Path]:
    """Register the method with httomo: write its record and its template, and return the files.

    Parameters
    ----------
    root
        Folder of the package ``httomo_backends``; None for the installed one.

    Raises
    ------
    MissingExtra
        The package is not installed.
    ResourceError
        The package cannot be written to.
    """
    if root is None:
        try:
            import httomo_backends
        except ImportError as error:
            raise quietray.MissingExtra(
                f"httomo must be installed for this, got {error}; see its documentation, or docs/adapters.md"
            ) from error
        root = Path(httomo_backends.__path__[0])
    texts = {
        root / _DATABASE / "quietray.yaml": _METHOD,
        root / _DATABASE / "supporting_funcs/adapters/httomo.py": _SUPPORT,
        root / "yaml_templates/quietray/quietray.adapters.httomo/denoise.yaml": _TEMPLATE,
    }
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    except OSError as error:
        raise quietray.ResourceError(
            f"the folder {root} must be writable, got {error}; run this as the user who installed httomo"
        ) from error
    return list(texts)


def _scan(data: Any, angles: Any, center: float | None, **frames: Any) -> quietray.Scan:
    axis = None if center is None else float(center)
    return quietray.Scan.from_arrays(data, angles, degrees=False, rotation_axis=axis, **frames)


def _require_counts(data: Any, flats: Any, n_views: int) -> None:
    """Raise unless the data are counts with matching flats."""
    if flats.shape[0] == n_views:
        raise quietray.FormatError(
            f"counts must come with flats, got as many as views, {n_views}, which httomo passes if there are none; "
            "name them in the loader, or set normalised: true"
        )
    high, open_beam = float(np.max(data[n_views // 2])), float(np.median(flats))
    if high < 0.05 * open_beam:
        raise quietray.FormatError(
            f"data must be counts up to about those of the flats, {open_beam:.4g}, got {high:.4g} at most in a view, "
            "as after a normalisation; put this method directly after the loader, or set normalised: true"
        )


if __name__ == "__main__":
    for place in register():
        print(place)
