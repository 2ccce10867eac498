"""Stopping and going on: a resumed training ends where an uninterrupted one does, to the last bit."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from engine_scans import (
    CONFIG,
    assert_same_model,
    config_for,
    held_out_scan,
    interrupted,
    make_scan,
    train,
    vary,
    weights_of,
)

from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.enginekit import network_loop
from ptycho_core.errors import ArchiveError, Cancelled, OutputError

BASE = vary(epochs=3, batch_size=2, schedule="one_cycle", probe_trainable=True, scale_trainable=True)
"""12 groups: 6 steps an epoch, 18 in all."""

VARIANTS = {
    "plain": BASE,
    "average": vary(BASE, weight_average=0.8),
    "patience": vary(BASE, early_stopping_patience=5),
    "bf16": vary(BASE, precision="bf16"),
}


@pytest.fixture(scope="module")
def scan():
    return make_scan(rows=3, columns=4, n_modes=2)


@pytest.fixture(scope="module")
def held_out():
    return make_scan(rows=2, columns=3, n_modes=2, seed=9)


@pytest.fixture(scope="module")
def whole(scan, held_out, trained, tmp_path_factory):
    """Uninterrupted trainings, each made once."""
    configs = {name: vary(config, output_dir=tmp_path_factory.mktemp(name)) for name, config in VARIANTS.items()}
    return lambda name: trained(scan, configs[name], held_out)


@pytest.mark.spec("BE-8")
@pytest.mark.parametrize(
    ("name", "at"),
    [("plain", 6), ("plain", 8), ("plain", 17), ("average", 4), ("average", 6), ("patience", 7), ("bf16", 8)],
)
def test_resumed_training_is_the_uninterrupted_one(scan, held_out, engine, whole, tmp_path, name, at):
    config = vary(VARIANTS[name], output_dir=tmp_path)
    checkpoint = interrupted(engine, scan, config, at, held_out)
    assert checkpoint == tmp_path / "checkpoints" / "interrupted.ckpt"
    steps = []
    config = vary(config, resume_from=checkpoint)
    model = train(engine, scan, config, held_out, progress=lambda event: steps.append(event.done))
    assert steps == list(range(at + 1, 19))
    assert_same_model(model, whole(name))
    rows = list(csv.DictReader((tmp_path / "history.csv").read_text().splitlines()))
    assert [float(row["train_loss"]) for row in rows] == pytest.approx(model.history["train_loss"], rel=1e-7)


def test_stopped_twice(scan, held_out, engine, whole, tmp_path):
    first = interrupted(engine, scan, vary(BASE, output_dir=tmp_path / "a"), 4, held_out)
    steps = []

    def stop(event):
        steps.append(event.done)
        if event.done == 9:
            raise Cancelled

    config = vary(BASE, output_dir=tmp_path / "b", resume_from=first)
    with pytest.raises(Cancelled) as caught:
        train(engine, scan, config, held_out, progress=stop)
    assert steps == [5, 6, 7, 8, 9]
    model = train(engine, scan, vary(BASE, resume_from=Path(caught.value.checkpoint_path)), held_out)
    assert_same_model(model, whole("plain"))


def test_the_last_whole_epoch_can_be_resumed_after_a_crash(scan, held_out, engine, whole, tmp_path):
    def crash(event):
        if event.done == 15:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        train(engine, scan, vary(BASE, output_dir=tmp_path), held_out, progress=crash)
    steps = []
    config = vary(BASE, resume_from=tmp_path / "checkpoints" / "last.ckpt")
    model = train(engine, scan, config, held_out, progress=lambda event: steps.append(event.done))
    assert steps[0] == 13
    assert_same_model(model, whole("plain"))


def test_more_epochs_can_be_added(scan, engine, trained, tmp_path):
    config = vary(epochs=1, output_dir=tmp_path)
    done = train(engine, scan, config)
    assert done.checkpoint_path == tmp_path / "checkpoints" / "last.ckpt"
    more = train(engine, scan, vary(config, epochs=2, resume_from=done.checkpoint_path))
    assert_same_model(more, trained(scan, CONFIG))
    two = train(engine, scan, vary(config, epochs=2))
    with pytest.raises(ArchiveError, match=r"last.ckpt: it has done 24 steps, more than the 12 that are asked for"):
        train(engine, scan, vary(config, resume_from=two.checkpoint_path))


@pytest.mark.spec("BE-8")
@pytest.mark.parametrize(("name", "folder"), [("plain", True), ("plain", False), ("average", True), ("patience", True)])
def test_a_training_that_was_over_gives_its_model_without_a_step(scan, held_out, engine, whole, tmp_path, name, folder):
    """Killed after its last checkpoint and before its model was saved."""
    done, steps = whole(name), []
    config = vary(VARIANTS[name], resume_from=done.checkpoint_path, output_dir=tmp_path if folder else None)
    model = train(engine, scan, config, held_out, progress=steps.append)
    assert steps == []
    assert_same_model(model, done)
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    if not folder:
        assert (model.checkpoint_path, names) == (None, set())
        return
    assert names == {"checkpoints/best.ckpt", "checkpoints/last.ckpt", "history.csv"}
    assert (tmp_path / "history.csv").read_bytes() == (done.checkpoint_path.parents[1] / "history.csv").read_bytes()
    again = train(engine, scan, vary(config, epochs=4, resume_from=model.checkpoint_path), held_out)
    assert again.history["train_loss"][:3] == done.history["train_loss"]


def test_a_training_that_was_stopped_early_is_over(scan, held_out, engine, tmp_path):
    config = vary(TOO_FAST, early_stopping_patience=1, output_dir=tmp_path)
    done, steps = train(engine, scan, config, held_out), []
    assert len(done.history["test_loss"]) == 2 < config.config.epochs
    again = train(engine, scan, vary(config, resume_from=done.checkpoint_path), held_out, progress=steps.append)
    assert steps == []
    assert_same_model(again, done)
    patient = vary(config, early_stopping_patience=2, resume_from=done.checkpoint_path)
    assert len(train(engine, scan, patient, held_out).history["test_loss"]) == 3


def test_cancelled_without_a_folder_leaves_nothing(scan, engine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert interrupted(engine, scan, CONFIG, 1) is None
    assert list(tmp_path.iterdir()) == []


def test_cancelled_after_the_last_step_is_done(scan, engine, trained):
    def stop(event):
        if event.done == event.total:
            raise Cancelled

    assert_same_model(train(engine, scan, CONFIG, progress=stop), trained(scan, CONFIG))


@pytest.fixture(scope="module")
def checkpoint(scan, engine, held_out, tmp_path_factory):
    """A training stopped at the end of its first epoch, where every step count divides."""
    return interrupted(engine, scan, vary(BASE, output_dir=tmp_path_factory.mktemp("stopped")), 6, held_out)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": {"width": 5}}, r"other configuration: \d+ weights differ, first 'generator\.decoder0"),
        ({"model": {"depth": 2}}, r"weights differ"),
        ({"n_groups": 6}, r"made with n_groups = 12, now it is 6"),
        ({"group_size": 3}, r"made with group_size = 4, now it is 3"),
        ({"batch_size": 1}, r"made with batch_size = 2, now it is 1"),
        ({"batch_size": 3}, r"made with batch_size = 2, now it is 3"),
        ({"seed": 2}, r"made with seed = 1, now it is 2"),
        ({"loss": "poisson"}, r"made with loss = amplitude, now it is poisson"),
        ({"schedule": "cosine"}, r"made with schedule = one_cycle, now it is cosine"),
        ({"learning_rate": 0.5}, r"made with learning_rate = [\d.]+, now it is 0\.5"),
        ({"weight_decay": 0.5}, r"made with weight_decay = 0\.0, now it is 0\.5"),
        ({"scale_trainable": False}, r"made with scale_trainable = True, now it is False"),
        ({"probe_trainable": False}, r"made with probe_trainable = True, now it is False"),
        ({"precision": "bf16"}, r"made with precision = 32, now it is bf16"),
        ({"gradient_clip_norm": 0.5}, r"made with gradient_clip_norm = 1\.0, now it is 0\.5"),
        ({"weight_average": 0.5}, r"(made with weight_average|weights differ)"),
    ],
)
def test_another_training_is_refused(scan, held_out, engine, checkpoint, changes, words):
    steps = []
    config = vary(vary(BASE, resume_from=checkpoint), **changes)
    with pytest.raises(ArchiveError, match=rf"interrupted\.ckpt: .*{words}"):
        train(engine, scan, config, held_out, progress=steps.append)
    assert steps == []


def test_another_scan_or_probe_is_refused(scan, held_out, engine, checkpoint):
    config = vary(BASE, resume_from=checkpoint)
    scans = [PtychoDataContainer.of(scan), PtychoDataContainer.of(make_scan(rows=3, columns=4, n_modes=2, seed=5))]
    other_roles = PtychoDataContainer.of(scan, heldout=[3])
    for given in (scans[1:], scans[:1], scans, [other_roles, held_out_scan(held_out, scans[0])]):
        with pytest.raises(ArchiveError, match=r"(made with scans = \[|weights differ)"):
            engine.train(given, *config_for(engine, config, n_groups=12))
    with pytest.raises(ArchiveError, match=r"1 weights differ, first 'probe.*2, 16, 16, 2\)"):
        train(engine, scan.with_probe(scan.probe[:1]), config)


def test_what_is_no_checkpoint(scan, engine, tmp_path, checkpoint):
    def resume(path):
        train(engine, scan, vary(BASE, resume_from=path))

    with pytest.raises(ArchiveError, match=r"gone\.ckpt: no such checkpoint"):
        resume(tmp_path / "gone.ckpt")
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(ArchiveError, match=r"text\.ckpt: not a checkpoint that can be read safely"):
        resume(tmp_path / "text.ckpt")
    (tmp_path / "cut.ckpt").write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(ArchiveError, match=r"cut\.ckpt: not a checkpoint that can be read safely"):
        resume(tmp_path / "cut.ckpt")
    with pytest.raises(ArchiveError, match=r"is a folder; a checkpoint is read .* file only\. Name the file in it"):
        resume(tmp_path)


def test_a_folder_that_cannot_be_written(scan, engine, tmp_path):
    steps = []
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="file"):
        train(engine, scan, vary(output_dir=tmp_path / "file"), progress=steps.append)
    assert steps == []


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(scan, engine, tmp_path, monkeypatch):
    """The disk is full at the end of the second epoch: the first's checkpoint is whole, and nothing else is left."""
    real = os.replace

    def replace(source, target):
        full = Path(target).name == "last.ckpt" and Path(target).exists()
        if full:
            raise OSError(28, "No space left on device")
        real(source, target)

    config = vary(epochs=2, batch_size=12)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(OutputError, match=r"last\.ckpt: writing failed \(No space left"):
            train(engine, scan, vary(config, output_dir=tmp_path))
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    resumed = train(engine, scan, vary(config, resume_from=tmp_path / "checkpoints" / "last.ckpt"))
    assert_same_model(resumed, train(engine, scan, config))


