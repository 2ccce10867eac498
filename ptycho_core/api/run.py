"""One way from a scan to an image and a report: ``run``; its first part by itself is ``train``, in ``train.py``.

Whoever wants an image comes through here: the command, ``run_cdi_example``, and any application. Each engine is made
once, the frames get their roles once, every image is scored once, and nothing is written before the input is accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..config import TrainingConfig
from ..data.container import PtychoDataContainer
from ..data.raw import ObjectGuess
from ..data.results import Image, Refined, Scored
from ..data.run import Run, Stage
from ..data.verdict import Verdict
from ..enginekit.loss_choice import training_loss
from ..errors import Cancelled
from ..io.result_folder import ResultFolder
from ..protocol import Progress, TrainedModel, no_progress
from ..runtime import DEFAULT_RUNTIME, Runtime
from ..stopping import stoppable, to_its_end
from .accept import ScanSource, accepted_scans, files_read, known_side
from .attended import attended, kept_model
from .diagnose import diagnose
from .epochs import with_epoch_figures
from .extras import extra
from .halves import half_data_frc
from .judge import Judgement, circumstances
from .leftovers import TRAINING_FOLDER, beside_results, put_by, take_away
from .models import BUNDLE_NAME, save_model
from .observe import Observer
from .outcome import check_room_for_image, first_stage_name, made_run, opened_folder, write_run
from .refining_stage import refined_or_first
from .stages import (
    Engines,
    Heard,
    image_of,
    need_training_frames,
    of_model,
    train_on,
)

if TYPE_CHECKING:
    from ..data.findings import Comparison, FourierRingCorrelation

    _HalfData = tuple[FourierRingCorrelation, FourierRingCorrelation | None]

__all__ = ["TRAINING_FOLDER", "compare_with_truth", "run"]


_T = TypeVar("_T")


@dataclass
class _Job:
    """One run under way.

    Attributes:
        engines: made and asked already.
        scan: with its roles.
        runtime: what does the work, with the folder of the checkpoints.
        folder: where the results go, or None.
        observer: who watches.
        progress: the caller's.
        bundle: file of the model, once it is saved.
        cut_short: what stopped the training, of which the image is made all the same; None where it came to its end.
        late: the wish to stop that came in its last step: it is whole, and nothing but its image is made; or None.
    """

    engines: Engines
    scan: PtychoDataContainer
    runtime: Runtime
    folder: ResultFolder | None
    observer: Observer
    progress: Progress
    bundle: Path | None = None
    cut_short: Cancelled | None = None
    late: Cancelled | None = None

    def train(self) -> TrainedModel:
        """Train, and save the model at once: an interruption from here on costs the image, not the training."""
        heard = Heard(self.progress)
        try:
            with self.observer.stage("train"):
                model = train_on(self.engines.trainer, [self.scan], self.engines.config, self.runtime, heard)
        except Cancelled as error:
            self.cut_short = error
            return kept_model(error, self.observer, "the image")
        self.late = heard.wish
        if self.folder is not None:
            with self.observer.stage("save", finishes=True):
                self.bundle = self.folder.path / TRAINING_FOLDER / BUNDLE_NAME
                save_model(model, self.bundle, backend=self.engines.trainer.backend)
            self.observer.saved(self.bundle)
        return model

    def image(self, model: TrainedModel) -> Scored:
        """The image of the training frames."""
        with self.observer.stage("reconstruct"):
            same = of_model(self.scan, model)
            inference = self.engines.config.inference
            return image_of(self.engines.trainer.backend, model, same, inference, self.runtime, self.progress)

    def refined(self, first: Scored) -> tuple[Refined | None, Cancelled | None]:
        """What refining makes of an image; it costs a notice when it fails, and the interruption when it is stopped."""
        config, observer = self.engines.config, self.observer
        return refined_or_first(first, self.engines.refiner, config, self.runtime, observer, self.progress)

    def half_data(self) -> tuple[_HalfData | None, Cancelled | None]:
        """The correlation of two images from half of the frames each; stopping it costs the correlation only."""
        try:
            with self.observer.stage("half_data"):
                return self.extra("half-data FRC", lambda: half_data_frc(self.scan, self.engines, self.progress)), None
        except Cancelled as error:
            self.observer.notice(f"no half-data FRC: {error}")
            return None, error

    def verdict(
        self, result: Stage, refined: Refined | None, *, whole: bool, before: Callable[[], None]
    ) -> tuple[Verdict | None, Cancelled | None]:
        """The verdict on the result; where it is bad and the run was `whole`, its cause is looked for, `before` first.

        Stopping that costs the cause only.
        """
        scored, backend = result.scored, self.engines.trainer.backend
        if refined is not None and refined.kept and self.engines.refiner is not None:
            backend = self.engines.refiner.backend
        known = circumstances(scored, refined, result.half_data_frc, self.engines.config)
        with self.observer.stage("verdict", finishes=True):
            judged = self.extra("verdict", lambda: Judgement(scored, self.scan.probe, backend, known))
        if judged is None:
            return None, None
        found, stopped = None, None
        if whole and judged.needs_diagnosis:
            with to_its_end():
                before()
            try:
                with self.observer.stage("diagnosis"):
                    look = partial(diagnose, self.scan, self.engines.config, self.runtime, progress=self.progress)
                    found = self.extra("diagnosis", look)
            except Cancelled as error:
                self.observer.notice(f"no diagnosis: {error}")
                stopped = error
        with to_its_end():
            return self.extra("verdict", lambda: judged.verdict(found)), stopped

    def extra(self, what: str, job: Callable[[], _T]) -> _T | None:
        """Do an extra; see :func:`.extras.extra`."""
        return extra(self.observer, what, job)


def run(
    scan: ScanSource,
    config: TrainingConfig,
    runtime: Runtime = DEFAULT_RUNTIME,
    *,
    out: Path | str | None = None,
    overwrite: bool = False,
    half_data: bool = False,
    truth: ObjectGuess | None = None,
    title: str | None = None,
    despite_findings: bool = False,
    inputs: Sequence[Path] = (),
    provenance: dict[str, Any] | None = None,
    progress: Progress = no_progress,
    observer: Observer | None = None,
) -> Run:
    """Go from a scan to an image and a verdict on it: read, check, roles, train, reconstruct, refine, score, write.

    Args:
        scan: a path, a RawData, a container whose roles are kept, or a function that reads one when it is wanted.
        config: what decides the result.
        runtime: what does the work.
        out: folder for the results, with the checkpoints in ``training`` below it, whatever ``runtime.output_dir``
            says; None writes nothing but checkpoints, where that says so.
        overwrite: replace a finished result that lies there.
        half_data: also make an image of each half of the frames and correlate the two.
        truth: the object to score the images against, of a simulated scan.
        title: heading of the report; None takes the name of the file.
        despite_findings: go on although the checks found what makes an image worthless.
        inputs: further files that the caller has read, which are left alone wherever they lie.
        provenance: further plain data to keep with the results.
        progress: called after each step; it may raise ``Cancelled``.
        observer: who watches; it is told of stages, notices and the folder.

    Returns:
        The run; its ``image`` is the result.

    Raises:
        ConfigError: a field that an engine does not honour, before data are read.
        DataError: no usable scan, or one that the checks refuse.
        OutputError: the folder is in use, holds a finished result, or cannot be written; nothing was replaced.
        BackendError: an engine is unknown, missing, broken, or failed; see its subclasses.
        Cancelled: `progress` raised it. ``checkpoint_path`` says where training can be gone on from, ``model_path``
            where the model is, and ``results_path`` and ``run`` hold the results, as far as there are any.

    In a notebook or on a console a run without `progress` and `observer` shows a bar, and the first Ctrl-C (the
    notebook's stop) ends it after its step: the run comes back as far as it is, with a warning, wherever an image can
    be made of that. Nothing is in `out` then but the checkpoint where training was stopped; see ``api.attended``.
    """
    with attended(observer, progress) as (watcher, step):
        return _run(
            scan, config, runtime, watcher, step, out=out, overwrite=overwrite, half_data=half_data, truth=truth,
            title=title, despite_findings=despite_findings, inputs=inputs, provenance=provenance,
        )  # fmt: skip


def _run(
    scan: ScanSource,
    config: TrainingConfig,
    runtime: Runtime,
    watcher: Observer,
    progress: Progress,
    *,
    out: Path | str | None,
    overwrite: bool,
    half_data: bool,
    truth: ObjectGuess | None,
    title: str | None,
    despite_findings: bool,
    inputs: Sequence[Path],
    provenance: dict[str, Any] | None,
) -> Run:
    """:func:`run`, watched."""
    with stoppable(watcher.check):
        engines = Engines(config, runtime, watcher, side=known_side(scan))
        how: dict[str, Any] = {"despite_findings": despite_findings, "progress": progress}
        (container,) = accepted_scans([scan], engines, watcher, **how)
    need_training_frames(container)
    files = [*inputs, *files_read([container], runtime)]
    with opened_folder(out, overwrite, files, watcher) as folder, stoppable(watcher.check):
        check_room_for_image(folder, container)
        job = _Job(engines, container, beside_results(runtime, folder, watcher), folder, watcher, progress)
        done, stopped = _go(job, half_data=half_data, truth=truth, title=title, provenance=provenance or {})
        if folder is not None and job.cut_short is None:
            done = write_run(done, folder, watcher, job.bundle)
            take_away(folder)
    if stopped is not None and not watcher.returns_partial:
        where = None if done.folder is None else str(done.folder)
        raise Cancelled(str(stopped), stopped.checkpoint_path, results_path=where, run=done) from stopped
    return done


def _go(
    job: _Job, *, half_data: bool, truth: ObjectGuess | None, title: str | None, provenance: dict[str, Any]
) -> tuple[Run, Cancelled | None]:
    """From the roles to the last figure; and the wish to stop that came while the image was refined."""
    watcher, engines = job.observer, job.engines
    model = job.train()

    @cache  # it goes through the frames, and is asked for more than once
    def history() -> dict[str, list[float]]:
        loss = training_loss(engines.config, engines.trainer.capabilities.losses)
        return with_epoch_figures(model.history, first, loss, training=engines.config.method == "solver")

    def so_far(stages: tuple[Stage, ...]) -> Run:
        made = partial(made_run, stages, model, engines.trainer, engines.config, job.runtime, watcher)
        done = made(refined=refined, title=title)
        return replace(done, history=history(), provenance={**done.provenance, **provenance})

    try:
        first = job.image(model)
        if job.late is not None:
            watcher.ended_early(f"training was whole when it was to stop ({job.late}); nothing follows its image")
        wish = job.cut_short or job.late
        refined, stopped = (None, wish) if wish else job.refined(first)
        frcs = None
        if half_data and stopped is None:
            with to_its_end():
                put_by(so_far(_stages(job, first, refined, None, None)), job.folder, watcher)
            frcs, stopped = job.half_data()
    except Cancelled as error:
        where = None if job.bundle is None else str(job.bundle)
        raise Cancelled(str(error), error.checkpoint_path, model_path=where, model=model) from error
    with to_its_end():
        stages = _stages(job, first, refined, truth, frcs)
    verdict, stopped_later = job.verdict(
        stages[-1], refined, whole=stopped is None, before=lambda: put_by(so_far(stages), job.folder, watcher)
    )
    return replace(so_far(stages), verdict=verdict), stopped or stopped_later


def _stages(
    job: _Job,
    first: Scored,
    refined: Refined | None,
    truth: ObjectGuess | None,
    frcs: _HalfData | None,
) -> tuple[Stage, ...]:
    """The trained image and, where refining made a better one, that, each with its scores."""
    seconds = job.observer.seconds

    def compared(scored: Scored) -> Comparison | None:
        if truth is None:
            return None
        return job.extra("comparison with the truth", lambda: compare_with_truth(scored.image, truth, scored.scan))

    stages = [
        Stage(
            name=first_stage_name(job.engines.config),
            scored=first,
            seconds=seconds.get("train", 0.0) + seconds.get("reconstruct", 0.0),
            comparison=compared(first),
            half_data_frc=frcs[0] if frcs else None,
        )
    ]
    if refined is not None and refined.kept:
        stages.append(
            Stage(
                name="refined",
                scored=refined.best,
                seconds=seconds.get("refine", 0.0),
                comparison=compared(refined.best),
                half_data_frc=frcs[1] if frcs else None,
            )
        )
    return tuple(stages)


def compare_with_truth(image: Image, truth: ObjectGuess, scan: PtychoDataContainer) -> Comparison:
    """Score an image against its truth."""
    from ..evaluation.metrics import compare_objects

    return compare_objects(
        image.object,
        image.origin_px,
        truth.object,
        truth.origin_px,
        coverage=image.coverage,
        positions_px=image.positions_px[scan.used_frames],
    )
