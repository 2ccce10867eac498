"""Where an image lies on the client's array, and settings of the client that come to settings of ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ptycho_core.errors import ArchiveError, ConfigError

pytestmark = pytest.mark.ptychodus


def image(shape: tuple[int, int]) -> np.ndarray:
    rng = np.random.default_rng(3)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


@pytest.mark.spec("PTYD-3")
@pytest.mark.parametrize("origin", [(2, 3), (-4, 1), (2, -7), (60, 30), (-2, -2)])
def test_a_pixel_keeps_its_place_from_the_middle_of_the_array(origin: tuple[int, int]) -> None:
    from ptycho_core_ptychodus.canvas import on_grid

    grid, ours = (73, 58), image((40, 31))
    ours[:2], ours[:, -3:] = 0, 0  # no frame reached these
    array, beyond = on_grid(ours, np.array(origin, float), grid)
    assert array.shape == (73 + 2 * beyond[0], 58 + 2 * beyond[1])
    for y, x in ((2, 0), (17, 20), (39, 27)):
        from_middle = np.array(origin) + np.array([y, x]) - (np.array(grid) - 1) / 2
        there = from_middle + (np.array(array.shape) - 1) / 2
        assert array[tuple(there.astype(int))] == ours[y, x]
    assert np.count_nonzero(array) == np.count_nonzero(ours)


def test_it_grows_no_more_than_it_must() -> None:
    from ptycho_core_ptychodus.canvas import on_grid

    ours = image((40, 31))
    assert on_grid(ours, np.array([33.0, 27.0]), (73, 58))[1] == (0, 0)
    assert on_grid(ours, np.array([34.0, 27.0]), (73, 58))[1] == (1, 0)
    ours[-1] = 0
    assert on_grid(ours, np.array([34.0, 27.0]), (73, 58))[1] == (0, 0)


def test_the_shape_of_an_object_about_the_middle_of_its_scan_is_known() -> None:
    from ptycho_core_ptychodus.canvas import likely_grid

    where = np.array([[15.5, 20.25], [90.5, 30.0], [40.1, 66.75]])
    assert likely_grid(where) == ((107, 88), True)
    assert not likely_grid(where + np.array([0.2, 0.0]))[1]


def test_settings_of_the_tensorflow_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    from ptycho_core_ptychodus.settings import job_of_tf
    from ptycho_core_ptychodus.tf_configs import ModelConfig, TrainingConfig

    monkeypatch.setenv("PTYCHO_BACKEND", "numpy")
    plain = job_of_tf(TrainingConfig()).config
    assert (plain.backend, plain.method, plain.epochs, plain.loss, plain.batch_size) == (
        "numpy", "solver", 50, "poisson", None,
    )  # fmt: skip
    assert plain.refinement.engine == "auto"
    said = job_of_tf(
        TrainingConfig(nepochs=7, batch_size=32, nll_weight=0.0, mae_weight=0.4, nphotons=3e5, probe_trainable=True)
    ).config
    assert (said.epochs, said.batch_size, said.loss, said.nphotons, said.probe_trainable) == (
        7, 32, "amplitude", 3e5, True,
    )  # fmt: skip
    for changed in (ModelConfig(n_filters_scale=3), ModelConfig(amp_activation="relu")):
        with pytest.raises(ConfigError, match=r"ModelConfig\.\w+ = .* has no effect .* back to (2|'sigmoid')"):
            job_of_tf(TrainingConfig(model=changed))
    with pytest.raises(ConfigError, match=r"nll_weight = 1 and mae_weight = 0\.5"):
        job_of_tf(TrainingConfig(mae_weight=0.5))
    monkeypatch.setenv("PTYCHO_BACKEND", "tensorflow")
    network = job_of_tf(TrainingConfig(model=ModelConfig(gridsize=3), intensity_scale_trainable=False)).config
    assert (network.backend, network.method, network.group_size, network.scale_trainable) == (
        "tensorflow", "network", 9, False,
    )  # fmt: skip


def test_settings_of_the_torch_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    from ptycho_core_ptychodus.settings import job_of_torch
    from ptycho_core_ptychodus.torch_configs import DataConfig, InferenceConfig, ModelConfig, TrainingConfig

    monkeypatch.setenv("PTYCHO_BACKEND", "auto")
    plain = job_of_torch(DataConfig(), ModelConfig(), TrainingConfig(device="cpu"), InferenceConfig())
    assert (plain.config.method, plain.config.epochs, plain.runtime.accelerator) == ("solver", 50, "cpu")
    job = job_of_torch(
        DataConfig(C=9, grid_size=(3, 3)),
        ModelConfig(C_model=9, C_forward=9, decoder_last_amp_channels=9, loss_function="MAE"),
        TrainingConfig(
            model_name="unrolled", scheduler="Cosine", learning_rate=2e-3, gradient_clip_val=0.5, num_workers=2
        ),
        InferenceConfig(),
    )
    network = job.config
    assert network.model is not None
    assert (network.model.generator, network.group_size, network.schedule, network.learning_rate) == (
        "unrolled", 9, "cosine", 2e-3,
    )  # fmt: skip
    assert (network.loss, network.gradient_clip_norm, job.runtime.num_workers) == ("amplitude", 0.5, 2)
    with pytest.raises(ConfigError, match=r"DataConfig\.C = 9 has no effect"):
        job_of_torch(DataConfig(C=9), ModelConfig(), TrainingConfig(), InferenceConfig())
    unet = TrainingConfig(model_name="probe_unet")
    with pytest.raises(ConfigError, match=r"C = 9 and grid_size = \(2, 2\)"):
        job_of_torch(DataConfig(C=9), ModelConfig(), unet, InferenceConfig())
    with pytest.raises(ConfigError, match="scheduler = 'Warm'; allowed: Default, Exponential, Cosine"):
        job_of_torch(DataConfig(), ModelConfig(), TrainingConfig(model_name="cnn", scheduler="Warm"), InferenceConfig())
    with pytest.raises(ConfigError, match="loss_function = 'L2'; allowed: Poisson, MAE"):
        job_of_torch(DataConfig(), ModelConfig(loss_function="L2"), TrainingConfig(), InferenceConfig())


@pytest.mark.spec("PTYD-5")
def test_an_engine_is_chosen_by_what_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ptycho_core_ptychodus import engine

    monkeypatch.setattr(engine, "_GPU", tmp_path / "no GPU")
    for value in (None, "", "auto"):
        monkeypatch.delenv("PTYCHO_BACKEND", raising=False)
        if value is not None:
            monkeypatch.setenv("PTYCHO_BACKEND", value)
        assert engine.chosen_engine(network=False)[0] == "numpy"
    assert engine.chosen_engine(network=True)[0] == "pytorch"
    monkeypatch.setattr(engine, "_GPU", tmp_path)
    assert engine.chosen_engine(network=False) == ("pytorch", "for the GPU")


@pytest.mark.spec("PTYD-7")
@pytest.mark.parametrize("damage", ["empty", "foreign", "cut", "arrays", "version"])
def test_a_damaged_archive_is_refused(damage: str, tmp_path: Path) -> None:
    import json
    import zipfile

    from ptycho_core_ptychodus.archive import ARCHIVE_NAME, read_archive

    path = tmp_path / ARCHIVE_NAME
    if damage == "empty":
        path.write_bytes(b"")
    elif damage in ("cut", "arrays"):
        with zipfile.ZipFile(path, "w") as out:
            for name in ("model.ptycho", "arrays.npz", "adapter.json"):
                out.writestr(name, b"{" if damage == "cut" else b"{}" if name.endswith("json") else b"PK\x03\x04")
    else:
        with zipfile.ZipFile(path, "w") as out:
            for name in ("model.ptycho", "arrays.npz", "adapter.json")[: 3 if damage == "version" else 1]:
                about = {"format": "ptycho-core-ptychodus", "version": 99, "client": {}}
                out.writestr(name, json.dumps(about) if name.endswith("json") else _npz() if "npz" in name else b"x")
    with pytest.raises(
        ArchiveError, match=ARCHIVE_NAME.replace(".", r"\.") if damage not in ("cut", "arrays") else "damaged"
    ):
        read_archive(tmp_path)


def _npz() -> bytes:
    import io

    out = io.BytesIO()
    np.savez(
        out, probe=np.ones((1, 8, 8), complex), probe_guess=np.ones((1, 8, 8), complex), positions_px=np.ones((3, 2))
    )
    return out.getvalue()
