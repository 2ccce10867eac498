"""Where things lie in an entry of CXI or NXcxi_ptycho, and which of several scans in a file is read.

Names are those of CXI (www.cxidb.org), with or without their number: ``instrument_1`` or ``instrument``, ``detector_1``
or ``detector``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..h5_values import dataset_at, group_at, text_at
from .entries import chosen_entry

__all__ = ["Layout", "find_layout", "first_named"]


@dataclass(frozen=True)
class Layout:
    """Paths in a file; a group that is not there has the path that it would have.

    Attributes:
        frames: dataset of the frames.
        entry: group of the scan.
        data: group that plots the frames.
        detector: group of the detector.
        source: group of the source.
        beam: group of the beam.
        sample: group of the sample.
    """

    frames: str
    entry: str
    data: str
    detector: str
    source: str
    beam: str
    sample: str


def _named(h5: Any, parent: str, stem: str) -> list[str]:
    """Paths of the children ``stem``, ``stem_1``, ``stem_2`` … of a group."""
    group = group_at(h5, parent) if parent else h5
    names = [name for name in group or () if re.fullmatch(rf"{stem}(_\d+)?", name)]
    names.sort(key=lambda name: (len(name), name))
    return [f"{parent}/{name}".lstrip("/") for name in names]


def first_named(h5: Any, parent: str, stem: str) -> str:
    """Path of the child ``stem`` or ``stem_1`` of a group; the path that it would have, where there is none."""
    return next(iter(_named(h5, parent, stem)), f"{parent}/{stem}_1")


def _frames_of_entry(h5: Any, entry: str) -> Iterator[str]:
    """Datasets of an entry that may be frames, the plotted ones first."""
    for data in _named(h5, entry, "data"):
        yield f"{data}/data"
    for instrument in _named(h5, entry, "instrument"):
        for detector in _named(h5, instrument, "detector"):
            yield f"{detector}/data"


def _images_of_entry(h5: Any, entry: str) -> Iterator[str]:
    """Images of an entry that may be frames, where it has no others."""
    for image in _named(h5, entry, "image"):
        if (text_at(h5, f"{image}/data_space") or "diffraction").lower() != "real":
            yield f"{image}/data"


def _identity(dataset: Any) -> tuple[Any, ...]:
    """Equal for two paths to one dataset, a virtual one that only restructures another of its file included."""
    import h5py

    if dataset.is_virtual:
        sources = {(source.file_name, source.dset_name.strip("/")) for source in dataset.virtual_sources()}
        if len(sources) == 1:
            file_name, name = sources.pop()
            inside = dataset.file.get(name) if file_name == "." else None
            if inside is not None and inside.size == dataset.size:
                return _identity(inside)
    info = h5py.h5o.get_info(dataset.id)
    return int(info.fileno), int(info.addr)


def _is_stack(dataset: Any) -> bool:
    """Whether it may be frames: an image of a reconstruction is complex, or has two axes."""
    return dataset.dtype.kind in "biuf" and dataset.ndim >= 3


def _distinct(h5: Any, paths: Iterator[str], seen: set[tuple[Any, ...]]) -> list[str]:
    """Those paths at which a dataset is that was not seen yet."""
    found = []
    for path in paths:
        dataset = dataset_at(h5, path)
        if dataset is not None and (identity := _identity(dataset)) not in seen:
            seen.add(identity)
            found.append(path)
    return found


def find_layout(h5: Any, entries: list[str], wanted: str | None, name: str) -> Layout | None:
    """Where the scan lies that is to be read, or None where no entry has frames.

    Args:
        h5: an open file.
        entries: groups that may be scans.
        wanted: which of several, as given with ``--entry``.
        name: the file, for messages.

    Raises:
        DataError: several scans and none was chosen, or no such one.
    """
    scans: dict[str, str] = {}
    no_scans: dict[str, str] = {}
    seen: set[tuple[Any, ...]] = set()  # an entry may link to what is in another
    for entry in entries:
        found = _distinct(h5, _frames_of_entry(h5, entry), seen)
        found = found or _distinct(h5, _images_of_entry(h5, entry), seen)
        stacks = [path for path in found if _is_stack(h5[path])]
        scans |= {entry if len(stacks) == 1 else path.rsplit("/", 1)[0]: path for path in stacks}
        if found:
            no_scans[entry] = found[0]
    scans = scans or no_scans  # what is wrong with them is told by who reads them
    if not scans:
        return None
    chosen = scans[chosen_entry(list(scans), wanted, name)]
    entry = next(entry for entry in entries if chosen.startswith(f"{entry}/"))
    return _layout(h5, entry, chosen)


def _layout(h5: Any, entry: str, frames: str) -> Layout:
    parent = frames.rsplit("/", 1)[0]
    instrument = first_named(h5, entry, "instrument")
    detectors = _named(h5, instrument, "detector")
    same = [path for path in detectors if _holds(h5, f"{path}/data", frames)]
    is_data = parent in _named(h5, entry, "data")
    return Layout(
        frames=frames,
        entry=entry,
        data=parent if is_data else first_named(h5, entry, "data"),
        detector=(same or detectors or [f"{instrument}/detector_1"])[0],
        source=first_named(h5, instrument, "source"),
        beam=first_named(h5, instrument, "beam"),
        sample=first_named(h5, entry, "sample"),
    )


def _holds(h5: Any, path: str, frames: str) -> bool:
    dataset = dataset_at(h5, path)
    return dataset is not None and _identity(dataset) == _identity(h5[frames])
