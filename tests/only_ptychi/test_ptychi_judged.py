"""An image that pty-chi refined is judged in the loss that its algorithm refines with."""

from __future__ import annotations

import numpy as np
import pytest
from ptychi_scans import config_of, container, make_scan, train
from test_ptychi_refining import HELD_OUT, image_of

from ptycho_core.api.refine import refine
from ptycho_core.api.score import heldout_loss, score
from ptycho_core.config import RefinementConfig
from ptycho_core.data.roles import draw_heldout
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


@pytest.mark.spec("BE-17", "BE-21")
def test_held_out_frames_that_reach_beyond_the_image_judge_what_is_returned():
    """A region is held out, so part of it is lit by no other frame: there the image is 0, and so it is judged."""
    raw = make_scan(1, noise=True, total=1e4, texture=0.5)
    engine, scan = load_backend("ptychi"), container(raw, draw_heldout(raw.positions_px, 0.4, 2, "region"))
    initial = train(raw, config_of("lsqml", epochs=1), scan.heldout_frames)
    initial = engine.reconstruct(initial, scan, initial.config.inference)
    assert np.mean(initial.object == 0) > 0.03
    told: list[float] = []
    config = config_of("lsqml", refinement=RefinementConfig(epochs=5, probe=False))
    found = engine.refine(initial, scan, config, progress=lambda event: told.append(event.metrics["test_loss"]))
    counts = raw.read_counts(scan.heldout_frames).astype(np.float64)
    least = min(told) * len(counts) * scan.statistics.mean_counts
    deviance = 2 * (least - np.sum(counts - counts * np.log(np.maximum(counts, 1))))
    assert heldout_loss(score(found, scan, "ptychi", engine), "poisson") == pytest.approx(deviance, rel=1e-3)
