"""What training does with each part of its config and its data."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_scans import CONFIG, assert_same_model, differ, make_scan, train, vary, weights_of

from ptycho_backend_torch.backend import TorchBackend
from ptycho_backend_torch.lightning_module import PtychoModule
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.raw import RawData
from ptycho_core.errors import BackendError, CollapseError, ConfigError, OutputError
from ptycho_core.networks.architectures import initial_weights
from ptycho_core.networks.schedules import learning_rate_factor
from ptycho_core.physics import forward, likelihood, patches, solver

pytestmark = pytest.mark.torch

ALONE = {"model": {"sweeps": 0}}
"""Changes to the config that leave the network without a solver before it."""


@pytest.fixture(scope="module")
def scan() -> RawData:
    return make_scan(rows=3, columns=4)


@pytest.fixture(scope="module")
def held_out() -> RawData:
    return make_scan(rows=2, columns=3, seed=9)


@pytest.fixture(scope="module")
def plain(scan):
    return train(scan, CONFIG)


@pytest.fixture
def optimisers(monkeypatch):
    """Every optimiser that training makes."""
    made = []
    real = PtychoModule.configure_optimizers

    def configure(self):
        plan = real(self)
        made.append(plan["optimizer"])
        return plan

    monkeypatch.setattr(PtychoModule, "configure_optimizers", configure)
    return made


@pytest.mark.parametrize("loss", ["poisson", "amplitude"])
@pytest.mark.parametrize("generator", [{"sweeps": 0}, {"sweeps": 3}])
def test_loss_falls(scan, loss, generator):
    model = train(scan, vary(loss=loss, epochs=8, learning_rate=3e-3, model=generator))
    losses = model.history["train_loss"]
    assert len(losses) == 8
    first, last = losses[0], losses[-1]
    assert last < (first - 0.002 if loss == "poisson" else 0.9 * first)
    other = {"poisson": "amplitude", "amplitude": "poisson"}[loss]
    assert differ(model, train(scan, vary(loss=other, epochs=8, learning_rate=3e-3, model=generator)))


def test_cnn_learns():
    scan = make_scan(64, 2, 2)
    config = vary(model={"generator": "cnn", "width": 2}, group_size=2, epochs=6, learning_rate=3e-3)
    losses = train(scan, config, make_scan(64, 1, 2, seed=3)).history
    assert losses["train_loss"][-1] < 0.9 * losses["train_loss"][0]
    assert losses["test_loss"][-1] < losses["test_loss"][0]


def test_cnn_refuses_smaller_test_groups(scan):
    config = vary(model={"generator": "cnn", "width": 2}, group_size=4)
    groups = PtychoDataContainer.for_training(make_scan(64, 2, 2), 4)
    test = PtychoDataContainer.for_reconstruction(make_scan(64, 1, 2), 2)
    with pytest.raises(ConfigError, match=r"needs test groups of 4 frames.* only 2 test frames"):
        TorchBackend().train(groups, test, config)


def test_first_loss_is_the_oracle_s():
    """Before any step the prediction is the solver's own, and the oracle can say what its loss is."""
    scan = make_scan(rows=3, columns=4, n_modes=2, bad=True, background=2.0)
    seen = []
    groups = PtychoDataContainer.for_training(scan, 4, n_groups=12, seed=1)
    config = vary(epochs=1, batch_size=12, loss="poisson", model={"sweeps": 2})
    TorchBackend().train(groups, None, config, progress=lambda event: seen.append(event.metrics["loss"]))
    known = (scan.mask, scan.background, groups.statistics.scale)
    total = 0.0
    for b in range(groups.n_groups):
        corners, rest, shape = groups.corners_px[b], groups.subpixel_px[b], tuple(groups.canvas_shape[b])
        shifted = forward.fourier_shift(scan.probe[None], rest[:, None])
        power, counts = np.sum(np.abs(shifted) ** 2, axis=1), groups.read_group_counts(b)
        patch = np.ones_like(shifted[:, 0])
        for _ in range(3):  # two sweeps, and the update under the network
            update = solver.solver_update(patch, shifted, counts, *known)
            canvas = patches.merge(patch + solver.RELAXATION * update, power, corners, shape)
            patch = patches.extract(canvas, corners, 16)
        rate = forward.expected_counts(patch, scan.probe, rest, groups.statistics.scale, scan.background)
        total += likelihood.poisson_loss(rate, counts, scan.mask, 12 * 4 * groups.statistics.mean_counts)
    assert seen == [pytest.approx(total, rel=1e-5)]


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "exponential", "constant"])
def test_learning_rate_really_steps(scan, schedule, optimisers):
    rates = []
    config = vary(schedule=schedule, epochs=2, batch_size=4, probe_trainable=True, scale_trainable=True)
    progress = lambda event: rates.append([group["lr"] for group in optimisers[0].param_groups])  # noqa: E731
    model = train(scan, config, progress=progress)
    # progress comes after a step, when the schedule has moved on to the next
    factors = [learning_rate_factor(schedule, step, 6) for step in range(1, 7)]
    size = float(np.sqrt(np.mean(np.abs(scan.probe) ** 2)))
    peaks = [config.learning_rate, config.probe_learning_rate * size, config.scale_learning_rate]
    np.testing.assert_allclose(rates, np.outer(factors, peaks), rtol=1e-6)
    assert (len(set(factors)) == 1) is (schedule == "constant")
    np.testing.assert_allclose(model.history["learning_rate"], np.array(factors)[[2, 5]] * 1e-3, rtol=1e-6)


