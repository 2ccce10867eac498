"""What files of bare frames have in common: nothing in them says where frames were taken, or with what."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.raw import Geometry, Source
from ...data.recording import Recording
from ...errors import DataError
from ...reader_protocol import ReadOptions
from ..measurement import doubt, resolve_measurement
from ..probes import NO_PROBE
from .arrays import ArrayFile
from .stored_frames import Layout, stored_frames

__all__ = ["EMPAD_SHAPE", "bare_measurement", "bare_recording", "check_raster", "empad_rows"]

EMPAD_SHAPE = (130, 128)
"""Rows and columns of an EMPAD frame; the last two rows hold no pixels of the detector."""

_SAMPLE = 4


def bare_measurement(
    name: str, values: NDArray[Any], options: ReadOptions, notes: list[str], *, detector: bool = False
) -> str:
    """What frames are that nothing in the file says anything of.

    Args:
        name: the file, for messages.
        values: some of the frames, as stored.
        options: the caller's ``measurement``.
        notes: what was taken is added here.
        detector: whether the format is one that detectors write, which is intensities.

    Raises:
        DataError: nobody says it, and the type of the values does not tell it: roots of counts are no whole numbers.
    """
    if options.measurement is not None:
        return resolve_measurement(name, None, options.measurement)
    if values.dtype.kind in "iub":
        notes.append(f"Frames are whole numbers ({values.dtype}), so that they are counts.")
    elif detector:
        notes.append("Frames are what a detector wrote, so that they were taken as counts.")
    else:
        return resolve_measurement(name, None, None, values)
    return "counts"


def empad_rows(shape: tuple[int, int], notes: list[str]) -> tuple[NDArray[np.bool_] | None, tuple[float, float] | None]:
    """Good pixels and zero frequency of frames that have the two extra rows of an EMPAD, else (None, None)."""
    if shape != EMPAD_SHAPE:
        return None, None
    mask = np.ones(shape, bool)
    mask[128:] = False
    notes.append("Frames of 130×128 are those of an EMPAD: their last two rows hold no pixels of the detector.")
    return mask, (64.0, 64.0)


def check_raster(name: str, raster: tuple[int, int], geometry: Geometry, options: ReadOptions, in_metres: bool) -> None:
    """Refuse a raster that cannot be placed, and name every option that is missing at once.

    Args:
        name: the file, for messages.
        raster: (Ny, Nx).
        geometry: what the file says of the instrument.
        options: what the caller says.
        in_metres: whether the file gives the steps.

    Raises:
        DataError: there is no step, or no size of an object pixel to measure it in.
    """
    placed = options.positions is not None or options.scan_step_m is not None or in_metres
    metres = options.scan_step_m is not None or (in_metres and options.positions is None)

    def known(key: str) -> bool:
        return getattr(options, key) is not None or getattr(geometry, key) is not None

    pixel = known("pixel_size_m") or all(map(known, ("energy_eV", "distance_m", "detector_pixel_size_m")))
    if placed and (pixel or not metres):
        return
    missing = [] if placed else ["--scan_step LENGTH (the step of the raster)"]
    if not options.rotate_deg and not placed:
        missing.append("--rotate DEGREES (of the scan against the detector)")
    if options.radiation is None and geometry.radiation != "electron":
        missing.append("--radiation electron (where they are)")
    if not known("energy_eV"):
        missing.append("--energy_eV ENERGY")
    if not pixel:
        missing.append(
            "--pixel_size_m LENGTH (of an object pixel: 1 / (frame side × detector pixel in reciprocal length))"
        )
    raise DataError(
        f"{name}: is a raster of {raster[0]} × {raster[1]} frames (4D-STEM), and does not say where they were taken. "
        f"Give {', '.join(missing)}."
    )


def bare_recording(
    arrays: ArrayFile,
    array: str,
    options: ReadOptions,
    dialect: str,
    notes: list[str],
    *,
    geometry: Geometry | None = None,
    step_m: tuple[float, float] | None = None,
    detector: bool = False,
    whole: int | None = None,
) -> Recording:
    """Recording of one array of frames: (M, H, W), or a raster (Ny, Nx, H, W).

    Args:
        arrays: the file.
        array: name of the frames in it.
        options: what the caller says.
        dialect: name of the reader.
        notes: assumptions; more are added.
        geometry: the instrument, where the file says anything of it.
        step_m: (y, x) steps of the raster, where the file says them.
        detector: whether the format is one that detectors write.
        whole: frames, or rows of a raster, that are there whole in a file that is still being written; None for all.

    Raises:
        DataError: no frames, or a raster that cannot be placed.
    """
    name = str(arrays.path)
    header = arrays.header(array)
    shape = header.shape
    layout = _layout(name, array, shape if whole is None else (whole, *shape[1:]), header.dtype)
    raster = (layout.counted[0], layout.counted[1]) if len(layout.counted) == 2 else None
    geometry = geometry or Geometry()
    frames = stored_frames(arrays, array, layout, "counts")
    M = frames.shape[0]
    sample = frames.stored(np.unique(np.linspace(0, M - 1, min(M, _SAMPLE)).astype(np.int64)))
    measurement = bare_measurement(name, sample, options, notes, detector=detector or raster is not None)
    if raster is not None:
        check_raster(name, raster, geometry, options, step_m is not None)
        notes.append(f"Frames lie on a raster of {raster[0]} × {raster[1]} (y, x), the x axis fastest.")
    mask, centre = empad_rows((layout.frames[1], layout.frames[2]), notes)
    positions = None if raster is None or step_m is None else _places_m(raster, step_m)
    return Recording(
        frames=stored_frames(arrays, array, layout, measurement),
        positions=positions,
        position_unit="" if positions is None else "m",
        raster=raster,
        mask=mask,
        centre_px=centre,
        geometry=geometry,
        source=Source(
            path=name,
            dialect=dialect,
            measurement=measurement,
            assumptions=(*notes, NO_PROBE),
            warnings=tuple(doubt(measurement, sample)),
        ),
    )


def _places_m(raster: tuple[int, int], step_m: tuple[float, float]) -> NDArray[np.float64]:
    """(Ny Nx, 2) (y, x) of a raster with x fastest, metres."""
    y, x = np.mgrid[: raster[0], : raster[1]].reshape(2, -1)
    return np.stack([y * step_m[0], x * step_m[1]], axis=-1)


def _layout(name: str, array: str, shape: tuple[int, ...], dtype: Any) -> Layout:
    axes = range(len(shape))
    if len(axes) not in (3, 4) or 0 in shape or dtype.kind not in "biuf":
        raise DataError(
            f"{name}: {array!r} is {shape} {dtype}; frames must be (M, H, W), or a raster (Ny, Nx, H, W), real numbers."
        )
    if math.prod(shape[axis] for axis in axes[:-2]) < 2:
        raise DataError(f"{name}: {array!r} is {shape}: one frame is no scan.")
    return Layout(shape, tuple(axes[:-2]), (axes[-2], axes[-1]))
