"""What a notebook shows of a value: a card of HTML with its verdict, small pictures and a table.

A card says what the value's one line says and what a scientist asks next; it is made of texts that are escaped and of
pictures in it as data, and holds no script. It has the colours of the page that it stands in, light or dark. A picture
that cannot be made, for example of frames whose file is gone, is said in its place: a look never raises.
"""

from __future__ import annotations

import base64
import dataclasses
import struct
from collections.abc import Callable, Iterable
from typing import Any

from ..data.compared import ComparedImages
from ..data.container import PtychoDataContainer, Role
from ..data.findings import Comparison
from ..data.raw import RawData
from ..data.results import CdiResult, Image, Scored
from ..data.run import Run
from ..data.shown import extent, length, rounded, size, stated
from ..data.verdict import Verdict
from ..errors import ConfigError
from ..report.comparison import figures_table, pairs_table, why_not_defined
from ..report.resolution import comparison_rows
from ..text import counted, html_text, one_line
from . import thumbnails

__all__ = ["card"]

MOST_NOTES = 12
"""Sentences of a list that are shown."""

_MOST_CHARACTERS = 400
_COLOURS = {"noise": "#2e7d4f", "above_noise": "#b7791f", "no_image": "#c0392b"}
_BORDER = "1px solid rgba(128,128,128,.45)"

_Rows = Iterable[tuple[str, str]]
_Picture = tuple[str, Callable[[], bytes]]


def _shown(text: object, most: int = _MOST_CHARACTERS) -> str:
    return html_text(one_line(str(text), most))


def _pictures(pictures: Iterable[_Picture]) -> str:
    """Pictures in a row, each over its caption."""
    parts = []
    for caption, draw in pictures:
        try:
            png = draw()
            # the header of a PNG has its size; the longer side is as long on the page whatever it is made of
            width, height = struct.unpack(">II", png[16:24])
            factor = thumbnails.SIDE_PX / max(width, height)
            inner = (
                f'<img alt="{_shown(caption)}" src="data:image/png;base64,{base64.b64encode(png).decode("ascii")}" '
                f'style="width:{width * factor:.0f}px;height:{height * factor:.0f}px;max-width:none'
                f'{";image-rendering:pixelated" if factor > 1 else ""}">'
            )
        except Exception as error:
            # whatever a stranger's file or engine does here, a cell that ends with a value must show it
            inner = f'<span style="opacity:.7">not shown: {_shown(error, 120)}</span>'
        parts.append(
            f'<figure style="margin:0 14px 6px 0;max-width:{thumbnails.SIDE_PX}px">{inner}'
            f'<figcaption style="font-size:85%;opacity:.75">{_shown(caption)}</figcaption></figure>'
        )
    return f'<div style="display:flex;flex-wrap:wrap;align-items:flex-end;margin:6px 0">{"".join(parts)}</div>'


def _table(rows: _Rows) -> str:
    cell = "padding:2px 14px 2px 0;text-align:left;border:0;vertical-align:top"
    return (
        '<table style="border-collapse:collapse;margin:4px 0">'
        + "".join(
            f'<tr style="background:none"><th scope="row" style="{cell};font-weight:normal;opacity:.75">'
            f'{_shown(name)}</th><td style="{cell}">{_shown(value)}</td></tr>'
            for name, value in rows
            if value
        )
        + "</table>"
    )


def _notes(heading: str, sentences: Iterable[str]) -> str:
    """Sentences to unfold; empty where there are none."""
    found = list(sentences)
    if not found:
        return ""
    items = "".join(f"<li>{_shown(text)}</li>" for text in found[:MOST_NOTES])
    more = f"<li>and {len(found) - MOST_NOTES} more</li>" if len(found) > MOST_NOTES else ""
    return f"<details><summary>{heading} ({len(found)})</summary><ul>{items}{more}</ul></details>"


def _verdict(verdict: Verdict | None) -> str:
    if verdict is None:
        return '<p style="margin:4px 0;opacity:.75">No verdict.</p>'
    colour = _COLOURS.get(verdict.kind, "#7b8794")
    sentence = verdict.sentence[:1].upper() + verdict.sentence[1:]
    return (
        f'<p style="margin:6px 0;padding:2px 0 2px 10px;border-left:4px solid {colour}">'
        f"<strong>{_shown(sentence)}</strong></p>"
    )


def _framed(kind: str, heading: str, *parts: str) -> str:
    title = f'<p style="margin:0"><strong>{kind}</strong> {_shown(heading)}</p>'
    inside = "".join((title, *parts))
    return f'<div style="border:{_BORDER};border-radius:6px;padding:8px 12px;max-width:60em">{inside}</div>'


