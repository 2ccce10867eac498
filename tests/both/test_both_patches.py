"""One bundle, two engines: the same patches and the same image, whoever wrote it."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
from both_engines import NAMES, hard_scan, losses_of, scored, untrained
from engines.engine_scans import CONFIG, EXACT, image_of, lay_out, patches_of, vary

from ptycho_core.api.score import oracle_counts
from ptycho_core.data.container import NO_COUNTS, PtychoDataContainer
from ptycho_core.data.raw import RawData
from ptycho_core.runtime import Runtime
from ptycho_core.testing.tolerances import relative_error

pytestmark = pytest.mark.both

PATCHES = 1e-4
"""Largest difference relative to the largest magnitude. Measured: 2e-7 without sweeps, 7e-6 after 24, 3e-6 for cnn."""

CASES = {
    "alone": (16, vary(model={"sweeps": 0, "depth": 2})),
    "swept": (16, vary(model={"sweeps": 24, "depth": 2})),
    "unrolled": (16, vary(model={"generator": "unrolled", "sweeps": 0, "passes": 4, "depth": 2})),
    "unrolled after sweeps": (16, vary(model={"generator": "unrolled", "sweeps": 6, "passes": 3, "depth": 2})),
    "cnn": (64, vary(model={"generator": "cnn", "width": 2})),
}


def scan_of(N: int):
    """17 frames of 16×16, which groups of 4 do not divide, or 6 of 64×64; every position off the pixel grid."""
    raw = hard_scan(16, 3, 6).subset(np.arange(17)) if N == 16 else hard_scan(64, 2, 3)
    rest = lay_out(raw).subpixel_px
    assert np.abs(rest).min() > 1e-3
    return raw


@pytest.fixture(scope="module", params=sorted(CASES))
def case(request):
    N, config = CASES[request.param]
    return scan_of(N), config


@pytest.mark.spec("BE-12", "BUNDLE-2")
@pytest.mark.parametrize("writer", NAMES)
def test_one_bundle_predicts_the_same_patches_in_both(case, engines, writer, tmp_path):
    raw, config = case
    engines[writer].save(untrained(raw, config, writer), tmp_path / "model.ptycho")
    read = {name: engine.load(tmp_path / "model.ptycho") for name, engine in engines.items()}
    assert [model.backend for model in read.values()] == list(NAMES)
    found, wanted = (patches_of(engines[name], read[name], lay_out(raw)) for name in NAMES)
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    assert relative_error(found, wanted) <= PATCHES
    assert np.std(np.abs(wanted)) > 100 * PATCHES  # there is something to agree on


def test_both_give_the_same_image(case, engines):
    """The merge of a whole scan included: object, coverage, and what core finds through each one's own physics."""
    raw, config = case
    model = untrained(raw, config)
    figures = [scored(engines[name], image_of(engines[name], model, raw), raw) for name in NAMES]
    one, other = (found.image for found in figures)
    # where the probe is darker than single precision can tell from nothing, so are the weights of the merge
    lit = other.coverage > 1e-4
    assert lit.mean() > 0.6
    assert relative_error(one.object[lit], other.object[lit]) <= PATCHES
    assert relative_error(one.coverage, other.coverage) <= 1e-6
    np.testing.assert_array_equal(one.origin_px, other.origin_px)
    assert one.scale == pytest.approx(other.scale, rel=1e-4)
    ours, theirs = (dataclasses.asdict(found.train) for found in figures)
    assert ours == pytest.approx(theirs, rel=1e-4)
    np.testing.assert_allclose(figures[0].frame_sums, figures[1].frame_sums, rtol=1e-3)


def test_both_expect_the_same_counts(engines):
    """Of any image of any engine, at positions that were moved, scale and background included."""
    raw = scan_of(16)
    scan, made = PtychoDataContainer.of(raw), image_of(engines["pytorch"], untrained(raw), raw)
    moved = made.positions_px + np.random.default_rng(0).uniform(-0.3, 0.3, made.positions_px.shape)
    moved = np.clip(moved, raw.positions_px.min(axis=0), raw.positions_px.max(axis=0))
    image, frames = replace(made, positions_px=moved, scale=1.7 * made.scale), np.array([5, 0, 16])
    wanted = oracle_counts(image, scan, frames)
    for engine in engines.values():
        found = engine.expected_counts(image, scan, frames)
        assert (found.dtype, found.shape) == (np.float32, (3, 16, 16))
        assert relative_error(found, wanted) < 1e-5
        for other in (made, replace(image, positions_px=made.positions_px)):
            assert relative_error(engine.expected_counts(other, scan, frames), wanted) > 1e-3
        bare = PtychoDataContainer.of(replace(raw, background=None))
        assert relative_error(engine.expected_counts(image, bare, frames) + raw.background, wanted) < 1e-5


