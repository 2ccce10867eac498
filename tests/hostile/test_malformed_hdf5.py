"""The same for HDF5 of our own dialect, in a file of its own, so that a second process can take it."""

from __future__ import annotations

from pathlib import Path

import pytest
from malformed import Malformed
from malformed_hdf5 import HDF5_VALUES
from malformed_hdf5_bytes import HDF5_BYTES
from malformed_hdf5_links import HDF5_LINKS
from test_malformed_scans import commands, folder, hold  # noqa: F401  two of them are fixtures
from warm_commands import WarmCommands

pytestmark = pytest.mark.hostile
HDF5 = [*HDF5_VALUES, *HDF5_LINKS, *HDF5_BYTES]


@pytest.mark.parametrize("case", HDF5, ids=str)
def test_it_is_refused(case: Malformed, commands: WarmCommands, folder: Path) -> None:  # noqa: F811
    hold(case, commands, folder)


def test_the_catalogue_names_each_case_once() -> None:
    names = [case.name for case in HDF5]
    assert len(names) == len(set(names))
    assert len(names) >= 250
