"""The page of the experiments after Hendriksen: every number on it but those of the paper is read from the results."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from hendriksen_scans import FLAT_SCANS, FRACTION, MORE, N_CHANNELS, TIMES, Size
from tables import Notebook, picture, table

Rows = dict[str, dict[str, Any]]
Claim = tuple[str, str, str, bool]  # what is claimed, the paper's figures, those measured, whether it holds

_HEAD = """# Noise2Inverse: Hendriksen's claims, measured

After A. Hendriksen's talk *Self-supervised deep denoising for synchrotron tomography* (2021), Hendriksen, Pelt &
Batenburg (2020), doi:10.1109/TCI.2020.3019647, and Hendriksen et al. (2021), doi:10.1038/s41598-021-91084-8.
`experiments/hendriksen.py` wrote this page from its own results, at the scale *{scale}*.  Only figures in columns
headed *paper* were not measured here.

    python experiments/hendriksen.py --scale small             # pieces a to d and f; this page
    python experiments/hendriksen.py --scale small --only e    # the paper's own setting, on a slab
    python experiments/hendriksen.py --scale small --only t    # total variation in that setting, one slice
    python experiments/hendriksen.py --scale full              # everything at the paper's size, for a GPU

A stopped run goes on where it stopped; `--only a,c` runs some of the pieces.  The full scale was not run for this
page: on one GPU and 16 processors it is expected to take two days, most of them for total variation, which runs on
the processor. Pieces e and t are no part of the small scale's minutes, because of slices of 512 x 512.

PSNR is against the FBP of noise-free views, over a disc of 0.97 half-widths, with the range (max - min) inside it.
*Whole* is the definition of the reference code: all pixels, and their range.  No average over symmetries anywhere
but in piece e at full scale.
"""

_A = """
## a. Static foam

{cols} columns, {rows} rows, {views} views, {photons:g} photons, 50 % absorption; a U-Net of {widths} maps, {steps}
steps of {batch} patch(es) of {patch} pixels; MS-D of {layers} layers (the paper: 100) at a rate of 0.001, else
0.002.  Filters are tuned, and the weight of TV is chosen, without the truth; TV is of the middle {tv_rows} rows.
"""

_B = """
## b. Dynamic foam, interlaced

{time_steps} steps of {views_per_step} views on {cols} columns (the talk: 60 steps of 299.92); half a turn has
{turn:.2f} views, so that no two steps see the same angles.  The voids grow by a fifth from the first step to the
last.  Two angular subsets. PSNR is the mean over the steps, each against the FBP of {views} noise-free views of its
own foam.
"""

_C = """
## c. XRD-CT

3 slices, {channels} channels, {spectral_views} views of {cols} columns; a matrix and three kinds of grains, each
with two peaks.  The noise is that of counting, in line integrals that no logarithm has touched.  TV has one weight
for all channels.  PSNR is the mean over the channels.
"""

_D = """
## d. Angles against exposure

The same photons in all, dealt to few views or to many; two angular subsets; all against the FBP of twice {views}
noise-free views.
"""

_E = """
## e. The paper's own setting

{spheres} spheres in a half-height of 1.5 radii (the paper: 100 000 per radius), {views} views of {wide} columns,
slices of {voxels} x {voxels}, {photons:g} photons, 50 % absorption; {rows} neighbouring rows of it: a parallel beam
sees rows apart, so that a slab is the exact problem.
The default U-Net and {steps} steps of {batch} patch(es) of {patch} pixels; the reference has MS-D of 100 layers.
"""

_F = """
## f. Few flats

