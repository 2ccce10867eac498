"""``ptycho inspect DATA``: what is in a scan file, what will be assumed, and what looks wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .options import Options, Parser, add_scan_options, make_parser
from .reading_options import read_options
from .session import Session
from .tables import facts, json_text

__all__ = ["build_parser", "execute"]

_SUMMARY = """\
Say what is in a scan file, what will be assumed in reading it, and what looks wrong: counts or amplitude, saturated
or dead pixels, duplicate positions, the overlap, frames that do not fit. Exit code 2 when it cannot be used."""
EXAMPLE = "ptycho inspect scan.npz --measurement amplitude"
_SAID_BELOW = ("findings", "assumptions", "usable")
_MARKS = {"ok": "ok", "note": "note", "warning": "WARNING", "error": "ERROR"}


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = make_parser("inspect", "DATA", _SUMMARY, EXAMPLE)
    parser.add_argument("data", metavar="DATA", help="file with the scan")
    add_scan_options(parser, probe=False)
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    return parser


def _text(value: Any) -> str:
    """A fact in words: numbers to four digits, lists with commas."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value)) or "-"
    return str(value)


def _lines(mapping: Mapping[str, Any]) -> str:
    """One line a fact; what is nested stands indented under its name."""
    flat: dict[str, str] = {}
    for name, value in mapping.items():
        label = name.replace("_", " ")
        if isinstance(value, Mapping):
            flat[label] = ""
            flat |= {f"  {key}": _text(item) for key, item in value.items()}
        else:
            flat[label] = _text(value)
    return facts(flat)


def execute(options: Options, session: Session) -> int:
    """Inspect and print."""
    from ..inspection.examine import inspect_scan

    inspection = inspect_scan(Path(options["data"]), dialect=options["dialect"], options=read_options(options))
    code = 2 if any(finding.level == "error" for finding in inspection.findings) else 0
    mapping = inspection.to_mapping()
    if options["json"]:
        session.say(json_text(mapping))
        return code
    session.say(_lines({name: value for name, value in mapping.items() if name not in _SAID_BELOW}))
    session.say()
    for text in mapping.get("assumptions", ()):
        session.say(f"assumed  {text}")
    width = max(map(len, (*_MARKS.values(), "assumed")))
    for finding in inspection.findings:
        session.say(f"{_MARKS[finding.level].ljust(width)}  {finding.text}")
    session.say(f"\n{'not usable' if code else 'usable'}: {options['data']}")
    return code
