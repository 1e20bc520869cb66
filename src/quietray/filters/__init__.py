"""Classical filters: an architecture with nothing to train, applied, judged and saved like a network."""

from quietray.filters.averaging import BilateralFilter, GaussianFilter, MedianFilter, NonLocalMeans
from quietray.filters.base import Filter
from quietray.filters.sparse import TotalVariation, Wavelet
from quietray.filters.tuning import Tuned, tune

__all__ = [
    "FILTERS",
    "BilateralFilter",
    "Filter",
    "GaussianFilter",
    "MedianFilter",
    "NonLocalMeans",
    "TotalVariation",
    "Tuned",
    "Wavelet",
    "tune",
]

FILTERS: dict[str, type[Filter]] = {
    kind.called: kind
    for kind in (GaussianFilter, MedianFilter, BilateralFilter, NonLocalMeans, Wavelet, TotalVariation)
}
