"""What the commands say: of the scan that was read, of what came out, and of how to go on after an interruption."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Cancelled
from ..limits import within
from ..protocol import Progress, no_progress
from ..text import counted, shell_words
from .options import Options
from .reading_options import AUTO, READING, read_options
from .session import Session

if TYPE_CHECKING:
    from ..config import TrainingConfig
    from ..data.raw import RawData
    from ..data.run import Run, Stage
    from ..physics.merit import Figures

__all__ = [
    "files_given",
    "interrupted_with_advice",
    "reading",
    "said_how_to_go_on",
    "say_makers",
    "say_run",
    "taken_up",
]


def reading(
    options: Options,
    session: Session,
    *,
    say: bool = True,
    config: TrainingConfig | None = None,
    progress: Progress = no_progress,
) -> Callable[[], RawData]:
    """A function that reads the scan of a command, with the probe of ``--probe`` if there is one, and describes it.

    With ``--orientation auto`` it finds the orientation first, and brings the scan into it.

    Args:
        options: of the command.
        session: of the command.
        say: whether to describe the scan on standard output.
        config: of the run that the scan is read for, whose held-out frames no finding may look at.
        progress: called after each trial of an orientation; it may raise ``Cancelled``.
    """
    from ..io import read_scan
    from ..io.registry import expect

    said = read_options(options)
    expect(options["data"], said)

    def read() -> RawData:
        from ..io.probe_choice import probe_from_words

        raw = read_scan(Path(options["data"]), dialect=options["dialect"], options=said)
        if options["probe"]:
            with within(said.limits):
                raw = probe_from_words(options["probe"], raw)
        for text in raw.source.assumptions:
            session.detail(text)
        n_modes = 0 if raw.probe is None else len(raw.probe)
        modes = f"{n_modes} probe mode{'s' if n_modes > 1 else ''}" if n_modes else "no probe given"
        near = f", {raw.propagation}" if raw.propagation.is_near else ""
        if say:
            session.say(
                f"scan      {counted(raw.n_frames, 'frame')} of {raw.side}×{raw.side} ({raw.source.measurement}), "
                f"{raw.frame_totals.mean():.4g} photons a frame, {modes}{near}"
            )
        return _on_found_axes(raw, session, config, progress) if options.get("orientation") == AUTO else raw

    return read


def _on_found_axes(raw: RawData, session: Session, config: TrainingConfig | None, progress: Progress) -> RawData:
    """The scan in the orientation that trials find, with what they found said."""
    from ..api.orient_on_reading import learned_from, with_found_orientation

    frames = None if config is None else learned_from(raw, config)
    raw, found = with_found_orientation(raw, frames=frames, progress=progress)  # within the stage of reading
    session.say(f"orient    {found.describe()}; {found.seconds:.1f} s")
    for reason in () if found.certain else found.reasons:
        session.notice(f"orientation: {reason}; '{found.orientation}' is used")
    return raw


def files_given(options: Options) -> list[Path]:
    """Files that a command reads and must leave alone."""
    named = ("data", "probe", "config", "positions", "map", "mask", "background", "frames")
    said = [str(options[name]) for name in named if options.get(name)]
    # a dataset may stand behind the file that it lies in
    return [path for text in said for path in (Path(text), Path(text.partition(":/")[0])) if path.exists()]


def _resume_command(session: Session, checkpoint: str) -> str:
    """The command that was given, going on from a checkpoint."""
    words, skip = [], False
    for word in session.command:
        option = word.partition("=")[0].replace("-", "_")
        if skip or option == "__resume_from":
            skip = not skip and "=" not in word
            continue
        words.append(word)
    return shell_words(["ptycho", *words, "--resume_from", checkpoint])


def _image_command(session: Session, data: Path | None, model: str) -> str:
    """How to get the image from a saved model."""
    if data is None:
        return f"the trained model was saved as {model}"
    words = ["ptycho", "reconstruct", "--same_scan", "--model", model, str(data)]
    how_read = {name: how for group in READING.values() for name, how in group.items()} | {"--probe": {}}
    for number, word in enumerate(session.command):
        option = "--" + word.partition("=")[0][2:].replace("-", "_")
        how = how_read.get(option)
        if word.startswith("--") and how is not None:
            words += session.command[number : number + (1 if "=" in word or "action" in how else 2)]
    given = {word.partition("=")[0].replace("-", "_").lstrip("_") for word in words if word.startswith("--")}
    for name, value in session.reading.items():  # what a file of settings says of the scan
        if name not in given and f"--{name}" in how_read:
            words += [f"--{name}"] if value is True else [f"--{name}={value}"]
    return f"training is done, get the image with: {shell_words(words)}"


@contextmanager
def interrupted_with_advice(session: Session, data: Path | None) -> Iterator[None]:
    """Tell how to go on when the block is interrupted.

    Args:
        session: of the command.
        data: the scan's file, or None where it was simulated.

    Raises:
        Cancelled: with the advice.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        if session.model_path is None:
            raise
        raise Cancelled(f"interrupted; {_image_command(session, data, str(session.model_path))}") from error
    except Cancelled as error:
        if error.results_path is not None:
            advice = f"the image so far is in {error.results_path}"
        elif error.model_path is not None:
            advice = _image_command(session, data, error.model_path)
        elif error.checkpoint_path is not None:
            advice = f"go on with: {_resume_command(session, error.checkpoint_path)}"
        else:
            advice = "no checkpoint was written"
        raise Cancelled(f"{error}; {advice}", error.checkpoint_path) from error


