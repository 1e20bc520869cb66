"""Phase retrieval from radiographs at a single distance: Paganin's filter, and its generalised form.

At a distance from the detector, the edges of an object show bright and dark fringes, because the refracted beam
interferes.  For an object of a single material in the near field, a single filter undoes this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.fft import next_fast_len

from quietray.errors import GeometryError, SettingsError
from quietray.geometry import ParallelBeam
from quietray.scan import Scan
from quietray.types import Radiographs

__all__ = ["Phase", "alpha_of", "reach_of", "retrieve", "transfer"]

_KEV_MM = 12.398419843e-7  # wavelength in mm of a photon of 1 keV
_REACH = 12  # filter lengths beyond which a pixel is negligible: e^-12


@dataclass(frozen=True)
class Phase:
    """Settings of phase retrieval; values that are None are taken from the file.

    Parameters
    ----------
    delta_beta
        Ratio of the refractive index decrement delta to the absorption index beta of the material, such as 500.
    alpha
        Squared length of the filter in pixels squared, instead of all other parameters.
    energy
        Photon energy in keV.
    distance
        Distance from the object to the detector in mm.
    retrieval
        ``paganin``, or ``generalised``, which preserves details of the size of a pixel better.

    Notes
    -----
    Paganin et al. (2002), doi:10.1046/j.1365-2818.2002.01010.x; generalised: Paganin et al. (2020),
    doi:10.1088/2040-8986/abbab9.

    Examples
    --------
    >>> Phase(delta_beta=500.0, energy=20.0, distance=100.0).retrieval
    'paganin'
    """

    delta_beta: float | None = None
    alpha: float | None = None
    energy: float | None = None
    distance: float | None = None
    retrieval: Literal["paganin", "generalised"] = "paganin"

    def __post_init__(self) -> None:
        if (self.delta_beta is None) == (self.alpha is None):
            got = "none of them" if self.alpha is None else "both"
            raise SettingsError(f"phase retrieval must have --delta-beta or --alpha, got {got}; give one")
        for name in ("delta_beta", "alpha", "energy", "distance"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise SettingsError(f"{name} must be positive, got {value}; correct --{name.replace('_', '-')}")
        if self.retrieval not in ("paganin", "generalised"):
            raise SettingsError(f"retrieval must be paganin or generalised, got '{self.retrieval}'")


def alpha_of(phase: Phase, scan: Scan) -> tuple[float, str]:
    r"""Return the squared length of the filter in pixels, :math:`\lambda z \delta / (4 \pi \beta p^2)`, and its source.

    For a point source, the distance is divided by the magnification, and the pixel size is that at the object.

    Raises
    ------
    SettingsError
        A parameter is given neither by the settings nor by the scan.
    GeometryError
        The pixel size is unknown.

    Examples
    --------
    >>> beam = ParallelBeam(np.linspace(0, 3, 4), 2, 8, pixel_size=1e-3)
    >>> scan = Scan(np.ones((4, 2, 8), np.float32), beam, provenance={"energy_kev": 20.0})
    >>> alpha, said = alpha_of(Phase(delta_beta=500.0, distance=50.0), scan)
    >>> round(alpha, 1), said
    (123.3, 'delta/beta 500, 20 keV as the file says, 50 mm, pixels of 0.001 mm')
    """
    if phase.alpha is not None:
        return phase.alpha, f"alpha {phase.alpha:g} pixels squared"
    assert phase.delta_beta is not None
    known: dict[str, float] = {}
    told = [f"delta/beta {phase.delta_beta:g}"]
    for name, place, unit in (("energy", "energy_kev", "keV"), ("distance", "propagation_mm", "mm")):
        given, stated = getattr(phase, name), scan.provenance.get(place)
        value = stated if given is None else given
        if value is None:
            raise SettingsError(
                f"phase retrieval must have the {name} in {unit}, which the scan does not state; give --{name}, or "
                "--alpha instead of --delta-beta"
            )
        known[name] = float(value)
        told.append(f"{known[name]:g} {unit}{' as the file says' if given is None else ''}")
    geometry = scan.geometry
    if geometry.pixel_size is None:
        raise GeometryError("phase retrieval must have the pixel size; give --pixel-size in mm, or --alpha")
    larger = 1.0 if isinstance(geometry, ParallelBeam) else geometry.magnification
    pixel, distance = geometry.pixel_size / larger, known["distance"] / larger
    wavelength = _KEV_MM / known["energy"]
    told.append(f"pixels of {pixel:g} mm{'' if larger == 1 else f' at the object, magnified {larger:.3g} times'}")
    if (2 * pixel) ** 2 < wavelength * distance:
        told.append("so far away that details of two pixels are outside the near field, where the filter is valid")
    return wavelength * distance * phase.delta_beta / (4 * math.pi * pixel**2), ", ".join(told)


def transfer(shape: tuple[int, int], alpha: float, retrieval: str) -> Float[np.ndarray, "row half"]:
    """Return the transfer function of the filter at the frequencies of a real FFT.

    Parameters
    ----------
    shape
        Shape of the frame.
    alpha
        Squared length of the filter in pixels squared.
    retrieval
        ``paganin``: one over 1 + alpha k^2; ``generalised``: with the discrete Laplacian of the pixel grid instead of
        k^2.

    Examples
    --------
    >>> transfer((1, 4), 1.0, "generalised").round(3).tolist()
    [[1.0, 0.333, 0.2]]
    """
    down, across = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    k = [2 * np.pi * frequency for frequency in (down, across)]
    if retrieval == "generalised":
        squared = sum(2 - 2 * np.cos(one) for one in k)
    else:
        squared = sum(one**2 for one in k)
    return np.asarray(1 / (1 + alpha * squared))


def retrieve(
    frames: Radiographs, alpha: float, retrieval: str = "paganin", device: torch.device | str = "cpu"
) -> Radiographs:
    """Return transmissions as the object would show them in contact with the detector.

    Their negative logarithm is the line integral of the attenuation, for an object of a single material.  Frames are
    filtered separately and mirrored at their edges.

    Parameters
    ----------
    frames
        Transmissions ``(view, row, col)`` measured at a distance.
    alpha
        Squared length of the filter in pixels squared.
    retrieval
        ``paganin`` or ``generalised``.
    device
        Device for the computation.

    Examples
    --------
    >>> frame = np.full((1, 4, 6), 0.5, np.float32)
    >>> bool(np.allclose(retrieve(frame, 9.0), 0.5))
    True
    """
    n_rows, n_cols = frames.shape[1:]
    (rows, top), (cols, left) = (_mirrored(n, alpha) for n in (n_rows, n_cols))
    wide = torch.as_tensor(frames, dtype=torch.float32, device=device)[:, rows][:, :, cols]
    factors = torch.as_tensor(transfer((len(rows), len(cols)), alpha, retrieval), dtype=torch.float32, device=device)
    found = torch.fft.irfft2(torch.fft.rfft2(wide) * factors, s=(len(rows), len(cols)))
    return np.ascontiguousarray(found[:, top : top + n_rows, left : left + n_cols].cpu().numpy())


def reach_of(alpha: float) -> int:
    """Return the distance in pixels beyond which the filter is negligible.

    Examples
    --------
    >>> reach_of(4.0)
    25
    """
    return math.ceil(_REACH * math.sqrt(alpha)) + 1


def _mirrored(n: int, alpha: float) -> tuple[torch.Tensor, int]:
    """Return the indices of the padded line, and the position of its first original pixel."""
    room = min(n, reach_of(alpha))
    size = 2 * n if room >= n // 2 else int(next_fast_len(n + 2 * room, real=True))  # mirrored as a whole
    first = 0 if size == 2 * n else room
    places = np.mod(np.arange(size) - first, 2 * n)
    return torch.from_numpy(np.where(places < n, places, 2 * n - 1 - places)), first
