"""Verdicts: honest data are images at any dose, what is none is called so, and why is told by evidence."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from report_scan import make_run, make_scored
from verdict_scans import (
    QUICK,
    N,
    corner_only,
    counts_of,
    empty_beam,
    honest,
    merged,
    pure_noise,
    remade,
    shuffled,
    simulated,
    transposed,
    without_heldout,
)

from ptycho_core.api import diagnose as diagnosing
from ptycho_core.api.apply import apply_and_report
from ptycho_core.api.judge import Judgement, circumstances, judge
from ptycho_core.api.observe import Observer
from ptycho_core.api.prepare import ensure_container
from ptycho_core.api.run import run
from ptycho_core.api.score import score
from ptycho_core.api.stages import Engines
from ptycho_core.api.try_out import MOST_FRAMES, try_out
from ptycho_core.config import TrainingConfig
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.raw import RawData
from ptycho_core.data.results import Scored
from ptycho_core.data.run import Run
from ptycho_core.data.verdict import KINDS, Verdict
from ptycho_core.enginekit.state import flat_image
from ptycho_core.errors import BackendError, Cancelled
from ptycho_core.evaluation.judging import foretells, foretells_little, percent
from ptycho_core.evaluation.measured import Measured
from ptycho_core.evaluation.verdict import Alternative, Circumstances, noise_factor, weigh
from ptycho_core.io.reconstruction_file import read_reconstruction
from ptycho_core.physics.merit import Figures
from ptycho_core.protocol import ProgressEvent
from ptycho_core.report.html import render_report
from ptycho_core.report.write import run_summary

running = importlib.import_module("ptycho_core.api.run")


@pytest.fixture
def no_trials(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No diagnosis; the list grows by one where one was wanted."""
    wanted: list[str] = []

    def nothing(*args: Any, **keywords: Any) -> Circumstances:
        wanted.append("diagnosis")
        return Circumstances(searched=("nothing",))

    monkeypatch.setattr(running, "diagnose", nothing)
    return wanted


def verdict_of(raw: RawData, config: TrainingConfig = QUICK) -> Verdict:
    found = run(raw, config, despite_findings=True).verdict
    assert found is not None
    assert found.kind in KINDS
    assert found.sentence.startswith("NOT AN IMAGE: ") == (found.kind == "no_image") != found.is_image
    return found


def names(verdict: Verdict) -> list[str]:
    return [reason.name for reason in verdict.reasons]


