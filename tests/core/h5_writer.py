"""A process that writes an HDF5 file while a test reads it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def writing(path: Path, lines: str) -> Iterator[None]:
    """Another process that has a file open for writing, `f`, after some lines of code."""
    code = f"import h5py, numpy as np\nf = h5py.File({str(path)!r}, 'a', libver='latest')\n{lines}\n"
    with subprocess.Popen(
        [sys.executable, "-c", f"{code}print('open', flush=True)\ninput()\nf.close()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        try:
            yield
        finally:
            writer.communicate("\n")
