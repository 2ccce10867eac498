"""The names ``ptycho`` and ``ptycho_torch``: a PtychoPINN keeps them, whichever was installed first."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

pytestmark = pytest.mark.ptychodus

COMMAND = Path(sys.executable).with_name("ptycho-core-ptychodus")


def python(code: str, *folders: Path) -> subprocess.CompletedProcess[str]:
    """Run code where folders come first on the path, as site-packages comes before our line of it."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False, env=environment
    )


def installed(folder: Path, *names: str, package: bool = True) -> Path:
    """A distribution called ptychopinn 1.2 in a folder, with packages of the names; an editable one has none there."""
    about = folder / "ptychopinn-1.2.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: ptychopinn\nVersion: 1.2\n")
    (about / "top_level.txt").write_text("\n".join(names) + "\n")
    for name in names if package else ():
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("whose = 'theirs'\n")
    return folder


@pytest.mark.spec("PTYD-1")
def test_nothing_is_installed_over_anything() -> None:
    files = [str(path) for path in metadata.files("ptycho-core-ptychodus") or ()]
    assert any(name.endswith("names/ptycho/__init__.py") for name in files)
    assert not [name for name in files if name.startswith(("ptycho/", "ptycho_torch/", "ptycho.py", "ptycho_torch.py"))]
    folders = {name.partition("/")[0] for name in files if "/" in name and not name.startswith("..")}
    assert folders == {"ptycho_core_ptychodus", "ptycho_core_ptychodus-0.1.0.dist-info", "ptychodus"}
    theirs = {str(path) for path in metadata.files("ptychodus") or ()}
    assert not theirs & set(files)


def test_where_nothing_else_has_them_they_are_ours() -> None:
    done = python("import ptycho, ptycho_torch; print(ptycho.__file__, ptycho_torch.__file__)")
    assert done.stdout.count("ptycho_core_ptychodus") == 2, done.stderr
    done = subprocess.run([str(COMMAND)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout
    assert "PtychoPINN (PINN): ptycho-core, engine" in done.stdout


@pytest.mark.spec("PTYD-1")
def test_a_ptychopinn_keeps_its_names(tmp_path: Path) -> None:
    folder = installed(tmp_path / "site", "ptycho", "ptycho_torch")
    done = python("import ptycho, ptycho_torch; print(ptycho.whose, ptycho_torch.whose)", folder)
    assert done.stdout.split() == ["theirs", "theirs"], done.stderr
    done = python("import sys; from ptycho_core_ptychodus.status import main; sys.exit(main())", folder)
    assert done.returncode == 1
    assert "ptycho-core is not behind it: 'ptycho' is of the distribution ptychopinn 1.2" in done.stdout


@pytest.mark.spec("PTYD-1")
def test_half_a_ptychopinn_is_not_mixed_with_ours(tmp_path: Path) -> None:
    folder = installed(tmp_path / "site", "ptycho")
    assert python("import ptycho; print(ptycho.whose)", folder).stdout.strip() == "theirs"
    done = python("import ptycho_torch", folder)
    assert done.returncode == 1
    assert "does not stand in for PtychoPINN where one is installed: 'ptycho' is of the distribution" in done.stderr


def test_an_editable_ptychopinn_that_python_asks_later_is_seen(tmp_path: Path) -> None:
    folder = installed(tmp_path / "site", "ptycho", "ptycho_torch", package=False)
    done = python("import ptycho.config.config", folder)
    assert done.returncode == 1
    assert "'ptycho' is of the distribution ptychopinn 1.2" in done.stderr
    assert "Uninstall that to use ptycho-core behind ptychodus" in done.stderr


def test_a_checkout_on_the_path_is_seen(tmp_path: Path) -> None:
    (tmp_path / "ptycho").mkdir()
    (tmp_path / "ptycho" / "__init__.py").write_text("")
    done = python("import ptycho_torch", tmp_path)
    assert f"'ptycho' is at {tmp_path / 'ptycho' / '__init__.py'}" in done.stderr


def test_a_folder_that_is_no_package_takes_no_name(tmp_path: Path) -> None:
    (tmp_path / "ptycho").mkdir()  # a folder of data, say
    done = python("import ptycho; print(ptycho.__file__)", tmp_path)
    assert "ptycho_core_ptychodus" in done.stdout, done.stderr


@pytest.mark.spec("PTYD-5")
def test_the_environment_is_read_in_one_place() -> None:
    import ptycho_core_ptychodus

    (folder,) = ptycho_core_ptychodus.__path__
    readers = {
        str(path.relative_to(folder)): text.count("environ[") + text.count("environ.") + text.count("getenv")
        for path in Path(folder).rglob("*.py")
        if "environ" in (text := path.read_text(encoding="utf-8"))
    }
    assert {name: count for name, count in readers.items() if count} == {"engine.py": 1}
    assert 'os.environ.get(VARIABLE, "")' in (Path(folder) / "engine.py").read_text(encoding="utf-8")
