"""YAML (or JSON) without the traps of YAML: the file of ``--config``, and lists and mappings on a command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..errors import ConfigError

__all__ = ["read_settings", "read_yaml"]


_BOOL = "tag:yaml.org,2002:bool"


def read_yaml(text: str, name: str) -> Any:
    """Plain data of a YAML text; a key given twice is refused, and ``1e-3`` is a number.

    Args:
        text: the text.
        name: what to call it in an error.

    Raises:
        ConfigError: it is no YAML.
    """
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """YAML 1.1 without its traps: silent duplicates, floats that must have a point, and ``on`` for true."""

        yaml_implicit_resolvers = {  # noqa: RUF012  # of the class, as the library reads it
            first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOL]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value]
            twice = {key for key in keys if keys.count(key) > 1}
            if twice:
                raise ConfigError(f"{name}: {', '.join(map(repr, sorted(twice)))} is given twice; keep one.")
            mapping: dict[Any, Any] = super().construct_mapping(node, deep)
            return mapping

    Loader.add_implicit_resolver(_BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )
    try:
        return yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not YAML or JSON ({' '.join(str(error).split())}).") from error


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
