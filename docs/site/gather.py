"""Gather the pages of the documentation site in one folder: guides, specs, notebooks, help of commands, public names.

``python docs/site/gather.py FOLDER [NOTEBOOKS]`` writes them to ``FOLDER/pages``, and ``FOLDER/mkdocs.yml``, which is
that of the repository with every page in its navigation. What comes out is plain Markdown with pictures, for whatever
builds a site of it. Notebooks of the repository hold no outputs; those of a folder that is named are taken in their
place. A file reads the same in a clone and where the repository is shown, so its links are made to fit here: a link to
a file that has no page is written as its name, since there is no address to lead to, and one that leads nowhere ends
the job.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parent))  # which Python leaves out where PYTHONSAFEPATH is set

from command_reference import pages_of_commands
from notebook import markdown_of_notebook
from python_reference import pages_of_python

ROOT = Path(__file__).resolve().parents[2]

PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    "RELEASING.md": "releasing.md",
    "SECURITY.md": "security.md",
    "docs/decisions/README.md": "decisions/index.md",
}
"""Files of the repository whose place on the site is not their own path (``docs/`` left out)."""

TAKEN = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "RELEASING.md",
    "docs/*.md",
    "docs/decisions/*.md",
    "examples/*.ipynb",
    "integrations/*/README.md",
    "specs/*.md",
)
"""Files that are pages."""

LAST_FOUND = ("changelog.md", "decisions/", "specs/")
"""Pages that a search lists after the guides."""

COPIED = ("docs/images", "docs/site/site.css")
"""Files that pages show."""

_FENCE = re.compile(r"^(?P<fence>`{3,}).*?^(?P=fence)[ \t]*$", re.MULTILINE | re.DOTALL)
_HEAD = re.compile(r"^(?P<fence>`{3,})(?P<language>\S*)(?P<tags>[^\n]*)")
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")
_PICTURE = re.compile(r'(<img [^>]*?src=")([^":]+)"')
_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)


class BrokenLinkError(Exception):
    """A page names a file that is not there."""


def address(path: str) -> str:
    """Where a file of the repository, or a folder of pages, is on the site."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith("integrations/"):
        return f"{path.removesuffix('/README.md')}.md"
    path = path.removeprefix("docs/").replace(".ipynb", ".md")
    return path if posixpath.splitext(path)[1] else f"{path}/index.md"


def fitted(markdown: str, home: str, at: str, known: set[str]) -> str:
    """Make the links of a file fit its place on the site.

    Args:
        markdown: the text.
        home: the file of the repository that it stands in.
        at: the page that it becomes.
        known: all pages and pictures.

    Raises:
        BrokenLinkError: a link leads to no file.
    """

    def place(target: str) -> str | None:
        """Where a target is, from the page; None where it has none. It is a path from the file."""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(home), target))
        if not (ROOT / path).exists():
            raise BrokenLinkError(f"{home}: {target} leads nowhere")
        return posixpath.relpath(address(path), posixpath.dirname(at) or ".") if address(path) in known else None

    def link(match: re.Match[str]) -> str:
        target, text = match["target"], match["text"]
        if re.match(r"[a-z]+:", target):
            return match[0]
        there = place(target)
        if there is not None:
            return f"{match['image']}[{text}]({there}{match['anchor'] or ''})"
        name = target.removeprefix("../").rstrip("/")
        return f"`{name}`" if text.strip("`/") == name else f"{text} (`{name}`)"

    def picture(match: re.Match[str]) -> str:
        return f'{match[1]}{place(match[2])}"'

    parts, end = [], 0
    for code in _FENCE.finditer(markdown):
        parts += [_PICTURE.sub(picture, _LINK.sub(link, markdown[end : code.start()])), _HEAD.sub(_titled, code[0], 1)]
        end = code.end()
    return "".join([*parts, _PICTURE.sub(picture, _LINK.sub(link, markdown[end:]))])


