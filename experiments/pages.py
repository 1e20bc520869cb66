"""What the pages of the experiments are made of: tables in Markdown, and small pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

__all__ = ["gallery", "paragraphs", "row_of", "save", "save_figure", "table", "verdict", "write"]


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; figures are written by whoever gives them.

    Examples
    --------
    >>> print(table(("a", "b"), [(1, "x")]))
    | a | b |
    |---|---|
    | 1 | x |
    """
    lines = [head, *rows]
    written = ["| " + " | ".join(map(str, line)) + " |" for line in lines]
    return "\n".join([written[0], "|" + "---|" * len(head), *written[1:]])


def paragraphs(parts: Iterable[str]) -> str:
    r"""Return parts of a page, an empty line between them; empty ones are left out.

    Examples
    --------
    >>> paragraphs(["a", "", "b"])
    'a\n\nb'
    """
    return "\n\n".join(part for part in parts if part)


def verdict(claim: str, holds: bool, measured: str) -> tuple[str, str, str]:
    """Return the row of a claim: what the paper says, what was measured, whether they agree.

    Examples
    --------
    >>> verdict("A before B", False, "B before A")
    ('A before B', 'B before A', 'no')
    """
    return claim, measured, "yes" if holds else "no"


def gallery(
    panels: Mapping[str, np.ndarray],
    columns: int,
    limits: tuple[float, float] | Mapping[str, tuple[float, float]],
    width: float = 9.0,
    cmap: str = "gray",
    bar: str = "",
) -> Figure:
    """Return pictures side by side, each under its name.

    Parameters
    ----------
    panels
        Images ``(row, col)`` of one size, by name; an empty name leaves a gap.
    columns
        Pictures in a row.
    limits
        Values that are black and white; of all of them, or of each by name.
    width
        Of the whole, in inches.
    cmap
        Colours.
    bar
        What the colours mean; a scale is drawn where this is said.
    """
    rows = -(-len(panels) // columns)
    height, breadth = next(iter(panels.values())).shape
    figure = Figure(figsize=(width, rows * (width / columns * height / breadth + 0.45)), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (name, image) in zip(axes.flat, panels.items(), strict=False):
        low, high = limits[name] if isinstance(limits, Mapping) else limits
        shown = axis.imshow(image, cmap=cmap, vmin=low, vmax=high, interpolation="nearest")
        axis.set_title(name, fontsize=8)
    if bar:
        scale = figure.colorbar(shown, ax=list(axes.flat), shrink=0.8)
        scale.set_label(bar, fontsize=8)
        scale.ax.tick_params(labelsize=7)
    return figure


def save(figure: Figure, place: Path) -> None:
    """Write a picture; the same one always gives the same file."""
    place.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(place, dpi=110, metadata={"Software": None})


def row_of(*cells: str) -> str:
    """A row of a table."""
    return "| " + " | ".join(cells) + " |"


def save_figure(figure: Figure, page: Path, name: str) -> str:
    """Write a picture beside the pages and return its address on the page."""
    folder = page.parent.parent / "images"
    folder.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(folder / f"{name}.png", dpi=90)
    return f"../images/{name}.png"


def write(page: Path, lines: list[str]) -> None:
    """Write a page."""
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(lines).rstrip() + "\n")
