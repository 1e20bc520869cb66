"""Detector rows that a run works on, as given by the user."""

from __future__ import annotations

import re

from quietray.errors import GeometryError, SettingsError

__all__ = ["chosen_rows"]


def chosen_rows(text: str | None, n_rows: int) -> range:
    """Return the detector rows in ``start:stop``; either number may be left out.

    Raises
    ------
    SettingsError
        The text is not of this form.
    GeometryError
        The rows are not on the detector.

    Examples
    --------
    >>> chosen_rows("55:128", 128)
    range(55, 128)
    """
    match = re.fullmatch(r"\s*(\d*)\s*:\s*(\d*)\s*", text or ":")
    if not match:
        raise SettingsError(f"rows must be like 55:128, got '{text}'")
    rows = range(int(match[1] or 0), int(match[2] or n_rows))
    if not 0 <= rows.start < rows.stop <= n_rows:
        raise GeometryError(f"rows must lie within 0:{n_rows} and not be empty, got {rows.start}:{rows.stop}")
    return rows
