"""Mutants of sound files: a seeded number in, a damaged file out, the same for the same number everywhere.

Half of the hits are blind; the others go where they hurt: behind the signatures that structures of HDF5, zip, MAT and
TIFF begin with, with the values that arithmetic goes wrong at.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

__all__ = ["MARKS", "mutant"]

MARKS = {
    "hdf5": (
        *(b"TREE", b"HEAP", b"GCOL", b"SNOD", b"OHDR", b"OCHK", b"BTHD", b"BTIN", b"BTLF", b"FRHP", b"FHDB", b"FHIB"),
        *(b"FADB", b"FAHD", b"EAHD", b"EAIB", b"FSHD", b"FSSE", b"SMTB", b"SMLI", b"\x89HDF\r\n\x1a\n"),
    ),
    "zip": (b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"\x93NUMPY", b"{'descr'", b"'shape': "),
    "tiff": (b"II*\0", b"\x00\x01\x03\x00", b"\x00\x01\x04\x00", b"\x11\x01", b"\x17\x01"),
    "mat": (b"IM", b"\x0e\x00\x00\x00", b"\x0f\x00\x00\x00", b"\x06\x00\x00\x00", b"\x05\x00\x00\x00"),
    "bz2": (b"BZh", b"1AY&SY", b"\x17rE8P\x90"),
}
"""Kind of a container → what its structures begin with."""

_EDGES = [0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1]
_EDGES += [2**63, 2**64 - 1, 2**64 - 2, 2**40, 2**20]


def _place(content: bytearray, rng: random.Random) -> int:
    """Where to hit: the beginning and the end of a file hold its structure more often than its middle."""
    if not content:
        return 0
    which = rng.random()
    if which < 0.35:
        return min(int(rng.expovariate(1 / 200)), len(content) - 1)
    if which < 0.5:
        return max(len(content) - 1 - int(rng.expovariate(1 / 200)), 0)
    return rng.randrange(len(content))


def _flip_bits(content: bytearray, rng: random.Random, at: int) -> None:
    content[at] ^= 1 << rng.randrange(8)


def _set_byte(content: bytearray, rng: random.Random, at: int) -> None:
    content[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _set_integer(content: bytearray, rng: random.Random, at: int) -> None:
    width = rng.choice((1, 2, 4, 8))
    value = rng.choice((rng.choice(_EDGES), len(content), at, max(at - 8, 0), rng.randrange(2**16)))
    value = (value + rng.choice((0, 0, 0, 1, -1))) % 2 ** (8 * width)
    content[at : at + width] = value.to_bytes(width, rng.choice(("little", "little", "big")))


def _fill(content: bytearray, rng: random.Random, at: int) -> None:
    size = rng.choice((2, 4, 8, 16, 64, 512, 4096))
    size = min(size, len(content) - at)
    content[at : at + size] = bytes([rng.choice((0, 0xFF, rng.randrange(256)))]) * size


def _copy(content: bytearray, rng: random.Random, at: int) -> None:
    """Put a piece of the file over another."""
    size, source = rng.choice((4, 8, 16, 64, 512)), _place(content, rng)
    piece = content[source : source + size]
    content[at : at + len(piece)] = piece


def _insert(content: bytearray, rng: random.Random, at: int) -> None:
    content[at:at] = rng.randbytes(rng.choice((1, 2, 8, 64)))


def _remove(content: bytearray, rng: random.Random, at: int) -> None:
    del content[at : at + rng.choice((1, 2, 8, 64, 512))]


def _repeat(content: bytearray, rng: random.Random, at: int) -> None:
    content[at:at] = content[at : at + rng.choice((8, 64, 512))]


def _cut(content: bytearray, rng: random.Random, at: int) -> None:
    del content[at:]


_BLIND: list[Callable[[bytearray, random.Random, int], None]] = [
    *(_flip_bits, _flip_bits, _set_byte, _set_byte, _set_integer, _set_integer, _set_integer),
    *(_fill, _copy, _insert, _remove, _repeat, _cut),
]
_AIMED: list[Callable[[bytearray, random.Random, int], None]] = [
    *(_set_integer, _set_integer, _set_integer, _set_integer, _set_byte, _flip_bits, _fill, _copy)
]


def _marked(content: bytearray, rng: random.Random, marks: Sequence[bytes]) -> int | None:
    """A place in or behind one of the marks, or None where the file has none."""
    mark = rng.choice(marks)
    found, at = [], content.find(mark)
    while at >= 0 and len(found) < 200:
        found.append(at)
        at = content.find(mark, at + 1)
    if not found:
        return None
    return min(
        rng.choice(found) + rng.choice((rng.randrange(64), rng.randrange(12), rng.randrange(512))), len(content) - 1
    )


def mutant(sound: bytes, number: int, kind: str) -> bytes:
    """The mutant of a number.

    Args:
        sound: the file.
        number: any; 0 is a mutant as well.
        kind: a key of `MARKS`.
    """
    rng = random.Random(f"{kind} {number} {len(sound)}")
    content = bytearray(sound)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if not content:
            break
        at = _marked(content, rng, MARKS[kind]) if rng.random() < 0.5 else None
        if at is None:
            rng.choice(_BLIND)(content, rng, _place(content, rng))
        else:
            rng.choice(_AIMED)(content, rng, at)
    return bytes(content)
