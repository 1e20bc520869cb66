"""The report: one file, offline, escaped, with pictures that say what the arrays say, working in a real browser."""

import base64
import dataclasses
import io
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from quietray.errors import GeometryError, ResourceError
from quietray.pictures import Window, detailed_region, grey, grey_window, shrink
from quietray.report import Cut, Histogram, ReportData, write_report
from quietray.report.page import LARGEST
from quietray.report.reel import film_of, fitting
from quietray.running.planes import Planes, Stack

HOSTILE = "<script>alert('x')</script>\"&{{ 7 * 7 }}"
VOID = {"meta", "img", "input", "br", "link", "hr"}


class Page(HTMLParser):
    """Everything a test wants to know about a page; it insists that elements are closed in the right order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(self.source)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.words.append((self._open[-1] if self._open else "", data.strip()))

    @property
    def text(self) -> str:
        return " ".join(word for tag, word in self.words if tag not in ("style", "script"))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def picture(self, alt: str) -> np.ndarray:
        """Decode the one image with this alternative text."""
        (found,) = (image["src"] for image in self.all("img") if image["alt"] == alt)
        assert found is not None
        kind, payload = found.split(",", 1)
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(payload, validate=True))) as image:
            assert image.mode == "L"
            return np.asarray(image)


def noisy_cut(rng: np.random.Generator, rows: int, cols: int, name: str = "axial, z = 3") -> Cut:
    clean = np.hypot(*np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, cols), indexing="ij")) < 0.6
    after = clean.astype(np.float32)
    return Cut(name, (after + rng.normal(0, 0.5, after.shape)).astype(np.float32), after)


def evidence(**changes: Any) -> dict[str, Any]:
    """Return a table of evidence as it stands in metrics.json."""
    frequency = np.linspace(0.02, 0.5, 25)
    curves = {"cycles_per_pixel": frequency.tolist(), "before": np.exp(-8 * frequency).tolist()}
    curves["after"] = np.exp(-4 * frequency).tolist()
    resolution = {f"{when}_{name}_{unit}": 4.0 for when in ("before", "after") for name in ("half_bit", "one_seventh")
                  for unit in ("px", "mm")}  # fmt: skip
    resolution |= {"before_half_bit_px": 7.8124, "before_half_bit_mm": 0.078124, "after_one_seventh_px": None}
    regions = [
        {"region": "darkest", "before": 0.00012, "after": 0.0001, "error": 0.0002, "share": 0.5},
        {"region": "brightest", "before": 1.0, "after": 0.9701, "error": 0.0021, "share": 0.25},
    ]
    usual: dict[str, Any] = {
        "halves": "every other angular subset",
        "held_out": True,
        "slices": 3,
        "pixels": [90, 92],
        "seconds": 1.0,
        "resolution": {**resolution, "curve": {**curves, "half_bit": [0.3] * 25}},
        "noise_power": {"before_sd": 0.3, "after_sd": 0.03, "power_in": "", "curve": curves},
        "regions": regions,
        "left_out": {},
    }
    return usual | changes


def full(rng: np.random.Generator) -> ReportData:
    edges = np.linspace(-2, 3, 51)
    return ReportData(
        title="tooth.h5",
        unit="1/mm",
        voxel_size=0.01,
        cuts=(
            noisy_cut(rng, 96, 120),
            noisy_cut(rng, 40, 120, "coronal, y = 48"),
            noisy_cut(rng, 40, 96, "sagittal, x = 60"),
        ),
        histogram=Histogram(edges, rng.integers(0, 1000, 50), rng.integers(0, 1000, 50)),
        history=tuple({"step": 10 * n, "seconds": 5.0 * n, "loss": 1 / (1 + n), "psnr": 20.0 + n} for n in range(9)),
        metrics={"method": "noise2inverse", "quality": {"psnr_db": 27.41312, "ssim": None, "psnr_ci_db": [27.2, 27.6]}},
        headline=(("Estimated PSNR gain", "+12.3 dB"),),
        warnings=("The noise is correlated.",),
        notes=("Rings stay.",),
        settings_toml='[split]\nname = "noise2inverse"\n',
        provenance={"input": {"path": "tooth.h5"}, "versions": {"python": "3.11"}},
        evidence=evidence(),
    )


@pytest.fixture
def written(tmp_path: Path) -> Callable[[ReportData], Page]:
    return lambda data: Page(write_report(tmp_path / "report.html", data))


def bare(**changes: Any) -> ReportData:
    return dataclasses.replace(ReportData(title="scan", unit="1/mm", voxel_size=None), **changes)


def test_everything_given_is_shown(rng: np.random.Generator, written: Callable[[ReportData], Page]) -> None:
    page = written(full(rng))
    for expected in (
        "tooth.h5", "+12.3 dB", "Estimated PSNR gain", "1 warning", "The noise is correlated.", "Rings stay.",
        "voxel 10 µm", "27.41 dB", "27.2 to 27.6 dB", "not known", 'name = "noise2inverse"', "coronal, y = 48",
        "1.2 mm by 960 µm", "attenuation (1/mm)", "best: step 80", "x (mm)", "Provenance",
    ):  # fmt: skip
        assert expected in page.text, expected
    assert "No warnings" not in page.text
    assert all(image["alt"] for image in page.all("img"))
    drawings = [tag for tag in page.all("svg") if tag.get("role") == "img"]
    assert len(drawings) == 5
    assert all(drawing["aria-label"] for drawing in drawings)
    assert all(slider["aria-label"] for slider in page.all("input"))
    names = Counter(attributes["id"] for _, attributes in page.tags if "id" in attributes)
    assert max(names.values()) == 1, "identifiers must be unique across the figures"


def test_resolution_noise_and_regions_stand_in_one_table(written: Callable[[ReportData], Page]) -> None:
    page = written(bare(evidence=evidence(), unit="1/mm"))
    for expected in (
        "Resolution and noise",
        "Resolution, half bit 7.81 px (78.1 µm) at best 4 px (4 mm)",
        "Resolution, 1/7 4 px (4 mm) not known",
        "Noise (sd) 0.3 1/mm 0.03 1/mm ÷ 10",
        "Mean, darkest region (50%) 0.00012 1/mm 0.00010 1/mm \u22120.00002 (±0.00020)",
        "Mean, brightest region (25%) 1.0000 1/mm 0.9701 1/mm \u22123 % (±0.2 %)",
        "A half is every other angular subset, in 3 slices of 92 \u00d7 90 pixels, never a training target",
        "what the network adds to both halves agrees, real or not",
    ):
        assert expected in page.text, expected
    assert ("span", "\u22123 % (±0.2 %)") in page.words, "the one that moved is marked"
    assert ("td", "\u22120.00002 (±0.00020)") in page.words, "the one that did not is not"
    labels = [tag["aria-label"] for tag in page.all("svg") if tag.get("role") == "img"]
    assert labels == [
        "Fourier ring correlation of two halves, before and after",
        "Power of the noise by frequency, before and after",
    ]
    assert "Not measured" not in page.text
    assert "let through" not in page.text


def test_evidence_that_is_missing_is_missed_in_words(written: Callable[[ReportData], Page]) -> None:
    through = {"before": 1.02, "before_error": 0.01, "after": 0.11, "after_error": 0.02, "frames": 20, "window_px": 7}
    left_out = {"resolution": "too small", "regions": "all alike"}
    bits = {"resolution": None, "noise_power": None, "regions": [], "left_out": left_out, "held_out": False}
    page = written(bare(evidence=evidence(**bits, dependency=through, sparse="Few views.")))
    assert not page.all("svg")
    assert "Noise let through by the neighbours 1 ± 0.01 0.11 ± 0.02" in page.text
    assert "Few views." in page.text
    assert "Not measured: Resolution and noise power: too small. Means of regions: all alike." in page.text
    assert "never a training target" not in page.text
    assert "Resolution and noise" not in written(bare()).text


def test_an_empty_report_says_what_it_does_not_know(written: Callable[[ReportData], Page]) -> None:
    page = written(bare())
    assert "No warnings." in page.text
    assert "voxel size not known" in page.text
    assert not page.all("img")
    assert not page.all("svg")


def test_training_without_estimates_is_not_called_evidence(written: Callable[[ReportData], Page]) -> None:
    page = written(bare(history=({"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "psnr": None})))
    assert "No estimate on held-out rows" in page.text
    assert "PSNR" not in page.text


def test_the_best_of_few_known_steps_is_not_called_the_best(written: Callable[[ReportData], Page]) -> None:
    steps = [{"step": n, "loss": 1 / n, "psnr": 30.0 if n == 2 else None} for n in range(1, 6)]
    page = written(bare(history=tuple(steps)))
    assert "was zero or below" in page.text
    assert "PSNR of each step" not in page.text
    steps[2]["psnr"] = steps[3]["psnr"] = 31.0
    assert "PSNR of each step relative to the best one" in written(bare(history=tuple(steps))).text


def test_every_string_is_escaped(rng: np.random.Generator, written: Callable[[ReportData], Page]) -> None:
    cut = noisy_cut(rng, 30, 30)
    data = ReportData(
        title=HOSTILE,
        unit=HOSTILE,
        voxel_size=None,
        cuts=(Cut(HOSTILE, cut.before, cut.after, (HOSTILE, HOSTILE)), cut),
        histogram=Histogram(np.arange(3.0), np.ones(2), np.ones(2)),
        metrics={HOSTILE: {HOSTILE: HOSTILE}},
        headline=((HOSTILE, HOSTILE),),
        warnings=(HOSTILE,),
        notes=(HOSTILE,),
        settings_toml=HOSTILE,
        provenance={HOSTILE: [{"name": HOSTILE, "value": HOSTILE}]},
    )
    page = written(data)
    assert len(page.all("script")) == 1
    assert "alert" not in " ".join(word for tag, word in page.words if tag == "script")
    assert ("h1", HOSTILE) in page.words
    assert page.picture(f"{HOSTILE}, after denoising").shape == (30, 30)
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_a_file_name_that_is_no_text_is_written(written: Callable[[ReportData], Page]) -> None:
    assert "scan\\udcff.h5" in written(bare(title="scan\udcff.h5")).text


def test_nothing_is_fetched(rng: np.random.Generator, written: Callable[[ReportData], Page]) -> None:
    page = written(full(rng))
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            target = attributes.get(name) or ""
            assert target.startswith(("data:", "#")) or not target, f"<{tag} {name}={target[:60]}>"
    assert not page.all("link")
    assert not re.search(r"@import|url\((?!['\"]?(?:data:|#))", page.source)
    (policy,) = (tag["content"] for tag in page.all("meta") if tag.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_pictures_show_both_sides_through_one_window(
    rng: np.random.Generator, written: Callable[[ReportData], Page]
) -> None:
    data = full(rng)
    page = written(data)
    values = np.concatenate([cut.after.ravel() for cut in data.cuts]).astype(np.float64)
    low, high = np.percentile(values, (0.5, 99.5))
    low, high = low - 0.04 * (high - low), high + 0.04 * (high - low)
    for cut in data.cuts:
        for side in ("before", "after"):
            image = getattr(cut, side).astype(np.float64)
            expected = np.clip(np.rint(255 * (image - low) / (high - low)), 0, 255)
            np.testing.assert_array_equal(page.picture(f"{cut.name}, {side} denoising"), expected)
    assert f"Black to white: \u2212{-low:.2f} to {high:.2f} 1/mm" in page.text


def test_the_enlarged_region_is_cut_from_both_sides(
    rng: np.random.Generator, written: Callable[[ReportData], Page]
) -> None:
    after = np.zeros((200, 300), np.float32)
    after[130:150:2, 210:240] = 1  # the only detail
    before = after + rng.normal(0, 0.2, after.shape).astype(np.float32)
    page = written(bare(cuts=(Cut("c", before, after),)))
    window = grey_window([after])
    region = detailed_region(after, window)
    assert region.top <= 130
    assert region.top + region.height >= 150
    assert region.left <= 210
    assert region.left + region.width >= 240
    inside = np.s_[region.top : region.top + region.height, region.left : region.left + region.width]
    for side, image in (("before", before), ("after", after)):
        shown = page.picture(f"c, enlarged region, {side} denoising")
        np.testing.assert_array_equal(shown, grey(image[inside], window))
    difference = page.picture("c, enlarged region, before minus after")
    assert difference.shape == (region.height, region.width)
    assert difference.mean() == pytest.approx(127.5, abs=4)


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (2, 640), (640, 2), (3, 3), (17, 5), (300, 31)])
def test_any_size_keeps_its_pixels(
    shape: tuple[int, int], rng: np.random.Generator, written: Callable[[ReportData], Page]
) -> None:
    page = written(bare(cuts=(noisy_cut(rng, *shape),), voxel_size=0.02))
    assert page.picture("axial, z = 3, before denoising").shape == shape
    assert page.picture("axial, z = 3, after denoising").shape == shape
    assert f"--w:{shape[1]};--h:{shape[0]}" in page.source


@pytest.mark.parametrize("value", [0.0, 0.25, -3e-7, 1e6, np.nan, np.inf])
def test_flat_and_empty_images_are_shown_flat(value: float, written: Callable[[ReportData], Page]) -> None:
    image = np.full((20, 30), value, np.float32)
    edges = np.linspace(0, 1, 4)
    page = written(bare(cuts=(Cut("flat", image, image),), histogram=Histogram(edges, np.zeros(3), np.zeros(3))))
    shades = np.unique(page.picture("flat, after denoising"))
    assert shades.tolist() == ([128] if np.isfinite(value) else [0])
    assert ("Pixels without a value are black: 600" in page.text) == (not np.isfinite(value))


def test_missing_pixels_are_black_and_leave_the_window_alone(rng: np.random.Generator) -> None:
    image = rng.uniform(1, 2, (50, 50))
    holed = image.copy()
    holed[:10] = [np.nan, np.inf, -np.inf, np.nan, np.nan] * 10
    window = grey_window([holed])
    assert window == grey_window([image[10:]])
    assert (grey(holed, window)[:10] == 0).all()
    assert (grey(holed, window)[10:] == grey(image, window)[10:]).all()


def test_large_images_are_averaged_and_say_so(rng: np.random.Generator, written: Callable[[ReportData], Page]) -> None:
    image = rng.normal(0, 1, (900, 2600)).astype(np.float32)
    image[0, 0] = np.nan
    page = written(bare(cuts=(Cut("wide", image, image),)))
    blocks = np.pad(image, ((0, 0), (0, 1)), constant_values=np.nan).reshape(300, 3, 867, 3)
    expected = grey(np.nanmean(blocks.astype(np.float64), axis=(1, 3)), grey_window([image]))
    shown = page.picture("wide, after denoising")
    assert shown.shape == (300, 867)
    np.testing.assert_allclose(shown.astype(int), expected, atol=1)
    assert "one pixel is the mean of 3 \u00d7 3" in page.text


def test_averaging_leaves_out_what_is_missing() -> None:
    holed = np.array([[np.nan, np.nan, 1.0], [np.nan, np.nan, 3.0], [4.0, np.inf, 5.0]])
    np.testing.assert_array_equal(shrink(holed, 2), [[np.nan, 2.0], [4.0, 5.0]])


def test_the_file_stays_small(rng: np.random.Generator, tmp_path: Path) -> None:
    """Whatever there is to see of it; noise is what no PNG can shrink."""
    image = rng.uniform(0, 1, (1280, 1280)).astype(np.float32)
    planes = rng.uniform(0, 1, (40, 200, 200)).astype(np.float32)
    stack, labels = Stack(tuple(range(40)), planes, planes, 6), tuple(map(str, range(40)))
    data = bare(
        cuts=tuple(Cut(f"cut {n}", image, image, stack=stack, labels=labels) for n in range(3)),
        trust=image,
        metrics={"trust": {"sd_median": 0.1}},
        steps={f"step {n}": (planes[n], planes[n]) for n in range(12)},
    )
    path = write_report(tmp_path / "r.html", data)
    assert LARGEST / 2 < path.stat().st_size < 5_000_000
    page = Page(path)
    counts = [int(found) for found in re.findall(r"To go through: (\d+) slices", page.text)]
    assert len(counts) == 3
    assert min(counts) >= 2
    assert "one pixel the mean of 6 \u00d7 6" in page.text


def test_what_does_not_fit_is_left_out_evenly(rng: np.random.Generator) -> None:
    images = rng.uniform(0, 1, (9, 50, 50)).astype(np.float32)
    film = film_of([str(n) for n in range(9)], {"before": images}, Window(0.0, 1.0), 1)
    (some,) = fitting([film], film.weight // 2)
    assert some.weight <= film.weight // 2
    assert "4" in some.places
    assert fitting([film], 10) == ()
    shade = grey(images[4], film.range)
    with Image.open(io.BytesIO(base64.b64decode(film.pictures["before"][4].split(",")[1]))) as picture:
        np.testing.assert_array_equal(np.asarray(picture), shade)


@pytest.mark.parametrize(
    ("kind", "style"), [("Use it", "use"), ("Do not use it", "refuse"), ("Look at this first", "look")]
)
def test_the_verdict_is_what_is_read_first(kind: str, style: str, written: Callable[[ReportData], Page]) -> None:
    data = bare(verdict={"kind": kind, "reason": "the gain is +9 dB."}, headline=(("Gain", "9 dB"),), warnings=("w",))
    page = written(data)
    text = page.text.split("voxel size not known")[1].strip()
    assert text.startswith(f"{kind}: the gain is +9 dB.")
    assert f'class="verdict {style}"' in page.source


def test_steps_stand_side_by_side(rng: np.random.Generator, written: Callable[[ReportData], Page]) -> None:
    pairs = {f"step {n}": tuple(rng.uniform(0, 1, (2, 12, 10)).astype(np.float32)) for n in (0, 3)}
    page = written(bare(steps=pairs, window=(0.0, 1.0)))
    for name, (before, after) in pairs.items():
        for side, image in (("before", before), ("after", after)):
            expected = grey(image, Window(0.0, 1.0))
            np.testing.assert_array_equal(page.picture(f"{name}, {side} denoising"), expected)


def test_channels_have_greys_of_their_own(rng: np.random.Generator, written: Callable[[ReportData], Page]) -> None:
    dim, bright = (rng.uniform(0, 1, (12, 10)).astype(np.float32) * scale for scale in (1, 100))
    page = written(bare(steps={"channel 0": (dim, dim), "channel 1": (bright, bright)}, window=(0.0, 1.0)))
    for name, image in (("channel 0", dim), ("channel 1", bright)):
        expected = grey(image, grey_window([image]))
        np.testing.assert_array_equal(page.picture(f"{name}, after denoising"), expected)
    assert "Every channel has its own grey window" in page.text


def test_what_a_paper_needs_is_in_the_page(written: Callable[[ReportData], Page]) -> None:
    page = written(bare(methods_text="375 views were <corrected>.", references=("A & B (2020), doi:10.1/2",)))
    assert "For a methods section 375 views were <corrected>. A & B (2020), doi:10.1/2" in page.text


def test_planes_of_a_large_volume_are_few_and_small() -> None:
    planes = Planes((2048, 2048, 2048))
    assert sum(map(len, planes.places.values())) < 100
    assert 2048 / planes.factor < 300


def test_the_profile_is_the_middle_row_of_the_first_cut(written: Callable[[ReportData], Page]) -> None:
    before, after = np.zeros((5, 4), np.float32), np.zeros((5, 4), np.float32)
    after[2] = [0, 1, 0, 1]  # up, down, up: the drawn line must be the same zigzag
    page = written(bare(cuts=(Cut("axial", before, after),)))
    (drawing,) = re.findall(r"<svg role=.*?</svg>", page.source, re.DOTALL)
    (line,) = (path for path in re.findall(r"<path d=\"([^\"]+)\"[^>]*stroke: var\(--after\)", drawing)
               if path.count("L") == 3)  # fmt: skip
    heights = [float(point.split()[1]) for point in re.split("[ML]", line)[1:]]
    assert heights[0] == heights[2] > heights[1] == heights[3]
    assert "row 2 of the cut" in page.text


def test_numbers_are_plain_words(written: Callable[[ReportData], Page]) -> None:
    metrics = {
        "peak_memory_bytes": 3 * 2**30, "fit_seconds": 672.3, "n_views": 375, "gain": 0.000012345, "masked": True,
        "loss": float("nan"), "empty": {}, "ranking": [{"name": "TV", "psnr_db": 24.0132}], "angles": list(range(50)),
        "deep": {"er": {"yet_px": 1.5}},
    }  # fmt: skip
    text = written(bare(metrics=metrics)).text
    for expected in (
        "Peak memory 3.22 GB", "Fit 11 min 12 s", "Number of views 375", "Gain 1.234e\u22125", "Masked yes",
        "Loss not known", "Ranking TV: PSNR 24.01 dB", "50 values from 0 to 49", "Er: yet 1.5 px",
    ):  # fmt: skip
        assert expected in text, expected


def test_the_same_data_gives_the_same_file(rng: np.random.Generator, tmp_path: Path) -> None:
    data = full(rng)
    first, second = (write_report(tmp_path / name, data).read_bytes() for name in ("a.html", "b.html"))
    assert first == second


def test_writing_replaces_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    assert write_report(path, bare()) == path
    assert "old" not in path.read_text(encoding="utf-8")[:10]
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["ordinary", "report.html"]


def test_a_failed_write_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_report(tmp_path / "report.html", bare())
    before = path.read_bytes()

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(ResourceError, match="No space left"):
        write_report(path, bare(title="other"))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_a_missing_folder_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"No such file.*another folder"):
        write_report(tmp_path / "absent" / "report.html", bare())


def test_images_that_do_not_match_are_refused() -> None:
    image = np.zeros((3, 4), np.float32)
    with pytest.raises(GeometryError, match="one shape"):
        Cut("c", image, np.zeros((4, 3), np.float32))
    with pytest.raises(GeometryError, match="not empty"):
        Cut("c", image[:0], image[:0])
    with pytest.raises(GeometryError, match="one edge more"):
        Histogram(np.arange(3.0), np.ones(3), np.ones(3))


def test_a_flat_window_has_two_ends() -> None:
    for value in (0.0, 5.0, -1e-20):
        window = grey_window([np.full((2, 2), value)])
        assert window.low < value < window.high
    assert grey_window([]) == Window(0.0, 1.0)


# The browser.

SWITCHES = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as tool:
        running = tool.chromium.launch(executable_path=chromium, args=SWITCHES)
        yield running
        running.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Open a report; at the end, complain about what the page complained about or tried to fetch."""
    complaints: list[str] = []
    requests: list[str] = []
    pages: list[Any] = []

    def show(data: ReportData, **options: Any) -> Any:
        page = browser.new_page(viewport={"width": 1280, "height": 900}, **options)
        pages.append(page)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(write_report(tmp_path / "report.html", data).as_uri())
        return page

    yield show
    for page in pages:
        page.close()
    assert not complaints
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []


