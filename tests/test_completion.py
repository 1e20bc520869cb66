"""Completion in a shell: what pressing the key would offer."""

import shutil
import subprocess
from pathlib import Path

import pytest

from quietray.cli import main
from quietray.commands.flags import NAMES
from quietray.commands.manual import options_of
from quietray.commands.table import COMMANDS


@pytest.fixture(params=["bash", "zsh", "fish"])
def script(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """A shell's name and the script for it."""
    main(["completion", request.param])
    return request.param, capsys.readouterr().out


def offered(script: str, *words: str) -> set[str]:
    """Return what bash offers for the last of the words."""
    line = " ".join(f"'{word}'" for word in words)
    code = (
        f"{script}\nCOMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _quietray; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    done = subprocess.run(["bash", "--norc", "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return set(done.stdout.split())


def test_every_shell_knows_every_command_and_flag(script: tuple[str, str], tmp_path: Path) -> None:
    shell, text = script
    for name, kind in COMMANDS.items():
        assert name in text
        for option in options_of(kind):
            assert not option.flag or (f"-l {option.flag[2:]} " if shell == "fish" else option.flag) in text
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell} to look at the script, found none")
    (tmp_path / "script").write_text(text)
    subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


def test_bash_completes_commands_flags_and_values(capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("bash") is None:
        pytest.skip("needs bash, found none")
    main(["completion", "bash"])
    script = capsys.readouterr().out
    assert offered(script, "quietray", "") == {*COMMANDS, "--help", "--version"}
    assert offered(script, "quietray", "de") == {"denoise", "demo", "decorrelate"}
    assert offered(script, "quietray", "denoise", "scan.h5", "--bud") == {"--budget"}
    assert offered(script, "quietray", "denoise", "--") >= {"--out", "--from", "--help-all", "--log"}
    assert offered(script, "quietray", "denoise", "scan.h5", "--method", "noise2") == {
        name for name in NAMES["method"] if name.startswith("noise2")
    }
    assert offered(script, "quietray", "reconstruct", "--filter", "") == {"ram-lak", "shepp-logan", "hann"}
    assert "bilateral" in offered(script, "quietray", "filter", "--filter", "")
    assert offered(script, "quietray", "models", "re") == {"remove"}
    assert offered(script, "quietray", "denoise", "sc") == set()  # which is left to the names of files
    assert offered(script, "quietray", "denoise", "--out", "sc") == set()


def test_bash_takes_it_as_a_user_would_give_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("bash") is None:
        pytest.skip("needs bash, found none")
    main(["completion", "bash"])
    (tmp_path / "script").write_text(capsys.readouterr().out)
    code = f"source {tmp_path}/script; complete -p quietray"
    done = subprocess.run(["bash", "--norc", "-c", code], capture_output=True, text=True, check=True)
    assert "-o default -F _quietray quietray" in done.stdout
