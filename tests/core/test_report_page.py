"""The page of a report: one script by its hash, all there without it, values in pictures, no wider than a phone."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import shutil
import struct
import subprocess
from html import escape
from pathlib import Path

import numpy as np
import pytest
from report_scan import SHAKEN, make_run, make_scored, pixels, refined_run

from ptycho_core.data.results import Refined, Scored
from ptycho_core.data.run import Run
from ptycho_core.evaluation.metrics import compare_objects
from ptycho_core.evaluation.positions import position_report
from ptycho_core.report.canvas import WIDEST_IN
from ptycho_core.report.curves import epochs_figure, epochs_told, losses_figure
from ptycho_core.report.extras import slices_figure, weights_figure
from ptycho_core.report.parts import words
from ptycho_core.report.plots import moves_figure
from ptycho_core.report.values import VALUES_KEY
from ptycho_core.report.write import write_results, write_summary

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)


@pytest.fixture(scope="module")
def scored() -> Scored:
    return make_scored(pixel_size_m=26e-9)


def full_run(scored: Scored) -> Run:
    """Refined, with positions that moved, halves, a truth, slices, weights, a command and nasty names."""
    image = scored.image
    rng = np.random.default_rng(5)
    moved = image.positions_px + rng.normal(0, 0.4, image.positions_px.shape)
    half = np.sqrt(image.object).astype(np.complex64)
    image = dataclasses.replace(
        image,
        positions_px=moved,
        slices=np.stack([half, half]),
        slice_spacing_m=2e-6,
        mode_weights=rng.uniform(0.8, 1.2, (len(moved), len(image.probe))).astype(np.float32),
    )
    run = refined_run(dataclasses.replace(scored, image=image))
    noisy = (image.object * np.exp(1j * rng.normal(0, 0.2, image.object.shape))).astype(np.complex64)
    compared = compare_objects(noisy, image.origin_px, image.object, image.origin_px, coverage=image.coverage)
    last = dataclasses.replace(run.stages[-1], comparison=compared, half_data_frc=compared.frc)
    first = dataclasses.replace(run.stages[0], half_data_frc=compared.frc)
    assert run.refined is not None
    used = scored.scan.used_frames
    nominal = scored.scan.raw.positions_px[used]
    history = {
        "train_loss": [-4.1, -4.2], "test_loss": [-4.0, -4.1],
        "train_deviance": [3.0, 1.5], "test_deviance": [4.0, 1.8],
    }  # fmt: skip
    refined: Refined = dataclasses.replace(
        run.refined, history=history, positions=position_report(nominal, moved[used], 2.0, affine=False)
    )
    command = ["run", "a file's <b>$(rm).npz", "--out", "x" * 90]
    return dataclasses.replace(
        run, stages=(first, last), refined=refined, provenance={**run.provenance, "command": command}
    )


@pytest.fixture(scope="module")
def folder(scored: Scored, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page")
    run = full_run(scored)
    write_results(root, run)
    write_summary(root, run)
    return root


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.spec("RES-14")
def test_the_policy_lets_the_pages_own_script_run_and_no_other(page: str) -> None:
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    (script,) = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy.replace("style-src 'unsafe-inline'", "")
    assert page.index("Content-Security-Policy") < page.index("<style>") < page.index("<script>")
    for word in ("innerHTML", "eval(", "fetch(", "XMLHttp", "document.write", "import("):
        assert word not in script


@pytest.mark.spec("RES-14")
def test_before_and_after_are_switched_without_a_script(page: str) -> None:
    body = page[page.index("<h1>") :]
    assert "hidden" not in body[: body.index("<script>")]
    assert re.findall(r'<input type="radio" name="stage" id="(stage-\d)"( checked)?>', body) == [
        ("stage-0", " checked"), ("stage-1", ""),
    ]  # fmt: skip
    assert '<label for="stage-0">After refining</label>' in body
    assert '<label for="stage-1">Before (network)</label>' in body
    style = page[page.index("<style>") : page.index("</style>")]
    assert ".switch > input:nth-of-type(2):checked ~ .side-1" in style


def test_the_verdict_comes_first_and_the_image_before_the_numbers_of_its_making(scored: Scored, tmp_path: Path) -> None:
    from ptycho_core.data.verdict import Verdict

    verdict = Verdict(kind="explained", sentence="explained to the noise", reasons=(), advice=(), figures={})
    write_results(tmp_path, dataclasses.replace(full_run(scored), verdict=verdict))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    order = ["Explained to the noise.", "2 warnings", "reduced deviance", "<h2>Object", "<h2>Resolution", "The command"]
    places = [page.index(text) for text in order]
    assert places == sorted(places)


def test_the_command_is_as_a_shell_takes_it_and_only_shows(page: str) -> None:
    (line,) = re.findall(r'<pre class="command">(.*?)</pre>', page)
    shown = re.sub(r"<wbr>|</?span[^>]*>", "", line)
    wanted = "ptycho run 'a file'\"'\"'s <b>$(rm).npz' --out " + "x" * 90
    assert shown == escape(wanted)


def test_files_beside_the_report_are_linked(page: str, folder: Path) -> None:
    linked = re.findall(r'<a href="([^"]+)">', page)
    assert linked[:2] == ["reconstruction.h5", "summary.json"]
    assert all((folder / name).is_file() for name in linked)
    assert "model.ptycho" not in linked  # there is none


def test_what_the_halves_share_is_said_and_half_bit_comes_first(page: str, scored: Scored) -> None:
    n = len(scored.scan.used_frames)
    assert f"Each half has {n // 2} of the {n} used frames" in page
    assert "share the probe that they began with, the positions as they were read" in page
    assert page.index("falls to the half-bit curve") < page.index("falls to 1/7")
    assert "Half period at half-bit" in page


def test_positions_are_told_in_nm(page: str) -> None:
    caption = page[page.index("From where each frame was read") :][:400]
    assert re.search(r"[\d.]+ nm rms, [\d.]+ nm at most", caption)


def values_in(png: bytes) -> list[dict]:
    at = 8
    while at < len(png):
        (size,), kind = struct.unpack(">I", png[at : at + 4]), png[at + 4 : at + 8]
        content = png[at + 8 : at + 8 + size]
        if kind == b"tEXt" and content.startswith(VALUES_KEY.encode() + b"\0"):
            return list(json.loads(content[len(VALUES_KEY) + 1 :]))
        if kind == b"IDAT":  # the page's script looks no further
            return []
        at += 12 + size
    return []


def test_pictures_carry_the_values_that_they_show(folder: Path, scored: Scored) -> None:
    (item,) = values_in((folder / "object_amplitude.png").read_bytes())
    coded = np.frombuffer(base64.b64decode(item["data"]), "<u2").reshape(item["shape"]).astype(float)
    values = np.where(
        coded > item["levels"], np.nan, item["low"] + (item["high"] - item["low"]) * coded / item["levels"]
    )
    from ptycho_core.report.figures import object_view

    view = object_view(scored.image.object, scored.image.coverage)
    np.testing.assert_allclose(values, view.amplitude, atol=1e-4)
    assert np.isnan(values).any()
    left, top, width, height = item["frame"]
    image = pixels((folder / "object_amplitude.png").read_bytes())
    row, column = int((top + height / 2) * image.shape[0]), int((left + width / 2) * image.shape[1])
    low, high = view.amplitude_limits
    shown = values[item["shape"][0] // 2, item["shape"][1] // 2]
    assert low < shown < high
    assert image[row, column, 0] < 1  # inside the picture
    (points,) = values_in((folder / "r_map.png").read_bytes())
    left, top, width, height = points["frame"]  # the map is the upper part of its picture, with a bar to its right
    assert top < 0.15
    assert 0.3 < height < 0.75
    assert left + width < 0.85
    assert points["texts"][33].startswith(f"frame {scored.scan.raw.frame_numbers[33]}: R ")
    assert points["texts"][SHAKEN[0]].endswith("not used")
    (curves,) = values_in((folder / "refinement.png").read_bytes())
    assert curves["curves"]["held out"] == [[1.0, 2.0], [4.0, 1.8]]


def test_epochs_are_told_as_deviance_where_it_is_known() -> None:
    assert epochs_told({"train_loss": [1.0], "test_deviance": [2.0]}) == "deviance"
    assert epochs_told({"train_loss": [1.0], "train_fourier_error": [2.0]}) == "fourier_error"
    assert epochs_told({"train_loss": [1.0], "test_deviance": []}) == "loss"
    unknown = {"train_loss": [1.0, float("nan")], "test_deviance": [float("nan")] * 2}
    assert epochs_told(unknown) == "loss"
    assert values_in(epochs_figure(unknown, "Losses"))[0]["curves"]["training"] == [[1.0, 2.0], [1.0, None]]
    history = {"test_deviance": [4.0, 2.0], "train_deviance": [3.0, 1.2], "train_loss": [-4.0, -4.1]}
    (told,) = values_in(epochs_figure(history, "Refining"))
    assert told["curves"] == {"training": [[1.0, 2.0], [3.0, 1.2]], "held out": [[1.0, 2.0], [4.0, 2.0]]}
    assert told["log"] == [False, True]
    assert told["limits"][2] < 1.0  # what noise allows is in the picture
    raw = epochs_figure({"train_loss": [-4.0, -4.1]}, "Losses")
    assert raw == losses_figure({"train_loss": [-4.0, -4.1]}, "Losses")


def test_arrows_point_where_positions_went(scored: Scored) -> None:
    image = scored.image
    away = dataclasses.replace(image, positions_px=image.positions_px + np.array([0.5, -0.25]))
    (told,) = values_in(moves_figure(dataclasses.replace(scored, image=away), 26e-9))
    assert told["texts"][0].endswith("y +13, x -6.5 nm")
    (told,) = values_in(moves_figure(dataclasses.replace(scored, image=away), None))
    assert told["texts"][0].endswith("y +0.5, x -0.25 px")
    figure = moves_figure.figure(dataclasses.replace(scored, image=away), 26e-9)
    (arrows,) = (item for item in figure.axes[0].collections if hasattr(item, "U"))
    assert (arrows.U < 0).all()
    assert (arrows.V > 0).all()
    assert arrows.angles == "xy"
    assert figure.axes[0].yaxis_inverted()


def test_no_figure_is_wider_than_a_phone_can_show(folder: Path, scored: Scored) -> None:
    names = sorted(folder.glob("*.png"))
    assert {"moves.png", "slices.png", "weights.png", "frc.png", "patterns.png"} <= {path.name for path in names}
    for path in names:
        png = path.read_bytes()
        (per_m,) = struct.unpack(">I", png[png.index(b"pHYs") + 4 :][:4])
        inches = struct.unpack(">I", png[16:20])[0] / per_m / 0.0254
        assert inches <= WIDEST_IN + 0.45, path.name
    image = full_run(scored).image
    figures = {
        "slices": slices_figure.figure(image, None),
        "weights": weights_figure.figure(dataclasses.replace(scored, image=image)),
    }
    for name, figure in figures.items():
        renderer = figure.canvas.get_renderer()
        width, height = figure.bbox.size
        for axes in figure.axes:
            box = axes.get_tightbbox(renderer)
            assert box.x0 >= -1, name
            assert box.y0 >= -1, name
            assert box.x1 <= width + 1, name
            assert box.y1 <= height + 1, name


def test_options_are_not_broken_and_paths_only_at_slashes() -> None:
    assert "wbr" not in words("falls to 1/7, +0.1 rad/px")
    said = words("give --resume_from /tmp/<a>/b.npz")
    assert said == 'give <span class="option">--resume_from</span> /<wbr>tmp/<wbr>&lt;a&gt;/<wbr>b.npz'


def test_a_run_without_a_command_has_no_card_for_it(scored: Scored, tmp_path: Path) -> None:
    write_results(tmp_path, make_run(scored))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "The command" not in page
    assert "switch" not in page[page.index("<h1>") : page.index("<script>")]


MEASURES = """<!DOCTYPE html><meta charset=utf-8>
<iframe id=f style="border:0;width:{width}px;height:900px"></iframe>
<script>const f=document.getElementById('f');f.onload=()=>{{const d=f.contentDocument,e=d.documentElement;
const over=n=>n.getBoundingClientRect().right>{width}+1&&!n.closest('.scroll');
const wide=[...d.querySelectorAll('main *')].filter(over);
document.body.append('WIDTH='+e.scrollWidth+' WIDE='+wide.length+' TIP='+d.querySelectorAll('figure button').length)}};
f.srcdoc={page};</script>"""
"""A page in a frame of a width, and what a browser measures of it."""


@pytest.mark.skipif(not CHROMIUM, reason="no browser is installed")
@pytest.mark.parametrize("width", [1400, 800, 400])
def test_nothing_is_wider_than_the_window(page: str, tmp_path: Path, width: int) -> None:
    inside = json.dumps(page).replace("</", "<\\/")
    outer = tmp_path / "outer.html"
    outer.write_text(MEASURES.format(width=width, page=inside), encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--window-size=1500,1000", "--virtual-time-budget=8000", "--dump-dom", outer.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    found = re.search(r"WIDTH=(\d+) WIDE=(\d+) TIP=(\d+)", done.stdout[-4000:])
    assert found, done.stderr[-500:]
    assert int(found[1]) <= width
    assert int(found[2]) == 0
    assert int(found[3]) >= 10  # the script ran, by the hash of the page's policy
