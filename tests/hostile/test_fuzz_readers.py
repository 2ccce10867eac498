"""Damaged files of every format are refused by a typed error or read; 200 of each, 10 000 with the profile nightly.

The number of a mutant says all: ``fuzz_many.py --first NUMBER --mutants 1 --formats NAME`` makes it again.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from fuzzed_readers import FORMATS, Hung, read_mutant
from hypothesis import given, settings
from hypothesis import strategies as st
from mutants_of_files import MARKS, mutant

pytestmark = pytest.mark.hostile


def profile() -> settings:
    """The profile that was asked for, ``hostile`` where none was."""
    name = settings.get_current_profile_name()
    return settings.get_profile(name if name == "nightly" else "hostile")


@pytest.mark.parametrize("name", FORMATS)
def test_mutants_are_read_or_refused(name: str, tmp_path: Path) -> None:
    if name == "tiff" and importlib.util.find_spec("tifffile") is None:
        pytest.skip("not installed in this environment: tifffile")
    endings: set[str] = set()

    @settings(profile())
    @given(number=st.integers(0, 2**63))
    def read(number: int) -> None:
        try:
            endings.add(read_mutant(FORMATS[name], number, tmp_path))
        except Hung as hung:  # no Exception, so that no reader can swallow it
            pytest.fail(f"{name} {number}: {hung}")

    read()
    assert endings - {"read"}, "no mutant was refused: they are no mutants, or nothing is looked at"


@pytest.mark.parametrize("name", FORMATS)
def test_the_sound_file_is_read(name: str, tmp_path: Path) -> None:
    if name == "tiff" and importlib.util.find_spec("tifffile") is None:
        pytest.skip("not installed in this environment: tifffile")
    which = FORMATS[name]
    path = tmp_path / f"sound{which.suffix}"
    path.write_bytes(which.sound)
    which.read(path)


@pytest.mark.parametrize("kind", MARKS)
def test_a_mutant_is_told_by_its_number(kind: str) -> None:
    sound = bytes(range(256)) * 20 + b"".join(MARKS[kind])
    made = [mutant(sound, number, kind) for number in range(200)]
    assert made == [mutant(sound, number, kind) for number in range(200)]
    assert len(set(made)) > 190
    assert sum(content == sound for content in made) < 10
