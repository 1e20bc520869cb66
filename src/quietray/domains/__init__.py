"""Domains in which methods work: volume, radiographs, projections, frames, series, clean, images.

All have the interface of :class:`~quietray.domains.base.Domain`.
"""

from quietray.domains.base import Domain
from quietray.domains.clean import CleanDomain
from quietray.domains.frames import FrameDomain
from quietray.domains.images import ImageDomain
from quietray.domains.projections import ProjectionDomain
from quietray.domains.radiographs import RadiographDomain
from quietray.domains.series import SeriesDomain
from quietray.domains.volume import VolumeDomain
from quietray.errors import SettingsError
from quietray.method import Method
from quietray.registry import called

__all__ = ["DOMAINS", "Domain", "ImageDomain", "SeriesDomain", "VolumeDomain", "domain_of"]

DOMAINS: dict[str, type[Domain]] = {
    "volume": VolumeDomain,
    "radiographs": RadiographDomain,
    "projections": ProjectionDomain,
    "clean": CleanDomain,
    "frames": FrameDomain,
    "series": SeriesDomain,
    "images": ImageDomain,
}


def domain_of(method: Method, n_scans: int = 1) -> type[Domain]:
    """Return the domain in which a method denoises this number of scans of one object.

    Raises
    ------
    SettingsError
        The method only denoises images, or has no such domain.

    Examples
    --------
    >>> from quietray.splits import Noise2Noise, Noise2Self
    >>> domain_of(Noise2Self()).__name__, domain_of(Noise2Noise(), 2).__name__, domain_of(Noise2Noise(), 1).__name__
    ('RadiographDomain', 'VolumeDomain', 'FrameDomain')
    """
    if method.domain == "images":
        raise SettingsError(f"{called(type(method))} must be given images, got a scan; use noise2inverse or noise2self")
    if method.domain not in DOMAINS:
        raise SettingsError(
            f"the domain of {called(type(method))} must be one of {', '.join(DOMAINS)}, got {method.domain!r}"
        )
    if method.takes_repeats and n_scans == 1 and method.domain == "volume":
        return FrameDomain
    return DOMAINS[method.domain]
