"""A near-field scan by every engine of the house: the same steps of a training, and the same image of a solver."""

from __future__ import annotations

import numpy as np
import pytest
from both_engines import steps_apart
from engines.engine_scans import config_for, make_scan, vary

import ptycho_core
from ptycho_core.api.score import score
from ptycho_core.config import RefinementConfig, TrainingConfig
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.propagation import Propagation
from ptycho_core.enginekit.state import flat_image
from ptycho_core.plugins.registry import load_backend
from ptycho_core.runtime import Runtime
from ptycho_core.testing.tolerances import OTHER_IMAGE, relative_error

pytestmark = [pytest.mark.both, pytest.mark.spec("FM-23", "BE-12")]

NEAR = Propagation("near_field", 0.09)


@pytest.mark.parametrize("generator", ["probe_unet", "unrolled"])
def test_every_step_of_a_training_has_the_same_loss(engines, generator):
    raw = make_scan(rows=3, columns=4, n_modes=2, bad=True, background=5.0, propagation=NEAR)
    scan = PtychoDataContainer.of(raw, heldout=[1, 6])
    config = vary(
        epochs=2, n_groups=10, batch_size=2, learning_rate=5e-4, probe_trainable=True, scale_trainable=True,
        model={"generator": generator, "sweeps": 2},
    )  # fmt: skip
    found = []
    for engine in engines.values():
        seen: list[float] = []
        model = engine.train(
            [scan], *config_for(engine, config), progress=lambda event, seen=seen: seen.append(event.metrics["loss"])
        )
        found.append((seen, model))
    (one, first), (other, second) = found
    assert len(other) == 10
    assert np.ptp(other) > 0.03 * np.mean(other)
    np.testing.assert_allclose(one, other, rtol=1e-5)
    assert first.history["test_loss"] == pytest.approx(second.history["test_loss"], rel=1e-5)
    assert steps_apart(first.weights, second.weights, config.config.learning_rate) < 0.05


@pytest.mark.filterwarnings("ignore:.*truth.*")
def test_three_engines_solve_and_refine_to_one_image(engines):
    """Probe and positions are refined; figures and image agree, and the scan is explained."""
    raw = make_scan(rows=5, columns=6, photons=2e5, propagation=NEAR)
    runs = {}
    for name in (*engines, "numpy"):
        config = TrainingConfig(
            backend=name, method="solver", epochs=6, seed=2, probe_modes=1,
            refinement=RefinementConfig(epochs=6, positions=True),
        )  # fmt: skip
        runs[name] = ptycho_core.run(raw, config, runtime=Runtime(accelerator="cpu"))
    wanted = runs["numpy"].scored
    flat = score(flat_image(wanted.scan), wanted.scan, "nobody")
    assert wanted.train.fourier_error < 0.6 * flat.train.fourier_error
    lit = wanted.image.coverage > 1
    for name in engines:
        found = runs[name].scored
        assert relative_error(found.image.object[lit], wanted.image.object[lit]) < OTHER_IMAGE, name
        assert relative_error(found.image.probe, wanted.image.probe) < OTHER_IMAGE, name
        assert found.train.fourier_error == pytest.approx(wanted.train.fourier_error, rel=1e-3)
    assert load_backend("numpy").capabilities.propagations == engines["pytorch"].capabilities.propagations
