"""What stops a training, what it needs of its data, and what it hands over."""

from __future__ import annotations

import os
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from engine_scans import (
    ALONE,
    CONFIG,
    ONE_STEP,
    assert_same_model,
    config_for,
    differ,
    image_of,
    make_scan,
    train,
    vary,
)

from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.raw import RawData
from ptycho_core.errors import BackendError, CollapseError, ConfigError


@pytest.fixture(scope="module")
def scan() -> RawData:
    return make_scan(rows=3, columns=4)


@pytest.fixture(scope="module")
def held_out() -> RawData:
    return make_scan(rows=2, columns=3, seed=9)


@pytest.mark.spec("BE-3")
@pytest.mark.parametrize("model", [{"sweeps": 2}, {"generator": "cnn", "width": 2}])
def test_bad_pixels_never_matter(engine, model):
    N = 64 if "generator" in model else 16
    one = make_scan(N, 2, 3, bad=True, background=1.0)
    rng = np.random.default_rng(3)
    counts = one.frames.read(np.arange(one.n_frames))
    counts[:, ~one.mask] = rng.choice([np.nan, np.inf, -5.0, 1e30], counts[:, ~one.mask].shape)
    other = RawData.from_arrays(counts, one.positions_px, one.probe, mask=one.mask, background=one.background)
    config = vary(model=model, epochs=1, batch_size=3, probe_trainable=True, scale_trainable=True, loss="poisson")
    models = [train(engine, scan, config, scan) for scan in (one, other)]
    assert_same_model(*models)
    images = [image_of(engine, model, scan).object for model, scan in zip(models, (one, other), strict=True)]
    np.testing.assert_array_equal(*images)
    # but a good pixel does
    counts[:, 3, 3] += 50
    third = RawData.from_arrays(counts, one.positions_px, one.probe, mask=one.mask, background=one.background)
    assert differ(train(engine, third, config), models[0])


def test_background_enters_the_model(engine):
    scan = make_scan(rows=3, columns=4, background=20.0)
    power = float((scan.frame_totals.mean() - scan.background.sum()) / np.sum(np.abs(scan.probe) ** 2))
    probe = scan.probe * np.float32(np.sqrt(power))
    known, ignorant = (
        RawData.from_arrays(
            scan.frames.read(np.arange(12)), scan.positions_px, probe, probe_calibrated=True, background=background
        )
        for background in (scan.background, None)
    )
    losses = [train(engine, raw, vary(**ONE_STEP)).history["train_loss"][0] for raw in (known, ignorant)]
    assert losses[0] < 0.5 * losses[1]


@pytest.mark.spec("FM-5")
def test_modes_add_as_intensities(engine):
    """Two equal modes are one mode of twice the power; as waves they would be four times."""
    one = make_scan(rows=3, columns=4)
    doubled = one.with_probe(np.concatenate([one.probe, one.probe]) / np.float32(np.sqrt(2)))
    # sweeps multiply what rounding does in dark pixels, where the phase is hardly known
    a, b = (train(engine, raw, vary(**ONE_STEP, **ALONE)) for raw in (one, doubled))
    assert a.history["train_loss"] == pytest.approx(b.history["train_loss"], rel=1e-4)
    assert b.scale == pytest.approx(a.scale, rel=1e-6)


def test_early_stopping_keeps_the_best_weights(scan, held_out, engine, tmp_path):
    config = vary(epochs=30, learning_rate=0.05, early_stopping_patience=2, output_dir=tmp_path)
    model = train(engine, scan, config, held_out)
    losses = model.history["test_loss"]
    best = int(np.argmin(losses))
    assert len(losses) == best + 3 < 30
    shorter = vary(config, epochs=best + 1, early_stopping_patience=None, output_dir=None)
    again = train(engine, scan, shorter, held_out)
    assert again.history["test_loss"] == losses[: best + 1]
    assert not differ(model, again)
    assert model.scale == again.scale


def test_early_stopping_without_held_out_data_watches_the_training_loss(scan, engine):
    history = train(engine, scan, vary(epochs=30, learning_rate=0.3, early_stopping_patience=1)).history
    assert "test_loss" not in history
    assert len(history["train_loss"]) == int(np.argmin(history["train_loss"])) + 2


@pytest.fixture(scope="module")
def empty() -> RawData:
    return make_scan(rows=3, columns=4, flat=True, noise=False)


