"""What a user of Python meets: arrays in, arrays out, mistakes that are told, progress where somebody looks."""

import contextlib
import dataclasses
import inspect
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quietray
from quietray import QuietrayError, ResourceError, Result, Scan, SettingsError
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
    ("'seed' must be an integer, got 'a'", {"seed": "a"}),
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


# ---- what comes out


@pytest.fixture(scope="module")
def result() -> Result:
    scan = Scan.from_arrays(**measured(), pixel_size=0.02)
    return quietray.denoise(scan, method="gaussian")


def short(thing: Any) -> None:
    told = repr(thing)
    assert len(told) < 1500, told[:300]
    assert len(told.splitlines()) < 20, told[:300]


def test_nothing_public_prints_a_page(result: Result) -> None:
    """Everything in `__all__`, made as it is by default where that can be done."""
    made = 0
    for name in quietray.__all__:
        thing = getattr(quietray, name)
        short(thing)
        if inspect.isclass(thing) and not inspect.isabstract(thing) and not issubclass(thing, Exception):
            needed = inspect.signature(thing).parameters.values()
            if all(one.default is not one.empty or one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD) for one in needed):
                with contextlib.suppress(SettingsError):  # such as a phase of which nothing is told
                    short(thing())
                    made += 1
    assert made > 20
    scan = Scan.from_arrays(**measured())
    for thing in (scan, scan.geometry, scan.geometry.grid(), result, result.metrics, result.gathered, result.denoiser):
        short(thing)


@pytest.mark.slow
def test_no_verb_returns_what_prints_a_page(result: Result, tmp_path: Path) -> None:
    scan = Scan.from_arrays(**measured())
    flat = quietray.denoise_images(quietray.ImageSeries(np.asarray(result.volume), None, "x"), method="gaussian")
    compared = quietray.compare(scan, budget="10s", rows="0:2")
    model = quietray.train([scan], tmp_path / "model", training={"steps": 2}, method="noise2inverse")
    for thing in (
        *(result.settings, result.settings.correction, flat, flat.metrics, compared, model, quietray.diagnose(scan)),
        quietray.apply(tmp_path / "model", scan),
        quietray.evaluate(result, np.asarray(result.volume)),
        quietray.read_volume(result.save(tmp_path / "volume.h5")),
    ):
        short(thing)


def test_the_verdict_comes_first(result: Result) -> None:
    verdict = {"kind": "look at this first", "reason": "the gain is <small>"}
    judged = dataclasses.replace(result, metrics=dataclasses.replace(result.metrics, verdict=verdict))
    assert repr(judged).splitlines()[1] == "  verdict: look at this first: the gain is <small>"
    assert "look at this first: the gain is &lt;small&gt;" in judged._repr_html_()


@pytest.mark.parametrize("name", ["v.zarr", "v.h5", "v.tif", "v.mhd", "v.nii", "slices"])
def test_a_result_is_saved_by_the_ending_of_its_name(result: Result, tmp_path: Path, name: str) -> None:
    if name.endswith(".nii"):
        pytest.importorskip("nibabel")
    place = result.save(tmp_path / name)
    found = quietray.read_volume(place)
    assert np.array_equal(np.asarray(found), result.volume)
    assert (found.unit, found.voxel_size) == ("1/mm", pytest.approx(0.02))
    assert (found.ndim, found.size, found.nbytes) == (3, result.volume.size, 4 * result.volume.size)
    with pytest.raises(ResourceError, match="must not exist yet"):
        result.save(place)
    result.save(place, overwrite=True)
    if name not in ("v.zarr", "v.h5"):
        whole = quietray.read_volume(result.save(place, dtype="uint16", window=(-0.1, 2.0), overwrite=True))
        np.testing.assert_allclose(np.asarray(whole), np.clip(result.volume, -0.1, 2), atol=2.1 / 65535)
    else:
        with pytest.raises(SettingsError, match="must be float32"):
            result.save(tmp_path / f"whole_{name}", dtype="uint16")


def test_a_name_that_no_format_has_is_refused(result: Result, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"must end in .zarr, .h5, .hdf5, .tif"):
        result.save(tmp_path / "v.jpg")
    assert not list(tmp_path.iterdir())


