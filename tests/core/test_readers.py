"""Finding, choosing and guarding readers of scan files (specs/40-plugins)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from stub_engines import install

from ptycho_core.cli.main import main
from ptycho_core.errors import Cancelled, ConfigError, DataError, MissingPackageError, ReaderError
from ptycho_core.inspection.examine import inspect_scan
from ptycho_core.io import read_scan
from ptycho_core.plugins.readers import available_readers

READER = """
from ptycho_core.plugins.hookspecs import hookimpl
from ptycho_core.reader_protocol import ReaderSpec

@hookimpl
def ptycho_reader():
    return ReaderSpec({arguments})
"""

FUNCTIONS = """
import numpy as np
from ptycho_core.data.raw import RawData, Source

def recognises(file):
    {recognises}

def read(file, options):
    {read}
    positions = np.stack([np.arange(4) * 3.25, np.arange(4.0)], axis=1)
    counts = np.arange(4 * 16 * 16).reshape(4, 16, 16)
    return RawData.from_arrays(counts, positions, source=Source(path=str(file.path), dialect="{name}"))
"""


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


def install_reader(
    site: Path,
    name: str = "mine",
    *,
    recognises: str = "return 'apples' in file.names",
    read: str = "pass",
    plugin: str | None = None,
    **spec: object,
) -> None:
    """Install a reader whose plugin is one module, and whose functions are in another."""
    given = {
        "name": name, "title": f"files of {name}", "kind": "npz", "module": f"{name}_functions", "protocol_version": 1
    } | spec  # fmt: skip
    arguments = ", ".join(f"{key}={value!r}" for key, value in given.items())
    modules = {
        f"{name}_plugin": READER.format(arguments=arguments) if plugin is None else plugin,
        f"{name}_functions": FUNCTIONS.format(name=name, recognises=recognises, read=read),
    }
    install(site, f"dist-{name}", {name: f"{name}_plugin"}, modules, group="ptycho.readers", version="1.5")


def status(name: str):
    return {reader.name: reader for reader in available_readers()}[name]


@pytest.fixture
def apples(tmp_path: Path) -> Path:
    """A file that is no scan in any dialect of this project."""
    np.savez(tmp_path / "apples.npz", apples=np.zeros(3))
    return tmp_path / "apples.npz"


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A scan in the NPZ dialect: 5 frames of 16×16."""
    counts = np.random.default_rng(0).poisson(5.0, (5, 16, 16))
    np.savez(
        tmp_path / "scan.npz", diff3d=counts, measurement="counts",
        xcoords=np.arange(5) * 2.5, ycoords=np.arange(5) * 1.75,
    )  # fmt: skip
    return tmp_path / "scan.npz"


def test_our_dialects_come_through_the_same_door():
    ours = {reader.name: reader for reader in available_readers() if reader.distribution.startswith("ptycho-core ")}
    assert set(ours) >= {"cxi", "eiger", "files", "hdf5", "npz", "ptyd", "stem", "tiff", "tike", "zarr"}
    assert {reader.state for reader in ours.values()} == {"ready"}
    assert ours["tike"].priority > ours["npz"].priority
    assert ours["cxi"].priority > ours["hdf5"].priority


def test_a_reader_from_outside_reads_what_no_other_knows(site, apples):
    with pytest.raises(DataError, match="no scan in any known dialect"):
        read_scan(apples)
    install_reader(site)
    raw = read_scan(apples)
    assert (raw.source.dialect, raw.n_frames, raw.source.warnings) == ("mine", 4, ())
    assert inspect_scan(apples).dialect == "mine"


