"""The options of a command: argparse, and what it does not do by itself.

argparse parts the words of a command line, and checks its flags and positional arguments. Settings reach it as text,
because three rules are ours: an unknown option is answered with the nearest names, dashes and old names are accepted,
and a value is read by the annotation of its field. How settings come together with those of a file is in ``settings``.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn

from ..config_checks import shown
from ..config_mapping import current_name
from ..errors import ConfigError, suggest
from ..text import shortened
from .fields import Field, fields_of
from .help import Page, terminal_width
from .reading_options import PROBE_AND_FINDINGS, READING
from .settings_file import read_yaml
from .terminal import HelpAsked
from .values import default_text, placeholder, type_text, typed_value

__all__ = ["Options", "Parser", "add_out_option", "add_scan_options", "make_parser", "merged", "parse"]

Options = dict[str, Any]
"""What a command was given: option name → value; ``settings`` holds the given fields, as nested plain data."""

_MESSAGES = "messages"

_OF_ENGINES = "--options."
"""How options begin whose names are an engine's own."""


class Parser(argparse.ArgumentParser):
    """An argparse parser that knows its own options, and raises what it has to say.

    Attributes:
        known: ``--name`` → the action of argparse, of every option.
        settings: dotted name → the field, of the options that are settings.
    """

    def __init__(self, *, example: str = "", **how: Any) -> None:
        self.known: dict[str, argparse.Action] = {}
        self.settings: dict[str, Field] = {}
        self._groups: dict[str, list[argparse.Action]] = {"": []}
        self._example = example
        super().__init__(**how)

    def add_argument(self, *names: str, **how: Any) -> argparse.Action:
        """As argparse has it."""
        return self._remember(super().add_argument(*names, **how), "")

    def add_group(self, title: str, options: Mapping[str, dict[str, Any]]) -> None:
        """Add options under a heading, each with the arguments of ``add_argument``."""
        group = self.add_argument_group(title)
        for name, how in options.items():
            self._remember(group.add_argument(*name.split(", "), **how), title)

    def add_settings(self, title: str, config_type: type, *, omit: Collection[str] = (), prefix: str = "") -> None:
        """Add an option for every field of a settings class under its dotted name.

        Args:
            title: the heading.
            config_type: a dataclass whose docstring lists its attributes.
            omit: fields that the command decides itself.
            prefix: stands before each name.
        """
        fields = [field for field in fields_of(config_type, prefix) if field.name not in omit]
        self.settings |= {field.name: field for field in fields}
        self.add_group(title, {f"--{field.name}": _as_option(field) for field in fields})

    def _remember(self, action: argparse.Action, title: str) -> argparse.Action:
        self._groups.setdefault(title, []).append(action)
        self.known |= {option: action for option in action.option_strings if option.startswith("--")}
        return action

    def page(self) -> Page:
        """What the parser has to say of itself."""
        groups = {title: actions for title, actions in self._groups.items() if title != _MESSAGES}
        return Page(
            usage=f"usage: {self.usage}",
            summary=self.description or "",
            groups={**groups, _MESSAGES: self._groups.get(_MESSAGES, [])},
            example=self._example,
            command=self.prog.removeprefix("ptycho "),
        )

    def print_help(self, file: Any = None) -> NoReturn:
        """Ask for the short page to be shown: argparse loses it without a word where it cannot be written.

        Raises:
            HelpAsked: always, with the text.
        """
        raise HelpAsked(self.page().short(terminal_width()))

    def error(self, message: str) -> Any:
        """Refuse a command line.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{message}. See '{self.prog} --help'.")


class _HelpAll(argparse.Action):
    """``--help-all``: ask for the whole page, whatever else is missing in the command line."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        """Ask.

        Raises:
            HelpAsked: always, with the text.
        """
        assert isinstance(parser, Parser)
        raise HelpAsked(parser.page().full(terminal_width()))


def _as_option(field: Field) -> dict[str, Any]:
    """How argparse shows a setting; it is kept as text, and only when it is given."""
    return {
        "dest": field.name,
        "default": argparse.SUPPRESS,
        "metavar": placeholder(field.hint),
        "help": f"{field.text} (default: {default_text(field.default)})".replace("%", "%%"),
    }


def make_parser(command: str, arguments: str, summary: str, example: str) -> Parser:
    """Return the parser of one command, with the options that every command has.

    Args:
        command: its name.
        arguments: how its positional arguments are shown (``DATA``).
        summary: one or more sentences for ``--help``.
        example: command lines, shown at the end of ``--help``; a test runs each.
    """
    parser = Parser(
        prog=f"ptycho {command}",
        usage=" ".join(part for part in ("ptycho", command, arguments, "[options]") if part),
        description=summary,
        example=example,
        add_help=False,
    )
    parser.add_group(
        _MESSAGES,
        {
            "-h, --help": {"action": "help", "help": "show the options that people use, and exit"},
            "--help_all": {"action": _HelpAll, "nargs": 0, "help": "show all options, by groups, and exit"},
            "--verbose": {"action": "store_true", "help": "say more on the terminal"},
            "--debug": {"action": "store_true", "help": "show the traceback of an error"},
        },
    )
    return parser


def add_out_option(parser: Parser, default: str) -> None:
    """Add ``--out`` and ``--overwrite``."""
    parser.add_argument("--out", metavar="FOLDER", help=f"folder for the results (default: {default})")
    parser.add_argument("--overwrite", action="store_true", help="replace a finished result that lies there")


def add_scan_options(parser: Parser, *, probe: bool = True) -> None:
    """Add what decides how a scan is read; see ``reading_options``.

    Args:
        parser: of the command.
        probe: whether the command does more than look, so that a probe and findings matter.
    """
    for title, group in READING.items():
        parser.add_group(title, group)
    if probe:
        parser.add_group("probe and findings", PROBE_AND_FINDINGS)


def parse(parser: Parser, arguments: Sequence[str]) -> Options:
    """Parse a command line.

    Returns:
        Options by name, and under ``settings`` those settings that were given, as nested plain data.

    Raises:
        ConfigError: an unknown option, a missing argument or a value of the wrong type, said in one line.
        HelpAsked: ``--help`` was given.
    """
    nulls = next((word for word in arguments if "\0" in word), None)
    if nulls is not None:
        raise ConfigError(f"{shown(nulls)} holds a null character, which no name and no value has; leave it out.")
    words, for_engines = _own_words(parser, arguments)
    found: Options = vars(parser.parse_args(words))
    given: dict[str, Any] = {}
    for name in sorted(parser.settings.keys() & found.keys()):
        given = merged(given, _nested(name, _value(parser, name, found.pop(name))))
    for name, text in for_engines:
        given = merged(given, _nested(name, read_yaml(text, f"--{name}")))
    return {**found, "settings": given}


def _value(parser: Parser, name: str, text: str) -> Any:
    hint = parser.settings[name].hint
    try:
        return typed_value(text, hint)
    except ValueError as error:
        said = shortened(text, 100)
        raise ConfigError(f"--{name} = {said}; it must be {type_text(hint)}. See '{parser.prog} --help'.") from error


def _nested(dotted: str, value: Any) -> dict[str, Any]:
    for part in reversed(dotted.split(".")):
        value = {part: value}
    nested: dict[str, Any] = value
    return nested


def merged(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Two layers of nested plain data, the second on top."""
    out = dict(low)
    for name, value in high.items():
        below = out.get(name)
        out[name] = merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return out


