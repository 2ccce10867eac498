"""NXcxi_ptycho: energies of beam and machine, rasters and lists, motors with units and vectors, other names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from reader_truth import DETECTOR_PIXEL_M, DISTANCE_M, ENERGY_EV, RASTER, N, Truth, a_truth, misfit

from ptycho_core import read_scan
from ptycho_core.data.recording import Recording
from ptycho_core.errors import DataError
from ptycho_core.io.registry import read_recording
from ptycho_core.reader_protocol import ReadOptions

TRUTH = a_truth()
GRID = a_truth(on_raster=True)
UM = 1e6


def write(
    path: Path,
    truth: Truth = TRUTH,
    *,
    frames: np.ndarray | None = None,
    motors: dict[str, np.ndarray] | None = None,
    translation: bool = False,
    numbered: bool = True,
    entry: str = "entry_1",
    energy_units: str | None = "keV",
) -> Path:
    """A file by the definition: motors in µm, pixels in mm, the machine's energy beside the photon's."""
    n = "_1" if numbered else ""
    y, x = truth.positions_m.T
    with h5py.File(path, "w") as h5:
        root = h5.create_group(entry)
        root.attrs["NX_class"] = "NXentry"
        root["definition"] = "NXcxi_ptycho"
        instrument = root.create_group(f"instrument{n}")
        put(instrument, f"source{n}/energy", 3.0, "GeV")
        instrument[f"source{n}/probe"] = "x-ray"
        put(instrument, f"beam{n}/energy", ENERGY_EV / 1e3, energy_units)
        detector = instrument.create_group(f"detector{n}")
        detector["data"] = truth.counts if frames is None else frames
        put(detector, "distance", DISTANCE_M * 1e3, "mm")
        put(detector, "x_pixel_size", DETECTOR_PIXEL_M * 1e3, "mm")
        put(detector, "y_pixel_size", np.array([DETECTOR_PIXEL_M * 1e3]), "mm")
        if translation:
            put(detector, "translation", np.stack([x, y, 0 * x], axis=1) * UM, "um")
        else:
            for axis, values in (motors or {"x": x * UM, "y": y * UM}).items():
                put(root, f"sample{n}/transformations/{axis}", values, "micron")
        root[f"data{n}/data"] = h5py.SoftLink(f"/{entry}/instrument{n}/detector{n}/data")
    return path


def put(group: h5py.Group, name: str, value: Any, units: str | None) -> None:
    group[name] = value
    if units is not None:
        group[name].attrs["units"] = units


def read(path: Path, **said: Any) -> Recording:
    """The recording, nothing settled."""
    found = read_recording(path, ReadOptions(**said))
    assert found.source.dialect == "nxcxi_ptycho"
    return found


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"translation": True},
        {"numbered": False},
        {"entry": "entry"},
        {"entry": "scan7"},
        {"frames": TRUTH.counts.reshape(*RASTER, N, N)},
        {
            "motors": {
                "x": TRUTH.positions_m[:, 1].reshape(RASTER) * UM,
                "y": TRUTH.positions_m[:, 0].reshape(RASTER) * UM,
            }
        },
        {"motors": {"x": TRUTH.positions_m[:, 1, None, None] * UM, "y": TRUTH.positions_m[:, 0, None, None] * UM}},
    ],
)
@pytest.mark.spec("READ-3", "READ-5")
def test_the_truth_explains_what_is_read(tmp_path: Path, changes: dict[str, Any]) -> None:
    raw = read_scan(write(tmp_path / "a.nxs", **changes))
    assert raw.geometry.energy_eV == pytest.approx(ENERGY_EV, rel=1e-12)
    assert raw.geometry.distance_m == pytest.approx(DISTANCE_M, rel=1e-12)
    np.testing.assert_allclose(raw.positions_px, TRUTH.positions_px, atol=1e-6)
    assert misfit(raw, TRUTH) < 1e-4


AXES_UM = GRID.positions_m.reshape(*RASTER, 2) * UM


@pytest.mark.parametrize("y_is_slow", [True, False])
def test_the_two_axes_of_a_raster_are_told_by_their_lengths(tmp_path: Path, y_is_slow: bool) -> None:
    frames = GRID.counts.reshape(*RASTER, N, N)
    motors = {"x": AXES_UM[0, :, 1], "y": AXES_UM[:, 0, 0]}
    stored = frames if y_is_slow else frames.swapaxes(0, 1)
    found = read(write(tmp_path / "a.nxs", GRID, frames=stored, motors=motors))
    assert found.positions is not None
    assert found.raster == stored.shape[:2]
    wanted = GRID.positions_m if y_is_slow else GRID.positions_m.reshape(*RASTER, 2).swapaxes(0, 1).reshape(-1, 2)
    np.testing.assert_allclose(found.positions, wanted, rtol=1e-12)
    assert misfit(read_scan(tmp_path / "a.nxs"), GRID) < 1e-4


def test_motors_move_along_their_vectors(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nxs")
    with h5py.File(path, "a") as h5:
        motors = h5["entry_1/sample_1/transformations"]
        motors["x"].attrs["vector"] = [0.0, 2.0, 0.0]  # a motor that is called x and moves the sample up
        motors["y"].attrs["vector"] = [-1.0, 0.0, 0.0]
        motors["x"].attrs["transformation_type"] = "translation"
    found = read(path)
    assert found.positions is not None
    y, x = TRUTH.positions_m.T
    np.testing.assert_allclose(found.positions, np.stack([x, -y], axis=1), rtol=1e-12)
    with h5py.File(path, "a") as h5:
        h5["entry_1/sample_1/transformations/x"].attrs["transformation_type"] = "rotation"
    with pytest.raises(DataError, match="transformations/x is a rotation"):
        read(path)


def test_motors_of_a_plot_serve_where_the_sample_has_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nxs")
    with h5py.File(path, "a") as h5:
        plot = h5.create_group("entry_1/data")
        plot.attrs["NX_class"] = "NXdata"
        for axis in "xy":
            h5.move(f"entry_1/sample_1/transformations/{axis}", f"entry_1/data/{axis}")
    assert misfit(read_scan(path), TRUTH) < 1e-4


def test_frames_that_a_virtual_dataset_restructures_are_one_scan(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nxs", frames=TRUTH.counts.reshape(*RASTER, N, N))
    layout = h5py.VirtualLayout((20, N, N), "f4")
    source = h5py.VirtualSource(".", "/entry_1/instrument_1/detector_1/data", (*RASTER, N, N))
    for row in range(RASTER[0]):
        layout[row * RASTER[1] : (row + 1) * RASTER[1]] = source[row]
    with h5py.File(path, "a") as h5:
        del h5["entry_1/data_1/data"]
        h5.create_virtual_dataset("entry_1/data_1/data", layout)
    assert misfit(read_scan(path), TRUTH) < 1e-4


def test_the_energy_of_the_machine_is_never_the_photons(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nxs")
    with h5py.File(path, "a") as h5:
        del h5["entry_1/instrument_1/beam_1/energy"]
    with pytest.raises(DataError, match=r"no entry_1/instrument_1/beam_1/energy.*--energy_eV"):
        read(path)
    with h5py.File(path, "a") as h5:
        put(h5, "entry_1/instrument_1/beam_1/energy", 3.0, "GeV")
    with pytest.raises(DataError, match=r"3e.09 eV, which no photon has: a storage ring's"):
        read(path)
    with h5py.File(path, "a") as h5:
        put(h5, "entry_1/instrument_1/beam_1/incident_beam_energy", 6.2, "keV")
    assert read(path).geometry.energy_eV == pytest.approx(6200)


def test_a_beam_energy_without_units_is_recognised(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.nxs", energy_units=None)).geometry.energy_eV == pytest.approx(ENERGY_EV)


def test_a_pixel_mask_hides_what_is_not_0(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nxs")
    bits = np.zeros((N, N), "u4")
    bits[4, 6], bits[5, 7] = 0x20, 1
    with h5py.File(path, "a") as h5:
        h5["entry_1/instrument_1/detector_1/pixel_mask"] = bits
    mask = read(path).mask
    assert mask is not None
    assert sorted(map(tuple, np.argwhere(~mask).tolist())) == [(4, 6), (5, 7)]


def test_another_definition_is_another_dialect(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nxs", translation=True)
    with h5py.File(path, "a") as h5:
        del h5["entry_1/definition"]
        h5["entry_1/definition"] = "NXsomething"
    assert read_recording(path, ReadOptions()).source.dialect == "cxi"


@pytest.mark.spec("READ-6")
def test_only_entries_of_the_definition_are_scans(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nxs")
    with h5py.File(path, "a") as h5:
        h5.copy("entry_1", "entry_2")
        h5.copy("entry_1", "entry")
        del h5["entry/definition"]
    with pytest.raises(DataError, match="holds 2 scans: entry_1, entry_2"):
        read(path)


def test_motors_that_fit_no_frames_are_refused(tmp_path: Path) -> None:
    motors = {"x": np.arange(7.0), "y": np.arange(3.0)}
    with pytest.raises(DataError, match=r"x is \(7,\) and y is \(3,\) for 20 frames.*--positions"):
        read(write(tmp_path / "a.nxs", motors=motors))


def test_the_axes_of_a_square_raster_are_no_lists_of_too_few(tmp_path: Path) -> None:
    n = min(RASTER)
    square = GRID.positions_m.reshape(*RASTER, 2)[:n, :n]
    frames = GRID.counts.reshape(*RASTER, N, N)[:n, :n].reshape(-1, N, N)
    motors = {"x": square[0, :, 1] * UM, "y": square[:, 0, 0] * UM}
    found = read(write(tmp_path / "a.nxs", GRID, frames=frames, motors=motors))
    assert found.positions is not None
    np.testing.assert_allclose(found.positions, square.reshape(-1, 2), rtol=1e-12)
    assert any("which their lengths cannot tell" in text for text in found.source.assumptions)
