"""Series of EDF and FITS files, and names that tell angles."""

import numpy as np
import pytest
import tifffile

from quietray.errors import QuietrayError
from quietray.io import read
from turning import measured

DEGREES = np.arange(20) * 9.0


@pytest.fixture(scope="module")
def stacks():
    return measured(DEGREES, n_rows=6, n_cols=40)


def edf_images(folder, stem, frames, first=0):
    fabio = pytest.importorskip("fabio")
    folder.mkdir(exist_ok=True)
    for number, frame in enumerate(frames, first):
        fabio.edfimage.EdfImage(data=frame).write(str(folder / f"{stem}{number:04d}.edf"))
    return folder


def fits_images(folder, names, frames):
    fits = pytest.importorskip("astropy.io.fits")
    folder.mkdir(exist_ok=True)
    for name, frame in zip(names, frames, strict=True):
        fits.PrimaryHDU(frame).writeto(folder / f"{name}.fits")
    return folder


def same(scan, views, flats=None, darks=None):
    for found, wanted in ((scan.projections, views), (scan.flats, flats), (scan.darks, darks)):
        if wanted is not None:
            np.testing.assert_array_equal(np.asarray(found[:]), wanted)


def test_a_scan_of_the_esrf_in_edf(tmp_path, stacks):
    views, flats, darks = stacks
    folder = edf_images(tmp_path / "scan_", "scan_", np.concatenate([views, views[:2]]))
    for number, pair in ((0, flats[:2]), (20, flats[2:4])):
        for which, frame in enumerate(pair):
            edf_images(folder, f"ref{which:04d}_", [frame], first=number)
    edf_images(folder, "darkend", [5 * darks[0].astype(np.uint32)])
    (folder / "scan_.info").write_text(
        "Energy=              19.5\nDistance=            120\nTOMO_N=  20\nScanRange=  180\nDARK_N= 5\nPixelSize= 3.5\n"
    )
    scan = read(folder)
    same(scan, views, np.stack([flats[0], flats[2], flats[1], flats[3]]), darks[:1])
    np.testing.assert_allclose(np.rad2deg(scan.geometry.angles), DEGREES)
    assert scan.geometry.pixel_size == pytest.approx(0.0035)
    assert scan.provenance["energy_kev"] == 19.5
    assert scan.provenance["propagation_mm"] == 120
    assert scan.flats_taken.tolist() == [0, 20, 0, 20]
    said = " ".join(scan.notes)
    assert "2 images after the last view" in said
    assert "the sum of 5 darks" in said
    np.testing.assert_array_equal(scan.projections[2:9:3, 1:3, 5:7], views[2:9:3, 1:3, 5:7])


def test_a_fits_series(tmp_path, stacks):
    views, flats, darks = stacks
    folder = fits_images(tmp_path / "views", [f"rock_{number:03d}" for number in range(20)], views)
    fits_images(tmp_path / "flats", [f"open_{number}" for number in range(len(flats))], flats)
    fits_images(tmp_path, [f"dark_{number}" for number in range(len(darks))], darks)
    with pytest.raises(QuietrayError, match="pass angles='0:180'"):
        read(folder)
    scan = read(folder, angles="0:180", flats=tmp_path / "flats", darks=str(tmp_path / "dark_*"))
    same(scan, views, flats, darks)
    assert scan.projections.dtype == np.uint16  # which FITS stores with an offset
    assert any("assumed to be parallel" in note for note in scan.notes)
    (folder / "rock_007.fits").write_bytes((folder / "rock_007.fits").read_bytes()[:2900])
    with pytest.raises(QuietrayError, match=r"rock_007\.fits must be a readable image"):
        np.asarray(read(folder, angles="0:180").projections[:])


def names_at(degrees):
    return [
        f"20220825_Ti_{int(d):03d}_{round(1000 * (d % 1)):03d}_{number:04d}" for number, d in enumerate(degrees, 40)
    ]


def test_names_tell_angles(tmp_path, stacks):
    golden = np.round(np.mod(np.arange(20) * 111.246, 360), 3)
    (tmp_path / "tif").mkdir()
    for name, frame in zip(names_at(golden), stacks[0], strict=True):
        tifffile.imwrite(tmp_path / f"tif/{name}.tiff", frame, photometric="minisblack")
    for folder in (tmp_path / "tif", fits_images(tmp_path / "fits", names_at(golden), stacks[0])):
        scan = read(folder)
        order = np.argsort(golden)  # as names are sorted
        np.testing.assert_allclose(np.rad2deg(scan.geometry.angles), golden[order], atol=1e-9)
        same(scan, stacks[0][order])
    other = np.rad2deg(read(tmp_path / "tif", angles="0:180").geometry.angles)
    np.testing.assert_allclose(other, DEGREES)


def test_several_series_are_told_apart(tmp_path, stacks):
    edf_images(tmp_path / "two", "a_", stacks[0][:3])
    edf_images(tmp_path / "two", "b_", stacks[0][:3])
    with pytest.raises(QuietrayError, match="pick with data="):
        read(tmp_path / "two", angles="0:180")
    assert read(tmp_path / "two", angles="0:180", data="b_*").n_views == 3
