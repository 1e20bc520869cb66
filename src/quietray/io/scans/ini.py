"""Text files with sections, names and values that scanners write beside their images."""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from quietray.errors import FormatError

__all__ = ["Ini", "ini_beside", "read_ini"]


@dataclass(frozen=True, eq=False)
class Ini:
    """Values by section and name, in lower case.

    Parameters
    ----------
    path
        Path of the file.
    values
        Text by section and name.

    Examples
    --------
    >>> told = Ini(Path("scan.log"), {"acquisition": {"rotation step (deg)": "0.4"}})
    >>> told.number("Acquisition", "Rotation Step (deg)"), told.number("Acquisition", "Number of Files")
    (0.4, None)
    """

    path: Path
    values: Mapping[str, Mapping[str, str]]

    def text(self, section: str, *names: str) -> str:
        """Return the first of several values that exists, or an empty text."""
        inside = self.values.get(section.lower(), {})
        return next((inside[name.lower()].strip() for name in names if inside.get(name.lower(), "").strip()), "")

    def number(self, section: str, *names: str) -> float | None:
        """Return the first of several values as a number; None if there is none.

        Raises
        ------
        FormatError
            The value is not a number.
        """
        text = self.text(section, *names)
        if not text:
            return None
        try:
            return float(text.replace(",", "."))
        except ValueError:
            raise FormatError(
                f"'{names[0]}' in {self.path} must be a number, got '{text}'; correct the file, or pass "
                "--ignore-scanner, --angles and, for a cone beam, its distances"
            ) from None

    def needed(self, section: str, *names: str) -> float:
        """Return a required number.

        Raises
        ------
        FormatError
            It is missing or not a number.
        """
        found = self.number(section, *names)
        if found is None:
            raise FormatError(
                f"{self.path} must state '{names[0]}' in [{section}], got none; write it there, or pass "
                "--ignore-scanner, --angles and, for a cone beam, its distances"
            )
        return found


def read_ini(path: Path) -> Ini | None:
    """Read such a file; None if it is something else."""
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True, comment_prefixes=("#", ";"))
    try:
        parser.read_string(path.read_bytes()[: 2**20].decode("utf-8-sig", "replace"))
    except (OSError, configparser.Error):
        return None
    sections = {
        name.strip().lower(): {" ".join(key.split()): value or "" for key, value in parser.items(name)}
        for name in parser.sections()
    }
    return Ini(path, sections)


def ini_beside(path: Path, ending: str, section: str, name: str) -> list[Ini]:
    """Return the file, or the files in a folder, with this ending that contain this name in this section.

    Examples
    --------
    >>> ini_beside(Path("nowhere"), ".log", "Acquisition", "Number of Files")
    []
    """
    places = sorted(path.iterdir()) if path.is_dir() else [path]
    fitting = [one for one in places if one.suffix.lower() == ending and one.is_file() and one.name[0] != "."]
    return [ini for one in fitting if (ini := read_ini(one)) is not None and ini.text(section, name)]
