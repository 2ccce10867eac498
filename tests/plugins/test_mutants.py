"""The suite has teeth: an engine with one line made wrong fails the test that is named for that mistake.

The toy engine is made wrong, and the functional one where only a stepper can be.

Each mutant is a copy of the toy's sources with some text replaced, laid out as the installed distribution of that name,
so that it comes in by the same door as every engine, also in the processes that the suite starts.
"""

from __future__ import annotations

import importlib.metadata
import logging
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mutant_texts import Mutant, read_mutants
from stub_engines import install as install_module

from ptycho_core.testing import BackendConformance, Sheet, run_conformance

SOURCES = Path(__file__).parent / "toy_engine" / "ptycho_toy_engine"
STEPPER = Path(__file__).parent / "functional_engine" / "functional_engine.py"

pytestmark = [
    pytest.mark.plugin,
    pytest.mark.skipif(
        "toy" not in importlib.metadata.entry_points(group="ptycho.backends").names,
        reason="the toy engine is not installed: pip install tests/plugins/toy_engine",
    ),
]


BROKEN = re.compile(
    r"\b(NameError|UnboundLocalError|SyntaxError|IndentationError|TabError|ImportError|ModuleNotFoundError"
    r"|BackendImportError)\b|failed in its import|its plugin is broken|cannot be loaded"
)
"""Why a text that is no working engine fails, whatever it is asked."""


MUTANTS = read_mutants((Path(__file__).parent / "mutants.diff").read_text(encoding="utf-8"))


@pytest.fixture
def engine_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put both engines, with some text of one file replaced, before the installed ones."""

    def install(file: str = "backend.py", texts: tuple[str, ...] = ()) -> None:
        site = tmp_path / "site"
        shutil.copytree(SOURCES, site / SOURCES.name, ignore=shutil.ignore_patterns("__pycache__"))
        info = site / "ptycho_toy_engine-0.1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ptycho-toy-engine\nVersion: 0.1.0\n")
        (info / "entry_points.txt").write_text("[ptycho.backends]\ntoy = ptycho_toy_engine.plugin\n")
        module = STEPPER.stem
        install_module(site, "functional-engine", {"functional": module}, {module: STEPPER.read_text(encoding="utf-8")})
        path = site / STEPPER.name if file == STEPPER.name else site / SOURCES.name / file
        text = path.read_text(encoding="utf-8")
        for old, new in zip(texts[::2], texts[1::2], strict=True):
            assert text.count(old) == 1, f"{file} has {text.count(old)} times: {old}"
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
        for name in [name for name in sys.modules if name.partition(".")[0] in (SOURCES.name, module)]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.syspath_prepend(site)

    errors, level = np.geterr(), logging.root.level  # some mutants change them for good
    yield install
    np.seterr(**errors)
    logging.root.setLevel(level)
    for name in [name for name in sys.modules if name.partition(".")[0] in (SOURCES.name, STEPPER.stem)]:
        del sys.modules[name]


def engine_of(mutant: Mutant) -> str:
    """Name of the engine that a mistake is put into."""
    return "functional" if mutant.file == STEPPER.name else "toy"


def failures(sheet: Sheet) -> dict[str, str]:
    return {outcome.test.partition("[")[0]: outcome.reason for outcome in sheet.of("failed")}


@pytest.mark.spec("BE-6", "BE-17", "BE-19", "BE-20", "BE-21", "BE-23", "BE-33", "BE-34")
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught_by_the_test_named_for_it(engine_with, name):
    mutant = MUTANTS[name]
    engine_with(mutant.file, mutant.texts)
    sheet = run_conformance(engine_of(mutant), only=mutant.test)
    assert mutant.test in failures(sheet), f"{name} passes {mutant.test}"
    reason = failures(sheet)[mutant.test]
    assert not BROKEN.search(reason), f"{name} is no mistake of that kind, it cannot run: {reason}"
    assert not sheet.conforms


@pytest.mark.spec("BE-33")
@pytest.mark.parametrize("engine", ["toy", "functional"])
def test_the_engine_itself_passes_what_its_mutants_fail(engine_with, engine):
    engine_with()
    sheet = run_conformance(engine)
    assert failures(sheet) == {}
    passed = {outcome.test.partition("[")[0] for outcome in sheet.of("passed")}
    assert {mutant.test for mutant in MUTANTS.values() if engine_of(mutant) == engine} <= passed
    assert sheet.conforms


def test_every_test_of_the_suite_has_a_mutant():
    tests = {name for name in dir(BackendConformance) if name.startswith("test_")}
    # an engine that is not listed as ready cannot be loaded, and fails every test; what is not offered is refused by
    # core, whatever the engine does; patches, refined positions and their map, intensities, several scans and the
    # near field are what neither engine offers
    unproven = {
        "test_it_is_listed_as_ready", "test_what_it_does_not_offer_is_refused_before_data_are_read",
        "test_patches_are_plain_arrays", "test_refined_positions_stay_within_their_limit",
        "test_several_scans_are_trained_on",
        "test_a_propagation_that_it_does_not_offer_is_refused",
        "test_expected_counts_of_a_near_field_agree_with_the_oracle",
        "test_gradients_of_a_near_field_agree_with_the_oracle", "test_a_step_in_the_near_field_follows_the_formulas",
        "test_a_near_field_scan_becomes_an_image", "test_intensities_of_frames_are_fitted",
        "test_what_positions_have_in_common_moves_all_of_them",
    }  # fmt: skip
    assert not unproven & {mutant.test for mutant in MUTANTS.values()}
    assert {mutant.test for mutant in MUTANTS.values()} | unproven == tests


@pytest.mark.spec("BE-33")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("        return reconstruct_solved(model, scan", "        return reconstruct_solved(model, data"),
        ('NAME = "toy"', 'NAME = "toy" +'),
        ('NAME = "toy"', "NAME = np.no_such_thing"),
        ("from . import physics", "from . import metaphysics"),
    ],
)
def test_a_mutant_that_cannot_run_is_not_taken_for_caught(engine_with, old, new):
    engine_with("backend.py", (old, new))
    sheet = run_conformance("toy", only="made_of_plain_arrays")
    assert all(BROKEN.search(reason) for reason in failures(sheet).values())
    assert failures(sheet)
