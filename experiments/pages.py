"""How the pages of gnudi.py, honesty.py and won.py are written."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure


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
