"""What the parts of a draft of a mapping share: its lines, and how names and small arrays are looked at."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..io.h5_values import as_complex
from ..io.readers.array_header import read_whole
from ..io.readers.arrays import ArrayFile

__all__ = ["Draft", "Frames", "quoted", "small_array", "words_of"]

_MOST_VALUES = 2**22  # of an array that is looked at whole
_YAML_WORDS = {"true", "false", "null", "yes", "no", "on", "off"}


@dataclass
class Draft:
    """Lines of the mapping, and what there is to say of them.

    Attributes:
        lines: of YAML.
        unknown: what could not be told, a sentence each.
        used: names that the lines name.
        scan: which part of a path names the scan, and that of the scan that was looked at; None where there is one.
    """

    lines: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    scan: tuple[int, str] | None = None

    def path(self, name: str) -> str:
        """A path as YAML; its part that names one of several scans as ``*``."""
        parts = name.split("/")
        if self.scan is not None and len(parts) > self.scan[0] and parts[self.scan[0]] == self.scan[1]:
            parts[self.scan[0]] = "*"
        return quoted("/".join(parts))

    def say(self, line: str, remark: str = "") -> None:
        """Add a line, with a remark behind it."""
        self.lines.append(f"{line}  # {remark}" if remark else line)


@dataclass(frozen=True)
class Frames:
    """What was taken for the frames."""

    name: str
    axes: tuple[str, ...]
    M: int | None
    size: tuple[int, int]


def words_of(name: str) -> list[str]:
    """Words of a name, in small letters: detectorDistance_mm is detector, distance, mm."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return [word for word in re.split(r"[^a-z]+", spaced.lower()) if word]


def small_array(arrays: ArrayFile, name: str) -> NDArray[Any]:
    """Values of an array that is small enough to look at; of another its first entries."""
    header = arrays.header(name)
    with arrays.opened(name) as array:
        if header.shape == ():
            return np.asarray(array[()])
        if math.prod(header.shape) > _MOST_VALUES and len(header.shape) == 1:
            return np.asarray(array[:_MOST_VALUES])
        return as_complex(read_whole(array, arrays.path, name))


def quoted(text: str) -> str:
    """A name as YAML: quoted where it could be taken for anything else."""
    return text if re.fullmatch(r"[A-Za-z_][\w./@-]*", text) and text.lower() not in _YAML_WORDS else f'"{text}"'
