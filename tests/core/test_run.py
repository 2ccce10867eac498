"""``run``: each thing done once, nothing written before the input is accepted, nothing lost on the way."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from run_engine import CONFIG, N, make_scan, truth

from ptycho_core import legacy
from ptycho_core.api import prepare
from ptycho_core.api.models import load_model
from ptycho_core.api.observe import Observer
from ptycho_core.api.refine import refine
from ptycho_core.api.run import run
from ptycho_core.api.score import score
from ptycho_core.api.train import train
from ptycho_core.config import InferenceConfig, RefinementConfig, TrainingConfig
from ptycho_core.data.container import NO_COUNTS, PtychoDataContainer
from ptycho_core.data.raw import RawData, Source
from ptycho_core.errors import (
    BackendError,
    BackendFaultError,
    Cancelled,
    ConfigError,
    DataError,
    OutputError,
    UnknownBackendError,
)
from ptycho_core.io import write_scan
from ptycho_core.io.reconstruction_file import read_reconstruction
from ptycho_core.io.result_folder import verify_result
from ptycho_core.plugins import registry
from ptycho_core.protocol import Capabilities, ProgressEvent
from ptycho_core.runtime import Runtime

PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==")
NUMPY = TrainingConfig(backend="numpy", test_fraction=0.2, seed=3, epochs=3, refinement=RefinementConfig(epochs=3))


@pytest.fixture(autouse=True)
def _blank_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report's pictures, which take most of a run's second here, are for the tests of the report."""
    monkeypatch.setattr("ptycho_core.report.write._draw", draw_nothing)


def draw_nothing(run: Any, view: Any) -> dict[str, bytes]:
    names = ["object_amplitude", "object_phase", "probe", "coverage", "losses", "r_map", "patterns"]
    names += ["stage_amplitude", "stage_phase"] if len(run.stages) > 1 else []
    names += ["frc"] if run.result.half_data_frc or run.result.comparison else []
    return {f"{name}.png": PIXEL for name in names}


