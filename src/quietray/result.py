"""The result of a finished run: the volume, the figures, the images of the report."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from quietray.assessment.evidence import Evidence
from quietray.assessment.figures import Change, Corrected, Estimate, Metrics, ObjectEstimate, Trained, metrics_of
from quietray.assessment.gains import gain_text
from quietray.assessment.verdict import verdict_of
from quietray.assessment.withheld import Reason, filtered_rings, too_few_views, too_little
from quietray.brief import brief
from quietray.detector.correction.correct import RowCounts
from quietray.errors import FormatError, QuietrayError, SettingsError
from quietray.geometry import VolumeGrid
from quietray.images import ImageSeries
from quietray.inference.denoiser import Denoiser, Scale
from quietray.io import SeriesAxis, Stored, VolumeFormat, new_volume, read_volume
from quietray.metrics.image import psnr
from quietray.running.ledger import SlabRecord
from quietray.running.planes import Stack
from quietray.running.settings import Settings
from quietray.settings import from_dict, read_toml
from quietray.shown import Look, Panels, facts_of, figure_of, look_of, page_of, text_of
from quietray.training.loop import Fitted, Progress
from quietray.wording import told

__all__ = ["Gathered", "Judged", "Result", "figures", "gather", "histogram_edges", "percentile", "quality"]

_BINS = 400
_Plane = Float[np.ndarray, "_ _"]  # of any size


@dataclass(frozen=True, eq=False)
class Result:
    """A finished run.

    Parameters
    ----------
    volume
        ``(z, y, x)``; lazy if it is on disk.
    denoiser
        Trained model, or filter.
    metrics
        Contents of ``metrics.json``, as attributes or as a mapping.
    warnings, notes
        Messages for the user.
    gathered
        Cuts and histograms, noisy and denoised; None if the run was finished earlier.
    history
        Errors estimated during training.
    folder
        Output folder, or None.
    trust
        ``(z, y, x)`` uncertainty map: standard deviation of the volume's error; None if it was not requested.
    settings
        Settings of the run, with the number of steps that fitted into the budget and all automatic choices, so that it
        can be repeated.
    """

    volume: Any
    denoiser: Denoiser
    metrics: Metrics
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    gathered: Gathered | None
    history: tuple[Progress, ...]
    folder: Path | None = None
    trust: Any = None
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        for name in ("warnings", "notes"):
            object.__setattr__(self, name, tuple(map(told, getattr(self, name))))

    def __repr__(self) -> str:
        return text_of(self._title, self._facts, self.warnings)

    def _repr_html_(self) -> str:
        """Return HTML for notebooks: method, gain, the middle slice before and after, warnings."""
        try:
            look: Look | str = self._look()
        except (QuietrayError, OSError) as error:
            look = f"The volume cannot be read: {error}"
        return page_of(self._title, self._facts, self.warnings, look)

    def plot(
        self,
        z: int | None = None,
        y: int | None = None,
        x: int | None = None,
        *,
        step: int | None = None,
        before: Any = None,
    ) -> Panels:
        """Draw a slice before, after, and their difference, with matplotlib.

        Parameters
        ----------
        z, y, x
            Index of the slice along one of these axes, from 0; for images, the number of the image. Without any, the
            middle slice along z. Other slices are not read.
        step
            Step or channel of a series; None for the middle one.
        before
            The noisy volume in the shape of the denoised one, for example from :func:`quietray.reconstruct`, or the
            noisy images. A run stores only the middle slices; for others, `before` is required to show the noisy slice
            beside the denoised one.

        Returns
        -------
        Panels
            The axes: before, after, difference. The first two have the same grey window.

        Raises
        ------
        GeometryError
            The slice does not exist, or `before` has another shape.
        SettingsError
            A step is given but the result is not a series, or several of `z`, `y`, `x` are given.
        FormatError
            The volume cannot be read.

        Examples
        --------
        >>> before, after, difference = result.plot(z=12, before=noisy)  # doctest: +SKIP
        >>> result.plot(x=40).figure.savefig("slice.png")  # doctest: +SKIP
        """
        places = [(name, at) for name, at in (("z", z), ("y", y), ("x", x)) if at is not None]
        if len(places) > 1:
            raise SettingsError(f"one of z, y and x must be given, got {len(places)}; plot one slice after the other")
        noisy = before.images if isinstance(before, ImageSeries) else before
        title = f"{self._title}, estimated gain {self._facts['estimated gain']}"
        return figure_of(self._look(places[0] if places else ("z", None), step, noisy), title)

    def save(
        self,
        path: str | Path,
        *,
        dtype: Literal["float32", "uint16", "uint8"] = "float32",
        window: tuple[float, float] | None = None,
        overwrite: bool = False,
    ) -> Path:
        """Write the volume, or the images as a stack, with unit and voxel size.

        Parameters
        ----------
        path
            Path of the output. The ending determines the format: ``.zarr``, ``.h5``, ``.tif`` (one file), ``.mhd``,
            ``.nii``, or one that another package adds; a name without an ending is a folder of TIFF slices.
        dtype
            Data type; integers represent the values of a window that is stored in the file. Not for ``.zarr`` and
            ``.h5``.
        window
            Values stored as the smallest and the largest integer, in the volume's unit; None for the range of the
            volume.
        overwrite
            Replace an existing volume.

        Returns
        -------
        Path
            Path of the written volume.

        Raises
        ------
        SettingsError
            No format has that ending, or the format does not support integers.
        ResourceError
            The path exists, or the disk is full.

        Examples
        --------
        >>> result.save("clean.tif", dtype="uint16", window=(0.0, 0.8))  # doctest: +SKIP
        """
        place, scan = Path(path), self.metrics["scan"]
        *_, n_z, n_y, n_x = shape = tuple(int(size) for size in self.volume.shape)
        size = scan.get("pixel_size_mm") or scan.get("voxel_size_mm")
        grid = VolumeGrid((n_z, n_y, n_x), voxel_size=size, spacing=scan.get("spacing_mm"), values=scan["unit"])
        series = None
        if len(shape) == 4:
            series = SeriesAxis("c" if (self.metrics.get("series") or {}).get("of") == "channel" else "t", shape[0])
        facts = {"source": scan["source"], "method": self.metrics["method"]["name"]}
        with new_volume(place, grid, facts, series=series, stored=Stored(dtype, window), overwrite=overwrite) as writer:
            for number in range(math.prod(shape[:-2])):
                entry, z = divmod(number, n_z)
                one = self.volume[z] if series is None else self.volume[entry, z]
                writer.write(number, np.asarray(one, np.float32)[None])
        return place

    @property
    def unit(self) -> str:
        """Unit of the values of the volume."""
        return str(self.metrics["scan"]["unit"])

    @property
    def scale(self) -> tuple[float, ...]:
        """Distance between voxels along each axis, as napari's ``scale``: in mm, or in voxels if it is not known."""
        scan, n_axes = self.metrics["scan"], len(self.volume.shape)
        size = float(scan.get("pixel_size_mm") or scan.get("voxel_size_mm") or 1.0)
        return (*[1.0] * (n_axes - 3), float(scan.get("spacing_mm") or size), size, size)

    def _look(self, at: tuple[str, int | None] = ("z", None), step: int | None = None, before: Any = None) -> Look:
        cuts = {} if self.gathered is None else self.gathered.cuts
        return look_of(self.volume, self.metrics, cuts, at, step, before)

    @property
    def gain(self) -> str:
        """Estimated gain with its interval, as text."""
        return gain_text(self.metrics["estimate"])

    @property
    def _facts(self) -> dict[str, str]:
        return facts_of(self.volume, self.metrics, self.trust, self.folder)

    @property
    def _title(self) -> str:
        source = Path(self.metrics["scan"]["source"]).name
        return f"Result of {self.metrics['method']['name']}" + (f" on {source}" if source else "")

    @classmethod
    def load(cls, folder: Path, volume: Any) -> Result:
        """Return the result of a finished run from its folder and the volume read from it.

        Raises
        ------
        FormatError
            A file is missing or damaged.
        """
        try:
            metrics = json.loads((folder / "metrics.json").read_text())
            metrics.pop("run", None)
            warnings, notes = tuple(metrics.pop("warnings")), tuple(metrics.pop("notes"))
            history = tuple(Progress(**entry) for entry in metrics["training"]["history"])
            figures = metrics_of(metrics)
            if figures.verdict is None:  # the run is of a version without verdicts
                figures = replace(figures, verdict=verdict_of(figures, warnings, notes).record())
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FormatError(
                f"{folder / 'metrics.json'} must be the figures of a finished run, got: {error}; "
                "start anew with --overwrite"
            ) from error
        denoiser = Denoiser.load(folder / "model")
        kinds = VolumeFormat.registry.values()
        maps = [read_volume(place) for kind in kinds if (place := folder / kind.trust).exists()]
        trust = maps[0] if maps else None
        settings = from_dict(Settings, read_toml(folder / "run.toml"))
        return cls(volume, denoiser, figures, warnings, notes, None, history, folder, trust, settings)


