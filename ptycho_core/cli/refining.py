"""``--refine``: in one word what ``--refinement.engine`` and ``--refinement.epochs`` say."""

from __future__ import annotations

from ..errors import ConfigError
from .options import Options, Parser, merged

__all__ = ["add_refine_option", "with_refine_option"]


def add_refine_option(parser: Parser, *, default: str = "auto") -> None:
    """Add ``--refine``; `default` is what is done without it."""
    parser.add_argument(
        "--refine",
        metavar="none|ENGINE[:EPOCHS]",
        help="engine that refines the image, and its epochs at most; auto takes the engine that made it, none leaves "
        "the image as it is; short for --refinement.engine and --refinement.epochs "
        f"(default: {default})",
    )


def with_refine_option(options: Options) -> Options:
    """The options with ``--refine`` in its long form, unless that is given as well.

    Raises:
        ConfigError: EPOCHS is no whole number from 1.
    """
    given = options["refine"]
    if given is None:
        return options
    engine, colon, epochs = given.partition(":")
    if not engine or (colon and not (epochs.isdecimal() and len(epochs) < 19 and int(epochs) >= 1)):
        raise ConfigError(f"--refine = {given!r}; it must be none, auto or ENGINE, or ENGINE:EPOCHS such as numpy:40.")
    long = {"engine": engine} | ({"epochs": int(epochs)} if colon else {})
    return {**options, "settings": merged({"refinement": long}, options["settings"])}
