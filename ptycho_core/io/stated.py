"""How waves propagate, as a file states it or its reader was told (specs/10-data)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple
from typing import Any

import numpy as np

from ..data.propagation import FAR_FIELD, Propagation
from ..errors import DataError

__all__ = ["PROPAGATION_KEYS", "positive_numbers", "propagation_in", "resolve_propagation", "statement_of"]

PROPAGATION_KEYS = ("propagation", "fresnel_number", "wavelength_px")
"""What files call the fields of a ``Propagation``, in their order."""


def statement_of(propagation: Propagation) -> dict[str, str | float]:
    """What a file says of how waves propagate, by its keys."""
    values = zip(PROPAGATION_KEYS, astuple(propagation), strict=True)
    return {key: value for key, value in values if value is not None}


def positive_numbers(attributes: Mapping[str, Any], keys: tuple[str, ...], whose: str) -> dict[str, float]:
    """Attributes of a group in an HDF5 file, as far as they are there.

    Args:
        attributes: of the group.
        keys: those wanted.
        whose: file and group, for messages.

    Raises:
        DataError: one is no positive number.
    """
    found: dict[str, float] = {}
    for key in keys:
        if key in attributes:
            value = np.asarray(attributes[key])
            if value.size != 1 or value.dtype.kind not in "iuf" or not float(value.ravel()[0]) > 0:
                raise DataError(f"{whose} {key!r} must be one positive number; found {value!r}.")
            found[key] = float(value.ravel()[0])
    return found


def propagation_in(attributes: Mapping[str, Any], name: str, given: Propagation | None = None) -> Propagation:
    """How waves propagate by the attributes of a group in an HDF5 file; arguments as in :func:`resolve_propagation`."""
    kind_key, *number_keys = PROPAGATION_KEYS
    kind = attributes.get(kind_key)
    text = kind.decode("utf-8", "replace") if isinstance(kind, bytes) else kind
    numbers = positive_numbers(attributes, tuple(number_keys), f"{name}: propagation")
    return resolve_propagation(name, given, text, **numbers)


def resolve_propagation(
    name: str,
    given: Propagation | None,
    kind: str | None = None,
    fresnel_number: float | None = None,
    wavelength_px: float | None = None,
) -> Propagation:
    """How the waves of a scan propagate.

    Args:
        name: the file, for messages.
        given: what the caller says, or None.
        kind: what the file says, ``far_field`` or ``near_field``, or None; with a Fresnel number it is a near field.
        fresnel_number: what the file says, or None.
        wavelength_px: what the file says, or None.

    Raises:
        DataError: what the file says makes no sense, or contradicts what the caller says.
    """
    if kind is None and fresnel_number is None and wavelength_px is None:
        return given or FAR_FIELD
    try:
        stated = Propagation(kind or "near_field", fresnel_number, wavelength_px)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    if given not in (None, stated):
        raise DataError(
            f"{name}: the file states a {stated}, but a {given} was given. Leave it out, or correct the file "
            f"({', '.join(PROPAGATION_KEYS)})."
        )
    return stated
