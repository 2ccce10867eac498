"""A run in a folder and back: what is kept, what is said to be missing, and what a foreign folder meets."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptycho_core import (
    RawData,
    RefinementConfig,
    Run,
    SimulationConfig,
    TrainingConfig,
    compare,
    load_backend,
    load_model,
    load_run,
    read_scan,
    reconstruct,
    refine,
    run,
    simulate,
    write_scan,
)
from ptycho_core.api.saved import StoredModel
from ptycho_core.errors import ConfigError, DataError, OutputError
from ptycho_core.io.result_folder import read_result_summary, verify_result

SETTINGS = SimulationConfig(
    object="dead_leaves", N=24, grid_shape=(6, 9), step_px=3.3, n_modes=2, photons=2e4, pixel_size_m=2e-8, seed=8
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("saved")


@pytest.fixture(scope="module")
def scan(place: Path) -> RawData:
    """A scan in a file, with a masked region and a background."""
    made = simulate(SETTINGS).raw
    mask = np.ones((24, 24), bool)
    mask[2:5, 17:20] = False
    counts = made.read_counts(range(made.n_frames)) + np.float32(0.25)
    raw = RawData.from_arrays(
        counts, made.positions_px, made.probe, mask=mask, background=np.full((24, 24), 0.25), geometry=made.geometry
    )
    write_scan(place / "scan.npz", raw)
    return read_scan(place / "scan.npz")


@pytest.fixture(scope="module")
def made(scan: RawData, place: Path) -> Run:
    plan = RefinementConfig(epochs=4, positions=True)
    config = TrainingConfig(epochs=2, test_fraction=0.1, seed=4, refinement=plan)
    return run(scan, config, out=place / "first", half_data=True, truth=simulate(SETTINGS).truth, title="a run")


@pytest.fixture
def folder(made: Run, tmp_path: Path) -> Path:
    """A copy of its folder to do things to."""
    assert made.folder is not None
    return Path(shutil.copytree(made.folder, tmp_path / "copy"))


def same_images(one: Run, two: Run) -> None:
    assert [s.name for s in one.stages] == [s.name for s in two.stages]
    for a, b in zip(one.stages, two.stages, strict=True):
        for name in ("object", "coverage", "origin_px", "probe", "positions_px"):
            assert np.array_equal(getattr(a.scored.image, name), getattr(b.scored.image, name)), name
        assert a.scored.image.scale == b.scored.image.scale
        assert np.array_equal(a.scored.frame_sums, b.scored.frame_sums)
        assert a.scored.train == b.scored.train
        assert a.scored.heldout == b.scored.heldout
        assert a.scored.engine == b.scored.engine


@pytest.mark.spec("NOTE-4")
def test_what_is_read_back_is_what_was_written(made: Run) -> None:
    assert made.folder is not None
    back = load_run(made.folder)
    assert len(made.stages) == 2
    same_images(made, back)
    assert back.title == "a run"
    assert back.config == made.config
    assert back.runtime.threads == made.runtime.threads
    assert back.verdict == made.verdict
    assert back.engine == "numpy"
    assert np.array_equal(back.scan.role, made.scan.role)
    assert dict(back.history) == {k: pytest.approx(v, nan_ok=True) for k, v in made.history.items()}
    assert back.refined is not None
    assert made.refined is not None
    assert back.refined.kept == made.refined.kept
    assert back.refined.positions == made.refined.positions
    assert back.refined.best is back.scored
    assert back.result.comparison is not None
    assert made.result.comparison is not None
    assert back.result.comparison.correlation == made.result.comparison.correlation
    assert back.result.half_data_frc is not None
    assert back.scan.raw.geometry == made.scan.raw.geometry
    assert np.array_equal(back.scan.raw.positions_px, made.scan.raw.positions_px)
    assert back.seconds["total"] == made.seconds["total"]
    assert back.model.statistics == made.model.statistics
    assert back.folder == made.folder


def test_it_is_good_for_looking_and_comparing(made: Run) -> None:
    assert made.folder is not None
    back = load_run(made.folder)
    for kind in ("object", "probe", "focus", "positions", "deviance", "losses"):
        assert back.plot(kind).axes
    assert compare(back, made).correlation == pytest.approx(1.0)
    assert "a run" in back._repr_html_()
    assert repr(back).startswith("Run('a run', numpy, solver → refined")
    assert "'model.ptycho'" in repr(back.model)


@pytest.mark.spec("NOTE-4")
def test_what_the_folder_does_not_hold_is_said(made: Run) -> None:
    assert made.folder is not None
    back = load_run(made.folder)
    with pytest.raises(DataError, match=r"does not hold the frames.*load_run"):
        back.scan.raw.read_counts([0])
    with pytest.raises(ConfigError, match=r"measured against predicted needs the frames.*scan=True"):
        back.plot("frames")
    assert "not shown" in back.scan._repr_html_()
    assert any("holds no frames, no mask and no background" in text for text in back.scan.raw.source.assumptions)
    with pytest.raises(DataError, match="does not hold the frames"):
        refine(back.scored, back.config)


@pytest.mark.parametrize("how", ["recorded", "path", "raw", "container"])
def test_with_its_scan_it_is_whole_again(made: Run, scan: RawData, place: Path, how: str) -> None:
    assert made.folder is not None
    given = {"recorded": True, "path": place / "scan.npz", "raw": scan, "container": made.scan}[how]
    back = load_run(made.folder, scan=given)
    assert back.scan.raw.mask is not None
    assert np.array_equal(back.scan.raw.mask, scan.mask)
    assert np.allclose(back.scored.frame_sums, made.scored.frame_sums, rtol=1e-5, atol=1e-5)
    assert set(back.scored.examples) == set(made.scored.examples)
    assert back.plot("frames").axes
    if how == "raw":
        plan = replace(back.config, refinement=RefinementConfig(epochs=2, positions=False))
        again = refine(back.scored, plan, tell=lambda text: None)
        assert again.history["train_loss"]


def test_its_model_makes_images(made: Run, scan: RawData) -> None:
    assert made.folder is not None
    back = load_run(made.folder, scan=scan)
    for backend in (None, "numpy", load_backend("numpy")):
        image = reconstruct(back.model, back.scan, same_scan=True, backend=backend).image
        assert np.array_equal(image.object, made.stages[0].scored.image.object)


@pytest.mark.spec("NOTE-4")
def test_another_scan_is_refused(made: Run, scan: RawData, place: Path, tmp_path: Path) -> None:
    assert made.folder is not None
    counts = scan.read_counts(range(scan.n_frames))
    known: dict[str, Any] = {"mask": scan.mask, "background": scan.background, "probe": scan.probe}
    others = {
        "its frames are": scan.subset(range(50)),
        "its positions differ by up to 1": replace(scan, positions_px=scan.positions_px + np.array([1.0, 0.0])),
        "frame 3 has": RawData.from_arrays(
            np.where(np.arange(54)[:, None, None] == 3, 2 * counts, counts), scan.positions_px, **known
        ),
    }
    for words, other in others.items():
        with pytest.raises(DataError, match=f"not the scan that .* was made of: {words}"):
            load_run(made.folder, scan=other)
    moved = Path(shutil.copytree(made.folder, tmp_path / "elsewhere"))
    change(moved, "reconstruction.h5", lambda path: edit_provenance(path, str(tmp_path / "gone.npz")))
    with pytest.raises(DataError, match=r"gone\.npz, which is not there from here"):
        load_run(moved, scan=True)
    change(moved, "reconstruction.h5", lambda path: edit_provenance(path, None))
    with pytest.raises(DataError, match="was made of arrays"):
        load_run(moved, scan=True)


def edit_provenance(path: Path, scan: str | None) -> None:
    import h5py

    with h5py.File(path, "r+") as file:
        content = json.loads(file["entry/provenance"].asstr()[()])
        content["data"]["path"] = scan
        del file["entry/provenance"]
        file["entry/provenance"] = json.dumps(content)


def change(folder: Path, name: str, edit: Callable[[Path], None]) -> None:
    """Change a file as somebody who knows how the summary lists it."""
    edit(folder / name)
    summary = json.loads((folder / "summary.json").read_text())
    summary["files"][name]["sha256"] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "summary.json").write_text(json.dumps(summary))


@pytest.mark.spec("NOTE-4")
def test_saving_writes_what_the_command_writes(made: Run, tmp_path: Path) -> None:
    saved = made.save(tmp_path / "by hand")
    assert saved.folder == tmp_path / "by hand"
    assert verify_result(saved.folder) == []
    assert made.folder is not None
    ours, theirs = read_result_summary(saved.folder), read_result_summary(made.folder)
    assert ours is not None
    assert theirs is not None
    assert ours["files"].keys() == theirs["files"].keys()
    assert ours["run_id"] != theirs["run_id"]
    for name in ("figures", "verdict", "config", "stages", "engine", "comparison", "refinement", "warnings"):
        assert ours[name] == theirs[name], name
    assert ours["seconds"]["total"] == theirs["seconds"]["total"]
    same_images(made, load_run(saved.folder))
    assert load_model(saved.folder / "model.ptycho").backend == "numpy"


def test_a_finished_result_is_replaced_only_when_asked(made: Run, tmp_path: Path) -> None:
    made.save(tmp_path / "x")
    with pytest.raises(OutputError, match="overwrite=True"):
        made.save(tmp_path / "x")
    replaced = replace(made, title="another").save(tmp_path / "x", overwrite=True)
    assert load_run(replaced.folder or "").title == "another"


def test_what_was_read_back_can_be_saved_also_over_itself(folder: Path, made: Run, tmp_path: Path) -> None:
    back = load_run(folder)
    again = back.save(tmp_path / "second")
    same_images(made, load_run(again.folder or ""))
    assert isinstance(back.model, StoredModel)
    over = back.save(folder, overwrite=True)
    same_images(made, load_run(over.folder or ""))
    assert load_run(over.folder or "").seconds["total"] == made.seconds["total"]
    assert (folder / "model.ptycho").read_bytes() == (tmp_path / "second" / "model.ptycho").read_bytes()


def test_saving_leaves_the_scan_alone(scan: RawData, made: Run, place: Path, tmp_path: Path) -> None:
    target = tmp_path / "reconstruction.h5"
    shutil.copy(place / "scan.npz", target)
    lost = replace(made, scan=replace(made.scan, raw=replace(
        made.scan.raw, source=replace(made.scan.raw.source, path=str(target)))))  # fmt: skip
    with pytest.raises(OutputError, match="the input would be replaced"):
        lost.save(tmp_path, overwrite=True)
    assert target.read_bytes() == (place / "scan.npz").read_bytes()


# ---- foreign, damaged and hostile folders: one typed error, which names the folder


def rewrite(folder: Path, **fields: Any) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, **fields}))


def stage(folder: Path, **fields: Any) -> list[dict[str, Any]]:
    stages: list[dict[str, Any]] = json.loads((folder / "summary.json").read_text())["stages"]
    return [{**stages[0], **fields}, *stages[1:]]


def deep(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


SPOILT: dict[str, Callable[[Path], Any]] = {
    "empty": lambda f: [p.unlink() for p in f.iterdir() if p.is_file()],
    "no summary": lambda f: (f / "summary.json").unlink(),
    "summary of somebody": lambda f: (f / "summary.json").write_text('{"format": "other"}'),
    "a list": lambda f: (f / "summary.json").write_text("[]"),
    "a training": lambda f: rewrite(f, kind="model"),
    "image changed": lambda f: (f / "reconstruction.h5").write_bytes(b"x" + (f / "reconstruction.h5").read_bytes()),
    "image touched": lambda f: edit_provenance(f / "reconstruction.h5", "another.npz"),
    "image gone": lambda f: (f / "reconstruction.h5").unlink(),
    "model changed": lambda f: (f / "model.ptycho").write_bytes(b"PK"),
    "model is no model": lambda f: change(f, "model.ptycho", lambda p: p.write_bytes(b"PK\x03\x04" + bytes(100))),
    "image is no image": lambda f: change(f, "reconstruction.h5", lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n")),
    "files is a number": lambda f: rewrite(f, files=7),
    "files are not listed": lambda f: rewrite(f, files={}),
    "stages is a text": lambda f: rewrite(f, stages="solver"),
    "stages are numbers": lambda f: rewrite(f, stages=[1, 2]),
    "no stages": lambda f: rewrite(f, stages=[]),
    "stage of another name": lambda f: rewrite(f, stages=stage(f, name="../../x")),
    "stage twice": lambda f: rewrite(f, stages=stage(f, name="refined")),
    "stage without an engine": lambda f: rewrite(f, stages=stage(f, engine=None)),
    "seconds are texts": lambda f: rewrite(f, seconds={"total": "long"}),
    "seconds are true": lambda f: rewrite(f, seconds={"total": True}),
    "seconds are huge": lambda f: rewrite(f, seconds={"total": 10**400}),
    "warnings is a text": lambda f: rewrite(f, warnings="none"),
    "runtime is nothing": lambda f: rewrite(f, runtime=None),
    "threads are texts": lambda f: rewrite(f, runtime={"threads": "two"}),
    "threads are negative": lambda f: rewrite(f, runtime={"threads": -1}),
    "folder is a number": lambda f: rewrite(f, runtime={"output_dir": 7}),
    "refinement is a list": lambda f: rewrite(f, refinement=[]),
    "refinement is empty": lambda f: rewrite(f, refinement={}),
    "history is a text": lambda f: rewrite(
        f, refinement={"engine": "numpy", "kept": True, "note": "", "history": {"train_loss": "x"}, "positions": None}
    ),
    "positions are half": lambda f: rewrite(
        f, refinement={"engine": "n", "kept": True, "note": "", "history": {}, "positions": {"scale_y": 1}}
    ),
    "comparison is half": lambda f: rewrite(f, stages=stage(f, comparison={"correlation": 1})),
    "comparison is a text": lambda f: rewrite(f, stages=stage(f, comparison="good")),
    "comparison is huge": lambda f: rewrite(f, stages=stage(f, comparison={"correlation": 10**400})),
    "nested": lambda f: rewrite(f, refinement=deep(500)),
}


@pytest.mark.spec("NOTE-4")
@pytest.mark.parametrize("what", SPOILT)
def test_a_spoilt_folder_meets_one_error_that_names_it(folder: Path, what: str) -> None:
    SPOILT[what](folder)
    with pytest.raises(DataError) as caught:
        load_run(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def h5_edit(folder: Path, edit: Callable[[Any], None]) -> None:
    import h5py

    def open_and_edit(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            edit(file["entry"])

    change(folder, "reconstruction.h5", open_and_edit)


def put(name: str, value: Any) -> Callable[[Any], None]:
    def edit(entry: Any) -> None:
        attributes = dict(entry[name].attrs) if name in entry else {}
        del entry[name]
        entry[name] = value
        entry[name].attrs.update(attributes)

    return edit


SPOILT_IMAGES: dict[str, Callable[[Any], None]] = {
    "verdict of another kind": put(
        "verdict", json.dumps({"kind": "gold", "sentence": "", "reasons": [], "advice": [], "figures": {}})
    ),
    "verdict half": put("verdict", json.dumps({"kind": "noise"})),
    "config is foreign": put("config", json.dumps({"backend": "numpy", "rm": 1})),
    "all roles unused": put("role", np.full(54, 2, np.uint8)),
    "stage is a number": put("stages/solver", 7),
    "stage without figures": lambda entry: entry["stages/solver"].__delitem__("frame_figures"),
    "stages in a stage": lambda entry: entry["stages/solver"].create_group("stages"),
    "figures of fewer frames": put("frame_figures", np.ones((3, 8))),
    "probe of another size in a stage": put("stages/solver/probe", np.ones((1, 30, 30), np.complex64)),
    "positions are a point": put("nominal_positions_px", np.zeros((54, 2))),
}  # fmt: skip


@pytest.mark.parametrize("what", SPOILT_IMAGES)
def test_an_image_that_is_not_ours_meets_it_too(folder: Path, what: str) -> None:
    h5_edit(folder, SPOILT_IMAGES[what])
    with pytest.raises(DataError) as caught:
        load_run(folder)
    assert str(folder) in str(caught.value)


def test_a_picture_that_was_changed_is_told_and_costs_no_run(folder: Path) -> None:
    (folder / "probe.png").write_bytes(b"x")
    back = load_run(folder)
    assert any("probe.png in the result folder was changed since" in text for text in back.warnings)


def test_what_a_folder_says_only_shows(folder: Path) -> None:
    rewrite(folder, warnings=["\x1b[31m\u202e<b>"], engine="\x1bx")
    back = load_run(folder)
    assert "\x1b" not in back.engine + "".join(back.warnings)
    assert "\u202e" not in "".join(back.warnings)
    assert "<b>" not in back._repr_html_()


def test_a_path_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    for path in (tmp_path / "x", tmp_path / "nothing", tmp_path):
        with pytest.raises(DataError, match="no finished result"):
            load_run(path)
