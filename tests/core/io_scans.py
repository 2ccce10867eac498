"""Small scans that no symmetry can hide a mistake in, for the tests of readers and writers."""

from __future__ import annotations

import h5py
import numpy as np

from ptycho_core.data.raw import Geometry, ObjectGuess, RawData, Source

DETECTOR = "entry_1/instrument_1/detector_1"
PIXEL, DISTANCE, WAVELENGTH = 75e-6, 2.0, 1.24e-10


def arrays(M=7, N=16, P=2, seed=0):
    """Plain arrays of the NPZ dialect, amplitudes that are roots of whole counts."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(20, (M, N, N)).astype(np.float32)
    return {
        "diff3d": np.sqrt(counts),
        "xcoords": rng.uniform(10, 90, M),
        "ycoords": rng.uniform(10, 40, M),
        "probeGuess": (rng.normal(size=(P, N, N)) + 1j * rng.normal(size=(P, N, N))).astype(np.complex64),
    }


def save(path, content, compressed=False, **changes):
    """Write an NPZ; a change to None removes the key."""
    content = {k: v for k, v in (content | changes).items() if v is not None}
    (np.savez_compressed if compressed else np.savez)(path, **content)
    return path


def full_scan(M=7, N=16, P=2, seed=0, **changes):
    """A RawData in which nothing is left out."""
    rng = np.random.default_rng(seed)
    given = {
        "counts": rng.poisson(20, (M, N, N)).astype(np.float32),
        "positions_px": rng.uniform((-3, 5), (40, 90), (M, 2)),
        "probe": rng.normal(size=(P, N, N)) + 1j * rng.normal(size=(P, N, N)),
        "probe_calibrated": True,
        "mask": rng.random((N, N)) > 0.1,
        "background": rng.random((N, N)).astype(np.float32),
        "object_guess": ObjectGuess(
            object=(rng.normal(size=(20, 31)) + 1j * rng.normal(size=(20, 31))).astype(np.complex64),
            origin_px=np.array([-7.25, 3.5]),
        ),
        "geometry": Geometry(energy_eV=8801.5, distance_m=1.25, pixel_size_m=1.1e-8),
        "source": Source(
            path="somewhere/before.npz",
            assumptions=("Rows step down — as drawn.",),
            warnings=("One odd thing.",),
            details={"seed": 3, "drawn": [1.5, None, {"deep": True}]},
        ),
    }
    return RawData.from_arrays(**(given | changes))


def assert_same_scan(a: RawData, b: RawData):
    """Equal to the last bit in everything a file should keep."""
    everything = np.arange(a.n_frames)
    np.testing.assert_array_equal(a.read_counts(everything), b.read_counts(everything))
    np.testing.assert_array_equal(a.positions_px, b.positions_px)
    np.testing.assert_array_equal(a.frame_totals, b.frame_totals)
    for name in ("probe", "mask", "background"):
        left, right = getattr(a, name), getattr(b, name)
        assert (left is None) == (right is None), name
        if left is not None:
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)
    assert a.probe_calibrated is b.probe_calibrated
    assert (a.object_guess is None) == (b.object_guess is None)
    if a.object_guess is not None:
        np.testing.assert_array_equal(a.object_guess.object, b.object_guess.object)
        np.testing.assert_array_equal(a.object_guess.origin_px, b.object_guess.origin_px)
    assert a.geometry == b.geometry
    assert a.propagation == b.propagation
    assert a.source.assumptions == b.source.assumptions
    assert a.source.warnings == b.source.warnings
    assert a.source.details == b.source.details


def cxi_file(path, frames, positions_px, *, basis=True, remove=(), **changes):
    """Positions on the object become motions of the sample, in metres, along the detector's axes."""
    N = frames.shape[-1]
    step = WAVELENGTH * DISTANCE / (N * PIXEL)
    rows, columns = (np.array([0, -1.0, 0]), np.array([-1.0, 0, 0]))
    if basis:
        rows, columns = np.array([1.0, 0, 0]), np.array([0, -1.0, 0])
    translation = -step * (positions_px[:, :1] * rows + positions_px[:, 1:] * columns)
    content = {
        "cxi_version": 160,
        f"{DETECTOR}/data": frames.astype(np.int32),
        f"{DETECTOR}/distance": DISTANCE,
        f"{DETECTOR}/x_pixel_size": PIXEL,
        f"{DETECTOR}/y_pixel_size": PIXEL,
        "entry_1/instrument_1/source_1/wavelength": WAVELENGTH,
        "entry_1/sample_1/geometry_1/translation": translation,
    }
    if basis:
        content[f"{DETECTOR}/basis_vectors"] = PIXEL * np.stack([rows, columns], axis=1)
    content |= {key.replace("__", "/"): value for key, value in changes.items()}
    with h5py.File(path, "w") as h5:
        for key, value in content.items():
            if key not in remove:
                h5[key] = value
        if DETECTOR + "/data" in h5:
            h5["entry_1/data_1/data"] = h5py.SoftLink(f"/{DETECTOR}/data")
    return path
