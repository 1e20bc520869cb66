"""What a result and the other public objects look like in a terminal, in a notebook and in a figure."""

import base64
import dataclasses
import io
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from rich.console import Console

import quietray
from quietray import GaussianFilter, ImageSeries, Noise2Inverse, Result, Settings
from quietray.console import TerminalWatch
from quietray.errors import GeometryError, SettingsError
from quietray.filters import FILTERS
from quietray.geometry import ConeBeam
from quietray.networks import NETWORKS
from quietray.pictures import grey
from quietray.reconstruct import ALGORITHMS
from quietray.splits import SPLITS
from scans import disc_scan, quick

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("agg")


@pytest.fixture(scope="module")
def scan() -> quietray.Scan:
    return quietray.read(disc_scan())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run") / "a <b>run</b> & more"


@pytest.fixture(scope="module")
def result(scan: quietray.Scan, place: Path) -> Result:
    return quietray.denoise(scan, place, quick(steps=6))


@pytest.fixture(scope="module")
def series(scan: quietray.Scan) -> Result:
    return quietray.denoise(scan, None, quick(steps=6, method=Noise2Inverse(parts=2, slices=1, times=3)), series=[scan])


@pytest.fixture(scope="module")
def images() -> Result:
    rng = np.random.default_rng(0)
    stack = rng.normal(50, 20, (5, 32, 40)).astype(np.float32)
    shown = ImageSeries(stack, None, "somewhere/<ct>", unit="HU", modality="CT", spacing=(0.5, 0.5), step=1.0)
    return quietray.denoise(shown, method="gaussian")


@pytest.fixture(autouse=True)
def _close_figures() -> Any:
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


class Counting:
    """A lazy volume that knows what was read of it."""

    def __init__(self, stack: np.ndarray) -> None:
        self.stack, self.shape, self.dtype, self.read = stack, stack.shape, stack.dtype, 0

    def __getitem__(self, key: Any) -> np.ndarray:
        found = np.asarray(self.stack[key])
        self.read += found.size
        return found

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise AssertionError("the whole volume was read")


class _Parts(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + " "


def parts_of(page: str) -> tuple[_Parts, dict[str, np.ndarray]]:
    """Return what is in a page, which must be whole and need nothing else, and its pictures by their alt texts."""
    found = _Parts(page)
    assert not found.open
    assert {tag for tag, _ in found.elements} <= set("div p b br small table tr td img ul li".split())
    pictures = {}
    for tag, attributes in found.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "href"]
        assert "url(" not in (attributes.get("style") or "")
        if tag == "img":
            head, _, data = str(attributes["src"]).partition(",")
            assert head == "data:image/png;base64"
            pictures[str(attributes["alt"])] = imagecodecs.png_decode(base64.b64decode(data))
            assert int(str(attributes["width"])) <= 512
            assert int(str(attributes["height"])) <= 512
    return found, pictures


# ---- in a terminal


def test_a_result_is_told_in_a_few_lines(result: Result, place: Path) -> None:
    result = dataclasses.replace(result, warnings=tuple(f"The {k}th warning." for k in range(6)))
    told = repr(result)
    assert len(told) < 1500
    assert len(told.splitlines()) < 20
    for words in (
        "Result of noise2inverse on disc_12_24_32.h5",
        "volume: 12 x 24 x 24 (z, y, x), 1/pixel",
        "method: noise2inverse (volume), network unet, 6 steps in",
        f"folder: {place}"[:40],
        "  warnings: 6\n    The 0th warning.\n",
        "    The 3th warning.\n    and 2 more, in .warnings",
    ):
        assert words in told
    assert "4th" not in told


