"""The commands by name, in the groups that the help shows."""

from __future__ import annotations

from typing import Any

from quietray.commands.completion import Completion
from quietray.commands.files import Check, Demo, Evaluate, Info, Simulate
from quietray.commands.images import Filter
from quietray.commands.models import Models
from quietray.commands.noise import Decorrelate, Diagnose
from quietray.commands.runs import Apply, Batch, Compare, Denoise, Reconstruct, Train
from quietray.commands.watching import Watch

__all__ = ["COMMANDS", "COMMAND_GROUPS"]

COMMAND_GROUPS: dict[str, tuple[type[Any], ...]] = {
    "examine a scan": (Info, Check, Diagnose),
    "remove the noise": (Denoise, Batch, Watch, Compare, Filter),
    "models": (Train, Apply, Models),
    "reconstruct and compare": (Reconstruct, Decorrelate, Evaluate),
    "try it out": (Demo, Simulate, Completion),
}
COMMANDS = {kind.__name__.lower(): kind for kinds in COMMAND_GROUPS.values() for kind in kinds}
