"""Report page of a comparison of methods."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from quietray.assessment.comparison import Comparison
from quietray.pictures import grey_window
from quietray.report.comparison import board_of
from quietray.report.data import Cut, ReportData
from quietray.report.page import write_report
from quietray.running.facts import versions
from quietray.running.planes import Planes
from quietray.running.provenance import provenance
from quietray.scan import Scan

__all__ = ["write_comparison"]


def write_comparison(path: Path, comparison: Comparison, scan: Scan, settings_toml: str) -> Path:
    """Write the page of a comparison with :func:`quietray.report.write_report`; `settings_toml` runs the best method.

    Examples
    --------
    >>> comparison = quietray.compare(scan, "out/compared")  # doctest: +SKIP
    >>> write_comparison(Path("page.html"), comparison, scan, write_toml(comparison.picked))  # doctest: +SKIP
    """
    return write_report(path, _report_of(comparison, scan, settings_toml))


def _report_of(comparison: Comparison, scan: Scan, settings_toml: str) -> ReportData:
    """Return the contents of the page; before is the plain reconstruction, after is the best method."""
    record = comparison.record()
    rows = {row.method: row for row in board_of(record).rows}
    marked = [row for row in rows.values() if row.marks]
    pictures = {standing.name: standing.picture for standing in comparison.standings}
    best = comparison.standings[0].name
    raw, size = pictures.get("fbp"), scan.geometry.pixel_size
    window = grey_window([pictures[best]])
    unfiltered = "No method is clearly better than the reconstruction without any filter."
    return ReportData(
        title=Path(str(scan.source)).name or "scan",
        unit="1/mm" if size else "1/pixel",
        voxel_size=size,
        kind="comparison of methods",
        cuts=() if best == "fbp" else _cuts(comparison),
        window=(window.low, window.high),
        metrics={"comparison": record},
        pictures=pictures,
        stacks={standing.name: standing.volume for standing in comparison.standings},
        verdict=comparison.verdict,
        headline=(
            *((f"Estimated PSNR of {row.method}, {' and '.join(row.marks)}", row.psnr) for row in marked),
            *(
                ()
                if raw is None or rows["fbp"] in marked
                else (("Estimated PSNR of fbp, no filter", rows["fbp"].psnr),)
            ),
            ("Methods compared", str(len(rows))),
        ),
        warnings=(unfiltered,) if comparison.recommended == "fbp" else (),
        settings_toml=settings_toml,
        provenance={**provenance(str(scan.source)), "scan": dict(scan.provenance), "versions": versions()},
    )


def _cuts(comparison: Comparison) -> tuple[Cut, ...]:
    """Return slices of the plain reconstruction and of the best method, in three directions."""
    volumes = {standing.name: standing.volume for standing in comparison.standings}
    best = comparison.standings[0].name
    if "fbp" not in volumes:
        return ()
    raw, clean = volumes["fbp"], volumes[best]
    n_z, n_y, n_x = raw.shape
    planes = Planes((n_z, n_y, n_x))
    stacks = planes.stacks([(0, planes.cut(0, raw))], [(0, planes.cut(0, clean))])
    middle = {"axial": "middle slice", "coronal": f"coronal, y = {n_y // 2}", "sagittal": f"sagittal, x = {n_x // 2}"}
    found = []
    for axis, (name, axes) in enumerate({"axial": ("y", "x"), "coronal": ("z", "x"), "sagittal": ("z", "y")}.items()):
        stack, place = stacks.get(name), raw.shape[axis] // 2
        labels = [] if stack is None else [f"{'zyx'[axis]} = {one}" for one in stack.places]
        before, after = (np.take(volume, place, axis) for volume in (raw, clean))
        found.append(Cut(f"{middle[name]}, fbp and {best}", before, after, axes, stack, tuple(labels)))
    return tuple(found if n_z > 1 else found[:1])
