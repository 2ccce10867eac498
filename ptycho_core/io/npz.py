"""The NPZ dialect: one array a key, frames mapped from disk when they lie there uncompressed (specs/10-data).

=====================  ==============================================================================================
key                    content
=====================  ==============================================================================================
diff3d | diffraction   (M, N, N) frames, far field: zero frequency at (N/2, N/2); (N, N, M) in old files
measurement            0-d text: ``amplitude`` (square roots of counts) or ``counts`` (``intensity`` means the same)
xcoords, ycoords       (M,) frame centres, object pixels; ``*_start`` are nominal ones, used when these are missing
pixel_centre           0-d text: ``(N-1)/2`` or ``N/2``, the pixel of a frame that its coordinates name. Absent: N/2,
                       so half a pixel is taken off; in files with ``bad_pixels``, (N-1)/2
probeGuess             (N, N), (P, N, N) or (N, N, 1) complex
probe_calibrated       0-d bool: |F(probe · object)|² is in photons
scan_index             (M,) number of the scan of each frame, where a file holds several: one is chosen, never merged
objectGuess            (H, W) complex; the centre of its pixel (0, 0) is at ``object_origin_px`` (2,) (y, x), default 0
mask | bad_pixels      (N, N) bool: True is good in ``mask``, and bad in ``bad_pixels``
background             (N, N) expected counts
propagation            0-d text: ``far_field``, taken when absent, or ``near_field``, taken with a fresnel_number
fresnel_number         0-d: (object pixel)² / (wavelength × effective distance), near field; positions are in that pixel
wavelength_px          0-d: wavelength / object pixel, near field of a parallel beam: exact instead of paraxial
energy_eV, distance_m, detector_pixel_size_m, pixel_size_m   0-d numbers
radiation              0-d text: ``photon``, taken when absent, or ``electron``
provenance             0-d text, JSON
=====================  ==============================================================================================

Other keys are ignored, and named among the assumptions.
"""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.frames import ArrayFrames, NpzFrames, SubsetFrames
from ..data.propagation import Propagation
from ..data.raw import Geometry, ObjectGuess, Source
from ..data.recording import Recording
from ..errors import DataError
from ..plugins.hookspecs import hookimpl
from ..reader_protocol import ReaderSpec, ReadOptions
from ..text import counted
from .candidate import Candidate, missing_key
from .measurement import doubt, resolve_measurement, unstated_note
from .planes import good_pixels, one_in
from .probes import NO_PROBE, normalise_probe
from .readers.scan_index import frames_of_one_scan
from .stated import PROPAGATION_KEYS, resolve_propagation

__all__ = ["GEOMETRY_KEYS", "KEYS", "ptycho_reader", "read", "recognises"]

GEOMETRY_KEYS = tuple(f.name for f in fields(Geometry) if f.name != "radiation")
_FRAMES = ("diff3d", "diffraction")
KEYS = frozenset(
    ("measurement", "xcoords", "ycoords", "xcoords_start", "ycoords_start", "scan_index", "pixel_centre", "probeGuess")
).union(
    (
        "probe_calibrated",
        "objectGuess",
        "object_origin_px",
        "mask",
        "bad_pixels",
        "background",
        "provenance",
        "radiation",
    ),
    _FRAMES,
    GEOMETRY_KEYS,
    PROPAGATION_KEYS,
)
_SAMPLE_FRAMES = 4


@hookimpl
def ptycho_reader() -> ReaderSpec:
    """Describe the dialect."""
    return ReaderSpec(
        name="npz",
        title="NPZ with diff3d or diffraction, xcoords, ycoords, probeGuess",
        kind="npz",
        module=__name__,
        protocol_version=2,
        priority=10,
    )


def recognises(file: Candidate) -> bool:
    """Whether a file is an NPZ that uses any of the dialect's telling keys."""
    telling = {*_FRAMES, "xcoords", "ycoords", "xcoords_start", "ycoords_start", "probeGuess", "objectGuess"}
    return file.kind == "npz" and not telling.isdisjoint(file.names)


