"""What a training takes of the scans it is given: every training frame of each, and no other frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from engine_scans import CONFIG, assert_same_model, config_for, differ, held_out_scan, make_scan, vary
from network_oracle import first_losses

from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.raw import RawData
from ptycho_core.enginekit.groups import GroupDraw, heldout_groups
from ptycho_core.errors import Cancelled, DataError

CALM = vary(learning_rate=1e-12, model={"sweeps": 0})
"""Nothing is learnt, so that the loss of a step tells which groups it was of."""


def weak(scan: RawData, **changes) -> RawData:
    """A second experiment with the object: another mask, background, probe and exposure."""
    mask = np.ones((16, 16), bool)
    mask[9:, 2] = False
    probe = (1.4 * np.roll(scan.probe, 1, axis=2) * np.exp(0.4j)).astype(np.complex64)
    parts = {"probe": probe, "mask": mask, "background": np.full((16, 16), 0.7, np.float32)} | changes
    counts = scan.read_counts(np.arange(scan.n_frames)) // 3
    return RawData.from_arrays(counts, scan.positions_px, **parts)


@pytest.fixture(scope="module")
def scans():
    first = make_scan(rows=3, columns=4, n_modes=2)
    second = weak(make_scan(rows=2, columns=5, n_modes=2, seed=7))
    return [PtychoDataContainer.of(first), PtychoDataContainer.of(second)]


def fit(engine, scans, config=CONFIG, progress=lambda event: None):
    return engine.train(scans, *config_for(engine, config), progress=progress)


@pytest.mark.spec("BE-3")
def test_each_step_is_of_one_scan_with_its_own_probe_scale_mask_background_and_mean_counts(engine, scans):
    """The loss of every step of two epochs is the oracle's, in the order that all engines share."""
    seen, wanted = [], []
    config = vary(CALM, batch_size=2)
    history = fit(engine, scans, config, lambda event: seen.append(event.metrics["loss"])).history
    draw = GroupDraw(scans, config)
    for epoch in (0, 1):
        losses = [first_losses(draw.groups(epoch, scan), config) for scan in (0, 1)]
        batches = list(draw.batches(epoch))
        assert {batch.scan for batch in batches} == {0, 1}
        wanted += [losses[batch.scan][batch.groups].mean() for batch in batches]
        everything = np.concatenate(losses)
        assert history["train_loss"][epoch] == pytest.approx(everything.mean(), rel=1e-4)
    np.testing.assert_allclose(seen, wanted, rtol=1e-4)


def test_both_scans_are_learnt_from(engine, scans):
    """The weights are not those of either alone, and another second scan gives others."""
    together, alone = fit(engine, scans), fit(engine, scans[:1])
    assert differ(together, alone)
    other = [scans[0], PtychoDataContainer.of(weak(make_scan(rows=2, columns=5, n_modes=2, seed=8)))]
    assert differ(together, fit(engine, other))


def test_the_model_has_probe_scale_and_statistics_of_the_first_scan(engine, scans):
    config = vary(probe_trainable=True, scale_trainable=True)
    for order in (scans, scans[::-1]):
        model = fit(engine, order, config)
        assert model.statistics == order[0].statistics
        change = np.linalg.norm(model.probe - order[0].probe) / np.linalg.norm(order[0].probe)
        assert 1e-3 < change < 0.2
        assert 1e-4 < abs(model.scale / order[0].statistics.scale - 1) < 0.1


def test_a_step_with_one_scan_moves_neither_probe_nor_scale_of_another(engine, scans):
    """Momentum goes on by itself unless it is told that there was no gradient, which is not a gradient of 0."""
    config = vary(
        CALM, probe_trainable=True, scale_trainable=True, probe_learning_rate=1e-12, scale_learning_rate=1e-2,
        group_size=10, n_groups=6, batch_size=1, epochs=1,
    )  # fmt: skip
    order = [batch.scan for batch in GroupDraw(scans, config).batches(0)]
    assert order.count(0) == order.count(1) == 6
    assert sorted(order) != order  # steps with the one come between those with the other
    model = fit(engine, scans, config)
    alone = [replace(scan, statistics=scan.statistics) for scan in scans[:1]]
    groups = {tuple(row) for row in GroupDraw(scans, config).groups(0).frame_indices.tolist()}
    assert {tuple(row) for row in GroupDraw(alone, config).groups(0).frame_indices.tolist()} == groups
    # 6 steps of almost one gradient: Adam moves by 6 rates, however many steps the other scan took in between
    assert abs(np.log(model.scale / scans[0].statistics.scale)) == pytest.approx(6e-2, rel=0.05)


def poisoned(scan: RawData, frames: list[int]) -> RawData:
    """The same scan with nonsense in some frames."""
    counts = scan.read_counts(np.arange(scan.n_frames)).copy()
    counts[frames] = 1e6 * (1 + np.arange(256).reshape(16, 16))
    return RawData.from_arrays(counts, scan.positions_px, scan.probe, mask=scan.mask, background=scan.background)


