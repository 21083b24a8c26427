# mypy: allow-untyped-calls
"""An HTTP server with limits of size, time and number of connections, whose error answers are JSON.

This is the transport; the application is in :mod:`chapps_tw.rest.app`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine, Mapping
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

from chapps_tw.rest.routing import MAX_BODY

MAX_HEADERS = 1 << 16
# Of a path: more than any route has. Each takes time.
MAX_SEGMENTS = 32
MAX_BUFFERED = 64 << 20
MAX_CONNECTIONS = 512
REQUEST_TIMEOUT = 15.0

# Bytes that are parsed at a stretch: the smallest chunks take 10 us each.
_SLICE = 2048
# Chunks of a body that may be of any size, and the least average size of more than that.
MAX_SMALL_CHUNKS, _SMALL = 200, 16

# Lingering close after an early error answer: how much more is read, and for how many seconds.
LINGER_BYTES = 16 << 20
LINGER = 2.0

# RFC 9110 has changed two reason phrases of Python 3.11.
PHRASES = {each.value: each.phrase for each in HTTPStatus} | {413: "Content Too Large", 422: "Unprocessable Content"}

# Possessive: with backtracking, a line of blanks would take a minute.
_UNENCODED = re.compile(rb"[A-Z]++ [!-~]*+[^!-~].* HTTP/1\.[01]", re.DOTALL)
_ABSOLUTE_FORM = re.compile(rb"https?://([^/?]*)(/[^?]*)?(\?.*)?", re.IGNORECASE | re.DOTALL)


def error_body(detail: Any, **beside: Any) -> bytes:
    """Encode an error as JSON.

    :param beside: further members of the object.
    """
    # A lone surrogate becomes its \\udXXX escape, which is valid in JSON too.
    return json.dumps({"detail": detail, **beside}, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _quoted(segment: bytes) -> bytes:
    return quote(quote(unquote_to_bytes(segment), safe=""), safe="").encode("ascii")


class BoundedRequest(Request):
    """A request whose body is kept in memory, with limits, and whose path keeps ``%2F``."""

    channel: BoundedChannel
    content: BytesIO
    _buffered = 0
    _most = MAX_BODY
    _is_chunked = False
    _chunks = 0
    _lost = False

    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()
        self._is_chunked = length is None
        self._most = self.channel.max_body
        if length is not None and length > self._most:
            self.channel.refuse(413, f"The body exceeds {self._most} bytes.")

    def handleContentChunk(self, data: bytes) -> None:
        if self.channel.refused:
            return
        self._buffered += len(data)
        self._chunks += 1
        self.channel.site.buffered += len(data)
        if self._buffered > self._most:
            self.channel.refuse(413, f"The body exceeds {self._most} bytes.")
        elif self.channel.site.buffered > MAX_BUFFERED:
            self.channel.refuse(503, "Too many request bodies at once.")
        elif self._is_chunked and self._chunks > MAX_SMALL_CHUNKS and self._buffered < self._chunks * _SMALL:
            self.channel.refuse(400, f"The chunks of the body have less than {_SMALL} bytes on average.")
        else:
            self.content.write(data)

    def process(self) -> None:
        self._to_origin_form()
        # Twisted unquotes the path before Klein matches it, so an encoded slash in a name would become a
        # separator. Quoted twice, it reaches Klein quoted once.
        segments = [_quoted(segment) for segment in self.path.split(b"/")]
        if len(segments) > 2 and not segments[-1]:
            del segments[-1]
        self.path = b"/".join(segments)
        Deferred.fromCoroutine(self._process_in_turn())

    async def _process_in_turn(self) -> None:
        """Process it when there is time: any number may arrive at once, also on one connection."""
        await self.channel.site.pause()
        if not self._lost:
            super().process()

    def _to_origin_form(self) -> None:
        """Convert a request target in absolute form. Its host replaces the Host header (RFC 9112, section 3.2.2)."""
        match = _ABSOLUTE_FORM.fullmatch(self.uri)
        if match is None:
            return
        # Several Host headers are left, to be refused later.
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
        self._lost = True
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

    def discard_body(self) -> None:
        """Discard what was received of the body."""
        self._release()
        self.content = BytesIO()

    def _release(self) -> None:
        # After the connection is lost there is no channel.
        if self._buffered:
            self.channel.site.buffered -= self._buffered
            self._buffered = 0


class BoundedChannel(HTTPChannel):
    """A connection with a timeout for each request, measured from its first byte."""

    # Do not log a line for each timeout.
    _log = Logger(observer=LogPublisher())

    # Enough for a thousand ids in a query.
    MAX_LENGTH = MAX_HEADERS
    totalHeadersSize = MAX_HEADERS

    site: BoundedSite
    transport: ITCPTransport
    _idle = True
    _line = b""
    refused = False
    _discarded = 0
    _closing: IDelayedCall | None = None

    def dataReceived(self, data: bytes) -> None:
        for begin in range(0, len(data), _SLICE):
            self._received(data[begin : begin + _SLICE])

    def _received(self, data: bytes) -> None:
        if self.refused:
            self._discarded += len(data)
            if self._discarded > LINGER_BYTES:
                self._networkProducer.pauseProducing()
            return
        if self._idle:
            self._idle = False
            self.resetTimeout()
        # Not HTTPChannel's method, which resets the timeout with every byte.
        super(HTTPChannel, self).dataReceived(data)

    def lineReceived(self, line: bytes) -> None:
        if not self.refused:
            self._line = line
            super().lineReceived(line)

    def allHeadersReceived(self) -> None:
        if self._where.count(b"/") > MAX_SEGMENTS:
            self.refuse(414, f"The path has more than {MAX_SEGMENTS} segments.")
        else:
            super().allHeadersReceived()

    def lineLengthExceeded(self, line: bytes) -> None:
        self.refuse(400, f"A line of the request exceeds {MAX_HEADERS} bytes.")

    def allContentReceived(self) -> None:
        if not self.refused:
            super().allContentReceived()

    def _finishRequestBody(self, data: bytes) -> None:
        if not self.refused:
            super()._finishRequestBody(data)

    def rawDataReceived(self, data: bytes) -> None:
        if not self.refused:
            super().rawDataReceived(data)

    def requestDone(self, request: Request) -> None:
        self._idle = True
        super().requestDone(request)

    @property
    def max_body(self) -> int:
        """The largest body of the request whose head has arrived, in bytes."""
        return self.site.large_bodies.get(self._where.rstrip(b"/"), MAX_BODY)

    @property
    def _where(self) -> bytes:
        """The path of the request whose head has arrived."""
        where: bytes = self._path.partition(b"?")[0]
        return where

    @property
    def eviction_priority(self) -> int:
        """2 for an idle connection, 1 if a request is incomplete, 0 (never evicted) if one is being answered."""
        if self._handlingRequest:
            return 0
        return 2 if self._idle else 1

    def finish(self) -> None:
        """Close the connection once the current request is answered."""
        self.persistent = 0
        if not self._handlingRequest:
            self.transport.abortConnection()

    def refuse(self, status: int, sentence: str) -> None:
        """Answer with an error before the request is complete, and close the connection.

        The request is discarded, and so is what arrives during a lingering close: closing at once would
        reset the connection, and the client would not see the answer.
        """
        if self.refused:
            return
        self.refused = True
        self.setTimeout(None)
        for request in self.requests:
            request.discard_body()
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
        self.site.connection_closed(self)

    def _send100Continue(self) -> None:
        if not self.refused:
            super()._send100Continue()

    def _respondToBadRequestAndDisconnect(self) -> None:
        if _UNENCODED.fullmatch(self._line):
            self.refuse(400, "Spaces and non-ASCII characters in a path must be percent-encoded, as UTF-8.")
        else:
            self.refuse(400, "Not an HTTP request.")


class BoundedSite(Site):
    """The site of the API.

    At the limit of connections, a new one evicts the oldest idle connection, or else the oldest one with an
    incomplete request.

    :param resource: the root resource.
    :param reactor: for timeouts.
    :param pause: returns when there is time to process a request: :meth:`~chapps_tw.rest.slices.Slices.pause`.
    :ivar large_bodies: paths without a final slash, and the largest body there, if that is not ``MAX_BODY`` bytes.
    :ivar buffered: total size of the bodies in memory, in bytes.
    """

    protocol = BoundedChannel  # type: ignore[assignment]
    requestFactory = BoundedRequest
    noisy = False

    def __init__(
        self,
        resource: IResource,
        reactor: IReactorTime,
        pause: Callable[[], Coroutine[Any, Any, None]],
        max_connections: int = MAX_CONNECTIONS,
        large_bodies: Mapping[bytes, int] | None = None,
    ) -> None:
        super().__init__(resource, timeout=REQUEST_TIMEOUT, reactor=reactor, parsePOSTFormSubmission=False)
        self.pause = pause
        self._max_connections = max_connections
        self.large_bodies = large_bodies or {}
        self._channels: dict[BoundedChannel, None] = {}
        self._stopped: Deferred[None] | None = None
        self.buffered = 0

    def buildProtocol(self, addr: IAddress | None) -> BoundedChannel | None:  # type: ignore[override]
        if self._stopped is not None or (self.connections >= self._max_connections and not self._evict()):
            return None
        channel: BoundedChannel = super().buildProtocol(addr)
        self._channels[channel] = None
        return channel

    def _evict(self) -> bool:
        """Close a connection; return whether one could be evicted."""
        # max() returns the first of equals, which is the oldest.
        channel = max(self._channels, key=lambda each: each.eviction_priority)
        if not channel.eviction_priority:
            return False
        self.connection_closed(channel)
        channel.transport.abortConnection()
        return True

    @property
    def connections(self) -> int:
        """The number of connections."""
        return len(self._channels)

    def connection_closed(self, channel: BoundedChannel) -> None:
        """Called when a connection is closed."""
        self._channels.pop(channel, None)
        if self._stopped is not None and not self._channels and not self._stopped.called:
            self._stopped.callback(None)

    def stop(self) -> Deferred[None]:
        """Accept no more requests, and answer the complete ones. Fires when all connections are closed."""
        self._stopped = Deferred()
        for channel in list(self._channels):
            channel.finish()
        if not self._channels and not self._stopped.called:
            self._stopped.callback(None)
        return self._stopped

    def abandon(self) -> None:
        """Close all connections at once, whether answered or not."""
        for channel in list(self._channels):
            channel.transport.abortConnection()

    def acceptableProtocols(self) -> list[bytes]:
        # Twisted handles HTTP/2 in another channel class, without these limits.
        return [b"http/1.1"]

    def log(self, request: HTTPRequest) -> None:
        """Log nothing: there is no access log."""