@pytest.mark.parametrize("limit", [1e-4, None])
def test_gradient_is_clipped_for_the_network_alone(scan, limit, optimisers):
    norms = []

    def progress(event):
        network, probe = (
            torch.cat([p.grad.flatten() for p in group["params"]]).norm().item() for group in optimisers[0].param_groups
        )
        norms.append((network, probe))

    train(scan, vary(gradient_clip_norm=limit, probe_trainable=True, **ALONE), progress=progress)
    network, probe = np.array(norms).T
    if limit is None:
        assert network.min() > 1e-3
    else:
        np.testing.assert_allclose(network, limit, rtol=1e-2)
    assert probe.min() > 1e-3


def test_weight_decay_pulls_the_network_and_nothing_else(scan, plain):
    heavy = train(scan, vary(weight_decay=5.0, probe_trainable=True))
    light = train(scan, vary(weight_decay=0.0, probe_trainable=True))
    sizes = [np.linalg.norm(weights_of(model)["encoder0.conv0.weight"]) for model in (heavy, light)]
    assert sizes[0] < 0.95 * sizes[1]
    assert np.linalg.norm(heavy.probe) > 0.95 * np.linalg.norm(light.probe)


def test_probe_moves_only_when_asked(scan, plain):
    np.testing.assert_array_equal(plain.probe, scan.probe)
    moved = train(scan, vary(probe_trainable=True)).probe
    assert (moved.dtype, moved.shape) == (np.complex64, (1, 16, 16))
    change = np.linalg.norm(moved - scan.probe) / np.linalg.norm(scan.probe)
    assert 1e-3 < change < 0.5
    farther = train(scan, vary(probe_trainable=True, probe_learning_rate=3e-2)).probe
    assert np.linalg.norm(farther - scan.probe) > 1.5 * np.linalg.norm(moved - scan.probe)


def test_a_wrong_probe_is_refined_towards_the_right_one(scan):
    y, x = np.mgrid[:16, :16] - 7.5
    wrong = scan.with_probe(scan.probe * np.exp(0.05j * (0.04 * y**2 + x)) * (1 + 0.02 * x))
    config = vary(epochs=6, probe_learning_rate=1e-2)
    refined = train(wrong, vary(config, probe_trainable=True))
    kept = train(wrong, config)
    assert refined.history["train_loss"][-1] < 0.8 * kept.history["train_loss"][-1]


def test_scale_moves_only_when_asked(scan, plain):
    groups = PtychoDataContainer.for_training(scan, 4)
    assert plain.scale == pytest.approx(groups.statistics.scale, rel=1e-6)
    module = PtychoModule(vary(scale_trainable=True), scan.probe, groups.statistics, None, None, 1)
    assert any(p is module.log_scale for p in module.parameters())
    assert float(module.log_scale.detach()) == pytest.approx(math.log(groups.statistics.scale), abs=1e-6)
    moved = train(scan, vary(scale_trainable=True)).scale
    assert 1e-4 < abs(moved / plain.scale - 1) < 0.1
    faster = train(scan, vary(scale_trainable=True, scale_learning_rate=1e-2)).scale
    assert abs(faster / plain.scale - 1) > 2 * abs(moved / plain.scale - 1)


@pytest.mark.spec("FM-6")
def test_scale_of_a_calibrated_probe_is_one_and_stays(scan):
    calibrated = make_scan(rows=3, columns=4, calibrated=True)
    assert train(calibrated, CONFIG).scale == 1.0
    with pytest.raises(ConfigError, match=r"scale_trainable = True, but .*calibrated"):
        train(calibrated, vary(scale_trainable=True))


