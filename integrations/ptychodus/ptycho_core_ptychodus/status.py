"""The command ``ptycho-core-ptychodus``: whether ptycho-core is behind the PINN reconstructors, and why not."""

from __future__ import annotations

import sys
from importlib import metadata
from importlib.util import find_spec

from ptycho_core import available_backends

from .engine import VARIABLE, chosen_engine, named_engine
from .guard import NAMES, NAMES_FOLDER, foreign_claims

__all__ = ["main", "status"]


def status() -> tuple[list[str], bool]:
    """What there is to say, one sentence each, and whether all is well."""
    try:
        said = [f"ptychodus {metadata.version('ptychodus')} is installed."]
    except metadata.PackageNotFoundError:
        return ["ptychodus is not installed in this environment."], False
    claims = foreign_claims()
    if claims:
        return [
            *said,
            f"ptycho-core is not behind it: {'; '.join(claims)}. A PtychoPINN keeps its names; uninstall it first.",
        ], False
    for name in NAMES:
        spec = find_spec(name)
        if spec is None or spec.origin is None or not spec.origin.startswith(str(NAMES_FOLDER)):
            return [
                *said,
                f"Python does not find '{name}' in {NAMES_FOLDER}; install ptycho-core-ptychodus again.",
            ], False
    named = named_engine()
    if named is not None and named not in (ready := [e.name for e in available_backends() if e.state == "ready"]):
        return [*said, f"{VARIABLE} = {named!r} is no engine that is installed; these are: {', '.join(ready)}."], False
    engine, why = chosen_engine(network=False)
    said.append(f"PtychoPINN (PINN): ptycho-core, engine {engine} ({why}; {VARIABLE} names another).")
    if find_spec("lightning") is None:
        said.append("PtychoPINN-Torch is not offered: ptychodus looks for the package lightning, which is missing.")
    else:
        said.append("PtychoPINN-Torch (Unsupervised): ptycho-core likewise.")
    return said, True


def main() -> int:
    """Print the status; 0 where ptycho-core is behind ptychodus."""
    said, well = status()
    sys.stdout.write("\n".join(said) + "\n")
    return 0 if well else 1
