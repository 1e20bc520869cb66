"""Results of a comparison of methods, and the recommendation that follows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from quietray.assessment.verdict import verdict_on_methods
from quietray.brief import brief
from quietray.metrics.image import psnr
from quietray.running.settings import Settings
from quietray.settings import to_dict
from quietray.types import Slice, Volume

__all__ = ["Comparison", "Standing"]

_TOLD = 12  # number of methods that are printed


@dataclass(frozen=True, eq=False)
class Standing:
    """Result of one method.

    Parameters
    ----------
    name
        Name of the method.
    settings
        Settings of the run, including tuned filters.
    error, interval
        Estimated mean squared error with respect to the reconstruction of noise-free views, and its 90 % confidence
        interval.
    behind
        90 % confidence interval of the difference to the winner's error.
    seconds
        Run time in seconds.
    volume
        Volume ``(z, y, x)`` of the compared rows, made without the held-out views.
    """

    name: str
    settings: Settings
    error: float
    interval: tuple[float, float]
    behind: tuple[float, float]
    seconds: float
    volume: Volume

    __repr__ = brief

    @property
    def picture(self) -> Slice:
        """The middle slice."""
        return np.asarray(self.volume[len(self.volume) // 2])

    @property
    def learned(self) -> bool:
        """Whether it is a network."""
        return self.settings.method.trained


@dataclass(frozen=True, eq=False)
class Comparison:
    """Methods sorted by their estimated error.

    Parameters
    ----------
    standings
        Best first.
    left_out
        Names of methods that were not run, and why.
    recommended
        Name of the simplest method whose error is not clearly larger than the winner's.
    data_range
        Range for PSNR: from the 0.5 to the 99.5 percentile of the winner's volume, or of the line integrals.
    domain
        Description of what the error refers to.
    picked
        Settings to continue with: the winner's, or those of a network that is not clearly behind, as it improves with
        training.
    why
        A sentence with the reason.
    inside
        Mask ``(y, x)`` of the object in any of the rows, where errors were estimated; None if there is no air around
        it, or if errors refer to projections.
    withheld
        Why errors are too large, by about the same amount for every method, so that PSNR is only known to be at least
        so much; empty if they are not.
    """

    standings: tuple[Standing, ...]
    left_out: tuple[tuple[str, str], ...]
    recommended: str
    data_range: float
    domain: str
    picked: Settings
    why: str
    inside: Bool[np.ndarray, "y x"] | None = None
    withheld: str = ""

    def __repr__(self) -> str:
        told = [f"{one['method']}: " + _level(one) for one in self.record()["methods"]]
        lines = [*told[:_TOLD], *([f"and {len(told) - _TOLD} more, in .standings"] if len(told) > _TOLD else [])]
        head = f"Comparison of {len(told)} methods, estimated PSNR; recommended: {self.recommended}"
        return "\n  ".join([head, *lines])

    def to_learn(self) -> tuple[Settings, Settings | None]:
        """Return settings to continue with if there is more time; for a network, with those of the best filter.

        A comparison trains networks for seconds only, so a network that is behind may still win: its training
        continues, and the filter replaces it if it is still ahead then.  This can only be decided in the volume domain;
        a network for radiographs that is clearly behind a filter is dropped.
        """
        networks = [standing for standing in self.standings if standing.learned]
        filters = [standing for standing in self.standings if not standing.learned]
        if not (networks and filters):
            return self.picked, None
        network, rival = networks[0], filters[0]
        in_volume = network.settings.method.domain == "volume"
        chosen = network if in_volume or rival.error >= network.interval[0] else rival
        known = [dataclasses.replace(self.picked, method=each.settings.method) for each in (chosen, rival)]
        return known[0], known[1] if in_volume else None

    @property
    def verdict(self) -> dict[str, str]:
        """Which method to use, if any: ``kind`` and ``reason``; see :mod:`quietray.assessment.verdict`."""
        return verdict_on_methods(self.record()).record()

    def record(self) -> dict[str, Any]:
        """Return the figures, ready for JSON."""

        def decibel(error: float) -> float | None:
            return psnr(error, self.data_range) if 0 < error < np.inf else None

        told = not self.withheld
        rows = [
            {
                "method": standing.name,
                "psnr_db": decibel(standing.error) if told else None,
                "psnr_db_at_least": decibel(standing.interval[1]),
                "psnr_db_at_most": decibel(standing.interval[0]) if told else None,
                "clearly_behind": bool(standing.behind[0] > 0),
                "rmse": standing.error**0.5 if told and standing.error > 0 else None,
                "seconds": standing.seconds,
                "settings": to_dict(standing.settings.method),
            }
            for standing in self.standings
        ]
        return {
            "methods": rows,
            "left_out": [{"method": name, "reason": reason} for name, reason in self.left_out],
            "winner": self.standings[0].name,
            "recommended": self.recommended,
            "data_range": self.data_range,
            "domain": self.domain,
            "judged_in": "the field of view" if self.inside is None else "the object, without the air around it",
            "interval": "90 %, Student's t over bands of rows and held-out views",
            "why": f"{self.why} How large the errors are is not known: {self.withheld}." if self.withheld else self.why,
            "withheld": self.withheld or None,
        }


def _level(figures: Mapping[str, Any]) -> str:
    """Return the PSNR of a method as text, or what is known of it."""
    if figures["psnr_db"] is not None:
        return f"{figures['psnr_db']:.1f} dB"
    least = figures["psnr_db_at_least"]
    return "not known" if least is None else f"at least {least:.1f} dB"
