"""An atheris target for everything of ours that takes a container apart: coverage leads the damage where we branch.

    python tests/hostile/atheris_containers.py TARGET [options of libFuzzer, such as -runs=100000 -max_total_time=600]

TARGET is a name of `TARGETS`, or ``all``, for which the first byte of an input chooses. Sound files are the seeds. An
input is written to memory, read without the guard, and may raise a typed error only; libFuzzer keeps every other.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ptycho_core"], enable_loader_override=False):
    import ptycho_core.bundle
    import ptycho_core.io.candidate
    import ptycho_core.io.plain_yaml
    import ptycho_core.io.readers.mapping
    import ptycho_core.io.registry
    from ptycho_core.errors import ArchiveError, ConfigError, DataError
    from ptycho_core.limits import Limits, within
    from ptycho_core.reader_protocol import ReadOptions

import numpy as np
from fuzzed_readers import FORMATS
from malformed_zip import npy
from mutants_of_files import MARKS, mutant

UNGUARDED = Limits(guard=False, memory_mb=200, seconds=8)


def _file(content: bytes, suffix: str = "") -> Path:
    path = Path(os.environ["ATHERIS_FOLDER"]) / f"input{suffix}"
    path.write_bytes(content)
    return path


def _examine(content: bytes) -> None:
    with within(UNGUARDED):
        ptycho_core.io.candidate.examine(_file(content))


def _header(content: bytes) -> None:
    """What the header of an array raises is caught by who asked for it, if it is of these kinds."""
    with contextlib.suppress(*ptycho_core.io.candidate._DAMAGE):
        ptycho_core.io.candidate._read_header(io.BytesIO(content))


def _zip(content: bytes) -> None:
    _examine(content if content[:2] == b"PK" else b"PK\x03\x04" + content)


def _bz2(content: bytes) -> None:
    _examine(content if content[:3] == b"BZh" else b"BZh9" + content)


def _yaml(content: bytes) -> None:
    ptycho_core.io.plain_yaml.read_yaml(content.decode("utf-8", "surrogateescape"), "input")


def _mapping(content: bytes) -> None:
    ptycho_core.io.readers.mapping.read_mapping(_file(content, ".yaml"))


def _bundle(content: bytes) -> None:
    ptycho_core.bundle.read_bundle(_file(content, ".ptycho"))


def _manifest(content: bytes) -> None:
    """The manifest of a sound bundle, in its place."""
    import zipfile

    path = _file(b"", ".ptycho")
    with zipfile.ZipFile(io.BytesIO(FORMATS["bundle"].sound)) as sound, zipfile.ZipFile(path, "w") as archive:
        for info in sound.infolist():
            archive.writestr(info, content if info.filename == "manifest.json" else sound.read(info))
    ptycho_core.bundle.read_bundle(path)


def _scan(suffix: str, magic: bytes) -> Callable[[bytes], None]:
    def read(content: bytes) -> None:
        whole = content if content.startswith(magic) else magic + content[len(magic) :]
        raw = ptycho_core.io.registry.read_scan(_file(whole, suffix), options=ReadOptions(limits=UNGUARDED))
        raw.read_counts(np.arange(min(raw.n_frames, 100)))

    return read


TARGETS: dict[str, Callable[[bytes], None]] = {
    "examine": _examine,
    "header": _header,
    "zip": _zip,
    "bz2": _bz2,
    "yaml": _yaml,
    "mapping": _mapping,
    "bundle": _bundle,
    "manifest": _manifest,
    "npz": _scan(".npz", b"PK\x03\x04"),
}
"""What is fuzzed, by name."""

APART: dict[str, Callable[[bytes], None]] = {
    "hdf5": _scan(".h5", b"\x89HDF\r\n\x1a\n"),
    "mat5": _scan(".mat", b"MATLAB 5.0 MAT-file"),
}
"""Targets that ``all`` leaves out: libhdf5 and SciPy crash there within a minute, which is why they work in a child."""

_MAPPING = """\
frames: {path: a/b, axes: [frame, y, x], measurement: counts, reshape: [20, 16, 16], flip: [y]}
positions: {y: p/y, x: p/x, unit: um, negate: [y], of: sample, names: N/2}
probe: {path: p, axes: [mode, y, x, re_im], zero: corner}
energy: 8.8keV
distance: {path: d@z, unit: mm}
centre: [7.5, 7.5]
"""


def seeds(name: str) -> list[bytes]:
    """Sound inputs of a target, and some of their mutants."""
    sound = {name: which.sound for name, which in FORMATS.items() if name != "tiff"}
    by_target = {
        "examine": [sound["npz"], sound["hdf5"], sound["tike"], sound["mat5"]],
        "header": [npy(np.zeros((2, 3))), npy(np.zeros(2, [("a", "f4"), ("b", "i4", (2,))])), npy(np.array("text"))],
        "zip": [sound["npz"], sound["npz_compressed"], sound["bundle"]],
        "bz2": [sound["tike"]],
        "yaml": [_MAPPING.encode(), b"a: &a [1, *a]\n", b"{a: 1e5, b: [yes, null, 0x1f, 2026-11-26]}"],
        "mapping": [_MAPPING.encode()],
        "bundle": [sound["bundle"]],
        "manifest": [_manifest_of(sound["bundle"])],
        "npz": [sound["npz"], sound["tike_archive"]],
        "mat5": [sound["mat5"]],
        "hdf5": [sound["hdf5"], sound["hdf5_latest"], sound["cxi"], sound["mat73"]],
    }
    kind = {"bz2": "bz2", "mat5": "mat", "hdf5": "hdf5"}.get(name, "zip")
    assert kind in MARKS
    found = by_target[name]
    return [*found, *(mutant(content, number, kind) for content in found for number in range(20))]


def _manifest_of(bundle: bytes) -> bytes:
    import zipfile

    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        return json.dumps(json.loads(archive.read("manifest.json"))).encode()


def main() -> None:
    """Fuzz a target until libFuzzer ends."""
    name, options = sys.argv[1], sys.argv[2:]
    names = list(TARGETS)
    chosen = None if name == "all" else (TARGETS | APART)[name]

    def one_input(content: bytes) -> None:
        target, rest = chosen, content
        if target is None:
            if not content:
                return
            target, rest = TARGETS[names[content[0] % len(names)]], content[1:]
        with contextlib.suppress(DataError, ArchiveError, ConfigError):
            target(rest)

    with tempfile.TemporaryDirectory() as folder:
        os.environ["ATHERIS_FOLDER"] = folder
        corpus = Path(folder) / "seeds"
        corpus.mkdir()
        for index, each in enumerate(names if name == "all" else [name]):
            for number, content in enumerate(seeds(each)):
                (corpus / f"{each}{number}").write_bytes(bytes([index]) + content if name == "all" else content)
        limits = ["-rss_limit_mb=2500", "-timeout=60", f"-artifact_prefix={os.getcwd()}/"]
        again = any(not option.startswith("-") for option in options)  # files that were kept, to be tried once more
        words = [sys.argv[0], *limits, "-max_len=60000", *options, *([] if again else [str(corpus)])]
        atheris.Setup(words, one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
