"""What is in a model file is looked at before it is used: it may come from anywhere, and may be damaged or hostile.

Sizes and shapes are compared with what they may be before memory is asked for; what is no probe, mask, position or
setting is one :class:`ArchiveError` that names it.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ptycho_core.errors import ArchiveError, DataError
from ptycho_core.io.candidate import examine
from ptycho_core.io.regular import check_regular
from ptycho_core.limits import MEGABYTE, limits_at_work
from ptycho_core.text import one_line

__all__ = [
    "ABOUT", "ARRAYS", "MEMBERS", "MODEL", "checked_arrays", "client_config", "damaged", "read_about", "read_arrays",
    "read_members",
]  # fmt: skip

MODEL, ARRAYS, ABOUT = "model.ptycho", "arrays.npz", "adapter.json"
MEMBERS = (MODEL, ARRAYS, ABOUT)

_MOST_BYTES = {MODEL: 2**33, ARRAYS: 2**31, ABOUT: MEGABYTE}
"""Bytes of a member at most: eight times a network of the reference's size is far below, and settings are a page."""

_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError, RuntimeError, OverflowError),
    *(NotImplementedError, IndexError),
)
_MOST_VALUES = 10_000
_FARTHEST_PX = 1e7
"""Pixels from the first one of the client's object within which every position lies."""

_LARGEST = 1e300
"""Numbers below it are finite, also whole ones of many digits."""

_T = TypeVar("_T")


def _shown(value: object) -> str:
    return one_line(repr(value), 80)


def damaged(where: Path | str, what: str) -> ArchiveError:
    """The one error for what is in a model file and cannot be."""
    return ArchiveError(f"{where}: it is damaged: {what}. Copy it again, or train again.")


def read_members(path: Path, archive_name: str) -> dict[str, bytes]:
    """The three members, out of a file, or out of a folder that it was unpacked into.

    Args:
        path: the file or the folder.
        archive_name: what the file is called in a folder, for the message.

    Raises:
        ArchiveError: they are not there, or are larger than any model's.
    """
    if path.is_dir():
        missing = [name for name in MEMBERS if not (path / name).is_file()]
        if missing:
            raise ArchiveError(
                f"{path}: no model of ptycho-core lies there; {archive_name} and {missing[0]} are missing."
            )
        for name in MEMBERS:
            _check_size(path, name, (path / name).stat().st_size)
        return {name: (path / name).read_bytes() for name in MEMBERS}
    check_regular(path, ArchiveError, what="a model archive")
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: _read_member(archive, name, path) for name in MEMBERS}
    except ArchiveError:
        raise
    except _DAMAGE as error:
        said = one_line(str(error) or type(error).__name__, 200)
        raise ArchiveError(f"{path}: it is no readable model archive: {said}. Train again.") from error


