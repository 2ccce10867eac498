"""What is written here, held to NeXus by a validator of it, and read by ptychodus, whose own training file lies beside.

The validator is ``nxcheck`` of nexusformat, with the definitions of NeXus 2026.01.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from io_scans import full_scan
from report_scan import make_run, make_scored

from ptycho_core.data.raw import Geometry, RawData
from ptycho_core.io import read_scan, write_scan
from ptycho_core.io.export import export_reconstruction, read_result
from ptycho_core.io.reconstruction_file import StoredReconstruction, write_reconstruction
from ptycho_core.physics.propagation import wavelength_m

pytestmark = pytest.mark.peers

KNOWN = Geometry(energy_eV=8801.5, distance_m=1.25, detector_pixel_size_m=75e-6)


@pytest.fixture
def scan() -> RawData:
    return full_scan(geometry=KNOWN, background=None, probe_calibrated=False).subset([5, 2, 3, 6])


@pytest.fixture
def stored(tmp_path: Path) -> StoredReconstruction:
    write_reconstruction(tmp_path / "reconstruction.h5", make_run(make_scored()))
    return read_result(tmp_path, replace(KNOWN, detector_pixel_size_m=55e-6))


def object_pixels(product: object) -> np.ndarray:
    """Positions on the pixels of the object's array, (M, 2) (y, x), as ptychodus maps them."""
    geometry, positions = product.object_.get_geometry(), product.probe_positions  # type: ignore[attr-defined]
    y, x = (getattr(geometry, f"map_probe_positions_to_object_{axis}_px")(positions) for axis in "yx")
    return np.stack([y, x], axis=1)


@pytest.mark.spec("DATA-42")
def test_a_product_of_a_scan_lies_where_the_scan_does(scan: RawData, tmp_path: Path) -> None:
    api = pytest.importorskip("ptychodus.api.io")
    write_scan(tmp_path / "p.h5", scan, format="ptychodus_product")
    product = api.load_product(tmp_path / "p.h5")
    assert product.probe_positions.get_indexes().tolist() == [5, 2, 3, 6]
    np.testing.assert_allclose(object_pixels(product), scan.positions_px - scan.object_guess.origin_px, atol=1e-9)
    np.testing.assert_array_equal(product.object_.get_layer(0), scan.object_guess.object)
    np.testing.assert_array_equal(product.probes.get_probe_no_opr().get_array(), scan.probe)
    assert product.metadata.photon_energy_eV == 8801.5
    assert product.metadata.detector_distance_m == 1.25
    assert product.metadata.far_field


@pytest.mark.spec("DATA-42")
def test_our_training_file_is_the_one_that_ptychodus_writes_of_our_product(scan: RawData, tmp_path: Path) -> None:
    api, reconstruct = pytest.importorskip("ptychodus.api.io"), pytest.importorskip("ptychodus.api.reconstruct")
    write_scan(tmp_path / "p.h5", scan, format="ptychodus_product")
    write_scan(tmp_path / "ours.npz", scan, format="ptychodus_training")
    parts = reconstruct.ReconstructInput(
        diffraction_patterns=scan.read_counts(np.arange(4)),
        bad_pixels=~scan.mask,
        product=api.load_product(tmp_path / "p.h5"),
    )
    api.save_ptychopinn_training_data(tmp_path / "theirs.npz", parts, inpaint_bad_pixels=False)
    with np.load(tmp_path / "ours.npz") as ours, np.load(tmp_path / "theirs.npz") as theirs:
        assert set(ours) - set(theirs) == {"measurement", "provenance"}
        for key in theirs:
            np.testing.assert_allclose(ours[key], theirs[key], atol=1e-9, err_msg=key)
            assert ours[key].shape == theirs[key].shape
    a = read_scan(tmp_path / "ours.npz")
    b = read_scan(tmp_path / "theirs.npz", measurement="counts")
    np.testing.assert_allclose(a.positions_px, b.positions_px, atol=1e-9)
    np.testing.assert_array_equal(a.mask, b.mask)