@pytest.mark.spec("BE-3")
@pytest.mark.parametrize("generator", [{"sweeps": 2}, {"generator": "cnn", "width": 2}])
def test_bad_pixels_never_matter(generator):
    N = 64 if "generator" in generator else 16
    one = make_scan(N, 2, 3, bad=True, background=1.0)
    rng = np.random.default_rng(3)
    counts = one.frames.read(np.arange(one.n_frames))
    counts[:, ~one.mask] = rng.choice([np.nan, np.inf, -5.0, 1e30], counts[:, ~one.mask].shape)
    other = RawData.from_arrays(counts, one.positions_px, one.probe, mask=one.mask, background=one.background)
    config = vary(model=generator, epochs=1, probe_trainable=True, scale_trainable=True, loss="poisson")
    models = [train(scan, config, scan) for scan in (one, other)]
    assert_same_model(*models)
    images = [
        TorchBackend().reconstruct(model, PtychoDataContainer.for_reconstruction(scan, 4), config.inference)
        for model, scan in zip(models, (one, other), strict=True)
    ]
    np.testing.assert_array_equal(images[0].object, images[1].object)
    # but a good pixel does
    counts[:, 3, 3] += 50
    third = RawData.from_arrays(counts, one.positions_px, one.probe, mask=one.mask, background=one.background)
    assert differ(train(third, config), models[0])


def test_background_enters_the_model():
    scan = make_scan(rows=3, columns=4, background=20.0)
    without = RawData.from_arrays(scan.frames.read(np.arange(12)), scan.positions_px, scan.probe, probe_calibrated=True)
    power = float((scan.frame_totals.mean() - scan.background.sum()) / np.sum(np.abs(scan.probe) ** 2))
    known = RawData.from_arrays(
        scan.frames.read(np.arange(12)), scan.positions_px, scan.probe * np.float32(np.sqrt(power)),
        probe_calibrated=True, background=scan.background,
    )  # fmt: skip
    ignorant = without.with_probe(known.probe, calibrated=True)
    config = vary(epochs=1)
    assert train(known, config).history["train_loss"][0] < 0.5 * train(ignorant, config).history["train_loss"][0]


@pytest.mark.spec("FM-5")
def test_modes_add_as_intensities():
    """Two equal modes are one mode of twice the power; as waves they would be four times."""
    one = make_scan(rows=3, columns=4)
    doubled = one.with_probe(np.concatenate([one.probe, one.probe]) / np.float32(np.sqrt(2)))
    # sweeps multiply what rounding does in dark pixels, where the phase is hardly known
    config = vary(epochs=1, learning_rate=1e-12, **ALONE)
    a, b = train(one, config), train(doubled, config)
    assert a.history["train_loss"] == pytest.approx(b.history["train_loss"], rel=1e-4)
    assert b.scale == pytest.approx(a.scale, rel=1e-6)


def test_moving_average_of_the_weights(scan, plain):
    """Six steps of a decay d: the result is the average that the steps say, not the last weights."""
    config = vary(epochs=1, batch_size=2)
    kept = []
    real = PtychoModule.training_step

    def step(self, batch, batch_idx):
        kept.append(self.generator.head.bias.detach().clone())
        return real(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PtychoModule, "training_step", step)
        last = train(scan, config)
    after = [*kept[1:], last.generator.head.bias]
    average = after[0]
    for weights in after[1:]:
        average = 0.7 * average + 0.3 * weights
    averaged = train(scan, vary(config, weight_average=0.7))
    torch.testing.assert_close(averaged.generator.head.bias, average, rtol=1e-5, atol=1e-8)
    assert differ(averaged, last)


def test_moving_average_leaves_mask_and_background_alone(held_out):
    scan = make_scan(rows=3, columns=4, bad=True, background=2.0)
    model = train(scan, vary(weight_average=0.5), held_out)
    assert all(np.isfinite(values).all() for values in weights_of(model).values())
    assert len(model.history["test_loss"]) == 2


def test_early_stopping_keeps_the_best_weights(scan, held_out, tmp_path):
    config = vary(epochs=30, learning_rate=0.05, early_stopping_patience=2, output_dir=tmp_path)
    model = train(scan, config, held_out)
    losses = model.history["test_loss"]
    best = int(np.argmin(losses))
    assert len(losses) == best + 3 < 30
    again = train(scan, vary(config, epochs=best + 1, early_stopping_patience=None, output_dir=None), held_out)
    assert again.history["test_loss"] == losses[: best + 1]
    assert not differ(model, again)


def test_early_stopping_without_held_out_data_watches_the_training_loss(scan):
    history = train(scan, vary(epochs=30, learning_rate=0.3, early_stopping_patience=1)).history
    assert "test_loss" not in history
    assert len(history["train_loss"]) == int(np.argmin(history["train_loss"])) + 2