def _titled(head: re.Match[str]) -> str:
    """The first line of a block of code, with the name of its file where our tests would find it."""
    name = next((tag.partition("=")[2] for tag in head["tags"].split() if "=" in tag), None)
    return f'{head["fence"]}{head["language"]} title="{name}"' if name else f"{head['fence']}{head['language']}"


def index_of(folder: str, texts: dict[str, str]) -> str:
    """A list of the pages of a folder by their titles."""
    titles = {at: _TITLE.search(text) for at, text in sorted(texts.items()) if posixpath.dirname(at) == folder}
    return "\n".join(f"- [{title[1]}]({posixpath.basename(at)})" for at, title in titles.items() if title)


def gathered(executed: Path | None = None) -> dict[str, str]:
    """All pages, by their place on the site.

    Args:
        executed: folder with the notebooks of ``examples`` as they are when they have run.

    Raises:
        BrokenLinkError: a link leads to no file.
    """
    homes = {path.relative_to(ROOT).as_posix(): path for pattern in TAKEN for path in sorted(ROOT.glob(pattern))}
    if executed is not None:
        homes |= {home: executed / path.name for home, path in homes.items() if path.suffix == ".ipynb"}
    texts = {home: path.read_text(encoding="utf-8") for home, path in homes.items()}
    texts = {home: markdown_of_notebook(text) if home.endswith(".ipynb") else text for home, text in texts.items()}
    pictures = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs" / "images").iterdir()}
    made = pages_of_commands() | pages_of_python(ROOT)
    known = {address(home) for home in texts} | set(made) | pictures | {"specs/index.md"}
    pages = {address(home): fitted(text, home, address(home), known) for home, text in texts.items()}
    first = "What must hold, sentence by sentence. Each MUST has an id, and a test that names it."
    for at in [at for at in pages if at.startswith(LAST_FOUND)]:
        pages[at] = f"---\nsearch:\n  boost: 0.001\n---\n{pages[at]}"
    pages["specs/index.md"] = f"# Specifications\n\n{first}\n\n{index_of('specs', pages)}\n"
    return pages | made


def navigation(entries: list[Any], pages: dict[str, str]) -> list[Any]:
    """The navigation of ``mkdocs.yml``: ``folder/`` stands for its index and pages, ``folder/*`` for the pages alone.

    Pages that are found so go by their titles.
    """
    out: list[Any] = []
    for entry in entries:
        if isinstance(entry, str):
            inside = [at for at in pages if posixpath.dirname(at) == entry.removesuffix("/*")]
            out += [{_TITLE.search(pages[at])[1]: at} for at in inside]  # type: ignore[index]
            continue
        ((title, leads),) = entry.items()
        if isinstance(leads, list):
            out.append({title: navigation(leads, pages)})
        elif leads.endswith("/"):
            inside = [at for at in pages if posixpath.dirname(at) == leads.rstrip("/")]
            names = [{_TITLE.search(pages[at])[1]: at} for at in inside if at != f"{leads}index.md"]  # type: ignore[index]
            out.append({title: [f"{leads}index.md", *names]})
        else:
            out.append(entry)
    return out


def _python_options(settings: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = next(
        plugin["mkdocstrings"]["handlers"]["python"]["options"]
        for plugin in settings["plugins"]
        if isinstance(plugin, dict) and "mkdocstrings" in plugin
    )
    return options


def main(folder: Path, executed: Path | None = None) -> None:
    """Write all pages, pictures and the settings of the site into a folder; pages that lie there are replaced."""
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = gathered(executed)
    shutil.rmtree(folder / "pages", ignore_errors=True)
    for at, text in pages.items():
        target = folder / "pages" / at
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    for name in COPIED:
        source, target = ROOT / name, folder / "pages" / name.removeprefix("docs/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    settings |= {"docs_dir": "pages", "site_dir": "site", "nav": navigation(settings["nav"], pages)}
    extensions = _python_options(settings)["extensions"]
    extensions[:] = [str(ROOT / path) for path in extensions]
    (folder / "mkdocs.yml").write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
