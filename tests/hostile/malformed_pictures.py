"""Malformed MAT files of version 5 and TIFF."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from good_scans import BESIDE, INSTRUMENT, Content, M, N, counts, positions_m, write_mat5, write_tiff
from malformed import Malformed, beside_positions, made_at, saved_to

__all__ = ["PICTURES"]

nan = np.nan
FRAMES, WHOLE = counts(), counts().astype(np.uint16)
GIVEN = (*BESIDE, *INSTRUMENT)
"""What has to be said of frames that state nothing."""

_MAT: dict[str, Content] = {
    "frames missing": {"dp": None},
    "frames 2-d": {"dp": FRAMES[0]},
    "frames text": {"dp": "frames"},
    "frames a cell": {"dp": np.array([FRAMES[0], "text"], object)},
    "frames a structure": {"dp": {"a": 1.0}},
    "frames complex": {"dp": FRAMES.transpose(1, 2, 0) + 1j},
    "frames empty": {"dp": np.zeros((0, N, M))},
    "frames NaN": {"dp": FRAMES.transpose(1, 2, 0) * nan},
    "ppX missing": {"ppX": None},
    "ppX one fewer": {"ppX": positions_m()[1:, 1]},
    "ppX text": {"ppX": "here"},
    "ppX NaN": {"ppX": np.full(M, nan)},
    "lambda 0": {"lambda": 0.0},
    "lambda text": {"lambda": "blue"},
    "lambda empty": {"lambda": np.zeros(0), "energy": np.zeros(0), "dx": np.zeros(0), "ds": np.zeros(0)},
    "z inf": {"z": np.inf},
    "probe of another side": {"probe": np.ones((N + 2, N + 2), complex)},
}


def _mat_element(kind: int, size: int, content: bytes = b"") -> bytes:
    return struct.pack("<II", kind, size) + content


def _mat_bytes(body: bytes, *, version: int = 0x0100, mark: bytes = b"IM") -> bytes:
    return b"MATLAB 5.0 MAT-file, made by hand".ljust(124) + struct.pack("<H", version) + mark + body


def _mat_array(flags: int, dimensions: bytes, name: bytes = b"dp", data: bytes = b"", data_kind: int = 9) -> bytes:
    """An array element whose parts are what is said, each padded to 8 bytes."""
    parts = [
        _mat_element(6, 8, struct.pack("<II", flags, 0)),
        _mat_element(5, len(dimensions), dimensions),
        _mat_element(1, len(name), name),
        _mat_element(data_kind, len(data), data),
    ]
    body = b"".join(part.ljust(-(-len(part) // 8) * 8, b"\0") for part in parts)
    return _mat_element(14, len(body), body)


def _nested_cells(depth: int) -> bytes:
    inner = _mat_array(6, struct.pack("<ii", 1, 1), b"", struct.pack("<d", 1.0))
    for _ in range(depth):
        body = b"".join(
            part.ljust(-(-len(part) // 8) * 8, b"\0")
            for part in (
                _mat_element(6, 8, struct.pack("<II", 1, 0)),
                _mat_element(5, 8, struct.pack("<ii", 1, 1)),
                _mat_element(1, 0),
                inner,
            )
        )
        inner = _mat_element(14, len(body), body)
    return inner


def _mat5() -> list[Malformed]:
    sound = saved_to(lambda stream: write_mat5(stream))  # type: ignore[arg-type, return-value]
    double = struct.pack("<d", 1.0) * 4
    made: dict[str, bytes | Callable[[], bytes]] = {
        "the first text only": b"MATLAB 5.0 MAT-file",
        "a header of no variables": _mat_bytes(b""),
        "of version 9": _mat_bytes(sound[128:], version=0x0900),
        "of neither byte order": _mat_bytes(sound[128:], mark=b"XX"),
        "of the other byte order": _mat_bytes(sound[128:], mark=b"MI"),
        "cut in its first variable": sound[:140],
        "cut in the frames": sound[:3000],
        "cut before its last byte": sound[:-9],
        "noise": _mat_bytes(bytes(range(256)) * 20),
        "zeros": _mat_bytes(b"\0" * 4096),
        "255": _mat_bytes(b"\xff" * 4096),
        "an element of 4 GB": _mat_bytes(_mat_element(14, 2**32 - 1, double)),
        "an element of no kind": _mat_bytes(_mat_element(99, 32, double)),
        "an array of negative sides": _mat_bytes(_mat_array(6, struct.pack("<iii", -1, -1, 4), data=double)),
        "an array of 2^62 values": _mat_bytes(_mat_array(6, struct.pack("<iii", 2**31 - 1, 2**31 - 1, 1), data=double)),
        "an array of 2^93 values": _mat_bytes(_mat_array(6, struct.pack("<iii", *[2**31 - 1] * 3), data=double)),
        "an array of 60 axes": _mat_bytes(_mat_array(6, struct.pack("<60i", *[1] * 60), data=double[:8])),
        "an array of no axes": _mat_bytes(_mat_array(6, b"", data=double)),
        "an array of fewer values": _mat_bytes(_mat_array(6, struct.pack("<iii", 16, 16, 20), data=double)),
        "an array of class 0": _mat_bytes(_mat_array(0, struct.pack("<iii", 2, 2, 1), data=double)),
        "an array of class 200": _mat_bytes(_mat_array(200, struct.pack("<iii", 2, 2, 1), data=double)),
        "a sparse array": _mat_bytes(_mat_array(5, struct.pack("<iii", 2, 2, 1), data=double)),
        "an array of kind 255": _mat_bytes(_mat_array(6, struct.pack("<iii", 2, 2, 1), data=double, data_kind=255)),
        "a function": _mat_bytes(_mat_array(16, struct.pack("<ii", 1, 1), data=double)),
        "an object": _mat_bytes(_mat_array(17, struct.pack("<ii", 1, 1), data=double)),
        "a name that is no text": _mat_bytes(_mat_array(6, struct.pack("<ii", 2, 2), b"\xff\xfe\x1b[2J", double)),
        "a name of 60 000 letters": _mat_bytes(_mat_array(6, struct.pack("<ii", 2, 2), b"a" * 60_000, double)),
        "cells nested 5000 deep": lambda: _mat_bytes(_nested_cells(5000)),
        "compressed noise": _mat_bytes(_mat_element(15, 64, b"\xff" * 64)),
        "compressed, 4 GB": lambda: _mat_bytes(_packed_mat()),
    }
    found = [
        Malformed(f"mat 5 bytes: {name}", beside_positions(content, "scan.mat"), needs=("scipy",))
        for name, content in made.items()
    ]
    found += [
        Malformed(f"mat 5: {name}", lambda folder, c=changes: write_mat5(folder / "scan.mat", c))
        for name, changes in _MAT.items()
    ]
    return found


def _packed_mat() -> bytes:
    """A compressed variable of 4 GB of zeros."""
    squeeze = zlib.compressobj(9)
    size = 2**31
    flags = _mat_element(6, 8, struct.pack("<II", 6, 0)) + _mat_element(
        5, 12, struct.pack("<iii", 16, 16, size // 2048)
    )
    start = flags + b"\0" * 4 + _mat_element(1, 2, b"dp" + b"\0" * 6) + _mat_element(9, size)
    packed = squeeze.compress(_mat_element(14, len(start) + size) + start)
    block = b"\0" * 2**24
    packed += squeeze.flush(zlib.Z_FULL_FLUSH)
    one = squeeze.compress(block) + squeeze.flush(zlib.Z_FULL_FLUSH)
    packed += one * (size // len(block))
    return bytes(_mat_element(15, len(packed), packed))


def _ifd(entries: list[tuple[int, int, int, int]], after: int = 0, data: bytes = b"") -> bytes:
    """A little-endian TIFF of one directory: (tag, type, count, value or place), and what stands behind it."""
    body = struct.pack("<H", len(entries))
    body += b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<I", 8) + body + struct.pack("<I", after) + data


def _page(width: int, height: int, **changes: int) -> list[tuple[int, int, int, int]]:
    """The tags of a page of 16-bit values, one strip."""
    values = {"bits": 16, "packing": 1, "photo": 1, "at": 200, "samples": 1, "rows": height, "size": 2 * width * height}
    values |= changes
    return [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, values["bits"]),
        (259, 3, 1, values["packing"]),
        (262, 3, 1, values["photo"]),
        (273, 4, 1, values["at"]),
        (277, 3, 1, values["samples"]),
        (278, 4, 1, values["rows"]),
        (279, 4, 1, values["size"]),
    ]


def _tiff() -> list[Malformed]:
    sound = saved_to(lambda stream: write_tiff(stream))  # type: ignore[arg-type]
    values = b"\1\0" * (N * N)
    made: dict[str, bytes] = {
        "the first bytes only": b"II*\0",
        "a directory nowhere": b"II*\0" + b"\xff\xff\xff\x7f",
        "a directory in itself": b"II*\0" + struct.pack("<I", 4) + b"\0" * 40,
        "a directory of no entries": _ifd([]),
        "a directory of 65535 entries": b"II*\0" + struct.pack("<I", 8) + b"\xff\xff" + b"\0" * 100,
        "a ring of directories": _ifd(_page(N, N), after=8, data=b"\0" * 100 + values),
        "cut in the frames": sound[:3000],
        "cut in its directory": sound[: struct.unpack("<I", sound[4:8])[0] + 20],
        "one page": _ifd(_page(N, N), data=b"\0" * 80 + values),
        "a page of no pixels": _ifd(_page(0, 0), data=b"\0" * 100),
        "a page of 2^31 by 2^31": _ifd(_page(2**31 - 1, 2**31 - 1, size=512), data=b"\0" * 80 + values),
        "a page of 10^5 by 10^5": _ifd(_page(10**5, 10**5, size=512), data=b"\0" * 80 + values),
        "a page of 7 bits": _ifd(_page(N, N, bits=7), data=b"\0" * 80 + values),
        "a page of 999 bits": _ifd(_page(N, N, bits=999), data=b"\0" * 80 + values),
        "a page of no bits": _ifd(_page(N, N, bits=0), data=b"\0" * 80 + values),
        "a page of unknown packing": _ifd(_page(N, N, packing=31_999), data=b"\0" * 80 + values),
        "a page of LZW that is none": _ifd(_page(N, N, packing=5), data=b"\0" * 80 + b"\xff" * 512),
        "a page of deflate that is none": _ifd(_page(N, N, packing=8), data=b"\0" * 80 + b"\xff" * 512),
        "a page of 65535 samples": _ifd(_page(N, N, samples=65_535), data=b"\0" * 80 + values),
        "a strip nowhere": _ifd(_page(N, N, at=2**31 - 1), data=b"\0" * 80 + values),
        "a strip of 4 GB": _ifd(_page(N, N, size=2**32 - 1), data=b"\0" * 80 + values),
        "strips of no rows": _ifd(_page(N, N, rows=0), data=b"\0" * 80 + values),
        "a big TIFF of nothing": b"II+\0\x08\0\0\0" + b"\xff" * 8,
        "a big TIFF of offsets of 7": b"II+\0\x07\0\0\0" + struct.pack("<Q", 16) + b"\0" * 100,
        "big-endian and cut": b"MM\0*\0\0\0\x08\0\x09",
        "noise": b"II*\0\x08\0\0\0" + bytes(range(256)) * 8,
    }
    described = {
        "frames of colours": {"frames": np.zeros((M, N, N, 3), np.uint8), "how": {"photometric": "rgb"}},
    }
    found = [
        Malformed(f"tiff: {name}", beside_positions(content, "scan.tif"), GIVEN, needs=("tifffile",))
        for name, content in made.items()
    ]
    for name, frames in {
        "frames complex": FRAMES + 1j,
        "frames one fewer": WHOLE[1:],
        "frames of floats that are NaN": FRAMES * nan,
        "frames of side 4": WHOLE[:, :4, :4],
    }.items():
        found.append(
            Malformed(f"tiff: {name}", made_at(lambda p, f=frames: write_tiff(p, f), "scan.tif"), GIVEN, ("tifffile",))
        )
    for name, said in described.items():
        found.append(
            Malformed(
                f"tiff: {name}", made_at(lambda p, s=said: _colours(p, s["frames"]), "scan.tif"), GIVEN, ("tifffile",)
            )
        )
    for name, text in {
        "a description of 10^9 images": "ImageJ=1.11a\nimages=1000000000\nslices=1000000000\n",
        "a description of negative images": "ImageJ=1.11a\nimages=-5\n",
        "a description in OME that is none": "<?xml version='1.0'?><OME><Image><Pixels SizeX='9999999'/></Image></OME>",
        "a description in XML of many entities": '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">'
        + "".join(f'<!ENTITY a{n} "{f"&a{n - 1 if n else str()};" * 10}">' for n in range(9))
        + "]><OME>&a8;</OME>",
        "a description in JSON of a shape": json.dumps({"shape": [10**9, N, N]}),
    }.items():
        how: dict[str, Any] = {"description": text, "metadata": None}
        stack = made_at(lambda p, h=how: write_tiff(p, WHOLE[1:], **h), "scan.tif")
        found.append(Malformed(f"tiff: {name}", stack, GIVEN, ("tifffile",)))
    return found


def _colours(path: Path, frames: np.ndarray) -> None:
    import tifffile

    tifffile.imwrite(path, frames, photometric="rgb")


PICTURES: list[Malformed] = [*_mat5(), *_tiff()]
