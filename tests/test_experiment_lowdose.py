"""The experiments: at toy size they run, and their pages say what their figures say; slow ones reach what must hold."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent / "experiments"


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that imports an experiment."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def load(name: str) -> ModuleType:
        sys.modules.pop(name, None)
        return importlib.import_module(name)

    return load


@pytest.mark.slow
def test_gnudi_at_toy_size(experiment: Any, tmp_path: Path) -> None:
    page = tmp_path / "docs" / "experiments" / "gnudi.md"
    arguments = ["--scale", "toy", "--out", str(tmp_path / "out"), "--page", str(page)]
    found = experiment("gnudi").main([*arguments, "--only", "xray,validity"])
    psnr = found["xray"]["psnr"]
    assert psnr["noisy"] == pytest.approx(29.91, abs=1.0), "the mean of all images is 29.91"
    for name in ("Gaussian", "bilateral", "median"):
        assert psnr[f"{name}, oracle"] > psnr["noisy"]
        assert psnr[f"{name}, oracle"] >= psnr[f"{name}, no truth"] > psnr["noisy"] - 0.5
    for rows in (found["validity"]["xray"], found["validity"]["ct"]):
        inputs = [row["input"] for row in rows]
        assert inputs == sorted(inputs)
        for row in rows:
            for model in (row[key] for key in row if key != "input"):
                assert model["guarded"] >= row["input"] - 1e-9, "hardly trained models harm, and the guard knows"
    written = page.read_text()
    assert f"| Noise2Noise MSE | {psnr['Noise2Noise MSE']:.2f} | 39.34 |" in written
    assert "**does not hold**" in written, "twenty steps of training reach nothing, and the page says so"
    assert json.loads((tmp_path / "out" / "results.json").read_text())["xray"]["psnr"] == psnr


@pytest.mark.slow
def test_won_at_toy_size(experiment: Any, tmp_path: Path) -> None:
    page = tmp_path / "docs" / "experiments" / "won.md"
    arguments = ["--scale", "toy", "--period", "3", "--out", str(tmp_path / "out"), "--page", str(page)]
    found = experiment("won").main(arguments)
    rows, noise = found["table"]["rows"], found["noise"]
    assert {len(row) for row in rows.values()} == {2}, "every method has every test subject"
    assert len(rows) == 14
    assert [one["psnr"] for one in rows["N2C + ours"]] != [one["psnr"] for one in rows["N2C + ours without update"]]
    assert noise["true"]["neighbours"] > 0.2, "noise of reconstructions is correlated"
    assert abs(noise["histogram"]["neighbours"]) < 0.15, "that of a histogram is not"
    assert noise["Gaussian"]["sd"] == pytest.approx(82, rel=0.1)
    assert noise["histogram"]["sd"] < noise["Gaussian"]["sd"]
    assert "Paired over the subjects" in page.read_text()


@pytest.mark.slow
def test_honesty_tells_doses_apart(experiment: Any) -> None:
    """Where the public data are there: more dose, more to see; a linear filter neither adds nor takes."""
    honesty = experiment("honesty")
    if not honesty.DATA.exists():
        pytest.skip("needs the public simulated phantom LCD_CT")
    size = experiment("gnudi").SIZES["toy"]
    found = honesty.details(size)
    plain = [found[f"{dose}: as reconstructed"] for dose in honesty.DOSES]
    assert plain[2]["square"] > plain[0]["square"] + 2 * plain[2]["error"]
    for dose, one in zip(honesty.DOSES, plain, strict=True):
        blurred = found[f"{dose}: Gaussian, sd 1.5"]
        assert blurred["sd"] < 0.5 * one["sd"]
        assert abs(blurred["square"] - one["square"]) < 2 * one["error"]


@pytest.mark.experiment
def test_gnudi_reaches_its_figures(experiment: Any, tmp_path: Path) -> None:
    gnudi, page = experiment("gnudi"), experiment("gnudi_page")
    found = gnudi.main(["--out", str(tmp_path), "--page", str(tmp_path / "docs" / "experiments" / "gnudi.md")])
    tables = {"xray": found["xray"]} | {name: one for name, one in found["ct"].items() if name != "seconds"}
    broken = [claim for name, one in tables.items() for claim in page.claims(name, one["psnr"]) if not claim[1]]
    broken = [claim for claim in broken if claim[0] != page.BY_LOSS]  # MAE learns faster: the page says so
    for rows in (found["validity"]["xray"], found["validity"]["ct"]):
        broken += [claim for claim in page.shape_claims(rows) if not claim[1]]
    assert not broken


@pytest.mark.experiment
def test_won_reaches_its_figures(experiment: Any, tmp_path: Path) -> None:
    won, page = experiment("won"), experiment("won_page")
    found = won.main(["--out", str(tmp_path), "--page", str(tmp_path / "docs" / "experiments" / "won.md")])
    rows = found["table"]["rows"]
    for name in ("N2V", "N2N", "N2C"):
        mean, _ = page.gain(rows, f"{name} + ours", name)
        assert mean > 0, f"{name} must gain"