def black_and_white() -> ReportData:
    """Return a report whose image is white before and nearly black after."""
    after = np.linspace(0, 1, 200 * 200, dtype=np.float32).reshape(200, 200) * 0.2
    after[0] = 1  # keeps the window open
    return bare(cuts=(Cut("axial", np.ones_like(after), after), Cut("coronal", after, after)))


def staircase(count: int = 5, size: int = 40) -> ReportData:
    """Return a report of slices each of its own grey: before is 0.1 more than after, which is a tenth of the place."""
    after = np.repeat(np.arange(count, dtype=np.float32) / 10, size * size).reshape(count, size, size)
    after[:, 0, 0], after[:, 0, 1] = 0, 1  # the same window in all
    stack = Stack(tuple(range(0, 10 * count, 10)), after + np.float32(0.1), after)
    labels = tuple(f"z = {place}" for place in stack.places)
    middle = count // 2
    return bare(
        cuts=(Cut("axial", stack.before[middle], after[middle], stack=stack, labels=labels),), window=(0.0, 1.0)
    )


def painted(page: Any, name: str = "after") -> float:
    """Return the grey value in the middle of what is painted, from 0 to 1."""
    page.wait_for_timeout(150)
    return float(page.evaluate(
        """name => {
          const layer = document.querySelector(`[data-picture="${name}"]`);
          const canvas = layer.querySelector("canvas");
          if (!layer.classList.contains("painted")) return -1;
          return canvas.getContext("2d").getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data[0] / 255;
        }""", name))  # fmt: skip


