"""Malformed inputs of all other kinds: MAT of version 5, TIFF, Zarr, NPY, raw, folders, tike, and what is no file."""

from __future__ import annotations

import bz2
import io
import json
import os
import shutil
import socket
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from good_scans import (
    BESIDE,
    INSTRUMENT,
    Content,
    M,
    N,
    counts,
    positions_file,
    positions_m,
    positions_px,
    tike_bytes,
    write_mat5,
    write_own,
    write_tiff,
    write_tike,
    write_zarr,
)
from malformed import Build, Malformed
from malformed_npz import head, npy_with

__all__ = ["FILES"]

nan = np.nan
FRAMES, WHOLE = counts(), counts().astype(np.uint16)
GIVEN = (*BESIDE, *INSTRUMENT)
"""What has to be said of frames that state nothing."""


def _bytes(content: bytes | Callable[[], bytes], name: str) -> Build:
    def build(folder: Path) -> Path:
        positions_file(folder)
        (folder / name).write_bytes(content() if callable(content) else content)
        return folder / name

    return build


def _made(make: Callable[[Path], Any], name: str) -> Build:
    """Something made at a path, with positions beside it."""

    def build(folder: Path) -> Path:
        positions_file(folder)
        make(folder / name)
        return folder / name

    return build


def _image(make: Callable[[io.BytesIO], Any]) -> bytes:
    stream = io.BytesIO()
    make(stream)
    return stream.getvalue()


# --- tike --------------------------------------------------------------------------------------------------------

_TIKE: dict[str, Content] = {
    "frames complex": {"data": FRAMES[None] + 1j},
    "frames text": {"data": np.array("frames")},
    "frames of two views": {"data": np.stack([FRAMES, FRAMES])},
    "frames 2-d": {"data": FRAMES[0]},
    "frames 6-d": {"data": FRAMES[None, None, None]},
    "frames of no pixels": {"data": FRAMES[None, :, :0]},
    "frames NaN": {"data": FRAMES[None] * nan},
    "positions missing, so that it is no tike": {"scan": None},
    "positions text": {"scan": np.array("here")},
    "positions 1-d": {"scan": np.zeros(2 * M)},
    "positions (M, 3)": {"scan": np.zeros((1, M, 3))},
    "positions one fewer": {"scan": np.zeros((1, M - 1, 2))},
    "positions NaN": {"scan": np.full((1, M, 2), nan)},
    "positions 1e300": {"scan": positions_px()[None] * 1e300},
    "probe text": {"probe": np.array("probe")},
    "probe NaN": {"probe": np.full((1, 1, 1, 2, N, N), nan + 0j)},
    "probe of another side": {"probe": np.ones((1, 1, 1, 2, N + 2, N + 2), complex)},
}


def _bz2_bomb(megabytes: int) -> bytes:
    """Streams of a million zeros each, one behind the other: a reader takes them for one."""
    return bz2.compress(b"\0" * 10**6) * megabytes


def _tike() -> list[Malformed]:
    packed = bz2.compress(tike_bytes())
    made: dict[str, bytes | Callable[[], bytes]] = {
        "cut in its first block": packed[:20],
        "cut in the middle": packed[: len(packed) // 2],
        "without its last byte": packed[:-1],
        "with a flipped byte": packed[:600] + bytes([packed[600] ^ 0xFF]) + packed[601:],
        "of the first bytes only": b"BZh9",
        "of the first bytes and noise": b"BZh9" + b"\x17\x72\x45\x38\x50\x90" + b"\xff" * 200,
        "of nothing": bz2.compress(b""),
        "of text": bz2.compress(b"hello, world\n" * 1000),
        "of itself": bz2.compress(packed),
        "of half an archive": bz2.compress(tike_bytes()[:4000]),
        "with noise behind it": packed + b"\xff" * 1000,
        "of 4 GB": lambda: _bz2_bomb(4000),
        "of 4 GB behind the archive": lambda: packed + _bz2_bomb(4000),
        "of a model": bz2.compress(_image(lambda s: _zip(s, {"manifest.json": b"{}"}))),
    }
    found = [Malformed(f"bz2: {name}", _bytes(content, "scan.npz.bz2")) for name, content in made.items()]
    found += [
        Malformed(f"tike: {name}", lambda folder, c=changes: write_tike(folder / "scan.npz.bz2", c))
        for name, changes in _TIKE.items()
    ]
    return [case for case in found if case.name != "bz2: with noise behind it"]


def _zip(stream: io.BytesIO, content: dict[str, bytes]) -> None:
    with zipfile.ZipFile(stream, "w") as archive:
        for name, values in content.items():
            archive.writestr(name, values)


# --- MAT of version 5 --------------------------------------------------------------------------------------------

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
    "probe a cell": {"probe": np.array([1, "a"], object)},
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
    import zlib

    sound = _image(lambda stream: write_mat5(stream))  # type: ignore[arg-type, return-value]
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
        "compressed, 4 GB": lambda: _mat_bytes(_packed_mat(zlib)),
    }
    found = [
        Malformed(f"mat 5 bytes: {name}", _bytes(content, "scan.mat"), needs=("scipy",))
        for name, content in made.items()
    ]
    found += [
        Malformed(f"mat 5: {name}", lambda folder, c=changes: write_mat5(folder / "scan.mat", c))
        for name, changes in _MAT.items()
    ]
    return found


