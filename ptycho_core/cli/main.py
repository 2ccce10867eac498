"""The command ``ptycho``: finds the command's module, runs it, and turns what happens into an exit code.

Exit codes: 0 done; 2 wrong input or environment (said in one line); 130 interrupted; 1 a fault of this program.
A command's module is imported only when it is asked for, so that ``ptycho --help`` and ``ptycho backends`` stay quick.
"""

from __future__ import annotations

import importlib
import sys
import time
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import BackendFaultError, BackendProtocolError, Cancelled, ConfigError, PtychoError, suggest
from ..machine_faults import MACHINE_FAULTS, NAMES_AND_PERMISSIONS
from ..stopping import safe_point, stoppable
from .signals import EXIT_INTERRUPTED, Stop
from .terminal import HelpAsked, fill_missing_handles, forgiving_streams, give_up, is_loss, put

if TYPE_CHECKING:
    from .session import Session

__all__ = ["EXIT_FAULT", "EXIT_INPUT", "EXIT_INTERRUPTED", "EXIT_OK", "main"]

EXIT_OK, EXIT_FAULT, EXIT_INPUT = 0, 1, 2

_BEGAN = time.monotonic()
"""When this program began. The process may be older: a shell can replace itself by the command."""

_COMMANDS: dict[str, str] = {
    "demo": "simulate a scan, make its image and compare with the truth",
    "run": "from a scan to an image and a report",
    "train": "train a network on one scan or several and write a model bundle",
    "reconstruct": "reconstruct a scan with a trained model bundle",
    "simulate": "simulate a scan and write it to a file",
    "convert": "write a scan in a format that other programs read",
    "export": "write an image in a format that other programs read",
    "inspect": "say what is in a scan file, what is assumed and what looks wrong",
    "orient": "find which way positions lie against the detector, by trials",
    "compare": "compare two reconstructions, or one with the truth",
    "backends": "list the engines, or say what one of them can do",
    "settings": "print all settings as a file for --config, with their meaning",
    "readers": "list the readers of scan files, in the order they are asked",
    "conform": "test whether an engine keeps the protocol",
    "new-engine": "write a small engine of your own to start from",
}

_MODULES = {"settings": "all_settings", "new-engine": "new_engine"}
"""Command → its module, where that is called differently."""

_LEAVE_NOTHING = {"inspect", "orient", "compare", "backends", "settings", "readers"}
"""Commands that only look: they are ended wherever they are, soon after the first signal."""

_LOST = "standard output cannot be written ({}); files that were written are whole"

_ENVIRONMENT = MACHINE_FAULTS | NAMES_AND_PERMISSIONS
"""An environment at fault, not this program: no room, no handles, a drive that fails, no permission, no such folder."""


