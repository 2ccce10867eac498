"""Applying a trained model: every frame once, in bounded memory, with the scan's own probe and intensity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from engine_scans import (
    CONFIG,
    EXACT,
    error_of,
    exact,
    image_of,
    lay_out,
    make_scan,
    patches_of,
    shaken,
    train,
    untrained,
    vary,
    without_network,
)
from frameworks import framework_of

from ptycho_core.config import InferenceConfig
from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.data.raw import RawData
from ptycho_core.enginekit import network_inference as inference
from ptycho_core.enginekit.groups import Groups
from ptycho_core.enginekit.stitching import probe_weights
from ptycho_core.errors import Cancelled, ConfigError
from ptycho_core.physics.forward import fourier_shift
from ptycho_core.physics.patches import accumulate, extract, merge
from ptycho_core.physics.sweep import RELAXATION, solver_update
from ptycho_core.runtime import Runtime


@pytest.fixture(scope="module")
def scan():
    """17 frames, which no group size but 1 divides."""
    return make_scan(rows=3, columns=6, n_modes=2, bad=True, background=0.5).subset(np.arange(17))


@pytest.fixture(scope="module")
def model(engine, scan):
    config = vary(epochs=1, learning_rate=3e-3, scale_trainable=True, probe_trainable=True)
    return train(engine, scan, config)


@pytest.fixture(scope="module")
def network(engine, scan):
    """A model without a solver before it, so that rounding is not multiplied."""
    return shaken(untrained(engine, scan, vary(model={"sweeps": 0})), size=0.05)


@pytest.fixture
def batches(monkeypatch):
    """Frames that the engine asks for at a time."""
    seen = []
    real = Groups.read_counts

    def read(self, groups):
        counts = real(self, groups)
        seen.append(counts.size // counts.shape[-1] ** 2)
        return counts

    monkeypatch.setattr(Groups, "read_counts", read)
    return seen


@pytest.mark.spec("BE-4", "DATA-10")
def test_every_frame_counts_once(engine, scan, network):
    """The coverage is the sum of every frame's weight, no more and no less."""
    corners, rest = integer_corners(scan.positions_px, 16)
    origin = corners.min(axis=0)
    shape = tuple(int(n) for n in corners.max(axis=0) - origin + 16)
    wanted = accumulate(probe_weights(scan.probe, rest), corners - origin, shape)
    wanted = wanted / np.sum(np.abs(scan.probe) ** 2, axis=0).max()
    for batch_size in (1, 5, 64):
        events = []
        data = PtychoDataContainer.of(scan)
        result = engine.reconstruct(network, data, *exact(frames_at_once=batch_size), progress=events.append)
        np.testing.assert_allclose(result.coverage, wanted, atol=1e-5)
        np.testing.assert_array_equal(result.origin_px, origin)
        assert events[-1].done == events[-1].total == 17
        assert all(event.stage == "reconstruct" for event in events)


@pytest.mark.spec("BE-4")
@pytest.mark.parametrize("generator", ["probe_unet", "unrolled", "cnn"])
def test_an_image_is_made_of_training_frames_on_the_canvas_of_all_used_ones(engine, generator):
    """Neither held-out nor unused frames are looked at; the latter do not even widen the canvas."""
    N = 64 if generator == "cnn" else 16
    scan = make_scan(N, 3, 4, n_modes=2)
    counts = scan.read_counts(np.arange(12)).copy()
    counts[[0, 3, 8]] = counts[[0, 3, 8]][:, ::-1] * 3 + 1
    poisoned = RawData.from_arrays(counts, scan.positions_px, scan.probe)
    config = vary(model={"generator": generator, "width": 2})
    model = shaken(untrained(engine, scan, config), size=0.05)
    roles = {"heldout": [0, 8], "unused": {"tired": [3]}, "statistics": model.statistics}
    images = [engine.reconstruct(model, PtychoDataContainer.of(raw, **roles), *EXACT) for raw in (scan, poisoned)]
    np.testing.assert_array_equal(images[0].object, images[1].object)
    corners, rest = integer_corners(scan.positions_px, N)
    train = np.setdiff1d(np.arange(12), [0, 3, 8])
    origin = corners[np.arange(12) != 3].min(axis=0)
    assert images[0].origin_px.tolist() == origin.tolist()
    wanted = accumulate(probe_weights(scan.probe, rest[train]), corners[train] - origin, images[0].object.shape)
    wanted = wanted / np.sum(np.abs(scan.probe) ** 2, axis=0).max()
    np.testing.assert_allclose(images[0].coverage, wanted, atol=1e-5)
    assert images[0].positions_px.shape == (12, 2)


