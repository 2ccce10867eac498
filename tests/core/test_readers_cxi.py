"""CXI as its definition allows it and as programs write it: shapes, units, links, entries, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from h5_writer import writing
from reader_truth import (
    DETECTOR_PIXEL_M,
    DISTANCE_M,
    ENERGY_EV,
    PIXEL_M,
    RASTER,
    WAVELENGTH_M,
    N,
    Truth,
    a_truth,
    misfit,
)

from ptycho_core import read_scan
from ptycho_core.errors import DataError
from ptycho_core.io.readers import cxi_parts
from ptycho_core.io.registry import read_recording
from ptycho_core.physics.propagation import energy_of_eV, wavelength_m
from ptycho_core.reader_protocol import ReadOptions

JOULES = 1.602176634e-19
TRUTH = a_truth()


def motions(positions_m: np.ndarray) -> np.ndarray:
    """Motions (M, 3) of the sample for a detector whose rows step along +x and columns along -y."""
    y, x = positions_m.T
    return np.stack([-y, x, np.zeros_like(x)], axis=1)


def content(truth: Truth = TRUTH) -> dict[str, Any]:
    """Paths below an entry."""
    detector = "instrument_1/detector_1"
    return {
        f"{detector}/data": truth.counts,
        f"{detector}/distance": DISTANCE_M,
        f"{detector}/x_pixel_size": DETECTOR_PIXEL_M,
        f"{detector}/y_pixel_size": DETECTOR_PIXEL_M,
        f"{detector}/basis_vectors": DETECTOR_PIXEL_M * np.array([[1.0, 0.0], [0.0, -1.0], [0.0, 0.0]]),
        "instrument_1/source_1/wavelength": WAVELENGTH_M,
        "sample_1/geometry_1/translation": motions(truth.positions_m),
        "data_1/data": h5py.SoftLink("instrument_1/detector_1/data"),
    }


def write(path: Path, changes: dict[str, Any] | None = None, entries: tuple[str, ...] = ("entry_1",)) -> Path:
    """A file of some entries; a change to None leaves a path out, a pair is a value with its units."""
    with h5py.File(path, "w") as h5:
        h5["cxi_version"] = 160
        for entry in entries:
            for name, value in (content() | (changes or {})).items():
                if isinstance(value, tuple):
                    h5[f"{entry}/{name}"] = value[0]
                    h5[f"{entry}/{name}"].attrs["units"] = value[1]
                elif isinstance(value, h5py.SoftLink) and not value.path.startswith("/"):
                    h5[f"{entry}/{name}"] = h5py.SoftLink(f"/{entry}/{value.path}")
                elif value is not None:
                    h5[f"{entry}/{name}"] = value
    return path


def read(path: Path, **said: Any):
    """The recording, nothing settled."""
    return read_recording(path, ReadOptions(**said))


def test_the_truth_explains_what_is_read(tmp_path: Path) -> None:
    raw = read_scan(write(tmp_path / "a.cxi"))
    assert misfit(raw, TRUTH) < 1e-4
    assert raw.geometry.pixel_size_m == pytest.approx(PIXEL_M, rel=1e-9)
    np.testing.assert_allclose(raw.positions_px, TRUTH.positions_px, atol=1e-6)
    # and the check can fail: turned axes of the detector are another scan
    turned = content()["instrument_1/detector_1/basis_vectors"][:, ::-1]
    assert misfit(read_scan(write(tmp_path / "b.cxi", {"instrument_1/detector_1/basis_vectors": turned})), TRUTH) > 0.05


MOTIONS = motions(TRUTH.positions_m)


@pytest.mark.parametrize(
    "changes",
    [
        {"sample_1/geometry_1/translation": MOTIONS.T},
        {"sample_1/geometry_1/translation": MOTIONS[:, :2]},
        {"sample_1/geometry_1/translation": MOTIONS[:, :2].T},
        {"sample_1/geometry_1/translation": (MOTIONS * 1e6, "um")},
        {"sample_1/geometry_1/translation": MOTIONS.reshape(*RASTER, 3)},
        {"sample_1/geometry_1/translation": None, "data_1/translation": MOTIONS},
        {
            "instrument_1/detector_1/distance": np.array([DISTANCE_M]),
            "instrument_1/detector_1/x_pixel_size": np.array([[DETECTOR_PIXEL_M]]),
        },
        {"instrument_1/detector_1/distance": (DISTANCE_M * 1e3, "mm")},
        {"instrument_1/source_1/wavelength": (WAVELENGTH_M * 1e10, "angstrom")},
        {"instrument_1/source_1/wavelength": None, "instrument_1/source_1/energy": ENERGY_EV * JOULES},
        {"instrument_1/source_1/wavelength": None, "instrument_1/source_1/energy": np.array([ENERGY_EV])},
        {"instrument_1/source_1/wavelength": None, "instrument_1/source_1/energy": ENERGY_EV / 1e3},
        {"instrument_1/source_1/wavelength": None, "instrument_1/source_1/energy": (ENERGY_EV / 1e3, "keV")},
        # NeXus: the machine's energy in source_1, the photon's in beam_1
        {
            "instrument_1/source_1/wavelength": None,
            "instrument_1/source_1/energy": (3.0, "GeV"),
            "instrument_1/beam_1/energy": (ENERGY_EV, "eV"),
        },
        {"data_1/data": None},
        {"data_1/data": TRUTH.counts.reshape(*RASTER, N, N), "instrument_1/detector_1/data": None},
        {"data_1/data": TRUTH.counts[:, None], "instrument_1/detector_1/data": None},
        {"data_1/data": TRUTH.counts, "instrument_1/detector_1/data": h5py.SoftLink("data_1/data")},
        {
            "data_1/data": np.fft.ifftshift(TRUTH.counts, axes=(1, 2)),
            "data_1/is_fft_shifted": 1,
            "instrument_1/detector_1/data": None,
        },
        {
            "image_1/data": np.sqrt(TRUTH.counts),
            "image_1/data_type": "unphased amplitude",
            "image_1/data_space": "diffraction",
            "data_1/data": None,
            "instrument_1/detector_1/data": None,
        },
        {"image_1/data": np.ones((5, 40, 40), "f4"), "image_1/data_space": "real"},
    ],
)
@pytest.mark.spec("READ-3", "READ-5")
def test_what_the_definition_allows_is_one_scan(tmp_path: Path, changes: dict[str, Any]) -> None:
    plain = read(write(tmp_path / "plain.cxi"))
    found = read(write(tmp_path / "a.cxi", changes))
    np.testing.assert_allclose(found.positions, plain.positions, rtol=1e-12, atol=1e-20)
    for key in ("energy_eV", "distance_m", "detector_pixel_size_m"):
        assert getattr(found.geometry, key) == pytest.approx(getattr(plain.geometry, key), rel=1e-9)
    numbers = np.array([19, 3, 7])
    np.testing.assert_allclose(found.frames.read(numbers), TRUTH.counts[numbers], rtol=1e-5)
    on_raster = np.shape(changes.get("data_1/data")) == (*RASTER, N, N)
    assert found.raster == (RASTER if on_raster else None)


def test_frames_of_any_shape_come_as_they_are_stored(tmp_path: Path) -> None:
    counts = np.arange(20 * 24 * 30, dtype="u2").reshape(20, 24, 30)
    found = read(write(tmp_path / "a.cxi", {"instrument_1/detector_1/data": counts}))
    assert found.frames.shape == (20, 24, 30)
    np.testing.assert_array_equal(found.frames.read(np.array([4, 1])), counts[[4, 1]])


def test_an_energy_in_kev_is_said_to_be_taken_as_one(tmp_path: Path) -> None:
    changes = {"instrument_1/source_1/wavelength": None, "instrument_1/source_1/energy": 8.8}
    found = read(write(tmp_path / "a.cxi", changes))
    assert found.geometry.energy_eV == pytest.approx(8800)
    assert any("was taken as keV" in text and "--energy_eV" in text for text in found.source.warnings)


@pytest.mark.parametrize("energy", [3.0, 3e9, 1e-10, 1e-25, 2e6, 0.01])
def test_an_energy_that_may_be_two_or_none_is_refused_with_the_option(tmp_path: Path, energy: float) -> None:
    path = write(tmp_path / "a.cxi", {"instrument_1/source_1/wavelength": None, "instrument_1/source_1/energy": energy})
    with pytest.raises(DataError, match=r"source_1/energy.*Give --energy_eV"):
        read(path)
    assert read(path, energy_eV=6200.0).geometry.energy_eV is None


def test_wavelength_and_energy_that_contradict_each_other_are_said_to(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.cxi", {"instrument_1/source_1/energy": 2 * ENERGY_EV * JOULES}))
    assert found.geometry.energy_eV == pytest.approx(ENERGY_EV)
    assert any("stated as 12400 eV" in text for text in found.source.warnings)


@pytest.mark.parametrize("kind", ["soft", "hard", "external"])
@pytest.mark.spec("READ-2")
def test_a_mask_behind_a_link_counts_as_if_it_lay_there(tmp_path: Path, kind: str) -> None:
    bits = np.zeros((N, N), "u4")
    bits[3, 5], bits[7, 9], bits[8, 8] = 1, 0x8, 0x2000
    with h5py.File(tmp_path / "masks.h5", "w") as h5:
        h5["eiger"] = bits
    path = write(tmp_path / "a.cxi")
    with h5py.File(path, "a") as h5:
        h5["masks/eiger"] = bits
        links = {
            "soft": h5py.SoftLink("/masks/eiger"),
            "hard": h5["masks/eiger"],
            "external": h5py.ExternalLink("masks.h5", "/eiger"),
        }
        h5["entry_1/instrument_1/detector_1/mask"] = links[kind]
    found = read(path)
    assert found.mask is not None
    assert sorted(map(tuple, np.argwhere(~found.mask).tolist())) == [(3, 5), (7, 9)]
    assert any("masks.h5" in text for text in found.source.assumptions) == (kind == "external")


@pytest.mark.spec("READ-2")
def test_a_mask_whose_link_leads_nowhere_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.cxi", {"instrument_1/detector_1/mask": h5py.SoftLink("/masks/eiger")})
    with pytest.raises(DataError, match="detector_1/mask' is a link to '/masks/eiger', which is not there"):
        read(path)


@pytest.mark.spec("READ-2")
def test_virtual_frames_whose_source_is_gone_are_an_error(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "raw.h5", "w") as h5:
        h5["data"] = TRUTH.counts
    layout = h5py.VirtualLayout(TRUTH.counts.shape, "f4")
    layout[:] = h5py.VirtualSource("raw.h5", "data", TRUTH.counts.shape)
    path = write(tmp_path / "a.cxi", {"instrument_1/detector_1/data": None, "data_1/data": None})
    with h5py.File(path, "a") as h5:
        h5.create_virtual_dataset("entry_1/data_1/data", layout)
    np.testing.assert_array_equal(read(path).frames.read(np.arange(20)), TRUTH.counts)
    (tmp_path / "raw.h5").unlink()
    with pytest.raises(DataError, match=r"virtual dataset whose source 'raw\.h5' is not there"):
        read(path)


def test_masks_of_every_frame_leave_what_is_good_in_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cxi_parts, "_MASK_BYTES", 3 * 8 * N * N)  # a few at a time
    bits = np.zeros((20, N, N), "u2")
    bits[2, 1, 1], bits[17, 2, 4] = 1, 2
    found = read(write(tmp_path / "a.cxi", {"instrument_1/detector_1/mask": bits}))
    assert found.mask is not None
    assert sorted(map(tuple, np.argwhere(~found.mask).tolist())) == [(1, 1), (2, 4)]
    assert any("hides 2 pixels, those that are bad in any frame" in text for text in found.source.assumptions)


def test_a_mask_of_frames_from_the_corner_is_moved_with_them(tmp_path: Path) -> None:
    bits = np.zeros((N, N), "u2")
    bits[0, 1] = 1
    found = read(write(tmp_path / "a.cxi", {"data_1/is_fft_shifted": True, "instrument_1/detector_1/mask": bits}))
    assert found.mask is not None
    assert np.argwhere(~found.mask).tolist() == [[16, 17]]


@pytest.mark.spec("READ-6")
def test_several_entries_are_listed_and_one_is_chosen(tmp_path: Path) -> None:
    path = write(tmp_path / "a.cxi", entries=("entry_1", "entry_2", "entry_10"))
    with h5py.File(path, "a") as h5:
        h5["entry_2/instrument_1/detector_1/data"][...] = 2 * TRUTH.counts
        h5["entry_3/image_1/data"] = np.ones((40, 40), complex)  # a reconstruction is no scan
    with pytest.raises(DataError, match=r"holds 3 scans: entry_1, entry_2, entry_10.*--entry entry_1"):
        read(path)
    for word in ("entry_2", "1", "/entry_2/"):
        found = read(path, entry=word)
        np.testing.assert_array_equal(found.frames.read(np.array([4])), 2 * TRUTH.counts[[4]])
    with pytest.raises(DataError, match=r"no scan '3'.*entry_10"):
        read(path, entry="3")


def test_the_only_scan_may_be_in_entry_2(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.cxi", entries=("entry_2",))).frames.shape == (20, N, N)


@pytest.mark.spec("READ-6")
def test_two_detectors_in_one_entry_are_two_scans(tmp_path: Path) -> None:
    path = write(tmp_path / "a.cxi", {"data_2/data": np.ones((20, 8, 8), "u2")})
    with pytest.raises(DataError, match="entry_1/data_1, entry_1/data_2"):
        read(path)
    assert read(path, entry="entry_1/data_2").frames.shape == (20, 8, 8)


def test_several_images_a_position_are_refused(tmp_path: Path) -> None:
    frames = np.ones((20, 3, N, N), "u2")
    path = write(tmp_path / "a.cxi", {"instrument_1/detector_1/data": frames})
    with pytest.raises(DataError, match=r"3 images \(modules or repeats\) at each of 20 positions"):
        read(path)


PROBE = np.asarray(TRUTH.probe[0], np.complex64)
COMPOUND = np.zeros(PROBE.shape, [("real", "f4"), ("imag", "f4")])
COMPOUND["real"], COMPOUND["imag"] = PROBE.real, PROBE.imag


@pytest.mark.parametrize(
    ("path", "stored", "said"),
    [
        ("instrument_1/source_1/illumination", PROBE, ""),
        ("instrument_1/source_1/probe", PROBE, ""),
        ("image_1/instrument_1/source_1/illumination", PROBE[None], ""),
        ("instrument_1/source_1/illumination", np.stack([PROBE.real, PROBE.imag], axis=-1), "real and imaginary part"),
        ("instrument_1/source_1/illumination", COMPOUND, ""),
        ("instrument_1/source_1/illumination", np.fft.ifftshift(PROBE), "centre at the corner"),
    ],
)
@pytest.mark.spec("READ-7")
def test_a_probe_is_found_and_recognised(tmp_path: Path, path: str, stored: np.ndarray, said: str) -> None:
    found = read(write(tmp_path / "a.cxi", {path: stored}))
    assert found.probe is not None
    np.testing.assert_array_equal(found.probe, PROBE[None])
    assert any(said in text for text in found.source.assumptions)
    assert any("source_1" in text for text in found.source.assumptions)


def test_the_beam_of_the_file_is_the_centre(tmp_path: Path) -> None:
    here = "instrument_1/detector_1"
    assert read(write(tmp_path / "a.cxi", {f"{here}/image_center": [20.0, 11.0, 0.0]})).centre_px == (11.0, 20.0)
    stated = {f"{here}/beam_center_x": (20 * DETECTOR_PIXEL_M, "m"), f"{here}/beam_center_y": (11.0, "pixels")}
    assert read(write(tmp_path / "a.cxi", stated)).centre_px == pytest.approx((11.0, 20.0))
    assert read(write(tmp_path / "a.cxi", {f"{here}/image_center": [15.5, 15.5, 0.0]})).centre_px is None
    off = read(write(tmp_path / "a.cxi", {f"{here}/image_center": [200.0, 11.0, 0.0]}))
    assert off.centre_px is None
    assert any("off its frames" in text for text in off.source.warnings)


def test_electrons_are_told_by_the_file(tmp_path: Path) -> None:
    changes = {"instrument_1/source_1/probe": "electron", "instrument_1/source_1/wavelength": 1.9687e-12}
    found = read(write(tmp_path / "a.cxi", changes))
    assert found.geometry.radiation == "electron"
    assert found.geometry.energy_eV == pytest.approx(300e3, rel=1e-4)


def test_what_is_missing_is_named_with_its_option_and_need_not_be_there_when_given(tmp_path: Path) -> None:
    path = write(tmp_path / "a.cxi", {"instrument_1/detector_1/distance": None})
    with pytest.raises(DataError, match=r"no entry_1/instrument_1/detector_1/distance.*--distance_m"):
        read(path)
    raw = read_scan(path, distance_m=DISTANCE_M)
    np.testing.assert_allclose(raw.positions_px, TRUTH.positions_px, atol=1e-6)


def test_a_corner_that_puts_the_beam_elsewhere_is_told(tmp_path: Path) -> None:
    here = "instrument_1/detector_1"
    rows, columns = content()[f"{here}/basis_vectors"].T
    middle = {f"{here}/corner_position": -(16 * rows + 16 * columns)}
    assert read(write(tmp_path / "a.cxi", middle)).source.warnings == ()
    off = read(write(tmp_path / "b.cxi", {f"{here}/corner_position": -(20 * rows + 11 * columns)}))
    assert off.centre_px is None
    assert any("puts the beam at pixel (20, 11)" in text and "--centre" in text for text in off.source.warnings)


def test_an_image_in_real_space_is_no_frames(tmp_path: Path) -> None:
    changes = {
        "image_1/data": np.ones((5, 40, 40), "f4"),
        "image_1/data_space": "real",
        "data_1/data": None,
        "instrument_1/detector_1/data": None,
    }
    with pytest.raises(DataError, match=r"no entry_1/data_1/data \(\(M, N, N\) frames\)"):
        read(write(tmp_path / "a.cxi", changes))


@pytest.mark.parametrize(("n_positions", "M"), [(8, 6), (4, 4)])
@pytest.mark.spec("READ-4")
def test_a_scan_that_is_still_written_is_read_up_to_its_last_whole_frame(
    tmp_path: Path, n_positions: int, M: int
) -> None:
    path = tmp_path / "live.cxi"
    np.savez(tmp_path / "live.npz", **{k: v for k, v in content().items() if isinstance(v, (np.ndarray, float))})
    lines = f"""
