"""Configs from plain data and back: strict names, old names, and options in the class that their engine declares."""

from __future__ import annotations

import dataclasses
import typing
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from .config import EngineOptions, InferenceConfig, ModelConfig, PlainOptions, RefinementConfig, TrainingConfig
from .errors import ConfigError, suggest

__all__ = ["config_from_mapping", "config_to_mapping", "resolve_names", "typed_options", "with_typed_options"]

_T = TypeVar("_T", ModelConfig, InferenceConfig, RefinementConfig, TrainingConfig, EngineOptions)

_RENAMED: dict[str, str] = {"nepochs": "epochs", "neighbor_count": "neighbor_pool_size"}
_REFUSED: dict[str, str] = {
    "n_images": (
        "it meant frames in some releases and groups in others; say n_subsample for the number of frames used, "
        "or n_groups for the number of groups made"
    ),
}


def _field_hint(config_type: type, name: str) -> str:
    own = [f.name for f in dataclasses.fields(config_type)]
    nested = []
    for f in dataclasses.fields(config_type):
        sub = typing.get_type_hints(config_type)[f.name]
        if dataclasses.is_dataclass(sub):
            nested += [f"{f.name}.{g.name}" for g in dataclasses.fields(sub)]
            if name in {g.name for g in dataclasses.fields(sub)}:
                return f" Did you mean '{f.name}.{name}'?"
    return suggest(name, own + nested)


def _coerce(value: Any, annotation: Any, name: str) -> Any:
    """Turn plain YAML or JSON data into the field's type: lists to tuples, text to Path, mappings to configs."""
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        if isinstance(value, Mapping):
            return config_from_mapping(annotation, value)  # type: ignore[type-var]
        return value
    if isinstance(value, list) and typing.get_origin(annotation) is tuple:
        return tuple(value)
    if isinstance(value, str) and Path in typing.get_args(annotation):
        return Path(value)
    return value


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
    hints = typing.get_type_hints(config_type)
    resolved: dict[str, Any] = {}
    for given, value in values.items():
        name = given
        if given in _REFUSED:
            raise ConfigError(f"{config_type.__name__}: '{given}' is refused: {_REFUSED[given]}.")
        if given in _RENAMED and _RENAMED[given] in hints:
            name = _RENAMED[given]
            warnings.warn(f"'{given}' is deprecated; say '{name}'.", DeprecationWarning, stacklevel=3)
        if name not in hints:
            raise ConfigError(f"{config_type.__name__} has no field '{given}'.{_field_hint(config_type, str(given))}")
        if name in resolved:
            raise ConfigError(f"{config_type.__name__}: '{name}' is given twice, once under its old name.")
        nested = dataclasses.is_dataclass(hints[name]) and isinstance(value, Mapping)
        resolved[name] = resolve_names(hints[name], value) if nested else value
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
    if isinstance(resolved.get("options"), Mapping):
        resolved["options"] = _plain_options(resolved) if plain_options else _typed_options(resolved)
    return config_type(**{name: _coerce(value, hints[name], name) for name, value in resolved.items()})


def _engines_of(values: Mapping[str, Any]) -> list[str]:
    """Engines whose ``options`` plain data can hold: the one that they name, or the ones named beside them."""
    if "engine" in values["options"]:
        return [str(values["options"]["engine"])]
    refinement = values.get("refinement")
    refiner = refinement.get("engine") if isinstance(refinement, Mapping) else None
    if isinstance(refinement, RefinementConfig):
        refiner = refinement.engine
    engines = [str(values.get("backend", TrainingConfig.backend))]
    return engines if refiner in (None, "auto", "none") else [*engines, str(refiner)]


def _plain_options(values: Mapping[str, Any]) -> PlainOptions:
    settings = {name: value for name, value in values["options"].items() if name != "engine"}
    return PlainOptions(engine=_engines_of(values)[0], values=settings)


def _typed_options(values: Mapping[str, Any]) -> EngineOptions:
    """Turn plain ``options`` into the class that an engine declares, the first that declares one.

    Raises:
        ConfigError: no such engine has settings of its own; or as :func:`config_from_mapping`.
        BackendError: the engine is unknown or its plugin broken.
    """
    from .plugins.registry import options_class

    engines = _engines_of(values)
    settings = {name: value for name, value in values["options"].items() if name != "engine"}
    for engine in engines:
        declared = options_class(engine)
        if declared is not None:
            return config_from_mapping(declared, settings)
    raise ConfigError(f"options = {settings!r}: engine {' or '.join(map(repr, engines))} has none.")


def typed_options(options: EngineOptions | None) -> EngineOptions | None:
    """Bring plain options into the class that their engine declares; others are returned as they are.

    Raises:
        ConfigError: a setting that the engine does not have, or of the wrong type or out of range.
        BackendError: the engine is unknown or its plugin broken.
    """
    if not isinstance(options, PlainOptions):
        return options
    return _typed_options({"options": {"engine": options.engine, **options.values}})


def with_typed_options(config: TrainingConfig, engine: str | None = None) -> TrainingConfig:
    """Return a config whose plain options are in the class of their engine; call it where that engine is chosen.

    Args:
        config: any.
        engine: the engine chosen: options of another stay plain. None: every engine that the config names is chosen.

    Raises:
        ConfigError, BackendError: as :func:`typed_options`.
    """
    options = config.options
    if not isinstance(options, PlainOptions) or engine not in (None, options.engine):
        return config
    return dataclasses.replace(config, options=typed_options(options))


def config_to_mapping(config: ModelConfig | InferenceConfig | RefinementConfig | TrainingConfig) -> dict[str, Any]:
    """Return a config as plain JSON data.

    ``config_from_mapping`` is its inverse; where ``options`` are plain, with ``plain_options=True``.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return str(value)
        if isinstance(value, Mapping):
            return {k: plain(v) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value

    mapping = {k: plain(v) for k, v in dataclasses.asdict(config).items()}
    if isinstance(config, TrainingConfig) and config.options is not None:
        settings = mapping["options"]["values"] if isinstance(config.options, PlainOptions) else mapping["options"]
        mapping["options"] = {"engine": config.options.engine, **settings}
    return mapping
