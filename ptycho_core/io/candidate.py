"""What a file is, by its content: the facts that readers are chosen by.

A suffix is a claim; the first bytes and the names inside are evidence. A file is opened once here, so that a missing,
unreadable, damaged or unsafe one gives the same clear error whichever dialect it may be.
"""

from __future__ import annotations

import ast
import bz2
import io
import math
import os
import re
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..data.h5_file import open_h5
from ..errors import DataError, suggest
from ..limits import MEGABYTE, limits_at_work
from ..text import listed
from .h5_names import names_in
from .regular import check_regular

__all__ = ["Candidate", "Member", "examine", "missing_key"]

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_MAX_HEADER_BYTES = 2**20
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError, SyntaxError, RuntimeError),
    *(TypeError, IndexError, OverflowError, NotImplementedError),
)


@dataclass(frozen=True)
class Member:
    """The header of one array in an archive.

    Attributes:
        dtype: as stored.
        shape: as stored.
        fortran_order: whether the first axis runs fastest.
        offset: bytes from the start of the file to the values when they lie there uncompressed, else None.
        compressed_bytes: that it takes in the archive.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran_order: bool
    offset: int | None
    compressed_bytes: int = 0


@dataclass(frozen=True)
class Candidate:
    """A file that may be a scan.

    Attributes:
        path: the file.
        kind: ``npz`` (also inside bzip2), ``hdf5``, ``folder`` (a folder, or the files that a pattern names), ``other``
            or ``bundle`` (a model).
        names: arrays in it: NPZ keys, HDF5 dataset paths without the leading slash (those behind links too, and links
            that lead nowhere), archive members of a bundle, or the names of the files of a folder in natural order
            (frame_2 before frame_10).
        shapes: shape and dtype of each array, by name.
        content: the decompressed archive when the file is compressed as a whole, else None.
        members: headers of the arrays of an NPZ, by name.
        files: the files of a folder or pattern, in the order of `names`.
        beside: names of other files that external links of an HDF5 file lead to.
    """

    path: Path
    kind: str
    names: tuple[str, ...]
    shapes: dict[str, str]
    content: bytes | None = None
    members: dict[str, Member] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    beside: tuple[str, ...] = ()

    def load(self, name: str) -> NDArray[Any]:
        """Load one array of an NPZ into memory; pickled ones never get this far.

        Raises:
            DataError: the member is damaged, or larger than what may be decompressed.
        """
        try:
            self._check_size(name)
            with zipfile.ZipFile(_archive(self.path, self.content)) as archive, archive.open(f"{name}.npy") as member:
                return np.asarray(np.lib.format.read_array(member, allow_pickle=False))
        except _DAMAGE as error:
            raise _damaged(self.path, f"array {name!r}", error) from error

    def _check_size(self, name: str) -> None:
        member = self.members.get(name)
        if member is None:
            return
        n_bytes = member.dtype.itemsize * math.prod(member.shape)
        if n_bytes > limits_at_work().decompressed_bytes(member.compressed_bytes):
            raise _too_large(self.path, f"array {name!r}", n_bytes, member.compressed_bytes)


def _archive(path: Path, content: bytes | None) -> Path | io.BytesIO:
    return path if content is None else io.BytesIO(content)


def _damaged(path: Path, what: str, error: BaseException) -> DataError:
    return DataError(
        f"{path}: {what} cannot be read ({error or type(error).__name__}); the file is damaged or truncated. "
        "Copy or export it again."
    )


def _too_large(path: Path, what: str, n_bytes: int, compressed: int) -> DataError:
    most = limits_at_work().decompressed_bytes(compressed)
    return DataError(
        f"{path}: {what} has {_at_least(n_bytes)} decompressed, from {compressed} bytes; at most {most // MEGABYTE} MB "
        "are decompressed of so few. If it does hold that much, allow more with --max_memory (Limits.memory_mb)."
    )


def _at_least(n_bytes: int) -> str:
    return f"{n_bytes} bytes" if n_bytes < MEGABYTE else f"{n_bytes / MEGABYTE:.4g} MB"


def _decompressed(path: Path, stream: IO[bytes]) -> bytes:
    """All of a bzip2 stream, up to what may be decompressed of a file of its size."""
    compressed = path.stat().st_size
    most, parts, size = limits_at_work().decompressed_bytes(compressed), [], 0
    while part := stream.read(2**22):
        parts.append(part)
        size += len(part)
        if size > most:
            raise _too_large(path, "the bzip2 stream", size, compressed)
    return b"".join(parts)


def _read_header(stream: IO[bytes]) -> tuple[np.dtype[Any], tuple[int, ...], bool, int]:
    """Parse a .npy header of version 1, 2 or 3: dtype, shape, Fortran order, and its length in bytes."""
    magic = stream.read(8)
    if magic[:6] != b"\x93NUMPY" or magic[6:7] not in (b"\x01", b"\x02", b"\x03"):
        raise ValueError("not a NumPy array of format version 1, 2 or 3")
    width = 2 if magic[6] == 1 else 4
    length = int.from_bytes(stream.read(width), "little")
    if length > _MAX_HEADER_BYTES:
        raise ValueError(f"its header claims {length} bytes")
    header = ast.literal_eval(stream.read(length).decode("utf-8" if magic[6] == 3 else "latin1"))
    if not isinstance(header, dict) or set(header) != {"descr", "fortran_order", "shape"}:
        raise ValueError("its header is not that of a NumPy array")
    dtype = np.lib.format.descr_to_dtype(header["descr"])
    return dtype, tuple(int(n) for n in header["shape"]), bool(header["fortran_order"]), 8 + width + length


def _values_offset(file: IO[bytes], info: zipfile.ZipInfo, header_bytes: int) -> int | None:
    """Where the values of an uncompressed member start: the local header may be longer than the central one says."""
    if info.compress_type != zipfile.ZIP_STORED:
        return None
    file.seek(info.header_offset)
    local = file.read(30)
    if len(local) < 30 or local[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile("no member where the archive's index says")
    name_bytes, extra_bytes = int.from_bytes(local[26:28], "little"), int.from_bytes(local[28:30], "little")
    return info.header_offset + 30 + name_bytes + extra_bytes + header_bytes


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, content: bytes | None) -> Member:
    with archive.open(info) as stream:
        dtype, shape, fortran_order, header_bytes = _read_header(stream)
    if dtype.hasobject:
        key = info.filename.removesuffix(".npy")
        raise DataError(
            f"{path}: array {key!r} holds Python objects (pickled); they can run code when loaded and are never "
            f"unpickled here. Save the file again without {key!r}, or with it as numbers or text (np.array(str))."
        )
    n_bytes = dtype.itemsize * math.prod(shape)  # of whole numbers of any size: it does not wrap
    if min(shape, default=0) < 0:
        raise ValueError(f"{info.filename} states the shape {shape}")
    if info.file_size != header_bytes + n_bytes:
        raise ValueError(f"{info.filename} has {info.file_size} bytes, not {header_bytes + n_bytes}")
    if content is not None:
        return Member(dtype, shape, fortran_order, None, info.compress_size)
    with path.open("rb") as file:
        return Member(dtype, shape, fortran_order, _values_offset(file, info, header_bytes), info.compress_size)


def _examine_zip(path: Path, content: bytes | None) -> Candidate:
    try:
        with zipfile.ZipFile(_archive(path, content)) as archive:
            infos = archive.infolist()
            if len(infos) > (most := limits_at_work().objects):
                raise _too_many(path, f"{len(infos)} members", most)
            if any(info.filename == "manifest.json" for info in infos):
                names = tuple(info.filename for info in infos)
                return Candidate(path, "bundle", names, {info.filename: f"{info.file_size} bytes" for info in infos})
            arrays = [info for info in infos if info.filename.endswith(".npy")]
            members = {i.filename.removesuffix(".npy"): _member(archive, i, path, content) for i in arrays}
    except DataError:
        raise
    except _DAMAGE as error:
        raise _damaged(path, "the zip archive", error) from error
    shapes = {name: f"{member.shape} {member.dtype}" for name, member in members.items()}
    return Candidate(path, "npz", tuple(members), shapes, content, members)


def _examine_hdf5(path: Path, follow: bool) -> Candidate:
    try:
        with open_h5(path, follow) as file:
            found = names_in(file)
    except DataError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise _damaged(path, "the HDF5 file", error) from error
    return Candidate(path, "hdf5", tuple(found.shapes), found.shapes, beside=tuple(found.beside))


def _is_hdf5(file: IO[bytes]) -> bool:
    for start in (0, 512, 1024, 2048, 4096):  # a user block may come first
        file.seek(start)
        if file.read(8) == _HDF5_MAGIC:
            return True
    return False


def _too_many(path: Path, what: str, most: int) -> DataError:
    return DataError(
        f"{path}: has {what}; at most {most} are looked at. If all of them are of the scan, allow "
        "more with --max_objects (Limits.objects)."
    )


def _natural(path: Path) -> list[tuple[int, int | str]]:
    """Key by which frame_2 comes before frame_10."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", path.name)]