TOO_FAST = vary(epochs=4, learning_rate=1e-12, scale_trainable=True, scale_learning_rate=0.02)
"""Only the scale is let go, and away from what the held-out frames say: the first epoch is the best."""


def test_the_best_weights_survive_a_move_to_another_folder(scan, held_out, engine, tmp_path):
    config = vary(TOO_FAST, early_stopping_patience=3)
    whole = train(engine, scan, vary(config, output_dir=tmp_path / "whole"), held_out)
    assert np.argmin(whole.history["test_loss"]) == 0
    checkpoint = interrupted(engine, scan, vary(config, output_dir=tmp_path / "a"), 18, held_out)
    moved = train(engine, scan, vary(config, output_dir=tmp_path / "b", resume_from=checkpoint), held_out)
    assert_same_model(moved, whole)


@pytest.mark.spec("BE-23")
def test_the_best_epoch_of_another_training_is_none_of_ours(scan, held_out, engine, tmp_path):
    """It lies where a training that goes on, or that is over, has its own; what counts is in every checkpoint."""
    config = vary(TOO_FAST, early_stopping_patience=4)
    checkpoint = interrupted(engine, scan, vary(config, output_dir=tmp_path / "a"), 18, held_out)
    over = train(engine, scan, vary(config, output_dir=tmp_path / "over"), held_out).checkpoint_path
    best = train(engine, scan, config, held_out)
    for name, changes in (("like", {"seed": 2}), ("unlike", {"model": {"width": 5}})):
        other = train(engine, scan, vary(vary(TOO_FAST, output_dir=tmp_path / name), **changes), held_out)
        foreign = other.checkpoint_path.with_name("best.ckpt")
        for way, source in (("goes on", checkpoint), ("is over", over)):
            # in the folder that it comes from, or in the one that it goes to as well
            output = tmp_path / name / way if name == "like" else source.parents[1]
            for folder in (source.parent, output / "checkpoints"):
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "best.ckpt").write_bytes(foreign.read_bytes())
            model = train(engine, scan, vary(config, output_dir=output, resume_from=source), held_out)
            assert_same_model(model, best)