@pytest.mark.usefixtures("no_trials")
class TestWhatIsAnImage:
    @pytest.mark.spec("VERDICT-4")
    @pytest.mark.parametrize("photons", [30, 100, 300, 1000, 1e4, 1e6])
    @pytest.mark.parametrize("what", ["dead_leaves", "lines", "siemens_star"])
    def test_honest_data_are_one_at_any_dose(self, photons: float, what: str) -> None:
        assert verdict_of(honest(photons, object=what)).is_image

    @pytest.mark.spec("VERDICT-4")
    @pytest.mark.parametrize("seed", [2, 7])  # with 2, a frame at the rim is foretold a hundred times too bright
    def test_a_weak_phase_object_at_high_dose_is_one(self, seed: int) -> None:
        raw = honest(1e8, seed=seed, amplitude_range=(1.0, 1.0), phase_range_rad=(0.0, 0.02))
        found = verdict_of(raw, replace(QUICK, seed=seed))
        assert found.is_image
        assert found.figures["foretold_share"] > 0.8

    @pytest.mark.spec("VERDICT-4")
    @pytest.mark.parametrize("photons", [1e4, 1e6])
    def test_a_scan_of_which_only_a_corner_has_structure_is_one(self, photons: float) -> None:
        found = verdict_of(corner_only(photons))
        assert found.is_image
        assert found.figures["foretold_share"] > 0.7

    @pytest.mark.spec("VERDICT-4")
    def test_a_region_that_is_held_out_has_no_neighbours_and_proves_nothing_against_it(self) -> None:
        assert verdict_of(honest(1e6), replace(QUICK, test_split="region")).is_image

    @pytest.mark.parametrize("photons", [1e4, 1e6])
    def test_without_held_out_frames_it_says_that_nothing_proves_it(self, photons: float) -> None:
        found = verdict_of(honest(photons), without_heldout())
        assert found.is_image
        assert "no held-out frame proves it" in found.sentence

    @pytest.mark.spec("VERDICT-4")
    @pytest.mark.parametrize("photons", [300, 1000])
    def test_without_held_out_frames_weak_light_is_not_told_from_noise_and_no_reason_against_it(
        self, photons: float
    ) -> None:
        raw = honest(photons, N=64, grid_shape=(10, 10), step_px=10.5)  # more is fitted than so few counts tell
        found = verdict_of(raw, without_heldout())
        assert found.is_image
        assert "unproved" in names(found)
        assert "--test_fraction" in " ".join(found.advice)

    @pytest.mark.spec("VERDICT-4")
    def test_of_few_frames_one_at_the_rim_proves_nothing(self) -> None:
        raw = honest(1e6, N=64, grid_shape=(1, 9), step_px=13.0)
        scan = PtychoDataContainer.of(raw, heldout=np.array([0]))
        done = run(scan, QUICK)
        assert done.verdict is not None
        assert Judgement(done.scored, scan.probe).measured.uncovered == 1
        assert done.verdict.is_image

    def test_what_is_explained_to_the_noise_is_said_with_its_figures(self) -> None:
        found = verdict_of(honest(1e4))
        assert found.kind == "noise"
        assert found.sentence.startswith("explained to the noise (1.1")
        assert "it predicts 9" in found.sentence
        assert 1 < found.figures["noise_factor"] < 1.2

    @pytest.mark.spec("VERDICT-4")
    @pytest.mark.parametrize("turned", [transposed, shuffled])
    def test_too_few_counts_to_tell_are_said_to_be_that(self, turned: Any) -> None:
        found = verdict_of(turned(honest(30)))
        assert found.kind == "noise"
        assert names(found)[0] == "too_dark"
        assert "too few to tell an image from none" in found.sentence


@pytest.mark.usefixtures("no_trials")
class TestWhatIsNone:
    @pytest.mark.spec("VERDICT-2")
    @pytest.mark.parametrize("mean", [0.02, 1.0, 100.0])
    @pytest.mark.parametrize("config", [QUICK, without_heldout()], ids=["heldout", "all"])
    def test_pure_noise_is_called_noise(self, mean: float, config: TrainingConfig) -> None:
        found = verdict_of(pure_noise(mean), config)
        assert found.kind == "no_image"
        assert names(found)[0] == "even_noise"
        assert "the frames are noise" in found.sentence

    @pytest.mark.spec("VERDICT-2")
    @pytest.mark.parametrize("photons", [1e4, 1e6])
    @pytest.mark.parametrize("fluctuation", [0.0, 0.03])
    def test_an_empty_beam_is_called_that_however_its_intensity_fluctuates(
        self, photons: float, fluctuation: float
    ) -> None:
        found = verdict_of(empty_beam(photons, fluctuation))
        assert found.kind == "no_image"
        assert names(found)[0] == "frames_alike"
        assert "an empty beam" in found.sentence

    @pytest.mark.spec("VERDICT-3")
    @pytest.mark.parametrize("photons", [300, 1e4, 1e6])
    @pytest.mark.parametrize("wrong", [transposed, shuffled])
    def test_frames_at_wrong_places_make_none(self, photons: float, wrong: Any, no_trials: list[str]) -> None:
        found = verdict_of(wrong(honest(photons)))
        assert found.kind == "no_image"
        assert names(found)[0] == "not_foretold"
        assert found.figures["foretold_share"] < 0.3
        assert "--orientation auto" in found.advice[0]
        assert no_trials

    def test_without_held_out_frames_what_was_fitted_is_not_counted(self) -> None:
        assert verdict_of(transposed(honest(1e6)), without_heldout()).kind == "no_image"

    @pytest.mark.spec("VERDICT-3")
    def test_frames_without_overlap_make_none_although_each_is_explained(self) -> None:
        raw = honest(1e5)
        found = verdict_of(remade(raw, positions=raw.positions_px * 8))
        assert found.kind == "no_image"
        assert names(found)[0] == "no_overlap"
        assert "frames do not overlap" in found.sentence
        assert "unit of the positions" in found.sentence

    @pytest.mark.spec("VERDICT-3")
    def test_frames_all_at_one_place_make_none(self) -> None:
        raw = honest(1e5)
        found = verdict_of(remade(raw, positions=raw.positions_px / 100))
        assert names(found) == ["not_foretold", "one_place"]
        assert "unit of the positions" in found.advice[0]

    @pytest.mark.spec("VERDICT-3")
    def test_two_samples_in_one_scan_make_none(self) -> None:
        assert verdict_of(merged(1e5)).kind == "no_image"


