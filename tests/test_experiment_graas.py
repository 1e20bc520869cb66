"""The experiments: their pieces compute what they claim; at the small scale they run outside of continuous tests."""

import dataclasses
import doctest
import sys
from pathlib import Path

import numpy as np
import pytest

from quietray.detector.response.response import PointResponse
from quietray.simulate.noise import laplace_response

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "experiments"))

import graas  # noqa: E402
import graas_bed  # noqa: E402
import graas_foam  # noqa: E402
import graas_frames  # noqa: E402
import graas_sets  # noqa: E402
import pages  # noqa: E402


@pytest.mark.experiment
def test_graas_at_the_small_scale(tmp_path: Path) -> None:
    """It runs whole, from the command line, and reproduces what its page says that it reproduces."""
    page = tmp_path / "docs/experiments/graas.md"
    graas.main(["--scale", "small", "--out", str(tmp_path / "out"), "--page", str(page)])
    text = page.read_text()
    assert "Not run yet" not in text
    for picture in ("foam", "frames", "dependency", "correlation", "rivals", "overfitting", "cameras", "bed"):
        assert f"../images/graas-{picture}.png" in text
        assert 0 < (tmp_path / f"docs/images/graas-{picture}.png").stat().st_size < 300_000
    stored = graas.known_results(tmp_path / "out/small", graas.SCALES["small"])
    found = {letter: one["found"] for letter, one in stored.items()}
    volumes = found["a"]["volumes"]
    assert max((key for key in volumes if "clean" not in key), key=lambda key: volumes[key]["psnr"]) == "before, SIRT"
    trained = found["b"]["trained"]
    assert trained["decorrelated"]["mse"] == pytest.approx(trained["uncorrelated"]["mse"], rel=0.05)
    assert trained["raw"]["dependency"] > 2 * trained["decorrelated"]["dependency"]


_SCENE = graas_frames.Scene(size=32, frames=80)


class TestScene:
    def test_frames_show_the_truth(self) -> None:
        """Whitened and uncorrelated frames average to the truth, raw ones to the blurred truth."""
        log_bias = 1 / (2 * _SCENE.photons * np.exp(-_SCENE.lines))
        for counts, truth, spread in (
            (_SCENE.decorrelated, _SCENE.lines, 0.015),
            (_SCENE.uncorrelated, _SCENE.lines, 0.0),
            (_SCENE.raw, _SCENE.blurred, 0.0),
        ):
            off = _SCENE.logarithm(counts).mean(axis=0) - truth
            chance = float(np.sqrt((2 * log_bias / _SCENE.frames).mean()))
            assert float(np.sqrt((off**2).mean())) < 1.2 * chance + spread + float(log_bias.mean())

    def test_sets_hold_the_same_photons(self) -> None:
        """Whitening gives back, but for the readout, the very photons of the uncorrelated frames."""
        white, own = _SCENE.decorrelated[:, 6:-6, 6:-6], _SCENE.uncorrelated[:, 6:-6, 6:-6]
        assert np.corrcoef((white - white.mean(axis=0)).ravel(), (own - own.mean(axis=0)).ravel())[0, 1] > 0.98

    def test_doing_nothing_is_judged_as_the_noise(self) -> None:
        """The parts add up, and p is 1 plus the summed correlation of the neighbours."""
        frames = _SCENE.logarithm(_SCENE.uncorrelated)
        found = graas_frames.judged(None, frames, _SCENE)
        assert found["systematic"] + found["noise"] == pytest.approx(found["mse"], rel=1e-4)
        assert found["dependency"] == pytest.approx(1, abs=4 * found["dependency_error"])
        raw = graas_frames.judged(None, _SCENE.logarithm(_SCENE.raw), _SCENE)
        assert raw["dependency"] > 3.5 > 1.5 > found["dependency"]


_TRAINER = graas_frames.Trainer(widths=(4, 8), steps=30, patch=32, judgements=3)


class TestPieces:
    @pytest.mark.slow
    def test_correlation_goes_where_the_page_says(self, tmp_path: Path) -> None:
        """Raw frames are correlated, whitened ones are not; both figures and the row of the table come from there."""
        piece = graas_sets.Sets(_SCENE, dataclasses.replace(_TRAINER, steps=60))
        found = piece.measure(tmp_path)
        assert 3 < found["correlation"]["raw"]["mean"] < 4.5
        assert abs(found["correlation"]["decorrelated"]["mean"]) < 0.2
        assert found["response"]["estimated"] == pytest.approx(found["response"]["true"], abs=0.02)
        text = piece.section({"b": found})
        assert f"| raw | Noise2Self | {found['trained']['raw']['mse']:.2e} |" in text
        assert f"{100 * found['correlation']['raw']['mean']:.0f} % before" in text

    @pytest.mark.slow
    def test_rivals_learn_something_each(self, tmp_path: Path) -> None:
        """Four different methods, four different results, all better than no training at all."""
        found = graas_sets.Rivals(_SCENE, _TRAINER, judged_on=6).measure(tmp_path)
        errors = [one["mse"] for one in found.values()]
        assert len(set(errors)) == len(found) == 4
        assert max(errors) < float((_SCENE.lines**2).mean())

    def test_overfitting_keeps_what_the_held_out_pixels_say(self, tmp_path: Path) -> None:
        """What is kept is the best estimate among white residuals; correlation is left on purpose."""
        piece = graas_sets.Overfitting(_SCENE, _TRAINER, judged_on=6)
        found = piece.measure(tmp_path)
        history = found["history"]
        assert [one["step"] for one in history] == [10, 20, 30]
        white = [one for one in history if abs(one["correlation"]) <= 0.15] or history
        assert found["kept"] == min(white, key=lambda one: one["held_out"])["step"]
        assert history[0]["mse"] != history[-1]["mse"]
        assert 0.12 < found["left"]["neighbour"] < 0.28
        assert piece.whitened < _SCENE.spread

    @pytest.mark.slow
    @pytest.mark.usefixtures("short_report")
    def test_orders_are_told_apart_by_the_truth(self, tmp_path: Path) -> None:
        """Noise costs FBP more than SIRT; the tool warns of Noise2Inverse after SIRT in a box, not after FBP."""
        piece = graas_foam.Orders(rows=8, cols=32, views=16, spheres=30, steps=5, patch=16, iterations=20)
        found = piece.measure(tmp_path)["volumes"]
        assert set(found) == {f"{o}, {a}" for o in ("none", "before", "after", "clean") for a in ("FBP", "SIRT")}
        for algorithm in ("FBP", "SIRT"):
            assert found[f"clean, {algorithm}"]["mse"] < 0.8 * found[f"none, {algorithm}"]["mse"]
        assert found["none, SIRT"]["mse"] < found["none, FBP"]["mse"]
        assert any("not linear" in said for said in found["after, SIRT"]["warnings"])
        assert not any("not linear" in said for said in found["after, FBP"]["warnings"])