def _scan_pictures(raw: RawData, scan: PtychoDataContainer | None) -> list[_Picture]:
    known = raw.n_looked_at
    few = min(thumbnails.MOST_FRAMES, known)
    modes = raw.probe if scan is None else scan.probe
    role = None if scan is None else scan.role
    return [
        ("frame centres", lambda: thumbnails.positions(raw.positions_px, role)),
        (
            f"mean of {counted(few, 'frame')}, log" if few < raw.n_frames else "mean frame, log",
            lambda: thumbnails.pattern(thumbnails.mean_of_some(raw)[0], raw.mask),
        ),
        *([] if modes is None else [("probe, strongest mode", lambda: thumbnails.probe(modes))]),
    ]


def _scan_rows(raw: RawData) -> _Rows:
    geometry, totals = raw.geometry, raw.frame_totals
    known = totals[totals == totals]
    span = tuple(round(float(side)) for side in raw.positions_px.max(axis=0) - raw.positions_px.min(axis=0))
    of_length = extent(span, geometry.pixel_size_m)
    yield (
        "frames",
        f"{raw.n_frames} of {raw.side}×{raw.side} pixels"
        + ("" if raw.looked_at is None else f", {raw.n_looked_at} looked at"),
    )
    if len(known):
        yield "counts a frame", f"{_count(known.mean())} on average, {_count(known.min())} to {_count(known.max())}"
    yield "positions (y × x)", f"{size(span)} object pixels" + (f", {of_length}" if of_length else "")
    yield "object pixel", length(geometry.pixel_size_m) or "not known"
    yield "probe", "none" if raw.probe is None else f"{len(raw.probe)} mode{'s' if len(raw.probe) > 1 else ''}"
    masked = 0 if raw.mask is None else int((~raw.mask).sum())
    yield "masked pixels", str(masked) if masked else ""
    beam = "" if geometry.energy_eV is None else f"{geometry.energy_eV:.6g} eV {geometry.radiation}s"
    distance = "" if geometry.distance_m is None else f"detector at {length(geometry.distance_m)}"
    yield "beam", ", ".join(part for part in (beam, distance, str(raw.propagation)) if part)
    yield "read as", f"{raw.source.dialect}, {raw.source.measurement}"


def _count(value: float) -> str:
    """Counts in words: whole where there are many."""
    return f"{value:,.0f}" if value >= 100 else rounded(value, 3)


def _heading(raw: RawData) -> str:
    from pathlib import PurePath

    return PurePath(raw.source.path).name if raw.source.path else "from arrays"


def _raw_card(raw: RawData) -> str:
    return _framed(
        "Scan",
        _heading(raw),
        _pictures(_scan_pictures(raw, None)),
        _table(_scan_rows(raw)),
        _notes("assumed in reading", raw.source.assumptions),
        _notes("warnings", raw.source.warnings),
    )


def _container_card(scan: PtychoDataContainer) -> str:
    words = {Role.TRAIN: "trained on", Role.HELDOUT: "held out", Role.UNUSED: "not used"}
    roles = ", ".join(f"{len(scan.frames(role))} {word}" for role, word in words.items() if len(scan.frames(role)))
    reasons = [f"{counted(len(frames), 'frame')}: {reason}" for reason, frames in scan.unused.items()]
    return _framed(
        "Scan with roles",
        _heading(scan.raw),
        _pictures(_scan_pictures(scan.raw, scan)),
        _table([("roles", roles), *_scan_rows(scan.raw)]),
        _notes("not used", reasons),
        _notes("warnings", scan.raw.source.warnings),
    )


def _image_pictures(image: Image) -> list[_Picture]:
    return [
        ("object, phase", lambda: thumbnails.object_pair(image)[0]),
        ("object, amplitude", lambda: thumbnails.object_pair(image)[1]),
        ("probe, strongest mode", lambda: thumbnails.probe(image.probe)),
    ]


def _image_rows(image: Image, pixel_size_m: float | None) -> _Rows:
    of_length = extent(image.object.shape, pixel_size_m)
    yield "object (y × x)", f"{size(image.object.shape)} pixels" + (f", {of_length}" if of_length else "")
    yield "object pixel", length(pixel_size_m)
    yield "probe modes", str(len(image.probe))
    if image.slices is not None:
        yield "slices", f"{len(image.slices)}, {length(image.slice_spacing_m)} apart"
    yield "explained by", image.forward_model and f"the forward model of engine {image.forward_model} alone"


def _image_card(image: Image) -> str:
    rows = _table(_image_rows(image, None))
    return _framed("Image", "not scored", _pictures(_image_pictures(image)), rows)


def _scored_rows(scored: Scored) -> _Rows:
    held = scored.heldout
    yield (
        "deviance (1 = noise)",
        f"{rounded(scored.train.deviance)} trained on"
        + ("" if held is None else f", {rounded(held.deviance)} held out"),
    )
    parts = [("trained on", scored.train), *([] if held is None else [("held out", held)])]
    yield "R-factor", ", ".join(f"{f.r_factor:.4f} {word} (noise alone {f.r_factor_floor:.4f})" for word, f in parts)
    yield from _image_rows(scored.image, scored.scan.raw.geometry.pixel_size_m)
    yield "left out", ", ".join(f"{n} {reason}" for reason, n in scored.dropped.items() if n)


