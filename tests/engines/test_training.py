"""What training does with each part of its config: loss, schedule, optimiser, probe, scale, average."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from engine_scans import ALONE, CONFIG, ONE_STEP, config_for, differ, make_scan, train, train_groups, vary
from network_oracle import first_losses

from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.raw import RawData
from ptycho_core.enginekit.schedules import learning_rate_factor
from ptycho_core.enginekit.weights import initial_weights
from ptycho_core.errors import ConfigError


@pytest.fixture(scope="module")
def scan() -> RawData:
    return make_scan(rows=3, columns=4)


def moved(model: Any) -> dict[str, np.ndarray]:
    """How far each weight of the network has come from where it started."""
    first = initial_weights(model.config, model.probe.shape[-1])
    return {name: model.weights[name] - first[name] for name in first}


@pytest.mark.parametrize("loss", ["poisson", "amplitude"])
@pytest.mark.parametrize("sweeps", [0, 3])
def test_loss_falls(scan, trained, loss, sweeps):
    config = vary(loss=loss, epochs=8, learning_rate=3e-3, model={"sweeps": sweeps})
    model = trained(scan, config)
    losses = model.history["train_loss"]
    assert len(losses) == 8
    first, last = losses[0], losses[-1]
    assert last < (first - 0.002 if loss == "poisson" else 0.9 * first)
    other = {"poisson": "amplitude", "amplitude": "poisson"}[loss]
    assert differ(model, trained(scan, vary(config, loss=other)))


def test_cnn_learns(engine):
    scan = make_scan(64, 2, 2)
    config = vary(model={"generator": "cnn", "width": 2}, group_size=2, epochs=6, learning_rate=3e-3)
    losses = train(engine, scan, config, make_scan(64, 1, 2, seed=3)).history
    assert losses["train_loss"][-1] < 0.9 * losses["train_loss"][0]
    assert losses["test_loss"][-1] < losses["test_loss"][0]


def test_cnn_refuses_smaller_test_groups(engine):
    config = config_for(engine, model={"generator": "cnn", "width": 2})
    scan = PtychoDataContainer.of(make_scan(64, 2, 3), heldout=[1, 4])
    with pytest.raises(ConfigError, match=r"needs test groups of 4 frames.* only 2 held-out frames"):
        engine.train([scan], *config)


def test_first_loss_is_the_oracle_s(engine):
    """Before any step the prediction is the solver's own, and the oracle can say what its loss is."""
    scan = make_scan(rows=3, columns=4, n_modes=2, bad=True, background=2.0)
    seen = []
    config = config_for(engine, loss="poisson", model={"sweeps": 2}, **ONE_STEP)
    train(engine, scan, config, progress=lambda event: seen.append(event.metrics["loss"]))
    assert seen == [pytest.approx(first_losses(train_groups(scan, config), config).mean(), rel=1e-5)]


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "exponential", "constant"])
def test_learning_rate_really_steps(engine, schedule):
    """Six steps with one gradient: Adam then moves by the sum of the rates, for network, probe and scale alike.

    The gradient is one because every group is the same four frames, and because the steps are short. The rate of a
    probe is relative to its root mean square, that of the scale to the scale itself.
    """
    scan = make_scan(rows=2, columns=2)
    config = vary(
        schedule=schedule, n_groups=6, batch_size=2, learning_rate=1e-6, probe_learning_rate=1e-4,
        scale_learning_rate=2e-4, probe_trainable=True, scale_trainable=True, **ALONE,
    )  # fmt: skip
    model = train(engine, scan, config)
    factors = [learning_rate_factor(schedule, step, 6) for step in range(7)]
    # a row of the history comes after a step, when the schedule has moved on to the next
    np.testing.assert_allclose(model.history["learning_rate"], [1e-6 * factors[3], 1e-6 * factors[6]], rtol=1e-6)
    assert (len(set(model.history["learning_rate"])) == 1) is (schedule == "constant")
    total = sum(factors[:6])
    np.testing.assert_allclose(np.abs(moved(model)["head.bias"]), 1e-6 * total, rtol=0.02)
    change = model.probe - scan.probe
    size = float(np.sqrt(np.mean(np.abs(scan.probe) ** 2)))
    assert np.median(np.abs(change.real)) == pytest.approx(1e-4 * size * total, rel=0.02)
    assert np.median(np.abs(change.imag)) == pytest.approx(1e-4 * size * total, rel=0.02)
    first = PtychoDataContainer.of(scan).statistics.scale
    assert abs(np.log(model.scale / first)) == pytest.approx(2e-4 * total, rel=0.02)


@pytest.mark.parametrize("limit", [1e-8, None])
def test_gradient_is_clipped_for_the_network_alone(scan, engine, limit):
    """Adam's first step is g / (|g| + 1e-8) of the rate: where g is as small as that, the step tells g."""
    model = train(engine, scan, vary(gradient_clip_norm=limit, probe_trainable=True, **ONE_STEP, **ALONE))
    ratios = np.abs(np.concatenate([np.ravel(change) for change in moved(model).values()])) / CONFIG.learning_rate
    assert (ratios > 0).sum() > 20  # weights of the head, which are the first to have a gradient
    if limit is None:
        assert np.median(ratios[ratios > 0]) == pytest.approx(1, abs=1e-3)
    else:
        gradient = 1e-8 * ratios / (1 - ratios)
        assert np.linalg.norm(gradient) == pytest.approx(limit, rel=0.01)
    size = float(np.sqrt(np.mean(np.abs(scan.probe) ** 2)))
    steps = np.abs((model.probe - scan.probe).real) / (CONFIG.probe_learning_rate * size)
    assert np.median(steps) == pytest.approx(1, abs=0.01)


