"""The page and the table of a comparison: what the record says, nothing that it does not know, in a real browser."""

import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from quietray.assessment.comparison import Comparison, Standing
from quietray.console import show_comparison
from quietray.filters import Filter, GaussianFilter, MedianFilter, TotalVariation
from quietray.geometry import ParallelBeam
from quietray.metrics.image import psnr
from quietray.pictures import grey, grey_window, shrink
from quietray.report import ReportData, write_comparison, write_report
from quietray.report.comparison import board_of, gallery_of
from quietray.running.settings import Settings
from quietray.scan import Scan
from quietray.splits import Noise2Inverse, Split
from test_report import CONTRAST, HOSTILE, SWITCHES, Page

ERRORS = {"noise2inverse 2-D": 0.0004, "tv": 0.0006, "median": 0.004, "fbp": 0.02}
METHODS: dict[str, Split | Filter] = {
    "noise2inverse 2-D": Noise2Inverse(slices=1),
    "tv": TotalVariation(0.125),
    "median": MedianFilter(2),
    "fbp": GaussianFilter(0.0),
}


def comparison(size: int = 40, recommended: str = "tv", left_out: str = "the noise is correlated") -> Comparison:
    """Return four methods: the second is not clearly behind, the first is better than an error of nothing would be."""
    rng = np.random.default_rng(0)
    clean = (np.add.outer(np.arange(size), np.arange(size)) % 16 < 8).astype(np.float32)
    standings = tuple(
        Standing(
            name,
            Settings(method=METHODS[name]),
            error,
            (-1e-5 if name == "noise2inverse 2-D" else 0.9 * error, 1.1 * error),
            (error - 0.0007, error),
            75.0,
            (clean + rng.normal(0, error**0.5, (3, *clean.shape))).astype(np.float32),
        )
        for name, error in ERRORS.items()
    )
    picked = Settings(method=Noise2Inverse(slices=1))
    why = "noise2inverse 2-D has the smallest estimated error; tv is simpler and not clearly behind."
    return Comparison(standings, (("noise2self", left_out),), recommended, 1.0, "volume", picked, why)


def test_of_an_object_beyond_the_field_of_view_psnr_is_at_least() -> None:
    """Errors of all methods are too large by the same amount: their order is known, and how good they are at least."""
    known = comparison()
    found = dataclasses.replace(known, withheld="the object reaches beyond the field of view")
    for before, after in zip(known.record()["methods"], found.record()["methods"], strict=True):
        assert after["psnr_db"] is after["psnr_db_at_most"] is after["rmse"] is None
        assert after["psnr_db_at_least"] == before["psnr_db_at_least"]
        assert after["clearly_behind"] == before["clearly_behind"]
    row = board_of(found.record()).rows[1]
    assert (row.method, row.psnr, row.interval) == ("tv", "not known", "at least 31.80 dB")
    assert "the object reaches beyond the field of view." in found.record()["why"]
    assert "at least 31.8 dB" in repr(found)
    assert found.verdict["kind"] == "Use it"
    assert "is not known" in found.verdict["reason"]


def scan(source: str = "tooth.h5") -> Scan:
    return Scan(np.ones((4, 2, 40), np.float32), ParallelBeam(np.arange(4.0), 2, 40, pixel_size=0.01), source=source)


@pytest.fixture
def page(tmp_path: Path) -> Page:
    return Page(write_comparison(tmp_path / "report.html", comparison(), scan(), 'budget = "20m"\n'))


def test_the_table_says_what_the_record_says(page: Page) -> None:
    found = comparison()
    for standing in found.standings:
        assert f"{psnr(standing.error, 1.0):.2f} dB" in page.text
    for expected in (
        "at least 33.57 dB",  # an error of less than nothing has no PSNR
        "1 min 15 s", "no filter", "weight 0.125", "radius 2 px", "slices seen: 1", found.why,
        "the noise is correlated", "data range of 1 1/mm", "Error of the volume", "Student", "comparison of methods",
        'budget = "20m"', "No warnings.",
    ):  # fmt: skip
        assert expected in page.text, expected
    assert [word for tag, word in page.words if tag == "td" and "behind" in word] == [
        "not clearly behind", "clearly behind", "clearly behind",
    ]  # fmt: skip


