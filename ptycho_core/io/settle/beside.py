"""Positions in a file of their own: text, NumPy, NPZ, HDF5, a product of ptychodus, a reconstruction, another scan.

A file is told by its content. What is known of such files is one list, :data:`_KINDS`, asked in order; the names in the
file decide, never its values. What was taken for y and x, and in which unit, is said.

``FILE:/path/of/y,/path/of/x`` names two datasets of an HDF5 file or two keys of an NPZ, ``FILE:/path`` one of (K, 2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.raw import Geometry
from ...errors import DataError, PtychoError, suggest
from ..guarded import in_child
from ..number_table import read_table
from ..readers.matlab_values import instrument_of_numbers
from ..readers.product import POSITIONS, product_in
from ..units import LENGTHS, length_unit
from .named_axes import axis_columns, index_column, pairs_of, unit_in, words_of
from .stored_arrays import StoredArrays, arrays_in

__all__ = ["Beside", "read_beside"]

_SYNTAX = "name them: --positions {path}:Y,X with the {what} of y and x"


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What a file says of positions.

    Attributes:
        path: the file.
        positions: (K, 2) float64 (y, x), as stored.
        units: of y and of x as the file states them, or as its kind has them: ``um``, ``px``; empty where nobody says.
        indexes: (K,) int64 frame that each belongs to; None where row k belongs to frame k.
        geometry: what it says of the instrument; None for what it does not say.
        side: N of the frames that ``geometry.pixel_size_m`` belongs to, or None.
        has_probe: whether it holds a probe too.
        notes: what was taken for what.
        warnings: what looks wrong.
    """

    path: Path
    positions: NDArray[np.float64]
    units: tuple[str, str] = ("", "")
    indexes: NDArray[np.int64] | None = None
    geometry: Geometry = field(default_factory=Geometry)
    side: int | None = None
    has_probe: bool = False
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """``m``, ``px`` (object pixels), or an empty text where nobody says: that of :meth:`settled`."""
        return self.units[0] if self.units[0] in ("", "px") else "m"

    def settled(self) -> NDArray[np.float64]:
        """Positions (K, 2) float64 (y, x) in metres, or as stored where the unit is pixels or unknown."""
        factors = [1.0 if unit in ("", "px") else float(length_unit(unit) or 1.0) for unit in self.units]
        return np.asarray(self.positions * np.array(factors))


def read_beside(path: Path) -> Beside:
    """Read positions.

    Args:
        path: the file, with the names of datasets behind a colon if need be.

    Raises:
        DataError: it cannot be read, or which of its numbers are positions cannot be told; the message lists them and
            how to name them.
    """
    found: Beside = in_child(_read_beside, path, about=path)
    return found


def _read_beside(path: Path) -> Beside:
    file, names = _parted(path)
    arrays = arrays_in(file)
    if arrays is None:
        if names:
            raise DataError(f"{file}: is a text file of numbers; names behind a colon are for HDF5 and NPZ.")
        return _from_text(file)
    if names:
        return _named(arrays, names)
    for kind in _KINDS:
        found = kind(arrays)
        if found is not None:
            return found
    listed = ", ".join(f"{name} {arrays.shapes[name]}" for name in arrays.names[:20]) or "nothing"
    syntax = _SYNTAX.format(path=file, what=f"{arrays.word}s")
    raise DataError(f"{file}: which of its numbers are positions cannot be told; {syntax}. It holds: {listed}.")


