"""Images of the pty-chi engine: where they lie, what they honour, and what survives saving and stopping."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ptychi_scans import (
    N,
    config_of,
    container,
    cut_truth,
    image,
    likeness,
    make_object,
    make_scan,
    scored,
    train,
)

import ptycho_core
from ptycho_backend_ptychi import iterations
from ptycho_backend_ptychi.options import ALGORITHMS
from ptycho_core.api.score import score
from ptycho_core.bundle import read_bundle
from ptycho_core.config import InferenceConfig, RefinementConfig, TrainingConfig
from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.data.raw import RawData
from ptycho_core.enginekit.state import coverage_of
from ptycho_core.errors import ArchiveError, BackendError, ConfigError, DataError
from ptycho_core.evaluation.metrics import compare_objects
from ptycho_core.physics.forward import expected_counts
from ptycho_core.physics.likelihood import amplitude_loss
from ptycho_core.physics.patches import extract
from ptycho_core.plugins.capabilities import check_capabilities, check_scan_capabilities
from ptycho_core.plugins.registry import load_backend
from ptycho_core.runtime import Runtime

pytestmark = pytest.mark.ptychi

EPOCHS = {"lsqml": 40, "rpie": 25, "epie": 25, "dm": 50, "raar": 60, "autodiff": 60}


@pytest.fixture(scope="module")
def scan():
    return make_scan(2, bad=True)


@pytest.fixture(scope="module", params=ALGORITHMS)
def solved(request, scan):
    model = train(scan, config_of(request.param, epochs=EPOCHS[request.param]))
    return request.param, model, image(model, scan)


def test_the_object_lies_where_ours_does(solved, scan):
    """Two modes, sub-pixel positions, bad pixels with nonsense in them, nothing square or symmetric."""
    _, model, done = solved
    true = cut_truth(done)
    found = compare_objects(
        done.object, done.origin_px, make_object(), np.zeros(2), coverage=done.coverage, positions_px=scan.positions_px
    )
    assert np.abs(found.shift_px).max() < 0.05
    assert found.correlation > 0.99
    assert likeness(done.object, true) > 0.985
    # neither mirrored, nor transposed, nor conjugated
    assert likeness(done.object, np.conj(true)) < 0.9
    assert likeness(done.object, true[::-1]) < 0.9
    assert likeness(done.object, true[:, ::-1]) < 0.9
    assert scored(done, scan).train.fourier_error < 5e-3
    assert model.history["train_loss"][-1] < 0.2 * model.history["train_loss"][0]


def test_the_scale_is_ours(solved, scan):
    """The probe is calibrated, so the object's modulus is that of the truth, and the probe is what was given."""
    _, model, done = solved
    lit = done.coverage > 0.3 * done.coverage.max()
    assert np.abs(done.object[lit]).mean() == pytest.approx(np.abs(cut_truth(done)[lit]).mean(), rel=0.02)
    np.testing.assert_allclose(model.probe, scan.probe, atol=2e-6 * np.abs(scan.probe).max())
    assert done.scale == 1.0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_uncalibrated_probe_gets_its_scale(scan, algorithm):
    raw = scan.with_probe(scan.probe * 31.0)
    model = train(raw, config_of(algorithm, epochs=12))
    assert model.statistics.scale == pytest.approx(container(raw).statistics.scale)
    done = image(model, raw)
    lit = done.coverage > 0.3 * done.coverage.max()
    found = np.abs(done.object[lit]).mean() * np.sqrt(done.scale) * 31
    assert found == pytest.approx(np.abs(cut_truth(done)[lit]).mean(), rel=0.1)
    np.testing.assert_allclose(model.probe, raw.probe, atol=2e-6 * np.abs(raw.probe).max())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_bad_pixels_do_not_count(algorithm):
    raw = make_scan(1, step=4.5, bad=True)
    hotter = make_scan(1, step=4.5, bad=True)
    values = hotter.frames.values.copy()
    values[:, ~raw.mask] *= 3
    hotter = replace(hotter, frames=replace(hotter.frames, values=values))
    config = config_of(algorithm, probe_trainable=True)
    np.testing.assert_array_equal(train(raw, config).object, train(hotter, config).object)
    unmasked = train(replace(raw, mask=None), config).object
    assert np.abs(unmasked - train(raw, config).object).max() > 1e-3


@pytest.mark.parametrize("algorithm", ["lsqml", "rpie", "epie", "dm", "autodiff"])  # raar runs away, see the record
def test_a_poor_probe_is_refined_when_asked(algorithm):
    raw = make_scan(1)
    poor = raw.with_probe(raw.probe * np.exp(0.03j * np.arange(N) ** 2)[:, None], calibrated=True)
    losses = [
        train(poor, config_of(algorithm, epochs=15, probe_trainable=moved)).history["train_loss"][-1]
        for moved in (False, True)
    ]
    assert losses[1] < 0.6 * losses[0]


