# mypy: allow-untyped-calls
"""Posting notices to a URL, signed as in Standard Webhooks (https://www.standardwebhooks.com)."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any, Final

from twisted.internet.defer import CancelledError
from twisted.internet.error import TimeoutError
from twisted.internet.protocol import Protocol
from twisted.web.client import Agent, FileBodyProducer, HTTPConnectionPool, _HTTP11ClientFactory
from twisted.web.http_headers import Headers

LIMIT: Final = 10.0
"""Seconds for connection, request and answer."""


class _Ignored(Protocol):
    """Closes the connection instead of reading the body of an answer."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


class _QuietFactory(_HTTP11ClientFactory):
    noisy = False


class _Connections(HTTPConnectionPool):
    """Makes a connection for each request. Twisted has no other way to keep each from being logged."""

    _factory = _QuietFactory


class Webhook:
    """Tells notices to a URL.

    :param key: of the signatures.
    :param now: returns epoch seconds.
    :param limit: seconds for each.
    """

    def __init__(self, url: str, key: bytes, reactor: Any, now: Callable[[], float], limit: float = LIMIT) -> None:
        self._url = str(url).encode("ascii")
        self._key = key
        self._reactor = reactor
        self._now = now
        self._limit = limit
        self._agent = Agent(reactor, connectTimeout=limit, pool=_Connections(reactor, persistent=False))

    async def post(self, id: str, values: Mapping[str, Any]) -> str:
        """Post a notice. Return ``""`` if the answer is a 2xx, or why it was not taken, without the URL.

        :param id: the receiver may use it to recognize what it was told before.
        """
        body = json.dumps(values).encode()
        headers = Headers({"Content-Type": ["application/json"], "User-Agent": ["chapps-tw"], **self._signed(id, body)})
        asked = self._agent.request(b"POST", self._url, headers, FileBodyProducer(BytesIO(body)))
        asked.addTimeout(self._limit, self._reactor)
        try:
            response = await asked
        except (TimeoutError, CancelledError):
            return f"it did not answer in {self._limit:g} s"
        except Exception as error:
            return _why(error)
        response.deliverBody(_Ignored())
        return "" if 200 <= response.code < 300 else f"it answered {response.code}"

    def _signed(self, id: str, body: bytes) -> dict[str, list[str]]:
        timestamp = str(int(self._now()))
        content = f"{id}.{timestamp}.".encode() + body
        signature = b64encode(hmac.new(self._key, content, hashlib.sha256).digest()).decode()
        return {"webhook-id": [id], "webhook-timestamp": [timestamp], "webhook-signature": [f"v1,{signature}"]}


def _why(error: Exception) -> str:
    # The client lists the causes of some errors.
    for cause in getattr(error, "reasons", ())[:1]:
        error = cause.value
    return f"{type(error).__name__}: {error}"[:200]
