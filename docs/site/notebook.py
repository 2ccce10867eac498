"""Notebooks as pages: their text, their code, and the outputs that are stored in them."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["markdown_of_notebook"]


def _text(lines: str | list[str]) -> str:
    return lines if isinstance(lines, str) else "".join(lines)


def _output(output: dict[str, Any]) -> str:
    if output["output_type"] == "stream":
        return f"```text\n{_text(output['text']).rstrip()}\n```"
    data = output.get("data", {})
    if "image/png" in data:
        picture = _text(data["image/png"]).strip()
        return f'<img alt="Figure that the code above makes" src="data:image/png;base64,{picture}">'
    if "text/html" in data:
        return f'<div class="output">\n{_text(data["text/html"])}\n</div>'
    return f"```text\n{_text(data['text/plain']).rstrip()}\n```" if "text/plain" in data else ""


def markdown_of_notebook(text: str) -> str:
    """The page that shows a notebook.

    Args:
        text: the notebook, JSON of format 4.

    Returns:
        Markdown; pictures stand in it as data.
    """
    parts: list[str] = []
    for cell in json.loads(text)["cells"]:
        source = _text(cell["source"]).strip()
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code" and source:
            parts.append(f"```python\n{source}\n```")
            parts += [shown for output in cell.get("outputs", []) if (shown := _output(output))]
    return "\n\n".join(parts) + "\n"
