"""What a paper needs: where a result comes from, what was done in words, and the papers behind it."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from quietray.report.methods import methods_text, references_of, sources
from quietray.running import provenance as module
from quietray.running.provenance import checksum, provenance
from quietray.running.settings import Settings
from quietray.settings import from_dict
from quietray.splits import Noise2Inverse, Noise2Self


def test_the_checksum_is_that_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, content = tmp_path / "scan.h5", bytes(range(256)) * 40_000
    path.write_bytes(content)
    assert checksum(path) == {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    monkeypatch.setattr(module, "_WHOLE", 1000)
    monkeypatch.setattr(module, "_BEGINNING", 2**20)
    found = checksum(path)
    assert found["sha256_of_the_first_1_MiB"] == hashlib.sha256(content[: 2**20]).hexdigest()
    assert found["size_bytes"] == len(content)


def test_a_folder_is_known_by_its_listing(tmp_path: Path) -> None:
    for name, size in (("b.tif", 7), ("a.tif", 3)):
        (tmp_path / name).write_bytes(bytes(size))
    before = checksum(tmp_path)
    assert (before["files"], before["size_bytes"]) == (2, 10)
    (tmp_path / "a.tif").write_bytes(bytes(4))
    assert checksum(tmp_path)["sha256_of_names_and_sizes"] != before["sha256_of_names_and_sizes"]


def test_the_command_is_told_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/quietray/cli.py", "denoise", "my scan.h5", "--budget", "5m"])
    found = provenance(str(tmp_path / "gone.h5"))
    assert found["command"] == "quietray denoise 'my scan.h5' --budget 5m"
    assert "input" not in found
    (tmp_path / "there.h5").write_bytes(b"12")
    assert provenance(str(tmp_path / "there.h5"))["input"]["size_bytes"] == 2


def metrics(**changes: Any) -> dict[str, Any]:
    gain = {"psnr_gain_db": 9.5, "psnr_gain_db_at_least": 9.0, "psnr_gain_db_at_most": 10.1}
    usual: dict[str, Any] = {
        "estimate": gain,
        "method": {"name": "noise2inverse", "domain": "volume", "parts": 2, "network": "msd", "parameters": 45652,
                   "settings": {}},
        "scan": {"views": 375, "rows": [60, 76], "columns": 835, "covered_degrees": 360.0},
        "training": {"steps": 1200, "seconds": 75.0},
        "reconstruction": {"settings": {"name": "fbp", "filter": "hann"}},
        "versions": {"quietray": "0.1.0"},
    }  # fmt: skip
    return usual | changes


def test_the_paragraph_says_what_was_done() -> None:
    text, references = methods_text(metrics(), Settings(seed=7)), references_of(metrics())
    for words in (
        "375 views over 360° of a detector of 835 columns, of which 16 rows were used, were corrected with flat and",
        "filtered backprojection with the hann filter [3].",
        "The volume was denoised with Noise2Inverse [1] with 2 angular subsets as implemented in quietray 0.1.0",
        "(mixed-scale dense network [2]) of 45",
        "without any clean reference, for 1200 steps in 1 min 15 s; seed 7.",
        "The gain in PSNR estimated from held-out measurements is +9.5 dB (9.0 to 10.1), a 90 % interval.",
    ):
        assert words in text, words
    assert [one.split(" (")[0] for one in references] == [
        "Hendriksen, Pelt & Batenburg", "Pelt & Sethian", "Kak & Slaney",
    ]  # fmt: skip


def test_the_paragraph_claims_nothing_that_was_not_done() -> None:
    whole = from_dict(Settings, {"correction": {"line_integrals": True}})
    assert "taken as line integrals" in methods_text(metrics(), whole)
    method = metrics()["method"]
    taught = methods_text(metrics(method=method | {"name": "noise2clean"}), Settings())
    assert "on clean data" in taught
    assert "without any clean" not in taught
    applied = methods_text(metrics(training={"steps": 0, "seconds": 0.0}), Settings())
    assert "trained beforehand" in applied
    tuned = {"name": "nlm", "network": "nlm", "parameters": 0, "settings": {"h": 0.1}, "domain": "images"}
    scan = {"images": 9, "rows": 512, "columns": 400}
    images = methods_text(metrics(method=method | tuned, scan=scan, reconstruction=None), Settings())
    assert images.startswith("9 images of 512 x 400 pixels were denoised.")
    assert "filter non-local means [1, 2] as implemented in quietray 0.1.0, its strength chosen on" in images
    unknown = dict.fromkeys(metrics()["estimate"])
    assert "gain" not in methods_text(metrics(estimate=unknown), Settings())


def test_what_a_docstring_names_is_cited() -> None:
    assert sources(Noise2Inverse) == ("Hendriksen, Pelt & Batenburg (2020), doi:10.1109/TCI.2020.3019647",)
    assert any("arXiv:1901.11365" in one for one in sources(Noise2Self))
    assert sources(None) == ()


def test_a_method_of_ones_own_is_cited_by_its_docstring() -> None:
    class Mine:
        """Denoise.

        Doe, Roe & Poe
        (2031), "On doing it", doi:10.1/x(2)y.  More.
        """

    assert sources(Mine) == ("Doe, Roe & Poe (2031), doi:10.1/x(2)y",)
