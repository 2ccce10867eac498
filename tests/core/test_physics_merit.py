"""Figures of merit beside what noise allows: closed forms, exact sums, sampled frames."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import numpy as np
import pytest
from scipy.stats import poisson

from ptycho_core.physics.likelihood import RATE_FLOOR
from ptycho_core.physics.merit import (
    SUMS,
    Figures,
    expected_abs_amplitude_error,
    expected_deviance,
    expected_sq_amplitude_error,
    frame_sums,
    unit_deviance,
)

EXPECTATIONS = (expected_deviance, expected_abs_amplitude_error, expected_sq_amplitude_error)
LEVELS = [0.02, 1.0, 30.0, 1e4]


def exact(rate: float) -> list[float]:
    """The three expectations as sums over scipy's probabilities."""
    k = np.arange(math.ceil(rate + 14 * math.sqrt(rate) + 30), dtype=float)
    p = poisson.pmf(k, rate)
    error = np.sqrt(k) - math.sqrt(rate)
    log_ratio = np.log(np.where(k > 0, k, 1) / rate)
    return [float(p @ v) for v in (2 * (rate - k + k * log_ratio), np.abs(error), error**2)]


def true_rate(level: float, n_frames: int = 400) -> Any:
    """(J, 24, 24) uneven expected counts with the mean ``level``, from a tenth of it to about five times it."""
    rng = np.random.default_rng(11)
    shape = 0.1 + rng.exponential(size=(n_frames, 24, 24))
    return level * shape / shape.mean()


def scored(level: float) -> Figures:
    rate = true_rate(level)
    return Figures.of(frame_sums(rate, np.random.default_rng(3).poisson(rate).astype(np.float32), None))


@pytest.mark.spec("FM-22")
def test_the_expectations_are_exact_sums_at_any_rate() -> None:
    rng = np.random.default_rng(2)
    rates = np.concatenate(
        [
            [
                RATE_FLOOR,
                0.999999,
                1.0,
                1.0000001,
                2.0,
                3.0039,
                7.5,
                17.0,
                63.9999,
                64.0,
                64.0001,
                64.5,
                65.0,
                1234.567,
            ],
            np.exp(rng.uniform(math.log(RATE_FLOOR), math.log(1e5), 300)),
            rng.uniform(1, 130, 200),
        ]
    )
    wanted = np.array([exact(rate) for rate in rates]).T
    for expectation, values in zip(EXPECTATIONS, wanted, strict=True):
        np.testing.assert_allclose(expectation(rates), values, rtol=1.5e-5)


@pytest.mark.spec("FM-22")
def test_the_expectations_have_their_limits() -> None:
    big = np.array([1e7, 1e9 + 0.3, 1e12])
    small = np.array([RATE_FLOOR, 1e-7, 1e-6])
    for expectation, limit in zip(EXPECTATIONS, (1, 1 / math.sqrt(2 * math.pi), 1 / 4), strict=True):
        np.testing.assert_allclose(expectation(big), limit, rtol=1e-7)
    np.testing.assert_allclose(expected_deviance(small), -2 * small * np.log(small), rtol=1e-5)
    # λ is empty with 1 − λ, else one count: √λ (1 − λ) + λ (1 − √λ)
    np.testing.assert_allclose(
        expected_abs_amplitude_error(small), np.sqrt(small) * (1 - small) + small * (1 - np.sqrt(small)), rtol=1e-5
    )
    np.testing.assert_allclose(
        expected_sq_amplitude_error(small), small * (1 - small) + small * (1 - np.sqrt(small)) ** 2, rtol=2e-5
    )


@pytest.mark.spec("FM-22")
@pytest.mark.parametrize("rate", [0.03, 0.8, 5.3, 64.2, 900.0])
def test_the_expectations_are_means_of_drawn_counts(rate: float) -> None:
    k = np.random.default_rng(8).poisson(rate, 400_000).astype(float)
    error = np.sqrt(k) - math.sqrt(rate)
    drawn = (unit_deviance(k, np.full(k.shape, rate)), np.abs(error), error**2)
    for expectation, values in zip(EXPECTATIONS, drawn, strict=True):
        spread = values.std() / math.sqrt(len(k))
        assert float(expectation(np.array(rate))) == pytest.approx(values.mean(), abs=4 * spread)


