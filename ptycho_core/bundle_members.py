"""The zip file that a model bundle is: its members as bytes and its manifest as JSON, read strictly.

The file comes from anywhere. Before a byte of it is believed, it is bounded what it can cost: the list of members is
read up to a length, members are stored as they are, so that they are no larger than the file, and the manifest has a
length, a depth and a number of values.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .config_checks import shown
from .errors import ArchiveError
from .io.regular import check_regular
from .text import one_line

__all__ = [
    "FORMAT", "MANIFEST", "MOST_HEADER", "MOST_TENSORS", "PROBE", "SCHEMA_VERSION", "WEIGHTS",
    "check_keys", "read_members", "sealed", "sha256",
]  # fmt: skip

FORMAT = "ptycho-model"
SCHEMA_VERSION = 2

MANIFEST, WEIGHTS, PROBE = "manifest.json", "weights.safetensors", "probe.safetensors"
_LIMITS = {MANIFEST: 8 * 2**20, WEIGHTS: 8 * 2**30, PROBE: 2**30}
"""Bytes of each member; they are stored as they are, so a file is at least as large."""

_MOST_VALUES, _DEEPEST = 1_000_000, 16
"""Of the manifest: values in all, and lists and objects in each other."""

MOST_HEADER, MOST_TENSORS = 4 * 2**20, 10_000
"""Bytes of what the tensors of a member are called, and where they are; and how many there are."""

_MOST_DIRECTORY = 2**17
"""Bytes of a zip file's list of its members, which are three, and of what may follow it."""

_KEYS = (
    "format", "schema_version", "backend", "generator", "side", "config", "statistics", "scale", "history",
    "provenance", "members", "sha256",
)  # fmt: skip
_SINCE_SCHEMA_2 = ("forward_model", "slice_spacing_m")


def sha256(content: bytes) -> str:
    """As 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def _bytes_of(manifest: Mapping[str, Any]) -> bytes:
    """A manifest as its member holds it, and as its own SHA-256 is of without that entry."""
    # a provenance entry that JSON does not know becomes text: a trained model must not be lost over it
    return json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False, default=str).encode("utf-8")


class _Sparing(io.FileIO):
    """A file that gives no more than so many bytes at once: a zip file's list of members is read in one piece.

    Attributes:
        most: bytes.
    """

    most: float = _MOST_DIRECTORY

    def read(self, size: int | None = -1, /) -> Any:
        """As any file.

        Raises:
            ArchiveError: there is more.
        """
        wanted = os.fstat(self.fileno()).st_size - self.tell() if size is None or size < 0 else size
        if wanted > self.most:
            raise ArchiveError(f"its list of members, or what follows it, has {wanted} bytes; allowed: {self.most}.")
        return super().read(max(wanted, 0))


def _check_places(archive: zipfile.ZipFile, where: str) -> None:
    """Refuse members that lie in each other, and a file that is something else besides.

    Raises:
        ArchiveError: it is.
    """
    end = 0
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        first = end == 0
        if info.header_offset < end or (first and info.header_offset):
            raise ArchiveError(
                f"{where}: member {info.filename!r} begins at byte {info.header_offset} where byte {end} ends what "
                "comes before; a bundle begins with its first member, and no member lies in another."
            )
        end = info.header_offset + 30 + len(info.orig_filename) + info.compress_size
    if end > archive.start_dir or archive.comment:
        raise ArchiveError(f"{where}: its list of members does not follow its members, or a comment follows it.")


def _check_names(names: list[str], where: str) -> None:
    for name in names:
        parts = name.replace("\\", "/").split("/")
        if name.startswith(("/", "\\")) or ".." in parts or ":" in name:
            raise ArchiveError(
                f"{where}: member {shown(name)} points outside the bundle; this is not a file to trust, delete it."
            )
    times = Counter(names)
    double = sorted(name for name in names if times[name] > 1)
    if double:
        raise ArchiveError(f"{where}: member {shown(double[0])} is there {times[double[0]]} times; allowed: once.")


def _read_member(archive: zipfile.ZipFile, name: str, where: str) -> bytes:
    """Read one member, of a bounded size: compressed members, where a small file can hide a huge one, are refused."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1:
        raise ArchiveError(f"{where}: member {name!r} is compressed or encrypted; members must be stored plain.")
    if info.file_size != info.compress_size or info.file_size > _LIMITS[name]:
        raise ArchiveError(
            f"{where}: member {name!r} claims {info.file_size} bytes in {info.compress_size}; "
            f"allowed: equal, and at most {_LIMITS[name]}."
        )
    return archive.read(info)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a key is there twice")
    return out


