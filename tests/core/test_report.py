"""Results of a run: numbers that agree with what core scored, a report that needs nothing else."""

from __future__ import annotations

import base64
import json
import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from report_scan import SHAKEN, make_run, make_scored, pixels, refined_run

from ptycho_core.api.score import score
from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.data.raw import RawData
from ptycho_core.data.results import Scored
from ptycho_core.data.run import Run
from ptycho_core.enginekit.stitching import Stitcher, make_image, probe_weights
from ptycho_core.evaluation.metrics import compare_objects
from ptycho_core.io.reconstruction_file import read_reconstruction
from ptycho_core.io.result_folder import ResultFolder, verify_result
from ptycho_core.io.result_names import RESULT_NAMES
from ptycho_core.physics.patches import extract
from ptycho_core.report.figures import object_view
from ptycho_core.report.html import render_report
from ptycho_core.report.write import run_summary, write_results, write_summary

FILES = {
    "object_amplitude.png", "object_phase.png", "probe.png", "coverage.png", "losses.png", "r_map.png", "patterns.png",
    "probe_focus.png", "reconstruction.h5", "report.html", "summary.json",
}  # fmt: skip


def write(folder: Path, run: Run) -> Path:
    folder.mkdir(exist_ok=True)
    write_results(folder, run)
    write_summary(folder, run)
    return folder


@pytest.fixture(scope="module")
def scored() -> Scored:
    return make_scored(pixel_size_m=26e-9)


@pytest.fixture(scope="module")
def results(scored: Scored, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("results") / "new", make_run(scored))


@pytest.fixture(scope="module")
def refined(scored: Scored, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("results") / "refined", refined_run(scored))


def test_every_file_is_there_and_is_what_it_says(results: Path, refined: Path) -> None:
    assert {path.name for path in results.iterdir()} == FILES
    stages = {"stage_amplitude.png", "stage_phase.png", "refinement.png"}
    assert {path.name for path in refined.iterdir()} == FILES | stages
    for path in (*results.glob("*.png"), *refined.glob("*.png")):
        image = pixels(path.read_bytes())
        assert image.shape[0] > 300
        assert image.std() > 0.05
        assert image[0, 0].min() == 1.0  # a white ground, whatever page it is put on


def test_the_names_are_those_that_a_result_folder_takes(scored: Scored, tmp_path: Path) -> None:
    with ResultFolder.open(tmp_path / "out", overwrite=False) as folder, folder.staged() as partial:
        write(partial, refined_run(scored))
    assert verify_result(tmp_path / "out") == []


def test_reconstruction_file_agrees_with_the_run(results: Path, scored: Scored) -> None:
    stored = read_reconstruction(results / "reconstruction.h5")
    np.testing.assert_array_equal(stored.object, scored.image.object)
    assert stored.pixel_size_m == 26e-9
    assert stored.losses["test_loss"] == [0.6, 0.3, 0.2]
    assert stored.provenance["seed"] == 3


def test_summary_says_what_programs_need(results: Path, scored: Scored) -> None:
    summary = json.loads((results / "summary.json").read_text(encoding="utf-8"))
    assert summary["schema_version"] == 2
    assert summary["figures"] == {"train": scored.train.to_mapping(), "heldout": scored.heldout.to_mapping()}
    assert set(summary["figures"]["train"]) == {
        "deviance", "r_factor", "r_factor_floor", "fourier_error", "fourier_error_floor", "n_frames",
    }  # fmt: skip
    assert summary["figures"]["train"]["r_factor"] > 3 * summary["figures"]["train"]["fourier_error"]
    assert summary["frames"] == {"train": 71, "heldout": 3, "unused": 3, "all": 77}
    assert summary["dropped"] == {
        "frames: shaken <stage>": 2, "frames: no counts": 1, "masked pixels": 6, "patches": 1,
    }  # fmt: skip
    used = np.setdiff1d(np.arange(77), [5, *SHAKEN])
    assert summary["mean_counts"] == pytest.approx(scored.scan.raw.frame_totals[used].mean())
    assert summary["engine"] == "pytorch"
    assert summary["seconds"] == {"read": 0.25, "train": 3.5, "total": 4.0}
    assert summary["peak_memory_bytes"] == 123_000_000
    assert summary["versions"]["numpy"] == "2.0"
    assert summary["warnings"] == ["<script>alert(1)</script>", "saturated pixels"]
    assert summary["final_losses"] == {"train_loss": 0.1, "test_loss": 0.2}
    assert summary["object_shape"] == list(scored.image.object.shape)
    assert summary["config"]["model"]["width"] == 7
    assert summary["comparison"] is None
    assert summary["refinement"] is None
    assert [stage["name"] for stage in summary["stages"]] == ["network"]


