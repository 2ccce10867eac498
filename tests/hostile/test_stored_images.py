"""Images of strangers, given to ``compare`` and ``export``: one thing of a sound ``reconstruction.h5`` is another."""

from __future__ import annotations

import contextlib
import io
import json
import shutil

import h5py
import numpy as np
import pytest
from refusals import refused, refused_in_child

from ptycho_core.cli.main import main

pytestmark = pytest.mark.hostile

EXPORT = ["export", "given.h5", "--format", "npz", "--out", "new.npz"]
COMPARE = ["compare", "given.h5", "image.h5"]


def _put(name, value, **how):
    """Put a dataset in the place of another."""

    def change(entry):
        if name in entry:
            del entry[name]
        entry.create_dataset(name, data=value, **how)

    return change


def _attribute(name, key, value):
    def change(entry):
        entry[name].attrs[key] = value

    return change


def _without(name):
    def change(entry):
        del entry[name]

    return change


def _group(name):
    def change(entry):
        del entry[name]
        entry.create_group(name)

    return change


def _unallocated(name, shape, dtype="c8"):
    def change(entry):
        attributes = dict(entry[name].attrs)
        del entry[name]
        entry.create_dataset(name, shape=shape, dtype=dtype, chunks=(1,) * (len(shape) - 1) + (1,))
        entry[name].attrs.update(attributes)

    return change


def _link(name, link):
    def change(entry):
        if name in entry:
            del entry[name]
        entry[name] = link

    return change


NAN = float("nan")
ENTRIES = {
    "no object": _without("object"),
    "an object that is a group": _group("object"),
    "an object of text": _put("object", "x"),
    "an object of real numbers": _put("object", np.ones((30, 27))),
    "an object of one axis": _put("object", np.ones(30, np.complex64)),
    "an object of nothing": _put("object", np.ones((0, 27), np.complex64)),
    "an object that is no number": _put("object", np.full((30, 27), NAN, np.complex64)),
    "an object of terabytes": _unallocated("object", (2**22, 2**22)),
    "a shape that wraps": _unallocated("object", (2**40, 2**40)),
    "no origin": lambda entry: entry["object"].attrs.pop("origin_px"),
    "an origin of text": _attribute("object", "origin_px", "here"),
    "an origin of three": _attribute("object", "origin_px", [1.0, 2.0, 3.0]),
    "an origin that is no number": _attribute("object", "origin_px", [NAN, 0.0]),
    "a pixel below 0": _attribute("object", "pixel_size_m", -1.0),
    "a pixel of text": _attribute("object", "pixel_size_m", "1nm"),
    "a pixel beyond all": _attribute("object", "pixel_size_m", float("inf")),
    "no coverage": _without("coverage"),
    "another coverage": _put("coverage", np.ones((3, 3), np.float32)),
    "a coverage of complex numbers": _put("coverage", np.ones((30, 27), np.complex64)),
    "a probe of two axes": _put("probe", np.ones((16, 16), np.complex64)),
    "a probe that is no square": _put("probe", np.ones((1, 16, 15), np.complex64)),
    "a probe of terabytes": _unallocated("probe", (1, 2**21, 2**21)),
    "positions of three": _put("positions_px", np.ones((20, 3))),
    "positions of text": _put("positions_px", [b"a", b"b"]),
    "a scale of two": _put("scale", [1.0, 2.0]),
    "a scale of 0": _put("scale", 0.0),
    "a scale that is no number": _put("scale", NAN),
    "slices without their distance": _put("slices", np.ones((2, 30, 27), np.complex64)),
    "mode weights of others": _put("mode_weights", np.ones((3, 7), np.float32)),
    "roles of nobody": _put("role", np.full(20, 77, np.uint8)),
    "roles of others": _put("role", np.zeros(3, np.uint8)),
    "figures of frames of others": _put("frame_figures", np.ones((3, 3))),
    "unused of text": _attribute("role", "unused", "x"),
    "unused of numbers": _attribute("role", "unused", "[1, 2]"),
    "unused of digits": _attribute("role", "unused", '{"a": [' + "9" * 5000 + "]}"),
    "unused beyond all": _attribute("role", "unused", '{"a": [1e999]}'),
    "unused that is deep": _attribute("role", "unused", "[" * 50_000),
    "a config of text": _put("config", "x"),
    "a config of a list": _put("config", "[1]"),
    "a config of numbers": _put("config", 3),
    "a config of many": _put("config", ["{}", "{}"]),
    "a config that is deep": _put("config", "[" * 100_000),
    "a config of deep keys": _put("config", '{"a":' * 100_000),
    "a config of digits": _put("config", '{"a": ' + "9" * 5000 + "}"),
    "figures of a list": _put("figures", "[1]"),
    "a verdict of bytes": _put("verdict", np.void(b"\xff\xfe{}")),
    "a title of numbers": _put("title", 3.0),
    "a title of many": _put("title", ["a", "b"]),
    "a title that is no text": _put("title", np.bytes_(b"\xff\xfe\xfd"), dtype=h5py.string_dtype("ascii", 3)),
    "a forward model of numbers": _put("forward_model", 3),
    "a pixel of geometry below 0": _put("geometry/pixel_size_m", -1.0),
    "an energy of text": _put("geometry/energy_eV", "fast"),
    "an energy of many": _put("geometry/energy_eV", [1.0, 2.0]),
    "a radiation of nobody": _put("geometry/radiation", "neutron"),
    "a propagation of nobody": _attribute("propagation", "propagation", "sideways"),
    "losses in a circle": _link("losses", h5py.SoftLink("/entry/losses")),
    "an object in a circle": _link("object", h5py.SoftLink("/entry/object")),
    "an object elsewhere": _link("object", h5py.ExternalLink("/etc/passwd", "/")),
    "an object of nowhere": _link("object", h5py.SoftLink("/nowhere")),
}
HARMLESS = {"losses in a circle"}
"""What an image can do without."""