class TestDoubt:
    """What is decided leaves room for chance, and what a fit explains of its own frames is not evidence."""

    def test_half_of_the_structure_is_missed_beyond_doubt_or_not_at_all(self) -> None:
        def judged(foretold: float, sd: float, structure_sd: float) -> Measured:
            found = measured()
            assert found.heldout is not None
            sums = {"foretold": foretold, "sd": sd, "structure": 100.0, "structure_sd": structure_sd}
            return replace(found, heldout=replace(found.heldout, **sums))

        assert foretells_little(judged(30, 1, 1))
        assert not foretells_little(judged(60, 1, 1))
        assert not foretells_little(judged(30, 12, 1)), "what is foretold may be more by chance"
        assert not foretells_little(judged(30, 1, 22)), "what there is may be less by chance"
        assert not foretells_little(judged(1, 1, 50)), "and may be nothing"

    def test_of_frames_that_were_fitted_as_much_as_was_fitted_is_no_evidence(self) -> None:
        found = measured()
        n = found.training.n_frames
        fitted = replace(found, heldout=None, freedom=100.0)
        for part, evidence in ((0.9, False), (3.0, True)):
            sums = {"foretold": part * 100 * n, "sd": 1.0, "structure": 300.0 * n, "structure_sd": 1.0}
            assert foretells(replace(fitted, training=replace(found.training, **sums))) == evidence
        held = replace(found, freedom=1e9)
        assert foretells(held), "held-out frames were fitted by nobody"

    def test_all_held_out_frames_that_are_lit_are_counted_not_only_those_that_are_looked_at(self) -> None:
        found = measured()
        assert found.heldout is not None
        assert found.covered == found.heldout.n_frames
        many = replace(found, heldout=replace(found.heldout, n_frames=128), covered=600, uncovered=400)
        assert weigh(many, figures(1.0), figures(1.0), REFINED).is_image
        assert not weigh(replace(many, uncovered=601), figures(1.0), figures(1.0), REFINED).is_image

    def test_held_out_frames_without_neighbours_are_counted_apart(self) -> None:
        raw = honest(1e5)
        positions = 2.5 * (raw.positions_px - raw.positions_px.mean(axis=0))
        wide = remade(raw, positions=positions)
        half = np.flatnonzero(positions[:, 0] > 0)
        beside = measured_flat(PtychoDataContainer.of(wide, heldout=half))
        assert beside.apart > 4 * beside.uncovered > 0, "the first row beside the others is near and dark"
        assert weigh(beside, figures(4.0), figures(4.2), REFINED).reasons[0].name != "no_overlap"
        sparse = remade(raw, positions=positions * 6)
        among = measured_flat(PtychoDataContainer.of(sparse, heldout=np.arange(0, raw.n_frames, 9)))
        assert among.uncovered == 16
        assert among.apart == 0


@pytest.mark.usefixtures("no_trials")
class TestWhatIsNoCount:
    @pytest.mark.spec("VERDICT-5")
    @pytest.mark.parametrize("gain", [0.001, 37.0])
    def test_the_answer_is_the_same(self, gain: float) -> None:
        raw = honest(1e5)
        scaled = remade(raw, counts_of(raw) * gain)
        found = verdict_of(scaled)
        assert found.kind == "above_noise"
        assert names(found)[0] == ("no_counts" if gain < 1 else "gain")
        assert "--gain" in found.sentence
        assert verdict_of(transposed(scaled)).kind == "no_image"


