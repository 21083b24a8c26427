"""What the page loads: scripts and styles, all from here."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial
from importlib.resources import files

from chapps_tw.ui.views import Answer, Raw, View, Visit

_SCRIPT, _STYLE = "text/javascript; charset=utf-8", "text/css; charset=utf-8"
_TYPES = {
    "htmx.min.js": _SCRIPT,
    "uPlot.iife.min.js": _SCRIPT,
    "uPlot.min.css": _STYLE,
    "page.js": _SCRIPT,
    "now.js": _SCRIPT,
    "page.css": _STYLE,
    "icon.svg": "image/svg+xml",
}
# Their addresses have the version of the service.
_CACHED = {"Cache-Control": "private, max-age=86400"}


def views() -> Iterator[View]:
    """Return the views of all assets."""
    for name in _TYPES:
        yield View("GET", f"/ui/assets/{name}", partial(_show, name), open=True)


async def _show(name: str, _: Visit) -> Answer:
    return Raw(_read(name), _TYPES[name], _CACHED)


@lru_cache(16)
def _read(name: str) -> bytes:
    return files("chapps_tw.ui").joinpath("assets", name).read_bytes()
