"""A process of its own that loads one engine and one bundle: what survives there does not hang on this process.

``python -m ptycho_core.testing.fresh FOLDER`` reads ``request.json`` there and leaves ``answers.json`` and
``image.npz``. Importing a framework takes seconds, so one process answers every question.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..plugins.hookspecs import ENTRY_POINT_GROUP
from ..plugins.registry import backend_spec, load_backend
from .bench import Bench

__all__ = ["FRAMEWORKS", "Answers", "ask_fresh_process"]

FRAMEWORKS = ("torch", "lightning", "tensorflow", "keras", "jax", "jaxlib", "ptychi", "cupy", "mlx", "matplotlib")
"""Not to be imported by a plugin module, whatever engine it describes."""

_SECONDS = 240
_BUNDLE = "model.ptycho"


@dataclass(frozen=True)
class Answers:
    """What the other process found.

    Attributes:
        too_early: modules that describing the engine imported and must not have.
        strangers: modules of other engines that loading this one imported.
        history: of the loaded model.
        image: object (H, W), or None where it failed.
        scale: of the image.
        fault: traceback of what went wrong with the bundle, or empty.
    """

    too_early: list[str]
    strangers: list[str]
    history: dict[str, list[float]]
    image: NDArray[np.complex64] | None
    scale: float
    fault: str


def ask_fresh_process(bench: Bench, folder: Path) -> Answers:
    """Save the bench's model in a folder, and have another process load it and reconstruct the scan.

    Raises:
        AssertionError: that process did not come to its end; what it wrote is in the message.
    """
    bench.engine.save(bench.model, folder / _BUNDLE)
    (folder / "request.json").write_text(json.dumps(bench.request()), encoding="utf-8")
    paths = os.pathsep.join(path for path in sys.path if path)  # the engine may be importable from here only
    environment = {**backend_spec(bench.engine.name).quiet_environment, **os.environ, "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(folder)],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"a process that loads the engine ended with {done.returncode}: {done.stderr[-2000:]}"
    answers = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    image = None
    if not answers["fault"]:
        with np.load(folder / "image.npz", allow_pickle=False) as file:
            image = file["object"]
    return Answers(image=image, **answers)


def _imported(prefixes: set[str]) -> list[str]:
    return sorted(m for m in sys.modules if any(m == p or m.startswith(f"{p}.") for p in prefixes))


def _other_engines(name: str) -> set[str]:
    """Top-level packages of the other engines' plugins, as far as they are not this engine's own or core's."""
    entries = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    own = {e.value.partition(".")[0] for e in entries if e.name == name} | {"ptycho_core"}
    return {e.value.partition(":")[0] for e in entries if e.name != name} | {
        package for e in entries if (package := e.value.partition(".")[0]) not in own
    }


def _bundle_answers(request: dict[str, Any], engine: Any, folder: Path) -> dict[str, Any]:
    bench = Bench(engine, request["settings"], request["side"])
    model = engine.load(folder / _BUNDLE)
    image = bench.image(model)
    np.savez(folder / "image.npz", object=image.object)
    return {"history": {k: list(v) for k, v in model.history.items()}, "scale": float(image.scale)}


def main(folder: Path) -> None:
    """Answer the request in a folder."""
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    name = request["engine"]
    before = set(sys.modules)
    spec = backend_spec(name)
    own = {e.value.partition(":")[0] for e in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP, name=name)}
    # an engine may be one file that imports no framework: then its plugin module is the engine
    forbidden = {*FRAMEWORKS, *spec.requires, spec.factory.partition(":")[0]} - own
    too_early = [module for module in _imported(forbidden) if module not in before]
    engine = load_backend(name)
    answers: dict[str, Any] = {
        "too_early": too_early,
        "strangers": _imported(_other_engines(name)),
        "history": {},
        "scale": 0.0,
        "fault": "",
    }
    try:
        answers |= _bundle_answers(request, engine, folder)
    except Exception:  # whatever the engine raises is the answer
        answers["fault"] = traceback.format_exc()
    (folder / "answers.json").write_text(json.dumps(answers), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