def test_weight_decay_pulls_the_network_and_nothing_else(scan, engine):
    """Weights without a gradient, all but the head's in a first step, only shrink: decay is apart from the gradient."""
    heavy, light = (
        train(engine, scan, vary(weight_decay=decay, probe_trainable=True, scale_trainable=True, **ONE_STEP))
        for decay in (5.0, 0.0)
    )
    for name, first in initial_weights(CONFIG, 16).items():
        if not name.startswith("head"):
            np.testing.assert_array_equal(light.weights[name], first)
            np.testing.assert_allclose(heavy.weights[name], first * (1 - 5.0 * 1e-3), rtol=1e-6)
    np.testing.assert_array_equal(heavy.probe, light.probe)
    assert heavy.scale == light.scale


def test_probe_and_scale_move_only_when_asked(scan, trained):
    statistics = PtychoDataContainer.of(scan).statistics
    kept, refined = trained(scan), trained(scan, vary(probe_trainable=True, scale_trainable=True))
    np.testing.assert_array_equal(kept.probe, scan.probe)
    assert kept.scale == pytest.approx(statistics.scale, rel=1e-6)
    assert (refined.probe.dtype, refined.probe.shape) == (np.complex64, (1, 16, 16))
    change = np.linalg.norm(refined.probe - scan.probe) / np.linalg.norm(scan.probe)
    assert 1e-3 < change < 0.5
    assert 1e-4 < abs(refined.scale / statistics.scale - 1) < 0.1


def test_a_wrong_probe_is_refined_towards_the_right_one(scan, engine):
    y, x = np.mgrid[:16, :16] - 7.5
    wrong = scan.with_probe(scan.probe * np.exp(0.05j * (0.04 * y**2 + x)) * (1 + 0.02 * x))
    config = vary(epochs=12, probe_learning_rate=1e-2)
    refined = train(engine, wrong, vary(config, probe_trainable=True))
    kept = train(engine, wrong, config)
    assert refined.history["train_loss"][-1] < 0.8 * kept.history["train_loss"][-1]


@pytest.mark.spec("FM-6")
def test_scale_of_a_calibrated_probe_is_one_and_stays(engine):
    calibrated = make_scan(rows=3, columns=4, calibrated=True)
    assert train(engine, calibrated, vary(**ONE_STEP)).scale == 1.0
    with pytest.raises(ConfigError, match=r"scale_trainable = True, but .*calibrated"):
        train(engine, calibrated, vary(scale_trainable=True))


def test_moving_average_of_the_weights(scan, trained):
    """The result is the average that the steps say, not the last weights; an epoch is one step here."""
    config = vary(batch_size=12, learning_rate=3e-3)
    steps = [trained(scan, vary(config, epochs=epochs)).weights for epochs in (1, 2, 3)]
    averaged = trained(scan, vary(config, epochs=3, weight_average=0.7))
    for name, first in steps[0].items():
        average = first
        for weights in steps[1:]:
            average = 0.7 * average + 0.3 * weights[name]
        np.testing.assert_allclose(averaged.weights[name], average, rtol=1e-5, atol=1e-8, err_msg=name)
    assert not np.allclose(averaged.weights["head.bias"], steps[-1]["head.bias"], rtol=1e-2)


def test_moving_average_leaves_mask_and_background_alone(engine):
    scan = make_scan(rows=3, columns=4, bad=True, background=2.0)
    model = train(engine, scan, vary(weight_average=0.5), make_scan(rows=2, columns=3, seed=9))
    assert all(np.isfinite(values).all() for values in model.weights.values())
    assert len(model.history["test_loss"]) == 2
    assert np.isfinite(model.history["test_loss"]).all()


def test_held_out_loss_is_that_of_the_averaged_weights(scan, trained):
    """The loss that chooses the best epoch is the loss of the weights that are used in the end."""
    held_out = make_scan(rows=2, columns=2, seed=9)
    config = vary(batch_size=12, learning_rate=3e-2, **ALONE)
    averaged = trained(scan, vary(config, epochs=2, weight_average=0.9), held_out).history["test_loss"]
    plain = trained(scan, vary(config, epochs=2), held_out).history["test_loss"]
    assert averaged[0] == pytest.approx(plain[0], rel=1e-6)
    assert abs(averaged[1] - averaged[0]) < 0.3 * abs(plain[1] - plain[0])


def test_training_starts_from_the_shared_first_weights(scan, engine):
    config = vary(learning_rate=1e-12, model={"depth": 2}, **ONE_STEP)
    found, wanted = train(engine, scan, config).weights, initial_weights(config, 16)
    assert found.keys() == wanted.keys()
    for name, first in wanted.items():
        np.testing.assert_allclose(found[name], first, atol=1e-9)


def test_bf16_is_close_to_single_precision(scan, trained):
    one, other = (trained(scan, vary(precision=p, learning_rate=3e-3, epochs=4, **ALONE)) for p in ("32", "bf16"))
    assert differ(one, other)
    assert other.history["train_loss"][-1] == pytest.approx(one.history["train_loss"][-1], rel=0.05)
