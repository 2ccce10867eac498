"""Zarr stores in a zip file; all else is as in a folder, see ``zarr_store``."""

from __future__ import annotations

from ...data.recording import Recording
from ...plugins.hookspecs import hookimpl
from ...reader_protocol import ReaderSpec, ReadOptions
from ..candidate import Candidate
from .arrays import zarr_kind
from .zarr_store import read_store

__all__ = ["ptycho_reader", "read", "recognises"]


@hookimpl
def ptycho_reader() -> ReaderSpec:
    """Describe the dialect."""
    return ReaderSpec(
        name="zarr_zip",
        title="the same as zarr, in one .zip",
        kind="npz",
        module=__name__,
        protocol_version=2,
        priority=20,  # a store is known by its files, so that only its reading asks for the package
        one_scan=True,
    )


def recognises(file: Candidate) -> bool:
    """Whether a zip file is a Zarr store, by the files that every one has."""
    return zarr_kind(file) == "zip"


def read(file: Candidate, options: ReadOptions) -> Recording:
    """Read a scan; frames stay on disk.

    Args:
        file: a zip file.
        options: measurement, and where frames were taken, where the store does not say it.

    Raises:
        DataError: arrays that nobody says the meaning of.
    """
    return read_store(file, options, "zarr_zip")
