"""Looking at scans: what is in them, what their noise is, and simulated ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from quietray.checkpoint import replace_file, write_json
from quietray.detector.findings import amplification
from quietray.detector.response.decorrelate import decorrelate, reblur
from quietray.diagnose import Diagnosis, diagnose
from quietray.errors import GeometryError, NoiseError, ResourceError, SettingsError
from quietray.geometry import ConeBeam, FanBeam, Geometry, ParallelBeam
from quietray.io import read, write_scan
from quietray.io.disk import disk_errors
from quietray.report.noise import noise_figure
from quietray.running.plan import plan_run
from quietray.scan import Scan
from quietray.settings import parse_bytes
from quietray.simulate.acquire import acquire
from quietray.simulate.noise import Scintillator
from quietray.simulate.phantom import Foam
from quietray.types import Frames

__all__ = ["describe", "diagnosed", "read_frames", "simulate_foam", "write_white"]


def describe(scan: Scan, max_memory: str | None = None) -> dict[str, Any]:
    """Return what is in a scan, and how a run would fit into memory, as text by name.

    Parameters
    ----------
    scan
        Nothing but its geometry and shapes is looked at.
    max_memory
        Memory to plan with.

    Examples
    --------
    >>> beam = ParallelBeam(np.linspace(0, np.pi, 8, endpoint=False), n_rows=2, n_cols=5)
    >>> describe(Scan(np.ones((8, 2, 5), np.uint16), beam))["projections"]
    '8 views of 2 x 5, uint16, 0.0 MB'
    """
    geometry = scan.geometry
    degrees = np.rad2deg(geometry.angles)

    def frames(stack: Any) -> str:
        return "none" if stack is None else f"{stack.shape[0]} frames, {np.dtype(stack.dtype)}"

    try:
        memory = parse_bytes(max_memory) if max_memory else None
        plan = plan_run(scan, range(scan.n_rows), geometry.grid(), parts=4, n_slices=7, memory=memory).describe()
    except ResourceError as error:
        plan = str(error)
    facts = {
        "format": scan.provenance.get("format", "not known"),
        "projections": f"{scan.n_views} views of {scan.n_rows} x {scan.n_cols}, "
        f"{np.dtype(scan.projections.dtype)}, {scan.nbytes / 1e6:.1f} MB",
        "beam": _beam(geometry),
        "angles": f"{degrees[0]:.3f} to {degrees[-1]:.3f} degrees, step {_step(degrees)}, "
        f"covering {np.rad2deg(geometry.coverage):.1f}",
        "flats": frames(scan.flats),
        "darks": frames(scan.darks),
        "pixel size": "not known" if geometry.pixel_size is None else f"{geometry.pixel_size:g} mm",
        "detectors": "one" if scan.detectors is None else str(len(scan.by_detector())),
        "exposure": "not known" if scan.exposure is None else f"{scan.exposure:g} s",
        "rotation axis": "to be found" if geometry.rotation_axis is None else f"column {geometry.rotation_axis:.2f}",
        "sample": scan.provenance.get("sample", "not known"),
        "truth": "included" if scan.truth is not None else "none, as usual",
        "memory plan": plan,
    }
    return facts | {f"note {index}": note for index, note in enumerate(scan.notes, 1)}


def _beam(geometry: Geometry) -> str:
    if isinstance(geometry, ParallelBeam):
        return "parallel"
    if isinstance(geometry, FanBeam):
        kind, unit = "fan", "mm" if geometry.pixel_size else "pixels"
        to_axis, to_detector = geometry.source_axis, geometry.source_detector
    else:
        kind, unit = "cone", "mm" if geometry.unit == "mm" else "pixels"
        to_axis, to_detector = geometry.reach.mean(axis=0).tolist()
    said = f"{kind}, from the source {to_axis:.6g} {unit} to the axis and {to_detector:.6g} to the detector, magnified "
    said += f"{geometry.magnification:.4g} times"
    still = isinstance(geometry, ConeBeam) and not geometry.turning
    return f"{said}, from {len(np.unique(geometry.angles.round(6)))} fixed directions" if still else said


def _step(degrees: np.ndarray) -> str:
    steps = np.diff(degrees)
    typical = float(np.median(steps))
    even = np.allclose(steps, typical, atol=0.05 * abs(typical))
    return f"{typical:.4g}" if even else f"{typical:.4g} (uneven)"


def diagnosed(
    scan: Scan, static: Path | None = None, out: Path | None = None, *, counts_per_photon: float | None = None
) -> Diagnosis:
    """Diagnose a scan; with a folder, write ``diagnosis.json`` and ``noise.png``.

    Parameters
    ----------
    scan
        As measured.
    static
        Repeated frames of one static scene.
    out
        Folder for figures and picture.
    counts_per_photon
        Counts that one photon gives on average, where that is known.

    Raises
    ------
    QuietrayError
        There is no noise to read, or a file cannot be read or written.
    """
    frames = None if static is None else _frames(static, scan)
    found = diagnose(scan, frames, counts_per_photon=counts_per_photon)
    if out is not None:
        with disk_errors(out):
            out.mkdir(parents=True, exist_ok=True)
            write_json(out / "diagnosis.json", found.record())
            replace_file(out / "noise.png", noise_figure(found))
    return found


def read_frames(path: Path) -> Scan:
    """Read a stack of repeated frames, which need no angles.

    Raises
    ------
    QuietrayError
        The file cannot be read.
    """
    try:
        return read(path)
    except GeometryError:
        return read(path, angles="0:180")


def _frames(path: Path, scan: Scan) -> Frames | dict[int, Frames]:
    """Return repeated frames of a scan, whatever its angles, or of a plain stack; by detector where it numbers them."""
    count = int(scan.n_views)
    try:
        static = read(path)
    except GeometryError:
        static = read(path, angles=f"0:{max(count, 1)}")
    if static.detectors is None:
        return static.projections
    return {number: part.projections for number, part in static.by_detector().items()}


def write_white(
    scan: Scan,
    static: Path | None,
    out: Path,
    *,
    back: bool = False,
    overwrite: bool = False,
    told: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Write a whitened scan, or with `back` a whitened scan at the detector's own resolution again.

    Parameters
    ----------
    scan
        As measured; or whitened, to go back.
    static
        Repeated frames to estimate the point response from.
    out
        The new scan.
    back
        Blur instead.
    overwrite
        Replace a file of that name.
    told
        Told, before anything is written, what whitening does to the noise, and whether it is good enough.

    Returns
    -------
    dict
        The response and a sentence; JSON.

    Raises
    ------
    NoiseError
        The response cannot be inverted, or the scan to go back from was never whitened.
    """
    if back:
        write_scan(out, reblur(scan), overwrite=overwrite)
        return {"scan": str(out), "note": "The point response was applied again."}
    found = diagnosed(scan, static)
    verdict = found.verdict("noise2self after decorrelation")
    if found.response is None:
        raise NoiseError(f"the scan must have a point response that can be undone: {verdict.reason}")
    white = decorrelate(scan, found.response)
    one = found.detectors or {0: found}
    for each in one.values():
        assert each.response is not None
        told(f"whitening {amplification(each.response)}")
    told(f"noise2self after decorrelation is {verdict.answer}: {verdict.reason}")
    write_scan(out, white, overwrite=overwrite)
    note = " ".join(white.notes[len(scan.notes) :])
    return {"scan": str(out), "note": note, "response": found.response.record(), "verdict": verdict.answer}


