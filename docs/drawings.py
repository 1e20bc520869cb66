"""Draw what each method does, one SVG each: what the network sees, and what it must meet.

    python docs/drawings.py docs/images/methods

Noise of one colour is one and the same; noise of different colours is independent, so that no network can predict one
from the other.  What the pictures share is the object.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

__all__ = ["DRAWINGS"]

BLUE, ORANGE, GREEN, GREY, INK = "#2b6cb0", "#dd6b20", "#2f855a", "#a0aec0", "#2d3748"
SIZE, GAP, TOP, HEIGHT, MARGIN = 92, 92, 30, 160, 36
CELL = SIZE / 12

Node = Callable[[float], str]  # what is drawn at an abscissa


def text(x: float, y: float, words: str, size: int = 12, weight: str = "normal") -> str:
    """Return centred words."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle" font-size="{size}" font-weight="{weight}" '
        f'fill="{INK}">{words}</text>'
    )


def dots(x: float, y: float, width: float, height: float, colour: str, seed: int, n: int = 60) -> str:
    """Return noise: squares of a pixel here and there."""
    chance = random.Random(seed)
    cells = [(column, row) for column in range(int(width / CELL)) for row in range(int(height / CELL))]
    return "".join(
        f'<rect x="{x + CELL * column:.1f}" y="{y + CELL * row:.1f}" width="{CELL:.1f}" height="{CELL:.1f}" '
        f'fill="{colour}" fill-opacity="{0.25 + 0.6 * chance.random():.2f}"/>'
        for column, row in chance.sample(cells, min(n, len(cells)))
    )


def frame(x: float, y: float, inside: str, width: float = SIZE, height: float = SIZE) -> str:
    """Return a picture's ground, what is in it, and its border."""
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {place} fill="#f7fafc"/>{inside}<rect {place} fill="none" stroke="{INK}"/>'


def thing(x: float, y: float, size: float = SIZE) -> str:
    """Return the object: a disc with two pores."""
    at = [(0.5, 0.5, 0.36, GREY), (0.4, 0.42, 0.1, "#f7fafc"), (0.62, 0.6, 0.07, "#f7fafc")]
    return "".join(
        f'<circle cx="{x + a * size:.1f}" cy="{y + b * size:.1f}" r="{r * size:.1f}" fill="{c}"/>' for a, b, r, c in at
    )


def slice_of(caption: str, *noise: str, extra: str = "", n: int = 60) -> Node:
    """Return a slice or radiograph with noise of the given colours, and what lies over it, placed at ``X``."""

    def drawn(x: float) -> str:
        over = "".join(
            dots(x, TOP, SIZE, SIZE, colour, len(colour) + place * 7, n) for place, colour in enumerate(noise)
        )
        return frame(x, TOP, thing(x, TOP) + over + extra_at(extra, x)) + captions(x, caption)

    return drawn


def extra_at(extra: str, x: float) -> str:
    """Return what lies over a picture, moved to it."""
    return f'<g transform="translate({x:.1f} {TOP})">{extra}</g>' if extra else ""


def captions(x: float, caption: str) -> str:
    """Return the lines under a picture."""
    lines = caption.split("|")
    return "".join(text(x + SIZE / 2, TOP + SIZE + 17 + 14 * place, line) for place, line in enumerate(lines))


def views(caption: str, colours: str) -> Node:
    """Return radiographs as lines, each in the colour of its noise."""

    def drawn(x: float) -> str:
        step = SIZE / len(colours)
        lines = "".join(
            f'<rect x="{x:.1f}" y="{TOP + step * place + 1:.1f}" width="{SIZE}" height="{step - 2:.1f}" '
            f'fill="{dict(b=BLUE, o=ORANGE, g=GREY)[colour]}" fill-opacity="0.75"/>'
            for place, colour in enumerate(colours)
        )
        return frame(x, TOP, lines) + captions(x, caption)

    return drawn


def pixels(colour: str, places: list[tuple[int, int]], mark: str = "?") -> str:
    """Return pixels that are covered, each with a mark."""
    return "".join(
        f'<rect x="{CELL * a:.1f}" y="{CELL * b:.1f}" width="{CELL:.1f}" height="{CELL:.1f}" fill="{colour}"/>'
        f'<text x="{CELL * (a + 0.5):.1f}" y="{CELL * (b + 0.82):.1f}" text-anchor="middle" font-size="7" '
        f'font-weight="bold" fill="{INK if colour == "#ffffff" else "#ffffff"}">{mark}</text>'
        for a, b in places
    )


GRID = [(a, b) for a in range(1, 12, 4) for b in range(1, 12, 4)]
SCATTER = [(2, 1), (7, 2), (10, 4), (4, 6), (8, 7), (1, 9), (5, 10), (10, 10)]


