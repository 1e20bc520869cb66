"""Tables and pictures of a page, and the notebook that its figures are kept in."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Notebook:
    """Figures and slices of one piece of an experiment, kept as they come, so that a stopped run goes on."""

    folder: Path
    piece: str
    scale: str

    @property
    def path(self) -> Path:
        """The file of the figures."""
        return self.folder / f"{self.piece}.json"

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return what was measured so far."""
        if not self.path.exists():
            return {}
        kept = json.loads(self.path.read_text())
        if kept["scale"] != self.scale:
            raise SystemExit(
                f"{self.path} must be of scale {self.scale}, got {kept['scale']}; give another folder with --out"
            )
        rows: dict[str, dict[str, Any]] = kept["rows"]
        return rows

    def row(self, name: str, work: Callable[[], tuple[dict[str, Any], np.ndarray | None]]) -> dict[str, Any]:
        """Return the figures of a row, from the file or else from `work`, which may return a slice to be shown, too."""
        if name not in self.rows():
            started = time.process_time()
            figures, shown = work()
            spent = round(time.process_time() - started, 1)
            rows = self.rows() | {name: figures | {"processor_seconds": spent}}
            self.folder.mkdir(parents=True, exist_ok=True)
            if shown is not None:
                np.save(self.slice_path(name), np.asarray(shown, np.float32))
            written = self.path.with_suffix(".new")
            written.write_text(json.dumps({"scale": self.scale, "rows": rows}, indent=1))
            written.replace(self.path)
            print(f"{self.piece}: {name}: {rows[name]}", flush=True)
        return self.rows()[name]

    def slice_path(self, name: str) -> Path:
        """Return the file of the slice of a row."""
        plain = "".join(c if c.isalnum() else "-" for c in name)
        return self.folder / f"{self.piece}-{plain}.npy"

    def slice(self, name: str) -> np.ndarray:
        """Return the slice of a row."""
        return np.load(self.slice_path(name))


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table in Markdown; floats with two decimals, None as nothing."""

    def cell(value: Any) -> str:
        return "" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)

    lines = [head, ["---"] * len(head), *([cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def picture(path: Path, images: Sequence[Sequence[np.ndarray]], titles: Sequence[str], names: Sequence[str]) -> None:
    """Draw rows of slices side by side, every row with one grey scale, that of its first slice."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    size = 2.1 if len(titles) > 3 else 3.2
    figure, axes = plt.subplots(
        len(images), len(titles), figsize=(size * len(titles), (size + 0.2) * len(images)), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for number, (line, row, name) in enumerate(zip(axes, images, names, strict=True)):
        low, high = np.percentile(row[0], (0.5, 99.5))
        margin = 0.1 * (high - low)
        for ax, image, title in zip(line, row, titles, strict=True):
            ax.imshow(image, cmap="gray", vmin=low - margin, vmax=high + margin, interpolation="nearest")
            ax.set_xticks([])
            ax.set_yticks([])
            if number == 0:
                ax.set_title(title, fontsize=9)
        line[0].set_ylabel(name, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    plt.close(figure)
