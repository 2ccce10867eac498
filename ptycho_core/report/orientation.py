"""The part of a report that shows how the orientation of a scan was found: one row for each that was tried."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..text import html_text as escape

__all__ = ["orientation_section"]

_HEADINGS = ("Orientation", "Held-out deviance", "Training deviance", "Fourier error", "")


def _number(value: Any, form: str) -> str:
    return format(value, form) if isinstance(value, (int, float)) and math.isfinite(value) else "–"


def _row(trial: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    word = str(trial["tried"]["orientation"])
    alike, used = found["alike"], word == found["orientation"]
    said = (
        ("used" if len(alike) == 1 else "used, not told apart") if used else "not told apart" if word in alike else ""
    )
    figures = (
        _number(trial["heldout_deviance"], ".4g"),
        _number(trial["train_deviance"], ".4g"),
        _number(trial["fourier_error"], ".4f"),
    )
    marked = [f"<strong>{escape(text)}</strong>" if used else escape(text) for text in (*figures, said)]
    cells = "".join(f"<td>{text}</td>" for text in marked)
    return f'<tr><th scope="row">{escape(word)}</th>{cells}</tr>'


def orientation_section(details: Mapping[str, Any]) -> str:
    """HTML of the trials and of what they could not tell; empty where none were made.

    Args:
        details: ``source.details`` of the scan; ``orientation`` is a finding as plain data
            (``data.orientation_finding``).
    """
    found = details.get("orientation")
    if not isinstance(found, Mapping) or not found.get("trials"):
        return ""
    try:
        return _section(found)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):  # of a file that says anything by that name
        return ""


def _section(found: Mapping[str, Any]) -> str:
    heads = "".join(f'<th scope="col">{text}</th>' for text in _HEADINGS)
    rows = "".join(_row(trial, found) for trial in found["trials"])
    reasons = "".join(f"<li>{escape(reason[:1].upper() + reason[1:])}.</li>" for reason in found["reasons"])
    text = (
        f"Each was solved for by a few sweeps on the same {found['n_frames']} frames, and judged by the "
        f"{found['n_heldout']} of them that were held out."
    )
    return (
        f'<h2>Orientation of the positions</h2><section class="card">'
        f'<div class="scroll"><table class="columns"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
        f"<p>{escape(text)}</p>" + (f'<ul class="notes">{reasons}</ul>' if reasons else "") + "</section>"
    )
