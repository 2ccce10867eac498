"""Every config field is honoured by the chosen engine or refused before data are read (specs/30-backend-protocol).

``Capabilities`` are plain values, so one function compares them with a config for every engine. A field that an
engine lists as ignored may keep its default, because then nobody asked for anything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from ..config import InferenceConfig, ModelConfig, RefinementConfig, TrainingConfig
from ..data.raw import RawData
from ..errors import BackendProtocolError, ConfigError, suggest
from ..protocol import Capabilities

__all__ = [
    "check_capabilities",
    "check_inference_capabilities",
    "check_refinement_capabilities",
    "check_scan_capabilities",
]


def _value(config: Any, field: str) -> Any:
    for part in field.split("."):
        config = getattr(config, part)
    return config


def _field_names() -> set[str]:
    nested = {"model": ModelConfig, "inference": InferenceConfig, "refinement": RefinementConfig}
    names = {f.name for f in dataclasses.fields(TrainingConfig)} - nested.keys()
    return names | {
        f"{group}.{f.name}" for group, config_type in nested.items() for f in dataclasses.fields(config_type)
    }


def _ignored(capabilities: Capabilities, engine_name: str) -> set[str]:
    """Fields without effect: those the engine lists, and for a solver the whole network.

    An engine that draws nothing lists ``seed``; it is accepted all the same, since core draws the held-out frames by
    it.
    """
    known = _field_names()
    unknown = [name for name in capabilities.ignored_fields if name not in known]
    if unknown:
        raise BackendProtocolError(
            f"engine '{engine_name}': capabilities.ignored_fields names {unknown[0]!r}, which is no config field."
            f"{suggest(unknown[0], known)}"
        )
    solver = set() if capabilities.generators else {f"model.{f.name}" for f in dataclasses.fields(ModelConfig)}
    return (set(capabilities.ignored_fields) | solver) - {"seed"}


def _refuse(engine_name: str, field: str, given: Any, allowed: str) -> ConfigError:
    return ConfigError(f"engine '{engine_name}': {field} = {given!r} is not supported; allowed: {allowed}.")


def _check_ignored(config: TrainingConfig, fields: Iterable[str], engine_name: str) -> None:
    default = TrainingConfig()
    for field in sorted(fields):
        given, neutral = _value(config, field), _value(default, field)
        if given != neutral:
            raise ConfigError(
                f"engine '{engine_name}': {field} = {given!r} has no effect in this engine; allowed: leave it at its "
                f"default {neutral!r}."
            )


def _check_words(
    config: TrainingConfig, words: dict[str, tuple[str, ...]], ignored: set[str], engine_name: str
) -> None:
    """Check fields that name one of the engine's words."""
    for field, allowed in words.items():
        given = _value(config, field)
        if field not in ignored and given not in allowed:
            raise ConfigError(
                f"engine '{engine_name}': {field} = {given!r} is not supported; "
                f"allowed: {', '.join(allowed) or 'none'}.{suggest(given, allowed)}"
            )


def check_capabilities(config: TrainingConfig, capabilities: Capabilities, engine_name: str) -> None:
    """Compare a config with what an engine can do.

    Args:
        config: as given by the caller.
        capabilities: of the chosen engine.
        engine_name: for the message.

    Raises:
        ConfigError: a field asks for what the engine cannot do, or has no effect in it; the message names engine,
            field, what was given and what is allowed.
        BackendProtocolError: the capabilities name a field that does not exist.
    """
    ignored = _ignored(capabilities, engine_name)
    _check_ignored(config, ignored, engine_name)
    words = {
        "model.generator": capabilities.generators,
        "loss": capabilities.losses,
        "schedule": capabilities.schedules,
        "precision": capabilities.precisions,
        "accelerator": capabilities.accelerators,
        "inference.precision": capabilities.precisions,
        "inference.accelerator": capabilities.accelerators,
    }
    _check_words(config, words, ignored, engine_name)
    for logger in config.loggers:
        if logger not in capabilities.loggers:
            raise _refuse(engine_name, "loggers", logger, ", ".join(capabilities.loggers) or "none")
    if config.probe_trainable and not capabilities.probe_trainable:
        raise _refuse(engine_name, "probe_trainable", True, "False")
    if config.scale_trainable and not capabilities.scale_trainable:
        raise _refuse(engine_name, "scale_trainable", True, "False")
    if config.resume_from is not None and not capabilities.resume:
        raise _refuse(engine_name, "resume_from", str(config.resume_from), "None; this engine cannot resume")
    if config.probe_modes is not None and config.probe_modes > (capabilities.max_modes or config.probe_modes):
        raise _refuse(engine_name, "probe_modes", config.probe_modes, f"at most {capabilities.max_modes}")
    if config.devices > (capabilities.max_devices or config.devices):
        raise _refuse(engine_name, "devices", config.devices, f"at most {capabilities.max_devices}")
    if config.refinement.engine == "auto":
        if capabilities.refine:
            check_refinement_capabilities(config, capabilities, engine_name)
        elif config.refinement != RefinementConfig():
            raise ConfigError(
                f"engine '{engine_name}' cannot refine an image, so refinement settings have no effect; name an engine "
                "that can in refinement.engine, or leave them at their defaults."
            )


