"""The NPZ dialect of ``io.npz``, every convention stated: it reads back as it was."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ...data.raw import RawData
from ..npz import GEOMETRY_KEYS
from ..stated import statement_of
from .common import provenance_json

__all__ = ["add_array", "add_frames", "write"]


def add_array(archive: zipfile.ZipFile, key: str, values: Any) -> None:
    """Add one array to an archive."""
    with archive.open(f"{key}.npy", "w") as member:
        np.lib.format.write_array(member, np.asarray(values, order="C"), allow_pickle=False)


def add_frames(archive: zipfile.ZipFile, key: str, raw: RawData) -> None:
    """Add the frames as float32 counts, a few at a time."""
    with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
        _write_frames(member, raw)


def _write_frames(member: IO[bytes], raw: RawData) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": tuple(raw.frames.shape)}
    np.lib.format.write_array_header_1_0(member, header)
    for _, counts in raw.chunks():
        member.write(np.ascontiguousarray(counts, dtype="<f4").data)


def _arrays(raw: RawData) -> Iterator[tuple[str, NDArray[Any]]]:
    """Every array but the frames."""
    yield "measurement", np.array("counts")
    yield "pixel_centre", np.array("(N-1)/2")
    yield "ycoords", raw.positions_px[:, 0]
    yield "xcoords", raw.positions_px[:, 1]
    if raw.probe is not None:
        yield "probeGuess", raw.probe
    yield "probe_calibrated", np.array(raw.probe_calibrated)
    if raw.mask is not None:
        yield "mask", raw.mask
    if raw.background is not None:
        yield "background", raw.background
    if raw.object_guess is not None:
        yield "objectGuess", raw.object_guess.object
        yield "object_origin_px", np.asarray(raw.object_guess.origin_px, dtype=np.float64)
    for key in GEOMETRY_KEYS:
        value = getattr(raw.geometry, key)
        if value is not None:
            yield key, np.array(value, dtype=np.float64)
    if raw.geometry.radiation != "photon":
        yield "radiation", np.array(raw.geometry.radiation)
    for key, value in statement_of(raw.propagation).items():
        yield key, np.array(value)
    yield "provenance", np.array(provenance_json(raw))


def write(path: Path, raw: RawData, *, compress: bool) -> list[str]:
    """Write a scan; nothing is lost."""
    arrays = list(_arrays(raw))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
        for key, values in arrays:
            add_array(archive, key, values)
        add_frames(archive, "diff3d", raw)
    return []
