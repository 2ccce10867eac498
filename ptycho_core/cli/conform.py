"""``ptycho conform ENGINE``: hold an engine to the protocol with the suite that everyone's engine is held to."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ..errors import BackendConflictError, BackendError, BackendUnavailableError, UnknownBackendError
from .options import Options, Parser, make_parser
from .session import Session
from .settings import add_config_options, given_settings
from .tables import json_text, table

if TYPE_CHECKING:
    from ..testing.runner import Outcome, Sheet

__all__ = ["build_parser", "execute"]

_SUMMARY = """\
Test whether an engine keeps the protocol: its names and signatures, its physics, training, bundles and isolation.

It prints what passed, what failed and why, and what the engine does not offer. The exit code is 2 when anything failed.
The trainings are tiny; an engine that needs more is given settings here."""
EXAMPLE = "ptycho conform pytorch --only signatures"
_OMIT = {
    "backend": "the engine is the argument of the command",
    "output_dir": "the suite works in folders of its own",
    "resume_from": "the suite resumes what it stopped itself",
}

_NOT_ITS_FAULT = (UnknownBackendError, BackendUnavailableError, BackendConflictError)
"""Why there is no engine to ask: none of that name, or one that lacks a package, or two."""


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = make_parser("conform", "ENGINE", _SUMMARY, EXAMPLE)
    parser.add_argument("engine", metavar="ENGINE", help="name of an installed engine")
    parser.add_argument("--only", metavar="WORDS", help="run only the tests with this in their name")
    parser.add_argument("--side", type=int, default=32, help="side N of all frames, pixels (default: 32)")
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    add_config_options(parser, omit=_OMIT, presets=False)
    return parser


def _row(outcome: Outcome) -> tuple[str, str, str]:
    state = outcome.state.upper() if outcome.state == "failed" else outcome.state
    return state, outcome.test.removeprefix("test_").replace("_", " "), outcome.reason


def _say_sheet(sheet: Sheet, session: Session) -> None:
    """Say everything that was asked, in its order, and the sum of it."""
    from ..plugins.registry import backend_distribution

    session.say(f"engine {sheet.engine} ({backend_distribution(sheet.engine)})\n")
    session.say(table([("result", "what was asked", "reason"), *map(_row, sheet.outcomes)]))
    for outcome in sheet.of("failed") if session.verbose else ():
        session.say(f"\n{outcome.test}: {outcome.asks}\n{outcome.details}")
    passed, failed, left = (len(sheet.of(state)) for state in ("passed", "failed", "not offered"))
    seconds = sum(outcome.seconds for outcome in sheet.outcomes)
    session.say(f"\n{passed} passed, {failed} failed, {left} not offered, in {seconds:.0f} s")
    verdict = "keeps the protocol" if sheet.conforms else "does not keep the protocol"
    session.say(f"engine {sheet.engine} {verdict}, as far as it was asked")


def execute(options: Options, session: Session) -> int:
    """Run the suite and print the sheet."""
    from ..plugins.registry import load_backend
    from ..testing import run_conformance

    name = options["engine"]
    settings = given_settings(options, omit=_OMIT)
    try:
        with session.stage("start_up"), session.quiet_start(name):
            load_backend(name)
    except _NOT_ITS_FAULT:
        raise
    except BackendError as error:  # the fault of the engine, which is what was asked
        if options["json"]:
            session.say(json_text({"engine": name, "conforms": False, "error": str(error)}))
        else:
            session.say(f"engine {name} cannot be loaded: {error}")
        return 2
    with session.stage("conform"):
        sheet = run_conformance(name, settings=settings, side=options["side"], only=options["only"])
    if options["json"]:
        tests = [dataclasses.asdict(outcome) for outcome in sheet.outcomes]
        session.say(json_text({"engine": name, "conforms": sheet.conforms, "tests": tests}))
    else:
        _say_sheet(sheet, session)
    return 0 if sheet.conforms else 2
