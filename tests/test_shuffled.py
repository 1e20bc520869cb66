"""AP-BSN by hand: images taken apart and joined, what is hidden, how it is refined; the laws are in test_laws.py."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from quietray.errors import SettingsError
from quietray.metrics.noreference import neighbour_correlation
from quietray.splits.masked import Noise2Self
from quietray.splits.shuffled import APBSN, joined, taken_apart


def correlated(size: int, seed: int = 0) -> Tensor:
    """Noise of variance 1 that is shared up to 2 pixels away, ``(1, 1, 1, size, size)``."""
    white = torch.randn(1, 1, size + 2, size + 2, generator=torch.Generator().manual_seed(seed))
    return 3 * torch.nn.functional.avg_pool2d(white, 3, 1)[None]


@pytest.mark.parametrize("size", [(1, 1), (3, 7), (20, 20), (13, 11)])
@pytest.mark.parametrize("stride", [1, 2, 5])
def test_images_are_taken_apart_and_joined(size: tuple[int, int], stride: int) -> None:
    image = torch.rand(3, 1, *size, generator=torch.Generator().manual_seed(0))
    apart = taken_apart(image, stride)
    assert torch.equal(joined(apart, stride, size), image)
    assert int(torch.isfinite(apart).sum()) == image.numel()
    for k in range(min(stride, size[0])):
        for m in range(min(stride, size[1])):
            own = apart[stride**2 + k * stride + m, 0]  # of the second image
            mine = image[1, 0, k::stride, m::stride]
            assert torch.equal(own[: mine.shape[0], : mine.shape[1]], mine)


def test_shared_noise_becomes_white_in_images_of_distant_pixels() -> None:
    noise = correlated(300)[:, 0]
    apart = taken_apart(noise, 5)
    assert neighbour_correlation(noise, torch.ones_like(noise[:, 0])) > 0.6
    assert abs(neighbour_correlation(apart, torch.ones_like(apart[:, 0]))) < 0.02


@pytest.mark.parametrize("size", [(40, 40), (33, 47), (4, 9)])
def test_the_network_sees_images_of_distant_pixels_with_some_hidden(size: tuple[int, int]) -> None:
    samples = torch.rand(2, 1, 1, *size, generator=torch.Generator().manual_seed(0))
    split = APBSN(stride=3, grid=2)
    pair = split.draw(samples, torch.Generator().manual_seed(1))
    apart = taken_apart(samples[:, 0], 3)
    hidden = torch.nan_to_num(taken_apart(pair.weight, 3)) > 0
    visible = ~hidden & torch.isfinite(apart)
    assert torch.equal(pair.input[visible], apart[visible])
    assert not bool((pair.input == apart)[hidden].any())
    assert bool(torch.isfinite(pair.input).all())
    assert torch.equal(pair.target, samples[:, 0])
    assert torch.equal(pair.measure(apart), samples[:, 0])


@pytest.mark.parametrize("size", [(40, 40), (33, 47)])
def test_only_reserved_pixels_are_judged_wherever_an_aligned_window_lies(size: tuple[int, int]) -> None:
    split = APBSN(stride=3, grid=2)
    found = split.reserved(size)
    assert found is not None
    pixels, align = torch.from_numpy(found[0]), found[1]
    assert align == 6
    samples = torch.where(pixels > 0, 0.0, 100.0)[None, None, None]
    for top, left in ((0, 0), (6, 12), (18, 6)):
        window = (..., slice(top, top + 14), slice(left, left + 17))
        judged = split.judge(torch.ones_like, samples[window], torch.ones(1, 1, 1, 1))
        assert judged.weight == float(pixels[window].sum())
        assert judged.error + judged.noise == pytest.approx(1)


def test_doing_nothing_changes_nothing() -> None:
    samples = torch.rand(2, 1, 1, 33, 21, generator=torch.Generator().manual_seed(0))
    for split in (APBSN(), APBSN(refinements=0), APBSN(inference_stride=3)):
        assert torch.allclose(split.infer(lambda x: x, samples), samples[:, 0], atol=1e-6)


def test_some_pixels_get_their_measured_value_back_before_each_refinement() -> None:
    samples = torch.rand(1, 1, 1, 60, 60, generator=torch.Generator().manual_seed(0)) + 1
    seen: list[Tensor] = []

    def network(x: Tensor) -> Tensor:
        seen.append(x)
        return torch.zeros_like(x) if len(seen) == 1 else x

    found = APBSN().infer(network, samples)
    first, *later = seen
    assert first.shape == (4, 1, 30, 30)
    assert len(later) == 8
    for mixed in later:
        back = mixed == samples[:, 0]
        assert bool((mixed[~back] == 0).all())
        assert abs(float(back.float().mean()) - 0.16) < 5 * (0.16 * 0.84 / 3600) ** 0.5
    assert not torch.equal(later[0], later[1])
    assert torch.allclose(found, torch.stack(later).mean(0))


def test_pixels_that_were_not_measured_count_nowhere() -> None:
    samples = torch.rand(1, 1, 1, 31, 31, generator=torch.Generator().manual_seed(0))
    samples[..., 7, 9] = torch.nan
    split = APBSN(stride=3, grid=2)
    for seed in range(8):
        pair = split.draw(samples, torch.Generator().manual_seed(seed))
        assert bool(torch.isfinite(pair.input).all() and torch.isfinite(pair.target).all())
        assert float(pair.weight[0, 0, 7, 9]) == 0
    assert bool(torch.isfinite(split.infer(lambda x: x, samples)).all())


def test_a_stride_beyond_the_noise_is_judged_rightly_and_a_smaller_one_is_not() -> None:
    """Over shared noise, a result that is off by 0.5 everywhere; Noise2Self itself takes the noise for the image."""
    samples = 0.2 * correlated(400, seed=3)
    offset = 0.5

    def error(split: APBSN | Noise2Self) -> float:
        return split.judge(lambda x: torch.full_like(x, offset), samples, torch.ones(1, 1, 1, 1)).error

    assert error(APBSN()) == pytest.approx(offset**2, abs=0.01)
    assert error(Noise2Self()) > offset**2 + 0.02, "its estimate of the noise is too small"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stride": 0}, "stride must be at least 1"),
        ({"inference_stride": 0}, "inference_stride must be at least 1"),
        ({"grid": 1}, "grid must be at least 2"),
        ({"refinements": -1}, "refinements must be at least 0"),
        ({"replaced": 1.0}, "replaced must be between 0 and 1"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        dataclasses.replace(APBSN(), **change)
