"""Where the frames are while they are refined: on the host and in double precision, whatever the engine computes in.

A position is where it was read, moved by a linear map that all have in common, and by a step of its own which is kept
within a limit. Few numbers, and the same rules for every engine: so steppers share this, and cross the border with
corners and rests only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..data.container import PtychoDataContainer, integer_corners
from ..physics.corrections import affine_step
from ..protocol import StepLengths

__all__ = ["FramePositions"]

_FEWEST = 6
"""Frames that a linear map is fitted to, at least: twice as many as decide one."""


class FramePositions:
    """The positions of all frames of a scan, as they are now.

    Args:
        scan: the scan, with its positions as read.
        positions_px: (M, 2) centres (y, x) to start from.
        origin_px: (2,) scan coordinates (y, x) of the corner of the canvas.
        shape: (H, W) of the canvas; no used frame is moved beyond it. None sets no bound.

    Attributes:
        positions_px: (M, 2) float64 centres (y, x) of all frames of the scan.
        linear: (2, 2) float64 D: all positions were moved by D (r_j − m) from where they were read, r_j.
    """

    def __init__(
        self,
        scan: PtychoDataContainer,
        positions_px: NDArray[np.float64],
        origin_px: NDArray[np.int64],
        shape: tuple[int, int] | None = None,
    ) -> None:
        self.side = scan.raw.side
        self.origin_px = np.asarray(origin_px, np.int64)
        self.positions_px = np.array(positions_px, np.float64)
        self.linear = np.zeros((2, 2))
        self._used = scan.used_frames
        self._read = scan.raw.positions_px
        self._offset = self._read - self._read[self._used].mean(axis=0)
        self._bounds = (np.array([-np.inf] * 2), np.array([np.inf] * 2))
        if shape is not None:
            first = self.origin_px + (self.side - 1) / 2
            self._bounds = (first, first + np.array(shape) - self.side)

    def corners(self, frames: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Integer corners (J, 2) on the canvas and sub-pixel rests (J, 2) of some frames, as they are now (FM-2)."""
        whole, rest = integer_corners(self.positions_px[frames], self.side)
        return whole - self.origin_px, rest

    def move(self, frames: NDArray[np.int64], step: NDArray[np.float64], lengths: StepLengths, common: bool) -> None:
        """Move some frames by a step, and all frames by what the steps have in common where that is asked for.

        Args:
            frames: (J,) frames, each once.
            step: (J, 2) steps (y, x) of ``physics.steps.position_step``, object pixels.
            lengths: ``positions``, ``position_step_px``, ``position_limit_px`` and ``position_affine`` are read.
            common: whether the mean step is left out: frames that all move alike, and the object with them, explain
                the data as well.
        """
        step = lengths.positions * np.asarray(step, np.float64)
        if common:
            step = step - step.mean(axis=0)
        if lengths.position_affine and len(frames) >= _FEWEST:
            step = self._take_common(frames, np.clip(step, -lengths.position_step_px, lengths.position_step_px))
        step = np.clip(step, -lengths.position_step_px, lengths.position_step_px)
        nominal = self._read[frames] + self._offset[frames] @ self.linear.T
        now = self.positions_px[frames] - nominal
        # one that is beyond the limit already, by an earlier map or a wider limit, is not thrown back
        limit = np.maximum(lengths.position_limit_px, np.abs(now))
        self.positions_px[frames] = np.clip(nominal + np.clip(now + step, -limit, limit), *self._bounds)

    def _take_common(self, frames: NDArray[np.int64], step: NDArray[np.float64]) -> NDArray[np.float64]:
        """Move all used frames by the linear map that fits the steps (J, 2) best, and return what it leaves of them."""
        used = self._used
        if not self.linear.any():  # positions that were refined before have a map already
            self.linear = affine_step(self.positions_px[used] - self._read[used], self._read[used])
        found = affine_step(step, self._read[frames])
        self.linear = self.linear + found
        self.positions_px[used] = np.clip(self.positions_px[used] + self._offset[used] @ found.T, *self._bounds)
        offsets = self._read[frames] - self._read[frames].mean(axis=0)
        return np.asarray(step - offsets @ found.T)

    def copy(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Positions and linear map as they are, for :meth:`restore`."""
        return self.positions_px.copy(), self.linear.copy()

    def restore(self, kept: tuple[NDArray[np.float64], NDArray[np.float64]]) -> None:
        """Go back to what :meth:`copy` gave."""
        self.positions_px, self.linear = kept[0].copy(), kept[1].copy()

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """What a checkpoint holds of them, by name."""
        return {"positions_px": self.positions_px.copy(), "position_map": self.linear.copy()}
