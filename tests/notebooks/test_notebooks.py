"""The notebooks in examples/ run from top to bottom, and a real kernel shows, interrupts and keeps what it should."""

from __future__ import annotations

import json
import os
import re
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

pytestmark = pytest.mark.notebooks

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
BOOKS = sorted(EXAMPLES.glob("*.ipynb"))
LONGEST_CELL_S = 180


def test_there_is_one_for_each_thing_that_a_newcomer_wants() -> None:
    assert [path.stem for path in BOOKS] == [
        "1-first-image",
        "2-bring-your-data",
        "3-compare-engines",
        "4-refine-positions-and-modes",
        "5-write-an-engine",
    ]


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs_and_without_anybodys_paths(path: Path) -> None:
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    assert path.stat().st_size < 20_000
    for cell in book.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
        assert not re.search(r"/home/|/tmp/|/root/|/work/|C:\\", cell.source)
    told = [target for cell in book.cells for target in re.findall(r"\]\(([^)#:]+)\)", cell.source)]
    for target in told:
        assert (path.parent / target).exists(), target


@pytest.mark.spec("NOTE-7")
@pytest.mark.slow
@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_to_its_end(path: Path, tmp_path: Path) -> None:
    book = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    # cells with "!ptycho" find the command that belongs to this Python
    path_of_commands = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    client = NotebookClient(book, timeout=LONGEST_CELL_S, kernel_name="python3", resources=resources)
    client.execute(env=os.environ | {"PATH": path_of_commands})
    shown = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in shown if output.output_type == "error"]
    pages = [output.data["text/html"] for output in shown if "text/html" in output.get("data", {})]
    figures = [output for output in shown if "image/png" in output.get("data", {})]
    assert any("<strong>Scan<" in page or "<strong>Image<" in page for page in pages), "no card"
    assert any(" s</" in page or page.rstrip().endswith(" s") for page in pages), "a finished bar is one line"
    assert not any("<progress" in page for page in pages), "a bar is left in the notebook"
    assert not any("not shown:" in page for page in pages)
    if path.stem[0] in "124":
        assert any("xplained to" in page for page in pages), "no verdict is shown"
    assert figures
    printed = "".join(output.text for output in shown if output.output_type == "stream")
    if path.stem[0] in "235":
        words = {"2": "# Draft of a mapping", "3": "numpy", "5": "conform"}
        assert words[path.stem[0]] in printed
        assert "command not found" not in printed
    text = json.dumps(shown)
    assert str(tmp_path) not in text, "somebody's folder is in the outputs"
    assert str(EXAMPLES.parent) not in text


class Kernel:
    """A kernel of Jupyter, as a notebook has it."""

    def __init__(self, folder: Path) -> None:
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(cwd=str(folder), extra_arguments=[])
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def outputs(self, wanted: str, limit_s: float = 120) -> Iterator[dict[str, Any]]:
        """Messages of a cell until it is over."""
        until = time.monotonic() + limit_s
        while time.monotonic() < until:
            message = self.client.get_iopub_msg(timeout=limit_s)
            if message["parent_header"].get("msg_id") != wanted:
                continue
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return
            yield message
        raise AssertionError("the cell did not end")

    def run(self, source: str) -> list[dict[str, Any]]:
        """What a cell gives out."""
        return list(self.outputs(self.client.execute(source)))

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    made = Kernel(tmp_path)
    yield made
    made.close()


def text_of(messages: list[dict[str, Any]]) -> str:
    parts = []
    for message in messages:
        content = message["content"]
        parts.append(content.get("text", "") or content.get("data", {}).get("text/plain", ""))
        parts += content.get("traceback", [])
    return "\n".join(parts)


LONG = """
from ptycho_core import *
scan = simulate(SimulationConfig(N=32, grid_shape=(8, 9), photons=1e5, seed=2)).raw
"""


@pytest.mark.slow
@pytest.mark.spec("NOTE-5")
def test_a_stopped_cell_leaves_a_checkpoint_and_an_image_to_go_on_with(kernel: Kernel, tmp_path: Path) -> None:
    kernel.run(LONG)
    job = "result = run(scan, TrainingConfig(epochs=100000, refinement=RefinementConfig(engine='none')), out='here')"
    cell = kernel.client.execute(job)
    messages, pressed = [], False
    for message in kernel.outputs(cell):
        messages.append(message)
        data = message["content"].get("data", {})
        if not pressed and "<progress" in data.get("text/html", ""):  # a step has been made
            pressed = True
            kernel.manager.interrupt_kernel()
    assert pressed
    said = text_of(messages)
    assert "Traceback" not in said
    assert "training was stopped (interrupted while training, after " in said
    assert "resume_from" in said
    after = text_of(kernel.run("print(result); print(result.plot('object').axes != [], result._repr_html_()[:4])"))
    assert "Run('reconstruction', numpy, solver, object" in after
    assert "True <div" in after
    assert (tmp_path / "here" / "training" / "solver_checkpoint.safetensors").is_file()
    assert not (tmp_path / "here" / "summary.json").exists()
    # and it is as good as any run: it can be saved, and taken up
    saved = text_of(kernel.run("print(load_run(result.save('kept').folder).image.object.shape)"))
    assert re.search(r"\(\d+, \d+\)", saved)


def test_the_second_press_is_pythons_own(kernel: Kernel) -> None:
    kernel.run(LONG)
    # frames that take long to read stand for a step that does not end
    kernel.run(
        "import dataclasses, time\n"
        "class Slow:\n    shape = scan.frames.shape\n"
        "    def read(self, n):\n        print('reading'); time.sleep(30); return scan.frames.read(n)\n"
        "slow = dataclasses.replace(scan, frames=Slow())"
    )
    cell = kernel.client.execute("x = run(slow, TrainingConfig())")
    messages, presses = [], 0
    for message in kernel.outputs(cell):
        messages.append(message)
        if presses == 0 and "reading" in message["content"].get("text", ""):
            presses = 2
            kernel.manager.interrupt_kernel()
            time.sleep(1)
            kernel.manager.interrupt_kernel()
    assert "KeyboardInterrupt" in text_of(messages)


def test_a_figure_shows_itself_where_pyplot_was_never_imported(kernel: Kernel) -> None:
    kernel.run(LONG)
    (shown,) = [m for m in kernel.run("scan.plot('positions')") if m["msg_type"] == "execute_result"]
    assert shown["content"]["data"]["image/png"].startswith("iVBOR")
    assert shown["content"]["metadata"]["image/png"]["width"] > 300
    assert "False" in text_of(kernel.run("import sys; print('matplotlib.pyplot' in sys.modules)"))


def test_a_value_shows_as_a_card_and_in_a_console_as_one_line(kernel: Kernel) -> None:
    kernel.run(LONG)
    (shown,) = [m for m in kernel.run("scan") if m["msg_type"] == "execute_result"]
    assert shown["content"]["data"]["text/plain"].startswith("RawData(arrays, 72 frames of 32×32")
    assert "data:image/png;base64," in shown["content"]["data"]["text/html"]
    assert "<script" not in shown["content"]["data"]["text/html"]