def read(file: Candidate, options: ReadOptions) -> Recording:
    """Read a scan; see the module for the keys.

    Args:
        file: an examined NPZ.
        options: `measurement` is what the frames are, when the file does not say; `entry` chooses one of several scans.

    Raises:
        DataError: a key is missing or holds what it must not.
    """
    name = str(file.path)
    notes: list[str] = []
    warnings: list[str] = []
    positions = _positions(file, options, notes)
    frames = _frames(file, None if positions is None else len(positions), notes, warnings)
    sample = _sample(frames)
    stated = _text(file, "measurement")
    resolved = resolve_measurement(name, stated, options.measurement, sample)
    warnings += doubt(resolved, sample)
    if stated is None:
        notes.append(unstated_note(resolved))
    positions = None if positions is None else positions - _half_pixel(file, notes)
    index = file.load("scan_index") if "scan_index" in file.names else None
    chosen = frames_of_one_scan(index, frames.shape[0], options.entry, name, notes)
    mask, one_means = _mask(file, notes)
    provenance = _provenance(file)
    ignored = sorted(set(file.names) - KEYS)
    if ignored:
        notes.append(f"Ignored keys: {', '.join(ignored)}.")
    geometry = {key: _number(file, key) for key in GEOMETRY_KEYS if key in file.names}
    whole = replace(frames, measurement=resolved)
    return Recording(
        frames=whole if chosen is None else SubsetFrames(whole, chosen),
        frame_indexes=chosen,
        positions=positions if positions is None or chosen is None else positions[chosen],
        position_unit="" if positions is None else "px",
        probe=_probe(file, frames.shape[1], notes),
        probe_calibrated=_flag(file, "probe_calibrated"),
        mask=mask,
        mask_polarity=one_means,
        background=_real(file, "background") if "background" in file.names else None,
        object_guess=_object_guess(file, notes),
        geometry=Geometry(**geometry, radiation=_text(file, "radiation") or "photon"),
        propagation=_propagation(file, options.propagation),
        source=Source(
            path=name,
            dialect="npz",
            measurement=resolved,
            assumptions=tuple(dict.fromkeys([*provenance.get("assumptions", ()), *notes])),
            warnings=(*provenance.get("warnings", ()), *warnings),
            details=provenance.get("details", {}),
        ),
    )


def _real(file: Candidate, key: str) -> NDArray[Any]:
    values = file.load(key)
    if values.dtype.kind not in "biuf":
        raise DataError(f"{file.path}: {key!r} holds {values.dtype} values; it must hold real numbers.")
    return values


def _number(file: Candidate, key: str) -> float:
    values = _real(file, key)
    if values.size != 1 or not np.isfinite(values).all() or float(values.ravel()[0]) <= 0:
        raise DataError(f"{file.path}: {key!r} must be one positive number; found {values.shape} {values.dtype}.")
    return float(values.ravel()[0])


def _propagation(file: Candidate, given: Propagation | None) -> Propagation:
    numbers = (_number(file, key) if key in file.names else None for key in PROPAGATION_KEYS[1:])
    return resolve_propagation(str(file.path), given, _text(file, PROPAGATION_KEYS[0]), *numbers)


def _flag(file: Candidate, key: str) -> bool:
    if key not in file.names:
        return False
    values = file.load(key)
    if values.size != 1 or values.dtype != bool:
        raise DataError(f"{file.path}: {key!r} must be one bool; found {values.shape} {values.dtype}.")
    return bool(values.ravel()[0])


def _text(file: Candidate, key: str) -> str | None:
    if key not in file.names:
        return None
    value = file.load(key)
    if value.size != 1 or value.dtype.kind not in "US":
        raise DataError(
            f"{file.path}: {key!r} must be one text, as np.array('…') makes it; found {value.shape} {value.dtype}."
        )
    only = value.ravel()[0]
    return only.decode("utf-8", "replace") if isinstance(only, bytes) else str(only)


def _coordinate(file: Candidate, key: str) -> NDArray[np.float64]:
    values = _real(file, key)
    if values.ndim > 2 or values.size != max(values.shape, default=0):
        raise DataError(f"{file.path}: {key!r} has shape {values.shape}; it must be (M,), one number a frame.")
    return values.astype(np.float64).ravel()