def test_the_gain_is_told_with_its_interval(result: Result) -> None:
    known = {
        "psnr_gain_db": 17.3, "psnr_gain_db_at_least": 16.9, "psnr_gain_db_at_most": 17.8,
        "psnr_noisy_db": 7.4, "psnr_db": 24.7,
    }  # fmt: skip
    for change, words in (
        ({}, "estimated gain: +17.3 dB (16.9 to 17.8); PSNR from 7.4 to 24.7 dB\n"),
        ({"psnr_gain_db_at_most": None, "psnr_gain_db": None, "psnr_db": None}, "estimated gain: at least +16.9 dB\n"),
        ({"psnr_gain_db": None, "psnr_db": None}, "estimated gain: +16.9 to +17.8 dB\n"),
        (
            {"psnr_gain_db_at_least": None, "psnr_gain_db": None, "psnr_db": None},
            "estimated gain: at most +17.8 dB\n",
        ),
    ):
        estimate = dataclasses.replace(result.metrics.estimate, **{**known, **change})
        changed = dataclasses.replace(result, metrics=dataclasses.replace(result.metrics, estimate=estimate))
        assert words in repr(changed)
        assert words.strip() in parts_of(changed._repr_html_())[0].text


def test_a_result_with_much_to_say_stays_short(result: Result) -> None:
    told = ("word " * 200,) * 50
    crowded = dataclasses.replace(result, warnings=told, folder=Path("/long" * 100), trust=result.volume)
    assert len(repr(crowded)) < 1500
    assert len(repr(crowded).splitlines()) < 20


def test_results_of_series_and_images(series: Result, images: Result) -> None:
    assert "volume: 2 x 12 x 24 x 24 (step, z, y, x), 1/pixel" in repr(series)
    assert "folder: none, all in memory" in repr(series)
    assert "images: 5 x 32 x 40 (image, row, col), HU, pixels of 0.5 mm" in repr(images)
    assert "method: filter gaussian, sigma" in repr(images)


def test_no_public_object_prints_its_arrays(result: Result, scan: quietray.Scan, images: Result) -> None:
    pytest.importorskip("torch")
    foam = quietray.Foam.packed(200, 0.5, np.random.default_rng(0))
    standings = tuple(
        quietray.assessment.comparison.Standing(f"m{n}", Settings(), 1.0, (0.5, 2.0), (0.0, 0.1), 1.0, result.volume[:])
        for n in range(30)
    )
    compared = quietray.assessment.comparison.Comparison(standings, (), "m0", 1.0, "", Settings(), "so")
    noisy = ImageSeries(np.zeros((3, 4, 5), np.float32), None, "here")
    beam = ConeBeam.circular(np.linspace(0, 6, 50), 8, 32, 100.0, 200.0)
    frames = quietray.Scintillator().sample(np.full((20, 48, 48), 400.0), np.random.default_rng(0))
    objects: list[Any] = [
        *(result, images, result.metrics, result.metrics.training, result.gathered, result.denoiser, images.denoiser),
        *(result.volume, result.settings, scan, foam, compared, standings[0], noisy, beam, scan.geometry),
        *(quietray.ImagePairs((noisy,) * 3, noisy), quietray.diagnose(scan), quietray.FoamScan(), scan.geometry.grid()),
        *(quietray.Exposure(100.0), quietray.Scintillator(), quietray.projector(scan.geometry), quietray.Watch()),
        quietray.detector.correction.correct.calibrate(scan),
        quietray.estimate_point_response(frames),
    ]
    for registry in (SPLITS, FILTERS, NETWORKS, ALGORITHMS):
        objects += [kind() for name, kind in registry.items() if kind.__module__.startswith("quietray.")]
    public = {getattr(quietray, name) for name in quietray.__all__}
    kinds = {kind for kind in public if isinstance(kind, type) and not issubclass(kind, Exception)}
    abstract = {quietray.Architecture, quietray.Filter, quietray.Split}
    few = {quietray.FanBeam, quietray.Auto, quietray.Training, quietray.Correction, quietray.Phase}  # of plain numbers
    assert kinds <= {type(one) for one in objects} | abstract | few
    for one in objects:
        told = repr(one)
        assert len(told) < 1500, type(one)
        assert len(told.splitlines()) < 20, type(one)
        assert "array(" not in told, type(one)
        assert "Module" not in told, type(one)


def test_settings_print_what_was_changed() -> None:
    assert repr(Settings()) == "Settings()"
    told = quick(method=GaussianFilter(2.0), format="h5", max_memory="2G")
    assert "method=GaussianFilter(sigma=2.0)" in repr(told)
    assert eval(repr(told), {name: getattr(quietray, name) for name in quietray.__all__}) == told


