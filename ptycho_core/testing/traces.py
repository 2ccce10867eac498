"""What an engine could have left its mark on: arrays that it was given, and settings of the process."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import warnings
from dataclasses import fields

# the global generators are looked at here, to see that an engine leaves them alone; nothing depends on what is drawn
from random import getstate, random
from typing import Any

import numpy as np
from numpy.random import get_state, random_sample
from numpy.typing import NDArray

from ..data.container import PtychoDataContainer

__all__ = ["advance_global_generators", "arrays_in", "arrays_of", "differences", "digest", "process_state"]


def digest(array: NDArray[Any]) -> str:
    """A fingerprint of an array's values."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def arrays_in(value: Any) -> dict[str, NDArray[Any]]:
    """The arrays among the fields of a dataclass, by name."""
    found = {f.name: getattr(value, f.name) for f in fields(value)}
    return {name: array for name, array in found.items() if isinstance(array, np.ndarray)}


def arrays_of(scan: PtychoDataContainer) -> dict[str, NDArray[Any]]:
    """Every array that a container and its raw scan hold, by name, counts included."""
    raw = scan.raw
    unused = {f"frames: {reason}": frames for reason, frames in scan.unused.items()}
    return arrays_in(raw) | arrays_in(scan) | unused | {"counts": raw.frames.read(np.arange(raw.n_frames))}


def advance_global_generators() -> None:
    """Draw once, so that an engine which seeds them the same way in every training is seen to do so."""
    random()
    random_sample()  # noqa: NPY002


def process_state() -> dict[str, Any]:
    """Whatever of the process an engine could have changed, in words for people."""
    return {
        "the global random state of Python": getstate(),
        "the global random state of NumPy": [np.asarray(part).tolist() for part in get_state()],  # noqa: NPY002
        "NumPy's error settings": np.geterr(),
        "NumPy's print options": np.get_printoptions(),
        "the warning filters": list(warnings.filters),
        "the root logger's handlers": list(logging.root.handlers),
        "the root logger's level": logging.root.level,
        "the handler of SIGINT": signal.getsignal(signal.SIGINT),
        "the handler of SIGTERM": signal.getsignal(signal.SIGTERM),
        "the environment": dict(os.environ),
        "the current folder": os.getcwd(),
    }


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Names of what is another after than before."""
    return [what for what, value in before.items() if after[what] != value]
