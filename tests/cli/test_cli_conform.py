"""``ptycho conform``: the sheet, its exit codes, and that every engine of this project goes through this door."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys

import pytest
from stub_engines import install_stub

from ptycho_core.cli.main import main
from ptycho_core.errors import ConfigError, MissingPackageError
from ptycho_core.testing import run_conformance

TOY = pytest.mark.skipif(
    "toy" not in importlib.metadata.entry_points(group="ptycho.backends").names,
    reason="the toy engine is not installed: pip install tests/plugins/toy_engine",
)
ENGINES = [
    pytest.param("numpy"),
    pytest.param("pytorch", marks=pytest.mark.torch),
    pytest.param("tensorflow", marks=pytest.mark.tensorflow),
    pytest.param("toy", marks=[pytest.mark.plugin, TOY]),
]


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_goes_through_the_same_door(engine, capsys):
    """A part of the suite, for the whole of it runs in tests/conformance."""
    assert main(["conform", engine, "--only", "frame_centres"]) == 0
    text = capsys.readouterr().out
    assert "passed  frame centres are at half of n minus one" in text
    assert f"engine {engine} keeps the protocol" in text


@pytest.mark.spec("BE-32")
def test_a_failing_engine_gets_a_sheet_with_reasons_and_exit_code_2(stub, capsys):
    assert main(["conform", "pytorch", "--only", "learned_from"]) == 2
    text = capsys.readouterr().out
    assert "FAILED  every training frame is learned from  training has not read frames" in text
    assert "0 passed, 1 failed, 0 not offered" in text
    assert "engine pytorch does not keep the protocol" in text
    assert "Traceback" not in text
    assert "def test_every" not in text
    assert main(["conform", "pytorch", "--only", "learned_from", "--verbose"]) == 2
    assert "assert not missed" in capsys.readouterr().out


@pytest.mark.spec("BE-32")
@pytest.mark.parametrize(
    ("faulty", "words"),
    [
        ({"faulty_engine_module": "1 / 0"}, "failed in its import: ZeroDivisionError"),
        ({"faulty_engine_module": "import not_there"}, "failed in its import: ModuleNotFoundError"),
        ({"faulty_engine_module": "class Engine: name = 'faulty'"}, "does not keep the engine protocol"),
        ({"faulty_plugin_module": "1 / 0"}, "its plugin is broken: ZeroDivisionError"),
    ],
)
def test_an_engine_that_cannot_be_loaded_does_not_conform(tmp_path, monkeypatch, capsys, faulty, words):
    install_stub(tmp_path, "faulty")
    for module, text in faulty.items():
        (tmp_path / f"{module}.py").write_text(text + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("faulty_engine_module", "faulty_plugin_module"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    assert main(["conform", "faulty"]) == 2
    assert words in capsys.readouterr().out
    assert main(["conform", "faulty", "--json"]) == 2
    sheet = json.loads(capsys.readouterr().out)
    assert (sheet["engine"], sheet["conforms"]) == ("faulty", False)
    assert words in sheet["error"]


@pytest.mark.spec("BE-31", "BE-32")
def test_what_is_not_offered_is_said_and_does_not_fail(capsys):
    assert main(["conform", "numpy", "--only", "plain", "--json"]) == 0
    sheet = json.loads(capsys.readouterr().out)
    states = {test["test"]: (test["state"], test["reason"]) for test in sheet["tests"]}
    assert states["test_patches_are_plain_arrays"] == ("not offered", "predict_patches")
    assert states["test_capabilities_are_plain_values"] == ("passed", "")
    assert sheet["conforms"] is True
    assert all(test["asks"].endswith(".") for test in sheet["tests"])


@pytest.mark.spec("BE-31")
def test_of_an_engine_nothing_was_asked(capsys):
    assert main(["conform", "numpy", "--only", "patches"]) == 2
    assert "0 passed, 0 failed, 1 not offered" in capsys.readouterr().out


@pytest.mark.spec("BE-31")
def test_an_engine_that_is_not_there_fails_and_is_not_skipped(capsys):
    assert main(["conform", "nowhere"]) == 2
    assert "unknown engine 'nowhere'" in capsys.readouterr().err
    sheet = run_conformance("nowhere", only="energy")
    assert [outcome.state for outcome in sheet.outcomes] == ["failed"]
    assert "unknown engine 'nowhere'" in sheet.outcomes[0].reason
    assert not sheet.conforms


@pytest.mark.spec("BE-31")
def test_no_engine_selected_fails(tmp_path):
    (tmp_path / "test_none.py").write_text(
        "from ptycho_core.testing import BackendConformance\nclass TestNone(BackendConformance): pass\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "energy", "test_none.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "no engine is selected; set engine_name" in done.stdout
    assert "skipped" not in done.stdout


def test_only_that_selects_nothing_is_refused(capsys):
    with pytest.raises(ConfigError, match=r"no test of the suite has 'enregy' in its name"):
        run_conformance("numpy", only="enregy")
    assert main(["conform", "numpy", "--only", "enregy"]) == 2


def test_settings_reach_the_trainings(capsys):
    assert main(["conform", "numpy", "--only", "history", "--epochs", "2", "--seed", "5"]) == 0
    assert main(["conform", "numpy", "--only", "history", "--learning_rate", "5"]) == 2
    assert "learning_rate = 5.0 has no effect" in capsys.readouterr().out
    assert main(["conform", "numpy", "--backend", "toy"]) == 2
    assert "unknown option --backend" in capsys.readouterr().err


def test_a_sheet_is_the_same_wherever_it_is_asked_for(tmp_path, monkeypatch):
    """Neither a pytest.ini beside, nor a conftest, nor options and plugins of the environment change what is asked."""
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -k nothing\n")
    (tmp_path / "conftest.py").write_text("raise SystemExit('a stranger')")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-k nothing")
    monkeypatch.setenv("PYTEST_PLUGINS", "a_stranger_that_is_not_there")
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", raising=False)
    info = tmp_path / "strange-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strange\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pytest11]\nstrange = another_stranger_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = dict(os.environ), os.getcwd(), sorted(os.listdir())
    sheet = run_conformance("numpy", only="energy")
    assert [outcome.state for outcome in sheet.outcomes] == ["passed"]
    after = dict(os.environ), os.getcwd(), sorted(os.listdir())
    assert {**after[0], "PYTEST_CURRENT_TEST": ""} == {**before[0], "PYTEST_CURRENT_TEST": ""}
    assert after[1:] == before[1:]


@pytest.mark.spec("BE-31")
def test_without_assertions_nothing_is_asked():
    code = "import sys; from ptycho_core.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-O", "-c", code, "conform", "numpy", "--only", "energy"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "removes assertions" in done.stderr


@pytest.mark.spec("BE-31")
@pytest.mark.parametrize(
    "line", ["import pytest; pytest.skip('not today')", "import pytest; pytest.xfail('not today')"]
)
def test_what_the_engine_skips_is_failed(tmp_path, monkeypatch, line):
    install_stub(tmp_path, "shirker")
    module = tmp_path / "shirker_engine_module.py"
    text = module.read_text()
    before = '        CALLS.append(("train"'
    assert text.count(before) == 1
    module.write_text(text.replace(before, f"        {line}\n{before}"))
    monkeypatch.syspath_prepend(tmp_path)
    sheet = run_conformance("shirker", only="tiny_scan")
    assert [outcome.state for outcome in sheet.outcomes] == ["failed"]
    assert "not today" in sheet.outcomes[0].reason
    assert not sheet.conforms


@pytest.mark.spec("BE-30")
def test_without_pytest_one_error_says_what_to_install(tmp_path):
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "import ptycho_core.errors, ptycho_core.testing.problems, ptycho_core.testing.tolerances\n"
        "from ptycho_core.cli.main import main\n"
        "code = main(['conform', 'numpy'])\n"
        "try:\n    from ptycho_core.testing import BackendConformance\n"
        "except ptycho_core.errors.MissingPackageError as error:\n    print(error)\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    for text in (done.stdout, done.stderr):
        assert "pytest is not installed. Install it with: pip install 'ptycho-core[testing]'" in text
    assert "Traceback" not in done.stderr
    assert issubclass(MissingPackageError, ImportError)
