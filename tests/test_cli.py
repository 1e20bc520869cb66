"""The command line: what scripts may rely on, every command from simulating to comparing, and the measured scans."""

import ast
import dataclasses
import functools
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro

import quietray
from quietray import FBP, Correction, Noise2Inverse, ParallelProjector, Scintillator, Settings, cli
from quietray.cli import main
from quietray.commands.files import Simulate
from quietray.commands.flags import NAMES
from quietray.commands.manual import options_of
from quietray.commands.runs import Reconstruct
from quietray.commands.table import COMMANDS
from quietray.io import VolumeFormat
from quietray.method import METHODS
from quietray.networks import Architecture
from quietray.settings import called, from_dict, read_toml, write_toml
from quietray.simulate.foam_scan import FoamScan
from scans import content, disc_scan, foam_scan, quick

PLACED = ("scan", "scans", "model", "images", "result", "reference", "folder", "action", "name", "shell")


@pytest.fixture(autouse=True)
def _one_thread():
    """Numba, which projects the phantom, takes every core for itself and for torch."""
    yield
    torch.set_num_threads(1)


@pytest.fixture
def run(capsys):
    """Return a function that runs a command with --json, and returns the one document on standard output."""

    def command(*arguments):
        capsys.readouterr()
        main([*(str(argument) for argument in arguments), "--json"])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return json.loads(said.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    return command


def lines_of(capsys, *words):
    with pytest.raises(SystemExit) as left:
        main([*words])
    said = capsys.readouterr()
    assert left.value.code == 0
    assert said.err == ""
    return said.out.splitlines()


def help_of(capsys, *command):
    return " ".join(" ".join(lines_of(capsys, *command, "--help-all")).split())


def test_help_names_every_command_on_one_page(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = lines_of(capsys, "--help")
    assert len(lines) <= 40
    for name in COMMANDS:
        assert any(re.match(rf"  {name} +\w", line) for line in lines)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_a_page_with_two_examples_that_work(capsys, monkeypatch, name):
    """The examples are parsed as they are printed."""
    monkeypatch.setenv("COLUMNS", "80")
    lines = lines_of(capsys, name, "--help")
    assert len(lines) <= 40
    examples = [line.strip() for line in lines[lines.index("examples") + 1 :] if line.startswith("  ")]
    assert len(examples) == 2
    for example in examples:
        words = shlex.split(example.removeprefix('eval "$(').removesuffix(')"').split(" | ")[0])
        assert words[:2] == ["quietray", name]
        assert isinstance(cli._parsed(words[1:]), COMMANDS[name])
    assert all(len(line) <= 80 for line in lines if line.strip() not in examples)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_whole_help_explains_every_option_and_shows_its_default(capsys, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "200")
    text = help_of(capsys, name).split("[OPTIONS]")[1]
    for field in dataclasses.fields(COMMANDS[name]):
        if field.name in PLACED:  # without a flag
            continue
        _, _, told = text.partition(f" --{field.name.strip('_').replace('_', '-')} ")
        assert told, field.name
        if field.default not in (None, False, dataclasses.MISSING, ()):
            default = field.default if isinstance(field.default, tuple) else (field.default,)
            assert f"(default: {' '.join(map(str, default))})" in told[:300], field.name
        assert (field.default is dataclasses.MISSING) == ("(required)" in told.split(" --")[0])
    assert " None" not in text


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_tells_the_flags_that_are_parsed(name):
    """As tyro has them, which knows nothing of the help's own way of reading the dataclasses."""
    with pytest.warns(DeprecationWarning, match="get_parser"):
        parser = tyro.extras.get_parser(COMMANDS[name], config=(tyro.conf.OmitArgPrefixes,))
    actions = [action for action in parser._actions if action.dest != "help"]
    parsed = {action.option_strings[0] for action in actions if action.option_strings}
    told = options_of(COMMANDS[name])
    assert {option.flag for option in told if option.flag} == parsed
    assert sum(not option.flag for option in told) == sum(not action.option_strings for action in actions)
    for action in actions:
        option = next(one for one in told if one.flag in (action.option_strings or [""]))
        if option.flag:
            assert (action.nargs == 0) == (option.metavar == "")
            assert not action.choices or set(action.choices) - {"None"} == set(option.choices)


def test_defaults_in_the_help_are_the_settings_own(capsys, monkeypatch):
    """Flags of denoise are None, so that --config may speak: what the help tells must be looked after."""
    monkeypatch.setenv("COLUMNS", "200")
    text, settings = help_of(capsys, "denoise"), Settings()
    options = text.split(" --")
    told = {option.split()[0]: found[1] for option in options if (found := re.search(r"\(default: ([^):]+)", option))}
    expected = {
        "budget": settings.budget,
        "seed": settings.seed,
        "format": settings.format,
        "method": called(type(settings.method)),
        "network": called(type(settings.network)),
        "parts": Noise2Inverse().parts,
        "slices": Noise2Inverse().slices,
        "filter": settings.reconstruction.filter,
        "rings": settings.correction.rings,
        "zingers": f"{settings.correction.zingers:g}",
    }
    assert {name: told[name].split(",")[0] for name in expected} == {name: str(expected[name]) for name in expected}
    assert told["air"] == settings.correction.air
    assert told["whiten"].split(",")[0] == settings.whiten


def test_simulate_has_every_setting_of_its_scan_and_detector():
    own = {field.name: field.default for field in dataclasses.fields(FoamScan)}
    flags = {field.name: field.default for field in dataclasses.fields(Simulate)}
    assert set(flags) - set(own) == {"out", "overwrite", "json", "log", "quiet", "verbose"}
    assert {name: flags[name] for name in own} == own
    detector = {field.name for field in dataclasses.fields(Scintillator)} - {"dark"}
    assert detector <= set(own)


@pytest.mark.parametrize("code", ["import quietray", "from quietray.cli import main\nmain(['--help'])"])
def test_nothing_heavy_is_imported_for_the_help(code):
    heavy = "torch", "scipy", "h5py", "numpy", "zarr", "numba", "matplotlib", "skimage", "astra", "lightning_fabric"
    code = f"try:\n    exec({code!r})\nexcept SystemExit:\n    pass\n"
    code += f"import sys\nprint('HEAVY', [name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "HEAVY []" in done.stdout, done.stdout + done.stderr


def test_the_installed_command_and_its_version():
    done = subprocess.run([sys.executable, "-m", "quietray.cli", "nonsense"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "nonsense" in done.stderr
    assert done.stdout == ""
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", quietray.__version__)


def test_a_reader_that_has_seen_enough_is_no_fault():
    """As in ``quietray denoise --help | head -1``."""
    reading, writing = os.pipe()
    os.close(reading)
    ran = subprocess.run(
        [sys.executable, "-m", "quietray.cli", "denoise", "--help"], stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert ran.stderr == ""
    assert ran.returncode == 141


def test_public_names_are_what_they_say(tmp_path):
    """Also after everything was imported: a subpackage must not hide a function of its name."""
    for name in quietray.__all__:
        assert getattr(quietray, name) is not None
    for name in set(quietray.__all__) & {"read", "denoise", "reconstruct", "diagnose", "acquire", "read_volume"}:
        assert inspect.isfunction(getattr(quietray, name)), name


def test_editors_see_the_names_that_there_are():
    """What type checkers read says the same names, from the same homes, as the lazy table."""
    tree = ast.parse(Path(quietray.__file__).with_suffix(".pyi").read_text())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: node.module for node in imports for alias in node.names}
    assert all(alias.asname is None for node in imports for alias in node.names)
    assert homes == quietray._HOME
    told = next(node.value for node in tree.body if isinstance(node, ast.Assign))
    assert sorted(ast.literal_eval(told)) == quietray.__all__
    public = {name for module in (quietray.errors, quietray.splits, quietray.filters) for name in module.__all__}
    assert public - {"SPLITS", "FILTERS", "Tuned", "tune", "nearest", "require", "require_path"} <= set(homes)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("denoise", "absent.h5"), "the scan must exist, got absent.h5"),
        (("denoise", "scan.h5x"), "the scan must exist, got scan.h5x (did you mean 'scan.h5'?)"),
        (("denoise", "scan.h5", "--from", "absent"), "the model must exist, got absent"),
        (("denoise", "scan.h5", "--repeats", "scan.h5", "absent.h5"), "the scan must exist, got absent.h5"),
        (("denoise", "scan.h5", "--budget", "soon"), "a duration must be positive, got 'soon'"),
        (("denoise", "scan.h5"), "TIFF, Zarr or Zeiss txrm, got a file"),
        (("reconstruct", "scan.h5"), "TIFF, Zarr or Zeiss txrm, got a file"),
        (("compare", "scan.h5"), "TIFF, Zarr or Zeiss txrm, got a file"),
        (("train", "scan.h5"), "TIFF, Zarr or Zeiss txrm, got a file"),
        (("info", "scan.h5"), "TIFF, Zarr or Zeiss txrm, got a file"),
        (("diagnose", "scan.h5"), "TIFF, Zarr or Zeiss txrm, got a file"),
        (("diagnose", "scan.h5", "--static", "absent.h5"), "the stack of frames must exist, got absent.h5"),
        (("decorrelate", "scan.h5", "--out", "white.h5"), "TIFF, Zarr or Zeiss txrm, got a file"),
        (("apply", "absent", "scan.h5"), "the model must exist, got absent"),
        (("evaluate", "absent.zarr", "scan.h5"), "the volume must exist, got absent.zarr"),
        (("filter", "absent"), "the images must exist, got absent"),
        (("simulate", "--out", "new.h5", "--views", "0"), "views must be positive, got 0"),
        (
            ("denoise", "--methd", "foo", "scan.h5"),
            "--methd must be a flag of quietray denoise, got an unknown one (did you",
        ),
        (("denoise", "scan.h5", "--max_memry=1G"), "(did you mean '--max-memory'?); see quietray denoise --help"),
        (("denoise", "--from-scratch", "scan.h5"), "--from-scratch must be a flag of quietray denoise"),
        (("denoize", "scan.h5"), "denoize"),
        (("denoise", "scan.h5", "--method", "noise2invers"), "(did you mean 'noise2inverse'?)"),
        (("denoise", "scan.h5", "--network", "unett"), "--network must be one of unet, lehtinen"),
        (("denoise", "scan.h5", "--format", "zip"), "--format must be one of zarr, h5"),
        (("denoise", "scan.h5", "--rows", "few"), "--rows must be like 55:128"),
        (("reconstruct", "scan.h5", "--region", "1:2"), "--region must be like 100:300,150:400"),
        (("denoise", "scan.h5"), "output: scan-denoised error:"),
        (("denoise", "scan.h5", "--out", "old"), "got run.toml; give another folder, go on with --resume, or replace"),
        (("apply", "old", "scan.h5"), "old must hold a model.json written by quietray"),
        (("train", "scan.h5", "--out", "old"), "the model folder old must be empty"),
        (("compare", "scan.h5", "--out", "old"), "the output folder old must be empty"),
        (("reconstruct", "scan.h5", "--out", "old"), "the volume old must not exist yet"),
        (("denoise", "scan.h5", "--log", "no/where"), "the log no/where must be a file that can be written"),
    ],
)
def test_mistakes_are_told_before_anything_heavy_is_imported(tmp_path, words, said):
    (tmp_path / "scan.h5").write_text("words")
    (tmp_path / "old").mkdir()
    (tmp_path / "old/run.toml").touch()
    code = "import sys\nfrom quietray.cli import main\ntry:\n    main(sys.argv[1:])\nfinally:\n    "
    code += "print([name for name in ('torch', 'scipy', 'numba', 'matplotlib', 'astra') if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path, env=_elsewhere()
    )
    assert done.returncode == 2, done.stderr
    assert said in " ".join(done.stderr.split())
    assert done.stdout == "[]\n"


