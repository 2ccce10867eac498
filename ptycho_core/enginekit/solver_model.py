"""The model of a solver: a finished object, which a scan can be cut out of but which knows nothing beyond it.

Beside it what a solver leaves on the way: a checkpoint, by the rule that every engine resumes by.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle, read_bundle
from ..config import InferenceConfig, TrainingConfig
from ..data.container import PtychoDataContainer, Statistics, integer_corners
from ..data.results import Image
from ..data.shown import line, size
from ..errors import ArchiveError, DataError
from ..physics.patches import extract
from ..physics.relative import peak_intensity
from ..protocol import Progress, ProgressEvent
from ..text import counted
from .checkpoint import read_checkpoint, write_checkpoint
from .model_file import common_of, write_model
from .network_training import HISTORY_FILE, check_resumable, write_history
from .stitching import Stitcher, make_image, probe_weights, slices_shown

__all__ = [
    "History",
    "SolverModel",
    "leave_checkpoint",
    "load_solver",
    "reconstruct_solved",
    "save_solver",
    "take_checkpoint",
]

_CHUNK = 256
_WRITTEN = ("object", "origin_px", "slices", "mode_weights")
_STATE = "state."
"""Before the names of what solvers once kept in bundles to resume from; nothing reads it any more."""

History = dict[str, list[float]]
"""Name of a loss → one float an epoch."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SolverModel:
    """What a solver found.

    Attributes:
        backend: engine name.
        config: as trained with.
        history: name → one float an epoch.
        probe: (P, N, N) complex64 in the end.
        statistics: of the training split.
        scale: s in the end.
        object: (H, W) complex64.
        origin_px: (2,) int64 scan coordinates (y, x) of the corner of pixel (0, 0).
        slices: (L, H, W) complex64, of which `object` is the product, or None.
        slice_spacing_m: metres between two of them, or None.
        mode_weights: (M, P) float32, what each frame of the scan takes of each mode, or None.
        forward_model: name of the engine where only its own forward model explains all this, or empty.
        checkpoint_path: where training can be resumed from, or None.
    """

    backend: str
    config: TrainingConfig
    history: Mapping[str, list[float]]
    probe: NDArray[np.complex64]
    statistics: Statistics
    scale: float
    object: NDArray[np.complex64]
    origin_px: NDArray[np.int64]
    slices: NDArray[np.complex64] | None = None
    slice_spacing_m: float | None = None
    mode_weights: NDArray[np.float32] | None = None
    forward_model: str = ""
    checkpoint_path: Path | None = None

    def __repr__(self) -> str:
        """One line: what it is and how large, never an array."""
        epochs = counted(len(self.history.get("train_loss", ())), "epoch")
        return line("SolverModel", self.backend, epochs, f"object {size(self.object.shape)} px")

    @classmethod
    def of_image(
        cls,
        image: Image,
        *,
        backend: str,
        config: TrainingConfig,
        history: Mapping[str, list[float]],
        statistics: Statistics,
        checkpoint_path: Path | None = None,
    ) -> SolverModel:
        """The model that knows no more than an image, of any kind."""
        return cls(
            backend=backend,
            config=config,
            history=history,
            probe=image.probe,
            statistics=statistics,
            scale=image.scale,
            object=image.object,
            origin_px=np.round(image.origin_px).astype(np.int64),
            slices=image.slices,
            slice_spacing_m=image.slice_spacing_m,
            mode_weights=image.mode_weights,
            forward_model=image.forward_model,
            checkpoint_path=checkpoint_path,
        )


def save_solver(model: SolverModel, path: Path, packages: Collection[str]) -> None:
    """Write a model as a bundle without a generator (specs/50-model-bundle).

    Args:
        model: what to write.
        path: file, by convention named ``model.ptycho``.
        packages: modules whose versions are kept with it.

    Raises:
        ArchiveError, OutputError: see ``bundle.write_bundle``.
    """
    weights: dict[str, NDArray[Any]] = {
        "object": _parts(model.object),
        "origin_px": model.origin_px.astype(np.int64),
    }
    if model.slices is not None:
        weights["slices"] = _parts(model.slices)
    if model.mode_weights is not None:
        weights["mode_weights"] = model.mode_weights.astype(np.float32)
    write_model(
        model,
        path,
        packages,
        generator=None,
        weights=weights,
        forward_model=model.forward_model,
        slice_spacing_m=model.slice_spacing_m,
    )


