"""reconstruction.h5: what is written is read back, viewers find their attributes, bad files get one clear error."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import h5py
import numpy as np
import pytest
from report_scan import HELDOUT, SHAKEN, make_run, make_scored, refined_run

from ptycho_core.config import ModelConfig, TrainingConfig
from ptycho_core.data.container import Role
from ptycho_core.data.findings import FourierRingCorrelation
from ptycho_core.data.raw import Geometry
from ptycho_core.data.results import Scored
from ptycho_core.data.run import Run
from ptycho_core.errors import DataError, OutputError
from ptycho_core.evaluation.metrics import compare_objects
from ptycho_core.io.reconstruction_file import plain_json, read_reconstruction, write_reconstruction
from ptycho_core.physics.gauge import ramp_wave
from ptycho_core.physics.merit import SUMS

CONFIG = TrainingConfig(epochs=3, model=ModelConfig(width=7))
HISTORY = {"test_loss": [3.0, 2.0], "train_loss": [2.5, 1.5], "rate/peak": [1.0]}


@pytest.fixture(scope="module")
def scored() -> Scored:
    return make_scored(pixel_size_m=26e-9)


@pytest.fixture(scope="module")
def run(scored: Scored) -> Run:
    return make_run(scored, config=CONFIG, history=HISTORY, provenance={"seed": np.int64(4), "nan": float("nan")})


@pytest.fixture
def written(tmp_path: Path, run: Run) -> Path:
    path = tmp_path / "reconstruction.h5"
    write_reconstruction(path, run)
    return path


@pytest.mark.spec("DATA-21")
def test_what_is_written_is_read_back(written: Path, scored: Scored) -> None:
    image, stored = scored.image, read_reconstruction(written)
    for name in ("object", "coverage", "origin_px", "probe", "positions_px"):
        np.testing.assert_array_equal(getattr(stored, name), getattr(image, name))
        assert getattr(stored, name).dtype == getattr(image, name).dtype
    assert (stored.scale, stored.pixel_size_m, stored.format_version) == (image.scale, 26e-9, 3)
    assert stored.losses == {"test_loss": [3.0, 2.0], "train_loss": [2.5, 1.5], "rate_peak": [1.0]}
    assert stored.config["model"]["width"] == 7
    assert stored.provenance == {"seed": 4, "nan": None}
    np.testing.assert_array_equal(stored.role, scored.scan.role)
    assert stored.figures == {"train": scored.train.to_mapping(), "heldout": scored.heldout.to_mapping()}
    assert stored.figures["train"]["r_factor_floor"] > 0


@pytest.mark.spec("DATA-21")
def test_roles_reasons_and_the_sums_of_each_frame_are_in_the_file(written: Path, scored: Scored) -> None:
    with h5py.File(written) as file:
        entry = file["entry"]
        role = entry["role"]
        assert h5py.check_enum_dtype(role.dtype) == {"train": 0, "heldout": 1, "unused": 2}
        assert np.flatnonzero(role[()] == Role.HELDOUT).tolist() == HELDOUT.tolist()
        assert np.flatnonzero(role[()] == Role.UNUSED).tolist() == [5, *SHAKEN]
        assert json.loads(role.attrs["unused"]) == {"shaken <stage>": SHAKEN.tolist(), "no counts": [5]}
        assert entry["frame_figures"].shape == (77, 8)
        assert tuple(entry["frame_figures"].attrs["columns"]) == SUMS
        np.testing.assert_array_equal(entry["frame_figures"][()], scored.frame_sums)
        kept = scored.frame_sums[scored.scan.train_frames].sum(axis=0)
        r = kept[SUMS.index("abs_error")] / kept[SUMS.index("sqrt_counts")]
        assert json.loads(entry["figures"].asstr()[()])["train"]["r_factor"] == pytest.approx(r, rel=1e-12)
        np.testing.assert_array_equal(entry["nominal_positions_px"][()], scored.scan.raw.positions_px)


@pytest.mark.spec("DATA-21")
def test_the_losses_of_refining_and_the_image_before_it_are_in_the_file(tmp_path: Path, scored: Scored) -> None:
    run = refined_run(scored)
    write_reconstruction(tmp_path / "r.h5", run)
    first = run.stages[0].scored
    with h5py.File(tmp_path / "r.h5") as file:
        entry = file["entry"]
        np.testing.assert_array_equal(entry["refinement/train_loss"][()], [-1.0, -1.5])
        np.testing.assert_array_equal(entry["refinement/test_loss"][()], [-0.9, -1.2])
        assert entry["refinement"].attrs["NX_class"] == "NXdata"
        assert list(entry["stages"]) == ["network"]
        np.testing.assert_array_equal(entry["stages/network/object"][()], first.image.object)
        figures = json.loads(entry["stages/network/figures"].asstr()[()])
        assert figures["heldout"] == first.heldout.to_mapping()
    stored = read_reconstruction(tmp_path / "r.h5")
    np.testing.assert_array_equal(stored.object, scored.image.object)
    assert stored.losses == {name: list(values) for name, values in run.history.items()}


def _curve(seed: int) -> FourierRingCorrelation:
    rng = np.random.default_rng(seed)
    return FourierRingCorrelation(
        frequency=np.arange(1, 9) / 16,
        correlation=rng.uniform(-1, 1, 8),
        n_pixels=rng.integers(3, 90, 8),
        half_bit=rng.random(8),
        cutoff_half=0.2,
        cutoff_one_seventh=0.31,
        cutoff_half_bit=0.4,
    )


def whole_run() -> Run:
    """A refined run with ring correlations, a comparison and an instrument that is known."""
    scored = make_scored()
    geometry = Geometry(
        energy_eV=300e3, distance_m=1.5, detector_pixel_size_m=5e-5, pixel_size_m=9e-10, radiation="electron"
    )
    scan = replace(scored.scan, raw=replace(scored.scan.raw, geometry=geometry))
    run = refined_run(replace(scored, scan=scan))
    first, last = run.stages
    part = last.scored.image.object[5:61, 5:76]
    comparison = compare_objects(part * 1.1, (0, 0), part, (0, 0))
    last = replace(last, half_data_frc=_curve(1), comparison=comparison)
    return replace(run, stages=(replace(first, half_data_frc=_curve(2)), last))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    run, path = whole_run(), tmp_path_factory.mktemp("whole") / "r.h5"
    write_reconstruction(path, run)
    return run, path


@pytest.mark.spec("DATA-21")
def test_instrument_times_program_and_findings_are_read_back(whole: tuple[Run, Path]) -> None:
    run, path = whole
    stored, scan = read_reconstruction(path), run.scored.scan
    assert stored.geometry == scan.raw.geometry
    assert stored.refinement_losses == {name: list(v) for name, v in run.refined.history.items()}
    assert stored.unused == {reason: frames.tolist() for reason, frames in scan.unused.items()}
    assert stored.dropped == dict(run.scored.dropped)
    np.testing.assert_array_equal(stored.frame_sums, run.scored.frame_sums)
    np.testing.assert_array_equal(stored.nominal_positions_px, scan.raw.positions_px)
    assert set(stored.frc) == {"half_data", "truth"}
    for kind, made in (("half_data", run.result.half_data_frc), ("truth", run.result.comparison.frc)):
        for name in ("frequency", "correlation", "n_pixels", "half_bit"):
            np.testing.assert_array_equal(getattr(stored.frc[kind], name), getattr(made, name))
        assert stored.frc[kind].cutoff_one_seventh == made.cutoff_one_seventh
        assert stored.frc[kind].n_pixels.dtype == made.n_pixels.dtype
    assert stored.title == run.title
    start, end = (datetime.fromisoformat(text) for text in (stored.start_time, stored.end_time))
    assert (end - start).total_seconds() == pytest.approx(run.seconds["total"], abs=1)
    assert abs((datetime.now(UTC) - end).total_seconds()) < 600
    assert stored.program == f"ptycho-core {version('ptycho-core')}"
    with h5py.File(path) as file:
        units = {name: node.attrs["units"] for name, node in file["entry/geometry"].items() if name != "radiation"}
        assert units == {"energy_eV": "eV", "distance_m": "m", "detector_pixel_size_m": "m", "pixel_size_m": "m"}
        instrument = file["entry/instrument"]
        assert instrument["detector/x_pixel_size"] == file["entry/geometry/detector_pixel_size_m"]
        assert instrument["beam/incident_energy"].attrs["units"] == "eV"
        assert instrument["beam/incident_wavelength"][()] * 1e12 == pytest.approx(1.96875, rel=1e-4)
        np.testing.assert_array_equal(
            file["entry/stages/network/frc_half_data/correlation"][()], run.stages[0].half_data_frc.correlation
        )


PLOTS = {
    "image": "phase",
    "amplitude_image": "amplitude",
    "coverage_image": "coverage",
    "probe_image": "amplitude",
    "r_map": "r_factor",
    "losses": "train_loss",
    "refinement": "train_loss",
    "frc_half_data": "correlation",
    "frc_truth": "correlation",
    "stages/network/frc_half_data": "correlation",
}
"""Plot → what it draws."""


@pytest.mark.spec("DATA-44")
def test_every_plot_is_a_group_that_viewers_draw(whole: tuple[Run, Path]) -> None:
    found = {}

    def check(name: str, node: object) -> None:
        if not isinstance(node, h5py.Group) or node.attrs.get("NX_class") != "NXdata":
            return
        found[name] = node.attrs["signal"]
        signal, axes = node[node.attrs["signal"]], list(node.attrs["axes"])
        assert signal.size > 0, name
        if name == "r_map":
            assert [node[axis].shape for axis in axes] == [signal.shape] * 2
        else:
            assert tuple(len(node[axis]) for axis in axes) == signal.shape, name
        assert all(node[other].shape == signal.shape for other in node.attrs.get("auxiliary_signals", ())), name

    run, path = whole
    with h5py.File(path) as file:
        file["entry"].visititems(check)
        assert found == PLOTS
        np.testing.assert_array_equal(
            file["entry/r_map/frame"][()], np.flatnonzero(run.scored.scan.role != Role.UNUSED)
        )
        np.testing.assert_array_equal(file["entry/probe_image/amplitude"][()], np.abs(run.image.probe))
        assert file["entry/probe_image/y"][0] == pytest.approx(-15.5 * 9e-10)
        used = run.scored.scan.role != Role.UNUSED
        np.testing.assert_array_equal(file["entry/r_map/r_factor"][()], run.scored.frame_r_factors()[used])
        at = file["entry/r_map/x"][0]
        assert at == pytest.approx(run.image.positions_px[0, 1] * 9e-10)


@pytest.mark.peers
@pytest.mark.spec("DATA-44")
def test_silx_opens_the_image_by_the_default_chain_and_takes_every_plot(whole: tuple[Run, Path]) -> None:
    silx_io, nxdata = pytest.importorskip("silx.io"), pytest.importorskip("silx.io.nxdata")
    with silx_io.open(str(whole[1])) as file:
        default = nxdata.get_default(file)
        assert default is not None
        assert default.signal.name == "/entry/image/phase"
        assert default.title == "Reconstructed object"
        for name in PLOTS:
            plot = nxdata.NXdata(file[f"entry/{name}"])
            assert plot.is_valid, (name, plot.issues)
        assert nxdata.NXdata(file["entry/r_map"]).is_x_y_value_scatter
        assert nxdata.NXdata(file["entry/losses"]).is_curve


@pytest.mark.peers
@pytest.mark.spec("DATA-44")
def test_nexpys_library_opens_the_image_by_the_default_chain(whole: tuple[Run, Path]) -> None:
    nexus = pytest.importorskip("nexusformat.nexus")
    root = nexus.nxload(str(whole[1]))
    plot = root.plottable_data
    assert plot.nxpath == "/entry/image"
    assert plot.nxsignal.nxname == "phase"
    assert [axis.nxname for axis in plot.nxaxes] == ["y", "x"]
    assert root.entry.geometry.energy_eV.attrs["units"] == "eV"


@pytest.mark.spec("DATA-21")
def test_a_file_of_format_2_is_read(whole: tuple[Run, Path], tmp_path: Path) -> None:
    """It had the same arrays, and of the instrument the object pixel only."""
    path = tmp_path / "two.h5"
    path.write_bytes(whole[1].read_bytes())
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 2
        new = (
            "geometry",
            "instrument",
            "frc_half_data",
            "frc_truth",
            "start_time",
            "end_time",
            "program_name",
            "duration",
        )
        for name in new:
            del file["entry"][name]
    stored, latest = read_reconstruction(path), read_reconstruction(whole[1])
    assert stored.format_version == 2
    assert stored.geometry == Geometry(pixel_size_m=9e-10)
    assert (stored.frc, stored.start_time, stored.program) == ({}, "", "")
    np.testing.assert_array_equal(stored.object, latest.object)
    assert stored.refinement_losses == latest.refinement_losses
    assert stored.figures == latest.figures


def write_format_1(path: Path, **attributes: object) -> dict[str, np.ndarray]:
    """A file as version 0.1 wrote it: one figure called r_factor, no roles, no figures."""
    rng = np.random.default_rng(5)
    arrays = {
        "object": (rng.normal(size=(37, 51)) + 1j * rng.normal(size=(37, 51))).astype(np.complex64),
        "coverage": rng.random((37, 51)).astype(np.float32),
        "probe": (rng.normal(size=(2, 16, 16)) + 1j * rng.normal(size=(2, 16, 16))).astype(np.complex64),
        "positions_px": rng.random((9, 2)) * 20,
        "nominal_positions_px": rng.random((9, 2)) * 20,
        "frame_misfit": rng.random(9),
        "frame_totals": rng.random(9) + 5,
    }
    with h5py.File(path, "w") as file:
        file.attrs.update(NX_class="NXroot", default="entry", format="ptycho-reconstruction", **attributes)
        entry = file.create_group("entry")
        for name, values in arrays.items():
            entry[name] = values
        entry["object"].attrs["origin_px"] = [-4.0, 11.0]
        entry["scale"], entry["r_factor"] = 0.37, 0.0125
        for name, content in (("config", {"epochs": 3}), ("provenance", {}), ("dropped", {"masked_pixels": 4})):
            entry[name] = json.dumps(content)
        entry["losses/train_loss"], entry["losses/epoch"] = [2.5, 1.5], [1, 2]
    return arrays


@pytest.mark.spec("DATA-21")
@pytest.mark.parametrize("attributes", [{"format_version": 1}, {}])
def test_a_file_of_format_1_is_read_and_its_figure_is_told_by_its_present_name(
    tmp_path: Path, attributes: dict[str, object]
) -> None:
    arrays = write_format_1(tmp_path / "old.h5", **attributes)
    stored = read_reconstruction(tmp_path / "old.h5")
    for name in ("object", "coverage", "probe", "positions_px"):
        np.testing.assert_array_equal(getattr(stored, name), arrays[name])
    assert stored.format_version == 1
    assert stored.figures == {"train": {"fourier_error": 0.0125}, "heldout": None}
    assert stored.role is None
    assert (stored.scale, stored.losses, stored.config["epochs"]) == (0.37, {"train_loss": [2.5, 1.5]}, 3)


def test_paths_and_attributes_are_those_promised(written: Path) -> None:
    with h5py.File(written) as file:
        entry = file["entry"]
        assert entry["object"].dtype == np.complex64
        assert entry["coverage"].dtype == np.float32
        assert entry["probe"].dtype == np.complex64
        assert entry["positions_px"].dtype == np.float64
        assert entry["object"].attrs["pixel_size_m"] == 26e-9
        assert entry["scale"].shape == ()
        assert json.loads(entry["dropped"].asstr()[()])["masked pixels"] == 6
        assert json.loads(entry["config"].asstr()[()])["epochs"] == 3
        assert file.attrs["format_version"] == 3


def test_viewers_are_led_to_an_image_on_scan_coordinates(written: Path, scored: Scored) -> None:
    made = scored.image
    lit = made.coverage > 0
    assert not lit.all()
    with h5py.File(written) as file:
        entry = file[file.attrs["default"]]
        assert entry.attrs["NX_class"] == "NXentry"
        image = entry[entry.attrs["default"]]
        assert image.attrs["NX_class"] == "NXdata"
        signal = image[image.attrs["signal"]]
        assert list(image.attrs["axes"]) == ["y", "x"]
        assert signal.shape == (len(image["y"]), len(image["x"])) == made.object.shape
        assert image["y"][1] == pytest.approx((made.origin_px[0] + 1) * 26e-9)
        assert image["x"][0] == pytest.approx(made.origin_px[1] * 26e-9)
        assert np.isnan(signal[()][~lit]).all()
        away = signal.attrs["removed_ramp_rad_per_px"], signal.attrs["removed_ramp_about_px"]
        ramp = ramp_wave(*(tuple(values) for values in away), made.object.shape)
        turned = made.object / ramp * np.exp(-1j * signal.attrs["removed_global_phase_rad"])
        np.testing.assert_allclose(signal[()][lit], np.angle(turned)[lit], atol=1e-5)
        np.testing.assert_array_equal(image["amplitude"][()][lit], np.abs(made.object)[lit])
        assert image["coverage"] == entry["coverage"]
        assert set(image.attrs["auxiliary_signals"]) <= set(image)
        losses = entry["losses"]
        assert losses.attrs["signal"] == "train_loss"
        assert list(losses.attrs["auxiliary_signals"]) == ["test_loss"]
        np.testing.assert_array_equal(losses["epoch"], [1, 2])


def test_no_pixel_size_no_held_out_frames_and_no_history_are_fine(tmp_path: Path) -> None:
    path, scored = tmp_path / "r.h5", make_scored(bare=True)
    write_reconstruction(path, make_run(scored, history={}))
    stored = read_reconstruction(path)
    assert stored.pixel_size_m is None
    assert stored.losses == {}
    assert stored.figures["heldout"] is None
    with h5py.File(path) as file:
        assert file["entry/image/y"].attrs["units"] == "pixel"
        assert file["entry/image/y"][0] == scored.image.origin_px[0]


def test_a_history_with_its_own_epoch_column_is_written(tmp_path: Path, scored: Scored) -> None:
    path = tmp_path / "r.h5"
    write_reconstruction(path, make_run(scored, history={"epoch": [0.0, 1.0], "train_loss": [2.0, 1.0]}))
    with h5py.File(path) as file:
        assert file["entry/losses"].attrs["signal"] == "train_loss"
        np.testing.assert_array_equal(file["entry/losses/epoch"], [0.0, 1.0])


def test_a_failed_write_leaves_the_old_file(written: Path, scored: Scored) -> None:
    before = written.read_bytes()
    with pytest.raises(ValueError, match="could not convert"):
        write_reconstruction(written, make_run(scored, history={"train_loss": ["x"]}))
    assert written.read_bytes() == before
    assert [p.name for p in written.parent.iterdir()] == [written.name]


def test_a_missing_folder_is_an_output_error(tmp_path: Path, run: Run) -> None:
    with pytest.raises(OutputError, match="nowhere"):
        write_reconstruction(tmp_path / "nowhere" / "r.h5", run)


def _replace(name: str, value: object) -> object:
    def damage(entry: h5py.Group) -> None:
        del entry[name]
        if value is not None:
            entry[name] = value

    return damage


def _attribute(name: str, value: object) -> object:
    def damage(entry: h5py.Group) -> None:
        del entry["object"].attrs[name]
        if value is not None:
            entry["object"].attrs[name] = value

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_replace("object", None), "no dataset /entry/object.*Found: .*coverage"),
        (_replace("probe", None), "no dataset /entry/probe"),
        (_replace("object", np.ones((37, 51))), r"/entry/object is float64 .*complex"),
        (_replace("role", np.zeros(76, np.uint8)), "/entry/role has 76 values up to 0 for 77 frames"),
        (
            _replace("role", np.full(77, 3, np.uint8)),
            r"role has 77 values up to 3 .* 0 \(train\), 1 \(",
        ),
        (_replace("figures", "{"), "/entry/figures is not JSON"),
        (_replace("frame_figures", np.ones((77, 7))), r"/entry/frame_figures has shape \(77, 7\)"),
        (_replace("nominal_positions_px", np.ones((76, 2))), r"nominal_positions_px has shape \(76, 2\)"),
        (_replace("title", 3.0), "/entry/title is not one text"),
        (_replace("geometry/pixel_size_m", -1.0), "geometry 'pixel_size_m' must be one positive number"),
        (_replace("object", np.ones((2, 37, 51), np.complex64)), "rank 2"),
        (_replace("object", np.full((37, 51), np.nan + 0j)), "/entry/object holds NaN"),
        (_replace("coverage", np.ones((51, 37))), r"\(51, 37\), the object \(\d+, \d+\)"),
        (_replace("coverage", np.ones((37, 51), complex)), "/entry/coverage is complex128 .*real"),
        (_replace("probe", np.ones((2, 16, 15), np.complex64)), r"\(P, N, N\)"),
        (_replace("positions_px", np.ones((9, 3))), r"\(M, 2\)"),
        (_replace("positions_px", np.full((9, 2), np.inf)), "/entry/positions_px holds NaN or infinite"),
        (_replace("scale", 0.0), "scale = 0"),
        (_replace("config", "{"), "/entry/config is not JSON"),
        (_replace("config", "[1]"), "/entry/config is not a JSON object"),
        (_replace("provenance", 3.0), "/entry/provenance is not JSON"),
        (_attribute("origin_px", None), "no attribute origin_px"),
        (_attribute("origin_px", [1.0, 2.0, 3.0]), r"origin_px .* 2 finite"),
        (_attribute("pixel_size_m", "26 nm"), r"pixel_size_m .* 1 finite"),
        (_attribute("pixel_size_m", -1.0), "must be positive"),
    ],
)
def test_each_fault_of_a_file_is_named(written: Path, damage: object, message: str) -> None:
    with h5py.File(written, "r+") as file:
        damage(file["entry"])  # type: ignore[operator]
    with pytest.raises(DataError, match=message) as caught:
        read_reconstruction(written)
    assert str(written) in str(caught.value)


def test_other_files_are_refused(tmp_path: Path, written: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_reconstruction(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(DataError, match="cannot be read as HDF5"):
        read_reconstruction(tmp_path / "text.h5")
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = 1
    with pytest.raises(DataError, match=r"no group /entry.*Found: data"):
        read_reconstruction(tmp_path / "scan.h5")
    (tmp_path / "cut.h5").write_bytes(written.read_bytes()[: written.stat().st_size // 2])
    with pytest.raises(DataError, match=r"cut\.h5"):
        read_reconstruction(tmp_path / "cut.h5")
    with h5py.File(written, "r+") as file:
        file.attrs["format_version"] = 4
    with pytest.raises(DataError, match="format version 4, this release reads up to 3"):
        read_reconstruction(written)


def test_plain_json_holds_only_strict_json() -> None:
    plain = plain_json(
        {"a": np.float32(0.5), 2: np.array([[1, 2]]), "p": Path("x"), "c": 1 + 2j, "t": (float("inf"), True, None)}
    )
    assert plain == {"a": 0.5, "2": [[1, 2]], "p": "x", "c": [1.0, 2.0], "t": [None, True, None]}
    json.dumps(plain, allow_nan=False)
