"""A model file that is damaged or hostile is one typed error that names what is wrong, before memory is asked for."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptycho_core import SimulationConfig, TrainingConfig, simulate, train
from ptycho_core.errors import ArchiveError

pytestmark = [pytest.mark.ptychodus, pytest.mark.spec("PTYD-7")]

N = 32
MEMBERS = ("model.ptycho", "arrays.npz", "adapter.json")
MODEL = {
    "N": 32, "gridsize": 1, "n_filters_scale": 2, "model_type": "pinn", "amp_activation": "sigmoid",
    "object_big": True, "probe_big": True, "probe_mask": False, "pad_object": True, "probe_scale": 4.0,
    "gaussian_smoothing_sigma": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The members of an archive that is right."""
    from ptycho_core_ptychodus.archive import ARCHIVE_NAME, Archive, bundle_of, read_archive, write_archive

    scan = simulate(SimulationConfig(object="dead_leaves", N=N, grid_shape=(4, 3), step_px=5.3, photons=1e4, seed=5))
    model = train(scan.raw, TrainingConfig(backend="numpy", epochs=1))
    rng = np.random.default_rng(2)
    probe = (rng.normal(size=(2, N, N)) + 1j * rng.normal(size=(2, N, N))).astype(np.complex64)
    mask = np.ones((N, N), bool)
    mask[3, 4:9] = False
    archive = Archive(
        bundle=bundle_of(model), config=model.config, network=False, probe=probe, probe_guess=probe[:1] * 1j, mask=mask,
        positions_px=np.array(scan.raw.positions_px), grid=(70, 81),
        client={"plugin": "tensorflow", "model": MODEL, "nepochs": 3},
    )  # fmt: skip
    path = tmp_path_factory.mktemp("whole") / ARCHIVE_NAME
    write_archive(archive, path)
    again = read_archive(path)
    for name in ("probe", "probe_guess", "mask", "positions_px"):
        assert np.array_equal(getattr(again, name), getattr(archive, name))
    assert (again.grid, again.client, again.network) == (archive.grid, archive.client, False)
    with zipfile.ZipFile(path) as held:
        return {name: held.read(name) for name in MEMBERS}


def packed(path: Path, members: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path / "wts.h5.zip", "w", how) as out:
        for name, content in members.items():
            out.writestr(name, content)
    return path


def with_arrays(whole: dict[str, bytes], **changed: Any) -> dict[str, bytes]:
    with np.load(io.BytesIO(whole["arrays.npz"])) as held:
        arrays = {name: held[name] for name in held.files} | changed
    out = io.BytesIO()
    np.savez(out, **{name: value for name, value in arrays.items() if value is not None})
    return whole | {"arrays.npz": out.getvalue()}


def refused(path: Path) -> str:
    from ptycho_core_ptychodus.archive import read_archive

    with pytest.raises(ArchiveError) as caught:
        read_archive(path)
    assert "wts.h5.zip" in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_it_is_read_packed_compressed_and_unpacked(whole: dict[str, bytes], tmp_path: Path) -> None:
    from ptycho_core_ptychodus.archive import read_archive

    folder = tmp_path / "unpacked"
    folder.mkdir()
    for name, content in whole.items():
        (folder / name).write_bytes(content)
    for given in (packed(tmp_path, whole, zipfile.ZIP_DEFLATED), folder):
        assert read_archive(given).grid == (70, 81)


