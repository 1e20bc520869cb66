"""The examples of other programs run, where these are installed; the pipeline names what there is."""

import importlib.util
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from quietray.adapters import httomo

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "needs"), [("algotom_arrays.py", "algotom"), ("cil_data.py", "cil")])
def test_an_example_runs(name: str, needs: str) -> None:
    if importlib.util.find_spec(needs) is None:
        pytest.skip(f"needs {needs}: docs/adapters.md says where it is to be had")
    told = subprocess.run([sys.executable, str(EXAMPLES / name), "20s"], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr[-2000:]
    assert "gain" in told.stdout


def test_the_pipeline_has_the_parameters_of_the_method_and_of_its_template() -> None:
    yaml = pytest.importorskip("yaml", reason="needs PyYAML, which httomo brings")
    _, entry = yaml.safe_load((EXAMPLES / "httomo.yaml").read_text())
    [template] = yaml.safe_load(httomo._TEMPLATE)
    assert entry == template
    known = inspect.signature(httomo.denoise).parameters
    assert set(entry["parameters"]) - set(known) <= {"method", "device"}