@pytest.mark.spec("FM-16")
@pytest.mark.parametrize("batch_size", [5, 64])
def test_sweeps_over_a_scan_are_the_oracle_s(engine, batch_size):
    """Each frame counts once, also where a batch is only filled up; a background keeps dark pixels tame."""
    scan = make_scan(rows=3, columns=6, n_modes=2, bad=True, background=5.0).subset(np.arange(17))
    data = PtychoDataContainer.of(scan)
    corners, rest = integer_corners(scan.positions_px, 16)
    corners = corners - corners.min(axis=0)
    shifted = fourier_shift(scan.probe[None], rest[:, None])
    weights, counts = np.sum(np.abs(shifted) ** 2, axis=1), scan.read_counts(np.arange(17))
    canvas = np.ones(tuple(corners.max(axis=0) + 16), complex)
    for _ in range(4):  # three sweeps, and the update under the network
        patches = extract(canvas, corners, 16)
        update = solver_update(patches, shifted, counts, scan.mask, scan.background, data.statistics.scale)
        canvas = merge(patches + RELAXATION * update, weights, corners, canvas.shape)
    events = []
    model = without_network(untrained(engine, scan), 3)
    found = engine.reconstruct(model, data, *exact(frames_at_once=batch_size), progress=events.append)
    np.testing.assert_allclose(found.object, canvas, atol=2e-3)
    assert [event.done for event in events[:3]] == [17, 34, 51]
    assert events[-1].done == events[-1].total == 68


@pytest.mark.parametrize("batch_size", [1, 9, 1000])
def test_batch_size_changes_memory_and_not_the_answer(engine, scan, model, network, batches, batch_size):
    for trained, tolerance in ((network, 1e-5), (model, 2e-2)):
        image = image_of(engine, trained, scan).object
        batches.clear()
        other = image_of(engine, trained, scan, frames_at_once=batch_size).object
        assert max(batches) == min(batch_size, 17)
        np.testing.assert_allclose(other, image, atol=tolerance * np.abs(image).max())


def test_memory_is_bounded_whatever_is_asked_for(engine, scan, network, batches, monkeypatch):
    one = 16 * 16 * (40 * 4 + 80 * 2)  # pixels of a frame, width 4, two modes
    for allowed, wanted in ((8 * one, 8), (5 * one + 1, 5), (1, 1)):
        batches.clear()
        monkeypatch.setattr(inference, "BYTES_AT_ONCE", allowed)
        image_of(engine, network, scan, frames_at_once=10**6)
        assert max(batches) == wanted


def test_what_is_kept_between_sweeps_does_not_change_the_answer(engine, scan, model, batches, monkeypatch):
    """A large scan is read again in each sweep, a small one once."""
    kept = image_of(engine, model, scan, frames_at_once=4).object
    assert sum(batches) < 2 * 17
    batches.clear()
    monkeypatch.setattr(inference, "BYTES_KEPT", 0)
    np.testing.assert_array_equal(image_of(engine, model, scan, frames_at_once=4).object, kept)
    assert max(batches) == 4
    assert sum(batches) >= 17 * (CONFIG.network.sizes.sweeps + 1)


def test_progress_counts_sweeps_and_can_stop(engine, scan, model):
    events = []
    engine.reconstruct(model, PtychoDataContainer.of(scan), *EXACT, progress=events.append)
    total = 17 * (CONFIG.network.sizes.sweeps + 1)
    assert [event.done for event in events] == sorted(event.done for event in events)
    assert events[-1].done == total == events[0].total

    def stop(event):
        raise Cancelled("enough")

    with pytest.raises(Cancelled, match="enough"):
        engine.reconstruct(model, PtychoDataContainer.of(scan), *EXACT, progress=stop)


def test_patches_before_the_merge(engine, scan, model, network):
    groups = lay_out(scan)
    for trained in (model, network):
        patches = patches_of(engine, trained, groups)
        assert (patches.shape, patches.dtype) == ((5, 4, 16, 16), np.complex64)
        assert isinstance(patches, np.ndarray)
    result = engine.reconstruct(network, groups.scan, *EXACT)
    where = groups.counted
    corners = (groups.corners_px + groups.canvas_origin_px[:, None])[where] - result.origin_px.astype(np.int64)
    weights = probe_weights(scan.probe, groups.subpixel_px[where])
    np.testing.assert_allclose(merge(patches[where], weights, corners, result.object.shape), result.object, atol=1e-4)


def test_patches_follow_the_model_s_own_inference_settings(engine, scan, network, batches):
    groups = lay_out(scan)
    plain = patches_of(engine, network, groups)
    batches.clear()
    np.testing.assert_allclose(patches_of(engine, network, groups, frames_at_once=8), plain, atol=1e-5)
    assert max(batches) == 8
    assert not np.array_equal(patches_of(engine, network, groups, precision="bf16"), plain)


def test_central_crop(engine, scan, network):
    whole = image_of(engine, network, scan)
    cropped = image_of(engine, network, scan, central_crop_px=6)
    assert cropped.object.shape == whole.object.shape
    assert 0 < (cropped.coverage > 0).sum() < (whole.coverage > 0).sum()
    assert (cropped.object[cropped.coverage == 0] == 0).all()


def test_another_scan_brings_its_own_probe(engine, network):
    other = make_scan(rows=2, columns=3, n_modes=1, seed=6)
    other = other.with_probe(1.3 * np.roll(other.probe, 1, axis=2) * np.exp(0.4j))
    result = image_of(engine, network, other)
    np.testing.assert_array_equal(result.probe, other.probe)
    assert result.positions_px.shape == (6, 2)
    own = image_of(engine, network, other.with_probe(network.probe))
    assert not np.allclose(own.object, result.object, atol=1e-2)


