"""What a malformed input is: a name, how it is built, and how it is given to a command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Build", "Malformed"]

Build = Callable[[Path], Path]
"""Write an input into an empty folder and return the path to give, which need not exist."""


@dataclass(frozen=True)
class Malformed:
    """An input that is no usable scan.

    Attributes:
        name: what is wrong with it, unique in the catalogue.
        build: writes it.
        options: words after the path.
        needs: modules without which it cannot be built.
    """

    name: str
    build: Build
    options: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name