def _read_member(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    times = Counter(info.filename for info in archive.infolist())[name]
    if times == 0:
        raise ArchiveError(
            f"{path}: it has no {name}, so it is no model of ptycho-core (one of PtychoPINN, perhaps); train again."
        )
    if times > 1:
        raise damaged(path, f"{name} is in it {times} times")
    info = archive.getinfo(name)
    _check_size(path, name, info.file_size)
    # the client's own zip compresses; what is made of little must not be much
    if info.file_size > (most := limits_at_work().decompressed_bytes(info.compress_size)):
        raise damaged(
            path, f"{name} claims {info.file_size} bytes in {info.compress_size}, and at most {most} are read"
        )
    return archive.read(info)


def _check_size(path: Path, name: str, n_bytes: int) -> None:
    if n_bytes > _MOST_BYTES[name]:
        raise damaged(path, f"{name} has {n_bytes} bytes, and that of a model has {_MOST_BYTES[name]} at most")


def read_about(content: bytes, where: Path) -> dict[str, Any]:
    """What ``adapter.json`` says, of a bounded extent: ``format``, ``version`` and ``client``.

    Raises:
        ArchiveError: no JSON, or none of ours.
    """
    if content.count(b",") + content.count(b"[") + content.count(b"{") > _MOST_VALUES:
        raise damaged(where, f"{ABOUT} has more than {_MOST_VALUES} values")
    try:
        about = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise damaged(where, f"{ABOUT} is no JSON ({one_line(str(error), 100)})") from error
    if not isinstance(about, dict) or not {"format", "version", "client"} <= set(about):
        raise damaged(where, f"{ABOUT} must hold format, version and client")
    if not isinstance(about["client"], dict):
        raise damaged(where, f"client of {ABOUT} is {_shown(about['client'])}; it must hold settings by name")
    return about


_KINDS = {"probe": "c", "probe_guess": "c", "positions_px": "fiu", "mask": "b", "grid": "iu"}
"""Array → kinds of dtype that it may have."""

_NEEDED = ("probe", "probe_guess", "positions_px")


def read_arrays(path: Path, where: Path, side: int) -> dict[str, NDArray[Any]]:
    """The arrays of ``arrays.npz``, each checked by its header before it is read, and by its values afterwards.

    Args:
        path: of the member by itself.
        where: of the archive, for messages.
        side: N, of the model.

    Raises:
        ArchiveError: an array that is missing, unknown, or cannot be what it is called.
    """
    try:
        file = examine(path)
        if file is None or file.kind != "npz":
            raise damaged(where, f"{ARRAYS} is no NPZ")
        for name in _NEEDED:
            if name not in file.members:
                raise damaged(where, f"{ARRAYS} has no array {name}")
        for name, member in file.members.items():
            if name not in _KINDS:
                raise damaged(where, f"{ARRAYS} has an array {_shown(name)}, which no model has")
            _check_header(name, member.shape, member.dtype, side, where)
        return checked_arrays({name: file.load(name) for name in file.members}, where)
    except DataError as error:  # names the file that the member was put into
        raise damaged(where, one_line(str(error).replace(str(path), ARRAYS), 300).rstrip(".")) from error


def _check_header(name: str, shape: tuple[int, ...], dtype: np.dtype[Any], side: int, where: Path) -> None:
    """Refuse a shape or a kind of values that an array of a name cannot have."""
    N = side
    fits = {
        "probe": len(shape) == 3 and shape[0] >= 1 and shape[1:] == (N, N),
        "probe_guess": len(shape) == 3 and shape[0] >= 1 and shape[1:] == (N, N),
        "positions_px": len(shape) == 2 and shape[0] >= 1 and shape[1] == 2,
        "mask": shape == (N, N),
        "grid": shape == (2,),
    }
    wanted = {
        "probe": f"complex (P, {N}, {N})", "probe_guess": f"complex (P, {N}, {N})", "positions_px": "real (M, 2)",
        "mask": f"bool ({N}, {N})", "grid": "two whole numbers",
    }  # fmt: skip
    if not fits[name] or dtype.kind not in _KINDS[name]:
        raise damaged(where, f"the array {name} is {dtype} {shape}; it must be {wanted[name]}")


def checked_arrays(arrays: Mapping[str, NDArray[Any]], where: Path) -> dict[str, NDArray[Any]]:
    """Arrays of a model whose shapes and kinds are right, as they are used.

    Returns:
        ``probe`` and ``probe_guess`` complex64, ``positions_px`` float64, and as they are ``mask`` and ``grid``, where
        there are any.

    Raises:
        ArchiveError: values that are not finite, a probe that is dark, a mask that hides all, positions or an object
            that no scan has.
    """
    found = dict(arrays)
    for name in ("probe", "probe_guess"):
        with np.errstate(over="ignore"):
            found[name] = np.asarray(arrays[name], np.complex64)
        if not np.isfinite(found[name]).all() or not found[name].any():
            raise damaged(where, f"the array {name} is zero everywhere, or holds values that are not finite")
    positions = found["positions_px"] = np.asarray(arrays["positions_px"], np.float64)
    if not np.isfinite(positions).all() or np.abs(positions).max() > _FARTHEST_PX:
        raise damaged(where, f"the array positions_px holds values that are not finite, or beyond {_FARTHEST_PX:.0e}")
    if "mask" in found and not found["mask"].any():
        raise damaged(where, "the array mask hides every pixel")
    if "grid" in found:
        height, width = (int(side) for side in found["grid"])
        most = limits_at_work().canvas_px
        if min(height, width) < 1 or height * width > most:
            raise damaged(where, f"the array grid says {height} × {width} pixels; 1 to {most} in all can be")
    return found


def client_config(kind: type[_T], values: object, what: str, where: Path | str) -> _T:
    """A config of the client as an archive has it.

    Args:
        kind: its dataclass.
        values: plain data.
        what: it is called, for the message.
        where: of the archive.

    Raises:
        ArchiveError: other names than the dataclass has, or a value of another kind than the default.
    """
    known = {f.name: f.default for f in fields(kind)}  # type: ignore[arg-type]
    if not isinstance(values, dict) or set(values) != set(known):
        raise ArchiveError(f"{where}: it has no {what} of this version (a model of PtychoPINN trained elsewhere?).")
    made = {}
    for name, value in values.items():
        default = known[name]
        made[name] = tuple(value) if isinstance(value, list) and isinstance(default, tuple) else value
        if default is not MISSING and not _alike(made[name], default):
            raise damaged(where, f"{what}.{name} = {_shown(value)}; it must be of the kind of {default!r}")
    return kind(**made)


def _alike(value: object, default: object) -> bool:
    """Whether a value is of the kind of a default; one that is None by default may be any plain number or text."""
    if default is None:
        return value is None or (isinstance(value, (bool, int, str)) or _is_number(value))
    if isinstance(default, bool) or isinstance(value, bool):
        return type(value) is type(default)
    if isinstance(default, float):
        return _is_number(value)
    if isinstance(default, tuple):
        return (
            isinstance(value, tuple)
            and len(value) == len(default)
            and all(_alike(a, b) for a, b in zip(value, default, strict=True))
        )
    return type(value) is type(default)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _LARGEST
