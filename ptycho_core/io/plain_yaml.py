"""YAML (or JSON) without the traps of YAML: files of settings, mappings of scan files, lists on a command line.

A file of settings comes from anywhere. YAML can say much with little: an alias repeats what it names, and ten aliases
of ten aliases make 10¹⁰ values of a line each. So a text is composed first, which keeps aliases as such, then counted
as if they were written out, and only then made into values.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..errors import ConfigError
from ..text import printable, shortened

__all__ = ["MOST_TEXT", "read_yaml"]

MOST_TEXT = 2**16
"""Characters of a text."""

_MOST_NODES = 20_000
_MOST_CHARACTERS = 2**18
"""Of its values with every alias written out."""

_DEEPEST = 32
"""Lists and mappings in each other."""

_MOST_DIGITS = 40
"""Of a whole number; 64 bits have 20."""

_MOST_SAID = 200
"""Characters of what a parser says."""

_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map", "merge")}
_INT, _FLOAT, _BOOL = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float", "tag:yaml.org,2002:bool"
_ANEW = {
    _BOOL: (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    _INT: (r"[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    _FLOAT: (
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
        r"|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
}
"""Tag → what a plain word of it looks like, and its first characters, in place of YAML's own."""

_NO_TEXT = re.compile("[\ud800-\udfff]")
"""Halves of characters, which no file of text can hold."""

_KEPT = {"tag:yaml.org,2002:null", "tag:yaml.org,2002:merge"}


@cache
def _loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """YAML 1.1 without its traps: ``on`` for true, 1:30 for ninety, 010 for eight, dates, floats with a point."""

        yaml_implicit_resolvers = {  # noqa: RUF012  # of the class, as the library reads it
            first: [(tag, pattern) for tag, pattern in resolvers if tag in _KEPT]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def __init__(self, text: str) -> None:
            super().__init__(text)
            self.depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            self.depth += 1  # the scanner's time grows with the square of the depth
            if self.depth > _DEEPEST:
                mark = self.peek_event().start_mark
                raise yaml.MarkedYAMLError(None, None, f"nested deeper than {_DEEPEST} levels", mark)
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

    for tag, (pattern, first) in _ANEW.items():
        Loader.add_implicit_resolver(tag, re.compile(rf"^(?:{pattern})$"), list(first))
    return Loader


@dataclass(frozen=True)
class _Size:
    """Of a node with every alias in it written out: nodes, characters, and how deep it is."""

    nodes: int
    characters: int
    depth: int


def read_yaml(text: str, name: str) -> Any:
    """Plain data of a YAML text: text, numbers, true, false, null, lists, and mappings whose keys are text.

    A key given twice is refused, ``1e-3`` is a number, and ``on``, ``1:30``, ``010`` and dates are text.

    Args:
        text: the text, of ``MOST_TEXT`` characters at most.
        name: what to call it in an error.

    Raises:
        ConfigError: it is no YAML, or says more than a text of settings may.
    """
    import yaml

    if len(text) > MOST_TEXT:
        raise ConfigError(f"{name}: has {len(text)} characters; YAML is read up to {MOST_TEXT}.")
    try:
        loader = _loader()(text)
        try:
            root = loader.get_single_node()
            if root is None:
                return None
            _check(root, name)
            return loader.construct_document(root)
        finally:
            loader.dispose()
    except ConfigError:
        raise
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not YAML or JSON ({_said(error)}).") from error
    except RecursionError as error:
        raise ConfigError(f"{name}: not YAML or JSON (nested deeper than {_DEEPEST} levels).") from error
    except Exception as error:  # a tag on a value that it does not fit lets many kinds out of the library
        raise ConfigError(f"{name}: not YAML or JSON ({type(error).__name__}: {_short(str(error))}).") from error


def _short(text: str) -> str:
    return shortened(printable(" ".join(text.split())), _MOST_SAID)


def _said(error: Any) -> str:
    """What the library says, and on which line, without the lines that it quotes."""
    mark = getattr(error, "problem_mark", None)
    parts = [getattr(error, "context", None), getattr(error, "problem", None)]
    said = " ".join(filter(None, parts)) if mark is not None else str(error)
    return _short(said if mark is None else f"line {mark.line + 1}: {said}")


def _check(root: Any, name: str) -> None:
    """Refuse what is no plain data, and what is too much of it.

    Raises:
        ConfigError: it is.
    """
    sizes: dict[int, _Size] = {}
    open_nodes: set[int] = set()

    def size_of(node: Any) -> _Size:
        if id(node) in sizes:
            return sizes[id(node)]
        where = f"{name}: line {node.start_mark.line + 1}"
        if id(node) in open_nodes:
            raise ConfigError(f"{where}: an alias stands inside of what it repeats; write it out.")
        if node.tag not in _TAGS:
            raise ConfigError(f"{where}: the tag {_short(str(node.tag))} is not allowed; leave it out.")
        if len(open_nodes) >= _DEEPEST:
            raise ConfigError(f"{where}: nested deeper than {_DEEPEST} levels.")
        open_nodes.add(id(node))
        inner = [size_of(child) for child in _children(node, where)]
        open_nodes.discard(id(node))
        size = _Size(
            1 + sum(one.nodes for one in inner),
            _characters(node, where) + sum(one.characters for one in inner),
            1 + max((one.depth for one in inner), default=0),
        )
        if size.nodes > _MOST_NODES or size.characters > _MOST_CHARACTERS or size.depth > _DEEPEST:
            raise ConfigError(
                f"{where}: {size.nodes} values of {size.characters} characters, {size.depth} levels deep, once aliases "
                f"are written out; allowed: {_MOST_NODES}, {_MOST_CHARACTERS} and {_DEEPEST}."
            )
        sizes[id(node)] = size
        return size

    size_of(root)


def _children(node: Any, where: str) -> Iterator[Any]:
    if isinstance(node.value, str):
        return
    if node.id != "mapping":
        yield from node.value
        return
    for key, value in node.value:
        if key.id != "scalar" or key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
            said = key.value if key.id == "scalar" else f"a {key.id}"
            raise ConfigError(f"{where}: the key {_short(said)} is no text; put it in quotes.")
        yield key
        yield value
    twice = sorted(key for key, times in Counter(key.value for key, _ in node.value).items() if times > 1)
    if twice:
        raise ConfigError(f"{where}: {', '.join(map(repr, map(_short, twice[:5])))} is given twice; keep one.")


def _characters(node: Any, where: str) -> int:
    if node.id != "scalar":
        return 0
    if node.tag == _INT and len(node.value) > _MOST_DIGITS:
        raise ConfigError(f"{where}: a whole number of {len(node.value)} digits; {_MOST_DIGITS} are allowed.")
    if "\0" in node.value or (not node.value.isascii() and _NO_TEXT.search(node.value)):
        raise ConfigError(f"{where}: {_short(node.value)!r} holds a character that is no text; leave it out.")
    return len(node.value)
