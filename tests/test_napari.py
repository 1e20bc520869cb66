"""The plug-in for napari: what is shown of scans and volumes, what is written, and a run in the window.

The window is tried with the model of a viewer, which needs no display; the viewer itself is in test_napari_viewer.py.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quietray
from quietray import Training, UNet, VolumeGrid
from quietray.napari import run as runs
from quietray.napari.files import reader, write
from quietray.napari.layers import scan_layers, volume_layer
from quietray.napari.run import Job, Preview, Progress, Told, WindowWatch
from scans import disc_scan

LITTLE = {
    "method": "noise2inverse",
    "budget": "5s",
    "symmetries": 1,
    "start": "scratch",
    "network": UNet((4, 8)),
    "training": Training(steps=4, judgements=2, precision="fp32"),
}


def stored(place: Path, shape: tuple[int, int, int], **more: Any) -> tuple[Path, np.ndarray]:
    """Write a volume that falls off along its slices; return its place and its voxels."""
    voxels = np.broadcast_to(np.arange(shape[0], dtype=np.float32)[:, None, None], shape).copy()
    voxels += np.arange(shape[2], dtype=np.float32)
    with quietray.open_volume_writer(
        place, VolumeGrid(shape, **more), format=str(quietray.volume_format(place))
    ) as writer:
        writer.write(0, voxels)
        writer.finish()
    return place, voxels


def test_quietray_does_without_napari() -> None:
    code = "import quietray, sys; quietray.read; assert not {'napari', 'qtpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_scan_is_shown_as_it_lies_on_disk() -> None:
    scan = quietray.read(disc_scan())
    layers = {meta["name"]: (data, meta) for data, meta, kind in scan_layers(scan) if kind == "image"}
    counts, meta = layers["disc_12_24_32"]
    assert meta["metadata"]["scan"] is scan
    assert meta["axis_labels"] == ("view", "row", "col")
    assert not isinstance(counts, np.ndarray)
    np.testing.assert_array_equal(np.asarray(counts[3]), np.asarray(scan.projections[3]))
    assert [layers[name][0].shape[0] for name in ("disc_12_24_32 flats", "disc_12_24_32 darks")] == [20, 4]
    assert not layers["disc_12_24_32 flats"][1]["visible"]


@pytest.mark.parametrize("ending", ["zarr", "h5", "tif", "mhd"])
def test_a_volume_is_shown_with_its_size_in_mm(tmp_path: Path, ending: str) -> None:
    place, voxels = stored(tmp_path / f"tall.{ending}", (5, 8, 9), voxel_size=0.02, spacing=0.05)
    read = reader(str(place))
    assert read is not None
    [(data, meta, kind)] = read(str(place))
    assert (kind, meta["name"], meta["scale"], set(meta["units"])) == ("image", "tall", (0.05, 0.02, 0.02), {"mm"})
    assert meta["metadata"]["unit"] == "1/mm"
    np.testing.assert_array_equal(np.asarray(data), voxels)
    low, high = meta["contrast_limits"]
    assert voxels[2].min() <= low < high <= voxels[2].max()


def test_a_pyramid_is_shown_by_its_levels(tmp_path: Path) -> None:
    place, voxels = stored(tmp_path / "wide.zarr", (3, 300, 520))
    data, meta, _ = volume_layer(quietray.read_volume(place))
    assert meta["multiscale"]
    assert [level.shape for level in data] == [(3, 300, 520), (2, 150, 260), (1, 75, 130)]
    np.testing.assert_allclose(np.asarray(data[1][0, 0]), voxels[:2, :2].reshape(2, 2, 260, 2).mean(axis=(0, 1, 3)))


def test_what_is_no_scan_and_no_volume_is_told_with_both_reasons(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("no such thing")
    read = reader(str(tmp_path / "text.h5"))
    assert read is not None
    with pytest.raises(quietray.FormatError, match=r"(?s)got neither\. Read as a scan: .* Read as a volume: "):
        read(str(tmp_path / "text.h5"))


@pytest.mark.parametrize("ending", ["zarr", "h5", "tif", "mhd"])
def test_a_layer_is_written_and_read_again(tmp_path: Path, ending: str) -> None:
    voxels = np.random.default_rng(0).normal(size=(4, 6, 5)).astype(np.float32)
    place = tmp_path / f"new.{ending}"
    assert write(str(place), [voxels, voxels[::2]], {"multiscale": True, "scale": (3, 2, 2), "units": ("um",) * 3})
    found = quietray.read_volume(place)
    np.testing.assert_array_equal(np.asarray(found), voxels)
    assert (found.voxel_size, found.facts["spacing"], found.unit) == (
        pytest.approx(0.002),
        pytest.approx(0.003),
        "1/mm",
    )


def test_a_layer_without_mm_is_written_in_pixels(tmp_path: Path) -> None:
    write(str(tmp_path / "new.h5"), np.ones((2, 3, 4)), {"scale": (1, 1, 1), "units": ("pixel",) * 3})
    assert quietray.read_volume(tmp_path / "new.h5").unit == "1/pixel"


@pytest.mark.parametrize(
    ("name", "shape", "scale", "told"),
    [
        ("new.h5", (3, 4), (1, 1), "must be a volume"),
        ("new.xyz", (2, 3, 4), (1, 1, 1), "the name must end in"),
        ("new.h5", (2, 3, 4), (1, 1, 2), "voxels must be square"),
    ],
)
def test_what_is_no_volume_is_not_written(
    tmp_path: Path, name: str, shape: tuple[int, ...], scale: tuple[float, ...], told: str
) -> None:
    with pytest.raises(quietray.QuietrayError, match=told):
        write(str(tmp_path / name), np.zeros(shape), {"scale": scale, "units": ("mm",) * len(scale)})


def test_a_run_tells_how_it_goes_and_shows_the_slices(tmp_path: Path, short_report: None) -> None:
    told: list[Told] = []
    done = Job(quietray.read(disc_scan()), tmp_path, LITTLE)(WindowWatch(told.append, lambda: False))
    assert done is not None
    looks = [one for one in told if isinstance(one, Preview)]
    assert [(look.step, look.steps) for look in looks] == [(2, 4), (4, 4)]
    assert looks[0].before.shape == looks[0].after.shape
    assert np.abs(looks[0].after - looks[1].after).max() > 0
    stages = [one for one in told if isinstance(one, Progress)]
    assert "training" in {one.stage for one in stages}
    assert all(one.share is None or 0 <= one.share <= 1 for one in stages)
    assert any(isinstance(one, str) and "Rotation axis" in one for one in told)
    assert done.noisy.shape == done.result.volume.shape
    assert np.asarray(done.noisy).std() > np.asarray(done.result.volume).std()
    assert done.result.gain in done.said


def test_a_run_that_is_stopped_goes_on_later(tmp_path: Path, short_report: None) -> None:
    scan, told = quietray.read(disc_scan()), []
    looked = lambda: sum(isinstance(one, Preview) for one in told)  # noqa: E731
    assert Job(scan, tmp_path, LITTLE)(WindowWatch(told.append, lambda: looked() > 0)) is None
    assert not (tmp_path / "report.html").exists() or not (tmp_path / "metrics.json").exists()
    done = Job(scan, tmp_path, LITTLE, resume=True)(WindowWatch(told.append, lambda: False))
    whole = Job(scan, tmp_path / "whole", LITTLE)(WindowWatch(told.append, lambda: False))
    assert done is not None
    assert whole is not None
    np.testing.assert_array_equal(np.asarray(done.result.volume), np.asarray(whole.result.volume))


def test_what_one_scan_is_enough_for_is_offered() -> None:
    offered = runs.methods()
    assert offered[0] == "auto"
    assert {"noise2inverse", "noise2self", "gaussian"} <= set(offered)
    assert not {"noise2noise", "noise2clean", "pseudo-ct", "recorrupted"} & set(offered)


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The widget beside the model of a viewer, drawn nowhere."""
    if "DISPLAY" not in os.environ:
        monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    pytest.importorskip("napari", reason="needs napari: pip install 'quietray[napari]' 'napari[all]'")
    pytest.importorskip("qtpy", reason="needs Qt: pip install 'napari[all]'", exc_type=Exception)
    from napari.components import ViewerModel
    from qtpy.QtWidgets import QApplication

    from quietray.napari.widget import DenoiseWidget

    app = QApplication.instance() or QApplication([])
    widget = DenoiseWidget(ViewerModel())
    widget.app = app
    yield widget
    widget.stop()
    waited(widget, lambda: widget.worker is None)
    widget.close()


