"""Master files of Dectris detectors (Eiger, Pilatus): frames behind links, the instrument, and no positions.

========================================================  ==========================================================
in the file                                               meaning
========================================================  ==========================================================
entry/data/data_000001, data_000002, …                    (n, H, W) each, links to files beside the master, in order
entry/data/data                                           the same as one (virtual) dataset, in newer files
entry/instrument/detector/detector_distance               metres, or by ``units``
entry/instrument/detector/x_pixel_size, y_pixel_size      metres, or by ``units``
entry/instrument/detector/beam_center_x, beam_center_y    pixels; direct beam
entry/instrument/detector/bit_depth_image                 bits of a stored value; the largest number marks gaps and
                                                          saturated pixels
entry/instrument/detector/detectorSpecific/pixel_mask     (H, W) bit field, 0 = good
entry/instrument/beam/incident_wavelength                 ångström, or by ``units``
detectorSpecific/photon_energy                            eV, where there is no wavelength
detectorSpecific/nimages × ntrigger                       frames that were asked for
========================================================  ==========================================================

The names are those of the NXmx application definition and of the detector's own description of its files.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.frames import ConcatenatedFrames, FrameSource, Hdf5Frames
from ...data.raw import Geometry, Source
from ...data.recording import Recording
from ...errors import DataError
from ...physics.propagation import energy_of_eV
from ...plugins.hookspecs import hookimpl
from ...reader_protocol import ReaderSpec, ReadOptions
from ...text import counted
from ..candidate import Candidate
from ..h5_values import array_at, dataset_at, energy_at, group_at, length_at, number_at, open_h5, units_of, whole_frames
from ..measurement import resolve_measurement
from ..probes import NO_PROBE

__all__ = ["ptycho_reader", "read", "recognises"]

_DATA = "entry/data"
_DETECTOR = "entry/instrument/detector"
_SPECIFIC = f"{_DETECTOR}/detectorSpecific"
_BLOCK = re.compile(r"data_\d+")
_MASKS = (f"{_SPECIFIC}/pixel_mask", f"{_DETECTOR}/pixel_mask")
_DISTANCES = (f"{_DETECTOR}/detector_distance", f"{_DETECTOR}/distance")
_WAVELENGTHS = ("entry/instrument/beam/incident_wavelength", "entry/sample/beam/incident_wavelength")
_ENERGIES = (f"{_SPECIFIC}/photon_energy", f"{_DETECTOR}/photon_energy")


@hookimpl
def ptycho_reader() -> ReaderSpec:
    """Describe the dialect."""
    return ReaderSpec(
        name="eiger",
        title="Dectris master file (HDF5) with entry/data/data_000001, …; positions beside it",
        kind="hdf5",
        module=__name__,
        protocol_version=2,
        priority=15,
        one_scan=True,
    )


def recognises(file: Candidate) -> bool:
    """Whether a file is HDF5 with numbered blocks of frames, or a detector's description with one dataset of them."""
    if file.kind != "hdf5":
        return False
    blocks = any(name.startswith(f"{_DATA}/") and _BLOCK.fullmatch(name[len(_DATA) + 1 :]) for name in file.names)
    return blocks or (f"{_DATA}/data" in file.names and any(name.startswith(f"{_SPECIFIC}/") for name in file.names))