def _packed_mat(zlib: Any) -> bytes:
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


# --- TIFF --------------------------------------------------------------------------------------------------------


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
    sound = _image(lambda stream: write_tiff(stream))  # type: ignore[arg-type]
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
        Malformed(f"tiff: {name}", _bytes(content, "scan.tif"), GIVEN, needs=("tifffile",))
        for name, content in made.items()
    ]
    for name, frames in {
        "frames complex": FRAMES + 1j,
        "frames one fewer": WHOLE[1:],
        "frames of floats that are NaN": FRAMES * nan,
        "frames not square": WHOLE[:, 3:],
        "frames of side 4": WHOLE[:, :4, :4],
    }.items():
        found.append(
            Malformed(f"tiff: {name}", _made(lambda p, f=frames: write_tiff(p, f), "scan.tif"), GIVEN, ("tifffile",))
        )
    for name, said in described.items():
        found.append(
            Malformed(
                f"tiff: {name}", _made(lambda p, s=said: _colours(p, s["frames"]), "scan.tif"), GIVEN, ("tifffile",)
            )
        )
    for name, text in {
        "a description of 10^9 images": "ImageJ=1.11a\nimages=1000000000\nslices=1000000000\n",
        "a description of negative images": "ImageJ=1.11a\nimages=-5\n",
        "a description in OME that is none": '<?xml version="1.0"?><OME><Image><Pixels SizeX="99999999"/></Image></OME>',
        "a description in XML of many entities": '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">'
        + "".join(f'<!ENTITY a{n} "{f"&a{n - 1 if n else str()};" * 10}">' for n in range(9))
        + "]><OME>&a8;</OME>",
        "a description in JSON of a shape": json.dumps({"shape": [10**9, N, N]}),
    }.items():
        how = {"description": text, "metadata": None}
        found.append(
            Malformed(
                f"tiff: {name}", _made(lambda p, h=how: write_tiff(p, WHOLE[1:], **h), "scan.tif"), GIVEN, ("tifffile",)
            )
        )
    return found


def _colours(path: Path, frames: np.ndarray) -> None:
    import tifffile

    tifffile.imwrite(path, frames, photometric="rgb")


# --- Zarr --------------------------------------------------------------------------------------------------------


def _zarr_json(changes: dict[str, Any] | str | bytes, name: str = "frames/zarr.json") -> Build:
    def build(folder: Path) -> Path:
        path = write_zarr(folder / "scan.zarr")
        file = path / name
        if isinstance(changes, dict):
            file.write_text(json.dumps(json.loads(file.read_text()) | changes))
        elif isinstance(changes, bytes):
            file.write_bytes(changes)
        else:
            file.write_text(changes)
        return path

    return build


def _chunk(content: bytes | None) -> Build:
    def build(folder: Path) -> Path:
        path = write_zarr(folder / "scan.zarr")
        chunk = next(p for p in (path / "frames" / "c").rglob("*") if p.is_file())
        chunk.unlink()
        if content is not None:
            chunk.write_bytes(content)
        return path

    return build


