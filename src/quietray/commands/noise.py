"""Measure the noise of a scan; whiten its radiographs."""

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
    """Repeated frames of one static scene, at one or several exposures, in any scan format; without them, flats,
    air or views are used."""
    counts_per_photon: Number = None
    """Mean counts per photon, if known; the excess (Swank) factor is then computed, too."""
    out: File = None
    """Folder for the plot and the figures (default: only shown)."""

    def run(self, console: Console) -> dict[str, Any]:
        """Measure and show the noise."""
        scan = self.read()  # first: errors of files come before large libraries are imported
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
    """Estimate the detector's point response, whiten radiographs, flats and darks, and write them as a scan."""

    ENDING: ClassVar[str] = "-white.h5"
    WHAT: ClassVar[str] = "scan"

    out: File = None
    """The new scan with the point response, NXtomo if it ends in .nx or .nxs, else DXchange HDF5 (default: named after
    the scan, such as scan-white.h5)."""
    static: File = None
    """Repeated frames of one static scene to estimate the response from; without them, flats, air or views are used."""
    reblur: Flag = False
    """Undo the whitening: apply the point response that is stored in a whitened scan."""

    def run(self, console: Console) -> dict[str, Any]:
        """Write the whitened scan."""
        if any(value is not None for value in self.of_phase().values()):
            raise SettingsError(
                "decorrelate must be given radiographs without phase retrieval, which correlates the noise that this "
                "makes white; leave --delta-beta and --alpha out, and give them to reconstruct"
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
