"""From projections to volumes: analytic, iterative and variational algorithms."""

from quietray.reconstruct.analytic import FBP
from quietray.reconstruct.iterative import CGLS, SIRT
from quietray.reconstruct.variational import TV
from quietray.settings import called

__all__ = ["ALGORITHMS", "CGLS", "FBP", "SIRT", "TV", "Algorithm"]

Algorithm = FBP | SIRT | CGLS | TV
ALGORITHMS: dict[str, type] = {called(kind): kind for kind in Algorithm.__args__}
