"""Ports of every kind that several processes share."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import stat
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.policy_client import PolicyClient, encode, outbound
from tests.support.servers.common import free_port, wait_until
from tests.support.servers.redis import Authority
from tests.support.servers.service import CLEAN, Service
from tests.support.worker_pids import workers
from tests.system.test_service_start import ACTIVATE
from tests.system.test_several_processes import SeveralProcessesCase, shared

PROXIED = b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 10225\r\n"


class SharedPortsTests(SeveralProcessesCase):
    folder: Path
    tls: int
    proxied: int

    @classmethod
    def setUpClass(cls) -> None:
        cls.redis = cls.run_redis()
        cls.folder = Path(cls.enterClassContext(TemporaryDirectory()))
        cls.tls, cls.proxied = free_port(), free_port()
        authority = Authority(cls.folder)
        certificate, key = authority.issue("127.0.0.1")
        where = {
            "tls": f"ssl:{cls.tls}:interface=127.0.0.1:privateKey={key}:certKey={certificate}",
            "unix": f"unix:{cls.folder}/policy.sock:mode=660:backlog=7",
            "proxied": f"haproxy:tcp:{cls.proxied}:interface=127.0.0.1",
        }
        listeners = {f"Listener {name}": {"listen": listen} for name, listen in where.items()}
        cls.service = cls.run_service(shared(cls.redis, 2), listeners)
        cls.service.add_user("ann", 100_000, ["example.com"])

    def test_a_unix_socket_keeps_its_mode_and_is_removed_at_the_end(self) -> None:
        path = self.folder / "policy.sock"
        for _ in range(2):
            with PolicyClient(str(path)) as client:
                self.assertEqual(client.ask(outbound()), "DUNNO")
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o660)
            self.kill_one()

    def test_tls_is_spoken(self) -> None:
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        plain = self.enterContext(socket.create_connection(("127.0.0.1", self.tls)))
        secure = self.enterContext(context.wrap_socket(plain, server_hostname="127.0.0.1"))
        secure.sendall(encode(outbound()))
        self.assertEqual(secure.recv(100), b"action=DUNNO\n\n")

    def test_the_address_that_a_proxy_tells_is_understood(self) -> None:
        with PolicyClient(("127.0.0.1", self.proxied)) as client:
            client.send(PROXIED + encode(outbound()))
            self.assertEqual(client.answer(), "DUNNO")

    def kill_one(self) -> None:
        before = workers(self.service)
        os.kill(before[1], signal.SIGKILL)
        wait_until(lambda: workers(self.service)[1] != before[1], "the next process")


class SystemdTests(SeveralProcessesCase):
    def test_a_socket_of_systemd_stays_open_for_the_next_start(self) -> None:
        port = self.enterContext(socket.create_server(("127.0.0.1", 0)))
        where = {"OutboundQuotaPolicy": {"listen": "systemd:domain=INET:name=policy"}}
        service = Service({**shared(self.redis, 2), **where})
        self.addCleanup(service.remove)
        number = port.fileno()
        for _ in range(2):
            # It waits in the queue of the socket until the service has started.
            client = self.enterContext(PolicyClient(port.getsockname()))
            client.send(encode(outbound()))
            service.start(prefix=[sys.executable, "-c", ACTIVATE, str(number)], pass_fds=[number])
            self.assertRegex(client.answer(), "^REJECT ")
            self.assertIn(service.stop(), CLEAN)
