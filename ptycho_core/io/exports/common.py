"""What the exports share: an image in words that other programs use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ...physics.gauge import TakenOff, shown_phase
from ...text import one_line
from ..stored_reconstruction import StoredReconstruction
from ..writers.common import Instrument, complete_instrument

__all__ = ["displayed", "instrument_of_image", "layers_of", "pixel_size_of", "probe_in_photons", "title_of"]


def title_of(stored: StoredReconstruction) -> str:
    """A name for people: the title of the run, or the name of its folder."""
    return one_line(stored.title or Path(stored.path).resolve().parent.name)


def pixel_size_of(stored: StoredReconstruction, format_name: str) -> float:
    """Object pixel, metres: as it is stated, or as the instrument makes it.

    Raises:
        DataError: it is not known; the options that give it are named.
    """
    geometry = stored.geometry
    if geometry.pixel_size_m is not None:
        return geometry.pixel_size_m
    if stored.propagation is None or None in (geometry.energy_eV, geometry.distance_m, geometry.detector_pixel_size_m):
        raise DataError(
            f"{stored.path}: {format_name} is in metres, and the object pixel is not known; give --pixel_size_m, or "
            "--energy_eV --distance_m --detector_pixel_size_m."
        )
    return instrument_of_image(stored, format_name).pixel_size_m


def instrument_of_image(stored: StoredReconstruction, format_name: str) -> Instrument:
    """The instrument in full.

    Raises:
        DataError: too little is known of it, or a file of an old format does not say how waves propagate.
    """
    if stored.propagation is None:
        raise DataError(f"{stored.path}: does not say how waves propagate; make the image again with this release.")
    return complete_instrument(
        str(stored.path), stored.geometry, stored.propagation, stored.probe.shape[-1], format_name
    )


def probe_in_photons(stored: StoredReconstruction) -> NDArray[np.complex64]:
    """The probe with the image's scale in it: |F(probe · object)|² are counts, F unitary."""
    scaled: NDArray[np.complex64] = (stored.probe * np.sqrt(stored.scale)).astype(np.complex64)
    return scaled


def layers_of(stored: StoredReconstruction) -> NDArray[np.complex64]:
    """The slices of a thick object, or the object as the only one: (L, H, W)."""
    return stored.object[None] if stored.slices is None else stored.slices


def displayed(stored: StoredReconstruction) -> tuple[NDArray[np.float32], NDArray[np.float32], TakenOff]:
    """Phase as shown everywhere and amplitude, (H, W) float32, NaN where no frame reached; and what was taken off."""
    phase, off = shown_phase(stored.object, stored.coverage)
    lit = stored.coverage > 0
    return (
        np.where(lit, phase, np.nan).astype(np.float32),
        np.where(lit, np.abs(stored.object), np.nan).astype(np.float32),
        off,
    )
