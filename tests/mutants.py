"""Damaged files of every format, and what quietray makes of them: told (code 2) or read (code 0), never anything else.

    python tests/mutants.py 10000            # so many mutants, told and read by format; faults with their traceback
    python tests/mutants.py 10000 --seed 7   # others
    python tests/mutants.py --only 1234      # one of them again, with what was done to it

Mutants run in forked processes, so that a crash or a hang of a library costs one of them and is counted.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import faulthandler
import io
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

LONGEST = 60  # seconds of one mutant
MOST_MEMORY = 2**30  # bytes that one mutant may take beyond what was there before
N, ROWS, VIEWS = 12, 6, 8
_TOLD_EVERY = 250

# --- files that are whole


def _counts(n: int, dtype: Any = np.uint16) -> np.ndarray:
    return np.random.default_rng(n).poisson(900, (n, ROWS, N)).astype(dtype)


def _scan() -> Any:
    import quietray

    beam = quietray.ParallelBeam(np.linspace(0, np.pi, VIEWS, endpoint=False), ROWS, N, pixel_size=0.1)
    return quietray.Scan(_counts(VIEWS), beam, _counts(4), _counts(3) // 20)


def _exchange(folder: Path, **options: Any) -> Path:
    from io_files import write_exchange

    path = folder / "scan.h5"
    return write_exchange(path, _counts(VIEWS), np.arange(VIEWS) * 22.5, _counts(4), _counts(3) // 20, **options)


def _nxtomo(folder: Path) -> Path:
    import quietray

    return quietray.write_scan(folder / "scan.nx", _scan())


def _diamond(folder: Path) -> Path:
    from io_files import write_diamond

    return write_diamond(folder / "scan.nxs", _counts(VIEWS), [1, 2] + [0] * (VIEWS - 2), np.arange(VIEWS) * 22.5)


def _cone(folder: Path) -> Path:
    import quietray

    beam = quietray.ConeBeam.circular(np.arange(VIEWS) * 0.7, ROWS, N, 50.0, 70.0, 0.2)
    scan = quietray.Scan(_counts(VIEWS), beam, _counts(4), truth=np.ones((ROWS, N, N), np.float32))
    return quietray.write_scan(folder / "cone.h5", scan)


def _zarr_scan(folder: Path) -> Path:
    import zarr

    group = zarr.create_group(str(folder / "scan.zarr")).create_group("exchange")
    for name, value in (("data", _counts(VIEWS)), ("theta", np.arange(VIEWS) * 22.5), ("data_white", _counts(4))):
        group.create_array(name, data=value)
    return folder / "scan.zarr"


def _tiffs(folder: Path, **options: Any) -> Path:
    from io_files import write_tiffs

    return write_tiffs(folder / "views", _counts(VIEWS), **options)


def _tiff_stack(folder: Path) -> Path:
    import tifffile

    tifffile.imwrite(folder / "stack.tif", _counts(VIEWS), photometric="minisblack")
    return folder / "stack.tif"


def _scanner(kind: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        import test_scanners

        test_scanners.N, test_scanners.ROWS = N, ROWS
        frames = np.minimum(_counts(VIEWS) * 20, 60000).astype(np.uint16)
        more = (np.arange(VIEWS) * 3.0,) if kind == "zeiss" else ()
        told = {"cx": 6.0, "cy": 3.0} if kind == "phoenix" else {}
        return getattr(test_scanners, kind)(folder / kind, frames, *more, **told)

    return make


def _edf(folder: Path) -> Path:
    from test_frame_files import edf_images

    place = edf_images(folder / "scan_", "scan_", _counts(VIEWS))
    edf_images(place, "darkend", _counts(1))
    edf_images(place, "ref0000_", _counts(2)[:1])
    (place / "scan_.info").write_text("Energy=  19.5\nTOMO_N=  8\nScanRange=  180\nDARK_N= 1\nPixelSize= 3.5\n")
    return place


def _fits(folder: Path) -> Path:
    from test_frame_files import fits_images

    return fits_images(folder / "views", [f"rock_{number:03d}" for number in range(VIEWS)], _counts(VIEWS))


def _npy(folder: Path) -> Path:
    np.save(folder / "frames.npy", _counts(VIEWS))
    return folder / "frames.npy"


def _png(folder: Path) -> Path:
    import imagecodecs

    (folder / "images").mkdir()
    for number, image in enumerate(_counts(3)):
        (folder / "images" / f"image_{number}.png").write_bytes(imagecodecs.png_encode(image))
    return folder / "images"


def _dicom(folder: Path) -> Path:
    from dicom_files import phantom, write_series

    return write_series(folder / "series", phantom(3, 16))


def _dicom_frames(folder: Path) -> Path:
    from dicom_files import phantom, write_image

    return write_image(folder / "frames.dcm", phantom(3, 16), Modality="DX", ImagePositionPatient=None)


def _volume(format: str, **stored: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        from quietray.geometry import VolumeGrid
        from quietray.io import Stored, VolumeFormat, open_volume_writer

        place = folder / VolumeFormat.registry[format].volume
        grid = VolumeGrid((4, N, N), voxel_size=0.01)
        with open_volume_writer(place, grid, format=format, stored=Stored(**stored)) as writer:
            writer.write(0, np.random.default_rng(3).random((4, N, N)).astype(np.float32))
            writer.finish()
        return place

    return make


def _model(folder: Path) -> Path:
    from quietray.inference.denoiser import Denoiser, Scale
    from quietray.networks import UNet
    from quietray.splits import Noise2Inverse

    split, network = Noise2Inverse(parts=2, slices=1), UNet((4, 8))
    Denoiser(network.build(1, 1).eval(), network, split, Scale(0.0, 1.0), 1, "32-true", 64, {}).save(folder / "model")
    return folder / "model"


def _settings(folder: Path) -> Path:
    import quietray
    from quietray.settings import write_toml

    (folder / "run.toml").write_text(write_toml(quietray.Settings(method=quietray.Noise2Inverse(), budget="9s")))
    return folder / "run.toml"


def _pairs(folder: Path) -> Path:
    for name in ("noisy", "noisy2", "clean"):
        np.save(folder / f"{name}.npy", _counts(3).astype(np.float32))
    return folder


def _angles(folder: Path) -> Path:
    np.save(folder / "theta.npy", np.arange(VIEWS) * 22.5)
    (folder / "theta.txt").write_text("".join(f"{22.5 * number}\n" for number in range(VIEWS)))
    _tiff_stack(folder)
    return folder


# --- what is done with them


def _look(path: Path, *flags: str) -> None:
    """Show a scan or images as the command line does, then read all frames of it."""
    from quietray.io import image_format, read, read_images

    _command("info", str(path), *flags)
    if "--angles" not in flags and image_format(path) in ("dicom", "png", "npy"):
        series = read_images(path)
        _written(series)
        return
    scan = read(path, **({"angles": flags[1]} if flags else {}))
    for frames in (scan.projections, scan.flats, scan.darks):
        if frames is not None and np.ndim(frames) == 3:
            for number in range(min(len(frames), 50)):
                np.asarray(frames[number])


def _check(path: Path) -> None:
    """Look at a scan as a run would."""
    _command("check", str(path))


def _written(series: Any) -> None:
    """Write images back as a run does."""
    with tempfile.TemporaryDirectory() as place:
        series.origin.write(Path(place), series.images + 1, "quietray")


def _pictures(path: Path) -> None:
    from quietray.io import read_images

    _written(read_images(path))


def _slices(path: Path) -> None:
    from quietray.io import read_volume

    volume = read_volume(path)
    assert len(volume.shape) in (3, 4)
    for number in range(min(volume.shape[0], 50)):
        np.asarray(volume[number])
    _ = volume.unit, volume.voxel_size


def _applied(path: Path) -> None:
    from quietray.inference.denoiser import Denoiser

    denoiser = Denoiser.load(path)
    denoiser.slice(np.ones((denoiser.split.n_parts, 1, N, N), np.float32), 0)


def _configured(path: Path) -> None:
    from quietray.commands.runs import Denoise

    Denoise(Path("scan.h5"), config=path).settings()


def _paired(path: Path) -> None:
    from quietray.io import is_pairs, read_pairs

    if is_pairs(path):
        _ = read_pairs(path).weight


def _angled(path: Path) -> None:
    from quietray.io import read

    for name in ("theta.npy", "theta.txt"):
        read(path / "stack.tif", angles=path / name)


def _command(*arguments: str) -> None:
    """Run a command; what it tells with code 2 is told."""
    from quietray.cli import main
    from quietray.errors import FormatError

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            main(list(arguments))
    except SystemExit as left:
        if left.code == 2 and "Traceback" not in said.getvalue():
            raise FormatError(said.getvalue()) from None
        if left.code not in (0, None) or "Traceback" in said.getvalue():
            raise RuntimeError(f"code {left.code}: {said.getvalue()[-3000:]}") from None


@dataclasses.dataclass(frozen=True)
class Kind:
    """Files of a format, and what is done with them."""

    make: Callable[[Path], Path]
    use: Callable[[Path], None]
    library: str = ""


KINDS: dict[str, Kind] = {
    "dxchange": Kind(_exchange, _look),
    "dxchange, compressed": Kind(lambda place: _exchange(place, chunks=(1, ROWS, N), compression="gzip"), _look),
    "dxchange, checked": Kind(_exchange, _check),
    "nxtomo": Kind(_nxtomo, _look),
    "nxtomo, linked": Kind(_diamond, _look),
    "cone beam": Kind(_cone, _look),
    "truth": Kind(_cone, _slices),
    "zarr": Kind(_zarr_scan, _look),
    "tiffs": Kind(_tiffs, lambda path: _look(path, "--angles", "0:180")),
    "tiff stack": Kind(_tiff_stack, lambda path: _look(path, "--angles", "0:180")),
    "tiffs, compressed": Kind(lambda place: _tiffs(place, compression="zlib"), _pictures),
    "npy": Kind(_npy, _look),
    "npy with angles": Kind(_npy, lambda path: _look(path, "--angles", "0:180")),
    "png": Kind(_png, _look),
    "dicom": Kind(_dicom, _look),
    "dicom, one file": Kind(_dicom_frames, _look),
    "nikon": Kind(_scanner("nikon"), _look),
    "skyscan": Kind(_scanner("skyscan"), _look),
    "phoenix": Kind(_scanner("phoenix"), _look),
    "zeiss": Kind(_scanner("zeiss"), _look, "olefile"),
    "edf": Kind(_edf, _look, "fabio"),
    "fits": Kind(_fits, lambda path: _look(path, "--angles", "0:180"), "astropy"),
    "volume.zarr": Kind(_volume("zarr"), _slices),
    "volume.h5": Kind(_volume("h5"), _slices),
    "volume, tiff": Kind(_volume("tiff", dtype="uint16", window=(0.0, 1.0)), _slices),
    "volume.tif": Kind(_volume("bigtiff"), _slices),
    "volume.mhd": Kind(_volume("mhd"), _slices),
    "volume.nii": Kind(_volume("nii"), _slices),
    "metaimage scan": Kind(_volume("mhd"), lambda path: _look(path, "--angles", "0:180")),
    "model": Kind(_model, _applied),
    "run.toml": Kind(_settings, _configured),
    "pairs": Kind(_pairs, _paired),
    "angles": Kind(_angles, _angled),
}

# --- what is done to them

ODD = ["", "nan", "-1", "0", "1e400", "99999999999999999999", "inf", "2147483647", "none", "\x00", "\u00e9", "[", "{}"]
_HUGE = [0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFFFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 10**12, 10**6, 1, 0]


def _flip(data: bytearray, rng: Any) -> None:
    for _ in range(int(rng.integers(1, 9))):
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))


def _flip_head(data: bytearray, rng: Any) -> None:
    for _ in range(int(rng.integers(1, 4))):
        data[int(rng.integers(min(len(data), 512)))] = int(rng.integers(256))


def _cut(data: bytearray, rng: Any) -> None:
    del data[int(rng.integers(len(data))) :]


def _blank(data: bytearray, rng: Any) -> None:
    first = int(rng.integers(len(data)))
    last = min(len(data), first + int(2 ** rng.uniform(0, 10)))
    data[first:last] = (b"\0" if rng.random() < 0.6 else b"\xff") * (last - first)


def _lose(data: bytearray, rng: Any) -> None:
    first = int(rng.integers(len(data)))
    del data[first : first + int(2 ** rng.uniform(0, 8))]


def _insert(data: bytearray, rng: Any) -> None:
    first = int(rng.integers(len(data)))
    data[first:first] = rng.bytes(int(2 ** rng.uniform(0, 6)))


def _huge(data: bytearray, rng: Any) -> None:
    """Write a number that is too large, or too small, over an aligned one, mostly in what is near the begin."""
    width = int(rng.choice([2, 4, 8]))
    top = len(data) if rng.random() < 0.5 else min(len(data), 1024)
    first = int(rng.integers(max(1, top // width))) * width
    value = int(rng.choice(np.array(_HUGE, np.uint64))) % 2 ** (8 * width)
    data[first : first + width] = value.to_bytes(width, "little" if rng.random() < 0.8 else "big")[: len(data) - first]


def _words(data: bytearray, rng: Any) -> None:
    """Replace a word of a text, or a number in it."""
    text = data.decode("latin-1")
    separators = " =:,\n\t[]{}\"'"
    ends = [spot for spot, one in enumerate(text) if one in separators]
    if len(ends) < 2:
        return _flip(data, rng)
    number = int(rng.integers(len(ends) - 1))
    first, last = ends[number] + 1, ends[number + 1]
    data[:] = (text[:first] + str(rng.choice(ODD)) + text[last:]).encode("utf-8", "replace")


def _lines(data: bytearray, rng: Any) -> None:
    """Drop, double or swap lines."""
    lines = data.split(b"\n")
    first, second = (int(number) for number in rng.integers(len(lines), size=2))
    match int(rng.integers(3)):
        case 0:
            del lines[first]
        case 1:
            lines.insert(second, lines[first])
        case 2:
            lines[first], lines[second] = lines[second], lines[first]
    data[:] = b"\n".join(lines)


_BYTES = [_flip, _flip, _flip_head, _flip_head, _cut, _blank, _lose, _insert, _huge, _huge]
_TEXT = [_words, _words, _words, _words, _lines, _lines, _cut, _flip]


def _strange(rng: Any) -> Any:
    values = [
        "text", b"\xff\xfe", np.nan, np.inf, -1, 0, 2**63 - 1, 1e300, True, 1 + 2j, np.array([]), np.zeros((3, 0)),
        np.zeros((2, 2, 2)), np.array(["a", "bc"], dtype=object), np.zeros(3, [("a", "i4"), ("b", "f8")]),
        h5py.Empty("f4"), np.bool_(False), np.array([np.nan] * VIEWS), "\u00b5m", "/exchange/data", np.float16(1.5),
        np.arange(VIEWS)[::-1].astype(">f8"), np.full(VIEWS, 2**64 - 1, np.uint64),
    ]  # fmt: skip
    return values[int(rng.integers(len(values)))]


def _hdf5(path: Path, rng: Any) -> str:
    """Change what is in an HDF5 file, as a program might that is wrong."""
    with h5py.File(path, "a") as file:
        names: list[str] = []
        file.visit(names.append)
        if not names:
            return "nothing in it"
        name = str(rng.choice(names))
        entry = file[name]
        parent, last = entry.parent, name.rpartition("/")[2]
        what = int(rng.integers(10))
        if what == 0:
            del parent[last]
        elif what == 1:
            parent.move(
                last, str(rng.choice(["other", "data", "theta", "image_key", "angles\u00e9", "definition"])) + "_"
            )
        elif what == 2:
            del parent[last]
            value = _strange(rng)
            with contextlib.suppress(TypeError, ValueError):
                parent[last] = value
        elif what == 3:
            value = _strange(rng)
            for key in [*entry.attrs][:2] or ["units"]:
                with contextlib.suppress(TypeError, ValueError):
                    entry.attrs[key] = value
        elif what == 4:
            del parent[last]
            others = [h5py.ExternalLink(path.name, name), h5py.ExternalLink("/dev/zero", "/")]
            links = [h5py.SoftLink(name), h5py.SoftLink("/"), h5py.SoftLink("/nowhere"), *others]
            parent[last] = links[int(rng.integers(5))]
        elif what == 5:
            parent[f"{last}_again"] = file["/"] if rng.random() < 0.5 else entry
        elif what == 6:
            shapes = [(10**6, 10**6, 4), (10**12, 4, 4), (2**40,), (VIEWS, 10**9, 10**3), (10**12, ROWS, N), ()]
            shape = shapes[int(rng.integers(len(shapes)))]
            kind = rng.choice(["u2", "f8", "i8", "f4"])
            del parent[last]
            with contextlib.suppress(ValueError, OSError):
                chunks = tuple(min(4, size) for size in shape) or None
                parent.create_dataset(last, shape, kind, chunks=chunks)
        elif what == 7 and isinstance(entry, h5py.Dataset):
            value = np.asarray(entry[()])
            del parent[last]
            kinds = ["f2", ">i4", "c8", "S4", "?", "u8", "f8", "i1"]
            with contextlib.suppress(ValueError, TypeError):
                parent[last] = value.astype(rng.choice(kinds))
        elif what == 8 and isinstance(entry, h5py.Dataset):
            value = np.asarray(entry[()])
            del parent[last]
            shapes = [(-1,), (1, -1), (-1, 1, 1, 1), value.shape[::-1], (*value.shape, 1)]
            value = value.reshape(shapes[int(rng.integers(5))])
            parent[last] = value[: len(value) // 2] if rng.random() < 0.3 else value
        else:
            file.create_group(f"{last}x")
            file[f"{last}x/loop"] = h5py.SoftLink(f"/{last}x")
            file.attrs["provenance"] = str(rng.choice(["{", "[]", "3", '{"notes": 3}', '{"truth": []}', "null"]))
        return f"HDF5, change {what} of {name}"


def _json(path: Path, rng: Any) -> str:
    """Replace a value, a key or a list in a JSON file."""
    found = json.loads(path.read_text())
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            walk(node[key])

    walk(found)
    if not places:
        return "JSON without values"
    node, key = places[int(rng.integers(len(places)))]
    values = [None, -1, 0, 10**12, 2**70, 1e308, "", "text", [], {}, [[]], True, [10**6] * 3, "../../x", 0.5]
    if rng.random() < 0.2:
        del node[key]
    else:
        node[key] = values[int(rng.integers(len(values)))]
    path.write_text(json.dumps(found))
    return f"JSON, {key}"


def _folder(path: Path, files: list[Path], rng: Any) -> str:
    """Lose, empty, double or misplace a file of a folder."""
    file = files[int(rng.integers(len(files)))]
    what = int(rng.integers(7))
    if what == 0:
        file.unlink()
    elif what == 1:
        file.write_bytes(b"")
    elif what == 2:
        file.unlink()
        file.mkdir()
    elif what == 3:
        file.unlink()
        file.symlink_to(file.name)
    elif what == 4:
        shutil.copy(file, file.with_name(f"copy of {file.name}"))
    elif what == 5:
        file.rename(file.with_name("\u00e9 9999999999999999999999" + file.suffix))
    else:
        shutil.copy(file, files[int(rng.integers(len(files)))]) if len(files) > 1 else file.write_bytes(b"\0" * 9)
    return f"folder, change {what} of {file.name}"


def _is_text(path: Path) -> bool:
    return path.suffix in (".toml", ".json", ".xtekct", ".log", ".pca", ".info", ".mhd", ".txt")


def damage(path: Path, rng: Any) -> str:
    """Damage a file, or one in a folder; return what was done."""
    files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    if path.suffix == ".mhd":
        files.append(path.with_suffix(".raw"))
    texts = [one for one in files if _is_text(one)]
    if path.is_dir() and rng.random() < 0.15:
        return _folder(path, files, rng)
    file = (texts if texts and rng.random() < 0.7 else files)[int(rng.integers(2**30)) % len(texts or files) - 1]
    if file.suffix in (".h5", ".nx", ".nxs") and rng.random() < 0.6:
        return _hdf5(file, rng)
    if file.suffix == ".json" and rng.random() < 0.6:
        return _json(file, rng)
    data = bytearray(file.read_bytes())
    done = []
    for _ in range(1 + (rng.random() < 0.2)):
        kinds = _TEXT if _is_text(file) else _BYTES
        one = kinds[int(rng.integers(len(kinds)))]
        if data:
            one(data, rng)
        done.append(one.__name__.strip("_"))
    file.write_bytes(bytes(data))
    return f"{', '.join(done)} in {file.name}"


# --- running them


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a mutant: ``read``, ``told``, or a fault."""

    number: int
    kind: str
    done: str
    was: str
    said: str = ""


