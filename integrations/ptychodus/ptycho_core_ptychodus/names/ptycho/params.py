"""The dict that ptychodus hands settings on in."""

from typing import Any

from ptycho_core_ptychodus.tf_flow import cfg

__all__ = ["cfg", "get"]


def get(key: str) -> Any:
    """A value of the dict.

    Raises:
        KeyError: there is none; ptychodus looks for that.
    """
    return cfg[key]
