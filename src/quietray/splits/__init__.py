"""The methods: rules that make two independent views of one measurement."""

from collections.abc import Mapping

from quietray.method import METHODS
from quietray.splits.base import Split

# The order here is the order in which methods are listed.
# isort: off
from quietray.splits.inverse import Noise2Inverse
from quietray.splits.paired import Noise2Clean, Noise2Noise
from quietray.splits.masked import Noise2Self, Noise2Void
from quietray.splits.noisier import Noisier2Noise
from quietray.splits.shuffled import APBSN
from quietray.splits.recorrupted import Recorrupted
from quietray.splits.pseudo import PseudoCT
from quietray.splits.projected import Noise2Projection
# isort: on

__all__ = [
    "APBSN",
    "SPLITS",
    "Noise2Clean",
    "Noise2Inverse",
    "Noise2Noise",
    "Noise2Projection",
    "Noise2Self",
    "Noise2Void",
    "Noisier2Noise",
    "PseudoCT",
    "Recorrupted",
    "Split",
]

SPLITS: Mapping[str, type[Split]] = METHODS.under(Split)
