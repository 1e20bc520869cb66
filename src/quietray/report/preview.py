"""Preview of a run during training: an image and a short report, updated whenever the error is estimated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from quietray.checkpoint import replace_file
from quietray.pictures import grey, grey_window, png
from quietray.report.data import Cut, ReportData
from quietray.report.page import write_report
from quietray.running.watch import Watch
from quietray.types import Slice

__all__ = ["Previewed"]


class Previewed(Watch):
    """Passes the progress on, and updates ``preview.png`` and ``report.html`` in a folder.

    Parameters
    ----------
    watch
        Receives the progress as well.
    folder
        Output folder.
    data
        Scan or images to denoise.
    """

    previews = True

    def __init__(self, watch: Watch, folder: Path, data: Any) -> None:
        self.watch, self.folder, self.data = watch, folder, data
        self.history: list[dict[str, Any]] = []

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Callable[..., None]]:
        """Pass it on."""
        with self.watch.stage(name, total) as advance:
            yield advance

    def note(self, text: str) -> None:
        """Pass it on."""
        self.watch.note(text)

    def judged(self, look: tuple[Slice, Slice], step: int, n_steps: int | None, judgement: Any) -> None:
        """Pass the estimate on; update the report, and the image, with before beside after."""
        self.watch.judged(look, step, n_steps, judgement)
        before, after = look
        window = grey_window([after])
        picture = np.concatenate([grey(before, window), grey(after, window)], axis=1)
        replace_file(self.folder / "preview.png", png(picture))
        gain = 10 * np.log10(judgement.noise / judgement.error) if judgement.error > 0 else None
        self.history.append(
            {"step": step, "seconds": judgement.seconds, "loss": judgement.loss, "psnr": None if gain is None else gain}
        )
        where = Path(str(self.data.source)).name or "scan"
        data = ReportData(
            title=where,
            unit="",
            voxel_size=None,
            cuts=(Cut("held-out slice", before, after),),
            history=tuple(self.history),
            headline=(
                ("Estimated PSNR gain so far", "not known" if gain is None else f"{gain:.1f} dB"),
                ("Trained for", f"{judgement.seconds:.0f} s, {step} of {n_steps} steps"),
            ),
            notes=(
                "The run is still training; this page is updated at every estimate of the error, until the report "
                "replaces it.",
            ),
            kind="preview",
        )
        write_report(self.folder / "report.html", data)
