"""The verdict: one sentence with one figure, which never says to use what a figure speaks against."""

import dataclasses
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

import quietray
from quietray import Correction, Noise2Inverse
from quietray.assessment.evidence import remedy, warnings_of
from quietray.assessment.gains import gain_text, headline
from quietray.assessment.verdict import verdict_of, verdict_on_methods
from quietray.assessment.withheld import too_few_views
from quietray.cli import main
from quietray.detector.correction.rotation import _choose
from quietray.filters import GaussianFilter
from quietray.result import Result
from quietray.settings import read_toml, write_toml
from scans import disc_scan, quick


def figures(gain: tuple[float | None, float | None, float | None] = (9.5, 9.0, 10.1), **changes: Any) -> dict[str, Any]:
    estimate = dict(zip(("psnr_gain_db", "psnr_gain_db_at_least", "psnr_gain_db_at_most"), gain, strict=True))
    usual: dict[str, Any] = {
        "estimate": {**estimate, "residual_correlation": 0.0},
        "volume": {"relative_change_of_mean": 0.001},
        "correction": {"floored": 0.0},
        "training": {"steps": 5000},
        "method": {"parts": 4, "name": "noise2inverse", "domain": "volume", "parameters": 1000},
        "scan": {"views": 400, "columns": 200, "covered_degrees": 180.0},
        "log_bias": None,
    }
    return usual | changes


def sharpness(kept: float) -> dict[str, Any]:
    return {"sharpness": {"kept": kept, "kept_error": 0.02, "linear_filter": 0.7, "from_px": 2.0, "to_px": 4.0}}


@pytest.mark.parametrize(
    ("gain", "kind", "words"),
    [
        ((9.5, 9.0, 10.1), "Use it", "the estimated gain is +9.5 dB (9.0 to 10.1 dB)."),
        ((9.5, 9.0, None), "Use it", "the estimated gain is +9.5 dB, at least 9.0 dB."),
        ((None, 13.4, None), "Use it", "the estimated gain is at least +13.4 dB."),
        ((None, -4.0, None), "Look at this first", "the gain is not known: it is at least \u22124.0 dB."),
        ((None, None, None), "Look at this first", "the held-out data do not show how much was gained."),
        ((2.0, -0.5, 4.0), "Look at this first", "of +2.0 dB may be as small as \u22120.5 dB."),
        ((None, 7.9, 12.0), "Use it", "the estimated gain is 7.9 to 12.0 dB."),
        ((None, -0.5, 4.0), "Look at this first", "the gain is not known: it is between \u22120.5 dB and +4.0 dB."),
        ((None, -1.5, 0.3), "Do not use it", "nothing was gained, the estimated gain is at most +0.3 dB; keep"),
        ((None, None, -0.3), "Do not use it", "made it worse, the estimated gain is at most \u22120.3 dB; keep"),
        ((0.2, 0.1, 0.3), "Do not use it", "nothing was gained, the estimated gain is +0.2 dB (0.1 to 0.3 dB); keep"),
        ((0.0, None, None), "Do not use it", "nothing was gained"),
        ((-2.0, -2.5, -1.5), "Do not use it", "denoising made it worse, the estimated gain is \u22122.0 dB"),
    ],
)  # fmt: skip
def test_the_gain_decides(gain: tuple[float | None, float | None, float | None], kind: str, words: str) -> None:
    found = verdict_of(figures(gain))
    assert found.kind == kind
    assert words in found.reason
    assert str(found) == f"{kind}: {found.reason}"


def test_what_is_told_is_of_the_object_where_there_is_air() -> None:
    inside = {"psnr_gain_db": 3.0, "psnr_gain_db_at_least": 2.5, "psnr_gain_db_at_most": 3.5}
    estimate = {**figures()["estimate"], "object": {**inside, "relative_change_of_mean": 0.2}}
    assert "inside the object by +20%" in verdict_of(figures(estimate=estimate)).reason
    estimate["object"]["relative_change_of_mean"] = 0.0
    assert "inside the object is +3.0 dB" in verdict_of(figures(estimate=estimate)).reason


