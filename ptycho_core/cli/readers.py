"""``ptycho readers``: which dialects of scan files can be read, by which distribution, and in which order."""

from __future__ import annotations

import dataclasses

from .backends import say_faults
from .options import Options, Parser, make_parser
from .session import Session
from .tables import json_text, table

__all__ = ["build_parser", "execute"]

_SUMMARY = "List the readers of scan files in the order in which they are asked, and what is wrong with any of them."
EXAMPLE = "ptycho readers"


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = make_parser("readers", "", _SUMMARY, EXAMPLE)
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    return parser


def execute(options: Options, session: Session) -> int:
    """List the readers."""
    from ..plugins.readers import available_readers

    readers = available_readers()
    if options["json"]:
        session.say(json_text({"readers": [dataclasses.asdict(reader) for reader in readers]}))
        return 0
    rows = [("reader", "files", "container", "state", "from")]
    rows += [(r.name, r.title or "-", r.kind or "-", r.state, r.distribution) for r in readers]
    session.say(table(rows))
    say_faults(readers, session)
    return 0
