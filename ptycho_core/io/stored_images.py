"""An image from whatever file holds one: a result, an NPZ, a product of ptychodus, a scan that carries its object."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..data.compared import ComparedImage
from ..data.raw import ObjectGuess
from ..errors import Cancelled, DataError, PtychoError
from .candidate import examine
from .guarded import in_child
from .readers.array_header import read_whole
from .readers.arrays import ArrayFile, arrays_of
from .readers.product import number_in, product_in
from .reconstruction_file import read_reconstruction
from .result_names import IMAGE_NAME
from .result_switch import where_it_lies
from .stored_reconstruction import StoredReconstruction

__all__ = ["image_of_stored", "read_image"]


def read_image(given: Path | str, *, measurement: str | None = None) -> ComparedImage:
    """Read an object, and what its file tells of it.

    Args:
        given: a result folder, its ``reconstruction.h5``, an ``.npz`` with a complex ``object`` (H, W) and, if known,
            its ``origin_px``, a product of ptychodus, or a scan that carries an object.
        measurement: what the frames of a scan file are, where it does not say.

    Raises:
        DataError: no such file, or no object in it.
    """
    path, name = Path(given), str(given)
    if path.is_dir() and (path / IMAGE_NAME).name in {child.name for child in path.iterdir()}:
        path = path / IMAGE_NAME
    path = where_it_lies(path / IMAGE_NAME if path.is_dir() and _is_cut_off(path) else path)
    if path.is_dir():
        raise DataError(f"{path}: a folder without {IMAGE_NAME}; give the folder of a result, or a file with an image.")
    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    found: ComparedImage | None = in_child(_plain, path, name, about=path)
    if found is not None:
        return found
    try:
        return image_of_stored(read_reconstruction(path), name)
    except DataError as first:
        guess = _of_scan(path, first, measurement)
    return ComparedImage(name=name, object=guess.object, origin_px=np.asarray(guess.origin_px, np.float64))


def _is_cut_off(folder: Path) -> bool:
    """Whether a switch of a result was cut off in a folder, so that its image lies in a side folder."""
    return any(folder.glob(".commit-*"))


def _of_scan(path: Path, first: DataError, measurement: str | None) -> ObjectGuess:
    from .registry import read_scan

    try:
        guess = read_scan(path, measurement=measurement).object_guess
    except Cancelled:
        raise
    except PtychoError as second:
        raise DataError(f"{path}: neither a reconstruction ({first}) nor a scan ({second})") from second
    if guess is None:
        raise DataError(f"{path}: a scan without an object; give a reconstruction.h5, or a scan that carries one.")
    return guess


def image_of_stored(stored: StoredReconstruction, name: str) -> ComparedImage:
    """The image of a ``reconstruction.h5`` with the figures that stand in it."""
    engine: Any = stored.provenance.get("engine")
    sentence = stored.verdict.get("sentence")
    halves = stored.frc.get("half_data")
    return ComparedImage(
        name=name,
        object=stored.object,
        origin_px=stored.origin_px,
        coverage=stored.coverage,
        positions_px=stored.positions_px if stored.role is None else stored.positions_px[stored.role < 2],
        pixel_size_m=stored.pixel_size_m,
        figures=stored.figures,
        engine=str(engine.get("name", "")) if isinstance(engine, dict) else str(stored.config.get("backend", "")),
        seconds=_seconds(stored.start_time, stored.end_time),
        half_period_px=None if halves is None else halves.half_period_px(halves.cutoff_half_bit),
        verdict=sentence if isinstance(sentence, str) else "",
    )


def _seconds(start: str, end: str) -> float | None:
    try:
        took = (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    except (ValueError, TypeError):
        return None
    return took if took >= 0 else None


def _plain(path: Path, name: str) -> ComparedImage | None:
    """The object of a product or of an NPZ without frames; None of any other file."""
    file = examine(path)
    arrays = None if file is None or file.kind not in ("npz", "hdf5") else arrays_of(file)
    if arrays is None or "object" not in arrays.headers():
        return None
    found = _product(arrays, name)
    if found is not None or file is None or file.kind != "npz":
        return found
    obj = _array(arrays, "object")
    origin = _array(arrays, "origin_px") if "origin_px" in arrays.headers() else np.zeros(2)
    if obj.ndim != 2 or not np.iscomplexobj(obj) or origin.shape != (2,) or origin.dtype.kind not in "biuf":
        raise DataError(
            f"{path}: 'object' is {obj.dtype} of shape {obj.shape} and 'origin_px' has shape {origin.shape}; "
            "they must be complex (H, W) and (2,)."
        )
    return ComparedImage(name=name, object=obj.astype(np.complex64), origin_px=origin.astype(np.float64))


def _array(arrays: ArrayFile, name: str) -> Any:
    with arrays.opened(name) as array:
        return read_whole(array, arrays.path, name)


def _product(arrays: ArrayFile, name: str) -> ComparedImage | None:
    """A product of ptychodus: the product of its layers, placed by the metres of its middle and of its positions."""
    product, headers = product_in(arrays), arrays.headers()
    if product is None:
        return None
    layers, pixel = _array(arrays, "object"), product.geometry.pixel_size_m
    if layers.ndim not in (2, 3) or not np.iscomplexobj(layers) or 0 in layers.shape:
        raise DataError(
            f"{arrays.path}: its 'object' is {layers.dtype} of shape {layers.shape}; that of a product is complex "
            "(layers, H, W)."
        )
    obj = layers if layers.ndim == 2 else np.prod(layers, axis=0)
    if pixel is None:
        raise DataError(f"{arrays.path}: a product whose object pixel is not stated; its place is not known.")
    middle = [
        number_in(arrays, headers, f"center_{axis}_m", "object")
        if number_in(arrays, headers, f"center_{axis}_m", "object") is not None
        else number_in(arrays, headers, f"object_center_{axis}_m")
        for axis in "yx"
    ]
    # where the middle is not stated, ptychodus takes that of the positions
    positions = product.positions_m / pixel
    stated = [None if at is None else at / pixel for at in middle]
    between = (positions.min(axis=0) + positions.max(axis=0)) / 2 if len(positions) else np.zeros(2)
    at = np.array([between[i] if value is None else value for i, value in enumerate(stated)], np.float64)
    return ComparedImage(
        name=name,
        object=obj.astype(np.complex64),
        origin_px=at - (np.array(obj.shape) - 1) / 2,
        positions_px=positions if len(positions) else None,
        pixel_size_m=pixel,
    )
