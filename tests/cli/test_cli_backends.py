"""``ptycho backends NAME``: what an engine can do, and its own options (CMD-16)."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import subprocess
import sys

import pytest
from stub_engines import install_stub, offer_only

from ptycho_backend_ptychi.options import PtychiOptions
from ptycho_core.cli import backends
from ptycho_core.cli import main as cli
from ptycho_core.protocol import BackendSpec, Capabilities


@pytest.fixture
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")


def told(capsys, *words: str) -> str:
    assert cli.main(["backends", *words]) == 0
    return capsys.readouterr().out


@pytest.mark.spec("CMD-16")
def test_every_option_of_an_engine_with_type_default_and_meaning(capsys, wide):
    text = told(capsys, "ptychi")
    words = " ".join(text.split())
    for field in dataclasses.fields(PtychiOptions):
        assert words.count(f"--options.ptychi.{field.name} ") == 1, field.name
    assert "β of raar (½, 1] (a number or null; default: null)" in words
    assert "autodiff (gradients by automatic differentiation) (text; default: lsqml)" in words
    assert "background is refused" in words
    assert "networks none" in words
    assert "devices auto, cpu, cuda" in words


@pytest.mark.spec("CMD-16")
def test_an_engine_without_options_and_what_it_can_do(capsys, wide):
    text = " ".join(told(capsys, "pytorch").split())
    assert "networks probe_unet, unrolled, cnn" in text
    assert "propagation far field, near field" in text
    assert "scans in a training any number" in text
    assert "precision auto, 32, bf16" in text
    assert "It has no options of its own." in text


ABILITIES = {
    "max_scans": (3, "scans in a training", "3"),
    "max_modes": (2, "probe modes", "at most 2"),
    "mask": (True, "bad pixels", "are left out"),
    "background": (True, "background", "is in the model"),
    "probe_trainable": (True, "probe", "is refined while solving or training"),
    "stepping": (True, "refines an image", "yes"),
    "resume": (True, "resumes", "yes"),
    "threads": (True, "threads", "as many as --threads says, else measured"),
    "sides": ((16, 512, 8), "frames", "16 to 512 pixels wide, a multiple of 8"),
    "loggers": (("mlflow",), "trackers", "mlflow"),
    "ignored_fields": (("seed", "runtime.strategy"), "without effect", "strategy"),
}


@pytest.mark.spec("CMD-16")
@pytest.mark.parametrize("name", ABILITIES)
def test_each_ability_changes_what_is_told(name):
    value, heading, words = ABILITIES[name]
    spec = BackendSpec(name="x", factory="x:X")
    plain = dict(backends._abilities(Capabilities(), spec))
    found = dict(backends._abilities(Capabilities(**{name: value}), spec))
    assert found[heading] == words
    assert plain.get(heading) != words


@pytest.mark.spec("CMD-16")
def test_what_is_refined_is_told_of_engines_that_refine():
    spec = BackendSpec(name="x", factory="x:X", requires=("jax",))
    can = Capabilities(refine=True, refine_positions=True, frame_scale=True)
    found = dict(backends._abilities(can, spec))
    assert found["refines also"] == "positions, an intensity for each frame"
    assert found["needs"] == "jax"
    assert "refines also" not in dict(backends._abilities(dataclasses.replace(can, refine=False), spec))


@pytest.mark.spec("CMD-16")
def test_one_that_lacks_a_package_says_which_and_how_to_install_it(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(tmp_path)
    install_stub(tmp_path, "bare", requires=("no_such_module",), extra="bare-package")
    text = told(capsys, "bare")
    assert "bare (Stub), from ptycho-bare 1.0: missing" in text
    assert "not installed: no_such_module; install it with: pip install 'bare-package'" in text
    assert "Its plugin does not say what it can do" in text


def test_one_that_does_not_say_what_it_can_do_is_asked(stub, capsys, wide):
    text = " ".join(told(capsys, "pytorch").split())
    assert "scans in a training any number" in text
    assert "precision auto, 32" in text


def test_json_has_the_same(capsys):
    found = json.loads(told(capsys, "ptychi", "--json"))
    assert found["name"] == "ptychi"
    assert found["capabilities"]["mask"] is True
    assert found["options"]["algorithm"]["default"] == "lsqml"
    assert found["options"]["algorithm"]["type"] == "text"


def test_a_name_that_nobody_has(capsys, monkeypatch):
    offer_only(monkeypatch, [importlib.metadata.EntryPoint("numpy", "ptycho_backend_numpy.plugin", "ptycho.backends")])
    assert cli.main(["backends", "numpi"]) == 2
    assert "unknown engine 'numpi'; installed: numpy. Did you mean 'numpy'?" in capsys.readouterr().err


@pytest.mark.spec("CMD-16")
def test_no_framework_is_imported_for_it():
    code = (
        "import sys; from ptycho_core.cli.main import main\n"
        "codes = [main(['backends', n]) for n in ('pytorch', 'tensorflow', 'ptychi', 'numpy')]\n"
        "sys.exit(str({'torch', 'tensorflow', 'ptychi', 'lightning'} & set(sys.modules) or '') or max(codes))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
