# mypy: allow-untyped-calls
"""Access control of the API: the Host header, the Origin header, and tokens."""

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

from chapps_tw.mail.network import client_address
from chapps_tw.observe.log_limit import LogLimit
from chapps_tw.rest.routing import Refusal, Route
from chapps_tw.security.tokens import Scope, Token, TokenError

# Failures per peer before answers are delayed; the maximum delay and the memory of failures, in seconds.
FREE_FAILURES = 3
MAX_DELAY = 1.0
FORGET_AFTER = 60.0
MAX_PEERS = 1024
CREDENTIALS = ("token", "passcode")


@dataclass
class _Peer:
    """Failures of one client with one kind of credential.

    :ivar logged: whether a line was logged since the last round.
    """

    address: str
    credential: str
    failures: int = 0
    unlogged: int = 0
    seen: float = 0.0
    logged: bool = False


class Gate:
    """Admits a request, or raises :class:`Refusal`.

    :param hosts: names accepted in the ``Host`` header, without port; IPv6 in brackets.
    :param find_token: returns what is stored of a token, ``None`` if it is unknown. If the function itself is
        ``None``, no token is required.
    :param reactor: times how long failures are remembered.
    :param sleep: returns after a number of seconds.
    :param open_ready: ``[API] open_ready``.
    """

    def __init__(
        self,
        hosts: Iterable[str],
        find_token: Callable[[str], Token | None] | None,
        reactor: IReactorTime,
        sleep: Callable[[float], Awaitable[Any]],
        open_ready: bool = False,
    ) -> None:
        self.use(hosts, find_token, open_ready)
        self._reactor = reactor
        self._sleep = sleep
        self._peers: OrderedDict[tuple[str, str], _Peer] = OrderedDict()
        self._log = Logger()
        self._complaints = {each: LogLimit(self._log.warn, reactor.seconds) for each in CREDENTIALS}
        self._next_round: IDelayedCall | None = None
        self._stopped = False
        self._tokens_problem = ""

    def use(
        self, hosts: Iterable[str], find_token: Callable[[str], Token | None] | None, open_ready: bool = False
    ) -> None:
        """Apply other options from the next request on. Failures are remembered."""
        self._open_ready = open_ready
        self._hosts = frozenset(host.lower() for host in hosts)
        self._find_token = find_token

    def check_origin(self, request: IRequest) -> None:
        """Refuse foreign host names, against DNS rebinding and requests from other sites' pages.

        :raises Refusal: 403; 400 without a Host header or with several (RFC 9112, section 3.2).
        """
        hosts = header_values(request, "host")
        if len(hosts) != 1:
            raise Refusal(400, "Exactly one Host header is required.")
        if _host(hosts[0]) not in self._hosts:
            raise Refusal(403, "The Host header is not among [API] hosts.")
        for origin in header_values(request, "origin"):
            if _host(origin.partition("://")[2]) not in self._hosts:
                raise Refusal(403, "The Origin header is not among [API] hosts.")

    async def check_token(self, request: IRequest, route: Route[Any]) -> str:
        """Refuse a request without a token of sufficient scope; return the name of the token, ``""`` if none is needed.

        :raises Refusal: 401 or 403; 503 if the tokens cannot be read.
        """
        if self._find_token is None or route.open:
            return ""
        if route.open_ready and self._open_ready and _is_loopback(request):
            return ""
        secret = _token(request, route.browser)
        if secret is None:
            raise _unauthorized("A token is required: Authorization: Bearer TOKEN.", route.browser)
        token = await self.identify(request, secret, route.browser)
        check_scope(token, route.scope)
        return token.name

    @property
    def needs_token(self) -> bool:
        """Whether a token is required at all."""
        return self._find_token is not None

    async def identify(self, request: IRequest, secret: str, browser: bool = False) -> Token:
        """Return what is stored of a token. The answer to a wrong one is delayed.

        :param browser: whether Basic authentication is offered.
        :raises Refusal: 401; 503 if the tokens cannot be read.
        """
        assert self._find_token is not None
        try:
            token = self._find_token(secret)
        except TokenError as error:
            self._note_problem(str(error))
            raise Refusal(503, "The API tokens cannot be read.") from None
        self._note_problem("")
        if token is None:
            await self.punish(request, "token")
            raise _unauthorized("The token is invalid.", browser, ', error="invalid_token"')
        return token

    def _note_problem(self, problem: str) -> None:
        """Log once that the tokens cannot be read, and once that they can be again."""
        if problem and problem != self._tokens_problem:
            self._log.error("HTTP: {problem}", problem=problem)
        elif self._tokens_problem and not problem:
            self._log.info("HTTP: the API tokens can be read again")
        self._tokens_problem = problem

    async def punish(self, request: IRequest, credential: str) -> None:
        """Delay the answer to a wrong credential, the longer the more failures there are; log failures in summary.

        :param credential: one of :data:`CREDENTIALS`.
        """
        address = str(getattr(request.getClientAddress(), "host", None) or "a unix socket")
        peer = self._peer(address, credential)
        peer.failures += 1
        peer.unlogged += 1
        if not peer.logged:
            self._complain(peer)
        if self._next_round is None and not self._stopped:
            self._next_round = self._reactor.callLater(FORGET_AFTER, self._round)
        excess = peer.failures - FREE_FAILURES
        if excess > 0:
            await self._sleep(min(MAX_DELAY, 0.05 * 2 ** min(excess, 10)))

    def stop(self) -> None:
        """Log the failures that are not logged yet, and stop the timer."""
        self._stopped = True
        if self._next_round is not None:
            self._next_round.cancel()
            self._next_round = None
            self._round_once()

    def _round(self) -> None:
        """Log the failures since the last round, until there are none."""
        again = self._round_once()
        self._next_round = self._reactor.callLater(FORGET_AFTER, self._round) if again else None

    def _round_once(self) -> bool:
        for peer in self._peers.values():
            peer.logged = peer.unlogged > 0
            if peer.logged:
                self._complain(peer)
        return any(peer.logged for peer in self._peers.values())

    def _complain(self, peer: _Peer) -> None:
        what = peer.credential if peer.unlogged == 1 else f"{peer.credential}s"
        self._complaints[peer.credential].warn(
            "HTTP: {count} wrong {what} from {peer}", count=peer.unlogged, what=what, peer=peer.address
        )
        peer.logged, peer.unlogged = True, 0

    def _peer(self, address: str, credential: str) -> _Peer:
        time = self._reactor.seconds()
        peer = self._peers.setdefault((address, credential), _Peer(address, credential))
        self._peers.move_to_end((address, credential))
        if len(self._peers) > MAX_PEERS:
            _, oldest = self._peers.popitem(last=False)
            if oldest.unlogged:
                self._complain(oldest)
        if time - peer.seen > FORGET_AFTER:
            peer.failures = 0
        peer.seen = time
        return peer


