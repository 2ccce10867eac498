"""Arrays as a mapping names them: with their axes in the order that is wanted, those of one entry left out."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from ...errors import ConfigError, DataError
from ...reader_protocol import ReadOptions
from ..h5_values import as_complex
from .array_header import read_whole
from .arrays import ArrayFile
from .mapping import ArrayAt

__all__ = ["arranged", "axes_of", "fixed_axes", "loaded"]


def axes_of(
    at: ArrayAt, usual: tuple[str, ...], shape: tuple[int, ...], arrays: ArrayFile, said_by: str
) -> tuple[str, ...]:
    """Names of the axes of an array, as many as it has."""
    axes = at.axes or usual
    if len(axes) != len(shape):
        raise ConfigError(
            f"{said_by}: {at.path!r} has {len(axes)} axes {list(axes)}, but in {arrays.path.name} it is {shape}; name "
            "each axis in order (axes: […])."
        )
    for axis, length in zip(axes, shape, strict=True):
        if axis == "one" and length != 1:
            raise ConfigError(
                f"{said_by}: an axis of {at.path!r} is called 'one', but has {length} entries; it is {shape}."
            )
    return axes


def fixed_axes(axes: tuple[str, ...], shape: tuple[int, ...], options: ReadOptions, path: str) -> dict[int, int]:
    """Index along the axes that are no part of a frame."""
    fixed = {axis: 0 for axis, word in enumerate(axes) if word == "one"}
    for axis, word in enumerate(axes):
        if word == "entry":
            n = shape[axis]
            if options.entry is None and n > 1:
                raise DataError(f"{path}: holds {n} scans; choose one with --entry 0 to --entry {n - 1}.")
            chosen = options.entry or "0"
            if not chosen.isdigit() or int(chosen) >= n:
                raise DataError(f"{path}: has no entry {chosen!r}; its {n} scans are called 0 to {n - 1}.")
            fixed[axis] = int(chosen)
    return fixed


def loaded(arrays: ArrayFile, path: str, kinds: str) -> NDArray[Any]:
    """All values of an array, a compound of real and imaginary parts as complex numbers.

    Raises:
        DataError: values of another kind than those of `kinds`.
    """
    with arrays.opened(path) as array:
        values = as_complex(read_whole(array, arrays.path, path))
    if values.dtype.kind not in kinds:
        raise DataError(f"{arrays.path}: {path!r} holds {values.dtype} values; it must hold numbers.")
    return values


def arranged(
    at: ArrayAt,
    wanted: tuple[str, ...],
    usual: tuple[str, ...],
    arrays: ArrayFile,
    options: ReadOptions,
    said_by: str,
    kinds: str,
) -> NDArray[Any]:
    """An array with its axes in a wanted order; those that it has not are left out."""
    values = loaded(arrays, at.path, kinds)
    axes = axes_of(at, usual, values.shape, arrays, said_by)
    fixed = fixed_axes(axes, values.shape, options, str(arrays.path))
    values = values[tuple(fixed.get(axis, slice(None)) for axis in range(values.ndim))]
    left = [word for axis, word in enumerate(axes) if axis not in fixed]
    strange = [word for word in left if word not in wanted]
    if strange:
        raise ConfigError(f"{said_by}: {at.path!r} has an axis {strange[0]!r}; here its axes are {', '.join(wanted)}.")
    return values.transpose([left.index(word) for word in wanted if word in left])
