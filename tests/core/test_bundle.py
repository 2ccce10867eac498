"""The model bundle: exact round trip, equal bytes, and one clear error for each damaged or foreign file."""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from ptycho_core.bundle import Bundle, read_bundle, write_bundle
from ptycho_core.config import ModelConfig, PlainOptions, RefinementConfig, TrainingConfig
from ptycho_core.config_mapping import with_typed_options
from ptycho_core.data.container import Statistics
from ptycho_core.errors import ArchiveError, ConfigError, OutputError, UnknownBackendError
from ptycho_core.plugins import registry

MEMBERS = ("manifest.json", "weights.safetensors", "probe.safetensors")


def make_bundle(**changes) -> Bundle:
    rng = np.random.default_rng(3)
    values = {
        "backend": "pytorch",
        "generator": "cnn",
        "side": 32,
        "config": TrainingConfig(model=ModelConfig(generator="cnn", width=5), nphotons=3),
        "statistics": Statistics(mean_counts=123.25, n_frames=17, scale=0.1),
        "scale": 1 / 3,
        "weights": {
            "b.weight": rng.normal(size=(2, 3, 1)).astype(np.float32),
            "a.steps": np.array([7, -1], dtype=np.int64),
            "c.t": rng.normal(size=(4, 3)).astype(np.float32).T,  # not contiguous
        },
        "probe": (rng.normal(size=(2, 32, 32)) + 1j * rng.normal(size=(2, 32, 32))).astype(np.complex64),
        "history": {"train_loss": [0.1, 0.2 / 3], "test_loss": [math.nan, 1e-300]},
        "provenance": {"path": Path("x"), "n": np.int64(3), "bad": math.inf, "list": (1, 2), "é": None},
    }
    return Bundle(**(values | changes))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.ptycho"


def members_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(path: Path, members, compression=zipfile.ZIP_STORED) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    path.write_bytes(buffer.getvalue())


def sign(manifest: dict, members: dict[str, bytes]) -> bytes:
    """A manifest whose hashes are right, as a careful forger would make it."""
    manifest = {k: v for k, v in manifest.items() if k != "sha256"}
    if set(manifest.get("members", {})) == set(MEMBERS[1:]):
        manifest["members"] = {
            name: {"bytes": len(members[name]), "sha256": hashlib.sha256(members[name]).hexdigest()}
            for name in MEMBERS[1:]
        }
    text = json.dumps(manifest, indent=1, sort_keys=True).encode()
    return json.dumps(manifest | {"sha256": hashlib.sha256(text).hexdigest()}, indent=1, sort_keys=True).encode()


def stored_as(kind: str, item_bytes: int) -> bytes:
    """A safetensors file with two numbers of a type that NumPy may not have."""
    header = json.dumps({"w": {"dtype": kind, "shape": [2], "data_offsets": [0, 2 * item_bytes]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(2 * item_bytes)


def forge(path: Path, change=None, **replaced: bytes) -> None:
    """Rewrite a bundle with changed content and right hashes."""
    members = members_of(path) | {f"{name}.safetensors": data for name, data in replaced.items()}
    manifest = json.loads(members["manifest.json"])
    if change:
        change(manifest)
    members["manifest.json"] = sign(manifest, members)
    pack(path, members.items())


@pytest.mark.spec("BUNDLE-2")
def test_round_trip_is_exact(path):
    before = make_bundle()
    write_bundle(path, before)
    after = read_bundle(path)
    for name in ("backend", "generator", "side", "config", "statistics", "scale"):
        assert getattr(after, name) == getattr(before, name), name
    assert set(after.weights) == set(before.weights)
    for name, array in before.weights.items():
        assert after.weights[name].dtype == array.dtype
        np.testing.assert_array_equal(after.weights[name], array)
    assert after.probe.dtype == np.complex64
    np.testing.assert_array_equal(after.probe, before.probe)
    assert after.history["train_loss"] == before.history["train_loss"]
    assert math.isnan(after.history["test_loss"][0])
    assert after.history["test_loss"][1] == 1e-300
    assert after.provenance == {"path": "x", "n": 3, "bad": None, "list": [1, 2], "é": None}


@pytest.mark.spec("BUNDLE-2")
def test_equal_bundles_give_equal_bytes_whatever_the_order(tmp_path):
    one = make_bundle()
    two = replace(
        one,
        weights=dict(reversed(one.weights.items())),
        history=dict(reversed(one.history.items())),
        provenance=dict(reversed(one.provenance.items())),
    )
    write_bundle(tmp_path / "one", one)
    write_bundle(tmp_path / "two", two)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with zipfile.ZipFile(tmp_path / "one") as archive:
        assert tuple(archive.namelist()) == ("manifest.json", "probe.safetensors", "weights.safetensors")
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.spec("CONV-8")
def test_a_failed_write_keeps_the_old_bundle(path, tmp_path):
    write_bundle(path, make_bundle())
    old = path.read_bytes()
    with pytest.raises(ArchiveError, match=r"not written"):
        write_bundle(path, make_bundle(scale=math.nan))
    assert path.read_bytes() == old
    with pytest.raises(OutputError, match=r"cannot write"):
        write_bundle(tmp_path / "no_folder" / "model.ptycho", make_bundle())


@pytest.mark.spec("BUNDLE-8")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"weights": {"w": np.ones(3)}},
            "weight 'w' of engine 'pytorch' is float64; every engine reads float32",
        ),
        ({"weights": {"w": np.array([1, np.nan], np.float32)}}, "weight 'w' holds NaN"),
        ({"probe": np.ones((1, 16, 16), np.complex64)}, r"probe is complex64 \(1, 16, 16\).*\(P, 32, 32\)"),
        ({"probe": np.ones((32, 32), np.complex64)}, r"probe is complex64 \(32, 32\)"),
        ({"probe": np.ones((1, 32, 32))}, "probe is float64"),
        ({"probe": np.zeros((1, 32, 32), np.complex64)}, "zero everywhere"),
        ({"side": 33}, "side = 33"),
        ({"generator": "probe_unet"}, "'probe_unet' but its config says 'cnn'"),
        ({"scale": -1.0}, "scale = -1"),
        ({"backend": ""}, "name of the engine is empty"),
    ],
)
def test_a_bundle_nobody_could_read_is_not_written(path, changes, words):
    with pytest.raises(ArchiveError, match=words):
        write_bundle(path, make_bundle(**changes))
    assert not path.exists()


