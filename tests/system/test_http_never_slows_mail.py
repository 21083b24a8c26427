"""Many HTTP clients at once, and clients that never finish: mail does not wait for them."""

from __future__ import annotations

import multiprocessing
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http.client import HTTPConnection
from types import TracebackType
from typing import Any

import pytest

from chapps_tw.rest.server import MAX_BODY, MAX_BUFFERED, REQUEST_TIMEOUT
from tests.support.api_case import APITestCase, Database
from tests.support.policy_client import PolicyClient, encode, outbound
from tests.support.servers.service import Book, Options, Service
from tests.support.servers.sql import PostgreSQL

pytestmark = [pytest.mark.alone, pytest.mark.timed]

USERS = 1000
LISTING = 16
HALF = 300
ASKING = 8

# What the 99th of 100 answers may take, in seconds.
SLOWEST = 0.05

spawning = multiprocessing.get_context("spawn")


def list_users(port: int, token: str, over: Any) -> int:
    """One client: lists all users again and again, over one connection. Returns how often."""
    api = HTTPConnection("127.0.0.1", port, timeout=30)
    listed = 0
    while not over.is_set():
        api.request("GET", f"/users/?limit={USERS}", headers={"Authorization": f"Bearer {token}"})
        answer = api.getresponse()
        body = answer.read()
        if answer.status != 200 or body.count(b'"name"') != USERS:
            raise RuntimeError(f"{answer.status} {body[:200]!r}")
        listed += 1
    return listed


def list_all(ports: Mapping[str, int], token: str, over: Any, results: Any) -> None:
    """The process of the clients that list. Hands over how many lists they got, or what went wrong."""
    found: list[int | str] = []

    def run() -> None:
        try:
            found.append(list_users(ports["api"], token, over))
        except Exception as error:
            found.append(repr(error))

    threads = [threading.Thread(target=run) for _ in range(LISTING)]
    for thread in threads:
        thread.start()
    results.put("started")
    for thread in threads:
        thread.join()
    results.put(found)


def ask_all(ports: Mapping[str, int], token: str, over: Any, results: Any) -> None:
    """The process that asks: some connections with one question in flight each.

    Hands over what each answer took, in seconds, and all different answers.
    """
    took, answers = [], set()
    with selectors.DefaultSelector() as selector:
        begun: dict[PolicyClient, float] = {}

        def begin(client: PolicyClient) -> None:
            begun[client] = time.monotonic()
            client.send(encode(outbound()))

        for _ in range(ASKING):
            client = PolicyClient(("127.0.0.1", ports["outbound"]), 30)
            selector.register(client.socket, selectors.EVENT_READ, client)
            begin(client)
        results.put("started")
        while not over.is_set():
            for key, _ in selector.select(30):
                answers.add(key.data.answer())
                took.append(time.monotonic() - begun[key.data])
                begin(key.data)
    results.put((took, answers))


class Child:
    """A process that is busy until it is told to stop: what the test is busy with is not measured.

    :ivar result: what it hands over; there when it is over.
    """

    def __init__(self, work: Callable[..., None], service: Service) -> None:
        self._over, self._results = spawning.Event(), spawning.Queue()
        arguments = (service.ports, service.token, self._over, self._results)
        self._process = spawning.Process(target=work, args=arguments, daemon=True)
        self.result: Any = None

    def __enter__(self) -> Child:
        self._process.start()
        self._results.get(timeout=30)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self.result = self._results.get(timeout=60)
        self._process.join(30)


class HttpLoadTests(APITestCase):
    def run_filled(self, url: str = "", *options: Options) -> None:
        """A service with a thousand users. Ann may send as much as is asked here."""
        self.service = self.run_service(*options, set_up=bool(url))
        with Book(url or self.service.database) as book:
            book.user("ann", 10_000_000, ["example.com"])
            for number in range(USERS - 1):
                book.user(f"somebody{number}@customer{number % 50}.example", 1000)

    def check(self, asking: Child, listing: Child) -> None:
        took, answers = asking.result
        figures = ", ".join(f"p{100 * share:g} {1000 * percentile(took, share):.1f} ms" for share in (0.5, 0.99, 0.999))
        print(f"{len(took)} answers: {figures}; {sum(listing.result)} lists")
        self.assertEqual(answers, {"DUNNO"})
        self.assertGreater(len(took), 1000)
        self.assertLess(percentile(took, 0.99), SLOWEST, figures)
        self.assertEqual([each for each in listing.result if isinstance(each, str)], [])
        # Each had its turn.
        self.assertEqual(len(listing.result), LISTING)
        self.assertGreater(min(listing.result), 0)

    def test_clients_that_list_a_thousand_users_in_a_loop(self) -> None:
        self.run_filled()
        self.list_and_ask()

    def test_the_same_with_postgresql_and_redis(self) -> None:
        database = Database(PostgreSQL)
        redis: Options = {"Redis": {"server": "127.0.0.1", "port": self.run_redis().port}}
        self.run_filled(database.url, database.options, redis)
        self.list_and_ask()

    def list_and_ask(self) -> None:
        with Child(ask_all, self.service) as asking, Child(list_all, self.service) as listing:
            time.sleep(1)
            before = self.service.memory()
            time.sleep(4)
            after = self.service.memory()
        self.check(asking, listing)
        self.assertLess(after - before, 32 << 20)

    def test_connections_that_send_half_a_body_and_stop(self) -> None:
        self.run_filled()
        with Child(ask_all, self.service) as asking, Child(list_all, self.service) as listing:
            time.sleep(1)
            before = self.service.memory()
            half = [self.send_part(MAX_BODY // 4, MAX_BODY // 8) for _ in range(HALF)]
            self.assertEqual(self.open_of(half), HALF)
            self.expect(200, self.service, "GET", "/health")
            # Now more than may be held at once.
            more = [self.send_part(MAX_BODY, MAX_BODY - 100) for _ in range(HALF // 2)]
            time.sleep(3)
            self.assertLess(self.open_of(more), len(more))
            most = self.service.memory()
        print(f"{most - before >> 20} MiB more while they are held")
        self.check(asking, listing)
        # Buffers grow in steps, and each connection needs something.
        self.assertLess(most - before, 3 * MAX_BUFFERED // 2)
        self.wait_for("the end of the half requests", lambda: not self.open_of(half + more), REQUEST_TIMEOUT + 5)
        self.expect(200, self.service, "GET", "/users/?limit=1")
        self.assertNotIn("Traceback", self.service.log())

    def send_part(self, size: int, sent: int) -> socket.socket:
        """Open a connection, and send the beginning of a body on it."""
        connection = socket.create_connection(("127.0.0.1", self.service.ports["api"]), 30)
        self.addCleanup(connection.close)
        head = ["POST /users/ HTTP/1.1", "Host: localhost", f"Authorization: Bearer {self.service.token}"]
        head += ["Content-Type: application/json", f"Content-Length: {size}", "", ""]
        with suppress(ConnectionError):
            connection.sendall("\r\n".join(head).encode() + b'{"name": "' + b"x" * sent)
        return connection

    def open_of(self, connections: Sequence[socket.socket]) -> int:
        """How many of them the service still has."""
        ours = {f"0100007F:{connection.getsockname()[1]:04X}" for connection in connections}
        return len(ours & self.service.open_connections("api"))


def percentile(took: Sequence[float], share: float) -> float:
    return sorted(took)[int(len(took) * share)]