def waited(widget: Any, until: Callable[[], bool]) -> None:
    """Let the window live until something is so."""
    for _ in range(60_000):
        widget.app.processEvents()
        if until():
            return
        widget.thread().msleep(2)
    raise AssertionError("the window never came to it")


def opened(widget: Any, scan: quietray.Scan) -> None:
    from napari.layers import Layer

    for layer in scan_layers(scan):
        widget.viewer.add_layer(Layer.create(*layer))


def test_the_window_denoises_and_shows_both(window: Any, monkeypatch: pytest.MonkeyPatch, short_report: None) -> None:
    opened(window, quietray.read(disc_scan()))
    assert window.scan.currentText() == "disc_12_24_32"
    monkeypatch.setattr(type(window), "_changes", LITTLE)
    seen: list[list[str]] = []
    window._line.told.connect(lambda told: seen.append([layer.name for layer in window.viewer.layers if layer.visible]))
    window.start()
    assert not window.start_button.isEnabled()
    waited(window, lambda: window.worker is None)
    assert ["before (preview)", "after (preview)"] in seen
    assert [layer.name for layer in window.viewer.layers if layer.visible] == [
        "disc_12_24_32 noisy",
        "disc_12_24_32 denoised",
    ]
    noisy, denoised = window.viewer.layers[-2:]
    assert noisy.contrast_limits == denoised.contrast_limits
    result: quietray.Result = denoised.metadata["result"]
    assert result.gain in window.viewer.text_overlay.text.replace("\n", " ")
    window.as_it_was.click()
    assert (noisy.visible, denoised.visible) == (True, False)
    window.as_it_was.click()
    assert (noisy.visible, denoised.visible) == (True, True)
    assert window.viewer.text_overlay.visible
    assert repr(result) in window.said.toPlainText()
    assert window.start_button.isEnabled()


