"""Files of laboratory scanners, written here as their makers lay them out, become the beam that they tell of."""

import numpy as np
import pytest
import tifffile

from cfb import write_cfb
from quietray import FDK, ConeBeam, FanBeam, ParallelBeam
from quietray.cli import main
from quietray.errors import MissingExtra, QuietrayError
from quietray.io import read
from quietray.operators.backprojection import ConeRays
from quietray.preparation.prepare import prepare
from quietray.running.run import Run
from quietray.running.watch import Watch
from scans import quick
from test_fdk import errors, measured

N, ROWS, VIEWS = 48, 48, 120
DISTANCES = 96.0, 144.0  # mm
PIXEL = 0.75  # mm, at the detector
WHITE = 60000


def beam_of(degrees, axis=None, source_row=None):
    return ConeBeam.circular(np.deg2rad(degrees), ROWS, N, *DISTANCES, PIXEL, axis, source_row)


def images(beam, white=WHITE):
    """Transmissions ``(view, row, col)`` of the head, a quarter as strong as it is, in counts."""
    lines = measured(beam).transpose(1, 0, 2) / 4
    return np.rint(white * np.exp(-lines)).astype(np.uint16)


def tiffs(folder, frames, name, first=0):
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames, first):
        tifffile.imwrite(folder / f"{name}{number:04d}.tif", frame, photometric="minisblack")
    return folder


def ini(path, sections):
    lines = [f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in inside.items()) for name, inside in sections]
    path.write_text("\n".join(lines))
    return path


def nikon(folder, frames, **more):
    """White level; columns from the right to the left as the source sees them; the axis at the object."""
    told = {
        "Name": "rock",
        "SrcToObject": DISTANCES[0],
        "SrcToDetector": DISTANCES[1],
        "DetectorPixelsX": N,
        "DetectorPixelsY": ROWS,
        "DetectorPixelSizeX": PIXEL,
        "DetectorPixelSizeY": PIXEL,
        "CentreOfRotationTop": 0,
        "CentreOfRotationBottom": 0,
        "WhiteLevel": WHITE,
        "Projections": len(frames),
        "InitialAngle": 30.0,
        "AngularStep": 3.0,
        "InputSeparator": "_",
        "Units": "mm",
    }
    tiffs(folder, frames[:, :, ::-1], "rock_", first=1)
    return ini(folder / "rock.xtekct", [("XTekCT", told | more)])


def skyscan(folder, frames, **more):
    """Pixels as they are at the object; the optical axis counts from below."""
    taken = {
        "Filename Prefix": "stone~00",
        "Number of Files": len(frames),
        "Number of Rows": ROWS,
        "Number of Columns": N,
        "Optical Axis (line)": 28,
        "Camera to Source (mm)": f"{DISTANCES[1]:.3f}",
        "Object to Source (mm)": f"{DISTANCES[0]:.3f}",
        "Image Pixel Size (um)": 1000 * PIXEL * DISTANCES[0] / DISTANCES[1],
        "Depth (bits)": 16,
        "Rotation Step (deg)": "3.000",
        "Use 360 Rotation": "YES",
        "Flat Field Correction": "ON",
        "Rotation Direction": "CC",
    }
    tiffs(folder, frames, "stone~00")
    tifffile.imwrite(folder / "stone~00_spr.tif", frames[0])
    return ini(folder / "stone~00.log", [("System", {"Scanner": "SkyScan1172"}), ("Acquisition", taken | more)])


def phoenix(folder, frames, **more):
    told = {
        "FDD": DISTANCES[1],
        "FOD": DISTANCES[0],
        "Magnification": DISTANCES[1] / DISTANCES[0],
        "VoxelSizeX": PIXEL * DISTANCES[0] / DISTANCES[1],
        "VoxelSizeY": PIXEL * DISTANCES[0] / DISTANCES[1],
        "cx": 25.0,
        "cy": 21.5,
    }
    tiffs(folder, frames, "bone_", first=1)
    image = {"DimX": N, "DimY": ROWS, "BitPP": 16, "FreeRay": WHITE}
    turn = {"NumberImages": 120, "RotationSector": 360.0}
    return ini(folder / "bone.pca", [("Geometry", told | more), ("CT", turn), ("Image", image)])


def floats(*values):
    return np.asarray(values, "<f4").ravel().tobytes()


def wholes(*values):
    return np.asarray(values, "<i4").tobytes()


