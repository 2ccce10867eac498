"""Levels of the frames: the background under them, and what one photon is in them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.recording import Recording
from ...reader_protocol import ReadOptions
from .window import Window

__all__ = ["background_of", "gain_of"]


def background_of(
    recording: Recording, options: ReadOptions, window: Window, gain: float, name: str, notes: list[str]
) -> NDArray[Any] | None:
    """Expected background counts (N, N) on the window of the frames, or None."""
    return recording.background


def gain_of(
    recording: Recording,
    good: NDArray[np.bool_] | None,
    options: ReadOptions,
    name: str,
    notes: list[str],
    warnings: list[str],
) -> float:
    """Stored value of one photon."""
    return 1.0
