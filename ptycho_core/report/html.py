"""The report as one HTML page: images inside it, no script, nothing fetched, readable on paper, light or dark."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib import resources
from typing import TYPE_CHECKING, Any

from ..config import TrainingConfig
from ..config_mapping import config_to_mapping
from ..data.run import Run, heldout_chose
from ..io.reconstruction_file import plain_json
from ..runtime import DEFAULT_RUNTIME, runtime_to_mapping
from ..text import html_text as escape
from .extras import extra_facts, extra_pictures
from .figures import LIMITS, MAX_SHOWN_MODES, ObjectView
from .orientation import orientation_section
from .probe_pictures import probe_words
from .stages import stage_pictures, stages_table

if TYPE_CHECKING:
    from ..data.findings import FourierRingCorrelation
    from ..physics.merit import Figures

__all__ = ["humanised", "render_report"]


def humanised(name: str) -> str:
    """A name of a program as words."""
    return name.replace("_", " ")


def _figure(images: Mapping[str, bytes], name: str, alt: str, caption: str, kind: str = "") -> str:
    """A picture with its caption; in its place, where it could not be drawn, a line that says so."""
    if name not in images:
        return f'<figure class="{kind}"><figcaption>{escape(alt)}: could not be drawn.</figcaption></figure>'
    png = images[name]
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
    for factor, name in ((1e-3, "mm"), (1e-6, "µm"), (1e-9, "nm"), (1e-10, "Å")):
        if metres >= factor:
            return f"{metres / factor:.3g} {name}"
    return f"{metres / 1e-12:.3g} pm"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _verdict(run: Run) -> str:
    """The verdict on top of the page, with what speaks for it and what to do."""
    if run.verdict is None:
        return ""
    verdict = run.verdict
    reasons = "".join(f"<li>{_words(reason.text)}</li>" for reason in verdict.reasons)
    advice = "".join(f"<li>{_words(text)}</li>" for text in verdict.advice)
    lists = (f"<ul>{reasons}</ul>" if reasons else "") + (f"<p>What to do:</p><ul>{advice}</ul>" if advice else "")
    more = f"<details><summary>Reasons and advice</summary>{lists}</details>" if lists else ""
    sentence = verdict.sentence[0].upper() + verdict.sentence[1:]
    kind = verdict.kind.replace("_", "-")
    return f'<section class="verdict {kind}"><strong>{_words(sentence)}.</strong>{more}</section>'


def _words(text: str) -> str:
    """A sentence in which options of the command are never broken."""
    return re.sub(r"--[a-z][\w.]*", r'<span class="option">\g<0></span>', escape(text))


def _headline(run: Run) -> str:
    scored = run.scored
    cards = [
        _figures_card("Frames that the image was made of", scored.train, "Fitting explains a part of their noise.")
    ]
    if scored.heldout is not None:
        cards.append(_figures_card("Held-out frames", scored.heldout, _heldout_meaning(run)))
    return f'<div class="headline{"" if len(cards) == 2 else " single"}">{"".join(cards)}</div>'


def _heldout_meaning(run: Run) -> str:
    kept = run.refined is not None and run.refined.kept
    own = ["positions"] if kept and run.refined is not None and run.refined.positions is not None else []
    own += ["intensities"] if kept and run.scored.image.mode_weights is not None else []
    if heldout_chose(run.refined, run.config):
        return (
            "Neither training nor refining used them, but to know when to stop"
            + (f" and to find their own {' and '.join(own)}" if own else "")
            + ": a validation, predicted from their neighbours."
        )
    return "The image has not seen them: they are predicted from their neighbours."


def _figures_card(label: str, figures: Figures, text: str) -> str:
    """Reduced deviance in large figures, and under it the two misfits of amplitude beside what noise allows."""
    rows = [
        ("R-factor Σ|√k − √λ| / Σ√k", figures.r_factor, figures.r_factor_floor),
        ("Fourier error Σ(√λ − √k)² / Σk", figures.fourier_error, figures.fourier_error_floor),
    ]
    lines = "".join(
        f"<p>{escape(name)}: <strong>{value:.5f}</strong>, shot noise alone {floor:.5f}</p>"
        for name, value, floor in rows
    )
    return (
        f'<section class="card"><div class="label">{escape(label)}: reduced deviance</div>'
        f'<div class="value">{figures.deviance:.3g}</div>'
        f"<p>1 is all that noise allows, for {figures.n_frames} frames. {escape(text)}</p>{lines}</section>"
    )


def _facts(run: Run) -> str:
    image, scan = run.image, run.scan
    raw = scan.raw
    height, width = image.object.shape
    pixel = raw.geometry.pixel_size_m
    facts = [
        ("Engine", run.engine),
        (
            "Frames",
            f"{len(scan.train_frames)} + {len(scan.heldout_frames)} held out, of {raw.n_frames}; "
            f"{raw.side}×{raw.side} pixels",
        ),
        ("Propagation", str(raw.propagation)),
        ("Mean counts a frame", f"{raw.frame_totals[scan.used_frames].mean():,.0f}"),
        ("Object", f"{height}×{width} pixels"),
        ("Object pixel", "size not known" if pixel is None else _length(pixel)),
        ("Probe modes", str(len(image.probe))),
        *extra_facts(image),
        ("Time", _duration(_total_seconds(run)) if run.seconds else "not measured"),
        ("Peak memory", f"{run.peak_memory_bytes / 1e9:.2f} GB" if run.peak_memory_bytes else "not measured"),
    ]
    cells = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts)
    return f'<dl class="facts">{cells}</dl>'


def _total_seconds(run: Run) -> float:
    """Seconds of the whole run, or of all its stages when the whole was not measured."""
    return run.seconds.get("total", sum(run.seconds.values()))


def _warnings(run: Run) -> str:
    if not run.warnings:
        return ""
    items = "".join(f"<li>{escape(w)}</li>" for w in run.warnings)
    n = len(run.warnings)
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


def _pictures(run: Run, images: Mapping[str, bytes], view: ObjectView) -> str:
    amplitude, phase = _object_captions(view)
    P = len(run.image.probe)
    hidden = f" The {MAX_SHOWN_MODES} strongest of {P} modes are shown." if P > MAX_SHOWN_MODES else ""
    parts = [
        "<h2>Object</h2><div class='grid'>",
        _figure(images, "object_phase.png", "Phase of the reconstructed object", phase),
        _figure(images, "object_amplitude.png", "Amplitude of the reconstructed object", amplitude),
        "</div>",
        _stages(run, images),
        "<h2>Probe</h2>",
        _figure(
            images,
            "probe.png",
            "Probe modes in complex colours",
            "Hue is the phase, brightness the amplitude, each mode scaled to its own peak. Modes add incoherently."
            + hidden,
        ),
        *_probe(run, images),
    ]
    parts += [_figure(images, name, alt, caption, "wide") for name, alt, caption in extra_pictures(run.image)]
    if run.result.comparison is not None or run.result.half_data_frc is not None:
        parts.append(_comparison(run, images))
    parts += [
        "<h2>Does the model explain the data?</h2>",
        _figure(
            images,
            "patterns.png",
            "Measured and predicted patterns of the best, median and worst frame",
            "The frames with the lowest, the median and the highest R-factor. Counts share one logarithmic colour "
            "scale. In the difference of amplitudes, shot noise has the same spread, about ±0.5, wherever there are "
            "more than a few counts.",
            "wide",
        ),
        "<div class='grid'>",
        _figure(
            images,
            "r_map.png",
            "Map of the R-factor over the scan",
            "Each dot is a frame at its centre, as used. Colours end at the 1 and 99 percentiles.",
        ),
        _figure(
            images,
            "coverage.png",
            "Coverage of the object and frame centres",
            "How often each object pixel was lit, in units of the probe's peak intensity. Dashed: the region of the "
            "object that is shown.",
        ),
        "</div><h2>Training</h2>",
        _figure(
            images, "losses.png", "Losses against epochs", "Loss of the frames trained on and of the held-out frames."
        ),
    ]
    return "".join(parts)


def _probe(run: Run, images: Mapping[str, bytes]) -> list[str]:
    """The probe along the beam, and how it was found where it was."""
    parts = []
    if "probe_focus.png" in images:
        text = (
            "The strongest mode along the beam, by propagation from the sample; upstream is on the left. The focus is "
            "where it is brightest."
        )
        parts.append(
            _figure(images, "probe_focus.png", "The probe through its focus, and its power by mode", text, "wide")
        )
    if "probe_trials.png" in images:
        text = (
            "How the probe was found: what each trial explains of held-out frames beyond the bare beam. A wrong probe "
            "explains nothing."
        )
        parts.append(_figure(images, "probe_trials.png", "Trials of probes", text, "wide"))
    return [*parts, probe_words(run.probe_guess)]


def _stages(run: Run, images: Mapping[str, bytes]) -> str:
    """The images made on the way, as figures and as pictures; an empty text where there was only one."""
    table = stages_table(run.stages, run.refined)
    if not table:
        return ""
    shown = "".join(_figure(images, name, alt, caption) for name, alt, caption in stage_pictures(images))
    heading = f"From {escape(run.stages[0].name)} to refined" if len(run.stages) > 1 else "Refining"
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


def _comparison(run: Run, images: Mapping[str, bytes]) -> str:
    """Scores against the truth and ring correlations, as far as there are any."""
    tables, what = "", []
    pixel_size_m, score, halves = run.scan.raw.geometry.pixel_size_m, run.result.comparison, run.result.half_data_frc
    if score is not None:
        c = score
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
    if halves is not None:
        tables += _card("Half against half of the frames", _table(_resolution(halves, pixel_size_m)))
        what.append("between two reconstructions from half of the frames each")
    caption = (
        f"How well spatial frequencies agree {' and '.join(what)}. The customary threshold is ½ against a truth, and "
        "1/7 or the half-bit curve between halves."
    )
    curves = _figure(images, "frc.png", "Fourier ring correlation", caption)
    heading = "Resolution" if score is None else "Against the truth"
    return f"<h2>{heading}</h2><div class='grid'><div class='stack'>{tables}</div>{curves}</div>"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    out: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            out |= _flat(value, f"{prefix}{name}.")
        else:
            out[prefix + name] = "–" if value is None else value if isinstance(value, str) else json.dumps(value)
    return out


def _workers(run: Run) -> str:
    """The engines that took part, and the processor."""
    refined = "" if run.refined is None else f", refined by {run.refined.engine}"
    processor = dict(run.provenance.get("machine", {})).get("processor")
    return f"Engine {run.engine}{refined}" + (f" on {processor}." if processor else ".")


def _details(run: Run) -> str:
    settings = _flat(config_to_mapping(run.config))
    defaults = _flat(config_to_mapping(TrainingConfig(method=run.config.method)))
    changed = frozenset(name for name, value in settings.items() if defaults.get(name) != value)
    work, usual = _flat(runtime_to_mapping(run.runtime)), _flat(runtime_to_mapping(DEFAULT_RUNTIME))
    asked = frozenset(name for name, value in work.items() if usual[name] != value)
    total = _total_seconds(run) or 1.0
    seconds = [(humanised(k), f"{v:.2f} s ({v / total:.0%})") for k, v in run.seconds.items()]
    dropped = [(humanised(k), str(v)) for k, v in run.scored.dropped.items()]
    source = run.scan.raw.source
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
        _card("What did the work", f"<p>{escape(_workers(run))}</p>" + _table(work.items(), asked)),
        _card("Versions", _table((k, str(v)) for k, v in dict(run.provenance.get("versions", {})).items())),
    ]
    chosen = _card(
        "Settings", "<p>Those that differ from the default stand out.</p>" + _table(settings.items(), changed)
    )
    provenance = json.dumps(plain_json(dict(run.provenance)), indent=2, ensure_ascii=False)
    return (
        f"<h2>Settings and provenance</h2><div class='grid'>{''.join(cards)}</div>"
        f"<div class='settings-card'>{chosen}</div>"
        f"<details><summary>Provenance as JSON</summary><pre>{escape(provenance)}</pre></details>"
    )


def _style() -> str:
    """The page's style sheet; it lies beside this module and is written into every page."""
    return resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8")


def render_report(run: Run, images: Mapping[str, bytes], view: ObjectView) -> str:
    """Return the whole page.

    Args:
        run: the run.
        images: file name → PNG, as written beside the report.
        view: how the object is shown.
    """
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    source = run.scan.raw.source.path or "arrays in memory"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # tells a browser to hold the page to its promise: nothing is fetched and nothing is run
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>{escape(run.title)}</title><style>{_style()}</style></head><body><main>"
        f'<h1>{escape(run.title)}</h1><p class="soft">{escape(source)} · {made}</p>'
        f"{_verdict(run)}{_headline(run)}{_facts(run)}{_warnings(run)}{_pictures(run, images, view)}"
        f"{orientation_section(run.scan.raw.source.details)}{_details(run)}"
        "<footer>Images, numbers and settings are all inside this file. The same data for programs: reconstruction.h5 "
        "and summary.json in the folder of the run.</footer></main></body></html>\n"
    )
