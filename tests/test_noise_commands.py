"""`quietray diagnose` and `quietray decorrelate`, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import quietray
from quietray.cli import main


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("noise") / "scan.h5"
    main(
        "simulate --views 24 --rows 64 --cols 96 --photons 400 --spheres 10 --largest 0.2 --flats 80 "
        f"--response-width 0.5 --read-noise 0 --out {place}".split()
    )
    return place


def test_diagnose_says_what_the_noise_is(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["diagnose", str(scan), "--out", str(tmp_path / "noise"), "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert shown["noise"].startswith("correlated")
    assert shown["recommended"] == "noise2self after decorrelation", "24 views are too few to split"
    verdicts = {entry["method"]: entry["answer"] for entry in shown["verdicts"]}
    assert verdicts["noise2self"] == "not valid"
    assert verdicts["noise2self after decorrelation"] != "not valid"
    assert json.loads((tmp_path / "noise" / "diagnosis.json").read_text())["verdicts"] == shown["verdicts"]
    from matplotlib import image

    picture = image.imread(tmp_path / "noise" / "noise.png")
    assert picture[..., :3].std() > 0.05, "the picture shows something"


def test_decorrelate_whitens_and_goes_back(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    white, back = tmp_path / "white.h5", tmp_path / "back.h5"
    main(["decorrelate", str(scan), "--out", str(white)])
    main(["diagnose", str(white), "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert {entry["method"]: entry["answer"] for entry in shown["verdicts"]}["noise2self"] != "not valid"

    main(["decorrelate", str(white), "--reblur", "--out", str(back)])
    measured = quietray.read(scan)
    again = quietray.read(back).projections[:]
    dark = np.asarray(measured.darks[:], np.float32).mean(axis=0)
    np.testing.assert_allclose(again[:, 4:-4, 4:-4], (measured.projections[:] - dark)[:, 4:-4, 4:-4], atol=30)
    with pytest.raises(SystemExit) as refused:
        main(["decorrelate", str(white), "--out", str(tmp_path / "twice.h5")])
    assert refused.value.code == 2
    with pytest.raises(SystemExit) as occupied:
        main(["decorrelate", str(scan), "--out", str(white)])
    assert occupied.value.code == 2
