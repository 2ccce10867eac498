"""Pictures of a run show what they say: limits, scale bars, colours, patterns; and they are safe in threads."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
import threading
from collections.abc import Callable

import numpy as np
import pytest
from report_scan import HELDOUT, SHAKEN, N, make_scored, pixels

from ptycho_core.api.score import oracle_counts, score
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.results import Scored
from ptycho_core.evaluation.metrics import compare_objects
from ptycho_core.physics.probe import add_modes, aperture_probe
from ptycho_core.report.figures import (
    complex_colours,
    coverage_figure,
    object_view,
    paired_views,
    probe_figure,
    scale_bar,
)
from ptycho_core.report.plots import (
    frc_figure,
    losses_figure,
    patterns_figure,
    r_map_figure,
)


@pytest.fixture(scope="module")
def scored() -> Scored:
    return make_scored(pixel_size_m=26e-9)


def test_view_removes_the_global_phase_and_keeps_the_rest() -> None:
    rng = np.random.default_rng(1)
    phase = rng.normal(0, 0.3, (60, 90)) + 0.5 * (np.arange(90) > 60)
    obj = (1.5 * np.exp(1j * (phase + 3.0))).astype(np.complex64)
    view = object_view(obj, np.ones(obj.shape, dtype=np.float32))
    shown = view.phase[~np.isnan(view.phase)]
    assert np.angle(np.mean(np.exp(1j * shown))) == pytest.approx(0, abs=2e-3)
    turned = phase + 3.0 - np.angle(view.taken_off.wave(obj.shape))
    rows, columns = view.corner_px
    expected = turned[rows : rows + view.phase.shape[0], columns : columns + view.phase.shape[1]]
    difference = np.angle(np.exp(1j * (shown - expected[~np.isnan(view.phase)])))
    assert np.abs(difference).max() < 1e-5  # nothing but a constant and a ramp was removed
    assert view.taken_off.ramp_rad_per_px[1] > 10 * abs(view.taken_off.ramp_rad_per_px[0])  # the step is along x
    assert not view.phase_wraps


def test_view_crops_to_the_covered_region_and_ignores_the_rim() -> None:
    obj = np.full((80, 120), 100 * np.exp(2.5j), dtype=np.complex64)  # garbage where nothing was lit
    coverage = np.zeros((80, 120), dtype=np.float32)
    coverage[20:50, 30:90] = 6.0
    obj[20:50, 30:90] = np.linspace(0.9, 1.1, 60)
    coverage[:10, :10] = 0.05
    view = object_view(obj, coverage)
    assert abs(view.corner_px[0] - 20) <= 2
    assert abs(view.corner_px[1] - 30) <= 2
    assert abs(view.amplitude.shape[0] - 30) <= 4
    # the outermost pixels of the region may be garbage, a few per cent of it: the percentiles see to the rest
    inner = view.amplitude[4:-4, 4:-4]
    assert inner.min() >= 0.9
    assert inner.max() <= 1.1 + 1e-6
    assert 0.5 < view.coverage_threshold < 0.7


def test_limits_do_not_follow_a_wild_pixel_and_never_meet() -> None:
    obj = np.ones((50, 50), dtype=np.complex64)
    obj[25, 25] = 1000
    view = object_view(obj, np.ones(obj.shape, dtype=np.float32))
    low, high = view.amplitude_limits
    assert 0.9 < low < 1 < high < 1.1
    assert view.phase_limits[0] < 0 < view.phase_limits[1]


def test_a_phase_that_goes_around_gets_the_whole_circle() -> None:
    y, x = np.mgrid[:60, :90]
    winding = np.exp(1j * (np.angle(x - 30 + 1j * (y - 20)) + np.random.default_rng(3).uniform(-3, 3, (60, 90))))
    view = object_view(winding.astype(np.complex64), np.ones(winding.shape, dtype=np.float32))
    assert view.phase_wraps
    assert not view.phase_unwrapped
    assert view.phase_limits == (-math.pi, math.pi)


def test_a_phase_of_many_turns_is_unwrapped_and_a_ramp_is_taken_off() -> None:
    y, x = np.mgrid[:60, :90]
    hill = 9.0 * np.exp(-((y - 25.0) ** 2 + (x - 50.0) ** 2) / 300)
    obj = np.exp(1j * (hill + 0.2 * y - 0.15 * x + 1.0)).astype(np.complex64)
    view = object_view(obj, np.ones(obj.shape, dtype=np.float32))
    assert view.phase_unwrapped
    assert not view.phase_wraps
    rows, columns = (slice(c, c + n) for c, n in zip(view.corner_px, view.phase.shape, strict=True))
    np.testing.assert_allclose(
        np.exp(1j * view.phase), (obj / view.taken_off.wave(obj.shape))[rows, columns], atol=1e-4
    )
    steps = np.abs(np.diff(view.phase, axis=1))
    assert np.nanmax(steps) < 1.2
    assert np.nanmax(view.phase) - np.nanmin(view.phase) > 7.5


def test_before_and_after_are_shown_on_one_scale_and_one_region(scored: Scored) -> None:
    after = scored.image
    deeper = np.abs(after.object) * np.exp(1.5j * np.angle(after.object))
    before = dataclasses.replace(
        after,
        object=(0.8 * np.pad(deeper * np.exp(0.7j), ((3, 2), (4, 1)), mode="edge")).astype(np.complex64),
        coverage=np.pad(np.maximum(after.coverage, 1.0), ((3, 2), (4, 1)), mode="edge"),  # lit all over
        origin_px=after.origin_px - (3, 4),
    )
    alone = object_view(after.object, after.coverage)
    first, last = paired_views(before, after)
    assert first.phase.shape == last.phase.shape == alone.phase.shape
    assert (np.array(first.corner_px) - last.corner_px).tolist() == [3, 4]
    assert first.amplitude_limits == last.amplitude_limits
    assert first.phase_limits == last.phase_limits
    # each scale has room for the other: the darker amplitude, and the deeper phase
    assert last.amplitude_limits[0] < 0.9 * alone.amplitude_limits[0]
    assert last.amplitude_limits[1] == alone.amplitude_limits[1]
    assert np.ptp(last.phase_limits) > 1.2 * np.ptp(alone.phase_limits)
    both = ~np.isnan(first.phase) & ~np.isnan(last.phase)
    np.testing.assert_allclose(first.amplitude[both], 0.8 * last.amplitude[both], rtol=1e-5)


def test_a_large_object_is_averaged_within_its_covered_pixels() -> None:
    obj = np.full((100, 3000), 2.0, dtype=np.complex64)
    obj[:, 1500:] = 4.0
    view = object_view(obj, np.ones(obj.shape, dtype=np.float32))
    assert view.step_px == 3
    assert view.amplitude.shape == (34, 1000)
    assert (np.nanmin(view.amplitude), np.nanmax(view.amplitude)) == (2.0, 4.0)


def test_nothing_lit_shows_everything() -> None:
    obj = np.ones((20, 30), dtype=np.complex64)
    view = object_view(obj, np.zeros((20, 30), dtype=np.float32))
    assert view.amplitude.shape == (20, 30)
    assert not np.isnan(view.amplitude).any()


@pytest.mark.parametrize(
    ("width_px", "pixel_size_m", "length_px", "label"),
    [
        (200, None, 50, "50 px"),
        (64, None, 20, "20 px"),
        (300, None, 100, "100 px"),
        (200, 26e-9, 1e-6 / 26e-9, "1 µm"),
        (64, 26e-9, 500e-9 / 26e-9, "500 nm"),
        (100, 3e-11, 1e-9 / 3e-11, "1 nm"),
        (50, 3e-11, 500e-12 / 3e-11, "500 pm"),
        (1000, 1e-5, 200, "2 mm"),
    ],
)
def test_scale_bar_is_round_and_at_most_a_third(
    width_px: float, pixel_size_m: float | None, length_px: float, label: str
) -> None:
    length, text = scale_bar(width_px, pixel_size_m)
    assert length == pytest.approx(length_px)
    assert text == label
    assert width_px / 8 < length <= width_px / 3 * (1 + 1e-9)


def test_complex_colours_turn_with_the_phase_and_dim_with_the_amplitude() -> None:
    red, green, blue = (complex_colours(np.exp(2j * math.pi * k / 3) * np.ones(1), 1.0)[0] for k in range(3))
    assert np.argmax(red) == 0
    assert np.argmax(green) == 1
    assert np.argmax(blue) == 2
    np.testing.assert_allclose(complex_colours(np.array([0.25j]), 1.0), complex_colours(np.array([1j]), 1.0) / 4)
    assert complex_colours(np.zeros((2, 2), complex), 0.0).max() == 0


def test_many_modes_are_limited_to_the_strongest() -> None:
    probe = add_modes(aperture_probe(N, 9.0), 11, fraction=0.02)
    assert pixels(probe_figure(probe, None)).shape == pixels(probe_figure(probe[:8], None)).shape


def test_predicted_counts_are_those_of_the_oracle() -> None:
    scored = make_scored(noise=False)
    raw, frames = scored.scan.raw, np.array([0, 33, 76])
    true = dataclasses.replace(scored.image, scale=2e4)
    predicted = oracle_counts(true, scored.scan, frames)
    np.testing.assert_allclose(predicted[:, raw.mask], raw.read_counts(frames)[:, raw.mask], rtol=2e-4, atol=1e-3)


def test_typical_frames_are_among_those_that_are_used(scored: Scored) -> None:
    r = scored.frame_r_factors()
    assert np.flatnonzero(np.isnan(r)).tolist() == [5, *SHAKEN]
    known = r[np.isfinite(r)]
    names, frames = zip(*scored.typical_frames().items(), strict=True)
    assert names == ("best", "median", "worst")
    assert r[list(frames)].tolist() == [known.min(), np.sort(known)[37], known.max()]
    # the literature's: Σ|√k − √λ| / Σ√k
    lam, raw = oracle_counts(scored.image, scored.scan, np.array([33]))[0], scored.scan.raw
    k = raw.read_counts([33])[0].astype(float)
    wanted = np.abs(np.sqrt(k) - np.sqrt(lam))[raw.mask].sum() / np.sqrt(k)[raw.mask].sum()
    assert r[33] == pytest.approx(wanted, rel=1e-6)


def test_patterns_of_a_wrong_object_look_different(scored: Scored) -> None:
    wrong_image = dataclasses.replace(scored.image, object=np.conj(scored.image.object[:, ::-1]).copy())
    wrong = score(wrong_image, scored.scan, "pytorch")
    assert np.abs(pixels(patterns_figure(scored)) - pixels(patterns_figure(wrong))).mean() > 0.01


def reddish(png: bytes) -> int:
    """Pixels of the colour that held-out and unused frames are drawn in."""
    red, green, blue = np.moveaxis(pixels(png), -1, 0)
    return int(((red > 0.7) & (green < 0.5) & (blue < 0.35)).sum())


@pytest.mark.parametrize("draw", [r_map_figure, coverage_figure])
def test_frames_of_each_role_are_shown_as_such(scored: Scored, draw: Callable[[Scored], bytes]) -> None:
    scan = scored.scan
    plain = PtychoDataContainer.of(scan.raw, unused={"shaken <stage>": SHAKEN})
    one, two = (draw(dataclasses.replace(scored, scan=s)) for s in (scan, plain))
    assert reddish(one) > reddish(two) + 20  # held-out frames stand out
    counted = score(scored.image, PtychoDataContainer.of(scan.raw, heldout=HELDOUT), "pytorch")
    assert (pixels(draw(counted)) != pixels(one)).any()  # and so do unused ones


def test_the_map_tells_what_noise_allows(scored: Scored) -> None:
    figures = dataclasses.replace(scored.train, r_factor_floor=1.3 * scored.train.r_factor_floor)
    other = dataclasses.replace(scored, train=figures)
    assert (pixels(r_map_figure(other)) != pixels(r_map_figure(scored))).any()


def test_pictures_of_odd_runs_are_drawn(scored: Scored) -> None:
    poisson = losses_figure({"train_loss": [1.0, -2.0, -3.0], "learning_rate": [1.0] * 3})
    assert pixels(poisson).std() > 0.02
    assert pixels(losses_figure({"train_loss": [float("nan")]})).std() > 0.005
    empty = dataclasses.replace(scored, frame_sums=np.zeros((77, 8)))
    assert pixels(r_map_figure(empty)).std() > 0.02
    assert empty.typical_frames() == {}
    assert pixels(patterns_figure(empty)).std() > 0.005


def test_figures_are_safe_in_threads_and_leave_matplotlib_alone(scored: Scored) -> None:
    import matplotlib

    settings = dict(matplotlib.rcParams)
    alone = r_map_figure(scored), patterns_figure(scored)
    together: list[tuple[bytes, bytes]] = []
    threads = [
        threading.Thread(target=lambda: together.append((r_map_figure(scored), patterns_figure(scored))))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == [alone] * 3
    assert dict(matplotlib.rcParams) == settings


def test_import_is_light_and_pyplot_is_never_loaded() -> None:
    code = (
        "import sys, ptycho_core.report.write, ptycho_core.report.figures as f, ptycho_core.report.plots as p\n"
        "assert not {'matplotlib', 'h5py', 'scipy', 'skimage'} & set(sys.modules), 'heavy import'\n"
        "p.losses_figure({'train_loss': [2.0, 1.0]})\n"
        "assert 'matplotlib.figure' in sys.modules and 'matplotlib.pyplot' not in sys.modules, 'pyplot'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_frc_figure_draws_each_curve(scored: Scored) -> None:
    r = scored.image
    noisy = (r.object + 0.05 * np.random.default_rng(2).normal(size=r.object.shape)).astype(np.complex64)
    curve = compare_objects(noisy, r.origin_px, r.object, r.origin_px, coverage=r.coverage).frc
    one, two = (
        frc_figure({"a": curve}),
        frc_figure({"a": curve, "b": dataclasses.replace(curve, correlation=curve.correlation / 2)}),
    )
    assert np.abs(pixels(one) - pixels(two)).max() > 0.3
