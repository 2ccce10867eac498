"""Plain-text tables, the same on a terminal, in a pipe and in the log."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["facts", "json_text", "table"]


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows with their columns aligned on the left; the first row is the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rule = ["-" * width for width in widths]
    lines = [rows[0], rule, *rows[1:]]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def facts(pairs: Mapping[str, str]) -> str:
    """Return one line for each ``name  value``, the values aligned."""
    width = max(map(len, pairs), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}".rstrip() for name, value in pairs.items())


def json_text(value: Mapping[str, Any]) -> str:
    """Return strict JSON text: NumPy becomes plain numbers, NaN and infinity null."""
    from ..io.reconstruction_file import plain_json

    return json.dumps(plain_json(value), indent=2, ensure_ascii=False, allow_nan=False)
