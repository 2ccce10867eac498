"""Losses of epochs as figures that can be judged: the deviance of the same frames, computed the long way here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from report_scan import make_scored

from ptycho_core.api.epochs import with_epoch_figures
from ptycho_core.api.score import oracle_counts, score
from ptycho_core.data.results import Scored
from ptycho_core.physics.epochs import epoch_deviance, epoch_fourier_error
from ptycho_core.physics.likelihood import amplitude_loss, poisson_loss
from ptycho_core.physics.merit import SUMS, unit_deviance


@pytest.fixture(scope="module")
def scored() -> Scored:
    return make_scored()


def losses_of(scored: Scored, factor: float, loss: str) -> dict[str, float]:
    """What a descent tells of an image whose scale is off by a factor."""
    scan, image = scored.scan, replace(scored.image, scale=scored.image.scale * factor)
    what = poisson_loss if loss == "poisson" else amplitude_loss
    out = {}
    for role, frames in (("train", scan.train_frames), ("test", scan.heldout_frames)):
        rate = oracle_counts(image, scan, frames)
        divisor = len(frames) * scan.statistics.mean_counts
        out[role] = what(rate, scan.raw.read_counts(frames), scan.raw.mask, divisor)
    return out


@pytest.mark.spec("FM-38")
def test_the_deviance_of_an_epoch_is_that_of_its_frames(scored: Scored) -> None:
    first, last = losses_of(scored, 1.6, "poisson"), losses_of(scored, 1.0, "poisson")
    history = {f"{role}_loss": [first[role], last[role]] for role in first}
    told = with_epoch_figures(history, scored, "poisson")
    assert scored.heldout is not None
    assert told["train_deviance"][-1] == pytest.approx(scored.train.deviance, rel=1e-6)
    assert told["test_deviance"][-1] == pytest.approx(scored.heldout.deviance, rel=1e-6)
    # another state: Σd by pixels, over the same expectation
    held, raw = scored.scan.heldout_frames, scored.scan.raw
    rate = oracle_counts(replace(scored.image, scale=scored.image.scale * 1.6), scored.scan, held)
    above = unit_deviance(raw.read_counts(held), rate)[:, raw.mask].sum()
    expected = scored.frame_sums[held, SUMS.index("deviance_floor")].sum()
    assert told["test_deviance"][0] == pytest.approx(above / expected, rel=1e-6)
    assert told["test_deviance"][0] > 2 * told["test_deviance"][1]
    assert told["train_loss"] == history["train_loss"]


@pytest.mark.spec("FM-38")
def test_an_amplitude_loss_is_told_as_fourier_error(scored: Scored) -> None:
    last = losses_of(scored, 1.0, "amplitude")
    told = with_epoch_figures({f"{role}_loss": [last[role]] for role in last}, scored, "amplitude")
    assert scored.heldout is not None
    assert told["train_fourier_error"] == pytest.approx([scored.train.fourier_error], rel=1e-5)
    assert told["test_fourier_error"] == pytest.approx([scored.heldout.fourier_error], rel=1e-5)
    assert "test_deviance" not in told


def test_losses_of_groups_are_not_taken_for_losses_of_frames(scored: Scored) -> None:
    last = losses_of(scored, 1.0, "poisson")
    history = {f"{role}_loss": [value] for role, value in last.items()}
    told = with_epoch_figures(history, scored, "poisson", training=False)
    assert set(told) == {"train_loss", "test_loss", "test_deviance"}


def test_without_held_out_frames_or_losses_there_is_nothing_to_tell() -> None:
    bare = score(make_scored(bare=True).image, make_scored(bare=True).scan, "pytorch")
    frames, raw = bare.scan.train_frames, bare.scan.raw
    divisor = len(frames) * bare.scan.statistics.mean_counts
    loss = poisson_loss(oracle_counts(bare.image, bare.scan, frames), raw.read_counts(frames), raw.mask, divisor)
    assert set(with_epoch_figures({"train_loss": [loss]}, bare, "poisson")) == {"train_loss", "train_deviance"}
    assert with_epoch_figures({}, bare, "poisson") == {}


def test_a_loss_below_that_of_a_perfect_fit_is_no_loss_of_these_frames(scored: Scored) -> None:
    last = losses_of(scored, 1.0, "poisson")
    told = with_epoch_figures({"train_loss": [last["train"]], "test_loss": [last["test"] - 10.0]}, scored, "poisson")
    assert set(told) == {"train_loss", "test_loss", "train_deviance"}


def test_nothing_to_divide_by_is_no_number() -> None:
    assert np.isnan(epoch_deviance([1.0, 2.0], 3.0, 0.0, 0.0)).tolist() == [True, True]
    assert np.isnan(epoch_fourier_error([1.0], 3.0, 0.0)).tolist() == [True]
    np.testing.assert_allclose(epoch_deviance([1.0, 2.0], 3.0, 1.0, 4.0), [1.0, 2.5])