def _parts(array: NDArray[Any]) -> NDArray[np.float32]:
    """(…) complex64 as (…, 2) float32, real and imaginary part."""
    array = np.ascontiguousarray(array, np.complex64)
    return array.view(np.float32).reshape(*array.shape, 2)


def _whole(parts: NDArray[Any]) -> NDArray[np.complex64]:
    """(…, 2) float32 as (…) complex64."""
    return np.ascontiguousarray(parts).view(np.complex64)[..., 0]


def _object_in(bundle: Bundle, path: Path) -> tuple[NDArray[np.complex64], NDArray[np.int64]]:
    """The object (H, W) in a bundle and where it lies.

    Raises:
        ArchiveError: it is not there, of another shape or dtype, or beside something that no solver writes.
    """
    obj, origin = bundle.weights.get("object"), bundle.weights.get("origin_px")
    formed = obj is not None and obj.ndim == 3 and obj.shape[-1] == 2 and obj.dtype == np.float32
    if obj is None or not formed or origin is None or origin.shape != (2,) or origin.dtype != np.int64:
        found = ", ".join(f"{name!r} {v.shape} {v.dtype}" for name, v in sorted(bundle.weights.items())) or "nothing"
        raise ArchiveError(
            f"{path}: it holds {found}; a solver writes 'object' (H, W, 2) float32 and 'origin_px' (2,) int64. "
            "Train again."
        )
    foreign = [n for n in sorted(bundle.weights) if n not in _WRITTEN and not n.startswith(_STATE)]
    if foreign:
        raise ArchiveError(
            f"{path}: it holds {foreign[0]!r}, which no solver writes; allowed: {', '.join(map(repr, _WRITTEN))}. "
            "Train again."
        )
    return _whole(obj), origin


def _more_in(bundle: Bundle, shape: tuple[int, ...], path: Path) -> dict[str, Any]:
    """Slices of an object (H, W) and weights of modes in a bundle, by the names of a model's attributes.

    Raises:
        ArchiveError: another shape or dtype, or slices without their spacing or the other way round.
    """
    slices, weights, P = bundle.weights.get("slices"), bundle.weights.get("mode_weights"), len(bundle.probe)
    fits = slices is None or (slices.ndim == 4 and slices.shape[1:] == (*shape, 2) and slices.dtype == np.float32)
    if not fits or (slices is None) != (bundle.slice_spacing_m is None):
        found = "none" if slices is None else f"{slices.shape} {slices.dtype}"
        raise ArchiveError(
            f"{path}: its slices are {found}, {bundle.slice_spacing_m} m apart, of an object {shape}; a solver writes "
            f"(L, {shape[0]}, {shape[1]}, 2) float32 with a spacing, or neither. Train again."
        )
    if weights is not None and (weights.ndim != 2 or weights.shape[1] != P or weights.dtype != np.float32):
        raise ArchiveError(
            f"{path}: its mode_weights are {weights.shape} {weights.dtype}; a solver writes (M, {P}) float32. Train "
            "again."
        )
    return {
        "slices": None if slices is None else _whole(slices),
        "slice_spacing_m": bundle.slice_spacing_m,
        "mode_weights": weights,
        "forward_model": bundle.forward_model,
    }


def load_solver(path: Path, backend: str) -> SolverModel:
    """Read a bundle of an engine's own.

    Raises:
        ArchiveError: damaged, unsafe, or of another engine; both are named.
    """
    bundle = read_bundle(path, engine=backend)
    if bundle.backend != backend or bundle.generator is not None:
        raise ArchiveError(
            f"{path}: it was made by engine '{bundle.backend}'; engine '{backend}', a solver, reads its own only. "
            f"Load it with backend = {bundle.backend!r}."
        )
    obj, origin = _object_in(bundle, path)
    return SolverModel(**common_of(bundle, backend), object=obj, origin_px=origin, **_more_in(bundle, obj.shape, path))


