"""Malformed files of the HDF5 dialects of others: each sound but for one thing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from good_scans import (
    BESIDE,
    WAVELENGTH_M,
    Content,
    M,
    N,
    counts,
    cxi_content,
    eiger_content,
    positions_file,
    positions_m,
    probe,
    ptychodus_content,
    ptyd_content,
    ptylab_content,
    write_h5,
    write_mat73,
    write_nxcxi,
)
from h5_makers import group, link, lists, null, unwritten, virtual
from malformed import Malformed

__all__ = ["DIALECTS"]

nan = np.nan
FRAMES, WHOLE = counts(), counts().astype(np.uint32)


def _of(content: Callable[[], Content], name: str, table: dict[str, Content], kind: str) -> list[Malformed]:
    return [
        Malformed(f"{kind}: {what}", lambda folder, c=changes: write_h5(folder / name, content() | c))
        for what, changes in table.items()
    ]


_DETECTOR = "entry_1/instrument_1/detector_1"
_MOVED = "entry_1/sample_1/geometry_1/translation"
_WAVELENGTH = "entry_1/instrument_1/source_1/wavelength"
_CXI: dict[str, Content] = {
    "no frames": {f"{_DETECTOR}/data": None},
    "frames a group": {f"{_DETECTOR}/data": group},
    "frames null": {f"{_DETECTOR}/data": null},
    "frames texts": {f"{_DETECTOR}/data": np.array([[b"a"] * N] * M)},
    "frames complex": {f"{_DETECTOR}/data": FRAMES + 1j},
    "frames 2-d": {f"{_DETECTOR}/data": FRAMES[0]},
    "frames 5-d": {f"{_DETECTOR}/data": FRAMES[None, None]},
    "frames of no pixels": {f"{_DETECTOR}/data": FRAMES[:, :0]},
    "frames lists": {f"{_DETECTOR}/data": lists},
    "frames NaN": {f"{_DETECTOR}/data": FRAMES * nan},
    "frames never written, 10^6 by 10^6": {f"{_DETECTOR}/data": unwritten((M, 10**6, 10**6), "u4", chunks=(1, 64, 64))},
    "frames never written, 10^12": {f"{_DETECTOR}/data": unwritten((10**12, N, N), "u4", chunks=(1, N, N))},
    "frames mapped to themselves": {f"{_DETECTOR}/data": virtual([(".", f"{_DETECTOR}/data")])},
    "frames a link to /etc/passwd": {f"{_DETECTOR}/data": link(h5py.ExternalLink("/etc/passwd", "/x"))},
    "two detectors": {"entry_1/instrument_1/detector_2/data": WHOLE[:7]},
    "two entries": cxi_content("entry_2"),
    "no positions": {_MOVED: None},
    "positions (3, M)": {_MOVED: np.zeros((3, M))},
    "positions 1-d": {_MOVED: np.arange(M)},
    "positions scalar": {_MOVED: 3.0},
    "positions text": {_MOVED: "here"},
    "positions null": {_MOVED: null},
    "positions NaN": {_MOVED: np.full((M, 3), nan)},
    "positions one fewer": {_MOVED: np.zeros((M - 1, 3))},
    "positions 1e300": {_MOVED: np.arange(3.0 * M).reshape(M, 3) * 1e300},
    "positions in kilometres": {_MOVED: np.arange(3.0 * M).reshape(M, 3) * 1e3},
    "positions never written, 10^10": {_MOVED: unwritten((10**10, 3), "f8", chunks=(1000, 3))},
    "distance 0": {f"{_DETECTOR}/distance": 0.0},
    "distance negative": {f"{_DETECTOR}/distance": -1.0},
    "distance NaN": {f"{_DETECTOR}/distance": nan},
    "distance text": {f"{_DETECTOR}/distance": "far"},
    "distance null": {f"{_DETECTOR}/distance": null},
    "distance a group": {f"{_DETECTOR}/distance": group},
    "distance of M": {f"{_DETECTOR}/distance": np.arange(1.0, M + 1)},
    "pixel 0": {f"{_DETECTOR}/x_pixel_size": 0.0},
    "pixel inf": {f"{_DETECTOR}/x_pixel_size": np.inf},
    "pixel of 1e-300": {f"{_DETECTOR}/x_pixel_size": 1e-300, f"{_DETECTOR}/y_pixel_size": 1e-300},
    "pixel not square": {f"{_DETECTOR}/x_pixel_size": 1e-4},
    "wavelength 0": {_WAVELENGTH: 0.0},
    "wavelength NaN": {_WAVELENGTH: nan},
    "wavelength of 1e-300": {_WAVELENGTH: 1e-300},
    "wavelength text": {_WAVELENGTH: "blue"},
    "wavelength a structure": {_WAVELENGTH: np.zeros(1, [("value", "f8")])},
    "no wavelength": {_WAVELENGTH: None},
    "energy 0 instead": {_WAVELENGTH: None, "entry_1/instrument_1/source_1/energy": 0.0},
    "axes of the detector NaN": {f"{_DETECTOR}/basis_vectors": np.full((3, 2), nan)},
    "axes of the detector 0": {f"{_DETECTOR}/basis_vectors": np.zeros((3, 2))},
    "axes of the detector the same": {f"{_DETECTOR}/basis_vectors": np.full((3, 2), 1e-4)},
    "axes of the detector (2, 2)": {f"{_DETECTOR}/basis_vectors": np.eye(2)},
    "axes of the detector text": {f"{_DETECTOR}/basis_vectors": "up"},
    "mask of another side": {f"{_DETECTOR}/mask": np.zeros((N + 1, N), "u4")},
    "mask text": {f"{_DETECTOR}/mask": "all"},
    "mask hides all": {f"{_DETECTOR}/mask": np.ones((N, N), "u4")},
    "mask complex": {f"{_DETECTOR}/mask": np.zeros((N, N), complex)},
    "probe NaN": {"entry_1/instrument_1/source_1/probe": np.full((N, N), nan + 0j)},
    "version text": {"cxi_version": "new", f"{_DETECTOR}/data": None},
    "entries only": {name: None for name in cxi_content() if name != "cxi_version"} | {"entry_1/a": 1},
}

_E = "entry/instrument/detector"
_EIGER: dict[str, Content] = {
    "no blocks": {"entry/data/data_000001": None, "entry/data/data_000002": None},
    "a block a group": {"entry/data/data_000001": group},
    "a block of another side": {"entry/data/data_000002": WHOLE[:8, 2:, 2:]},
    "a block of floats": {"entry/data/data_000002": FRAMES[:8]},
    "a block 2-d": {"entry/data/data_000002": WHOLE[0]},
    "a block null": {"entry/data/data_000001": null},
    "a block never written, 10^12": {"entry/data/data_000001": unwritten((10**12, N, N), "u4", chunks=(1, N, N))},
    "a block of number 10^30": {f"entry/data/data_{10**30}": WHOLE},
    "blocks of no frames": {"entry/data/data_000001": WHOLE[:0], "entry/data/data_000002": WHOLE[:0]},
    "a gap": {"entry/data/data_000001": link(h5py.ExternalLink("gone.h5", "/x"))},
    "a block of /etc/passwd": {"entry/data/data_000001": link(h5py.ExternalLink("/etc/passwd", "/x"))},
    "a block mapped to itself": {"entry/data/data_000001": virtual([(".", "entry/data/data_000001")], (12, N, N))},
    "more blocks than positions": {"entry/data/data_000003": WHOLE},
    "pixels of 0": {f"{_E}/x_pixel_size": 0.0},
    "pixels not square": {f"{_E}/x_pixel_size": 1e-4},
    "pixels text": {f"{_E}/x_pixel_size": "small"},
    "distance NaN": {f"{_E}/detector_distance": nan},
    "distance text": {f"{_E}/detector_distance": "far"},
    "wavelength negative": {"entry/instrument/beam/incident_wavelength": -1.0},
    "wavelength inf": {"entry/instrument/beam/incident_wavelength": np.inf},
    "mask of another side": {f"{_E}/detectorSpecific/pixel_mask": np.zeros((N, N + 2), "u4")},
    "mask of floats": {f"{_E}/detectorSpecific/pixel_mask": np.zeros((N, N))},
    "mask hides all": {f"{_E}/detectorSpecific/pixel_mask": np.ones((N, N), "u4")},
    "images NaN": {f"{_E}/detectorSpecific/nimages": nan},
    "images inf": {f"{_E}/detectorSpecific/nimages": np.inf},
    "images text": {f"{_E}/detectorSpecific/nimages": "many"},
    "bits of 10^9": {f"{_E}/bit_depth_image": 10**9},
    "bits of 10^18": {f"{_E}/bit_depth_image": 10**18},
    "bits negative": {f"{_E}/bit_depth_image": -8},
    "bits NaN": {f"{_E}/bit_depth_image": nan},
    "bits text": {f"{_E}/bit_depth_image": "all"},
    "centre text": {f"{_E}/beam_center_x": "middle"},
    "centre a list of texts": {f"{_E}/beam_center_x": np.array([b"7", b"8"])},
}


def _eiger() -> list[Malformed]:
    def build(changes: Content) -> Callable[[Path], Path]:
        def write(folder: Path) -> Path:
            positions_file(folder)
            return write_h5(folder / "scan_master.h5", eiger_content() | changes)

        return write

    return [Malformed(f"eiger: {name}", build(changes), BESIDE) for name, changes in _EIGER.items()]


_PTYD: dict[str, Content] = {
    "no chunk has frames": {"chunks/0/data": None, "chunks/1/data": None},
    "a chunk of no frames only": {"chunks/0/data": FRAMES[:0], "chunks/1/data": FRAMES[:0]},
    "chunks of two sides": {"chunks/1/data": FRAMES[8:, 2:, 2:]},
    "a chunk 2-d": {"chunks/0/data": FRAMES[0]},
    "a chunk texts": {"chunks/0/data": np.array([b"a", b"b"])},
    "a chunk complex": {"chunks/0/data": FRAMES[:8] + 1j},
    "a chunk null": {"chunks/0/data": null},
    "a chunk of number 10^30": {f"chunks/{10**30}/data": FRAMES},
    "a chunk never written, 10^12": {"chunks/0/data": unwritten((10**12, N, N), "f4", chunks=(1, N, N))},
    "no positions": {"chunks/0/positions": None},
    "positions (2, M)": {"chunks/0/positions": np.zeros((2, 8))},
    "positions text": {"chunks/0/positions": "here"},
    "positions NaN": {"chunks/0/positions": np.full((8, 2), nan)},
    "positions one fewer": {"chunks/0/positions": np.zeros((7, 2))},
    "positions null": {"chunks/0/positions": null},
    "weights of another side": {"meta/weight2d": np.ones((N, N + 1))},
    "weights text": {"meta/weight2d": "all"},
    "weights 0": {"meta/weight2d": np.zeros((N, N))},
    "weights never written, 10 GB": {"meta/weight2d": unwritten((10**5, 10**5), "u1", chunks=(100, 100))},
    "energy 0": {"meta/energy": 0.0},
    "energy NaN": {"meta/energy": nan},
    "no energy": {"meta/energy": None},
    "energy text": {"meta/energy": "8 keV"},
    "distance 0": {"meta/distance": 0.0},
    "pixel of three": {"meta/psize": np.array([1e-4, 2e-4, 3e-4])},
    "pixel NaN": {"meta/psize": np.full(2, nan)},
    "near field of no use": {"meta/propagation": "nearfield", "meta/distance": 1e300},
}

_PTYCHODUS: dict[str, Content] = {
    "patterns missing": {"patterns": None},
    "patterns text": {"patterns": "patterns"},
    "patterns 2-d": {"patterns": FRAMES[0]},
    "patterns null": {"patterns": null},
    "patterns complex": {"patterns": FRAMES + 1j},
    "patterns of no frame": {"patterns": FRAMES[:0]},
    "patterns one fewer": {"patterns": FRAMES[1:]},
    "bad pixels all": {"bad_pixels": np.ones((N, N), bool)},
    "bad pixels of another side": {"bad_pixels": np.ones((N, N + 1), bool)},
    "bad pixels text": {"bad_pixels": "none"},
    "bad pixels null": {"bad_pixels": null},
    "bad pixels 3-d": {"bad_pixels": np.ones((2, N, N), bool)},
    "positions y missing": {"probe_position_y_px": None},
    "positions x missing": {"probe_position_x_px": None},
    "positions y one fewer": {"probe_position_y_px": np.zeros(M - 1)},
    "positions y text": {"probe_position_y_px": "here"},
    "positions y null": {"probe_position_y_px": null},
    "positions y NaN": {"probe_position_y_px": np.full(M, nan)},
    "positions y never written, 10^11": {"probe_position_y_px": unwritten((10**11,), "f8", chunks=(1000,))},
    "probe of another side": {"probe": probe()[:, 2:, 2:]},
    "probe text": {"probe": "probe"},
    "probe null": {"probe": null},
    "object never written, 80 GB": {"object": unwritten((10**5, 10**5), "c8", chunks=(100, 100))},
    "object text": {"object": "object"},
    "object null": {"object": null},
    "pixel text": {"object_pixel_height_m": "small"},
    "pixel inf": {"object_pixel_height_m": np.inf},
    "pixel null": {"object_pixel_height_m": null},
    "energy inf": {"photon_energy_eV": np.inf},
    "energy of two": {"photon_energy_eV": np.array([1.0, 2.0])},
    "a product, without frames": {"patterns": None, "bad_pixels": None, "probe_position_y_m": np.zeros(M)}
    | {"probe_position_x_m": np.zeros(M)},
    "an index text": {"probe_position_y_px": None, "probe_position_x_px": None, "indexes": "a"},
    "an index NaN": {"probe_position_y_px": None, "probe_position_x_px": None, "indexes": np.full(M, nan)},
}

_PTYLAB: dict[str, Content] = {
    "frames 4-d": {"ptychogram": FRAMES[None]},
    "frames text": {"ptychogram": "frames"},
    "frames null": {"ptychogram": null},
    "encoder (2, M)": {"encoder": positions_m().T},
    "encoder text": {"encoder": "here"},
    "encoder NaN": {"encoder": positions_m() * nan},
    "encoder missing": {"encoder": None},
    "encoder one fewer": {"encoder": positions_m()[1:]},
    "wavelength 0": {"wavelength": 0.0},
    "wavelength missing": {"wavelength": None},
    "wavelength null": {"wavelength": null},
    "wavelength text": {"wavelength": "blue"},
    "distance NaN": {"zo": nan},
    "distance 0": {"zo": 0.0},
    "pixel negative": {"dxd": -1e-4},
    "pixel a group": {"dxd": group},
    "Fourier ptychography": {"zled": 0.1},
}

_SHELVES: dict[str, Content] = {
    "frames missing": {"dp": None},
    "frames 2-d": {"dp": FRAMES[0]},
    "frames a cell": {"dp": np.array([b"cell"])},
    "frames complex": {"dp": FRAMES.transpose(1, 2, 0) + 1j},
    "frames null": {"dp": null},
    "frames never written, 10^12": {"dp": unwritten((10**12, N, N), "f4", chunks=(1, N, N))},
    "ppX one fewer": {"ppX": positions_m()[1:, 1]},
    "ppX NaN": {"ppX": np.full(M, nan)},
    "ppX text": {"ppX": np.array([b"here"])},
    "ppX complex": {"ppX": positions_m()[:, 1] + 1j},
    "ppX null": {"ppX": null},
    "lambda in ångström": {"lambda": WAVELENGTH_M * 1e10},
    "lambda 0": {"lambda": 0.0},
    "lambda NaN": {"lambda": nan},
    "lambda text": {"lambda": np.array([b"blue"])},
    "z 0": {"z": 0.0},
    "z negative": {"z": -1.0},
    "ds NaN": {"ds": nan},
    "probe of another side": {"probe": probe()[:, 2:, 2:].transpose(1, 2, 0)},
    "probe text": {"probe": np.array([b"probe"])},
    "probe NaN": {"probe": probe().transpose(1, 2, 0) * nan},
}

_N = "entry_1/instrument_1/detector_1"


def _changed_nexus(changes: dict[str, Any]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = write_nxcxi(folder / "scan.nxs")
        with h5py.File(path, "a") as h5:
            for last, value in changes.items():
                name = f"{_N}/{last}"
                units = dict(h5[name].attrs)
                del h5[name]
                if last == "data":
                    del h5["entry_1/data/data"]  # another name of it
                if callable(value):
                    value(h5, name)
                else:
                    h5[name] = value
                    for key, unit in units.items():
                        h5[name].attrs[key] = unit
        return path

    return write


_NEXUS: dict[str, dict[str, Any]] = {
    "distance NaN": {"distance": nan},
    "distance text": {"distance": "far"},
    "pixel 0": {"x_pixel_size": 0.0},
    "frames text": {"data": "frames"},
    "frames null": {"data": null},
    "frames 2-d": {"data": FRAMES[0]},
    "frames mapped to themselves": {"data": virtual([(".", f"{_N}/data")])},
}


DIALECTS: list[Malformed] = [
    *_of(cxi_content, "scan.cxi", _CXI, "cxi"),
    *_eiger(),
    *_of(ptyd_content, "scan.ptyd", _PTYD, "ptyd"),
    *_of(ptychodus_content, "scan.h5", _PTYCHODUS, "ptychodus"),
    *_of(ptylab_content, "scan.hdf5", _PTYLAB, "ptylab"),
    *(
        Malformed(f"mat 7.3: {name}", lambda folder, c=changes: write_mat73(folder / "scan.mat", c))
        for name, changes in _SHELVES.items()
    ),
    *(Malformed(f"nexus: {name}", _changed_nexus(changes)) for name, changes in _NEXUS.items()),
]
