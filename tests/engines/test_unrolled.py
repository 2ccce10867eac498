"""``unrolled``: a pass over a canvas against the oracle, the solver that it is untrained, and any number of passes."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from engine_scans import (
    CONFIG,
    error_of,
    exact,
    image_of,
    lay_out,
    make_scan,
    model_of,
    patches_of,
    shaken,
    train,
    train_groups,
    untrained,
    vary,
    without_network,
)
from network_oracle import first_losses, passed, predicted_patches

from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.enginekit import network_inference as inference
from ptycho_core.enginekit.groups import Groups
from ptycho_core.enginekit.weights import initial_weights
from ptycho_core.errors import ConfigError
from ptycho_core.physics.forward import fourier_shift
from ptycho_core.physics.patches import extract, merge
from ptycho_core.physics.sweep import solver_update, swept

UNROLLED = vary(model={"generator": "unrolled", "sweeps": 0, "passes": 3})


@pytest.fixture(scope="module")
def scan():
    """17 frames, which batches of 4 do not divide; a background keeps dark pixels tame."""
    return make_scan(rows=3, columns=6, n_modes=2, bad=True, background=5.0).subset(np.arange(17))


@pytest.fixture(scope="module")
def model(engine, scan):
    """Noise on every weight."""
    return shaken(untrained(engine, scan, UNROLLED), size=0.05)


@pytest.fixture(scope="module")
def whole(scan):
    """What the oracle needs of a scan: a flat canvas, corners on it, and what the solver's update takes."""
    corners, rest = integer_corners(scan.positions_px, 16)
    corners = corners - corners.min(axis=0)
    shifted = fourier_shift(scan.probe[None].astype(complex), rest[:, None])
    scale = PtychoDataContainer.of(scan).statistics.scale
    known = (shifted, scan.read_counts(np.arange(17)).astype(float), scan.mask, scan.background, scale)
    return np.ones(tuple(corners.max(axis=0) + 16), complex), corners, known


def lit(result):
    """Where the probe is brighter than single precision can tell from nothing."""
    return result.coverage > 1e-4


@pytest.mark.spec("FM-20", "BE-7")
@pytest.mark.parametrize("passes", [1, 2, 5])
def test_passes_over_a_scan_are_the_oracle_s(engine, scan, model, whole, passes):
    """On one canvas for all frames, for fewer passes than in training and for more."""
    canvas, corners, known = whole
    for _ in range(passes):
        canvas = passed(canvas, corners, known, model.weights, model.config)
    found = image_of(engine, model, scan, passes=passes)
    np.testing.assert_allclose(found.object[lit(found)], canvas[lit(found)], atol=1e-3 * np.abs(canvas).max())
    assert np.std(canvas[lit(found)]) > 0.1


@pytest.mark.spec("FM-20")
def test_every_pass_matters(engine, scan, model):
    images = [image_of(engine, model, scan, passes=passes).object for passes in (1, 2, 3, 4)]
    for one, other in itertools.pairwise(images):
        assert np.abs(one - other).max() > 0.02
    np.testing.assert_array_equal(image_of(engine, model, scan).object, images[2])  # as in training


@pytest.mark.spec("FM-20", "BE-7")
@pytest.mark.parametrize("sweeps", [0, 2])
def test_passes_over_groups_are_the_oracle_s(engine, scan, sweeps):
    """Each group on its own canvas, as training sees it; passes may be asked for by the model's own config."""
    groups = lay_out(scan)
    start = vary(UNROLLED, model={"sweeps": sweeps})
    for config in (start, vary(start, inference={"passes": 5})):
        model = shaken(untrained(engine, scan, config), size=0.05)
        wanted = predicted_patches(groups, model.config, model.weights, model.scale)
        found = patches_of(engine, model, groups)
        np.testing.assert_allclose(found, wanted, atol=1e-3 * np.abs(wanted).max())


@pytest.mark.spec("FM-20", "FM-16")
@pytest.mark.parametrize(("sweeps", "passes"), [(0, 4), (3, 2)])
def test_untrained_it_is_the_parallel_solver(engine, scan, whole, sweeps, passes):
    """With the first weights, sweeps and passes are one and the same, and those of the oracle."""
    canvas, corners, (shifted, *known) = whole
    weights = np.sum(np.abs(shifted) ** 2, axis=1)
    for _ in range(sweeps + passes):
        patches = extract(canvas, corners, 16)
        canvas = merge(swept(patches, solver_update(patches, shifted, *known)), weights, corners, canvas.shape)
    first = untrained(engine, scan, vary(UNROLLED, model={"sweeps": sweeps, "passes": passes}))
    found = image_of(engine, first, scan)
    np.testing.assert_allclose(found.object, canvas, atol=1e-3)
    solver = image_of(engine, without_network(untrained(engine, scan), sweeps + passes - 1), scan)
    np.testing.assert_allclose(found.object[lit(found)], solver.object[lit(found)], atol=1e-4)