def spoiled(name: str, value: complex) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    def change(arrays: dict[str, np.ndarray]) -> np.ndarray:
        array = arrays[name].copy()
        array[(1,) * array.ndim if array.shape[0] > 1 else (0, 1, 1)] = value
        return array

    return change


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("probe", None, "arrays.npz has no array probe"),
        ("positions_px", None, "has no array positions_px"),
        ("probe", np.ones((2, N, N)), "array probe is float64 (2, 32, 32); it must be complex (P, 32, 32)"),
        ("probe", np.ones((N, N), complex), "array probe is complex128 (32, 32)"),
        ("probe", np.ones((0, N, N), complex), "array probe is complex128 (0, 32, 32)"),
        ("probe_guess", np.ones((1, N, N + 2), complex), "array probe_guess is complex128 (1, 32, 34)"),
        ("probe", np.zeros((1, N, N), complex), "array probe is zero everywhere"),
        ("probe", spoiled("probe", np.nan), "array probe is zero everywhere, or holds values that are not finite"),
        ("probe_guess", np.full((1, N, N), 1e200 + 0j), "array probe_guess is zero everywhere, or holds values that"),
        ("positions_px", np.ones((4, 3)), "array positions_px is float64 (4, 3); it must be real (M, 2)"),
        ("positions_px", np.ones((4, 2), complex), "array positions_px is complex128 (4, 2)"),
        ("positions_px", np.full((4, 2), "x"), "array positions_px is <U1 (4, 2)"),
        ("positions_px", spoiled("positions_px", np.inf), "array positions_px holds values that are not finite"),
        (
            "positions_px",
            spoiled("positions_px", 1e9),
            "holds values that are not finite, or beyond 1e+07",
        ),
        ("mask", np.ones((N, N), int), "array mask is int64 (32, 32); it must be bool (32, 32)"),
        ("mask", np.ones((N, 4), bool), "array mask is bool (32, 4)"),
        ("mask", np.zeros((N, N), bool), "array mask hides every pixel"),
        ("grid", np.array([70.5, 81.0]), "array grid is float64 (2,); it must be two whole numbers"),
        ("grid", np.array([70, 81, 2]), "array grid is int64 (3,)"),
        ("grid", np.array([2**40, 2**40]), "array grid says 1099511627776 × 1099511627776 pixels"),
        ("grid", np.array([-4, 81]), "array grid says -4 × 81 pixels"),
        ("extra", np.ones(3), "arrays.npz has an array 'extra', which no model has"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_arrays_that_cannot_be_what_they_are_called(
    name: str, value: Any, said: str, whole: dict[str, bytes], tmp_path: Path
) -> None:
    if callable(value):
        with np.load(io.BytesIO(whole["arrays.npz"])) as held:
            value = value({key: held[key] for key in held.files})
    assert said in refused(packed(tmp_path, with_arrays(whole, **{name: value})))


def test_an_array_of_objects_is_never_unpickled(whole: dict[str, bytes], tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "harm"),)

    value = np.empty(2, object)
    value[:] = [Harm(), Harm()]
    assert "pickled" in refused(packed(tmp_path, with_arrays(whole, grid=value)))
    assert not (tmp_path / "harm").exists()


def test_a_header_that_claims_terabytes_costs_nothing(whole: dict[str, bytes], tmp_path: Path) -> None:
    out = io.BytesIO()
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<c8", "fortran_order": False, "shape": (10**9, N, N)})
    with np.load(io.BytesIO(whole["arrays.npz"])) as held, zipfile.ZipFile(out, "w") as arrays:
        for name in held.files:
            content = io.BytesIO()
            np.lib.format.write_array(content, held[name])
            arrays.writestr(f"{name}.npy", header.getvalue() if name == "probe" else content.getvalue())
    assert "arrays.npz" in refused(packed(tmp_path, whole | {"arrays.npz": out.getvalue()}))


def test_a_member_that_unpacks_to_much_is_not_unpacked(whole: dict[str, bytes], tmp_path: Path) -> None:
    bomb = whole | {"arrays.npz": bytes(400 * 10**6)}
    assert "arrays.npz claims 400000000 bytes in " in refused(packed(tmp_path, bomb, zipfile.ZIP_DEFLATED))