def _zarr() -> list[Malformed]:
    def with_(**changes: Any) -> Build:
        return lambda folder: write_zarr(folder / "scan.zarr", changes)

    def zipped(content: dict[str, bytes]) -> Build:
        def build(folder: Path) -> Path:
            (folder / "scan.zip").write_bytes(_image(lambda stream: _zip(stream, content)))
            return folder / "scan.zip"

        return build

    def grid(*chunks: int) -> dict[str, Any]:
        return {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunks)}}}

    made: dict[str, Build] = {
        "no frames": with_(frames=None, probe=None),
        "frames text": with_(frames=np.full((M, N, N), "a")),
        "frames complex": with_(frames=FRAMES + 1j),
        "frames NaN": with_(frames=FRAMES * nan),
        "frames 2-d": with_(frames=FRAMES[0]),
        "positions one fewer": with_(positions_px=positions_px()[1:]),
        "positions NaN": with_(positions_px=positions_px() * nan),
        "positions text": with_(positions_px=np.full((M, 2), "a")),
        "probe of another side": with_(probe=np.ones((2, N + 2, N + 2), np.complex64)),
        "a description that is no JSON": _zarr_json("{"),
        "a description that is empty": _zarr_json(""),
        "a description that is a list": _zarr_json("[1, 2]"),
        "a description that is no UTF-8": _zarr_json(b"\xff\xfe{}"),
        "a description nested 10^5 deep": _zarr_json("[" * 10**5),
        "the root's description that is no JSON": _zarr_json("{", "zarr.json"),
        "the root of version 9": _zarr_json({"zarr_format": 9}, "zarr.json"),
        "a shape of 10^12": _zarr_json({"shape": [10**12, N, N]}),
        "a shape of 10^30": _zarr_json({"shape": [10**30, N, N]}),
        "a shape that is negative": _zarr_json({"shape": [-1, N, N]}),
        "a shape of text": _zarr_json({"shape": ["a", N, N]}),
        "a shape that is null": _zarr_json({"shape": None}),
        "a shape of floats": _zarr_json({"shape": [20.5, N, N]}),
        "frames of 10^6 by 10^6": _zarr_json({"shape": [M, 10**6, 10**6]} | grid(1, 10**6, 10**6)),
        "chunks of 10^12": _zarr_json(grid(10**12, N, N)),
        "chunks of 0": _zarr_json(grid(0, 0, 0)),
        "chunks of two axes": _zarr_json(grid(1, 1)),
        "a type that is none": _zarr_json({"data_type": "float99"}),
        "a type that is a number": _zarr_json({"data_type": 7}),
        "a codec that is none": _zarr_json({"codecs": [{"name": "nothing"}]}),
        "codecs that are null": _zarr_json({"codecs": None}),
        "no codecs": _zarr_json({"codecs": []}),
        "a measurement as number": _zarr_json({"attributes": {"measurement": 7}}),
        "a measurement of a wrong word": _zarr_json({"attributes": {"measurement": "photons"}}),
        "a chunk that is noise": _chunk(b"\xff" * 500),
        "a chunk that is empty": _chunk(b""),
        "a chunk that is not there": _chunk(None),
        "a zip of a description that is no JSON": zipped({"zarr.json": b"{"}),
        "a zip of a description that is no UTF-8": zipped({"zarr.json": b"\xff"}),
        "a zip of version 2 that is none": zipped({".zgroup": b"{}"}),
        "a zip of an array of version 2 that is none": zipped({".zarray": b"[]"}),
        "a zip of two descriptions": zipped({".zgroup": b'{"zarr_format": 2}', "zarr.json": b"{}"}),
    }
    return [Malformed(f"zarr: {name}", build, needs=("zarr",)) for name, build in made.items()]


# --- NPY and raw -------------------------------------------------------------------------------------------------


