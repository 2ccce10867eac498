"""The instrument that a scan was taken with, as far as it is known (specs/10-data)."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import DataError
from ..physics.propagation import wavelength_m

__all__ = ["BEYOND_SENSE", "RADIATIONS", "Geometry"]

RADIATIONS = ("photon", "electron")
"""What a beam may be made of."""

BEYOND_SENSE = {
    "energy_eV": (1e-3, 1e9),
    "distance_m": (1e-9, 1e6),
    "detector_pixel_size_m": (1e-12, 1e3),
    "pixel_size_m": (1e-15, 1e3),
}
"""Figures of an instrument and between what they must be."""


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """The instrument, as far as it is known.

    Attributes:
        energy_eV: energy of a photon, or kinetic energy of an electron, electronvolts.
        distance_m: sample to detector, metres.
        detector_pixel_size_m: side of a detector pixel of the frames (a binned one where they are binned), metres.
        pixel_size_m: side of an object pixel, metres.
        radiation: ``photon`` or ``electron``.
    """

    energy_eV: float | None = None
    distance_m: float | None = None
    detector_pixel_size_m: float | None = None
    pixel_size_m: float | None = None
    radiation: str = "photon"

    def __post_init__(self) -> None:
        if self.radiation not in RADIATIONS:
            raise DataError(f"radiation = {self.radiation!r}; allowed: {', '.join(RADIATIONS)}.")

    def check(self, name: str) -> None:
        """Refuse figures that no instrument has and no arithmetic survives; what is merely odd, reading refuses.

        Args:
            name: of the scan, for the message.

        Raises:
            DataError: one is out of its range.
        """
        for figure, (low, high) in BEYOND_SENSE.items():
            value = getattr(self, figure)
            if value is not None and not low <= value <= high:
                raise DataError(f"{name}: {figure} = {value:.6g}; it must be {low:g} to {high:g} (--{figure}).")

    @property
    def wavelength_m(self) -> float | None:
        """Wavelength, metres, where the energy is known."""
        return None if self.energy_eV is None else wavelength_m(self.energy_eV, self.radiation)
