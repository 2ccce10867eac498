"""Thick objects and probes that vary from frame to frame: made, refined and scored by pty-chi's own forward model."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from ptychi_scans import CPU, N, config_of, container, likeness, make_probe, train
from test_ptychi_physics import a_scan, an_image
from thick_scans import (
    GEOMETRY,
    SPACING_M,
    drifting_probes,
    drifting_scan,
    thick_rate,
    thick_scan,
    two_slices,
)

import ptycho_core
from ptycho_backend_ptychi.options import PtychiOptions
from ptycho_core.api.score import heldout_loss, oracle_counts, score
from ptycho_core.config import RefinementConfig, TrainingConfig
from ptycho_core.config_mapping import config_from_mapping
from ptycho_core.data.raw import Geometry
from ptycho_core.errors import BackendError, Cancelled, ConfigError, DataError
from ptycho_core.io.reconstruction_file import read_reconstruction
from ptycho_core.plugins.registry import load_backend
from ptycho_core.plugins.returned import check_image

pytestmark = pytest.mark.ptychi

SLICES = {"slices": 2, "slice_spacing_m": SPACING_M}
HELD = np.arange(4, 96, 9)
POSITIONS = np.array([[9.3, 8.1], [20.4, 11.9], [14.8, 24.2], [31.1, 25.6]])
FRAMES = np.array([3, 0, 2])


def solved(raw, algorithm="lsqml", options=None, epochs=40, **changes):
    """The model, its image and what core finds with it."""
    engine, config = load_backend("ptychi"), config_of(algorithm, options, epochs=epochs, **changes)
    scan, model = container(raw, HELD), train(raw, config, HELD)
    same = scan.with_probe(model.probe)
    image = engine.reconstruct(model, same, config.inference)
    check_image(image, same, "ptychi", 1e-3)
    return SimpleNamespace(
        model=model, scan=same, image=image, scored=score(image, same, "ptychi", engine), config=config
    )


@pytest.fixture(scope="module")
def thick():
    return thick_scan()


@pytest.fixture(scope="module")
def thin_image(thick):
    return solved(thick)


@pytest.fixture(scope="module")
def drift():
    return drifting_scan()


@pytest.fixture(scope="module")
def constant(drift):
    return solved(drift, probe_trainable=True)


@pytest.fixture(scope="module")
def varying(drift):
    return solved(drift, options={"opr_modes": 1}, probe_trainable=True)


@pytest.mark.spec("BE-6", "DATA-23")
@pytest.mark.parametrize("level", [0.0, 0.7])
def test_it_expects_what_waves_through_slices_give(level):
    """Three unequal slices, two modes, off the grid and off the origin: by an angular spectrum in double precision."""
    slices = np.stack([*two_slices(), two_slices()[1][::-1].conj()])
    probe = make_probe(2)
    probes = np.broadcast_to(probe, (4, *probe.shape))
    scan = a_scan(POSITIONS, probe, geometry=GEOMETRY, background=np.full((N, N), level) if level else None)
    image = replace(
        an_image(np.prod(slices, axis=0), probe, POSITIONS + np.array([-70, 900]), origin=(-70, 900), scale=1.7),
        slices=slices.astype(np.complex64), slice_spacing_m=SPACING_M, forward_model="ptychi",
    )  # fmt: skip
    found = load_backend("ptychi").expected_counts(image, scan, FRAMES)
    wanted = 1.7 * thick_rate(slices, probes, POSITIONS, SPACING_M)[FRAMES] + level
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=2e-5 * wanted.max())
    thin = thick_rate(np.prod(slices, axis=0)[None], probes, POSITIONS, 0.0)[FRAMES]
    assert np.abs(wanted - 1.7 * thin).max() > 0.05 * wanted.max()


@pytest.mark.spec("BE-6", "DATA-23")
def test_it_expects_what_a_probe_of_each_frame_gives():
    """Of two incoherent modes the first varies, coherently, by two modes with weights of either sign."""
    rng = np.random.default_rng(4)
    probe, modes = make_probe(2), (make_probe(4) * 0.3)[2:] * np.array([1j, 1])[:, None, None]
    weights = np.concatenate([rng.uniform(0.8, 1.2, (4, 1)), rng.normal(size=(4, 2))], axis=1)
    probes = np.broadcast_to(probe, (4, *probe.shape)).astype(complex)
    probes[:, 0] = np.einsum("ji,iyx->jyx", weights, np.concatenate([probe[:1], modes]))
    stored = np.ones((4, 4), np.float32)
    stored[:, 0], stored[:, 2:] = weights[:, 0], weights[:, 1:]
    image = replace(
        an_image(two_slices()[0], np.concatenate([probe, modes]).astype(np.complex64), POSITIONS),
        mode_weights=stored, forward_model="ptychi", stats={"opr_modes": 2},
    )  # fmt: skip
    found = load_backend("ptychi").expected_counts(image, a_scan(POSITIONS, probe), FRAMES)
    wanted = thick_rate(two_slices()[:1], probes, POSITIONS, 0.0)[FRAMES]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=2e-5 * wanted.max())


@pytest.mark.spec("BE-6", "DATA-23")
def test_weights_of_another_engine_are_parts_of_an_intensity():
    weights = np.random.default_rng(4).uniform(0, 2, (4, 2)).astype(np.float32)
    image = replace(an_image(two_slices()[0], make_probe(2), POSITIONS), mode_weights=weights)
    scan = a_scan(POSITIONS, make_probe(2))
    found, wanted = load_backend("ptychi").expected_counts(image, scan, FRAMES), oracle_counts(image, scan, FRAMES)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=2e-5 * wanted.max())
    with pytest.raises(DataError, match=r"differ in intensity \(mode_weights\), which pty-chi cannot go on from"):
        load_backend("ptychi").refine(image, scan, config_of())


@pytest.mark.parametrize("algorithm", ["lsqml", "autodiff"])
def test_two_slices_explain_held_out_frames_better_than_a_thin_object(thick, thin_image, algorithm):
    """And what is in the second slice, which the first has not, is found there."""
    found = solved(thick, algorithm, SLICES)
    assert found.image.slices.shape == (2, *found.image.object.shape)
    assert (found.image.slice_spacing_m, found.image.forward_model) == (SPACING_M, "ptychi")
    assert found.scored.heldout.deviance < 0.5 * thin_image.scored.heldout.deviance
    y, x = np.round(found.image.origin_px).astype(int)
    height, width = found.image.object.shape
    true = two_slices()[:, y : y + height, x : x + width]
    for number in range(2):
        own, other = (likeness(found.image.slices[number], true[n]) for n in (number, 1 - number))
        assert own > 0.8 > other + 0.3, (number, own, other)
    with pytest.raises(BackendError, match="explained by the forward model of engine 'ptychi' alone"):
        score(found.image, found.scan, "ptychi")


def test_a_thin_image_is_refined_to_slices(thick, thin_image):
    """The image of one slice is explained as it is, and goes on from there in two."""
    engine, told = load_backend("ptychi"), []
    config = config_of("lsqml", SLICES, refinement=RefinementConfig(epochs=30, patience=30, probe=False))
    initial, scan = thin_image.scored, thin_image.scan
    done = engine.refine(initial.image, scan, config, CPU, progress=lambda e: told.append(e.metrics["test_loss"]))
    check_image(done, scan, "ptychi", 1e-3)
    found = score(done, scan, "ptychi", engine)
    assert found.heldout.deviance < 0.6 * initial.heldout.deviance
    assert done.slices.shape[0] == 2
    # before a step it explains what it did: the second slice is empty space
    still = config_of("lsqml", {**SLICES, "object_step": 1e-9}, refinement=RefinementConfig(epochs=1, probe=False))
    started: list[float] = []
    engine.refine(initial.image, scan, still, CPU, progress=lambda e: started.append(e.metrics["test_loss"]))
    poisson = started[0] * len(HELD) * scan.statistics.mean_counts
    counts = thick.read_counts(HELD).astype(np.float64)
    deviance = 2 * (poisson - np.sum(counts - counts * np.log(np.maximum(counts, 1))))
    assert deviance == pytest.approx(heldout_loss(initial, "poisson"), rel=1e-3)
    # and goes on from slices, with options that say nothing of them
    plain = config_of("lsqml", refinement=RefinementConfig(epochs=5, patience=9, probe=False))
    further = engine.refine(done, scan, plain, CPU)
    assert further.slices.shape == done.slices.shape
    assert score(further, scan, "ptychi", engine).heldout.deviance < found.heldout.deviance


def test_an_image_that_gets_no_better_comes_back_with_its_slices(thick):
    engine, found = load_backend("ptychi"), solved(thick, options=SLICES, epochs=25)
    config = config_of("lsqml", {"object_step": 1e-9}, refinement=RefinementConfig(epochs=1, probe=False))
    again = engine.refine(found.image, found.scan, config, CPU)
    np.testing.assert_allclose(again.slices, found.image.slices, atol=1e-5)
    assert not np.shares_memory(again.slices, found.image.slices)


def test_a_probe_that_drifts_is_followed_and_held_out_frames_take_what_their_neighbours_say(drift, constant, varying):
    """Held-out frames were not iterated on, yet are explained: their weights come from the frames before and after."""
    assert constant.image.mode_weights is None
    assert varying.scored.heldout.deviance < 0.2 * constant.scored.heldout.deviance
    image, M = varying.image, drift.n_frames
    assert image.probe.shape == (2, N, N)
    assert image.mode_weights.shape == (M, 2)
    found = image.mode_weights[:, 1]
    assert np.sqrt(np.mean(found**2)) == pytest.approx(1, abs=0.05)
    assert abs(np.corrcoef(found, np.sin(2 * np.pi * np.linspace(0, 1, M) + 0.4))[0, 1]) > 0.99
    np.testing.assert_allclose(found[HELD], (found[HELD - 1] + found[HELD + 1]) / 2, rtol=1e-5)
    true = drifting_probes(M)[:, 0].reshape(M, -1)
    true = true - true @ image.probe[0].conj().ravel()[:, None] * image.probe[0].ravel() / np.sum(
        np.abs(image.probe[0]) ** 2
    )
    mode = np.linalg.svd(true, full_matrices=False)[2][0]
    assert abs(np.vdot(mode, image.probe[1])) > 0.9 * np.linalg.norm(image.probe[1])
    power = float(np.sum(np.abs(image.probe[1]) ** 2))
    assert power == pytest.approx(np.mean(np.sum(np.abs(true) ** 2, axis=1)), rel=0.5)


def test_a_constant_probe_is_refined_to_one_that_varies(drift, constant):
    engine, scan = load_backend("ptychi"), constant.scan
    config = config_of("lsqml", {"opr_modes": 1}, refinement=RefinementConfig(epochs=30, patience=30))
    done = engine.refine(constant.image, scan, config, CPU)
    check_image(done, scan, "ptychi", 1e-3)
    assert score(done, scan, "ptychi", engine).heldout.deviance < 0.3 * constant.scored.heldout.deviance
    # and goes on from one that varies, also where the probe stays as it is
    early = solved(drift, options={"opr_modes": 1}, epochs=8, probe_trainable=True)
    for probe in (True, False):
        plain = config_of("lsqml", refinement=RefinementConfig(epochs=4, patience=9, probe=probe))
        further = engine.refine(early.image, early.scan, plain, CPU)
        assert further.stats["opr_modes"] == 1
        assert score(further, early.scan, "ptychi", engine).heldout.deviance < early.scored.heldout.deviance
        assert np.allclose(further.mode_weights, early.image.mode_weights, atol=1e-5) is not probe


@pytest.mark.spec("BE-10", "DATA-23")
@pytest.mark.parametrize("which", ["slices", "probe"])
def test_a_bundle_gives_the_same_image(thick, drift, which, tmp_path):
    raw, options = (thick, SLICES) if which == "slices" else (drift, {"opr_modes": 2})
    found, engine = solved(raw, options=options, epochs=3, probe_trainable=which == "probe"), load_backend("ptychi")
    engine.save(found.model, tmp_path / "model.ptycho")
    loaded = engine.load(tmp_path / "model.ptycho")
    again = engine.reconstruct(loaded, found.scan, loaded.config.inference)
    assert score(again, found.scan, "ptychi", engine).heldout == found.scored.heldout
    for name in ("object", "slices", "mode_weights"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found.image, name))


@pytest.mark.spec("BE-8")
@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("lsqml", {"opr_modes": 2}),
        ("lsqml", {"opr_modes": 1, "batching": "compact", "batch_frames": 12}),
        ("lsqml", {**SLICES, "opr_modes": 1}),
        ("lsqml", {**SLICES, "batching": "compact", "batch_frames": 12}),
        ("autodiff", SLICES),
    ],
)
def test_a_run_that_ended_early_goes_on_bit_for_bit(thick, algorithm, options, tmp_path, monkeypatch):
    monkeypatch.setattr("ptycho_core.enginekit.checkpoint._SHARE", 0.0)
    config = config_of(algorithm, options, epochs=6, probe_trainable=True)
    whole = train(thick, config, HELD)

    def stop(event):
        if event.done == 4:
            raise Cancelled

    with pytest.raises(Cancelled) as caught:
        train(thick, config, HELD, progress=stop, output_dir=tmp_path)
    again = train(thick, config, HELD, resume_from=tmp_path / "ptychi_checkpoint.safetensors")
    assert caught.value.checkpoint_path is not None
    for name in ("object", "slices", "probe", "mode_weights"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name), name)
    assert again.history == whole.history


def test_a_whole_run_writes_slices_and_says_whose_they_are(thick, tmp_path):
    """From the frames to the report: solved in slices, refined in slices, scored through pty-chi."""
    config = config_of("lsqml", SLICES, epochs=15, test_fraction=0.1, refinement=RefinementConfig(epochs=5))
    done = ptycho_core.run(thick, config, CPU, out=tmp_path / "out")
    stored = read_reconstruction(tmp_path / "out" / "reconstruction.h5")
    np.testing.assert_array_equal(stored.slices, done.image.slices)
    assert (stored.slice_spacing_m, stored.forward_model) == (SPACING_M, "ptychi")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "2, 40 µm apart" in page
    assert "the forward model of engine ptychi alone" in page
    assert (tmp_path / "out" / "slices.png").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"algorithm": "dm", **SLICES}, "slices = 2 has no effect on algorithm 'dm'; .* lsqml or autodiff"),
        ({"algorithm": "rpie", "opr_modes": 1}, "opr_modes = 1 has no effect on algorithm 'rpie'"),
        ({"slices": 2}, "slices = 2 and slice_spacing_m = None: give both"),
        ({"slice_spacing_m": 1e-6}, "slices = None and slice_spacing_m = 1e-06"),
        ({"slices": 1, "slice_spacing_m": 1e-6}, "slices = 1; with algorithm 'lsqml' it is between 2 and 64"),
        ({"slices": 2, "slice_spacing_m": 0.0}, "slice_spacing_m = 0.0"),
        ({"opr_modes": 0}, "opr_modes = 0"),
        ({"opr_step": 0.5}, "opr_step = 0.5 has no effect without opr_modes"),
    ],
)
def test_options_that_make_no_sense_are_refused(given, words):
    with pytest.raises(ConfigError, match=rf"PtychiOptions\.{words}"):
        PtychiOptions(**given)


def test_what_an_engine_lacks_is_refused_before_data_are_read():
    """Slices asked of an engine without any, and what this one cannot do with them: one typed line each."""
    plain = {"backend": "numpy", "options": {"numpy": {"slices": 2}}}
    with pytest.raises(ConfigError, match=r"engine 'numpy' has none"):
        config_from_mapping(TrainingConfig, plain)
    with pytest.raises(ConfigError, match=r"settings of engine 'ptychi', which has no part here: backend = 'numpy'"):
        TrainingConfig(backend="numpy", options=(PtychiOptions(**SLICES),))
    scans = [None]  # nothing is looked at
    engine = load_backend("ptychi")
    for options, changes, words in [
        (SLICES, {"refinement": RefinementConfig(positions=True)}, "positions = True .* PtychiOptions.slices = 2"),
        (
            {"opr_modes": 1},
            {"refinement": RefinementConfig(positions=True), "probe_trainable": True},
            "positions = True .* PtychiOptions.opr_modes = 1",
        ),
        (
            {"opr_modes": 1},
            {"refinement": RefinementConfig(engine="none")},
            "opr_modes = 1 has no effect while probe_trainable = False",
        ),
    ]:
        with pytest.raises(ConfigError, match=words):
            engine.train(scans, config_of("lsqml", options, **changes))


def test_a_scan_that_does_not_say_its_wavelength_is_refused(thick, thin_image):
    for geometry, words in [
        (Geometry(), r"geometry\.energy_eV and geometry\.pixel_size_m"),
        (replace(GEOMETRY, pixel_size_m=None), r"not say geometry\.pixel_size_m, and"),
        (replace(GEOMETRY, energy_eV=None), r"not say geometry\.energy_eV, and"),
    ]:
        with pytest.raises(DataError, match=rf"engine 'ptychi': scan does .*{words}.*leave the slices out"):
            train(replace(thick, geometry=geometry), config_of("lsqml", SLICES))


def test_options_that_contradict_the_image_are_refused(thick):
    found, engine = solved(thick, options=SLICES, epochs=1), load_backend("ptychi")
    for options, words in [
        ({"slices": 3, "slice_spacing_m": SPACING_M}, "slices = 3, and the image to refine has 2"),
        ({"slices": 2, "slice_spacing_m": 1e-6}, "slice_spacing_m = 1e-06, and the image to refine has 4e-05"),
    ]:
        with pytest.raises(ConfigError, match=rf"PtychiOptions\.{words}"):
            engine.refine(found.image, found.scan, config_of("lsqml", options))
    with pytest.raises(ConfigError, match="slices = 2 has no effect on algorithm 'dm'"):
        engine.refine(found.image, found.scan, config_of("dm"))
    moving = config_of(refinement=RefinementConfig(positions=True))
    with pytest.raises(ConfigError, match=r"positions = True is not supported with PtychiOptions\.slices = 2"):
        engine.refine(found.image, found.scan, moving)
    numpy_config = TrainingConfig(backend="numpy", refinement=RefinementConfig(epochs=1))
    with pytest.raises(ConfigError, match="forward model of engine 'ptychi' only, so engine 'numpy' cannot go on"):
        ptycho_core.refine(found.scored, numpy_config)
