"""Watch a run in a browser."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from quietray.commands.flags import Count, FirstFlags, Flag
from quietray.errors import ResourceError, SettingsError

if TYPE_CHECKING:
    from quietray.telling import Teller

__all__ = ["Watch"]


@dataclass(frozen=True)
class _Watched:
    """The input."""

    folder: tyro.conf.Positional[Path]
    """Output folder of an active or finished run."""


@dataclass(frozen=True)
class Watch(FirstFlags, _Watched):
    """Show the report of a run in a browser, updated while the run continues; Ctrl-C ends it.

    It is visible only on this machine, to those who have the address. Without --preview, a run writes its report at its
    end; until then, its messages are shown.
    """

    port: Count = None
    """Port of the server (default: a free one)."""
    no_browser: Flag = False
    """Only show the address, without opening a browser."""

    def run(self, console: Teller) -> dict[str, Any]:
        """Serve the report until interrupted."""
        from quietray.commands.serving import FolderServer, news_of

        if not 0 <= (self.port or 0) < 2**16:
            raise SettingsError(f"--port must be from 0 to 65535, got {self.port}")
        news = news_of(self.folder)
        if not (self.folder.is_dir() and (news["running"] or news["report"])):
            raise ResourceError(
                f"{self.folder} must hold a run in progress, or a report, got neither; give the output folder of a "
                "run, and start the run first"
            )
        with FolderServer(self.folder, self.port or 0) as server:
            console.insist(f"{self.folder} is shown at {server.address} until Ctrl-C", markup=False)
            if "SSH_CONNECTION" in os.environ:
                console.print(
                    f"from another machine: ssh -L {server.server_port}:127.0.0.1:{server.server_port} THIS_MACHINE, "
                    "then open this address in a browser there",
                    highlight=False,
                    markup=False,
                    soft_wrap=True,
                )
            if not self.no_browser and _has_screen():
                import webbrowser

                webbrowser.open(server.address)
            try:
                server.serve_forever(poll_interval=0.2)
            except KeyboardInterrupt:
                pass
            return {"folder": str(self.folder), "address": server.address}


def _has_screen() -> bool:
    """Return whether a browser can open a window; otherwise a text browser would take over the terminal."""
    return sys.platform == "darwin" or any(name in os.environ for name in ("DISPLAY", "WAYLAND_DISPLAY"))
