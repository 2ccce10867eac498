"""The README as a package index shows it: without pictures and links that only a clone can follow.

Hatchling calls it when it builds a distribution; it has no public address to make links of.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

__all__ = ["ReadmeForIndex", "readme_for_index"]


def readme_for_index(text: str) -> str:
    """Leave out pictures, and write a link to a file as its text.

    Args:
        text: README.md.
    """
    text = re.sub(r"^<img [^\n]*>\n\n?", "", text, flags=re.MULTILINE)
    text = re.sub(r"^\*A real [^*]*\*\n\n", "", text, flags=re.MULTILINE)
    return re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]+\)", r"\1", text)


class ReadmeForIndex(MetadataHookInterface):
    """Gives the project its ``readme``."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set it from README.md beside pyproject.toml."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": readme_for_index(text)}
