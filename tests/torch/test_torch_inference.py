"""Applying a trained model: every frame once, in bounded memory, with the scan's own probe and intensity."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_torch_tracking import run
from torch_scans import CONFIG, EXACT, make_scan, train, vary

from ptycho_backend_torch import inference
from ptycho_backend_torch.backend import TorchBackend
from ptycho_core import api
from ptycho_core.bundle import Bundle, read_bundle, write_bundle
from ptycho_core.config import InferenceConfig, TrainingConfig
from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.data.raw import RawData
from ptycho_core.errors import ArchiveError, Cancelled, ConfigError
from ptycho_core.physics.forward import fourier_shift
from ptycho_core.physics.patches import accumulate, extract, merge
from ptycho_core.physics.solver import RELAXATION, solver_update
from ptycho_core.stitching import probe_weights

pytestmark = pytest.mark.torch

ENGINE = TorchBackend()


@pytest.fixture(scope="module")
def scan():
    """17 frames, which no group size but 1 divides."""
    return make_scan(rows=3, columns=6, n_modes=2, bad=True, background=0.5).subset(np.arange(17))


@pytest.fixture(scope="module")
def model(scan):
    return train(scan, vary(epochs=2, learning_rate=3e-3, scale_trainable=True, probe_trainable=True))


@pytest.fixture(scope="module")
def network(scan):
    """A model without a solver before it, so that rounding is not multiplied."""
    return train(scan, vary(epochs=2, learning_rate=3e-3, model={"sweeps": 0}))


def lay_out(raw: RawData, group_size: int = 4) -> PtychoDataContainer:
    return PtychoDataContainer.for_reconstruction(raw, group_size)


@pytest.fixture
def batches(monkeypatch):
    """Frames that the generator is given at a time."""
    seen = []
    real = inference.ScanPredictor.predict

    def predict(self, canvas):
        for groups, patches, weights in real(self, canvas):
            seen.append(patches.shape[0] * patches.shape[1])
            yield groups, patches, weights

    monkeypatch.setattr(inference.ScanPredictor, "predict", predict)
    return seen


@pytest.mark.spec("BE-4", "DATA-10")
def test_every_frame_counts_once(scan, network):
    """The coverage is the sum of every frame's weight, no more and no less."""
    corners, rest = integer_corners(scan.positions_px, 16)
    origin = corners.min(axis=0)
    shape = tuple(int(n) for n in corners.max(axis=0) - origin + 16)
    wanted = accumulate(probe_weights(scan.probe, rest), corners - origin, shape)
    wanted = wanted / np.sum(np.abs(scan.probe) ** 2, axis=0).max()
    for group_size in (1, 4, 16, 17):
        groups = lay_out(scan, group_size)
        events = []
        result = ENGINE.reconstruct(network, groups, EXACT, progress=events.append)
        np.testing.assert_allclose(result.coverage, wanted, atol=1e-5)
        np.testing.assert_array_equal(result.origin_px, origin)
        assert events[-1].done == events[-1].total == 17
        assert all(event.stage == "reconstruct" for event in events)
        assert len(result.frame_misfit) == 17


@pytest.mark.spec("FM-16")
@pytest.mark.parametrize("group_size", [1, 4])
def test_sweeps_over_a_scan_are_the_oracle_s(group_size, network):
    """Each frame counts once, also where slots of a group only fill it up; a background keeps dark pixels tame."""
    scan = make_scan(rows=3, columns=6, n_modes=2, bad=True, background=5.0).subset(np.arange(17))
    groups = lay_out(scan, group_size)
    assert groups.counted.all() == (group_size == 1)
    corners, rest = integer_corners(scan.positions_px, 16)
    corners = corners - corners.min(axis=0)
    shifted = fourier_shift(scan.probe[None], rest[:, None])
    weights, counts = np.sum(np.abs(shifted) ** 2, axis=1), scan.read_counts(np.arange(17))
    canvas = np.ones(tuple(corners.max(axis=0) + 16), complex)
    solved = copy.copy(network.generator)
    solved.sweeps = 3
    predictor = inference.ScanPredictor(solved, groups, groups.statistics.scale, EXACT, 4)
    seen = []
    with torch.inference_mode():
        found = predictor.scan_estimate(seen.append).numpy().reshape(canvas.shape)
    for _ in range(3):
        patches = extract(canvas, corners, 16)
        update = solver_update(patches, shifted, counts, scan.mask, scan.background, groups.statistics.scale)
        canvas = merge(patches + RELAXATION * update, weights, corners, canvas.shape)
    np.testing.assert_allclose(found, canvas, atol=2e-3)
    assert seen == [0, 1, 2]


