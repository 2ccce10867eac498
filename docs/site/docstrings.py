"""Docstrings for the site: a name that one refers to in the words of Sphinx is shown as code."""

from __future__ import annotations

import re
from typing import Any

import griffe

__all__ = ["RolesAsCode"]

_ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):`~?\.*([^`]+)`")


class RolesAsCode(griffe.Extension):
    """Replaces a role by the name that it leads to; its package is left out."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Mend the docstring of an object when it is loaded."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(
                lambda role: f"`{role[1].removeprefix('ptycho_core.')}`", obj.docstring.value
            )
