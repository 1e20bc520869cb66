"""The code that a newcomer copies runs as it is printed."""

import functools
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quietray
from quietray.method import METHODS
from scans import disc_scan, quick

ROOT = Path(__file__).parent.parent


def blocks(page: str) -> list[str]:
    """Return the Python code of a page."""
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.M | re.S)


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs take a few steps of a small network, whatever their budget."""
    small = quick(steps=6)
    told = {"network": small.network, "training": small.training, "symmetries": 1}
    told |= {"method": small.method}  # auto would spend the budget on comparing
    monkeypatch.setattr(quietray, "denoise", functools.partial(quietray.denoise, **told))


def test_from_arrays_to_an_array_in_five_lines(quickly: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where clean.tif is written
    code = blocks("README.md")[0]
    assert len([line for line in code.splitlines() if line]) <= 5
    scan = quietray.read(disc_scan())
    given: dict[str, Any] = {
        "projections": np.asarray(scan.projections[:]),
        "angles": np.rad2deg(scan.geometry.angles),
        "flats": np.asarray(scan.flats[:]),
        "darks": np.asarray(scan.darks[:]),
    }
    exec(code, given)
    assert isinstance(given["volume"], np.ndarray)
    assert given["volume"].shape == (12, 24, 24)
    assert np.isfinite(given["volume"]).all()
    assert given["result"].metrics.scan.unit == "1/pixel"
    assert (tmp_path / "clean.tif").stat().st_size > 12 * 24 * 24
    page = (ROOT / "README.md").read_text()
    assert page.index("![") < page.index("```python") < page.index("\n## ")


def test_the_method_of_ones_own_runs(quickly: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a module of its own, as printed: as an object, and by its name."""
    monkeypatch.setattr(METHODS, "_kinds", dict(METHODS._kinds))
    code, use = blocks("docs/own-method.md")
    place = tmp_path / "even_odd.py"
    place.write_text(code)
    spec = importlib.util.spec_from_file_location("even_odd", place)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "even_odd", module)
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    given: dict[str, Any] = {"quietray": quietray, "EvenOdd": module.EvenOdd, "scan": quietray.read(disc_scan())}
    for line, slices in zip(use.splitlines(), (3, 1), strict=True):
        exec(line, given)
        result = given["result"]
        assert result.metrics.method.name == "evenodd"
        assert result.settings.method == module.EvenOdd(slices=slices)
        assert np.isfinite(result.metrics.estimate.rmse_noisy)
