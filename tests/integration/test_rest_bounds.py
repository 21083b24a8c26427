"""Invalid requests, and limits of requests and connections."""

from __future__ import annotations

import contextlib
import json
import re
import select
import socket
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from chapps_tw.interfaces.book import Create
from chapps_tw.rest import server
from chapps_tw.rest.routing import MAX_BODY
from chapps_tw.rest.server import LINGER_BYTES
from tests.support.rest_client import Node


class BoundsTestCase(TestCase):
    def setUp(self) -> None:
        self.node = Node()
        self.node.start()
        self.addCleanup(self.node.stop)

    async def until(self, true: Callable[[], object]) -> None:
        while not true():
            await deferLater(reactor, 0.01)

    def all_read_or_refused(self, clients: int, size: int) -> bool:
        """Return whether each connection has read ``size`` bytes of its body, or has discarded it."""
        channels = self.node.api.site._channels
        read = [
            channel.refused or any(request._buffered == size for request in channel.requests) for channel in channels
        ]
        return len(read) == clients and all(read)

    def head(self, line: str, *headers: str) -> bytes:
        lines = [f"{line} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {self.node.token}", *headers, "", ""]
        return "\r\n".join(lines).encode()


def received(client: socket.socket) -> bytes:
    """Return what is received next, ``b""`` if the connection is closed."""
    with contextlib.suppress(ConnectionError):
        return client.recv(65536)
    return b""


