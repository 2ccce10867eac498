"""Each engine's physics against the oracle in both precisions, and the engine's own questions to it."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import pytest
from core.physics_problem import complex_noise
from engine_scans import make_object, make_scan

from ptycho_core.api.score import oracle_counts
from ptycho_core.data import raw as raw_module
from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.data.propagation import FAR_FIELD, Propagation
from ptycho_core.data.raw import RawData
from ptycho_core.data.results import Image
from ptycho_core.enginekit import stitching
from ptycho_core.enginekit.stitching import make_image
from ptycho_core.errors import ConfigError, DataError
from ptycho_core.physics import corrections, forward, likelihood, patches, probe, propagation, relative, steps, sweep
from ptycho_core.testing.tolerances import FLOAT32, relative_error

SHAPE = (29, 22)
ORACLE = {
    "shift_ramp": forward, "fourier_shift": forward, "far_field": propagation, "far_field_adjoint": propagation,
    "propagate": propagation, "propagate_adjoint": propagation, "rate_of_waves": forward,
    "exit_waves": forward, "expected_counts": forward, "extract": patches, "accumulate": patches, "merge": patches,
    "poisson_loss": likelihood, "amplitude_loss": likelihood, "solver_update": sweep,
    "mode_intensity": forward, "swept": sweep, "relative_weight": sweep, "weighted_size": sweep,
    "relative_amplitude": relative, "relative_variation": relative,
    "loss_slope": likelihood, "shift_slope": steps, "position_gradient": steps, "illumination": steps,
    "expected_total": steps, "patch_light": steps, "lit_level": steps, "object_step": steps, "probe_step": steps,
    "position_step": steps, "least_squares_length": steps, "frame_gains": corrections, "orthogonalise": probe,
}  # fmt: skip
WAYS = (FAR_FIELD, Propagation("near_field", 0.21), Propagation("near_field", 0.21, 0.9))
HELPERS = {"weighted_mean", "patch_index"}
"""Parts of the functions above that every twin has."""


@pytest.mark.spec("BE-7")
@pytest.mark.parametrize("name", sorted(ORACLE))
def test_names_and_order_of_arguments_are_those_of_the_oracle(framework, name):
    twin = framework.physics
    assert name in twin.__all__
    ours, theirs = (inspect.signature(getattr(module, name)).parameters for module in (twin, ORACLE[name]))
    assert list(ours) == list(theirs)
    assert [p.default for p in ours.values()] == [p.default for p in theirs.values()]


def test_every_function_of_the_twin_is_compared(framework):
    twin = framework.physics
    public = {name for name in twin.__all__ if inspect.isfunction(getattr(twin, name))}
    assert public == set(ORACLE) | HELPERS | framework.helpers
    assert set(twin.LOSSES) == {"poisson", "amplitude"}
    assert twin.RELAXATION == sweep.RELAXATION


def cut_and_shifted(problem):
    rest = problem.rest.astype(np.float64)
    return patches.extract(problem.obj, problem.corners, 16), forward.fourier_shift(problem.probe[None], rest[:, None])


@pytest.mark.spec("BE-7", "FM-2", "FM-3", "FM-4", "FM-5")
def test_forward_model(problem, side):
    cut, shifted = cut_and_shifted(problem)
    rest = problem.rest.astype(np.float64)
    put, twin = side.put, side.twin
    side.agrees(twin.shift_ramp(put(rest), 16), forward.shift_ramp(rest, 16), "wave")
    side.agrees(twin.fourier_shift(put(problem.probe[None]), put(rest[:, None])), shifted, "wave")
    side.agrees(twin.far_field(put(shifted)), propagation.far_field(shifted), "wave")
    side.agrees(twin.far_field_adjoint(put(shifted)), propagation.far_field_adjoint(shifted), "wave")
    arguments = (cut, problem.probe, rest)
    waves = forward.exit_waves(*arguments)
    side.agrees(twin.exit_waves(*map(put, arguments)), waves, "wave")
    for scale, background in ((1.0, None), (problem.scale, None), (problem.scale, problem.background)):
        for how in WAYS:
            wanted = forward.expected_counts(*arguments, scale, background, how)
            side.agrees(twin.expected_counts(*map(put, arguments), scale, put(background), how), wanted, "rate")
            side.agrees(twin.rate_of_waves(put(waves), scale, put(background), how), wanted, "rate")


@pytest.mark.spec("BE-7", "FM-4", "FM-23")
@pytest.mark.parametrize("how", WAYS, ids=str)
def test_to_the_detector_and_back(problem, side, how):
    """As it is stored, and in the layout in which nothing is moved about; of several waves, for each mode."""
    waves, counts = cut_and_shifted(problem)[1], problem.counts + 1j * problem.mask
    arrived, back = propagation.propagate(waves, how), propagation.propagate_adjoint(waves, how)
    side.agrees(side.twin.propagate(side.put(waves), how), arrived, "wave")
    side.agrees(side.twin.propagate_adjoint(side.put(waves), how), back, "wave")
    make = getattr(side.twin.Propagator, "of", side.twin.Propagator)
    there = make(how, 16, side.put(waves).dtype)
    found = there.to_detector(side.put(waves))
    side.agrees(there.stored_layout(found), arrived, "wave")
    side.agrees(there.detector_layout(side.put(arrived)), side.get(found), "wave")
    side.agrees(there.from_detector(there.detector_layout(side.put(waves))), back, "wave")
    side.agrees(there.stored_layout(there.detector_layout(side.put(counts))), counts, "wave")


@pytest.mark.spec("FM-24")
def test_a_near_field_that_aliases_is_refused_by_the_twin(problem, side):
    waves = side.put(cut_and_shifted(problem)[1])
    with pytest.raises(DataError, match=r"F = 0.05 of a pixel, N = 16.*least N is 20"):
        side.twin.propagate(waves, Propagation("near_field", 0.05))


@pytest.mark.spec("BE-7", "FM-1", "FM-7")
def test_patches_on_several_canvases(problem, side):
    put, twin = side.put, side.twin
    objects = np.stack([problem.obj, 1j * problem.obj[::-1]])
    corners = np.stack([problem.corners, problem.corners[::-1]])
    cut = np.stack([patches.extract(o, c, 16) for o, c in zip(objects, corners, strict=True)])
    found = side.get(twin.extract(put(objects), put(corners), 16))
    np.testing.assert_array_equal(found, cut.astype(found.dtype))
    weights = np.stack([np.abs(cut_and_shifted(problem)[1][:, 0]) ** 2] * 2)
    weights[:, :, :4] = 0
    sums = np.stack([patches.accumulate(q, c, SHAPE) for q, c in zip(cut, corners, strict=True)])
    side.agrees(twin.accumulate(put(cut), put(corners), SHAPE), sums, "merge")
    numbers = np.arange(objects.size).reshape(objects.shape)
    places = [patches.extract(n, c, 16) for n, c in zip(numbers, corners, strict=True)]
    np.testing.assert_array_equal(side.get(twin.patch_index(put(corners), 16, SHAPE)), np.ravel(places))
    # a quotient of two tiny sums has no rounding of its own, so the merge is as good as its sums
    merged = np.stack([patches.merge(q, w, c, SHAPE) for q, w, c in zip(cut, weights, corners, strict=True)])
    side.agrees(twin.merge(put(cut), put(weights), put(corners), SHAPE), merged, "merge")
    assert (merged[:, :4] == 0).all()


@pytest.mark.spec("FM-1", "BE-7")
def test_extract_and_accumulate_are_adjoint(problem, framework):
    def put(value):
        return framework.put(value, "float64")

    rng = np.random.default_rng(5)
    obj, waves = complex_noise(rng, 1, *SHAPE), complex_noise(rng, 1, 6, 16, 16)
    corners = put(problem.corners[None])
    left = np.vdot(framework.get(framework.physics.extract(put(obj), corners, 16)), waves)
    right = np.vdot(obj, framework.get(framework.physics.accumulate(put(waves), corners, SHAPE)))
    assert left == pytest.approx(right, rel=1e-12)


@pytest.mark.spec("BE-7", "FM-7")
def test_weights(problem, side):
    shifted = cut_and_shifted(problem)[1]
    found = side.twin.mode_intensity(side.put(shifted))
    side.agrees(found, np.sum(np.abs(shifted) ** 2, axis=1), "rate")
    single = stitching.probe_weights(problem.probe.astype(np.complex64), problem.rest)
    assert relative_error(side.get(found), single) < 1e-5


def test_where_no_weight_falls_the_mean_is_zero_and_so_is_its_gradient(side):
    """A gradient of 0/0 in a dark corner of a canvas would make every weight of a network NaN."""
    sums, weights = np.array([1 + 2j, 0, 3j]), np.array([2.0, 0.0, 1e-30])
    side.agrees(side.twin.weighted_mean(side.put(sums), side.put(weights)), [0.5 + 1j, 0, 3e30j], "merge")

    def power(numerator):
        mean = side.twin.weighted_mean(numerator, side.put(weights[:2]))
        return side.twin.mode_intensity(mean[:, None, None])[0, 0]

    _, (gradient,) = side.framework.gradient(power, side.put(sums[:2]))
    np.testing.assert_allclose(gradient, [0.5 + 1j, 0], rtol=1e-6)


@pytest.mark.spec("BE-7", "FM-16")
def test_solver_update(problem, side):
    cut, shifted = cut_and_shifted(problem)
    known = ((None, None, 1.0, FAR_FIELD), (problem.mask, problem.background, problem.scale, FAR_FIELD))
    for mask, background, scale, how in (*known, (problem.mask, problem.background, problem.scale, WAYS[2])):
        wanted = sweep.solver_update(cut, shifted, problem.counts, mask, background, scale, how)
        found = side.twin.solver_update(*map(side.put, (cut, shifted, problem.counts, mask, background)), scale, how)
        side.agrees(found, wanted, "update")
        side.agrees(side.twin.swept(side.put(cut), found), sweep.swept(cut, wanted), "update")


@pytest.mark.spec("BE-7", "FM-20")
def test_weight_and_size_of_a_frame(problem, side):
    cut, shifted = cut_and_shifted(problem)
    weight = sweep.relative_weight(shifted)
    side.agrees(side.twin.relative_weight(side.put(shifted)), weight, "rate")
    for values in (cut, 1e-9 * cut):
        found = side.twin.weighted_size(side.put(values), side.put(weight))
        side.agrees(found, sweep.weighted_size(values, weight), "rate")


@pytest.mark.spec("BE-7", "FM-30", "FM-31")
def test_what_is_relative(problem, side):
    cut, shifted = cut_and_shifted(problem)
    for mask, background in ((None, None), (problem.mask, problem.background)):
        wanted = relative.relative_amplitude(problem.counts, shifted, problem.scale, mask, background)
        given = (side.put(problem.counts), side.put(shifted), problem.scale, side.put(mask), side.put(background))
        side.agrees(side.twin.relative_amplitude(*given), wanted, "rate")
    weight = np.sum(np.abs(problem.probe) ** 2, axis=0)
    for image in (cut, cut.reshape(2, 3, 16, 16), np.full_like(cut, 1 - 2j), np.zeros_like(cut)):
        found = float(side.get(side.twin.relative_variation(side.put(image), side.put(weight))))
        # the root makes 1e-3 of the rounding of a constant image in single precision
        assert found == pytest.approx(relative.relative_variation(image, weight), rel=1e-5, abs=1e-3)


@pytest.mark.spec("BE-7", "FM-8", "FM-9", "FM-10", "CONV-5")
@pytest.mark.parametrize("loss", ["poisson", "amplitude"])
@pytest.mark.parametrize("extras", [False, True])
@pytest.mark.parametrize("how", WAYS[:2], ids=str)
def test_losses_and_gradients(problem, side, loss, extras, how):
    mask, background = (problem.mask, problem.background) if extras else (None, None)
    rest, corners = problem.rest.astype(np.float64), side.put(problem.corners[None])
    counts, known, twin = side.put(problem.counts), (side.put(mask), 37.0), side.twin

    def value_of(obj, probe, scale):
        cut = twin.extract(obj[None], corners, 16)[0]
        rate = twin.expected_counts(cut, probe, side.put(rest), scale, side.put(background), how)
        return twin.LOSSES[loss](rate, counts, *known)

    inputs = [side.put(value) for value in (problem.obj, problem.probe, np.float64(problem.scale))]
    value, gradients = side.framework.gradient(value_of, *inputs)
    wanted = likelihood.loss_and_gradient(
        problem.obj, problem.probe, problem.corners, rest, problem.counts, loss, mask, background, problem.scale, 37.0,
        how,
    )  # fmt: skip
    side.agrees(value, wanted[0], "loss")
    for found, gradient in zip(gradients, wanted[1:], strict=True):
        side.agrees(found, gradient, "gradient")


@pytest.mark.spec("BE-7", "FM-8", "FM-9", "FM-10")
@pytest.mark.parametrize("loss", ["poisson", "amplitude"])
def test_clamped_rates_have_no_gradient(side, loss):
    rate, counts = np.array([[[0.0, 1e-9, 1e-7, 2.0]]]), np.array([[[3.0, 0.0, 0.0, 0.0]]])
    function = side.twin.LOSSES[loss]
    value, (gradient,) = side.framework.gradient(lambda r: function(r, side.put(counts), None, 2.0), side.put(rate))
    side.agrees(value, getattr(likelihood, f"{loss}_loss")(rate, counts, None, 2.0), "loss")
    np.testing.assert_allclose(gradient.ravel(), [0, 0, 0.5, 0.5], rtol=1e-6)


@pytest.fixture(scope="module")
def scan():
    """Two modes, mask, background, and a frame without counts."""
    made = make_scan(n_modes=2, background=1.5, bad=True, photons=3e3)
    counts = made.frames.read(np.arange(made.n_frames))
    counts[3] = 0
    return RawData.from_arrays(counts, made.positions_px, made.probe, mask=made.mask, background=made.background)


@pytest.mark.spec("BE-6", "FM-10")
@pytest.mark.parametrize("loss", ["poisson", "amplitude"])
@pytest.mark.parametrize("chunk_bytes", [None, 4 * 16 * 16 * 7])
def test_loss_and_gradient_of_the_engine(engine, scan, loss, chunk_bytes, monkeypatch):
    if chunk_bytes:  # frames that do not fit one chunk are added up
        monkeypatch.setattr(raw_module, "_CHUNK_BYTES", chunk_bytes)
    corners, rest = integer_corners(scan.positions_px, 16)
    obj = (0.9 * make_object(*(corners.max(axis=0) + 17), seed=4)).astype(np.complex64)
    probe = (scan.probe * np.float32(3.1)).astype(np.complex64)
    before = obj.copy(), probe.copy()
    value, d_obj, d_probe = engine.loss_and_gradient(obj, probe, scan, loss)
    counts = scan.read_counts(np.arange(scan.n_frames))
    wanted = likelihood.loss_and_gradient(
        obj.astype(complex), probe.astype(complex), corners, rest, counts.astype(float), loss, scan.mask,
        scan.background, 1.0, float(scan.frame_totals.sum()),
    )  # fmt: skip
    assert value == pytest.approx(wanted[0], rel=FLOAT32["loss"])
    assert relative_error(d_obj, wanted[1]) < FLOAT32["gradient"]
    assert relative_error(d_probe, wanted[2]) < FLOAT32["gradient"]
    assert (type(value), d_obj.dtype, d_probe.dtype) == (float, np.complex64, np.complex64)
    assert isinstance(d_obj, np.ndarray)
    np.testing.assert_array_equal(obj, before[0])
    np.testing.assert_array_equal(probe, before[1])


def image_with(obj, scan, origin_px, positions_px) -> Image:
    """An image with a probe of its own and a scale."""
    probe = (scan.probe * np.exp(0.3j) * np.float32(0.7)).astype(np.complex64)
    return make_image(obj, np.ones(obj.shape, np.float32), np.array(origin_px), probe, 37.5, positions_px)


@pytest.mark.spec("BE-6", "FM-5")
@pytest.mark.parametrize("background", [True, False])
def test_expected_counts_of_an_image(engine, scan, background):
    """With its own probe, scale and positions, from its own corner on, background included."""
    raw = scan if background else replace(scan, background=None)
    moved = scan.positions_px + np.random.default_rng(2).uniform(-1.2, 1.2, scan.positions_px.shape)
    corners, rest = integer_corners(moved, 16)
    origin = corners.min(axis=0) - [2, 1]
    obj = make_object(*(corners.max(axis=0) + 18 - origin)).astype(np.complex64)
    image = image_with(obj, scan, origin, moved)
    frames = np.array([7, 0, 19, 4])
    rate = engine.expected_counts(image, PtychoDataContainer.of(raw), frames)
    cut = patches.extract(obj, corners[frames] - origin, 16)
    wanted = forward.expected_counts(cut, image.probe, rest[frames], 37.5, raw.background)
    assert relative_error(rate, wanted) < FLOAT32["rate"]
    assert isinstance(rate, np.ndarray)
    assert rate.dtype in (np.float32, np.float64)
    assert rate.flags.writeable
    oracle = oracle_counts(image, PtychoDataContainer.of(raw), frames)
    assert relative_error(rate, oracle) < FLOAT32["rate"]


def test_questions_that_cannot_be_answered(engine, scan):
    small = np.ones((17, 40), np.complex64)
    image = image_with(small, scan, [0, 0], scan.positions_px)
    with pytest.raises(DataError, match="do not fit the object"):
        engine.expected_counts(image, PtychoDataContainer.of(scan), np.arange(20))
    with pytest.raises(DataError, match="do not fit the object"):
        engine.loss_and_gradient(small, scan.probe, scan, "poisson")
    with pytest.raises(ConfigError, match="loss = 'huber'; allowed: poisson, amplitude"):
        engine.loss_and_gradient(np.ones((60, 60), np.complex64), scan.probe, scan, "huber")
