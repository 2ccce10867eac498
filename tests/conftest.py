"""Fixtures shared by all tests, and what is skipped where a framework is not installed."""

from __future__ import annotations

import ast
import importlib.util
import re
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

_HEALTH = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.differing_executors]
# here, since the option --hypothesis-profile is looked at before any test is imported
settings.register_profile(
    "hostile", max_examples=200, deadline=None, derandomize=True, database=None, suppress_health_check=_HEALTH
)
settings.register_profile("nightly", max_examples=10_000, deadline=None, database=None, suppress_health_check=_HEALTH)

# a shell without job control starts what stands before "&" with SIGINT ignored, and nohup with SIGHUP; so would be all
# that is started here, while a signal that is heard is as usual in what is started
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda number, frame: None)

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

NEEDED = {
    "torch": {"torch": "PyTorch", "lightning": "Lightning"},
    "tensorflow": {"tensorflow": "TensorFlow"},
    "ptychi": {"ptychi": "pty-chi", "torch": "PyTorch"},
    "ptychodus": {"ptychodus": "ptychodus", "ptycho_core_ptychodus": "the distribution in integrations/ptychodus"},
    "notebooks": {"nbclient": "nbclient", "nbformat": "nbformat", "ipykernel": "ipykernel", "xarray": "xarray"},
    "docs": {"mkdocs": "MkDocs", "mkdocstrings": "mkdocstrings", "build": "build", "twine": "twine"},
}
"""Mark → the modules that a test with it needs, and their names for people."""
NEEDED["both"] = NEEDED["torch"] | NEEDED["tensorflow"]


def is_installed(module: str) -> bool:
    """Whether a module is installed; a folder of that name, such as tests/torch, is none."""
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is not None


def reason_to_skip(marks: set[str]) -> str | None:
    """What a test with these marks needs and is not installed, in words; None where nothing is missing."""
    needed: dict[str, str] = {}
    for mark in sorted(marks & NEEDED.keys()):
        needed |= NEEDED[mark]
    missing = [name for module, name in needed.items() if not is_installed(module)]
    return f"not installed in this environment: {', '.join(missing)}" if missing else None


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real scans beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip("real scans are not beside the checkout (../shared/data)")
    return SHARED_DATA


class SkippedModule(pytest.Module):
    """A module of which every test needs what is missing: it may import that at its top, so it is not even imported."""

    reason = ""

    def collect(self) -> list[pytest.Item]:
        """Skip the module with its reason."""
        pytest.skip(self.reason, allow_module_level=True)


def marks_of_module(source: str) -> set[str]:
    """The marks that a module gives all its tests, with ``pytestmark``."""
    marks: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "pytestmark" for t in node.targets):
            marks |= set(re.findall(r"\bpytest\.mark\.(\w+)", ast.unparse(node.value)))
    return marks


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Skip whole modules marked for a framework that is not installed."""
    reason = reason_to_skip(marks_of_module(module_path.read_text(encoding="utf-8")))
    if reason is None:
        return None
    module = SkippedModule.from_parent(parent, path=module_path)
    module.reason = reason
    return module


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip single tests, and single parameters of tests, marked for a framework that is not installed."""
    for item in items:
        # not item.keywords: the folder tests/torch is a keyword too
        reason = reason_to_skip({mark.name for mark in item.iter_markers()})
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))