@pytest.mark.spec("PLUG-11")
def test_finding_readers_imports_nothing_heavy():
    code = (
        "import sys; from ptycho_core.plugins.readers import available_readers\n"
        "assert len(available_readers()) >= 4\n"
        "bad = {'h5py', 'hdf5plugin', 'scipy', 'torch', 'tensorflow', 'matplotlib', 'skimage'} & set(sys.modules)\n"
        "sys.exit(repr(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.spec("PLUG-11")
def test_the_functions_of_a_reader_are_imported_for_files_of_its_container_only(site, scan):
    install_reader(site, kind="hdf5", priority=99, recognises="return True")
    available_readers()
    assert read_scan(scan).source.dialect == "npz"
    assert "mine_plugin" in sys.modules
    assert "mine_functions" not in sys.modules


@pytest.mark.spec("PLUG-12")
@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        ("import no_such_module", "broken: ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise SystemExit(3)", "broken: SystemExit: 3"),
        ("x = 1", "0 ptycho_reader hooks answered"),
        (READER.format(arguments="").replace("ReaderSpec()", "4"), "returned int; it must be a ReaderSpec"),
    ],
)
def test_a_broken_plugin_is_shown_with_its_cause_and_breaks_no_other(site, scan, apples, plugin, words):
    install_reader(site, plugin=plugin)
    assert read_scan(scan).source.warnings == ()
    assert status("mine").state == "broken"
    for text in ("reader 'mine' (dist-mine 1.5, mine_plugin)", words):
        assert text in status("mine").detail
    with pytest.raises(DataError, match=r"Known: .*reader 'mine' \(dist-mine 1\.5"):
        read_scan(apples)
    with pytest.raises(ReaderError, match="reader 'mine'") as caught:
        read_scan(apples, dialect="mine")
    if "broken" in words:
        assert type(caught.value.__cause__).__name__ in words


@pytest.mark.spec("PLUG-13")
def test_two_readers_of_one_name_are_refused_before_data_are_read(site, tmp_path, scan):
    install(site, "alpha", {"twin": "alpha_twin"}, {"alpha_twin": "1 / 0"}, group="ptycho.readers")
    install(site, "beta", {"twin": "beta_twin"}, {"beta_twin": "1 / 0"}, group="ptycho.readers", version="2.5")
    for path, dialect in ((tmp_path / "gone.npz", None), (tmp_path / "gone.npz", "twin")):
        with pytest.raises(ReaderError, match=r"reader 'twin' is claimed by alpha 1\.0 .* and beta 2\.5 .*uninstall"):
            read_scan(path, dialect=dialect)
    assert status("twin").state == "conflict"
    assert read_scan(scan, dialect="npz").n_frames == 5
    assert "claimed by" in inspect_scan(scan).findings[0].text


@pytest.mark.spec("PLUG-14")
@pytest.mark.parametrize(("priority", "reads"), [(0, "npz"), (9, "npz"), (11, "mine"), (99, "mine")])
def test_the_higher_priority_is_asked_first(site, scan, priority, reads):
    install_reader(site, priority=priority, recognises="return 'diff3d' in file.names")
    assert read_scan(scan).source.dialect == reads
    assert read_scan(scan, dialect="mine").source.dialect == "mine"


@pytest.mark.spec("PLUG-14")
def test_two_that_recognise_a_file_at_one_priority_are_both_named(site, scan):
    install_reader(site, priority=10, recognises="return True")
    with pytest.raises(
        DataError, match=r"scan\.npz: recognised by reader 'mine' \(dist-mine 1\.5\) and by reader 'npz'.*--dialect"
    ):
        read_scan(scan)


@pytest.mark.spec("PLUG-15")
@pytest.mark.parametrize(
    "failure", ["return 1 / 0", "raise SystemExit(3)", "raise __import__('ptycho_core').errors.DataError('x')"]
)
def test_a_reader_that_fails_in_recognising_is_passed_over_and_said(site, scan, apples, failure):
    install_reader(site, priority=99, recognises=failure)
    raw = read_scan(scan)
    assert raw.source.dialect == "npz"
    (warning,) = raw.source.warnings
    for text in ("reader 'mine' (dist-mine 1.5) failed in recognising", str(scan), "passed over"):
        assert text in warning
    assert warning in [finding.text for finding in inspect_scan(scan).findings]
    with pytest.raises(DataError, match=r"no scan in any known.*'mine' \(dist-mine 1\.5\) failed in recognising"):
        read_scan(apples)


@pytest.mark.spec("PLUG-15")
@pytest.mark.parametrize("failure", ["1 / 0", "raise KeyError('frames')", "raise SystemExit(3)"])
def test_what_a_reader_raises_names_reader_distribution_and_file(site, apples, failure):
    install_reader(site, read=failure)
    with pytest.raises(
        DataError, match=r"apples\.npz: reader 'mine' \(dist-mine 1\.5\) failed in reading it"
    ) as caught:
        read_scan(apples)
    assert type(caught.value.__cause__) in (ZeroDivisionError, KeyError, SystemExit)
    (finding,) = inspect_scan(apples).findings
    assert (finding.level, finding.text) == ("error", str(caught.value))


