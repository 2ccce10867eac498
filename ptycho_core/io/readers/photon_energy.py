"""Which unit a photon energy is in that states none: told by the range in which ptychography is done, and said."""

from __future__ import annotations

from ...errors import DataError

__all__ = ["is_photon_energy", "recognised_energy_eV"]

_JOULES_PER_EV = 1.602176634e-19
_LEAST_EV, _MOST_EV = 1.0, 3e5  # near infrared to the hardest X-rays
# a bare number is joules below 1e-12, and eV from 40 on; as keV it was meant where eV would be infrared, or X-rays too
# soft for any window: 0.05 to 1.2 and 4 to 40. From 1.2 to 4 it may be eV of visible light, keV, or GeV of a ring
_MOST_JOULES = 1e-12
_KEV = ((0.05, 1.2), (4.0, 40.0))


def is_photon_energy(energy_eV: float) -> bool:
    """Whether an energy, electronvolts, is one that photons of ptychography have."""
    return _LEAST_EV <= energy_eV <= _MOST_EV


def recognised_energy_eV(value: float, where: str, notes: list[str], warnings: list[str]) -> float:
    """Electronvolts of a photon energy without a unit, which should be joules.

    Args:
        value: as stored.
        where: file and dataset, for messages.
        notes: what was assumed is added here.
        warnings: what looks wrong is added here.

    Raises:
        DataError: it is no photon energy in joules, electronvolts or kiloelectronvolts, or in more than one of them.
    """
    if 0 < value < _MOST_JOULES and is_photon_energy(value / _JOULES_PER_EV):
        return value / _JOULES_PER_EV
    if any(low <= value < high for low, high in _KEV):
        warnings.append(
            f"{where} = {value:g} can be neither joules nor electronvolts; it was taken as keV. If that is wrong, give "
            "--energy_eV."
        )
        return value * 1e3
    if _KEV[-1][1] <= value <= _MOST_EV:
        notes.append(f"{where} = {value:g} cannot be joules; it was taken as electronvolts.")
        return value
    why = "may be eV or keV" if _KEV[0][1] <= value < _KEV[1][0] else "is no photon energy in joules, eV or keV"
    ring = " It may be that of a storage ring." if value > _MOST_EV or why.startswith("may") else ""
    raise DataError(f"{where} = {value:g} {why}, and no unit is stated.{ring} Give --energy_eV ….")
