"""What the README says that its commands print: they print it, but for the numbers.

The commands are the three that lead to an image; they run as they stand there, on the real star.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_docs import OUTPUT, README, fences

LEFT_OUT = "…"
"""Stands in what is shown for lines, or for the end of one, that are left out."""


def shown_outputs(document: Path) -> list[tuple[list[str], str]]:
    """Commands (the words after the program's name) whose output a document shows, and what it shows."""
    found = []
    for before, after in itertools.pairwise(fences(document)):
        if OUTPUT in after.tags:
            command = before.commands[-1].rpartition(" && ")[2]
            found.append((shlex.split(command)[1:], after.text))
    return found


def shape(line: str) -> str:
    """A line of output without what differs from machine to machine: its numbers, and how words are set."""
    return " ".join(re.sub(r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?", "#", line).split())


def same(shown: str, printed: str) -> bool:
    """Whether a line is the one that is shown, up to what is left out of its end."""
    if shown.endswith(f" {LEFT_OUT}"):
        return printed.startswith(shown.removesuffix(LEFT_OUT))
    return shown == printed


def missing(shown: str, printed: str) -> str | None:
    """The first line of what is shown together that the output does not have in its place; None where it has all."""
    lines = [shape(line) for line in printed.splitlines()]
    pieces: list[list[str]] = [[]]
    for line in shown.splitlines():
        if line.strip() == LEFT_OUT:
            pieces.append([])
        else:
            pieces[-1].append(shape(line))
    at = 0
    for number, piece in enumerate(pieces):
        last = len(lines) - len(piece)
        first = last if number == len(pieces) - 1 and piece else at  # what nothing follows stands at the end
        places = range(max(at, first), last + 1) if number else range(1)
        fits = [k for k in places if len(lines) - k >= len(piece) and all(map(same, piece, lines[k:]))]
        if not fits or (len(pieces) == 1 and len(lines) != len(piece)):
            return piece[0]
        at = fits[0] + len(piece)
    return None


def test_outputs_are_shown_for_three_commands() -> None:
    assert [words[0] for words, _ in shown_outputs(README)] == ["demo", "inspect", "run"]


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.parametrize(("words", "shown"), shown_outputs(README), ids=lambda part: part[0] if part else "")
def test_outputs_have_the_shape_that_is_shown(words: list[str], shown: str, tmp_path: Path, shared_data: Path) -> None:
    shutil.copy(shared_data / "siemens_star_64.npz", tmp_path / "scan.npz")
    done = subprocess.run(
        [sys.executable, "-m", "ptycho_core.cli", *words],
        cwd=tmp_path, env=os.environ | {"COLUMNS": "100"}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert missing(shown, done.stdout) is None, f"{missing(shown, done.stdout)}\n\n{done.stdout}"


def test_an_output_of_another_shape_is_seen() -> None:
    printed = (
        "engine    numpy\nheld out  R 0.0691, 26 frames\nheld out  R 0.05\nverdict   explained to 1.5 × the noise\n"
    )
    assert missing(printed.replace("1.5", "2").replace("26", "9"), printed) is None
    assert missing("…\nheld out  R 0.0, …\n…\n", printed) is None
    assert missing("…\nheld out  R 1\nverdict   explained to 3 × …\n", printed) is None
    assert missing("engine numpy\n…\nheld out R 7\n…\n", printed) is None
    assert missing("engine numpy\nverdict …\n", printed) == "engine numpy"
    assert missing("…\nheld out Q 0.2, …\n…", printed) == "held out Q #, …"
    assert missing("…\nverdict …\n…\nengine numpy\n", printed) == "engine numpy"
    assert missing("engine numpy\n", printed) == "engine numpy"
    assert missing("…\nheld out R 7\n", printed) == "held out R #"
