"""What values say of themselves: one line without arrays, and a card of escaped text and small pictures."""

from __future__ import annotations

import base64
import re
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ptycho_core import (
    CdiResult,
    InferenceConfig,
    ModelConfig,
    ObjectGuess,
    PtychoDataContainer,
    RawData,
    RefinementConfig,
    Run,
    Runtime,
    SimulationConfig,
    Source,
    TrainingConfig,
    run,
    run_cdi_example,
    simulate,
)
from ptycho_core.data.frames import SubsetFrames
from ptycho_core.data.verdict import Verdict
from ptycho_core.errors import ConfigError, DataError
from ptycho_core.notebook import thumbnails
from ptycho_core.notebook.cards import card

NASTY = "<img src=x onerror=alert(1)>\u202e\x1b[31m\"'&"


@pytest.fixture(scope="module")
def scan() -> RawData:
    settings = SimulationConfig(
        object="dead_leaves", N=24, grid_shape=(6, 9), step_px=3.3, n_modes=2, photons=2e4, pixel_size_m=2e-8, seed=8
    )
    return simulate(settings).raw


@pytest.fixture(scope="module")
def made(scan: RawData) -> Run:
    plan = RefinementConfig(epochs=3, positions=True)
    return run(scan, TrainingConfig(epochs=2, test_fraction=0.1, refinement=plan), title=f"scan {NASTY}")


@pytest.fixture(scope="module")
def facade(scan: RawData) -> CdiResult:
    train, test = scan.split(0.1, 0)
    config = TrainingConfig(epochs=2, refinement=RefinementConfig(engine="none"))
    return run_cdi_example(train, test, config, do_stitching=True)


def values_of(made: Run, facade: CdiResult) -> list[Any]:
    raw = made.scan.raw
    guess = ObjectGuess(object=made.image.object, origin_px=made.image.origin_px)
    of_run = [
        made,
        made.scan,
        made.image,
        made.scored,
        made.result,
        made.refined,
        made.model,
        made.config,
        made.runtime,
    ]
    return [*of_run, raw, raw.frames, raw.object_guess, facade, guess, made.config.refinement, made.config.inference]


@pytest.mark.spec("NOTE-1")
def test_one_line_says_what_it_is_and_prints_no_array(made: Run, facade: CdiResult) -> None:
    for value in values_of(made, facade):
        text = repr(value)
        assert text.startswith(type(value).__name__ + "("), text
        assert "\n" not in text
        assert len(text) < 1000, text
        assert "array(" not in text
        assert "[[" not in text
        assert text.isprintable(), "characters that act are in it"


def test_one_line_has_shapes_units_engine_and_figures(made: Run, scan: RawData, facade: CdiResult) -> None:
    height, width = made.image.object.shape
    assert height != width
    assert "54 frames of 24×24" in repr(scan)
    assert ", 1 frame of 24×24" in repr(replace(scan, frames=SubsetFrames(scan.frames, np.array([7]))))
    assert "probe 2×24×24" in repr(scan)
    assert "object pixel 20 nm" in repr(scan)
    assert "px, " in repr(scan)
    assert "49 train + 5 held out" in repr(made.scan)
    assert f"object {height}×{width} px" in repr(made.image)
    assert f"{made.scored.train.deviance:.4g}, {made.scored.heldout.deviance:.4g} held out" in repr(made.scored)
    assert "numpy" in repr(made.scored)
    assert made.verdict is not None
    assert f"verdict: {made.verdict.sentence[:40]}" in repr(made)
    assert "solver" in repr(made)
    assert "no verdict" in repr(replace(made, verdict=None))
    assert "CdiResult(numpy, amplitude and phase " in repr(facade)
    assert "discarded: worse" in repr(replace(made.refined, kept=False, note="worse"))


def test_settings_say_what_differs_from_their_defaults(made: Run) -> None:
    assert repr(RefinementConfig(positions=True, epochs=7)) == "RefinementConfig(epochs=7, positions=True)"
    assert repr(RefinementConfig()) == "RefinementConfig()"
    assert repr(InferenceConfig(passes=3)) == "InferenceConfig(passes=3)"
    assert repr(Runtime(threads=2)) == "Runtime(threads=2)"
    assert repr(SimulationConfig(N=48)) == "SimulationConfig(N=48)"
    text = repr(TrainingConfig(seed=3))
    assert "backend='numpy'" in text, "what was settled is said"
    assert "seed=3" in text
    assert "learning_rate" not in text
    assert "generator='unrolled'" in repr(ModelConfig(generator="unrolled"))


def test_the_name_of_a_file_is_told_without_its_folders(scan: RawData) -> None:
    lost = replace(scan, source=Source(path=f"/somebody/private/{NASTY}.npz"))
    for text in (repr(lost), lost._repr_html_()):
        assert "private" not in text
        assert "<img src=x" not in text or "RawData" in text[:8]
        assert "\u202e" not in text
        assert "\x1b" not in text


