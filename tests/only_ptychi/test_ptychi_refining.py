"""Refining an image that something else has made."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ptychi_scans import N, config_of, container, cut_truth, likeness, make_object, make_scan, scored, train

from ptycho_backend_ptychi.choices import losses_for
from ptycho_backend_ptychi.refinement import _lay_out
from ptycho_core.api.score import heldout_loss, score
from ptycho_core.config import RefinementConfig
from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.data.results import Image
from ptycho_core.enginekit.loss_choice import refinement_loss
from ptycho_core.enginekit.stitching import Stitcher, make_image, probe_weights
from ptycho_core.errors import Cancelled, ConfigError, DataError
from ptycho_core.physics.patches import extract
from ptycho_core.plugins.registry import load_backend
from ptycho_core.protocol import no_progress

pytestmark = pytest.mark.ptychi

HELD_OUT = [4, 9, 17, 22]


def image_of(raw, contrast: float, probe=None, texture: float = 0.0) -> Image:
    """The true object with its contrast reduced, as an engine would hand it over that has not seen what is held out."""
    probe = raw.probe if probe is None else probe
    true = make_object(texture=texture)
    poor = (np.abs(true) ** contrast * np.exp(1j * contrast * np.angle(true))).astype(np.complex64)
    corners, rest = integer_corners(np.delete(raw.positions_px, HELD_OUT, axis=0), N)
    stitcher = Stitcher.for_scan(container(raw))
    weights = probe_weights(probe, rest)
    # positions may be wrong, and then reach beyond the object that was simulated
    wide = np.pad(poor, 8, mode="edge")
    stitcher.add(extract(wide, corners + 8, N), weights, corners)
    obj, coverage = stitcher.finish(float(weights.max()))
    return make_image(obj, coverage, stitcher.origin_px, probe, 1.0, raw.positions_px)


def with_roles(raw) -> PtychoDataContainer:
    return container(raw, HELD_OUT)


def refined(raw, initial, algorithm="lsqml", options=None, progress=no_progress, **refinement):
    config = config_of(algorithm, options, refinement=RefinementConfig(**refinement))
    return load_backend("ptychi").refine(initial, with_roles(raw), config, progress=progress)


@pytest.mark.parametrize("algorithm", ["lsqml", "rpie", "epie", "dm", "raar", "autodiff"])
def test_an_image_gets_better(algorithm):
    raw = make_scan(2, bad=True)
    initial = image_of(raw, 0.5)
    events = []
    done = refined(raw, initial, algorithm, progress=events.append, epochs=20, probe=False, patience=20)
    before, after = (scored(found, raw).train.fourier_error for found in (initial, done))
    assert after < 0.2 * before
    assert likeness(done.object, cut_truth(done)) > 0.97
    assert done.object.shape == initial.object.shape
    assert done.origin_px.tolist() == initial.origin_px.tolist()
    assert {e.stage for e in events} == {"refine"}
    assert {"train_loss", "test_loss", "epoch"} <= set(events[0].metrics)
    np.testing.assert_allclose(done.probe, initial.probe, atol=2e-6 * np.abs(initial.probe).max())


def test_the_initial_image_is_left_as_it_is():
    raw = make_scan(1, step=4.5)
    initial = image_of(raw, 0.5)
    kept = [a.copy() for a in (initial.object, initial.probe, initial.positions_px)]
    refined(raw, initial, epochs=2, positions=True)
    for now, then in zip((initial.object, initial.probe, initial.positions_px), kept, strict=True):
        np.testing.assert_array_equal(now, then)


def test_what_cannot_get_better_is_kept():
    """Noise drowns the scan: the truth is the best image there is, and every sweep makes it worse."""
    raw = make_scan(1, noise=True, total=300)
    initial = image_of(raw, 1.0)
    events = []
    done = refined(raw, initial, "epie", progress=events.append, epochs=50, probe=False, patience=4)
    assert len(events) == 4
    for name in ("object", "coverage", "origin_px", "probe", "positions_px"):
        np.testing.assert_array_equal(getattr(done, name), getattr(initial, name))
        assert not np.shares_memory(getattr(done, name), getattr(initial, name))
    assert done.scale == initial.scale


@pytest.mark.parametrize(("algorithm", "total", "n_batch"), [("lsqml", 1e3, 5), ("rpie", 1e4, None)])
def test_the_best_epoch_is_returned_in_the_loss_refined_with(algorithm, total, n_batch):
    """Core, which scores through the engine's forward model, finds the least loss that was told on the way."""
    raw = make_scan(2, noise=True, total=total, texture=0.5)
    initial = image_of(raw, 0.7, texture=0.5)
    # the image has put right what was read
    raw = replace(raw, positions_px=raw.positions_px + np.random.default_rng(2).uniform(-1, 1, raw.positions_px.shape))
    scan = with_roles(raw)
    told: list[float] = []
    chosen = {"epochs": 14, "patience": 14, "probe": False, "batch_size": n_batch}
    done = refined(raw, initial, algorithm, progress=lambda e: told.append(e.metrics["test_loss"]), **chosen)
    best = int(np.argmin(told)) + 1
    assert best < len(told)
    until_there = refined(raw, initial, algorithm, **(chosen | {"epochs": best}))
    np.testing.assert_array_equal(done.object, until_there.object)
    loss = refinement_loss(config_of(algorithm), losses_for(config_of(algorithm)))
    assert loss == {"lsqml": "poisson", "rpie": "amplitude"}[algorithm]
    sums = [heldout_loss(score(i, scan, "ptychi", load_backend("ptychi")), loss) for i in (done, initial)]
    assert sums[0] < sums[1]
    expected = told[best - 1] * len(HELD_OUT) * scan.statistics.mean_counts
    if loss == "poisson":  # from Σ(λ − k ln λ) to Σ2(λ − k + k ln(k/λ))
        counts = raw.read_counts(HELD_OUT).astype(np.float64)
        expected = 2 * (expected - np.sum(counts - counts * np.log(np.maximum(counts, 1))))
    assert sums[0] == pytest.approx(expected, rel=1e-3)


