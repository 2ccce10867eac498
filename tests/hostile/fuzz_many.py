"""Fuzz every reader with many mutants, and say what was not refused as it should: a program, for nights and releases.

    python tests/hostile/fuzz_many.py --mutants 2500 --formats npz,hdf5

Each format is fuzzed in a process of its own, so that a crash is an answer too; the number of the mutant that ended it
is kept, and the fuzzing goes on behind it. Seconds are of processor time, that of the child which reads included. Exit
code 1 where anything was found.
"""

from __future__ import annotations

import argparse
import collections
import mmap
import os
import struct
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

from fuzzed_readers import FORMATS, Fuzzed, Hung, read_mutant
from warm_commands import seconds_of_children

SLOW_SECONDS = 10.0


def _fuzz(which: Fuzzed, numbers: range, at: mmap.mmap, told: Path) -> None:
    """In a process of its own: read the mutants, and write down what was found."""
    warnings.simplefilter("ignore")
    endings: collections.Counter[str] = collections.Counter()
    slowest = (0.0, 0)
    with tempfile.TemporaryDirectory() as folder, told.open("a") as out:
        for number in numbers:
            at[:8] = struct.pack("<q", number)
            begun = time.process_time() + seconds_of_children()
            try:
                ending = read_mutant(which, number, Path(folder))
            except (Exception, Hung) as error:
                ending = f"foreign {type(error).__name__}"
                where = "".join(traceback.format_tb(error.__traceback__)[-3:])
                out.write(f"{which.name} {number}: {ending}: {str(error)[:300]}\n{where}\n")
            taken = time.process_time() + seconds_of_children() - begun
            if taken > SLOW_SECONDS:
                out.write(f"{which.name} {number}: took {taken:.1f} s ({ending})\n")
            slowest = max(slowest, (taken, number))
            endings[ending] += 1
        counted = ", ".join(f"{name} {count}" for name, count in endings.most_common())
        print(
            f"{which.name} {numbers.start}:{numbers.stop}: {counted}; slowest {slowest[0]:.1f} s ({slowest[1]})",
            flush=True,
        )


def fuzz(which: Fuzzed, first: int, count: int, told: Path) -> None:
    """Read `count` mutants of a format, a process again for what is left whenever one ended."""
    at = mmap.mmap(-1, 8)
    while count > 0:
        pid = os.fork()
        if pid == 0:
            try:
                _fuzz(which, range(first, first + count), at, told)
            except BaseException:
                traceback.print_exc()
                os._exit(9)
            os._exit(0)
        status = os.waitpid(pid, 0)[1]
        if status == 0:
            return
        number = struct.unpack("<q", at[:8])[0]
        with told.open("a") as out:
            out.write(f"{which.name} {number}: CRASH, wait status {status}\n")
        count -= number + 1 - first
        first = number + 1


def main() -> int:
    """Run; 1 where anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=2500, help="of each format")
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--formats", default=",".join(FORMATS), help=f"of {', '.join(FORMATS)}")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "found.txt"
        told.touch()
        for name in given.formats.split(","):
            fuzz(FORMATS[name], given.first, given.mutants, told)
        found = told.read_text()
    print(found or "nothing was found: each was read, or refused as it should be")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
