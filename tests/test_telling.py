"""What a command tells: to the terminal, to a log, as JSON, to whoever has seen enough; and where it writes."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quietray
from quietray.cli import main
from quietray.commands.files import Info
from quietray.commands.images import Filter
from quietray.commands.noise import Decorrelate
from quietray.commands.runs import Apply, Compare, Denoise, Reconstruct, Train
from quietray.telling import Teller
from scans import disc_scan

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "


FEW = ["denoise", str(disc_scan()), "--steps", "3", "--slices", "1", "--from", "scratch"]


def failed(*words: str, code: int = 2) -> None:
    with pytest.raises(SystemExit) as left:
        main(list(words))
    assert left.value.code == code


@pytest.mark.parametrize(
    ("command", "place"),
    [
        (Denoise(Path("data/scan.h5")), "scan-denoised"),
        (Denoise(Path("data/scan.h5"), out=Path("mine")), "mine"),
        (Compare(Path("data/scan.h5")), "scan-compared"),
        (Train(Path("data/scan.h5")), "scan-model"),
        (Apply(Path("model"), Path("data/scan.h5")), "scan-applied"),
        (Reconstruct(Path("data/scan.h5")), "scan-reconstructed.zarr"),
        (Reconstruct(Path("data/scan.h5"), format="tiff"), "scan-reconstructed"),
        (Decorrelate(Path("data/scan.h5")), "scan-white.h5"),
        (Filter(Path("data/heads.dcm")), "heads-filtered"),
    ],
)
def test_outputs_are_named_after_what_they_are_made_from(command: Any, place: str) -> None:
    assert command.place == Path(place)


def test_folders_keep_their_points_and_the_current_one_has_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("2026.11.28", "rock.zarr"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert Denoise(Path("2026.11.28")).place == Path("2026.11.28-denoised")
    assert Denoise(Path("rock.zarr/")).place == Path("rock-denoised")
    assert Denoise(Path()).place == Path(f"{tmp_path.name}-denoised")


def test_a_run_says_where_it_writes_and_logs_what_it_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], short_report: None
) -> None:
    """The place without --out, the log with the time of each line, what --verbose adds, and the run resumed there."""
    monkeypatch.chdir(tmp_path)
    out = f"{disc_scan().stem}-denoised"
    words = [*FEW, "--log", "night.log", "--verbose"]
    main(words)
    said = capsys.readouterr().err
    assert said.startswith(f"output: {out}\n")
    assert (tmp_path / out / "report.html").exists()
    assert re.search(r"training took \d+\.\d s, step 3 of 3, .*memory \d+\.\d\d GiB", said)
    assert re.search(r"denoise took \d+\.\d s and at most \d+\.\d\d GiB", said)
    first = Path("night.log").read_text()
    assert all(re.match(STAMP, line) for line in first.splitlines())
    assert "\x1b" not in first
    assert "quietray denoise" in first.splitlines()[0]
    plain = " ".join(re.sub(STAMP, "", first).split())
    for told in ("calibrating took", "training took", "trained for only 3 steps", "report.html", "denoise took"):
        assert told in plain
        assert told in " ".join(said.split())
    failed(*words)
    assert f"{out} must not hold another run" in capsys.readouterr().err
    second = Path("night.log").read_text()
    assert second.startswith(first)
    assert "error: the output folder" in second.removeprefix(first)
    main([*words, "--resume"])
    assert {path.name for path in tmp_path.iterdir()} == {out, "night.log"}
    assert Path("night.log").read_text().startswith(second)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"quietray {quietray.__version__}\n"


def test_quiet_tells_the_last_line_only_and_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["reconstruct", str(disc_scan()), "--out", str(tmp_path / "volume.h5"), "--quiet"]
    main([*words, "--log", str(tmp_path / "log")])
    said = capsys.readouterr()
    assert (said.err, said.out) == (f"written: {tmp_path}/volume.h5\n", "")
    assert "reconstructing took" in (tmp_path / "log").read_text()
    failed(*words)
    assert capsys.readouterr().err.startswith("error: the volume")
    figures = {"out": "here", "estimate": {"psnr_gain_db": 11.26}, "warnings": ["one", "two"]}
    assert Denoise(Path("scan.h5")).last_line(figures) == "written: here, estimated gain +11.3 dB, 2 warnings"
    vague = {"psnr_gain_db": None, "psnr_gain_db_at_least": 9.04, "psnr_gain_db_at_most": 12.0}
    for change, end in (({}, "to +12.0 dB"), ({"psnr_gain_db_at_most": None}, "or more")):
        told = Denoise(Path("scan.h5")).last_line({"out": "here", "estimate": vague | change})
        assert told == f"written: here, estimated gain +9.0 dB {end}"


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        (("denoise", "absent.h5"), "FormatError", "the scan must exist"),
        (("denoise", "--typo"), "SettingsError", "--typo must be a flag"),
        (("denoise",), "SettingsError", "Missing from quietray denoise"),
        (("denoise", "absent.h5", "--seed", "many"), "SettingsError", "Error parsing --seed"),
        (("denoize",), "SettingsError", "denoize"),
    ],
)
def test_errors_are_json_as_well(
    words: tuple[str, ...], kind: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    failed(*words, "--json")
    document = json.loads(capsys.readouterr().out)
    assert list(document) == ["error"]
    assert (document["error"]["kind"], document["error"]["exit_code"]) == (kind, 2)
    assert said in document["error"]["message"]
    assert "─" not in document["error"]["message"]


def test_a_refused_check_is_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = quietray.read(disc_scan())
    counts = np.asarray(scan.projections[:])
    bright = quietray.Scan.from_arrays(
        counts, np.rad2deg(scan.geometry.angles), flats=np.asarray(scan.flats[:]) // 1000
    )
    quietray.write_scan(tmp_path / "bright.h5", bright)
    failed("check", str(tmp_path / "bright.h5"), "--json")
    document = json.loads(capsys.readouterr().out)
    assert "projections" in document["error"]["facts"]


def test_a_fault_of_ours_is_json_as_well(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(Info, "run", broken)
    failed("info", str(disc_scan()), "--json", code=1)
    said = capsys.readouterr()
    assert json.loads(said.out)["error"]["kind"] == "ZeroDivisionError"
    assert "Traceback" in said.err
    assert "this is a fault of quietray" in said.err


def piped(words: tuple[str, ...], stream: str) -> subprocess.CompletedProcess[str]:
    """Run a command of which nobody reads what it writes to a stream, as in ``quietray --help | head -0``."""
    reading, writing = os.pipe()
    os.close(reading)
    streams: dict[str, int] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: writing}
    ran = subprocess.run([sys.executable, "-m", "quietray.cli", *words], text=True, **streams)
    os.close(writing)
    return ran


@pytest.mark.parametrize(
    ("words", "stream", "code"),
    [
        (("--help",), "stdout", 141),
        (("denoise", "--help-all"), "stdout", 141),
        (("denoise", "absent.h5", "--json"), "stdout", 141),
        (("denoise", "absent.h5"), "stderr", 141),
        (("denoise", "--help"), "stderr", 0),  # which writes nothing there
        (("completion", "bash"), "stdout", 141),
    ],
)
def test_a_reader_that_has_seen_enough_is_no_fault(words: tuple[str, ...], stream: str, code: int) -> None:
    ran = piped(words, stream)
    assert ran.returncode == code, ran
    assert "Traceback" not in (ran.stderr or "")
    assert "Exception ignored" not in (ran.stderr or "")


def forked(words: tuple[str, ...], stream: str, other: Path) -> int:
    """Return the exit code of a command in a forked process, which need not import anything again."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code: Any = 99
    try:
        signal.alarm(600)  # no test waits for ever
        reading, writing = os.pipe()
        os.close(reading)
        kept = os.open(other, os.O_WRONLY | os.O_CREAT)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(writing if name == stream else kept, number)
            setattr(sys, name, os.fdopen(number, "w", closefd=False))
        main(list(words))
        code = 0
    except SystemExit as left:
        code = left.code
    finally:
        os._exit(code)


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_nor_is_it_of_any_command(stream: str, tmp_path: Path) -> None:
    scan, volume, images = str(disc_scan()), str(tmp_path / "volume.h5"), tmp_path / "images.npy"
    np.save(images, np.random.default_rng(0).normal(0, 1, (4, 16, 16)).astype(np.float32))
    few, model = ("--steps", "3", "--slices", "1", "--method", "noise2inverse"), str(tmp_path / "model")
    main(["reconstruct", scan, "--out", volume])
    main(["train", scan, "--out", model, *few])
    commands: list[tuple[str, ...]] = [
        *(("info", scan), ("check", scan), ("models",), ("evaluate", volume, volume), ("diagnose", scan)),
        *(
            ("reconstruct", scan),
            ("decorrelate", scan),
            ("apply", model, scan),
            ("train", scan, *few),
        ),
        *(("denoise", scan, "--from", "scratch", *few), ("compare", scan, "--budget", "5s", "--rows", "0:8")),
        ("filter", str(images), "--filter", "median"),
        ("simulate", "--views", "6", "--rows", "2", "--cols", "16", "--spheres", "3", "--largest", "0.2"),
    ]
    for number, words in enumerate(commands):
        place = () if words[0] in ("info", "check", "models", "evaluate") else ("--out", str(tmp_path / f"out{number}"))
        told = tmp_path / f"told{number}"
        assert forked((*words, *place, "--json"), stream, told) == 141, words
        assert "Traceback" not in told.read_text()


