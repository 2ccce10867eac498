"""The real star in every format that scans are written in: read back, a solver makes the same image of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ptycho_core import RefinementConfig, TrainingConfig, run
from ptycho_core.data.raw import Geometry, RawData
from ptycho_core.io import read_scan, write_scan

pytestmark = pytest.mark.real_data

CONFIG = TrainingConfig(backend="numpy", epochs=2, refinement=RefinementConfig(engine="none"), seed=1)
FILES = {
    "npz": "star.npz",
    "hdf5": "star.h5",
    "cxi": "star.cxi",
    "nxcxi_ptycho": "star.nxs",
    "ptychodus_training": "train.npz",
}


@pytest.fixture(scope="module")
def star(shared_data: Path) -> RawData:
    """Every third frame, with the instrument that it was measured with."""
    raw = read_scan(shared_data / "siemens_star_64.npz", measurement="amplitude")
    geometry = Geometry(energy_eV=8800.0, distance_m=1.92, detector_pixel_size_m=75e-6)
    return replace(raw, geometry=geometry).subset(np.arange(0, 516, 3))


def figures(raw: RawData) -> tuple[float, float]:
    scored = run(raw, CONFIG).scored
    assert scored.heldout is not None
    return scored.train.r_factor, scored.heldout.r_factor


@pytest.fixture(scope="module")
def expected(star: RawData) -> tuple[float, float]:
    return figures(star)


@pytest.mark.spec("DATA-40")
@pytest.mark.parametrize("name", FILES)
def test_the_star_is_the_same_scan_in_every_format(
    star: RawData, expected: tuple[float, float], tmp_path: Path, name: str
) -> None:
    lost = write_scan(tmp_path / FILES[name], star, format=name)
    again = read_scan(tmp_path / FILES[name])
    everything = np.arange(star.n_frames)
    np.testing.assert_array_equal(again.read_counts(everything), star.read_counts(everything))
    np.testing.assert_allclose(again.positions_px, star.positions_px, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(again.probe, star.probe)
    assert figures(again) == pytest.approx(expected, abs=1e-6)
    assert len(lost) == {"npz": 0, "hdf5": 0}.get(name, 1)
