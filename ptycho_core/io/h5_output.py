"""HDF5 files that are written through Python's file, so that a full disk is an error and no crash.

HDF5 cannot give up a file that it cannot finish: it fails again when it closes, raises in places where nobody listens,
and ends the process. So it never hears of the disk. What cannot be written any more is kept in memory, the writer is
told at its next look, and HDF5 closes a file that is whole as far as it can see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import h5py

__all__ = ["h5_output"]


class _Disk:
    """A file for HDF5 whose writing never fails: after the first error it goes on in memory.

    Attributes:
        error: the first error.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self._at = 0
        self._more: list[tuple[int, bytes]] = []  # what the disk did not take, oldest first
        self.error: OSError | None = None

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset if whence == 0 else self._size() + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int) -> bytes:
        content = bytearray(size)
        self.readinto(content)
        return bytes(content)

    def readinto(self, buffer: bytearray | memoryview) -> int:
        view = memoryview(buffer).cast("B")
        view[:] = bytes(len(view))
        self._file.seek(self._at)
        self._fill(view)
        for offset, content in self._more:
            first, last = max(offset, self._at), min(offset + len(content), self._at + len(view))
            if first < last:
                view[first - self._at : last - self._at] = content[first - offset : last - offset]
        self._at += len(view)
        return len(view)

    def _fill(self, view: memoryview) -> None:
        done = 0
        while done < len(view):
            n = self._file.readinto(view[done:])
            if not n:
                return
            done += n

    def write(self, content: bytes | memoryview) -> int:
        view = memoryview(content).cast("B")
        size = len(view)
        if self.error is None:
            try:
                self._file.seek(self._at)
                while view:  # a disk that fills up takes a part
                    done = self._file.write(view) or 0
                    view, self._at = view[done:], self._at + done
                return size
            except OSError as error:
                self.error = error
        self._more.append((self._at, bytes(view)))
        self._at += len(view)
        return size

    def truncate(self, size: int) -> int:
        if self.error is None:
            try:
                self._file.truncate(size)
            except OSError as error:
                self.error = error
        return size

    def flush(self) -> None:
        """Nothing is held back."""

    def _size(self) -> int:
        return max([self._file.seek(0, 2), *(offset + len(content) for offset, content in self._more)])

    def check(self) -> None:
        """Raise what a write ended with.

        Raises:
            OSError: one did.
        """
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        self._file.close()


@contextmanager
def h5_output(path: Path) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """Yield a new HDF5 file to fill, and a function to call between large pieces: it raises where the disk is full.

    Args:
        path: the file; replaced where it is there.

    Raises:
        OSError: the disk did not take all of it. What the block raised comes first.
    """
    import h5py

    disk = _Disk(path)
    try:
        with h5py.File(disk, "w") as file:
            yield file, disk.check
        disk.check()
    finally:
        disk.close()
