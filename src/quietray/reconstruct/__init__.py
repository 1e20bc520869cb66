"""From projections to volumes: analytic, iterative and variational algorithms."""