def test_groups_do_not_matter_to_a_network_that_sees_frames(scan, network):
    images = [ENGINE.reconstruct(network, lay_out(scan, C), EXACT).object for C in (1, 4, 17)]
    for image in images[1:]:
        np.testing.assert_allclose(image, images[0], atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 4, 9, 1000])
def test_batch_size_changes_memory_and_not_the_answer(scan, model, network, batches, batch_size):
    config = replace(EXACT, batch_size=batch_size)
    for trained, tolerance in ((network, 1e-5), (model, 2e-2)):
        image = ENGINE.reconstruct(trained, lay_out(scan), EXACT).object
        batches.clear()
        other = ENGINE.reconstruct(trained, lay_out(scan), config).object
        assert max(batches) == min(batch_size, 17)
        np.testing.assert_allclose(other, image, atol=tolerance * np.abs(image).max())


def test_memory_is_bounded_whatever_is_asked_for(scan, network, batches, monkeypatch):
    groups = lay_out(scan)
    one = 4 * 16 * 16 * (40 * 4 + 80 * 2)  # frames of a group, pixels, width 4, two modes
    huge = replace(EXACT, batch_size=10**6)
    assert inference.groups_at_once(groups, huge, 4) == inference._BYTES // one
    for allowed, wanted in ((2 * one, 8), (one + 1, 4), (1, 1)):
        batches.clear()
        monkeypatch.setattr(inference, "_BYTES", allowed)
        ENGINE.reconstruct(network, groups, huge)
        assert max(batches) == wanted
    monkeypatch.undo()
    assert inference._BYTES + inference._BYTES_KEPT <= 800 * 2**20


def test_what_is_kept_between_sweeps_does_not_change_the_answer(scan, model, monkeypatch):
    kept = ENGINE.reconstruct(model, lay_out(scan), EXACT).object
    monkeypatch.setattr(inference, "_BYTES_KEPT", 0)
    np.testing.assert_array_equal(ENGINE.reconstruct(model, lay_out(scan), EXACT).object, kept)


def test_large_scans_are_read_again_in_each_sweep(scan, model, monkeypatch):
    monkeypatch.setattr(inference, "_BYTES_KEPT", 0)
    reads = []
    real = RawData.read_counts
    monkeypatch.setattr(RawData, "read_counts", lambda self, n: (reads.append(np.size(n)), real(self, n))[1])
    ENGINE.reconstruct(model, lay_out(scan), replace(EXACT, batch_size=4))
    assert max(reads[:-1]) == 4  # the last read scores the object


def test_progress_counts_sweeps_and_can_stop(scan, model):
    events = []
    ENGINE.reconstruct(model, lay_out(scan), EXACT, progress=events.append)
    total = 17 * (CONFIG.model.sweeps + 1)
    assert [event.done for event in events] == sorted(event.done for event in events)
    assert events[-1].done == total == events[0].total

    def stop(event):
        raise Cancelled("enough")

    with pytest.raises(Cancelled, match="enough"):
        ENGINE.reconstruct(model, lay_out(scan), EXACT, progress=stop)


def test_patches_before_the_merge(scan, model, network):
    groups = lay_out(scan)
    for trained in (model, network):
        patches = ENGINE.predict_patches(trained, groups)
        assert (patches.shape, patches.dtype) == ((5, 4, 16, 16), np.complex64)
        assert isinstance(patches, np.ndarray)
    result = ENGINE.reconstruct(network, groups, EXACT)
    where = groups.counted
    corners = (groups.corners_px + groups.canvas_origin_px[:, None])[where] - result.origin_px.astype(np.int64)
    weights = probe_weights(groups.probe, groups.subpixel_px[where])
    np.testing.assert_allclose(merge(patches[where], weights, corners, result.object.shape), result.object, atol=1e-4)


def test_patches_follow_the_model_s_own_inference_settings(scan, network):
    groups = lay_out(scan)
    plain = ENGINE.predict_patches(network, groups)
    small = replace(network, config=vary(network.config, inference={"batch_size": 4}))
    np.testing.assert_allclose(ENGINE.predict_patches(small, groups), plain, atol=1e-5)
    coarse = replace(network, config=vary(network.config, inference={"precision": "bf16"}))
    assert not np.array_equal(ENGINE.predict_patches(coarse, groups), plain)


def test_central_crop(scan, network):
    whole = ENGINE.reconstruct(network, lay_out(scan), EXACT)
    cropped = ENGINE.reconstruct(network, lay_out(scan), replace(EXACT, central_crop_px=6))
    assert cropped.object.shape == whole.object.shape
    assert 0 < (cropped.coverage > 0).sum() < (whole.coverage > 0).sum()
    assert (cropped.object[cropped.coverage == 0] == 0).all()


