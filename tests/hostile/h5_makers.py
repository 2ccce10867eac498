"""Datasets that are made in an open file in ways of their own: each is called with the file and the name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
from good_scans import Content, M, N, write_own
from malformed import Build

__all__ = ["Make", "group", "link", "lists", "null", "of_type", "own", "unwritten", "virtual"]

Make = Callable[[h5py.File, str], None]


def own(attributes: dict[str, Content] | None = None, **changes: Any) -> Build:
    """A scan in our own dialect, changed in some of its datasets or attributes."""
    return lambda folder: write_own(folder / "scan.h5", changes, attributes)


def unwritten(shape: Any, dtype: Any, **how: Any) -> Make:
    """A dataset into which nothing is written."""
    return lambda h5, name: h5.create_dataset(name, shape, dtype, **how) and None


def of_type(shape: tuple[int, ...], make: Callable[[], h5py.h5t.TypeID]) -> Make:
    """A dataset of a type that h5py does not make by itself."""
    return lambda h5, name: h5py.h5d.create(h5.id, name.encode(), make(), h5py.h5s.create_simple(shape)) and None


def null(h5: h5py.File, name: str) -> None:
    h5[name] = h5py.Empty("f4")


def lists(h5: h5py.File, name: str) -> None:
    dataset = h5.create_dataset(name, (M,), h5py.vlen_dtype(np.float32))
    for number in range(M):
        dataset[number] = np.ones(number, np.float32)


def group(h5: h5py.File, name: str) -> None:
    h5.create_group(name)


def link(link: Any) -> Make:
    def make(h5: h5py.File, name: str) -> None:
        h5[name] = link

    return make


def virtual(sources: list[tuple[str, str]], shape: tuple[int, ...] = (M, N, N)) -> Make:
    """A virtual dataset, each of whose sources is mapped to a part of it."""

    def make(h5: h5py.File, name: str) -> None:
        layout = h5py.VirtualLayout(shape, "f4")
        step = shape[0] // len(sources)
        for number, (file, path) in enumerate(sources):
            part = slice(number * step, (number + 1) * step)
            layout[part] = h5py.VirtualSource(file, path, (step, *shape[1:]), dtype="f4")
        h5.create_virtual_dataset(name, layout, fillvalue=0)

    return make