def zeiss(folder, frames, degrees, **more):
    n = len(frames)
    streams = {
        "ImageInfo/NoOfImages": wholes(n),
        "ImageInfo/ImageWidth": wholes(frames.shape[2]),
        "ImageInfo/ImageHeight": wholes(frames.shape[1]),
        "ImageInfo/DataType": wholes(5),
        "ImageInfo/PixelSize": floats(1000 * PIXEL * DISTANCES[0] / DISTANCES[1]),
        "ImageInfo/Angles": floats(degrees),
        "ImageInfo/StoRADistance": floats(np.full(n, -DISTANCES[0])),
        "ImageInfo/DtoRADistance": floats(np.full(n, DISTANCES[1] - DISTANCES[0])),
        "ImageInfo/XrayGeometry": wholes(1),
        "AutoRecon/CenterShift": floats(1.5),
        "ReferenceData/DataType": wholes(5),
        "ReferenceData/Image": np.full(frames.shape[1:], WHITE, "<u2").tobytes(),
    }
    streams |= {
        f"ImageData{i // 100 + 1}/Image{i + 1}": frame.astype("<u2").tobytes() for i, frame in enumerate(frames)
    }
    streams |= {name.replace("__", "/"): content for name, content in more.items() if content is not None}
    folder.mkdir(exist_ok=True)
    return write_cfb(
        folder / "scan.txrm", {name: one for name, one in streams.items() if more.get(name, 1) is not None}
    )


STEPS = np.arange(VIEWS) * 3.0
SCANNERS = {
    "nikon": (nikon, beam_of(30 + STEPS, axis=(N - 1) / 2)),
    "nikon, axis aside": (lambda *a: nikon(*a, ObjectOffsetX=1.0), beam_of(30 + STEPS, axis=(N - 1) / 2 - 1.5 / PIXEL)),
    "skyscan": (skyscan, beam_of(-STEPS, source_row=ROWS - 29.0)),
    "skyscan clockwise": (lambda *a: skyscan(*a, **{"Rotation Direction": "CW"}), beam_of(STEPS, None, ROWS - 29.0)),
    "phoenix": (phoenix, beam_of(STEPS, 25.0, 21.5)),
    "zeiss": (lambda *a: zeiss(*a, STEPS), beam_of(STEPS, axis=(N - 1) / 2 + 1.5)),
}
TRIED = ["nikon, axis aside", "skyscan", "phoenix", "zeiss"]


def require_library(name, library="olefile"):
    if name.startswith("zeiss"):
        pytest.importorskip(library, reason="needs the extra zeiss")


@pytest.mark.parametrize("name", SCANNERS)
def test_the_beam_is_what_the_scanner_says(tmp_path, name):
    require_library(name)
    write, wanted = SCANNERS[name]
    frames = np.random.default_rng(0).integers(1, WHITE, (VIEWS, ROWS, N)).astype(np.uint16)
    path = write(tmp_path / "scan", frames)
    for place in (path, path.parent)[: 1 if name == "zeiss" else 2]:
        scan = read(place)
        assert isinstance(scan.geometry, ConeBeam)
        for vectors in ("angles", "sources", "centres", "us", "vs"):
            found, true = getattr(scan.geometry, vectors), getattr(wanted, vectors)
            np.testing.assert_allclose(found, true, rtol=1e-6, atol=1e-5)  # Zeiss keeps single precision
        np.testing.assert_array_equal(np.asarray(scan.projections[:]), frames)
        np.testing.assert_array_equal(scan.projections[3:9, 5:7, ::2], frames[3:9, 5:7, ::2])
        white = 65535 if name.startswith("skyscan") else WHITE
        assert np.unique(scan.flats[:]).tolist() == [white]
        assert any("a cone beam" in note for note in scan.notes)


@pytest.mark.parametrize("name", TRIED)
def test_the_head_comes_back_from_the_files_of_every_scanner(tmp_path, name):
    require_library(name)
    write, wanted = SCANNERS[name]
    scan = read(write(tmp_path / "scan", images(wanted, 65535 if name == "skyscan" else WHITE)))
    seen = np.asarray(scan.projections[:], np.float32) / np.asarray(scan.flats[0], np.float32)
    lines = np.ascontiguousarray(-4 * np.log(seen).transpose(1, 0, 2))
    volume = FDK()(ConeRays(scan.geometry, scan.geometry.grid()), lines)
    assert max(errors(volume, wanted, wanted.grid())) < 0.02  # as of the beam itself, in test_fdk


