"""Job after job in one process: the engine keeps TensorFlow from advising the caller on the engine's own code."""

from __future__ import annotations

import warnings

import pytest
from engines.engine_scans import image_of, lay_out, make_scan, train, vary

from ptycho_core.plugins.registry import load_backend

pytestmark = pytest.mark.tensorflow


def test_many_jobs_in_one_process_say_nothing(caplog, capfd):
    """A notebook trains and reconstructs all day; TensorFlow warns of functions that are traced anew each time."""
    engine, scan = load_backend("tensorflow"), make_scan(rows=2, columns=3)
    config = vary(epochs=1, batch_size=6, model={"sweeps": 1})
    train(engine, scan, config)  # whatever is said at the very start is another matter
    capfd.readouterr()
    caplog.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(6):
            model = train(engine, scan, config)
            image_of(engine, model, scan)
            engine.predict_patches(model, lay_out(scan))
    assert [record.getMessage()[:120] for record in caplog.records] == []
    assert capfd.readouterr() == ("", "")
