"""YAML (or JSON) without the traps of YAML: the file of ``--config``, and lists and mappings on a command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..io.plain_yaml import MOST_TEXT, read_yaml
from ..io.small_text import read_small_text

__all__ = ["read_settings", "read_yaml"]


def read_settings(path: Path) -> dict[str, Any]:
    """Read a YAML (or JSON) file as a mapping.

    Raises:
        ConfigError: it cannot be read, or holds no mapping.
    """
    text = read_small_text(path, ConfigError, what="a YAML or JSON file of settings", most_bytes=MOST_TEXT)
    content = read_yaml(text, str(path))
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds a {type(content).__name__}; it must hold 'name: value' settings.")
    return content
