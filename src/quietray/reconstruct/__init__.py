"""From projections to volumes: analytic, iterative and variational algorithms."""

from quietray.reconstruct.analytic import FBP
from quietray.reconstruct.base import ALGORITHMS, Algorithm

# The order here is the order in which algorithms are listed.
# isort: off
from quietray.reconstruct.diverging import FDK
from quietray.reconstruct.iterative import CGLS, SIRT
from quietray.reconstruct.variational import TV
# isort: on

__all__ = ["ALGORITHMS", "CGLS", "FBP", "FDK", "SIRT", "TV", "Algorithm"]
