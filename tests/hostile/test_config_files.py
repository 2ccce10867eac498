"""Files of settings and mappings from strangers: bombs, circles, tags, wrong kinds; each is refused in one line."""

from __future__ import annotations

import json

import pytest
from refusals import refused, refused_in_child
from small_results import QUICK

from ptycho_core.cli.main import main
from ptycho_core.errors import ConfigError
from ptycho_core.io.plain_yaml import MOST_TEXT, read_yaml

pytestmark = pytest.mark.hostile

RUN = ["run", "scan.npz", "--out", "new", *QUICK]
FIRST = "[" + ",".join("0123456789") + "]"


def _bomb(levels: int = 9, merged: bool = False) -> str:
    """Ten aliases of ten aliases of …: 10**levels values."""
    first = "a0: &a0 {k0: 1}" if merged else f"a0: &a0 {FIRST}"
    lines = [first]
    for level in range(1, levels):
        inside = ",".join([f"*a{level - 1}"] * 10)
        body = f"{{<<: [{inside}], k{level}: 1}}" if merged else f"[{inside}]"
        lines.append(f"a{level}: &a{level} {body}")
    return "\n".join(lines) + "\n"


TEXTS = {
    # too much
    "aliases": (_bomb(), "once aliases are written out"),
    "aliases merged": (_bomb(merged=True), "once aliases are written out"),
    "aliases of text": ("a: &a " + "y" * 30_000 + "\nb: [" + "*a," * 1000 + "]", "once aliases are written out"),
    "long": ("#" * (MOST_TEXT + 1), "more than 65536 bytes"),
    "many": ("[" + "[]," * 20_001 + "]", "values"),
    "deep": ("[" * 40_000, "nested deeper"),
    "deep closed": ("[" * 60 + "]" * 60, "nested deeper"),
    "deep blocks": ("- " * 30_000, "nested deeper"),
    "deep lines": ("".join(" " * depth + "a:\n" for depth in range(200)), "nested deeper"),
    "deep keys": ("? " * 30_000, "nested deeper"),
    "digits": ("epochs: " + "9" * 5000, "whole number of 5000 digits"),
    "digits of sixteen": ("epochs: 0x" + "f" * 5000, "whole number of 5002 digits"),
    "digits tagged": ("epochs: !!int '" + "9" * 5000 + "'", "whole number of 5000 digits"),
    # circles and names
    "circle": ("a: &a [*a]", "inside of what it repeats"),
    "circle of keys": ("a: &a {b: *a}", "inside of what it repeats"),
    "circle merged": ("a: &a {<<: *a}", "inside of what it repeats"),
    "no anchor": ("a: *x", "undefined alias"),
    "anchors": ("a: &x 1\nb: &x 2", "duplicate anchor"),
    "twice": ("epochs: 1\nepochs: 2", "'epochs' is given twice"),
    "twice in JSON": ('{"epochs": 1, "epochs": 2}', "'epochs' is given twice"),
    "merge of a number": ("<<: 3", "merging"),
    # tags
    "python": ("epochs: !!python/object/apply:os.system ['id']", "the tag .* is not allowed"),
    "python name": ("epochs: !!python/name:os.system", "the tag .* is not allowed"),
    "binary": ("epochs: !!binary aGk=", "the tag .* is not allowed"),
    "set": ("!!set {epochs}", "the tag .* is not allowed"),
    "ordered": ("!!omap [epochs: 1]", "the tag .* is not allowed"),
    "timestamp": ("epochs: !!timestamp 2001-01-01", "the tag .* is not allowed"),
    "own": ("%TAG ! x\n---\nepochs: !foo 1", "the tag xfoo is not allowed"),
    "endless tag": ("!" * 60_000, "the tag .* is not allowed"),
    "no number": ("epochs: !!int ''", "not YAML or JSON"),
    "number of a list": ("epochs: !!int [1]", "expected a scalar"),
    "no truth": ("probe_trainable: !!bool maybe", "not YAML or JSON"),
    "no float": ("learning_rate: !!float x", "not YAML or JSON"),
    # keys
    "key of a list": ("? [1, 2]\n: 3", "the key a sequence is no text"),
    "key of a mapping": ("{? {a: 1} : 3}", "the key a mapping is no text"),
    "key of a number": ("1: 2", "the key 1 is no text"),
    "key of nothing": ("~: 2", "the key ~ is no text"),
    "key of a truth": ("true: 2", "the key true is no text"),
    "key of a float": ("1.5: 2", "the key 1.5 is no text"),
    # text
    "null": ("title: a\0b", "unacceptable character #x0000"),
    "null escaped": ('strategy: "a\\0b"', "no text"),
    "bell": ("strategy: \x07", "unacceptable character"),
    "half a character": ('strategy: "\\ud800"', "no text"),
    "no character": ('strategy: "\\U00110000"', "not YAML or JSON"),
    "tab": ("epochs:\n\t- 1", "cannot start any token"),
    "two documents": ("---\nepochs: 1\n---\nepochs: 2", "single document"),
    "later YAML": ("%YAML 9.9\n--- {epochs: 1}", "incompatible"),
    "no end": ('strategy: "x', "end of stream"),
    "no end of a list": ("epochs: [1", "not YAML or JSON"),
    "colons": (":" * 60_000, "mapping values"),
    "stars": ("*" * 60_000, "alias"),
    "and": ("&" * 60_000, "anchor"),
    # not a mapping
    "list": ("[1, 2]", "it must hold 'name: value' settings"),
    "word": ("epochs", "it must hold 'name: value' settings"),
    "number": ("3", "it must hold 'name: value' settings"),
    "endless word": ("x" * 60_000, "it must hold 'name: value' settings"),
}


