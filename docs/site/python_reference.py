"""The reference of Python names: which page shows which, and that none is left out."""

from __future__ import annotations

import ast
from pathlib import Path

__all__ = ["pages_of_python"]

THEMES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "stages": (
        "From a scan to an image",
        "`run` is the whole way; the others are its parts, each of which can be called alone.",
        (
            "run", "read_scan", "write_scan", "ensure_container", "train", "reconstruct", "refine", "save_model",
            "load_model", "load_run", "Observer", "ProgressBar", "run_cdi_example", "train_cdi_model",
        ),
    ),
    "settings": (
        "Settings",
        "A config decides the result; a `Runtime` says what does the work.",
        (
            "TrainingConfig", "ModelConfig", "InferenceConfig", "RefinementConfig", "EngineOptions", "Runtime",
            "preset", "config_from_mapping", "config_to_mapping",
        ),
    ),
    "scans": (
        "Scans",
        "What a reader gives, and what every stage is handed. Arrays are read-only; positions are (y, x).",
        (
            "RawData", "Geometry", "Source", "Propagation", "ObjectGuess", "ProbeGuess", "PtychoDataContainer", "Role",
            "Statistics", "find_probe", "find_orientation", "find_centre", "simulate", "SimulationConfig",
        ),
    ),
    "results": (
        "Images, figures and verdicts",
        "What comes back, and how far to trust it.",
        (
            "Run", "Stage", "Image", "Refined", "Scored", "Figures", "Verdict", "Reason", "CdiResult", "CdiResults",
            "score", "judge", "try_out", "compare", "compare_images",
        ),
    ),
    "engines": (
        "Engines",
        "The protocol that every engine keeps, and how one is found.",
        (
            "available_backends", "backend_spec", "load_backend", "BackendStatus", "BackendSpec", "Capabilities",
            "ReconstructionBackend", "TrainedModel", "ProgressEvent", "PROTOCOL_VERSION",
        ),
    ),
    "errors": (
        "Errors",
        "Every refusal is one of these; its text says what was given, what is allowed, and the fix.",
        ("errors",),
    ),
}  # fmt: skip
"""Page → its title, its first sentence, and the names of ``ptycho_core`` on it."""

MODULES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "for-authors": (
        "For authors of engines and readers",
        "What a plugin may import beside the names above.",
        ("protocol", "plugins.hookspecs", "reader_protocol", "data.recording", "data.frames", "testing"),
    ),
    "enginekit": ("Engine kit", "What engines share.", ()),
    "physics": ("Physics", "The formulas, in NumPy and float64: what every engine is compared with.", ()),
}
"""Page → its title, its first sentence, and the modules on it: all of the package of its name where none is named."""


def public_names(root: Path) -> list[str]:
    """``ptycho_core.__all__``, without importing it."""
    tree = ast.parse((root / "ptycho_core" / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
            return [str(name) for name in ast.literal_eval(node.value)]
    raise SystemExit("ptycho_core has no __all__")


def pages_of_python(root: Path) -> dict[str, str]:
    """The pages, as Markdown that mkdocstrings fills.

    Raises:
        SystemExit: a public name is on no page, or a page has a name that is not public.
    """
    public = set(public_names(root))
    shown = [name for _, _, names in THEMES.values() for name in names]
    wrong = sorted(public.symmetric_difference(shown)) + sorted({name for name in shown if shown.count(name) > 1})
    if wrong:
        raise SystemExit(f"docs/site/python_reference.py: on no page, on two, or not public: {', '.join(wrong)}")
    pages, table = {}, ["# Python", "", "| page | names |", "|---|---|"]
    for page, (title, first, names) in THEMES.items():
        pages[f"reference/python/{page}.md"] = _page(title, first, [f"ptycho_core.{name}" for name in names])
        table.append(f"| [{title}]({page}.md) | {', '.join(f'`{name}`' for name in names)} |")
    for page, (title, first, modules) in MODULES.items():
        listed = modules or tuple(f"{page}.{module}" for module in _modules(root / "ptycho_core" / page))
        pages[f"reference/python/{page}.md"] = _page(title, first, [f"ptycho_core.{name}" for name in listed])
        table.append(f"| [{title}]({page}.md) | {first} |")
    pages["reference/python/index.md"] = "\n".join([*table, ""])
    return pages


def _modules(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))


def _page(title: str, first: str, names: list[str]) -> str:
    return "\n\n".join([f"# {title}", first, *(f"::: {name}" for name in names)]) + "\n"
