"""Overview page of a batch: a row for each scan, with a link to its report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import escape

from quietray.checkpoint import replace_file
from quietray.report.words import duration

__all__ = ["write_batch"]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1c2330 }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .4rem .8rem; border-bottom: 1px solid #d8dde6; vertical-align: top }
.failed { color: #a4262c } .look { color: #8a5a00 } small { color: #5b6575 }
"""
_COLOURS = {"failed": "failed", "Do not use it": "failed", "Look at this first": "look", "Nothing gained": "look"}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{told}</title><style>{style}</style></head>
<body><h1>{told}</h1>
<table><thead><tr><th>Scan</th><th>Verdict</th><th>Estimated gain</th><th>Time</th><th>Model</th></tr></thead>
<tbody>{rows}</tbody></table></body></html>
"""


def write_batch(path: Path, entries: Sequence[Any], total: int) -> None:
    """Write the page of a batch, one file without scripts; names of scans are escaped.

    Parameters
    ----------
    path
        Path of the file, in the folder that contains those of the scans.
    entries
        Scans that are done or failed: ``name``, ``scan``, ``verdict``, ``error``, ``model``, ``gain``, ``warnings``,
        ``seconds``.
    total
        Number of scans in the batch.

    Examples
    --------
    >>> import tempfile, types
    >>> one = types.SimpleNamespace(
    ...     name="<b>", scan="<b>.h5", verdict="Use it", error="", model="", gain="+9.1 dB", warnings=(), seconds=3.0
    ... )
    >>> place = Path(tempfile.mkdtemp()) / "index.html"
    >>> write_batch(place, [one], 2)
    >>> "<b>" in place.read_text(), "+9.1 dB" in place.read_text()
    (False, True)
    """
    failed = sum(bool(one.error) for one in entries)
    rows = "".join(_row(one) for one in entries)
    told = f"{len(entries)} of {total} scans done" + (f", {failed} failed" if failed else "")
    page = _PAGE.format(told=told, style=_STYLE, rows=rows)
    replace_file(path, page.encode("utf-8", errors="backslashreplace"))


def _row(one: Any) -> str:
    name, kind = escape(one.name), _COLOURS.get(one.verdict, "")
    link = name if one.error else f'<a href="{quote(os.fsencode(one.name))}/report.html">{name}</a>'
    said = escape(one.error or " ".join(one.warnings))
    cells = (
        f"{link}<br><small>{escape(one.scan)}</small>",
        f'<span class="{kind}">{escape(one.verdict)}</span><br><small>{said}</small>',
        escape(one.gain),
        escape(duration(one.seconds)),
        escape(one.model and f"that of {one.model}"),
    )
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
