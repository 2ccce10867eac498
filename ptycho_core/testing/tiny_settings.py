"""Settings of trainings that take a second or so, made of what an engine can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import ModelConfig, TrainingConfig
from ..config_mapping import settings_from_mapping
from ..plugins.capabilities import check_capabilities
from ..plugins.generators import installed_generators
from ..protocol import Capabilities
from ..runtime import Runtime

__all__ = ["tiny_config"]

_NETWORK_EPOCHS = 3
_SOLVER_EPOCHS = 6


def _merged(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(low)
    for name, value in high.items():
        below = out.get(name)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        out[name] = _merged(below, value) if both and below is not None else value
    return out


def _first(preferred: str, offered: tuple[str, ...]) -> str:
    return preferred if preferred in offered or not offered else offered[0]


def tiny_config(
    engine_name: str, capabilities: Capabilities, settings: Mapping[str, Any] | None = None
) -> tuple[TrainingConfig, Runtime]:
    """Settings of a training that takes a second or so, and that the engine accepts, and what does the work.

    Args:
        engine_name: name of the engine.
        capabilities: of the engine; a field that it ignores keeps its default.
        settings: plain data over that, as in a YAML file: ``{"epochs": 9, "model": {"width": 8}}``. An engine with both
            methods is asked for its network, unless they say ``{"method": "solver"}``.

    Raises:
        ConfigError: a setting that does not exist or that the engine does not honour.
    """
    ignored = capabilities.ignored_fields
    method = (settings or {}).get("method") or _first("network", capabilities.methods)
    solver = method == "solver"
    wanted: dict[str, Any] = {
        "method": method,
        "epochs": _SOLVER_EPOCHS if solver else _NETWORK_EPOCHS,
        "seed": 1,
        "loss": _first("amplitude", capabilities.losses),
        "precision": _first("32", capabilities.precisions),
        "accelerator": _first("cpu", capabilities.accelerators),
    }
    if not solver:
        wanted |= {"group_size": 4, "schedule": _first("constant", capabilities.schedules)}
    chosen: dict[str, Any] = {name: value for name, value in wanted.items() if name not in ignored}
    if not solver:
        name = _first(ModelConfig().generator, capabilities.generators)
        small = next((record.small for _, record in installed_generators() if record.name == name), {})
        chosen["model"] = {"generator": name, **small}
    config, runtime = settings_from_mapping(_merged(chosen, settings or {}) | {"backend": engine_name})
    check_capabilities(config, capabilities, engine_name, runtime)
    return config, runtime