@contextmanager
def said_how_to_go_on(session: Session) -> Iterator[None]:
    """Tell how the image of a trained model, or its refining, is gone on with when the block is interrupted.

    Raises:
        Cancelled: with the line.
    """
    try:
        yield
    except (KeyboardInterrupt, Cancelled) as error:
        words = ["ptycho", *session.command]
        results = getattr(error, "results_path", None)
        if results is None:
            advice = f"make the image with: {shell_words(words)}"
        else:
            again = words if "--overwrite" in words else [*words, "--overwrite"]
            advice = f"the image as the model made it is in {results}; refine it with: {shell_words(again)}"
        said = str(error) or "interrupted"
        raise Cancelled(f"{said}; {advice}", results_path=results, run=getattr(error, "run", None)) from error


def _figures(figures: Figures) -> str:
    return (
        f"deviance {figures.deviance:.4g}, R-factor {figures.r_factor:.4f} (noise {figures.r_factor_floor:.4f}), "
        f"Fourier error {figures.fourier_error:.5f} (noise {figures.fourier_error_floor:.5f})"
    )


def _say_stage(stage: Stage, session: Session) -> None:
    """One line for the frames that were trained on, and one for those that were held out."""
    scored = stage.scored
    session.say(
        f"{stage.name:<10}{_figures(scored.train)}; {counted(scored.train.n_frames, 'frame')}, {stage.seconds:.1f} s"
    )
    if scored.heldout is not None:
        session.say(f"{'held out':<10}{_figures(scored.heldout)}; {counted(scored.heldout.n_frames, 'frame')}")


def say_makers(run: Run, session: Session) -> None:
    """Say which engine made the image and which refined it, and what refining took up after a trial."""
    verb = "trained" if run.config.method == "network" else "solved"
    by = f"by {run.engine}, {_epochs(run.history)}"
    if run.refined is not None:
        by += f"; refined by {run.refined.engine}, {_epochs(run.refined.history)}"
    session.say(f"{verb:<10}{by}")
    stats = {} if run.refined is None else run.refined.best.image.stats
    trials = [name.removeprefix("tried_").removesuffix("_gain") for name in stats if name.endswith("_gain")]
    if trials:
        tried = ", ".join(_trial(name, stats) for name in trials)
        session.say(f"added     {taken_up(stats)}; the validation misfit in trials: {tried}")


def _epochs(history: Mapping[str, list[float]]) -> str:
    return counted(len(history.get("train_loss", ())), "epoch")


def taken_up(stats: Mapping[str, Any]) -> str:
    """What refining added unasked, by ``enginekit.refining``."""
    modes = int(stats.get("took_up_modes", 0))
    found = [f"{modes} more probe mode{'s' if modes > 1 else ''}"] if modes else []
    found += ["positions"] if stats.get("took_up_positions") else []
    return " and ".join(found) or "nothing"


def _trial(name: str, stats: Mapping[str, Any]) -> str:
    """What a trial changed, and by how much it had to lower the misfit to be taken up."""
    gain, needed = (100 * stats[f"tried_{name}_{what}"] for what in ("gain", "gain_needed"))
    change, least = f"{abs(gain):.1f}", f"{needed:.1f} % needed"
    if not math.isfinite(gain):
        said = "no figure"
    elif float(change) == 0:
        said = f"unchanged ({least})"
    else:
        said = f"{'lowered' if gain > 0 else 'raised'} by {change} % ({least})"
    return f"{name.replace('_', ' ')} {said}"


def say_run(run: Run, session: Session) -> None:
    """Say what came out of a run."""
    if run.probe_guess is not None:
        session.say(f"probe     {run.probe_guess.describe()}")
    for stage in run.stages:
        _say_stage(stage, session)
    if run.refined is not None and run.refined.positions is not None:
        session.say(f"positions {run.refined.positions.describe()}")
    if run.scored.dropped:
        session.say("left out  " + ", ".join(f"{count} {reason}" for reason, count in run.scored.dropped.items()))
    from ..report.parts import decibels

    score, frc = run.result.comparison, run.result.half_data_frc
    if score is not None:
        session.say(
            f"truth     amplitude PSNR {decibels(score.amplitude_psnr_db, 1)}, "
            f"phase PSNR {decibels(score.phase_psnr_db, 1)}, correlation {score.correlation:.3f}"
        )
    if frc is not None:
        cutoff = frc.cutoff_one_seventh
        half = f"at {cutoff:.3f} cycles/px, half period {frc.half_period_px(cutoff):.2f} px"
        session.say(f"half data FRC 1/7 {half if cutoff > 0 else 'nowhere: the halves have nothing in common'}")
    stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in session.seconds.items())
    session.say(f"time      {session.age():.1f} s ({stages})")
    if run.folder is not None:
        session.say(f"results   {run.folder / 'report.html'}")
    if run.verdict is not None:
        session.say(f"verdict   {run.verdict.sentence}")
