"""Diagnose and decorrelate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from quietray.commands.flags import File, FirstFlags, Flag, Number, OutFlags, PhaseFlags, ScanFlags
from quietray.errors import SettingsError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Decorrelate", "Diagnose"]


@dataclass(frozen=True)
class Diagnose(FirstFlags, PhaseFlags, ScanFlags):
    """Measure the noise of a scan: gain, correlation, point response, and which methods it allows."""

    static: File = None
    """Repeated frames of one static scene, at one exposure or several, in any format that a scan can have; else flats,
    air or views are used."""
    counts_per_photon: Number = None
    """Counts that one photon gives on average, where that is known: the excess (Swank) factor then is, too."""
    out: File = None
    """Folder for the picture and the figures (default: only shown)."""

    def run(self, console: Console) -> dict[str, Any]:
        """Diagnose."""
        scan = self.read()  # a file that cannot be read is told before libraries are imported that take seconds
        from quietray.console import show_diagnosis
        from quietray.noise_workflows import diagnosed

        with console.status("measuring the noise"):
            found = diagnosed(
                scan,
                self.static,
                self.out,
                counts_per_photon=self.counts_per_photon,
                retrieval=any(value is not None for value in self.of_phase().values()),
            )
        show_diagnosis(console, found)
        if self.out is not None:
            console.print(f"picture and figures: {self.out}", highlight=False)
        return found.record()


@dataclass(frozen=True)
class Decorrelate(FirstFlags, OutFlags, PhaseFlags, ScanFlags):
    """Estimate the detector's point response, whiten radiographs, flats and darks, write them as a scan."""

    ENDING: ClassVar[str] = "-white.h5"
    WHAT: ClassVar[str] = "scan"

    out: File = None
    """The new scan (.nx or .nxs: NXtomo, else DXchange HDF5); the point response is kept in it (default: named after
    the scan, such as scan-white.h5)."""
    static: File = None
    """Repeated frames of one static scene to estimate the response from; else flats, air or views are used."""
    reblur: Flag = False
    """Go the other way: apply the point response that is kept in a whitened scan."""

    def run(self, console: Console) -> dict[str, Any]:
        """Whiten."""
        if any(value is not None for value in self.of_phase().values()):
            raise SettingsError(
                "decorrelate must be given the radiographs as they were measured, without phase retrieval, which would "
                "spread over pixels the noise that this makes white; leave --delta-beta and --alpha out, and give them "
                "to reconstruct"
            )
        self.check_place()
        scan = self.read()
        from quietray.noise_workflows import write_white

        def told(text: str) -> None:
            console.print(text, highlight=False)

        with console.status("whitening"):
            facts = write_white(scan, self.static, self.place, back=self.reblur, overwrite=self.overwrite, told=told)
        console.print(f"{self.place}: {facts['note']}", highlight=False)
        return facts
