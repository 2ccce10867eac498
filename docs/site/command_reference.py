"""The reference of commands, made of the help that each command prints, so that it cannot be out of date."""

from __future__ import annotations

import contextlib
import io
import os
import re

__all__ = ["help_text", "options_of", "pages_of_commands"]

_COMMAND = re.compile(r"^  (\S+) {2,}(\S.*)$", re.MULTILINE)
_OPTION = re.compile(r"^  (?P<names>-\S.*?|[A-Z]\S*)(?: {2,}(?P<text>\S.*))?$")
_HEADING = re.compile(r"^(?P<title>\S.*):$")


def help_text(*words: str) -> str:
    """What a command prints on a terminal of 88 columns.

    Args:
        words: the command line after the program's name.

    Raises:
        SystemExit: it did not end well.
    """
    from ptycho_core.cli.main import main

    os.environ["COLUMNS"] = "88"
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = main(list(words))
    if code:
        raise SystemExit(f"'ptycho {' '.join(words)}' ended with {code}")
    return said.getvalue().strip()


def options_of(text: str) -> dict[str, list[tuple[str, str]]]:
    """The options that a help lists, under their headings: names with the value that they take, and what they mean.

    Args:
        text: a help.
    """
    groups: dict[str, list[tuple[str, str]]] = {}
    inside: list[tuple[str, str]] = []
    for line in text.splitlines():
        if heading := _HEADING.match(line):
            inside = groups.setdefault(heading["title"], [])
        elif option := _OPTION.match(line):
            inside.append((option["names"], option["text"] or ""))
        elif line.startswith("      ") and inside:
            names, known = inside.pop()
            inside.append((names, f"{known} {line.strip()}".strip()))
    return {title: options for title, options in groups.items() if options and not title.startswith("example")}


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", text)


def _page(name: str, summary: str) -> str:
    parts = [f"# ptycho {name}", f"{summary[0].upper()}{summary[1:]}.", f"```text\n{help_text(name, '--help')}\n```"]
    for title, options in options_of(help_text(name, "--help-all")).items():
        parts.append(f"## {title[0].upper()}{title[1:]}")
        parts += [f"`{names}`\n:   {_escaped(text) or '–'}" for names, text in options]
    return "\n\n".join(parts) + "\n"


def pages_of_commands() -> dict[str, str]:
    """A page for every command, and a list of them."""
    overview = help_text("--help")
    commands = _COMMAND.findall(overview.partition("commands:\n")[2].partition("\n\n")[0])
    first = (
        "`ptycho COMMAND --help` shows the options that people use, `--help-all` all of them, as these pages do. "
        "Underscores in options may be typed as dashes."
    )
    last = "Exit codes: 0 done; 2 wrong input or environment, in one line; 130 interrupted; 1 a fault of this program."
    table = "| command | what it does |\n|---|---|"
    table += "".join(f"\n| [`ptycho {name}`]({name}.md) | {_escaped(summary)} |" for name, summary in commands)
    index = "\n\n".join(["# Commands", first, table, last]) + "\n"
    return {"reference/commands/index.md": index} | {
        f"reference/commands/{name}.md": _page(name, summary) for name, summary in commands
    }
