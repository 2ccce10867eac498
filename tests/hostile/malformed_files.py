"""Malformed tike files, Zarr stores, NPY and raw files, and folders of frames."""

from __future__ import annotations

import bz2
import io
import json
import os
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
    positions_px,
    tike_bytes,
    write_tike,
    write_zarr,
)
from malformed import Build, Malformed, beside_positions, saved_to
from malformed_zip import head, npy_with

__all__ = ["FILES"]

nan = np.nan
FRAMES, WHOLE = counts(), counts().astype(np.uint16)
GIVEN = (*BESIDE, *INSTRUMENT)
"""What has to be said of frames that state nothing."""

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
        "of a model": bz2.compress(saved_to(lambda s: zip_into(s, {"manifest.json": b"{}"}))),
    }
    found = [Malformed(f"bz2: {name}", beside_positions(content, "scan.npz.bz2")) for name, content in made.items()]
    found += [
        Malformed(f"tike: {name}", lambda folder, c=changes: write_tike(folder / "scan.npz.bz2", c))
        for name, changes in _TIKE.items()
    ]
    return [case for case in found if case.name != "bz2: with noise behind it"]


def zip_into(stream: io.BytesIO, content: dict[str, bytes]) -> None:
    with zipfile.ZipFile(stream, "w") as archive:
        for name, values in content.items():
            archive.writestr(name, values)


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
            (folder / "scan.zip").write_bytes(saved_to(lambda stream: zip_into(stream, content)))
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


def _arrays() -> list[Malformed]:
    def saved(values: np.ndarray) -> bytes:
        return saved_to(lambda stream: np.save(stream, values))

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
    found = [Malformed(f"npy: {name}", beside_positions(values, "scan.npy"), options) for name, values in made.items()]
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
        found.append(Malformed(f"raw: {name}", beside_positions(content, file), (*INSTRUMENT, "--scan_step", "50nm")))
    return found


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
        return saved_to(lambda stream: np.save(stream, values))

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


FILES: list[Malformed] = [*_tike(), *_zarr(), *_arrays(), *_folders()]