@pytest.mark.spec("PLUG-15")
@pytest.mark.parametrize(
    ("read", "error", "words"),
    [
        ("raise __import__('ptycho_core').errors.Cancelled('enough')", Cancelled, "^enough$"),
        ("raise MemoryError('full')", MemoryError, "^full$"),
        ("raise OSError(5, 'Input/output error')", DataError, r"apples\.npz: cannot be read \(Input/output error\)"),
        ("return 4", DataError, r"apples\.npz: reader 'mine' .* returned a int; it must be a Recording, or a RawData"),
    ],
)
def test_what_is_meant_for_the_caller_passes_and_a_scan_is_a_scan(site, apples, read, error, words):
    install_reader(site, read=read)
    with pytest.raises(error, match=words):
        read_scan(apples)


@pytest.mark.spec("PLUG-16")
@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"name": "other"}, "names the reader 'other' but its entry point is called 'mine'"),
        ({"protocol_version": 0}, r"reader protocol 0; this ptycho-core accepts 1 to 2\. Upgrade the reader\."),
        ({"protocol_version": 3}, r"reader protocol 3; .* accepts 1 to 2\. Upgrade ptycho-core\."),
        ({"kind": "hdf"}, "kind = 'hdf'; it must be one of npz, hdf5, folder, other. Did you mean 'hdf5'"),
        ({"module": "a:b"}, "module = 'a:b'"),
        ({"priority": "high"}, "priority = 'high'"),
        ({"requires": "zarr"}, "requires = 'zarr'"),
    ],
)
def test_a_description_that_could_not_be_acted_on_is_refused(site, apples, spec, words):
    arguments = {
        "name": "mine", "title": "x", "kind": "npz", "module": "mine_functions", "protocol_version": 1
    } | spec  # fmt: skip
    text = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    install_reader(site, plugin=READER.format(arguments=text))
    with pytest.raises(ReaderError, match=rf"reader 'mine' \(dist-mine 1\.5, mine_plugin\).*{words}"):
        read_scan(apples, dialect="mine")
    assert status("mine").state == "broken"


@pytest.mark.spec("PLUG-16")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import no_such_module", "its module mine_functions cannot be imported: ModuleNotFoundError"),
        ("def read(file, options): ...", "must have a function recognises that takes 1 argument: file"),
        ("def recognises(): ...", "must have a function recognises that takes 1 argument: file"),
    ],
)
def test_a_module_without_the_functions_is_passed_over_and_said(site, scan, text, words):
    install_reader(site, priority=99)
    (site / "mine_functions.py").write_text(text)
    raw = read_scan(scan)
    assert raw.source.dialect == "npz"
    assert words in raw.source.warnings[0]


@pytest.mark.spec("PLUG-16")
def test_what_a_reader_requires_is_asked_for_with_the_pip_line(site, apples):
    install_reader(site, requires=("no_such_module_a",), extra="mine[a]")
    found = status("mine")
    assert (found.state, found.install) == ("missing", "pip install 'mine[a]'")
    with pytest.raises(MissingPackageError, match=r"reader 'mine' .* needs no_such_module_a.*pip install 'mine\[a\]'"):
        read_scan(apples, dialect="mine")
    with pytest.raises(DataError, match=r"no scan in any known dialect.*pip install 'mine\[a\]'"):
        read_scan(apples)


def test_an_unknown_dialect_lists_what_is_installed(site, scan):
    install_reader(site)
    with pytest.raises(
        ConfigError, match=r"dialect = 'minne'; allowed: cxi, .*hdf5, .*mine, .*npz, .*tike.*Did you mean 'mine'"
    ):
        read_scan(scan, dialect="minne")


def test_the_command_lists_them_in_the_order_they_are_asked(site, capsys):
    install_reader(site, priority=30)
    install_reader(site, "torn", plugin="1 / 0")
    assert main(["readers"]) == 0
    out = capsys.readouterr().out
    assert out.index("\nmine") < out.index("\ncxi") < out.index("\nnpz")
    assert "torn is broken: reader 'torn' (dist-torn 1.5, torn_plugin)" in out
    assert main(["readers", "--json"]) == 0
    listed = {reader["name"]: reader for reader in json.loads(capsys.readouterr().out)["readers"]}
    assert (listed["mine"]["distribution"], listed["mine"]["kind"], listed["mine"]["priority"]) == (
        "dist-mine 1.5",
        "npz",
        30,
    )
    assert listed["torn"]["state"] == "broken"
