"""Plain-text tables, the same on a terminal, in a pipe and in the log."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ..text import printable, shortened
from .terminal import can_show

__all__ = ["facts", "json_text", "table"]


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows with their columns aligned on the left; the first row is the heading."""
    rows = [[_cell(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rule = ["-" * width for width in widths]
    lines = [rows[0], rule, *rows[1:]]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def facts(pairs: Mapping[str, str]) -> str:
    """Return one line for each ``name  value``, the values aligned."""
    shown = {_cell(name): _cell(value) for name, value in pairs.items()}
    width = max(map(len, shown), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}".rstrip() for name, value in shown.items())


def _cell(text: str) -> str:
    """What a table shows of a text, which may be a name in somebody's file."""
    return shortened(printable(shortened(text)))


def json_text(value: Mapping[str, Any]) -> str:
    """Return strict JSON text: NumPy becomes plain numbers, NaN and infinity null.

    It is ASCII where standard output cannot show all of it, and never moves a cursor.
    """
    from ..io.reconstruction_file import plain_json

    text = json.dumps(plain_json(value), indent=2, ensure_ascii=False, allow_nan=False)
    return text if can_show(sys.stdout, text) else json.dumps(json.loads(text), indent=2, allow_nan=False)
