"""Arrays of a Zarr store, read with the package zarr, which is asked for where there is a store."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError, MissingPackageError
from ...limits import MEGABYTE, limits_at_work
from ..regular import check_regular
from .array_header import ArrayHeader, absent

__all__ = ["ZarrArrays", "check_store"]


def check_store(path: Path) -> None:
    """Refuse a store in a folder whose files lead out of it, or are no files: a chunk is the bytes of any file.

    Raises:
        DataError: one does, or there are more of them than is allowed.
    """
    limits, home, n = limits_at_work(), os.path.realpath(path), 0
    to_do = [os.fspath(path)]
    while to_do:
        with os.scandir(to_do.pop()) as entries:
            for entry in entries:
                n += 1
                if n > limits.files:
                    raise DataError(
                        f"{path}: has more than {limits.files} files. If they are all of the scan, allow more with "
                        "--max_objects (Limits.objects)."
                    )
                if entry.is_symlink():
                    real = os.path.realpath(entry.path)
                    if not limits.external and not Path(real).is_relative_to(home):
                        raise DataError(
                            f"{path}: {entry.name!r} is a link to {real}, outside of the store. Copy it into "
                            "it, or allow it with --allow_external (allow_external=True), if you trust the store."
                        )
                elif entry.is_dir():
                    to_do.append(entry.path)
                    continue
                if not entry.is_dir():
                    check_regular(entry.path, what="what a Zarr store holds")


@dataclass(frozen=True)
class ZarrArrays:
    """Arrays of a Zarr store of version 2 or 3, a folder or a zip file."""

    path: Path

    def headers(self) -> dict[str, ArrayHeader]:
        """Every array; that of a store that is one array is called ``array``."""
        with self._root() as root:
            if not hasattr(root, "members"):  # the two classes of the package have no common name
                return {"array": _zarr_header(root)}
            found = sorted(self._members(root), key=lambda pair: str(pair[0]))
            return {str(name): _zarr_header(item) for name, item in found if not hasattr(item, "members")}

    def header(self, name: str) -> ArrayHeader:
        """One array."""
        with self.opened(name) as array:
            return _zarr_header(array)

    @contextmanager
    def opened(self, name: str) -> Iterator[Any]:
        """One array, whose chunks are read as they are asked for."""
        with self._root() as root:
            if not hasattr(root, "members"):
                if name != "array":
                    raise absent(self.path, name, ["array"])
                yield self._checked(root, name)
                return
            item = root.get(name)
            if item is None or hasattr(item, "members"):
                raise absent(self.path, name, [str(key) for key, _ in self._members(root)])
            yield self._checked(item, name)

    def _checked(self, array: Any, name: str) -> Any:
        """An array whose chunks, which are read whole, are of bounded size, and which no codec unpickles."""
        codecs = repr([getattr(array.metadata, part, None) for part in ("filters", "compressor", "codecs")])
        if "pickle" in codecs.lower() or np.dtype(array.dtype).hasobject:
            raise DataError(
                f"{self.path}: {name!r} holds Python objects (pickled); they can run code when loaded and are never "
                "unpickled here. Save it as numbers."
            )
        most, chunk = limits_at_work().array_bytes, math.prod(array.chunks) * np.dtype(array.dtype).itemsize
        if chunk > most:
            raise DataError(
                f"{self.path}: {name!r} is stored in chunks of {tuple(array.chunks)} {array.dtype}, "
                f"{chunk / MEGABYTE:.4g} MB; at most {most / MEGABYTE:.4g} MB are read at once. If it does hold that "
                "much, allow more with --max_memory (Limits.memory_mb)."
            )
        return array

    def _members(self, root: Any) -> list[tuple[str, Any]]:
        """Every group and array in the store, to a bounded depth."""
        limits = limits_at_work()
        found = list(islice(root.members(max_depth=limits.nesting), limits.objects + 1))
        if len(found) > limits.objects:
            raise DataError(
                f"{self.path}: has more than {limits.objects} groups and arrays. If they are all of the scan, allow "
                "more with --max_objects (Limits.objects)."
            )
        return found

    @contextmanager
    def _root(self) -> Iterator[Any]:
        try:
            import zarr
            import zarr.storage
        except ModuleNotFoundError as error:
            if error.name != "zarr":
                raise
            raise MissingPackageError(
                f"{self.path}: is a Zarr store, and the package zarr is not installed. Install it with: "
                "pip install 'ptycho-core[readers]'"
            ) from error
        store = None if self.path.is_dir() else zarr.storage.ZipStore(self.path, mode="r")
        try:
            yield zarr.open(store if store is not None else str(self.path), mode="r")
        except DataError:
            raise
        except (OSError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{self.path}: the Zarr store cannot be read ({error}); copy or export it again."
            ) from error
        finally:
            if store is not None:
                store.close()

    def attribute(self, place: str, name: str) -> Any:
        """Attribute of a group or array, or None."""
        with self._root() as root:
            item = root.get(place) if place and hasattr(root, "members") else root
            return None if item is None else item.attrs.get(name)


def _zarr_header(array: Any) -> ArrayHeader:
    unit = array.attrs.get("units", array.attrs.get("unit", ""))
    return ArrayHeader(tuple(array.shape), np.dtype(array.dtype), unit if isinstance(unit, str) else "")
