"""Every config field is honoured by the chosen engine or refused before data are read (specs/30-backend-protocol).

``Capabilities`` are plain values, so one function compares them with a config for every engine. A field that an
engine lists as ignored may keep its default, because then nobody asked for anything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from ..config import InferenceConfig, RefinementConfig, TrainingConfig
from ..data.raw import RawData
from ..enginekit.architectures import GENERATORS
from ..errors import BackendProtocolError, ConfigError, suggest
from ..protocol import OPTIMISER_FIELDS, Capabilities
from ..runtime import Runtime

__all__ = [
    "check_capabilities",
    "check_inference_capabilities",
    "check_refinement_capabilities",
    "check_runtime_capabilities",
    "check_scan_capabilities",
]


_NETWORK_ONLY = (
    *(field for field in OPTIMISER_FIELDS if field != "batch_size"),
    "scale_trainable",
    "inference.passes",
)
"""Fields without effect where an image is solved by the descent of core."""


def _value(config: TrainingConfig, runtime: Runtime, field: str) -> Any:
    found: Any = config
    for part in field.split("."):
        found = runtime if part == "runtime" else getattr(found, part)
    return found


def _field_names() -> set[str]:
    nested = {"inference": InferenceConfig, "refinement": RefinementConfig, "runtime": Runtime}
    names = {f.name for f in dataclasses.fields(TrainingConfig)} - {"inference", "refinement"}
    return names | {
        f"{group}.{f.name}" for group, config_type in nested.items() for f in dataclasses.fields(config_type)
    }


def _ignored(capabilities: Capabilities, engine_name: str, config: TrainingConfig | None = None) -> set[str]:
    """Fields without effect: those the engine lists, and where it solves by steps all that only networks have.

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
    ignored = set(capabilities.ignored_fields)
    if config is not None and config.method == "solver" and capabilities.stepping:
        ignored |= set(_NETWORK_ONLY)
    if not capabilities.threads:
        ignored.add("runtime.threads")
    if config is not None and not _steps(config, capabilities, engine_name):
        ignored.add("algorithm")
    return ignored - {"seed"}


def _steps(config: TrainingConfig, capabilities: Capabilities, engine_name: str) -> bool:
    """Whether steps of core's descent are made by a config, as far as one engine's capabilities tell."""
    if config.refinement.engine not in ("auto", "none", engine_name):
        return True  # what the other engine does is asked of it
    return capabilities.stepping and (config.method == "solver" or config.refinement.engine != "none")


def _refuse(engine_name: str, field: str, given: Any, allowed: str) -> ConfigError:
    return ConfigError(f"engine '{engine_name}': {field} = {given!r} is not supported; allowed: {allowed}.")


def _check_ignored(config: TrainingConfig, runtime: Runtime, fields: Iterable[str], engine_name: str) -> None:
    default, plain = TrainingConfig(method=config.method), Runtime()
    for field in sorted(fields):
        given, neutral = _value(config, runtime, field), _value(default, plain, field)
        if given != neutral:
            raise ConfigError(
                f"engine '{engine_name}': {field} = {given!r} has no effect in this engine; leave it out "
                f"(default {neutral!r})."
            )


def _check_words(
    config: TrainingConfig,
    runtime: Runtime,
    words: dict[str, tuple[str, ...]],
    ignored: set[str],
    engine_name: str,
) -> None:
    """Check fields that name one of the engine's words; None names none."""
    for field, allowed in words.items():
        given = _value(config, runtime, field)
        if field not in ignored and given is not None and given not in allowed:
            raise ConfigError(
                f"engine '{engine_name}': {field.removeprefix('runtime.')} = {given!r} is not supported; "
                f"allowed: {', '.join(allowed) or 'none'}.{suggest(given, allowed)}"
            )


def check_capabilities(
    config: TrainingConfig, capabilities: Capabilities, engine_name: str, runtime: Runtime | None = None
) -> None:
    """Compare a config with what an engine can do.

    Args:
        config: as given by the caller.
        capabilities: of the chosen engine.
        engine_name: for the message.
        runtime: as given by the caller; None is the default one.

    Raises:
        ConfigError: a field asks for what the engine cannot do, or has no effect in it; the message names engine,
            field, what was given and what is allowed.
        BackendProtocolError: the capabilities name a field that does not exist.
    """
    runtime = runtime or Runtime()
    ignored = _ignored(capabilities, engine_name, config)
    _check_words(config, runtime, {"method": capabilities.methods}, ignored, engine_name)
    if config.model is not None and config.model.generator not in capabilities.generators:
        allowed = ", ".join(capabilities.generators) or "none"
        hint = suggest(config.model.generator, capabilities.generators)
        raise ConfigError(
            f"engine '{engine_name}': model.generator = {config.model.generator!r} is not supported; allowed "
            f"architectures: {allowed}.{hint}"
        )
    _check_ignored(config, runtime, ignored, engine_name)
    words = {"loss": capabilities.losses, "schedule": capabilities.schedules}
    _check_words(config, runtime, words, ignored, engine_name)
    check_runtime_capabilities(runtime, capabilities, engine_name)
    if config.method == "solver" and capabilities.stepping:
        _check_solver_runtime(runtime, engine_name)
    if config.probe_trainable and not capabilities.probe_trainable:
        raise _refuse(engine_name, "probe_trainable", True, "False")
    if config.scale_trainable and not capabilities.scale_trainable:
        raise _refuse(engine_name, "scale_trainable", True, "False")
    if config.probe_modes is not None and config.probe_modes > (capabilities.max_modes or config.probe_modes):
        raise _refuse(engine_name, "probe_modes", config.probe_modes, f"at most {capabilities.max_modes}")
    if config.refinement.engine == "auto":
        if capabilities.refine or capabilities.stepping:
            check_refinement_capabilities(config, capabilities, engine_name)
        elif config.refinement != RefinementConfig():
            raise ConfigError(
                f"engine '{engine_name}' cannot refine an image, so refinement settings have no effect; name one that "
                "can (refinement.engine = 'numpy'), or leave them out."
            )