@pytest.mark.parametrize("case", ENTRIES)
@pytest.mark.parametrize("command", ["export", "compare"])
def test_an_image_that_is_none_is_refused(sound, command, case):
    shutil.copy("image.h5", "given.h5")
    with h5py.File("given.h5", "r+") as file:
        ENTRIES[case](file["entry"])
    argv = EXPORT if command == "export" else COMPARE
    if case in HARMLESS:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert main(argv) in (0, 2)
    else:
        refused(argv, sound, "given.h5")


HEADS = {
    "a version to come": lambda file: file.attrs.update(format_version=99),
    "no entry": lambda file: file.pop("entry"),
    "an entry of numbers": lambda file: (file.pop("entry"), file.create_dataset("entry", data=[1, 2])),
    "names by the thousand": lambda file: (
        file.pop("entry"),
        [file.create_dataset(f"\u202en{i}\x1b[2J", data=i) for i in range(2000)],
    ),
}


@pytest.mark.parametrize("case", HEADS)
def test_a_file_that_is_no_image_is_refused(sound, case):
    shutil.copy("image.h5", "given.h5")
    with h5py.File("given.h5", "r+") as file:
        HEADS[case](file)
    refused(EXPORT, sound, "given.h5")
    refused(COMPARE, sound, "given.h5")


ARRAYS = {
    "an object of real numbers": {"object": np.ones((9, 8))},
    "an object of one axis": {"object": np.ones(9, complex)},
    "an object of nothing": {"object": np.ones((0, 8), complex)},
    "an object of one number": {"object": np.ones((9, 8), complex)},
    "an object that is no number": {"object": np.full((9, 8), NAN, complex)},
    "an object of numbers beyond all": {"object": np.full((9, 8), 1e308 + 1e308j)},
    "an origin of three": {"object": np.ones((9, 8), complex), "origin_px": np.ones(3)},
    "an origin of text": {"object": np.ones((9, 8), complex), "origin_px": np.array(["a", "b"])},
    "an origin that is no number": {"object": np.ones((9, 8), complex), "origin_px": np.array([NAN, 0])},
    "an origin far off": {"object": np.ones((9, 8), complex), "origin_px": np.array([1e300, -1e300])},
    "nothing": {"nothing": np.ones(3)},
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_that_are_no_image_are_refused(sound, case):
    np.savez("given.npz", **ARRAYS[case])
    refused(["compare", "given.npz", "image.h5"], sound)
    refused(["compare", "image.h5", "--truth", "given.npz"], sound)


@pytest.mark.parametrize("case", ["an object of terabytes", "a config of deep keys"])
def test_an_image_costs_no_more_than_it_holds(sound, case):
    shutil.copy("image.h5", "given.h5")
    with h5py.File("given.h5", "r+") as file:
        ENTRIES[case](file["entry"])
    refused_in_child(EXPORT, sound, "given.h5")


def test_a_bomb_of_an_image_is_refused(sound):
    from zipfile import ZIP_DEFLATED, ZipFile

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<c16", "fortran_order": False, "shape": (9_000, 9_000)})
    packed = ZipFile("given.npz", "w", ZIP_DEFLATED, compresslevel=1)
    with packed as archive, archive.open("object.npy", "w", force_zip64=True) as member:
        member.write(header.getvalue())
        for _ in range(90):
            member.write(bytes(14_400_000))
    refused_in_child(["compare", "given.npz", "image.h5"], sound, "given.npz")


@pytest.mark.parametrize("text", ["", "[", "[1]", "3", "{}", '{"format": 3}', "[" * 100_000, "9" * 5000, "\udcff"])
def test_a_folder_with_a_summary_that_is_none_is_exported_by_its_image_or_refused(sound, text):
    folder = sound / "result"
    folder.mkdir()
    shutil.copy("image.h5", folder / "reconstruction.h5")
    (folder / "summary.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:
        assert main(["export", "result", "--format", "npz", "--out", "new.npz"]) in (0, 2)
    assert "Traceback" not in err.getvalue()
    before = (folder / "summary.json").read_bytes()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:
        assert main(["run", "scan.npz", "--out", "result", "--backend", "numpy"]) == 2
    assert "result" in err.getvalue()
    assert (folder / "summary.json").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["reconstruction.h5", "summary.json"]


def test_the_sound_image_is_exported(sound):
    shutil.copy("image.h5", "given.h5")
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(EXPORT) == 0
        assert main([*COMPARE, "--json"]) == 0
    assert json.loads(json.dumps(str(np.load("new.npz").files)))
