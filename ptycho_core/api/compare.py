"""Scoring one image against another, or against the truth, whatever they are held in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..data.raw import ObjectGuess, RawData
from ..data.results import Image, Scored
from ..data.run import Run
from ..errors import Cancelled, DataError, PtychoError

if TYPE_CHECKING:
    from ..data.findings import Comparison

__all__ = ["Comparable", "compare"]

Comparable = Path | str | Run | Scored | Image | ObjectGuess | RawData
"""Whatever has an object in it; a path is a ``reconstruction.h5``, a scan with its object, or an NPZ that has one."""


@dataclass(frozen=True)
class _Placed:
    """An object (H, W) and scan coordinates (y, x) of its first pixel; coverage (H, W) and frame centres if known."""

    object: NDArray[np.complex64]
    origin_px: NDArray[np.float64]
    coverage: NDArray[np.float32] | None = None
    positions_px: NDArray[np.float64] | None = None


def compare(estimate: Comparable, reference: Comparable, *, measurement: str | None = None) -> Comparison:
    """Score an image against another after registration and removal of global phase, phase ramp and scale.

    Args:
        estimate: image to score.
        reference: the truth, or the image to compare with.
        measurement: what the frames of a scan file are, where it does not say.

    Raises:
        DataError: no object where one was given.
        EvaluationError: the two cannot be scored: constant, or without common pixels.
    """
    from ..evaluation.metrics import compare_objects

    first, second = _placed(estimate, measurement), _placed(reference, measurement)
    return compare_objects(
        first.object,
        first.origin_px,
        second.object,
        second.origin_px,
        coverage=first.coverage,
        positions_px=first.positions_px,
    )


def _placed(given: Comparable, measurement: str | None) -> _Placed:
    if isinstance(given, (Path, str)):
        return _read(Path(given), measurement)
    if isinstance(given, Run):
        given = given.scored
    if isinstance(given, Scored):
        image = given.image
        return _Placed(image.object, image.origin_px, image.coverage, image.positions_px[given.scan.used_frames])
    if isinstance(given, Image):
        return _Placed(given.object, given.origin_px, given.coverage, given.positions_px)
    if isinstance(given, RawData):
        if given.object_guess is None:
            raise DataError(f"{given.source.path or 'scan'}: a scan without an object; compare images.")
        given = given.object_guess
    if isinstance(given, ObjectGuess):
        return _Placed(given.object, given.origin_px)
    raise DataError(
        f"a {type(given).__name__} holds no image; allowed: a path, Run, Scored, Image, ObjectGuess, RawData."
    )


def _plain_npz(path: Path) -> _Placed | None:
    """An ``.npz`` that holds an ``object`` and no frames, or None."""
    from ..io.guarded import in_child

    found: _Placed | None = in_child(_object_of_npz, path, about=path)
    return found


def _object_of_npz(path: Path) -> _Placed | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            if "object" not in file.files:
                return None
            obj = np.asarray(file["object"])
            origin = np.asarray(file["origin_px"] if "origin_px" in file.files else np.zeros(2), dtype=np.float64)
    except MemoryError:
        raise
    except Exception:  # not an npz, or one that only the scan reader can judge; the library says so in many ways
        return None
    if obj.ndim != 2 or not np.iscomplexobj(obj) or origin.shape != (2,):
        raise DataError(
            f"{path}: 'object' is {obj.dtype} of shape {obj.shape} and 'origin_px' has shape {origin.shape}; "
            "they must be complex (H, W) and (2,)."
        )
    return _Placed(obj.astype(np.complex64), origin)


def _read(path: Path, measurement: str | None) -> _Placed:
    """Read an object from any of the files that have one.

    Raises:
        DataError: no such file, or no object in it.
    """
    from ..io import read_scan
    from ..io.reconstruction_file import read_reconstruction
    from ..io.result_switch import where_it_lies

    path = where_it_lies(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    plain = _plain_npz(path)
    if plain is not None:
        return plain
    try:
        stored = read_reconstruction(path)
        return _Placed(stored.object, stored.origin_px, stored.coverage, stored.positions_px)
    except DataError as first:
        try:
            guess = read_scan(path, measurement=measurement).object_guess
        except Cancelled:
            raise
        except PtychoError as second:
            raise DataError(f"{path}: neither a reconstruction ({first}) nor a scan ({second})") from second
    if guess is None:
        raise DataError(f"{path}: a scan without an object; give a reconstruction.h5, or a scan that carries one.")
    return _Placed(guess.object, guess.origin_px)
