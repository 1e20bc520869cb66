"""The method for httomo: what it takes, what it refuses, and httomo's wrapper calling it, where that is installed."""

from pathlib import Path

import numpy as np
import pytest

import quietray
from quietray.adapters.httomo import denoise, output_dims, register

N_VIEWS, N_ROWS, N_COLS = 40, 3, 16


class OfNumpy1(np.ndarray):
    """An array without the attribute by which httomo 3.0, which asks for NumPy 1, tells those of a GPU."""

    device = None


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """A cylinder of 0.05 per pixel in a beam of 500 counts."""
    rng, offset = np.random.default_rng(0), np.arange(N_COLS) - 7.5
    chord = 2 * np.sqrt(np.clip(25 - offset**2, 0, None))
    expected = np.broadcast_to(500 * np.exp(-0.05 * chord), (N_VIEWS, N_ROWS, N_COLS))
    return {
        "data": (rng.poisson(expected) + 50).astype(np.float32),
        "flats": (rng.poisson(500, (10, N_ROWS, N_COLS)) + 50).astype(np.float32),
        "darks": np.full((4, N_ROWS, N_COLS), 50, np.float32),
        "angles_radians": np.linspace(0, np.pi, N_VIEWS, endpoint=False),
    }


def is_the_cylinder(volume: np.ndarray) -> None:
    assert volume.shape == (N_COLS, N_ROWS, N_COLS)
    assert volume.dtype == np.float32
    y, x = np.indices((N_COLS, N_COLS)) - 7.5
    inside, outside = np.hypot(x, y) < 3.5, np.hypot(x, y) > 6.5
    slices = volume.swapaxes(0, 1)
    assert slices[:, inside].mean() == pytest.approx(0.05, rel=0.1)
    assert abs(slices[:, outside].mean()) < 0.01


def test_counts_become_a_volume_as_httomo_lays_it_out(arrays: dict[str, np.ndarray]) -> None:
    is_the_cylinder(denoise(**arrays, center=7.5, budget="30s", method="gaussian"))
    assert output_dims((N_VIEWS, N_COLS)) == (N_COLS, N_COLS)


def test_transmissions_need_no_flats(arrays: dict[str, np.ndarray]) -> None:
    dark = arrays["darks"].mean(axis=0)
    arrays["data"] = (arrays["data"] - dark) / (arrays["flats"].mean(axis=0) - dark)
    is_the_cylinder(denoise(**arrays, normalised=True, center=7.5, budget="30s", method="gaussian"))
    with pytest.raises(quietray.FormatError, match="as after a normalisation"):
        denoise(**arrays)


def test_some_of_the_rows_are_not_taken_for_all(arrays: dict[str, np.ndarray]) -> None:
    arrays["data"] = arrays["data"][:, :2]
    with pytest.raises(quietray.SettingsError, match=r"all 3 rows.* got 2; .* max-cpu-slices of 3 or more, or give a"):
        denoise(**arrays)
    with pytest.raises(quietray.SettingsError, match="or normalise first"):
        denoise(**arrays, model="model")


def test_flats_that_are_none_are_not_believed(arrays: dict[str, np.ndarray]) -> None:
    """What httomo hands over in place of flats is memory that nobody has written to."""
    arrays["flats"] = np.empty_like(arrays["data"])
    with pytest.raises(quietray.FormatError, match="which httomo passes if there are none"):
        denoise(**arrays)


def test_what_httomo_asks_is_written_where_it_looks(tmp_path: Path) -> None:
    written = register(tmp_path)
    assert len(written) == 3
    assert all(path.is_relative_to(tmp_path) and path.stat().st_size for path in written)


def test_httomo_calls_it(arrays: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    why = "needs httomo, which pip alone does not install beside quietray; docs/adapters.md says how it was"
    wrappers = pytest.importorskip("httomo.method_wrappers", reason=why)
    query = pytest.importorskip("httomo_backends.methods_database.query", reason=why)
    import httomo_backends.methods_database.packages.backends as backends
    import yaml
    from httomo.preview import PreviewConfig, PreviewDimConfig
    from httomo.runner.auxiliary_data import AuxiliaryData
    from httomo.runner.dataset import DataSetBlock
    from mpi4py import MPI

    _, _, template = register(tmp_path)
    monkeypatch.setattr(query, "YAML_DIR", tmp_path / "methods_database/packages")
    monkeypatch.setattr(
        backends, "__path__", [*backends.__path__, str(tmp_path / "methods_database/packages/backends")]
    )
    monkeypatch.setattr(np, "get_array_module", lambda array: np, raising=False)  # it asks CuPy for it, GPU or not
    [entry] = yaml.safe_load(template.read_text())
    axes = [PreviewDimConfig(0, size) for size in (N_VIEWS, N_ROWS, N_COLS)]
    wrapper = wrappers.make_method_wrapper(
        query.MethodDatabaseRepository(),
        entry["module_path"],
        entry["method"],
        MPI.COMM_WORLD,
        PreviewConfig(*axes),
        **entry["parameters"] | {"center": 7.5, "budget": "30s", "method": "gaussian"},
    )
    assert wrapper.pattern.name == "sinogram"
    assert wrapper.calculate_output_dims((N_VIEWS, N_COLS)) == (N_COLS, N_COLS)
    aux = AuxiliaryData(arrays["angles_radians"], arrays["darks"], arrays["flats"])
    block = wrapper.execute(DataSetBlock(arrays["data"].view(OfNumpy1), aux, slicing_dim=1))
    is_the_cylinder(block.data)
