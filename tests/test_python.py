"""What a user of Python meets: arrays in, arrays out, mistakes that are told, progress where somebody looks."""

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quietray
from quietray import QuietrayError, Scan, SettingsError
from quietray.progress import NotebookWatch, watching
from quietray.running.watch import Watch

ANGLES = np.arange(0, 180, 3.0)


def measured() -> dict[str, Any]:
    """Return a disc as counts: projections ``(60, 4, 32)``, angles, flats and darks."""
    rng, turn = np.random.default_rng(0), np.deg2rad(ANGLES)
    away = np.arange(32) - 15.5 - 3 * np.cos(turn)[:, None]
    light = 200 * np.exp(-np.sqrt(np.maximum(64 - away**2, 0)) / 8)
    counts = rng.poisson(np.repeat(light[:, None], 4, 1)).astype(np.uint16) + 10
    flats = rng.poisson(200, (10, 4, 32)).astype(np.uint16) + 10
    return {"projections": counts, "angles": ANGLES, "flats": flats, "darks": np.full((2, 4, 32), 10, np.uint16)}


QUICK: dict[str, Any] = {"method": "gaussian", "progress": False}


def test_arrays_go_in_and_an_array_comes_out(tmp_path: Path) -> None:
    """However they are handed over, it is the run of their scan."""
    one = measured()
    projections, angles, more = one["projections"], one["angles"], {"flats": one["flats"], "darks": one["darks"]}
    known = quietray.denoise(Scan.from_arrays(projections, angles, **more), **QUICK).volume
    assert isinstance(known, np.ndarray)
    assert np.array_equal(quietray.denoise(projections, angles, **more, **QUICK).volume, known)
    kept = quietray.denoise(projections, angles, tmp_path / "out", **more, **QUICK)
    assert np.array_equal(np.asarray(kept.volume), known)
    again = quietray.denoise(projections, tmp_path / "named", angles=angles, **more, **QUICK)
    assert again.folder == tmp_path / "named"
    noisy = quietray.reconstruct(projections, np.deg2rad(angles), degrees=False, **more, progress=False)
    assert noisy.shape == known.shape
    assert noisy.std() > known.std()


MISTAKES: list[tuple[str, dict[str, Any]]] = [
    ("angles must be in degrees, got 60 from 0 to 3.08", {"angles": np.deg2rad(ANGLES)}),
    ("angles must be one for each of the 60 views of projections, got 59", {"angles": ANGLES[1:]}),
    ("angles must be given, one for each of the 60 views", {"angles": None}),
    ("flats must be frames of the projections' size (4, 32), got shape (10, 4, 30)", {"flats": np.ones((10, 4, 30))}),
    ("darks must be frames", {"darks": np.ones((2, 3, 32))}),
    ("give np.moveaxis(projections, 1, 0)", {"projections": np.ones((4, 60, 32))}),
    ("projections must be an array", {"projections": [1, 2]}),
    ("did you mean 'flats'?", {"flat": 1}),
    ("did you mean 'overwrite'?", {"overwite": True}),
    ("a duration must be positive, got '5 minutes'", {"budget": "5 minutes"}),
    ("'rows' must be a text, got (0, 4)", {"rows": (0, 4)}),
    ("'seed' must be a whole number, got 'a'", {"seed": "a"}),
    ("settings must be quietray.Settings, got ndarray", {"settings": np.ones((10, 4, 32))}),
    ("'training.stepps' must be a known setting", {"training": {"stepps": 3}}),
    ("geometry, got both", {"geometry": quietray.ParallelBeam(np.deg2rad(ANGLES), 4, 32)}),
]


@pytest.mark.parametrize(("told", "given"), MISTAKES)
def test_a_mistake_is_told_with_what_to_do(told: str, given: dict[str, Any]) -> None:
    everything = {**measured(), **QUICK, **given}
    projections = everything.pop("projections")
    with pytest.raises(QuietrayError) as caught:
        quietray.denoise(projections, **everything)
    assert told in str(caught.value)
    assert len(str(caught.value)) < 600


def test_what_belongs_to_arrays_is_refused_for_a_scan() -> None:
    one = measured()
    scan = Scan.from_arrays(**one)
    with pytest.raises(SettingsError, match="angles must be left out for a scan"):
        quietray.denoise(scan, one["angles"])
    with pytest.raises(SettingsError, match="as second argument and as angles="):
        quietray.denoise(one["projections"], one["angles"], angles=one["angles"])


def test_rows_time_and_memory_are_taken_as_python_has_them() -> None:
    from quietray.running.settings import changed

    settings = changed(None, {"rows": slice(2, 6), "budget": 90, "max_memory": 8e9, "training": {"steps": np.int64(7)}})
    assert (settings.rows, settings.budget, settings.max_memory) == ("2:6", "90", "8000000000")
    assert settings.training.steps == 7


# ---- who is told


def test_scripts_are_silent_and_notebooks_see_bars(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    one = measured()
    quietray.denoise(one.pop("projections"), **one, method="gaussian")
    told = capsys.readouterr()
    assert told.out == told.err == ""
    assert type(watching()) is Watch
    mine = Watch()
    assert watching(mine, True) is mine

    class ZMQInteractiveShell:
        pass

    class Handle:
        pages: list[str] = []  # noqa: RUF012

        def update(self, page: str) -> None:
            self.pages.append(page)

    display = types.ModuleType("IPython.display")
    display.HTML = str  # type: ignore[attr-defined]
    display.display = lambda page, display_id: Handle()  # type: ignore[attr-defined]
    shell = types.ModuleType("IPython")
    shell.get_ipython = ZMQInteractiveShell  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    assert isinstance(watching(), NotebookWatch)
    assert type(watching(progress=False)) is Watch
    one = measured()
    quietray.denoise(one.pop("projections"), **one, method="gaussian")
    assert "denoising" in Handle.pages[-1]
    assert "100 %" in Handle.pages[-1]
    assert "The rotation axis was taken" in Handle.pages[-1]


def test_what_a_notebook_shows_is_escaped() -> None:
    pages: list[str] = []
    watch = NotebookWatch(pages.append)
    watch.note("scan <script>alert(1)</script> [bold]x[/bold]")
    with watch.stage("[red]train<b>", 3) as advance:
        advance(1, "[/nothing] <i>")
    assert "<script>" not in pages[-1]
    assert "&lt;script&gt;" in pages[-1]
    assert "[bold]x[/bold]" in pages[-1]
    assert "&lt;b&gt;" in pages[-1]
