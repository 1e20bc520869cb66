"""A paragraph for the methods section of a paper, and the papers to cite."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

from quietray.assessment.gains import gain_text, headline, means_text
from quietray.method import METHODS
from quietray.networks.base import Architecture
from quietray.reconstruct import ALGORITHMS
from quietray.report.words import duration, number
from quietray.running.settings import Settings

__all__ = ["methods_text", "references_of", "sources"]

_NAMES = {
    "apbsn": "AP-BSN",
    "noise2inverse": "Noise2Inverse",
    "noise2noise": "Noise2Noise",
    "noise2projection": "Noise2Projection",
    "noise2self": "Noise2Self",
    "noise2void": "Noise2Void",
    "noise2clean": "Noise2Clean",
    "noisier2noise": "Noisier2Noise",
    "nlm": "non-local means",
    "tv": "total variation",
    "fbp": "filtered backprojection",
    "fdk": "the algorithm of Feldkamp, Davis and Kress",
    "unet": "U-Net",
    "msd": "mixed-scale dense network",
    "dncnn": "DnCNN",
    "redcnn": "RED-CNN",
    "cgls": "CGLS",
    "sirt": "SIRT",
}
_AUTHORS = r"((?:[A-Z][\w'-]+(?:, | & | and | et al\.,? | ))+)"
_SOURCE = re.compile(_AUTHORS + r"\((\d{4})\)(?:, \"[^\"]+\")?,? ((?:doi:|arXiv:)[\w./()<>;:-]*[\w/>])")


def sources(kind: type | None) -> tuple[str, ...]:
    """Return the papers that are cited in the docstring of a class.

    Examples
    --------
    >>> from quietray.splits import Noise2Inverse
    >>> sources(Noise2Inverse)
    ('Hendriksen, Pelt & Batenburg (2020), doi:10.1109/TCI.2020.3019647',)
    """
    text = " ".join(inspect.cleandoc(getattr(kind, "__doc__", None) or "").split())
    return tuple(f"{names.strip()} ({year}), {where}" for names, year, where in _SOURCE.findall(text))


def references_of(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the papers on the method, the network and the reconstruction of a run, each once.

    Parameters
    ----------
    metrics
        Figures of the run, as in ``metrics.json``.
    """
    method, settings = metrics["method"], (metrics.get("reconstruction") or {}).get("settings", {})
    found: list[str] = []
    for kind, registry in (
        (method["name"], METHODS),
        (method["network"], Architecture.registry),
        (settings.get("name"), ALGORITHMS),
    ):
        found += [one for one in _of(registry, kind) if one not in found]
    return tuple(found)


def methods_text(metrics: Mapping[str, Any], settings: Settings) -> str:
    """Return the methods paragraph for a paper.

    Parameters
    ----------
    metrics
        Figures of the run, as in ``metrics.json``.
    settings
        Settings of the run.
    """
    method, scan, version = metrics["method"], metrics["scan"], metrics["versions"].get("quietray", "")
    references = references_of(metrics)

    def cited(name: str | None, registry: Mapping[str, Any]) -> str:
        marks = ", ".join(str(references.index(one) + 1) for one in _of(registry, name) if one in references)
        return f" [{marks}]" if marks else ""

    def named(name: str) -> str:
        return _NAMES.get(name, name)

    sentences = []
    if method["domain"] == "images":
        verb = "were measured" if metrics.get("given_back") else "were denoised"
        sentences.append(f"{scan['images']} images of {scan['rows']} x {scan['columns']} pixels {verb}.")
    else:
        first, last = scan["rows"]
        raw = "taken as line integrals" if settings.correction.line_integrals else "corrected with flat and dark fields"
        sentences.append(
            f"{scan['views']} views over {scan['covered_degrees']:.0f}° of a detector of {scan['columns']} columns, of "
            f"which {last - first} rows were used, were {raw}."
        )
        if metrics.get("reconstruction"):
            algorithm = metrics["reconstruction"]["settings"]
            how = f" with the {algorithm['filter']} filter" if algorithm.get("filter") else ""
            name = algorithm["name"]
            sentences.append(f"They were reconstructed by {named(name)}{how}{cited(name, ALGORITHMS)}.")
    if metrics.get("given_back"):
        sentences.append("They were not denoised, since that gained nothing.")
        return " ".join(sentences)
    what = {"images": "The images were", "radiographs": "The radiographs were"}.get(method["domain"], "The volume was")
    by, how = f"quietray {version}".strip(), f"{named(method['name'])}{cited(method['name'], METHODS)}"
    if method["parameters"]:
        network = f"{named(method['network'])}{cited(method['network'], Architecture.registry)}"
        parts = f" with {method['parts']} angular subsets" if method["name"] == "noise2inverse" else ""
        sentences.append(
            f"{what} denoised with {how}{parts} as implemented in {by}: a network ({network}) of "
            f"{number(method['parameters'])} weights, {_learned(metrics)}; seed {settings.seed}."
        )
    else:
        tuned = ", ".join(f"{name} {value}" for name, value in method["settings"].items())
        chosen = f" ({tuned})" if tuned else ""
        by_data = f"its strength chosen on held-out data{chosen}"
        sentences.append(f"{what} denoised with the filter {how} as implemented in {by}, {by_data}.")
    if headline(metrics["estimate"]).get("psnr_gain_db_at_least") is not None:
        gain = gain_text(metrics["estimate"])
        sentences.append(f"The gain in PSNR estimated from held-out measurements is {gain}, a 90 % interval.")
    return " ".join(sentences)


def _learned(metrics: Mapping[str, Any]) -> str:
    """Return the sentence on the training of the network."""
    training, name = metrics["training"], metrics["method"]["name"]
    if not training["steps"]:
        return "trained beforehand"
    taught = name in METHODS and METHODS[name].domain == "clean"
    by = "on clean data" if taught else "on the measurement itself, without any clean reference,"
    steps = f"{number(training['steps'])} steps{means_text(training)}"
    return f"trained {by} for {steps} in {duration(training['seconds'])}"


def _of(registry: Mapping[str, Any], name: str | None) -> tuple[str, ...]:
    return sources(registry[name]) if name is not None and name in registry else ()