def test_a_pass_leaves_a_scan_that_is_explained_alone(engine):
    """The correction is relative to the update: where the solver has nothing to change, neither has the network."""
    scan = make_scan(flat=True, noise=False, n_modes=2, background=2.0, bad=True, calibrated=True)
    model = shaken(untrained(engine, scan, UNROLLED), size=0.1)
    assert np.abs(patches_of(engine, model, lay_out(scan)) - 1).max() < 1e-3


@pytest.mark.parametrize("batch_size", [1, 4, 1000])
def test_memory_is_bounded_and_does_not_change_the_answer(engine, scan, model, batch_size, monkeypatch):
    """Frames are read again in every pass where the scan is large, and few at a time."""
    plain = image_of(engine, model, scan)
    monkeypatch.setattr(inference, "BYTES_KEPT", 0)
    seen = []
    real = Groups.read_counts

    def read(self, groups):
        seen.append(np.size(groups))
        return real(self, groups)

    monkeypatch.setattr(Groups, "read_counts", read)
    found = image_of(engine, model, scan, frames_at_once=batch_size)
    np.testing.assert_allclose(found.object, plain.object, atol=1e-3 * np.abs(plain.object).max())
    assert max(seen) == min(batch_size, 17)
    assert sum(seen) >= 3 * 17


def test_progress_counts_sweeps_and_passes(engine, scan):
    model = untrained(engine, scan, vary(UNROLLED, model={"sweeps": 2}))
    events = []
    engine.reconstruct(model, PtychoDataContainer.of(scan), *exact(passes=5), progress=events.append)
    assert [event.done for event in events[:6]] == [17 * n for n in range(1, 7)]
    assert events[-1].done == events[-1].total == 17 * 7


def test_passes_are_refused_where_there_is_only_one(engine, scan):
    for config in (CONFIG, vary(model={"generator": "cnn", "width": 2})):
        raw = scan if config is CONFIG else make_scan(64, 2, 2)
        model = untrained(engine, raw, config)
        name = config.network.generator
        with pytest.raises(ConfigError, match=rf"InferenceConfig.passes = 2 has no effect on generator '{name}'"):
            image_of(engine, model, raw, passes=2)


@pytest.mark.spec("FM-20")
def test_training_goes_back_through_all_passes(engine):
    """Adam's first step from a gradient clipped to far below 1e-8 is along the gradient, which the oracle gives.

    By finite differences of the loss, on the head: nothing else has a gradient at first. A gradient that stopped at
    the last pass would point elsewhere.
    """
    scan = make_scan(rows=2, columns=3, n_modes=2, bad=True, background=5.0)
    config = vary(UNROLLED, group_size=6, n_groups=1, epochs=1, learning_rate=1.0, gradient_clip_norm=1e-11)
    groups = train_groups(scan, config)
    model = train(engine, scan, config)
    first = initial_weights(model.config, 16)
    moved = np.concatenate([np.ravel(model.weights[f"head.{part}"]) for part in ("weight", "bias")]).astype(float)

    def slopes(config, sweeps=0):
        sizes = {"sweeps": sweeps, "passes": config.network.sizes.passes - sweeps}
        config = replace(config, model=model_of(config.network, **sizes))
        out = []
        for part in ("weight", "bias"):
            for place in np.ndindex(first[f"head.{part}"].shape):
                values = []
                for step in (1e-4, -1e-4):
                    changed = first[f"head.{part}"].astype(float)
                    changed[place] += step
                    values.append(first_losses(groups, config, {**first, f"head.{part}": changed})[0])
                out.append((values[0] - values[1]) / 2e-4)
        return np.array(out)

    def angle(one, other):
        return 1 - one @ other / np.linalg.norm(one) / np.linalg.norm(other)

    assert angle(moved, -slopes(model.config)) < 1e-4
    assert angle(moved, -slopes(model.config, sweeps=2)) > 1e-2  # the last pass alone


@pytest.mark.slow
def test_trained_on_groups_it_beats_the_solver_on_the_scan_and_stays_stable(engine):
    """With as many passes as in training better than the solver, and with three times them better still."""
    scan = make_scan(rows=6, columns=7, background=1.0, photons=1e5)
    config = vary(UNROLLED, model={"passes": 3}, group_size=9, epochs=4, learning_rate=3e-3, schedule="one_cycle")
    first, model = untrained(engine, scan, config), train(engine, scan, config)
    assert model.history["train_loss"][-1] < 0.9 * model.history["train_loss"][0]
    solver, learned = (error_of(engine, scan, image_of(engine, m, scan)) for m in (first, model))
    assert learned < 0.8 * solver
    assert error_of(engine, scan, image_of(engine, model, scan, passes=9)) < learned
