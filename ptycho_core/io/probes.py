"""Probes from wherever they are kept: a scan, a probe file, a reconstruction, a model bundle."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..text import listed
from .candidate import Candidate, examine, missing_key
from .guarded import in_child
from .h5_values import array_at, as_complex, dataset_at, open_h5
from .readers.arrays import MatArrays, is_mat
from .readers.matlab_values import is_matlab_73, planes_first

__all__ = ["NO_PROBE", "normalise_probe", "read_probe"]

NO_PROBE = "The file holds no probe; one will be estimated from the frames unless one is given."
"""What readers note of a scan without a probe."""

_CORNER, _MIDDLE = 0.6, 0.15
_NPZ_KEYS = ("probeGuess", "probe")
_MAT_NAMES = ("probe", "probes", "p/probe", "outputs/probe")
_HDF5_PATHS = (
    r"entry/probe",
    r"probe",
    r"content/probe/[^/]+/data",  # ptypy's .ptyr
    r"entry(_\d+)?/(image(_\d+)?/)?(instrument(_\d+)?/source(_\d+)?|process(_\d+)?|sample(_\d+)?)/"
    r"(final_illumination|illumination|probe)",  # CXI
)
"""Names by which probes are known in HDF5, as patterns; the first that is there counts."""


def normalise_probe(probe: NDArray[Any], name: str, notes: list[str] | None = None) -> NDArray[np.complex64]:
    """Bring a probe to (P, N, N), its centre in the middle: modes first, the first of several views or variations.

    Args:
        probe: (N, N), (P, N, N), (N, N, P) with P < N, or (..., P, N, N); of leading axes the first item counts. A real
            (..., N, N, 2) holds real and imaginary parts, and so does MATLAB's compound of ``real`` and ``imag``.
        name: the file, for messages.
        notes: what was recognised is added here.

    Raises:
        DataError: not numbers, or no square planes.
    """
    said: list[str] = [] if notes is None else notes
    probe = as_complex(probe)
    if probe.dtype.kind not in "biufc":
        raise DataError(f"{name}: the probe holds {probe.dtype} values; it must hold complex numbers.")
    if probe.dtype.kind == "f" and probe.ndim >= 3 and probe.shape[-1] == 2 and probe.shape[-2] == probe.shape[-3] > 2:
        said.append(f"The probe is real {probe.shape}: the last axis was read as its real and imaginary part.")
        probe = probe[..., 0] + 1j * probe[..., 1]
    if probe.ndim == 2:
        probe = probe[None]
    if probe.ndim == 3 and probe.shape[0] == probe.shape[1] > probe.shape[2]:
        probe = np.moveaxis(probe, -1, 0)
    while probe.ndim > 3:
        probe = probe[0]
    if probe.ndim != 3 or probe.shape[1] != probe.shape[2] or 0 in probe.shape:
        raise DataError(f"{name}: the probe has shape {probe.shape}; it must be (N, N) or (P, N, N).")
    if _is_cornered(probe):
        said.append("The probe has its centre at the corner of its window; it was moved to the middle.")
        probe = np.fft.fftshift(probe, axes=(-2, -1))
    return np.ascontiguousarray(probe, dtype=np.complex64)


def _is_cornered(probe: NDArray[Any]) -> bool:
    """Whether the power of a probe (P, N, N) lies about the corner of its window: FFTs count from there.

    A beam fills neither the middle nor the corners alone; one that is told apart has three fifths of its power in the
    quarter of the window about the corner, and next to none in the one about the middle.
    """
    power = np.nan_to_num(np.abs(probe).astype(np.float64) ** 2).sum(axis=0)
    total = power.sum()
    if not 0 < total < np.inf:
        return False
    quarter = slice(len(power) // 4, len(power) - len(power) // 4)
    corner = np.fft.fftshift(power)[quarter, quarter].sum() / total
    return bool(corner > _CORNER and power[quarter, quarter].sum() / total < _MIDDLE)


def _from_npz(file: Candidate) -> NDArray[Any]:
    for key in _NPZ_KEYS:
        if key in file.names:
            return file.load(key)
    raise missing_key(file, "probeGuess", "the probe, (N, N) or (P, N, N) complex; 'probe' is accepted too")


def _from_mat(path: Path) -> NDArray[Any]:
    """Of a MAT file of version 5 to 7."""
    arrays = MatArrays(path).loaded()
    for name in _MAT_NAMES:
        if name in arrays.values:
            return planes_first(arrays.values[name])
    held = listed(sorted(arrays.values)) or "nothing"
    raise DataError(f"{path}: no probe, (N, N), (N, N, P) or (N, N, P, variations). The file holds: {held}.")


def _from_hdf5(file: Candidate) -> NDArray[Any]:
    """The first dataset that one of the programs that keep probes in HDF5 calls so."""
    turned = is_matlab_73(file.path)
    for pattern in _HDF5_PATHS:
        for name in sorted(name for name in file.names if re.fullmatch(pattern, name)):
            with open_h5(file.path) as h5:
                dataset = dataset_at(h5, name)
                # source_1/probe of NeXus is a word: x-ray
                values = array_at(h5, name, "biufc") if dataset is not None and dataset.ndim >= 2 else None
            if values is not None:
                return planes_first(values.T) if turned else values
    raise missing_key(file, "entry/probe", "the probe, (N, N) or (P, N, N) complex")


def read_probe(path: Path | str, notes: list[str] | None = None) -> NDArray[np.complex64]:
    """Read a probe of any size.

    Args:
        path: an NPZ with ``probeGuess`` or ``probe``, a tike file, a scan or ``reconstruction.h5`` in HDF5, a CXI file,
            a reconstruction of ptypy (``.ptyr``) or a MAT file with ``probe``, a product of ptychodus, or a
            ``model.ptycho`` bundle.
        notes: what was recognised is added here.

    Returns:
        (P, N, N) complex64.

    Raises:
        DataError: no probe there, or not a usable one.
        ArchiveError: a damaged bundle.
    """
    found: tuple[NDArray[np.complex64], list[str]] = in_child(_read_probe, Path(path), about=path)
    probe, told = found
    if notes is not None:
        notes += told
    return probe


def _read_probe(path: Path) -> tuple[NDArray[np.complex64], list[str]]:
    """The probe in a file, and what was recognised."""
    notes: list[str] = []
    file = examine(path)
    is_mat5 = file is None and is_mat(Candidate(Path(path), "other", (), {}))
    if file is None and not is_mat5:
        raise DataError(
            f"{path}: not a file that a probe is read from; allowed: NPZ with probeGuess or probe, tike "
            "(.npz.bz2), HDF5 with /entry/probe or /probe, MAT with probe, model.ptycho."
        )
    if file is not None and file.kind == "bundle":
        from ..bundle import read_bundle

        return read_bundle(file.path).probe, notes
    stored = _from_mat(Path(path)) if file is None else _from_npz(file) if file.kind == "npz" else _from_hdf5(file)
    probe = normalise_probe(stored, str(path), notes)
    if not np.isfinite(probe).all():
        raise DataError(f"{path}: the probe holds NaN or infinite values.")
    if not probe.any():
        raise DataError(f"{path}: the probe is zero everywhere.")
    return probe, notes