def check_refinement_capabilities(config: TrainingConfig, capabilities: Capabilities, engine_name: str) -> None:
    """Compare how an image is to be refined with what the engine that refines it can do.

    Raises:
        ConfigError: the engine cannot refine, or not this.
    """
    plan = config.refinement
    if not capabilities.refine:
        raise _refuse(engine_name, "refinement.engine", plan.engine, "an engine that refines; this one does not")
    ignored = {field for field in _ignored(capabilities, engine_name) if field.startswith("refinement.")}
    _check_ignored(config, ignored, engine_name)
    if plan.positions and not capabilities.refine_positions:
        raise _refuse(engine_name, "refinement.positions", True, "False")
    if plan.loss is not None and plan.loss not in capabilities.losses:
        raise _refuse(engine_name, "refinement.loss", plan.loss, ", ".join(capabilities.losses))
    if plan.probe_modes is not None and plan.probe_modes > (capabilities.max_modes or plan.probe_modes):
        raise _refuse(engine_name, "refinement.probe_modes", plan.probe_modes, f"at most {capabilities.max_modes}")


def check_inference_capabilities(config: InferenceConfig, capabilities: Capabilities, engine_name: str) -> None:
    """Compare an inference config with what an engine can do; errors as :func:`check_capabilities`."""
    ignored = {field for field in _ignored(capabilities, engine_name) if field.startswith("inference.")}
    if config.passes is not None and "unrolled" not in capabilities.generators:
        raise _refuse(engine_name, "inference.passes", config.passes, "None; this engine has no generator that passes")
    # the generator for which every one of these fields has an effect; whether the model is one, the engine says
    whole = TrainingConfig(model=ModelConfig(generator="unrolled"), inference=config)
    _check_ignored(whole, ignored, engine_name)
    words = {"inference.precision": capabilities.precisions, "inference.accelerator": capabilities.accelerators}
    _check_words(whole, words, ignored, engine_name)


def check_scan_capabilities(raw: RawData, capabilities: Capabilities, engine_name: str) -> None:
    """Refuse a scan with something in it that the engine would leave out of its model without a word.

    Raises:
        ConfigError: bad pixels, a background or more probe modes than the engine takes.
    """
    name = raw.source.path or "scan"
    if raw.mask is not None and not raw.mask.all() and not capabilities.mask:
        n_bad = int((~raw.mask).sum())
        raise ConfigError(
            f"engine '{engine_name}' cannot leave bad pixels out, and {name} has a mask with {n_bad} of them; "
            "choose an engine that can, or give the scan without the mask."
        )
    if raw.background is not None and raw.background.any() and not capabilities.background:
        raise ConfigError(
            f"engine '{engine_name}' has no background in its model, and {name} brings one; choose an engine that "
            "has, or give the scan without it."
        )
    n_modes = 1 if raw.probe is None else len(raw.probe)
    if capabilities.max_modes is not None and n_modes > capabilities.max_modes:
        raise ConfigError(
            f"engine '{engine_name}' takes at most {capabilities.max_modes} probe modes, and the probe of {name} has "
            f"{n_modes}; set probe_modes = {capabilities.max_modes} to keep the strongest."
        )
