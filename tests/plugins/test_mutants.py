"""The suite has teeth: the toy engine with one line made wrong fails the test that is named for that mistake.

Each mutant is a copy of the toy's sources with some text replaced, laid out as the installed distribution of that name,
so that it comes in by the same door as every engine, also in the processes that the suite starts.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from ptycho_core.testing import BackendConformance, Sheet, run_conformance

SOURCES = Path(__file__).parent / "toy_engine" / "ptycho_toy_engine"

pytestmark = [
    pytest.mark.plugin,
    pytest.mark.skipif(
        "toy" not in importlib.metadata.entry_points(group="ptycho.backends").names,
        reason="the toy engine is not installed: pip install tests/plugins/toy_engine",
    ),
]


class Mutant(NamedTuple):
    """A mistake: in which file, what is replaced by what (in pairs), and the test that must see it."""

    file: str
    texts: tuple[str, ...]
    test: str


RATE = "scale * np.sum(np.abs(waves) ** 2, axis=1)"
MUTANTS = {
    "missing conjugate": Mutant(
        "physics.py", ("np.conj(shifted) * chi", "shifted * chi"), "test_gradients_agree_with_the_oracle"
    ),
    "missing conjugate for the probe": Mutant(
        "physics.py", ("np.conj(patches)[:, None] * chi", "patches[:, None] * chi"),
        "test_gradients_turn_with_the_global_phase",
    ),
    "x and y swapped": Mutant(
        "backend.py", ("= integer_corners(positions_px, N)", "= integer_corners(positions_px[:, ::-1], N)"),
        "test_axes_are_y_then_x",
    ),
    "FFT without its norm": Mutant(
        "physics.py", ('np.fft.fft2(exit_wave, norm="ortho")', "np.fft.fft2(exit_wave)"), "test_energy_is_conserved"
    ),
    "no fftshift": Mutant(
        "physics.py", ('np.fft.fftshift(np.fft.fft2(exit_wave, norm="ortho"), axes=(-2, -1))',
                       'np.fft.fft2(exit_wave, norm="ortho")'),
        "test_zero_frequency_is_at_the_centre",
    ),
    "coherent modes": Mutant(
        "physics.py", (RATE, "scale * np.abs(np.sum(waves, axis=1)) ** 2"), "test_modes_add_incoherently"
    ),
    "mean over the wrong axis": Mutant(
        "physics.py", ("raw.n_frames * np.mean(raw.frame_totals)", "raw.side * np.mean(raw.frame_totals)"),
        "test_the_loss_is_a_mean_over_frames",
    ),
    "half a pixel": Mutant(
        "backend.py", ("= integer_corners(positions_px, N)", "= integer_corners(positions_px - 0.5, N)"),
        "test_frame_centres_are_at_half_of_n_minus_one",
    ),
    "input mutated": Mutant(
        "backend.py", ("        return rate.astype(np.float32)", "        obj *= 2\n        return rate.astype(np.float32)"),
        "test_inputs_are_not_changed",
    ),
    "seed ignored": Mutant("backend.py", ("default_rng([config.seed, epoch])", "default_rng([0, epoch])"),
                           "test_the_seed_decides"),
    "seed from the clock": Mutant("backend.py", ("default_rng([config.seed, epoch])", "default_rng()"),
                                  "test_the_seed_decides"),
    "module-level config": Mutant(
        "backend.py",
        ("        frames = np.unique(train.frame_indices)",
         "        global CONFIG\n        CONFIG = config\n        frames = np.unique(train.frame_indices)",
         "default_rng([config.seed, epoch])", "default_rng([CONFIG.seed, epoch])"),
        "test_two_configs_can_be_interleaved",
    ),
    "silent fallback on load": Mutant(
        "backend.py",
        ("bundle.backend != NAME or bundle.generator is not None", "False",
         'bundle.weights.get("object"), bundle.weights.get("origin_px")',
         'bundle.weights.get("object", np.ones((50, 50, 2), np.float32)), '
         'bundle.weights.get("origin_px", np.zeros(2, np.int64))'),
        "test_a_foreign_bundle_is_refused_by_name",
    ),
    "silent fallback for missing weights": Mutant(
        "backend.py", ('bundle.weights.get("object"), bundle.weights.get("origin_px")',
                       'bundle.weights.get("object", np.ones((50, 50, 2), np.float32)), '
                       'bundle.weights.get("origin_px", np.zeros(2, np.int64))'),
        "test_a_bundle_with_other_weights_is_refused",
    ),
    "mask ignored": Mutant(
        "solver.py", ("= np.ones((raw.side, raw.side), dtype=bool) if raw.mask is None else raw.mask",
                      "= np.ones((raw.side, raw.side), dtype=bool)"),
        "test_bad_pixels_are_left_out",
    ),
    "mutable result": Mutant(
        "backend.py", ("        obj, coverage = stitcher.finish(peak)",
                       "        obj, coverage = KEPT.setdefault(model.object.tobytes(), stitcher.finish(peak))",
                       "_CHUNK = 64", "_CHUNK = 64\nKEPT: dict = {}"),
        "test_results_share_nothing_with_the_engine",
    ),
    "sub-pixel shift the wrong way": Mutant(
        "physics.py", ("np.exp(-2j * np.pi", "np.exp(2j * np.pi"), "test_the_sub_pixel_rest_is_carried_by_the_probe"
    ),
    "patch clipped": Mutant(
        "physics.py", ("    check_inside(corners_px, N, obj.shape)\n    return np.stack([obj[",
                       "    obj = np.pad(obj, N, mode='wrap')[N:, N:]\n    return np.stack([obj["),
        "test_an_object_too_small_is_refused",
    ),
    "frames sorted": Mutant(
        "backend.py", ("= integer_corners(positions_px, N)", "= integer_corners(np.sort(positions_px, axis=0), N)"),
        "test_the_order_of_frames_does_not_matter",
    ),
    "phase taken for amplitude": Mutant(
        "backend.py", ("physics.extract(obj, corners, N), probe", "physics.extract(np.abs(obj) + obj.imag, corners, N), probe"),
        "test_a_global_phase_changes_nothing",
    ),
    "double precision out": Mutant(
        "backend.py", ("return rate.astype(np.float32)", "return rate"), "test_simulate_returns_a_plain_array"
    ),
    "a list for an array": Mutant(
        "backend.py", ("obj, coverage, stitcher.origin_px, data.probe", "obj.astype(np.complex128), coverage, stitcher.origin_px, data.probe"),
        "test_an_image_is_made_of_plain_arrays",
    ),
    "image put elsewhere": Mutant(
        "backend.py", ("        return finish_reconstruction(obj, coverage, stitcher.origin_px, data.probe, data.statistics.scale, data)",
                       "        done = finish_reconstruction(obj, coverage, stitcher.origin_px, data.probe, data.statistics.scale, data)\n"
                       "        return replace(done, object=np.roll(done.object, 1, axis=0))"),
        "test_the_object_lies_where_the_frames_saw_it",
    ),
    "background ignored": Mutant(
        "physics.py", ("+ (0.0 if raw.background is None else raw.background)", ""),
        "test_gradients_agree_with_the_oracle",
    ),
    "unknown loss taken for another": Mutant(
        "physics.py", ('if loss != "amplitude":', 'if loss == "poisson":'), "test_an_unknown_loss_is_refused"
    ),
    "steps the wrong way": Mutant(
        "solver.py", ("canvas.object += accumulate", "canvas.object -= 0.05 * accumulate"), "test_a_tiny_scan_gets_better"
    ),
    "one loss short": Mutant(
        "backend.py", ("            history=history,\n            probe=canvas", "            history={k: v[1:] for k, v in history.items()},\n            probe=canvas"),
        "test_the_history_is_one_number_an_epoch",
    ),
    "an empty frame makes NaN": Mutant(
        "solver.py", ("np.sqrt(counts / np.maximum(rate[0], RATE_FLOOR))", "np.sqrt(counts / rate[0]) * counts.sum() / counts.sum()"),
        "test_a_frame_without_counts_is_survived",
    ),
    "progress stuck": Mutant("backend.py", ("done=epoch + 1", "done=1"), "test_progress_is_told_of_every_step"),
    "Cancelled swallowed": Mutant(
        "backend.py", ("                error.checkpoint_path = str(path)\n            raise\n", "                error.checkpoint_path = str(path)\n"),
        "test_cancelling_stops_after_the_step",
    ),
    "resumed from nothing": Mutant(
        "backend.py", ("        canvas.object[:] = model.object\n", ""),
        "test_a_cancelled_training_is_resumed_to_the_same_end",
    ),
    "a checkpoint that is none": Mutant(
        "backend.py", ("        model = self.load(path)\n", "        try:\n            model = self.load(path)\n        except ArchiveError:\n            return {'train_loss': []}\n"),
        "test_what_is_no_checkpoint_is_refused",
    ),
    "object not saved": Mutant(
        "backend.py", ('"object": np.stack([model.object.real, model.object.imag]', '"object": np.stack([model.object.real, model.object.real]'),
        "test_a_bundle_gives_the_same_image_in_a_fresh_process",
    ),
    "bundle of no one": Mutant(
        "backend.py", ("            backend=NAME,\n            generator", "            backend='someone',\n            generator"),
        "test_a_bundle_says_what_it_is",
    ),
    "global seed": Mutant(
        "backend.py", ("        frames = np.unique(", "        np.random.seed(3)\n        frames = np.unique("),
        "test_the_process_is_left_as_it_was",
    ),
    "framework in the plugin module": Mutant(
        "plugin.py", ("from ptycho_core.protocol", "import matplotlib\nfrom ptycho_core.protocol"),
        "test_it_is_imported_only_when_it_is_chosen",
    ),
    "a parameter renamed": Mutant(
        "backend.py", ("        data: PtychoDataContainer,\n        config: InferenceConfig", "        scan: PtychoDataContainer,\n        config: InferenceConfig",
                       "        raw = data.raw\n        stitcher", "        data = scan\n        raw = data.raw\n        stitcher"),
        "test_names_and_signatures",
    ),
    "capabilities in a list": Mutant(
        "backend.py", ('losses=("amplitude",)', 'losses=["amplitude"]'), "test_capabilities_are_plain_values"
    ),
}  # fmt: skip


@pytest.fixture
def engine_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put the toy engine, with some text of one file replaced, before the installed one."""

    def install(file: str = "backend.py", texts: tuple[str, ...] = ()) -> None:
        site = tmp_path / "site"
        shutil.copytree(SOURCES, site / SOURCES.name, ignore=shutil.ignore_patterns("__pycache__"))
        info = site / "ptycho_toy_engine-0.1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ptycho-toy-engine\nVersion: 0.1.0\n")
        (info / "entry_points.txt").write_text("[ptycho.backends]\ntoy = ptycho_toy_engine.plugin\n")
        path = site / SOURCES.name / file
        text = path.read_text(encoding="utf-8")
        for old, new in zip(texts[::2], texts[1::2], strict=True):
            assert text.count(old) == 1, f"{file} has {text.count(old)} times: {old}"
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
        for name in [name for name in sys.modules if name.partition(".")[0] == SOURCES.name]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.syspath_prepend(site)

    yield install
    for name in [name for name in sys.modules if name.partition(".")[0] == SOURCES.name]:
        del sys.modules[name]