@pytest.mark.spec("BE-3")
def test_held_out_and_unused_frames_never_reach_the_training(engine):
    """Nor do unused ones reach the held-out loss, which held-out ones alone decide."""
    raw = make_scan(rows=3, columns=4, n_modes=2)
    roles = {"heldout": [1, 6, 7], "unused": {"tired": [4, 10]}}
    config = vary(probe_trainable=True, scale_trainable=True)
    plain, unused, heldout = (
        fit(engine, [PtychoDataContainer.of(given, **roles)], config)
        for given in (raw, poisoned(raw, [4, 10]), poisoned(raw, [1, 6, 7]))
    )
    assert_same_model(unused, plain)
    assert not differ(heldout, plain)
    np.testing.assert_array_equal(heldout.probe, plain.probe)
    assert heldout.scale == plain.scale
    assert heldout.history["train_loss"] == plain.history["train_loss"]
    assert (np.array(heldout.history["test_loss"]) > 10 * np.array(plain.history["test_loss"])).all()
    seen = fit(engine, [PtychoDataContainer.of(poisoned(raw, [5]), **roles)], config)
    assert differ(seen, plain)


@pytest.mark.spec("BE-4")
def test_the_held_out_loss_is_the_mean_of_the_held_out_frames_of_all_scans(engine, scans):
    """Each frame once, though some fill a second group up, with each scan's own constants.

    A scan without training frames has probe and scale of the first.
    """
    first, second = (
        PtychoDataContainer.of(scan.raw, heldout=[0, 1, 2, 5, 7], statistics=scan.statistics) for scan in scans
    )
    statistics = replace(second.statistics, scale=first.statistics.scale)
    third = held_out_scan(weak(make_scan(rows=2, columns=3, n_modes=2, seed=3), probe=first.probe), first)
    third = replace(third, statistics=statistics)
    config = vary(CALM, group_size=3, batch_size=2)
    history = fit(engine, [first, third, second], config).history
    groups = [heldout_groups(scan, config) for scan in (first, second, third)]
    assert [part.n_groups for part in groups] == [2, 2, 2]
    wanted = np.concatenate([first_losses(part, config) for part in groups])
    assert np.ptp(wanted) > 0.1 * wanted.mean()
    frames = np.concatenate([part.counted.sum(axis=1) for part in groups])
    assert sorted(frames) == [2, 2, 3, 3, 3, 3]
    mean = wanted @ frames / 16
    assert abs(mean / wanted.mean() - 1) > 1e-3  # groups are not frames
    np.testing.assert_allclose(history["test_loss"], mean, rtol=1e-4)
    alone = fit(engine, [first, second], config).history
    assert alone["train_loss"] == history["train_loss"]
    assert alone["test_loss"][0] == pytest.approx(wanted[:4] @ frames[:4] / 10, rel=1e-4)


def test_the_held_out_loss_of_another_scan_follows_probe_and_scale_of_the_first(engine):
    raw = make_scan(rows=3, columns=4, seed=2)
    scan = PtychoDataContainer.of(raw)
    test = held_out_scan(raw, scan)
    config = vary(CALM, epochs=4, scale_trainable=True, scale_learning_rate=0.1)
    losses = fit(engine, [scan, test], config).history["test_loss"]
    assert np.ptp(losses) > 0.01 * losses[0]
    odd = held_out_scan(raw.with_probe(1j * np.roll(raw.probe, 3, axis=1)), scan)
    assert fit(engine, [scan, odd], config).history["test_loss"] == losses


def test_two_scans_are_resumed_to_the_last_bit(engine, scans, tmp_path):
    config = vary(
        batch_size=2, epochs=3, schedule="one_cycle", probe_trainable=True, scale_trainable=True, weight_average=0.5
    )
    whole, steps = fit(engine, scans, config), []

    def stop(event):
        if event.done == 7:
            raise Cancelled

    with pytest.raises(Cancelled):
        fit(engine, scans, vary(config, output_dir=tmp_path), stop)
    again = vary(config, resume_from=tmp_path / "checkpoints" / "interrupted.ckpt")
    assert_same_model(fit(engine, scans, again, lambda event: steps.append(event.done)), whole)
    assert steps[0] == 8


def test_scans_that_do_not_go_together(engine, scans):
    with pytest.raises(DataError, match=r"its probe is \(1, 16, 16\), that of the first scan is \(2, 16, 16\)"):
        fit(engine, [scans[0], PtychoDataContainer.of(make_scan(rows=2, columns=3))])
    nothing = PtychoDataContainer.of(scans[0].raw, heldout=np.arange(12))
    with pytest.raises(DataError, match="it has no training frames"):
        fit(engine, [nothing, scans[0]])
