"""The methods: rules that make two independent views of one measurement."""

from quietray.splits.base import Split
from quietray.splits.inverse import Noise2Inverse
from quietray.splits.masked import Noise2Self, Noise2Void

__all__ = ["SPLITS", "Noise2Inverse", "Noise2Self", "Noise2Void"]

SPLITS: dict[str, type[Split]] = {split.__name__: split for split in (Noise2Inverse, Noise2Self, Noise2Void)}
