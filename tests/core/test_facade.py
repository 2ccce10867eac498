"""One config, one image, whichever door; and what the doors of the old interface add."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_engine import CONFIG, make_scan

from ptycho_core import legacy
from ptycho_core.api.facade import _phase, run_cdi_example, train_cdi_model
from ptycho_core.api.run import run
from ptycho_core.api.score import score
from ptycho_core.cli.main import main
from ptycho_core.config import InferenceConfig, RefinementConfig, TrainingConfig
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.raw import RawData
from ptycho_core.data.results import Image, Scored
from ptycho_core.errors import BackendError, Cancelled, ConfigError, DataError, UnknownBackendError
from ptycho_core.io import read_scan, write_scan
from ptycho_core.io.reconstruction_file import read_reconstruction

NUMPY = TrainingConfig(
    backend="numpy", test_fraction=0.15, test_split="region", seed=5, epochs=3,
    refinement=RefinementConfig(epochs=4, probe_modes=3),
)  # fmt: skip


def example(*args: Any, **keywords: Any) -> Scored:
    """The image of ``run_cdi_example``, without its warning of missing test data."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no test data")
        amplitude, phase, results = run_cdi_example(*args, do_stitching=True, **keywords)
    obj = results["reconstruction"].image.object
    np.testing.assert_array_equal(amplitude, np.abs(obj))
    np.testing.assert_array_equal(phase, np.angle(obj))
    assert results["reconstructed_obj"] is obj
    return results["reconstruction"]


