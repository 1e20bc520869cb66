"""The planes kept to look through: those of the volume, however it was cut into slabs."""

import numpy as np
import pytest

from quietray.pictures import shrink
from quietray.running.planes import Planes, Stack, spread


@pytest.mark.parametrize("cuts", [(23,), (4, 9, 10), (1,) * 23, (7, 16)])
@pytest.mark.parametrize("begin", [0, 46])
@pytest.mark.parametrize("factor", [1, 3])
def test_slabs_give_the_planes_of_the_whole(cuts: tuple[int, ...], begin: int, factor: int) -> None:
    rng, shape = np.random.default_rng(0), (23, 31, 29)
    volumes = rng.normal(0, 1, (2, *shape)).astype(np.float32)

    class Narrow(Planes):
        factor = property(lambda self: factor)  # type: ignore[assignment]

    planes, first, kept = Narrow(shape, begin, 20_000), begin, []
    for height in cuts:
        slab = volumes[:, first - begin : first - begin + height]
        kept.append((first, [planes.cut(first, one) for one in slab]))
        first += height
    before, after = ([(start, pair[side]) for start, pair in kept] for side in (0, 1))
    stacks = planes.stacks(before, after)
    assert set(stacks) == {"axial", "coronal", "sagittal"}
    for axis, stack in enumerate(stacks.values()):
        assert shape[axis] // 2 in stack.places
        assert stack.factor == factor
        for number, place in enumerate(stack.places):
            for found, volume in ((stack.before, volumes[0]), (stack.after, volumes[1])):
                expected = shrink(np.take(volume, place, axis), factor)
                np.testing.assert_allclose(found[number], expected, atol=2e-6)


def test_room_bounds_what_is_kept_at_any_size() -> None:
    for shape in ((1, 5, 5), (16, 835, 835), (300, 300, 300), (2048, 2048, 2048), (1, 4096, 4096), (9000, 20, 20)):
        planes = Planes(shape)  # type: ignore[arg-type]
        n_z, n_y, n_x = (-(-size // planes.factor) for size in shape)
        each = dict(zip(planes.places, (n_y * n_x, n_z * n_x, n_z * n_y), strict=True))
        assert sum(len(places) * each[name] for name, places in planes.places.items()) <= planes.room
        assert all(size // 2 in at for size, at in zip(shape, planes.places.values(), strict=True) if at)
        assert planes.places["axial"], "there is room for the middle slice at least"
    assert not any(Planes((10, 10, 10), room=0).places.values())


def test_some_planes_are_spread_and_keep_the_middle() -> None:
    for size in (1, 2, 7, 40):
        for count in range(1, size + 2):
            found = spread(size, count)
            assert len(found) == len(set(found)) == min(size, count)
            assert size // 2 in found
            assert found == tuple(sorted(found))
    images = np.arange(9, dtype=np.float32)[:, None, None]
    kept = Stack(tuple(range(100, 109)), images, -images).some(0.34)
    assert kept.places == (101, 104, 107)
    assert kept.before.ravel().tolist() == [1, 4, 7]
    assert kept.after.ravel().tolist() == [-1, -4, -7]
