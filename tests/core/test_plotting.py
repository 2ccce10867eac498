"""Figures of scans, images and runs by their kind; what they draw is where and as large as it is in the data."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptycho_core import Image, RawData, RefinementConfig, Run, SimulationConfig, TrainingConfig, run, simulate
from ptycho_core.data.container import Role
from ptycho_core.data.propagation import Propagation
from ptycho_core.errors import ConfigError, MissingPackageError
from ptycho_core.notebook.plotting import kinds, plot
from ptycho_core.physics.merit import SUMS


@pytest.fixture(scope="module")
def made() -> Run:
    settings = SimulationConfig(
        object="dead_leaves", N=24, grid_shape=(6, 9), step_px=3.3, n_modes=2, photons=2e4, pixel_size_m=2e-8, seed=8
    )
    plan = RefinementConfig(epochs=4, positions=True)
    return run(simulate(settings).raw, TrainingConfig(epochs=2, test_fraction=0.1, refinement=plan))


@pytest.fixture(scope="module")
def scan(made: Run) -> RawData:
    return made.scan.raw


RUN_KINDS = ("object", "probe", "focus", "positions", "deviance", "frames", "losses")


def texts(figure: Any) -> str:
    from matplotlib.text import Text

    return " | ".join(t.get_text() for t in figure.findobj(Text) if t.get_text())


@pytest.mark.spec("NOTE-3")
@pytest.mark.parametrize("kind", RUN_KINDS)
def test_every_kind_of_a_run_is_a_figure_that_shows_itself(made: Run, kind: str) -> None:
    from matplotlib.figure import Figure

    figure = made.plot(kind)
    assert isinstance(figure, Figure)
    dpi = figure.get_dpi()
    png, size = figure._repr_png_()  # type: ignore[attr-defined]
    assert png.startswith(b"\x89PNG")
    width, height = figure.get_size_inches()
    assert size == {"width": round(width * 96), "height": round(height * 96)}
    assert figure.get_dpi() == dpi, "showing it leaves it as it was"
    assert isinstance(pickle.loads(pickle.dumps(figure)), Figure)


def test_each_value_has_its_kinds(made: Run, scan: RawData) -> None:
    assert tuple(kinds(made)) == RUN_KINDS
    assert tuple(kinds(made.image)) == ("object", "probe", "focus", "positions")
    assert tuple(kinds(scan)) == ("positions", "mean", "frames", "probe", "focus")
    assert tuple(kinds(replace(scan, probe=None))) == ("positions", "mean", "frames")
    near = replace(scan, propagation=Propagation("near_field", 0.1))
    assert "focus" not in kinds(near)
    slices = np.stack([made.image.object, made.image.object])
    thick = replace(made.image, slices=slices, slice_spacing_m=1e-6)
    assert "slices" in kinds(thick)
    assert thick.plot("slices").axes
    for value in (made.image, scan):
        for kind in kinds(value):
            assert value.plot(kind).axes


@pytest.mark.spec("NOTE-3")
@pytest.mark.parametrize("kind", ["", "probes", None, 3, "OBJECT"])
def test_an_unknown_kind_is_told_which_there_are(made: Run, kind: Any) -> None:
    with pytest.raises(ConfigError, match=r"kind = .*it has object, probe, focus, positions, deviance, frames, losses"):
        made.plot(kind)


def test_a_kind_that_is_not_there_is_told_why(made: Run, scan: RawData) -> None:
    near = replace(scan, propagation=Propagation("near_field", 0.1))
    with pytest.raises(ConfigError, match=r"no such figure \(a near field has no focus"):
        near.plot("focus")
    with pytest.raises(ConfigError, match=r"the object is a thin one"):
        made.plot("slices")
    with pytest.raises(ConfigError, match="a str has no figures"):
        plot("x", "object")
    with pytest.raises(ConfigError, match="Did you mean 'probe'"):
        scan.plot("prob")


@pytest.mark.spec("NOTE-3")
def test_positions_are_drawn_in_metres_with_y_downwards_and_their_roles(made: Run) -> None:
    figure = made.plot("positions")
    axes = figure.axes[0]
    assert axes.get_xlabel() == "x (nm)"
    low, high = axes.get_ylim()
    assert low > high
    offsets = np.concatenate([np.asarray(c.get_offsets()) for c in axes.collections[:2]])
    order = np.concatenate([made.scan.frames(Role.TRAIN), made.scan.frames(Role.HELDOUT)])
    assert np.allclose(offsets, made.image.positions_px[order][:, ::-1] * 20)
    assert "trained on (49)" in texts(figure)
    assert "held out (5)" in texts(figure)


def test_arrows_point_from_where_frames_were_read_to_where_they_are(made: Run) -> None:
    from matplotlib.quiver import Quiver

    moves = np.zeros_like(made.image.positions_px)
    moves[:, 0], moves[7, 1] = 0.5, -1.5  # all down, one to the left as well
    image = replace(made.image, positions_px=made.scan.raw.positions_px + moves)
    moved = replace(made, stages=(replace(made.result, scored=replace(made.scored, image=image)),))
    figure = moved.plot("positions")
    (arrows,) = [c for c in figure.axes[0].collections if isinstance(c, Quiver)]
    used = made.scan.used_frames
    assert np.allclose(np.asarray(arrows.XY), made.scan.raw.positions_px[used][:, ::-1] * 20)
    lengths = np.stack([arrows.U, arrows.V], axis=1)
    times = lengths[0, 1] / (0.5 * 20)
    assert times >= 1
    assert np.allclose(lengths, moves[used][:, ::-1] * 20 * times)
    rms = float(np.sqrt(np.mean(np.sum(moves[used] ** 2, axis=1))))
    assert f"Moved by {rms:.2f} px ({rms * 20:.3g} nm) rms" in texts(figure)
    still = replace(moved, stages=(replace(made.result, scored=replace(made.scored, image=replace(
        made.image, positions_px=made.scan.raw.positions_px))),))  # fmt: skip
    assert "Moved" not in texts(still.plot("positions"))


def test_arrows_are_finite_where_few_frames_moved() -> None:
    from ptycho_core.notebook.pictures import positions_figure

    nominal = np.random.default_rng(3).uniform(10, 90, (300, 2))
    moved = nominal.copy()
    moved[7] += (0.5, -0.3)
    heading = texts(positions_figure(moved, 2e-8, nominal_px=nominal))
    assert "arrows" in heading
    assert "inf" not in heading


def test_deviance_is_that_of_each_frame_over_its_noise(made: Run) -> None:
    sums = made.scored.frame_sums.copy()
    sums[:, SUMS.index("deviance")] = np.arange(len(sums)) * sums[:, SUMS.index("deviance_floor")]
    sums[4] = 0  # an unused frame
    figure = replace(made, stages=(replace(made.result, scored=replace(made.scored, frame_sums=sums)),)).plot(
        "deviance"
    )
    dots = figure.axes[0].collections[0]
    known = np.delete(np.arange(len(sums)), 4)
    assert np.allclose(np.asarray(dots.get_array()), known)
    assert np.allclose(np.asarray(dots.get_offsets()), made.image.positions_px[known][:, ::-1] * 20)
    assert "not used" in texts(figure)
    assert "held out" in texts(figure)


def test_the_mean_pattern_is_of_every_frame_on_its_own_pixels(scan: RawData) -> None:
    mask = np.ones((24, 24), bool)
    mask[3, 5] = False
    masked = RawData.from_arrays(scan.read_counts(range(scan.n_frames)), scan.positions_px, mask=mask)
    figure = masked.plot("mean")
    shown = np.ma.masked_invalid(figure.axes[0].images[0].get_array())
    assert shown.mask[3, 5]
    expected = scan.mean_pattern()
    top = np.unravel_index(expected.argmax(), expected.shape)
    assert shown[top] == pytest.approx(expected[top])
    assert "Mean of 54 frames" in texts(figure)
    assert len(scan.plot("frames").axes) == 8, "four frames and their colour bars"


def test_losses_show_training_and_refining(made: Run) -> None:
    assert len(made.plot("losses").axes) == 2
    assert len(replace(made, refined=None).plot("losses").axes) == 1
    curve = made.plot("losses").axes[1].lines[0]
    assert len(np.asarray(curve.get_ydata())) == len(made.refined.history["train_loss"])  # type: ignore[union-attr]
    assert "none recorded" in texts(replace(made, refined=None, history={}).plot("losses"))


def test_figures_leave_pyplot_alone(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from ptycho_core import RawData\n"
        "raw = RawData.from_arrays(np.ones((4, 8, 8)), [[0, 0], [0, 3], [2, 0], [2, 3.5]])\n"
        "raw.plot().savefig('x.pdf')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    assert (tmp_path / "x.pdf").stat().st_size > 1000


def test_without_xarray_the_pip_line_is_told(made: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xarray", None)
    for value in (made, made.image):
        with pytest.raises(MissingPackageError, match=r"pip install 'ptycho-core\[xarray\]'"):
            value.to_xarray()


def test_an_image_alone_is_drawn_in_pixels(made: Run) -> None:
    image: Image = made.image
    assert image.plot("positions").axes[0].get_xlabel() == "x (object pixels)"
    assert " px" in texts(image.plot("object"))
    assert "nm" in texts(made.plot("object"))
