"""Images beside each other, as values: what is known of each, how close they are, and all on the same pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..text import counted, one_line
from .findings import Comparison
from .shown import card, line, size

__all__ = ["ComparedImage", "ComparedImages"]


@dataclass(frozen=True, kw_only=True)
class ComparedImage:
    """An object, where it lies, and what its file tells of it.

    Attributes:
        name: for people, without anything that acts.
        object: (H, W) complex64.
        origin_px: (2,) float64 scan coordinates (y, x) of its first pixel.
        coverage: (H, W) float32, or None where the file does not say.
        positions_px: (M, 2) float64 frame centres (y, x), or None.
        pixel_size_m: side of an object pixel, metres, or None.
        figures: figures of merit by role (``train``, ``heldout``), plain data; empty where the file does not say.
        engine: that made it, or empty.
        seconds: that it took, or None.
        half_period_px: half-data resolution at the half-bit curve, object pixels, or None.
        verdict: in one sentence, or empty.
    """

    name: str
    object: NDArray[np.complex64]
    origin_px: NDArray[np.float64]
    coverage: NDArray[np.float32] | None = None
    positions_px: NDArray[np.float64] | None = None
    pixel_size_m: float | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)
    engine: str = ""
    seconds: float | None = None
    half_period_px: float | None = None
    verdict: str = ""

    def __post_init__(self) -> None:
        for name in ("name", "engine", "verdict"):
            object.__setattr__(self, name, one_line(getattr(self, name)))

    def __repr__(self) -> str:
        """One line: what it is and how large, never an array."""
        return line("ComparedImage", repr(self.name), self.engine, f"object {size(self.object.shape)} px")

    def figure(self, role: str, name: str) -> float | None:
        """A figure of merit of a role, or None where it is not known."""
        of_role = self.figures.get(role)
        value = of_role.get(name) if isinstance(of_role, Mapping) else None
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None

    def to_mapping(self) -> dict[str, Any]:
        """What is known of it as plain JSON data, without arrays."""
        return {
            "name": self.name,
            "engine": self.engine or None,
            "figures": dict(self.figures),
            "seconds": self.seconds,
            "half_period_px": self.half_period_px,
            "pixel_size_m": self.pixel_size_m,
            "object_shape": list(self.object.shape),
            "verdict": self.verdict or None,
        }


@dataclass(frozen=True, kw_only=True)
class ComparedImages:
    """Images, scored against one of them or against a truth.

    Attributes:
        images: in the order given, the reference among them unless it is a truth.
        reference: what they are scored against.
        is_truth: whether that is a truth.
        scores: score of each image against the reference, in the order of ``images``; None of the reference itself and
            where ``reasons`` says why there is none.
        pairs: (i, j), i < j → score of image i against image j; empty of fewer than three images.
        aligned: each image (h, w) complex64 on the pixels of the reference, with its global phase, ramp and scale; NaN
            outside the region that both have; None where it could not be aligned.
        reference_object: (h, w) complex64, the reference on the same pixels.
        reasons: name → why an image was not scored.
    """

    images: tuple[ComparedImage, ...]
    reference: ComparedImage
    is_truth: bool
    scores: tuple[Comparison | None, ...]
    pairs: Mapping[tuple[int, int], Comparison] = field(default_factory=dict)
    aligned: tuple[NDArray[np.complex64] | None, ...] = ()
    reference_object: NDArray[np.complex64] | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        """One line: what was compared with what, never an array."""
        against = f"against {'the truth ' if self.is_truth else ''}{self.reference.name!r}"
        not_scored = f"{len(self.reasons)} not scored" if self.reasons else ""
        return line("ComparedImages", counted(len(self.images), "image"), against, not_scored)

    def _repr_html_(self) -> str:
        """The tables of ``ptycho compare`` for a notebook."""
        return card(self)

    def to_mapping(self) -> dict[str, Any]:
        """Everything but the arrays as plain JSON data."""
        scored = zip(self.images, self.scores, strict=True)
        return {
            "reference": self.reference.name,
            "is_truth": self.is_truth,
            "scores": {image.name: score.to_mapping() for image, score in scored if score is not None},
            "images": [image.to_mapping() for image in self.images],
            "pairs": [
                {"first": self.images[i].name, "second": self.images[j].name, **score.to_mapping()}
                for (i, j), score in self.pairs.items()
            ],
            "not_scored": dict(self.reasons),
        }
