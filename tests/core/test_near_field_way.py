"""A near-field scan on its way through core: its scale, its first probe, its score, its inspection."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from report_scan import make_run

from ptycho_core.api.prepare import of_one_experiment, with_initial_probe
from ptycho_core.api.score import oracle_counts, score
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.propagation import FAR_FIELD, Propagation
from ptycho_core.data.raw import Geometry, RawData
from ptycho_core.enginekit.state import flat_image
from ptycho_core.enginekit.stitching import make_image
from ptycho_core.errors import DataError
from ptycho_core.inspection.examine import examine, inspect_scan
from ptycho_core.io.reconstruction_file import read_reconstruction, write_reconstruction
from ptycho_core.io.write import write_scan
from ptycho_core.physics.propagation import fresnel_number_of, propagate
from ptycho_core.report.write import run_summary, write_results
from ptycho_core.simulation import SimulatedScan, SimulationConfig, simulate_scan

NEAR = Propagation("near_field", 0.13)


@pytest.fixture(scope="module")
def simulated() -> SimulatedScan:
    return simulate_scan(
        SimulationConfig(
            object="texture", N=32, n_frames=60, step_px=4.0, fresnel_number=0.13, n_modes=2, background=0.3,
            bad_pixel_fraction=0.2, photons=1e5, seed=2,
        )
    )  # fmt: skip


def container(raw: RawData) -> PtychoDataContainer:
    return PtychoDataContainer.of(raw)


@pytest.mark.spec("FM-6", "FM-23")
def test_the_scale_starts_from_the_light_on_the_good_pixels_of_the_near_field(simulated: SimulatedScan) -> None:
    raw = simulated.raw
    lit = (np.abs(propagate(raw.probe, NEAR)) ** 2).sum(axis=0)[raw.mask].sum()
    signal = raw.frame_totals.mean() - raw.background[raw.mask].sum()
    assert container(raw).statistics.scale == pytest.approx(signal / lit, rel=1e-5)


@pytest.mark.spec("FM-5", "FM-23", "DATA-20")
def test_the_truth_explains_a_near_field_scan(simulated: SimulatedScan) -> None:
    raw, truth = simulated.raw, simulated.truth
    image = make_image(
        truth.object, np.ones(truth.object.shape, np.float32), truth.origin_px, raw.probe, 1.0, raw.positions_px
    )
    frames = np.arange(raw.n_frames)
    rate = oracle_counts(image, container(raw), frames)
    good = raw.mask
    deviation = (raw.read_counts(frames) - rate)[:, good] / np.sqrt(rate[:, good])
    assert np.std(deviation) == pytest.approx(1.0, abs=0.02)
    far = oracle_counts(image, container(replace(raw, propagation=FAR_FIELD)), frames)
    assert np.std((raw.read_counts(frames) - far)[:, good] / np.sqrt(far[:, good])) > 5


@pytest.mark.spec("FM-12", "FM-23")
def test_the_first_probe_arrives_as_the_mean_pattern_of_the_near_field(simulated: SimulatedScan) -> None:
    raw, frames = replace(simulated.raw, probe=None), np.arange(40)
    probed, guess = with_initial_probe(raw, frames)
    assert guess is not None
    assert guess.how == "near field"
    assert probed.propagation == NEAR
    wanted = np.sqrt(np.maximum(raw.subset(frames).mean_pattern() - np.where(raw.mask, raw.background, 0), 0))
    np.testing.assert_allclose(propagate(probed.probe[0], NEAR), wanted, atol=1e-4 * wanted.max())
    assert "mean pattern, propagated back to the object" in probed.source.assumptions[-1]


@pytest.mark.spec("DATA-22")
def test_a_second_scan_that_propagates_otherwise_is_of_another_experiment(simulated: SimulatedScan) -> None:
    like = container(simulated.raw)
    assert of_one_experiment(simulated.raw, like).propagation == NEAR
    with pytest.raises(
        DataError, match=r"it is a far field, but the training scan is a near field, Fresnel number 0.13"
    ):
        of_one_experiment(replace(simulated.raw, propagation=FAR_FIELD), like)


def levels(raw: RawData, level: str) -> list[str]:
    return [finding.text for finding in examine(raw) if finding.level == level]


@pytest.mark.spec("DATA-22")
def test_an_inspection_of_a_near_field_scan(simulated: SimulatedScan) -> None:
    raw = simulated.raw
    energy, z, p, m = 12000.0, 1.5, 50e-6, 200.0
    F = fresnel_number_of(energy, z, p, m)
    known: dict[str, Any] = {"energy_eV": energy, "distance_m": z, "detector_pixel_size_m": p}
    fits = replace(raw, propagation=Propagation("near_field", F), geometry=Geometry(**known, pixel_size_m=p / m))
    assert any("The probe's near field correlates" in text for text in levels(raw, "ok"))
    assert not any("that of the geometry" in text for text in levels(fits, "warning"))
    wrong = replace(fits, geometry=Geometry(**known, pixel_size_m=1.1 * p / m))
    (text,) = [text for text in levels(wrong, "warning") if "that of the geometry" in text]
    assert f"{1.1 * F:.4g}. One of them is wrong" in text
    # the same scan, taken for a far field: its probe does not look like its frames
    likeness = [
        text for text in levels(replace(raw, propagation=FAR_FIELD), "warning") if "far field correlates" in text
    ]
    assert likeness


@pytest.mark.spec("DATA-21")
def test_a_result_says_how_its_waves_propagated(simulated: SimulatedScan, tmp_path: Path) -> None:
    data = container(simulated.raw)
    run = make_run(score(flat_image(data), data, "nobody"))
    write_reconstruction(tmp_path / "r.h5", run)
    stored = read_reconstruction(tmp_path / "r.h5")
    assert stored.propagation == NEAR
    assert run_summary(run)["propagation"] == asdict(NEAR)
    write_results(tmp_path, run)
    assert "near field, Fresnel number 0.13" in (tmp_path / "report.html").read_text()
    with h5py.File(tmp_path / "r.h5", "a") as file:
        file["entry/propagation"].attrs["fresnel_number"] = -1.0
    with pytest.raises(DataError, match=r"r.h5: propagation 'fresnel_number' must be one positive number"):
        read_reconstruction(tmp_path / "r.h5")
    with h5py.File(tmp_path / "r.h5", "a") as file:
        del file["entry/propagation"]  # as files were before
    assert read_reconstruction(tmp_path / "r.h5").propagation is None


def test_an_inspection_says_how_waves_propagate(simulated: SimulatedScan, tmp_path: Path) -> None:
    write_scan(tmp_path / "near.npz", simulated.raw)
    found = inspect_scan(tmp_path / "near.npz")
    assert found.propagation == NEAR
    assert found.to_mapping()["propagation"] == asdict(NEAR)
    assert inspect_scan(tmp_path / "none.npz").propagation is None
