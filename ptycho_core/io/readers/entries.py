"""Several scans in one file: listed, and one chosen by the caller; they are never merged."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import DataError, suggest

__all__ = ["chosen_entry"]

_SHOWN = 12


def chosen_entry(found: Sequence[str], wanted: str | None, name: str) -> str:
    """The one scan to read.

    Args:
        found: names of the scans in the file, in its order; at least one.
        wanted: a name, or a number from 0, as given with ``--entry``; None takes the only one.
        name: the file, for messages.

    Raises:
        DataError: there are several and none was chosen, or no such one.
    """
    listed = ", ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
    if wanted is None:
        if len(found) > 1:
            raise DataError(
                f"{name}: holds {len(found)} scans: {listed}. Choose one with --entry {found[0]} (a name, or a number "
                "from 0)."
            )
        return found[0]
    word = wanted.strip().strip("/")
    if word in found:
        return word
    if word.isdigit() and int(word) < len(found):
        return found[int(word)]
    raise DataError(f"{name}: has no scan {wanted!r} (--entry); it holds: {listed}.{suggest(word, found)}")
