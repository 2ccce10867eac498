"""A scan with all that makes steps hard, where a stepper starts from it, and a descent that moves everything."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.results import Image
from ptycho_core.enginekit.descent import Descent
from ptycho_core.enginekit.state import flat_image, with_room
from ptycho_core.protocol import Constraints, StepLengths
from ptycho_core.testing.problems import make_scan

EVERYTHING = ("object", "probe", "positions", "frame_scale")
LENGTHS = StepLengths(object=0.9, probe=0.4, momentum=0.5, least_squares=True, position_limit_px=1.0)
PLAN = Descent(
    epochs=4,
    batch_size=6,
    wanted=EVERYTHING,
    position_limit_px=1.5,
    position_affine=True,
    constraints=Constraints(power=9e4, support=14.0),
    seed=2,
)


def hard_scan(**changes) -> PtychoDataContainer:
    """Complex, off the grid, two modes, more rows than columns, bad pixels, a background, frames of every role."""
    mask = np.ones((32, 32), bool)
    mask[3:7, 20:29] = False
    raw = make_scan(n_modes=2, background=True, mask=mask, rows=6, columns=4, photons=3e4)
    return PtychoDataContainer.of(replace(raw, **changes), heldout=[3, 7, 12], unused={"shaken": [5]})


def start_of(scan: PtychoDataContainer) -> Image:
    """An image with some structure: a flat one says nothing of positions."""
    image = with_room(flat_image(scan), 3)
    texture = np.random.default_rng(8).normal(size=(2, *image.object.shape))
    return replace(image, object=(image.object * (1 + 0.1 * texture[0] + 0.1j * texture[1])).astype(np.complex64))
