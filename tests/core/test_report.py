"""Results of a run: numbers that agree with the oracle, pictures that show what they say, files replaced as a whole."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import math
import re
import shutil
import subprocess
import sys
import threading
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ptycho_core.config import ModelConfig, TrainingConfig
from ptycho_core.data.container import PtychoDataContainer, integer_corners
from ptycho_core.data.raw import Geometry, RawData, Source
from ptycho_core.data.results import Reconstruction
from ptycho_core.errors import DataError, OutputError
from ptycho_core.io.reconstruction_file import read_reconstruction
from ptycho_core.metrics import compare_objects
from ptycho_core.physics.forward import expected_counts
from ptycho_core.physics.patches import extract
from ptycho_core.physics.probe import add_modes, aperture_probe
from ptycho_core.report import RunRecord, run_summary, write_results
from ptycho_core.report_figures import complex_colours, object_view, probe_figure, scale_bar
from ptycho_core.report_plots import (
    frame_r_factors,
    frc_figure,
    losses_figure,
    patterns_figure,
    predicted_counts,
    r_map_figure,
    typical_frames,
)
from ptycho_core.stitching import Stitcher, finish_reconstruction, probe_weights

N = 32
FILES = {
    "object_amplitude.png", "object_phase.png", "probe.png", "coverage.png", "losses.png", "r_map.png", "patterns.png",
    "reconstruction.h5", "report.html", "summary.json",
}  # fmt: skip


def make_scan(*, pixel_size_m: float | None = None, noise: bool = True) -> tuple[RawData, Reconstruction]:
    """A two-mode scan of a non-square object with a mask, a background, an empty frame and sub-pixel positions."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0:7, 0:11] * 5.0
    positions = np.stack([y.ravel(), x.ravel()], axis=1) + rng.uniform(-1.5, 1.5, (77, 2)) + (-40.0, 12.0)
    probe = add_modes(aperture_probe(N, 9.0, inner_radius_px=3.0, defocus_px2=60.0), 2, fraction=0.2)
    corners, rest = integer_corners(positions, N)
    origin = corners.min(axis=0)
    shape = tuple(corners.max(axis=0) - origin + N)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    truth = (0.8 + 0.2 * np.sin(rows / 5)) * np.exp(1j * (0.6 * np.sin(columns / 4 + rows / 9)))
    background = np.full((N, N), 0.2, dtype=np.float32)
    rate = expected_counts(extract(truth, corners - origin, N), probe, rest, 2e4, background)
    counts = rng.poisson(rate).astype(np.float32) if noise else rate.astype(np.float32)
    counts[5] = 0
    mask = np.ones((N, N), dtype=bool)
    mask[3:6, 20:22] = False
    raw = RawData.from_arrays(
        counts,
        positions,
        probe,
        mask=mask,
        background=background,
        geometry=Geometry(pixel_size_m=pixel_size_m),
        source=Source(path="scan <one>.npz", assumptions=("read as & counts",), warnings=("saturated pixels",)),
    )
    stitcher = Stitcher.for_scan(raw)
    stitcher.add(extract(truth.astype(np.complex64), corners - origin, N), probe_weights(probe, rest), corners)
    obj, coverage = stitcher.finish(float(np.sum(np.abs(probe) ** 2, axis=0).max()))
    container = PtychoDataContainer.for_reconstruction(raw, 8)
    return raw, finish_reconstruction(obj, coverage, stitcher.origin_px, probe, 2e4, container)


def make_record(raw: RawData, reconstruction: Reconstruction, **changes: Any) -> RunRecord:
    values: dict[str, Any] = {
        "title": "Scan <1> & more",
        "reconstruction": reconstruction,
        "raw": raw,
        "config": TrainingConfig(epochs=3, model=ModelConfig(width=7)),
        "history": {"train_loss": [0.5, 0.2, 0.1], "test_loss": [0.6, 0.3, 0.2]},
        "engine": "pytorch",
        "versions": {"numpy": "2.0"},
        "seconds": {"read": 0.25, "train": 3.5},
        "peak_memory_bytes": 123_000_000,
        "warnings": ("<script>alert(1)</script>",),
        "heldout": np.array([2, 5, 40]),
        "provenance": {"seed": np.int64(3)},
    }
    return RunRecord(**(values | changes))


@pytest.fixture(scope="module")
def scan() -> tuple[RawData, Reconstruction]:
    return make_scan(pixel_size_m=26e-9)


