"""Which datasets an HDF5 file holds, behind links of any kind too, and that none of them is read for it."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest

from ptycho_core.io.candidate import Candidate, examine


def examined(path: Path) -> Candidate:
    file = examine(path)
    assert file is not None
    return file


@pytest.mark.spec("READ-1")
def test_names_behind_links_are_listed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "beside.h5", "w") as h5:
        h5["deep/mask"] = np.ones((6, 8), bool)
    with h5py.File(tmp_path / "scan.h5", "w") as h5:
        h5["a/data"] = np.zeros((3, 6, 8), "u2")
        h5["hard"] = h5["a/data"]
        h5["soft"] = h5py.SoftLink("/a/data")
        h5["group"] = h5py.SoftLink("/a")
        h5["external"] = h5py.ExternalLink("beside.h5", "/deep")
        h5["gone"] = h5py.SoftLink("/no/where")
        h5["lost/mask"] = h5py.ExternalLink("lost.h5", "/mask")
    file = examined(tmp_path / "scan.h5")
    frames = "(3, 6, 8) uint16"
    assert file.shapes == {
        "a/data": frames,
        "hard": frames,
        "soft": frames,
        "group/data": frames,
        "external/mask": "(6, 8) bool",
        "gone": "link to /no/where, not there",
        "lost/mask": "link to /mask of lost.h5, not there",
    }
    assert sorted(file.names) == sorted(file.shapes)
    assert sorted(file.beside) == ["beside.h5", "lost.h5"]


@pytest.mark.spec("READ-1")
def test_circles_of_links_end(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as h5:
        h5["back"] = h5py.ExternalLink("scan.h5", "/a")
    with h5py.File(tmp_path / "scan.h5", "w") as h5:
        h5["a/data"] = np.zeros(3)
        h5["a/up"] = h5["/"]
        h5["a/self"] = h5py.SoftLink("/a")
        h5["a/around"] = h5py.ExternalLink("other.h5", "/back")
        h5["loop"] = h5py.SoftLink("/loop")
    file = examined(tmp_path / "scan.h5")
    assert file.names == ("a/data", "loop")


def test_no_frame_is_read_to_list_names(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "scan.h5", "w") as h5:
        h5.create_dataset("data", (190_000, 512, 512), "u2", chunks=(1, 512, 512))  # 100 GB that nobody wrote
        h5["group"] = h5py.SoftLink("/")
    tracemalloc.start()
    file = examined(tmp_path / "scan.h5")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert file.shapes["data"] == "(190000, 512, 512) uint16"
    assert peak < 2**20