def test_the_slices_can_be_gone_through(opened: Callable[..., Any]) -> None:
    page = opened(staircase())
    slider, told = page.locator(".slides input"), page.locator(".slides output")
    assert (told.text_content(), painted(page)) == ("z = 20", -1), "the middle one is in the page as it is"
    slider.focus()
    for key, place, value in (("ArrowRight", 30, 0.3), ("End", 40, 0.4), ("Home", 0, 0.0), ("ArrowRight", 10, 0.1)):
        page.keyboard.press(key)
        assert told.text_content() == f"z = {place}"
        assert painted(page) == pytest.approx(value, abs=0.01)
        assert painted(page, "before") == pytest.approx(value + 0.1, abs=0.01)
    assert slider.get_attribute("aria-valuetext") == "z = 10, 2 of 5"
    box = slider.bounding_box()
    page.mouse.click(box["x"] + box["width"] - 2, box["y"] + box["height"] / 2)
    assert told.text_content() == "z = 40"
    page.locator(".well").focus()
    page.keyboard.press("PageUp")
    assert told.text_content() == "z = 30"


def test_window_and_level_change_the_greys(opened: Callable[..., Any]) -> None:
    page = opened(staircase())
    level, width, told = page.locator("[data-level]"), page.locator("[data-width]"), page.locator(".range")
    assert told.text_content() == "0.00 to 1.00 1/mm"
    width.fill("250")  # of a span of 2, which is twice the window
    assert told.text_content() == "0.250 to 0.750 1/mm"
    assert painted(page) == pytest.approx(0, abs=0.01)
    level.fill("350")  # the value 0.2, as that of the slice
    assert painted(page) == pytest.approx(0.5, abs=0.02)
    assert painted(page, "before") == pytest.approx(0.7, abs=0.02)
    level.focus()
    page.keyboard.press("ArrowLeft")
    assert painted(page) > 0.5
    assert "1/mm" in level.get_attribute("aria-valuetext")
    page.locator("[data-reset]").click()
    assert (told.text_content(), painted(page)) == ("0.00 to 1.00 1/mm", -1)


