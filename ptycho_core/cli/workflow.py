"""From a scan to an image and a report: the stages that ``run``, ``train``, ``reconstruct`` and ``demo`` share."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..config import TrainingConfig
from ..data.raw import ObjectGuess, RawData
from ..data.results import CdiResults, Reconstruction, Refined
from ..errors import Cancelled, PtychoError
from ..io.atomic import ensure_output_folder
from .options import Options
from .progress import long_job
from .refining import half_data_frc, refine_same_scan, start_refining_engine
from .results import BUNDLE_NAME, Outcome, report_results
from .session import Session

if TYPE_CHECKING:
    from ..metrics import Comparison, FourierRingCorrelation
    from ..protocol import ReconstructionBackend
    from ..report import Stage

__all__ = [
    "CONFIG_OMIT",
    "Trained",
    "compare_with_truth",
    "image_and_report",
    "load_engine",
    "output_folder",
    "read_data",
    "reconstruct_same_scan",
    "train_model",
]

CONFIG_OMIT = {"output_dir": "the folder is chosen with --out"}
_TRAINING_FOLDER = "training"
_log = logging.getLogger("ptycho_core.cli")


def output_folder(options: Options, default: str, session: Session) -> Path:
    """Make the output folder, prove that it can be written, and begin the log there."""
    folder = ensure_output_folder(options["out"] or default)
    session.open_log(folder)
    return folder


def load_engine(config: TrainingConfig, session: Session) -> ReconstructionBackend:
    """Import the engine and refuse a config that it cannot keep, before any data are read."""
    from .. import legacy
    from ..plugins.capabilities import check_capabilities
    from ..plugins.registry import load_backend

    legacy.update_legacy_dict(legacy.params.cfg, config)  # engines may look there, as they do behind the facade
    with session.stage("start_up"), session.quiet_start(config.backend):
        engine = load_backend(config.backend)
    check_capabilities(config, engine.capabilities, engine.name)
    return engine


def read_data(options: Options, session: Session) -> RawData:
    """Read the scan that a command was given, with the probe of ``--probe`` if there is one."""
    from ..io import read_probe, read_scan

    with session.stage("read"):
        raw = read_scan(Path(options["data"]), measurement=options["measurement"], dialect=options["dialect"])
        if options["probe"]:
            raw = raw.with_probe(read_probe(Path(options["probe"])))
    for text in raw.source.assumptions:
        _log.info("%s", text)
    for text in raw.source.warnings:
        session.notice(text)
    modes = "no probe given" if raw.probe is None else f"{len(raw.probe)} probe mode(s)"
    session.say(
        f"scan      {raw.n_frames} frames of {raw.side}×{raw.side} ({raw.source.measurement}), "
        f"{raw.frame_totals.mean():.4g} photons a frame, {modes}"
    )
    return raw


_T = TypeVar("_T")


@dataclass(frozen=True)
class Trained:
    """What training left.

    Attributes:
        results: what the facade returned.
        raw: the whole scan as prepared, held-out frames included.
        config: what it was trained with.
        heldout: (n,) positions in `raw` of the frames that training did not see, or None when it saw all.
        stopped: whether the end was asked for after the last step.
    """

    results: CdiResults
    raw: RawData
    config: TrainingConfig
    heldout: NDArray[np.int64] | None
    stopped: bool


def _resume_command(session: Session, checkpoint: str) -> str:
    """The command that was given, going on from a checkpoint."""
    words, skip = [], False
    for word in session.command:
        option = word.partition("=")[0].replace("-", "_")
        if skip or option == "__resume_from":
            skip = not skip and "=" not in word
            continue
        words.append(word)
    return shlex.join(["ptycho", *words, "--resume_from", checkpoint])


def train_model(raw: RawData, config: TrainingConfig, folder: Path, session: Session) -> Trained:
    """Prepare and split a scan, and train on it.

    Args:
        raw: the scan as read.
        config: how.
        folder: output folder of the command; checkpoints and the history go into ``training`` there.
        session: of the command.

    Raises:
        Cancelled: interrupted; the message says how to resume.
    """
    from .. import api
    from ..refinement.image import heldout_frames

    # training itself compares nphotons with the frames it sees; once is enough
    raw = api.prepare_scan(raw, replace(config, nphotons=None))
    train, test = raw.split(config.test_fraction, config.seed, config.test_split)
    config = replace(config, output_dir=ensure_output_folder(folder / _TRAINING_FOLDER))
    try:
        with session.stage("train"), long_job() as progress:
            results = api.train_cdi_model(train, test, config, progress=progress)
    except Cancelled as error:
        if error.checkpoint_path is None:
            raise Cancelled(f"{error}; no checkpoint was written") from error
        path = str(error.checkpoint_path)
        raise Cancelled(f"{error}; go on with: {_resume_command(session, path)}", path) from error
    heldout = None if test is None else heldout_frames(raw, config)
    return Trained(results=results, raw=raw, config=config, heldout=heldout, stopped=progress.stopped)


def reconstruct_same_scan(trained: Trained, session: Session, *, to_refine: bool = False) -> Reconstruction:
    """Reconstruct the whole scan that a model was trained on.

    Args:
        trained: what training left.
        session: of the command.
        to_refine: make it without the held-out frames: an image that had seen them would explain them better than what
            refining makes of it at first, and they could not tell when to stop.
    """
    from .. import api

    with session.stage("reconstruct"), long_job() as progress:
        return api.reconstruct(
            trained.results["model"],
            trained.raw,
            trained.config.inference,
            same_scan=True,
            without=trained.heldout if to_refine else None,
            progress=progress,
        )


def _image_advice(raw: RawData, bundle: Path) -> str:
    """How to get the image from a saved model."""
    if raw.source.path is None:
        return f"the trained model was saved as {bundle}"
    words = ["ptycho", "reconstruct", "--same_scan", "--model", str(bundle), raw.source.path]
    return f"training is done, get the image with: {shlex.join([*words, '--measurement', raw.source.measurement])}"


def image_and_report(
    trained: Trained,
    title: str,
    folder: Path,
    session: Session,
    *,
    truth: ObjectGuess | None = None,
    half_data: bool = False,
) -> None:
    """Reconstruct the scan that was trained on, refine the image, and write every result.

    The model is saved first: an interruption from here on costs the image, not the training. One while the image is
    refined costs the refined image only; the one before it is written.

    Raises:
        Cancelled: interrupted; the message says where the image is, or how to get it from the saved model.
    """
    from ..api import save_model

    results, raw = trained.results, trained.raw
    bundle = folder / _TRAINING_FOLDER / BUNDLE_NAME
    with session.stage("save"):
        save_model(results["model"], bundle)
    refiner = start_refining_engine(trained.config, session)
    try:
        if trained.stopped:
            raise KeyboardInterrupt
        first, refined, stopped = reconstruct_same_scan(trained, session, to_refine=refiner is not None), None, None
        if refiner is not None:
            try:
                # an engine that fails here costs a notice: the image that it would have made better is there
                refined = _or_notice(
                    "refined image",
                    lambda: refine_same_scan(first, raw, trained.config, results["model"].statistics, session),
                    session,
                )
            except Cancelled as error:
                stopped = error
                session.notice(f"no refined image: {error}; the image that refining began with is written")
            if refined is None or not refined.kept:
                first = reconstruct_same_scan(trained, session)  # nothing is gained by leaving frames out of it now
        frcs = None
        if half_data and stopped is None:
            frcs = _or_notice("half-data FRC", lambda: half_data_frc(raw, trained.config, refiner, session), session)
    except (Cancelled, KeyboardInterrupt) as error:
        raise Cancelled(f"{str(error) or 'interrupted'}; {_image_advice(raw, bundle)}") from error
    stages = _stages(trained, first, refined, truth, frcs, session)
    outcome = Outcome(
        title=title,
        trained_with=trained.config,
        engine=results["backend"],
        raw=raw,
        reconstruction=stages[-1].reconstruction,
        history=results["history"],
        heldout=trained.heldout,
        comparison=stages[-1].comparison,
        half_data_frc=stages[-1].half_data_frc,
        stages=stages if len(stages) > 1 else (),
        refined=refined,
        provenance={**results["provenance"], "command": session.command, "source": raw.source.details},
    )
    report_results(outcome, folder, session, bundle=bundle)
    if stopped is not None:
        raise Cancelled(f"{stopped}; the image before refining is in {folder}") from stopped


def _stages(
    trained: Trained,
    first: Reconstruction,
    refined: Refined | None,
    truth: ObjectGuess | None,
    frcs: tuple[FourierRingCorrelation, FourierRingCorrelation | None] | None,
    session: Session,
) -> tuple[Stage, ...]:
    """The trained image and, where refining made a better one, that, each with its scores."""
    from ..plugins.registry import load_backend
    from ..report import Stage

    def score(image: Reconstruction) -> Comparison | None:
        if truth is None:
            return None
        return _or_notice("comparison with the truth", lambda: compare_with_truth(image, truth), session)

    engine = trained.results["backend"]
    stages = [
        Stage(
            name="network" if load_backend(engine).capabilities.generators else "solver",
            engine=engine,
            reconstruction=first,
            seconds=session.seconds.get("train", 0.0) + session.seconds.get("reconstruct", 0.0),
            comparison=score(first),
            half_data_frc=frcs[0] if frcs else None,
        )
    ]
    if refined is not None and refined.kept:
        stages.append(
            Stage(
                name="refined",
                engine=refined.engine,
                reconstruction=refined.reconstruction,
                seconds=session.seconds.get("refine", 0.0),
                comparison=score(refined.reconstruction),
                half_data_frc=frcs[1] if frcs else None,
            )
        )
    return tuple(stages)


def _or_notice(what: str, job: Callable[[], _T], session: Session) -> _T | None:
    """Do an extra; when it fails, say so and go on, since the image that it would judge is finished."""
    try:
        return job()
    except Cancelled:
        raise
    except PtychoError as error:
        session.notice(f"no {what}: {error}")
        return None


def compare_with_truth(reconstruction: Reconstruction, truth: ObjectGuess) -> Comparison:
    """Score a reconstruction against its truth."""
    from ..metrics import compare_objects

    return compare_objects(
        reconstruction.object,
        reconstruction.origin_px,
        truth.object,
        truth.origin_px,
        coverage=reconstruction.coverage,
        positions_px=reconstruction.positions_px,
    )
