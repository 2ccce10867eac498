"""Probes in whatever form programs keep them: centre at the corner, real pairs, compounds, and where they lie."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from reader_truth import a_truth

from ptycho_core.errors import DataError
from ptycho_core.io.probes import normalise_probe, read_probe

PROBE = a_truth().probe.astype(np.complex64)
N = PROBE.shape[-1]


def pairs(values: np.ndarray) -> np.ndarray:
    return np.stack([values.real, values.imag], axis=-1)


def compound(values: np.ndarray) -> np.ndarray:
    out = np.zeros(values.shape, [("real", "f4"), ("imag", "f4")])
    out["real"], out["imag"] = values.real, values.imag
    return out


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (PROBE, []),
        (np.moveaxis(PROBE, 0, -1), []),
        (PROBE[None, None], []),
        (pairs(PROBE), ["real and imaginary part"]),
        (compound(PROBE), []),
        (np.fft.ifftshift(PROBE, axes=(1, 2)), ["centre at the corner"]),
        (pairs(np.fft.ifftshift(PROBE, axes=(1, 2))), ["real and imaginary part", "centre at the corner"]),
    ],
)
@pytest.mark.spec("READ-7")
def test_a_probe_is_recognised_and_what_was_done_is_said(stored: np.ndarray, said: list[str]) -> None:
    notes: list[str] = []
    np.testing.assert_array_equal(normalise_probe(stored, "scan", notes), PROBE)
    assert len(notes) == len(said)
    assert all(word in text for word, text in zip(said, notes, strict=True))


def test_one_plane_of_pairs_is_one_mode() -> None:
    np.testing.assert_array_equal(normalise_probe(pairs(PROBE[0]), "scan"), PROBE[:1])


@pytest.mark.parametrize("kind", ["everywhere", "ring", "aside"])
def test_a_probe_that_is_not_about_the_corner_stays(kind: str) -> None:
    r = np.arange(N) - N / 2
    radius = np.hypot(r[:, None], r[None])
    planes = {
        "everywhere": np.ones((N, N), complex),
        "ring": (np.abs(radius - 12) < 2) * np.exp(0.3j * r[None]),
        "aside": np.roll(PROBE[0], (6, -5), axis=(0, 1)),
    }
    notes: list[str] = []
    np.testing.assert_array_equal(normalise_probe(planes[kind], "scan", notes)[0], planes[kind].astype(np.complex64))
    assert not notes


def test_real_modes_are_no_pairs() -> None:
    real = np.abs(PROBE).astype(np.float32)
    np.testing.assert_array_equal(normalise_probe(real, "scan"), real.astype(np.complex64))


def test_a_word_called_probe_is_none(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.cxi", "w") as h5:
        h5["entry_1/instrument_1/source_1/probe"] = "x-ray"
        h5["entry_1/image_1/instrument_1/source_1/illumination"] = PROBE
    np.testing.assert_array_equal(read_probe(tmp_path / "a.cxi"), PROBE)
    with h5py.File(tmp_path / "b.cxi", "w") as h5:
        h5["entry_1/instrument_1/source_1/probe"] = "x-ray"
    with pytest.raises(DataError, match="no entry/probe"):
        read_probe(tmp_path / "b.cxi")


@pytest.mark.spec("READ-2")
def test_a_probe_behind_a_link_is_found_and_one_that_is_gone_is_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as h5:
        h5["p"] = PROBE
    with h5py.File(tmp_path / "a.h5", "w") as h5:
        h5["probe"] = h5py.ExternalLink("other.h5", "/p")
    np.testing.assert_array_equal(read_probe(tmp_path / "a.h5"), PROBE)
    (tmp_path / "other.h5").unlink()
    with pytest.raises(DataError, match=r"'probe' is a link to '/p' of 'other\.h5', which is not there"):
        read_probe(tmp_path / "a.h5")
