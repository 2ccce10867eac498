"""Zarr stores, version 2 and 3, in a folder: arrays by the names of our own HDF5 dialect, or one array of frames.

A store with ``frames`` and ``positions_px`` (and ``probe``, ``mask``, ``background``) is read as an HDF5 file with
these is. One with a single array of three axes or four is read as bare frames. Of all others a mapping says it.
"""

from __future__ import annotations

from typing import Any

from ...data.recording import Recording
from ...errors import DataError
from ...plugins.hookspecs import hookimpl
from ...reader_protocol import ReaderSpec, ReadOptions
from ...text import listed
from ..candidate import Candidate
from .arrays import ArrayHeader, ZarrArrays, zarr_kind
from .bare import bare_recording
from .mapped import recording_by
from .mapping import mapping_of
from .zarr_arrays import check_store

__all__ = ["ptycho_reader", "read", "read_store", "recognises"]


@hookimpl
def ptycho_reader() -> ReaderSpec:
    """Describe the dialect."""
    return ReaderSpec(
        name="zarr",
        title="Zarr folder with frames and positions_px, or one array of frames",
        kind="folder",
        module=__name__,
        protocol_version=2,
        priority=20,  # a store is known by its files, so that only its reading asks for the package
        one_scan=True,
    )


def recognises(file: Candidate) -> bool:
    """Whether a folder is a Zarr store, by the files that every one has."""
    return zarr_kind(file) == "folder"


def read(file: Candidate, options: ReadOptions) -> Recording:
    """Read a scan; frames stay on disk.

    Args:
        file: a folder.
        options: measurement, and where frames were taken, where the store does not say it.

    Raises:
        DataError: arrays that nobody says the meaning of.
    """
    return read_store(file, options, "zarr")


def read_store(file: Candidate, options: ReadOptions, dialect: str) -> Recording:
    """Read a store, in a folder or a zip file.

    Raises:
        DataError: as :func:`read`.
    """
    if file.path.is_dir():
        check_store(file.path)
    arrays = ZarrArrays(file.path)
    headers = arrays.headers()
    if {"frames", "positions_px"} <= headers.keys():
        stated = arrays.attribute("frames", "measurement")
        content: dict[str, Any] = {
            "frames": {"path": "frames", "measurement": stated} if isinstance(stated, str) else "frames",
            "positions": {"path": "positions_px", "unit": "px"},
            **{name: name for name in ("probe", "mask", "background") if name in headers},
        }
        return recording_by(mapping_of(content, f"{file.path}: its names"), arrays, options, dialect, "the names of it")
    stacks = [name for name, header in headers.items() if _may_be_frames(header)]
    if len(stacks) == 1:
        others = sorted(headers.keys() - set(stacks))
        notes = [f"Arrays that were not looked at: {listed(others)}."] if others else []
        return bare_recording(arrays, stacks[0], options, dialect, notes)
    held = listed(f"{name} {header.shape} {header.dtype}" for name, header in headers.items()) or "nothing"
    raise DataError(
        f"{file.path}: a Zarr store with {len(stacks)} arrays that may be frames, and without positions_px. It holds: "
        f"{held}. Say which array is what: draft a mapping (ptycho inspect --suggest-mapping {file.path} > "
        "mapping.yaml), look it over, and give it with --map."
    )


def _may_be_frames(header: ArrayHeader) -> bool:
    return len(header.shape) in (3, 4) and min(header.shape[-2:]) >= 8 and header.dtype.kind in "biuf"