def test_before_after_and_difference_are_of_one_place(opened: Callable[..., Any]) -> None:
    page = opened(staircase())
    page.get_by_role("radio", name="Before").click()
    assert clip(page) == "inset(0px 0% 0px 0px)"
    assert not page.locator(".wipe").is_visible()
    page.keyboard.press("ArrowRight")
    assert clip(page) == "inset(0px 100% 0px 0px)"
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("radio", name="Difference").get_attribute("aria-checked") == "true"
    assert painted(page) == pytest.approx(0.6, abs=0.02), "0.1 of a window of 1, above the grey of none"
    assert page.locator(".range").text_content() == "±0.50 1/mm"
    assert page.locator(".after .tag").text_content() == "before \u2212 after"
    page.locator(".slides input").fill("0")
    assert painted(page) == pytest.approx(0.6, abs=0.02), "at any slice"
    page.get_by_role("radio", name="Wipe").click()
    assert page.locator(".wipe").is_visible()


TRANSFORM = "getComputedStyle(document.querySelector('.layer')).transform"


def matrix(page: Any) -> list[float]:
    found = page.evaluate(TRANSFORM)
    return [1, 0, 0, 1, 0, 0] if found == "none" else [float(x) for x in found[7:-1].split(",")]


def test_pictures_zoom_and_pan_alike(opened: Callable[..., Any]) -> None:
    page = opened(staircase())
    page.locator(".stage").scroll_into_view_if_needed()
    page.get_by_role("button", name="Zoom in").click()
    box = page.locator(".stage").bounding_box()
    scale, *_, right, down = matrix(page)
    assert scale == pytest.approx(1.5)
    assert right == pytest.approx(-0.25 * box["width"], rel=0.01), "around the middle"
    transforms = page.evaluate("[...document.querySelectorAll('.layer')].map(x => getComputedStyle(x).transform)")
    assert len(set(transforms)) == 1
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.35 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.up()
    assert matrix(page)[4] == pytest.approx(right + 0.1 * box["width"], rel=0.02), "the picture follows the pointer"
    assert page.locator(".wipe input").input_value() == "50"
    page.keyboard.press("ArrowDown")
    assert matrix(page)[5] < down
    page.keyboard.press("0")
    assert page.evaluate(TRANSFORM) == "none"
    page.keyboard.press("+")
    page.keyboard.press("-")
    assert matrix(page)[0] == pytest.approx(1)
    page.get_by_role("button", name="Zoom in").click()
    page.get_by_role("button", name="Fit").click()
    assert page.locator(".zoom output").text_content() == "1\u00d7"