def _arrays() -> list[Malformed]:
    def saved(values: np.ndarray) -> bytes:
        return _image(lambda stream: np.save(stream, values))

    made = {
        "of a shape that wraps": npy_with(head(f"({2**62}, 4, 16)", "'<u2'")),
        "of more values than there are": npy_with(head("(1000000, 16, 16)", "'<u2'"), b"\0" * 512),
        "of a negative shape": npy_with(head("(-20, 16, 16)", "'<u2'"), b"\0" * 10_240),
        "of objects": npy_with(head("(20,)", "'|O'"), b"\x80\x04N."),
        "of texts": saved(np.full((M, N, N), "a")),
        "of dates": saved(np.zeros((M, N, N), "M8[s]")),
        "of complex values": saved(FRAMES + 1j),
        "of a structure": saved(np.zeros((M, N, N), [("a", "u2")])),
        "of one value": saved(np.array(7)),
        "of one frame": saved(WHOLE[0]),
        "of five axes": saved(WHOLE[None, None]),
        "of no frame": saved(WHOLE[:0]),
        "of no pixels": saved(WHOLE[:, :0]),
        "of frames one fewer": saved(WHOLE[1:]),
        "of zeros": saved(WHOLE * 0),
        "of NaN": saved(FRAMES * nan),
        "cut in its header": saved(WHOLE)[:60],
        "cut in the frames": saved(WHOLE)[:3000],
        "of a header that is an expression": npy_with("exit()\n"),
        "of a header of nested brackets": npy_with("[" * 60_000),
        "of version 7": npy_with(head("(20, 16, 16)", "'<u2'"), b"\0" * 10_240, version=7),
        "the magic only": b"\x93NUMPY",
    }
    options = (*GIVEN, "--measurement", "counts")
    found = [Malformed(f"npy: {name}", _bytes(content, "scan.npy"), options) for name, content in made.items()]
    frame = b"\0" * (4 * 130 * 128)
    raws = {
        "of nothing": (b"", "scan.raw"),
        "of half a frame": (frame[:1000], "scan.raw"),
        "of two frames and a half": (frame * 2 + frame[:99], "scan.raw"),
        "of more frames than are there": (frame * 2, "scan_x256_y256.raw"),
        "of 10^30 columns": (frame * 2, f"scan_x{10**30}_y1.raw"),
        "of no columns": (frame * 2, "scan_x0_y0.raw"),
        "of NaN": (np.full(4 * 130 * 128, nan, "f4").tobytes(), "scan_x2_y2.raw"),
        "by another name": (frame * 2, "scan.bin"),
    }
    for name, (content, file) in raws.items():
        found.append(Malformed(f"raw: {name}", _bytes(content, file), (*INSTRUMENT, "--scan_step", "50nm")))
    return found


# --- folders -----------------------------------------------------------------------------------------------------


def _folder(frames: dict[str, bytes | Callable[[Path], Any]]) -> Build:
    def build(folder: Path) -> Path:
        positions_file(folder)
        inside = folder / "frames"
        inside.mkdir()
        for name, content in frames.items():
            if callable(content):
                content(inside / name)
            else:
                (inside / name).write_bytes(content)
        return inside

    return build


