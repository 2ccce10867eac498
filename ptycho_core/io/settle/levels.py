"""Levels of the frames: the background under them, and what one photon is in them.

Counts that were divided by something are whole multiples of one number, their quantum, which is what one photon is.
Where noise of the readout or rounding has blurred that, the noise itself tells it: the variance of a pixel is the gain
times its mean, plus that of the readout, see :mod:`~ptycho_core.io.settle.noise`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.frames import ArrayFrames, OffsetFrames, WindowedFrames, rounding
from ...data.recording import Recording
from ...errors import ConfigError, DataError
from ...reader_protocol import ReadOptions
from ..planes import read_plane
from .noise import gain_by_noise, gain_of_white_noise
from .sampling import spread_frames
from .window import Window

__all__ = ["background_of", "gain_by_noise", "gain_of", "quantum_of", "with_offset"]

_SAMPLE_PX = 2**22
_LEAST, _MOST = 4, 64
_VALUES = 2**18  # looked at for a quantum
_NEAR = 1e-3  # of a quantum, and the rounding of the value
_TELLING = 0.1  # where rounding reaches farther than this part of a quantum, any value is near a multiple
_CHANCE = 1e-2  # that as many values lie so near to multiples of a number that is not their quantum
_ODD_GAIN = 3.0


def with_offset(recording: Recording, offset: float | None, notes: list[str]) -> Recording:
    """The recording with a number added to its values and to the background that is expected under them.

    Frames from which a dark level was taken off have values below 0, which no counts have. Adding a level to data and
    model alike leaves the light as it is; the variance of the read-out noise is the level that suits its statistics
    best (Snyder, Hammoud and White, J. Opt. Soc. Am. A 10, 1014 (1993)).

    Raises:
        ConfigError: the offset is no finite number above 0.
    """
    if offset is None:
        return recording
    if not 0 < offset < math.inf:
        raise ConfigError(f"offset = {offset}; it must be a finite number > 0, what was taken off the frames.")
    level = 0.0 if recording.background is None else recording.background
    background = np.full(recording.frames.shape[1:], offset) + level
    notes.append(f"{offset:g} was added to every value and to the background, as given; what was still below 0 is 0.")
    return replace(recording, frames=OffsetFrames(recording.frames, offset), background=background)


def background_of(
    recording: Recording,
    good: NDArray[np.bool_] | None,
    options: ReadOptions,
    window: Window,
    gain: float,
    name: str,
    notes: list[str],
) -> NDArray[Any] | None:
    """Expected background counts (N, N) on the window of the frames, photons, or None.

    What the file says is in the units of its frames; what the caller gives is in photons. It is cut and binned as
    frames are: the sum over the good pixels of a binned one, times the number of its pixels over that of the good ones.

    Raises:
        DataError: one of another shape than the frames, or with negative or non-finite values.
    """
    given, shape = options.background, (recording.frames.shape[1], recording.frames.shape[2])
    if given is None:
        if recording.background is None:
            return None
        level, what = recording.background, f"{name}: the background"
        level = level if gain == 1.0 else np.asarray(level, np.float64) / gain
    elif isinstance(given, Path):
        level, what = read_plane(given), f"{given}: the background"
        while level.ndim > 2 and level.shape[0] == 1:
            level = level[0]
        level = level + (options.offset or 0.0) / gain
        notes.append(f"The background is that of {given.name}, {float(np.nanmean(level)):.4g} counts a pixel.")
    else:
        level = np.full(shape, float(given) + (options.offset or 0.0) / gain)
        what = f"background = {given:g}: it"
        notes.append(f"A background of {given:g} counts a pixel was taken, as given.")
    if level.shape != shape:
        raise DataError(f"{what} has shape {level.shape} but frames are {shape[0]}×{shape[1]}; they must agree.")
    judged = level if good is None else level[good]
    if not np.isfinite(judged).all() or (judged < 0).any():
        least = float(np.nanmin(judged))
        raise DataError(f"{what} must be finite expected counts ≥ 0 in every good pixel; its least is {least:.4g}.")
    if good is not None and not (level >= 0).all():
        level = np.where(level >= 0, level, 0)
    if window.is_all(shape):
        return np.asarray(level)
    source = ArrayFrames(np.asarray(level, np.float32)[None])
    windowed = WindowedFrames(source, window.top, window.left, window.N, window.bin, good)
    return np.asarray(windowed.read(np.array([0]))[0])


def gain_of(
    recording: Recording,
    good: NDArray[np.bool_] | None,
    options: ReadOptions,
    name: str,
    notes: list[str],
    warnings: list[str],
) -> float:
    """Stored value of one photon.

    A number is taken as given. ``auto`` estimates it: the quantum of the values, else their noise. Without either it is
    1, unless the values cannot be photons: all are at most 1 and some are no whole numbers.

    Raises:
        ConfigError: a gain that is none.
        DataError: ``auto``, and the frames do not tell.
    """
    given = options.gain
    if isinstance(given, str) and given != "auto":
        raise ConfigError(f"gain = {given!r}; it must be auto, or the stored value of one photon.")
    if given is not None and not isinstance(given, str):
        if not 0 < given < float("inf"):
            raise ConfigError(f"gain = {given}; it must be finite and > 0.")
        if given != 1.0:
            notes.append(f"Stored values were divided by {given:.6g}, the gain given, which makes them photons.")
        return float(given)
    frames = _sample(recording, good, options.look_at)
    values = frames[:, np.ones(frames.shape[1:], bool) if good is None else good]
    if not (values > 0).any():
        return 1.0
    whole = _are_whole(values)
    no_photons = not whole and float(values.max()) <= 1.0
    if given is None and not no_photons:
        _doubt(frames, values, good, whole, warnings)
        return 1.0
    return _estimated(frames, values, good, given == "auto", name, notes, warnings)


def _estimated(
    frames: NDArray[np.float32],
    values: NDArray[np.float32],
    good: NDArray[np.bool_] | None,
    asked: bool,
    name: str,
    notes: list[str],
    warnings: list[str],
) -> float:
    """The gain, by the quantum of the values or by their noise.

    Raises:
        DataError: it was asked for, and neither tells.
    """
    why = "as asked" if asked else "since values that are all at most 1, and not whole, cannot be photons"
    quantum, gain = quantum_of(values), None
    if quantum is None or quantum == 1.0:  # photons, or whole numbers with the noise of a readout in them
        gain = gain_by_noise(frames, good)
        if quantum == 1.0 and gain is not None and gain < 1.0:  # less noise than photons have: shared among pixels?
            gain = gain_of_white_noise(frames, good)
    if gain is not None and (quantum is None or _is_odd(gain)):
        notes.append(
            f"By their noise a photon is {gain:.4g} in the stored values; they were divided by it, {why} (--gain)."
        )
        return gain
    if quantum is not None:
        if quantum != 1.0:
            notes.append(
                f"Stored values are whole multiples of {quantum:.6g}; they were divided by it, {why}, which makes them "
                "photons (--gain)."
            )
        return quantum
    cannot = "what a photon is in the stored values cannot be told, neither by a common divisor nor by their noise"
    if asked:
        raise DataError(f"{name}: {cannot}. Give it (--gain NUMBER), or leave --gain out.")
    warnings.append(
        f"Frames whose values are all at most 1, and not whole, are no photons, and {cannot}; they were taken as they "
        "are, so that figures against the noise mean nothing. Give the value of a photon (--gain NUMBER)."
    )
    return 1.0


def _doubt(
    frames: NDArray[np.float32],
    values: NDArray[np.float32],
    good: NDArray[np.bool_] | None,
    whole: bool,
    warnings: list[str],
) -> None:
    """Say where values cannot be photons, by their quantum or their noise, so that figures against it would mislead.

    A quantum is exact, whatever the object. Noise is believed only where it is no texture of the object.
    """
    quantum = quantum_of(values)
    if quantum is not None and _is_odd(quantum) and _tells(values, quantum):
        found = f"their values are whole multiples of {quantum:.4g}, so that a photon is that much"
    else:
        gain = gain_by_noise(frames, good)
        if gain is None or not _is_odd(gain) or gain_of_white_noise(frames, good) is None:
            return
        found = f"by the noise of their {'whole numbers' if whole else 'values'} a photon is about {gain:.2g} of them"
    warnings.append(
        f"Frames were read as photons, but {found}; figures against the noise would be off by that. If so, give "
        "--gain auto, or --gain NUMBER."
    )


def _is_odd(gain: float) -> bool:
    return not 1 / _ODD_GAIN < gain < _ODD_GAIN


def _tells(values: NDArray[np.float32], quantum: float) -> bool:
    """Whether more different values are multiples of a whole number than chance lets be; one always is, of itself."""
    more = len(np.unique(values[values > 0])) - 1
    return quantum < 1 or more * math.log(quantum) > -math.log(_CHANCE)


def _sample(recording: Recording, good: NDArray[np.bool_] | None, look_at: int | None) -> NDArray[np.float32]:
    """Some frames spread over the scan, 0 in bad pixels, (n, H, W)."""
    M, height, width = recording.frames.shape
    few = min(max(_SAMPLE_PX // max(height * width, 1), _LEAST), _MOST)
    frames = recording.frames.read(spread_frames(M, few, look_at))
    if good is not None:
        frames[:, ~good] = 0
    return frames


def _are_whole(values: NDArray[np.float32]) -> bool:
    off = np.abs(values - np.rint(values))
    return bool((off <= rounding(np.float32) * np.abs(values)).all())


def quantum_of(values: NDArray[np.floating[Any]]) -> float | None:
    """The largest number that all of some values are whole multiples of, as far as their rounding shows it.

    Args:
        values: (...) float32, or rounded to it, ≥ 0.

    Returns:
        The quantum, or None where there is none, or where too few different values could tell.
    """
    flat = np.asarray(values, np.float64).ravel()
    flat = np.unique(flat[:: max(1, flat.size // _VALUES)])
    flat = flat[flat > 0]
    error = rounding(np.float32) * flat
    steps = np.diff(flat, prepend=0.0)
    clear = steps > 20 * error
    if not clear.any():
        return None
    shortest = float(steps[clear].min())
    for parts in range(1, 7):  # neighbouring multiples need not both occur
        quantum = _fitted(flat, shortest / parts)
        if quantum is not None:
            return quantum
    return None


def _fitted(values: NDArray[np.float64], quantum: float) -> float | None:
    """A quantum made better by ever larger multiples of it, or None where values are none.

    Args:
        values: (n,) sorted.
        quantum: to some per cent.
    """
    error = rounding(np.float32)
    told = values[error * values < _TELLING * quantum]
    if not len(told):
        return None
    beyond = told - told[0]  # small multiples, whatever the values are themselves
    reach = 4.0
    while True:
        within = beyond[(beyond > 0) & (beyond < reach * quantum)]
        counts = np.rint(within / quantum)
        if counts.any():
            quantum = float(np.sum(within * counts) / np.sum(counts**2))
        if reach * quantum > beyond[-1]:
            break
        reach *= 2
    counts = np.rint(told / quantum)
    quantum = float(np.sum(told * counts) / np.sum(counts**2)) if counts.any() else quantum
    near = _NEAR + error * told / quantum
    if (np.abs(told / quantum - np.rint(told / quantum)) > near).any():
        return None
    if len(told) > 1 and np.log(2 * near[1:]).sum() > np.log(_CHANCE):
        return None
    common = float(np.gcd.reduce(np.rint(told / quantum).astype(np.int64)))
    return _round(quantum * common)


def _round(quantum: float) -> float:
    """A whole number where rounding alone keeps it from being one: ADU of whole gains."""
    whole = float(np.rint(quantum))
    return whole if whole >= 1 and abs(quantum - whole) < 1e-5 * whole else quantum
