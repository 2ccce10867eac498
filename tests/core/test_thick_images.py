"""Slices, weights of modes and an engine's own forward model come through border, score, bundle, file and report."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from report_scan import make_raw, make_run, make_scored, pixels

from ptycho_core.api.compare import compare
from ptycho_core.api.score import oracle_counts, score
from ptycho_core.bundle import read_bundle
from ptycho_core.config import InferenceConfig, TrainingConfig
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.results import Image, Scored
from ptycho_core.enginekit.solver_model import SolverModel, load_solver, reconstruct_solved, save_solver
from ptycho_core.errors import ArchiveError, BackendError, BackendProtocolError, DataError
from ptycho_core.io.reconstruction_file import read_reconstruction, write_reconstruction
from ptycho_core.plugins.returned import check_image
from ptycho_core.protocol import no_progress
from ptycho_core.report.extras import slices_figure
from ptycho_core.report.write import run_summary, write_results

CONFIG = TrainingConfig(backend="slab", epochs=2)
M = 77


@pytest.fixture(scope="module")
def scored() -> Scored:
    return make_scored(pixel_size_m=26e-9)


def thick(image: Image, **changes: Any) -> Image:
    """The image in three slices that differ, with weights that go down to −0.4."""
    rng = np.random.default_rng(4)
    shares = np.exp(1j * rng.normal(size=(2, *image.object.shape))).astype(np.complex64)
    slices = np.stack([image.object / np.prod(shares, axis=0), *shares]).astype(np.complex64)
    weights = np.stack([np.ones(M), np.linspace(-0.4, 0.4, M)], axis=1).astype(np.float32)
    given: dict[str, Any] = {
        "object": np.prod(slices, axis=0), "slices": slices, "slice_spacing_m": 3e-5, "mode_weights": weights,
        "forward_model": "slab",
    }  # fmt: skip
    return replace(image, **(given | changes))


class Slab:
    """An engine whose forward model is the oracle's times a number that tells that it was asked."""

    name = "slab"

    def expected_counts(self, image: Image, scan: PtychoDataContainer, frames: np.ndarray) -> np.ndarray:
        assert image.slices is not None
        return 0.5 * oracle_counts(replace(image, mode_weights=None), scan, frames)


@pytest.mark.spec("FM-5", "DATA-23")
def test_the_oracle_takes_of_each_mode_what_the_frame_takes(scored: Scored) -> None:
    """λ_j = s Σ_p w_jp |F ψ_jp|² + b, of one mode alone and of both."""
    image, scan, frames = scored.image, scored.scan, np.array([7, 1, 30])
    level = scan.raw.background
    weights = np.random.default_rng(1).uniform(0, 2, (M, 2)).astype(np.float32)
    found = oracle_counts(replace(image, mode_weights=weights), scan, frames)
    each = [oracle_counts(replace(image, probe=image.probe[p : p + 1]), scan, frames) - level for p in range(2)]
    wanted = sum(weights[frames, p, None, None].astype(float) * each[p] for p in range(2)) + level
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert np.abs(found - oracle_counts(image, scan, frames)).max() > 1


@pytest.mark.spec("DATA-23", "DATA-20")
def test_an_image_of_an_engines_own_physics_is_scored_by_it_or_refused_by_name(scored: Scored) -> None:
    image, scan = thick(scored.image), scored.scan
    done = score(image, scan, "slab", Slab())
    plain = score(replace(scored.image, scale=image.scale), scan, "x")
    assert done.image.scale == pytest.approx(2 * plain.image.scale, rel=0.03)  # but for the background
    for other in (None, type("Other", (), {"name": "other", "expected_counts": Slab.expected_counts})()):
        with pytest.raises(BackendError, match=r"forward model of engine 'slab' alone.*load_backend\('slab'\)"):
            score(image, scan, "slab", other)
    with pytest.raises(BackendProtocolError, match=r"engine 'slab': .* it has none; it must have expected_counts"):
        score(image, scan, "slab", type("Mute", (), {"name": "slab"})())


@pytest.mark.spec("DATA-23")
def test_a_thick_image_passes_the_border(scored: Scored) -> None:
    image = thick(scored.image)
    assert check_image(image, scored.scan, "slab", 0.0) is image
    weighted = replace(scored.image, mode_weights=np.full((M, 2), 0.7, np.float32))
    assert check_image(weighted, scored.scan, "slab", 0.0) is weighted


def broken(**changes: Any) -> Any:
    return lambda image: thick(image, **changes)


