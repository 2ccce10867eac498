"""Options of a command: strict names, types from the config classes, and default < file < command line.

jsonargparse reads types and values. Three rules are ours, because it does not keep them by itself: the command line
wins over the file wherever ``--config`` stands, an unknown option is answered with the nearest names, and the old
names of fields work on the command line as they do in a file.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import typing
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..config import EngineOptions, InferenceConfig, ModelConfig, RefinementConfig, TrainingConfig
from ..config_mapping import config_from_mapping, resolve_names
from ..errors import ConfigError, suggest
from .settings_file import read_settings

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = [
    "Options",
    "add_config_options",
    "add_field_options",
    "add_out_option",
    "add_scan_options",
    "build_config",
    "given_fields",
    "given_settings",
    "make_parser",
    "parse",
]

Options = dict[str, Any]
"""What a command was given: option name → value; fields of a config are there only when they were given."""

_C = TypeVar("_C", TrainingConfig, InferenceConfig)


def make_parser(command: str, arguments: str, summary: str, example: str) -> ArgumentParser:
    """Return the parser of one command, with the options that every command has.

    Args:
        command: its name.
        arguments: how its positional arguments are shown (``DATA``).
        summary: one or more sentences for ``--help``.
        example: command lines, shown at the end of ``--help``; a test runs each.
    """
    from jsonargparse import ArgumentParser

    usage = " ".join(part for part in ("ptycho", command, arguments, "[options]") if part)
    parser = ArgumentParser(
        prog=f"ptycho {command}",
        usage=usage,
        description=summary,
        epilog="example:\n" + "\n".join(f"  {line}" for line in example.splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        exit_on_error=False,
        default_env=False,
    )
    common = parser.add_argument_group("messages")
    common.add_argument("--verbose", action="store_true", help="say more on the terminal")
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def add_out_option(parser: ArgumentParser, default: str) -> None:
    """Add ``--out`` and ``--overwrite``."""
    parser.add_argument("--out", type=str, metavar="FOLDER", help=f"folder for the results (default: {default})")
    parser.add_argument("--overwrite", action="store_true", help="replace a finished result that lies there")


def add_scan_options(parser: ArgumentParser) -> None:
    """Add what decides how a scan is read."""
    group = parser.add_argument_group("reading the scan")
    group.add_argument(
        "--measurement",
        choices=["amplitude", "counts"],
        help="what the stored frames are, where the file does not say",
    )
    group.add_argument("--dialect", type=str, metavar="NAME", help="reader to use (default: found from the content)")
    group.add_argument(
        "--despite_findings",
        action="store_true",
        help="go on although the checks found what makes an image worthless, such as gaps of the detector as counts",
    )
    group.add_argument(
        "--probe", type=str, metavar="FILE", help="take the probe from this file (npz, reconstruction.h5, model.ptycho)"
    )


def _attribute_docs(config_type: type) -> dict[str, str]:
    """The one-paragraph description of each field, from the ``Attributes`` section of its class."""
    section = (config_type.__doc__ or "").partition("Attributes:")[2]
    entries = re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", section, flags=re.MULTILINE)
    # None is written null on a command line and in YAML
    plain = {name: re.sub(r"\bNone\b", "null", re.sub(r"\s+", " ", text)) for name, text in entries}
    return {name: text.replace("`", "").strip().rstrip(".") for name, text in plain.items()}


def _config_options(config_type: type, prefix: str = "") -> Iterator[tuple[str, Any, Any, str]]:
    """Yield (dotted name, type, default, description) of every field, nested ones included."""
    hints, docs = typing.get_type_hints(config_type), _attribute_docs(config_type)
    for field in dataclasses.fields(config_type):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield from _config_options(hint, f"{prefix}{field.name}.")
        elif EngineOptions in typing.get_args(hint):  # which class it is, the engine decides
            yield f"{prefix}{field.name}", dict[str, Any], field.default, docs.get(field.name, "")
        else:
            yield f"{prefix}{field.name}", hint, field.default, docs.get(field.name, "")


def _type_text(hint: Any) -> str:
    if hint is bool:
        return "true or false"
    if typing.get_origin(hint) is dict:
        return 'JSON such as \'{"algorithm": "rpie"}\''
    options = [option for option in typing.get_args(hint) if option not in (type(None), Ellipsis)]
    if typing.get_origin(hint) is tuple:
        return "a list such as [a,b]"
    words = {int: "an integer", float: "a number", str: "text", Path: "a path"}
    text = " or ".join(words.get(option, str(option)) for option in (options or [hint]))
    return f"{text} or null" if type(None) in typing.get_args(hint) else text


def _default_text(default: Any) -> str:
    if default is None:
        return "null"
    if isinstance(default, bool):
        return str(default).lower()
    return f"[{','.join(map(str, default))}]" if isinstance(default, tuple) else str(default)


def add_config_options(
    parser: ArgumentParser, config_type: type[TrainingConfig] | type[InferenceConfig], *, omit: Mapping[str, str]
) -> None:
    """Add ``--config FILE`` and one option for every field of a config, under its dotted name.

    Args:
        parser: the command's parser.
        config_type: the config class; the fields of an ``InferenceConfig`` stand under ``inference.``.
        omit: fields that the command decides itself, with what to say instead when one is given in a file.
    """
    add_field_options(parser, config_type, omit=omit, prefix="inference." if config_type is InferenceConfig else "")


def add_field_options(
    parser: ArgumentParser, config_type: type, *, omit: Collection[str] = (), prefix: str = ""
) -> None:
    """Add ``--config FILE`` and one option for every field of any dataclass whose docstring lists its attributes."""
    group = parser.add_argument_group("settings (default < --config FILE < command line)")
    group.add_argument("--config", type=str, metavar="FILE", help="YAML or JSON file with any of these settings")
    for name, hint, default, text in _config_options(config_type, prefix):
        if name in omit:
            continue
        # SUPPRESS: only what was given may override the file
        group.add_argument(
            f"--{name}",
            type=hint,
            default=argparse.SUPPRESS,
            metavar="{true,false}" if hint is bool else name.rpartition(".")[2].upper(),
            help=f"{text} (default: {_default_text(default)})".replace("%", "%%"),
        )


def given_fields(config_type: type, options: Options) -> dict[str, Any]:
    """Return what file and command line set of a flat dataclass, the command line on top.

    Raises:
        ConfigError: the file cannot be read or holds an unknown name.
    """
    names = {name for name, *_ in _config_options(config_type)}
    layer: dict[str, Any] = {}
    if options.get("config"):
        layer = read_settings(Path(options["config"]))
        for name in layer:
            if name not in names:
                raise ConfigError(f"{options['config']}: no setting {name!r}.{suggest(str(name), names)}")
    merged = {**layer, **{name: options[name] for name in names & options.keys()}}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in merged.items()}


def _old_name(option: str) -> str | None:
    """Return the dotted name that an old field name stands for now, with a deprecation notice; None if it is none.

    Raises:
        ConfigError: the old name is refused, with the advice that the config class gives.
    """
    parent, dot, leaf = option.rpartition(".")
    owner = {
        "": TrainingConfig,
        "model": ModelConfig,
        "inference": InferenceConfig,
        "refinement": RefinementConfig,
    }.get(parent)
    if owner is None or leaf in {field.name for field in dataclasses.fields(owner)}:
        return None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            (current,) = resolve_names(owner, {leaf: None})
        except ConfigError as error:
            advice = str(error).partition(" is refused: ")[2]
            if advice:
                raise ConfigError(f"--{option} is refused: {advice}") from error
            return None
    for warning in caught:
        warnings.warn(f"--{option}: {warning.message}", DeprecationWarning, stacklevel=2)
    return f"{parent}{dot}{current}"


def _canonical_option(token: str, known: Sequence[str]) -> str:
    """Return one ``--name`` as the parser knows it: dashes for underscores and old names are accepted.

    Raises:
        ConfigError: no such option; the nearest names are suggested.
    """
    name = token[2:]
    spelled = name.replace("-", "_")
    if spelled in known:
        return f"--{spelled}"
    current = _old_name(spelled) if "config" in known else None
    if current in known:
        return f"--{current}"
    inner = [option for option in known if option.endswith(f".{spelled}")]
    hint = f" Did you mean '--{inner[0]}'?" if inner else suggest(token, [f"--{option}" for option in known])
    raise ConfigError(f"unknown option {token}.{hint}")


def _checked_tokens(parser: ArgumentParser, arguments: Sequence[str]) -> list[str]:
    """Refuse unknown options before jsonargparse sees them, and bring the known ones to their own spelling."""
    known = [option[2:] for option in parser._option_string_actions if option.startswith("--")]
    known = [option for option in known if not option.startswith("print_")]
    tokens: list[str] = []
    for index, token in enumerate(arguments):
        if token == "--":
            return tokens + list(arguments[index:])
        if token.startswith("--"):
            option, equals, value = token.partition("=")
            token = _canonical_option(option, known) + equals + value
        tokens.append(token)
    return tokens


def _one_line(parser: ArgumentParser, error: Exception) -> str:
    """What a parsing error means, in one line: jsonargparse explains a wrong value over several."""
    text = str(error)
    found = re.search(r'(?:Parser|Value for) key "([^"]+)"', text)
    value = re.search(r"(?:Got|Given) value: (.*)", text)
    if found:
        action = parser._option_string_actions.get(f"--{found[1]}")
        hint = getattr(action, "_typehint", None)
        needed = f"; it must be {_type_text(hint)}" if hint is not None else " has the wrong type"
        return f"--{found[1]}{' = ' + value[1].strip() if value else ''}{needed}. See '{parser.prog} --help'."
    head, required, missing = text.partition("the following arguments are required: ")
    if required:  # jsonargparse names them without their dashes
        options = parser._option_string_actions
        shown = [f"--{name}" if f"--{name}" in options else name.upper() for name in missing.split(", ")]
        text = f"{head}{required}{', '.join(shown)}"
    return f"{' '.join(text.split())}. See '{parser.prog} --help'."


def parse(parser: ArgumentParser, arguments: Sequence[str]) -> Options:
    """Parse a command line.

    Returns:
        Options by name; the given fields of a config under their dotted names, and no others.

    Raises:
        ConfigError: an unknown option, a missing argument or a value of the wrong type, said in one line.
        SystemExit: ``--help`` was asked for.
    """
    tokens = _checked_tokens(parser, arguments)
    try:
        namespace = parser.parse_args(tokens)
    except (argparse.ArgumentError, TypeError, ValueError) as error:
        raise ConfigError(_one_line(parser, error)) from error
    return dict(namespace.items())


def _nested(options: Options, names: set[str]) -> dict[str, Any]:
    """Turn dotted options into nested plain data."""
    out: dict[str, Any] = {}
    for dotted in names & options.keys():
        *parents, leaf = dotted.split(".")
        level = out
        for parent in parents:
            level = level.setdefault(parent, {})
        level[leaf] = options[dotted]
    return out


def _merged(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(low)
    for name, value in high.items():
        below = out.get(name)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        out[name] = _merged(below, value) if both and below is not None else value
    return out


def build_config(
    config_type: type[_C], options: Options, *, omit: Mapping[str, str], base: Mapping[str, Any] | None = None
) -> _C:
    """Build the config of a command: defaults, under the file, under the command line.

    Args:
        config_type: class to build.
        options: as :func:`parse` returned them.
        omit: as in :func:`add_config_options`.
        base: a command's own starting values, below the file.

    Raises:
        ConfigError: an unknown name, a wrong value, or an omitted field; a fault of the file names the file.
    """
    given = _given(config_type, options, omit)
    return config_from_mapping(config_type, _merged(base or {}, given))


def given_settings(options: Options, *, omit: Mapping[str, str]) -> dict[str, Any]:
    """Return what file and command line set of a training's settings, as nested plain data under current names.

    Raises:
        ConfigError: as :func:`build_config`, but for values, which whoever takes the settings checks.
    """
    return _given(TrainingConfig, options, omit)


def _given(config_type: type[_C], options: Options, omit: Mapping[str, str]) -> dict[str, Any]:
    """The file's settings, under those of the command line."""
    prefix = "inference." if config_type is InferenceConfig else ""
    names = {name for name, *_ in _config_options(config_type, prefix)}
    given = _nested(options, names)
    layer: Mapping[str, Any] = {}
    if options.get("config"):
        path = Path(options["config"])
        layer = read_settings(path)
        try:
            layer = _file_layer(config_type, layer)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
        for name, advice in omit.items():
            if name in layer:
                raise ConfigError(f"{path}: '{name}' cannot be set here; {advice}.")
    if prefix:
        given = given.get("inference", {})
    return _merged(layer, given)


def _file_layer(config_type: type[_C], layer: Mapping[str, Any]) -> Mapping[str, Any]:
    """The file's settings under current names; a file for inference holds them under ``inference``."""
    if config_type is not InferenceConfig:
        return resolve_names(config_type, layer)
    others = set(layer) - {"inference"}
    if others:
        raise ConfigError(
            f"{', '.join(map(repr, sorted(map(str, others))))} has no effect on a trained model; "
            "only 'inference:' settings are allowed here."
        )
    inner = layer.get("inference") or {}
    if not isinstance(inner, Mapping):
        raise ConfigError("'inference' must hold 'name: value' settings.")
    return resolve_names(config_type, inner)
