"""Malformed NPZ files whose headers lie, and archives that are none."""

from __future__ import annotations

import io
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
from good_scans import N, npz_content
from malformed import Malformed, of_bytes

__all__ = ["ZIP", "head", "npy", "npy_with"]


def npy(values: np.ndarray) -> bytes:
    """The bytes of an .npy."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asanyarray(values), allow_pickle=False)
    return stream.getvalue()


def npy_with(header: str | bytes, data: bytes = b"", *, version: int = 1, length: int | None = None) -> bytes:
    """An .npy whose header is this text, whatever it says."""
    text = header if isinstance(header, bytes) else header.encode("latin1")
    size = struct.pack("<H" if version == 1 else "<I", len(text) if length is None else length)
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + data


def head(shape: str, descr: str = "'<f4'", order: str = "False") -> str:
    """A header as NumPy writes it."""
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


_HEADERS: dict[str, bytes] = {
    "of a shape that wraps to the size": npy_with(head(f"({2**62}, 4, 16, 16)")),
    "of a shape that wraps to 0": npy_with(head(f"({2**32}, {2**32}, 16)")),
    "of a shape that wraps to its bytes": npy_with(head(f"({2**61 + 1}, 8, 8)"), b"\0" * 256),
    "of a shape that is negative": npy_with(head("(-20, 16, 16)"), b"\0" * 20480),
    "of two negative lengths": npy_with(head("(-20, -16, 16)"), b"\0" * 20480),
    "of a length of 10^30": npy_with(head(f"({10**30}, 16, 16)")),
    "of 10^6 axes": npy_with(head("(" + "1," * 10**6 + ")"), version=2),
    "of 65 axes": npy_with(head("(" + "1," * 65 + ")"), b"\0" * 4),
    "of a shape of floats": npy_with(head("(20.0, 16.0, 16.0)"), b"\0" * 20480),
    "of a shape of texts": npy_with(head("('20', '16', '16')"), b"\0" * 20480),
    "of a shape of NaN": npy_with(head("(1e999, 16, 16)"), b"\0" * 20480),
    "of a shape that is a list": npy_with(head("[20, 16, 16]"), b"\0" * 100),
    "of a shape that is a number": npy_with(head("20"), b"\0" * 80),
    "of a shape that is a text": npy_with(head("'20'"), b"\0" * 80),
    "of a shape of bools": npy_with(head("(True, True, True)"), b"\0" * 4),
    "of more values than there are": npy_with(head("(20, 16, 16)"), b"\0" * 100),
    "of fewer values than there are": npy_with(head("(2, 16, 16)"), b"\0" * 20480),
    "of objects": npy_with(head("(20,)", "'|O'"), pickle.dumps(np.empty(20, object))),
    "of objects in a structure": npy_with(head("(2,)", "[('a', '|O'), ('b', '<f4')]"), b"\0" * 24),
    "of an unknown type": npy_with(head("(20, 16, 16)", "'<q9'"), b"\0" * 20480),
    "of a type that is a number": npy_with(head("(20, 16, 16)", "4"), b"\0" * 20480),
    "of a type that is None": npy_with(head("(20, 16, 16)", "None"), b"\0" * 40960),
    "of a type of 2 GB": npy_with(head("(20, 16, 16)", f"'|V{2**31 - 1}'")),
    "of a type of 10^20 bytes": npy_with(head("(20, 16, 16)", "'|S100000000000000000000'")),
    "of a type of no bytes": npy_with(head("(20, 16, 16)", "'|V0'")),
    "of texts of no letters": npy_with(head(f"({10**12},)", "'<U0'")),
    "of a type with overlapping fields": npy_with(
        head("(4,)", "{'names': ['a', 'b'], 'formats': ['<f4', '|O'], 'offsets': [0, 0]}"), b"\0" * 64
    ),
    "of a type of 10 000 fields": npy_with(
        head("(1,)", "[" + ",".join(f"('f{n}','<f4')" for n in range(10_000)) + "]"), b"\0" * 40_000, version=2
    ),
    "of a type nested 500 deep": npy_with(head("(1,)", "[('a'," * 500 + "'<f4'" + ")]" * 500), b"\0" * 4, version=2),
    "of an array type of 10^9": npy_with(head("(1,)", "[('a', '<f4', (1000000000,))]"), b"\0" * 4),
    "of two fields of one name": npy_with(head("(1,)", "[('a', '<f4'), ('a', '<f4')]"), b"\0" * 8),
    "without a shape": npy_with("{'descr': '<f4', 'fortran_order': False}\n", b"\0" * 4),
    "with a key too many": npy_with("{'descr': '<f4', 'fortran_order': False, 'shape': (), 'x': 1}\n", b"\0" * 4),
    "that is no dictionary": npy_with("[1, 2, 3]\n"),
    "that is an expression": npy_with("__import__('os').system('touch owned')\n"),
    "of nested brackets": npy_with("(" * 60_000),
    "of nested minus signs": npy_with("-" * 60_000 + "1"),
    "of an integer of 60 000 digits": npy_with("9" * 60_000),
    "that is a power": npy_with("9**9**9**9\n"),
    "of bytes that are no text": npy_with(b"\xff\xfe\x00\x01" * 10, version=3),
    "with null characters": npy_with("{'descr': '<f4', \0'fortran_order': False, 'shape': ()}"),
    "with escapes": npy_with("\x1b[2J\x1b]0;owned\x07\n"),
    "that says it is 4 GB": npy_with(head("()"), b"\0" * 4, version=2, length=2**32 - 1),
    "that is longer than the file": npy_with(head("()"), length=60_000),
    "of no length": npy_with("", b"\0" * 4),
    "of version 0": npy_with(head("()"), b"\0" * 4, version=0),
    "of version 9": npy_with(head("()"), b"\0" * 4, version=9),
    "of a wrong magic": b"\x92NUMPY\x01\0" + npy(np.zeros(3))[8:],
    "that ends in the magic": b"\x93NUM",
    "that ends in its length": b"\x93NUMPY\x01\0\x10",
    "that is empty": b"",
    "of a Fortran order that is text": npy_with(head("(20, 16, 16)", order="'yes'"), b"\0" * 20480),
}


def zipped(members: dict[str, bytes], *, how: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of these members."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=how)
    return stream.getvalue()


def members(**changes: bytes) -> dict[str, bytes]:
    """The members of a sound NPZ, some replaced."""
    return {f"{name}.npy": npy(value) for name, value in npz_content().items()} | {
        f"{name}.npy": value for name, value in changes.items()
    }


def _headers() -> list[Malformed]:
    found = []
    for name, member in _HEADERS.items():
        found.append(Malformed(f"npz: header {name}", of_bytes(lambda m=member: zipped(members(diff3d=m)), "scan.npz")))
    for name in ("of a shape that wraps to the size", "of objects", "of nested brackets", "that says it is 4 GB"):
        member = _HEADERS[name]
        found.append(
            Malformed(
                f"npz: compressed, header {name}",
                of_bytes(lambda m=member: zipped(members(diff3d=m), how=zipfile.ZIP_DEFLATED), "scan.npz"),
            )
        )
    return found


# --- archives ----------------------------------------------------------------------------------------------------

SOUND = zipped(members())
_END = SOUND.rfind(b"PK\x05\x06")
_INDEX = struct.unpack("<I", SOUND[_END + 16 : _END + 20])[0]


def _set(at: int, content: bytes, whole: bytes = SOUND) -> bytes:
    return whole[:at] + content + whole[at + len(content) :]


def _in_index(offset: int, content: bytes, whole: bytes = SOUND) -> bytes:
    """Change the index entry of the first member, the frames."""
    return _set(_INDEX + offset, content, whole)


def _bomb(name: str = "diff3d", megabytes: int = 3000) -> bytes:
    """An archive of some megabytes that unpacks to gigabytes: one deflated block, again and again.

    Its checksum is wrong, which only who unpacks it all will know.
    """
    block = b"\0" * 2**24
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    repeats = megabytes * 10**6 // len(block)
    frames = repeats * len(block) // (4 * N * N)
    header = npy_with(head(f"({frames}, {N}, {N})").rstrip().ljust(117) + "\n")
    start = squeeze.compress(header) + squeeze.flush(zlib.Z_FULL_FLUSH)
    one = squeeze.compress(block) + squeeze.flush(zlib.Z_FULL_FLUSH)
    end = squeeze.flush()
    return _raw_zip(f"{name}.npy", start + one * repeats + end, 0, len(header) + repeats * len(block), 8)


def _raw_zip(name: str, content: bytes, crc: int, size: int, method: int = 0) -> bytes:
    """An archive of one member whose size and checksum are what is said."""
    text = name.encode()
    common = struct.pack("<HHHHHIII", 20, 0, method, 0, 33, crc, len(content), min(size, 2**32 - 2))
    local = b"PK\x03\x04" + common + struct.pack("<HH", len(text), 0) + text + content
    central = b"PK\x01\x02\x14\0" + common + struct.pack("<HHHHHII", len(text), 0, 0, 0, 0, 0, 0) + text
    return local + central + struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 1, 1, len(central), len(local), 0)


def _many(count: int) -> bytes:
    return zipped({f"a{n}.npy": b"\x93NUMPY" for n in range(count)})


def _twice() -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w") as archive:
        warnings.simplefilter("ignore")
        for name, content in members().items():
            archive.writestr(name, content)
        archive.writestr("diff3d.npy", npy(np.zeros((3, N, N), np.float32)))
    return stream.getvalue()


def _overlapping() -> bytes:
    """Every index entry points at the frames."""
    whole, at = bytearray(SOUND), _INDEX
    while whole[at : at + 4] == b"PK\x01\x02":
        whole[at + 42 : at + 46] = b"\0" * 4
        name, extra, comment = struct.unpack("<HHH", whole[at + 28 : at + 34])
        at += 46 + name + extra + comment
    return bytes(whole)


def _archives() -> list[Malformed]:
    deflated = zipped(members(), how=zipfile.ZIP_DEFLATED)
    made: dict[str, bytes | Callable[[], bytes]] = {
        "truncated in the first header": SOUND[:17],
        "truncated in the frames": SOUND[:5000],
        "truncated before the index": SOUND[:_INDEX],
        "truncated in the index": SOUND[: _INDEX + 30],
        "truncated before the end": SOUND[:_END],
        "truncated in the end": SOUND[: _END + 10],
        "without its first kilobyte": SOUND[1024:],
        "without one byte of the frames": SOUND[:3000] + SOUND[3001:],
        "of zeros behind the first bytes": b"PK\x03\x04" + b"\0" * 5000,
        "of an end only": b"PK\x05\x06" + b"\0" * 18,
        "of an index beyond the file": _set(_END + 16, b"\xff\xff\xff\x7f"),
        "of an index of 4 GB": _set(_END + 12, b"\xfe\xff\xff\xff"),
        "of an index at the end": _set(_END + 16, struct.pack("<I", _END)),
        "encrypted, by its flag": _set(6, b"\1", _in_index(8, b"\1")),
        "patched, by its flag": _set(6, b"\x20", _in_index(8, b"\x20")),
        "strongly encrypted": _set(6, b"\x41", _in_index(8, b"\x41")),
        "of unknown compression": _set(8, b"\x63\0", _in_index(10, b"\x63\0")),
        "of compression that differs in header and index": _in_index(10, b"\x08\0"),
        "of bzip2 that is none": _set(8, b"\x0c\0", _in_index(10, b"\x0c\0")),
        "of LZMA that is none": _set(8, b"\x0e\0", _in_index(10, b"\x0e\0")),
        "of zstd that is none": _set(8, b"\x5d\0", _in_index(10, b"\x5d\0")),
        "of a wrong checksum, compressed": zipped(members(), how=zipfile.ZIP_DEFLATED).replace(
            struct.pack("<I", zlib.crc32(members()["diff3d.npy"])), b"\1\2\3\4"
        ),
        "of members of 4 GB by the index": _in_index(24, b"\xfe\xff\xff\xff", _in_index(20, b"\xfe\xff\xff\xff")),
        "of members of zip64 without its extra": _in_index(24, b"\xff\xff\xff\xff"),
        "of a member beyond the file": _in_index(42, b"\xff\xff\xff\x7f"),
        "of a member at the end": _in_index(42, struct.pack("<I", _END)),
        "of a member off by one": _in_index(42, b"\1\0\0\0"),
        "of a name of 65 535 letters": _in_index(28, b"\xff\xff"),
        "of other names in header and index": SOUND.replace(b"diff3d.npy", b"dift3d.npy", 1),
        "of overlapping members": _overlapping,
        "of names twice": _twice,
        "of names with ..": zipped({f"../{name}": content for name, content in members().items()}),
        "of names with escapes": zipped({f"\x1b[2J\u202e{name}": content for name, content in members().items()}),
        "of names with a line break": zipped({f"a\nb\r{name}": content for name, content in members().items()}),
        "of names that are no UTF-8": _set(6, b"\0\x08", _in_index(8, b"\0\x08")).replace(
            b"diff3d", b"\xff\xfe\xfdf3d"
        ),
        "of 30 000 members": lambda: _many(30_000),
        "of 200 000 members": lambda: _many(200_000),
        "of one folder": zipped({"diff3d.npy/": b""}),
        "of no arrays": zipped({"readme.txt": b"hello"}),
        "in an archive": zipped({"scan.npz": SOUND}),
        "of a manifest that is none": zipped({"manifest.json": b"{}"} | members()),
        "of deflate with a flipped byte": _set(700, bytes([deflated[700] ^ 0xFF]), deflated),
        "of deflate that is cut": deflated[:4000] + deflated[6000:],
        "that unpacks to 3 GB of frames": lambda: _bomb(),
        "that unpacks to 3 GB of what nobody needs": lambda: _bomb("comment"),
        "that unpacks to more than its size": lambda: _raw_zip(
            "diff3d.npy", zlib.compress(b"\0" * 10**8, 9)[2:-4], 0, 1000, 8
        ),
        "of a member of 10^9 that is not there": lambda: _raw_zip(
            "diff3d.npy", npy_with(head("(1000000, 16, 16)")), 0, 10**9
        ),
    }
    zip64 = _in_index(24, b"\xff" * 4, _in_index(20, b"\xff" * 4))
    extra = struct.pack("<HHQQ", 1, 16, 2**63 - 1, 2**63 - 1)
    at = _INDEX + 46 + len("diff3d.npy")
    long = zip64[:at] + extra + zip64[at:]
    made["of zip64 lengths of 2^63"] = _set(_INDEX + 30, struct.pack("<H", len(extra)), long)
    return [Malformed(f"zip: {name}", of_bytes(content, "scan.npz")) for name, content in made.items()]


ZIP: list[Malformed] = [*_headers(), *_archives()]
