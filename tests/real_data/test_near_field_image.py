"""A magnified near-field scan of a star becomes its image."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

import ptycho_core
from ptycho_core.config import RefinementConfig, TrainingConfig
from ptycho_core.data.results import Image

pytestmark = pytest.mark.real_data

SPOKES = 28


def share_of_spokes(image: Image, radius_px: float) -> np.ndarray:
    """Share of each angular frequency (361,) in the variance of the phase on a circle about the star's hub."""
    lit = image.coverage >= 0.1 * image.coverage.max()
    phase = np.angle(image.object * np.exp(-1j * np.angle(image.object[lit].sum())))
    hub = np.array([-212.0, -295.0]) - image.origin_px
    angle = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    circle = hub[:, None] + radius_px * np.array([np.sin(angle), np.cos(angle)])
    values = map_coordinates(phase, circle, order=1)
    power = np.abs(np.fft.rfft(values - values.mean())) ** 2
    return power / power.sum()


@pytest.fixture(scope="module")
def run(shared_data):
    plan = RefinementConfig(epochs=20, positions=True)
    config = TrainingConfig(backend="numpy", method="solver", epochs=10, probe_modes=1, refinement=plan)
    return ptycho_core.run(shared_data / "petra3_p25_near_field.cxi", config)


@pytest.mark.spec("FM-23", "FM-25")
def test_the_frames_are_explained(run):
    """Noise alone would give 0.00034; forty epochs come to 0.0057, and part of what is left moves with no frame."""
    assert run.scored.train.fourier_error < 0.0068  # measured: 0.0061
    assert run.scored.heldout.fourier_error < 0.0061  # measured: 0.0054


@pytest.mark.parametrize("radius_px", [20, 25, 40, 55, 65])
def test_spokes_stand_around_the_hub(run, radius_px):
    """Inside of the ring at 30 pixels too, where a period is 4.5 of them."""
    share = share_of_spokes(run.scored.image, radius_px)
    assert share.argmax() == SPOKES
    assert share[SPOKES] > (0.35 if radius_px < 30 else 0.45)  # measured: 0.47 to 0.75