@pytest.mark.spec("BUNDLE-4")
def test_expected_weights_are_compared_by_name_shape_and_dtype(path):
    bundle = make_bundle(weights={"a": np.ones((2, 3), np.float32), "b": np.ones(4, np.float32)})
    write_bundle(path, bundle)
    seen = []

    def expect(**shapes):
        return lambda config, side: (seen.append((config, side)), shapes)[1]

    assert set(read_bundle(path, expected_weights=expect(a=(2, 3), b=(4,))).weights) == {"a", "b"}
    assert seen == [(bundle.config, 32)]
    for shapes, words in [
        ({"a": (3, 2), "b": (4,)}, r"'a' is float32 \(2, 3\); it must be float32 \(3, 2\)"),
        ({"a": (2, 3)}, r"lack \[\] \(0\) and have \['b'\] \(1\)"),
        ({"a": (2, 3), "b": (4,), "z": ()}, r"lack \['z'\] \(1\) and have \[\]"),
    ]:
        with pytest.raises(ArchiveError, match=words):
            read_bundle(path, expected_weights=expect(**shapes))
    write_bundle(path, replace(bundle, weights={"a": np.ones((2, 3), np.int64)}))
    with pytest.raises(ArchiveError, match=r"'a' is int64"):
        read_bundle(path, expected_weights=expect(a=(2, 3)))


@pytest.mark.spec("BUNDLE-7")
def test_a_solvers_bundle_says_so(path):
    write_bundle(path, make_bundle(backend="toy", generator=None))
    assert read_bundle(path).generator is None
    with pytest.raises(ArchiveError, match=r"engine 'toy', a solver.*backend = 'toy'"):
        read_bundle(path, expected_weights=lambda config, side: {})


def test_missing_file_folder_and_foreign_files(tmp_path, path):
    with pytest.raises(ArchiveError, match=r"model\.ptycho: no such file"):
        read_bundle(path)
    with pytest.raises(ArchiveError, match=r"is a folder; a model bundle is read from a regular file"):
        read_bundle(tmp_path)
    path.write_bytes(b"\x89HDF\r\n and so on")
    with pytest.raises(ArchiveError, match=r"not a complete zip"):
        read_bundle(path)
    pack(path, [("something.txt", b"x")])
    with pytest.raises(ArchiveError, match=r"no manifest"):
        read_bundle(path)
    pack(path, [("manifest.json", b'{"format": "other"}')])
    with pytest.raises(ArchiveError, match=r"not a model bundle"):
        read_bundle(path)


