"""What libraries raise on damaged bytes is told as damage; what our own lines get wrong stays a fault of ours."""

import io
import json
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

import mutants
import quietray
from quietray.cli import main
from quietray.errors import FormatError, QuietrayError
from quietray.io import LazyFrames, read, read_images, read_volume
from quietray.io.damage import damage_told
from quietray.io.scans.dxchange import DXchange


def raised_by_a_library() -> None:
    """Raise an AttributeError in a line that is not ours."""
    io.TextIOWrapper(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: raised_by_a_library(),
        lambda: json.loads("[1,"),
        lambda: zlib.decompress(b"no"),
        lambda: np.frombuffer(b"123", np.float64),
        lambda: b"\xff".decode(),
        lambda: int("x" * 10000),
        lambda: np.empty((10**6, 10**6, 10**3)),
        lambda: [].pop(),
    ],
)
def test_what_values_and_libraries_raise_is_damage(wrong):
    with pytest.raises(FormatError, match=r"^scan\.h5:/data must be readable, got: [^\n]{3,400}; it may be") as told:
        with damage_told("scan.h5:/data"):
            wrong()
    assert told.value.__cause__ is not None


def test_what_is_refused_already_stays_as_it_is():
    with pytest.raises(QuietrayError, match=r"^mine$"), damage_told("scan.h5"):
        raise QuietrayError("mine")


@pytest.mark.parametrize("kind", [AttributeError, NameError, TypeError, IndexError, KeyError, AssertionError])
def test_a_mistake_in_our_own_lines_is_no_damage(tmp_path, monkeypatch, capsys, kind):
    """Code compiled as of a file of this package stands for a line of ours that is wrong."""
    place = Path(quietray.__file__).parent / "io" / "scans" / "dxchange.py"
    found: dict = {}
    exec(compile(f"def read(self, source, flags):\n    raise {kind.__name__}('ours')", str(place), "exec"), found)
    monkeypatch.setattr(DXchange, "read", found["read"])
    path = mutants.KINDS["dxchange"].make(tmp_path)
    with pytest.raises(kind, match="ours"):
        read(path)
    with pytest.raises(SystemExit) as left:
        main(["info", str(path)])
    assert left.value.code == 1
    assert "a fault of quietray" in capsys.readouterr().err


def test_damage_that_is_met_during_a_run_names_file_and_place():
    class Broken:
        shape, dtype = (3, 2, 2), np.dtype(np.uint16)

        def __getitem__(self, key):
            raise zlib.error("incorrect header check")

    with pytest.raises(FormatError, match=r"a\.h5:/exchange/data must be readable, got: error: incorrect header check"):
        LazyFrames(Broken(), place="a.h5:/exchange/data")[1]


def spoil_hdf5(path: Path, name: str, value: object) -> Path:
    with h5py.File(path, "a") as file:
        if name in file:
            del file[name]
        file[name] = value
    return path


def test_a_dataset_without_a_size_is_none(tmp_path):
    path = mutants.KINDS["volume.h5"].make(tmp_path)
    with pytest.raises(FormatError, match="must hold a volume"):
        read_volume(spoil_hdf5(path, "exchange/data", h5py.Empty("f4")))


@pytest.mark.parametrize("said", ["3", "[]", "null", "{", "[" * 3000])
def test_a_provenance_that_is_no_table_is_not_used(tmp_path, said):
    path = mutants.KINDS["cone beam"].make(tmp_path)
    with h5py.File(path, "a") as file:
        file.attrs["provenance"] = said
    assert read(path).truth is not None


def spoil_zarr(folder: Path, told: dict) -> Path:
    path = mutants.KINDS["volume.zarr"].make(folder)
    facts = json.loads((path / "zarr.json").read_text())
    facts["attributes"]["ome"]["multiscales"][0] |= told
    (path / "zarr.json").write_text(json.dumps(facts))
    return path


@pytest.mark.parametrize("axes", [["z"], 3, None, [{"unit": []}] * 3])
def test_axes_of_zarr_of_another_kind_are_not_used(tmp_path, axes):
    volume = read_volume(spoil_zarr(tmp_path, {"axes": axes}))
    assert volume.shape == (4, 12, 12)
    assert volume.voxel_size == 0.01  # which our own facts tell, too


@pytest.mark.parametrize("levels", [0.5, [{"path": 7}], [], None])
def test_levels_of_zarr_of_another_kind_are_told(tmp_path, levels):
    with pytest.raises(FormatError, match="must hold a volume"):
        read_volume(spoil_zarr(tmp_path, {"datasets": levels}))


def test_dicom_that_can_be_read_but_not_written_is_told(tmp_path):
    series = read_images(mutants.KINDS["dicom"].make(tmp_path))
    file = series.origin.images[0].path
    data = bytearray(file.read_bytes())
    at = data.index(b"Nobody^At All") - 8
    data[at : at + 4] = b"\x00\x00\x10\x00"  # (0000,0010), which no file may hold
    file.write_bytes(bytes(data))
    (tmp_path / "new").mkdir()
    with pytest.raises(FormatError, match=f"{file.name} must be readable, got: ValueError"):
        series.origin.write(tmp_path / "new", series.images + 1, "quietray")


def test_a_unit_of_a_tiff_that_is_none_does_not_cost_the_run(tmp_path):
    tifffile.imwrite(tmp_path / "image.tif", np.ones((8, 8), np.uint16), resolution=(3, 3), resolutionunit=2)
    with tifffile.TiffFile(tmp_path / "image.tif", mode="r+b") as file:
        file.pages.first.tags["ResolutionUnit"].overwrite(0)
    series = read_images(tmp_path / "image.tif")
    (tmp_path / "new").mkdir()
    series.origin.write(tmp_path / "new", series.images + 1, "quietray")
    assert (tifffile.imread(tmp_path / "new" / "image.tif") == 2).all()


@pytest.mark.slow
def test_mutants_of_every_format_are_read_or_told(tmp_path):
    """More of them: python tests/mutants.py 10000."""
    outcomes = mutants.run_many(500, 1, mutants.whole_files(tmp_path))
    assert len(outcomes) == 500
    assert [one for one in outcomes if one.was not in ("read", "told")] == []
    assert {"read", "told"} == {one.was for one in outcomes}
