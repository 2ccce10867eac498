"""One run of pty-chi on one scan: built once, advanced an epoch at a time, read out in our conventions."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptycho_core.data.container import integer_corners
from ptycho_core.data.raw import RawData
from ptycho_core.enginekit.engine_threads import FixedThreads, Threads
from ptycho_core.errors import BackendError

from . import physics
from .batches import Batches
from .extras import Opr, Optics
from .library import PtychographyTask, computing, inside, set_threads
from .tasks import Settings, library_options, suited_batch

__all__ = ["Problem", "Solver"]

_CHUNK = 64
_LOSSES = {"amplitude": physics.amplitude_loss, "poisson": physics.poisson_loss}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is to be solved, in our conventions.

    Attributes:
        raw: the scan; its own probe is not used, and `limit_px` counts from its positions.
        frames: (J,) frames to iterate on.
        watched: (K,) frames that only give the held-out loss.
        slices: (L, H, W) complex64 to start from; one for a thin object.
        origin_px: (2,) int64 scan coordinates (y, x) of the corner of pixel (0, 0).
        probe: (P, N, N) complex64 to start from; steps and batches are sized by it.
        scale: s.
        mean_counts: divisor of the losses, for each frame.
        start_px: (M, 2) float64 positions to start from.
        optics: of the waves between slices, where there are some.
        opr: modes by which the probe varies, and their weights to start from, where it does.
        limit_px: farthest that a position may end up from where it was read, in y and in x, or None.
    """

    raw: RawData
    frames: NDArray[np.int64]
    watched: NDArray[np.int64]
    slices: NDArray[np.complex64]
    origin_px: NDArray[np.int64]
    probe: NDArray[np.complex64]
    scale: float
    mean_counts: float
    start_px: NDArray[np.float64]
    optics: Optics | None = None
    opr: Opr | None = None
    limit_px: float | None = None


class _Task(PtychographyTask):
    """A task of pty-chi that leaves the process as it is; ``library.inside`` sets what these methods would."""

    def build_random_seed(self) -> None:
        """Nothing: see the class."""

    def build_default_device(self) -> None:
        """Nothing: see the class."""

    def build_default_dtype(self) -> None:
        """Nothing: see the class."""

    def build_logger(self) -> None:
        """Nothing: see the class."""


@dataclass
class _SweepLoss:
    """Stands where pty-chi computes a figure to display: sums our loss over the frames of an epoch.

    Attributes:
        loss: ``amplitude`` or ``poisson``.
        mask: (N, N) True = good, zero frequency at (0, 0).
        total: Σ so far.
    """

    loss: str
    mask: Tensor
    total: float = 0.0

    def __call__(self, y_pred: Tensor, y_true: Tensor) -> Tensor:
        mask = self.mask if y_pred.ndim == 3 else None  # autodiff hands over the good pixels only
        self.total += _LOSSES[self.loss](y_pred.detach(), y_true.detach(), mask, 1.0)
        return torch.zeros(())