def reconstruct_solved(
    model: SolverModel, scan: PtychoDataContainer, config: InferenceConfig, progress: Progress
) -> Image:
    """Cut what the training frames of a scan cover out of a finished object.

    Args:
        model: what a solver found.
        scan: the scan.
        config: ``central_crop_px`` is read.
        progress: told of frames.

    Raises:
        DataError: the scan leaves the object; a solver knows nothing beyond it. Or its frames are others than those
            that the model has weights for.
    """
    raw, weights = scan.raw, model.mode_weights
    if weights is not None and len(weights) != raw.n_frames:
        raise DataError(
            f"{raw.source.path or 'scan'}: it has {raw.n_frames} frames, and the model of engine '{model.backend}' "
            f"holds the weights of the probe's modes for {len(weights)}; it is of another scan. Train on this scan."
        )
    stitcher = Stitcher.for_scan(scan, config.central_crop_px)
    corners, rest = integer_corners(raw.positions_px, raw.side)
    inner, used = corners - model.origin_px, scan.used_frames
    if inner[used].min() < 0 or (inner[used].max(axis=0) + raw.side > np.array(model.object.shape)).any():
        raise DataError(
            f"{raw.source.path or 'scan'}: it reaches beyond the object that engine '{model.backend}' solved; a "
            "solver's model holds for the scan it was made from. Train on this scan."
        )
    frames = scan.train_frames
    for start in range(0, len(frames), _CHUNK):
        chosen = frames[start : start + _CHUNK]
        light = probe_weights(scan.probe, rest[chosen])
        stitcher.add(extract(model.object, inner[chosen], raw.side), light, corners[chosen])
        progress(ProgressEvent(stage="reconstruct", done=start + len(chosen), total=len(frames)))
    obj, coverage = stitcher.finish(peak_intensity(scan.probe))
    slices = _slices_on(model, stitcher.origin_px, coverage)
    if slices is not None:
        obj = np.prod(slices, axis=0)
    return make_image(
        obj,
        coverage,
        stitcher.origin_px,
        scan.probe,
        scan.statistics.scale * model.scale / model.statistics.scale,
        raw.positions_px,
        slices=slices,
        slice_spacing_m=model.slice_spacing_m,
        mode_weights=weights,
        forward_model=model.forward_model,
    )


def _slices_on(
    model: SolverModel, origin_px: NDArray[np.int64], coverage: NDArray[np.float32]
) -> NDArray[np.complex64] | None:
    """The slices (L, H, W) of a thick object on a canvas within it, as an image shows them; None for a thin one."""
    if model.slices is None:
        return None
    (y, x), (height, width) = origin_px - model.origin_px, coverage.shape
    return slices_shown(model.slices[:, y : y + height, x : x + width], coverage > 0)


def leave_checkpoint(
    path: Path, backend: str, state: Mapping[str, NDArray[Any]], history: History, facts: Mapping[str, Any]
) -> None:
    """Write a checkpoint, and the history beside it.

    Args:
        path: file.
        backend: name of the engine.
        state: what the solver carries from one epoch to the next, by name, to the last bit; no complex arrays.
        history: losses up to now.
        facts: what decides the run; see ``enginekit.network_training.run_facts``.

    Raises:
        OutputError: a file cannot be written; an older one is still there.
    """
    write_checkpoint(path, backend, state, {"run": dict(facts), "history": dict(history)})
    write_history(path.parent / HISTORY_FILE, history)


def take_checkpoint(
    path: Path, backend: str, losses: Collection[str], facts: Mapping[str, Any], epochs: int
) -> tuple[dict[str, NDArray[Any]], History]:
    """Read the state and the history of a checkpoint that a run can go on from.

    The scan's digest is among the facts and decides the shapes of object and probe: what differs is told by that.

    Args:
        path: file.
        backend: name of the engine.
        losses: names of the losses that this run has a history of.
        facts: what decides this run.
        epochs: asked for.

    Raises:
        ArchiveError: no checkpoint of this engine, one of another run, or one with more epochs than are asked for.
    """
    state, found = read_checkpoint(path, backend)
    run, history = found.get("run"), _checked_history(found.get("history"), losses)
    if not isinstance(run, dict):
        raise ArchiveError(
            f"{path}: it does not say which run it is of; give resume_from a file from a training folder."
        )
    check_resumable(path, ({}, {}), (run, facts), len(history["train_loss"]) if history else 0, epochs)
    if history is None:
        raise ArchiveError(
            f"{path}: its history must hold as many losses of {' and of '.join(losses)}, and at least one; train again."
        )
    return state, history


def _checked_history(history: Any, losses: Collection[str]) -> History | None:
    """A history of these losses, as many of each and at least one; None for anything else."""
    if not isinstance(history, dict) or sorted(history) != sorted(losses):
        return None
    numbers = all(isinstance(values, list) and all(isinstance(x, float) for x in values) for values in history.values())
    if not numbers or len({len(values) for values in history.values()}) != 1:
        return None
    return history if history["train_loss"] and np.isfinite(list(history.values())).all() else None
