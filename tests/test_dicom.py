"""DICOM series: what is read, what is written back, and what is refused, with pydicom's own files and written ones."""

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.encaps import encapsulate

from dicom_files import edited, header, phantom, write_image, write_series
from quietray.errors import FormatError
from quietray.io import image_format, read_images
from quietray.io.images.dicom_pixels import decoded

FILES = Path(pydicom.__path__[0]) / "data/test_files"
STORED = phantom(5, 20)


def written(series: Any, folder: Path, images: np.ndarray | None = None) -> Path:
    folder.mkdir()
    series.origin.write(folder, series.images if images is None else images, "quietray nothing")
    return folder


def test_slices_are_sorted_by_position_and_rescaled(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", STORED)
    series = read_images(folder)
    assert image_format(folder) == "dicom"
    np.testing.assert_array_equal(series.images, STORED.astype(np.float32) - 1024)
    assert (series.unit, series.modality, series.spacing, series.step) == ("HU", "CT", (0.5, 0.5), 2.5)


def test_positions_count_along_the_normal(tmp_path: Path) -> None:
    """Of sagittal slices x grows, whatever their numbers say."""
    for number, image in enumerate(STORED):
        place = [10.0 - 3 * number, 0, 0]
        write_image(
            tmp_path / f"{number}.dcm",
            image,
            number,
            ImagePositionPatient=place,
            ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
        )
    series = read_images(tmp_path)
    np.testing.assert_array_equal(series.images, STORED.astype(np.float32) - 1024)  # the normal is -x
    assert series.step == 3.0


def test_a_series_comes_back_bit_by_bit_where_nothing_was_changed(tmp_path: Path) -> None:
    stored = STORED.copy()
    stored[:, :3] = 4000
    folder = write_series(
        tmp_path / "ct", stored, RescaleSlope="0.7431", RescaleIntercept="-1013.37", PixelPaddingValue=4000
    )
    series = read_images(folder)
    assert series.padding is not None
    assert series.padding[:, :3].all() and not series.padding[:, 3:].any()  # noqa: PT018
    out = written(series, tmp_path / "out")
    for path in sorted(folder.iterdir()):
        before, after = pydicom.dcmread(path), pydicom.dcmread(out / path.name)
        assert before.PixelData == after.PixelData
        assert before.file_meta.TransferSyntaxUID == after.file_meta.TransferSyntaxUID
        changed = {element.keyword for element in after if before.get(element.tag) != element}
        assert changed == {
            *("SOPInstanceUID", "SeriesInstanceUID", "SeriesDescription", "ImageType", "DerivationDescription"),
        }
        assert after.SeriesDescription == "Thorax 1.0 quietray nothing"
        assert after.ImageType[0] == "DERIVED"
        assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID
        assert after[0x0029, 0x1010].value == before[0x0029, 0x1010].value
    uids = {pydicom.dcmread(path).SeriesInstanceUID for path in out.iterdir()}
    assert len(uids) == 1
    assert len({pydicom.dcmread(path).SOPInstanceUID for path in out.iterdir()}) == len(STORED)


def test_changed_pixels_are_rounded_within_the_bits(tmp_path: Path) -> None:
    series = read_images(
        write_series(tmp_path / "ct", STORED, RescaleSlope=2, SmallestImagePixelValue=0, LargestImagePixelValue=0)
    )
    images = series.images + 3.2
    images[0, 0, :3] = -9e9, 9e9, np.float32(0.9)
    again = read_images(written(series, tmp_path / "out", images))
    assert np.abs(again.images - images).ravel()[3:].max() <= 1.0001
    assert again.images[0, 0, :3].tolist() == [-1024.0, 4095 * 2 - 1024, 0.0]
    one = pydicom.dcmread(next(path for path in (tmp_path / "out").iterdir() if path.name == "IM003"))
    assert (one.SmallestImagePixelValue, one.LargestImagePixelValue) == (0, 4095)


def test_the_same_pixels_get_the_same_identifiers(tmp_path: Path) -> None:
    series = read_images(write_series(tmp_path / "ct", STORED))
    one, same, other = (
        [path.read_bytes() for path in sorted(written(series, tmp_path / name, images).iterdir())]
        for name, images in (("1", series.images), ("2", series.images), ("3", series.images + 1))
    )
    assert one == same
    uids = {pydicom.dcmread(tmp_path / name / "IM003").SeriesInstanceUID for name in ("1", "3")}
    assert len(uids) == 2
    assert other != one


def _encoded(stored: np.ndarray, codec: str) -> bytes:
    encode = {
        "lossless": lambda image: imagecodecs.ljpeg_encode(image, bitspersample=12),
        "ls": imagecodecs.jpegls_encode,
        "j2k": lambda image: imagecodecs.jpeg2k_encode(image, codecformat="j2k", reversible=True, level=0),
    }[codec]
    return bytes(encode(np.ascontiguousarray(stored)))


@pytest.mark.parametrize(
    ("syntax", "codec"),
    [
        (uid.JPEGLosslessSV1, "lossless"),
        (uid.JPEGLossless, "lossless"),
        (uid.JPEGLSLossless, "ls"),
        (uid.JPEG2000Lossless, "j2k"),
        (uid.RLELossless, None),
    ],
)
def test_compressed_pixels_are_read_and_written_uncompressed(tmp_path: Path, syntax: uid.UID, codec: str) -> None:
    path = write_image(tmp_path / "one.dcm", STORED[0])
    dataset = pydicom.dcmread(path)
    if codec is None:
        dataset.compress(syntax, generate_instance_uid=False)
    else:
        dataset.PixelData = encapsulate([_encoded(STORED[0], codec)])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path)
    series = read_images(path)
    np.testing.assert_array_equal(series.images[0], STORED[0].astype(np.float32) - 1024)
    out = pydicom.dcmread(written(series, tmp_path / "out") / "one.dcm")
    assert out.file_meta.TransferSyntaxUID == uid.ExplicitVRLittleEndian
    assert out.PixelData == STORED[0].tobytes()


