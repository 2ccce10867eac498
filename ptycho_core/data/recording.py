"""Recording: what a file holds of a scan, as its reader found it, before units, window and orientation are settled.

A reader says what is there and what it means; what a caller says beside it (a crop, a unit, a mask, an orientation) is
settled in one place, ``io.settle``, for every dialect alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .frames import FrameSource
from .propagation import Propagation
from .raw import Geometry, ObjectGuess, RawData, Source

__all__ = ["MASK_POLARITIES", "POSITION_UNITS", "Recording", "recording_of"]

POSITION_UNITS = ("m", "px", "")
"""What positions of a recording may be in: metres, object pixels of the frames as stored, or what nobody says."""

MASK_POLARITIES = ("good", "bad")
"""What 1 may mean in a mask."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A scan as it lies in a file.

    Attributes:
        frames: source of (M, H, W) float32 photon counts (or what is proportional to them), read lazily; H and W of any
            size, NaN and negative values where the detector has none.
        positions: (M, 2) float64 (y, x) of the frame centres *on the object*, or None where the file has none.
        position_unit: ``m``, ``px`` (object pixels of the frames as stored) or an empty text where the file does not
            say. Positions in pixels name pixel (N−1)/2 of a frame.
        raster: (Ny, Nx) where frames lie on a raster, the x axis fastest; None where that is not known.
        probe: (P, n, n) complex, or None.
        probe_calibrated: whether |F(probe · object)|² is in photons already.
        mask: (H, W) bool, True = good, or None.
        mask_polarity: ``good`` or ``bad``: what 1 means in the file, as its mask was read; a caller may say otherwise.
        background: (H, W) expected counts, or None.
        object_guess: an object on the pixels of the frames as stored, or None.
        geometry: the instrument, as the file states it; ``pixel_size_m`` is that of the frames as stored.
        propagation: as the file states it, or None.
        frame_indexes: (M,) int64 numbers by which a file of positions may name the frames; None means 0 to M−1.
        centre_px: (y, x) detector pixel of zero frequency where the file states it; None means (H // 2, W // 2).
        source: provenance; ``measurement`` is that of the stored frames.
    """

    frames: FrameSource
    positions: NDArray[np.float64] | None
    position_unit: str = ""
    raster: tuple[int, int] | None = None
    probe: NDArray[Any] | None = None
    probe_calibrated: bool = False
    mask: NDArray[np.bool_] | None = None
    mask_polarity: str = "good"
    background: NDArray[Any] | None = None
    object_guess: ObjectGuess | None = None
    geometry: Geometry = field(default_factory=Geometry)
    propagation: Propagation | None = None
    frame_indexes: NDArray[np.int64] | None = None
    centre_px: tuple[float, float] | None = None
    source: Source = field(default_factory=Source)

    def __post_init__(self) -> None:
        """Refuse words that would be taken for others.

        Raises:
            DataError: an unknown unit or polarity.
        """
        for what, word, allowed in (
            ("position_unit", self.position_unit, POSITION_UNITS),
            ("mask_polarity", self.mask_polarity, MASK_POLARITIES),
        ):
            if word not in allowed:
                raise DataError(f"{self.source.path or 'recording'}: {what} = {word!r}; allowed: {allowed}.")


def recording_of(raw: RawData) -> Recording:
    """A scan that a reader has validated already, as a recording in object pixels."""
    return Recording(
        frames=raw.frames,
        positions=raw.positions_px,
        position_unit="px",
        probe=raw.probe,
        probe_calibrated=raw.probe_calibrated,
        mask=raw.mask,
        background=raw.background,
        object_guess=raw.object_guess,
        geometry=raw.geometry,
        propagation=raw.propagation,
        source=raw.source,
    )