@pytest.mark.spec("BE-11")
def test_a_constant_object_stops_training(engine, empty):
    config = vary(n_groups=60, epochs=3, learning_rate=1e-12, model={"sweeps": 1})
    with pytest.raises(CollapseError, match=r"object is constant \(relative variation .*threshold 0.001\).*120 steps"):
        train(engine, empty, config)
    assert len(train(engine, empty, vary(config, collapse_threshold=0.0)).history["train_loss"]) == 3
    with pytest.raises(CollapseError, match="threshold 5"):
        train(engine, make_scan(rows=3, columns=4), vary(config, collapse_threshold=5.0))


def test_a_collapse_is_not_looked_for_in_the_first_third(engine, empty):
    config = vary(n_groups=120, batch_size=1, epochs=4, learning_rate=1e-12, model={"sweeps": 1})
    seen = []
    with pytest.raises(CollapseError):
        train(engine, empty, config, progress=lambda event: seen.append(event.done))
    assert seen[-1] == 239  # 120 steps are fewer than a third of 480; one that ends an epoch is told of after its end


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_loss_that_is_no_number_stops_training(scan, engine, batch_size):
    with pytest.raises(BackendError, match=r"training loss became (nan|inf) at step \d+; lower learning_rate .*1e\+30"):
        train(engine, scan, vary(learning_rate=1e30, batch_size=batch_size, epochs=3))


@pytest.mark.spec("BE-4")
def test_model_is_plain(scan, held_out, engine):
    config = vary(probe_trainable=True, n_groups=12)
    model = train(engine, scan, config, held_out)
    assert (model.backend, model.config, model.checkpoint_path) == (
        engine.name,
        config_for(engine, config).config,
        None,
    )
    assert set(model.history) == {"train_loss", "test_loss", "learning_rate"}
    assert all(len(values) == 2 for values in model.history.values())
    assert all(type(v) is float for values in model.history.values() for v in values)
    assert type(model.probe) is np.ndarray
    assert model.probe.dtype == np.complex64
    assert type(model.scale) is float
    for name, value in model.weights.items():
        assert type(value) is np.ndarray, name
        assert value.dtype == np.float32, name


def test_inputs_are_not_changed(engine):
    raw = make_scan(rows=3, columns=4, bad=True, background=1.0)
    scan = PtychoDataContainer.of(raw, heldout=[3, 7])

    def everything():
        arrays = [scan.probe, scan.role, raw.mask, raw.background, raw.positions_px]
        return [*(array.copy() for array in arrays), raw.frames.read(np.arange(12))]

    before = everything()
    engine.train([scan], *config_for(engine, probe_trainable=True, **ONE_STEP))
    for a, b in zip(before, everything(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_progress_counts_every_step(scan, engine):
    """The last batch of an epoch is smaller here."""
    events = []
    train(engine, scan, vary(epochs=3, batch_size=5), progress=events.append)
    assert [(e.stage, e.done, e.total) for e in events] == [("train", n, 9) for n in range(1, 10)]
    assert [e.metrics["epoch"] for e in events] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert all(np.isfinite(e.metrics["loss"]) for e in events)
    assert all(b.done == a.done + 1 for a, b in pairwise(events))


def test_the_loss_of_an_epoch_is_the_mean_of_its_groups(scan, engine):
    """A last batch that is smaller counts for less; without learning the order does not matter either.

    All groups are the frames of the whole scan, so that another epoch draws no others.
    """
    config = vary(learning_rate=1e-12, group_size=12, n_groups=12, **ALONE)
    halves, uneven = (train(engine, scan, vary(config, batch_size=size)).history["train_loss"] for size in (6, 5))
    np.testing.assert_allclose(uneven, halves, rtol=1e-4)
    assert uneven[1] == pytest.approx(uneven[0], rel=1e-4)


def has(accelerator: str) -> bool:
    """Whether this machine has one, as far as the system itself tells."""
    if accelerator == "mps":
        return sys.platform == "darwin"
    return any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")) or os.name == "nt"


@pytest.mark.parametrize("accelerator", ["cuda", "mps"])
def test_an_accelerator_that_is_not_there(scan, engine, trained, accelerator):
    if has(accelerator):
        pytest.skip(f"this machine may have {accelerator}")
    with pytest.raises(ConfigError, match=rf"accelerator = '{accelerator}' is not available .*available: cpu"):
        train(engine, scan, vary(accelerator=accelerator))
    with pytest.raises(ConfigError, match=rf"accelerator = '{accelerator}' is not available .*available: cpu"):
        image_of(engine, trained(scan, CONFIG), scan, accelerator=accelerator)


@pytest.mark.slow
def test_workers_read_the_same_groups(scan, engine, trained):
    assert_same_model(train(engine, scan, vary(num_workers=2)), trained(scan, CONFIG))
