"""The flat dict of the old interface."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

import ptycho_core
from ptycho_core import legacy
from ptycho_core.config import TrainingConfig
from ptycho_core.errors import ConfigError
from ptycho_core.runtime import Runtime


@pytest.mark.spec("CDI-3")
def test_every_key_of_the_table_has_its_value():
    cfg: dict = {"mine": 1}
    config = TrainingConfig(
        backend="other", group_size=9, neighbor_pool_size=12, n_groups=5, n_subsample=40, epochs=3, batch_size=2,
        loss="poisson", probe_trainable=True, scale_trainable=True, nphotons=1e5, seed=11,
    )  # fmt: skip
    legacy.update_legacy_dict(cfg, config, Runtime(output_dir=Path("o")), side=64)
    assert cfg == {
        "mine": 1, "N": 64, "gridsize": 3, "group_size": 9, "object.big": True, "probe.big": True, "probe.mask": False,
        "probe.trainable": True, "intensity_scale.trainable": True, "pad_object": False, "nphotons": 1e5, "nepochs": 3,
        "batch_size": 2, "nll_weight": 1.0, "mae_weight": 0.0, "neighbor_count": 12, "n_groups": 5, "n_subsample": 40,
        "model_type": "pinn", "backend": "other", "seed": 11, "output_dir": "o",
    }  # fmt: skip
    documented = set(re.findall(r"^``([\w.]+)`` ", legacy.__doc__, re.MULTILINE))
    assert documented - {"params.cfg"} == set(cfg) - {"mine"}


def test_nothing_is_left_of_an_earlier_config():
    cfg: dict = {"mine": 1}
    config = TrainingConfig(group_size=4, nphotons=7.0, n_groups=2)
    legacy.update_legacy_dict(cfg, config, Runtime(output_dir=Path("o")), side=64)
    legacy.update_legacy_dict(cfg, TrainingConfig(method="network", group_size=5))
    assert not {"N", "gridsize", "nphotons", "n_groups", "n_subsample", "output_dir"} & set(cfg)
    assert (cfg["mae_weight"], cfg["nll_weight"], cfg["neighbor_count"], cfg["mine"]) == (1.0, 0.0, 4, 1)
    legacy.update_legacy_dict(cfg, TrainingConfig(group_size=1))
    assert (cfg["gridsize"], cfg["object.big"]) == (1, False)


def test_another_config_type_is_refused():
    with pytest.raises(ConfigError, match=r"dict; it must be a TrainingConfig"):
        legacy.update_legacy_dict({}, {"epochs": 3})


@pytest.mark.spec("CDI-3")
def test_the_dict_is_written_before_engines_are_loaded_and_read_by_nothing():
    package = Path(ptycho_core.__file__).parent
    uses = [
        line
        for path in package.rglob("*.py")
        if path.name != "legacy.py"
        for line in path.read_text(encoding="utf-8").splitlines()
        if "params.cfg" in line
    ]
    assert uses
    assert all("legacy.update_legacy_dict(legacy.params.cfg, " in line for line in uses), uses


def test_importing_writes_nothing_and_config_has_the_fields_that_are_written():
    assert legacy._Params().cfg == {}
    assert {"epochs", "nphotons", "scale_trainable"} <= {f.name for f in fields(TrainingConfig)}
