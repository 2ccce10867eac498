"""YAML (or JSON) without the traps of YAML: files of settings, mappings of scan files, lists on a command line."""

from __future__ import annotations

import re
from typing import Any

from ..errors import ConfigError

__all__ = ["read_yaml"]

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