def test_a_loss_that_a_gain_hides_is_refused() -> None:
    assert verdict_of(figures(evidence=sharpness(0.2))).kind == "Do not use it"
    assert "keeps 20%, and the best linear filter would keep 70%" in verdict_of(figures(evidence=sharpness(0.2))).reason
    moved = figures(volume={"relative_change_of_mean": -0.3})
    assert "by -30%" in verdict_of(moved).reason
    taught = moved | {"method": {**moved["method"], "name": "noise2clean"}}
    assert verdict_of(taught).kind == "Use it", "clean data have no such bias"


UNKNOWN = dict.fromkeys(("psnr_gain_db", "psnr_gain_db_at_least", "psnr_db", "rmse"))

CAUSES: list[dict[str, Any]] = [
    {"estimate": {**figures()["estimate"], "residual_correlation": 0.2}},
    {"estimate": {**figures()["estimate"], "residual_correlation": -0.1}},
    {"volume": {"relative_change_of_mean": 0.05}},
    {"training": {"steps": 5}},
    {"correction": {"floored": 0.002}},
    {"scan": {"views": 400, "columns": 200, "covered_degrees": 120.0}},
    {"estimate": {**figures()["estimate"], **UNKNOWN, "withheld": too_few_views(100.0, 256)}},
    {"log_bias": {"mean": 0.05, "mean_line_integral": 1.0, "worst": 0.2}},
    {"evidence": sharpness(0.45)},
]


@pytest.mark.parametrize("cause", [*CAUSES, *({**a, **b} for a, b in itertools.combinations(CAUSES, 2))])
def test_whatever_is_warned_of_is_to_be_looked_at_first(cause: dict[str, Any]) -> None:
    """No result with a warning is said to be fit for use; the reason is one sentence, and has a figure."""
    found = figures(**cause)
    warnings = warnings_of(found)
    assert warnings
    verdict = verdict_of(found, warnings)
    assert verdict.kind == "Look at this first"
    assert re.search(r"\d", verdict.reason)
    assert verdict.reason.endswith(".")
    assert ". " not in verdict.reason
    assert not verdict.reason.startswith(("The ", "Half ", "Of "))


def test_the_gravest_warning_comes_first() -> None:
    several = figures(**CAUSES[0], **CAUSES[3], **CAUSES[4])
    assert "not independent" in verdict_of(several, warnings_of(several)).reason


def test_a_doubt_about_the_axis_comes_before_all_warnings() -> None:
    found, scan = figures(**CAUSES[0]), quietray.read(disc_scan())
    axis = _choose(scan, {"opposite views": (9.0, 0.1), "centre of mass": (12.0, 0.1)}, full_turn=True)
    notes = ["The beam is steady.", *axis.notes]
    told = verdict_of(found, warnings_of(found), notes)
    assert str(told) == "Look at this first: the methods disagree by 3.0 pixels or more: check the axis in the preview."
    assert verdict_of(figures(), (), [str(note) for note in notes]).kind == "Use it", "words alone are no doubt"


def test_a_doubt_reaches_the_verdict_of_a_run() -> None:
    scan = quietray.read(disc_scan(12, 24, 40))
    few = dataclasses.replace(scan, flats=scan.flats[:2])
    assert_doubted(few, "there are only 2 flats: ")
    assert_doubted(dataclasses.replace(few, flats=few.flats[:1]), "there is only 1 flat: ")


def assert_doubted(scan: quietray.Scan, words: str) -> None:
    result = quietray.denoise(scan, None, quick(method=GaussianFilter(), correction=Correction(rings="none")))
    assert headline(result.metrics["estimate"])["psnr_gain_db_at_least"] > 0.5
    assert result.metrics["verdict"]["kind"] == "Look at this first"
    assert result.metrics["verdict"]["reason"].startswith(words)


