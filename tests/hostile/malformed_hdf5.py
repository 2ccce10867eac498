"""Malformed HDF5 files in our own dialect: types and values that are no scan, links and sources, bytes that lie."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  registers the filters
import numpy as np
from good_scans import Content, M, N, counts, positions_px, probe, write_h5, write_own
from malformed import Build, Malformed

__all__ = ["HDF5"]

nan = np.nan
FRAMES, PLACES = counts(), positions_px()
Make = Callable[[h5py.File, str], None]


def _own(attributes: dict[str, Content] | None = None, **changes: Any) -> Build:
    return lambda folder: write_own(folder / "scan.h5", changes, attributes)


def _new(shape: Any, dtype: Any, **how: Any) -> Make:
    """A dataset into which nothing is written."""
    return lambda h5, name: h5.create_dataset(name, shape, dtype, **how) and None


def _low(shape: tuple[int, ...], make: Callable[[], h5py.h5t.TypeID]) -> Make:
    """A dataset of a type that h5py does not make by itself."""
    return lambda h5, name: h5py.h5d.create(h5.id, name.encode(), make(), h5py.h5s.create_simple(shape)) and None


def _bitfield() -> h5py.h5t.TypeID:
    return h5py.h5t.STD_B32LE.copy()


def _opaque() -> h5py.h5t.TypeID:
    kind = h5py.h5t.create(h5py.h5t.OPAQUE, 4)
    kind.set_tag(b"frames")
    return kind


def _odd_float() -> h5py.h5t.TypeID:
    """A floating-point type of 3 bytes that NumPy has not."""
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(23, 16, 7, 0, 16)
    kind.set_size(3)
    return kind


def _odd_integer() -> h5py.h5t.TypeID:
    kind = h5py.h5t.STD_I16LE.copy()
    kind.set_precision(13)
    return kind


def _region(h5: h5py.File, name: str) -> None:
    h5["elsewhere"] = FRAMES
    h5.create_dataset(name, (M,), h5py.regionref_dtype)[0] = h5["elsewhere"].regionref[:3]


def _reference(h5: h5py.File, name: str) -> None:
    h5["elsewhere"] = FRAMES
    h5.create_dataset(name, (M,), h5py.ref_dtype)[0] = h5["elsewhere"].ref


def _null(h5: h5py.File, name: str) -> None:
    h5[name] = h5py.Empty("f4")


def _vlen(h5: h5py.File, name: str) -> None:
    dataset = h5.create_dataset(name, (M,), h5py.vlen_dtype(np.float32))
    for number in range(M):
        dataset[number] = np.ones(number, np.float32)


def _group(h5: h5py.File, name: str) -> None:
    h5.create_group(name)


def _type(h5: h5py.File, name: str) -> None:
    h5[name] = np.dtype("f8")


_FRAMES: dict[str, Any] = {
    "missing": None,
    "a group": _group,
    "a named type": _type,
    "null": _null,
    "scalar": 3.0,
    "text": "frames",
    "bytes that are no UTF-8": b"\xff\xfe\xfd",
    "texts": _new((M, N, N), h5py.string_dtype()),
    "short texts": _new((M, N, N), "S4"),
    "lists": _vlen,
    "object references": _reference,
    "region references": _region,
    "a structure": np.zeros((M, N, N), [("a", "f4"), ("b", "i4")]),
    "a structure of texts": _new((M, N, N), np.dtype([("a", h5py.string_dtype())])),
    "arrays": np.zeros((M,), np.dtype([("f", "f4", (N, N))])),
    "array elements": _new((M,), np.dtype(("f4", (N, N)))),
    "an enumeration": _new((M, N, N), h5py.enum_dtype({"DARK": 0, "LIGHT": 1}, "u1")),
    "bools, all false": np.zeros((M, N, N), bool),
    "a bit field": _low((M, N, N), _bitfield),
    "opaque": _low((M, N, N), _opaque),
    "a float of 3 bytes": _low((M, N, N), _odd_float),
    "an integer of 13 bits": _low((M, N, N), _odd_integer),
    "complex": FRAMES.astype(np.complex64),
    "quadruple, all 0": np.zeros((M, N, N), np.longdouble),
    "half, all inf": np.full((M, N, N), np.inf, np.float16),
    "big-endian NaN": np.full((M, N, N), nan, ">f8"),
    "negative": -FRAMES,
    "all zero": FRAMES * 0,
    "of 1e38": np.full_like(FRAMES, 1e38),
    "of int64 extremes": np.full((M, N, N), 2**63 - 1),
    "of int64 lowest": np.full((M, N, N), -(2**63)),
    "1-d": FRAMES.ravel(),
    "2-d": FRAMES[0],
    "4-d": FRAMES.reshape(5, 4, N, N),
    "32-d": FRAMES.reshape((1,) * 29 + FRAMES.shape),
    "of no frame": FRAMES[:0],
    "of no pixels": FRAMES[:, :0, :0],
    "of no columns": FRAMES[:, :, :0],
    "not square": FRAMES[:, :, 2:],
    "of odd side": FRAMES[:, 1:, 1:],
    "of side 2": FRAMES[:, :2, :2],
    "one fewer": FRAMES[1:],
    "never written": _new((M, N, N), "f4"),
    "never written, filled with NaN": _new((M, N, N), "f4", fillvalue=nan),
    "never written, filled with 1e38": _new((M, N, N), "f4", fillvalue=1e38),
    "never written, in chunks": _new((M, N, N), "f4", chunks=(1, N, N)),
    "never written, of 10^6 by 10^6": _new((M, 10**6, 10**6), "f4", chunks=(1, 100, 100)),
    "never written, 10^12 of them": _new((10**12, N, N), "u2", chunks=(1, N, N)),
    "never written, of 2^60 values": _new((2**20, 2**20, 2**20), "u1", chunks=(1, 64, 64)),
    "never written, of 5000 pixels": _new((M, 5000, 5000), "f8", chunks=(1, 500, 500)),
    "never written, in chunks of 4 GB": _new((M, 2**15, 2**15), "f4", chunks=(1, 2**15, 2**15 - 1)),
    "never written, contiguous, of 4 GB": _new((10**6, N, N), "f4"),
    "without a limit of their number": _new((M, N, N), "f4", chunks=(1, N, N), maxshape=(None, N, N)),
}

_PLACES: dict[str, Any] = {
    "missing": None,
    "a group": _group,
    "null": _null,
    "scalar": 3.0,
    "text": "here and there",
    "texts": np.array([[b"1", b"2"]] * M),
    "lists": _vlen,
    "object references": _reference,
    "a structure": np.zeros(M, [("y", "f8"), ("x", "f8")]),
    "complex": PLACES + 1j,
    "NaN": PLACES * nan,
    "with an inf": np.where(PLACES[3, 0] == PLACES, np.inf, PLACES),
    "1e308": PLACES * 1e305,
    "spread over 10 GB": np.linspace((0, 0), (4e5, 1.0), M),
    "all at one place": PLACES * 0,
    "(2, M)": PLACES.T,
    "(M, 3)": np.column_stack([PLACES, PLACES[:, 0]]),
    "(M, 0)": PLACES[:, :0],
    "1-d": PLACES[:, 0],
    "3-d": PLACES[None],
    "empty": PLACES[:0],
    "one fewer": PLACES[1:],
    "never written, of 10^12": _new((10**12, 2), "f8", chunks=(1000, 2)),
    "never written, contiguous, of 8 GB": _new((5 * 10**8, 2), "f8"),
    "a bit field": _low((M, 2), _bitfield),
    "of int64 extremes": np.full((M, 2), 2**63 - 1),
    "a float of 3 bytes": _low((M, 2), _odd_float),
}

_PROBES: dict[str, Any] = {
    "a group": _group,
    "null": _null,
    "text": "probe",
    "NaN": probe() * nan,
    "zero": probe() * 0,
    "of another side": probe()[:, 1:-1, 1:-1],
    "1-d": probe()[0, 0],
    "of no modes": probe()[:0],
    "never written, of 4 GB": _new((2, 16384, 16384), "c8", chunks=(1, 128, 128)),
    "never written, of 10^9 modes": _new((10**9, N, N), "c8", chunks=(1, N, N)),
    "a structure of three": np.zeros((N, N), [("re", "f4"), ("im", "f4"), ("x", "f4")]),
    "lists": _vlen,
}

_PLANES: dict[str, Any] = {
    "mask hides all": {"mask": np.zeros((N, N), bool)},
    "mask of another side": {"mask": np.ones((N - 2, N - 2), bool)},
    "mask 1-d": {"mask": np.ones(N, bool)},
    "mask as text": {"mask": "all good"},
    "mask null": {"mask": _null},
    "mask a structure": {"mask": np.zeros((N, N), [("a", "u1")])},
    "mask never written, of 10 GB": {"mask": _new((10**5, 10**5), "u1", chunks=(100, 100))},
    "mask NaN": {"mask": np.full((N, N), nan)},
    "background NaN": {"background": np.full((N, N), nan)},
    "background negative": {"background": np.full((N, N), -1.0)},
    "background of another side": {"background": np.ones((N + 2, N + 2))},
    "background text": {"background": "dark"},
    "background lists": {"background": _vlen},
    "background never written, of 10 GB": {"background": _new((10**5, 10**5), "f4", chunks=(100, 100))},
    "object NaN": {"object": np.full((40, 40), nan + 1j)},
    "object 1-d": {"object": np.ones(40, complex)},
    "object text": {"object": "object"},
    "object never written, of 80 GB": {"object": _new((10**5, 10**5), "c8", chunks=(100, 100))},
    "provenance that is no JSON": {"provenance": "{"},
    "provenance as number": {"provenance": 3.0},
    "provenance null": {"provenance": _null},
    "provenance a list of texts": {"provenance": np.array([b"{}", b"{}"])},
    "provenance of bytes that are no UTF-8": {"provenance": b"\xff{\xfe"},
    "provenance nested 100 000 deep": {"provenance": "[" * 100_000},
    "provenance of 20 million letters": {"provenance": "[" + '"a",' * 5_000_000 + "1]"},
    "geometry a dataset": {"geometry": 3.0},
    "propagation a dataset": {"propagation": "far"},
}


def _group_with(**attributes: Any) -> Make:
    def make(h5: h5py.File, name: str) -> None:
        group = h5.create_group(name, track_order=True)
        for key, value in attributes.items():
            group.attrs[key] = value

    return make


def _dense(folder: Path) -> Path:
    """An attribute beyond 64 kB, which is stored elsewhere."""
    path = write_own(folder / "scan.h5", {"geometry": _group_with(radiation="photon")}, libver="latest")
    with h5py.File(path, "a", libver="latest") as h5:
        h5["geometry"].attrs.create("energy_eV", np.zeros(10**6), dtype="f8")
    return path


_ATTRIBUTES: dict[str, dict[str, Content]] = {
    "format of another program": {"/": {"format": "other-scan"}},
    "format as number": {"/": {"format": 3}},
    "format of bytes that are no UTF-8": {"/": {"format": b"\xff\xfe"}},
    "format with escapes": {"/": {"format": "\x1b[2J\u202e\x07"}},
    "format of 60 000 letters": {"/": {"format": "a" * 60_000}},
    "format null": {"/": {"format": h5py.Empty("S4")}},
    "version of the future": {"/": {"version": 99}},
    "version as text": {"/": {"version": "one"}},
    "version of two": {"/": {"version": [1, 1]}},
    "version NaN": {"/": {"version": nan}},
    "version null": {"/": {"version": h5py.Empty("i4")}},
    "version of 2^64": {"/": {"version": np.uint64(2**64 - 1)}},
    "measurement of a wrong word": {"frames": {"measurement": "photons"}},
    "measurement as number": {"frames": {"measurement": 7}},
    "measurement of two": {"frames": {"measurement": ["counts", "counts"]}},
    "measurement null": {"frames": {"measurement": h5py.Empty("S4")}},
    "measurement of 60 000 letters": {"frames": {"measurement": "c" * 60_000}},
    "calibrated as text": {"probe": {"calibrated": "maybe"}},
    "calibrated of two": {"probe": {"calibrated": [True, False]}},
    "calibrated NaN": {"probe": {"calibrated": nan}},
    "calibrated null": {"probe": {"calibrated": h5py.Empty("?")}},
    "units of positions of a wrong word": {"positions_px": {"units": "furlongs"}},
    "units of positions as number": {"positions_px": {"units": 3.0}},
    "units of positions of two": {"positions_px": {"units": ["px", "m"]}},
    "units of positions with escapes": {"positions_px": {"units": "\x1b[31mm\u2066"}},
}

_GROUPS: dict[str, Content] = {
    "energy of 0": {"geometry": _group_with(energy_eV=0.0)},
    "energy NaN": {"geometry": _group_with(energy_eV=nan)},
    "energy as text": {"geometry": _group_with(energy_eV="8 keV")},
    "energy of two": {"geometry": _group_with(energy_eV=[1.0, 2.0])},
    "energy null": {"geometry": _group_with(energy_eV=h5py.Empty("f8"))},
    "energy complex": {"geometry": _group_with(energy_eV=1j)},
    "radiation of a wrong word": {"geometry": _group_with(radiation="neutrons")},
    "radiation as number": {"geometry": _group_with(radiation=3)},
    "radiation null": {"geometry": _group_with(radiation=h5py.Empty("S4"))},
    "propagation of a wrong word": {"propagation": _group_with(propagation="sideways")},
    "propagation as number": {"propagation": _group_with(propagation=4)},
    "near field without a number": {"propagation": _group_with(propagation="near_field")},
    "Fresnel number as text": {"propagation": _group_with(propagation="near_field", fresnel_number="small")},
    "Fresnel number of -1": {"propagation": _group_with(propagation="near_field", fresnel_number=-1.0)},
}


def _values() -> list[Malformed]:
    found = [Malformed(f"hdf5: frames {name}", _own(frames=value)) for name, value in _FRAMES.items()]
    found += [Malformed(f"hdf5: positions {name}", _own(positions_px=value)) for name, value in _PLACES.items()]
    found += [Malformed(f"hdf5: probe {name}", _own(probe=value)) for name, value in _PROBES.items()]
    found += [Malformed(f"hdf5: {name}", _own(**changes)) for name, changes in {**_PLANES, **_GROUPS}.items()]
    found.append(Malformed("hdf5: energy of 8 MB", _dense))
    found += [Malformed(f"hdf5: {name}", _own(changed)) for name, changed in _ATTRIBUTES.items()]
    return found


# --- links, sources, trees ---------------------------------------------------------------------------------------


def _link(link: Any) -> Make:
    def make(h5: h5py.File, name: str) -> None:
        h5[name] = link

    return make


def _beside(name: str, make: Callable[[Path], Any], **changes: Any) -> Build:
    """A scan with a file beside it."""

    def build(folder: Path) -> Path:
        make(folder / name)
        return write_own(folder / "scan.h5", changes)

    return build


def _virtual(sources: list[tuple[str, str]], shape: tuple[int, ...] = (M, N, N)) -> Make:
    """A virtual dataset, each of whose sources is mapped to a part of it."""

    def make(h5: h5py.File, name: str) -> None:
        layout = h5py.VirtualLayout(shape, "f4")
        step = shape[0] // len(sources)
        for number, (file, path) in enumerate(sources):
            part = slice(number * step, (number + 1) * step)
            layout[part] = h5py.VirtualSource(file, path, (step, *shape[1:]), dtype="f4")
        h5.create_virtual_dataset(name, layout, fillvalue=0)

    return make


def _virtual_file(path: Path, file: str, name: str) -> None:
    with h5py.File(path, "w") as h5:
        _virtual([(file, name)])(h5, "frames")


def _cycle_of_files(folder: Path) -> Path:
    for number in range(3):
        _virtual_file(folder / f"part{number}.h5", f"part{(number + 1) % 3}.h5", "frames")
    return write_own(folder / "scan.h5", {"frames": _virtual([("part0.h5", "frames")])})


def _chain_of_files(folder: Path) -> Path:
    for number in range(60):
        _virtual_file(folder / f"part{number}.h5", f"part{number + 1}.h5", "frames")
    write_h5(folder / "part60.h5", {"frames": FRAMES * nan})
    return write_own(folder / "scan.h5", {"frames": _virtual([("part0.h5", "frames")])})


def _chain_inside(h5: h5py.File, name: str) -> None:
    for number in range(300):
        _virtual([(".", f"frames{number + 1}" if number < 299 else name)])(h5, f"frames{number}" if number else name)


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


def _external_scan(path: str) -> Build:
    return lambda folder: write_own(folder / "scan.h5", {"frames": _link(h5py.ExternalLink(path, "/frames"))})


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
    "frames a soft link to itself": {"frames": _link(h5py.SoftLink("/frames"))},
    "frames a soft link to nothing": {"frames": _link(h5py.SoftLink("/nowhere"))},
    "frames a soft link to ..": {"frames": _link(h5py.SoftLink("../../frames"))},
    "frames a soft link to no name": {"frames": _link(h5py.SoftLink("/"))},
    "frames a soft link of 60 000 letters": {"frames": _link(h5py.SoftLink("/" + "a" * 60_000))},
    "frames a soft link with escapes": {"frames": _link(h5py.SoftLink("/\x1b[2J\u202e"))},
    "frames a ring of 100 soft links": {"frames": _soft_chain},
    "frames an external link to nothing": {"frames": _link(h5py.ExternalLink("gone.h5", "/frames"))},
    "frames an external link to /etc/passwd": {"frames": _link(h5py.ExternalLink("/etc/passwd", "/frames"))},
    "frames an external link to itself": {"frames": _link(h5py.ExternalLink("scan.h5", "/frames"))},
    "frames an external link to ..": {"frames": _link(h5py.ExternalLink("../../gone.h5", "/frames"))},
    "frames an external link to a device": {"frames": _link(h5py.ExternalLink("/dev/zero", "/frames"))},
    "frames an external link with escapes": {"frames": _link(h5py.ExternalLink("\x1b[2J\u202e.h5", "/frames"))},
    "frames mapped to themselves": {"frames": _virtual([(".", "frames")])},
    "frames mapped to themselves by the name of the file": {"frames": _virtual([("scan.h5", "frames")])},
    "frames mapped to themselves twice": {"frames": _virtual([(".", "frames")] * 2)},
    "frames mapped to nothing": {"frames": _virtual([("gone.h5", "frames")])},
    "frames mapped to nothing inside": {"frames": _virtual([(".", "nowhere")])},
    "frames mapped to a group": {"frames": _virtual([(".", "/")])},
    "frames mapped to positions": {"frames": _virtual([(".", "positions_px")])},
    "frames mapped to /etc/passwd": {"frames": _virtual([("/etc/passwd", "frames")])},
    "frames mapped to a device": {"frames": _virtual([("/dev/zero", "frames")])},
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
    "probe mapped to itself": {"probe": _virtual([(".", "probe")], (2, N, N))},
    "positions mapped to themselves": {"positions_px": _virtual([(".", "positions_px")], (M, 2))},
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
    import os

    os.mkfifo(path)


def _trees() -> list[Malformed]:
    found = [Malformed(f"hdf5: {name}", _own(**changes)) for name, changes in _LINKS.items()]
    found += [
        Malformed("hdf5: frames mapped to a ring of files", _cycle_of_files),
        Malformed("hdf5: frames mapped to a chain of 60 files", _chain_of_files),
        Malformed(
            "hdf5: frames an external link to a pipe",
            _beside("pipe.h5", _fifo, frames=_link(h5py.ExternalLink("pipe.h5", "/frames"))),
        ),
        Malformed("hdf5: frames stored in a pipe", _beside("pipe", _fifo, frames=_external("pipe"))),
        Malformed("hdf5: frames mapped to a pipe", _beside("pipe", _fifo, frames=_virtual([("pipe", "frames")]))),
        Malformed(
            "hdf5: frames an external link to a folder",
            _beside("folder", lambda p: p.mkdir(), frames=_link(h5py.ExternalLink("folder", "/frames"))),
        ),
        Malformed(
            "hdf5: frames an external link to text",
            _beside("t.h5", lambda p: p.write_text("text"), frames=_link(h5py.ExternalLink("t.h5", "/frames"))),
        ),
    ]
    return found


# --- bytes -------------------------------------------------------------------------------------------------------


def whole(**how: Any) -> bytes:
    """The bytes of a sound file in memory, with texts in heaps."""
    with h5py.File("in-memory.h5", "w", driver="core", backing_store=False, **how) as h5:
        for name, value in {"frames": FRAMES.astype("u2"), "positions_px": PLACES, "probe": probe()}.items():
            h5[name] = value
        h5["frames"].attrs["measurement"] = "counts"
        h5["provenance"] = '{"details": {"n": 1}}'
        h5["more/words"] = np.array(["one", "two", "three"], h5py.string_dtype())
        h5.create_dataset("more/packed", data=FRAMES[:4], chunks=(1, N, N), compression="gzip")
        h5.flush()
        return bytes(h5.id.get_file_image())


OLD, NEW = whole(), whole(libver="latest")


def _bytes(content: bytes | Callable[[], bytes], name: str = "scan.h5") -> Build:
    def build(folder: Path) -> Path:
        (folder / name).write_bytes(content() if callable(content) else content)
        return folder / name

    return build


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
    "tree whose sibling is itself": hit(OLD, b"TREE", 8, struct.pack("<Q", OLD.find(b"TREE"))),
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
    "a user block of another length": b"\0" * 512 + OLD,
    "a user block of 100 bytes": b"\0" * 100 + OLD,
    "twice": OLD + OLD[:4000],
    "a byte lost in front": OLD[:90] + OLD[91:],
    "text in its middle": OLD[:800] + b"hello, world" * 100 + OLD[2000:],
}


def _damaged() -> list[Malformed]:
    found = [Malformed(f"hdf5 bytes: {name}", _bytes(content)) for name, content in _HITS.items()]
    for share in (0.005, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        for name, content in (("old", OLD), ("new", NEW)):
            kept = int(len(content) * share)
            found.append(Malformed(f"hdf5 bytes: {name}, cut to {share:.1%}", _bytes(content[:kept])))
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
    import zlib

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
    "of zfp that is none": _stored(b"zfp" + b"\xff" * 60, compression=32013),
    "of shuffle alone on too little": _stored(b"\1" * 7, shuffle=True),
    "of a checksum that is wrong": _stored(b"\1" * (4 * N * N + 4), fletcher32=True),
    "of scale and offset that is none": _stored(b"\xff" * 50, scaleoffset=2),
}

HDF5: list[Malformed] = [
    *_values(),
    *_trees(),
    *_damaged(),
    *(Malformed(f"hdf5: chunks {name}", _own(frames=make)) for name, make in _FILTERS.items()),
]
