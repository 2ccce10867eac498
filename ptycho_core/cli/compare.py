"""``ptycho compare A B``: score one reconstruction against another, or several against a truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError, PtychoError
from .options import Options, make_parser
from .session import Session
from .tables import json_text, table

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from ..metrics import Comparison

__all__ = ["build_parser", "execute"]

_SUMMARY = """\
Score A against B after registration and removal of global phase, phase ramp and scale. With --truth, A and B are each
scored against the truth, and B may be left out. A file is a reconstruction.h5, a scan that carries an object (as
'ptycho simulate' writes it), or an .npz with a complex 'object' (H, W) and, if known, its 'origin_px' (y, x)."""
EXAMPLE = "ptycho compare result/reconstruction.h5 other/reconstruction.h5 --truth scan.npz"


def build_parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = make_parser("compare", "A [B]", _SUMMARY, EXAMPLE)
    parser.add_argument("a", type=str, metavar="A", help="image to score")
    parser.add_argument("b", type=str, nargs="?", metavar="B", help="image to compare with, or a second one to score")
    parser.add_argument("--truth", type=str, metavar="FILE", help="the true object; A and B are both scored against it")
    parser.add_argument(
        "--measurement", choices=["amplitude", "counts"], help="what a scan file's frames are, where it does not say"
    )
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    return parser


@dataclass(frozen=True)
class _Image:
    """An object (H, W) and scan coordinates (y, x) of its first pixel; coverage (H, W) and frame centres if known."""

    object: NDArray[np.complex64]
    origin_px: NDArray[np.float64]
    coverage: NDArray[np.float32] | None = None
    positions_px: NDArray[np.float64] | None = None


def _plain_npz(path: Path) -> _Image | None:
    """An ``.npz`` that holds an ``object`` and no frames, or None."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if "object" not in file.files:
                return None
            obj = np.asarray(file["object"])
            origin = np.asarray(file["origin_px"] if "origin_px" in file.files else np.zeros(2), dtype=np.float64)
    except (OSError, ValueError, EOFError, TypeError):  # not an npz, or one that only the scan reader can judge
        return None
    if obj.ndim != 2 or not np.iscomplexobj(obj) or origin.shape != (2,):
        raise DataError(
            f"{path}: 'object' is {obj.dtype} of shape {obj.shape} and 'origin_px' has shape {origin.shape}; "
            "they must be complex (H, W) and (2,)."
        )
    return _Image(obj.astype(np.complex64), origin)


def _load(path: Path, measurement: str | None) -> _Image:
    """Read an object from any of the files that have one.

    Raises:
        DataError: no such file, or no object in it.
    """
    from ..io import read_scan
    from ..io.reconstruction_file import read_reconstruction

    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    plain = _plain_npz(path)
    if plain is not None:
        return plain
    try:
        stored = read_reconstruction(path)
        return _Image(stored.object, stored.origin_px, stored.coverage, stored.positions_px)
    except DataError as first:
        try:
            guess = read_scan(path, measurement=measurement).object_guess
        except PtychoError as second:
            raise DataError(f"{path}: neither a reconstruction ({first}) nor a scan ({second})") from second
    if guess is None:
        raise DataError(f"{path}: a scan without an object; give a reconstruction.h5, or a scan that carries one.")
    return _Image(guess.object, guess.origin_px)


def _score(estimate: _Image, reference: _Image) -> Comparison:
    from ..metrics import compare_objects

    return compare_objects(
        estimate.object,
        estimate.origin_px,
        reference.object,
        reference.origin_px,
        coverage=estimate.coverage,
        positions_px=estimate.positions_px,
    )


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
    names = [name for name in (options["a"], options["b"]) if name is not None]
    reference = options["truth"] or options["b"]
    if reference is None:
        raise ConfigError(f"{options['a']} alone cannot be compared; give a second image, or --truth FILE.")
    scored = names if options["truth"] else names[:1]
    truth = _load(Path(reference), options["measurement"])
    scores = {name: _score(_load(Path(name), options["measurement"]), truth) for name in scored}
    if options["json"]:
        mapping = {name: score.to_mapping() for name, score in scores.items()}
        session.say(json_text({"reference": reference, "is_truth": bool(options["truth"]), "scores": mapping}))
        return 0
    session.say(f"against {'the truth ' if options['truth'] else ''}{reference}")
    session.say(table(_rows(scores)))
    return 0
