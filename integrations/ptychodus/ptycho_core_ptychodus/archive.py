"""The client's model file: a zip with our model bundle in it and what the client's calls need beside it.

``model.ptycho`` is a bundle as any other. ``arrays.npz`` holds the probe as refined, the one it was refined from, the
mask of the detector and the positions trained on; ``adapter.json`` the client's settings. Nothing in it is code. The
client hands it over as ``wts.h5.zip`` in a folder, or unpacked into one, or under the name of a checkpoint; all are
read, and looked at before they are used (``archive_checks``).
"""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_core import TrainedModel, TrainingConfig, load_model, save_model
from ptycho_core.bundle import read_bundle
from ptycho_core.errors import ArchiveError
from ptycho_core.io.atomic import write_bytes
from ptycho_core.text import one_line

from .archive_checks import ABOUT, ARRAYS, MODEL, damaged, read_about, read_arrays, read_members

__all__ = ["ARCHIVE_NAME", "Archive", "read_archive", "write_archive"]

ARCHIVE_NAME = "wts.h5.zip"
"""What the client calls it; there is no HDF5 in it."""

_FORMAT, _VERSION = "ptycho-core-ptychodus", 1


@dataclass(frozen=True)
class Archive:
    """What training leaves for reconstructing.

    Attributes:
        bundle: the bytes of our model bundle.
        config: what decided the result, from the bundle.
        network: whether the bundle holds a network, and not the object of a solver.
        probe: (P, N, N) complex64 as refined.
        probe_guess: (P, N, N) complex64 that training began with.
        mask: (N, N) bool, True = good, or None.
        positions_px: (M, 2) float64 positions trained and judged on, pixels of the client's object array.
        grid: (H, W) of that array, or None where the data did not say.
        client: the client's configs by name, plain.
    """

    bundle: bytes
    config: TrainingConfig
    network: bool
    probe: NDArray[np.complex64]
    probe_guess: NDArray[np.complex64]
    mask: NDArray[np.bool_] | None
    positions_px: NDArray[np.float64]
    grid: tuple[int, int] | None
    client: dict[str, Any] = field(default_factory=dict)

    def model(self, backend: str | None) -> TrainedModel:
        """The trained network, loaded with an engine, or with the one that made it.

        Raises:
            ArchiveError, BackendError: see ``ptycho_core.load_model``.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / MODEL
            path.write_bytes(self.bundle)
            return load_model(path, backend=backend)


def bundle_of(model: TrainedModel) -> bytes:
    """A model as the bytes of its bundle."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MODEL
        save_model(model, path)
        return path.read_bytes()


def write_archive(archive: Archive, path: Path) -> None:
    """Write an archive atomically.

    Raises:
        OutputError: it cannot be written.
    """
    arrays: dict[str, Any] = {
        "probe": archive.probe,
        "probe_guess": archive.probe_guess,
        "positions_px": archive.positions_px,
    }
    if archive.mask is not None:
        arrays["mask"] = archive.mask
    if archive.grid is not None:
        arrays["grid"] = np.array(archive.grid, np.int64)
    packed = io.BytesIO()
    np.savez(packed, allow_pickle=False, **arrays)
    about = {"format": _FORMAT, "version": _VERSION, "client": archive.client}
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED) as out:
        for name, content in (
            (MODEL, archive.bundle), (ARRAYS, packed.getvalue()), (ABOUT, json.dumps(about, indent=1).encode()),
        ):  # fmt: skip
            out.writestr(zipfile.ZipInfo(name), content)
    write_bytes(path, whole.getvalue())


def read_archive(path: Path | str) -> Archive:
    """Read an archive, wherever the client has put it.

    Args:
        path: the file, or the folder that holds it or its members.

    Raises:
        ArchiveError: damaged, foreign or too new.
    """
    path = Path(path)
    if (path / ARCHIVE_NAME).is_file():
        path = path / ARCHIVE_NAME
    members = read_members(path, ARCHIVE_NAME)
    about = read_about(members[ABOUT], path)
    if about["format"] != _FORMAT or about["version"] != _VERSION:
        said = one_line(f"{about['format']} {about['version']}", 80)
        raise ArchiveError(f"{path}: it is {said}; this version reads {_FORMAT} {_VERSION}. Train again.")
    with tempfile.TemporaryDirectory() as folder:
        aside = Path(folder)
        for name in (MODEL, ARRAYS):
            (aside / name).write_bytes(members[name])
        try:
            bundle = read_bundle(aside / MODEL)
        except ArchiveError as error:  # names a file that is gone when it is read
            raise damaged(path, str(error).replace(str(aside / MODEL), MODEL).rstrip(".")) from error
        arrays = read_arrays(aside / ARRAYS, path, bundle.side)
    grid = arrays.get("grid")
    return Archive(
        bundle=members[MODEL],
        config=bundle.config,
        network=bundle.generator is not None,
        probe=arrays["probe"],
        probe_guess=arrays["probe_guess"],
        mask=arrays.get("mask"),
        positions_px=arrays["positions_px"],
        grid=None if grid is None else (int(grid[0]), int(grid[1])),
        client=about["client"],
    )
