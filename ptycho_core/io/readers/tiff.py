"""TIFF stacks: a page a frame, or a series (M, H, W) or (Ny, Nx, H, W), as ImageJ, OME and detectors write them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.recording import Recording
from ...errors import DataError, MissingPackageError
from ...plugins.hookspecs import hookimpl
from ...reader_protocol import ReaderSpec, ReadOptions
from ..candidate import Candidate
from .arrays import ArrayHeader
from .bare import bare_recording
from .frame_files import check_companions, format_of

__all__ = ["TiffArrays", "ptycho_reader", "read", "recognises"]


@hookimpl
def ptycho_reader() -> ReaderSpec:
    """Describe the dialect."""
    return ReaderSpec(
        name="tiff",
        title="TIFF stack, a page a frame",
        kind="other",
        module=__name__,
        protocol_version=2,
        priority=20,  # a TIFF is known by its first bytes, so that only its reading asks for the package
        one_scan=True,
    )


def recognises(file: Candidate) -> bool:
    """Whether a file is a TIFF, by its first bytes."""
    return file.kind == "other" and file.path.is_file() and format_of(file.path) == "tiff"


def read(file: Candidate, options: ReadOptions) -> Recording:
    """Read the frames; they stay on disk.

    Args:
        file: a TIFF.
        options: measurement, and where the frames were taken.

    Raises:
        DataError: no stack of frames, pages of several shapes, or a damaged file.
    """
    return bare_recording(TiffArrays(file.path), "frames", options, "tiff", [], detector=True)


@dataclass(frozen=True)
class TiffArrays:
    """The one series of images of a TIFF, called ``frames``, whose pages are read as they are asked for."""

    path: Path

    def headers(self) -> dict[str, ArrayHeader]:
        """The series."""
        with self.opened("frames") as series:
            return {"frames": ArrayHeader(series.shape, series.dtype)}

    def header(self, name: str) -> ArrayHeader:
        """The series."""
        return self.headers()[name]

    @contextmanager
    def opened(self, name: str) -> Iterator[Any]:
        """The series, open.

        Raises:
            DataError: several series, pages with colours, or a damaged file.
            MissingPackageError: tifffile is not installed.
        """
        try:
            import tifffile
        except ModuleNotFoundError as error:
            if error.name != "tifffile":
                raise
            raise MissingPackageError(
                f"{self.path}: a TIFF needs the package tifffile, which is not installed. Install it with: "
                "pip install 'ptycho-core[readers]'"
            ) from error
        try:
            with tifffile.TiffFile(self.path) as tiff:
                check_companions(self.path, tiff)
                yield _Series(self.path, _all_series(self.path, tiff))
        except DataError:
            raise
        except (OSError, ValueError, tifffile.TiffFileError) as error:
            raise DataError(f"{self.path}: the TIFF cannot be read ({error}); copy or export it again.") from error

    def attribute(self, place: str, name: str) -> Any:
        """None: such a file has no attributes."""
        return None


def _all_series(path: Path, tiff: Any) -> list[Any]:
    """The one series of a TIFF, or as many of one image each, which is what pages written one by one are."""
    series = list(tiff.series)
    images = {(tuple(s.shape), str(s.dtype)) for s in series}
    if len(series) != 1 and (len(images) > 1 or len(series[0].shape) != 2):
        shapes = ", ".join(str(tuple(s.shape)) for s in series[:6]) + (" …" if len(series) > 6 else "")
        raise DataError(
            f"{path}: holds {len(series)} series of images ({shapes}); frames have one shape. "
            "Save them in a series of their own."
        )
    if "S" in series[0].axes:
        raise DataError(
            f"{path}: its pages have colours ({series[0].axes} {series[0].shape}); frames have one value a pixel. "
            "Save grey values."
        )
    return series


class _Series:
    """A series as an array of which single frames, and runs of them, are read."""

    def __init__(self, path: Path, series: list[Any]) -> None:
        self._path, self._all, self._series = path, series, series[0]
        one = tuple(int(n) for n in self._series.shape)
        self.shape: tuple[int, ...] = one if len(series) == 1 else (len(series), *one)
        self.dtype = np.dtype(self._series.dtype)

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        """Frames of an index whose last two entries take all, the one before a run, and those before that a place."""
        counted = self.shape[:-2]
        *outer, run = index[:-2]
        first = int(np.ravel_multi_index((*outer, run.start), counted)) if outer else run.start
        numbers = range(first, first + run.stop - run.start)
        return np.stack([self._page(number) for number in numbers])

    def _page(self, number: int) -> NDArray[Any]:
        height, width = self.shape[-2:]
        if len(self._all) > 1:
            return np.asarray(self._all[number].asarray())
        if self._series.dataoffset is not None:  # all in one piece: the pages after the first need not be listed
            handle = self._series.parent.filehandle
            handle.seek(self._series.dataoffset + number * height * width * self.dtype.itemsize)
            stored = handle.read_array(self.dtype.newbyteorder(self._series.parent.byteorder), height * width)
            return np.asarray(stored).reshape(height, width)
        pages = math.prod(self.shape[:-2])
        page = self._series.pages[number] if len(self._series.pages) == pages else None
        if page is None:
            raise DataError(
                f"{self._path}: page {number} of {pages} is not there; copy the file, and those that it names."
            )
        return np.asarray(page.asarray())