def _check_solver_runtime(runtime: Runtime, engine_name: str) -> None:
    """Refuse what only trainings of networks can use, where an image is solved by steps.

    Raises:
        ConfigError: trackers, several devices, or a precision of networks.
    """
    why = "with method = 'solver' it steps on one device, in a precision of its own, and leaves its history in a file"
    for field, used in (
        ("loggers", bool(runtime.loggers)),
        ("devices", runtime.devices > 1),
        ("precision", runtime.precision == "bf16"),
    ):
        if used:
            given = getattr(runtime, field)
            raise ConfigError(f"engine '{engine_name}': {field} = {given!r} has no effect: {why}. Leave it out.")


def check_runtime_capabilities(runtime: Runtime, capabilities: Capabilities, engine_name: str) -> None:
    """Compare what is to do the work with what an engine can use.

    Raises:
        ConfigError: hardware, trackers or a checkpoint that it cannot use.
    """
    words = {"runtime.precision": capabilities.precisions, "runtime.accelerator": capabilities.accelerators}
    _check_words(TrainingConfig(), runtime, words, set(capabilities.ignored_fields), engine_name)
    for logger in runtime.loggers:
        if logger not in capabilities.loggers:
            raise _refuse(engine_name, "loggers", logger, ", ".join(capabilities.loggers) or "none")
    if runtime.resume_from is not None and not capabilities.resume:
        raise _refuse(engine_name, "resume_from", str(runtime.resume_from), "none; this engine cannot resume")
    if runtime.devices > (capabilities.max_devices or runtime.devices):
        raise _refuse(engine_name, "devices", runtime.devices, f"at most {capabilities.max_devices}")
    if runtime.threads is not None and not capabilities.threads:
        raise _refuse(engine_name, "threads", runtime.threads, "none; its libraries choose them")


def check_refinement_capabilities(config: TrainingConfig, capabilities: Capabilities, engine_name: str) -> None:
    """Compare how an image is to be refined with what the engine that refines it can do.

    Raises:
        ConfigError: the engine cannot refine, or not this.
    """
    plan = config.refinement
    if not (capabilities.refine or capabilities.stepping):
        raise _refuse(engine_name, "refinement.engine", plan.engine, "an engine that refines; this one does not")
    ignored = {field for field in _ignored(capabilities, engine_name) if field.startswith("refinement.")}
    _check_ignored(config, Runtime(), ignored, engine_name)
    offered = {
        "positions": capabilities.refine_positions,
        "position_affine": capabilities.position_affine,
        "frame_scale": capabilities.frame_scale,
        "probe_support": capabilities.probe_constraints,
        "probe_power": capabilities.probe_constraints,
    }
    if not capabilities.stepping and plan.positions is None and plan.position_limit_px != type(plan).position_limit_px:
        raise ConfigError(
            f"engine '{engine_name}': refinement.position_limit_px = {plan.position_limit_px} has no effect, since it "
            "makes no trials of positions; set refinement.positions = true, or leave the limit out."
        )
    neutral = RefinementConfig()
    for name, can in offered.items():
        given, default = getattr(plan, name), getattr(neutral, name)
        if given and given != default and not can:
            raise _refuse(engine_name, f"refinement.{name}", given, str(default))
    if plan.loss is not None and plan.loss not in capabilities.losses:
        raise _refuse(engine_name, "refinement.loss", plan.loss, ", ".join(capabilities.losses))
    if plan.probe_modes is not None and plan.probe_modes > (capabilities.max_modes or plan.probe_modes):
        raise _refuse(engine_name, "refinement.probe_modes", plan.probe_modes, f"at most {capabilities.max_modes}")


def check_inference_capabilities(
    config: InferenceConfig, capabilities: Capabilities, engine_name: str, runtime: Runtime | None = None
) -> None:
    """Compare how a model is to be applied with what an engine can do; errors as :func:`check_capabilities`."""
    runtime = runtime or Runtime()
    ignored = {f for f in _ignored(capabilities, engine_name) if f.startswith(("inference.", "runtime."))}
    once = {record.name for record in GENERATORS if not record.repeats}
    if config.passes is not None and once.issuperset(capabilities.generators):
        raise _refuse(engine_name, "inference.passes", config.passes, "none; this engine has no network with passes")
    # whether passes have an effect on the generator of the model, the engine says
    _check_ignored(TrainingConfig(inference=config), runtime, ignored, engine_name)
    check_runtime_capabilities(runtime, capabilities, engine_name)


def check_scan_capabilities(raw: RawData, capabilities: Capabilities, engine_name: str) -> None:
    """Refuse a scan with something in it that the engine would leave out of its model without a word.

    Raises:
        ConfigError: a side, a propagation, bad pixels, a background or more probe modes than the engine takes.
    """
    name = raw.source.path or "scan"
    least, most, multiple = capabilities.sides
    if not least <= raw.side <= most or raw.side % multiple:
        raise ConfigError(
            f"engine '{engine_name}' takes frames with a side of {least} to {most} that is a multiple of {multiple}, "
            f"and {name} has {raw.side}×{raw.side}; crop or pad them, or choose an engine that takes them."
        )
    if raw.propagation.kind not in capabilities.propagations:
        raise ConfigError(
            f"engine '{engine_name}' has {' and '.join(capabilities.propagations)} propagation, and {name} is a "
            f"{raw.propagation.kind} scan; choose an engine that has it ('ptycho backends' lists them)."
        )
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
