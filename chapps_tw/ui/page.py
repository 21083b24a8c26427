"""The page with all its views."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from twisted.internet.interfaces import IReactorTime

from chapps_tw.config.settings import Settings
from chapps_tw.mail.decision import ReasonCode
from chapps_tw.observe.decision_rates import DecisionRates
from chapps_tw.rest.app import API
from chapps_tw.rest.slices import Slices
from chapps_tw.security.tokens import Token
from chapps_tw.ui import acting, assets
from chapps_tw.ui.box import Box
from chapps_tw.ui.cards import Cards
from chapps_tw.ui.decisions import Decisions
from chapps_tw.ui.exemptions import Exemptions
from chapps_tw.ui.feed import Feed, Find
from chapps_tw.ui.lists import Lists
from chapps_tw.ui.login import Login
from chapps_tw.ui.now import Now
from chapps_tw.ui.rendering import Renderer
from chapps_tw.ui.searches import Searches
from chapps_tw.ui.sentences import Teller
from chapps_tw.ui.sessions import Sessions
from chapps_tw.ui.site import Site, is_valid
from chapps_tw.ui.trying import Trying


class Page:
    """The page, which becomes a part of the API.

    :param find: searches the decision ring.
    :param rates: decisions of the last hour.
    :param has_token: returns whether a token is still valid.
    :param reasons: the reasons of decisions.
    :param now: epoch seconds.
    """

    def __init__(
        self,
        api: API,
        settings: Settings,
        *,
        find: Find,
        rates: DecisionRates,
        has_token: Callable[[Token], bool],
        reasons: Iterable[ReasonCode],
        now: Callable[[], float],
        reactor: IReactorTime,
        version: str,
        slices: Slices,
    ) -> None:
        self._reactor = reactor
        sessions = Sessions(reactor.seconds, has_token)
        renderer, teller = Renderer(now, version, slices), Teller(reasons)
        decisions = Decisions(teller)

        def told(record: Mapping[str, Any], may_act: bool) -> str:
            return renderer.render_small("told.html", {"told": teller.tell(record), "may_act": may_act})

        self._feed = Feed(find, told, partial(is_valid, sessions), slices, reactor)
        listeners = [each.name for each in settings.listeners]
        now_views = Now(rates, settings.node, teller, self._feed, now, reactor)
        views = [
            *Login(api.gate, sessions).views(),
            *now_views.views(),
            *Trying(teller, listeners).views(),
            *Searches(teller).views(),
            *Lists(slices).views(),
            *Box(decisions).views(),
            *Cards(decisions, Exemptions(slices)).views(),
            *acting.views(),
            *assets.views(),
        ]
        self._site = Site(views, sessions, api.gate, api.calls, renderer)
        api.add_page(self._site.resource)

    def start(self) -> None:
        """Prepare the templates, in a thread."""
        self._site.load(self._reactor)

    def stop(self) -> None:
        """End everything that goes on."""
        self._feed.stop()
