"""How a scan is divided for a network, and how predictions become an image, whoever predicts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptycho_core.config import InferenceConfig, ModelConfig, TrainingConfig
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.raw import RawData
from ptycho_core.enginekit import network_inference as inference
from ptycho_core.enginekit.groups import Groups, partition_of
from ptycho_core.enginekit.network_model import NetworkModel
from ptycho_core.enginekit.stitching import probe_weights
from ptycho_core.errors import BackendError, Cancelled
from ptycho_core.runtime import Runtime

CONFIG, RUNTIME = InferenceConfig(), Runtime(frames_at_once=6)


def make_scan(**roles) -> PtychoDataContainer:
    rng = np.random.default_rng(3)
    positions = np.stack([np.arange(11) % 4 * 3.3, np.arange(11) // 4 * 2.6], axis=1) + rng.uniform(-0.4, 0.4, (11, 2))
    probe = rng.normal(size=(2, 16, 16)) + 1j * rng.normal(size=(2, 16, 16))
    raw = RawData.from_arrays(rng.poisson(4.0, (11, 16, 16)), positions, probe)
    return PtychoDataContainer.of(raw, **roles)


@pytest.fixture(scope="module")
def data() -> Groups:
    """11 frames in groups of 4, one of which is filled up."""
    return partition_of(make_scan(), np.arange(11), 4)


class Predictor:
    """Says of each frame its own number, two groups at a time; slots that only fill up say nonsense."""

    def __init__(self, data: Groups, sweeps: int) -> None:
        self.data, self.sweeps, self.canvas = data, sweeps, None

    def scan_estimate(self, on_sweep):
        for sweep in range(self.sweeps):
            on_sweep(sweep)
        return "canvas"

    def predict(self, canvas):
        self.canvas = canvas
        for start in range(0, self.data.n_groups, 2):
            groups = np.arange(start, min(start + 2, self.data.n_groups))
            number = np.where(self.data.counted[groups], self.data.frame_indices[groups], 1e6)
            patches = np.broadcast_to(number[..., None, None], (*number.shape, 16, 16)).astype(np.complex64)
            rest = self.data.subpixel_px[groups]
            weights = probe_weights(self.data.scan.probe, rest.reshape(-1, 2)).reshape(*number.shape, 16, 16)
            yield groups, patches, weights


def test_every_counted_frame_is_merged_once(data):
    events = []
    predictor = Predictor(data, sweeps=3)
    done = inference.stitch_predictions(predictor, data, 2.5, CONFIG, events.append)
    assert predictor.canvas == "canvas"
    assert np.abs(done.object).max() <= 10.001
    assert done.coverage.max() > 0.5
    # the number of a frame at the weighted centre of all that lies there
    corners = np.floor(data.scan.raw.positions_px - 7.5 + 0.5).astype(int)
    corners -= corners.min(axis=0)
    weights = probe_weights(
        data.scan.probe, (data.scan.raw.positions_px - 7.5) - np.floor(data.scan.raw.positions_px - 7.5 + 0.5)
    )
    top, bottom = np.zeros(done.object.shape), np.zeros(done.object.shape)
    for number, (y, x) in enumerate(corners):
        top[y : y + 16, x : x + 16] += number * weights[number]
        bottom[y : y + 16, x : x + 16] += weights[number]
    np.testing.assert_allclose(done.object.real, top / np.where(bottom > 0, bottom, 1), atol=1e-3)
    assert [event.done for event in events] == [11, 22, 33, 41, 44]
    assert {(event.stage, event.total) for event in events} == {("reconstruct", 44)}
    assert dict(done.stats) == {"dropped_non_finite_patches": 0}
    assert done.scale == 2.5
    assert done.positions_px.shape == (11, 2)


def test_the_canvas_holds_frames_that_are_held_out_too(data):
    """What is predicted is merged where it belongs, on the canvas of every used frame."""
    scan = make_scan(heldout=[0, 10], unused={"tired": [3]})
    groups = partition_of(scan, scan.train_frames, 4)
    some = inference.stitch_predictions(Predictor(groups, 0), groups, 1.0, CONFIG, lambda event: None)
    every = inference.stitch_predictions(Predictor(data, 0), data, 1.0, CONFIG, lambda event: None)
    origin, shape = scan.canvas()
    assert (some.origin_px.tolist(), some.object.shape) == (origin.tolist(), shape)
    corner = (some.origin_px - every.origin_px).astype(int)
    inside = every.coverage[corner[0] : corner[0] + shape[0], corner[1] : corner[1] + shape[1]]
    assert (some.coverage <= inside + 1e-6).all()
    assert (some.coverage[:3, :3] == 0).any()
    assert (some.object[some.coverage == 0] == 0).all()


def test_it_can_be_cancelled_between_two_batches(data):
    def stop(event):
        raise Cancelled("enough")

    with pytest.raises(Cancelled, match="enough"):
        inference.stitch_predictions(Predictor(data, sweeps=0), data, 1.0, CONFIG, stop)


def test_a_patch_that_is_not_finite_is_an_error(data):
    class Broken(Predictor):
        def predict(self, canvas):
            for groups, patches, weights in super().predict(canvas):
                patches = patches.copy()
                patches[0, 0, 3, 4] = np.nan
                yield groups, patches, weights

    with pytest.raises(BackendError, match="2 of 11 predicted patches hold NaN"):
        inference.stitch_predictions(Broken(data, 0), data, 1.0, CONFIG, lambda event: None)


def test_a_step_takes_the_frames_asked_for_or_what_fits(data, monkeypatch):
    one = 4 * 16 * 16 * (40 * 8 + 80 * 2)  # frames of a group, pixels, channels, modes
    assert inference.groups_at_once(data, replace(RUNTIME, frames_at_once=11), 8) == 2
    assert inference.groups_at_once(data, replace(RUNTIME, frames_at_once=3), 8) == 1
    huge = replace(RUNTIME, frames_at_once=10**9)
    assert inference.groups_at_once(data, huge, 8) == inference.BYTES_AT_ONCE // one
    for allowed, wanted in ((3 * one, 3), (2 * one - 1, 1), (1, 1)):
        monkeypatch.setattr(inference, "BYTES_AT_ONCE", allowed)
        assert inference.groups_at_once(data, huge, 8) == wanted


def test_what_is_kept_grows_with_slots_and_modes(data):
    assert inference.bytes_kept(data) == 12 * 16 * 16 * (28 + 32)
    assert inference.BYTES_AT_ONCE + inference.BYTES_KEPT <= 800 * 2**20


@pytest.mark.spec("BE-4")
@pytest.mark.parametrize("generator", ["probe_unet", "unrolled", "cnn"])
def test_training_frames_are_laid_out_once_each_and_one_by_one_where_any_group_will_do(generator):
    scan = make_scan(heldout=[2, 9], unused={"tired": [5]})
    config = TrainingConfig(model=ModelConfig(generator=generator), group_size=3)
    model = NetworkModel(
        backend="any", config=config, weights={}, statistics=scan.statistics, scale=1.0, probe=scan.probe, history={}
    )
    laid_out = inference.laid_out_for(model, scan)
    assert laid_out.scan is scan
    assert laid_out.frame_indices.shape == ((3, 3) if generator == "cnn" else (8, 1))
    assert sorted(laid_out.frame_indices[laid_out.counted]) == [0, 1, 3, 4, 6, 7, 8, 10]
    assert set(laid_out.frame_indices.flat) == {0, 1, 3, 4, 6, 7, 8, 10}
