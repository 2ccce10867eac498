"""The page for when the report itself cannot be made: words and figures, nothing that can fail for looks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

__all__ = ["render_short_report"]


def render_short_report(title: str, reason: str, facts: Mapping[str, Any]) -> str:
    """Return a page without pictures, for when the whole one cannot be made.

    Args:
        title: heading.
        reason: why the whole one cannot be made.
        facts: plain JSON data; all of it is on the page.
    """
    shown = json.dumps(facts, indent=2, ensure_ascii=False)
    verdict = facts.get("verdict") or {}
    sentence = f"<p>{escape(str(verdict['sentence']))}</p>" if verdict.get("sentence") else ""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'">'
        f"<title>{escape(title)}</title></head><body><h1>{escape(title)}</h1>{sentence}"
        f"<p>The whole report could not be made ({escape(reason)}). The image is in reconstruction.h5, and these facts "
        f"are in summary.json too.</p><pre>{escape(shown)}</pre></body></html>\n"
    )