@pytest.mark.spec("DATA-23", "BE-5")
@pytest.mark.parametrize(
    ("spoil", "kind", "words"),
    [
        (broken(slices=None), BackendProtocolError, "slice_spacing_m = 3e-05 without slices"),
        (broken(slice_spacing_m=None), BackendProtocolError, "slice_spacing_m = None; with slices"),
        (broken(slice_spacing_m=-1e-6), BackendProtocolError, "slice_spacing_m = -1e-06"),
        (broken(forward_model=""), BackendProtocolError, "mode_weights go down to -0.4"),
        (broken(forward_model="", mode_weights=None), BackendProtocolError, "3 slices.*forward_model must be 'slab'"),
        (broken(forward_model="other"), BackendProtocolError, "forward_model = 'other'; it must be 'slab'"),
        (broken(forward_model=None), BackendProtocolError, "forward_model = None"),
        (broken(mode_weights=np.ones((M, 1), np.float32)), BackendProtocolError, r"mode_weights is .*\(77, 2\)"),
        (broken(mode_weights=np.ones((M, 2))), BackendProtocolError, "mode_weights is float64"),
        (broken(mode_weights=np.full((M, 2), np.nan, np.float32)), BackendError, "mode_weights holds 154 NaN"),
        (
            lambda i: replace(thick(i), slices=thick(i).slices[:, 1:]),
            BackendProtocolError,
            "the slices is complex64",
        ),
        (
            lambda i: replace(thick(i), slices=thick(i).slices * np.complex64(1.0005)),
            BackendProtocolError,
            "product of the slices differs from the object by up to 0.001",
        ),
    ],
)  # fmt: skip
def test_what_breaks_the_contract_is_named(scored: Scored, spoil: Any, kind: type, words: str) -> None:
    with pytest.raises(kind, match=rf"engine 'slab'.*{words}"):
        check_image(spoil(scored.image), scored.scan, "slab", 0.0)


@pytest.fixture
def model(scored: Scored) -> SolverModel:
    return SolverModel.of_image(
        thick(scored.image), backend="slab", config=CONFIG, history={"train_loss": [1.0, 0.5]},
        statistics=scored.scan.statistics,
    )  # fmt: skip


@pytest.mark.spec("DATA-23", "BUNDLE-2", "BUNDLE-9")
def test_a_bundle_brings_everything_back(model: SolverModel, tmp_path: Path) -> None:
    save_solver(model, tmp_path / "m", ("numpy",))
    found = load_solver(tmp_path / "m", "slab")
    for name in ("object", "slices", "mode_weights", "probe"):
        np.testing.assert_array_equal(getattr(found, name), getattr(model, name), name)
        assert getattr(found, name).dtype == getattr(model, name).dtype
    assert (found.slice_spacing_m, found.forward_model) == (3e-5, "slab")
    thin = replace(model, slices=None, slice_spacing_m=None, mode_weights=None, forward_model="")
    save_solver(thin, tmp_path / "n", ("numpy",))
    found = load_solver(tmp_path / "n", "slab")
    assert (found.slices, found.slice_spacing_m, found.mode_weights, found.forward_model) == (None, None, None, "")
    assert set(read_bundle(tmp_path / "n").weights) == {"object", "origin_px"}


