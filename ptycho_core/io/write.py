"""Writing scans: files that state every convention, so that they read back as they were, position for position."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.frames import FrameSource, Hdf5Frames, NpzFrames, SubsetFrames
from ..data.raw import RawData
from ..errors import DataError, OutputError
from .atomic import atomic_path
from .hdf5 import FORMAT, VERSION
from .npz import GEOMETRY_KEYS
from .stated import statement_of

__all__ = ["provenance_json", "write_scan"]

_HDF5_SUFFIXES = (".h5", ".hdf5")


def provenance_json(raw: RawData) -> str:
    """What is known of a scan's origin, as JSON text.

    Raises:
        DataError: ``source.details`` holds more than plain JSON data.
    """
    source = raw.source
    record = {
        "written_from": Path(source.path).name if source.path else None,
        "dialect": source.dialect,
        "assumptions": list(source.assumptions),
        "warnings": list(source.warnings),
        "details": source.details,
    }
    try:
        return json.dumps(record, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"{source.path or 'scan'}: source.details must be plain JSON data ({error}).") from error


def write_scan(path: Path | str, raw: RawData, *, compress: bool = False) -> None:
    """Write a scan as photon counts, atomically; ``.npz`` gives the NPZ dialect, ``.h5`` or ``.hdf5`` the HDF5 one.

    Values of bad pixels are written as 0. Memory does not grow with the number of frames.

    Args:
        path: the file.
        raw: the scan.
        compress: smaller, but NPZ frames are then read into memory as a whole instead of mapped from disk.

    Raises:
        OutputError: it cannot be written, or it is the very file that the frames are still read from.
        DataError: provenance that is no JSON.
    """
    target = Path(path)
    if target.suffix not in (".npz", *_HDF5_SUFFIXES):
        raise OutputError(f"{target}: a scan is written to .npz, .h5 or .hdf5; found suffix {target.suffix!r}.")
    origin = _file_behind(raw.frames)
    if origin is not None and origin.resolve() == target.resolve():
        raise OutputError(f"{target}: the frames of this scan are still read from this file; choose another name.")
    provenance = provenance_json(raw)
    with atomic_path(target) as temporary:
        if target.suffix == ".npz":
            _write_npz(temporary, raw, provenance, compress)
        else:
            _write_hdf5(temporary, raw, provenance, compress)


def _file_behind(frames: FrameSource) -> Path | None:
    while isinstance(frames, SubsetFrames):
        frames = frames.base
    return frames.path if isinstance(frames, NpzFrames | Hdf5Frames) else None


def _npz_arrays(raw: RawData, provenance: str) -> Iterator[tuple[str, NDArray[Any]]]:
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
    for key, value in statement_of(raw.propagation).items():
        yield key, np.array(value)
    yield "provenance", np.array(provenance)


def _write_npz(path: Path, raw: RawData, provenance: str, compress: bool) -> None:
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as archive:
        for key, values in _npz_arrays(raw, provenance):
            with archive.open(f"{key}.npy", "w") as member:
                np.lib.format.write_array(member, np.asarray(values, order="C"), allow_pickle=False)
        with archive.open("diff3d.npy", "w", force_zip64=True) as member:
            header = {"descr": "<f4", "fortran_order": False, "shape": tuple(raw.frames.shape)}
            np.lib.format.write_array_header_1_0(member, header)
            for _, counts in raw.chunks():
                member.write(np.ascontiguousarray(counts, dtype="<f4").data)


def _write_hdf5(path: Path, raw: RawData, provenance: str, compress: bool) -> None:
    import h5py

    M, N = raw.n_frames, raw.side
    options: dict[str, Any] = {"chunks": (1, N, N), "compression": "gzip", "shuffle": True} if compress else {}
    with h5py.File(path, "w") as h5:
        h5.attrs["format"], h5.attrs["version"] = FORMAT, VERSION
        frames = h5.create_dataset("frames", (M, N, N), "<f4", **options)
        frames.attrs["measurement"] = "counts"
        for indices, counts in raw.chunks():
            frames[indices[0] : indices[-1] + 1] = counts
        h5["positions_px"] = raw.positions_px
        if raw.probe is not None:
            h5["probe"] = raw.probe
            h5["probe"].attrs["calibrated"] = raw.probe_calibrated
        if raw.mask is not None:
            h5["mask"] = raw.mask
        if raw.background is not None:
            h5["background"] = raw.background
        if raw.object_guess is not None:
            h5["object"] = raw.object_guess.object
            h5["object"].attrs["origin_px"] = raw.object_guess.origin_px
        geometry = h5.create_group("geometry")
        for key in GEOMETRY_KEYS:
            value = getattr(raw.geometry, key)
            if value is not None:
                geometry.attrs[key] = value
        h5.create_group("propagation").attrs.update(statement_of(raw.propagation))
        h5["provenance"] = provenance
