"""The settings of a command: default < preset < file < command line, and the config and runtime that they make."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import InferenceConfig, RefinementConfig, TrainingConfig
from ..config_checks import shown
from ..config_mapping import config_from_mapping, resolve_names, settings_from_mapping, split_settings
from ..errors import ConfigError, suggest
from ..io.settings_text import APPLY, READING
from ..limits import Limits
from ..presets import PRESETS, preset
from ..runtime import Runtime
from .engine_choice import with_engine
from .fields import fields_of
from .options import Options, Parser, merged
from .reading_options import PROBE_AND_FINDINGS, limits_given
from .reading_options import READING as READING_OPTIONS
from .session import Session
from .settings_file import read_settings

__all__ = [
    "OMIT",
    "add_config_options",
    "add_field_options",
    "add_inference_options",
    "build_inference",
    "build_refinement",
    "build_settings",
    "given_fields",
    "given_settings",
    "reading_given",
    "with_reading",
]

OMIT = {"output_dir": "the folder is chosen with --out"}
"""Settings that the commands decide themselves → what to say when one is given in a file."""

_OF_TRAINING = {
    **OMIT,
    "resume_from": "a trained model is applied, and there is nothing to go on from",
    "loggers": "trackers follow a training",
}
"""The same of a command that only applies a model."""

_CONFIG: dict[str, dict[str, Any]] = {
    "--config": {"metavar": "FILE", "help": "file with settings; YAML or JSON, such as the settings.yaml of a run"}
}
_LAYERS = "settings of the result (a preset goes before defaults, --config before both, the command line before all)"
_WORK = "settings of the machine"


def add_config_options(parser: Parser, *, omit: Mapping[str, str] = OMIT, presets: bool = True) -> None:
    """Add ``--config``, ``--preset``, and an option for every field of a training's config and of a runtime."""
    own: dict[str, dict[str, Any]] = {
        "--preset": {
            "choices": list(PRESETS),
            "help": "an image in seconds, or the best one in its own time",
        }
    }
    parser.add_group("settings from elsewhere", {**_CONFIG, **(own if presets else {})})
    parser.add_settings(_LAYERS, TrainingConfig, omit=omit)
    parser.add_settings(_WORK, Runtime, omit=omit)


def add_inference_options(parser: Parser) -> None:
    """Add ``--config``, and an option for every field that says how a trained model is applied, and by what."""
    parser.add_group("settings from elsewhere", _CONFIG)
    parser.add_settings(
        "settings of applying the model (--config goes before its own, the command line before both)",
        InferenceConfig,
        prefix="inference.",
    )
    parser.add_settings("settings of refining, with --refine", RefinementConfig, prefix="refinement.")
    parser.add_settings(_WORK, Runtime, omit=_OF_TRAINING)


def add_field_options(parser: Parser, config_type: type) -> None:
    """Add ``--config``, and an option for every field of a flat dataclass whose docstring lists its attributes."""
    parser.add_group("settings from elsewhere", _CONFIG)
    parser.add_settings("settings (--config goes before defaults, the command line before both)", config_type)


def given_fields(config_type: type, options: Options) -> dict[str, Any]:
    """Return what file and command line set of a flat dataclass, the command line on top.

    Raises:
        ConfigError: the file cannot be read or holds an unknown name.
    """
    names = {field.name for field in fields_of(config_type)}
    layer: dict[str, Any] = {}
    if options["config"]:
        layer = read_settings(Path(options["config"]))
        for name in layer:
            if name not in names:
                raise ConfigError(f"{options['config']}: no setting {name!r}.{suggest(str(name), names)}")
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in {**layer, **options["settings"]}.items()
    }


_TRUST = ("no_guard", "allow_external")
"""Options of reading by which a user trusts a file: settings may have been mailed together with it."""


