"""Results: what an engine returns, what core found with it, and what the facade hands out (specs/10-data)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from ..physics.merit import SUMS, Figures
from ..text import counted
from .shown import card, from_above, line, plot, rounded, size

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from xarray import Dataset

    from ..config import TrainingConfig
    from .container import PtychoDataContainer
    from .findings import PositionReport
    from .model import TrainedModel

__all__ = ["CdiResult", "CdiResults", "Image", "Refined", "Scored", "figures_words", "r_factors", "typical_frames"]


@dataclass(frozen=True, kw_only=True)
class Image:
    """What an engine returns: an image of the object, unscored.

    Attributes:
        object: (H, W) complex64; 0 where no frame reached.
        coverage: (H, W) float32, Σ of the probe intensity over the frames it was made of, in units of the probe's
            peak: about the number of times a pixel was lit.
        origin_px: (2,) float64 scan coordinates (y, x) of the centre of pixel (0, 0).
        probe: (P, N, N) complex64 as used in the end.
        scale: s, with λ = s · Σ_p |F ψ_p|² + background.
        positions_px: (M, 2) float64 centres (y, x) of all frames of the scan, as used.
        slices: (L, H, W) complex64 slices of a thick object, upstream first, whose product is `object`; None for a thin
            one. Where no frame reached, the first is 0 and the others are empty space.
        slice_spacing_m: distance between two slices, metres, where there are slices.
        mode_weights: (M, P) float32, what each frame takes of each mode of the probe; None takes all of all. By the
            forward model of core λ_j = s Σ_p w_jp |F ψ_jp|² + background.
        forward_model: name of the engine whose own forward model explains the image; empty where that of core does, and
            any engine can go on from it.
        stats: plain values that the engine has to say of it, by name; counts of what it left out begin with
            ``dropped_``.
    """

    object: NDArray[np.complex64]
    coverage: NDArray[np.float32]
    origin_px: NDArray[np.float64]
    probe: NDArray[np.complex64]
    scale: float
    positions_px: NDArray[np.float64]
    slices: NDArray[np.complex64] | None = None
    slice_spacing_m: float | None = None
    mode_weights: NDArray[np.float32] | None = None
    forward_model: str = ""
    stats: Mapping[str, float | int | str] = field(default_factory=dict)

    def __repr__(self) -> str:
        """One line: what it is and how large, never an array."""
        return line(
            "Image", f"object {size(self.object.shape)} px", f"probe {size(self.probe.shape)}",
            "" if self.slices is None else counted(len(self.slices), "slice"),
            counted(len(self.positions_px), "position"), f"scale {rounded(self.scale)}",
            self.forward_model and f"explained by {self.forward_model}",
        )  # fmt: skip

    def _repr_html_(self) -> str:
        """The same for a notebook, with small pictures."""
        return card(self)

    def plot(self, kind: str = "object") -> Figure:
        """A figure of the image; lengths are in object pixels, whose size an image does not know (a run does).

        Args:
            kind: ``object``, its phase and amplitude; ``probe``, its modes; ``focus``, the probe along the beam;
                ``positions``, the frame centres; ``slices``, of a thick object.

        Returns:
            a figure of matplotlib.

        Raises:
            ConfigError: another kind, or one that this image has not; the message lists those it has.
        """
        return plot(self, kind)

    def to_xarray(self, pixel_size_m: float | None = None) -> Dataset:
        """The image as a dataset of xarray; see :meth:`ptycho_core.Run.to_xarray`.

        Args:
            pixel_size_m: side of an object pixel, metres; None gives coordinates in object pixels.

        Raises:
            MissingPackageError: xarray is not installed.
        """
        made: Dataset = from_above("notebook.datasets", "image_dataset")(self, pixel_size_m)
        return made


def r_factors(frame_sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """R-factor of each frame (M,) from its sums (M, 8), NaN for a frame of which there are none."""
    error, total = (frame_sums[:, SUMS.index(name)] for name in ("abs_error", "sqrt_counts"))
    out = np.full(len(total), np.nan)
    np.divide(error, total, out=out, where=total > 0)
    return out


def typical_frames(frame_sums: NDArray[np.float64]) -> dict[str, int]:
    """``best``, ``median`` and ``worst`` → frame, by R-factor, from the sums (M, 8); empty where there are none."""
    r = r_factors(frame_sums)
    known = np.flatnonzero(np.isfinite(r))
    order = known[np.argsort(r[known], kind="stable")]
    if len(order) == 0:
        return {}
    return {"best": int(order[0]), "median": int(order[len(order) // 2]), "worst": int(order[-1])}


@dataclass(frozen=True, kw_only=True)
class Scored:
    """An image and what core found with it, through the image's own forward model.

    Attributes:
        image: the image, with the gain that core measured absorbed in its scale unless the probe is calibrated.
        engine: engine that made it.
        scan: the scan it was made of, with the role of each frame.
        train: figures of merit of the training frames.
        heldout: the same of the held-out frames, or None without any.
        frame_sums: (M, 8) float64 what figures are made of, by frame; columns are ``physics.merit.SUMS``; rows of
            unused frames are 0.
        dropped: how many frames, pixels or patches were left out, by reason.
        examples: frame → its expected counts (N, N), by the forward model that the image was scored through: the
            frames of :meth:`typical_frames`.
    """

    image: Image
    engine: str
    scan: PtychoDataContainer
    train: Figures
    heldout: Figures | None
    frame_sums: NDArray[np.float64]
    dropped: Mapping[str, int] = field(default_factory=dict)
    examples: Mapping[int, NDArray[Any]] = field(default_factory=dict)

    def __repr__(self) -> str:
        """One line: what it is and how good, never an array."""
        return line(
            "Scored", self.engine, f"object {size(self.image.object.shape)} px", figures_words(self),
            f"R-factor {rounded(self.train.r_factor)}",
        )  # fmt: skip

    def _repr_html_(self) -> str:
        """The same for a notebook, with small pictures."""
        return card(self)

    def frame_r_factors(self) -> NDArray[np.float64]:
        """R-factor of each frame (M,) float64, NaN for a frame that is not used."""
        return r_factors(self.frame_sums)

    def typical_frames(self) -> dict[str, int]:
        """The frames with the lowest (``best``), the ``median`` and the highest (``worst``) R-factor of those used."""
        return typical_frames(self.frame_sums)

    def figures_of(self, frames: NDArray[np.int64]) -> Figures:
        """Figures of merit of some frames (n,)."""
        return Figures.of(self.frame_sums[frames])


def figures_words(scored: Scored) -> str:
    """Deviance of the training and of the held-out frames, in words."""
    held = "" if scored.heldout is None else f", {rounded(scored.heldout.deviance)} held out"
    return f"deviance {rounded(scored.train.deviance)}{held}"


@dataclass(frozen=True, kw_only=True)
class Refined:
    """What refining an image gave.

    Attributes:
        best: the better of the two images: the refined one, or the one it began with.
        initial: the image it began with.
        engine: engine that refined.
        kept: whether the refined image is the better one.
        note: why it was discarded, for people; empty when it is kept.
        history: ``train_loss`` and, with held-out frames, ``test_loss``, one an epoch; beside them what they mean as
            reduced deviance (``train_deviance``, ``test_deviance``), or as Fourier error of an amplitude loss.
        positions: what became of the positions, or None when they were not refined.
    """

    best: Scored
    initial: Scored
    engine: str
    kept: bool
    note: str
    history: Mapping[str, list[float]]
    positions: PositionReport | None = None

    def __repr__(self) -> str:
        """One line: what refining did, never an array."""
        epochs = max((len(values) for values in self.history.values()), default=0)
        before = f"before: {figures_words(self.initial)}"
        after = f"after: {figures_words(self.best)}" if self.kept else f"discarded: {self.note}"
        return line("Refined", self.engine, counted(epochs, "epoch"), before, after)


class CdiResults(TypedDict):
    """What a facade call returns beside the images; the same keys and types for every engine."""

    backend: str
    train_container: PtychoDataContainer
    test_container: PtychoDataContainer | None
    history: Mapping[str, list[float]]
    model: TrainedModel
    checkpoint_path: Path | None
    reconstructed_obj: NDArray[np.complex64] | None
    reconstruction: Scored | None
    probe: NDArray[np.complex64]
    config: TrainingConfig
    provenance: dict[str, Any]


@dataclass(frozen=True)
class CdiResult:
    """Result of ``run_cdi_example``; unpacks as ``amplitude, phase, results = …``.

    Attributes:
        amplitude: (H, W) float32, or None when nothing was reconstructed.
        phase: (H, W) float32 radians in (−π, π], or None.
        results: see :class:`CdiResults`.
    """

    amplitude: NDArray[np.float32] | None
    phase: NDArray[np.float32] | None
    results: CdiResults

    def __repr__(self) -> str:
        """One line: what it is and how good, never an array."""
        made = self.results["reconstruction"]
        shape = "no image" if self.amplitude is None else f"amplitude and phase {size(self.amplitude.shape)} px"
        return line("CdiResult", self.results["backend"], shape, "" if made is None else figures_words(made))

    def _repr_html_(self) -> str:
        """The same for a notebook, with small pictures."""
        return card(self)

    def __iter__(self) -> Iterator[Any]:
        return iter((self.amplitude, self.phase, self.results))
