"""Configs from plain data and back: strict names, old names, and options in the class that their engine declares."""

from __future__ import annotations

import dataclasses
import typing
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from .config import (
    EngineOptions,
    InferenceConfig,
    ModelConfig,
    PlainOptions,
    RefinementConfig,
    TrainingConfig,
    default_backend,
)
from .config_checks import shown
from .enginekit.architectures import GENERATORS
from .errors import ConfigError, suggest
from .runtime import Runtime

__all__ = [
    "config_from_mapping",
    "config_in",
    "config_to_mapping",
    "current_name",
    "resolve_names",
    "settings_from_mapping",
    "split_settings",
    "typed_options",
    "with_typed_options",
]

_T = TypeVar("_T", ModelConfig, InferenceConfig, RefinementConfig, TrainingConfig, EngineOptions, Runtime)

_RENAMED: dict[str, str] = {"nepochs": "epochs", "neighbor_count": "neighbor_pool_size"}
_REFUSED: dict[str, str] = {
    "n_images": (
        "it meant frames in some releases and groups in others; say n_subsample for the number of frames used, "
        "or n_groups for the number of groups made"
    ),
}
_OF_RUNTIME: dict[str, str] = {
    "inference.batch_size": "frames_at_once",
    "inference.accelerator": "accelerator",
    "inference.precision": "precision",
}
"""Old name of a setting of the config → the field of a Runtime that it is now."""


def settings_from_mapping(values: Mapping[str, Any], *, plain_options: bool = False) -> tuple[TrainingConfig, Runtime]:
    """Build a config and a runtime from one mapping of plain data, as a settings file holds them.

    Args:
        values: fields of a ``TrainingConfig`` and, beside them or under ``runtime``, those of a ``Runtime``.
        plain_options: see :func:`config_from_mapping`.

    Raises:
        ConfigError: as :func:`config_from_mapping`; or a field of the runtime is given twice.
        BackendError: as :func:`config_from_mapping`.
    """
    config, runtime = split_settings(values)
    return config_from_mapping(TrainingConfig, config, plain_options=plain_options), config_from_mapping(
        Runtime, runtime
    )


