"""Finding, describing and loading engines (specs/40-plugins)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from stub_engines import engine_module, install, install_stub, plugin_module

from ptycho_core.errors import (
    BackendConflictError,
    BackendError,
    BackendFaultError,
    BackendImportError,
    BackendProtocolError,
    BackendUnavailableError,
    UnknownBackendError,
)
from ptycho_core.plugins.registry import available_backends, backend_distribution, backend_spec, load_backend


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder on sys.path; modules imported from it are forgotten afterwards."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def status(name: str):
    return {s.name: s for s in available_backends()}[name]


def test_an_installed_engine_is_found_described_and_loaded(site):
    install_stub(site)
    found = status("stub")
    assert (found.state, found.title, found.distribution, found.install) == ("ready", "Stub", "ptycho-stub 1.0", "")
    assert "stub_engine_module" not in sys.modules
    assert backend_spec("stub").factory == "stub_engine_module:Engine"
    assert backend_distribution("stub") == "ptycho-stub 1.0"
    engine = load_backend("stub")
    assert engine.name == "stub"
    assert type(engine) is sys.modules["stub_engine_module"].Engine


@pytest.mark.spec("PLUG-2")
def test_choosing_one_engine_imports_nothing_of_another(site):
    install_stub(site, "one")
    install_stub(site, "two")
    load_backend("one")
    assert "one_engine_module" in sys.modules
    assert "two_plugin_module" not in sys.modules
    assert "two_engine_module" not in sys.modules


@pytest.mark.spec("PLUG-1", "CONV-6")
def test_discovery_imports_no_framework():
    code = (
        "import sys, ptycho_core as p; p.available_backends(); p.backend_spec('pytorch')\n"
        "bad = {'torch', 'lightning', 'tensorflow', 'keras', 'ptychi', 'jax', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(repr(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.spec("PLUG-7")
def test_unknown_name_lists_near_names_and_what_is_installed(site):
    install_stub(site, "fancyengine")
    with pytest.raises(UnknownBackendError, match=r"'fancyengin'; installed: fancyengine.*Did you mean 'fancyengine'"):
        load_backend("fancyengin")
    with pytest.raises(ValueError, match=r"unknown engine"):
        backend_spec("nothing_like_it")


@pytest.mark.spec("PLUG-7")
def test_unknown_name_tells_what_is_known_and_not_usable_with_the_line_that_installs_it(site):
    install_stub(site, "fancyengine")
    install_stub(site, "bare", requires=("no_such_module",), extra="bare-package")
    install(site, "bad-dist", {"bad": "bad_plugin"}, {"bad_plugin": "raise SystemExit"})
    with pytest.raises(UnknownBackendError) as caught:
        load_backend("fancyengin")
    text = str(caught.value)
    assert "bare (pip install 'bare-package')" in text.partition("; not installed: ")[2]
    assert "bare" not in text.partition("; not installed: ")[0]
    assert "fancyengine" in text.partition("; not installed: ")[0]
    assert "; not usable: bad (broken)." in text


def test_nothing_installed_says_how_to_install(monkeypatch):
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: ())
    with pytest.raises(UnknownBackendError, match=r"none is installed; pip install 'ptycho-core\[torch\]'"):
        load_backend("pytorch")


@pytest.mark.spec("PLUG-4")
def test_two_distributions_with_one_name_are_both_named_and_harm_no_other(site):
    install(site, "alpha-dist", {"twin": "alpha_twin"}, {"alpha_twin": "raise SystemExit"})
    install(site, "beta-dist", {"twin": "beta_twin"}, {"beta_twin": "raise SystemExit"}, version="2.5")
    install_stub(site)
    for function in (load_backend, backend_spec):
        with pytest.raises(BackendConflictError, match=r"(?s)'twin'.*alpha-dist 1\.0.*beta-dist 2\.5.*uninstall"):
            function("twin")
    assert status("twin").state == "conflict"
    assert "alpha-dist 1.0" in status("twin").detail
    assert "beta-dist 2.5" in status("twin").detail
    assert status("stub").state == "ready"


@pytest.mark.spec("PLUG-3")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import no_such_dependency", "ModuleNotFoundError: No module named 'no_such_dependency'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("1 / 0", "ZeroDivisionError"),
        (plugin_module(name="broken", factory="a:B").replace("return", "raise OSError('disk') #"), "OSError: disk"),
        (plugin_module(name="broken", factory="a:B", bogus=1), "TypeError"),
    ],
)
def test_a_broken_plugin_is_shown_with_its_cause_and_breaks_nothing_else(site, text, words):
    install(site, "bad-dist", {"broken": "broken_plugin"}, {"broken_plugin": text})
    install_stub(site)
    assert status("broken").state == "broken"
    assert words in status("broken").detail
    assert "bad-dist 1.0" in status("broken").detail
    assert status("stub").state == "ready"
    assert load_backend("stub").name == "stub"
    with pytest.raises(BackendError, match=r"(?s)'broken'.*bad-dist 1.0") as caught:
        load_backend("broken")
    assert words.split(":")[0] in type(caught.value.__cause__).__name__
    assert not isinstance(caught.value, ImportError)


@pytest.mark.spec("PLUG-6")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "0 ptycho_backend hooks answered"),
        ("from ptycho_core.plugins.hookspecs import hookimpl\n@hookimpl\ndef ptycho_backend(x): pass", "signature"),
        ("from ptycho_core.plugins.hookspecs import hookimpl\n@hookimpl\ndef ptycho_backend(): return 7", "int"),
        (plugin_module(name="other", factory="a:B"), "'other'.*called 'odd'"),
        (plugin_module(name="odd", factory="a.B"), "factory = 'a.B'; it must be 'module:Class'"),
        (plugin_module(name="odd", factory="a:B", requires="torch"), "tuple of top-level"),
        (plugin_module(name="odd", factory="a:B", requires=("jax.numpy",)), "tuple of top-level"),
        (plugin_module(name="odd", factory="a:B", protocol_version=3), "protocol 3; .* accepts 2. Upgrade ptycho-core"),
        (plugin_module(name="odd", factory="a:B", protocol_version=0), "protocol 0; .* accepts 2. Upgrade the engine"),
        (plugin_module(name="odd", factory="a:B", protocol_version="2"), "protocol 2; .* accepts 2. Upgrade the eng"),
    ],
)
def test_a_plugin_that_does_not_keep_the_hook_is_refused(site, text, words):
    install(site, "odd-dist", {"odd": "odd_plugin"}, {"odd_plugin": text})
    with pytest.raises(BackendProtocolError, match=f"(?s)'odd'.*odd-dist 1.0.*{words}"):
        load_backend("odd")
    assert status("odd").state == "broken"


@pytest.mark.spec("PLUG-6")
@pytest.mark.parametrize("version", [None, 1])
def test_an_engine_of_protocol_1_is_told_what_to_change(site, version):
    """Nobody had to say a version in protocol 1, so one that is not said is 1."""
    install_stub(site, protocol_version=version)
    with pytest.raises(BackendProtocolError) as caught:
        load_backend("stub")
    text = str(caught.value)
    assert "\n" not in text
    for words in (
        "engine 'stub' (ptycho-stub 1.0, stub_plugin_module) was written for engine protocol 1",
        "this ptycho-core accepts 2.",
        "train(scans, config, runtime)",
        "scan.train_frames, scan.heldout_frames",
        "ptycho_core.enginekit.stitching.make_image",
        "expected_counts",
        "protocol_version=2",
        "docs/write-an-engine.md",
    ):
        assert words in text
    assert status("stub").state == "broken"
    assert status("stub").detail == text
    assert "stub_engine_module" not in sys.modules


@pytest.mark.spec("PLUG-6", "BE-1")
def test_an_engine_that_says_2_and_takes_what_1_gave_is_told_what_to_change(site):
    install_stub(site)
    old, new = "def train(self, scans, config, runtime=None, *", "def train(self, train, test, config, *"
    text = engine_module("stub")
    assert text.count(old) == 1
    (site / "stub_engine_module.py").write_text(text.replace(old, new))
    with pytest.raises(BackendProtocolError) as caught:
        load_backend("stub")
    text = str(caught.value)
    assert "\n" not in text
    assert "'stub' (ptycho-stub 1.0" in text
    assert "method train(train, test, config, *, progress=None) must take scans, config and runtime, in this" in text
    assert "To bring it to protocol 2: train(scans, config, runtime)" in text


@pytest.mark.spec("PLUG-6")
def test_a_host_that_accepts_several_versions_says_which(site, monkeypatch):
    monkeypatch.setattr("ptycho_core.plugins.promises.ACCEPTED_VERSIONS", (2, 3))
    for version in (2, 3):
        install_stub(site, f"of_{version}", protocol_version=version)
        assert load_backend(f"of_{version}").name == f"of_{version}"
    install_stub(site, "of_4", protocol_version=4)
    with pytest.raises(
        BackendProtocolError, match=r"protocol 4; this ptycho-core accepts 2 to 3\. Upgrade ptycho-core"
    ):
        load_backend("of_4")


@pytest.mark.spec("PLUG-5")
def test_a_missing_module_says_what_was_selected_what_is_missing_and_the_pip_line(site):
    install_stub(site, title="PyTorch", requires=("numpy", "no_such_module_a", "no_such_module_b"), extra="pkg[x]")
    message = r"PyTorch backend selected.*'no_such_module_a', 'no_such_module_b'.*pip install 'pkg\[x\]'"
    for kind in (BackendUnavailableError, ImportError, RuntimeError):
        with pytest.raises(kind, match=message):
            load_backend("stub")
    assert status("stub").state == "missing"
    assert status("stub").detail == "not installed: no_such_module_a, no_such_module_b"
    assert status("stub").install == "pip install 'pkg[x]'"
    assert "stub_engine_module" not in sys.modules


def test_the_pytorch_engine_without_torch_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        BackendUnavailableError, match=r"PyTorch backend selected.*'torch'.*pip install 'ptycho-core\[torch\]'"
    ):
        load_backend("pytorch")


def test_a_folder_with_the_name_of_a_required_module_is_not_the_module(site):
    (site / "no_such_module_c").mkdir()
    install_stub(site, requires=("no_such_module_c",))
    assert status("stub").detail == "not installed: no_such_module_c"
    with pytest.raises(BackendUnavailableError, match="no_such_module_c"):
        load_backend("stub")


def test_a_required_module_that_fails_only_on_import_is_unavailable(site):
    install_stub(site, requires=("half_there",), extra="half")
    (site / "half_there.py").write_text("raise ModuleNotFoundError('gone', name='half_there')")
    (site / "stub_engine_module.py").write_text("import half_there")
    with pytest.raises(BackendUnavailableError, match=r"'half_there'.*pip install 'half'") as caught:
        load_backend("stub")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


@pytest.mark.spec("PLUG-5", "PLUG-9")
@pytest.mark.parametrize("line", ["import not_listed_anywhere", "from numpy import no_such_name", "import numpy.nix"])
def test_any_other_import_error_is_the_engines_fault_and_never_called_unavailable(site, line):
    install_stub(site, requires=("numpy",))
    (site / "stub_engine_module.py").write_text(line)
    with pytest.raises(BackendImportError, match=r"'stub' \(ptycho-stub 1\.0\) failed in its import") as caught:
        load_backend("stub")
    assert isinstance(caught.value, ImportError)
    assert not isinstance(caught.value, BackendUnavailableError)
    assert type(caught.value.__cause__) in (ImportError, ModuleNotFoundError)
    assert caught.value.__cause__.__traceback__ is not None


@pytest.mark.spec("PLUG-9")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def f(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("class Engine:\n    def __init__(self):\n        raise OSError('no licence')", "OSError: no licence"),
        ("class Engine:\n    name = 'stub'\n    capabilities = property(lambda self: 1 / 0)", "ZeroDivisionError"),
    ],
)
def test_an_engine_that_fails_when_it_is_loaded_breaks_nothing_else(site, text, words):
    install_stub(site)
    install_stub(site, "other")
    (site / "stub_engine_module.py").write_text(text)
    with pytest.raises(BackendFaultError, match=f"(?s)'stub'.*ptycho-stub 1.0.*its import.*{words}") as caught:
        load_backend("stub")
    assert type(caught.value.__cause__).__name__ == words.split(":")[0]
    assert load_backend("other").name == "other"


@pytest.mark.spec("BE-1")
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("class Engine", "class Motor", "no class 'Engine'"),
        ("    def train(", "    def practise(", "method train is missing"),
        ("    def load(self, path)", "    load = 3\n    def lode(self, path)", "method load is missing"),
        ("config, runtime=None, *, progress=None)", "config, runtime)", "progress"),
        ("def save(self, model, path)", "def save(self, model)", "save.*must accept 2 positional"),
        ("capabilities = Capabilities(", "abilities = Capabilities(", "capabilities is a NoneType"),
        ("background=True", "background=True, refine=True", "method refine is missing"),
        ("    def save", "    def refine(self, image): ...\n    def save", "refine.*4 positional.*progress"),
        ("background=True", "background=True, stepping=True", "method stepper is missing"),
        ("    def save", "    def stepper(self, image): ...\n    def save", "stepper.*4 positional"),
        ("    def save", "    def loss_and_gradient(self, obj): ...\n    def save", "loss_and_gradient.*4 pos"),
        ("    def save", "    def predict_patches(self): ...\n    def save", "predict_patches.*2 positional"),
        ("    def save", "    def expected_counts(self, image): ...\n    def save", "expected_counts.*3 positional"),
        ('    name = "stub"', '    name = "stab"', "name is 'stab', it must be 'stub'"),
        ("    def save", "    def __init__(self, device): ...\n    def save", "needs arguments"),
    ],
)
def test_an_engine_that_does_not_keep_the_protocol_is_refused(site, old, new, words):
    install_stub(site)
    text = engine_module("stub")
    assert old in text
    (site / "stub_engine_module.py").write_text(text.replace(old, new))
    with pytest.raises(BackendProtocolError, match=f"'stub'.*{words}") as caught:
        load_backend("stub")
    assert isinstance(caught.value, TypeError)


def test_a_newly_installed_engine_is_seen_in_the_same_process(site):
    with pytest.raises(UnknownBackendError):
        load_backend("late")
    install_stub(site, "late")
    import importlib

    importlib.invalidate_caches()
    assert load_backend("late").name == "late"
