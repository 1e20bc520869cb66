"""What a verb was handed: a scan, images, a path, or arrays, which become a scan."""

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
    """Return what a verb is to work on, where its output goes, and its settings.

    Parameters
    ----------
    data
        A scan or images, as they are; the path of either, which is read; or projections ``(view, row, col)``, which
        become a scan as :meth:`quietray.Scan.from_arrays` says.
    out
        The second thing that the verb was handed: a place, None, or the angles of projections.
    settings
        The third one: settings, None, or after angles a place.
    given
        The verb's keywords; those that belong to arrays are taken out.

    Raises
    ------
    SettingsError
        What belongs to arrays is given for something else, or the angles are given twice.
    QuietrayError
        What is given is no scan.

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
