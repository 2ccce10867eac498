"""Checkpoints of the NumPy engine: object, probe and positions to the last bit, in the precision they are swept in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_core.enginekit.state import ScanState
from ptycho_core.errors import ArchiveError

__all__ = ["CHECKPOINT", "arrays_of", "restore"]

CHECKPOINT = "numpy_checkpoint.safetensors"


def _parts(array: NDArray[Any]) -> NDArray[Any]:
    """(…) complex as (…, 2) real and imaginary parts: the format knows no complex128."""
    array = np.ascontiguousarray(array)
    return array.view(array.real.dtype).reshape(*array.shape, 2)


def arrays_of(state: ScanState) -> dict[str, NDArray[Any]]:
    """What a run goes on from, by name; the probe as it is swept with, times √scale."""
    return {"object": _parts(state.object), "probe": _parts(state.probe), "positions_px": state.positions_px}


def restore(state: ScanState, arrays: dict[str, NDArray[Any]], path: Path) -> None:
    """Put the arrays of a checkpoint of the same run into a state.

    Raises:
        ArchiveError: they are not what a state of this run is made of.
    """
    for name, wanted in arrays_of(state).items():
        found = arrays.get(name)
        if found is None or found.shape != wanted.shape or found.dtype != wanted.dtype:
            given = "missing" if found is None else f"{found.dtype} {found.shape}"
            raise ArchiveError(
                f"{path}: its {name} is {given}; a checkpoint of this run holds {wanted.dtype} {wanted.shape}. "
                "Resume with the scan and the settings it was made with, or train again."
            )
    for name, target in (("object", state.object), ("probe", state.probe)):
        target[...] = arrays[name].view(target.dtype)[..., 0]
    state.positions_px[...] = arrays["positions_px"]
