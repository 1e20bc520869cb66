"""Completion in a shell: what pressing the key would offer."""

import os
import re
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


def test_fish_completes_commands_flags_and_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("fish") is None:
        pytest.skip("needs fish, found none")
    main(["completion", "fish"])
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "scan.h5").touch()

    def offers(line: str) -> set[str]:
        code = f"source script; complete -C '{line}'"
        environment = {**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
        done = subprocess.run(
            ["fish", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return {line.split("\t")[0] for line in done.stdout.splitlines()}

    assert offers("quietray de") == {"denoise", "demo", "decorrelate"}
    assert offers("quietray denoise scan.h5 --bud") == {"--budget"}
    assert offers("quietray reconstruct --filter ") == {"ram-lak", "shepp-logan", "hann"}
    assert offers("quietray models re") == {"remove"}
    assert offers("quietray denoise sca") == {"scan.h5"}


# zsh completes only for a terminal: this makes one, presses the key, and prints the screen.
_IN_ZSH = """
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PS1=; PS2=; autoload -Uz compinit; compinit -u -D; source $1; bindkey '^I' list-choices; echo RE''ADY"
zpty -r shell line "*READY*"
zpty -w -n shell "$2"$'\\t'
zpty -r shell line "*$3*"
print -rn -- "$line"
zpty -d shell
"""


def test_zsh_completes_commands_and_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("needs zsh, found none")
    main(["completion", "zsh"])
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)

    def screen(line: str, until: str) -> str:
        """Return what is on the screen once the last choice is there; without it, this would wait and fail."""
        command = ["zsh", "-f", "-c", _IN_ZSH, "zsh", str(script), line, until]
        environment = {**os.environ, "HOME": str(tmp_path), "TERM": "vt100"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
        return re.sub(r"\x1b\[[?0-9;]*[A-Za-z]|\x00", " ", done.stdout)

    shown = screen("quietray de", "denoise ")
    assert {"decorrelate", "demo", "denoise"} <= set(shown.split())
    assert "diagnose" not in shown
    assert "--budget " in screen("quietray denoise --bud", "Time for training")


def test_bash_takes_it_as_a_user_would_give_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("bash") is None:
        pytest.skip("needs bash, found none")
    main(["completion", "bash"])
    (tmp_path / "script").write_text(capsys.readouterr().out)
    code = f"source {tmp_path}/script; complete -p quietray"
    done = subprocess.run(["bash", "--norc", "-c", code], capture_output=True, text=True, check=True)
    assert "-o default -F _quietray quietray" in done.stdout
