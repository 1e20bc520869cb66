"""From a raw scan to one that is ready for reconstruction: calibration, rotation axis, memory plan."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from quietray.detector.correction.calibration import Calibrated
from quietray.detector.correction.conjugate import find_diverging_axis
from quietray.detector.correction.correct import Calibration, Correction, RowCounts, calibrate, correct_rows
from quietray.detector.correction.rotation import find_rotation_axis
from quietray.detector.correction.sweep import unchecked_angles
from quietray.detector.noise.photon_transfer import log_bias
from quietray.errors import GeometryError, SettingsError
from quietray.geometry import ConeBeam, Geometry, ParallelBeam, VolumeGrid, field_of_view
from quietray.networks import UNet
from quietray.operators.beams import projector
from quietray.operators.linear import LinearOperator
from quietray.operators.nufft import gpu_transforms
from quietray.operators.sparse import has_small_matrix
from quietray.preparation.flats import dealt_in
from quietray.preparation.retrieval import retrieved
from quietray.preparation.rows import chosen_rows
from quietray.preparation.sources import PartReconstruction, Reconstruction, reconstruction_of
from quietray.reconstruct import Algorithm
from quietray.reconstruct.choose import chosen as chosen_on_held_out
from quietray.reconstruct.choose import held_out_every
from quietray.running.plan import Plan, plan_run, plan_whole, resident_memory
from quietray.running.run import Run
from quietray.running.shared import shared_empty
from quietray.scan import Scan
from quietray.settings import called, parse_bytes
from quietray.types import Parts, Slice

__all__ = [
    "Calibrated",
    "Prepared",
    "calibrated",
    "chosen_region",
    "chosen_rows",
    "prepare",
    "reconstruct_windows",
    "usable",
    "with_choices",
]

_WITHOUT_CUFINUFFT = (
    "Slices were reconstructed on the CPU: cuFINUFFT is not installed; for the GPU, run pip install 'quietray[cuda]'."
)
_UNMATCHED = (
    "Iterations on the GPU use a backprojection that is not the exact adjoint of the projection (0.4 % apart for cone "
    "beams): many iterations may not converge. For an exact one, use --device cpu."
)
_MIXED = (
    "This run was started by a version with another backprojection (by areas): in its slabs, edges are slightly softer "
    "than in the others; start anew with --overwrite if that matters."
)
_CHOOSING = 8  # rows for choosing the number of iterations
_ITERATING = 2**30 + 2**28  # memory in bytes for the matrix of the views and the iterates
_MEMBER = 500 * 2**20  # bytes of a further process that trains: libraries, and a step


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan that is ready for reconstruction.

    Parameters
    ----------
    scan
        The scan with its rotation axis.
    calibration
        Flats, darks, bad pixels and beam intensity.
    rows
        Detector rows to process; for a cone beam, slices of the volume, which has as many slices as the detector has
        rows.
    grid
        Voxel grid of the volume.
    plan
        How the work is divided to fit into memory.
    algorithm
        Reconstruction algorithm, with all settings chosen.
    notes
        Findings to report.
    device
        Device for the reconstruction; None is the CPU.
    flats
        What was decided about separate flats for angular subsets; None if there was nothing to decide.
    """

    scan: Scan
    calibration: Calibration
    rows: range
    grid: VolumeGrid
    plan: Plan
    algorithm: Algorithm
    notes: tuple[str, ...]
    device: torch.device | None = None
    flats: Mapping[str, Any] | None = None

    @property
    def weight(self) -> Slice:
        """Weight ``(y, x)``: 1 inside the field of view of all views, else 0."""
        return field_of_view(*self.grid.shape[1:], self.scan.geometry.seen_radius, self.grid.centre)

    @property
    def detector_rows(self) -> range:
        """Detector rows that the volume needs: the same rows, or for a cone beam all rows, as rays cross slices."""
        return range(self.scan.n_rows) if isinstance(self.scan.geometry, ConeBeam) else self.rows

    @property
    def slabs(self) -> tuple[tuple[int, int], ...]:
        """The slabs of the plan, as ranges of slices of the volume."""
        return tuple((first - self.rows.start, last - self.rows.start) for first, last in self.plan.slabs)

    def source(self, n_parts: int = 1) -> PartReconstruction:
        """Return an object that reconstructs bands of rows."""
        return reconstruction_of(self.scan, self.calibration, self.algorithm, self.grid, n_parts, self.device)

    def whole(self) -> PartReconstruction:
        """Return an object that reconstructs bands of rows from all views, which share their flats."""
        return replace(self, calibration=replace(self.calibration, subsets=())).source()

    def log_bias(self) -> dict[str, float] | None:
        """Return the bias of the logarithm in the middle row, and the mean line integral that it is added to."""
        middle = self.rows[len(self.rows) // 2]
        band = slice(middle, middle + 1)
        sinograms, _ = correct_rows(self.scan.read(band), self.calibration, band)
        bias = log_bias(sinograms, self.calibration, band)
        if bias is None:
            return None
        return {"worst": bias[0], "mean": bias[1], "mean_line_integral": float(sinograms.mean())}


def chosen_region(text: str | None) -> tuple[int, int, int, int] | None:
    """Return ``(y0, y1, x0, x1)`` from ``y0:y1,x0:x1``.

    Raises
    ------
    SettingsError
        The text is not of this form.

    Examples
    --------
    >>> chosen_region("100:200,50:90")
    (100, 200, 50, 90)
    """
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+):(\d+)\s*,\s*(\d+):(\d+)\s*", text)
    if not match:
        raise SettingsError(f"region must be like 100:300,150:400 (y0:y1,x0:x1 in pixels of the slice), got '{text}'")
    y0, y1, x0, x1 = (int(number) for number in match.groups())
    return y0, y1, x0, x1


