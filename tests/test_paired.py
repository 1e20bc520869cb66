"""Noise2Noise and Noise2Clean by hand: which realisation is seen, which is met; the laws are in test_laws.py."""

from typing import Any

import pytest
import torch

from quietray.errors import SettingsError
from quietray.splits.paired import Noise2Clean, Noise2Noise


def numbered(parts: int, slices: int = 1, batch: int = 2) -> torch.Tensor:
    """Samples whose number tells batch, part and slice: 100 b + 10 p + s."""
    b, p, s = torch.meshgrid(torch.arange(batch), torch.arange(parts), torch.arange(slices), indexing="ij")
    return (100.0 * b + 10 * p + s)[..., None, None].expand(-1, -1, -1, 4, 5).contiguous()


@pytest.mark.parametrize("n", [2, 3, 5])
def test_every_ordered_pair_is_drawn_alike(n: int) -> None:
    samples = numbered(n, batch=1).expand(2000, -1, -1, -1, -1)
    pair = Noise2Noise(n).draw(samples, torch.Generator().manual_seed(0))
    seen, met = pair.input[:, 0, 0, 0] / 10, pair.target[:, 0, 0, 0] / 10
    table = torch.zeros(n, n)
    for i, j in zip(seen.long(), met.long(), strict=True):
        table[i, j] += 1
    assert torch.equal(table.diagonal(), torch.zeros(n)), "a realisation must not meet itself"
    pairs = table[~torch.eye(n, dtype=torch.bool)]
    expected = 2000 / (n * (n - 1))
    assert float((pairs - expected).abs().max()) < 5 * expected**0.5


def test_neighbouring_slices_are_seen_and_the_middle_one_is_met() -> None:
    pair = Noise2Noise(2, slices=3).draw(numbered(2, 3), torch.Generator().manual_seed(0))
    for given, wanted in zip(pair.input[:, :, 0, 0], pair.target[:, 0, 0, 0], strict=True):
        assert (given - given[0]).tolist() == [0, 1, 2]
        assert wanted % 10 == 1
        assert abs(float(wanted - given[1])) == 10
    pair = Noise2Clean(2, slices=3).draw(numbered(3, 3), torch.Generator().manual_seed(0))
    assert pair.target[:, 0, 0, 0].tolist() == [21, 121]
    assert set((pair.input[:, 1, 0, 0] % 100).tolist()) <= {1, 11}


@pytest.mark.parametrize("split", [Noise2Noise(3), Noise2Clean(3)])
def test_any_number_of_realisations_can_be_denoised(split: Noise2Noise | Noise2Clean) -> None:
    samples = numbered(4)
    for n in (1, 2, 4):
        found = split.infer(lambda x: x.square(), samples[:, :n])
        assert torch.allclose(found, samples[:, :n, 0].square().mean(dim=1, keepdim=True))


def test_noise2noise_is_judged_by_the_mean_of_the_others() -> None:
    """By hand, for three realisations of one pixel and a network that halves."""
    y = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)
    judged = Noise2Noise(3).judge(lambda x: x / 2, y.reshape(1, 3, 1, 1, 1), torch.ones(1, 1, 1, 1))
    others, halves = torch.tensor([4.0, 3.5, 1.5]), y / 2
    variance = float((others - y).square().mean()) / 1.5
    assert variance == pytest.approx(float(y.var()))
    expected = (halves - others).square().mean() - variance / 2 - (halves - halves.mean()).square().mean()
    assert judged.error == pytest.approx(float(expected))
    assert judged.noise == pytest.approx(float(y.var()) / 3)


def test_noise2clean_is_judged_exactly() -> None:
    samples = torch.tensor([1.0, 2.0, 6.0, 2.5]).reshape(1, 4, 1, 1, 1)
    judged = Noise2Clean(3).judge(lambda x: x / 2, samples, torch.ones(1, 1, 1, 1))
    assert judged.error == pytest.approx((1.5 - 2.5) ** 2)
    assert judged.noise == pytest.approx((3 - 2.5) ** 2)
    weight = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)
    elsewhere = torch.cat((samples, torch.full_like(samples, 1e3)), dim=-1)
    assert Noise2Clean(3).judge(lambda x: x / 2, elsewhere, weight).error == pytest.approx(1)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Noise2Noise(1), "realisations must be at least 2"),
        (lambda: Noise2Clean(0), "realisations must be at least 1"),
        (lambda: Noise2Noise(2, slices=2), "slices must be odd"),
        (lambda: Noise2Clean(1, slices=0), "slices must be odd"),
    ],
)
def test_impossible_settings_are_refused(make: Any, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        make()
