"""YAML (or JSON) without the traps of YAML: the file of ``--config``, and lists and mappings on a command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..io.plain_yaml import read_yaml

__all__ = ["read_settings", "read_yaml"]


def read_settings(path: Path) -> dict[str, Any]:
    """Read a YAML (or JSON) file as a mapping.

    Raises:
        ConfigError: it cannot be read, or holds no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: the config file cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a YAML or JSON file ({error}).") from error
    content = read_yaml(text, str(path))
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds a {type(content).__name__}; it must hold 'name: value' settings.")
    return content