@pytest.mark.parametrize(
    "name", ["MR_small_RLE", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "MR_small_bigendian"]
)
def test_pydicoms_own_files_decode_alike_whatever_their_transfer_syntax(name: str, tmp_path: Path) -> None:
    np.testing.assert_array_equal(decoded(FILES / f"{name}.dcm"), decoded(FILES / "MR_small.dcm"))
    path = edited(FILES / f"{name}.dcm", tmp_path / "one.dcm", Modality="CT")
    series = read_images(path)
    np.testing.assert_array_equal(decoded(written(series, tmp_path / "out") / "one.dcm"), decoded(path))


@pytest.mark.parametrize("name", ["CT_small.dcm", "693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm"])
def test_pydicoms_ct_images_come_back_bit_by_bit(name: str, tmp_path: Path) -> None:
    series = read_images(FILES / name)
    assert series.unit == "HU"
    before, after = FILES / name, written(series, tmp_path / "out") / name
    np.testing.assert_array_equal(pydicom.dcmread(before).pixel_array, pydicom.dcmread(after).pixel_array)
    if name == "CT_small.dcm":
        assert pydicom.dcmread(before).PixelData == pydicom.dcmread(after).PixelData


def test_jpeg_of_12_bits_is_decoded() -> None:
    """Its values, read with another decoder (GDCM), are in pydicom's tests."""
    found = decoded(FILES / "JPGExtended.dcm")[0]
    assert found[420, 140] == 244
    assert found[230, 120] == 95


def test_pydicoms_series_and_radiographs() -> None:
    tests = FILES / "dicomdirtests"
    series = read_images(tests / "98892001/CT5N")
    assert series.step == 2.5
    assert series.n_images == 5
    radiograph = read_images(tests / "77654033/CR1")
    assert (radiograph.modality, radiograph.unit, radiograph.step) == ("CR", "raw", None)


def test_radiographs_are_sorted_by_number_and_keep_their_unit(tmp_path: Path) -> None:
    for number in range(3):
        write_image(
            tmp_path / f"{9 - number}.dcm",
            STORED[number],
            number,
            Modality="DX",
            ImagePositionPatient=None,
            ImageOrientationPatient=None,
            PixelSpacing=None,
            ImagerPixelSpacing=[0.143, 0.143],
            RescaleType="US",
            RescaleIntercept=0,
            WindowCenter=1000,
            WindowWidth=500,
        )
    series = read_images(tmp_path)
    np.testing.assert_array_equal(series.images, STORED[:3])
    assert (series.unit, series.pixel_size, series.window) == ("raw", 0.143, (750.0, 1250.0))


