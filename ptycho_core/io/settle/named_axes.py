"""Which of several names are the y and x of positions, and in which unit, by the words in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ..units import length_unit

__all__ = ["axis_columns", "index_column", "pairs_of", "unit_in", "words_of"]

_PIXELS = ("px", "pixel", "pixels")
_INDEXES = ("index", "indexes", "indices", "frame", "frames", "number")
_TURNED = {"x": "y", "X": "Y"}


def words_of(name: str) -> list[str]:
    """Words of a name: ``sample_y[um]`` has sample, y and um."""
    return [part for part in re.split(r"[\s_\[\]()\-./:]+", name) if part]


def unit_in(name: str) -> str:
    """Unit among the words of a name, ``px`` for pixels, or an empty text; a lone ``m`` counts at the end only."""
    words = words_of(name)
    if any(word.lower() in _PIXELS for word in words):
        return "px"
    for word in reversed(words):
        if length_unit(word) is not None and (word not in ("m", "A") or word == words[-1]):
            return word
    return ""


def axis_columns(names: tuple[str, ...]) -> dict[str, list[int]]:
    """Numbers of the columns whose names have the word y, and x."""
    return {axis: [k for k, name in enumerate(names) if axis in map(str.lower, words_of(name))] for axis in "yx"}


def index_column(names: tuple[str, ...]) -> int | None:
    """Number of the column that says which frame a row belongs to, or None."""
    found = [k for k, name in enumerate(names) if set(map(str.lower, words_of(name))) & set(_INDEXES)]
    return found[0] if len(found) == 1 else None


def pairs_of(lengths: Mapping[str, int]) -> list[tuple[str, str]]:
    """Names (y, x) that differ in one letter, x for y, of lists of one length: ``ppY`` and ``ppX``.

    Args:
        lengths: name → how many numbers it holds.
    """
    found: list[tuple[str, str]] = []
    for x_name in lengths:
        for place, letter in enumerate(x_name):
            if letter not in _TURNED:
                continue
            y_name = x_name[:place] + _TURNED[letter] + x_name[place + 1 :]
            if y_name in lengths and lengths[y_name] == lengths[x_name]:
                found.append((y_name, x_name))
    return _measured_ones(found)


def _measured_ones(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Pairs without the nominal ones (``*_start``) of which the measured ones are there too."""
    all_pairs = list(dict.fromkeys(pairs))
    names = {y for y, _ in all_pairs}
    return [(y, x) for y, x in all_pairs if not (y.endswith("_start") and y.removesuffix("_start") in names)]