@dataclass(frozen=True, eq=False)
class Gathered:
    """The combined records of all slabs.

    Parameters
    ----------
    cuts
        Noisy and denoised slices through the middle: ``axial``, ``coronal``, ``sagittal``.
    edges
        Edges of the bins of the histograms.
    counts_before, counts_after
        Histograms.
    sums
        Sum of the noisy and of the denoised volume inside the field of view.
    changed
        Changes made by the corrections.
    inside
        Number of voxels of the object, and the sums of noisy and denoised values in it; None if it was not separated
        from air.
    object
        ``(y, x)`` mask of the object in the middle slice.
    stacks
        Further slices by the names of the cuts; empty if the run was started by an older version.
    steps
        Middle slice of some steps or channels of a series, noisy and denoised, averaged if it is wide.
    """

    cuts: dict[str, tuple[Float[np.ndarray, "_ _"], Float[np.ndarray, "_ _"]]]
    edges: Float[np.ndarray, " edge"]
    counts_before: np.ndarray
    counts_after: np.ndarray
    sums: Float[np.ndarray, 2]
    changed: RowCounts
    inside: Float[np.ndarray, 3] | None = None
    object: Bool[np.ndarray, "y x"] | None = None
    stacks: dict[str, Stack] = field(default_factory=dict)
    steps: dict[int, tuple[_Plane, _Plane]] = field(default_factory=dict)

    __repr__ = brief


