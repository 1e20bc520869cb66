"""Check the built site: every link leads somewhere, and no page loads anything from elsewhere.

    python docs/check_site.py docs/_build/html

Links to other sites are asked for where there is a network; a DOI need only be known to doi.org.
"""

from __future__ import annotations

import socket
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

__all__ = ["Page", "check", "main"]

_LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "link": "href"}


@dataclass
class Page(HTMLParser):
    """What a page links to, loads, and can be linked at.

    Examples
    --------
    >>> page = Page()
    >>> page.feed('<h1 id="top"><a href="other.html#there">x</a><img src="a.png"></h1>')
    >>> page.links, page.loaded, page.anchors
    (['other.html#there'], ['a.png'], {'top'})
    """

    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep what a tag refers to."""
        told = {name: value for name, value in attrs if value}
        self.anchors |= {told[name] for name in ("id", "name") if name in told}
        if tag == "a" and "href" in told:
            self.links.append(told["href"])
        if tag in _LOADED and _LOADED[tag] in told and told.get("rel") not in ("index", "search", "next", "prev"):
            self.loaded.append(told[_LOADED[tag]])


def check(site: Path) -> tuple[list[str], set[str]]:
    """Return what is wrong within the site, and the addresses of other sites that it links to."""
    pages = {path.resolve(): _read(path) for path in sorted(site.rglob("*.html"))}
    faults, others = [], set()
    for path, page in pages.items():
        name = path.relative_to(site.resolve())
        faults += [f"{name} loads {place}" for place in page.loaded if _elsewhere(place)]
        inside = [
            place for place in [*page.links, *page.loaded] if not (urlsplit(place)[:2] != ("", "") or place == "#")
        ]
        for place in inside:
            bare, anchor = urldefrag(place)
            target = (path.parent / unquote(urlsplit(bare).path)).resolve() if bare else path
            if not target.exists():
                faults.append(f"{name} links to {place}, which does not exist")
            elif anchor and target in pages and unquote(anchor) not in pages[target].anchors:
                faults.append(f"{name} links to {place}, where there is no such heading")
        others |= {urldefrag(place)[0] for place in page.links if place.startswith(("http:", "https:"))}
    faults += [
        f"{path.relative_to(site)} loads from elsewhere"
        for path in sorted(site.rglob("*.css"))
        if any(mark in path.read_text() for mark in ("@import url(http", "url(http", "url(//", 'url("http'))
    ]
    return faults, others


def _read(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text())
    return page


def _elsewhere(place: str) -> bool:
    return place.startswith("//") or urlsplit(place).scheme in ("http", "https")


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: that there is one says that the address is known."""

    def redirect_request(self, *_: object) -> None:
        return None


def _fault(address: str) -> str | None:
    """Return what is wrong with an address; a site that refuses programs is not at fault."""
    asked = urllib.request.Request(address, method="HEAD", headers={"User-Agent": "quietray-docs"})
    try:
        urllib.request.build_opener(_Stay).open(asked, timeout=20)
    except urllib.error.HTTPError as error:
        return f"{address}: {error.code}" if error.code in (404, 410) else None
    except OSError as error:
        return f"{address}: {error}"
    return None


def _network() -> bool:
    try:
        socket.create_connection(("doi.org", 443), timeout=5).close()
    except OSError:
        return False
    return True


def main(arguments: list[str]) -> int:
    """Check a site; return 1 where something is wrong."""
    site = Path(arguments[0])
    faults, others = check(site)
    if not list(site.rglob("*.html")):
        faults.append(f"{site} must hold a built site, got no page; run: make docs")
    told = f"{len(others)} links to other sites were not checked: there is no network"
    if _network():
        with ThreadPoolExecutor(8) as pool:
            faults += [fault for fault in pool.map(_fault, sorted(others)) if fault]
        told = f"{len(others)} links to other sites were checked"
    print(*faults, sep="\n", end="\n" if faults else "")
    print(f"{len(list(site.rglob('*.html')))} pages, {len(faults)} faults; {told}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
