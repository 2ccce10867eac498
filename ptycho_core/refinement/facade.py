"""Refining an image with any engine, and keeping the better of the two (specs/30, BE-18)."""

from __future__ import annotations

import warnings

from ..config import TrainingConfig
from ..data.container import PtychoDataContainer, Statistics
from ..data.raw import RawData
from ..data.results import Reconstruction, Refined
from ..errors import BackendError, CollapseError, ConfigError
from ..plugins.capabilities import check_refinement_capabilities, check_scan_capabilities
from ..plugins.guard import engine_at_work
from ..plugins.registry import load_backend
from ..plugins.returned import check_reconstruction
from ..prepare import check_container
from ..protocol import Progress, ProgressEvent, no_progress
from .positions import position_report

__all__ = ["refine", "refining_engine"]


def refining_engine(config: TrainingConfig) -> str | None:
    """Name of the engine that refines by a config, or None where nothing is to be refined.

    Raises:
        ConfigError: the engine named cannot refine, or not as asked.
        BackendError: it is unknown, missing or broken.
    """
    chosen = config.refinement.engine
    if chosen == "none":
        return None
    name = config.backend if chosen == "auto" else chosen
    capabilities = load_backend(name).capabilities
    if chosen == "auto" and not capabilities.refine:
        return None
    check_refinement_capabilities(config, capabilities, name)
    return name


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
    initial: Reconstruction,
    data: RawData | PtychoDataContainer,
    config: TrainingConfig,
    *,
    statistics: Statistics | None = None,
    progress: Progress = no_progress,
) -> Refined:
    """Go on from an image with the engine that ``config.refinement`` names, and keep the better image.

    Args:
        initial: an image of the scan, made by any engine.
        data: the scan, with the same frames in the same order, or a container of it.
        config: ``refinement`` says how; ``test_fraction``, ``test_split`` and ``seed`` decide the held-out frames.
        statistics: constants of the training split; measured on the scan when None.
        progress: called after each epoch; it may raise ``Cancelled``.

    Returns:
        Both images, and which is better: a refined image whose R-factor over all frames is higher, which is constant,
        or which the engine could not finish is discarded, and the reason told in ``note`` and in a warning.

    Warns:
        UserWarning: the refined image was discarded.

    Raises:
        ConfigError: ``refinement.engine`` is ``none``, or names an engine that cannot do what is asked.
        DataError: the image is of another scan.
        BackendError: the engine is unknown, missing, broken, or returned what the protocol does not allow.
        Cancelled: `progress` raised it.
    """
    name = refining_engine(config)
    if name is None:
        raise ConfigError(
            f"refinement.engine = {config.refinement.engine!r} and backend = {config.backend!r}: there is no engine to "
            "refine with. Name one in refinement.engine."
        )
    engine = load_backend(name)
    container = _container_of(initial, data, config, statistics)
    check_scan_capabilities(container.raw, engine.capabilities, name)
    record = _Record(progress)
    try:
        with engine_at_work(name, "refine", record) as relay:
            result = engine.refine(initial, container, config, progress=relay)  # type: ignore[attr-defined]
            check_reconstruction(result, container, name, config.collapse_threshold)
        note = _worse(result, initial)
    except BackendError as error:
        if type(error) not in (BackendError, CollapseError):  # a broken promise is the engine's fault, not the image's
            raise
        note = str(error)
    if note:
        warnings.warn(f"the image refined by engine '{name}' was discarded: {note}", UserWarning, stacklevel=2)
        return Refined(
            reconstruction=initial, initial=initial, engine=name, kept=False, note=note, history=record.history
        )
    plan, positions = config.refinement, None
    if plan.positions:
        positions = position_report(result.nominal_positions_px, result.positions_px, plan.position_limit_px)
    return Refined(
        reconstruction=result,
        initial=initial,
        engine=name,
        kept=True,
        note="",
        history=record.history,
        positions=positions,
    )


def _container_of(
    initial: Reconstruction,
    data: RawData | PtychoDataContainer,
    config: TrainingConfig,
    statistics: Statistics | None,
) -> PtychoDataContainer:
    """A container as it is, or a scan laid out with the probe of its image."""
    if isinstance(data, PtychoDataContainer):
        return check_container(data)
    raw = data.with_probe(initial.probe, calibrated=data.probe_calibrated)
    return PtychoDataContainer.for_reconstruction(raw, min(config.group_size, raw.n_frames), statistics=statistics)


def _worse(result: Reconstruction, initial: Reconstruction) -> str:
    """Why a refined image is no better than the one it began with; an empty text where it is better."""
    if result.r_factor <= initial.r_factor:
        return ""
    return f"its R-factor {result.r_factor:.4f} is higher than the {initial.r_factor:.4f} it began with"