class BodyTests(BoundsTestCase):
    async def test_a_body_that_is_not_json_is_rejected(self) -> None:
        for body in (
            b"{", b"", b" \n", b"\xff", b"[1,]", b'{"name": "a", "name": "b"}', b'{"name": NaN}', b'{"name": Infinity}',
            b'{"name": ' + b"9" * 10000 + b"}", b"[" * 100_000, b'{"name": "a"} x',
        ):  # fmt: skip
            answer = await self.node.ask("POST", "/users/", body, headers={"Content-Type": "application/json"})
            self.assertEqual(answer.status, 400, (body[:20], answer.body))
            self.assertIsInstance(answer.detail, str)

    async def test_json_of_another_shape_is_rejected(self) -> None:
        shapes: tuple[Any, ...] = (
            [],
            "x",
            5,
            True,
            {"name": 1e999},
            {"name": "\ud800"},
            {"\ud800": 1},
            {"name": {"a": [[[[]]]]}},
        )
        for body in shapes:
            answer = await self.node.ask("POST", "/users/", json.dumps(body).encode(), headers={})
            self.assertIn(answer.status, (400, 422), (body, answer.body))
        answer = await self.node.ask("POST", "/users/", b"null")
        self.assertEqual(answer.status, 422)

    async def test_validation_errors_have_plain_messages(self) -> None:
        control = "must not contain control characters such as tabs and line breaks"
        for method, path, body, sentence in (
            ("POST", "/users/", {"name": "a\tb"}, control),
            ("POST", "/users/", {}, "is missing"),
            ("POST", "/users/", {"name": ""}, "must not be empty"),
            ("POST", "/users/", {"name": "a" * 129}, "must have at most 128 characters"),
            ("POST", "/users/", {"name": 5}, "must be text"),
            ("POST", "/users/", {"name": "\ud800"}, "must be UTF-8 text"),
            ("POST", "/users/", {"name": "a", "quota": -1}, "must be at least 0"),
            ("POST", "/users/", {"name": "a", "quota": 10**999}, "must be at most 2147483647"),
            ("POST", "/users/", {"name": "a", "quota": "1"}, "must be a whole number"),
            ("POST", "/users/", {"name": "a", "quota": 1.5}, "must be a whole number"),
            ("POST", "/users/", {"name": "a", "domains": 1}, "must be a list"),
            ("POST", "/users/", {"name": "a", "domains": [1] * 1001}, "must have at most 1000 entries"),
            ("POST", "/users/", {"user": {"name": "a", "colour": 1}}, "is not a known field"),
            ("POST", "/users/", {"user": 5, "name": "a"}, "is not a known field"),
            ("POST", "/users/", [], "must be an object"),
            ("POST", "/domains/", {"name": "a", "greylist": 1}, "must be true or false"),
            ("POST", "/domains/", {"name": "a b"}, "must be a domain name"),
            ("POST", "/emails/", {"name": "a"}, "must have at least 3 characters"),
            ("POST", "/live/explain/", [], "must be an object"),
            ("POST", "/live/explain/", {}, "must not be empty"),
            ("POST", "/live/explain/", {"sender": 5}, "must be text"),
            ("POST", "/live/explain/", {"sender": "a\nb"}, "must not contain line breaks or NUL"),
            ("POST", "/live/explain/", {"sender": "a" * 16385}, "must have at most 16384 characters"),
            ("GET", "/users/?limit=many", None, "must be a whole number"),
            ("GET", "/users/" + "9" * 30, None, "must be a whole number; use GET /users/by-name/NAME to find the id"),
            ("GET", "/limits/hour", None, "must be a whole number"),
            ("GET", "/live/grl/tally/a%20b", None, "must be an IPv4 or IPv6 address, or a domain name"),
        ):
            answer = await self.node.ask(method, path, body)
            self.assertEqual(answer.status, 422, (path, body, answer.body))
            self.assertEqual([fault["msg"] for fault in answer.detail], [sentence], (path, body))

    async def test_bodies_that_are_not_json_have_plain_messages(self) -> None:
        for body, sentence in (
            (b'{"quota": ' + b"9" * 10000 + b"}", "The body is not JSON: a number has more than 1000 digits."),
            (b'{"name": "\xff"}', "The body is not UTF-8."),
            (b"\xef\xbb\xbf{}", "The body begins with a byte order mark, which JSON does not allow."),
        ):
            answer = await self.node.ask("POST", "/users/", body, headers={"Content-Type": "application/json"})
            self.assertEqual((answer.status, answer.detail), (400, sentence))

    async def test_every_error_is_listed(self) -> None:
        answer = await self.node.ask("POST", "/quotas/", {"name": "", "quota": "many"})
        self.assertEqual(answer.status, 422)
        self.assertEqual([fault["loc"] for fault in answer.detail], [["body", "name"], ["body", "quota"]])

    async def test_other_content_types_are_rejected_and_json_is_the_default(self) -> None:
        body = b'{"name": "alice"}'
        for kind in ("application/x-www-form-urlencoded", "text/plain", "application/json; charset=utf-16", "", "x"):
            answer = await self.node.ask("POST", "/users/", body, headers={"Content-Type": kind})
            self.assertEqual(answer.status, 415, kind)
        raw = self.head("POST /users/", f"Content-Length: {len(body)}", "Connection: close") + body
        self.assertIn(b" 201 ", (await self.node.send_raw(raw)).split(b"\r\n")[0])
        kind = 'Application/JSON; charset="UTF-8"'
        answer = await self.node.ask("POST", "/users/", b'{"name": "bob"}', headers={"Content-Type": kind})
        self.assertEqual(answer.status, 201)

    async def test_a_body_of_a_megabyte_is_read_and_a_larger_one_refused(self) -> None:
        kind = {"Content-Type": "application/json"}
        body = b'{"name": "alice"}'
        answer = await self.node.ask("POST", "/users/", body + b" " * (MAX_BODY - len(body)), headers=kind)
        self.assertEqual(answer.status, 201)
        answer = await self.node.ask("POST", "/users/", b" " * (MAX_BODY + 1), headers=kind)
        self.assertEqual(answer.status, 413)
        self.assertIsInstance(answer.detail, str)

    async def test_a_large_body_is_refused_before_it_is_sent(self) -> None:
        head = self.head("POST /users/", f"Content-Length: {10**12}", "Expect: 100-continue")
        answer = await self.node.send_raw(head)
        self.assertTrue(answer.startswith(b"HTTP/1.1 413 "), answer)
        self.assertNotIn(b"100 Continue", answer)

    async def test_a_large_chunked_body_is_refused_while_it_is_sent(self) -> None:
        chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
        answer = await self.node.send_raw(self.head("POST /users/", "Transfer-Encoding: chunked") + chunk * 20)
        self.assertTrue(answer.startswith(b"HTTP/1.1 413 "), answer[:100])
        self.assertEqual(self.node.api.site.buffered, 0)

    async def test_rejected_bodies_do_not_occupy_memory(self) -> None:
        most, clients, part = 4 << 20, 40, b" " * (MAX_BODY // 10)
        self.patch(server, "MAX_BUFFERED", most)
        # Keep them open until everything has been checked.
        self.patch(server, "LINGER", 600.0)
        address = ("127.0.0.1", self.node.port)
        connections = [socket.create_connection(address, 60) for _ in range(clients)]

        def send(data: bytes) -> None:
            for connection in connections:
                connection.sendall(data)

        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before = tracemalloc.get_traced_memory()[0]
        await deferToThread(send, self.head("POST /users/", f"Content-Length: {MAX_BODY}"))
        for sent in range(1, 10):
            await deferToThread(send, part)
            await self.until(partial(self.all_read_or_refused, clients, sent * len(part)))
        kept = tracemalloc.get_traced_memory()[0] - before
        for connection in connections:
            connection.close()
        self.assertGreater(kept, most // 2)
        # A growing buffer is an eighth larger than its contents.
        self.assertLess(kept, most * 3 // 2)
        await self.until(lambda: not self.node.api.site.connections)
        self.assertEqual(self.node.api.site.buffered, 0)

    async def test_a_rejected_client_that_continues_sending_is_read_for_a_limited_time(self) -> None:
        def pour() -> int:
            """Send until the connection is closed; return the number of bytes sent."""
            with socket.create_connection(("127.0.0.1", self.node.port), 60) as connection:
                connection.sendall(self.head("POST /users/", f"Content-Length: {10**12}"))
                poured = 0
                with contextlib.suppress(ConnectionError):
                    while True:
                        poured += connection.send(b" " * 65536)
                return poured

        # It pauses, once the server does not read any more.
        self.patch(server, "LINGER", 0.5)

        # The kernel accepts more than the server reads.
        self.assertLess(await deferToThread(pour), LINGER_BYTES + (16 << 20))

    async def test_a_body_is_counted_until_its_request_is_answered(self) -> None:
        entries, asked, go_on = self.node.book.entries, Deferred[None](), Deferred[None]()

        async def slow(*arguments: Any, **named: Any) -> Any:
            asked.callback(None)
            await go_on
            return await entries(*arguments, **named)

        self.patch(self.node.book, "entries", slow)
        whole = self.node.ask("GET", "/users/", b"{}", headers={"Content-Type": "application/json"})
        await asked
        self.assertEqual(self.node.api.site.buffered, 2)
        go_on.callback(None)
        self.assertEqual((await whole).status, 200)
        self.assertEqual(self.node.api.site.buffered, 0)

    async def test_a_chunked_body_is_read(self) -> None:
        head = self.head("POST /users/", "Transfer-Encoding: chunked", "Connection: close")
        answer = await self.node.send_raw(head + b'5\r\n{"nam\r\nc\r\ne": "alice"}\r\n0\r\n\r\n')
        self.assertTrue(answer.startswith(b"HTTP/1.1 201 "), answer)

    async def test_a_body_of_many_tiny_chunks_is_refused_early(self) -> None:
        head = self.head("POST /users/", "Transfer-Encoding: chunked")
        parsed: list[bytes] = []
        whole = server.BoundedRequest.handleContentChunk

        def counted(request: server.BoundedRequest, data: bytes) -> None:
            parsed.append(data)
            whole(request, data)

        self.patch(server.BoundedRequest, "handleContentChunk", counted)
        answer = await self.node.send_raw(head + b"1\r\n \r\n" * 10_000 + b"0\r\n\r\n")
        self.assertIn(b" 400 ", answer)
        self.assertIn(b"less than 16 bytes on average", answer)
        self.assertLess(len(parsed), 1000)

    async def test_some_tiny_chunks_are_read(self) -> None:
        head = self.head("POST /users/", "Transfer-Encoding: chunked", "Connection: close")
        answer = await self.node.send_raw(head + b"1\r\n \r\n" * 100 + b'11\r\n{"name": "alice"}\r\n0\r\n\r\n')
        self.assertTrue(answer.startswith(b"HTTP/1.1 201 "), answer)

    async def test_a_body_is_rejected_by_routes_without_one_unless_it_is_empty(self) -> None:
        self.assertEqual((await self.node.ask("GET", "/users/", {})).status, 200)
        self.assertEqual((await self.node.ask("GET", "/users/", {"q": "x"})).status, 422)


class PathAndQueryTests(BoundsTestCase):
    async def test_parameters_are_checked(self) -> None:
        for path in (
            "/users/?color=red", "/users/?limit=0", "/users/?limit=-1", "/users/?limit=1.5", "/users/?limit=true",
            "/users/?limit=", "/users/?limit=10001", "/users/?skip=1_0", "/users/?skip=%2B1", "/users/?limit=1&limit=2",
            "/users/?q=%00", "/users/?q=%FF", "/users/0", "/users/abc", "/users/1.5", "/users/2147483648",
            "/users/-1", "/users/99999999999999999999999999", "/users/quotas/?user_ids=x", "/users/1?q=x",
            "/users/quotas/?" + "&".join(f"user_ids={n}" for n in range(1, 1500)),
            "/users/?" + "&".join("q=x" for n in range(5000)),
        ):  # fmt: skip
            answer = await self.node.ask("GET", path)
            self.assertEqual(answer.status, 422, (path, answer.body))
            self.assertEqual(answer.headers["content-type"], "application/json")

    async def test_duplicate_parameters_are_rejected(self) -> None:
        self.assertEqual((await self.node.ask("GET", "/users/quotas/?user_ids=1", [2])).status, 422)
        self.assertEqual((await self.node.ask("GET", "/live/quota/0?name=a", "b")).status, 422)

    async def test_unknown_paths_are_404_and_unsupported_methods_405(self) -> None:
        for path in ("/nothing", "/users//", "/users/1/2/3", "/docs/../users", "/docs/x.js", "/%FF"):
            answer = await self.node.ask("GET", path)
            self.assertEqual(answer.status, 404, path)
            self.assertIsInstance(answer.detail, str)
        for method in ("PATCH", "OPTIONS", "TRACE", "BREW"):
            answer = await self.node.ask(method, "/users/")
            self.assertEqual(answer.status, 405, method)
            self.assertEqual(answer.headers["allow"], "DELETE, GET, HEAD, POST, PUT")

    async def test_a_path_of_more_segments_than_any_route_has_is_refused(self) -> None:
        self.assertEqual((await self.node.ask("GET", "/a" * 33)).status, 414)
        self.assertEqual((await self.node.ask("GET", "/a" * 32)).status, 404)

    async def test_every_status_has_its_reason_phrase(self) -> None:
        await self.node.book.change(Create("users", {"name": "taken"}))
        large = self.head("POST /users/", f"Content-Length: {10**9}")
        for request, line in (
            (self.head("GET /users/?x=1"), b"422 Unprocessable Content"), (large, b"413 Content Too Large"),
            (self.head("GET /nothing"), b"404 Not Found"), (self.head("BREW /users/"), b"405 Method Not Allowed"),
            (self.head("POST /users/", "Content-Length: 0"), b"400 Bad Request"),
            (self.head("POST /users/", "Content-Type: x", "Content-Length: 2") + b"{}", b"415 Unsupported Media Type"),
            (self.head("POST /users/", "Content-Length: 17") + b'{"name": "taken"}', b"409 Conflict"),
            (self.head("POST /users/", "Content-Length: 15") + b'{"name": "new"}', b"201 Created"),
            (b"GET /users/ HTTP/1.1\r\nHost: localhost\r\n\r\n", b"401 Unauthorized"),
            (b"GET /users/ HTTP/1.1\r\nHost: x\r\n\r\n", b"403 Forbidden"), (self.head("GET /health"), b"200 OK"),
        ):  # fmt: skip
            request = request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
            answer = await self.node.send_raw(request)
            self.assertEqual(answer.partition(b"\r\n")[0], b"HTTP/1.1 " + line)

    async def test_a_path_that_is_not_percent_encoded_is_reported(self) -> None:
        for target in ("/users/?q=Jürgen", "/live/quota/a b", "/é"):
            answer = await self.node.send_raw(self.head(f"GET {target}"))
            self.assertTrue(answer.startswith(b"HTTP/1.1 400 "), answer)
            self.assertIn("must be percent-encoded", json.loads(answer.partition(b"\r\n\r\n")[2])["detail"])

    async def test_head_is_get_without_the_body(self) -> None:
        full, head = await self.node.ask("GET", "/users/"), await self.node.ask("HEAD", "/users/")
        self.assertEqual((head.status, head.body), (200, b""))
        self.assertApproximates(int(head.headers["content-length"]), len(full.body), 4)
        self.assertEqual((await self.node.ask("HEAD", "/users/77")).status, 404)

    async def test_a_bug_is_an_internal_error_without_a_traceback(self) -> None:
        async def broken(*_: object, **__: object) -> None:
            raise ZeroDivisionError("a secret")

        self.patch(self.node.book, "entries", broken)
        answer = await self.node.ask("GET", "/users/")
        self.assertEqual((answer.status, answer.json), (500, {"detail": "Internal error."}))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class ConnectionTests(BoundsTestCase):
    async def test_input_that_is_not_http_is_rejected(self) -> None:
        for data in (b"\x16\x03\x01\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nbad header\r\n\r\n", b"G" * 70000):
            answer = await self.node.send_raw(data)
            self.assertTrue(answer.startswith(b"HTTP/1.1 400 "), answer)
            json.loads(answer.partition(b"\r\n\r\n")[2])

    async def test_a_request_that_is_never_complete_times_out_even_while_bytes_arrive(self) -> None:
        self.patch(self.node.api.site, "timeOut", 1.0)

        def drip() -> float:
            """Send a byte at intervals until the connection is closed; return the duration in seconds."""
            with socket.create_connection(("127.0.0.1", self.node.port), 5) as connection:
                begin = time.monotonic()
                connection.sendall(self.head("POST /users/", "Content-Length: 1000000"))
                connection.settimeout(0.1)
                while time.monotonic() < begin + 60:
                    try:
                        connection.sendall(b" ")
                        if connection.recv(1) == b"":
                            break
                    except TimeoutError:
                        pass
                    except OSError:
                        break
                return time.monotonic() - begin

        # Any longer, and there would be no timeout.
        self.assertTrue(1.0 <= await deferToThread(drip) < 60)
        await self.until(lambda: not self.node.api.site.connections)
        self.assertEqual(self.node.api.site.buffered, 0)

    async def test_requests_on_one_connection_are_answered_in_order(self) -> None:
        requests = self.head("GET /users/") + self.head("GET /nothing") + self.head("GET /health", "Connection: close")
        answer = await self.node.send_raw(requests)
        self.assertEqual(re.findall(rb"HTTP/1.1 (\d+)", answer), [b"200", b"404", b"200"])

    async def test_a_stop_answers_complete_requests_and_closes_other_connections(self) -> None:
        entries, asked, go_on = self.node.book.entries, Deferred[None](), Deferred[None]()

        async def slow(*arguments: Any, **named: Any) -> Any:
            asked.callback(None)
            await go_on
            return await entries(*arguments, **named)

        self.patch(self.node.book, "entries", slow)
        half = self.node.send_raw(self.head("POST /users/", "Content-Length: 1000"))
        whole = self.node.ask("GET", "/users/")
        await asked
        while self.node.api.site.connections < 2:
            await deferLater(reactor, 0.01)
        stopped = self.node.api.site.stop()
        self.assertEqual(await half, b"")
        self.assertFalse(stopped.called)
        go_on.callback(None)
        self.assertEqual((await whole).status, 200)
        await stopped

    async def test_a_slow_stop_can_be_cut_short(self) -> None:
        asked, never = Deferred[None](), Deferred[None]()

        async def stuck(*_: Any, **__: Any) -> Any:
            asked.callback(None)
            await never

        self.patch(self.node.book, "entries", stuck)
        half = self.node.send_raw(self.head("GET /users/"))
        await asked
        stopped = self.node.api.site.stop()
        self.assertFalse(stopped.called)
        self.node.api.site.abandon()
        await stopped
        self.assertEqual(await half, b"")

    async def test_connections_over_the_limit_are_closed(self) -> None:
        self.patch(self.node.api.site, "_max_connections", 3)

        def crowd() -> list[bytes]:
            """Return what five clients receive that are all connected before the first one sends a request."""
            with contextlib.ExitStack() as held:
                address = ("127.0.0.1", self.node.port)
                clients = [held.enter_context(socket.create_connection(address, 60)) for _ in range(5)]
                closed: set[socket.socket] = set()
                while len(closed) < 2:
                    closed.update(select.select(clients, [], [], 60)[0])
                for client in clients:
                    with contextlib.suppress(ConnectionError):
                        client.sendall(self.head("GET /health"))
                return [received(client)[:12] for client in clients]

        answers = await deferToThread(crowd)
        self.assertCountEqual(answers, [b"HTTP/1.1 200"] * 3 + [b""] * 2)
        await self.until(lambda: not self.node.api.site.connections)
        for _ in range(3):
            self.assertEqual((await self.node.ask("GET", "/health")).status, 200)

    async def hold(self, *sent: bytes) -> list[socket.socket]:
        """Return waiting connections that have sent something, in this order, and are known to the server."""
        held = []
        for data in sent:
            connection = socket.create_connection(("127.0.0.1", self.node.port), 30)
            self.addCleanup(connection.close)
            before = len(self.node.api.site._channels)
            connection.sendall(data)
            held.append(connection)
            while len(self.node.api.site._channels) == before and before < self.node.api.site._max_connections:
                await deferLater(reactor, 0.01)
            while data and not any(channel._receivedHeaderCount for channel in self.node.api.site._channels):
                await deferLater(reactor, 0.01)
        return held

    async def is_closed(self, connection: socket.socket) -> bool:
        def closed() -> bool:
            connection.settimeout(0.2)
            try:
                return connection.recv(1) == b""
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        return await deferToThread(closed)

    async def test_512_silent_connections_keep_nobody_out(self) -> None:
        held = await self.hold(*[b""] * server.MAX_CONNECTIONS)
        self.assertEqual(self.node.api.site.connections, server.MAX_CONNECTIONS)
        for _ in range(3):
            self.assertEqual((await self.node.ask("GET", "/health")).status, 200)
        self.assertTrue(await self.is_closed(held[0]))
        self.assertFalse(await self.is_closed(held[-1]))

    async def test_silent_connections_are_closed_before_those_with_a_partial_request(self) -> None:
        self.patch(self.node.api.site, "_max_connections", 3)
        begun, first, second = await self.hold(self.head("POST /users/", "Content-Length: 9")[:-2], b"", b"")
        for gone, stays in ((first, second), (second, begun)):
            # Each remains open afterwards, and replaces a silent one.
            asked = await self.hold(b"")
            while not await self.is_closed(gone):
                pass
            self.assertFalse(await self.is_closed(stays))
            self.assertFalse(await self.is_closed(asked[0]))

    async def test_partial_requests_are_closed_but_requests_in_progress_are_not(self) -> None:
        self.patch(self.node.api.site, "_max_connections", 2)
        entries, asked, go_on = self.node.book.entries, Deferred[None](), Deferred[None]()

        async def slow(*arguments: Any, **named: Any) -> Any:
            asked.callback(None)
            await go_on
            return await entries(*arguments, **named)

        self.patch(self.node.book, "entries", slow)
        whole = self.node.ask("GET", "/users/")
        await asked
        [begun] = await self.hold(self.head("POST /users/", "Content-Length: 9")[:-2])
        self.assertEqual((await self.node.ask("GET", "/health")).status, 200)
        self.assertTrue(await self.is_closed(begun))
        go_on.callback(None)
        self.assertEqual((await whole).status, 200)

    async def test_if_all_connections_are_busy_a_new_one_is_closed(self) -> None:
        self.patch(self.node.api.site, "_max_connections", 1)
        asked, never = Deferred[None](), Deferred[None]()

        async def stuck(*_: Any, **__: Any) -> Any:
            asked.callback(None)
            await never

        self.patch(self.node.book, "entries", stuck)
        half = self.node.send_raw(self.head("GET /users/"))
        await asked
        self.assertEqual(await self.node.send_raw(self.head("GET /health")), b"")
        self.node.api.site.abandon()
        await half

    async def test_long_lists_are_read_one_at_a_time(self) -> None:
        entries, at_once, most = self.node.book.entries, 0, 0

        async def counted(*arguments: Any, **named: Any) -> Any:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            try:
                return await entries(*arguments, **named)
            finally:
                at_once -= 1

        self.patch(self.node.book, "entries", counted)
        answers = await gatherResults([self.node.ask("GET", "/users/") for _ in range(16)])
        self.assertEqual([answer.status for answer in answers], [200] * 16)
        self.assertEqual(most, 1)
