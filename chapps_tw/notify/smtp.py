# mypy: allow-untyped-calls
"""Sending mails to a relay (RFC 5321)."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory
from twisted.internet.ssl import optionsForClientTLS, platformTrust
from twisted.mail.smtp import (
    CramMD5ClientAuthenticator,
    ESMTPClient,
    LOGINAuthenticator,
    PLAINAuthenticator,
    SMTPClientError,
)
from twisted.python.failure import Failure

from chapps_tw.config.settings import Notify
from chapps_tw.notify.message import Message
from chapps_tw.notify.notice import Outcome
from chapps_tw.sockets.authorities import authorities

CONNECT_SECONDS: Final = 10.0
"""With the lookup of the name of the relay."""

SEND_SECONDS: Final = 30.0
"""For all mails of a connection."""

_MAX_REASON: Final = 200


class Session(ESMTPClient):
    """Sends mails, one after the other.

    :ivar results: of the mails that were sent or refused, in order.
    :ivar ended: fires when the connection has ended, with the reason.
    """

    # A log of the session would hold the password.
    debug = False

    def __init__(self, messages: Sequence[Message], options: Notify, password: str, node: str) -> None:
        context = _tls(options) if options.relay_tls == "starttls" else None
        super().__init__(password.encode(), context, node)
        user = options.relay_user.encode()
        for kind in (CramMD5ClientAuthenticator, LOGINAuthenticator, PLAINAuthenticator):
            self.registerAuthenticator(kind(user))
        self.requireAuthentication = bool(user)
        self.requireTransportSecurity = options.relay_tls != "none"
        self.results: list[Outcome] = []
        self.ended: Deferred[str] = Deferred()
        self._messages = iter(messages)
        self._current: Message | None = None
        self._problem = ""

    def getMailFrom(self) -> str | None:
        self._current = next(self._messages, None)
        return None if self._current is None else self._current.sender

    def getMailTo(self) -> list[str]:
        assert self._current is not None
        return [self._current.recipient]

    def getMailData(self) -> BytesIO:
        assert self._current is not None
        return BytesIO(self._current.data)

    def sentMail(self, code: int, resp: Any, numOk: int, addresses: Sequence[tuple[Any, int, bytes]], log: Any) -> None:
        refused = [(each, text) for _, each, text in addresses if not 200 <= each < 300]
        if refused or not (numOk and 200 <= code < 300):
            code, resp = refused[0] if refused else (code, resp)
            self.results.append(Outcome(_reply(code, resp), is_final=500 <= code < 600))
        else:
            self.results.append(Outcome())

    def sendError(self, exc: Exception) -> None:
        # Its text may be the log of the session.
        self._problem = _reply(exc.code, exc.resp) if isinstance(exc, SMTPClientError) else type(exc).__name__
        super().sendError(exc)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        super().connectionLost(reason)
        if not self.ended.called:
            self.ended.callback(self._problem or f"the connection was lost: {_short(reason.getErrorMessage())}")

    def give_up(self) -> None:
        """End a session that takes too long."""
        self._problem = self._problem or f"the relay did not take the mails in {SEND_SECONDS:g} s"
        transport: Any = self.transport
        transport.abortConnection()


class Relay:
    """The server that takes the mails.

    :param node: name of this host, for EHLO.
    """

    def __init__(self, options: Notify, password: str, node: str, reactor: Any) -> None:
        self._options = options
        self._password = password
        self._node = node
        self._reactor = reactor

    async def send(self, messages: Sequence[Message]) -> list[Outcome]:
        """Send mails on one connection. Return the outcome of each, in order.

        What the relay refuses permanently (RFC 5321, 4.2.1) is final; that it refuses us is not.
        """
        session = Session(messages, self._options, self._password, self._node)
        try:
            await self._endpoint().connect(_factory(session)).addTimeout(CONNECT_SECONDS, self._reactor)
        except Exception as error:
            why = f"no connection to {self._options.relay}: {_short(str(error) or type(error).__name__)}"
            return [Outcome(why)] * len(messages)
        timer = self._reactor.callLater(SEND_SECONDS, session.give_up)
        why = await session.ended
        if timer.active():
            timer.cancel()
        return [*session.results, *[Outcome(why)] * (len(messages) - len(session.results))]

    def _endpoint(self) -> Any:
        host = self._options.relay.host
        endpoint = HostnameEndpoint(self._reactor, host, self._options.relay.port)
        return wrapClientTLS(_tls(self._options), endpoint) if self._options.relay_tls == "tls" else endpoint


def _tls(options: Notify) -> Any:
    trust = authorities(options.relay_ca_file) if options.relay_ca_file else platformTrust()
    return optionsForClientTLS(options.relay.host, trustRoot=trust)


def _factory(session: Session) -> Factory[Session]:
    factory: Factory[Session] = Factory.forProtocol(lambda: session)
    # Otherwise each connection is logged.
    factory.noisy = False
    return factory


def _reply(code: int, text: bytes | str) -> str:
    line = text.decode("ascii", "backslashreplace") if isinstance(text, bytes) else text
    return _short(f"{code} {line}" if code > 0 else line)


def _short(text: str) -> str:
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())[:_MAX_REASON]