def test_the_expectations_keep_the_shape_and_clamp_the_rate() -> None:
    rates = np.array([[[0.0, -1.0, 1e-12]], [[3.0, 70.0, 1.0]]], dtype=np.float32)
    for expectation in EXPECTATIONS:
        values = expectation(rates)
        assert values.shape == rates.shape
        assert values.dtype == np.float64
        np.testing.assert_array_equal(values[0, 0], expectation(np.array(RATE_FLOOR)))
        assert float(expectation(np.array(0.25))) == expectation(np.array([0.25]))[0]
        assert expectation(np.zeros((0, 4, 4))).shape == (0, 4, 4)


@pytest.mark.spec("FM-11")
def test_the_deviance_of_a_pixel_is_the_closed_form() -> None:
    k = np.array([0.0, 1.0, 3.0, 3.0, 0.0, 2.0, 2.5])
    lam = np.array([2.0, 1.0, 1.5, 6.0, 0.0, 0.0, 5.0])
    floor = RATE_FLOOR
    wanted = [
        4.0,
        0.0,
        2 * (-1.5 + 3 * math.log(2)),
        2 * (3 - 3 * math.log(2)),
        2 * floor,
        2 * (floor - 2 + 2 * math.log(2 / floor)),
        2 * (2.5 - 2.5 * math.log(2)),
    ]
    np.testing.assert_allclose(unit_deviance(k, lam), wanted, rtol=1e-14)


@pytest.mark.spec("FM-11", "FM-22")
def test_the_sums_are_those_of_the_definitions_by_frame() -> None:
    rng = np.random.default_rng(4)
    # more frames than are summed at once
    rate = np.exp(rng.uniform(-6, 6, (150, 16, 24)))
    counts = rng.poisson(1.3 * rate).astype(np.float32)
    k = counts.astype(float)
    wanted = {
        "deviance": unit_deviance(k, rate),
        "deviance_floor": expected_deviance(rate),
        "abs_error": np.abs(np.sqrt(k) - np.sqrt(rate)),
        "abs_floor": expected_abs_amplitude_error(rate),
        "sqrt_counts": np.sqrt(k),
        "sq_error": (np.sqrt(k) - np.sqrt(rate)) ** 2,
        "sq_floor": expected_sq_amplitude_error(rate),
        "counts": k,
    }
    sums = frame_sums(rate, counts, None)
    assert tuple(wanted) == SUMS
    assert sums.shape == (150, 8)
    assert sums.dtype == np.float64
    for column, values in zip(sums.T, wanted.values(), strict=True):
        np.testing.assert_allclose(column, values.sum(axis=(1, 2)), rtol=1e-12)


@pytest.mark.spec("FM-11", "FM-22")
def test_the_figures_are_ratios_of_the_totals() -> None:
    sums = np.array([[1.0, 2, 3, 4, 5, 6, 7, 8], [10.0, 3, 30, 8, 15, 90, 14, 16]])
    assert Figures.of(sums) == Figures(11 / 5, 33 / 20, 12 / 20, 96 / 24, 21 / 24, 2)


@pytest.mark.spec("FM-22")
@pytest.mark.parametrize("level", LEVELS)
def test_frames_drawn_from_the_truth_sit_on_the_floors(level: float) -> None:
    figures = scored(level)
    assert figures.deviance == pytest.approx(1, abs=0.03)
    assert figures.r_factor == pytest.approx(figures.r_factor_floor, rel=0.03)
    assert figures.fourier_error == pytest.approx(figures.fourier_error_floor, rel=0.03)


@pytest.mark.spec("FM-11")
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("wrong", ["flat", "half as much again"])
def test_a_wrong_image_explains_the_frames_worse(level: float, wrong: str) -> None:
    rate = true_rate(level)
    counts = np.random.default_rng(3).poisson(rate)
    wrong_rate = np.full(rate.shape, level) if wrong == "flat" else 1.5 * rate
    right, other = (frame_sums(r, counts, None) for r in (rate, wrong_rate))
    assert other[:, 0].sum() > 1.01 * right[:, 0].sum()
    if level >= 1:
        assert Figures.of(other).deviance > 1.1
    elif wrong == "flat":
        # with so few counts the reduced deviance knows no shape: that is why images are compared by their sums
        assert Figures.of(other).deviance == pytest.approx(1, abs=0.03)
    else:
        assert Figures.of(other).deviance < 0.9


