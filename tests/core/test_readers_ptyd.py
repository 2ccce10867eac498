"""ptypy's .ptyd as documented: chunks, keV and metres, weights; and .ptyr as a probe to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from reader_truth import DETECTOR_PIXEL_M, DISTANCE_M, ENERGY_EV, N, a_truth, misfit

from ptycho_core import read_scan
from ptycho_core.data.recording import Recording
from ptycho_core.errors import DataError
from ptycho_core.io.probes import read_probe
from ptycho_core.io.registry import read_recording
from ptycho_core.reader_protocol import ReadOptions

TRUTH = a_truth()
CHUNKS = {0: slice(0, 6), 2: slice(6, 13), 10: slice(13, 20)}


def write(path: Path, changes: dict[str, Any] | None = None) -> Path:
    """A scan in three chunks whose names do not sort as text; a change to None leaves a path out."""
    content: dict[str, Any] = {
        "meta/energy": ENERGY_EV / 1e3,
        "meta/distance": DISTANCE_M,
        "meta/psize": np.full(2, DETECTOR_PIXEL_M),
        "meta/propagation": "farfield",
        "info/energy": 1.0,
        "info/psize": DETECTOR_PIXEL_M / 2,  # before the frames were rebinned
        "info/center": "None",
    }
    for number, part in CHUNKS.items():
        content[f"chunks/{number}/data"] = TRUTH.counts[part]
        content[f"chunks/{number}/positions"] = TRUTH.positions_m[part]
        content[f"chunks/{number}/indices"] = np.arange(20)[part]
        content[f"chunks/{number}/weights"] = np.zeros(0)
    with h5py.File(path, "w") as h5:
        for name, value in (content | (changes or {})).items():
            if value is not None:
                h5[name] = value
    return path


def read(path: Path, **said: Any) -> Recording:
    """The recording, nothing settled."""
    found = read_recording(path, ReadOptions(**said))
    assert found.source.dialect == "ptyd"
    return found


@pytest.mark.spec("READ-5")
def test_the_truth_explains_what_is_read(tmp_path: Path) -> None:
    raw = read_scan(write(tmp_path / "a.ptyd"))
    assert misfit(raw, TRUTH) < 1e-4
    np.testing.assert_allclose(raw.positions_px, TRUTH.positions_px, atol=1e-6)
    assert raw.geometry.energy_eV == pytest.approx(ENERGY_EV, rel=1e-12)
    numbers = np.array([14, 2, 12])
    np.testing.assert_array_equal(raw.frames.read(numbers), TRUTH.counts[numbers])
    assert any("(y, x), metres" in text for text in raw.source.assumptions)


def test_info_serves_where_there_is_no_meta(tmp_path: Path) -> None:
    changes = {"meta/energy": None, "info/energy": ENERGY_EV / 1e3}
    assert read(write(tmp_path / "a.ptyd", changes)).geometry.energy_eV == pytest.approx(ENERGY_EV)
    path = write(tmp_path / "b.ptyd", {"meta/distance": None})
    with pytest.raises(DataError, match=r"no meta/distance.*--distance_m"):
        read(path)
    np.testing.assert_allclose(read_scan(path, distance_m=DISTANCE_M).positions_px, TRUTH.positions_px, atol=1e-6)


def test_weights_of_0_hide_pixels(tmp_path: Path) -> None:
    weights, common = np.ones((7, N, N)), np.ones((N, N))
    weights[3, 4, 5], common[6, 7], common[9, 9] = 0, 0, 0.5
    found = read(write(tmp_path / "a.ptyd", {"chunks/2/weights": weights, "meta/weight2d": common}))
    assert found.mask is not None
    assert sorted(map(tuple, np.argwhere(~found.mask).tolist())) == [(4, 5), (6, 7)]
    assert any("hide 2 pixels" in text and "other weights were not used" in text for text in found.source.assumptions)


def test_a_near_field_has_its_fresnel_number(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.ptyd", {"meta/propagation": "nearfield"}))
    assert found.propagation is not None
    wavelength = 1.239841984e-6 / ENERGY_EV
    assert found.propagation.fresnel_number == pytest.approx(DETECTOR_PIXEL_M**2 / (wavelength * DISTANCE_M), rel=1e-12)
    assert found.geometry.pixel_size_m == DETECTOR_PIXEL_M


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"chunks/2/positions": None}, r"no chunks/2/positions \(\(n, 2\) positions"),
        ({"chunks/2/positions": np.zeros((7, 3))}, r"'chunks/2/positions' is \(7, 3\)"),
        ({"chunks/2/data": np.ones((7, N, N + 2))}, "frames of its chunks are 32×32, 32×34"),
        ({"chunks/2/data": np.ones((7, N))}, r"'chunks/2/data' is \(7, 32\)"),
        ({"meta/weight2d": np.ones((4, 4))}, r"'meta/weight2d' is \(4, 4\), but frames are 32×32"),
    ],
)
def test_what_is_no_scan_is_refused(tmp_path: Path, changes: dict[str, Any], match: str) -> None:
    with pytest.raises(DataError, match=match):
        read(write(tmp_path / "a.ptyd", changes))


@pytest.mark.spec("READ-7")
def test_a_reconstruction_gives_the_probe_to_start_from(tmp_path: Path) -> None:
    probe = TRUTH.probe.astype(np.complex64)
    with h5py.File(tmp_path / "a.ptyr", "w") as h5:
        h5["content/obj/Sscan00G00/data"] = np.ones((1, 50, 60), np.complex64)
        h5["content/probe/Sscan00G00/data"] = probe
        h5["content/probe/Sscan00G00/_psize"] = [1e-8, 1e-8]
    np.testing.assert_array_equal(read_probe(tmp_path / "a.ptyr"), probe)


@pytest.mark.spec("SETTLE-5")
def test_what_is_given_serves_where_the_files_own_is_damaged(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ptyd", {"meta/distance": -2.0})
    with pytest.raises(DataError, match="--distance_m"):
        read(path)
    assert read_scan(path, distance_m=DISTANCE_M).geometry.distance_m == DISTANCE_M
