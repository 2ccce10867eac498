"""Run the suite on an engine by its name, and gather what came of it: what ``ptycho conform`` prints.

pytest runs in this process, on one file of this package, with none of the settings, plugins' output or caches of the
folder it is started in; so the sheet is the same wherever it is asked for.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from ..errors import Cancelled, ConfigError, suggest
from ..stopping import safe_point

__all__ = ["REQUEST", "Outcome", "Request", "Sheet", "run_conformance"]

NOT_OFFERED = "not offered: "
"""How the reason of a test begins that the suite leaves out."""

State = Literal["passed", "failed", "not offered"]
_COLLECTED = Path(__file__).with_name("collected.py")
_REASON_LENGTH = 400


@dataclass(frozen=True)
class Request:
    """Which engine is meant, with what settings, on scans of which side."""

    engine: str
    settings: Mapping[str, Any]
    side: int


REQUEST = pytest.StashKey[Request]()
"""Where the collected class finds the request in pytest's config."""


@dataclass(frozen=True)
class Outcome:
    """What came of one test.

    Attributes:
        test: its name, with its parameter in brackets.
        asks: what it asks of the engine, one sentence.
        state: ``passed``, ``failed`` or ``not offered``.
        reason: why it failed or was left out; empty where it passed.
        details: the whole report of a failure.
        seconds: what it took, its fixtures included.
    """

    test: str
    asks: str
    state: State
    reason: str
    details: str
    seconds: float


@dataclass(frozen=True)
class Sheet:
    """What came of the whole suite.

    Attributes:
        engine: name of the engine.
        outcomes: one for each test that was selected, in the order they ran.
    """

    engine: str
    outcomes: tuple[Outcome, ...]

    def of(self, state: State) -> list[Outcome]:
        """Outcomes of one state."""
        return [outcome for outcome in self.outcomes if outcome.state == state]

    @property
    def conforms(self) -> bool:
        """Whether something passed and nothing failed; an engine of which nothing was asked does not conform."""
        return bool(self.of("passed")) and not self.of("failed")


class _Watcher:
    """The pytest plugin that hands the request to the collected class, and takes down what happens."""

    def __init__(self, request: Request, only: str | None):
        self.request = request
        self.only = only
        self.asks: dict[str, str] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.interrupted = False
        self.stopped: Cancelled | None = None

    def pytest_configure(self, config: pytest.Config) -> None:
        config.stash[REQUEST] = self.request

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if self.only is None or self.only in item.name]
        for item in items:
            self.asks[item.nodeid] = (getattr(item, "function").__doc__ or "").strip().partition("\n")[0]  # noqa: B009

    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        try:
            safe_point()
        except Cancelled as error:
            self.stopped = error
            item.session.shouldstop = "the caller wants to stop"

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        self.interrupted = not isinstance(excinfo.value, pytest.Session.Interrupted)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        before = self.outcomes.get(report.nodeid)
        seconds = report.duration + (before.seconds if before else 0.0)
        state: State = "passed" if before is None else before.state
        reason, details = ("", "") if before is None else (before.reason, before.details)
        if report.skipped:
            state, reason = _of_skip(report)
        elif report.failed:
            state, reason, details = "failed", _failure_reason(report), report.longreprtext
        name = report.nodeid.rpartition("::")[2]
        self.outcomes[report.nodeid] = Outcome(name, self.asks[report.nodeid], state, reason, details, seconds)


def _of_skip(report: pytest.TestReport) -> tuple[State, str]:
    """What a skip means: only the suite may leave something out, and then it says "not offered"."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
    text = text.removeprefix("Skipped: ")
    if text.startswith(NOT_OFFERED):
        return "not offered", text.removeprefix(NOT_OFFERED)
    return "failed", f"it was skipped, and not by the suite: {' '.join(text.split())}"[:_REASON_LENGTH]


def _failure_reason(report: pytest.TestReport) -> str:
    """The error in one line; pytest's whole story is in the details."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else report.longreprtext
    text = text.removeprefix("AssertionError: ").removeprefix("Failed: ").partition("\nassert ")[0]
    line = " ".join(text.split())
    return line if len(line) <= _REASON_LENGTH else f"{line[:_REASON_LENGTH]} …"


@contextmanager
def _without_strangers() -> Iterator[None]:
    """Options and plugins of someone else's test run must not change what is asked here."""
    wanted = {"PYTEST_ADDOPTS": None, "PYTEST_PLUGINS": None, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    given = {name: os.environ.pop(name, None) for name in wanted}
    _put_into_environment(wanted)
    try:
        yield
    finally:
        _put_into_environment(given)


def _put_into_environment(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def run_conformance(
    engine: str, *, settings: Mapping[str, Any] | None = None, side: int = 32, only: str | None = None
) -> Sheet:
    """Run the suite on an installed engine.

    Args:
        engine: its name, as in ``config.backend``.
        settings: what to change in the tiny trainings, as in a YAML file.
        side: N of all scans.
        only: run the tests with this in their name, and no others.

    Returns:
        The sheet. An engine that is not installed fails every test; nothing is skipped for it.

    Raises:
        ConfigError: `only` selects nothing, or Python runs without assertions.
        KeyboardInterrupt: as it was raised.
        RuntimeError: pytest could not run the suite.
    """
    if not __debug__:
        raise ConfigError(
            "Python was started with -O or PYTHONOPTIMIZE, which removes assertions: every engine would pass. Run the "
            "suite without."
        )
    watcher = _Watcher(Request(engine, dict(settings or {}), side), only)
    here = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="ptycho-conform-") as folder, _without_strangers():
        options = ["-c", os.devnull, "--rootdir", folder, "--basetemp", str(Path(folder) / "files"), "--noconftest"]
        options += ["-p", "no:cacheprovider", "-p", "no:terminal", "-p", "no:faulthandler", "-p", "no:logging"]
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning", "--capture=no", str(_COLLECTED)]
        # by default pytest puts the folder that this package lies in before all others, and so an installed engine
        # before the one that whoever runs the suite has put first
        options += ["--import-mode=append"]
        try:
            code = pytest.main(options, plugins=[watcher])
        finally:
            os.chdir(here)
    if watcher.stopped is not None:
        raise watcher.stopped
    if watcher.interrupted:
        raise KeyboardInterrupt
    if code == pytest.ExitCode.NO_TESTS_COLLECTED and only is not None:
        from .conformance import BackendConformance

        names = [name for name in dir(BackendConformance) if name.startswith("test_")]
        raise ConfigError(f"no test of the suite has {only!r} in its name.{suggest(only, names)}")
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"pytest could not run the suite and ended with {code!r}")
    return Sheet(engine, tuple(watcher.outcomes.values()))
