"""Who watches a run: it times the stages, keeps the notices, and may say what happens; nothing it does is an input."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from ..protocol import BackendSpec

__all__ = ["Observer", "is_own_warning", "peak_memory_bytes"]


def peak_memory_bytes() -> int | None:
    """Return the largest resident memory this process has had, in bytes, or None where the platform does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, the others KiB


def is_own_warning(category: type[Warning], filename: str) -> bool:
    """Whether a warning was raised by this project, for people, and not by a library for its programmers."""
    module = category.__module__.partition(".")[0]
    ours = module == "builtins" or module.startswith("ptycho_")
    parts = Path(filename).parts
    if "site-packages" in parts:  # a folder that packages are installed below may have any name
        parts = parts[len(parts) - parts[::-1].index("site-packages") :]
    return ours and any(part.startswith("ptycho_") for part in parts)


class Observer:
    """Times and notices of one run. A program may pass one of its own, with more to say.

    Attributes:
        seconds: wall-clock seconds by stage.
        notices: what to tell the user, one sentence each, in order and each once.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.notices: list[str] = []
        self._began = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the seconds of a block to a stage."""
        began = time.perf_counter()
        try:
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

    @contextmanager
    def importing(self, spec: BackendSpec) -> Iterator[None]:
        """Surround the import of an engine."""
        yield

    def notice(self, text: str) -> None:
        """Remember a sentence for the user."""
        text = " ".join(text.split())
        if text not in self.notices:
            self.notices.append(text)

    def opened(self, folder: Path) -> None:
        """Hear of the folder that the results will lie in, once it is held."""

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Remember the warnings that this project raises while the block runs; they go on to whoever sees them now."""
        before = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> Any:
            if is_own_warning(category, filename):
                self.notice(str(message))
            return before(message, category, filename, lineno, file, line)

        with warnings.catch_warnings():
            warnings.showwarning = show
            yield
