"""``ptycho export RESULT``: an image in a format that other programs read."""

from __future__ import annotations

import os
from pathlib import Path

from ..data.raw import Geometry
from ..errors import OutputError
from ..io.export import EXPORTS, choose_export
from ..io.npz import GEOMETRY_KEYS
from ..io.result_folder import default_folder
from ..limits import within
from .options import Options, Parser, make_parser
from .reading_options import COST, READING, limits_given, read_options
from .session import Session

__all__ = ["build_parser", "execute"]

_FORMATS = "\n".join(f"  {export.name:<19}{', '.join(export.suffixes):<12}{export.title}" for export in EXPORTS)
_SUMMARY = f"""\
Write the image of a result in a format that other programs read. What the format cannot hold is said, one line for each
thing.

  --format           suffix      what it is
{_FORMATS}

--format, or the suffix of --out, chooses."""
EXAMPLE = "ptycho export result --format tiff"


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = make_parser("export", "RESULT", _SUMMARY, EXAMPLE)
    parser.add_argument("result", metavar="RESULT", help="result folder, or its reconstruction.h5")
    parser.add_argument("--format", choices=[export.name for export in EXPORTS], help="format to write")
    parser.add_argument("--out", metavar="FILE", help="file to write (default: RESULT with the suffix of the format)")
    parser.add_argument("--overwrite", action="store_true", help="replace the file where it is there")
    instrument = {name: how for name, how in READING["instrument"].items() if name[2:] in GEOMETRY_KEYS}
    parser.add_group("the instrument, where the result does not say", instrument)
    parser.add_group(COST, READING[COST])
    return parser


def _target(options: Options, suffix: str) -> Path:
    """The file to write.

    Raises:
        OutputError: it is there and is not to be replaced.
    """
    result = Path(options["result"])
    folder = result if result.is_dir() else Path(os.path.realpath(result)).parent
    target = Path(options["out"]) if options["out"] else Path(default_folder(folder, suffix))
    if target.is_dir():
        raise OutputError(f"{target}: is a folder; name the file to write with --out.")
    if os.path.lexists(target) and not options["overwrite"]:
        raise OutputError(f"{target}: is there already; pass --overwrite to replace it, or another name with --out.")
    return target


def execute(options: Options, session: Session) -> int:
    """Read the image and write it."""
    from ..io.export import export_reconstruction, read_result

    export = choose_export(options["out"], options["format"])
    said = read_options({key: options[key] for key in GEOMETRY_KEYS})
    with session.stage("export"):
        with within(limits_given(options)):
            given = Geometry(**{key: getattr(said, key) for key in GEOMETRY_KEYS})
            stored = read_result(Path(options["result"]), given)
        target = _target(options, export.suffixes[0])
        for text in export_reconstruction(target, stored, format=export.name):
            session.say(f"note      {text}")
    height, width = stored.object.shape
    session.say(f"written   {target} ({export.title}), an object of {height}×{width} pixels")
    return 0