def test_held_out_frames_are_watched_and_stop_the_run():
    raw = make_scan(1, noise=True, total=2e3, bad=True)
    held_out = np.arange(3, raw.n_frames, 5)
    model = train(raw, config_of(epochs=60, early_stopping_patience=3), held_out)
    test = model.history["test_loss"]
    assert len(test) == len(model.history["train_loss"]) < 60
    assert len(test) - 1 - int(np.argmin(test)) == 3
    assert test[-1] == pytest.approx(oracle_loss(model, raw, held_out), rel=1e-4)


@pytest.mark.parametrize("algorithm", ["dm", "raar"])
def test_the_loss_of_an_algorithm_without_batches_is_that_of_its_last_state(algorithm):
    raw = make_scan(2, step=4.5, noise=True, total=2e3, bad=True)
    model, frames = train(raw, config_of(algorithm), [4, 9]), np.delete(np.arange(raw.n_frames), [4, 9])
    assert model.history["train_loss"][-1] == pytest.approx(oracle_loss(model, raw, frames), rel=1e-4)


def oracle_loss(model, raw, frames) -> float:
    """The amplitude loss of some frames of a model by the oracle."""
    corners, rest = integer_corners(raw.positions_px[frames], N)
    rate = expected_counts(extract(model.object, corners - model.origin_px, N), model.probe, rest)
    divisor = len(frames) * model.statistics.mean_counts
    return amplitude_loss(rate, raw.read_counts(frames), raw.mask, divisor)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_training_frame_is_learned_from_and_no_other(algorithm, monkeypatch):
    """All of the scan but the held-out and the unused frames, whatever is in those."""
    raw = make_scan(1, step=4.5)
    held_out, unused = [2, 11, 19], [0, 5]
    given = []

    class Task(iterations._Task):
        """Notes the frames that pty-chi is given."""

        def __init__(self, options, **data):
            given.append(data["diffraction_data"])
            super().__init__(options, **data)

    monkeypatch.setattr(iterations, "_Task", Task)

    def model_with(frames):
        values = raw.frames.values.copy()
        values[frames] = 3 * values[frames][:, ::-1, ::-1]
        spoiled = replace(raw, frames=replace(raw.frames, values=values))
        return load_backend("ptychi").train([container(spoiled, held_out, sick=unused)], config_of(algorithm))

    usual, sick, watched = (model_with(frames) for frames in ([], unused, held_out))
    learned = np.setdiff1d(np.arange(raw.n_frames), held_out + unused)
    for counts in given:
        np.testing.assert_array_equal(counts, raw.read_counts(learned))
    np.testing.assert_array_equal(sick.object, usual.object)
    assert sick.history == usual.history
    np.testing.assert_array_equal(watched.object, usual.object)
    assert watched.history["train_loss"] == usual.history["train_loss"]
    assert watched.history["test_loss"][-1] > 2 * usual.history["test_loss"][-1]


def test_the_object_holds_every_used_frame_with_a_pixel_to_spare():
    raw = make_scan(1, step=4.5)
    scan = container(raw, [0], far_off=np.arange(raw.n_frames - 9, raw.n_frames))
    model = load_backend("ptychi").train([scan], config_of(epochs=1))
    origin, (height, width) = scan.canvas()
    assert height < container(raw).canvas()[1][0]
    assert model.object.shape == (height + 2, width + 2)
    np.testing.assert_array_equal(model.origin_px, origin - 1)


@pytest.mark.spec("BE-10")
def test_the_bundle_round_trip_gives_the_same_image(scan, tmp_path):
    model = train(scan, config_of("rpie", {"alpha": 0.2}))
    path = tmp_path / "model.ptycho"
    load_backend("ptychi").save(model, path)
    assert (read_bundle(path).backend, read_bundle(path).generator) == ("ptychi", None)
    loaded = load_backend("ptychi").load(path)
    with pytest.raises(ArchiveError, match=r"'ptychi', a solver.*so engine 'pytorch' cannot use it"):
        ptycho_core.load_model(path, backend="pytorch")
    assert (loaded.config, loaded.history) == (model.config, model.history)
    np.testing.assert_array_equal(image(loaded, scan).object, image(model, scan).object)


def test_progress_tells_each_epoch(scan):
    events = []
    train(scan, config_of(epochs=3), [1, 8], progress=events.append)
    assert [(e.stage, e.done, e.total) for e in events] == [("train", i, 3) for i in (1, 2, 3)]
    assert all({"train_loss", "test_loss", "epoch"} <= set(e.metrics) for e in events)


