"""The rules of training that all engines keep: order of groups, health, history, resuming, trackers."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from ptycho_core.config import ModelConfig, TrainingConfig
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.raw import RawData
from ptycho_core.errors import ArchiveError, BackendError, CollapseError, ConfigError
from ptycho_core.networks.training import (
    check_loss,
    check_resumable,
    check_trackers,
    check_trainable,
    check_variation,
    epoch_batches,
    run_facts,
    steps_an_epoch,
    write_history,
)


def make_groups(group_size=3, *, calibrated=False, seed=0):
    rng = np.random.default_rng(seed)
    probe = rng.normal(size=(1, 16, 16)) + 1j * rng.normal(size=(1, 16, 16))
    positions = np.stack([np.arange(9) * 2.5, np.arange(9) % 4 * 1.7], axis=1)
    raw = RawData.from_arrays(rng.poisson(4.0, (9, 16, 16)), positions, probe, probe_calibrated=calibrated)
    return PtychoDataContainer.for_training(raw, group_size, n_groups=7)


def flat(lists):
    return list(chain.from_iterable(lists))


def order(*arguments, **more):
    return list(epoch_batches(*arguments, **more))


@pytest.mark.parametrize(("n_groups", "batch_size"), [(12, 1), (12, 5), (3, 7)])
def test_every_group_once_an_epoch(n_groups, batch_size):
    for epoch in (0, 4):
        batches = order(n_groups, batch_size, 3, epoch)
        assert len(batches) == steps_an_epoch(n_groups, TrainingConfig(batch_size=batch_size))
        assert sorted(flat(batches)) == list(range(n_groups))
        assert all(len(batch) == batch_size for batch in batches[:-1])
        assert all(type(group) is int for batch in batches for group in batch)


@pytest.mark.spec("CONV-7")
def test_seed_and_epoch_decide_the_order():
    one = order(20, 3, 3, 2)
    assert order(20, 3, 3, 2) == one
    assert order(20, 3, 3, 1) != one
    assert order(20, 3, 4, 2) != one
    assert flat(order(20, 3, 3, 2, shuffle=False)) == list(range(20))


def test_first_batches_are_left_out():
    whole = order(10, 2, 1, 5)
    assert order(10, 2, 1, 5, first_batch=3) == whole[3:]
    shares = [order(10, 2, 1, 5, rank=rank, world_size=2) for rank in (0, 1)]
    assert [order(10, 2, 1, 5, rank=rank, world_size=2, first_batch=1) for rank in (0, 1)] == [s[1:] for s in shares]


@pytest.mark.parametrize(("n_groups", "batch_size", "world"), [(12, 2, 3), (13, 2, 2), (5, 2, 4), (2, 3, 2)])
def test_devices_share_what_one_of_their_sum_would_do(n_groups, batch_size, world):
    ranks = [order(n_groups, batch_size, 7, 3, rank=rank, world_size=world) for rank in range(world)]
    assert len({len(batches) for batches in ranks}) == 1
    assert len({tuple(map(len, batches)) for batches in ranks}) == 1
    assert len(ranks[0]) == steps_an_epoch(n_groups, TrainingConfig(batch_size=batch_size, devices=world))
    steps = [flat(list(batches[step]) for batches in ranks) for step in range(len(ranks[0]))]
    alone = order(n_groups, batch_size * world, 7, 3)
    for mine, whole in zip(steps[:-1], alone[:-1], strict=True):
        assert sorted(mine) == sorted(whole)
        assert len(set(mine)) == len(mine)  # disjoint
    assert set(flat(steps)) == set(range(n_groups))
    surplus = len(flat(steps)) - n_groups
    assert 0 <= surplus < batch_size * world


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number(loss):
    config = TrainingConfig(learning_rate=0.25)
    check_loss(-3.5, 1, config)  # the Poisson loss may be negative
    with pytest.raises(BackendError, match=rf"became {loss} at step 17; lower learning_rate \(now 0\.25\)"):
        check_loss(loss, 17, config)


@pytest.mark.spec("BE-11")
@pytest.mark.parametrize(
    ("step", "total", "variation", "stops"),
    [
        (99, 120, 0.0, False),  # too few steps to say
        (100, 120, 0.0, True),
        (199, 600, 0.0, False),  # not yet a third
        (200, 600, 0.0, True),
        (600, 600, 0.0009, True),
        (600, 600, 0.001, False),
        (600, 600, math.inf, False),
    ],
)
def test_a_constant_object_is_looked_for_after_a_third(step, total, variation, stops):
    config = TrainingConfig(collapse_threshold=1e-3)
    if not stops:
        check_variation(variation, step, total, config)
        return
    words = rf"constant \(relative variation {variation:.2g}, threshold 0\.001\) after {step} steps"
    with pytest.raises(CollapseError, match=words):
        check_variation(variation, step, total, config)
    check_variation(variation, step, total, replace(config, collapse_threshold=0.0))


def test_history_has_a_row_for_every_epoch_and_gaps_where_a_figure_is_missing(tmp_path):
    write_history(tmp_path / "h.csv", {"train_loss": [0.5, 1 / 3], "test_loss": [0.25]})
    assert (tmp_path / "h.csv").read_text() == "epoch,train_loss,test_loss\n1,0.5,0.25\n2,0.333333333,nan\n"
    assert [path.name for path in tmp_path.iterdir()] == ["h.csv"]


SHAPES = {"generator.head.bias": (2,), "probe": (1, 16, 16, 2)}


def resume(found=SHAPES, facts=None, now=None, step=5, total=9):
    groups = make_groups()
    facts = facts or run_facts(TrainingConfig(), groups)
    check_resumable(Path("x.ckpt"), (found, SHAPES), (facts, now or facts), step, total)


def test_the_same_training_is_taken_up():
    resume()


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"probe": (1, 16, 16, 2)}, r"1 weights differ, first 'generator\.head\.bias' with shape None where \(2,\)"),
        (SHAPES | {"extra": (3,)}, r"1 weights differ, first 'extra' with shape \(3,\) where None"),
        (SHAPES | {"probe": (2, 16, 16, 2)}, r"1 weights differ, first 'probe' with shape \(2, 16, 16, 2\)"),
    ],
)
def test_other_weights_are_refused(found, words):
    with pytest.raises(ArchiveError, match=rf"x\.ckpt: made by another configuration: {words}"):
        resume(found)


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 2}, {"devices": 2}, {"seed": 3}, {"loss": "poisson"}, {"learning_rate": 0.5},
        {"schedule": "cosine"}, {"weight_decay": 0.5}, {"weight_average": 0.5}, {"probe_trainable": True},
        {"probe_learning_rate": 0.5}, {"scale_trainable": True}, {"scale_learning_rate": 0.5},
        {"precision": "32"},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_other_settings_are_refused(changes):
    ((name, value),) = changes.items()
    now = run_facts(TrainingConfig(**changes), make_groups())
    with pytest.raises(ArchiveError, match=rf"x\.ckpt: made with {name} = .*, now it is {value}; resume with"):
        resume(now=now)


def test_what_may_change_when_resuming():
    """More epochs, another folder or another machine are no other training."""
    config = TrainingConfig(epochs=99, output_dir=Path("elsewhere"), num_workers=2, accelerator="cpu")
    resume(now=run_facts(config, make_groups()))


def test_other_groups_are_refused():
    for groups, words in ((make_groups(4), "group_size = 3, now it is 4"), (make_groups(seed=5), "mean_counts = ")):
        with pytest.raises(ArchiveError, match=words):
            resume(now=run_facts(TrainingConfig(), groups))


def test_a_training_that_is_over_is_refused():
    with pytest.raises(ArchiveError, match=r"x\.ckpt: its 9 steps are all that was asked for; raise epochs"):
        resume(step=9, total=9)


def test_groups_that_a_cnn_is_not_tied_to():
    config = TrainingConfig(model=ModelConfig(generator="cnn"))
    check_trainable(make_groups(3), make_groups(3), config)
    check_trainable(make_groups(3), make_groups(2), TrainingConfig())
    with pytest.raises(ConfigError, match=r"needs test groups of 3 frames.* only 2 test frames"):
        check_trainable(make_groups(3), make_groups(2), config)


def test_a_calibrated_scale_is_not_trained():
    check_trainable(make_groups(), None, TrainingConfig(scale_trainable=True))
    with pytest.raises(ConfigError, match=r"scale_trainable = True, but the probe of the scan is calibrated"):
        check_trainable(make_groups(calibrated=True), None, TrainingConfig(scale_trainable=True))


def test_trackers_need_a_folder():
    check_trackers(TrainingConfig())
    with pytest.raises(ConfigError, match=r"loggers = \['mlflow'\], but output_dir is None"):
        check_trackers(TrainingConfig(loggers=("mlflow",)))


@pytest.mark.parametrize("missing", ["mlflow", "sqlalchemy", "alembic", "tensorboard"])
def test_a_tracker_that_is_not_installed(monkeypatch, missing, tmp_path):
    import sys

    for module in ("mlflow", "sqlalchemy", "alembic", "tensorboard"):
        monkeypatch.setitem(sys.modules, module, None if module == missing else sys)
    name = "tensorboard" if missing == "tensorboard" else "mlflow"
    with pytest.raises(ConfigError, match=rf"'{name}' needs a package .*{missing}.*ptycho-core\[{name}\]"):
        check_trackers(TrainingConfig(loggers=(name,), output_dir=tmp_path))
    other = "mlflow" if name == "tensorboard" else "tensorboard"
    check_trackers(TrainingConfig(loggers=(other,), output_dir=tmp_path))