{cols} columns, {views} views, {photons:g} photons, as in a; means over {scans} scans, each with another noise and
another start of the network.  Shared flats are in all four angular subsets, flats of their own in one each; no ring
filter.
"""


def write_page(docs: Path, notes: Mapping[str, Notebook], scale: str, size: Size) -> Path:
    """Write the page and its pictures of whatever was measured; return the page."""
    rows = {piece: note.rows() for piece, note in notes.items()}
    parts = [_HEAD.format(scale=scale)]
    known = rows | {"e": rows["e"] | rows["t"]}  # of one setting
    claims = [claim for piece, found in known.items() if found for claim in _CLAIMS.get(piece, _nothing)(found)]
    if claims:
        said = [(what, paper, here, "yes" if holds else "no") for what, paper, here, holds in claims]
        parts.append("\n## Claims\n\n" + table(("claim", "paper", "here", "holds"), said))
        parts.append(_why(claims, rows, size))
    for piece, write in _SECTIONS.items():
        if rows.get(piece):
            parts.append(write(docs, notes, size))
    spent = [(piece, sum(row["processor_seconds"] for row in found.values())) for piece, found in rows.items() if found]
    parts.append(
        "\n## Time\n\nProcessor seconds of one thread, without those that the foams took: "
        + ", ".join(f"{piece} {seconds:.0f}" for piece, seconds in spent)
        + ".\n"
    )
    page = docs / "experiments" / "hendriksen.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("".join(parts))
    return page


def _db(rows: Rows, name: str, figure: str = "psnr") -> float:
    return float(rows[name][figure])


def _has(rows: Rows, *names: str) -> bool:
    return all(name in rows for name in names)


def _nothing(rows: Rows) -> list[Claim]:
    return []


def _best_filter(rows: Rows) -> str:
    return max((name for name in rows if name.startswith("filter")), key=lambda name: _db(rows, name))


def _more(
    what: str, paper: str, rows: Rows, better: str, worse: str, least: float = 0.0, figure: str = "psnr"
) -> list[Claim]:
    """Return the claim that one row is better than another by `least` dB, if both were measured."""
    if not _has(rows, better, worse):
        return []
    one, other = _db(rows, better, figure), _db(rows, worse, figure)
    return [(what, paper, f"{one:.2f} against {other:.2f} dB", one - other > least)]


_N2I = "Noise2Inverse K=4 X:1"
_BEFORE, _SLICES = "Noise2Self on radiographs, then FBP", "FBP, then Noise2Self on slices"


def _claims_a(rows: Rows) -> list[Claim]:
    found: list[Claim] = []
    for length in ("", MORE):
        names = [name + length for name in (_N2I, _BEFORE, _SLICES)]
        if _has(rows, *names):
            three = [_db(rows, name) for name in names]
            here = " / ".join(f"{value:.1f}" for value in three)
            order = f"split, reconstruct, denoise > split, denoise, reconstruct > reconstruct, split, denoise{length}"
            found.append((order, "26.3 / 20.6 / 15.4", here, three[0] > three[1] > three[2]))
    found += _more("X:1 is better than 1:X", "yes", rows, _N2I, _N2I.replace("X:1", "1:X"))
    found += _more("better than total variation", "yes", rows, _N2I, "TV")
    found += _more("even with the weight that the truth chooses", "", rows, _N2I, "TV, weight by the truth")
    if any(name.startswith("filter") for name in rows):
        found += _more("better than the best filter", "yes", rows, _N2I, _best_filter(rows))
    if _has(rows, _N2I, "Noise2Clean"):
        one, other = _db(rows, _N2I), _db(rows, "Noise2Clean")
        found.append(
            ("approaches supervised learning, to 1 dB", "yes", f"{one:.2f} of {other:.2f} dB", other - one < 1)
        )
    found += _more("2.5-D is better than 2-D", "yes", rows, f"{_N2I}, 2.5-D", _N2I)
    for name in rows:
        if name.endswith(": Noise2Inverse"):
            what = f"better than total variation at {name.removesuffix(': Noise2Inverse')}"
            found += _more(what, "yes", rows, name, name.replace("Noise2Inverse", "TV"))
    return found


def _claims_b(rows: Rows) -> list[Claim]:
    alone, three = "Noise2Inverse, 1 steps", "Noise2Inverse, 3 steps"
    found = _more("neighbours in time help", "yes", rows, three, alone)
    found += _more("better than adding up neighbours", "yes", rows, three, "FBP of 3 steps together")
    if _has(rows, three, "TV, the middle step"):
        one, other = _db(rows, three, "psnr_middle"), _db(rows, "TV, the middle step")
        found.append(
            ("better than total variation, the middle step", "", f"{one:.2f} against {other:.2f} dB", one > other)
        )
    return found


def _claims_c(rows: Rows) -> list[Claim]:
    found: list[Claim] = []
    for time in TIMES:
        every = f"{time:.0%}: Noise2Inverse, all channels"
        found += _more(f"better than total variation in {time:.0%} of the time", "yes", rows, every, f"{time:.0%}: TV")
        alone = every.replace("all channels", "each channel alone")
        found += _more(f"all channels at once help in {time:.0%} of the time", "yes", rows, every, alone)
    return found


def _claims_d(rows: Rows) -> list[Claim]:
    names = [name for name in rows if name.endswith(": Noise2Inverse")]
    values = [_db(rows, name) for name in sorted(names, key=lambda name: rows[name]["views"])]
    here = " / ".join(f"{value:.1f}" for value in values)
    rising = all(one < other for one, other in pairwise(values))
    return [("more angles at less exposure are better", "yes", here, rising)] if len(values) > 1 else []


def _claims_e(rows: Rows) -> list[Claim]:
    found: list[Claim] = []
    whole = "psnr_whole"
    if "FBP" in rows:
        noisy = _db(rows, "FBP", whole)
        found.append(("the noisy FBP of the paper's setting, whole", "3.07", f"{noisy:.2f}", abs(noisy - 3.07) < 0.5))
    if "Noise2Inverse, 2.5-D" in rows:
        here = _db(rows, "Noise2Inverse, 2.5-D", whole)
        found.append(("the paper's setting (2-D there, 2.5-D here), whole", "21.33", f"{here:.2f}", here >= 21.3))
        here = _db(rows, "Noise2Inverse, 2.5-D")
        found.append(("the same, 2.5-D, in the disc, 22.5 asked for", "", f"{here:.2f}", here >= 22.5))
        for what, rival in (("a filter of total variation", "filter: total-variation"), ("TV", "TV, one slice")):
            found += _more(f"better by 2 dB than {what}", "", rows, "Noise2Inverse, 2.5-D", rival, 2.0)
    return found


_CLAIMS = {"a": _claims_a, "b": _claims_b, "c": _claims_c, "d": _claims_d, "e": _claims_e}


def _why(claims: list[Claim], rows: Mapping[str, Rows], size: Size) -> str:
    """Return what did not hold, what was measured about it, and what was not measured at all."""
    lines = [f"* {what}: {here} here." for what, _, here, holds in claims if not holds]
    if any(what.startswith("split, reconstruct") and not holds for what, _, _, holds in claims):
        lines.append(
            "* The third order is a matter of size and steps: blind spots in slices first blur, and then learn the "
            "noise that neighbours share. On a foam of 128 columns and after 2000 steps all three are in the order "
            "of the talk: `benchmarks/bench_orders.py`, whose figures are in benchmarks/README.md."
        )
    a, e, own = rows["a"], rows["e"], size.own
    short, long, msd = (f"{_N2I}, {name}" for name in ("a quarter of the steps", "four times the steps", "MS-D"))
    if _has(a, _N2I, short, long):
        lines.append(
            f"* Steps: Noise2Inverse (K=4, X:1, 2-D) reaches {_db(a, short):.2f}, {_db(a, _N2I):.2f} and "
            f"{_db(a, long):.2f} dB in {size.steps // 4}, {size.steps} and {4 * size.steps} steps."
        )
    if _has(a, _N2I, msd):
        lines.append(
            f"* The network of the paper, MS-D, here of {size.msd.layers} layers and at half the rate of the U-Net, "
            f"reaches {_db(a, msd):.2f} dB in the same {size.steps} steps, the U-Net {_db(a, _N2I):.2f} dB."
        )
    if "Noise2Inverse, 2.5-D" in e:
        shown = own.steps * own.batch * own.patch**2 / own.voxels**2
        lines.append(
            f"* The paper's setting: {own.steps} steps of {own.batch} patch(es) of {own.patch} pixels show the network "
            f"as many pixels as {shown:.0f} slices have; an epoch of the reference shows it 2048 slices."
        )
    missing = [piece for piece, found in rows.items() if not found]
    if a and not any(name.endswith(": Noise2Inverse") for name in a):
        missing.insert(0, "photons and absorption of a")
    if missing:
        lines.append(f"* Not measured for this page: {', '.join(missing)}.")
    return "\n### What did not reproduce, and what is known about it\n\n" + "\n".join(lines) + "\n" if lines else ""


def _figures(rows: Rows, columns: tuple[str, ...], heads: tuple[str, ...]) -> str:
    body = [(name, *(row.get(column) for column in columns)) for name, row in rows.items() if "psnr" in row]
    return "\n" + table(("", *heads), body)


def _shown(docs: Path, note: Notebook, piece: str, names: Mapping[str, str], about: str) -> str:
    """Draw the slices that there are, and return the picture's line in the page."""
    there = {name: title for name, title in names.items() if name in note.rows()}
    path = docs / "images" / f"hendriksen-{piece}.png"
    picture(path, [[note.slice(name) for name in there]], list(there.values()), [about])
    return f"\n![{about}](../images/{path.name})\n"


