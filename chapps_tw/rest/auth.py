# mypy: allow-untyped-calls
"""Who may call the API: the Host header, the Origin header, and tokens."""

from __future__ import annotations

import base64
import binascii
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from twisted.logger import Logger
from twisted.web.iweb import IRequest

from chapps_tw.rest.routing import Refusal, Route
from chapps_tw.tokens import TokenError

FREE_FAILURES = 3
LONGEST_DELAY = 1.0
FORGET_AFTER = 60.0
MAX_PEERS = 1024


@dataclass
class _Peer:
    failures: int = 0
    unlogged: int = 0
    seen: float = 0.0
    logged: float = float("-inf")


class Gate:
    """Lets a request in, or raises :class:`Refusal`.

    :param hosts: names accepted in the ``Host`` header, without port; IPv6 in brackets.
    :param scope_of: the scope of a token, ``read`` or ``full``, or ``None``; ``None`` in its place
        lets everybody in.
    :param seconds: a clock for what is remembered of failures.
    :param sleep: returns after so many seconds.
    """

    def __init__(
        self,
        hosts: Iterable[str],
        scope_of: Callable[[str], str | None] | None,
        seconds: Callable[[], float],
        sleep: Callable[[float], Awaitable[Any]],
    ) -> None:
        self._hosts = frozenset(host.lower() for host in hosts)
        self._scope_of = scope_of
        self._seconds = seconds
        self._sleep = sleep
        self._peers: OrderedDict[str, _Peer] = OrderedDict()
        self._log = Logger()

    def check_origin(self, request: IRequest) -> None:
        """Refuse names that are not ours: DNS rebinding, and pages of other sites.

        :raises Refusal: 403.
        """
        hosts = header_values(request, "host")
        if len(hosts) != 1 or _host(hosts[0]) not in self._hosts:
            raise Refusal(403, "The Host header is none of [API] hosts.")
        for origin in header_values(request, "origin"):
            if _host(origin.partition("://")[2]) not in self._hosts:
                raise Refusal(403, "The Origin header is none of [API] hosts.")

    async def check_token(self, request: IRequest, route: Route[Any]) -> None:
        """Refuse those without a token, or with one that is not enough.

        :raises Refusal: 401 or 403; 503 when the tokens cannot be read.
        """
        if self._scope_of is None or route.open:
            return
        token = _token(request, route.browser)
        if token is None:
            raise _unauthorized("A token is needed: Authorization: Bearer TOKEN.", route.browser)
        try:
            scope = self._scope_of(token)
        except TokenError as error:
            self._log.error("HTTP: {error}", error=error)
            raise Refusal(503, "The API tokens cannot be read.") from None
        if scope is None:
            await self.punish(request, "token")
            raise _unauthorized("The token is none of ours.", route.browser, ', error="invalid_token"')
        if route.changes and scope != "full":
            raise Refusal(403, "The token is read-only.")

    async def punish(self, request: IRequest, what: str) -> None:
        """Keep somebody waiting who guesses, the longer the more often; say so in the log once in a while."""
        now = self._seconds()
        address = str(getattr(request.getClientAddress(), "host", None) or "a unix socket")
        peer = self._peer(address, now)
        peer.failures += 1
        peer.unlogged += 1
        if now - peer.logged >= FORGET_AFTER:
            self._log.warn("HTTP: {count} wrong {what}s from {peer}", count=peer.unlogged, what=what, peer=address)
            peer.logged, peer.unlogged = now, 0
        over = peer.failures - FREE_FAILURES
        if over > 0:
            await self._sleep(min(LONGEST_DELAY, 0.05 * 2 ** min(over, 10)))

    def _peer(self, address: str, now: float) -> _Peer:
        peer = self._peers.setdefault(address, _Peer())
        self._peers.move_to_end(address)
        if len(self._peers) > MAX_PEERS:
            self._peers.popitem(last=False)
        if now - peer.seen > FORGET_AFTER:
            peer.failures = 0
        peer.seen = now
        return peer


def header_values(request: IRequest, name: str) -> list[str]:
    """All values of a header, whatever bytes they are of."""
    return [value.decode("latin-1") for value in request.requestHeaders.getRawHeaders(name.encode("ascii"), [])]


def _host(text: str) -> str:
    """A host without its port, lower case."""
    text = text.strip().lower()
    if text.startswith("["):
        return text.partition("]")[0] + "]"
    return text.partition(":")[0]


def _token(request: IRequest, browser: bool) -> str | None:
    values = header_values(request, "authorization")
    if len(values) != 1:
        return None
    scheme, _, rest = values[0].strip().partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    # Browsers send Basic by themselves, for other sites' pages too: only where nothing comes of it.
    if scheme.lower() == "basic" and browser:
        try:
            return base64.b64decode(rest, validate=True).decode("utf-8").partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return None


def _unauthorized(sentence: str, browser: bool, error: str = "") -> Refusal:
    challenges = [f'Bearer realm="chapps"{error}']
    if browser:
        challenges.append('Basic realm="chapps: leave the name empty, the token is the password", charset="UTF-8"')
    return Refusal(401, sentence, {"WWW-Authenticate": challenges})