def test_images_that_are_missing_leave_the_others_their_angles(tmp_path):
    frames = np.ones((VIEWS, 4, N), np.uint16)
    path = nikon(tmp_path, frames)
    (tmp_path / "rock_0011.tif").unlink()
    for number in range(101, 121):
        (tmp_path / f"rock_{number:04d}.tif").unlink()
    scan = read(path)
    np.testing.assert_allclose(np.rad2deg(scan.geometry.angles), 30 + np.delete(STEPS[:100], 10))
    assert any("number 11 is missing" in note for note in scan.notes)
    assert any("the last 20 are missing" in note for note in scan.notes)
    tiffs(tmp_path, np.ones((40, 4, N), np.uint16), "rock_", first=101)
    with pytest.raises(QuietrayError, match="there must be 120 radiographs"):
        read(path)


def test_a_last_image_that_repeats_the_first_is_dropped(tmp_path):
    path = nikon(tmp_path, np.ones((VIEWS + 1, 4, N), np.uint16), Projections=VIEWS)
    assert read(path).n_views == VIEWS


def test_what_the_user_says_overrules_the_scanner(tmp_path):
    path = nikon(tmp_path, np.ones((VIEWS, 4, N), np.uint16))
    scan = read(path, angles="0:180", flats="50000", source_axis=50.0, source_detector=100.0, rotation_axis=20.0)
    assert np.rad2deg(scan.geometry.coverage) == pytest.approx(180)
    assert scan.geometry.axis == pytest.approx(20)
    assert scan.geometry.reach[0].tolist() == pytest.approx([50.0, 100.0])
    assert float(scan.flats[0].max()) == 50000
    assert read(path, data="rock_00[0-4]*").n_views == 49


@pytest.mark.parametrize("aside", [0.0, 5.3, -8.0])
def test_an_axis_that_no_file_tells_is_found_where_rays_meet(tmp_path, aside):
    axis = (N - 1) / 2 + aside
    frames = images(beam_of(-STEPS, axis, ROWS - 29.0), 62000)  # air beside the object tells white
    scan = read(skyscan(tmp_path, frames))
    found = prepare(scan, Run.in_memory(quick(rotation_axis=None), Watch()))
    assert found.scan.geometry.axis == pytest.approx(axis, abs=0.15)
    assert any("found from opposite rays" in note for note in found.notes)
    short = prepare(read(tmp_path, angles="0:230"), Run.in_memory(quick(rotation_axis=None), Watch()))
    assert short.scan.geometry.axis == pytest.approx((N - 1) / 2)
    assert any("assumed at the detector's middle" in note for note in short.notes)
    given = prepare(read(tmp_path, rotation_axis=20.0), Run.in_memory(quick(rotation_axis=None), Watch()))
    assert given.scan.geometry.axis == pytest.approx(20.0)


def test_a_scanner_may_be_ignored(tmp_path):
    path = nikon(tmp_path, np.ones((VIEWS, 4, N), np.uint16), SrcToObject="")
    with pytest.raises(QuietrayError, match="must come with one angle"):
        read(path.parent, ignore_scanner=True)
    scan = read(path.parent, ignore_scanner=True, angles="0:180", flats="60000")
    assert isinstance(scan.geometry, ParallelBeam)
    assert any("rock.xtekct beside it was not read" in note for note in scan.notes)


def test_a_check_refuses_what_a_run_would(tmp_path, capsys):
    frames = images(beam_of(30 + STEPS, axis=(N - 1) / 2))[:, 20:28]
    whole, cut = nikon(tmp_path / "whole", frames), nikon(tmp_path / "cut", frames[:60])
    main(["check", str(whole)])
    with pytest.raises(SystemExit) as left:
        main(["check", str(cut)])
    assert left.value.code == 2
    assert "use sirt, cgls or tv" in " ".join(capsys.readouterr().err.split())