@pytest.mark.spec("CMD-11")
@pytest.mark.parametrize("case", TEXTS)
def test_a_settings_file_that_says_too_much_or_nothing_is_refused(sound, case):
    text, words = TEXTS[case]
    (sound / "given.yaml").write_text(text, encoding="utf-8")
    refused([*RUN, "--config", "given.yaml"], sound, words)


@pytest.mark.parametrize("case", [*TEXTS])
def test_a_mapping_file_is_read_by_the_same_rules(sound, case):
    text, words = TEXTS[case]
    (sound / "given.yaml").write_text(text, encoding="utf-8")
    refused([*RUN, "--map", "given.yaml"], sound, words.replace("it must hold 'name: value' settings", "it must be"))


BYTES = {
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "zip": b"PK\x03\x04" + bytes(100),
    "UTF-16": "epochs: 1".encode("utf-16"),
    "Latin": "strategy: \xe9".encode("latin-1"),
    "half a mark": b"\xef\xbb",
    "nulls": bytes(1000),
    "too long a code": b"a: \xf8\x88\x80\x80\x80",
    "surrogates": b"a: \xed\xa0\x80",
}


@pytest.mark.parametrize("case", BYTES)
@pytest.mark.parametrize("option", ["--config", "--map"])
def test_bytes_that_are_no_text_are_refused(sound, option, case):
    (sound / "given").write_bytes(BYTES[case])
    refused([*RUN, option, "given"], sound, "given")


