"""Sources that are made of other sources, taken apart and put together again; one of a plugin is taken as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from .frames import (
    CentredFrames,
    ConcatenatedFrames,
    FrameSource,
    OffsetFrames,
    SubsetFrames,
    TransposedFrames,
    WindowedFrames,
)

__all__ = ["bottom_sources", "with_parts"]

_OVER_ONE = (CentredFrames, OffsetFrames, SubsetFrames, TransposedFrames, WindowedFrames)


def with_parts(source: FrameSource, change: Callable[[FrameSource], FrameSource]) -> FrameSource | None:
    """A source like one that is made of others, of what `change` makes of these; None where it is made of none."""
    if isinstance(source, ConcatenatedFrames):
        return replace(source, parts=tuple(map(change, source.parts)))
    if isinstance(source, _OVER_ONE):
        return replace(source, base=change(source.base))
    return None


def bottom_sources(source: FrameSource) -> Iterator[FrameSource]:
    """The sources that a source is made of in the end, which read."""
    if isinstance(source, ConcatenatedFrames):
        for part in source.parts:
            yield from bottom_sources(part)
    elif isinstance(source, _OVER_ONE):
        yield from bottom_sources(source.base)
    else:
        yield source