def with_reading(options: Options) -> Options:
    """The options with what ``reading`` in the file of ``--config`` says of the scan, below the command line.

    Raises:
        ConfigError: it names the file; an option of reading that there is not, or a value that it cannot have.
    """
    if not options["config"]:
        return options
    path = Path(options["config"])
    said = read_settings(path).get(READING) or {}
    known = {name[2:]: how for group in READING_OPTIONS.values() for name, how in group.items()}
    known |= {name[2:]: how for name, how in PROBE_AND_FINDINGS.items()}
    if not isinstance(said, Mapping):
        raise ConfigError(f"{path}: '{READING}' must hold 'name: value' of the options that say how a scan is read.")
    found: Options = {}
    for name, value in said.items():
        if name not in known:
            raise ConfigError(f"{path}: {READING} has no option {name!r}.{suggest(str(name), known)}")
        if name in _TRUST and value and not options.get(name):
            raise ConfigError(
                f"{path}: {READING}.{name} is to trust the file of the scan, which another file cannot say for you; "
                f"give --{name} on the command line too, if you do."
            )
        found[name] = _as_given(value, known[name], f"{path}: {READING}.{name}")
        if name.startswith("max_") and options.get(name) is None and _allows_more(name, found[name]):
            raise ConfigError(
                f"{path}: {READING}.{name} = {shown(value)} lets the file of the scan cost more than usual, which "
                f"another file cannot allow for you; give --{name} {found[name]} on the command line too, if you do."
            )
    given = {name: value for name, value in options.items() if value is not None and value is not False}
    return {**options, **found, **given}


def _allows_more(name: str, value: Any) -> bool:
    """Whether an option of what reading may cost allows more than what is usual."""
    said, usual = (dataclasses.astuple(limits) for limits in (limits_given({name: value}), Limits()))
    return any(one > other for one, other in zip(said, usual, strict=True))


def _as_given(value: Any, how: Mapping[str, Any], where: str) -> Any:
    """A value of a file as a command line has it."""
    if how.get("action") == "store_true":
        if not isinstance(value, bool):
            raise ConfigError(f"{where} = {shown(value)}; it must be true or false.")
        return value
    if isinstance(value, (list, tuple)):
        value = ",".join(map(str, value))
    if isinstance(value, (bool, Mapping)) or value is None:
        raise ConfigError(f"{where} = {shown(value)}; it must be a text or a number, or left out.")
    text, choices = str(value), how.get("choices")
    if choices is not None and text not in choices:
        raise ConfigError(f"{where} = {shown(text)}; allowed: {', '.join(choices)}.{suggest(text, choices)}")
    return text


def reading_given(options: Options) -> dict[str, Any]:
    """How the scan of a command is read, as far as it was said: option → plain value."""
    names = [name[2:] for group in (*READING_OPTIONS.values(), PROBE_AND_FINDINGS) for name in group]
    return {name: options[name] for name in names if options.get(name) not in (None, False)}


def given_settings(options: Options, *, omit: Mapping[str, str] = OMIT) -> dict[str, Any]:
    """Return what file and command line set of a training and what does its work, as nested plain data.

    Raises:
        ConfigError: an unknown name, or one that the command decides itself; a fault of the file names the file.
    """
    return _over(_file_layer(options, omit), _current(options["settings"]))


def build_settings(options: Options, session: Session, *, method: str | None = None) -> tuple[TrainingConfig, Runtime]:
    """Build the config and the runtime of a command, and say which engine it is and why.

    Args:
        options: as ``options.parse`` returned them.
        session: told of an engine that was chosen.
        method: what the command does where nothing says so; None leaves it to the config.

    Raises:
        ConfigError: an unknown name, a wrong value, or an omitted field; a fault of the file names the file.
        BackendUnavailableError: no engine is named, and none is installed.
    """
    given = given_settings(options)
    if method is not None and given.get("method") is None and given.get("model") is None:
        given["method"] = method
    if options["preset"] is not None:
        given = _over(preset(options["preset"], given), given)
    given, said = with_engine(given)
    config, runtime = settings_from_mapping(given)
    session.say(f"engine    {said}")
    return config, runtime


