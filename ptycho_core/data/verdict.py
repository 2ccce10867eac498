"""What a run came to, in one line that a scientist can act on, and what that line rests on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["KINDS", "Reason", "Verdict"]

KINDS = ("noise", "above_noise", "no_image")
"""Explained to the noise; explained to so many times the noise; not an image of what was measured."""


@dataclass(frozen=True, kw_only=True)
class Reason:
    """One thing that speaks for a verdict.

    Attributes:
        name: of the rule that found it, for programs.
        text: a clause for people, with its figure in it.
        figure: that figure.
        advice: what to do about it, with the option in it, or empty.
    """

    name: str
    text: str
    figure: float
    advice: str = ""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A verdict on an image.

    Attributes:
        kind: one of :data:`KINDS`.
        sentence: the one line; that of ``no_image`` begins with ``NOT AN IMAGE``.
        reasons: what speaks for it, the strongest first.
        advice: what to do, each with the option to give, the best first.
        figures: what was weighed, by name; NaN where there was nothing to weigh.
    """

    kind: str
    sentence: str
    reasons: tuple[Reason, ...] = ()
    advice: tuple[str, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_image(self) -> bool:
        """Whether there is an image to look at."""
        return self.kind != "no_image"

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON data; a figure that is not finite becomes None."""
        return {
            "kind": self.kind,
            "sentence": self.sentence,
            "reasons": [
                {"name": r.name, "text": r.text, "figure": _finite(r.figure), "advice": r.advice} for r in self.reasons
            ],
            "advice": list(self.advice),
            "figures": {name: _finite(value) for name, value in self.figures.items()},
        }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
