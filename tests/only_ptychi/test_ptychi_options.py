"""Settings of the pty-chi engine: each has an effect, or is refused before anything is read."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from ptychi_scans import CONFIG, config_of, make_scan, train

from ptycho_backend_ptychi.options import ALGORITHMS, PtychiOptions
from ptycho_core.config import RefinementConfig, TrainingConfig
from ptycho_core.config_mapping import config_from_mapping, config_to_mapping
from ptycho_core.errors import ConfigError

pytestmark = pytest.mark.ptychi

EFFECTS = [
    ("lsqml", "batch_frames", 9),
    ("rpie", "batch_frames", 2),
    ("autodiff", "batch_frames", 9),
    ("lsqml", "batching", "uniform"),
    ("lsqml", "batching", "compact"),
    ("epie", "batching", "compact"),
    ("rpie", "alpha", 0.4),
    ("epie", "alpha", 0.4),
    ("rpie", "probe_alpha", 0.4),
    ("epie", "probe_alpha", 0.4),
    ("lsqml", "damping", 0.5),
    ("lsqml", "step_from_first_mode", False),
    ("lsqml", "noise_std", 0.8),
    ("rpie", "momentum", 0.5),
    ("epie", "momentum", 0.5),
    ("dm", "relaxation", 0.7),
    ("raar", "relaxation", 0.9),
    ("autodiff", "optimizer", "sgd"),
    ("dm", "amplitude_limit", 1.02),
    ("raar", "amplitude_limit", 1.02),
    *((algorithm, "object_step", 0.4) for algorithm in ALGORITHMS),
    *((algorithm, "probe_step", 0.3) for algorithm in ALGORITHMS),
    *((algorithm, "probe_start", 2) for algorithm in ALGORITHMS),
    *((algorithm, "orthogonalise", "none") for algorithm in ALGORITHMS),
    *((algorithm, "total_variation", 0.02) for algorithm in ALGORITHMS),
    ("lsqml", "orthogonalise", "gs"),
]


def small(algorithm):
    """Several updates an epoch, where an algorithm has them."""
    return {} if algorithm in ("dm", "raar") else {"batch_frames": 7}


@pytest.fixture(scope="module")
def scan():
    return make_scan(2, step=4.5, noise=True, total=1e4)


@pytest.fixture(scope="module")
def defaults(scan):
    made = {}

    def get(algorithm):
        if algorithm not in made:
            made[algorithm] = train(scan, config_of(algorithm, small(algorithm), probe_trainable=True))
        return made[algorithm]

    return get


@pytest.mark.spec("BE-2")
@pytest.mark.parametrize(("algorithm", "name", "value"), EFFECTS)
def test_a_setting_has_an_effect(scan, defaults, algorithm, name, value):
    usual = defaults(algorithm)
    other = train(scan, config_of(algorithm, small(algorithm) | {name: value}, probe_trainable=True))
    difference = max(np.abs(other.object - usual.object).max(), np.abs(other.probe - usual.probe).max())
    assert difference > 1e-4


def test_momentum_accelerates_the_object_of_lsqml(scan):
    """It starts when three epochs agree, so it takes more of them to see."""
    compact = {"batching": "compact", "batch_frames": 9}
    plain, faster = (
        train(scan, config_of("lsqml", compact | more, epochs=7)).history["train_loss"][-1]
        for more in ({}, {"momentum": 1.0})
    )
    assert faster < 0.98 * plain


def test_the_noise_model_is_the_loss(scan):
    amplitude, poisson = (train(scan, config_of("lsqml", loss=loss)) for loss in ("amplitude", "poisson"))
    assert np.abs(amplitude.object - poisson.object).max() > 1e-3
    assert poisson.history["train_loss"][-1] < poisson.history["train_loss"][0] < 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"algorithm": "lsqlm"}, "allowed: lsqml, rpie.*Did you mean 'lsqml'"),
        ({"algorithm": "dm", "batch_frames": 4}, "batch_frames = 4 has no effect on algorithm 'dm'.*lsqml or rpie"),
        ({"alpha": 0.2}, "alpha = 0.2 has no effect on algorithm 'lsqml'"),
        ({"algorithm": "rpie", "damping": 0.2}, "damping = 0.2 has no effect"),
        ({"algorithm": "autodiff", "momentum": 0.2}, "momentum = 0.2 has no effect"),
        (
            {"algorithm": "autodiff", "position_correction": "gradient"},
            "position_correction = 'gradient' has no effect",
        ),
        ({"momentum": 0.5}, "momentum = 0.5 needs batching = 'compact'"),
        ({"algorithm": "rpie", "momentum": 1.5}, "momentum = 1.5; with algorithm 'rpie' it is between 0 and 0.999"),
        ({"algorithm": "raar", "relaxation": 0.4}, "relaxation = 0.4; with algorithm 'raar'"),
        ({"algorithm": "dm", "object_step": 1.2}, "object_step = 1.2; with algorithm 'dm'"),
        ({"object_step": 0.0}, "object_step = 0.0"),
        ({"batch_frames": 0}, "batch_frames = 0"),
        ({"batch_frames": 2.5}, "batch_frames = 2.5 is a float"),
        ({"batching": "dense"}, "allowed: random, uniform, compact"),
    ],
)
def test_what_has_no_effect_or_sense_is_refused(given, words):
    with pytest.raises(ConfigError, match=words):
        PtychiOptions(**given)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (config_of("rpie", loss="poisson"), "loss = 'poisson' is not supported by algorithm 'rpie'"),
        (config_of("autodiff", loss="poisson"), "loss = 'poisson' is not supported by algorithm 'autodiff'"),
        (config_of("lsqml", {"noise_std": 1.0}, loss="poisson"), "noise_std = 1.0 has no effect"),
        (config_of("lsqml", {"position_step": 0.5}), "position_step = 0.5 has no effect while refinement.positions"),
        (
            config_of("lsqml", {"probe_step": 0.5}, refinement=RefinementConfig(engine="none")),
            "probe_step = 0.5 has no effect while probe_trainable = False",
        ),
    ],
)
def test_a_config_that_the_algorithm_ignores_is_refused(scan, config, words):
    with pytest.raises(ConfigError, match=words):
        train(scan, config)


def test_options_pass_through_plain_data():
    config = config_of("rpie", {"alpha": 0.3, "batching": "uniform"})
    plain = json.loads(json.dumps(config_to_mapping(config)))
    assert config_from_mapping(TrainingConfig, plain) == config
    with pytest.raises(ConfigError, match=r"alhpa.*Did you mean 'alpha'"):
        config_from_mapping(TrainingConfig, plain | {"options": {"ptychi": {"alhpa": 0.3}}})


def test_settings_of_another_engine_are_not_ours(scan):
    from ptycho_backend_ptychi.choices import options_of

    assert options_of(replace(CONFIG, options=())) == PtychiOptions()


def test_plugin_and_options_import_no_framework():
    code = (
        "import sys, ptycho_backend_ptychi.plugin as p, ptycho_backend_ptychi.choices\n"
        "assert p.ptycho_backend().options\n"
        "sys.exit(bool({'torch', 'ptychi', 'pandas', 'sklearn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
