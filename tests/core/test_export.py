"""Exports of images: pixels, scale and place are those of the result, in each format's own way."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from report_scan import make_run, make_scored, refined_run

from ptycho_core.api.compare import compare
from ptycho_core.data.propagation import Propagation
from ptycho_core.data.raw import Geometry
from ptycho_core.errors import ConfigError, DataError, MissingPackageError, OutputError
from ptycho_core.io import read_probe
from ptycho_core.io.export import EXPORTS, choose_export, export_reconstruction, read_result
from ptycho_core.io.reconstruction_file import StoredReconstruction, write_reconstruction
from ptycho_core.physics.forward import expected_counts
from ptycho_core.physics.gauge import taken_off
from ptycho_core.physics.propagation import wavelength_m

KNOWN = Geometry(energy_eV=8801.5, distance_m=1.25, detector_pixel_size_m=55e-6)
PIXEL = wavelength_m(8801.5) * 1.25 / (32 * 55e-6)
FILES = {export.name: f"a{export.suffixes[0]}" for export in EXPORTS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result folder, as far as an export looks into it; its file does not know the instrument."""
    path = tmp_path_factory.mktemp("result")
    write_reconstruction(path / "reconstruction.h5", make_run(make_scored()))
    return path


@pytest.fixture
def stored(folder: Path) -> StoredReconstruction:
    return read_result(folder, KNOWN)


def thick(stored: StoredReconstruction) -> StoredReconstruction:
    half = np.sqrt(stored.object)
    return replace(stored, slices=np.stack([half, half * 1j]).astype(np.complex64), slice_spacing_m=2e-6)


def test_the_suffix_or_the_name_chooses_the_format() -> None:
    found = {
        name: choose_export(name, None).name for name in ("x.tif", "x.ome.tiff", "x.cxi", "x.ptyr", "x.h5", "x.npz")
    }
    assert list(found.values()) == ["tiff", "tiff", "cxi", "ptyr", "ptychodus_product", "npz"]
    assert choose_export(None, "ptyr").name == "ptyr"
    with pytest.raises(ConfigError, match=r"--format, or --out with the suffix of one.*tiff \(\.tif \.tiff\), cxi"):
        choose_export(None, None)
    with pytest.raises(ConfigError, match=r"format = 'tif'; allowed: tiff, .*Did you mean 'tiff'"):
        choose_export(None, "tif")
    with pytest.raises(ConfigError, match=r"x\.png: a file of format tiff ends in \.tif or \.tiff"):
        choose_export("x.png", "tiff")


def test_a_result_is_read_from_its_folder_or_its_file_and_completed(folder: Path) -> None:
    for path in (folder, folder / "reconstruction.h5"):
        found = read_result(path, KNOWN)
        assert found.geometry == KNOWN
        assert read_result(path).geometry == Geometry()
    with pytest.raises(ConfigError, match="energy_eV = -1; it must be a finite number > 0"):
        read_result(folder, Geometry(energy_eV=-1))
    with pytest.raises(DataError, match=r"reconstruction\.h5: no such file"):
        read_result(folder.parent)


def test_what_is_given_does_not_contradict_the_file(tmp_path: Path) -> None:
    write_reconstruction(tmp_path / "r.h5", make_run(make_scored(pixel_size_m=26e-9)))
    assert read_result(tmp_path / "r.h5", Geometry(pixel_size_m=26e-9)).geometry.pixel_size_m == 26e-9
    with pytest.raises(DataError, match=r"states pixel_size_m = 2\.6e-08, but 2\.7e-08 was given; leave pixel_"):
        read_result(tmp_path / "r.h5", Geometry(pixel_size_m=27e-9))


# ---- TIFF


@pytest.mark.spec("DATA-45")
@pytest.mark.parametrize(("pixel_m", "unit", "per_unit"), [(26e-9, "nm", 1 / 26), (0.3e-6, "um", 1 / 0.3)])
def test_a_tiff_carries_phase_amplitude_and_scale_as_imagej_reads_them(
    tmp_path: Path, folder: Path, pixel_m: float, unit: str, per_unit: float
) -> None:
    tifffile = pytest.importorskip("tifffile")
    stored = read_result(folder, Geometry(pixel_size_m=pixel_m))
    notes = export_reconstruction(tmp_path / "a.tif", stored)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        phase, amplitude = file.asarray()
        assert file.is_imagej
        assert file.series[0].axes == "CYX"
        assert file.imagej_metadata["unit"] == unit
        assert file.imagej_metadata["Labels"] == ["phase (rad)", "amplitude"]
        for tag in ("XResolution", "YResolution"):
            above, below = file.pages[0].tags[tag].value
            assert above / below == pytest.approx(per_unit, rel=1e-6)
    lit = stored.coverage > 0
    assert phase.dtype == amplitude.dtype == np.float32
    assert np.isnan(phase[~lit]).all()
    assert not lit.all()
    np.testing.assert_array_equal(amplitude[lit], np.abs(stored.object)[lit])
    off = taken_off(stored.object, stored.coverage)
    assert f"global phase of {off.phase_rad:.4f} rad" in notes[0]
    turned = np.exp(1j * phase) * off.wave(phase.shape)
    np.testing.assert_allclose(turned[lit], stored.object[lit] / np.abs(stored.object[lit]), atol=1e-4)
    assert any("probe, positions" in note for note in notes)


