"""What is fuzzed: a sound file of every format, and how it is read whole in this process."""

from __future__ import annotations

import functools
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import good_scans as good
import numpy as np
from mutants_of_files import mutant

from ptycho_core.bundle import Bundle, read_bundle, write_bundle
from ptycho_core.config import ModelConfig, TrainingConfig
from ptycho_core.data.container import Statistics
from ptycho_core.errors import ArchiveError, ConfigError, DataError
from ptycho_core.io import read_scan
from ptycho_core.reader_protocol import ReadOptions

__all__ = ["ALLOWED", "FORMATS", "HANG_SECONDS", "Fuzzed", "Hung", "ending_in", "read_mutant"]

HANG_SECONDS = 60
"""Only a hang takes so long."""


ALLOWED = (DataError, ArchiveError, ConfigError)
"""What a damaged file may raise."""


class Hung(BaseException):
    """A reader was still at it when only a hang is."""


@dataclass(frozen=True)
class Fuzzed:
    """A format.

    Attributes:
        name: of it.
        kind: of its container, a key of ``mutants_of_files.MARKS``.
        suffix: of its files.
        write: a sound file.
        read: read it whole.
    """

    name: str
    kind: str
    suffix: str
    write: Callable[[Path], Any]
    read: Callable[[Path], None]

    @functools.cached_property
    def sound(self) -> bytes:
        """The bytes of the sound file."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"sound{self.suffix}"
            self.write(path)
            return path.read_bytes()


def _read(path: Path, **said: Any) -> None:
    raw = read_scan(path, options=ReadOptions(**said))
    counts = raw.read_counts(np.arange(raw.n_frames))
    assert counts.shape == (raw.n_frames, raw.side, raw.side)
    assert np.isfinite(counts[:, raw.mask]).all()
    assert np.isfinite(raw.positions_px).all()


def _read_tiff(path: Path) -> None:
    places = path.parent / "positions.txt"
    if not places.exists():
        good.positions_file(path.parent)
    _read(
        path, positions=places, position_unit="m", energy_eV=good.ENERGY_EV, distance_m=good.DISTANCE_M,
        detector_pixel_size_m=good.DETECTOR_PIXEL_M,
    )  # fmt: skip


def _write_bundle(path: Path) -> None:
    rng = np.random.default_rng(3)
    write_bundle(
        path,
        Bundle(
            backend="numpy",
            generator="cnn",
            side=good.N,
            config=TrainingConfig(model=ModelConfig(generator="cnn", width=5)),
            statistics=Statistics(mean_counts=123.25, n_frames=good.M, scale=0.1),
            scale=1 / 3,
            weights={"b/weight": rng.normal(size=(2, 3)).astype(np.float32), "a/steps": np.array([7, -1], np.int64)},
            probe=good.probe(),
            history={"train_loss": [0.1, 0.2], "test_loss": [0.3, 0.4]},
            provenance={"seed": 3},
        ),
    )


FORMATS = {
    found.name: found
    for found in (
        Fuzzed("npz", "zip", ".npz", lambda p: good.write_npz(p, good.npz_content()), _read),
        Fuzzed(
            "npz_compressed", "zip", ".npz", lambda p: good.write_npz(p, good.npz_content(), compressed=True), _read
        ),
        Fuzzed("hdf5", "hdf5", ".h5", lambda p: good.write_own(p, {"provenance": '{"details": {"a": 1}}'}), _read),
        Fuzzed("hdf5_latest", "hdf5", ".h5", lambda p: good.write_own(p, libver="latest"), _read),
        Fuzzed("cxi", "hdf5", ".cxi", lambda p: good.write_h5(p, good.cxi_content()), _read),
        Fuzzed("nxcxi_ptycho", "hdf5", ".nxs", good.write_nxcxi, _read),
        Fuzzed("mat73", "hdf5", ".mat", good.write_mat73, _read),
        Fuzzed("mat5", "mat", ".mat", good.write_mat5, _read),
        Fuzzed("tiff", "tiff", ".tif", good.write_tiff, _read_tiff),
        Fuzzed("tike", "bz2", ".npz.bz2", good.write_tike, _read),
        Fuzzed("tike_archive", "zip", ".npz", lambda p: p.write_bytes(good.tike_bytes()), _read),
        Fuzzed("bundle", "zip", ".ptycho", _write_bundle, read_bundle),
    )
}
"""Formats by name."""


@contextmanager
def ending_in(seconds: float) -> Iterator[None]:
    """Raise ``Hung`` in what takes longer."""

    def ring(number: int, frame: Any) -> None:
        raise Hung(f"still at it after {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def read_mutant(which: Fuzzed, number: int, folder: Path) -> str:
    """Read a mutant, and say how that ended: ``read`` or the name of the typed error, one of `ALLOWED`.

    Raises:
        Exception: whatever else the reader raised, which is a fault of ours.
        Hung: it did not end.
    """
    path = folder / f"mutant{which.suffix}"
    path.write_bytes(mutant(which.sound, number, which.kind))
    try:
        with ending_in(HANG_SECONDS):
            which.read(path)
    except ALLOWED as error:
        return next(kind.__name__ for kind in ALLOWED if isinstance(error, kind))
    return "read"
