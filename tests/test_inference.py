"""From a trained network to a volume: tiles, scale, plan, slabs, ledger, evidence."""

import dataclasses
import functools
import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from matrix import beam
from quietray.assessment.evidence import Evidence, warnings_of
from quietray.checkpoint import save_tensors, write_json
from quietray.detector.correction.correct import Correction, RowCounts, calibrate
from quietray.errors import FormatError, ResourceError, SettingsError
from quietray.geometry import field_of_view
from quietray.inference.denoiser import Denoiser, Scale
from quietray.inference.tiling import tiled
from quietray.networks.unet import UNet
from quietray.preparation.sources import PartReconstruction
from quietray.reconstruct.analytic import FBP
from quietray.running.ledger import Ledger, SlabRecord
from quietray.running.plan import Plan, available_memory, plan_run
from quietray.running.planes import Planes
from quietray.scan import Scan
from quietray.simulate.acquire import acquire
from quietray.simulate.phantom import Foam
from quietray.splits.inverse import Noise2Inverse
from quietray.training.batches import TrainingVolume

MIB = 2**20


def denoiser(seed: int = 0, **change: Any) -> Denoiser:
    torch.manual_seed(seed)
    given: dict[str, Any] = {
        "architecture": UNet((3, 4)),
        "split": Noise2Inverse(3, slices=3),
        "scale": Scale(0.1, 0.4),
    }
    given |= change
    network = given["architecture"].build(given["split"].n_slices).eval()
    with torch.no_grad():
        network.head.weight.mul_(10)
    return Denoiser(network=network, **given)


def parts(n_z: int = 11, size: int = 24, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((3, n_z, size, size), dtype=np.float32)


# --- the denoiser ---------------------------------------------------------------------------------------------------


def test_a_slice_is_the_split_applied_to_the_scaled_neighbours() -> None:
    one, given = denoiser(), parts()
    before = given.copy()
    window = torch.from_numpy((given[:, 3:6] - 0.1) / np.float32(0.3))[None]
    with torch.no_grad():
        wanted = one.split.infer(one.network, window)[0, 0].numpy() * 0.3 + 0.1
    assert np.allclose(one.slice(given, 4), wanted, atol=1e-5)
    assert np.array_equal(given, before), "the reconstructions stay as they were"
    assert one.slice(given, 4).dtype == np.float32


@pytest.mark.parametrize("n_slices", [1, 3, 5])
@pytest.mark.parametrize("height", [1, 2, 3, 7, 11])
def test_a_slice_is_the_same_whatever_slab_it_is_in(height: int, n_slices: int) -> None:
    """Cut with the halo that `reach` asks for, as the slabs are, every slice is the same to the bit."""
    one, given = denoiser(split=Noise2Inverse(3, slices=n_slices)), parts()
    whole = [one.slice(given, z) for z in range(11)]
    assert one.reach == n_slices // 2
    for first in range(0, 11, height):
        last = min(first + height, 11)
        low, high = max(0, first - one.reach), min(11, last + one.reach)
        for z in range(first, last):
            assert np.array_equal(one.slice(given[:, low:high], z - low), whole[z])


@pytest.mark.parametrize("symmetries", [1, 2, 4, 8])
def test_averaging_over_symmetries_makes_the_result_symmetric(symmetries: int) -> None:
    x = torch.randn(1, 3, 12, 20, generator=torch.Generator().manual_seed(0))
    one = denoiser(symmetries=symmetries)
    y = one.evaluate(x)
    half = torch.allclose(one.evaluate(x.rot90(2, (-2, -1))), y.rot90(2, (-2, -1)), atol=1e-5)
    quarter = torch.allclose(one.evaluate(x.rot90(1, (-2, -1))), y.rot90(1, (-2, -1)), atol=1e-5)
    mirror = torch.allclose(one.evaluate(x.flip(-1)), y.flip(-1), atol=1e-5)
    assert (half, quarter, mirror) == (symmetries >= 2, symmetries >= 4, symmetries == 8)
    assert torch.allclose(one.evaluate(x), y)


@pytest.mark.parametrize("symmetries", [0, 3, 16])
def test_other_symmetries_are_refused(symmetries: int) -> None:
    one = denoiser()
    object.__setattr__(one, "symmetries", symmetries)  # past the type check that the tests switch on
    with pytest.raises(SettingsError, match=f"symmetries must be 1, 2, 4 or 8, got {symmetries}"):
        one.__post_init__()


@pytest.mark.parametrize("tile", [1, 2, 16, 1024])
def test_the_tile_does_not_change_the_result(tile: int) -> None:
    given = parts(3, 37)
    assert np.allclose(denoiser(tile=tile).slice(given, 1), denoiser(tile=64).slice(given, 1), atol=1e-5)


def test_a_model_comes_back_from_its_folder(tmp_path: Path) -> None:
    one = denoiser(
        symmetries=4,
        tile=16,
        split=Noise2Inverse(3, "1:X", 5),
        architecture=UNet((2, 5, 3)),
        facts={"source": "a.h5", "steps": 5, "noise_sd": 0.125},
    )
    one.save(tmp_path / "deep" / "model")
    again = Denoiser.load(tmp_path / "deep" / "model")
    for name in ("architecture", "split", "scale", "symmetries", "arithmetic", "tile", "facts"):
        assert getattr(again, name) == getattr(one, name)
    given = parts()
    for z in (0, 5, 10):
        assert np.array_equal(again.slice(given, z), one.slice(given, z))
    assert sorted(path.name for path in (tmp_path / "deep" / "model").iterdir()) == [
        "model.json",
        "weights.safetensors",
    ]


def edited(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        import json

        record = json.loads((folder / "model.json").read_text())
        change(record)
        write_json(folder / "model.json", record)

    return edit


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.json").unlink(),
        lambda folder: (folder / "model.json").write_text("{"),
        lambda folder: (folder / "model.json").write_bytes(b"\xff\xfe"),
        lambda folder: (folder / "model.json").write_text("[]"),
        lambda folder: (folder / "weights.safetensors").unlink(),
        lambda folder: (folder / "weights.safetensors").write_bytes(b"x" * 100),
        lambda folder: save_tensors(folder / "weights.safetensors", {"other": torch.zeros(3)}, {}),
        edited(lambda record: record.pop("scale")),
        edited(lambda record: record["scale"].pop("low")),
        edited(lambda record: record["network"].update(widths=[9, 9])),
    ],
)
def test_a_damaged_model_is_a_format_error(damage: Callable[[Path], Any], tmp_path: Path) -> None:
    denoiser().save(tmp_path)
    damage(tmp_path)
    with pytest.raises(FormatError, match=r"must hold a model|must be a safetensors file"):
        Denoiser.load(tmp_path)


