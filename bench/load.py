"""The load generator: a number of connections with one request in flight on each."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from typing import NamedTuple


class Sample(NamedTuple):
    """The result of one run.

    :ivar answers: number of answers.
    :ivar elapsed: seconds.
    :ivar rate: answers per second.
    :ivar p50, p99: latency in seconds.
    :ivar busy: CPU utilization of the load generator, 0 to 1.
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
    """Send requests to a policy server, for a time or a number of requests.

    :param expected: prefix of every answer, or a tuple of prefixes.
    :raises RuntimeError: if an answer has another prefix.
    """
    sockets = {each.fileno(): each for each in [connected(port) for _ in range(connections)]}
    try:
        return _exchange(sockets, requests, expected, seconds, count)
    finally:
        for each in sockets.values():
            each.close()


def connected(port: int) -> socket.socket:
    """Return a new connection to a policy server."""
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
    poll.close()
    return sample(took, elapsed, time.process_time() - cpu)


def sample(took: list[float], elapsed: float, cpu: float) -> Sample:
    """Return a sample of latencies.

    :param cpu: CPU time of the load generator, in seconds.
    """
    number, ordered = len(took), sorted(took)
    p50, p99 = ordered[number // 2], ordered[number * 99 // 100]
    return Sample(number, elapsed, number / elapsed, p50, p99, cpu / elapsed)
