"""How the site is built: `make docs`.  Every warning is an error, and nothing on a page is loaded from elsewhere."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from api_groups import api_page  # noqa: E402

import quietray  # noqa: E402

project = "quietray"
copyright = "The quietray contributors, Apache-2.0"
release = version = quietray.__version__

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]
highlight_language = "none"  # most blocks are commands

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4
myst_url_schemes = ("http", "https", "mailto")

# Notebooks are run; what they show is kept until they change.
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_execution_in_temp = True
nb_merge_streams = True
nb_ipywidgets_js: dict[str, Any] = {}  # no scripts from elsewhere

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 80
numpydoc_show_class_members = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = f"quietray {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
html_math_renderer = "mathml"

(HERE / "reference" / "api.rst").write_text(api_page(quietray.__all__))

# Pages of the repository that are part of the site; links to its other files name them.
_PAGES = {
    "ARCHITECTURE": "/reference/architecture.md",
    "CHANGELOG": "/reference/changelog.md",
    "CONTRIBUTING": "/reference/contributing.md",
    "README": "/index.md",
    "benchmarks/README": "/reference/benchmarks.md",
}
_OUTSIDE = re.compile(r"\[([^\]]*)\]\((?:\.\./)+(?!images/|docs/|guide/|notebooks/|reference/)([^)#\s]+)(#[^)\s]*)?\)")


def _link(found: re.Match[str]) -> str:
    text, place, anchor = found[1], found[2], found[3] or ""
    if place.removesuffix(".md") in _PAGES:
        return f"[{text}]({_PAGES[place.removesuffix('.md')]}{anchor})"
    if (HERE / place).exists():  # another page, seen from a folder of pages
        return found[0]
    return f"`{place}`" if text.strip("`") == place else f"{text} (`{place}`)"


def _within_the_site(app: Any, docname: str, source: list[str]) -> None:
    """Turn links to files of the repository into links to pages, or into their names."""
    source[0] = _OUTSIDE.sub(_link, source[0])


_DOI = re.compile(r"doi:(10\.\d{4,}/[^\s,;]*[^\s,;.)])")


def _linked(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Make a link of every DOI in a docstring."""
    lines[:] = [_DOI.sub(r"`doi:\1 <https://doi.org/\1>`__", line) for line in lines]


def _inline_math(writer: Any, node: nodes.math) -> None:
    writer.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def _display_math(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Formulas as MathML, which browsers draw without a script; links made."""
    app.add_html_math_renderer("mathml", (_inline_math, None), (_display_math, None))
    app.connect("source-read", _within_the_site)
    app.connect("autodoc-process-docstring", _linked)
