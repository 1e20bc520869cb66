"""Many scans in one go: a model serves all whose noise is alike, failures are told at the end, what is done stays."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import quietray
from quietray.batch import _Job, batch, failures
from quietray.running.slabs import running_on
from scans import disc_scan, quick


@pytest.fixture
def scans(tmp_path: Path) -> list[Path]:
    """Two scans alike, one with far more noise, and a file that is none, which has the name of the first."""
    places = [tmp_path / name for name in ("one.h5", "two.h5", "noisy.h5", "other/one.h5")]
    shutil.copy(disc_scan(), places[0])
    shutil.copy(disc_scan(), places[1])
    scan = quietray.read(disc_scan())
    counts = np.asarray(scan.projections[:], np.float64) - 50
    fewer = np.random.default_rng(3).poisson(counts / 30) * 30 + 50
    quietray.write_scan(places[2], dataclasses.replace(scan, projections=fewer.astype(np.uint16)))
    places[3].parent.mkdir()
    places[3].write_bytes(b"no scan")
    return places


def test_a_model_that_gained_nothing_is_not_applied_to_others(tmp_path: Path) -> None:
    (entry,) = batch([disc_scan()], tmp_path, quick())
    job = _Job(quick(), quietray.read, tmp_path, reuse=True, overwrite=False)
    assert job.models({"one": entry}) == [entry.name]
    assert job.models({"one": dataclasses.replace(entry, verdict="Nothing gained")}) == []


def test_a_batch(tmp_path: Path, short_report: None, scans: list[Path]) -> None:
    out, settings = tmp_path / "batch", quick()
    first, second, noisy, broken = batch(scans, out, settings)
    assert [one.name for one in (first, second, noisy, broken)] == ["one", "two", "noisy", "one-2"]
    assert (first.model, second.model, noisy.model) == ("", "one", "")
    assert [bool(one.error) for one in (first, second, noisy, broken)] == [False, False, False, True]
    assert broken.verdict == "failed"
    assert failures([first, broken]) == [f"one-2: {broken.error}"]
    applied = quietray.apply(out / "one" / "model", quietray.read(scans[1]), None, settings)
    np.testing.assert_array_equal(np.asarray(quietray.read_volume(out / "two" / "volume.zarr")), applied.volume)

    page = (out / "index.html").read_text()
    assert "4 of 4 scans done, 1 failed" in page
    assert 'href="two/report.html"' in page
    assert 'href="one-2/report.html"' not in page
    assert (out / "two" / "report.html").exists()

    before = {name: (out / name / "metrics.json").stat().st_mtime_ns for name in ("one", "two", "noisy")}
    shutil.copy(scans[0], scans[3])
    again = batch(scans, out, settings)
    assert not failures(again)
    assert again[:3] == (first, second, noisy), "what is done is not done again"
    assert again[3].model == "one"
    assert {name: (out / name / "metrics.json").stat().st_mtime_ns for name in before} == before
    assert [one["name"] for one in json.loads((out / "batch.json").read_text())["entries"]][3] == "one-2"


def test_the_folder_of_another_scan_is_not_taken(tmp_path: Path, short_report: None, scans: list[Path]) -> None:
    batch(scans[:1], tmp_path / "batch", quick())
    shutil.copy(scans[0], scans[3])
    with pytest.raises(quietray.SettingsError, match=r"must be free for .*, got the result of .*one\.h5"):
        batch([scans[3]], tmp_path / "batch", quick())


@pytest.mark.slow
def test_on_a_cluster_workers_take_whole_scans(tmp_path: Path, short_report: None, scans: list[Path]) -> None:
    distributed = pytest.importorskip("distributed", reason="needs quietray[cluster]")
    from quietray.running.cluster import Cluster
    from quietray.running.slabs import Crew

    one = batch(scans, tmp_path / "here", quick())
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None, memory_limit=0
        ) as made,
        distributed.Client(made, set_as_default=False) as client,
        running_on(Cluster(client, Crew(2, 2**31, 2**28))),
    ):
        many = batch(scans, tmp_path / "there", quick())
    assert [(entry.name, entry.model, entry.gain) for entry in one] == [
        (entry.name, entry.model, entry.gain) for entry in many
    ]
    for name in ("one", "two", "noisy"):
        here, there = (quietray.read_volume(tmp_path / place / name / "volume.zarr")[:] for place in ("here", "there"))
        np.testing.assert_array_equal(here, there)
