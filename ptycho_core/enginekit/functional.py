"""A stepper of pure functions: for engines whose arrays are never written to, such as those of JAX.

An engine brings two functions over arrays, how many counts are expected and what a step makes of a state. What else a
``Stepper`` does stands here, in the functions that every array module has (``asarray``, ``where``, ``zeros_like``). A
state is never changed, so putting one aside copies nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.container import PtychoDataContainer
from ..data.results import Image
from ..physics.corrections import support_mask
from ..physics.forward import shift_ramp
from ..physics.likelihood import amplitude_loss, poisson_loss
from ..physics.probe import orthogonalise
from ..protocol import Constraints, Quantity, StepLengths
from .frame_store import FrameStore
from .state import Start, finish, level_of, reached

__all__ = ["Batch", "PureStepper", "State"]

_CHUNK = 64
_LOSSES = {"poisson": poisson_loss, "amplitude": amplitude_loss}

State = Mapping[str, Any]
"""Arrays of an engine by name: ``object`` (H, W), ``probe`` (P, N, N) and ``velocity`` (H, W), complex."""


@dataclass(frozen=True)
class Batch:
    """Some frames as an engine's functions want them, in the engine's arrays.

    Attributes:
        counts: (J, N, N) measured, as they lie on the detector; 0 in bad pixels.
        rows: (J, N, 1) int, rows of the object that each frame sees: ``object[rows, columns]`` are its patches.
        columns: (J, 1, N) int, its columns.
        ramp: (J, 1, N, N) complex, spectrum of the sub-pixel shift of the probe, zero frequency at (0, 0).
        intensities: (J, 1, 1) factor of the expected counts of each frame.
        good: (N, N) 1 in good pixels, 0 in bad ones.
        background: (N, N) expected background counts.
    """

    counts: Any
    rows: Any
    columns: Any
    ramp: Any
    intensities: Any
    good: Any
    background: Any


class PureStepper:
    """See ``protocol.Stepper``.

    Args:
        image: to start from.
        scan: its scan.
        loss: ``poisson`` or ``amplitude``.
        rate: (object, probe, batch) → λ (J, N, N), background included.
        step: (state, batch, loss, lengths, wanted) → the state after it, and the loss of the batch before it.
        arrays: the engine's array module: ``numpy``, ``jax.numpy``.
    """

    def __init__(
        self,
        image: Image,
        scan: PtychoDataContainer,
        loss: str,
        *,
        rate: Callable[[Any, Any, Batch], Any],
        step: Callable[[State, Batch, str, StepLengths, Collection[Quantity]], tuple[State, Any]],
        arrays: Any = np,
    ) -> None:
        start = Start.of(image, scan)
        self.scan, self.loss_name, self.scale = scan, loss, start.scale
        self.positions, self.intensities = start.positions, start.intensities
        self._rate, self._step, self._xp = rate, step, arrays
        obj = arrays.asarray(start.object)
        self.state: State = {
            "object": obj,
            "probe": arrays.asarray(start.probe),
            "velocity": arrays.zeros_like(obj),
        }
        self._store = FrameStore(scan, lambda counts: counts)
        N, raw = scan.raw.side, scan.raw
        self._good = arrays.asarray(np.ones((N, N), np.float32) if raw.mask is None else raw.mask.astype(np.float32))
        level = np.zeros((N, N), np.float32) if raw.background is None else raw.background.astype(np.float32)
        self._background = arrays.asarray(level)
        # positions stay, so what the training frames reach does as well
        lit, _ = self.positions.corners(scan.train_frames)
        self._reached = arrays.asarray(reached(lit, N, start.object.shape))
        self._level: tuple[float, Any] | None = None

    def _batch(self, frames: NDArray[np.int64]) -> Batch:
        (corners, rest), N, xp = self.positions.corners(frames), self.scan.raw.side, self._xp
        index = np.arange(N)
        return Batch(
            counts=xp.asarray(self._store.get(frames)),
            rows=xp.asarray(corners[:, 0, None, None] + index[:, None]),
            columns=xp.asarray(corners[:, 1, None, None] + index),
            ramp=xp.asarray(shift_ramp(rest, N)[:, None].astype(np.complex64)),
            intensities=xp.asarray(self.intensities[frames, None, None].astype(np.float32)),
            good=self._good,
            background=self._background,
        )

    def prepare(self, frames: NDArray[np.int64]) -> None:
        """See ``Stepper``."""
        self._store.prepare(frames)

    def begin(self) -> None:
        """See ``Stepper``."""
        self.state = {**self.state, "velocity": self._xp.zeros_like(self.state["velocity"])}

    def step(self, frames: NDArray[np.int64], lengths: StepLengths, wanted: Collection[Quantity]) -> Any:
        """See ``Stepper``."""
        self._level = None
        self.state, loss = self._step(self.state, self._batch(frames), self.loss_name, lengths, wanted)
        return loss

    def settle(self, constraints: Constraints) -> None:
        """See ``Stepper``."""
        self._level = None
        probe, obj, xp = np.asarray(self.state["probe"]), self.state["object"], self._xp
        if constraints.support is not None:
            probe = probe * support_mask(probe.shape[-1], constraints.support)
        if constraints.power is not None:
            factor = math.sqrt(constraints.power / float(np.sum(np.abs(probe) ** 2, dtype=np.float64)))
            probe, obj = probe * np.float32(factor), obj / np.float32(factor)
        if len(probe) > 1:
            probe = orthogonalise(probe)
        self.state = {**self.state, "probe": xp.asarray(probe.astype(np.complex64)), "object": obj}

    def _shown(self) -> tuple[float, Any]:
        """g², and the object (H, W) where training frames reach it: of all frames, so reckoned once for each state."""
        if self._level is None:
            shown = self._xp.where(self._reached, self.state["object"], 0)
            self._level = level_of(self.scan, lambda: self._expected(shown)), shown
        return self._level

    def _rates(self, frames: NDArray[np.int64], shown: Any) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """Frames in parts, and what is expected in them of an object (H, W)."""
        parts = [frames[start : start + _CHUNK] for start in range(0, len(frames), _CHUNK)]
        return [
            (part, np.asarray(self._rate(shown, self.state["probe"], self._batch(part)), np.float64)) for part in parts
        ]

    def _expected(self, shown: Any) -> float:
        """Σ of all training frames' counts that an object (H, W) expects, without the background."""
        frames = self.scan.train_frames
        level = float(np.asarray(self._background, np.float64).sum()) * len(frames)
        return sum(float(rate.sum()) for _, rate in self._rates(frames, shown)) - level

    def loss(self, frames: NDArray[np.int64]) -> float:
        """See ``Stepper``."""
        if not len(frames):
            return 0.0
        (gain, shown), raw, total = self._shown(), self.scan.raw, 0.0
        level = np.asarray(self._background, np.float64)
        for part, rate in self._rates(frames, shown):
            counts = raw.read_counts(part).astype(np.float64)
            total += _LOSSES[self.loss_name]((rate - level) * gain + level, counts, raw.mask, 1.0)
        return total

    def snapshot(self) -> State:
        """See ``Stepper``."""
        return self.state

    def restore(self, snapshot: State) -> None:
        """See ``Stepper``."""
        self._level = None
        self.state = snapshot

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See ``Stepper``."""
        made = {}
        for name, value in self.state.items():
            array = np.array(value, np.complex64, order="C")
            made[name] = array.view(np.float32).reshape(*array.shape, 2)
        return made

    def take(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """See ``Stepper``."""
        self._level = None
        self.state = {
            name: self._xp.asarray(np.ascontiguousarray(arrays[name]).view(np.complex64)[..., 0]) for name in self.state
        }

    def image(self) -> Image:
        """See ``Stepper``."""
        obj, probe = np.asarray(self.state["object"]), np.asarray(self.state["probe"])
        return finish(
            self.scan,
            obj,
            probe,
            self.positions,
            scale=self.scale,
            gain_squared=self._shown()[0],
            intensities=self.intensities,
        )
