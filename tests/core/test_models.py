"""A trained model in a file, and applied to a scan: which probe and constants it is given."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import run_engine
from run_engine import CONFIG, N, make_scan

from ptycho_core import legacy
from ptycho_core.api.apply import apply_and_report, reconstruct
from ptycho_core.api.models import load_model, load_with_engine, save_model
from ptycho_core.api.train import train
from ptycho_core.bundle import Bundle, write_bundle
from ptycho_core.config import InferenceConfig, ModelConfig, PlainOptions, RefinementConfig
from ptycho_core.data.container import PtychoDataContainer, Statistics
from ptycho_core.data.raw import RawData
from ptycho_core.errors import ArchiveError, ConfigError, DataError
from ptycho_core.io.result_folder import verify_result
from ptycho_core.runtime import Runtime


def bundle(**changes) -> Bundle:
    values = {
        "backend": "stub", "generator": "probe_unet", "side": N, "config": CONFIG, "scale": 1.0,
        "statistics": Statistics(mean_counts=1.0, n_frames=3, scale=1.0),
        "weights": {"w": np.ones((2, 3), np.float32)}, "probe": np.ones((1, N, N), np.complex64),
        "history": {"train_loss": [0.5]},
    }  # fmt: skip
    return Bundle(**(values | changes))


class TestReconstruct:
    @pytest.fixture
    def model(self, stub):
        return train(make_scan(), CONFIG)

    def seen(self, stub) -> PtychoDataContainer:
        return stub.seen("reconstruct")[-1]

    def test_the_same_scan_takes_the_refined_probe_and_the_statistics_of_training(self, stub, model):
        raw = make_scan(photons=3000.0)
        for data in (raw, PtychoDataContainer.of(raw, heldout=[3], unused={"blank": [5]})):
            done = reconstruct(model, data, same_scan=True)
            scan = self.seen(stub)
            np.testing.assert_array_equal(scan.probe, model.probe)
            np.testing.assert_array_equal(scan.raw.probe, model.probe)
            assert scan.statistics is model.statistics
            assert done.image.positions_px.shape == (54, 2)
        assert (scan.heldout_frames.tolist(), scan.frames(2).tolist()) == ([3], [5])

    def test_another_scan_keeps_its_own_probe_and_intensity_and_all_its_frames_are_used(self, stub, model):
        other = make_scan(photons=3000.0, dark=(6,))
        reconstruct(model, other)
        scan = self.seen(stub)
        np.testing.assert_array_equal(scan.probe, other.probe)
        assert scan.statistics == Statistics.of(other, np.delete(np.arange(54), 6))
        assert scan.train_frames.tolist() == np.delete(np.arange(54), 6).tolist()

    def test_another_scan_without_a_probe_takes_the_models(self, stub, model):
        other = replace(make_scan(photons=3000.0), probe=None)
        reconstruct(model, other)
        np.testing.assert_array_equal(self.seen(stub).probe, model.probe)
        small = RawData.from_arrays(np.ones((5, 16, 16)), make_scan().positions_px[:5])
        with pytest.raises(DataError, match=r"frames are 16×16 but the model's probe is 32×32"):
            reconstruct(model, small)

    def test_a_container_of_another_scan_is_used_as_it_is(self, stub, model):
        scan = PtychoDataContainer.of(make_scan(), heldout=[1, 2])
        done = reconstruct(model, scan, backend="stub")
        assert self.seen(stub) is scan
        assert done.heldout.n_frames == 2
        with pytest.raises(DataError, match=r"container\.role"):
            reconstruct(model, replace(scan, role=scan.role[1:]))

    def test_the_inference_config_is_checked_before_data_are_read(self, model, tmp_path):
        with pytest.raises(ConfigError, match=r"'stub': accelerator = 'cuda'"):
            reconstruct(model, tmp_path / "missing.npz", runtime=Runtime(accelerator="cuda"))
        with pytest.raises(ConfigError, match="= 33 is larger than the patches"):
            reconstruct(model, make_scan(), InferenceConfig(central_crop_px=33))

    def test_settings_of_the_engine_that_refined_are_none_of_an_image_that_is_not_refined(self, model, tmp_path):
        save_model(model, tmp_path / "model.ptycho")
        loaded, engine = load_with_engine(tmp_path / "model.ptycho")
        refined = RefinementConfig(engine="elsewhere", epochs=3)
        options = (PlainOptions(engine="elsewhere", values={"alpha": 0.3}),)
        loaded = replace(loaded, config=replace(CONFIG, refinement=refined, options=options))
        done = apply_and_report(loaded, engine, make_scan(), InferenceConfig())
        assert done.config.options == ()
        assert done.config.refinement.engine == "none"

    def test_a_folder_of_results_goes_the_way_of_run(self, stub, model, tmp_path):
        save_model(model, tmp_path / "model.ptycho")
        loaded, engine = load_with_engine(tmp_path / "model.ptycho")
        made = stub.made
        done = apply_and_report(
            loaded, engine, make_scan(dark=(6,)), InferenceConfig(), out=tmp_path / "out", provenance={"mine": 1}
        )
        assert stub.made == made
        assert [stage.name for stage in done.stages] == ["network"]
        assert done.warnings[0] == "something odd"
        assert verify_result(tmp_path / "out") == []
        summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
        assert summary["frames"] == {"train": 53, "heldout": 0, "unused": 1, "all": 54}
        assert summary["figures"]["heldout"] is None
        assert summary["dropped"] == {"frames: no counts": 1}
        assert summary["provenance"]["mine"] == 1
        assert "model.ptycho" not in summary["files"]
        with pytest.raises(DataError, match="missing"):
            apply_and_report(loaded, engine, "missing.npz", InferenceConfig(), out=tmp_path / "none")
        assert not (tmp_path / "none").exists()


class TestLoadModel:
    @pytest.mark.spec("BE-10")
    def test_a_saved_model_comes_back_and_reconstructs(self, stub, tmp_path):
        model = train(make_scan(), CONFIG)
        save_model(model, tmp_path / "model.ptycho")
        loaded = load_model(str(tmp_path / "model.ptycho"))
        assert loaded.config == CONFIG
        assert loaded.history == model.history
        one, two = (reconstruct(m, make_scan()) for m in (model, loaded))
        np.testing.assert_array_equal(one.image.object, two.image.object)
        assert one.train == two.train

    @pytest.mark.spec("CDI-3")
    def test_the_handshake_comes_before_the_engine(self, stub, tmp_path, monkeypatch):
        seen = {}
        real = run_engine.Engine.__init__

        def made(engine) -> None:
            seen.update(legacy.params.cfg)
            real(engine)

        monkeypatch.setattr(run_engine.Engine, "__init__", made)
        write_bundle(tmp_path / "m", bundle())
        load_model(tmp_path / "m")
        assert (seen["N"], seen["gridsize"], seen["backend"]) == (32, 2, "stub")
        assert stub.made == 1

    def test_a_bundle_for_another_engine_names_both(self, stub, tmp_path):
        path = tmp_path / "m"
        write_bundle(path, bundle(backend="toy", generator=None))
        with pytest.raises(ArchiveError, match=r"engine 'toy', a solver.*engine 'stub' cannot use it.*backend = 'toy'"):
            load_model(path, backend="stub")
        config = replace(CONFIG, model=ModelConfig(generator="fno"))
        write_bundle(path, bundle(backend="elsewhere", generator="fno", config=config))
        with pytest.raises(ArchiveError, match=r"'fno', made by engine 'elsewhere'; engine 'stub' knows probe_unet"):
            load_model(path, backend="stub")
        with pytest.raises(ArchiveError, match="no such file"):
            load_model(tmp_path / "none")
        assert not stub.calls
