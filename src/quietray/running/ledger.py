"""Records of a run on disk, so that it can be resumed if killed: decisions, and slabs that are written."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Bool, Float, Int

from quietray.brief import brief
from quietray.checkpoint import replace_file, write_json
from quietray.detector.correction.correct import RowCounts
from quietray.errors import FormatError
from quietray.metrics.surroundings import ObjectMask
from quietray.running.planes import Planes
from quietray.types import Slice, Volume

__all__ = ["Ledger", "SlabRecord"]

_Plane = Float[np.ndarray, "_ _"]  # through any two of the axes


@dataclass(frozen=True, eq=False)
class SlabRecord:
    """Data of one slab for the report.

    Parameters
    ----------
    first, last
        Half-open range of slices of the volume.
    before, after
        Cuts through the middle of the noisy and the denoised slab: ``axial`` ``(y, x)`` if the volume's middle slice
        lies in it, ``coronal`` ``(z, x)`` and ``sagittal`` ``(z, y)``.
    counts_before, counts_after
        Histograms inside the field of view.
    changed
        Changes made by the corrections.
    inside
        Number of voxels of the object, and the sums of noisy and denoised values in it; None if it was not separated
        from air.
    object
        ``(y, x)`` mask of the object in the volume's middle slice, if that lies in the slab.
    planes
        Which further slices are stored; None in records of older versions.
    kept_before, kept_after
        The parts of these slices in the slab, from :meth:`Planes.cut`.
    """

    first: int
    last: int
    before: dict[str, _Plane]
    after: dict[str, _Plane]
    counts_before: Int[np.ndarray, " bin"]
    counts_after: Int[np.ndarray, " bin"]
    sums: Float[np.ndarray, 2]
    changed: RowCounts
    inside: Float[np.ndarray, 3] | None = None
    object: Bool[np.ndarray, "y x"] | None = None
    planes: Planes | None = None
    kept_before: dict[str, np.ndarray] = field(default_factory=dict)
    kept_after: dict[str, np.ndarray] = field(default_factory=dict)

    __repr__ = brief

    @classmethod
    def of(
        cls,
        first: int,
        planes: Planes,
        before: Volume,
        after: Volume,
        weight: Slice,
        edges: np.ndarray,
        changed: RowCounts,
    ) -> SlabRecord:
        """Measure a slab; `planes` are the slices of the volume to store, and `edges` those of the histogram."""
        inside, middle = weight > 0, planes.middle

        def cuts(volume: Volume) -> dict[str, _Plane]:
            _, n_y, n_x = volume.shape
            found = {"coronal": volume[:, n_y // 2].copy(), "sagittal": volume[:, :, n_x // 2].copy()}
            if first <= middle < first + len(volume):
                found["axial"] = volume[middle - first].copy()
            return found

        def histogram(volume: Volume) -> np.ndarray:
            return sum(
                (np.histogram(np.clip(one[inside], edges[0], edges[-1]), edges)[0] for one in volume),
                start=np.zeros(len(edges) - 1, np.int64),
            )

        sums = np.array([sum(float(one[inside].sum(dtype=np.float64)) for one in volume) for volume in (before, after)])
        return cls(
            first,
            first + len(after),
            cuts(before),
            cuts(after),
            histogram(before),
            histogram(after),
            sums,
            changed,
            planes=planes,
            kept_before=planes.cut(first, before),
            kept_after=planes.cut(first, after),
        )

    def seen_through(
        self, mask: ObjectMask | None, before: Volume, after: Volume, weight: Slice, middle: int
    ) -> SlabRecord:
        """Return the record with the data of the object; unchanged if there is no mask."""
        if mask is None:
            return self
        inside, seen = np.zeros(3), None
        for z, (noisy, clean) in enumerate(zip(before, after, strict=True)):
            here = mask.of(clean, weight)
            inside += [here.sum(), noisy[here].sum(dtype=np.float64), clean[here].sum(dtype=np.float64)]
            seen = here if self.first + z == middle else seen
        return replace(self, inside=inside, object=seen)


class Ledger:
    """Records on disk of the slabs that are done.

    Parameters
    ----------
    folder
        Working folder of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, first: int) -> Path:
        return self.folder / f"slab-{first:06d}.npz"

    def record(self, slab: SlabRecord) -> None:
        """Record a slab as done; call it only after its voxels are written to disk."""
        from io import BytesIO

        buffer = BytesIO()
        arrays: dict[str, Any] = {f"before_{name}": cut for name, cut in slab.before.items()}
        arrays |= {f"after_{name}": cut for name, cut in slab.after.items()}
        arrays |= {f"kept_{name}": cut for name, cut in slab.kept_before.items()}
        arrays |= {f"kept_{name}_after": cut for name, cut in slab.kept_after.items()}
        arrays |= {} if slab.inside is None else {"inside": slab.inside}
        arrays |= {} if slab.object is None else {"object": slab.object}
        planes = None if slab.planes is None else [slab.planes.shape, slab.planes.begin, slab.planes.room]
        facts = json.dumps({"first": slab.first, "last": slab.last, "changed": vars(slab.changed), "planes": planes})
        np.savez(
            buffer,
            **arrays,
            counts_before=slab.counts_before,
            counts_after=slab.counts_after,
            sums=slab.sums,
            facts=np.array(facts),
        )
        replace_file(self._path(slab.first), buffer.getvalue())

    def done(self, first: int, last: int) -> bool:
        """Return whether the slab ``first:last`` is done."""
        return self._path(first).exists() and self.load(first).last == last

    def load(self, first: int) -> SlabRecord:
        """Return the record of a slab.

        Raises
        ------
        FormatError
            The record is damaged.
        """
        try:
            with np.load(self._path(first), allow_pickle=False) as stored:
                facts = json.loads(str(stored["facts"]))
                cuts = {
                    when: {name.split("_")[1]: stored[name] for name in stored.files if name.startswith(f"{when}_")}
                    for when in ("before", "after")
                }
                planes = facts.get("planes")
                kept = [name for name in stored.files if name.startswith("kept_")]
                return SlabRecord(
                    facts["first"],
                    facts["last"],
                    cuts["before"],
                    cuts["after"],
                    stored["counts_before"],
                    stored["counts_after"],
                    stored["sums"],
                    RowCounts(**facts["changed"]),
                    inside=stored["inside"] if "inside" in stored.files else None,
                    object=stored["object"] if "object" in stored.files else None,
                    planes=None if planes is None else Planes(tuple(planes[0]), *planes[1:]),
                    kept_before={name.split("_")[1]: stored[name] for name in kept if not name.endswith("_after")},
                    kept_after={name.split("_")[1]: stored[name] for name in kept if name.endswith("_after")},
                )
        except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile) as error:
            raise FormatError(
                f"{self._path(first)} must be a slab's record, got: {error}; delete it, and the slab is computed again"
            ) from error

    def note(self, name: str, facts: dict[str, Any]) -> None:
        """Record a decision of the run, which a resumed run must not repeat."""
        write_json(self.folder / f"{name}.json", facts)

    def noted(self, name: str) -> dict[str, Any] | None:
        """Return a decision recorded by :meth:`note`, or None."""
        try:
            found: dict[str, Any] = json.loads((self.folder / f"{name}.json").read_text())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise FormatError(
                f"{self.folder / name}.json must be JSON, got: {error}; start the run anew with --overwrite"
            ) from None
        return found
