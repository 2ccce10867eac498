"""What real users brought: each situation gives the right image or value, or a sentence that names what mends it.

==  ================================================================  =============================================
 #  situation                                                         outcome that is held to here
==  ================================================================  =============================================
 1  100 frames and 99 positions                                       refused, ``--frames`` offered; right with it
 2  gaps of a uint32 detector without a mask                          masked, said; image as with the mask
 3  the source of a virtual dataset is missing                        refused, the file named
 4  CXI mask in which 1 is good                                       refused, ``--mask_polarity good``; right with it
 5  one position at 1e6                                               refused, the frame named; right with ``--frames``
 6  CXI energy in keV                                                 taken as keV with a warning, or refused;
                                                                      ``--energy_eV`` named; right with it
 7  detector pixel in µm                                              refused, ``--detector_pixel_size_m``
 8  positions in µm, where metres or pixels are stated                refused, ``--position_unit um``; right with it
 9  one frame at 1e8 counts                                           not used, with the reason; image as without it
10  two samples in one file                                           refused, ``--entry``; never one mixed image
11  a mask of NaN                                                     NaN is bad; image as with the mask
12  columns at the border of a chip × 1.8                             warned of; ``--mask auto`` masks them
13  16 frames with defaults                                           an image
14  frames of 130 × 128                                               the largest even square, said
15  EMPAD: a 4-D array of 130 × 128                                   raster read, the last two rows masked
16  wrong orientation                                                 the verdict says so
17  noise alone                                                       the verdict says so
18  wrong probe, not refined                                          the verdict says so
19  no probe                                                          one is found, and said
20  distance in mm                                                    refused, ``--distance_m``; right with it
21  NXcxi_ptycho with the machine's energy beside the beam's          the beam's is taken
22  mask behind a soft, hard or external link                         found as if it lay there
23  dangling link                                                     refused, the link named
24  frames normalised to 1                                            the same image and figures
25  probe with its centre at the corner                               moved to the middle, said
26  real (N, N, 2) probe                                              read as complex
27  a ``numpy.ma`` mask                                               True hides
28  −1 in gaps                                                        masked, said
29  no frame overlaps another                                         refused, a frame named
30  frames that are no square, odd                                    cut, said
31  a file still being written                                        said; read up to its last frame with ``--follow``
32  a file of no known dialect                                        refused, the command that drafts a mapping named
33  positions whose ``units`` attribute is µm                         obeyed
==  ================================================================  =============================================
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from shutil import copyfile

import h5py
import numpy as np
import pytest
from io_scans import DETECTOR, DISTANCE, PIXEL, WAVELENGTH, cxi_file
from verdict_scans import QUICK, N, counts_of, honest, remade, transposed

from ptycho_core.api.run import run
from ptycho_core.config import TrainingConfig
from ptycho_core.data.container import OUTLYING
from ptycho_core.data.propagation import Propagation
from ptycho_core.data.raw import RawData
from ptycho_core.data.run import Run
from ptycho_core.errors import DataError
from ptycho_core.inspection.examine import examine, inspect_scan
from ptycho_core.io import read_scan, write_scan
from ptycho_core.physics.propagation import HC_EV_M

SOURCE = "entry_1/instrument_1/source_1"
MASK = f"{DETECTOR}/mask"
ENERGY_EV = HC_EV_M / WAVELENGTH


@lru_cache(maxsize=1)
def plain() -> RawData:
    """A scan that gives an image to the noise."""
    return honest(2e4)


@lru_cache(maxsize=1)
def reached() -> Run:
    """The image of it."""
    return run(plain(), QUICK)


def misfit(of: Run) -> float:
    return of.stages[-1].scored.train.deviance


def solved(raw: RawData, **more: object) -> Run:
    """An image of a scan, with the probe of the plain one where it has none."""
    return run(raw if raw.probe is not None else raw.with_probe(plain().probe), replace(QUICK, **more))


def is_right(raw: RawData, tolerance: float = 0.03) -> None:
    """A scan gives the image that the plain one does: it explains frames as well, and not at all elsewhere."""
    assert misfit(solved(raw)) == pytest.approx(misfit(reached()), rel=tolerance)


def as_cxi(path: Path, raw: RawData | None = None, **changes: object) -> Path:
    """The plain scan as CXI, with changes to what its datasets hold."""
    given = raw or plain()
    return cxi_file(path, counts_of(given), given.positions_px, **changes)


def as_h5(path: Path, raw: RawData | None = None) -> Path:
    write_scan(path, raw or plain())
    return path


def refused(path: Path, *words: str, **said: object) -> None:
    """Reading it names the file and all of some words, and so does an inspection."""
    with pytest.raises(DataError) as caught:
        read_scan(path, **said)
    for word in (str(path), *words):
        assert word in str(caught.value)
    found = inspect_scan(path)
    assert said or not found.usable


@pytest.mark.spec("SETTLE-4")
def test_1_one_position_too_few(tmp_path):
    path = as_h5(tmp_path / "a.h5")
    M = plain().n_frames
    with h5py.File(path, "a") as h5:
        positions = h5["positions_px"][()]
        del h5["positions_px"]
        h5["positions_px"] = positions[:-1]
    refused(path, f"{M} frames but {M - 1} positions", f"--frames 0:{M - 1}")
    raw = read_scan(path, frames=f"0:{M - 1}")
    np.testing.assert_array_equal(raw.positions_px, positions[:-1])
    is_right(raw)


@pytest.mark.spec("SETTLE-30")
@pytest.mark.parametrize("value", [2**32 - 1, -1])
def test_2_and_28_gaps_without_a_mask(tmp_path, value):
    counts = counts_of(plain())
    counts[:, 10:13] = value
    path = as_h5(tmp_path / "a.h5")
    with h5py.File(path, "a") as h5:
        del h5["frames"]
        h5["frames"] = counts.astype(np.uint32 if value > 0 else np.int32)
        h5["frames"].attrs["measurement"] = "counts"
    raw = read_scan(path)
    assert set(np.argwhere(~raw.mask)[:, 0]) == {10, 11, 12}
    assert any(f"{3 * N} pixels were masked" in text for text in raw.source.assumptions)
    assert solved(raw).verdict.kind == "noise"


def test_3_a_virtual_dataset_without_its_source(tmp_path):
    path = as_h5(tmp_path / "a.h5")
    with h5py.File(path, "a") as h5:
        shape = h5["frames"].shape
        del h5["frames"]
        layout = h5py.VirtualLayout(shape, "f4")
        layout[:] = h5py.VirtualSource("gone.h5", "data", shape)
        h5.create_virtual_dataset("frames", layout)
        h5["frames"].attrs["measurement"] = "counts"
    refused(path, "gone.h5", "not there")


@pytest.mark.spec("SETTLE-31")
def test_4_a_cxi_mask_in_which_1_is_good(tmp_path):
    good = np.ones((N, N), np.uint32)
    good[4, 5:9] = 0
    path = as_cxi(tmp_path / "a.cxi", entry_1__instrument_1__detector_1__mask=good)
    refused(path, "wrong way round", "--mask_polarity good")
    raw = read_scan(path, mask_polarity="good")
    np.testing.assert_array_equal(raw.mask, good == 1)
    is_right(raw)


@pytest.mark.spec("SETTLE-34")
def test_5_one_position_at_a_million(tmp_path):
    positions = plain().positions_px.copy()
    positions[5, 1] = 1e6
    path = as_h5(tmp_path / "a.h5")
    with h5py.File(path, "a") as h5:
        h5["positions_px"][...] = positions
    refused(path, "frame 5 lies", "--frames")
    assert read_scan(path, frames="6:").n_frames == plain().n_frames - 6


@pytest.mark.spec("SETTLE-34")
@pytest.mark.parametrize("energy_eV", [ENERGY_EV, 2000.0])
def test_6_a_cxi_energy_in_kev(tmp_path, energy_eV):
    pixel = HC_EV_M / energy_eV * DISTANCE / (N * PIXEL)
    path = as_cxi(
        tmp_path / "a.cxi",
        remove=(f"{SOURCE}/wavelength",),
        entry_1__instrument_1__source_1__energy=energy_eV / 1e3,
    )
    with h5py.File(path, "a") as h5:
        h5["entry_1/sample_1/geometry_1/translation"][...] *= pixel / (WAVELENGTH * DISTANCE / (N * PIXEL))
    if energy_eV == ENERGY_EV:  # no other unit is possible
        raw = read_scan(path)
        assert any("it was taken as keV" in text and "--energy_eV" in text for text in raw.source.warnings)
        np.testing.assert_allclose(raw.positions_px, plain().positions_px, atol=1e-6)
    else:  # 2 may be electronvolts of a laser
        refused(path, "--energy_eV")
    raw = read_scan(path, energy_eV=energy_eV)
    np.testing.assert_allclose(raw.positions_px, plain().positions_px, atol=1e-6)
    # a dialect that takes what it is given at its word
    other = as_h5(tmp_path / "a.h5")
    with h5py.File(other, "a") as h5:
        known = {"energy_eV": energy_eV / 1e3, "distance_m": DISTANCE, "detector_pixel_size_m": PIXEL}
        h5.require_group("geometry").attrs.update(known)
    refused(other, f"--energy_eV {energy_eV:.6g}")


@pytest.mark.spec("SETTLE-34")
def test_7_a_detector_pixel_in_micrometres(tmp_path):
    um = {f"entry_1__instrument_1__detector_1__{axis}_pixel_size": PIXEL * 1e6 for axis in "xy"}
    path = as_cxi(tmp_path / "a.cxi", **um)
    refused(path, "--detector_pixel_size_m 75um")
    np.testing.assert_allclose(
        read_scan(path, detector_pixel_size_m=PIXEL).positions_px, plain().positions_px, atol=1e-6
    )


@pytest.mark.spec("SETTLE-34")
def test_8_positions_in_micrometres(tmp_path):
    path = as_cxi(tmp_path / "a.cxi")
    with h5py.File(path, "a") as h5:
        h5["entry_1/sample_1/geometry_1/translation"][...] *= 1e6
    refused(path, "--position_unit um")
    is_right(read_scan(path, position_unit="um"))
    # and where pixels are stated
    pixel = WAVELENGTH * DISTANCE / (N * PIXEL)
    other = as_h5(tmp_path / "a.h5")
    with h5py.File(other, "a") as h5:
        h5["positions_px"][...] = plain().positions_px * pixel * 1e6
        h5.require_group("geometry").attrs["pixel_size_m"] = pixel
    refused(other, "--position_unit um")
    is_right(read_scan(other, position_unit="um"))


@pytest.mark.spec("DATA-18")
def test_9_one_frame_far_above_all(tmp_path):
    counts = counts_of(plain())
    counts[31] *= 1e8 / counts[31].sum()
    path = as_h5(tmp_path / "a.h5", remade(plain(), counts=np.rint(counts)))
    raw = read_scan(path)
    done = solved(raw)
    assert misfit(done) == pytest.approx(misfit(reached()), rel=0.03)
    assert done.stages[-1].scored.dropped[f"frames: {OUTLYING}"] == 1
    np.testing.assert_array_equal(done.stages[-1].scored.scan.unused[OUTLYING], [31])
    found = inspect_scan(path)
    (text,) = [finding.text for finding in found.findings if "ten times as many as any other" in finding.text]
    assert "31. Leave them out with --frames" in text


def test_10_two_samples_in_one_file(tmp_path):
    path = as_cxi(tmp_path / "a.cxi")
    with h5py.File(path, "a") as h5:
        h5.copy("entry_1", "entry_2")
        h5[f"entry_2/{DETECTOR.split('/', 1)[1]}/data"][...] += 1
    refused(path, "--entry", "entry_1", "entry_2")
    is_right(read_scan(path, entry="entry_1"))


@pytest.mark.spec("SETTLE-31")
@pytest.mark.parametrize("form", ["npz", "h5"])
def test_11_a_mask_of_nan(tmp_path, form):
    mask = np.ones((N, N))
    mask[8, 3:9] = np.nan
    counts = counts_of(plain())
    counts[:, 8, 3:9] = 5e4
    path = as_h5(tmp_path / f"a.{form}", remade(plain(), counts=counts))
    if form == "h5":
        with h5py.File(path, "a") as h5:
            h5["mask"] = mask
    else:
        with np.load(path) as held:
            np.savez(path, mask=mask, **held)
    raw = read_scan(path)
    np.testing.assert_array_equal(raw.mask, np.isfinite(mask))
    is_right(raw)


@pytest.mark.spec("SETTLE-30")
def test_12_brighter_columns_at_the_border_of_a_chip(tmp_path):
    counts = counts_of(honest(2e5))
    counts[:, :, 13:15] = np.rint(1.8 * counts[:, :, 13:15])
    path = as_h5(tmp_path / "a.h5", remade(plain(), counts=counts))
    (text,) = [f.text for f in inspect_scan(path).findings if f.level == "warning" and "one factor" in f.text]
    assert text.startswith("Columns 13 (1.9 times), 14 (1.9 times)")
    assert "--mask auto" in text
    near = replace(read_scan(path), propagation=Propagation("near_field", 0.1))  # an image may have such lines
    assert not any("one factor" in finding.text for finding in examine(near))
    raw = read_scan(path, mask="auto")
    assert set(np.argwhere(~raw.mask)[:, 1]) == {13, 14}
    assert not any("one factor" in finding.text for finding in inspect_scan(as_h5(tmp_path / "b.h5")).findings)


def test_13_sixteen_frames_with_defaults():
    done = run(honest(2e4, grid_shape=(4, 4)), TrainingConfig(backend="numpy"))
    assert done.verdict.kind == "noise"
    assert done.image.object.shape[0] > N


@pytest.mark.spec("SETTLE-1")
@pytest.mark.parametrize("shape", [(N + 2, N), (N + 7, N + 1)])
def test_14_and_30_frames_that_are_no_square(tmp_path, shape):
    counts = counts_of(plain())
    wide = np.pad(counts, ((0, 0), (1, shape[0] - N - 1), (0, shape[1] - N)))
    path = as_h5(tmp_path / "a.h5")
    with h5py.File(path, "a") as h5:
        del h5["frames"], h5["probe"]
        h5["frames"] = wide
        h5["frames"].attrs["measurement"] = "counts"
    raw = read_scan(path, centre=(N // 2 + 1, N // 2), position_unit="px")
    np.testing.assert_array_equal(counts_of(raw), counts)
    assert any(f"Of frames of {shape[0]}×{shape[1]} a window of {N}×{N}" in text for text in raw.source.assumptions)
    assert read_scan(path).side == N


def test_15_a_raw_file_of_an_empad(tmp_path):
    rng = np.random.default_rng(3)
    frames = np.zeros((3 * 4, 130, 128), np.float32)
    frames[:, :128] = rng.poisson(6, (12, 128, 128))
    frames[:, 128:] = rng.normal(size=(12, 2, 128)) * 1e20
    path = tmp_path / "scan_x4_y3.raw"
    frames.tofile(path)
    raw = read_scan(path, scan_step_m=(1e-9, 2e-9), energy_eV=3e5, pixel_size_m=2e-10, radiation="electron")
    np.testing.assert_array_equal(counts_of(raw), frames[:, :128])
    np.testing.assert_allclose(np.diff(raw.positions_px[:2], axis=0), [[0, 10]], atol=1e-6)
    # a 4-D array of the same, in HDF5
    other = tmp_path / "empad.h5"
    with h5py.File(other, "w") as h5:
        h5["data"] = frames.reshape(3, 4, 130, 128)
    again = read_scan(other, scan_step_m=(1e-9, 2e-9), energy_eV=3e5, pixel_size_m=2e-10, radiation="electron")
    np.testing.assert_array_equal(counts_of(again), frames[:, :128])


def test_16_a_wrong_orientation():
    done = solved(transposed(plain()))
    assert done.verdict.kind != "noise"
    assert any("--orientation transpose" in text for text in done.verdict.advice)


def test_17_noise_alone():
    mean = counts_of(plain()).mean(axis=0)
    noise = np.random.default_rng(0).poisson(mean, (plain().n_frames, N, N))
    done = solved(remade(plain(), counts=noise))
    assert done.verdict.kind == "no_image"
    assert done.verdict.sentence.startswith("NOT AN IMAGE")


def test_18_a_wrong_probe():
    r2 = np.sum((np.mgrid[:N, :N] - (N - 1) / 2) ** 2, axis=0)
    power = np.sum(np.abs(plain().probe) ** 2)
    wrong = np.exp(-r2 / 30)[None] * np.sqrt(power / np.sum(np.exp(-r2 / 15)))
    done = solved(plain().with_probe(wrong.astype(np.complex64)), probe_trainable=False)
    assert done.verdict.kind == "no_image"
    assert "--probe auto" in done.verdict.advice


def test_19_no_probe():
    raw = plain()
    bare = RawData.from_arrays(counts_of(raw).astype(np.float32), raw.positions_px)
    done = run(bare, replace(QUICK, epochs=20))
    said = done.stages[-1].scored.scan.raw.source.assumptions
    assert any("the scan brought no probe; one was found from the mean pattern" in text for text in said)
    assert done.verdict.kind == "noise"


@pytest.mark.spec("SETTLE-34")
def test_20_a_distance_in_millimetres(tmp_path):
    path = as_cxi(tmp_path / "a.cxi", entry_1__instrument_1__detector_1__distance=DISTANCE * 1e3)
    refused(path, "--distance_m 2000mm")
    np.testing.assert_allclose(read_scan(path, distance_m=DISTANCE).positions_px, plain().positions_px, atol=1e-6)


def test_21_the_energy_of_the_beam_and_not_of_the_machine(tmp_path):
    path = as_cxi(tmp_path / "a.cxi", remove=(f"{SOURCE}/wavelength",), entry_1__definition="NXcxi_ptycho")
    with h5py.File(path, "a") as h5:
        h5[f"{SOURCE}/energy"] = 3.0
        h5[f"{SOURCE}/energy"].attrs["units"] = "GeV"
        h5["entry_1/instrument_1/beam_1/energy"] = ENERGY_EV / 1e3
        h5["entry_1/instrument_1/beam_1/energy"].attrs["units"] = "keV"
    raw = read_scan(path)
    assert raw.geometry.energy_eV == pytest.approx(ENERGY_EV)
    np.testing.assert_allclose(raw.positions_px, plain().positions_px, atol=1e-6)


@pytest.mark.parametrize("how", ["soft", "hard", "external"])
def test_22_a_mask_behind_a_link(tmp_path, how):
    good = np.ones((N, N), bool)
    good[8, 3:9] = False
    counts = counts_of(plain())
    counts[:, 8, 3:9] = 5e4
    path = as_cxi(tmp_path / "a.cxi", remade(plain(), counts=counts))
    with h5py.File(path, "a") as h5, h5py.File(tmp_path / "masks.h5", "w") as beside:
        (beside if how == "external" else h5)["kept/mask"] = (~good).astype(np.uint32)
        if how == "hard":
            h5[MASK] = h5["kept/mask"]
        else:
            h5[MASK] = h5py.SoftLink("/kept/mask") if how == "soft" else h5py.ExternalLink("masks.h5", "/kept/mask")
    raw = read_scan(path)
    np.testing.assert_array_equal(raw.mask, good)
    is_right(raw)


def test_23_a_dangling_link(tmp_path):
    path = as_cxi(tmp_path / "a.cxi")
    with h5py.File(path, "a") as h5:
        h5[MASK] = h5py.ExternalLink("masks.h5", "/kept/mask")
    refused(path, "masks.h5", "not there")


@pytest.mark.spec("SETTLE-33")
@pytest.mark.parametrize("form", ["npz", "h5"])
def test_24_frames_normalised_to_1(tmp_path, form):
    counts = counts_of(plain())
    path = as_h5(tmp_path / f"a.{form}", remade(plain(), counts=counts / counts.max()))
    raw = read_scan(path)
    np.testing.assert_allclose(counts_of(raw), counts, rtol=2e-6)
    assert any("whole multiples of" in text for text in raw.source.assumptions)
    done = solved(raw)
    assert misfit(done) == pytest.approx(misfit(reached()), rel=1e-3)
    np.testing.assert_allclose(np.abs(done.image.object), np.abs(reached().image.object), atol=2e-2)


@pytest.mark.parametrize("form", ["npz", "h5"])
def test_25_a_probe_with_its_centre_at_the_corner(tmp_path, form):
    shifted = plain().with_probe(np.fft.fftshift(plain().probe, axes=(1, 2)))
    raw = read_scan(as_h5(tmp_path / f"a.{form}", shifted))
    np.testing.assert_array_equal(raw.probe, plain().probe)
    assert any("probe has its centre at the corner" in text for text in raw.source.assumptions)
    is_right(raw)


def test_26_a_probe_of_two_real_planes(tmp_path):
    probe = plain().probe[0]
    raw = plain()
    path = tmp_path / "a.npz"
    np.savez(
        path,
        diffraction=counts_of(raw),
        ycoords=raw.positions_px[:, 0],
        xcoords=raw.positions_px[:, 1],
        pixel_centre=np.array("(N-1)/2"),
        measurement=np.array("counts"),
        probeGuess=np.stack([probe.real, probe.imag], axis=-1),
    )
    np.testing.assert_allclose(read_scan(path).probe, plain().probe, rtol=1e-6)


@pytest.mark.spec("SETTLE-31")
def test_27_a_masked_array_of_numpy(tmp_path):
    held = np.ma.masked_array(counts_of(plain())[0], np.zeros((N, N), bool))
    held[8, 3:9] = np.ma.masked
    np.savez(tmp_path / "mask.npz", data=held.data, mask=held.mask)
    raw = read_scan(as_h5(tmp_path / "a.h5"), mask=tmp_path / "mask.npz")
    np.testing.assert_array_equal(raw.mask, ~held.mask)
    is_right(raw)


@pytest.mark.spec("SETTLE-34")
def test_29_no_frame_overlaps_another(tmp_path):
    path = as_h5(tmp_path / "a.h5", remade(plain(), positions=plain().positions_px * 40))
    refused(path, "frames overlap with no other", "frame ")


def test_31_a_file_that_is_still_written(tmp_path):
    path, grows = as_h5(tmp_path / "a.h5"), tmp_path / "grows.h5"
    with h5py.File(path) as whole, h5py.File(grows, "w", libver="latest") as h5:
        h5.attrs.update(whole.attrs)
        for name in ("frames", "positions_px", "probe"):
            whole.copy(name, h5)
        h5.flush()
        h5.swmr_mode = True
        copyfile(grows, tmp_path / "copy.h5")  # as another process sees it
    refused(tmp_path / "copy.h5", "still", "--follow")
    is_right(read_scan(tmp_path / "copy.h5", follow=True))


def test_32_a_file_of_no_known_dialect(tmp_path):
    path = tmp_path / "mine.h5"
    with h5py.File(path, "w") as h5:
        h5["shots/pictures"], h5["shots/where"] = counts_of(plain()), plain().positions_px
    refused(path, f"ptycho inspect --suggest-mapping {path}")


def test_33_a_unit_in_an_attribute_is_obeyed(tmp_path):
    path = as_cxi(tmp_path / "a.cxi", entry_1__definition="NXcxi_ptycho")
    with h5py.File(path, "a") as h5:
        h5["entry_1/instrument_1/beam_1/energy"] = ENERGY_EV
        h5["entry_1/instrument_1/beam_1/energy"].attrs["units"] = "eV"
        moved = h5["entry_1/sample_1/geometry_1/translation"]
        moved[...] *= 1e6
        moved.attrs["units"] = "um"
    np.testing.assert_allclose(read_scan(path).positions_px, plain().positions_px, atol=1e-6)
