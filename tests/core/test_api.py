"""The facade around training: preparing scans, laying out containers, reconstructing, loading models."""

from __future__ import annotations

import ast
import subprocess
import sys
import warnings
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from stub_engines import install_stub

import ptycho_core
from ptycho_core import api, legacy
from ptycho_core.bundle import Bundle, write_bundle
from ptycho_core.config import InferenceConfig, ModelConfig, TrainingConfig
from ptycho_core.data.container import PtychoDataContainer, Statistics
from ptycho_core.data.orientation import orient_container, orient_scan
from ptycho_core.data.raw import ObjectGuess, RawData, Source
from ptycho_core.errors import ArchiveError, ConfigError, DataError
from ptycho_core.physics.forward import expected_counts
from ptycho_core.physics.patches import extract
from ptycho_core.physics.probe import add_modes
from ptycho_core.plugins.registry import load_backend
from ptycho_core.provenance import collect_provenance, machine, package_versions

CONFIG = TrainingConfig(backend="stub", group_size=4, seed=3)


def make_scan(n_frames: int = 12, seed: int = 0, *, probe: bool = True, **more) -> RawData:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(5.0, (n_frames, 16, 16))
    positions = np.stack([rng.uniform(-3, 20, n_frames), rng.uniform(40, 90, n_frames)], axis=1)
    modes = rng.normal(size=(2, 16, 16)) + 1j * rng.normal(size=(2, 16, 16)) if probe else None
    return RawData.from_arrays(counts, positions, modes, **more)


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The stub engine installed; yields a function that returns its module."""
    folder = tmp_path / "site"
    folder.mkdir()
    install_stub(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(legacy.params, "cfg", {})
    yield lambda: sys.modules["stub_engine_module"]
    for name in [name for name in sys.modules if name.startswith("stub_") and name != "stub_engines"]:
        del sys.modules[name]


class TestPublicNames:
    def test_every_name_exists_and_the_three_lists_agree(self):
        for name in ptycho_core.__all__:
            assert getattr(ptycho_core, name) is not None
        assert sorted(name for names in ptycho_core._HOMES.values() for name in names) == sorted(ptycho_core.__all__)
        tree = ast.parse(Path(ptycho_core.__file__).read_text(encoding="utf-8"))
        typed = [
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.level == 1
            for alias in node.names
        ]
        assert sorted(typed) == sorted(ptycho_core.__all__)
        assert set(ptycho_core.__all__) <= set(dir(ptycho_core))
        with pytest.raises(AttributeError, match="no attribute 'run_cdi'"):
            _ = ptycho_core.run_cdi

    def test_importing_is_fast_and_brings_no_framework(self):
        code = (
            "import sys, time; t = time.perf_counter(); import ptycho_core; took = time.perf_counter() - t\n"
            "heavy = {'torch', 'lightning', 'tensorflow', 'scipy', 'h5py', 'matplotlib', 'skimage', 'rich'}\n"
            "print(took, sorted(heavy & set(sys.modules)))"
        )
        runs = [
            subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
            for _ in range(3)
        ]
        assert all(run.endswith("[]\n") for run in runs)
        assert min(float(run.split()[0]) for run in runs) < 0.3

    def test_importing_everything_public_brings_no_heavy_package(self):
        code = (
            "import sys, ptycho_core as p; [getattr(p, n) for n in p.__all__]\n"
            "heavy = {'torch', 'lightning', 'tensorflow', 'scipy', 'h5py', 'matplotlib', 'skimage', 'rich'}\n"
            "sys.exit(repr(sorted(heavy & set(sys.modules))) if heavy & set(sys.modules) else 0)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr


class TestPrepareScan:
    def test_subsampling_is_seeded_sorted_and_done_once(self):
        config = replace(CONFIG, n_subsample=7)
        once = api.prepare_scan(make_scan(), config)
        assert once.n_frames == 7
        np.testing.assert_array_equal(once.frame_numbers, make_scan().subsample(7, 3).frame_numbers)
        part, _ = once.split(0.3, seed=1)
        assert api.prepare_scan(part, config).n_frames == part.n_frames == 5
        with pytest.raises(ConfigError, match="n_subsample = 99, but the scan has 12"):
            api.prepare_scan(make_scan(), replace(CONFIG, n_subsample=99))
        with pytest.raises(ConfigError, match="n_subsample = 6, but the scan has 5"):
            api.prepare_scan(part, replace(CONFIG, n_subsample=6))

    def test_a_scan_without_probe_gets_one_of_its_mean_pattern_and_says_so(self):
        level = np.full((16, 16), 1.5)
        raw = make_scan(probe=False, background=level)
        prepared = api.prepare_scan(raw, CONFIG)
        total = np.maximum(raw.mean_pattern() - level, 0).sum()
        assert prepared.probe.shape == (1, 16, 16)
        np.testing.assert_allclose(np.sum(np.abs(prepared.probe) ** 2), total, rtol=1e-5)
        assert any("estimated from the mean pattern" in text for text in prepared.source.assumptions)
        assert api.prepare_scan(prepared, CONFIG) is prepared
        with pytest.raises(DataError, match="no probe, and none can be estimated"):
            api.prepare_scan(make_scan(probe=False, background=np.full((16, 16), 1e3)), CONFIG)

    def test_probe_modes_are_added_or_the_strongest_kept(self):
        raw = make_scan()
        more = api.prepare_scan(raw, replace(CONFIG, probe_modes=3, probe_trainable=True))
        np.testing.assert_array_equal(more.probe, add_modes(raw.probe, 3))
        with pytest.warns(UserWarning, match="probe_modes = 3 adds modes to the 2 .* Set probe_trainable to true"):
            api.prepare_scan(raw, replace(CONFIG, probe_modes=3))
        assert len(api.prepare_scan(raw, replace(CONFIG, probe_modes=1)).probe) == 1
        assert api.prepare_scan(raw, replace(CONFIG, probe_modes=2)) is raw
        declared = make_scan(probe_calibrated=True)
        assert api.prepare_scan(declared, replace(CONFIG, probe_modes=3, probe_trainable=True)).probe_calibrated

    @pytest.mark.spec("CDI-10")
    @pytest.mark.parametrize(
        ("factor", "warns"), [(1.0, False), (1.09, False), (0.91, False), (1.11, True), (0.5, True)]
    )
    def test_nphotons_off_by_more_than_ten_percent_states_both(self, factor, warns):
        raw = make_scan()
        mean = raw.frame_totals.mean()
        config = replace(CONFIG, nphotons=float(mean * factor))
        container = PtychoDataContainer.for_training(raw, 4)
        for call in (
            lambda: api.prepare_scan(raw, config),
            lambda: api.ensure_container(raw, config, for_training=True),
            lambda: api.ensure_container(container, config, for_training=True),
        ):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                call()
            assert len(caught) == warns
            if warns:
                text = str(caught[0].message)
                assert f"nphotons = {mean * factor:.6g}" in text
                assert f"{mean:.6g} counts a frame" in text
                assert caught[0].filename == __file__


class TestEnsureContainer:
    def test_training_sampling_follows_the_config(self):
        config = replace(CONFIG, n_groups=20, neighbor_pool_size=6)
        made = api.ensure_container(make_scan(), config, for_training=True)
        expected = PtychoDataContainer.for_training(make_scan(), 4, n_groups=20, neighbor_pool_size=6, seed=3)
        np.testing.assert_array_equal(made.frame_indices, expected.frame_indices)
        assert made.statistics == Statistics.of(make_scan())

    def test_reconstruction_uses_every_frame_once_and_given_statistics(self):
        statistics = Statistics(mean_counts=7.0, n_frames=2, scale=0.5)
        made = api.ensure_container(make_scan(10), CONFIG, statistics=statistics, for_training=False)
        counted = made.frame_indices[made.counted]
        np.testing.assert_array_equal(np.sort(counted), np.arange(10))
        assert made.statistics is statistics

    @pytest.mark.usefixtures("stub")
    @pytest.mark.parametrize("what", ["mask", "background"])
    def test_a_test_scan_of_another_detector_is_refused(self, what):
        plane = np.ones((16, 16), bool if what == "mask" else np.float32)
        plane[3, 5] = 0
        with pytest.raises(DataError, match=f"its {what} is not that of the training scan"):
            api.train_cdi_model(make_scan(), make_scan(8, 1, **{what: plane}), CONFIG)

    @pytest.mark.spec("CDI-5")
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"subpixel_px": np.zeros((12, 4, 2))}, r"subpixel_px is float64 \(12, 4, 2\); it must be float32"),
            ({"frame_indices": np.zeros((12, 4), np.int32)}, r"frame_indices is int32"),
            ({"frame_indices": np.zeros(12, np.int64)}, r"frame_indices is int64 \(12,\); it must be int64 \(B, C\)"),
            ({"frame_indices": np.full((12, 4), 12)}, r"frame_indices names frames outside the 12"),
            ({"frame_indices": np.full((12, 4), -1)}, r"frame_indices names frames outside the 12"),
            ({"counted": np.ones((12, 3), bool)}, r"counted is bool \(12, 3\); it must be bool \(12, 4\)"),
            ({"corners_px": np.full((12, 4, 2), -1)}, r"corners_px puts patches"),
            ({"canvas_shape": np.full((12, 2), 17)}, r"corners_px puts patches"),
            ({"canvas_origin_px": [[0, 0]]}, r"canvas_origin_px is list"),
            ({"probe": np.ones((1, 8, 8), np.complex64)}, r"probe is complex64 \(1, 8, 8\).*\(1, 16, 16\)"),
            ({"probe": np.ones((1, 16, 16), complex)}, r"probe is complex128"),
            ({"statistics": None}, r"statistics is a NoneType"),
        ],
    )
    def test_a_container_that_is_not_as_specified_is_refused(self, changes, words):
        good = PtychoDataContainer.for_training(make_scan(), 4, n_groups=12)
        assert api.ensure_container(good, CONFIG, for_training=False) is good
        with pytest.raises(DataError, match=rf"^scan: container\.{words}"):
            api.ensure_container(replace(good, **changes), CONFIG, for_training=False)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"group_size": 5}, "group_size = 5, but the container given for training was made with 4"),
            ({"n_groups": 11}, "n_groups = 11, .* with 12"),
            ({"n_subsample": 5}, "n_subsample = 5, .* with 12"),
            ({"probe_modes": 1}, "probe_modes = 1, .* with 2"),
        ],
    )
    def test_a_config_that_a_training_container_contradicts_is_refused(self, changes, words):
        good = PtychoDataContainer.for_training(make_scan(), 4, n_groups=12)
        same = replace(CONFIG, n_groups=12, n_subsample=12, probe_modes=2)
        assert api.ensure_container(good, same, for_training=True) is good
        with pytest.raises(ConfigError, match=words):
            api.ensure_container(good, replace(CONFIG, **changes), for_training=True)


class TestOrientation:
    def test_physics_stays_consistent_under_transposition(self):
        """Frames of the transposed object's patches are what the transposed scan holds."""
        rng = np.random.default_rng(4)
        N = 16
        obj = rng.normal(size=(30, 45)) + 1j * rng.normal(size=(30, 45))
        probe = rng.normal(size=(2, N, N)) + 1j * rng.normal(size=(2, N, N))
        corners = np.array([[0, 3], [11, 27], [5, 9]])
        rest = np.array([[0.25, -0.4], [-0.5, 0.1], [0.3, 0.45]])
        patches = extract(obj, corners, N)
        background = rng.uniform(size=(N, N))
        mask = rng.uniform(size=(N, N)) > 0.1
        counts = expected_counts(patches, probe, rest, 1.0, background)
        raw = RawData.from_arrays(counts, corners + rest + (N - 1) / 2, probe, mask=mask, background=background)
        turned = orient_scan(raw, transpose=True)
        again = expected_counts(patches.swapaxes(1, 2), turned.probe, rest[:, ::-1], 1.0, turned.background)
        np.testing.assert_allclose(turned.read_counts([0, 1, 2]), np.where(turned.mask, again, 0), rtol=2e-5)
        np.testing.assert_array_equal(turned.mask, mask.T)
        np.testing.assert_array_equal(turned.positions_px, raw.positions_px)
        np.testing.assert_array_equal(turned.frame_totals, raw.frame_totals)
        back = orient_scan(turned, transpose=True)
        np.testing.assert_array_equal(back.read_counts([1]), raw.read_counts([1]))

    def test_frames_stay_lazy_and_arrays_read_only(self):
        class Counting:
            shape = (12, 16, 16)
            n_reads = 0

            def read(self, numbers):
                self.n_reads += 1
                return np.ones((len(numbers), 16, 16), np.float32)

        source = Counting()
        raw = RawData.from_arrays(source, make_scan().positions_px, np.ones((16, 16)))
        before = source.n_reads
        turned = orient_scan(raw, flip_x=True, flip_y=True, transpose=True)
        assert source.n_reads == before
        assert not turned.positions_px.flags.writeable
        assert not turned.probe.flags.writeable

    def test_it_says_what_it_did_and_leaves_the_given_object_out(self):
        guess = ObjectGuess(object=np.ones((40, 60), np.complex64), origin_px=np.zeros(2))
        raw = make_scan(object_guess=guess, source=Source(assumptions=("first",)))
        turned = orient_scan(raw, flip_x=True, transpose=True)
        assert turned.object_guess is None
        text = " | ".join(turned.source.assumptions)
        assert text.startswith("first | the x scan coordinate was negated | the axes of every frame")
        assert "object given with the scan was left out" in text
        assert orient_scan(raw) is raw

    def test_a_container_keeps_its_groups_and_statistics(self):
        statistics = Statistics(mean_counts=3.0, n_frames=1, scale=2.0)
        container = PtychoDataContainer.for_reconstruction(make_scan(10), 4, statistics=statistics)
        turned = orient_container(container, flip_y=True)
        np.testing.assert_array_equal(turned.frame_indices, container.frame_indices)
        np.testing.assert_array_equal(turned.counted, container.counted)
        assert turned.statistics is statistics
        np.testing.assert_array_equal(turned.raw.positions_px, container.raw.positions_px * [-1, 1])
        assert orient_container(container) is container


