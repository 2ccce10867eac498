"""Values in HDF5 files: through links, with their units, and what is gone named."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from h5_writer import writing

from ptycho_core import read_scan
from ptycho_core.data.frames import Hdf5Frames
from ptycho_core.errors import DataError
from ptycho_core.io import h5_values as values


def a_file(folder: Path, **datasets: object) -> Path:
    path = folder / "scan.h5"
    with h5py.File(path, "w") as h5:
        for name, value in datasets.items():
            h5[name] = value
    return path


def test_links_of_every_kind_are_followed(tmp_path: Path) -> None:
    path = a_file(tmp_path, there=np.arange(3.0))
    with h5py.File(tmp_path / "beside.h5", "w") as h5:
        h5["deep/values"] = np.arange(4.0)
    with h5py.File(path, "a") as h5:
        h5["hard"] = h5["there"]
        h5["soft"] = h5py.SoftLink("/there")
        h5["external"] = h5py.ExternalLink("beside.h5", "/deep")
    with values.open_h5(path) as h5:
        for name in ("there", "hard", "soft"):
            np.testing.assert_array_equal(values.array_at(h5, name), np.arange(3.0))
        np.testing.assert_array_equal(values.array_at(h5, "external/values"), np.arange(4.0))
        assert values.array_at(h5, "there/below") is None
        assert values.dataset_at(h5, "external") is None
        found = values.first_dataset(h5, ("nowhere", "external", "soft", "hard"))
        assert found is not None
        assert found[0] == "soft"


@pytest.mark.parametrize(
    ("link", "named"),
    [
        (h5py.SoftLink("/gone/away"), "'/gone/away'"),
        (h5py.ExternalLink("other.h5", "/mask"), "'/mask' of 'other.h5'"),
    ],
)
@pytest.mark.spec("READ-2")
def test_a_link_that_leads_nowhere_is_an_error_that_names_both(tmp_path: Path, link: object, named: str) -> None:
    path = a_file(tmp_path)
    with h5py.File(path, "a") as h5:
        h5["a/mask"] = link
    with values.open_h5(path) as h5:
        assert values.array_at(h5, "a/other") is None
        with pytest.raises(DataError, match=rf"scan\.h5: 'a/mask' is a link to {named}, which is not there"):
            values.array_at(h5, "a/mask")


def virtual(path: Path, source: str, inside: str = "data") -> None:
    layout = h5py.VirtualLayout((4, 6, 8), "u2")
    layout[:] = h5py.VirtualSource(source, inside, (4, 6, 8))
    with h5py.File(path, "a") as h5:
        h5.create_virtual_dataset("frames", layout)


@pytest.mark.spec("READ-2")
def test_a_virtual_dataset_whose_source_is_gone_is_an_error_that_names_it(tmp_path: Path) -> None:
    path, source = a_file(tmp_path), tmp_path / "raw.h5"
    counts = np.arange(192, dtype="u2").reshape(4, 6, 8)
    with h5py.File(source, "w") as h5:
        h5["data"] = counts
    virtual(path, "raw.h5")
    with values.open_h5(path) as h5:
        np.testing.assert_array_equal(values.array_at(h5, "frames"), counts)
    with h5py.File(source, "a") as h5:
        h5.move("data", "elsewhere")
    with values.open_h5(path) as h5, pytest.raises(DataError, match=r"of 'data' in 'raw\.h5', which holds no such"):
        values.dataset_at(h5, "frames")
    source.unlink()
    with values.open_h5(path) as h5, pytest.raises(DataError, match=r"'raw\.h5' is not there"):
        values.dataset_at(h5, "frames")


def test_a_virtual_dataset_finds_its_source_as_hdf5_does(tmp_path: Path) -> None:
    # moved together: an absolute name that is gone is looked for beside the file
    path = a_file(tmp_path)
    with h5py.File(tmp_path / "raw.h5", "w") as h5:
        h5["data"] = np.ones((4, 6, 8), "u2")
    virtual(path, "/no/such/folder/raw.h5")
    with values.open_h5(path) as h5:
        read = values.array_at(h5, "frames")
    assert read is not None
    assert read.all()


@pytest.mark.parametrize(
    ("unit", "quantity", "factor"),
    [
        ("m", "length", 1.0),
        ("mm", "length", 1e-3),
        ("microns", "length", 1e-6),
        ("Angstrom", "length", 1e-10),
        ("keV", "energy", 1e3),
        ("KeV", "energy", 1e3),
        ("eV", "energy", 1.0),
        ("joules", "energy", 1 / 1.602176634e-19),
        ("deg", "angle", np.pi / 180),
    ],
)
@pytest.mark.spec("READ-3")
def test_units_are_obeyed(tmp_path: Path, unit: str, quantity: str, factor: float) -> None:
    path = a_file(tmp_path, value=np.array([2.5]))
    with h5py.File(path, "a") as h5:
        h5["value"].attrs["units"] = np.bytes_(unit)
    with values.open_h5(path) as h5:
        found = values.measured_at(h5, "value", quantity)
        assert found is not None
        assert found.unit == unit
        np.testing.assert_allclose(found.values, [2.5 * factor], rtol=1e-15)


def test_a_unit_that_is_none_is_refused_with_the_option(tmp_path: Path) -> None:
    path = a_file(tmp_path, distance=1.0)
    with h5py.File(path, "a") as h5:
        h5["distance"].attrs["units"] = "furlong"
    with values.open_h5(path) as h5, pytest.raises(DataError, match=r"'furlong'.*cm, mm.*--distance_m"):
        values.length_at(h5, "distance", "sample to detector", option="--distance_m")


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_one_number_is_a_scalar_or_an_array_of_one(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = a_file(tmp_path, z=np.full(shape, 72.0), many=[1.0, 2.0], same=[3.0, 3.0])
    with values.open_h5(path) as h5:
        assert values.number_at(h5, "z", "metres") == 72.0
        assert values.length_at(h5, "z", "metres", unstated="mm") == pytest.approx(0.072, rel=1e-15)
        assert values.number_at(h5, "same", "metres") == 3.0
        assert values.number_at(h5, "nowhere", "metres") is None
        with pytest.raises(DataError, match="'many' must be one finite number, metres; found"):
            values.number_at(h5, "many", "metres")


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan])
def test_a_length_is_more_than_nothing(tmp_path: Path, bad: float) -> None:
    path = a_file(tmp_path, z=bad)
    with values.open_h5(path) as h5, pytest.raises(DataError, match=r"scan\.h5: 'z' must be"):
        values.length_at(h5, "z", "metres")


def test_text_comes_in_any_form(tmp_path: Path) -> None:
    path = a_file(tmp_path, a=b"one ", b="two", c=np.array([b"three\0"]), d=np.array(["four"], dtype=object), e=1.5)
    with values.open_h5(path) as h5:
        assert [values.text_at(h5, name) for name in "abcdez"] == ["one", "two", "three", "four", "", None]


def test_compound_complex_values_are_complex(tmp_path: Path) -> None:
    stored = np.zeros((2, 3), [("real", "f8"), ("imag", "f8")])
    stored["real"], stored["imag"] = np.arange(6).reshape(2, 3), -2.0
    path = a_file(tmp_path, probe=stored)
    with values.open_h5(path) as h5:
        np.testing.assert_array_equal(values.array_at(h5, "probe", "c"), np.arange(6).reshape(2, 3) - 2j)
        with pytest.raises(DataError, match="complex128 values"):
            values.array_at(h5, "probe")


@pytest.mark.spec("READ-4")
def test_a_file_that_is_still_written_is_said_to_be_and_followed_where_asked(tmp_path: Path) -> None:
    path, counts = tmp_path / "live.h5", np.arange(96).reshape(2, 6, 8)
    lines = """
