"""Amplitude or counts: what the stored frames are is stated, never guessed (specs/10-data).

Squaring counts, or failing to square amplitudes, gives a plausible but wrong image. A guess from the values is shown to
people, in errors and in an inspection; it is never acted on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.frames import rounding
from ..errors import ConfigError, DataError

__all__ = [
    "MEASUREMENTS",
    "UnstatedMeasurementError",
    "doubt",
    "guess_measurement",
    "resolve_measurement",
    "unstated_note",
]

MEASUREMENTS = ("amplitude", "counts", "intensity")
_LOOKS = {"counts": "counts: all are whole numbers", "amplitude": "amplitudes: their squares are whole numbers"}
_TELLING = 0.05  # where rounding reaches farther than this, numbers of any kind look whole


class UnstatedMeasurementError(DataError):
    """Neither the file nor the caller says whether frames are amplitudes or counts.

    Attributes:
        guess: what the values look like, ``amplitude``, ``counts`` or None.
    """

    def __init__(self, message: str, guess: str | None = None) -> None:
        super().__init__(message)
        self.guess = guess


def guess_measurement(values: NDArray[Any]) -> str | None:
    """Say what values look like: whole numbers are counts, numbers with whole squares are amplitudes.

    Args:
        values: (...) real numbers as stored, a sample of the frames.

    Returns:
        ``counts``, ``amplitude``, or None when neither shows (noise was subtracted, or only 0 and 1 occur).
    """
    tolerance = rounding(np.asarray(values).dtype)
    sample = np.asarray(values, dtype=np.float64).ravel()
    sample = sample[np.isfinite(sample) & (sample > 0)]
    if _whole_share(sample, tolerance) == 1.0:  # squares that were stored before they were made whole again, too
        return "counts" if sample.max() > 1 else None
    return "amplitude" if _whole_share(sample**2, tolerance) > 0.99 else None


def _whole_share(numbers: NDArray[np.float64], tolerance: float) -> float:
    """Which part of some numbers is whole, of those that are small enough to tell; 0 where none is."""
    numbers = numbers[numbers * tolerance < _TELLING]
    if not numbers.size:
        return 0.0
    return float((np.abs(numbers - np.rint(numbers)) <= tolerance * numbers).mean())


def resolve_measurement(name: str, stated: str | None, given: str | None, sample: NDArray[Any] | None = None) -> str:
    """Agree on ``amplitude`` or ``counts`` from what the file states and what the caller gives.

    Args:
        name: the file, for messages.
        stated: by the file, or None.
        given: by the caller, or None.
        sample: some values of the frames, to say in the error what they look like.

    Raises:
        ConfigError: `given` is no measurement.
        DataError: the file states nonsense, or the opposite of `given`, or nobody states anything.
    """
    allowed = "'amplitude' (square roots of photon counts) or 'counts' (photons; 'intensity' means the same)"
    if given is not None and given not in MEASUREMENTS:
        raise ConfigError(f"measurement = {given!r}; allowed: {allowed}.")
    if stated is not None and stated not in MEASUREMENTS:
        raise DataError(f"{name}: states measurement {stated!r}; allowed: {allowed}.")
    given = "counts" if given == "intensity" else given
    stated = "counts" if stated == "intensity" else stated
    if given and stated and given != stated:
        raise DataError(
            f"{name}: states that its frames are {stated}, but measurement {given!r} was asked for. "
            f"Leave out --measurement, or correct the file if it is wrong."
        )
    if stated or given:
        return stated or given or ""
    guess = None if sample is None else guess_measurement(sample)
    hint = f" They look like {_LOOKS[guess]}." if guess else ""
    raise UnstatedMeasurementError(
        f"{name}: does not say whether its frames are amplitudes (square roots of photon counts) or counts. "
        f"State it: --measurement amplitude|counts (measurement='amplitude' or 'counts').{hint}",
        guess,
    )


def unstated_note(resolved: str) -> str:
    """The assumption to record when only the caller said what the frames are."""
    return f"The file does not say what its frames are; they were read as {resolved}, as asked for."


def doubt(resolved: str, sample: NDArray[Any] | None) -> list[str]:
    """Say so, in at most one sentence, when the values look like the other measurement than the resolved one."""
    guess = None if sample is None else guess_measurement(sample)
    if guess in (None, resolved):
        return []
    return [f"Frames were read as {resolved}, but the values look like {_LOOKS[guess or '']}."]
