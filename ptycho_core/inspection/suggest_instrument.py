"""Draft of a mapping, second part: probe, mask, background, and the numbers of the instrument."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..io.h5_values import open_h5, unit_factor
from ..io.readers.arrays import ArrayFile, ArrayHeader, Hdf5Arrays
from .mapping_draft import Draft, Frames, small_array, words_of

__all__ = ["add_planes", "add_probe", "add_quantities"]

_NAMES = {
    "energy": ("energy", "kev", "ev", "hv"),
    "wavelength": ("wavelength", "lambda", "lam", "wavelen"),
    "distance": ("distance", "dist", "z", "zo", "propagation"),
    "detector_pixel_size": ("pixel", "pixelsize", "pix", "psize", "pitch", "dxd"),
}
_PLAUSIBLE = {
    "energy": (("J", 1e-18, 5e-14), ("keV", 0.05, 40.0), ("eV", 40.0, 1e6)),
    "wavelength": (("m", 1e-13, 1e-7), ("nm", 1e-4, 100.0)),
    "distance": (("m", 1e-3, 50.0), ("mm", 50.0, 5e4)),
    "detector_pixel_size": (("m", 1e-7, 1e-3), ("mm", 1e-3, 1.0), ("um", 1.0, 1e3)),
}
"""Quantity → units, with the least and the largest number that such a unit makes likely."""


def add_probe(arrays: ArrayFile, headers: dict[str, ArrayHeader], frames: Frames, draft: Draft) -> None:
    """Add the probe: a complex array with the sides of the frames, by its name."""
    found = []
    for name, header in headers.items():
        telling = any(word.startswith(("prob", "illum")) for word in words_of(name))
        if telling and name not in draft.used and _probe_axes(header, frames.size):
            found.append(name)
    if not found:
        return
    name = min(found, key=lambda n: ("ini" in n.lower() or "guess" in n.lower(), len(n)))
    axes = _probe_axes(headers[name], frames.size)
    draft.used.add(name)
    draft.say("probe:")
    draft.say(f"  path: {draft.path(name)}", f"{headers[name].shape} {headers[name].dtype}")
    draft.say(f"  axes: [{', '.join(axes)}]", "? x and y may be exchanged" if axes.index("x") < axes.index("y") else "")
    values = np.abs(_complex(small_array(arrays, name), axes))
    mean = values.reshape(-1, *values.shape[-2:]).mean(axis=0)
    middle = mean[mean.shape[0] // 4 : -(mean.shape[0] // 4), mean.shape[1] // 4 : -(mean.shape[1] // 4)].sum()
    if middle < 0.25 * mean.sum():
        draft.say("  zero: corner", "the probe lies at the corners of its window")


def _complex(values: NDArray[Any], axes: tuple[str, ...]) -> NDArray[Any]:
    """Values with y and x last, real and imaginary parts put together."""
    if "re_im" in axes:
        at = axes.index("re_im")
        values = values.take(0, axis=at) + 1j * values.take(1, axis=at)
        axes = tuple(word for word in axes if word != "re_im")
    return np.moveaxis(values, (axes.index("y"), axes.index("x")), (-2, -1))


def _probe_axes(header: ArrayHeader, size: tuple[int, int]) -> tuple[str, ...]:
    """Names of the axes of a probe, or none where it has not the sides of the frames."""
    names = header.dtype.names or ()
    is_complex = header.dtype.kind == "c" or len(names) == 2
    words = ["one" if n == 1 else "" for n in header.shape]
    places = [axis for axis, n in enumerate(header.shape) if n > 1]
    sides = [axis for axis in places if header.shape[axis] in size]
    if len(sides) < 2 or size[0] != size[1]:
        return ()
    words[sides[-2]], words[sides[-1]] = "y", "x"
    left = [axis for axis in places if not words[axis]]
    if not is_complex:
        pair = [axis for axis in left if header.shape[axis] == 2]
        if header.dtype.kind != "f" or not pair:
            return ()
        words[pair[-1]] = "re_im"
        left.remove(pair[-1])
    if len(left) > 1:
        return ()
    for axis in left:
        words[axis] = "mode"
    return tuple(words)


def add_planes(arrays: ArrayFile, headers: dict[str, ArrayHeader], frames: Frames, draft: Draft) -> None:
    """Mask and background: images of the frames' shape, by name."""
    for key, starts in (("mask", ("mask", "bad", "good", "valid")), ("background", ("dark", "background", "bg"))):
        for name, header in headers.items():
            long = tuple(n for n in header.shape if n > 1)
            telling = any(word.startswith(starts) for word in words_of(name.rpartition("/")[2]))
            if not telling or long not in (frames.size, frames.size[::-1]) or header.dtype.kind not in "biuf":
                continue
            order = iter(("y", "x") if long == frames.size else ("x", "y"))
            axes = [next(order) if n > 1 else "one" for n in header.shape]
            draft.used.add(name)
            draft.say(f"{key}:")
            draft.say(f"  path: {draft.path(name)}", f"{header.shape} {header.dtype}")
            draft.say(f"  axes: [{', '.join(axes)}]")
            if key == "mask":
                _polarity(small_array(arrays, name), draft)
            break


