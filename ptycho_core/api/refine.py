"""Refining an image with any engine, and keeping the better of the two (specs/30, BE-18)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..config import TrainingConfig
from ..config_mapping import with_typed_options
from ..data.container import PtychoDataContainer
from ..data.results import Image, Refined, Scored
from ..enginekit.loss_choice import refinement_loss
from ..enginekit.refining import refine_by_steps
from ..errors import BackendError, BackendProtocolError, Cancelled, CollapseError, ConfigError, PtychoError
from ..evaluation.positions import position_report
from ..plugins.capabilities import (
    check_refinement_capabilities,
    check_runtime_capabilities,
    check_scan_capabilities,
)
from ..plugins.guard import engine_at_work
from ..plugins.registry import load_backend
from ..plugins.returned import check_image
from ..protocol import (
    Capabilities,
    Progress,
    ProgressEvent,
    ReconstructionBackend,
    SupportsLossChoice,
    SupportsRefinement,
    SupportsStepping,
    no_progress,
)
from ..runtime import DEFAULT_RUNTIME, Runtime
from ..stopping import to_its_end
from .attended import attended
from .epochs import with_epoch_figures
from .prepare import Tell, pass_on
from .score import heldout_loss, score

__all__ = [
    "ENGINE_FAILURES",
    "chosen_loss",
    "error_words",
    "refine",
    "refine_or_stop",
    "refined_by",
    "refiner_runtime",
    "refining_engine",
]


ENGINE_FAILURES = (PtychoError, MemoryError, OSError)
"""What may come out of an engine, or of a machine at its end."""


def error_words(error: BaseException) -> str:
    """What went wrong; the kind of error too, where its text is not written for the user."""
    if isinstance(error, PtychoError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def chosen_loss(config: TrainingConfig, engine: ReconstructionBackend) -> str:
    """The loss that an engine refines an image with by a config, and that core judges it by.

    Raises:
        BackendProtocolError: the engine allows no loss, or one that its capabilities have not.
    """
    losses: tuple[str, ...] = engine.capabilities.losses
    if isinstance(engine, SupportsLossChoice):
        allowed = tuple(engine.losses_for(config))
        if not allowed or set(allowed) - set(losses):
            raise BackendProtocolError(
                f"engine '{engine.name}': losses_for(config) gave {allowed}; it must give at least one, and of "
                f"{', '.join(losses)} only, which are in its capabilities."
            )
        losses = allowed
    return refinement_loss(config, losses)


def refining_engine(config: TrainingConfig, trained_with: Capabilities) -> str | None:
    """Name of the engine that refines by a config, or None where nothing is to be refined.

    Args:
        config: ``refinement.engine``: ``auto`` is the engine that trains, where it can refine.
        trained_with: capabilities of the engine that trains.
    """
    chosen = config.refinement.engine
    if chosen == "auto":
        return config.backend if trained_with.refine or trained_with.stepping else None
    return None if chosen == "none" else chosen


def refiner_runtime(config: TrainingConfig, runtime: Runtime, engine: str, can: Capabilities) -> Runtime:
    """What does the work of an engine that refines what another one made.

    Hardware that only the first one knows is left to it, since it changes no image; folders, trackers, devices and the
    checkpoint are of its training, and bf16 is of its network. A precision of 64 is asked of both.
    """
    if engine == config.backend:
        return replace(runtime, loggers=(), devices=1, resume_from=None)
    return Runtime(
        accelerator=runtime.accelerator if runtime.accelerator in can.accelerators else "auto",
        precision="auto" if runtime.precision == "bf16" else runtime.precision,
        threads=runtime.threads if can.threads else None,
    )


class _Record:
    """Keeps the losses of each epoch on their way to the caller's progress."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.history: dict[str, list[float]] = {}

    def __call__(self, event: ProgressEvent) -> None:
        """Note the losses, and pass the event on."""
        if event.stage == "refine":
            for name in ("train_loss", "test_loss"):
                if name in event.metrics:
                    self.history.setdefault(name, []).append(float(event.metrics[name]))
        self.progress(event)


def refine(
    initial: Scored,
    config: TrainingConfig,
    runtime: Runtime = DEFAULT_RUNTIME,
    *,
    backend: ReconstructionBackend | None = None,
    tell: Tell | None = None,
    progress: Progress = no_progress,
) -> Refined:
    """Go on from an image with the engine that ``config.refinement`` names, and keep the better image.

    Args:
        initial: an image made by any engine, with its scan and the role of each frame.
        config: ``refinement`` says how.
        runtime: what does the work.
        backend: that engine, where it is at hand; None loads it.
        tell: called with a sentence when the refined image is discarded; None raises a warning.
        progress: called after each epoch; it may raise ``Cancelled``.

    Returns:
        Both images, and which is better: the one with the lower loss of the held-out frames (of all, where none are
        held out), in the loss refined with. An image that is constant, or that the engine could not finish, is
        discarded too; the reason is told in ``note`` and in a warning.

    Warns:
        UserWarning: the refined image was discarded.

    Raises:
        ConfigError: ``refinement.engine`` is ``none``, or names an engine that cannot do what is asked.
        BackendError: the engine is unknown, missing, broken, or returned what the protocol does not allow.
        Cancelled: `progress` raised it.
    """
    with attended(None, progress, told=tell is not None) as (watcher, step):
        done, stopped = refine_or_stop(
            initial, config, runtime, backend=backend, tell=tell, progress=step, keep=watcher.returns_partial
        )
    if stopped is not None:
        what = "the best image up to there is kept" if done.kept else "the image that it began with is the result"
        pass_on([f"refining was stopped ({stopped}); {what}"], tell, stacklevel=2)
    return done


