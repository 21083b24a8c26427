"""The load generator of mail that comes at a steady rate, however long the answers take."""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from collections.abc import Iterator

from bench.load import Sample, connected, sample

CONNECTIONS = 64


def drive_at(rate: float, port: int, requests: Iterator[bytes], expected: bytes, seconds: float) -> Sample:
    """Send so many requests per second to a policy server, on :data:`CONNECTIONS` connections.

    A latency begins when the request is due. If no connection is free then, it includes the wait for one. It does not
    include the time that the load generator itself stood still.

    :param expected: prefix of every answer.
    :raises RuntimeError: if an answer has another prefix.
    """
    sockets = {each.fileno(): each for each in [connected(port) for _ in range(CONNECTIONS)]}
    try:
        return _Exchange(sockets, requests, expected).run(rate, seconds)
    finally:
        for each in sockets.values():
            each.close()


class _Exchange:
    """The requests on some connections.

    :ivar took: latencies in seconds.
    """

    def __init__(self, sockets: dict[int, socket.socket], requests: Iterator[bytes], expected: bytes) -> None:
        self.took: list[float] = []
        self._sockets, self._requests, self._expected = sockets, requests, expected
        self._free = deque(sockets)
        self._due: deque[float] = deque()
        self._began: dict[int, float] = {}
        self._poll = select.epoll()
        for number in sockets:
            self._poll.register(number, select.EPOLLIN)

    def run(self, rate: float, seconds: float) -> Sample:
        """Send for some seconds, and wait for the last answers."""
        cpu, begin, made = time.process_time(), time.perf_counter(), 0
        last = int(rate * seconds)
        while len(self.took) < last:
            now = time.perf_counter()
            due = min(int((now - begin) * rate) + 1, last) - made
            made += due
            self._due.extend([now] * due)
            self._send()
            for number, _ in self._poll.poll(max(0.0, begin + made / rate - time.perf_counter()) if made < last else 1):
                self._take(number)
        self._poll.close()
        return sample(self.took, time.perf_counter() - begin, time.process_time() - cpu)

    def _send(self) -> None:
        while self._due and self._free:
            number = self._free.popleft()
            self._began[number] = self._due.popleft()
            self._sockets[number].sendall(next(self._requests))

    def _take(self, number: int) -> None:
        answer = self._sockets[number].recv(4096)
        if not answer.startswith(self._expected) or not answer.endswith(b"\n\n"):
            raise RuntimeError(f"the answer {answer!r} instead of {self._expected!r}")
        self.took.append(time.perf_counter() - self._began[number])
        self._free.append(number)