def _no_constants(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def _check_extent(manifest: Any, where: str) -> None:
    """Refuse more than any model has to say; level by level, since it may be as deep as JSON is read.

    Raises:
        ArchiveError: it is.
    """
    level, values, depth = [manifest], 0, 0
    while level:
        values, depth = values + len(level), depth + 1
        if values > _MOST_VALUES or depth > _DEEPEST:
            raise ArchiveError(
                f"{where}: {MANIFEST} has more than {_MOST_VALUES} values or {_DEEPEST} levels; no model says so much."
            )
        level = [
            inner
            for value in level
            if isinstance(value, (dict, list))
            for inner in (value.values() if isinstance(value, dict) else value)
        ]


def _read_manifest(content: bytes, where: str) -> dict[str, Any]:
    if content.count(b",") > _MOST_VALUES:  # before they are made
        raise ArchiveError(f"{where}: {MANIFEST} has more than {_MOST_VALUES} values; no model says so much.")
    try:
        manifest = json.loads(content.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constants)
    except (ValueError, RecursionError) as error:
        said = one_line(str(error), 200)
        raise ArchiveError(f"{where}: {MANIFEST} is not valid JSON ({said}); the bundle is damaged.") from error
    _check_extent(manifest, where)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ArchiveError(f"{where}: {MANIFEST} does not say format = {FORMAT!r}; this is not a model bundle.")
    version = manifest.get("schema_version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ArchiveError(f"{where}: schema_version = {shown(version)}; it must be a whole number from 1.")
    if version > SCHEMA_VERSION:
        raise ArchiveError(
            f"{where}: schema {version} is newer than {SCHEMA_VERSION}, the newest that this ptycho-core reads; "
            "upgrade ptycho-core."
        )
    check_keys(manifest, _KEYS if version == 1 else _KEYS + _SINCE_SCHEMA_2, MANIFEST, where)
    stated = manifest.pop("sha256")
    if stated != sha256(_bytes_of(manifest)):
        raise ArchiveError(f"{where}: {MANIFEST} does not match its SHA-256; the bundle was changed or is damaged.")
    return manifest


def check_keys(given: Any, wanted: tuple[str, ...], what: str, where: str) -> None:
    """Refuse what is no JSON object with these keys and no others.

    Raises:
        ArchiveError: it is not.
    """
    if not isinstance(given, dict) or set(given) != set(wanted):
        keys = set(given) if isinstance(given, dict) else set()
        raise ArchiveError(
            f"{where}: {what} lacks {shown(sorted(set(wanted) - keys))} and has "
            f"{shown(sorted(keys - set(wanted)))} beyond what "
            "the schema allows."
        )


def sealed(manifest: Mapping[str, Any], where: str) -> bytes:
    """A manifest with its own SHA-256, as its member holds it.

    Raises:
        ArchiveError: it says more than is read back.
    """
    _check_extent(manifest, where)
    whole = _bytes_of({**manifest, "sha256": sha256(_bytes_of(manifest))})
    if len(whole) > _LIMITS[MANIFEST]:
        raise ArchiveError(f"{where}: {MANIFEST} has {len(whole)} bytes; allowed: {_LIMITS[MANIFEST]}.")
    return whole


def read_members(path: Path, where: str) -> tuple[dict[str, Any], bytes, bytes]:
    """Manifest, weights and probe of a bundle, after names, places, sizes and hashes were checked.

    Raises:
        ArchiveError: it is no bundle, or a damaged one.
    """
    check_regular(path, ArchiveError, what="a model bundle")
    try:
        with _Sparing(path) as file, zipfile.ZipFile(file) as archive:
            file.most = math.inf
            names = [info.orig_filename for info in archive.infolist()]
            _check_names(names, where)
            _check_places(archive, where)
            if MANIFEST not in names:
                raise ArchiveError(
                    f"{where}: no {MANIFEST} among its {len(names)} members, so no model; give a model.ptycho."
                )
            manifest = _read_manifest(_read_member(archive, MANIFEST, where), where)
            if set(names) != set(_LIMITS):
                raise ArchiveError(f"{where}: members {shown(sorted(names))}; allowed: exactly {sorted(_LIMITS)}.")
            check_keys(manifest["members"], (WEIGHTS, PROBE), "members", where)
            contents = [_read_member(archive, name, where) for name in (WEIGHTS, PROBE)]
    except FileNotFoundError as error:
        raise ArchiveError(f"{where}: no such file.") from error
    except ArchiveError as error:
        raise error if str(error).startswith(where) else ArchiveError(f"{where}: {error}") from error
    except OSError as error:
        raise ArchiveError(f"{where}: cannot be read ({error.strerror or error}).") from error
    except Exception as error:  # zipfile lets many kinds out when its list of members or their headers are damaged
        said = one_line(str(error) or type(error).__name__, 200)
        raise ArchiveError(
            f"{where}: not a complete zip file ({said}), so truncated or no model; give a model.ptycho."
        ) from error
    for name, content in zip((WEIGHTS, PROBE), contents, strict=True):
        stated = manifest["members"][name]
        if stated != {"bytes": len(content), "sha256": sha256(content)}:
            raise ArchiveError(f"{where}: {name} does not match its SHA-256; the bundle was changed or is damaged.")
    return manifest, contents[0], contents[1]
