"""tike, HDF5 and CXI files, probes, and the choice of a reader."""

from __future__ import annotations

import bz2
import io

import h5py
import numpy as np
import pytest
from io_scans import DETECTOR, DISTANCE, PIXEL, WAVELENGTH, arrays, cxi_file, full_scan, save

from ptycho_core.bundle import Bundle, write_bundle
from ptycho_core.config import TrainingConfig
from ptycho_core.data.container import Statistics
from ptycho_core.errors import ConfigError, DataError
from ptycho_core.io import read_probe, read_scan, write_scan
from ptycho_core.io.guarded.frames import GuardedFrames
from ptycho_core.physics.forward import expected_counts


def all_counts(raw):
    return raw.read_counts(np.arange(raw.n_frames))


def tike_file(path, N=16, M=6, **changes):
    rng = np.random.default_rng(4)
    content = {
        "data": rng.poisson(9, (1, M, N, N)).astype(np.float32),
        "scan": rng.uniform(-20, 30, (1, M, 2)).astype(np.float32),
        "probe": rng.normal(size=(1, 1, 1, 2, N, N)).astype(np.complex64),
    } | changes
    content = {k: v for k, v in content.items() if v is not None}
    stream = io.BytesIO()
    np.savez(stream, **content)
    path.write_bytes(bz2.compress(stream.getvalue()))
    return content


def test_tike_frames_are_centred_and_corners_made_centres(tmp_path):
    content = tike_file(tmp_path / "a.npz.bz2")
    raw = read_scan(tmp_path / "a.npz.bz2")
    assert raw.source.dialect == "tike"
    # zero frequency from index 0 to index N/2
    np.testing.assert_array_equal(all_counts(raw)[:, 8, 8], content["data"][0, :, 0, 0])
    np.testing.assert_array_equal(all_counts(raw)[:, 9, 8], content["data"][0, :, 1, 0])
    np.testing.assert_allclose(raw.positions_px, content["scan"][0].astype(np.float64) + 7.5)
    np.testing.assert_array_equal(raw.probe, content["probe"][0, 0, 0])
    assert len(raw.source.assumptions) == 2


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"data": np.ones((2, 6, 16, 16))}, "2 views"),
        ({"data": np.ones((6, 16, 16), complex)}, "complex"),
        ({"data": np.ones((16, 16))}, r"\(1, M, N, N\)"),
        ({"scan": np.zeros((1, 5, 2)) + np.arange(5)[:, None]}, "6 frames but 5 positions"),
        ({"scan": np.zeros((1, 6, 3))}, r"positions_px has shape \(6, 3\)"),
        ({"scan": np.full((1, 6, 2), "a")}, "not real numbers"),
    ],
)
def test_bad_tike_files(tmp_path, change, match):
    path = tmp_path / "a.npz.bz2"
    tike_file(path, **change)
    with pytest.raises(DataError, match=match) as caught:
        read_scan(path)
    assert str(path) in str(caught.value)


def test_files_that_hold_counts_by_nature_refuse_amplitude(tmp_path):
    tike_file(tmp_path / "a.bz2")
    with pytest.raises(DataError, match="states that its frames are counts"):
        read_scan(tmp_path / "a.bz2", measurement="amplitude")
    assert read_scan(tmp_path / "a.bz2", measurement="counts").n_frames == 6


def test_hdf5_amplitudes_and_unstated_measurement(tmp_path):
    content = arrays()
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as h5:
        h5["frames"] = content["diff3d"]
        h5["positions_px"] = np.stack([content["ycoords"], content["xcoords"]], axis=1)
    with pytest.raises(DataError, match=r"--measurement amplitude\|counts.*look like amplitudes"):
        read_scan(path)
    asked = read_scan(path, measurement="amplitude")
    with h5py.File(path, "a") as h5:
        h5["frames"].attrs["measurement"] = "amplitude"
    told = read_scan(path)
    for raw in (asked, told):
        assert isinstance(raw.frames, GuardedFrames)
        np.testing.assert_allclose(all_counts(raw), content["diff3d"] ** 2, rtol=1e-6)
        np.testing.assert_array_equal(raw.positions_px[:, 0], content["ycoords"])
    with pytest.raises(DataError, match="states that its frames are amplitude"):
        read_scan(path, measurement="counts")