def refine_or_stop(
    initial: Scored,
    config: TrainingConfig,
    runtime: Runtime,
    *,
    backend: ReconstructionBackend | None,
    tell: Tell | None,
    progress: Progress,
    keep: bool,
) -> tuple[Refined, Cancelled | None]:
    """As :func:`refine`; what it came to when it was stopped, and by what, where `keep` says so.

    Raises:
        PtychoError: as :func:`refine`; ``Cancelled`` where nothing is to be kept.
    """
    chosen = config.refinement.engine
    if chosen == "none":
        raise ConfigError("refinement.engine = 'none': there is no engine to refine with. Name one, or say 'auto'.")
    engine = load_backend(config.backend if chosen == "auto" else chosen) if backend is None else backend
    name = engine.name
    config = with_typed_options(config, name)
    check_refinement_capabilities(config, engine.capabilities, name)
    runtime = refiner_runtime(config, runtime, name, engine.capabilities)
    check_runtime_capabilities(runtime, engine.capabilities, name)
    scan = initial.scan
    check_scan_capabilities(scan.raw, engine.capabilities, name)
    record, loss = _Record(progress), chosen_loss(config, engine)
    config = replace(config, refinement=replace(config.refinement, loss=loss))
    found, stopped = None, None
    try:
        with engine_at_work(name, "refine", record) as relay:
            try:
                image = refined_by(engine, initial.image, scan, config, runtime, relay)
            except Cancelled as error:
                if not keep:
                    raise
                image, stopped = error.image or initial.image, error
            check_image(image, scan, name, config.collapse_threshold)
        if _is_same(image, initial.image):
            note = "no epoch lowered the loss of the validation frames"
            note = note if stopped is None else f"it was stopped ({stopped})"
        else:
            with to_its_end():
                found = score(image, scan, name, engine)
            note = _worse(found, initial, loss)
    except BackendError as error:
        if type(error) not in (BackendError, CollapseError):  # a broken promise is the engine's fault, not the image's
            raise
        note = str(error)
    history = with_epoch_figures(record.history, found or initial, loss)
    if note or found is None:
        if stopped is None:
            pass_on([f"the image refined by engine '{name}' was discarded: {note}"], tell, stacklevel=3)
        done = Refined(best=initial, initial=initial, engine=name, kept=False, note=note, history=history)
        return done, stopped
    plan, positions = config.refinement, None
    if plan.positions or not np.array_equal(found.image.positions_px, initial.image.positions_px):
        used = scan.used_frames
        nominal, moved = scan.raw.positions_px[used], found.image.positions_px[used]
        positions = position_report(nominal, moved, plan.position_limit_px, affine=plan.position_affine)
    done = Refined(best=found, initial=initial, engine=name, kept=True, note="", history=history, positions=positions)
    return done, stopped


def refined_by(
    engine: ReconstructionBackend,
    image: Image,
    scan: PtychoDataContainer,
    config: TrainingConfig,
    runtime: Runtime,
    progress: Progress,
) -> Image:
    """What an engine makes of an image, unjudged: by its own ``refine``, or by the descent of core with its steps.

    Raises:
        ConfigError: the image needs another engine's forward model.
    """
    if image.forward_model not in ("", engine.name):
        raise ConfigError(
            f"the image is explained by the forward model of engine '{image.forward_model}' only, so engine "
            f"'{engine.name}' cannot go on from it; refine it with '{image.forward_model}', or set "
            "refinement.engine = 'none'."
        )
    if isinstance(engine, SupportsStepping):
        return refine_by_steps(engine, image, scan, config, runtime, progress)
    assert isinstance(engine, SupportsRefinement)
    plan = config.refinement
    if plan.positions is None:  # it makes no trials, so nothing is taken up
        config = replace(config, refinement=replace(plan, positions=False))
    return engine.refine(image, scan, config, runtime, progress=progress)


def _is_same(image: Image, initial: Image) -> bool:
    """Whether nothing of an image was changed."""
    pairs = [(getattr(image, n), getattr(initial, n)) for n in ("object", "probe", "positions_px", "mode_weights")]
    return all(a is b or (a is not None and b is not None and np.array_equal(a, b)) for a, b in pairs)


def _worse(found: Scored, initial: Scored, loss: str) -> str:
    """Why a refined image is no better than the one it began with; an empty text where it is better."""
    before, after = heldout_loss(initial, loss), heldout_loss(found, loss)
    if after < before:
        return ""
    which = "frames" if found.heldout is None else "validation frames"
    # the sums themselves: a reduced deviance has a floor of its own in each image, and may fall where the sum rises
    what = "summed deviance" if loss == "poisson" else "summed squared error of amplitudes"
    return f"the loss of the {which} did not fall ({what} {after:.7g}, before {before:.7g})"
