"""Safe points, and an application that stops a run through its observer."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from ptycho_core.api.observe import Observer
from ptycho_core.api.run import run
from ptycho_core.config import RefinementConfig, TrainingConfig
from ptycho_core.errors import Cancelled
from ptycho_core.io.result_folder import verify_result
from ptycho_core.report import write
from ptycho_core.simulation import SimulationConfig, simulate_scan
from ptycho_core.stopping import safe_point, stoppable, to_its_end


def refuse() -> None:
    raise Cancelled("enough")


def test_a_safe_point_asks_whoever_looks_and_nobody_else() -> None:
    safe_point()
    with stoppable(refuse):
        with pytest.raises(Cancelled, match="enough"):
            safe_point()
        with to_its_end():
            safe_point()
            with stoppable(refuse), pytest.raises(Cancelled):
                safe_point()
        with pytest.raises(Cancelled):
            safe_point()
    safe_point()


def test_threads_do_not_stop_each_other() -> None:
    raised: list[BaseException] = []

    def work() -> None:
        try:
            safe_point()
        except Cancelled as error:
            raised.append(error)

    with stoppable(refuse):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert raised == []


class Button(Observer):
    """Wants to stop from the k-th look on."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after, self.looks = after, 0

    def check(self, doing: str = "") -> None:
        self.looks += 1
        if self.looks > self.after:
            raise Cancelled(f"enough, {doing}")


CONFIG = TrainingConfig(
    backend="numpy", method="solver", epochs=2, refinement=RefinementConfig(engine="numpy", epochs=2, positions=False)
)


@pytest.mark.spec("CMD-6")
def test_an_application_stops_a_run_and_loses_nothing_that_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every look once; there is an image in the folder from the moment that it was made."""
    monkeypatch.setattr(write, "write_looks", lambda *given, **named: ())
    raw = simulate_scan(
        SimulationConfig(object="dead_leaves", N=16, grid_shape=(5, 4), step_px=2.3, photons=1e5, seed=5)
    ).raw
    whole = Button(10**6)
    run(raw, CONFIG, out=tmp_path / "whole", observer=whole)
    written = []
    for after in range(whole.looks):
        folder = tmp_path / str(after)
        with pytest.raises(Cancelled, match="enough") as caught:
            run(raw, CONFIG, out=folder, observer=Button(after))
        error = caught.value
        written.append(error.results_path is not None)
        assert written[-1] == (folder / "summary.json").exists()
        if written[-1]:
            assert verify_result(folder) == []
            assert error.run is not None
            assert np.isfinite(error.run.image.object).all()
        elif error.model_path is None and folder.exists():
            assert not (folder / "training" / "model.ptycho").exists()
    assert written == sorted(written), "once there is an image, no later wish loses it"
    assert written[-1]
    assert not written[0]
