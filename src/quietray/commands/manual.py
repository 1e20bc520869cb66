"""Texts of `--help` and `--help-all`, made from the dataclasses of the commands."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import os
import re
import shutil
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro

from quietray.commands.flags import (
    NAMES,
    CleanFlags,
    FirstFlags,
    MethodFlags,
    OutFlags,
    PhaseFlags,
    RunFlags,
    ScanFlags,
)
from quietray.simulate.foam_scan import FoamScan

__all__ = ["Option", "manual", "options_of", "overview", "summary"]

# The options that most people need, and two examples, for each command.
_COMMON = {
    "info": ("data", "flats", "angles", "max_memory", "json"),
    "check": ("data", "flats", "angles", "air", "json"),
    "diagnose": ("data", "flats", "static", "out", "json"),
    "denoise": ("out", "budget", "method", "flats", "darks", "angles", "rows", "trust", "preview", "resume", "log"),
    "batch": ("out", "budget", "method", "each", "flats", "darks", "angles", "rows", "cluster", "overwrite", "log"),
    "watch": ("port", "no_browser"),
    "compare": ("out", "budget", "flats", "angles", "rows", "overwrite", "log"),
    "filter": ("filter", "repeats", "out", "overwrite"),
    "train": ("more", "out", "budget", "method", "from_", "clean", "overwrite", "log"),
    "apply": ("out", "strict", "flats", "angles", "rows", "format", "overwrite", "log"),
    "models": ("json",),
    "reconstruct": ("out", "algorithm", "flats", "angles", "rotation_axis", "rows", "format", "overwrite"),
    "decorrelate": ("out", "static", "reblur", "flats", "overwrite"),
    "evaluate": ("window", "rows", "radius", "against", "json"),
    "demo": ("out", "budget"),
    "simulate": ("out", "views", "rows", "cols", "photons", "beam", "seed", "overwrite"),
    "completion": (),
}
_EXAMPLES = {
    "": ("quietray denoise scan.h5", "quietray check scan.h5"),
    "info": ("quietray info scan.h5", "quietray info tiffs/ --flats flats/ --darks darks/ --angles 0:180"),
    "check": ("quietray check scan.h5", "quietray check scan.h5 --air 0:90,745:835"),
    "diagnose": ("quietray diagnose scan.h5", "quietray diagnose scan.h5 --static repeated.h5 --out noise"),
    "denoise": (
        "quietray denoise scan.h5 --budget 10m",
        "quietray denoise tiffs/ --flats flats/ --darks darks/ --angles 0:180 --out sample",
    ),
    "batch": ("quietray batch *.h5 --out night", "quietray batch *.h5 --budget 5m --each --cluster local:2"),
    "watch": ("quietray watch scan-denoised", "quietray watch scan-denoised --port 8765 --no-browser"),
    "compare": ("quietray compare scan.h5 --budget 20m", "quietray compare scan.h5 --rows 100:116"),
    "filter": ("quietray filter series/", "quietray filter series/ --filter nlm --out smooth"),
    "train": ("quietray train scan1.h5 --more scan2.h5 --out model", "quietray train pairs/ --method noise2clean"),
    "apply": ("quietray apply model scan3.h5", "quietray apply model scan3.h5 --strict --format tiff"),
    "models": ("quietray models", "quietray models add scan-denoised"),
    "reconstruct": (
        "quietray reconstruct scan.h5",
        "quietray reconstruct few.h5 --algorithm sirt --iterations 200 --out sirt.zarr",
    ),
    "decorrelate": ("quietray decorrelate scan.h5", "quietray decorrelate white.h5 --reblur --out back.h5"),
    "evaluate": (
        "quietray evaluate scan-denoised/volume.zarr reference.zarr",
        "quietray evaluate series-filtered reference/ --window -160 240",
    ),
    "demo": ("quietray demo", "quietray demo --budget 4m --out demo"),
    "simulate": ("quietray simulate --out foam.h5", "quietray simulate --out cone.h5 --beam cone --photons 1000"),
    "completion": ('eval "$(quietray completion bash)"', "quietray completion fish | source"),
}
_GROUPS: dict[type[Any], str] = {
    OutFlags: "output",
    MethodFlags: "method",
    CleanFlags: "method",
    ScanFlags: "how to read the scan",
    PhaseFlags: "phase retrieval",
    FoamScan: "the simulated scan",
    FirstFlags: "messages",
}
_OF_RUNS = {
    "output": ("format", "dtype", "window"),
    "correction": ("air", "rings", "own_flats", "zingers", "line_integrals"),
    "reconstruction": ("rows", "region", "algorithm", "iterations", "weight", "box", "filter"),
    "settings and machine": ("config", "device", "cluster", "max_memory", "device_memory"),
}
_ORDER = ("output", "method", "how to read the scan", "correction", "phase retrieval", "reconstruction")
_WIDEST, _INDENT = 100, 24
_SUPPRESSED = get_args(tyro.conf.Suppress[int])[1]
_KINDS = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}


@dataclass(frozen=True)
class Option:
    """A flag or a positional argument of a command.

    Parameters
    ----------
    name
        Name of the field.
    flag
        Flag such as ``--out``; empty for positional arguments.
    metavar
        Placeholder of its value; empty if it has no value.
    text
        Description, with the default.
    choices
        Possible values, if they can be listed.
    group
        Heading in the help.
    """

    name: str
    flag: str
    metavar: str
    text: str
    choices: tuple[str, ...]
    group: str


def options_of(command: type[Any]) -> list[Option]:
    """Return the options of a command, in the order of its dataclass.

    Examples
    --------
    >>> from quietray.commands.watching import Watch
    >>> [option.flag for option in options_of(Watch)][-2:]
    ['--port', '--no-browser']
    """
    hints, texts = get_type_hints(command, include_extras=True), _texts(command)
    shown = [entry for entry in dataclasses.fields(command) if _SUPPRESSED not in _unwrapped(hints[entry.name])[1]]
    return [_option(command, entry, hints[entry.name], texts[entry.name]) for entry in shown]


def _option(command: type[Any], entry: Any, hint: Any, text: str) -> Option:
    kind, marks = _unwrapped(hint)
    placed = get_args(tyro.conf.Positional[int])[1] in marks
    flag = "" if placed else f"--{_marked(marks, 'name') or entry.name.strip('_').replace('_', '-')}"
    choices = tuple(str(one) for one in get_args(kind)) if get_origin(kind) is Literal else NAMES.get(entry.name, ())
    usual = "{" + ",".join(choices) + "}" if get_origin(kind) is Literal else _KINDS.get(kind, "VALUES")
    metavar = "" if kind is bool else _marked(marks, "metavar") or usual
    if placed and metavar in _KINDS.values():
        metavar = entry.name.upper()
    if placed and entry.default is not dataclasses.MISSING:
        metavar = f"[{metavar}]"
    if entry.default is dataclasses.MISSING:
        text += "" if placed else " (required)"
    elif not (entry.default is None or entry.default in (False, ()) or "(default" in text):
        values = entry.default if isinstance(entry.default, tuple) else (entry.default,)
        text += f" (default: {' '.join(map(str, values))})"
    return Option(entry.name, flag, metavar, text, choices, _group(command, entry.name))


def _marked(marks: list[Any], name: str) -> str:
    """Return the first value of that name in the annotations of a field; empty if none has one."""
    return next((found for one in marks if isinstance(found := getattr(one, name, None), str)), "")


def _unwrapped(hint: Any) -> tuple[Any, list[Any]]:
    """Return a type without None and without annotations, and its annotations."""
    marks: list[Any] = []
    while True:
        if get_origin(hint) is Annotated:
            hint, *more = get_args(hint)
            marks += more
        elif NoneType in get_args(hint) and get_origin(hint) is not Literal:
            hint = next(one for one in get_args(hint) if one is not NoneType)
        else:
            return hint, marks


def _texts(command: type[Any]) -> dict[str, str]:
    """Return the description of each field: the text below it, or the docstring's Parameters."""
    found: dict[str, str] = {}
    for kind in reversed(command.__mro__[:-1]):
        section = inspect.getdoc(kind) or ""
        for name, lines in re.findall(r"^(\w+)\n((?:    .*\n?)+)", section.partition("----------\n")[2], re.M):
            found[name] = " ".join(lines.split())
        body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
        assert isinstance(body, ast.ClassDef)
        for one, below in zip(body.body, body.body[1:], strict=False):
            if isinstance(one, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                found[ast.unparse(one.target)] = " ".join(str(below.value.value).split())
    return found


def _group(command: type[Any], name: str) -> str:
    home = next(kind for kind in reversed(command.__mro__) if name in getattr(kind, "__annotations__", {}))
    if home is RunFlags:
        return next(heading for heading, names in _OF_RUNS.items() if name in names)
    return _GROUPS.get(home, f"{command.__name__.lower()}'s own")


def summary(command: type[Any]) -> str:
    """Return a one-line summary of a command.

    Examples
    --------
    >>> from quietray.commands.watching import Watch
    >>> summary(Watch)
    'Show the report of a run in a browser, updated while the run continues'
    """
    return re.split(r"[:;.](?: |$)", _first_paragraph(command))[0]


def _first_paragraph(command: type[Any]) -> str:
    return " ".join((inspect.getdoc(command) or "").split("\n\n")[0].split())


def manual(name: str, command: type[Any], *, whole: bool) -> str:
    """Return the help of a command: the options that most people need, or all of them in groups.

    Examples
    --------
    >>> from quietray.commands.watching import Watch
    >>> manual("watch", Watch, whole=False).splitlines()[0]
    'usage: quietray watch FOLDER [OPTIONS]'
    """
    options = options_of(command)
    placed = [one for one in options if not one.flag]
    flags = sorted((one for one in options if one.flag), key=lambda one: one.name != "out")
    needed = [f"{one.flag} {one.metavar}" for one in flags if "(required)" in one.text]
    usage = ["usage: quietray", name, *(one.metavar for one in placed), *needed, "[OPTIONS]"]
    lines = [" ".join(usage), "", *_wrapped(_first_paragraph(command)), *([""] if placed else [])]
    for one in placed:
        lines += _entry(one, whole)
    if whole:
        headings = list(dict.fromkeys(one.group for one in flags))
        own = [heading for heading in headings if heading not in _ORDER]
        first = [heading for heading in own if heading.endswith("'s own")]
        for heading in (*first, *(one for one in _ORDER if one in headings), *(one for one in own if one not in first)):
            lines += ["", _bold(heading)]
            for one in flags:
                lines += _entry(one, whole) if one.group == heading else []
    else:
        by_name = {one.name: one for one in flags}
        lines += ["", _bold("common options")] if _COMMON[name] else []
        for chosen in _COMMON[name]:
            lines += _entry(by_name[chosen], whole)
    lines += ["", _bold("examples"), *(f"  {one}" for one in _EXAMPLES[name])]
    if not whole:
        lines += ["", f"every option, in groups: quietray {name} --help-all"]
    return "\n".join(lines)


def overview(groups: dict[str, tuple[type[Any], ...]]) -> str:
    """Return the list of commands, each in one or two lines."""
    lines = ["usage: quietray COMMAND [OPTIONS]", ""]
    lines += [*_wrapped("Remove the noise from X-ray radiographs and CT volumes, without any clean data."), ""]
    for heading, kinds in groups.items():
        lines += [_bold(heading)]
        for kind in kinds:
            lines += _columns(kind.__name__.lower(), summary(kind), 16)
    lines += [_bold("examples"), *(f"  {one}" for one in _EXAMPLES[""])]
    return "\n".join([*lines, "", "quietray COMMAND --help, quietray COMMAND --help-all, quietray --version"])


def _entry(option: Option, whole: bool) -> list[str]:
    text = option.text if whole else _shortened(option.text)
    return _columns(f"{option.flag} {option.metavar}".strip(), text, _INDENT)


def _shortened(text: str) -> str:
    """Return the first sentence or clause of a long text, and its default."""
    if len(text) <= 2 * (80 - _INDENT):
        return text
    default = re.search(r" \((default: [^)]*|required)\)", text)
    rest = text.replace(default[0], "") if default else text
    first = re.split(r"[.;:](?: |$)", rest)[0]
    return first + (default[0] if default else "")


def _columns(name: str, text: str, indent: int) -> list[str]:
    lines = textwrap.wrap(text, _width() - indent, break_on_hyphens=False) or [""]
    start = f"  {name}"
    if len(start) + 2 > indent:
        return [start, *(" " * indent + line for line in lines)]
    return [start.ljust(indent) + lines[0], *(" " * indent + line for line in lines[1:])]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _width())


def _width() -> int:
    return min(shutil.get_terminal_size().columns, _WIDEST)


def _bold(heading: str) -> str:
    return f"\033[1m{heading}\033[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else heading
