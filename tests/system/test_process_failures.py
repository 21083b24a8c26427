"""What happens when one of several processes ends, or the main process does."""

from __future__ import annotations

import os
import resource
import signal
import socket
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.policy_client import outbound
from tests.support.servers.common import listening, wait_until
from tests.support.servers.postfix import Postfix
from tests.support.servers.service import CLEAN, Service, new_name
from tests.support.smtp_client import SMTPClient
from tests.support.worker_pids import connections, is_running, workers
from tests.system.test_service_metrics import Scraped, scrape
from tests.system.test_several_processes import SeveralProcessesCase, shared

ANN = "ann@example.com"
SESSIONS, KILLS = 6, 3


class Sessions:
    """SMTP sessions that send one message after the other.

    :ivar replies: reply codes of all recipients and messages.
    """

    def __init__(self, postfix: Postfix, user: str) -> None:
        self.replies: list[int] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=[postfix, user]) for _ in range(SESSIONS)]
        for thread in self._threads:
            thread.start()

    def _send(self, postfix: Postfix, user: str) -> None:
        with SMTPClient(postfix.port) as client:
            client.xclient(ADDR="203.0.113.5", NAME="laptop.example.net", LOGIN=user)
            while not self._over.is_set():
                told = client.message(ANN, ["bob@example.net"])
                self.replies.append(told.end[0] if told.end else told.codes[0])

    def wait(self, more: int = 30) -> None:
        """Wait for more messages."""
        wanted = len(self.replies) + more
        wait_until(lambda: len(self.replies) >= wanted, f"{more} more messages")

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


class KilledProcessTests(SeveralProcessesCase):
    def test_postfix_does_not_notice_that_processes_are_killed_and_come_back(self) -> None:
        user = new_name("ann")
        self.service.add_user(user, 100_000, ["example.com"])
        endpoint = self.service.endpoint()
        postfix = Postfix({"RCPT": [endpoint], "END-OF-MESSAGE": [endpoint]})
        self.addCleanup(postfix.stop)
        sessions = Sessions(postfix, user)
        self.addCleanup(sessions.stop)
        for _ in range(KILLS):
            sessions.wait()
            self.kill_the_busiest()
        sessions.wait()
        sessions.stop()
        self.assertEqual(set(sessions.replies), {250})
        self.assertEqual(100_000 - self.service.remaining(user), len(sessions.replies))

    def kill_the_busiest(self) -> None:
        [(number, _)] = connections(self.service).most_common(1)
        killed = workers(self.service)[number]
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: workers(self.service)[number] != killed, "the next process")
        self.service.log("killed by SIGKILL")
        self.service.wait_ready()

    def test_counters_do_not_decrease_when_a_process_ends(self) -> None:
        clients = [self.service.client() for _ in range(20)]
        for client in clients:
            client.ask(outbound())
            self.addCleanup(client.close)
        before = Scraped(scrape(self.service))
        self.kill_the_busiest()
        after = Scraped(scrape(self.service))
        for name in ("chapps_decisions_total", "chapps_answer_seconds_count", "process_cpu_seconds_total"):
            self.assertGreaterEqual(after.value(name), before.value(name))
        self.assertEqual(after.since(before, "chapps_process_restarts_total"), 1)


class EndTests(SeveralProcessesCase):
    def start(self) -> tuple[Service, list[int]]:
        service = Service(shared(self.redis, 2))
        self.addCleanup(service.remove)
        service.start().wait_ready()
        return service, list(workers(service).values())

    def test_a_stop_answers_what_is_pending_and_ends_all(self) -> None:
        service, pids = self.start()
        service.add_user("ann", 9, ["example.com"])
        clients = [service.client() for _ in range(6)]
        self.redis.hang()
        for client in clients:
            client.send(b"".join(f"{name}={value}\n".encode() for name, value in outbound().items()) + b"\n")
        wait_until(lambda: Scraped(scrape(service)).value("chapps_in_flight", listener="outbound") == 6, "all pending")
        service.signal(signal.SIGTERM)
        self.redis.go_on()
        self.assertEqual({client.answer() for client in clients}, {"DUNNO"})
        self.assertIn(service.stop(), CLEAN)
        self.assertEqual([pid for pid in pids if is_running(pid)], [])
        self.assertEqual(service.decisions().count("reason=within_quota"), 6)

    def test_all_end_when_the_main_process_is_killed(self) -> None:
        service, pids = self.start()
        service.kill()
        wait_until(lambda: not any(map(is_running, pids)), "the end of all")
        # Its last threads may take a moment.
        wait_until(lambda: not listening(service.ports["outbound"]), "the end of the port")

    def test_a_process_that_is_told_to_end_is_started_again(self) -> None:
        service, pids = self.start()
        os.kill(pids[0], signal.SIGTERM)
        wait_until(lambda: set(workers(service).values()) != set(pids), "another one")
        service.wait_ready()

    def test_a_process_is_started_with_the_configuration_of_the_main_process(self) -> None:
        service, pids = self.start()
        service.config.write_text("[CHAPPS]\nprocesses = nonsense\n")
        os.kill(pids[0], signal.SIGKILL)
        wait_until(lambda: set(workers(service).values()) != set(pids), "another one")
        service.wait_ready()

    def test_a_process_that_cannot_be_started_for_lack_of_descriptors_is_started_later(self) -> None:
        service, pids = self.start()
        limits = resource.prlimit(service.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (1, limits[1]))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for number in (1, 2):
            service.log(f"process {number} cannot be started ([Errno 24] Too many open files)")
        resource.prlimit(service.pid, resource.RLIMIT_NOFILE, limits)
        wait_until(lambda: not set(pids) & set(workers(service).values()), "other processes")
        service.wait_ready()
        service.add_user("ann", 9, ["example.com"])
        with service.client() as client:
            self.assertEqual(client.ask(outbound()), "DUNNO")

    def test_a_process_whose_output_another_one_holds_open_is_started_again(self) -> None:
        service, pids = self.start()
        held = os.open(f"/proc/{pids[0]}/fd/1", os.O_WRONLY)
        self.addCleanup(os.close, held)
        os.kill(pids[0], signal.SIGKILL)
        wait_until(lambda: pids[0] not in workers(service).values(), "another one")
        service.wait_ready()

    def test_systemd_is_told_when_all_of_them_are_ready(self) -> None:
        path = Path(self.enterContext(TemporaryDirectory()), "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(path))
            service = Service(shared(self.redis, 3))
            self.addCleanup(service.remove)
            service.launch({"NOTIFY_SOCKET": str(path)})
            manager.settimeout(200)
            self.assertEqual(manager.recv(100), b"READY=1")
            service.log("answers Postfix", 3)
            service.signal(signal.SIGTERM)
            self.assertEqual(manager.recv(100), b"STOPPING=1")
            # The processes themselves tell it nothing.
            self.assertIn(service.stop(), CLEAN)
            manager.setblocking(False)
            self.assertRaises(BlockingIOError, manager.recv, 100)
