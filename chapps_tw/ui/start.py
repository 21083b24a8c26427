"""The start of the page."""

from __future__ import annotations

from collections.abc import Iterator

from chapps_tw.ui.views import Answer, Html, View, Visit


class Start:
    """The view at ``/ui/``."""

    def views(self) -> Iterator[View]:
        yield View("GET", "/ui", self.show)

    async def show(self, visit: Visit) -> Answer:
        return Html("search.html", {"text": "", "found": []})
