"""How the service starts: the sockets it takes, and whom it tells."""

from __future__ import annotations

import signal
import socket
import sys
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.policy_client import PolicyClient, encode, outbound
from tests.support.servers.common import wait_until
from tests.support.servers.service import CLEAN, Service, shared_service, started

ACTIVATE = """\
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="policy")
os.execv(sys.argv[2], sys.argv[2:])
"""


class StartTests(unittest.TestCase):
    def test_systemd_may_hand_over_the_listening_socket(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        service = Service({"OutboundQuotaPolicy": {"listen": "systemd:domain=INET:index=0"}})
        self.addCleanup(service.remove)
        number = listener.fileno()
        prefix = [sys.executable, "-c", ACTIVATE, str(number)]
        client = PolicyClient(listener.getsockname())
        self.addCleanup(client.close)
        client.send(encode(outbound()))
        service.start(prefix=prefix, pass_fds=[number])
        self.assertRegex(client.answer(), "^REJECT ")

    def test_a_unix_socket_that_systemd_hands_over_is_there_for_the_next_start(self) -> None:
        path = Path(self.enterContext(TemporaryDirectory())) / "policy"
        listener = self.enterContext(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen()
        service = Service({"OutboundQuotaPolicy": {"listen": "systemd:domain=UNIX:index=0"}})
        self.addCleanup(service.remove)
        number = listener.fileno()
        for _ in range(2):
            client = self.enterContext(PolicyClient(str(path)))
            client.send(encode(outbound()))
            service.start(prefix=[sys.executable, "-c", ACTIVATE, str(number)], pass_fds=[number])
            self.assertRegex(client.answer(), "^REJECT ")
            self.assertIn(service.stop(), CLEAN)

    def test_it_tells_systemd_when_it_is_ready_and_when_it_stops(self) -> None:
        service = Service(first_start=True)
        self.addCleanup(service.remove)
        path = service.directory / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(path))
            notify.settimeout(60)
            service.launch({"NOTIFY_SOCKET": str(path)})
            self.assertIn(b"READY=1", notify.recv(4096).splitlines())
            with service.client() as client:
                self.assertRegex(client.ask(outbound()), "^REJECT ")
            service.signal(signal.SIGTERM)
            self.assertIn(b"STOPPING=1", notify.recv(4096).splitlines())
            wait_until(lambda: service.has_ended, "the end of the service")
        self.assertIn(service.stop(), CLEAN)

    def test_a_busy_port_is_refused_with_a_sentence(self) -> None:
        first = shared_service()
        second = Service({"OutboundQuotaPolicy": {"listen_port": first.ports["outbound"]}})
        self.addCleanup(second.remove)
        second.launch()
        wait_until(lambda: second.has_ended, "the end of the second service")
        self.assertNotEqual(second.stop(), 0)
        port = first.ports["outbound"]
        self.assertRegex(second.log(), rf"cannot start: .*listen_port = {port}: port {port} is taken")
        self.assertNotIn("Traceback", second.log())
        with first.client() as client:
            self.assertRegex(client.ask(outbound(sasl_username="nobody")), "^REJECT ")

    def test_a_unix_socket_is_listened_on(self) -> None:
        path = Path(self.enterContext(TemporaryDirectory())) / "policy"
        service = started(self, {"OutboundQuotaPolicy": {"listen": f"unix:{path}"}})
        with PolicyClient(str(path)) as client:
            self.assertEqual(client.ask(outbound()), "DUNNO")
        self.assertIn(service.stop(), CLEAN)
        self.assertFalse(path.exists())
        service.start()
        with PolicyClient(str(path)) as client:
            self.assertEqual(client.ask(outbound()), "DUNNO")
            service.kill()
        service.start()
        with PolicyClient(str(path)) as client:
            self.assertEqual(client.ask(outbound()), "DUNNO")

    def test_a_unix_socket_that_was_removed_does_not_spoil_the_stop(self) -> None:
        path = Path(self.enterContext(TemporaryDirectory())) / "policy"
        service = started(self, {"OutboundQuotaPolicy": {"listen": f"unix:{path}"}})
        with PolicyClient(str(path)) as client:
            self.assertEqual(client.ask(outbound(instance="last")), "DUNNO")
            path.unlink()
            self.assertIn(service.stop(), CLEAN)
        self.assertIn(" instance=last ", service.decisions())
        self.assertIn(f"was not closed: [Errno 2] No such file or directory: b'{path}'", service.log())
        self.assertNotIn("Traceback", service.log())
