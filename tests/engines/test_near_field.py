"""Near-field scans in the engines with a network: trained on, applied to and solved, as the oracle says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from engine_scans import (
    ALONE,
    ONE_STEP,
    config_for,
    error_of,
    image_of,
    lay_out,
    make_scan,
    patches_of,
    shaken,
    train,
    train_groups,
    untrained,
    vary,
    without_network,
)
from network_oracle import first_losses, predicted_patches

from ptycho_core.api.score import score
from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.data.propagation import FAR_FIELD, Propagation
from ptycho_core.enginekit.groups import GroupDraw
from ptycho_core.enginekit.state import flat_image
from ptycho_core.physics.forward import fourier_shift
from ptycho_core.physics.patches import extract, merge
from ptycho_core.physics.sweep import solver_update, swept

NEAR = Propagation("near_field", 0.09)
HARD = {"n_modes": 2, "bad": True, "background": 3.0}

GENERATORS = {
    "probe_unet": vary(model={"sweeps": 2}, group_size=4),
    "unrolled": vary(model={"generator": "unrolled", "sweeps": 1, "passes": 2}, group_size=4),
}


@pytest.fixture(scope="module")
def scan():
    return make_scan(rows=3, columns=4, propagation=NEAR, **HARD)


@pytest.mark.spec("FM-23", "BE-7")
@pytest.mark.parametrize("name", GENERATORS)
def test_what_a_generator_predicts_is_the_oracle_s(engine, scan, name):
    groups, config = lay_out(scan), GENERATORS[name]
    model = shaken(untrained(engine, scan, config), size=0.05)
    wanted = predicted_patches(groups, model.config, model.weights, model.scale)
    np.testing.assert_allclose(patches_of(engine, model, groups), wanted, atol=1e-3 * np.abs(wanted).max())


@pytest.mark.spec("FM-23", "BE-7")
@pytest.mark.parametrize("loss", ["poisson", "amplitude"])
@pytest.mark.parametrize("name", GENERATORS)
def test_the_loss_of_the_first_step_is_the_oracle_s(engine, scan, name, loss):
    seen = []
    config = config_for(engine, vary(GENERATORS[name], loss=loss, **ONE_STEP))
    train(engine, scan, config, progress=lambda event: seen.append(event.metrics["loss"]))
    assert seen == [pytest.approx(first_losses(train_groups(scan, config), config).mean(), rel=1e-5)]


@pytest.mark.spec("FM-16", "FM-23")
def test_sweeps_over_a_scan_are_the_oracle_s(engine, scan):
    corners, rest = integer_corners(scan.positions_px, 16)
    corners = corners - corners.min(axis=0)
    shifted = fourier_shift(scan.probe[None], rest[:, None])
    weights, counts = np.sum(np.abs(shifted) ** 2, axis=1), scan.read_counts(np.arange(scan.n_frames))
    known = (scan.mask, scan.background, PtychoDataContainer.of(scan).statistics.scale, NEAR)
    canvas = np.ones(tuple(corners.max(axis=0) + 16), complex)
    for _ in range(4):  # three sweeps, and the update under the network
        patches = extract(canvas, corners, 16)
        canvas = merge(swept(patches, solver_update(patches, shifted, counts, *known)), weights, corners, canvas.shape)
    found = image_of(engine, without_network(untrained(engine, scan), 3), scan)
    np.testing.assert_allclose(found.object, canvas, atol=2e-3)


def test_a_network_learns_a_near_field_scan(engine):
    raw = make_scan(rows=5, columns=5, propagation=NEAR)
    model = train(engine, raw, vary(epochs=6, learning_rate=3e-3, **ALONE))
    assert model.history["train_loss"][-1] < 0.9 * model.history["train_loss"][0]
    data = PtychoDataContainer.of(raw)
    flat = score(flat_image(data), data, "nobody").train.fourier_error
    image = image_of(engine, model, raw)
    assert error_of(engine, raw, image) < 0.7 * flat
    # nothing of it is right for the far field
    assert (
        score(image, PtychoDataContainer.of(replace(raw, propagation=FAR_FIELD)), "nobody").train.fourier_error > flat
    )


@pytest.mark.spec("BE-3", "FM-23")
def test_scans_of_one_training_may_differ_in_propagation(engine, scan):
    """Each step is of one scan, with its own: two near fields, one exact, and a far field."""
    others = [
        make_scan(rows=2, columns=4, seed=7, propagation=how, **HARD)
        for how in (FAR_FIELD, Propagation("near_field", 0.2, 0.7))
    ]
    scans, seen = [PtychoDataContainer.of(raw) for raw in (scan, *others)], []
    config = config_for(engine, epochs=1, batch_size=2, learning_rate=1e-12, model={"sweeps": 1})
    engine.train(scans, *config, progress=lambda event: seen.append(event.metrics["loss"]))
    draw = GroupDraw(scans, config.config)
    losses = [first_losses(draw.groups(0, number), config) for number in range(3)]
    wanted = [losses[batch.scan][batch.groups].mean() for batch in draw.batches(0)]
    np.testing.assert_allclose(seen, wanted, rtol=1e-4)
