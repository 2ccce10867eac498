"""Refining in the engines with a network: their gradients against the oracle, and one descent with one outcome."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from core.physics_problem import make_problem
from core.refinement_scan import CONFIG, flat_image, make_scan

from ptycho_core.api.score import score
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.raw import RawData
from ptycho_core.physics.likelihood import loss_and_gradient
from ptycho_core.physics.steps import DARK_COUNTS, position_gradient
from ptycho_core.plugins.registry import load_backend


def gradient_of(engine, raw, loss):
    """The engine's own gradient, as its `refine` binds it."""
    if engine.name == "pytorch":
        import torch

        from ptycho_backend_torch.refinement import TorchGradient

        return TorchGradient(raw, loss, torch.device("cpu"))
    from ptycho_backend_tensorflow.refinement import TensorflowGradient

    return TensorflowGradient(raw, loss, "/CPU:0")


@pytest.mark.spec("BE-7", "FM-10", "FM-19")
@pytest.mark.parametrize("loss", ["poisson", "amplitude"])
@pytest.mark.parametrize("chunk", [1, 2**24])
def test_gradients_are_the_oracles(engine, loss, chunk, monkeypatch):
    module = __import__(
        f"ptycho_backend_{'torch' if engine.name == 'pytorch' else 'tensorflow'}.refinement", fromlist="x"
    )
    monkeypatch.setattr(module, "CHUNK_BYTES", chunk)
    p = make_problem()
    raw = RawData.from_arrays(
        p.counts.astype(np.float32), p.positions_px, p.probe.astype(np.complex64), mask=p.mask, background=p.background
    )
    frames = np.array([4, 0, 2, 3])
    corners, rest = p.corners[frames], p.rest[frames]
    background = raw.background.astype(np.float64) + DARK_COUNTS
    known = (p.obj, p.probe, corners, rest, raw.read_counts(frames), loss, p.mask, background)
    _, d_obj, d_probe, _ = loss_and_gradient(*known)
    value = loss_and_gradient(*known[:-1], raw.background)[0]  # what is told knows of no dark counts
    ask = gradient_of(engine, raw, loss)
    state = (p.obj.astype(np.complex64), p.probe.astype(np.complex64))
    found = ask(frames, corners, rest, *state, ("object", "probe", "positions"), DARK_COUNTS)
    assert found.loss == pytest.approx(value, rel=1e-5)
    for array, wanted in [(found.object, d_obj), (found.probe, d_probe), (found.positions, position_gradient(*known))]:
        assert array.shape == wanted.shape
        assert np.abs(array - wanted).max() < 1e-4 * np.abs(wanted).max()
    alone = ask(frames, corners, rest, *state, ())
    assert alone.loss == pytest.approx(value, rel=1e-6)
    assert (alone.object, alone.probe, alone.positions) == (None, None, None)


def refined(engine, scan, **changes):
    """An image refined from a nearly flat one, the epochs that were reported, and the image it began with."""
    plan = replace(CONFIG.refinement, epochs=4, **changes)
    initial, events = flat_image(scan), []
    before = initial.object.copy()
    image = engine.refine(initial, scan, replace(CONFIG, refinement=plan, accelerator="cpu"), progress=events.append)
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
