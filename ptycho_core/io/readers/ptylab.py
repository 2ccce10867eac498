"""HDF5 files of PtyLab, by its documented fields; those that MATLAB wrote have their axes turned.

=====================  ==============================================================================================
dataset                content
=====================  ==============================================================================================
ptychogram             (M, H, W) intensities, zero frequency at (H // 2, W // 2)
encoder                (M, 2) places of the beam on the object, metres, (y, x)
wavelength, zo, dxd    metres: of the light, from sample to detector, side of a detector pixel
entrancePupilDiameter  optional, metres: about the diameter of the beam on the sample
spectralDensity        optional: several wavelengths, of which one is used
theta                  optional: angle of a tilted sample, whose frames would have to be resampled first
=====================  ==============================================================================================
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.raw import Geometry, Source
from ...data.recording import Recording
from ...errors import DataError
from ...physics.propagation import energy_of_eV
from ...plugins.hookspecs import hookimpl
from ...reader_protocol import ReaderSpec, ReadOptions
from ..candidate import Candidate, missing_key
from ..h5_values import array_at, length_at, measured_at, open_h5
from ..measurement import doubt, resolve_measurement
from ..probes import NO_PROBE
from .arrays import Hdf5Arrays
from .growing import counted_frames
from .matlab_values import is_matlab_73

__all__ = ["ptycho_reader", "read", "recognises"]

_USED = {"ptychogram", "encoder", "wavelength", "zo", "dxd", "entrancePupilDiameter", "spectralDensity", "theta"}
_SAMPLE = 4


@hookimpl
def ptycho_reader() -> ReaderSpec:
    """Describe the dialect."""
    return ReaderSpec(
        name="ptylab",
        title="PtyLab: HDF5 with ptychogram, encoder, zo, dxd, wavelength",
        kind="hdf5",
        module=__name__,
        protocol_version=2,
        priority=30,
        one_scan=True,
    )


def recognises(file: Candidate) -> bool:
    """Whether a file is HDF5 with a ptychogram."""
    return file.kind == "hdf5" and "ptychogram" in file.names


def read(file: Candidate, options: ReadOptions) -> Recording:
    """Read a scan; frames stay on disk.

    Args:
        file: an examined HDF5 file.
        options: `measurement` must not contradict counts; what they say of the instrument need not be in the file.

    Raises:
        DataError: a dataset is missing or holds what it must not, or the scan is one of Fourier ptychography.
    """
    name = str(file.path)
    if "zled" in file.names:
        raise DataError(
            f"{name}: has 'zled', the distance of lamps: it is a scan of Fourier ptychography, in which the light is "
            "moved instead of the sample. Such scans are not reconstructed here."
        )
    resolve_measurement(name, "counts", options.measurement)
    notes: list[str] = ["Frames of PtyLab are intensities, read as counts.", NO_PROBE]
    warnings: list[str] = []
    turned = is_matlab_73(file.path)
    arrays = Hdf5Arrays(file.path, options.follow)
    _check_frames(arrays)
    with open_h5(file.path, options.follow) as h5:
        positions = _encoder(h5, file, turned, options)
        geometry = _geometry(h5, file, options, notes)
        details = _rest(h5, notes, warnings)
    if turned:
        notes.append("The file was written by MATLAB, so that its axes are turned.")
    frames, (positions,) = counted_frames(arrays, "ptychogram", (2, 1) if turned else (1, 2), [positions], notes)
    notes.append("encoder is (y, x) metres, along the rows and columns of the frames.")
    ignored = sorted(set(file.names) - _USED)
    if ignored:
        notes.append(f"Ignored: {', '.join(ignored)}.")
    sample = frames.stored(np.unique(np.linspace(0, frames.shape[0] - 1, _SAMPLE).astype(np.int64)))
    return Recording(
        frames=frames,
        positions=positions,
        position_unit="m",
        geometry=geometry,
        source=Source(
            path=name,
            dialect="ptylab",
            measurement="counts",
            assumptions=tuple(notes),
            warnings=(*warnings, *doubt("counts", sample)),
            details=details,
        ),
    )


def _check_frames(arrays: Hdf5Arrays) -> None:
    header = arrays.header("ptychogram")
    shape = header.shape
    if len(shape) != 3 or 0 in shape or header.dtype.kind not in "biuf":
        raise DataError(
            f"{arrays.path}: 'ptychogram' is {shape} {header.dtype}; it must be (M, H, W) real intensities. Of several "
            "exposures or wavelengths, save one."
        )


def _encoder(h5: Any, file: Candidate, turned: bool, options: ReadOptions) -> NDArray[np.float64] | None:
    """(M, 2) (y, x) metres, or None where the file has none."""
    found = measured_at(h5, "encoder", "length", "--position_unit", as_stored=options.position_unit is not None)
    if found is None:
        return None
    values = found.values.T if turned else found.values
    if values.ndim != 2 or values.shape[1] != 2:
        raise DataError(f"{file.path}: 'encoder' is {values.shape}; it must be (M, 2), each (y, x) in metres.")
    return values


def _geometry(h5: Any, file: Candidate, options: ReadOptions, notes: list[str]) -> Geometry:
    """The instrument; what the caller gives instead need not be in the file."""
    radiation = options.radiation or "photon"
    wavelength = length_at(h5, "wavelength", "of the light, metres", option="--energy_eV", given=options.energy_eV)
    if wavelength is None and options.energy_eV is None:
        raise missing_key(file, "wavelength", "of the light, metres; or give --energy_eV")
    return Geometry(
        energy_eV=None if wavelength is None else energy_of_eV(wavelength, radiation),
        distance_m=length_at(h5, "zo", "sample to detector, metres", option="--distance_m", given=options.distance_m),
        detector_pixel_size_m=length_at(
            h5,
            "dxd",
            "side of a detector pixel",
            option="--detector_pixel_size_m",
            given=options.detector_pixel_size_m,
        ),
        radiation=radiation,
    )


def _rest(h5: Any, notes: list[str], warnings: list[str]) -> dict[str, Any]:
    """What is kept of the optional fields, or said to make the image wrong."""
    details: dict[str, Any] = {}
    diameter = _finite(h5, "entrancePupilDiameter")
    if len(diameter):
        details["entrance_pupil_diameter_m"] = float(diameter[0])
        notes.append(f"The beam on the sample is about {diameter[0]:.4g} m wide, as entrancePupilDiameter says.")
    spectrum = _finite(h5, "spectralDensity")
    if len(np.unique(spectrum)) > 1:
        warnings.append(
            f"spectralDensity has {len(spectrum)} wavelengths from {spectrum.min():.4g} to {spectrum.max():.4g} m; the "
            "forward model has one, that of 'wavelength', and the rest is blur."
        )
    theta = _finite(h5, "theta")
    if np.any(theta != 0):
        warnings.append(
            f"theta = {theta[0]:.4g}: the sample is tilted against the beam, and frames of a tilted sample must be "
            "resampled before they are reconstructed."
        )
    return details


def _finite(h5: Any, path: str) -> NDArray[np.float64]:
    """Finite numbers of an optional dataset; programs write NaN or an empty one where they have none."""
    values = array_at(h5, path, kinds="biufSO")
    if values is None or values.dtype.kind not in "biuf":
        return np.zeros(0)
    flat = values.astype(np.float64).ravel()
    return flat[np.isfinite(flat)]
