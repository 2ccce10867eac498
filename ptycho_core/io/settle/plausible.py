"""Figures that cannot be right: an energy in keV, a distance in mm, positions in µm, frames that do not overlap."""

from __future__ import annotations

from ...data.raw import Geometry
from ...data.recording import Recording
from ...reader_protocol import ReadOptions
from .placing import Placed

__all__ = ["check_plausible"]


def check_plausible(
    placed: Placed, geometry: Geometry, window_px: int, recording: Recording, name: str, *, given: ReadOptions
) -> None:
    """Refuse an instrument or positions that cannot be right, before anything is allocated for them."""