# ---- in a notebook


def test_a_notebook_shows_the_middle_slice_before_and_after(result: Result) -> None:
    page, pictures = parts_of(result._repr_html_())
    assert list(pictures) == ["before: z = 6 of 12", "after: z = 6 of 12"]
    look = result._look()
    for name, image in (("before", look.before), ("after", look.after)):
        np.testing.assert_array_equal(pictures[f"{name}: z = 6 of 12"], grey(image, look.window))
    np.testing.assert_array_equal(look.after, result.volume[6])
    assert "1/pixel, in both alike" in page.text
    for warning in result.warnings:
        assert warning in page.text


def test_what_comes_from_files_is_escaped(result: Result, images: Result) -> None:
    page = result._repr_html_()
    assert "a &lt;b&gt;run&lt;/b&gt; &amp; more" in page
    evil = dataclasses.replace(images, warnings=("<script>alert(1)</script>",))
    text = evil._repr_html_()
    assert "on &lt;ct&gt;" in text
    assert "<script" not in text
    unit = dataclasses.replace(images.metrics.scan, unit='"><img onerror=x>')
    parts_of(dataclasses.replace(images, metrics=dataclasses.replace(images.metrics, scan=unit))._repr_html_())


def test_a_loaded_result_shows_what_is_left(scan: quietray.Scan, result: Result, place: Path) -> None:
    loaded = quietray.denoise(scan, place, quick(steps=6), resume=True)
    assert loaded.gathered is None
    page, pictures = parts_of(loaded._repr_html_())
    assert list(pictures) == ["after: z = 6 of 12"]
    np.testing.assert_array_equal(
        pictures["after: z = 6 of 12"], parts_of(result._repr_html_())[1]["after: z = 6 of 12"]
    )
    assert "Of the noisy volume nothing is in memory" in page.text
    assert repr(loaded) == repr(result)


def test_a_volume_that_is_gone_is_told_of(result: Result) -> None:
    class Gone(Counting):
        def __getitem__(self, key: Any) -> np.ndarray:
            raise OSError("no such <file>")

    gone = dataclasses.replace(result, volume=Gone(result.volume[:]), gathered=None)
    page, pictures = parts_of(gone._repr_html_())
    assert not pictures
    assert "The volume cannot be read: no such <file>" in page.text


def test_one_slice_of_a_lazy_volume_is_read(result: Result, series: Result) -> None:
    for whole in (result, series):
        lazy = Counting(np.asarray(whole.volume))
        kept, loaded = (dataclasses.replace(whole, volume=lazy, gathered=some) for some in (whole.gathered, None))
        repr(kept), kept._repr_html_(), kept.plot()
        assert lazy.read == 0
        loaded._repr_html_()
        assert lazy.read == 24 * 24
        loaded.plot(3)
        assert lazy.read == 2 * 24 * 24


def test_series_images_filters_and_single_slices(series: Result, images: Result, scan: quietray.Scan) -> None:
    assert list(parts_of(series._repr_html_())[1]) == ["before: z = 6 of 12, step 1", "after: z = 6 of 12, step 1"]
    found, pictures = parts_of(images._repr_html_())
    assert list(pictures) == ["before: image 2 of 5", "after: image 2 of 5"]
    assert "grey from -160 to 240 HU" in found.text
    one = quietray.denoise(scan, rows="5:6", method="gaussian", rotation_axis=11.5)
    assert list(parts_of(one._repr_html_())[1]) == ["before: z = 0 of 1", "after: z = 0 of 1"]
    assert "volume: 1 x 24 x 24" in repr(one)


def test_a_large_slice_is_averaged_and_a_part_shown_as_it_is(result: Result) -> None:
    volume = np.zeros((3, 700, 1100), np.float32)
    volume[1, 300:340, 500:540:2] = 1.0
    large = dataclasses.replace(result, volume=volume, gathered=None)
    _, pictures = parts_of(large._repr_html_())
    whole, part = pictures
    assert whole == "after: z = 1 of 3, each pixel the mean of 3 x 3"
    assert part.startswith("after: rows ")
    assert part.endswith(", pixel by pixel")
    assert pictures[whole].shape == (234, 367)
    rows, columns = re.findall(r"(\d+) to (\d+)", part)
    shown = volume[1][slice(*map(int, rows)), slice(*map(int, columns))]
    assert shown.max() == 1
    assert pictures[part].shape == shown.shape