class Solver:
    """A pty-chi reconstruction in progress."""

    def __init__(self, problem: Problem, settings: Settings, device: torch.device, threads: Threads) -> None:
        """Hand the problem over to pty-chi.

        Args:
            problem: what to solve.
            settings: how.
            device: where.
            threads: that compute, on a processor.
        """
        self.problem, self.settings, self.device = problem, settings, device
        self.threads: Threads = threads if device.type == "cpu" else FixedThreads(1)
        N = problem.probe.shape[-1]
        self.factor = physics.probe_factor(problem.scale, N)
        chosen, own = problem.frames, settings.options
        corners, rest = integer_corners(problem.start_px[chosen], N)
        corners = corners - problem.origin_px
        self.offset = np.round((corners.min(axis=0) + corners.max(axis=0)) / 2).astype(np.int64)
        positions = physics.to_library_positions(corners, rest, self.offset)
        self.watched_px = problem.start_px[problem.watched]
        self.n_batch = (
            settings.batch_frames
            or own.batch_frames
            or suited_batch(own.algorithm, problem.probe, problem.start_px[chosen])
        )
        probe_rms = physics.root_mean_square(problem.probe) * self.factor
        optics = problem.optics
        options = library_options(
            settings, self.offset, N, probe_rms, self.n_batch, n_slices=len(problem.slices), optics=optics
        )
        opr = None if problem.opr is None else problem.opr.with_size(1 / self.factor)
        with self._inside(settings.seed):
            self.task = _Task(
                options,
                diffraction_data=problem.raw.read_counts(chosen),
                object_data=problem.slices.astype(np.complex64),
                probe_data=physics.library_probe(problem.probe, opr, self.factor),
                probe_position_y_px=positions[:, 0],
                probe_position_x_px=positions[:, 1],
                # given, since pty-chi would otherwise say that it makes them
                opr_mode_weights_data=(np.ones((len(chosen), 1), np.float32) if opr is None else opr.weights[chosen]),
                valid_pixel_mask=None if problem.raw.mask is None else problem.raw.mask.astype(np.float32),
            )
            self._adapt()

    @contextmanager
    def _inside(self, seed: int | None = None) -> Iterator[None]:
        """Enter pty-chi on this device; what is not a step computes with as many threads as are chosen."""
        with inside(self.device, seed), set_threads(self.threads.chosen, self.device):
            yield

    def _adapt(self) -> None:
        """Put our shifts, batches and losses where pty-chi has its own."""
        r = self.reconstructor
        if self.settings.options.algorithm != "autodiff":  # autodiff is given the class among its options
            old = r.forward_model
            r.forward_model = physics.EveryModeForward(
                r.parameter_group,
                retain_intermediates=old.retain_intermediates,
                detector_size=old.detector_size,
                wavelength_m=old.wavelength_m,
                pad_for_shift=0,
            )
            r.adjoint_shift_probe_update_direction = partial(physics.adjoint_shift, r)
        if self.settings.options.algorithm == "raar":
            r.apply_raar_exit_wave_update = partial(physics.raar_step, r)
        dataset = self.task.dataset
        self.loss = _SweepLoss(self.settings.loss, dataset.valid_pixel_mask.to(self.device))
        self.parallel = self.settings.options.algorithm in ("dm", "raar")
        if self.parallel:
            everything = torch.arange(len(dataset.patterns), device="cpu")
            r.dataloader = [[everything, dataset.patterns]]
        else:
            sampler = r.dataloader.batch_sampler if r.options.batching_mode != "random" else None
            r.dataloader = Batches(dataset.patterns, self.n_batch, self.threads, sampler)
            r.loss_tracker.metric_function = self.loss
            r.loss_tracker.always_compute_loss = True

    def moves_probe(self, epoch: int) -> bool:
        """Whether the probe is refined in an epoch."""
        return self.settings.refine_probe and epoch >= (self.settings.options.probe_start or 0)

    def moves_positions(self, epoch: int) -> bool:
        """Whether positions are refined in an epoch."""
        return self.settings.refine_positions and epoch >= (self.settings.options.position_start or 0)

    def _kind(self, epoch: int) -> Hashable:
        """What makes batches take as long as each other."""
        what = (self.settings.options.algorithm, self.moves_probe(epoch), self.moves_positions(epoch))
        return (*what, *self.problem.slices.shape, *self.problem.probe.shape)

    @property
    def reconstructor(self) -> Any:
        """pty-chi's reconstructor."""
        return self.task.reconstructor

    def sweep(self, epoch: int) -> float:
        """Advance by one epoch, whose number decides all that is random in it.

        Returns:
            Loss per frame in units of the mean counts: of each frame before its update, or, in ``dm`` and ``raar``,
            of all frames after it.

        Raises:
            BackendError: the solver diverged.
        """
        r = self.reconstructor
        seed = int(np.random.default_rng([self.settings.seed, epoch]).integers(2**31))
        with self._inside(seed):
            r.current_epoch = epoch
            if isinstance(r.dataloader, Batches):
                r.dataloader.rng = np.random.default_rng([self.settings.seed, epoch])
                r.dataloader.kind = self._kind(epoch)
            self.loss.total = 0.0
            self._run_one(epoch)
            if self.moves_positions(epoch):
                self._rein_in_positions()
        if self.moves_positions(epoch):
            self._move_watched()
        patterns = self.task.dataset.patterns
        total = self._loss_of(r.forward_model, patterns, self.loss.mask) if self.parallel else self.loss.total
        value = total / (len(self.problem.frames) * self.problem.mean_counts)
        if not math.isfinite(value):
            raise self._diverged(epoch)
        return value

    def _run_one(self, epoch: int) -> None:
        """One epoch of pty-chi's, whose own failures on values that are not finite are told as what they are."""
        try:
            if self.parallel:  # all frames are one batch, which is not handed out by us
                with computing(self.threads, self._kind(epoch), len(self.problem.frames), self.device):
                    self.reconstructor.run(1)
            else:
                self.reconstructor.run(1)
        except RuntimeError as error:
            if np.isfinite(self.object).all() and np.isfinite(self.probe).all():
                raise
            raise self._diverged(epoch) from error

    def _diverged(self, epoch: int) -> BackendError:
        return BackendError(
            f"engine 'ptychi': algorithm {self.settings.options.algorithm!r} diverged in epoch {epoch + 1}. Take a "
            "smaller object_step or batch_frames, or another algorithm."
        )

    def _loss_of(self, model: Any, patterns: Tensor, mask: Tensor | None) -> float:
        """Σ of the loss over frames of a forward model; patterns (J, N, N), mask (N, N) in pty-chi's order."""
        total = 0.0
        retain, model.retain_intermediates = model.retain_intermediates, False
        with self._inside(), torch.no_grad():
            for start in range(0, len(patterns), _CHUNK):
                counts = patterns[start : start + _CHUNK].to(self.device)
                indices = torch.arange(start, start + len(counts), device="cpu")
                with computing(self.threads, ("loss", *self.problem.probe.shape), len(counts), self.device):
                    total += _LOSSES[self.settings.loss](model(indices), counts, mask, 1.0)
        model.retain_intermediates = retain
        return total

    @property
    def opr(self) -> Opr | None:
        """Present OPR modes in units of the probe, with weights of all frames of the scan; None where it has none."""
        if self.problem.opr is None:
            return None
        modes = (self._read(self.task.probe)[1:, 0] / self.factor).astype(np.complex64)
        found = self._read(self.task.opr_mode_weights).astype(np.float32)
        weights = self.problem.opr.of_frames(self.problem.frames, found, self.problem.raw.frame_numbers)
        return Opr(modes, weights)

    def watch(self, shown: NDArray[np.complex64] | None = None) -> float | None:
        """Loss of the held-out frames, per frame in units of the mean counts; None where there are none.

        Args:
            shown: (L, H, W) complex64 slices to judge; None judges the present ones.
        """
        n_watched = len(self.problem.watched)
        if not n_watched:
            return None
        total, present = 0.0, self.task.object.data.detach().clone()
        if shown is not None:
            with self._inside(), torch.no_grad():
                self.task.object.set_data(shown)
        opr = self.opr
        for part, patterns in self._watched_chunks():
            weights = None if opr is None else opr.weights[self.problem.watched[part]]
            total += self._loss_of(self._forward_at(self.watched_px[part], weights), patterns, self.loss.mask)
        if shown is not None:
            with self._inside(), torch.no_grad():
                self.task.object.set_data(present)
        return total / (n_watched * self.problem.mean_counts)

    def _watched_chunks(self) -> Iterator[tuple[slice, Tensor]]:
        """Held-out frames in parts: which of them, and their counts (j, N, N) in pty-chi's order of pixels."""
        watched = self.problem.watched
        for start in range(0, len(watched), _CHUNK):
            part = slice(start, start + _CHUNK)
            counts = torch.as_tensor(self.problem.raw.read_counts(watched[part]))
            yield part, torch.fft.fftshift(counts, dim=(-2, -1))

    def _move_watched(self) -> None:
        """Let positions of held-out frames follow, a step an epoch as those of the others; nothing else sees them.

        A stage that was off by chance was off for them too: at positions as read they would be explained the worse
        the sharper the image gets.
        """
        options = self.task.options.probe_position_options
        for part, patterns in self._watched_chunks():
            model = self._forward_at(self.watched_px[part])
            with self._inside(), torch.no_grad():
                counts = patterns.to(self.device)
                step = physics.position_step(model, counts, self.loss.mask, options.correction_options)
            limit = options.correction_options.update_magnitude_limit
            moved = self.watched_px[part] + np.clip(step.cpu().numpy().astype(np.float64), -limit, limit)
            self.watched_px[part] = self._reined_in(moved, self.problem.watched[part])

    def _forward_at(self, positions_px: NDArray[np.float64], weights: NDArray[np.float32] | None = None) -> Any:
        """pty-chi's forward model of the present object and probe at some positions (J, 2) of the scan."""
        corners, rest = integer_corners(positions_px, self.problem.raw.side)
        at = physics.to_library_positions(corners - self.problem.origin_px, rest, self.offset)
        with self._inside():
            optics = self.problem.optics
            wavelength_m = None if optics is None else optics.wavelength_m
            return physics.forward_at(self.task.object, self.task.probe, at, weights, wavelength_m)

    @property
    def slices(self) -> NDArray[np.complex64]:
        """Present slices (L, H, W) complex64; one for a thin object."""
        return self._read(self.task.object).astype(np.complex64)

    @property
    def object(self) -> NDArray[np.complex64]:
        """Present object (H, W) complex64, the product of its slices."""
        product: NDArray[np.complex64] = np.prod(self.slices, axis=0)
        return product

    @property
    def probe(self) -> NDArray[np.complex64]:
        """Present probe (P, N, N) complex64, in units of the probe that was given."""
        return (self._read(self.task.probe)[0] / self.factor).astype(np.complex64)

    @property
    def positions_px(self) -> NDArray[np.float64]:
        """Present centres (M, 2) float64 of all frames of the scan."""
        positions = self.problem.start_px.copy()
        if self.settings.refine_positions:
            positions[self.problem.frames] = self._iterated_positions()
            positions[self.problem.watched] = self.watched_px
        return positions

    @staticmethod
    def _read(parameter: Any) -> NDArray[Any]:
        found: NDArray[Any] = parameter.data.detach().cpu().numpy()
        return found

    def _iterated_positions(self) -> NDArray[np.float64]:
        corner = self._read(self.task.probe_positions).astype(np.float64) + self.offset + self.problem.origin_px
        return corner + (self.problem.raw.side - 1) / 2

    def _reined_in(self, positions_px: NDArray[np.float64], frames: NDArray[np.int64]) -> NDArray[np.float64]:
        """Pull positions (J, 2) of frames back to within the limit of where they were read, in y and in x."""
        limit = self.problem.limit_px
        nominal = self.problem.raw.positions_px[frames]
        if limit is None:
            return positions_px
        return nominal + np.clip(positions_px - nominal, -limit, limit)

    def _rein_in_positions(self) -> None:
        """Keep positions within their limit, and their mean where it was: object and scan could drift off together."""
        start = self.problem.start_px[self.problem.frames]
        moved = self._iterated_positions()
        moved = self._reined_in(moved - (moved - start).mean(axis=0), self.problem.frames)
        corners, rest = integer_corners(moved, self.problem.raw.side)
        at = physics.to_library_positions(corners - self.problem.origin_px, rest, self.offset)
        with torch.no_grad():
            self.task.probe_positions.set_data(at)
