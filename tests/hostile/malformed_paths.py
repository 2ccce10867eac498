"""Paths at which no scan lies, and mappings that say nothing sound of one."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

from good_scans import write_own
from malformed import Build, Malformed, beside_positions, made_at

__all__ = ["PATHS"]


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
        "a pipe": made_at(os.mkfifo, "scan.npz"),
        "a pipe called HDF5": made_at(os.mkfifo, "scan.h5"),
        "a socket": made_at(_socket, "scan.npz"),
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
        "no bytes": beside_positions(b"", "scan.npz"),
        "one byte": beside_positions(b"P", "scan.npz"),
        "text": beside_positions(b"hello, world\n", "scan.npz"),
        "zeros": beside_positions(b"\0" * 10_000, "scan.h5"),
        "a gigabyte of nothing": lambda folder: _sparse(folder / "scan.h5", 10**9),
        "a terabyte of nothing": lambda folder: _sparse(folder / "scan.dat", 10**12),
        "a sound scan behind a terabyte of nothing": _behind_nothing,
        "an image": beside_positions(b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "scan.png"),
        "a pickle": beside_positions(b"\x80\x04\x95\x12\0\0\0\0\0\0\0\x8c\x05posix\x8c\x06system\x93.", "scan.pkl"),
        "a Python file": beside_positions(b"import os\nos.system('touch owned')\n", "scan.py"),
        "gzip": beside_positions(b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + b"\0" * 30, "scan.npz.gz"),
        "a mapping of text": beside_positions(b"frames: a\n", "scan.yaml"),
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


PATHS: list[Malformed] = [*_no_files(), *_mappings()]