SETTINGS = {
    "unknown": "foo: 1",
    "unknown inside": "refinement: {foo: 1}",
    "unknown of a network": "model: {foo: 1}",
    "self": "model: {self: 1}",
    "sizes": "model: {generator: probe_unet, sizes: {width: 4}}",
    "generator of a list": "model: {generator: [1]}",
    "width": "model: {width: 100000000000}",
    "width of text": "model: {width: wide}",
    "model of a number": "model: 3",
    "refinement of a list": "refinement: [1]",
    "inference of text": "inference: x",
    "options of a number": "options: 3",
    "options of numpy": "options: {numpy: {algorithm: lsq}}",
    "options of nobody": "options: {nobody: {algorithm: lsq}}",
    "options of two kinds": "options: {numpy: {}, algorithm: lsq}",
    "engine of a list": "backend: [1]\nepochs: 1",
    "method of a mapping": "method: {a: 1}",
    "epochs": "epochs: -1",
    "epochs of text": "epochs: many",
    "epochs of truth": "epochs: true",
    "epochs that are no whole number": "epochs: 1.5",
    "epochs beyond all": "epochs: 1e400",
    "epochs of a list": "epochs: [1, 2, 3]",
    "rate": "learning_rate: .nan",
    "rate beyond all": "learning_rate: .inf",
    "rate beyond all floats": "learning_rate: 99999999999999999999999999999999999999",
    "seed": "seed: -1",
    "seed of a date": "seed: 2001-01-01",
    "seed by sixties": "seed: 1:30",
    "seed of eights": "seed: 010",
    "truth": "probe_trainable: on",
    "loss": "loss: [poisson]",
    "folder": "output_dir: /etc",
    "folder of a list": "output_dir: [1]",
    "resume of a number": "resume_from: 3",
    "resume of a list": "resume_from: [a, b]",
    "runtime of a list": "runtime: [1]",
    "runtime twice": "runtime: {threads: 1}\nthreads: 2",
    "threads": "threads: 0",
    "threads of truth": "threads: true",
    "devices": "devices: -3",
    "precision": "precision: 32",
    "loggers": "loggers: [nothing]",
    "loggers of a number": "loggers: 3",
    "loggers in each other": "loggers: [[tensorboard]]",
    "accelerator": "accelerator: [cpu]",
    "old and new": "inference: {batch_size: .nan}\nframes_at_once: 3",
    "refused old name": "n_images: 3",
    "long name": "x" * 900 + ": 1",
    "long value": "loss: " + "x" * 60_000,
    "long list": "loss: [" + "1, " * 15_000 + "]",
    "a name that acts": '"\\x1b]0;owned\\x07": 1',
    "a value that acts": 'loss: "\\x1b[2J\\u202e"',
}


@pytest.mark.spec("CMD-11", "CMD-12")
@pytest.mark.parametrize("case", SETTINGS)
def test_settings_that_are_none_are_refused(sound, case):
    (sound / "given.yaml").write_text(SETTINGS[case], encoding="utf-8")
    command = ["run", "scan.npz", "--out", "new", "--config", "given.yaml"]
    refused(command, sound, notes=True)


