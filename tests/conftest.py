"""Fixtures shared by all tests, and what is skipped where a framework is not installed."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
NO_TORCH = "PyTorch is not installed in this environment"


def is_installed(module: str) -> bool:
    """Whether a module is installed; a folder of that name, such as tests/torch, is none."""
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is not None


TORCH_IS_INSTALLED = is_installed("torch") and is_installed("lightning")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real scans beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip("real scans are not beside the checkout (../shared/data)")
    return SHARED_DATA


class ModuleForTorch(pytest.Module):
    """A module of which every test is marked torch: it may import PyTorch at its top, so it is not even imported."""

    def collect(self) -> list[pytest.Item]:
        """Skip the module with its reason."""
        pytest.skip(NO_TORCH, allow_module_level=True)


def is_marked_torch(source: str) -> bool:
    """Whether a module marks all its tests torch, with ``pytestmark``."""
    return any(
        isinstance(node, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == "pytestmark" for target in node.targets)
        and "pytest.mark.torch" in ast.unparse(node.value)
        for node in ast.parse(source).body
    )


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Skip whole modules marked torch where PyTorch is not installed."""
    if TORCH_IS_INSTALLED or not is_marked_torch(module_path.read_text(encoding="utf-8")):
        return None
    return ModuleForTorch.from_parent(parent, path=module_path)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip single tests marked torch where PyTorch is not installed."""
    if TORCH_IS_INSTALLED:
        return
    for item in items:
        if item.get_closest_marker("torch"):  # not item.keywords: the folder tests/torch is a keyword too
            item.add_marker(pytest.mark.skip(reason=NO_TORCH))
