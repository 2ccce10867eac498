"""``ptycho new-engine NAME``: the distribution of an engine, small and whole, to start one's own from."""

from __future__ import annotations

import keyword
import os
import re
import shutil
import tempfile
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from ..config_checks import shown
from ..errors import ConfigError, OutputError
from ..io.atomic import ensure_output_folder
from ..io.result_folder import as_output_error
from .options import Options, Parser, make_parser
from .session import Session

__all__ = ["build_parser", "engine_files", "execute"]

_SUMMARY = """\
Write a folder with an engine of your own: one small module that works and keeps the protocol, its pyproject.toml, a
test and a README. Install it, and change it.

  NAME.py                the engine: a solver in one file
  pyproject.toml         the distribution, and the entry point by which it is found
  test_conformance.py    the suite that every engine is held to
  README.md              the commands to begin with

docs/write-an-engine.md says what each part means."""
EXAMPLE = "ptycho new-engine my_engine --out my-engine"

_NAME = re.compile(r"[a-z][a-z0-9_]{1,39}")
_TAKEN = {"auto", "none"}
_FOLDER = "new_engine_files"


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = make_parser("new-engine", "NAME", _SUMMARY, EXAMPLE)
    parser.add_argument("name", metavar="NAME", help="name of the engine, the word for --backend: my_engine")
    parser.add_argument("--out", metavar="FOLDER", help="folder to write (default: NAME with dashes)")
    return parser


def _checked(name: str) -> str:
    """The name of an engine, which is that of its module too.

    Raises:
        ConfigError: it is no name, or something else is called so.
    """
    from ..plugins.registry import available_backends

    given = name
    name = name.replace("-", "_")
    if not _NAME.fullmatch(name) or keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise ConfigError(
            f"NAME = {shown(given)}; it must be 2 to 40 small letters, digits and underscores, and begin with "
            "a letter, such as my_engine."
        )
    if name in _TAKEN or name in {engine.name for engine in available_backends()}:
        raise ConfigError(f"NAME = {shown(given)}; there is an engine of that name ('ptycho backends'); take another.")
    if find_spec(name) is not None:
        raise ConfigError(f"NAME = {shown(given)}; there is a Python module of that name; take another.")
    return name


def engine_files(name: str) -> dict[str, str]:
    """File name → its text, of the distribution of an engine.

    Args:
        name: of the engine and of its module.
    """
    words = {
        "name": name,
        "module": name,
        "distribution": name.replace("_", "-"),
        "class": "".join(part.capitalize() for part in name.split("_")) + "Backend",
        "title": " ".join(part.capitalize() for part in name.split("_") if part),
    }
    made: dict[str, str] = {}
    for file in sorted(files(__package__).joinpath(_FOLDER).iterdir(), key=lambda f: f.name):
        if file.name.endswith(".in"):
            text = file.read_text(encoding="utf-8")
            for word, value in words.items():
                text = text.replace(f"{{{{{word}}}}}", value)
            made[f"{name}.py" if file.name == "module.py.in" else file.name.removesuffix(".in")] = text
    return made


def _write(folder: Path, made: dict[str, str]) -> None:
    """Write a folder as a whole: beside its place first, then in one step.

    Raises:
        OutputError: it is there, or cannot be written.
    """
    if os.path.lexists(folder):
        raise OutputError(f"{folder}: is there already; name another folder with --out.")
    parent = ensure_output_folder(folder.parent)
    with as_output_error(folder, "choose another folder with --out."):
        beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=parent))
        try:
            for name, text in made.items():
                (beside / name).write_text(text, encoding="utf-8")
            beside.chmod(0o755)
            os.rename(beside, folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def execute(options: Options, session: Session) -> int:
    """Write the distribution, and say what to do with it."""
    name = _checked(options["name"])
    made = engine_files(name)
    folder = Path(options["out"] or name.replace("_", "-"))
    _write(folder, made)
    session.say(f"written   {folder}: {', '.join(made)}")
    session.say(f"next      pip install -e {folder}")
    session.say(f"then      ptycho conform {name}")
    session.say(f"and       ptycho demo --backend {name} --refine none")
    return 0
