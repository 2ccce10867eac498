"""Results of a run: numbers that agree with the oracle, a report that needs nothing else, files replaced as a whole."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_scan import make_record, make_scan, pixels

from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.data.raw import RawData
from ptycho_core.data.results import Reconstruction
from ptycho_core.errors import DataError, OutputError
from ptycho_core.io.reconstruction_file import read_reconstruction
from ptycho_core.metrics import compare_objects
from ptycho_core.physics.patches import extract
from ptycho_core.report import run_summary, write_results
from ptycho_core.report_figures import object_view
from ptycho_core.stitching import Stitcher, finish_reconstruction, probe_weights

FILES = {
    "object_amplitude.png", "object_phase.png", "probe.png", "coverage.png", "losses.png", "r_map.png", "patterns.png",
    "reconstruction.h5", "report.html", "summary.json",
}  # fmt: skip


@pytest.fixture(scope="module")
def scan() -> tuple[RawData, Reconstruction]:
    return make_scan(pixel_size_m=26e-9)


@pytest.fixture(scope="module")
def results(scan: tuple[RawData, Reconstruction], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_results(tmp_path_factory.mktemp("results") / "new", make_record(*scan))


def test_every_file_is_there_and_is_what_it_says(results: dict[str, Path]) -> None:
    assert set(results) == FILES
    folder = results["summary.json"].parent
    assert {p.name for p in folder.iterdir()} == FILES
    for name, path in results.items():
        assert path.parent == folder
        if name.endswith(".png"):
            image = pixels(path.read_bytes())
            assert image.shape[0] > 300
            assert image.std() > 0.05
            assert image[0, 0].min() == 1.0  # a white ground, whatever page it is put on


def test_reconstruction_file_agrees_with_the_record(
    results: dict[str, Path], scan: tuple[RawData, Reconstruction]
) -> None:
    stored = read_reconstruction(results["reconstruction.h5"])
    np.testing.assert_array_equal(stored.object, scan[1].object)
    assert stored.pixel_size_m == 26e-9
    assert stored.losses["test_loss"] == [0.6, 0.3, 0.2]
    assert stored.provenance == {"seed": 3}


def test_summary_says_what_programs_need(results: dict[str, Path], scan: tuple[RawData, Reconstruction]) -> None:
    _, reconstruction = scan
    summary = json.loads(results["summary.json"].read_text(encoding="utf-8"))
    heldout = np.array([2, 5, 40])
    assert summary["r_factor"] == reconstruction.r_factor
    misfit, totals = reconstruction.frame_misfit, reconstruction.frame_totals
    assert summary["r_factor_heldout"] == pytest.approx(misfit[heldout].sum() / totals[heldout].sum(), rel=1e-12)
    kept = np.setdiff1d(np.arange(77), heldout)
    assert summary["r_factor_training"] == pytest.approx(misfit[kept].sum() / totals[kept].sum(), rel=1e-12)
    assert (summary["frames"], summary["frames_heldout"], summary["engine"]) == (77, 3, "pytorch")
    assert summary["dropped"] == {"frames_without_counts": 1, "masked_pixels": 6}
    assert {"read", "train", "report"} == set(summary["seconds"])
    assert 0 < summary["seconds"]["report"] < 60
    assert summary["peak_memory_bytes"] == 123_000_000
    assert summary["versions"] == {"numpy": "2.0"}
    assert summary["warnings"] == ["<script>alert(1)</script>", "saturated pixels"]
    assert summary["final_losses"] == {"train_loss": 0.1, "test_loss": 0.2}
    assert summary["object_shape"] == list(reconstruction.object.shape)
    assert summary["config"]["model"]["width"] == 7
    assert set(summary["files"]) == FILES
    assert summary["comparison"] is None


def test_comparison_and_half_data_reach_summary_report_and_a_picture(
    scan: tuple[RawData, Reconstruction], tmp_path: Path
) -> None:
    raw, reconstruction = scan
    rng = np.random.default_rng(0)
    noisy = (reconstruction.object * np.exp(1j * rng.normal(0, 0.2, reconstruction.object.shape))).astype(np.complex64)
    comparison = compare_objects(
        noisy,
        reconstruction.origin_px,
        reconstruction.object,
        reconstruction.origin_px,
        coverage=reconstruction.coverage,
    )
    record = make_record(raw, reconstruction, comparison=comparison, half_data_frc=comparison.frc)
    written = write_results(tmp_path, record)
    assert "frc.png" in written
    summary = json.loads(written["summary.json"].read_text(encoding="utf-8"))
    assert summary["comparison"]["phase_psnr_db"] == comparison.phase_psnr_db
    assert summary["half_data_frc"]["cutoff_one_seventh"] == comparison.frc.cutoff_one_seventh
    page = written["report.html"].read_text(encoding="utf-8")
    assert f"{comparison.phase_psnr_db:.2f} dB" in page
    assert f"{comparison.correlation:.4f}" in page


def test_a_failure_leaves_the_old_result_and_no_litter(
    scan: tuple[RawData, Reconstruction], results: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in results.values():
        shutil.copy(path, tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    monkeypatch.setattr("ptycho_core.report.run_summary", lambda record: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_results(tmp_path, make_record(*scan, title="another"))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_summary_is_renamed_last(
    scan: tuple[RawData, Reconstruction], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    rename = os.replace

    def spy(source: Any, target: Any) -> None:
        order.append(Path(target).name)
        rename(source, target)

    monkeypatch.setattr("ptycho_core.io.atomic.os.replace", spy)
    write_results(tmp_path, make_record(*scan))
    final = [name for name in order if not name.startswith(".")]
    assert final[-1] == "summary.json"
    assert set(final) == FILES


def test_a_folder_that_is_a_file_is_an_output_error(scan: tuple[RawData, Reconstruction], tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="out"):
        write_results(tmp_path / "out", make_record(*scan))


def test_an_unwritable_result_names_its_file_once(scan: tuple[RawData, Reconstruction], tmp_path: Path) -> None:
    (tmp_path / "coverage.png").mkdir()
    with pytest.raises(OutputError) as caught:
        write_results(tmp_path, make_record(*scan))
    assert str(caught.value).count("writing failed") == 1
    assert str(tmp_path / "coverage.png") in str(caught.value)
    assert not (tmp_path / "summary.json").exists()


def test_a_record_that_does_not_fit_its_scan_is_refused(scan: tuple[RawData, Reconstruction]) -> None:
    raw, reconstruction = scan
    with pytest.raises(DataError, match="76 frames but 77"):
        make_record(raw.subset(np.arange(76)), reconstruction)
    with pytest.raises(DataError, match="77 frames"):
        make_record(raw, reconstruction, heldout=np.array([77]))


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report_is_self_contained(results: dict[str, Path]) -> None:
    source = results["report.html"].read_text(encoding="utf-8")
    page = _Page()
    page.feed(source)
    assert {"script", "link", "iframe", "object", "base"}.isdisjoint(tag for tag, _ in page.tags)
    for tag, attributes in page.tags:
        assert "href" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        if tag == "img":
            assert (attributes["src"] or "").startswith("data:image/png;base64,")
            assert attributes["alt"]
    without_images = re.sub(r"base64,[A-Za-z0-9+/=]+", "", source)
    assert "//" not in without_images  # no address of any kind
    assert "url(" not in without_images
    assert "@import" not in without_images


def test_the_report_shows_every_picture_as_written(results: dict[str, Path]) -> None:
    embedded = re.findall(r"base64,([A-Za-z0-9+/=]+)", results["report.html"].read_text(encoding="utf-8"))
    shown = sorted(base64.b64decode(data) for data in embedded)
    assert shown == sorted(path.read_bytes() for name, path in results.items() if name.endswith(".png"))


def test_the_report_says_the_numbers_and_escapes_text(
    results: dict[str, Path], scan: tuple[RawData, Reconstruction]
) -> None:
    _, reconstruction = scan
    page = _Page()
    page.feed(results["report.html"].read_text(encoding="utf-8"))
    text = page.text
    assert "Scan <1> & more" in text
    assert "scan <one>.npz" in text
    assert f"{reconstruction.r_factor:.4f}" in text
    assert f"{reconstruction.r_factor_of(np.array([2, 5, 40])):.4f}" in text
    assert "2 warnings" in text
    assert "<script>alert(1)</script>" in text
    assert "saturated pixels" in text
    assert "read as & counts" in text
    assert "26 nm" in text
    assert "frames without counts" in text
    assert "train3.50 s (93%)" in text
    assert "global phase of" in text


def test_settings_that_differ_from_the_default_stand_out(results: dict[str, Path]) -> None:
    source = results["report.html"].read_text(encoding="utf-8")
    changed = re.findall(r'<th scope="row">([^<]+)</th><td class=changed>([^<]+)</td>', source)
    assert changed == [("model.width", "7"), ("epochs", "3")]


def test_a_bare_record_gives_a_report_too(tmp_path: Path) -> None:
    raw, reconstruction = make_scan()
    record = make_record(
        raw, reconstruction, history={}, seconds={}, versions={}, heldout=None, warnings=(), peak_memory_bytes=None
    )
    (tmp_path / "frc.png").write_bytes(b"")
    page = write_results(tmp_path, record)["report.html"].read_text(encoding="utf-8")
    assert not (tmp_path / "frc.png").exists()  # it belonged to the result that was replaced
    assert "R-factor of held-out frames" not in page
    assert "size not known" in page
    assert run_summary(record)["r_factor_heldout"] is None
    assert run_summary(record)["r_factor_training"] == pytest.approx(reconstruction.r_factor)


def test_total_time_is_not_counted_twice(scan: tuple[RawData, Reconstruction]) -> None:
    assert make_record(*scan).total_seconds == 3.75
    assert make_record(*scan, seconds={"train": 3.0, "total": 5.0}).total_seconds == 5.0


@pytest.mark.real_data
def test_results_of_a_real_scan_are_written_in_seconds(shared_data: Path, tmp_path: Path) -> None:
    with np.load(shared_data / "siemens_star_64.npz") as file:
        positions = np.stack([file["ycoords"], file["xcoords"]], axis=1) - 0.5
        raw = RawData.from_arrays(file["diff3d"].astype(np.float32) ** 2, positions, file["probeGuess"])
        obj = file["objectGuess"].astype(np.complex64)
    assert raw.probe is not None
    corners, rest = integer_corners(raw.positions_px, 64)
    stitcher = Stitcher.for_scan(raw)
    stitcher.add(extract(obj, corners, 64), probe_weights(raw.probe, rest), corners)
    stitched, coverage = stitcher.finish(float((np.abs(raw.probe) ** 2).sum(axis=0).max()))
    container = PtychoDataContainer.for_reconstruction(raw, 16)
    scale = container.statistics.scale
    reconstruction = finish_reconstruction(stitched, coverage, stitcher.origin_px, raw.probe, scale, container)
    begin = time.perf_counter()
    written = write_results(tmp_path, make_record(raw, reconstruction))
    assert time.perf_counter() - begin < 20  # about 2 s; the rest is room for a busy machine
    assert written["report.html"].stat().st_size < 3e6
    view = object_view(reconstruction.object, reconstruction.coverage)
    assert view.phase_limits[1] - view.phase_limits[0] > 0.8  # spokes of an almost pure phase object
    assert json.loads(written["summary.json"].read_text(encoding="utf-8"))["r_factor"] == pytest.approx(
        0.0129, abs=2e-4
    )
