"""How parent and child talk: messages of pickled values over two pipes, the bytes of large arrays in a shared buffer.

Both ends are this program; nothing from a file is ever unpickled. The buffer is memory with a file descriptor, which
both map, so that frames are copied once on their way and not through a pipe.
"""

from __future__ import annotations

import mmap
import os
import pickle
import struct
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["Broken", "Buffer", "load", "new_buffer_file", "read_exactly", "send"]

_HEADER = struct.Struct("<QQ")
"""Bytes of the pickle, and of the list of lengths of its buffers before it."""

_ALIGNED = 64

_KEPT = 2**26
"""Bytes of the buffer that are kept from one message to the next: the blocks that frames are read by fit in them."""


class Broken(Exception):  # noqa: N818  # the other end is gone: its caller says why
    """The other end is gone."""


class Buffer:
    """Shared memory with a file descriptor, mapped as far as a message needs it.

    Args:
        handle: file descriptor.
    """

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self._map: mmap.mmap | None = None

    def view(self, size: int, *, grow: bool) -> memoryview:
        """The first bytes; the writer grows the file, the reader finds it grown."""
        if self._map is None or len(self._map) < size:
            if grow:
                os.ftruncate(self.handle, size)
            self._map = mmap.mmap(self.handle, size)  # views of the one before keep it alive
        return memoryview(self._map)[:size]

    def forget(self, *, shrink: bool = False) -> None:
        """Unmap what was large, which nobody may look at any more, and give the memory back."""
        if self._map is not None and len(self._map) > _KEPT:
            self._map = None
            if shrink:
                os.ftruncate(self.handle, 0)


def new_buffer_file() -> int:
    """A file descriptor of new memory, or of a file that has no name any more."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("ptycho-frames")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def read_exactly(size: int, read: Callable[[int], bytes]) -> bytes:
    """So many bytes of a stream.

    Raises:
        Broken: it ends before.
    """
    parts = []
    while size:
        part = read(min(size, 2**20))
        if not part:
            raise Broken
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def send(value: Any, write: Callable[[bytes], None], buffer: Buffer) -> None:
    """Send a value; arrays go through the buffer, which belongs to this message until the next.

    Where the machine refuses the buffer its size (a limit on the size of files counts for it too), they go by the pipe.
    """
    arrays: list[pickle.PickleBuffer] = []
    body = pickle.dumps(value, protocol=5, buffer_callback=arrays.append)
    raws = [array.raw() for array in arrays]
    lengths = [raw.nbytes for raw in raws]
    total = sum(-(-n // _ALIGNED) * _ALIGNED for n in lengths)
    if total:
        try:
            whole, start = buffer.view(total, grow=True), 0
        except OSError:
            body, lengths, raws = pickle.dumps(value, protocol=5), [], []
        for raw, n in zip(raws, lengths, strict=True):
            whole[start : start + n] = raw
            start += -(-n // _ALIGNED) * _ALIGNED
    sizes = struct.pack(f"<{len(lengths)}Q", *lengths)
    write(_HEADER.pack(len(body), len(sizes)) + sizes + body)


def load(read: Callable[[int], bytes], buffer: Buffer, *, copy: bool = True) -> Any:
    """Receive a value.

    Args:
        read: of the stream.
        buffer: where its arrays lie.
        copy: whether they outlive the next message; else they are views of the buffer, read-only in meaning.

    Raises:
        Broken: the stream ended.
    """
    n_body, n_sizes = _HEADER.unpack(read_exactly(_HEADER.size, read))
    lengths: Sequence[int] = struct.unpack(f"<{n_sizes // 8}Q", read_exactly(n_sizes, read))
    body = read_exactly(n_body, read)
    total, start, parts = sum(-(-n // _ALIGNED) * _ALIGNED for n in lengths), 0, []
    if total:
        whole = buffer.view(total, grow=False)
        for n in lengths:
            part = whole[start : start + n]
            parts.append(bytearray(part) if copy else part)
            start += -(-n // _ALIGNED) * _ALIGNED
    elif lengths:
        parts = [bytearray() for _ in lengths]
    return pickle.loads(body, buffers=parts)