def test_names_that_are_known_without_their_modules_are_all_that_there_are():
    for name, registry in (("method", METHODS), ("network", Architecture.registry), ("format", VolumeFormat.registry)):
        assert sorted(NAMES[name]) == sorted({*registry, *(["auto"] if name == "method" else [])})
    kinds = {name: kind.endings[0] for name, kind in VolumeFormat.registry.items()}
    for name, ending in kinds.items():
        place = Reconstruct(Path("data/scan.h5"), format=name).place
        assert place == Path(f"scan-reconstructed{ending}")


def _elsewhere():
    """Return the environment of a process that runs in another folder."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "200"}


def test_flags_go_over_the_config(tmp_path, run):
    config = tmp_path / "run.toml"
    config.write_text(
        'seed = 5\nrows = "2:10"\nsymmetries = 1\n[training]\nsteps = 9\nbatch = 1\n[network]\nwidths = [4, 8]\n'
        '[correction]\nrings = "none"\n'
    )
    out = tmp_path / "out"
    figures = run(
        *("denoise", disc_scan(), "--config", config, "--out", out, "--steps", 4, "--parts", 2, "--slices", 3),
        *("--rotation-axis", 11.25, "--air", "0:3", "--zingers", 8, "--filter", "hann", "--format", "h5"),
    )
    stored = from_dict(Settings, read_toml(out / "run.toml"))
    assert (stored.seed, stored.rows, stored.rotation_axis, stored.format) == (5, "2:10", 11.25, "h5")
    assert (stored.training.steps, stored.training.batch, stored.network.widths) == (4, 1, (4, 8))
    assert stored.correction == Correction(rings="none", air="0:3", zingers=8.0)
    assert stored.reconstruction == FBP("hann")
    assert stored.method == Noise2Inverse(parts=2, slices=3)
    assert figures["training"]["steps"] == 4
    assert figures["scan"]["rows"] == [2, 10]
    assert figures["out"] == str(out)
    stored_figures = json.loads((out / "metrics.json").read_text())
    assert figures["estimate"] == stored_figures["estimate"]


@pytest.mark.slow
def test_from_simulation_to_comparison(tmp_path, run, capsys):
    """The round trip of the issue; the figures are recomputed here from the arrays."""
    scan, fbp, out = tmp_path / "foam.h5", tmp_path / "fbp.h5", tmp_path / "out"
    told = run(
        *("simulate", "--out", scan, "--views", 96, "--rows", 8, "--cols", 32, "--photons", 500, "--spheres", 12),
        *("--largest", 0.25, "--flats", 30, "--darks", 5, "--pixel-size", 0.5, "--seed", 3, "--rotation-axis", 15),
    )
    assert (told["scan"], told["photons"], told["seed"]) == (str(scan), 500, 3)
    read = quietray.read(scan)
    assert (read.n_views, read.n_rows, read.n_cols) == (96, 8, 32)
    assert (read.geometry.rotation_axis, read.geometry.pixel_size) == (15, 0.5)

    facts = run("info", scan)
    assert facts["projections"] == "96 views of 8 x 32, uint16, 0.0 MB"
    assert facts["angles"] == "0.000 to 178.125 degrees, step 1.875, covering 180.0"
    assert (facts["flats"], facts["darks"]) == ("30 frames, uint16", "5 frames, uint16")
    assert (facts["pixel size"], facts["rotation axis"], facts["truth"]) == ("0.5 mm", "column 15.00", "included")
    assert "1 slab of up to 8 rows" in facts["memory plan"]
    assert "must fit into memory" in run("info", scan, "--max-memory", "1M")["memory plan"]

    assert run("reconstruct", scan, "--out", fbp)["volume"] == str(fbp)
    figures = run("evaluate", fbp, scan)
    volume = np.asarray(quietray.read_volume(fbp))
    clean = np.ascontiguousarray(np.asarray(read.clean[:]).swapaxes(0, 1))
    reference = FBP()(ParallelProjector(read.geometry), clean)
    y, x = np.mgrid[:32, :32] - 15.5
    inside = np.hypot(y, x) <= 0.97 * 16
    error, span = (volume - reference)[:, inside], np.ptp(reference[:, inside])
    assert figures["rmse"] == pytest.approx(np.sqrt(np.mean(error.astype(float) ** 2)), rel=1e-5)
    assert figures["psnr_db"] == pytest.approx(20 * np.log10(span / figures["rmse"]), abs=1e-4)
    assert figures["bias"] == pytest.approx(error.mean(dtype=float), rel=1e-3, abs=1e-6)
    assert figures["data_range"] == pytest.approx(span, rel=1e-6)
    assert figures["unit"] == "1/mm"
    assert "foam.h5" in figures["reference"]
    assert figures["mask"] == "disc of 0.97 half-widths"

    against = run("evaluate", fbp, scan, "--against", "phantom", "--radius", 2, "--data-range", 0.1)
    error = volume - np.asarray(read.truth[:])
    assert against["rmse"] == pytest.approx(np.sqrt(np.mean(error.astype(float) ** 2)), rel=1e-5)
    assert against["psnr_db"] == pytest.approx(20 * np.log10(0.1 / against["rmse"]), abs=1e-4)

    config = tmp_path / "run.toml"
    config.write_text(write_toml(dataclasses.replace(quick(rows="2:6"), rotation_axis=None)))
    figures = run("denoise", scan, "--config", config, "--out", out)
    assert figures["scan"]["rotation_axis"] == 15
    assert any("as the file says" in note for note in json.loads((out / "metrics.json").read_text())["notes"])
    compared = run("evaluate", out / "volume.zarr", scan, "--rows", "2:6")
    denoised = np.asarray(quietray.read_volume(out / "volume.zarr"))
    error = (denoised - reference[2:6])[:, inside]
    assert compared["rmse"] == pytest.approx(np.sqrt(np.mean(error.astype(float) ** 2)), rel=1e-5)
    assert compared["slices"] == 4


@pytest.mark.parametrize("suffix", [".zarr", ".h5", ""])
def test_volumes_are_compared_with_each_other(tmp_path, run, suffix):
    """A volume on either side, in any format; the same one is infinitely good, which JSON cannot say."""
    volume, other = tmp_path / f"one{suffix}", tmp_path / f"two{suffix}"
    run("reconstruct", disc_scan(), "--out", volume, "--rotation-axis", 11.5)
    run("reconstruct", disc_scan(), "--out", other, "--rotation-axis", 11.5, "--filter", "hann")
    same = run("evaluate", volume, volume)
    assert (same["psnr_db"], same["rmse"], same["ssim"]) == (None, 0, pytest.approx(1))
    figures = run("evaluate", other, volume, "--rows", "0:12")
    one, two = (np.asarray(quietray.read_volume(path))[:, 10:14, 10:14] for path in (volume, other))
    assert figures["rmse"] > 0
    assert not np.array_equal(one, two)
    assert figures["psnr_db"] == pytest.approx(20 * np.log10(figures["data_range"] / figures["rmse"]))


def test_reconstruct_goes_by_the_ending_and_overwrites_when_told(tmp_path, run, capsys):
    volume = tmp_path / "deep/er/volume.h5"
    run("reconstruct", disc_scan(), "--out", volume, "--rotation-axis", 11.5)
    first = np.asarray(quietray.read_volume(volume))
    with pytest.raises(SystemExit) as left:
        main(["reconstruct", str(disc_scan()), "--out", str(volume)])
    assert left.value.code == 2
    run("reconstruct", disc_scan(), "--out", volume, "--rotation-axis", 10.5, "--overwrite")
    second = np.asarray(quietray.read_volume(volume))
    assert not np.array_equal(first, second)
    run("reconstruct", disc_scan(), "--out", volume, "--rotation-axis", 11.5, "--overwrite")
    np.testing.assert_array_equal(np.asarray(quietray.read_volume(volume)), first)
    assert [path.name for path in volume.parent.iterdir()] == ["volume.h5"]
    run("reconstruct", disc_scan(), "--out", tmp_path / "slices", "--rotation-axis", 11.5)
    assert len(list((tmp_path / "slices").glob("*.tif"))) == 12
    np.testing.assert_array_equal(np.asarray(quietray.read_volume(tmp_path / "slices")), first)


def test_simulate_repeats_itself_and_overwrites_when_told(tmp_path, run):
    small = ("--views", 6, "--rows", 2, "--cols", 16, "--spheres", 3, "--largest", 0.2, "--flats", 3, "--darks", 2)
    one, two = tmp_path / "one.h5", tmp_path / "two.h5"
    run("simulate", "--out", one, *small, "--seed", 7)
    run("simulate", "--out", two, *small, "--seed", 8)
    counts = [np.asarray(quietray.read(path).projections[:]) for path in (one, two)]
    assert not np.array_equal(*counts)
    run("simulate", "--out", two, *small, "--seed", 7, "--overwrite")
    np.testing.assert_array_equal(quietray.read(two).projections[:], counts[0])


def test_json_is_one_document_and_nothing_else(tmp_path, run, capsys):
    figures = run("denoise", disc_scan(), "--out", tmp_path / "out", "--steps", 3, "--slices", 1, "--parts", 2)
    stored = json.loads((tmp_path / "out/metrics.json").read_text())
    assert {name: figures[name] for name in stored if name not in ("run", "notes")} == {
        name: value for name, value in stored.items() if name not in ("run", "notes")
    }


def test_without_json_nothing_is_on_standard_output(tmp_path, capsys):
    few = ["--steps", "3", "--slices", "1", "--from", "scratch"]
    main(["denoise", str(disc_scan()), "--out", str(tmp_path / "out"), *few])
    main(["info", str(disc_scan())])
    main(["reconstruct", str(disc_scan()), "--out", str(tmp_path / "volume.zarr")])
    said = capsys.readouterr()
    assert said.out == ""
    assert "report.html" in said.err.replace("\n", "")
    assert "trained for only 3 steps" in " ".join(said.err.split())


def test_demo(tmp_path, run, monkeypatch):
    """The demo's own story on a smaller scan."""

    small = {"views": 96, "rows": 8, "cols": 32, "spheres": 12, "largest": 0.25, "flats": 30, "darks": 5}
    monkeypatch.setattr("quietray.commands.files.Simulate", functools.partial(Simulate, **small))
    figures = run("demo", "--out", tmp_path / "demo", "--budget", "1s")
    compared = figures["comparison"]
    gain = compared["after (quietray)"]["psnr_db"] - compared["before (FBP)"]["psnr_db"]
    assert figures["gain_db"] == pytest.approx(gain)
    assert {"estimated_gain_db", "estimated_gain_db_at_least"} <= figures.keys()
    assert (tmp_path / "demo/run/report.html").exists()


