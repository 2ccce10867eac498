"""Writing scans: one module a format; the suffix of the file chooses, or the name of a format.

A writer is ``write(path, raw, *, compress)`` and returns one sentence for each thing that its format cannot hold, and
for each that it worked out; none says that the file reads back as the scan was.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data.frames import FrameSource
from ..data.raw import RawData
from ..errors import ConfigError, OutputError, suggest
from ..protocol import Progress, ProgressEvent, no_progress
from .atomic import atomic_path
from .regular import is_same_file
from .writers.common import provenance_json

__all__ = ["WRITERS", "ScanWriter", "choose_writer", "provenance_json", "write_scan"]


@dataclass(frozen=True, kw_only=True)
class ScanWriter:
    """A format that scans are written in.

    Attributes:
        name: the word for ``--format``.
        title: for people.
        suffixes: that its files may have; those that `by_suffix` says choose it.
        by_suffix: suffixes that mean this format where no name is given.
        module: of the writer, imported when it is chosen.
        function: in the module.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    by_suffix: tuple[str, ...]
    module: str
    function: str = "write"


_HDF5 = (".h5", ".hdf5")

WRITERS = (
    ScanWriter(name="npz", title="NPZ of this project", suffixes=(".npz",), by_suffix=(".npz",), module="npz"),
    ScanWriter(name="hdf5", title="HDF5 of this project", suffixes=_HDF5, by_suffix=_HDF5, module="hdf5"),
    ScanWriter(name="cxi", title="CXI 1.6", suffixes=(".cxi", *_HDF5), by_suffix=(".cxi",), module="cxi"),
    ScanWriter(
        name="nxcxi_ptycho",
        title="NeXus, NXcxi_ptycho",
        suffixes=(".nxs", ".cxi", *_HDF5),
        by_suffix=(".nxs",),
        module="nxcxi",
    ),
    ScanWriter(
        name="ptychodus_training",
        title="NPZ that ptychodus trains from",
        suffixes=(".npz",),
        by_suffix=(),
        module="ptychodus",
        function="write_training",
    ),
    ScanWriter(
        name="ptychodus_product",
        title="product of ptychodus: positions, probe and object, no frames",
        suffixes=_HDF5,
        by_suffix=(),
        module="ptychodus",
        function="write_product",
    ),
)
"""Every format that scans are written in."""


def choose_writer(path: Path | str, format: str | None = None) -> ScanWriter:
    """The writer of a file, by the name of a format or by the suffix.

    Raises:
        ConfigError: no such format, or one whose files have another suffix.
        OutputError: no format goes by the suffix.
    """
    suffix = Path(path).suffix
    if format is None:
        found = next((writer for writer in WRITERS if suffix in writer.by_suffix), None)
        if found is None:
            known = [word for writer in WRITERS for word in writer.by_suffix]
            raise OutputError(
                f"{path}: a scan is written to {', '.join(known[:-1])} or {known[-1]}, or in a named format "
                f"(--format: {', '.join(writer.name for writer in WRITERS)}); found suffix {suffix!r}."
            )
        return found
    by_name = {writer.name: writer for writer in WRITERS}
    if format not in by_name:
        raise ConfigError(f"format = {format!r}; allowed: {', '.join(by_name)}.{suggest(format, by_name)}")
    if suffix not in by_name[format].suffixes:
        raise ConfigError(
            f"{path}: a file of format {format} ends in {' or '.join(by_name[format].suffixes)}, not in {suffix!r}."
        )
    return by_name[format]


@dataclass(frozen=True)
class _ToldFrames:
    """Frames of another source that tell how far they have been read."""

    base: FrameSource
    progress: Progress

    @property
    def shape(self) -> tuple[int, int, int]:
        """(M, N, N)."""
        return self.base.shape

    def read(self, frame_numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Counts (n, N, N) float32 of the numbered frames."""
        counts = self.base.read(frame_numbers)
        done = int(np.max(frame_numbers, initial=-1)) + 1
        self.progress(ProgressEvent(stage="write", done=done, total=self.shape[0]))
        return counts


def write_scan(
    path: Path | str,
    raw: RawData,
    *,
    format: str | None = None,
    compress: bool = False,
    progress: Progress = no_progress,
) -> tuple[str, ...]:
    """Write a scan as photon counts, atomically, in memory that does not grow with the number of frames.

    Values of bad pixels are written as 0.

    Args:
        path: the file.
        raw: the scan.
        format: a name of `WRITERS`; None goes by the suffix: ``.npz``, ``.h5``, ``.hdf5``, ``.cxi`` or ``.nxs``.
        compress: smaller, but NPZ frames are then read into memory as a whole instead of mapped from disk.
        progress: called with the number of frames that are read; it may raise ``Cancelled``, which leaves no file.

    Returns:
        one sentence for each thing that the format cannot hold and for each that was worked out; empty where the file
        reads back as the scan was, as NPZ and HDF5 of this project do.

    Raises:
        OutputError: it cannot be written, or it is the very file that the frames are still read from.
        ConfigError: no such format.
        DataError: the format needs what the scan does not say, or provenance is no JSON.
    """
    target = Path(path)
    writer = choose_writer(target, format)
    if any(is_same_file(origin, target) for origin in _files_behind(raw.frames)):
        raise OutputError(f"{target}: the frames of this scan are still read from this file; choose another name.")
    write: Callable[..., list[str]] = getattr(
        importlib.import_module(f".writers.{writer.module}", __package__), writer.function
    )
    with atomic_path(target) as temporary:
        told = replace(raw, frames=_ToldFrames(raw.frames, progress))
        return tuple(write(temporary, told, compress=compress))


def _files_behind(source: object) -> list[Path]:
    """The files that a source of frames reads, through whatever views there are on them."""
    if isinstance(source, Path):
        return [source]
    if isinstance(source, tuple):
        return [path for part in source for path in _files_behind(part)]
    if not is_dataclass(source):
        return []
    return [path for field in fields(source) for path in _files_behind(getattr(source, field.name))]
