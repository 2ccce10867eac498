"""What a run that ended early left in a result folder: told of, kept, and gone on from where that is asked for.

A killed process cannot say how to go on, so the next command in its folder does. It begins anew unless it is told to go
on; what it would write over is moved to ``training/earlier`` before, so that hours of somebody's work are never
replaced by the first epoch of a run that was started by an arrow key.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..enginekit.checkpoint import Found, checkpoints_in
from ..errors import ArchiveError, OutputError
from ..io.atomic import ensure_output_folder
from ..io.result_folder import SUMMARY_NAME, ResultFolder, as_output_error, read_result_summary
from ..runtime import RESUME_AUTO, Runtime
from .observe import Observer

if TYPE_CHECKING:
    from ..data.run import Run

__all__ = ["EARLIER", "PUT_BY", "TRAINING_FOLDER", "beside_results", "checkpoint_meant", "put_by", "take_away"]

TRAINING_FOLDER = "training"
"""Subfolder of the results for checkpoints, the history, and the model until the results are complete."""

EARLIER = "earlier"
"""Subfolder of it for what a run that ended early left, once another has begun anew."""

PUT_BY = "image.h5"
"""Name in it of an image that is whole while half-data images, or the causes of a bad verdict, are still worked on."""


def beside_results(runtime: Runtime, folder: ResultFolder | None, observer: Observer) -> Runtime:
    """The runtime of a training whose checkpoints go beside the results, going on from what it says, or anew.

    Args:
        runtime: ``resume_from`` may be a checkpoint, a folder with one, or ``auto``.
        folder: of the results, held; None where nothing is written.
        observer: told of what a run that ended early left there.

    Raises:
        ArchiveError: a folder to go on from has no checkpoint.
        OutputError: the folder cannot be written.
    """
    if folder is None:
        return replace(runtime, resume_from=checkpoint_meant(runtime.resume_from))
    training = ensure_output_folder(folder.path / TRAINING_FOLDER)
    image = training / PUT_BY
    had_image = image.is_file()
    left = _left_in(folder.path, training)
    if runtime.resume_from == RESUME_AUTO and not RESUME_AUTO.exists():
        if left is None:
            observer.notice(f"resume_from = auto: no interrupted run left a checkpoint in {training}; it begins anew")
        else:
            observer.notice(f"resume_from = auto: going on from {left.describe()}")
        asked = None if left is None else left.path
    else:
        asked = checkpoint_meant(runtime.resume_from)
        goes_on_here = asked is not None and Path(os.path.realpath(training)) in Path(os.path.realpath(asked)).parents
        if left is not None and not goes_on_here:
            kept = _move_aside(training, left.path)
            image = training / EARLIER / PUT_BY
            observer.notice(
                f"an interrupted run left {left.describe()}; this one begins anew, and it is kept as {kept}. To go "
                f"on from it instead, give the same command with --resume_from {kept} (resume_from)"
            )
    if had_image:
        observer.notice(f"{image}: the image of a run that ended before its results were written")
    return replace(runtime, output_dir=training, resume_from=asked)


def put_by(done: Run, folder: ResultFolder | None, observer: Observer) -> None:
    """Write the image of a run before work that may be long and is not for the image; a full disk costs a notice."""
    from ..io.reconstruction_file import write_reconstruction

    if folder is None:
        return
    try:
        write_reconstruction(ensure_output_folder(folder.path / TRAINING_FOLDER) / PUT_BY, done)
    except OutputError as error:
        observer.notice(f"the image was not put by before what follows: {error}")


def take_away(folder: ResultFolder) -> None:
    """Remove the image that was put by, once it lies among the results."""
    with suppress(OSError):
        (folder.path / TRAINING_FOLDER / PUT_BY).unlink(missing_ok=True)


def checkpoint_meant(path: Path | None) -> Path | None:
    """The file that ``resume_from`` means: of a folder the newest checkpoint in it.

    Raises:
        ArchiveError: a folder without one.
    """
    if path is None or not path.is_dir():
        return path
    found = checkpoints_in(path) or checkpoints_in(path / TRAINING_FOLDER)
    if not found:
        raise ArchiveError(
            f"{path}: there is no checkpoint in this folder; a training that ended before its first epoch did has left "
            "none: begin anew, without resume_from."
        )
    return found[0].path


def _left_in(folder: Path, training: Path) -> Found | None:
    """The newest checkpoint of a run whose results were never written; None where there is none."""
    found = checkpoints_in(training)
    if not found:
        return None
    if read_result_summary(folder) is None:
        return found[0]
    # of a finished result the checkpoint is the older one: what is newer was killed while it was to replace that
    newer = found[0].path.stat().st_mtime_ns > (folder / SUMMARY_NAME).stat().st_mtime_ns
    return found[0] if newer else None


def _move_aside(training: Path, newest: Path) -> Path:
    """Move all that a training wrote, trackers' files aside, to ``earlier``; where the newest checkpoint is then.

    File by file, each in one step: a process that is killed between two leaves the rest for the next one.
    """
    earlier = training / EARLIER
    with as_output_error(earlier, "choose another folder with --out."):
        for path in sorted(training.rglob("*")):
            inside = path.relative_to(training)
            own = path.suffix in (".ckpt", ".safetensors", ".ptycho", ".csv") or path.name == PUT_BY
            if own and inside.parts[0] != EARLIER and path.is_file() and not path.name.startswith("."):
                (earlier / inside).parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, earlier / inside)
    return earlier / newest.relative_to(training)