class TestReconstruct:
    @pytest.fixture
    def model(self, stub):
        return api.train_cdi_model(make_scan(), make_scan(8, 1), CONFIG)["model"]

    def data_seen(self, stub) -> PtychoDataContainer:
        return [call for call in stub().CALLS if call[0] == "reconstruct"][-1][2]

    def test_the_same_scan_takes_the_refined_probe_and_the_statistics_of_training(self, stub, model):
        whole = make_scan(20, 2)
        for data in (
            whole,
            PtychoDataContainer.for_training(whole, 4),
            PtychoDataContainer.for_reconstruction(whole, 4),
        ):
            done = api.reconstruct(model, data, InferenceConfig(), same_scan=True)
            seen = self.data_seen(stub)
            np.testing.assert_array_equal(seen.probe, model.probe)
            np.testing.assert_array_equal(seen.raw.probe, model.probe)
            assert seen.statistics is model.statistics
            np.testing.assert_array_equal(np.sort(seen.frame_indices[seen.counted]), np.arange(20))
            assert done.positions_px.shape == (20, 2)

    def test_another_scan_keeps_its_own_probe_and_intensity(self, stub, model):
        other = make_scan(20, 2)
        api.reconstruct(model, other, InferenceConfig())
        seen = self.data_seen(stub)
        np.testing.assert_array_equal(seen.probe, other.probe)
        assert seen.statistics == Statistics.of(other)

    def test_another_scan_without_a_probe_takes_the_models(self, stub, model):
        other = make_scan(20, 2, probe=False)
        api.reconstruct(model, other, InferenceConfig())
        seen = self.data_seen(stub)
        np.testing.assert_array_equal(seen.probe, model.probe)
        assert seen.statistics == Statistics.of(other.with_probe(model.probe))
        large = RawData.from_arrays(np.ones((5, 32, 32)), make_scan(5).positions_px)
        with pytest.raises(DataError, match=r"frames are 32×32 but the model's probe is 16×16"):
            api.reconstruct(model, large, InferenceConfig())

    def test_a_container_for_reconstruction_is_used_as_it_is(self, stub, model):
        container = PtychoDataContainer.for_reconstruction(make_scan(9, 4), 4)
        api.reconstruct(model, container, InferenceConfig(), backend="stub")
        assert self.data_seen(stub) is container
        assert self.data_seen(stub).group_size == 4

    def test_the_inference_config_is_checked_before_data_are_read(self, model, tmp_path):
        with pytest.raises(ConfigError, match=r"'stub': inference\.accelerator = 'cuda'"):
            api.reconstruct(model, tmp_path / "missing.npz", InferenceConfig(accelerator="cuda"))
        with pytest.raises(ConfigError, match="= 17 is larger than the patches"):
            api.reconstruct(model, make_scan(), InferenceConfig(central_crop_px=17))

    @pytest.mark.spec("CDI-1")
    def test_phase_is_in_its_half_open_interval(self):
        phase = api._phase(np.array([[-1.0 - 0.0j, complex(-1.0, -0.0), 1j]], np.complex64))
        assert phase.dtype == np.float32
        np.testing.assert_allclose(phase, [[np.pi, np.pi, np.pi / 2]], rtol=1e-6)


