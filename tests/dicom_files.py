"""DICOM series that tests write themselves."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SERIES = generate_uid(entropy_srcs=["series"])


def header(number: int = 0, **more: Any) -> FileDataset:
    """Return an axial CT slice without its pixels; `more` are its elements by keyword, None takes one away."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[f"image {number}"])
    dataset = FileDataset("", Dataset(), file_meta=meta, preamble=b"\0" * 128)
    usual = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "SeriesInstanceUID": SERIES,
        "StudyInstanceUID": generate_uid(entropy_srcs=["study"]),
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "Modality": "CT",
        "PatientName": "Nobody^At All",
        "SeriesDescription": "Thorax 1.0",
        "InstanceNumber": number + 1,
        "ImagePositionPatient": [-10.0, -10.0, 2.5 * number],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.5, 0.5],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "RescaleType": "HU",
    }
    for name, value in (usual | more).items():
        if value is not None:
            setattr(dataset, name, value)
    return dataset


def write_image(path: Path, stored: np.ndarray, number: int = 0, **more: Any) -> Path:
    """Write one image, or with a third axis the frames of one."""
    dataset = header(number, **more)
    dataset.Rows, dataset.Columns = stored.shape[-2:]
    if stored.ndim == 3:
        dataset.NumberOfFrames = len(stored)
    block = dataset.private_block(0x0029, "A MAKER'S OWN", create=True)
    block.add_new(0x10, "LO", f"private {number}")
    dataset.PixelData = np.ascontiguousarray(stored).tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_series(folder: Path, stored: np.ndarray, **more: Any) -> Path:
    """Write the slices ``(z, y, x)`` of a CT series, with names that say nothing of their order."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(stored):
        write_image(folder / f"IM{(7 * number + 3) % 101:03d}", image, number, **more)
    return folder


def edited(source: Path, target: Path, **more: Any) -> Path:
    """Copy a DICOM file with other elements; None takes one away."""
    dataset = pydicom.dcmread(source, force=True)
    for name, value in more.items():
        if value is None:
            del dataset[name]
        else:
            setattr(dataset, name, value)
    dataset.save_as(target)
    return target


def phantom(n: int = 6, size: int = 48, sd: float = 40.0, seed: int = 0, shared: bool = False) -> np.ndarray:
    """Return stored numbers of discs in water and fat, with white noise, or noise that neighbours share."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    clean = np.where(np.hypot(y, x) < 0.42 * size, 1064.0, 944.0)
    clean = clean + 80.0 * (np.hypot(y - 6, x + 5) < 0.1 * size)
    noise = rng.normal(0, 1, (n, size, size))
    if shared:
        noise = sum(np.roll(noise, (dy, dx), (1, 2)) for dy in (0, 1) for dx in (0, 1)) / 2
    return np.clip(np.rint(clean + sd * noise), 0, 4095).astype(np.uint16)