def test_an_object_means_the_same_at_any_exposure(engine, network):
    """Four times the counts, four times the scale, the same object; what training changed of the scale stays."""
    dark = make_scan(rows=3, columns=6, bad=True)
    bright = RawData.from_arrays(4 * dark.frames.read(np.arange(18)), dark.positions_px, dark.probe, mask=dark.mask)
    one, other = (image_of(engine, network, raw) for raw in (dark, bright))
    np.testing.assert_allclose(other.object, one.object, atol=2e-2 * np.abs(one.object).max())
    assert other.scale == pytest.approx(4 * one.scale, rel=1e-3)
    errors = [error_of(engine, raw, image) for raw, image in ((dark, one), (bright, other))]
    assert errors[1] == pytest.approx(errors[0], rel=2e-2)
    solver = without_network(network, 24)
    one, moved = (image_of(engine, replace(solver, scale=factor * solver.scale), dark) for factor in (1, 1.44))
    lit = one.coverage > 0.5
    assert np.median(np.abs(moved.object[lit]) / np.abs(one.object[lit])) == pytest.approx(1 / 1.2, abs=0.01)


def test_the_scale_is_the_scan_s_times_what_training_changed_and_the_probe_the_container_s(engine, scan, model):
    data = PtychoDataContainer.of(scan)
    result = engine.reconstruct(model, data.with_probe(model.probe), *EXACT)
    np.testing.assert_array_equal(result.probe, model.probe)
    assert result.scale == pytest.approx(model.scale, rel=1e-6) != data.statistics.scale
    other = engine.reconstruct(model, data, *EXACT)
    np.testing.assert_array_equal(other.probe, scan.probe)
    assert not np.array_equal(result.object, other.object)


def test_result_is_plain(engine, scan, model):
    result = image_of(engine, model, scan)
    for name, dtype in (
        ("object", np.complex64), ("coverage", np.float32), ("origin_px", np.float64), ("probe", np.complex64),
        ("positions_px", np.float64),
    ):  # fmt: skip
        value = getattr(result, name)
        assert type(value) is np.ndarray, name
        assert value.dtype == dtype, name
    assert type(result.scale) is float
    assert dict(result.stats) == {"dropped_non_finite_patches": 0}


def test_reconstructing_changes_nothing_given(engine, scan, model):
    framework = framework_of(engine)
    data = PtychoDataContainer.of(scan)
    before = [model.probe.copy(), data.probe.copy(), data.role.copy(), scan.mask.copy()]
    weights = {name: value.copy() for name, value in model.weights.items()}
    framework.seed(4)
    drawn = framework.draw()
    framework.seed(4)
    one = engine.reconstruct(model, data, *EXACT)
    assert framework.draw() == drawn
    two = engine.reconstruct(model, data, *EXACT)
    np.testing.assert_array_equal(one.object, two.object)
    for a, b in zip(before, [model.probe, data.probe, data.role, scan.mask], strict=True):
        np.testing.assert_array_equal(a, b)
    for name, value in model.weights.items():
        np.testing.assert_array_equal(value, weights[name])


def test_bf16_is_close_to_single_precision(engine, scan, network):
    one, coarse = (image_of(engine, network, scan, precision=p).object for p in ("32", "bf16"))
    assert not np.array_equal(one, coarse)
    assert np.abs(one - coarse).max() < 0.02 * np.abs(one).max()


def test_cnn_is_tied_to_its_group_and_side(engine):
    config = vary(model={"generator": "cnn", "width": 2}, group_size=2)
    scan = make_scan(64, 2, 2)
    model = untrained(engine, scan, config)
    assert np.isfinite(image_of(engine, model, scan).object).all()
    with pytest.raises(ConfigError, match="trained with group_size = 2 and was given groups of 4"):
        patches_of(engine, model, lay_out(scan, 4))
    small = make_scan(rows=2, columns=2)
    for ask in (lambda: image_of(engine, model, small), lambda: patches_of(engine, model, lay_out(small, 2))):
        with pytest.raises(ConfigError, match=r"trained on frames of 64×64; this scan has 16"):
            ask()


def test_probe_unet_takes_another_side(engine, network):
    assert np.isfinite(image_of(engine, network, make_scan(32, 2, 2, seed=3)).object).all()


def test_a_side_that_the_depth_does_not_divide(engine):
    model = untrained(engine, make_scan(32, 2, 2), vary(model={"depth": 5}))
    with pytest.raises(ConfigError, match=r"depth = 5 halves .* N = 16 is not a multiple of 32"):
        image_of(engine, model, make_scan(16, 2, 2))


def test_defaults_need_no_special_hardware(engine, scan, network):
    assert np.isfinite(engine.reconstruct(network, PtychoDataContainer.of(scan), InferenceConfig()).object).all()
    assert Runtime().accelerator == "auto"
