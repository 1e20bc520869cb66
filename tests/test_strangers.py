"""Folders and files of strangers are data: they run nothing, fetch nothing, and write nowhere but into OUT."""

import html
import json
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import mutants
import quietray
from dicom_files import phantom, write_series
from quietray.checkpoint import replace_file
from quietray.cli import main
from quietray.errors import FormatError, QuietrayError, ResourceError, SettingsError
from quietray.inference.denoiser import Denoiser
from quietray.io import read, read_images, read_volume
from quietray.io.images.dicom import DicomFiles
from quietray.report import write_report
from quietray.report.data import Cut, Histogram, ReportData
from quietray.running.ledger import Ledger
from quietray.running.models import remember
from quietray.running.output import Output
from quietray.settings import from_dict, read_toml
from scans import content, disc_scan, quick

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> [red]$\\frac{"


class Trap:
    """Runs when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


@pytest.fixture
def model(tmp_path):
    return mutants.KINDS["model"].make(tmp_path)


# --- running code


@pytest.mark.parametrize("write", [torch.save, lambda what, path: path.write_bytes(pickle.dumps(what))])
def test_pickled_weights_are_not_loaded(tmp_path, model, write):
    write(Trap(tmp_path / "sprung"), model / "weights.safetensors")
    with pytest.raises(FormatError, match="must be a safetensors file"):
        Denoiser.load(model)
    assert not (tmp_path / "sprung").exists()


def test_pickled_arrays_are_not_loaded(tmp_path):
    trap = np.array([Trap(tmp_path / "sprung")], dtype=object)
    path = tmp_path / "frames.npy"
    np.save(path, trap, allow_pickle=True)
    for load in (read_images, lambda place: read(place, angles="0:180"), lambda place: read(disc_scan(), flats=place)):
        with pytest.raises(QuietrayError):
            load(path)
    (tmp_path / "slab-000000.npz").write_bytes(b"")
    np.savez(tmp_path / "slab-000000.npz", facts=trap)
    with pytest.raises(FormatError, match="must be a slab's record"):
        Ledger(tmp_path).load(0)
    assert not (tmp_path / "sprung").exists()


NAMES = ["evil", "evil.Method", "os.system", "../evil", "/evil.py", "__import__('evil')", "evil:Method"]


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A module that can be imported, which must not be: importing it leaves a trace."""
    (tmp_path / "evil.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'sprung')!r})\nclass Method: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield
    assert "evil" not in sys.modules
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["method", "network", "reconstruction"])
def test_a_name_in_settings_imports_nothing(tmp_path, evil, name, place):
    for text in (f"{place} = {json.dumps(name)}", f"[{place}]\nname = {json.dumps(name)}"):
        (tmp_path / "run.toml").write_text(text)
        with pytest.raises(SettingsError, match="must be one of"):
            from_dict(quietray.Settings, read_toml(tmp_path / "run.toml"))


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_a_model_imports_nothing(model, evil, name):
    record = json.loads((model / "model.json").read_text())
    for key in ("method", "architecture"):
        (model / "model.json").write_text(json.dumps(record | {key: name}))
        with pytest.raises(FormatError, match="of a known method and network"):
            Denoiser.load(model)


AUDITED = """
    import os, sys, tempfile
    from pathlib import Path
    sys.path[:0] = [{tests!r}]
    import mutants, quietray, quietray.workflows, scipy.optimize, scipy.special  # what is imported late, too
    from quietray.cli import main
    seen, inside = [], os.path.realpath({folder!r})
    def watch(event, arguments):
        if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec"):
            seen.append((event, str(arguments)[:200]))
        if event in ("os.remove", "os.rmdir", "os.rename", "os.mkdir", "os.symlink", "os.link", "os.truncate"):
            paths = [one for one in arguments[:2] if isinstance(one, (str, bytes))]
        elif event == "open" and isinstance(arguments[0], (str, bytes)) and arguments[2] & 0o3:
            paths = [arguments[0]]
        else:
            return
        for path in paths:
            if event != "open" and arguments[-1] not in (-1, None) and "/" not in os.fsdecode(path):
                continue  # within a folder that is open
            place = os.path.realpath(os.fsdecode(path))
            if not place.startswith(inside) and place != "/dev/null" and "__pycache__" not in place:
                seen.append((event, place))
    tempfile.tempdir = os.environ["TMPDIR"] = inside
    files = mutants.whole_files(Path(inside, "whole"))
    sys.addaudithook(watch)
    for name, (_, path) in files.items():
        mutants.KINDS[name].use(path)
    out = str(Path(inside, "out"))
    try:
        main(["apply", str(files["model"][1]), str(files["dxchange"][1]), "--out", out, "--rotation-axis", "5.5"])
    except SystemExit as left:
        assert left.code in (0, None), left.code
    assert Path(out, "report.html").exists()
    assert not seen, seen
"""


@pytest.mark.slow
def test_reading_and_applying_neither_connects_nor_starts_nor_writes_elsewhere(tmp_path):
    """Watched by Python itself: every format is read, and a model of a stranger applied."""
    code = AUDITED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


# --- writing elsewhere


def unfinished_run(out):
    """Leave what a killed run leaves."""
    scan = quietray.read(disc_scan())
    child = os.fork()
    if child == 0:
        quietray.domains.volume.gather = lambda *_, **__: os._exit(9)
        try:
            quietray.denoise(scan, out, quick())
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    return scan


@pytest.fixture
def precious(tmp_path):
    """Files beside the folder of a run, which stay as they are."""
    place = tmp_path / "precious"
    place.mkdir()
    (place / "thesis.txt").write_text("years of work")
    before = content(place)
    yield place
    assert content(place) == before


def test_a_listing_of_what_is_replaced_names_nothing_else(tmp_path, precious):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    output = Output(out, quick(), {}, "zarr")
    names = ["../precious", str(precious), "notes.txt", "../precious/thesis.txt", 3, None, "metrics.json"]
    (out / ".work" / "replaces.json").write_text(json.dumps(names))
    (out / "metrics.json").write_text("{}")
    output._remove_replaced()
    assert (out / "notes.txt").exists()
    assert not (out / "metrics.json").exists()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The scan and the folder of a run that was killed."""
    out = tmp_path_factory.mktemp("stopped") / "out"
    return unfinished_run(out), out


@pytest.mark.parametrize("name", ["model", ".work/training.safetensors", ".volume.zarr.partial", "run.toml", "series"])
def test_a_run_is_not_resumed_through_links(tmp_path, precious, stopped, name):
    (scan, killed), out = stopped, tmp_path / "out"
    shutil.copytree(killed, out)
    place = out / name
    if place.exists():
        place.rename(tmp_path / "aside")
    place.symlink_to(precious if "." not in name[1:] else precious / "thesis.txt")
    with pytest.raises(ResourceError, match=rf"{place} must not be a link.*got one to {precious}"):
        quietray.denoise(scan, out, quick(), resume=True)
    with Output(out, quick(), {}, "zarr", overwrite=True) as output:
        output._remove_replaced()
        assert not place.is_symlink()


@pytest.mark.parametrize("name", ["run.toml", "metrics.json", "report.html"])
def test_a_link_where_a_file_is_prepared_is_not_followed(tmp_path, precious, name):
    (tmp_path / f".{name}.partial").symlink_to(precious / "thesis.txt")
    if name == "report.html":
        with pytest.raises(ResourceError, match="symbolic links"):
            write_report(tmp_path / name, ReportData("ours", unit="1/mm", voxel_size=None))
    else:
        with pytest.raises(OSError, match="symbolic links"):
            replace_file(tmp_path / name, b"ours")


def test_numbers_of_a_metaimage_elsewhere_are_not_moved(tmp_path, precious):
    path = mutants.KINDS["volume.mhd"].make(tmp_path)
    elsewhere = precious / "numbers.raw"
    (tmp_path / "volume.raw").rename(elsewhere)
    path.write_text(path.read_text().replace("volume.raw", "precious/numbers.raw"))
    assert read_volume(path).shape == (4, 12, 12)
    grid = quietray.VolumeGrid((4, 12, 12), voxel_size=0.01)
    with pytest.raises(FormatError, match=r"must point to volume\.raw beside it"):
        with quietray.io.open_volume_writer(path, grid, format="mhd", resume=True) as writer:
            writer.write(0, np.zeros((1, 12, 12), np.float32))
    with pytest.raises(FormatError, match=r"must point to volume\.raw beside it"):
        type(writer).rename(path, tmp_path / "new.mhd")
    elsewhere.unlink()


def test_a_name_in_dicom_is_no_path(tmp_path, precious):
    folder = write_series(tmp_path / "series", phantom(3, 16), SeriesDescription="../../precious/x", PatientID="/etc/x")
    series = read_images(folder)
    assert isinstance(series.origin, DicomFiles)
    out = tmp_path / "new"
    out.mkdir()
    series.origin.write(out, series.images + 1, "quietray")
    assert sorted(one.name for one in out.iterdir()) == sorted(one.name for one in folder.iterdir())


@pytest.mark.parametrize("source", ["../../precious/x.h5", "/", "..", ".ssh", ""])
def test_a_model_that_is_kept_is_kept_among_the_others(tmp_path, model, monkeypatch, source):
    monkeypatch.setenv("QUIETRAY_MODELS", str(tmp_path / "kept"))
    record = json.loads((model / "model.json").read_text())
    (model / "model.json").write_text(json.dumps(record | {"facts": {"source": source}}))
    kept = remember(model)
    assert kept.folder.resolve().parent == (tmp_path / "kept").resolve()
    assert not kept.name.startswith(".")
    for name in ("../out", "/tmp/x", ".x", "a/b"):
        with pytest.raises(SettingsError, match="plain word"):
            remember(model, name)


@pytest.mark.parametrize("text", ["{", "[]", "3", "[" * 5000, ""])
@pytest.mark.parametrize("name", [".work/run.json", "metrics.json"])
def test_what_a_run_noted_of_itself_may_be_damaged(tmp_path, name, text):
    out = tmp_path / "out"
    (out / ".work").mkdir(parents=True)
    (out / name).write_text(text)
    with pytest.raises(ResourceError, match=f"{name} must be a run.s own record.*overwrite=True"):
        quietray.denoise(quietray.read(disc_scan()), out, quick(), resume=True)


# --- what files say, shown


def test_a_report_shows_what_files_say_and_does_nothing_of_it(tmp_path):
    noisy = np.random.default_rng(0).normal(1, 0.1, (16, 16)).astype(np.float32)
    data = ReportData(
        title=EVIL,
        unit=EVIL,
        voxel_size=0.1,
        cuts=(Cut(EVIL, noisy, noisy, (EVIL, EVIL)),),
        histogram=Histogram(np.linspace(0, 2, 5), np.arange(4), np.arange(4)),
        metrics={EVIL: {EVIL: EVIL}, "list": [EVIL]},
        headline=((EVIL, EVIL),),
        warnings=(EVIL,),
        notes=(EVIL,),
        settings_toml=EVIL,
        provenance={EVIL: {EVIL: EVIL}, "scan": EVIL},
        kind=EVIL,
    )
    page = write_report(tmp_path / "report.html", data).read_text()
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert html.escape("<script>alert(1)</script>") in page


@pytest.mark.slow
def test_a_run_on_a_scan_with_such_a_name_makes_a_page_that_is_safe(tmp_path):
    path = tmp_path / "<script>alert(1)<!--[red]$^.h5"
    path.write_bytes(disc_scan().read_bytes())
    with h5py.File(path, "a") as file:
        file.attrs["provenance"] = json.dumps({"sample": EVIL, "source": EVIL, "notes": [EVIL]})
        file["measurement/sample/name"] = EVIL
    out = tmp_path / "out"
    main(["denoise", str(path), "--out", str(out), "--steps", "5", "--method", "noise2inverse"])
    page = (out / "report.html").read_text()
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "alert(1)" in page


def test_what_dicom_says_is_shown_as_text(tmp_path, capsys):
    folder = write_series(
        tmp_path / "series", phantom(3, 16), Manufacturer=EVIL, PatientName="<b>Name^Of", ConvolutionKernel=EVIL[:16]
    )
    main(["info", str(folder)])
    assert "<b>Name" not in capsys.readouterr().err
    series = read_images(folder)
    data = ReportData(title=str(folder), unit="HU", voxel_size=None, provenance=dict(series.provenance))
    page = write_report(tmp_path / "report.html", data).read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