@pytest.mark.spec("BE-11")
def test_a_constant_object_stops_training():
    empty = make_scan(rows=3, columns=4, flat=True, noise=False)
    config = vary(n_groups=60, epochs=3, learning_rate=1e-12, model={"sweeps": 1})
    with pytest.raises(CollapseError, match=r"object is constant \(relative variation .*threshold 0.001\).*120 steps"):
        train(empty, config)
    assert len(train(empty, vary(config, collapse_threshold=0.0)).history["train_loss"]) == 3
    with pytest.raises(CollapseError, match="threshold 5"):
        train(make_scan(rows=3, columns=4), vary(config, collapse_threshold=5.0))


def test_a_collapse_is_not_looked_for_in_the_first_third():
    empty = make_scan(rows=3, columns=4, flat=True, noise=False)
    config = vary(n_groups=120, batch_size=1, epochs=4, learning_rate=1e-12, model={"sweeps": 1})
    seen = []
    with pytest.raises(CollapseError):
        train(empty, config, progress=lambda event: seen.append(event.done))
    assert seen[-1] == 240  # 120 steps are fewer than a third of 480


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_loss_that_is_no_number_stops_training(scan, batch_size):
    with pytest.raises(BackendError, match=r"training loss became (nan|inf) at step \d+; lower learning_rate .*1e\+30"):
        train(scan, vary(learning_rate=1e30, batch_size=batch_size, epochs=3))


@pytest.mark.spec("BE-4")
def test_model_is_plain(scan, held_out):
    model = train(scan, vary(probe_trainable=True), held_out)
    assert (model.backend, model.config, model.checkpoint_path) == ("pytorch", vary(probe_trainable=True), None)
    assert set(model.history) == {"train_loss", "test_loss", "learning_rate"}
    assert all(type(v) is float for values in model.history.values() for v in values)
    assert isinstance(model.probe, np.ndarray)
    assert model.probe.dtype == np.complex64
    assert type(model.scale) is float
    assert not model.generator.training
    assert all(p.device.type == "cpu" and not p.requires_grad for p in model.generator.parameters())


def test_inputs_are_not_changed(scan):
    raw = make_scan(rows=3, columns=4, bad=True, background=1.0)
    groups = PtychoDataContainer.for_training(raw, 4)
    names = ("probe", "frame_indices", "corners_px", "subpixel_px", "canvas_shape")

    def everything():
        arrays = [*(getattr(groups, name) for name in names), raw.mask, raw.background]
        return [*(array.copy() for array in arrays), raw.frames.read(np.arange(12))]

    before = everything()
    TorchBackend().train(groups, None, vary(probe_trainable=True))
    after = everything()
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def test_training_starts_from_the_shared_first_weights(scan):
    model = train(scan, vary(learning_rate=1e-12))
    for name, wanted in initial_weights(CONFIG, 16).items():
        np.testing.assert_allclose(weights_of(model)[name], wanted, atol=1e-9)


def test_progress_counts_every_step(scan, held_out):
    events = []
    train(scan, vary(epochs=3, batch_size=5), held_out, progress=events.append)
    assert [(e.stage, e.done, e.total) for e in events] == [("train", n, 9) for n in range(1, 10)]
    assert [e.metrics["epoch"] for e in events] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert all(b.done == a.done + 1 for a, b in pairwise(events))


def test_bf16_is_close_to_single_precision(scan):
    one, other = (train(scan, vary(precision=p, learning_rate=3e-3, epochs=4, **ALONE)) for p in ("32", "bf16"))
    assert differ(one, other)
    assert other.history["train_loss"][-1] == pytest.approx(one.history["train_loss"][-1], rel=0.05)


@pytest.mark.parametrize("accelerator", ["cuda", "mps"])
def test_an_accelerator_that_is_not_there(scan, accelerator):
    from ptycho_backend_torch.hardware import choose_device

    try:
        choose_device(accelerator)
    except ConfigError:
        with pytest.raises(ConfigError, match=rf"accelerator = '{accelerator}' is not available .*available: cpu"):
            train(scan, vary(accelerator=accelerator))
    else:
        pytest.skip(f"{accelerator} is here")


@pytest.mark.slow
def test_workers_read_the_same_groups(scan, plain):
    before = torch.get_rng_state()
    model = train(scan, vary(num_workers=2))
    assert_same_model(model, plain)
    assert torch.equal(torch.get_rng_state(), before)


def test_checkpoints_are_written_beside_their_target_and_renamed(tmp_path, monkeypatch):
    """A failure while one is written leaves the old one whole, and nothing else."""
    from ptycho_backend_torch.training import AtomicCheckpointIO

    io = AtomicCheckpointIO()
    io.save_checkpoint({"step": torch.tensor(1)}, tmp_path / "new" / "last.ckpt")

    def torn(content, path):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(OutputError, match="No space left"):
        io.save_checkpoint({"step": torch.tensor(2)}, tmp_path / "new" / "last.ckpt")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["last.ckpt"]
    assert torch.load(tmp_path / "new" / "last.ckpt", weights_only=True)["step"] == 1
