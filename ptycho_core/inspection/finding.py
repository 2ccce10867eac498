"""A finding of an inspection, and how findings list things."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..text import one_line

__all__ = ["DESPITE_FINDINGS", "Finding", "grave", "pixels_of", "some"]

DESPITE_FINDINGS = "despite_findings"
"""Name of the option, and of the argument, that lets a run go on in spite of grave findings."""

_LISTED = 8


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        level: ``ok``, ``note``, ``warning`` or ``error``.
        text: one or two sentences.
        grave: whether it refuses a run; its level is ``error`` then.
        override: the option that lets a grave one pass, without dashes; else empty.
    """

    level: str
    text: str
    grave: bool = False
    override: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", one_line(self.text))  # it repeats names of the file


def grave(text: str) -> Finding:
    """A finding that refuses a run."""
    return Finding("error", text, grave=True, override=DESPITE_FINDINGS)


def some(numbers: Iterable[Any], total: int | None = None) -> str:
    """The first few of a list, for a sentence."""
    shown = [str(n) for n in numbers]
    more = (len(shown) if total is None else total) - _LISTED
    return ", ".join(shown[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def pixels_of(chosen: NDArray[np.bool_]) -> str:
    """The first few of some pixels (H, W), for a sentence."""
    return some((f"({y}, {x})" for y, x in np.argwhere(chosen)), int(chosen.sum()))