def _titles(rows: Rows, names: Mapping[str, str], figure: str = "psnr") -> dict[str, str]:
    """Return titles with their PSNR."""
    return {
        name: f"{title}\n{rows[name][figure]:.1f} dB" if figure in rows[name] else f"{title}\n"
        for name, title in names.items()
        if name in rows
    }


def _section_a(docs: Path, notes: Mapping[str, Notebook], size: Size) -> str:
    rows = notes["a"].rows()
    main = {name: row for name, row in rows.items() if "photons, " not in name}
    levels = {name: row for name, row in rows.items() if "photons, " in name}
    names = {"noise-free views, FBP": "noise-free", "FBP": "FBP", "TV": "TV", _SLICES: "FBP, Noise2Self",
             _BEFORE: "Noise2Self, FBP", _N2I: "Noise2Inverse", "Noise2Clean": "Noise2Clean"}  # fmt: skip
    text = _A.format(**vars(size) | {"widths": "-".join(map(str, size.unet.widths)), "layers": size.msd.layers})
    text += _figures(main, ("psnr", "ssim", "psnr_whole", "estimated"), ("PSNR", "SSIM", "whole", "estimated"))
    text += "\nThe estimate is made without the truth, with a range of its own; that of Noise2Self is of radiographs.\n"
    if levels:
        text += "\n### Photons and absorption\n" + _figures(levels, ("psnr", "ssim"), ("PSNR", "SSIM"))
    return text + _shown(docs, notes["a"], "a", _titles(rows, names), "static foam")


