"""Provenance: what is needed to repeat a run, and nothing that steers one."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
from run_engine import CONFIG, make_scan

from ptycho_core.api.prepare import ensure_container
from ptycho_core.data.raw import Source
from ptycho_core.provenance import collect_provenance, machine, package_versions


def test_it_binds_time_machine_versions_data_and_config() -> None:
    then = datetime(2031, 5, 6, 9, 8, 7, 654321, tzinfo=timezone(timedelta(hours=2)))
    found = collect_provenance(
        CONFIG,
        [Source(path="a", details={"seed": 4}), Source(path="b")],
        engine_packages=("pluggy", "no-such-package"),
        now=then,
    )
    assert found["time_utc"] == "2031-05-06T07:08:07+00:00"
    assert found["seed"] == 3
    assert found["data"]["details"] == {"seed": 4}
    assert [source["path"] for source in found["further_data"]] == ["b"]
    assert found["config"]["group_size"] == 4
    assert "pluggy" in found["versions"]
    assert "no-such-package" not in found["versions"]
    assert found["versions"]["numpy"] == np.__version__
    assert "pluggy" not in package_versions()
    assert found["machine"]["python"] == ".".join(str(n) for n in sys.version_info[:3])
    assert machine()["processor"]
    assert machine()["processors"] >= 1
    recent = datetime.fromisoformat(collect_provenance(CONFIG, [Source()])["time_utc"])
    assert abs((datetime.now(UTC) - recent).total_seconds()) < 60


def test_what_a_source_tells_steers_nothing() -> None:
    told = Source(path="a.npz", details={"subsample": 3, "seed": 99, "n_subsample": 5, "test_fraction": 0.9})
    one, two = (ensure_container(make_scan(source=source), CONFIG) for source in (told, Source()))
    np.testing.assert_array_equal(one.role, two.role)
