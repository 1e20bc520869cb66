"""Arguments of the verbs: a scan, images, a path, or arrays, which are converted to a scan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quietray.errors import SettingsError
from quietray.images import ImageSeries
from quietray.io import image_format, read, read_images
from quietray.scan import Scan

__all__ = ["handed"]

_OF_ARRAYS = ("angles", "flats", "darks", "degrees", "pixel_size", "geometry")


def handed(data: Any, out: Any, settings: Any, given: Any) -> tuple[Scan | ImageSeries, str | Path | None, Any]:
    """Return the data that a verb works on, the place of its output, and its settings.

    Parameters
    ----------
    data
        A scan or images, unchanged; the path of either, which is read; or projections ``(view, row, col)``, which are
        converted with :meth:`quietray.Scan.from_arrays`.
    out
        Second argument of the verb: a place, None, or the angles of projections.
    settings
        Third argument: settings, None, or a place if the second argument holds angles.
    given
        Keywords of the verb; those for arrays are removed.

    Raises
    ------
    SettingsError
        Keywords for arrays are given with other data, or the angles are given twice.
    QuietrayError
        The data are not a scan.

    Examples
    --------
    >>> import numpy as np
    >>> given = {"flats": np.full((2, 4, 6), 1000), "budget": "1m"}
    >>> scan, out, settings = handed(np.full((90, 4, 6), 700), np.arange(90) * 2, "here", given)
    >>> scan.n_views, out, settings, given
    (90, 'here', None, {'budget': '1m'})
    >>> handed(scan, None, None, {"angles": np.arange(90)})
    Traceback (most recent call last):
    quietray.errors.SettingsError: angles must be left out for a scan, which has its own, got both; give the arrays
    alone, or change the scan by dataclasses.replace
    """
    own = {name: given.pop(name) for name in _OF_ARRAYS if name in given}
    if not (out is None or isinstance(out, (str, Path))):
        if "angles" in own:
            raise SettingsError("angles must be given once, got them as second argument and as angles=; leave one out")
        own["angles"], out = out, None
        if isinstance(settings, (str, Path)):
            out, settings = settings, None
    if not isinstance(data, (Scan, ImageSeries, str, Path)):
        return Scan.from_arrays(data, **own), out, settings
    if own:
        name, what = next(iter(own)), "a file" if isinstance(data, (str, Path)) else "a scan"
        what = "images" if isinstance(data, ImageSeries) else what
        instead = "give them to quietray.read" if what == "a file" else "change the scan by dataclasses.replace"
        raise SettingsError(
            f"{name} must be left out for {what}, which has its own, got both; give the arrays alone, or {instead}"
        )
    if isinstance(data, (Scan, ImageSeries)):
        return data, out, settings
    return (read if image_format(data) in (None, "tiff") else read_images)(data), out, settings
