"""Refining as one stage of a job: a failure or an interruption costs the refined image, and the first one is kept."""

from __future__ import annotations

from ..config import TrainingConfig
from ..data.results import Refined, Scored
from ..data.run import Stage
from ..errors import Cancelled
from ..plugins.registry import LoadedBackend
from ..protocol import Progress
from ..runtime import Runtime
from .observe import Observer
from .refine import ENGINE_FAILURES, error_words, refine_or_stop

__all__ = ["refined_or_first", "refined_stage"]


def refined_or_first(
    first: Scored,
    refiner: LoadedBackend | None,
    config: TrainingConfig,
    runtime: Runtime,
    observer: Observer,
    progress: Progress,
) -> tuple[Refined | None, Cancelled | None]:
    """What refining makes of an image; it costs a notice when it fails, and the interruption when it is stopped.

    Args:
        first: the image.
        refiner: engine that refines, or None where nothing is refined.
        config: of the job.
        runtime: what does the work.
        observer: who watches.
        progress: the caller's.
    """
    if refiner is None:
        return None, None
    if not len(first.scan.heldout_frames) and refiner.capabilities.stepping:
        observer.notice(
            "no frames are held out, so refining makes all its epochs and tries neither modes nor positions"
        )
    try:
        with observer.stage("refine"):
            done, stopped = refine_or_stop(
                first,
                config,
                runtime,
                backend=refiner.backend,
                tell=observer.notice,
                progress=progress,
                keep=observer.returns_partial,
            )
        if stopped is not None:
            what = "the best image up to there is the result" if done.kept else "the image before it is the result"
            observer.ended_early(f"refining was stopped ({stopped}); {what}")
        return done, stopped
    except Cancelled as error:
        observer.notice(f"no refined image: {error}; the result is the image before refining")
        return None, error
    except ENGINE_FAILURES as error:
        observer.notice(f"no refined image: {error_words(error)}")
        return None, None


def refined_stage(refined: Refined | None, seconds: float) -> tuple[Stage, ...]:
    """The stage of a refined image that is kept; none where it is not."""
    if refined is None or not refined.kept:
        return ()
    return (Stage(name="refined", scored=refined.best, seconds=seconds),)
