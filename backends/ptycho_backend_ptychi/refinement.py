"""Refining an image of any engine: object, probe, modes and positions, stopped by frames that are held out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ptycho_core.config import TrainingConfig
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.results import Image
from ptycho_core.enginekit.engine_threads import Threads
from ptycho_core.enginekit.loss_choice import refinement_loss
from ptycho_core.enginekit.state import ScanState, room_to_move
from ptycho_core.enginekit.stitching import slices_shown
from ptycho_core.physics.probe import add_modes
from ptycho_core.protocol import Progress, ProgressEvent

from .choices import check_fixed_positions, losses_for, options_of
from .extras import Opr, Optics, bound, first_opr, laid_slices, optics_of, options_for, split
from .iterations import Problem, Solver
from .tasks import Settings

__all__ = ["refine"]


@dataclass(frozen=True)
class _State:
    """Where refining stands: object, probe and positions on a canvas, and what there is besides.

    Attributes:
        thin: the object as a whole, with the incoherent modes of the probe and the positions.
        slices: (L, H, W) complex64 on the same canvas; one for a thin object.
        probe: (P, N, N) complex64 incoherent modes, without the scale.
        opr: OPR modes, or None.
        optics: of the waves between slices, or None.
    """

    thin: ScanState
    slices: NDArray[np.complex64]
    probe: NDArray[np.complex64]
    opr: Opr | None
    optics: Optics | None

    def now(self, solver: Solver) -> _State:
        """What a solver has made of it."""
        scaled = solver.probe * np.float32(np.sqrt(self.thin.scale))
        thin = replace(self.thin, object=solver.object, probe=scaled, positions_px=solver.positions_px)
        return replace(self, thin=thin, slices=solver.slices, probe=solver.probe, opr=solver.opr)

    def shown(self) -> NDArray[np.complex64]:
        """The slices (L, H, W) as an image shows them: nothing where no training frame reaches (BE-21)."""
        reached = replace(self.thin, object=np.ones_like(self.thin.object)).shown()
        return slices_shown(self.slices, reached != 0)

    def image(self) -> Image:
        """Bind it as an image, cut to what the used frames reach."""
        image = self.thin.image()
        slices = None
        if len(self.slices) > 1:
            y, x = np.round(image.origin_px).astype(np.int64) - self.thin.origin_px
            height, width = image.object.shape
            slices = self.slices[:, y : y + height, x : x + width]
        return bound(image, slices, self.optics, self.probe, self.opr)


def _lay_out(image: Image, scan: PtychoDataContainer, config: TrainingConfig, *, filled: bool = True) -> _State:
    """The image on a canvas that also holds positions which move.

    Raises:
        DataError: the image is of another scan, or not on whole pixels; or it has slices, and the scan does not say its
            wavelength or its pixels.
    """
    wanted, options = config.refinement, options_for(image, options_of(config))
    room = room_to_move(image, scan, wanted.position_limit_px) if wanted.positions else 1
    probe, opr = split(image)
    thin = ScanState.of_image(replace(image, probe=probe), scan, margin_px=room, filled=filled)
    slices = laid_slices(image, thin.object, room, options.slices or 1, filled=filled)
    optics = None if options.slice_spacing_m is None else optics_of(scan.raw, options.slice_spacing_m)
    return _State(replace(thin, object=np.prod(slices, axis=0)), slices, probe, opr, optics)


def _problem(state: _State, scan: PtychoDataContainer, config: TrainingConfig) -> Problem:
    """What pty-chi is to solve: the training frames, from the image and with its positions."""
    wanted = config.refinement
    return Problem(
        raw=scan.raw,
        frames=scan.train_frames,
        watched=scan.heldout_frames,
        slices=state.slices,
        origin_px=state.thin.origin_px,
        probe=state.probe,
        scale=state.thin.scale,
        mean_counts=scan.statistics.mean_counts,
        start_px=state.thin.positions_px,
        optics=state.optics,
        opr=state.opr,
        limit_px=wanted.position_limit_px if wanted.positions else None,
    )


def _same(image: Image) -> Image:
    """The image in arrays of its own."""
    arrays = {name: value.copy() for name, value in vars(image).items() if isinstance(value, np.ndarray)}
    return replace(image, **arrays)


def _with_more(problem: Problem, config: TrainingConfig, settings: Settings) -> Problem:
    """The problem with the modes that were asked for and are not there yet."""
    changes: dict[str, Any] = {}
    if config.refinement.probe_modes is not None:
        changes["probe"] = add_modes(problem.probe, config.refinement.probe_modes)
    if settings.varies and problem.opr is None:
        K = settings.options.opr_modes or 0
        changes["opr"] = first_opr(problem.probe, K, problem.raw.n_frames, config.seed)
    return replace(problem, **changes) if changes else problem


def refine(
    image: Image,
    scan: PtychoDataContainer,
    config: TrainingConfig,
    device: torch.device,
    threads: Threads,
    progress: Progress,
) -> Image:
    """Go on from an image, as ``config.refinement`` says.

    Args:
        image: image, probe, scale and positions to start from, slices and OPR modes as well; left as they are.
        scan: its scan, with the frames to refine on and those that are held out.
        config: ``refinement``, ``seed`` and ``options``; what these leave open of slices and OPR modes is the image's.
        device: where.
        threads: that compute, on a processor.
        progress: called after each epoch.

    Returns:
        The state that explained the held-out frames best, that of `image` among them; the last one where none are held
        out.

    Raises:
        ConfigError: settings that contradict each other, or the image.
        DataError: the image is of another scan.
        BackendError: the solver diverged.
        Cancelled: `progress` raised it.
    """
    wanted, options = config.refinement, options_for(image, options_of(config))
    if wanted.positions:
        check_fixed_positions(options)
    state = _lay_out(image, scan, config)
    settings = Settings(
        options=options,
        loss=refinement_loss(config, losses_for(config)),
        seed=config.seed,
        batch_frames=wanted.batch_size,
        refine_probe=wanted.probe,
        refine_positions=bool(wanted.positions),
    )
    before = _problem(state, scan, config)
    problem = _with_more(before, config, settings)
    solver = Solver(problem, settings, device, threads)
    # modes that were added explain less at first, and they are not the image's
    first = solver if problem is before else Solver(before, replace(settings, refine_probe=False), device, threads)
    least = first.watch(_lay_out(image, scan, config, filled=False).slices)
    best, best_epoch = None, 0
    for epoch in range(wanted.epochs):
        metrics = {"train_loss": solver.sweep(epoch), "epoch": float(epoch + 1)}
        now = state.now(solver)
        held_out = solver.watch(now.shown())
        if held_out is not None:
            metrics["test_loss"] = held_out
        if held_out is None or least is None or held_out < least:
            best, least, best_epoch = now, held_out, epoch + 1
        done, total = epoch + 1, wanted.epochs
        progress(ProgressEvent(stage="refine", done=done, total=total, metrics=metrics, image=now.image))
        if held_out is not None and epoch + 1 - best_epoch >= wanted.patience:
            break
    return _same(image) if best is None else best.image()
