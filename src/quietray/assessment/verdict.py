"""One sentence on a result: use it, look at this first, or do not use it, with the decisive figure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from quietray.assessment.gains import headline
from quietray.method import METHODS, Method
from quietray.wording import Doubt

__all__ = ["Verdict", "nothing_gained", "verdict_of", "verdict_on_methods"]

Kind = Literal["Use it", "Look at this first", "Do not use it", "Nothing gained"]

GAINED = 0.5  # in dB: a smaller gain counts as none
_MOVED = 0.1  # of the mean grey value
_BLURRED = 0.5  # relative to the best linear filter
_MINUS = "\u2212"


@dataclass(frozen=True)
class Verdict:
    """Whether to use a result, and why.

    Parameters
    ----------
    kind
        ``Use it``, ``Look at this first`` or ``Do not use it``; ``Nothing gained`` if the input was given back.
    reason
        The decisive reason, with its figure; ends with a full stop.

    Examples
    --------
    >>> print(Verdict("Use it", "the estimated gain is +9.5 dB."))
    Use it: the estimated gain is +9.5 dB.
    """

    kind: Kind
    reason: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}"

    def record(self) -> dict[str, str]:
        """Return the verdict as stored in ``metrics.json``."""
        return {"kind": self.kind, "reason": self.reason}


def nothing_gained(gain: float | None) -> bool:
    """Return whether an estimated gain in dB counts as none.

    Examples
    --------
    >>> nothing_gained(0.2), nothing_gained(0.7), nothing_gained(None)
    (True, False, False)
    """
    return gain is not None and math.isfinite(gain) and gain < GAINED


def verdict_of(metrics: Mapping[str, Any], warnings: Sequence[str] = (), notes: Sequence[str] = ()) -> Verdict:
    """Return the verdict on a run.

    Reasons against a result come first: a loss, no gain, shifted grey values, or a strong blur each mean not to use it.
    After these come doubts about the basis of the result, such as the rotation axis, and then the first warning, as
    warnings are sorted by their importance.  Of the notes, each :class:`~quietray.wording.Doubt` counts.

    Parameters
    ----------
    metrics
        Figures of the run, as in ``metrics.json``.
    warnings
        Warnings about the result, the most serious first.
    notes
        Other notes of the run.

    Examples
    --------
    >>> gain = {"psnr_gain_db": 9.5, "psnr_gain_db_at_least": 9.0, "psnr_gain_db_at_most": 10.1}
    >>> figures = {"estimate": gain, "volume": {"relative_change_of_mean": 0.001}}
    >>> print(verdict_of(figures))
    Use it: the estimated gain is +9.5 dB (9.0 to 10.1 dB).
    >>> print(verdict_of(figures, ["The views cover only 120 degrees. Measure more."]))
    Look at this first: the views cover only 120 degrees.
    >>> lost = {"psnr_gain_db": -2.0, "psnr_gain_db_at_least": -2.5, "psnr_gain_db_at_most": -1.5}
    >>> verdict_of({**figures, "estimate": lost}).kind
    'Do not use it'
    """
    estimate = metrics["estimate"]
    told = headline(estimate)
    inside = " inside the object" if estimate.get("object") else ""
    gain, least, most = (told.get(f"psnr_gain_db{end}") for end in ("", "_at_least", "_at_most"))
    if metrics.get("given_back"):
        back = "the volume is the reconstruction without denoising"
        if metrics["method"]["domain"] == "images":
            back = "the images are returned as they were measured"
        told_gain = _told(gain, least, most)
        return Verdict("Nothing gained", f"the estimated gain of denoising{inside} is {told_gain}; {back}.")
    refused = _refused(metrics, gain, least, most, inside)
    if refused:
        return Verdict("Do not use it", refused)
    if least is None and gain is None:
        why = f": {told['withheld']}" if told.get("withheld") else ""
        return Verdict("Look at this first", f"the held-out data do not show how much was gained{inside}{why}.")
    if least is None or least < GAINED:
        known = f"is at least {_db(least)}" if gain is None else f"of {_db(gain)} may be as small as {_db(least)}"
        if gain is None and most is not None:
            known = f"is between {_db(least)} and {_db(most)}"
        what = f"the gain{inside} is not known: it" if gain is None else f"the estimated gain{inside}"
        return Verdict("Look at this first", f"{what} {known}.")
    grave = [*(note for note in notes if isinstance(note, Doubt)), *warnings]
    if grave:
        return Verdict("Look at this first", _first_sentence(grave[0]))
    return Verdict("Use it", _gained(gain, least, most, inside))


def verdict_on_methods(record: Mapping[str, Any]) -> Verdict:
    """Return the verdict on a comparison: which method to use, if any.

    Parameters
    ----------
    record
        Return value of :meth:`quietray.assessment.comparison.Comparison.record`.

    Examples
    --------
    >>> plain = {"method": "fbp", "psnr_db": 20.0}
    >>> record = {"methods": [{"method": "tv", "psnr_db": 26.5}, plain], "recommended": "tv", "winner": "tv"}
    >>> print(verdict_on_methods(record))
    Use it: tv, with an estimated PSNR of 26.5 dB, 6.5 dB more than without any filter.
    >>> print(verdict_on_methods({**record, "recommended": "fbp"}))
    Do not use it: no method is clearly better than the reconstruction without any filter, at 20.0 dB; keep that one.
    """
    levels = {row["method"]: row["psnr_db"] for row in record["methods"]}
    chosen = record["recommended"]
    level, plain = levels.get(chosen), levels.get("fbp")
    if chosen == "fbp":
        at = "" if plain is None else f", at {_plain(plain)}"
        reason = f"no method is clearly better than the reconstruction without any filter{at}; keep that one."
        return Verdict("Do not use it", reason)
    if record.get("withheld"):
        reason = f"{chosen} has a clearly smaller error than no filter; how large it is is not known."
        return Verdict("Use it", reason)
    if level is None:
        reason = f"{chosen} did best, but its error is too small to be distinguished from zero on held-out views."
        return Verdict("Look at this first", reason)
    more = "" if plain is None else f", {_plain(level - plain)} more than without any filter"
    return Verdict("Use it", f"{chosen}, with an estimated PSNR of {_plain(level)}{more}.")


def _refused(
    metrics: Mapping[str, Any], gain: float | None, least: float | None, most: float | None, inside: str
) -> str:
    """Return why a result should not be used, or an empty string."""
    if nothing_gained(most if gain is None else gain):
        kept = "keep the reconstruction as it was measured"
        if metrics.get("method", {}).get("domain") == "images":
            kept = "keep the images as they were measured"
        what = "denoising made it worse" if most is not None and most < 0 else "nothing was gained"
        return f"{what}, the estimated gain{inside} is {_told(gain, least, most)}; {kept}."
    change = (metrics["estimate"].get("object") or metrics["volume"]).get("relative_change_of_mean") or 0.0
    method = metrics.get("method", {})  # the mean of images may be near zero, and supervised training may shift it
    taught = method.get("domain") == "images" or METHODS.get(method.get("name", ""), Method).domain == "clean"
    if abs(change) > _MOVED and not taught:
        return f"denoising changed the mean grey value{inside} by {change:+.0%}."
    sharpness = (metrics.get("evidence") or {}).get("sharpness")
    if sharpness and sharpness["kept"] + 2 * sharpness["kept_error"] < _BLURRED * sharpness["linear_filter"]:
        return (
            f"it is blurred: of details of {sharpness['from_px']:.1f} to {sharpness['to_px']:.1f} pixels it keeps "
            f"{sharpness['kept']:.0%}, and the best linear filter would keep {sharpness['linear_filter']:.0%}."
        )
    return ""


def _gained(gain: float | None, least: float | None, most: float | None, inside: str) -> str:
    if gain is None and least is not None and most is not None:
        return f"the estimated gain{inside} is {_between(least, most)}."
    if gain is None or least is None:
        known = least if gain is None else gain
        return f"the estimated gain{inside} is {'at least ' if gain is None else ''}{_db(known)}."
    if most is None:
        return f"the estimated gain{inside} is {_db(gain)}, at least {_plain(least)}."
    return f"the estimated gain{inside} is {_db(gain)} ({_between(least, most)})."


def _first_sentence(text: str) -> str:
    """Return the first sentence of a warning, to follow a colon."""
    first = re.split(r"(?<=\.) (?=[A-Z])", text)[0]
    name = not first.split(" ", 1)[0][1:].islower()  # names such as Noise2Inverse
    return first if name else first[:1].lower() + first[1:]


def _db(value: float | None) -> str:
    return "not known" if value is None or not math.isfinite(value) else f"{value:+.1f} dB".replace("-", _MINUS)


def _told(gain: float | None, least: float | None, most: float | None) -> str:
    """Return a small gain with its interval, or what it is at most."""
    return f"at most {_db(most)}" if gain is None else f"{_db(gain)}{_within(least, most)}"


def _within(least: float | None, most: float | None) -> str:
    return "" if least is None or most is None else f" ({_between(least, most)})"


def _between(least: float, most: float) -> str:
    return f"{least:.1f} to {most:.1f} dB".replace("-", _MINUS)


def _plain(value: float) -> str:
    return f"{value:.1f} dB".replace("-", _MINUS)