def test_a_headline_is_no_gain_below_zero() -> None:
    unknown = {"psnr_gain_db": None, "psnr_gain_db_at_least": -4.0, "psnr_gain_db_at_most": None}
    assert gain_text(unknown) == "not known (-4.0 dB or more)"
    assert gain_text({**unknown, "psnr_gain_db_at_least": 4.0}) == "at least +4.0 dB"


def test_a_remedy_is_one_that_the_command_has() -> None:
    """`apply` has no --budget that trains, and a filter learns nothing however long it takes."""
    for steps, parameters, words in ((0, 1000, "--from"), (0, 0, "weaker filter"), (5000, 1000, "--budget")):
        method = {**figures()["method"], "parameters": parameters}
        found = figures(training={"steps": steps}, method=method, volume={"relative_change_of_mean": 0.05},
                        evidence=sharpness(0.45))  # fmt: skip
        assert words in remedy(found)
        told = warnings_of(found)
        assert len(told) == 2
        assert all(words in text for text in told)


def test_a_network_that_was_good_before_the_first_step_is_no_blur() -> None:
    history = [{"step": 0}, {"step": 20}]
    assert warnings_of(figures(training={"steps": 20, "history": history})) == ()


def test_the_verdict_on_methods_names_one() -> None:
    rows = [{"method": "tv", "psnr_db": 26.5}, {"method": "fbp", "psnr_db": 20.0}]
    record = {"methods": rows, "recommended": "tv", "winner": "tv"}
    assert verdict_on_methods(record).reason == (
        "tv, with an estimated PSNR of 26.5 dB, 6.5 dB more than without any filter."
    )
    assert verdict_on_methods({**record, "recommended": "fbp"}).kind == "Do not use it"
    unknown = [{"method": "tv", "psnr_db": None}, rows[1]]
    assert verdict_on_methods({**record, "methods": unknown}).kind == "Look at this first"


def test_a_run_keeps_its_verdict_and_the_parts_that_it_used(tmp_path: Path) -> None:
    settings = quick(method=Noise2Inverse(slices=3), rotation_axis=23.5)
    assert settings.method.parts == 4
    result = quietray.denoise(quietray.read(disc_scan(n_cols=48, n_views=24)), tmp_path / "out", settings)
    stored = json.loads((tmp_path / "out/metrics.json").read_text())
    expected = verdict_of(result.metrics, result.warnings, result.notes)
    assert stored["verdict"] == result.metrics["verdict"] == expected.record()
    page = (tmp_path / "out/report.html").read_text()
    assert page.index(f"<b>{expected.kind}:</b>") < page.index('class="cards"')
    assert stored["method"]["parts"] == 2, "24 views of 48 columns are too few for four subsets"
    assert read_toml(tmp_path / "out/run.toml")["method"]["parts"] == 2
    again = Result.load(tmp_path / "out", result.volume)
    assert again.metrics["verdict"] == stored["verdict"]
    del stored["verdict"]  # as a run made before there were verdicts
    (tmp_path / "out/metrics.json").write_text(json.dumps(stored))
    assert Result.load(tmp_path / "out", result.volume).metrics["verdict"] == expected.record()


def test_the_terminal_begins_with_the_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.toml").write_text(write_toml(quick()))
    main(["denoise", str(disc_scan()), "--out", str(tmp_path / "out"), "--config", str(tmp_path / "run.toml")])
    told = " ".join(capsys.readouterr().err.split())
    verdict = json.loads((tmp_path / "out/metrics.json").read_text())["verdict"]
    sentence = f"{verdict['kind']}: {verdict['reason']}"
    assert sentence in told
    assert told.index(sentence) < told.index("estimated gain")
    assert ("quietray reconstruct" in told.split("Result")[0]) == (verdict["kind"] == "Do not use it")