def test_summary_tells_every_stage_and_what_refining_did(refined: Path, scored: Scored) -> None:
    summary = json.loads((refined / "summary.json").read_text(encoding="utf-8"))
    first, last = summary["stages"]
    assert (first["name"], first["engine"], last["name"], last["engine"]) == ("network", "pytorch", "refined", "numpy")
    assert last["figures"] == summary["figures"]
    assert first["figures"]["heldout"]["deviance"] > last["figures"]["heldout"]["deviance"]
    assert summary["refinement"]["history"] == {"train_loss": [-1.0, -1.5], "test_loss": [-0.9, -1.2]}
    dropped = run_summary(refined_run(scored, kept=False))
    assert (dropped["refinement"]["kept"], dropped["refinement"]["note"]) == (False, "it was <no> better")
    assert [stage["name"] for stage in dropped["stages"]] == ["network"]


def test_comparison_and_half_data_reach_summary_report_and_a_picture(scored: Scored, tmp_path: Path) -> None:
    image = scored.image
    rng = np.random.default_rng(0)
    noisy = (image.object * np.exp(1j * rng.normal(0, 0.2, image.object.shape))).astype(np.complex64)
    comparison = compare_objects(noisy, image.origin_px, image.object, image.origin_px, coverage=image.coverage)
    folder = write(tmp_path, make_run(scored, comparison=comparison, half_data_frc=comparison.frc))
    assert (folder / "frc.png").is_file()
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["comparison"]["phase_psnr_db"] == comparison.phase_psnr_db
    assert summary["half_data_frc"]["cutoff_one_seventh"] == comparison.frc.cutoff_one_seventh
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert f"{comparison.phase_psnr_db:.2f} dB" in page
    assert f"{comparison.correlation:.4f}" in page


class _Page(HTMLParser):
    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(folder: Path) -> _Page:
    return _Page((folder / "report.html").read_text(encoding="utf-8"))


def test_the_report_is_self_contained(refined: Path) -> None:
    source = (refined / "report.html").read_text(encoding="utf-8")
    page = _Page(source)
    assert {"link", "iframe", "object", "base"}.isdisjoint(tag for tag, _ in page.tags)
    for tag, attributes in page.tags:
        assert ("href" in attributes) == (tag == "a")
        if tag == "a":  # a file that lies beside, by its name
            assert (refined / str(attributes["href"])).name == attributes["href"]
            assert attributes["href"] in RESULT_NAMES
        assert not any(name.startswith("on") for name in attributes)
        if tag == "img":
            assert (attributes["src"] or "").startswith("data:image/png;base64,")
            assert attributes["alt"]
    without_images = re.sub(r"base64,[A-Za-z0-9+/=]+", "", source)
    assert "//" not in without_images  # no address of any kind
    assert "url(" not in without_images
    assert "@import" not in without_images


def test_the_report_shows_every_picture_as_written(refined: Path) -> None:
    embedded = re.findall(r"base64,([A-Za-z0-9+/=]+)", (refined / "report.html").read_text(encoding="utf-8"))
    shown = sorted(base64.b64decode(data) for data in embedded)
    assert shown == sorted(path.read_bytes() for path in refined.glob("*.png"))


def test_the_report_gives_each_figure_its_name_and_its_floor(results: Path, scored: Scored) -> None:
    text = page_of(results).text
    for label, figures in (
        ("Frames that the image was made of", scored.train),
        ("Held-out frames", scored.heldout),
    ):
        card = text[text.index(f"{label}: reduced deviance") :]
        assert card.index(f"{figures.deviance:.3g}") < card.index(f"for {figures.n_frames} frames")
        r = f"R-factor Σ|√k − √λ| / Σ√k: {figures.r_factor:.5f}, shot noise alone {figures.r_factor_floor:.5f}"
        error = (
            f"Fourier error Σ(√λ − √k)² / Σk: {figures.fourier_error:.5f}, "
            f"shot noise alone {figures.fourier_error_floor:.5f}"
        )
        assert card.index(r) < card.index(error) < 800
    assert scored.train.r_factor != scored.heldout.r_factor


def test_the_report_counts_unused_frames_and_escapes_text(results: Path) -> None:
    text = page_of(results).text
    assert "71 + 3 held out, of 77; 32×32 pixels" in text
    assert "frames: shaken <stage>2" in text
    assert "frames: no counts1" in text
    assert "masked pixels6" in text
    assert "Scan <1> & more" in text
    assert "scan <one>.npz" in text
    assert "2 warnings" in text
    assert "<script>alert(1)</script>" in text
    assert "saturated pixels" in text
    assert "read as & counts" in text
    assert "26 nm" in text
    assert "train3.50 s (88%)" in text
    assert "global phase of" in text