def _positions(file: Candidate, options: ReadOptions, notes: list[str]) -> NDArray[np.float64] | None:
    """Coordinates as stored, (M, 2) (y, x); None where there are none, and the caller says where they are."""
    elsewhere = options.positions is not None or options.scan_step_m is not None
    if elsewhere and {"xcoords", "ycoords", "xcoords_start", "ycoords_start"}.isdisjoint(file.names):
        return None
    suffix = "" if "xcoords" in file.names else "_start" if "xcoords_start" in file.names else ""
    found = {}
    for axis in "yx":
        key = f"{axis}coords{suffix}"
        if key not in file.names:
            missing = missing_key(file, key, f"(M,) the {axis} coordinate of every frame, object pixels")
            raise DataError(f"{missing} Or give a file with the positions (--positions FILE).")
        found[axis] = _coordinate(file, key)
    if len(found["x"]) != len(found["y"]):
        raise DataError(
            f"{file.path}: {len(found['x'])} x coordinates but {len(found['y'])} y; a frame has one of each."
        )
    if suffix:
        notes.append("No xcoords and ycoords; the nominal xcoords_start and ycoords_start are used.")
    elif {"xcoords_start", "ycoords_start"} <= set(file.names):
        moved = max(_largest_difference(found[axis], _coordinate(file, f"{axis}coords_start")) for axis in "yx")
        if moved > 0:
            notes.append(f"xcoords and ycoords are used; the nominal *_start ones differ by up to {moved:.3g} px.")
    return np.stack([found["y"], found["x"]], axis=-1)