def test_the_wheel_zooms_at_the_pointer_once_a_picture_is_chosen(opened: Callable[..., Any]) -> None:
    page = opened(staircase())
    page.locator(".stage").scroll_into_view_if_needed()
    box = page.locator(".stage").bounding_box()
    x, y = box["x"] + 0.3 * box["width"], box["y"] + 0.4 * box["height"]
    page.mouse.move(x, y)
    page.mouse.wheel(0, -100)
    assert page.evaluate(TRANSFORM) == "none", "else nobody could scroll past a picture"
    page.locator(".stage").scroll_into_view_if_needed()
    box = page.locator(".stage").bounding_box()
    x, y = box["x"] + 0.3 * box["width"], box["y"] + 0.4 * box["height"]
    page.mouse.click(x, y)
    for _ in range(3):
        page.mouse.wheel(0, -100)
        page.wait_for_timeout(60)
    scale, *_, right, down = matrix(page)
    assert scale > 2
    assert (0.3 * box["width"] - right) / scale == pytest.approx(0.3 * box["width"], abs=2), "the place stays there"
    assert (0.4 * box["height"] - down) / scale == pytest.approx(0.4 * box["height"], abs=2)


def test_every_control_has_a_name(opened: Callable[..., Any], rng: np.random.Generator) -> None:
    data = staircase()
    page = opened(dataclasses.replace(full(rng), cuts=(*data.cuts, *full(rng).cuts)))
    nameless = page.evaluate(
        """[...document.querySelectorAll("button, input, [tabindex], summary")].filter(node =>
          !(node.getAttribute("aria-label") || node.getAttribute("aria-labelledby") || node.textContent.trim()))
          .map(node => node.outerHTML)"""
    )
    assert nameless == []
    assert page.evaluate("[...document.querySelectorAll('input')].every(node => node.getAttribute('aria-label'))")


