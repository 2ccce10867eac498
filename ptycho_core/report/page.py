"""The shell of every page that is written: images inside it, nothing fetched, readable on paper, light or dark.

One small script tells values and enlarges pictures. A policy in the page lets a browser run that script by its hash and
no other, so a page that somebody mails runs nothing but what this package wrote. All is there with scripts off.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from importlib import resources

from ..text import html_text as escape

__all__ = ["page", "written_now"]


def _beside(name: str) -> str:
    """A file that lies beside this module and is written into every page."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def written_now() -> str:
    """The present time for a page."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def page(title: str, subtitle: str, content: str, footer: str) -> str:
    """A whole page.

    Args:
        title: text of the heading.
        subtitle: text below it.
        content: HTML, with what comes from files escaped already.
        footer: text at the end.
    """
    script = _beside("script.js")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # tells a browser to hold the page to its promise: nothing is fetched, and one script alone is run
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        f"style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'\">"
        f"<title>{escape(title)}</title><style>{_beside('style.css')}</style></head><body><main>"
        f'<h1>{escape(title)}</h1><p class="soft">{escape(subtitle)}</p>'
        f"{content}<footer>{escape(footer)}</footer></main><script>{script}</script></body></html>\n"
    )