def test_another_scan_brings_its_own_probe(scan, network):
    other = make_scan(rows=2, columns=3, n_modes=1, seed=6)
    other = other.with_probe(1.3 * np.roll(other.probe, 1, axis=2) * np.exp(0.4j))
    result = ENGINE.reconstruct(network, lay_out(other), EXACT)
    np.testing.assert_array_equal(result.probe, other.probe)
    assert result.positions_px.shape == (6, 2)
    own = ENGINE.reconstruct(network, lay_out(other.with_probe(network.probe)), EXACT)
    assert own.r_factor > result.r_factor or not np.allclose(own.object, result.object, atol=1e-2)


def test_an_object_means_the_same_at_any_exposure(network):
    """Four times the counts, four times the scale, the same object; what training changed of the scale stays."""
    dark = make_scan(rows=3, columns=6, bad=True)
    bright = RawData.from_arrays(4 * dark.frames.read(np.arange(18)), dark.positions_px, dark.probe, mask=dark.mask)
    one, other = (ENGINE.reconstruct(network, lay_out(raw), EXACT) for raw in (dark, bright))
    np.testing.assert_allclose(other.object, one.object, atol=2e-2 * np.abs(one.object).max())
    assert other.scale == pytest.approx(4 * one.scale, rel=1e-3)
    assert other.r_factor == pytest.approx(one.r_factor, rel=2e-2)
    solver = copy.deepcopy(network.generator)
    solver.sweeps = 24
    torch.nn.init.zeros_(solver.head.weight)
    torch.nn.init.zeros_(solver.head.bias)
    quiet = replace(network, generator=solver)
    one, moved = (
        ENGINE.reconstruct(replace(quiet, scale=factor * network.scale), lay_out(dark), EXACT) for factor in (1, 1.44)
    )
    lit = one.coverage > 0.5
    assert np.median(np.abs(moved.object[lit]) / np.abs(one.object[lit])) == pytest.approx(1 / 1.2, abs=0.01)


def test_trained_scale_and_probe_are_used_for_the_same_scan(scan, model):
    result = api.reconstruct(model, scan, EXACT, same_scan=True)
    np.testing.assert_array_equal(result.probe, model.probe)
    other = api.reconstruct(model, scan, EXACT)
    np.testing.assert_array_equal(other.probe, scan.probe)
    assert not np.array_equal(result.object, other.object)


def test_result_is_plain(scan, model):
    result = ENGINE.reconstruct(model, lay_out(scan), EXACT)
    for name, dtype in (
        ("object", np.complex64), ("coverage", np.float32), ("origin_px", np.float64), ("probe", np.complex64),
        ("positions_px", np.float64), ("frame_misfit", np.float64), ("frame_totals", np.float64),
    ):  # fmt: skip
        value = getattr(result, name)
        assert type(value) is np.ndarray, name
        assert value.dtype == dtype, name
    assert type(result.scale) is float
    assert type(result.r_factor) is float
    assert result.dropped == {"frames_without_counts": 0, "masked_pixels": 3, "non_finite_patches": 0}
    assert all(p.device.type == "cpu" and not p.requires_grad for p in model.generator.parameters())


def test_reconstructing_changes_nothing_given(scan, model):
    groups = lay_out(scan)
    before = [model.probe.copy(), groups.probe.copy(), groups.subpixel_px.copy(), scan.mask.copy()]
    weights = {name: value.clone() for name, value in model.generator.state_dict().items()}
    state = torch.get_rng_state()
    one = ENGINE.reconstruct(model, groups, EXACT)
    two = ENGINE.reconstruct(model, groups, EXACT)
    np.testing.assert_array_equal(one.object, two.object)
    for a, b in zip(before, [model.probe, groups.probe, groups.subpixel_px, scan.mask], strict=True):
        np.testing.assert_array_equal(a, b)
    for name, value in model.generator.state_dict().items():
        assert torch.equal(value, weights[name])
    assert torch.equal(torch.get_rng_state(), state)


def test_bf16_is_close_to_single_precision(scan, network):
    one, coarse = (
        ENGINE.reconstruct(network, lay_out(scan), replace(EXACT, precision=p)).object for p in ("32", "bf16")
    )
    assert not np.array_equal(one, coarse)
    assert np.abs(one - coarse).max() < 0.02 * np.abs(one).max()


@pytest.mark.parametrize("accelerator", ["cuda", "mps"])
def test_an_accelerator_that_is_not_there(scan, network, accelerator):
    from ptycho_backend_torch.hardware import choose_device

    try:
        choose_device(accelerator)
    except ConfigError:
        with pytest.raises(ConfigError, match=rf"accelerator = '{accelerator}' is not available .*available: cpu"):
            ENGINE.reconstruct(network, lay_out(scan), replace(EXACT, accelerator=accelerator))
    else:
        pytest.skip(f"{accelerator} is here")


