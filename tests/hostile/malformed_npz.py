"""Malformed NPZ files whose arrays are no scan."""

from __future__ import annotations

from typing import Any

import numpy as np
from good_scans import Content, M, N, counts, npz_content, positions_px, probe, write_npz
from malformed import Build, Malformed

__all__ = ["NPZ_VALUES"]

nan, inf = np.nan, np.inf
X, Y = positions_px().T[::-1]


def _with(**changes: Any) -> Build:
    return lambda folder: write_npz(folder / "scan.npz", npz_content() | changes)


def _one(values: np.ndarray, where: Any, value: Any) -> np.ndarray:
    values = np.array(values)
    values[where] = value
    return values


def _big(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """Many values in no memory."""
    return np.broadcast_to(np.zeros((), dtype), shape)


FRAMES = counts()

_FRAMES: dict[str, Any] = {
    "missing": None,
    "with a NaN in every frame": _one(FRAMES, (slice(None), 3, 4), nan)[:, :, :] * nan,
    "all inf": np.full_like(FRAMES, inf),
    "negative": -FRAMES,
    "complex": FRAMES.astype(np.complex64),
    "complex256": FRAMES.astype(np.clongdouble),
    "text": np.full((M, N, N), "7"),
    "bytes": np.full((M, N, N), b"7"),
    "dates": np.full((M, N, N), np.datetime64("2026-01-01")),
    "durations": np.full((M, N, N), np.timedelta64(1, "s")),
    "void": np.zeros((M, N, N), "V4"),
    "a structure": np.zeros((M, N, N), [("a", "f4"), ("b", "f4")]),
    "a nested structure": np.zeros((M, N, N), [("a", [("b", "f4", (2,))])]),
    "0-d": np.array(1.0),
    "1-d": FRAMES.ravel(),
    "2-d": FRAMES[0],
    "4-d": FRAMES.reshape(5, 4, N, N),
    "5-d": FRAMES.reshape(1, 5, 4, N, N),
    "32-d": FRAMES.reshape((1,) * 29 + FRAMES.shape),
    "empty": np.zeros((0, N, N), np.float32),
    "of no pixels": np.zeros((M, 0, 0), np.float32),
    "of no columns": np.zeros((M, N, 0), np.float32),
    "not square": FRAMES[:, :, :-2],
    "of odd side": FRAMES[:, 1:, 1:],
    "of side 2": FRAMES[:, :2, :2],
    "of side 6": FRAMES[:, :6, :6],
    "of side 1": FRAMES[:, :1, :1],
    "one fewer": FRAMES[:-1],
    "one more": np.concatenate([FRAMES, FRAMES[:1]]),
    "all zero": FRAMES * 0,
    "all false": np.zeros((M, N, N), bool),
    "of 1e38": np.full_like(FRAMES, 1e38),
    "of 1e300": np.full((M, N, N), 1e300),
    "of 1e4000": np.full((M, N, N), np.longdouble("1e4000")) if np.finfo(np.longdouble).max > 1e4000 else None,
    "axes turned": FRAMES.transpose(1, 2, 0)[:, :, :-1],
}

_COORDINATES: dict[str, Any] = {
    "missing": None,
    "all NaN": X * nan,
    "with a NaN": _one(X, 3, nan),
    "with an inf": _one(X, 3, inf),
    "complex": X + 1j,
    "text": X.astype(str),
    "objects' dates": np.arange(M).astype("datetime64[D]"),
    "bools": X > 1e9,
    "0-d": np.array(3.0),
    "empty": np.zeros(0),
    "one fewer": X[:-1],
    "one more": np.append(X, 3.0),
    "(M, M)": np.zeros((M, M)),
    "(M, 1, 1)": X[:, None, None],
    "1e308": _one(X, 3, 1e308),
    "-1e308": _one(X, 3, -1e308),
    "of a canvas of 10 GB": _one(X, 3, 4e7),
    "spread over a canvas of 10 GB": np.linspace(0, 4e5, M),
    "spread over a canvas of 1e18": np.linspace(0, 1e18, M),
    "of a canvas of 1e18": _one(X, 3, 1e18),
    "of int64 lengths": np.full(M, 2**63 - 1),
    "of uint64 lengths": _one(np.zeros(M, np.uint64), 0, 2**64 - 1),
    "a structure": np.zeros(M, [("x", "f8")]),
}

_PROBES: dict[str, Any] = {
    "text": np.array("probe"),
    "dates": np.full((N, N), np.datetime64("2026-01-01")),
    "NaN": probe() * nan,
    "with an inf": _one(probe(), (0, 3, 4), inf),
    "zero": probe() * 0,
    "0-d": np.array(1j),
    "1-d": probe()[0, 0],
    "empty": np.zeros((0, N, N), np.complex64),
    "of another side": probe()[:, 1:-1, 1:-1],
    "not square": probe()[:, :, 1:],
    "7-d": probe().reshape(1, 1, 1, 1, 2, N, N)[:, :, :, :, :1, :-1],
    "of 1e30": np.full((N, N), 1e30 + 1e30j, np.complex64),
    "of 1e300": np.full((N, N), 1e300 + 1j),
    "a structure": np.zeros((N, N), [("re", "f4"), ("im", "f4"), ("x", "f4")]),
}

_PLANES: dict[str, Any] = {
    "text": np.full((N, N), "x"),
    "complex": np.ones((N, N), complex),
    "NaN": np.full((N, N), nan),
    "0-d": np.array(1),
    "1-d": np.ones(N),
    "4-d": np.ones((1, 1, N, N + 1)),
    "empty": np.ones((0, 0)),
    "of another side": np.ones((N - 2, N - 2)),
    "dates": np.full((N, N), np.datetime64("2026-01-01")),
    "a structure": np.zeros((N, N), [("re", "f4")]),
}

_OTHERS: dict[str, Content] = {
    "mask hides all": {"mask": np.zeros((N, N), bool)},
    "mask and bad_pixels": {"bad_pixels": np.zeros((N, N), bool)},
    "background of NaN": {"background": np.full((N, N), nan)},
    "background of inf": {"background": np.full((N, N), inf)},
    "background negative": {"background": np.full((N, N), -3.0)},
    "background complex": {"background": np.full((N, N), 1j)},
    "background of another side": {"background": np.ones((N + 2, N + 2))},
    "background as text": {"background": np.array("low")},
    "background empty": {"background": np.zeros((0,))},
    "objectGuess as text": {"objectGuess": np.array("object")},
    "objectGuess of NaN": {"objectGuess": np.full((40, 40), nan + 0j)},
    "objectGuess 1-d": {"objectGuess": np.ones(40, complex)},
    "objectGuess empty layers": {"objectGuess": np.ones((0, 40, 40), complex)},
    "objectGuess with origin of three": {"objectGuess": np.ones((40, 40), complex), "object_origin_px": np.zeros(3)},
    "objectGuess with origin of NaN": {"objectGuess": np.ones((40, 40), complex), "object_origin_px": np.full(2, nan)},
    "measurement of a wrong word": {"measurement": np.array("photons, I think")},
    "measurement as number": {"measurement": np.array(3)},
    "measurement of two": {"measurement": np.array(["counts", "amplitude"])},
    "measurement empty": {"measurement": np.array([], "U6")},
    "measurement with escapes": {"measurement": np.array("\x1b]0;owned\x07\x1b[2J\u202e counts")},
    "measurement of a million letters": {"measurement": np.array("c" * 10**6)},
    "measurement with surrogates": {"measurement": np.array("\udcff\ud800")},
    "measurement as bytes that are no UTF-8": {"measurement": np.array(b"\xff\xfe")},
    "no measurement": {"measurement": None},
    "pixel_centre of a wrong word": {"pixel_centre": np.array("N/3")},
    "pixel_centre as number": {"pixel_centre": np.array(7.5)},
    "energy of 0": {"energy_eV": np.array(0.0)},
    "energy negative": {"energy_eV": np.array(-1.0)},
    "energy of NaN": {"energy_eV": np.array(nan)},
    "energy as text": {"energy_eV": np.array("8 keV")},
    "energy of two": {"energy_eV": np.array([1.0, 2.0])},
    "energy complex": {"energy_eV": np.array(1j)},
    "energy as date": {"energy_eV": np.array(np.datetime64("2026-01-01"))},
    "distance inf": {"distance_m": np.array(inf)},
    "pixel size empty": {"pixel_size_m": np.zeros(0)},
    "pixel size of 1e400": {"pixel_size_m": np.array(np.longdouble("1e400"))},
    "radiation of a wrong word": {"radiation": np.array("neutrons")},
    "radiation as bytes": {"radiation": np.array(b"\xff")},
    "propagation of a wrong word": {"propagation": np.array("sideways")},
    "near field without a number": {"propagation": np.array("near_field")},
    "Fresnel number of 0": {"propagation": np.array("near_field"), "fresnel_number": np.array(0.0)},
    "Fresnel number of NaN": {"propagation": np.array("near_field"), "fresnel_number": np.array(nan)},
    "Fresnel number of a far field": {"propagation": np.array("far_field"), "fresnel_number": np.array(0.01)},
    "probe_calibrated as text": {"probe_calibrated": np.array("yes")},
    "probe_calibrated of two": {"probe_calibrated": np.array([True, False])},
    "scan_index as text": {"scan_index": np.array(["a"] * M)},
    "scan_index of another length": {"scan_index": np.zeros(M - 3, int)},
    "scan_index of NaN": {"scan_index": np.full(M, nan)},
    "scan_index of two scans": {"scan_index": np.arange(M) // 10},
    "provenance as number": {"provenance": np.array(3)},
    "provenance that is no JSON": {"provenance": np.array("{")},
    "provenance that is a list": {"provenance": np.array("[1, 2]")},
    "provenance with a list of numbers as assumptions": {"provenance": np.array('{"assumptions": [1, 2]}')},
    "provenance with text as warnings": {"provenance": np.array('{"warnings": "abc"}')},
    "provenance with null as details": {"provenance": np.array('{"details": 3}')},
    "provenance nested 100 000 deep": {"provenance": np.array("[" * 100_000)},
    "provenance with an integer of 10 000 digits": {"provenance": np.array('{"details": {"n": ' + "9" * 10_000 + "}}")},
    "no frame": {"diff3d": FRAMES[:0], "xcoords": X[:0], "ycoords": Y[:0]},
    "all frames at one place": {"xcoords": X * 0, "ycoords": Y * 0},
    "nothing but positions": {"diff3d": None, "probeGuess": None},
    "nothing but a probe": {"diff3d": None, "xcoords": None, "ycoords": None},
    "nominal x with measured y": {"xcoords": None, "xcoords_start": X},
    "frames of 5000 pixels": {
        "diff3d": _big((1, 5000, 5000), np.uint8),
        "xcoords": X[:1],
        "ycoords": Y[:1],
    },
}


def _values() -> list[Malformed]:
    found = [Malformed(f"npz: frames {name}", _with(diff3d=value)) for name, value in _FRAMES.items()]
    found += [Malformed(f"npz: x coordinates {name}", _with(xcoords=value)) for name, value in _COORDINATES.items()]
    found += [Malformed(f"npz: probe {name}", _with(probeGuess=value)) for name, value in _PROBES.items()]
    found += [Malformed(f"npz: mask {name}", _with(mask=value)) for name, value in _PLANES.items()]
    found += [Malformed(f"npz: {name}", _with(**changes)) for name, changes in _OTHERS.items()]
    return found


NPZ_VALUES: list[Malformed] = _values()