# ---- causes, on an image that is known


@cache
def true_image() -> Scored:
    """The true object of a scan, scored on it."""
    scan = simulated(1e5)
    container = ensure_container(scan.raw, QUICK)
    done = run(container, replace(QUICK, epochs=20))
    return done.scored


def measured(**changes: Any) -> Measured:
    """What is measured on it, with what is left of it spread evenly, and that changed."""
    scored = true_image()
    found = Judgement(scored, scored.scan.probe).measured
    even = {"fixed_share": 0.0, "few_frames_share": 0.1, "intensity_share": 0.0, "whiteness": 0.5}
    residual = even | {name: changes.pop(name) for name in list(changes) if hasattr(found.residual, name)}
    return replace(found, residual=replace(found.residual, **residual), **changes)


def measured_flat(container: PtychoDataContainer) -> Measured:
    """What is measured on an image without an object."""
    scored = score(flat_image(container), container, "numpy")
    return Judgement(scored, container.probe).measured


def figures(deviance: float) -> Figures:
    return Figures(
        deviance=deviance, r_factor=0.1, r_factor_floor=0.05, fourier_error=0.01, fourier_error_floor=0.002, n_frames=9
    )


REFINED = Circumstances(refined=True)


class TestCauses:
    def test_the_noise_factor_is_that_of_training_and_held_out_frames_together(self) -> None:
        assert noise_factor(figures(0.8), figures(1.2)) == pytest.approx(1)
        assert noise_factor(figures(4.0), None) == pytest.approx(2)

    @pytest.mark.parametrize(
        ("name", "changes"),
        [
            ("intensity", {"intensity_share": 0.2, "intensity_spread": 0.04}),
            ("fixed_pattern", {"fixed_share": 0.6, "fixed_in_few": 0.8}),
            ("saturation", {"bright_deficit": 0.2, "at_peak": 50, "peak": 1000.0}),
            ("background", {"floor_counts": 3.0}),
            ("few_frames", {"few_frames_share": 0.7}),
            ("gain", {"whiteness": 0.0, "dispersion": (12.0, 11.0)}),
            ("slipped", {"step_frame": 70, "step_factor": 3.0, "step_sigma": 20.0}),
            ("slipped", {"step_frame": 70, "step_factor": 0.3, "step_sigma": 20.0}),
            ("probe_changed", {"probe_likeness": 0.2}),
        ],
    )
    def test_each_is_named_by_its_evidence_and_by_nothing_else(self, name: str, changes: dict[str, Any]) -> None:
        assert names(weigh(measured(), figures(4.0), figures(4.2), REFINED)) == ["unknown"]
        found = weigh(measured(**changes), figures(4.0), figures(4.2), REFINED)
        assert found.kind == "above_noise"
        assert names(found) == [name]
        assert found.sentence.startswith("explained to 2.02 × the noise")
        assert found.reasons[0].text in found.sentence
        assert found.advice

    @pytest.mark.spec("VERDICT-6")
    def test_a_frame_lost_on_the_way_is_named_with_its_number(self, no_trials: list[str]) -> None:
        raw = honest(3e4)
        counts = counts_of(raw)
        lost = remade(raw, counts=np.concatenate([counts[:85], counts[86:], counts[-1:]]))
        found = verdict_of(lost)
        (reason,) = [reason for reason in found.reasons if reason.name == "slipped"]
        number = int(reason.text.split("number ")[1].split()[0])
        assert abs(number - 85) <= 2 * 11 + 3  # frames of the rows beside it share the object that went wrong
        assert f"--frames 0:{number}" in reason.advice
        assert "slipped" not in names(verdict_of(raw))

    def test_a_sample_that_saturates_needs_samples_at_the_peak(self) -> None:
        changes = {"bright_deficit": 0.2, "at_peak": 1, "peak": 1000.0}
        assert names(weigh(measured(**changes), figures(4.0), figures(4.2), REFINED)) == ["unknown"]

    def test_modes_that_paid_and_were_not_exhausted_are_partial_coherence(self) -> None:
        stats = {"took_up_modes": 2, "tried_mode_3_gain": 0.2, "tried_mode_3_gain_needed": 0.01}
        known = replace(REFINED, stats=stats)
        assert names(weigh(measured(), figures(4.0), figures(4.2), known)) == ["partial_coherence"]
        done = replace(REFINED, stats=stats | {"tried_mode_4_gain": 0.0, "tried_mode_4_gain_needed": 0.01})
        assert names(weigh(measured(), figures(4.0), figures(4.2), done)) == ["unknown"]

    def test_unseen_frames_that_are_explained_much_worse_are_over_fitting(self) -> None:
        found = weigh(_with_usual(9.0), figures(1.5), figures(9.0), REFINED)
        assert names(found) == ["overfitted"]
        found = weigh(_with_usual(1.6), figures(1.5), figures(9.0), REFINED)
        assert names(found) == ["few_heldout"]

    def test_frames_that_chose_when_to_stop_are_called_a_validation(self) -> None:
        plain = weigh(measured(), figures(1.0), figures(1.0), REFINED).sentence
        assert "of how held-out frames differ" in plain
        chosen = weigh(measured(), figures(1.0), figures(1.0), replace(REFINED, validated=True)).sentence
        assert chosen == plain.replace("held-out", "validation")
        config = replace(QUICK, early_stopping_patience=3)
        assert circumstances(true_image(), None, None, config).validated
        assert not circumstances(true_image(), None, None, QUICK).validated

    @pytest.mark.parametrize(("part", "text"), [(1.2, "120 %"), (1.0, "100 %"), (0.123, "12 %"), (0.0123, "1.2 %")])
    def test_parts_are_said_in_plain_figures(self, part: float, text: str) -> None:
        assert percent(part) == text

    def test_positions_at_their_limit_and_halves_that_do_not_agree_are_said(self) -> None:
        known = replace(REFINED, positions_at_limit=0.4)
        assert names(weigh(measured(), figures(4.0), figures(4.2), known)) == ["positions_at_limit"]
        halves = weigh(measured(), figures(1.0), figures(1.0), replace(REFINED, half_data_cutoff=0.0))
        assert halves.kind == "noise"
        assert "images made from two halves of the frames do not agree" in halves.sentence
        agree = weigh(measured(), figures(1.0), figures(1.0), replace(REFINED, half_data_cutoff=0.2))
        assert names(agree) == []

    def test_an_alternative_comes_first_with_its_option_and_both_figures(self) -> None:
        other = Alternative(
            name="orientation",
            words="the scan's axes are exchanged",
            option="--orientation transpose",
            advice="--orientation transpose",
            figure=0.0095,
            beside=0.0475,
        )
        known = replace(REFINED, alternatives=(other,))
        found = weigh(measured(intensity_share=0.2, intensity_spread=0.04), figures(4.0), figures(4.2), known)
        assert names(found) == ["orientation", "intensity"]
        text = (
            "likely because the scan's axes are exchanged: --orientation transpose explains held-out frames at 0.0095"
        )
        assert f"{text} instead of 0.0475" in found.sentence
        assert found.sentence.count("--orientation transpose") == 1
        assert found.advice[0] == "--orientation transpose"

    def test_an_object_without_contrast_and_a_field_with_holes_are_cautioned(self) -> None:
        flat = measured(contrast_amplitude=0.01, contrast_phase_rad=0.01, contrast_noise=0.01)
        assert names(weigh(flat, figures(1.0), figures(1.0), REFINED)) == ["no_contrast"]
        assert names(weigh(measured(holes=0.2), figures(1.0), figures(1.0), REFINED)) == ["holes"]


