"""Several images beside each other: whatever they lie in, scored as two are, and put on the same pixels."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_scan import make_run, make_scored

from ptycho_core.api.compare import _told_apart, compare, compare_images
from ptycho_core.cli import main as cli
from ptycho_core.data.compared import ComparedImage
from ptycho_core.data.raw import Geometry, ObjectGuess
from ptycho_core.data.results import Scored
from ptycho_core.errors import ConfigError, DataError, EvaluationError
from ptycho_core.io.export import export_reconstruction, read_result
from ptycho_core.io.reconstruction_file import write_reconstruction
from ptycho_core.io.stored_images import read_image
from ptycho_core.physics.gauge import ramp_wave
from ptycho_core.report.comparison import comparison_page, figures_table


def blurred(obj: np.ndarray, width: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return (gaussian_filter(obj.real, width) + 1j * gaussian_filter(obj.imag, width)).astype(np.complex64)


@pytest.fixture(scope="module")
def scored() -> Scored:
    return make_scored(pixel_size_m=26e-9, noise=False)


@pytest.fixture(scope="module")
def folder(scored: Scored, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Result folders ``good``, ``soft`` and ``turned``: the first by another phase, ramp, scale and place."""
    root = tmp_path_factory.mktemp("compared")
    image = scored.image
    wave = ramp_wave((0.02, -0.01), (0.0, 0.0), image.object.shape)
    images = {
        "good": image,
        "soft": replace(image, object=blurred(image.object, 1.6)),
        "turned": replace(
            image,
            object=np.pad((1.3 * image.object * wave * np.exp(2j)).astype(np.complex64), ((2, 0), (0, 3))),
            coverage=np.pad(image.coverage, ((2, 0), (0, 3))),
            origin_px=image.origin_px - (2, 0),
        ),
    }
    for name, made in images.items():
        (root / name).mkdir()
        run = make_run(replace(scored, image=made), title=name, seconds={"total": 12.0})
        run = replace(run, provenance={**run.provenance, "engine": {"name": f"engine of {name}"}})
        write_reconstruction(root / name / "reconstruction.h5", run)
    return root


@pytest.mark.spec("CMD-30")
def test_each_is_scored_against_the_last_in_the_way_that_two_are(folder: Path) -> None:
    names = [folder / name for name in ("soft", "turned", "good")]
    found = compare_images(names)
    assert found.reference is found.images[-1]
    assert not found.is_truth
    assert found.scores[2] is None
    for name, score in zip(names[:2], found.scores, strict=False):
        assert score is not None
        assert score.to_mapping() == compare(name, folder / "good").to_mapping()
    assert found.scores[0].correlation < 0.9995 < found.scores[1].correlation
    assert set(found.pairs) == {(0, 1), (0, 2), (1, 2)}
    assert found.pairs[1, 2].correlation == found.scores[1].correlation
    assert found.pairs[0, 1].correlation == pytest.approx(compare(names[0], names[1]).correlation)


def test_two_have_no_pairs_and_one_needs_a_truth(folder: Path, scored: Scored) -> None:
    assert compare_images([folder / "soft", folder / "good"]).pairs == {}
    with pytest.raises(ConfigError, match="a truth"):
        compare_images([folder / "soft"])
    truth = ObjectGuess(object=scored.image.object, origin_px=scored.image.origin_px)
    found = compare_images([folder / "turned"], truth)
    assert found.is_truth
    assert found.scores[0] is not None
    assert found.scores[0].correlation > 0.999


def test_images_are_put_on_the_pixels_phase_ramp_and_scale_of_the_reference(folder: Path) -> None:
    found = compare_images([folder / "turned", folder / "good"])
    moved, reference = found.aligned[0], found.reference_object
    assert moved is not None
    assert reference is not None
    assert moved.shape == reference.shape
    known = np.isfinite(moved)
    assert known.sum() > 1000
    assert np.abs(moved - reference)[known].max() < 0.02 * np.abs(reference[known]).max()


def test_what_the_files_tell_stands_beside_the_scores(folder: Path, scored: Scored) -> None:
    image = read_image(folder / "soft")
    assert image.engine == "engine of soft"
    assert image.figure("train", "deviance") == scored.train.deviance
    assert image.figure("heldout", "r_factor") == scored.heldout.r_factor
    assert image.seconds == 12.0
    assert image.pixel_size_m == 26e-9
    assert image.positions_px.shape == (len(scored.scan.used_frames), 2)
    heads, rows = figures_table((image, replace(image, name="bare", figures={}, engine="", seconds=None)))
    assert heads == ["image", "engine", "deviance", "held out", "R-factor", "Fourier error", "time"]
    assert rows[1] == ("bare", "–", "–", "–", "–", "–", "–")
    assert figures_table((replace(image, figures={}, engine="", seconds=None),))[1] == []


