"""The shape checks of ``make test-all`` are on.  They hang on an option, and an option can fall off without a sound."""

from typing import Any

import numpy as np
import pytest
from beartype import beartype
from jaxtyping import TypeCheckError, jaxtyped

from quietray.geometry import ParallelBeam
from quietray.scan import Scan
from quietray.types import Frames, Volume


class Flattened:
    """A stack that says it holds ``(view, row, col)`` and then returns one axis too few."""

    shape = (4, 3, 5)
    dtype = np.dtype(np.float32)

    def __getitem__(self, key: Any) -> Any:
        return np.zeros((4, 15), np.float32)


def beam() -> ParallelBeam:
    return ParallelBeam(np.linspace(0, np.pi, 4, endpoint=False), n_rows=3, n_cols=5)


@pytest.mark.slow
def test_a_wrong_shape_returned_by_our_code_raises() -> None:
    assert isinstance(Flattened(), Frames)
    scan = Scan(Flattened(), beam())
    with pytest.raises(TypeCheckError, match="view row col"):
        scan.read(slice(0, 3))


@pytest.mark.slow
def test_a_wrong_type_given_to_our_code_raises() -> None:
    scan = Scan(np.zeros((4, 3, 5), np.float32), beam())
    with pytest.raises(TypeCheckError, match="rows"):
        scan.read("all of them")  # type: ignore[arg-type]


def test_axes_of_one_name_must_have_one_length() -> None:
    @jaxtyped(typechecker=beartype)
    def difference(result: Volume, reference: Volume) -> Volume:
        return result[:, :3, :3] - reference[:, :3, :3]

    a = np.zeros((2, 3, 3), np.float32)
    assert difference(a, a).shape == (2, 3, 3)
    with pytest.raises(TypeCheckError, match="reference"):
        difference(a, np.zeros((2, 4, 3), np.float32))
