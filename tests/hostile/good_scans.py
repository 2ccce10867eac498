"""Small sound scans in every dialect: what the malformed ones differ from in one thing each.

Each is accepted as it is, which a test checks: a malformed file that is refused for what its sound twin has too would
prove nothing.
"""

from __future__ import annotations

import bz2
import functools
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ptycho_core.data.raw import Geometry
from ptycho_core.io.write import write_scan
from ptycho_core.physics.propagation import wavelength_m
from ptycho_core.simulation import SimulatedScan, SimulationConfig, simulate_scan

M, N = 20, 16
ENERGY_EV, DISTANCE_M, DETECTOR_PIXEL_M = 8801.5, 1.25, 172e-6
WAVELENGTH_M = wavelength_m(ENERGY_EV)
PIXEL_M = WAVELENGTH_M * DISTANCE_M / (N * DETECTOR_PIXEL_M)
GRID = (5, 4)
STEP_PX = 3.2

Content = dict[str, Any]


@functools.cache
def _simulated() -> SimulatedScan:
    config = SimulationConfig(
        object="lines", N=N, grid_shape=GRID, step_px=STEP_PX, photons=3e4, n_modes=2, seed=5, pixel_size_m=PIXEL_M
    )
    return simulate_scan(config)


def counts() -> np.ndarray:
    """Frames (M, N, N) float32."""
    return _simulated().raw.read_counts(np.arange(M))


def positions_px() -> np.ndarray:
    """Frame centres (M, 2) float64 (y, x), object pixels."""
    return np.array(_simulated().raw.positions_px)


def positions_m() -> np.ndarray:
    """The same in metres."""
    return positions_px() * PIXEL_M


def probe() -> np.ndarray:
    """(2, N, N) complex64."""
    found = _simulated().raw.probe
    assert found is not None
    return np.array(found)


def npz_content() -> Content:
    """Arrays of the NPZ dialect."""
    y, x = positions_px().T
    return {
        "diff3d": counts(),
        "measurement": np.array("counts"),
        "xcoords": x + 0.5,
        "ycoords": y + 0.5,
        "probeGuess": probe(),
        "mask": np.ones((N, N), bool),
        "energy_eV": np.array(ENERGY_EV),
    }


def own_content() -> Content:
    """Datasets of our HDF5 dialect."""
    return {
        "frames": counts(),
        "positions_px": positions_px(),
        "probe": probe(),
        "mask": np.ones((N, N), bool),
        "background": np.full((N, N), 0.01, np.float32),
    }


def cxi_content(entry: str = "entry_1") -> Content:
    """Datasets of a CXI file whose detector looks along the axes of the object."""
    y, x = positions_m().T
    detector, sample = f"{entry}/instrument_1/detector_1", f"{entry}/sample_1"
    return {
        "cxi_version": 160,
        f"{detector}/data": counts().astype(np.int32),
        f"{detector}/distance": DISTANCE_M,
        f"{detector}/x_pixel_size": DETECTOR_PIXEL_M,
        f"{detector}/y_pixel_size": DETECTOR_PIXEL_M,
        f"{detector}/basis_vectors": DETECTOR_PIXEL_M * np.array([[1.0, 0.0], [0.0, -1.0], [0.0, 0.0]]),
        f"{entry}/instrument_1/source_1/wavelength": WAVELENGTH_M,
        f"{sample}/geometry_1/translation": np.stack([-y, x, 0 * x], axis=1),
    }


