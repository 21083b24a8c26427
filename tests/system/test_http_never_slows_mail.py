"""Many HTTP clients at once, and clients that never finish: mail does not wait for them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from http.client import HTTPConnection
from types import TracebackType

from chapps_tw.rest.routing import MAX_BODY
from chapps_tw.rest.server import MAX_BUFFERED
from tests.support.api_case import APITestCase, Database
from tests.support.load import Load
from tests.support.policy_client import outbound
from tests.support.servers.common import HANGS, wait_until
from tests.support.servers.service import PATIENT, Book, Options, Service
from tests.support.servers.sql import PostgreSQL

USERS = 1000
LISTING = 16
HALF = 100
ASKING = 8

# How many lists each client gets at least, while all get theirs and mail is asked about.
LISTS = 2
# Answers to mail during one list: there would be none if something held them up.
MANY = 10


class Listing:
    """Clients that list all users again and again, each over one connection.

    :ivar lists: when each list of a client was asked for, and whole.
    :ivar wrong: what was no list.
    """

    def __init__(self, service: Service) -> None:
        self.lists: list[list[tuple[float, float]]] = [[] for _ in range(LISTING)]
        self.wrong: list[str] = []
        self._service = service
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=[lists]) for lists in self.lists]

    def _run(self, lists: list[tuple[float, float]]) -> None:
        api = HTTPConnection("127.0.0.1", self._service.ports["api"], timeout=60)
        while not self._over.is_set():
            begin = time.monotonic()
            api.request("GET", f"/users/?limit={USERS}", headers={"Authorization": f"Bearer {self._service.token}"})
            answer = api.getresponse()
            body = answer.read()
            if answer.status != 200 or body.count(b'"name"') != USERS:
                self.wrong.append(f"{answer.status} {body[:200]!r}")
                return
            lists.append((begin, time.monotonic()))

    def wait(self, count: int) -> None:
        """Wait until each client has got so many lists, or one has got something else."""
        wait_until(lambda: self.wrong or min(map(len, self.lists)) >= count, f"{count} lists for each client")

    def __enter__(self) -> Listing:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


# Bytes of what takes a program long that goes back again and again; and the CPU seconds that it may take, with those of
# other work.
LONG = 60_000
STRETCH = 0.5

# Connections on which so many requests are sent without waiting for answers.
PIPELINES, AT_ONCE = 10, 1000

# By whom does not matter: none has a token.
HOSTILE = {
    "a line of blanks": b"GET " + b" " * LONG + b"\r\n\r\n",
    "a cookie of backslashes": b'GET /ui/ HTTP/1.1\r\nHost: localhost\r\nCookie: chapps_session="%b"\r\n\r\n'
    % (b"\\a" * (LONG // 2)),
    "many cookies": b"GET /ui/ HTTP/1.1\r\nHost: localhost\r\nCookie: " + b"a=b;" * (LONG // 4) + b"\r\n\r\n",
    "many segments": b"GET " + b"/a" * (LONG // 2) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


class StrangersTests(APITestCase):
    def test_no_request_of_a_stranger_takes_long(self) -> None:
        service = self.run_service()
        for name, request in HOSTILE.items():
            with self.subTest(name), socket.create_connection(("127.0.0.1", service.ports["api"]), HANGS) as connection:
                before = service.cpu_seconds()
                connection.sendall(request)
                self.assertTrue(connection.recv(100).startswith(b"HTTP/1.1 "))
                self.assertLess(service.cpu_seconds() - before, STRETCH)

    def test_requests_that_arrive_all_at_once_do_not_hold_up_mail(self) -> None:
        service = self.run_service(PATIENT)
        address = ("127.0.0.1", service.ports["api"])
        connections = [self.enterContext(socket.create_connection(address, HANGS)) for _ in range(PIPELINES)]
        threads = [threading.Thread(target=self.send_at_once, args=[each]) for each in connections]
        answered = 0
        with service.client() as client:
            client.ask(outbound())
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                client.ask(outbound())
                answered += 1
        self.assertGreater(answered, PIPELINES * MANY)

    def send_at_once(self, connection: socket.socket) -> None:
        connection.sendall(b"GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n" * AT_ONCE)
        answers = b""
        while answers.count(b"HTTP/1.1 ") < AT_ONCE:
            answers += connection.recv(1 << 20)


class HttpLoadTests(APITestCase):
    def run_filled(self, url: str = "", *options: Options) -> None:
        """A service with a thousand users. Ann may send as much as is asked here."""
        self.service = self.run_service(PATIENT, *options, set_up=bool(url))
        with Book(url or self.service.database) as book:
            book.user("ann", 10_000_000, ["example.com"])
            for number in range(USERS - 1):
                book.user(f"somebody{number}@customer{number % 50}.example", 1000)

    def check(self, mail: Load, listing: Listing) -> None:
        """Every list was whole; and while one was made, mail was answered many times."""
        self.assertEqual((listing.wrong, mail.broken), ([], []))
        self.assertEqual({asked.answer for asked in mail.asked}, {"DUNNO"})
        spans = [span for lists in listing.lists for span in lists]
        answered = sorted(
            sum(begin <= asked.begin and asked.end <= end for asked in mail.asked) for begin, end in spans
        )
        # Half of the lists: on a busy machine the load generator itself may stand still during one.
        self.assertGreater(answered[len(answered) // 2], MANY)

    def test_clients_that_list_a_thousand_users_in_a_loop(self) -> None:
        self.run_filled()
        self.list_and_ask()

    def test_the_same_with_postgresql_and_redis(self) -> None:
        database = Database(PostgreSQL)
        redis: Options = {"Redis": {"server": "127.0.0.1", "port": self.run_redis().port}}
        self.run_filled(database.url, database.options, redis)
        self.list_and_ask()

    def list_and_ask(self) -> None:
        with Load([self.service], ASKING, pause=0.0) as mail, Listing(self.service) as listing:
            listing.wait(LISTS)
            before = self.service.memory()
            listing.wait(2 * LISTS)
            after = self.service.memory()
        self.check(mail, listing)
        # More than once each while the service is busy with one list.
        self.assertGreater(len(mail.asked), ASKING * sum(map(len, listing.lists)))
        self.assertLess(after - before, 32 << 20)

    def test_connections_that_send_half_a_body_and_stop(self) -> None:
        self.run_filled()
        with Load([self.service], ASKING, pause=0.0) as mail, Listing(self.service) as listing:
            listing.wait(1)
            before = self.service.memory()
            half = [self.send_part(MAX_BODY // 2, MAX_BODY * 3 // 8) for _ in range(HALF)]
            self.assertEqual(self.open_of(half), HALF)
            self.expect(200, self.service, "GET", "/health")
            # Now more than may be held at once.
            more = [self.send_part(MAX_BODY, MAX_BODY - 100) for _ in range(HALF)]
            self.wait_for("the end of some", lambda: self.open_of(more) < len(more))
            most = self.service.memory()
        self.check(mail, listing)
        # Buffers grow in steps, and each connection needs something.
        self.assertLess(most - before, 3 * MAX_BUFFERED // 2)
        self.wait_for("the end of the half requests", lambda: not self.open_of(half + more))
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