d = f.create_dataset("data", (2, 6, 8), "u2", maxshape=(None, 6, 8), chunks=(1, 6, 8))
d[:] = np.arange(96).reshape(2, 6, 8)
f.swmr_mode = True"""
    with writing(path, lines):
        with pytest.raises(DataError, match=r"live\.h5: is still being written.*--follow"), values.open_h5(path):
            pass
        with pytest.raises(DataError, match="--follow"):
            Hdf5Frames(path, "data", (2, 6, 8)).read(np.array([0]))
        with values.open_h5(path, follow=True) as h5:
            assert h5.swmr_mode
            assert h5["data"].shape == (2, 6, 8)
        frames = Hdf5Frames(path, "data", (2, 6, 8), follow=True)
        np.testing.assert_array_equal(frames.read(np.array([1, 0])), counts[::-1])
    with values.open_h5(path, follow=True) as h5:
        assert not h5.swmr_mode


def test_a_writer_that_lets_nobody_read_is_said_to_be_one(tmp_path: Path) -> None:
    path = a_file(tmp_path, data=np.zeros(3))
    with writing(path, ""):
        with pytest.raises(DataError, match="SWMR mode"), values.open_h5(path, follow=True):
            pass
        with pytest.raises(DataError, match="--follow"), values.open_h5(path):
            pass


@pytest.mark.spec("READ-4")
def test_a_scan_of_our_own_is_followed_too(tmp_path: Path) -> None:
    path = tmp_path / "live.h5"
    lines = """
f.attrs.update(format="ptycho-scan", version=1)
d = f.create_dataset("frames", (30, 8, 8), "u2", chunks=(2, 8, 8))
d.attrs["measurement"] = "counts"
p = f.create_dataset("positions_px", (9, 2), "f8", maxshape=(None, 2), chunks=(1, 2))
f.swmr_mode = True
d[:10] = np.arange(640).reshape(10, 8, 8)
p[:] = np.arange(18).reshape(9, 2)
d.flush()
p.flush()"""
    with writing(path, lines):
        raw = read_scan(path, follow=True)
        assert raw.n_frames == 9  # ten frames, nine of which have a position
        np.testing.assert_array_equal(raw.positions_px, np.arange(18).reshape(9, 2))
        np.testing.assert_array_equal(raw.read_counts([8]), np.arange(512, 576).reshape(1, 8, 8))
        assert any("its first 9 frames are read" in text for text in raw.source.assumptions)
        with pytest.raises(DataError, match="--follow"):
            read_scan(path)