def test_a_phone_shows_all_of_the_page(opened: Callable[..., Any]) -> None:
    page = opened(staircase(), has_touch=True)
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for what in (".tools button:visible", ".tools input:visible", ".slides input"):
        for number in range(page.locator(what).count()):
            box = page.locator(what).nth(number).bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 360
    page.locator(".tools button").first.tap()


def test_print_and_no_scripts_show_the_middle_slice(opened: Callable[..., Any]) -> None:
    page = opened(staircase())
    page.locator(".slides input").fill("0")
    assert painted(page) == pytest.approx(0, abs=0.01)
    page.emulate_media(media="print")
    assert page.locator(".layer .picture").first.is_visible()
    assert not page.locator(".layer canvas").first.is_visible()
    assert not page.locator(".tools").is_visible()


def shade(page: Any, x: float, y: float = 0.3) -> float:
    """Return the grey value in the page at a place of the first image."""
    with Image.open(io.BytesIO(page.locator(".stage").first.screenshot())) as image:
        return float(np.asarray(image.convert("L"))[int(y * image.height), int(x * image.width)])


def clip(page: Any) -> str:
    return str(page.evaluate("getComputedStyle(document.querySelector('.half.before')).clipPath"))


def test_the_slider_wipes_between_the_images(opened: Callable[..., Any]) -> None:
    page = opened(black_and_white())
    slider = page.locator(".wipe input").first
    assert shade(page, 0.25) > 200 > 100 > shade(page, 0.75)
    slider.fill("0")
    assert clip(page) == "inset(0px 100% 0px 0px)"
    assert shade(page, 0.25) < 100
    assert shade(page, 0.75) < 100
    slider.fill("100")
    assert clip(page) == "inset(0px 0% 0px 0px)"
    assert shade(page, 0.25) > 200
    assert shade(page, 0.75) > 200