def build_inference(options: Options, model: InferenceConfig) -> tuple[InferenceConfig, Runtime]:
    """Build how a trained model is applied: as it was trained to be, under the file, under the command line.

    Raises:
        ConfigError: as :func:`build_settings`; or a setting that has no effect on a trained model.
    """
    given = given_settings(options, omit=_OF_TRAINING)
    inference, runtime = split_settings(given)
    own = inference.pop("inference", None) or {}
    inference.pop("refinement", None)  # see build_refinement
    if inference:
        raise ConfigError(
            f"{options['config']}: {', '.join(map(repr, sorted(inference)))} has no effect on a trained model; only "
            f"'{APPLY}:', 'inference:', 'refinement:', '{READING}:' and 'runtime:' settings are allowed here."
        )
    if not isinstance(own, Mapping):
        raise ConfigError(f"{options['config']}: 'inference' must hold 'name: value' settings.")
    changed = config_from_mapping(InferenceConfig, {**dataclasses.asdict(model), **own})
    return changed, config_from_mapping(Runtime, runtime)


def build_refinement(options: Options, trained: RefinementConfig) -> RefinementConfig | None:
    """How the image of a trained model is refined: as the model says, under the file, under the command line.

    Args:
        options: with ``--refine`` in its long form.
        trained: of the model.

    Returns:
        None where ``--refine`` is not given, or says none.

    Raises:
        ConfigError: as :func:`build_settings`; or settings of refining without ``--refine``.
    """
    given = given_settings(options, omit=_OF_TRAINING).get("refinement") or {}
    if not isinstance(given, Mapping):
        raise ConfigError(f"{options['config']}: 'refinement' must hold 'name: value' settings.")
    engine = given.get("engine")
    if engine in (None, "none"):
        said = sorted(set(options["settings"].get("refinement", {})) - {"engine"})
        if said:
            raise ConfigError(
                f"--refinement.{said[0]} has no effect without --refine ENGINE; give it, or leave it out."
            )
        return None
    own = {} if trained.engine == "none" else dataclasses.asdict(trained)
    return config_from_mapping(RefinementConfig, {**own, **given})


def _current(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain settings under their current names, those of a runtime beside the others."""
    config, runtime = split_settings(values)
    return {**resolve_names(TrainingConfig, config), **resolve_names(Runtime, runtime)}


def _file_layer(options: Options, omit: Mapping[str, str]) -> dict[str, Any]:
    """The settings of ``--config``.

    Raises:
        ConfigError: it names the file.
    """
    if not options["config"]:
        return {}
    path = Path(options["config"])
    content = read_settings(path)
    if READING in content:
        content = {name: value for name, value in content.items() if name != READING}
        if "measurement" not in options:
            raise ConfigError(f"{path}: '{READING}' has no effect here: this command reads no scan.")
    if APPLY in content:
        content = {name: value for name, value in content.items() if name != APPLY}
        if "same_scan" not in options:
            raise ConfigError(f"{path}: '{APPLY}' has no effect here: the file is for 'ptycho reconstruct'.")
    try:
        layer = _current(content)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    for name, advice in omit.items():
        if name in layer:
            raise ConfigError(f"{path}: '{name}' cannot be set here; {advice}.")
    return layer


def _over(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Two layers of settings, the second on top.

    Raises:
        ConfigError: one names the engine of its options, and the other does not.
    """
    kinds = {
        all(isinstance(value, Mapping) for value in options.values())
        for options in (low.get("options"), high.get("options"))
        if isinstance(options, Mapping) and options
    }
    if len(kinds) == 2:
        raise ConfigError(
            "options are given with the name of their engine in one place, and without in another; name it in both: "
            'options = {"ENGINE": {"SETTING": …}}.'
        )
    return merged(low, high)
