"""Access control of the API."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import stat
import tempfile
from dataclasses import replace
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from unittest import TestCase as PlainTestCase

from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorUNIX
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.test.requesthelper import DummyRequest

from chapps_tw.config.settings import API as APISection
from chapps_tw.config.settings import Settings
from chapps_tw.observe.log_limit import LogLimit
from chapps_tw.rest import auth
from chapps_tw.rest.auth import CREDENTIALS, FORGET_AFTER, FREE_FAILURES, Gate
from chapps_tw.rest.routing import Refusal
from chapps_tw.security.tokens import FIRST, TokenError, TokenStore
from tests.support.rest_client import Node
from tests.support.scopes import scope_of


class TokenTests(TestCase):
    def setUp(self) -> None:
        self.node = Node()
        self.node.start()
        self.addCleanup(self.node.stop)

    async def status(self, method: str = "GET", path: str = "/users/", **more: object) -> int:
        return (await self.node.ask(method, path, **more)).status

    async def test_every_route_but_health_and_the_redirects_to_the_page_needs_a_token(self) -> None:
        for route in self.node.api.routes:
            path = route.path.replace("{", "").replace("}", "").replace("user_id", "1")
            answer = await self.node.ask(route.method, path, token="")
            self.assertEqual(answer.status, {"/health": 200, "/": 307}.get(route.path, 401), route.path)
            if answer.status == 401:
                self.assertIn('Bearer realm="chapps"', answer.headers["www-authenticate"])
                self.assertEqual(answer.headers["content-type"], "application/json")

    def logged(self) -> list[str]:
        """Return a list that receives what the gate logs from now on."""
        lines: list[str] = []

        def observe(event: LogEvent) -> None:
            if event.get("log_namespace", "").startswith("chapps_tw.rest.auth"):
                lines.append(formatEvent(event))

        observer: Any = observe
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        return lines

    async def test_a_wrong_token_is_refused_and_logged_once(self) -> None:
        lines = self.logged()
        for header in ("Bearer wrong", "Bearer", "Bearer ", "bearer " + self.node.token[:-1], "Bearer \xff\xfe"):
            self.assertEqual(await self.status(headers={"Authorization": header}), 401, header)
        self.assertEqual(await self.status(headers={"Authorization": "bEARER " + self.node.token}), 200)
        self.assertEqual(lines, ["HTTP: 1 wrong token from 127.0.0.1"])
        await self.node.api.stop()
        self.assertEqual(lines[1:], ["HTTP: 4 wrong tokens from 127.0.0.1"])

    async def test_failures_from_many_addresses_do_not_fill_the_log(self) -> None:
        lines = self.logged()

        def guess(source: str) -> int:
            connection = HTTPConnection("127.0.0.1", self.node.port, 10, (source, 0))
            with contextlib.closing(connection):
                connection.request("GET", "/users/", headers={"Authorization": "Bearer guess"})
                return connection.getresponse().status

        for number in range(30):
            self.assertEqual(await deferToThread(guess, f"127.0.1.{number}"), 401)
        self.assertEqual(lines[9], "HTTP: 1 wrong token from 127.0.1.9")
        self.assertEqual(len(lines), 11)

    async def test_wrong_tokens_delay_only_their_own_client(self) -> None:
        held: list[tuple[float, Deferred[None]]] = []

        def hold(seconds: float) -> Deferred[None]:
            held.append((seconds, Deferred()))
            return held[-1][1]

        self.patch(self.node.api.gate, "_sleep", hold)
        for _ in range(FREE_FAILURES):
            self.assertEqual(await self.status(token="guess"), 401)
        self.assertEqual(held, [])
        guesses = [Deferred.fromCoroutine(self.status(token="guess")) for _ in range(4)]
        while len(held) < len(guesses):
            await deferLater(reactor, 0.01)
        self.assertEqual(await self.status(), 200)
        self.assertFalse(any(guess.called for guess in guesses))
        delays = [seconds for seconds, _ in held]
        self.assertEqual(delays, sorted(delays))
        self.assertGreater(sum(delays), 1.0)
        for _, each in held:
            each.callback(None)
        self.assertEqual(await gatherResults(guesses), [401] * 4)

    async def test_a_read_only_token_cannot_change_anything(self) -> None:
        token = self.node.tokens.create("monitor", "read", 1.0)
        self.assertEqual(await self.status(token=token), 200)
        self.assertEqual(await self.status("POST", "/live/explain/", body={"sender": "x"}, token=token), 200)
        for method, path, body in (
            ("POST", "/users/", {"name": "alice"}),
            ("DELETE", "/users/", [1]),
            ("DELETE", "/live/quota/1", None),
            ("POST", "/live/quota/1", None),
            ("POST", "/live/config/write/", "x"),
        ):
            self.assertEqual(await self.status(method, path, body=body, token=token), 403)

    async def test_tokens_are_made_and_revoked_without_a_restart(self) -> None:
        token = self.node.tokens.create("billing", "full", 1.0)
        self.assertEqual(await self.status(token=token), 200)
        elsewhere = TokenStore(str(Path(self.node.directory.name, "api-token")))
        self.assertTrue(elsewhere.revoke("billing"))
        self.assertEqual(await self.status(token=token), 401)
        self.assertTrue(elsewhere.revoke(FIRST))
        self.assertEqual(await self.status(), 401)

    async def test_a_browser_may_send_the_token_as_a_password_to_the_documentation_only(self) -> None:
        basic = {"Authorization": "Basic " + base64.b64encode(f":{self.node.token}".encode()).decode()}
        for path, status in (("/docs", 200), ("/docs/docs.js", 200), ("/openapi.json", 200), ("/users/", 401)):
            self.assertEqual(await self.status("GET", path, headers=basic), status)
        challenge = (await self.node.ask("GET", "/docs", token="")).headers["www-authenticate"]
        self.assertIn("Basic ", challenge)

    async def test_unknown_host_names_are_refused(self) -> None:
        for host, status in (
            ("localhost", 200), ("LOCALHOST:8080", 200), ("127.0.0.1:1", 200), ("[::1]:8080", 200), ("[::1]", 200),
            ("evil.example", 403), ("localhost.evil.example", 403), ("", 403), ("[::2]", 403), ("::1", 403),
        ):  # fmt: skip
            self.assertEqual(await self.status(headers={"Host": host}), status, host)
            self.assertEqual(await self.status(path="/nothing", headers={"Host": host}), 404 if status == 200 else 403)

    async def test_pages_of_other_sites_are_refused(self) -> None:
        for origin, status in (
            ("http://localhost:8080", 200), ("https://127.0.0.1", 200), ("http://evil.example", 403), ("null", 403),
        ):  # fmt: skip
            self.assertEqual(await self.status(headers={"Origin": origin}), status, origin)

    async def test_a_request_without_a_host_or_with_two_is_refused(self) -> None:
        for hosts in ("", "Host: localhost\r\nHost: localhost\r\n"):
            answer = await self.node.send_raw(f"GET /health HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n".encode())
            self.assertIn(b" 400 ", answer.split(b"\r\n")[0])

    async def test_the_host_of_a_target_in_absolute_form_is_checked(self) -> None:
        for target, host, status in (
            ("http://localhost/health", "localhost", 200), ("HTTP://LocalHost:80/health?", "evil.example", 200),
            ("https://127.0.0.1/health/", "localhost", 200), ("http://[::1]:8080/health", "localhost", 200),
            ("http://evil.example/health", "localhost", 403), ("http://localhost@x/health", "localhost", 403),
            ("http:///health", "localhost", 403), ("http://localhost", "localhost", 307),
            ("http://localhost?x=http://localhost/health", "localhost", 422),
            ("http://localhost/health?x=1", "localhost", 422), ("http://localhost/health", "a\r\nHost: b", 400),
            ("ftp://localhost/health", "localhost", 404), ("/http://localhost/health", "localhost", 404),
        ):  # fmt: skip
            head = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
            answer = await self.node.send_raw(head.encode())
            self.assertEqual(int(answer.split()[1]), status, target)

    async def test_unreadable_token_files_admit_nobody(self) -> None:
        lines = self.logged()
        tokens = Path(self.node.directory.name, "api-tokens.json")
        tokens.write_text("{")
        for _ in range(3):
            answer = await self.node.ask("GET", "/users/")
            self.assertEqual((answer.status, answer.detail), (503, "The API tokens cannot be read."))
        self.assertEqual(len(lines), 1)
        self.assertIn("api-tokens.json", lines[0])
        self.assertEqual(await self.status("GET", "/health", token=""), 200)
        tokens.unlink()
        self.assertEqual(await self.status(), 200)
        self.assertEqual(lines[1:], ["HTTP: the API tokens can be read again"])

    async def test_a_unix_socket_is_served_too(self) -> None:
        path = str(Path(self.node.directory.name, "api.sock"))
        port = IReactorUNIX(reactor).listenUNIX(path, self.node.api.site)  # type: ignore[arg-type]
        self.addCleanup(port.stopListening)

        def ask(token: str) -> bytes:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(60)
                connection.connect(path)
                head = f"GET /users/ HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
                connection.sendall(f"{head}Connection: close\r\n\r\n".encode())
                return connection.recv(65536).split(b"\r\n")[0]

        self.assertIn(b" 200 ", await deferToThread(ask, self.node.token))
        self.assertIn(b" 401 ", await deferToThread(ask, "wrong"))


class FailureLogTests(SynchronousTestCase):
    """Logging of wrong credentials."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.lines: list[str] = []
        self.gate = Gate([], None, self.clock, partial(deferLater, self.clock))
        self.patch(self.gate, "_log", self)
        self.patch(self.gate, "_complaints", {what: LogLimit(self.warn, self.clock.seconds) for what in CREDENTIALS})

    def warn(self, line: str, **values: Any) -> None:
        self.lines.append(line.format(**values))

    def guess(self, what: str = "token", address: str = "192.0.2.1") -> None:
        request: Any = DummyRequest([b""])
        request.getClientAddress = lambda: IPv4Address("TCP", address, 1)
        Deferred.fromCoroutine(self.gate.punish(request, what))

    def told(self) -> list[str]:
        """Return the lines since the last call."""
        lines, self.lines[:] = self.lines[:], []
        return lines

    def test_the_remaining_failures_are_logged_after_the_attack(self) -> None:
        for _ in range(9):
            self.guess()
        self.assertEqual(self.told(), ["HTTP: 1 wrong token from 192.0.2.1"])
        self.clock.advance(FORGET_AFTER - 1)
        self.assertEqual(self.told(), [])
        self.clock.advance(1)
        self.assertEqual(self.told(), ["HTTP: 8 wrong tokens from 192.0.2.1"])
        self.clock.pump([FORGET_AFTER] * 3)
        self.assertEqual((self.told(), self.clock.getDelayedCalls()), ([], []))
        self.guess()
        self.assertEqual(self.told(), ["HTTP: 1 wrong token from 192.0.2.1"])

    def test_a_continuing_attack_is_logged_once_a_minute(self) -> None:
        for _ in range(50):
            self.clock.advance(10)
            self.guess()
        self.assertEqual(len(self.told()), 9)

    def test_credentials_and_addresses_are_logged_separately(self) -> None:
        for number in range(50):
            self.guess(address=f"198.51.100.{number}")
        self.told()
        self.guess("passcode")
        self.guess("passcode", "192.0.2.2")
        found = [f"HTTP: 1 wrong passcode from 192.0.2.{last}" for last in (1, 2)]
        self.assertEqual(self.told(), found)

    def test_a_stop_logs_pending_failures_and_leaves_no_timer(self) -> None:
        for _ in range(3):
            self.guess("passcode")
        self.told()
        self.gate.stop()
        self.assertEqual(self.told(), ["HTTP: 2 wrong passcodes from 192.0.2.1"])
        self.guess("passcode")
        self.clock.advance(1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failures_of_an_evicted_address_are_logged(self) -> None:
        self.patch(auth, "MAX_PEERS", 2)
        for _ in range(5):
            self.guess()
        self.told()
        for last in (2, 3):
            self.guess(address=f"192.0.2.{last}")
        self.assertIn("HTTP: 4 wrong tokens from 192.0.2.1", self.told())
        self.assertEqual(len(self.gate._peers), 2)


class NoAuthTests(TestCase):
    async def test_without_authentication_host_names_are_still_checked(self) -> None:
        node = Node(replace(Settings(), api=replace(APISection(), auth="none")))
        node.start()
        self.addCleanup(node.stop)
        self.assertEqual((await node.ask("GET", "/users/", token="")).status, 200)
        self.assertEqual((await node.ask("GET", "/users/", token="", headers={"Host": "evil.example"})).status, 403)


class OpenReadyTests(TestCase):
    """``[API] open_ready``: what asks from this host whether the service is ready needs no token."""

    def start(self, open_ready: bool) -> Node:
        node = Node(replace(Settings(), api=replace(APISection(), open_ready=open_ready)))
        node.start()
        self.addCleanup(node.stop)
        return node

    async def test_loopback_addresses_need_no_token_for_ready_and_for_nothing_else(self) -> None:
        node = self.start(True)
        for path, status in (("/ready", 200), ("/ready/", 200), ("/metrics", 401), ("/users/", 401)):
            self.assertEqual((await node.ask("GET", path, token="")).status, status, path)
        self.assertEqual((await node.ask("GET", "/ready", token="", headers={"Host": "evil.example"})).status, 403)
        self.assertEqual((await node.ask("GET", "/ready")).status, 200)

    async def test_it_is_off_by_default(self) -> None:
        self.assertEqual((await self.start(APISection().open_ready).ask("GET", "/ready", token="")).status, 401)

    async def test_others_need_a_token(self) -> None:
        gate = self.start(True).api.gate
        route = next(route for route in self.start(True).api.routes if route.path == "/ready")
        for address, admitted in (
            (IPv4Address("TCP", "127.0.0.1", 1), True),
            (IPv6Address("TCP", "::1", 1), True),
            (IPv6Address("TCP", "::ffff:127.0.0.1", 1), True),
            (IPv4Address("TCP", "192.0.2.1", 1), False),
            (IPv6Address("TCP", "2001:db8::1", 1), False),
            (UNIXAddress(b""), False),
        ):
            request: Any = DummyRequest([b""])
            request.getClientAddress = lambda address=address: address
            if admitted:
                self.assertEqual(await gate.check_token(request, route), "")
            else:
                with self.assertRaises(Refusal):
                    await gate.check_token(request, route)


class TokenStoreTests(PlainTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name, "api-token")
        self.store = TokenStore(str(self.path))

    def test_the_first_token_is_created_once_with_mode_0600(self) -> None:
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        self.assertTrue(self.store.make_first())
        token = self.path.read_text()
        self.assertFalse(self.store.make_first())
        self.assertEqual(self.path.read_text(), token)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        self.assertEqual(scope_of(self.store, token.strip()), "full")

    def test_tokens_are_stored_hashed_with_mode_0600(self) -> None:
        token = self.store.create("billing", "read", 5.0)
        others = self.path.with_name("api-tokens.json")
        self.assertEqual(stat.S_IMODE(others.stat().st_mode), 0o600)
        self.assertNotIn(token, others.read_text())
        self.assertEqual(scope_of(self.store, token), "read")
        [kept] = self.store.list()
        self.assertEqual((kept.name, kept.scope, kept.created), ("billing", "read", 5.0))

    def test_names_are_unique(self) -> None:
        self.store.create("billing", "read", 5.0)
        for name in ("billing", FIRST, "", "x" * 65, "a\nb"):
            with self.assertRaises(TokenError):
                self.store.create(name, "full", 6.0)
        with self.assertRaises(TokenError):
            self.store.create("other", "write", 6.0)

    def test_a_revoked_token_is_invalid(self) -> None:
        token = self.store.create("billing", "read", 5.0)
        self.assertTrue(self.store.revoke("billing"))
        self.assertFalse(self.store.revoke("billing"))
        self.assertIsNone(self.store.find(token))

    def test_an_empty_first_token_admits_nobody(self) -> None:
        self.store.make_first()
        self.assertTrue(self.store.revoke(FIRST))
        self.assertFalse(self.store.make_first())
        self.assertIsNone(self.store.find(""))

    def test_a_damaged_file_is_reported(self) -> None:
        for text in ("{", "[1]", '[{"name": "x"}]', '{"a": 1}'):
            self.path.with_name("api-tokens.json").write_text(text)
            with self.assertRaisesRegex(TokenError, "api-tokens.json"):
                TokenStore(str(self.path)).find("x")
