"""The file of ``--config``: YAML (or JSON) without the traps of YAML."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..errors import ConfigError

__all__ = ["read_settings"]


def read_settings(path: Path) -> dict[str, Any]:
    """Read a YAML (or JSON) file as a mapping; a key given twice is refused, and ``1e-3`` is a number."""
    import yaml  # type: ignore[import-untyped]

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """YAML 1.1 without its two traps: silent duplicates, and floats that must have a point."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value]
            twice = {key for key in keys if keys.count(key) > 1}
            if twice:
                raise ConfigError(f"{path}: {', '.join(map(repr, sorted(twice)))} is given twice; keep one.")
            mapping: dict[Any, Any] = super().construct_mapping(node, deep)
            return mapping

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)
    except OSError as error:
        raise ConfigError(f"{path}: the config file cannot be read ({error.strerror}).") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a YAML or JSON file ({' '.join(str(error).split())}).") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds a {type(content).__name__}; it must hold 'name: value' settings.")
    return content