def test_best_and_last(scan, held_out, engine, tmp_path):
    """The best epoch by its held-out loss, and the last one: going on from each says which epoch it holds."""
    config = vary(TOO_FAST, output_dir=tmp_path)
    model = train(engine, scan, config, held_out)
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {"checkpoints/best.ckpt", "checkpoints/last.ckpt", "history.csv"}
    assert model.checkpoint_path == tmp_path / "checkpoints" / "last.ckpt"
    assert np.argmin(model.history["test_loss"]) == 0
    longer = vary(config, epochs=5, output_dir=None)
    for name, epoch in (("best", 0), ("last", 3)):
        steps = []
        again = vary(longer, resume_from=tmp_path / "checkpoints" / f"{name}.ckpt")
        more = train(engine, scan, again, held_out, progress=lambda event, steps=steps: steps.append(event.done))
        assert steps[0] == 12 * (epoch + 1) + 1
        assert more.history["test_loss"][:4] == model.history["test_loss"]


@pytest.mark.spec("BE-35")
def test_the_best_epoch_is_the_model_with_a_folder_and_without(scan, held_out, engine, tmp_path):
    config = vary(TOO_FAST, early_stopping_patience=2)
    one = train(engine, scan, config, held_out)
    assert len(one.history["test_loss"]) == 3  # the first was the best, and nobody is more patient
    assert_same_model(one, train(engine, scan, vary(config, output_dir=tmp_path), held_out))
    first = train(engine, scan, vary(config, epochs=1), held_out)
    for name, value in weights_of(first).items():
        np.testing.assert_array_equal(weights_of(one)[name], value, err_msg=name)
    last = train(engine, scan, vary(TOO_FAST, epochs=3), held_out)
    assert last.scale != one.scale


