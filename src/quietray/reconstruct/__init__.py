"""From projections to volumes: analytic, iterative and variational algorithms."""

from quietray.reconstruct.analytic import FBP
from quietray.reconstruct.diverging import FDK
from quietray.reconstruct.iterative import CGLS, SIRT
from quietray.reconstruct.variational import TV
from quietray.settings import called

__all__ = ["ALGORITHMS", "CGLS", "FBP", "FDK", "SIRT", "TV", "Algorithm", "Analytic"]

Algorithm = FBP | FDK | SIRT | CGLS | TV
ALGORITHMS: dict[str, type] = {called(kind): kind for kind in Algorithm.__args__}
Analytic = FBP | FDK
