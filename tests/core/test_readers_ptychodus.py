"""Files of ptychodus: training data, diffraction data with a product beside it, and the form of SLAC."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from dialect_scan import DETECTOR, DISTANCE, ENERGY, PIXEL, deviance, positions_m, truth

from ptycho_core.data.propagation import FAR_FIELD
from ptycho_core.data.raw import Geometry
from ptycho_core.errors import DataError
from ptycho_core.io import read_probe, read_scan
from ptycho_core.io.candidate import examine
from ptycho_core.io.readers import ptychodus, ptychodus_npz
from ptycho_core.io.registry import choose_reader, read_recording
from ptycho_core.physics.propagation import wavelength_m
from ptycho_core.reader_protocol import ReadOptions

M, H, W = 8, 12, 16
RNG = np.random.default_rng(12)
COUNTS = RNG.poisson(6, (M, H, W)).astype(np.uint16)
PLACES = RNG.uniform((3, 8), (14, 23), (M, 2))  # (y, x)
PROBE = (RNG.normal(size=(2, W, W)) + 1j * RNG.normal(size=(2, W, W))).astype(np.complex64)
OBJECT = (RNG.normal(size=(40, 70)) + 1j * RNG.normal(size=(40, 70))).astype(np.complex64)
BAD = RNG.random((H, W)) < 0.1


def training_npz(path, **changes):
    """The keys that ptychodus 1.7 writes."""
    y, x = PLACES.T
    content = {
        "xcoords": x,
        "ycoords": y,
        "xcoords_start": x,
        "ycoords_start": y,
        "diff3d": COUNTS[:, :, :H],
        "bad_pixels": BAD[:, :H],
        "probeGuess": PROBE[:, :H, :H],
        "objectGuess": OBJECT,
        "scan_index": np.zeros(M, int),
    }
    np.savez(path, **{key: value for key, value in (content | changes).items() if value is not None})
    return path


def write(path, attributes=None, **content):
    with h5py.File(path, "w") as h5:
        for name, value in content.items():
            if value is not None:
                h5[name] = value
        for (name, key), value in (attributes or {}).items():
            (h5[name] if name else h5).attrs[key] = value
    return path


def training_h5(path, **changes):
    y, x = PLACES.T
    content = {"patterns": COUNTS, "bad_pixels": BAD, "probe": PROBE, "object": OBJECT}
    content |= {"probe_position_x_px": x, "probe_position_y_px": y, "object_pixel_width_m": 2.5e-8}
    content |= {"object_pixel_height_m": 2.5e-8, "detector_object_distance_m": 1.9, "photon_energy_eV": 7100.0}
    return write(path, **(content | changes))


def product_h5(path, places=PLACES * 2.5e-8, indexes=None, probe=PROBE[None], **more):
    y, x = places.T
    indexes = np.arange(len(places)) if indexes is None else indexes
    root = {"photon_energy_eV": 7100.0, "detector_object_distance_m": 1.9} | more
    attributes = {("", key): value for key, value in root.items()}
    attributes |= {("object", "pixel_width_m"): 2.5e-8, ("object", "pixel_height_m"): 2.5e-8}
    return write(
        path,
        attributes,
        probe_position_indexes=indexes,
        probe_position_x_m=x,
        probe_position_y_m=y,
        probe=probe,
        object=OBJECT[None],
    )


# ---- training data


@pytest.mark.spec("READ-21")
def test_training_data_are_intensities_without_being_asked(tmp_path):
    path = training_npz(tmp_path / "train_data.npz")
    raw = read_scan(path)
    np.testing.assert_array_equal(raw.read_counts(np.arange(M)), np.where(BAD[:, :H], 0, COUNTS[:, :, :H]))
    np.testing.assert_array_equal(raw.positions_px, PLACES)
    np.testing.assert_array_equal(raw.probe, PROBE[:, :H, :H])
    np.testing.assert_array_equal(raw.mask, ~BAD[:, :H])
    assert (raw.source.dialect, raw.source.measurement) == ("ptychodus_npz", "counts")
    assert raw.source.assumptions[0] == "Files of ptychodus hold intensities, read as counts."
    assert not any("as asked for" in note for note in raw.source.assumptions)
    assert raw.source.warnings == ()


@pytest.mark.spec("READ-21")
def test_training_data_that_look_like_amplitudes_are_warned_of(tmp_path):
    roots = np.sqrt(COUNTS[:, :, :H].astype(np.float32))
    raw = read_scan(training_npz(tmp_path / "roots.npz", diff3d=roots))
    assert any("look like amplitudes" in text for text in raw.source.warnings)
    recording = read_recording(write_roots(tmp_path / "roots.h5"), ReadOptions())
    assert any("look like amplitudes" in text for text in recording.source.warnings)
    with pytest.raises(DataError, match="states that its frames are counts"):
        read_scan(tmp_path / "roots.npz", measurement="amplitude")


def write_roots(path):
    return training_h5(path, patterns=np.sqrt(COUNTS.astype(np.float64)))


def test_a_file_that_states_its_measurement_is_of_the_plain_dialect(tmp_path):
    path = training_npz(tmp_path / "said.npz", measurement=np.array("counts"))
    assert choose_reader(path)[0].name == "npz"
    assert choose_reader(training_npz(tmp_path / "old.npz", bad_pixels=None))[0].name == "npz"


def test_training_data_in_hdf5(tmp_path):
    path = training_h5(tmp_path / "training.h5")
    recording = read_recording(path, ReadOptions())
    np.testing.assert_array_equal(recording.frames.read(np.arange(M)), COUNTS)
    np.testing.assert_array_equal(recording.positions, PLACES)
    np.testing.assert_array_equal(recording.mask, ~BAD)
    np.testing.assert_array_equal(recording.probe, PROBE)
    np.testing.assert_array_equal(recording.object_guess.object, OBJECT)
    np.testing.assert_array_equal(recording.object_guess.origin_px, (0, 0))
    assert recording.position_unit == "px"
    assert recording.propagation == FAR_FIELD
    assert recording.geometry == Geometry(energy_eV=7100.0, distance_m=1.9, pixel_size_m=2.5e-8)


def test_layers_of_an_object_are_a_thin_stack(tmp_path):
    """No layer by itself is the object: a wave that does not spread between them is multiplied by each."""
    layers = np.stack([OBJECT, np.exp(0.4j * np.abs(OBJECT)), 0.9 * OBJECT.conj()]).astype(np.complex64)

    def both(name, given):
        raw = read_scan(training_npz(tmp_path / f"{name}.npz", objectGuess=given))
        recording = read_recording(training_h5(tmp_path / f"{name}.h5", object=given), ReadOptions())
        return [(raw.object_guess, raw.source.assumptions), (recording.object_guess, recording.source.assumptions)]

    for guess, assumed in both("three", layers):
        np.testing.assert_allclose(guess.object, layers[0] * layers[1] * layers[2], rtol=1e-5)
        assert any("3 layers; their product was taken, as of a thin stack" in note for note in assumed)
    for guess, assumed in both("one", layers[:1]):
        np.testing.assert_array_equal(guess.object, layers[0])
        assert not any("layers" in note for note in assumed)
    none = read_recording(training_h5(tmp_path / "none.h5", object=layers[:0]), ReadOptions())
    assert none.object_guess is None


def test_zero_is_what_ptychodus_writes_where_it_knows_nothing(tmp_path):
    path = training_h5(
        tmp_path / "t.h5", photon_energy_eV=0.0, detector_object_distance_m=0.0, bad_pixels=np.zeros((H, W), bool)
    )
    recording = read_recording(path, ReadOptions())
    assert recording.geometry == Geometry(pixel_size_m=2.5e-8)
    assert recording.mask is None


def test_broken_training_data_are_refused_by_name(tmp_path):
    with pytest.raises(DataError, match="probe_position_x_px"):
        read_recording(training_h5(tmp_path / "a.h5", probe_position_x_px=None), ReadOptions())
    with pytest.raises(DataError, match="8 positions y but 5 x"):
        read_recording(training_h5(tmp_path / "b.h5", probe_position_x_px=PLACES[:5, 1]), ReadOptions())
    with pytest.raises(DataError, match=r"'patterns' is \(8, 192\)"):
        read_recording(training_h5(tmp_path / "c.h5", patterns=COUNTS.reshape(M, -1)), ReadOptions())
    uneven = read_recording(training_h5(tmp_path / "d.h5", object_pixel_width_m=3e-8), ReadOptions())
    assert any("2.5e-08 × 3e-08" in text for text in uneven.source.warnings)


# ---- diffraction data and products


@pytest.mark.spec("READ-22")
def test_diffraction_data_are_placed_by_the_product_that_lies_beside_them(tmp_path):
    """Frames 4, 6, 8 … in the order they came; the product has every frame of the run in another order."""
    stored = RNG.permutation(np.arange(M) * 2 + 4)
    run = RNG.uniform(0, 2e-6, (30, 2))
    order = RNG.permutation(30)
    sizes = {("patterns", "detector_pixel_width_m"): 75e-6, ("patterns", "detector_pixel_height_m"): 75e-6}
    frames = write(tmp_path / "diffraction.h5", sizes, patterns=COUNTS, indexes=stored, bad_pixels=BAD)
    product = product_h5(tmp_path / "product.h5", places=run[order], indexes=order, probe=PROBE[None, :, :H, :H])
    with pytest.raises(DataError, match=r"holds no positions.*probably in product.h5.*--positions"):
        read_scan(frames)
    raw = read_scan(frames, positions=product)
    pixel = wavelength_m(7100.0) * 1.9 / (H * 75e-6)
    np.testing.assert_allclose(raw.positions_px, run[stored] / pixel)
    assert raw.geometry == Geometry(energy_eV=7100.0, distance_m=1.9, detector_pixel_size_m=75e-6, pixel_size_m=pixel)
    np.testing.assert_array_equal(read_probe(product), PROBE[:, :H, :H])
    square = write(tmp_path / "square.h5", sizes, patterns=COUNTS[:, :, :H], indexes=stored, bad_pixels=BAD[:, :H])
    warned = read_scan(square, positions=product)
    np.testing.assert_allclose(warned.positions_px, run[stored] / pixel)
    assert any(
        f"pixel of 2.5e-08 m, but energy, distance and detector pixel make that of these frames {pixel:.6g}" in t
        for t in warned.source.warnings
    )
    np.savez(tmp_path / "diffraction.npz", patterns=COUNTS, indexes=stored, bad_pixels=BAD)
    again = read_scan(tmp_path / "diffraction.npz", positions=product, detector_pixel_size_m=75e-6)
    assert any(
        "product.h5 is of frames of 12 pixels a side, and those here have 16" in n for n in again.source.assumptions
    )
    np.testing.assert_allclose(again.positions_px * again.geometry.pixel_size_m, run[stored])
    np.testing.assert_array_equal(again.read_counts(np.arange(M)), raw.read_counts(np.arange(M)))


@pytest.mark.spec("READ-22")
def test_a_product_is_no_scan_and_says_what_it_is_for(tmp_path):
    product = product_h5(tmp_path / "product.h5")
    with pytest.raises(DataError, match=r"no frames.*--positions .*product.h5 --probe .*product.h5"):
        read_scan(product)
    with h5py.File(product) as h5:
        np.savez(tmp_path / "product.npz", **{name: h5[name][()] for name in h5})
    with pytest.raises(DataError, match=r"no frames.*--positions"):
        read_scan(tmp_path / "product.npz")


def test_a_product_in_an_npz_has_its_numbers_under_keys(tmp_path):
    y, x = (PLACES * 2.5e-8).T
    np.savez(
        tmp_path / "product.npz",
        name="scan",
        probe_position_indexes=np.arange(M),
        probe_position_x_m=x,
        probe_position_y_m=y,
        probe=PROBE[:, :H, :H],
        object=OBJECT,
        object_pixel_width_m=2.5e-8,
        object_pixel_height_m=2.5e-8,
        photon_energy_eV=7100.0,
        detector_object_distance_m=1.9,
        far_field=False,
    )
    np.savez(tmp_path / "diffraction.npz", patterns=COUNTS[:, :, :H], indexes=np.arange(M))
    raw = read_scan(tmp_path / "diffraction.npz", positions=tmp_path / "product.npz")
    np.testing.assert_allclose(raw.positions_px, PLACES)
    assert raw.geometry == Geometry(energy_eV=7100.0, distance_m=1.9, pixel_size_m=2.5e-8)
    assert any("states a near field" in text for text in raw.source.warnings)


# ---- SLAC


def slac(path, scale=1.0, **changes):
    y, x = (PLACES * scale).T
    content = {"diffraction": COUNTS.transpose(1, 2, 0), "xcoords_start": x, "ycoords_start": y, "probeGuess": PROBE}
    content |= {
        "objectGuess": OBJECT,
        "detector_distance_m": 2.2,
        "photon_energy_eV": 9500.0,
        "detector_pixel_size_m": 75e-6,
    }
    np.savez(path, **{key: value for key, value in (content | changes).items() if value is not None})
    return path


@pytest.mark.spec("READ-21")
def test_the_form_of_slac_has_frames_last_and_metres_or_pixels(tmp_path):
    pixels = read_recording(slac(tmp_path / "px.npz"), ReadOptions())
    np.testing.assert_array_equal(pixels.frames.read(np.arange(M)), COUNTS)
    np.testing.assert_array_equal(pixels.positions, PLACES)
    assert (pixels.position_unit, pixels.source.measurement) == ("px", "counts")
    assert pixels.geometry == Geometry(energy_eV=9500.0, distance_m=2.2, detector_pixel_size_m=75e-6)
    metres = read_recording(
        slac(tmp_path / "m.npz", 1e-8, photon_energy_eV=None, probe_energy_ev=9400.0), ReadOptions()
    )
    assert (metres.position_unit, metres.geometry.energy_eV) == ("m", 9400.0)
    np.testing.assert_array_equal(metres.positions, PLACES * 1e-8)
    assert any("metres, all being below 1e-3" in note for note in metres.source.assumptions)
    assert any("objectGuess is not used" in note for note in metres.source.assumptions)


def test_without_a_number_of_slac_it_is_the_old_npz_that_must_be_told_what_its_frames_are(tmp_path):
    path = slac(tmp_path / "old.npz", detector_distance_m=None, photon_energy_eV=None)
    assert choose_reader(path)[0].name == "npz"
    with pytest.raises(DataError, match="must be greater than 0; found -1"):
        read_recording(slac(tmp_path / "bad.npz", detector_distance_m=-1.0), ReadOptions())


# ---- conventions


@pytest.mark.parametrize("kind", ["npz", "hdf5", "pair", "slac"])
def test_the_truth_explains_what_is_read(tmp_path, kind):
    raw, obj = truth()
    counts, (y_m, x_m) = raw.read_counts(np.arange(raw.n_frames)), positions_m(raw).T
    y, x = raw.positions_px.T
    nothing = np.zeros(counts.shape[1:], bool)
    instrument = {"detector_object_distance_m": DISTANCE, "photon_energy_eV": ENERGY}
    path, options = tmp_path / f"scan.{kind}", {}
    if kind == "npz":
        training_npz(
            tmp_path / "scan.npz",
            diff3d=counts,
            xcoords=x,
            ycoords=y,
            bad_pixels=nothing,
            probeGuess=raw.probe,
            scan_index=np.zeros(len(x), int),
        )
        path = tmp_path / "scan.npz"
    elif kind == "hdf5":
        places = {"probe_position_x_px": x, "probe_position_y_px": y, "object": obj, "probe": raw.probe}
        sizes = {"object_pixel_width_m": PIXEL, "object_pixel_height_m": PIXEL}
        training_h5(path, patterns=counts, bad_pixels=nothing, **places, **sizes, **instrument)
    elif kind == "pair":
        sizes = {("patterns", f"detector_pixel_{way}_m"): DETECTOR for way in ("width", "height")}
        write(path, sizes, patterns=counts, indexes=np.arange(len(x)), bad_pixels=nothing)
        options["positions"] = product_h5(tmp_path / "product.h5", positions_m(raw), probe=raw.probe, **instrument)
    else:
        path = slac(
            tmp_path / "scan.npz",
            diffraction=counts.transpose(1, 2, 0),
            xcoords_start=x_m,
            ycoords_start=y_m,
            probeGuess=raw.probe,
            photon_energy_eV=ENERGY,
            detector_distance_m=DISTANCE,
        )
    read = read_scan(path, **options)
    assert deviance(read, raw, obj) == pytest.approx(1.0, abs=0.1)
    assert deviance(read_scan(path, orientation="flip_x", **options), raw, obj) > 5
    if kind == "hdf5":
        np.testing.assert_array_equal(read.object_guess.object, obj.astype(np.complex64))
        np.testing.assert_allclose(read.positions_px, raw.positions_px, rtol=1e-12)


def test_other_files_are_none_of_these(tmp_path):
    write(tmp_path / "other.h5", patterns=COUNTS)
    np.savez(tmp_path / "other.npz", patterns=COUNTS)
    assert not ptychodus.recognises(examine(tmp_path / "other.h5"))
    assert not ptychodus_npz.recognises(examine(tmp_path / "other.npz"))
