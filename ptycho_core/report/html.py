"""The report of a run: the verdict, the image before and after refining, and what tells whether it can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..data.run import Run, heldout_chose
from ..text import counted
from ..text import html_text as escape
from .curves import epochs_told
from .details import details, total_seconds
from .extras import extra_facts, extra_pictures
from .figures import LIMITS, MAX_SHOWN_MODES, ObjectView
from .orientation import orientation_section
from .page import page, written_now
from .parts import captioned, duration, humanised, length, switch, words
from .probe_pictures import probe_words
from .resolution import resolution_section
from .stages import stages_table

if TYPE_CHECKING:
    from ..physics.merit import Figures

__all__ = ["humanised", "render_report"]


def _verdict(run: Run) -> str:
    """The verdict on top of the page, with what speaks for it and what to do."""
    if run.verdict is None:
        return ""
    verdict = run.verdict
    reasons = "".join(f"<li>{words(reason.text)}</li>" for reason in verdict.reasons)
    advice = "".join(f"<li>{words(text)}</li>" for text in verdict.advice)
    lists = (f"<ul>{reasons}</ul>" if reasons else "") + (f"<p>What to do:</p><ul>{advice}</ul>" if advice else "")
    more = f"<details><summary>Reasons and advice</summary>{lists}</details>" if lists else ""
    sentence = verdict.sentence[0].upper() + verdict.sentence[1:]
    kind = verdict.kind.replace("_", "-")
    return f'<section class="verdict {kind}"><strong>{words(sentence)}.</strong>{more}</section>'


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
        f"<p>1 is all that noise allows, for {counted(figures.n_frames, 'frame')}. {escape(text)}</p>{lines}</section>"
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
        ("Object pixel", "size not known" if pixel is None else length(pixel)),
        ("Probe modes", str(len(image.probe))),
        *extra_facts(image),
        ("Time", duration(total_seconds(run)) if run.seconds else "not measured"),
        ("Peak memory", f"{run.peak_memory_bytes / 1e9:.2f} GB" if run.peak_memory_bytes else "not measured"),
    ]
    cells = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts)
    return f'<dl class="facts">{cells}</dl>'


def _warnings(run: Run) -> str:
    if not run.warnings:
        return ""
    items = "".join(f"<li>{words(w)}</li>" for w in run.warnings)
    n = len(run.warnings)
    return f'<aside class="warnings"><strong>{n} warning{"s" if n > 1 else ""}</strong><ul>{items}</ul></aside>'


def _object_captions(view: ObjectView, *, common: bool) -> tuple[str, str]:
    """Captions of phase and amplitude: what is shown, and what was done to it."""
    low, high = LIMITS
    shown = f"Cropped to the region lit at least {view.coverage_threshold:.2g} times; pixels lit less are blank. " + (
        f"Each pixel shown is the mean of {view.step_px}×{view.step_px} object pixels. " if view.step_px > 1 else ""
    )
    ends = f"The grey scale ends at the {low:g} and {high:g} percentiles of that region"
    limits = ends + (", before and after refining together." if common else ".")
    around = "It goes around the circle and cannot be unwrapped, so it is shown on a cyclic colour scale."
    unwrapped = "It was unwrapped: whole turns were added where it jumps by one. "
    removed = (
        f"Taken off: {view.taken_off.describe()}, as in the plots of reconstruction.h5; its object is as the engine "
        "left it. "
    )
    phase = removed + (unwrapped if view.phase_unwrapped else "") + (around if view.phase_wraps else limits)
    return phase, shown + limits


def _pair(images: Mapping[str, bytes], names: tuple[str, str], when: str, captions: tuple[str, str]) -> str:
    """Phase and amplitude beside each other."""
    phase, amplitude = names
    return (
        '<div class="grid">'
        + captioned(images, phase, f"Phase of the object{when}", captions[0], "large")
        + captioned(images, amplitude, f"Amplitude of the object{when}", captions[1], "large")
        + "</div>"
    )


def _object(run: Run, images: Mapping[str, bytes], views: Sequence[ObjectView]) -> str:
    """The image; where it was refined, with the one before in its place at a click."""
    result = ("object_phase.png", "object_amplitude.png")
    if len(views) < 2:
        return "<h2>Object</h2>" + _pair(images, result, "", _object_captions(views[-1], common=False))
    before, after = (_object_captions(view, common=True) for view in views)
    first = ("stage_phase.png", "stage_amplitude.png")
    sides = (
        ("After refining", _pair(images, result, " after refining", after)),
        (f"Before ({run.stages[0].name})", _pair(images, first, " before refining", before)),
    )
    return "<h2>Object, after and before refining on one scale</h2>" + switch("stage", sides)


def _probe(run: Run, images: Mapping[str, bytes]) -> str:
    """The probe, along the beam, and how it was found where it was."""
    P = len(run.image.probe)
    hidden = f" The {MAX_SHOWN_MODES} strongest of {P} modes are shown." if P > MAX_SHOWN_MODES else ""
    text = (
        "Hue is the phase, brightness the amplitude, each mode scaled to its own peak, with its part of the power. "
        "Modes add incoherently." + hidden
    )
    parts = [captioned(images, "probe.png", "Probe modes in complex colours", text)]
    if "probe_focus.png" in images:
        text = (
            "The strongest mode along the beam, propagated from the sample: upstream is on the left, and the root of "
            "the amplitude is shown. Dashed: the sample (white) and the focus (blue), where it is brightest."
        )
        parts.append(captioned(images, "probe_focus.png", "The probe through its focus, and its power by mode", text))
    if "probe_trials.png" in images:
        text = (
            "How the probe was found: what each trial explains of held-out frames beyond the bare beam. A wrong probe "
            "explains nothing."
        )
        parts.append(captioned(images, "probe_trials.png", "Trials of probes", text))
    return f"<h2>Probe</h2><div class='grid'>{''.join(parts)}</div>{probe_words(run.probe_guess)}"


def _frames(run: Run, images: Mapping[str, bytes]) -> str:
    """Whether the model explains the data: patterns, and maps over the scan."""
    parts = [
        captioned(
            images,
            "patterns.png",
            "Measured and predicted patterns of the best, median and worst frame",
            "The frames with the lowest, the median and the highest R-factor. Counts share one logarithmic colour "
            "scale. In the difference of amplitudes, shot noise has the same spread, about ±0.5, wherever there are "
            "more than a few counts.",
        ),
        captioned(
            images,
            "r_map.png",
            "Map of the R-factor over the scan",
            "Each dot is a frame at its centre, as used. Colours end at the 1 and 99 percentiles.",
        ),
        captioned(
            images,
            "coverage.png",
            "Coverage of the object and frame centres",
            "How often each object pixel was lit, in units of the probe's peak intensity. Dashed: the region of the "
            "object that is shown.",
        ),
    ]
    if "moves.png" in images:
        far = "" if run.refined is None or run.refined.positions is None else f" {_moved(run)}"
        text = f"From where each frame was read to where it was refined to; the arrows are enlarged alike.{far}"
        parts.append(captioned(images, "moves.png", "Corrections of the positions as arrows", text))
    return f"<h2>Does the model explain the data?</h2><div class='grid'>{''.join(parts)}</div>"


def _moved(run: Run) -> str:
    """How far positions moved, with lengths where the object pixel is known."""
    assert run.refined is not None
    positions, pixel = run.refined.positions, run.scan.raw.geometry.pixel_size_m
    assert positions is not None
    text = positions.describe()
    if pixel is not None:
        text = f"{length(positions.rms_px * pixel)} rms, {length(positions.largest_px * pixel)} at most: {text}"
    return f"{text[:1].upper()}{text[1:]}."


def _epochs(run: Run, images: Mapping[str, bytes]) -> str:
    """How well the frames were explained epoch by epoch."""
    parts, told = [], [("losses.png", f"Epochs of the {run.stages[0].name}", run.history)]
    if "refinement.png" in images and run.refined is not None:
        told.append(("refinement.png", "Epochs of refining", run.refined.history))
    for name, what, history in told:
        caption = _epochs_caption(epochs_told(history), refining=name == "refinement.png")
        parts.append(captioned(images, name, what, caption))
    return f"<h2>Epoch by epoch</h2><div class='grid'>{''.join(parts)}</div>"


def _epochs_caption(measure: str, *, refining: bool) -> str:
    trials = (
        " Trials of more modes and of positions begin from one state, which shows as steps back." if refining else ""
    )
    if measure == "deviance":
        return (
            "Reduced deviance: 1 is all that noise allows. Training frames are judged during an epoch, held-out ones "
            f"after it.{trials}"
        )
    if measure == "fourier_error":
        return (
            "Fourier error Σ(√λ − √k)² / Σk. Training frames are judged during an epoch, held-out ones after "
            f"it.{trials}"
        )
    return "Loss of the frames trained on and of the held-out frames, as the engine tells it: only its fall counts."


def render_report(
    run: Run, images: Mapping[str, bytes], views: Sequence[ObjectView] | ObjectView, files: Sequence[str] = ()
) -> str:
    """Return the whole page.

    Args:
        run: the run.
        images: file name → PNG, as written beside the report.
        views: how the object is shown: that of the result last, and that before refining first where there is one.
        files: names of the files that lie beside the report.
    """
    shown = [views] if isinstance(views, ObjectView) else list(views)
    source = run.scan.raw.source.path or "arrays in memory"
    table = stages_table(run.stages, run.refined)
    heading = f"From {run.stages[0].name} to refined" if len(run.stages) > 1 else "Refining"
    more = "".join(captioned(images, name, alt, caption) for name, alt, caption in extra_pictures(run.image))
    content = (
        f"{_verdict(run)}{_warnings(run)}{_headline(run)}{_object(run, images, shown)}{_facts(run)}"
        + (f"<h2>{escape(heading)}</h2>{table}" if table else "")
        + resolution_section(run, images)
        + _probe(run, images)
        + (f"<h2>Slices and weights</h2><div class='grid'>{more}</div>" if more else "")
        + _frames(run, images)
        + _epochs(run, images)
        + orientation_section(run.scan.raw.source.details)
        + details(run, files)
    )
    footer = (
        "Images, numbers and settings are all inside this file. Where its script may run, a picture tells values under "
        "the pointer, and the arrows in its corner enlarge it. The same data for programs: reconstruction.h5 and "
        "summary.json in the folder of the run."
    )
    return page(run.title, f"{source} · {written_now()}", content, footer)