def _largest_difference(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float("inf") if len(a) != len(b) else float(np.max(np.abs(a - b), initial=0.0))


def _half_pixel(file: Candidate, notes: list[str]) -> float:
    """What to take off the coordinates so that they name the frame's pixel (N−1)/2."""
    stated = _text(file, "pixel_centre")
    if stated is None and "bad_pixels" in file.names:
        notes.append("Coordinates name pixel (N-1)/2 of a frame, as ptychodus writes them; nothing is taken off.")
        return 0.0
    if stated is None:
        notes.append("Coordinates name pixel N/2 of a frame, as is usual in this dialect; half a pixel was taken off.")
        return 0.5
    if stated.replace(" ", "") not in ("(N-1)/2", "N/2"):
        raise DataError(f"{file.path}: 'pixel_centre' is {stated!r}; allowed: '(N-1)/2' or 'N/2'.")
    return 0.0 if stated.replace(" ", "") == "(N-1)/2" else 0.5


def _frame_axes(
    file: Candidate, key: str, M: int | None, notes: list[str], warnings: list[str]
) -> tuple[int, int, int]:
    """Permutation that brings the stored frames to (M, N, N); an order that does not fit is left for the checks."""
    shape = file.members[key].shape
    if len(shape) != 3:
        raise DataError(f"{file.path}: {key!r} has shape {shape}; frames must be (M, N, N).")
    if M is None:
        return 0, 1, 2
    if shape[0] == shape[1] == shape[2] == M:
        warnings.append(f"{key!r} is {shape} with {M} coordinates: axis order cannot be told, (M, N, N) was taken.")
        return 0, 1, 2
    if shape[2] == M and shape[0] == shape[1] and shape[0] != M:
        notes.append(f"{key!r} is {shape} in the old axis order (N, N, M); it was transposed to (M, N, N).")
        return 2, 0, 1
    if shape[1] != shape[2] and shape[0] != M:
        raise DataError(
            f"{file.path}: {key!r} has shape {shape} and there are {M} coordinates; "
            f"frames must be (M, N, N), or (N, N, M), with M = {M}."
        )
    return 0, 1, 2


def _frames(file: Candidate, M: int | None, notes: list[str], warnings: list[str]) -> ArrayFrames | NpzFrames:
    """Frames as stored, not squared: mapped from disk when uncompressed, else in memory."""
    key = next((k for k in _FRAMES if k in file.names), None)
    if key is None:
        raise missing_key(file, _FRAMES[0], "(M, N, N) the frames; 'diffraction' is accepted too")
    member = file.members[key]
    if member.dtype.kind not in "biufc":
        raise DataError(f"{file.path}: {key!r} holds {member.dtype} values; frames must be real numbers.")
    if member.dtype.kind == "c":
        raise DataError(
            f"{file.path}: {key!r} holds complex values ({member.dtype}); a detector records counts. "
            "Save |wave|² in photons."
        )
    axes = _frame_axes(file, key, M, notes, warnings)
    if member.offset is None or 0 in member.shape:
        return ArrayFrames(file.load(key).transpose(axes))
    a, b, c = member.shape
    return NpzFrames(file.path, member.offset, member.dtype.str, (a, b, c), member.fortran_order, axes)


def _sample(frames: ArrayFrames | NpzFrames) -> NDArray[Any] | None:
    """A few frames as stored, to tell their measurement by."""
    M = frames.shape[0]
    return frames.stored(np.linspace(0, M - 1, min(M, _SAMPLE_FRAMES)).astype(np.int64)) if M else None


def _probe(file: Candidate, N: int, notes: list[str]) -> NDArray[np.complex64] | None:
    if "probeGuess" not in file.names:
        notes.append(NO_PROBE)
        return None
    stored = file.load("probeGuess")
    probe = normalise_probe(stored, str(file.path), notes)
    if stored.shape not in ((N, N), probe.shape):
        notes.append(f"probeGuess of shape {stored.shape} was read as {probe.shape}.")
    return probe


def _object_guess(file: Candidate, notes: list[str]) -> ObjectGuess | None:
    if "objectGuess" not in file.names:
        return None
    values = file.load("objectGuess")
    if values.dtype.kind not in "biufc":
        raise DataError(f"{file.path}: 'objectGuess' holds {values.dtype} values; it must hold complex numbers.")
    if values.ndim == 3 and len(values):
        if len(values) > 1:
            notes.append(f"objectGuess has {len(values)} layers; their product was taken, as of a thin stack.")
        values = np.prod(values, axis=0)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise DataError(f"{file.path}: 'objectGuess' has shape {values.shape}; it must be a finite (H, W) image.")
    origin = np.zeros(2)
    if "object_origin_px" in file.names:
        origin = _real(file, "object_origin_px").astype(np.float64)
        if origin.shape != (2,) or not np.isfinite(origin).all():
            raise DataError(f"{file.path}: 'object_origin_px' must be two finite numbers (y, x), object pixels.")
    else:
        notes.append("objectGuess: the centre of its pixel (0, 0) is taken to be at coordinates (0, 0).")
    return ObjectGuess(object=values.astype(np.complex64), origin_px=origin)


def _mask(file: Candidate, notes: list[str]) -> tuple[NDArray[np.bool_] | None, str]:
    """Good pixels (N, N), or None, and what 1 means in the file."""
    if "mask" in file.names and "bad_pixels" in file.names:
        raise DataError(f"{file.path}: holds both 'mask' (True = good) and 'bad_pixels' (True = bad); keep one.")
    if "mask" in file.names:
        good, how = good_pixels(_real(file, "mask"))
        if how != "True as good":
            notes.append(f"mask was read with {how}; it hides {counted(int((~good).sum()), 'pixel')}.")
        return good, one_in(how)
    if "bad_pixels" not in file.names:
        return None, "good"
    bad = _real(file, "bad_pixels").astype(bool)
    notes.append(f"bad_pixels (True = bad) was read as the mask; it hides {counted(int(bad.sum()), 'pixel')}.")
    return ~bad, "bad"


def _provenance(file: Candidate) -> dict[str, Any]:
    text = _text(file, "provenance")
    return {} if text is None else parse_provenance(text, f"{file.path}: 'provenance'")


def parse_provenance(text: str, what: str) -> dict[str, Any]:
    """Read provenance back from JSON.

    Args:
        text: as written by ``provenance_json``.
        what: the file and key, for messages.

    Raises:
        DataError: it is not that.
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        raise DataError(f"{what} is not JSON ({error}); remove it or write the file again.") from error
    sentences = [found.get(key, []) for key in ("assumptions", "warnings")] if isinstance(found, dict) else []
    if not isinstance(found, dict) or not isinstance(found.get("details", {}), dict):
        raise DataError(f"{what} must be a JSON object whose 'details' is an object.")
    if not all(isinstance(part, list) and all(isinstance(text, str) for text in part) for part in sentences):
        raise DataError(f"{what}: 'assumptions' and 'warnings' must be lists of texts.")
    return found
