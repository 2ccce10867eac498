"""Figures of a scan that cannot be right: each is refused with the option that mends it, and mended by it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptycho_core.data.frames import ArrayFrames
from ptycho_core.data.raw import Geometry, RawData, Source
from ptycho_core.data.recording import Recording
from ptycho_core.errors import DataError
from ptycho_core.io.settle import scan_of
from ptycho_core.physics.propagation import wavelength_m
from ptycho_core.reader_protocol import ReadOptions

N, ROWS, COLUMNS = 48, 6, 9
M = ROWS * COLUMNS
XRAYS = Geometry(energy_eV=8800.0, distance_m=2.1, detector_pixel_size_m=75e-6)
PIXEL = wavelength_m(8800.0) * 2.1 / (N * 75e-6)
rng = np.random.default_rng(6)
COUNTS = rng.poisson(40.0, (M, N, N)).astype(np.float32)
y, x = np.divmod(np.arange(M), COLUMNS)
PLACES = (np.stack([y * 5.2, x * 6.1], axis=-1) + rng.uniform(-0.8, 0.8, (M, 2))) * PIXEL


def recording(**changes) -> Recording:
    given = {
        "frames": ArrayFrames(COUNTS),
        "positions": PLACES,
        "position_unit": "m",
        "geometry": XRAYS,
        "source": Source(path="scan.h5"),
    }
    return Recording(**(given | changes))


def settled(of: Recording | None = None, **said) -> RawData:
    return scan_of(of or recording(), ReadOptions(**said))


def test_a_scan_that_is_right_passes_in_silence():
    raw = settled()
    assert raw.source.warnings == ()
    np.testing.assert_allclose(raw.positions_px, PLACES / PIXEL)


@pytest.mark.spec("SETTLE-34")
@pytest.mark.parametrize(
    ("changed", "wrong", "fix", "said"),
    [
        ({"energy_eV": 8.8}, "energy_eV = 8.8, but photons", "--energy_eV 8800", {"energy_eV": 8800.0}),
        ({"energy_eV": 8.8e6}, "energy_eV = 8.8e", "--energy_eV 8800", {"energy_eV": 8800.0}),
        ({"distance_m": 2100.0}, "distance_m = 2100", "--distance_m 2100mm", {"distance_m": 2.1}),
        (
            {"detector_pixel_size_m": 75.0},
            "detector_pixel_size_m = 75,",
            "--detector_pixel_size_m 75um",
            {"detector_pixel_size_m": 75e-6},
        ),
        (
            {"detector_pixel_size_m": 0.075},
            "detector_pixel_size_m = 0.075",
            "--detector_pixel_size_m 0.075mm",
            {"detector_pixel_size_m": 75e-6},
        ),
        (
            {"pixel_size_m": PIXEL * 1e9},
            "pixel_size_m is",
            f"--pixel_size_m {PIXEL * 1e9:.6g}nm",
            {"pixel_size_m": PIXEL},
        ),
    ],
)
def test_a_figure_in_another_unit_is_refused_and_mended_as_told(changed, wrong, fix, said):
    off = recording(geometry=replace(XRAYS, **changed))
    with pytest.raises(DataError) as caught:
        settled(off)
    assert str(caught.value).startswith("scan.h5: ")
    assert wrong in str(caught.value)
    assert f"All figures agree with {fix}" in str(caught.value)
    np.testing.assert_allclose(settled(off, **said).positions_px, PLACES / PIXEL, rtol=1e-6)


@pytest.mark.spec("SETTLE-34")
def test_a_distance_in_millimetres_that_could_be_one_in_metres_shows_in_the_steps():
    off = recording(geometry=replace(XRAYS, distance_m=28.0), positions=PLACES * 0.028 / 2.1)
    with pytest.raises(DataError, match=r"step by 0.00\d+ object pixels.*All figures agree with --distance_m 28mm"):
        settled(off)
    assert settled(off, distance_m=0.028).source.warnings == ()


@pytest.mark.spec("SETTLE-34")
@pytest.mark.parametrize(("word", "factor"), [("mm", 1e-3), ("um", 1e-6), ("nm", 1e-9), ("px", PIXEL)])
def test_positions_in_another_unit_than_metres(word, factor):
    off = recording(positions=PLACES / factor)
    with pytest.raises(DataError, match=rf"frames overlap with no other.*agree with .*--position_unit {word}\b"):
        settled(off)
    np.testing.assert_allclose(settled(off, position_unit=word).positions_px, PLACES / PIXEL)


@pytest.mark.spec("SETTLE-34")
@pytest.mark.parametrize(("word", "factor"), [("um", 1e-6), ("m", 1.0)])
def test_positions_said_to_be_pixels_that_are_a_length(word, factor):
    off = recording(positions=PLACES / factor, position_unit="px", geometry=replace(XRAYS, pixel_size_m=PIXEL))
    with pytest.raises(DataError, match=rf"neighbouring frames would be the same.*--position_unit {word}\."):
        settled(off)
    np.testing.assert_allclose(settled(off, position_unit=word).positions_px, PLACES / PIXEL, rtol=1e-6)
    # who says that they are pixels is believed
    if word == "um":
        np.testing.assert_array_equal(settled(off, position_unit="px").positions_px, PLACES / factor)


@pytest.mark.spec("SETTLE-34")
def test_two_wrong_units_are_mended_together():
    off = recording(positions=PLACES * 1e6, geometry=replace(XRAYS, energy_eV=8.8))
    with pytest.raises(DataError, match=r"agree with --energy_eV 8800 --position_unit um\."):
        settled(off)
    np.testing.assert_allclose(settled(off, energy_eV=8800.0, position_unit="um").positions_px, PLACES / PIXEL)


@pytest.mark.spec("SETTLE-34")
def test_visible_light_is_no_x_ray_in_kev():
    laser = Geometry(energy_eV=1.96, distance_m=0.03, detector_pixel_size_m=5e-6)
    pixel = wavelength_m(1.96) * 0.03 / (N * 5e-6)
    raw = settled(recording(geometry=laser, positions=PLACES / PIXEL * pixel))
    np.testing.assert_allclose(raw.positions_px, PLACES / PIXEL)
    # positions in pixels cannot tell it, so it has to be said
    unsure = recording(geometry=laser, positions=PLACES / PIXEL, position_unit="px")
    with pytest.raises(DataError, match=r"if it is light of that energy, give --energy_eV 1.96"):
        settled(unsure)
    assert settled(unsure, energy_eV=1.96).geometry.pixel_size_m == pytest.approx(pixel)


@pytest.mark.spec("SETTLE-34")
def test_electrons_have_their_own_ranges():
    beam = Geometry(energy_eV=300e3, distance_m=1.5, detector_pixel_size_m=30e-6, radiation="electron")
    pixel = wavelength_m(300e3, "electron") * 1.5 / (N * 30e-6)
    raw = settled(recording(geometry=beam, positions=PLACES / PIXEL * pixel))
    assert raw.geometry.pixel_size_m == pytest.approx(1.9687e-12 * 1.5 / (N * 30e-6), rel=1e-4)
    with pytest.raises(DataError, match=r"electrons of a scan have 1000 to 1e\+06 eV.*--energy_eV 300000"):
        settled(recording(geometry=replace(beam, energy_eV=300.0), positions=PLACES / PIXEL * pixel))


@pytest.mark.spec("SETTLE-34")
def test_frames_none_of_which_overlaps_another_are_refused_and_a_frame_is_named():
    far = recording(positions=PLACES / PIXEL * 300, position_unit="px", geometry=Geometry())
    with pytest.raises(
        DataError, match=r"54 of 54 frames overlap with no other \(frame \d+ lies farthest.*48 object pix"
    ):
        settled(far)
    # two fields that lie apart are a scan
    two = PLACES / PIXEL + np.where(np.arange(M) < M // 2, 0, 150)[:, None]
    assert settled(recording(positions=two, position_unit="px")).n_frames == M


@pytest.mark.spec("SETTLE-34")
@pytest.mark.parametrize("at", [1e6, 3e3])
def test_one_position_far_from_all_is_refused_before_anything_is_allocated(at):
    places = PLACES / PIXEL
    places[17] = (30.0, at)
    with pytest.raises(DataError, match=r"frame 17 lies .* object pixels from the middle.*\(--frames\)"):
        settled(recording(positions=places, position_unit="px"))
    with pytest.raises(DataError, match=r"frame 17 lies"):
        RawData.from_arrays(COUNTS, places)
    assert settled(recording(positions=places, position_unit="px"), frames="18:").n_frames == M - 18


@pytest.mark.spec("SETTLE-34")
def test_small_steps_are_warned_of():
    places = PLACES / PIXEL * 0.1
    (text,) = settled(recording(positions=places, position_unit="px", geometry=Geometry())).source.warnings
    assert "--position_unit um|nm|m|px" in text


@pytest.mark.spec("SETTLE-34", "DATA-22")
def test_steps_wider_than_a_far_field_window_are_those_of_a_near_field_where_the_frames_say_so():
    draw = np.random.default_rng(3)
    sample, kappa = draw.random((110, 120)) ** 3, 0.02
    shifts = np.stack(np.divmod(np.arange(M), COLUMNS), axis=1) * 5 + draw.integers(0, 3, (M, 2))
    images = np.stack([sample[a : a + N, b : b + N] for a, b in shifts])
    near = recording(
        frames=ArrayFrames(draw.poisson(200 * images + 5).astype(np.float32)), positions=shifts / kappa * PIXEL
    )
    raw = settled(near)
    assert raw.propagation.is_near
    np.testing.assert_allclose(raw.positions_px, shifts, atol=0.5)


@pytest.mark.spec("SETTLE-34")
def test_a_unit_that_the_file_states_may_be_the_wrong_one():
    """Micrometres labelled as nanometres: that a distance would mend it, too, must not be all that is said."""
    rng = np.random.default_rng(3)
    places = np.stack(np.divmod(np.arange(36), 6), axis=-1) * 5e-10 + rng.uniform(0, 1e-10, (36, 2))
    recorded = Recording(
        frames=ArrayFrames(rng.poisson(20, (36, 32, 32)).astype(np.float32)), positions=places, position_unit="m",
        geometry=Geometry(energy_eV=8800.0, distance_m=1.92, detector_pixel_size_m=75e-6),
    )  # fmt: skip
    with pytest.raises(DataError, match=r"--distance_m 1\.92mm.*unit of the positions is not what the file says"):
        scan_of(recorded, ReadOptions())