def _with_usual(deviance: float) -> Measured:
    found = measured()
    assert found.heldout is not None
    return replace(found, heldout=replace(found.heldout, usual_deviance=deviance))


class TestEvidenceInData:
    """The same causes, in frames that have them."""

    @pytest.mark.usefixtures("no_trials")
    def test_an_intensity_that_fluctuates(self) -> None:
        raw, rng = honest(1e5), np.random.default_rng(3)
        factors = np.exp(0.08 * rng.normal(size=raw.n_frames))
        found = verdict_of(remade(raw, rng.poisson(counts_of(raw) * factors[:, None, None])))
        assert "intensity" in names(found)
        assert next(r for r in found.reasons if r.name == "intensity").figure == pytest.approx(0.08, rel=0.3)

    @pytest.mark.usefixtures("no_trials")
    def test_a_detector_that_saturates(self) -> None:
        counts = counts_of(honest(1e5))
        found = verdict_of(remade(honest(1e5), np.minimum(counts, 0.3 * counts.max())))
        assert names(found)[0] == "saturation"

    @pytest.mark.usefixtures("no_trials")
    def test_a_background_under_all_frames(self) -> None:
        counts = counts_of(honest(1e5))
        found = verdict_of(remade(honest(1e5), counts + np.random.default_rng(4).poisson(6.0, counts.shape)))
        reason = next(r for r in found.reasons if r.name == "background")
        assert reason.figure == pytest.approx(6.0, rel=0.1)

    @pytest.mark.usefixtures("no_trials")
    def test_hot_pixels_change_nothing_of_what_is_foretold(self) -> None:
        raw = honest(1e5)
        counts = counts_of(raw)
        counts[:, 3:6, 20:24] += 500
        found = verdict_of(remade(raw, counts))
        assert found.is_image
        assert found.figures["foretold_share"] > 0.9

    @pytest.mark.usefixtures("no_trials")
    def test_a_hole_in_the_scan_is_one_and_the_corners_beside_a_turned_field_are_none(self) -> None:
        raw = honest(1e5)
        turn = np.deg2rad(35)
        matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        positions = 4.0 * (raw.positions_px - raw.positions_px.mean(axis=0)) @ matrix.T
        whole = remade(raw, positions=positions)
        middle = np.linalg.norm(positions, axis=1) < 30
        holed = whole.subset(np.flatnonzero(~middle))
        holes = [measured_flat(ensure_container(some, QUICK)).holes for some in (whole, holed)]
        assert holes[0] < 0.02
        assert holes[1] > 0.1


