"""Clients that continuously send policy requests, and record the answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Protocol

from tests.support.policy_client import PolicyClient, outbound
from tests.support.servers.common import wait_until

ENDLESS = 1_000_000


class Asks(Protocol):
    """A running service."""

    def client(self, listener: str) -> PolicyClient:
        """Return a new connection to one of its listeners."""


class Asked(NamedTuple):
    """A request. Times are of ``time.monotonic``."""

    begin: float
    end: float
    answer: str


class Load:
    """Clients that send one request after the other until stopped.

    :param services: distributed evenly over the clients.
    :param listener: of the services.
    :param question: returns the attributes of a request.
    :param pause: seconds between an answer and the next request.
    :param each: number of requests per client.
    :ivar asked: in the order of the answers.
    :ivar broken: connection errors; a client stops at its first.
    :ivar connections: how many were made.
    """

    def __init__(
        self,
        services: Sequence[Asks],
        connections: int,
        pause: float = 0.02,
        each: int = ENDLESS,
        listener: str = "outbound",
        question: Callable[[], Mapping[str, str]] = outbound,
    ) -> None:
        self.asked: list[Asked] = []
        self.broken: list[str] = []
        self.connections = 0
        self._pause, self._each = pause, each
        self._listener, self._question = listener, question
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=[services[number % len(services)]]) for number in range(connections)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self.wait()

    def wait(self) -> None:
        """Wait until every client has sent all its requests."""
        for thread in self._threads:
            thread.join()

    def _run(self, service: Asks) -> None:
        with service.client(self._listener) as client:
            self.connections += 1
            for _ in range(self._each):
                if self._over.is_set():
                    return
                begin = time.monotonic()
                try:
                    answer = client.ask(self._question())
                except OSError as error:
                    self.broken.append(repr(error))
                    return
                self.asked.append(Asked(begin, time.monotonic(), answer))
                self._over.wait(self._pause)

    def wait_for(self, answer: str, count: int = 100) -> None:
        """Wait until the last ``count`` answers begin with ``answer``.

        :raises TimeoutError: if that does not happen.
        """

        def come() -> bool:
            last = self.asked[-count:]
            return len(last) == count and all(asked.answer.startswith(answer) for asked in last)

        wait_until(come, f"{count} times in a row {answer!r}")

    def wait_for_any(self, answer: str) -> None:
        """Wait for an answer that begins with ``answer``.

        :raises TimeoutError: if there is none.
        """
        wait_until(lambda: any(asked.answer.startswith(answer) for asked in self.asked[-500:]), f"{answer!r}")

    def wait_until_asked(self, count: int) -> None:
        """Wait for the answers to so many more requests.

        :raises TimeoutError: if they do not come.
        """
        wanted = len(self.asked) + count
        wait_until(lambda: len(self.asked) >= wanted, f"{count} answers")

    def between(self, first: float, last: float) -> set[str]:
        """Return the answers to requests that were sent and answered between two times."""
        return {asked.answer for asked in self.asked if first <= asked.begin and asked.end <= last}

    @property
    def slowest(self) -> float:
        """The longest time from a request to its answer, in seconds."""
        return max(asked.end - asked.begin for asked in self.asked)

    @property
    def passed(self) -> int:
        return sum(asked.answer == "DUNNO" for asked in self.asked)