def test_a_full_disk_of_the_log_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full, a device that is always full, found none")
    failed("info", str(disc_scan()), "--log", "/dev/full")
    assert "the log must be written, got: No space left on device" in capsys.readouterr().err


def test_tables_are_whole_in_a_log(tmp_path: Path) -> None:
    from rich.table import Table

    table = Table("a name", "value")
    table.add_row("x", "[bold]1[/]")
    log = tmp_path / "log"
    teller = Teller(log, quiet=True)
    teller.print(table)
    teller.note_down("[not markup]")
    teller.detail("not asked for")
    lines = [re.sub(STAMP, "", line) for line in log.read_text().splitlines()]
    assert lines[-1] == "[not markup]"
    assert any("a name" in line and "value" in line for line in lines)
    assert not any("asked" in line for line in lines)


def test_what_only_networks_use_is_said_of_a_filter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = ["denoise", str(disc_scan()), "--method", "gaussian", "--out", str(tmp_path / "out"), "--overwrite"]
    main([*plain, "--gpus", "2", "--device", "cpu", "--steps", "3", "--from", "scratch"])
    told = "".join(capsys.readouterr())
    assert "gaussian trains no network, so --from, --gpus and the settings of the training are not used." in told
    assert "0 steps" not in told
    main(plain)
    assert "trains no network" not in "".join(capsys.readouterr())
