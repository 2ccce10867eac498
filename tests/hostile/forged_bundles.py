"""Model bundles as strangers make them: whole but for one thing, with hashes that agree with what they say."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["MEMBERS", "forge", "pack", "tensors", "unpack"]

MEMBERS = ("manifest.json", "weights.safetensors", "probe.safetensors")


def unpack(path: Path) -> dict[str, bytes]:
    """Members of a bundle by name."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(path: Path, members: Mapping[str, bytes] | list[tuple[str, bytes]]) -> None:
    """Write members as they are, in their order."""
    pairs = list(members.items()) if isinstance(members, Mapping) else members
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in pairs:
            archive.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), content)
    path.write_bytes(buffer.getvalue())


def forge(
    path: Path,
    change: Callable[[dict[str, Any]], Any] = lambda manifest: None,
    *,
    raw: Callable[[str], str] = lambda text: text,
    **members: bytes,
) -> None:
    """Rewrite a bundle with a changed manifest or members, and with the hashes that they then have.

    Args:
        path: the bundle.
        change: changes the manifest.
        raw: changes its text, after its own hash was put in.
        members: ``weights`` and ``probe``: what their members hold instead.
    """
    found = unpack(path)
    for name, content in members.items():
        found[f"{name}.safetensors"] = content
    manifest = json.loads(found["manifest.json"])
    manifest["members"] = {
        name: {"bytes": len(found[name]), "sha256": hashlib.sha256(found[name]).hexdigest()} for name in MEMBERS[1:]
    }
    change(manifest)
    manifest.pop("sha256", None)
    text = json.dumps(manifest, indent=1, sort_keys=True)
    manifest["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    found["manifest.json"] = raw(json.dumps(manifest, indent=1, sort_keys=True)).encode("utf-8", "surrogatepass")
    pack(path, found)


def tensors(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A safetensors file with any header, and any length of it that is stated."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data
