"""Mistakes as text: what is replaced by what in which file, and the test that must see it."""

from __future__ import annotations

import re
from typing import NamedTuple


class Mutant(NamedTuple):
    """A mistake: in which file, what is replaced by what (in pairs), and the test that must see it."""

    file: str
    texts: tuple[str, ...]
    test: str


def read_mutants(text: str) -> dict[str, Mutant]:
    """Mutants by name from a text of blocks ``## name | file | test`` with lines to take out (-) and to put in (+)."""
    found = {}
    for block in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        heading, *lines = block.rstrip("\n").split("\n")
        name, file, test = heading.split(" | ")
        texts: list[str] = []
        signs = ""
        for sign, line in ((line[0], line[1:]) for line in lines):
            if sign == signs:
                texts[-1] += f"\n{line}"
            else:
                texts.append(line)
            signs = sign
        found[name] = Mutant(file, tuple(texts), test)
    return found
