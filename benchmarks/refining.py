"""Is the better image kept? Refining at few photons, judged by the truth that the judge has not seen.

    python benchmarks/refining.py [--photons 300 1e3 1e4] [--objects dead_leaves lines siemens_star] [--engine numpy]

Each scan is solved with the engine's defaults and refined. The engine's refined image is scored against the truth
beside the one it began with, and so it is seen whether ``refine`` kept the better of the two, by correlation.
"""

from __future__ import annotations

import argparse
import json
import warnings

from ptycho_core import RefinementConfig, SimulationConfig, TrainingConfig, compare, ensure_container, simulate
from ptycho_core.api.apply import reconstruct
from ptycho_core.api.refine import refine
from ptycho_core.api.run import train
from ptycho_core.api.score import score
from ptycho_core.plugins.registry import load_backend
from ptycho_core.provenance import machine


def main() -> int:
    """Print one row a scan; 1 when a worse image was kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photons", nargs="+", type=float, default=[300, 1e3, 1e4])
    parser.add_argument("--objects", nargs="+", default=["dead_leaves", "lines", "siemens_star"])
    parser.add_argument("--engine", default="numpy")
    parser.add_argument("--loss", default="amplitude", help="that the first image is solved with")
    parser.add_argument("--frames", type=int, default=196)
    given = parser.parse_args()
    print(json.dumps({"machine": machine()}))
    engine, right, rows = load_backend(given.engine), 0, 0
    for kind in given.objects:
        for photons in given.photons:
            made = simulate(SimulationConfig(object=kind, n_frames=given.frames, photons=photons, seed=3))
            config = TrainingConfig(backend=given.engine, loss=given.loss, refinement=RefinementConfig(probe=False))
            scan = ensure_container(made.raw, config)
            first = reconstruct(train(scan, config), scan, same_scan=True)
            found = score(engine.refine(first.image, scan, config), scan, given.engine, engine)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                kept = refine(first, config, backend=engine).kept
            before, after = (compare(image, made.truth).correlation for image in (first, found))
            correct = kept == (after > before)
            right, rows = right + correct, rows + 1
            facts = {"object": kind, "photons": photons, "before": before, "after": after, "kept": kept}
            facts |= {"heldout_deviance": [first.heldout.deviance, found.heldout.deviance]} if first.heldout else {}
            print(json.dumps(facts | {"correct": correct}), flush=True)
    print(f"the better image was kept in {right} of {rows}")
    return 0 if right == rows else 1


if __name__ == "__main__":
    raise SystemExit(main())
