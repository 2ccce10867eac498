"""Exporting images: one module a format; the suffix of the file chooses, or the name of a format.

An export is ``write(path, stored, *, target)`` and returns one sentence for each thing that its format cannot hold.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..data.raw import Geometry
from ..errors import ConfigError, DataError, OutputError, suggest
from .atomic import atomic_path
from .npz import GEOMETRY_KEYS
from .stored_reconstruction import StoredReconstruction, read_reconstruction

__all__ = ["EXPORTS", "ExportFormat", "choose_export", "export_reconstruction", "read_result"]


@dataclass(frozen=True, kw_only=True)
class ExportFormat:
    """A format that images are written in.

    Attributes:
        name: the word for ``--format``.
        title: for people.
        suffixes: of its files; the first is that of a name that is made up.
        module: of the writer, imported when it is chosen.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    module: str


EXPORTS = (
    ExportFormat(
        name="tiff",
        title="phase and amplitude, float32, with scale: ImageJ, or OME in NAME.ome.tif",
        suffixes=(".tif", ".tiff"),
        module="tiff",
    ),
    ExportFormat(name="cxi", title="CXI 1.6 with images of probe and object", suffixes=(".cxi",), module="cxi"),
    ExportFormat(name="ptyr", title="HDF5 like the reconstructions of ptypy", suffixes=(".ptyr",), module="ptyr"),
    ExportFormat(name="ptychodus_product", title="product of ptychodus", suffixes=(".h5", ".hdf5"), module="ptychodus"),
    ExportFormat(name="npz", title="arrays, numbers and documents for NumPy", suffixes=(".npz",), module="npz"),
)
"""Every format that images are written in."""


def choose_export(path: Path | str | None, format: str | None) -> ExportFormat:
    """The export by the name of a format, or by the suffix of the file.

    Raises:
        ConfigError: no such format, neither is given, or the file has the suffix of another format.
    """
    by_name = {export.name: export for export in EXPORTS}
    if format is not None and format not in by_name:
        raise ConfigError(f"format = {format!r}; allowed: {', '.join(by_name)}.{suggest(format, by_name)}")
    if format is None:
        suffix = "" if path is None else Path(path).suffix
        found = next((export for export in EXPORTS if suffix in export.suffixes), None)
        if found is None:
            known = ", ".join(f"{export.name} ({' '.join(export.suffixes)})" for export in EXPORTS)
            given = "no format is named" if path is None else f"{path}: the suffix {suffix!r} names no format"
            raise ConfigError(f"{given}; give --format, or --out with the suffix of one: {known}.")
        return found
    if path is not None and Path(path).suffix not in by_name[format].suffixes:
        raise ConfigError(
            f"{path}: a file of format {format} ends in {' or '.join(by_name[format].suffixes)}, not in "
            f"{Path(path).suffix!r}."
        )
    return by_name[format]


def read_result(result: Path | str, given: Geometry | None = None) -> StoredReconstruction:
    """The image of a result.

    Args:
        result: a result folder, or its ``reconstruction.h5``.
        given: what is known of the instrument, where the file does not say it.

    Raises:
        DataError: no image there, or what is given contradicts the file.
        ConfigError: a number that is given is not above 0.
    """
    path = Path(result)
    stored = read_reconstruction(path / "reconstruction.h5" if path.is_dir() else path)
    added: dict[str, Any] = {}
    for key in GEOMETRY_KEYS:
        value, said = getattr(given or Geometry(), key), getattr(stored.geometry, key)
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"{key} = {value!r}; it must be a finite number > 0.")
        if value is not None and said is not None and value != said:
            raise DataError(f"{stored.path}: states {key} = {said:g}, but {value:g} was given; leave {key} out.")
        if value is not None:
            added[key] = value
    geometry = replace(stored.geometry, **added)
    return replace(stored, geometry=geometry, pixel_size_m=geometry.pixel_size_m)


def export_reconstruction(
    path: Path | str, stored: StoredReconstruction, *, format: str | None = None
) -> tuple[str, ...]:
    """Write an image for other programs, atomically.

    Args:
        path: the file.
        stored: the image, as :func:`read_result` or ``read_reconstruction`` give it.
        format: a name of `EXPORTS`; None goes by the suffix.

    Returns:
        one sentence for each thing that the format cannot hold, and for each that is written otherwise.

    Raises:
        ConfigError: no such format.
        OutputError: it cannot be written, or is the file that the image was read from.
        DataError: the format needs what the image does not say.
        MissingPackageError: the format needs a package that is not installed.
    """
    target = Path(path)
    export = choose_export(target, format)
    if target.exists() and stored.path.exists() and target.samefile(stored.path):
        raise OutputError(f"{target}: is the file that the image was read from; choose another name.")
    module = importlib.import_module(f".exports.{export.module}", __package__)
    write: Callable[..., list[str]] = module.write
    with atomic_path(target) as temporary:
        return tuple(write(temporary, stored, target=target))
