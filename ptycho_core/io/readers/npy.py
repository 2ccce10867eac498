"""One NumPy array in an ``.npy`` file: frames (M, H, W), or a raster of them (Ny, Nx, H, W). Nothing else is in it."""

from __future__ import annotations

from ...data.recording import Recording
from ...plugins.hookspecs import hookimpl
from ...reader_protocol import ReaderSpec, ReadOptions
from ..candidate import Candidate
from .arrays import NpyArrays, is_npy
from .bare import bare_recording

__all__ = ["ptycho_reader", "read", "recognises"]


@hookimpl
def ptycho_reader() -> ReaderSpec:
    """Describe the dialect."""
    return ReaderSpec(
        name="npy",
        title="NPY with frames (M, H, W) or (Ny, Nx, H, W)",
        kind="other",
        module=__name__,
        protocol_version=2,
        priority=20,
        one_scan=True,
    )


def recognises(file: Candidate) -> bool:
    """Whether a file is one NumPy array, by its first bytes."""
    return is_npy(file)


def read(file: Candidate, options: ReadOptions) -> Recording:
    """Read the frames; they stay on disk.

    Args:
        file: an NPY file.
        options: measurement, and where the frames were taken.

    Raises:
        DataError: no frames, or a raster that cannot be placed.
    """
    return bare_recording(NpyArrays(file.path), "array", options, "npy", [])