@pytest.mark.spec("BUNDLE-8", "BUNDLE-9")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"slice_spacing_m": None}, r"slices are .*None m apart"),
        ({"slices": None}, "slices are none, 3e-05 m apart"),
        ({"mode_weights": np.ones((M, 3), np.float32)}, r"mode_weights are \(77, 3\)"),
        ({"slices": np.ones((2, 5, 5), np.complex64)}, r"slices are \(2, 5, 5, 2\)"),
        ({"slice_spacing_m": math.inf}, "slice_spacing_m = inf"),
        ({"forward_model": "another"}, "forward_model = 'another'; it must be 'slab'"),
    ],
)
def test_a_bundle_that_contradicts_itself_is_refused(
    model: SolverModel, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    def write_and_read() -> None:
        save_solver(replace(model, **changes), tmp_path / "m", ("numpy",))
        load_solver(tmp_path / "m", "slab")

    with pytest.raises(ArchiveError, match=words):
        write_and_read()


@pytest.mark.spec("DATA-23", "BE-10")
def test_a_thick_object_is_cut_out_of_a_model_slice_by_slice(scored: Scored, model: SolverModel) -> None:
    """Slices and product lie where the object does, on a canvas that is smaller than the model's by unequal margins."""
    pad = ((0, 0), (3, 1), (2, 4))
    assert model.slices is not None
    wide = replace(
        model, slices=np.pad(model.slices, pad, constant_values=1), object=np.pad(model.object, pad[1:]),
        origin_px=model.origin_px - (3, 2),
    )  # fmt: skip
    image = reconstruct_solved(wide, scored.scan, InferenceConfig(), no_progress)
    check_image(image, scored.scan, "slab", 0.0)
    lit = image.coverage > 0
    np.testing.assert_array_equal(image.slices[:, lit], model.slices[:, lit])
    assert not image.slices[0, ~lit].any()  # nothing is known there, and light that was spread goes on
    assert (image.slices[1:, ~lit] == 1).all()
    assert not image.object[~lit].any()
    np.testing.assert_array_equal(image.mode_weights, model.mode_weights)
    assert (image.slice_spacing_m, image.forward_model) == (3e-5, "slab")
    fewer = PtychoDataContainer.of(make_raw().subset(np.arange(76)))
    with pytest.raises(DataError, match=r"76 frames, and the model of engine 'slab' holds .* for 77; .*Train on"):
        reconstruct_solved(model, fewer, InferenceConfig(), no_progress)


@pytest.mark.spec("DATA-21", "DATA-23")
def test_the_file_brings_everything_back(scored: Scored, tmp_path: Path) -> None:
    path, image = tmp_path / "r.h5", thick(scored.image)
    write_reconstruction(path, make_run(replace(scored, image=image)))
    stored = read_reconstruction(path)
    for name in ("slices", "mode_weights"):
        np.testing.assert_array_equal(getattr(stored, name), getattr(image, name))
        assert getattr(stored, name).dtype == getattr(image, name).dtype
    assert (stored.slice_spacing_m, stored.forward_model) == (3e-5, "slab")
    assert compare(path, scored).correlation == pytest.approx(1, abs=1e-4)  # images are compared by their products
    write_reconstruction(path, make_run(scored))
    stored = read_reconstruction(path)
    assert (stored.slices, stored.slice_spacing_m, stored.mode_weights, stored.forward_model) == (None, None, None, "")


@pytest.mark.spec("DATA-21", "DATA-23")
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("mode_weights", np.ones((M, 5)), r"mode_weights has shape \(77, 5\); it must be \(77, 2\)"),
        ("slices", np.ones((2, 4, 4), complex), r"slices has shape \(2, 4, 4\) and spacing_m None"),
        ("forward_model", 3.0, "forward_model is not one text"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(
    scored: Scored, tmp_path: Path, name: str, value: Any, words: str
) -> None:
    path = tmp_path / "r.h5"
    write_reconstruction(path, make_run(replace(scored, image=thick(scored.image))))
    with h5py.File(path, "r+") as file:
        del file["entry"][name]
        file["entry"][name] = value
    with pytest.raises(DataError, match=words):
        read_reconstruction(path)


def test_the_report_shows_slices_and_weights(scored: Scored, tmp_path: Path) -> None:
    run = make_run(replace(scored, image=thick(scored.image)))
    write_results(tmp_path, run)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for words in (
        "3, 30 µm apart",
        "the forward model of engine slab alone",
        "a weight for each mode",
        "upstream first",
    ):
        assert words in page, words
    assert {"slices.png", "weights.png"} <= {path.name for path in tmp_path.iterdir()}
    summary = json.loads(json.dumps(run_summary(run)))
    assert (summary["slices"], summary["slice_spacing_m"], summary["forward_model"]) == (3, 3e-5, "slab")
    intensity = replace(scored.image, mode_weights=np.repeat(np.linspace(0.9, 1.1, M, dtype=np.float32)[:, None], 2, 1))
    page_of = tmp_path / "second"
    page_of.mkdir()
    write_results(page_of, make_run(replace(scored, image=intensity)))
    page = (page_of / "report.html").read_text(encoding="utf-8")
    assert f"intensity ± {np.std(intensity.mode_weights[:, 0]):.2%}" in page
    assert "the weighted sum of what its modes give" in page
    assert not (page_of / "slices.png").exists()


def test_a_slice_is_drawn_as_what_it_is(scored: Scored) -> None:
    """Each slice has its own pictures: another second slice changes the second row only."""
    image = thick(scored.image)
    assert image.slices is not None
    other = image.slices.copy()
    other[1] = other[1].conj()
    before, after = (pixels(slices_figure(i, None)) for i in (image, replace(image, slices=other)))
    changed = np.flatnonzero(np.abs(before - after).max(axis=(1, 2)) > 0)
    height = len(before)
    assert height / 3 * 0.95 < changed.min() < changed.max() < 2 * height / 3 * 1.05
