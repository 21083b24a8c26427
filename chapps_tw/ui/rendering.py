"""Rendering: templates, and how times, amounts and names look."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from chapps_tw.mail.decision import in_words
from chapps_tw.policies.quota_answers import in_units
from chapps_tw.rest.slices import Slices
from chapps_tw.ui.views import url

if TYPE_CHECKING:
    from jinja2 import Environment

PAGES = (
    ("/ui/", "Now"),
    ("/ui/try", "Try"),
    ("/ui/users", "Users"),
    ("/ui/domains", "Domains"),
    ("/ui/emails", "Addresses"),
    ("/ui/quotas", "Plans"),
    ("/ui/history", "History"),
    ("/ui/events", "Events"),
    ("/ui/audit", "Audit"),
)
_AGO = (("day", 86400), ("hour", 3600), ("minute", 60))


class Renderer:
    """Renders templates. What comes from outside is escaped, always.

    :param now: epoch seconds.
    :param version: of the service; assets are fetched again when it changes.
    :param slices: for long pages.
    """

    def __init__(self, now: Callable[[], float], version: str, slices: Slices) -> None:
        self._now = now
        self._slices = slices
        self._version = version

    @cached_property
    def _jinja(self) -> Environment:
        # Imported in a thread, at a time when nobody waits for it.
        from jinja2 import Environment, PackageLoader, StrictUndefined

        jinja = Environment(
            loader=PackageLoader("chapps_tw.ui"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        jinja.globals |= {"url": url, "version": self._version, "pages": PAGES}
        jinja.filters |= {"when": self.when, "ago": self.ago, "name": name, "number": number, "window": in_units}
        return jinja

    def load(self) -> None:
        """Compile all templates. Takes longer than the reactor may be held."""
        for template in self._jinja.list_templates(extensions=["html"]):
            self._jinja.get_template(template)

    async def render(self, template: str, values: Mapping[str, Any]) -> str:
        """Render a template, in slices."""
        parts = self._jinja.get_template(template).generate(values)
        return "".join(await self._slices.collect(parts))

    def render_small(self, template: str, values: Mapping[str, Any]) -> str:
        """Render a template that takes little time."""
        return self._jinja.get_template(template).render(values)

    def when(self, seconds: float) -> Markup:
        """Return a time: of today without the date. The page shows it in the zone of the browser."""
        here, today = datetime.fromtimestamp(seconds).astimezone(), datetime.fromtimestamp(self._now())
        text = here.strftime("%H:%M" if here.date() == today.date() else "%Y-%m-%d %H:%M")
        stamp = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
        return Markup('<time datetime="{}" title="{}">{}</time>').format(stamp, here.strftime("%c %Z"), text)

    def ago(self, seconds: float) -> Markup:
        """Return how long ago a time is; in words, with the time itself beside it."""
        stamp = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
        return Markup('<time datetime="{}" data-ago>{}</time>').format(stamp, _since(self._now() - seconds))


def _since(seconds: float) -> str:
    if seconds < 5:
        return "just now"
    for unit, length in _AGO:
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}s ago"
    return f"{in_words(int(seconds))} ago"


def name(text: object) -> Markup:
    """Return a name from outside, isolated: its direction changes nothing beside it."""
    return Markup("<bdi>{}</bdi>").format("<>" if text == "" else text)


def number(amount: float | None) -> str:
    """Return a number with its thousands apart; a dash for ``None``."""
    if amount is None:
        return "-"
    return f"{amount:,.0f}".replace(",", "\u2009") if float(amount).is_integer() else f"{amount:,.1f}"
