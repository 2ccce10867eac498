"""``ptycho inspect DATA``: what is in a scan file, what will be assumed, and what looks wrong."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, OutputError
from ..io.result_folder import default_folder
from ..limits import within
from ..text import one_line
from .option_words import in_option_words
from .options import Options, Parser, add_scan_options, make_parser
from .progress import long_job
from .reading_options import limits_given, read_options
from .session import Session
from .tables import facts, json_text
from .words import reading, say_run

if TYPE_CHECKING:
    from ..data.raw import RawData
    from ..data.run import Run
    from ..inspection.facts import Facts
    from ..report.inspection import LookedAt

__all__ = ["build_parser", "execute"]

_SUMMARY = """\
Say what is in a scan file, what will be assumed in reading it, and what looks wrong: counts or amplitude, saturated
or dead pixels, duplicate positions, the overlap, frames that do not fit. Exit code 2 when it cannot be used.
--try also solves it quickly, or a piece of it, and gives the verdict on the image; exit code 2 when there is none."""
EXAMPLE = "ptycho inspect scan.npz --measurement amplitude"
_SAID_BELOW = {"findings", "assumptions", "usable"}
_FOR_EXPERTS = {"facts", "propagation"}
"""Shown with ``--verbose``: what is to be known of them is among the findings, in words."""
_DEFAULT = ""
"""What --report is without a file."""
_MARKS = {"ok": "ok", "note": "note", "warning": "WARNING", "error": "ERROR"}


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = make_parser("inspect", "DATA", _SUMMARY, EXAMPLE)
    parser.add_argument("data", metavar="DATA", help="file with the scan")
    add_scan_options(parser)
    parser.add_argument("--try", action="store_true", help="solve it quickly and give the verdict; seconds")
    parser.add_argument(
        "--report",
        nargs="?",
        const=_DEFAULT,
        metavar="FILE",
        help="also write a page with pictures of what is in the scan (default: DATA-inspection.html, here)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the page where it is there")
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    parser.add_argument(
        "--suggest_mapping",
        action="store_true",
        help="draft the file for --map, of a file of no known dialect, and end",
    )
    return parser


def _text(value: Any) -> str:
    """A fact in words: numbers to four digits, lists with commas."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items()) or "-"
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
    from ..api.orientation_check import check_orientation
    from ..inspection.examine import inspect_scan

    if options["suggest_mapping"]:
        from ..inspection.suggest_mapping import suggest_mapping

        with session.stage("inspect"), within(limits_given(options)):
            session.say(suggest_mapping(options["data"]).rstrip("\n"))
        return 0
    for name in () if options["try"] else ("probe", "despite_findings"):
        if options[name]:
            raise ConfigError(
                f"--{name} says something to 'ptycho inspect' with --try only; add --try, or leave it out."
            )
    target = _page_of(options)
    seen: list[LookedAt] = []
    with session.stage("inspect"):
        inspection = inspect_scan(
            Path(options["data"]),
            dialect=options["dialect"],
            options=read_options(options),
            further=(check_orientation,),
            seen=None if target is None else lambda raw, facts: seen.append(_looked_at(raw, facts)),
        )
    code = 2 if any(finding.level == "error" for finding in inspection.findings) else 0
    mapping = inspection.to_mapping()
    if target is not None:
        _write_page(target, mapping, seen[0] if seen else None, session, quiet=options["json"])
    if options["json"]:
        if options["try"]:
            with redirect_stdout(sys.stderr):  # what is said on the way is not part of the document
                tried = None if code else _tried(options, session)
            mapping["verdict"] = None if tried is None or tried.verdict is None else tried.verdict.to_mapping()
            code = _code(code, tried)
        session.say(json_text(mapping))
        return code
    left_out = _SAID_BELOW if options["verbose"] else _SAID_BELOW | _FOR_EXPERTS
    session.say(_lines({name: value for name, value in mapping.items() if name not in left_out}))
    session.say()
    for text in mapping.get("assumptions", ()):
        session.say(f"assumed  {text}")
    width = max(map(len, (*_MARKS.values(), "assumed")))
    for finding in inspection.findings:
        session.say(f"{_MARKS[finding.level].ljust(width)}  {in_option_words(finding.text)}")
    session.say(f"\n{'not usable' if code else 'usable'}: {one_line(options['data'])}")
    if not options["try"] or code:
        return code
    session.say()
    tried = _tried(options, session)
    say_run(tried, session)
    return _code(code, tried)


def _page_of(options: Options) -> Path | None:
    """The page to write, or None.

    Raises:
        ConfigError: --overwrite without a page.
        OutputError: it is there and is not to be replaced, or it is the scan.
    """
    if options["report"] is None:
        if options["overwrite"]:
            raise ConfigError("--overwrite says something of --report only; give --report, or leave it out.")
        return None
    target = Path(options["report"] or default_folder(options["data"], "-inspection.html"))
    if target.is_dir():
        raise OutputError(f"{target}: is a folder; name the page to write with --report FILE.")
    if target.exists() and Path(options["data"]).exists() and target.samefile(options["data"]):
        raise OutputError(f"{target}: is the scan itself; name another file with --report FILE.")
    if target.exists() and not options["overwrite"]:
        raise OutputError(f"{target}: is there already; pass --overwrite to replace it, or --report FILE.")
    return target


def _looked_at(raw: RawData, facts: Facts) -> LookedAt:
    from ..report.inspection import LookedAt

    return LookedAt(raw=raw, mean=facts.mean, stuck=facts.stuck, at_peak=facts.at_peak, figures=facts.figures)


def _write_page(
    target: Path, mapping: Mapping[str, Any], seen: LookedAt | None, session: Session, *, quiet: bool
) -> None:
    from ..io.atomic import write_bytes
    from ..report.inspection import inspection_page

    page = inspection_page(mapping, seen, session.command)
    write_bytes(target, page.encode("utf-8", errors="backslashreplace"))
    if not quiet:
        session.say(f"page      {one_line(str(target))}")


def _tried(options: Options, session: Session) -> Run:
    """The scan, solved quickly."""
    from ..api.try_out import try_out

    raw = reading(options, session)()
    with long_job(session) as progress:
        return try_out(raw, despite_findings=options["despite_findings"], progress=progress, observer=session)


def _code(code: int, tried: Run | None) -> int:
    """The exit code, 2 also where there is no image."""
    return 2 if tried is not None and tried.verdict is not None and not tried.verdict.is_image else code
