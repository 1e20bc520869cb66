"""What a command tells: to the terminal, to a log, as JSON, to whoever has seen enough; and where it writes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quietray
from quietray import cli
from quietray.cli import main
from quietray.telling import Teller
from scans import disc_scan

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "


def few(out: Path | str) -> list[str]:
    """Return a quick command that denoises."""
    return ["denoise", str(disc_scan()), "--out", str(out), "--steps", "3", "--slices", "1", "--from", "scratch"]


def failed(*words: str, code: int = 2) -> None:
    with pytest.raises(SystemExit) as left:
        main(list(words))
    assert left.value.code == code


@pytest.mark.parametrize(
    ("command", "place"),
    [
        (cli.Denoise(Path("data/scan.h5")), "scan-denoised"),
        (cli.Denoise(Path("data/scan.h5"), out=Path("mine")), "mine"),
        (cli.Compare(Path("data/scan.h5")), "scan-compared"),
        (cli.Train(Path("data/scan.h5")), "scan-model"),
        (cli.Apply(Path("model"), Path("data/scan.h5")), "scan-applied"),
        (cli.Reconstruct(Path("data/scan.h5")), "scan-reconstructed.zarr"),
        (cli.Reconstruct(Path("data/scan.h5"), format="tiff"), "scan-reconstructed"),
        (cli.Decorrelate(Path("data/scan.h5")), "scan-white.h5"),
        (cli.Filter(Path("data/heads.dcm")), "heads-filtered"),
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
    assert cli.Denoise(Path("2026.11.28")).place == Path("2026.11.28-denoised")
    assert cli.Denoise(Path("rock.zarr/")).place == Path("rock-denoised")
    assert cli.Denoise(Path()).place == Path(f"{tmp_path.name}-denoised")


def test_a_run_without_out_says_where_it_writes_and_is_resumed_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [word for word in few("") if word not in ("--out", "")]
    main(words)
    out = f"{disc_scan().stem}-denoised"
    assert capsys.readouterr().err.startswith(f"output: {out}\n")
    assert (tmp_path / out / "report.html").exists()
    failed(*words)
    assert f"{out} must not hold another run" in capsys.readouterr().err
    main([*words, "--resume"])
    assert list(tmp_path.iterdir()) == [tmp_path / out]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"quietray {quietray.__version__}\n"


def test_a_log_has_all_that_is_told_with_the_time_of_each_line_and_is_added_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "night.log"
    main([*few(tmp_path / "out"), "--log", str(log)])
    said = capsys.readouterr().err
    first = log.read_text()
    assert all(re.match(STAMP, line) for line in first.splitlines())
    assert "\x1b" not in first
    assert "quietray denoise" in first.splitlines()[0]
    plain = " ".join(re.sub(STAMP, "", first).split())
    for words in ("calibrating took", "training took", "trained for only 3 steps", "report.html"):
        assert words in plain
        assert words in " ".join(said.split())
    failed(*few(tmp_path / "out"), "--log", str(log), code=2)
    assert log.read_text().startswith(first)
    assert "error: the output folder" not in first
    assert "error: the output folder" in log.read_text()


def test_quiet_tells_the_last_line_only_and_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "all.log"
    main([*few(tmp_path / "out"), "--quiet", "--log", str(log)])
    said = capsys.readouterr()
    assert re.fullmatch(rf"written: {tmp_path}/out, estimated gain [+-]\d+\.\d dB, \d+ warnings\n", said.err)
    assert said.out == ""
    assert "training took" in log.read_text()
    failed(*few(tmp_path / "out"), "--quiet")
    assert capsys.readouterr().err.startswith("error: the output folder")


def test_verbose_tells_times_and_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([*few(tmp_path / "out"), "--verbose"])
    said = capsys.readouterr().err
    assert re.search(r"training took \d+\.\d s, .*memory \d+\.\d\d GiB", said)
    assert re.search(r"denoise took \d+\.\d s and at most \d+\.\d\d GiB", said)


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

    monkeypatch.setattr(cli.Info, "run", broken)
    failed("info", str(disc_scan()), "--json", code=1)
    said = capsys.readouterr()
    assert json.loads(said.out)["error"]["kind"] == "ZeroDivisionError"
    assert "Traceback" in said.err
    assert "this is a fault of quietray" in said.err


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("words", [("info", "--json"), ("models", "--json"), ("--help",), ("denoise", "--help")])
def test_a_reader_that_has_seen_enough_is_no_fault(stream: str, words: tuple[str, ...]) -> None:
    """As in ``quietray info scan.h5 | head -1``."""
    reading, writing = os.pipe()
    os.close(reading)
    told = [*words[:1], str(disc_scan()), *words[1:]] if words[0] == "info" else words
    streams: dict[str, int] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: writing}
    ran = subprocess.run([sys.executable, "-m", "quietray.cli", *told], text=True, **streams)
    os.close(writing)
    assert not ran.stdout or stream == "stderr"
    assert not ran.stderr or "Traceback" not in ran.stderr
    writes_there = stream == "stdout" or words[0] in ("info", "models")
    assert ran.returncode == (141 if writes_there else 0)


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
