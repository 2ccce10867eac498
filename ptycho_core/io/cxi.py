"""CXI files of ptychography scans (www.cxidb.org), SI units throughout.

Read from ``/entry_1``: frames (M, N, N) counts, ``translation`` (M, 3) metres, ``distance``, ``x_pixel_size``,
``y_pixel_size``, ``energy`` (joules) or ``wavelength``, ``mask`` (bit field, 0 = good) and ``basis_vectors`` (3, 2),
the steps in space from one detector row, and one column, to the next. ``translation`` is where the *sample* was moved
to, so that the beam sits at minus that on the object; the axes of the detector are the object's:

    position_px = −(translation · row direction, translation · column direction) / pixel_size,
    pixel_size = λz / (N p) in the far field, p / m in a near field magnified m times.

A CXI file says neither which of the two it is nor where a cone beam has its focus. The frames tell both, see
``far_field``. Where a near field is given instead, its Fresnel number gives m = p² / (F λ z) (FM-25).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.frames import Hdf5Frames
from ..data.raw import Geometry, Source
from ..data.recording import Recording
from ..errors import DataError
from ..physics.propagation import HC_EV_M
from ..plugins.hookspecs import hookimpl
from ..reader_protocol import ReaderSpec, ReadOptions
from .candidate import Candidate, missing_key
from .measurement import resolve_measurement
from .probes import NO_PROBE

__all__ = ["ptycho_reader", "read", "recognises"]

_DETECTOR = "entry_1/instrument_1/detector_1"
_FRAMES = ("entry_1/data_1/data", f"{_DETECTOR}/data")
_TRANSLATION = ("entry_1/sample_1/geometry_1/translation", "entry_1/data_1/translation", f"{_DETECTOR}/translation")
_MASK = (f"{_DETECTOR}/mask", "entry_1/data_1/mask")
_JOULES_PER_EV = 1.602176634e-19
# in a peak, artefact corrected, peak for the hit finder, background corrected: information, not defects
_HARMLESS_BITS = 0x20 | 0x800 | 0x2000 | 0x4000 | ~0x7FFF


@hookimpl
def ptycho_reader() -> ReaderSpec:
    """Describe the dialect."""
    return ReaderSpec(
        name="cxi",
        title="CXI (HDF5) with entry_1/…",
        kind="hdf5",
        module=__name__,
        protocol_version=1,
        priority=20,
    )


def recognises(file: Candidate) -> bool:
    """Whether a file is HDF5 with the CXI layout."""
    return file.kind == "hdf5" and any(n == "cxi_version" or n.startswith("entry_1/") for n in file.names)


def _first(h5: Any, paths: tuple[str, ...]) -> str | None:
    return next((path for path in paths if path in h5), None)


def _scalar(h5: Any, file: Candidate, path: str, what: str) -> float:
    if path not in h5:
        raise missing_key(file, path, what)
    value = np.asarray(h5[path][()])
    number = float(value.ravel()[0]) if value.size == 1 and value.dtype.kind in "iuf" else float("nan")
    if not 0 < number < float("inf"):
        raise DataError(f"{file.path}: {path!r} must be one positive number, {what}; found {value!r}.")
    return number


def _energy(h5: Any, file: Candidate, notes: list[str]) -> float:
    """Photon energy, electronvolts."""
    source = "entry_1/instrument_1/source_1"
    if f"{source}/wavelength" in h5:
        return HC_EV_M / _scalar(h5, file, f"{source}/wavelength", "metres")
    energy = _scalar(h5, file, f"{source}/energy", "the photon energy in joules; or give wavelength in metres")
    if energy > 1e-3:  # no photon that a detector sees has a millijoule
        notes.append(f"energy = {energy:g} cannot be joules; it was taken as electronvolts.")
        return energy
    return energy / _JOULES_PER_EV


def _geometry(h5: Any, file: Candidate, notes: list[str]) -> Geometry:
    """The instrument; the object's pixel follows from it."""
    pixels = [_scalar(h5, file, f"{_DETECTOR}/{axis}_pixel_size", "metres") for axis in "yx"]
    if abs(pixels[0] - pixels[1]) > 1e-4 * pixels[0]:
        raise DataError(
            f"{file.path}: detector pixels are {pixels[0]:.4g} × {pixels[1]:.4g} m; only square ones are supported. "
            "Resample the frames."
        )
    distance = _scalar(h5, file, f"{_DETECTOR}/distance", "sample to detector, metres")
    energy = _energy(h5, file, notes)
    return Geometry(
        energy_eV=energy,
        distance_m=distance,
        detector_pixel_size_m=pixels[0],
    )


