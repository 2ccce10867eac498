"""Drafts of mappings: what a file of no known dialect probably holds, and what could not be told."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from reader_truth import DETECTOR_PIXEL_M, DISTANCE_M, ENERGY_EV, N, a_truth, misfit

from ptycho_core.errors import DataError
from ptycho_core.inspection.suggest_mapping import suggest_mapping
from ptycho_core.io import read_scan
from ptycho_core.io.plain_yaml import read_yaml
from ptycho_core.io.readers.mapping import Mapping, mapping_of

RNG = np.random.default_rng(21)
M, H, W = 12, 18, 22
COUNTS = RNG.poisson(30, (M, H, W)).astype(np.uint16)
PLACES = RNG.uniform(-4, 9, (M, 2))
DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def write(path: Path, units: dict[str, str] | None = None, **arrays) -> Path:
    with h5py.File(path, "w") as h5:
        for name, values in arrays.items():
            h5[name.replace("__", "/")] = values
        for name, unit in (units or {}).items():
            h5[name].attrs["units"] = unit
    return path


def drafted(path: Path) -> tuple[str, Mapping]:
    text = suggest_mapping(path)
    return text, mapping_of(read_yaml(text, "draft"), "draft")


def line(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.strip().startswith(start))


@pytest.mark.spec("READ-43")
def test_a_draft_of_a_well_named_file_reads_it(tmp_path):
    truth = a_truth()
    path = write(
        tmp_path / "a.h5",
        {"motors/fine": "um", "setup/energy": "keV", "setup/detector_distance": "mm", "setup/det_pixel": "um"},
        detector__images=np.rint(truth.counts).astype(np.int32),
        motors__fine=truth.positions_m.T * 1e6,
        illumination__probe=truth.probe.astype(np.complex64),
        setup__energy=ENERGY_EV / 1e3,
        setup__detector_distance=DISTANCE_M * 1e3,
        setup__det_pixel=DETECTOR_PIXEL_M * 1e6,
        setup__temperature=21.5,
    )
    text = suggest_mapping(path)
    (tmp_path / "mapping.yaml").write_text(text)
    raw = read_scan(path, mapping=tmp_path / "mapping.yaml")
    np.testing.assert_allclose(raw.positions_px, truth.positions_px, rtol=1e-9)
    assert misfit(raw, truth) < 0.02
    np.testing.assert_array_equal(raw.probe, truth.probe.astype(np.complex64))
    assert "setup/temperature () float64" in text
    assert "beam or of the sample" in text
    assert "energy" not in "".join(part for part in text.splitlines() if part.startswith("# ?"))


@pytest.mark.spec("READ-43")
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((M, H, W), ("frame", "y", "x")),
        ((H, W, M), ("y", "x", "frame")),
        ((1, M, H, W), ("one", "frame", "y", "x")),
        ((3, 4, H, W), ("scan_y", "scan_x", "y", "x")),
    ],
)
def test_which_axis_counts_the_frames(tmp_path, shape, axes):
    path = write(tmp_path / "a.h5", stack=RNG.poisson(9, shape), where=PLACES)
    assert drafted(path)[1].frames.axes == axes


def test_axes_of_matlab_are_told_by_its_mark(tmp_path):
    path = write(tmp_path / "a.h5", stack=COUNTS, where=PLACES)
    with h5py.File(path, "a") as h5:
        h5["stack"].attrs["MATLAB_class"] = np.bytes_("uint16")
    text, mapping = drafted(path)
    assert mapping.frames.axes == ("frame", "x", "y")
    assert "MATLAB" in line(text, "axes:")


def test_values_tell_counts_from_amplitudes_and_the_corner(tmp_path):
    y, x = np.mgrid[:H, :W] - np.array([H // 2, W // 2])[:, None, None]
    counts = RNG.poisson(300 * np.exp(-(y**2 + x**2) / 9), (M, H, W))
    text, mapping = drafted(write(tmp_path / "a.h5", stack=np.fft.ifftshift(counts, axes=(1, 2)), where=PLACES))
    assert (mapping.frames.measurement, mapping.frames.zero) == ("counts", "corner")
    assert "light is at the corners" in text
    mapping = drafted(write(tmp_path / "b.h5", stack=np.sqrt(counts), where=PLACES))[1]
    assert (mapping.frames.measurement, mapping.frames.zero) == ("amplitude", "middle")
    text, mapping = drafted(write(tmp_path / "c.h5", stack=counts + RNG.normal(0, 0.2, counts.shape), where=PLACES))
    assert mapping.frames.measurement is None
    assert "measurement of the frames: counts or amplitude." in text


@pytest.mark.spec("READ-43")
@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (("pos_y", "pos_x"), ("pos_y", "pos_x")),
        (("Y", "X"), ("Y", "X")),
        (("motors__sampley", "motors__samplex"), ("motors/sampley", "motors/samplex")),
        (("ypos", "xpos"), ("ypos", "xpos")),
        (("ppY", "ppX"), ("ppY", "ppX")),
    ],
)
def test_two_lines_of_positions_are_a_pair_by_their_names(tmp_path, names, wanted):
    content = {names[0]: PLACES[:, 0] * 1e-6, names[1]: PLACES[:, 1] * 1e-6, "exposure": np.ones(M)}
    text, mapping = drafted(write(tmp_path / "a.h5", stack=COUNTS, **content))
    assert mapping.positions is not None
    assert mapping.positions.y is not None
    assert mapping.positions.x is not None
    assert (mapping.positions.y.path, mapping.positions.x.path) == wanted
    assert mapping.positions.unit == "m"
    assert "? by their span" in line(text, "unit:")


@pytest.mark.spec("READ-43")
def test_a_unit_that_cannot_be_told_is_left_open(tmp_path):
    text, mapping = drafted(write(tmp_path / "a.h5", stack=COUNTS, where=PLACES * 3))
    assert mapping.positions is not None
    assert mapping.positions.unit is None
    assert "um, or object pixels" in text
    assert "# ? unit of the positions: um or px." in text.splitlines()


@pytest.mark.spec("READ-43")
def test_what_is_not_there_is_named_with_the_option(tmp_path):
    text, mapping = drafted(write(tmp_path / "a.h5", stack=COUNTS))
    assert mapping.positions is None
    for option in ("--positions FILE", "--scan_step", "--distance_m", "--detector_pixel_size_m", "--energy_eV"):
        assert option in text, option


def test_numbers_without_units_are_read_by_their_size_and_marked(tmp_path):
    path = write(tmp_path / "a.h5", stack=COUNTS, where=PLACES, energy=8.8, z=2100.0, pixel_size=75e-6)
    with h5py.File(path, "a") as h5:
        h5["stack"].attrs["wavelength"] = 1.4e-10
    text, mapping = drafted(path)
    assert mapping.energy is not None
    assert (mapping.energy.path, mapping.energy.unit) == ("energy", "keV")
    assert mapping.distance is not None
    assert (mapping.distance.path, mapping.distance.unit) == ("z", "mm")
    assert mapping.detector_pixel_size is not None
    assert mapping.detector_pixel_size.unit == "m"
    assert mapping.wavelength is None
    for name in ("energy:", "distance:", "detector_pixel_size:"):
        assert "? " in line(text, name)


def test_the_machine_s_energy_is_not_the_beam_s(tmp_path):
    path = write(tmp_path / "a.h5", stack=COUNTS, source__energy=7.0, instrument__beam__energy=9.0)
    mapping = drafted(path)[1]
    assert mapping.energy is not None
    assert mapping.energy.path == "instrument/beam/energy"


def test_a_probe_a_mask_and_a_background_are_told_by_names_and_shapes(tmp_path):
    square = RNG.poisson(9, (M, N, N))
    probe = RNG.normal(size=(N, N, 2))
    bad = np.zeros((N, N), np.uint8)
    bad[3] = 1
    path = write(
        tmp_path / "a.h5", stack=square, where=PLACES, illum__probe=probe, det__bad_pixels=bad, det__dark=bad * 0.5
    )
    text, mapping = drafted(path)
    assert mapping.probe is not None
    assert mapping.probe.axes == ("y", "x", "re_im")
    assert mapping.mask is not None
    assert (mapping.mask.path, mapping.mask.one_means) == ("det/bad_pixels", "bad")
    assert mapping.background is not None
    assert "? 3% of it is not 0" in line(text, "one_means:")


@pytest.mark.spec("READ-43", "READ-44")
def test_groups_of_one_structure_are_scans(tmp_path):
    path = write(
        tmp_path / "a.h5", run_1__img=COUNTS, run_2__img=COUNTS + 1, run_1__pos=PLACES * 1e-6, run_2__pos=PLACES * 2e-6
    )
    text = suggest_mapping(path)
    assert "'*' stands for run_1, run_2; choose with --entry" in text
    (tmp_path / "mapping.yaml").write_text(text)
    with pytest.raises(DataError, match=r"2 scans: run_1, run_2"):
        read_scan(path, mapping=tmp_path / "mapping.yaml")
    raw = read_scan(path, mapping=tmp_path / "mapping.yaml", entry="run_2", pixel_size_m=1e-7)
    np.testing.assert_array_equal(raw.read_counts(np.array([3])), COUNTS[3:4, :, 2:20] + 1)


def test_a_file_without_frames_says_what_it_holds(tmp_path):
    path = write(tmp_path / "a.h5", table=PLACES, line=np.arange(9))
    with pytest.raises(DataError, match=r"(?s)nothing in it looks like frames.*line \(9,\) int64.*table \(12, 2\)"):
        suggest_mapping(path)
    (tmp_path / "a.txt").write_text("1 2 3")
    with pytest.raises(DataError, match="holds no arrays by name"):
        suggest_mapping(tmp_path / "a.txt")


@pytest.mark.spec("READ-43")
def test_the_refusal_of_an_unknown_file_names_the_commands(tmp_path):
    path = write(tmp_path / "a.h5", stack=COUNTS, where=PLACES)
    with pytest.raises(DataError) as refused:
        read_scan(path)
    assert f"ptycho inspect --suggest-mapping {path} > mapping.yaml" in str(refused.value)
    assert f"ptycho run {path} --map mapping.yaml" in str(refused.value)


@pytest.mark.spec("READ-43")
@pytest.mark.real_data
@pytest.mark.parametrize("name", ["siemens_star_64.npz", "gold_balls_104.cxi", "electron_4dstem.h5"])
def test_drafts_of_real_files_can_be_read(name):
    if not DATA.exists():
        pytest.skip("../shared/data is not there")
    _, mapping = drafted(DATA / name)
    assert mapping.frames.path in ("diff3d", "entry_1/data_1/data", "data")
    assert (mapping.positions is None) == (name == "electron_4dstem.h5")


def test_the_command_prints_the_draft_and_nothing_else(tmp_path, capsys):
    from ptycho_core.cli.main import main

    path = write(tmp_path / "a.h5", stack=COUNTS, where=PLACES)
    assert main(["inspect", "--suggest-mapping", str(path)]) == 0
    assert capsys.readouterr().out == suggest_mapping(path)