def test_without_held_out_frames_the_last_state_is_returned():
    raw = make_scan(1, noise=True, total=300)
    initial, events = image_of(raw, 1.0), []
    config = config_of("epie", refinement=RefinementConfig(epochs=6, probe=False, patience=2))
    done = load_backend("ptychi").refine(initial, container(raw), config, progress=events.append)
    assert len(events) == 6
    assert all("test_loss" not in event.metrics for event in events)
    assert np.abs(done.object - initial.object).max() > 1e-2


def test_held_out_frames_are_not_iterated_on():
    raw = make_scan(1, step=4.5)
    values = raw.frames.values.copy()
    values[HELD_OUT] = values[HELD_OUT][:, ::-1, ::-1]
    spoiled = replace(raw, frames=replace(raw.frames, values=values))
    initial = image_of(raw, 0.9)
    seen: list[list[float]] = []
    for scan in (raw, spoiled):
        losses: list[tuple[float, float]] = []
        refined(
            scan,
            initial,
            epochs=3,
            patience=9,
            progress=lambda e, to=losses: to.append((e.metrics["train_loss"], e.metrics["test_loss"])),
        )
        seen.append(losses)
    assert [a for a, _ in seen[0]] == [a for a, _ in seen[1]]
    assert seen[1][-1][1] > 2 * seen[0][-1][1]


def test_unused_frames_are_not_looked_at():
    """Neither their counts nor their positions, which may be anywhere."""
    raw = make_scan(1, step=4.5)
    values, positions, out = raw.frames.values.copy(), raw.positions_px.copy(), [0, 13]
    values[out] *= 50
    positions[out] += 5000
    spoiled = replace(raw, frames=replace(raw.frames, values=values), positions_px=positions)
    initial = image_of(raw, 0.9)
    config = config_of(refinement=RefinementConfig(epochs=3, positions=True))
    images = []
    for scan in (raw, spoiled):
        used = PtychoDataContainer.of(scan, heldout=HELD_OUT, unused={"a beam dump": out})
        images.append(load_backend("ptychi").refine(initial, used, config))
        room = np.array(_lay_out(initial, used, config).slices.shape[1:]) - initial.object.shape
        assert room.max() <= 2 * (1 + 2)
    np.testing.assert_array_equal(images[0].object, images[1].object)
    np.testing.assert_array_equal(images[1].positions_px[out], initial.positions_px[out])
    lit = load_backend("ptychi").refine(initial, with_roles(raw), config)
    assert lit.coverage.sum() > 1.05 * images[0].coverage.sum()


