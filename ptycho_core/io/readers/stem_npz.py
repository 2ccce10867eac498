"""4D-STEM in an NPZ: one array (Ny, Nx, H, W) on a raster, whatever its key, and nothing that says where frames lie."""

from __future__ import annotations

from ...data.recording import Recording
from ...errors import DataError
from ...plugins.hookspecs import hookimpl
from ...reader_protocol import ReaderSpec, ReadOptions
from ..candidate import Candidate
from .arrays import NpzArrays
from .bare import bare_recording
from .entries import chosen_entry

__all__ = ["ptycho_reader", "read", "recognises"]


@hookimpl
def ptycho_reader() -> ReaderSpec:
    """Describe the dialect."""
    return ReaderSpec(
        name="stem_npz",
        title="4D-STEM: NPZ with a 4-D array (Ny, Nx, H, W)",
        kind="npz",
        module=__name__,
        protocol_version=2,
        priority=5,
    )


def _stacks(file: Candidate) -> list[str]:
    shapes = {name: member.shape for name, member in file.members.items() if member.dtype.kind in "biuf"}
    return [name for name, s in shapes.items() if len(s) == 4 and s[0] > 1 and s[1] > 1 and min(s[2:]) >= 8]


def recognises(file: Candidate) -> bool:
    """Whether a file is an NPZ with an array of four axes, none of the first two of one entry."""
    return file.kind == "npz" and bool(_stacks(file))


def read(file: Candidate, options: ReadOptions) -> Recording:
    """Read the frames; they stay on disk where they lie uncompressed.

    Args:
        file: an NPZ.
        options: `entry` chooses where there are several rasters; where the frames were taken.

    Raises:
        DataError: no raster, several and no choice, or one that cannot be placed.
    """
    stacks = _stacks(file)
    if not stacks:
        raise DataError(f"{file.path}: holds no 4-D array of frames (Ny, Nx, H, W). Leave out --dialect.")
    array = chosen_entry(stacks, options.entry, str(file.path))
    others = sorted(set(file.names) - set(stacks))
    notes = [f"Ignored keys: {', '.join(others)}."] if others else []
    return bare_recording(NpzArrays(file), array, options, "stem_npz", notes, detector=True)
