"""`quietray watch`: a run in a browser; what is served, to whom, and what is not."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from rich.console import Console

from quietray import console as console_module
from quietray.cli import main
from quietray.commands.serving import FolderServer, news_of
from quietray.console import TerminalWatch

SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An output folder with a report, secrets beside it, and links that lead to them."""
    out = tmp_path / "out"
    (out / "model").mkdir(parents=True)
    (out / ".work").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (out / "report.html").write_text("<p>report")
    (out / "model/model.json").write_text("{}")
    (out / ".work/run.json").write_text("secret")
    (out / "link.txt").symlink_to(tmp_path / "secret.txt")
    (out / "up").symlink_to(tmp_path)
    (out / "inside.html").symlink_to(out / "report.html")
    os.mkfifo(out / "pipe")
    return out


@pytest.fixture
def server(folder: Path) -> Iterator[FolderServer]:
    with FolderServer(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def asked(server: FolderServer, path: str, **headers: str) -> tuple[int, bytes]:
    """Ask for a path as it is, which urllib would tidy up."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def test_the_page_the_news_and_the_files(server: FolderServer, folder: Path) -> None:
    with urllib.request.urlopen(server.address, timeout=10) as answer:
        page = answer.read().decode()
        policy = answer.headers["Content-Security-Policy"]
    assert "news.json" in page
    assert "out/report.html" in page
    assert policy.startswith("default-src 'none'")
    assert "http" not in page.replace("https://", "http://").split("<script>")[1]
    with urllib.request.urlopen(f"{server.address}news.json", timeout=10) as answer:
        assert json.load(answer) == {**news_of(folder), "running": True, "folder": "out"}
    for name, content in (("report.html", b"<p>report"), ("inside.html", b"<p>report"), ("model/model.json", b"{}")):
        with urllib.request.urlopen(f"{server.address}out/{name}", timeout=10) as answer:
            assert answer.read() == content
            assert "connect-src data: blob:" in answer.headers["Content-Security-Policy"]
    head = urllib.request.Request(f"{server.address}out/report.html", method="HEAD")
    with urllib.request.urlopen(head, timeout=10) as answer:
        assert (answer.headers["Content-Length"], answer.read()) == ("9", b"")
    assert server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "/out/report.html", "KEY", "KEY/out", "KEY/out/", "KEY/out/model", "KEY/out/model/"),
        *("KEY/out/../secret.txt", "KEY/out/%2e%2e/secret.txt", "KEY/out/..%2fsecret.txt", "KEY/../secret.txt"),
        *("KEY/out/link.txt", "KEY/out/up/secret.txt", "KEY/out//etc/passwd", "KEY/out/%2fetc%2fpasswd"),
        *("KEY/out/.work/run.json", "KEY/out/pipe", "KEY/out/report.html%00", "KEY/other", "KEYx/", "KEY/out/%ff"),
    ],
)
def test_nothing_else_is_served(server: FolderServer, path: str) -> None:
    status, content = asked(server, "/" + path.lstrip("/").replace("KEY", server.key))
    assert status == 404
    assert content == b"not found\n"


def test_only_who_asks_this_machine_by_its_name_is_answered(server: FolderServer) -> None:
    """A page of somebody else may lead a name of its own to this address: it then tells that name."""
    path = urlsplit(server.address).path
    assert asked(server, path, Host="localhost:9999")[0] == 200  # as through a tunnel
    assert asked(server, path, Host="evil.example")[0] == 404
    assert asked(server, path, Host="127.0.0.1.evil.example")[0] == 404
    other = urllib.request.Request(server.address, data=b"", method="POST")
    with pytest.raises(urllib.error.HTTPError, match="501"):
        urllib.request.urlopen(other, timeout=10)


def test_a_run_keeps_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While there is a folder of the run's own; it leaves nothing where there is none."""
    monkeypatch.setattr("quietray.console._EVERY", 0.0)
    out = tmp_path / "out"
    watch = TerminalWatch(Console(quiet=True), folder=out)
    watch.note("before there is a folder")
    assert not out.exists()
    (out / ".work").mkdir(parents=True)
    (out / ".work/run.json").touch()
    with watch.stage("training", 10) as advance:
        advance(5, "estimated gain 7 dB")
        watch._kept._written = 0.0  # as if a second had gone by
        advance(1)
        news: dict[str, Any] = news_of(out)
    assert news["running"]
    assert news["report"] is None
    assert news["age"] < 60
    now = news["progress"]
    assert (now["stage"], now["share"], now["text"]) == ("training", 0.6, "estimated gain 7 dB")
    assert now["seconds_left"] == pytest.approx(now["seconds"] * 2 / 3)
    assert "before there is a folder" in now["lines"][0]
    assert "training took" in news_of(out)["progress"]["lines"][-1]
    for number in range(3 * console_module._LINES):
        watch.note(str(number))
    assert len(news_of(out)["progress"]["lines"]) == console_module._LINES + 1
    (out / ".work/progress.json").write_text("half a li")
    assert news_of(out)["progress"] is None


@pytest.mark.slow
def test_a_browser_shows_a_run_and_then_its_report(server: FolderServer, folder: Path, chromium: str) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    (folder / "report.html").unlink()
    now = {"time": 0, "stage": "training", "seconds": 600.0, "share": 0.5, "seconds_left": 600.0, "text": "loss 0.1"}
    (folder / ".work/progress.json").write_text(json.dumps({**now, "lines": ["<b>a line</b>"]}))
    complaints: list[str] = []
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=chromium, args=SWITCHES)
        page = browser.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(server.address)
        status = page.get_by_role("status")
        playwright.expect(status).to_contain_text(
            "out: training, for 10 min, 50 %, about 10 min left, loss 0.1, no news"
        )
        assert page.locator("#lines").inner_text() == "<b>a line</b>"
        assert page.get_by_role("progressbar").get_attribute("value") == "0.5"
        for report in ("first", "second"):
            (folder / "report.html").write_text(f"<p>{report}<p style='height:5000px'>")
            frame = page.frame_locator("#report")
            playwright.expect(frame.get_by_text(report)).to_be_visible()
        (folder / ".work/run.json").unlink()
        playwright.expect(status).to_have_text("out: done")
        assert page.locator("#lines").is_hidden()
        browser.close()
    assert not complaints