def test_what_is_told_and_not_used_is_said(tmp_path):
    frames = np.ones((VIEWS, 4, N), np.uint16)
    path = nikon(tmp_path / "n", frames, ObjectTilt=0.4, CentreOfRotationTop=2.0)
    said = " ".join(read(path).notes)
    assert "ObjectTilt = 0.4" in said
    assert "tilted by 2.7 pixels" in said
    with pytest.raises(QuietrayError, match="square pixels"):
        read(nikon(tmp_path / "tall", frames, DetectorPixelSizeY=0.5))
    log = skyscan(tmp_path / "s", frames)
    said = " ".join(read(log).notes)
    assert "65535" in said
    with pytest.raises(QuietrayError, match="pass flats="):
        read(skyscan(tmp_path / "off", frames, **{"Flat Field Correction": "OFF"}))
    assert "Tilt = 1" in " ".join(read(phoenix(tmp_path / "p", frames, Tilt=1.0)).notes)


def test_a_number_that_is_missing_or_none_is_named(tmp_path):
    frames = np.ones((VIEWS, 4, N), np.uint16)
    with pytest.raises(QuietrayError, match="must state 'AngularStep'"):
        read(nikon(tmp_path / "a", frames, AngularStep=""))
    with pytest.raises(QuietrayError, match=r"'SrcToDetector' in .* must be a number, got 'far'"):
        read(nikon(tmp_path / "b", frames, SrcToDetector="far"))


def test_one_row_is_a_fan_and_a_far_source_a_parallel_beam(tmp_path):
    frames = np.ones((VIEWS, 1, N), np.uint16)
    assert isinstance(read(nikon(tmp_path / "fan", frames)).geometry, FanBeam)
    far = {"Object to Source (mm)": 1e6, "Camera to Source (mm)": 1.5e6, "Image Pixel Size (um)": 10.0}
    beam = read(skyscan(tmp_path / "far", frames, **far)).geometry
    assert isinstance(beam, ParallelBeam)
    assert beam.pixel_size == pytest.approx(0.01)


def test_several_scans_in_a_folder_are_named(tmp_path):
    path = nikon(tmp_path, np.ones((3, 4, N), np.uint16))
    (tmp_path / "other.xtekct").write_text(path.read_text())
    with pytest.raises(QuietrayError, match=r"other\.xtekct, rock\.xtekct; give one of them"):
        read(tmp_path)
    log = skyscan(tmp_path / "sky", np.ones((VIEWS, 4, N), np.uint16))
    (tmp_path / "sky/stone~00__rec.log").write_text(log.read_text() + "[Reconstruction]\nPostalignment=-3.5\n")
    assert read(tmp_path / "sky").n_views == VIEWS
    assert "Postalignment = -3.5" in " ".join(read(tmp_path / "sky/stone~00__rec.log", data="stone~00[0-9]*").notes)


def test_views_of_a_zeiss_scan_are_moved_as_it_says(tmp_path):
    pytest.importorskip("olefile")
    rng = np.random.default_rng(0)
    shifts = {one: rng.normal(0, 2, VIEWS).astype("<f4") for one in "xy"}
    wanted = beam_of(STEPS, axis=(N - 1) / 2 + 1.5)
    path = zeiss(
        tmp_path,
        np.ones((VIEWS, ROWS, N), np.uint16),
        STEPS,
        **{f"alignment__{one}-shifts": values.tobytes() for one, values in shifts.items()},
    )
    scan = read(path)
    point = np.array([3.0, -5.0, 2.0])
    apart = wanted.shadow(point) - scan.geometry.shadow(point)  # (row, column): what lies there is to be moved by it
    np.testing.assert_allclose(apart, np.stack([shifts["y"], shifts["x"]], axis=1), atol=1e-4)
    assert any("Views were moved by up to" in note for note in scan.notes)
    parallel = read(zeiss(tmp_path, np.ones((9, 4, N), np.uint16), STEPS[:9], ImageInfo__XrayGeometry=wholes(2)))
    assert isinstance(parallel.geometry, ParallelBeam)
    assert parallel.geometry.pixel_size == pytest.approx(PIXEL * DISTANCES[0] / DISTANCES[1])


def test_a_zeiss_scan_that_was_cut_is_told(tmp_path):
    pytest.importorskip("olefile")
    path = zeiss(tmp_path, np.ones((9, ROWS, N), np.uint16), STEPS[:9], ImageData1__Image7=b"")
    with pytest.raises(QuietrayError, match="ImageData1/Image7 must hold an image"):
        np.asarray(read(path).projections[5:8])


def test_what_is_not_installed_is_named(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "olefile", None)
    path = tmp_path / "scan.txrm"
    path.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
    with pytest.raises(MissingExtra, match=r"quietray\[zeiss\]"):
        read(path)
