"""Draft of a mapping for a file of no known dialect: which array is probably what, and what could not be told.

Names, shapes, units and values are looked at. What rests on a size or a name alone stands beside its line as a comment,
and what is not known is a line that is commented out: a draft is to be read by a person.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..io.candidate import Candidate, examine
from ..io.guarded import in_child
from ..io.measurement import guess_measurement
from ..io.readers.arrays import ArrayFile, ArrayHeader, Hdf5Arrays, arrays_of
from ..io.units import length_unit
from ..text import listed
from .mapping_draft import Draft, Frames, small_array, words_of
from .suggest_instrument import add_planes, add_probe, add_quantities

__all__ = ["suggest_mapping"]

_LEAST_SIDE = 8
_SAMPLE = 8
_POSITION_WORDS = ("pos", "trans", "scan", "motor", "stage", "coord", "encoder", "point", "sample", "step", "xy", "yx")


def suggest_mapping(path: Path | str) -> str:
    """Draft a mapping for a file, as YAML with comments.

    Args:
        path: HDF5, NPZ, NPY, Zarr or MAT.

    Raises:
        DataError: the file is no container of arrays, or nothing in it looks like frames; what it holds is listed.
    """
    draft: str = in_child(_suggested, path, about=path)
    return draft


def _suggested(path: Path | str) -> str:
    file = examine(path) or Candidate(Path(path), "other", (), {})
    arrays = arrays_of(file)
    if arrays is None:
        raise DataError(f"{path}: holds no arrays by name; a mapping is for HDF5, NPZ, NPY, Zarr and MAT files.")
    headers = arrays.headers()
    draft = Draft()
    frames = _frames(arrays, headers, draft)
    if frames is None:
        held = listed((f"{name} {header.shape} {header.dtype}" for name, header in headers.items()), 50) or "nothing"
        raise DataError(
            f"{path}: nothing in it looks like frames (three axes or four, real numbers, {_LEAST_SIDE} pixels a side "
            f"at least). It holds: {held}."
        )
    _positions(arrays, headers, frames, draft)
    add_probe(arrays, headers, frames, draft)
    add_planes(arrays, headers, frames, draft)
    add_quantities(arrays, headers, draft)
    return _text(path, headers, draft)


def _text(path: Path | str, headers: dict[str, ArrayHeader], draft: Draft) -> str:
    head = [
        f"# Draft of a mapping of {Path(path).name}, from names, shapes and values. Read it before you trust it, then:",
        f"#   ptycho run {path} --map mapping.yaml",
    ]
    unknown = [f"# ? {line}" for line in draft.unknown]
    rest = [name for name in headers if name not in draft.used]
    left = (
        ["# not used:"] + [f"#   {name} {headers[name].shape} {headers[name].dtype}" for name in rest] if rest else []
    )
    return "\n".join([*head, *draft.lines, *unknown, *left]) + "\n"


# --- frames ---------------------------------------------------------------------------------------------------------


def _frames(arrays: ArrayFile, headers: dict[str, ArrayHeader], draft: Draft) -> Frames | None:
    stacks = {n: h for n, h in headers.items() if h.dtype.kind in "biuf" and _is_stack(h.shape)}
    if not stacks:
        return None
    name = max(stacks, key=lambda n: math.prod(stacks[n].shape))
    shape = stacks[name].shape
    others = [n for n, h in stacks.items() if n != name and h.shape == shape]
    scans = _scans(name, [n for n, h in stacks.items() if h.shape[-2:] == shape[-2:] or h.shape[:2] == shape[:2]])
    if scans is not None:
        draft.scan, others = (scans[0], name.split("/")[scans[0]]), [n for n in others if _parted(name, n) != scans[0]]
        draft.unknown.append(f"which scan: '*' stands for {', '.join(scans[1])}; choose with --entry.")
    counts = {n for h in headers.values() if h.dtype.kind in "iuf" for n in _lengths(h.shape)}
    axes, remark = _axes(shape, counts, _is_matlab(arrays, name))
    draft.used |= {name, *others}
    draft.say("frames:")
    draft.say(f"  path: {draft.path(name)}", f"{shape} {stacks[name].dtype}")
    if others:
        draft.unknown.append(
            f"{', '.join(others)} {'has' if len(others) == 1 else 'have'} the same shape as the frames: other scans? "
            "Put '*' where their names differ, and choose with --entry."
        )
    draft.say(f"  axes: [{', '.join(axes)}]", remark)
    size = (shape[axes.index("y")], shape[axes.index("x")])
    M = math.prod(n for n, word in zip(shape, axes, strict=True) if word in ("frame", "scan_y", "scan_x"))
    _look_at_values(arrays, name, axes, draft)
    return Frames(name, axes, M, size)


def _parted(name: str, other: str) -> int | None:
    """The one part of two paths that differs, the last apart; None where there is none, or more."""
    a, b = name.split("/"), other.split("/")
    if len(a) != len(b):
        return None
    different = [k for k, (left, right) in enumerate(zip(a, b, strict=True)) if left != right]
    return different[0] if len(different) == 1 and different[0] < len(a) - 1 else None


def _scans(name: str, stacks: list[str]) -> tuple[int, list[str]] | None:
    """Which part of a path names the scan where groups of one structure hold one each, and the names; or None."""
    parts = [(k, n) for n in stacks if (k := _parted(name, n)) is not None]
    if not parts:
        return None
    at = parts[0][0]
    return at, [name.split("/")[at], *(n.split("/")[at] for k, n in parts if k == at)]


def _is_stack(shape: tuple[int, ...]) -> bool:
    """Whether a shape may be that of frames: two axes of a detector, and more than one frame."""
    long = [n for n in shape if n > 1]
    return len(long) in (3, 4) and sorted(long)[-2] >= _LEAST_SIDE


def _lengths(shape: tuple[int, ...]) -> list[int]:
    """How many positions an array of a shape may hold."""
    long = [n for n in shape if n > 1]
    if len(long) == 1:
        return long
    return [max(long)] if len(long) == 2 and min(long) in (2, 3) else []


def _is_matlab(arrays: ArrayFile, name: str) -> bool:
    return isinstance(arrays, Hdf5Arrays) and arrays.attribute(name, "MATLAB_class") is not None


def _axes(shape: tuple[int, ...], counts: set[int], matlab: bool) -> tuple[tuple[str, ...], str]:
    """Names of the axes of frames, and what that rests on.

    Args:
        shape: of the frames.
        counts: numbers of positions that other arrays may hold.
        matlab: whether MATLAB wrote it, whose axes lie in the file from last to first.
    """
    long = [axis for axis, n in enumerate(shape) if n > 1]
    yx = ["x", "y"] if matlab else ["y", "x"]
    because = "MATLAB stores axes from last to first" if matlab else ""
    words = ["one"] * len(shape)
    if len(long) == 4:
        for axis, word in zip(long, ["scan_y", "scan_x", *yx], strict=True):
            words[axis] = word
        return tuple(words), because or "a raster; should x be the slow axis of the scan, exchange scan_y and scan_x"
    counted = [axis for axis in long if shape[axis] in counts]
    sides = [shape[axis] for axis in long]
    if len(counted) == 1:
        frame, remark = counted[0], f"{shape[counted[0]]} is the number of positions"
    elif sides[0] == sides[1] != sides[2]:
        frame, remark = long[2], "the last axis differs from two that are equal"
    else:
        frame, remark = long[0], "the first axis was taken to count the frames"
    rest = [axis for axis in long if axis != frame]
    if frame == long[-1] and not matlab and isinstance(remark, str):
        remark += "; if MATLAB wrote it, x and y may be exchanged"
    words[frame] = "frame"
    for axis, word in zip(rest, yx, strict=True):
        words[axis] = word
    return tuple(words), "; ".join(filter(None, [because, remark]))


def _look_at_values(arrays: ArrayFile, name: str, axes: tuple[str, ...], draft: Draft) -> None:
    """What the values of a few frames tell: counts or amplitude, zero frequency in the middle or at the corner."""
    sample = _some_frames(arrays, name, axes)
    guess = guess_measurement(sample)
    if guess is None:
        draft.say("  # measurement: counts", "? counts or amplitude (their root): the values do not tell; state it")
        draft.unknown.append("measurement of the frames: counts or amplitude.")
    else:
        why = "whole numbers" if guess == "counts" else "their squares are whole numbers"
        draft.say(f"  measurement: {guess}", f"by the values: {why}")
    mean = np.nan_to_num(sample.astype(np.float64)).clip(0).mean(axis=0)
    height, width = mean.shape
    inner = np.zeros(mean.shape, bool)
    inner[height // 4 : height - height // 4, width // 4 : width - width // 4] = True
    light = mean[inner].mean() if inner.any() else 0.0
    corner = np.fft.fftshift(mean)[inner].mean() if inner.any() else 0.0
    if corner > 4 * light:
        draft.say("  zero_frequency: corner", "the light is at the corners of the frames")


def _some_frames(arrays: ArrayFile, name: str, axes: tuple[str, ...]) -> NDArray[Any]:
    """A few frames as stored, (n, y, x)."""
    shape = arrays.header(name).shape
    counted = [axis for axis, word in enumerate(axes) if word in ("frame", "scan_y", "scan_x")]
    M = math.prod(shape[axis] for axis in counted)
    found = []
    with arrays.opened(name) as array:
        for number in np.unique(np.linspace(0, M - 1, min(M, _SAMPLE)).astype(np.int64)):
            index: list[Any] = [slice(None) if word in "yx" else 0 for word in axes]
            for axis, place in zip(
                counted, np.unravel_index(int(number), tuple(shape[axis] for axis in counted)), strict=True
            ):
                index[axis] = int(place)
            frame = np.asarray(array[tuple(index)])
            found.append(frame if axes.index("y") < axes.index("x") else frame.T)
    return np.stack(found)


# --- positions ------------------------------------------------------------------------------------------------------


def _positions(arrays: ArrayFile, headers: dict[str, ArrayHeader], frames: Frames, draft: Draft) -> None:
    real = {n: h for n, h in headers.items() if h.dtype.kind in "iuf" and n not in draft.used}
    tables = [n for n, h in real.items() if _is_table(h.shape, frames.M)]
    lines = {n: h for n, h in real.items() if math.prod(h.shape) == frames.M and frames.M not in (0, 1)}
    pair = _pair(list(lines))
    best = max(tables, key=_tells, default=None)
    if best is not None and (pair is None or _tells(best) >= min(map(_tells, pair))):
        _table(arrays, best, headers[best], draft)
    elif pair is not None:
        _two_lines(arrays, pair, headers, draft)
    else:
        draft.unknown.append(
            f"positions: no array holds two numbers for each of {frames.M} frames. Give them with --positions FILE, or "
            "the step of a raster with --scan_step."
        )
        return
    draft.unknown.append(
        "whether positions are of the beam or of the sample, and which axis is which: ptycho orient tries all eight."
    )


def _is_table(shape: tuple[int, ...], M: int | None) -> bool:
    long = [n for n in shape if n > 1]
    return len(long) == 2 and M in long and (min(long) in (2, 3) or (M in (2, 3) and max(long) in (2, 3)))


def _tells(name: str) -> int:
    """How much a name says that it is of positions."""
    return sum(word.startswith(_POSITION_WORDS) for word in words_of(name))


def _pair(names: list[str]) -> tuple[str, str] | None:
    """Two names that differ by a y and an x only, the most telling of them."""
    found = []
    for name in names:
        other = re.sub(r"(?i)y(?=[^a-z]*$|[_./-])|(?<![a-z])y|y(?=[A-Z]|pos|coord|$)", "\0", name, count=1)
        for x in ("x", "X"):
            wanted = other.replace("\0", x)
            if "\0" in other and wanted in names:
                found.append((name, wanted))
    return max(found, key=lambda pair: _tells(pair[0]), default=None)


def _table(arrays: ArrayFile, name: str, header: ArrayHeader, draft: Draft) -> None:
    long = [n for n in header.shape if n > 1]
    columns = next((n for n in reversed(long) if n in (2, 3)), 2)
    last = "".join(words_of(name.rpartition("/")[2]))
    word = ("xyz" if columns == 3 else "xy") if columns == 3 or "xy" in last or "trans" in last else "yx"
    axes = ["one" if n == 1 else "" for n in header.shape]
    places = [axis for axis, n in enumerate(header.shape) if n > 1]
    at = next(axis for axis in reversed(places) if header.shape[axis] == columns)
    for axis in places:
        axes[axis] = word if axis == at else "frame"
    draft.used.add(name)
    draft.say("positions:")
    draft.say(f"  path: {draft.path(name)}", str(header.shape))
    draft.say(f"  axes: [{', '.join(axes)}]", "? which column is y cannot be told by the shape")
    _unit(header.unit, small_array(arrays, name), draft)


def _two_lines(arrays: ArrayFile, pair: tuple[str, str], headers: dict[str, ArrayHeader], draft: Draft) -> None:
    draft.used |= set(pair)
    draft.say("positions:")
    for axis, name in zip("yx", pair, strict=True):
        shape = headers[name].shape
        words = ["one" if n == 1 else "frame" for n in shape]
        raster = sum(n > 1 for n in shape) == 2
        if raster:
            words = ["one" if n == 1 else word for n, word in zip(shape, ["scan_y", "scan_x"], strict=False)]
        plain = shape == (max(shape, default=1),)
        draft.say(
            f"  {axis}: {draft.path(name)}"
            if plain
            else f"  {axis}: {{path: {draft.path(name)}, axes: [{', '.join(words)}]}}",
            str(shape),
        )
    _unit(headers[pair[0]].unit, np.stack([small_array(arrays, name).ravel() for name in pair], axis=-1), draft)


def _unit(stated: str, values: NDArray[Any], draft: Draft) -> None:
    """The unit of positions: as stated, or by the size of their span."""
    if stated and (length_unit(stated) is not None or stated.lower() in ("px", "pixel", "pixels")):
        draft.say(f"  # unit: {stated}", "as the file states")
        return
    finite = values[np.isfinite(values)]
    span = float(np.ptp(finite)) if finite.size else 0.0
    also = f"; the file says {stated!r}" if stated else ""
    unit = "m" if span < 5e-3 else "mm" if span < 0.2 else "um" if span < 5 else "px"
    if 5 <= span < 300:
        draft.say("  # unit: um", f"? they span {span:.4g}, which may be um, or object pixels (px){also}; state it")
        draft.unknown.append("unit of the positions: um or px.")
    else:
        draft.say(f"  unit: {unit}", f"? by their span of {span:.4g} only{also}")
        draft.unknown.append("unit of the positions: it was taken by their size.")
