"""MAT files of version 5 to 7 by the names of PtychoShelves; loading them runs no code, and needs memory for all."""

from __future__ import annotations

from ...data.recording import Recording
from ...errors import DataError
from ...plugins.hookspecs import hookimpl
from ...reader_protocol import ReaderSpec, ReadOptions
from ...text import listed
from ..candidate import Candidate
from .arrays import MatArrays, is_mat
from .matlab_scan import FRAMES, MATLAB, frames_name, read_by_names

__all__ = ["ptycho_reader", "read", "recognises"]


@hookimpl
def ptycho_reader() -> ReaderSpec:
    """Describe the dialect."""
    return ReaderSpec(
        name="mat5",
        title="MAT of version 5 to 7 with dp or detectorData, ppX, ppY",
        kind="other",
        module=__name__,
        protocol_version=2,
        priority=20,
        one_scan=True,
    )


def recognises(file: Candidate) -> bool:
    """Whether a file is a MAT file of version 5 to 7, by its first bytes."""
    return is_mat(file)


def read(file: Candidate, options: ReadOptions) -> Recording:
    """Read a scan.

    Args:
        file: a MAT file.
        options: `measurement` must not contradict counts.

    Raises:
        DataError: an array is missing or holds what it must not; arrays that are no numbers are named.
    """
    arrays = MatArrays(file.path).loaded()
    if frames_name(arrays.headers()) is None:
        held = listed(f"{name} {header.shape}" for name, header in sorted(arrays.headers().items())) or "nothing"
        others = sorted(MatArrays(file.path).unread())
        also = f" Not read, being cells, objects or arrays of structures: {listed(others)}." if others else ""
        raise DataError(
            f"{file.path}: no frames: one of {', '.join(FRAMES)} must hold them, (H, W, M). It holds: {held}.{also} "
            "Say which array is what with --map FILE.yaml; ptycho inspect --suggest-mapping drafts it."
        )
    notes = ["A MAT file of version 5 is read whole; save it with -v7.3 where it does not fit into memory."]
    return read_by_names(arrays, MATLAB, options, "mat5", notes)
