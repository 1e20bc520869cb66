"""What would be published: it says what it must, holds what a user needs, and works from a folder of its own."""

import json
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.slow


def run(*command: object, cwd: Path, **environment: str) -> str:
    """Return what a program prints; if it fails, the test does, with its words."""
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the wheel and the source distribution, built with what is installed here; no network is needed."""
    pytest.importorskip("build", reason="the package is built with `build` (pip install 'quietray[dev]')")
    pytest.importorskip("hatchling", reason="the package is built with hatchling (pip install 'quietray[dev]')")
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that the wheel was installed to, its dependencies being those of this environment."""
    place = tmp_path_factory.mktemp("elsewhere") / "site"
    options = ("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "install", *options, "--target", place, built[0], cwd=place.parent)
    return place


def test_the_index_takes_it(built: tuple[Path, Path]) -> None:
    pytest.importorskip("twine", reason="the package is checked with twine (pip install 'quietray[dev]')")
    told = run(sys.executable, "-m", "twine", "check", "--strict", *built, cwd=ROOT)
    assert told.count("PASSED") == 2


def test_the_wheel_holds_code_weights_templates_and_types(built: tuple[Path, Path]) -> None:
    held = set(zipfile.ZipFile(built[0]).namelist())
    source = ROOT / "src"
    wanted = {
        str(path.relative_to(source))
        for path in (source / "quietray").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"quietray/py.typed", "quietray/__init__.pyi"} <= wanted
    assert any(name.endswith(".safetensors") for name in wanted)
    assert any("report/" in name and name.endswith((".html", ".j2")) for name in wanted)
    packed = {name for name in held if ".dist-info/" not in name}
    assert packed == wanted
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in held)


def test_the_source_distribution_can_be_built_and_tested(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[1]) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"pyproject.toml", "README.md", "LICENSE", "CITATION.cff", "constraints.txt", "CHANGELOG.md"}
    assert wanted | {"src/quietray/py.typed", "tests/conftest.py"} <= held


def test_the_versions_agree(built: tuple[Path, Path]) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert built[0].name.startswith(f"quietray-{version}-")


def test_the_wheel_works_from_another_folder(installed: Path, tmp_path: Path) -> None:
    """Nothing of the sources is in the way: a scan is simulated, denoised from the shipped prior, and reported on."""
    elsewhere = {"PYTHONPATH": str(installed)}
    where = run(sys.executable, "-c", "import quietray; print(quietray.__file__)", cwd=tmp_path, **elsewhere)
    assert Path(where.strip()).is_relative_to(installed)
    quietray = (sys.executable, "-m", "quietray.cli")
    size = ("--views", 48, "--rows", 6, "--cols", 32, "--spheres", 8, "--largest", 0.3, "--flats", 8, "--darks", 4)
    run(*quietray, "simulate", "--out", "scan.h5", *size, cwd=tmp_path, **elsewhere)
    asked = ("--method", "noise2inverse", "--from", "prior", "--steps", 2, "--out", "out", "--json")
    figures = json.loads(run(*quietray, "denoise", "scan.h5", *asked, cwd=tmp_path, **elsewhere))
    assert "prior" in figures["started_from"]
    assert {"volume.zarr", "report.html", "run.toml", "metrics.json", "model"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }
