"""Sends small answers without waiting for the reactor's next turn.

``transport.write`` sends in the next turn, and needs two more system calls to wait until the socket is writable.
An answer nearly always fits into the socket's buffer, so it is written to the socket first. This is the only place
that uses private attributes of Twisted; unknown transports use ``transport.write``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import tcp, unix

_KNOWN = (tcp.Server, tcp.Client, unix.Server, unix.Client)


def sender(transport: Any) -> Callable[[bytes], None]:
    """Return a function that sends bytes over a transport, immediately if possible."""
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
            # The buffer is full, or the connection is broken: Twisted handles both.
            transport.write(data)
            return
        if sent < len(data):
            transport.write(data[sent:])

    return send
