"""A network while it trains: what it shows at the end of an epoch, and what it leaves when it is stopped."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from engine_scans import assert_same_model, config_for, make_scan, train, vary, weights_of

from ptycho_core import Run, run
from ptycho_core.config import RefinementConfig
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.errors import Cancelled
from ptycho_core.notebook.bar import ProgressBar

BASE = vary(epochs=4, batch_size=2, learning_rate=3e-3, probe_trainable=True, scale_trainable=True, weight_average=0.5)
"""9 groups: 5 steps an epoch, 20 in all, at a rate at which 4 epochs are as many steps as 2 and 2 more."""


@pytest.fixture(scope="module")
def scan():
    raw = make_scan(rows=3, columns=4, n_modes=2)
    return PtychoDataContainer.of(raw, heldout=[2, 5, 11])


class Looking:
    """Looks at every image that is shown, and stops after a step."""

    def __init__(self, stop_at=None):
        self.stop_at, self.shown, self.steps = stop_at, {}, []

    def __call__(self, event):
        self.steps.append(event.done)
        if event.image is not None:
            assert event.epoch == len(self.shown) + 1
            self.shown[event.done] = event.image()
        if event.done == self.stop_at:
            raise Cancelled("enough")


def stopped(engine, scan, config, at):
    looking = Looking(at)
    with pytest.raises(Cancelled, match="enough") as caught:
        train(engine, scan, config, progress=looking)
    return caught.value, looking


@pytest.mark.spec("BE-39")
def test_looking_changes_no_bit_of_weights_history_and_checkpoints(engine, scan, tmp_path):
    plain = train(engine, scan, vary(BASE, output_dir=tmp_path / "plain"))
    looking = Looking()
    watched = train(engine, scan, vary(BASE, output_dir=tmp_path / "watched"), progress=looking)
    assert list(looking.shown) == [5, 10, 15, 20], "an image at the end of each epoch, and at no other step"
    assert_same_model(watched, plain)
    for path in sorted((tmp_path / "plain").rglob("*.*")):
        twin = tmp_path / "watched" / path.relative_to(tmp_path / "plain")
        assert twin.read_bytes() == path.read_bytes(), path.name
    assert {path.name for path in (tmp_path / "watched" / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}


@pytest.mark.spec("BE-39", "BE-40")
def test_going_on_from_a_training_that_was_watched_and_stopped(engine, scan, tmp_path):
    error, _ = stopped(engine, scan, vary(BASE, output_dir=tmp_path), 12)
    looking = Looking()
    looking.shown = {5: None, 10: None}
    gone_on = train(engine, scan, vary(BASE, resume_from=Path(error.checkpoint_path)), progress=looking)
    assert looking.steps == list(range(13, 21))
    assert_same_model(gone_on, train(engine, scan, BASE))


@pytest.mark.spec("BE-39", "BE-40")
def test_what_it_shows_is_what_it_leaves_when_it_is_stopped_there(engine, scan):
    error, looking = stopped(engine, scan, BASE, 10)
    model, shown = error.model, looking.shown[10]
    config, runtime = config_for(engine, BASE)
    image = engine.reconstruct(model, scan.with_probe(model.probe), config.inference, runtime)
    np.testing.assert_array_equal(shown.object, image.object)
    np.testing.assert_array_equal(shown.probe, model.probe)
    assert shown.scale == image.scale
    assert np.std(np.abs(image.object[image.coverage > 0.1])) > 1e-3
    assert not np.array_equal(shown.object, looking.shown[5].object)
    assert not np.array_equal(shown.probe, scan.probe)


@pytest.mark.spec("BE-40")
def test_one_that_is_stopped_leaves_its_best_epoch_and_all_of_its_history(engine, scan):
    """The rate is so high that the first epoch is the best."""
    high = vary(BASE, learning_rate=0.3, weight_average=0.0)
    error, _ = stopped(engine, scan, high, 13)
    losses = error.model.history["test_loss"]
    assert len(losses) == 2
    assert losses[0] < losses[1], "or this test tests nothing"
    one = train(engine, scan, vary(high, epochs=1))
    for name, value in weights_of(one).items():
        np.testing.assert_array_equal(weights_of(error.model)[name], value)
    assert error.checkpoint_path is None


@pytest.mark.spec("BE-40")
def test_before_an_epoch_is_finished_there_is_a_checkpoint_and_no_model(engine, scan, tmp_path):
    error, looking = stopped(engine, scan, vary(BASE, output_dir=tmp_path), 4)
    assert error.model is None
    assert looking.shown == {}
    assert Path(error.checkpoint_path) == tmp_path / "checkpoints" / "interrupted.ckpt"
    at_the_end, _ = stopped(engine, scan, vary(BASE, output_dir=tmp_path), 5)
    assert len(at_the_end.model.history["train_loss"]) == 1
    assert at_the_end.model.checkpoint_path == tmp_path / "checkpoints" / "interrupted.ckpt"


@pytest.mark.spec("NOTE-5", "BE-40")
def test_at_a_console_the_first_ctrl_c_gives_a_run_of_its_best_epoch(engine, scan, monkeypatch, tmp_path):
    def press(self, event):
        if event.stage == "train" and event.done == 12:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    monkeypatch.setattr(ProgressBar, "__call__", press)
    config, runtime = config_for(engine, BASE, n_groups=9, refinement=RefinementConfig(engine="none"))
    with pytest.warns(
        UserWarning, match=r"after 12 of 20\); the image is that of the network's best epoch so far; to go"
    ):
        done = run(scan, config, runtime, out=tmp_path / "out")
    assert isinstance(done, Run)
    assert len(done.history["train_loss"]) == 2
    assert done.verdict is not None
    assert done.scored.heldout.deviance > 0
    best = int(np.argmin(done.history["test_loss"])) + 1
    for name, value in weights_of(train(engine, scan, vary(BASE, epochs=best))).items():
        np.testing.assert_array_equal(weights_of(done.model)[name], value, err_msg=name)
    checkpoint = tmp_path / "out" / "training" / "checkpoints" / "interrupted.ckpt"
    assert repr(str(checkpoint)) in done.warnings[-1]
    assert done.folder is None
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["training"]