def read(file: Candidate, options: ReadOptions) -> Recording:
    """Read frames and instrument; positions lie beside the file.

    Args:
        file: an examined master file.
        options: `measurement` must not contradict counts; `follow` takes the blocks that are there.

    Raises:
        DataError: a block is gone, or blocks are of different shapes.
    """
    name = str(file.path)
    resolve_measurement(name, "counts", options.measurement)
    notes: list[str] = ["Frames of a Dectris detector are counts."]
    warnings: list[str] = []
    with open_h5(file.path, options.follow) as h5:
        blocks, dtype = _blocks(h5, file, options, notes)
        size = (blocks[0][1][-2], blocks[0][1][-1])
        parts = tuple(Hdf5Frames(file.path, path, shape, follow=options.follow) for path, shape in blocks)
        frames: FrameSource = parts[0] if len(parts) == 1 else ConcatenatedFrames(parts)
        wanted = _asked_for(h5)
        if wanted is not None and wanted != frames.shape[0]:
            warnings.append(
                f"The detector was asked for {counted(wanted, 'frame')}; "
                f"{counted(frames.shape[0], 'is', 'are')} in the file."
            )
        mask = _mask(h5, file, size, notes)
        geometry = _geometry(h5, file, options, notes)
        centre = _centre(h5, size, notes)
        _gaps(h5, file, dtype, notes)
    if len(parts) > 1:
        notes.append(f"{len(parts)} blocks of frames were put one after another, {blocks[0][0]} to {blocks[-1][0]}.")
    return Recording(
        frames=frames,
        positions=None,
        mask=mask,
        mask_polarity="bad",
        geometry=geometry,
        centre_px=centre,
        source=Source(
            path=name,
            dialect="eiger",
            measurement="counts",
            assumptions=(*notes, NO_PROBE),
            warnings=tuple(warnings),
        ),
    )


def _blocks(
    h5: Any, file: Candidate, options: ReadOptions, notes: list[str]
) -> tuple[list[tuple[str, tuple[int, ...]]], np.dtype[Any]]:
    """Paths and shapes of the blocks of frames, in the order of their numbers, and their type."""
    group = group_at(h5, _DATA)
    numbered = sorted((key for key in group or () if _BLOCK.fullmatch(key)), key=lambda key: int(key[5:]))
    paths = [f"{_DATA}/{key}" for key in numbered] or [f"{_DATA}/data"]
    found: list[tuple[str, tuple[int, ...]]] = []
    dtypes = []
    for number, path in enumerate(paths):
        try:
            dataset = dataset_at(h5, path)
        except DataError as error:
            # a master names every block that there may be; those at the end may never have been written
            if not found or not (options.follow or _enough(h5, found)):
                raise
            notes.append(f"Blocks from {path} on are not there and were left out: {error}")
            _none_after(h5, file, paths[number + 1 :])
            break
        if dataset is None or len(dataset.shape) != 3 or dataset.dtype.kind not in "iu":
            shape = None if dataset is None else f"{dataset.shape} {dataset.dtype}"
            raise DataError(f"{file.path}: {path!r} is {shape}; a block of frames is (n, H, W) whole numbers.")
        if found and dataset.shape[1:] != found[0][1][1:]:
            raise DataError(
                f"{file.path}: {path!r} has frames of {dataset.shape[1:]}, {found[0][0]!r} of {found[0][1][1:]}; they "
                "must be of one scan. Copy the data files again."
            )
        whole = whole_frames(dataset)
        if whole:
            found.append((path, (whole, *map(int, dataset.shape[1:]))))
            dtypes.append(dataset.dtype)
        if whole < dataset.shape[0]:
            first = counted(whole, "is", "are")
            notes.append(f"{path} is still being written: of its {dataset.shape[0]} frames the first {first} read.")
            break
    if not found:
        raise DataError(f"{file.path}: {_DATA!r} holds no whole frame yet; try again later.")
    return found, dtypes[0]


def _enough(h5: Any, found: list[tuple[str, tuple[int, ...]]]) -> bool:
    """Whether the blocks so far hold all frames that were asked for."""
    wanted = _asked_for(h5)
    return wanted is not None and sum(shape[0] for _, shape in found) >= wanted


def _none_after(h5: Any, file: Candidate, paths: list[str]) -> None:
    """Refuse a gap: a block that is there after one that is not."""
    for path in paths:
        try:
            there = dataset_at(h5, path) is not None
        except DataError:
            continue
        if there:
            raise DataError(
                f"{file.path}: {path!r} is there, but a block before it is not. Put its file beside the master."
            )