def test_a_member_that_is_there_twice_is_refused(whole: dict[str, bytes], tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(packed(tmp_path, whole) / "wts.h5.zip", "a") as out,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        out.writestr("adapter.json", b"{}")
    assert "adapter.json is in it 2 times" in refused(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * 5000, "adapter.json is no JSON"),
        (b"[" * 200_000, "adapter.json has more than 10000 values"),
        (b" " * 2_000_000, "adapter.json has 2000000 bytes, and that of a model has 1000000 at most"),
        (b"\xff\xfe{}", "adapter.json is no JSON"),
        (b"[1, 2]", "adapter.json must hold format, version and client"),
        (b'{"format": "ptycho-core-ptychodus", "version": 1, "client": [3]}', "client of adapter.json is [3]"),
        (b'{"format": "\\u001b[2J", "version": 1, "client": {}}', r"it is \x1b[2J 1; this version reads"),
    ],
)
def test_settings_that_are_none(content: bytes, said: str, whole: dict[str, bytes], tmp_path: Path) -> None:
    assert said in refused(packed(tmp_path, whole | {"adapter.json": content}))


def test_the_bundle_in_it_is_read_as_strictly_as_any(whole: dict[str, bytes], tmp_path: Path) -> None:
    bundle = bytearray(whole["model.ptycho"])
    bundle[len(bundle) // 2] ^= 255
    said = refused(packed(tmp_path, whole | {"model.ptycho": bytes(bundle)}))
    assert "model.ptycho" in said
    assert "/tmp" not in said.partition("wts.h5.zip")[2], "the file that it was put into is gone"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    from ptycho_core_ptychodus.archive import read_archive

    os.mkfifo(tmp_path / "pipe.ckpt")
    with pytest.raises(ArchiveError, match="is a named pipe"):
        read_archive(tmp_path / "pipe.ckpt")


@pytest.mark.parametrize(
    ("client", "said"),
    [
        ({"model": MODEL | {"gridsize": "2"}}, "model.gridsize = '2'; it must be of the kind of 1"),
        ({"model": MODEL | {"object_big": 1}}, "model.object_big = 1; it must be of the kind of True"),
        ({"model": MODEL | {"probe_scale": 10**400}}, "model.probe_scale = 1"),
        ({"model": MODEL | {"nonsense": 1}}, "it has no model of this version"),
        ({"model": None}, "it has no model of this version"),
        ({"nepochs": "many"}, "nepochs = 'many'; it must be a whole number from 1"),
        ({"nepochs": True}, "nepochs = True"),
    ],
)
def test_settings_of_the_client_are_of_their_kinds(
    client: dict[str, Any], said: str, whole: dict[str, bytes], tmp_path: Path
) -> None:
    from ptycho_core_ptychodus import tf_flow

    about = json.loads(whole["adapter.json"])
    about["client"] |= client
    packed(tmp_path, whole | {"adapter.json": json.dumps(about).encode()})
    with pytest.raises(ArchiveError) as caught:
        tf_flow.load_inference_bundle(tmp_path)
    assert said in str(caught.value)


def test_configs_of_the_torch_plugin_are_of_their_kinds() -> None:
    from dataclasses import asdict

    from ptycho_core_ptychodus import torch_configs
    from ptycho_core_ptychodus.archive_checks import client_config

    for kind in (torch_configs.DataConfig, torch_configs.ModelConfig, torch_configs.TrainingConfig):
        plain = json.loads(json.dumps(asdict(kind())))
        assert client_config(kind, plain, "config", "m") == kind()
    plain = json.loads(json.dumps(asdict(torch_configs.DataConfig())))
    for wrong in ({"grid_size": [2]}, {"grid_size": "22"}, {"grid_size": [2, "2"]}, {"x_bounds": [0.1, None]}):
        with pytest.raises(ArchiveError, match=next(iter(wrong))):
            client_config(torch_configs.DataConfig, plain | wrong, "data_config", "m")
    plain = asdict(torch_configs.TrainingConfig())
    assert client_config(torch_configs.TrainingConfig, plain | {"gradient_clip_val": 0.5}, "t", "m")
    with pytest.raises(ArchiveError, match=r"t\.gradient_clip_val = \[1\]"):
        client_config(torch_configs.TrainingConfig, plain | {"gradient_clip_val": [1]}, "t", "m")
