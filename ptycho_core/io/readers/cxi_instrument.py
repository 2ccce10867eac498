"""The instrument of CXI and NXcxi_ptycho: photon energy from whatever states it, distance, pixels, by their units."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...data.raw import Geometry
from ...errors import DataError
from ...physics.propagation import energy_of_eV
from ...reader_protocol import ReadOptions
from ..candidate import Candidate, missing_key
from ..h5_values import first_dataset, length_at, measured_at, one_number, text_at
from .cxi_layout import Layout
from .photon_energy import is_photon_energy, recognised_energy_eV

__all__ = ["Said", "geometry_of"]

_WAVELENGTHS_M = (1e-12, 2e-6)
_AGREE = 0.01


@dataclass
class Said:
    """What is said of a scan while it is read."""

    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def geometry_of(
    h5: Any,
    file: Candidate,
    layout: Layout,
    options: ReadOptions,
    said: Said,
    *,
    wavelengths: tuple[str, ...],
    energies: tuple[str, ...],
) -> Geometry:
    """The instrument as the file states it; what the caller gives need not be in the file.

    Args:
        h5: the open file.
        file: the same, examined.
        layout: of the scan.
        options: what the caller says.
        said: notes and warnings are added here.
        wavelengths: paths of wavelengths, the first that is there counts.
        energies: paths of energies of the beam, likewise; an energy that no photon has is passed over.

    Raises:
        DataError: a length is missing or no length, pixels are not square, or the energy cannot be told.
    """
    is_electron = options.radiation == "electron" or "electron" in (text_at(h5, f"{layout.source}/probe") or "").lower()
    radiation = "electron" if is_electron else "photon"
    pixels = [
        _length(h5, file, f"{layout.detector}/{axis}_pixel_size", "detector_pixel_size_m", options) for axis in "yx"
    ]
    if pixels[0] and pixels[1] and abs(pixels[0] - pixels[1]) > 1e-4 * pixels[0]:
        raise DataError(
            f"{file.path}: detector pixels are {pixels[0]:.4g} × {pixels[1]:.4g} m; only square ones are supported. "
            "Resample the frames."
        )
    try:
        energy = _energy_eV(h5, wavelengths, energies, radiation, said)
    except DataError:
        if options.energy_eV is None:
            raise
        energy = None
    if energy is None and options.energy_eV is None and options.pixel_size_m is None:
        raise DataError(f"{missing_key(file, energies[0], 'the photon energy in joules')} Or give --energy_eV ….")
    return Geometry(
        energy_eV=energy,
        distance_m=_length(h5, file, f"{layout.detector}/distance", "distance_m", options),
        detector_pixel_size_m=pixels[0] or pixels[1],
        radiation=radiation,
    )


def _length(h5: Any, file: Candidate, path: str, option: str, options: ReadOptions) -> float | None:
    what = {"distance_m": "sample to detector, metres", "detector_pixel_size_m": "metres"}[option]
    given = getattr(options, option)
    found = length_at(h5, path, f"one positive number, {what}", option=f"--{option}", given=given)
    if found is None and given is None and options.pixel_size_m is None:
        raise DataError(f"{missing_key(file, path, what)} Or give --{option} ….")
    return found


def _energy_eV(
    h5: Any, wavelengths: tuple[str, ...], energies: tuple[str, ...], radiation: str, said: Said
) -> float | None:
    """Energy of a photon or an electron, electronvolts, or None where nothing states it.

    Raises:
        DataError: what states it cannot be understood.
    """
    by_wavelength, refused = _by_wavelength(h5, wavelengths, radiation)
    stated: float | None = None
    for path in energies:
        try:
            stated = _one_energy(h5, path, radiation, said)
        except DataError as error:
            refused = refused or error
        if stated is not None:
            break
    if by_wavelength is not None:
        if stated is not None and abs(stated - by_wavelength) > _AGREE * by_wavelength:
            said.warnings.append(
                f"The wavelength is that of {by_wavelength:.6g} eV, but the energy is stated as {stated:.6g} eV; the "
                "wavelength was taken. If that is wrong, give --energy_eV."
            )
        return by_wavelength
    if stated is None and refused is not None:
        raise refused
    return stated


def _by_wavelength(h5: Any, paths: tuple[str, ...], radiation: str) -> tuple[float | None, DataError | None]:
    """Energy that belongs to a stated wavelength; an error where one is stated that no unit makes plausible."""
    found = first_dataset(h5, paths)
    measured = None if found is None else measured_at(h5, found[0], "length", "--energy_eV")
    if measured is None or not np.isfinite(measured.values).any():
        return None, None
    where = f"{h5.file.filename}: {measured.path!r}"
    value = one_number(measured.values, where, "the wavelength in metres")
    low, high = _WAVELENGTHS_M
    if low <= value <= high or (value > 0 and measured.unit):
        return energy_of_eV(value, radiation), None
    return None, DataError(
        f"{where} = {value:g} must be a wavelength in metres, {low:g} to {high:g}, or have its 'units'. Give "
        "--energy_eV …."
    )


def _one_energy(h5: Any, path: str, radiation: str, said: Said) -> float | None:
    measured = measured_at(h5, path, "energy", "--energy_eV")
    if measured is None or not np.isfinite(measured.values).any():
        return None
    where = f"{h5.file.filename}: {path!r}"
    value = one_number(measured.values, where, "the photon energy in joules")
    if radiation == "electron" and measured.unit:
        return value
    if not measured.unit:
        return recognised_energy_eV(value, where, said.notes, said.warnings)
    if is_photon_energy(value):
        return value
    raise DataError(f"{where} is {value:.4g} eV, which no photon has: a storage ring's? Give --energy_eV ….")
