"""Rules, with their limits, for which self-supervised methods the measured noise permits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from quietray.detector.noise.memory import Memory, Subsets, subsets_of
from quietray.detector.noise.rings import EXPLAINED, Rings
from quietray.wording import told

__all__ = ["METHODS", "Findings", "Verdict", "after_retrieval", "judge"]

Answer = Literal["valid", "valid with a warning", "not valid"]
METHODS = ("noise2self", "noise2void", "noise2self after decorrelation", "noise2inverse", "noise2noise")
VALID: Answer = "valid"
WARN: Answer = "valid with a warning"
INVALID: Answer = "not valid"

INFILL = (0.05, 0.15)  # correlation of a masked pixel's noise with its filling: limits for a warning, and for not valid
ROWS = (0.01, 0.05)  # fraction of the variance that a row has in common
SUCCESSIVE = 0.02  # correlation of consecutive frames
SHARED = (0.04, 0.20)  # correlation of two subsets due to neighbouring views
RINGS = 0.12  # fraction of the variance that all views have in common
NOTHING = 0.01  # correlation of subsets too small to mention
PARTS = (2, 4)
SUMMED = 0.3  # largest summed correlation after whitening
SUMMED_WHITE = 0.15
CONDITION = 50.0


@dataclass(frozen=True)
class Verdict:
    """Whether a method may be used on a scan.

    Parameters
    ----------
    method
        One of `METHODS`.
    answer
        ``"valid"``, ``"valid with a warning"`` or ``"not valid"``.
    reason
        A sentence with the measured figures.
    advice
        What to do.

    Examples
    --------
    >>> Verdict("noise2noise", "not valid", "Each view was measured once.", "Measure twice.").answer
    'not valid'
    """

    method: str
    answer: Answer
    reason: str
    advice: str

    def __post_init__(self) -> None:
        for name in ("reason", "advice"):
            object.__setattr__(self, name, told(getattr(self, name)))


@dataclass(frozen=True)
class Findings:
    """The figures that the rules use; correlations are fractions.

    Parameters
    ----------
    summed, summed_error, infill, infill_error
        Summed neighbour correlation, correlation of a pixel with its filling, and their standard errors.
    row_share, column_share
        Fraction of the variance that a row or column of a frame has in common.
    window
        Lags ``(rows, columns)`` over which `summed` and `after_summed` were summed.
    successive, successive_error
        Correlation of consecutive frames, and its standard error; None if it could not be measured.
    memory
        Noise shared by neighbouring views; None if it could not be measured.
    rings
        Noise shared by all views; None if it could not be measured.
    after_summed, after_error, after_infill
        The same after whitening; None if nothing was whitened.
    refused
        Why whitening is refused; empty if it is not.
    condition, white_gain
        Effect of whitening on the finest details, and on the variance of white readout noise.
    uneven
        Whether a single response does not suffice for the whole detector.
    n_flats, n_views
        Numbers of frames; no flats if the projections are transmissions.
    repeated
        Whether frames of one static scene were given.

    Examples
    --------
    >>> Findings(0.0, 0.1, 0.0, 0.01).white, Findings(3.9, 0.1, 0.67, 0.01).white
    (True, False)
    """

    summed: float
    summed_error: float
    infill: float
    infill_error: float
    window: tuple[int, ...] = (13, 13)
    row_share: float = 0.0
    column_share: float = 0.0
    successive: float | None = 0.0
    successive_error: float = 0.0
    memory: Memory | None = None
    rings: Rings | None = None
    after_summed: float | None = None
    after_error: float = 0.0
    after_infill: float | None = None
    refused: str = ""
    condition: float = 1.0
    white_gain: float = 1.0
    uneven: bool = False
    n_flats: int = 100
    n_views: int = 1000
    repeated: bool = False

    @property
    def white(self) -> bool:
        """Whether the noise of neighbouring pixels is uncorrelated within the errors."""
        near = abs(self.infill) <= max(INFILL[0], 3 * self.infill_error)
        return near and abs(self.summed) <= max(SUMMED_WHITE, 4 * self.summed_error)

    @property
    def static(self) -> tuple[float, float]:
        """Fraction of the noise variance of a view that is common to all views, and its standard error.

        Without air to measure rings in, the noise of the flats is used instead: one part in ``n_flats + 1``.
        """
        if self.rings is not None and self.rings.source == "air columns":
            return self.rings.share, self.rings.share_error
        return (1 / (1 + self.n_flats) if self.n_flats else 0.0), 0.0

    @property
    def subsets(self) -> tuple[Subsets, ...]:
        """Correlation of the noise between two, and between four, interleaved subsets of the views."""
        return tuple(subsets_of(self.memory, *self.static, parts) for parts in PARTS)


def judge(found: Findings) -> tuple[Verdict, ...]:
    """Return the verdict on each method.

    Examples
    --------
    >>> [verdict.answer for verdict in judge(Findings(3.9, 0.1, 0.67, 0.01, after_summed=0.0, after_infill=0.0))]
    ['not valid', 'not valid', 'valid', 'valid with a warning', 'not valid']
    """
    return (
        _blind_spot("noise2self", found),
        _blind_spot("noise2void", found),
        _whitened(found),
        _noise2inverse(found),
        _noise2noise(found),
    )


def after_retrieval(verdicts: tuple[Verdict, ...]) -> tuple[Verdict, ...]:
    """Return the verdicts after phase retrieval, which spreads noise over pixels but not over views.

    Examples
    --------
    >>> [verdict.answer for verdict in after_retrieval(judge(Findings(0.0, 0.1, 0.0, 0.01)))]
    ['not valid', 'not valid', 'not valid', 'valid with a warning', 'not valid']
    """
    reason = "Phase retrieval spreads each pixel's noise over its neighbours: no blind spot hides it."
    advice = "Use Noise2Inverse; or denoise the radiographs first and then retrieve their phase."
    return tuple(
        verdict if verdict.method in METHODS[3:] else Verdict(verdict.method, INVALID, reason, advice)
        for verdict in verdicts
    )


def _blind_spot(method: str, found: Findings) -> Verdict:
    seen = (
        f"a masked pixel's noise correlates with its neighbours by {found.infill:.3f} +- {found.infill_error:.3f} "
        f"(summed over {_window(found)} lags {found.summed:.0%})"
    )
    rows = _rows(found)
    if found.white:
        if rows:
            return Verdict(method, *rows)
        return Verdict(method, VALID, f"The noise is white: {seen}.", "Use it as it is.")
    if abs(found.infill) <= INFILL[1]:
        return Verdict(
            method, WARN, f"The noise is nearly white: {seen}.", "Decorrelate first, or stop the training early."
        )
    reason = f"The noise is spread over neighbours: {seen}; the network would learn it as if it were the object."
    advice = "Decorrelate first." if not found.refused else "Use structured blind spots or Noise2Inverse."
    return Verdict(method, INVALID, reason, advice)


def _window(found: Findings) -> str:
    return " x ".join(map(str, found.window))


def _rows(found: Findings) -> tuple[Answer, str, str] | None:
    """Return the verdict on row or column noise, which masking pixels cannot hide."""
    share, name = max((found.row_share, "row"), (found.column_share, "column"))
    if share <= ROWS[0]:
        return None
    answer = WARN if share <= ROWS[1] else INVALID
    reason = f"All pixels of a {name} share an offset in each frame, {share:.1%} of the noise variance"
    return (
        answer,
        f"{reason}; no blind spot hides it.",
        f"Subtract each {name}'s offset (from air), or use Noise2Inverse.",
    )


def _whitened(found: Findings) -> Verdict:
    method = METHODS[2]
    if found.refused:
        return Verdict(method, INVALID, found.refused, "Use structured blind spots or Noise2Inverse.")
    if found.white:
        rows = _rows(found)
        if rows:
            return Verdict(method, *rows)
        return Verdict(method, VALID, "The noise is white already.", "Use Noise2Self without decorrelation.")
    if found.after_summed is None or found.after_infill is None:
        return Verdict(method, INVALID, "Whitening could not be checked.", "Measure repeated static frames.")
    seen = (
        f"after whitening the infill correlation is {found.after_infill:.3f} and the summed one "
        f"{found.after_summed:.0%} +- {found.after_error:.0%} ({_window(found)} lags)"
    )
    if abs(found.after_infill) > INFILL[1] / 1.5 or abs(found.after_summed) > 3 * SUMMED:
        return Verdict(method, INVALID, f"One response does not whiten this noise: {seen}.", "Use Noise2Inverse.")
    rows = _rows(found)
    if rows:
        return Verdict(method, *rows)
    left = abs(found.after_infill) > INFILL[0] / 1.5 or abs(found.after_summed) > max(SUMMED, 4 * found.after_error)
    if left:
        return Verdict(
            method, WARN, f"Some correlation is left: {seen}.", "Watch the residual, stop the training early."
        )
    if found.condition > CONDITION:
        reason = (
            f"Whitening amplifies the finest details {found.condition:.0f}-fold and the variance of readout noise "
            f"{found.white_gain:.0f}-fold; {seen}."
        )
        return Verdict(method, WARN, reason, "Look at the whitened radiographs; bin the pixels if they are too noisy.")
    if found.uneven:
        reason = f"The response differs over the detector, so each tile got its own; {seen}."
        return Verdict(method, WARN, reason, "Look at the correlation map after whitening.")
    return Verdict(method, VALID, f"The noise can be made white: {seen}.", "Decorrelate, then train.")


def _noise2inverse(found: Findings) -> Verdict:
    method = "noise2inverse"
    if found.memory is None:
        reason = "Views are assumed to be independent; the correlation of successive views could not be measured."
        return Verdict(method, WARN, reason, "Measure ten flats in a row, or leave air beside the object.")
    seen = "; ".join(
        f"{one.parts} subsets of the views correlate by {one.correlation:.3f} +- {one.error:.3f}"
        for one in found.subsets
    )
    shared = [found.memory.between(parts) for parts in PARTS]
    beyond = max(abs(value) - 2 * error for value, error in shared)
    if beyond > SHARED[1]:
        reason = f"Neighbouring views share their noise ({found.memory.correlations[0]:.3f}): {seen}."
        return Verdict(method, INVALID, reason, "Correct the afterglow, or skip views between those used.")
    if beyond > SHARED[0]:
        reason = f"Neighbouring views share a little noise ({found.memory.correlations[0]:.3f}): {seen}."
        return Verdict(method, WARN, reason, "Correct the afterglow, or use fewer subsets with gaps between them.")
    if found.n_views < 64:
        reason = f"{found.n_views} views are few: the subsets differ by artefacts that are not noise; {seen}."
        return Verdict(method, WARN, reason, "Prefer a method on radiographs.")
    static, error = found.static
    if static - 2 * error > RINGS:
        reason = f"All views share {static:.0%} of the noise variance, as rings{_from_flats(found)}; {seen}."
        return Verdict(method, WARN, reason, "Measure more flats; remove rings first.")
    shares = [one.correlation for one in found.subsets if abs(one.correlation) > max(3 * one.error, NOTHING)]
    if shares:
        reason = (
            "The noise of the views is independent except for a small share, from flats, rings or previous views, "
            f"which stays in the result: {seen}."
        )
        return Verdict(
            method, VALID, reason, "Use it as it is, or with separate flats for each subset (--own-flats yes)."
        )
    return Verdict(method, VALID, f"The noise of the views is independent: {seen}.", "Use it as it is.")


def _from_flats(found: Findings) -> str:
    """Return how far the noise of the flats explains the rings."""
    if found.rings is None or found.rings.over_flats is None or found.rings.source != "air columns":
        return f" ({found.n_flats} flats)"
    if found.rings.over_flats < EXPLAINED:
        return f", the noise of the {found.n_flats} flats"
    return f", {found.rings.over_flats:.1f} times what the noise of the {found.n_flats} flats explains"


def _noise2noise(found: Findings) -> Verdict:
    method = "noise2noise"
    if not found.repeated:
        reason = "Each view was measured once: there is no second measurement of the same thing to learn from."
        return Verdict(method, INVALID, reason, "Measure the scan twice, or use Noise2Inverse, which needs one scan.")
    if found.successive is not None and abs(found.successive) - 2 * found.successive_error > SUCCESSIVE:
        reason = f"The repeated frames are not independent: successive ones correlate by {found.successive:.3f}."
        return Verdict(method, WARN, reason, "Pair frames that are three or more apart.")
    return Verdict(method, VALID, "Frames of the static scene are independent of each other.", "Pair any two of them.")
