"""Hooks of mkdocs: fill in the generated parts of the reference, and put the sections in order."""

from __future__ import annotations

import re
from typing import Any

from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page

from tools import reference

# A line <!-- settings --> is replaced by what the function returns.
_GENERATED = {
    "settings": reference.settings,
    "http-api": reference.http_api,
    "commands": reference.commands,
    "reasons": reference.reasons,
    "metrics": reference.metrics,
}

# Titles of the sections are made of the names of their directories.
_ORDER = ("index.md", "tutorial.md", "How to", "Reference", "Explanation")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in what is generated."""
    return re.sub(r"(?m)^<!-- ([a-z-]+) -->$", lambda found: _GENERATED[found[1]](), markdown)


def on_nav(nav: Navigation, **_: Any) -> Navigation:
    """Order the sections; the pages of each are those of its directory, by file name."""
    nav.items.sort(key=lambda item: _ORDER.index(item.file.src_uri if isinstance(item, Page) else str(item.title)))
    return nav
