"""The words that say how positions lie against the detector, and what they do to a scan."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ptycho_core.data.orientation import (
    ORIENTATIONS,
    composed,
    inverse_of,
    matrix_of,
    oriented,
    parse_orientation,
    rotated,
    turned,
)
from ptycho_core.data.raw import ObjectGuess, RawData, Source
from ptycho_core.errors import ConfigError

N = 8


def small_scan(**more) -> RawData:
    rng = np.random.default_rng(5)
    positions = rng.uniform(0, 30, size=(7, 2)) * (1, 2)
    probe = rng.normal(size=(2, N, N)) + 1j * rng.normal(size=(2, N, N))
    return RawData.from_arrays(rng.poisson(9.0, size=(7, N, N)), positions, probe, **more)


def test_the_words_are_the_eight_maps_of_the_square() -> None:
    assert len(ORIENTATIONS) == len(set(ORIENTATIONS)) == 8
    matrices = {tuple(matrix_of(word).ravel()) for word in ORIENTATIONS}
    assert len(matrices) == 8
    for word in ORIENTATIONS:
        np.testing.assert_array_equal(matrix_of(word) @ matrix_of(word).T, np.eye(2))


@pytest.mark.parametrize("word", ORIENTATIONS)
def test_parts_may_stand_in_any_order(word: str) -> None:
    for parts in itertools.permutations(word.split("+")):
        assert parse_orientation(" + ".join(parts).upper().replace("_", "-")) == word


@pytest.mark.parametrize("text", ["", "flip", "flip_y+flip_y", "none+flip_y", "transpose flip_y", "auto"])
def test_a_word_that_is_none_of_them_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="transpose, flip_y and flip_x"):
        parse_orientation(text)


@pytest.mark.spec("FIND-1")
def test_positions_are_exchanged_first_and_then_negated() -> None:
    raw = small_scan()
    y, x = raw.positions_px.T
    expected = {
        "none": (y, x),
        "flip_y": (-y, x),
        "flip_x": (y, -x),
        "flip_y+flip_x": (-y, -x),
        "transpose": (x, y),
        "transpose+flip_y": (-x, y),
        "transpose+flip_x": (x, -y),
        "transpose+flip_y+flip_x": (-x, -y),
    }
    for word, places in expected.items():
        found = oriented(raw, word)
        np.testing.assert_array_equal(found.positions_px, np.transpose(places))
        assert not found.positions_px.flags.writeable
        assert found.frames is raw.frames
        assert found.probe is raw.probe
        again = oriented(found, inverse_of(word))
        np.testing.assert_array_equal(again.positions_px, raw.positions_px)


def test_two_words_after_another_are_one_word() -> None:
    raw = small_scan()
    for first, second in itertools.product(ORIENTATIONS, repeat=2):
        both = oriented(oriented(raw, first), second).positions_px
        np.testing.assert_array_equal(oriented(raw, composed(first, second)).positions_px, both)
    assert composed("flip_y", "transpose") == "transpose+flip_x"


@pytest.mark.spec("FIND-1")
def test_what_was_done_is_said_and_a_given_object_is_left_out() -> None:
    guess = ObjectGuess(object=np.ones((40, 60), np.complex64), origin_px=np.zeros(2))
    raw = small_scan(object_guess=guess, source=Source(assumptions=("first",)))
    assert oriented(raw, "none") is raw
    assert turned(raw, 0.0) is raw
    found = oriented(raw, "flip_x+transpose")
    assert found.object_guess is None
    assert found.source.assumptions[:2] == (
        "first",
        "positions were exchanged (y, x), then negated in x (orientation transpose+flip_x)",
    )
    assert "object given with the scan was left out" in found.source.assumptions[2]
    assert turned(raw, -126.0).object_guess is None
    assert turned(raw, -126.0).source.assumptions[1] == "positions were turned by -126° from y towards x"


def test_a_turn_goes_from_y_towards_x() -> None:
    places = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, -1.0]])
    np.testing.assert_array_equal(rotated(places, 90.0), [[0, 1], [-2, 0], [1, 3]])
    np.testing.assert_array_equal(rotated(places, 90.0), places @ matrix_of("transpose+flip_y").T)
    np.testing.assert_array_equal(rotated(places, -90.0), places @ matrix_of("transpose+flip_x").T)
    np.testing.assert_array_equal(rotated(places, 180.0), -places)
    c, s = np.cos(np.radians(-126)), np.sin(np.radians(-126))
    np.testing.assert_allclose(rotated(places, -126.0)[2], [3 * c + s, 3 * s - c])
    np.testing.assert_allclose(rotated(rotated(places, 33.0), -33.0), places, atol=1e-14)
    with pytest.raises(ConfigError, match="finite"):
        rotated(places, float("nan"))
