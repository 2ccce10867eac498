"""Lengths and energies with their units, as files and people write them."""

from __future__ import annotations

import re

from ..errors import ConfigError, suggest

__all__ = ["LENGTHS", "energy_eV_of", "length_m", "length_unit"]

LENGTHS = {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "um": 1e-6, "nm": 1e-9, "A": 1e-10, "pm": 1e-12}
"""Unit of length → metres."""

_SPELLINGS = {
    "metre": "m", "meter": "m", "metres": "m", "meters": "m", "centimeter": "cm", "centimetre": "cm",
    "millimeter": "mm", "millimetre": "mm", "millimeters": "mm", "millimetres": "mm", "micron": "um", "microns": "um",
    "micrometer": "um", "micrometre": "um", "micrometers": "um", "micrometres": "um", "µm": "um", "μm": "um",
    "nanometer": "nm", "nanometre": "nm", "nanometers": "nm", "nanometres": "nm", "angstrom": "A", "angstroms": "A",
    "ångström": "A", "ångstrom": "A", "å": "A", "\u212b": "A", "picometer": "pm", "picometre": "pm",
    "picometers": "pm", "picometres": "pm",
}  # fmt: skip
_ENERGIES = {"eV": 1.0, "keV": 1e3, "MeV": 1e6, "J": 1 / 1.602176634e-19, "joule": 1 / 1.602176634e-19}
_QUANTITY = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(\S*)\s*")


def length_unit(text: str) -> float | None:
    """Metres in a unit of length, however it is spelled; None for what is none."""
    word = text.strip()
    word = word if word in LENGTHS else _SPELLINGS.get(word) or _SPELLINGS.get(word.lower()) or word
    return LENGTHS.get(word)


def _parts(text: str, what: str, units: str) -> tuple[float, str]:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ConfigError(f"{what} = {text!r}; it must be a number, with one of {units} behind it if need be.")
    return float(match[1]), match[2]


def length_m(text: str, what: str) -> float:
    """A length in metres: ``93.75A``, ``1.2 um``, ``3e-6`` (metres).

    Args:
        text: as given.
        what: the option, for messages.

    Raises:
        ConfigError: no number, or an unknown unit.
    """
    number, unit = _parts(text, what, ", ".join(LENGTHS))
    metres = 1.0 if not unit else length_unit(unit)
    if metres is None:
        raise ConfigError(f"{what} = {text!r}: unit {unit!r}; allowed: {', '.join(LENGTHS)}.{suggest(unit, LENGTHS)}")
    return number * metres


def energy_eV_of(text: str, what: str) -> float:
    """An energy in electronvolts: ``8.8keV``, ``300 keV``, ``8800``.

    Args:
        text: as given.
        what: the option, for messages.

    Raises:
        ConfigError: no number, or an unknown unit.
    """
    number, unit = _parts(text, what, ", ".join(_ENERGIES))
    factor = 1.0 if not unit else next((f for name, f in _ENERGIES.items() if name.lower() == unit.lower()), None)
    if factor is None:
        raise ConfigError(f"{what} = {text!r}: unit {unit!r}; allowed: {', '.join(_ENERGIES)}.")
    return number * factor
