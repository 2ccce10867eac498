"""Models saved and loaded: by the engine itself, here and in another process."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from engine_scans import image_of, make_scan, shaken, untrained, vary
from engine_scripts import run

from ptycho_core.bundle import Bundle, read_bundle, write_bundle
from ptycho_core.enginekit.weights import generator_shapes
from ptycho_core.errors import ArchiveError
from ptycho_core.plugins.registry import backend_spec


@pytest.fixture(scope="module")
def scan():
    return make_scan(rows=3, columns=4, n_modes=2, bad=True, background=0.5)


@pytest.fixture(scope="module")
def model(engine, scan):
    """One whose every number is its own, as after training."""
    fresh = shaken(untrained(engine, scan, vary(model={"depth": 2, "sweeps": 3})), size=0.03)
    probe = (fresh.probe * np.exp(0.1j)).astype(np.complex64)
    return replace(fresh, probe=probe, scale=1.1 * fresh.scale, history={"train_loss": [0.5, 0.25]})


@pytest.fixture
def path(engine, model, tmp_path):
    engine.save(model, tmp_path / "model.ptycho")
    return tmp_path / "model.ptycho"


@pytest.mark.spec("BE-10")
def test_saved_and_loaded_in_a_fresh_process(engine, scan, model, path, tmp_path):
    loaded = engine.load(path)
    assert loaded.config == model.config
    assert loaded.history == model.history
    assert loaded.scale == model.scale
    assert loaded.statistics == model.statistics
    assert (loaded.backend, loaded.checkpoint_path) == (engine.name, None)
    np.testing.assert_array_equal(loaded.probe, model.probe)
    assert loaded.weights.keys() == model.weights.keys()
    for name, value in model.weights.items():
        np.testing.assert_array_equal(loaded.weights[name], value)
    here = image_of(engine, model, scan).object
    np.testing.assert_array_equal(image_of(engine, loaded, scan).object, here)
    run(
        engine.name,
        tmp_path,
        """
scan = make_scan(rows=3, columns=4, n_modes=2, bad=True, background=0.5)
np.save("there.npy", image_of(engine, engine.load(Path("model.ptycho")), scan).object)
""",
    )
    np.testing.assert_allclose(np.load(tmp_path / "there.npy"), here, atol=1e-3 * np.abs(here).max())


def test_a_bundle_has_the_shared_names_and_says_where_it_came_from(engine, model, path):
    bundle = read_bundle(path, expected_weights=generator_shapes)
    assert (bundle.backend, bundle.generator, bundle.side) == (engine.name, "probe_unet", 16)
    for name, value in model.weights.items():
        np.testing.assert_array_equal(bundle.weights[name], value)
    assert json.dumps(bundle.provenance)
    framework = backend_spec(engine.name).requires[0]
    assert any(name.startswith(framework) for name in bundle.provenance["versions"])


@pytest.mark.spec("BUNDLE-7")
def test_a_solver_s_bundle_names_both_engines(engine, model, tmp_path):
    config = replace(model.config, backend="ptychi")
    write_bundle(
        tmp_path / "model.ptycho",
        Bundle(
            backend="ptychi", generator=None, side=16, config=config, statistics=model.statistics, scale=1.0,
            weights={"object": np.zeros((4, 4), np.float32)}, probe=model.probe, history={}, provenance={},
        ),
    )  # fmt: skip
    with pytest.raises(ArchiveError, match=rf"model\.ptycho: .*'ptychi'.*'{engine.name}'"):
        engine.load(tmp_path / "model.ptycho")


def test_a_bundle_of_another_engine_with_this_generator_is_loaded(engine, scan, model, path, tmp_path):
    bundle = read_bundle(path)
    foreign = replace(bundle, backend="another", config=replace(bundle.config, backend="another"))
    write_bundle(tmp_path / "foreign.ptycho", foreign)
    loaded = engine.load(tmp_path / "foreign.ptycho")
    assert loaded.backend == engine.name
    found, wanted = (image_of(engine, m, scan).object for m in (loaded, model))
    np.testing.assert_array_equal(found, wanted)