def test_a_product_of_ptychodus_is_an_image_in_its_place(folder: Path, tmp_path: Path) -> None:
    given = Geometry(energy_eV=8801.5, distance_m=2.0, detector_pixel_size_m=75e-6)
    stored = read_result(folder / "good", Geometry(energy_eV=8801.5, distance_m=2.0))
    assert given.energy_eV == stored.geometry.energy_eV
    half = np.sqrt(stored.object).astype(np.complex64)
    stored = replace(stored, slices=np.stack([half, half]), slice_spacing_m=1e-6)
    export_reconstruction(tmp_path / "p.h5", stored, format="ptychodus_product")
    image = read_image(tmp_path / "p.h5")
    np.testing.assert_allclose(image.object, stored.object, atol=1e-5)
    np.testing.assert_allclose(image.origin_px, stored.origin_px, atol=1e-6)
    np.testing.assert_allclose(image.positions_px, stored.positions_px, atol=1e-6)
    assert compare(tmp_path / "p.h5", folder / "good").correlation > 0.9999


@pytest.mark.spec("CMD-30")
def test_what_cannot_be_scored_costs_itself_alone(folder: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "flat.npz", object=np.ones((80, 80), np.complex64), origin_px=np.array([-55.0, -4.0]))
    found = compare_images([tmp_path / "flat.npz", folder / "soft", folder / "good"])
    assert found.scores[0] is None
    assert found.scores[1] is not None
    assert "constant" in found.reasons[str(tmp_path / "flat.npz")]
    assert set(found.pairs) == {(1, 2)}
    assert "Not scored" in comparison_page(found)
    with pytest.raises(EvaluationError, match="constant"):
        compare_images([tmp_path / "flat.npz", folder / "good"])


