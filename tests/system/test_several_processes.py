"""Several processes on one port: exact counts, one HTTP address for all, and the end of one that nobody notices."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

from tests.support.api_case import APITestCase
from tests.support.load import Load
from tests.support.policy_client import PolicyClient, outbound
from tests.support.servers.common import wait_until
from tests.support.servers.receivers import SmtpReceiver
from tests.support.servers.redis import RedisProcess
from tests.support.servers.service import PATIENT, Options, Service, new_name
from tests.support.worker_pids import connections, workers
from tests.system.test_service_metrics import Scraped, scrape

PROCESSES, CONNECTIONS, EACH, QUOTA = 4, 30, 60, 1000
OFFERED = CONNECTIONS * EACH
REFUSED = OFFERED - QUOTA


def shared(redis: RedisProcess, processes: int = PROCESSES) -> Options:
    return {
        "CHAPPS": {**PATIENT["CHAPPS"], "processes": processes},
        "Redis": {"server": "127.0.0.1", "port": redis.port},
        "OutboundQuotaPolicy": {"margin": 0},
    }


class SeveralProcessesCase(APITestCase):
    redis: RedisProcess
    service: Service

    @classmethod
    def setUpClass(cls) -> None:
        cls.redis = cls.run_redis()
        cls.service = cls.run_service(shared(cls.redis))

    def user(self, quota: int) -> str:
        name = new_name("ann")
        self.service.add_user(name, quota, ["example.com"])
        return name

    def decisions(self, query: str) -> list[dict[str, Any]]:
        found = self.expect(200, self.service, "GET", f"/live/decisions/?limit=1000&{query}")["response"]
        assert isinstance(found, list)
        return found


class CountingTests(SeveralProcessesCase):
    def test_a_thousand_of_1800_messages_pass_and_one_address_tells_of_all(self) -> None:
        user, before = self.user(QUOTA), Scraped(scrape(self.service))
        with Load([self.service], CONNECTIONS, 0.0, EACH, question=lambda: outbound(sasl_username=user)) as load:
            wait_until(lambda: len(load.asked) >= CONNECTIONS, "all connections")
            self.check_everybody_works()
            load.wait()
        self.assertEqual((load.broken, len(load.asked), load.passed), ([], OFFERED, QUOTA))
        self.assertEqual(self.service.remaining(user), 0)
        self.check_metrics(before)
        self.check_told(user)

    def check_everybody_works(self) -> None:
        """No process has most of the connections."""
        found = connections(self.service)
        self.assertEqual(sorted(found), list(range(1, PROCESSES + 1)))
        self.assertGreater(min(found.values()), 0, found)

    def check_metrics(self, before: Scraped) -> None:
        after = Scraped(scrape(self.service))
        for reason, wanted in (("within_quota", QUOTA), ("quota_exceeded", REFUSED)):
            self.assertEqual(after.since(before, "chapps_decisions_total", reason=reason), wanted)
        self.assertEqual(after.since(before, "chapps_answer_seconds_count", listener="outbound"), OFFERED)
        self.assertEqual(after.value("chapps_up", part="state"), 1)
        self.assertEqual(after.value("chapps_redis_pool_size"), 4 * (PROCESSES + 1))

    def check_told(self, user: str) -> None:
        """The log, the list and the history have each decision."""
        refused = "quota_exceeded"
        self.wait_for("the refused ones in the list", lambda: len(self.decisions(f"user={user}")) == 1000)
        reasons = Counter(each["reason"] for each in self.decisions(f"user={user}"))
        self.assertGreaterEqual(reasons[refused], REFUSED)
        wait_until(lambda: self.service.decisions().count(f"user={user} ") == OFFERED, "all in the log")
        path = f"/history/counts/?by=reason&user={user}"

        def kept() -> dict[str, int]:
            groups = self.expect(200, self.service, "GET", path)["response"]
            return {each["key"]: each["decisions"] for each in groups}

        self.wait_for("all in the history", lambda: kept() == {"within_quota": QUOTA, refused: REFUSED})


class OneAddressTests(SeveralProcessesCase):
    def clients(self) -> list[PolicyClient]:
        """Connections to each of the processes: as many as that takes, since a process that is busy gets fewer."""
        found: list[PolicyClient] = []

        def each_has_one() -> bool:
            found.append(self.service.client())
            self.addCleanup(found[-1].close)
            return len(+connections(self.service)) == PROCESSES

        wait_until(each_has_one, "a connection to each process")
        return found

    def test_another_configuration_is_in_force_in_each_process_and_its_successor(self) -> None:
        clients, user = self.clients(), self.user(1)
        self.assertEqual(clients[0].ask(outbound(sasl_username=user)), "DUNNO")
        config = Path(self.service.config)
        before = config.read_text()
        self.addCleanup(config.write_text, before)
        section = "[OutboundQuotaPolicy]\n"
        self.assertEqual(before.count(section), 1)
        config.write_text(before.replace(section, section + "rejection_message = 550 5.7.1 Another text\n"))
        self.expect(200, self.service, "POST", "/live/config/reload/")
        self.assertEqual({each.ask(outbound(sasl_username=user)) for each in clients}, {"550 5.7.1 Another text"})
        killed = workers(self.service)[1]
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: workers(self.service)[1] != killed, "its successor")
        again = self.clients()
        self.assertEqual({each.ask(outbound(sasl_username=user)) for each in again}, {"550 5.7.1 Another text"})

    def test_what_a_listener_was_asked_by_all_processes_is_told_at_one_address(self) -> None:
        def asked() -> int:
            found = self.expect(200, self.service, "GET", "/live/listeners/")["response"]
            return int(next(each["requests"] for each in found if each["listener"] == "outbound"))

        clients, user, before = self.clients(), self.user(1000), asked()
        for client in clients:
            client.ask(outbound(sasl_username=user))
        self.wait_for("all requests", lambda: asked() >= before + len(clients))

    def test_each_process_is_checked_for_readiness(self) -> None:
        names = [each["name"] for each in self.expect(200, self.service, "GET", "/ready")["response"]]
        self.assertEqual(names, ["state", "database", *(f"process {number}" for number in range(1, PROCESSES + 1))])
        pid = workers(self.service)[3]
        os.kill(pid, signal.SIGSTOP)
        self.addCleanup(os.kill, pid, signal.SIGCONT)
        detail = self.expect(503, self.service, "GET", "/ready")["detail"]
        self.assertEqual(detail, "process 3: no answer within 2 s")

    def test_a_follower_gets_the_decisions_of_all_once_and_in_order(self) -> None:
        user = self.user(1000)
        last = self.expect(200, self.service, "GET", "/live/decisions/?limit=1")["last_sequence"]
        clients = self.clients()
        for client in clients:
            self.assertEqual(client.ask(outbound(sasl_username=user)), "DUNNO")
        seen: list[int] = []
        while len(seen) < len(clients):
            found = self.expect(200, self.service, "GET", f"/live/decisions/?limit=7&user={user}&after={last}")
            last = found["last_sequence"]
            self.assertFalse(found["dropped"])
            seen += [each["figures"]["used"] for each in found["response"]]
        self.assertEqual(sorted(seen), list(range(1, len(clients) + 1)))

    def test_a_change_of_the_book_is_in_force_in_all_of_them(self) -> None:
        domain = new_name("changing") + ".example"
        user = self.create(self.service, "users", name=new_name("ben"), domains=[])
        name = self.expect(200, self.service, "GET", f"/users/{user}")["response"]["name"]
        clients, request = self.clients(), {"sasl_username": name, "sender": f"ben@{domain}"}
        for client in clients:
            self.assertIn("REJECT", client.ask(outbound(**request)))
        number = self.create(self.service, "domains", name=domain)
        quota = self.create(self.service, "quotas", name=new_name("plenty "), quota=1000)
        self.expect(200, self.service, "PUT", "/users/", {"user": {"id": user}, "domains": [number], "quota": quota})
        self.assertEqual({client.ask(outbound(**request)) for client in clients}, {"DUNNO"})


class NoticesTests(SeveralProcessesCase):
    def test_a_user_is_told_of_a_limit_once(self) -> None:
        relay = SmtpReceiver()
        self.addCleanup(relay.down)
        relay.up()
        mail = {"from_address": "postmaster@example.com", "relay": f"127.0.0.1:{relay.port}", "retry_after": 0.5}
        notify: Options = {
            "Notify": {"user_events": "at_limit", "admin_address": "root@example.com", "daily_report": "off", **mail}
        }
        service = self.run_service(shared(self.redis), notify)
        user = "cid@example.com"
        service.add_user(user, 20, ["example.com"])
        for _ in range(20):
            with service.client() as client:
                self.assertEqual(client.ask(outbound(sasl_username=user)), "DUNNO")
        self.wait_for("the mail", lambda: relay.mails)
        # Another event is told after the first one, and whatever would be told twice by then.
        other = "dan@example.com"
        service.add_user(other, 1, ["example.com"])
        with service.client() as client:
            client.ask(outbound(sasl_username=other))
        self.wait_for("the other mail", lambda: other in {each.recipient for each in relay.mails})
        told = Counter(each.recipient for each in relay.mails if each.recipient != "root@example.com")
        self.assertEqual(told, {user: 1, other: 1})
