"""`quietray diagnose` and `quietray decorrelate`, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

import quietray
from quietray.cli import main
from quietray.simulate.noise import Scintillator


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


def frames_in(place: Path, levels: tuple[float, ...], shape: tuple[int, int] = (64, 96), n: int = 12) -> Path:
    """Write frames of static scenes, as a stack without angles."""
    model, rng = Scintillator(gain=10.0, dark=100.0, response_width=0.5), np.random.default_rng(0)
    frames = np.concatenate([model.sample(np.full((n, *shape), level), rng) for level in levels])
    with h5py.File(place, "w") as file:
        file["exchange/data"] = np.rint(frames).astype(np.uint16)
    return place


def test_static_frames_are_read_instead_of_flats(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, series = frames_in(tmp_path / "one.h5", (400.0,)), frames_in(tmp_path / "series.h5", (100.0, 400.0, 200.0))
    main(["diagnose", str(scan), "--static", str(one), "--json", "--counts-per-photon", "5"])
    shown = json.loads(capsys.readouterr().out)
    assert shown["source"] == "static frames"
    assert "12 repeated frames" in shown["source_why"]
    assert {entry["method"]: entry["answer"] for entry in shown["verdicts"]}["noise2noise"] == "valid"
    assert shown["excess"] == pytest.approx(2, rel=0.2)
    main(["diagnose", str(scan), "--static", str(series), "--json"])
    out, err = capsys.readouterr()
    assert [one["frames"] for one in json.loads(out)["exposures"]] == [12, 12, 12]
    assert json.loads(out)["gain"] == pytest.approx(10, rel=0.1)
    assert "exposures" in err
    assert "finest details" in err, "what whitening does to the noise"


def test_static_frames_of_another_size_are_refused(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in (frames_in(tmp_path / "other.h5", (400.0,), (64, 80)), tmp_path / "missing.h5"):
        with pytest.raises(SystemExit) as refused:
            main(["diagnose", str(scan), "--static", str(place)])
        assert refused.value.code == 2
        assert "must" in capsys.readouterr().err


def test_what_whitening_costs_is_said_before_it_is_done(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["decorrelate", str(scan), "--out", str(tmp_path / "white.h5"), "--json"])
    out, err = capsys.readouterr()
    assert json.loads(out)["verdict"] in ("valid", "valid with a warning")
    said = " ".join(err.split())  # the terminal breaks lines where it likes
    assert said.index("raises the variance") < said.index("The noise was whitened")
