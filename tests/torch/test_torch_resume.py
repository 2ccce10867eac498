"""Stopping and going on: a resumed training ends where an uninterrupted one does, to the last bit."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_scans import CONFIG, assert_same_model, make_scan, train, vary

from ptycho_backend_torch.training import read_checkpoint
from ptycho_core.errors import ArchiveError, Cancelled, OutputError

pytestmark = pytest.mark.torch

BASE = vary(epochs=3, batch_size=2, schedule="one_cycle", probe_trainable=True, scale_trainable=True)
"""12 groups: 6 steps an epoch, 18 in all."""

VARIANTS = {
    "plain": BASE,
    "average": vary(BASE, weight_average=0.8),
    "patience": vary(BASE, early_stopping_patience=5),
}


@pytest.fixture(scope="module")
def scan():
    return make_scan(rows=3, columns=4, n_modes=2)


@pytest.fixture(scope="module")
def held_out():
    return make_scan(rows=2, columns=3, n_modes=2, seed=9)


@pytest.fixture(scope="module")
def whole(scan, held_out, tmp_path_factory):
    """Uninterrupted trainings, each made once."""
    done = {}

    def get(name):
        if name not in done:
            config = vary(VARIANTS[name], output_dir=tmp_path_factory.mktemp(name))
            done[name] = train(scan, config, held_out)
        return done[name]

    return get


def interrupted(scan, held_out, config, at: int) -> Path:
    """Train until a step and return the checkpoint left."""
    seen = []

    def stop(event):
        seen.append(event.done)
        if event.done == at:
            raise Cancelled("enough")

    with pytest.raises(Cancelled, match="enough") as caught:
        train(scan, config, held_out, progress=stop)
    assert seen == list(range(1, at + 1))
    return Path(caught.value.checkpoint_path)


@pytest.mark.spec("BE-8")
@pytest.mark.parametrize(
    ("name", "at"),
    [("plain", 1), ("plain", 6), ("plain", 8), ("plain", 12), ("plain", 17), ("average", 4), ("average", 6),
     ("patience", 6), ("patience", 7)]
)  # fmt: skip
def test_resumed_training_is_the_uninterrupted_one(scan, held_out, whole, tmp_path, name, at):
    config = vary(VARIANTS[name], output_dir=tmp_path)
    checkpoint = interrupted(scan, held_out, config, at)
    assert checkpoint == tmp_path / "checkpoints" / "interrupted.ckpt"
    steps = []
    model = train(scan, vary(config, resume_from=checkpoint), held_out, progress=lambda event: steps.append(event.done))
    assert steps == list(range(at + 1, 19))
    assert_same_model(model, whole(name))
    rows = list(csv.DictReader((tmp_path / "history.csv").read_text().splitlines()))
    assert [float(row["train_loss"]) for row in rows] == pytest.approx(model.history["train_loss"], rel=1e-7)


def test_stopped_twice(scan, held_out, whole, tmp_path):
    first = interrupted(scan, held_out, vary(BASE, output_dir=tmp_path / "a"), 4)
    config = vary(BASE, output_dir=tmp_path / "b", resume_from=first)
    steps = []

    def stop(event):
        steps.append(event.done)
        if event.done == 9:
            raise Cancelled

    with pytest.raises(Cancelled) as caught:
        train(scan, config, held_out, progress=stop)
    assert steps == [5, 6, 7, 8, 9]
    model = train(scan, vary(BASE, resume_from=Path(caught.value.checkpoint_path)), held_out)
    assert_same_model(model, whole("plain"))


def test_the_last_whole_epoch_can_be_resumed_after_a_crash(scan, held_out, whole, tmp_path):
    def crash(event):
        if event.done == 15:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        train(scan, vary(BASE, output_dir=tmp_path), held_out, progress=crash)
    steps = []
    config = vary(BASE, resume_from=tmp_path / "checkpoints" / "last.ckpt")
    model = train(scan, config, held_out, progress=lambda event: steps.append(event.done))
    assert steps[0] == 13
    assert_same_model(model, whole("plain"))


def test_more_epochs_can_be_added(scan, tmp_path):
    config = vary(epochs=1, output_dir=tmp_path)
    done = train(scan, config)
    assert done.checkpoint_path == tmp_path / "checkpoints" / "last.ckpt"
    with pytest.raises(ArchiveError, match=r"last.ckpt: its 12 steps are all that was asked for; raise epochs"):
        train(scan, vary(config, resume_from=done.checkpoint_path))
    more = train(scan, vary(config, epochs=2, resume_from=done.checkpoint_path))
    assert_same_model(more, train(scan, vary(config, epochs=2, output_dir=None)))


def test_cancelled_without_a_folder_leaves_nothing(scan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def stop(event):
        raise Cancelled("no")

    with pytest.raises(Cancelled, match="no") as caught:
        train(scan, CONFIG, progress=stop)
    assert caught.value.checkpoint_path is None
    assert list(tmp_path.iterdir()) == []


def test_cancelled_after_the_last_step_is_done(scan):
    def stop(event):
        if event.done == event.total:
            raise Cancelled

    assert len(train(scan, CONFIG, progress=stop).history["train_loss"]) == 2


@pytest.fixture(scope="module")
def checkpoint(scan, held_out, tmp_path_factory):
    """A training stopped at the end of its first epoch, where every step count divides."""
    return interrupted(scan, held_out, vary(BASE, output_dir=tmp_path_factory.mktemp("stopped")), 6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": {"width": 5}}, r"other configuration: \d+ weights differ, first 'generator\.decoder0"),
        ({"model": {"depth": 1}}, r"weights differ"),
        ({"n_groups": 6}, r"made with n_groups = 12, now it is 6"),
        ({"group_size": 3}, r"made with group_size = 4, now it is 3"),
        ({"batch_size": 1}, r"made with batch_size = 2, now it is 1"),
        ({"batch_size": 3}, r"made with batch_size = 2, now it is 3"),
        ({"seed": 2}, r"made with seed = 1, now it is 2"),
        ({"learning_rate": 0.5}, r"made with learning_rate = [\d.]+, now it is 0\.5"),
        ({"weight_decay": 0.5}, r"made with weight_decay = 0\.0, now it is 0\.5"),
        ({"scale_trainable": not BASE.scale_trainable}, r"(made with scale_trainable|weights differ)"),
        ({"weight_average": 0.5}, r"(made with weight_average|weights differ)"),
    ],
)
def test_another_training_is_refused(scan, checkpoint, changes, words):
    with pytest.raises(ArchiveError, match=rf"interrupted\.ckpt: .*{words}"):
        train(scan, vary(vary(BASE, resume_from=checkpoint), **changes))


def test_another_scan_or_probe_is_refused(scan, checkpoint):
    config = vary(BASE, resume_from=checkpoint)
    with pytest.raises(ArchiveError, match="made with mean_counts = "):
        train(make_scan(rows=3, columns=4, n_modes=2, seed=5), config)
    with pytest.raises(ArchiveError, match=r"1 weights differ, first 'probe' with shape \(2, 16, 16, 2\)"):
        train(scan.with_probe(scan.probe[:1]), config)


class Bomb:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_a_checkpoint_with_code_in_it_is_refused_and_not_run(scan, checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    armed, mark = tmp_path / "armed.ckpt", tmp_path / "mark"
    torch.save({**content, "callbacks": {"x": Bomb(mark)}}, armed)
    with pytest.raises(ArchiveError, match=r"armed\.ckpt: not a checkpoint that can be read safely \(UnpicklingError"):
        train(scan, vary(BASE, resume_from=armed))
    assert not mark.exists()
    torch.load(armed, weights_only=False)  # the bomb would have gone off
    assert mark.is_dir()


def test_what_is_no_checkpoint(scan, tmp_path, checkpoint):
    def resume(path):
        train(scan, vary(BASE, resume_from=path))

    with pytest.raises(ArchiveError, match=r"gone\.ckpt: no such checkpoint"):
        resume(tmp_path / "gone.ckpt")
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(ArchiveError, match=r"text\.ckpt: not a checkpoint that can be read safely"):
        resume(tmp_path / "text.ckpt")
    (tmp_path / "cut.ckpt").write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(ArchiveError, match=r"cut\.ckpt: not a checkpoint that can be read safely"):
        resume(tmp_path / "cut.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ArchiveError, match=r"other\.ckpt: not a training checkpoint"):
        resume(tmp_path / "other.ckpt")
    with pytest.raises(ArchiveError, match="not a checkpoint that can be read safely"):
        resume(tmp_path)


def test_checkpoints_hold_tensors_and_plain_values(checkpoint):
    content = read_checkpoint(checkpoint)

    def plain(value):
        if isinstance(value, dict):
            return all(plain(v) for pair in value.items() for v in pair)
        if isinstance(value, (list, tuple, set)):
            return all(map(plain, value))
        return value is None or isinstance(value, (str, int, float, bool, torch.Tensor))

    assert plain({name: value for name, value in content.items() if name != "callbacks"})
    assert content["ptycho_history"]["train_loss"]


def test_a_folder_that_cannot_be_written(scan, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="file"):
        train(scan, vary(output_dir=tmp_path / "file"))


def test_best_and_last(scan, held_out, tmp_path):
    model = train(scan, vary(epochs=4, learning_rate=0.03, output_dir=tmp_path), held_out)
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {"checkpoints/best.ckpt", "checkpoints/last.ckpt", "history.csv"}
    best, last = (read_checkpoint(tmp_path / "checkpoints" / f"{name}.ckpt") for name in ("best", "last"))
    losses = model.history["test_loss"]
    assert best["epoch"] == int(np.argmin(losses))
    assert last["epoch"] == 3
    for name, value in model.generator.state_dict().items():
        torch.testing.assert_close(last["state_dict"][f"generator.{name}"], value, rtol=0, atol=0)