def _own_words(parser: Parser, arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """The words under the names that the parser knows, and the settings of single engines (dotted name, text).

    A value is put into one word with its option, so that one with a minus sign is not taken for an option.
    """
    words: list[str] = []
    for_engines: list[tuple[str, str]] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*words, word, *rest], for_engines
        if not word.startswith("--"):
            words.append(word)
            continue
        given, equals, value = word.partition("=")
        option = _known_option(parser, given)
        action = parser.known.get(option)
        takes_value = action is None or action.nargs is None
        if takes_value and not equals and rest and not rest[0].startswith("--"):
            equals, value = "=", rest.pop(0)
        if equals and not value:
            raise ConfigError(f"{option} is given as an empty text; say its value, or leave it out.")
        if action is not None:
            words.append(f"{option}{equals}{value}")
        elif equals:
            for_engines.append((option[2:], value))
        else:
            parser.error(f"argument {option}: expected one argument")
    return words, for_engines


def _known_option(parser: Parser, given: str) -> str:
    """An option as the parser knows it: dashes for underscores and old names are accepted.

    Raises:
        ConfigError: no such option; the nearest names are suggested.
    """
    option = "--" + given[2:].replace("-", "_").removeprefix("runtime.")
    of_engine = "options" in parser.settings and option.startswith(_OF_ENGINES) and option != _OF_ENGINES
    if option in parser.known or of_engine:
        return option
    if parser.settings and (current := current_name(option[2:])) in parser.settings:
        return f"--{current}"
    inner = [known for known in parser.known if known.endswith(f".{option[2:]}")]
    hint = f" Did you mean '{inner[0]}'?" if inner else suggest(option, parser.known)
    raise ConfigError(f"unknown option {given}.{hint}")
