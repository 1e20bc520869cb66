"""Messages name flags on the command line and parameters in Python: every one of them, and only such that there are."""

import ast
import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quietray
from quietray.cli import main
from quietray.commands.table import COMMANDS
from quietray.detector.verdicts import Verdict
from quietray.io.scans.raw import Stated
from quietray.running.settings import Given
from quietray.running.watch import Watch
from quietray.wording import PARAMETERS, flags_spoken, told

SOURCE = Path(quietray.__file__).parent
FLAGS = {entry.name.strip("_") for kind in COMMANDS.values() for entry in dataclasses.fields(kind)}
VERBS = ("denoise", "reconstruct", "compare", "train", "apply", "evaluate", "describe", "read", "diagnose")


def messages() -> Iterator[tuple[str, str]]:
    """Return every text in the code that names a flag, but for docstrings and the command line's own."""
    for module in SOURCE.rglob("*.py"):
        if module.parent.name == "commands" or module.name in ("cli.py", "telling.py", "wording.py"):
            continue
        tree = ast.parse(module.read_text())
        whole = (ast.Module, ast.ClassDef, ast.FunctionDef)
        docs = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, whole) and node.body and isinstance(node.body[0], ast.Expr)}  # noqa: E501  # fmt: skip
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
                if re.search(r"(?<![\w-])--[a-z]", node.value) and "var(--" not in node.value:  # which is a style sheet
                    yield f"{module.relative_to(SOURCE)}:{node.lineno}", node.value


def parameters() -> set[str]:
    """Return what can be given in Python: to a verb, to `read`, or to a class of settings."""
    known = set(Given.__annotations__) | set(Stated.__annotations__)
    for name in VERBS:
        known |= set(inspect.signature(getattr(quietray, name)).parameters)
    for kind in (quietray.Correction, quietray.Phase, quietray.Training, quietray.Noise2Inverse):
        known |= {f"{kind.__name__}({entry.name}" for entry in dataclasses.fields(kind)}
    return known | {"on_cluster(place"}


def test_every_message_can_be_said_in_python() -> None:
    known, seen = parameters(), 0
    for where, text in messages():
        for flag in re.findall(r"(?<![\w-])--([a-z][a-z0-9-]*)", text):
            name = flag.replace("-", "_")
            assert name in FLAGS, f"{where}: --{flag} is no flag"
            said = told(f"--{flag}")
            assert re.split("=", said)[0] in known, f"{where}: {said} is no parameter"
            seen += 1
        assert "--" not in told(text), where
    assert seen > 150


def test_what_python_calls_otherwise_is_a_flag() -> None:
    assert set(PARAMETERS) <= FLAGS


def test_all_that_python_hands_out_speaks_python(tmp_path: Path, capsys: Any) -> None:
    counts = np.random.default_rng(0).poisson(50, (20, 2, 16)).astype(np.uint16)
    with pytest.raises(quietray.QuietrayError) as caught:
        quietray.denoise(counts, np.arange(20) * 9)
    assert "such as flats=60000" in str(caught.value)
    assert "--" not in str(caught.value)
    with flags_spoken():
        assert "such as --flats 60000" in str(caught.value)
    verdict = Verdict("x", "valid", "y", "use separate flats (--own-flats yes)")
    assert verdict.advice == "use separate flats (Correction(own_flats=True))"
    notes: list[str] = []

    class Told(Watch):
        def note(self, text: str) -> None:
            notes.append(text)

    flats = np.random.default_rng(1).poisson(60, (9, 2, 16)).astype(np.uint16)
    result = quietray.denoise(counts, np.arange(20) * 9, flats=flats, method="gaussian", watch=Told())
    assert any("rotation_axis=" in note for note in notes)
    assert not [text for text in (*notes, *result.notes, *result.warnings) if "--" in text]
    np.save(tmp_path / "scan.npy", counts)
    with pytest.raises(SystemExit):
        main(["denoise", str(tmp_path / "scan.npy"), "--angles", "0:180", "--out", str(tmp_path / "out")])
    assert "--flats 60000" in " ".join(capsys.readouterr().err.split())
    assert "flats=60000" in str(caught.value)  # the command line is done