def eiger_content() -> Content:
    """Datasets of a detector's master file; its positions lie beside it."""
    detector = "entry/instrument/detector"
    whole = counts().astype(np.uint32)
    return {
        "entry/data/data_000001": whole[:12],
        "entry/data/data_000002": whole[12:],
        f"{detector}/detector_distance": DISTANCE_M,
        f"{detector}/x_pixel_size": DETECTOR_PIXEL_M,
        f"{detector}/y_pixel_size": DETECTOR_PIXEL_M,
        f"{detector}/beam_center_x": (N - 1) / 2,
        f"{detector}/beam_center_y": (N - 1) / 2,
        f"{detector}/bit_depth_image": 32,
        f"{detector}/detectorSpecific/pixel_mask": np.zeros((N, N), np.uint32),
        f"{detector}/detectorSpecific/nimages": M,
        f"{detector}/detectorSpecific/ntrigger": 1,
        "entry/instrument/beam/incident_wavelength": WAVELENGTH_M * 1e10,
    }


def ptyd_content() -> Content:
    """Datasets of ptypy's prepared scans."""
    whole, places = counts(), positions_m()
    return {
        "chunks/0/data": whole[:8],
        "chunks/0/positions": places[:8],
        "chunks/0/indices": np.arange(8),
        "chunks/1/data": whole[8:],
        "chunks/1/positions": places[8:],
        "chunks/1/indices": np.arange(8, M),
        "meta/energy": ENERGY_EV / 1e3,
        "meta/distance": DISTANCE_M,
        "meta/psize": np.full(2, DETECTOR_PIXEL_M),
        "meta/propagation": "farfield",
        "meta/weight2d": np.ones((N, N)),
    }


def ptychodus_content() -> Content:
    """Datasets of ptychodus' training data."""
    y, x = positions_px().T
    return {
        "patterns": counts(),
        "bad_pixels": np.zeros((N, N), bool),
        "probe_position_y_px": y,
        "probe_position_x_px": x,
        "probe": probe(),
        "object": np.ones((48, 44), np.complex64),
        "object_pixel_height_m": PIXEL_M,
        "object_pixel_width_m": PIXEL_M,
        "detector_object_distance_m": DISTANCE_M,
        "photon_energy_eV": ENERGY_EV,
    }


def ptylab_content() -> Content:
    """Datasets of PtyLab."""
    return {
        "ptychogram": counts(),
        "encoder": positions_m(),
        "wavelength": WAVELENGTH_M,
        "zo": DISTANCE_M,
        "dxd": DETECTOR_PIXEL_M,
        "entrancePupilDiameter": 8 * PIXEL_M,
    }


def shelves_content() -> Content:
    """Variables of PtychoShelves, in MATLAB's order of axes."""
    y, x = positions_m().T
    return {
        "dp": counts().transpose(1, 2, 0),
        "ppY": y,
        "ppX": x,
        "lambda": WAVELENGTH_M,
        "z": DISTANCE_M,
        "ds": DETECTOR_PIXEL_M,
        "dx": PIXEL_M,
        "probe": probe().transpose(1, 2, 0),
    }


def write_npz(path: Path, content: Content, *, compressed: bool = False) -> Path:
    """An NPZ; what is None is left out."""
    with path.open("wb") as file:
        kept = {name: value for name, value in content.items() if value is not None}
        (np.savez_compressed if compressed else np.savez)(file, **kept)
    return path


def write_h5(path: Path, content: Content, attributes: dict[str, Content] | None = None, **how: Any) -> Path:
    """An HDF5 file; what is None is left out, and what is callable is called with the file and the name."""
    with h5py.File(path, "w", **how) as h5:
        for name, value in content.items():
            if callable(value):
                value(h5, name)
            elif value is not None:
                h5[name] = value
        for name, values in (attributes or {}).items():
            if name == "/" or isinstance(h5.get(name, getlink=True), h5py.HardLink):
                for key, value in values.items():
                    h5[name].attrs[key] = value
    return path


OWN_ATTRIBUTES: dict[str, Content] = {
    "/": {"format": "ptycho-scan", "version": 1},
    "frames": {"measurement": "counts"},
    "probe": {"calibrated": False},
}