def test_slices_that_hold_nothing_or_nan_are_shown(result: Result) -> None:
    for value in (0.0, np.nan):
        empty = dataclasses.replace(result, volume=np.full((2, 5, 7), value, np.float32), gathered=None)
        assert parts_of(empty._repr_html_())[1]
        empty.plot()


# ---- in a figure


def test_plot_draws_before_after_and_the_difference(result: Result) -> None:
    axes = result.plot()
    assert len(axes) == 3
    before, after, taken = (axis.images[0] for axis in axes)
    np.testing.assert_array_equal(after.get_array(), result.volume[6])
    np.testing.assert_allclose(taken.get_array(), before.get_array() - after.get_array(), atol=1e-6)
    assert before.get_clim() == after.get_clim()
    assert taken.get_clim()[0] == -taken.get_clim()[1]
    assert [axis.get_title() for axis in axes] == [
        f"{name}, z = 6 of 12" for name in ("before", "after", "before - after")
    ]
    bars = [axis for axis in axes[0].figure.axes if axis not in list(axes)]
    assert [bar.get_ylabel() for bar in bars] == ["1/pixel"] * 3
    axes[0].figure.canvas.draw()


def test_another_slice_stands_alone_unless_the_noisy_volume_is_given(scan: quietray.Scan, result: Result) -> None:
    axes = result.plot(3)
    assert [len(axis.images) for axis in axes] == [0, 1, 0]
    assert "only the middle slice is kept" in axes[0].texts[0].get_text()
    assert "plot(before=quietray.reconstruct(scan))" in axes[0].texts[0].get_text()
    np.testing.assert_array_equal(axes[1].images[0].get_array(), result.volume[3])
    noisy = quietray.reconstruct(scan, rotation_axis=11.5)
    np.testing.assert_array_equal(result.plot(3, before=noisy)[0].images[0].get_array(), noisy[3])
    np.testing.assert_array_equal(result.plot(-1)[1].images[0].get_array(), result.volume[11])
    np.testing.assert_allclose(result.plot(before=noisy)[0].images[0].get_array(), result._look().before, atol=1e-5)


def test_plot_of_series_and_images(series: Result, images: Result) -> None:
    np.testing.assert_array_equal(series.plot(4, step=0)[1].images[0].get_array(), series.volume[0, 4])
    assert len(series.plot(step=0)[0].images) == 0
    assert len(series.plot()[0].images) == 1
    noisy = ImageSeries(np.asarray(images.volume) + 1, None, "")
    taken = images.plot(0, before=noisy)[2].images[0].get_array()
    np.testing.assert_allclose(taken, np.ones((32, 40)), atol=1e-4)


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        ({"z": 12}, GeometryError, "z must be from 0 to 11, got 12"),
        ({"z": -13}, GeometryError, "z must be from 0 to 11, got -13"),
        ({"step": 0}, SettingsError, "step must be left out"),
        ({"before": np.zeros((11, 24, 24))}, GeometryError, r"shape \(12, 24, 24\), got \(11, 24, 24\)"),
    ],
)
def test_what_cannot_be_drawn(result: Result, more: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        result.plot(**more)


def test_only_plot_imports_pyplot(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # as where it cannot be imported
    assert repr(result)
    assert result._repr_html_()
    with pytest.raises(ImportError):
        result.plot()


def test_without_a_terminal_a_stage_writes_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log of a night's run must tell how far it is, without a bar's control characters."""
    monkeypatch.setattr("quietray.console._EVERY", 0.0)
    file = io.StringIO()
    with TerminalWatch(Console(file=file)).stage("training", 10) as advance:
        advance(5, "estimated gain 7 dB")
        advance(5)
    first, second, last = file.getvalue().splitlines()
    assert "training for" in first
    assert "50%, about" in first
    assert first.endswith("left, estimated gain 7 dB")
    assert "100%" in second
    assert "training took" in last
    assert "\x1b" not in file.getvalue()