def _polarity(values: NDArray[Any], draft: Draft) -> None:
    part = float((values != 0).mean())
    means = "good" if part > 0.5 else "bad"
    draft.say(f"  one_means: {means}", f"? {part:.0%} of it is not 0, and most pixels of a detector are good")


def add_quantities(arrays: ArrayFile, headers: dict[str, ArrayHeader], draft: Draft) -> None:
    """Energy, distance and pixel by names, with units that are stated, or else by size."""
    scalars = _scalars(arrays, headers)
    for key, words in _NAMES.items():
        found = [(path, number, unit) for path, (number, unit) in scalars.items() if _is_called(path, words, key)]
        if key == "energy" and not found:  # a unit of energy tells as much as a name
            found = [(path, *pair) for path, pair in scalars.items() if unit_factor(pair[1], "energy") is not None]
        fitting = [item for item in found if _likely(key, item[1], item[2])]
        if not fitting:
            if key in ("distance", "detector_pixel_size"):
                option = f"--{key}_m"
                draft.unknown.append(f"{key.replace('_', ' ')}: no number by such a name; give it here, or {option}.")
            continue
        path, number, unit = min(fitting, key=lambda item: _rank(item[0], words))
        if key == "wavelength" and any(line.startswith("energy:") for line in draft.lines):
            continue
        draft.used.add(path)
        if unit:
            draft.say(f"{key}: {{path: {draft.path(path)}}}", f"{number:g} {unit}")
        else:
            likely = _likely(key, number, "")
            draft.say(
                f"{key}: {{path: {draft.path(path)}, unit: {likely}}}", f"? {number:g}, the unit by its size only"
            )
    if not any(line.startswith(("energy:", "wavelength:")) for line in draft.lines):
        draft.unknown.append("energy: no number by such a name; give it here (energy: 8.8keV), or --energy_eV.")


def _scalars(arrays: ArrayFile, headers: dict[str, ArrayHeader]) -> dict[str, tuple[float, str]]:
    """Single numbers by name, with the unit that is stated; those in attributes of HDF5 as group@name."""
    found: dict[str, tuple[float, str]] = {}
    for name, header in headers.items():
        if math.prod(header.shape) == 1 and header.dtype.kind in "iuf":
            found[name] = (float(small_array(arrays, name).ravel()[0]), header.unit)
    if isinstance(arrays, Hdf5Arrays):
        with open_h5(arrays.path) as h5:

            def look(place: str, item: Any) -> None:
                for key, value in item.attrs.items():
                    values = np.asarray(value)
                    if values.size == 1 and values.dtype.kind in "iuf":
                        found[f"{place}@{key}"] = (float(values.ravel()[0]), "")

            look("", h5)
            h5.visititems(look)
    return {name: pair for name, pair in found.items() if math.isfinite(pair[0]) and pair[0] > 0}


def _is_called(path: str, words: tuple[str, ...], key: str) -> bool:
    last = words_of(re.split(r"[/@]", path)[-1])
    if key == "distance" and {"pixel", "step", "size"} & set(last):
        return False
    if key == "detector_pixel_size" and {"object", "obj", "count", "number", "value"} & set(last):
        return False
    return any(word in words for word in last) or "".join(last) in words


def _rank(path: str, words: tuple[str, ...]) -> tuple[int, int, int]:
    """The most telling name first; the machine's own energy, which is not the beam's, last."""
    parts = words_of(path)
    return ("source" in parts, min((words.index(w) for w in parts if w in words), default=len(words)), len(path))


def _likely(key: str, number: float, unit: str) -> str:
    """The unit that a number is likely in: the stated one where it makes sense, else the first that does, or none."""
    if unit:
        quantity = "energy" if key == "energy" else "length"
        factor = unit_factor(unit, quantity)
        if factor is None:
            return ""
        base, low, high = ("eV", 1.0, 1e6) if key == "energy" else _PLAUSIBLE[key][0]
        return base if low <= number * factor <= high else ""
    return next((word for word, low, high in _PLAUSIBLE[key] if low <= number < high), "")