def test_a_scan_beyond_its_object_is_refused(scan):
    model = train(scan, config_of(epochs=1))
    with pytest.raises(DataError, match="beyond the object that engine 'ptychi' solved"):
        image(model, replace(scan, positions_px=scan.positions_px + 3))


def test_what_it_cannot_do_is_refused(scan):
    engine = load_backend("ptychi")
    for changes, words in [
        ({"scale_trainable": True}, "scale_trainable = True"),
        ({"learning_rate": 0.5}, "learning_rate = 0.5 has no effect"),
        ({"n_groups": 50}, "n_groups = 50 has no effect"),
        ({"method": "network"}, "method = 'network'"),
        ({"inference": InferenceConfig(central_crop_px=8)}, "inference.central_crop_px = 8 has no effect"),
    ]:
        config = replace(TrainingConfig(backend="ptychi"), **changes)
        with pytest.raises(ConfigError, match=f"engine 'ptychi': {words}"):
            check_capabilities(config, engine.capabilities, "ptychi")
    for runtime, words in [
        (Runtime(accelerator="mps"), "accelerator = 'mps'"),
        (Runtime(precision="bf16"), "precision = 'bf16'"),
    ]:
        with pytest.raises(ConfigError, match=f"engine 'ptychi': .*{words}"):
            check_capabilities(TrainingConfig(backend="ptychi"), engine.capabilities, "ptychi", runtime)
    with pytest.raises(ConfigError, match="has no background in its model"):
        check_scan_capabilities(make_scan(background=2.0), engine.capabilities, "ptychi")


def test_a_whole_run_is_the_engine_and_its_scores():
    """Nothing lies between: the one split is handed on, and the image is scored through pty-chi's forward model."""
    raw = make_scan(2, step=4.5, noise=True, total=1e4)
    config = config_of(epochs=6, test_fraction=0.15, refinement=RefinementConfig(epochs=4, positions=True))
    done = ptycho_core.run(raw, config)
    engine, scan = load_backend("ptychi"), done.scan
    assert 0 < len(scan.heldout_frames) < len(scan.train_frames)
    model = engine.train([scan], config)
    first = engine.reconstruct(model, scan.with_probe(model.probe), config.inference)
    better = engine.refine(first, scan, config)
    found = score(better, scan, "ptychi", engine)
    np.testing.assert_array_equal(done.image.object, better.object)
    assert (done.scored.train, done.scored.heldout) == (found.train, found.heldout)


@pytest.mark.filterwarnings("ignore:.*")
def test_a_run_that_diverges_says_so():
    with pytest.raises(BackendError, match=r"algorithm 'epie' diverged in epoch .*smaller object_step"):
        train(make_scan(1), config_of("epie", {"object_step": 60.0, "batch_frames": 40}, epochs=40))


def test_an_image_is_made_of_the_training_frames(scan):
    """On a canvas that held-out frames fit on too."""
    engine, held_out = load_backend("ptychi"), np.arange(6)  # the first row
    roles = container(scan, held_out)
    model = engine.train([roles], config_of(epochs=1))
    done = engine.reconstruct(model, roles, model.config.inference)
    origin, shape = container(scan).canvas()
    assert done.object.shape == shape
    lit_by = coverage_of(scan.positions_px[6:], roles.probe, origin, shape)
    np.testing.assert_allclose(done.coverage, lit_by, rtol=1e-4, atol=1e-6)
    assert not done.object[lit_by == 0].any()


def test_frames_without_counts_are_left_out(scan):
    values = scan.frames.values.copy()
    values[[3, 20]] = 0
    raw = RawData.from_arrays(values, scan.positions_px, scan.probe, probe_calibrated=True, mask=scan.mask)
    kept = PtychoDataContainer.of(raw)
    assert len(kept.train_frames) == raw.n_frames - 2
    out = container(scan, dark=[3, 20])
    for algorithm in ALGORITHMS:
        models = [load_backend("ptychi").train([data], config_of(algorithm)) for data in (kept, out)]
        np.testing.assert_array_equal(models[0].object, models[1].object)


def test_inputs_are_left_as_they_are(scan):
    before = [a.copy() for a in (scan.frames.values, scan.positions_px, scan.probe)]
    model = train(scan, config_of(probe_trainable=True))
    kept = model.object.copy()
    image(model, scan)
    for now, then in zip((scan.frames.values, scan.positions_px, scan.probe), before, strict=True):
        np.testing.assert_array_equal(now, then)
    np.testing.assert_array_equal(model.object, kept)