f["cxi_version"] = 160
with np.load({str(tmp_path / "live.npz")!r}) as content:
    frames = content["instrument_1/detector_1/data"]
    moves = content["sample_1/geometry_1/translation"]
    for name in content.files:
        if name[-4:] != "data" and name[-11:] != "translation":
            f["entry_1/" + name] = content[name]
# all frames have their place, in two pieces each; of frame 6 one is written
d = f.create_dataset("entry_1/data_1/data", frames.shape, "f4", chunks=(1, 16, 32))
t = f.create_dataset("entry_1/data_1/translation", ({n_positions}, 3), maxshape=(None, 3), chunks=(1, 3))
f.swmr_mode = True
d[:6], d[6, :16], t[:] = frames[:6], frames[6, :16], moves[:{n_positions}]
d.flush()
t.flush()
"""
    with writing(path, lines):
        with pytest.raises(DataError, match="--follow"):
            read(path)
        raw = read_scan(path, follow=True)
        assert raw.n_frames == M
        np.testing.assert_array_equal(raw.read_counts(np.arange(M)), TRUTH.counts[:M])
        np.testing.assert_allclose(raw.positions_px, TRUTH.positions_px[:M], atol=1e-6)
        assert any("of 20 frames" in text and f"the first {M} are read" in text for text in raw.source.assumptions)


@pytest.mark.parametrize(("energy", "radiation"), [(6200.0, "photon"), (300e3, "electron"), (2e3, "electron")])
@pytest.mark.spec("FM-35")
def test_an_energy_is_that_of_its_wavelength(energy: float, radiation: str) -> None:
    assert energy_of_eV(wavelength_m(energy, radiation), radiation) == pytest.approx(energy, rel=1e-13)