def _positions_m(h5: Any, file: Candidate, notes: list[str]) -> NDArray[np.float64]:
    """Frame centres (M, 2) (y, x) on the object, metres."""
    path = _first(h5, _TRANSLATION)
    if path is None:
        raise missing_key(file, _TRANSLATION[0], "(M, 3) sample translations, metres")
    stored = np.asarray(h5[path][()])
    if stored.ndim != 2 or stored.shape[1] not in (2, 3) or stored.dtype.kind not in "iuf":
        raise DataError(f"{file.path}: {path!r} is {stored.shape} {stored.dtype}; it must be (M, 3) metres (x, y, z).")
    translation = np.zeros((len(stored), 3))
    translation[:, : stored.shape[1]] = stored
    if f"{_DETECTOR}/basis_vectors" in h5:
        basis = np.asarray(h5[f"{_DETECTOR}/basis_vectors"][()], dtype=np.float64)
        length = np.linalg.norm(basis, axis=0) if basis.shape == (3, 2) else np.zeros(2)
        if not (np.isfinite(length).all() and (length > 0).all()):
            raise DataError(f"{file.path}: 'basis_vectors' must be (3, 2), a row step and a column step in metres.")
        directions = basis / length
    else:
        notes.append("No basis_vectors: detector rows are taken to step along -y and columns along -x.")
        directions = np.array([[0.0, -1.0], [-1.0, 0.0], [0.0, 0.0]])
    notes.append("translation is the motion of the sample; positions on the object are minus that, in object pixels.")
    return np.asarray(-(translation @ directions))


def _mask(h5: Any, N: int, notes: list[str]) -> NDArray[np.bool_] | None:
    path = _first(h5, _MASK)
    if path is None:
        return None
    bits = np.asarray(h5[path][()]).astype(np.int64)
    bits = bits[0] if bits.ndim == 3 and len(bits) == 1 else bits
    mask: NDArray[np.bool_] = (bits & ~_HARMLESS_BITS) == 0
    notes.append(f"mask is a bit field in which 0 is good; it hides {int((~mask).sum())} pixels.")
    return mask


def read(file: Candidate, options: ReadOptions) -> Recording:
    """Read a scan; frames stay on disk.

    Args:
        file: an examined HDF5 file.
        options: `measurement` must not contradict counts.

    Raises:
        DataError: a dataset is missing or holds what it must not, or frames contradict the propagation that is given.
    """
    import h5py
    import hdf5plugin  # noqa: F401  registers the compression filters detectors use

    name = str(file.path)
    resolve_measurement(name, "counts", options.measurement)
    notes: list[str] = [NO_PROBE]
    with h5py.File(file.path, "r") as h5:
        path = _first(h5, _FRAMES)
        if path is None:
            raise missing_key(file, _FRAMES[1], "(M, N, N) frames")
        shape, dtype = h5[path].shape, h5[path].dtype
        if len(shape) != 3 or 0 in shape or dtype.kind not in "biuf":
            raise DataError(f"{name}: {path!r} is {shape} {dtype}; frames must be (M, N, N) real counts.")
        geometry = _geometry(h5, file, notes)
        positions_m = _positions_m(h5, file, notes)
        mask = _mask(h5, shape[1], notes)
    return Recording(
        frames=Hdf5Frames(file.path, path, shape),
        positions=positions_m,
        position_unit="m",
        mask=mask,
        geometry=geometry,
        source=Source(
            path=name,
            dialect="cxi",
            measurement="counts",
            assumptions=("CXI frames are counts.", *notes),
        ),
    )
