"""The stepper: object, probe and momentum of one scan on a device, moved by the formulas of ``physics``."""

from __future__ import annotations

import math
import weakref
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.results import Image
from ptycho_core.enginekit.frame_store import KEPT_BYTES, FrameStore
from ptycho_core.enginekit.state import Start, finish, level_of
from ptycho_core.physics.corrections import support_mask
from ptycho_core.protocol import Constraints, Quantity, StepLengths
from ptycho_core.runtime import Runtime

from . import physics
from .canvas import Canvas
from .gradient import Batch, ScanPhysics
from .hardware import choose_devices
from .tracing import traced

__all__ = ["TensorflowStepper"]

Tensor = tf.Tensor

_MOVING = {"object": "d_object", "probe": "d_probe", "patch_light": "patch_light", "positions": "d_positions"}
"""What of a gradient moves something, and what it is called then."""


class _Kept(NamedTuple):
    """A state put aside on the device; positions and intensities are few and stay on the host."""

    object: Tensor
    probe: Tensor
    positions: Any
    intensities: NDArray[np.float64]


def _kept_bytes() -> int:
    """Counts that may stay on a device, which TensorFlow does not tell the size of."""
    return KEPT_BYTES


def _put_counts(device: str, propagator: physics.Propagator, counts: NDArray[np.float32]) -> Tensor:
    with tf.device(device):
        return propagator.detector_layout(tf.constant(counts))


def _joined(device: str, blocks: Iterator[Tensor], n: int) -> Tensor:
    """Blocks as one tensor; none can be written to, so all are there twice for a moment."""
    with tf.device(device):
        return tf.concat(list(blocks), axis=0)


def _picked(device: str, kept: Tensor, rows: NDArray[np.int64]) -> Tensor:
    with tf.device(device):
        return tf.gather(kept, rows)


