"""Malformed HDF5 files in our own dialect: links, sources and storage elsewhere, rings, and trees without end."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from good_scans import Content, M, N, counts, write_h5, write_own
from h5_makers import Make, link, own, virtual
from malformed import Build, Malformed

__all__ = ["HDF5_LINKS"]


def _beside(name: str, make: Callable[[Path], Any], **changes: Any) -> Build:
    """A scan with a file beside it."""

    def build(folder: Path) -> Path:
        make(folder / name)
        return write_own(folder / "scan.h5", changes)

    return build


def _virtual_file(path: Path, file: str, name: str) -> None:
    with h5py.File(path, "w") as h5:
        virtual([(file, name)])(h5, "frames")


def _cycle_of_files(folder: Path) -> Path:
    for number in range(3):
        _virtual_file(folder / f"part{number}.h5", f"part{(number + 1) % 3}.h5", "frames")
    return write_own(folder / "scan.h5", {"frames": virtual([("part0.h5", "frames")])})


def _chain_of_files(folder: Path) -> Path:
    for number in range(60):
        _virtual_file(folder / f"part{number}.h5", f"part{number + 1}.h5", "frames")
    write_h5(folder / "part60.h5", {"frames": counts() * np.nan})
    return write_own(folder / "scan.h5", {"frames": virtual([("part0.h5", "frames")])})


def _chain_inside(h5: h5py.File, name: str) -> None:
    for number in range(300):
        virtual([(".", f"frames{number + 1}" if number < 299 else name)])(h5, f"frames{number}" if number else name)


def _many_files(h5: h5py.File, name: str) -> None:
    """One frame from each of the files part-0.h5, part-1.h5, …, of which there are as many as there are."""
    create = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    space = h5py.h5s.create_simple((M, N, N), (h5py.h5s.UNLIMITED, N, N))
    space.select_hyperslab((0, 0, 0), (h5py.h5s.UNLIMITED, 1, 1), (1, 1, 1), (1, N, N))
    create.set_virtual(space, b"part-%b.h5", b"frames", h5py.h5s.create_simple((1, N, N)))
    whole = h5py.h5s.create_simple((M, N, N), (h5py.h5s.UNLIMITED, N, N))
    h5py.h5d.create(h5.id, name.encode(), h5py.h5t.IEEE_F32LE, whole, create)


def _external(path: str, size: int = h5py.h5f.UNLIMITED, offset: int = 0, dtype: str = "u1") -> Make:
    """A dataset whose bytes lie in another file."""
    return lambda h5, name: h5.create_dataset(name, (M, N, N), dtype, external=[(path, offset, size)]) and None


def _hard_cycle(h5: h5py.File, name: str) -> None:
    group = h5.create_group(name)
    group["again"] = group
    group["root"] = h5["/"]


def _soft_chain(h5: h5py.File, name: str) -> None:
    for number in range(100):
        h5[f"link{number}"] = h5py.SoftLink(f"/link{number + 1}")
    h5["link100"] = h5py.SoftLink("/link0")
    h5[name] = h5py.SoftLink("/link0")


def _deep(depth: int) -> Make:
    """Groups in groups, made from the inside: a path so long would take the square of its length."""

    def make(h5: h5py.File, name: str) -> None:
        inner = h5.create_group(None)
        for _ in range(depth):
            outer = h5.create_group(None)
            outer["g"] = inner
            inner = outer
        h5[name] = inner

    return make


def _wide(count: int) -> Make:
    def make(h5: h5py.File, name: str) -> None:
        group = h5.create_group(name)
        for number in range(count):
            group[f"{number}"] = h5py.SoftLink("/nowhere")

    return make


def _lattice(h5: h5py.File, name: str) -> None:
    """Twenty groups, each linked to by the one before it eight times: 8^20 paths."""
    inner = h5.create_group(None)
    inner["data"] = 1.0
    for _ in range(20):
        outer = h5.create_group(None)
        for number in range(8):
            outer[f"{number}"] = inner
        inner = outer
    h5[name] = inner


def _datasets(count: int) -> Make:
    def make(h5: h5py.File, name: str) -> None:
        group = h5.create_group(name)
        for number in range(count):
            group[f"{number}"] = 0

    return make


def _names(*names: bytes) -> Make:
    """Datasets of names that are no good names."""

    def make(h5: h5py.File, name: str) -> None:
        group = h5.create_group(name)
        space = h5py.h5s.create(h5py.h5s.SCALAR)
        for word in names:
            h5py.h5d.create(group.id, word, h5py.h5t.IEEE_F64LE, space)

    return make


_LINKS: dict[str, Content] = {
    "frames a soft link to itself": {"frames": link(h5py.SoftLink("/frames"))},
    "frames a soft link to nothing": {"frames": link(h5py.SoftLink("/nowhere"))},
    "frames a soft link to ..": {"frames": link(h5py.SoftLink("../../frames"))},
    "frames a soft link to no name": {"frames": link(h5py.SoftLink("/"))},
    "frames a soft link of 60 000 letters": {"frames": link(h5py.SoftLink("/" + "a" * 60_000))},
    "frames a soft link with escapes": {"frames": link(h5py.SoftLink("/\x1b[2J\u202e"))},
    "frames a ring of 100 soft links": {"frames": _soft_chain},
    "frames an external link to nothing": {"frames": link(h5py.ExternalLink("gone.h5", "/frames"))},
    "frames an external link to /etc/passwd": {"frames": link(h5py.ExternalLink("/etc/passwd", "/frames"))},
    "frames an external link to itself": {"frames": link(h5py.ExternalLink("scan.h5", "/frames"))},
    "frames an external link to ..": {"frames": link(h5py.ExternalLink("../../gone.h5", "/frames"))},
    "frames an external link to a device": {"frames": link(h5py.ExternalLink("/dev/zero", "/frames"))},
    "frames an external link with escapes": {"frames": link(h5py.ExternalLink("\x1b[2J\u202e.h5", "/frames"))},
    "frames mapped to themselves": {"frames": virtual([(".", "frames")])},
    "frames mapped to themselves by the name of the file": {"frames": virtual([("scan.h5", "frames")])},
    "frames mapped to themselves twice": {"frames": virtual([(".", "frames")] * 2)},
    "frames mapped to nothing": {"frames": virtual([("gone.h5", "frames")])},
    "frames mapped to nothing inside": {"frames": virtual([(".", "nowhere")])},
    "frames mapped to a group": {"frames": virtual([(".", "/")])},
    "frames mapped to positions": {"frames": virtual([(".", "positions_px")])},
    "frames mapped to /etc/passwd": {"frames": virtual([("/etc/passwd", "frames")])},
    "frames mapped to a device": {"frames": virtual([("/dev/zero", "frames")])},
    "frames mapped in a chain of 300 with a ring": {"frames": _chain_inside},
    "frames mapped to 10^9 files that may be": {"frames": _many_files},
    "frames stored in /etc/passwd": {"frames": _external("/etc/passwd")},
    "frames stored in a device": {"frames": _external("/dev/zero")},
    "frames stored in what is not there": {"frames": _external("gone.raw")},
    "frames stored in the file itself": {"frames": _external("scan.h5", dtype="f8")},
    "frames stored beyond the end": {"frames": _external("scan.h5", 10**6, 2**62)},
    "frames stored with escapes": {"frames": _external("\x1b[2J.raw")},
    "probe stored in /etc/passwd": {
        "probe": lambda h5, n: h5.create_dataset(n, (N, N), "u1", external=[("/etc/passwd", 0, N * N)]) and None
    },
    "mask stored in /etc/passwd": {
        "mask": lambda h5, n: h5.create_dataset(n, (N, N), "u1", external=[("/etc/passwd", 0, N * N)]) and None
    },
    "probe mapped to itself": {"probe": virtual([(".", "probe")], (2, N, N))},
    "positions mapped to themselves": {"positions_px": virtual([(".", "positions_px")], (M, 2))},
    "frames a ring of groups": {"frames": _hard_cycle},
    "no frames, 30 000 groups in groups": {"frames": None, "deep": _deep(30_000)},
    "no frames, 8^20 paths": {"frames": None, "lattice": _lattice},
    "no frames, 100 001 links": {"frames": None, "wide": _wide(100_001)},
    "no frames, 20 000 datasets": {"frames": None, "many": _datasets(20_000)},
    "no frames, names with escapes": {"frames": None, "n": _names(b"\x1b[2J\x07", "\u202e\u2066".encode(), b"\x9b31m")},
    "no frames, names that are no UTF-8": {"frames": None, "n": _names(b"\xff\xfe", b"\xed\xa0\x80")},
    "no frames, names with line breaks": {"frames": None, "n": _names(b"a\nb\rc", b"a\tb")},
    "no frames, a name of 60 000 letters": {"frames": None, "n": _names(b"a" * 60_000)},
    "no frames, a name '..'": {"frames": None, "n": _names(b"..")},
}


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _trees() -> list[Malformed]:
    found = [Malformed(f"hdf5: {name}", own(**changes)) for name, changes in _LINKS.items()]
    found += [
        Malformed("hdf5: frames mapped to a ring of files", _cycle_of_files),
        Malformed("hdf5: frames mapped to a chain of 60 files", _chain_of_files),
        Malformed(
            "hdf5: frames an external link to a pipe",
            _beside("pipe.h5", _fifo, frames=link(h5py.ExternalLink("pipe.h5", "/frames"))),
        ),
        Malformed("hdf5: frames stored in a pipe", _beside("pipe", _fifo, frames=_external("pipe"))),
        Malformed("hdf5: frames mapped to a pipe", _beside("pipe", _fifo, frames=virtual([("pipe", "frames")]))),
        Malformed(
            "hdf5: frames an external link to a folder",
            _beside("folder", lambda p: p.mkdir(), frames=link(h5py.ExternalLink("folder", "/frames"))),
        ),
        Malformed(
            "hdf5: frames an external link to text",
            _beside("t.h5", lambda p: p.write_text("text"), frames=link(h5py.ExternalLink("t.h5", "/frames"))),
        ),
    ]
    return found


HDF5_LINKS: list[Malformed] = _trees()