def assert_same_image(found: Image, wanted: Image) -> None:
    """To the last bit."""
    for name in ("object", "probe", "coverage", "origin_px", "positions_px"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    assert found.scale == wanted.scale


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("doors") / "scan.npz"
    write_scan(path, make_scan(dark=(9,), mask=True, probe_calibrated=False))
    return path


@pytest.fixture(scope="module")
def wanted(path: Path) -> Scored:
    done = run(path, NUMPY)
    assert [stage.name for stage in done.stages] == ["solver", "refined"]
    assert len(done.image.probe) == 3
    return done.scored


class TestOneConfigOneImage:
    @pytest.mark.spec("CDI-11", "DATA-19")
    def test_of_two_views_of_a_scan(self, path, wanted):
        train, test = read_scan(path).split(0.15, 5, "region")
        found = example(train, test, NUMPY)
        assert_same_image(found.image, wanted.image)
        assert (found.train, found.heldout) == (wanted.train, wanted.heldout)
        np.testing.assert_array_equal(found.scan.role, wanted.scan.role)
        assert found.dropped == wanted.dropped

    @pytest.mark.spec("CDI-11")
    @pytest.mark.parametrize("held_as", ["path", "scan", "container"])
    def test_of_a_scan_alone(self, path, wanted, held_as):
        given = {"path": path, "scan": read_scan(path)}.get(held_as)
        if given is None:
            held = wanted.scan.heldout_frames
            raw = read_scan(path)
            given = PtychoDataContainer.of(raw, heldout=held)
        assert_same_image(example(given, None, NUMPY).image, wanted.image)

    @pytest.mark.spec("CDI-11")
    def test_of_the_command(self, path, wanted, tmp_path, capsys):
        words = ["run", str(path), "--out", str(tmp_path / "out"), "--backend", "numpy", "--test_fraction", "0.15"]
        words += ["--test_split", "region", "--seed", "5", "--epochs", "3", "--refinement.epochs", "4"]
        words += ["--refinement.probe_modes", "3"]
        assert main(words) == 0, capsys.readouterr().err
        found = read_reconstruction(tmp_path / "out" / "reconstruction.h5")
        np.testing.assert_array_equal(found.object, wanted.image.object)
        np.testing.assert_array_equal(found.probe, wanted.image.probe)
        np.testing.assert_array_equal(found.role, wanted.scan.role)
        assert found.figures["heldout"] == wanted.heldout.to_mapping()
        summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
        assert summary["figures"]["train"] == wanted.train.to_mapping()

    @pytest.mark.spec("CDI-11")
    def test_another_refinement_is_another_image_at_every_door(self, path, wanted):
        plain = replace(NUMPY, refinement=RefinementConfig(engine="none"))
        train, test = read_scan(path).split(0.15, 5, "region")
        one, two = run(path, plain).scored, example(train, test, plain)
        assert_same_image(one.image, two.image)
        assert len(two.image.probe) == 2
        assert two.heldout.deviance > wanted.heldout.deviance

    def test_oriented_views_are_the_oriented_scan(self, path):
        train, test = read_scan(path).split(0.15, 5, "region")
        turned = {"flip_y": True, "transpose": True}
        plain = replace(NUMPY, refinement=RefinementConfig(engine="none"))
        one = example(train, test, plain, **turned)
        whole = PtychoDataContainer.of(read_scan(path), heldout=one.scan.heldout_frames)
        two = example(whole, None, plain, **turned)
        # statistics were measured before turning in one, and after it in the other: equal but for rounding
        np.testing.assert_allclose(one.image.object, two.image.object, atol=1e-5)
        np.testing.assert_array_equal(one.scan.role, two.scan.role)
        np.testing.assert_array_equal(one.image.positions_px, read_scan(path).positions_px * [-1, 1])


class TestRefinementIsHonoured:
    @pytest.mark.spec("CDI-4", "CDI-11")
    @pytest.mark.parametrize("door", [run_cdi_example, train_cdi_model])
    def test_an_engine_that_cannot_do_it_is_refused_before_a_path_is_opened(self, stub, door):
        for changes, kind, words in (
            ({"engine": "strub"}, UnknownBackendError, r"'strub'.*Did you mean 'stub'"),
            ({"positions": True}, ConfigError, r"engine 'stub'.*refinement\.positions"),
        ):
            config = replace(CONFIG, refinement=RefinementConfig(**changes))
            with pytest.raises(kind, match=words):
                door("missing.npz", None, config)
        assert stub.calls == []

    def test_an_engine_that_fails_costs_a_warning_and_an_interruption_stops(self, stub, monkeypatch):
        monkeypatch.setattr(stub, "refined", BackendError("it diverged"))
        train, test = make_scan().split(0.2, 3)
        with pytest.warns(UserWarning, match="it diverged"):
            kept = run_cdi_example(train, test, CONFIG, do_stitching=True).results["reconstruction"]
        assert kept.engine == "stub"
        monkeypatch.setattr(stub, "refined", DataError("not mine"))
        with pytest.warns(UserWarning, match="no refined image: not mine"):
            run_cdi_example(train, test, CONFIG, do_stitching=True)
        monkeypatch.setattr(stub, "refined", MemoryError())
        with pytest.warns(UserWarning, match="no refined image: .*MemoryError"):
            run_cdi_example(train, test, CONFIG, do_stitching=True)
        monkeypatch.setattr(stub, "refined", Cancelled("stop"))
        with pytest.raises(Cancelled, match="stop"):
            run_cdi_example(train, test, CONFIG, do_stitching=True)


class TestTwoScans:
    def test_the_image_is_that_of_the_test_scan_scored_on_it(self, stub):
        train, test = make_scan(), replace(make_scan(photons=3000.0), probe=None)
        found = example(train, test, CONFIG)
        (scans,) = stub.seen("train")
        assert [scan.heldout_frames.tolist() for scan in scans] == [[], list(range(54))]
        assert scans[1].statistics is scans[0].statistics
        assert len(found.scan.heldout_frames) == 11
        np.testing.assert_array_equal(found.scan.raw.frame_totals, test.frame_totals)
        again = score(found.image, found.scan, "stub")
        assert again.train == found.train

    @pytest.mark.spec("CDI-6")
    def test_an_engine_of_one_scan_gets_the_first_only(self, stub, monkeypatch):
        monkeypatch.setattr(stub, "capabilities", replace(stub.capabilities, max_scans=1))
        example(make_scan(), make_scan(photons=3000.0), CONFIG)
        assert len(stub.seen("train")[0]) == 1
        assert stub.made == 1

    @pytest.mark.spec("DATA-17", "CONV-9")
    @pytest.mark.usefixtures("stub")
    def test_a_frame_that_is_held_out_and_trained_on_is_refused(self):
        raw = make_scan()
        with pytest.raises(DataError, match="frame 20 is held out and trained on"):
            run_cdi_example(raw.subset(range(23)), raw.subset(range(20, 54)), CONFIG)
        with pytest.raises(DataError, match="frame 0 is held out and trained on"):
            run_cdi_example(raw, raw, CONFIG)

    def test_a_file_given_twice_is_refused(self, stub, path):
        with pytest.raises(DataError, match=r"scan\.npz: frame 0 is held out .* or give the scan alone"):
            run_cdi_example(path, str(path), CONFIG)
        assert stub.calls == []

    def test_of_a_test_container_only_used_frames_are_looked_at_and_the_probe_is_that_of_training(self, stub):
        first, raw = make_scan(), make_scan(photons=3000.0)
        raw = raw.with_probe(2j * raw.probe)
        second = PtychoDataContainer.of(raw, heldout=[2], unused={"blank": [4, 6]})
        found = example(first, second, CONFIG)
        given = stub.seen("train")[0][1]
        np.testing.assert_array_equal(given.heldout_frames, second.used_frames)
        assert given.unused["blank"].tolist() == [4, 6]
        np.testing.assert_array_equal(given.probe, first.probe)
        np.testing.assert_array_equal(found.scan.role, second.role)
        masked = PtychoDataContainer.of(make_scan(photons=3000.0, mask=True))
        with pytest.raises(DataError, match="its mask is not that of the frames to train on"):
            example(first, masked, CONFIG)

    def test_what_the_checks_find_grave_is_refused_until_it_is_overruled(self, stub):
        mask = np.zeros((32, 32), bool)
        mask[14:17, 13:16] = True
        scan = make_scan()
        raw = RawData.from_arrays(
            scan.read_counts(np.arange(54)), scan.positions_px, scan.probe, mask=mask, probe_calibrated=True
        )
        for door in (run_cdi_example, train_cdi_model):
            with pytest.raises(DataError, match=r"give despite_findings=True \(--despite_findings\)"):
                door(*raw.split(0.2, 3), CONFIG)
        assert stub.calls == []
        example(*raw.split(0.2, 3), CONFIG, despite_findings=True)


class TestHandshake:
    @pytest.mark.spec("CDI-3")
    def test_it_happens_once_a_call(self, stub, monkeypatch):
        calls = []
        real = legacy.update_legacy_dict
        monkeypatch.setattr(legacy, "update_legacy_dict", lambda *a, **k: (calls.append(k), real(*a, **k)))
        train, test = make_scan().split(0.2, 3)
        run_cdi_example(train, test, CONFIG, do_stitching=True)
        assert calls == [{"side": 32}]
        assert stub.made == 1

    @pytest.mark.spec("CDI-1")
    def test_phase_is_in_its_half_open_interval(self):
        phase = _phase(np.array([[-1.0 - 0.0j, complex(-1.0, -0.0), 1j]], np.complex64))
        assert phase.dtype == np.float32
        np.testing.assert_allclose(phase, [[np.pi, np.pi, np.pi / 2]], rtol=1e-6)

    @pytest.mark.usefixtures("stub")
    def test_a_crop_larger_than_the_patches_is_refused_before_training(self):
        with pytest.raises(ConfigError, match=r"M = inference\.central_crop_px = 33 is larger than the patches"):
            run_cdi_example(*make_scan().split(0.2, 3), CONFIG, M=33)
        assert InferenceConfig(central_crop_px=33).central_crop_px == 33

    def test_the_scan_itself_is_left_as_it_was(self):
        raw: RawData = make_scan()
        before = raw.read_counts(np.arange(54)).copy()
        example(raw, None, replace(NUMPY, refinement=RefinementConfig(engine="none")), flip_x=True)
        np.testing.assert_array_equal(raw.read_counts(np.arange(54)), before)
