"""A package of somebody else adds formats by being installed; one that is broken harms nobody."""

import contextlib
import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

import quietray
from quietray import workflows
from quietray.checkpoint import replace_file
from quietray.cli import main
from quietray.errors import FormatError, SettingsError
from quietray.geometry import VolumeGrid
from quietray.io import ImageFormat, ScanReader, ScanWriter, VolumeFormat, open_volume_writer, read_volume
from quietray.method import Method
from quietray.registry import Registry
from quietray.running.watch import Watch
from scans import disc_scan, in_slabs, quick

PLUGIN = Path(__file__).parent / "plugin"
GROUPS = {
    "quietray.readers": ScanReader,
    "quietray.writers": ScanWriter,
    "quietray.volumes": VolumeFormat,
    "quietray.images": ImageFormat,
    "quietray.splits": Method,
    "quietray.networks": quietray.Architecture,
}


@pytest.fixture
def fresh(monkeypatch):
    """Let every registry look for other packages again, and forget them afterwards."""
    for group, base in GROUPS.items():
        registry: Registry = base.registry
        monkeypatch.setattr(registry, "_groups", [group])
        monkeypatch.setattr(registry, "_kinds", dict(registry._kinds))
    yield
    sys.modules.pop("quietray_example", None)


@pytest.fixture
def plugin(fresh, monkeypatch):
    monkeypatch.syspath_prepend(PLUGIN)


@pytest.fixture
def rays(plugin, tmp_path):
    """A scan in the format of the plug-in, and the same as a DXchange file was read."""
    scan = quietray.read(disc_scan())
    level = np.asarray(scan.flats[:]).max()
    plain = dataclasses.replace(scan, flats=np.full((1, *scan.projections.shape[1:]), level), darks=None)
    return quietray.write_scan(tmp_path / "scan.rays", plain), plain


def test_a_scan_format_of_another_package(rays):
    path, plain = rays
    scan = quietray.read(path)
    np.testing.assert_array_equal(scan.projections[3:9:2, 2], plain.projections[3:9:2, 2])
    np.testing.assert_array_equal(scan.flats[:], plain.flats)
    np.testing.assert_allclose(scan.geometry.angles, plain.geometry.angles)
    assert scan.provenance["format"] == "rays"
    assert path.read_bytes().startswith(b"rays 1\n")


def test_flags_and_errors_are_ours(rays, tmp_path):
    path, _ = rays
    assert quietray.read(path, rotation_axis=11.0, pixel_size=0.5).geometry.rotation_axis == 11.0
    path.write_bytes(b"rays 1\nnonsense\n")
    with pytest.raises(FormatError, match="must have a line of JSON"):
        quietray.read(path)
    path.write_bytes(b"raisins")
    with pytest.raises(FormatError, match="TIFF, Zarr, Zeiss txrm or rays, got a file that starts with b'raisins'"):
        quietray.read(path)


def test_reconstruct_into_a_format_of_another_package(rays, tmp_path):
    path, plain = rays
    one = workflows.reconstruct(quietray.read(path), tmp_path / "one.npy", quick(format="npy"))
    other = workflows.reconstruct(plain, tmp_path / "other.zarr", quick())
    np.testing.assert_array_equal(np.load(one), read_volume(other)[:])
    np.testing.assert_array_equal(read_volume(one)[2:4], read_volume(other)[2:4])


class _Stop(Watch):
    """Interrupts a run when its second slab is denoised."""

    @contextlib.contextmanager
    def stage(self, name, total=None):
        def advance(done, text=""):
            self.done = done + (self.done if name == "denoising" else 0)
            if self.done > 4 and name == "denoising":
                raise KeyboardInterrupt

        self.done = 0
        yield advance