def _parted(path: Path) -> tuple[Path, tuple[str, ...]]:
    """The file, and the names behind the last colon that follows the name of a file."""
    if path.exists():
        return path, ()
    text = str(path)
    for place in range(len(text) - 1, 0, -1):
        if text[place] == ":" and Path(text[:place]).is_file():
            return Path(text[:place]), tuple(name.strip() for name in text[place + 1 :].split(","))
    near = suggest(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else ""
    raise DataError(f"{path}: no such file; check --positions.{near}")


def _from_text(path: Path) -> Beside:
    """Columns y and x of a text file, in the unit of their names; two columns without names are y, x."""
    table = read_table(path)
    names, values = table.names, table.values
    if not names:
        if values.shape[1] != 2:
            raise DataError(f"{path}: is {values.shape}; positions are (M, 2), the columns y, x, or named y and x.")
        return Beside(path=path, positions=values, notes=(_columns_note(path.name),))
    columns = axis_columns(names)
    for axis, which in columns.items():
        if len(which) != 1:
            raise DataError(
                f"{path}: columns are {', '.join(names)}; one must be named {axis}, with its unit behind an underscore "
                f"if there is one ({axis}_um)."
            )
    y, x = names[columns["y"][0]], names[columns["x"][0]]
    by_axis = {y: values[:, columns["y"][0]], x: values[:, columns["x"][0]]}
    index = index_column(names)
    found = _of_two(path, "column", (y, x), by_axis, {y: unit_in(y), x: unit_in(x)})
    return found if index is None else replace(found, indexes=_whole(values[:, index], path, names[index]))


def _columns_note(name: str) -> str:
    return f"{name}: its two columns were read as y, x."


def _whole(values: NDArray[Any], path: Path, name: str) -> NDArray[np.int64]:
    if values.ndim != 1 or values.dtype.kind not in "iuf" or not np.array_equal(values, np.rint(values)):
        raise DataError(f"{path}: {name!r} must hold the whole number of a frame for each position.")
    return values.astype(np.int64)


def _of_two(
    path: Path, what: str, pair: tuple[str, str], values: dict[str, NDArray[Any]], units: dict[str, str]
) -> Beside:
    """Positions of a list for y and one for x, each in its unit."""
    y, x = (np.asarray(values[name], np.float64).ravel() for name in pair)
    if len(y) != len(x):
        raise DataError(f"{path}: {pair[0]!r} has {len(y)} numbers and {pair[1]!r} {len(x)}; a position has both.")
    stated = _checked_units(path, pair, (units[pair[0]], units[pair[1]]))
    note = f"{path.name}: y is {what} {pair[0]!r}, x is {what} {pair[1]!r}."
    return Beside(path=path, positions=np.stack([y, x], axis=-1), units=stated, notes=(note,))


def _checked_units(path: Path, names: tuple[str, str], units: tuple[str, str]) -> tuple[str, str]:
    """Units of y and x: both lengths, or both pixels, or none."""
    for name, unit in zip(names, units, strict=True):
        if unit not in ("", "px") and length_unit(unit) is None:
            raise DataError(f"{path}: {name!r} states the unit {unit!r}; allowed: px, {', '.join(LENGTHS)}.")
    if units[0] != units[1] and ({"", "px"} & set(units)):
        raise DataError(
            f"{path}: {names[0]!r} and {names[1]!r} have different units for y and x, {units[0] or 'none'} and "
            f"{units[1] or 'none'}; give both in one."
        )
    return units


# --- arrays by name ------------------------------------------------------------------------------------------------


def _named(arrays: StoredArrays, names: tuple[str, ...]) -> Beside:
    """Positions of the datasets that the caller names."""
    if not 1 <= len(names) <= 2 or not all(names):
        raise DataError(f"{arrays.path}: {','.join(names)!r} must be two names, of y and of x, or one of (K, 2).")
    if len(names) == 1:
        return _of_one(arrays, names[0])
    values = {name: arrays.numbers(name) for name in names}
    return _of_two(arrays.path, arrays.word, (names[0], names[1]), values, {name: arrays.unit(name) for name in names})


def _of_one(arrays: StoredArrays, name: str) -> Beside:
    """Positions of one array, (K, 2), or (2, K) where K is not 2."""
    values = np.asarray(arrays.numbers(name), np.float64)
    unit = arrays.unit(name)
    if values.ndim == 2 and values.shape[0] == 2 != values.shape[1]:
        values = values.T
    if values.ndim != 2 or values.shape[1] != 2:
        raise DataError(f"{arrays.path}: {name!r} is {values.shape}; positions are (K, 2), each (y, x).")
    units = _checked_units(arrays.path, (name, name), (unit, unit))
    values, order = _as_named(values, name)
    return Beside(path=arrays.path, positions=values, units=units, notes=(f"{arrays.path.name}: {name!r} {order}.",))


def _as_named(values: NDArray[np.float64], name: str) -> tuple[NDArray[np.float64], str]:
    """Positions (K, 2) as (y, x), and how they were read: a name with the word xy says the other order."""
    if "xy" in map(str.lower, words_of(name)):
        return values[:, ::-1], "was read as (x, y), as its name says"
    return values, "was read as (y, x)"


def _lone_array(arrays: StoredArrays) -> Beside | None:
    """Of an NPY, or of an NPZ with nothing else."""
    if arrays.kind == "hdf5" or len(arrays.names) != 1:
        return None
    name = arrays.names[0]
    values = np.asarray(arrays.numbers(name), np.float64)
    if values.ndim != 2 or values.shape[1] != 2:
        raise DataError(f"{arrays.path}: is {values.shape}; positions are (M, 2), the columns y, x.")
    unit = unit_in(name)
    values, order = _as_named(values, name)
    note = f"{arrays.path.name}: its array {name!r} {order}." if "x, y" in order else _columns_note(arrays.path.name)
    return Beside(path=arrays.path, positions=values, units=(unit, unit), notes=(note,))


def _product(arrays: StoredArrays) -> Beside | None:
    """Of a product of ptychodus, or the parameters of a scan in its names."""
    found = product_in(arrays.arrays)
    if found is None:
        return None
    y, x = POSITIONS
    return Beside(
        path=arrays.path,
        positions=found.positions_m,
        units=("m", "m"),
        indexes=found.indexes,
        geometry=found.geometry,
        side=found.side,
        has_probe=found.probe is not None,
        notes=(f"{arrays.path.name}: y is {arrays.word} {y!r}, x is {arrays.word} {x!r}.",),
        warnings=found.warnings,
    )


def _ptychoshelves(arrays: StoredArrays) -> Beside | None:
    """``ppX``, ``ppY``, metres unless ``units`` says otherwise, with ``lambda`` and the object's pixel ``dx``."""
    if not {"ppX", "ppY"} <= set(arrays.names):
        return None
    pair = ("ppY", "ppX")
    units = {name: arrays.unit(name) or "m" for name in pair}
    found = _of_two(arrays.path, arrays.word, pair, {name: arrays.numbers(name) for name in pair}, units)
    geometry, notes = instrument_of_numbers(arrays.scalar, str(arrays.path))
    return replace(found, geometry=geometry, notes=(*found.notes, *notes))


def _reconstruction(arrays: StoredArrays) -> Beside | None:
    """Positions as a reconstruction of this program used them."""
    if arrays.kind != "hdf5" or not {"entry/positions_px", "entry/object", "entry/coverage"} <= set(arrays.names):
        return None
    positions = np.asarray(arrays.numbers("entry/positions_px"), np.float64)
    pixel = arrays.scalar("pixel_size_m", of="entry/object")
    note = f"{arrays.path.name}: positions as that reconstruction used them."
    units = ("px", "px") if pixel is None else ("m", "m")
    return Beside(path=arrays.path, positions=positions * (pixel or 1), units=units, has_probe=True, notes=(note,))


def _scan(arrays: StoredArrays) -> Beside | None:
    """Positions of another scan file, by its own reader, which knows what its numbers mean."""
    from ...plugins.readers import readers_by_priority
    from ...reader_protocol import ReadOptions
    from ..measurement import UnstatedMeasurementError

    file = arrays.candidate
    for reader in readers_by_priority()[0]:
        try:
            if not reader.recognises(file):
                continue
            try:
                recording = reader.record(file, ReadOptions())
            except UnstatedMeasurementError:
                recording = reader.record(file, ReadOptions(measurement="counts"))
        except PtychoError:
            continue  # what that reader cannot read may still be told by the names in the file
        if recording.positions is not None:
            pixel = recording.geometry.pixel_size_m if recording.position_unit == "px" else None
            scale, unit = (1.0, recording.position_unit) if pixel is None else (pixel, "m")
            note = f"{arrays.path.name}: its positions as a scan of dialect {reader.name}."
            return Beside(
                path=arrays.path,
                positions=np.asarray(recording.positions, np.float64) * scale,
                units=(unit, unit),
                has_probe=recording.probe is not None,
                notes=(note,),
            )
    return None


def _by_names(arrays: StoredArrays) -> Beside | None:
    """The one pair of lists whose names differ in x for y, or the one array (K, 2)."""
    shapes = arrays.shapes
    lists = {name: max(shapes[name]) for name in arrays.names if _is_list(shapes[name])}
    pairs = pairs_of(lists)
    if len(pairs) == 1:
        return _named(arrays, pairs[0])
    tables = [name for name in arrays.names if len(shapes[name]) == 2 and shapes[name][1] == 2 < shapes[name][0]]
    if not pairs and len(tables) == 1:
        return _of_one(arrays, tables[0])
    return None


def _is_list(shape: tuple[int, ...]) -> bool:
    return 0 < len(shape) <= 2 and int(np.prod(shape)) == max(shape) > 1


_KINDS: tuple[Callable[[StoredArrays], Beside | None], ...] = (
    _lone_array,
    _product,
    _ptychoshelves,
    _reconstruction,
    _scan,
    _by_names,
)
"""What a file with arrays may be, asked in order; the more telling names first."""
