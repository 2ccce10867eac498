"""``ptycho settings``: every setting with its default and its meaning, as a file that ``--config`` takes as it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..config import ModelConfig, TrainingConfig
from ..config_mapping import config_to_mapping, settings_from_mapping, typed_options
from ..io.settings_text import READING, comment, meanings, settings_lines
from ..plugins.generators import with_typed_model
from ..plugins.registry import options_class
from ..presets import preset
from ..runtime import Runtime
from .options import Options, Parser, make_parser, merged
from .reading_options import PROBE_AND_FINDINGS
from .reading_options import READING as READING_OPTIONS
from .session import Session
from .settings import OMIT, add_config_options, given_settings

__all__ = ["build_parser", "execute"]

_SUMMARY = """\
Print all settings with their defaults and their meaning, as a file that --config takes as it is. With --backend the
file has that engine's own options too; with --preset it holds what the preset sets. Any other setting that is given is
in the file.

  ptycho settings --backend ptychi > settings.yaml
  ptycho run scan.npz --config settings.yaml

Every run leaves the settings that decided its result in settings.yaml of its folder."""
EXAMPLE = "ptycho settings --preset best"


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = make_parser("settings", "", _SUMMARY, EXAMPLE)
    add_config_options(parser)
    return parser


def _defaults(config_type: type, omit: Mapping[str, str] = OMIT) -> dict[str, Any]:
    """Field → its default as plain data; parts are nested."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config_type):
        if field.name in omit or field.name in ("model", "options"):
            continue
        if field.default_factory is not dataclasses.MISSING:
            found[field.name] = _defaults(field.default_factory)  # type: ignore[arg-type]
        else:
            found[field.name] = list(field.default) if isinstance(field.default, tuple) else field.default
    return found


def execute(options: Options, session: Session) -> int:
    """Print."""
    given = given_settings(options)
    if options["preset"] is not None:
        given = merged(preset(options["preset"], given), given)
    config, _ = settings_from_mapping(given)  # refuses what no run would take
    config = with_typed_model(config) if config.model is not None else config
    names = [f.name for f in dataclasses.fields(Runtime)]
    runtime = {name: given.pop(name) for name in names if name in given}
    values = merged(_defaults(TrainingConfig), given)
    kinds = {name: kind for name in _engines(config) if (kind := options_class(name)) is not None}
    own = {o.engine: dataclasses.asdict(typed_options(o)) for o in config.options}
    values["options"] = {name: {**dataclasses.asdict(kind()), **own.get(name, {})} for name, kind in kinds.items()}
    if config.model is not None:
        values["model"] = config_to_mapping(config.model)
    values["runtime"] = merged(_defaults(Runtime), runtime)
    sizes = None if config.model is None else type(config.model.sizes)
    said = meanings(sizes, tuple(kinds.values()))
    session.say("\n".join([*_head(), *settings_lines(values, said), *_network(config), *_reading()]))
    return 0


def _engines(config: TrainingConfig) -> list[str]:
    """Engines whose own options belong into the file: those that the settings name."""
    named = [config.backend, config.refinement.engine]
    return [name for name in dict.fromkeys(named) if name not in ("auto", "none")]


def _head() -> list[str]:
    return [
        *comment("All settings, for --config. What is left out of the file stands at its default."),
        *comment("A value on the command line goes before one in the file: --refinement.epochs 80."),
        "",
    ]


def _network(config: TrainingConfig) -> list[str]:
    """How a network is described, as comment, where there is none."""
    if config.model is not None:
        return []
    model = ModelConfig()
    said = meanings(type(model.sizes))["model"]
    lines = settings_lines({"model": config_to_mapping(model)}, {"model": said})
    return ["", *comment("The network, with method: network:"), *(f"# {line}" for line in lines)]


def _reading() -> list[str]:
    """How a scan is read, as comment: the names of options and what they mean."""
    lines = ["", *comment("How the scan is read; the options of 'ptycho run', without dashes:"), f"# {READING}:"]
    for group in (*READING_OPTIONS.values(), PROBE_AND_FINDINGS):
        for name, how in group.items():
            value = "true" if how.get("action") == "store_true" else how.get("metavar") or "|".join(how["choices"])
            text = f"{name[2:]}: {value}"
            lines += [f"#   {text}", *(f"#     {line}" for line in comment(how["help"].replace("%%", "%")))]
    return lines
