"""The rules of training that all engines keep: what goes together, health, history, resuming, trackers."""

from __future__ import annotations

import json
import math
import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from ptycho_core.config import ModelConfig, TrainingConfig
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.propagation import Propagation
from ptycho_core.data.raw import RawData
from ptycho_core.enginekit.network_training import (
    check_loss,
    check_resumable,
    check_trainable,
    check_variation,
    run_facts,
    scan_digest,
    training_scans,
    write_history,
)
from ptycho_core.enginekit.tracking import check_trackers
from ptycho_core.errors import ArchiveError, BackendError, CollapseError, ConfigError, DataError
from ptycho_core.runtime import Runtime


def network(**changes) -> TrainingConfig:
    """A config of a network."""
    return TrainingConfig(method="network", **changes)


def make_scan(*, calibrated=False, seed=0, modes=1, N=16, **roles):
    rng = np.random.default_rng(seed)
    probe = rng.normal(size=(modes, N, N)) + 1j * rng.normal(size=(modes, N, N))
    positions = np.stack([np.arange(9) * 2.5, np.arange(9) % 4 * 1.7], axis=1)
    raw = RawData.from_arrays(rng.poisson(4.0, (9, N, N)), positions, probe, probe_calibrated=calibrated)
    return PtychoDataContainer.of(raw, **roles)


def with_raw(**changes):
    """The scan with some fields of it changed, and the statistics that it had."""
    scan = make_scan()
    return replace(scan, raw=replace(scan.raw, **changes))


def rotated():
    """The scan with each frame turned by half a turn: the same totals, and even the same sums of squares."""
    scan = make_scan()
    raw = scan.raw
    counts = raw.read_counts(np.arange(9))[:, ::-1, ::-1]
    turned = RawData.from_arrays(counts, raw.positions_px, raw.probe)
    np.testing.assert_array_equal(turned.frame_totals, raw.frame_totals)
    return replace(scan, raw=turned)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number(loss):
    config = network(learning_rate=0.25)
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
    config = network(collapse_threshold=1e-3)
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


def resume(found=SHAPES, now=None, step=5, total=9):
    facts = run_facts(network(), [make_scan()])
    facts = json.loads(json.dumps(facts))  # as a checkpoint keeps them
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
        {"batch_size": 2}, {"n_groups": 4}, {"group_size": 3}, {"neighbor_pool_size": 21},
        {"seed": 3}, {"loss": "poisson"}, {"learning_rate": 0.5},
        {"schedule": "cosine"}, {"weight_decay": 0.5}, {"weight_average": 0.5}, {"probe_trainable": True},
        {"probe_learning_rate": 0.5}, {"scale_trainable": True}, {"scale_learning_rate": 0.5},
        {"gradient_clip_norm": 0.5}, {"model": ModelConfig(width=5)},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_other_settings_are_refused(changes):
    ((name, value),) = changes.items()
    said = re.escape(str({"generator": "probe_unet", "width": 5})[:-1]) if name == "model" else f"{value}; resume with"
    now = run_facts(network(**changes), [make_scan()])
    with pytest.raises(ArchiveError, match=rf"x\.ckpt: made with {name} = .*, now it is {said}"):
        resume(now=now)


@pytest.mark.parametrize("changes", [{"devices": 2}, {"precision": "32"}], ids=lambda changes: next(iter(changes)))
def test_another_number_of_devices_or_precision_is_refused(changes):
    ((name, value),) = changes.items()
    with pytest.raises(ArchiveError, match=rf"x\.ckpt: made with {name} = .*, now it is {value}; resume with"):
        resume(now=run_facts(network(), [make_scan()], Runtime(**changes)))


def test_every_setting_decides_a_training_or_is_known_not_to():
    """A field that is added to the config is held to when resuming, unless it is named here and there."""
    free = {
        "backend", "n_subsample", "test_fraction", "test_split", "probe_modes", "nphotons", "inference", "refinement",
        "epochs", "early_stopping_patience", "collapse_threshold", "algorithm",
    }  # fmt: skip
    decide = run_facts(network(), [make_scan()]).keys() - {"scans"}
    assert decide == {field.name for field in fields(TrainingConfig)} - free | {"precision", "devices"}
    assert "algorithm" in run_facts(TrainingConfig(), [make_scan()])  # of a solver


def test_what_may_change_when_resuming():
    """More epochs, another folder or another machine are no other training."""
    runtime = Runtime(output_dir=Path("elsewhere"), num_workers=2, accelerator="cpu")
    resume(now=run_facts(network(epochs=99), [make_scan()], runtime))


@pytest.mark.spec("BE-8")
@pytest.mark.parametrize(
    "scans",
    [
        [make_scan(seed=5)],
        [make_scan(), make_scan(seed=5)],
        [make_scan(seed=5), make_scan()],
        [make_scan(heldout=[4])],
        [make_scan(unused={"tired": [4]})],
        [make_scan().with_probe(make_scan(seed=5).probe)],
        [with_raw(positions_px=make_scan().raw.positions_px + np.array([0, 1e-3]))],
        [rotated()],
        [with_raw(mask=np.arange(256).reshape(16, 16) != 7)],
        [with_raw(background=np.full((16, 16), 0.5, np.float32))],
        [replace(make_scan(), statistics=replace(make_scan().statistics, scale=2.0))],
    ],
    ids=[
        "counts",
        "one more",
        "one before",
        "held out",
        "unused",
        "probe",
        "positions",
        "rotated",
        "mask",
        "background",
        "scale",
    ],
)
def test_other_scans_or_roles_are_refused(scans):
    resume(now=run_facts(network(), [make_scan()]))
    with pytest.raises(ArchiveError, match=r"x\.ckpt: made with scans = .*, now it is "):
        resume(now=run_facts(network(), scans))