@pytest.mark.spec("BUNDLE-3")
def test_truncation_at_any_place_is_noticed(path):
    write_bundle(path, make_bundle())
    whole = path.read_bytes()
    for keep in [0, 1, 21, 500, len(whole) // 2, len(whole) - 100, len(whole) - 1]:
        path.write_bytes(whole[:keep])
        with pytest.raises(ArchiveError, match=r"model\.ptycho"):
            read_bundle(path)


@pytest.mark.spec("BUNDLE-3")
@pytest.mark.parametrize("name", MEMBERS)
def test_tampering_is_noticed_even_with_a_right_zip_checksum(path, name):
    write_bundle(path, make_bundle())
    members = members_of(path)
    data = bytearray(members[name])
    place = data.index(b"123.25") + 1 if name == "manifest.json" else len(data) - 1
    data[place] ^= 1
    members[name] = bytes(data)
    pack(path, members.items())
    with pytest.raises(ArchiveError, match=f"{name} does not match its SHA-256"):
        read_bundle(path)


@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_no_flipped_bit_escapes_as_another_error_or_changes_the_model(tmp_path_factory, place, bit):
    path = tmp_path_factory.getbasetemp() / "flipped.ptycho"
    bundle = make_bundle(probe=np.full((1, 32, 32), 1 + 2j, np.complex64), provenance={})
    write_bundle(path, bundle)
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1 << bit
    path.write_bytes(bytes(content))
    try:
        back = read_bundle(path)
    except ArchiveError:
        return
    np.testing.assert_array_equal(back.probe, bundle.probe)
    assert back.config == bundle.config
    assert back.scale == bundle.scale


@pytest.mark.spec("BUNDLE-6")
@pytest.mark.parametrize("name", ["/etc/passwd", "../evil", "a/../../b", "..\\evil", "\\\\server\\x", "C:\\x", "a/.."])
def test_members_that_point_outside_are_refused(path, name):
    write_bundle(path, make_bundle())
    pack(path, [*members_of(path).items(), (name, b"x")])
    with pytest.raises(ArchiveError, match=r"points outside the bundle"):
        read_bundle(path)


@pytest.mark.spec("BUNDLE-3")
@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", MEMBERS)
def test_double_missing_and_extra_members_are_refused(path, name):
    write_bundle(path, make_bundle())
    members = members_of(path)
    pack(path, [*members.items(), (name, members[name])])
    with pytest.raises(ArchiveError, match=f"'{name}' is there 2 times"):
        read_bundle(path)
    pack(path, [(k, v) for k, v in members.items() if k != name])
    with pytest.raises(ArchiveError, match=r"no manifest" if name == "manifest.json" else "allowed: exactly"):
        read_bundle(path)
    pack(path, [*members.items(), ("extra.pkl", b"x")])
    with pytest.raises(ArchiveError, match=r"extra\.pkl.*allowed: exactly"):
        read_bundle(path)


@pytest.mark.spec("BUNDLE-3")
def test_zip_bombs_are_refused_before_they_unfold(path, monkeypatch):
    write_bundle(path, make_bundle())
    members = members_of(path)
    pack(path, members.items(), zipfile.ZIP_DEFLATED)
    with pytest.raises(ArchiveError, match=r"'manifest\.json' is compressed"):
        read_bundle(path)
    write_bundle(path, make_bundle())
    monkeypatch.setattr("ptycho_core.bundle_members._LIMITS", dict.fromkeys(MEMBERS, 5000))
    with pytest.raises(ArchiveError, match=r"'probe\.safetensors' claims 16\d\d\d bytes.*at most 5000"):
        read_bundle(path)


@pytest.mark.spec("BUNDLE-5")
def test_a_newer_schema_is_named_even_when_it_has_other_members(path):
    write_bundle(path, make_bundle())
    members = members_of(path)
    manifest = json.loads(members["manifest.json"]) | {"schema_version": 3, "new_key": 1}
    pack(path, [("manifest.json", json.dumps(manifest).encode()), ("optimizer.safetensors", b"")])
    with pytest.raises(ArchiveError, match=r"schema 3 is newer than 2.*upgrade ptycho-core"):
        read_bundle(path)


def change_config(**values):
    return lambda manifest: manifest["config"].update(values)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (change_config(wings=2), "TrainingConfig has no field 'wings'"),
        (change_config(epochs="many"), "epochs = 'many'"),
        (change_config(learning_rate=10**400), "config cannot be used"),
        (lambda m: m.update(schema_version=True), "schema_version = True"),
        (lambda m: m.update(schema_version="1"), "schema_version = '1'"),
        (lambda m: m.pop("scale"), r"lacks \['scale'\]"),
        (lambda m: m.update(extra=1), r"has \['extra'\]"),
        (lambda m: m.update(scale="2"), "scale = '2'; it must be a number"),
        (lambda m: m.update(scale=10**400), "scale is a number of 401 digits"),
        (lambda m: m.update(scale=True), "scale = True"),
        (lambda m: m.update(side=32.0), "side = 32.0; it must be a whole number"),
        (lambda m: m.update(side=64), r"probe is float32 \(2, 32, 32, 2\); it must be float32 \(P, 64, 64, 2\)"),
        (lambda m: m.update(backend=None), "backend = None"),
        (lambda m: m.update(generator=3), "generator = 3"),
        (lambda m: m.update(config=[]), "must be JSON objects"),
        (lambda m: m.update(history=[1]), "history must map"),
        (lambda m: m.update(history={"train_loss": ["x"]}), "history.train_loss = 'x'"),
        (lambda m: m["statistics"].pop("scale"), r"statistics lacks \['scale'\]"),
        (lambda m: m["statistics"].update(mean_counts=-1), "mean_counts = -1"),
        (lambda m: m.update(members={}), "members lacks"),
    ],
)
def test_a_forged_manifest_with_right_hashes_is_still_checked(path, change, words):
    write_bundle(path, make_bundle())
    forge(path, change)
    with pytest.raises(ArchiveError, match=rf"(?s)model\.ptycho: .*{words}"):
        read_bundle(path)


