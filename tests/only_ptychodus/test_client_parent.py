"""The parent process of ptychodus: it finds the reconstructors, makes configs and pickles them, without a framework."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from client_scan import exported, libraries, parts

pytestmark = pytest.mark.ptychodus

FRAMEWORKS = ("torch", "lightning", "tensorflow", "keras")


def test_ptychodus_is_the_one_from_the_index() -> None:
    assert metadata.version("ptychodus") == "1.7.0"


def test_both_libraries_offer_their_reconstructors() -> None:
    names = [(library.name, [reconstructor.name for reconstructor in library]) for library in libraries()]
    assert names == [("PtychoPINN", ["PINN", "Supervised"]), ("PtychoPINN-Torch", ["Unsupervised", "Supervised"])]


SCRIPT = """
import json, pickle, sys
from pathlib import Path
from ptychodus.api.settings import SettingsRegistry
from ptychodus.model.ptychopinn import PtychoPINNReconstructorLibrary
from ptychodus.model.ptychopinn_torch import PtychoPINNTorchReconstructorLibrary
from ptychodus.model.ptychopinn import reconstructor as tf
from ptychodus.model.ptychopinn_torch import reconstructor as torch

registry = SettingsRegistry()
library, other = PtychoPINNReconstructorLibrary(registry, False), PtychoPINNTorchReconstructorLibrary(registry, False)
training = tf._build_training_config(library.model_settings, library.training_settings, "PINN")
assert training.model.N == 0
training.model.N = 64
inference = tf._build_inference_config(library.model_settings, "PINN", 64, is_developer_mode_enabled=False)
configs = torch._build_configs(
    "Unsupervised", other.data_settings, other.model_settings, other.training_settings, other.inference_settings
)
for config in (training, inference, *configs):
    again = pickle.loads(pickle.dumps(config))
    assert again == config and type(again) is type(config), config
configs[2].n_devices = 3
print(json.dumps([sorted({name.partition(".")[0] for name in sys.modules}), training.model.N]))
"""


@pytest.mark.spec("PTYD-2")
def test_configs_are_made_and_pickled_without_a_framework() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=True)
    modules, side = json.loads(done.stdout.splitlines()[-1])
    assert side == 64
    assert "ptycho" in modules
    assert "ptycho_torch" in modules
    assert not set(FRAMEWORKS) & set(modules)


@pytest.mark.spec("PTYD-2")
def test_defaults_are_those_that_the_client_sends() -> None:
    from ptychodus.model.ptychopinn import reconstructor as tf
    from ptychodus.model.ptychopinn_torch import reconstructor as torch

    from ptycho_core_ptychodus import tf_configs, torch_configs

    library, other = libraries()
    sent = tf._build_training_config(library.model_settings, library.training_settings, "PINN")
    sent.model.N = tf_configs.ModelConfig().N
    assert sent == tf_configs.TrainingConfig()
    data, model, training, inference, _ = torch._build_configs(
        "Unsupervised", other.data_settings, other.model_settings, other.training_settings, other.inference_settings
    )
    assert data == torch_configs.DataConfig()
    assert model == torch_configs.ModelConfig()
    assert training == torch_configs.TrainingConfig()
    assert inference == torch_configs.InferenceConfig()


@pytest.mark.spec("PTYD-2")
def test_numbers_that_are_left_to_ptycho_core_are_the_ones_that_the_client_sends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each is told from one that somebody has chosen by the client's default alone; a drift of it must be seen."""
    import inspect

    from ptycho.raw_data import RawData
    from ptychodus.model.ptychopinn import reconstructor as tf
    from ptychodus.model.ptychopinn_torch import reconstructor as torch

    from ptycho_core_ptychodus import tf_configs, tf_flow, torch_configs
    from ptycho_core_ptychodus.settings import job_of_tf, job_of_torch

    monkeypatch.setenv("PTYCHO_BACKEND", "numpy")
    library, other = libraries()
    sent = library.inference_settings.n_nearest_neighbors.get_value(), library.inference_settings.n_samples.get_value()
    assert sent == (tf_flow._NEIGHBOURS, tf_flow._SAMPLES)
    defaults = inspect.signature(RawData.generate_grouped_data).parameters
    assert (defaults["K"].default, defaults["nsamples"].default) == sent

    def of_tf(**changed: object) -> object:
        return job_of_tf(tf_configs.TrainingConfig(**changed)).config

    def of_torch(**changed: object) -> object:
        training = torch_configs.TrainingConfig(model_name="probe_unet", device="cpu", **changed)
        return job_of_torch(
            torch_configs.DataConfig(), torch_configs.ModelConfig(), training, torch_configs.InferenceConfig()
        )

    training = tf._build_training_config(library.model_settings, library.training_settings, "PINN")
    batch, photons = training.batch_size, training.nphotons
    assert of_tf(batch_size=batch).batch_size is None
    assert of_tf(batch_size=2 * batch).batch_size == 2 * batch
    assert (of_tf(nphotons=photons).nphotons, of_tf(nphotons=3e5).nphotons) == (None, 3e5)
    _, _, training, _, _ = torch._build_configs(
        "Unsupervised", other.data_settings, other.model_settings, other.training_settings, other.inference_settings
    )
    batch, workers = training.batch_size, training.num_workers
    assert of_torch(batch_size=batch).config.batch_size not in (batch, 2 * batch), "what suits the network"
    assert of_torch(batch_size=2 * batch).config.batch_size == 2 * batch
    assert of_torch(num_workers=workers).runtime.num_workers == 0
    assert of_torch(num_workers=workers + 1).runtime.num_workers == workers + 1


@pytest.mark.spec("PTYD-6")
@pytest.mark.parametrize(
    ("which", "group", "name", "value"),
    [(0, "training_settings", "intensity_scale_trainable", False), (1, "training_settings", "learning_rate", 0.5)],
)  # fmt: skip
def test_a_setting_without_effect_is_refused_by_its_name(
    which: int, group: str, name: str, value: object, tmp_path: Path
) -> None:
    from ptychodus.model.processing._subprocess_protocol import ChildError

    library = libraries()[which]
    getattr(getattr(library, group), name).set_value(value)
    reconstructor = next(iter(library))
    data = exported(reconstructor, tmp_path / "data", parts(), parts())
    (tmp_path / "model").mkdir()
    with pytest.raises(ChildError, match=rf"ConfigError: .*{name}") as caught:
        list(reconstructor.train(data, tmp_path / "model"))
    assert not list((tmp_path / "model").rglob("*.zip"))
    assert isinstance(caught.value.child_exception, ValueError)
    assert pickle.loads(pickle.dumps(caught.value.child_exception)).args == caught.value.child_exception.args


@pytest.mark.spec("PTYD-6")
@pytest.mark.parametrize("which", [0, 1])
def test_supervised_training_is_refused(which: int, tmp_path: Path) -> None:
    from ptychodus.model.processing._subprocess_protocol import ChildError

    supervised = list(libraries()[which])[1]
    data = exported(supervised, tmp_path / "data", parts(), parts())
    (tmp_path / "model").mkdir()
    with pytest.raises(ChildError, match="'Supervised' learns from an object that is known already"):
        list(supervised.train(data, tmp_path / "model"))