@pytest.mark.parametrize(
    ("path_in_file", "value", "match"),
    [
        ("positions_px", None, "no positions_px.*Did you mean 'position_px'"),
        ("frames", np.ones((7, 16, 16), np.complex64), "complex"),
        ("frames", np.ones((7, 16)), r"\(M, N, N\)"),
        ("frames", np.full((7, 16, 16), -1.0), "negative"),
        ("object", np.ones(5), r"\(H, W\)"),
        ("probe", np.zeros((1, 16, 16)), "zero everywhere"),
        ("probe", np.ones((1, 32, 32)), r"frames are 16×16"),
        ("mask", np.zeros((16, 16), bool), "hides every pixel"),
        ("provenance", "{not json", "not JSON"),
    ],
)
def test_bad_hdf5_files(tmp_path, path_in_file, value, match):
    path = tmp_path / "a.h5"
    write_scan(path, full_scan())
    with h5py.File(path, "a") as h5:
        del h5[path_in_file]
        if value is None:
            h5["position_px"] = np.zeros((7, 2))
        else:
            h5[path_in_file] = value
        if path_in_file == "frames":
            h5["frames"].attrs["measurement"] = "counts"
    with pytest.raises(DataError, match=match) as caught:
        read_scan(path)
    assert str(path) in str(caught.value)


def test_a_newer_hdf5_format_is_refused(tmp_path):
    write_scan(tmp_path / "a.h5", full_scan())
    with h5py.File(tmp_path / "a.h5", "a") as h5:
        h5.attrs["version"] = 2
    with pytest.raises(DataError, match=r"version 2.*Update ptycho-core"):
        read_scan(tmp_path / "a.h5")


def far_scan(M=12, N=32, seed=2):
    """Far-field counts of a complex object; object pixel (0, 0) at scan coordinate (0, 0)."""
    rng = np.random.default_rng(seed)
    r = np.arange(N) - (N - 1) / 2
    probe = np.exp(-(r[:, None] ** 2 + 1.5 * (r[None] + 1) ** 2) / 30)[None] * np.exp(0.02j * r[:, None] * r[None])
    obj = np.exp(1j * rng.normal(size=(90, 70)))
    corners = rng.integers(0, (58, 38), (M, 2))
    patches = np.stack([obj[y : y + N, x : x + N] for y, x in corners])
    rate = expected_counts(patches, probe, np.zeros((M, 2)))
    return rng.poisson(rate * 1e5 / rate.sum(axis=(1, 2)).mean()), corners + (N - 1) / 2


@pytest.mark.parametrize("basis", [True, False])
def test_cxi_positions_follow_the_axes_of_the_detector(tmp_path, basis):
    frames, positions = far_scan()
    path = cxi_file(tmp_path / "a.cxi", frames, positions, basis=basis)
    raw = read_scan(path)
    np.testing.assert_allclose(raw.positions_px, positions, atol=1e-4)
    np.testing.assert_array_equal(all_counts(raw), frames)
    assert isinstance(raw.frames, GuardedFrames)
    assert raw.geometry.pixel_size_m == pytest.approx(WAVELENGTH * DISTANCE / (32 * PIXEL), rel=1e-6)
    assert raw.geometry.energy_eV == pytest.approx(9998.7, rel=1e-4)
    assert any("basis_vectors" in text for text in raw.source.assumptions) is not basis


def test_cxi_mask_is_a_bit_field_and_energy_is_in_joules(tmp_path):
    frames, positions = far_scan()
    bits = np.zeros((32, 32), np.uint32)
    bits[1, 2], bits[3, 4], bits[5, 6], bits[7, 8] = 1, 0x2000, 0x10000, 0x8 | 0x2000
    path = cxi_file(
        tmp_path / "a.cxi",
        frames,
        positions,
        remove=["entry_1/instrument_1/source_1/wavelength"],
        **{f"{DETECTOR}/mask": bits, "entry_1/instrument_1/source_1/energy": 1.6021766e-15},
    )
    raw = read_scan(path)
    assert sorted(map(tuple, np.argwhere(~raw.mask).tolist())) == [(1, 2), (7, 8)]
    assert raw.geometry.energy_eV == pytest.approx(1e4, rel=1e-6)