@pytest.mark.parametrize(
    ("member", "data", "words"),
    [
        ("weights", b"not safetensors at all", "weights.safetensors is not a readable"),
        ("weights", save({"w": np.ones(2)}), "engine 'pytorch' stored 'w' as F64; every engine reads F32 or I64"),
        ("weights", stored_as("BF16", 2), "engine 'pytorch' stored 'w' as BF16; every engine reads F32 or I64"),
        ("weights", save({"w": np.array([np.inf], np.float32)}), "'w' holds NaN or inf"),
        ("probe", save({"probe": np.ones((1, 32, 32), np.float32)}), r"probe is float32 \(1, 32, 32\)"),
        ("probe", save({"probe": np.ones((1, 32, 32, 2))}), "engine 'pytorch' stored 'probe' as F64"),
        ("probe", save({"prob": np.ones((1, 32, 32, 2), np.float32)}), r"holds \['prob'\]"),
        ("probe", save({"probe": np.zeros((1, 32, 32, 2), np.float32)}), "zero everywhere"),
        ("probe", save({"probe": np.full((1, 32, 32, 2), np.nan, np.float32)}), "NaN"),
    ],
)
def test_forged_arrays_with_right_hashes_are_still_checked(path, member, data, words):
    write_bundle(path, make_bundle())
    forge(path, **{member: data})
    with pytest.raises(ArchiveError, match=words):
        read_bundle(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"format": "ptycho-model", "format": "ptycho-model"}', "a key is there twice"),
        (b'{"format": NaN}', "NaN is not JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[]", "not a model bundle"),
    ],
)
def test_a_manifest_that_is_not_strict_json_is_refused(path, text, words):
    pack(path, [("manifest.json", text)])
    with pytest.raises(ArchiveError, match=words):
        read_bundle(path)


@pytest.mark.spec("BUNDLE-1")
def test_reading_unpacks_nothing_and_unpickles_nothing(path, monkeypatch):
    write_bundle(path, make_bundle())

    def forbidden(*args, **kwargs):
        raise AssertionError("must not be called")

    monkeypatch.setattr("pickle.loads", forbidden)
    monkeypatch.setattr("pickle.load", forbidden)
    monkeypatch.setattr(zipfile.ZipFile, "extractall", forbidden)
    monkeypatch.setattr(zipfile.ZipFile, "extract", forbidden)
    assert read_bundle(path).side == 32
    assert [p.name for p in path.parent.iterdir()] == ["model.ptycho"]


def with_options(engine, values, backend="pytorch"):
    return make_bundle(
        backend=backend,
        config=TrainingConfig(
            backend=backend,
            model=ModelConfig(generator="cnn"),
            refinement=RefinementConfig(engine="auto" if engine == backend else engine),
            options=(PlainOptions(engine=engine, values=values),),
        ),
    )


@pytest.mark.parametrize("backend", ["absent", "pytorch"])
def test_options_of_an_engine_that_is_not_installed_stay_as_they_are(path, backend):
    written = with_options("absent", {"steps": [1, 2.5], "word": "é", "none": None}, backend)
    write_bundle(path, written)
    found = read_bundle(path)
    assert found.config == written.config
    kept = PlainOptions(engine="absent", values={"steps": [1, 2.5], "word": "é", "none": None})
    assert found.config.options == (kept,)
    assert read_bundle(path, engine="tensorflow").config == written.config
    again = path.with_name("again.ptycho")
    write_bundle(again, found)
    assert again.read_bytes() == path.read_bytes()
    with pytest.raises(UnknownBackendError, match="absent"):
        read_bundle(path, engine="absent")
    with pytest.raises(UnknownBackendError, match="absent"):
        with_typed_options(found.config)


