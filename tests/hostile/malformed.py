"""What a malformed input is: a name, how it is built, and how it is given to a command."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from good_scans import positions_file

__all__ = ["Build", "Malformed", "beside_positions", "made_at", "of_bytes", "saved_to"]

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


def of_bytes(content: bytes | Callable[[], bytes], name: str) -> Build:
    """A file of these bytes."""

    def build(folder: Path) -> Path:
        (folder / name).write_bytes(content() if callable(content) else content)
        return folder / name

    return build


def saved_to(make: Callable[[io.BytesIO], Any]) -> bytes:
    """What is written into a stream."""
    stream = io.BytesIO()
    make(stream)
    return stream.getvalue()


def beside_positions(content: bytes | Callable[[], bytes], name: str) -> Build:
    """A file of these bytes, with positions beside it."""
    return made_at(lambda path: path.write_bytes(content() if callable(content) else content), name)


def made_at(make: Callable[[Path], Any], name: str) -> Build:
    """Something made at a path, with positions beside it."""

    def build(folder: Path) -> Path:
        positions_file(folder)
        make(folder / name)
        return folder / name

    return build