def count(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[Any]:
    """Every call of a function of a module from here on, its arguments."""
    calls: list[Any] = []
    real = getattr(owner, name)

    def counted(*args: Any, **keywords: Any) -> Any:
        calls.append(args)
        return real(*args, **keywords)

    monkeypatch.setattr(owner, name, counted)
    return calls


def summary_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


class TestOnce:
    def test_a_small_run_makes_describes_splits_writes_and_scores_once(self, stub, tmp_path, monkeypatch):
        from ptycho_core.api import score as scoring

        described = count(monkeypatch, registry, "_describe")
        split = count(monkeypatch, prepare, "draw_heldout")
        written = count(monkeypatch, legacy, "update_legacy_dict")
        scored = count(monkeypatch, scoring, "frame_sums")
        done = run(make_scan(), CONFIG, out=tmp_path / "out", truth=truth())
        assert stub.made == 1
        assert (len(described), len(split), len(written)) == (1, 1, 1)
        assert [name for name, _, _ in stub.calls] == ["train", "reconstruct", "refine"]
        assert [stage.name for stage in done.stages] == ["network", "refined"]
        assert sum(len(rate) for rate, *_ in scored) == 2 * 54
        for what in ("train", "reconstruct", "refine"):
            (scan,) = stub.seen(what) if what != "train" else stub.seen(what)[0]
            np.testing.assert_array_equal(scan.role, done.scan.role)

    def test_two_engines_are_made_and_described_once_each(self, stub, monkeypatch):
        described = count(monkeypatch, registry, "_describe")
        config = replace(CONFIG, refinement=RefinementConfig(engine="numpy", epochs=3))
        done = run(make_scan(), config, half_data=True)
        assert stub.made == 1
        assert sorted(entry.name for (entry,) in described) == ["numpy", "stub"]
        assert [stage.scored.engine for stage in done.stages] == ["stub", "numpy"]

    def test_the_handshake_and_the_config_come_before_the_scan_is_read(self, stub):
        read = []

        def reading() -> RawData:
            read.append(dict(legacy.params.cfg))
            return make_scan()

        with pytest.raises(ConfigError, match=r"'stub': loss = 'amplitude'|accelerator = 'cuda'"):
            run(reading, CONFIG, Runtime(accelerator="cuda"))
        with pytest.raises(ConfigError, match=r"refinement\.positions"):
            run(reading, replace(CONFIG, refinement=RefinementConfig(positions=True)))
        with pytest.raises(UnknownBackendError, match=r"'strub'.*Did you mean 'stub'"):
            run(reading, replace(CONFIG, refinement=RefinementConfig(engine="strub")))
        assert read == []
        run(reading, CONFIG)
        assert len(read) == 1
        assert read[0]["backend"] == "stub"
        assert stub.made == 4


class TestNothingIsWrittenTooEarly:
    @pytest.mark.parametrize(
        ("make", "config", "kind", "words"),
        [
            (lambda: "missing.npz", CONFIG, DataError, "missing.npz"),
            (make_scan, replace(CONFIG, schedule="cosine"), ConfigError, "cosine"),
            (make_scan, replace(CONFIG, backend="nobody"), UnknownBackendError, "nobody"),
            (make_scan, replace(CONFIG, n_subsample=99), ConfigError, "n_subsample = 99"),
            (
                make_scan,
                replace(CONFIG, inference=InferenceConfig(central_crop_px=33)),
                ConfigError,
                "central_crop_px",
            ),
            (lambda: make_scan(background=np.ones((N, N))), CONFIG, ConfigError, "background"),
            (lambda: 7, CONFIG, DataError, "scan data are a int"),
        ],
    )
    def test_a_refused_input_leaves_no_folder(self, stub, tmp_path, monkeypatch, make, config, kind, words):
        monkeypatch.setattr(stub, "capabilities", replace(stub.capabilities, background=False))
        monkeypatch.chdir(tmp_path)
        with pytest.raises(kind, match=words):
            run(make(), config, out=tmp_path / "deep" / "out")
        assert list(tmp_path.iterdir()) == []
        assert stub.calls == []

    def test_a_grave_finding_refuses_until_it_is_overruled(self, stub, tmp_path):
        mask = np.zeros((N, N), bool)
        mask[14:17, 13:16] = True
        hidden = make_scan().read_counts(np.arange(54))
        raw = RawData.from_arrays(hidden, make_scan().positions_px, make_scan().probe, mask=mask, probe_calibrated=True)
        with pytest.raises(
            DataError, match=r"To go on all the same, give despite_findings=True \(--despite_findings\)"
        ):
            run(raw, CONFIG, out=tmp_path / "out")
        assert list(tmp_path.iterdir()) == []
        assert stub.calls == []
        done = run(raw, CONFIG, out=tmp_path / "out", despite_findings=True)
        assert any("masked" in text or "mask" in text for text in done.warnings)

    def test_a_finished_result_and_the_input_are_left_alone(self, stub, tmp_path):
        run(make_scan(), CONFIG, out=tmp_path / "out")
        before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}
        with pytest.raises(OutputError, match=r"holds a finished result; pass --overwrite \(overwrite=True\)"):
            run(make_scan(), CONFIG, out=tmp_path / "out")
        assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()} == before
        assert len(stub.seen("train")) == 1
        source = Source(path=str(tmp_path / "reconstruction.h5"))
        (tmp_path / "reconstruction.h5").write_text("the scan")
        with pytest.raises(OutputError, match="the input would be replaced by"):
            run(make_scan(source=source), CONFIG, out=tmp_path, overwrite=True)
        assert (tmp_path / "reconstruction.h5").read_text() == "the scan"

    def test_what_a_function_reads_is_checked_too(self, stub, tmp_path):
        path = tmp_path / "scan.npz"
        write_scan(path, make_scan())
        done = run(lambda: path, CONFIG)  # type: ignore[arg-type, return-value]
        assert done.scan.raw.n_frames == 54
        with pytest.raises(DataError, match="scan data are a int"):
            run(lambda: 7, CONFIG)  # type: ignore[arg-type, return-value]


