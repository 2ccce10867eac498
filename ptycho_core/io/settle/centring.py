"""Where zero frequency lies on the detector: as the file or the caller says, or found on the mean pattern."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...data.recording import Recording
from ...errors import ConfigError
from ...physics.forward import mode_intensity
from ...physics.propagation import far_field
from ..centre import estimate_centre

__all__ = ["beam_centre", "mean_of_some"]

_FRAMES = 64


def beam_centre(
    recording: Recording,
    good: NDArray[np.bool_] | None,
    given: tuple[float, float] | str | None,
    name: str,
    notes: list[str],
) -> tuple[float, float]:
    """(y, x) detector pixel of zero frequency of the frames as stored.

    Args:
        recording: what was read.
        good: (H, W) True = good, or None.
        given: (y, x), ``auto``, or None for what the file says, or else (H // 2, W // 2).
        name: the file, for messages.
        notes: what was found is added here.

    Raises:
        ConfigError: a centre off the detector.
        DataError: ``auto``, and the mean pattern is dark.
    """
    height, width = recording.frames.shape[1:]
    if isinstance(given, str):
        if given != "auto":
            raise ConfigError(f"centre = {given!r}; it must be auto, or y,x in detector pixels.")
        found = estimate_centre(mean_of_some(recording), good, probe_intensity=_at_detector(recording), name=name)
        notes.append(found.describe())
        return found.centre_px
    if given is not None:
        if not (0 <= given[0] < height and 0 <= given[1] < width):
            raise ConfigError(f"centre = {given}, but frames are {height}×{width}; it must lie on them.")
        return float(given[0]), float(given[1])
    return recording.centre_px or (float(height // 2), float(width // 2))


def mean_of_some(recording: Recording) -> NDArray[np.float64]:
    """Mean of at most 64 frames spread over the scan, (H, W); NaN where the detector has no value."""
    M = recording.frames.shape[0]
    total = np.zeros(recording.frames.shape[1:])
    numbers = np.unique(np.linspace(0, M - 1, min(M, _FRAMES)).astype(np.int64))
    for number in numbers:
        total += recording.frames.read(np.array([number]))[0]
    return total / len(numbers)


def _at_detector(recording: Recording) -> NDArray[np.float64] | None:
    """Intensity (H, W) of the recording's probe at the detector; None without one, or in a near field."""
    probe, near = recording.probe, recording.propagation is not None and recording.propagation.is_near
    if probe is None or near or probe.shape[-2:] != recording.frames.shape[1:]:
        return None
    modes = np.asarray(probe, np.complex128)
    return mode_intensity(far_field(modes[None] if modes.ndim == 2 else modes))
