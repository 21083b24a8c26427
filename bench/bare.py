"""The yardstick: the least that a Twisted policy server can do.

It splits each request into a dict, and answers a constant. ``python -m bench.bare PORT``
"""

from __future__ import annotations

import sys

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol

_END = b"\n\n"
_ANSWER = b"action=DUNNO\n\n"


class BareProtocol(Protocol):
    """Answers whatever is asked."""

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
