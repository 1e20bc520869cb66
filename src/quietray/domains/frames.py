"""Repeated frames of one static scene: Noise2Noise."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from quietray.assessment.evidence import Evidence
from quietray.assessment.figures import Memory, ScanFacts, ScanMetrics
from quietray.assessment.halves import Halves
from quietray.detector.correction.correct import RowCounts
from quietray.detector.correction.frames import dealt_means
from quietray.domains.base import Domain
from quietray.domains.common import method_facts
from quietray.errors import SettingsError
from quietray.geometry import VolumeGrid
from quietray.inference.denoiser import Denoiser, Scale
from quietray.preparation.alike import require_alike
from quietray.preparation.sources import Held
from quietray.result import Judged, Result, figures, gather, histogram_edges
from quietray.running.facts import peak_memory, versions
from quietray.running.ledger import SlabRecord
from quietray.running.plan import available_memory
from quietray.running.planes import Planes
from quietray.running.run import Run
from quietray.running.slabs import Advance, Finished, Slab, SlabTask
from quietray.scan import Scan
from quietray.settings import called
from quietray.splits.base import ScanShape, Split
from quietray.training.batches import TrainingVolume
from quietray.training.learn import Recipe, Subject, learn
from quietray.training.loop import Fitted, TrainingData
from quietray.types import Parts

__all__ = ["FrameDomain"]

_TILE = 1024


@dataclass(frozen=True, eq=False)
class FrameDomain(Domain):
    """Frames of one static scene, each a separate measurement; the result is a single image.

    Parameters
    ----------
    scan
        Its projections are the frames; with flats, the result is a transmission, else counts.
    scale
        Scale of the data.
    data
        The scaled frames ``(part, 1, row, col)``, partly held out.
    unit
        Unit of the frames.
    said
        A sentence on how they were corrected; empty without flats.
    """

    scan: Scan
    scale: Scale
    data: TrainingVolume
    unit: str
    said: str

    @classmethod
    def bound(cls, run: Run, scans: Sequence[Scan]) -> Split:
        """Return the method for this number of frames; a single frame is refused."""
        (scan,) = scans
        if run.settings.phase is not None:
            raise SettingsError(
                "phase retrieval must have a scan to reconstruct, got frames of one scene; leave --delta-beta out"
            )
        if scan.n_views < 2:
            raise SettingsError(
                f"the frames of one scene must be at least 2, got {scan.n_views}; take more of them, or give further "
                "scans with --repeats"
            )
        return run.split.on_scan(ScanShape(1, 1, scan.n_cols, scan.n_views))

    @classmethod
    def prepare(cls, run: Run, scans: Sequence[Scan], split: Split, taught: bool = True) -> FrameDomain:
        """Correct the frames as far as the scan permits, scale them, and hold out a part."""
        (scan,) = scans
        parts, unit, said = _frames(scan, run.settings.correction.own_flats)
        require_alike(
            parts[0, 0],
            parts[len(parts) // 2, 0],
            f"the views of one scan, used by {called(type(split))} as repeated frames,",
            "give a second scan of the same object with --repeats, or use --method noise2inverse",
        )
        weight = np.ones(parts.shape[2:], np.float32)
        scale = Scale.of(parts.mean(axis=0), weight)
        data = TrainingVolume.with_held_out(scale.apply(parts), split, weight)
        facts = {"source": str(scan.source), "unit": unit, "voxel_size_mm": scan.geometry.pixel_size}
        return cls(run, split, facts, scan, scale, data, unit, said)

    @property
    def taught_by(self) -> TrainingVolume | None:
        """The training data."""
        return self.data

    def learn(self, data: TrainingData | None = None) -> tuple[Denoiser, Fitted]:
        """Train the network to predict frames from each other."""
        subject = Subject(self.scale, (1, self.scan.n_rows, self.scan.n_cols), _TILE, self.facts)
        return learn(data or self.data, self.split, Recipe.of(self.run), subject, self.run)

    def adopted(self, denoiser: Denoiser) -> Denoiser:
        """Return a trained model with the scale of these frames."""
        return dataclasses.replace(denoiser, tile=_TILE, scale=self.scale)

    def judge(self, denoiser: Denoiser) -> Evidence:
        """Estimate the error with the frames that each output was not computed from."""
        return Evidence.measure(denoiser, self.data)

    def apply(self, denoiser: Denoiser, fitted: Fitted) -> Result:
        """Return the denoised image of all frames."""
        evidence, halves = self.judge(denoiser), Halves.of_parts(denoiser, self.data)
        scan, output, edges = self.scan, self.run.output, histogram_edges(self.scale)
        grid = VolumeGrid((1, scan.n_rows, scan.n_cols), voxel_size=scan.geometry.pixel_size)
        output.open_volume(grid, {"source": scan.source, "method": called(type(self.split))})
        source = Held(self.scale.undo(self.data.parts), RowCounts(), range(1))
        self.run.over(((0, 1),), SlabTask(source, DenoiseFrames(denoiser, edges), output), "denoising")
        gathered = gather(output.records(((0, 1),)), edges)
        metrics = ScanMetrics(
            **figures(evidence, gathered, fitted, Judged()),
            **self._circumstances(denoiser),
            evidence=halves.figures(scan.geometry.pixel_size),
        )
        return self.result(
            denoiser,
            fitted,
            metrics,
            gathered,
            prepared=None,
            notes=(*scan.notes, self.said) if self.said else scan.notes,
        )

    def _circumstances(self, denoiser: Denoiser) -> dict[str, Any]:
        scan, memory = self.scan, available_memory()
        return {
            "scan": ScanFacts(
                source=str(scan.source),
                views=scan.n_views,
                rows=[0, scan.n_rows],
                columns=scan.n_cols,
                covered_degrees=180.0,
                rotation_axis=None,
                unit=self.unit,
                voxel_size_mm=scan.geometry.pixel_size,
            ),
            "method": method_facts(denoiser),
            "memory": Memory(memory, memory, peak_memory(), 1),
            "versions": versions(),
        }


@dataclass(frozen=True, eq=False)
class DenoiseFrames:
    """Denoises the mean image of all frames.

    Parameters
    ----------
    denoiser
        Denoiser trained on the frames.
    edges
        Bin edges of the histogram.
    """

    denoiser: Denoiser
    edges: np.ndarray

    def places(self, slab: Slab) -> list[Slab]:
        """Return the only slice."""
        return [slab]

    def __call__(self, source: Held, slab: Slab, advance: Advance) -> Iterator[Finished]:
        """Denoise the image."""
        parts, changed = source(slice(*slab))
        clean, weight = self.denoiser.slab(parts, *slab, advance), np.ones(parts.shape[2:], np.float32)
        yield Finished(
            0, clean, SlabRecord.of(0, Planes(clean.shape), parts.mean(axis=0), clean, weight, self.edges, changed)
        )


def _frames(scan: Scan, own_flats: bool | None) -> tuple[Parts, str, str]:
    """Return the frames as parts ``(part, 1, y, x)``, corrected as far as possible, their unit, and a note.

    The noise of a flat that two frames are divided by is in both of them; if there are enough flats, each frame has its
    own.
    """
    frames, n = scan.read(slice(None)), scan.n_views
    dark = np.float32(0) if scan.darks is None else np.asarray(scan.darks[:], np.float32).mean(axis=0)
    if scan.flats is None:
        return (frames - dark)[:, None], "counts", ""
    n_flats = int(scan.flats.shape[0])
    if own_flats is False or n_flats < n:
        flat = np.asarray(scan.flats[:], np.float32).mean(axis=0) - dark
        why = "as requested" if own_flats is False else f"whose noise stays: there are {n_flats} for {n}"
        said = f"The frames share their flats, {why}."
        return ((frames - dark) / np.maximum(flat, 1e-3 * flat.mean()))[:, None], "transmission", said
    darks = np.broadcast_to(dark, frames.shape)
    if scan.darks is not None and scan.darks.shape[0] >= n:
        darks = dealt_means(scan.darks, n)
    flats = dealt_means(scan.flats, n) - darks
    said = f"Each of the {n} frames has its own flats, {n_flats // n} of {n_flats}, so their noise is removed, too."
    least = 1e-3 * flats.mean(axis=(1, 2), keepdims=True)
    return ((frames - darks) / np.maximum(flats, least))[:, None], "transmission", said