def test_images_are_saved_as_a_stack_in_their_unit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    stack = rng.normal(50, 20, (3, 24, 32)).astype(np.float32)
    series = quietray.ImageSeries(stack, None, "x", unit="HU", modality="CT", spacing=(0.5, 0.5), step=2.0)
    clean = quietray.denoise(series, method="gaussian")
    found = quietray.read_volume(clean.save(tmp_path / "v.tif"))
    assert (found.unit, found.voxel_size, found.facts["spacing"]) == ("HU", 0.5, 2.0)
    assert (clean.unit, clean.scale) == ("HU", (2.0, 0.5, 0.5))


def test_a_viewer_takes_the_volume(result: Result, tmp_path: Path) -> None:
    """In memory, or on the disk, from where slices alone are read."""
    one = measured()
    kept = quietray.denoise(one.pop("projections"), one.pop("angles"), tmp_path / "out", **one, **QUICK).volume
    for volume in (result.volume, kept):
        assert {"shape", "ndim", "dtype", "size", "nbytes"} <= set(dir(volume))
        assert np.asarray(volume).shape == volume.shape == (4, 32, 32)
        assert np.asarray(volume[2]).shape == (32, 32)
        assert np.asarray(volume[:, 5:9, ::2]).shape == (4, 4, 16)
    assert result.scale == (0.02, 0.02, 0.02)


@pytest.mark.parametrize(("axis", "names"), [("z", "yx"), ("y", "zx"), ("x", "zy")])
def test_slices_are_drawn_across_each_axis(result: Result, axis: str, names: str) -> None:
    pytest.importorskip("matplotlib").use("agg")
    number = 2
    panels = result.plot(**{axis: number}, before=np.asarray(result.volume) + 1)
    expected = np.take(result.volume, number, axis="zyx".index(axis))
    np.testing.assert_array_equal(panels.after.images[0].get_array(), expected)
    np.testing.assert_allclose(panels.difference.images[0].get_array(), 1, atol=1e-5)
    assert panels.before.get_ylabel().startswith(names[0])
    assert panels.after.get_xlabel().startswith(names[1])
    middle = result.plot(**{axis: result.volume.shape["zyx".index(axis)] // 2})
    assert len(middle.before.images) == 1  # what the run kept
    assert panels._repr_png_().startswith(b"\x89PNG")
    assert "after, " in repr(panels)
    short(panels)
    with pytest.raises(SettingsError, match="one of z, y and x"):
        result.plot(1, 2)


@pytest.mark.slow
def test_a_notebook_gets_from_arrays_to_a_picture_in_three_cells(tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    here = str(Path(__file__).parent)
    cells = [
        f"import sys; sys.path.insert(0, {here!r})\nimport quietray, test_python\none = test_python.measured()",
        "result = quietray.denoise(one.pop('projections'), one.pop('angles'), **one, method='gaussian')\nresult",
        "result.plot(z=2)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [cell["outputs"] for cell in notebook.cells]
    assert not outputs[0]
    progress, shown = (output["data"]["text/html"] for output in outputs[1])
    assert "denoising" in progress
    assert "100 %" in progress
    assert shown.count("data:image/png;base64") == 2  # before, after
    assert "estimated gain" in shown
    pictures = [output for output in outputs[2] if "image/png" in output.get("data", {})]
    assert len(pictures) == 1
    assert len(outputs[2]) == 1


# ---- who is told


def test_scripts_are_silent_and_notebooks_see_bars(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    one = measured()
    quietray.denoise(one.pop("projections"), **one, method="gaussian")
    told = capsys.readouterr()
    assert told.out == told.err == ""
    assert type(watching().other) is Watch
    mine = Watch()
    assert watching(mine, True).other is mine

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
    assert isinstance(watching().other, NotebookWatch)
    assert type(watching(progress=False).other) is Watch
    one = measured()
    quietray.denoise(one.pop("projections"), **one, method="gaussian")
    assert "denoising" in Handle.pages[-1]
    assert "100 %" in Handle.pages[-1]
    assert "give it with rotation_axis= if it is known" in Handle.pages[-1]


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
