"""From the same first weights and the same order of groups, both engines take the same steps.

Twenty steps or more each, over several epochs, on 12 groups of a tiny scan; the loss of every step is compared, and in
the end everything that training decided.

These scans have a background for a reason. In the light of a real one and without it, a step about doubles what
rounding did: on the demo's scan PyTorch, started from weights that are off by 1e-7, is 1e-3 away from itself after 14
steps and 2e-2 after 22, and the other engine is as far away as that and no farther.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from both_engines import NAMES, hard_scan, losses_of, losses_on, several_scans, steps_apart
from engines.engine_scans import Settings, assert_same_model, differ, interrupted, make_scan, train, vary

from ptycho_core.errors import Cancelled

pytestmark = pytest.mark.both

LOSS = 1e-4
"""Of every step's loss, relative to how much losses vary over the training. Measured: 4e-6."""

WEIGHTS = 0.05
"""Of weights, probe and scale, in largest steps of the optimiser: far less than one step's difference. Measured: 2e-3;
see ``steps_apart``."""

STEPS = vary(epochs=5, batch_size=3, learning_rate=1e-3, gradient_clip_norm=None, model={"sweeps": 3})
"""Four steps an epoch."""

CASES = {
    "plain": STEPS,
    "everything": vary(
        STEPS, loss="poisson", schedule="one_cycle", probe_trainable=True, scale_trainable=True, weight_decay=0.1,
        gradient_clip_norm=0.01, weight_average=0.8,
    ),
    # the last batch of an epoch is smaller
    "uneven": vary(
        STEPS, schedule="cosine", batch_size=5, epochs=7, probe_trainable=True, gradient_clip_norm=0.01,
        model={"sweeps": 0, "depth": 2},
    ),
    "one group a step": vary(
        STEPS, schedule="exponential", batch_size=1, epochs=2, loss="poisson", scale_trainable=True,
        scale_learning_rate=3e-2, weight_decay=1.0, neighbor_pool_size=6,
    ),
    # small steps: with large ones a weight is on the other side of a ReLU after 14, and losses agree to 5e-4 only
    "unrolled": vary(
        STEPS, probe_trainable=True, scale_trainable=True, learning_rate=5e-4,
        model={"generator": "unrolled", "sweeps": 0, "passes": 3},
    ),
    "cnn": vary(
        STEPS, schedule="one_cycle", group_size=2, batch_size=2, epochs=7, probe_trainable=True, weight_average=0.5,
        model={"generator": "cnn", "width": 2},
    ),
}  # fmt: skip
"""Each schedule, each loss and every part of the optimiser with a setting that leaves a trace."""


def scans_for(config: Settings) -> tuple[Any, Any]:
    """A scan to learn from and a held-out one."""
    if config.network.generator == "cnn":
        return hard_scan(64, 2, 3), hard_scan(64, 2, 2, seed=9)
    return hard_scan(), hard_scan(rows=2, columns=3, seed=9)


@pytest.fixture(scope="module")
def pairs(engines):
    """Trainings of both engines, each made once."""
    done: dict[str, list] = {}

    def get(name: str) -> list:
        if name not in done:
            scan, test = scans_for(CASES[name])
            done[name] = [losses_of(engine, scan, CASES[name], test) for engine in engines.values()]
        return done[name]

    return get


@pytest.mark.spec("BE-12")
@pytest.mark.parametrize("name", CASES)
def test_every_step_has_the_same_loss(pairs, name):
    (one, _), (other, _) = pairs(name)
    assert len(one) == len(other) >= 20
    spread = np.ptp(other)
    assert spread > 1e-3  # something was learned, or at least the groups differ
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=0)
    np.testing.assert_allclose(one, other, rtol=0, atol=LOSS * spread)


@pytest.mark.parametrize("name", CASES)
def test_every_number_that_training_decides_ends_the_same(pairs, name):
    config = CASES[name]
    (_, one), (_, other) = pairs(name)
    assert steps_apart(one.weights, other.weights, config.learning_rate) < WEIGHTS
    size = np.sqrt(np.mean(np.abs(other.probe) ** 2))
    limit = WEIGHTS * config.probe_learning_rate * size if config.probe_trainable else 0.0
    assert np.abs(one.probe - other.probe).max() <= limit
    assert one.scale == pytest.approx(other.scale, rel=WEIGHTS * config.scale_learning_rate)


@pytest.mark.parametrize("name", CASES)
def test_histories_have_the_same_names_and_figures(pairs, name):
    (_, one), (_, other) = pairs(name)
    assert list(one.history) == list(other.history) == ["train_loss", "test_loss", "learning_rate"]
    for figure, wanted in other.history.items():
        assert len(one.history[figure]) == len(wanted) == CASES[name].epochs
        np.testing.assert_allclose(one.history[figure], wanted, rtol=1e-4, err_msg=figure)


