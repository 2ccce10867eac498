"""TIFF of two float32 channels, phase (rad) and amplitude, with the pixel's side where it is known.

ImageJ's form carries the unit and pixels a unit; OME's, for a name that ends in ``.ome.tif``, has it in its XML. Pixels
that no frame reached are NaN, which both draw as empty. (ImageJ: https://imagej.net/ij, OME: https://ome-model.rtfd.io)
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import MissingPackageError
from ..stored_reconstruction import StoredReconstruction
from .common import displayed, title_of

__all__ = ["write"]

_CHANNELS = ["phase (rad)", "amplitude"]
_NM_BELOW_M = 1e-7


def _unit(pixel_m: float) -> tuple[str, str, float]:
    """A unit in which the pixel is a handy number: ImageJ's word, OME's word, and the pixel."""
    return ("nm", "nm", pixel_m * 1e9) if pixel_m < _NM_BELOW_M else ("um", "µm", pixel_m * 1e6)


def _started(text: str) -> str:
    return text[:1].upper() + text[1:]


def write(path: Path, stored: StoredReconstruction, *, target: Path) -> list[str]:
    """Write phase and amplitude.

    Raises:
        MissingPackageError: tifffile is not installed.
    """
    try:
        import tifffile
    except ModuleNotFoundError as error:
        raise MissingPackageError("A TIFF needs the package tifffile: pip install 'ptycho-core[readers]'.") from error
    phase, amplitude, off = displayed(stored)
    is_ome = Path(target.stem).suffix == ".ome"
    how: dict[str, Any] = {"photometric": "minisblack", "software": stored.program or "ptycho-core"}
    metadata: dict[str, Any] = {"axes": "CYX"}
    notes = [
        f"{_started(off.describe())} were taken off, and pixels that no frame reached are NaN.",
        "A TIFF holds phase and amplitude: probe, positions, coverage, figures and losses are left out.",
    ]
    if stored.slices is not None:
        notes.append(f"The object is the product of its {len(stored.slices)} slices, which are left out.")
    pixel_m = stored.geometry.pixel_size_m
    if pixel_m is None:
        notes.append("The object pixel is not known, so there is no scale; give --pixel_size_m.")
    if is_ome:
        metadata |= {"Name": title_of(stored), "Channel": {"Name": _CHANNELS}}
        if pixel_m is not None:
            _, unit, side = _unit(pixel_m)
            for axis in "XY":
                metadata |= {f"PhysicalSize{axis}": side, f"PhysicalSize{axis}Unit": unit}
    else:
        metadata |= {"Labels": _CHANNELS, "mode": "grayscale"}
        if pixel_m is not None:
            unit, _, side = _unit(pixel_m)
            metadata["unit"] = unit
            how["resolution"] = (1 / side, 1 / side)
    whole = io.BytesIO()  # as a whole, so that a full disk is met by a plain write
    with tifffile.TiffWriter(whole, ome=is_ome, imagej=not is_ome) as file:
        file.write(np.stack([phase, amplitude]), metadata=metadata, **how)
    path.write_bytes(whole.getbuffer())
    return notes
