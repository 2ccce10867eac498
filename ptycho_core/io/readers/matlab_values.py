"""What MATLAB programs call the instrument of a scan, and which files MATLAB itself wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ...data.raw import Geometry
from ...errors import DataError
from ...physics.propagation import energy_of_eV

__all__ = ["instrument_of_numbers", "is_matlab_73", "planes_first"]

_LONGEST_M = 1e-6  # a longer wave is no light that ptychography uses; of electrons in Å it is above 1e-3
_HEAD = b"MATLAB 7.3 MAT-file"


def is_matlab_73(path: Path) -> bool:
    """Whether an HDF5 file is a MAT file of version 7.3, by the text that MATLAB writes before it."""
    with path.open("rb") as stream:
        return stream.read(len(_HEAD)) == _HEAD


def planes_first(values: NDArray[Any]) -> NDArray[Any]:
    """A probe in MATLAB's order of axes, (N, N), (N, N, P) or (N, N, P, variations), with its planes last."""
    return values.transpose(*range(values.ndim - 1, 1, -1), 0, 1) if values.ndim in (3, 4) else values


def instrument_of_numbers(
    number: Callable[[str], float | None], name: str, radiation: str = "photon", *, lengths_known: bool = False
) -> tuple[Geometry, list[str]]:
    """The instrument by the names of PtychoShelves, metres, and what was taken.

    ``lambda`` is the wavelength, ``z`` the distance from sample to detector, ``dx`` (or ``dx_spec``) the object's
    pixel, ``ds`` the detector's, ``energy`` the photon energy in keV, asked for where there is no ``lambda``.

    Args:
        number: the number of a name, or None where it is not there.
        name: of the file, for messages.
        radiation: ``photon`` or ``electron``.
        lengths_known: whether the caller gives energy and lengths instead; then those that cannot be metres are left
            out.

    Raises:
        DataError: lengths that cannot be metres.
    """
    wavelength, notes = number("lambda"), []
    if wavelength is not None and not 0 < wavelength < _LONGEST_M:
        if lengths_known:
            return Geometry(radiation=radiation), [
                f"lambda = {wavelength:.6g} cannot be metres; the lengths of the file are not used."
            ]
        raise DataError(
            f"{name}: lambda = {wavelength:.6g} cannot be metres, and so cannot dx and the positions; programs for "
            "electrons write Å. Give --position_unit A, --energy_eV (such as 300keV), --radiation electron and "
            "--pixel_size_m (such as 0.3A)."
        )
    energy = None if wavelength is None else energy_of_eV(wavelength, radiation)
    if energy is None:
        keV = number("energy")
        energy = None if keV is None or keV <= 0 else keV * 1e3
        if energy is not None:
            notes.append(f"energy = {keV:.6g} was read as keV, as PtychoShelves has it.")
    pixel = number("dx")
    return Geometry(
        energy_eV=energy,
        distance_m=number("z"),
        detector_pixel_size_m=number("ds"),
        pixel_size_m=pixel if pixel is not None else number("dx_spec"),
        radiation=radiation,
    ), notes