# ---- trials


class TestDiagnosis:
    @pytest.mark.spec("VERDICT-6")
    def test_a_good_run_is_not_kept_waiting(self, no_trials: list[str]) -> None:
        for photons in (100, 1e4, 1e6):
            verdict_of(honest(photons))
        assert no_trials == []
        assert verdict_of(empty_beam(1e6, 0.03)).figures["noise_factor"] > 2
        assert no_trials == [], "where all frames are alike, no trial can tell anything"

    @pytest.mark.spec("VERDICT-6")
    def test_exchanged_axes_are_named_with_their_option(self) -> None:
        watcher = Observer()
        done = run(transposed(honest(1e5)), QUICK, observer=watcher)
        assert done.verdict is not None
        assert names(done.verdict)[:2] == ["not_foretold", "orientation"]
        assert (
            "the scan's axes are exchanged: --orientation transpose explains held-out frames" in done.verdict.sentence
        )
        assert done.verdict.advice[0] == "--orientation transpose"
        assert "diagnosis" in done.seconds

    @pytest.mark.spec("VERDICT-6")
    def test_two_samples_are_named(self) -> None:
        found = verdict_of(merged(1e5))
        assert names(found)[:2] == ["not_foretold", "samples"]
        assert "the frames are of two samples, or the sample moved" in found.sentence

    @pytest.mark.spec("VERDICT-6")
    def test_pixels_that_spoil_the_image_are_named_before_all_else(self) -> None:
        raw = honest(1e5)
        counts = raw.read_counts(np.arange(raw.n_frames))
        counts[:, 5, 9] = 40 * counts.max()
        found = verdict_of(remade(raw, counts=counts))
        assert names(found)[:2] == ["not_foretold", "pixels"]
        assert "bad pixels were fitted as light ((5, 9)): --mask auto explains held-out frames" in found.sentence
        assert found.advice[0] == "--mask auto"

    def test_two_negations_are_said_in_one_clause(self, monkeypatch: pytest.MonkeyPatch) -> None:
        raw = honest(1e5)
        container = ensure_container(remade(raw, positions=-raw.positions_px), QUICK)
        found = diagnosing.diagnose(container, QUICK)
        assert [other.words for other in found.alternatives] == ["positions run the other way along y and x"]

    @pytest.mark.spec("VERDICT-6")
    def test_what_was_tried_in_vain_is_said_and_time_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tried: list[str] = []

        def look(name: str, result: Any) -> Any:
            def looked(scan: Any, config: Any, runtime: Any, progress: Any) -> Any:
                tried.append(name)
                progress(ProgressEvent(stage="orient", done=1, total=1))
                return result

            return looked

        for name in ("_orientation", "_samples", "_probe"):
            monkeypatch.setattr(diagnosing, name, look(name, None))
        container = ensure_container(honest(1e4), QUICK)
        assert len(diagnosing.diagnose(container, QUICK).searched) == 3
        assert tried == ["_orientation", "_samples", "_probe"]
        monkeypatch.setattr(diagnosing, "LONGEST_S", -1.0)
        assert diagnosing.diagnose(container, QUICK) == Circumstances()
        assert tried[3:] == ["_orientation"], "what takes too long is ended, and nothing further is begun"

    def test_held_out_frames_are_not_looked_at(self, monkeypatch: pytest.MonkeyPatch) -> None:
        container = ensure_container(shuffled(honest(1e4)), QUICK)
        seen: list[int] = []
        region_of = diagnosing.region_of

        def region(raw: RawData, *, among: Any, **more: Any) -> Any:
            seen.extend(among.tolist())
            return region_of(raw, among=among, **more)

        for module in (diagnosing, importlib.import_module("ptycho_core.api.orient")):
            monkeypatch.setattr(module, "region_of", region)
        monkeypatch.setattr(diagnosing, "_probe", lambda *_: None)
        diagnosing.diagnose(container, QUICK)
        assert set(seen) == set(container.train_frames.tolist())

    def test_stopping_it_keeps_the_results_and_their_verdict(self, tmp_path: Any) -> None:
        def stop(event: ProgressEvent) -> None:
            if event.stage == "orient":
                raise Cancelled("stopped by hand")

        with pytest.raises(Cancelled) as caught:
            run(transposed(honest(1e4)), QUICK, out=tmp_path / "out", progress=stop)
        assert caught.value.run.verdict.kind == "no_image"
        assert "no diagnosis: stopped by hand" in caught.value.run.warnings
        assert json.loads((tmp_path / "out" / "summary.json").read_text())["verdict"]["kind"] == "no_image"

    def test_one_that_fails_costs_a_notice_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*args: Any, **keywords: Any) -> Circumstances:
            raise BackendError("out of order")

        monkeypatch.setattr(running, "diagnose", broken)
        done = run(transposed(honest(1e4)), QUICK)
        assert done.verdict is not None
        assert done.verdict.kind == "no_image"
        assert "no diagnosis: out of order" in done.warnings


