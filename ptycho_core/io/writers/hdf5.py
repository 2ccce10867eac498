"""The HDF5 dialect of ``io.hdf5``, every convention stated: it reads back as it was."""

from __future__ import annotations

from pathlib import Path

from ...data.raw import RawData
from ..h5_output import h5_output
from ..hdf5 import FORMAT, VERSION
from ..npz import GEOMETRY_KEYS
from ..stated import statement_of
from .common import chunked, provenance_json

__all__ = ["write"]


def write(path: Path, raw: RawData, *, compress: bool) -> list[str]:
    """Write a scan; nothing is lost."""
    provenance = provenance_json(raw)
    M, N = raw.n_frames, raw.side
    with h5_output(path) as (h5, check):
        h5.attrs["format"], h5.attrs["version"] = FORMAT, VERSION
        frames = h5.create_dataset("frames", (M, N, N), "<f4", **chunked(N, compress))
        frames.attrs["measurement"] = "counts"
        for indices, counts in raw.chunks():
            frames[indices[0] : indices[-1] + 1] = counts
            check()
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
        if raw.geometry.radiation != "photon":
            geometry.attrs["radiation"] = raw.geometry.radiation
        h5.create_group("propagation").attrs.update(statement_of(raw.propagation))
        h5["provenance"] = provenance
    return []
