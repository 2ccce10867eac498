"""What ptychodus itself writes, read here: its training files, and its diffraction files with a product beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from dialect_scan import DETECTOR, DISTANCE, ENERGY, PIXEL, deviance, positions_m, truth

from ptycho_core.data.raw import RawData
from ptycho_core.errors import DataError
from ptycho_core.io import read_probe, read_scan
from ptycho_core.io.registry import choose_reader

pytestmark = pytest.mark.peers

CENTRE = (41.3e-7, -2.6e-7)  # (y, x) metres, of the object's array


def product_of(raw: RawData, obj: np.ndarray, numbers: np.ndarray) -> Any:
    """The scan as a product of ptychodus, made of its own classes, in the order of some frame numbers."""
    pytest.importorskip("ptychodus.api.product")
    from ptychodus.api.geometry import PixelGeometry
    from ptychodus.api.object import Object, ObjectCenter
    from ptychodus.api.probe import ProbeSequence
    from ptychodus.api.probe_positions import ProbePosition, ProbePositionSequence
    from ptychodus.api.product import Product, ProductMetadata

    pixel = PixelGeometry(width_m=PIXEL, height_m=PIXEL)
    middle = (np.array(obj.shape) - 1) / 2
    places = (raw.positions_px - middle) * PIXEL + CENTRE
    points = [ProbePosition(int(k), places[k, 1], places[k, 0]) for k in numbers]
    return Product(
        metadata=ProductMetadata(
            name="scan",
            comments="",
            detector_distance_m=DISTANCE,
            photon_energy_eV=ENERGY,
            probe_photon_count=0.0,
            exposure_time_s=0.0,
            mass_attenuation_m2_per_kg=0.0,
            tomography_angle_deg=0.0,
        ),
        probe_positions=ProbePositionSequence(points),
        probes=ProbeSequence(array=np.asarray(raw.probe)[None], opr_weights=None, pixel_geometry=pixel),
        object_=Object(
            array=obj.astype(np.complex64)[None],
            pixel_geometry=pixel,
            center=ObjectCenter(y_m=CENTRE[0], x_m=CENTRE[1]),
            layer_spacing_m=[],
        ),
        losses=[],
    )


@pytest.mark.spec("READ-21")
@pytest.mark.parametrize("kind", ["npz", "hdf5"])
def test_training_files_of_ptychodus(tmp_path: Path, kind: str) -> None:
    raw, obj = truth()
    product = product_of(raw, obj, np.arange(raw.n_frames))
    from ptychodus.api.io import save_ptychopinn_training_data, save_training_data
    from ptychodus.api.reconstruct import ReconstructInput

    bad = np.zeros((raw.side, raw.side), bool)
    bad[3, 5] = True
    counts = raw.read_counts(np.arange(raw.n_frames)).astype(np.uint32)
    parts = ReconstructInput(diffraction_patterns=counts, bad_pixels=bad, product=product)
    path = tmp_path / f"train.{kind}"
    (save_ptychopinn_training_data if kind == "npz" else save_training_data)(path, parts)
    assert choose_reader(path)[0].name == ("ptychodus_npz" if kind == "npz" else "ptychodus")
    read = read_scan(path)
    np.testing.assert_allclose(read.positions_px, raw.positions_px, atol=1e-9)
    np.testing.assert_array_equal(read.probe, raw.probe)
    np.testing.assert_array_equal(read.mask, ~bad)
    expected = np.where(bad, 0, counts).astype(np.float32)
    np.testing.assert_array_equal(read.read_counts(np.arange(raw.n_frames)), expected)
    # the object lies where the scan says
    np.testing.assert_array_equal(read.object_guess.object, obj.astype(np.complex64))
    np.testing.assert_array_equal(read.object_guess.origin_px, (0, 0))
    if kind == "hdf5":
        assert read.geometry.energy_eV == ENERGY
        assert read.geometry.pixel_size_m == pytest.approx(PIXEL)


@pytest.mark.spec("READ-22")
@pytest.mark.parametrize("product_kind", ["h5", "npz"])
@pytest.mark.parametrize("frames_kind", ["h5", "npz"])
def test_frames_and_a_product_that_ptychodus_wrote(tmp_path: Path, frames_kind: str, product_kind: str) -> None:
    """Half of the frames, in an order of their own; the product has all of them in another."""
    raw, obj = truth()
    rng = np.random.default_rng(1)
    product = product_of(raw, obj, rng.permutation(raw.n_frames))
    from ptychodus.api.assemble import AssembledDiffractionData
    from ptychodus.api.diffraction import (
        DiffractionDatasetLayoutNode,
        DiffractionMetadata,
        SimpleDiffractionArray,
        SimpleDiffractionDataset,
    )
    from ptychodus.api.geometry import ImageExtent, PixelGeometry
    from ptychodus.api.io import save_diffraction_data, save_product
    from ptychodus.plugins.npz_diffraction_file import NPZDiffractionFileIO
    from ptychodus.plugins.npz_product_file import NPZProductFileIO

    numbers = rng.permutation(raw.n_frames)[: raw.n_frames // 2]
    counts = raw.read_counts(numbers).astype(np.uint16)
    bad = np.zeros((raw.side, raw.side), bool)
    frames, beside = tmp_path / f"diffraction.{frames_kind}", tmp_path / f"product.{product_kind}"
    if product_kind == "h5":
        save_product(beside, product)
    else:
        NPZProductFileIO().write(beside, product)
    if frames_kind == "h5":
        detector = PixelGeometry(width_m=DETECTOR, height_m=DETECTOR)
        save_diffraction_data(frames, AssembledDiffractionData(numbers, counts, detector, bad))
    else:
        metadata = DiffractionMetadata(
            num_patterns_per_array=[len(numbers)],
            pattern_dtype=counts.dtype,
            detector_extent=ImageExtent(raw.side, raw.side),
            file_path=frames,
        )
        array = SimpleDiffractionArray(label="a", indexes=numbers, patterns=counts)
        tree = DiffractionDatasetLayoutNode.create_root()
        NPZDiffractionFileIO().write(frames, SimpleDiffractionDataset(metadata, tree, [array], bad))
    with pytest.raises(DataError, match=rf"probably in product\.{product_kind}"):
        read_scan(frames)
    read = read_scan(frames, positions=beside)
    assert read.n_frames == len(numbers)
    np.testing.assert_allclose(
        read.positions_px - read.positions_px[0],
        raw.positions_px[numbers] - raw.positions_px[numbers[0]],
        atol=1e-6,
    )
    np.testing.assert_array_equal(read.read_counts(np.arange(len(numbers))), counts.astype(np.float32))
    assert deviance(read, raw.subset(numbers), obj) == pytest.approx(1.0, abs=0.1)
    assert read.geometry.energy_eV == ENERGY
    np.testing.assert_array_equal(read_probe(beside), raw.probe)
    with pytest.raises(DataError, match="no frames"):
        read_scan(beside)


def test_what_ptychodus_reads_of_a_file_of_slac_is_what_is_read_here(tmp_path: Path) -> None:
    slac = pytest.importorskip("ptychodus.plugins.slac_npz_file")
    raw, obj = truth()
    counts = raw.read_counts(np.arange(raw.n_frames))
    for name, (y, x) in {"metres": positions_m(raw).T, "pixels": raw.positions_px.T}.items():
        path = tmp_path / f"{name}.npz"
        np.savez(
            path,
            diffraction=counts.transpose(1, 2, 0),
            xcoords_start=x,
            ycoords_start=y,
            probeGuess=raw.probe,
            objectGuess=obj,
            detector_distance_m=DISTANCE,
            photon_energy_eV=ENERGY,
            detector_pixel_size_m=DETECTOR,
        )
        theirs = slac.SLACProductFileReader().read(path)
        read = read_scan(path)
        assert read.source.dialect == "ptychodus_npz"
        places = np.array([[p.y_m, p.x_m] for p in theirs.probe_positions])
        ours = read.positions_px * read.geometry.pixel_size_m
        np.testing.assert_allclose(ours - ours[0], places - places[0], rtol=1e-6, atol=1e-15)
        patterns = slac.SLACDiffractionFileReader().read(path)[0].get_patterns()
        np.testing.assert_array_equal(read.read_counts(np.arange(raw.n_frames)), patterns)


def test_the_pair_of_fold_slice_is_read_as_ptychodus_reads_it(tmp_path: Path) -> None:
    fold_slice = pytest.importorskip("ptychodus.plugins.fold_slice.position_file")
    raw, obj = truth()
    frames, beside = tmp_path / "s_dp.hdf5", tmp_path / "s_para.hdf5"
    y, x = positions_m(raw).T
    with h5py.File(frames, "w") as h5:
        h5["dp"] = raw.read_counts(np.arange(raw.n_frames))
    with h5py.File(beside, "w") as h5:
        h5["ppX"], h5["ppY"], h5["dx"], h5["lambda"] = x, y, PIXEL, 1.239841984e-6 / ENERGY
    theirs = fold_slice.FoldSlicePositionFileReader().read(beside)
    parameters = fold_slice.read_fold_slice_parameters(beside)
    read = read_scan(frames, positions=beside)
    ours = read.positions_px * read.geometry.pixel_size_m
    np.testing.assert_allclose(ours, [[p.y_m, p.x_m] for p in theirs], rtol=1e-9)
    assert read.geometry.wavelength_m == pytest.approx(parameters.photon_wavelength_m)
    assert read.geometry.pixel_size_m == parameters.object_pixel_size_m
    assert deviance(read, raw, obj) == pytest.approx(1.0, abs=0.1)
