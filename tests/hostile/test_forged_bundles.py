"""Models and checkpoints of strangers: archives that lie, headers that wrap, configs that ask for the world."""

from __future__ import annotations

import io
import json
import math
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from forged_bundles import MEMBERS, forge, pack, tensors, unpack
from refusals import refused, refused_in_child
from small_results import QUICK

from ptycho_core.bundle import read_bundle, write_bundle
from ptycho_core.cli.main import main
from ptycho_core.enginekit.checkpoint import write_checkpoint
from ptycho_core.errors import ArchiveError

pytestmark = pytest.mark.hostile

RECONSTRUCT = ["reconstruct", "--model", "model.ptycho", "scan.npz", "--out", "new"]
RESUME = ["run", "scan.npz", "--out", "new", *QUICK, "--resume_from", "solver.ckpt"]
INT64, WRAPS = 2**63 - 1, 2**62


def _nested(levels: int) -> list:
    found: list = []
    for _ in range(levels):
        found = [found]
    return found


def _set(*path, value):
    def change(manifest):
        for name in path[:-1]:
            manifest = manifest[name]
        manifest[path[-1]] = value

    return change


def test_the_sound_bundle_is_accepted(sound):
    forge(sound / "model.ptycho")
    assert main(RECONSTRUCT) == 0