def test_frames_of_one_file_have_their_own_place_and_rescale(tmp_path: Path) -> None:
    """As in enhanced CT: the frames are stored upside down, each with an intercept of its own."""
    frames = []
    for number in range(len(STORED)):
        frame = pydicom.Dataset()
        place, value = pydicom.Dataset(), pydicom.Dataset()
        place.ImagePositionPatient = [0, 0, -2.0 * number]
        value.RescaleSlope, value.RescaleIntercept, value.RescaleType = 1, -1000 - number, "HU"
        frame.PlanePositionSequence = [place]
        frame.PixelValueTransformationSequence = [value]
        frames.append(frame)
    shared, direction = pydicom.Dataset(), pydicom.Dataset()
    direction.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PlaneOrientationSequence = [direction]
    path = write_image(
        tmp_path / "many.dcm",
        STORED,
        PerFrameFunctionalGroupsSequence=frames,
        SharedFunctionalGroupsSequence=[shared],
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
        RescaleSlope=None,
        RescaleIntercept=None,
        RescaleType=None,
    )
    series = read_images(path)
    expected = np.stack([image.astype(np.float32) - 1000 - number for number, image in enumerate(STORED)])[::-1]
    np.testing.assert_array_equal(series.images, expected)
    assert series.step == 2.0
    out = written(series, tmp_path / "out", series.images + 7) / "many.dcm"
    np.testing.assert_array_equal(decoded(out), STORED + 7)


def test_a_file_without_a_header_of_its_own_is_read(tmp_path: Path) -> None:
    """As scanners wrote them before there was a preamble."""
    dataset = header()
    dataset.Rows = dataset.Columns = 20
    dataset.PixelData = STORED[0].tobytes()
    dataset["PixelData"].VR = "OW"
    path = tmp_path / "old.dcm"
    pydicom.dcmwrite(path, pydicom.Dataset(dataset), implicit_vr=True, little_endian=True)
    assert path.read_bytes()[128:132] != b"DICM"
    series = read_images(path)
    np.testing.assert_array_equal(series.images[0], STORED[0].astype(np.float32) - 1024)
    out = pydicom.dcmread(written(series, tmp_path / "out") / "old.dcm")
    assert out.file_meta.TransferSyntaxUID == uid.ImplicitVRLittleEndian
    assert out.PixelData == dataset.PixelData


PROJECTION = {
    0x70291010: ("US", 8),
    0x70291011: ("US", 20),
    0x70291002: ("FL", 1.2858),
    0x70291006: ("FL", 1.0947),
    0x7029100B: ("CS", "CYLINDRICAL"),
    0x70311003: ("FL", 595.0),
    0x70311031: ("FL", 1085.6),
    0x70311033: ("FL", [369.625, 4.5]),
    0x7033100E: ("CS", "FFSNONE"),
    0x70331013: ("US", 4),
}


def write_projections(folder: Path, spoil: Any = lambda number, dataset: None, implicit: bool = False) -> Path:
    folder.mkdir()
    for number in range(5):
        dataset = header(number, ImagePositionPatient=None, ImageOrientationPatient=None, RescaleSlope=0.01)
        dataset.RescaleIntercept, dataset.RescaleType = 0, None
        for group, name in ((0x7029, "DETECTOR"), (0x7031, "DYNAMICS"), (0x7033, "SOURCE")):
            dataset.add_new((group, 0x0010), "LO", name)
        for tag, (vr, value) in PROJECTION.items():
            dataset.add_new(tag, vr, value)
        dataset.add_new(0x70311001, "FL", 0.5 + number * np.pi / 2)
        dataset.add_new(0x70311002, "FL", -100.0 - number)
        dataset.Rows, dataset.Columns = 8, 20
        dataset.PixelData = STORED[number, :8].tobytes()
        dataset["PixelData"].VR = "OW"
        spoil(number, dataset)
        if implicit:
            dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian
        dataset.save_as(folder / f"{5 - number}.dcm", enforce_file_format=True)
    return folder