def test_options_become_those_of_their_engine_when_it_is_chosen(path, monkeypatch):
    from ptycho_backend_ptychi.options import PtychiOptions

    write_bundle(path, with_options("ptychi", {"algorithm": "rpie", "batch_frames": 3}))
    typed = (PtychiOptions(algorithm="rpie", batch_frames=3),)
    assert read_bundle(path, engine="ptychi").config.options == typed
    assert with_typed_options(read_bundle(path).config).options == typed
    with monkeypatch.context() as patch:
        patch.setattr(registry, "options_class", lambda name: pytest.fail(f"the plugin of {name} was looked for"))
        plain = read_bundle(path)
        assert plain == replace(plain, config=read_bundle(path, engine="pytorch").config)
    assert plain.config.options == (PlainOptions(engine="ptychi", values={"algorithm": "rpie", "batch_frames": 3}),)
    again = path.with_name("again.ptycho")
    write_bundle(again, replace(plain, config=replace(plain.config, options=typed)))
    assert read_bundle(again, engine="ptychi").config.options == typed


def test_unknown_options_are_refused_when_their_engine_is_chosen(path):
    write_bundle(path, with_options("ptychi", {"algoritm": "rpie"}))
    plain = read_bundle(path)
    with pytest.raises(ConfigError, match=r"PtychiOptions has no field 'algoritm'.*algorithm"):
        with_typed_options(plain.config)
    words = r"model\.ptycho: its config cannot be used here: PtychiOptions has no field"
    with pytest.raises(ArchiveError, match=words):
        read_bundle(path, engine="ptychi")


def test_options_of_both_engines_are_kept_apart(path):
    two = (PlainOptions(engine="absent", values={"a": 1}), PlainOptions(engine="pytorch", values={"b": {"c": 2}}))
    config = TrainingConfig(
        backend="pytorch", model=ModelConfig(generator="cnn"), refinement=RefinementConfig(engine="absent"), options=two
    )
    write_bundle(path, make_bundle(config=config))
    assert read_bundle(path).config.options == two


def old_manifest(path: Path, **changes) -> None:
    """Bring a bundle to what schema 1 held: hardware and folders in the config, no method, options of one engine."""
    members = members_of(path)
    manifest = json.loads(members["manifest.json"])
    config = manifest["config"]
    for name in ("method", "algorithm", "options"):
        del config[name]
    config |= {
        "options": None, "accelerator": "cuda", "devices": 2, "strategy": "ddp", "precision": "bf16", "num_workers": 3,
        "output_dir": "out", "resume_from": None, "loggers": ["mlflow"], "batch_size": 1, "loss": "amplitude",
        "model": {"generator": "cnn", "width": 5, "depth": 3, "sweeps": 24, "passes": 4},
    }  # fmt: skip
    config["inference"] |= {"batch_size": 32, "accelerator": "cuda", "precision": "auto"}
    config |= changes
    manifest["schema_version"] = 1
    for name in ("forward_model", "slice_spacing_m", "sha256"):
        del manifest[name]
    manifest["sha256"] = hashlib.sha256(
        json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False, default=str).encode()
    ).hexdigest()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (
            members | {"manifest.json": json.dumps(manifest, indent=1, sort_keys=True).encode()}
        ).items():
            archive.writestr(name, data)


@pytest.mark.spec("BUNDLE-2")
def test_a_bundle_of_schema_1_is_read_without_what_does_not_decide(path):
    written = make_bundle()
    write_bundle(path, written)
    old_manifest(path)
    found = read_bundle(path)
    assert found.config == replace(written.config, epochs=found.config.epochs)
    assert found.config.method == "network"


def test_a_solvers_bundle_of_schema_1_keeps_its_settings_under_their_names_of_now(path):
    write_bundle(path, make_bundle(backend="numpy", generator=None, config=TrainingConfig(backend="numpy", epochs=7)))
    options = {"engine": "numpy", "algorithm": "lsq", "batch_frames": 3, "threads": 2}
    old_manifest(path, options=options, model={"generator": "probe_unet", "width": 16}, backend="numpy", epochs=7)
    config = read_bundle(path).config
    assert (config.method, config.model, config.algorithm, config.batch_size) == ("solver", None, "lsq", 3)
    assert config.options == ()
    assert config.epochs == 7
