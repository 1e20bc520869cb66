"""Power cuts, disks and memory: nothing is lost or said that is not so.  More of them: python tests/kills.py 20."""

import dataclasses
import time

import numpy as np
import pytest
import torch

import kills
import quietray
from quietray.errors import ResourceError
from quietray.inference.denoiser import Denoiser
from quietray.inference.tiling import fitting, tiled
from scans import content, disc_scan, quick


@pytest.fixture(autouse=True)
def _one_thread():
    """A forked child has none of its parent's OpenMP threads, and dies when it waits for them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Hungry(torch.nn.Module):
    """Runs out of memory on what is larger than a limit."""

    def __init__(self, limit: int, error: Exception) -> None:
        super().__init__()
        self.limit, self.error, self.tried = limit, error, []
        self.inner = torch.nn.Conv2d(1, 1, 5, padding=2)

    def forward(self, x):
        self.tried.append(max(x.shape[-2:]))
        if max(x.shape[-2:]) > self.limit:
            raise self.error
        return self.inner(x)


SHORT = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize("error", SHORT, ids=lambda error: type(error).__name__)
def test_where_memory_runs_out_tiles_become_smaller(generator, error):
    x = torch.rand(1, 1, 300, 260, generator=generator)
    network = Hungry(100, error)
    with torch.no_grad():
        found = fitting(network, x, 1024, 2, 1)
        torch.testing.assert_close(found, tiled(network.inner, x, 1024, 2, 1), rtol=1e-5, atol=1e-6)
    assert max(network.tried) == 300
    with pytest.raises(ResourceError, match=r"300 x 260 pixels must fit into memory in tiles of 64.*region="):
        fitting(Hungry(30, error), x, 1024, 2, 1)


def test_other_errors_of_a_network_stay_as_they_are(generator):
    with pytest.raises(RuntimeError, match="shapes differ"):
        fitting(Hungry(30, RuntimeError("shapes differ")), torch.rand(1, 1, 90, 90, generator=generator), 90, 2, 1)


@pytest.mark.slow
@pytest.mark.usefixtures("short_report")
def test_a_clock_that_is_set_back_changes_nothing(tmp_path, monkeypatch):
    """Every look at the clock of the wall is an hour before the last one."""
    scan, now = quietray.read(disc_scan()), [time.time()]

    def back() -> float:
        now[0] -= 3600
        return now[0]

    whole = quietray.denoise(scan, tmp_path / "whole", quick())
    monkeypatch.setattr(time, "time", back)
    monkeypatch.setattr(time, "time_ns", lambda: int(1e9 * back()))
    other = quietray.denoise(scan, tmp_path / "other", quick())
    np.testing.assert_array_equal(np.asarray(whole.volume), np.asarray(other.volume))
    assert quietray.denoise(scan, tmp_path / "other", quick(), resume=True).metrics["training"]["steps"] == 12
    assert other.metrics["seconds"] >= 0


def test_a_model_that_is_replaced_is_never_half_of_one_and_half_of_the_other(tmp_path, monkeypatch):
    import quietray.inference.denoiser as module

    network = quietray.UNet((4, 8))
    made = [
        Denoiser(network.build(1, 1).eval(), network, quietray.Noise2Inverse(parts=2, slices=1), module.Scale(0.0, top))
        for top in (1.0, 9.0)
    ]
    made[0].save(tmp_path)
    before = content(tmp_path)
    save = module.write_json
    monkeypatch.setattr(module, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        made[1].save(tmp_path)
    with pytest.raises(quietray.QuietrayError, match=r"must hold a model\.json"):
        Denoiser.load(tmp_path)
    monkeypatch.setattr(module, "write_json", save)
    made[1].save(tmp_path)
    assert Denoiser.load(tmp_path).scale.high == 9.0
    assert content(tmp_path) != before
    assert dataclasses.asdict(Denoiser.load(tmp_path).scale) == {"low": 0.0, "high": 9.0}


KILLED = ["train", "decorrelate", "reconstruct-h5", "filter-npy", "denoise-tiff", "denoise-mhd-uint16"]


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLED)
def test_what_is_killed_and_given_again_ends_as_if_nothing_had_happened(tmp_path, name):
    assert kills.run([name], 3, 0, tmp_path)[name] == {"same": 3}


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLED)
def test_a_disk_that_fails_is_told_and_loses_nothing(tmp_path, name):
    assert kills.run([name], 4, 0, tmp_path, faults=True)[name] == {"same": 4}