@pytest.mark.parametrize("implicit", [False, True])
def test_projections_say_their_geometry(tmp_path: Path, implicit: bool) -> None:
    series = read_images(write_projections(tmp_path / "pd", implicit=implicit))
    facts = series.projections
    assert series.unit == "line integral"
    np.testing.assert_allclose(series.images, STORED[:5, :8] * np.float32(0.01), rtol=1e-6)
    assert (facts["detector_rows"], facts["detector_columns"], facts["views_per_turn"]) == (8, 20, 4)
    assert (facts["detector_shape"], facts["flying_focal_spot"]) == ("CYLINDRICAL", "FFSNONE")
    assert facts["source_to_detector_mm"] == pytest.approx(1085.6, rel=1e-6)
    assert facts["central_element"] == [369.625, 4.5]
    np.testing.assert_allclose(facts["angles_rad"], 0.5 + np.arange(5) * np.pi / 2, rtol=1e-6)
    np.testing.assert_allclose(facts["axial_mm"], -100.0 - np.arange(5))
    assert facts["turns"] == pytest.approx(1.0, abs=1e-3)


def test_projections_that_do_not_all_say_it_are_refused(tmp_path: Path) -> None:
    def spoil(number: int, dataset: Any) -> None:
        if number == 3:
            del dataset[0x70311002]

    with pytest.raises(FormatError, match=r"axial mm \(tag 7031,1002\), got 4 of 5"):
        read_images(write_projections(tmp_path / "pd", spoil))

    def words(number: int, dataset: Any) -> None:
        dataset.add_new(0x70331013, "LO", "many")

    with pytest.raises(FormatError, match=r"tag 7033,1013 .* must be as in DICOM-CT-PD, got 'many'"):
        read_images(write_projections(tmp_path / "others", words))


def _mixed(folder: Path) -> None:
    write_image(folder / "other.dcm", STORED[0], 9, SeriesInstanceUID="1.2.3", SeriesDescription="Scout")


def _missing(folder: Path) -> None:
    (folder / "IM017").unlink()  # the third of five


def _twice(folder: Path) -> None:
    write_image(folder / "again.dcm", STORED[0], 2)


def _tilted(folder: Path) -> None:
    write_image(folder / "tilted.dcm", STORED[0], 5, ImageOrientationPatient=[1, 0, 0, 0, 0, -1])


def _smaller(folder: Path) -> None:
    write_image(folder / "small.dcm", STORED[0, :10], 5)


def _finer(folder: Path) -> None:
    write_image(folder / "fine.dcm", STORED[0], 5, PixelSpacing=[0.25, 0.25])


def _truncated(folder: Path) -> None:
    path = folder / "IM003"
    path.write_bytes(path.read_bytes()[:-100])


def _unknown_syntax(folder: Path) -> None:
    dataset = pydicom.dcmread(folder / "IM003")
    dataset.PixelData = encapsulate([b"\0\1\2\3"])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = uid.JPEGLosslessSV1
    dataset.save_as(folder / "IM003")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_mixed, r"must hold one series, got 2: 5 x CT 'Thorax 1.0', 1 x CT 'Scout'; copy each"),
        (_missing, r"must lie 2.5 mm apart, got a gap of 5 mm between IM010 and IM024, where 1 is missing"),
        (_twice, r"one slice at each position, got two at 5 mm \(.*; copy each phase"),
        (_tilted, r"must have one direction, got \(1.0, 0.0, 0.0, 0.0, 0.0, -1.0\) in 1 such as tilted.dcm"),
        (_smaller, r"must have one size, got \(10, 20\) in 1 such as small.dcm, and \(20, 20\) in the others"),
        (_finer, r"must have one pixel spacing, got \(0.25, 0.25\) in 1 such as fine.dcm"),
        (_truncated, r"IM003 must have pixel data that can be decoded \(Explicit VR Little Endian\), got: ValueError"),
        (_unknown_syntax, r"IM003 must have pixel data that can be decoded \(JPEG Lossless.*or export it uncompressed"),
    ],
)
def test_a_series_that_is_not_whole_is_refused(tmp_path: Path, spoil: Any, said: str) -> None:
    folder = write_series(tmp_path / "ct", STORED)
    spoil(folder)
    with pytest.raises(FormatError, match=said):
        read_images(folder)