class TensorflowStepper:
    """See ``protocol.Stepper``; the reference is that of the NumPy engine.

    Positions and intensities, a few numbers a frame, are kept on the host: they cross with every batch, and what is
    as large as the object never does.

    Args:
        image: to start from.
        scan: its scan.
        loss: ``poisson`` or ``amplitude``.
        runtime: ``accelerator`` is read.
    """

    def __init__(self, image: Image, scan: PtychoDataContainer, loss: str, runtime: Runtime) -> None:
        start = Start.of(image, scan)
        self.scan, self.loss_name, self.scale = scan, loss, start.scale
        self.device = choose_devices(runtime.accelerator)[0]
        with tf.device(self.device):
            self.object, self.velocity = Canvas(start.object), Canvas(np.zeros_like(start.object))
            self.probe = tf.constant(start.probe)
        self.physics = ScanPhysics(scan.raw, loss, self.device, self.object)
        self.positions, self.intensities = start.positions, start.intensities
        self.store = FrameStore(
            scan,
            partial(_put_counts, self.device, self.physics.propagator),
            _kept_bytes(),
            join=partial(_joined, self.device),
            pick=partial(_picked, self.device),
        )
        self._level: tuple[float, Tensor] | None = None
        self._functions: dict[tuple[Any, ...], Any] = {}

    def prepare(self, frames: NDArray[np.int64]) -> None:
        """See ``Stepper``."""
        self.store.prepare(frames)

    def begin(self) -> None:
        """See ``Stepper``."""
        with tf.device(self.device):
            self.velocity.fill(0)

    def step(self, frames: NDArray[np.int64], lengths: StepLengths, wanted: Collection[Quantity]) -> Tensor:
        """See ``Stepper``."""
        self._level = None
        with tf.device(self.device):
            corners, rest = self.positions.corners(frames)
            low, high = corners.min(axis=0), corners.max(axis=0) + self.scan.raw.side
            where, weights = tf.constant([*low, *(high - low)], tf.int32), self._weights(frames)
            batch = Batch((corners - low).astype(np.int32), rest, weights)
            got = self.physics.gradient(where, self.probe, batch, self.store.get(frames), wanted)
            found = {name: value for name, value in got._asdict().items() if name in _MOVING and value is not None}
            if found:
                length = tf.constant([lengths.object, lengths.momentum, lengths.probe], tf.float32)
                move = self._traced(tuple(found), lengths.least_squares)
                probe, moved = move(where, self.probe, batch.corners_px, batch.weights(), length, *found.values())
                self.probe = self.probe if probe is None else probe
                if moved is not None:
                    self.positions.move(frames, moved.numpy(), lengths, common="object" in found)
            if got.gains is not None:
                self.intensities[frames] *= got.gains.numpy() ** (lengths.object / 2)
            return got.loss

    def _traced(self, names: tuple[str, ...], stretched: bool) -> Any:
        """:meth:`_move` for some gradients, traced once for frames and windows of any number."""
        key = (names, stretched, *self.probe.shape)
        if key not in self._functions:
            spec, probe = tf.TensorSpec, tf.TensorSpec(self.probe.shape, tf.complex64)
            kinds = {
                "object": spec([None, None], tf.complex64),
                "probe": probe,
                "patch_light": spec(self.probe.shape[1:], tf.float32),
                "positions": spec([None, 2], tf.float32),
            }
            frames = [spec([None, 2], tf.int32), spec([None], tf.float32)]
            signature = [spec([4], tf.int32), probe, *frames, spec([3], tf.float32), *(kinds[name] for name in names)]
            move = weakref.WeakMethod(self._move)  # what the stepper keeps must not keep the stepper
            self._functions[key] = traced(
                lambda *given: move()(
                    stretched,
                    *given[:5],
                    **{_MOVING[name]: value for name, value in zip(names, given[5:], strict=True)},
                ),
                signature=signature,
            )
        return self._functions[key]

    def _move(
        self,
        stretched: bool,
        where: Tensor,
        probe: Tensor,
        corners: Tensor,
        weights: Tensor,
        length: Tensor,
        *,
        d_object: Tensor | None = None,
        d_probe: Tensor | None = None,
        patch_light: Tensor | None = None,
        d_positions: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Move the object; return the moved probe and the steps (J, 2) of the positions, None for what stays (FM-21).

        Args:
            stretched: whether the object's step is.
            where: (4,) window of the object.
            probe: (P, N, N) before the step.
            corners: (J, 2) on the window.
            weights: (J,) intensities.
            length: (3,) of the object's step, its momentum, and the probe's.
            d_object: (h, w) complex ∂L/∂O, or None.
            d_probe: (P, N, N) complex ∂L/∂P, or None.
            patch_light: (N, N) real V, with it.
            d_positions: (J, 2) real ∂L/∂δ, or None.
        """
        after = moved = None
        if d_probe is not None:
            after = probe + tf.cast(length[2], tf.complex64) * physics.probe_step(d_probe, patch_light, self.loss_name)
        if d_object is None and d_positions is None:
            return after, moved
        obj, light = self.object.read(where), physics.illumination(probe, corners, (where[2], where[3]), weights)
        if d_positions is not None:
            level = physics.lit_level(obj, light)
            moved = physics.position_step(d_positions / weights[:, None], probe, level, self.loss_name)
        if d_object is not None:
            step = physics.object_step(d_object, light, self.loss_name)
            size = length[0]
            if stretched:
                size *= tf.cast(physics.least_squares_length(step, d_object, light, self.loss_name), tf.float32)
            step, kept = step * tf.cast(size, tf.complex64), tf.cast(length[1], tf.complex64)
            velocity = self.velocity.read(where) * kept + step
            self.velocity.write(where, velocity)
            self.object.write(where, obj + step + velocity * kept)
        return after, moved

    def settle(self, constraints: Constraints) -> None:
        """See ``Stepper``."""
        self._level = None
        with tf.device(self.device):
            if constraints.support is not None:
                inside = support_mask(self.scan.raw.side, constraints.support)
                self.probe = self.probe * tf.constant(inside, tf.complex64)
            if constraints.power is not None:
                power = float(physics.expected_total(self.probe, tf.ones([], tf.float32)))
                factor = math.sqrt(constraints.power / power)
                self.probe = self.probe * tf.constant(factor, tf.complex64)
                self.object.scale(1 / factor)
            if self.probe.shape[0] > 1:
                self.probe = physics.orthogonalise(self.probe)

    def loss(self, frames: NDArray[np.int64]) -> float:
        """See ``Stepper``."""
        if not len(frames):
            return 0.0
        corners, rest = self.positions.corners(frames)
        low, high = corners.min(axis=0), corners.max(axis=0) + self.scan.raw.side
        gain_squared, lit = self._shown()
        with tf.device(self.device):
            seen = self.object.read(tf.constant([*low, *(high - low)], tf.int32))
            shown = tf.where(lit[low[0] : high[0], low[1] : high[1]], seen, tf.zeros_like(seen))
            probe = self.probe * tf.constant(math.sqrt(gain_squared), tf.complex64)
            batch = Batch((corners - low).astype(np.int32), rest, self._weights(frames))
            return float(self.physics.gradient(shown, probe, batch, self.store.get(frames), ()).loss)

    def snapshot(self) -> _Kept:
        """See ``Stepper``."""
        with tf.device(self.device):
            return _Kept(self.object.whole(), self.probe, self.positions.copy(), self.intensities.copy())

    def restore(self, snapshot: _Kept) -> None:
        """See ``Stepper``."""
        self._level = None
        with tf.device(self.device):
            self.object.assign(snapshot.object)
        self.probe = snapshot.probe
        self.positions.restore(snapshot.positions)
        self.intensities = snapshot.intensities.copy()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See ``Stepper``."""
        whole = {"object": self.object.whole().numpy(), "probe": self.probe.numpy()}
        parts = {name: np.array(array).view(np.float32).reshape(*array.shape, 2) for name, array in whole.items()}
        return parts | {"intensities": self.intensities.copy()} | self.positions.arrays()

    def take(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """See ``Stepper``."""
        self._level = None
        obj, probe = (np.ascontiguousarray(arrays[name]).view(np.complex64)[..., 0] for name in ("object", "probe"))
        with tf.device(self.device):
            self.object.assign(obj)
            self.probe = tf.constant(probe)
        self.intensities = np.array(arrays["intensities"])
        self.positions.restore((arrays["positions_px"], arrays["position_map"]))

    def image(self) -> Image:
        """See ``Stepper``."""
        return finish(
            self.scan,
            self.object.whole().numpy(),
            self.probe.numpy(),
            self.positions,
            scale=self.scale,
            gain_squared=self._shown()[0],
            intensities=self.intensities,
        )

    def _weights(self, frames: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """Intensity (J,) of some frames, or None where all of the scan are 1."""
        return None if (self.intensities == 1).all() else self.intensities[frames].astype(np.float32)

    def _shown(self) -> tuple[float, Tensor]:
        """g² and the pixels (H, W) that training frames reach: of all frames, so reckoned once for each state."""
        if self._level is None:
            self._level = level_of(self.scan, self._expected), self._reached()
        return self._level

    def _reached(self) -> Tensor:
        """Pixels (H, W) of the canvas that some training frame reaches; see ``enginekit.state.reached``."""
        corners, _ = self.positions.corners(self.scan.train_frames)
        (height, width), N = self.object.shape, self.scan.raw.side
        y, x = corners.T
        edges = [(y, x, 1), (y + N, x, -1), (y, x + N, -1), (y + N, x + N, 1)]
        index = np.concatenate([row * (width + 1) + column for row, column, _ in edges])
        signs = np.repeat(np.array([sign for _, _, sign in edges], np.int32), len(corners))
        with tf.device(self.device):
            total = tf.math.unsorted_segment_sum(signs, index, (height + 1) * (width + 1))
            total = tf.cumsum(tf.cumsum(tf.reshape(total, [height + 1, width + 1]), axis=0), axis=1)
            return total[:-1, :-1] > 0

    def _expected(self) -> float:
        """Σ of all training frames' counts that the object and the probe expect (FM-21)."""
        frames = self.scan.train_frames
        corners, rest = self.positions.corners(frames)
        batch = Batch(corners.astype(np.int32), rest, self._weights(frames))
        with tf.device(self.device):
            return float(self.physics.expected(self.object.whole(), self.probe, batch))
