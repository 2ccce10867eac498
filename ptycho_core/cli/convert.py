"""``ptycho convert IN OUT``: a scan that can be read, in a format that other programs read."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import OutputError
from ..io.write import WRITERS, choose_writer
from .options import Options, Parser, add_scan_options, make_parser
from .progress import long_job
from .session import Session
from .words import files_given, reading

__all__ = ["build_parser", "execute"]

_FORMATS = "\n".join(f"  {writer.name:<19}{', '.join(writer.by_suffix) or '-':<12}{writer.title}" for writer in WRITERS)
_SUMMARY = f"""\
Write a scan in another format. All options of reading apply: crop, mask, units, orientation.

Frames are read and written a few at a time, and the file appears when it is whole. What the format cannot hold is said,
one line for each thing. Where nothing is said, the file reads back as the scan was.

  --format           suffix      what it is
{_FORMATS}

The suffix of OUT chooses the format; --format names it where the suffix says too little."""
EXAMPLE = "ptycho convert scan.npz scan.h5 --measurement amplitude"


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = make_parser("convert", "IN OUT", _SUMMARY, EXAMPLE)
    parser.add_argument("data", metavar="IN", help="file or folder with the scan")
    parser.add_argument("out", metavar="OUT", help="file to write")
    parser.add_argument(
        "--format", choices=[writer.name for writer in WRITERS], help="format to write (default: by the suffix of OUT)"
    )
    parser.add_argument("--compress", action="store_true", help="compress the frames")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT where it is there")
    add_scan_options(parser)
    return parser


def refuse_target(target: Path, options: Options) -> None:
    """Refuse a file to write that is one that is read, or is there and not to be replaced.

    Raises:
        OutputError: it is.
    """
    for source in files_given(options):
        if target.exists() and source.exists() and target.samefile(source):
            raise OutputError(f"{target}: is a file that this command reads; choose another name to write.")
    if target.is_dir():
        raise OutputError(f"{target}: is a folder; name the file to write.")
    if os.path.lexists(target) and not options["overwrite"]:
        raise OutputError(f"{target}: is there already; pass --overwrite to replace it, or choose another name.")


def execute(options: Options, session: Session) -> int:
    """Read and write."""
    from ..api.accept import look_at
    from ..io.write import write_scan

    target = Path(options["out"])
    writer = choose_writer(target, options["format"])
    refuse_target(target, options)
    read = reading(options, session)
    with session.stage("read"):
        raw = read()
    look_at(raw, session, despite_findings=options["despite_findings"])
    with session.stage("write"), long_job(session) as progress:
        lost = write_scan(target, raw, format=writer.name, compress=options["compress"], progress=progress)
    for text in lost:
        session.say(f"note      {text}")
    session.say(f"written   {target} ({writer.title}), {raw.n_frames} frames of {raw.side}×{raw.side}")
    return 0
