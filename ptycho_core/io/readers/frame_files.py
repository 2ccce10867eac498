"""One file a frame: how a single frame is read, by the first bytes of its file (TIFF, NPY, HDF5, CBF, EDF)."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.frames import ArrayFrames
from ...errors import DataError, MissingPackageError
from ...limits import DEFAULT_LIMITS, Limits, limits_at_work, within
from ...text import listed
from ..h5_names import check_surroundings
from ..h5_values import dataset_at, open_h5, whole
from ..regular import check_regular

__all__ = ["FileFrames", "check_companions", "format_of", "frame_dataset", "read_frame"]

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_FABIO = {b"###CBF": "cbf", b"{": "edf"}
FORMATS = {"tiff": "TIFF", "npy": "NPY", "hdf5": "HDF5", "cbf": "CBF", "edf": "EDF"}
"""Format → its name for people."""


def check_companions(path: Path, tiff: Any) -> None:
    """Refuse a TIFF that names other files which lie outside of its folder, before they are opened.

    Raises:
        DataError: it does, or names what is no regular file.
    """
    home = os.path.dirname(os.path.realpath(path))  # where tifffile looks for them, also through a link
    for named in _companions(home, tiff):
        place = os.path.join(home, named)
        real = os.path.realpath(place)
        if not os.path.lexists(place):
            continue
        if not limits_at_work().external and not Path(real).is_relative_to(home):
            raise DataError(
                f"{path}: has images in {named!r}, which is {real}, outside of the scan's folder {home}. Copy it into "
                "that folder, or allow it with --allow_external (allow_external=True), if you trust the file."
            )
        check_regular(place, what="what a TIFF names")


def _companions(home: str, tiff: Any) -> list[str]:
    """Names of other files in an OME-TIFF or an NDTiff, by the parsers that tifffile asks: entities are resolved."""
    from xml.etree import ElementTree

    import tifffile

    named: list[str] = []
    if tiff.is_ome:
        with suppress(ElementTree.ParseError):  # tifffile follows none of it then
            named += [element.get("FileName", "") for element in ElementTree.fromstring(tiff.ome_metadata).iter()]
    if tiff.is_ndtiff:
        index = os.path.join(home, "NDTiff.index")
        check_regular(index, what="the index of an NDTiff")
        named += [entry[1] for entry in tifffile.read_ndtiff_index(index)]
    return [name for name in dict.fromkeys(named) if name]


def format_of(path: Path) -> str:
    """Format of an image file by its first bytes, a key of ``FORMATS``, or an empty text.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            magic = stream.read(512)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its rights.") from error
    if magic[:4] in _TIFF:
        return "tiff"
    if magic[:6] == b"\x93NUMPY":
        return "npy"
    if magic[:8] == b"\x89HDF\r\n\x1a\n":
        return "hdf5"
    if magic[:1] == b"{" and b"EDF_" not in magic and b"HeaderID" not in magic and b"Dim_1" not in magic:
        return ""  # JSON begins like EDF
    return next((name for start, name in _FABIO.items() if magic.startswith(start)), "")


def frame_dataset(path: Path) -> str:
    """Name of the one dataset of an HDF5 file that is one frame, (H, W) or (1, H, W).

    Raises:
        DataError: none, or several.
    """
    from .arrays import Hdf5Arrays

    headers = Hdf5Arrays(path).headers()
    found = [name for name, header in headers.items() if _is_frame(header.shape, header.dtype)]
    if len(found) != 1:
        held = listed(f"{name} {header.shape}" for name, header in headers.items()) or "nothing"
        raise DataError(
            f"{path}: holds {len(found)} datasets of one frame (H, W); a file that is one frame holds one. It holds: "
            f"{held}."
        )
    return found[0]


def _is_frame(shape: tuple[int, ...], dtype: Any) -> bool:
    if len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    return len(shape) == 2 and min(shape) >= 8 and dtype.kind in "biuf"


def read_frame(path: Path, kind: str, dataset: str = "", limits: Limits | None = None) -> NDArray[Any]:
    """One frame (H, W) as stored.

    Args:
        path: its file.
        kind: a key of ``FORMATS``.
        dataset: of an HDF5 file.
        limits: of reading it; None takes those of the block.

    Raises:
        DataError: the file is gone, damaged, or no single frame of real numbers.
        MissingPackageError: the package that reads it is not installed.
    """
    try:
        values = _values(path, kind, dataset, limits_at_work() if limits is None else limits)
    except (DataError, MissingPackageError, MemoryError):
        raise
    except Exception as error:  # the packages have no common class of errors
        raise DataError(
            f"{path}: is no {FORMATS[kind]} that can be read ({error}); the file is damaged or of another kind. "
            "Copy it again, or take it out."
        ) from error
    if values.ndim == 3 and len(values) == 1:
        values = values[0]
    if values.ndim != 2 or values.dtype.kind not in "biuf":
        raise DataError(f"{path}: is {values.shape} {values.dtype}; a file that is one frame is (H, W) real numbers.")
    return values


def _values(path: Path, kind: str, dataset: str, limits: Limits) -> NDArray[Any]:
    if kind == "npy":
        return np.asarray(np.load(path, allow_pickle=False))
    if kind == "hdf5":
        with open_h5(path) as h5, within(limits):
            check_surroundings(h5)
            found = dataset_at(h5, dataset)
            if found is None:
                raise DataError(
                    f"{path}: holds no dataset {dataset!r}, where the first file of the series has its frame."
                )
            return whole(found, dataset)
    package = "tifffile" if kind == "tiff" else "fabio"
    try:
        if kind == "tiff":
            import tifffile

            with tifffile.TiffFile(path) as tiff, within(limits):
                check_companions(path, tiff)
                return np.asarray(tiff.asarray())
        import fabio

        with fabio.open(str(path)) as image:
            return np.asarray(image.data)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise MissingPackageError(
            f"{path}: {FORMATS[kind]} needs the package {package}, which is not installed. Install it with: "
            "pip install 'ptycho-core[readers]'"
        ) from error


@dataclass(frozen=True)
class FileFrames:
    """Frames that are a file each, in the order of `paths`.

    Attributes:
        paths: one for each frame.
        kind: a key of ``FORMATS``.
        size: (H, W) of every frame.
        dataset: of the frame in an HDF5 file.
        measurement: ``counts`` or ``amplitude``.
        limits: of reading one of them.
    """

    paths: tuple[Path, ...]
    kind: str
    size: tuple[int, int]
    dataset: str = ""
    measurement: str = "counts"
    limits: Limits = DEFAULT_LIMITS

    @property
    def shape(self) -> tuple[int, int, int]:
        """(M, H, W)."""
        return len(self.paths), *self.size

    def read(self, frame_numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Counts (n, H, W) float32 of the numbered frames.

        Raises:
            DataError: a file is gone, damaged, or of another shape than the first; it is named.
        """
        out = np.empty((len(frame_numbers), *self.size), np.float32)
        for row, number in enumerate(frame_numbers):
            stored = self.stored(int(number))
            out[row] = ArrayFrames(stored[None], self.measurement).read(np.arange(1))[0]
        return out

    def stored(self, number: int) -> NDArray[Any]:
        """One frame as stored, (H, W)."""
        values = read_frame(self.paths[number], self.kind, self.dataset, self.limits)
        if values.shape != self.size:
            raise DataError(
                f"{self.paths[number]}: is {values.shape[0]}×{values.shape[1]}, but {self.paths[0].name} is "
                f"{self.size[0]}×{self.size[1]}; the frames of a scan have one shape. Take it out, or name the others "
                "by a pattern with '*'."
            )
        return values
