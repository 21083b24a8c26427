"""Calls of routes from within the process: with the checks, the handlers and the audit records of the HTTP API."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from chapps_tw.rest.auth import check_scope
from chapps_tw.rest.author import AUTHOR
from chapps_tw.rest.reading import validated
from chapps_tw.rest.refusals import refusal_of
from chapps_tw.rest.routing import Raw, Reply, Route
from chapps_tw.security.tokens import Scope, Token

T = TypeVar("T")


def to_the_end(work: Coroutine[Any, Any, T], unreported: Callable[[Failure], None]) -> Deferred[T]:
    """Run a coroutine to its end, even if the returned Deferred is cancelled.

    A client that disconnects must not leave a change half done: committed, but not in effect.

    :param unreported: called with a failure after that.
    """
    waiting: Deferred[T] = Deferred()

    def ended(outcome: T | Failure) -> None:
        if not waiting.called:
            waiting.callback(outcome)
        elif isinstance(outcome, Failure):
            unreported(outcome)

    Deferred.fromCoroutine(work).addBoth(ended)
    return waiting


class Calls:
    """Calls routes by method and path."""

    log = Logger()

    def __init__(self, routes: Iterable[Route[Any]]) -> None:
        self.use(routes)

    def use(self, routes: Iterable[Route[Any]]) -> None:
        """Replace all routes by others with the same methods and paths."""
        self._routes = {(route.method, route.path): route for route in routes}

    def __getitem__(self, place: tuple[str, str]) -> Route[Any]:
        """Return the route with a method and a path."""
        return self._routes[place]

    def scope(self, method: str, path: str) -> Scope:
        """Return the scope that a route needs."""
        return self._routes[method, path].scope

    async def call(self, holder: Token | None, method: str, path: str, values: dict[str, Any]) -> Reply:
        """Return the answer of a route that is not raw.

        :param holder: the token that it is called with; ``None`` if none is needed.
        :param values: the fields of its input, converted.
        :raises Refusal: as over HTTP.
        """
        route = self._routes[method, path]
        if holder is not None:
            check_scope(holder, route.scope)
        AUTHOR.set(holder.name if holder else "")
        handled = route.handler(validated(route.input, values))
        reply: Reply | Raw = await (to_the_end(handled, self._log_unreported) if route.changes else handled)
        assert isinstance(reply, Reply)
        return reply

    def _log_unreported(self, failure: Failure) -> None:
        if refusal_of(failure.value) is None:
            self.log.failure("HTTP: a change failed after its client had disconnected", failure)
        else:
            self.log.warn("HTTP: a change failed after its client had disconnected: {why}", why=str(failure.value))
