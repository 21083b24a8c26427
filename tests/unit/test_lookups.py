"""Looking names up while name servers are silent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from socket import AF_INET, SOCK_STREAM
from threading import Event, Lock
from typing import Any

import pytest
from twisted.internet.address import IPv4Address

from chapps_tw.sockets import lookups
from chapps_tw.sockets.lookups import MOST, Lookups
from tests.support.servers.common import wait_until

FOUND = IPv4Address("TCP", "192.0.2.1", 25)


class Reactor:
    """Calls from threads at once, one after the other."""

    def __init__(self) -> None:
        self._lock = Lock()

    def callFromThread(self, function: Callable[..., object], *values: object) -> None:
        with self._lock:
            function(*values)


class Receiver:
    """Takes the addresses of a name; ``None`` until all are there."""

    def __init__(self) -> None:
        self.found: list[Any] | None = None
        self._addresses: list[Any] = []

    def resolutionBegan(self, resolution: object) -> None:
        """Wait."""

    def addressResolved(self, address: object) -> None:
        self._addresses.append(address)

    def resolutionComplete(self) -> None:
        self.found = self._addresses


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> Iterator[Event]:
    """Until it is set, no name server answers."""
    event = Event()

    def getaddrinfo(host: str, *_values: object) -> list[Any]:
        event.wait()
        if host == "none":
            raise UnicodeError("no name")
        return [(AF_INET, SOCK_STREAM, 6, "", ("192.0.2.1", 25))]

    monkeypatch.setattr(lookups, "getaddrinfo", getaddrinfo)
    yield event
    event.set()


def ask(resolver: Lookups, name: str = "relay.example") -> Receiver:
    receiver = Receiver()
    resolver.resolveHostName(receiver, name, 25)
    return receiver


def test_more_than_so_many_lookups_fail_at_once_until_others_have_ended(answered: Event) -> None:
    resolver = Lookups(Reactor())
    waiting = [ask(resolver) for _ in range(MOST)]
    assert ask(resolver).found == []
    assert {each.found is None for each in waiting} == {True}
    answered.set()
    wait_until(lambda: all(each.found == [FOUND] for each in waiting), "all addresses")
    last = ask(resolver)
    wait_until(lambda: last.found == [FOUND], "the address")


def test_a_text_that_can_be_no_name_has_no_addresses(answered: Event) -> None:
    answered.set()
    receiver = ask(Lookups(Reactor()), "none")
    wait_until(lambda: receiver.found == [], "no addresses")