# --- scale and field of view ----------------------------------------------------------------------------------------


def test_the_scale_is_the_percentiles_inside_the_field_of_view() -> None:
    rng = np.random.default_rng(0)
    weight = np.zeros((20, 20), np.float32)
    weight[5:15, 5:15] = 1
    volume = rng.normal(50, 10, (4, 20, 20)).astype(np.float32)
    volume[:, 5:15, 5:15] = rng.permutation(np.arange(400)).reshape(4, 10, 10)
    scale = Scale.of(volume, weight)
    assert (scale.low, scale.high) == pytest.approx((0.02 * 399, 0.98 * 399))
    inside = scale.apply(volume.copy())[:, 5:15, 5:15]
    assert ((inside >= 0) & (inside <= 1)).mean() == pytest.approx(0.96, abs=0.006)


@given(st.floats(-100, 100), st.floats(0.01, 100))
def test_scaling_is_undone(low: float, span: float) -> None:
    scale = Scale(low, low + span)
    x = np.linspace(low - span, low + 2 * span, 50, dtype=np.float32)
    scaled = scale.apply(x.copy())
    assert np.allclose(scaled, np.linspace(-1, 2, 50), atol=1e-5 * (1 + abs(low) / span))
    assert np.allclose(scale.undo(scaled), x, atol=1e-5 * (abs(low) + span))


def test_a_constant_volume_has_a_scale() -> None:
    scale = Scale.of(np.full((2, 3, 3), 4.0, np.float32), np.ones((3, 3), np.float32))
    assert scale.apply(np.array([4.0, 5.0], np.float32)).tolist() == [0.0, 1.0]