def gather(records: list[SlabRecord], edges: Float[np.ndarray, " edge"]) -> Gathered:
    """Combine the records of all slabs."""
    cuts = {}
    for name in ("axial", "coronal", "sagittal"):
        pieces = [(record.before[name], record.after[name]) for record in records if name in record.before]
        before, after = zip(*pieces, strict=True)
        cuts[name] = (np.concatenate(before), np.concatenate(after))
    inside = [record.inside for record in records if record.inside is not None]
    planes, stacks = records[0].planes, {}
    if planes is not None and all(record.planes == planes for record in records):
        kept = [[(one.first, getattr(one, f"kept_{when}")) for one in records] for when in ("before", "after")]
        stacks = planes.stacks(*kept)
    # a slab is corrected with its halo, so that rows in a halo count twice; fractions stay right
    return Gathered(
        cuts,
        edges,
        np.sum([record.counts_before for record in records], axis=0),
        np.sum([record.counts_after for record in records], axis=0),
        np.sum([record.sums for record in records], axis=0),
        sum((record.changed for record in records), start=RowCounts()),
        np.sum(inside, axis=0) if len(inside) == len(records) else None,
        next((record.object for record in records if record.object is not None), None),
        stacks,
    )


def histogram_edges(scale: Scale) -> Float[np.ndarray, " edge"]:
    """Return the edges of the bins: the range of the data, extended by its width on either side."""
    low, high = scale.low, scale.high
    return np.linspace(low - (high - low), high + (high - low), _BINS + 1)


def percentile(counts: np.ndarray, edges: np.ndarray, share: float) -> float:
    """Return the value below which the fraction `share` of a histogram lies.

    Examples
    --------
    >>> percentile(np.array([1, 1, 2]), np.array([0.0, 1.0, 2.0, 3.0]), 0.5)
    2.0
    """
    cumulative = np.concatenate([[0.0], np.cumsum(counts)]) / max(1, counts.sum())
    return float(np.interp(share, cumulative, edges))


@dataclass(frozen=True)
class Judged:
    """Description of the evidence of a run.

    Parameters
    ----------
    domain
        What the error was estimated of, and from which data.
    data_range
        Data range of PSNR; None for that of the denoised volume.
    data_range_is
        Description of the data range.
    seen_by
        Numbers of views in half a turn and of detector columns, where the noise is that of angular subsets.
    streaks
        Streaks of half of the views as a fraction of the noise, at most; None if not measured.
    rings
        Name of the ring filter that acted on all views alike.
    unknown
        Why the error cannot be estimated at all; None if it can.
    """

    domain: str = "held-out rows of the volume, each compared with the angular subset that it was not computed from"
    data_range: float | None = None
    data_range_is: str = "0.5 to 99.5 percentile of the denoised volume"
    seen_by: tuple[float, int] | None = None
    streaks: float | None = None
    rings: str = "none"
    unknown: Reason | None = None

    def blind(self, share: float = 1.0, evidence: Evidence | None = None) -> Reason | None:
        """Return why errors are underestimated in a region of this share of the field of view; None if they are not."""
        if self.seen_by is None:
            return self.unknown
        left = None if evidence is None or evidence.noise <= 0 else max(0.0, evidence.error / evidence.noise)
        return too_few_views(*self.seen_by, share, self.streaks, left) or filtered_rings(self.rings)