def test_the_slider_obeys_keys_and_mouse(opened: Callable[..., Any]) -> None:
    page = opened(black_and_white())
    slider = page.locator(".wipe input").first
    slider.focus()
    page.keyboard.press("ArrowLeft")
    at = float(slider.input_value())
    assert 45 <= at < 50
    assert clip(page) == f"inset(0px {100 - at:g}% 0px 0px)"
    assert slider.get_attribute("aria-valuetext") == f"{at:g} % before, {100 - at:g} % after"
    page.keyboard.press("Home")
    assert slider.input_value() == "0"
    stage = page.locator(".stage").first
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.2 * box["width"], middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.8 * box["width"], middle)
    page.mouse.up()
    assert float(slider.input_value()) == pytest.approx(80, abs=0.5)
    page.keyboard.press("ArrowRight")
    assert float(slider.input_value()) > 80


def test_tabs_choose_the_cut(opened: Callable[..., Any]) -> None:
    page = opened(black_and_white())
    panels = page.locator(".panel")
    assert [panels.nth(n).is_visible() for n in (0, 1)] == [True, False]
    page.locator("[role=tab]").first.focus()
    page.keyboard.press("ArrowRight")
    assert [panels.nth(n).is_visible() for n in (0, 1)] == [False, True]
    assert page.locator("[role=tab]").nth(1).get_attribute("aria-selected") == "true"