def test_the_marks_are_the_winners_and_the_recommended_ones() -> None:
    marks = {row.method: row.marks for row in board_of(comparison().record()).rows}
    assert marks == {"noise2inverse 2-D": ("best",), "tv": ("recommended",), "median": (), "fbp": ()}
    rows = board_of(comparison(recommended="noise2inverse 2-D").record()).rows
    assert [row.marks for row in rows] == [("best", "recommended"), (), (), ()]


@pytest.mark.parametrize(
    ("least", "most", "text"),
    [
        (20.0, 21.0, "20.00 to 21.00 dB"),
        (20.0, None, "at least 20.00 dB"),
        (-np.inf, 21.0, "at most 21.00 dB"),
        (-np.inf, None, "not known"),
        (-2.0, -1.0, "\u22122.00 to \u22121.00 dB"),
    ],
)
def test_an_interval_says_which_ends_it_knows(least: float | None, most: float | None, text: str) -> None:
    record = comparison().record()
    record["methods"][0] |= {"psnr_db_at_least": least, "psnr_db_at_most": most}
    assert board_of(record).rows[0].interval == text


def test_pictures_share_the_winners_window(page: Page) -> None:
    standings = comparison().standings
    window = grey_window([standings[0].picture])
    for standing in standings:
        shown = page.picture(f"middle slice, {standing.name}")
        np.testing.assert_array_equal(shown, grey(standing.picture, window))


def test_too_large_pictures_are_all_averaged_alike() -> None:
    found = comparison(size=200)
    pictures = {standing.name: standing.picture for standing in found.standings}
    board = board_of(found.record())
    whole = gallery_of(pictures, board, "1/mm")
    assert whole is not None
    room = sum(len(picture.source) for picture in whole.pictures) - 1
    less = gallery_of(pictures, board, "1/mm", room)
    assert less is not None
    assert (whole.factor, less.factor) == (1, 2)
    assert sum(len(picture.source) for picture in less.pictures) <= room
    again = gallery_of({name: shrink(picture, 2) for name, picture in pictures.items()}, board, "1/mm")
    assert again is not None
    assert (again.width, less.width) == (100, 200)


def test_a_run_shows_the_same_table_without_pictures(tmp_path: Path, page: Page) -> None:
    record = json.loads(json.dumps(comparison().record()))
    data = ReportData("tooth.h5", "1/mm", 0.01, metrics={"comparison": record, "seed": 3})
    run = Page(write_report(tmp_path / "run.html", data))

    def cells(shown: Page) -> list[str]:
        return [word for tag, word in shown.words if tag in ("td", "th")][: 6 * (1 + len(ERRORS))]

    assert cells(run) == cells(page)
    data = ReportData("tooth.h5", "1/mm", 0.01, metrics={"comparison": record, "estimate": {"psnr_db": 51.4}})
    beside = Page(write_report(tmp_path / "beside.html", data))
    assert "PSNR relative to the best" in beside.text
    assert "\u22121.76 dB" in beside.text, "the difference that the record has"
    for standing in comparison().standings:
        assert f" {psnr(standing.error, 1.0):.2f} dB" not in beside.text, "one PSNR is told of one result"
    assert not run.all("img")
    assert "denoising report" in run.text
    assert "Comparison" not in run.text, "not a second time among the numbers"


def test_before_and_after_are_the_raw_and_the_best(page: Page) -> None:
    first, *_, last = comparison().standings
    window = grey_window([first.picture])
    cut = f"middle slice, fbp and {first.name}"
    np.testing.assert_array_equal(page.picture(f"{cut}, before denoising"), grey(last.picture, window))
    np.testing.assert_array_equal(page.picture(f"{cut}, after denoising"), grey(first.picture, window))


def test_no_method_worth_its_while_is_a_warning(tmp_path: Path) -> None:
    found = comparison(recommended="fbp")
    assert "1 warning" in Page(write_comparison(tmp_path / "report.html", found, scan(), "")).text


def test_errors_that_are_not_known_are_not_drawn(tmp_path: Path) -> None:
    record = comparison().record()
    for row in record["methods"]:
        row |= {"psnr_db": None, "psnr_db_at_least": None, "psnr_db_at_most": None}
    page = Page(write_report(tmp_path / "r.html", ReportData("t", "1/mm", None, metrics={"comparison": record})))
    assert not page.all("svg")
    assert page.text.count("not known") == 2 * len(ERRORS) + 1  # and the voxel size


