"""The reference stepper: object, probe, positions and momentum of a scan, moved by ``physics.steps``."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.results import Image
from ptycho_core.enginekit.engine_threads import Threads
from ptycho_core.enginekit.frame_store import KEPT_BYTES, FrameStore
from ptycho_core.enginekit.state import Start, finish, level_of, reached
from ptycho_core.physics.corrections import support_mask
from ptycho_core.physics.probe import orthogonalise
from ptycho_core.physics.steps import (
    DARK_COUNTS,
    illumination,
    least_squares_length,
    lit_level,
    object_step,
    position_step,
    probe_step,
)
from ptycho_core.protocol import Constraints, Quantity, StepLengths
from ptycho_core.runtime import Runtime

from .gradient import NumpyGradient
from .physics import Propagator

__all__ = ["NumpyStepper"]


@dataclass(frozen=True)
class _Kept:
    """A state put aside."""

    object: NDArray[Any]
    probe: NDArray[Any]
    positions: Any
    intensities: NDArray[np.float64]


def _parts(array: NDArray[Any]) -> NDArray[Any]:
    """(…) complex as (…, 2) real and imaginary parts: the format of checkpoints knows no complex128."""
    array = np.array(array, order="C")
    return array.view(array.real.dtype).reshape(*array.shape, 2)


def _whole(parts: NDArray[Any], dtype: Any) -> NDArray[Any]:
    return np.ascontiguousarray(parts).view(dtype)[..., 0].copy()


class NumpyStepper:
    """See ``protocol.Stepper``.

    The work of a batch touches the smallest rectangle that holds its frames; what lies outside keeps its momentum.

    Args:
        image: to start from.
        scan: its scan.
        loss: ``poisson`` or ``amplitude``.
        runtime: ``threads`` and ``precision`` are read.
        threads: what chooses their number; None takes ``runtime.threads``, or chooses anew.
    """

    def __init__(
        self, image: Image, scan: PtychoDataContainer, loss: str, runtime: Runtime, threads: Threads | None = None
    ) -> None:
        start = Start.of(image, scan, np.complex128 if runtime.precision == "64" else np.complex64)
        self.scan, self.loss_name, self.scale = scan, loss, start.scale
        self.object, self.probe = start.object, start.probe
        self.positions, self.intensities = start.positions, start.intensities
        self.velocity = np.zeros_like(self.object)
        self.store = FrameStore(scan, Propagator(scan.raw.propagation, scan.raw.side).detector_layout, KEPT_BYTES)
        self.gradient = NumpyGradient(
            scan.raw, loss, runtime.threads if threads is None else threads, self.object.dtype.type, self.store
        )
        self._level: tuple[float, NDArray[np.bool_]] | None = None

    def prepare(self, frames: NDArray[np.int64]) -> None:
        """See ``Stepper``."""
        self.store.prepare(frames)

    def begin(self) -> None:
        """See ``Stepper``."""
        self.velocity[...] = 0

    def step(self, frames: NDArray[np.int64], lengths: StepLengths, wanted: Collection[Quantity]) -> float:
        """See ``Stepper``."""
        self._level = None
        corners, rest = self.positions.corners(frames)
        low, high = corners.min(axis=0), corners.max(axis=0) + self.scan.raw.side
        box = (slice(low[0], high[0]), slice(low[1], high[1]))
        weights = self._weights(frames)
        obj, corners = self.object[box], corners - low
        got = self.gradient(frames, corners, rest, obj, self.probe, wanted, DARK_COUNTS, weights)
        light = None
        if got.object is not None or got.positions is not None:
            light = illumination(self.probe, corners, obj.shape, weights)
        step = None
        if got.object is not None:
            step = object_step(got.object, light, self.loss_name)
            if lengths.least_squares:
                step *= least_squares_length(step, got.object, light, self.loss_name)
        if got.positions is not None:
            slope = got.positions if weights is None else got.positions / weights[:, None]
            moved = position_step(slope, self.probe, lit_level(obj, light), self.loss_name)
            self.positions.move(frames, moved, lengths, common=step is not None)
        if got.probe is not None:
            self.probe += lengths.probe * probe_step(got.probe, got.patch_light, self.loss_name)
        if got.gains is not None:
            self.intensities[frames] *= got.gains ** (lengths.object / 2)
        if step is not None:
            velocity = self.velocity[box]
            step *= lengths.object
            velocity *= lengths.momentum
            velocity += step
            step += lengths.momentum * velocity
            obj += step
        return got.loss

    def settle(self, constraints: Constraints) -> None:
        """See ``Stepper``."""
        self._level = None
        if constraints.support is not None:
            self.probe *= support_mask(self.probe.shape[-1], constraints.support)
        if constraints.power is not None:
            factor = math.sqrt(constraints.power / float(np.sum(np.abs(self.probe) ** 2)))
            self.probe *= factor
            self.object /= factor
        if len(self.probe) > 1:
            self.probe = orthogonalise(self.probe)

    def loss(self, frames: NDArray[np.int64]) -> float:
        """See ``Stepper``."""
        if not len(frames):
            return 0.0
        corners, rest = self.positions.corners(frames)
        low, high = corners.min(axis=0), corners.max(axis=0) + self.scan.raw.side
        box = (slice(low[0], high[0]), slice(low[1], high[1]))
        gain_squared, lit = self._shown()
        shown = np.where(lit[box], self.object[box], self.object.dtype.type(0))
        probe = self.probe * math.sqrt(gain_squared)
        return self.gradient(frames, corners - low, rest, shown, probe, (), 0.0, self._weights(frames)).loss

    def snapshot(self) -> _Kept:
        """See ``Stepper``."""
        return _Kept(self.object.copy(), self.probe.copy(), self.positions.copy(), self.intensities.copy())

    def restore(self, snapshot: _Kept) -> None:
        """See ``Stepper``."""
        self._level = None
        self.object, self.probe = snapshot.object.copy(), snapshot.probe.copy()
        self.positions.restore(snapshot.positions)
        self.intensities = snapshot.intensities.copy()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See ``Stepper``."""
        made = {"object": _parts(self.object), "probe": _parts(self.probe), "intensities": self.intensities.copy()}
        return made | self.positions.arrays()

    def take(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """See ``Stepper``."""
        self._level = None
        self.object = _whole(arrays["object"], self.object.dtype)
        self.probe = _whole(arrays["probe"], self.probe.dtype)
        self.intensities = np.array(arrays["intensities"])
        self.positions.restore((arrays["positions_px"], arrays["position_map"]))

    def image(self) -> Image:
        """See ``Stepper``."""
        return finish(
            self.scan,
            self.object,
            self.probe,
            self.positions,
            scale=self.scale,
            gain_squared=self._shown()[0],
            intensities=self.intensities,
        )

    def _weights(self, frames: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Intensity (J,) of some frames, or None where all of the scan are 1."""
        return None if (self.intensities == 1).all() else self.intensities[frames]

    def _shown(self) -> tuple[float, NDArray[np.bool_]]:
        """g² and the pixels (H, W) that training frames reach: of all frames, so reckoned once for each state."""
        if self._level is None:
            corners, _ = self.positions.corners(self.scan.train_frames)
            self._level = level_of(self.scan, self._expected), reached(corners, self.scan.raw.side, self.object.shape)
        return self._level

    def _expected(self) -> float:
        """Σ of all training frames' counts that the object and the probe expect (FM-21)."""
        frames, N = self.scan.train_frames, self.scan.raw.side
        intensity = np.sum(self.probe.real**2 + self.probe.imag**2, axis=0)
        modulus, light = self.object.real**2 + self.object.imag**2, np.zeros((N, N))
        for weight, (y, x) in zip(self.intensities[frames], self.positions.corners(frames)[0], strict=True):
            light += weight * modulus[y : y + N, x : x + N]
        return float(np.sum(light * intensity))
