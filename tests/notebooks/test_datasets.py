"""Images as datasets of xarray: axes in metres or pixels, where the data lie, and what they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptycho_core import RefinementConfig, Run, SimulationConfig, TrainingConfig, run, simulate
from ptycho_core.errors import ConfigError
from ptycho_core.physics.gauge import shown_phase

pytestmark = pytest.mark.notebooks


@pytest.fixture(scope="module")
def made() -> Run:
    settings = SimulationConfig(N=24, grid_shape=(6, 9), step_px=3.3, n_modes=2, photons=2e4, pixel_size_m=2e-8, seed=8)
    config = TrainingConfig(epochs=2, test_fraction=0.1, refinement=RefinementConfig(engine="none"))
    return run(simulate(settings).raw, config, title="t")


@pytest.mark.spec("NOTE-6")
def test_axes_are_scan_coordinates_in_metres(made: Run) -> None:
    data, image = made.to_xarray(), made.image
    height, width = image.object.shape
    assert height != width
    assert image.origin_px[0] != image.origin_px[1]
    assert data["object"].dims == ("y", "x")
    assert data["object"].shape == (height, width)
    assert np.array_equal(data["object"].values, image.object)
    assert np.allclose(data["y"].values, (image.origin_px[0] + np.arange(height)) * 2e-8)
    assert np.allclose(data["x"].values, (image.origin_px[1] + np.arange(width)) * 2e-8)
    assert data["y"].attrs["units"] == data["positions"].attrs["units"] == "m"
    assert np.allclose(data["positions"].sel(axis="x"), image.positions_px[:, 1] * 2e-8)
    assert data["probe"].dims == ("mode", "probe_y", "probe_x")
    assert data["probe_x"].values[[0, -1]] == pytest.approx([-11.5 * 2e-8, 11.5 * 2e-8])
    assert data["mode"].values.tolist() == [1, 2]


def test_without_a_pixel_size_they_are_pixels(made: Run) -> None:
    data = made.image.to_xarray()
    assert data["x"].attrs["units"] == "pixel"
    assert data["x"].values[0] == made.image.origin_px[1]
    assert "pixel_size_m" not in data.attrs
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="pixel_size_m"):
            made.image.to_xarray(wrong)


def test_phase_is_as_everywhere_and_unlit_pixels_are_nan(made: Run) -> None:
    data, image = made.to_xarray(), made.image
    phase, off = shown_phase(image.object, image.coverage)
    lit = image.coverage > 0
    assert not lit.all()
    assert np.allclose(data["phase"].values[lit], phase[lit])
    assert np.isnan(data["phase"].values[~lit]).all()
    assert data["phase"].attrs["removed_global_phase_rad"] == off.phase_rad
    assert np.allclose(data["amplitude"].values[lit], np.abs(image.object[lit]))


def test_frames_have_their_role_and_deviance_and_the_whole_its_figures(made: Run) -> None:
    data = made.to_xarray()
    held = made.scan.heldout_frames
    assert (data["role"].values[held] == "heldout").all()
    assert (data["role"].values == "train").sum() == len(made.scan.train_frames)
    assert data["deviance"].shape == (made.scan.raw.n_frames,)
    assert data.attrs["deviance_heldout"] == made.scored.heldout.deviance  # type: ignore[union-attr]
    assert data.attrs["title"] == "t"
    assert made.verdict is not None
    assert data.attrs["verdict"] == made.verdict.sentence


def test_slices_of_a_thick_object(made: Run) -> None:
    slices = np.stack([made.image.object, made.image.object * 1j])
    data = replace(made.image, slices=slices, slice_spacing_m=3e-6).to_xarray()
    assert data["slices"].dims == ("slice", "y", "x")
    assert data["slices"].attrs["spacing_m"] == 3e-6