def _folder(path: Path, found: list[Path]) -> Candidate:
    if len(found) > (most := limits_at_work().files):
        raise _too_many(path, f"{len(found)} files", most)
    files = tuple(sorted((f for f in found if not f.name.startswith(".")), key=_natural))
    if not files:
        raise DataError(f"{path}: the folder is empty; name the scan file, or the folder with its frames.")
    for file in files:
        if not file.is_dir():
            check_regular(file, what="each frame of a scan in files")
    shapes = {f.name: "folder" if f.is_dir() else f"{_bytes_of(f)} bytes" for f in files}
    return Candidate(path, "folder", tuple(f.name for f in files), shapes, files=files)


def _bytes_of(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"{file}: cannot be looked at ({reason}); it is a link that leads nowhere, or is gone."
        ) from error


def _listed(folder: Path, pattern: str) -> list[Path]:
    """What lies in a folder and matches.

    Raises:
        DataError: it may not be looked into, or the pattern is none.
    """
    try:
        return list(folder.iterdir() if pattern == "*" else folder.glob(pattern))
    except (OSError, ValueError, NotImplementedError, re.error) as error:
        raise DataError(f"{folder}: cannot be looked into ({error}); check its name and rights.") from error


def examine(path: Path | str, follow: bool = False) -> Candidate | None:
    """Say what a file is, or None when it is no container that any reader knows.

    Args:
        path: the file, a folder, or a pattern with ``*``.
        follow: whether an HDF5 file may still be being written.

    Raises:
        DataError: it is missing, unreadable, empty, damaged, or holds pickled objects.
    """
    path = Path(path)
    # those of os.path, which take a name that cannot be one for a file that is not there
    if os.path.isdir(path):
        return _folder(path, _listed(path, "*"))
    if set("*?[") & set(path.name) and not os.path.lexists(path):
        found = _listed(path.parent, path.name) if os.path.isdir(path.parent) else []
        if not found:
            raise DataError(f"{path}: no file matches this pattern. Check the path.")
        return _folder(path, found)
    check_regular(path, what="a scan")
    try:
        with path.open("rb") as file:
            magic = file.read(8)
            hdf5 = _is_hdf5(file)
            if magic[:3] == b"BZh":
                file.seek(0)
                with bz2.open(file) as stream:
                    content: bytes | None = _decompressed(path, stream)
            else:
                content = None
    except FileNotFoundError as error:
        near = suggest(path.name, [p.name for p in _listed(path.parent, "*")]) if os.path.isdir(path.parent) else ""
        raise DataError(f"{path}: no such file.{near or ' Check the path.'}") from error
    except EOFError as error:
        raise _damaged(path, "the bzip2 stream", error) from error
    except ValueError as error:  # a name that no file can have
        raise DataError(f"{path}: cannot be read ({error}); check its name.") from error
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path}: cannot be read ({reason}); check its content and rights.") from error
    if not magic:
        raise DataError(f"{path}: the file is empty; copy or export it again.")
    if hdf5:
        return _examine_hdf5(path, follow)
    start = magic if content is None else content[:8]
    return _examine_zip(path, content) if start[:4] in (b"PK\x03\x04", b"PK\x05\x06") else None


def missing_key(file: Candidate, wanted: str, what: str) -> DataError:
    """Build the error for an array that is not there: which are, and the nearest name."""
    present = listed(sorted(file.names)) or "nothing"
    return DataError(f"{file.path}: no {wanted} ({what}). The file holds: {present}.{suggest(wanted, file.names)}")
