"""Every malformed scan file that we could think of is refused in one line, quickly, in little memory, with no trace.

Each is given to ``ptycho run`` and to ``ptycho inspect``, which may accept what it can say something about. With
``--hypothesis-profile nightly`` each command has a process of its own; else they run one after another in one.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import good_scans as good
import pytest
from malformed import Malformed
from malformed_dialects import DIALECTS
from malformed_files import FILES
from malformed_npz import NPZ_VALUES
from malformed_paths import PATHS
from malformed_pictures import PICTURES
from malformed_zip import ZIP
from refusals import check_refusal, refusal_of, seen_on_disk
from warm_commands import WarmCommands, warm_commands

pytestmark = pytest.mark.hostile

MOST_MEGABYTES, MOST_SECONDS = 1000.0, 10.0
RUN = ("--backend", "numpy", "--epochs", "1")
CASES = [*NPZ_VALUES, *ZIP, *FILES, *PICTURES, *PATHS, *DIALECTS]


@pytest.fixture(scope="module")
def commands(request: pytest.FixtureRequest) -> Iterator[WarmCommands]:
    """A process that has imported the program."""
    nightly = request.config.getoption("--hypothesis-profile", default=None) == "nightly"
    with warm_commands(copied=nightly) as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An empty folder with a short name, which is gone afterwards whatever lies in it."""
    inside = tmp_path / "f"
    inside.mkdir()
    yield inside
    shutil.rmtree(tmp_path, ignore_errors=True)


def hold(case: Malformed, commands: WarmCommands, folder: Path) -> None:
    """Build a case, give it to the commands, and assert that each refuses it as it should."""
    missing = [module for module in case.needs if importlib.util.find_spec(module) is None]
    if missing:
        pytest.skip(f"not installed in this environment: {', '.join(missing)}")
    with warnings.catch_warnings():  # of those who write such files
        warnings.simplefilter("ignore")
        path = case.build(folder)
    before = seen_on_disk(folder)
    for command, options in (("run", RUN), ("inspect", ())):
        ended = commands.run([command, path, *options, *case.options], folder)
        assert ended.code is not None, f"{command}: still at it"
        if command == "inspect" and ended.code == 0:
            assert "Traceback" not in ended.stderr
        else:
            refusal = refusal_of(ended.code, ended.stdout, ended.stderr)
            check_refusal(refusal, folder, before, notes=True)
        assert ended.megabytes <= MOST_MEGABYTES, f"{command} held {ended.megabytes:.0f} MB: {ended.stderr}"
        assert ended.seconds <= MOST_SECONDS, f"{command} took {ended.seconds:.1f} s: {ended.stderr}"
    assert seen_on_disk(folder) == before


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_refused(case: Malformed, commands: WarmCommands, folder: Path) -> None:
    hold(case, commands, folder)


SOUND: dict[str, tuple[str, Callable[[Path], object], tuple[str, ...]]] = {
    "npz": ("a.npz", lambda p: good.write_npz(p, good.npz_content()), ()),
    "npz, compressed": ("a.npz", lambda p: good.write_npz(p, good.npz_content(), compressed=True), ()),
    "hdf5": ("a.h5", good.write_own, ()),
    "cxi": ("a.cxi", lambda p: good.write_h5(p, good.cxi_content()), ()),
    "eiger": ("a_master.h5", lambda p: good.write_h5(p, good.eiger_content()), good.BESIDE),
    "ptyd": ("a.ptyd", lambda p: good.write_h5(p, good.ptyd_content()), ()),
    "ptychodus": ("a.h5", lambda p: good.write_h5(p, good.ptychodus_content()), ()),
    "ptylab": ("a.h5", lambda p: good.write_h5(p, good.ptylab_content()), ()),
    "nexus": ("a.nxs", good.write_nxcxi, ()),
    "mat 7.3": ("a.mat", good.write_mat73, ()),
    "mat 5": ("a.mat", good.write_mat5, ()),
    "tike": ("a.npz.bz2", good.write_tike, ()),
    "tiff": ("a.tif", good.write_tiff, (*good.BESIDE, *good.INSTRUMENT)),
    "zarr": ("a.zarr", good.write_zarr, ()),
    "zarr, zipped": ("a.zip", lambda p: good.write_zarr(p, zipped=True), ()),
}
NEEDED = {"tiff": "tifffile", "zarr": "zarr", "zarr, zipped": "zarr"}


@pytest.mark.parametrize("name", SOUND)
def test_its_sound_twin_is_accepted(name: str, commands: WarmCommands, folder: Path) -> None:
    if name in NEEDED and importlib.util.find_spec(NEEDED[name]) is None:
        pytest.skip(f"not installed in this environment: {NEEDED[name]}")
    file, write, options = SOUND[name]
    good.positions_file(folder)
    write(folder / file)
    ended = commands.run(["inspect", folder / file, *options], folder)
    assert ended.code == 0, ended.stdout + ended.stderr
    assert "\nusable: " in ended.stdout


def test_the_catalogue_is_large_and_names_each_case_once() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))
    assert len(names) >= 600


@pytest.mark.skipif(os.getuid() == 0, reason="nothing is unreadable to root")
@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_may_not_be_read_is_refused(what: str, commands: WarmCommands, folder: Path) -> None:
    def build(inside: Path) -> Path:
        path = good.write_own(inside / "scan.h5")
        (path if what == "file" else inside).chmod(0)
        return path

    try:
        hold(Malformed(f"unreadable {what}", build), commands, folder)
    finally:
        folder.chmod(0o700)