def test_nothing_in_a_comparison_is_markup(tmp_path: Path) -> None:
    page = Page(write_comparison(tmp_path / "r.html", comparison(left_out=HOSTILE), scan(HOSTILE.replace("/", "")), ""))
    assert [tag.get("type") for tag in page.all("script")] == ["application/json", None]
    assert f": {HOSTILE}" in [word for _, word in page.words]


def test_the_terminal_shows_the_same_table() -> None:
    stream = io.StringIO()
    record = comparison(left_out="a [red]reason[/red]").record()
    show_comparison(Console(file=stream, width=200), record)
    text = stream.getvalue()
    for row in board_of(record).rows:
        line = next(line for line in text.splitlines() if line.startswith(f"{row.method} "))
        for word in (row.psnr, row.interval, row.seconds, row.setting, " and ".join(row.marks) or row.behind):
            assert word in line
    assert "a [red]reason[/red]" in text
    assert record["why"] in text


# The browser.


@pytest.fixture
def opened(chromium: str, tmp_path: Path) -> Iterator[Any]:
    """Open the page of a comparison; at the end, complain about what the page complained about."""
    playwright = pytest.importorskip("playwright.sync_api")
    complaints: list[str] = []
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=chromium, args=SWITCHES)
        page = browser.new_page(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(write_comparison(tmp_path / "report.html", comparison(), scan(), "").as_uri())
        yield page
        browser.close()
    assert not complaints


def test_a_click_enlarges_all_pictures_at_one_place(opened: Any) -> None:
    frames, layers = opened.locator(".frame"), opened.locator(".frame .layer")
    frames.nth(2).scroll_into_view_if_needed()
    box = frames.nth(2).bounding_box()
    frames.nth(2).click(position={"x": 0.25 * box["width"], "y": 0.5 * box["height"]})
    transforms = layers.evaluate_all("nodes => nodes.map(node => getComputedStyle(node).transform)")
    matrices = np.array([[float(one) for one in found[7:-1].split(",")] for found in transforms])
    assert len(matrices) == len(ERRORS)
    assert np.ptp(matrices, axis=0).max() < 0.1, "of a pixel"
    scale, _, _, _, right, down = matrices[0]
    assert scale == 4
    assert (0.25 * box["width"] - right) / scale == pytest.approx(0.25 * box["width"], abs=1), "the place stays there"
    assert (0.5 * box["height"] - down) / scale == pytest.approx(0.5 * box["height"], abs=1)
    opened.keyboard.press("0")
    assert layers.nth(2).evaluate("node => getComputedStyle(node).transform") == "none"
    opened.locator(".gallery").get_by_role("button", name="Zoom in").click()
    assert "1.5" in opened.locator(".gallery .zoom output").text_content()


SHADES = """nodes => nodes.map(node => {
  const canvas = node.querySelector("canvas");
  if (!node.classList.contains("painted")) return null;
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const grey = data.filter((_, at) => at % 4 === 0);
  return grey.reduce((sum, one) => sum + one, 0) / grey.length;
})"""


def test_all_methods_show_the_same_slice_in_the_same_greys(opened: Any) -> None:
    gallery, layers = opened.locator(".gallery"), opened.locator(".frame .layer")
    told = gallery.locator(".slides output")
    assert told.text_content() == "slice 2 of 3"
    gallery.locator(".slides input").focus()
    opened.keyboard.press("ArrowRight")
    assert told.text_content() == "slice 3 of 3"
    opened.wait_for_timeout(200)
    assert None not in layers.evaluate_all(SHADES)
    before = layers.evaluate_all(SHADES)
    gallery.locator("[data-level]").fill("700")
    opened.wait_for_timeout(200)
    assert all(now < then for now, then in zip(layers.evaluate_all(SHADES), before, strict=True))
    gallery.get_by_role("radio", name="What each removed").click()
    opened.wait_for_timeout(200)
    shades = layers.evaluate_all(SHADES)
    assert all(shade == pytest.approx(127.5, abs=8) for shade in shades[:-1]), "noise alone, around none"


def test_the_page_of_a_comparison_fits_and_can_be_read(opened: Any) -> None:
    for width in (500, 700, 1280):
        opened.set_viewport_size({"width": width, "height": 900})
        assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
    for scheme in ("light", "dark"):
        opened.emulate_media(color_scheme=scheme)
        assert opened.evaluate(CONTRAST) == [], scheme
