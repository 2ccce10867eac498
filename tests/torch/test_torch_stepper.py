"""The stepper beside the reference in double precision, its threads, and parts that only this twin of physics has."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from core.stepper_scan import EVERYTHING, LENGTHS, PLAN, hard_scan, start_of

from ptycho_backend_numpy.stepper import NumpyStepper
from ptycho_backend_torch import gradient, physics
from ptycho_backend_torch.stepper import TorchStepper
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.propagation import Propagation
from ptycho_core.enginekit.descent import descend
from ptycho_core.enginekit.state import flat_image, reached
from ptycho_core.runtime import Runtime

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def scan() -> PtychoDataContainer:
    return hard_scan()


def made(kind, scan, loss="poisson", **runtime):
    """A stepper that starts from an object with some structure: a flat one says nothing of positions."""
    return kind(start_of(scan), scan, loss, Runtime(**{"accelerator": "cpu", "threads": 1} | runtime))


def descended(kind, scan, loss="poisson", plan=PLAN, **runtime):
    """A stepper after a descent, and the losses of its epochs."""
    one, losses = made(kind, scan, loss, **runtime), []
    descend(
        one,
        plan,
        frames=scan.train_frames,
        heldout=scan.heldout_frames,
        after_epoch=lambda _, *found: losses.append(found),
    )
    return one, np.array(losses)


def differ(one, two) -> dict[str, float]:
    """Largest differences of two images, the object's and the probe's relative to their largest magnitudes."""
    assert one.object.shape == two.object.shape
    found = {
        "object": np.abs(one.object - two.object).max() / np.abs(two.object).max(),
        "probe": np.abs(one.probe - two.probe).max() / np.abs(two.probe).max(),
        "positions": np.abs(one.positions_px - two.positions_px).max(),
        "scale": abs(one.scale / two.scale - 1),
    }
    if two.mode_weights is not None:
        found["intensities"] = np.abs(one.mode_weights - two.mode_weights).max()
    return found


@pytest.mark.spec("BE-7", "FM-10", "FM-19", "FM-21", "FM-27")
@pytest.mark.parametrize("loss", ["poisson", "amplitude"])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_descent_is_that_of_the_reference(scan, loss, threads):
    (one, losses), (two, wanted) = (
        descended(kind, scan, loss, precision="64", threads=n)
        for kind, n in ((TorchStepper, threads), (NumpyStepper, 1))
    )
    np.testing.assert_allclose(losses, wanted, rtol=1e-9)
    assert np.abs(two.positions.linear).max() > 1e-4  # all that is asked for has happened
    assert np.ptp(two.intensities[scan.train_frames]) > 1e-3
    assert max(differ(one.image(), two.image()).values()) < 1e-6  # an image is in single precision
    for name, array in two.arrays().items():
        np.testing.assert_allclose(one.arrays()[name], array, rtol=1e-7, atol=1e-8 * np.abs(array).max())


@pytest.mark.spec("FM-23")
@pytest.mark.parametrize("wavelength_px", [None, 0.4])
def test_near_field(wavelength_px):
    scan = hard_scan(propagation=Propagation("near_field", 0.11, wavelength_px))
    (one, losses), (two, wanted) = (descended(kind, scan, precision="64") for kind in (TorchStepper, NumpyStepper))
    np.testing.assert_allclose(losses, wanted, rtol=1e-9)
    assert max(differ(one.image(), two.image()).values()) < 1e-6


def test_the_level_of_an_uncalibrated_probe_is_that_of_the_counts():
    """Without bad pixels: with some, the sum of what is expected says nothing of the good ones."""
    scan = hard_scan(mask=None)
    (one, losses), (two, wanted) = (descended(kind, scan, precision="64") for kind in (TorchStepper, NumpyStepper))
    np.testing.assert_allclose(losses, wanted, rtol=1e-9)
    assert one.image().scale == pytest.approx(two.image().scale, rel=1e-9)
    assert abs(two.image().scale / flat_image(scan).scale - 1) > 1e-3


@pytest.mark.spec("BE-25")
def test_a_batch_touches_what_its_frames_reach(scan):
    """Everything beyond their rectangle is made useless, and is neither read nor written."""
    one = made(TorchStepper, scan)
    frames = scan.train_frames[:3]
    corners, _ = one.positions.corners(frames)
    inside = torch.zeros(one.object.shape, dtype=torch.bool)
    low, high = corners.min(axis=0), corners.max(axis=0) + 32
    inside[low[0] : high[0], low[1] : high[1]] = True
    assert not inside.all()
    one.object[~inside] = one.velocity[~inside] = complex("nan")
    assert np.isfinite(float(one.step(frames, LENGTHS, EVERYTHING)))
    for array in (one.object, one.velocity):
        np.testing.assert_array_equal(torch.isfinite(torch.view_as_real(array)).all(dim=-1), inside)
    assert torch.isfinite(torch.view_as_real(one.probe)).all()


def test_threads_are_as_before_and_asked_for_where_they_compute(scan):
    before = torch.get_num_threads()
    one = made(TorchStepper, scan, threads=before + 1)
    assert one.physics.threads.most == before + 1
    one.step(scan.train_frames, LENGTHS, EVERYTHING)
    assert torch.get_num_threads() == before
    assert made(TorchStepper, scan, threads=None).physics.threads.most == before
    with gradient.computing_threads(torch.device("cpu"), before + 2):
        assert torch.get_num_threads() == before + 2
    assert torch.get_num_threads() == before


@pytest.mark.spec("BE-38")
def test_the_number_of_threads_changes_no_bit(scan, monkeypatch):
    monkeypatch.setattr(gradient, "_CHUNK_BYTES", 1)  # a frame each, so that all have something to do
    (one, losses), *others = (descended(TorchStepper, scan, threads=n) for n in (1, 2, 5))
    for other, found in others:
        np.testing.assert_array_equal(found, losses)
        for name, array in one.arrays().items():
            np.testing.assert_array_equal(other.arrays()[name], array)


def test_threads_are_as_before_after_a_failure(scan, monkeypatch):
    before = torch.get_num_threads()
    one = made(TorchStepper, scan, threads=before + 1)
    monkeypatch.setattr(one.physics, "gradient", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        one.step(scan.train_frames, LENGTHS, EVERYTHING)
    assert torch.get_num_threads() == before


def test_parts_that_only_this_twin_has():
    rng = np.random.default_rng(3)
    corners = rng.integers(0, [13, 6], (9, 2))
    found = physics.reached(torch.from_numpy(corners), 16, (29, 22))
    np.testing.assert_array_equal(found.numpy(), reached(corners, 16, (29, 22)))
    patches = torch.complex(*(torch.from_numpy(rng.normal(size=(9, 16, 16))) for _ in range(2)))
    canvas = torch.zeros((33, 30), dtype=torch.complex128)
    physics.add_patches(canvas[2:31, 5:27], patches, torch.from_numpy(corners))
    wanted = physics.accumulate(patches[None], torch.from_numpy(corners)[None], (29, 22))[0]
    torch.testing.assert_close(canvas[2:31, 5:27], wanted)
    assert canvas.count_nonzero() == wanted.count_nonzero()
    cut = physics.extract(canvas[None, 2:31, 5:27], torch.from_numpy(corners)[None], 16)
    torch.testing.assert_close(cut, physics.extract(wanted[None], torch.from_numpy(corners)[None], 16))
    rate, counts = (torch.from_numpy(rng.uniform(0.1, 9, (2, 4, 4))) for _ in range(2))
    mask = torch.from_numpy(rng.random((4, 4)) > 0.4)
    for loss in physics.LOSSES:
        torch.testing.assert_close(
            physics.free_slope(loss, rate, counts, mask), physics.loss_slope(loss, rate, counts, mask)
        )
