"""Presets: settings to begin with, as plain data, below what is given. Nothing else in the package knows of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import ConfigError, suggest

__all__ = ["PRESETS", "preset"]

PRESETS = ("quick", "best")
"""Names of the presets; between them lies what the defaults do."""

_BEST: dict[str, Any] = {"refinement": {"epochs": 120, "patience": 12}}
_SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "solver": {
        "quick": {"epochs": 8, "probe_trainable": True, "refinement": {"engine": "none"}},
        "best": {**_BEST},
    },
    "network": {
        "quick": {"epochs": 2, "refinement": {"engine": "none"}},
        "best": {"epochs": 15, **_BEST},
    },
}
"""Method → preset → settings."""


def preset(name: str, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Settings to begin with, for ``config_from_mapping``.

    ``quick``: an image in a few seconds. It is made once and not refined, so positions and modes stay as they are
    given; the probe is refined while it is solved. ``best``: more passes and more patience, and so more trials of
    modes and positions, whatever time they take.

    Args:
        name: ``quick`` or ``best``.
        given: the settings that will lie on top, under their current names. They decide the method, and what they
            leave without effect is left out. None: nothing is given.

    Raises:
        ConfigError: there is no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(f"preset = {name!r}; allowed: {', '.join(PRESETS)}.{suggest(name, PRESETS)}")
    given = given or {}
    network = given.get("method") == "network" or (given.get("method") is None and given.get("model") is not None)
    settings = _SETTINGS["network" if network else "solver"][name]
    chosen = {key: dict(value) if isinstance(value, dict) else value for key, value in settings.items()}
    refinement = given.get("refinement")
    if isinstance(refinement, Mapping) and (refinement.get("engine") == "none" or (name == "quick" and refinement)):
        del chosen["refinement"]
    return chosen