def figures(evidence: Evidence, gathered: Gathered, fitted: Fitted, judged: Judged) -> dict[str, Any]:
    """Return the figures of a run that follow from its data, by their names in :class:`Metrics`.

    Parameters
    ----------
    evidence, gathered, fitted
        Estimates of the error, records of the slabs, and the trained method.
    judged
        Description of the evidence.
    """
    low, high = (percentile(gathered.counts_after, gathered.edges, share) for share in (0.005, 0.995))
    data_range = high - low if judged.data_range is None else judged.data_range
    before, after = (float(value) for value in gathered.sums / max(1, gathered.counts_after.sum()))
    changed, common = gathered.changed, evidence.common
    if common is not None and (common.size <= 0 or common.kept_before is not None):  # of views, not of the volume
        common = None
    return {
        "estimate": Estimate(
            **quality(evidence, data_range, judged.blind(evidence=evidence)),
            interval="90 %, Student's t over blocks of 16 x 16 pixels, or over eight slices and more",
            data_range=data_range,
            data_range_is=judged.data_range_is,
            domain=judged.domain,
            residual_correlation=evidence.correlation,
            object=_of_object(evidence, gathered, data_range, judged),
            share_of_noise_from_flats=common.size / evidence.noise if common else None,
            share_of_flat_noise_kept=common.kept / common.size if common else None,
        ),
        "volume": Change(before, after, _finite((after - before) / before if before else float("nan"))),
        "correction": Corrected(
            **{name: getattr(changed, name) / max(1, changed.total) for name in ("zingers", "bad", "floored")}
        ),
        "training": Trained(
            steps=fitted.history[-1].step if fitted.history else 0,
            best_step=fitted.best.step,
            seconds=fitted.history[-1].seconds if fitted.history else 0.0,
            seconds_per_step=fitted.seconds_per_step,
            stopped=fitted.stopped,
            history=[asdict(progress) for progress in fitted.history],
            offset_of_judgements=evidence.offset,
            processes=fitted.processes if fitted.processes > 1 else None,
            share=fitted.share if fitted.share < 1 else None,
        ),
    }


def quality(evidence: Evidence, data_range: float, blind: Reason | None) -> dict[str, Any]:
    """Return an error and its interval, as figures; None for what is withheld.

    Parameters
    ----------
    evidence
        Estimates of the error.
    data_range
        Range for PSNR.
    blind
        Why the error is underestimated or not known; None if it is known as well as its interval says.
    """
    (low, high), noise = evidence.gain_interval, evidence.noise
    why = blind or too_little(evidence.gain, (low, high))
    least, most = why is None or why.least, why is None or why.most
    error = evidence.error if least else float("nan")
    noise = noise if least or most else float("nan")
    return {
        "psnr_noisy_db": _finite(psnr(noise, data_range)),
        "psnr_db": None if why else _finite(psnr(error, data_range)),
        "psnr_gain_db": None if why else _finite(evidence.gain),
        "psnr_gain_db_at_least": _finite(low) if least else None,
        "psnr_gain_db_at_most": _finite(high) if most else None,
        "rmse_noisy": _finite(noise**0.5 if noise > 0 else float("nan")),
        "rmse": _finite(error**0.5 if error > 0 else float("nan")),
        "withheld": why,
    }


def _of_object(evidence: Evidence, gathered: Gathered, data_range: float, judged: Judged) -> ObjectEstimate | None:
    """Return the estimate for the object alone; None if it was not separated from air."""
    inside, mask = evidence.inside, evidence.mask
    if inside is None or mask is None or gathered.inside is None or gathered.inside[0] == 0:
        return None
    voxels, *sums = (float(one) for one in gathered.inside)
    before, after = (one / voxels for one in sums)
    share = voxels / max(1.0, float(gathered.counts_after.sum()))
    return ObjectEstimate(
        **quality(inside, data_range, judged.blind(share, inside)),
        share_of_field_of_view=share,
        mean_noisy=before,
        mean=after,
        relative_change_of_mean=_finite((after - before) / before if before else float("nan")),
        found=mask.words,
    )


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
