"""Stopping and going on: what a training leaves behind, and who may take it up."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ..config import TrainingConfig
from ..data.container import PtychoDataContainer
from ..errors import ArchiveError
from ..protocol import ProgressEvent, TrainedModel
from .base import Section, not_offered
from .bench import Bench, Stopped, with_other_counts
from .section_training import same_training

__all__ = ["ResumingSection"]


def _checkpoint_of(bench: Bench, stopped: Stopped) -> Path:
    """Where a cancelled training left its checkpoint; the test is left out where the engine cannot resume."""
    if not bench.offers.resume:
        not_offered("resume")
    assert stopped.error is not None, "progress raised Cancelled, and training went on to its end"
    assert stopped.error.checkpoint_path is not None, "Cancelled does not say where the checkpoint is"
    checkpoint = Path(stopped.error.checkpoint_path)
    assert checkpoint.is_file(), f"{checkpoint}: Cancelled names it, but there is no such file"
    return checkpoint


def _resume(bench: Bench, checkpoint: Path, steps: list[int]) -> TrainedModel:
    """Go on from a checkpoint, and take down the steps."""
    return bench.train(runtime=bench.working(resume_from=checkpoint), progress=lambda e: steps.append(e.done))


class ResumingSection(Section):
    """What ``resume_from`` does, where the engine has it."""

    def test_a_cancelled_training_is_resumed_to_the_same_end(self, bench: Bench, stopped: Stopped) -> None:
        """From the checkpoint that cancelling left, training ends where it would have ended."""
        checkpoint = _checkpoint_of(bench, stopped)
        steps: list[int] = []
        resumed = _resume(bench, checkpoint, steps)
        at = stopped.events[-1].done
        assert steps, "it makes no step after it was resumed halfway"
        assert steps[0] == at + 1, f"it goes on at step {steps[0]}; it was stopped at {at}"
        same_training(resumed, bench.model, bench, "resumed")

    def test_a_finished_training_is_resumed_to_its_own_end(self, bench: Bench, tmp_path: Path) -> None:
        """From the checkpoint of a training that has made all its steps comes the finished model, without a step."""
        if not bench.offers.resume:
            not_offered("resume")
        model = bench.train(runtime=bench.working(output_dir=tmp_path / "out"))
        assert model.checkpoint_path is not None, "a training with an output_dir does not say where its checkpoint is"
        steps: list[int] = []
        same_training(_resume(bench, model.checkpoint_path, steps), bench.model, bench, "resumed at its end")
        assert not steps, f"it made the steps {steps} after its end"

    def test_a_killed_training_can_go_on(self, bench: Bench, tmp_path: Path) -> None:
        """What lies in the folder after the first epoch, as a killed process leaves it, is enough to go on."""
        if not bench.offers.resume:
            not_offered("resume")
        folder, left = tmp_path / "out", tmp_path / "left"

        def look(event: ProgressEvent) -> None:
            if event.done > event.total / (bench.config.epochs or 1) and not left.exists():
                shutil.copytree(folder, left)

        model = bench.train(runtime=bench.working(output_dir=folder), progress=look)
        assert left.exists(), f"progress was told of no step after the first of {bench.config.epochs} epochs"
        assert model.checkpoint_path is not None, "a training with an output_dir does not say where its checkpoint is"
        found = left / model.checkpoint_path.relative_to(folder)
        there = [str(path.relative_to(left)) for path in sorted(left.rglob("*"))]
        assert found.is_file(), f"after the first epoch there is no {found.name}, only {', '.join(there) or 'nothing'}"
        steps: list[int] = []
        same_training(_resume(bench, found, steps), bench.model, bench, "resumed after it was killed")
        assert steps, "it makes no step after it was resumed in its second epoch"
        assert steps[0] > 1, "it began anew"

    def test_another_training_is_not_resumed(self, bench: Bench, stopped: Stopped) -> None:
        """With another seed, loss, probe to be trained, counts or roles, going on is an ArchiveError."""
        checkpoint, scan = _checkpoint_of(bench, stopped), bench.scan
        config, runtime = bench.config, bench.working(resume_from=checkpoint)
        raw, heldout = scan.raw, scan.heldout_frames
        other_roles = PtychoDataContainer.of(raw, heldout=[*heldout[:-1], heldout[-1] + 1], unused=scan.unused)
        others: dict[str, tuple[PtychoDataContainer, TrainingConfig]] = {
            "seed": (scan, bench.vary(seed=config.seed + 1)),
            "counts": (with_other_counts(scan, scan.train_frames[:1]), config),
            "roles": (other_roles, config),
        }
        losses = [name for name in bench.offers.losses if name != config.loss]
        if losses and bench.can_set("loss"):
            others["loss"] = (scan, bench.vary(loss=losses[0]))
        if bench.offers.probe_trainable:
            trainable = not config.probe_trainable
            others["probe_trainable"] = (scan, bench.vary(probe_trainable=trainable))
        went_on = []
        for what, (given, changed) in others.items():
            try:
                bench.train(given, config=changed, runtime=runtime)
            except ArchiveError:
                continue
            went_on.append(what)
        assert not went_on, f"a training was resumed with another {', '.join(went_on)}"

    def test_what_is_no_checkpoint_is_refused(self, bench: Bench, tmp_path: Path) -> None:
        """Resuming from a text or from no file is an ArchiveError that names it."""
        if not bench.offers.resume:
            not_offered("resume")
        (tmp_path / "text.ckpt").write_text("no checkpoint")
        for name in ("text.ckpt", "gone.ckpt"):
            with pytest.raises(ArchiveError, match=name):
                bench.train(runtime=bench.working(resume_from=tmp_path / name))
