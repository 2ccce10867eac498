"""Only a regular file is read, wherever one is named: pipes, devices, sockets, folders, and names that lead nowhere."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from refusals import refused
from small_results import QUICK

pytestmark = pytest.mark.hostile

RUN = ["run", "scan.npz", "--out", "new", *QUICK]
SCANS = {
    "run": ["run", "{}", "--out", "new", *QUICK],
    "train": ["train", "scan.npz", "{}", "--method", "solver", "--out", "new", "--backend", "numpy"],
    "reconstruct": ["reconstruct", "--model", "model.ptycho", "{}", "--out", "new"],
    "inspect": ["inspect", "{}"],
    "suggest": ["inspect", "{}", "--suggest_mapping"],
    "orient": ["orient", "{}"],
    "convert": ["convert", "{}", "new.npz"],
}
OTHERS = {
    "config": [*RUN, "--config", "{}"],
    "config of simulate": ["simulate", "--out", "new.npz", "--config", "{}"],
    "map": [*RUN, "--map", "{}"],
    "probe": [*RUN, "--probe", "{}"],
    "mask": [*RUN, "--mask", "{}"],
    "background": [*RUN, "--background", "{}"],
    "positions": [*RUN, "--positions", "{}"],
    "frames": [*RUN, "--frames", "{}"],
    "resume": [*RUN, "--resume_from", "{}"],
    "model": ["reconstruct", "--model", "{}", "scan.npz", "--out", "new"],
    "compare": ["compare", "{}", "image.h5"],
    "truth": ["compare", "image.h5", "--truth", "{}"],
    "export": ["export", "{}", "--format", "npz"],
}
ROLES = SCANS | OTHERS
"""Where a file is named → the command, ``{}`` for the file."""


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = os.getcwd()
        os.chdir(path.parent)  # the name of a socket may not be long
        try:
            made.bind(path.name)
        finally:
            os.chdir(here)


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _dangling(path: Path) -> None:
    path.symlink_to("nothing")


def _device(name: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.symlink_to(name)

    return make


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "inside.txt").write_text("1")


KINDS = {
    "pipe": _fifo,
    "socket": _socket,
    "zero": _device("/dev/zero"),
    "null": _device("/dev/null"),
    "random": _device("/dev/urandom"),
    "full": _device("/dev/full"),
    "loop": _loop,
    "dangling": _dangling,
    "folder": _folder,
    "empty": lambda path: path.touch(),
}


_SAY_NOTHING = {("config", "empty"), ("config of simulate", "empty")}
"""An empty file of settings is one, and sets nothing."""


def filled(command: list[str], name: str) -> list[str]:
    """A command with the file's name in its place."""
    return [name if word == "{}" else word for word in command]


@pytest.mark.spec("CMD-10")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("role", ROLES)
def test_what_is_no_file_is_refused(sound, role, kind):
    path = sound / "given"
    KINDS[kind](path)
    if (role, kind) in _SAY_NOTHING:
        return
    refused(filled(ROLES[role], "given"), sound, r"\bgiven\b")


NAMES = {
    "missing": "nowhere.npz",
    "null": "a\0b.npz",
    "long": "n" * 5000,
    "long way": "/".join(["n" * 200] * 30),
    "dash": "-",
    "nothing": "",
    "escape": "\x1b]0;owned\x07.npz",
    "turned": "\u202egnp.exe",
    "no utf-8": "\udcff\udcfe.npz",
    "through a file": "scan.npz/inside.npz",
    "through a loop": "loop/inside.npz",
    "pattern": "[z-a]*",
    "pattern of all": "**",
    "home": "~nobody/scan.npz",
    "lines": "two\nlines.npz",
}


@pytest.mark.spec("CMD-10")
@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("role", ROLES)
def test_a_name_that_leads_nowhere_is_refused(sound, role, kind):
    _loop(sound / "loop")
    refused(filled(ROLES[role], NAMES[kind]), sound)


WRITERS = {
    "run": ["run", "scan.npz", "--out", "{}", *QUICK],
    "train": ["train", "scan.npz", "--method", "solver", "--out", "{}", "--backend", "numpy", "--epochs", "1"],
    "reconstruct": ["reconstruct", "--model", "model.ptycho", "scan.npz", "--out", "{}"],
    "simulate": ["simulate", "--out", "{}"],
    "convert": ["convert", "scan.npz", "{}", "--format", "npz"],
    "export": ["export", "image.h5", "--format", "npz", "--out", "{}"],
}
IN_THE_WAY = {
    "a pipe": (_fifo, "given"),
    "a socket": (_socket, "given"),
    "null": (_device("/dev/null"), "given"),
    "a loop": (_loop, "given"),
    "through a file": (lambda path: path.write_text("1"), "given/inside"),
    "through a pipe": (_fifo, "given/inside"),
    "through null": (_device("/dev/null"), "given/inside"),
    "through a loop": (_loop, "given/inside"),
    "long": (lambda path: None, "n" * 5000),
    "long way": (lambda path: None, "/".join(["n" * 200] * 30)),
    "null character": (lambda path: None, "a\0b"),
    "nothing": (lambda path: None, ""),
    "proc": (lambda path: None, "/proc/nowhere"),
    "sys": (lambda path: None, "/sys/kernel/nowhere/inside"),
}
"""What lies where a result is to be written → how it is made, and the name that is given."""


@pytest.mark.parametrize("kind", IN_THE_WAY)
@pytest.mark.parametrize("command", WRITERS)
def test_nothing_is_written_over_what_is_no_file(sound, command, kind):
    make, name = IN_THE_WAY[kind]
    suffix = {"simulate": ".npz", "convert": ".npz", "export": ".npz"}.get(command, "")
    make(sound / f"given{suffix}")
    if name.startswith("given"):
        name = f"given{suffix}{name.removeprefix('given')}"
    refused(filled(WRITERS[command], name), sound, notes=True)


@pytest.mark.spec("CMD-10")
@pytest.mark.parametrize("kind", ["a pipe", "a socket", "null"])
@pytest.mark.parametrize("command", ["simulate", "convert", "export"])
def test_overwrite_does_not_replace_what_is_no_file(sound, command, kind):
    IN_THE_WAY[kind][0](sound / "given.npz")
    argv = filled(WRITERS[command], "given.npz")
    refused([*argv, *(["--overwrite"] if command != "simulate" else [])], sound, "is a")