def test_a_digest_is_of_the_counts_whatever_holds_them(monkeypatch):
    """Their type and the size of the blocks they are read in are none of its business, and nor is a bad pixel."""
    scan = make_scan()
    raw = scan.raw
    wanted, counts = scan_digest(scan), raw.read_counts(np.arange(9))
    for dtype in (np.uint16, np.int64, np.float64):
        again = RawData.from_arrays(counts.astype(dtype), raw.positions_px, raw.probe)
        assert scan_digest(replace(scan, raw=again)) == wanted
    monkeypatch.setattr("ptycho_core.data.raw._CHUNK_BYTES", 4 * 4 * 16**2)  # four frames: blocks of 4, 4 and 1
    assert scan_digest(scan) == wanted
    other = counts.copy()
    other[8, 3, 5] += 1
    assert scan_digest(replace(scan, raw=RawData.from_arrays(other, raw.positions_px, raw.probe))) != wanted
    near = (Propagation("near_field", 0.3), Propagation("near_field", 0.31))
    assert len({wanted, *(scan_digest(replace(scan, raw=replace(raw, propagation=how))) for how in near)}) == 3
    mask = np.ones((16, 16), bool)
    mask[3, 5] = False
    masked = [RawData.from_arrays(k, raw.positions_px, raw.probe, mask=mask) for k in (counts, other)]
    assert len({scan_digest(replace(scan, raw=raw)) for raw in masked}) == 1


def test_facts_are_plain_data():
    facts = run_facts(network(), [make_scan(), make_scan(heldout=[1])])
    assert json.loads(json.dumps(facts)) == facts
    assert len(set(facts["scans"])) == 2


@pytest.mark.spec("BE-8")
def test_a_training_that_is_over_is_taken_to_its_own_end_and_no_shorter_one():
    resume(step=9, total=9)
    with pytest.raises(ArchiveError, match=r"x\.ckpt: it has done 10 steps, more than the 9 .*; raise epochs"):
        resume(step=10, total=9)


def test_held_out_frames_too_few_for_a_cnn():
    config = network(model=ModelConfig(generator="cnn"), group_size=3)
    check_trainable([make_scan(N=64), make_scan(N=64, heldout=[1, 2, 3])], config)
    few = make_scan(N=64, heldout=[1, 2])
    check_trainable([few], network(group_size=3))
    with pytest.raises(ConfigError, match=r"needs test groups of 3 frames.* scan 1 has only 2 held-out frames"):
        check_trainable([make_scan(N=64), few], config)


def test_sizes_that_do_not_fit_or_ask_too_much_are_refused_before_an_engine_builds_them():
    with pytest.raises(ConfigError, match=r"generator 'cnn' supports N = 64, 128 or 256; frames are 16×16"):
        check_trainable([make_scan()], network(model=ModelConfig(generator="cnn"), group_size=3))
    with pytest.raises(ConfigError, match=r"width = 512, depth = 4, .* has 2.01e\+09 weights; allowed: 5.37e\+08"):
        check_trainable([make_scan()], network(model=ModelConfig(width=512, depth=4)))


def test_a_calibrated_scale_is_not_trained():
    config = network(scale_trainable=True)
    check_trainable([make_scan()], config)
    check_trainable([make_scan(calibrated=True)], network())
    for scans in ([make_scan(calibrated=True)], [make_scan(), make_scan(calibrated=True)]):
        with pytest.raises(ConfigError, match=r"scale_trainable = True, but the probe of the scan is calibrated"):
            check_trainable(scans, config)


@pytest.mark.spec("BE-3")
def test_scans_that_do_not_go_together():
    check_trainable([make_scan(), make_scan(seed=1)], network())
    for other, shape in ((make_scan(modes=2), "(2, 16, 16)"), (make_scan(N=32), "(1, 32, 32)")):
        words = rf"scan 1: its probe is {re.escape(shape)}, that of the first scan is \(1, 16, 16\)"
        with pytest.raises(DataError, match=words):
            check_trainable([make_scan(), other], network())
    held = make_scan(heldout=range(9))
    check_trainable([make_scan(), held], network())
    with pytest.raises(DataError, match="it has no training frames"):
        check_trainable([held, make_scan()], network())
    one, two = make_scan(), make_scan(seed=1, heldout=[3])
    assert training_scans([one, held, two]) == [one, two]


def test_trackers_need_a_folder():
    check_trackers(Runtime())
    with pytest.raises(ConfigError, match=r"loggers = \['mlflow'\], but output_dir is None"):
        check_trackers(Runtime(loggers=("mlflow",)))


@pytest.mark.parametrize("missing", ["mlflow", "sqlalchemy", "alembic", "tensorboard"])
def test_a_tracker_that_is_not_installed(monkeypatch, missing, tmp_path):
    import sys

    for module in ("mlflow", "sqlalchemy", "alembic", "tensorboard"):
        monkeypatch.setitem(sys.modules, module, None if module == missing else sys)
    name = "tensorboard" if missing == "tensorboard" else "mlflow"
    with pytest.raises(ConfigError, match=rf"'{name}' needs a package .*{missing}.*ptycho-core\[{name}\]"):
        check_trackers(Runtime(loggers=(name,), output_dir=tmp_path))
    other = "mlflow" if name == "tensorboard" else "tensorboard"
    check_trackers(Runtime(loggers=(other,), output_dir=tmp_path))
