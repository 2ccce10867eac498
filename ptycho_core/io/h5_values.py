"""Values in HDF5 files as their writers meant them: with ``units`` obeyed, as text, number or array.

They are found as ``h5_items`` finds what is in a file, through links; its names are at hand here too.
``None`` means that a path is not in the file; everything that is there and cannot be used is a ``DataError``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.h5_file import open_h5
from ..errors import ConfigError, DataError
from .h5_beside import places
from .h5_items import check_bytes, check_sources, dataset_at, first_dataset, group_at, item_at, whole_frames
from .units import LENGTHS, energy_eV_of, length_unit

__all__ = [
    "Measured",
    "array_at",
    "as_complex",
    "attribute",
    "check_sources",
    "dataset_at",
    "energy_at",
    "first_dataset",
    "group_at",
    "item_at",
    "length_at",
    "measured_at",
    "number_at",
    "one_number",
    "open_h5",
    "places",
    "text_at",
    "text_of",
    "unit_factor",
    "units_of",
    "whole",
    "whole_frames",
]

_ANGLES = {"rad": 1.0, "radian": 1.0, "radians": 1.0, "mrad": 1e-3, "deg": np.pi / 180, "degree": np.pi / 180}
_ANGLES |= {"degrees": np.pi / 180, "°": np.pi / 180}
_ENERGY_SPELLINGS = {"joules": "J", "electronvolt": "eV", "electronvolts": "eV", "ev": "eV", "kev": "keV", "j": "J"}
_GEV = 1e9  # a storage ring's, never a photon's: to be told apart it must be understood
_ALLOWED = {"length": ", ".join(LENGTHS), "energy": "J, eV, keV, MeV", "angle": "rad, mrad, deg"}
_COMPLEX_FIELDS = (("real", "imag"), ("r", "i"), ("re", "im"))


@dataclass(frozen=True)
class Measured:
    """Numbers with their unit.

    Attributes:
        path: of the dataset.
        values: float64, of any shape; in metres, electronvolts or radians where the file states the unit, else as
            stored.
        unit: as the file states it, or an empty text.
    """

    path: str
    values: NDArray[np.float64]
    unit: str


def as_complex(values: NDArray[Any]) -> NDArray[Any]:
    """Complex values of what MATLAB stores as a compound of real and imaginary parts; all else as it is."""
    names = values.dtype.names or ()
    for real, imaginary in _COMPLEX_FIELDS:
        if set(names) == {real, imaginary}:
            return np.asarray(values[real] + 1j * values[imaginary])
    return values


def array_at(h5: Any, path: str, kinds: str = "biuf") -> NDArray[Any] | None:
    """All values of a dataset, compound complex ones as complex; None where it is not there.

    Args:
        h5: an open file or group.
        path: of the dataset.
        kinds: dtype kinds allowed; add ``c`` for complex values.

    Raises:
        DataError: values of another kind, or a dataset that cannot be read.
    """
    dataset = dataset_at(h5, path)
    return None if dataset is None else _values(dataset, path, kinds)


def whole(dataset: Any, path: str) -> NDArray[Any]:
    """All values of a dataset, compared with what an array may have before anything is allocated for them.

    Args:
        dataset: of an open file.
        path: by which it was found, for messages.

    Raises:
        DataError: it states more than may be read whole.
    """
    check_bytes(dataset, path, math.prod(dataset.shape or ()), "is")
    return np.asarray(dataset[()])


def _values(dataset: Any, path: str, kinds: str) -> NDArray[Any]:
    try:
        values = as_complex(whole(dataset, path))
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(
            f"{dataset.file.filename}: {path!r} cannot be read ({error}); the file is damaged. Copy it again."
        ) from error
    if values.dtype.kind not in kinds:
        raise DataError(f"{dataset.file.filename}: {path!r} holds {values.dtype} values; it must hold numbers.")
    return values


def text_of(value: Any) -> str:
    """Text of a dataset's or an attribute's value, whether stored as bytes, text or an array of one; else empty."""
    values = np.asarray(value)
    first = values.ravel()[0] if values.size == 1 else b""
    if isinstance(first, bytes):
        return first.decode("utf-8", "replace").rstrip("\0").strip()
    return first.strip() if isinstance(first, str) else ""


def text_at(h5: Any, path: str) -> str | None:
    """One text, or None where the path is not there; empty where it holds none."""
    dataset = dataset_at(h5, path)
    return None if dataset is None else text_of(whole(dataset, path))


def attribute(item: Any, name: str, default: Any = None) -> Any:
    """An attribute, text as ``str``, an array of one number as that number, else as stored."""
    value = item.attrs.get(name)
    if value is None:
        return default
    values = np.asarray(value)
    if values.size == 1 and values.dtype.kind in "SUO":
        return text_of(value)
    return values.ravel()[0].item() if values.size == 1 and values.dtype.kind in "biuf" else value


def units_of(dataset: Any) -> str:
    """The ``units`` attribute (or ``unit``), an empty text where there is none."""
    return text_of(dataset.attrs.get("units", dataset.attrs.get("unit", "")))


def unit_factor(unit: str, quantity: str) -> float | None:
    """Metres, electronvolts or radians in a unit, None for what is none.

    Args:
        unit: as a file states it.
        quantity: ``length``, ``energy`` or ``angle``.
    """
    word = unit.strip()
    if quantity == "length":
        return length_unit(word)
    if quantity == "angle":
        return _ANGLES.get(word.lower())
    if word.lower() == "gev":
        return _GEV
    try:
        return energy_eV_of(f"1 {_ENERGY_SPELLINGS.get(word.lower(), word)}", "units") if word else None
    except ConfigError:
        return None


def measured_at(h5: Any, path: str, quantity: str, option: str = "", *, as_stored: bool = False) -> Measured | None:
    """Numbers with the unit that their ``units`` attribute states; None where the path is not there.

    Args:
        h5: an open file or group.
        path: of the dataset.
        quantity: ``length`` (metres), ``energy`` (electronvolts) or ``angle`` (radians).
        option: of the command that says the value, or its unit, instead, for messages.
        as_stored: whether the caller says the unit, so that the file's is left aside.

    Raises:
        DataError: no numbers, or an unknown unit.
    """
    dataset = dataset_at(h5, path)
    if dataset is None:
        return None
    values = _values(dataset, path, "biuf").astype(np.float64)
    unit = units_of(dataset)
    if as_stored or not unit:
        return Measured(path, values, "")
    factor = unit_factor(unit, quantity)
    if factor is None:
        instead = f", or give {option} …" if option else ""
        raise DataError(
            f"{h5.file.filename}: {path!r} states the unit {unit!r}; a {quantity} has one of {_ALLOWED[quantity]}. "
            f"Mend its 'units'{instead}."
        )
    return Measured(path, values * factor, unit)


def one_number(values: NDArray[Any], where: str, what: str) -> float:
    """The one finite number in an array of one, or of many that are all the same.

    Raises:
        DataError: no such number; `where` names file and dataset, `what` says what it is.
    """
    flat = np.asarray(values).ravel()
    number = float(flat[0]) if flat.size and flat.dtype.kind in "biuf" else float("nan")
    if not np.isfinite(number) or (flat != flat[0]).any():
        shown = flat[:3].tolist()
        raise DataError(f"{where} must be one finite number, {what}; found {shown}{' …' if flat.size > 3 else ''}.")
    return number


def number_at(h5: Any, path: str, what: str) -> float | None:
    """One finite number, stored as a scalar or an array of one; None where the path is not there."""
    values = array_at(h5, path)
    return None if values is None else one_number(values, f"{h5.file.filename}: {path!r}", what)


def length_at(
    h5: Any, path: str, what: str, *, unstated: str = "m", option: str = "", given: float | None = None
) -> float | None:
    """One length > 0 in metres, by its ``units`` attribute; None where the path is not there.

    Args:
        h5: an open file or group.
        path: of the dataset.
        what: it is, for messages.
        unstated: unit where the file states none.
        option: of the command that says the value instead, for messages.
        given: what the caller says instead; then one that is wrong in the file counts as not there.

    Raises:
        DataError: it is no length > 0, and none is given.
    """
    return _unless_given(h5, path, what, ("length", LENGTHS[unstated]), option, given)


def energy_at(
    h5: Any, path: str, what: str, *, unstated: str = "eV", option: str = "--energy_eV", given: float | None = None
) -> float | None:
    """One energy > 0 in electronvolts, by its ``units`` attribute; else as :func:`length_at`."""
    return _unless_given(h5, path, what, ("energy", unit_factor(unstated, "energy") or 1.0), option, given)


def _unless_given(
    h5: Any, path: str, what: str, quantity: tuple[str, float], option: str, given: float | None
) -> float | None:
    """One quantity (its kind, and the unit where none is stated) as the file states it, or None."""
    try:
        found = measured_at(h5, path, quantity[0], option)
        return None if found is None else _positive(h5, found, what, quantity[1], option)
    except DataError:
        if given is None:
            raise
        return None


def _positive(h5: Any, found: Measured, what: str, factor: float, option: str) -> float:
    where = f"{h5.file.filename}: {found.path!r}"
    number = one_number(found.values, where, what) * (1.0 if found.unit else factor)
    if number <= 0:
        instead = f" Give {option} …." if option else ""
        raise DataError(f"{where} must be a number > 0, {what}; found {number:g}.{instead}")
    return number