def test_print_shows_every_cut_side_by_side(opened: Callable[..., Any]) -> None:
    page = opened(black_and_white())
    page.emulate_media(media="print")
    assert all(page.locator(".panel").nth(n).is_visible() for n in (0, 1))
    before, after = (page.locator(f".half.{side}").first.bounding_box() for side in ("before", "after"))
    assert before["x"] + before["width"] <= after["x"]
    assert clip(page) == "none"


def test_without_scripts_both_images_are_visible(browser: Any, rng: np.random.Generator, tmp_path: Path) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto(write_report(tmp_path / "report.html", full(rng)).as_uri())
    before, after = (page.locator(f".half.{side}").last.bounding_box() for side in ("before", "after"))
    assert before["x"] + before["width"] <= after["x"]


def test_the_page_fits_its_window(opened: Callable[..., Any], rng: np.random.Generator) -> None:
    page = opened(dataclasses.replace(full(rng), title="a_very_long_name_without_any_space_" * 6))
    for width in (700, 1000, 1400):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
        stage = page.locator(".stage").first.bounding_box()
        assert stage["width"] / stage["height"] == pytest.approx(120 / 96, rel=0.01), width


CONTRAST = """() => {
  const channel = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const paper = (node) => {
    for (; node; node = node.parentElement) {
      const colour = numbers(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] > 0.5) return colour;
    }
  };
  const out = [];
  for (const node of document.querySelectorAll("body *:not(script):not(.tag):not(.bar *)")) {
    if (![...node.childNodes].some((c) => c.nodeType === 3 && c.data.trim())) continue;
    const style = getComputedStyle(node);
    const [a, b] = [light(numbers(node instanceof SVGElement ? style.fill : style.color)), light(paper(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) out.push(node.textContent.slice(0, 40) + " " + ratio.toFixed(2));
  }
  return out;
}"""


def test_text_stands_out_in_both_schemes(opened: Callable[..., Any], rng: np.random.Generator) -> None:
    page = opened(full(rng), reduced_motion="reduce")
    paper = "getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/g).map(Number)"
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert (max(page.evaluate(paper)) < 60) == (scheme == "dark")
        assert page.evaluate(CONTRAST) == [], scheme