@pytest.mark.parametrize("name", CASES)
def test_what_is_compared_has_moved(pairs, name):
    """Else two engines that left a setting out alike would agree."""
    config = CASES[name]
    scan, _ = scans_for(config)
    for _, model in pairs(name):
        assert (float(np.abs(model.probe - scan.probe).max()) > 1e-3) is config.probe_trainable
        change = abs(model.scale / model.statistics.scale - 1)
        assert change > 1e-4 if config.scale_trainable else change < 1e-6


@pytest.mark.parametrize(
    ("name", "setting", "other"),
    [
        ("everything", "weight_decay", 0.0),
        ("everything", "gradient_clip_norm", None),
        ("everything", "weight_average", 0.0),
        ("uneven", "schedule", "constant"),
        ("one group a step", "neighbor_pool_size", None),
    ],
)
def test_each_setting_matters_by_more_than_the_tolerance(pairs, engines, name, setting, other):
    """The same training with one setting changed, in one engine, is told apart from the other engine's."""
    config = vary(CASES[name], **{setting: other})
    scan, test = scans_for(config)
    changed = train(engines["pytorch"], scan, config, test)
    _, (_, wanted) = pairs(name)
    assert steps_apart(changed.weights, wanted.weights, config.learning_rate) > 2 * WEIGHTS


def test_one_seed_draws_and_orders_the_groups_of_every_epoch_alike(engines):
    """With nothing to learn, a step's loss says which group it was: in each epoch other ones, the same in both."""
    scan = make_scan(rows=3, columns=4, background=5.0)
    config = vary(STEPS, epochs=4, batch_size=1, learning_rate=1e-12, model={"sweeps": 0})
    one, other = (losses_of(engine, scan, config)[0].reshape(4, 12) for engine in engines.values())
    np.testing.assert_allclose(one, other, rtol=1e-5)
    for epoch in other[1:]:
        assert np.abs(epoch - other[0]).max() > 0.1 * other[0].mean()
        assert np.abs(np.sort(epoch) - np.sort(other[0])).max() > 0.01 * other[0].mean()


# ---- several scans

TOGETHER = vary(
    STEPS, epochs=4, loss="poisson", schedule="one_cycle", probe_trainable=True, scale_trainable=True,
    scale_learning_rate=1e-2, weight_decay=0.1, gradient_clip_norm=0.05, weight_average=0.5,
)  # fmt: skip
"""Two batches an epoch of the one scan and three of the other."""


@pytest.fixture(scope="module", params=["the first scan first", "the other way round"])
def together(request, engines):
    """The model has probe and scale of the first scan only, so each of the two is it once."""
    scans = several_scans()
    if request.param != "the first scan first":
        scans = scans[::-1]
    return scans, {name: losses_on(engine, scans, TOGETHER) for name, engine in engines.items()}


@pytest.mark.spec("BE-12")
def test_two_scans_trained_together_end_the_same(together):
    scans, made = together
    (one, first), (other, second) = (made[name] for name in NAMES)
    assert len(one) == len(other) == 20
    np.testing.assert_allclose(one, other, rtol=0, atol=LOSS * np.ptp(other))
    for figure, wanted in second.history.items():
        np.testing.assert_allclose(first.history[figure], wanted, rtol=1e-4, err_msg=figure)
    assert steps_apart(first.weights, second.weights, TOGETHER.learning_rate) < WEIGHTS
    size = np.sqrt(np.mean(np.abs(second.probe) ** 2))
    assert np.abs(first.probe - second.probe).max() <= WEIGHTS * TOGETHER.probe_learning_rate * size
    assert first.scale == pytest.approx(second.scale, rel=WEIGHTS * TOGETHER.scale_learning_rate)
    assert first.statistics == second.statistics == scans[0].statistics
    for model in (first, second):
        assert np.abs(model.probe - scans[0].probe).max() > 1e-3
        assert abs(model.scale / model.statistics.scale - 1) > 1e-3


def test_each_scan_matters_by_more_than_the_tolerance(together, engines):
    """Left out, a scan is missed: one that is trained on by weights, one that is held out by the held-out loss."""
    scans, made = together
    (losses, whole), engine = made["pytorch"], engines["tensorflow"]
    _, without = losses_on(engine, scans[:2], TOGETHER)
    assert steps_apart(without.weights, whole.weights, TOGETHER.learning_rate) > 2 * WEIGHTS
    unwatched, model = losses_on(engine, [scans[0], scans[2]], TOGETHER)
    np.testing.assert_allclose(unwatched, losses, rtol=0, atol=LOSS * np.ptp(losses))
    test_loss = np.array(whole.history["test_loss"])
    assert np.abs(model.history["test_loss"] - test_loss).min() > 1e-3 * np.abs(test_loss).max()