class TestRoles:
    def test_a_container_keeps_its_roles(self, stub):
        scan = PtychoDataContainer.of(make_scan(), heldout=[1, 50], unused={"blank": [7]})
        done = run(scan, CONFIG)
        np.testing.assert_array_equal(done.scan.role, scan.role)
        assert stub.seen("train")[0][0] is scan
        assert done.scored.dropped == {"frames: blank": 1}
        np.testing.assert_array_equal(done.scan.probe, done.model.probe)
        broken = replace(scan, role=scan.role[:-1])
        with pytest.raises(DataError, match=r"container\.role is int8 \(53,\)"):
            run(broken, CONFIG)

    @pytest.mark.parametrize("split", ["random", "region"])
    def test_what_held_out_and_unused_frames_hold_is_not_in_the_image(self, split):
        """The one test of the whole way: nonsense in their counts leaves the trained image as it was, to the bit."""
        raw = make_scan(dark=(11,), probe_calibrated=False)
        config = replace(NUMPY, test_split=split, n_subsample=50)
        one = run(raw, config)
        hidden = np.setdiff1d(np.arange(54), one.scan.train_frames)
        assert len(one.scan.heldout_frames) >= 9
        assert one.scored.dropped == {f"frames: {prepare.NOT_DRAWN}": 4, f"frames: {NO_COUNTS}": 1}
        counts = raw.read_counts(np.arange(54)).copy()
        counts[hidden] = 3 * counts[hidden][:, ::-1]
        two = run(RawData.from_arrays(counts, raw.positions_px, raw.probe), config)
        np.testing.assert_array_equal(two.scan.role, one.scan.role)
        first, second = (done.stages[0].scored for done in (one, two))
        np.testing.assert_array_equal(first.image.object, second.image.object)
        assert first.image.scale == second.image.scale
        assert first.train == second.train
        assert first.heldout != second.heldout

    def test_dark_frames_are_left_out_and_not_fitted(self):
        raw, dark = make_scan(dark=tuple(range(3, 54, 7))), np.arange(3, 54, 7)
        config = replace(NUMPY, epochs=8, test_fraction=0.0, refinement=RefinementConfig(engine="none"))
        done = run(raw, config, truth=truth())
        assert done.scored.dropped == {f"frames: {NO_COUNTS}": 8}
        scan = prepare.ensure_container(raw, config)
        fitted = replace(scan, role=np.zeros(54, np.int8), unused={})
        as_zeros = run(fitted, config, truth=truth())
        found, spoiled = done.result.comparison, as_zeros.result.comparison
        assert found.amplitude_psnr_db > spoiled.amplitude_psnr_db + 10
        assert found.correlation > spoiled.correlation
        assert dark.tolist() == scan.frames(2).tolist()

    def test_a_scan_of_held_out_frames_alone_is_refused_before_an_engine_is_asked(self, stub):
        scan = PtychoDataContainer.of(make_scan(), heldout=np.arange(54))
        with pytest.raises(DataError, match=r"scan\.npz: all its 54 used frames are held out"):
            run(scan, CONFIG)
        assert stub.calls == []


