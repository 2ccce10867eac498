"""What pages are made of: pictures with captions, tables, cards, and numbers in words."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable, Mapping, Sequence

from ..text import html_text as escape

__all__ = [
    "NOT_DEFINED",
    "captioned",
    "card",
    "decibels",
    "duration",
    "half_period_words",
    "humanised",
    "length",
    "switch",
    "table",
    "two_columns",
    "words",
]

_CSS_PX_PER_IN = 118

NOT_DEFINED = "not defined"
"""In place of a score that needs contrast, where what is compared with is constant."""


def humanised(name: str) -> str:
    """A name of a program as words."""
    return name.replace("_", " ")


def words(text: str) -> str:
    """A sentence, escaped, in which options of the command are never broken, and paths after a slash alone."""
    return re.sub(r"--[a-z][\w.]*", r'<span class="option">\g<0></span>', _breakable(text))


def _breakable(text: str) -> str:
    """A text, escaped, in which a path may be broken after a slash, and so is not broken within a name."""
    return re.sub(r"/(?!\w{1,2}\b(?!\.))", "/<wbr>", escape(text))  # no path: 1/7, rad/px


def _inches(png: bytes) -> float:
    """Width of a PNG as its dots a metre say; at 150 dots an inch where it does not."""
    at, per_m = 8, 0
    while at + 12 <= len(png) and png[at + 4 : at + 8] != b"IDAT":
        if png[at + 4 : at + 8] == b"pHYs":
            per_m = int.from_bytes(png[at + 8 : at + 12], "big")
        at += 12 + int.from_bytes(png[at : at + 4], "big")
    return int.from_bytes(png[16:20], "big") / (per_m * 0.0254 if per_m else 150)


def captioned(images: Mapping[str, bytes], name: str, alt: str, caption: str, kind: str = "") -> str:
    """A picture with its caption; in its place, where it could not be drawn, a line that says so."""
    css = f' class="{kind}"' if kind else ""
    if name not in images:
        return f"<figure{css}><figcaption>{escape(alt)}: could not be drawn.</figcaption></figure>"
    png = images[name]
    data = base64.b64encode(png).decode("ascii")
    width = round(_inches(png) * _CSS_PX_PER_IN)
    return (
        f'<figure{css}><img width="{width}" alt="{escape(alt)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def switch(name: str, sides: Sequence[tuple[str, str]]) -> str:
    """Pieces of a page of which one is shown at a time, chosen by name; it needs no script.

    Args:
        name: of the choice, a plain word.
        sides: label and content of each; the first is shown first.
    """
    inputs = "".join(
        f'<input type="radio" name="{name}" id="{name}-{i}"{" checked" if i == 0 else ""}>'
        f'<label for="{name}-{i}">{escape(label)}</label>'
        for i, (label, _) in enumerate(sides)
    )
    shown = "".join(
        f'<div class="side side-{i}"><p class="side-name">{escape(label)}</p>{content}</div>'
        for i, (label, content) in enumerate(sides)
    )
    return f'<div class="switch">{inputs}{shown}</div>'


def table(rows: Iterable[Sequence[str]], heads: Sequence[str] = (), *, marked: frozenset[str] = frozenset()) -> str:
    """A table that scrolls in itself where it is wider than the page.

    Args:
        rows: texts; the first of each row names it.
        heads: of the columns, or none.
        marked: names of rows that stand out.
    """
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td{' class=changed' if row[0] in marked else ''}>{_breakable(text)}</td>" for text in row[1:])
        + "</tr>"
        for row in rows
    )
    kind = ' class="columns"' if heads else ""
    return (
        f'<div class="scroll"><table{kind}>{f"<thead><tr>{head}</tr></thead>" if heads else ""}'
        f"<tbody>{body}</tbody></table></div>"
    )


def two_columns(content: str) -> str:
    """A long table of settings, beside itself where there is room."""
    return f'<div class="settings">{content}</div>'


def card(heading: str, content: str) -> str:
    """A piece of a page with a heading of its own."""
    return f'<section class="card"><h3>{escape(heading)}</h3>{content}</section>'


def decibels(value: float, digits: int = 2) -> str:
    """A ratio of a peak to an error: in dB; in words where there is no error, and where there is no peak.

    Args:
        value: decibels; infinite for no error, NaN where what is compared with is constant.
        digits: behind the point.
    """
    if math.isnan(value):
        return NOT_DEFINED
    return f"{value:.{digits}f} dB" if math.isfinite(value) else "no error"


def half_period_words(pixels: float) -> str:
    """A half-period resolution, pixels; infinite where nothing is resolved."""
    return f"{pixels:.2f} px" if math.isfinite(pixels) else "nothing resolved"


def length(metres: float) -> str:
    """A length in the unit that suits it."""
    for factor, name in ((1e-3, "mm"), (1e-6, "µm"), (1e-9, "nm"), (1e-10, "Å")):
        if metres >= factor:
            return f"{metres / factor:.3g} {name}"
    return f"{metres / 1e-12:.3g} pm"


def duration(seconds: float) -> str:
    """Seconds in words."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
