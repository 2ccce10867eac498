"""Malformed HDF5 files in our own dialect, whose types and values are no scan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from good_scans import Content, M, N, counts, positions_px, probe, write_own
from h5_makers import Make, group, lists, null, of_type, own, unwritten
from malformed import Malformed

__all__ = ["HDF5_VALUES"]

nan = np.nan
FRAMES, PLACES = counts(), positions_px()


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


def _type(h5: h5py.File, name: str) -> None:
    h5[name] = np.dtype("f8")


_FRAMES: dict[str, Any] = {
    "missing": None,
    "a group": group,
    "a named type": _type,
    "null": null,
    "scalar": 3.0,
    "text": "frames",
    "bytes that are no UTF-8": b"\xff\xfe\xfd",
    "texts": unwritten((M, N, N), h5py.string_dtype()),
    "short texts": unwritten((M, N, N), "S4"),
    "lists": lists,
    "object references": _reference,
    "region references": _region,
    "a structure": np.zeros((M, N, N), [("a", "f4"), ("b", "i4")]),
    "a structure of texts": unwritten((M, N, N), np.dtype([("a", h5py.string_dtype())])),
    "arrays": np.zeros((M,), np.dtype([("f", "f4", (N, N))])),
    "array elements": unwritten((M,), np.dtype(("f4", (N, N)))),
    "an enumeration": unwritten((M, N, N), h5py.enum_dtype({"DARK": 0, "LIGHT": 1}, "u1")),
    "bools, all false": np.zeros((M, N, N), bool),
    "a bit field": of_type((M, N, N), _bitfield),
    "opaque": of_type((M, N, N), _opaque),
    "a float of 3 bytes": of_type((M, N, N), _odd_float),
    "an integer of 13 bits": of_type((M, N, N), _odd_integer),
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
    "never written": unwritten((M, N, N), "f4"),
    "never written, filled with NaN": unwritten((M, N, N), "f4", fillvalue=nan),
    "never written, filled with 1e38": unwritten((M, N, N), "f4", fillvalue=1e38),
    "never written, in chunks": unwritten((M, N, N), "f4", chunks=(1, N, N)),
    "never written, of 10^6 by 10^6": unwritten((M, 10**6, 10**6), "f4", chunks=(1, 100, 100)),
    "never written, 10^12 of them": unwritten((10**12, N, N), "u2", chunks=(1, N, N)),
    "never written, of 2^60 values": unwritten((2**20, 2**20, 2**20), "u1", chunks=(1, 64, 64)),
    "never written, of 5000 pixels": unwritten((M, 5000, 5000), "f8", chunks=(1, 500, 500)),
    "never written, in chunks of 4 GB": unwritten((M, 2**15, 2**15), "f4", chunks=(1, 2**15, 2**15 - 1)),
    "never written, contiguous, of 4 GB": unwritten((10**6, N, N), "f4"),
    "without a limit of their number": unwritten((M, N, N), "f4", chunks=(1, N, N), maxshape=(None, N, N)),
}

_PLACES: dict[str, Any] = {
    "missing": None,
    "a group": group,
    "null": null,
    "scalar": 3.0,
    "text": "here and there",
    "texts": np.array([[b"1", b"2"]] * M),
    "lists": lists,
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
    "never written, of 10^12": unwritten((10**12, 2), "f8", chunks=(1000, 2)),
    "never written, contiguous, of 8 GB": unwritten((5 * 10**8, 2), "f8"),
    "a bit field": of_type((M, 2), _bitfield),
    "of int64 extremes": np.full((M, 2), 2**63 - 1),
    "a float of 3 bytes": of_type((M, 2), _odd_float),
}

_PROBES: dict[str, Any] = {
    "null": null,
    "text": "probe",
    "NaN": probe() * nan,
    "zero": probe() * 0,
    "of another side": probe()[:, 1:-1, 1:-1],
    "1-d": probe()[0, 0],
    "of no modes": probe()[:0],
    "never written, of 4 GB": unwritten((2, 16384, 16384), "c8", chunks=(1, 128, 128)),
    "never written, of 10^9 modes": unwritten((10**9, N, N), "c8", chunks=(1, N, N)),
    "a structure of three": np.zeros((N, N), [("re", "f4"), ("im", "f4"), ("x", "f4")]),
    "lists": lists,
}

_PLANES: dict[str, Any] = {
    **{f"{name} is a group": {name: group} for name in ("mask", "probe", "background", "object", "provenance")},
    "mask hides all": {"mask": np.zeros((N, N), bool)},
    "mask of another side": {"mask": np.ones((N - 2, N - 2), bool)},
    "mask 1-d": {"mask": np.ones(N, bool)},
    "mask as text": {"mask": "all good"},
    "mask null": {"mask": null},
    "mask a structure": {"mask": np.zeros((N, N), [("a", "u1")])},
    "mask never written, of 10 GB": {"mask": unwritten((10**5, 10**5), "u1", chunks=(100, 100))},
    "mask NaN": {"mask": np.full((N, N), nan)},
    "background NaN": {"background": np.full((N, N), nan)},
    "background negative": {"background": np.full((N, N), -1.0)},
    "background of another side": {"background": np.ones((N + 2, N + 2))},
    "background text": {"background": "dark"},
    "background lists": {"background": lists},
    "background never written, of 10 GB": {"background": unwritten((10**5, 10**5), "f4", chunks=(100, 100))},
    "object NaN": {"object": np.full((40, 40), nan + 1j)},
    "object 1-d": {"object": np.ones(40, complex)},
    "object text": {"object": "object"},
    "object never written, of 80 GB": {"object": unwritten((10**5, 10**5), "c8", chunks=(100, 100))},
    "provenance that is no JSON": {"provenance": "{"},
    "provenance as number": {"provenance": 3.0},
    "provenance null": {"provenance": null},
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
    found = [Malformed(f"hdf5: frames {name}", own(frames=value)) for name, value in _FRAMES.items()]
    found += [Malformed(f"hdf5: positions {name}", own(positions_px=value)) for name, value in _PLACES.items()]
    found += [Malformed(f"hdf5: probe {name}", own(probe=value)) for name, value in _PROBES.items()]
    found += [Malformed(f"hdf5: {name}", own(**changes)) for name, changes in {**_PLANES, **_GROUPS}.items()]
    found.append(Malformed("hdf5: energy of 8 MB", _dense))
    found += [Malformed(f"hdf5: {name}", own(changed)) for name, changed in _ATTRIBUTES.items()]
    return found


HDF5_VALUES: list[Malformed] = _values()
