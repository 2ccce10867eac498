"""Scripts that train in a process of their own, for what can only be seen there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ptycho_core.plugins.registry import backend_spec

HERE = Path(__file__).parent


def run(name: str, folder: Path, body: str, *, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run a script that has an engine, a scan and a held-out one, and check that it ends well.

    Args:
        name: of the engine.
        folder: where it runs; the script is kept there.
        body: lines of the script. They stand under ``if __name__ == "__main__"``, for engines that start processes.
        before: lines that come before the engine is loaded.
    """
    script = folder / "script.py"
    lines = f"""
{before}
from ptycho_core.plugins.registry import load_backend
engine = load_backend({name!r})
at_start = set(sys.modules)
scan = make_scan(rows=3, columns=4)
held_out = make_scan(rows=2, columns=3, seed=9)
{body}
"""
    script.write_text(
        "import sys\n"
        f"sys.path[:0] = {[str(HERE.parent), str(HERE)]!r}\n"
        "from pathlib import Path\n"
        "from engine_scans import *\n"
        "if __name__ == '__main__':\n" + "".join(f"    {line}\n" for line in lines.strip().splitlines())
    )
    done = subprocess.run(
        [sys.executable, script.name], cwd=folder, capture_output=True, text=True, timeout=240, check=False,
        env={**backend_spec(name).quiet_environment, **os.environ},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done
