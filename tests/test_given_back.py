"""Where a method that was chosen automatically gains nothing, the input is given back, and everything says so."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quietray
import quietray.domains.base as base_module
from quietray import Auto, Correction, Foam, Noise2Noise, Noise2Projection, Noise2Self, ParallelBeam, Scan, Settings
from quietray.cli import main
from quietray.domains import SeriesDomain, domain_of
from quietray.filters import GaussianFilter
from quietray.images import ImageSeries
from quietray.running.output import Output
from quietray.running.run import Run
from quietray.settings import write_toml
from quietray.splits import Noise2Inverse
from scans import disc_scan, in_slabs, quick


@functools.cache
def quiet_scan(seed: int = 0) -> Scan:
    """A foam of hardly any noise: no filter and no network improves it."""
    foam = Foam.packed(15, 0.3, np.random.default_rng(0), largest=0.3)
    beam = ParallelBeam(np.linspace(0, np.pi, 80, endpoint=False), 8, 32, rotation_axis=15.5)
    return quietray.acquire(foam, beam, photons=1e7, n_flats=10, seed=seed)


def chosen(settings: Settings, output: Output | None = None) -> Run:
    """Return a run of which `settings.method` was chosen automatically."""
    output = Output(None, settings, {}, settings.format) if output is None else output
    return Run(settings, output, chosen=True)


def test_a_scan_of_hardly_any_noise_is_given_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    quietray.write_scan(tmp_path / "scan.h5", quiet_scan())
    (tmp_path / "run.toml").write_text(write_toml(Settings(method=Auto(), budget="1s", rotation_axis=15.5)))
    main(["denoise", f"{tmp_path}/scan.h5", "--out", str(out), "--config", f"{tmp_path}/run.toml"])
    told, stored = " ".join(capsys.readouterr().err.split()), json.loads((out / "metrics.json").read_text())
    result = quietray.Result.load(out, quietray.read_volume(out / "volume.zarr"))
    scan = quietray.read(tmp_path / "scan.h5")
    np.testing.assert_array_equal(result.volume[:], quietray.reconstruct(scan, rotation_axis=15.5))
    assert stored["given_back"] is result.metrics["given_back"] is True
    assert stored["volume"]["relative_change_of_mean"] == 0
    assert not any("enois" in warning for warning in stored["warnings"])
    sentence = f"Nothing gained: {stored['verdict']['reason']}"
    assert sentence.endswith("; the volume is the reconstruction without denoising.")
    assert sentence in told
    assert (out / "run.toml").read_text().startswith(f"# {sentence}")
    page = (out / "report.html").read_text()
    assert page.index("<b>Nothing gained:</b>") < page.index('class="cards"')
    assert "They were not denoised, since that gained nothing." in page
    assert "tried only" in repr(result)
    assert f"quietray apply {out}/model {tmp_path}/scan.h5" in told
    again = quietray.apply(out / "model", scan, None, rotation_axis=15.5)  # all the same
    assert "given_back" not in again.metrics


def test_a_noisy_scan_is_denoised_and_a_named_method_is_done_as_asked() -> None:
    noisy, method = quietray.read(disc_scan(12, 24, 40)), GaussianFilter()
    result = domain_of(method).denoise(chosen(quick(method=method)), [noisy])
    assert result.metrics["estimate"]["psnr_gain_db_at_least"] > 0.5
    assert result.metrics.given_back is None
    bare = Correction(rings="none")  # with a ring filter the gain is not known
    named = quietray.denoise(quiet_scan(), None, quick(method=method, rotation_axis=15.5, correction=bare))
    assert named.metrics.given_back is None
    assert named.metrics["verdict"]["kind"] == "Look at this first", "the gain is between a loss and some dB"


@pytest.mark.parametrize("method", [Noise2Self(), Noise2Projection(2)])
def test_whatever_the_domain(method: Any) -> None:
    """After three steps from random weights, every network makes it worse."""
    settings = quick(3, method=method, start="scratch", whiten="never", rotation_axis=15.5)
    result = domain_of(method).denoise(chosen(settings), [quiet_scan()])
    assert result.metrics.given_back
    np.testing.assert_array_equal(result.volume, quietray.reconstruct(quiet_scan(), rotation_axis=15.5))


@pytest.mark.slow
def test_repeats_give_their_mean_and_a_series_its_steps() -> None:
    scans = [quiet_scan(0), quiet_scan(1)]
    plain = np.stack([quietray.reconstruct(scan, rotation_axis=15.5) for scan in scans])
    repeated = quick(3, method=Noise2Noise(), start="scratch", rotation_axis=15.5)
    result = domain_of(Noise2Noise(), 2).denoise(chosen(repeated), scans)
    assert result.metrics.given_back
    np.testing.assert_array_equal(result.volume, plain.mean(axis=0))
    steps = quick(3, method=Noise2Inverse(2, slices=1), start="scratch", rotation_axis=15.5)
    series = SeriesDomain.denoise(chosen(steps), scans)
    assert series.metrics.given_back
    np.testing.assert_array_equal(series.volume, plain)
    assert len(series.metrics["series"]["each"]) == 2


def test_images_are_given_back_as_they_were() -> None:
    rng = np.random.default_rng(0)
    images = np.kron(rng.normal(0, 100, (2, 8, 8)), np.ones((8, 8))).astype(np.float32)
    images += rng.normal(0, 1, images.shape).astype(np.float32)
    series = ImageSeries(images, None, "here")
    result = quietray.denoise(series, None, quick(3, method=Auto(), rotation_axis=None, start="scratch"))
    assert result.metrics.given_back
    np.testing.assert_array_equal(result.volume, images)
    assert result.metrics["verdict"]["reason"].endswith("the images are returned as they were measured.")
    assert result.warnings == ()


def test_a_resumed_run_stays_with_its_decision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_slabs(monkeypatch)
    method = GaussianFilter()
    settings, out = quick(method=method, rotation_axis=15.5), tmp_path / "out"

    def run(resume: bool, failing: bool) -> Any:
        with Output(out, settings, {}, settings.format, resume=resume) as output, monkeypatch.context() as patch:
            if failing:
                written = output.write
                patch.setattr(output, "write", lambda *all: 1 / 0 if output.begun else written(*all))
            return domain_of(method).denoise(chosen(settings, output), [quiet_scan()])

    with pytest.raises(ZeroDivisionError):
        run(resume=False, failing=True)
    monkeypatch.setattr(base_module, "nothing_gained", lambda gain: False)  # the rule of another version
    result = run(resume=True, failing=False)
    assert result.metrics.given_back
    np.testing.assert_array_equal(result.volume, quietray.reconstruct(quiet_scan(), rotation_axis=15.5))