def test_two_scans_are_gone_on_with_alike(together, engines, tmp_path):
    """Stopped between a step with the one and a step with the other."""
    scans, made = together

    def stop(event):
        if event.done == 7:
            raise Cancelled

    for name, engine in engines.items():
        with pytest.raises(Cancelled) as caught:
            engine.train(scans, *vary(TOGETHER, backend=name, output_dir=tmp_path / name), progress=stop)
        losses, model = losses_on(engine, scans, vary(TOGETHER, resume_from=Path(caught.value.checkpoint_path)))
        np.testing.assert_array_equal(losses, made[name][0][7:])
        assert model.history == made[name][1].history
        assert model.scale == made[name][1].scale


def test_a_training_that_was_over_is_over_in_both(engines, tmp_path):
    """Killed after its last checkpoint: the model it would have given, from the best epoch where patience asks."""
    scan, test = scans_for(STEPS)
    config = vary(STEPS, epochs=3, learning_rate=0.03, early_stopping_patience=9, model={"sweeps": 0})
    for name, engine in engines.items():
        done = train(engine, scan, vary(config, output_dir=tmp_path / name), test)
        steps: list = []
        again = vary(config, output_dir=tmp_path / f"{name} again", resume_from=done.checkpoint_path)
        model = train(engine, scan, again, test, progress=steps.append)
        assert steps == []
        assert_same_model(model, done)
        assert model.checkpoint_path == tmp_path / f"{name} again" / "checkpoints" / "last.ckpt"
        assert np.argmin(done.history["test_loss"]) < 2  # the best epoch is not the last
        last = train(engine, scan, vary(again, early_stopping_patience=None), test)
        assert differ(last, done)


@pytest.mark.slow
def test_a_compiled_training_takes_the_same_steps(pairs, engines, monkeypatch):
    """What TensorFlow does in large jobs only is done in a small one here."""
    from ptycho_backend_tensorflow import hardware

    monkeypatch.setattr(hardware, "XLA_PAYS_FOR_NETWORK", 1)
    monkeypatch.setattr(hardware, "XLA_PAYS_FOR_SWEEPS", 1)
    scan, test = scans_for(CASES["everything"])
    losses, model = losses_of(engines["tensorflow"], scan, CASES["everything"], test)
    wanted, other = pairs("everything")[0]
    np.testing.assert_allclose(losses, wanted, rtol=0, atol=LOSS * np.ptp(wanted))
    assert steps_apart(model.weights, other.weights, STEPS.learning_rate) < WEIGHTS


@pytest.mark.parametrize("kept", [False, True])
def test_patience_ends_after_the_same_epoch_with_the_same_weights(engines, tmp_path, kept):
    """With a folder those of the best epoch, which are kept there, and without one those of the last."""
    scan, test = scans_for(STEPS)
    config = vary(STEPS, epochs=30, learning_rate=0.01, early_stopping_patience=1, model={"sweeps": 0})
    models = []
    for name, engine in engines.items():
        models.append(train(engine, scan, vary(config, output_dir=tmp_path / name if kept else None), test))
    one, other = models
    assert 2 < len(one.history["test_loss"]) == len(other.history["test_loss"]) < 30
    np.testing.assert_allclose(one.history["test_loss"], other.history["test_loss"], rtol=1e-4)
    assert steps_apart(one.weights, other.weights, config.learning_rate) < WEIGHTS


def test_a_folder_holds_the_same_files_with_the_same_history(engines, tmp_path):
    scan, test = scans_for(STEPS)
    rows = []
    for name, engine in engines.items():
        train(engine, scan, vary(STEPS, epochs=2, early_stopping_patience=2, output_dir=tmp_path / name), test)
        rows.append((tmp_path / name / "history.csv").read_text().splitlines())
    files = [
        sorted(path.relative_to(tmp_path / name).as_posix() for path in (tmp_path / name).rglob("*")) for name in NAMES
    ]
    assert files[0] == files[1]
    assert rows[0][0] == rows[1][0]
    figures = [np.array([[float(figure) for figure in row.split(",")] for row in table[1:]]) for table in rows]
    np.testing.assert_allclose(*figures, rtol=1e-5)


def test_both_stop_after_the_step_they_were_asked_in(engines, tmp_path):
    scan, test = scans_for(STEPS)
    for name, engine in engines.items():
        path = interrupted(engine, scan, vary(STEPS, output_dir=tmp_path / name), 6, test)
        assert path == tmp_path / name / "checkpoints" / "interrupted.ckpt"
    steps: dict[str, list] = {name: [] for name in engines}
    for name, engine in engines.items():
        config = vary(STEPS, resume_from=tmp_path / name / "checkpoints" / "interrupted.ckpt")
        train(engine, scan, config, test, progress=steps[name].append)
    one, other = ([(e.stage, e.done, e.total, e.metrics["epoch"]) for e in steps[name]] for name in NAMES)
    assert one == other
    assert one[0] == ("train", 7, 20, 1.0)
    losses = [[e.metrics["loss"] for e in steps[name]] for name in NAMES]
    np.testing.assert_allclose(*losses, rtol=1e-4)
