"""The facade's orchestration, pinned with a stub engine and no framework (specs/60-run-cdi-example)."""

from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from stub_engines import engine_module, install_stub

from ptycho_core import legacy
from ptycho_core.api import facade
from ptycho_core.config import ModelConfig, TrainingConfig
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.raw import RawData, Source
from ptycho_core.data.results import CdiResult, CdiResults, Scored
from ptycho_core.errors import (
    BackendError,
    BackendProtocolError,
    BackendUnavailableError,
    CollapseError,
    ConfigError,
    DataError,
    UnknownBackendError,
)
from ptycho_core.protocol import ProgressEvent

CONFIG = TrainingConfig(backend="stub", method="network", group_size=4, seed=3)


def make_scan(n_frames: int = 12, seed: int = 0, name: str | None = None) -> RawData:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(5.0, (n_frames, 16, 16))
    positions = np.stack([rng.uniform(-3, 20, n_frames), rng.uniform(40, 90, n_frames)], axis=1)
    probe = rng.normal(size=(2, 16, 16)) + 1j * rng.normal(size=(2, 16, 16))
    return RawData.from_arrays(counts, positions, probe, source=Source(path=name))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The stub engine as an installed distribution, not imported yet; the legacy dict is the test's own."""
    folder = tmp_path / "site"
    folder.mkdir()
    install_stub(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(legacy.params, "cfg", {"stale": "kept", "gridsize": "stale"})
    yield folder
    for name in [name for name in sys.modules if name.startswith("stub_") and name != "stub_engines"]:
        del sys.modules[name]


def stub() -> ModuleType:
    return sys.modules["stub_engine_module"]


def calls(name: str) -> list[tuple]:
    return [call for call in stub().CALLS if call[0] == name]


@pytest.mark.usefixtures("site")
class TestWorkflowsComponentsTraining:
    @pytest.mark.spec("CDI-3")
    def test_the_handshake_happens_once_and_before_the_engine_is_imported(self, monkeypatch):
        seen = []
        real = legacy.update_legacy_dict

        def spy(cfg, config, *args, **kwargs):
            seen.append(("stub_engine_module" in sys.modules, cfg is legacy.params.cfg, config))
            real(cfg, config, *args, **kwargs)

        monkeypatch.setattr(legacy, "update_legacy_dict", spy)
        facade.run_cdi_example(make_scan(), make_scan(8, 1), CONFIG, do_stitching=True)
        assert seen == [(False, True, CONFIG)]
        assert stub().AT_IMPORT["backend"] == "stub"
        assert (stub().AT_IMPORT["N"], stub().AT_IMPORT["gridsize"], stub().AT_IMPORT["stale"]) == (16, 2, "kept")

    @pytest.mark.spec("CDI-5")
    def test_each_input_passes_ensure_container_once(self, monkeypatch):
        seen = []
        real = facade.ensure_container

        def spy(data, *args, **kwargs):
            seen.append(data)
            return real(data, *args, **kwargs)

        monkeypatch.setattr(facade, "ensure_container", spy)
        train, test = make_scan(), make_scan(8, 1)
        facade.run_cdi_example(train, test, CONFIG, do_stitching=True)
        assert len(seen) == 2
        assert seen[0] is train
        assert seen[1].positions_px is test.positions_px

    @pytest.mark.spec("CDI-6")
    def test_train_is_called_exactly_once_with_config_and_containers(self):
        def progress(event):
            raise AssertionError

        train, test = make_scan(), make_scan(8, 1)
        results = facade.train_cdi_model(train, test, CONFIG, progress=progress)
        ((_, scans, got_config, got_progress),) = calls("train")
        assert got_config == CONFIG
        with pytest.raises(AssertionError):  # what the caller's own callback raises comes back as it is
            got_progress(ProgressEvent(stage="train", done=1, total=1))
        assert len(scans) == 1  # the stub takes one
        assert scans[0] is results["train_container"]
        assert scans[0].raw is train
        assert scans[0].train_frames.tolist() == list(range(12))
        assert results["test_container"].raw.positions_px is test.positions_px
        assert calls("reconstruct") == []

    @pytest.mark.spec("CDI-6")
    def test_an_engine_that_takes_several_scans_gets_the_test_scan_held_out(self, site):
        text = engine_module("stub").replace("mask=True,", "mask=True, max_scans=None,")
        (site / "stub_engine_module.py").write_text(text)
        results = facade.train_cdi_model(make_scan(), make_scan(8, 1), CONFIG)
        ((_, (first, second), _, _),) = calls("train")
        assert first is results["train_container"]
        assert (len(first.heldout_frames), second.heldout_frames.tolist()) == (0, list(range(8)))
        assert second.statistics == first.statistics
        np.testing.assert_array_equal(second.probe, first.probe)

    def test_two_views_of_one_scan_are_that_scan_with_roles(self):
        scan = make_scan()
        train, test = scan.split(0.25, 2)
        _, _, results = facade.run_cdi_example(train, test, CONFIG, do_stitching=True)
        one = results["train_container"]
        assert results["test_container"] is one
        np.testing.assert_array_equal(one.raw.positions_px, scan.positions_px)
        assert one.heldout_frames.tolist() == test.frame_numbers.tolist()
        assert one.train_frames.tolist() == train.frame_numbers.tolist()
        assert results["reconstruction"].heldout.n_frames == 3
        assert calls("reconstruct")[0][2].role.tolist() == one.role.tolist()

    def test_the_test_scan_takes_over_probe_and_statistics_of_the_training_scan(self):
        train, test = make_scan(), make_scan(8, 1)
        results = facade.train_cdi_model(train, test, CONFIG)
        container = results["test_container"]
        np.testing.assert_array_equal(container.probe, train.probe)
        np.testing.assert_array_equal(container.raw.positions_px, test.positions_px)

    @pytest.mark.spec("CDI-5")
    def test_a_finished_container_keeps_its_roles_and_that_of_training_is_returned_as_it_is(self):
        train = PtychoDataContainer.of(make_scan(), heldout=[2])
        test = PtychoDataContainer.of(make_scan(8, 1), unused={"tired": [0]})
        results = facade.train_cdi_model(train, test, CONFIG)
        assert results["train_container"] is train
        assert results["test_container"].role is test.role
        np.testing.assert_array_equal(results["test_container"].probe, train.probe)

    def test_a_path_is_read(self, monkeypatch, tmp_path):
        import ptycho_core.io

        scan, other = make_scan(name="a.npz"), make_scan(8, 1, name="b.npz")
        asked = []
        read = {"a.npz": scan, "b.npz": other}
        monkeypatch.setattr(ptycho_core.io, "read_scan", lambda p: (asked.append(p), read[p.name])[1], raising=False)
        results = facade.train_cdi_model(tmp_path / "a.npz", str(tmp_path / "b.npz"), CONFIG)
        assert asked == [tmp_path / "a.npz", tmp_path / "b.npz"]
        assert results["train_container"].raw is scan
        assert "N" not in stub().AT_IMPORT

    @pytest.mark.spec("CDI-1", "CDI-2")
    @pytest.mark.parametrize("stitch", [False, True])
    @pytest.mark.parametrize("with_test", [False, True])
    def test_results_carry_every_key(self, stitch, with_test):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            result = facade.run_cdi_example(
                make_scan(), make_scan(8, 1) if with_test else None, CONFIG, do_stitching=stitch
            )
        assert isinstance(result, CdiResult)
        amplitude, phase, results = result
        assert set(results) == set(CdiResults.__annotations__)
        assert results["backend"] == "stub"
        assert results["config"] == CONFIG
        assert results["history"]["train_loss"] == [0.5, 0.25]
        # alone, a part of the scan is held out; the stub takes one scan, so that of another it learns nothing
        assert ("test_loss" in results["history"]) is not with_test
        assert results["model"].backend == "stub"
        assert results["checkpoint_path"] is None
        for value in (amplitude, phase, results["reconstruction"], results["reconstructed_obj"]):
            assert (value is not None) is stitch
        assert (results["test_container"] is not None) is with_test

    @pytest.mark.spec("CDI-7")
    def test_missing_test_data_is_a_warning_and_the_image_is_of_the_training_scan(self):
        with pytest.warns(UserWarning, match="no test data: 1 of .* are held out, as test_fraction says") as caught:
            amplitude, phase, results = facade.run_cdi_example(make_scan(), None, CONFIG, do_stitching=True)
        assert len(caught) == 1
        assert results["test_container"] is None
        assert len(results["train_container"].heldout_frames) == 1
        ((_, _, scan, _, _),) = calls("reconstruct")
        assert scan.role.tolist() == results["train_container"].role.tolist()
        assert amplitude.shape == phase.shape == results["reconstructed_obj"].shape

    def test_the_missing_test_warning_points_at_the_caller(self):
        with pytest.warns(UserWarning, match="no test data") as caught:
            facade.train_cdi_model(make_scan(), None, CONFIG)
        assert caught[0].filename == __file__

    @pytest.mark.spec("CDI-8")
    def test_stitching_reconstructs_the_test_scan_with_the_refined_probe(self):
        train, test = make_scan(), make_scan(8, 1)
        amplitude, phase, results = facade.run_cdi_example(train, test, CONFIG, do_stitching=True)
        ((_, model, data, config, _),) = calls("reconstruct")
        assert model is results["model"]
        assert config == CONFIG.inference
        np.testing.assert_array_equal(data.raw.positions_px, test.positions_px)
        np.testing.assert_array_equal(data.probe, (train.probe * np.exp(0.5j)).astype(np.complex64))
        assert data.statistics == results["train_container"].statistics
        done = results["reconstruction"]
        assert isinstance(done, Scored)
        assert results["reconstructed_obj"] is done.image.object
        assert results["probe"] is done.image.probe
        assert (amplitude.dtype, phase.dtype) == (np.float32, np.float32)
        np.testing.assert_allclose(amplitude * np.exp(1j * phase), done.image.object, atol=1e-6)

    @pytest.mark.spec("CDI-8")
    def test_m_is_the_central_crop_and_is_recorded(self):
        _, _, results = facade.run_cdi_example(make_scan(), make_scan(8, 1), CONFIG, M=6, do_stitching=True)
        assert results["config"].inference.central_crop_px == 6
        assert calls("reconstruct")[0][3].central_crop_px == 6
        assert calls("train")[0][2].inference.central_crop_px == 6
        with pytest.raises(ConfigError, match=r"M = .* = 17 is larger than the patches, which are 16×16"):
            facade.run_cdi_example(make_scan(), make_scan(8, 1), CONFIG, M=17, do_stitching=True)
        assert len(calls("train")) == 1

    @pytest.mark.spec("CDI-9")
    @pytest.mark.parametrize("as_container", [False, True])
    def test_flips_negate_scan_coordinates_and_nothing_else(self, as_container):
        train, test = make_scan(), make_scan(8, 1)
        given = PtychoDataContainer.of(train) if as_container else train
        facade.run_cdi_example(given, test, CONFIG, flip_x=True, do_stitching=True)
        got, got_test = calls("train")[0][1][0], calls("reconstruct")[0][2]
        np.testing.assert_array_equal(got.raw.positions_px, train.positions_px * [1, -1])
        np.testing.assert_array_equal(got_test.raw.positions_px, test.positions_px * [1, -1])
        np.testing.assert_array_equal(got.raw.read_counts([2]), train.read_counts([2]))
        np.testing.assert_array_equal(got.probe, train.probe)
        facade.run_cdi_example(train, test, CONFIG, flip_y=True)
        np.testing.assert_array_equal(calls("train")[1][1][0].raw.positions_px, train.positions_px * [-1, 1])

    @pytest.mark.spec("CDI-9")
    def test_transpose_exchanges_the_axes_of_every_patch(self):
        train, test = make_scan(), make_scan(8, 1)
        facade.run_cdi_example(train, test, CONFIG, transpose=True, do_stitching=True)
        got, got_test = calls("train")[0][1][0], calls("reconstruct")[0][2]
        np.testing.assert_array_equal(got.raw.positions_px, train.positions_px)
        np.testing.assert_array_equal(got.raw.read_counts([5, 1]), train.read_counts([5, 1]).swapaxes(1, 2))
        np.testing.assert_array_equal(got.probe, train.probe.swapaxes(1, 2))
        np.testing.assert_array_equal(got_test.raw.read_counts([3]), test.read_counts([3]).swapaxes(1, 2))
        np.testing.assert_allclose(got_test.probe, got.probe * np.exp(0.5j), atol=1e-6)  # as training left it

    def test_subsampling_touches_the_training_scan_only(self):
        results = facade.train_cdi_model(make_scan(), make_scan(8, 1), replace(CONFIG, n_subsample=7))
        train, test = results["train_container"], results["test_container"]
        assert (len(train.train_frames), train.raw.n_frames) == (7, 12)
        assert {reason: len(frames) for reason, frames in train.unused.items()} == {"not drawn by n_subsample": 5}
        assert len(test.used_frames) == 8

    @pytest.mark.spec("CDI-4", "BE-2")
    def test_the_config_is_refused_before_data_are_read(self, tmp_path):
        with pytest.raises(ConfigError, match=r"'stub': loss = 'poisson'.*allowed: amplitude"):
            facade.train_cdi_model(tmp_path / "missing.npz", None, replace(CONFIG, loss="poisson"))
        assert stub().CALLS == []

    def test_engines_that_cannot_be_had(self, site):
        with pytest.raises(UnknownBackendError, match=r"'stud'.*Did you mean 'stub'"):
            facade.train_cdi_model(make_scan(), None, replace(CONFIG, backend="stud"))
        install_stub(site, "needy", requires=("no_such_module",), extra="needy[all]")
        with pytest.raises(BackendUnavailableError, match=r"no_such_module.*pip install 'needy\[all\]'"):
            facade.train_cdi_model(make_scan(), None, replace(CONFIG, backend="needy"))
        assert legacy.params.cfg["backend"] == "needy"

    def test_other_input_is_refused(self):
        with pytest.raises(DataError, match="scan data are a dict; allowed: RawData"):
            facade.train_cdi_model({"counts": 1}, make_scan(), CONFIG)
        with pytest.raises(ConfigError, match="config is a dict"):
            facade.train_cdi_model(make_scan(), None, {"backend": "stub"})
        test = RawData.from_arrays(np.ones((4, 32, 32)), make_scan(4).positions_px)
        with pytest.raises(DataError, match=r"frames are 32×32 but those of the training scan are 16×16"):
            facade.train_cdi_model(make_scan(), test, CONFIG)

    def test_provenance_says_how_to_repeat_it(self):
        results = facade.train_cdi_model(make_scan(name="scan.npz"), make_scan(8, 1), CONFIG)
        provenance = results["provenance"]
        assert provenance["engine"] == {"name": "stub", "distribution": "ptycho-stub 1.0"}
        assert provenance["data"]["path"] == "scan.npz"
        assert provenance["seed"] == 3
        assert provenance["versions"]["numpy"] == np.__version__
        assert provenance["config"]["group_size"] == 4

    @pytest.mark.spec("BE-9")
    def test_two_interleaved_configs_do_not_disturb_each_other(self):
        other = replace(CONFIG, group_size=2, model=ModelConfig(width=4))
        alone, _, again = (
            facade.train_cdi_model(make_scan(12, 0), make_scan(8, 1), config)["test_container"].role
            for config in (CONFIG, other, CONFIG)
        )
        np.testing.assert_array_equal(alone, again)


class TestWorkflowsComponentsReturned:
    """What the stub hands back wrongly is caught at the border."""

    @pytest.mark.spec("BE-4", "BE-5", "BE-11")
    @pytest.mark.parametrize(
        ("old", "new", "error", "words"),
        [
            ("return Model(config, (", "return None, Model(config, (", BackendProtocolError, "tuple; a TrainedModel"),
            ('backend: str = "stub"', 'backend: str = "sub"', BackendProtocolError, "calls itself 'sub'"),
            ("* np.exp(0.5j)", "* np.nan", BackendError, r"the model's probe holds \d+ NaN"),
            ("* np.exp(0.5j)).astype(np.complex64)", ")[0]", BackendProtocolError, r"probe is complex64 \(16, 16\)"),
            ("* np.exp(0.5j)).astype(np.complex64)", "* np.exp(0.5j))", BackendProtocolError, "probe is complex128"),
            ("[0.5, 0.25]", "[0.5, float('nan')]", BackendError, r"'train_loss'\] is nan in epoch 2"),
            ("[0.5, 0.25]", "[1, 2]", BackendProtocolError, "must be a list of float"),
            ('"train_loss"', '"loss"', BackendProtocolError, "with 'train_loss'"),
            ("scan.statistics, history)", "None, history)", BackendProtocolError, "statistics are a NoneType"),
            (
                "checkpoint_path: object = None",
                "checkpoint_path: object = 'x'",
                BackendProtocolError,
                "checkpoint_path",
            ),
            ("return make_image", "return obj; make_image", BackendProtocolError, "returned a ndarray"),
            ("return make_image", "obj[3, 4] = np.nan; return make_image", BackendError, "NaN"),
            ("obj, coverage, st", "np.ones_like(obj), coverage, st", CollapseError, "object is constant"),
            ("obj, coverage, st", "0 * obj, coverage, st", CollapseError, "variation 0"),
            ("obj, coverage, st", "obj, coverage[1:], st", BackendProtocolError, "coverage is float32"),
            ("obj, coverage, st", "obj, 0 * coverage, st", BackendError, "coverage is 0 everywhere"),
        ],
    )
    @pytest.mark.filterwarnings("ignore:invalid value")
    def test_wrong_returns(self, site, old, new, error, words):
        text = engine_module("stub")
        assert text.count(old) == 1, text.count(old)
        (site / "stub_engine_module.py").write_text(text.replace(old, new))
        with pytest.raises(error, match=words):
            facade.run_cdi_example(make_scan(), make_scan(8, 1), CONFIG, do_stitching=True)

    def test_a_flat_sample_is_accepted_when_said_to_be_flat(self, site):
        text = engine_module("stub").replace("obj, coverage, st", "np.ones_like(obj), coverage, st")
        (site / "stub_engine_module.py").write_text(text)
        config = replace(CONFIG, collapse_threshold=0)
        amplitude, _, _ = facade.run_cdi_example(make_scan(), make_scan(8, 1), config, do_stitching=True)
        assert amplitude.max() == 1


def test_no_framework_is_imported_by_the_orchestration(site):
    code = f"""
import sys, warnings
sys.path[:0] = [{str(site)!r}, {str(Path(__file__).parents[1])!r}, {str(Path(__file__).parent)!r}]
import test_workflows_components as t
from ptycho_core.api import facade
facade.run_cdi_example(t.make_scan(), t.make_scan(8, 1), t.CONFIG, do_stitching=True)
found = {{"torch", "lightning", "tensorflow", "matplotlib"}} & set(sys.modules)
sys.exit(repr(found) if found else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