def test_a_stopped_run_goes_on_in_a_format_of_another_package(plugin, tmp_path, monkeypatch):
    in_slabs(monkeypatch)
    monkeypatch.setattr(workflows, "write_report", lambda path, data: replace_file(path, data.title.encode()))
    scan, told = quietray.read(disc_scan(12, 24, 48)), quick(format="npy", trust=0.3)
    whole = quietray.denoise(scan, tmp_path / "whole", told)
    with pytest.raises(KeyboardInterrupt):
        quietray.denoise(scan, tmp_path / "out", told, watch=_Stop())
    assert (tmp_path / "out/.volume.npy.partial").exists()
    result = quietray.denoise(scan, tmp_path / "out", told, resume=True)
    assert result.volume.path == tmp_path / "out/volume.npy"
    for name in ("volume.npy", "trust.npy"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    np.testing.assert_array_equal(whole.trust[:], np.load(tmp_path / "out/trust.npy"))
    again = quietray.denoise(scan, tmp_path / "out", told, resume=True)  # complete: it is loaded
    np.testing.assert_array_equal(again.trust[:], whole.trust[:])
    with pytest.raises(quietray.ResourceError, match=r"got .*volume.npy"):
        quietray.denoise(scan, tmp_path / "out", told)


def test_the_base_class_resumes(plugin, tmp_path, rng):
    grid, volume = VolumeGrid((6, 4, 5)), rng.normal(size=(6, 4, 5)).astype(np.float32)
    with open_volume_writer(tmp_path / "v.npy", grid, format="npy") as writer:
        writer.write(4, volume[4:])
    with open_volume_writer(tmp_path / "v.npy", grid, format="npy", resume=True) as writer:
        writer.write(0, volume[:4])
        np.testing.assert_array_equal(read_volume(writer.finish())[:], volume)
    with pytest.raises(FormatError, match="to be resumed, got"):
        open_volume_writer(tmp_path / "v.npy", VolumeGrid((6, 4, 4)), format="npy", resume=True)


def test_the_command_line_knows_it(rays, tmp_path):
    path, _ = rays
    for more in (["--out", tmp_path / "new.npy"], ["--out", tmp_path / "new", "--format", "npy"]):
        main([str(word) for word in ["reconstruct", path, "--rotation-axis", "11.5", "--rows", "0:4", *more]])
    assert (tmp_path / "new.npy").read_bytes() == (tmp_path / "new").read_bytes()


def test_unknown_formats_name_the_nearest(plugin):
    for wrong, meant in (("zar", "zarr"), ("np", "npy")):
        with pytest.raises(
            SettingsError, match=f"one of zarr, h5, tiff, bigtiff, mhd, nii, npy, got '{wrong}' .did you mean '{meant}'"
        ):
            quick(format=wrong)


@pytest.mark.parametrize("what", ["no_such_module:Format", "quietray.io:Nothing"])
def test_a_plug_in_that_cannot_be_imported_is_left_out(fresh, tmp_path, monkeypatch, what):
    folder = tmp_path / "broken-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[quietray.readers]\nbad = {what}\n\n[quietray.volumes]\nbad = {what}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.warns(UserWarning, match=f"the scan reader bad of {what} was left out"):
        assert quietray.read(disc_scan()).n_views == 32
    with pytest.warns(UserWarning, match=f"the format of a volume bad of {what} was left out"):
        assert "zarr" in VolumeFormat.registry


@pytest.mark.parametrize("method", ["alternate", "neighbours"])
def test_methods_and_a_network_of_another_package(plugin, tmp_path, method):
    """By their names, in their domains, judged, saved and applied like any other."""
    training = dataclasses.replace(quick().training, steps=4, judgements=2)
    scan = quietray.read(disc_scan())
    settings = quietray.Settings(method=method, network="plane", training=training, symmetries=1, whiten="never")
    result = quietray.denoise(scan, tmp_path / "out", settings)
    assert np.isfinite(result.volume[:]).all()
    assert (tmp_path / "out/radiographs.h5").exists() == (method == "neighbours")
    assert result.metrics["method"]["name"] == method
    assert result.metrics["method"]["network"] == "plane"
    assert len(result.history) == 2
    record = f'name = "{method}"'
    assert record in (tmp_path / "out/run.toml").read_text()
    again = quietray.apply(tmp_path / "out/model", scan)
    np.testing.assert_allclose(again.volume, result.volume[:], atol=1e-6)
    main(["denoise", str(disc_scan()), "--config", str(tmp_path / "out/run.toml"), "--out", str(tmp_path / "toml")])
    np.testing.assert_array_equal(read_volume(tmp_path / "toml/volume.zarr")[:], result.volume[:])


def test_a_model_of_a_package_that_is_not_there(plugin, tmp_path, monkeypatch):
    training = dataclasses.replace(quick().training, steps=2)
    model = quietray.train([quietray.read(disc_scan())], tmp_path / "model", method="alternate", training=training)
    assert model.trained
    for group, base in GROUPS.items():
        monkeypatch.setattr(base.registry, "_groups", [])
        known = {name: kind for name, kind in base.registry._kinds.items() if kind.__module__ != "quietray_example"}
        monkeypatch.setattr(base.registry, "_kinds", known)
        assert group
    with pytest.raises(FormatError, match=r"of a known method and network, .*got 'alternate'.*import the module"):
        quietray.apply(tmp_path / "model", quietray.read(disc_scan()))
