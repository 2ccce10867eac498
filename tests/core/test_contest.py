"""When one variant of a scan is told from another: by made-up misfits of the frames that judge."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho_core.api.contest import LEAST_GAIN, Contest
from ptycho_core.data.orientation import matrix_of, oriented, rotated, turned
from ptycho_core.data.orientation_finding import OrientationFinding
from ptycho_core.data.raw import RawData
from ptycho_core.data.trials import Trial

FLOOR, EXCESS = 1000.0, 400.0


def contest(*gains: np.ndarray, noise: float = 0.0, excess: float = EXCESS) -> Contest:
    """A winner with a misfit of its own in every frame, and others that are worse by some gains (n,)."""
    n = len(gains[0])
    own = FLOOR + excess + 50 * np.random.default_rng(0).normal(size=n)
    own += FLOOR + excess - own.mean()
    out = Contest(64, noise)
    for name, rows in {"winner": own, **{f"other {i}": own + gain for i, gain in enumerate(gains)}}.items():
        figure = float(rows.mean())
        out.trials[name] = Trial(
            tried={}, misfit=figure, heldout_deviance=figure, train_deviance=1, fourier_error=0.1, seconds=0
        )
        out.misfits[name], out.floors[name] = rows, FLOOR
    return out


@pytest.mark.spec("FIND-3")
def test_a_part_of_the_misfit_above_the_noise_must_be_gained() -> None:
    """Below it, steps of a descent differ by as much from batch to batch, in all frames alike."""
    needed = LEAST_GAIN * EXCESS
    assert contest(np.full(12, 0.9 * needed)).alike == ("winner", "other 0")
    assert contest(np.full(12, 1.1 * needed)).alike == ("winner",)
    # nothing is left above the noise: then the noise alone decides
    assert contest(np.full(12, 0.9 * needed), excess=0.0).alike == ("winner",)
    gained, wanted = contest(np.full(12, 30.0)).gain("other 0")
    assert gained == pytest.approx(30.0)
    assert wanted == pytest.approx(needed)


@pytest.mark.spec("FIND-3")
def test_frames_must_agree_and_the_fewer_there_are_the_more() -> None:
    spread = np.array([60.0, 140.0])
    # mean 100, the same standard error of 20 or so with each
    assert contest(np.tile(spread, 6)).alike == ("winner",)
    assert contest(np.tile(spread, 2)).alike == ("winner", "other 0")
    few, many = (contest(np.tile(spread, k)).gain("other 0")[1] for k in (2, 20))
    assert few > 3 * many


@pytest.mark.spec("FIND-3")
def test_the_noise_of_the_counts_must_be_exceeded() -> None:
    assert contest(np.full(12, 30.0), noise=9.0).alike == ("winner",)
    assert contest(np.full(12, 30.0), noise=11.0).alike == ("winner", "other 0")
    far, near = np.full(12, 300.0), np.full(12, 5.0)
    assert contest(far, near).alike == ("winner", "other 1")


@pytest.mark.spec("FIND-6")
@pytest.mark.parametrize("before", ["none", "flip_x", "transpose", "transpose+flip_y"])
@pytest.mark.parametrize("found", ["none", "flip_y", "transpose+flip_x"])
@pytest.mark.parametrize("angle", [None, 20.0])
def test_the_option_is_in_place_of_what_was_given(before: str, found: str, angle: float | None) -> None:
    """What was found comes on top of what the scan was read with: its turn first, then its word."""
    places = np.random.default_rng(1).normal(size=(9, 2)) * (4, 1)
    raw = RawData.from_arrays(np.ones((9, 8, 8)), places)
    read = oriented(turned(raw, 31.0), before)
    right = oriented(turned(read, angle or 0.0), found).positions_px
    finding = OrientationFinding(orientation=found, certain=True, alike=(found,), rotate_deg=angle)
    option = finding.option({"orientation": before, "rotate_deg": "31.0"})
    if found == "none" and angle is None:
        assert option is None
        return
    assert option is not None
    words = dict(zip(option.split()[::2], option.split()[1::2], strict=True))
    again = rotated(raw.positions_px, float(words["--rotate"])) @ matrix_of(words.get("--orientation", "none")).T
    np.testing.assert_allclose(again, right, atol=1e-6)


def test_an_orientation_that_was_given_in_vain_is_taken_back() -> None:
    finding = OrientationFinding(orientation="flip_x", certain=True, alike=("flip_x",))
    assert finding.option({"orientation": "flip_x"}) == "--orientation none"
    assert finding.option() == "--orientation flip_x"