def test_the_loss_is_that_of_refining():
    """That of training has no part in it."""
    raw = make_scan(1, step=4.5, noise=True, total=2e3)
    initial, engine = image_of(raw, 0.8), load_backend("ptychi")
    images, losses = {}, {}
    for name, refinement in {
        "default": RefinementConfig(epochs=3),
        "poisson": RefinementConfig(epochs=3, loss="poisson"),
        "amplitude": RefinementConfig(epochs=3, loss="amplitude"),
    }.items():
        for loss in ("amplitude", "poisson"):
            events = []
            config = config_of(loss=loss, refinement=refinement)
            images[name, loss] = engine.refine(initial, with_roles(raw), config, progress=events.append).object
            losses[name, loss] = events[0].metrics["test_loss"]
    assert losses["poisson", "amplitude"] < 0 < losses["amplitude", "poisson"]
    assert np.abs(images["poisson", "amplitude"] - images["amplitude", "amplitude"]).max() > 1e-3
    np.testing.assert_array_equal(images["default", "amplitude"], images["poisson", "amplitude"])
    for name in ("default", "amplitude"):
        np.testing.assert_array_equal(images[name, "amplitude"], images[name, "poisson"])


@pytest.mark.parametrize("algorithm", ["rpie", "autodiff"])
def test_an_algorithm_without_poisson_takes_amplitudes_by_default(algorithm):
    raw = make_scan(1, step=4.5)
    initial = image_of(raw, 0.8)
    default, amplitude = (refined(raw, initial, algorithm, epochs=2, **more) for more in ({}, {"loss": "amplitude"}))
    np.testing.assert_array_equal(default.object, amplitude.object)
    with pytest.raises(ConfigError, match=rf"refinement\.loss = 'poisson' is not supported by algorithm '{algorithm}'"):
        refined(raw, initial, algorithm, epochs=2, loss="poisson")


def test_the_noise_of_an_amplitude_needs_one():
    raw = make_scan(1, step=4.5)
    initial, noise = image_of(raw, 0.8), {"noise_std": 0.8}
    usual, other = (refined(raw, initial, "lsqml", o, epochs=2, loss="amplitude") for o in ({}, noise))
    assert np.abs(usual.object - other.object).max() > 1e-4
    config = config_of("lsqml", noise, loss="poisson")
    with pytest.raises(ConfigError, match=r"noise_std = 0.8 has no effect with refinement\.loss = 'poisson'"):
        load_backend("ptychi").refine(initial, container(raw), config)


def test_frames_in_an_update_are_those_of_refining():
    raw = make_scan(1, step=4.5)
    initial = image_of(raw, 0.8)
    five, nine, both = (
        refined(raw, initial, "lsqml", options, epochs=2, **more).object
        for options, more in [
            ({"batch_frames": 5}, {}),
            ({}, {"batch_size": 9}),
            ({"batch_frames": 5}, {"batch_size": 9}),
        ]
    )
    np.testing.assert_array_equal(both, nine)
    assert np.abs(both - five).max() > 1e-4
    for algorithm in ("dm", "raar"):
        with pytest.raises(ConfigError, match=rf"refinement\.batch_size = 9 has no effect on algorithm '{algorithm}'"):
            refined(raw, initial, algorithm, epochs=2, batch_size=9)
    with pytest.raises(ConfigError, match=r"refinement\.batch_size = 9 has no effect"):
        train(raw, config_of("dm", refinement=RefinementConfig(batch_size=9)))


def test_modes_are_added_and_explain_more():
    raw = make_scan(3)
    initial = image_of(raw, 0.9, probe=raw.probe[:1])
    one = refined(raw, initial, epochs=15, patience=15)
    three = refined(raw, initial, epochs=15, patience=15, probe_modes=3)
    assert one.probe.shape == (1, N, N)
    assert three.probe.shape == (3, N, N)
    assert scored(three, raw).train.fourier_error < 0.7 * scored(one, raw).train.fourier_error
    overlaps = three.probe.reshape(3, -1).conj() @ three.probe.reshape(3, -1).T
    assert np.abs(overlaps - np.diag(np.diag(overlaps))).max() < 1e-3 * np.abs(overlaps).max()


