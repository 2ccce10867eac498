"""Refining with the NumPy engine's gradient: what is changed and what is left, when it stops, what is kept."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from refinement_scan import CONFIG, N, flat_image, likeness, make_scan, true_positions

from ptycho_core import api
from ptycho_core.config import RefinementConfig
from ptycho_core.data.container import PtychoDataContainer, Statistics
from ptycho_core.data.raw import RawData
from ptycho_core.data.results import Reconstruction
from ptycho_core.errors import BackendError, Cancelled, ConfigError, DataError
from ptycho_core.plugins import registry
from ptycho_core.protocol import ReconstructionBackend
from ptycho_core.refinement.descent import Descent, _Pace, batch_size_for
from ptycho_core.refinement.image import heldout_frames
from ptycho_core.refinement.positions import position_report
from ptycho_core.refinement.state import ScanState, coverage_of


def refined_by(raw: RawData, initial: Reconstruction | None = None, **changes: Any) -> Any:
    plan = replace(CONFIG.refinement, **changes)
    return api.refine(initial or flat_image(raw), raw, replace(CONFIG, refinement=plan))


@pytest.fixture(scope="module")
def scan() -> RawData:
    return make_scan()


@pytest.mark.spec("BE-16")
def test_a_flat_image_becomes_the_object_and_is_left_as_it_was(scan: RawData) -> None:
    initial = flat_image(scan)
    before = (initial.object.copy(), initial.probe.copy(), initial.positions_px.copy())
    done = refined_by(scan, initial, probe=False, epochs=30)
    assert done.kept
    assert done.note == ""
    assert done.reconstruction.r_factor < 0.05 * initial.r_factor
    assert likeness(done.reconstruction) > 0.99
    assert done.initial is initial
    for now, then in zip((initial.object, initial.probe, initial.positions_px), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.spec("BE-16")
def test_what_is_not_to_be_refined_stays(scan: RawData) -> None:
    image = refined_by(scan, probe=False, epochs=3).reconstruction
    np.testing.assert_allclose(image.probe, scan.probe, rtol=1e-5)
    np.testing.assert_array_equal(image.positions_px, scan.positions_px)
    np.testing.assert_array_equal(image.nominal_positions_px, scan.positions_px)


@pytest.mark.spec("BE-16")
def test_a_poor_probe_is_refined_and_keeps_its_power(scan: RawData) -> None:
    poor = scan.probe * np.exp(0.004j * (np.arange(N) - 15.5) ** 2).astype(np.complex64)[:, None]
    raw = scan.with_probe(poor, calibrated=True)
    fixed, free = (refined_by(raw, probe=probe, epochs=25).reconstruction for probe in (False, True))
    assert free.r_factor < 0.5 * fixed.r_factor
    power = [float(np.sum(np.abs(p) ** 2)) for p in (free.probe, poor)]
    assert power[0] == pytest.approx(power[1], rel=1e-4)


def test_modes_are_added_and_orthogonal(scan: RawData) -> None:
    image = refined_by(scan, probe_modes=3, epochs=4).reconstruction
    assert image.probe.shape == (3, N, N)
    gram = np.einsum("pij,qij->pq", image.probe.conj(), image.probe)
    assert np.abs(gram - np.diag(np.diag(gram))).max() < 1e-4 * np.abs(gram).max()


@pytest.mark.spec("BE-16")
def test_positions_are_found_and_their_limit_is_kept() -> None:
    raw = make_scan(shake=1.2)
    truth = true_positions(np.random.default_rng(4))
    still = refined_by(raw, probe=False, epochs=30).reconstruction
    done = refined_by(raw, probe=False, positions=True, epochs=60, patience=20)
    image = done.reconstruction
    offset = (image.positions_px - truth).mean(axis=0)
    before = np.median(np.abs(raw.positions_px - truth))
    after = np.median(np.abs(image.positions_px - truth - offset))
    assert after < 0.35 * before
    assert image.r_factor < 0.7 * still.r_factor
    np.testing.assert_array_equal(image.nominal_positions_px, raw.positions_px)
    assert done.positions is not None
    assert done.positions.at_limit == 0
    held = refined_by(raw, probe=False, positions=True, position_limit_px=0.3, epochs=25)
    moved = held.reconstruction.positions_px - raw.positions_px
    assert np.abs(moved).max() <= 0.3 + 1e-9
    assert held.positions.at_limit > 0


@pytest.mark.spec("BE-17")
def test_held_out_frames_are_not_refined_on(scan: RawData) -> None:
    """Nonsense in their counts changes nothing but when it stops, and so nothing where it goes on to the end."""
    held = heldout_frames(scan, CONFIG)
    assert len(held) == round(0.1 * scan.n_frames)
    counts = scan.read_counts(np.arange(scan.n_frames)).copy()
    counts[held] = counts[held][:, ::-1]
    other = RawData.from_arrays(counts, scan.positions_px, scan.probe, probe_calibrated=True)
    one, two = (refined_by(raw, flat_image(scan), probe=False, epochs=2, patience=50) for raw in (scan, other))
    assert one.history["train_loss"] == two.history["train_loss"]
    assert one.history["test_loss"] != two.history["test_loss"]
    all_frames = replace(CONFIG, test_fraction=0.0, refinement=replace(CONFIG.refinement, epochs=2))
    assert "test_loss" not in api.refine(flat_image(scan), scan, all_frames).history


@pytest.mark.spec("BE-17")
def test_it_stops_when_held_out_frames_are_explained_no_better(scan: RawData) -> None:
    counts = scan.read_counts(np.arange(scan.n_frames)).copy()
    held = heldout_frames(scan, CONFIG)
    counts[held] = np.random.default_rng(0).poisson(counts[held].mean(), counts[held].shape)
    odd = RawData.from_arrays(counts, scan.positions_px, scan.probe, probe_calibrated=True)
    done = refined_by(odd, probe=False, epochs=200, patience=2)
    losses = done.history["test_loss"]
    assert len(losses) < 100
    best = int(np.argmin(losses))
    # the image returned is the one of that epoch: refining to it and no further gives the same
    state = refined_by(odd, probe=False, epochs=200, patience=2)
    assert len(state.history["test_loss"]) == len(losses)
    assert best < len(losses) - 1


def test_steps_are_full_then_ever_shorter_and_then_over() -> None:
    plan = Descent(loss="poisson", epochs=10, batch_size=8, patience=2)
    pace = _Pace(plan)
    lengths = [pace.length(epoch) for epoch in range(10)]
    assert lengths[:6] == [1.0] * 6
    assert all(b < a for a, b in itertools.pairwise(lengths[5:]))
    assert lengths[-1] == pytest.approx(1 / 30)
    early = _Pace(plan)
    assert early.note(0, 5.0)
    assert not early.note(1, 6.0)
    assert not early.spent(1)
    assert not early.note(2, 6.0)  # stalled twice: from here on steps shrink
    assert early.length(3) < 1
    assert early.note(3, 4.0)
    assert not early.spent(5)
    assert early.length(6) == pytest.approx(1 / 30)  # four epochs of shrinking, as in a run that never stalled
    assert early.spent(6)
    assert early.best == 4.0


def test_a_step_takes_about_a_twelfth_of_the_frames() -> None:
    assert [batch_size_for(n) for n in (40, 516, 1764, 100_000)] == [16, 43, 128, 128]


def test_the_same_seed_gives_the_same_image_and_another_another(scan: RawData) -> None:
    images = []
    for seed in (1, 1, 2):
        config = replace(CONFIG, seed=seed, test_fraction=0.0, refinement=replace(CONFIG.refinement, epochs=2))
        images.append(api.refine(flat_image(scan), scan, config).reconstruction.object)
    np.testing.assert_array_equal(images[0], images[1])
    assert (images[0] != images[2]).any()


def test_it_can_be_cancelled(scan: RawData) -> None:
    seen = []

    def stop(event: Any) -> None:
        seen.append((event.stage, event.done, event.total, sorted(event.metrics)))
        if event.done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        api.refine(flat_image(scan), scan, CONFIG, progress=stop)
    metrics = ["epoch", "test_loss", "train_loss"]
    assert seen == [("refine", 1, 12, metrics), ("refine", 2, 12, metrics)]


def test_an_image_of_another_scan_is_refused(scan: RawData) -> None:
    initial = flat_image(scan)
    with pytest.raises(DataError, match=r"it has 20 frames of 32×32, but the image to refine was made from 70"):
        api.refine(initial, scan.subset(range(20)), CONFIG)
    with pytest.raises(DataError, match="beyond the image to refine"):
        api.refine(replace(initial, object=initial.object[:-3], coverage=initial.coverage[:-3]), scan, CONFIG)


def test_the_state_of_an_image_gives_that_image_again(scan: RawData) -> None:
    initial = flat_image(scan)
    container = PtychoDataContainer.for_reconstruction(scan, 4)
    again = ScanState.of_image(initial, scan, margin_px=3).image(container)
    np.testing.assert_allclose(again.object, initial.object, atol=1e-6)
    np.testing.assert_allclose(again.probe, initial.probe, rtol=1e-5)
    np.testing.assert_array_equal(again.origin_px, initial.origin_px)
    assert again.r_factor == pytest.approx(initial.r_factor, rel=1e-5)
    direct = coverage_of(scan, scan.probe, initial.origin_px.astype(np.int64), initial.object.shape)
    np.testing.assert_allclose(again.coverage, direct, rtol=1e-5)


def test_an_affine_stage_error_is_reported_as_one() -> None:
    rng = np.random.default_rng(0)
    nominal = rng.uniform(0, 200, (60, 2))
    scale = np.diag([1.01, 0.98])
    turn = np.array([[np.cos(0.02), -np.sin(0.02)], [np.sin(0.02), np.cos(0.02)]])
    centred = nominal - nominal.mean(axis=0)
    report = position_report(nominal, nominal + 3 + centred @ ((turn @ scale).T - np.eye(2)), 4.0)
    assert report.scale_y == pytest.approx(1.01)
    assert report.scale_x == pytest.approx(0.98)
    assert report.rotation_mrad == pytest.approx(20.0)
    assert report.shear_mrad == pytest.approx(0.0, abs=1e-6)
    assert report.residual_rms_px == pytest.approx(0.0, abs=1e-9)
    assert "rotation 20.0 mrad" in report.describe()
    jitter = position_report(nominal, nominal + rng.normal(0, 0.1, nominal.shape), 0.15)
    assert jitter.residual_rms_px == pytest.approx(0.1 * np.sqrt(2), rel=0.2)
    assert jitter.at_limit > 0
    line = np.stack([np.arange(5.0), np.arange(5.0)], axis=1)
    assert position_report(line, line + 0.1, 1.0).scale_y == 1.0


class Spoiler:
    """An engine whose `refine` returns what it is told to."""

    name = "numpy"

    def __init__(self, answer: Any) -> None:
        self.capabilities = registry.load_backend("numpy").capabilities
        self.answer = answer

    def refine(self, initial: Reconstruction, data: Any, config: Any, *, progress: Any) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer(initial)


def spoil(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    engine: ReconstructionBackend = Spoiler(answer)  # type: ignore[assignment]
    monkeypatch.setattr("ptycho_core.refinement.facade.load_backend", lambda name: engine)


@pytest.mark.spec("BE-18")
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda image: replace(image, r_factor=image.r_factor + 0.1), "R-factor .* is higher than the"),
        (lambda image: replace(image, object=np.ones_like(image.object)), "constant"),
        (lambda image: replace(image, object=image.object * np.nan), "NaN or infinite"),
        (BackendError("it diverged in epoch 3"), "it diverged in epoch 3"),
    ],
)
def test_a_refined_image_that_is_worse_is_discarded_and_said_so(
    scan: RawData, monkeypatch: pytest.MonkeyPatch, answer: Any, words: str
) -> None:
    initial = flat_image(scan)
    spoil(monkeypatch, answer)
    with pytest.warns(UserWarning, match=f"refined by engine 'numpy' was discarded: .*{words}"):
        done = api.refine(initial, scan, CONFIG)
    assert not done.kept
    assert done.reconstruction is initial
    assert done.note


@pytest.mark.spec("BE-18")
def test_a_broken_promise_is_no_discarded_image(scan: RawData, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, lambda image: "an image")
    with pytest.raises(BackendError, match="it must be a Reconstruction"):
        api.refine(flat_image(scan), scan, CONFIG)


def test_nothing_to_refine_with_is_an_error(scan: RawData) -> None:
    config = replace(CONFIG, refinement=RefinementConfig(engine="none"))
    with pytest.raises(ConfigError, match=r"refinement.engine = 'none'.*Name one"):
        api.refine(flat_image(scan), scan, config)


def test_a_container_and_its_statistics_are_taken_as_they_are(scan: RawData) -> None:
    container = PtychoDataContainer.for_reconstruction(
        scan, 4, statistics=replace(Statistics.of(scan), mean_counts=5.0)
    )
    config = replace(CONFIG, refinement=replace(CONFIG.refinement, epochs=1))
    from_container = api.refine(flat_image(scan), container, config).history["train_loss"][0]
    from_scan = api.refine(flat_image(scan), scan, config).history["train_loss"][0]
    assert from_container == pytest.approx(from_scan * Statistics.of(scan).mean_counts / 5.0, rel=1e-6)
