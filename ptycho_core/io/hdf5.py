"""The project's own HDF5 dialect; frames stay on disk until a group is read.

================  ==================================================================================================
dataset           content
================  ==================================================================================================
/                 attributes ``format`` = "ptycho-scan", ``version`` = 1
/frames           (M, N, N), far field: zero frequency at (N/2, N/2); attribute ``measurement``: ``amplitude`` or
                  ``counts``
/positions_px     (M, 2) float64 frame centres (y, x), object pixels; they name pixel (N−1)/2 of a frame
/probe            optional (P, N, N) complex64; attribute ``calibrated``: |F(probe · object)|² is in photons
/mask             optional (N, N) bool, True = good
/background       optional (N, N) float32 expected counts
/object           optional (H, W) complex64; attribute ``origin_px`` (2,) (y, x) of the centre of pixel (0, 0)
/provenance       optional text, JSON
/propagation      group, far field when absent; attributes ``propagation`` = ``far_field`` or ``near_field``,
                  ``fresnel_number``, and optional ``wavelength_px``, as in the NPZ dialect
/geometry         group; optional attributes ``energy_eV``, ``distance_m``, ``detector_pixel_size_m``, ``pixel_size_m``
================  ==================================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.frames import Hdf5Frames
from ..data.raw import Geometry, ObjectGuess, Source
from ..data.recording import Recording
from ..errors import DataError
from ..plugins.hookspecs import hookimpl
from ..reader_protocol import ReaderSpec, ReadOptions
from ..text import counted
from .candidate import Candidate, missing_key
from .h5_values import array_at, dataset_at, open_h5, units_of, whole, whole_frames
from .measurement import doubt, resolve_measurement, unstated_note
from .npz import GEOMETRY_KEYS, parse_provenance
from .planes import good_pixels, one_in
from .probes import NO_PROBE, normalise_probe
from .stated import positive_numbers, propagation_in

__all__ = ["FORMAT", "VERSION", "ptycho_reader", "read", "read_group", "recognises"]

FORMAT = "ptycho-scan"
VERSION = 1
_OPTIONAL = ("mask", "probe", "background", "object", "provenance")
_REQUIRED = {"frames": "(M, N, N) frames", "positions_px": "(M, 2) frame centres (y, x), object pixels"}
_SAMPLE_FRAMES = 4


@hookimpl
def ptycho_reader() -> ReaderSpec:
    """Describe the dialect."""
    return ReaderSpec(
        name="hdf5",
        title="HDF5 with frames, positions_px",
        kind="hdf5",
        module=__name__,
        protocol_version=2,
        priority=10,
        one_scan=True,
    )


def recognises(file: Candidate) -> bool:
    """Whether a file is HDF5 with this layout, or most of it."""
    return file.kind == "hdf5" and not set(_REQUIRED).isdisjoint(file.names)


def _plain(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _numbers(h5: Any, file: Candidate, path: str, kinds: str = "biuf") -> NDArray[Any]:
    values = array_at(h5, path, kinds)
    if values is None:
        raise missing_key(file, path, "a dataset")
    return values


def _check_version(h5: Any, file: Candidate) -> None:
    stated = _plain(h5.attrs.get("format", FORMAT))
    version = np.asarray(h5.attrs.get("version", VERSION))
    if stated != FORMAT or version.size != 1 or version.dtype.kind not in "iu" or int(version.ravel()[0]) > VERSION:
        raise DataError(
            f"{file.path}: states format {stated!r} version {version}; this release reads {FORMAT!r} up to version "
            f"{VERSION}. Update ptycho-core."
        )


def _check_optional(h5: Any, file: Candidate) -> None:
    """What need not be there is a dataset where it is there: a group of that name is no scan without it."""
    for name in _OPTIONAL:
        if name not in file.names and name in h5:
            raise DataError(f"{file.path}: {name!r} is a group; it must be a dataset, or not be there.")


def _object_guess(h5: Any, file: Candidate) -> ObjectGuess | None:
    if "object" not in file.names:
        return None
    values = _numbers(h5, file, "object", "biufc")
    origin = np.asarray(h5["object"].attrs.get("origin_px", (0.0, 0.0)), dtype=np.float64)
    if values.ndim != 2 or not np.isfinite(values).all() or origin.shape != (2,) or not np.isfinite(origin).all():
        raise DataError(f"{file.path}: 'object' {values.shape} must be a finite (H, W) image with origin_px (y, x).")
    return ObjectGuess(object=values.astype(np.complex64), origin_px=origin)


def _attributes(h5: Any, group: str, file: Candidate) -> Mapping[str, Any]:
    """Attributes of a group that need not be there."""
    if group not in h5:
        return {}
    if group in file.names:
        raise DataError(f"{file.path}: {group!r} is a dataset; it must be a group, whose attributes say what it is.")
    found: Mapping[str, Any] = h5[group].attrs
    return found


def _calibrated(h5: Any, file: Candidate) -> bool:
    """Whether the probe says that |F(probe · object)|² is in photons."""
    stated = np.asarray(h5["probe"].attrs.get("calibrated", False)) if "probe" in file.names else np.array(False)
    if stated.size != 1 or stated.dtype.kind not in "biu" or stated.ravel()[0] not in (0, 1):
        raise DataError(
            f"{file.path}: attribute 'calibrated' of 'probe' must be one bool; found {stated.shape} {stated.dtype}."
        )
    return bool(stated.ravel()[0])


def _provenance(h5: Any, file: Candidate) -> dict[str, Any]:
    if "provenance" not in file.names:
        return {}
    text = _plain(whole(h5["provenance"], "provenance")[()])
    if not isinstance(text, str):
        raise DataError(f"{file.path}: dataset 'provenance' must be one text, JSON.")
    return parse_provenance(text, f"{file.path}: 'provenance'")


def _frames(h5: Any, file: Candidate, measurement: str, group: str) -> Hdf5Frames:
    dataset = dataset_at(h5, "frames")
    if dataset is None:
        raise missing_key(file, "frames", _REQUIRED["frames"])
    if dataset.ndim != 3 or dataset.dtype.kind not in "biuf":
        found = "complex values; a detector records counts" if dataset.dtype.kind == "c" else f"{dataset.dtype}"
        raise DataError(f"{file.path}: 'frames' is {dataset.shape} {found}; it must be (M, N, N) real numbers.")
    shape = (whole_frames(dataset), *dataset.shape[1:])
    path = f"{group}/frames".strip("/")  # the name of what lies behind a link is its own
    return Hdf5Frames(file.path, path, shape, measurement, follow=h5.file.swmr_mode)


def _positions(h5: Any, file: Candidate, options: ReadOptions) -> NDArray[np.float64]:
    """Positions as stored, object pixels; a unit that says otherwise is for the caller to decide."""
    positions = _numbers(h5, file, "positions_px").astype(np.float64)
    unit = units_of(h5["positions_px"])
    if options.position_unit is None and unit.lower() not in ("", "px", "pixel", "pixels"):
        raise DataError(
            f"{file.path}: 'positions_px' are object pixels by their name, and state the unit {unit!r}. Say which they "
            "are in (--position_unit)."
        )
    return positions


def _sample(dataset: Any) -> NDArray[Any]:
    """A few frames as stored, spread over the scan."""
    M = len(dataset)
    return np.asarray(dataset[np.unique(np.linspace(0, M - 1, min(M, _SAMPLE_FRAMES)).astype(np.int64))])


def _radiation(h5: Any, file: Candidate) -> str:
    return str(_plain(_attributes(h5, "geometry", file).get("radiation", "photon")))


def read(file: Candidate, options: ReadOptions) -> Recording:
    """Read a scan; see the module for the layout.

    Args:
        file: an examined HDF5 file.
        options: `measurement` is what the frames are, when the file does not say.

    Raises:
        DataError: a dataset is missing or holds what it must not.
    """
    return read_group(file, options, "")


def read_group(file: Candidate, options: ReadOptions, group: str) -> Recording:
    """Read a scan that lies in a group, or at the root.

    Args:
        file: an examined HDF5 file, its names those in the group.
        options: as for :func:`read`.
        group: path of the group, or an empty text.

    Raises:
        DataError: as :func:`read`.
    """
    name = str(file.path)
    for path, what in _REQUIRED.items():
        if path not in file.names:
            raise missing_key(file, path, what)
    with open_h5(file.path, options.follow) as root:
        h5 = root[group] if group else root
        _check_version(h5, file)
        _check_optional(h5, file)
        _frames(h5, file, "counts", group)
        stated = _plain(h5["frames"].attrs.get("measurement"))
        sample = _sample(h5["frames"])
        resolved = resolve_measurement(name, stated, options.measurement, sample)
        mask, how = good_pixels(_numbers(h5, file, "mask")) if "mask" in file.names else (None, "")
        told: list[str] = []
        probe = normalise_probe(_numbers(h5, file, "probe", "biufc"), name, told) if "probe" in file.names else None
        calibrated = _calibrated(h5, file)
        background = _numbers(h5, file, "background") if "background" in file.names else None
        object_guess, numbers, provenance = (
            _object_guess(h5, file),
            positive_numbers(_attributes(h5, "geometry", file), GEOMETRY_KEYS, f"{name}: geometry"),
            _provenance(h5, file),
        )
        geometry = Geometry(**numbers, radiation=_radiation(h5, file))
        positions = _positions(h5, file, options)
        live = root.swmr_mode
        propagation = propagation_in(_attributes(h5, "propagation", file), name, options.propagation)
        frames = _frames(h5, file, resolved, group)
    if live:  # of a scan that goes on, as many as have both
        whole = min(frames.shape[0], len(positions))
        frames, positions = replace(frames, stored_shape=(whole, *frames.stored_shape[1:])), positions[:whole]
    notes = [] if mask is None or how == "True as good" else [f"The mask was read with {how}."]
    notes += ([] if stated else [unstated_note(resolved)]) + ([NO_PROBE] if probe is None else told)
    if live:
        first = counted(len(positions), "frame is", "frames are")
        notes.append(f"The file is still being written: its first {first} read.")
    return Recording(
        frames=frames,
        positions=positions,
        position_unit="px",
        probe=probe,
        probe_calibrated=calibrated,
        mask=mask,
        mask_polarity=one_in(how),
        background=background,
        object_guess=object_guess,
        geometry=geometry,
        propagation=propagation,
        source=Source(
            path=name,
            dialect="hdf5",
            measurement=resolved,
            assumptions=tuple(dict.fromkeys([*provenance.get("assumptions", ()), *notes])),
            warnings=(*provenance.get("warnings", ()), *doubt(resolved, sample)),
            details=provenance.get("details", {}),
        ),
    )