def split_settings(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part plain settings into those of a config and those of a runtime, each under its current names.

    Raises:
        ConfigError: a field of the runtime is given twice.
    """
    own = {f.name for f in dataclasses.fields(Runtime)}
    given = dict(values)
    inner = given.pop("runtime", None) or {}
    if not isinstance(inner, Mapping):
        raise ConfigError(f"runtime = {shown(inner)}; it must hold 'name: value' settings of {', '.join(sorted(own))}.")
    runtime: dict[str, Any] = dict(inner)

    def take(name: str, value: Any, said: str) -> None:
        if name in runtime:
            raise ConfigError(f"'{said}' is given twice, once as '{name}' of the runtime; keep one.")
        runtime[name] = value

    for name in own & given.keys():
        take(name, given.pop(name), name)
    inference = given.get("inference")
    if isinstance(inference, Mapping):
        rest = dict(inference)
        for old, name in _OF_RUNTIME.items():
            leaf = old.partition(".")[2]
            if leaf in rest:
                warnings.warn(f"'{old}' is deprecated; say '{name}'.", DeprecationWarning, stacklevel=3)
                value = rest.pop(leaf)
                if name in runtime and runtime[name] != value:
                    raise ConfigError(f"{name} = {shown(runtime[name])}, but {old} = {shown(value)}; keep one.")
                runtime[name] = value
        given["inference"] = rest
    return given, runtime


def current_name(dotted: str) -> str | None:
    """What an old dotted name of a setting is called now; None where it is no old name.

    Warns:
        DeprecationWarning: it is one.

    Raises:
        ConfigError: an old name that is refused, with advice.
    """
    parent, dot, leaf = dotted.rpartition(".")
    if leaf in _REFUSED:
        raise ConfigError(f"'{dotted}' is refused: {_REFUSED[leaf]}.")
    current = _OF_RUNTIME.get(dotted)
    if current is None and leaf in _RENAMED:
        current = f"{parent}{dot}{_RENAMED[leaf]}"
    if current is not None:
        warnings.warn(f"'{dotted}' is deprecated; say '{current}'.", DeprecationWarning, stacklevel=2)
    return current


def _names_in(config_type: type) -> list[str]:
    """Names that plain data of a config may hold; of a network the sizes of every generator that ships."""
    if config_type is ModelConfig:
        return list(dict.fromkeys(["generator", *(f.name for g in GENERATORS for f in dataclasses.fields(g.sizes))]))
    return [f.name for f in dataclasses.fields(config_type)]


def _field_hint(config_type: type, name: str) -> str:
    own = [f.name for f in dataclasses.fields(config_type)]
    nested = []
    hints = typing.get_type_hints(config_type)
    for f in dataclasses.fields(config_type):
        sub = config_in(hints[f.name])
        if sub is not None:
            inner = _names_in(sub)
            nested += [f"{f.name}.{leaf}" for leaf in inner]
            if name in inner:
                return f" Did you mean '{f.name}.{name}'?"
    others = [f.name for f in dataclasses.fields(Runtime)] if config_type is TrainingConfig else []
    return suggest(name, own + nested + others)


def _coerce(value: Any, annotation: Any, name: str) -> Any:
    """Turn plain YAML or JSON data into the field's type: lists to tuples, text to Path, mappings to configs."""
    inner = config_in(annotation)
    if inner is not None and isinstance(value, Mapping):
        return config_from_mapping(inner, value)
    if isinstance(value, list) and typing.get_origin(annotation) is tuple:
        return tuple(value)
    if isinstance(value, str) and Path in typing.get_args(annotation):
        return Path(value)
    return value


def config_in(annotation: Any) -> Any:
    """The config class that a field with this annotation holds, alone or beside None; None where it holds none."""
    options = (annotation, *typing.get_args(annotation))
    found = [option for option in options if isinstance(option, type) and dataclasses.is_dataclass(option)]
    return found[0] if found and typing.get_origin(annotation) is not tuple else None


def resolve_names(config_type: type[_T], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain data under the current names of the fields, so that layers of configuration can be merged.

    Args:
        config_type: one of the three config classes.
        values: field name → value; nested configs are mappings. Old names (``nepochs``, ``neighbor_count``) are
            accepted with a ``DeprecationWarning``.

    Raises:
        ConfigError: unknown field (the nearest names are suggested), a field given under two names, or a refused old
            name.
    """
    if config_type is ModelConfig:  # its sizes are its generator's, which says what it has
        return {str(name): value for name, value in values.items()}
    own = {field.name for field in dataclasses.fields(config_type)}  # of options, the engine's name is of the class
    hints = {name: hint for name, hint in typing.get_type_hints(config_type).items() if name in own}
    resolved: dict[str, Any] = {}
    for given, value in values.items():
        name = given
        if given in _REFUSED:
            raise ConfigError(f"{config_type.__name__}: '{given}' is refused: {_REFUSED[given]}.")
        if given in _RENAMED and _RENAMED[given] in hints:
            name = _RENAMED[given]
            warnings.warn(f"'{given}' is deprecated; say '{name}'.", DeprecationWarning, stacklevel=3)
        if name not in hints:
            if config_type is TrainingConfig and name in {f.name for f in dataclasses.fields(Runtime)}:
                raise ConfigError(
                    f"TrainingConfig has no field '{given}': it does not decide the result. Put it in a Runtime."
                )
            raise ConfigError(f"{config_type.__name__} has no field '{given}'.{_field_hint(config_type, str(given))}")
        if name in resolved:
            raise ConfigError(f"{config_type.__name__}: '{name}' is given twice, once under its old name.")
        inner = config_in(hints[name])
        resolved[name] = resolve_names(inner, value) if inner is not None and isinstance(value, Mapping) else value
    return resolved


def config_from_mapping(config_type: type[_T], values: Mapping[str, Any], *, plain_options: bool = False) -> _T:
    """Build a config from plain data, strictly; see :func:`resolve_names` for the names accepted.

    Args:
        config_type: one of the config classes.
        values: field name → value.
        plain_options: leave ``options`` as ``PlainOptions``, so that no engine's plugin is looked for.

    Raises:
        ConfigError: as :func:`resolve_names`, or a value of the wrong type or out of range.
        BackendError: the engine whose ``options`` are given is unknown or its plugin broken.
    """
    hints = typing.get_type_hints(config_type)
    resolved = resolve_names(config_type, values)
    if config_type is ModelConfig:
        if "self" in resolved:  # any name may be a size, and this one is taken
            raise ConfigError(f"model.self = {shown(resolved['self'])}: no generator has such a size; leave it out.")
        return config_type(**resolved)
    if config_type is TrainingConfig and isinstance(resolved.get("options"), Mapping):
        resolved["options"] = _plain_options(resolved) if plain_options else _typed_options(resolved)
    return config_type(**{name: _coerce(value, hints[name], name) for name, value in resolved.items()})


def _engines_of(values: Mapping[str, Any]) -> list[str]:
    """Engines that plain data name: the one that trains, and the one that refines."""
    refinement = values.get("refinement")
    refiner = refinement.get("engine") if isinstance(refinement, Mapping) else None
    if isinstance(refinement, RefinementConfig):
        refiner = refinement.engine
    named = values.get("backend", "auto")
    if named == "auto":
        named = default_backend(values.get("method") or ("solver" if values.get("model") is None else "network"))
    engines = [str(named)]
    return engines if refiner in (None, "auto", "none", *engines) else [*engines, str(refiner)]


def _plain_options(values: Mapping[str, Any]) -> tuple[EngineOptions, ...]:
    """``options`` of plain data, engine → settings, each still plain.

    Settings that stand there without the name of an engine are of the engine that trains, or of the one that refines
    where that is the only one of the two with settings of its own.

    Raises:
        ConfigError: they are no mapping.
    """
    options, engines = values["options"], _engines_of(values)
    by_engine = all(isinstance(settings, Mapping) for settings in options.values())
    if options and by_engine:
        return tuple(PlainOptions(engine=str(engine), values=dict(given)) for engine, given in options.items())
    settings = {name: value for name, value in options.items() if name != "engine"}
    if not options:
        return ()
    if "engine" in options:
        return (PlainOptions(engine=str(options["engine"]), values=settings),)
    from .plugins.registry import options_class

    for engine in engines[1:]:
        if options_class(engines[0]) is None and options_class(engine) is not None:
            return (PlainOptions(engine=engine, values=settings),)
    return (PlainOptions(engine=engines[0], values=settings),)


def _typed_options(values: Mapping[str, Any]) -> tuple[EngineOptions, ...]:
    return tuple(typed_options(options) for options in _plain_options(values))


def typed_options(options: EngineOptions) -> EngineOptions:
    """Bring plain options into the class that their engine declares; others are returned as they are.

    Raises:
        ConfigError: an engine without settings of its own, a setting that it does not have, or one of the wrong type
            or out of range.
        BackendError: the engine is unknown or its plugin broken.
    """
    if not isinstance(options, PlainOptions):
        return options
    from .plugins.registry import options_class

    declared = options_class(options.engine)
    if declared is None:
        raise ConfigError(f"options = {shown(dict(options.values))}: engine {options.engine!r} has none.")
    return config_from_mapping(declared, options.values)


def with_typed_options(config: TrainingConfig, engine: str | None = None) -> TrainingConfig:
    """Return a config whose plain options are in the class of their engine; call it where that engine is chosen.

    Args:
        config: any.
        engine: the engine chosen: options of another stay plain. None: every engine that the config names is chosen.

    Raises:
        ConfigError, BackendError: as :func:`typed_options`.
    """
    typed = tuple(typed_options(options) if engine in (None, options.engine) else options for options in config.options)
    return config if typed == config.options else dataclasses.replace(config, options=typed)


def config_to_mapping(
    config: ModelConfig | InferenceConfig | RefinementConfig | TrainingConfig,
) -> dict[str, Any]:
    """Return a config as plain JSON data.

    ``config_from_mapping`` is its inverse; where ``options`` are plain, with ``plain_options=True``.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return str(value)
        if isinstance(value, Mapping):
            return {k: plain(v) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value

    if isinstance(config, ModelConfig):
        return {"generator": config.generator, **plain(config.sizes.plain())}
    mapping = {k: plain(v) for k, v in dataclasses.asdict(config).items()}
    if isinstance(config, TrainingConfig):
        mapping["model"] = None if config.model is None else config_to_mapping(config.model)
        mapping["options"] = {
            options.engine: plain(options.values if isinstance(options, PlainOptions) else dataclasses.asdict(options))
            for options in config.options
        }
    return mapping