def _scored_card(scored: Scored) -> str:
    return _framed(
        "Image",
        f"{_heading(scored.scan.raw)}, by engine {scored.engine}",
        _pictures(_image_pictures(scored.image)),
        _table(_scored_rows(scored)),
    )


def _run_card(run: Run) -> str:
    total = run.seconds.get("total")
    rows = [
        ("engine", " → ".join(f"{stage.name} ({stage.scored.engine})" for stage in run.stages)),
        *_scored_rows(run.scored),
        ("time", "" if total is None else f"{total:.1f} s"),
        ("folder", "" if run.folder is None else run.folder.name),
    ]
    return _framed(
        "Run",
        run.title,
        _verdict(run.verdict),
        _pictures(_image_pictures(run.image)),
        _table(rows),
        _notes("what to do", () if run.verdict is None else run.verdict.advice),
        _notes("warnings", run.warnings),
    )


def _cdi_card(result: CdiResult) -> str:
    made = result.results["reconstruction"]
    if made is None:
        return _framed("Result", f"by engine {result.results['backend']}", "<p>Nothing was reconstructed.</p>")
    return _scored_card(made)


def _settings_card(config: Any) -> str:
    """What was set, and to unfold all that there is to set."""
    given = stated(config)
    every = [(field.name, getattr(config, field.name)) for field in dataclasses.fields(config)]
    rest = [(name, _words(value)) for name, value in every if name not in given]
    table = _table((name, _words(value)) for name, value in given.items()) if given else "<p>All as by default.</p>"
    more = f"<details><summary>by default ({len(rest)})</summary>{_table(rest)}</details>" if rest else ""
    return _framed(type(config).__name__, "", table, more)


def _words(value: Any) -> str:
    return value if isinstance(value, str) and value else repr(value)


def _comparison_card(score: Comparison) -> str:
    return _framed("Comparison", "after registration, and without what no image can know",
                   _table(comparison_rows(score, None)))  # fmt: skip


def _columns(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table with headings."""
    cell = "padding:2px 14px 2px 0;text-align:left;border:0;vertical-align:top"
    above = "".join(f'<th style="{cell};font-weight:normal;opacity:.75">{_shown(text)}</th>' for text in heads)
    below = "".join(
        '<tr style="background:none">' + "".join(f'<td style="{cell}">{_shown(text)}</td>' for text in row) + "</tr>"
        for row in rows
    )
    return (
        f'<div style="overflow-x:auto"><table style="border-collapse:collapse;margin:4px 0"><tr>{above}</tr>{below}'
        "</table></div>"
    )


def _compared_card(compared: ComparedImages) -> str:
    """The tables of the command: what the files tell, the scores, and each pair."""
    heads, rows = figures_table(compared.images)
    parts = [_columns(heads, rows)] if rows else []
    scored = [(i.name, s) for i, s in zip(compared.images, compared.scores, strict=True) if s is not None]
    by_name = [(name, dict(comparison_rows(score, compared.reference.pixel_size_m))) for name, score in scored]
    if by_name:
        lines = [(row, *(column[row] for _, column in by_name)) for row in by_name[0][1]]
        parts.append(_columns(["figure", *(name for name, _ in by_name)], lines))
    if compared.pairs:
        parts.append(_columns(*pairs_table(compared)))
    against = f"against {'the truth ' if compared.is_truth else ''}{compared.reference.name}"
    not_scored = (f"{name}: {why}" for name, why in compared.reasons.items())
    return _framed(
        "Comparison",
        against,
        *parts,
        _notes("not defined", why_not_defined(compared)),
        _notes("not scored", not_scored),
    )


_CARDS: tuple[tuple[type | tuple[type, ...], Callable[[Any], str]], ...] = (
    (RawData, _raw_card),
    (PtychoDataContainer, _container_card),
    (Run, _run_card),
    (Scored, _scored_card),
    (Image, _image_card),
    (CdiResult, _cdi_card),
    (Comparison, _comparison_card),
    (ComparedImages, _compared_card),
)


def card(value: Any) -> str:
    """The card of a value, HTML.

    Args:
        value: a scan, a container, an image, a scored image, a run, a result of the facade, a comparison, or settings.

    Raises:
        ConfigError: it is none of these.
    """
    for kinds, make in _CARDS:
        if isinstance(value, kinds):
            return make(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):  # settings, of whichever room
        return _settings_card(value)
    raise ConfigError(f"a {type(value).__name__} has no card; scans, images, runs, comparisons and settings have.")
