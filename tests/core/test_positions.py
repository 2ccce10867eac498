"""Positions on the host, and what fits are for: each on a scan that has the fault."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from refinement_scan import CONFIG, N, flat_image, likeness, make_object, make_scan, with_roles

from ptycho_backend_numpy.backend import NumpyBackend
from ptycho_core.api.score import heldout_loss, score
from ptycho_core.config import RefinementConfig
from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.data.raw import RawData
from ptycho_core.data.results import Image, Scored
from ptycho_core.enginekit import state
from ptycho_core.enginekit.positions import FramePositions
from ptycho_core.enginekit.refining import refine_by_steps
from ptycho_core.errors import DataError
from ptycho_core.physics.corrections import affine_step
from ptycho_core.physics.forward import expected_counts
from ptycho_core.physics.patches import extract
from ptycho_core.protocol import StepLengths, no_progress
from ptycho_core.runtime import Runtime

FREE = StepLengths(position_step_px=9.0, position_limit_px=9.0)


@pytest.fixture(scope="module")
def scan() -> PtychoDataContainer:
    return PtychoDataContainer.of(make_scan(), heldout=[3, 20], unused={"shaken": [0, 7]})


def positions_of(scan: PtychoDataContainer, **more: Any) -> FramePositions:
    return FramePositions(scan, scan.raw.positions_px, scan.canvas()[0] - 4, **more)


def refined(scan: PtychoDataContainer, image: Image | None = None, **plan: Any) -> Scored:
    given = RefinementConfig(**{"positions": False, "probe": False, "batch_size": 16, "epochs": 40, **plan})
    config, engine = replace(CONFIG, refinement=given), NumpyBackend()
    found = refine_by_steps(engine, image or flat_image(scan), scan, config, Runtime(threads=1), no_progress)
    return score(found, scan, "numpy", engine)


def test_corners_are_those_of_the_canvas(scan: PtychoDataContainer) -> None:
    frames = np.array([5, 2, 60])
    corners, rest = positions_of(scan).corners(frames)
    whole, wanted = integer_corners(scan.raw.positions_px[frames], N)
    np.testing.assert_array_equal(corners, whole - scan.canvas()[0] + 4)
    np.testing.assert_array_equal(rest, wanted)
    assert (corners.dtype, rest.dtype) == (np.int64, np.float32)


@pytest.mark.spec("BE-25")
def test_steps_are_clipped_and_counted_from_where_positions_were_read(scan: PtychoDataContainer) -> None:
    frames, read = np.array([5, 2, 60]), scan.raw.positions_px
    step = np.array([[0.1, -3.0], [0.4, 0.0], [-0.2, 0.2]])
    moved = positions_of(scan)
    lengths = StepLengths(positions=0.5, position_step_px=0.25, position_limit_px=0.3)
    for _ in range(3):
        moved.move(frames, step, lengths, common=False)
    wanted = np.clip(3 * np.clip(0.5 * step, -0.25, 0.25), -0.3, 0.3)
    np.testing.assert_allclose(moved.positions_px[frames] - read[frames], wanted, atol=1e-12)
    others = np.setdiff1d(np.arange(scan.raw.n_frames), frames)
    np.testing.assert_array_equal(moved.positions_px[others], read[others])
    centred = positions_of(scan)
    centred.move(frames, step, FREE, common=True)
    np.testing.assert_allclose(centred.positions_px[frames] - read[frames], step - step.mean(axis=0), atol=1e-12)


@pytest.mark.spec("BE-25")
def test_what_all_have_in_common_moves_all_without_a_limit(scan: PtychoDataContainer) -> None:
    read, used = scan.raw.positions_px, scan.used_frames
    D, frames = np.array([[0.02, 0.004], [-0.01, 0.03]]), scan.train_frames[::3]
    middle = read[used].mean(axis=0)
    lengths = replace(FREE, position_limit_px=0.05, position_affine=True)
    moved = positions_of(scan)
    moved.move(frames, (read[frames] - middle) @ D.T + 0.7, lengths, common=True)
    np.testing.assert_allclose(moved.linear, D, atol=1e-12)
    np.testing.assert_allclose((moved.positions_px - read)[used], (read[used] - middle) @ D.T, atol=1e-12)
    assert np.abs(moved.positions_px - read)[used].max() > 0.5  # farther than the limit, which counts from there
    assert np.array_equal(moved.positions_px[[0, 7]], read[[0, 7]])  # unused frames stay
    kept = moved.copy()
    again = FramePositions(scan, moved.positions_px, moved.origin_px)  # as another engine would go on from the image
    nothing = np.zeros((len(frames), 2))
    for positions in (moved, again):
        positions.move(frames, nothing, lengths, common=True)
        np.testing.assert_allclose(positions.positions_px, kept[0], atol=1e-9)
    # a step of its own that the limit allows, away from where the frame was read: it counts from where the map puts it
    own = 0.04 * np.sign(kept[0] - read)[frames]
    moved.move(frames, own, replace(lengths, position_affine=False), common=False)
    np.testing.assert_allclose((moved.positions_px - kept[0])[frames], own, atol=1e-12)
    moved.move(frames, np.ones((len(frames), 2)), lengths, common=False)
    assert (moved.positions_px != kept[0]).any()
    moved.restore(kept)
    np.testing.assert_array_equal(moved.arrays()["positions_px"], kept[0])
    np.testing.assert_array_equal(moved.arrays()["position_map"], kept[1])


def test_no_frame_is_moved_beyond_the_canvas(scan: PtychoDataContainer) -> None:
    origin, (height, width) = scan.canvas()
    bounded = FramePositions(scan, scan.raw.positions_px, origin - 4, (height + 8, width + 8))
    rng, frames = np.random.default_rng(0), scan.train_frames
    for affine in (False, True):
        step = rng.normal(0, 50, (len(frames), 2))
        lengths = StepLengths(position_step_px=99.0, position_limit_px=99.0, position_affine=affine)
        bounded.move(frames, step, lengths, common=False)
        corners, _ = bounded.corners(scan.used_frames)
        assert corners.min() >= 0
        assert (corners.max(axis=0) + N <= [height + 8, width + 8]).all()


@pytest.mark.spec("BE-25")
def test_a_stretched_scan_is_put_right() -> None:
    raw = make_scan(calibrated=False)
    true = raw.positions_px
    A = np.array([[1.01, 0.01], [-0.015, 0.985]])
    scan = with_roles(replace(raw, positions_px=true.mean(axis=0) + (true - true.mean(axis=0)) @ A.T))
    plan: dict[str, Any] = {"epochs": 60, "patience": 20, "positions": True, "position_limit_px": 0.5}
    alone, mapped = refined(scan, **plan), refined(scan, position_affine=True, **plan)
    found = affine_step(mapped.image.positions_px - scan.raw.positions_px, scan.raw.positions_px)
    np.testing.assert_allclose(found, np.linalg.inv(A) - np.eye(2), atol=2.5e-3)
    errors = [image.positions_px - true for image in (alone.image, mapped.image)]
    spread = [np.sqrt(np.mean((error - error.mean(axis=0)) ** 2)) for error in errors]
    assert spread[1] < 0.7 * spread[0]
    assert alone.heldout is not None
    assert mapped.heldout is not None
    assert mapped.heldout.deviance < 0.85 * alone.heldout.deviance


@pytest.mark.spec("FM-27")
def test_a_beam_that_fluctuates_is_followed() -> None:
    raw, rng = make_scan(calibrated=False), np.random.default_rng(7)
    beam = 1 + 0.25 * rng.uniform(-1, 1, raw.n_frames)
    counts = rng.poisson(raw.read_counts(np.arange(raw.n_frames)) * beam[:, None, None]).astype(np.float32)
    scan = with_roles(RawData.from_arrays(counts, raw.positions_px, raw.probe))
    steady, followed = refined(scan), refined(scan, frame_scale=True)
    weights = followed.image.mode_weights
    assert weights is not None
    assert steady.image.mode_weights is None
    assert weights[scan.train_frames].mean() == pytest.approx(1.0, rel=1e-5)
    assert np.std(weights[:, 0] / beam * beam.mean()) < 0.015
    assert followed.train.deviance < 0.8 * steady.train.deviance
    assert likeness(followed.image) >= likeness(steady.image)
    # it is gone on with from there
    stepper = NumpyBackend().stepper(followed.image, scan, "poisson", Runtime(threads=1))
    np.testing.assert_allclose(stepper.intensities, weights[:, 0], rtol=1e-6)
    loss = stepper.loss(scan.train_frames)
    plain = NumpyBackend().stepper(replace(followed.image, mode_weights=None), scan, "poisson", Runtime(threads=1))
    assert loss < plain.loss(scan.train_frames)


@pytest.mark.spec("FM-28")
def test_a_support_keeps_junk_out_of_a_probe() -> None:
    """A compact probe, guessed with junk around it: what may not be there need not be found out."""
    raw, rng = make_scan(), np.random.default_rng(3)
    y, x = np.mgrid[:N, :N] - (N - 1) / 2
    r = np.hypot(y, x)
    beam = np.exp(-((y - 1) ** 2 + 1.4 * x**2) / 32 + 0.03j * r**2 + 0.1j * x) * (r < 10)
    junk = (rng.normal(size=(N, N)) + 1j * rng.normal(size=(N, N))) * (r > 11)
    beam, junk = (wave / np.linalg.norm(wave) for wave in (beam, junk))
    corners, rest = integer_corners(raw.positions_px, N)
    rate = expected_counts(extract(make_object(), corners, N), 300 * beam[None], rest)
    probe = (300 * (beam + 0.35 * junk)).astype(np.complex64)
    scan = with_roles(RawData.from_arrays(rng.poisson(rate).astype(np.float32), raw.positions_px, probe))
    plan: dict[str, Any] = {"probe": True, "probe_modes": 1, "epochs": 8}
    free, held = refined(scan, **plan), refined(scan, probe_support=0.7, **plan)
    outside = [
        float(np.sum(np.abs(found.image.probe[0][r > 0.7 * N / 2]) ** 2) / np.sum(np.abs(found.image.probe) ** 2))
        for found in (free, held)
    ]
    assert outside[1] < 1e-12
    assert outside[0] > 0.02
    assert heldout_loss(held, "poisson") < 0.85 * heldout_loss(free, "poisson")
    assert held.train.fourier_error < 0.8 * free.train.fourier_error


@pytest.mark.spec("BE-16")
def test_the_power_of_a_probe_is_kept_or_free() -> None:
    raw = make_scan(calibrated=True)
    probe = 1.3 * raw.probe * np.exp(0.004j * (np.arange(N) - 15.5) ** 2).astype(np.complex64)[:, None]
    scan = with_roles(RawData.from_arrays(raw.read_counts(np.arange(70)), raw.positions_px, probe))
    scan = replace(scan, raw=replace(scan.raw, probe_calibrated=True))
    image = replace(state.flat_image(scan), scale=1.0)
    power = {}
    for word in ("kept", "free"):
        found = refined(scan, image, probe=True, probe_modes=1, probe_power=word).image
        power[word] = float(np.sum(np.abs(found.probe) ** 2) / np.sum(np.abs(probe) ** 2))
    assert power["kept"] == pytest.approx(1.0, rel=1e-4)
    assert abs(power["free"] - 1) > 0.05


def test_an_image_that_steps_cannot_explain_is_refused(scan: PtychoDataContainer) -> None:
    image, M = state.flat_image(scan), scan.raw.n_frames
    weights = np.ones((M, 2), np.float32)
    weights[3, 1] = 0.5
    for changes, words in (
        ({"forward_model": "ptychi"}, "explained by engine 'ptychi' alone"),
        ({"slices": image.object[None], "forward_model": "ptychi"}, "a thick object"),
        ({"probe": np.repeat(image.probe, 2, axis=0), "mode_weights": weights}, "take some modes of its probe more"),
    ):
        with pytest.raises(DataError, match=words):
            state.Start.of(replace(image, **changes), scan)