@pytest.mark.parametrize(
    ("elements", "said"),
    [
        ({"Modality": "MR"}, "must be an X-ray image .* got modality MR"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, r"one grey value .* got 3 samples \(RGB\)"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, r"one grey value .* got 1 samples \(PALETTE COLOR\)"),
        ({"BurnedInAnnotation": "YES"}, r"only what was measured, got text burned into its pixels"),
        ({"HighBit": 15}, "that use the lowest bits, got 12 of 16 bits with high bit 15"),
        ({"BitsAllocated": 64, "BitsStored": 64, "HighBit": 63}, "8, 16 or 32 bits"),
        ({"RescaleSlope": 0}, "rescale slope that is not zero"),
        ({"RescaleIntercept": [1, 2]}, r"RescaleIntercept in .*one.dcm must be a number, got \[1.0, 2.0\]"),
        ({"InstanceNumber": [1, 2]}, r"InstanceNumber in .*one.dcm must be a number, got \[1, 2\]"),
        ({"PixelPaddingRangeLimit": [1, 2]}, r"PixelPaddingRangeLimit in .* must be a number"),
        ({"ImagePositionPatient": [0.0, None, 1.0]}, r"ImagePositionPatient in .* must be a number, got None"),
    ],
)
def test_pixels_that_are_no_measurement_are_refused(tmp_path: Path, elements: dict[str, Any], said: str) -> None:
    with pytest.raises(FormatError, match=said):
        read_images(write_image(tmp_path / "one.dcm", STORED[0], **elements))


def test_what_is_no_image_is_refused_alone_and_left_out_beside_images(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"got only rtplan.dcm \(RTPLAN\)"):
        read_images(FILES / "rtplan.dcm")
    (tmp_path / "broken.dcm").write_bytes(b"no DICOM at all, whatever the name says")
    with pytest.raises(FormatError, match=r"broken.dcm must be a DICOM file"):
        read_images(tmp_path)
    folder = write_series(tmp_path / "ct", STORED)
    (folder / "plan.dcm").write_bytes((FILES / "rtplan.dcm").read_bytes())
    series = read_images(folder)
    assert series.n_images == 5
    assert series.notes == ("Files without an image were left out: plan.dcm (RTPLAN).",)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("98892001/CT2N", "must have one direction"),
        ("77654033/CT2", "a gap of 202.5 mm between 17106 and 17136"),
        ("98892003/MR1", "must hold one series, got 3"),
    ],
)
def test_pydicoms_own_series_that_are_not_whole_are_refused(name: str, said: str) -> None:
    with pytest.raises(FormatError, match=said):
        read_images(FILES / "dicomdirtests" / name)


def test_slices_without_a_place_are_sorted_by_number_and_that_is_said(tmp_path: Path) -> None:
    series = read_images(write_series(tmp_path / "ct", STORED, ImagePositionPatient=None))
    np.testing.assert_array_equal(series.images, STORED.astype(np.float32) - 1024)
    assert "missing ones would go unnoticed" in series.notes[0]


def test_nothing_of_the_patient_gets_into_the_figures(tmp_path: Path) -> None:
    series = read_images(write_series(tmp_path / "ct", STORED, PatientID="12345"))
    told = str(series.provenance) + str(series.describe())
    assert "Nobody" not in told
    assert "12345" not in told


def test_a_series_in_folders_of_folders_is_found(tmp_path: Path) -> None:
    (tmp_path / "patient/study").mkdir(parents=True)
    write_series(tmp_path / "patient/study/series", STORED)
    assert image_format(tmp_path) == "dicom"
    np.testing.assert_array_equal(read_images(tmp_path).images, STORED.astype(np.float32) - 1024)
    write_series(tmp_path / "patient/study/other", STORED)
    with pytest.raises(FormatError, match=r"patient/study/other, patient/study/series; give one of them"):
        read_images(tmp_path)