def test_a_cxi_file_of_ours_is_read_with_its_mask(scan: RawData, tmp_path: Path) -> None:
    cxi = pytest.importorskip("ptychodus.plugins.cxi_file")
    write_scan(tmp_path / "a.cxi", scan)
    dataset = cxi.CXIDiffractionFileReader().read(tmp_path / "a.cxi")
    metadata = dataset.get_metadata()
    assert metadata.photon_energy_eV == pytest.approx(8801.5, rel=1e-9)
    assert metadata.detector_distance_m == 1.25
    np.testing.assert_array_equal(dataset.get_bad_pixels(), ~scan.mask)
    np.testing.assert_array_equal(dataset[0].get_patterns(), scan.read_counts(np.arange(4)))


@pytest.mark.spec("DATA-42", "DATA-45")
def test_exported_images_lie_where_the_result_does_in_both_formats(
    stored: StoredReconstruction, tmp_path: Path
) -> None:
    api, cxi = pytest.importorskip("ptychodus.api.io"), pytest.importorskip("ptychodus.plugins.cxi_file")
    export_reconstruction(tmp_path / "p.h5", stored)
    export_reconstruction(tmp_path / "p.cxi", stored)
    pixel = wavelength_m(8801.5) * 1.25 / (32 * 55e-6)
    for product in (api.load_product(tmp_path / "p.h5"), cxi.CXIProductFileIO().read(tmp_path / "p.cxi")):
        np.testing.assert_allclose(object_pixels(product), stored.positions_px - stored.origin_px, atol=1e-9)
        np.testing.assert_array_equal(product.object_.get_layer(0), stored.object)
        assert product.object_.get_geometry().pixel_width_m == pytest.approx(pixel, rel=1e-12)
        power = float(np.sum(np.abs(product.probes.get_array()) ** 2))
        assert power == pytest.approx(stored.scale * float(np.sum(np.abs(stored.probe) ** 2)), rel=1e-4)
    with h5py.File(tmp_path / "p.h5") as h5:
        assert h5.attrs["probe_photon_count"] == pytest.approx(power, rel=1e-4)


def complaints(path: Path, *options: str) -> list[tuple[str, str]]:
    """What nxcheck calls an error, each with the field or group that it is about."""
    pytest.importorskip("nexusformat.scripts.nxcheck")
    command = [sys.executable, "-m", "nexusformat.scripts.nxcheck", str(path), "--error", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line).strip() for line in (done.stdout + done.stderr).splitlines()]
    (total,) = [int(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("Total number of errors")]
    body = [line for line in lines if line and not line.startswith(("Total", "Filename", "Path", "Definitions"))]
    found = [(body[n - 1], line) for n, line in enumerate(body) if not re.match(r"[\w ]*: ", line)]
    assert len(found) == total, lines
    return found


def test_nxcheck_finds_the_application_definition_kept(scan: RawData, tmp_path: Path) -> None:
    write_scan(tmp_path / "a.nxs", scan)
    assert complaints(tmp_path / "a.nxs", "--application", "NXcxi_ptycho") == []
    with h5py.File(tmp_path / "a.nxs", "r+") as h5:
        del h5["entry_1/instrument_1/beam_1/energy"]
    assert complaints(tmp_path / "a.nxs", "--application", "NXcxi_ptycho") != []


def test_nxcheck_of_base_classes_minds_only_what_is_not_known_and_what_viewers_need(
    scan: RawData, tmp_path: Path
) -> None:
    write_scan(tmp_path / "a.nxs", scan)
    ((where, what),) = complaints(tmp_path / "a.nxs")
    assert where.endswith("source_1/type"), "the kind of source is not known, and no word of the list says that"
    write_reconstruction(tmp_path / "r.h5", make_run(make_scored(pixel_size_m=26e-9)))
    ((where, what),) = complaints(tmp_path / "r.h5")
    assert where.endswith("/entry/r_map")
    assert "axes" in what, "silx and h5web draw a scatter plot of two axes"
