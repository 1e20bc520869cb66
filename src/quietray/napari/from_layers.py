"""A scan from layers that another reader opened: projections, flats, darks and angles."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image
from napari.utils.notifications import show_error
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QFormLayout, QGroupBox, QLineEdit, QPushButton, QVBoxLayout, QWidget

from quietray import GeometryError, QuietrayError, Scan
from quietray.napari.files import voxel

__all__ = ["FromLayers"]

_NONE = "none"


class FromLayers(QGroupBox):
    """Fields for a parallel-beam scan, which is stored with the layer of the projections.

    Parameters
    ----------
    viewer
        The viewer whose layers are offered.
    """

    made = Signal(object)
    """Emits the layer of the projections, which now has a scan."""

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__("A scan from layers")
        self.viewer = viewer
        self.projections, self.flats, self.darks = QComboBox(), QComboBox(), QComboBox()
        self.angles, self.button = QLineEdit("0:180"), QPushButton("Use them as a scan")
        form, self.fields = QFormLayout(), QWidget()
        for label, field, tip in (
            ("Projections", self.projections, "Axes: view, row, column"),
            ("Flats", self.flats, "Open-beam frames; none if the projections are already divided by them"),
            ("Darks", self.darks, "Beam-off frames"),
            ("Angles", self.angles, "start:stop in degrees, evenly spaced, without the stop"),
        ):
            field.setToolTip(tip)
            field.setAccessibleName(label)
            form.addRow(label, field)
        form.addRow(self.button)
        self.fields.setLayout(form)
        self.setLayout(QVBoxLayout())
        self.layout().addWidget(self.fields)
        self.setCheckable(True)
        self.toggled.connect(self.fields.setVisible)
        self.setChecked(False)
        self.button.clicked.connect(lambda: self.take())

    def offer(self) -> None:
        """Offer the open layers."""
        stacks = [one for one in self.viewer.layers if isinstance(one, Image) and not (one.rgb or one.multiscale)]
        for field, found in (
            (self.projections, [one for one in stacks if one.ndim == 3]),
            (self.flats, [None, *stacks]),
            (self.darks, [None, *stacks]),
        ):
            chosen = field.currentData()
            field.clear()
            for layer in found:
                field.addItem(_NONE if layer is None else layer.name, layer)
            newest = len(found) - 1 if field is self.projections else 0
            field.setCurrentIndex(found.index(chosen) if chosen in found else newest)

    def take(self) -> None:
        """Create the scan; show errors that the user can fix."""
        try:
            layer = self.projections.currentData()
            if layer is None:
                raise GeometryError("projections must be a layer (view, row, col), got none; open one")
            layer.metadata["scan"] = self._scan(layer)
        except QuietrayError as error:
            show_error(str(error))
            return
        self.made.emit(layer)

    def _scan(self, layer: Any) -> Scan:
        flats, darks = self.flats.currentData(), self.darks.currentData()
        return Scan.from_arrays(
            layer.data,
            evenly(self.angles.text(), int(layer.data.shape[0])),
            pixel_size=voxel({"scale": layer.scale[[1, 1, 2]], "units": layer.units[1:]})[0],
            flats=None if flats is None else flats.data,
            darks=None if darks is None else darks.data,
        )


def evenly(text: str, n_views: int) -> np.ndarray:
    """Return evenly spaced angles in degrees from ``start:stop``, without the stop.

    Raises
    ------
    GeometryError
        The text is not of this form.

    Examples
    --------
    >>> evenly("0:180", 4).tolist()
    [0.0, 45.0, 90.0, 135.0]
    """
    try:
        start, stop = (float(part) for part in text.split(":"))
    except ValueError:
        raise GeometryError(f"angles must be start:stop in degrees, such as 0:180, got '{text}'") from None
    return np.linspace(start, stop, n_views, endpoint=False)
