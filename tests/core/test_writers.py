"""Writers of scans: what is written reads back, what a format cannot hold is said, and nothing is made up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from io_scans import assert_same_scan, full_scan

from ptycho_core.data.frames import ArrayFrames, ConcatenatedFrames, TransposedFrames
from ptycho_core.data.propagation import Propagation
from ptycho_core.data.raw import Geometry, RawData
from ptycho_core.errors import Cancelled, ConfigError, DataError, OutputError
from ptycho_core.io import read_probe, read_scan, write_scan
from ptycho_core.io.write import WRITERS, choose_writer
from ptycho_core.io.writers import common
from ptycho_core.physics.propagation import fresnel_number_of, wavelength_m
from ptycho_core.protocol import ProgressEvent

KNOWN = Geometry(energy_eV=8801.5, distance_m=1.25, detector_pixel_size_m=75e-6)
PLAIN = {"probe_calibrated": False, "background": None, "object_guess": None}
FORMATS = {writer.name: f"a{writer.suffixes[0]}" for writer in WRITERS}


def known_scan(**changes: object) -> RawData:
    """A scan with everything that a file can have, whose instrument is known."""
    return full_scan(**({"geometry": KNOWN} | changes))


def everything(raw: RawData) -> np.ndarray:
    return raw.read_counts(np.arange(raw.n_frames))


def text_of(lost: tuple[str, ...]) -> str:
    return "\n".join(lost)


# ---- which format


def test_the_suffix_or_the_name_chooses_the_format() -> None:
    found = {suffix: choose_writer(f"x{suffix}").name for suffix in (".npz", ".h5", ".hdf5", ".cxi", ".nxs")}
    assert found == {".npz": "npz", ".h5": "hdf5", ".hdf5": "hdf5", ".cxi": "cxi", ".nxs": "nxcxi_ptycho"}
    assert choose_writer("x.h5", "nxcxi_ptycho").name == "nxcxi_ptycho"
    assert choose_writer("x.h5", "ptychodus_product").function == "write_product"
    with pytest.raises(ConfigError, match=r"format = 'cxy'; allowed: npz, .*Did you mean 'cxi'"):
        choose_writer("x.cxi", "cxy")
    with pytest.raises(ConfigError, match=r"x\.npz: a file of format cxi ends in \.cxi or \.h5 or \.hdf5"):
        choose_writer("x.npz", "cxi")
    with pytest.raises(OutputError, match=r"--format: npz, hdf5, cxi, .*found suffix '\.tif'"):
        choose_writer("x.tif")


# ---- exact round trips


@pytest.mark.spec("DATA-40")
@pytest.mark.parametrize("name", ["npz", "hdf5"])
@pytest.mark.parametrize("geometry", [KNOWN, Geometry(energy_eV=300e3, pixel_size_m=9.3e-10, radiation="electron")])
def test_our_own_formats_lose_nothing(tmp_path: Path, name: str, geometry: Geometry) -> None:
    raw = known_scan(geometry=geometry)
    assert write_scan(tmp_path / FORMATS[name], raw, format=name) == ()
    again = read_scan(tmp_path / FORMATS[name])
    assert again.geometry.radiation == geometry.radiation
    np.testing.assert_array_equal(everything(again), everything(raw))
    np.testing.assert_array_equal(again.positions_px, raw.positions_px)
    write_scan(tmp_path / f"b{FORMATS[name][1:]}", again, format=name)
    assert_same_scan(again, read_scan(tmp_path / f"b{FORMATS[name][1:]}"))


@pytest.mark.spec("DATA-40")
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("name", ["cxi", "nxcxi_ptycho"])
def test_cxi_and_nexus_read_back_and_say_what_they_lack(tmp_path: Path, compress: bool, name: str) -> None:
    raw = known_scan()
    lost = write_scan(tmp_path / FORMATS[name], raw, compress=compress)
    again = read_scan(tmp_path / FORMATS[name])
    assert again.source.dialect == name
    assert again.source.warnings == ()
    np.testing.assert_array_equal(everything(again), everything(raw))
    np.testing.assert_array_equal(again.probe, raw.probe)
    np.testing.assert_array_equal(again.mask, raw.mask)
    np.testing.assert_allclose(again.positions_px, raw.positions_px, rtol=0, atol=1e-9)
    assert again.geometry.energy_eV == pytest.approx(8801.5, rel=1e-12)
    assert (again.geometry.distance_m, again.geometry.detector_pixel_size_m) == (1.25, 75e-6)
    assert again.propagation == raw.propagation
    assert len(lost) == 3
    for word in ("object that came with the scan", "background", "probe is in photons"):
        assert word in text_of(lost)


@pytest.mark.spec("DATA-40")
@pytest.mark.parametrize("name", ["npz", "hdf5", "cxi", "nxcxi_ptycho"])
def test_of_a_plain_scan_nothing_is_lost_and_nothing_is_said(tmp_path: Path, name: str) -> None:
    assert write_scan(tmp_path / FORMATS[name], known_scan(**PLAIN), format=name) == ()


def test_positions_of_a_cxi_file_are_the_motion_of_the_sample_in_metres(tmp_path: Path) -> None:
    raw = known_scan()
    write_scan(tmp_path / "a.cxi", raw)
    pixel = wavelength_m(8801.5) * 1.25 / (16 * 75e-6)
    with h5py.File(tmp_path / "a.cxi") as h5:
        detector = h5["entry_1/instrument_1/detector_1"]
        rows, columns = detector["basis_vectors"][()].T / 75e-6
        translation = h5["entry_1/sample_1/geometry_1/translation"][()]
        np.testing.assert_allclose(-translation @ rows, raw.positions_px[:, 0] * pixel, atol=1e-18)
        np.testing.assert_allclose(-translation @ columns, raw.positions_px[:, 1] * pixel, atol=1e-18)
        np.testing.assert_array_equal(detector["mask"][()] == 0, raw.mask)
        assert set(np.unique(detector["mask"][()])) == {0, 1}
        assert h5["entry_1/instrument_1/source_1/energy"][()] == pytest.approx(8801.5 * 1.602176634e-19, rel=1e-12)
        assert h5["entry_1/data_1/data"] == detector["data"]
        assert (
            h5["entry_1/data_1/translation"] == h5["entry_1/sample_1/geometry_1/translation"] == detector["translation"]
        )
        assert h5["cxi_version"][()] == 160
        np.testing.assert_array_equal(h5["entry_1/instrument_1/source_1/illumination"][()], raw.probe)
        provenance = json.loads(h5["entry_1/note_1/data"].asstr()[()])
    assert provenance["written_from"] == "before.npz"
    assert provenance["details"] == raw.source.details


def test_whole_counts_are_integers_and_others_are_not_rounded(tmp_path: Path) -> None:
    raw = known_scan(**PLAIN)
    write_scan(tmp_path / "whole.cxi", raw)
    broken = everything(raw) + np.float32(0.25)
    half = known_scan(counts=broken, **PLAIN)
    assert write_scan(tmp_path / "half.cxi", half) == ()
    huge = np.where(np.arange(7)[:, None, None] == 6, np.float32(2.0**31), everything(raw))
    write_scan(tmp_path / "huge.cxi", known_scan(counts=huge, **PLAIN))
    kinds = {}
    for name in ("whole", "half", "huge"):
        with h5py.File(tmp_path / f"{name}.cxi") as h5:
            kinds[name] = h5["entry_1/data_1/data"].dtype.str
    assert kinds == {"whole": "<i4", "half": "<f4", "huge": "<f4"}
    np.testing.assert_array_equal(everything(read_scan(tmp_path / "half.cxi")), everything(half))
    assert "no whole numbers" in text_of(write_scan(tmp_path / "half.nxs", half))


def test_a_near_field_scan_goes_through_cxi_by_the_number_that_is_said(tmp_path: Path) -> None:
    m, p, z, energy = 40.0, 55e-6, 1.12, 12000.0
    F = fresnel_number_of(energy, z, p, m)
    raw = known_scan(
        geometry=Geometry(energy_eV=energy, distance_m=z, detector_pixel_size_m=p, pixel_size_m=p / m),
        propagation=Propagation("near_field", F),
        **PLAIN,
    )
    (lost,) = write_scan(tmp_path / "a.cxi", raw)
    assert f"--propagation near_field:{F!r}" in lost
    again = read_scan(tmp_path / "a.cxi", propagation=Propagation("near_field", F))
    assert again.propagation == raw.propagation
    assert again.geometry.pixel_size_m == pytest.approx(p / m, rel=1e-12)
    np.testing.assert_allclose(again.positions_px, raw.positions_px, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["cxi", "nxcxi_ptycho"])
def test_electrons_are_written_by_their_wavelength(tmp_path: Path, name: str) -> None:
    geometry = Geometry(energy_eV=300e3, distance_m=1.0, detector_pixel_size_m=50e-6, radiation="electron")
    raw = known_scan(geometry=geometry, **PLAIN)
    assert write_scan(tmp_path / FORMATS[name], raw) == ()
    again = read_scan(tmp_path / FORMATS[name])
    assert again.geometry.radiation == "electron"
    assert again.geometry.energy_eV == pytest.approx(300e3, rel=1e-9)
    np.testing.assert_allclose(again.positions_px, raw.positions_px, rtol=0, atol=1e-9)
    if name == "cxi":
        with h5py.File(tmp_path / FORMATS[name]) as h5:
            source = h5["entry_1/instrument_1/source_1"]
            assert source["wavelength"][()] == pytest.approx(1.9687e-12, rel=1e-4)
            assert "energy" not in source, "what reads it as that of a photon would take another wavelength"
    with pytest.raises(DataError, match=r"the scan is of electrons; .* is for photons"):
        write_scan(tmp_path / "p.h5", raw, format="ptychodus_product")


# ---- the instrument: what is missing follows, or is asked for


@pytest.mark.parametrize("missing", ["distance_m", "detector_pixel_size_m", "pixel_size_m"])
@pytest.mark.parametrize("near", [False, True])
def test_one_length_follows_from_the_others(missing: str, near: bool) -> None:
    m = 30.0
    a = 75e-6 / m if near else wavelength_m(8801.5) * 1.25 / (16 * 75e-6)
    geometry = replace(KNOWN, pixel_size_m=a)
    propagation = Propagation("near_field", fresnel_number_of(8801.5, 1.25, 75e-6, m)) if near else Propagation()
    full = common.complete_instrument("x", geometry, propagation, 16, "CXI")
    assert full.notes == ()
    found = common.complete_instrument("x", replace(geometry, **{missing: None}), propagation, 16, "CXI")
    for key in ("distance_m", "detector_pixel_size_m", "pixel_size_m", "wavelength_m"):
        assert getattr(found, key) == pytest.approx(getattr(full, key), rel=1e-12), key
    assert full.pixel_size_m == pytest.approx(a, rel=1e-12)
    assert len(found.notes) == (missing != "pixel_size_m")
    assert all(note.startswith(missing) for note in found.notes)


@pytest.mark.spec("DATA-41")
@pytest.mark.parametrize("name", ["cxi", "nxcxi_ptycho", "ptychodus_product"])
@pytest.mark.parametrize(
    ("geometry", "match"),
    [
        (Geometry(), r"energy_eV, distance_m, detector_pixel_size_m are not known\. Give --energy_eV --distance_m"),
        (Geometry(pixel_size_m=2e-8), r"From the object pixel of 2e-08 m alone they do not follow\. Give --energy_eV"),
        (replace(KNOWN, energy_eV=None, pixel_size_m=2e-8), r"and energy_eV is not known\. Give --energy_eV\."),
        (Geometry(energy_eV=8e3, pixel_size_m=2e-8), r"Give --distance_m --detector_pixel_size_m\."),
        (Geometry(energy_eV=8e3, distance_m=1.0), r"detector_pixel_size_m is not known\. Give --detector_pixel_size_m"),
        (replace(KNOWN, pixel_size_m=2e-8), r"pixel_size_m = 2e-08, but energy, distance and detector pixel make"),
    ],
)
def test_metres_are_not_made_up(tmp_path: Path, name: str, geometry: Geometry, match: str) -> None:
    raw = replace(known_scan(), geometry=geometry)
    with pytest.raises(DataError, match=match) as caught:
        write_scan(tmp_path / FORMATS[name], raw, format=name)
    assert "somewhere/before.npz" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_pixel_that_was_rounded_is_written_as_the_instrument_makes_it(tmp_path: Path) -> None:
    exact = wavelength_m(8801.5) * 1.25 / (16 * 75e-6)
    raw = replace(known_scan(**PLAIN), geometry=replace(KNOWN, pixel_size_m=exact * 1.0004))
    (note,) = write_scan(tmp_path / "a.cxi", raw)
    assert note.startswith("The object pixel is written as energy, distance and detector pixel make it")
    np.testing.assert_allclose(read_scan(tmp_path / "a.cxi").positions_px, raw.positions_px, atol=1e-9)


# ---- NXcxi_ptycho

NX_CLASSES = {
    "entry_1": "NXentry",
    "entry_1/instrument_1": "NXinstrument",
    "entry_1/instrument_1/source_1": "NXsource",
    "entry_1/instrument_1/beam_1": "NXbeam",
    "entry_1/instrument_1/detector_1": "NXdetector",
    "entry_1/instrument_1/detector_1/transformations": "NXtransformations",
    "entry_1/data": "NXdata",
    "entry_1/data_1": "NXcollection",
    "entry_1/sample_1": "NXsample",
    "entry_1/sample_1/transformations": "NXtransformations",
    "entry_1/sample_1/geometry_1": "NXcollection",
}
NX_REQUIRED = (
    "entry_1/definition",
    *(f"entry_1/instrument_1/source_1/{name}" for name in ("name", "energy", "probe", "type")),
    *(f"entry_1/instrument_1/beam_1/{name}" for name in ("energy", "incident_beam_energy", "incident_energy_spread")),
    *(
        f"entry_1/instrument_1/detector_1/{name}"
        for name in ("translation", "data", "data_1", "x_pixel_size", "y_pixel_size", "distance")
    ),
    *("entry_1/data/data", "entry_1/data/x", "entry_1/data/y", "entry_1/data_1/data", "entry_1/data_1/translation"),
    *("entry_1/sample_1/transformations/x", "entry_1/sample_1/geometry_1/translation", "cxi_version"),
)


def test_nxcxi_has_what_its_definition_asks_for(tmp_path: Path) -> None:
    raw = known_scan()
    lost = write_scan(tmp_path / "a.nxs", raw)
    assert len(lost) == 3
    with h5py.File(tmp_path / "a.nxs") as h5:
        for path, nx_class in NX_CLASSES.items():
            assert h5[path].attrs["NX_class"] == nx_class, path
        assert [path for path in NX_REQUIRED if path not in h5] == []
        assert h5["entry_1/definition"].asstr()[()] == "NXcxi_ptycho"
        beam, detector = h5["entry_1/instrument_1/beam_1"], h5["entry_1/instrument_1/detector_1"]
        assert beam["energy"][()] == pytest.approx(8801.5 * 1.602176634e-19, rel=1e-12)
        assert beam["energy"].attrs["units"] == "J"
        assert np.isnan(h5["entry_1/instrument_1/source_1/energy"][()]), "the machine's, which is not known"
        assert detector["distance"][()] == 1.25
        lengths = ("distance", "x_pixel_size", "y_pixel_size", "translation", "basis_vectors")
        assert {detector[name].attrs["units"] for name in lengths} == {"m"}
        assert detector["translation"].attrs["axes"] == "translation:y:x"
        assert detector["translation"].attrs["interpretation"] == "image"
        for path in ("entry_1/data/data", "entry_1/data_1/data", "entry_1/instrument_1/detector_1/data_1"):
            assert h5[path] == detector["data"], path
        np.testing.assert_array_equal(detector["data"][()], everything(raw))
        np.testing.assert_array_equal(detector["pixel_mask"][()] == 0, raw.mask)
        motors = h5["entry_1/sample_1/transformations"]
        for axis, column in (("x", 0), ("y", 1)):
            np.testing.assert_array_equal(motors[axis][()], detector["translation"][:, column])
            assert motors[axis].attrs["transformation_type"] == "translation"
            assert motors[axis].attrs["units"] == "m"
        plot = h5[h5.attrs["default"]][h5["entry_1"].attrs["default"]]
        assert plot.attrs["signal"] == "data"
        assert list(plot.attrs["axes"]) == ["x", ".", "."]


# ---- ptychodus


def test_the_training_npz_has_the_keys_and_the_pixels_of_ptychodus(tmp_path: Path) -> None:
    raw = known_scan()
    lost = text_of(write_scan(tmp_path / "a.npz", raw, format="ptychodus_training"))
    origin = raw.object_guess.origin_px
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        wanted = {"xcoords", "ycoords", "xcoords_start", "ycoords_start", "diff3d", "bad_pixels", "probeGuess"}
        assert set(file) >= wanted | {"objectGuess", "scan_index"}
        np.testing.assert_array_equal(file["ycoords"], raw.positions_px[:, 0] - origin[0])
        np.testing.assert_array_equal(file["xcoords_start"], raw.positions_px[:, 1] - origin[1])
        np.testing.assert_array_equal(file["diff3d"], everything(raw))
        np.testing.assert_array_equal(file["bad_pixels"], ~raw.mask)
        np.testing.assert_array_equal(file["probeGuess"], raw.probe)
        np.testing.assert_array_equal(file["objectGuess"], raw.object_guess.object)
    for word in ("(-7.25, 3.5) px", "Energy, distance", "Bad pixels hold 0", "background", "probe is in photons"):
        assert word in lost
    again = read_scan(tmp_path / "a.npz")
    np.testing.assert_allclose(again.positions_px, raw.positions_px - origin, atol=1e-12)
    np.testing.assert_array_equal(again.mask, raw.mask)
    np.testing.assert_array_equal(everything(again), everything(raw))


def test_a_training_npz_of_a_scan_without_an_object_has_empty_space_that_holds_every_frame(tmp_path: Path) -> None:
    raw = known_scan(object_guess=None, mask=None)
    lost = text_of(write_scan(tmp_path / "a.npz", raw, format="ptychodus_training"))
    assert "objectGuess is empty space" in lost
    with np.load(tmp_path / "a.npz") as file:
        assert (file["objectGuess"] == 1).all()
        shape = file["objectGuess"].shape
        for axis, key in enumerate(("ycoords", "xcoords")):
            assert file[key].min() - 7.5 >= 0
            assert file[key].max() + 7.5 <= shape[axis] - 1
            np.testing.assert_allclose(np.mod(raw.positions_px[:, axis] - file[key], 1), 0, atol=1e-9)
        assert not file["bad_pixels"].any()


@pytest.mark.spec("DATA-42")
def test_a_product_has_unique_numbers_metres_and_the_centre_of_the_object(tmp_path: Path) -> None:
    raw = known_scan().subset([5, 2, 3])
    lost = text_of(write_scan(tmp_path / "p.h5", raw, format="ptychodus_product"))
    pixel = wavelength_m(8801.5) * 1.25 / (16 * 75e-6)
    with h5py.File(tmp_path / "p.h5") as h5:
        assert h5["probe_position_indexes"][()].tolist() == [5, 2, 3]
        np.testing.assert_allclose(h5["probe_position_y_m"], raw.positions_px[:, 0] * pixel, rtol=1e-12)
        np.testing.assert_allclose(h5["probe_position_x_m"], raw.positions_px[:, 1] * pixel, rtol=1e-12)
        obj = h5["object"]
        np.testing.assert_array_equal(obj[0], raw.object_guess.object)
        # pixel (0, 0), found as ptychodus finds it, lies where the scan says
        first_y = obj.attrs["center_y_m"] - (20 - 1) / 2 * obj.attrs["pixel_height_m"]
        first_x = obj.attrs["center_x_m"] - (31 - 1) / 2 * obj.attrs["pixel_width_m"]
        np.testing.assert_allclose([first_y, first_x], raw.object_guess.origin_px * pixel, rtol=1e-9)
        assert h5["probe"].shape == (2, 16, 16)
        assert h5["probe"].attrs["pixel_width_m"] == pytest.approx(pixel)
        assert h5.attrs["photon_energy_eV"] == h5.attrs["probe_energy_eV"] == 8801.5
        assert h5.attrs["detector_object_distance_m"] == 1.25
        assert bool(h5.attrs["far_field"])
        assert h5.attrs["probe_photon_count"] == pytest.approx(float(np.sum(np.abs(raw.probe) ** 2)), rel=1e-5)
        assert h5["object_layer_spacing_m"].shape == (0,)
    assert "the counts and the mask are left out" in lost
    twice = known_scan().subset([5, 2, 5])
    with pytest.raises(DataError, match="numbers each frame once"):
        write_scan(tmp_path / "q.h5", twice, format="ptychodus_product")
    for name in ("ptychodus_product", "ptychodus_training"):
        with pytest.raises(DataError, match="has a probe, and the scan has none; give --probe"):
            write_scan(tmp_path / FORMATS[name], replace(known_scan(), probe=None), format=name)


@pytest.mark.spec("DATA-42")
def test_a_product_beside_its_frames_is_the_scan_again(tmp_path: Path) -> None:
    """Frames as ptychodus keeps them, in another order, find their positions in the product by number."""
    raw = known_scan(**PLAIN).subset([5, 2, 3, 6])
    write_scan(tmp_path / "product.h5", raw, format="ptychodus_product")
    with h5py.File(tmp_path / "frames.h5", "w") as h5:
        h5["patterns"], h5["indexes"] = everything(raw)[::-1], [6, 3, 2, 5]
        h5["patterns"].attrs.update(detector_pixel_width_m=75e-6, detector_pixel_height_m=75e-6)
        h5["bad_pixels"] = ~raw.mask
    again = read_scan(tmp_path / "frames.h5", positions=tmp_path / "product.h5")
    np.testing.assert_allclose(again.positions_px, raw.positions_px[::-1], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(everything(again), everything(raw)[::-1])
    np.testing.assert_array_equal(read_probe(tmp_path / "product.h5"), raw.probe)


# ---- a few frames at a time, and whole or not at all


class Watched(ArrayFrames):
    """Frames that note which are read together."""

    asked: list[np.ndarray]

    def read(self, frame_numbers: np.ndarray) -> np.ndarray:
        self.asked.append(np.array(frame_numbers))
        return super().read(frame_numbers)


@pytest.mark.spec("DATA-43")
@pytest.mark.parametrize("name", [writer.name for writer in WRITERS])
def test_frames_are_written_a_few_at_a_time_and_each_is_read_once(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = known_scan()
    monkeypatch.setattr(Watched, "asked", [], raising=False)
    watched = replace(raw, frames=Watched(everything(raw)))
    monkeypatch.setattr("ptycho_core.data.raw._CHUNK_BYTES", 2 * 4 * 16**2)
    write_scan(tmp_path / FORMATS[name], watched, format=name)
    if name == "ptychodus_product":
        assert Watched.asked == []
        return
    assert max(map(len, Watched.asked)) == 2
    assert np.concatenate(Watched.asked).tolist() == list(range(7))


@pytest.mark.spec("DATA-43")
@pytest.mark.parametrize("name", ["npz", "nxcxi_ptycho"])
def test_progress_is_told_and_may_stop_the_writing_which_leaves_no_file(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ptycho_core.data.raw._CHUNK_BYTES", 3 * 4 * 16**2)
    told: list[tuple[str, int, int]] = []

    def note(event: ProgressEvent) -> None:
        told.append((event.stage, event.done, event.total))

    write_scan(tmp_path / FORMATS[name], known_scan(), format=name, progress=note)
    assert told == [("write", 3, 7), ("write", 6, 7), ("write", 7, 7)]
    (tmp_path / FORMATS[name]).unlink()

    def stop(event: ProgressEvent) -> None:
        if event.done == 6:
            raise Cancelled("enough")

    with pytest.raises(Cancelled, match="enough"):
        write_scan(tmp_path / FORMATS[name], known_scan(), format=name, progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.spec("DATA-43")
@pytest.mark.parametrize("name", [writer.name for writer in WRITERS if writer.name != "ptychodus_product"])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path, name: str) -> None:
    path = tmp_path / FORMATS[name]
    write_scan(path, known_scan(), format=name)
    before = path.read_bytes()

    class Failing(ArrayFrames):
        def read(self, frame_numbers: np.ndarray) -> np.ndarray:
            raise RuntimeError("detector on fire")

    raw = known_scan()
    with pytest.raises(RuntimeError, match="on fire"):
        write_scan(path, replace(raw, frames=Failing(np.zeros((7, 16, 16)))), format=name)
    broken = replace(raw, source=replace(raw.source, details={"array": np.zeros(2)}))
    with pytest.raises(DataError, match="plain JSON"):
        write_scan(path, broken, format=name)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.spec("DATA-43")
def test_a_file_is_not_written_over_while_frames_come_from_it_through_whatever_views(tmp_path: Path) -> None:
    path = tmp_path / "a.cxi"
    write_scan(path, known_scan())
    link = tmp_path / "link.cxi"
    link.symlink_to(path)
    raw = read_scan(path)
    several = replace(raw, frames=ConcatenatedFrames((ArrayFrames(everything(raw)), TransposedFrames(raw.frames))))
    for frames, target in ((raw.frames, path), (several.frames, path), (raw.subset([1, 2]).frames, link)):
        with pytest.raises(OutputError, match="still read from this file"):
            write_scan(target, replace(raw, frames=frames))