MEASURED = {
    "tomopy_tooth/tooth.h5": ([], "181 views of 2 x 640, float32", "0.000 to 179.006 degrees", "10 frames"),
    "psi_neutron_ct/psi_ct5s375_128lines.h5": ([], "views of 128 x 835, uint16", "0.000 to 359.040 degrees", "10 "),
    "dls_i12_24737_binned/dls_24737.h5": ([], "views of 135 x 160, uint16", "step 2", "1 frame"),
    "dls_k11_diad/k11-18014.h5": (
        ["--data", "detector", "--image-key", "image_key", "--angles", "theta_deg"],
        "3000 views of 22 x 26, uint16",  # and a last one that repeats the first
        "covering 180.0",
        "100 frames",
    ),
}


@pytest.mark.parametrize("name", MEASURED)
def test_info_on_a_measured_scan(real_data, run, name):
    flags, projections, angles, flats = MEASURED[name]
    facts = run("info", real_data(name), *flags)
    assert projections in facts["projections"]
    assert angles in facts["angles"]
    assert facts["flats"].startswith(flats)
    assert "slab" in facts["memory plan"]


@pytest.mark.parametrize(
    ("name", "learning", "flags", "axis", "shape"),
    [
        pytest.param(
            "tomopy_tooth/tooth.h5",
            ("--method", "noise2inverse"),
            ("--region", "240:400,240:400"),
            295.5,
            (2, 160, 160),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "dls_k11_diad/k11-18014.h5",
            ("--method", "noise2inverse"),
            (),
            12.5,
            (22, 26, 26),
            marks=pytest.mark.slow,
        ),
        (
            "dls_i12_24737_binned/dls_24737.h5",
            ("--budget", "20s"),
            ("--rows", "60:64", "--region", "40:104,30:110"),
            85.75,
            (4, 64, 80),
        ),
    ],
)
def test_denoise_a_measured_scan(tmp_path, real_data, run, name, learning, flags, axis, shape):
    read = MEASURED[name][0]
    figures = run("denoise", real_data(name), *read, "--out", tmp_path / "out", "--steps", 5, *learning, *flags)
    volume = np.asarray(quietray.read_volume(tmp_path / "out/volume.zarr"))
    assert volume.shape == shape
    assert np.isfinite(volume).all()
    assert figures["scan"]["rotation_axis"] == pytest.approx(axis, abs=0.6)
    assert figures["estimate"]["rmse_noisy"] > 0
    noisy = tmp_path / "noisy.zarr"
    found = figures["scan"]["rotation_axis"]
    run("reconstruct", real_data(name), *read, "--out", noisy, "--rotation-axis", found, *flags)
    before = np.asarray(quietray.read_volume(noisy))
    seen = volume != 0
    assert figures["volume"]["mean_noisy"] == pytest.approx(before[seen].mean(dtype=float), rel=2e-2)
    assert (tmp_path / "out/report.html").stat().st_size > 50_000


def test_quick_settings_are_valid_toml_and_content_sees_hidden_files(tmp_path):
    """What the other tests here lean on."""
    (tmp_path / "run.toml").write_text(write_toml(quick()))
    assert from_dict(Settings, read_toml(tmp_path / "run.toml")) == quick()
    (tmp_path / ".work").mkdir()
    (tmp_path / ".work/x").write_text("y")
    assert set(content(tmp_path)) == {"run.toml", ".work/x"}
    assert quietray.read(foam_scan()).n_views == 160