@pytest.mark.spec("BE-35")
def test_patience_is_counted_on_when_a_training_goes_on(scan, held_out, engine, tmp_path):
    """One epoch without a better loss before it was stopped, and one after it."""
    config = vary(TOO_FAST, early_stopping_patience=2)
    whole = train(engine, scan, config, held_out)
    checkpoint = interrupted(engine, scan, vary(config, output_dir=tmp_path), 26, held_out)
    steps = []
    again = train(engine, scan, vary(config, resume_from=checkpoint), held_out, progress=steps.append)
    assert [steps[0].done, steps[-1].done] == [27, 36]
    assert_same_model(again, whole)


def test_a_long_epoch_leaves_a_checkpoint_too(scan, engine, tmp_path, monkeypatch):
    """A process that is killed in its first epoch goes on where it was a while ago, to the last bit."""
    config = vary(batch_size=2, epochs=2, schedule="one_cycle", probe_trainable=True, weight_average=0.5)
    whole = train(engine, scan, config)

    def killed(event):
        if event.done == 4:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        train(engine, scan, vary(config, output_dir=tmp_path / "a"), progress=killed)
    assert not (tmp_path / "a" / "checkpoints").exists()
    monkeypatch.setattr(network_loop, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(RuntimeError, match="power cut"):
        train(engine, scan, vary(config, output_dir=tmp_path / "b"), progress=killed)
    assert [path.name for path in (tmp_path / "b" / "checkpoints").iterdir()] == ["last.ckpt"]
    steps = []
    again = vary(config, resume_from=tmp_path / "b" / "checkpoints" / "last.ckpt")
    assert_same_model(train(engine, scan, again, progress=lambda event: steps.append(event.done)), whole)
    assert steps[0] == 4
