"""The tike dialect: an NPZ, usually compressed by bzip2 as a whole, with ``data``, ``scan`` and ``probe``.

``data`` (1, M, N, N) photon counts, zero frequency at the **corner**, so that frames are moved by half a frame;
``scan`` (1, M, 2) object pixels as (row, column) of the **corner** of a frame's patch, so that (N−1)/2 is added;
``probe`` (1, 1, 1, P, N, N) complex. The leading axis counts views; a scan has one. The origin of ``scan`` is free.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.frames import ArrayFrames
from ..data.propagation import FAR_FIELD
from ..data.raw import Source
from ..data.recording import Recording
from ..errors import DataError
from ..plugins.hookspecs import hookimpl
from ..reader_protocol import ReaderSpec, ReadOptions
from .candidate import Candidate, missing_key
from .measurement import doubt, resolve_measurement
from .probes import NO_PROBE, normalise_probe
from .stated import resolve_propagation

__all__ = ["ptycho_reader", "read", "recognises"]

_WHAT = {
    "data": "(1, M, N, N) counts, zero frequency at the corner",
    "scan": "(1, M, 2) patch corners (row, column), object pixels",
}


@hookimpl
def ptycho_reader() -> ReaderSpec:
    """Describe the dialect."""
    return ReaderSpec(
        name="tike",
        title="NPZ or .npz.bz2 with data, scan, probe",
        kind="npz",
        module=__name__,
        protocol_version=2,
        priority=20,
        one_scan=True,
    )


def recognises(file: Candidate) -> bool:
    """Whether a file is an NPZ with tike's keys."""
    return file.kind == "npz" and "data" in file.names and "scan" in file.names


def _one_view(file: Candidate, key: str, ndim: int) -> NDArray[Any]:
    """Load an array and take its one view off: (1, …) → (…)."""
    if key not in file.names:
        raise missing_key(file, key, _WHAT[key])
    kind = file.members[key].dtype.kind
    if kind not in "biuf":
        real = "complex values; counts are real" if kind == "c" else "values that are not real numbers"
        raise DataError(f"{file.path}: {key!r} holds {real} ({file.members[key].dtype}); it must be {_WHAT[key]}.")
    shape = file.members[key].shape
    if len(shape) == ndim + 1 and shape[0] != 1:
        raise DataError(f"{file.path}: {key!r} has {shape[0]} views; give one scan, {_WHAT[key]}.")
    if len(shape) not in (ndim, ndim + 1):
        raise DataError(f"{file.path}: {key!r} has shape {shape}; it must be {_WHAT[key]}.")
    return file.load(key).reshape(shape[-ndim:])


def read(file: Candidate, options: ReadOptions) -> Recording:
    """Read a scan; see the module for the keys.

    Args:
        file: an examined NPZ.
        options: `measurement` must not contradict counts.

    Raises:
        DataError: a key is missing or holds what it must not.
    """
    name = str(file.path)
    resolve_measurement(name, "counts", options.measurement)
    resolve_propagation(name, options.propagation, "far_field")  # frames with a corner for zero frequency
    counts = np.fft.fftshift(_one_view(file, "data", 3), axes=(-2, -1))
    corners = _one_view(file, "scan", 2).astype(np.float64)
    notes = [
        "data holds counts with zero frequency at the corner; it was moved to (N/2, N/2).",
        "scan is (row, column) of the corner of each patch; (N-1)/2 was added to name its centre.",
    ]
    probe = normalise_probe(file.load("probe"), name, notes) if "probe" in file.names else None
    if probe is None:
        notes.append(NO_PROBE)
    ignored = sorted(set(file.names) - {"data", "scan", "probe"})
    if ignored:
        notes.append(f"Ignored keys: {', '.join(ignored)}.")
    return Recording(
        frames=ArrayFrames(counts),
        positions=corners + (counts.shape[-1] - 1) / 2,
        position_unit="px",
        probe=probe,
        propagation=FAR_FIELD,
        source=Source(
            path=name,
            dialect="tike",
            measurement="counts",
            assumptions=tuple(notes),
            warnings=tuple(doubt("counts", counts[:4])),
        ),
    )
