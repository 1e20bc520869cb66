"""The models on this machine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from quietray.commands.flags import FirstFlags
from quietray.errors import SettingsError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Models"]


@dataclass(frozen=True)
class Models(FirstFlags):
    """Manage the models on this machine: list their training data, noise, pixel size and date; show, add, remove."""

    action: Annotated[
        tyro.conf.Positional[Literal["list", "show", "add", "remove"]], tyro.conf.arg(help_behavior_hint="")
    ] = "list"
    """What to do (default: list)."""
    name: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="MODEL", help_behavior_hint="")] = None
    """Name of a model or of a shipped prior; with add, the folder of a model or of a finished run."""

    def run(self, console: Console) -> dict[str, Any]:
        """Run the action."""
        from quietray.running.models import forget, found_model, models_folder, remember, remembered

        if self.action == "list":
            if self.name is not None:
                raise SettingsError(
                    f"list must have no name, got {self.name}; write `quietray models show {self.name}`"
                )
            models = remembered()
            _table(console, models)
            console.print(f"kept in {models_folder()}", highlight=False, markup=False)
            return {"folder": str(models_folder()), "models": {one.name: dict(one.card) for one in models}}
        if self.name is None:
            raise SettingsError(f"{self.action} must name a model, got none; see `quietray models`")
        if self.action == "show":
            card = _prior(self.name) or dict(found_model(self.name).card)
            console.print(json.dumps(card, indent=2, default=str), highlight=False, markup=False)
            return card
        if self.action == "add":
            kept = remember(Path(self.name))
            console.print(f"model: {kept.name}, in {kept.folder}", highlight=False, markup=False)
            return {"name": kept.name, **kept.card}
        forget(self.name)
        console.print(f"removed: {self.name}", highlight=False, markup=False)
        return {"removed": self.name}


def _prior(name: str) -> dict[str, Any] | None:
    """Return the card of a shipped prior, such as ``prior-images``; ``prior`` is the one for volumes."""
    from quietray.training.start import prior_card, shipped_priors

    kind = "volume" if name == "prior" else name.removeprefix("prior-")
    if name == kind or kind not in shipped_priors():
        return None
    return prior_card(kind)


def _table(console: Console, models: Any) -> None:
    from rich.markup import escape
    from rich.table import Table

    from quietray.training.start import prior_card, shipped_priors

    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("model", "learned from", "noise / contrast", "correlation", "voxel (mm)", "method", "when"):
        table.add_column(title, min_width=len("prior-radiographs") if title == "model" else None)
    for kind in shipped_priors():
        method = str(prior_card(kind)["method"])
        table.add_row(f"prior-{kind}", "simulations", "any", "", "", method, "shipped")

    def number(value: Any) -> str:
        return "" if value is None else f"{value:.3g}"

    for one in models:
        card = one.card
        cells = [number(card.get(key)) for key in ("noise_level", "correlation", "voxel_size_mm")]
        words = (one.name, Path(str(card.get("source"))).name, *cells, card.get("method"), card.get("when"))
        table.add_row(*(escape(str(word)) for word in words))
    console.print(table)
