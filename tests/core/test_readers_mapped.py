"""A mapping says which array of a file is what; what it says decides, and nothing else in the file is looked at."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from reader_truth import DETECTOR_PIXEL_M, DISTANCE_M, ENERGY_EV, a_truth, misfit

from ptycho_core.errors import ConfigError, DataError
from ptycho_core.inspection.examine import inspect_scan
from ptycho_core.io import read_scan
from ptycho_core.io.registry import read_recording
from ptycho_core.physics.propagation import energy_of_eV
from ptycho_core.reader_protocol import ReadOptions

RNG = np.random.default_rng(12)
M, H, W = 12, 18, 22
COUNTS = RNG.poisson(30, (M, H, W)).astype(np.uint16)
PLACES = RNG.uniform(-4, 9, (M, 2))
PROBE = (RNG.normal(size=(2, H, H)) + 1j * RNG.normal(size=(2, H, H))).astype(np.complex64)
ALL = np.arange(M)


def write(path: Path, attributes: dict[str, object] | None = None, **arrays) -> Path:
    """Arrays in the container that the ending says; a ``__`` in a name is a slash."""
    arrays = {name.replace("__", "/"): np.asarray(values) for name, values in arrays.items()}
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".mat":
        from scipy.io import savemat

        savemat(path, arrays, do_compression=True)
    elif path.suffix == ".zarr":
        group = pytest.importorskip("zarr").open_group(path, mode="w")
        for name, values in arrays.items():
            group.create_array(name, data=values)
        for name, value in (attributes or {}).items():
            place, _, key = name.rpartition("@")
            group[place].attrs[key] = value
    else:
        with h5py.File(path, "w") as h5:
            for name, values in arrays.items():
                h5[name] = values
            for name, value in (attributes or {}).items():
                place, _, key = name.rpartition("@")
                h5[place or "/"].attrs[key] = value
    return path


def mapped(path: Path, entry: str | None = None, **content) -> ReadOptions:
    """Options with a mapping that lies beside the file."""
    target = path.parent / "mapping.yaml"
    target.write_text(yaml.safe_dump(content))
    return ReadOptions(mapping=target, entry=entry)


def recording(path: Path, **content):
    return read_recording(path, mapped(path, **content))


# ---- frames in any order of axes, any container


@pytest.mark.spec("READ-42", "READ-46")
@pytest.mark.parametrize("ending", [".h5", ".npz", ".mat", pytest.param(".zarr", marks=pytest.mark.peers)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2)])
def test_axes_of_frames_by_their_names(tmp_path, ending, order):
    path = write(tmp_path / f"a{ending}", stack=COUNTS.transpose(order))
    axes = [("frame", "y", "x")[axis] for axis in order]
    frames = pickle.loads(pickle.dumps(recording(path, frames={"path": "stack", "axes": axes}).frames))
    numbers = np.array([7, 3, 4, 7, 11])
    np.testing.assert_array_equal(frames.read(numbers), COUNTS[numbers])
    assert frames.shape == (M, H, W)


def test_a_raster_with_x_slow_is_read_with_x_fast(tmp_path):
    cube = COUNTS.reshape(3, 4, H, W)
    path = write(tmp_path / "a.h5", cube=cube.transpose(1, 0, 3, 2)[None])
    found = recording(path, frames={"path": "cube", "axes": ["one", "scan_x", "scan_y", "x", "y"]})
    np.testing.assert_array_equal(found.frames.read(ALL), COUNTS)
    assert found.raster == (3, 4)


@pytest.mark.parametrize("stored", [(M * H * W,), (M, H * W), (3, 4 * H * W), (M * H, W)])
def test_frames_stored_flat_are_reshaped_as_they_are_read(tmp_path, stored):
    path = write(tmp_path / "a.h5", flat=COUNTS.reshape(stored))
    found = recording(path, frames={"path": "flat", "reshape": [-1, H, W]})
    numbers = np.array([11, 0, 1, 6])
    np.testing.assert_array_equal(found.frames.read(numbers), COUNTS[numbers])
    with pytest.raises(ConfigError, match=r"cannot be reshaped to \[-1, 17, 22\]"):
        recording(path, frames={"path": "flat", "reshape": [-1, H - 1, W]})


@pytest.mark.spec("READ-42")
def test_a_flip_takes_zero_frequency_along(tmp_path):
    path = write(tmp_path / "a.h5", stack=COUNTS)
    found = recording(path, frames={"path": "stack", "flip": ["x"]})
    np.testing.assert_array_equal(found.frames.read(ALL), COUNTS[:, :, ::-1])
    assert found.centre_px == (H // 2, W - 1 - W // 2)
    both = recording(path, frames={"path": "stack", "flip": ["y", "x"]}, centre=[4.5, 8])
    np.testing.assert_array_equal(both.frames.read(ALL), COUNTS[:, ::-1, ::-1])
    assert both.centre_px == (H - 1 - 4.5, W - 1 - 8)
    assert recording(path, frames="stack", centre=[4.5, 8]).centre_px == (4.5, 8)
    assert recording(path, frames="stack").centre_px is None


def test_zero_frequency_at_the_corner_is_moved(tmp_path):
    path = write(tmp_path / "a.npz", stack=np.fft.ifftshift(COUNTS, axes=(1, 2)))
    found = recording(path, frames={"path": "stack", "zero_frequency": "corner"})
    np.testing.assert_array_equal(found.frames.read(ALL), COUNTS)
    with pytest.raises(ConfigError, match="centre is given, and zero_frequency: corner"):
        recording(path, frames={"path": "stack", "zero_frequency": "corner"}, centre=[3, 3])


def test_the_measurement_is_what_the_mapping_says(tmp_path):
    path = write(tmp_path / "a.h5", stack=np.sqrt(COUNTS).astype(np.float32))
    found = recording(path, frames={"path": "stack", "measurement": "amplitude"})
    np.testing.assert_array_equal(found.frames.read(ALL), COUNTS)
    with pytest.raises(DataError, match=r"--measurement amplitude\|counts"):
        recording(path, frames="stack")
    wrong = recording(path, frames={"path": "stack", "measurement": "counts"})
    assert any("look like amplitudes" in text for text in wrong.source.warnings)


# ---- positions


@pytest.mark.spec("READ-42")
@pytest.mark.parametrize(
    ("stored", "axes"),
    [
        (PLACES, ["frame", "yx"]),
        (PLACES[:, ::-1], ["frame", "xy"]),
        (PLACES.T, ["yx", "frame"]),
        (np.stack([PLACES[:, 1], PLACES[:, 0], 0 * ALL]), ["xyz", "frame"]),
        (np.stack([5 + 0 * ALL, PLACES[:, 0], PLACES[:, 1]], axis=1)[None], ["one", "frame", "zyx"]),
        (PLACES[:, ::-1].reshape(3, 4, 2).transpose(1, 0, 2), ["scan_x", "scan_y", "xy"]),
    ],
)
def test_positions_by_the_names_of_their_axes(tmp_path, stored, axes):
    path = write(tmp_path / "a.h5", stack=COUNTS, where=stored)
    found = recording(path, frames="stack", positions={"path": "where", "axes": axes, "unit": "um"})
    np.testing.assert_allclose(found.positions, PLACES * 1e-6, rtol=1e-12)
    assert found.position_unit == "m"


def test_two_arrays_of_positions_and_their_unit_in_the_file(tmp_path):
    units = {"m/y@units": "nm", "m/x@units": b"nm"}
    path = write(tmp_path / "a.h5", units, stack=COUNTS, m__y=PLACES[:, 0], m__x=PLACES[:, 1])
    found = recording(path, frames="stack", positions={"y": "m/y", "x": "/m/x"})
    np.testing.assert_allclose(found.positions, PLACES * 1e-9, rtol=1e-12)
    with h5py.File(path, "a") as h5:
        h5["m/x"].attrs["units"] = "um"
    with pytest.raises(DataError, match="different units: nm, um"):
        recording(path, frames="stack", positions={"y": "m/y", "x": "m/x"})


def test_lines_and_columns_of_a_raster_make_a_position_of_each_pair(tmp_path):
    path = write(tmp_path / "a.h5", stack=COUNTS.reshape(3, 4, H, W), y=[0.5, 2.0, 4.0], x=[1.0, 3.0, 4.5, 9.0])
    at = {"y": {"path": "y", "axes": ["scan_y"]}, "x": {"path": "x", "axes": ["scan_x"]}, "unit": "px"}
    found = recording(path, frames="stack", positions=at)
    wanted = [(y, x) for y in (0.5, 2.0, 4.0) for x in (1.0, 3.0, 4.5, 9.0)]
    np.testing.assert_array_equal(found.positions, wanted)
    with pytest.raises(DataError, match=r"3 values.*4; a frame has one of each"):
        recording(path, frames="stack", positions={"y": "y", "x": "x", "unit": "px"})


@pytest.mark.spec("READ-42")
def test_signs_of_positions(tmp_path):
    path = write(tmp_path / "a.h5", stack=COUNTS, where=PLACES)

    def places(**more):
        return recording(path, frames="stack", positions={"path": "where", "unit": "px", **more}).positions

    np.testing.assert_array_equal(places(negate=["y"]), PLACES * (-1, 1))
    np.testing.assert_array_equal(places(of="sample"), -PLACES)
    np.testing.assert_array_equal(places(of="sample", negate="x"), PLACES * (-1, 1))
    np.testing.assert_array_equal(places(names="N/2"), PLACES - 0.5)
    np.testing.assert_allclose(places(names="corner"), PLACES + np.array([(H - 1) / 2, (W - 1) / 2]))
    with pytest.raises(ConfigError, match="'names' is for positions in pixels"):
        places(names="N/2", unit="um")


def test_a_raster_by_its_step(tmp_path):
    path = write(tmp_path / "a.h5", stack=COUNTS)
    found = recording(path, frames="stack", raster=[3, 4], scan_step=["2nm", "0.5um"])
    np.testing.assert_allclose(found.positions[[0, 1, 4]], [(0, 0), (0, 5e-7), (2e-9, 0)])
    with pytest.raises(ConfigError, match=r"raster is \(3, 5\), but there are 12 frames"):
        recording(path, frames="stack", raster=[3, 5], scan_step="1nm")


# ---- the other parts


def test_probe_mask_and_background(tmp_path):
    bad = RNG.random((H, W)) < 0.1
    dark = RNG.random((W, H)).astype(np.float32)
    parts = np.stack([PROBE.real, PROBE.imag], axis=-1)
    path = write(tmp_path / "a.h5", stack=COUNTS, p=parts.transpose(0, 2, 1, 3), m=bad.astype(np.uint8), d=dark)
    found = recording(
        path,
        frames="stack",
        probe={"path": "p", "axes": ["mode", "x", "y", "re_im"]},
        mask={"path": "m", "one_means": "bad"},
        background={"path": "d", "axes": ["x", "y"]},
    )
    np.testing.assert_array_equal(found.probe, PROBE)
    np.testing.assert_array_equal(found.mask, ~bad)
    assert found.mask_polarity == "bad"
    np.testing.assert_array_equal(found.background, dark.T)
    other = recording(
        path, frames="stack", background=2.5, probe={"path": "p", "axes": ["mode", "x", "y", "re_im"], "zero": "corner"}
    )
    np.testing.assert_array_equal(other.background, np.full((H, W), 2.5))
    np.testing.assert_array_equal(other.probe, np.fft.fftshift(PROBE, axes=(1, 2)))


@pytest.mark.spec("READ-42")
@pytest.mark.parametrize("ending", [".h5", pytest.param(".zarr", marks=pytest.mark.peers)])
def test_quantities_have_their_units(tmp_path, ending):
    attributes = {"e@units": "keV", "stack@distance": 2.5, "stack@text": "75 um"}
    path = write(tmp_path / f"a{ending}", attributes, stack=COUNTS, e=np.array([8.8]), pixel=0.05)
    geometry = recording(
        path,
        frames="stack",
        energy={"path": "e"},
        distance={"path": "stack@distance"},
        detector_pixel_size={"path": "stack@text"},
        pixel_size={"path": "pixel", "unit": "um"},
        radiation="electron",
    ).geometry
    assert geometry.energy_eV == pytest.approx(8800, rel=1e-12)
    assert geometry.distance_m == 2.5
    assert geometry.detector_pixel_size_m == pytest.approx(75e-6, rel=1e-12)
    assert geometry.pixel_size_m == pytest.approx(5e-8, rel=1e-12)
    assert geometry.radiation == "electron"
    by_wave = recording(path, frames="stack", wavelength="0.1nm", distance="2100mm").geometry
    assert by_wave.energy_eV == pytest.approx(energy_of_eV(1e-10), rel=1e-12)
    assert by_wave.distance_m == pytest.approx(2.1)
    with pytest.raises(DataError, match=r"'stack@height' is no attribute that is there"):
        recording(path, frames="stack", distance={"path": "stack@height"})


def test_what_has_no_unit_is_said(tmp_path):
    path = write(tmp_path / "a.h5", stack=COUNTS, e=8800.0)
    found = recording(path, frames="stack", energy={"path": "e"})
    assert found.geometry.energy_eV == 8800
    assert "e states no unit; it was read as eV." in found.source.assumptions


# ---- several scans


@pytest.mark.spec("READ-44")
def test_a_star_stands_for_one_of_several_scans(tmp_path):
    path = write(tmp_path / "a.h5", s_a__f=COUNTS, s_b__f=COUNTS + 1, s_a__p=PLACES, s_b__p=PLACES * 2)
    content = {"frames": "s_*/f", "positions": {"path": "s_*/p", "unit": "px"}}
    with pytest.raises(DataError, match=r"2 scans: a, b\. Choose one with --entry"):
        recording(path, **content)
    for entry, number in (("b", 1), ("0", 0)):
        found = read_recording(path, mapped(path, entry, **content))
        np.testing.assert_array_equal(found.frames.read(ALL), COUNTS + number)
        np.testing.assert_array_equal(found.positions, PLACES * (1 + number))
    with pytest.raises(DataError, match="has no scan 'c'"):
        read_recording(path, mapped(path, "c", **content))


@pytest.mark.spec("READ-44")
def test_an_axis_of_scans_is_never_merged(tmp_path):
    path = write(tmp_path / "a.h5", stack=np.stack([COUNTS, COUNTS + 1], axis=1), where=np.stack([PLACES, -PLACES]))
    content = {
        "frames": {"path": "stack", "axes": ["frame", "entry", "y", "x"]},
        "positions": {"path": "where", "axes": ["entry", "frame", "yx"], "unit": "px"},
    }
    with pytest.raises(DataError, match=r"holds 2 scans; choose one with --entry 0 to --entry 1"):
        recording(path, **content)
    found = read_recording(path, mapped(path, "1", **content))
    np.testing.assert_array_equal(found.frames.read(ALL), COUNTS + 1)
    np.testing.assert_array_equal(found.positions, -PLACES)


def test_of_a_scan_that_goes_on_as_many_are_read_as_have_both(tmp_path):
    path = write(tmp_path / "a.h5", stack=COUNTS, where=PLACES[:9])
    options = mapped(path, frames="stack", positions={"path": "where", "unit": "px"})
    assert len(read_recording(path, options).positions) == 9
    assert read_recording(path, options).frames.shape[0] == M
    found = read_recording(path, replace(options, follow=True))
    np.testing.assert_array_equal(found.frames.read(np.arange(9)), COUNTS[:9])
    assert found.frames.shape[0] == len(found.positions) == 9
    assert any("12 frames and 9 positions are there so far" in text for text in found.source.assumptions)


# ---- strict


@pytest.mark.spec("READ-42")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"frams": "stack"}, r"mapping.yaml: 'frams' is unknown.*Did you mean 'frames'"),
        ({"frames": {"path": "stack", "axis": ["y"]}}, r"'axis' in 'frames' is unknown.*Did you mean 'axes'"),
        (
            {"frames": {"path": "stack", "axes": ["frames", "y", "x"]}},
            r"axes of frames is 'frames'.*Did you mean 'frame'",
        ),
        ({"frames": {"path": "stack", "axes": ["frame", "y", "y"]}}, "name 'y' twice|y and x must be among them|twice"),
        ({"frames": {"path": "stack", "axes": ["y", "x"]}}, "counted by frame"),
        ({"frames": {"path": "stack", "axes": ["frame", "scan_y", "y", "x"]}}, "counted by frame"),
        (
            {"frames": {"path": "stack", "measurement": "amps"}},
            r"measurement of frames is 'amps'; allowed: counts, amplitude",
        ),
        ({}, "has no 'frames'"),
        ({"frames": "stack", "positions": {"y": "a"}}, "positions need a path of an"),
        ({"frames": "stack", "positions": {"path": "a", "unit": "furlong"}}, "unit of positions is 'furlong'"),
        ({"frames": "stack", "energy": "8.8 parsec"}, r"energy = '8.8 parsec'"),
        ({"frames": "stack", "energy": {"path": "e", "unit": "mm"}}, "energy = '1 mm'"),
        ({"frames": "stack", "centre": [1]}, r"centre is \[1\]; it must be two"),
        ({"frames": "stack", "raster": [1.5, 2]}, "raster is"),
        ({"frames": "stack", "probe": {"axes": ["y", "x"]}}, "probe has no path"),
        (
            {"frames": "stack", "mask": {"path": "m", "one_means": "dead"}},
            r"one_means of mask is 'dead'; allowed: good, bad",
        ),
    ],
)
def test_what_no_mapping_says_is_refused(tmp_path, content, words):
    path = write(tmp_path / "a.h5", stack=COUNTS)
    with pytest.raises(ConfigError, match=words):
        recording(path, **content)


def test_arrays_that_are_not_as_the_mapping_says_are_named(tmp_path):
    path = write(tmp_path / "a.h5", stack=COUNTS, cube=COUNTS.reshape(3, 4, H, W), words=np.array([b"a", b"b"]))
    with pytest.raises(DataError, match=r"holds no array 'stak'. It holds: cube, stack, words. Did you mean 'stack'"):
        recording(path, frames="stak")
    with pytest.raises(ConfigError, match=r"has 4 axes .* but in a.h5 it is \(12, 18, 22\)"):
        recording(path, frames={"path": "stack", "axes": ["scan_y", "scan_x", "y", "x"]})
    with pytest.raises(ConfigError, match="called 'one', but has 3 entries"):
        recording(path, frames={"path": "cube", "axes": ["one", "frame", "y", "x"]})
    with pytest.raises(DataError, match="frames must be real numbers"):
        recording(path, frames="words")


def test_a_mapping_and_a_dialect_contradict_each_other(tmp_path):
    path = write(tmp_path / "a.h5", stack=COUNTS)
    with pytest.raises(ConfigError, match="both; keep one"):
        read_scan(path, dialect="hdf5", options=mapped(path, frames="stack"))


def test_a_file_without_arrays_and_a_mapping_that_is_none(tmp_path):
    (tmp_path / "a.txt").write_text("1 2 3")
    with pytest.raises(DataError, match="holds no arrays that a mapping could name"):
        read_scan(tmp_path / "a.txt", options=mapped(tmp_path / "a.txt", frames="stack"))
    path = write(tmp_path / "a.h5", stack=COUNTS)
    with pytest.raises(ConfigError, match="--map takes the mapping, not the scan"):
        read_scan(path, mapping=path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_scan(path, mapping=tmp_path / "none.yaml")


# ---- end to end


@pytest.mark.spec("READ-42")
def test_the_truth_explains_a_file_of_no_known_dialect(tmp_path):
    """Transposed and flipped frames, motions of the sample in µm with x negated, everything by its own name."""
    truth = a_truth()
    motion = -truth.positions_m * 1e6 * (1, -1)
    stored = truth.counts[:, ::-1, :].transpose(2, 0, 1)
    # zero frequency of what is turned round lies at N − 1 − N/2 of the frames as stored
    N = truth.counts.shape[-1]
    path = write(tmp_path / "a.h5", img=stored, sx=motion[:, 1], sy=motion[:, 0], e=ENERGY_EV / 1e3, z=DISTANCE_M * 1e3)
    options = mapped(
        path,
        frames={"path": "img", "axes": ["x", "frame", "y"], "measurement": "counts", "flip": ["y"]},
        centre=[N - 1 - N // 2, N // 2],
        positions={"y": "sy", "x": "sx", "unit": "um", "of": "sample", "negate": ["x"]},
        energy={"path": "e", "unit": "keV"},
        distance={"path": "z", "unit": "mm"},
        detector_pixel_size=f"{DETECTOR_PIXEL_M * 1e6} um",
    )
    raw = read_scan(path, options=options)
    np.testing.assert_allclose(raw.positions_px, truth.positions_px, rtol=1e-9)
    assert misfit(raw, truth) < 1e-3
    assert raw.source.details["mapping"]["frames"]["flip"] == ["y"]
    assert raw.source.dialect == "mapped"
    inspection = inspect_scan(path, options=options)
    assert inspection.dialect == "mapped"
    assert inspection.n_frames == 20