def drawing(*parts: Node | str) -> str:
    """Return a drawing: pictures from left to right, words between them over an arrow."""
    x, body = float(MARGIN), []
    for part in parts:
        if isinstance(part, str):
            words = part.split("|")
            y = TOP + SIZE / 2
            body.append(
                f'<line x1="{x - GAP + 8:.1f}" y1="{y}" x2="{x - 12:.1f}" y2="{y}" stroke="{INK}" stroke-width="2"/>'
                f'<polygon points="{x - 8:.1f},{y} {x - 17:.1f},{y - 5} {x - 17:.1f},{y + 5}" fill="{INK}"/>'
            )
            body += [text(x - GAP / 2, y - 8 - 13 * (len(words) - 1 - n), line, 11) for n, line in enumerate(words)]
        else:
            body.append(part(x))
            x += SIZE + GAP
    width = x - GAP + MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {HEIGHT}" width="{width:.0f}" '
        f'height="{HEIGHT}" role="img" font-family="system-ui, sans-serif">'
        f'<rect width="{width:.0f}" height="{HEIGHT}" rx="8" fill="#ffffff"/>{"".join(body)}</svg>\n'
    )


DRAWINGS = {
    "noise2inverse": drawing(
        views("views of one scan,|dealt to subsets", "bbbobbbobbbo"),
        "reconstruct|each",
        slice_of("seen: the mean|of three subsets", BLUE),
        "network",
        slice_of("comes out", n=0),
        "must meet",
        slice_of("the fourth subset", ORANGE),
    ),
    "noise2projection": drawing(
        views("some views", "bbgbbgbbgbbg"),
        "reconstruct",
        slice_of("seen", BLUE),
        "network",
        slice_of("comes out", n=0),
        "project,|must meet",
        views("the views|left out", "ggoggoggoggo"),
    ),
    "noise2self": drawing(
        slice_of("a radiograph", BLUE),
        "hide a grid|of pixels",
        slice_of("seen: the hidden ones|filled from around", BLUE, extra=pixels("#ffffff", GRID)),
        "network",
        slice_of("comes out", n=0),
        "must meet",
        slice_of("the hidden pixels|as measured", extra=pixels(ORANGE, GRID, ""), n=0),
    ),
    "noise2void": drawing(
        slice_of("a radiograph", BLUE),
        "replace|some pixels",
        slice_of("seen: a neighbour's|value in their place", BLUE, extra=pixels(BLUE, SCATTER, "↔")),
        "network",
        slice_of("comes out", n=0),
        "must meet",
        slice_of("those pixels|as measured", extra=pixels(ORANGE, SCATTER, ""), n=0),
    ),
    "apbsn": drawing(
        slice_of("noise that|neighbours share", BLUE, n=70),
        "take every|n-th pixel",
        slice_of("small images: far|pixels share nothing", BLUE, extra=pixels("#ffffff", SCATTER), n=24),
        "network",
        slice_of("comes out", n=0),
        "must meet",
        slice_of("the hidden pixels|of the small images", extra=pixels(ORANGE, SCATTER, ""), n=0),
    ),
    "noisier2noise": drawing(
        slice_of("measured", BLUE, n=40),
        "add noise|of its kind",
        slice_of("seen: noisier", BLUE, GREEN, n=40),
        "network",
        slice_of("comes out; carried on|past what was measured", n=0),
        "must meet",
        slice_of("measured", BLUE, n=40),
    ),
    "recorrupted": drawing(
        slice_of("one image, its noise|known by its covariance", BLUE, n=40),
        "plus n'|minus n'",
        slice_of("seen: y + a n'", BLUE, GREEN, n=34),
        "network",
        slice_of("comes out", n=0),
        "must meet",
        slice_of("y - n' / a: uncorrelated|with what was seen", ORANGE, n=60),
    ),
    "noise2noise": drawing(
        slice_of("seen: the first|measurement", BLUE),
        "network",
        slice_of("comes out", n=0),
        "must meet",
        slice_of("the second|measurement", ORANGE),
    ),
    "noise2clean": drawing(
        slice_of("seen: noisy", BLUE),
        "network",
        slice_of("comes out", n=0),
        "must meet",
        slice_of("a clean image|of the same thing", n=0),
    ),
    "pseudo-ct": drawing(
        slice_of("a noisy image", BLUE),
        "trained|network",
        slice_of("its output, taken|for clean", n=0),
        "add noise|by a model",
        slice_of("seen", GREEN),
        "network",
        slice_of("must meet the output|it was made from", n=0),
    ),
    "filters": drawing(
        slice_of("noisy", BLUE),
        "average|what is alike",
        slice_of("smoothed, by a|strength", n=8),
        "compare with",
        slice_of("what was held out:|the strength is chosen", ORANGE),
    ),
    "auto": drawing(
        slice_of("the noise,|measured", BLUE),
        "leave out|what it forbids",
        slice_of("filters and networks|on part of the data", BLUE, n=20),
        "judge",
        slice_of("what was held out|from all of them", ORANGE),
        "best one|learns on",
        slice_of("result", n=0),
    ),
}

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, drawn in DRAWINGS.items():
        (folder / f"{name}.svg").write_text(drawn)
