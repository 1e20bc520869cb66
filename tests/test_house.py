"""What the house keeps to: short signatures, nobody who asks which method it is, one loop over slabs, short help."""

import ast
import functools
import inspect
import os
import pydoc
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import quietray

SOURCE = Path(quietray.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))
PAGES = sorted(
    page
    for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/*.md", "docs/guide/*.md", "benchmarks/*.md")
    for page in SOURCE.parent.parent.glob(name)
)
# Phrases that had to be read twice; CONTRIBUTING.md lists the words to use instead.
UNCLEAR = (
    r"hangs? on the",
    r"as everywhere\b",
    r"must meet\b",
    r"has no say",
    r"knows? nothing of",
    r"is said of it",
    r"for want of",
    r"of one's own",
    r"noise that neighbours share",
    r"a disk that says no",
    r"learns? (nothing )?by heart",
    r"what is what",
)
METHODS = r"method|split|Split|Noise2|Filter\b|Auto\b|Recorrupted|PseudoCT|APBSN"


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.FunctionDef):
                yield f"{module.relative_to(SOURCE)}: {node.name}", node


def test_no_function_has_more_than_eight_parameters() -> None:
    crowded = {}
    for name, node in functions():
        given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        count = sum(one.arg not in ("self", "cls") for one in given)
        if count > 8:
            crowded[name] = count
    assert not crowded


def test_hardly_anybody_asks_which_method_it_is() -> None:
    """At most five places outside `splits/`, where there were 71; all of them tell methods from filters or Auto."""
    found = [
        f"{module.relative_to(SOURCE)}: {line.strip()}"
        for module in MODULES
        if module.parent.name != "splits"
        for line in module.read_text().splitlines()
        if "isinstance(" in line and re.search(METHODS, line) and "isinstance(method, dict)" not in line
    ]
    asked = [line for line in found if "architecture" not in line]
    assert len(asked) <= 5, asked


def test_there_is_one_loop_over_slabs() -> None:
    """Whoever has slabs to run hands them to the run; only there are they gone through."""
    loops = []
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.For) and re.search(r"\bslabs\b", ast.unparse(node.iter)):
                loops.append(str(module.relative_to(SOURCE)))
    assert set(loops) <= {"running/slabs.py"}


@pytest.mark.parametrize("verb", ["denoise", "reconstruct", "compare", "train", "apply", "evaluate"])
def test_the_help_of_a_verb_fits_on_a_screen(verb: str) -> None:
    function = getattr(quietray, verb)
    shown = pydoc.plain(pydoc.render_doc(function))
    assert len(shown.splitlines()) <= 62
    signature = str(inspect.signature(function))
    assert "Correction(" not in signature
    assert len(signature) < 420


def test_modules_import_each_other_downwards_only() -> None:
    """The layers of pyproject.toml are kept by lint-imports; here, that every room has its place among them."""
    layers = (SOURCE.parent.parent / "pyproject.toml").read_text()
    rooms = {path.name for path in SOURCE.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    for room in rooms:
        assert re.search(rf'[" :]{room}[" :]', layers), room


@pytest.mark.parametrize(("stated", "found"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_that_wait_sleep_unless_the_user_says_otherwise(stated: str | None, found: str) -> None:
    known = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    given = known if stated is None else {**known, "OMP_WAIT_POLICY": stated}
    code = "import os, sys, quietray; assert 'torch' not in sys.modules; print(os.environ['OMP_WAIT_POLICY'])"
    told = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == found


@functools.cache
def prose(path: Path) -> str:
    """Return the text of a module or page without line breaks, and of a page without its tables."""
    text = path.read_text()
    if path.suffix == ".md":
        text = "\n".join(line for line in text.splitlines() if not line.startswith("|"))
    return re.sub(r'\s*"\s*\n\s*f?"|\s+(#:? )?', " ", text)


@pytest.mark.parametrize("phrase", UNCLEAR)
def test_no_unclear_phrases(phrase: str) -> None:
    found = [str(path) for path in (*MODULES, *PAGES) if re.search(phrase, prose(path), re.IGNORECASE)]
    assert not found, f"{phrase} in {found}: see the style list in CONTRIBUTING.md"


def test_unclear_phrases_are_found_across_lines(tmp_path: Path) -> None:
    """A phrase is found across a line break of a docstring, a comment or a message."""
    broken = ('"""How the noise hangs\n    on the signal."""', "# hangs\n    # on the", '"it hangs "\n    f"on the"')
    for number, text in enumerate(broken):
        module = tmp_path / f"module{number}.py"
        module.write_text(text)
        assert re.search(UNCLEAR[0], prose(module)), text
