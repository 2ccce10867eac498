"""Whether the names ``ptycho`` and ``ptycho_torch`` are ours to serve: a real PtychoPINN keeps them, always.

Installing cannot take them away, since they come last on ``sys.path``. What is left to look out for is a mixture (one
of the two names theirs and the other ours, or an editable install that Python asks only after ``sys.path``), in which
half of a call would land in either. Then importing ours raises one error that says whose the names are.
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

__all__ = ["NAMES", "NAMES_FOLDER", "foreign_claims", "refuse_foreign"]

NAMES = ("ptycho", "ptycho_torch")
"""Top-level names that the client imports."""

NAMES_FOLDER = Path(__file__).resolve().parent / "names"
"""Where our modules of these names lie."""


def _installed_claims() -> list[str]:
    """What distributions that claim a name say of themselves; ours lists none of the names as its own."""
    owners = metadata.packages_distributions()
    return [
        f"'{name}' is of the distribution {owner} {metadata.version(owner)}"
        for name in NAMES
        for owner in sorted(set(owners.get(name, ())))
    ]


def _claims_on_path() -> list[str]:
    """Packages and modules of these names elsewhere on ``sys.path``; a folder without ``__init__.py`` is none."""
    found = []
    for entry in dict.fromkeys(sys.path):
        folder = Path(entry or ".").resolve()
        if folder == NAMES_FOLDER:
            continue
        for name in NAMES:
            for path in (folder / name / "__init__.py", folder / f"{name}.py"):
                if path.is_file():
                    found.append(f"'{name}' is at {path}")
    return found


def foreign_claims() -> list[str]:
    """What else is installed, or lies on the path, under the names; one clause each, none where there is nothing."""
    return [*_installed_claims(), *_claims_on_path()]


def refuse_foreign() -> None:
    """Refuse to serve the names where they are somebody else's.

    Raises:
        ImportError: they are; the message says whose, and what to do.
    """
    claims = foreign_claims()
    if claims:
        raise ImportError(
            "ptycho-core-ptychodus does not stand in for PtychoPINN where one is installed: "
            f"{'; '.join(claims)}. Uninstall that to use ptycho-core behind ptychodus (and take a checkout off the "
            "path), or uninstall ptycho-core-ptychodus to use PtychoPINN."
        )