class TestLoadModel:
    def bundle(self, **changes) -> Bundle:
        values = {
            "backend": "stub", "generator": "probe_unet", "side": 16, "config": CONFIG, "scale": 1.0,
            "statistics": Statistics(mean_counts=1.0, n_frames=3, scale=1.0),
            "weights": {"w": np.ones((2, 3), np.float32)}, "probe": np.ones((1, 16, 16), np.complex64),
            "history": {"train_loss": [0.5]},
        }  # fmt: skip
        return Bundle(**(values | changes))

    def test_a_saved_model_comes_back_and_reconstructs(self, stub, tmp_path):
        model = api.train_cdi_model(make_scan(), make_scan(8, 1), CONFIG)["model"]
        load_backend("stub").save(model, tmp_path / "model.ptycho")
        loaded = api.load_model(str(tmp_path / "model.ptycho"))
        assert loaded.config == CONFIG
        assert loaded.history == model.history
        one = api.reconstruct(model, make_scan(9, 4), InferenceConfig())
        two = api.reconstruct(loaded, make_scan(9, 4), InferenceConfig())
        np.testing.assert_array_equal(one.object, two.object)

    def test_the_handshake_comes_before_the_engine(self, stub, tmp_path):
        write_bundle(tmp_path / "m", self.bundle())
        api.load_model(tmp_path / "m")
        assert stub().AT_IMPORT["N"] == 16
        assert stub().AT_IMPORT["gridsize"] == 2

    def test_a_bundle_for_another_engine_names_both(self, stub, tmp_path):
        path = tmp_path / "m"
        write_bundle(path, self.bundle(backend="toy", generator=None))
        with pytest.raises(ArchiveError, match=r"engine 'toy', a solver.*engine 'stub' cannot use it.*backend = 'toy'"):
            api.load_model(path, backend="stub")
        config = replace(CONFIG, model=ModelConfig(generator="fno"))
        write_bundle(path, self.bundle(backend="elsewhere", generator="fno", config=config))
        with pytest.raises(ArchiveError, match=r"'fno', made by engine 'elsewhere'; engine 'stub' knows probe_unet"):
            api.load_model(path, backend="stub")
        with pytest.raises(ArchiveError, match="no such file"):
            api.load_model(tmp_path / "none")


class TestProvenance:
    def test_it_binds_time_machine_versions_data_and_config(self):
        then = datetime(2031, 5, 6, 9, 8, 7, 654321, tzinfo=timezone(timedelta(hours=2)))
        found = collect_provenance(
            CONFIG, Source(path="a", details={"seed": 4}), engine_packages=("pluggy", "no-such-package"), now=then
        )
        assert found["time_utc"] == "2031-05-06T07:08:07+00:00"
        assert found["seed"] == 3
        assert found["data"]["details"] == {"seed": 4}
        assert found["test_data"] is None
        assert found["config"]["group_size"] == 4
        assert "pluggy" in found["versions"]
        assert "no-such-package" not in found["versions"]
        assert found["versions"]["numpy"] == np.__version__
        assert "pluggy" not in package_versions()
        assert found["machine"]["python"] == ".".join(str(n) for n in sys.version_info[:3])
        assert machine()["processor"]
        assert machine()["processors"] >= 1
        recent = datetime.fromisoformat(collect_provenance(CONFIG, Source())["time_utc"])
        assert abs((datetime.now(UTC) - recent).total_seconds()) < 60
