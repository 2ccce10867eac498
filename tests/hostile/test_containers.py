"""Containers and clusters: no home, nothing writable but the result, few files, strange masks, clocks that jump."""

from __future__ import annotations

import json
import os
import resource
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ptycho_core.cli import main as cli_main
from ptycho_core.io.result_folder import verify_result
from ptycho_core.io.write import write_scan
from ptycho_core.simulation import SimulationConfig, simulate_scan

pytestmark = pytest.mark.hostile

NO_RIGHTS = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
"""Before a command that root runs: modes of files count for it then as for anybody."""


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A small scan in HDF5, which the child reads."""
    path = tmp_path_factory.mktemp("scan") / "scan.h5"
    write_scan(path, simulate_scan(SimulationConfig(N=32, n_frames=40, photons=1e5)).raw)
    return path


@pytest.fixture
def locked(tmp_path):
    """A folder that cannot be written."""
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    yield folder
    folder.chmod(0o755)


def command(*words, env=None, **how):
    """Run the command with next to no environment, as a user whom modes of files hold."""
    before = NO_RIGHTS if os.geteuid() == 0 and shutil.which("setpriv") else []
    environment = {"PATH": os.defpath, "OMP_NUM_THREADS": "1", **(env or {})}
    line = [*before, sys.executable, "-m", "ptycho_core.cli", *map(str, words)]
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=False, timeout=600, **how)


def needs_rights_to_matter():
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root may write everywhere, and setpriv, which takes that right away, is not here")


def run(scan, out, *more, **how):
    return command("run", scan, "--out", out, "--epochs", 1, "--refinement.epochs", 2, *more, **how)


def assert_whole(done, out):
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert verify_result(out) == []
    assert {"report.html", "reconstruction.h5", "model.ptycho"} <= json.loads((out / "summary.json").read_text())[
        "files"
    ].keys()


def test_a_home_that_cannot_be_written_none_and_a_private_mask(scan, tmp_path, locked):
    needs_rights_to_matter()
    out = tmp_path / "a"
    assert_whole(run(scan, out, env={"HOME": str(locked), "TMPDIR": str(locked)}, umask=0o077), out)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in out.rglob("*") if path.is_file()}
    assert modes == {0o600}, "what a mask takes away stays away"
    out = tmp_path / "b"
    assert_whole(run(scan, out, env={"HOME": "/nonexistent", "TMPDIR": "/nonexistent"}, umask=0o002), out)
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.iterdir() if path.is_file()} == {0o664}


def test_a_working_folder_that_cannot_be_written_or_is_gone(scan, locked, tmp_path):
    needs_rights_to_matter()
    shutil.copy(scan, tmp_path / "s.h5")
    done = command("run", tmp_path / "s.h5", "--epochs", 1, cwd=locked, env={"HOME": str(locked)})
    assert done.returncode == 2
    assert done.stderr.startswith("ptycho: s-ptycho: cannot be written (Permission denied); choose a folder")
    gone = tmp_path / "gone"
    gone.mkdir()
    done = command("inspect", scan, preexec_fn=lambda: (os.chdir(gone), os.rmdir(gone)))
    assert (done.returncode, done.stderr) == (0, "")


def test_few_open_files_little_address_space_and_files_that_may_not_grow(scan, tmp_path):
    out = tmp_path / "few"
    assert_whole(run(scan, out, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))), out)
    out = tmp_path / "small"
    space = 2 * 10**9
    assert_whole(run(scan, out, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (space, space))), out)
    out = tmp_path / "short"
    done = run(scan, out, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, 10**5)))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "File too large" in done.stderr
    assert not (out / "summary.json").exists()


def test_the_result_is_on_another_device_than_its_checkpoints(scan, tmp_path):
    """Nothing is renamed across devices: a link to a folder elsewhere is what a cluster's scratch disk is."""
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second device to write to")
    scratch = elsewhere / f"ptycho-test-{os.getpid()}"
    scratch.mkdir()
    try:
        out = tmp_path / "out"
        out.mkdir()
        (out / "training").symlink_to(scratch)
        assert_whole(run(scan, out), out)
        assert any(scratch.iterdir())
        linked = tmp_path / "linked"
        linked.symlink_to(scratch)
        assert_whole(run(scan, linked / "result", "--overwrite"), linked / "result")
    finally:
        shutil.rmtree(scratch)


@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
def test_a_clock_that_jumps_changes_no_duration(scan, tmp_path, monkeypatch, capsys, jump):
    """A machine that gets its time from the network in the middle of a run."""
    real, calls = time.time, iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: real() + (jump if next(calls) > 3 else 0.0))
    out = tmp_path / "out"
    words = ["run", str(scan), "--out", str(out), "--epochs", "1", "--refinement.epochs", "1"]
    assert cli_main.main(words) == 0
    capsys.readouterr()
    seconds = json.loads((out / "summary.json").read_text())["seconds"]
    assert all(0 <= value < 3600 for value in seconds.values()), seconds


def test_without_proc_shared_memory_or_a_name_of_the_user(scan, tmp_path):
    """What many sandboxes take away; only where this one lets us."""
    inner = "umount -l /proc 2>/dev/null || mount -t tmpfs none /proc"
    inner = f"{inner}; exec {sys.executable} -m ptycho_core.cli inspect {scan}"
    line = ["unshare", "-rm", "sh", "-c", inner]
    if shutil.which("unshare") is None or subprocess.run([*line[:2], "true"], check=False).returncode:
        pytest.skip("this machine lets nobody make a namespace of mounts")
    done = subprocess.run(line, env={"PATH": os.defpath}, capture_output=True, text=True, check=False, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