def _section_b(docs: Path, notes: Mapping[str, Notebook], size: Size) -> str:
    rows = notes["b"].rows()
    names = {"noise-free views, FBP": "noise-free", "FBP": "FBP", "FBP of 3 steps together": "3 steps together",
             "TV, the middle step": "TV", "Noise2Inverse, 1 steps": "Noise2Inverse, 1 step",
             "Noise2Inverse, 3 steps": "3 steps", "Noise2Inverse, 5 steps": "5 steps"}  # fmt: skip
    text = _B.format(**vars(size), turn=size.views_per_step - 1 + FRACTION)
    text += _figures(rows, ("psnr", "psnr_middle"), ("PSNR, mean of the steps", "PSNR, the middle step"))
    return text + _shown(docs, notes["b"], "b", _titles(rows, names), "middle step")


def _section_c(docs: Path, notes: Mapping[str, Notebook], size: Size) -> str:
    rows = notes["c"].rows()
    text = _C.format(**vars(size), channels=N_CHANNELS) + _figures(rows, ("psnr", "ssim"), ("PSNR", "SSIM"))
    kinds = ("FBP", "TV", "Noise2Inverse, each channel alone", "Noise2Inverse, all channels")
    images, about = [], []
    for time in TIMES:
        wanted = [f"{time:.0%}: {kind}" for kind in kinds]
        if _has(rows, *wanted):
            images.append([notes["c"].slice(name) for name in ("noise-free, FBP", *wanted)])
            about.append(f"{time:.0%} of the time")
    if images:
        titles = ["noise-free", "FBP", "TV", "each channel alone", "all channels"]
        picture(docs / "images" / "hendriksen-c.png", images, titles, about)
        text += "\n![one channel](../images/hendriksen-c.png)\n"
    return text


def _section_d(docs: Path, notes: Mapping[str, Notebook], size: Size) -> str:
    rows = notes["d"].rows()
    text = _D.format(**vars(size)) + _figures(rows, ("photons", "psnr", "ssim"), ("photons", "PSNR", "SSIM"))
    names = {"noise-free views, FBP": "noise-free"}
    names |= {name: name.removesuffix(": Noise2Inverse") for name in rows if name.endswith(": Noise2Inverse")}
    return text + _shown(docs, notes["d"], "d", _titles(rows, names), "Noise2Inverse")


def _section_e(docs: Path, notes: Mapping[str, Notebook], size: Size) -> str:
    rows = notes["e"].rows() | {name: row for name, row in notes["t"].rows().items()}
    own = size.own
    text = _E.format(**vars(own), wide=own.voxels * 3 // 2)
    columns = ("psnr_whole", "ssim_whole", "psnr", "ssim", "processor_seconds")
    text += _figures(rows, columns, ("PSNR, whole", "SSIM, whole", "PSNR", "SSIM", "processor (s)"))
    text += "\nThe paper: 21.33 dB and 0.77, whole; the noisy FBP 3.07 dB.\n"
    names = {"noise-free views, FBP": "noise-free", "FBP": "FBP", "filter: total-variation": "TV filter",
             "Noise2Inverse, 2.5-D": "2.5-D"}  # fmt: skip
    return text + _shown(docs, notes["e"], "e", _titles(rows, names, "psnr_whole"), "100 000 spheres")


def _section_f(docs: Path, notes: Mapping[str, Notebook], size: Size) -> str:
    rows = notes["f"].rows()
    text = _F.format(**vars(size), scans=FLAT_SCANS) + _figures(rows, ("psnr", "ssim"), ("PSNR", "SSIM"))
    return text + _shown(docs, notes["f"], "f", _titles(rows, {name: name for name in rows}), "few flats")


_SECTIONS = {"a": _section_a, "b": _section_b, "c": _section_c, "d": _section_d, "e": _section_e, "f": _section_f}
