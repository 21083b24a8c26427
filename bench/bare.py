"""The baseline: the minimal Twisted policy server.

It parses each request into a dict, and returns a constant answer. ``python -m bench.bare PORT``
"""

from __future__ import annotations

import sys

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol

_END = b"\n\n"
_ANSWER = b"action=DUNNO\n\n"


class BareProtocol(Protocol):
    """Answers every request with DUNNO."""

    _buffer = b""

    def dataReceived(self, data: bytes) -> None:
        assert self.transport
        *requests, self._buffer = (self._buffer + data).split(_END)
        for request in requests:
            self.attributes = dict([line.split("=", 1) for line in request.decode("utf-8").split("\n")])
            self.transport.write(_ANSWER)


if __name__ == "__main__":
    reactor.listenTCP(int(sys.argv[1]), Factory.forProtocol(BareProtocol), interface="127.0.0.1")  # type: ignore[arg-type]
    reactor.run()
