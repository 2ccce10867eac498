"""A run: what came of the way from a scan to an image, and all that its results are written from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..text import one_line, storable
from .results import Image, Refined, Scored

if TYPE_CHECKING:
    from ..config import TrainingConfig
    from ..runtime import Runtime
    from .container import PtychoDataContainer
    from .findings import Comparison, FourierRingCorrelation
    from .model import TrainedModel
    from .probe_guess import ProbeGuess
    from .verdict import Verdict

__all__ = ["Run", "Stage", "heldout_chose"]

MOST_IN_TITLE = 300
"""Characters: what a heading holds."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """An image made on the way to the result, or the result.

    Attributes:
        name: ``network`` or ``solver`` for what was trained, ``refined`` for what refining made of it.
        scored: the image and its figures.
        seconds: wall-clock seconds it took, training included.
        comparison: score against the truth, or None.
        half_data_frc: correlation of two images of this stage from half of the frames each, or None.
    """

    name: str
    scored: Scored
    seconds: float
    comparison: Comparison | None = None
    half_data_frc: FourierRingCorrelation | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """What :func:`ptycho_core.run` returns.

    Attributes:
        title: heading of the report.
        scan: the scan, with the role of each frame.
        stages: every image made on the way, at least one, the result last.
        refined: what refining gave, or None where nothing was refined.
        model: the trained model.
        history: of the training; name → one value an epoch.
        config: what decided the result.
        runtime: what did the work.
        engine: name of the engine that trained.
        warnings: one sentence each, those of the reader and of the checks among them.
        provenance: plain data on where the result came from.
        seconds: stage → wall-clock seconds; ``total`` is that of the whole run so far.
        peak_memory_bytes: largest memory of the process, or None where it is not known.
        verdict: on the result, in one line; None where the image could not be judged, which is among the warnings.
        folder: where the results were written, or None.
    """

    title: str
    scan: PtychoDataContainer
    stages: tuple[Stage, ...]
    refined: Refined | None
    model: TrainedModel
    history: Mapping[str, list[float]]
    config: TrainingConfig
    runtime: Runtime
    engine: str
    warnings: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    peak_memory_bytes: int | None = None
    verdict: Verdict | None = None
    folder: Path | None = None

    def __post_init__(self) -> None:
        # what a title, a warning or a command line repeats of somebody else's words only shows
        object.__setattr__(self, "title", one_line(self.title, MOST_IN_TITLE))
        object.__setattr__(self, "warnings", tuple(one_line(text) for text in self.warnings))
        object.__setattr__(self, "provenance", storable(self.provenance))

    @property
    def probe_guess(self) -> ProbeGuess | None:
        """Where the probe came from, or None where the scan brought one."""
        return self.scan.probe_guess

    @property
    def result(self) -> Stage:
        """The last stage."""
        return self.stages[-1]

    @property
    def scored(self) -> Scored:
        """The resulting image and its figures."""
        return self.result.scored

    @property
    def image(self) -> Image:
        """The resulting image."""
        return self.result.scored.image


def heldout_chose(refined: Refined | None, config: TrainingConfig) -> bool:
    """Whether held-out frames chose when to stop, or which image to keep: then they are a validation."""
    return refined is not None or config.early_stopping_patience is not None
