"""The window: choose a scan and a time, and compare before and after."""

from __future__ import annotations

import atexit
import contextlib
import shutil
import tempfile
import textwrap
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from napari.components import ViewerModel
from napari.layers import Image
from napari.layers import Layer as NapariLayer
from napari.qt.threading import create_worker
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QProgressBar,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from quietray import QuietrayError
from quietray.napari.from_layers import FromLayers
from quietray.napari.layers import Layer, limits, picture, volume_layer
from quietray.napari.run import Done, Job, Preview, Progress, Told, WindowWatch, methods

__all__ = ["DenoiseWidget"]

_NONE_OPEN = (
    "a scan must be open, got none; drop its file into the viewer and choose quietray to read it, take "
    "File > Open Sample > quietray, or make one under 'A scan from layers'"
)


class DenoiseWidget(QWidget):
    """Denoises a scan that is open in the viewer, in a thread, and shows slices during training.

    Parameters
    ----------
    napari_viewer
        Viewer with the scans, which also shows the result.
    """

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__()
        self.viewer, self.worker = napari_viewer, None
        self._stop = threading.Event()
        self._previews: list[Any] = []
        self._hidden: list[Any] = []
        self._denoised: Any = None
        self._ask()
        self._tell()
        layers = self.viewer.layers.events
        for event in (layers.inserted, layers.removed, layers.reordered):
            event.connect(self._find_scans)
        self._find_scans()
        self._line = _Line()
        self._line.told.connect(self._hear)
        self._line.offered.connect(self._offer)
        self.destroyed.connect(self._stop.set)
        threading.Thread(target=self._line.offer, daemon=True).start()

    def _ask(self) -> None:
        """Create the fields."""
        self.scan, self.method, self.device = QComboBox(), QComboBox(), QComboBox()
        self.method.addItem("auto")
        self.device.addItems(["auto", "cpu", "cuda"])
        self.budget, self.rows = QLineEdit("4m"), QLineEdit()
        self.rows.setPlaceholderText("all, or start:stop")
        self.model, self.folder = _Folder("none: train on the scan"), _Folder("a temporary one")
        self.resume = QCheckBox("go on with the run in that folder")
        form = QFormLayout()
        for label, field, tip in (
            ("Scan", self.scan, "Scans that are open in the viewer"),
            ("Method", self.method, "auto compares the methods that the noise allows and uses the best"),
            ("Time", self.budget, "For everything: 90s, 10m, 1.5h"),
            ("Rows", self.rows, "Detector rows to work on"),
            ("Device", self.device, "Where to compute: auto uses a GPU if there is one"),
            ("Model", self.model, "Folder of a trained model; it is applied unchanged, without training"),
            ("Output", self.folder, "Folder of the result: volume, report, model, settings"),
            ("", self.resume, "With the same scan and settings; what was learned and written is kept"),
        ):
            field.setToolTip(tip)
            field.setAccessibleName(label or tip)
            form.addRow(label, field)
        self.model.text.textChanged.connect(self._enable)
        self.from_layers = FromLayers(self.viewer)
        self.from_layers.made.connect(self._take)
        self.setLayout(QVBoxLayout())
        self.layout().addLayout(form)
        self.layout().addWidget(self.from_layers)

    def _tell(self) -> None:
        """Create the buttons and the display of the progress."""
        self.start_button, self.stop_button = QPushButton("Start"), QPushButton("Stop")
        self.start_button.clicked.connect(lambda: self.start())
        self.stop_button.clicked.connect(lambda: self.stop())
        self.stop_button.setEnabled(False)
        self.bar, self.stage, self.said = QProgressBar(), QLabel(""), QPlainTextEdit()
        self.bar.setAccessibleName("Progress of the stage")
        self.stage.setWordWrap(True)
        self.said.setReadOnly(True)
        self.said.setAccessibleName("Messages of the run")
        self.as_it_was = QCheckBox("show the volume before denoising")
        self.as_it_was.setEnabled(False)
        self.as_it_was.toggled.connect(self._turn)
        for one in (
            _beside(self.start_button, self.stop_button),
            self.bar,
            self.stage,
            self.as_it_was,
            self.said,
        ):
            self.layout().addWidget(one)

    def start(self) -> None:
        """Start a run with the settings in the fields."""
        layer = self.scan.currentData()
        if self.worker is not None:
            return
        if layer is None:
            show_error(_NONE_OPEN)
            return
        folder = Path(self.folder.path or _temporary())
        job = Job(layer.metadata["scan"], folder, self._changes, self._model, self.resume.isChecked())
        self._stop.clear()
        self.said.clear()
        self._hear(Progress("starting", None))
        tell, stop = self._line.told.emit, self._stop

        def stopped() -> bool:
            return stop.is_set() or worker.abort_requested

        def work() -> Done | None:
            return job(WindowWatch(tell, stopped))

        worker = create_worker(work, _start_thread=False, _ignore_errors=True)
        worker.returned.connect(self._show)
        worker.errored.connect(self._fail)
        worker.finished.connect(self._rest)
        self.worker, self._source = worker, layer
        self._enable()
        worker.start()

    def stop(self) -> None:
        """Ask the run to stop, which it does when it next reports something."""
        self._stop.set()
        self.stage.setText("stopping ...")

    @property
    def _model(self) -> Path | None:
        return Path(self.model.path) if self.model.path else None

    @property
    def _changes(self) -> dict[str, Any]:
        """The settings from the fields; with a model, only those that it leaves open."""
        changes: dict[str, Any] = {"device": self.device.currentText()}
        if rows := self.rows.text().strip():
            changes["rows"] = rows
        if self._model is None:
            changes |= {"method": self.method.currentText(), "budget": self.budget.text()}
        return changes

    def _offer(self, names: Iterable[str]) -> None:
        """Offer the methods, which are imported late because that takes seconds."""
        self.method.addItems([name for name in names if self.method.findText(name) < 0])

    def _find_scans(self, event: Any = None) -> None:
        """Offer the open scans; select the newest unless another one was chosen."""
        self.from_layers.offer()
        chosen = self.scan.currentData()
        known = [self.scan.itemData(number) for number in range(self.scan.count())]
        found = [layer for layer in self.viewer.layers if isinstance(layer, Image) and "scan" in layer.metadata]
        self.scan.clear()
        for layer in found:
            self.scan.addItem(layer.name, layer)
        new = [layer for layer in found if layer not in known]
        wanted = new[-1] if new else chosen
        if wanted in found:
            self.scan.setCurrentIndex(found.index(wanted))

    def _take(self, layer: Any) -> None:
        """Select a layer that was turned into a scan."""
        self._find_scans()
        self.scan.setCurrentIndex(self.scan.findText(layer.name))

    def _enable(self, *_: Any) -> None:
        """Enable what makes sense at present."""
        busy = self.worker is not None
        self.start_button.setEnabled(not busy)
        self.stop_button.setEnabled(busy)
        for field in (self.scan, self.from_layers, self.rows, self.device, self.model, self.folder):
            field.setEnabled(not busy)
        for field in (self.method, self.budget, self.resume):
            field.setEnabled(not busy and self._model is None)

    def _hear(self, told: Told) -> None:
        """Show progress and messages of a run."""
        match told:
            case Progress(stage, share, text):
                self.bar.setRange(0, 0 if share is None else 1000)
                self.bar.setValue(int(1000 * (share or 0.0)))
                if not self._stop.is_set():
                    self.stage.setText(", ".join(part for part in (stage, text) if part))
            case Preview():
                self._look(told)
            case _:
                self.said.appendPlainText(told)

    def _look(self, seen: Preview) -> None:
        """Show a held-out slice before and after denoising, side by side."""
        shades = limits(seen.after) or (0.0, 1.0)
        if not self._previews or any(layer not in self.viewer.layers for layer in self._previews):
            self._leave_previews()
            self._hide()
            edge = self._source.metadata["scan"].geometry.grid().voxel_size
            both = (picture(seen.before, "before (preview)", edge), picture(seen.after, "after (preview)", edge, 1))
            self._previews = [self._add(one) for one in both]
            self.viewer.reset_view()
        for layer, image in zip(self._previews, (seen.before, seen.after), strict=True):
            layer.data, layer.contrast_limits = image, shades
        self._overlay(f"held-out slice, step {seen.step} of {seen.steps}: before | after")

    def _show(self, done: Done | None) -> None:
        """Show the result."""
        self._leave_previews()
        if done is None:
            self._overlay("")
            show_info("The run was stopped. If it has a folder of your own, continue it by ticking 'go on'.")
            return
        self._hide()
        name, result = self._source.name, done.result
        shown = volume_layer(result.volume, f"{name} denoised")
        shades = {key: shown[1][key] for key in ("contrast_limits",) if key in shown[1]}
        self._add(volume_layer(done.noisy, f"{name} noisy", **shades))
        self._denoised = self._add(shown)
        self._denoised.metadata["result"] = result
        self.as_it_was.setChecked(False)
        self.as_it_was.setEnabled(True)
        self.viewer.reset_view()
        self.viewer.dims.set_current_step(0, int(result.volume.shape[0]) // 2)
        self._overlay("\n".join(textwrap.wrap(done.said, 60)))
        self.said.appendPlainText(f"\n{result}\n")
        self.stage.setText(done.said)

    def _turn(self, before: bool) -> None:
        """Show or hide the noisy volume instead of the denoised one."""
        self._denoised.visible = not before

    def _fail(self, error: Exception) -> None:
        """Show errors that the user can fix; others are left to napari, with a traceback."""
        self._leave_previews()
        self._overlay("")
        if not isinstance(error, QuietrayError):
            raise error
        self.said.appendPlainText(str(error))
        show_error(str(error))

    def _rest(self) -> None:
        """Get ready for another run."""
        self.worker = None
        self.bar.setRange(0, 1000)
        self.bar.reset()
        if self._stop.is_set():
            self.stage.setText("stopped")
        self._enable()

    def _add(self, layer: Layer) -> Any:
        return self.viewer.add_layer(NapariLayer.create(*layer))

    def _hide(self) -> None:
        """Hide the visible layers."""
        self._hidden = [layer for layer in self.viewer.layers if layer.visible]
        for layer in self._hidden:
            layer.visible = False

    def _leave_previews(self) -> None:
        """Remove the previews, and show the layers that were visible before."""
        for layer in self._previews:
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)
        if self._previews:
            for layer in self._hidden:
                layer.visible = True
        self._previews = []

    def _overlay(self, text: str) -> None:
        self.viewer.text_overlay.text = text
        self.viewer.text_overlay.visible = bool(text)


