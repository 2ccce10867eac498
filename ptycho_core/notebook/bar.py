"""A bar for work that somebody waits for: in a notebook a line of HTML that is updated, on a terminal one of rich.

In a notebook nothing but IPython is needed, which runs it: rich and tqdm draw a live bar there only through ipywidgets,
and warn or print a new line for each step where those are not installed. What stays in the saved notebook is one line.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..protocol import ProgressEvent
from ..text import html_text, one_line

if TYPE_CHECKING:
    from rich.progress import Progress as RichBar

__all__ = ["FIGURES", "LABELS", "ProgressBar", "is_interactive", "is_notebook"]

LABELS = {
    "train": "training",
    "reconstruct": "reconstructing",
    "refine": "refining",
    "simulate": "simulating",
    "write": "writing",
    "probe": "searching for the probe",
    "orient": "trying orientations",
    "centre": "trying centres of the beam",
    "diagnosis": "looking for the cause",
}
"""Stage of an event → what it is in words."""

FIGURES = {"epoch": "epoch", "train_loss": "loss", "test_loss": "validation loss"}
"""Figure of a step → what it is called."""

_EVERY_S = 0.15
"""Seconds between two updates: a page that is redrawn more often shows nothing more."""

_WIDTH = "16em"


def _shell() -> Any:
    """The shell of IPython that runs this process, or None; IPython is not imported for it."""
    module = sys.modules.get("IPython")
    return None if module is None else module.get_ipython()


def is_notebook() -> bool:
    """Whether a kernel of Jupyter runs this process, which shows HTML."""
    return getattr(_shell(), "kernel", None) is not None


def is_interactive() -> bool:
    """Whether somebody types the commands: in a notebook, IPython, or Python's own console."""
    return _shell() is not None or hasattr(sys, "ps1")


class ProgressBar:
    """Shows the progress of ``run``, ``train``, ``refine`` and all that take a `progress`.

    In a notebook and on a console these show one by themselves; in a script it is asked for::

        with ProgressBar() as bar:
            done = run(scan, config, progress=bar)

    It draws on a terminal (standard error) and in a notebook; elsewhere, such as in a file, nothing is written.
    """

    def __init__(self) -> None:
        self._events: dict[str, ProgressEvent] = {}
        self._began = time.monotonic()
        self._drawn = 0.0
        self._note = ""
        self._page: Any = None
        self._bar: RichBar | None = None
        self._tasks: dict[str, Any] = {}
        self._kind = "page" if is_notebook() else "terminal" if _is_terminal() else "none"

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, event: ProgressEvent) -> None:
        """Show a step."""
        self._events[event.stage] = replace(event, image=None)  # which may hold the scan and a network's weights
        last = event.done >= event.total
        if last or time.monotonic() - self._drawn >= _EVERY_S:
            self._draw(over=False)

    def note(self, text: str) -> None:
        """Show a sentence beside the bar."""
        self._note = one_line(text)
        self._draw(over=False)

    def close(self) -> None:
        """Leave one line of what was done in a notebook, and nothing on a terminal."""
        if self._kind == "page" and self._events:
            self._draw(over=True)
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _draw(self, *, over: bool) -> None:
        self._drawn = time.monotonic()
        if self._kind == "page":
            self._draw_page(over=over)
        elif self._kind == "terminal":
            self._draw_terminal()

    def _draw_page(self, *, over: bool) -> None:
        from IPython.display import display

        content = _Html(self._line() if over else self._rows(), self._line())
        if self._page is None:
            self._page = display(content, display_id=True)
        else:
            self._page.update(content)

    def _line(self) -> str:
        """What was done, in one line."""
        parts = [f"{_label(event)} {event.done}/{event.total}" for event in self._events.values()]
        return html_text(" · ".join([*parts, f"{time.monotonic() - self._began:.1f} s", *filter(None, [self._note])]))

    def _rows(self) -> str:
        cells = [
            "<tr style='background:none'><td style='text-align:left;padding:0 10px 0 0'>"
            f"{html_text(_label(event))}</td>"
            f"<td style='padding:0'><progress style='width:{_WIDTH}' value='{event.done}' max='{max(event.total, 1)}'>"
            f"</progress></td><td style='text-align:left;padding:0 0 0 10px'>{event.done}/{event.total} "
            f"{html_text(_figures(event))}</td></tr>"
            for event in self._events.values()
        ]
        return f"<table style='border:0'>{''.join(cells)}</table>{html_text(self._note)}"

    def _draw_terminal(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichBar

        if self._bar is None:
            columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
            more = (TimeRemainingColumn(), TextColumn("{task.fields[figures]}", markup=False))
            self._bar = RichBar(*columns, *more, console=Console(stderr=True), transient=True)
            self._bar.start()
        for stage, event in self._events.items():
            if stage not in self._tasks:
                self._tasks[stage] = self._bar.add_task(_label(event), total=event.total, figures="")
            said = f"{event.done}/{event.total} {_figures(event)} {self._note}"
            self._bar.update(self._tasks[stage], completed=event.done, total=event.total, figures=said)


class _Html:
    """HTML for a page, and a text for what shows none."""

    def __init__(self, html: str, text: str) -> None:
        self.html, self.text = html, text

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _label(event: ProgressEvent) -> str:
    return LABELS.get(event.stage, one_line(event.stage, 60))


def _figures(event: ProgressEvent) -> str:
    shown = ((name, value) for name, value in event.metrics.items() if name != "epoch")
    return "  ".join(f"{FIGURES.get(name) or one_line(name, 40)} {value:.4g}" for name, value in shown)
