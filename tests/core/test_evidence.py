"""Evidence against an image of nothing: unbiased by noise, blind to what is wrong in every frame alike."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ptycho_core.physics.evidence import LEAST_COUNTS, Evidence, NullModel, evenness

SIDE, J, HELD = 14, 300, 60


def pattern() -> NDArray[np.float64]:
    """An uneven pattern (SIDE, SIDE) of mean 1, some of it dark."""
    y, x = np.mgrid[:SIDE, :SIDE]
    light = np.exp(-((y - 5.2) ** 2 + 0.6 * (x - 8.1) ** 2) / 14) * (1 + 0.5 * np.sin(x + 2 * y)) + 0.02
    return light / light.mean()


def structured(spread: float, seed: int = 3) -> NDArray[np.float64]:
    """Rates (J, SIDE, SIDE) that differ from frame to frame by so much of each pixel."""
    waves = np.random.default_rng(seed).normal(size=(J, SIDE, SIDE))
    return pattern() * np.exp(spread * waves - spread**2 / 2)


def judged(
    rate: NDArray[np.float64], counts: NDArray[np.float64], mask: NDArray[np.bool_] | None = None
) -> tuple[Evidence, Evidence]:
    """Training frames (all but the last HELD) and held-out frames against the null model."""
    train = slice(0, J - HELD)
    null = NullModel.of(counts[train].sum(axis=0), mask)
    assert null is not None
    k, lam = counts[:, null.pixels], rate[:, null.pixels]
    mean_rate = (lam[train] / lam[train].sum(axis=1, keepdims=True)).mean(axis=0)
    predicted = null.predictions(lam, mean_rate, k)
    weight = null.weight(predicted[train])
    held = slice(J - HELD, J)
    return (
        null.evidence(k[train], predicted[train], weight, trained=True),
        null.evidence(k[held], predicted[held], weight, trained=False),
    )


@pytest.mark.spec("FM-33")
@pytest.mark.parametrize("mean", [0.05, 1.0, 200.0])
def test_noise_is_no_structure_and_foretells_nothing(mean: float) -> None:
    rng = np.random.default_rng(1)
    rate = structured(0.4)
    scores, structures = [], []
    for _ in range(12):
        counts = rng.poisson(np.broadcast_to(pattern() * mean, rate.shape)).astype(float)
        for found in judged(rate, counts):
            scores.append(found.foretold.sum() / np.sqrt(found.variance.sum()))
            structures.append(found.structure.sum() / np.sqrt(found.structure_variance.sum()))
    # 24 draws of a standard score: their mean lies within 0.8, and their spread about 1
    assert abs(np.mean(scores)) < 0.8
    assert 0.6 < np.std(scores) < 1.45
    assert abs(np.mean(structures)) < 0.8
    assert 0.6 < np.std(structures) < 1.45


@pytest.mark.spec("FM-33")
@pytest.mark.parametrize("mean", [2.0, 200.0, 2e4])
def test_the_true_rates_foretell_all_of_it_at_any_dose(mean: float) -> None:
    rate = structured(0.4)
    counts = np.random.default_rng(2).poisson(rate * mean).astype(float)
    for found in judged(rate, counts):
        assert found.foretold.sum() / found.structure.sum() == pytest.approx(1, abs=0.08)
        assert found.foretold.sum() / found.predicted.sum() == pytest.approx(1, abs=0.05)
        assert found.foretold.sum() > 20 * np.sqrt(found.variance.sum())


@pytest.mark.spec("FM-33")
def test_rates_of_other_frames_foretell_nothing_however_bright() -> None:
    rate = structured(0.4)
    counts = np.random.default_rng(2).poisson(rate * 1e5).astype(float)
    held = judged(rate[np.random.default_rng(8).permutation(J)], counts)[1]
    assert abs(held.foretold.sum()) < 0.05 * held.structure.sum()
    assert abs(held.foretold.sum()) < 0.05 * held.predicted.sum()


@pytest.mark.spec("FM-33")
def test_half_of_the_structure_is_half_of_it() -> None:
    """Rates that know one of two independent causes of the differences foretell its part of the structure."""
    known, unknown = structured(0.2, seed=3), structured(0.2, seed=4) / pattern()
    counts = np.random.default_rng(2).poisson(known * unknown * 2000).astype(float)
    held = judged(known, counts)[1]
    assert held.foretold.sum() / held.structure.sum() == pytest.approx(0.5, abs=0.05)
    assert held.foretold.sum() / held.predicted.sum() == pytest.approx(1, abs=0.05)


@pytest.mark.spec("FM-33")
def test_what_is_wrong_in_every_frame_alike_drops_out() -> None:
    rate = structured(0.3)
    counts = np.random.default_rng(2).poisson(rate * 500).astype(float)
    true = judged(rate, counts)[1]
    stop = np.where(
        pattern() > 2, 0.2, 1.7
    )  # an efficiency of the pixels, and frames twice as bright as they should be
    wrong = judged(rate * stop * (1 + np.arange(J) % 2)[:, None, None], counts)[1]
    np.testing.assert_allclose(wrong.foretold, true.foretold, rtol=0.02, atol=0.02 * np.abs(true.foretold).max())
    assert wrong.predicted.sum() == pytest.approx(true.predicted.sum(), rel=0.05)


@pytest.mark.spec("FM-33")
def test_a_product_is_never_more_than_its_factors() -> None:
    counts = np.random.default_rng(2).poisson(structured(0.3) * 1e5).astype(float)
    for seed in (3, 9):
        found = judged(structured(0.3, seed), counts)[1]
        assert np.all(found.foretold**2 <= found.predicted * found.spread * (1 + 1e-9))


@pytest.mark.spec("FM-33")
def test_weights_are_the_root_mean_square_of_what_is_foretold() -> None:
    null = NullModel(pattern=np.array([0.5, 0.3, 0.2]), total=100.0, pixels=np.ones((1, 3), bool))
    predicted = np.array([[50.0, 50.0, 0.0], [10.0, 2.0, 8.0]])  # shapes (.5, .5, 0) and (.5, .1, .4)
    np.testing.assert_allclose(null.weight(predicted), [0.5, np.sqrt(0.13), np.sqrt(0.08)])
    np.testing.assert_allclose(null.weight(predicted[:1])[2], 0.2)  # the mean pattern at least
    counts = np.array([[6.0, 3.0, 1.0]])
    found = null.evidence(counts, np.array([[5.0, 4.0, 1.0]]), np.array([0.5, 0.4, 0.25]), trained=False)
    assert found.spread[0] == pytest.approx(1 / 5 + 1 / 2.5)
    shrunk = 0.6 / 0.65  # what is foretold, 1/4 + 1/2.5, is no more than that
    assert found.foretold[0] == pytest.approx(((3 - 3) * 1 / 4 + (1 - 2) * -1 / 2.5) * np.sqrt(shrunk))
    assert found.variance[0] == pytest.approx((3 / 16 + 2 / 6.25) * shrunk)
    assert found.predicted[0] == pytest.approx((1 / 4 + 1 / 2.5) * shrunk)
    each = np.array([1, 0, 1]) - counts[0] + 10 * null.pattern**2 - 10 * 10 * null.pattern / 100
    assert found.structure[0] == pytest.approx(np.sum(each / [5, 4, 2.5]))


@pytest.mark.spec("FM-33")
def test_a_frame_of_which_far_too_much_is_foretold_weighs_no_more_than_another() -> None:
    """Such as one at the rim of a scan, whose object is hardly determined."""
    rate = structured(0.02)
    counts = np.random.default_rng(2).poisson(rate * 1e6).astype(float)
    wild = rate.copy()
    wild[-5] = structured(1.5, seed=9)[0]
    held = judged(wild, counts)[1]
    assert held.foretold.sum() / held.structure.sum() == pytest.approx(1 - 1 / HELD, abs=0.03)
    assert held.foretold.sum() / held.predicted.sum() == pytest.approx(1 - 1 / HELD, abs=0.03)


def test_bad_pixels_and_dark_ones_are_not_compared() -> None:
    counts = np.random.default_rng(2).poisson(structured(0.3) * 3).astype(float)
    counts[:, 0, 0], counts[:, 3, 4] = 0, 1e6
    mask = np.ones((SIDE, SIDE), bool)
    mask[3, 4] = False
    null = NullModel.of(counts.sum(axis=0), mask)
    assert null is not None
    assert not null.pixels[0, 0]
    assert not null.pixels[3, 4]
    assert null.pattern.sum() == pytest.approx(1)
    assert null.total == counts[:, null.pixels].sum()
    assert NullModel.of(np.full((SIDE, SIDE), LEAST_COUNTS - 1.0), None) is None


@pytest.mark.spec("FM-34")
def test_unlikeness_is_the_spread_of_the_frames_without_noise() -> None:
    for mean, spread in ((30.0, 0.3), (3000.0, 0.05)):
        counts = np.random.default_rng(5).poisson(structured(spread) * mean).astype(float)
        null = NullModel.of(counts.sum(axis=0), None)
        assert null is not None
        found, sd, squares = null.unlikeness(counts[:, null.pixels], trained=True)
        assert found / squares == pytest.approx(np.expm1(spread**2), rel=0.15)
        assert found > 5 * sd
    scaled = counts * 0.01  # no counts: they spread less than their mean would have them
    null = NullModel.of(scaled.sum(axis=0), None)
    assert null is not None
    found, sd, _ = null.unlikeness(scaled[:, null.pixels], trained=True)
    assert found < -5 * sd


@pytest.mark.spec("FM-34")
def test_evenness_tells_a_pattern_from_an_even_detector() -> None:
    rng = np.random.default_rng(6)
    figures = [evenness(rng.poisson(50.0, 400).astype(float)) for _ in range(200)]
    assert abs(np.mean([found / sd for found, sd in figures])) < 0.25
    assert 0.85 < np.std([found / sd for found, sd in figures]) < 1.15
    found, sd = evenness(rng.poisson(50 * (1 + 0.3 * np.sin(np.arange(4000)))).astype(float))
    assert found == pytest.approx(0.045, rel=0.1)
    assert found > 5 * sd
    assert evenness(np.zeros(10))[1] == np.inf
