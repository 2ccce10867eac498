"""Images of the pty-chi engine: where they lie, what they honour, and what survives saving and stopping."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ptychi_scans import CONFIG, N, config_of, container, cut_truth, image, likeness, make_object, make_scan, train

from ptycho_backend_ptychi.options import ALGORITHMS
from ptycho_core import api
from ptycho_core.bundle import read_bundle
from ptycho_core.config import InferenceConfig
from ptycho_core.errors import ArchiveError, BackendError, Cancelled, ConfigError, DataError
from ptycho_core.metrics import compare_objects
from ptycho_core.plugins.registry import load_backend

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
    assert done.r_factor < 5e-3
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
    raw = make_scan(1, noise=True, total=2e3)
    first, held_out = raw.split(0.2, seed=1)
    model = train(first, config_of(epochs=60, early_stopping_patience=3), held_out)
    test = model.history["test_loss"]
    assert len(test) == len(model.history["train_loss"]) < 60
    assert len(test) - 1 - int(np.argmin(test)) == 3
    # the figure is the oracle's
    from ptycho_core.data.container import integer_corners
    from ptycho_core.physics.forward import expected_counts
    from ptycho_core.physics.likelihood import amplitude_loss
    from ptycho_core.physics.patches import extract

    corners, rest = integer_corners(held_out.positions_px, N)
    rate = expected_counts(extract(model.object, corners - model.origin_px, N), model.probe, rest)
    counts = held_out.read_counts(np.arange(held_out.n_frames))
    divisor = held_out.n_frames * model.statistics.mean_counts
    assert test[-1] == pytest.approx(amplitude_loss(rate, counts, None, divisor), rel=1e-4)


def test_held_out_frames_have_a_mask_of_their_own():
    """Bad pixels of the one scan may be good ones of the other."""
    scan = make_scan(1, noise=True, total=2e3)
    mask = np.ones((N, N), dtype=bool)
    mask[5:12, 4:13] = False
    values = scan.frames.values.copy()
    values[:, ~mask] = 7e4
    first, held_out = scan.split(0.2, seed=1)
    _, spoiled = replace(scan, frames=replace(scan.frames, values=values)).split(0.2, seed=1)
    tests = [replace(held_out, mask=mask), replace(spoiled, mask=mask), held_out]
    masked, hot, open_ = (train(first, config_of(), test).history["test_loss"] for test in tests)
    assert masked == hot
    assert masked[-1] < 0.95 * open_[-1]
    covered = replace(first, mask=mask)
    masked, open_ = (train(covered, config_of(), test).history["test_loss"] for test in (tests[0], held_out))
    assert masked[-1] < 0.95 * open_[-1]


@pytest.mark.spec("BE-10")
def test_the_bundle_round_trip_gives_the_same_image(scan, tmp_path):
    model = train(scan, config_of("rpie", {"alpha": 0.2}))
    path = tmp_path / "model.ptycho"
    load_backend("ptychi").save(model, path)
    assert (read_bundle(path).backend, read_bundle(path).generator) == ("ptychi", None)
    loaded = api.load_model(path)
    assert (loaded.config, loaded.history) == (model.config, model.history)
    np.testing.assert_array_equal(image(loaded, scan).object, image(model, scan).object)
    with pytest.raises(ArchiveError, match=r"'ptychi', a solver.*so engine 'pytorch' cannot use it"):
        api.load_model(path, backend="pytorch")


@pytest.mark.spec("BE-8")
@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        *((algorithm, {}) for algorithm in ALGORITHMS),
        ("rpie", {"momentum": 0.2, "alpha": 0.5}),
        ("lsqml", {"batching": "compact", "momentum": 0.5, "batch_frames": 12}),
        ("lsqml", {"batching": "uniform", "batch_frames": 12}),
    ],
)
def test_a_cancelled_run_resumes_to_the_same_result(algorithm, options, tmp_path):
    raw = make_scan(2, step=4.5, noise=True)
    loss = "poisson" if algorithm == "lsqml" else "amplitude"
    config = config_of(algorithm, options, epochs=6, probe_trainable=algorithm != "raar", loss=loss)
    whole = train(raw, config)

    def stop(event):
        if event.done == 4:
            raise Cancelled

    with pytest.raises(Cancelled) as caught:
        train(raw, replace(config, output_dir=tmp_path), progress=stop)
    checkpoint = tmp_path / "model.ptycho"
    assert caught.value.checkpoint_path == str(checkpoint)
    assert len(api.load_model(checkpoint).history["train_loss"]) == 4
    rows = (tmp_path / "history.csv").read_text().splitlines()
    assert (rows[0], len(rows)) == ("epoch,train_loss", 5)
    again = train(raw, replace(config, resume_from=checkpoint))
    assert len(again.history["train_loss"]) == 6
    np.testing.assert_allclose(again.object, whole.object, atol=2e-4)
    np.testing.assert_allclose(again.history["train_loss"], whole.history["train_loss"], rtol=1e-3)


def test_a_checkpoint_of_something_else_is_refused(scan, tmp_path):
    train(scan, config_of(output_dir=tmp_path, epochs=1))
    checkpoint = tmp_path / "model.ptycho"
    with pytest.raises(ArchiveError, match="resume with the same options"):
        train(scan, config_of("rpie", resume_from=checkpoint))
    with pytest.raises(ArchiveError, match="resume with the scan it was made from"):
        train(scan.subset(range(10)), config_of(resume_from=checkpoint))
    held_out = scan.subset(range(5))
    with pytest.raises(ArchiveError, match="its history is train_loss, that of this run train_loss, test_loss"):
        train(scan, config_of(resume_from=checkpoint), held_out)
    train(scan, config_of(output_dir=tmp_path, epochs=1), held_out)
    assert (tmp_path / "history.csv").read_text().startswith("epoch,train_loss,test_loss\n1,")
    with pytest.raises(ArchiveError, match="its history is test_loss, train_loss, that of this run train_loss;"):
        train(scan, config_of(resume_from=checkpoint))
    (tmp_path / "other").write_bytes(b"nothing")
    with pytest.raises(ArchiveError):
        train(scan, config_of(resume_from=tmp_path / "other"))


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("lsqml", {"batching": "compact", "momentum": 0.5, "batch_frames": 12}),
        ("rpie", {"momentum": 0.2}),
        ("dm", {}),
        ("autodiff", {}),
    ],
)
def test_a_checkpoint_without_a_part_of_its_state_is_refused(algorithm, options, tmp_path):
    raw, config = make_scan(1, step=4.5), config_of(algorithm, options, epochs=1, probe_trainable=True)
    model = train(raw, config)
    path = tmp_path / "part"
    assert model.state
    for name in model.state:
        rest = {other: values for other, values in model.state.items() if other != name}
        load_backend("ptychi").save(replace(model, state=rest), path)
        with pytest.raises(ArchiveError, match=f"lacks '{name}', which algorithm '{algorithm}' goes on with"):
            train(raw, replace(config, resume_from=path, epochs=2))


def test_a_probe_that_starts_later_has_no_state_yet(tmp_path):
    """A checkpoint from before its start lacks nothing."""
    raw = make_scan(1, step=4.5)
    config = config_of("autodiff", {"probe_start": 1}, epochs=2, probe_trainable=True)
    whole = train(raw, config)
    train(raw, replace(config, epochs=1, output_dir=tmp_path))
    again = train(raw, replace(config, resume_from=tmp_path / "model.ptycho"))
    np.testing.assert_allclose(again.probe, whole.probe, rtol=1e-3, atol=1e-3)


def test_progress_tells_each_epoch(scan):
    events = []
    first, held_out = scan.split(0.1, seed=0)
    train(first, config_of(epochs=3), held_out, progress=events.append)
    assert [(e.stage, e.done, e.total) for e in events] == [("train", i, 3) for i in (1, 2, 3)]
    assert all({"train_loss", "test_loss", "epoch"} <= set(e.metrics) for e in events)


def test_a_scan_beyond_its_object_is_refused(scan):
    model = train(scan, config_of(epochs=1))
    with pytest.raises(DataError, match="beyond the object that engine 'ptychi' solved"):
        image(model, replace(scan, positions_px=scan.positions_px + 3))


def test_what_it_cannot_do_is_refused(scan):
    for changes, words in [
        ({"scale_trainable": True}, "scale_trainable = True"),
        ({"learning_rate": 0.5}, "learning_rate = 0.5 has no effect"),
        ({"accelerator": "mps"}, "accelerator = 'mps'"),
        ({"precision": "bf16"}, "precision = 'bf16'"),
    ]:
        with pytest.raises(ConfigError, match=f"engine 'ptychi': {words}"):
            api.train_cdi_model(scan, scan, replace(CONFIG, **changes))
    model = train(scan, config_of(epochs=1, inference=InferenceConfig(accelerator="cpu", precision="32")))
    with pytest.raises(ConfigError, match=r"inference\.accelerator = 'cuda' has no effect"):
        api.reconstruct(model, scan, InferenceConfig(accelerator="cuda"))
    with pytest.raises(ConfigError, match="has no background in its model"):
        api.train_cdi_model(make_scan(background=2.0), None, CONFIG)


@pytest.mark.filterwarnings("ignore:.*")
def test_a_run_that_diverges_says_so():
    with pytest.raises(BackendError, match=r"algorithm 'epie' diverged in epoch .*smaller object_step"):
        train(make_scan(1), config_of("epie", {"object_step": 60.0, "batch_frames": 40}, epochs=40))


def test_a_frame_without_counts_and_frames_in_no_group_are_no_trouble(scan):
    from ptycho_core.data.container import PtychoDataContainer

    values = scan.frames.values.copy()
    values[3] = 0
    raw = replace(scan, frames=replace(scan.frames, values=values))
    data = PtychoDataContainer.from_groups(raw, np.arange(12).reshape(-1, 1), statistics=container(scan).statistics)
    for algorithm in ALGORITHMS:
        model = load_backend("ptychi").train(data, None, config_of(algorithm))
        assert np.isfinite(model.object).all()
        assert np.isfinite(model.history["train_loss"]).all()


def test_inputs_are_left_as_they_are(scan):
    before = [a.copy() for a in (scan.frames.values, scan.positions_px, scan.probe)]
    model = train(scan, config_of(probe_trainable=True))
    kept = model.object.copy()
    image(model, scan)
    for now, then in zip((scan.frames.values, scan.positions_px, scan.probe), before, strict=True):
        np.testing.assert_array_equal(now, then)
    np.testing.assert_array_equal(model.object, kept)