def simulate_foam(
    out: Path,
    *,
    views: int,
    rows: int,
    cols: int,
    beam: Literal["parallel", "fan", "cone"],
    source_axis: float | None,
    source_detector: float | None,
    pairs: int,
    degrees: float | None,
    photons: float,
    absorption: float,
    spheres: int,
    largest: float,
    rotation_axis: float | None,
    pixel_size: float | None,
    flats: int,
    darks: int,
    gain: float | None,
    dark_level: float,
    response_width: tuple[float, ...],
    seed: int,
    overwrite: bool,
    **detector: Any,
) -> dict[str, Any]:
    """Write a simulated scan of a foam; the parameters are those of ``quietray simulate``, which explains them.

    Returns
    -------
    dict
        What was simulated; JSON.
    """
    for name, count in (("views", views), ("rows", rows), ("cols", cols), ("photons", photons), ("pairs", pairs)):
        if not count > 0:
            raise SettingsError(f"{name} must be positive, got {count}")
    height = max(0.35, 1.1 * rows / cols)
    foam = Foam.packed(spheres, height, np.random.default_rng(seed), largest=largest)
    if len(response_width) not in (1, pairs):
        raise SettingsError(
            f"response_width must be one number, or one for each of the {pairs} pairs, got {len(response_width)}"
        )
    turn = (180.0 if beam == "parallel" else 360.0) if degrees is None else degrees
    pair = np.arange(views) % pairs
    angles = np.deg2rad(turn * (np.arange(views) // pairs) / -(-views // pairs) + 360 * pair / pairs)
    axis = (cols - 1) / 2 if rotation_axis is None else rotation_axis
    distance = 4 * cols * (pixel_size or 1.0) if source_axis is None else source_axis
    distances = (distance, 1.5 * distance if source_detector is None else source_detector)
    geometry: Geometry = ParallelBeam(angles, rows, cols, axis, pixel_size)
    if beam == "fan":
        geometry = FanBeam(angles, rows, cols, *distances, axis, pixel_size)
    elif beam == "cone":
        geometry = ConeBeam.circular(angles, rows, cols, *distances, pixel_size, axis)
    scale = min(10.0, 40_000 / photons) if gain is None else gain
    widths = response_width * pairs if len(response_width) == 1 else response_width
    models = [Scintillator(gain=scale, dark=dark_level, response_width=width, **detector) for width in widths]
    scan = acquire(
        foam, geometry, photons=photons, absorption=absorption, detector=models, n_flats=flats, n_darks=darks, seed=seed
    )
    write_scan(out, scan, overwrite=overwrite)
    return {"scan": str(out), **scan.provenance}