def test_a_folder_without_an_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a folder without reconstruction\.h5"):
        read_image(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        read_image(tmp_path / "gone.h5")


@pytest.mark.spec("CMD-30")
def test_the_command_prints_tables_and_writes_a_page(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    names, out = ["soft", "turned", "good"], str(tmp_path / "made" / "page")
    assert cli.main(["compare", *names, "--out", out]) == 0
    text = capsys.readouterr().out
    assert "engine of turned" in text
    assert "against good" in text
    assert text.count("soft") > 3
    page = (tmp_path / "made" / "page" / "comparison.html").read_text(encoding="utf-8")
    assert "script-src 'sha256-" in page
    assert page.count("data:image/png;base64,") == 2 * 3 + 2 * 2 + 1  # images, differences, ring correlations
    assert "ptycho compare soft turned good --out" in re.sub(r"<wbr>|</?span[^>]*>", "", page)
    numbers = json.loads((tmp_path / "made" / "page" / "comparison.json").read_text(encoding="utf-8"))
    assert list(numbers["scores"]) == ["soft", "turned"]
    assert len(numbers["pairs"]) == 3
    assert cli.main(["compare", *names, "--out", out]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert cli.main(["compare", *names, "--out", out, "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == numbers  # one document, and nothing after it
    assert cli.main(["compare", "soft", "good", "--overwrite"]) == 2
    assert "--out" in capsys.readouterr().err


def test_a_failure_leaves_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    from ptycho_core.report import comparison

    def broken(*_: object) -> str:
        raise MemoryError

    obj = (1 + np.random.default_rng(1).normal(size=(80, 90)) * 0.3).astype(np.complex64)
    np.savez(tmp_path / "a.npz", object=obj)
    np.savez(tmp_path / "b.npz", object=obj * 1j)
    monkeypatch.setattr(comparison, "comparison_page", broken)
    assert cli.main(["compare", str(tmp_path / "a.npz"), str(tmp_path / "b.npz"), "--out", str(tmp_path / "x")]) != 0
    assert not (tmp_path / "x").exists()


def test_names_of_files_only_show(folder: Path, tmp_path: Path) -> None:
    wicked = tmp_path / "<script>alert(1)<script>.h5"
    wicked.write_bytes((folder / "soft" / "reconstruction.h5").read_bytes())
    found = compare_images([wicked, wicked, folder / "good"])
    assert len({image.name for image in found.images}) == 3
    page = comparison_page(found, ("compare", str(wicked)))
    assert "<script>alert" not in page
    assert page.count("<script>") == 1


@pytest.mark.spec("CMD-30")
def test_what_cannot_be_shown_or_placed_costs_itself_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    obj = blurred(rng.normal(size=(64, 76)) + 1j * rng.normal(size=(64, 76)), 1.5)
    broken = np.pad(obj, ((0, 0), (0, 30)), constant_values=np.nan)  # beyond what the others have
    images = {"good": (obj, 0.0), "other": (obj * 1j, 0.0), "broken": (broken, 0.0), "lost": (obj, np.nan)}
    for name, (values, at) in images.items():
        np.savez(tmp_path / f"{name}.npz", object=values, origin_px=[at, 0.0])
    found = compare_images([tmp_path / f"{name}.npz" for name in ("broken", "lost", "other", "good")])
    broken_score, lost_score, other_score, _ = found.scores
    assert broken_score is not None
    assert other_score is not None
    assert lost_score is None
    assert "must be finite" in found.reasons[str(tmp_path / "lost.npz")]
    assert "NaN" in found.reasons[f"{tmp_path / 'broken.npz'}, as a picture"]
    assert [image is None for image in found.aligned] == [True, True, False, False]
    assert "as a picture" in comparison_page(found)


def test_images_of_one_name_are_told_apart() -> None:
    given = [
        ComparedImage(name=name, object=np.ones((8, 9), np.complex64), origin_px=np.zeros(2))
        for name in ("a", "a (2)", "a", "a")
    ]
    assert [image.name for image in _told_apart(given)] == ["a", "a (2)", "a (3)", "a (4)"]


def test_what_is_not_defined_says_why_and_no_error_is_said_as_that(folder: Path, tmp_path: Path) -> None:
    """A pure phase object has no contrast of amplitude to score by; an image beside itself has no error."""
    from ptycho_core.cli.compare import _rows
    from ptycho_core.report.comparison import pairs_table, why_not_defined
    from ptycho_core.report.resolution import comparison_rows

    wave = np.exp(1j * np.angle(read_image(folder / "good").object)).astype(np.complex64)
    for name in ("one", "two", "three"):
        np.savez(tmp_path / f"{name}.npz", object=wave, origin_px=np.array([-55.0, -4.0]))
    found = compare_images([tmp_path / f"{name}.npz" for name in ("one", "two", "three")])
    score = found.scores[0]
    score = replace(score, amplitude_psnr_db=math.nan, amplitude_ssim=math.nan, phase_psnr_db=math.inf)
    found = replace(found, scores=(score, score, None), pairs={(0, 1): score})
    text = [" ".join(row) for row in _rows({"a": score})]
    assert text[1:5] == [
        "amplitude PSNR not defined", "phase PSNR no error", "amplitude SSIM not defined",
        f"phase SSIM {score.phase_ssim:.4f}",
    ]  # fmt: skip
    assert comparison_rows(score, None)[:3] == [
        ("Amplitude PSNR", "not defined"), ("Phase PSNR", "no error"), ("Amplitude SSIM", "not defined"),
    ]  # fmt: skip
    assert pairs_table(found)[1][0][3] == "no error"
    (why,) = why_not_defined(found)
    assert "scores of the amplitude need contrast" in why
    page = comparison_page(found)
    assert why in page
    assert ">nan<" not in page.lower()
    assert "inf dB" not in page
    whole = compare_images([folder / "turned", folder / "soft", folder / "good"])
    assert why_not_defined(whole) == []
    assert "Not defined" not in comparison_page(whole)


@pytest.mark.spec("NOTE-1", "NOTE-2")
def test_what_was_compared_shows_itself_in_a_line_and_a_card(folder: Path, tmp_path: Path) -> None:
    import ptycho_core

    np.savez(tmp_path / "flat.npz", object=np.ones((80, 80), np.complex64), origin_px=np.array([-55.0, -4.0]))
    found = ptycho_core.compare_images([folder / "soft", tmp_path / "flat.npz", folder / "turned", folder / "good"])
    good, soft = str(folder / "good"), str(folder / "soft")
    assert repr(found) == f"ComparedImages(4 images, against '{good}', 1 not scored)"
    score = found.scores[0]
    assert repr(score).startswith(f"Comparison(amplitude PSNR {score.amplitude_psnr_db:.1f} dB, phase PSNR ")
    assert "FourierRingCorrelation(" in repr(score)
    assert "nan" not in repr(replace(score, amplitude_psnr_db=math.nan))
    assert repr(found.images[0]) == f"ComparedImage('{soft}', engine of soft, object 65×85 px)"
    for value in (found, score, *found.images):
        assert "\n" not in repr(value)
        assert "array" not in repr(value)
    card = found._repr_html_()
    assert f"against {good}" in card
    assert f"{score.amplitude_psnr_db:.2f} dB" in card
    assert "not scored (1)" in card
    assert f"{found.pairs[(0, 2)].correlation:.4f}" in card
    assert f"{score.correlation:.4f}" in score._repr_html_()
    wicked = replace(found, images=tuple(replace(i, name="<script>x</script>") for i in found.images))
    assert "<script" not in wicked._repr_html_()