def calibrated(scan: Scan, run: Run) -> Calibrated:
    """Calibrate a scan, retrieve its phase if requested, and find its rotation axis."""
    rotation_axis, watch = run.settings.rotation_axis, run.watch
    said: tuple[str, ...]
    correction, remarks = usable(run.settings.correction, scan)
    with watch.stage("calibrating"):
        calibration = calibrate(scan, correction)
    if run.settings.phase is not None:
        scan, calibration = retrieved(scan, calibration, run)
    with watch.stage("finding the rotation axis"):
        if rotation_axis is not None:
            scan, said = scan.with_axis(rotation_axis), (f"Rotation axis at column {rotation_axis:.2f}, as given.",)
        elif scan.geometry.rotation_axis is not None and scan.provenance.get("axis") != "to be found":
            said = (f"Rotation axis at column {scan.geometry.rotation_axis:.2f}, as the file says.",)
        elif isinstance(scan.geometry, ParallelBeam):
            found = find_rotation_axis(scan, calibration, run.device)
            scan = scan.with_axis(found.column)
            said = found.notes or (f"Rotation axis found at column {found.column:.2f} ({found.method}).",)
        else:
            column, told = diverging_axis(scan, calibration)
            scan, said = scan.with_axis(column), (told,)
        known = {name: fact for name, fact in scan.provenance.items() if name != "axis"}
        scan = replace(scan, provenance=known)
    beam = scan.geometry
    settled = beam.settled()
    scan, said = replace(scan, geometry=settled), (*said, *_half_told(beam, settled))
    notes = (*scan.notes, *calibration.notes, *remarks, *unchecked_angles(scan), *said)
    return Calibrated(scan, calibration, notes)


def diverging_axis(scan: Scan, calibration: Calibration) -> tuple[float, str]:
    """Return the column of the axis of a diverging beam if it was not given, and a note on how it was found."""
    found = find_diverging_axis(scan, calibration)
    if found is not None:
        return found, f"The rotation axis is at column {found:.2f}, found from opposite rays."
    middle = scan.geometry.axis
    return middle, (
        f"The rotation axis was assumed at the detector's middle ({middle:g}): opposite rays do not determine it, or "
        "there is no full turn; give it with --rotation-axis if it is known."
    )