@pytest.mark.spec("DATA-45")
def test_an_ome_tiff_says_the_side_of_a_pixel_in_its_xml(tmp_path: Path, stored: StoredReconstruction) -> None:
    tifffile = pytest.importorskip("tifffile")
    export_reconstruction(tmp_path / "a.ome.tif", replace(stored, geometry=Geometry(pixel_size_m=26e-9)))
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        assert file.is_ome
        assert file.asarray().shape == (2, *stored.object.shape)
        for text in ('PhysicalSizeX="26.0"', 'PhysicalSizeYUnit="nm"', 'Name="phase (rad)"'):
            assert text in file.ome_metadata


def test_a_tiff_without_a_pixel_size_says_so(tmp_path: Path, folder: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    notes = export_reconstruction(tmp_path / "a.tif", thick(read_result(folder)))
    assert any("there is no scale; give --pixel_size_m" in note for note in notes)
    assert any("product of its 2 slices" in note for note in notes)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert "unit" not in file.imagej_metadata


def test_without_tifffile_the_extra_is_named(
    tmp_path: Path, stored: StoredReconstruction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'ptycho-core\[readers\]'"):
        export_reconstruction(tmp_path / "a.tif", stored)
    assert list(tmp_path.iterdir()) == []


# ---- HDF5


@pytest.mark.spec("DATA-42", "DATA-45")
def test_a_product_puts_every_position_on_its_object_pixel(tmp_path: Path, stored: StoredReconstruction) -> None:
    stored = thick(replace(stored, refinement_losses={"train_loss": [3.0, 1.0]}))
    notes = export_reconstruction(tmp_path / "p.h5", stored, format="ptychodus_product")
    with h5py.File(tmp_path / "p.h5") as h5:
        obj = h5["object"]
        np.testing.assert_array_equal(obj[()], stored.slices)
        for axis, name, size in ((0, "y", "height"), (1, "x", "width")):
            pixel = obj.attrs[f"pixel_{size}_m"]
            assert pixel == pytest.approx(PIXEL, rel=1e-12)
            at = (h5[f"probe_position_{name}_m"][()] - obj.attrs[f"center_{name}_m"]) / pixel
            at += (obj.shape[1 + axis] - 1) / 2
            np.testing.assert_allclose(at, stored.positions_px[:, axis] - stored.origin_px[axis], atol=1e-9)
        assert h5["probe_position_indexes"][()].tolist() == list(range(77))
        assert h5["object_layer_spacing_m"][()].tolist() == [2e-6]
        assert h5["loss_values"][()].tolist() == [3.0, 1.0]
        assert h5["loss_epochs"][()].tolist() == [1, 2]
        assert h5.attrs["name"] == "Scan <1> & more"
        assert json.loads(h5.attrs["comments"])["figures"]["train"]["r_factor"] > 0
    assert any("those of training are left out" in note for note in notes)


@pytest.mark.spec("DATA-45")
@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("ptychodus_product", "probe"),
        ("ptyr", "content/probe/S00G00/data"),
        ("cxi", "entry_1/instrument_1/source_1/illumination"),
    ],
)
def test_an_exported_probe_explains_counts_with_no_scale_beside_it(
    tmp_path: Path, stored: StoredReconstruction, name: str, path: str
) -> None:
    notes = export_reconstruction(tmp_path / FILES[name], stored, format=name)
    with h5py.File(tmp_path / FILES[name]) as h5:
        probe = h5[path][()]
    assert probe.shape == (2, 32, 32)
    np.testing.assert_array_equal(read_probe(tmp_path / FILES[name]), probe)
    patch, rest = stored.object[None, 20:52, 15:47], np.array([[0.2, -0.4]])
    np.testing.assert_allclose(
        expected_counts(patch, probe, rest, 1.0),
        expected_counts(patch, stored.probe, rest, stored.scale),
        rtol=1e-4,
        atol=1e-4,
    )
    assert stored.scale > 100
    assert any("in photons" in note for note in notes)


@pytest.mark.spec("DATA-45")
def test_a_file_like_ptypys_has_object_and_probe_where_its_readers_look(
    tmp_path: Path, stored: StoredReconstruction
) -> None:
    export_reconstruction(tmp_path / "a.ptyr", stored)
    with h5py.File(tmp_path / "a.ptyr") as h5:
        obj = h5["content/obj/S00G00"]
        np.testing.assert_array_equal(obj["data"][()], stored.object[None])
        np.testing.assert_allclose(obj["_psize"][()], [PIXEL, PIXEL], rtol=1e-12)
        np.testing.assert_allclose(obj["_origin"][()], stored.origin_px * PIXEL, rtol=1e-12)
        assert h5["content/probe/S00G00/_energy"][()] == pytest.approx(8.8015)
        np.testing.assert_allclose(h5["content/probe/S00G00/_origin"][()], -15.5 * PIXEL * np.ones(2), rtol=1e-12)
        np.testing.assert_allclose(h5["ptycho_core/positions_m"][()], stored.positions_px * PIXEL, rtol=1e-12)
    unknown = replace(stored, geometry=Geometry(pixel_size_m=1e-8))
    assert any("no _energy" in note for note in export_reconstruction(tmp_path / "b.ptyr", unknown))