def write_own(
    path: Path, changes: Content | None = None, attributes: dict[str, Content] | None = None, **how: Any
) -> Path:
    """A scan in our HDF5 dialect, changed in some of its datasets."""
    known = dict(OWN_ATTRIBUTES)
    for name, values in (attributes or {}).items():
        known[name] = known.get(name, {}) | values
    return write_h5(path, own_content() | (changes or {}), known, **how)


def write_nxcxi(path: Path) -> Path:
    """A scan in NeXus, by our own writer."""
    instrument = Geometry(energy_eV=ENERGY_EV, distance_m=DISTANCE_M, detector_pixel_size_m=DETECTOR_PIXEL_M)
    write_scan(path, replace(_simulated().raw, geometry=instrument), format="nxcxi_ptycho")
    return path


def write_mat73(path: Path, changes: Content | None = None) -> Path:
    """A MAT file of version 7.3: HDF5 behind a text, all axes turned."""
    content = {
        name: None if value is None else value if callable(value) else _turned(value)
        for name, value in (shelves_content() | (changes or {})).items()
    }
    write_h5(path, content, userblock_size=512)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64, HDF5 schema 1.00 .".ljust(512))
    return path


def _turned(value: Any) -> np.ndarray:
    values = np.atleast_2d(np.asarray(value))
    if values.dtype.kind == "c":
        pair = np.dtype([("real", values.real.dtype), ("imag", values.imag.dtype)])
        values = np.ascontiguousarray(values).view(pair)
    return values.T


def write_mat5(path: Path, changes: Content | None = None) -> Path:
    """A MAT file of version 5."""
    from scipy.io import savemat

    savemat(path, {k: v for k, v in (shelves_content() | (changes or {})).items() if v is not None})
    return path


def tike_bytes(changes: Content | None = None) -> bytes:
    """The archive inside a tike file."""
    content: Content = {
        "data": np.fft.ifftshift(counts(), axes=(-2, -1))[None],
        "scan": (positions_px() - (N - 1) / 2)[None].astype(np.float32),
        "probe": probe()[None, None, None],
    }
    stream = io.BytesIO()
    np.savez(stream, **{k: v for k, v in (content | (changes or {})).items() if v is not None})
    return stream.getvalue()


def write_tike(path: Path, changes: Content | None = None) -> Path:
    """A tike file, compressed as a whole."""
    path.write_bytes(bz2.compress(tike_bytes(changes)))
    return path


def write_tiff(path: Path, frames: np.ndarray | None = None, **how: Any) -> Path:
    """A stack of pages; its positions lie beside it."""
    import tifffile

    tifffile.imwrite(path, counts().astype(np.uint16) if frames is None else frames, photometric="minisblack", **how)
    return path


def write_zarr(path: Path, changes: Content | None = None, *, zipped: bool = False) -> Path:
    """A Zarr store, a folder or a zip file."""
    import zarr
    import zarr.storage

    store = zarr.storage.ZipStore(path, mode="w") if zipped else str(path)
    root = zarr.open_group(store, mode="w")
    content = {"frames": counts(), "positions_px": positions_px(), "probe": probe()} | (changes or {})
    for name, value in content.items():
        if value is not None:
            stated = {"measurement": "counts"} if name == "frames" else {}
            kind, shape = np.asarray(value).dtype, np.shape(value)
            root.create_array(name, shape=shape, dtype=kind, chunks=shape, attributes=stated)[...] = value
    if zipped:
        store.close()
    return path


def positions_file(folder: Path) -> Path:
    """Positions beside a scan, a table of text: y and x in metres."""
    path = folder / "positions.txt"
    np.savetxt(path, positions_m())
    return path


BESIDE = ("--positions", "positions.txt", "--position_unit", "m")
"""Options of a scan whose positions lie beside it in ``positions.txt``."""

INSTRUMENT = ("--energy_eV", f"{ENERGY_EV}", "--distance_m", f"{DISTANCE_M}", "--detector_pixel_size_m", "172um")
"""Options of a scan that does not state its instrument."""
