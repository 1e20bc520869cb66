"""Experiments that reproduce papers: their scenes are what they say, and their pages say what was measured."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quietray import FBP, Foam, ParallelProjector

FOLDER = Path(__file__).parents[1] / "experiments"


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what imports a module of the experiments' folder."""
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module


def test_hendriksen_scenes_are_what_they_say(experiment: Any, tmp_path: Path) -> None:
    scans = experiment("hendriksen_scans")
    size = scans.SIZES["toy"]
    within = np.sort(np.mod(np.concatenate(scans.interlaced(size)), np.pi))
    assert np.diff(within).min() > 1e-4, "no angle is seen twice"

    foam, beam = scans.foam_of(size), scans.beam_of(size, scans.half_turn(5))
    solid = Foam(np.empty((0, 4)), foam.radius).project(beam)
    assert np.allclose(scans.phases(foam, beam).sum(axis=0), solid, atol=1e-3), "matrix and grains fill the cylinder"
    assert (scans.patterns().argmax(axis=0)[:, None] != scans.patterns().argmax(axis=0)[None]).sum() == 12

    own = size.own
    slab, (beam, region) = scans.own_slab(own, tmp_path), scans.own_beam(own)
    assert slab["sinograms"].max() <= np.log(own.photons) + 1e-5, "a count of zero becomes one"
    one = beam.rows(1)
    whole = FBP()(ParallelProjector(one, one.grid(region)), slab["sinograms"])
    assert np.allclose(slab["parts"][:, :1].mean(axis=0), whole, atol=1e-5), "subsets keep their own angles"


def test_hendriksen_judges_as_it_says(experiment: Any) -> None:
    judged = experiment("hendriksen_scans").judged
    clean = np.random.default_rng(0).random((2, 32, 32), dtype=np.float32)
    clean[:, 0, 0] = 3.0  # in a corner: only the whole has this range
    found = judged(clean + np.float32(0.1), clean)
    assert found["psnr_whole"] == pytest.approx(20 * np.log10(np.ptp(clean) / 0.1), abs=0.01)
    assert found["psnr"] == pytest.approx(20.0, abs=0.1)


def test_hendriksen_page_holds_the_results(
    experiment: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main, out = experiment("hendriksen").main, tmp_path / "out"
    asked = ["--scale", "toy", "--only", "e", "--out", str(out), "--docs", str(tmp_path / "docs")]
    main(asked)
    kept = {name: (out / f"{name}.json").read_bytes() for name in "e"}
    page = (tmp_path / "docs/experiments/hendriksen.md").read_text()
    for found in kept.values():
        for name, row in json.loads(found)["rows"].items():
            if "psnr" in row:
                [line] = [line for line in page.splitlines() if line.startswith(f"| {name} |")]
                assert f"| {row['psnr']:.2f} |" in line
    for link in re.findall(r"\]\(\.\./(images/.*?)\)", page):
        assert 1000 < (tmp_path / "docs" / link).stat().st_size < 300_000

    def never(*arguments: Any, **more: Any) -> None:
        raise AssertionError("what was measured must not be measured again")

    monkeypatch.setattr(experiment("hendriksen"), "fit", never)
    main(asked)
    assert {name: (out / f"{name}.json").read_bytes() for name in "e"} == kept
    with pytest.raises(SystemExit, match="must be of scale small, got toy"):
        main([*asked, "--scale", "small"])
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["--only", "z"])
    assert "pieces must be some of a, b, c, d, e, f, t, got z" in capsys.readouterr().err


@pytest.mark.experiment
def test_hendriksen_small(tmp_path: Path) -> None:
    """The claims that hold at the small scale, in about ten minutes."""
    out, script = tmp_path / "out", FOLDER / "hendriksen.py"
    subprocess.run([sys.executable, script, "--out", out, "--docs", tmp_path / "docs"], check=True)
    a, b, c = (
        {name: row.get("psnr") for name, row in json.loads((out / f"{piece}.json").read_text())["rows"].items()}
        for piece in "abc"
    )
    best = a["Noise2Inverse K=4 X:1"]
    assert best > max(a["Noise2Self on radiographs, then FBP"], a["FBP, then Noise2Self on slices"])
    assert best > a["FBP"] + 6
    assert b["Noise2Inverse, 3 steps"] > b["Noise2Inverse, 1 steps"]
    assert c["10%: Noise2Inverse, all channels"] > c["10%: Noise2Inverse, each channel alone"]
