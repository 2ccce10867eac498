"""At a notebook or console: a bar, and the first Ctrl-C keeps what is finished; in a script nothing of it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import types
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptycho_core import (
    Observer,
    ProgressBar,
    ProgressEvent,
    RefinementConfig,
    Run,
    Runtime,
    SimulationConfig,
    TrainingConfig,
    refine,
    run,
    simulate,
    train,
)
from ptycho_core.api import attended as module
from ptycho_core.errors import Cancelled
from ptycho_core.notebook import bar as bars
from ptycho_core.protocol import no_progress

SCAN = SimulationConfig(
    object="dead_leaves", N=24, grid_shape=(6, 9), step_px=3.3, photons=2e4, aberration_rms_rad=0.5, seed=8
)
SOLVE = TrainingConfig(epochs=30, test_fraction=0.1, refinement=RefinementConfig(engine="none"))
BOTH = TrainingConfig(
    epochs=2, test_fraction=0.1, refinement=RefinementConfig(epochs=40, positions=False, probe_modes=1)
)


@pytest.fixture(scope="module")
def scan() -> Any:
    return simulate(SCAN).raw


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if somebody typed."""
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)


@pytest.fixture
def press(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Press Ctrl-C after a step of a stage."""

    def at(stage: str, done: int) -> None:
        before = ProgressBar.__call__

        def call(self: ProgressBar, event: ProgressEvent) -> None:
            before(self, event)
            if event.stage == stage and event.done == done:
                os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(ProgressBar, "__call__", call)

    return at


@pytest.mark.spec("NOTE-5")
@pytest.mark.usefixtures("console")
def test_a_run_that_is_stopped_in_training_is_the_image_of_its_epochs(
    scan: Any, press: Callable[[str, int], None], tmp_path: Path
) -> None:
    press("train", 4)
    with pytest.warns(UserWarning, match=r"training was stopped \(interrupted while training, after 4 of 30\)") as told:
        done = run(scan, SOLVE, out=tmp_path / "out")
    assert told[0].filename == __file__, "the warning is of the caller's line"
    assert isinstance(done, Run)
    assert len(done.history["train_loss"]) == 4
    assert done.folder is None
    assert any("training was stopped" in text for text in done.warnings)
    assert done.verdict is not None
    checkpoint = tmp_path / "out" / "training" / "solver_checkpoint.safetensors"
    assert repr(str(checkpoint)) in done.warnings[-1]
    assert not (tmp_path / "out" / "summary.json").exists(), "it is no finished result"
    # it is the image that four epochs give, and the checkpoint leads on to the whole one
    four = run(scan, replace(SOLVE, epochs=4), observer=Observer())
    assert np.abs(done.image.object).std() > 0
    assert done.image.object.shape == four.image.object.shape
    whole = run(scan, SOLVE, observer=Observer())
    gone_on = run(scan, SOLVE, Runtime(resume_from=checkpoint), observer=Observer())
    assert np.array_equal(gone_on.image.object, whole.image.object)
    assert not np.array_equal(done.image.object, whole.image.object)


@pytest.mark.usefixtures("console")
def test_without_a_folder_it_says_that_there_is_no_checkpoint(scan: Any, press: Callable[[str, int], None]) -> None:
    press("train", 3)
    with pytest.warns(UserWarning, match="no folder was given, so there is no checkpoint"):
        run(scan, SOLVE)


@pytest.mark.spec("NOTE-5")
@pytest.mark.usefixtures("console")
def test_a_run_that_is_stopped_in_refining_keeps_the_best_image_up_to_there(
    scan: Any, press: Callable[[str, int], None], tmp_path: Path
) -> None:
    press("refine", 9)
    with pytest.warns(UserWarning, match=r"refining was stopped .*the best image up to there is the result"):
        done = run(scan, BOTH, out=tmp_path / "out")
    assert [stage.name for stage in done.stages] == ["solver", "refined"]
    assert done.refined is not None
    assert len(done.refined.history["train_loss"]) == 9
    assert done.stages[1].scored.heldout.deviance < done.stages[0].scored.heldout.deviance  # type: ignore[union-attr]
    assert done.folder == tmp_path / "out", "its results are written"
    assert (tmp_path / "out" / "summary.json").exists()


@pytest.mark.usefixtures("console")
def test_train_and_refine_by_themselves(scan: Any, press: Callable[[str, int], None]) -> None:
    press("train", 5)
    with pytest.warns(UserWarning, match="the model is that of the epochs that were made"):
        model = train(scan, SOLVE)
    assert len(model.history["train_loss"]) == 5
    first = run(scan, replace(SOLVE, epochs=2), observer=Observer()).scored
    press("refine", 7)
    with pytest.warns(UserWarning, match="the best image up to there is kept"):
        done = refine(first, BOTH)
    assert done.kept
    assert done.best.heldout.deviance < first.heldout.deviance  # type: ignore[union-attr]
    assert len(done.history["train_loss"]) == 7


@pytest.mark.usefixtures("console")
def test_refining_that_is_stopped_while_it_tries_gives_the_first_image_back(
    scan: Any, press: Callable[[str, int], None]
) -> None:
    first = run(scan, replace(SOLVE, epochs=2), observer=Observer()).scored
    press("refine", 1)
    with pytest.warns(UserWarning, match=r"refining was stopped .*the image that it began with is the result") as told:
        done = refine(first, replace(BOTH, refinement=RefinementConfig(epochs=80)))
    assert len(told) == 1
    assert not done.kept
    assert done.best is first
    assert "it was stopped" in done.note


@pytest.mark.spec("NOTE-5")
def test_in_a_script_python_answers_as_ever(scan: Any, press: Callable[[str, int], None]) -> None:
    assert not bars.is_interactive()
    seen: list[bool] = []

    def watch(event: ProgressEvent) -> None:
        seen.append(signal.getsignal(signal.SIGINT) is signal.default_int_handler)

    run(scan, replace(SOLVE, epochs=1), progress=watch)
    assert seen == [True, *seen[1:]]
    assert all(seen)


@pytest.mark.usefixtures("console")
def test_a_callers_own_observer_or_progress_is_left_alone(scan: Any) -> None:
    with module.attended(Observer(), no_progress) as (watcher, step):
        assert not watcher.returns_partial
        assert step is no_progress
    mine = ProgressBar()
    with module.attended(None, mine) as (watcher, step):
        assert type(watcher) is Observer
        assert step is mine

    class Stopping(Observer):
        def check(self, doing: str = "") -> None:
            if "'refine'" in doing:
                raise Cancelled("button")

    with pytest.raises(Cancelled, match="button") as caught:
        run(scan, BOTH, observer=Stopping())
    assert caught.value.run is not None


@pytest.mark.usefixtures("console")
def test_one_bar_is_shown_however_functions_call_each_other() -> None:
    with module.attended(None, no_progress) as (outer, _):
        assert outer.returns_partial
        with module.attended(None, no_progress) as (inner, step):
            assert not inner.returns_partial
            assert step is no_progress
    with module.attended(None, no_progress) as (again, _):
        assert again.returns_partial


@pytest.mark.usefixtures("console")
def test_the_handler_is_given_back_whatever_happens() -> None:
    before = signal.getsignal(signal.SIGINT)

    def fail() -> None:
        with module.attended(None, no_progress):
            assert signal.getsignal(signal.SIGINT) is not before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.spec("NOTE-5")
@pytest.mark.usefixtures("console")
def test_the_second_press_is_an_exception_at_once() -> None:
    def press_twice() -> None:
        with module.attended(None, no_progress):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        press_twice()


@pytest.mark.spec("NOTE-5")
@pytest.mark.usefixtures("console")
def test_the_second_press_is_one_also_when_the_first_was_met() -> None:
    def press_again() -> None:
        with module.attended(None, no_progress) as (watcher, _):
            os.kill(os.getpid(), signal.SIGINT)
            with pytest.raises(Cancelled):
                watcher.check("before x")
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        press_again()


def test_a_bar_keeps_no_image_alive() -> None:
    """Behind the image of an event are the scan, and a network's weights or all that a solver has on a device."""

    def image() -> Any:
        return None

    kept = weakref.ref(image)
    bar = ProgressBar()
    bar(ProgressEvent(stage="train", done=3, total=3, image=image))
    del image
    assert kept() is None
    assert "3/3" in bar._line()


@pytest.mark.usefixtures("console")
def test_a_press_that_comes_too_late_is_told_of() -> None:
    with pytest.warns(UserWarning, match="nothing left to stop"), module.attended(None, no_progress):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.usefixtures("console")
def test_a_program_with_a_handler_of_its_own_keeps_it_and_so_does_another_thread() -> None:
    def own(number: int, frame: Any) -> None:
        """Somebody's."""

    before = signal.signal(signal.SIGINT, own)
    try:
        with module.attended(None, no_progress):
            assert signal.getsignal(signal.SIGINT) is own
    finally:
        signal.signal(signal.SIGINT, before)
    found: list[Any] = []

    def work() -> None:
        with module.attended(None, no_progress) as (watcher, _):
            found.append((watcher.returns_partial, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(True, signal.default_int_handler)]


def test_a_wish_is_met_once() -> None:
    watcher = module.Attended(ProgressBar())
    watcher.asked = True
    with pytest.raises(Cancelled, match="interrupted before x"):
        watcher.check("before x")
    watcher.check("before y")


def test_a_training_that_has_nothing_to_show_yet_says_how_to_go_on() -> None:
    watcher = module.Attended(ProgressBar())
    stopped = Cancelled("interrupted while training", "out/training/x.ckpt")
    with pytest.raises(Cancelled, match=r"to go on, .*resume_from=Path\('out/training/x\.ckpt'\)") as caught:
        module.kept_model(stopped, watcher, "the model is half")
    assert caught.value.checkpoint_path == "out/training/x.ckpt"
    with pytest.raises(Cancelled, match=r"^interrupted while training$"):
        module.kept_model(stopped, Observer(), "the model is half")


# ---- the bar


class Page:
    """What a notebook is shown, as IPython's display hands it on."""

    def __init__(self) -> None:
        self.shown: list[Any] = []

    def display(self, content: Any, display_id: bool) -> Page:
        assert display_id
        self.shown.append(content)
        return self

    def update(self, content: Any) -> None:
        self.shown.append(content)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    """As if a kernel of Jupyter ran this process."""
    made = Page()
    shell = types.SimpleNamespace(kernel=object())
    ipython, display = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    ipython.get_ipython = lambda: shell  # type: ignore[attr-defined]
    display.display = made.display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return made


def event(stage: str, done: int, total: int, **metrics: float) -> ProgressEvent:
    return ProgressEvent(stage=stage, done=done, total=total, metrics=metrics)


def test_a_notebook_sees_bars_and_keeps_one_line(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bars.is_notebook()
    assert bars.is_interactive()
    monkeypatch.setattr(bars, "_EVERY_S", 0.0)
    with ProgressBar() as bar:
        bar(event("train", 2, 5, train_loss=0.125, epoch=2.0))
        first = page.shown[-1]._repr_html_()
        bar(event("<b>mine", 1, 4))
        bar.note("<i>wait")
    assert "<progress style='width:16em' value='2' max='5'>" in first
    assert "training" in first
    assert "2/5 loss 0.125" in first
    second = page.shown[-2]._repr_html_()
    assert "&lt;b&gt;mine" in second
    assert "&lt;i&gt;wait" in second
    last = page.shown[-1]._repr_html_()
    assert last.startswith("training 2/5 · &lt;b&gt;mine 1/4 · ")
    assert "<progress" not in last
    assert " s · " in last
    assert repr(page.shown[-1])


def test_a_page_is_not_redrawn_at_every_step_and_the_last_is_always_shown(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(bars.time, "monotonic", lambda: now[0])
    bar = ProgressBar()
    for done in range(1, 1001):
        now[0] += 0.001
        bar(event("train", done, 1000))
    assert 3 <= len(page.shown) <= 9
    assert "1000/1000" in repr(page.shown[-1])


def test_nothing_is_drawn_without_a_step_or_without_anybody_to_see(
    page: Page, capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressBar():
        pass
    assert page.shown == []
    bar = ProgressBar()
    bar._kind = "none"
    bar(event("train", 1, 1))
    bar.close()
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_a_terminal_gets_a_bar_of_rich_that_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with ProgressBar() as bar:
        assert bar._kind == "terminal"
        bar(event("refine", 40, 40, test_loss=0.5))
        assert bar._bar is not None
        task = bar._bar.tasks[0]
        assert (task.completed, task.total, task.description) == (40, 40, "refining")
        assert "validation loss 0.5" in task.fields["figures"]
    assert bar._bar is None
    assert "refining" in stream.getvalue()


def test_a_bar_in_a_file_writes_nothing(scan: Any, capfd: pytest.CaptureFixture[str]) -> None:
    with ProgressBar() as bar:
        run(scan, replace(SOLVE, epochs=1), progress=bar)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
