"""A TCP proxy on loopback that delays all data: a server in another place. ``python -m bench.delay PORT SERVER MS``

It runs in a process of its own, so that its CPU time is not that of the service. It uses ``select``, whose timeouts are
exact to microseconds; those of ``epoll`` are rounded up to milliseconds.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from collections import deque
from typing import NamedTuple


class _Delayed(NamedTuple):
    due: float
    to: socket.socket
    data: bytes


def proxy(port: int, server: int, milliseconds: float) -> None:
    """Forward connections to another port, for ever.

    :param milliseconds: added to a round trip, half of it in each direction.
    """
    half = milliseconds / 2e3
    listener = socket.create_server(("127.0.0.1", port))
    peers: dict[socket.socket, socket.socket] = {}
    waiting: deque[_Delayed] = deque()
    while True:
        timeout = max(0.0, waiting[0].due - time.monotonic()) if waiting else None
        for ready in select.select([listener, *peers], [], [], timeout)[0]:
            if ready is listener:
                _connect(listener.accept()[0], server, peers)
            elif ready in peers:
                data, peer = _received(ready), peers[ready]
                if data:
                    waiting.append(_Delayed(time.monotonic() + half, peer, data))
                else:
                    _close(ready, peers)
        while waiting and waiting[0].due <= time.monotonic():
            _send(waiting.popleft(), peers)


def _connect(client: socket.socket, server: int, peers: dict[socket.socket, socket.socket]) -> None:
    other = socket.create_connection(("127.0.0.1", server))
    peers |= {client: other, other: client}
    for each in (client, other):
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except ConnectionError:
        return b""


def _send(delayed: _Delayed, peers: dict[socket.socket, socket.socket]) -> None:
    if delayed.to in peers:
        try:
            delayed.to.sendall(delayed.data)
        except ConnectionError:
            _close(delayed.to, peers)


def _close(connection: socket.socket, peers: dict[socket.socket, socket.socket]) -> None:
    for each in (connection, peers[connection]):
        del peers[each]
        each.close()


if __name__ == "__main__":
    proxy(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
