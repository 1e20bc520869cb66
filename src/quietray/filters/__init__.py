"""Classical filters, with the same interface as networks but nothing to train."""

from collections.abc import Mapping

from quietray.filters.averaging import BilateralFilter, GaussianFilter, MedianFilter, NonLocalMeans
from quietray.filters.base import Filter
from quietray.filters.sparse import TotalVariation, Wavelet
from quietray.filters.tuning import Tuned, tune
from quietray.method import METHODS

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

FILTERS: Mapping[str, type[Filter]] = METHODS.under(Filter)
