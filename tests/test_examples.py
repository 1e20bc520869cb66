"""Every example runs as it stands, and does what it says."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = {path.stem for path in EXAMPLES.glob("*.py")}
OURS = {"raw_scan", "repeats", "own_method", "one_model", "slices", "compare"}

pytestmark = pytest.mark.slow  # three to fifteen seconds each


@pytest.fixture
def example(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return an example as a module."""
    spec = importlib.util.spec_from_file_location(request.param, EXAMPLES / f"{request.param}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, request.param, module)
    spec.loader.exec_module(module)
    return module


# Five seeds gave: slices 3.44 +- 0.05 times, the others 4.28 +- 0.04, 3.4 +- 0.5 and 4.98 +- 0.02 dB.  What is asked
# lies three of these sds below, and 0.2 more for other processors.
@pytest.mark.parametrize(
    ("example", "least"),
    [("slices", 3.0), ("raw_scan", 3.9), ("repeats", 1.6), ("one_model", 4.7)],
    indirect=["example"],
)
def test_the_result_is_nearer_to_the_truth(example: ModuleType, least: float) -> None:
    assert example.main() > least


@pytest.mark.parametrize("example", ["own_method"], indirect=True)
def test_a_method_of_ones_own_is_found_by_its_name(example: ModuleType) -> None:
    result = example.main()
    assert result.settings.method == example.MirroredPairs()
    assert np.isfinite(result.volume).all()


@pytest.mark.parametrize("example", ["compare"], indirect=True)
def test_methods_are_ranked(example: ModuleType) -> None:
    ranked = example.main()
    assert ranked.index("nlm") < ranked.index("fbp")  # 3.4 dB apart
    assert len(ranked) >= 6


def test_the_page_shows_every_example_that_is_tested_here() -> None:
    page = (EXAMPLES.parent / "docs" / "guide" / "examples.md").read_text()
    assert OURS <= NAMES
    assert all(f"examples/{name}.py" in page for name in OURS)
