"""Refining with the NumPy engine: what is changed and what is left, when it stops, what is kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from refinement_scan import CONFIG, N, flat_image, likeness, make_scan, true_positions, with_roles

from ptycho_core.api.refine import refine
from ptycho_core.api.score import heldout_loss, score
from ptycho_core.config import RefinementConfig
from ptycho_core.data.container import PtychoDataContainer, Statistics
from ptycho_core.data.raw import RawData
from ptycho_core.data.results import Image, Refined
from ptycho_core.enginekit import state
from ptycho_core.enginekit.refining import refine_by_steps
from ptycho_core.enginekit.state import Start, coverage_of
from ptycho_core.errors import BackendError, Cancelled, ConfigError, DataError
from ptycho_core.evaluation.positions import position_report
from ptycho_core.plugins import registry
from ptycho_core.protocol import ProgressEvent, ReconstructionBackend, no_progress
from ptycho_core.runtime import DEFAULT_RUNTIME


def refined_by(scan: PtychoDataContainer, image: Image | None = None, **changes: Any) -> Refined:
    initial = score(image or flat_image(scan), scan, "numpy")
    changes = {"positions": False} | changes  # unless a test asks for them, they are not tried
    return refine(initial, replace(CONFIG, refinement=replace(CONFIG.refinement, **changes)))


def by_steps(image: Image, scan: PtychoDataContainer, config: Any, progress: Any = no_progress) -> Image:
    return refine_by_steps(registry.load_backend("numpy"), image, scan, config, DEFAULT_RUNTIME, progress)


@pytest.fixture(scope="module")
def scan() -> PtychoDataContainer:
    return with_roles(make_scan())


def counts_of(scan: PtychoDataContainer) -> np.ndarray:
    return scan.raw.read_counts(np.arange(scan.raw.n_frames)).copy()


def with_counts(scan: PtychoDataContainer, counts: np.ndarray) -> PtychoDataContainer:
    raw = RawData.from_arrays(counts, scan.raw.positions_px, scan.probe, probe_calibrated=True)
    return PtychoDataContainer.of(raw, heldout=scan.heldout_frames)


@pytest.mark.spec("BE-16")
def test_a_flat_image_becomes_the_object_and_is_left_as_it_was(scan: PtychoDataContainer) -> None:
    image = flat_image(scan)
    before = (image.object.copy(), image.probe.copy(), image.positions_px.copy())
    initial = score(image, scan, "numpy")
    config = replace(CONFIG, refinement=replace(CONFIG.refinement, probe=False, epochs=30))
    done = refine(initial, config)
    assert done.kept
    assert (done.note, done.engine, done.best.engine) == ("", "numpy", "numpy")
    assert done.best.heldout.fourier_error < 0.05 * initial.heldout.fourier_error
    assert done.best.train.deviance < 1.2
    assert likeness(done.best.image) > 0.99
    assert done.initial is initial
    for now, then in zip((image.object, image.probe, image.positions_px), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.spec("BE-16")
def test_what_is_not_to_be_refined_stays(scan: PtychoDataContainer) -> None:
    image = refined_by(scan, probe=False, epochs=3).best.image
    np.testing.assert_allclose(image.probe, scan.probe, rtol=1e-5)
    np.testing.assert_array_equal(image.positions_px, scan.raw.positions_px)


@pytest.mark.spec("BE-16")
def test_a_poor_probe_is_refined_and_keeps_its_power(scan: PtychoDataContainer) -> None:
    poor = scan.probe * np.exp(0.004j * (np.arange(N) - 15.5) ** 2).astype(np.complex64)[:, None]
    other = scan.with_probe(poor)
    fixed, free = (refined_by(other, probe=probe, epochs=25).best for probe in (False, True))
    assert free.train.fourier_error < 0.5 * fixed.train.fourier_error
    power = [float(np.sum(np.abs(p) ** 2)) for p in (free.image.probe, poor)]
    assert power[0] == pytest.approx(power[1], rel=1e-4)


def test_modes_are_added_and_orthogonal(scan: PtychoDataContainer) -> None:
    image = refined_by(scan, probe_modes=3, epochs=4).best.image
    assert image.probe.shape == (3, N, N)
    gram = np.einsum("pij,qij->pq", image.probe.conj(), image.probe)
    assert np.abs(gram - np.diag(np.diag(gram))).max() < 1e-4 * np.abs(gram).max()


@pytest.mark.spec("BE-16")
def test_positions_are_found_and_their_limit_is_kept() -> None:
    scan = with_roles(make_scan(shake=1.2))
    nominal, truth = scan.raw.positions_px, true_positions(np.random.default_rng(4))
    still = refined_by(scan, probe=False, epochs=30).best
    done = refined_by(scan, probe=False, positions=True, epochs=60, patience=20)
    image = done.best.image
    offset = (image.positions_px - truth).mean(axis=0)
    before = np.median(np.abs(nominal - truth))
    after = np.median(np.abs(image.positions_px - truth - offset))
    assert after < 0.35 * before
    assert done.best.train.fourier_error < 0.7 * still.train.fourier_error
    assert done.positions is not None
    assert done.positions.at_limit == 0
    held = refined_by(scan, probe=False, positions=True, position_limit_px=0.3, epochs=25)
    assert np.abs(held.best.image.positions_px - nominal).max() <= 0.3 + 1e-9
    assert held.positions is not None
    assert held.positions.at_limit > 0


@pytest.mark.spec("BE-17")
def test_held_out_and_unused_frames_are_not_refined_on(scan: PtychoDataContainer) -> None:
    """Nonsense in held-out frames changes nothing but when it stops, so nothing in two epochs; in unused ones too."""
    held, counts = scan.heldout_frames, counts_of(scan)
    counts[held] = counts[held][:, ::-1]
    one, two = (refined_by(s, flat_image(scan), probe=False, epochs=2) for s in (scan, with_counts(scan, counts)))
    assert one.history["train_loss"] == two.history["train_loss"]
    assert one.history["test_loss"] != two.history["test_loss"]
    whole = PtychoDataContainer.of(scan.raw)
    assert "test_loss" not in refined_by(whole, epochs=2).history
    counts = counts_of(scan)
    counts[[1, 9]] = 7.0
    objects = []
    for array in (counts_of(scan), counts):
        raw = RawData.from_arrays(array, scan.raw.positions_px, scan.probe, probe_calibrated=True)
        partly = PtychoDataContainer.of(raw, heldout=held, unused={"shaken": [1, 9]}, statistics=scan.statistics)
        objects.append(refined_by(partly, epochs=2).best.image.object)
    np.testing.assert_array_equal(*objects)


@pytest.mark.spec("BE-17")
def test_frames_are_held_out_as_the_scan_says_and_not_as_the_config_would(scan: PtychoDataContainer) -> None:
    other = PtychoDataContainer.of(scan.raw, heldout=[1, 2, 3, 50])
    assert not np.array_equal(other.heldout_frames, scan.heldout_frames)
    counts = counts_of(other)
    counts[[1, 2, 3, 50]] = counts[[1, 2, 3, 50]][:, ::-1]
    one, two = (refined_by(s, flat_image(other), epochs=2) for s in (other, with_counts(other, counts)))
    assert one.history["train_loss"] == two.history["train_loss"]


@pytest.mark.spec("BE-17")
def test_it_stops_when_held_out_frames_are_explained_no_better(scan: PtychoDataContainer) -> None:
    counts, held = counts_of(scan), scan.heldout_frames
    counts[held] = np.random.default_rng(0).poisson(counts[held].mean(), counts[held].shape)
    odd = with_counts(scan, counts)
    engine = registry.load_backend("numpy")
    losses: list[float] = []

    def note(event: ProgressEvent) -> None:
        losses.append(event.metrics["test_loss"])

    plan = RefinementConfig(probe=False, positions=False, epochs=200, patience=2, batch_size=16)
    image = by_steps(flat_image(odd), odd, replace(CONFIG, refinement=plan), note)
    assert len(losses) < 100
    best = int(np.argmin(losses))
    assert best < len(losses) - 1
    # what is returned explains the held-out frames as well as the epoch that did it best, or as the image itself
    found, first = (heldout_loss(score(i, odd, "numpy", engine), "poisson") for i in (image, flat_image(odd)))
    assert found <= first


@pytest.mark.spec("BE-18")
def test_an_image_that_is_as_good_as_it_gets_comes_back_itself(scan: PtychoDataContainer) -> None:
    good = refined_by(scan, probe=False, epochs=40).best.image
    # one epoch of full steps brings noise only
    config = replace(CONFIG, refinement=RefinementConfig(epochs=1, probe_modes=2, batch_size=4))
    assert by_steps(good, scan, config) is good
    with pytest.warns(UserWarning, match="no epoch lowered the loss of the validation frames"):
        done = refine(score(good, scan, "numpy"), config)
    assert not done.kept
    assert done.best is done.initial
    assert len(done.best.image.probe) == 1


def test_the_same_seed_gives_the_same_image_and_another_another(scan: PtychoDataContainer) -> None:
    whole = PtychoDataContainer.of(scan.raw)
    images = []
    for seed in (1, 1, 2):
        config = replace(CONFIG, seed=seed, refinement=replace(CONFIG.refinement, epochs=2))
        images.append(refine(score(flat_image(whole), whole, "numpy"), config).best.image.object)
    np.testing.assert_array_equal(images[0], images[1])
    assert (images[0] != images[2]).any()


def test_it_can_be_cancelled(scan: PtychoDataContainer) -> None:
    seen = []

    def stop(event: Any) -> None:
        seen.append((event.stage, event.done, event.total, sorted(event.metrics)))
        if event.done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        refine(score(flat_image(scan), scan, "numpy"), CONFIG, progress=stop)
    metrics = ["epoch", "test_loss", "train_loss"]
    assert seen == [("refine", 1, 12, metrics), ("refine", 2, 12, metrics)]


@pytest.mark.parametrize("positions", [False, True])
def test_an_image_of_another_scan_is_refused(scan: PtychoDataContainer, positions: bool) -> None:
    image = flat_image(scan)
    config = replace(CONFIG, refinement=replace(CONFIG.refinement, positions=positions))
    with pytest.raises(DataError, match=r"it has 20 frames of 32×32, but the image to refine was made from 70"):
        by_steps(image, PtychoDataContainer.of(scan.raw.subset(range(20))), config)
    cut = replace(image, object=image.object[:-3], coverage=image.coverage[:-3])
    with pytest.raises(DataError, match="beyond the image to refine"):
        by_steps(cut, scan, config)


def test_the_start_of_an_image_gives_that_image_again(scan: PtychoDataContainer) -> None:
    image = flat_image(scan)
    weights = 1 + 0.2 * np.random.default_rng(1).normal(size=(scan.raw.n_frames, 1)).astype(np.float32)
    weights /= weights[scan.train_frames].mean()
    beam = replace(image, mode_weights=weights)
    start = Start.of(state.with_modes(state.with_room(beam, 3), 2), scan)
    again = state.finish(scan, start.object, start.probe, start.positions, scale=start.scale)
    known = {"scale": start.scale, "intensities": 3.0 * start.intensities}
    bright = state.finish(scan, start.object, start.probe, start.positions, **known)
    np.testing.assert_allclose(bright.mode_weights, np.repeat(weights, 2, axis=1), rtol=1e-5)
    np.testing.assert_allclose(bright.object, np.sqrt(3) * image.object, rtol=1e-5)  # their mean is 1: it has the rest
    start = Start.of(state.with_room(image, 3), scan)
    again = state.finish(scan, start.object, start.probe, start.positions, scale=start.scale)
    assert again.mode_weights is None
    np.testing.assert_allclose(again.object, image.object, atol=1e-6)
    np.testing.assert_allclose(again.probe, image.probe, rtol=1e-5)
    np.testing.assert_array_equal(again.origin_px, image.origin_px)
    before, after = (score(i, scan, "numpy").train.fourier_error for i in (image, again))
    assert after == pytest.approx(before, rel=1e-5)
    lit = scan.raw.positions_px[scan.train_frames]
    direct = coverage_of(lit, scan.probe, image.origin_px.astype(np.int64), image.object.shape)
    np.testing.assert_allclose(again.coverage, direct, rtol=1e-5)


def test_an_image_is_made_of_the_training_frames_on_a_canvas_of_all_that_are_used() -> None:
    raw = make_scan()
    y, x = raw.positions_px.T
    first_column = x < 23.5
    last_row = np.flatnonzero((y > 64.5) & ~first_column)
    scan = PtychoDataContainer.of(raw, heldout=last_row, unused={"shaken": np.flatnonzero(first_column)})
    image = flat_image(scan)
    origin, shape = scan.canvas()
    np.testing.assert_array_equal(image.origin_px, origin)
    assert image.object.shape == shape
    dark = image.coverage == 0
    assert dark[-1].all()  # only held-out frames reach there
    assert (image.object[dark] == 0).all()
    assert origin[1] > PtychoDataContainer.of(raw).canvas()[0][1]  # unused frames lie beyond it


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

    def refine(self, image: Image, scan: Any, config: Any, runtime: Any, *, progress: Any) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer(image)


def spoiled(answer: Any) -> ReconstructionBackend:
    return Spoiler(answer)  # type: ignore[return-value]


@pytest.mark.spec("BE-18")
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda image: replace(image, object=image.object[::-1].copy()), "loss of the validation frames did not fall"),
        (lambda image: image, "no epoch lowered the loss of the validation frames"),
        (lambda image: replace(image, object=np.ones_like(image.object)), "constant"),
        (lambda image: replace(image, object=image.object * np.nan), "NaN or infinite"),
        (BackendError("it diverged in epoch 3"), "it diverged in epoch 3"),
    ],
)
def test_a_refined_image_that_is_no_better_is_discarded_and_said_so(
    scan: PtychoDataContainer, answer: Any, words: str
) -> None:
    initial = score(flat_image(scan), scan, "numpy")
    with pytest.warns(UserWarning, match=f"refined by engine 'numpy' was discarded: .*{words}"):
        done = refine(initial, CONFIG, backend=spoiled(answer))
    assert not done.kept
    assert done.best is initial
    assert done.note


@pytest.mark.spec("BE-18")
def test_a_broken_promise_is_no_discarded_image(scan: PtychoDataContainer) -> None:
    with pytest.raises(BackendError, match="it must be an Image"):
        refine(score(flat_image(scan), scan, "numpy"), CONFIG, backend=spoiled(lambda image: "an image"))


def test_nothing_to_refine_with_is_an_error(scan: PtychoDataContainer) -> None:
    config = replace(CONFIG, refinement=RefinementConfig(engine="none"))
    with pytest.raises(ConfigError, match=r"refinement.engine = 'none'.*Name one"):
        refine(score(flat_image(scan), scan, "numpy"), config)


def test_losses_are_told_in_the_statistics_of_the_scan(scan: PtychoDataContainer) -> None:
    config = replace(CONFIG, refinement=replace(CONFIG.refinement, epochs=1))
    other = replace(scan, statistics=replace(scan.statistics, mean_counts=5.0))
    one, two = (refine(score(flat_image(s), s, "numpy"), config).history for s in (scan, other))
    factor = Statistics.of(scan.raw, scan.train_frames).mean_counts / 5.0
    for name in ("train_loss", "test_loss"):
        assert two[name][0] == pytest.approx(one[name][0] * factor, rel=1e-6)