@given(st.integers(1, 30), st.integers(1, 30), st.floats(0, 25), st.floats(-20, 20), st.floats(-20, 20))
def test_the_field_of_view_is_a_disc_around_the_axis(n_y: int, n_x: int, radius: float, y: float, x: float) -> None:
    seen = field_of_view(n_y, n_x, radius, (y, x))
    for row, col in ((0, 0), (n_y - 1, n_x - 1), (n_y // 2, 0), (n_y // 3, n_x // 2)):
        distance = math.hypot(y + (n_y - 1) / 2 - row, x + col - (n_x - 1) / 2)
        if abs(distance - radius) > 1e-9:
            assert seen[row, col] == (distance < radius)


# --- the plan -------------------------------------------------------------------------------------------------------


def scan_like(n_views: int, n_rows: int, n_cols: int, kind: str = "uint16") -> Scan:
    """A scan that takes no memory."""
    frames = np.broadcast_to(np.zeros(1, kind), (n_views, n_rows, n_cols))
    return Scan(frames, beam(n_views, n_rows, n_cols))


plans = st.fixed_dictionaries(
    {
        "n_views": st.integers(2, 3000),
        "n_rows": st.integers(1, 2000),
        "n_cols": st.integers(1, 3000),
        "kind": st.sampled_from(["uint8", "uint16", "float32"]),
        "parts": st.integers(1, 6),
        "n_slices": st.sampled_from([1, 3, 5, 9]),
        "memory": st.integers(100, 40_000),
        "base": st.integers(0, 500),
        "cut": st.tuples(st.floats(0, 1), st.floats(0, 1)),
    }
)


@given(plans)
def test_a_plan_keeps_within_memory_and_covers_every_row_once(case: dict[str, Any]) -> None:
    scan = scan_like(case["n_views"], case["n_rows"], case["n_cols"], case["kind"])
    start, stop = sorted(int(share * case["n_rows"]) for share in case["cut"])
    assume(start < stop)
    rows = range(start, stop)
    memory = case["memory"] * MIB
    given = {"parts": case["parts"], "n_slices": case["n_slices"], "memory": memory, "base": case["base"] * MIB}
    try:
        plan = plan_run(scan, rows, scan.geometry.grid(), **given)
    except ResourceError as error:
        needed, limit = (float(text) for text in re.findall(r"([\d.]+) GiB", str(error)))
        assert needed >= limit == pytest.approx(memory / 2**30, abs=0.006)
        return
    assert plan.peak <= plan.memory == memory
    covered = [row for first, last in plan.slabs for row in range(first, last)]
    assert covered == list(rows), "the slabs hold every row once, in order"
    assert all(first < last for first, last in plan.slabs)
    trained = [row for first, last in plan.windows for row in range(first, last)]
    assert len(trained) == len(set(trained)), "a row in two windows would be held out in one and a target in the other"
    assert set(trained) <= set(rows)
    shortest = min(last - first for first, last in plan.windows)
    assert shortest >= min(case["n_slices"], len(rows)), "every window has a slice with all its neighbours"
    assert plan.in_one_piece == (plan.slabs == ((start, stop),) == plan.windows)
    assert plan.tile in (256, 512, 1024)


@given(st.integers(20, 300), st.floats(0.05, 1.0), st.sampled_from([1, 3, 9]), st.integers(0, 50))
def test_windows_of_a_scan_that_does_not_fit_share_no_row(n_rows: int, fits: float, n_slices: int, start: int) -> None:
    """A row in two windows would be held out in one and a target in the other."""
    scan = scan_like(500, start + n_rows, 500)
    plan = functools.partial(plan_run, scan, grid=scan.geometry.grid(), parts=4, n_slices=n_slices)
    rows = range(start, start + n_rows)
    peak = plan(rows, memory=2**40).peak
    one_row = peak - plan(rows[:-1], memory=2**40).peak
    found = plan(rows, memory=peak - int((1 - fits) * (n_rows - n_slices) * one_row))
    trained = [row for first, last in found.windows for row in range(first, last)]
    assert trained == sorted(set(trained)), f"windows overlap: {found.windows}"
    assert set(trained) <= set(rows)
    before, after = trained[0] - start, start + n_rows - 1 - trained[-1]
    assert abs(before - after) <= 2, "spread evenly"


@given(plans)
def test_more_memory_never_means_more_slabs(case: dict[str, Any]) -> None:
    scan = scan_like(case["n_views"], case["n_rows"], case["n_cols"], case["kind"])
    given = {"parts": case["parts"], "n_slices": case["n_slices"]}
    counts = []
    for memory in (case["memory"] * MIB, 4 * case["memory"] * MIB, 2**50):
        try:
            plan = plan_run(scan, range(case["n_rows"]), scan.geometry.grid(), memory=memory, **given)
        except ResourceError:
            continue
        counts.append(len(plan.slabs))
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 1


def test_too_little_memory_is_told_with_numbers_and_advice() -> None:
    scan = scan_like(900, 120, 1024)
    with pytest.raises(ResourceError) as error:
        plan_run(scan, range(120), scan.geometry.grid(), parts=4, n_slices=9, memory=512 * MIB)
    assert re.fullmatch(
        r"the smallest slab \(9 rows\) must fit into memory and needs [\d.]+ GiB, got a limit of 0\.50 GiB; "
        r"give a larger max_memory=, reconstruct a smaller region=, or use fewer slices",
        str(error.value),
    )
    needed = float(re.findall(r"needs ([\d.]+) GiB", str(error.value))[0])
    enough = plan_run(scan, range(120), scan.geometry.grid(), parts=4, n_slices=9, memory=int((needed + 0.01) * 2**30))
    assert max(last - first for first, last in enough.slabs) == 1


def test_a_region_needs_less() -> None:
    scan = scan_like(900, 120, 1024)
    peaks = [
        plan_run(scan, range(120), scan.geometry.grid(region), parts=4, n_slices=9, memory=2**40).peak
        for region in (None, (0, 512, 0, 512), (0, 8, 0, 8))
    ]
    assert peaks[0] > peaks[1] > peaks[2]


def test_the_default_limit_is_a_share_of_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quietray.running.plan.available_memory", lambda: 10 * 2**30)
    scan = scan_like(10, 4, 16)
    assert plan_run(scan, range(4), scan.geometry.grid(), parts=2, n_slices=1).memory == 6 * 2**30
    assert 2**20 < available_memory() < 2**50


def test_a_plan_in_words() -> None:
    plan = Plan(4 * 2**30, 3 * 2**30, ((0, 10), (10, 19)), ((0, 6), (9, 15)), 512)
    assert plan.describe() == "2 slabs of up to 10 rows, trained on 12 rows, tiles of 512 pixels, about 3.0 of 4.0 GiB"
    assert not plan.in_one_piece
    whole = Plan(2**30, 2**29, ((0, 5),), ((0, 5),), 1024)
    assert whole.describe() == "1 slab of up to 5 rows, trained on 5 rows, tiles of 1024 pixels, about 0.5 of 1.0 GiB"
    assert whole.in_one_piece


# --- slabs ----------------------------------------------------------------------------------------------------------


@functools.cache
def foam_scan(n_rows: int = 11) -> Scan:
    foam = Foam.packed(8, 0.2, np.random.default_rng(0))
    return acquire(foam, beam(18, n_rows, 24, rotation_axis=11.2), photons=300.0, n_flats=5, n_darks=3)


@functools.cache
def source(n_parts: int = 3, region: tuple[int, int, int, int] | None = None) -> PartReconstruction:
    scan = foam_scan()
    return PartReconstruction(scan, calibrate(scan, Correction()), FBP(), scan.geometry.grid(region), n_parts)


@pytest.mark.parametrize("height", [1, 2, 3, 4, 5, 7])
def test_the_cut_into_slabs_never_shows(height: int) -> None:
    whole, counts = source()(slice(0, 11))
    total = RowCounts()
    for first in range(0, 11, height):
        last = min(first + height, 11)
        slab, some = source()(slice(first, last))
        total += some
        assert np.array_equal(slab, whole[:, first:last])
    assert total == counts


def test_parts_are_the_dealt_views_and_average_to_the_whole() -> None:
    whole, _ = source(1)(slice(0, 4))
    parted, _ = source(3)(slice(0, 4))
    off = np.linalg.norm(parted.mean(axis=0) - whole[0]) / np.linalg.norm(whole)
    assert off < 1e-5
    scan = foam_scan()
    every_third = dataclasses.replace(source(1), scan=scan[1::3], calibration=calibrate(scan[1::3], Correction()))
    alone, _ = every_third(slice(0, 4))
    correlated = np.corrcoef(alone[0].ravel(), parted[1].ravel())[0, 1]
    others = np.corrcoef(alone[0].ravel(), parted[0].ravel())[0, 1]
    assert correlated > 0.95 > others


def test_a_source_is_pickled_without_what_it_has_prepared() -> None:
    one = source(3)
    before, (parts, _) = len(pickle.dumps(one)), one(slice(1, 6))
    again = pickle.loads(pickle.dumps(one))
    assert len(pickle.dumps(one)) < before + 5000
    assert np.array_equal(again(slice(1, 6))[0], parts)
    assert np.array_equal(again(slice(4, 5))[0], parts[:, 3:4])


def test_a_region_of_the_parts_is_their_crop() -> None:
    whole, _ = source()(slice(2, 4))
    part, _ = source(region=(3, 15, 8, 23))(slice(2, 4))
    assert np.abs(part - whole[..., 3:15, 8:23]).max() < 5e-4 * np.abs(whole).max()


def test_into_fills_what_it_is_given_and_tells_every_row() -> None:
    out = np.full((3, 9, 24, 24), np.nan, np.float32)
    told: list[int] = []
    changed = source().into(out[:, 1:8], slice(2, 9), told.append)
    assert sum(told) == 7
    assert np.isnan(out[:, [0, 8]]).all()
    assert np.array_equal(out[:, 1:8], source()(slice(2, 9))[0])
    assert changed.total == 7 * 18 * 24


# --- the ledger -----------------------------------------------------------------------------------------------------


def record(first: int = 2, n: int = 4, middle: int = 3) -> tuple[SlabRecord, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(first)
    before, after = (rng.normal(0.5, 0.4, (n, 6, 8)).astype(np.float32) for _ in range(2))
    weight = field_of_view(6, 8, 3.0, (0.0, 0.0))
    edges = np.linspace(0, 1, 11)
    planes = Planes((10, 6, 8), middle - 5)
    return SlabRecord.of(first, planes, before, after, weight, edges, RowCounts(1, 2, 3, 400)), before, after


def test_a_record_measures_its_slab() -> None:
    one, before, after = record()
    inside = field_of_view(6, 8, 3.0, (0.0, 0.0)) > 0
    assert (one.first, one.last) == (2, 6)
    for cuts, volume in ((one.before, before), (one.after, after)):
        assert np.array_equal(cuts["axial"], volume[1])
        assert np.array_equal(cuts["coronal"], volume[:, 3])
        assert np.array_equal(cuts["sagittal"], volume[:, :, 4])
    for counts, total, volume in zip((one.counts_before, one.counts_after), one.sums, (before, after), strict=True):
        values = volume[:, inside].astype(np.float64)
        assert counts.sum() == values.size, "what lies beyond the ends is counted in the end bins"
        assert counts[0] == (values < 0.1).sum()
        assert counts[-1] == (values >= 0.9).sum()
        assert counts[1:-1].tolist() == np.histogram(values, np.linspace(0, 1, 11))[0][1:-1].tolist()
        assert total == pytest.approx(values.sum(), rel=1e-9)
    for middle in (1, 6):
        assert "axial" not in record(middle=middle)[0].before


def test_a_record_comes_back_from_the_ledger(tmp_path: Path) -> None:
    ledger, (one, _, _) = Ledger(tmp_path), record()
    assert not ledger.done(2, 6)
    ledger.record(one)
    assert ledger.done(2, 6)
    assert not ledger.done(2, 7), "a slab of another size is another slab"
    assert not ledger.done(6, 10)
    again = Ledger(tmp_path).load(2)
    for field in dataclasses.fields(SlabRecord):
        was, found = getattr(one, field.name), getattr(again, field.name)
        if isinstance(was, dict):
            assert was.keys() == found.keys()
            assert all(np.array_equal(was[name], found[name]) and found[name].dtype == np.float32 for name in was)
        else:
            assert np.array_equal(was, found) if isinstance(was, np.ndarray) else was == found


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-30],
        lambda content: b"not at all a record",
        lambda content: content[:200] + bytes(60) + content[260:],
        lambda content: content.replace(b"facts.npy", b"fcats.npy"),
    ],
)
def test_a_damaged_record_is_a_format_error(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.record(record()[0])
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    for read in (lambda: ledger.load(2), lambda: ledger.done(2, 6)):
        with pytest.raises(FormatError, match=r"slab-000002.npz must be a slab's record, got: .*; delete it, and"):
            read()


def test_a_missing_record_is_a_format_error(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"slab-000007\.npz must be a slab's record"):
        Ledger(tmp_path).load(7)


def test_decisions_are_kept(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.noted("plan") is None
    ledger.note("plan", {"slabs": [[0, 5]], "tile": 256})
    ledger.note("inference", {"symmetries": 4})
    assert Ledger(tmp_path).noted("plan") == {"slabs": [[0, 5]], "tile": 256}
    assert Ledger(tmp_path).noted("inference") == {"symmetries": 4}


# --- evidence -------------------------------------------------------------------------------------------------------


def test_evidence_is_in_attenuation_and_near_the_truth() -> None:
    """With nothing but noise to see, a denoiser that returns its input is judged as the noise that there is."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.02, (4, 16, 40, 40)).astype(np.float32)
    volume = 0.3 + noise
    scale = Scale(0.1, 0.5)
    data = TrainingVolume.with_held_out(
        scale.apply(volume.copy()), Noise2Inverse(4, slices=1), np.ones((40, 40), np.float32), share=0.5
    )
    one = denoiser(split=Noise2Inverse(4, slices=1), scale=scale, architecture=UNet((2,)))

    class Identity(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.weight * x

    found = Evidence.measure(dataclasses.replace(one, network=Identity()), data)
    assert found.noise == pytest.approx(0.02**2 / 4, rel=0.05)
    assert found.error == pytest.approx(found.noise, rel=1e-3)
    assert found.gain == pytest.approx(0, abs=0.01)
    assert found.correlation == pytest.approx(-1 / 3, abs=0.02), "the parts minus their own mean"


FIGURES: dict[str, Any] = {
    "estimate": {"psnr_gain_db": 9.5, "psnr_gain_db_at_least": 9.0, "residual_correlation": 0.0},
    "volume": {"relative_change_of_mean": 0.001},
    "correction": {"floored": 0.0},
    "training": {"steps": 5000},
    "method": {"parts": 4, "name": "noise2inverse", "domain": "volume", "parameters": 1000},
    "scan": {"views": 400, "columns": 200, "covered_degrees": 180.0},
    "log_bias": None,
}


@pytest.mark.parametrize(
    ("where", "change", "words"),
    [
        ("estimate", {"psnr_gain_db_at_least": 0.4}, "no clear gain"),
        ("estimate", {"psnr_gain_db_at_least": None}, "no clear gain"),
        ("estimate", {"residual_correlation": 0.2}, "not independent (residual correlation +0.20)"),
        ("estimate", {"residual_correlation": -0.1}, "100 views each for 200 columns"),
        ("volume", {"relative_change_of_mean": -0.05}, "changed the mean attenuation by -5.0%"),
        ("correction", {"floored": 0.002}, "0.20% of the samples"),
        ("training", {"steps": 5}, "trained for only 5 steps"),
        (
            "log_bias",
            {"mean": 0.05, "mean_line_integral": 1.0, "worst": 0.2},
            "by 0.05 on average (5.0%), at worst 0.2;",
        ),
    ],
)
def test_each_warning_has_its_cause(where: str, change: dict[str, Any], words: str) -> None:
    assert warnings_of(FIGURES) == ()
    (told,) = warnings_of(FIGURES | {where: (FIGURES[where] or {}) | change})
    assert words in told


def test_a_small_bias_of_the_logarithm_is_not_worth_a_warning() -> None:
    bias = {"mean": 0.005, "mean_line_integral": 1.0, "worst": 0.2}
    assert warnings_of(FIGURES | {"log_bias": bias}) == ()
    assert warnings_of(FIGURES | {"log_bias": bias | {"mean_line_integral": 0.0}}) == ()


def test_tiles_of_a_network_without_context_are_exact() -> None:
    x = torch.rand(2, 1, 45, 31, generator=torch.Generator().manual_seed(0))
    for tile in (1, 7, 30, 31, 45, 64):
        assert torch.equal(tiled(lambda part: part**2, x, tile, 0, 1), x**2)