def test_the_report_says_what_refining_did(results: Path, refined: Path, scored: Scored, tmp_path: Path) -> None:
    text = page_of(refined).text
    assert "From network to refined" in text
    assert "Refined by engine numpy in 2 passes over the frames" in text
    assert "a validation, predicted from their neighbours" in text
    assert "Neither training nor refining" in text
    assert "Neither training nor refining" not in page_of(results).text
    gone = page_of(write(tmp_path / "gone", refined_run(scored, kept=False))).text
    assert "The refined image was discarded: it was <no> better." in gone
    assert not (tmp_path / "gone" / "stage_phase.png").exists()


def test_held_out_frames_that_stop_a_training_are_called_a_validation(results: Path, scored: Scored) -> None:
    view = object_view(scored.image.object, scored.image.coverage)
    images = {path.name: path.read_bytes() for path in results.glob("*.png")}
    for patience, words in ((None, "The image has not seen them"), (2, "a validation, predicted from")):
        run = make_run(scored)
        run = replace(run, config=replace(run.config, early_stopping_patience=patience))
        assert words in _Page(render_report(run, images, view)).text


def test_the_style_sheet_is_in_the_page_and_fetches_nothing(results: Path) -> None:
    sheet = resources.files("ptycho_core.report").joinpath("style.css").read_text(encoding="utf-8")
    assert "@media print" in sheet
    assert not re.search(r"url\(|@import|</style", sheet)
    assert f"<style>{sheet}</style>" in (results / "report.html").read_text(encoding="utf-8")


def test_settings_that_differ_from_the_default_stand_out(results: Path) -> None:
    source = (results / "report.html").read_text(encoding="utf-8")
    changed = re.findall(r'<th scope="row">([^<]+)</th><td class=changed>([^<]+)</td>', source)
    assert changed == [("threads", "3"), ("model.width", "7"), ("epochs", "3")]
    assert "Engine pytorch" in source
    assert json.loads((results / "summary.json").read_text(encoding="utf-8"))["runtime"]["threads"] == 3


def test_a_bare_run_gives_a_report_too(tmp_path: Path) -> None:
    scored = make_scored(bare=True)
    run = make_run(scored, history={}, seconds={}, provenance={}, warnings=(), peak_memory_bytes=None)
    text = page_of(write(tmp_path, run)).text
    assert "Held-out frames" not in text
    assert 'class="warnings"' not in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "size not known" in text
    assert "not measured" in text
    assert run_summary(run)["figures"]["heldout"] is None
    assert run_summary(run)["frames"] == {"train": 76, "heldout": 0, "unused": 1, "all": 77}


def test_total_time_is_that_of_the_whole_run_or_of_its_stages(scored: Scored, results: Path) -> None:
    images = {path.name: path.read_bytes() for path in results.glob("*.png")}
    view = object_view(scored.image.object, scored.image.coverage)
    assert "Time4.0 s" in page_of(results).text
    summed = make_run(scored, seconds={"a": 1.0, "b": 2.25})
    assert "Time3.2 s" in _Page(render_report(summed, images, view)).text


@pytest.mark.real_data
def test_results_of_a_real_scan_are_written_in_seconds(shared_data: Path, tmp_path: Path) -> None:
    with np.load(shared_data / "siemens_star_64.npz") as file:
        positions = np.stack([file["ycoords"], file["xcoords"]], axis=1) - 0.5
        raw = RawData.from_arrays(file["diff3d"].astype(np.float32) ** 2, positions, file["probeGuess"])
        obj = file["objectGuess"].astype(np.complex64)
    scan = PtychoDataContainer.of(raw, heldout=np.arange(0, raw.n_frames, 20))
    frames = scan.train_frames
    corners, rest = integer_corners(raw.positions_px, 64)
    stitcher = Stitcher.for_scan(scan)
    stitcher.add(extract(obj, corners[frames], 64), probe_weights(scan.probe, rest[frames]), corners[frames])
    stitched, coverage = stitcher.finish(float((np.abs(scan.probe) ** 2).sum(axis=0).max()))
    scale = scan.statistics.scale
    image = make_image(stitched, coverage, stitcher.origin_px, scan.probe, scale, raw.positions_px)
    done = score(image, scan, "pytorch")
    begin = time.perf_counter()
    folder = write(tmp_path, make_run(done))
    assert time.perf_counter() - begin < 20  # about 2 s; the rest is room for a busy machine
    assert (folder / "report.html").stat().st_size < 3e6
    view = object_view(done.image.object, done.image.coverage)
    assert view.phase_limits[1] - view.phase_limits[0] > 0.8  # spokes of an almost pure phase object
    figures = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["figures"]
    assert figures["train"]["fourier_error"] == pytest.approx(0.0129, abs=4e-4)
    assert figures["heldout"]["n_frames"] == 26
