"""How waves get from the object to the detector: a fact of the scan (FM-4, FM-23)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import DataError

__all__ = ["FAR_FIELD", "PROPAGATIONS", "Propagation"]

PROPAGATIONS = ("far_field", "near_field")
"""Names of the ways from the object to the detector."""


@dataclass(frozen=True)
class Propagation:
    """Far field, or near field with its Fresnel number.

    A cone beam that magnifies m times is a near field too: the frames are those of a parallel beam on the demagnified
    pixel p/m at the effective distance z/m (Fresnel scaling), so that F = p² / (m λ z), z from sample to detector.

    Attributes:
        kind: ``far_field`` or ``near_field``.
        fresnel_number: F = p² / (λ z) of one object pixel p at the (effective) distance z; no unit, > 0. Near field
            only.
        wavelength_px: λ / p, wavelengths in an object pixel's side; with it the angular spectrum is exact, without it
            paraxial. Near field only, and only where the beam is parallel.
    """

    kind: str = "far_field"
    fresnel_number: float | None = None
    wavelength_px: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str) or self.kind not in PROPAGATIONS:
            raise DataError(f"propagation = {self.kind!r}; allowed: {', '.join(PROPAGATIONS)}.")
        given = {"fresnel_number": self.fresnel_number, "wavelength_px": self.wavelength_px}
        for name, value in given.items():
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise DataError(f"{name} = {value!r}; it must be a finite number > 0.")
            if self.kind == "far_field":
                raise DataError(f"{name} = {value:g} for a far field, which has none; say near_field, or leave it out.")
        if self.kind == "near_field" and self.fresnel_number is None:
            raise DataError(
                "a near field needs its fresnel_number, (object pixel)² / (wavelength × effective distance); give it."
            )

    @property
    def is_near(self) -> bool:
        """Whether this is a near field."""
        return self.kind == "near_field"

    def __str__(self) -> str:
        """In words, for people."""
        if self.fresnel_number is None:
            return "far field"
        exact = "" if self.wavelength_px is None else f", wavelength {self.wavelength_px:.4g} px"
        return f"near field, Fresnel number {self.fresnel_number:.4g}{exact}"


FAR_FIELD = Propagation()
"""The far field, which is what a scan is taken for unless it says otherwise."""
