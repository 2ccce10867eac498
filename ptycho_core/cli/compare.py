"""``ptycho compare A B``: score one reconstruction against another, or several against a truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ConfigError
from ..limits import within
from .options import Options, Parser, make_parser
from .reading_options import COST, READING, limits_given
from .session import Session
from .tables import json_text, table

if TYPE_CHECKING:
    from ..data.findings import Comparison

__all__ = ["build_parser", "execute"]

_SUMMARY = """\
Score A against B after registration and removal of global phase, phase ramp and scale. With --truth, A and B are each
scored against the truth, and B may be left out. A file is a reconstruction.h5, a scan that carries an object (as
'ptycho simulate' writes it), or an .npz with a complex 'object' (H, W) and, if known, its 'origin_px' (y, x)."""
EXAMPLE = "ptycho compare result/reconstruction.h5 other/reconstruction.h5 --truth scan.npz"


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = make_parser("compare", "A [B]", _SUMMARY, EXAMPLE)
    parser.add_argument("a", metavar="A", help="image to score")
    parser.add_argument("b", nargs="?", metavar="B", help="image to compare with, or a second one to score")
    parser.add_argument("--truth", metavar="FILE", help="the true object; A and B are both scored against it")
    parser.add_argument(
        "--measurement", choices=["amplitude", "counts"], help="what a scan file's frames are, where it does not say"
    )
    parser.add_group(COST, READING[COST])
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    return parser


def _rows(scores: dict[str, Comparison]) -> list[tuple[str, ...]]:
    shift = {name: f"{s.shift_px[0]:+.2f}, {s.shift_px[1]:+.2f}" for name, s in scores.items()}
    return [
        ("figure", *scores),
        ("amplitude PSNR (dB)", *(f"{s.amplitude_psnr_db:.2f}" for s in scores.values())),
        ("phase PSNR (dB)", *(f"{s.phase_psnr_db:.2f}" for s in scores.values())),
        ("amplitude SSIM", *(f"{s.amplitude_ssim:.4f}" for s in scores.values())),
        ("phase SSIM", *(f"{s.phase_ssim:.4f}" for s in scores.values())),
        ("correlation, mean removed", *(f"{s.correlation:.4f}" for s in scores.values())),
        ("FRC falls to 1/2 at (1/px)", *(f"{s.frc_half_cutoff:.4f}" for s in scores.values())),
        ("shift removed (y, x; px)", *shift.values()),
        ("pixels scored", *(str(s.n_pixels) for s in scores.values())),
    ]


def execute(options: Options, session: Session) -> int:
    """Compare and print."""
    from ..api.compare import compare

    names = [name for name in (options["a"], options["b"]) if name is not None]
    reference = options["truth"] or options["b"]
    if reference is None:
        raise ConfigError(f"{options['a']} alone cannot be compared; give a second image, or --truth FILE.")
    scored = names if options["truth"] else names[:1]
    with within(limits_given(options)):
        scores = {name: compare(name, reference, measurement=options["measurement"]) for name in scored}
    if options["json"]:
        mapping = {name: score.to_mapping() for name, score in scores.items()}
        session.say(json_text({"reference": reference, "is_truth": bool(options["truth"]), "scores": mapping}))
        return 0
    session.say(f"against {'the truth ' if options['truth'] else ''}{reference}")
    session.say(table(_rows(scores)))
    return 0
