"""The same wrong input is refused by both engines, with the same kind of error and the same words.

Each case is a function that is given an engine, a scan and a folder, and must raise. What two engines say is compared
after their names, and those of their frameworks, were taken out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from both_engines import NAMES, hard_scan, untrained
from engines.engine_scans import (
    CONFIG,
    EXACT,
    config_for,
    exact,
    image_of,
    interrupted,
    lay_out,
    make_scan,
    patches_of,
    train,
    vary,
)

import ptycho_core
from ptycho_core.bundle import read_bundle, write_bundle
from ptycho_core.data.container import PtychoDataContainer
from ptycho_core.data.raw import RawData
from ptycho_core.errors import (
    ArchiveError,
    BackendError,
    Cancelled,
    CollapseError,
    ConfigError,
    DataError,
    OutputError,
)
from ptycho_core.protocol import ReconstructionBackend

pytestmark = pytest.mark.both

CNN = {"generator": "cnn", "width": 2}

Case = Callable[[ReconstructionBackend, RawData, Path], Any]


def words_of(error: BaseException) -> str:
    """A message without what may differ: names of engines, of frameworks and of their devices."""
    text = re.sub("pytorch|tensorflow", "ENGINE", str(error))
    text = re.sub("PyTorch|TensorFlow", "FRAMEWORK", text)
    return text.replace("auto, cpu, cuda, mps", "auto, cpu, cuda")  # Apple's devices, which one framework has


def cuda_is_here() -> bool:
    import torch

    return torch.cuda.is_available()


def facade(engine: ReconstructionBackend, scan: RawData, **changes: Any) -> Any:
    """Train through the facade, which refuses what an engine cannot do before it is asked."""
    return ptycho_core.train_cdi_model(*scan.split(0.25, seed=1), *config_for(engine, **changes))


def container(scan: RawData, **roles: Any) -> PtychoDataContainer:
    return PtychoDataContainer.of(scan, **roles)


def stopped(engine: ReconstructionBackend, scan: RawData, folder: Path) -> Path:
    """A checkpoint of the base config in the second of its two epochs."""
    path = folder / engine.name / "checkpoints" / "interrupted.ckpt"
    if not path.exists():
        interrupted(engine, scan, vary(output_dir=folder / engine.name), 18)
    return path


def resume(**changes: Any) -> Case:
    def ask(engine: ReconstructionBackend, scan: RawData, folder: Path) -> Any:
        return train(engine, scan, vary(vary(resume_from=stopped(engine, scan, folder)), **changes))

    return ask


def resume_file(name: str, content: bytes | None = None) -> Case:
    def ask(engine: ReconstructionBackend, scan: RawData, folder: Path) -> Any:
        if content is not None:
            (folder / name).write_bytes(content)
        return train(engine, scan, vary(resume_from=folder / name))

    return ask


def bundle(**changes: Any) -> Case:
    """Load a bundle that was changed, straight from the engine and not through the facade."""

    def ask(engine: ReconstructionBackend, scan: RawData, folder: Path) -> Any:
        engine.save(untrained(scan, CONFIG, engine.name), folder / "model.ptycho")
        known = read_bundle(folder / "model.ptycho")
        write_bundle(folder / "model.ptycho", replace(known, **changes))
        return engine.load(folder / "model.ptycho")

    return ask


def loaded_by_the_facade(**changes: Any) -> Case:
    def ask(engine: ReconstructionBackend, scan: RawData, folder: Path) -> Any:
        engine.save(untrained(scan, CONFIG, engine.name), folder / "model.ptycho")
        known = read_bundle(folder / "model.ptycho")
        write_bundle(folder / "model.ptycho", replace(known, **changes))
        return ptycho_core.load_model(folder / "model.ptycho", backend=engine.name)

    return ask


class Torn:
    """Frames of a file that cannot be read any more."""

    def __init__(self, scan: RawData) -> None:
        self._frames, self.left = scan.frames, 3

    @property
    def shape(self) -> tuple[int, int, int]:
        return self._frames.shape

    def read(self, frames: Any) -> np.ndarray:
        self.left -= 1
        if self.left < 0:
            raise DataError("scan.h5: frames can no longer be read.")
        return self._frames.read(frames)


def torn_data(engine: ReconstructionBackend, scan: RawData, folder: Path) -> Any:
    data = container(scan)
    return engine.train([replace(data, raw=replace(scan, frames=Torn(scan)))], *config_for(engine, model={"sweeps": 0}))


def resumed_with_another_scan(engine: ReconstructionBackend, scan: RawData, folder: Path) -> Any:
    config = config_for(engine, resume_from=stopped(engine, scan, folder), n_groups=12)
    return engine.train([container(scan), container(hard_scan(seed=5))], *config)


def beyond_the_image(engine: ReconstructionBackend, scan: RawData, folder: Path) -> Any:
    data = container(scan)
    image = image_of(engine, untrained(scan), scan)
    small = replace(image, object=image.object[:17, :18], coverage=image.coverage[:17, :18])
    return engine.expected_counts(small, data, data.train_frames)


def fault_of_the_caller(engine: ReconstructionBackend, scan: RawData, folder: Path) -> Any:
    def progress(event: Any) -> None:
        raise ZeroDivisionError("the caller's own")

    return train(engine, scan, progress=progress)


def wish_to_stop(engine: ReconstructionBackend, scan: RawData, folder: Path) -> Any:
    def progress(event: Any) -> None:
        raise Cancelled("enough")

    return train(engine, scan, progress=progress)


REFUSED_BY_THE_FACADE: dict[str, tuple[type[BaseException], Case]] = {
    "unknown generator": (ConfigError, lambda e, s, f: facade(e, s, model={"generator": "probe_net"})),
    "unknown accelerator": (ConfigError, lambda e, s, f: facade(e, s, accelerator="tpu")),
    "unknown accelerator, later": (
        ConfigError,
        lambda e, s, f: ptycho_core.reconstruct(
            untrained(s, CONFIG, e.name), s, *exact(accelerator="tpu"), backend=e.name
        ),
    ),
    "crop larger than a patch": (ConfigError, lambda e, s, f: facade(e, s, inference={"central_crop_px": 17})),
    "crop larger than a patch, later": (
        ConfigError,
        lambda e, s, f: ptycho_core.reconstruct(
            untrained(s, CONFIG, e.name), s, *exact(central_crop_px=17), backend=e.name
        ),
    ),
    "bundle of a solver": (ArchiveError, loaded_by_the_facade(backend="ptychi", generator=None)),
    "bundle of an unknown generator": (ArchiveError, loaded_by_the_facade(generator="unrolled")),
}

REFUSED_BY_THE_ENGINE: dict[str, tuple[type[BaseException], Case]] = {
    "cnn with frames of 16×16": (ConfigError, lambda e, s, f: train(e, s, vary(model=CNN))),
    "cnn with smaller test groups": (
        ConfigError,
        lambda e, s, f: e.train([container(s, heldout=[1, 4])], *config_for(e, model=CNN)),
    ),
    "cnn applied to other groups": (
        ConfigError,
        lambda e, s, f: patches_of(e, untrained(hard_scan(64, 2, 2), vary(model=CNN)), lay_out(hard_scan(64, 2, 2), 2)),
    ),
    "cnn applied to too few frames": (
        ConfigError,
        lambda e, s, f: e.reconstruct(
            untrained(hard_scan(64, 2, 2), vary(model=CNN)), container(hard_scan(64, 1, 3)), *EXACT
        ),
    ),
    "cnn applied to another side": (
        ConfigError,
        lambda e, s, f: patches_of(e, untrained(hard_scan(64, 2, 2), vary(model=CNN)), lay_out(s)),
    ),
    "depth that does not divide N": (ConfigError, lambda e, s, f: train(e, s, vary(model={"depth": 5}))),
    "depth that does not divide another N": (
        ConfigError,
        lambda e, s, f: e.reconstruct(untrained(hard_scan(32, 2, 2), vary(model={"depth": 5})), container(s), *EXACT),
    ),
    "trainable scale of a calibrated probe": (
        ConfigError,
        lambda e, s, f: train(e, make_scan(rows=3, columns=4, calibrated=True), vary(scale_trainable=True)),
    ),
    "an accelerator that the machine does not have": (
        ConfigError,
        lambda e, s, f: e.train([container(s)], *config_for(e, accelerator="cuda")),
    ),
    "an accelerator that no framework has": (
        ConfigError,
        lambda e, s, f: e.reconstruct(untrained(s), container(s), *exact(accelerator="tpu")),
    ),
    "trackers without a folder": (ConfigError, lambda e, s, f: train(e, s, vary(loggers=("tensorboard", "mlflow")))),
    "a folder that is a file": (OutputError, lambda e, s, f: train(e, s, vary(output_dir=f / "in the way"))),
    "a loss that physics does not know": (
        ConfigError,
        lambda e, s, f: e.loss_and_gradient(np.ones((40, 40), np.complex64), s.probe, s, "huber"),
    ),
    "frames beyond the image": (DataError, beyond_the_image),
    "scans of other modes": (
        DataError,
        lambda e, s, f: e.train([container(s), container(make_scan())], *config_for(e)),
    ),
    "nothing to learn from": (
        DataError,
        lambda e, s, f: e.train([container(s, heldout=np.arange(12)), container(s)], *config_for(e)),
    ),
    "a second scan with too few frames": (
        ConfigError,
        lambda e, s, f: e.train([container(s), container(hard_scan(rows=1, columns=3))], *config_for(e)),
    ),
    "bundle of a solver": (ArchiveError, bundle(backend="ptychi", generator=None)),
    "bundle of an unknown generator": (ArchiveError, bundle(generator="unrolled")),
    "bundle of another width": (
        ArchiveError,
        bundle(config=vary(model={"width": 5}).config),
    ),
    "a bundle that is not there": (ArchiveError, lambda e, s, f: e.load(f / "gone.ptycho")),
}

REFUSED_WHEN_RESUMING: dict[str, tuple[type[BaseException], Case]] = {
    "no such file": (ArchiveError, resume_file("gone.ckpt")),
    "seed": (ArchiveError, resume(seed=2)),
    "batch_size": (ArchiveError, resume(batch_size=2)),
    "learning_rate": (ArchiveError, resume(learning_rate=0.5)),
    "loss": (ArchiveError, resume(loss="poisson")),
    "group_size": (ArchiveError, resume(group_size=3)),
    "n_groups": (ArchiveError, resume(n_groups=7)),
    "width": (ArchiveError, resume(model={"width": 5})),
    "depth": (ArchiveError, resume(model={"depth": 2})),
    "generator": (
        ArchiveError,
        lambda e, s, f: train(e, hard_scan(64, 2, 2), vary(resume_from=stopped(e, s, f), model=CNN)),
    ),
    "probe_trainable": (ArchiveError, resume(probe_trainable=True)),
    "weight_average": (ArchiveError, resume(weight_average=0.5)),
    "more steps than are asked for": (ArchiveError, resume(epochs=1)),
    "another scan": (
        ArchiveError,
        lambda e, s, f: train(e, hard_scan(seed=5), vary(resume_from=stopped(e, s, f))),
    ),
    "one scan more": (ArchiveError, resumed_with_another_scan),
    "another number of modes": (
        ArchiveError,
        lambda e, s, f: train(e, s.with_probe(s.probe[:1]), vary(resume_from=stopped(e, s, f))),
    ),
}

STOPPED_ON_THE_WAY: dict[str, tuple[type[BaseException], Case]] = {
    "a loss that is no number": (
        BackendError,
        lambda e, s, f: train(e, s, vary(learning_rate=1e30, model={"sweeps": 0})),
    ),
    "a constant object": (
        CollapseError,
        lambda e, s, f: train(
            e, s, vary(n_groups=60, epochs=2, collapse_threshold=5.0, learning_rate=1e-12, model={"sweeps": 0})
        ),
    ),
    "data that can no longer be read": (DataError, torn_data),
    "a fault of the caller's": (ZeroDivisionError, fault_of_the_caller),
    "a wish to stop": (Cancelled, wish_to_stop),
}

EVERYTHING = {
    f"{where}: {name}": case
    for where, table in (
        ("facade", REFUSED_BY_THE_FACADE),
        ("engine", REFUSED_BY_THE_ENGINE),
        ("resuming", REFUSED_WHEN_RESUMING),
        ("on the way", STOPPED_ON_THE_WAY),
    )
    for name, case in table.items()
}


@pytest.fixture(scope="module")
def scan():
    return hard_scan()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("both")
    (folder / "in the way").write_text("a file")
    return folder


@pytest.mark.spec("BE-14")
@pytest.mark.parametrize("name", EVERYTHING)
def test_both_refuse_in_the_same_words(engines, scan, folder, name):
    kind, ask = EVERYTHING[name]
    if "machine does not have" in name and cuda_is_here():
        pytest.skip("this machine has it")
    said = {}
    for engine in engines.values():
        with pytest.raises(kind) as caught:
            ask(engine, scan, folder)
        said[engine.name] = (type(caught.value), words_of(caught.value))
    one, other = (said[name] for name in NAMES)
    assert one == other
    assert len(one[1]) > 5


def test_words_are_compared_not_just_kinds():
    """The names alone are taken out."""
    one, other = (ConfigError(f"engine '{name}': {text} is wrong") for name, text in zip(NAMES, "ab", strict=True))
    assert words_of(one) != words_of(other)
    assert words_of(ConfigError("engine 'pytorch' in PyTorch")) == words_of(
        ConfigError("engine 'tensorflow' in TensorFlow")
    )


# ---- checkpoints belong to an engine, unlike bundles


@pytest.mark.spec("BE-15")
@pytest.mark.parametrize(("writer", "reader"), [NAMES, NAMES[::-1]])
def test_a_checkpoint_of_the_other_engine_is_refused(engines, scan, folder, writer, reader):
    path = stopped(engines[writer], scan, folder)
    steps: list = []
    with pytest.raises(ArchiveError, match=r"interrupted\.ckpt: ") as caught:
        train(engines[reader], scan, vary(resume_from=path), progress=steps.append)
    assert steps == []
    assert "engine" in str(caught.value).partition(": ")[2]


def test_a_checkpoint_says_whose_it_is_where_it_can(engines, scan, folder):
    """The shared format names its engine, so that PyTorch's engine can tell whom to resume with."""
    path = stopped(engines["tensorflow"], scan, folder)
    with pytest.raises(ArchiveError, match="'tensorflow'"):
        train(engines["pytorch"], scan, vary(resume_from=path))
