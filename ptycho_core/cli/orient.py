"""``ptycho orient DATA``: which way positions lie against the detector, and where the beam is, with figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..config_checks import check_range
from ..errors import ConfigError
from .options import Options, Parser, add_scan_options, make_parser
from .progress import long_job
from .session import Session
from .tables import json_text, table
from .words import reading

if TYPE_CHECKING:
    from ..api.centre import CentreFinding
    from ..data.orientation_finding import OrientationFinding
    from ..data.raw import RawData
    from ..data.trials import Trial
    from ..protocol import Progress

__all__ = ["build_parser", "execute"]

_SUMMARY = """\
Find how the axes of the positions lie on the detector. The eight orders and signs are tried by sweeps of a solver,
and ranked by validation frames. The command names the option to give, or says why the scan cannot tell.

With a probe the centre of the beam is found in the same way. A flip of the frames is the same as one of the eight, with
a mirrored object. Nothing is written."""
EXAMPLE = "ptycho orient scan.npz --measurement amplitude"


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = make_parser("orient", "DATA", _SUMMARY, EXAMPLE)
    parser.add_argument("data", metavar="DATA", help="file with the scan")
    parser.add_group(
        "trials",
        {
            "--sweeps": {"metavar": "N", "help": "sweeps of each trial (default: 6)"},
            "--engine": {"metavar": "NAME", "default": "numpy", "help": "engine that makes them (default: numpy)"},
        },
    )
    add_scan_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    return parser


def _sweeps(options: Options) -> int:
    from ..api.orient import SWEEPS

    text = options["sweeps"]
    if text is None:
        return SWEEPS
    if not text.isdigit():
        raise ConfigError(f"--sweeps = {text}; it must be a whole number ≥ 1.")
    check_range("orient", "sweeps", int(text), 1, 1000)
    return int(text)


def execute(options: Options, session: Session) -> int:
    """Try, and print."""
    from ..api.orient import find_orientation
    from ..data.orientation import oriented

    sweeps = _sweeps(options)
    if options["orientation"] == "auto":
        raise ConfigError("--orientation auto is what this command finds; leave it out.")
    read = reading(options, session, say=not options["json"])
    with session.stage("read"):
        raw = read()
    _look_at(raw, options, session)
    with session.stage("orient"), long_job(session) as progress:
        found = find_orientation(raw, sweeps=sweeps, engine=options["engine"], progress=progress)
        centre = _centre(oriented(raw, found.orientation), sweeps, options["engine"], progress)
    if options["json"]:
        session.say(json_text(_mapping(found, centre, raw)))
        return 0
    _say(found, raw, session)
    if centre is not None:
        session.say(f"\ncentre       {centre.describe()}")
        if advice := _centre_option(centre, raw):
            session.say(f"give         {advice}")
    return 0


def _look_at(raw: RawData, options: Options, session: Session) -> None:
    """Refuse what makes trials worthless, and warn of what the reader warns of."""
    from ..inspection.examine import examine, refuse_grave

    refuse_grave(examine(raw), raw, despite=options["despite_findings"])
    for text in raw.source.warnings:
        session.notice(text)


def _centre(raw: RawData, sweeps: int, engine: str, progress: Progress) -> CentreFinding | None:
    """Where the beam's centre is, of a far-field scan."""
    from ..api.centre import find_centre

    return None if raw.propagation.is_near else find_centre(raw, sweeps=sweeps, engine=engine, progress=progress)


def _centre_option(centre: CentreFinding, raw: RawData) -> str:
    """The option to give where the centre is elsewhere, in pixels of the detector as stored; else empty."""
    y, x = centre.centre_px
    if not centre.trials or not centre.certain or (y, x) == (raw.side // 2, raw.side // 2):
        return ""
    given = raw.source.details.get("read_with", {})
    if {"crop", "pad", "bin", "centre"} & set(given):
        return f"--centre moved by ({y - raw.side // 2:+.0f}, {x - raw.side // 2:+.0f}) pixels of the frames as read"
    return f"--centre {y:.0f},{x:.0f}"


def _mapping(found: OrientationFinding, centre: CentreFinding | None, raw: RawData) -> dict[str, Any]:
    """What ``--json`` prints."""
    return {
        "data": raw.source.path,
        **found.to_mapping(),
        "summary": found.describe(raw.source.details.get("read_with")),
        "give": found.option(raw.source.details.get("read_with")),
        "centre": None if centre is None else centre.to_mapping(),
    }


def _row(trial: Trial, found: OrientationFinding) -> list[str]:
    word = str(trial.tried["orientation"])
    said = "" if word not in found.alike else "best" if len(found.alike) == 1 else "not told apart"
    figures = (trial.heldout_deviance, trial.train_deviance)
    return [word, *(f"{v:.4g}" for v in figures), f"{trial.fourier_error:.4f}", f"{trial.seconds:.2f}", said]


def _say(found: OrientationFinding, raw: RawData, session: Session) -> None:
    """The table, the winner, what cannot be told, and the option to give."""
    if found.trials:
        heading = ["orientation", "held-out deviance", "deviance", "Fourier error", "seconds", ""]
        session.say("\n" + table([heading, *(_row(trial, found) for trial in found.trials)]) + "\n")
        session.say(
            f"tried on     {found.n_frames} frames, {found.n_heldout} of them held out; the best is better than the "
            f"next by {found.gained:.3g} a frame, and {found.needed:.3g} are needed to tell"
        )
    given = raw.source.details.get("read_with")
    session.say(f"found        {found.describe(given)}")
    for reason in found.reasons if found.how == "trials" else ():
        session.say(f"because      {reason}")
    session.say(f"give         {found.option(given) or 'nothing: positions stay as they were read'}")