def _asked_for(h5: Any) -> int | None:
    images = number_at(h5, f"{_SPECIFIC}/nimages", "images of a series")
    triggers = number_at(h5, f"{_SPECIFIC}/ntrigger", "triggers of a series")
    return None if images is None else round(images * (triggers or 1))


def _mask(h5: Any, file: Candidate, size: tuple[int, int], notes: list[str]) -> NDArray[np.bool_] | None:
    for path in _MASKS:
        bits = array_at(h5, path, "biu")
        if bits is None:
            continue
        bits = bits[0] if bits.ndim == 3 and len(bits) == 1 else bits
        if bits.shape != size:
            raise DataError(
                f"{file.path}: {path!r} is {bits.shape}, but frames are {size[0]}×{size[1]}. Give --mask FILE."
            )
        good: NDArray[np.bool_] = bits == 0
        notes.append(f"pixel_mask is a bit field in which 0 is good; it hides {counted(int((~good).sum()), 'pixel')}.")
        return good
    return None


def _gaps(h5: Any, file: Candidate, dtype: np.dtype[Any], notes: list[str]) -> None:
    """Say what the largest number of the stored type means; it is masked for every dialect alike where it is found."""
    depth = number_at(h5, f"{_DETECTOR}/bit_depth_image", "bits of a value")
    if depth is not None and not 1 <= depth <= 64:
        raise DataError(f"{file.path}: 'bit_depth_image' is {depth:g}; a stored value has 1 to 64 bits.")
    bits = 8 * dtype.itemsize if depth is None else round(depth)
    notes.append(f"Values have {bits} bits; {2**bits - 1} marks gaps, and pixels that counted more than they can.")


def _geometry(h5: Any, file: Candidate, options: ReadOptions, notes: list[str]) -> Geometry:
    pixels = [
        length_at(
            h5,
            f"{_DETECTOR}/{axis}_pixel_size",
            "side of a pixel",
            option="--detector_pixel_size_m",
            given=options.detector_pixel_size_m,
        )
        for axis in "yx"
    ]
    if None not in pixels and abs(pixels[0] / pixels[1] - 1) > 1e-4:  # type: ignore[operator]
        raise DataError(f"{file.path}: pixels are {pixels[0]} × {pixels[1]} m; only square ones are read.")
    distance = _first_length(h5, _DISTANCES, "m", "--distance_m", options.distance_m, notes)
    wavelength = _first_length(h5, _WAVELENGTHS, "A", "--energy_eV", options.energy_eV, notes)
    energy = None if wavelength is None else energy_of_eV(wavelength)
    for path in _ENERGIES:
        energy = energy if energy is not None else energy_at(h5, path, "photon energy", given=options.energy_eV)
    return Geometry(energy_eV=energy, distance_m=distance, detector_pixel_size_m=pixels[0] or pixels[1])


def _first_length(
    h5: Any, paths: tuple[str, ...], unstated: str, option: str, given: float | None, notes: list[str]
) -> float | None:
    """The first of some lengths that is there; 0, which detectors write where nobody told them, is none."""
    for path in paths:
        if array_at(h5, path, "biuf") is not None and number_at(h5, path, option) != 0:
            if not units_of(h5[path]):
                notes.append(f"{path} states no unit; it was read in {unstated}.")
            return length_at(h5, path, option, unstated=unstated, option=option, given=given)
    return None


def _centre(h5: Any, size: tuple[int, int], notes: list[str]) -> tuple[float, float] | None:
    """Pixel of the direct beam, where the file states one that lies on the detector."""
    stated = [number_at(h5, f"{_DETECTOR}/beam_center_{axis}", "pixel of the beam") for axis in "yx"]
    y, x = stated
    if not y or not x or not (0 < y < size[0] and 0 < x < size[1]):
        return None
    notes.append(f"The file says that the beam is at pixel ({y:.4g}, {x:.4g}) (y, x).")
    return y, x