@pytest.mark.parametrize("batch_size", [1, 6, 1000])
def test_memory_is_divided_alike(engines, batch_size):
    """Batches that do not fill up, or are larger than the scan, change neither engine's answer."""
    raw = scan_of(16)
    model = untrained(raw, CASES["alone"][1])
    images = [image_of(engine, model, raw, frames_at_once=batch_size).object for engine in engines.values()]
    images.append(image_of(engines["pytorch"], model, raw).object)
    for image in images[:2]:
        assert relative_error(image, images[2]) <= PATCHES


def test_a_frame_without_counts_is_left_out_alike(engines):
    """And asked for nonetheless, no logarithm, root or quotient of nothing may leak."""
    raw = scan_of(16)
    counts = raw.read_counts(np.arange(raw.n_frames))
    counts[5] = 0
    dark = RawData.from_arrays(counts, raw.positions_px, raw.probe, mask=raw.mask, background=raw.background)
    assert PtychoDataContainer.of(dark).unused[NO_COUNTS].tolist() == [5]
    model = untrained(dark, CASES["swept"][1])
    images = [image_of(engines[name], model, dark) for name in NAMES]
    lit = images[1].coverage > 1e-4
    assert relative_error(images[0].object[lit], images[1].object[lit]) <= PATCHES
    others = dark.subset(np.setdiff1d(np.arange(17), 5))
    for engine, image in zip(engines.values(), images, strict=True):
        assert relative_error(image_of(engine, model, others).object[lit], image.object[lit]) <= PATCHES
    one, other = (patches_of(engine, model, lay_out(dark)) for engine in engines.values())
    assert np.isfinite(one).all()
    assert relative_error(one, other) <= PATCHES
    for loss in ("poisson", "amplitude"):
        config = vary(loss=loss, epochs=1, batch_size=6, probe_trainable=True, model={"sweeps": 2})
        one, other = (losses_of(engine, dark, config)[0] for engine in engines.values())
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_a_bundle_made_for_one_side_serves_another_in_both(engines):
    """The network of a ``probe_unet`` is not tied to the side of its frames."""
    model = untrained(scan_of(16), CASES["swept"][1])
    larger = hard_scan(32, 2, 3, seed=4)
    one, other = (patches_of(engine, model, lay_out(larger)) for engine in engines.values())
    assert one.shape[-1] == 32
    assert relative_error(one, other) <= PATCHES


def test_bfloat16_rounds_about_as_much_in_both(engines):
    """Roundings of 2⁻⁸ differ from engine to engine; each is no farther from the other than twice from float32."""
    raw, config = scan_of(16), CASES["alone"][1]
    exact = untrained(raw, config)
    wanted = patches_of(engines["pytorch"], exact, lay_out(raw))
    errors = []
    for engine in engines.values():
        errors.append(relative_error(patches_of(engine, exact, lay_out(raw), precision="bf16"), wanted))
        assert 1e-5 < errors[-1] < 5e-3
    assert max(errors) < 3 * min(errors)


def test_the_tolerance_would_notice_another_network(engines):
    """A thousandth of one weight's size, a hundredth of a pixel, or one bad pixel that counts: all are above it."""
    raw, config = scan_of(16), CASES["alone"][1]
    model = untrained(raw, config)
    wanted = patches_of(engines["pytorch"], model, lay_out(raw))
    name = "encoder0.conv0.weight"
    weights = {**model.weights, name: model.weights[name] * np.float32(1.003)}
    changed = patches_of(engines["tensorflow"], replace(model, weights=weights), lay_out(raw))
    assert relative_error(changed, wanted) > PATCHES
    data = lay_out(raw)
    moved = replace(data, subpixel_px=data.subpixel_px + np.float32(0.01))
    assert relative_error(patches_of(engines["tensorflow"], model, moved), wanted) > PATCHES
    unmasked = replace(raw, mask=None)
    assert relative_error(patches_of(engines["tensorflow"], model, lay_out(unmasked)), wanted) > PATCHES


def test_the_base_config_names_no_hardware():
    assert CONFIG.runtime == EXACT.runtime == Runtime(accelerator="cpu", precision="32")