def _half_told(before: Geometry, beam: Geometry) -> tuple[str, ...]:
    """Return a note on half acquisition: that the scan is one, or that it only looks like one."""
    if beam.half:
        why = "as stated" if before.half else "a full turn around an axis near an edge"
        return (
            f"Half acquisition ({why}): opposite views are stitched, so slices are {beam.across} voxels wide instead "
            f"of {beam.n_cols}; use --half no if it is not one.",
        )
    if before.half is False and beam.off_centre:
        return ("The axis is near an edge, but the scan was stated not to be a half acquisition.",)
    return ()


def usable(correction: Correction, scan: Scan) -> tuple[Correction, tuple[str, ...]]:
    """Return how a scan can be corrected, with notes; rings can only be recognised if the object rotates."""
    if not isinstance(scan.geometry, ConeBeam) or scan.geometry.turning or correction.rings != "auto":
        return correction, ()
    said = "Rings were not searched for: in views from fixed directions, they cannot be distinguished from the object."
    return replace(correction, rings="none"), (said,)


def prepare(scan: Scan | Calibrated, run: Run, n_parts: int = 1, n_slices: int = 1, n_subsets: int = 1) -> Prepared:
    """Calibrate a scan, find its rotation axis, plan its memory.

    Parameters
    ----------
    scan
        The scan as read, or already calibrated.
    run
        Its settings determine the correction, the region, the algorithm, the memory limit and the network; its output
        stores the plan, so that a resumed run uses the same one.
    n_parts, n_slices
        Numbers of subsets per slice, and of slices that the network takes.
    n_subsets
        Number of angular subsets whose noise must be independent; they get separate flats if that helps.

    Raises
    ------
    QuietrayError
        The scan, the choice of rows or region, or the memory does not permit it.
    """
    settings, output, watch = run.settings, run.output, run.watch
    chosen = chosen_rows(settings.rows, (scan.scan if isinstance(scan, Calibrated) else scan).n_rows)
    known = scan
    if not isinstance(known, Calibrated):
        known = calibrated(known, run)
    known = dealt_in(run, known, n_subsets)
    scan = known.scan
    geometry = scan.geometry
    algorithm = settings.reconstruction.for_beam(geometry)
    whole = geometry.grid(chosen_region(settings.region))
    iterating, cone = algorithm.iterates, isinstance(geometry, ConeBeam)
    grid = whole.slab(chosen.start, chosen.stop) if cone else whole.with_slices(len(chosen))
    if isinstance(geometry, ConeBeam) and iterating:
        whole = geometry.tall_grid(whole)
        projector(geometry, whole)  # better to report missing requirements now than after hours
    planned = partial(plan_whole, algorithm=algorithm) if cone and iterating else plan_run
    network = settings.network if settings.method.trained else UNet()  # no filter takes as much
    need, crew = partial(planned, parts=n_parts, n_slices=n_slices, network=network), run.executor.crew
    members = len(run.devices) if settings.method.trained and len(run.devices) > 1 else 0
    matrix = _ITERATING if iterating and not cone else 0

    def choose() -> dict[str, Any]:
        memory = parse_bytes(settings.max_memory) if settings.max_memory else None
        volume = whole if cone and iterating else grid
        base = resident_memory() + matrix + members * _MEMBER
        plan = need(scan, chosen, volume, memory=memory, base=base)
        if crew is not None and not (cone and iterating):  # whose slices cannot be told apart
            theirs = need(scan, chosen, volume, memory=crew.memory, base=crew.base + matrix)
            plan = plan.shared(theirs, crew.count, max(n_slices // 2, network.depth))
        return asdict(plan)

    kept = output.decide("plan", choose)
    ranges = {name: tuple((int(a), int(b)) for a, b in kept[name]) for name in ("slabs", "windows")}
    plan = Plan(**{**kept, **ranges})
    said = known.notes
    if run.device.type == "cuda":
        parallel = isinstance(geometry, ParallelBeam)
        if parallel and not iterating and not gpu_transforms(run.device):
            said = (*said, _WITHOUT_CUFINUFFT)
        views = (len(chosen), -(-geometry.n_views // n_parts), geometry.n_cols)
        by_astra = parallel and not algorithm.needs_adjoint and not has_small_matrix(views, grid)
        if iterating and (cone or by_astra):
            said = (*said, _UNMATCHED)
    if isinstance(geometry, ParallelBeam) and not iterating:  # versions that stored nothing here backprojected by areas
        mixed = output.decide("backprojection", lambda: {"mixed": output.begun})["mixed"]
        said = (*said, _MIXED) if mixed else said
    for note in (*said, f"Plan: {plan.describe()}."):
        watch.note(note)
    prepared = Prepared(scan, known.calibration, chosen, grid, plan, algorithm, said, run.device, known.flats)
    prepared = with_choices(prepared, run)
    if not prepared.weight.any():
        raise GeometryError("the region must hold voxels that all views see, got one outside the field of view")
    return prepared


def with_choices(prepared: Prepared, run: Run, what: str = "measured") -> Prepared:
    """Choose the open setting of the algorithm on the middle rows; `what` identifies the purpose."""
    algorithm, rows, left = prepared.algorithm, prepared.rows, prepared.algorithm.chosen_by_views
    if not algorithm.open:
        return prepared
    geometry, grid = prepared.scan.geometry, prepared.grid
    cone = isinstance(geometry, ConeBeam)  # their slices cannot be separated
    n = prepared.scan.n_rows if cone else min(_CHOOSING, len(rows))
    first = 0 if cone else rows.start + (len(rows) - n) // 2
    band = slice(first, first + n)
    part = replace(grid.with_slices(n), z=0.0)
    if isinstance(geometry, ConeBeam):
        part = geometry.tall_grid(part)

    def choose() -> dict[str, Any]:
        with run.watch.stage(f"choosing the {left}"):
            sinograms, _ = correct_rows(prepared.scan.read(band), prepared.calibration, band)
            views = held_out_every(geometry.angles, prepared.scan.detectors)
            found = chosen_on_held_out(algorithm, project, sinograms, views)
        return {left: getattr(found, left)}

    def project(views: np.ndarray) -> LinearOperator:
        return projector(geometry[views].rows(n), part, many=True)

    found = run.output.decide(f"reconstruction-{what}", choose)
    said = f"{called(type(algorithm))}, {left} {found[left]:.4g}"
    note = f"The {what} views are reconstructed by {said}, which predicted held-out views best."
    run.watch.note(note)
    settled: Any = algorithm
    return replace(prepared, algorithm=replace(settled, **found), notes=(*prepared.notes, note))


def reconstruct_windows(prepared: Prepared, source: Reconstruction, run: Run) -> tuple[Parts, RowCounts]:
    """Return the reconstructions ``(part, z, y, x)`` of the training windows, one step of a series after the other.

    Parameters
    ----------
    prepared
        The scan and its plan.
    source
        Reconstructs the parts.
    run
        Receives the progress; if several processes will train, the reconstructions are in memory that they share.

    Returns
    -------
    parts, changed
        The reconstructions, and counts of what the correction changed.
    """
    windows = prepared.plan.windows
    total = len(source.steps) * sum(stop - start for start, stop in windows)
    shape = (source.n_parts, total, *prepared.grid.shape[1:])
    parts = shared_empty(shape) if len(run.devices) > 1 else np.empty(shape, np.float32)
    done, changed = 0, RowCounts()
    with run.watch.stage("reconstructing", total) as advance:
        for step in source.steps:
            for start, stop in windows:
                changed += step.into(parts[:, done : done + stop - start], slice(start, stop), advance)
                done += stop - start
    return parts, changed
