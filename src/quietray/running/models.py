"""Models stored on this machine, found by the noise of their training data."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from quietray.checkpoint import write_json
from quietray.errors import FormatError, ResourceError, SettingsError, nearest
from quietray.io.disk import disk_errors, remove

__all__ = ["LIMITS", "Remembered", "distance", "forget", "models_folder", "nearest_model", "remember", "remembered"]

LIMITS: Final[Mapping[str, float]] = {"noise_level": 1.5, "correlation": 0.15, "voxel_size_mm": 1.25}
"""How far data may differ from the training data of a model: factors, and a difference of correlations."""

_CARD, _FILES = "card.json", ("model.json", "weights.safetensors")


@dataclass(frozen=True)
class Remembered:
    """A stored model.

    Parameters
    ----------
    name
        Name of its folder.
    folder
        Path of its folder.
    card
        Facts on its training data: ``source``, ``when``, ``noise_level`` (standard deviation over contrast),
        ``correlation`` (of neighbouring voxels), ``gain`` and ``read_noise`` (in counts), ``voxel_size_mm``,
        ``method``, ``architecture``, ``instrument``.
    """

    name: str
    folder: Path
    card: Mapping[str, Any]


def models_folder() -> Path:
    """Return the folder of stored models: ``QUIETRAY_MODELS``, else in the user's folder for data.

    Examples
    --------
    >>> import os, unittest.mock
    >>> with unittest.mock.patch.dict(os.environ, {"QUIETRAY_MODELS": "/somewhere"}):
    ...     models_folder().as_posix()
    '/somewhere'
    """
    if stated := os.environ.get("QUIETRAY_MODELS"):
        return Path(stated)
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "quietray" / "models"


def remembered() -> list[Remembered]:
    """Return the stored models, sorted by name; other folders are ignored."""
    found = []
    for place in sorted(models_folder().glob(f"*/{_CARD}")):
        try:
            found.append(Remembered(place.parent.name, place.parent, json.loads(place.read_text())))
        except (OSError, ValueError):
            continue
    return found


def remember(folder: Path, name: str | None = None, instrument: Mapping[str, Any] | None = None) -> Remembered:
    """Store a copy of a model.

    Parameters
    ----------
    folder
        Folder of the model, or of a finished run.
    name
        Name of the stored model; by default that of the training data, with a number if it exists already.
    instrument
        Facts on the instrument from the file of the scan.

    Raises
    ------
    FormatError
        The folder contains no model.
    ResourceError
        The name exists, or the folder cannot be written.
    """
    folder = folder / "model" if (folder / "model" / "model.json").exists() else folder
    try:
        record = json.loads((folder / "model.json").read_text())
        facts = record["facts"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{folder} must hold a model written by quietray, got: {error}; give its folder") from None
    card = {
        "source": facts.get("source"),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        **{key: facts.get(key) for key in ("noise_level", "correlation", "gain", "read_noise", "voxel_size_mm")},
        **{key: facts.get(key) for key in ("steps", "started_from", "unit")},
        **{key: record[key] for key in ("method", "split", "architecture", "network")},
        "instrument": dict(instrument or {}),
    }
    kept = models_folder()
    chosen = name or _free(kept, Path(str(card["source"] or "model")).stem or "model")
    if Path(chosen).name != chosen or chosen.startswith("."):
        raise SettingsError(f"the name of a model must be a plain word, got {chosen}; leave folders and dots out")
    if (kept / chosen).exists():
        raise ResourceError(f"a model to be kept must have a new name, got {chosen}; remove that one, or give another")
    unfinished = kept / f".new-{chosen}"
    with disk_errors(kept):
        remove(unfinished)
        unfinished.mkdir(parents=True)
        for file in _FILES:
            shutil.copyfile(folder / file, unfinished / file)
        write_json(unfinished / _CARD, card)
        os.replace(unfinished, kept / chosen)
    return Remembered(chosen, kept / chosen, card)


def found_model(name: str) -> Remembered:
    """Return a stored model.

    Raises
    ------
    SettingsError
        No stored model has this name.
    """
    known = {one.name: one for one in remembered()}
    if name not in known:
        raise SettingsError(
            f"the model must be one of those in {models_folder()}, got {name}{nearest(name, known)}; see `quietray "
            "models`"
        )
    return known[name]


def forget(name: str) -> None:
    """Delete a stored model.

    Raises
    ------
    SettingsError
        No stored model has this name.
    """
    place = found_model(name).folder
    with disk_errors(place):
        remove(place)


def distance(model: Mapping[str, Any], scan: Mapping[str, Any]) -> tuple[float, str]:
    """Return how much a scan differs from the training data of a model, and the reason as text.

    Each difference is divided by its limit (:data:`LIMITS`), and they are added in quadrature: below 1, the model can
    be used.

    Parameters
    ----------
    model, scan
        Facts on the training data and on the scan: ``noise_level``, ``correlation``, ``voxel_size_mm``.

    Examples
    --------
    >>> known = {"noise_level": 0.2, "correlation": 0.0, "voxel_size_mm": 0.01}
    >>> distance(known, known)
    (0.0, 'its noise is similar')
    >>> far, why = distance(known, {**known, "noise_level": 0.6})
    >>> round(far, 2), why
    (2.71, 'the noise of the scan is 3.0 times that of the model')
    """
    parts: list[tuple[float, str]] = []
    here, there = scan.get("noise_level"), model.get("noise_level")
    if not here or not there:
        return math.inf, "the strength of its noise is not known"
    parts.append(
        (
            abs(math.log(here / there)) / math.log(LIMITS["noise_level"]),
            f"the noise of the scan is {here / there:.1f} times that of the model",
        )
    )
    if scan.get("correlation") is not None and model.get("correlation") is not None:
        differs = scan["correlation"] - model["correlation"]
        parts.append(
            (
                abs(differs) / LIMITS["correlation"],
                f"its neighbouring voxels correlate by {scan['correlation']:+.2f}, the model's by "
                f"{model['correlation']:+.2f}",
            )
        )
    if scan.get("voxel_size_mm") and model.get("voxel_size_mm"):
        ratio = scan["voxel_size_mm"] / model["voxel_size_mm"]
        parts.append(
            (abs(math.log(ratio)) / math.log(LIMITS["voxel_size_mm"]) / 2, f"its voxels are {ratio:.2g} times as large")
        )
    total = math.sqrt(sum(size**2 for size, _ in parts))
    told = [words for size, words in sorted(parts, reverse=True) if size > 0.5]
    return total, " and ".join(told) if told else "its noise is similar"


def nearest_model(
    facts: Mapping[str, Any], method: str, architecture: str, network: Mapping[str, Any]
) -> tuple[Remembered, float, str] | None:
    """Return the stored model of a method and network that is nearest to a scan, its distance, and the reason.

    Parameters
    ----------
    facts
        Facts on the scan.
    method, architecture, network
        Names, and the settings of the network as stored.
    """
    found: list[tuple[float, str, Remembered]] = []
    for one in remembered():
        card = one.card
        if (card["method"], card["architecture"]) == (method, architecture) and card["network"] == _plain(network):
            found.append((*distance(card, facts), one))
    if not found:
        return None
    far, why, model = min(found, key=lambda entry: (entry[0], entry[2].name))
    return model, far, why


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _free(kept: Path, wanted: str) -> str:
    """Return the name, or the name with the first number that is free."""
    wanted = wanted.lstrip(".") or "model"
    names: Sequence[str] = [wanted, *(f"{wanted}-{number}" for number in range(2, 10_000))]
    return next(name for name in names if not (kept / name).exists())