class TestNothingIsLost:
    @pytest.mark.parametrize("error", [BackendFaultError, DataError, RuntimeError, MemoryError, OSError])
    def test_an_engine_that_fails_in_refining_costs_a_notice(self, stub, tmp_path, monkeypatch, error):
        monkeypatch.setattr(stub, "refined", error("it broke"))
        done = run(make_scan(), CONFIG, out=tmp_path / "out")
        assert [stage.name for stage in done.stages] == ["network"]
        assert done.refined is None
        assert any(text.startswith("no refined image:") and "it broke" in text for text in done.warnings)
        assert summary_of(tmp_path / "out")["warnings"] == list(done.warnings)
        assert verify_result(tmp_path / "out") == []

    def test_a_discarded_refinement_is_told(self, stub, monkeypatch):
        monkeypatch.setattr(stub, "refined", lambda image: replace(image, object=2 * image.object))
        done = run(make_scan(), CONFIG)
        assert [stage.name for stage in done.stages] == ["network"]
        assert not done.refined.kept
        assert any("was discarded: the loss of the validation frames did not fall" in text for text in done.warnings)

    def test_warnings_of_reader_checks_and_preparation_are_collected(self, stub, tmp_path):
        config = replace(CONFIG, nphotons=9e9)
        done = run(make_scan(), config, out=tmp_path / "out")
        assert done.warnings[0] == "something odd"
        assert sum("nphotons = 9e+09" in text for text in done.warnings) == 1
        assert summary_of(tmp_path / "out")["warnings"] == list(done.warnings)
        assert "nphotons = 9e+09" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
        again = run(make_scan(), config)  # python shows a warning once a line; this is told in each run
        assert again.warnings == done.warnings

    def test_seconds_are_complete(self, stub, tmp_path, monkeypatch):
        watcher = Observer()
        done = run(lambda: make_scan(), CONFIG, out=tmp_path / "out", half_data=True, observer=watcher)
        stages = {
            "start_up",
            "read",
            "check",
            "train",
            "save",
            "reconstruct",
            "refine",
            "half_data",
            "verdict",
            "report",
        }
        assert set(done.seconds) == stages | {"total"}
        assert summary_of(tmp_path / "out")["seconds"] == dict(done.seconds)
        parts = sum(value for name, value in done.seconds.items() if name != "total")
        assert parts == pytest.approx(done.seconds["total"], abs=0.5)
        assert parts <= done.seconds["total"] + 0.01 * len(stages)
        assert done.peak_memory_bytes > 1e6

    @pytest.mark.parametrize(
        ("stage", "kept"), [("train", None), ("reconstruct", "model"), ("refine", "results"), ("half_data", "results")]
    )
    def test_an_interruption_says_what_there_is(self, stub, tmp_path, monkeypatch, stage, kept):
        seen: list[str] = []

        def stop(event: ProgressEvent) -> None:
            seen.append(event.stage)
            if event.stage == stage or (stage == "half_data" and seen.count("train") == 2):
                raise Cancelled("stopped by hand")

        with pytest.raises(Cancelled, match="stopped by hand") as caught:
            run(make_scan(), CONFIG, out=tmp_path / "out", half_data=True, progress=stop)
        error = caught.value
        assert (error.model_path is not None, error.results_path is not None) == (kept == "model", kept == "results")
        if kept == "model":
            assert load_model(error.model_path).history == {"train_loss": [0.5, 0.25], "test_loss": [0.6, 0.35]}
        if kept == "results":
            assert verify_result(error.results_path) == []
            names = [s["name"] for s in summary_of(tmp_path / "out")["stages"]]
            assert names == (["network"] if stage == "refine" else ["network", "refined"])
            assert [stage.name for stage in error.run.stages] == names
        else:
            assert error.run is None
        if kept is None:
            assert not (tmp_path / "out").exists()

    def test_an_interruption_without_a_folder_hands_over_the_image(self, stub):
        def stop(event: ProgressEvent) -> None:
            if event.stage == "refine":
                raise Cancelled("stopped by hand")

        with pytest.raises(Cancelled) as caught:
            run(make_scan(), CONFIG, progress=stop)
        assert caught.value.results_path is None
        np.testing.assert_array_equal(caught.value.run.image.object, run(
            make_scan(), replace(CONFIG, refinement=RefinementConfig(engine="none"))).image.object)  # fmt: skip

    @pytest.mark.parametrize("stage", ["train", "reconstruct", "refine"])
    def test_the_key_of_the_terminal_passes_unchanged_and_leaves_the_model(self, stub, tmp_path, stage):
        def stop(event: ProgressEvent) -> None:
            if event.stage == stage:
                raise KeyboardInterrupt

        class Watcher(Observer):
            model: Path | None = None

            def saved(self, model: Path) -> None:
                self.model = model

        watcher = Watcher()
        with pytest.raises(KeyboardInterrupt):
            run(make_scan(), CONFIG, out=tmp_path / "out", progress=stop, observer=watcher)
        assert (watcher.model is None) == (stage == "train")
        if watcher.model is not None:
            assert load_model(watcher.model).backend == "stub"

    def test_a_full_disk_is_an_output_error_and_replaces_nothing(self, stub, tmp_path, monkeypatch):
        run(make_scan(), CONFIG, out=tmp_path / "out")
        before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}

        def full(*args: Any, **keywords: Any) -> None:
            raise OSError(28, "No space left on device")

        for name in ("ptycho_core.report.write.write_reconstruction", "shutil.copyfile"):
            with monkeypatch.context() as patched:
                patched.setattr(name, full)
                with pytest.raises(OutputError, match=r"No space left on device.*nothing was replaced"):
                    run(make_scan(), CONFIG, out=tmp_path / "out", overwrite=True)
            assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir() if p.is_file()} == before

    def test_a_file_of_somebody_else_is_renamed_and_told_in_the_run(self, stub, tmp_path):
        for make in (lambda: run(make_scan(), CONFIG, out=tmp_path / "a", overwrite=True).warnings,
                     lambda: told_by_training(tmp_path / "b")):  # fmt: skip
            folder = tmp_path / ("a" if not (tmp_path / "a").exists() else "b")
            folder.mkdir()
            (folder / "model.ptycho").write_text("mine")
            warnings = make()
            (aside,) = folder.glob("model.kept-*.ptycho")
            assert aside.read_text() == "mine"
            assert any(f"{aside}: it is no file of an earlier result" in text for text in warnings)

    def test_an_interrupted_training_says_where_its_checkpoint_is(self, tmp_path):
        def stop(event: ProgressEvent) -> None:
            if event.done == 2:
                raise Cancelled

        with pytest.raises(Cancelled) as caught:
            run(make_scan(), NUMPY, out=tmp_path / "out", progress=stop)
        path = Path(caught.value.checkpoint_path)
        assert path.is_file()
        assert path.parent == tmp_path / "out" / "training"
        gone_on = run(make_scan(), NUMPY, Runtime(resume_from=path), out=tmp_path / "out")
        np.testing.assert_array_equal(gone_on.image.object, run(make_scan(), NUMPY).image.object)


