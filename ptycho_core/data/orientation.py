"""Scans whose axes disagree with their positions: the eight words of the dihedral group, a turn, and the old flags.

A word acts on the **positions** (FIND-1): exchange (y, x) first, then signs. Frames, mask, background and probe stay as
they are stored, so that object and probe come out on the detector's axes.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .frames import TransposedFrames
from .raw import RawData, read_only

__all__ = [
    "MOVED",
    "ORIENTATIONS",
    "axes_of_motion",
    "composed",
    "inverse_of",
    "matrix_of",
    "orient_scan",
    "oriented",
    "oriented_probe",
    "parse_orientation",
    "rotated",
    "turned",
]

ORIENTATIONS = (
    "none",
    "flip_y",
    "flip_x",
    "flip_y+flip_x",
    "transpose",
    "transpose+flip_y",
    "transpose+flip_x",
    "transpose+flip_y+flip_x",
)
"""The eight maps of positions that keep the pixel grid. ``transpose`` comes first, then the signs."""

MOVED = "positions_moved"
"""Key of ``source.details`` of a scan whose positions somebody has brought to other axes: how it lies has been said."""

_PARTS = ("transpose", "flip_y", "flip_x")


def parse_orientation(text: str) -> str:
    """The word of :data:`ORIENTATIONS` that a text means; its parts may stand in any order.

    Raises:
        ConfigError: an unknown part, or one given twice.
    """
    parts = [part.strip().lower().replace("-", "_") for part in text.split("+")]
    if parts == ["none"]:
        return "none"
    if not set(parts) <= set(_PARTS) or len(set(parts)) < len(parts):
        raise ConfigError(
            f"orientation = {text!r}; it must be none, or some of transpose, flip_y and flip_x joined by '+', each "
            "once, such as transpose+flip_y (positions are exchanged first, then negated)."
        )
    return "+".join(part for part in _PARTS if part in parts)


def matrix_of(word: str) -> NDArray[np.float64]:
    """A, (2, 2) float64, of an orientation: position r = (y, x) becomes A r.

    Raises:
        ConfigError: as :func:`parse_orientation`.
    """
    parts = parse_orientation(word).split("+")
    axes = np.eye(2)[::-1] if "transpose" in parts else np.eye(2)
    signs = [-1.0 if "flip_y" in parts else 1.0, -1.0 if "flip_x" in parts else 1.0]
    return np.asarray(np.diag(signs) @ axes)


def _word_of(matrix: NDArray[np.float64]) -> str:
    return next(word for word in ORIENTATIONS if np.array_equal(matrix_of(word), matrix))


def composed(first: str, second: str) -> str:
    """The orientation that does what `first` does and then what `second` does."""
    return _word_of(matrix_of(second) @ matrix_of(first))


def inverse_of(word: str) -> str:
    """The orientation that undoes another."""
    return _word_of(matrix_of(word).T)


def axes_of_motion(matrix: NDArray[np.float64], *, near: bool) -> tuple[str, float]:
    """W and a (degrees) of A = ∓κ W R(a) with the least turn (FIND-4); the minus sign alone in a near field.

    Args:
        matrix: A, (2, 2) detector pixels (y, x) that a picture moves for each object pixel (y, x) that the beam does.
        near: whether the field is near. In a far field either sign may be, and the one that needs no change is taken.
    """
    choices = []
    for sign in (-1.0,) if near else (-1.0, 1.0):
        for number, word in enumerate(ORIENTATIONS):
            turn = sign * matrix_of(word).T @ np.asarray(matrix)
            if np.linalg.det(turn) > 0:
                angle = math.degrees(math.atan2(turn[1, 0] - turn[0, 1], turn[0, 0] + turn[1, 1]))
                choices.append((round(abs(angle), 6), number, word, angle))
    _, _, word, angle = min(choices)
    return word, angle


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array


_LEFT_OUT = "the object given with the scan was left out, its orientation being unknown after that"


def _moved(raw: RawData, positions_px: NDArray[np.float64], *words: str) -> RawData:
    """A scan with other positions, and what was done said; an object that came with it is left out."""
    if raw.object_guess is not None:
        words = (*words, _LEFT_OUT)
    return replace(
        raw,
        positions_px=read_only(positions_px),
        object_guess=None,
        source=replace(
            raw.source,
            assumptions=(*raw.source.assumptions, *words),
            details={**raw.source.details, MOVED: True},
        ),
    )


def oriented(raw: RawData, word: str) -> RawData:
    """Return the scan with its positions exchanged and negated as a word says; all else stays as it is stored.

    An object given with the scan is left out when anything changes, because it cannot be known in which of the two
    orientations it was made; ``source.assumptions`` says so.

    Args:
        raw: the scan.
        word: one of :data:`ORIENTATIONS`, its parts in any order.

    Raises:
        ConfigError: no such orientation.
    """
    word = parse_orientation(word)
    if word == "none":
        return raw
    done = {"transpose": "exchanged (y, x)", "flip_y": "negated in y", "flip_x": "negated in x"}
    said = ", then ".join(done[part] for part in word.split("+"))
    return _moved(raw, raw.positions_px @ matrix_of(word).T, f"positions were {said} (orientation {word})")


def oriented_probe(probe: NDArray[np.complex64], word: str) -> NDArray[np.complex64]:
    """P(A⁻¹ r) for positions that become A r: a probe (P, N, N) that was stored on the axes of the positions.

    It is turned about the middle ((N−1)/2, (N−1)/2) of its window.

    Args:
        probe: (P, N, N) complex modes.
        word: one of :data:`ORIENTATIONS`.
    """
    parts = parse_orientation(word).split("+")
    out = probe.swapaxes(-2, -1) if "transpose" in parts else probe
    out = out[..., ::-1, :] if "flip_y" in parts else out
    return np.ascontiguousarray(out[..., ::-1] if "flip_x" in parts else out)


def rotated(positions_px: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    """Positions (y, x) turned by an angle a: (y cos a − x sin a, y sin a + x cos a), from y towards x.

    Args:
        positions_px: (M, 2) float64 (y, x), any unit.
        degrees: a.

    Returns:
        (M, 2) float64.

    Raises:
        ConfigError: the angle is not a finite number.
    """
    if not math.isfinite(degrees):
        raise ConfigError(f"rotate = {degrees}; it must be a finite number of degrees.")
    c, s = _cos_sin(degrees)
    turn: NDArray[np.float64] = np.array([[c, s], [-s, c]], np.float64)
    return np.asarray(np.asarray(positions_px, np.float64) @ turn, np.float64)


def _cos_sin(degrees: float) -> tuple[float, float]:
    """Of an angle; a quarter turn is exact, where cos 90° is 6e-17 in floating point."""
    if degrees % 90 == 0:
        return ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))[int(degrees // 90) % 4]
    return math.cos(math.radians(degrees)), math.sin(math.radians(degrees))


def turned(raw: RawData, degrees: float) -> RawData:
    """Return the scan with its positions turned against the detector, as :func:`rotated`; an object is left out.

    Args:
        raw: the scan.
        degrees: from y towards x.

    Raises:
        ConfigError: the angle is not a finite number.
    """
    if degrees == 0:
        return raw
    return _moved(raw, rotated(raw.positions_px, degrees), f"positions were turned by {degrees:g}° from y towards x")


def _transposed(plane: NDArray[Any] | None) -> NDArray[Any] | None:
    return None if plane is None else _frozen(np.ascontiguousarray(plane.swapaxes(-2, -1)))


def orient_scan(raw: RawData, *, flip_y: bool = False, flip_x: bool = False, transpose: bool = False) -> RawData:
    """Return the scan with scan coordinates negated and the axes of every patch exchanged; frames stay lazy.

    This is what ``run_cdi_example`` means by these words, and not what :func:`oriented` does: exchanging the axes of a
    patch means exchanging those of frames, mask, background and probe, which leaves the forward model as it is: the far
    field of a transposed wave is the transposed far field. Positions are not exchanged. An object given with the scan
    is left out when anything changes; ``source.assumptions`` says so.

    Args:
        raw: the scan.
        flip_y: negate the y scan coordinate.
        flip_x: negate the x scan coordinate.
        transpose: exchange the axes of every patch.
    """
    if not (flip_y or flip_x or transpose):
        return raw
    words = [f"the {axis} scan coordinate was negated" for axis, flip in (("y", flip_y), ("x", flip_x)) if flip]
    if transpose:
        words.append("the axes of every frame, the mask, the background and the probe were exchanged")
    signs = np.array([-1.0 if flip_y else 1.0, -1.0 if flip_x else 1.0])
    moved = _moved(raw, raw.positions_px * signs, *words)
    if not transpose:
        return moved
    return replace(
        moved,
        frames=TransposedFrames(raw.frames),
        probe=_transposed(raw.probe),
        mask=_transposed(raw.mask),
        background=_transposed(raw.background),
    )