@pytest.mark.spec("DATA-45")
def test_a_cxi_file_has_both_images_with_their_size_and_place(tmp_path: Path, stored: StoredReconstruction) -> None:
    export_reconstruction(tmp_path / "a.cxi", stored)
    height, width = stored.object.shape
    with h5py.File(tmp_path / "a.cxi") as h5:
        entry = h5["entry_1"]
        np.testing.assert_array_equal(entry["image_2/data"][()], stored.object[None])
        assert entry["data_1/data"] == entry["image_2/data"]
        np.testing.assert_allclose(entry["image_2/image_size"][()], [width * PIXEL, height * PIXEL, 0], rtol=1e-12)
        assert entry["image_1/data_space"].asstr()[()] == "real"
        translation = entry["sample_1/geometry_1/translation"][()]
        np.testing.assert_allclose(translation[:, :2], stored.positions_px[:, ::-1] * PIXEL, rtol=1e-12)
        y = stored.origin_px[0] + (height - 1) / 2
        assert entry["ptychodus/object_center_y_m"][()] == pytest.approx(y * PIXEL)
        np.testing.assert_array_equal(entry["ptycho_core/origin_px"][()], stored.origin_px)
        assert entry["process_1/program"].asstr()[()] == "ptycho-core"
        assert entry["process_1/version"].asstr()[()]


@pytest.mark.parametrize("name", ["cxi", "ptyr", "ptychodus_product"])
def test_metres_are_asked_for_where_the_result_does_not_know_them(tmp_path: Path, folder: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"reconstruction\.h5: .* --energy_eV --distance_m --detector_pixel_size_m"):
        export_reconstruction(tmp_path / FILES[name], read_result(folder), format=name)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_said_is_refused_or_told(tmp_path: Path, stored: StoredReconstruction) -> None:
    electrons = replace(stored, geometry=replace(KNOWN, radiation="electron"))
    with pytest.raises(DataError, match=r"the scan is of electrons; .* is for photons"):
        export_reconstruction(tmp_path / "p.h5", electrons)
    with pytest.raises(DataError, match="does not say how waves propagate"):
        export_reconstruction(tmp_path / "p.h5", replace(stored, propagation=None))
    near = replace(stored, propagation=Propagation("near_field", 0.2), mode_weights=np.ones((77, 2), np.float32))
    notes = " ".join(export_reconstruction(tmp_path / "p.h5", near))
    assert "Fresnel number is left out" in notes
    assert "what each frame takes" in notes.lower()
    with h5py.File(tmp_path / "p.h5") as h5:
        assert not h5.attrs["far_field"]


# ---- NPZ


@pytest.mark.spec("DATA-45")
def test_an_npz_holds_all_arrays_and_serves_as_image_and_as_probe(tmp_path: Path, folder: Path) -> None:
    stored = thick(read_result(folder, KNOWN))
    assert export_reconstruction(tmp_path / "a.npz", stored) == ("Images of earlier stages are left out.",)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        for name in ("object", "coverage", "origin_px", "probe", "positions_px", "role", "frame_sums", "slices"):
            np.testing.assert_array_equal(file[name], getattr(stored, name))
        assert file["scale"][()] == stored.scale
        assert file["energy_eV"][()] == 8801.5
        assert str(file["propagation"]) == "far_field"
        assert json.loads(str(file["figures"])) == stored.figures
        assert json.loads(str(file["losses"])) == stored.losses
    np.testing.assert_array_equal(read_probe(tmp_path / "a.npz"), stored.probe)
    score = compare(tmp_path / "a.npz", folder / "reconstruction.h5")
    assert score.correlation == pytest.approx(1.0, abs=1e-6)


# ---- whole or not at all


def test_the_result_itself_is_not_written_over_and_a_failure_leaves_nothing(
    tmp_path: Path, folder: Path, stored: StoredReconstruction, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OutputError, match="is the file that the image was read from"):
        export_reconstruction(folder / "reconstruction.h5", stored)
    path = tmp_path / "a.npz"
    export_reconstruction(path, stored)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        export_reconstruction(path, replace(stored, figures={"x": object()}))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_the_image_that_is_exported_is_the_last_one(tmp_path: Path) -> None:
    run = refined_run(make_scored())
    write_reconstruction(tmp_path / "r.h5", run)
    export_reconstruction(tmp_path / "a.npz", read_result(tmp_path / "r.h5"))
    with np.load(tmp_path / "a.npz") as file:
        np.testing.assert_array_equal(file["object"], run.image.object)
        assert json.loads(str(file["refinement_losses"]))["train_loss"] == [-1.0, -1.5]