def told_by_training(folder: Path) -> list[str]:
    watcher = Observer()
    train(make_scan(), CONFIG, out=folder, overwrite=True, observer=watcher)
    return watcher.notices


class TestHalves:
    def test_halves_share_no_frame_no_seed_and_lose_none(self, stub, monkeypatch):
        scan = PtychoDataContainer.of(make_scan(), heldout=[1, 50], unused={"blank": [7]})
        done = run(scan, CONFIG, half_data=True)
        halves = [(call[1][0], call[2]) for call in stub.calls if call[0] == "train"][1:]
        assert len(halves) == 2
        used = [set(half.used_frames.tolist()) for half, _ in halves]
        assert used[0].isdisjoint(used[1])
        assert used[0] | used[1] == set(range(54)) - {7}
        assert abs(len(used[0]) - len(used[1])) <= 1
        seeds = {settings.seed for _, settings in halves} | {CONFIG.seed}
        assert len(seeds) == 3
        for half, _ in halves:
            assert half.unused["blank"].tolist() == [7]
            assert len(half.heldout_frames) == round(0.2 * len(half.used_frames))
            np.testing.assert_array_equal(half.probe, scan.probe)
            assert half.statistics.n_frames == len(half.train_frames)
        assert all(stage.half_data_frc is not None for stage in done.stages)

    def test_a_half_begins_with_the_probe_of_the_container(self, stub):
        scan = PtychoDataContainer.of(make_scan())
        scan = replace(scan, probe=(2j * scan.probe).astype(np.complex64))  # which need not be that of the file
        run(scan, CONFIG, half_data=True)
        for (half,) in stub.seen("train")[1:]:
            np.testing.assert_array_equal(half.probe, scan.probe)

    def test_the_halves_of_another_seed_are_others(self, stub):
        for seed in (3, 4, 3):
            run(make_scan(), replace(CONFIG, seed=seed, refinement=RefinementConfig(engine="none")), half_data=True)
        first = [scans[0] for scans in stub.seen("train")][1::3]
        assert first[0].used_frames.tolist() == first[2].used_frames.tolist() != first[1].used_frames.tolist()
        assert not len(first[0].heldout_frames)  # nothing to refine, so nothing to know when to stop by

    def test_a_half_that_fails_costs_a_notice(self, stub, monkeypatch):
        monkeypatch.setattr("ptycho_core.api.halves.train_on", lambda *a: (_ for _ in ()).throw(BackendError("no")))
        done = run(make_scan(), CONFIG, half_data=True)
        assert done.result.half_data_frc is None
        assert any(text == "no half-data FRC: no" for text in done.warnings)


