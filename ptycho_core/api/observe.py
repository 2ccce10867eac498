"""Who watches a run: it times the stages, keeps the notices, and may say what happens; nothing it does is an input."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from ..stopping import to_its_end
from ..text import one_line

if TYPE_CHECKING:
    from ..protocol import BackendSpec

__all__ = ["Observer", "peak_memory_bytes"]


def peak_memory_bytes() -> int | None:
    """Return the largest resident memory this process has had, in bytes, or None where the platform does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, the others KiB


class Observer:
    """Times and notices of one run. A program may pass one of its own, with more to say.

    Attributes:
        seconds: wall-clock seconds by stage.
        notices: what to tell the user, one sentence each, in order and each once.
        returns_partial: whether ``run``, ``train`` and ``refine`` return what there is when they are stopped, with a
            warning, where there is anything; else ``Cancelled`` is raised, and has it.
    """

    returns_partial = False

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.notices: list[str] = []
        self._began = time.perf_counter()

    def check(self, doing: str = "") -> None:
        """Raise ``Cancelled`` where the run is to stop: asked before each stage and at each safe point within.

        A program that has a button for it looks at its flag here; what is finished by then is not lost
        (:class:`ptycho_core.errors.Cancelled`).

        Args:
            doing: what is about to be done, in words (``before the stage 'refine'``); empty within a stage.
        """

    @contextmanager
    def stage(self, name: str, *, finishes: bool = False) -> Iterator[None]:
        """Add the seconds of a block to a stage, before which a wish to stop is met.

        Args:
            name: of the stage.
            finishes: whether the block puts away or judges what is finished: it goes to its end, whoever wants to stop.
        """
        if not finishes:
            self.check(f"before the stage '{name}'")
        began = time.perf_counter()
        try:
            with to_its_end() if finishes else nullcontext():
                yield
        finally:
            self.add_seconds(name, time.perf_counter() - began)

    def add_seconds(self, name: str, seconds: float) -> None:
        """Add seconds to a stage."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def age(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self._began

    def facts(self) -> dict[str, float]:
        """Seconds by stage and in all, as they stand now."""
        return {name: round(value, 3) for name, value in {**self.seconds, "total": self.age()}.items()}

    def peak_memory_bytes(self) -> int | None:
        """Largest memory that the run has had so far, or None where it is not known."""
        return peak_memory_bytes()

    @contextmanager
    def importing(self, spec: BackendSpec) -> Iterator[None]:
        """Surround the import of an engine."""
        yield

    def notice(self, text: str) -> None:
        """Remember a sentence for the user."""
        text = one_line(text)
        if text not in self.notices:
            self.notices.append(text)

    def working(self, on: str) -> None:
        """Hear which engines do the work and on what, in words, once they are imported."""

    def ended_early(self, text: str) -> None:
        """Hear what became of a wish to stop that leaves something to go on with; a notice."""
        self.notice(text)

    def opened(self, folder: Path) -> None:
        """Hear of the folder that the results will lie in, once it is held."""

    def saved(self, model: Path) -> None:
        """Hear of the file that the trained model lies in, while its image is still to be made."""
