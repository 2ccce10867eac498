"""The learned passes of a generator that is asked for what its own last answers make."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

__all__ = ["learned_passes"]

_T = TypeVar("_T")


def learned_passes(one: Callable[[_T], _T], agreed: Callable[[_T], _T], estimate: _T, passes: int) -> _T:
    """What a generator says of each patch in the last of some passes (FM-20).

    Args:
        one: the generator bound to some groups: (B, C, N, N) complex estimate → patches.
        agreed: patches → those that the merge of them gives, each group on its own canvas.
        estimate: (B, C, N, N) complex, to start from.
        passes: how many.

    Returns:
        (B, C, N, N) complex patches before the last merge.
    """
    patches = one(estimate)
    for _ in range(passes - 1):
        patches = one(agreed(patches))
    return patches