@pytest.fixture(scope="module")
def results(scan: tuple[RawData, Reconstruction], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_results(tmp_path_factory.mktemp("results") / "new", make_record(*scan))


def pixels(png: bytes) -> NDArray[np.float32]:
    """(h, w, 3) values 0..1 of a PNG."""
    from matplotlib.image import imread

    return np.asarray(imread(io.BytesIO(png)), dtype=np.float32)[..., :3]


# ---- files --------------------------------------------------------------------------------------------------------


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
    import os

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


# ---- report -------------------------------------------------------------------------------------------------------


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


# ---- pictures -----------------------------------------------------------------------------------------------------


def test_view_removes_the_global_phase_and_keeps_the_rest() -> None:
    rng = np.random.default_rng(1)
    phase = rng.normal(0, 0.3, (60, 90)) + 0.5 * (np.arange(90) > 60)
    obj = (1.5 * np.exp(1j * (phase + 3.0))).astype(np.complex64)
    view = object_view(obj, np.ones(obj.shape, dtype=np.float32))
    assert np.nanmedian(view.phase) == pytest.approx(0, abs=1e-5)
    shown = view.phase[~np.isnan(view.phase)]
    rows, columns = view.corner_px
    expected = phase[rows : rows + view.phase.shape[0], columns : columns + view.phase.shape[1]]
    difference = shown - expected[~np.isnan(view.phase)]
    assert np.ptp(difference) < 1e-5  # nothing but a constant was removed
    assert view.removed_phase_rad == pytest.approx(np.angle(np.exp(1j * (3.0 - difference[0]))), abs=1e-5)
    assert not view.phase_wraps


def test_view_crops_to_the_covered_region_and_ignores_the_rim() -> None:
    obj = np.full((80, 120), 100 * np.exp(2.5j), dtype=np.complex64)  # garbage where nothing was lit
    coverage = np.zeros((80, 120), dtype=np.float32)
    coverage[20:50, 30:90] = 6.0
    obj[20:50, 30:90] = np.linspace(0.9, 1.1, 60)
    coverage[:10, :10] = 0.05
    view = object_view(obj, coverage)
    assert abs(view.corner_px[0] - 20) <= 2
    assert abs(view.corner_px[1] - 30) <= 2
    assert abs(view.amplitude.shape[0] - 30) <= 4
    # the outermost pixels of the region may be garbage, a few per cent of it: the percentiles see to the rest
    inner = view.amplitude[4:-4, 4:-4]
    assert inner.min() >= 0.9
    assert inner.max() <= 1.1 + 1e-6
    assert 0.5 < view.coverage_threshold < 0.7


def test_limits_do_not_follow_a_wild_pixel_and_never_meet() -> None:
    obj = np.ones((50, 50), dtype=np.complex64)
    obj[25, 25] = 1000
    view = object_view(obj, np.ones(obj.shape, dtype=np.float32))
    low, high = view.amplitude_limits
    assert 0.9 < low < 1 < high < 1.1
    assert view.phase_limits[0] < 0 < view.phase_limits[1]


def test_a_phase_that_goes_around_gets_the_whole_circle() -> None:
    ramp = np.exp(1j * np.linspace(0, 6 * math.pi, 100))[None, :].repeat(40, axis=0).astype(np.complex64)
    view = object_view(ramp, np.ones(ramp.shape, dtype=np.float32))
    assert view.phase_wraps
    assert view.phase_limits == (-math.pi, math.pi)


def test_a_large_object_is_averaged_within_its_covered_pixels() -> None:
    obj = np.full((100, 3000), 2.0, dtype=np.complex64)
    obj[:, 1500:] = 4.0
    view = object_view(obj, np.ones(obj.shape, dtype=np.float32))
    assert view.step_px == 3
    assert view.amplitude.shape == (34, 1000)
    assert (np.nanmin(view.amplitude), np.nanmax(view.amplitude)) == (2.0, 4.0)


def test_nothing_lit_shows_everything() -> None:
    obj = np.ones((20, 30), dtype=np.complex64)
    view = object_view(obj, np.zeros((20, 30), dtype=np.float32))
    assert view.amplitude.shape == (20, 30)
    assert not np.isnan(view.amplitude).any()


@pytest.mark.parametrize(
    ("width_px", "pixel_size_m", "length_px", "label"),
    [
        (200, None, 50, "50 px"),
        (64, None, 20, "20 px"),
        (300, None, 100, "100 px"),
        (200, 26e-9, 1e-6 / 26e-9, "1 µm"),
        (64, 26e-9, 500e-9 / 26e-9, "500 nm"),
        (100, 3e-11, 1e-9 / 3e-11, "1 nm"),
        (50, 3e-11, 500e-12 / 3e-11, "500 pm"),
        (1000, 1e-5, 200, "2 mm"),
    ],
)
def test_scale_bar_is_round_and_at_most_a_third(
    width_px: float, pixel_size_m: float | None, length_px: float, label: str
) -> None:
    length, text = scale_bar(width_px, pixel_size_m)
    assert length == pytest.approx(length_px)
    assert text == label
    assert width_px / 8 < length <= width_px / 3 * (1 + 1e-9)


def test_complex_colours_turn_with_the_phase_and_dim_with_the_amplitude() -> None:
    red, green, blue = (complex_colours(np.exp(2j * math.pi * k / 3) * np.ones(1), 1.0)[0] for k in range(3))
    assert np.argmax(red) == 0
    assert np.argmax(green) == 1
    assert np.argmax(blue) == 2
    np.testing.assert_allclose(complex_colours(np.array([0.25j]), 1.0), complex_colours(np.array([1j]), 1.0) / 4)
    assert complex_colours(np.zeros((2, 2), complex), 0.0).max() == 0


def test_many_modes_are_limited_to_the_strongest() -> None:
    probe = add_modes(aperture_probe(N, 9.0), 11, fraction=0.02)
    assert pixels(probe_figure(probe, None)).shape == pixels(probe_figure(probe[:8], None)).shape


def test_predicted_counts_are_those_of_the_oracle() -> None:
    raw, reconstruction = make_scan(noise=False)
    frames = np.array([0, 33, 76])
    # the true scale: the best one makes up for the empty frame
    predicted = predicted_counts(dataclasses.replace(reconstruction, scale=2e4), raw, frames)
    good = raw.mask
    assert good is not None
    np.testing.assert_allclose(predicted[:, good], raw.read_counts(frames)[:, good], rtol=2e-4, atol=1e-3)


def test_typical_frames_leave_out_frames_without_counts(scan: tuple[RawData, Reconstruction]) -> None:
    _, reconstruction = scan
    r = frame_r_factors(reconstruction)
    assert np.flatnonzero(np.isnan(r)).tolist() == [5]
    known = np.delete(r, 5)
    names, frames = zip(*typical_frames(reconstruction), strict=True)
    assert names == ("best", "median", "worst")
    assert r[list(frames)].tolist() == [known.min(), np.sort(known)[38], known.max()]


def test_patterns_of_a_wrong_object_look_different(scan: tuple[RawData, Reconstruction]) -> None:
    raw, reconstruction = scan
    wrong = dataclasses.replace(reconstruction, object=np.conj(reconstruction.object[:, ::-1]).copy())
    assert np.abs(pixels(patterns_figure(reconstruction, raw)) - pixels(patterns_figure(wrong, raw))).mean() > 0.01


def test_pictures_of_odd_runs_are_drawn(scan: tuple[RawData, Reconstruction]) -> None:
    raw, reconstruction = scan
    poisson = losses_figure({"train_loss": [1.0, -2.0, -3.0], "learning_rate": [1.0] * 3})
    assert pixels(poisson).std() > 0.02
    assert pixels(losses_figure({"train_loss": [float("nan")]})).std() > 0.005
    empty = dataclasses.replace(reconstruction, frame_totals=np.zeros(77), frame_misfit=np.zeros(77))
    assert pixels(r_map_figure(empty, None)).std() > 0.02
    assert typical_frames(empty) == []
    assert pixels(patterns_figure(empty, raw)).std() > 0.005


def test_figures_are_safe_in_threads_and_leave_matplotlib_alone(scan: tuple[RawData, Reconstruction]) -> None:
    import matplotlib

    raw, reconstruction = scan
    settings = dict(matplotlib.rcParams)
    alone = r_map_figure(reconstruction, None), patterns_figure(reconstruction, raw)
    together: list[tuple[bytes, bytes]] = []
    threads = [
        threading.Thread(
            target=lambda: together.append((r_map_figure(reconstruction, None), patterns_figure(reconstruction, raw)))
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == [alone] * 3
    assert dict(matplotlib.rcParams) == settings


def test_import_is_light_and_pyplot_is_never_loaded(tmp_path: Path) -> None:
    code = (
        "import sys, ptycho_core.report, ptycho_core.report_figures as f, ptycho_core.report_plots as p\n"
        "assert not {'matplotlib', 'h5py', 'scipy', 'skimage'} & set(sys.modules), 'heavy import'\n"
        "p.losses_figure({'train_loss': [2.0, 1.0]})\n"
        "assert 'matplotlib.figure' in sys.modules and 'matplotlib.pyplot' not in sys.modules, 'pyplot'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


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


def test_frc_figure_draws_each_curve(scan: tuple[RawData, Reconstruction]) -> None:
    _, r = scan
    noisy = (r.object + 0.05 * np.random.default_rng(2).normal(size=r.object.shape)).astype(np.complex64)
    curve = compare_objects(noisy, r.origin_px, r.object, r.origin_px, coverage=r.coverage).frc
    one, two = (
        frc_figure({"a": curve}),
        frc_figure({"a": curve, "b": dataclasses.replace(curve, correlation=curve.correlation / 2)}),
    )
    assert np.abs(pixels(one) - pixels(two)).max() > 0.3
