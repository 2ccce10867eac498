"""The model of this engine: a finished object with its probe, and its bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_core.bundle import Bundle, read_bundle, write_bundle
from ptycho_core.config import TrainingConfig
from ptycho_core.data.container import Statistics
from ptycho_core.errors import ArchiveError

__all__ = ["CHECKPOINT", "NAME", "PtychiModel", "read_model", "write_model"]

NAME = "ptychi"
CHECKPOINT = "model.ptycho"
_STATE = "state."


@dataclass(frozen=True, kw_only=True)
class PtychiModel:
    """A finished object: a solver has nothing that would apply to another sample.

    Attributes:
        config: as trained with.
        history: ``train_loss`` and, with held-out frames, ``test_loss``, one an epoch.
        probe: (P, N, N) complex64.
        statistics: of the training split.
        object: (H, W) complex64.
        origin_px: (2,) int64 scan coordinates (y, x) of the corner of pixel (0, 0).
        state: what the algorithm carries from one epoch to the next, by name; needed to resume only.
        checkpoint_path: where it was written, or None.
        backend: engine name.
    """

    config: TrainingConfig
    history: dict[str, list[float]]
    probe: NDArray[np.complex64]
    statistics: Statistics
    object: NDArray[np.complex64]
    origin_px: NDArray[np.int64]
    state: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    checkpoint_path: Path | None = None
    backend: str = NAME


def write_model(model: PtychiModel, path: Path) -> None:
    """Write a bundle that says it is a solver's: no generator."""
    weights: dict[str, NDArray[Any]] = {
        "object": np.stack([model.object.real, model.object.imag], axis=-1).astype(np.float32),
        "origin_px": model.origin_px.astype(np.int64),
    }
    weights |= {_STATE + name: values for name, values in model.state.items()}
    bundle = Bundle(
        backend=NAME,
        generator=None,
        side=model.probe.shape[-1],
        config=model.config,
        statistics=model.statistics,
        scale=model.statistics.scale,
        weights=weights,
        probe=model.probe,
        history=model.history,
    )
    write_bundle(path, bundle)


def read_model(path: Path) -> PtychiModel:
    """Read a bundle of this engine.

    Raises:
        ArchiveError: damaged, unsafe, or of another engine.
    """
    bundle = read_bundle(path)
    if bundle.backend != NAME or bundle.generator is not None:
        raise ArchiveError(
            f"{path}: it was made by engine '{bundle.backend}'; engine '{NAME}' reads its own only. Load it with "
            f"backend = {bundle.backend!r}."
        )
    obj, origin = bundle.weights.get("object"), bundle.weights.get("origin_px")
    well_formed = obj is not None and obj.ndim == 3 and obj.shape[-1] == 2 and obj.dtype == np.float32
    if obj is None or not well_formed or origin is None or origin.shape != (2,) or origin.dtype != np.int64:
        raise ArchiveError(f"{path}: it must hold 'object' (H, W, 2) float32 and 'origin_px' (2,) int64.")
    state = {name.removeprefix(_STATE): v for name, v in bundle.weights.items() if name.startswith(_STATE)}
    foreign = sorted(set(bundle.weights) - {"object", "origin_px"} - {_STATE + name for name in state})
    if foreign:
        raise ArchiveError(f"{path}: it holds {foreign[0]!r}, which a model of engine '{NAME}' has not.")
    return PtychiModel(
        config=bundle.config,
        history={name: list(values) for name, values in bundle.history.items()},
        probe=bundle.probe,
        statistics=bundle.statistics,
        object=np.ascontiguousarray(obj).view(np.complex64)[..., 0],
        origin_px=origin,
        state=state,
        checkpoint_path=Path(path),
    )
