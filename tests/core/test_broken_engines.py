"""An engine that fails while it works: the host goes on, and the error names engine, distribution and cause."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stub_engines import engine_module, install, install_stub

import ptycho_core
from ptycho_core.config import InferenceConfig, RefinementConfig, TrainingConfig
from ptycho_core.errors import (
    BackendError,
    BackendFaultError,
    BackendImportError,
    BackendProtocolError,
    Cancelled,
    ConfigError,
    DataError,
    PtychoError,
)
from ptycho_core.plugins.guard import engine_at_work, origin_of
from ptycho_core.plugins.registry import load_backend, options_class
from ptycho_core.protocol import ProgressEvent
from ptycho_core.testing.problems import make_scan

CONFIG = TrainingConfig(backend="stub", method="network", group_size=4, epochs=2)
FAULTS = {
    "train": ('        CALLS.append(("train"', "        {}\n"),
    "reconstruct": ('        CALLS.append(("reconstruct"', "        {}\n"),
    "save": ("        write_bundle(path", "        {}\n"),
    "load": ("        bundle = read_bundle(path)", "        {}\n"),
}
"""Method → the text before which a line is put."""


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Install the stub engine with some text replaced, and another stub that is whole."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    before = set(sys.modules)

    def make(old: str = "", new: str = ""):
        install_stub(site)
        install_stub(site, "whole")
        text = engine_module("stub")
        assert not old or text.count(old) == 1
        (site / "stub_engine_module.py").write_text(text.replace(old, new) if old else text)

    yield make
    for name in set(sys.modules) - before:
        if str(site) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture(scope="module")
def scan():
    return make_scan(16, 3, 4)


def use(method: str, scan, folder: Path, backend: str = "stub") -> None:
    """Call a method of an engine the way users do: train, reconstruct, save, load."""
    config = TrainingConfig(backend=backend, method="network", group_size=4, epochs=2)
    model = ptycho_core.train_cdi_model(*scan.split(0.25, 0), config)["model"]
    if method == "reconstruct":
        ptycho_core.reconstruct(model, scan, InferenceConfig())
    if method in ("save", "load"):
        ptycho_core.save_model(model, folder / "model.ptycho")
    if method == "load":
        ptycho_core.load_model(folder / "model.ptycho")


@pytest.mark.parametrize("method", FAULTS)
def test_every_method_works_where_nothing_is_broken(broken, scan, tmp_path, method):
    broken()
    use(method, scan, tmp_path)


@pytest.mark.spec("PLUG-9")
@pytest.mark.parametrize("method", FAULTS)
@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        ("1 / 0", BackendFaultError, "ZeroDivisionError: division by zero"),
        ("raise KeyError('nothing')", BackendFaultError, "KeyError: 'nothing'"),
        ("import not_there", BackendImportError, "ModuleNotFoundError: No module named 'not_there'"),
        ("raise SystemExit(4)", BackendFaultError, "SystemExit: 4"),
    ],
)
def test_a_fault_names_engine_distribution_method_and_cause(broken, scan, tmp_path, method, line, kind, words):
    before, put = FAULTS[method]
    broken(before, put.format(line) + before)
    with pytest.raises(kind, match=rf"engine 'stub' \(ptycho-stub 1\.0\) failed in {method}: {words}") as caught:
        use(method, scan, tmp_path)
    assert "report it to its authors" in str(caught.value)
    cause = caught.value.__cause__
    assert type(cause).__name__ == words.split(":")[0]
    frames = []
    trace = cause.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert method in frames, "the engine's own traceback is gone"
    use(method, scan, tmp_path, backend="whole")


@pytest.mark.spec("PLUG-9")
@pytest.mark.parametrize("method", FAULTS)
@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("from ptycho_core.errors import DataError; raise DataError('as it is')", DataError),
        ("from ptycho_core.errors import Cancelled; raise Cancelled('as it is')", Cancelled),
        ("raise KeyboardInterrupt('as it is')", KeyboardInterrupt),
        ("raise MemoryError('as it is')", MemoryError),
        ("raise OSError(28, 'as it is')", OSError),
        ("raise OSError(12, 'as it is')", OSError),
    ],
)
def test_what_is_meant_for_the_caller_passes_unchanged(broken, scan, tmp_path, method, line, kind):
    before, put = FAULTS[method]
    broken(before, put.format(line) + before)
    with pytest.raises(kind, match="as it is") as caught:
        use(method, scan, tmp_path)
    assert type(caught.value) is kind
    assert caught.value.__cause__ is None


MODEL = "return Model(config, (scan.probe * np.exp(0.5j)).astype(np.complex64), scan.statistics, history)"
IMAGE = "return make_image(obj, coverage, stitcher.origin_px, scan.probe, scan.statistics.scale, raw.positions_px)"
SPOILT = IMAGE.replace("return ", "done = ")


@pytest.mark.spec("BE-5", "PLUG-9")
@pytest.mark.parametrize(
    ("method", "old", "new", "kind", "words"),
    [
        ("train", MODEL, "return 7", BackendProtocolError, "returned a int; a TrainedModel must have backend"),
        ("train", MODEL, MODEL.replace("* np.exp", "* np.nan * np.exp"), BackendError, "the model's probe .* NaN"),
        ("train", "[0.5, 0.25]", "[0.5, float('nan')]", BackendError, r"history\['train_loss'\] is nan in epoch 2"),
        ("train", "[0.5, 0.25]", "(0.5, 0.25)", BackendProtocolError, ".*must be a list of float"),
        ("reconstruct", IMAGE, "return None", BackendProtocolError, "it returned a NoneType; it must be an Image"),
        ("reconstruct", IMAGE, SPOILT + "; return dataclasses.replace(done, object=done.object.real)",
         BackendProtocolError, "the object is float32"),
        ("reconstruct", IMAGE, SPOILT + "; return dataclasses.replace(done, object=done.object * np.nan)",
         BackendError, "the object holds .* NaN"),
        ("reconstruct", IMAGE, SPOILT + "; return dataclasses.replace(done, origin_px=done.origin_px + 3)",
         BackendProtocolError, ".*used frames of the scan lie beyond it"),
        ("reconstruct", IMAGE, SPOILT + "; return dataclasses.replace(done, stats={'why': [1]})",
         BackendProtocolError, ".*must map names to plain values"),
        ("load", "return Model(bundle.config", "return [bundle.config][0:] or Model(bundle.config",
         BackendProtocolError, "returned a list"),
    ],
)  # fmt: skip
def test_what_is_no_answer_names_engine_and_distribution(broken, scan, tmp_path, method, old, new, kind, words):
    broken(old, new)
    with pytest.raises(kind, match=rf"engine 'stub' \(ptycho-stub 1\.0\):? ?{words}") as caught:
        use(method, scan, tmp_path)
    assert type(caught.value) is kind
    use(method, scan, tmp_path, backend="whole")


@pytest.mark.spec("BE-5", "BE-20", "PLUG-9")
@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        ("1 / 0", BackendFaultError, "failed in expected_counts: ZeroDivisionError"),
        ("return None", BackendProtocolError, "expected_counts returned NoneType; it must be float32 or float64"),
        ("return np.ones((1, 16, 16))", BackendProtocolError, r"expected_counts returned float64 \(1, 16, 16\)"),
        ("return np.full((len(frames), 16, 16), -1.0)", BackendError, "expected_counts returned values that are neg"),
        ("return np.full((len(frames), 16, 16), np.nan)", BackendError, "expected_counts returned values that are neg"),
    ],
)
def test_expected_counts_are_guarded_and_checked(broken, scan, tmp_path, line, kind, words):
    method = f"    def expected_counts(self, image, scan, frames):\n        {line}\n\n"
    broken("    def save(self", f"{method}    def save(self")
    with pytest.raises(kind, match=rf"engine 'stub' \(ptycho-stub 1\.0\):? ?{words}") as caught:
        use("reconstruct", scan, tmp_path)
    assert type(caught.value) is kind
    use("reconstruct", scan, tmp_path, backend="whole")


@pytest.mark.spec("PLUG-9")
@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        ("1 / 0", BackendFaultError, "failed in refine: ZeroDivisionError"),
        ("return 7", BackendProtocolError, ".*int"),
        ("from ptycho_core.errors import Cancelled; raise Cancelled('as it is')", Cancelled, "as it is"),
    ],
)
def test_refine_is_guarded_too(broken, scan, line, kind, words):
    broken(
        "mask=True, background=True\n    )\n",
        "mask=True, background=True, refine=True\n    )\n\n"
        f"    def refine(self, image, scan, config, runtime=None, *, progress=None):\n        {line}\n",
    )
    config = replace(CONFIG, refinement=RefinementConfig(loss="amplitude"))
    model = ptycho_core.train_cdi_model(*scan.split(0.25, 0), config)["model"]
    image = ptycho_core.reconstruct(model, scan, InferenceConfig())
    named = r"as it is" if kind is Cancelled else rf"engine 'stub' \(ptycho-stub 1\.0\):? ?{words}"
    with pytest.raises(kind, match=named):
        ptycho_core.refine(image, config)


@pytest.mark.spec("PLUG-9")
def test_what_the_callers_own_callback_raises_is_not_the_engines_fault(broken, scan):
    told = "progress(__import__('ptycho_core').ProgressEvent(stage='train', done=1, total=2))"
    broken('        CALLS.append(("train"', f'        {told}\n        CALLS.append(("train"')

    def callback(event):
        raise ZeroDivisionError("of the caller")

    with pytest.raises(ZeroDivisionError, match="of the caller"):
        ptycho_core.train_cdi_model(*scan.split(0.25, 0), CONFIG, progress=callback)


def test_progress_of_another_type_is_the_engines_fault(broken, scan):
    broken('        CALLS.append(("train"', '        progress("half")\n        CALLS.append(("train"')
    with pytest.raises(BackendProtocolError, match=r"'stub' \(ptycho-stub 1\.0\) called progress with a str"):
        ptycho_core.train_cdi_model(*scan.split(0.25, 0), CONFIG)


@pytest.mark.spec("BE-5", "PLUG-9")
@pytest.mark.parametrize(
    "metrics", ["{'train_loss': 'low'}", "{'train_loss': None}", "{'a': True}", "{1: 1.0}", "[0.5]"]
)
def test_metrics_that_are_no_numbers_are_the_engines_fault(broken, scan, metrics):
    told = f"progress(__import__('ptycho_core').ProgressEvent(stage='refine', done=1, total=2, metrics={metrics}))"
    broken(
        "mask=True, background=True\n    )\n",
        "mask=True, background=True, refine=True\n    )\n\n"
        "    def refine(self, image, scan, config, runtime=None, *, progress=None):\n"
        f"        {told}\n        return image\n",
    )
    config = replace(CONFIG, refinement=RefinementConfig(loss="amplitude"))
    model = ptycho_core.train_cdi_model(*scan.split(0.25, 0), config)["model"]
    image = ptycho_core.reconstruct(model, scan, InferenceConfig())
    with pytest.raises(BackendProtocolError, match=r"'stub' \(ptycho-stub 1\.0\) called progress with metrics = "):
        ptycho_core.refine(image, config)


@pytest.mark.parametrize("value", [1, 0.5, np.float32(0.5), np.float64(0.5)])
def test_any_real_number_is_a_metric(value):
    seen = []
    with engine_at_work("of_my_own", "refine", seen.append) as relay:
        relay(ProgressEvent(stage="refine", done=1, total=1, metrics={"train_loss": value}))
    assert len(seen) == 1


@pytest.mark.spec("PLUG-9", "PLUG-10")
@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("1 / 0", BackendFaultError, "ZeroDivisionError: division by zero"),
        ("import not_there", BackendImportError, "ModuleNotFoundError: No module named 'not_there'"),
        ("raise SystemExit(4)", BackendFaultError, "SystemExit: 4"),
    ],
)
def test_options_that_cannot_be_imported_are_the_engines_fault(broken, tmp_path, text, kind, words):
    broken()
    install_stub(tmp_path / "site", "picky", options="picky_options:Options")
    (tmp_path / "site" / "picky_options.py").write_text(text + "\n")
    with pytest.raises(
        kind, match=rf"'picky' \(ptycho-picky 1\.0\) failed in the import of its options: {words}"
    ) as caught:
        options_class("picky")
    assert type(caught.value.__cause__).__name__ == words.split(":")[0]
    assert load_backend("whole").name == "whole"


def test_an_engine_is_named_with_what_is_known_of_its_origin(broken, tmp_path):
    broken()
    site = tmp_path / "site"
    install(site, "bad-dist", {"bad": "bad_plugin"}, {"bad_plugin": "1 / 0"})
    install(site, "stub-again", {"stub": "stub_plugin_module"}, {})
    assert origin_of("bad") == "engine 'bad' (bad-dist 1.0)"
    assert origin_of("stub") == "engine 'stub' (claimed by several distributions)"
    assert origin_of("whole") == "engine 'whole' (ptycho-whole 1.0)"


def test_an_engine_that_is_handed_in_is_named_too():
    assert origin_of("of_my_own") == "engine 'of_my_own' (not installed)"
    with (
        pytest.raises(BackendFaultError, match=r"'of_my_own' .*failed in refine: ValueError: x"),
        engine_at_work("of_my_own", "refine"),
    ):
        raise ValueError("x")
    seen = []
    with engine_at_work("of_my_own", "refine", seen.append) as relay:
        relay(ProgressEvent(stage="refine", done=1, total=1))
    assert len(seen) == 1


@pytest.mark.spec("PLUG-3")
def test_two_faults_in_one_process_do_not_meet(broken, scan, tmp_path):
    broken('        CALLS.append(("train"', '        1 / 0\n        CALLS.append(("train"')
    for _ in range(2):
        with pytest.raises(BackendFaultError):
            use("train", scan, tmp_path)
    assert load_backend("whole").name == "whole"
    with pytest.raises(ConfigError):
        ptycho_core.train_cdi_model(
            *scan.split(0.25, 0), TrainingConfig(backend="stub", method="network", loss="poisson")
        )
    assert issubclass(BackendFaultError, PtychoError)
    assert np.isfinite(scan.frame_totals).all()
