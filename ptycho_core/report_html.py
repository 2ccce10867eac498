"""The report as one HTML page: images inside it, no script, nothing fetched, readable on paper, light or dark."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any

from .config import TrainingConfig
from .config_mapping import config_to_mapping
from .io.reconstruction_file import plain_json
from .report_figures import LIMITS, MAX_SHOWN_MODES, ObjectView
from .report_stages import stage_pictures, stages_table

if TYPE_CHECKING:
    from .metrics import FourierRingCorrelation
    from .report import RunRecord

__all__ = ["humanised", "render_report"]

# Figures keep their own white ground, so dark mode and paper show the same picture.
_STYLE = """
:root { color-scheme: light dark; --page: #f5f7f9; --card: #ffffff; --ink: #1f2933; --soft: #52606d;
  --line: #d9e0e7; --accent: #1f5a94; --warn: #8a4b08; --warn-ground: #fff4e5; --warn-line: #f0b36b; }
@media (prefers-color-scheme: dark) { :root { --page: #12171d; --card: #1b222b; --ink: #e6ebf0; --soft: #9aa7b4;
  --line: #303a46; --accent: #7fb4e8; --warn: #ffcf94; --warn-ground: #33240f; --warn-line: #8a5a1c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 36px 24px 56px; }
h1 { font-size: 27px; line-height: 1.2; margin: 0 0 6px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 38px 0 12px; padding-bottom: 6px; border-bottom: 1px solid var(--line); }
h3 { font-size: 14px; margin: 0 0 8px; }
p { margin: 0 0 10px; }
.soft { color: var(--soft); overflow-wrap: anywhere; }
.headline { display: grid; grid-template-columns: 1fr 1fr; gap: 16px; margin: 22px 0 16px; }
.headline.single { grid-template-columns: 1fr; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px 18px; }
.value { font-size: 38px; line-height: 1.15; font-weight: 650; color: var(--accent);
  font-variant-numeric: tabular-nums; }
.label { font-size: 13px; font-weight: 600; color: var(--soft); }
.card p { margin: 6px 0 0; font-size: 14px; color: var(--soft); }
.facts { display: grid; grid-template-columns: repeat(4, 1fr); gap: 1px; margin: 0;
  background: var(--line); border: 1px solid var(--line); border-radius: 10px; overflow: hidden; }
.facts div { background: var(--card); padding: 10px 14px; }
.facts dt { font-size: 12px; color: var(--soft); }
.facts dd { margin: 0; font-weight: 600; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.warnings { background: var(--warn-ground); border: 1px solid var(--warn-line); color: var(--warn); border-radius: 10px;
  padding: 12px 18px; margin: 16px 0 0; }
.warnings ul, .notes { margin: 6px 0 0; padding-left: 20px; }
.stack { display: grid; gap: 16px; align-content: start; }
.grid { display: grid; grid-template-columns: 1fr 1fr; gap: 16px; align-items: start; }
figure { margin: 0; background: #ffffff; color: #1f2933; border: 1px solid var(--line); border-radius: 10px;
  padding: 12px; break-inside: avoid; }
figure.wide { margin-bottom: 16px; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figcaption { font-size: 13px; line-height: 1.45; color: #52606d; padding: 10px 4px 2px; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
td, th { text-align: left; vertical-align: top; padding: 4px 10px 4px 0; border-bottom: 1px solid var(--line);
  font-weight: 400; overflow-wrap: anywhere; }
tr:last-child > * { border-bottom: 0; }
th { color: var(--soft); width: 48%; }
.settings { columns: 2; column-gap: 36px; } .settings tr { break-inside: avoid; }
.settings th { width: 66%; }
.settings-card, details { margin-top: 16px; }
.changed { font-weight: 650; color: var(--accent); }
pre { margin: 8px 0 0; font: 12px/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; }
footer { margin-top: 34px; font-size: 12.5px; color: var(--soft); }
@media screen and (max-width: 760px) { .grid, .headline { grid-template-columns: 1fr; }
  .facts { grid-template-columns: 1fr 1fr; } .settings { columns: 1; } main { padding: 22px 14px; } }
@media print { :root { color-scheme: light; --page: #ffffff; --card: #ffffff; --ink: #000000; --soft: #444444;
  --line: #cccccc; --accent: #1f5a94; --warn: #5c3205; --warn-ground: #ffffff; --warn-line: #8a4b08; }
  @page { margin: 14mm; } body { font-size: 10.5pt; } main { max-width: none; padding: 0; }
  h2 { break-after: avoid; margin-top: 22px; } .card, .facts, .warnings { break-inside: avoid; } }
"""


def humanised(name: str) -> str:
    """A name of a program as words."""
    return name.replace("_", " ")


def _figure(png: bytes, alt: str, caption: str, kind: str = "") -> str:
    data = base64.b64encode(png).decode("ascii")
    # drawn at 150 dots an inch; shown at 96 they would be needlessly large, and soft on fine screens
    width = int.from_bytes(png[16:20], "big") * 96 // 140
    return (
        f'<figure class="{kind}"><img width="{width}" alt="{escape(alt)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _table(rows: Iterable[tuple[str, str]], changed: frozenset[str] | None = None) -> str:
    """Names and values; with `changed`, as two columns of settings in which those names stand out."""
    cells = (
        f'<tr><th scope="row">{escape(name)}</th>'
        f"<td{' class=changed' if changed and name in changed else ''}>{escape(value)}</td></tr>"
        for name, value in rows
    )
    table = f"<table><tbody>{''.join(cells)}</tbody></table>"
    return table if changed is None else f'<div class="settings">{table}</div>'


def _card(heading: str, content: str) -> str:
    return f'<section class="card"><h3>{escape(heading)}</h3>{content}</section>'


def _length(metres: float) -> str:
    for factor, name in ((1e-3, "mm"), (1e-6, "µm"), (1e-9, "nm")):
        if metres >= factor:
            return f"{metres / factor:.3g} {name}"
    return f"{metres / 1e-12:.3g} pm"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _headline(record: RunRecord) -> str:
    r = record.reconstruction.r_factor
    frames = record.raw.n_frames
    text = (
        f"The predicted patterns miss {r:.2%} of the measured intensity: R = Σ(√λ − √k)² / Σk of predicted λ and "
        f"measured counts k, over the good pixels of all {frames} frames. 0 would be a perfect fit, which shot noise "
        "alone rules out."
    )
    cards = [_headline_card("R-factor", r, text)]
    heldout = record.heldout_r_factor
    if heldout is not None and record.heldout is not None:
        cards.append(
            _headline_card(
                "R-factor of held-out frames",
                heldout,
                f"The same over the {len(record.heldout)} frames that no weight was trained on; the others have "
                f"{record.training_r_factor:.4f}. " + _heldout_meaning(record),
            )
        )
    return f'<div class="headline{"" if len(cards) == 2 else " single"}">{"".join(cards)}</div>'


def _heldout_meaning(record: RunRecord) -> str:
    if record.refined is not None and record.refined.kept:
        return (
            "Neither the image that refining began with nor refining used them, but to know when to stop"
            + (" and to find their own positions" if record.refined.positions is not None else "")
            + ": they are predicted from their neighbours."
        )
    return (
        "They take part in the image like all frames, so this tells whether the network generalises, not whether the "
        "image is right: for that, ask for the half-data FRC."
    )


def _headline_card(label: str, value: float, text: str) -> str:
    return (
        f'<section class="card"><div class="label">{escape(label)}</div><div class="value">{value:.4f}</div>'
        f"<p>{escape(text)}</p></section>"
    )


def _facts(record: RunRecord) -> str:
    reconstruction, raw = record.reconstruction, record.raw
    height, width = reconstruction.object.shape
    pixel = raw.geometry.pixel_size_m
    facts = [
        ("Engine", record.engine),
        ("Frames", f"{raw.n_frames} of {raw.side}×{raw.side} pixels"),
        ("Mean counts a frame", f"{reconstruction.frame_totals.mean():,.0f}"),
        ("Object", f"{height}×{width} pixels"),
        ("Object pixel", "size not known" if pixel is None else _length(pixel)),
        ("Probe modes", str(len(reconstruction.probe))),
        ("Time", _duration(record.total_seconds) if record.seconds else "not measured"),
        ("Peak memory", f"{record.peak_memory_bytes / 1e9:.2f} GB" if record.peak_memory_bytes else "not measured"),
    ]
    cells = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts)
    return f'<dl class="facts">{cells}</dl>'


def _warnings(record: RunRecord) -> str:
    if not record.all_warnings:
        return ""
    items = "".join(f"<li>{escape(w)}</li>" for w in record.all_warnings)
    n = len(record.all_warnings)
    return f'<aside class="warnings"><strong>{n} warning{"s" if n > 1 else ""}</strong><ul>{items}</ul></aside>'


def _object_captions(view: ObjectView) -> tuple[str, str]:
    low, high = LIMITS
    shown = f"Cropped to the region lit at least {view.coverage_threshold:.2g} times; pixels lit less are blank. " + (
        f"Each pixel shown is the mean of {view.step_px}×{view.step_px} object pixels. " if view.step_px > 1 else ""
    )
    limits = f"The grey scale ends at the {low:g} and {high:g} percentiles of that region."
    cyclic = "The phase goes around the circle and is shown wrapped, on a cyclic colour scale."
    removed = f"A global phase of {view.removed_phase_rad:.3f} rad was removed, so that the median is 0; nothing else. "
    return shown + limits, shown + removed + (cyclic if view.phase_wraps else limits)


def _pictures(record: RunRecord, images: Mapping[str, bytes], view: ObjectView) -> str:
    amplitude, phase = _object_captions(view)
    P = len(record.reconstruction.probe)
    hidden = f" The {MAX_SHOWN_MODES} strongest of {P} modes are shown." if P > MAX_SHOWN_MODES else ""
    parts = [
        "<h2>Object</h2><div class='grid'>",
        _figure(images["object_phase.png"], "Phase of the reconstructed object", phase),
        _figure(images["object_amplitude.png"], "Amplitude of the reconstructed object", amplitude),
        "</div>",
        _stages(record, images),
        "<h2>Probe</h2>",
        _figure(
            images["probe.png"],
            "Probe modes in complex colours",
            "Hue is the phase, brightness the amplitude, each mode scaled to its own peak. Modes add incoherently."
            + hidden,
        ),
    ]
    if "frc.png" in images:
        parts.append(_comparison(record, images))
    parts += [
        "<h2>Does the model explain the data?</h2>",
        _figure(
            images["patterns.png"],
            "Measured and predicted patterns of the best, median and worst frame",
            "The frames with the lowest, the median and the highest R-factor. Counts share one logarithmic colour "
            "scale. In the difference of amplitudes, shot noise has the same spread, about ±0.5, wherever there are "
            "more than a few counts.",
            "wide",
        ),
        "<div class='grid'>",
        _figure(
            images["r_map.png"],
            "Map of the R-factor over the scan",
            "Each dot is a frame at its centre, as used. Colours end at the 1 and 99 percentiles.",
        ),
        _figure(
            images["coverage.png"],
            "Coverage of the object and frame centres",
            "How often each object pixel was lit, in units of the probe's peak intensity. Dashed: the region of the "
            "object that is shown.",
        ),
        "</div><h2>Training</h2>",
        _figure(
            images["losses.png"], "Losses against epochs", "Loss of the frames trained on and of the held-out frames."
        ),
    ]
    return "".join(parts)


def _stages(record: RunRecord, images: Mapping[str, bytes]) -> str:
    """The images made on the way, as figures and as pictures; an empty text where there was only one."""
    table = stages_table(record.stages, record.refined, record.heldout)
    if not table:
        return ""
    shown = "".join(_figure(images[name], alt, caption) for name, alt, caption in stage_pictures(images))
    heading = f"From {escape(record.stages[0].name)} to refined" if record.stages else "Refining"
    return f"<h2>{heading}</h2>{table}<div class='grid'>{shown}</div>"


def _known(value: float, text: str) -> str:
    return text if math.isfinite(value) else "not defined"


def _resolution(curve: FourierRingCorrelation, pixel_size_m: float | None) -> list[tuple[str, str]]:
    """Half-period resolution at each threshold of a ring correlation."""
    cutoffs = (("½", curve.cutoff_half), ("1/7", curve.cutoff_one_seventh), ("half-bit", curve.cutoff_half_bit))
    rows = []
    for name, cutoff in cutoffs:
        half_period = curve.half_period_px(cutoff)
        text = "nothing resolved" if math.isinf(half_period) else f"{half_period:.2f} px"
        if pixel_size_m is not None and math.isfinite(half_period):
            text += f" = {_length(half_period * pixel_size_m)}"
        if cutoff >= curve.frequency[-1]:
            text += ", the limit of the pixels: it never falls so far"
        rows.append((f"Half period where FRC falls to {name}", text))
    return rows


def _comparison(record: RunRecord, images: Mapping[str, bytes]) -> str:
    """Scores against the truth and ring correlations, as far as there are any."""
    tables, what = "", []
    pixel_size_m = record.raw.geometry.pixel_size_m
    if record.comparison is not None:
        c = record.comparison
        rows = [
            (
                "Amplitude PSNR",
                _known(c.amplitude_psnr_db, f"{c.amplitude_psnr_db:.2f} dB, peak {c.amplitude_peak:.3g}"),
            ),
            ("Phase PSNR", _known(c.phase_psnr_db, f"{c.phase_psnr_db:.2f} dB, peak {c.phase_peak_rad:.3g} rad")),
            ("Amplitude SSIM", _known(c.amplitude_ssim, f"{c.amplitude_ssim:.4f}")),
            ("Phase SSIM", _known(c.phase_ssim, f"{c.phase_ssim:.4f}")),
            ("Complex correlation, mean removed", f"{c.correlation:.4f}"),
            *_resolution(c.frc, pixel_size_m),
            ("Shift undone", f"y {c.shift_px[0]:+.2f}, x {c.shift_px[1]:+.2f} px"),
            ("Phase ramp undone", f"y {c.ramp_rad_per_px[0]:+.2g}, x {c.ramp_rad_per_px[1]:+.2g} rad/px"),
            ("Pixels compared", f"{c.n_pixels:,}"),
        ]
        tables += _card("Scores", _table(rows))
        what.append("with the truth")
    if record.half_data_frc is not None:
        tables += _card("Half against half of the frames", _table(_resolution(record.half_data_frc, pixel_size_m)))
        what.append("between two reconstructions from half of the frames each")
    caption = (
        f"How well spatial frequencies agree {' and '.join(what)}. The customary threshold is ½ against a truth, and "
        "1/7 or the half-bit curve between halves."
    )
    curves = _figure(images["frc.png"], "Fourier ring correlation", caption)
    heading = "Resolution" if record.comparison is None else "Against the truth"
    return f"<h2>{heading}</h2><div class='grid'><div class='stack'>{tables}</div>{curves}</div>"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    out: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            out |= _flat(value, f"{prefix}{name}.")
        else:
            out[prefix + name] = "–" if value is None else value if isinstance(value, str) else json.dumps(value)
    return out


def _details(record: RunRecord) -> str:
    settings = _flat(config_to_mapping(record.config))
    defaults = _flat(config_to_mapping(TrainingConfig()))
    changed = frozenset(name for name, value in settings.items() if defaults.get(name) != value)
    total = record.total_seconds or 1.0
    seconds = [(humanised(k), f"{v:.2f} s ({v / total:.0%})") for k, v in record.seconds.items()]
    dropped = [(humanised(k), str(v)) for k, v in record.reconstruction.dropped.items()]
    source = record.raw.source
    data = [
        ("file", source.path or "arrays in memory"),
        ("read as", source.dialect),
        ("measurement", source.measurement),
    ]
    assumed = "".join(f"<li>{escape(a)}</li>" for a in source.assumptions)
    cards = [
        _card(
            "Data", _table(data) + (f'<p>Assumed in reading:</p><ul class="notes">{assumed}</ul>' if assumed else "")
        ),
        _card("Left out", _table(dropped) if dropped else "<p>Nothing was left out.</p>"),
        _card("Time by stage", _table(seconds) if seconds else "<p>Not measured.</p>"),
        _card("Versions", _table((k, str(v)) for k, v in record.versions.items())),
    ]
    chosen = _card(
        "Settings", "<p>Those that differ from the default stand out.</p>" + _table(settings.items(), changed)
    )
    provenance = json.dumps(plain_json(dict(record.provenance)), indent=2, ensure_ascii=False)
    return (
        f"<h2>Settings and provenance</h2><div class='grid'>{''.join(cards)}</div>"
        f"<div class='settings-card'>{chosen}</div>"
        f"<details><summary>Provenance as JSON</summary><pre>{escape(provenance)}</pre></details>"
    )


def render_report(record: RunRecord, images: Mapping[str, bytes], view: ObjectView) -> str:
    """Return the whole page.

    Args:
        record: the run.
        images: file name → PNG, as written beside the report.
        view: how the object is shown.
    """
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    source = record.raw.source.path or "arrays in memory"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # tells a browser to hold the page to its promise: nothing is fetched and nothing is run
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>{escape(record.title)}</title><style>{_STYLE}</style></head><body><main>"
        f'<h1>{escape(record.title)}</h1><p class="soft">{escape(source)} · {made}</p>'
        f"{_headline(record)}{_facts(record)}{_warnings(record)}{_pictures(record, images, view)}{_details(record)}"
        "<footer>Images, numbers and settings are all inside this file. The same data for programs: reconstruction.h5 "
        "and summary.json in the folder of the run.</footer></main></body></html>\n"
    )