MANIFESTS = {
    "format": _set("format", value="other"),
    "format of a list": _set("format", value=["ptycho-model"]),
    "schema of text": _set("schema_version", value="2"),
    "schema of truth": _set("schema_version", value=True),
    "schema of a fraction": _set("schema_version", value=2.0),
    "schema below": _set("schema_version", value=-1),
    "schema to come": _set("schema_version", value=3),
    "schema without end": _set("schema_version", value=10**4000),
    "backend of a list": _set("backend", value=[1]),
    "backend of nothing": _set("backend", value=""),
    "backend by path": _set("backend", value="../../evil"),
    "backend that acts": _set("backend", value="\x1b]0;owned\x07\u202e"),
    "backend without end": _set("backend", value="x" * 100_000),
    "backend of half a character": _set("backend", value="\ud800"),
    "generator of a list": _set("generator", value=[1]),
    "generator of a solver": _set("generator", value="probe_unet"),
    "side": _set("side", value=17),
    "side of a fraction": _set("side", value=16.0),
    "side of truth": _set("side", value=True),
    "side below": _set("side", value=-16),
    "side without end": _set("side", value=10**4000),
    "another side": _set("side", value=32),
    "config of a list": _set("config", value=[1]),
    "config of nothing": _set("config", value={"nothing": 1}),
    "config in itself": _set("config", "model", value={"self": 1}),
    "folder": _set("config", "output_dir", value="/etc"),
    "epochs": _set("config", "epochs", value=10**4000),
    "rate": _set("config", "learning_rate", value=10**4000),
    "rate of text": _set("config", "learning_rate", value="fast"),
    "options of nobody": _set("config", "options", value={"nobody": {"a": 1}}),
    "options of a list": _set("config", "options", value=[1]),
    "options of the engine": _set("config", "options", value={"numpy": {"a": 1}}),
    "a crop without end": _set("config", "inference", "central_crop_px", value=10**30),
    "a network": _set("config", "model", value={"generator": "probe_unet", "width": 10**12}),
    "a network of nobody": _set("config", "model", value={"generator": "nobody", "width": 10**12}),
    "scale": _set("scale", value=0),
    "scale of text": _set("scale", value="1"),
    "scale without end": _set("scale", value=10**4000),
    "scale below": _set("scale", value=-1.0),
    "statistics of a list": _set("statistics", value=[1]),
    "statistics of nothing": _set("statistics", value={}),
    "mean of nothing": _set("statistics", "mean_counts", value=None),
    "frames of a fraction": _set("statistics", "n_frames", value=1.5),
    "frames without end": _set("statistics", "n_frames", value=10**4000),
    "history of a list": _set("history", value=[1]),
    "history of text": _set("history", value={"train_loss": "x"}),
    "history of lists": _set("history", value={"train_loss": [[1.0]]}),
    "history without end": _set("history", value={"train_loss": [10**4000]}),
    "provenance of a list": _set("provenance", value=[1]),
    "provenance too deep": _set("provenance", value={"a": _nested(40)}),
    "provenance far too deep": _set("provenance", value={"a": _nested(400)}),
    "provenance of too much": _set("provenance", value={"a": [0] * 1_000_001}),
    "forward model": _set("forward_model", value="nobody"),
    "forward model of a mapping": _set("forward_model", value={}),
    "slices": _set("slice_spacing_m", value=1e-6),
    "slices of text": _set("slice_spacing_m", value="1um"),
    "slices below": _set("slice_spacing_m", value=-1.0),
    "more": _set("nothing", value=1),
    "more that acts": _set("\x1b[2J\u202e", value=1),
    "members of a list": _set("members", value=[1]),
    "members of others": _set("members", value={"a": 1}),
    "members without end": _set("members", "weights.safetensors", "bytes", value=10**4000),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_manifest_that_says_what_no_model_says_is_refused(sound, case):
    forge(sound / "model.ptycho", MANIFESTS[case])
    refused(RECONSTRUCT, sound, notes=True)


TEXTS = {
    "nothing": lambda text: "",
    "a list": lambda text: "[]",
    "a number": lambda text: "3",
    "digits": lambda text: "9" * 5000,
    "deep": lambda text: "[" * 100_000,
    "deep and closed": lambda text: "[" * 900 + "]" * 900,
    "deep keys": lambda text: '{"a":' * 100_000,
    "twice": lambda text: text.replace('"backend"', '"backend": "numpy",\n "backend"', 1),
    "not a number": lambda text: text.replace('"scale"', '"x": NaN, "scale"', 1),
    "beyond all": lambda text: text.replace('"scale"', '"x": 1e999, "scale"', 1),
    "an end": lambda text: text + "x",
    "a comment": lambda text: "// " + text,
    "half a character": lambda text: text.replace("numpy", "\ud800", 1),
    "a mark": lambda text: "\ufeff" + text,
    "nulls": lambda text: "\0" * 1000,
    "megabytes": lambda text: text + " " * (9 * 2**20),
    "lists by the million": lambda text: "[" + "[]," * 2_000_000 + "[]]",
}


@pytest.mark.parametrize("case", TEXTS)
def test_a_manifest_that_is_no_json_is_refused(sound, case):
    forge(sound / "model.ptycho", raw=TEXTS[case])
    refused(RECONSTRUCT, sound, "model.ptycho")


def _one(dtype, shape, offsets, name="object"):
    return {name: {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


HEADERS = {
    "empty": b"",
    "short": b"\x01\x00",
    "no header": tensors(b""),
    "a header beyond all": tensors(b"{}", length=2**63),
    "a header beyond its file": tensors(b"{}", length=1000),
    "a header below": tensors(b"{}", length=2**64 - 1),
    "a header of a list": tensors([]),
    "a header of a number": tensors(3),
    "a header of digits": tensors(b'{"a": ' + b"9" * 5000 + b"}"),
    "a header that is deep": tensors(b"[" * 100_000),
    "a header that is deep and closed": tensors(b'{"a":' * 900 + b"1" + b"}" * 900),
    "a header of nulls": tensors(bytes(100)),
    "a tensor of a list": tensors({"object": [1]}),
    "a tensor of nothing": tensors({"object": {}}),
    "a tensor without a place": tensors({"object": {"dtype": "F32", "shape": [1]}}),
    "double precision": tensors(_one("F64", [1], [0, 8]), bytes(8)),
    "no type": tensors(_one("Q99", [1], [0, 8]), bytes(8)),
    "a type of a list": tensors(_one(["F32"], [1], [0, 4]), bytes(4)),
    "a type without end": tensors(_one("F" * 100_000, [1], [0, 4]), bytes(4)),
    "a shape of text": tensors(_one("F32", "1", [0, 4]), bytes(4)),
    "a shape below": tensors(_one("F32", [-1], [0, 4]), bytes(4)),
    "a shape of a fraction": tensors(_one("F32", [1.5], [0, 4]), bytes(4)),
    "a shape that wraps": tensors(_one("F32", [WRAPS, 4], [0, 0])),
    "a shape that wraps to a little": tensors(_one("F32", [2**32, 2**32 + 1, 1], [0, 4]), bytes(4)),
    "a shape without end": tensors(_one("F32", [10**30], [0, 4]), bytes(4)),
    "a shape of many axes": tensors(_one("F32", [1] * 1000, [0, 4]), bytes(4)),
    "nothing of much": tensors(_one("F32", [0, INT64], [0, 0])),
    "nothing of more": tensors(_one("F32", [0, 2**64 - 1], [0, 0])),
    "places in each other": tensors(_one("F32", [2], [0, 8], "a") | _one("F32", [2], [4, 12], "b"), bytes(12)),
    "places the other way": tensors(_one("F32", [1], [4, 0]), bytes(4)),
    "places beyond": tensors(_one("F32", [2], [0, 8]), bytes(4)),
    "places below": tensors(_one("F32", [1], [-4, 0]), bytes(4)),
    "places beyond all": tensors(_one("F32", [1], [2**64, 2**64 + 4]), bytes(4)),
    "a gap": tensors(_one("F32", [1], [4, 8]), bytes(8)),
    "more than it says": tensors(_one("F32", [1], [0, 4]), bytes(400)),
    "a name that acts": tensors(_one("F32", [1], [0, 4], "\x1b[2J\u202e"), bytes(4)),
    "a name without end": tensors(_one("F32", [1], [0, 4], "x" * 100_000), bytes(4)),
    "names by the thousand": tensors(
        {f"n{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(30_000)}
    ),
    "a pickle": pickle.dumps({"a": 1}),
    "not a number": tensors(_one("F32", [1], [0, 4]), struct.pack("<f", math.nan)),
}


@pytest.mark.spec("BUNDLE-11")
@pytest.mark.parametrize("member", ["weights", "probe"])
@pytest.mark.parametrize("case", HEADERS)
def test_tensors_that_lie_are_refused(sound, case, member):
    forge(sound / "model.ptycho", **{member: HEADERS[case]})
    refused(RECONSTRUCT, sound, "model.ptycho")


def _other(path, **arrays):
    """Forge the weights of a solver: a name that is None is left out."""
    from safetensors.numpy import load, save

    weights = load(unpack(path)["weights.safetensors"]) | arrays
    forge(path, weights=save({name: np.asarray(value) for name, value in weights.items() if value is not None}))


ARRAYS = {
    "no object": {"object": None},
    "no origin": {"origin_px": None},
    "an object of three": {"object": np.ones((3, 3, 3), np.float32)},
    "an object of whole numbers": {"object": np.ones((3, 3, 2), np.int64)},
    "an object of nothing": {"object": np.ones((0, 0, 2), np.float32)},
    "an object of one": {"object": np.ones((1, 1, 2), np.float32)},
    "an object that is no number": {"object": np.full((30, 30, 2), np.nan, np.float32)},
    "an object beyond all": {"object": np.full((30, 30, 2), np.inf, np.float32)},
    "an origin of three": {"origin_px": np.ones(3, np.int64)},
    "an origin of fractions": {"origin_px": np.ones(2, np.float32)},
    "an origin far off": {"origin_px": np.array([INT64, INT64])},
    "an origin far below": {"origin_px": np.array([-INT64, -INT64])},
    "an origin that wraps": {"origin_px": np.array([-(2**63), 2**62])},
    "slices without their distance": {"slices": np.ones((2, 30, 27, 2), np.float32)},
    "weights of modes of others": {"mode_weights": np.ones((20, 7), np.float32)},
    "weights of other frames": {"mode_weights": np.ones((3, 1), np.float32)},
    "something more": {"nothing": np.ones(3, np.float32)},
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_that_no_solver_writes_are_refused(sound, case):
    _other(sound / "model.ptycho", **ARRAYS[case])
    refused(RECONSTRUCT, sound, notes=True)


def _probe(change):
    def forged(path):
        from safetensors.numpy import load, save

        forge(path, probe=save({"probe": change(load(unpack(path)["probe.safetensors"])["probe"])}))

    return forged


def _patched(offset_of, new):
    """Overwrite bytes of the archive where a function finds them."""

    def change(path):
        content = bytearray(path.read_bytes())
        at = offset_of(content)
        content[at : at + len(new)] = new
        path.write_bytes(bytes(content))

    return change


def _directory(content):
    return content.index(b"PK\x01\x02")


def _end(content):
    return content.rindex(b"PK\x05\x06")


def _rewritten(**how):
    def change(path):
        found = unpack(path)
        with zipfile.ZipFile(path, "w", **how) as archive:
            for name, content in found.items():
                archive.writestr(name, content)

    return change


def _members(change):
    def forged(path):
        pack(path, change(unpack(path)))

    return forged


def _shared(path):
    """Two entries of the list of members lead to the same bytes."""
    content = path.read_bytes()
    first = content.index(b"PK\x01\x02")
    second = content.index(b"PK\x01\x02", first + 4)
    third = content.index(b"PK\x01\x02", second + 4)
    path.write_bytes(content[: third + 42] + content[second + 42 : second + 46] + content[third + 46 :])


def _million(path):
    """A list of members of many megabytes."""
    entry = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    directory = entry * 400_000
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 65535, 65535, len(directory), 0, 0)
    path.write_bytes(directory + end)


ARCHIVES = {
    "empty": lambda path: path.write_bytes(b""),
    "one byte": lambda path: path.write_bytes(b"P"),
    "no members": _members(lambda found: {}),
    "an end alone": lambda path: path.write_bytes(b"PK\x05\x06" + bytes(18)),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "without its end": lambda path: path.write_bytes(path.read_bytes()[:-10]),
    "something before": lambda path: path.write_bytes(b"#!/bin/sh\n" + path.read_bytes()),
    "something behind": lambda path: path.write_bytes(path.read_bytes() + b"x" * 200_000),
    "a comment": _patched(lambda content: _end(content) + 20, struct.pack("<H", 5) + b"hello"),
    "compressed": _rewritten(compression=zipfile.ZIP_DEFLATED),
    "compressed twice": _rewritten(compression=zipfile.ZIP_BZIP2),
    "in each other": _shared,
    "encrypted": _patched(lambda content: _directory(content) + 8, b"\x01\x00"),
    "patched": _patched(lambda content: _directory(content) + 8, b"\x20\x00"),
    "no such method": _patched(lambda content: _directory(content) + 10, b"\x63\x00"),
    "too small": _patched(lambda content: _directory(content) + 20, b"\x01\x00\x00\x00\x01\x00\x00\x00"),
    "too large": _patched(lambda content: _directory(content) + 20, b"\xf0\xff\xff\x7f\xf0\xff\xff\x7f"),
    "64 bits": _patched(lambda content: _directory(content) + 20, b"\xff" * 8),
    "elsewhere": _patched(lambda content: _directory(content) + 42, b"\xff\xff\xff\x7f"),
    "a list elsewhere": _patched(lambda content: _end(content) + 16, b"\xff\xff\xff\x7f"),
    "a list without end": _patched(lambda content: _end(content) + 12, b"\xff\xff\xff\x7f"),
    "a million members": _million,
    "another name inside": _patched(lambda content: 30, b"x"),
    "no check sum": _patched(lambda content: _directory(content) + 16, b"abcd"),
    "one missing": _members(lambda found: {name: found[name] for name in MEMBERS[:2]}),
    "one more": _members(lambda found: {**found, "more": b""}),
    "one twice": _members(lambda found: [*found.items(), *list(found.items())[:1]]),
    "a way out": _members(lambda found: {**found, "../../evil": b"x"}),
    "a way from the root": _members(lambda found: {**found, "/etc/evil": b"x"}),
    "a drive": _members(lambda found: {**found, "C:evil": b"x"}),
    "a way by strokes": _members(lambda found: {**found, "..\\evil": b"x"}),
    "a name that acts": _members(lambda found: {**found, "\x1b]0;owned\x07\u202e": b"x"}),
    "a name without end": _members(lambda found: {**found, "x" * 60_000: b"x"}),
    "a folder": _members(lambda found: {**found, "folder/": b""}),
    "a pickle": lambda path: path.write_bytes(pickle.dumps({"a": 1})),
    "an older bundle of somebody": _members(lambda found: {"data.pkl": b"\x80\x02.", "version": b"3"}),
    "HDF5": lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(2000)),
    "a gap of gigabytes": lambda path: _sparse(path, 2**31),
    "zeros of gigabytes": lambda path: _hole(path, 2**33),
    "a probe of nothing": _probe(lambda probe: probe * 0),
    "a probe that is no number": _probe(lambda probe: probe * np.float32(np.nan)),
    "a probe of another side": _probe(lambda probe: probe[:, :-2, :-2]),
    "a probe of no modes": _probe(lambda probe: probe[:0]),
    "a probe of three parts": _probe(lambda probe: np.repeat(probe, 2, axis=-1)),
    "a probe of whole numbers": _probe(lambda probe: probe.astype(np.int64)),
}


def _sparse(path, size):
    """The list of members lies behind a hole."""
    content = path.read_bytes()
    first = _directory(content)
    with path.open("wb") as file:
        file.write(content[:first])
        file.seek(size)
        end = bytearray(content[first:])
        at = end.rindex(b"PK\x05\x06")
        end[at + 16 : at + 20] = struct.pack("<I", size)
        end[20:28] = struct.pack("<II", size - 100, size - 100)  # and the first member is all of it
        file.write(end)


def _hole(path, size):
    with path.open("wb") as file:
        file.truncate(size)


@pytest.mark.spec("BUNDLE-11")
@pytest.mark.parametrize("case", ARCHIVES)
def test_archives_that_are_no_bundle_are_refused(sound, case):
    ARCHIVES[case](sound / "model.ptycho")
    refused(RECONSTRUCT, sound, "model.ptycho")


def test_a_list_of_members_is_measured_before_it_is_read(sound):
    _million(sound / "model.ptycho")
    refused(RECONSTRUCT, sound, "its list of members, or what follows it, has 18800000 bytes; allowed: 131072")


@pytest.mark.parametrize("case", ["a million members", "zeros of gigabytes", "a gap of gigabytes"])
def test_an_archive_costs_no_more_than_it_holds(sound, case):
    ARCHIVES[case](sound / "model.ptycho")
    refused_in_child(RECONSTRUCT, sound, most_megabytes=400)


@pytest.mark.spec("BUNDLE-11")
@pytest.mark.parametrize("case", ["lists by the million", "deep"])
def test_a_manifest_costs_no_more_than_is_allowed(sound, case):
    forge(sound / "model.ptycho", raw=TEXTS[case])
    refused_in_child(RECONSTRUCT, sound, most_megabytes=700)


@pytest.mark.parametrize("case", ["half", "a way out", "a million members", "an end alone", "in each other", "patched"])
def test_a_probe_of_a_bundle_is_read_by_the_same_rules(sound, case):
    ARCHIVES[case](sound / "model.ptycho")
    refused(["run", "scan.npz", "--out", "new", *QUICK, "--probe", "model.ptycho"], sound, "model.ptycho")


def test_what_could_not_be_read_back_is_not_written(sound):
    bundle = read_bundle(sound / "model.ptycho")
    deep = {"a": _nested(40)}
    with pytest.raises(ArchiveError, match="levels"):
        write_bundle(sound / "new.ptycho", type(bundle)(**{**bundle.__dict__, "provenance": deep}))
    assert not (sound / "new.ptycho").exists()


# checkpoints


def _torch_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"cos\nsystem\n(S'touch owned'\ntR.")
        archive.writestr("archive/version", b"3\n")


def _torch_tar(path):
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            content = b"cos\nsystem\n(S'touch owned'\ntR."
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def _torch_legacy(path):
    magic = 0x1950A86A20F9469CFC6C
    path.write_bytes(b"".join(pickle.dumps(value, 2) for value in (magic, 1001, {"little_endian": True}, {})))


def _entry(entry, data=b"", header=None):
    def write(path):
        metadata = entry if isinstance(entry, str) else json.dumps(entry)
        path.write_bytes(tensors({"__metadata__": {"ptycho_checkpoint": metadata}, **(header or {})}, data))

    return write


def _state(change):
    """The sound checkpoint with other arrays or facts."""

    def write(path):
        from ptycho_core.enginekit.checkpoint import read_checkpoint

        arrays, facts = read_checkpoint(path, "numpy")
        arrays, facts = dict(arrays), json.loads(json.dumps(facts))
        change(arrays, facts)
        write_checkpoint(path, "numpy", arrays, facts)

    return write


CHECKPOINTS = {
    "a pickle that runs": lambda path: path.write_bytes(b"cos\nsystem\n(S'touch owned'\ntR."),
    "a pickle without end": lambda path: path.write_bytes(b"\x80\x04" + b"(" * 100_000 + b"."),
    "torch": _torch_zip,
    "torch as a tar": _torch_tar,
    "torch of old": _torch_legacy,
    "a model": lambda path: path.write_bytes((path.parent / "model.ptycho").read_bytes()),
    "a scan": lambda path: path.write_bytes((path.parent / "scan.npz").read_bytes()),
    "an image": lambda path: path.write_bytes((path.parent / "image.h5").read_bytes()),
    "text": lambda path: path.write_text("epochs: 3"),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "zeros of gigabytes": lambda path: _hole(path, 2**33),
    "no entry": lambda path: path.write_bytes(tensors({})),
    "an entry of text": _entry("nothing"),
    "an entry of a list": _entry([]),
    "an entry that is deep": _entry("[" * 100_000),
    "an entry of digits": _entry("9" * 5000),
    "no facts": _entry({"backend": "numpy"}),
    "facts of a list": _entry({"backend": "numpy", "facts": []}),
    "facts of nothing": _entry({"backend": "numpy", "facts": {}}),
    "facts of a run of text": _entry({"backend": "numpy", "facts": {"run": "x", "history": {}}}),
    "a backend of a list": _entry({"backend": ["numpy"], "facts": {}}),
    "a backend that acts": _entry({"backend": "\x1b[2J\u202e", "facts": {}}),
    "a backend without end": _entry({"backend": "x" * 100_000, "facts": {}}),
    "another backend": _entry({"backend": "pytorch", "facts": {}}),
    "a shape that wraps": _entry({"backend": "numpy", "facts": {}}, b"", _one("F32", [WRAPS, 4], [0, 0])),
    "history of nothing": _state(lambda arrays, facts: facts.update(history={})),
    "history of text": _state(lambda arrays, facts: facts.update(history={"train_loss": "x", "test_loss": "y"})),
    "history of two lengths": _state(lambda arrays, facts: facts["history"]["train_loss"].append(1.0)),
    "history of what is no number": _state(lambda arrays, facts: facts["history"].update(train_loss=[None, None])),
    "history beyond all": _state(lambda arrays, facts: facts["history"].update(train_loss=[math.inf, math.inf])),
    "another run": _state(lambda arrays, facts: facts["run"].update(seed=99)),
    "no run": _state(lambda arrays, facts: facts.pop("run")),
    "a run without end": _state(lambda arrays, facts: facts["run"].update(seed="x" * 100_000)),
    "no object": _state(lambda arrays, facts: arrays.pop("object")),
    "another object": _state(lambda arrays, facts: arrays.update(object=np.ones((2, 2, 2)))),
    "an object of whole numbers": _state(lambda arrays, facts: arrays.update(object=arrays["object"].astype(np.int32))),
}


@pytest.mark.spec("BUNDLE-12")
@pytest.mark.parametrize("case", CHECKPOINTS)
def test_what_is_no_checkpoint_of_this_run_is_refused(sound, case):
    CHECKPOINTS[case](sound / "solver.ckpt")
    refused(RESUME, sound, "solver.ckpt")
    assert not (sound / "owned").exists()


def test_the_sound_checkpoint_is_gone_on_from(sound):
    assert main(RESUME) == 0