def test_cnn_is_tied_to_its_group_and_side():
    config = vary(model={"generator": "cnn", "width": 2}, group_size=2, epochs=1)
    scan = make_scan(64, 2, 2)
    model = train(scan, config)
    result = ENGINE.reconstruct(model, lay_out(scan, 2), EXACT)
    assert np.isfinite(result.object).all()
    with pytest.raises(ConfigError, match="trained with group_size = 2 and was given groups of 4"):
        ENGINE.reconstruct(model, lay_out(scan, 4), EXACT)
    for ask in (lambda d: ENGINE.reconstruct(model, d, EXACT), lambda d: ENGINE.predict_patches(model, d)):
        with pytest.raises(ConfigError, match=r"trained on frames of 64×64; this scan has 16"):
            ask(lay_out(make_scan(rows=2, columns=2), 2))


def test_probe_unet_takes_another_side(network):
    other = make_scan(32, 2, 2, seed=3)
    assert np.isfinite(ENGINE.reconstruct(network, lay_out(other), EXACT).object).all()


def test_a_side_that_the_depth_does_not_divide():
    model = train(make_scan(32, 2, 2), vary(model={"depth": 5}, epochs=1))
    odd = make_scan(16, 2, 2)
    with pytest.raises(ConfigError, match=r"depth = 5 halves .* N = 16 is not a multiple of 32"):
        ENGINE.reconstruct(model, lay_out(odd), EXACT)


@pytest.mark.spec("BE-10")
def test_saved_and_loaded_in_a_fresh_process(scan, model, tmp_path):
    ENGINE.save(model, tmp_path / "model.ptycho")
    loaded = ENGINE.load(tmp_path / "model.ptycho")
    assert loaded.config == model.config
    assert loaded.history == model.history
    assert loaded.scale == model.scale
    assert loaded.statistics == model.statistics
    assert (loaded.backend, loaded.checkpoint_path) == ("pytorch", None)
    np.testing.assert_array_equal(loaded.probe, model.probe)
    here = ENGINE.reconstruct(model, lay_out(scan), EXACT).object
    np.testing.assert_array_equal(ENGINE.reconstruct(loaded, lay_out(scan), EXACT).object, here)
    run(
        tmp_path,
        """
from ptycho_core import api
scan = make_scan(rows=3, columns=6, n_modes=2, bad=True, background=0.5).subset(np.arange(17))
result = TorchBackend().reconstruct(
    api.load_model("model.ptycho"), PtychoDataContainer.for_reconstruction(scan, 4), EXACT
)
np.save("there.npy", result.object)
""",
    )
    np.testing.assert_allclose(np.load(tmp_path / "there.npy"), here, atol=1e-3 * np.abs(here).max())


def test_weights_of_a_bundle_have_the_shared_names(model, tmp_path):
    from ptycho_core.networks.architectures import generator_shapes

    ENGINE.save(model, tmp_path / "model.ptycho")
    bundle = read_bundle(tmp_path / "model.ptycho", expected_weights=generator_shapes)
    assert (bundle.backend, bundle.generator, bundle.side) == ("pytorch", "probe_unet", 16)
    for name, value in model.generator.state_dict().items():
        np.testing.assert_array_equal(bundle.weights[name], value.numpy())
    assert json.dumps(bundle.provenance)


def test_a_solver_s_bundle_names_both_engines(model, tmp_path):
    config = replace(model.config, backend="ptychi")
    write_bundle(
        tmp_path / "model.ptycho",
        Bundle(
            backend="ptychi", generator=None, side=16, config=config, statistics=model.statistics, scale=1.0,
            weights={"object": np.zeros((4, 4), np.float32)}, probe=model.probe, history={}, provenance={},
        ),
    )  # fmt: skip
    with pytest.raises(ArchiveError, match=r"model\.ptycho: .*'ptychi'.*'pytorch'"):
        ENGINE.load(tmp_path / "model.ptycho")


def test_a_bundle_of_another_engine_with_this_generator_is_loaded(model, tmp_path):
    ENGINE.save(model, tmp_path / "own.ptycho")
    bundle = read_bundle(tmp_path / "own.ptycho")
    foreign = replace(bundle, backend="tensorflow", config=replace(bundle.config, backend="tensorflow"))
    write_bundle(tmp_path / "foreign.ptycho", foreign)
    loaded = ENGINE.load(tmp_path / "foreign.ptycho")
    for name, value in model.generator.state_dict().items():
        assert torch.equal(loaded.generator.state_dict()[name], value)


def test_defaults_need_no_special_hardware(scan, network):
    result = ENGINE.reconstruct(network, lay_out(scan), InferenceConfig())
    assert np.isfinite(result.object).all()
    assert TrainingConfig().accelerator == "auto"
