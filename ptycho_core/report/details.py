"""How a run was made, for its report: the command, the files, the data, the settings, and where all came from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..config import TrainingConfig
from ..config_mapping import config_to_mapping
from ..data.run import Run
from ..io.reconstruction_file import plain_json
from ..runtime import DEFAULT_RUNTIME, runtime_to_mapping
from ..text import html_text as escape
from ..text import shell_words
from .parts import card, humanised, table, two_columns, words

__all__ = ["details", "total_seconds"]

_FILES = {
    "reconstruction.h5": "object, probe, positions, coverage and figures, for programs; NeXus viewers plot it",
    "summary.json": "figures, verdict and settings, for programs",
    "model.ptycho": "the trained model",
    "settings.yaml": "the settings, which --config takes as they are",
    "object_phase.png": "the phase alone",
    "object_amplitude.png": "the amplitude alone",
}


def total_seconds(run: Run) -> float:
    """Seconds of the whole run, or of all its stages when the whole was not measured."""
    return run.seconds.get("total", sum(run.seconds.values()))


def _command(run: Run) -> str:
    """The command that made the run, as a shell takes it; empty where no command did."""
    given = run.provenance.get("command")
    if not isinstance(given, (list, tuple)) or not given:
        return ""
    line = shell_words(["ptycho", *map(str, given)])
    return card("The command", f'<pre class="command">{words(line)}</pre>')


def _files(names: Sequence[str]) -> str:
    """Links to what lies beside the report."""
    items = "".join(
        f'<li><a href="{name}">{name}</a>: {words(text)}</li>' for name, text in _FILES.items() if name in names
    )
    return card("Beside this report", f'<ul class="notes">{items}</ul>') if items else ""


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


def details(run: Run, files: Sequence[str]) -> str:
    """Everything on how the run was made.

    Args:
        run: the run.
        files: names of what lies beside the report.
    """
    settings = _flat(config_to_mapping(run.config))
    defaults = _flat(config_to_mapping(TrainingConfig(method=run.config.method)))
    changed = frozenset(name for name, value in settings.items() if defaults.get(name) != value)
    work, usual = _flat(runtime_to_mapping(run.runtime)), _flat(runtime_to_mapping(DEFAULT_RUNTIME))
    asked = frozenset(name for name, value in work.items() if usual[name] != value)
    total = total_seconds(run) or 1.0
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
        card(
            "Data",
            f'<div class="narrow">{table(data)}</div>'
            + (f'<p>Assumed in reading:</p><ul class="notes">{assumed}</ul>' if assumed else ""),
        ),
        card("Left out", table(dropped) if dropped else "<p>Nothing was left out.</p>"),
        card("Time by stage", table(seconds) if seconds else "<p>Not measured.</p>"),
        card("What did the work", f"<p>{escape(_workers(run))}</p>" + table(work.items(), marked=asked)),
        card("Versions", table([(k, str(v)) for k, v in dict(run.provenance.get("versions", {})).items()])),
    ]
    chosen = card(
        "Settings",
        "<p>Those that differ from the default stand out.</p>" + two_columns(table(settings.items(), marked=changed)),
    )
    provenance = json.dumps(plain_json(dict(run.provenance)), indent=2, ensure_ascii=False)
    return (
        f"<h2>How it was made</h2>{_command(run)}<div class='cards'>{_files(files)}{''.join(cards)}</div>"
        f"<div class='settings-card'>{chosen}</div>"
        f"<details><summary>Provenance as JSON</summary><pre>{escape(provenance)}</pre></details>"
    )