def test_the_window_stops_and_shows_the_scan_again(
    window: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened(window, quietray.read(disc_scan()))
    endless = LITTLE | {"training": Training(steps=100_000, judgements=50_000, precision="fp32")}
    monkeypatch.setattr(type(window), "_changes", endless)
    window.folder.text.setText(str(tmp_path / "run"))
    window.start()
    waited(window, lambda: bool(window._previews))
    window.stop()
    waited(window, lambda: window.worker is None)
    assert [layer.name for layer in window.viewer.layers if layer.visible] == ["disc_12_24_32"]
    assert not window.viewer.text_overlay.visible
    assert window.stage.text() == "stopped"
    assert (tmp_path / "run" / ".work").is_dir()


def test_a_fault_of_the_users_is_told_in_our_words(window: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("quietray.napari.widget.show_error", told.append)
    window.start()
    assert "a scan must be open, got none" in told[-1]
    opened(window, quietray.read(disc_scan()))
    window.budget.setText("soon")
    window.start()
    waited(window, lambda: window.worker is None)
    assert "a duration must be positive, got 'soon'" in told[-1]
    window.budget.setText("1m")
    window.rows.setText("90:95")
    window.method.setCurrentText("gaussian")
    window.start()
    waited(window, lambda: window.worker is None)
    assert "rows" in told[-1]


def test_a_window_that_goes_stops_its_run(window: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(window, quietray.read(disc_scan()))
    stop = window._stop
    window.destroyed.emit()
    assert stop.is_set()


def test_layers_of_another_reader_become_a_scan(window: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from napari.layers import Image

    told: list[str] = []
    monkeypatch.setattr("quietray.napari.from_layers.show_error", told.append)
    wanted = quietray.read(disc_scan())
    fields = window.from_layers
    fields.setChecked(True)
    fields.button.click()
    assert "projections must be a layer" in told[-1]
    frames = {name: np.asarray(getattr(wanted, name)) for name in ("projections", "flats", "darks")}
    for name, stack in frames.items():
        window.viewer.add_layer(Image(stack, name=name, scale=(1, 0.1, 0.1), units=("pixel", "mm", "mm")))
        getattr(fields, name).setCurrentText(name)
    fields.angles.setText("half a turn")
    fields.button.click()
    assert "angles must be start:stop in degrees" in told[-1]
    fields.angles.setText("0:180")
    fields.button.click()
    assert window.scan.currentText() == "projections"
    scan = window.scan.currentData().metadata["scan"]
    assert isinstance(scan.geometry, quietray.ParallelBeam)
    assert scan.geometry.pixel_size == pytest.approx(0.1)
    np.testing.assert_allclose(scan.geometry.angles, wanted.geometry.angles)
    for name, stack in frames.items():
        np.testing.assert_array_equal(np.asarray(getattr(scan, name)), stack)


def test_a_model_leaves_nothing_to_choose(window: Any) -> None:
    window.model.text.setText("model")
    assert not window.method.isEnabled()
    assert not window.budget.isEnabled()
    assert window._changes == {"device": "auto"}
    window.model.text.setText("")
    assert window.method.isEnabled()
