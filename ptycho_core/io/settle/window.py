"""The square window of the detector that is used: cut about the beam, padded beyond the frames, binned."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...data.raw import SIDES, SIDES_IN_WORDS
from ...data.recording import Recording
from ...errors import ConfigError, DataError
from ...reader_protocol import ReadOptions
from ..claims import most_frame_px
from .centring import beam_centre

__all__ = ["Window", "check_large", "first_of", "window_of"]


@dataclass(frozen=True)
class Window:
    """Where frames are cut.

    Attributes:
        top: first detector row; negative where the window begins before it.
        left: first detector column.
        side: of the window, detector pixels before binning.
        bin: pixels binned along each axis.
    """

    top: int
    left: int
    side: int
    bin: int

    @property
    def N(self) -> int:
        """Side of the frames that come out."""
        return self.side // self.bin

    def is_all(self, shape: tuple[int, int]) -> bool:
        """Whether frames of a shape are left as they are."""
        return (self.top, self.left, self.bin) == (0, 0, 1) and shape == (self.side, self.side)


def check_large(shape: tuple[int, ...], options: ReadOptions, name: str) -> None:
    """Refuse frames that are too large for a window of all of them, before any is looked at: that takes memory.

    Raises:
        DataError: they are, and nothing says what of them to use.
    """
    height, width = shape[-2:]
    cut = options.crop is not None or options.pad is not None or options.bin != 1
    if not cut and min(height, width) > SIDES[-1]:
        raise DataError(f"{name}: frames are {height}×{width}; N must be {SIDES_IN_WORDS}. Crop or bin them.")


def first_of(centre: float, side: int, by: int) -> int:
    """First row, or column, of a window of `side` pixels about the one of zero frequency, which are binned by `by`."""
    # it belongs in the middle of the pixels that become pixel N/2; of an even number that is between two
    half = side / 2 + (by - 1) / 2
    return math.floor(centre - half + 0.5)


def window_of(
    recording: Recording, good: NDArray[np.bool_] | None, options: ReadOptions, name: str, notes: list[str]
) -> Window:
    """Where frames are cut; the largest even square about the beam where nothing is asked for."""
    height, width = recording.frames.shape[1:]
    if options.crop is not None and options.pad is not None:
        raise ConfigError("crop and pad are given both; the window has one side: give crop, or pad.")
    for key in ("crop", "pad", "bin"):
        value = getattr(options, key)
        if value is not None and not isinstance(value, int | np.integer):
            raise ConfigError(f"{key} = {value!r}; it must be a whole number.")
    if options.bin < 1:
        raise ConfigError(f"bin = {options.bin}; it must be a whole number ≥ 1.")
    unit = 2 * options.bin
    asked = options.crop if options.crop is not None else options.pad
    side = min(height, width) // unit * unit if asked is None else asked
    if options.crop is not None and not 0 < side <= max(height, width):
        raise ConfigError(f"crop = {side}, but frames are {height}×{width}; give 1 to {max(height, width)}, or pad.")
    if options.pad is not None and side < max(height, width):
        raise ConfigError(f"pad = {side}, but frames are {height}×{width}; give more, or crop.")
    if options.pad is not None and side**2 > max(most_frame_px(options.limits), height * width):
        raise ConfigError(
            f"pad = {side}; a window has {math.isqrt(most_frame_px(options.limits))} pixels a side at most, or the "
            "memory that --max_memory allows is not enough."
        )
    if side % unit or side // options.bin not in SIDES:
        if options.crop is None and options.pad is None and options.bin == 1:
            raise DataError(f"{name}: frames are {height}×{width}; N must be {SIDES_IN_WORDS}. Pad or bin them.")
        raise ConfigError(
            f"{name}: a window of {side} detector pixels binned by {options.bin} has {side / options.bin:g} pixels a "
            f"side; it must be {SIDES_IN_WORDS}. Give another crop, pad or bin."
        )
    y, x = beam_centre(recording, good, options.centre, name, notes)
    window = Window(first_of(y, side, options.bin), first_of(x, side, options.bin), side, options.bin)
    if not window.is_all((height, width)):
        binned = f", binned {options.bin}×{options.bin}" if options.bin > 1 else ""
        notes.append(
            f"Of frames of {height}×{width} a window of {side}×{side} about pixel ({y:.4g}, {x:.4g}) is used{binned}."
        )
    return window
