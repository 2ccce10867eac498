"""Masks: what values mean, what is given beside the file, what is found, and which way round a mask is."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest
from io_scans import cxi_file

from ptycho_core.data.frames import ArrayFrames
from ptycho_core.data.raw import RawData, Source
from ptycho_core.data.recording import Recording
from ptycho_core.errors import ConfigError, DataError
from ptycho_core.inspection.examine import examine
from ptycho_core.io import read_scan
from ptycho_core.io.planes import good_pixels, read_mask, read_plane
from ptycho_core.io.settle import scan_of
from ptycho_core.io.settle.pixels import bright_lines
from ptycho_core.reader_protocol import ReadOptions

M, H, W = 90, 40, 36


def light() -> np.ndarray:
    """Frames (M, H, W) of a bright beam off the middle, which fades over the detector."""
    rng = np.random.default_rng(8)
    y, x = np.mgrid[:H, :W].astype(float)
    beam = 300 * np.exp(-((y - 17) ** 2 / 90 + (x - 19) ** 2 / 60)) + 6
    return rng.poisson(beam * rng.uniform(0.8, 1.2, (M, 1, 1))).astype(np.float32)


LIGHT = light()


def recording(frames: np.ndarray = LIGHT, **changes) -> Recording:
    rng = np.random.default_rng(4)
    given = {
        "frames": ArrayFrames(frames),
        "positions": rng.uniform(0, (60, 90), (len(frames), 2)),
        "position_unit": "px",
        "source": Source(path="beside.h5"),
    }
    return Recording(**(given | changes))


def settled(of: Recording, **said) -> RawData:
    return scan_of(of, ReadOptions(pad=40, **said))


def bad_of(raw: RawData) -> set[tuple[int, int]]:
    """Bad pixels of the frames as stored; the window adds two columns on each side."""
    if raw.mask is None:
        return set()
    return {(int(y), int(x)) for y, x in np.argwhere(~raw.mask[:, 2:38])}


def said(raw: RawData) -> list[str]:
    return [text for text in raw.source.assumptions if " masked: " in text]


@pytest.mark.spec("SETTLE-30")
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.nan, "NaN in every"),
        (-1, "a negative mark"),
        (-2, "a negative mark"),
        (-9999, "a negative mark"),
        (2**16 - 1, "the largest number"),
        (2**32 - 1, "the largest number"),
        (255, "the largest number"),
    ],
)
def test_a_value_that_no_light_has_in_every_frame_is_masked_unasked_and_said(value, words):
    frames = LIGHT.copy()
    frames[:, 3:5, 30] = value
    raw = settled(recording(frames))
    assert bad_of(raw) == {(3, 30), (4, 30)}
    (text,) = said(raw)
    assert text.startswith("2 pixels were masked: ")
    assert words in text
    # in all frames but one it is no mark
    frames[44, 3:5, 30] = 7
    if value > 0:
        assert bad_of(settled(recording(frames))) == set() or len(frames) > 64


@pytest.mark.spec("SETTLE-30")
def test_nothing_is_masked_of_a_plain_scan_by_itself_or_by_auto():
    assert bad_of(settled(recording())) == set()
    raw = settled(recording(), mask="auto")
    assert bad_of(raw) == set()
    assert any("No dead, hot, stuck or saturated pixels were found" in text for text in raw.source.assumptions)


@pytest.mark.spec("SETTLE-30")
def test_pixels_without_a_value_now_and_then_are_masked_where_few_and_refused_where_many():
    frames = LIGHT.copy()
    frames[0, 5, 6], frames[M - 1, 9, 9] = np.nan, -3.5
    raw = settled(recording(frames))
    assert bad_of(raw) == {(5, 6), (9, 9)}
    assert any(text.startswith("2 pixels are NaN or negative in some frames") for text in raw.source.warnings)
    frames = LIGHT - 6
    with pytest.raises(DataError, match=r"negative \(down to -[\d.]+\) in some frames.*--frames.*--offset.*--mask"):
        settled(recording(frames))
    frames = LIGHT.copy()
    frames[0] = np.nan
    with pytest.raises(DataError, match=r"NaN or infinite in some frames.*leave them out \(--frames\)"):
        settled(recording(frames))


@pytest.mark.spec("SETTLE-30")
def test_what_turns_up_in_a_frame_that_was_not_looked_at_is_refused_and_found_by_auto():
    frames = LIGHT.copy()
    frames[3, 5, 6] = np.nan  # 64 of 90 frames are looked at, and not this one
    with pytest.raises(DataError, match=r"frame 3 holds NaN.*--mask auto"):
        settled(recording(frames))
    assert bad_of(settled(recording(frames), mask="auto")) == {(5, 6)}


@pytest.mark.spec("SETTLE-30")
def test_auto_masks_what_an_inspection_warns_of():
    frames = LIGHT.copy()
    frames[:, 18, 22] = 0
    frames[:, 2, 3] = 4000 + np.arange(M) % 7
    frames[:, 30, 5] = 123456
    raw = settled(recording(frames))
    warned = " ".join(finding.text for finding in examine(raw) if finding.level in ("warning", "error"))
    for words in ("1 pixel holds 123456 in every frame", "(18, 24)", "(2, 5)"):
        assert words in warned
    masked = settled(recording(frames), mask="auto")
    assert {(18, 22), (2, 3), (30, 5)} <= bad_of(masked)
    texts = " ".join(said(masked))
    for words in ("1 pixel was masked: dead", "1 pixel was masked: hot", "one nonsense value in every frame"):
        assert words in texts
    again = " ".join(finding.text for finding in examine(masked) if finding.level == "warning")
    assert "dead" not in again
    assert "hot" not in again


@pytest.mark.spec("SETTLE-30")
@pytest.mark.parametrize("transposed", [False, True])
def test_a_dead_module_is_told_from_a_dark_field(transposed):
    """A module that gives 0 ends in a straight line beside light; a bright field, or one that fades, does not."""
    frames = LIGHT.copy()
    frames[:, :14] = 0
    frames = np.ascontiguousarray(frames.transpose(0, 2, 1)) if transposed else frames
    raw = settled(recording(frames), mask="auto")
    stored = raw.mask[2:38, :] if transposed else raw.mask[:, 2:38]  # what padding adds is masked anyway
    stored = stored.T if transposed else stored
    assert not stored[:14].any()
    assert stored[14:].all()
    assert any("504 pixels were masked: dead, 0 amid or beside light" in note for note in said(raw))
    plain = examine(settled(recording(frames)))
    assert any("504 pixels are 0 amid or beside light" in found.text for found in plain)

    y, x = np.mgrid[:H, :W].astype(float)
    disc = (np.hypot(y - 20.3, x - 17.4) < 14) * 40.0  # a bright field that scatters nothing
    frames = np.random.default_rng(3).poisson(np.broadcast_to(disc, (M, H, W))).astype(np.float32)
    assert not any("0 amid" in found.text for found in examine(settled(recording(frames))))


@pytest.mark.spec("SETTLE-30")
def test_auto_leaves_a_direct_beam_alone_where_the_caller_says_it_is():
    frames = LIGHT.copy()
    frames[:, 6, 30] = np.random.default_rng(3).poisson(4000, M)
    assert any("hot" in text for text in said(settled(recording(frames), mask="auto")))
    assert not any("hot" in text for text in said(settled(recording(frames), mask="auto", centre=(6, 30))))


@pytest.mark.spec("SETTLE-30")
def test_auto_masks_what_is_cut_off_at_the_highest_value():
    cut = np.minimum(LIGHT, 150)
    raw = settled(recording(cut), mask="auto")
    assert bad_of(raw) == {(int(y), int(x)) for y, x in np.argwhere((cut == 150).any(axis=0))}
    assert any("saturated at 150 counts" in text for text in said(raw))
    # where as many lie just below, it was not cut off
    soft = np.where(LIGHT >= 150, 150 - np.arange(M)[:, None, None] % 3, LIGHT)
    assert bad_of(settled(recording(soft.astype(np.float32)), mask="auto")) == set()


@pytest.mark.spec("SETTLE-30")
@pytest.mark.parametrize("transposed", [False, True])
def test_lines_of_larger_pixels_are_told_from_streaks_of_light(transposed):
    def turned(frames):
        return np.ascontiguousarray(frames.swapaxes(1, 2)) if transposed else frames

    frames = LIGHT.copy()
    frames[:, :, 11:13] = np.rint(1.8 * frames[:, :, 11:13])
    streak = LIGHT.copy()
    streak[:, :, 19] *= np.rint(1 + 4 * np.exp(-((np.arange(H) - 17) ** 2) / 60))
    fading = LIGHT.copy()
    fading[:, :, 5] = np.rint(fading[:, :, 5] * (1.5 + 4 * np.exp(-((np.arange(H) - 17) ** 2) / 200)))
    axis = "rows" if transposed else "columns"
    good = np.ones(turned(frames).shape[1:], bool)
    found = bright_lines(turned(frames).mean(axis=0), M, good)
    assert set(found[axis]) == {11, 12}
    assert found[axis][11] == pytest.approx(1.8, rel=0.1)
    assert found["columns" if transposed else "rows"] == {}
    for other in (LIGHT, streak, fading):
        assert bright_lines(turned(other).mean(axis=0), M, good) == {"rows": {}, "columns": {}}
    masked = settled(recording(turned(frames), positions=recording().positions), mask="auto")
    assert any(f"{axis} 11 (1.8 times), 12 (1.8 times) are brighter" in text for text in said(masked))


@pytest.mark.spec("SETTLE-30")
def test_a_line_beside_a_gap_is_seen_though_it_has_one_neighbour():
    frames = LIGHT.copy()
    frames[:, :, 20] = np.rint(1.8 * frames[:, :, 20])
    good = np.ones((H, W), bool)
    good[:, 21:24] = False
    frames[:, :, 21:24] = 0
    assert set(bright_lines(frames.mean(axis=0), M, good)["columns"]) == {20}


# ---- masks that are given


@pytest.mark.spec("SETTLE-31")
@pytest.mark.parametrize("form", ["npy", "npz", "h5", "png", "tif", "txt", "masked"])
def test_a_mask_beside_the_scan_is_laid_over_its_own(tmp_path, form):
    good = np.ones((H, W), bool)
    good[7, 8:11] = False
    path = tmp_path / f"mask.{form}"
    if form == "npy":
        np.save(path, good)
    elif form == "npz":
        np.savez(path, mine=good.astype(np.uint8))
    elif form == "h5":
        with h5py.File(path, "w") as h5:
            h5["a/mask"], h5["a/other"] = good.astype(np.int32), np.zeros((3, 3))
        path = tmp_path / "mask.h5:/a/mask"
    elif form == "png":
        from matplotlib.image import imsave

        imsave(path, np.repeat(good[..., None], 3, axis=-1).astype(np.uint8) * 255)
    elif form == "tif":
        pytest.importorskip("tifffile").imwrite(path, good.astype(np.uint8) * 255)
    elif form == "txt":
        np.savetxt(path, good.astype(int), fmt="%d")
    else:  # what numpy.ma hides is True
        path = tmp_path / "mask.npz"
        held = np.ma.masked_array(LIGHT[:3], np.repeat(~good[None], 3, axis=0))
        np.savez(path, data=held.data, mask=held.mask)
    own = np.ones((H, W), bool)
    own[0, 0] = False
    raw = settled(recording(mask=own), mask=path)
    assert bad_of(raw) == {(0, 0), (7, 8), (7, 9), (7, 10)}
    assert any(
        "was laid over the scan as a mask" in text and "hides 3 pixels" in text for text in raw.source.assumptions
    )
    assert raw.source.details["read_with"]["mask"] == str(path)


@pytest.mark.spec("SETTLE-31")
def test_what_the_numbers_of_a_mask_mean():
    nan = np.array([[1, np.nan], [1, 1]])
    np.testing.assert_array_equal(good_pixels(nan)[0], [[True, False], [True, True]])
    np.testing.assert_array_equal(good_pixels(np.array([[np.nan, 0.0], [1, 1]]))[0], [[False, False], [True, True]])
    np.testing.assert_array_equal(good_pixels(np.array([[0, -1]]))[0], [[True, False]])
    np.testing.assert_array_equal(good_pixels(np.array([[0, 1, 255]], np.int64))[0], [[True, False, False]])
    np.testing.assert_array_equal(good_pixels(np.array([[0, 512]]))[0], [[True, False]])
    for ones in (np.array([[0, 1]]), np.array([[0, 255]]), np.array([[False, True]]), np.array([[0.0, 1.0]])):
        np.testing.assert_array_equal(good_pixels(ones)[0], [[False, True]])
        np.testing.assert_array_equal(good_pixels(ones, "bad")[0], [[True, False]])


@pytest.mark.spec("SETTLE-31")
def test_a_mask_the_wrong_way_round_is_refused_with_the_option_that_turns_it(tmp_path):
    good = np.ones((H, W), bool)
    good[7, 8:11] = False
    np.save(tmp_path / "bad.npy", ~good)
    with pytest.raises(DataError, match=r"hides 100% of the pixels.*wrong way round.*--mask_polarity bad, or, if"):
        settled(recording(), mask=tmp_path / "bad.npy")
    raw = settled(recording(), mask=tmp_path / "bad.npy", mask_polarity="bad")
    assert bad_of(raw) == {(7, 8), (7, 9), (7, 10)}
    with pytest.raises(DataError, match=r"beside.h5: the mask hides 100%.*1 was taken as good.*--mask_polarity bad"):
        settled(recording(mask=~good))
    assert bad_of(settled(recording(mask=~good), mask_polarity="bad")) == {(7, 8), (7, 9), (7, 10)}
    # the option is believed, and a mask of the dim half of the detector hides little light
    assert len(bad_of(settled(recording(mask=~good), mask_polarity="good"))) == H * W - 3
    dim = LIGHT.mean(axis=0) > np.quantile(LIGHT.mean(axis=0), 0.6)
    assert settled(recording(mask=dim)).mask is not None
    with pytest.raises(ConfigError, match="good, bad"):
        settled(recording(), mask_polarity="left")


@pytest.mark.spec("SETTLE-31")
def test_a_mask_that_leaves_only_what_is_dark_is_the_wrong_way_round():
    frames = LIGHT.copy()
    frames[:, 20:] = 0
    with pytest.raises(DataError, match=r"with 100% of the light .* Give --mask_polarity bad"):
        settled(recording(frames, mask=np.arange(H)[:, None] * np.ones(W) >= 20))


@pytest.mark.spec("SETTLE-31")
def test_the_polarity_of_a_mask_that_is_given_leaves_the_files_own_alone(tmp_path):
    own, bad = np.ones((H, W), bool), np.zeros((H, W), bool)
    own[1, 1], bad[2, 2] = False, True
    np.save(tmp_path / "bad.npy", bad)
    assert bad_of(settled(recording(mask=own), mask=tmp_path / "bad.npy", mask_polarity="bad")) == {(1, 1), (2, 2)}


@pytest.mark.spec("SETTLE-31")
def test_a_cxi_mask_in_which_1_is_good_is_refused_and_read_as_told(tmp_path):
    rng = np.random.default_rng(2)
    frames, good = rng.poisson(30, (13, 32, 32)), np.ones((32, 32), np.uint32)
    good[:, 20:23] = 0
    path = cxi_file(
        tmp_path / "a.cxi",
        frames,
        rng.uniform(0, 40, (13, 2)),
        entry_1__instrument_1__detector_1__mask=good,
    )
    with pytest.raises(DataError, match=r"hides 91% of the pixels.*1 was taken as bad. Give --mask_polarity good"):
        read_scan(path)
    raw = read_scan(path, mask_polarity="good")
    np.testing.assert_array_equal(raw.mask, good.astype(bool))
    assert any("1 was read as good, as given" in text for text in raw.source.assumptions)


def test_masks_that_cannot_be_read_say_why(tmp_path):
    np.save(tmp_path / "small.npy", np.ones((3, 4), bool))
    with pytest.raises(DataError, match=r"has shape \(3, 4\) but frames of beside.h5 are 40×36"):
        settled(recording(), mask=tmp_path / "small.npy")
    with pytest.raises(DataError, match=r"no.npy: cannot be read.*Allowed: .npy"):
        read_mask(tmp_path / "no.npy", None)
    with h5py.File(tmp_path / "two.h5", "w") as h5:
        h5["a"], h5["b/c"] = np.ones((2, 2)), np.ones((2, 2))
    with pytest.raises(DataError, match=r"these images: /a, /b/c; name one as two.h5:/path"):
        read_plane(tmp_path / "two.h5")
    with pytest.raises(DataError, match="no dataset 'b/d'"):
        read_plane(tmp_path / "two.h5:/b/d")
    np.save(tmp_path / "wave.npy", np.ones((2, 2), complex))
    with pytest.raises(DataError, match="complex128 values; it must hold real numbers"):
        read_plane(tmp_path / "wave.npy")
    np.savez(tmp_path / "both.npz", a=np.ones((4, 4)), b=np.ones((4, 4)))
    with pytest.raises(DataError, match=r"^\S+both.npz: holds a, b; give a file with one array\.$"):
        read_plane(tmp_path / "both.npz")
    with pytest.raises(DataError, match=r"^\S+both.npz: has no 'c'; it holds a, b\.$"):
        read_plane(tmp_path / "both.npz:c")
    with pytest.raises(DataError, match="no pixel is left"):
        settled(replace(recording(np.full_like(LIGHT, -1))))
