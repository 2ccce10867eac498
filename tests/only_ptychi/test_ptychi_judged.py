"""An image that pty-chi refined is judged in the loss that its algorithm refines with."""

from __future__ import annotations

import pytest
from ptychi_scans import config_of, container, make_scan
from test_ptychi_refining import HELD_OUT, image_of

from ptycho_core.api.refine import refine
from ptycho_core.api.score import heldout_loss, score
from ptycho_core.config import RefinementConfig
from ptycho_core.plugins.registry import load_backend

pytestmark = pytest.mark.ptychi


@pytest.mark.spec("BE-18")
def test_few_photons_refined_by_amplitudes_are_judged_by_amplitudes():
    """A few photons a frame: what lowers the squares of amplitudes raises the deviance, and ``rpie`` has the former."""
    raw = make_scan(1, noise=True, total=10, texture=0.5)
    engine, scan = load_backend("ptychi"), container(raw, HELD_OUT)
    initial = score(image_of(raw, 0.7, texture=0.5), scan, "ptychi", engine)
    done = refine(initial, config_of("rpie", refinement=RefinementConfig(epochs=12, probe=False)), backend=engine)
    assert done.kept, done.note
    assert heldout_loss(done.best, "amplitude") < heldout_loss(initial, "amplitude")
    assert heldout_loss(done.best, "poisson") > heldout_loss(initial, "poisson")
