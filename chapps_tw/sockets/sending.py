"""Sending small answers without waiting for the reactor's next turn.

``transport.write`` sends in the next turn, and costs two more system calls to be told when. An answer
fits into the socket's buffer nearly always, so it is offered to the socket first. This touches what
Twisted keeps to itself, here and nowhere else; a transport that is not known is left to Twisted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import tcp, unix

_KNOWN = (tcp.Server, tcp.Client, unix.Server, unix.Client)


def sender(transport: Any) -> Callable[[bytes], None]:
    """A function that sends bytes over a transport, at once where that can be done."""
    if type(transport) not in _KNOWN:
        write: Callable[[bytes], None] = transport.write
        return write

    def send(data: bytes) -> None:
        if transport.dataBuffer or transport._tempDataBuffer or transport.disconnecting or not transport.connected:
            transport.write(data)
            return
        try:
            sent = transport.socket.send(data)
        except OSError:
            # Full, or broken: Twisted knows what to do about either.
            transport.write(data)
            return
        if sent < len(data):
            transport.write(data[sent:])

    return send
