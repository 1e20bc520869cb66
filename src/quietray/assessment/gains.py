"""Estimated gains in words, from the figures of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["gain_text", "headline", "means_text", "psnr_text", "too_wide"]


def means_text(training: Mapping[str, Any]) -> str:
    """Return how many processes trained, and from how much at a time, to follow the number of steps; mostly empty.

    Examples
    --------
    >>> means_text({"steps": 10}), means_text({"steps": 10, "processes": 4})
    ('', ' of 4 processes')
    >>> means_text({"steps": 10, "share": 0.25})
    ' from a window of 25% of the rows'
    """
    together = f" of {training['processes']} processes" if training.get("processes") else ""
    return together + (f" from a window of {training['share']:.0%} of the rows" if training.get("share") else "")


def headline(estimate: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the figures to report: those inside the object, or in the field of view if there is no air.

    Parameters
    ----------
    estimate
        Table ``estimate`` of the figures.
    """
    found: Mapping[str, Any] = estimate.get("object") or estimate
    return found


def gain_text(estimate: Mapping[str, Any]) -> str:
    """Return the estimated gain as text, with its interval or lower bound; inside the object, if known.

    Parameters
    ----------
    estimate
        Table ``estimate`` of the figures.

    Examples
    --------
    >>> air = {"psnr_gain_db": 17.31, "psnr_gain_db_at_least": 16.94, "psnr_gain_db_at_most": 17.8}
    >>> gain_text(air)
    '+17.3 dB (16.9 to 17.8)'
    >>> inside = {"psnr_gain_db": None, "psnr_gain_db_at_least": 14.94, "psnr_gain_db_at_most": None}
    >>> gain_text({**air, "object": {**inside, "share_of_field_of_view": 0.52}})
    'at least +14.9 dB inside the object, 52 % of the field of view; +17.3 dB (16.9 to 17.8) over the whole field'
    >>> vague = {**air, "psnr_gain_db": None}
    >>> gain_text(vague), gain_text({**vague, "psnr_gain_db_at_least": None})
    ('+16.9 to +17.8 dB', 'at most +17.8 dB')
    """
    inside = estimate.get("object")
    if not inside:
        return _gain(estimate)
    share = f"{100 * inside['share_of_field_of_view']:.0f} %"
    return f"{_gain(inside)} inside the object, {share} of the field of view; {_gain(estimate)} over the whole field"


def psnr_text(told: Mapping[str, Any]) -> str:
    """Return the estimated PSNR after denoising as text, or what is known of it: an interval or a bound.

    Parameters
    ----------
    told
        From :func:`headline`.

    Examples
    --------
    >>> told = {"psnr_noisy_db": 21.5, "psnr_db": None, "psnr_gain_db_at_least": 13.4, "psnr_gain_db_at_most": None}
    >>> psnr_text(told), psnr_text({**told, "psnr_gain_db_at_most": 17.0})
    ('at least 34.9 dB', '34.9 to 38.5 dB')
    >>> psnr_text({**told, "psnr_gain_db_at_least": None, "psnr_gain_db_at_most": 17.0})
    'at most 38.5 dB'
    """
    if told["psnr_db"] is not None:
        return f"{told['psnr_db']:.1f} dB"
    noisy, least, most = (told[name] for name in ("psnr_noisy_db", "psnr_gain_db_at_least", "psnr_gain_db_at_most"))
    if noisy is not None and least is None and most is not None:
        return f"at most {noisy + most:.1f} dB"
    if noisy is None or least is None or (most is None and least < 0):
        return "not known"
    return f"at least {noisy + least:.1f} dB" if most is None else f"{noisy + least:.1f} to {noisy + most:.1f} dB"


def too_wide(told: Mapping[str, Any], units: str, count: int | None) -> list[str]:
    """Return a warning if the interval of a gain is wider than the gain, and what would halve it.

    Parameters
    ----------
    told
        Figures from :func:`headline`.
    units
        What the width of the interval depends on.
    count
        Their number; None if unknown.

    Examples
    --------
    >>> wide = {"psnr_gain_db": 2.0, "psnr_gain_db_at_least": 0.5, "psnr_gain_db_at_most": 4.0}
    >>> too_wide(wide, "detector rows", 12)[0][-53:]
    'Four times as many detector rows (48) would halve it.'
    >>> too_wide({**wide, "psnr_gain_db_at_most": 2.4}, "detector rows", 12)
    []
    """
    gain, least, most = (told.get(f"psnr_gain_db{end}") for end in ("", "_at_least", "_at_most"))
    if gain is None and least is not None and most is not None:
        gain = (least + most) / 2
    if gain is None or least is None:
        return []
    width = 2 * (gain - least) if most is None else most - least
    if width <= abs(gain):
        return []
    many = "" if count is None else f" ({4 * count})"
    upwards = "up" if most is None else f"to {most:.1f}"
    return [
        f"The interval of the gain, from {least:.1f} dB {upwards}, is wider than the gain itself: too little was held "
        f"out. Four times as many {units}{many} would halve it."
    ]


def _gain(estimate: Mapping[str, Any]) -> str:
    gain, least, most = (estimate[f"psnr_gain_db{end}"] for end in ("", "_at_least", "_at_most"))
    if least is None:
        if gain is None:
            return "not known" if most is None else f"at most {most:+.1f} dB"
        return f"{gain:+.1f} dB"
    if gain is None and most is not None:
        return f"{least:+.1f} to {most:+.1f} dB"
    if gain is None and least < 0:  # no gain worth mentioning
        return f"not known ({least:+.1f} dB or more)"
    if gain is not None and most is None:
        return f"{gain:+.1f} dB ({least:.1f} or more)"
    if gain is None or most is None:
        return f"at least {least:+.1f} dB"
    return f"{gain:+.1f} dB ({least:.1f} to {most:.1f})"
