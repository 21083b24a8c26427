"""The documentation page, on which the API can be browsed and tried, and its assets."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files
from typing import Any

from chapps_tw.rest.answers import Said
from chapps_tw.rest.models import insight as m
from chapps_tw.rest.models.base import Nothing
from chapps_tw.rest.routing import Raw, Refusal, Reply, Route

HTML = "text/html; charset=utf-8"

_TYPES = {
    "docs.js": "text/javascript; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "favicon-32x32.png": "image/png",
}

# The style sheet of Swagger UI contains images as data: URLs.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer"}


class Docs:
    """The page and its assets."""

    def routes(self) -> Iterator[Route[Any]]:
        yield Route(
            "GET", "/", "Redirect to the documentation page", self.start, answer=Said, status=307, open=True,
            tag="documentation", note="Browsers, which ask for HTML, are sent to the page for people at `/ui/`.",
        )  # fmt: skip
        yield Route(
            "GET", "/docs", "This page", self.page, content_type=HTML, browser=True, tag="documentation"
        )  # fmt: skip
        yield Route(
            "GET", "/docs/{name}", "An asset of the page", self.part, m.Asset, errors=(404,), query=False, browser=True,
            hidden=True,
        )  # fmt: skip

    async def start(self, _: Nothing) -> Reply:
        return Reply("/docs", headers={"Location": "/docs"})

    async def page(self, _: Nothing) -> Raw:
        return Raw(_read("docs.html"), HTML, _HEADERS)

    async def part(self, which: m.Asset) -> Raw:
        if which.name not in _TYPES:
            raise Refusal(404, "There is no such page.")
        return Raw(_read(which.name), _TYPES[which.name], {"Cache-Control": "private, max-age=3600"})


@lru_cache(16)
def _read(name: str) -> bytes:
    return files("chapps_tw.rest").joinpath("assets", name).read_bytes()
