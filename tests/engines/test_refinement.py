"""Refining by the steps of the engines with a network: one descent with one outcome."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from core.refinement_scan import CONFIG, flat_image, make_scan

from ptycho_core.api.score import score
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.raw import RawData
from ptycho_core.enginekit.refining import refine_by_steps
from ptycho_core.plugins.registry import load_backend
from ptycho_core.runtime import Runtime


def refined(engine, scan, **changes):
    """An image refined from a nearly flat one, the epochs that were reported, and the image it began with."""
    plan = replace(CONFIG.refinement, epochs=4, **changes)
    initial, events = flat_image(scan), []
    before = initial.object.copy()
    config, runtime = replace(CONFIG, refinement=plan), Runtime(accelerator="cpu")
    image = refine_by_steps(engine, initial, scan, config, runtime, events.append)
    np.testing.assert_array_equal(initial.object, before)
    return image, [event.metrics for event in events], initial


@pytest.mark.spec("BE-16", "BE-17")
def test_it_finds_what_the_numpy_engine_finds(engine):
    """The descent is one, and only the arithmetic differs: the images agree as float32 does."""
    scan = PtychoDataContainer.of(make_scan(shake=0.8), heldout=[3, 17, 30, 41])
    (one, epochs, initial), (two, wanted, _) = (
        refined(each, scan, positions=True, probe_modes=2) for each in (engine, load_backend("numpy"))
    )
    assert np.abs(one.object - two.object).max() < 2e-2 * np.abs(two.object).max()
    np.testing.assert_allclose(one.positions_px, two.positions_px, atol=5e-3)
    assert one.object.dtype == one.probe.dtype == np.complex64
    assert len(epochs) == len(wanted) == 4
    for name in ("train_loss", "test_loss"):
        np.testing.assert_allclose([m[name] for m in epochs], [m[name] for m in wanted], rtol=1e-4)
    errors = [score(image, scan, engine.name, engine).heldout.deviance for image in (one, two, initial)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)
    assert errors[0] < 0.5 * errors[2]


@pytest.mark.spec("BE-17")
def test_refining_looks_at_training_frames_and_is_judged_by_held_out_ones(engine):
    raw, unused = make_scan(), [3, 30, 41]
    counts = raw.read_counts(np.arange(raw.n_frames)).copy()
    counts[unused] = counts[unused][:, ::-1, ::-1] * 2
    other = RawData.from_arrays(counts, raw.positions_px, raw.probe, probe_calibrated=True)
    roles = {"unused": {"tired": unused}, "heldout": [7, 20]}
    images = [refined(engine, PtychoDataContainer.of(given, **roles))[0] for given in (raw, other)]
    np.testing.assert_array_equal(images[0].object, images[1].object)
    seen = refined(engine, PtychoDataContainer.of(other, heldout=[7, 20]))[0]
    assert np.abs(seen.object[20:60, 20:50] - images[1].object[20:60, 20:50]).max() > 1e-3
