# mypy: allow-untyped-calls
"""Who may call the API: the Host header, the Origin header, and tokens."""

from __future__ import annotations

import base64
import binascii
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.web.iweb import IRequest

from chapps_tw.observe.log_limit import LogLimit
from chapps_tw.rest.routing import Refusal, Route
from chapps_tw.security.tokens import TokenError

FREE_FAILURES = 3
LONGEST_DELAY = 1.0
FORGET_AFTER = 60.0
MAX_PEERS = 1024
GUESSED = ("token", "passcode")


@dataclass
class _Peer:
    """Somebody who guesses one kind of thing.

    :ivar told: whether there was a line about it since the last round.
    """

    address: str
    what: str
    failures: int = 0
    unlogged: int = 0
    seen: float = 0.0
    told: bool = False


class Gate:
    """Lets a request in, or raises :class:`Refusal`.

    :param hosts: names accepted in the ``Host`` header, without port; IPv6 in brackets.
    :param scope_of: the scope of a token, ``read`` or ``full``, or ``None``; ``None`` in its place
        lets everybody in.
    :param reactor: times what is remembered of failures.
    :param sleep: returns after so many seconds.
    """

    def __init__(
        self,
        hosts: Iterable[str],
        scope_of: Callable[[str], str | None] | None,
        reactor: IReactorTime,
        sleep: Callable[[float], Awaitable[Any]],
    ) -> None:
        self._hosts = frozenset(host.lower() for host in hosts)
        self._scope_of = scope_of
        self._reactor = reactor
        self._sleep = sleep
        self._peers: OrderedDict[tuple[str, str], _Peer] = OrderedDict()
        self._log = Logger()
        self._complaints = {what: LogLimit(self._log.warn, reactor.seconds) for what in GUESSED}
        self._next_round: IDelayedCall | None = None
        self._stopped = False
        self._tokens_problem = ""

    def check_origin(self, request: IRequest) -> None:
        """Refuse names that are not ours: DNS rebinding, and pages of other sites.

        :raises Refusal: 403; 400 without a Host header or with several (RFC 9112, section 3.2).
        """
        hosts = header_values(request, "host")
        if len(hosts) != 1:
            raise Refusal(400, "There must be one Host header.")
        if _host(hosts[0]) not in self._hosts:
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
            self._note_problem(str(error))
            raise Refusal(503, "The API tokens cannot be read.") from None
        self._note_problem("")
        if scope is None:
            await self.punish(request, "token")
            raise _unauthorized("The token is none of ours.", route.browser, ', error="invalid_token"')
        if route.changes and scope != "full":
            raise Refusal(403, "The token is read-only.")

    def _note_problem(self, problem: str) -> None:
        """Log what is wrong with the tokens once, and that nothing is any more."""
        if problem and problem != self._tokens_problem:
            self._log.error("HTTP: {problem}", problem=problem)
        elif self._tokens_problem and not problem:
            self._log.info("HTTP: the API tokens can be read again")
        self._tokens_problem = problem

    async def punish(self, request: IRequest, what: str) -> None:
        """Keep somebody waiting who guesses, the longer the more often; say so in the log once in a while.

        :param what: one of :data:`GUESSED`.
        """
        address = str(getattr(request.getClientAddress(), "host", None) or "a unix socket")
        peer = self._peer(address, what)
        peer.failures += 1
        peer.unlogged += 1
        if not peer.told:
            self._complain(peer)
        if self._next_round is None and not self._stopped:
            self._next_round = self._reactor.callLater(FORGET_AFTER, self._round)
        over = peer.failures - FREE_FAILURES
        if over > 0:
            await self._sleep(min(LONGEST_DELAY, 0.05 * 2 ** min(over, 10)))

    def stop(self) -> None:
        """Log what has not been logged yet, and begin no more rounds."""
        self._stopped = True
        if self._next_round is not None:
            self._next_round.cancel()
            self._next_round = None
            self._round_once()

    def _round(self) -> None:
        """Log the rest of what somebody guessed since the last round, until there was nothing."""
        again = self._round_once()
        self._next_round = self._reactor.callLater(FORGET_AFTER, self._round) if again else None

    def _round_once(self) -> bool:
        for peer in self._peers.values():
            peer.told = peer.unlogged > 0
            if peer.told:
                self._complain(peer)
        return any(peer.told for peer in self._peers.values())

    def _complain(self, peer: _Peer) -> None:
        whats = peer.what if peer.unlogged == 1 else f"{peer.what}s"
        self._complaints[peer.what].warn(
            "HTTP: {count} wrong {what} from {peer}", count=peer.unlogged, what=whats, peer=peer.address
        )
        peer.told, peer.unlogged = True, 0

    def _peer(self, address: str, what: str) -> _Peer:
        now = self._reactor.seconds()
        peer = self._peers.setdefault((address, what), _Peer(address, what))
        self._peers.move_to_end((address, what))
        if len(self._peers) > MAX_PEERS:
            _, oldest = self._peers.popitem(last=False)
            if oldest.unlogged:
                self._complain(oldest)
        if now - peer.seen > FORGET_AFTER:
            peer.failures = 0
        peer.seen = now
        return peer


def header_values(request: IRequest, name: str) -> list[str]:
    """All values of a header, whatever bytes they are of."""
    return [value.decode("latin-1") for value in request.requestHeaders.getRawHeaders(name.encode("ascii"), [])]


# RFC 9110, section 7.2, and RFC 3986, section 3.2: a name or an address, and perhaps a port.
_HOST = re.compile(r"(\[[^]]*\]|[^:\[\]@/]*)(?::[0-9]*)?")


def _host(text: str) -> str:
    """A host without its port, lower case; empty for what is none."""
    match = _HOST.fullmatch(text.strip().lower())
    return match[1] if match else ""


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
