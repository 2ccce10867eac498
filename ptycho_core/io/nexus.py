"""NeXus in HDF5: groups with their class, numbers with their unit, and groups that a viewer plots at once.

Public definitions: https://manual.nexusformat.org, NXdata among the base classes. A viewer follows ``default`` from the
root down to a group of class NXdata and draws its ``signal`` over its ``axes``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import h5py

__all__ = ["add_group", "add_note", "add_number", "add_plot"]


def add_group(parent: h5py.Group, name: str, nx_class: str, **attributes: Any) -> h5py.Group:
    """A new group of a NeXus class."""
    group = parent.create_group(name)
    group.attrs.update(NX_class=nx_class, **attributes)
    return group


def add_number(parent: h5py.Group, name: str, value: Any, units: str, long_name: str = "") -> h5py.Dataset:
    """A number, or an array of them, with its unit."""
    parent[name] = value
    parent[name].attrs["units"] = units
    if long_name:
        parent[name].attrs["long_name"] = long_name
    return parent[name]


def add_note(parent: h5py.Group, name: str, description: str, json_text: str) -> None:
    """A JSON document as a note."""
    note = add_group(parent, name, "NXnote")
    note["type"], note["description"], note["data"] = "application/json", description, json_text


def add_plot(
    parent: h5py.Group,
    name: str,
    title: str,
    *,
    signal: str,
    axes: Sequence[str],
    auxiliary: Sequence[str] = (),
    indices: Mapping[str, int] | None = None,
) -> h5py.Group:
    """A new, empty NXdata group; the caller puts the arrays in.

    Args:
        parent: where to.
        name: of the group.
        title: above the plot.
        signal: name of what is drawn.
        axes: one name for each axis of the signal, ``.`` where it has none; for a scatter plot the two coordinates.
        auxiliary: further arrays of the same shape.
        indices: axis → axis of the signal that it goes with, where that is not its place in `axes`.
    """
    group = add_group(parent, name, "NXdata", signal=signal, axes=list(axes))
    if auxiliary:
        group.attrs["auxiliary_signals"] = list(auxiliary)
    for axis, index in (indices or {}).items():
        group.attrs[f"{axis}_indices"] = index
    group["title"] = title
    return group
