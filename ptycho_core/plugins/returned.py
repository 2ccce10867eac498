"""What an engine hands back is checked once, at the border, the same for every engine (specs/30-backend-protocol)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..config import TrainingConfig
from ..data.container import PtychoDataContainer, Statistics
from ..data.results import Reconstruction
from ..errors import BackendError, BackendProtocolError, CollapseError
from ..protocol import TrainedModel
from .guard import origin_of

__all__ = ["check_model", "check_reconstruction"]

_LIT = 0.1
"""Pixels with at least this fraction of the largest coverage decide whether an object is constant."""


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


def check_reconstruction(
    reconstruction: Any, data: PtychoDataContainer, engine_name: str, collapse_threshold: float
) -> Reconstruction:
    """Check what ``reconstruct`` returned for a container.

    Args:
        reconstruction: what the engine returned.
        data: the container that it was given.
        engine_name: for the message.
        collapse_threshold: least relative variation of an object that is not constant; 0 accepts any.

    Raises:
        BackendProtocolError: not a Reconstruction, or a field of another type or shape.
        BackendError: values that are not finite.
        CollapseError: the object is constant.
    """
    if not isinstance(reconstruction, Reconstruction):
        raise BackendProtocolError(
            f"{origin_of(engine_name)}: reconstruct returned a {type(reconstruction).__name__}; "
            "it must be a Reconstruction."
        )
    N, M = data.raw.side, data.raw.n_frames
    _array(reconstruction.object, "the object", np.complex64, (None, None), engine_name)
    _array(reconstruction.coverage, "the coverage", np.float32, reconstruction.object.shape, engine_name)
    _array(reconstruction.origin_px, "origin_px", np.float64, (2,), engine_name)
    _array(reconstruction.probe, "the probe", np.complex64, (None, N, N), engine_name)
    _array(reconstruction.positions_px, "positions_px", np.float64, (M, 2), engine_name)
    _array(reconstruction.nominal_positions_px, "nominal_positions_px", np.float64, (M, 2), engine_name)
    for name in ("scale", "r_factor"):
        number = getattr(reconstruction, name)
        if not isinstance(number, (int, float)) or isinstance(number, bool):
            raise BackendProtocolError(f"{origin_of(engine_name)}: {name} = {number!r}; it must be a float.")
        if not np.isfinite(number) or number < 0:
            raise BackendError(f"{origin_of(engine_name)}: {name} = {number!r}; it must be finite and ≥ 0.")
    _check_variation(reconstruction, engine_name, collapse_threshold)
    return reconstruction


def _check_variation(reconstruction: Reconstruction, engine_name: str, threshold: float) -> None:
    coverage = reconstruction.coverage
    lit = reconstruction.object[(coverage > 0) & (coverage >= _LIT * coverage.max())].astype(np.complex128)
    if not lit.size:
        raise BackendError(f"{origin_of(engine_name)}: the coverage is 0 everywhere; nothing was reconstructed.")
    level = float(np.abs(lit).mean())
    variation = float(lit.std()) / level if level > 0 else 0.0
    if variation < threshold:
        raise CollapseError(
            f"{origin_of(engine_name)}: the reconstructed object is constant (relative variation {variation:.2g}, "
            f"collapse_threshold {threshold:.2g}). Train for more epochs, with another seed or a smaller "
            "learning_rate; for a sample that is truly flat set collapse_threshold = 0."
        )
