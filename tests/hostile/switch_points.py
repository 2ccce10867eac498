"""Ends a process at every place where it changes a result folder, and looks what lies there: run by a test.

Started with ``fault_points.c`` preloaded. A scan is solved once; then, for each place, a child is forked that writes
its results over an older result and is killed at that place. So a place costs milliseconds, and none is left out.

    python switch_points.py WORK START STEP

START is ``old`` or ``none``, what lies there before; every STEP-th place is tried, and every one from where the files
are whole. A line of JSON for each, after one with their number.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import sys
from pathlib import Path

from result_judge import judged, leftovers

from ptycho_core import run
from ptycho_core.api.observe import Observer
from ptycho_core.api.outcome import opened_folder, write_run
from ptycho_core.config import TrainingConfig
from ptycho_core.io.result_folder import ResultFolder
from ptycho_core.report import write as report
from ptycho_core.simulation import SimulationConfig, simulate_scan

COUNT, KILL, KILL_IN_WRITE = 0, 1, 2
_AT_THE_END = 110
"""Places from the end that hashing, flushing, the switch and the tidying up take, and some of writing."""

faults = ctypes.CDLL(os.environ["LD_PRELOAD"])
faults.fault_arm.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_long]
faults.fault_count.restype = ctypes.c_long


def write_over(folder: Path, done, bundle: Path) -> None:
    with opened_folder(folder, True, [], Observer()) as opened:
        write_run(done, opened, Observer(), bundle)


def forked(folder: Path, mode: int, place: int, job) -> tuple[int, int]:
    """Run a job in a child that is stopped at a place; its status, and the places that it passed."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        faults.fault_arm(os.fsencode(folder), mode, place)
        job()
        passed = faults.fault_count()
        faults.fault_arm(b"", 0, 0)
        os.write(writing, str(passed).encode())
        os._exit(0)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    passed = os.read(reading, 20)
    os.close(reading)
    return status, int(passed or 0)


def main() -> None:
    work, start, step = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    scan = simulate_scan(SimulationConfig(object="dead_leaves", N=16, grid_shape=(5, 4), step_px=3.3, seed=5)).raw
    config = TrainingConfig(method="solver", backend="numpy", epochs=1)
    template = work / "template"
    done = run(scan, config, out=template, despite_findings=True)
    bundle = work / "model.ptycho"
    bundle.write_bytes((template / "model.ptycho").read_bytes() + b"another")
    (template / "frc.png").write_bytes(b"of the old result alone")
    with ResultFolder.open(template, overwrite=True) as opened, opened.staged() as partial:
        for path in template.iterdir():
            if path.suffix in (".png", ".h5", ".html", ".ptycho", ".json"):
                shutil.copyfile(path, partial / path.name)
    for path in template.glob("*.kept-*"):
        path.unlink()
    old = json.loads((template / "summary.json").read_bytes())["run_id"]
    pictures = {name: b"new " + name.encode() for name in report._drawings(done, (None,))}
    report._draw = lambda run, view: pictures  # drawing changes no file and takes a second
    folder = work / "result"

    def fresh() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        if start == "old":
            shutil.copytree(template, folder)

    def job() -> None:
        write_over(folder, done, bundle)

    fresh()
    status, places = forked(folder, COUNT, 0, job)
    assert status == 0
    print(json.dumps({"start": start, "places": places}), flush=True)
    end = places - (_AT_THE_END if start == "old" else _AT_THE_END // 3)
    every = {KILL: [*range(1, end, step), *range(end, places + 1)], KILL_IN_WRITE: [*range(1, places + 1, step)]}
    for mode, chosen in every.items():
        for place in chosen:
            fresh()
            status, _ = forked(folder, mode, place, job)
            found = {"mode": mode, "place": place, "killed": status == signal.SIGKILL}
            print(json.dumps(found | look(folder, old)), flush=True)


def look(folder: Path, old: str) -> dict[str, object]:
    """What lies there at once, what the next command makes of it, and what it leaves."""
    if not folder.exists():
        return {"at once": "none", "after": "none", "left": []}
    known = _Known(old)
    at_once = judged(folder, known)
    with ResultFolder.open(folder, overwrite=True) as opened:
        kept = [*opened.kept, *map(str, opened.rescued)]
    return {"at once": at_once, "after": judged(folder, known), "left": leftovers(folder), "kept": kept}


class _Known(dict):
    """Run id → ``old`` or, of any other run, ``new``."""

    def __init__(self, old: str) -> None:
        super().__init__({old: "old"})

    def get(self, key, default=None):
        return super().get(key, "new")


if __name__ == "__main__":
    main()
