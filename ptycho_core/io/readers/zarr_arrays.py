"""Arrays of a Zarr store, read with the package zarr, which is asked for where there is a store."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError, MissingPackageError
from .array_header import ArrayHeader, absent

__all__ = ["ZarrArrays"]


@dataclass(frozen=True)
class ZarrArrays:
    """Arrays of a Zarr store of version 2 or 3, a folder or a zip file."""

    path: Path

    def headers(self) -> dict[str, ArrayHeader]:
        """Every array; that of a store that is one array is called ``array``."""
        with self._root() as root:
            if not hasattr(root, "members"):  # the two classes of the package have no common name
                return {"array": _zarr_header(root)}
            found = sorted(root.members(max_depth=None), key=lambda pair: str(pair[0]))
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
                yield root
                return
            item = root.get(name)
            if item is None or hasattr(item, "members"):
                raise absent(self.path, name, [str(key) for key, _ in root.members(max_depth=None)])
            yield item

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