def beyond_affine(positions, true) -> float:
    """RMS error of positions, pixels, beyond an affine map, which object and positions can share unseen."""
    off = positions - true
    terms = np.concatenate([np.ones((len(true), 1)), true - true.mean(axis=0)], axis=1)
    return float(np.sqrt(np.mean((off - terms @ np.linalg.lstsq(terms, off, rcond=None)[0]) ** 2)))


@pytest.mark.parametrize(
    ("algorithm", "options", "left_over"),
    [
        ("lsqml", {}, 0.4),
        ("lsqml", {"position_correction": "cross_correlation"}, 0.98),
        ("rpie", {}, 0.6),
        ("dm", {}, 0.6),
        ("autodiff", {}, 0.6),
    ],
)
def test_wrong_positions_are_put_right(algorithm, options, left_over):
    true = make_scan(1).positions_px
    raw = make_scan(1, positions_error=0.8, texture=0.5)
    initial = image_of(raw, 0.9, texture=0.5)
    chosen = {"epochs": 25, "patience": 25, "probe": False}
    fixed = refined(raw, initial, algorithm, **chosen)
    moved = refined(raw, initial, algorithm, options, positions=True, **chosen)
    assert beyond_affine(moved.positions_px, true) < left_over * beyond_affine(raw.positions_px, true)
    assert scored(moved, raw).train.fourier_error < 0.9 * scored(fixed, raw).train.fourier_error
    np.testing.assert_array_equal(fixed.positions_px, raw.positions_px)


def test_positions_of_held_out_frames_follow():
    """They were off as all were: each finds its place in an image that it has no part in."""
    true = make_scan(1).positions_px
    raw = make_scan(1, positions_error=0.8, texture=0.5)
    done = refined(raw, image_of(raw, 0.9, texture=0.5), positions=True, probe=False, epochs=25, patience=25)
    drift = (done.positions_px - true).mean(axis=0)
    before, after = (
        np.linalg.norm(p[HELD_OUT] - true[HELD_OUT], axis=1).mean()
        for p in (raw.positions_px, done.positions_px - drift)
    )
    assert after < 0.6 * before


def test_a_position_stays_within_its_limit():
    raw = make_scan(1, positions_error=1.5, texture=0.5)
    initial = image_of(raw, 0.9, texture=0.5)
    done = refined(raw, initial, positions=True, position_limit_px=0.25, epochs=12, patience=12)
    away = np.abs(done.positions_px - raw.positions_px)
    assert 0.2 < away.max() <= 0.25 + 1e-3
    # in y and in x, as every engine does
    assert np.linalg.norm(away, axis=1).max() > 0.3
    # and from where it was read, however far the image has moved it before
    further = config_of(refinement=RefinementConfig(positions=True, position_limit_px=0.25, epochs=6))
    again = load_backend("ptychi").refine(done, container(raw), further)
    assert np.abs(again.positions_px - done.positions_px).max() > 1e-3
    assert np.abs(again.positions_px - raw.positions_px).max() <= 0.25 + 1e-3


def test_cancelled_passes_through():
    raw = make_scan(1, step=4.5)

    def stop(_):
        raise Cancelled

    with pytest.raises(Cancelled):
        refined(raw, image_of(raw, 0.5), progress=stop, epochs=3)


def test_an_image_of_another_scan_is_refused():
    raw = make_scan(1, step=4.5)
    initial = image_of(raw, 0.5)
    with pytest.raises(DataError, match="refine it with the scan it was made from"):
        refined(raw.subset(range(25)), initial, epochs=1)
    with pytest.raises(DataError, match="lie beyond the image to refine"):
        refined(raw, replace(initial, origin_px=initial.origin_px + 0.3), epochs=1)
    with pytest.raises(ConfigError, match=r"position_step = 0.3 has no effect while refinement\.positions = False"):
        refined(raw, initial, "lsqml", {"position_step": 0.3}, epochs=1)
