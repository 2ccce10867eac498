"""What an engine hands back is checked once, at the border, the same for every engine (specs/30-backend-protocol)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import TrainingConfig
from ..data.container import PtychoDataContainer, Statistics, integer_corners
from ..data.results import Image
from ..errors import BackendError, BackendProtocolError, CollapseError
from ..physics.relative import lit, relative_variation
from ..protocol import TrainedModel
from .guard import origin_of

__all__ = ["check_counts", "check_image", "check_model"]

_SINGLE = 1e-4
"""By how much of its largest value an object may differ from the product of its slices, both in single precision."""


def _array(value: Any, what: str, dtype: type, shape: tuple[int | None, ...], engine_name: str) -> None:
    """Check type, dtype, shape (None: any length but 0) and that every value is finite."""
    if not isinstance(value, np.ndarray):
        raise BackendProtocolError(
            f"{origin_of(engine_name)}: {what} is a {type(value).__name__}; it must be an array."
        )
    fits = value.ndim == len(shape) and all(
        n == m or (m is None and n) for n, m in zip(value.shape, shape, strict=True)
    )
    if value.dtype != dtype or not fits:
        raise BackendProtocolError(
            f"{origin_of(engine_name)}: {what} is {value.dtype} {value.shape}; it must be {np.dtype(dtype).name} "
            f"({', '.join('any' if n is None else str(n) for n in shape)})."
        )
    if not np.isfinite(value).all():
        raise BackendError(
            f"{origin_of(engine_name)}: {what} holds {int((~np.isfinite(value)).sum())} NaN or infinite values; "
            "the run diverged. Train again with a smaller learning_rate."
        )


def _check_history(history: Any, engine_name: str) -> None:
    who = f"{origin_of(engine_name)}: history"
    if not isinstance(history, Mapping) or "train_loss" not in history:
        raise BackendProtocolError(f"{who} must be a mapping with 'train_loss'; it is {history!r:.200}.")
    for name, values in history.items():
        numbers = isinstance(values, list) and all(isinstance(v, float) for v in values)
        if not isinstance(name, str) or not numbers:
            raise BackendProtocolError(f"{who}[{name!r}] must be a list of float; it is {values!r:.200}.")
        if not np.isfinite(values).all():
            first = int(np.flatnonzero(~np.isfinite(values))[0])
            raise BackendError(
                f"{who}[{name!r}] is {values[first]} in epoch {first + 1}; the run diverged. Train again with a "
                "smaller learning_rate."
            )


def check_model(model: Any, engine_name: str) -> TrainedModel:
    """Check what ``train`` or ``load`` returned.

    Args:
        model: what the engine returned.
        engine_name: for the message.

    Raises:
        BackendProtocolError: not a TrainedModel, or an attribute of another type or shape.
        BackendError: a loss or the probe is not finite.
    """
    if not isinstance(model, TrainedModel):
        wanted = ("backend", "config", "history", "probe", "statistics", "checkpoint_path")
        missing = [name for name in wanted if not hasattr(model, name)]
        raise BackendProtocolError(
            f"{origin_of(engine_name)} returned a {type(model).__name__}; a TrainedModel must have "
            f"{', '.join(wanted)}, and it lacks {', '.join(missing)}."
        )
    if not isinstance(model.statistics, Statistics) or not isinstance(model.config, TrainingConfig):
        raise BackendProtocolError(
            f"{origin_of(engine_name)}: the model's statistics are a {type(model.statistics).__name__} and its config "
            f"a {type(model.config).__name__}; they must be a Statistics and a TrainingConfig."
        )
    if model.checkpoint_path is not None and not isinstance(model.checkpoint_path, Path):
        raise BackendProtocolError(f"{origin_of(engine_name)}: checkpoint_path must be a Path or None.")
    _array(model.probe, "the model's probe", np.complex64, (None, None, None), engine_name)
    _check_history(model.history, engine_name)
    return model


def check_image(image: Any, scan: PtychoDataContainer, engine_name: str, collapse_threshold: float) -> Image:
    """Check what ``reconstruct`` or ``refine`` returned for a scan.

    Args:
        image: what the engine returned.
        scan: the scan that it was given.
        engine_name: for the message.
        collapse_threshold: least relative variation of an object that is not constant; 0 accepts any.

    Raises:
        BackendProtocolError: not an Image, a field of another type or shape, a used frame beyond its canvas, or slices
            that are not those of the object.
        BackendError: values that are not finite.
        CollapseError: the object is constant.
    """
    who = origin_of(engine_name)
    if not isinstance(image, Image):
        raise BackendProtocolError(
            f"{who}: it returned a {type(image).__name__}; it must be an Image (engines no longer score: see "
            "ptycho_core.enginekit.stitching.make_image)."
        )
    N, M = scan.raw.side, scan.raw.n_frames
    _array(image.object, "the object", np.complex64, (None, None), engine_name)
    _array(image.coverage, "the coverage", np.float32, image.object.shape, engine_name)
    _array(image.origin_px, "origin_px", np.float64, (2,), engine_name)
    _array(image.probe, "the probe", np.complex64, (None, N, N), engine_name)
    _array(image.positions_px, "positions_px", np.float64, (M, 2), engine_name)
    if not isinstance(image.scale, (int, float)) or isinstance(image.scale, bool):
        raise BackendProtocolError(f"{who}: scale = {image.scale!r}; it must be a float.")
    if not np.isfinite(image.scale) or image.scale <= 0:
        raise BackendError(f"{who}: scale = {image.scale!r}; it must be finite and above 0.")
    _check_physics(image, M, engine_name)
    plain = isinstance(image.stats, Mapping) and all(
        isinstance(name, str) and isinstance(value, (bool, int, float, str)) for name, value in image.stats.items()
    )
    if not plain:
        raise BackendProtocolError(f"{who}: stats = {image.stats!r:.200}; they must map names to plain values.")
    corners, _ = integer_corners(image.positions_px[scan.used_frames], N)
    inner = corners - np.round(image.origin_px).astype(np.int64)
    if inner.min() < 0 or (inner.max(axis=0) + N > np.array(image.object.shape)).any():
        raise BackendProtocolError(
            f"{who}: the object is {image.object.shape} from {image.origin_px.tolist()}, and used frames of the scan "
            "lie beyond it; its canvas must hold the patch of every frame that is trained on or held out."
        )
    _check_variation(image, engine_name, collapse_threshold)
    return image


def _check_physics(image: Image, M: int, engine_name: str) -> None:
    """Check slices, weights of modes, and whose forward model explains the image (DATA-23)."""
    who = origin_of(engine_name)
    if image.forward_model not in ("", engine_name):
        raise BackendProtocolError(
            f"{who}: forward_model = {image.forward_model!r}; it must be {engine_name!r}, or empty where the forward "
            "model of core explains the image."
        )
    if image.mode_weights is not None:
        _array(image.mode_weights, "mode_weights", np.float32, (M, len(image.probe)), engine_name)
        if not image.forward_model and image.mode_weights.min() < 0:
            raise BackendProtocolError(
                f"{who}: mode_weights go down to {image.mode_weights.min():.3g}; by the forward model of core they are "
                "parts of an intensity, and must be at least 0."
            )
    if image.slices is None:
        if image.slice_spacing_m is not None:
            raise BackendProtocolError(f"{who}: slice_spacing_m = {image.slice_spacing_m!r} without slices.")
        return
    _array(image.slices, "the slices", np.complex64, (None, *image.object.shape), engine_name)
    spacing = image.slice_spacing_m
    if not isinstance(spacing, float) or not (np.isfinite(spacing) and spacing > 0):
        raise BackendProtocolError(f"{who}: slice_spacing_m = {spacing!r}; with slices it must be metres, above 0.")
    if not image.forward_model:
        raise BackendProtocolError(
            f"{who}: the image has {len(image.slices)} slices, which the forward model of core does not explain; "
            f"forward_model must be {engine_name!r}."
        )
    off = np.abs(np.prod(image.slices.astype(np.complex128), axis=0) - image.object).max()
    if off > _SINGLE * np.abs(image.object).max():
        raise BackendProtocolError(
            f"{who}: the product of the slices differs from the object by up to {off:.3g}; the object must be it."
        )


def check_counts(counts: Any, scan: PtychoDataContainer, frames: NDArray[np.int64], engine_name: str) -> NDArray[Any]:
    """Check what ``expected_counts`` returned for some frames (n,).

    Raises:
        BackendProtocolError: not an array (n, N, N) of float32 or float64.
        BackendError: negative values, or values that are not finite.
    """
    shape = (len(frames), scan.raw.side, scan.raw.side)
    if not isinstance(counts, np.ndarray) or counts.shape != shape or counts.dtype not in (np.float32, np.float64):
        given = f"{counts.dtype} {counts.shape}" if isinstance(counts, np.ndarray) else type(counts).__name__
        raise BackendProtocolError(
            f"{origin_of(engine_name)}: expected_counts returned {given}; it must be float32 or float64 {shape}."
        )
    if not np.isfinite(counts).all() or counts.min() < 0:
        raise BackendError(
            f"{origin_of(engine_name)}: expected_counts returned values that are negative or not finite; the image "
            "cannot be scored."
        )
    return counts


def _check_variation(image: Image, engine_name: str, threshold: float) -> None:
    weight = lit(image.coverage)
    if not weight.any():
        raise BackendError(f"{origin_of(engine_name)}: the coverage is 0 everywhere; nothing was reconstructed.")
    variation = relative_variation(image.object.astype(np.complex128), weight)
    if variation < threshold:
        raise CollapseError(
            f"{origin_of(engine_name)}: the reconstructed object is constant (relative variation {variation:.2g}, "
            f"collapse_threshold {threshold:.2g}). Train for more epochs, with another seed or a smaller "
            "learning_rate; for a sample that is truly flat set collapse_threshold = 0."
        )
