"""Finding groups and datasets in HDF5 files: through links, with every source of what is virtual looked for.

Soft, hard and external links are followed as if what they lead to lay there. A link that leads nowhere and a virtual
dataset whose source is gone are errors that name both: HDF5 itself would say that nothing is there, or give zeros.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..data.h5_file import open_h5
from ..errors import DataError
from ..limits import MEGABYTE, limits_at_work
from .h5_beside import places

__all__ = [
    "check_bytes",
    "check_sources",
    "dataset_at",
    "first_dataset",
    "group_at",
    "item_at",
    "whole_frames",
]

_MOST_PIECES = 10**8  # HDF5 goes through all of them to say how many there are


def item_at(h5: Any, path: str) -> Any | None:
    """Group or dataset at a path, through links of any kind; None where no such name is.

    Raises:
        DataError: a link on the way leads nowhere.
    """
    item = h5
    for part in path.strip("/").split("/"):
        link = item.get(part, getlink=True) if hasattr(item, "keys") else None
        if link is None:
            return None
        try:
            item = item[part]
        except (KeyError, OSError, RuntimeError) as error:
            raise _dangling(h5, path, link, error) from error
    return item


def _dangling(h5: Any, path: str, link: Any, error: BaseException) -> DataError:
    target = str(getattr(link, "path", "")) or "?"
    beside = getattr(link, "filename", None)
    where = f"{target!r} of {beside!r}" if beside else repr(target)
    held = "still being written" if "lock" in str(error) else "not there"
    fix = f"Put {beside!r} beside it" if beside else "Mend the link"
    return DataError(
        f"{h5.file.filename}: {path!r} is a link to {where}, which is {held}. {fix}, or copy the file whole."
    )


def group_at(h5: Any, path: str) -> Any | None:
    """Group at a path, or None."""
    import h5py

    item = item_at(h5, path)
    return item if isinstance(item, h5py.Group) else None


def dataset_at(h5: Any, path: str) -> Any | None:
    """Dataset at a path, through links, its virtual sources checked; None where none is.

    Raises:
        DataError: a link leads nowhere, the source of a virtual dataset is gone, or one piece of it takes more memory
            than reading may take: HDF5 reads pieces whole.
    """
    import h5py

    item = item_at(h5, path)
    if not isinstance(item, h5py.Dataset):
        return None
    check_sources(item)
    if item.chunks is not None:
        check_bytes(item, path, math.prod(item.chunks), "is stored in pieces of")
        pieces = math.prod(-(-n // piece) for n, piece in zip(item.shape, item.chunks, strict=True))
        if pieces > _MOST_PIECES:
            raise DataError(
                f"{h5.file.filename}: {path!r} is {item.shape} in {pieces} pieces; at most {_MOST_PIECES} are read. It "
                "is damaged, or was never written; copy or export it again."
            )
    return item


def first_dataset(h5: Any, paths: Iterable[str]) -> tuple[str, Any] | None:
    """The first of some paths at which a dataset is, with the dataset; None where none is.

    Raises:
        DataError: as :func:`dataset_at`.
    """
    for path in paths:
        found = dataset_at(h5, path)
        if found is not None:
            return path, found
    return None


def check_sources(dataset: Any) -> None:
    """Refuse a virtual dataset whose sources are not all there: HDF5 would fill in zeros.

    Raises:
        DataError: a source file, or its dataset, is gone; the message names it.
    """
    if not dataset.is_virtual:
        return
    wanted: dict[str, set[str]] = {}
    for source in dataset.virtual_sources():
        wanted.setdefault(source.file_name, set()).add(source.dset_name)
    main = Path(dataset.file.filename)
    for name, inside in wanted.items():
        if "%" in name:  # a pattern for blocks that may come later
            continue
        path = main if name == "." else next((p for p in places(name, main) if p.exists()), None)
        if path is None:
            raise DataError(
                f"{main}: {dataset.name!r} is a virtual dataset whose source {name!r} is not there, so that its frames "
                "would be empty. Put the file beside it."
            )
        with open_h5(path, follow=True) as h5:
            gone = sorted(d for d in inside if "%" not in d and item_at(h5, d) is None)
        if gone:
            raise DataError(
                f"{main}: {dataset.name!r} is a virtual dataset of {gone[0]!r} in {name!r}, which holds no such "
                "dataset. Copy both again."
            )


def whole_frames(dataset: Any, frame_axis: int = 0) -> int:
    """Number of frames at the start of a dataset that lie in the file whole: all of a file that is closed.

    Of a file that is still being written these are the frames whose pieces (chunks) are all there; a dataset may have
    been given its full length before the first frame.

    Args:
        dataset: of an open file.
        frame_axis: along which frames are counted.
    """
    length = int(dataset.shape[frame_axis])
    if not dataset.file.swmr_mode or dataset.chunks is None:
        return length
    per_piece = dataset.chunks[frame_axis]
    pieces = np.ceil(np.array(dataset.shape) / dataset.chunks).astype(np.int64)
    wanted = int(pieces.prod()) // int(pieces[frame_axis])  # pieces of one row of them
    there = np.zeros(int(pieces[frame_axis]), np.int64)

    def count(piece: Any) -> None:
        there[piece.chunk_offset[frame_axis] // per_piece] += 1

    dataset.id.chunk_iter(count)
    missing = np.flatnonzero(there < wanted)
    return length if not len(missing) else min(length, int(missing[0]) * per_piece)


def check_bytes(dataset: Any, path: str, n_values: int, what: str) -> None:
    """Refuse what takes more memory than reading may take.

    Args:
        dataset: of an open file.
        path: by which it was found, for messages.
        n_values: that are read at once.
        what: the dataset does, for messages: ``is`` so large, or is stored in pieces that are.

    Raises:
        DataError: they are more.
    """
    most = limits_at_work().array_bytes
    n_bytes = n_values * int(dataset.id.get_type().get_size())
    if n_bytes > most:
        shape = dataset.shape if what == "is" else dataset.chunks
        raise DataError(
            f"{dataset.file.filename}: {path!r} {what} {shape} {dataset.dtype}, {n_bytes / MEGABYTE:.4g} MB; at most "
            f"{most / MEGABYTE:.4g} MB are read at once. If it does hold that much, allow more with --max_memory "
            "(Limits.memory_mb)."
        )
