"""The product of ptychodus: positions, probe, object and instrument, without frames; HDF5 or NPZ, of both vintages.

Positions are absolute metres with the number of the frame that each belongs to. HDF5 keeps the instrument in the
attributes of the file, and the pixel in those of ``object``; an NPZ has keys for both (``object_pixel_width_m``). Up to
1.6 the photon energy was ``probe_energy_eV``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.raw import Geometry
from ...errors import DataError
from ..h5_values import as_complex, attribute, item_at, open_h5
from .array_header import read_whole
from .arrays import ArrayFile, ArrayHeader, Hdf5Arrays

__all__ = ["POSITIONS", "Product", "number_in", "product_in"]

POSITIONS = ("probe_position_y_m", "probe_position_x_m")
"""Names of y and x; a file with both has positions of a product."""

_INDEXES = "probe_position_indexes"
_NOT_SQUARE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Product:
    """What a product says.

    Attributes:
        positions_m: (K, 2) float64 (y, x), metres.
        indexes: (K,) int64 frame that each belongs to, or None where the file does not say.
        geometry: energy, distance and object pixel as far as they are stated.
        probe: as stored, (N, N), (P, N, N) or (variations, P, N, N), or None.
        far_field: whether frames are far-field patterns, or None where the file does not say.
        warnings: what cannot be taken over.
    """

    positions_m: NDArray[np.float64]
    indexes: NDArray[np.int64] | None
    geometry: Geometry
    probe: NDArray[Any] | None
    far_field: bool | None
    warnings: tuple[str, ...] = ()

    @property
    def side(self) -> int | None:
        """N of the frames that the object pixel belongs to: that of the probe."""
        return None if self.probe is None else int(self.probe.shape[-1])


def product_in(arrays: ArrayFile) -> Product | None:
    """What a file says as a product of ptychodus; None where it has no positions by its names.

    Raises:
        DataError: positions and indexes that do not fit each other.
    """
    headers = arrays.headers()
    if not set(POSITIONS) <= set(headers):
        return None
    y, x = (_list(arrays, name) for name in POSITIONS)
    indexes = _list(arrays, _INDEXES) if _INDEXES in headers else None
    if len(y) != len(x) or (indexes is not None and len(indexes) != len(y)):
        raise DataError(
            f"{arrays.path}: {len(y)} positions y and {len(x)} x, and {'no' if indexes is None else len(indexes)} "
            "numbers of frames; each position has one of each. Write the product again."
        )
    if indexes is not None and not np.array_equal(indexes, np.rint(indexes)):
        raise DataError(f"{arrays.path}: {_INDEXES!r} must hold the whole number of a frame for each position.")
    geometry, warnings = _geometry(arrays, headers)
    far = number_in(arrays, headers, "far_field")
    if far == 0:
        warnings.append(f"{arrays.path.name} states a near field; give --propagation near_field:F with its number F.")
    return Product(
        positions_m=np.stack([y, x], axis=-1).astype(np.float64),
        indexes=None if indexes is None else indexes.astype(np.int64),
        geometry=geometry,
        probe=_array(arrays, "probe") if "probe" in headers else None,
        far_field=None if far is None else bool(far),
        warnings=tuple(warnings),
    )


def _geometry(arrays: ArrayFile, headers: Mapping[str, ArrayHeader]) -> tuple[Geometry, list[str]]:
    def number(name: str, of: str = "") -> float | None:
        value = number_in(arrays, headers, name, of)
        return value if value is not None and value > 0 else None

    sizes = [number(f"object_pixel_{way}_m") or number(f"pixel_{way}_m", "object") for way in ("height", "width")]
    pixel, warnings = sizes[0], []
    if sizes[0] is not None and sizes[1] is not None and abs(sizes[0] - sizes[1]) > _NOT_SQUARE * sizes[1]:
        warnings.append(f"{arrays.path.name}: its object pixels are not square: {sizes[0]:.4g} × {sizes[1]:.4g} m.")
        pixel = None
    energy = number("photon_energy_eV") or number("probe_energy_eV")
    return Geometry(energy_eV=energy, distance_m=number("detector_object_distance_m"), pixel_size_m=pixel), warnings


def _array(arrays: ArrayFile, name: str) -> NDArray[Any]:
    with arrays.opened(name) as array:
        return as_complex(read_whole(array, arrays.path, name))


def _list(arrays: ArrayFile, name: str) -> NDArray[Any]:
    values = _array(arrays, name)
    if values.dtype.kind not in "biuf":
        raise DataError(f"{arrays.path}: {name!r} holds {values.dtype} values; it must hold real numbers.")
    return values.ravel()


def number_in(arrays: ArrayFile, headers: Mapping[str, ArrayHeader], name: str, of: str = "") -> float | None:
    """One finite number of a file, or None.

    Args:
        arrays: of the file.
        headers: of all of them.
        name: of the array, or of an attribute in HDF5.
        of: dataset or group that the attribute belongs to; empty for the file.
    """
    if not of and name in headers:
        return _one(_array(arrays, name))
    if not isinstance(arrays, Hdf5Arrays):
        return None
    with open_h5(arrays.path, arrays.follow) as h5:
        item = item_at(h5, of) if of else h5
        return None if item is None else _one(attribute(item, name))


def _one(value: Any) -> float | None:
    values = np.asarray(value).ravel()
    if values.size != 1 or values.dtype.kind not in "biuf" or not np.isfinite(float(values[0])):
        return None
    return float(values[0])