def _folders() -> list[Malformed]:
    def saved(values: np.ndarray) -> bytes:
        return _image(lambda stream: np.save(stream, values))

    def series(**changes: Any) -> dict[str, Any]:
        return {f"f{n:03}.npy": saved(frame) for n, frame in enumerate(WHOLE)} | {
            f"{name}.npy": content for name, content in changes.items()
        }

    made: dict[str, dict[str, Any]] = {
        "empty": {},
        "of one frame": {"f0.npy": saved(WHOLE[0])},
        "of mixed sides": series(f007=saved(WHOLE[7, 2:, 2:])),
        "of a frame of 3 axes": series(f007=saved(WHOLE[:7])),
        "of a frame of complex values": series(f000=saved(FRAMES[0] + 1j)),
        "of a frame that is cut": series(f000=saved(WHOLE[0])[:200]),
        "of a frame that is cut in the middle": series(f011=saved(WHOLE[0])[:200]),
        "of a frame that is empty": series(f007=b""),
        "of a frame that is a pipe": series(f007=os.mkfifo),
        "of a frame that is a device": series(f007=lambda p: p.symlink_to("/dev/zero")),
        "of a frame that is a folder": series(f007=lambda p: p.mkdir()),
        "of a frame that leads to itself": series(f007=lambda p: p.symlink_to(p)),
        "of a frame that leads nowhere": series(f007=lambda p: p.symlink_to("/nowhere")),
        "of a frame of a shape that wraps": series(f007=npy_with(head(f"({2**62}, 16)", "'<u2'"))),
        "of a frame of 10^12 values": series(f000=npy_with(head("(1000000, 1000000)", "'<u2'"))),
        "of a frame of objects": series(f000=npy_with(head("(16, 16)", "'|O'"), b"\x80\x04N.")),
        "of one more frame than positions": series(f020=saved(WHOLE[0])),
        "of two formats": {f"f{n}.npy": saved(WHOLE[n]) for n in range(3)}
        | {f"f{n}.tif": b"II*\0\0\0\0\0" for n in range(3, 6)},
        "of TIFF that are none": {f"f{n}.tif": b"II*\0" + b"\xff" * 30 for n in range(M)},
        "of HDF5 that are none": {f"f{n}.h5": b"\x89HDF\r\n\x1a\n" + b"\xff" * 30 for n in range(M)},
        "of CBF that are none": {f"f{n}.cbf": b"###CBF: VERSION 1.5\n" + b"\xff" * 300 for n in range(M)},
        "of EDF that are none": {
            f"f{n}.edf": b"{\nHeaderID = EH:1;\nDim_1 = 99999999 ;\nDim_2 = 99999999 ;\n" + b" " * 400 + b"}\n"
            for n in range(M)
        },
        "of text": {f"f{n}.txt": b"text" for n in range(5)},
        "of 3000 files of text": {f"f{n}.txt": b"" for n in range(3000)},
        "of folders only": {f"d{n}": lambda p: p.mkdir() for n in range(3)},
        "of a description of Zarr that is a pipe": {"zarr.json": os.mkfifo},
        "of names with escapes": {f"\x1b[2J\u202e{n}.txt": b"" for n in range(5)},
        "of names that are no UTF-8": {os.fsdecode(b"\xff\xfe" + bytes([48 + n]) + b".txt"): b"" for n in range(5)},
    }
    return [Malformed(f"folder: {name}", _folder(content), GIVEN) for name, content in made.items()]


# --- what is no file ---------------------------------------------------------------------------------------------


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


def _ring(folder: Path) -> Path:
    (folder / "a").symlink_to(folder / "b")
    (folder / "b").symlink_to(folder / "a")
    return folder / "a"


def _linked_device(folder: Path) -> Path:
    (folder / "scan.npz").symlink_to("/dev/zero")
    return folder / "scan.npz"


def _beneath_a_file(folder: Path) -> Path:
    (folder / "scan.npz").write_bytes(b"text")
    return folder / "scan.npz" / "inside"


def _no_files() -> list[Malformed]:
    made: dict[str, Build] = {
        "nothing at all": lambda folder: folder / "scan.npz",
        "nothing in no folder": lambda folder: folder / "gone" / "scan.npz",
        "a pipe": _made(os.mkfifo, "scan.npz"),
        "a pipe called HDF5": _made(os.mkfifo, "scan.h5"),
        "a socket": _made(_socket, "scan.npz"),
        "a device without end": lambda folder: Path("/dev/zero"),
        "a device of nothing": lambda folder: Path("/dev/null"),
        "a link to a device": _linked_device,
        "a ring of links": _ring,
        "a path beneath a file": _beneath_a_file,
        "a name of 5000 letters": lambda folder: folder / ("a" * 5000),
        "a name with escapes": lambda folder: folder / "\x1b[2J\u202e.npz",
        "a name with a line break": lambda folder: folder / "a\nb.npz",
        "a name that is no UTF-8": lambda folder: folder / os.fsdecode(b"\xff\xfe.npz"),
        "a pattern of nothing": lambda folder: folder / "*.tif",
        "a pattern that is none": lambda folder: folder / "[.tif",
        "no bytes": _bytes(b"", "scan.npz"),
        "one byte": _bytes(b"P", "scan.npz"),
        "text": _bytes(b"hello, world\n", "scan.npz"),
        "zeros": _bytes(b"\0" * 10_000, "scan.h5"),
        "a gigabyte of nothing": lambda folder: _sparse(folder / "scan.h5", 10**9),
        "a terabyte of nothing": lambda folder: _sparse(folder / "scan.dat", 10**12),
        "a sound scan behind a terabyte of nothing": _behind_nothing,
        "an image": _bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "scan.png"),
        "a pickle": _bytes(b"\x80\x04\x95\x12\0\0\0\0\0\0\0\x8c\x05posix\x8c\x06system\x93.", "scan.pkl"),
        "a Python file": _bytes(b"import os\nos.system('touch owned')\n", "scan.py"),
        "gzip": _bytes(b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + b"\0" * 30, "scan.npz.gz"),
        "a mapping of text": _bytes(b"frames: a\n", "scan.yaml"),
    }
    return [Malformed(f"no file: {name}", build) for name, build in made.items()]


