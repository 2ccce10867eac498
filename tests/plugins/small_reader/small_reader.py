"""A whole reader in one file: scans that lie there as one line of JSON, then the positions, then the frames."""

import json

import numpy as np

from ptycho_core.data.frames import ArrayFrames
from ptycho_core.data.raw import Geometry, Source
from ptycho_core.data.recording import Recording
from ptycho_core.errors import DataError
from ptycho_core.io.measurement import resolve_measurement
from ptycho_core.plugins.hookspecs import hookimpl
from ptycho_core.reader_protocol import ReaderSpec

MAGIC = b"SMALLSCAN"


@hookimpl
def ptycho_reader():
    """Describe the reader; it is asked about files that are neither NPZ nor HDF5."""
    return ReaderSpec(
        name="small", title="SMALLSCAN: JSON line, positions, counts", kind="other", module=__name__, protocol_version=2
    )


def recognises(file):
    """Whether a file begins with the word that all of them begin with."""
    with file.path.open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC


def read(file, options):
    """Say what is in a file: frames (M, N, N) uint16 counts, positions (M, 2) float64 metres (y, x), pixel_size_m."""
    resolve_measurement(str(file.path), "counts", options.measurement)
    with file.path.open("rb") as stream:
        head = json.loads(stream.readline()[len(MAGIC) :])
        M, N, pixel_size_m = head["frames"], head["side"], head["pixel_size_m"]
        positions_m = np.frombuffer(stream.read(16 * M), "<f8")
        counts = np.frombuffer(stream.read(2 * M * N * N), "<u2")
    if len(counts) != M * N * N:
        raise DataError(f"{file.path}: {len(counts)} of {M * N * N} pixels are there; copy the file again.")
    return Recording(
        frames=ArrayFrames(counts.reshape(M, N, N)),
        positions=positions_m.reshape(M, 2),
        position_unit="m",
        geometry=Geometry(pixel_size_m=pixel_size_m),
        source=Source(path=str(file.path), dialect="small", measurement="counts"),
    )
