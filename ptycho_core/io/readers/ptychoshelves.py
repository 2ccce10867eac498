"""HDF5 files of PtychoShelves, and MAT files of version 7.3, which are HDF5: see ``matlab_scan`` for the names."""

from __future__ import annotations

from ...data.recording import Recording
from ...plugins.hookspecs import hookimpl
from ...reader_protocol import ReaderSpec, ReadOptions
from ..candidate import Candidate
from .arrays import Hdf5Arrays
from .matlab_scan import MATLAB_IN_HDF5, PYTHON, frames_name, read_by_names
from .matlab_values import is_matlab_73

__all__ = ["ptycho_reader", "read", "recognises"]

_TELLING = {"ppX", "ppY", "lambda", "positions_real", "probe_positions_0"}
_OWN = {"detectorData", "measurement", "measurement/data"}


@hookimpl
def ptycho_reader() -> ReaderSpec:
    """Describe the dialect."""
    return ReaderSpec(
        name="ptychoshelves",
        title="PtychoShelves: HDF5 or MAT 7.3 with dp or detectorData, ppX, ppY",
        kind="hdf5",
        module=__name__,
        protocol_version=2,
        priority=20,
        one_scan=True,
    )


def recognises(file: Candidate) -> bool:
    """Whether an HDF5 file has frames by a name of PtychoShelves and anything else that tells it."""
    if file.kind != "hdf5":
        return False
    frames = frames_name(file.names)
    if frames is None:
        return False
    bare = {name.removeprefix("p/") for name in file.names}
    return bool(bare & _TELLING) or frames.removeprefix("p/") in _OWN or is_matlab_73(file.path)


def read(file: Candidate, options: ReadOptions) -> Recording:
    """Read a scan; frames stay on disk.

    Args:
        file: an examined HDF5 file.
        options: `measurement` must not contradict counts.

    Raises:
        DataError: a dataset is missing or holds what it must not.
    """
    arrays = Hdf5Arrays(file.path, options.follow)
    order = MATLAB_IN_HDF5 if is_matlab_73(file.path) or _says_matlab(arrays) else PYTHON
    return read_by_names(arrays, order, options, "ptychoshelves", [])


def _says_matlab(arrays: Hdf5Arrays) -> bool:
    """Whether the frames have the mark that MATLAB gives to what it saves."""
    name = frames_name(arrays.headers())
    if name is None:
        return False
    with arrays.opened(name) as dataset:
        return "MATLAB_class" in dataset.attrs