class _TooLongError(BaseException):
    pass


def _peak(reset: bool = False) -> int:
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def whole_files(folder: Path, names: list[str] | None = None) -> dict[str, tuple[Path, Path]]:
    """Write whole files of every kind whose library is here; return the folder and the path of each."""
    import importlib.util

    found = {}
    for number, (name, kind) in enumerate(KINDS.items()):
        if (names and name not in names) or (kind.library and importlib.util.find_spec(kind.library) is None):
            continue
        place = folder / str(number)
        place.mkdir(parents=True)
        made = kind.make(place)
        kind.use(made)  # what is whole is read
        found[name] = place, made
    return found


def run_one(number: int, seed: int, whole: dict[str, tuple[Path, Path]], work: Path) -> Outcome:
    """Make a mutant, use it, and say what became of it."""
    from quietray.errors import QuietrayError

    rng = np.random.default_rng([seed, number])
    name = list(whole)[int(rng.integers(len(whole)))]
    place, made = whole[name]
    target = work / "mutant"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(place, target)
    path = target / made.relative_to(place)
    try:
        done = damage(path, rng)
    except Exception as error:  # a library refuses to write what is wrong
        return Outcome(number, name, f"not made: {type(error).__name__}: {error}"[:80], "read")
    print(f"{number} {name}: {done}", file=sys.stderr, flush=True)

    def late(*_: Any) -> None:
        raise _TooLongError

    signal.signal(signal.SIGALRM, late)
    signal.alarm(LONGEST)
    before = _peak(reset=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            KINDS[name].use(path)
        was, said = "read", ""
    except QuietrayError as error:
        was, said = "told", str(error)
    except _TooLongError:
        was, said = "hang", traceback.format_exc()
    except Exception:
        was, said = "fault", traceback.format_exc()
    finally:
        signal.alarm(0)
    if was in ("read", "told") and (taken := _peak() - before) > MOST_MEMORY:
        was, said = "memory", f"{taken / 2**30:.1f} GiB"
    return Outcome(number, name, done, was, said)


def _batch(numbers: list[int], seed: int, whole: dict[str, tuple[Path, Path]], pipe: int) -> None:
    """Run mutants in a forked process, telling each before and after."""
    limit = 8 * 2**30
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    with tempfile.TemporaryDirectory() as work:
        for number in numbers:
            os.write(pipe, (json.dumps({"begun": number}) + "\n").encode())
            outcome = run_one(number, seed, whole, Path(work))
            os.write(pipe, (json.dumps(dataclasses.asdict(outcome)) + "\n").encode())


def run_many(
    count: int, seed: int, whole: dict[str, tuple[Path, Path]], first: int = 0, batch: int = 200
) -> list[Outcome]:
    """Run mutants in forked processes; one that dies or hangs is an outcome, and the next process goes on after it."""
    outcomes: list[Outcome] = []
    numbers = list(range(first, first + count))
    while numbers:
        reader, writer = os.pipe()
        log = tempfile.TemporaryFile()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.close(reader)
                os.dup2(log.fileno(), 2)
                faulthandler.enable()
                _batch(numbers[:batch], seed, whole, writer)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(writer)
        begun, done, rest, killed = None, set(), b"", ""
        while True:
            ready, _, _ = select.select([reader], [], [], LONGEST + 30)
            if not ready:
                os.kill(child, signal.SIGKILL)
                killed = "hang"
                break
            piece = os.read(reader, 2**20)
            if not piece:
                break
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                told = json.loads(line)
                if "begun" in told:
                    begun = told["begun"]
                else:
                    outcomes.append(Outcome(**told))
                    done.add(told["number"])
        _, status = os.waitpid(child, 0)
        os.close(reader)
        if status and begun is not None and begun not in done:
            log.seek(0)
            said = log.read().decode("utf-8", "replace")[-3000:]
            outcomes.append(Outcome(begun, "?", "", killed or "crash", f"status {status}\n{said}"))
            done.add(begun)
        numbers = [number for number in numbers if number not in done]
        if not done:
            raise RuntimeError("the process that runs mutants does not begin")
    return outcomes


def main() -> None:
    """Run mutants and show what became of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", type=int)
    parser.add_argument("--kinds", nargs="*")
    told = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        whole = whole_files(Path(folder), told.kinds)
        if told.only is not None:
            print(run_one(told.only, told.seed, whole, Path(folder)))
            return
        outcomes: list[Outcome] = []
        seen: Counter[str] = Counter()
        for first in range(0, told.count, _TOLD_EVERY):
            some = run_many(min(_TOLD_EVERY, told.count - first), told.seed, whole, told.first + first)
            outcomes += some
            for one in some:
                if one.was in ("read", "told"):
                    continue
                key = " ".join(one.said.strip().splitlines()[-1:])[:60]
                seen[key] += 1
                if seen[key] <= 2:
                    print(f"--- {one.number} {one.kind}: {one.done}: {one.was}\n{one.said}")
            print(f"{len(outcomes)} mutants, {seen.total()} faults, {time.monotonic() - begun:.0f} s", flush=True)
    by_kind = Counter((one.kind, one.was) for one in outcomes)
    for name in whole:
        print(f"{name:24s}", {was: n for (kind, was), n in sorted(by_kind.items()) if kind == name})
    print(f"{len(outcomes)} mutants, {seen.total()} faults", dict(seen))


if __name__ == "__main__":
    main()
