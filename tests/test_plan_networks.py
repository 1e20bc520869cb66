"""The memory plan asks each network what it holds: the property against real allocations, and its part in a plan."""

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from checks import awake
from quietray.errors import ResourceError
from quietray.geometry import ParallelBeam
from quietray.networks import MSD, REDCNN, Architecture, DnCNN, LehtinenUNet, UNet
from quietray.running.plan import Plan, plan_run
from quietray.scan import Scan

GIB = 2**30


class Frames:
    """The shape of projections, without them."""

    def __init__(self, *shape: int) -> None:
        self.shape, self.dtype, self.ndim = shape, np.dtype(np.uint16), len(shape)

    def __getitem__(self, key: object) -> np.ndarray:
        raise AssertionError("a plan must not read")


def planned(network: Architecture | None, n_cols: int, memory: float, n_rows: int = 100, n_slices: int = 7) -> Plan:
    scan = Scan(Frames(800, n_rows, n_cols), ParallelBeam(np.linspace(0, 3, 800), n_rows, n_cols))
    grid = scan.geometry.grid()
    return plan_run(scan, range(n_rows), grid, parts=4, n_slices=n_slices, memory=int(memory * GIB), network=network)


def most_allocated(network: torch.nn.Module, x: torch.Tensor) -> int:
    """Return the bytes that were allocated at once while the network was applied."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found, torch.no_grad():
        network(x)
    now = most = 0
    for event in found.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


@pytest.mark.parametrize(
    "architecture",
    [
        UNet(),
        UNet((32, 64)),
        UNet(dimensions=3),
        LehtinenUNet(),
        LehtinenUNet(maps=24),
        MSD(),
        MSD(layers=12, width=3),
        MSD(layers=30, dimensions=3),
        REDCNN(maps=32),
        DnCNN(),
        DnCNN(layers=5, maps=16),
    ],
    ids=str,
)
def test_a_network_holds_what_it_says(architecture: Architecture) -> None:
    size, n_slices = 128, 8 if architecture.dimensions == 3 else 1
    x = torch.rand(1, n_slices, size, size)
    measured = most_allocated(awake(architecture.build(n_slices)), x) / (n_slices * size**2)
    assert 0.65 < architecture.bytes_per_pixel / measured < 1.5


def test_the_default_network_is_what_a_plan_without_one_counts() -> None:
    assert planned(None, 2048, 8.0) == planned(UNet(), 2048, 8.0)


def test_a_network_that_holds_more_has_smaller_tiles_and_slabs() -> None:
    small, large = planned(UNet(), 2048, 6.0), planned(REDCNN(), 2048, 6.0)
    assert large.tile < small.tile
    assert large.peak <= large.memory
    one, other = (planned(network, 400, 1.5) for network in (UNet(), LehtinenUNet(maps=96)))  # no tile to make smaller
    assert len(other.slabs) > len(one.slabs)


def test_a_far_view_counts_around_every_tile() -> None:
    """550 pixels around each: a tile of a whole slice must not be cut into four that each see all of it."""
    near, far = MSD(dilations=(1,)), MSD()
    assert near.bytes_per_pixel == far.bytes_per_pixel
    assert planned(far, 3000, 64.0).peak > planned(near, 3000, 64.0).peak
    assert planned(far, 800, 2.6, n_rows=20).tile == 1024
    assert planned(near, 800, 2.6, n_rows=20).tile < 800


def test_a_network_of_three_dimensions_holds_many_slices_at_once() -> None:
    flat, deep = (planned(UNet(dimensions=n), 1000, 32.0, n_slices=16) for n in (2, 3))
    assert deep.peak > flat.peak + 8 * min(deep.tile + 128, 1000) ** 2 * UNet().bytes_per_pixel
    with pytest.raises(ResourceError, match="or another network="):
        planned(MSD(dimensions=3), 1000, 8.0, n_slices=16)