def _help() -> str:
    width = max(map(len, _COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in _COMMANDS.items()]
    return "\n".join(
        [
            "usage: ptycho COMMAND [options]",
            "",
            "From a ptychography scan to an image, with any engine.",
            "",
            "commands:",
            *lines,
            "",
            "'ptycho COMMAND --help' explains a command, with an example.",
            "'ptycho --version' tells the version.",
            "",
            "example:",
            "  ptycho demo --out demo",
            "  ptycho run scan.npz --measurement amplitude --out result",
            "",
        ]
    )


def _version() -> str:
    from importlib.metadata import version

    return f"ptycho {version('ptycho-core')} (Python {sys.version.split()[0]})\n"


def _choose(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Split a command line into the command and its own arguments.

    Raises:
        ConfigError: no such command.
    """
    name, rest = arguments[0], list(arguments[1:])
    if name in _COMMANDS:
        return name, rest
    if name.startswith("-"):
        raise ConfigError(f"{name} stands before the command; write 'ptycho COMMAND {name}'. See 'ptycho --help'.")
    raise ConfigError(f"no command '{name}'; there are {', '.join(_COMMANDS)}.{suggest(name, _COMMANDS)}")


def _run(arguments: Sequence[str], session: Session) -> int:
    from ..io.guarded.client import while_waiting
    from .beat import beating
    from .options import parse

    name, rest = _choose(arguments)
    session.command = [name, *rest]
    session.debug = "--debug" in rest
    session.stop.leaves_nothing = name in _LEAVE_NOTHING
    session.check("at the start")
    module = importlib.import_module(f".{_MODULES.get(name, name)}", __package__)
    options = parse(module.build_parser(), rest)
    session.configure(verbose=bool(options.get("verbose")), debug=bool(options.get("debug")))
    session.add_seconds("start_up", session.age())
    session.check("at the start")
    with beating(session.at_work, session.stop), stoppable(session.check), while_waiting(safe_point):
        code: int = module.execute(options, session)
    session.check("when all was done; what this command makes is whole")
    return code


def _failure(error: BaseException, session: Session) -> int:
    """Say what went wrong in one line, and return the exit code."""
    details = "".join(traceback.format_exception(error))
    if isinstance(error, (KeyboardInterrupt, Cancelled)):
        text = str(error) or "interrupted"
        session.error(text, details if session.debug else "")
        return EXIT_INTERRUPTED
    if session.stop.asked:  # what was stopped by it may say so in its own way
        session.error(f"interrupted: {error}" if str(error) else "interrupted", details)
        return EXIT_INTERRUPTED
    if isinstance(error, PtychoError) and not isinstance(error, (BackendFaultError, BackendProtocolError)):
        session.error(str(error), details)
        return EXIT_INPUT
    if isinstance(error, MemoryError):
        session.error(f"not enough memory ({error}); use fewer frames (--n_subsample) or a smaller batch.", details)
        return EXIT_INPUT
    if isinstance(error, OSError) and error.errno in _ENVIRONMENT:
        session.error(str(error), details)
        return EXIT_INPUT
    kept = session.log_path is not None and session.log_path.exists()  # a folder made for nothing is gone again
    sentences = [str(error).rstrip(". ")]
    if not isinstance(error, PtychoError):
        sentences[0] = f"unexpected {type(error).__name__}: {sentences[0]}".rstrip(": ")
    if kept:
        sentences.append(f"The details are in {session.log_path}")
    if not session.debug:
        sentences.append("Run it again with --debug and report what it shows")
    session.error(". ".join(sentences) + ".", details)
    return EXIT_FAULT


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments after the program's name; those of this process when None.

    Returns:
        The exit code: 0 done, 2 wrong input or environment, 130 interrupted, 1 a fault of this program.
    """
    stop = Stop(owns_process=argv is None)
    if stop.owns_process:
        fill_missing_handles()
    with stop.listening(), forgiving_streams():
        return _main(list(sys.argv[1:] if argv is None else argv), stop)


def _print(text: str) -> int:
    error = put(sys.stdout, text)
    if error is None or sys.stdout is None:
        return EXIT_OK
    give_up(sys.stdout)
    if not is_loss(error):
        return EXIT_OK
    put(sys.stderr, f"ptycho: {_LOST.format(error.strerror)}\n")
    return EXIT_INPUT


def _main(arguments: list[str], stop: Stop) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        return _print(_help()) or (EXIT_OK if arguments else EXIT_INPUT)
    if arguments[0] in ("--version", "-V"):
        return _print(_version())
    from .session import Session  # with the signals heard: what it imports takes a while

    session = Session(started=_BEGAN if stop.owns_process else None, stop=stop)
    with session.active():
        try:
            code = _run(arguments, session)
        except HelpAsked as asked:
            session.say(str(asked))
            code = EXIT_OK
        except (KeyboardInterrupt, Exception) as error:
            code = _failure(error, session)
        if session.lost is not None:
            session.error(_LOST.format(session.lost.strerror), "")
            code = code or EXIT_INPUT
        return code


if __name__ == "__main__":
    sys.exit(main())