def failures(sheet: Sheet) -> dict[str, str]:
    return {outcome.test.partition("[")[0]: outcome.reason for outcome in sheet.of("failed")}


@pytest.mark.spec("BE-16")
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught_by_the_test_named_for_it(engine_with, name):
    mutant = MUTANTS[name]
    engine_with(mutant.file, mutant.texts)
    sheet = run_conformance("toy", only=mutant.test)
    assert mutant.test in failures(sheet), f"{name} passes {mutant.test}"
    assert "ImportError" not in failures(sheet)[mutant.test]
    assert not sheet.conforms


@pytest.mark.spec("BE-16")
def test_the_engine_itself_passes_what_its_mutants_fail(engine_with):
    engine_with()
    sheet = run_conformance("toy")
    assert failures(sheet) == {}
    passed = {outcome.test.partition("[")[0] for outcome in sheet.of("passed")}
    assert {mutant.test for mutant in MUTANTS.values()} <= passed
    assert sheet.conforms


def test_every_test_of_the_suite_has_a_mutant():
    tests = {name for name in dir(BackendConformance) if name.startswith("test_")}
    # two that only the whole of an engine can fail, and what the toy does not offer
    unproven = {
        "test_simulate_agrees_with_the_oracle", "test_it_is_listed_as_ready", "test_patches_are_plain_arrays",
        "test_frames_of_another_size_are_answered_or_refused", "test_a_damaged_bundle_is_refused",
        "test_what_it_does_not_offer_is_refused_before_data_are_read",
    }  # fmt: skip
    assert {mutant.test for mutant in MUTANTS.values()} | unproven == tests
