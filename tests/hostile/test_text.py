"""Names and words that act on terminals, pages, formulas and files; and terminals that cannot be written to."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptycho_core.api.run import run
from ptycho_core.cli.main import main
from ptycho_core.cli.session import Session
from ptycho_core.cli.tables import facts, json_text, table
from ptycho_core.config import RefinementConfig, TrainingConfig
from ptycho_core.data.raw import Geometry, RawData, Source
from ptycho_core.data.run import Run
from ptycho_core.errors import DataError, OutputError, PtychoError
from ptycho_core.io import read_scan, write_scan
from ptycho_core.io.reconstruction_file import plain_json, read_reconstruction, write_reconstruction
from ptycho_core.io.result_folder import default_folder
from ptycho_core.report import figures
from ptycho_core.report.html import render_report
from ptycho_core.report.write import run_summary
from ptycho_core.simulation import SimulationConfig, simulate_scan
from ptycho_core.text import json_escaped, one_line, plain_name, printable, shell_words, storable

pytestmark = pytest.mark.hostile

HOSTILE = {
    "clipboard": "\x1b]52;c;cm0gLXJm\x07",
    "title of the window": "\x1b]0;owned\x07",
    "cursor": "\x1b[2J\x1b[1;1Husable: scan.npz",
    "eight bit controls": "\x9b31mred\x9dtitle\x9c",
    "bell and backspace": "\a\b\b\bgone\r over it",
    "lines": "one\ntwo\x0bthree\x85four\u2028five\u2029six",
    "right to left": "cod\u202eexe.npz\u2066\u2069",
    "invisible": "a\u200bb\u200d\u2060\ufeff\u00ad\U000e0041",
    "not UTF-8": "sc\udcffan\udc80",
    "half a pair": "a\ud83dz",
    "null": "a\x00b",
    "nothing assigned": "a\u0378\ufdd0\ue000\U0010ffff",
    "formula": "$\\frac{x$ and $y_{$",
    "half a formula": "costs $5",
    "format": "%s %(x)d %n {} {0} {x!r} {",
    "page": "</title><script>alert(1)</script><img src=x onerror=alert(1)>&amp;\"'",
    "markup of rich": "[bold red]x[/] [link=file:///etc/passwd]y[/link]",
    "long": "x" * 10**6,
    "long and acting": "\x1b[31m\u202e" * 10**5,
    "shell": "'; rm -rf ~ #$(id)`id`",
    "combining": "a" + "\u0301" * 500,
    "empty": "",
    "spaces": " \t \u00a0\u3000 ",
}
ACTING = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
ANY_TEXT = st.text(st.characters(), max_size=60) | st.sampled_from(
    [text for text in HOSTILE.values() if len(text) < 999]
)
PATIENT = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def shows(text: str, keep: str = "\n\t") -> bool:
    """Whether no character of a text acts."""
    return all(c in keep or unicodedata.category(c) not in ACTING for c in text)


@pytest.fixture(params=HOSTILE)
def hostile(request: pytest.FixtureRequest) -> str:
    return HOSTILE[request.param]


# ---- the functions


@PATIENT
@given(ANY_TEXT)
@pytest.mark.spec("CMD-7")
def test_texts_only_show_and_are_found_again(text: str) -> None:
    assert shows(printable(text), keep="")
    assert printable(printable(text)) == printable(text)
    assert shows(one_line(text), keep="")
    assert "\n" not in one_line(text)
    document = json.dumps({text: [text]}, ensure_ascii=False)
    assert shows(json_escaped(document))
    assert json.loads(json_escaped(document)) == {text: [text]}
    assert shows(json.dumps(plain_json({text: text, "path": Path("a" + text)}), ensure_ascii=False))
    kept = storable({text: [text, (text, 1.5, None)]})
    json.dumps(kept, ensure_ascii=False).encode("utf-8")
    assert shows(json.dumps(kept, ensure_ascii=False))


@PATIENT
@given(ANY_TEXT, st.integers(1, 90))
@pytest.mark.spec("CMD-7")
def test_lengths_are_bounded(text: str, most: int) -> None:
    assert len(one_line(text * 50, most)) <= most + 60
    assert len(plain_name(text, most).encode("utf-8")) <= most
    assert shows(plain_name(text, most), keep="")


@pytest.mark.spec("CMD-9")
def test_a_shell_takes_words_as_they_were() -> None:
    """Asked of a shell, those that a file's name can have: no null, and bytes that are no UTF-8 as surrogates."""
    words = [text for text in HOSTILE.values() if "\x00" not in text and "\ud83d" not in text and len(text) < 10**5]
    line = shell_words(words)
    assert shows(line, keep="")
    shell = shutil.which("bash")
    if shell is None:
        pytest.skip("there is no bash")
    done = subprocess.run([shell, "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True)
    assert done.stdout.split(b"\0")[:-1] == [os.fsencode(word) for word in words]


# ---- errors and what is said


@pytest.mark.spec("CMD-7")
def test_an_error_is_one_line(hostile: str) -> None:
    for kind in (DataError, OutputError, PtychoError):
        text = str(kind(f"{hostile}: cannot be read"))
        assert shows(text, keep="")
        assert len(text) < 2100
        assert text.endswith("cannot be read")


@pytest.mark.spec("CMD-7")
def test_what_a_session_says_and_logs_only_shows(
    hostile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = Session()
    with session.active():
        session.configure(verbose=True, debug=True)
        session.command = ["run", hostile]
        session.open_log(tmp_path)
        session.say(hostile)
        session.say(table([("name", "value"), (hostile[:5000], "x")]))
        session.say(facts({"name": hostile[:5000]}))
        session.say(json_text({hostile[:5000]: hostile[:5000]}))
        session.detail(hostile)
        session.notice(hostile)
        session.error(hostile, f"Traceback\n  {hostile}")
    out, err = capsys.readouterr()
    log = (tmp_path / "ptycho.log").read_text(encoding="utf-8")
    for text in (out, err, log):
        assert shows(text)
    assert len(log) < 2_500_000
    notes = [line for line in err.splitlines() if line.startswith("note: ")]
    assert len(notes) <= 1


@pytest.mark.parametrize(
    "words",
    [
        ["inspect", "{}"],
        ["{}"],
        ["run", "{}", "--out", "out"],
        ["run", "scan.npz", "--{}", "3"],
        ["run", "scan.npz", "--epochs", "{}"],
        ["run", "scan.npz", "--probe", "{}"],
        ["run", "scan.npz", "--config", "{}"],
        ["run", "scan.npz", "--backend", "{}"],
        ["run", "scan.npz", "--positions", "{}"],
        ["run", "scan.npz", "--options.numpy.{}", "3"],
        ["convert", "scan.npz", "{}"],
        ["compare", "{}", "{}"],
        ["reconstruct", "--model", "{}", "scan.npz"],
        ["export", "{}", "--format", "tiff"],
        ["inspect", "scan.npz", "--frames", "{}"],
        ["inspect", "scan.npz", "--map", "{}"],
        ["conform", "{}"],
    ],
    ids=lambda words: " ".join(words),
)
@pytest.mark.spec("CMD-7")
def test_values_of_options_are_refused_in_one_line_that_only_shows(
    words: Sequence[str], scan_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(scan_file.parent)
    for name in ("clipboard", "lines", "not UTF-8", "right to left", "format", "null", "long and acting"):
        value = HOSTILE[name]
        code = main([word.replace("{}", value) for word in words])
        out, err = capsys.readouterr()
        assert code == 2, (name, err)
        assert shows(out)
        assert shows(err)
        # an inspection says what is wrong among its findings
        last = err.splitlines()[-1] if err else next(line for line in out.splitlines() if line.startswith("ERROR"))
        assert last.startswith(("ptycho: ", "ERROR "))
        assert len(last) < 2100
        assert "Traceback" not in err


# ---- what is kept


@pytest.fixture(scope="module")
def raw() -> RawData:
    config = SimulationConfig(object="dead_leaves", N=16, grid_shape=(5, 4), step_px=2.3, photons=1e5, seed=5)
    return simulate_scan(config).raw


@pytest.fixture
def scan_file(raw: RawData, tmp_path: Path) -> Path:
    write_scan(tmp_path / "scan.npz", raw)
    return tmp_path / "scan.npz"


@pytest.fixture(scope="module")
def finished(raw: RawData) -> Run:
    config = TrainingConfig(
        backend="numpy", method="solver", epochs=1, refinement=RefinementConfig(engine="numpy", epochs=1)
    )
    return run(raw, config)


def with_words(finished: Run, text: str) -> Run:
    """A run in which a text stands wherever somebody else's words can."""
    source = Source(
        path=f"/data/{text}.h5",
        dialect=text,
        assumptions=(text, "a"),
        warnings=(text,),
        details={text: {text: [text]}, "orientation": {"trials": [{text: text}]}},
    )
    scan = replace(finished.scan, raw=replace(finished.scan.raw, source=source))
    stages = tuple(replace(s, scored=replace(s.scored, scan=scan)) for s in finished.stages)
    return replace(
        finished,
        title=text,
        scan=scan,
        stages=stages,
        warnings=(text,),
        provenance={**finished.provenance, "command": ["run", text], text: text},
    )


class _Page(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=ANY_TEXT)
@pytest.mark.spec("CMD-7")
def test_a_result_can_be_written_whatever_its_words_are(finished: Run, tmp_path: Path, text: str) -> None:
    check_result(with_words(finished, text), finished, tmp_path)


@pytest.mark.spec("CMD-7")
def test_a_result_can_be_written_with_hostile_words(finished: Run, tmp_path: Path, hostile: str) -> None:
    check_result(with_words(finished, hostile), finished, tmp_path)


def check_result(done: Run, plain: Run, folder: Path) -> None:
    """Image, summary and page of a run are written, read back, and only show."""
    write_reconstruction(folder / "r.h5", done)
    stored = read_reconstruction(folder / "r.h5")
    np.testing.assert_array_equal(stored.object, done.image.object)
    with h5py.File(folder / "r.h5") as file:
        texts = [value.decode("utf-8") for value in _texts(file)]
    assert len(texts) > 10
    assert all(shows(text) for text in texts)
    summary = json.dumps(run_summary(done), ensure_ascii=False, allow_nan=False)
    assert shows(summary)
    summary.encode("utf-8")
    view = figures.object_view(done.image.object, done.image.coverage)
    pages = [render_report(some, _blank(), view) for some in (done, plain)]
    assert shows(pages[0])
    pages[0].encode("utf-8")
    tags = []
    for page in pages:
        parser = _Page()
        parser.feed(page)
        tags.append(set(parser.tags))
        assert parser.tags.count("script") == 1  # the page's own
    assert tags[0] <= tags[1] | {"aside", "strong", "ul", "li", "p", "span", "wbr"}


def _blank() -> Any:
    """Any picture that is asked for, of a pixel."""

    class Pictures(dict[str, bytes]):
        def __missing__(self, name: str) -> bytes:
            return b"\x89PNG\r\n\x1a\n" + bytes(20)

    return Pictures()


def _texts(file: h5py.File) -> list[bytes]:
    found: list[bytes] = []

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        found.append(name.encode("utf-8", "surrogateescape"))
        if isinstance(item, h5py.Dataset) and h5py.check_string_dtype(item.dtype) and item.shape == ():
            found.append(item[()])
        for value in item.attrs.values():
            found.extend([value.encode("utf-8", "surrogateescape")] if isinstance(value, str) else [])

    file.visititems(visit)
    return found


@pytest.mark.spec("CMD-7")
def test_pictures_are_drawn_letter_by_letter(hostile: str) -> None:
    """What stands between two dollar signs is no formula, and one that is none fails no picture."""
    figure = figures.new_figure(3, 1)
    axes = figures.place(figure, 0.2, 0.2, 2.5, 0.5)
    figures.title(axes, hostile)
    assert figures.png_bytes(figure).startswith(b"\x89PNG")
    drawn = axes.get_title(loc="left")
    assert shows(drawn, keep="")
    assert drawn.count("$") == drawn.count(r"\$")


@pytest.mark.spec("CMD-7")
def test_names_of_ours_that_are_made_of_others(hostile: str) -> None:
    name = default_folder(f"/data/{hostile.replace('/', '')}.npz")
    assert shows(name, keep="")
    assert len(os.fsencode(name)) < 240
    assert name.endswith("-ptycho")
    assert name != "-ptycho"


@pytest.mark.parametrize("name", ["a.npz", "a.h5", "a.cxi"])
@pytest.mark.spec("CMD-7")
def test_words_of_a_scan_come_through_its_file(raw: RawData, tmp_path: Path, name: str) -> None:
    for number, text in enumerate(HOSTILE.values()):
        source = Source(path=f"/data/{text}.h5", assumptions=(text,), warnings=(text,), details={text: text})
        path = tmp_path / f"{number}{name}"
        geometry = Geometry(energy_eV=8800, distance_m=2.0, detector_pixel_size_m=172e-6)
        write_scan(path, replace(raw, source=source, geometry=geometry))
        again = read_scan(path)
        assert all(shows(found, keep="") for found in (*again.source.assumptions, *again.source.warnings))
        assert shows(json.dumps(again.source.details, ensure_ascii=False))


# ---- numbers beyond sense


@pytest.mark.parametrize("figure", ["energy_eV", "distance_m", "detector_pixel_size_m", "pixel_size_m"])
@pytest.mark.spec("DATA-46")
def test_figures_of_an_instrument_beyond_sense_are_refused(raw: RawData, scan_file: Path, figure: str) -> None:
    """From a file, from an option and from a program; a bar of scale never meets them."""
    with np.load(scan_file) as file:
        stored = dict(file)
    counts, positions = raw.read_counts(np.arange(raw.n_frames)), raw.positions_px
    for value in (1e308, 1e30, 1e-30, 1e-300, 5e-324):
        with pytest.raises(DataError, match=figure):
            RawData.from_arrays(counts, positions, raw.probe, geometry=Geometry(**{figure: value}))
        with pytest.raises(DataError, match=figure):
            read_scan(scan_file, **{figure: value})
        np.savez(scan_file.with_name("far.npz"), **{**stored, figure: np.float64(value)})
        with pytest.raises(DataError, match=figure):
            read_scan(scan_file.with_name("far.npz"))
        length, label = figures.scale_bar(37.0, value)
        assert 0 < length < 37
        assert label


# ---- the command, in processes of its own

COMMAND = [sys.executable, "-m", "ptycho_core.cli"]
NAME = b"sc\xff \x1b]52;c;eA==\x07$x$ %s {} <b>\xe2\x80\xae.npz"


def ptycho(
    folder: Path, *words: str | bytes, into: str = "", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run the command, its streams redirected as a shell does it."""
    given = {
        name: value for name, value in os.environ.items() if not name.startswith(("LC_", "PYTHONIO", "PYTHONUTF8"))
    }
    given |= {"OMP_NUM_THREADS": "1", **(environment or {})}
    shell = ["bash", "-c", f'set -o pipefail; "$@" {into}', "bash"]
    arguments = [os.fsencode(word) for word in (*shell, *COMMAND, *words)]
    return subprocess.run(arguments, cwd=folder, env=given, capture_output=True, check=False, timeout=300)


def check_streams(done: subprocess.CompletedProcess[bytes], encoding: str = "utf-8") -> None:
    for stream in (done.stdout, done.stderr):
        text = stream.decode(encoding)
        assert shows(text)
        assert "Traceback" not in text
        assert "Exception ignored" not in text


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.spec("CMD-7", "CMD-9")
def test_a_file_whose_name_is_anything(scan_file: Path) -> None:
    """From the name to the image, the page and the line that goes on; the folder's name is made of it."""
    folder = scan_file.parent
    os.rename(os.fsencode(scan_file), os.fsencode(folder) + b"/" + NAME)
    done = ptycho(folder, "run", NAME, "--epochs", "1", "--refine", "none")
    assert done.returncode == 0, done.stderr
    check_streams(done)
    (made,) = (path for path in folder.iterdir() if path.is_dir())
    assert shows(made.name, keep="")
    summary = json.loads((made / "summary.json").read_text(encoding="utf-8"))
    page = (made / "report.html").read_text(encoding="utf-8")
    log = (made / "ptycho.log").read_text(encoding="utf-8")
    assert shows(json.dumps(summary, ensure_ascii=False))
    assert shows(page)
    assert shows(log)
    assert "<b>" not in page
    assert "\\x1b]52;c;eA==\\x07$x$" in summary["title"]
    assert "could not be" not in "".join(summary["warnings"])
    inspected = ptycho(folder, "inspect", NAME, "--json")
    assert inspected.returncode == 0
    assert json.loads(inspected.stdout)["usable"]
    exported = ptycho(folder, "export", made.name, "--format", "tiff")
    assert exported.returncode == 0
    check_streams(exported)


ENCODINGS = {
    "POSIX": ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "ascii"),
    "ASCII": ({"PYTHONIOENCODING": "ascii"}, "ascii"),
    "Latin-1": ({"PYTHONIOENCODING": "latin-1"}, "latin-1"),
}


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize("kind", ENCODINGS)
@pytest.mark.spec("CMD-8")
def test_terminals_that_lack_characters(scan_file: Path, kind: str) -> None:
    environment, encoding = ENCODINGS[kind]
    times = "x" if encoding == "ascii" else "×"
    words = ["run", "scan.npz", "--epochs", "1", "--refine", "none"] if kind == "POSIX" else ["orient", "scan.npz"]
    done = ptycho(scan_file.parent, *words, environment=environment)
    assert done.returncode == 0, done.stderr
    check_streams(done, encoding)
    assert f"frames of 16{times}16" in done.stdout.decode(encoding)
    for words in (["run", "--help"], ["run", "nothing–there.npz"]):
        done = ptycho(scan_file.parent, *words, environment=environment)
        assert done.returncode == (2 if "nothing–there.npz" in words else 0)
        check_streams(done, encoding)
    done = ptycho(scan_file.parent, "inspect", "scan.npz", "--json", environment=environment)
    assert json.loads(done.stdout.decode(encoding))["usable"]


REDIRECTED = {
    "no standard output": (">&-", 0),
    "no standard error": ("2>&-", 0),
    "neither": (">&- 2>&-", 0),
    "none of the three": ("<&- >&- 2>&-", 0),
    "a full disk": (">/dev/full", 2),
    "a full disk for errors": ("2>/dev/full", 0),
    "a reader that is gone": ("| true", 0),
    "a reader that has seen enough": ("| head -c 1", 0),
}


@pytest.mark.skipif(not os.path.exists("/dev/full") or shutil.which("bash") is None, reason="needs /dev/full and bash")
@pytest.mark.parametrize("kind", REDIRECTED)
@pytest.mark.spec("CMD-8")
def test_streams_that_cannot_be_written(scan_file: Path, kind: str) -> None:
    into, code = REDIRECTED[kind]
    folder = scan_file.parent
    done = ptycho(folder, "run", "scan.npz", "--epochs", "1", "--refine", "none", "--out", "r", into=into)
    check_streams(done)
    assert done.returncode == code, done.stderr
    assert json.loads((folder / "r" / "summary.json").read_text())["format"] == "ptycho-result"
    assert read_reconstruction(folder / "r" / "reconstruction.h5").object.size
    for words in (["run", "--help"], ["--version"]):
        done = ptycho(folder, *words, into=into)
        check_streams(done)
        assert done.returncode == code, words
    assert ptycho(folder, "nonsense", into=into).returncode == 2


@pytest.mark.spec("CMD-8")
def test_a_stream_of_a_program_may_be_of_any_kind(monkeypatch: pytest.MonkeyPatch, scan_file: Path) -> None:
    """``main`` is called by programs, whose streams are theirs: they are as they were afterwards."""
    for encoding in ("ascii", "latin-1", "utf-8"):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["inspect", str(scan_file)]) == 0
        assert stream.errors == "strict"
        assert b"usable" in stream.buffer.getvalue()  # type: ignore[attr-defined]
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["inspect", str(scan_file)]) == 0
    assert main(["nonsense"]) == 2
