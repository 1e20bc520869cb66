"""The pages say what the program does: its flags, messages, public names; and the check of the site finds faults."""

import ast
import importlib.util
import pkgutil
import re
import shlex
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import ModuleType

import pytest

import quietray
import quietray.commands
from quietray.splits import SPLITS

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
WRITTEN_BY_EXPERIMENTS = ROOT / "docs" / "experiments"


def module(name: str) -> ModuleType:
    """Return a script of the folder of the site."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found
    spec.loader.exec_module(found)
    return found


def flags() -> dict[str, set[str]]:
    """Return the flags of each command, from the dataclasses that they are made of."""
    found = {}
    for info in pkgutil.iter_modules(quietray.commands.__path__, "quietray.commands."):
        for name, kind in vars(importlib.import_module(info.name)).items():
            if isinstance(kind, type) and is_dataclass(kind) and hasattr(kind, "run"):
                found[name.lower()] = {f"--{entry.name.strip('_').replace('_', '-')}" for entry in fields(kind)}
    return found


def commands(page: Path) -> list[str]:
    """Return the commands in the blocks of a page, those that are told in several lines as one."""
    blocks = re.findall(r"^```(?:\w*)\n(.*?)^```$", page.read_text(), re.M | re.S)
    blocks += re.findall(r"(?:^(?: {4}|\t).*\n)+", page.read_text(), re.M)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if re.match(r"\s*quietray [a-z]+ ", line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_flag_on_a_page_is_one_of_its_command(page: Path) -> None:
    known, unknown = flags(), []
    for line in commands(page):
        verb, *told = shlex.split(line, comments=True)[1:]
        assert verb in known, line
        unknown += [(line, word) for word in told if word.startswith("--") and word.split("=")[0] not in known[verb]]
    assert not unknown


def test_the_pages_have_commands() -> None:
    """Else the test before could not fail."""
    assert sum(len(commands(page)) for page in PAGES) > 60


def said() -> list[str]:
    """Return every text of the program, with … where a value is put in; neighbours that are added make one."""

    def text(node: ast.AST) -> str:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        if isinstance(node, ast.JoinedStr):
            return "".join(text(value) if isinstance(value, ast.Constant) else "…" for value in node.values)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return text(node.left) + text(node.right)
        return "…"

    kinds = (ast.Constant, ast.JoinedStr, ast.BinOp)
    trees = (ast.parse(path.read_text()) for path in sorted((ROOT / "src" / "quietray").rglob("*.py")))
    return [text(node) for tree in trees for node in ast.walk(tree) if isinstance(node, kinds)]


def quoted() -> list[str]:
    """Return the messages that the page on troubles explains."""
    page = (ROOT / "docs" / "guide" / "trouble.md").read_text()
    return re.findall(r"^`([^`\n]+)`\n: ", page, re.M)


def test_the_messages_that_are_explained_are_those_of_the_program() -> None:
    page = (ROOT / "docs" / "guide" / "trouble.md").read_text()
    explained, texts = quoted(), re.sub("…+", "…", "\n".join(said()))
    assert len(explained) > 40
    assert len(explained) == len(re.findall(r"^: ", page, re.M))
    gone = [message for message in explained if message not in texts]
    assert not gone, "\n".join(gone)


def test_the_drawings_are_those_of_the_script() -> None:
    drawn = module("drawings").DRAWINGS
    kept = {path.stem: path.read_text() for path in (ROOT / "docs" / "images" / "methods").glob("*.svg")}
    assert kept == drawn
    page = (ROOT / "docs" / "guide" / "methods.md").read_text()
    assert set(re.findall(r"images/methods/([\w-]+)\.svg", page)) == set(drawn)


def test_the_reference_lists_every_public_name() -> None:
    page = module("api_groups").api_page([*quietray.__all__, "novelty"])
    listed = re.findall(r"^   (\w+)$", page, re.M)
    assert sorted(listed) == sorted([*(name for name in quietray.__all__ if not name.startswith("_")), "novelty"])


def test_every_method_has_its_drawing_and_its_section() -> None:
    page = (ROOT / "docs" / "guide" / "methods.md").read_text().lower().replace("-", "")
    for method in SPLITS:
        assert re.search(rf"^## .*{method.replace('-', '')}", page, re.M), method


PAGE = '<html><body><h1 id="top">Site</h1>{}</body></html>'


@pytest.mark.parametrize(
    ("part", "fault"),
    [
        ('<a href="other.html#there">x</a> <a href="#top">x</a> <img src="a.png">', None),
        ('<a href="gone.html">x</a>', "does not exist"),
        ('<a href="other.html#nowhere">x</a>', "no such heading"),
        ('<a href="#nowhere">x</a>', "no such heading"),
        ('<img src="gone.png">', "does not exist"),
        ('<script src="https://example.org/x.js"></script>', "loads"),
        ('<link rel="stylesheet" href="//example.org/x.css">', "loads"),
    ],
)
def test_the_check_of_the_site_finds_faults(tmp_path: Path, part: str, fault: str | None) -> None:
    (tmp_path / "index.html").write_text(PAGE.format(part))
    (tmp_path / "other.html").write_text('<a name="there" href="https://example.org/a#b">x</a>')
    (tmp_path / "a.png").write_bytes(b"")
    faults, others = module("check_site").check(tmp_path)
    assert others == {"https://example.org/a"}
    assert len(faults) == (fault is not None)
    assert all(str(fault) in one for one in faults)
