"""A server of the output folder of a run, for this machine only."""

from __future__ import annotations

import hmac
import json
import mimetypes
import os
import secrets
import shutil
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from quietray.errors import ResourceError

__all__ = ["FolderServer", "news_of"]

_HOSTS = ("127.0.0.1", "localhost")
_PAGE = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; frame-src 'self'"
)
# A report is one file: nothing in it may send or request anything.
_FILES = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; worker-src blob:; connect-src data: blob:"
)


class FolderServer(ThreadingHTTPServer):
    """Serves one folder on 127.0.0.1, only to those who have the address, which contains a random key.

    Parameters
    ----------
    folder
        Folder whose files are served, except those whose name begins with a dot. There is no list of files, and links
        to places outside are not followed.
    port
        Number of the port; 0 for a free one.

    Raises
    ------
    ResourceError
        The port is taken.

    Examples
    --------
    >>> with FolderServer(Path(".")) as server:
    ...     server.address.startswith("http://127.0.0.1:")
    True
    """

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder = folder.resolve()
        self.key = secrets.token_urlsafe(12)
        try:
            super().__init__((_HOSTS[0], port), _Handler)
        except OSError as error:
            raise ResourceError(f"port {port} must be free, got: {error.strerror}; give another --port") from error

    @property
    def address(self) -> str:
        """Address of the page, for a browser on this machine."""
        return f"http://{_HOSTS[0]}:{self.server_port}/{self.key}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a browser that has closed the connection."""


def news_of(folder: Path) -> dict[str, Any]:
    """Return whether a run is active in a folder, its progress, and when its report was written.

    Examples
    --------
    >>> news_of(Path("nowhere"))["running"]
    False
    """
    work, report = folder / ".work", folder / "report.html"
    try:
        progress = json.loads((work / "progress.json").read_text())
        age = max(0.0, time.time() - float(progress["time"]))
    except (OSError, ValueError, KeyError, TypeError):
        progress, age = None, None
    try:
        written = str(report.stat().st_mtime_ns)  # too many digits for a number in JavaScript
    except OSError:
        written = None
    running = (work / "run.json").exists()
    return {"folder": folder.name, "running": running, "progress": progress, "age": age, "report": written}


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD."""

    server: FolderServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with the page, the news, or a file."""
        _, key, *rest = unquote(urlsplit(self.path).path).split("/")
        known = hmac.compare_digest(key.encode(), self.server.key.encode())
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        if not known or host not in _HOSTS:  # other sites may point their own host name at this address
            self._refuse()
        elif rest == [""]:
            self._text(files("quietray.commands").joinpath("watch.html").read_bytes(), "text/html; charset=utf-8")
        elif rest == ["news.json"]:
            self._text(json.dumps(news_of(self.server.folder)).encode(), "application/json")
        elif len(rest) > 1 and rest[0] == "out":
            self._file(rest[1:])
        else:
            self._refuse()

    do_HEAD = do_GET

    def _file(self, parts: list[str]) -> None:
        if any(part.startswith(".") or not part or "\0" in part for part in parts):
            return self._refuse()
        place = self.server.folder.joinpath(*parts).resolve()
        if not (place.is_relative_to(self.server.folder) and place.is_file()):
            return self._refuse()
        try:
            stream = os.fdopen(os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
        except OSError:
            return self._refuse()
        with stream:
            kind = mimetypes.guess_type(place.name)[0] or "application/octet-stream"
            self._head(200, os.fstat(stream.fileno()).st_size, kind, _FILES)
            if self.command == "GET":
                shutil.copyfileobj(stream, self.wfile)

    def _text(self, content: bytes, kind: str, code: int = 200) -> None:
        self._head(code, len(content), kind, _PAGE)
        if self.command == "GET":
            self.wfile.write(content)

    def _refuse(self) -> None:
        self._text(b"not found\n", "text/plain; charset=utf-8", 404)

    def _head(self, code: int, length: int, kind: str, policy: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.send_header("Content-Security-Policy", policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Log nothing."""