# ---- where it stands


def with_verdict(kind: str) -> Run:
    found = weigh(measured(), figures(1.0), figures(1.0), REFINED)
    return replace(
        make_run(make_scored()), verdict=replace(found, kind=kind, sentence="it <is> so, give --orientation x")
    )


class TestWhereItStands:
    @pytest.mark.spec("VERDICT-1")
    def test_in_the_summary_and_the_file_of_the_reconstruction(self, tmp_path: Any) -> None:
        done = run(honest(1e4), QUICK, out=tmp_path / "out")
        assert done.verdict is not None
        kept = json.loads((tmp_path / "out" / "summary.json").read_text())["verdict"]
        assert kept == json.loads(json.dumps(done.verdict.to_mapping()))
        assert kept["sentence"].startswith("explained to the noise")
        assert {"kind", "sentence", "reasons", "advice", "figures"} == set(kept)
        assert read_reconstruction(tmp_path / "out" / "reconstruction.h5").verdict == kept
        with h5py.File(tmp_path / "out" / "reconstruction.h5") as file:
            assert json.loads(file["entry/verdict"].asstr()[()]) == kept

    @pytest.mark.spec("VERDICT-1")
    @pytest.mark.parametrize("kind", KINDS)
    def test_on_top_of_the_report_in_its_colour(self, kind: str) -> None:
        from ptycho_core.report.figures import object_view

        done = with_verdict(kind)
        names = ("object_amplitude", "object_phase", "probe", "coverage", "losses", "r_map", "patterns")
        view = object_view(done.image.object, done.image.coverage)
        page = render_report(done, {f"{name}.png": b"\x89PNG" + bytes(40) for name in names}, view)
        assert f'<section class="verdict {kind.replace("_", "-")}">' in page
        assert "It &lt;is&gt; so, give " in page
        assert '<span class="option">--orientation</span> x' in page
        assert page.index('<section class="verdict') < page.index('<div class="headline"')
        assert f".verdict.{kind.replace('_', '-')} " in page or kind == "noise"

    def test_a_run_without_one_says_so_in_no_place(self) -> None:
        assert run_summary(make_run(make_scored()))["verdict"] is None

    @pytest.mark.spec("VERDICT-1")
    @pytest.mark.parametrize(
        "error", [BackendError("its forward model is out of order"), IndexError("its forward model is out of order")]
    )
    @pytest.mark.parametrize("part", ["Judgement", "Judgement.verdict"])
    def test_where_the_image_cannot_be_judged_a_warning_says_why(
        self, monkeypatch: pytest.MonkeyPatch, part: str, error: Exception
    ) -> None:
        def broken(*args: Any, **keywords: Any) -> None:
            raise error

        monkeypatch.setattr(f"ptycho_core.api.run.{part}", broken)
        done = run(honest(1e4), QUICK)
        assert done.verdict is None
        assert "its forward model is out of order" in next(text for text in done.warnings if "no verdict: " in text)

    @pytest.mark.spec("VERDICT-1")
    def test_a_model_that_is_applied_gives_its_image_although_it_cannot_be_judged(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def broken(*args: Any, **keywords: Any) -> None:
            raise IndexError("out of the field")

        done = run(honest(1e5), QUICK)
        monkeypatch.setattr("ptycho_core.api.apply.judge", broken)
        engine = Engines(QUICK, done.runtime, Observer()).trainer
        applied = apply_and_report(done.model, engine, honest(1e5), QUICK.inference, same_scan=True, out=tmp_path / "a")
        assert applied.warnings == ("no verdict: IndexError: out of the field",)
        assert (tmp_path / "a" / "reconstruction.h5").exists()

    def test_a_model_applied_to_a_scan_has_one_too(self) -> None:
        done = run(honest(1e5), QUICK)
        applied = apply_and_report(
            done.model, Engines(QUICK, done.runtime, Observer()).trainer, honest(1e5), QUICK.inference, same_scan=True
        )
        assert applied.verdict is not None
        assert applied.verdict.is_image

    def test_an_image_is_judged_through_the_forward_model_of_its_engine(self) -> None:
        scored = true_image()

        class Other:
            name = "other"

            def expected_counts(self, image: Any, scan: Any, frames: Any) -> Any:
                return np.ones((len(frames), N, N), np.float32)

        assert judge(scored).is_image
        assert judge(scored, backend=Other()).kind == "no_image"  # type: ignore[arg-type]


class TestTryOut:
    @pytest.mark.spec("VERDICT-7")
    def test_a_large_scan_is_tried_on_a_compact_piece(self, monkeypatch: pytest.MonkeyPatch) -> None:
        watcher = Observer()
        monkeypatch.setattr("ptycho_core.api.try_out.MOST_FRAMES", 60)
        raw = honest(1e5)
        done = try_out(raw, observer=watcher)
        assert MOST_FRAMES > 60
        assert done.scan.raw.n_frames == 60
        assert f"tried on 60 neighbouring frames of {raw.n_frames}" in watcher.notices
        area = np.prod(np.ptp(done.scan.raw.positions_px, axis=0)) / np.prod(np.ptp(raw.positions_px, axis=0))
        assert area < 0.55
        assert done.verdict is not None
        assert done.verdict.is_image
        assert done.folder is None
