"""Noise workflows: from a scan to a diagnosis of its noise with figures and a picture, or to a whitened scan."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from quietray.checkpoint import replace_file, write_json
from quietray.detector.correction.claims import sound
from quietray.detector.findings import amplification
from quietray.detector.response.decorrelate import decorrelate, reblur
from quietray.diagnose import Diagnosis, diagnose
from quietray.errors import NoiseError
from quietray.io import write_scan
from quietray.io.disk import disk_errors
from quietray.io.repeated import static_frames
from quietray.report.noise import noise_figure
from quietray.scan import Scan

__all__ = ["diagnosed", "write_white"]


def diagnosed(
    scan: Scan,
    static: Path | None = None,
    out: Path | None = None,
    *,
    counts_per_photon: float | None = None,
    retrieval: bool = False,
) -> Diagnosis:
    """Diagnose a scan; with a folder, write ``diagnosis.json`` and ``noise.png``.

    Parameters
    ----------
    scan
        The measured scan.
    static
        Repeated frames of one static scene.
    out
        Folder for figures and picture.
    counts_per_photon
        Mean counts per photon, if known.
    retrieval
        Whether the phase will be retrieved before denoising.

    Raises
    ------
    QuietrayError
        The noise cannot be measured, or a file cannot be read or written.
    """
    frames = None if static is None else static_frames(static)
    found = diagnose(sound(scan, turning=False), frames, counts_per_photon=counts_per_photon)
    found = found.after_retrieval() if retrieval else found
    if out is not None:
        with disk_errors(out):
            out.mkdir(parents=True, exist_ok=True)
            write_json(out / "diagnosis.json", found.record())
            replace_file(out / "noise.png", noise_figure(found))
    return found


def write_white(
    scan: Scan,
    static: Path | None,
    out: Path,
    *,
    back: bool = False,
    overwrite: bool = False,
    told: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Write a whitened scan; with `back`, write a whitened scan at the original resolution of the detector.

    Parameters
    ----------
    scan
        The measured scan, or with `back` a whitened one.
    static
        Repeated frames from which the point response is estimated.
    out
        File name of the new scan.
    back
        Whether to convolve with the point response again.
    overwrite
        Whether to replace an existing file.
    told
        Called before anything is written, with the effect of whitening on the noise, and whether it is sufficient.

    Returns
    -------
    dict
        The response and a sentence, ready for JSON.

    Raises
    ------
    NoiseError
        The response cannot be inverted, or with `back` the scan was never whitened.
    """
    if back:
        write_scan(out, reblur(scan), overwrite=overwrite)
        return {"scan": str(out), "note": "The point response was applied again."}
    scan = sound(scan, turning=False)
    found = diagnose(scan, None if static is None else static_frames(static))
    verdict = found.verdict("noise2self after decorrelation")
    if found.response is None:
        raise NoiseError(f"the scan must have a point response that can be deconvolved: {verdict.reason}")
    white = decorrelate(scan, found.response)
    one = found.detectors or {0: found}
    for each in one.values():
        assert each.response is not None
        told(f"whitening {amplification(each.response)}")
    told(f"noise2self after decorrelation is {verdict.answer}: {verdict.reason}")
    write_scan(out, white, overwrite=overwrite)
    note = " ".join(white.notes[len(scan.notes) :])
    return {"scan": str(out), "note": note, "response": found.response.record(), "verdict": verdict.answer}
