"""Several scans in one HDF5 file, each a group with ``frames`` and ``positions_px`` as our own dialect has them."""

from __future__ import annotations

from dataclasses import replace

from ...data.recording import Recording
from ...errors import DataError
from ...plugins.hookspecs import hookimpl
from ...reader_protocol import ReaderSpec, ReadOptions
from ..candidate import Candidate
from ..hdf5 import read_group
from .entries import chosen_entry

__all__ = ["ptycho_reader", "read", "recognises"]

_FRAMES = "/frames"


@hookimpl
def ptycho_reader() -> ReaderSpec:
    """Describe the dialect."""
    return ReaderSpec(
        name="groups",
        title="HDF5 with a scan in each group: frames, positions_px",
        kind="hdf5",
        module=__name__,
        protocol_version=2,
        priority=8,  # below our own dialect, which takes a scan at the root
    )


def _groups(file: Candidate) -> list[str]:
    """Groups that hold a scan, in the order of the file."""
    found = [name.removesuffix(_FRAMES) for name in file.names if name.endswith(_FRAMES)]
    return [group for group in found if f"{group}/positions_px" in file.names]


def recognises(file: Candidate) -> bool:
    """Whether a file is HDF5 with our own names in a group, or in several."""
    return file.kind == "hdf5" and bool(_groups(file))


def read(file: Candidate, options: ReadOptions) -> Recording:
    """Read one of the scans; frames stay on disk.

    Args:
        file: an examined HDF5 file.
        options: `entry` names the group; measurement where the scan does not say it.

    Raises:
        DataError: several scans and none chosen, or what the scan holds is no scan.
    """
    groups = _groups(file)
    if not groups:
        raise DataError(
            f"{file.path}: no group holds 'frames' and 'positions_px', as this dialect has them. Leave out --dialect."
        )
    entry = chosen_entry(groups, options.entry, str(file.path))
    start = f"{entry}/"
    inside = tuple(name.removeprefix(start) for name in file.names if name.startswith(start))
    recording = read_group(replace(file, names=inside), options, entry)
    note = f"Of {len(groups)} scans in the file, {entry!r} was read."
    source = replace(recording.source, dialect="groups", assumptions=(note, *recording.source.assumptions))
    return replace(recording, source=source)
