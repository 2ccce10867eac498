"""``ptycho backends``: which engines are installed, which are not and why; and what one of them can do.

No engine is imported for it, but one whose plugin does not say what it can do, and that is asked about by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .fields import Field, fields_of
from .help import terminal_width, two_columns, wrapped
from .options import Options, Parser, make_parser
from .session import Session
from .tables import json_text, table
from .values import default_text, type_text

if TYPE_CHECKING:
    from ..plugins.discovery import PluginStatus
    from ..protocol import BackendSpec, Capabilities

__all__ = ["build_parser", "execute", "say_faults"]

_SUMMARY = """\
List the engines: which are installed, which are missing and why, and what to install. With NAME: what that engine can
do, and its own options with type, default and meaning."""
EXAMPLE = "ptycho backends"


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = make_parser("backends", "[NAME]", _SUMMARY, EXAMPLE)
    parser.add_argument("name", nargs="?", metavar="NAME", help="engine to tell more of")
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    return parser


def execute(options: Options, session: Session) -> int:
    """List the engines, or tell of one."""
    from ..plugins.registry import INSTALL_ONE, available_backends

    engines = available_backends()
    if options["name"] is not None:
        return _tell(options["name"], {e.name: e for e in engines}, options, session)
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
    ready = next((e.name for e in engines if e.state == "ready"), engines[0].name)
    session.say(f"\n'ptycho backends {ready}' tells what an engine can do, and its own options.")
    return 0


def say_faults(plugins: Sequence[PluginStatus], session: Session) -> None:
    """Say of each plugin that is not ready why, and what to install."""
    for plugin in plugins:
        if plugin.state != "ready":
            session.say(f"\n{plugin.name} is {plugin.state}: {plugin.detail}")
            if plugin.install:
                session.say(f"  {plugin.install}")


def _tell(name: str, engines: dict[str, PluginStatus], options: Options, session: Session) -> int:
    """Tell of one engine; a broken one has its cause as the error."""
    from ..plugins.registry import backend_spec, options_class

    spec = backend_spec(name)
    status = engines[name]
    can = spec.capabilities
    if can is None and status.state == "ready":
        can = _asked(name, session)
    kind = options_class(name)
    own = [] if kind is None else list(fields_of(kind))
    if options["json"]:
        session.say(json_text(_mapping(status, can, own)))
        return 0
    width = terminal_width()
    session.say(f"{name} ({spec.title or name}), from {status.distribution}: {status.state}")
    if status.state != "ready":
        session.say(f"{status.detail}; install it with: {status.install}")
    if can is None:
        session.say("\nIts plugin does not say what it can do; install it, and ask again.")
    else:
        session.say("\nwhat it can do:")
        for label, text in _abilities(can, spec):
            session.say("\n".join(two_columns(label, text, width)))
    if not own:
        session.say("\nIt has no options of its own.")
        return 0
    session.say("\nits own options; null leaves a value to the engine:")
    for field in own:
        text = f"{field.text} ({type_text(field.hint)}; default: {default_text(field.default)})"
        session.say("\n".join(two_columns(f"--options.{name}.{field.name}", text, width)))
    session.say()
    session.say("\n".join(wrapped(f"'ptycho settings --backend {name}' prints them as a file for --config.", width)))
    return 0


def _asked(name: str, session: Session) -> Capabilities:
    """What an engine says that it can do; it is imported for it."""
    from ..plugins.registry import load_backend

    with session.quiet_start(name):
        return load_backend(name).capabilities


def _mapping(status: PluginStatus, can: Capabilities | None, own: Sequence[Field]) -> dict[str, Any]:
    """What ``--json`` prints."""
    return {
        **dataclasses.asdict(status),
        "capabilities": None if can is None else dataclasses.asdict(can),
        "options": {
            field.name: {"type": type_text(field.hint), "default": field.default, "meaning": field.text}
            for field in own
        },
    }


def _abilities(can: Capabilities, spec: BackendSpec) -> Iterator[tuple[str, str]]:
    """What an engine can do: heading and words."""

    def listed(words: Sequence[str], none: str = "none") -> str:
        return ", ".join(words).replace("_field", " field") or none

    def offered(flag: bool, what: str, missing: str) -> str:
        return what if flag else missing

    yield "methods", listed(can.methods)
    yield "networks", listed(can.generators)
    yield "losses", listed(can.losses)
    yield "propagation", listed(can.propagations)
    least, most, multiple = can.sides
    yield "frames", f"{least} to {most} pixels wide, a multiple of {multiple}"
    yield "scans in a training", "any number" if can.max_scans is None else str(can.max_scans)
    yield "probe modes", "any number" if can.max_modes is None else f"at most {can.max_modes}"
    yield "probe", offered(can.probe_trainable, "is refined while solving or training", "is kept as it is given")
    yield "bad pixels", offered(can.mask, "are left out", "are refused")
    yield "background", offered(can.background, "is in the model", "is refused")
    yield "refines an image", offered(can.refine or can.stepping, "yes", "no")
    extras = {
        "positions": can.refine_positions,
        "their stretch, rotation and shear": can.position_affine,
        "a support and the power of the probe": can.probe_constraints,
        "an intensity for each frame": can.frame_scale,
    }
    if can.refine or can.stepping:
        yield "refines also", listed([name for name, there in extras.items() if there], "nothing else")
    yield "preview", offered(can.preview, "the image is shown while it works (--preview)", "no")
    yield "resumes", offered(can.resume, "yes", "no")
    yield "devices", listed(can.accelerators)
    yield "precision", listed(can.precisions)
    yield "threads", offered(can.threads, "as many as --threads says, else measured", "its libraries choose them")
    if can.loggers:
        yield "trackers", listed(can.loggers)
    without = [name.removeprefix("runtime.") for name in can.ignored_fields if name != "seed"]
    if without:
        yield "without effect", ", ".join(without)
    yield "needs", listed(spec.requires, "nothing more")
