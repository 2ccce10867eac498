"""The stepper: object, probe and momentum of one scan on a device, moved by the formulas of ``physics``."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.results import Image
from ptycho_core.enginekit.frame_store import KEPT_BYTES, FrameStore
from ptycho_core.enginekit.state import Start, finish
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


class _Kept(NamedTuple):
    """A state put aside on the device; positions and intensities are few and stay on the host."""

    object: Tensor
    probe: Tensor
    positions: Any
    intensities: NDArray[np.float64]


def _kept_bytes() -> int:
    """Counts that may stay on a device, which TensorFlow does not tell the size of."""
    return KEPT_BYTES


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
        self.physics = ScanPhysics(scan.raw, loss, self.device)
        with tf.device(self.device):
            self.object, self.velocity = Canvas(start.object), Canvas(np.zeros_like(start.object))
            self.probe = tf.constant(start.probe)
        self.positions, self.intensities = start.positions, start.intensities
        self.store = FrameStore(scan, self._put_counts, _kept_bytes(), join=self._joined, pick=self._picked)
        self._lit: tuple[NDArray[np.int64], Tensor] | None = None
        self._trace()

    def _trace(self) -> None:
        """What is traced, for frames and windows of any number: a step calls few functions, and no operation alone."""
        spec = tf.TensorSpec
        where, number, probe = spec([4], tf.int32), spec([], tf.float32), spec(self.probe.shape, tf.complex64)
        canvas, light, plane = (spec([None, None], kind) for kind in (tf.complex64, tf.float32, tf.float32))
        corners, slopes, weights = spec([None, 2], tf.int32), spec([None, 2], tf.float32), spec([None], tf.float32)
        self._read = traced(self.object.read, signature=[where])
        self._light = traced(
            lambda probe, where, *frames: physics.illumination(probe, frames[0], (where[2], where[3]), *frames[1:]),
            signature=[probe, where, corners, weights],
        )
        self._position_step = traced(
            lambda slope, probe, obj, light: physics.position_step(
                slope, probe, physics.lit_level(obj, light), self.loss_name
            ),
            signature=[slopes, probe, canvas, light],
        )
        self._probe_step = traced(
            lambda probe, gradient, light, length: (
                probe + tf.cast(length, tf.complex64) * physics.probe_step(gradient, light, self.loss_name)
            ),
            signature=[probe, probe, plane, number],
        )
        self._advance = {
            stretched: traced(
                lambda *given, stretched=stretched: self._move_object(stretched, *given),
                signature=[where, canvas, light, number, number],
            )
            for stretched in (False, True)
        }

    def _put_counts(self, counts: NDArray[np.float32]) -> Tensor:
        with tf.device(self.device):
            return self.physics.propagator.detector_layout(tf.constant(counts))

    def _joined(self, blocks: Sequence[Tensor]) -> Tensor:
        with tf.device(self.device):
            return tf.concat(blocks, axis=0)

    def _picked(self, kept: Tensor, rows: NDArray[np.int64]) -> Tensor:
        with tf.device(self.device):
            return tf.gather(kept, rows)

    def prepare(self, frames: NDArray[np.int64]) -> None:
        """See ``Stepper``."""
        self.store.prepare(frames)

    def begin(self) -> None:
        """See ``Stepper``."""
        with tf.device(self.device):
            self.velocity.fill(0)

    def step(self, frames: NDArray[np.int64], lengths: StepLengths, wanted: Collection[Quantity]) -> Tensor:
        """See ``Stepper``."""
        with tf.device(self.device):
            corners, rest = self.positions.corners(frames)
            low, high = corners.min(axis=0), corners.max(axis=0) + self.scan.raw.side
            where, probe = tf.constant([*low, *(high - low)], tf.int32), self.probe
            batch = Batch((corners - low).astype(np.int32), rest, self._weights(frames))
            obj = self._read(where)
            got = self.physics.gradient(obj, probe, batch, self.store.get(frames), wanted)
            light = None
            if got.object is not None or got.positions is not None:
                light = self._light(probe, where, batch.corners_px, batch.weights())
            if got.positions is not None:
                slope = got.positions if batch.intensities is None else got.positions / batch.intensities[:, None]
                moved = self._position_step(slope, probe, obj, light).numpy()
                self.positions.move(frames, moved, lengths, common=got.object is not None)
            if got.probe is not None:
                self.probe = self._probe_step(probe, got.probe, got.patch_light, lengths.probe)
            if got.gains is not None:
                self.intensities[frames] *= got.gains.numpy() ** (lengths.object / 2)
            if got.object is not None:
                self._advance[lengths.least_squares](where, got.object, light, lengths.object, lengths.momentum)
            return got.loss

    def _move_object(
        self, stretched: bool, where: Tensor, gradient: Tensor, light: Tensor, length: Tensor, momentum: Tensor
    ) -> None:
        """One step of the object on a window, with momentum (FM-21)."""
        step = physics.object_step(gradient, light, self.loss_name)
        if stretched:
            length *= tf.cast(physics.least_squares_length(step, gradient, light, self.loss_name), tf.float32)
        step, kept = step * tf.cast(length, tf.complex64), tf.cast(momentum, tf.complex64)
        velocity = self.velocity.read(where) * kept + step
        self.velocity.write(where, velocity)
        self.object.write(where, self.object.read(where) + step + velocity * kept)

    def settle(self, constraints: Constraints) -> None:
        """See ``Stepper``."""
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
        with tf.device(self.device):
            whole = self.object.whole()
            shown = tf.where(self._reached(), whole, tf.zeros_like(whole))
            probe = self.probe * tf.constant(math.sqrt(self._gain_squared()), tf.complex64)
            batch = Batch(corners.astype(np.int32), rest, self._weights(frames))
            return float(self.physics.gradient(shown, probe, batch, self.store.get(frames), ()).loss)

    def snapshot(self) -> _Kept:
        """See ``Stepper``."""
        with tf.device(self.device):
            return _Kept(self.object.whole(), self.probe, self.positions.copy(), self.intensities.copy())

    def restore(self, snapshot: _Kept) -> None:
        """See ``Stepper``."""
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
            gain_squared=self._gain_squared(),
            intensities=self.intensities,
        )

    def _weights(self, frames: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """Intensity (J,) of some frames, or None where all of the scan are 1."""
        return None if (self.intensities == 1).all() else self.intensities[frames].astype(np.float32)

    def _reached(self) -> Tensor:
        """Pixels (H, W) of the canvas that some training frame reaches; see ``enginekit.state.reached``."""
        corners, _ = self.positions.corners(self.scan.train_frames)
        if self._lit is None or not np.array_equal(self._lit[0], corners):
            (height, width), N = self.object.shape, self.scan.raw.side
            y, x = corners.T
            edges = [(y, x, 1), (y + N, x, -1), (y, x + N, -1), (y + N, x + N, 1)]
            index = np.concatenate([row * (width + 1) + column for row, column, _ in edges])
            signs = np.repeat(np.array([sign for _, _, sign in edges], np.int32), len(corners))
            total = tf.math.unsorted_segment_sum(signs, index, (height + 1) * (width + 1))
            total = tf.cumsum(tf.cumsum(tf.reshape(total, [height + 1, width + 1]), axis=0), axis=1)
            self._lit = corners, total[:-1, :-1] > 0
        return self._lit[1]

    def _gain_squared(self) -> float:
        """g² with which the training frames expect as many counts as were measured (FM-11).

        It is 1 for a calibrated probe, and for a scan with bad pixels, where the sum over all pixels of what is
        expected says nothing of the good ones.
        """
        raw, frames = self.scan.raw, self.scan.train_frames
        if raw.probe_calibrated or (raw.mask is not None and not raw.mask.all()):
            return 1.0
        corners, rest = self.positions.corners(frames)
        batch = Batch(corners.astype(np.int32), rest, self._weights(frames))
        with tf.device(self.device):
            expected = float(self.physics.expected(self.object.whole(), self.probe, batch))
        level = 0.0 if raw.background is None else float(raw.background.sum(dtype=np.float64))
        measured = float(raw.frame_totals[frames].sum()) - level * len(frames)
        return measured / expected if measured > 0 and expected > 0 else 1.0