def pictures(page: str) -> list[bytes]:
    return [base64.b64decode(found) for found in re.findall(r'src="data:image/png;base64,([^"]+)"', page)]


def shape_of(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", png[16:24])
    return height, width


@pytest.mark.spec("NOTE-2")
@pytest.mark.parametrize("number", range(10))
def test_a_card_escapes_what_files_say(made: Run, number: int) -> None:
    raw = replace(
        made.scan.raw,
        source=Source(path=NASTY, dialect=NASTY, assumptions=(NASTY,), warnings=(NASTY,), details={NASTY: NASTY}),
    )
    scan = replace(made.scan, raw=raw, unused={NASTY: np.arange(2)})
    scored = replace(made.scored, scan=scan, engine=NASTY, dropped={NASTY: 3})
    stage = replace(made.result, scored=scored, name=NASTY)
    sentence = Verdict(kind="noise", sentence=NASTY, advice=(NASTY,))
    result = replace(made, scan=scan, stages=(stage,), engine=NASTY, warnings=(NASTY,), verdict=sentence, title=NASTY)
    image = replace(made.image, forward_model=NASTY, stats={NASTY: NASTY})
    error = replace(raw, frames=Gone((54, 24, 24)))
    runtime = Runtime(output_dir=Path(NASTY))
    config = replace(made.config, backend="a <b>", refinement=RefinementConfig(engine="none"))
    value = (raw, scan, scored, stage, result, image, error, runtime, config, made)[number]
    page = value._repr_html_()
    assert "<img src=x" not in page
    assert "<script" not in page
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert "a <b>" not in page
    # every tag is one of ours
    assert set(re.findall(r"<([a-zA-Z]+)", page)) <= {
        "div", "p", "strong", "figure", "img", "figcaption", "table", "tr", "th", "td", "details", "summary", "ul",
        "li", "span",
    }  # fmt: skip


@pytest.mark.spec("NOTE-2")
def test_a_card_of_a_run_has_its_verdict_first_and_pictures_of_object_and_probe(made: Run) -> None:
    page = made._repr_html_()
    assert made.verdict is not None
    sentence = made.verdict.sentence[1:20]
    assert page.index(sentence) < page.index("<img")
    phase, amplitude, probe = pictures(page)
    assert phase != amplitude
    assert shape_of(probe) == (24, 24)
    height, width = shape_of(phase)
    assert height < width, "the object is wider than high"
    assert len(page) < 120_000
    shown = float(re.search(r'style="width:(\d+)px', page).group(1))  # type: ignore[union-attr]
    assert shown == thumbnails.SIDE_PX
    bad = Verdict(kind="no_image", sentence="NOT AN IMAGE: nothing")
    assert "#c0392b" in replace(made, verdict=bad)._repr_html_()
    assert "No verdict" in replace(made, verdict=None)._repr_html_()


def test_a_card_of_the_facade_and_of_settings(facade: CdiResult) -> None:
    assert len(pictures(facade._repr_html_())) == 3
    empty = replace(facade, amplitude=None, results={**facade.results, "reconstruction": None})
    assert "Nothing was reconstructed" in empty._repr_html_()
    page = TrainingConfig(seed=7)._repr_html_()
    assert page.index("seed") < page.index("by default")
    assert page.index("learning_rate") > page.index("by default")
    settings = (SimulationConfig(N=48), Runtime(threads=2), RefinementConfig(epochs=3), InferenceConfig(passes=2))
    for value, name in zip(settings, ("N", "threads", "epochs", "passes"), strict=True):
        text = value._repr_html_()
        assert f">{name}</th>" in text.partition("by default")[0]
        assert f"<strong>{type(value).__name__}</strong>" in text
    with pytest.raises(ConfigError, match="a dict has no card"):
        card({})


@dataclass
class Counted:
    """Frames of a scan larger than any memory, which counts what is read."""

    shape: tuple[int, int, int]
    read_frames: list[int] = field(default_factory=list)

    def read(self, frame_numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        self.read_frames += frame_numbers.tolist()
        return np.ones((len(frame_numbers), *self.shape[1:]), np.float32)


@dataclass
class Gone:
    """Frames whose file is not there any more."""

    shape: tuple[int, int, int]

    def read(self, frame_numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        raise DataError("the disk was unplugged")


def large(frames: Any, scan: RawData) -> RawData:
    M = frames.shape[0]
    places = np.random.default_rng(0).uniform(0, 3000, (M, 2)) * [1.0, 1.4]
    return replace(
        scan, frames=frames, positions_px=places, frame_numbers=np.arange(M), frame_totals=np.full(M, 5.0),
        mask=None, background=None,
    )  # fmt: skip


@pytest.mark.spec("NOTE-2")
def test_a_look_at_a_large_scan_reads_few_frames_and_a_line_none(scan: RawData) -> None:
    frames = Counted((200_000, 24, 24))
    raw = large(frames, scan)
    assert "200000 frames" in repr(raw)
    assert frames.read_frames == []
    page = raw._repr_html_()
    assert 0 < len(frames.read_frames) <= thumbnails.MOST_FRAMES
    assert max(frames.read_frames) > 190_000, "they are spread over the scan"
    assert f"mean of {thumbnails.MOST_FRAMES} frames" in page
    frames.read_frames.clear()
    some = replace(raw, looked_at=np.arange(5, 9))
    some._repr_html_()
    assert sorted(frames.read_frames) == [5, 6, 7, 8], "others may hold what nobody has checked"
    assert "4 of them looked at" in repr(some)


@pytest.mark.spec("NOTE-2")
def test_a_look_at_frames_that_are_gone_says_so_and_shows_the_rest(scan: RawData) -> None:
    page = large(Gone((70, 24, 24)), scan)._repr_html_()
    assert "not shown: the disk was unplugged" in page
    assert len(pictures(page)) == 2


def test_a_large_object_is_thinned_before_it_is_looked_at(made: Run) -> None:
    side = 6000
    obj = np.zeros((side, side // 2), np.complex64)
    obj[100:-100, 100:-100] = 1 + 0.5j
    image = replace(made.image, object=obj, coverage=np.abs(obj).astype(np.float32))
    seen: list[tuple[int, ...]] = []
    before = thumbnails.object_view

    def spy(a: Any, b: Any) -> Any:
        seen.append(a.shape)
        return before(a, b)

    thumbnails.object_view = spy  # type: ignore[assignment]
    try:
        phase, _ = thumbnails.object_pair(image)
    finally:
        thumbnails.object_view = before
    assert max(seen[0]) <= 1000
    height, width = shape_of(phase)
    assert max(height, width) <= 2 * thumbnails.SIDE_PX
    assert height > 1.5 * width


def test_dots_of_positions_lie_where_the_frames_do(scan: RawData) -> None:
    from io import BytesIO

    from PIL import Image as Picture

    corners = np.array([[0.0, 0.0], [0.0, 100.0], [40.0, 100.0]])  # none at the lower left
    role = np.array([0, 1, 2], np.int8)
    rgba = np.asarray(Picture.open(BytesIO(thumbnails.positions(corners, role))).convert("RGBA"))
    height, width = rgba.shape[:2]
    assert width == thumbnails.SIDE_PX
    assert height == pytest.approx(0.4 * width, abs=2)
    lit = rgba[..., 3] > 0
    assert lit[:3, :3].any()
    assert lit[:3, -3:].any()
    assert lit[-3:, -3:].any()
    assert not lit[-10:, :10].any()
    assert tuple(rgba[0, -1, :3]) != tuple(rgba[0, 0, :3]), "roles differ in colour"


def test_small_pictures_keep_their_values_and_transparency() -> None:
    from io import BytesIO

    from PIL import Image as Picture

    ramp = np.zeros((9, 256, 4), np.uint8)
    ramp[..., :3] = np.arange(256)[None, :, None]
    ramp[..., 3] = 255
    back = np.asarray(Picture.open(BytesIO(thumbnails.small_png(ramp))).convert("RGBA")).astype(int)
    assert np.abs(back - ramp.astype(int)).max() <= 2, "256 greys have room in a palette"
    ramp[:4, :, 3] = 0
    back = np.asarray(Picture.open(BytesIO(thumbnails.small_png(ramp))).convert("RGBA"))
    assert (back[:4, :, 3] == 0).all()
    assert (back[4:, :, 3] == 255).all()


@pytest.mark.spec("NOTE-1")
def test_a_line_needs_no_room_above_and_a_job_that_nobody_looks_at_imports_none(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys, numpy as np\n"
        "from ptycho_core import RawData\n"
        "raw = RawData.from_arrays(np.ones((4, 8, 8)), [[0, 0], [0, 3], [2, 0], [2, 3.5]])\n"
        "repr(raw)\n"
        "print([m for m in sys.modules if m.startswith(('ptycho_core.notebook', 'ptycho_core.report', 'matplotlib'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"


def test_a_container_says_its_roles(made: Run) -> None:
    scan = PtychoDataContainer.of(made.scan.raw, heldout=[1, 2], unused={"shutter": [5]})
    assert "51 train + 2 held out + 1 unused" in repr(scan)
    page = scan._repr_html_()
    assert "51 trained on, 2 held out, 1 not used" in page
    assert "1 frame: shutter" in page