SOUND = {
    "frames": "{path: diff3d, measurement: counts}",
    "positions": "{y: ycoords, x: xcoords, unit: px}",
}
MAPPINGS: dict[str, dict[str, str]] = {
    "frames of a number": {"frames": "3"},
    "frames without a path": {"frames": "{axes: [frame, y, x]}"},
    "path of a list": {"frames": "{path: [a]}"},
    "axes unknown": {"frames": "{path: diff3d, axes: [frame, up, down]}"},
    "axes of mappings": {"frames": "{path: diff3d, axes: [{a: 1}]}"},
    "axes twice": {"frames": "{path: diff3d, axes: [y, y, x]}"},
    "axes too many": {"frames": "{path: diff3d, axes: [frame, y, x, one, one]}"},
    "reshape": {"frames": "{path: diff3d, reshape: [0, 0, 0]}"},
    "reshape beyond all": {"frames": "{path: diff3d, reshape: [9223372036854775807, 9223372036854775807, 2]}"},
    "reshape beyond 64 bits": {"frames": "{path: diff3d, reshape: [99999999999999999999999999, 1, 1]}"},
    "reshape of leftovers": {"frames": "{path: diff3d, reshape: [-1, -1, -1]}"},
    "reshape below 0": {"frames": "{path: diff3d, reshape: [-5, -16, 16]}"},
    "raster": {"positions": "null", "raster": "[1e400, 3]"},
    "raster below 0": {"positions": "null", "raster": "[-4, -5]", "scan_step": "1nm", "pixel_size": "1nm"},
    "raster beyond all": {
        "positions": "null",
        "raster": "[9223372036854775807, 9223372036854775807]",
        "scan_step": "1nm",
    },
    "raster beyond 64 bits": {"positions": "null", "raster": "[18446744073709551617, 48]", "scan_step": "1nm"},
    "step": {"positions": "null", "raster": "[8, 6]", "scan_step": ".nan"},
    "step of a list": {"positions": "null", "raster": "[8, 6]", "scan_step": "[[1], [2]]"},
    "step beyond all": {"positions": "null", "raster": "[8, 6]", "scan_step": "1e308m", "pixel_size": "1e-300m"},
    "unit": {"positions": "{y: ycoords, x: xcoords, unit: parsec}"},
    "unit of a list": {"positions": "{y: ycoords, x: xcoords, unit: [m]}"},
    "positions of a number": {"positions": "3"},
    "half of the positions": {"positions": "{y: ycoords}"},
    "positions of what": {"positions": "{y: ycoords, x: xcoords, unit: px, of: cat}"},
    "positions of frames": {"positions": "{path: diff3d}"},
    "energy": {"energy": "fast"},
    "energy of nothing": {"energy": "{path: 3}"},
    "energy of a list": {"energy": "[8, keV]"},
    "energy elsewhere": {"energy": "{path: nowhere, unit: keV}"},
    "energy of text": {"energy": "{path: measurement, unit: keV}"},
    "pixel": {"pixel_size": "1e400m"},
    "pixel below 0": {"pixel_size": "-3nm"},
    "pixel of none": {"pixel_size": "0nm"},
    "centre": {"centre": "[.nan, .inf]"},
    "centre beyond all": {"centre": "[1e300, -1e300]"},
    "background": {"background": ".nan"},
    "background below 0": {"background": "-1e300"},
    "background beyond all": {"background": "1e400"},
    "background of a truth": {"background": "true"},
    "background of frames": {"background": "diff3d"},
    "probe of frames": {"probe": "{path: diff3d, axes: [mode, y, x, re_im, one]}"},
    "mask of text": {"mask": "measurement"},
    "radiation": {"radiation": "[photon]"},
    "no such array": {"frames": "nowhere"},
    "a way out": {"frames": "../../../etc/passwd"},
    "an endless path": {"frames": "a/" * 30_000},
    "stars": {"frames": "'" + "*" * 5000 + "x'"},
    "many stars": {"frames": "'" + "*a" * 25 + "'"},
    "brackets": {"frames": "'[z-a]*'"},
    "nothing": {"frames": "''"},
}
"""What differs from a sound mapping."""


def _mapping(changes: dict[str, str]) -> str:
    return "".join(f"{key}: {value}\n" for key, value in (SOUND | changes).items())


def test_the_sound_mapping_is_accepted(sound):
    (sound / "given.yaml").write_text(_mapping({}), encoding="utf-8")
    assert main([*RUN, "--map", "given.yaml"]) == 0


@pytest.mark.parametrize("case", MAPPINGS)
def test_a_mapping_that_is_none_is_refused(sound, case):
    (sound / "given.yaml").write_text(_mapping(MAPPINGS[case]), encoding="utf-8")
    refused([*RUN, "--map", "given.yaml"], sound, notes=True)


def test_a_small_file_stays_small(sound):
    (sound / "given.yaml").write_text(_bomb(), encoding="utf-8")
    refused_in_child([*RUN, "--config", "given.yaml"], sound, most_megabytes=400)


def test_settings_within_the_limits_are_read():
    plain = {"a": {"b": [1, 2.5, "x", None, True], "c": {}}}
    assert read_yaml(json.dumps(plain), "given") == plain
    text = "a: &a {b: 1}\nc: {<<: *a, d: [1e-3, .5, 0x1F, 1_000, on, 1:30, 010, 2001-01-01, yes]}"
    d = [1e-3, 0.5, 31, 1000, "on", "1:30", "010", "2001-01-01", "yes"]
    assert read_yaml(text, "given") == {"a": {"b": 1}, "c": {"b": 1, "d": d}}
    assert read_yaml("[" * 30 + "]" * 30, "given")
    with pytest.raises(ConfigError, match="nested deeper"):
        read_yaml("[" * 33 + "]" * 33, "given")