class TestBed:
    bed = graas_bed.Bed(rows=32, cols=24, times=4, shown=2, flats=60, iterations=30)

    def test_gas_is_what_the_bubbles_take_away(self) -> None:
        """Summed over the detector, radiographs of the gas hold the volume of the bubbles, magnified."""
        time = 1
        gas, truth = self.bed.gas[3 * time : 3 * time + 3] / self.bed.material, self.bed.truth(time)
        assert gas.min() > -1e-4
        assert truth.max() == pytest.approx(1)
        assert gas.sum(axis=(1, 2)) == pytest.approx(float(truth.sum()), rel=0.15)
        assert not np.array_equal(self.bed.truth(0), self.bed.truth(3))

    def test_every_pair_is_whitened_by_its_own_response(self) -> None:
        """Noise of neighbours is alike in raw radiographs and not in whitened ones, in all three pairs."""
        raw, white, peaks = self.bed.measured()
        assert [one["true"] for one in peaks] == sorted((one["true"] for one in peaks), reverse=True)
        for pair in range(3):
            for frames, least, most in ((raw, 0.3, 0.7), (white, -0.15, 0.15)):
                noise = (frames - self.bed.gas)[pair::3, :, 6:-6]
                left, right = noise[..., :-1].ravel(), noise[..., 1:].ravel()
                assert least < np.corrcoef(left, right)[0, 1] < most

    @pytest.mark.slow
    def test_three_views_find_the_bubbles(self) -> None:
        """SIRT in the box finds most of the gas where it is."""
        pytest.importorskip("itk", reason="needs itk-rtk; pip install 'quietray[cone]'")
        found, truth = self.bed.reconstructed(self.bed.gas, 1), self.bed.truth(1)
        assert float(found.min()) >= 0
        assert float(found.max()) <= 1
        assert np.corrcoef(found.ravel(), truth.ravel())[0, 1] > 0.7


def test_pages_are_made_as_documented() -> None:
    """The examples in the docstrings hold."""
    done = doctest.testmod(pages)
    assert done.attempted > 1
    assert done.failed == 0


def test_a_picture_is_the_same_file_every_time(tmp_path: Path) -> None:
    """So that a page that is written again changes only where its results do."""
    image = np.arange(12.0).reshape(3, 4)
    for name in ("one", "two"):
        pages.save(pages.gallery({"a": image, "b": image}, 2, (0.0, 11.0), bar="counts"), tmp_path / f"{name}.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    pages.save(pages.gallery({"a": image, "b": -image}, 2, (0.0, 11.0), bar="counts"), tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "two.png").read_bytes()


def test_a_piece_with_results_is_not_run_again(tmp_path: Path) -> None:
    """Unless its settings changed, or it is asked for."""

    @dataclasses.dataclass
    class Counted:
        name: str = "one"
        times = 0

        def measure(self, folder: Path) -> dict[str, int]:
            Counted.times += 1
            return {"times": Counted.times}

        def section(self, results: dict[str, dict[str, int]]) -> str:
            return f"ran {results['a']['times']} times"

    page = tmp_path / "docs/experiments/page.md"
    for again, name, times in ((), "one", 1), ((), "one", 1), (("a",), "one", 2), ((), "two", 3):
        graas.graas({"a": Counted(name)}, tmp_path / "out", page, again)
        assert f"ran {times} times" in page.read_text()


def test_left_over_correlation_is_what_the_page_says() -> None:
    """Undoing too narrow a response leaves neighbours alike by the closed form's figure."""
    scene = graas_frames.Scene(size=48, frames=120)
    kernel = laplace_response(0.4, 6)
    power = np.abs(np.fft.fft2(np.pad(scene.detector.response, ((0, 53), (0, 53))))) ** 2
    power /= np.abs(np.fft.fft2(np.pad(kernel, ((0, 51), (0, 51))))) ** 2
    lags = np.fft.ifft2(power).real
    found = graas_sets.correlation_of(np.asarray(graas_frames.whiten(scene.raw, PointResponse(kernel))[:]))
    middle = found.lags.shape[0] // 2
    assert found.lags[middle, middle + 1] == pytest.approx(lags[0, 1] / lags[0, 0], abs=0.03)
