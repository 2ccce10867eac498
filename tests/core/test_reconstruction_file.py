"""reconstruction.h5: what is written is read back, viewers find their attributes, bad files get one clear error."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from ptycho_core.config import ModelConfig, TrainingConfig
from ptycho_core.data.results import Reconstruction
from ptycho_core.errors import DataError, OutputError
from ptycho_core.io.reconstruction_file import plain_json, read_reconstruction, write_reconstruction

CONFIG = TrainingConfig(epochs=3, model=ModelConfig(width=7), output_dir=Path("out"))


def make_reconstruction() -> Reconstruction:
    rng = np.random.default_rng(5)
    obj = (rng.normal(size=(37, 51)) + 1j * rng.normal(size=(37, 51))).astype(np.complex64)
    coverage = rng.random((37, 51)).astype(np.float32)
    coverage[:3], obj[:3] = 0, 0
    return Reconstruction(
        object=obj,
        coverage=coverage,
        origin_px=np.array([-4.0, 11.0]),
        probe=(rng.normal(size=(2, 16, 16)) + 1j * rng.normal(size=(2, 16, 16))).astype(np.complex64),
        scale=0.37,
        positions_px=rng.random((9, 2)) * 20,
        nominal_positions_px=rng.random((9, 2)) * 20,
        r_factor=0.0125,
        frame_misfit=rng.random(9),
        frame_totals=rng.random(9) + 5,
        dropped={"masked_pixels": 4},
    )


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "reconstruction.h5"
    write_reconstruction(
        path,
        make_reconstruction(),
        history={"test_loss": [3.0, 2.0], "train_loss": [2.5, 1.5], "rate/peak": [1.0]},
        config=CONFIG,
        provenance={"seed": np.int64(4), "nan": float("nan")},
        pixel_size_m=26e-9,
    )
    return path


def test_what_is_written_is_read_back(written: Path) -> None:
    expected, stored = make_reconstruction(), read_reconstruction(written)
    for name in ("object", "coverage", "origin_px", "probe", "positions_px"):
        np.testing.assert_array_equal(getattr(stored, name), getattr(expected, name))
        assert getattr(stored, name).dtype == getattr(expected, name).dtype
    assert (stored.scale, stored.r_factor, stored.pixel_size_m) == (0.37, 0.0125, 26e-9)
    assert stored.losses == {"test_loss": [3.0, 2.0], "train_loss": [2.5, 1.5], "rate_peak": [1.0]}
    assert stored.config["model"]["width"] == 7
    assert stored.config["output_dir"] == "out"
    assert stored.provenance == {"seed": 4, "nan": None}


def test_paths_and_attributes_are_those_promised(written: Path) -> None:
    with h5py.File(written) as file:
        entry = file["entry"]
        assert entry["object"].dtype == np.complex64
        assert entry["coverage"].dtype == np.float32
        assert entry["probe"].dtype == np.complex64
        assert entry["positions_px"].dtype == np.float64
        np.testing.assert_array_equal(entry["object"].attrs["origin_px"], [-4.0, 11.0])
        assert entry["object"].attrs["pixel_size_m"] == 26e-9
        assert entry["scale"].shape == ()
        assert json.loads(entry["dropped"].asstr()[()]) == {"masked_pixels": 4}
        assert json.loads(entry["config"].asstr()[()])["epochs"] == 3


def test_viewers_are_led_to_an_image_on_scan_coordinates(written: Path) -> None:
    expected = make_reconstruction()
    with h5py.File(written) as file:
        entry = file[file.attrs["default"]]
        assert entry.attrs["NX_class"] == "NXentry"
        image = entry[entry.attrs["default"]]
        assert image.attrs["NX_class"] == "NXdata"
        signal = image[image.attrs["signal"]]
        assert list(image.attrs["axes"]) == ["y", "x"]
        assert signal.shape == (len(image["y"]), len(image["x"])) == (37, 51)
        assert image["y"][1] == pytest.approx(-3 * 26e-9)
        assert image["x"][0] == pytest.approx(11 * 26e-9)
        assert np.isnan(signal[:3]).all()
        turned = expected.object[5:] * np.exp(-1j * signal.attrs["removed_global_phase_rad"])
        np.testing.assert_allclose(signal[5:], np.angle(turned), atol=1e-5)
        np.testing.assert_array_equal(image["amplitude"][5:], np.abs(expected.object[5:]))
        assert image["coverage"] == entry["coverage"]
        assert set(image.attrs["auxiliary_signals"]) <= set(image)
        losses = entry["losses"]
        assert losses.attrs["signal"] == "train_loss"
        assert list(losses.attrs["auxiliary_signals"]) == ["test_loss"]
        np.testing.assert_array_equal(losses["epoch"], [1, 2])


def test_no_pixel_size_and_no_history_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "r.h5"
    write_reconstruction(path, make_reconstruction(), history={}, config=CONFIG, provenance={})
    stored = read_reconstruction(path)
    assert stored.pixel_size_m is None
    assert stored.losses == {}
    with h5py.File(path) as file:
        assert file["entry/image/y"].attrs["units"] == "pixel"
        assert file["entry/image/y"][0] == -4.0


def test_a_history_with_its_own_epoch_column_is_written(tmp_path: Path) -> None:
    path = tmp_path / "r.h5"
    history = {"epoch": [0.0, 1.0], "train_loss": [2.0, 1.0]}
    write_reconstruction(path, make_reconstruction(), history=history, config=CONFIG, provenance={})
    with h5py.File(path) as file:
        assert file["entry/losses"].attrs["signal"] == "train_loss"
        np.testing.assert_array_equal(file["entry/losses/epoch"], [0.0, 1.0])


def test_a_failed_write_leaves_the_old_file(written: Path) -> None:
    before = written.read_bytes()
    with pytest.raises(ValueError, match="could not convert"):
        write_reconstruction(
            written,
            make_reconstruction(),
            history={"train_loss": ["x"]},
            config=CONFIG,
            provenance={},  # type: ignore[list-item]
        )
    assert written.read_bytes() == before
    assert [p.name for p in written.parent.iterdir()] == [written.name]


def test_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nowhere"):
        write_reconstruction(
            tmp_path / "nowhere" / "r.h5", make_reconstruction(), history={}, config=CONFIG, provenance={}
        )


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
        (_replace("object", np.ones((2, 37, 51), np.complex64)), "rank 2"),
        (_replace("object", np.full((37, 51), np.nan + 0j)), "/entry/object holds NaN"),
        (_replace("coverage", np.ones((51, 37))), r"\(51, 37\), the object \(37, 51\)"),
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
        file.attrs["format_version"] = 2
    with pytest.raises(DataError, match="format version 2"):
        read_reconstruction(written)


def test_plain_json_holds_only_strict_json() -> None:
    plain = plain_json(
        {"a": np.float32(0.5), 2: np.array([[1, 2]]), "p": Path("x"), "c": 1 + 2j, "t": (float("inf"), True, None)}
    )
    assert plain == {"a": 0.5, "2": [[1, 2]], "p": "x", "c": [1.0, 2.0], "t": [None, True, None]}
    json.dumps(plain, allow_nan=False)
