"""How waves propagate, as a file states it or its reader was told (specs/10-data)."""

from __future__ import annotations

from ..data.propagation import FAR_FIELD, Propagation
from ..errors import DataError

__all__ = ["PROPAGATION_KEYS", "resolve_propagation"]

PROPAGATION_KEYS = ("propagation", "fresnel_number", "wavelength_px")
"""What files call the fields of a ``Propagation``, in their order."""


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