def check_scope(token: Token, scope: Scope) -> None:
    """Raise :class:`Refusal` (403) unless the scope of a token includes another."""
    if not token.scope.includes(scope):
        raise Refusal(403, f"This needs a token with scope {scope}; the scope of this one is {token.scope}.")


def _is_loopback(request: IRequest) -> bool:
    address = client_address(str(getattr(request.getClientAddress(), "host", None)))
    return address is not None and address.is_loopback


def header_values(request: IRequest, name: str) -> list[str]:
    """Return all values of a header, decoded as Latin-1."""
    return [value.decode("latin-1") for value in request.requestHeaders.getRawHeaders(name.encode("ascii"), [])]


# RFC 9110, section 7.2, and RFC 3986, section 3.2: a name or an address, and an optional port.
_HOST = re.compile(r"(\[[^]]*\]|[^:\[\]@/]*)(?::[0-9]*)?")


def _host(text: str) -> str:
    """Return a host in lower case, without its port; empty if it is invalid."""
    match = _HOST.fullmatch(text.strip().lower())
    return match[1] if match else ""


def _token(request: IRequest, browser: bool) -> str | None:
    values = header_values(request, "authorization")
    if len(values) != 1:
        return None
    scheme, _, rest = values[0].strip().partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    # Browsers send Basic credentials by themselves, even for other sites' pages: accept them on harmless routes only.
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