@pytest.mark.parametrize(
    ("remove", "changes", "match"),
    [
        ([f"{DETECTOR}/distance"], {}, "no entry_1/instrument_1/detector_1/distance"),
        ([f"{DETECTOR}/data"], {}, r"\(M, N, N\) frames"),
        (["entry_1/sample_1/geometry_1/translation"], {}, "translation"),
        ([], {f"{DETECTOR}/distance": -1.0}, "one positive number"),
        ([], {f"{DETECTOR}/x_pixel_size": 5e-5}, "only square ones"),
        ([], {f"{DETECTOR}/data": np.ones((12, 32))}, r"must be \(M, N, N\)"),
        ([], {f"{DETECTOR}/basis_vectors": np.zeros((3, 2))}, "basis_vectors"),
        ([], {"entry_1/sample_1/geometry_1/translation": np.zeros((12, 3))}, "same point"),
    ],
)
def test_bad_cxi_files(tmp_path, remove, changes, match):
    frames, positions = far_scan()
    path = cxi_file(tmp_path / "a.cxi", frames, positions, remove=remove, **changes)
    with pytest.raises(DataError, match=match) as caught:
        read_scan(path)
    assert str(path) in str(caught.value)


def test_reader_is_chosen_by_content_and_unknown_content_lists_the_dialects(tmp_path):
    (tmp_path / "picture.npz").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    np.savez(tmp_path / "other.npz", apples=np.zeros(3), pears=np.zeros(2))
    with h5py.File(tmp_path / "other.h5", "w") as h5:
        h5["apples"] = [1, 2]
    for name in ("picture.npz", "other.npz", "other.h5"):
        with pytest.raises(DataError, match=r"Known: .*\bcxi, .*\btike, .*\bhdf5, npz") as caught:
            read_scan(tmp_path / name)
        assert name in str(caught.value)
        assert ("apples" in str(caught.value)) == (name != "picture.npz")


def test_dialect_can_be_forced_and_is_checked(tmp_path):
    path = save(tmp_path / "a.npz", arrays())
    with pytest.raises(ConfigError, match=r"allowed: cxi, .*hdf5, .*npz, .*tike.*Did you mean 'npz'"):
        read_scan(path, dialect="npzz")
    with pytest.raises(DataError, match="is NPZ, but dialect 'hdf5'"):
        read_scan(path, dialect="hdf5")
    with pytest.raises(DataError, match=r"no data \(\(1, M, N, N\)"):
        read_scan(path, dialect="tike")


def make_bundle(path, probe):
    bundle = Bundle(
        backend="numpy",
        generator="probe_unet",
        side=16,
        config=TrainingConfig(method="network"),
        statistics=Statistics(mean_counts=10.0, n_frames=3, scale=1.5),
        scale=1.5,
        weights={"layer": np.ones((2, 3), np.float32)},
        probe=probe,
        history={},
        provenance={},
    )
    write_bundle(path, bundle)


@pytest.mark.parametrize("kind", ["probeGuess", "probe", "tike", "scan", "reconstruction", "bundle"])
def test_probes_are_read_from_wherever_they_are_kept(tmp_path, kind):
    probe = arrays()["probeGuess"]
    path = tmp_path / "somewhere"
    if kind in ("probeGuess", "probe"):
        np.savez(tmp_path / "a.npz", **{kind: probe})
        path = tmp_path / "a.npz"
    elif kind == "tike":
        tike_file(path, probe=probe[None, None, None])
    elif kind == "scan":
        path = tmp_path / "a.h5"
        write_scan(path, full_scan(probe=probe))
    elif kind == "reconstruction":
        with h5py.File(path, "w") as h5:
            h5["entry/probe"] = probe
    else:
        make_bundle(path, probe)
    found = read_probe(path)
    assert found.dtype == np.complex64
    np.testing.assert_array_equal(found, probe)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"prob": np.ones((4, 4))}, "no probeGuess.*holds: prob"),
        ({"probe": np.zeros((4, 4))}, "zero everywhere"),
        ({"probe": np.full((4, 4), np.nan)}, "NaN"),
        ({"probe": np.ones((4, 5))}, r"\(N, N\)"),
        ({"probe": np.array("x")}, "complex numbers"),
    ],
)
def test_bad_probe_files(tmp_path, content, match):
    np.savez(tmp_path / "p.npz", **content)
    with pytest.raises(DataError, match=match) as caught:
        read_probe(tmp_path / "p.npz")
    assert "p.npz" in str(caught.value)


def test_a_model_is_no_scan(tmp_path):
    make_bundle(tmp_path / "model.ptycho", arrays()["probeGuess"])
    with pytest.raises(DataError, match=r"trained model.*reconstruct --model"):
        read_scan(tmp_path / "model.ptycho")