def test_the_command_tells_the_address_and_ends_with_ctrl_c(folder: Path) -> None:
    words = ["watch", str(folder), "--no-browser", "--quiet", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "quietray.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # in the background it is ignored
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    address = line.split(" is shown at ")[1].split()[0]
    with urllib.request.urlopen(f"{address}out/report.html", timeout=10) as answer:
        assert answer.read() == b"<p>report"
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(out) == {"folder": str(folder), "address": address}
    assert "Traceback" not in said


@pytest.mark.parametrize(("asked_by", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_system_may_ask_a_command_to_end(folder: Path, asked_by: signal.Signals, code: int) -> None:
    words = ["watch", str(folder), "--no-browser", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "quietray.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(asked_by, signal.SIG_DFL),  # under nohup it would be ignored, as it must be
    )
    assert process.stderr is not None
    process.stderr.readline()
    process.send_signal(asked_by)
    out, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert json.loads(out)["error"] == {
        **{"kind": "Stopped", "message": f"stopped by {asked_by.name}"},
        **{"exit_code": code, "resume": None},
    }
    assert said.splitlines()[-1] == "stopped"


def test_what_cannot_be_watched_is_said(
    tmp_path: Path, folder: Path, server: FolderServer, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for words, said in (
        ((str(tmp_path / "ou"),), "(did you mean 'out'?)"),
        ((str(tmp_path / "empty"),), "must hold a run in progress, or a report, got neither"),
        ((str(folder), "--port", str(server.server_port)), "must be free"),
        ((str(folder), "--port", "70000"), "--port must be from 0 to 65535, got 70000"),
    ):
        with pytest.raises(SystemExit) as left:
            main(["watch", *words])
        assert left.value.code == 2
        assert said in " ".join(capsys.readouterr().err.split())
