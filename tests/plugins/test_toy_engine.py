"""A real engine from outside: installed by pip, found by entry point, run through the facade.

Install it first: ``pip install tests/plugins/toy_engine``.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import ptycho_core
from ptycho_core.bundle import read_bundle
from ptycho_core.config import InferenceConfig, RefinementConfig, TrainingConfig
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.raw import RawData
from ptycho_core.errors import ArchiveError, Cancelled, ConfigError, DataError
from ptycho_core.physics.forward import expected_counts
from ptycho_core.physics.likelihood import sample_counts
from ptycho_core.physics.patches import extract
from ptycho_core.physics.probe import add_modes, aperture_probe
from ptycho_core.plugins.registry import available_backends, backend_distribution, load_backend
from ptycho_core.runtime import Runtime

pytestmark = [
    pytest.mark.plugin,
    pytest.mark.skipif(
        "toy" not in importlib.metadata.entry_points(group="ptycho.backends").names,
        reason="the toy engine is not installed: pip install tests/plugins/toy_engine",
    ),
]

N = 32
CONFIG = TrainingConfig(backend="toy", epochs=12, seed=5)


def make_object() -> np.ndarray:
    """Smooth, asymmetric, complex, and not square."""
    y, x = np.mgrid[:84, :70]
    amplitude = 0.8 + 0.2 * np.sin(x / 5 + y / 17)
    return amplitude * np.exp(0.7j * np.cos(y / 6 - x / 11) + 0.3j * (x > 40) * (y > 30))


@pytest.fixture(scope="module")
def scan() -> RawData:
    rng = np.random.default_rng(1)
    y, x = np.meshgrid(np.arange(18.0, 66, 5), np.arange(17.0, 52, 5), indexing="ij")
    positions = np.stack([y.ravel(), x.ravel()], axis=1) + rng.uniform(-1, 1, (y.size, 2))
    probe = add_modes(aperture_probe(N, 9, defocus_px2=60.0, total=1e5), 2, fraction=0.1)
    corner = positions - (N - 1) / 2
    whole = np.floor(corner + 0.5).astype(np.int64)
    mask = np.ones((N, N), dtype=bool)
    mask[10:12, 20] = False
    background = np.full((N, N), 0.5)
    background[:, 5:9] = 2.0
    rate = expected_counts(extract(make_object(), whole, N), probe, corner - whole, 1.0, background)
    counts = sample_counts(rate, rng)
    counts[:, ~mask] = 6e4
    return RawData.from_arrays(counts, positions, probe, probe_calibrated=True, mask=mask, background=background)


def likeness(image, margin: int = 20) -> float:
    """Magnitude of the mean-removed correlation with the truth away from the rim."""
    y, x = np.round(image.origin_px).astype(int)
    height, width = image.object.shape
    inside = np.s_[margin : height - margin, margin : width - margin]
    found = image.object[inside]
    true = make_object()[y : y + height, x : x + width][inside]
    found, true = found - found.mean(), true - true.mean()
    return float(abs(np.vdot(found, true)) / (np.linalg.norm(found) * np.linalg.norm(true)))


def test_it_is_found_by_its_entry_point():
    (status,) = [s for s in available_backends() if s.name == "toy"]
    assert (status.state, status.title) == ("ready", "Toy ePIE")
    assert status.distribution == backend_distribution("toy") == "ptycho-toy-engine 0.1.0"


@pytest.mark.spec("PLUG-2")
def test_choosing_it_loads_no_other_engine():
    code = (
        "import sys; from ptycho_core import load_backend; load_backend('toy')\n"
        "sys.exit(any(m.split('.')[0] in ('torch', 'lightning', 'ptycho_backend_torch') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def train(scan, **changes):
    """A model of all frames of a scan."""
    return load_backend("toy").train([PtychoDataContainer.of(scan)], replace(CONFIG, **changes))


def test_it_reconstructs_a_scan_through_the_facade(scan):
    train, test = scan.split(0.1, seed=2)
    events = []
    config = replace(CONFIG, refinement=RefinementConfig(engine="none"))
    amplitude, phase, results = ptycho_core.run_cdi_example(
        train, test, config, do_stitching=True, progress=events.append
    )
    losses = results["history"]["train_loss"]
    assert len(losses) == len(results["history"]["test_loss"]) == 12
    assert losses[-1] < 0.25 * losses[0]
    scored = results["reconstruction"]
    assert (scored.train.n_frames, scored.heldout.n_frames) == (train.n_frames, test.n_frames)
    assert scored.train.fourier_error < 0.01
    assert likeness(scored.image) > 0.98
    assert amplitude.shape == phase.shape == results["reconstructed_obj"].shape
    assert [e.done for e in events if e.stage == "train"] == list(range(1, 13))
    assert results["provenance"]["engine"]["distribution"] == "ptycho-toy-engine 0.1.0"
    assert scored.dropped["masked pixels"] == 2


def test_every_frame_makes_a_better_image_than_most(scan):
    scored = ptycho_core.reconstruct(train(scan), scan, same_scan=True)
    assert likeness(scored.image) > 0.99
    assert scored.train.fourier_error < 0.008


def test_a_refined_image_explains_held_out_frames_better(scan):
    refinement = RefinementConfig(engine="toy", epochs=6, probe=False)
    config = replace(CONFIG, epochs=2, test_fraction=0.1, refinement=refinement)
    data = ptycho_core.ensure_container(scan, config)
    engine = load_backend("toy")
    rough = ptycho_core.score(engine.reconstruct(engine.train([data], config), data, config.inference), data, "toy")
    refined = ptycho_core.refine(rough, config)
    assert refined.kept
    assert refined.best.heldout.deviance < rough.heldout.deviance
    assert likeness(refined.best.image) > likeness(rough.image)


def test_a_poor_probe_is_refined_when_asked(scan):
    poor = scan.with_probe(scan.probe * np.exp(0.02j * np.arange(N) ** 2)[:, None], calibrated=True)
    given, refined = (
        train(poor, probe_trainable=trainable, epochs=15).history["train_loss"][-1] for trainable in (False, True)
    )
    assert refined < 0.5 * given


@pytest.mark.spec("BE-10")
def test_the_bundle_round_trip_gives_the_same_image(scan, tmp_path):
    model, path = train(scan, epochs=3), tmp_path / "model.ptycho"
    load_backend("toy").save(model, path)
    bundle = read_bundle(path)
    assert (bundle.backend, bundle.generator) == ("toy", None)
    before = ptycho_core.reconstruct(model, scan, same_scan=True)
    loaded = ptycho_core.load_model(path)
    assert loaded.history == model.history
    after = ptycho_core.reconstruct(loaded, scan, same_scan=True)
    np.testing.assert_array_equal(before.image.object, after.image.object)
    with pytest.raises(ArchiveError, match=r"'toy', a solver.*so engine 'pytorch' cannot use it"):
        ptycho_core.load_model(path, backend="pytorch")


@pytest.mark.spec("BE-8", "BE-23")
def test_a_cancelled_run_resumes_to_the_same_result_bit_for_bit(scan, tmp_path):
    engine, config = load_backend("toy"), replace(CONFIG, epochs=4, probe_trainable=True)
    data = PtychoDataContainer.of(scan, heldout=[3, 20])
    whole = engine.train([data], config)

    def stop(event):
        if event.done == 2:
            raise Cancelled

    with pytest.raises(Cancelled) as caught:
        engine.train([data], config, Runtime(output_dir=tmp_path), progress=stop)
    further = Runtime(resume_from=tmp_path / "toy_checkpoint.safetensors")
    assert caught.value.checkpoint_path == str(further.resume_from)
    again = engine.train([data], config, further)
    assert again.history == whole.history
    np.testing.assert_array_equal(again.object, whole.object)
    np.testing.assert_array_equal(again.probe, whole.probe)
    with pytest.raises(ArchiveError, match=r"made with scans = .*resume with the scan and the settings it was made"):
        engine.train([PtychoDataContainer.of(scan, heldout=[3, 21])], config, further)


def test_what_it_cannot_do_is_refused(scan):
    for changes, words in [
        ({"loss": "poisson"}, "loss = 'poisson' is not supported; allowed: amplitude"),
        ({"scale_trainable": True}, "scale_trainable = True"),
        ({"learning_rate": 0.5}, "learning_rate = 0.5 has no effect"),
        ({"group_size": 9}, "group_size = 9 has no effect"),
    ]:
        with pytest.raises(ConfigError, match=f"engine 'toy': {words}"):
            ptycho_core.train_cdi_model(scan, None, replace(CONFIG, **changes))
    with pytest.raises(ConfigError, match="engine 'toy': accelerator = 'cuda'"):
        ptycho_core.train_cdi_model(scan, None, CONFIG, Runtime(accelerator="cuda"))


def test_a_scan_beyond_its_object_is_refused(scan):
    moved = replace(scan, positions_px=scan.positions_px + 3)
    with pytest.raises(DataError, match="beyond the object that engine 'toy' solved"):
        ptycho_core.reconstruct(train(scan, epochs=1), moved, InferenceConfig())
