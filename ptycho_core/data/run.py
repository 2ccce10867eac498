"""A run: what came of the way from a scan to an image, and all that its results are written from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..text import one_line, storable
from .results import Image, Refined, Scored, figures_words
from .shown import card, from_above, line, plot, rounded, size

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from xarray import Dataset

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

    def __repr__(self) -> str:
        """One line: what it is and how good, never an array."""
        scored = self.scored
        shape = f"object {size(scored.image.object.shape)} px"
        return line("Stage", self.name, scored.engine, shape, figures_words(scored), f"{rounded(self.seconds, 3)} s")

    def _repr_html_(self) -> str:
        """The same for a notebook, with small pictures."""
        return card(self.scored)


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

    def __repr__(self) -> str:
        """One line: the scan, the engine, the size, the figures and the verdict; never an array."""
        return line(
            "Run", repr(self.title), self.engine, " → ".join(stage.name for stage in self.stages),
            f"object {size(self.image.object.shape)} px", figures_words(self.scored),
            "no verdict" if self.verdict is None else f"verdict: {self.verdict.sentence}",
        )  # fmt: skip

    def _repr_html_(self) -> str:
        """The same for a notebook, with small pictures."""
        return card(self)

    def plot(self, kind: str = "object") -> Figure:
        """A figure of the result.

        Args:
            kind: ``object``, its phase and amplitude; ``probe``, its modes; ``focus``, the probe along the beam;
                ``positions``, the frame centres by role, and how far they moved; ``deviance``, of each frame at its
                place; ``frames``, measured against predicted; ``losses``, of training and refining; ``slices``, of a
                thick object.

        Returns:
            a figure of matplotlib; lengths are in metres where the object pixel is known.

        Raises:
            ConfigError: another kind, or one that this run has not; the message lists those it has.
        """
        return plot(self, kind)

    def save(self, folder: Path | str, *, overwrite: bool = False) -> Run:
        """Write the result folder that ``ptycho run`` writes: the image, the model, the summary and the report.

        Args:
            folder: made where it is not there.
            overwrite: replace a finished result that lies there.

        Returns:
            the run, which knows its folder now; :func:`ptycho_core.load_run` reads it back.

        Raises:
            OutputError: the folder is in use, holds a finished result, or cannot be written; nothing was replaced.
            BackendError: the engine that made the model is not there to write it.
        """
        saved: Run = from_above("api.saved", "save_run")(self, folder, overwrite=overwrite)
        return saved

    def to_xarray(self) -> Dataset:
        """The image as a dataset of xarray, with coordinates in metres where the object pixel is known.

        Returns:
            ``object`` (y, x) complex64, ``phase``, ``amplitude`` and ``coverage`` (y, x) float32, ``slices``
            (slice, y, x), ``probe`` (mode, probe_y, probe_x) complex64, ``positions`` (frame, axis) float64,
            ``role`` (frame,), ``deviance`` (frame,); each with its ``units``, the figures in the attributes.

        Raises:
            MissingPackageError: xarray is not installed.
        """
        made: Dataset = from_above("notebook.datasets", "run_dataset")(self)
        return made

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
