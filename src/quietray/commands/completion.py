"""Shell completion of commands, flags and their values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import tyro

from quietray.commands.flags import FirstFlags

if TYPE_CHECKING:
    from rich.console import Console

    from quietray.commands.manual import Option

__all__ = ["Completion", "script"]


@dataclass(frozen=True)
class _Shell:
    """The argument of the command."""

    shell: tyro.conf.Positional[Literal["bash", "zsh", "fish"]]
    """Name of the shell."""


@dataclass(frozen=True)
class Completion(FirstFlags, _Shell):
    """Print a script that lets the shell complete commands, flags and values."""

    def run(self, console: Console) -> dict[str, Any]:
        """Print the script."""
        from quietray.commands.manual import options_of, summary
        from quietray.commands.table import COMMANDS

        text = script(
            self.shell,
            {name: summary(kind) for name, kind in COMMANDS.items()},
            {name: options_of(kind) for name, kind in COMMANDS.items()},
        )
        if not self.json:
            print(text, end="", flush=True)
        return {"script": text}


def script(shell: str, commands: Mapping[str, str], options: Mapping[str, list[Option]]) -> str:
    """Return the script for a shell.

    Parameters
    ----------
    shell
        bash, zsh or fish.
    commands
        Name and one-line summary of each command.
    options
        Options of each command.

    Examples
    --------
    >>> print(script("bash", {"demo": "Try it."}, {"demo": []}).splitlines()[0])
    # quietray: completion for bash, as `quietray completion bash` prints it
    """
    head = f"quietray: completion for {shell}, as `quietray completion {shell}` prints it\n"
    if shell == "fish":
        return f"# {head}" + _fish(commands, options)
    values: dict[str, list[str]] = {}
    for name, some in options.items():
        for option in some:
            if option.choices:
                place = f"{name}:{option.flag or 'first'}"
                values.setdefault(" ".join(option.choices), []).append(place)
    cases = [(places, words) for words, places in values.items()]
    return (_bash if shell == "bash" else _zsh)(head, commands, options, cases)


def _bash(head: str, commands: Mapping[str, str], options: Mapping[str, list[Option]], cases: list[Any]) -> str:
    values = "".join(f"    {'|'.join(places)}) words='{words}' ;;\n" for places, words in cases)
    flags = "".join(f"    {name}) words='{' '.join(_flags(some))}' ;;\n" for name, some in options.items())
    return f"""# {head}_quietray() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} command=${{COMP_WORDS[1]}} words=
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    mapfile -t COMPREPLY < <(compgen -W '{" ".join([*commands, "--help", "--version"])}' -- "$current")
    return
  fi
  ((COMP_CWORD == 2)) && [[ $current != -* ]] && before=first
  case $command:$before in
{values}  esac
  if [[ -z $words && $current == -* ]]; then
    case $command in
{flags}    esac
  fi
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}}
complete -o bashdefault -o default -F _quietray quietray  # anything else is a file
"""


def _zsh(head: str, commands: Mapping[str, str], options: Mapping[str, list[Option]], cases: list[Any]) -> str:
    values = "".join(f"    ({'|'.join(places)}) compadd -- {words}; return ;;\n" for places, words in cases)
    flags = ""
    for name, some in options.items():
        told = " ".join(_quoted(f"{option.flag}:{_brief(option.text)}") for option in some if option.flag)
        flags += f"    ({name}) entries=({told} '--help:common options' '--help-all:every option') ;;\n"
    names = " ".join(_quoted(f"{name}:{text}") for name, text in commands.items())
    return f"""#compdef quietray
# {head}_quietray() {{
  local -a entries
  if ((CURRENT == 2)); then
    entries=({names})
    _describe command entries
    return
  fi
  local before=$words[CURRENT-1]
  ((CURRENT == 3)) && [[ $words[CURRENT] != -* ]] && before=first
  case $words[2]:$before in
{values}  esac
  if [[ $words[CURRENT] == -* ]]; then
    case $words[2] in
{flags}    esac
    _describe -o option entries
    return
  fi
  _files
}}
if [[ ${{funcstack[1]}} == _quietray ]]; then _quietray "$@"; else compdef _quietray quietray; fi
"""


def _fish(commands: Mapping[str, str], options: Mapping[str, list[Option]]) -> str:
    lines = []
    for name, text in commands.items():
        lines.append(f"complete -c quietray -f -n __fish_use_subcommand -a {name} -d {_quoted(text)}")
        here = f"complete -c quietray -n '__fish_seen_subcommand_from {name}'"
        for option in options[name]:
            words = f" -a '{' '.join(option.choices)}'" if option.choices else ""
            if option.flag:
                takes = "" if not option.metavar else " -x" if option.choices else " -r -F"
                lines.append(f"{here} -l {option.flag[2:]}{takes}{words} -d {_quoted(_brief(option.text))}")
            elif option.choices:
                lines.append(f"{here} -f{words}")
    return "\n".join(lines) + "\n"


def _brief(text: str) -> str:
    """Return what fits beside a name in a menu: the text up to its first pause."""
    return re.split(r"[.:;] |, such as| [(]", text)[0].rstrip(".")


def _flags(options: list[Option]) -> list[str]:
    return [*(option.flag for option in options if option.flag), "--help", "--help-all"]


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "'\\''") + "'"