def _sparse(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def _behind_nothing(folder: Path) -> Path:
    """HDF5 may begin at every power of two; a reader that looks for it goes through the file."""
    source = write_own(folder / "sound.h5")
    path = _sparse(folder / "scan.h5", 2**40)
    with path.open("ab") as file, source.open("rb") as sound:
        shutil.copyfileobj(sound, file)
    source.unlink()
    return path


# --- mappings ----------------------------------------------------------------------------------------------------

_BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
_MAPPINGS = {
    "empty": "",
    "a list": "[1, 2]",
    "no YAML": "{",
    "of an object": "!!python/object/apply:os.system ['touch owned']",
    "of nested aliases": _BOMB + "frames: *a11\n",
    "of an alias to itself": "frames: &a [*a]\n",
    "nested 20 000 deep": "[" * 20_000,
    "of keys that are lists": "? [a, b]\n: c\n",
    "of keys that are nested aliases": _BOMB + "? *a11\n: c\n",
    "of a number of 10 000 digits": f"frames: {'9' * 10_000}\n",
    "of escapes": 'frames: "\\e[2J\\u202e"\n',
    "of null characters": 'frames: "\\0"\n',
    "of a path that leads out": "frames: ../../../etc/passwd\npositions: positions_px\n",
    "of frames that are a table": "frames: {path: {a: b}}\n",
    "of frames that are a date": "frames: 2026-11-26\n",
    "of frames that are null": "frames: null\npositions: null\n",
    "of axes that are a number": "frames: {path: frames, axes: 3}\npositions: positions_px\n",
    "of axes that do not fit": "frames: {path: frames, axes: [frame, y]}\npositions: positions_px\n",
    "of a shape of 10^30": f"frames: {{path: frames, reshape: [{10**30}, 16, 16]}}\npositions: positions_px\n",
    "of a shape that wraps": f"frames: {{path: frames, reshape: [{2**62}, 4, 16]}}\npositions: positions_px\n",
    "of a raster of 10^12": "frames: frames\nraster: [1000000, 1000000]\nscan_step: 50nm\nenergy: 8keV\ndistance: 1m\n",
    "of an energy that is NaN": "frames: frames\npositions: positions_px\nenergy: .nan\n",
    "of an energy of 1e400": "frames: frames\npositions: {path: positions_px, unit: m}\nenergy: 1e400keV\n",
    "of a centre of inf": "frames: frames\npositions: {path: positions_px, unit: px}\ncentre: [.inf, .nan]\n",
    "of frames by a pattern of stars": f"frames: {'*' * 200}a\npositions: positions_px\n",
}


def _mappings() -> list[Malformed]:
    def build(text: str) -> Build:
        def write(folder: Path) -> Path:
            (folder / "mapping.yaml").write_text(text)
            return write_own(folder / "scan.h5")

        return write

    options = ("--map", "mapping.yaml", "--measurement", "counts")
    found = [Malformed(f"mapping: {name}", build(text), options) for name, text in _MAPPINGS.items()]

    def pipe(folder: Path) -> Path:
        os.mkfifo(folder / "mapping.yaml")
        return write_own(folder / "scan.h5")

    found.append(Malformed("mapping: a pipe", pipe, options))
    found.append(Malformed("mapping: a device", lambda f: write_own(f / "scan.h5"), ("--map", "/dev/zero")))
    return found


FILES: list[Malformed] = [
    *_tike(),
    *_mat5(),
    *_tiff(),
    *_zarr(),
    *_arrays(),
    *_folders(),
    *_no_files(),
    *_mappings(),
]
