"""``ptycho compare A B C …``: score images against one another, or against a truth, in a table and on a page."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError, OutputError
from ..limits import within
from .options import Options, Parser, make_parser
from .reading_options import COST, READING, limits_given
from .session import Session
from .tables import json_text, table

if TYPE_CHECKING:
    from ..data.compared import ComparedImages
    from ..data.findings import Comparison

__all__ = ["build_parser", "execute"]

PAGE_NAME = "comparison.html"
NUMBERS_NAME = "comparison.json"

_SUMMARY = """\
Score images against the last of them after registration and removal of global phase, phase ramp and scale. With
--truth each is scored against the truth. An image is a result folder or its reconstruction.h5, a product of ptychodus,
a scan that carries an object (as 'ptycho simulate' writes it), or an .npz with a complex 'object' (H, W) and, if known,
its 'origin_px' (y, x). --out writes a page with all images in turn on one scale, where they differ, and their ring
correlations."""
EXAMPLE = "ptycho compare result/reconstruction.h5 other/reconstruction.h5 --truth scan.npz"


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = make_parser("compare", "A [B …]", _SUMMARY, EXAMPLE)
    parser.add_argument("images", nargs="+", metavar="A", help="images; without --truth the last is the reference")
    parser.add_argument("--truth", metavar="FILE", help="the true object; every image is scored against it")
    parser.add_argument(
        "--measurement", choices=["amplitude", "counts"], help="what a scan file's frames are, where it does not say"
    )
    parser.add_argument("--out", metavar="FOLDER", help=f"folder for {PAGE_NAME} and {NUMBERS_NAME}")
    parser.add_argument("--overwrite", action="store_true", help="replace a comparison that lies there")
    parser.add_group(COST, READING[COST])
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    return parser


def _rows(scores: dict[str, Comparison]) -> list[tuple[str, ...]]:
    from ..report.parts import NOT_DEFINED, decibels

    def known(value: float) -> str:
        return f"{value:.4f}" if math.isfinite(value) else NOT_DEFINED

    shift = {name: f"{s.shift_px[0]:+.2f}, {s.shift_px[1]:+.2f}" for name, s in scores.items()}
    return [
        ("figure", *scores),
        ("amplitude PSNR", *(decibels(s.amplitude_psnr_db) for s in scores.values())),
        ("phase PSNR", *(decibels(s.phase_psnr_db) for s in scores.values())),
        ("amplitude SSIM", *(known(s.amplitude_ssim) for s in scores.values())),
        ("phase SSIM", *(known(s.phase_ssim) for s in scores.values())),
        ("correlation, mean removed", *(known(s.correlation) for s in scores.values())),
        ("FRC falls to half-bit at (1/px)", *(f"{s.frc_half_bit_cutoff:.4f}" for s in scores.values())),
        ("FRC falls to 1/2 at (1/px)", *(f"{s.frc_half_cutoff:.4f}" for s in scores.values())),
        ("shift removed (y, x; px)", *shift.values()),
        ("pixels scored", *(str(s.n_pixels) for s in scores.values())),
    ]


def _targets(options: Options) -> tuple[Path, Path] | None:
    """The files to write, or None.

    Raises:
        OutputError: one is there and is not to be replaced.
    """
    if options["out"] is None:
        return None
    folder = Path(options["out"])
    targets = folder / PAGE_NAME, folder / NUMBERS_NAME
    for target in targets:
        if target.exists() and not options["overwrite"]:
            raise OutputError(f"{target}: is there already; pass --overwrite to replace it, or another folder.")
    return targets


def _write(targets: tuple[Path, Path], compared: ComparedImages, session: Session, *, quiet: bool) -> None:
    from ..io.atomic import write_bytes, write_text
    from ..io.made_folder import make_folder, remove_made
    from ..report.comparison import comparison_page

    made: list[Path] = []
    make_folder(targets[0].parent, made)
    try:
        page = comparison_page(compared, tuple(session.command))
        write_bytes(targets[0], page.encode("utf-8", errors="backslashreplace"))
        write_text(targets[1], json_text(compared.to_mapping()) + "\n")
    except BaseException:
        remove_made(made)
        raise
    if not quiet:
        session.say(f"page      {targets[0]}")


def execute(options: Options, session: Session) -> int:
    """Compare and print."""
    from ..api.compare import compare_images

    names = options["images"]
    if options["truth"] is None and len(names) < 2:
        raise ConfigError(f"{names[0]} alone cannot be compared; give a second image, or --truth FILE.")
    if options["overwrite"] and options["out"] is None:
        raise ConfigError("--overwrite says something of --out only; give --out FOLDER, or leave it out.")
    targets = _targets(options)
    with session.stage("compare"), within(limits_given(options)):
        compared = compare_images(names, options["truth"], measurement=options["measurement"])
    if options["json"]:
        session.say(json_text(compared.to_mapping()))
    else:
        _say(compared, session)
    if targets is not None:
        _write(targets, compared, session, quiet=options["json"])
    return 0


def _say(compared: ComparedImages, session: Session) -> None:
    """The tables on the terminal."""
    from ..report.comparison import figures_table, pairs_table, why_not_defined

    heads, rows = figures_table(compared.images)
    if rows:
        session.say(table([heads, *rows]) + "\n")
    session.say(f"against {'the truth ' if compared.is_truth else ''}{compared.reference.name}")
    named = zip(compared.images, compared.scores, strict=True)
    session.say(table(_rows({image.name: score for image, score in named if score is not None})))
    if compared.pairs:
        heads, rows = pairs_table(compared)
        session.say("\n" + table([heads, *rows]))
    for text in why_not_defined(compared):
        session.say(f"not defined  {text}")
    for name, why in compared.reasons.items():
        session.say(f"not scored  {name}: {why}")
