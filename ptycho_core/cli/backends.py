"""``ptycho backends``: which engines are installed, which are not and why; no engine is imported."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .options import Options, Parser, make_parser
from .session import Session
from .tables import json_text, table

if TYPE_CHECKING:
    from ..plugins.discovery import PluginStatus

__all__ = ["build_parser", "execute", "say_faults"]

_SUMMARY = """\
List the engines: which are installed, which are missing and why, and what to install. With NAME: what that engine can
do, and its own options with type, default and meaning."""
EXAMPLE = "ptycho backends"


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = make_parser("backends", "", _SUMMARY, EXAMPLE)
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    return parser


def execute(options: Options, session: Session) -> int:
    """List the engines."""
    from ..plugins.registry import INSTALL_ONE, available_backends

    engines = available_backends()
    if options["json"]:
        session.say(json_text({"backends": [dataclasses.asdict(engine) for engine in engines]}))
        return 0
    if not engines:
        session.say(f"no engine is installed; {INSTALL_ONE}")
        return 0
    rows = [("engine", "title", "state", "from")]
    rows += [(e.name, e.title or "-", e.state, e.distribution or "-") for e in engines]
    session.say(table(rows))
    say_faults(engines, session)
    return 0


def say_faults(plugins: Sequence[PluginStatus], session: Session) -> None:
    """Say of each plugin that is not ready why, and what to install."""
    for plugin in plugins:
        if plugin.state != "ready":
            session.say(f"\n{plugin.name} is {plugin.state}: {plugin.detail}")
            if plugin.install:
                session.say(f"  {plugin.install}")
