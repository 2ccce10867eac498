"""Every bad file gives one DataError that names it and says what was found and how to mend it."""

from __future__ import annotations

import os
import zipfile

import numpy as np
import pytest
from io_scans import arrays, full_scan, save

from ptycho_core.errors import ConfigError, DataError
from ptycho_core.io import read_scan, write_scan

BASE = arrays()


def refused(path, match, **options):
    with pytest.raises(DataError, match=match) as caught:
        read_scan(path, **options)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"diff3d": None}, "no diff3d .*holds: probeGuess, xcoords, ycoords"),
        ({"diff3d": None, "dif3d": BASE["diff3d"]}, "Did you mean 'dif3d'"),
        ({"xcoords": None, "xcoord": BASE["xcoords"]}, "no xcoords.*Did you mean 'xcoord'"),
        ({"ycoords": None}, "no ycoords"),
        ({"diff3d": BASE["diff3d"][0]}, r"shape \(16, 16\).*\(M, N, N\)"),
        ({"diff3d": BASE["diff3d"][None]}, r"\(M, N, N\)"),
        ({"diff3d": BASE["diff3d"][:, :10, :12].transpose(1, 2, 0)[:, :, :6]}, r"must be \(M, N, N\), or \(N, N, M\)"),
        ({"diff3d": BASE["diff3d"] + 0j}, "complex"),
        ({"diff3d": np.full((7, 16, 16), "text")}, "real numbers"),
        ({"diff3d": BASE["diff3d"][:6]}, "6 frames but 7 positions"),
        ({"diff3d": np.ones((7, 6, 7)), "probeGuess": None}, "even, from 8 to 4096"),
        ({"diff3d": np.zeros((7, 16, 16))}, "nothing to reconstruct"),
        ({"diff3d": np.where(BASE["diff3d"] > 4, np.nan, 1)}, "NaN or infinite"),
        ({"diff3d": BASE["diff3d"] - 4}, "negative"),
        ({"diff3d": np.zeros((0, 16, 16)), "xcoords": np.zeros(0), "ycoords": np.zeros(0)}, "no frames"),
        ({"xcoords": BASE["xcoords"][:5]}, "5 x coordinates but 7 y"),
        ({"xcoords": np.ones((7, 2))}, r"'xcoords' has shape \(7, 2\)"),
        ({"xcoords": BASE["xcoords"] + 1j}, "'xcoords' holds complex128"),
        ({"xcoords": np.where(BASE["xcoords"] > 50, np.nan, 1)}, "not finite"),
        ({"xcoords": np.ones(7), "ycoords": np.ones(7)}, "same point"),
        ({"xcoords": BASE["xcoords"] * 1e-8, "ycoords": BASE["ycoords"] * 1e-8}, "metres"),
        ({"probeGuess": np.ones((32, 32))}, "frames are 16×16"),
        ({"probeGuess": np.zeros((16, 16))}, "zero everywhere"),
        ({"probeGuess": np.array("x")}, "complex numbers"),
        ({"mask": np.zeros((16, 16), bool)}, "hides every pixel"),
        ({"mask": np.ones((8, 8), bool)}, "mask has shape"),
        ({"mask": np.ones((16, 16), bool), "bad_pixels": np.zeros((16, 16), bool)}, "keep one"),
        ({"background": np.full((16, 16), -1.0)}, "background"),
        ({"objectGuess": np.ones(9)}, "objectGuess"),
        ({"objectGuess": np.ones((9, 9)), "object_origin_px": np.ones(3)}, "object_origin_px"),
        ({"measurement": np.array("photons")}, "'photons'.*allowed: 'amplitude'"),
        ({"measurement": np.array([1.0])}, "must be one text"),
        ({"pixel_centre": np.array("middle")}, "'middle'; allowed"),
        ({"probe_calibrated": np.array(2)}, "one bool"),
        ({"energy_eV": np.array(-5.0)}, "'energy_eV' must be one positive number"),
        ({"provenance": np.array("{")}, "not JSON"),
        ({"provenance": np.array('{"assumptions": [1]}')}, "lists of texts"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_bad_npz(tmp_path, changes, match, compressed):
    measurement = None if "measurement" in changes else "amplitude"
    refused(save(tmp_path / "bad.npz", BASE, compressed, **changes), match, measurement=measurement)


@pytest.mark.spec("DATA-7")
@pytest.mark.parametrize(
    ("frames", "looks"),
    [
        (BASE["diff3d"], "look like amplitudes"),
        ((BASE["diff3d"] ** 2).round(), "look like counts"),
        (BASE["diff3d"] * 1.234567, None),
        ((BASE["diff3d"] > 4).astype(float), None),
    ],
)
def test_unstated_measurement_tells_the_fix_and_what_the_values_look_like(tmp_path, frames, looks):
    text = refused(save(tmp_path / "a.npz", BASE, diff3d=frames), r"--measurement amplitude\|counts")
    assert (looks in text) if looks else ("look like" not in text)


@pytest.mark.spec("DATA-7")
def test_contradicting_measurement(tmp_path):
    path = save(tmp_path / "a.npz", BASE, measurement=np.array("amplitude"))
    refused(path, "are amplitude, but measurement 'counts' was asked for.*Leave out", measurement="intensity")
    with pytest.raises(ConfigError, match="'photons'"):
        read_scan(path, measurement="photons")


def test_pickled_objects_are_refused_and_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    for key in ("diff3d", "_metadata"):
        bomb = np.empty((), dtype=object)
        bomb[()] = Bomb()
        path = save(tmp_path / f"{key}.npz", BASE, **{key: bomb})
        refused(path, f"'{key}' holds Python objects .*never", measurement="amplitude")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("keep", [0, 3, 40, 0.5, 0.98])
@pytest.mark.parametrize("name", ["a.npz", "a.h5", "a.npz.bz2"])
def test_truncated_files(tmp_path, name, keep):
    import bz2

    whole = tmp_path / ("a.h5" if name == "a.h5" else "a.npz")
    write_scan(whole, full_scan())
    content = whole.read_bytes()
    content = bz2.compress(content) if name.endswith("bz2") else content
    path = tmp_path / f"cut-{name}"
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    refused(path, "empty" if keep == 0 else "truncated|not a scan|cannot be read")


def test_damaged_bytes_inside_a_compressed_member(tmp_path):
    path = save(tmp_path / "a.npz", BASE, compressed=True)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("diff3d.npy").header_offset
    content[start + 2000 : start + 2050] = bytes(50)
    path.write_bytes(content)
    refused(path, "damaged or truncated", measurement="amplitude")


def test_header_that_claims_more_frames_than_the_member_holds(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for key, value in BASE.items():
            with archive.open(f"{key}.npy", "w") as member:
                if key == "diff3d":
                    header = {"descr": "<f4", "fortran_order": False, "shape": (7, 32, 32)}
                    np.lib.format.write_array_header_1_0(member, header)
                    member.write(value.tobytes())
                else:
                    np.lib.format.write_array(member, value)
    refused(path, "damaged or truncated", measurement="amplitude")


def test_missing_file_folder_and_unreadable_file(tmp_path):
    save(tmp_path / "star_64.npz", BASE)
    refused(tmp_path / "star_46.npz", "no such file. Did you mean 'star_64.npz'")
    refused(tmp_path / "nowhere" / "a.npz", "no such file")
    refused(tmp_path, "a folder that is no scan in any known dialect; name the scan file")
    if os.geteuid():
        (tmp_path / "star_64.npz").chmod(0)
        refused(tmp_path / "star_64.npz", "cannot be read")


def test_importing_io_loads_no_heavy_package():
    import subprocess
    import sys

    code = "import sys, ptycho_core.io; print(sorted({'h5py', 'scipy', 'matplotlib', 'torch'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
