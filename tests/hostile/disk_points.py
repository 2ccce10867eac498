"""Runs commands on disks of every size, and looks what they leave: run by a test.

    python disk_points.py WORK HOW COMMAND,COMMAND… STEP

HOW is ``fault`` (``fault_points.c`` is preloaded: n bytes fit, the rest fails with ENOSPC), ``tmpfs`` (a small disk is
mounted, which takes the rights to do so), ``fsize`` (no file may be longer than n bytes: EFBIG) or ``nofile`` (no more
than n handles: EMFILE). For each n, from nothing to what the command needs, a child is forked from a process in which
everything is imported, and ends as a command ends. A line of JSON for each.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

from result_judge import judged, leftovers

RUN = ["--backend", "numpy", "--epochs", "1", "--refinement.epochs", "1", "--despite_findings"]


def commands(scan: Path, model: Path, image: Path, disk: Path) -> dict[str, list[str]]:
    """Word → command that writes below a folder."""
    out = ["--out", str(disk / "result"), "--overwrite"]
    files = {
        "convert-npz": "scan.npz", "convert-h5": "scan.h5", "convert-cxi": "scan.cxi", "convert-nxs": "scan.nxs",
        "export-tiff": "image.tif", "export-cxi": "image.cxi", "export-ptyr": "image.ptyr", "export-npz": "image.npz",
        "export-product": "image.h5",
    }  # fmt: skip
    found = {
        "run": ["run", str(scan), *RUN, *out],
        "train": ["train", str(scan), "--method", "solver", *RUN[:4], "--despite_findings", *out],
        "reconstruct": ["reconstruct", str(scan), "--model", str(model), "--despite_findings", *out],
        "simulate": ["simulate", "--out", str(disk / "scan.h5"), "--N", "32", "--n_frames", "40"],
    }
    lengths = ["--energy_eV", "8000", "--distance_m", "1", "--detector_pixel_size_m", "1e-4"]
    for word, name in files.items():
        if word.startswith("convert"):
            found[word] = ["convert", str(scan), str(disk / name), "--overwrite", "--despite_findings", *lengths]
        else:
            found[word] = ["export", str(image), "--out", str(disk / name), "--overwrite", *lengths]
    return found


def target_of(command: list[str]) -> Path:
    """What a command writes: the folder of a result, or a file."""
    return Path(command[2] if command[0] == "convert" else command[command.index("--out") + 1])


def prepare(work: Path) -> tuple[Path, Path, Path]:
    """A scan, a model and an image; and everything imported that a command imports."""
    from ptycho_core.cli.main import main
    from ptycho_core.report import write as report

    scan, first = work / "scan.npz", work / "first"
    drawn: dict[str, bytes] = {}
    draw = report._draw

    def once(run, view):
        if not drawn:
            most = None if os.environ.get("PTYCHO_HOSTILE") == "long" else 20_000
            drawn.update({name: png[:most] for name, png in draw(run, view).items()})
        return {name: drawn[name] for name in report._drawings(run, view) if name in drawn}

    report._draw = once  # drawing writes nothing, and takes most of the time
    for command in (
        ["simulate", "--out", str(scan), "--N", "32", "--n_frames", "40", "--seed", "5"],
        ["run", str(scan), *RUN, "--out", str(first)],
    ):
        assert main(command) == 0, command
    return scan, first / "model.ptycho", first / "reconstruction.h5"


class Disk:
    """Where a command writes, with room for n bytes beside what lies there."""

    def __init__(self, how: str, path: Path) -> None:
        self.how, self.path = how, path
        if how == "fault":
            self.faults = ctypes.CDLL(os.environ["LD_PRELOAD"])
            self.faults.fault_arm.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_long]

    def fresh(self, before: Path | None, n: int) -> None:
        """Lay there what was there before, and make the disk as small as it is to be."""
        if self.how == "tmpfs":
            subprocess.run(["umount", "-q", str(self.path)], check=False, stderr=subprocess.DEVNULL)
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(self.path)], check=True)
        else:
            shutil.rmtree(self.path)
            self.path.mkdir()
        if before is not None:
            copy = shutil.copytree if before.is_dir() else shutil.copyfile
            copy(before, self.path / before.name)
        if self.how == "tmpfs":
            used = shutil.disk_usage(self.path).used
            subprocess.run(["mount", "-o", f"remount,size={used + n}", str(self.path)], check=True)

    def limit(self, n: int) -> None:
        """In the child: let no more than n fit, where the disk itself does not see to it."""
        if self.how == "fault":
            self.faults.fault_arm(os.fsencode(self.path), 3, n)
        if self.how in ("fsize", "nofile"):
            which = resource.RLIMIT_FSIZE if self.how == "fsize" else resource.RLIMIT_NOFILE
            resource.setrlimit(which, (n, resource.getrlimit(which)[1]))


def state_of(target: Path, before: bytes | None, old: str) -> tuple[str, list[str]]:
    """What is there: ``old``, ``new``, ``none`` or what is wrong; and what is left over."""
    if target.is_dir():
        known = {old: "old"}
        state = judged(target, known)
        return ("new" if state == "an unknown run" else state), leftovers(target)
    left = [name for name in os.listdir(target.parent) if name != target.name]
    if not target.exists():
        return "none", left
    return ("old" if target.read_bytes() == before else "new"), left


def main() -> int:
    work, how, words, step = Path(sys.argv[1]), sys.argv[2], sys.argv[3].split(","), int(sys.argv[4])
    given, disk = prepare(work), Disk(how, work / "disk")
    disk.path.mkdir()
    for word in words:
        command = commands(*given, disk.path)[word]
        kept, old, before = older(work, disk, command)
        n, done = (8 if how == "nofile" else 0), 0
        while done < 2:  # twice, so that room for it is no matter of luck
            disk.fresh(kept, n)
            said = work / "said"
            sys.stdout.flush()
            child = os.fork()
            if not child:
                return as_the_command(command, said, disk, n)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            state, left = state_of(target_of(command), before, old)
            row = {"command": word, "n": n, "code": code, "state": state, "left": left}
            print(json.dumps(row | {"said": said.read_text(errors="replace")}), flush=True)
            done += code == 0
            n += step
    if how == "tmpfs":
        subprocess.run(["umount", str(disk.path)], check=False)
    return 0


def older(work: Path, disk: Disk, command: list[str]) -> tuple[Path, str, bytes | None]:
    """What lies there before: a copy of it, and the run id of a result or the bytes of a file."""
    from ptycho_core.cli.main import main as ptycho

    target, kept = target_of(command), work / "before" / target_of(command).name
    shutil.rmtree(kept.parent, ignore_errors=True)
    kept.parent.mkdir()
    disk.fresh(None, 1 << 26)
    assert ptycho(command) == 0
    if not target.is_dir():
        kept.write_bytes(b"an older file")
        return kept, "", kept.read_bytes()
    shutil.copytree(target, kept, ignore=shutil.ignore_patterns("training", "ptycho.log"))
    return kept, json.loads((kept / "summary.json").read_bytes())["run_id"], None


def as_the_command(command: list[str], said: Path, disk: Disk, n: int) -> int:
    """Be the command in a child; what it says goes into a file."""
    from ptycho_core.cli.main import main as ptycho

    handle = os.open(said, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.argv = ["ptycho", *command]
    disk.limit(n)
    return ptycho()


if __name__ == "__main__":
    sys.exit(main())
