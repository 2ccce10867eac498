"""HDF5 files whose bytes lie: superblocks, trees, heaps, headers, and chunks that filters make nothing of."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  registers the filters
import numpy as np
from good_scans import M, N, counts, positions_px, probe
from h5_makers import Make, own
from malformed import Malformed, of_bytes

__all__ = ["HDF5_BYTES"]


def whole(**how: Any) -> bytes:
    """The bytes of a sound file in memory, with texts in heaps."""
    with h5py.File("in-memory.h5", "w", driver="core", backing_store=False, **how) as h5:
        for name, value in {"frames": counts().astype("u2"), "positions_px": positions_px(), "probe": probe()}.items():
            h5[name] = value
        h5["frames"].attrs["measurement"] = "counts"
        h5["provenance"] = '{"details": {"n": 1}}'
        h5["more/words"] = np.array(["one", "two", "three"], h5py.string_dtype())
        h5.create_dataset("more/packed", data=counts()[:4], chunks=(1, N, N), compression="gzip")
        h5.flush()
        return bytes(h5.id.get_file_image())


OLD, NEW = whole(), whole(libver="latest")


def hit(content: bytes, signature: bytes, offset: int, value: bytes, which: int = 0) -> bytes:
    """Change bytes behind a signature, the first one or a later one."""
    at = -1
    for _ in range(which + 1):
        at = content.find(signature, at + 1)
    assert at >= 0, f"no {signature!r}"
    return content[: at + offset] + value + content[at + offset + len(value) :]


def _undefined(width: int = 8) -> bytes:
    return b"\xff" * width


_HITS: dict[str, bytes] = {
    "superblock of version 77": OLD[:8] + b"\x4d" + OLD[9:],
    "offsets of 3 bytes": OLD[:13] + b"\3" + OLD[14:],
    "offsets of 255 bytes": OLD[:13] + b"\xff" + OLD[14:],
    "lengths of 0 bytes": OLD[:14] + b"\0" + OLD[15:],
    "nodes of no children": OLD[:16] + b"\0\0\0\0" + OLD[20:],
    "nodes of 65535 children": OLD[:16] + b"\xff\xff\xff\xff" + OLD[20:],
    "base address beyond the file": OLD[:24] + struct.pack("<Q", 2**62) + OLD[32:],
    "end of file at 0": OLD[:40] + struct.pack("<Q", 0) + OLD[48:],
    "end of file of 2^63": OLD[:40] + struct.pack("<Q", 2**63 - 1) + OLD[48:],
    "end of file before the root": OLD[:40] + struct.pack("<Q", 100) + OLD[48:],
    "root nowhere": OLD[:64] + _undefined() + OLD[72:],
    "root in the superblock": OLD[:64] + struct.pack("<Q", 0) + OLD[72:],
    "root at the end": OLD[:64] + struct.pack("<Q", len(OLD) - 8) + OLD[72:],
    "superblock of a wrong checksum": NEW[:44] + b"\1\2\3\4" + NEW[48:],
    "root nowhere, new": NEW[:36] + _undefined() + NEW[44:],
    "tree of another kind": hit(OLD, b"TREE", 4, b"\7"),
    "tree of level 200": hit(OLD, b"TREE", 5, b"\xc8"),
    "tree of 65535 entries": hit(OLD, b"TREE", 6, b"\xff\xff"),
    "tree that is its own child": hit(hit(OLD, b"TREE", 5, b"\1"), b"TREE", 32, struct.pack("<Q", OLD.find(b"TREE"))),
    "tree whose child is nowhere": hit(OLD, b"TREE", 32, _undefined()),
    "tree without its signature": OLD.replace(b"TREE", b"TRXX"),
    "local heap without its signature": OLD.replace(b"HEAP", b"HEXX"),
    "local heap of 2^62": hit(OLD, b"HEAP", 8, struct.pack("<Q", 2**62)),
    "local heap of no bytes": hit(OLD, b"HEAP", 8, struct.pack("<Q", 0)),
    "local heap free at itself": hit(OLD, b"HEAP", 16, struct.pack("<Q", 8)),
    "local heap beyond the file": hit(OLD, b"HEAP", 24, struct.pack("<Q", 2**40)),
    "symbols of 65535": hit(OLD, b"SNOD", 6, b"\xff\xff"),
    "symbols of none": hit(OLD, b"SNOD", 6, b"\0\0"),
    "symbols whose names lie beyond the heap": hit(OLD, b"SNOD", 8, struct.pack("<Q", 2**40)),
    "symbols whose objects are nowhere": hit(OLD, b"SNOD", 16, _undefined()),
    "symbols whose object is the root": hit(OLD, b"SNOD", 16, struct.pack("<Q", 96)),
    "texts without their heap": OLD.replace(b"GCOL", b"GCXX"),
    "texts' heap of version 9": hit(OLD, b"GCOL", 4, b"\x09"),
    "texts' heap of 2^62": hit(OLD, b"GCOL", 8, struct.pack("<Q", 2**62)),
    "texts' heap of no bytes": hit(OLD, b"GCOL", 8, struct.pack("<Q", 0)),
    "texts' heap of 16 bytes": hit(OLD, b"GCOL", 8, struct.pack("<Q", 16)),
    "a text of 2^62": hit(OLD, b"GCOL", 24, struct.pack("<Q", 2**62)),
    "a text of no bytes": hit(OLD, b"GCOL", 24, struct.pack("<Q", 0)),
    "a text of index 0": hit(OLD, b"GCOL", 16, b"\0\0"),
    "a text of index 65535": hit(OLD, b"GCOL", 16, b"\xff\xff"),
    "all of the texts' heap 255": hit(OLD, b"GCOL", 16, b"\xff" * 2000),
    "all of the texts' heap 0": hit(OLD, b"GCOL", 16, b"\0" * 2000),
    "header without its signature": NEW.replace(b"OHDR", b"OHXX"),
    "header of version 200": hit(NEW, b"OHDR", 4, b"\xc8"),
    "header of other flags": hit(NEW, b"OHDR", 5, b"\xff"),
    "header of a wrong checksum": hit(NEW, b"OHDR", 40, b"\xff\xff\xff"),
    "second header of other flags": hit(NEW, b"OHDR", 5, b"\x3f", which=1),
    "zeros from the middle": OLD[: len(OLD) // 2] + b"\0" * (len(OLD) - len(OLD) // 2),
    "the signature only": OLD[:8],
    "the signature and zeros": OLD[:8] + b"\0" * 4096,
    "the signature and 255": OLD[:8] + b"\xff" * 4096,
    "a user block of zeros before nothing": b"\0" * 512 + OLD[:8],
    "a user block of 100 bytes": b"\0" * 100 + OLD,
    "a byte lost in front": OLD[:90] + OLD[91:],
    "text in its middle": OLD[:800] + b"hello, world" * 100 + OLD[2000:],
}


def _damaged() -> list[Malformed]:
    found = [Malformed(f"hdf5 bytes: {name}", of_bytes(content, "scan.h5")) for name, content in _HITS.items()]
    for share in (0.005, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        for name, content in (("old", OLD), ("new", NEW)):
            kept = int(len(content) * share)
            found.append(Malformed(f"hdf5 bytes: {name}, cut to {share:.1%}", of_bytes(content[:kept], "scan.h5")))
    return found


# --- filters -----------------------------------------------------------------------------------------------------


def _filtered(frames: h5py.Dataset, stored: bytes, mask: int = 0) -> None:
    for number in range(M):
        frames.id.write_direct_chunk((number, 0, 0), stored, mask)


def _stored(stored: bytes, **how: Any) -> Make:
    """Frames whose chunks are these bytes, whatever they unpack to."""

    def make(h5: h5py.File, name: str) -> None:
        dataset = h5.create_dataset(name, (M, N, N), "f4", chunks=(1, N, N), **how)
        _filtered(dataset, stored)

    return make


def _unknown_filter(h5: h5py.File, name: str) -> None:
    create = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    create.set_chunk((1, N, N))
    create.set_filter(31_999, h5py.h5z.FLAG_OPTIONAL, (1, 2))
    space = h5py.h5s.create_simple((M, N, N))
    dataset = h5py.h5d.create(h5.id, name.encode(), h5py.h5t.IEEE_F32LE, space, create)
    _filtered(h5py.Dataset(dataset), b"\1" * 100)


def _bomb() -> bytes:
    return zlib.compress(b"\0" * 10**8, 9)


_FILTERS: dict[str, Make] = {
    "of an unknown filter": _unknown_filter,
    "of gzip that is none": _stored(b"\1\2\3" * 40, compression="gzip"),
    "of gzip of 100 MB a chunk": _stored(_bomb(), compression="gzip"),
    "of gzip of one byte": _stored(b"\x78", compression="gzip"),
    "of LZF that is none": _stored(b"\xff\x1f\x20" * 40, compression="lzf"),
    "of bitshuffle that is none": _stored(b"\xff\x1f\x20" * 40, compression=32008, compression_opts=(0, 2)),
    "of LZ4 that is none": _stored(b"\xff" * 8 + b"\0\0\1\0" * 10, compression=32004),
    "of LZ4 of 2^62": _stored(struct.pack(">QI", 2**62, 2**31 - 1) + b"\xff" * 40, compression=32004),
    "of bitshuffle of 2^62": _stored(
        struct.pack(">QI", 2**62, 2**31 - 1) + b"\xff" * 40, compression=32008, compression_opts=(0, 2)
    ),
    "of zstd that is none": _stored(b"\x28\xb5\x2f\xfd" + b"\xff" * 40, compression=32015),
    "of blosc of 2^31": _stored(
        struct.pack("<BBBBIII", 2, 1, 0, 4, 2**31 - 1, 2**31 - 1, 100) + b"\xff" * 90, compression=32001
    ),
    "of blosc2 that is none": _stored(b"\x9b\xff" * 60, compression=32026),
    "of shuffle alone on too little": _stored(b"\1" * 7, shuffle=True),
    "of a checksum that is wrong": _stored(b"\1" * (4 * N * N + 4), fletcher32=True),
    "of scale and offset that is none": _stored(b"\xff" * 50, scaleoffset=2),
}

HDF5_BYTES: list[Malformed] = [
    *_damaged(),
    *(Malformed(f"hdf5: chunks {name}", own(frames=make)) for name, make in _FILTERS.items()),
]
