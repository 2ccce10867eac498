"""The single calls of the client, where they are used otherwise than it does, and what the README shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from client_scan import N, part_of, parts, true_probe

from ptycho_core.errors import ArchiveError, ConfigError, DataError

pytestmark = pytest.mark.ptychodus


def raw_data(**changed: Any) -> Any:
    """The names' own RawData of a small scan, as the client's child makes it."""
    from ptycho.raw_data import RawData

    given = part_of(parts(), np.arange(12))
    geometry, positions = given.product.object_.get_geometry(), given.product.probe_positions
    arguments = {
        "xcoords": geometry.map_probe_positions_to_object_x_px(positions),
        "ycoords": geometry.map_probe_positions_to_object_y_px(positions),
        "diff3d": given.diffraction_patterns,
        "probeGuess": true_probe(),
        "scan_index": np.zeros(12, int),
        "objectGuess": given.product.object_.get_layer(0),
    }
    return RawData.from_coords_without_pc(**arguments | changed)


@pytest.mark.spec("PTYD-4")
def test_every_frame_goes_on_by_the_defaults_of_the_client() -> None:
    from ptycho.loader import load

    raw = raw_data()
    container = load(lambda: raw.generate_grouped_data(N, K=7, nsamples=1, gridsize=1), raw.probeGuess, which=None)
    assert container.X.shape == (12, N, N, 1)
    np.testing.assert_allclose(np.asarray(container.X * 1.0)[..., 0] ** 2, np.asarray(raw.diff3d), rtol=1e-6)
    np.testing.assert_array_equal(container.global_offsets[:, 0, :, 0], np.stack([raw.ycoords, raw.xcoords], axis=1))
    assert container.local_offsets.shape == container.global_offsets.shape
    assert not container.local_offsets.any()


def test_positions_keep_their_axes() -> None:
    raw = raw_data()
    given = part_of(parts(), np.arange(12)).product
    x = given.object_.get_geometry().map_probe_positions_to_object_x_px(given.probe_positions)
    np.testing.assert_allclose(raw.raw.positions_px[:, 1], x)
    assert raw.grid == (109, 90)


@pytest.mark.spec("PTYD-6")
@pytest.mark.parametrize(("name", "value"), [("K", 4), ("nsamples", 3)])
def test_numbers_that_would_have_no_effect_are_refused(name: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"= {value} has no effect"):
        raw_data().generate_grouped_data(N, **{name: value})


def test_calls_that_the_client_does_not_make_are_refused() -> None:
    from ptycho.loader import load

    with pytest.raises(DataError, match="32×32, and N = 64"):
        raw_data().generate_grouped_data(64)
    with pytest.raises(DataError, match="several scans"):
        raw_data(scan_index=np.arange(12))
    raw = raw_data()
    with pytest.raises(DataError, match=r"multiplied by 2\.0"):
        load(lambda: raw.generate_grouped_data(N)).X * 2.0
    with pytest.raises(ConfigError, match="splits no scan"):
        load(lambda: raw.generate_grouped_data(N), which="train")


def test_a_probe_of_any_of_its_ranks_is_taken() -> None:
    one = true_probe()[0]
    for probe in (one, one[None], one[..., None]):
        np.testing.assert_array_equal(raw_data(probeGuess=probe).probeGuess, one[None])
    np.testing.assert_array_equal(raw_data().probeGuess, true_probe())


def test_saving_without_a_training_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ptycho.model_manager
    import ptycho.params
    from ptycho.workflows.components import load_inference_bundle, save_outputs

    monkeypatch.setattr(ptycho.params, "cfg", ptycho.params.cfg)
    ptycho.params.cfg.clear()
    with pytest.raises(KeyError):
        ptycho.params.get("intensity_scale")
    with pytest.raises(ConfigError, match="nothing was trained"):
        ptycho.model_manager.save(tmp_path)
    save_outputs(None, None, {}, str(tmp_path))
    assert not list(tmp_path.iterdir())
    with pytest.raises(ArchiveError, match=r"wts\.h5\.zip and model\.ptycho are missing"):
        load_inference_bundle(tmp_path)


def test_the_readme_shows_what_the_command_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ptycho_core_ptychodus import engine, status

    found = status.find_spec
    monkeypatch.delenv("PTYCHO_BACKEND", raising=False)
    monkeypatch.setattr(engine, "_GPU", tmp_path / "none")
    monkeypatch.setattr(status, "find_spec", lambda name: None if name == "lightning" else found(name))
    said, well = status.status()
    assert well
    readme = Path(__file__).parents[2] / "integrations" / "ptychodus" / "README.md"
    assert "```text\n" + "\n".join(said) + "\n```" in readme.read_text(encoding="utf-8")


def test_a_variable_that_names_no_engine_is_not_well(monkeypatch: pytest.MonkeyPatch) -> None:
    from ptycho_core_ptychodus import status

    monkeypatch.setenv("PTYCHO_BACKEND", "nonesuch")
    said, well = status.status()
    assert not well
    assert "PTYCHO_BACKEND = 'nonesuch' is no engine" in said[-1]