@pytest.mark.spec("FM-11", "FM-22")
def test_bad_pixels_have_no_say_and_are_not_looked_at() -> None:
    rate = true_rate(5.0)
    counts = np.random.default_rng(3).poisson(rate).astype(float)
    mask = np.ones((24, 24), dtype=bool)
    mask[3:9, 5:20] = False
    spoiled_rate, spoiled = rate.copy(), counts.copy()
    spoiled_rate[:, ~mask] = np.nan
    spoiled[:, ~mask] = -1
    sums = frame_sums(spoiled_rate, spoiled, mask)
    np.testing.assert_array_equal(sums, frame_sums(rate, counts, mask))
    np.testing.assert_allclose(sums[:, SUMS.index("counts")], counts[:, mask].sum(axis=1))
    assert np.all(sums < frame_sums(rate, counts, None))


@pytest.mark.spec("FM-11")
def test_a_scan_scored_in_pieces_is_the_scan_scored_at_once() -> None:
    rate = true_rate(2.0, n_frames=101)
    counts = np.random.default_rng(3).poisson(rate)
    whole = frame_sums(rate, counts, None)
    pieces = np.concatenate([frame_sums(rate[s], counts[s], None) for s in (slice(0, 37), slice(37, None))])
    np.testing.assert_allclose(pieces, whole, rtol=1e-13)
    assert Figures.of(pieces).n_frames == 101
    halves = [Figures.of(whole[:37]), Figures.of(whole[37:])]
    weights = [whole[:37, 1].sum(), whole[37:, 1].sum()]
    assert np.average([h.deviance for h in halves], weights=weights) == pytest.approx(Figures.of(whole).deviance)


@pytest.mark.spec("FM-11")
def test_dark_frames_and_dark_pixels_stay_finite() -> None:
    rate = np.full((2, 8, 8), 0.5)
    rate[1, :, 2:] = 0.0
    counts = np.zeros((2, 8, 8))
    dark = Figures.of(frame_sums(rate[:1], counts[:1], None))
    assert dark.deviance == pytest.approx(1.0 / exact(0.5)[0], rel=2e-5)
    assert math.isnan(dark.r_factor)
    assert math.isnan(dark.r_factor_floor)
    assert math.isnan(dark.fourier_error)
    assert math.isnan(dark.fourier_error_floor)
    counts[1, 0, 5] = 3
    impossible = frame_sums(rate, counts, None)
    assert np.all(np.isfinite(impossible))
    # a count where none was expected weighs as much as the clamp lets it
    assert impossible[1, 0] == pytest.approx(16 * 1.0 + 2 * (3 * math.log(3 / RATE_FLOOR) - 3), rel=1e-6)


def test_a_rate_that_is_no_number_is_not_hidden() -> None:
    rate = true_rate(5.0, n_frames=3)
    rate[1, 4, 7] = np.nan
    sums = frame_sums(rate, np.ones(rate.shape), None)
    of_rate = [not name.endswith("counts") for name in SUMS]
    np.testing.assert_array_equal(np.isnan(sums[1]), of_rate)
    assert np.all(np.isfinite(sums[[0, 2]]))


@pytest.mark.spec("FM-11")
def test_figures_without_frames_or_pixels_are_nan_and_json_null() -> None:
    none = Figures.of(np.zeros((0, len(SUMS))))
    hidden = Figures.of(frame_sums(np.ones((2, 8, 8)), np.ones((2, 8, 8)), np.zeros((8, 8), dtype=bool)))
    for figures, n_frames in ((none, 0), (hidden, 2)):
        mapping = figures.to_mapping()
        assert mapping.pop("n_frames") == n_frames
        assert list(mapping.values()) == [None] * 5
    mapping = scored(1.0).to_mapping()
    assert json.loads(json.dumps(mapping, allow_nan=False)) == mapping
    assert list(mapping)[:3] == ["deviance", "r_factor", "r_factor_floor"]
    assert type(mapping["deviance"]) is float


def test_a_scan_is_summed_in_a_moment() -> None:
    rng = np.random.default_rng(0)
    rate = np.exp(rng.uniform(-9, 6, (516, 64, 64)))
    counts = rng.poisson(rate).astype(np.float32)
    frame_sums(rate[:1], counts[:1], None)
    started = time.process_time()
    frame_sums(rate, counts, None)
    # about 0.1 s; the limit leaves room for a slow, busy machine and none for a sum over probabilities by pixel
    assert time.process_time() - started < 1.0
