"""No file of a caller's is opened by a compiled library in this process; it does not even import one for that."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import good_scans as good
import h5py
import numpy as np
import pytest

from ptycho_core.io import read_scan
from ptycho_core.limits import Limits

pytestmark = pytest.mark.hostile

LIBRARIES = ("h5py", "hdf5plugin", "tifffile", "zarr", "fabio", "matplotlib", "scipy.io")

_READ = """
import json, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if any(name == one or name.startswith(one + ".") for one in {libraries!r}):
            raise AssertionError(name + " is imported by the process that must open no file")
sys.meta_path.insert(0, Refuse())
from pathlib import Path
from ptycho_core.inspection.examine import inspect_scan
from ptycho_core.inspection.suggest_mapping import suggest_mapping
from ptycho_core.io import read_scan
from ptycho_core.io.probes import read_probe
from ptycho_core.io.stored_reconstruction import read_reconstruction
from ptycho_core.reader_protocol import ReadOptions

for name, said in json.load(sys.stdin):
    try:
        raw = read_scan(name, **said)
        print(name, raw.n_frames, raw.side, float(raw.read_counts(range(raw.n_frames)).sum()), raw.source.dialect)
        assert inspect_scan(name, options=ReadOptions(**said)).n_frames
    except Exception as error:
        raise SystemExit(f"{{name}}: {{error}}")
print("probe", read_probe("own.h5").shape, read_probe("shelves5.mat").shape, read_probe("reconstruction.h5").shape)
print("reconstruction", read_reconstruction("reconstruction.h5").object.shape)
print("draft", "frames:" in suggest_mapping("own.h5"), "frames:" in suggest_mapping("store.zarr"))
"""


def written(folder: Path) -> list[tuple[str, dict[str, object]]]:
    """A sound scan of every container, and every kind of file beside one; what is said of each."""
    M, N = good.M, good.N
    good.positions_file(folder)
    frames, mask = good.counts().astype("u2"), np.ones((N, N), "u1")
    with h5py.File(folder / "beside.h5", "w") as h5:
        h5["mask"], h5["level"] = mask, np.full((N, N), 0.01)
        h5["y"], h5["x"] = good.positions_m().T
        h5["y"].attrs["units"] = h5["x"].attrs["units"] = "m"
    np.save(folder / "mask.npy", mask)
    good.write_tiff(folder / "mask.tif", mask)
    from matplotlib.image import imsave
    from scipy.io import savemat

    imsave(folder / "mask.png", np.where(mask == 1, 1.0, 0.0), cmap="gray", vmin=0, vmax=1)
    savemat(folder / "positions.mat", {"positions": good.positions_m()})
    (folder / "numbers.txt").write_text("\n".join(map(str, range(2, M))))
    beside = {"positions": "positions.txt", "position_unit": "m", "energy_eV": good.ENERGY_EV}
    beside |= {"distance_m": good.DISTANCE_M, "detector_pixel_size_m": good.DETECTOR_PIXEL_M}
    for kind in ("tif", "npy", "h5", "edf"):
        (folder / kind).mkdir()
        for number, frame in enumerate(frames):
            path = folder / kind / f"frame_{number:03d}.{kind}"
            if kind == "tif":
                good.write_tiff(path, frame)
            elif kind == "npy":
                np.save(path, frame)
            elif kind == "h5":
                good.write_h5(path, {"data": frame})
            else:
                from fabio.edfimage import edfimage

                edfimage(data=frame).write(str(path))
    np.save(folder / "bare.npy", frames)
    padded = np.zeros((M, 130, 128), "<f4")
    padded[:, 56:72, 56:72] = frames
    padded.tofile(folder / "scan_x5_y4.raw")
    good.write_npz(folder / "own.npz", good.npz_content())
    good.write_npz(folder / "packed.npz", good.npz_content(), compressed=True)
    good.write_own(folder / "own.h5")
    good.write_h5(folder / "scan.cxi", good.cxi_content())
    good.write_nxcxi(folder / "nexus.nxs")
    good.write_mat73(folder / "shelves73.mat")
    good.write_mat5(folder / "shelves5.mat")
    good.write_tike(folder / "tike.npz.bz2")
    good.write_tiff(folder / "stack.tif")
    good.write_zarr(folder / "store.zarr")
    good.write_zarr(folder / "store.zip", zipped=True)
    mapping = "frames: {path: frames, measurement: counts}\npositions: {path: positions_px, unit: px}\n"
    (folder / "mapping.yaml").write_text(mapping)
    reconstruction(folder / "reconstruction.h5")
    own = [
        ("own.h5", {"mask": "mask.npy"}),
        ("own.h5", {"mask": "mask.tif", "background": "beside.h5:/level"}),
        ("own.h5", {"mask": "mask.png"}),
        ("own.npz", {"mask": "beside.h5:/mask", "measurement": "counts"}),
        ("own.h5", {"positions": "beside.h5", **{k: v for k, v in beside.items() if "pos" not in k}}),
        ("own.h5", {"positions": "beside.h5:y,x", **{k: v for k, v in beside.items() if "pos" not in k}}),
        ("own.h5", {**beside, "positions": "positions.mat"}),
        ("own.h5", {**beside, "positions": "reconstruction.h5", "position_unit": "px"}),
        ("own.h5", {"frames": "numbers.txt"}),
        ("own.h5", {"mapping": "mapping.yaml"}),
        ("own.npz", {"measurement": "counts"}),
        ("packed.npz", {"measurement": "counts"}),
    ]
    plain = ["scan.cxi", "nexus.nxs", "store.zarr", "store.zip"]
    counts = ["shelves73.mat", "shelves5.mat", "tike.npz.bz2"]
    series = ["tif/*.tif", "npy/*.npy", "h5/*.h5", "edf/*.edf", "bare.npy", "stack.tif"]
    return [
        *own,
        *((name, {}) for name in plain),
        *((name, {"measurement": "counts"}) for name in counts),
        *((name, beside) for name in series),
        ("scan_x5_y4.raw", beside | {"crop": 16}),
    ]


def reconstruction(path: Path) -> None:
    """The least that is a reconstruction."""
    with h5py.File(path, "w") as h5:
        entry = h5.create_group("entry")
        entry["object"] = np.ones((40, 44), "c8") * (1 + 0.5j)
        entry["object"].attrs["origin_px"] = np.zeros(2)
        entry["coverage"] = np.ones((40, 44), "f4")
        entry["probe"] = good.probe()
        entry["positions_px"], entry["scale"] = good.positions_px(), 2.0


@pytest.mark.spec("READ-52")
def test_every_container_is_read_without_a_library_in_this_process(tmp_path: Path) -> None:
    scans = written(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", _READ.format(libraries=LIBRARIES)],
        input=json.dumps(scans),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert len(lines) == len(scans) + 3
    dialects = {line.split()[-1] for line in lines[:-3]}
    wanted = {"hdf5", "npz", "cxi", "nxcxi_ptycho", "tike", "tiff", "zarr", "zarr_zip", "files", "empad", "mapped"}
    assert dialects >= wanted
    assert lines[-1] == "draft True True"


@pytest.mark.spec("READ-52")
def test_the_way_without_the_guard_reads_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scans = written(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name, said in scans:
        guarded, bare = read_scan(name, **said), read_scan(name, **said, limits=Limits(guard=False))
        frames = range(guarded.n_frames)
        np.testing.assert_array_equal(guarded.read_counts(frames), bare.read_counts(frames), err_msg=name)
        np.testing.assert_array_equal(guarded.positions_px, bare.positions_px)
        assert guarded.source == bare.source
