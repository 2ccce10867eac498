"""Is the best image kept? Refining at few photons, judged by the truth that the judge has not seen.

    python benchmarks/refining.py [--photons 300 1e3 1e4] [--objects dead_leaves lines siemens_star] [--engine numpy]

Each scan is solved with the engine's defaults and refined. Three images are scored against the truth by correlation:
the one it began with; the one that the engine returns, which the held-out frames have chosen among its epochs; and the
last one of as many epochs on the same training frames without any choice. The image that ``refine`` ends with is then
one of the first two: it is the best when none of the three is better. Where it is not, ``lost`` says by how much.
"""

from __future__ import annotations

import argparse
import json
import warnings

from ptycho_core import (
    PtychoDataContainer,
    RefinementConfig,
    SimulationConfig,
    TrainingConfig,
    compare,
    ensure_container,
    simulate,
)
from ptycho_core.api.apply import reconstruct
from ptycho_core.api.refine import refine, refined_by
from ptycho_core.api.score import score
from ptycho_core.api.train import train
from ptycho_core.data.results import Scored
from ptycho_core.plugins.registry import load_backend
from ptycho_core.protocol import ReconstructionBackend, no_progress
from ptycho_core.provenance import machine
from ptycho_core.runtime import DEFAULT_RUNTIME


def returned_by(
    engine: ReconstructionBackend, first: Scored, scan: PtychoDataContainer, config: TrainingConfig
) -> Scored:
    """What the engine makes of an image, scored and not judged."""
    image = refined_by(engine, first.image, scan, config, DEFAULT_RUNTIME, no_progress)
    return score(image, scan, engine.name, engine)


def without_choice(first: Scored, config: TrainingConfig, engine: ReconstructionBackend) -> Scored:
    """The last state of a refinement whose held-out frames nobody looks at."""
    scan = first.scan
    blind = PtychoDataContainer.of(
        scan.raw.with_probe(scan.probe), unused={"held out": scan.heldout_frames}, statistics=scan.statistics
    )
    return returned_by(engine, first, blind, config)


def row(kind: str, photons: float, config: TrainingConfig, n_frames: int, engine: ReconstructionBackend) -> dict:
    """Solve and refine one scan, and compare each image with the truth."""
    made = simulate(SimulationConfig(object=kind, n_frames=n_frames, photons=photons, seed=3))
    scan = ensure_container(made.raw, config)
    first = reconstruct(train(scan, config), scan, same_scan=True)
    returned = returned_by(engine, first, scan, config)
    last = without_choice(first, config, engine)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = refine(first, config, backend=engine).kept
    found = {"initial": first, "last": last, "returned": returned}
    correlation = {name: compare(image, made.truth).correlation for name, image in found.items()}
    mine = correlation["returned" if kept else "initial"]
    facts = {"object": kind, "photons": photons} | correlation | {"kept": kept}
    facts["better_of_two"] = mine >= max(correlation["initial"], correlation["returned"])
    facts["best_of_three"] = mine >= max(correlation.values())
    return facts | {"lost": max(correlation.values()) - mine}


def main() -> int:
    """Print one row a scan, and how often the best was kept; 1 when the worse of the two offered was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photons", nargs="+", type=float, default=[300, 1e3, 1e4])
    parser.add_argument("--objects", nargs="+", default=["dead_leaves", "lines", "siemens_star"])
    parser.add_argument("--engine", default="numpy")
    parser.add_argument("--loss", default="amplitude", help="that the first image is solved with")
    parser.add_argument("--frames", type=int, default=196)
    given = parser.parse_args()
    print(json.dumps({"machine": machine()}))
    config = TrainingConfig(backend=given.engine, loss=given.loss, refinement=RefinementConfig(probe=False))
    engine, rows = load_backend(given.engine), []
    for kind in given.objects:
        for photons in given.photons:
            rows.append(row(kind, photons, config, given.frames, engine))
            print(json.dumps(rows[-1]), flush=True)
    two, three = (sum(facts[name] for facts in rows) for name in ("better_of_two", "best_of_three"))
    print(f"of the initial and the returned image the better was kept in {two} of {len(rows)}")
    print(
        f"no image, the last epoch's among them, was better than the one kept in {three} of {len(rows)}; the most that "
        f"was lost is {max(facts['lost'] for facts in rows):.4f} of correlation"
    )
    return 0 if two == len(rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