class TestResults:
    def test_a_folder_holds_a_whole_true_result(self, stub, tmp_path, monkeypatch):
        done = run(
            make_scan(mask=True), CONFIG, out=tmp_path / "out", truth=truth(), title="Tïtle", provenance={"mine": [1]}
        )
        folder = tmp_path / "out"
        assert done.folder == folder
        assert verify_result(folder) == []
        summary = summary_of(folder)
        assert set(summary["files"]) == {path.name for path in folder.iterdir() if path.is_file()} - {
            "summary.json", ".ptycho.lock",
        }  # fmt: skip
        assert {"reconstruction.h5", "report.html", "model.ptycho", "stage_phase.png"} <= set(summary["files"])
        assert summary["title"] == "Tïtle"
        assert summary["provenance"]["mine"] == [1]
        assert summary["frames"] == {"train": 43, "heldout": 11, "unused": 0, "all": 54}
        assert summary["figures"]["heldout"] == done.scored.heldout.to_mapping()
        told = summary["refinement"]["history"]
        assert {name: told[name] for name in ("train_loss", "test_loss")} == {
            "train_loss": pytest.approx([1.0, 0.9, 0.8]), "test_loss": pytest.approx([2.0, 1.9, 1.8]),
        }  # fmt: skip
        assert set(told) == {"train_loss", "test_loss", "train_deviance", "test_deviance"}
        np.testing.assert_array_equal(read_reconstruction(folder / "reconstruction.h5").object, done.image.object)
        np.testing.assert_array_equal(load_model(folder / "model.ptycho").probe, done.model.probe)
        assert summary["runtime"]["output_dir"] == str(folder / "training")

    def test_images_are_compared_with_the_truth(self, stub, monkeypatch):
        monkeypatch.setattr(stub, "disturbed", lambda obj: (1 + 0.5j) * (obj + 0.8 * np.conj(obj[::-1, ::-1])))
        done = run(make_scan(), CONFIG, truth=truth())
        first, last = (stage.comparison for stage in done.stages)
        assert 0.5 < first.correlation < 0.98
        assert last.correlation == pytest.approx(first.correlation, abs=0.01)
        assert run(make_scan(), CONFIG).result.comparison is None
        flat = replace(truth(), object=np.ones((77, 61), np.complex64))
        told = run(make_scan(), CONFIG, truth=flat)
        assert told.result.comparison is None
        assert any(text.startswith("no comparison with the truth: ") for text in told.warnings)

    def test_a_run_without_a_folder_writes_nothing(self, stub, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        done = run(make_scan(), CONFIG)
        assert done.folder is None
        assert list(tmp_path.iterdir()) == []
        assert done.title == "scan.npz"
        again = score(done.image, done.scan, "stub")
        assert again.train == done.scored.train


class TestTrain:
    def test_several_scans_are_trained_on_at_once(self, stub, tmp_path):
        other = make_scan(photons=5000.0, dark=(3,))
        model = train([make_scan(), other], CONFIG, out=tmp_path / "out")
        (scans,) = stub.seen("train")
        assert [scan.raw.n_frames for scan in scans] == [54, 54]
        assert [scan.frames(2).tolist() for scan in scans] == [[], [3]]
        assert load_model(tmp_path / "out" / "model.ptycho").history == model.history
        assert verify_result(tmp_path / "out") == []
        assert summary_of(tmp_path / "out")["kind"] == "model"
        assert [s["path"] for s in summary_of(tmp_path / "out")["provenance"]["further_data"]] == ["made/scan.npz"]
        assert train(make_scan(), CONFIG).config == replace(CONFIG)

    def test_an_engine_that_takes_one_scan_says_so(self, tmp_path):
        with pytest.raises(ConfigError, match="engine 'numpy' trains on 1 scan at once, and 2 are given"):
            train(["a.npz", "b.npz"], NUMPY, out=tmp_path / "out")  # before a file is opened
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(ConfigError, match="at least one scan"):
            train([], NUMPY)


class TestRefiner:
    def test_hardware_that_only_the_other_engine_knows_is_left_to_that_one(self, stub):
        config = replace(CONFIG, refinement=RefinementConfig(engine="numpy", epochs=3))
        stub.capabilities = replace(stub.capabilities, accelerators=("auto", "cuda"))
        done = run(make_scan(), config, Runtime(accelerator="cuda"))
        assert [stage.scored.engine for stage in done.stages] == ["stub", "numpy"]

    def test_double_precision_is_asked_of_both(self):
        scan = PtychoDataContainer.of(make_scan(), heldout=[3, 20])
        initial = run(scan, replace(NUMPY, refinement=RefinementConfig(engine="none"))).scored
        config = replace(NUMPY, refinement=RefinementConfig(engine="ptychi"))
        engine = SimpleNamespace(name="ptychi", capabilities=Capabilities(refine=True))
        with pytest.raises(ConfigError, match=r"'ptychi': precision = '64' is not supported"):
            refine(initial, config, Runtime(precision="64"), backend=engine)

    def test_a_support_without_a_pixel_is_refused_before_anything_is_computed(self, stub):
        config = replace(CONFIG, refinement=RefinementConfig(engine="numpy", probe_support=0.05))
        with pytest.raises(ConfigError, match=r"probe_support = 0\.05 leaves no pixel of a probe of 16×16"):
            run(RawData.from_arrays(np.ones((4, 16, 16)), [[0, 0], [3, 1], [1, 4], [5, 5]], np.ones((16, 16))), config)
        assert stub.calls == []

    def test_that_nothing_is_held_out_is_said(self):
        done = run(make_scan(), replace(NUMPY, test_fraction=0.0))
        assert any("no frames are held out, so refining makes all its epochs" in text for text in done.warnings)
        assert all("held out, so refining" not in text for text in run(make_scan(), NUMPY).warnings)
