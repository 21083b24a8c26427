# mypy: allow-untyped-calls
"""HTTP within bounds: size, time and number, and no answer that is not JSON.

Everything here is about bytes; what is asked and answered is in :mod:`chapps_tw.rest.app`.
"""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from io import BytesIO
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger, LogPublisher
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.http import Request as HTTPRequest
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

MAX_BODY = 1 << 20
MAX_HEADERS = 1 << 16
MAX_BUFFERED = 64 << 20
MAX_CONNECTIONS = 512
REQUEST_TIMEOUT = 15.0

# How much of what a refused client still sends is read, and for how many seconds.
LINGER_BYTES = 16 << 20
LINGER = 2.0

# RFC 9110 calls two of them otherwise than Python 3.11 does.
PHRASES = {each.value: each.phrase for each in HTTPStatus} | {413: "Content Too Large", 422: "Unprocessable Content"}

_UNENCODED = re.compile(rb"[A-Z]+ .*[^!-~].* HTTP/1\.[01]", re.DOTALL)
_ABSOLUTE_FORM = re.compile(rb"https?://([^/?]*)(/[^?]*)?(\?.*)?", re.IGNORECASE | re.DOTALL)


def error_body(detail: Any, **beside: Any) -> bytes:
    """An error as JSON."""
    # A lone surrogate becomes its \\udXXX escape, which JSON has as well.
    return json.dumps({"detail": detail, **beside}, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _quoted(segment: bytes) -> bytes:
    return quote(quote(unquote_to_bytes(segment), safe=""), safe="").encode("ascii")


class BoundedRequest(Request):
    """A request whose body stays in memory and is counted, and whose path keeps ``%2F``."""

    channel: BoundedChannel
    content: BytesIO
    _buffered = 0

    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()
        if length is not None and length > MAX_BODY:
            self.channel.refuse(413, f"The body is larger than {MAX_BODY} bytes.")

    def handleContentChunk(self, data: bytes) -> None:
        if self.channel.refused:
            return
        self._buffered += len(data)
        self.channel.site.buffered += len(data)
        if self._buffered > MAX_BODY:
            self.channel.refuse(413, f"The body is larger than {MAX_BODY} bytes.")
        elif self.channel.site.buffered > MAX_BUFFERED:
            self.channel.refuse(503, "Too many bodies are being sent at once.")
        else:
            self.content.write(data)

    def process(self) -> None:
        self._to_origin_form()
        # Twisted unquotes the path, and Klein matches what is left as text, where a slash within a
        # name would look like one between names. Quoted twice, Klein sees it quoted once.
        segments = [_quoted(segment) for segment in self.path.split(b"/")]
        if len(segments) > 2 and not segments[-1]:
            del segments[-1]
        self.path = b"/".join(segments)
        super().process()

    def _to_origin_form(self) -> None:
        """Take a request whose target is a whole URI; its host counts, not the header (RFC 9112, section 3.2.2)."""
        match = _ABSOLUTE_FORM.fullmatch(self.uri)
        if match is None:
            return
        # One is there in any case. Two remain two, and are refused.
        if len(self.requestHeaders.getRawHeaders(b"host", [])) == 1:
            self.requestHeaders.setRawHeaders(b"host", [match[1]])
        self.path = match[2] or b"/"
        self.uri = self.path + (match[3] or b"")

    def setResponseCode(self, code: int, message: bytes | None = None) -> None:
        super().setResponseCode(code, message or PHRASES[code].encode("ascii"))

    def finish(self) -> None:
        self._release()
        super().finish()

    def connectionLost(self, reason: Failure) -> None:
        self._release()
        super().connectionLost(reason)

    def processingFailed(self, reason: Failure) -> Failure:
        self._log.failure("HTTP: {uri} failed", reason, uri=self.uri.partition(b"?")[0])
        body = error_body("Internal error.")
        self.setResponseCode(500)
        self.setHeader(b"Content-Type", b"application/json")
        self.setHeader(b"Content-Length", b"%d" % len(body))
        self.write(body)
        self.finish()
        return reason

    def drop(self) -> None:
        """Throw away what came of the body."""
        self._release()
        self.content = BytesIO()

    def _release(self) -> None:
        # There is no channel any more after the connection was lost.
        if self._buffered:
            self.channel.site.buffered -= self._buffered
            self._buffered = 0


class BoundedChannel(HTTPChannel):
    """A connection on which each request must be complete within a time, counted from its first byte."""

    # Without a line for every client that is timed out.
    _log = Logger(observer=LogPublisher())

    # Enough for a thousand ids in a query.
    MAX_LENGTH = MAX_HEADERS
    totalHeadersSize = MAX_HEADERS

    site: BoundedSite
    transport: ITCPTransport
    _between = True
    _line = b""
    refused = False
    _discarded = 0
    _closing: IDelayedCall | None = None

    def dataReceived(self, data: bytes) -> None:
        if self.refused:
            self._discarded += len(data)
            if self._discarded > LINGER_BYTES:
                self._networkProducer.pauseProducing()
            return
        if self._between:
            self._between = False
            self.resetTimeout()
        # Not HTTPChannel's, which starts the time again with every byte.
        super(HTTPChannel, self).dataReceived(data)

    def lineReceived(self, line: bytes) -> None:
        if not self.refused:
            self._line = line
            super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        self.refuse(400, f"A line of the request is longer than {MAX_HEADERS} bytes.")

    def _finishRequestBody(self, data: bytes) -> None:
        if not self.refused:
            super()._finishRequestBody(data)

    def rawDataReceived(self, data: bytes) -> None:
        if not self.refused:
            super().rawDataReceived(data)

    def requestDone(self, request: Request) -> None:
        self._between = True
        super().requestDone(request)

    @property
    def spare(self) -> int:
        """How readily it is closed for another: 2 when it has sent nothing, 1 when no whole request, else 0 (never)."""
        if self._handlingRequest:
            return 0
        return 2 if self._between else 1

    def finish(self) -> None:
        """Close, after what is being answered."""
        self.persistent = 0
        if not self._handlingRequest:
            self.transport.abortConnection()

    def refuse(self, status: int, sentence: str) -> None:
        """Answer before the request is complete, and close.

        What came is thrown away, and what still comes is, for a moment: closing at once would reset
        the connection, and the client would not see the answer.
        """
        if self.refused:
            return
        self.refused = True
        self.setTimeout(None)
        for request in self.requests:
            request.drop()
        self._transferDecoder = None
        self.clearLineBuffer()
        body = error_body(sentence)
        head = (
            f"HTTP/1.1 {status} {PHRASES[status]}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        if not self.isSecure():
            self.transport.loseWriteConnection()
        self._closing = self.callLater(LINGER, self.transport.abortConnection)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        super().connectionLost(reason)
        self.site.lost(self)

    def _send100Continue(self) -> None:
        if not self.refused:
            super()._send100Continue()

    def _respondToBadRequestAndDisconnect(self) -> None:
        if _UNENCODED.fullmatch(self._line):
            self.refuse(400, "A path is of ASCII without spaces: all else in it must be percent-encoded, as UTF-8.")
        else:
            self.refuse(400, "This is no HTTP request.")


class BoundedSite(Site):
    """The site of the API.

    When there is no room for another connection, the oldest that has sent nothing is closed in its favour, or
    else the oldest that has sent no whole request.

    :param resource: what answers.
    :param reactor: for the timeouts.
    """

    protocol = BoundedChannel  # type: ignore[assignment]
    requestFactory = BoundedRequest
    noisy = False

    def __init__(self, resource: IResource, reactor: IReactorTime, max_connections: int = MAX_CONNECTIONS) -> None:
        super().__init__(resource, timeout=REQUEST_TIMEOUT, reactor=reactor, parsePOSTFormSubmission=False)
        self._max_connections = max_connections
        self._channels: dict[BoundedChannel, None] = {}
        self._gone: Deferred[None] | None = None
        self.buffered = 0

    def buildProtocol(self, addr: IAddress | None) -> BoundedChannel | None:  # type: ignore[override]
        if self._gone is not None or (self.connections >= self._max_connections and not self._make_room()):
            return None
        channel: BoundedChannel = super().buildProtocol(addr)
        self._channels[channel] = None
        return channel

    def _make_room(self) -> bool:
        """Close a connection, if there is one that nobody waits for."""
        # The first of several that are alike, which is the oldest.
        channel = max(self._channels, key=lambda each: each.spare)
        if not channel.spare:
            return False
        self.lost(channel)
        channel.transport.abortConnection()
        return True

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._channels)

    def lost(self, channel: BoundedChannel) -> None:
        """A connection is gone."""
        self._channels.pop(channel, None)
        if self._gone is not None and not self._channels and not self._gone.called:
            self._gone.callback(None)

    def stop(self) -> Deferred[None]:
        """Take no more requests, and answer those that are complete. Fires when all connections are gone."""
        self._gone = Deferred()
        for channel in list(self._channels):
            channel.finish()
        if not self._channels and not self._gone.called:
            self._gone.callback(None)
        return self._gone

    def abandon(self) -> None:
        """Close all connections, whatever they wait for."""
        for channel in list(self._channels):
            channel.transport.abortConnection()

    def acceptableProtocols(self) -> list[bytes]:
        # HTTP/2 has a channel of its own, without these bounds.
        return [b"http/1.1"]

    def log(self, request: HTTPRequest) -> None:
        """No line per request: the log is for decisions."""