class _Line(QObject):
    """Passes messages from the thread of a run to that of the window."""

    told = Signal(object)
    offered = Signal(object)

    def offer(self) -> None:
        """Emit the names of the methods; importing them takes seconds, and the viewer may be closed meanwhile."""
        with contextlib.suppress(RuntimeError):
            self.offered.emit(methods())


class _Folder(QWidget):
    """A folder, typed or selected."""

    def __init__(self, empty: str) -> None:
        super().__init__()
        self.text, button = QLineEdit(), QToolButton()
        self.text.setPlaceholderText(empty)
        button.setText("...")
        button.setAccessibleName("Choose a folder")
        button.clicked.connect(self._choose)
        self.setLayout(_row(self.text, button))

    @property
    def path(self) -> str:
        """The typed path, without surrounding spaces."""
        return str(self.text.text()).strip()

    def _choose(self) -> None:
        if chosen := QFileDialog.getExistingDirectory(self, "Choose a folder", self.path):
            self.text.setText(chosen)


def _temporary() -> str:
    """Return a new temporary folder for a result, removed when Python ends."""
    folder = tempfile.mkdtemp(prefix="quietray-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _row(*fields: Any) -> Any:
    row = QHBoxLayout()
    row.setContentsMargins(0, 0, 0, 0)
    for field in fields:
        row.addWidget(field)
    return row


def _beside(*fields: Any) -> Any:
    """Return a widget that arranges others side by side."""
    holder = QWidget()
    holder.setLayout(_row(*fields))
    return holder
