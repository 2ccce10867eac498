"""The client's model file: a zip with our model bundle in it and what the client's calls need beside it.

``model.ptycho`` is a bundle as any other. ``arrays.npz`` holds the probe as refined, the one it was refined from, the
mask of the detector and the positions trained on; ``adapter.json`` the client's settings. Nothing in it is code. The
client hands it over as ``wts.h5.zip`` in a folder, or unpacked into one, or under the name of a checkpoint; all are
read.
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

__all__ = ["ARCHIVE_NAME", "Archive", "read_archive", "write_archive"]

ARCHIVE_NAME = "wts.h5.zip"
"""What the client calls it; there is no HDF5 in it."""

_FORMAT, _VERSION = "ptycho-core-ptychodus", 1
_MODEL, _ARRAYS, _ABOUT = "model.ptycho", "arrays.npz", "adapter.json"
_MEMBERS = (_MODEL, _ARRAYS, _ABOUT)
_MOST_BYTES = 2**33
"""Largest archive that is read: eight times a network of the reference's size is far below."""


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
            path = Path(folder) / _MODEL
            path.write_bytes(self.bundle)
            return load_model(path, backend=backend)


def bundle_of(model: TrainedModel) -> bytes:
    """A model as the bytes of its bundle."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / _MODEL
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
            (_MODEL, archive.bundle), (_ARRAYS, packed.getvalue()), (_ABOUT, json.dumps(about, indent=1).encode()),
        ):  # fmt: skip
            out.writestr(zipfile.ZipInfo(name), content)
    write_bytes(path, whole.getvalue())


def _members(path: Path) -> dict[str, bytes]:
    """The three members, out of a file, or out of a folder that it was unpacked into.

    Raises:
        ArchiveError: they are not there.
    """
    if path.is_dir():
        missing = [name for name in _MEMBERS if not (path / name).is_file()]
        if not missing:
            return {name: (path / name).read_bytes() for name in _MEMBERS}
        raise ArchiveError(f"{path}: no model of ptycho-core lies there; {ARCHIVE_NAME} and {missing[0]} are missing.")
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist()}
            missing = [name for name in _MEMBERS if name not in sizes]
            if missing:
                raise ArchiveError(
                    f"{path}: it has no {missing[0]}, so it is no model of ptycho-core (one of PtychoPINN, perhaps); "
                    "train again."
                )
            if sum(sizes[name] for name in _MEMBERS) > _MOST_BYTES:
                raise ArchiveError(f"{path}: it unpacks to more than {_MOST_BYTES >> 30} GiB; no model is so large.")
            return {name: archive.read(name) for name in _MEMBERS}
    except (OSError, zipfile.BadZipFile) as error:
        raise ArchiveError(f"{path}: it is no readable model archive: {error}. Train again.") from error


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
    members = _members(path)
    try:
        about = json.loads(members[_ABOUT])
        with np.load(io.BytesIO(members[_ARRAYS]), allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
        if about["format"] != _FORMAT or about["version"] != _VERSION:
            raise ArchiveError(
                f"{path}: it is {about['format']} {about['version']}; this version reads {_FORMAT} {_VERSION}. Train "
                "again."
            )
        probe, guess = (np.asarray(arrays[name], np.complex64) for name in ("probe", "probe_guess"))
        grid = tuple(int(side) for side in arrays["grid"]) if "grid" in arrays else None
        positions, client = np.asarray(arrays["positions_px"], np.float64), dict(about["client"])
    except (KeyError, TypeError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, ArchiveError):
            raise
        raise ArchiveError(f"{path}: it is damaged ({type(error).__name__}: {error}). Train again.") from error
    with tempfile.TemporaryDirectory() as folder:
        unpacked = Path(folder) / _MODEL
        unpacked.write_bytes(members[_MODEL])
        bundle = read_bundle(unpacked)
    return Archive(
        bundle=members[_MODEL],
        config=bundle.config,
        network=bundle.generator is not None,
        probe=probe,
        probe_guess=guess,
        mask=arrays.get("mask"),
        positions_px=positions,
        grid=grid,  # type: ignore[arg-type]
        client=client,
    )
