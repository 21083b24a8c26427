"""The load: as many connections as asked for, one request in flight on each."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from typing import NamedTuple


class Sample(NamedTuple):
    """What one run saw.

    :ivar answers: how many.
    :ivar elapsed: seconds.
    :ivar rate: answers a second.
    :ivar p50, p99: seconds from a request to its answer.
    :ivar busy: share of a CPU that the load generator itself used, 0 to 1.
    """

    answers: int
    elapsed: float
    rate: float
    p50: float
    p99: float
    busy: float


def drive(
    port: int,
    requests: Iterator[bytes],
    expected: bytes | tuple[bytes, ...],
    connections: int,
    seconds: float = float("inf"),
    count: float = float("inf"),
) -> Sample:
    """Ask a policy server, for a time or a number of requests.

    :param expected: what every answer begins with; one of a tuple.
    :raises RuntimeError: when one does not.
    """
    sockets = {each.fileno(): each for each in [_connected(port) for _ in range(connections)]}
    try:
        return _exchange(sockets, requests, expected, seconds, count)
    finally:
        for each in sockets.values():
            each.close()


def _connected(port: int) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port))
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def _exchange(
    sockets: dict[int, socket.socket],
    requests: Iterator[bytes],
    expected: bytes | tuple[bytes, ...],
    seconds: float,
    count: float,
) -> Sample:
    now = time.perf_counter
    took: list[float] = []
    sent: dict[int, float] = {}
    poll = select.epoll()
    cpu, begin = time.process_time(), now()
    for number, each in sockets.items():
        poll.register(number, select.EPOLLIN)
        sent[number] = now()
        each.sendall(next(requests))
    end = begin + seconds
    moment = begin
    while moment < end and len(took) < count:
        for number, _ in poll.poll():
            each = sockets[number]
            answer = each.recv(4096)
            if not answer.startswith(expected) or not answer.endswith(b"\n\n"):
                raise RuntimeError(f"the answer {answer!r} instead of {expected!r}")
            moment = now()
            took.append(moment - sent[number])
            sent[number] = moment
            each.sendall(next(requests))
    elapsed = moment - begin
    busy = (time.process_time() - cpu) / elapsed
    poll.close()
    took.sort()
    return Sample(len(took), elapsed, len(took) / elapsed, took[len(took) // 2], took[len(took) * 99 // 100], busy)
