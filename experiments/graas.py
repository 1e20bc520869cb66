"""Reproduce Graas & Lucka (2025), seeds/000: scintillator decorrelation for self-supervised radiograph denoising.

    python experiments/graas.py --scale small
    python experiments/graas.py --scale full --only b,d     # go on with a long run, piece by piece

Writes a page and its pictures from its own results, and the results as JSON.  Pieces that have results with the same
settings in the output folder are not run again, unless they are asked for with --only.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from graas_bed import Bed
from graas_foam import Orders
from graas_frames import Scene, Trainer
from graas_sets import Overfitting, Rivals, Sets

from quietray.running.facts import versions

__all__ = ["SCALES", "Piece", "graas", "known_results", "main"]

_FULL = (
    "The full scale was not run here, for want of a GPU: from its numbers of steps and pixels it should take four to "
    "eight hours on one of a data centre. "
)
_PAGE = Path(__file__).resolve().parent.parent / "docs/experiments/graas.md"


class Piece(Protocol):
    """Settings of one part of the experiment: what it measures, and what it says about that."""

    def measure(self, folder: Path) -> dict[str, Any]:
        """Run it, write pictures into `folder`, and return the figures."""

    def section(self, results: Mapping[str, Any]) -> str:
        """Return its part of the page, from the results of all pieces that were run."""


def _full() -> dict[str, Piece]:
    scene, unet = Scene(size=256, spheres=400), (16, 32, 64, 128)
    trainer = Trainer(unet, steps=20_000, batch=8, patch=128)
    return {
        "a": Orders(rows=256, cols=512, spheres=5000, largest=0.1, steps=20_000, patch=128, batch=8, iterations=200),
        "b": Sets(scene, trainer, seeds=3),
        "c": Overfitting(scene, dataclasses.replace(trainer, steps=100_000, judgements=40)),
        "d": Rivals(scene, trainer),
        "e": Bed(rows=384, cols=256, times=600, bubbles=20, shown=50, flats=500, iterations=200, trainer=trainer),
    }


SCALES: dict[str, dict[str, Piece]] = {
    "small": {"a": Orders(), "b": Sets(), "c": Overfitting(), "d": Rivals(), "e": Bed()},
    "full": _full(),
}


def graas(
    pieces: Mapping[str, Piece], out: Path, page: Path, again: Sequence[str] = (), scale: str = "small"
) -> dict[str, Any]:
    """Run what has no results yet, write the page, and return all results.

    Parameters
    ----------
    pieces
        By letter.
    out
        Folder of results.
    page
        Markdown file; its pictures go into ``images`` beside its folder.
    again
        Letters of the pieces to run in any case; if there are any, no others are.
    scale
        Name of the settings, for the page.
    """
    out.mkdir(parents=True, exist_ok=True)
    results = known_results(out, pieces)
    for letter, piece in pieces.items():
        if letter in again or not (again or letter in results):
            print(f"piece {letter}: {type(piece).__name__} ...", flush=True)
            started, worked = time.monotonic(), time.process_time()
            found = piece.measure(out)
            results[letter] = {
                "settings": _settings(piece),
                "found": found,
                "seconds": time.monotonic() - started,
                "processor_seconds": time.process_time() - worked,
                "versions": versions(),
            }
            (out / f"{letter}.json").write_text(json.dumps(results[letter], indent=1))
            print(f"piece {letter}: {results[letter]['seconds']:.0f} s", flush=True)
    (out / "results.json").write_text(json.dumps(results, indent=1))
    _write_page(pieces, results, out, page, scale)
    return results


def _settings(piece: Piece) -> Any:
    return json.loads(json.dumps(dataclasses.asdict(piece)))  # type: ignore[call-overload]


def known_results(out: Path, pieces: Mapping[str, Piece]) -> dict[str, Any]:
    """Return the results of earlier runs with the same settings, by letter."""
    places = {letter: out / f"{letter}.json" for letter in pieces}
    stored = {letter: json.loads(place.read_text()) for letter, place in places.items() if place.exists()}
    return {letter: one for letter, one in stored.items() if one["settings"] == _settings(pieces[letter])}


def _write_page(pieces: Mapping[str, Piece], results: Mapping[str, Any], out: Path, page: Path, scale: str) -> None:
    images = page.parent.parent / "images"
    images.mkdir(parents=True, exist_ok=True)
    page.parent.mkdir(parents=True, exist_ok=True)
    found = {letter: one["found"] for letter, one in results.items()}
    order = [letter for letter in ("a", "b", "d", "c", "e") if letter in found and letter in pieces]
    sections = [pieces[letter].section(found) for letter in order]
    for picture in sorted(out.glob("graas-*.png")):
        shutil.copyfile(picture, images / picture.name)
    missing = [letter for letter in pieces if letter not in found]
    seconds = sum(results[letter]["seconds"] for letter in order)
    worked = sum(results[letter]["processor_seconds"] for letter in order)
    head = f"""# Scintillator decorrelation (Graas & Lucka 2025)

This page was written by `experiments/graas.py` at the {scale} scale, from its own results. It repeats, on simulated
data, what "Scintillator Decorrelation for Self-supervised X-ray Radiograph Denoising" (A. Graas and F. Lucka, 2025)
shows. The paper gives pictures and orders, and one figure (a summed correlation of about 350 %); each table of claims
says what was measured instead, and whether it agrees.

    python experiments/graas.py --scale small
    python experiments/graas.py --scale small --only b,d  # only these pieces, the others as they are
    python experiments/graas.py --scale full              # for a GPU

Pieces {", ".join(order)} took {seconds / 60:.0f} minutes, {worked / 60:.0f} of them of one processor's time; other
programs ran beside. Results are kept in `out/graas/{scale}` as JSON, piece by piece, so that a run goes on where it
ended. {_FULL if scale == "small" else ""}Piece e needs a GPU or `pip install 'quietray[cone]'`."""
    if missing:
        head += f"\n\nNot run yet: {', '.join(missing)}."
    page.write_text("\n\n".join([head, *sections]) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=sorted(SCALES), default="small")
    parser.add_argument("--only", default="", help="pieces to run, such as a,b; all that have no results by default")
    parser.add_argument("--out", type=Path, default=Path("out/graas"), help="folder of the results of every scale")
    parser.add_argument("--page", type=Path, default=_PAGE, help="the page to write")
    given = parser.parse_args(arguments)
    only = [letter for letter in given.only.split(",") if letter]
    if unknown := sorted(set(only) - set(SCALES[given.scale])):
        parser.error(f"--only must name pieces out of {', '.join(SCALES[given.scale])}, got {', '.join(unknown)}")
    graas(SCALES[given.scale], given.out / given.scale, given.page, only, given.scale)


if __name__ == "__main__":
    main()
