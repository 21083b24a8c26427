"""``/metrics`` of the running service, dashboard and alerts."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import unittest
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from prometheus_client.parser import text_string_to_metric_families

from chapps_tw import __version__
from tests.support.paths import ROOT
from tests.support.policy_client import inbound, outbound
from tests.support.servers.common import program, wait_until
from tests.support.servers.dns import NEVER, SERVFAIL, DnsServer, txt
from tests.support.servers.redis import RedisProcess
from tests.support.servers.service import PATIENT, Options, Service, new_name, shared_service

CONF = ROOT / "conf"
LISTENERS = ("greylisting", "inbound", "outbound")


def scrape(service: Service) -> str:
    """What Prometheus gets, with a token."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{service.ports['api']}/metrics", headers={"Authorization": f"Bearer {service.token}"}
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        return str(reply.read().decode("utf-8"))


class Scraped:
    """One answer of ``/metrics``."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._families = list(text_string_to_metric_families(text))
        self.samples = [sample for family in self._families for sample in family.samples]

    def since(self, before: Scraped, name: str, **labels: str) -> float:
        """By how much a counter has grown; it may not have been there."""
        there = any(s.name == name and labels.items() <= s.labels.items() for s in before.samples)
        return self.value(name, **labels) - (before.value(name, **labels) if there else 0.0)

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of this name that have these labels.

        :raises AssertionError: when there is none.
        """
        found = [s.value for s in self.samples if s.name == name and labels.items() <= s.labels.items()]
        assert found, f"no {name} with {labels}"
        return sum(found)

    @property
    def names(self) -> set[str]:
        """Every name that a query may use, of series that need not be there yet, too."""
        endings = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
        return {
            family.name.removesuffix("_total") + ending
            for family in self._families
            for ending in endings.get(family.type, ("",))
        }


class ServiceTestCase(unittest.TestCase):
    """What is started here runs until the last test of the class is over."""

    @classmethod
    def start(cls, options: Options) -> Service:
        service = Service({**PATIENT, **options})
        cls.addClassCleanup(service.remove)
        service.start().wait_ready()
        service.add_user("ann", 5, ["example.com"])
        return service

    @classmethod
    def start_redis(cls) -> RedisProcess:
        redis = RedisProcess(Path(cls.enterClassContext(TemporaryDirectory(prefix="redis-"))))
        cls.addClassCleanup(redis.stop)
        return redis.start()

    def start_dns(self, moods: Mapping[str, str] | None = None) -> DnsServer:
        server = DnsServer({"example.net": [txt("v=spf1 ip4:198.51.100.7 -all")]}, moods)
        self.addCleanup(server.stop)
        return server

    def new_user(self, service: Service) -> str:
        """Somebody who may send five transmissions as example.com."""
        name = new_name("ann")
        service.add_user(name, 5, ["example.com"])
        return name

    def scrape(self, service: Service) -> Scraped:
        return Scraped(scrape(service))


def on_dns(server: DnsServer) -> Options:
    return {"SPFEnforcementPolicy": {"nameservers": "{}:{}".format(*server.address)}}


def on_redis(redis: RedisProcess) -> Options:
    return {"Redis": {"server": "127.0.0.1", "port": redis.port, "pool_size": 3}}


class MailTests(ServiceTestCase):
    def test_decisions_answers_and_connections_have_a_listener_label(self) -> None:
        service = shared_service()
        user = self.new_user(service)
        before = self.scrape(service)
        wait_until(lambda: not self.scrape(service).value("chapps_connections"), "the end of those of other tests")
        with service.client() as client, service.client() as other:
            for _ in range(7):
                client.ask(outbound(sasl_username=user))
            other.ask(outbound(sasl_username=user))
            wait_until(lambda: self.scrape(service).value("chapps_http_connections") == 1, "no other HTTP connection")
            found = self.scrape(service)
        quota = {"listener": "outbound", "policy": "OutboundQuotaPolicy", "mode": "enforce"}
        decisions, answers = "chapps_decisions_total", "chapps_answer_seconds_count"
        passed = found.since(before, decisions, reason="within_quota", action="DUNNO", **quota)
        refused = found.since(before, decisions, reason="quota_exceeded", action="REJECT", **quota)
        self.assertEqual((passed, refused), (5, 3))
        self.assertEqual(found.since(before, decisions, reason="authorized_domain"), 8)
        self.assertEqual(found.value("chapps_build_info", version=__version__), 1)
        self.assertEqual(found.since(before, answers, listener="outbound"), 8)
        self.assertEqual(found.value("chapps_connections", listener="outbound"), 2)
        self.assertEqual([found.value("chapps_connections", listener=name) for name in LISTENERS[:2]], [0, 0])
        self.assertEqual([found.value("chapps_in_flight", listener=name) for name in LISTENERS], [0, 0, 0])

    def test_invalid_requests_are_counted(self) -> None:
        service = shared_service()
        before = self.scrape(service)
        with socket.create_connection(("127.0.0.1", service.ports["outbound"]), timeout=10) as connection:
            connection.sendall(b"nonsense\n\n")
            self.assertTrue(connection.recv(1000))
            found = self.scrape(service)
        self.assertEqual(found.since(before, "chapps_unreadable_requests_total", listener="outbound"), 1)
        self.assertEqual(found.since(before, "chapps_unreadable_requests_total", listener="inbound"), 0)

    def test_a_pending_request_is_in_flight(self) -> None:
        dns = self.start_dns()
        dns.moods["example.net"] = NEVER
        service = self.start(on_dns(dns))
        with service.client("inbound") as client:
            client.socket.sendall(b"request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address=198.51.100.7\n")
            client.socket.sendall(b"helo_name=h.example.net\nsender=a@example.net\nrecipient=b@example.com\n\n")
            wait_until(lambda: dns.questions, "a question to DNS")
            found = self.scrape(service)
            self.assertEqual(found.value("chapps_in_flight", listener="inbound"), 1)
            self.assertEqual(found.value("chapps_dns_waiting_questions"), 1)

    def test_clients_cannot_add_series(self) -> None:
        service = shared_service()
        with service.client() as out, service.client("inbound") as into, service.client("greylisting") as grey:

            def ask(number: int) -> None:
                name = f"stranger{number}.example"
                out.ask(outbound(sasl_username=name, sender=f"x@{name}", helo_name=name))
                for client in (into, grey):
                    client.ask(inbound(sender=f"x@{name}.invalid", recipient=f"y@{name}", helo_name=name))

            ask(0)
            before = len(self.scrape(service).samples)
            for number in range(1, 20):
                ask(number)
            found = self.scrape(service)
        self.assertEqual(len(found.samples), before)
        self.assertNotIn("stranger", found.text)


class CacheTests(ServiceTestCase):
    def check(self, options: Options) -> None:
        service = self.start(options)
        with service.client() as client:
            for _ in range(4):
                client.ask(outbound())
        with service.client("inbound") as client:
            for _ in range(3):
                client.ask(inbound())
        found = self.scrape(service)
        # The policies are asked three times: about the book, the live state, and what is in memory.
        outbound_caches = [("said", 3, 1), ("limits", 1, 2), ("senders", 1, 2)]
        inbound_caches = [(cache, 1, 2) for cache in ("spf_flags", "greylist_flags", "spf_results")]
        for cache, misses, hits in outbound_caches + inbound_caches:
            with self.subTest(cache):
                self.assertEqual(found.value("chapps_cache_lookups_total", cache=cache, result="miss"), misses)
                self.assertEqual(found.value("chapps_cache_lookups_total", cache=cache, result="hit"), hits)
        self.assertGreater(found.value("chapps_cache_lookups_total", cache="dns", result="miss"), 0)
        asked = [
            found.value("chapps_call_seconds_count", part="database", operation=operation)
            for operation in ("plan", "senders", "flags")
        ]
        # The plans of the user, of the domain and of the quota.
        self.assertEqual(asked, [3, 1, 2])

    def test_hits_and_misses_with_the_state_in_sqlite(self) -> None:
        self.check(on_dns(self.start_dns()))

    def test_hits_and_misses_with_the_state_in_redis(self) -> None:
        self.check({**on_redis(self.start_redis()), **on_dns(self.start_dns())})


class CallTests(ServiceTestCase):
    def test_sqlite_commits_are_timed_and_operations_counted(self) -> None:
        service = shared_service()
        user = self.new_user(service)
        before = self.scrape(service)
        with service.client() as client:
            for _ in range(5):
                client.ask(outbound(sasl_username=user))
        found = self.scrape(service)
        state = {"part": "state", "operation": "commit"}
        self.assertGreaterEqual(found.since(before, "chapps_call_seconds_count", **state), 5)
        self.assertGreater(found.since(before, "chapps_call_seconds_sum", **state), 0)
        self.assertGreaterEqual(found.since(before, "chapps_sqlite_operations_total"), 10)

    def test_redis_commands_are_timed_including_timeouts(self) -> None:
        redis = self.start_redis()
        service = self.start({**on_redis(redis), "CHAPPS": {"request_timeout": 2}})
        state = {"part": "state", "operation": "command"}
        with service.client() as client:
            before = self.scrape(service)
            for _ in range(5):
                client.ask(outbound())
            found = self.scrape(service)
            self.assertGreaterEqual(found.since(before, "chapps_call_seconds_count", **state), 10)
            redis.hang()
            client.ask(outbound())
            redis.go_on()
            hung = self.scrape(service)
        # What a command is waited for.
        self.assertGreaterEqual(hung.since(found, "chapps_call_seconds_sum", **state), 1.4)
        self.assertGreaterEqual(hung.since(found, "chapps_redis_timeouts_total"), 1)
        self.assertEqual(hung.since(found, "chapps_redis_lost_connections_total"), 3)

    def test_dns_lookups_are_timed_and_failures_counted(self) -> None:
        service = self.start(on_dns(self.start_dns({".example.org": SERVFAIL})))
        with service.client("inbound") as client:
            client.ask(inbound())
            self.assertEqual(self.scrape(service).value("chapps_dns_failures_total"), 0)
            client.ask(inbound(sender="x@mail.example.org"))
        found = self.scrape(service)
        self.assertGreaterEqual(found.value("chapps_call_seconds_count", part="dns", operation="TXT"), 2)
        self.assertGreaterEqual(found.value("chapps_dns_failures_total"), 1)


class DependencyTests(ServiceTestCase):
    redis: RedisProcess
    service: Service

    @classmethod
    def setUpClass(cls) -> None:
        cls.redis = cls.start_redis()
        cls.service = cls.start({**on_redis(cls.redis), "CHAPPS": {"request_timeout": 1}})

    def test_an_outage_of_redis_is_detected_without_mail(self) -> None:
        redis, service = self.redis, self.service
        found = self.scrape(service)
        self.assertEqual([found.value("chapps_up", part=part) for part in ("state", "database")], [1, 1])
        wait_until(lambda: self.scrape(service).value("chapps_redis_connections") == 3, "all connections")
        self.assertEqual(found.value("chapps_redis_pool_size"), 3)
        redis.kill()
        wait_until(lambda: self.scrape(service).value("chapps_up", part="state") == 0, "Redis seen to be away")
        found = self.scrape(service)
        self.assertEqual(found.value("chapps_redis_connections"), 0)
        self.assertEqual(found.value("chapps_up", part="database"), 1)
        redis.start()
        wait_until(lambda: self.scrape(service).value("chapps_up", part="state") == 1, "Redis seen to be back")

    def test_a_hanging_redis_is_detected_without_mail(self) -> None:
        redis, service = self.redis, self.service
        redis.hang()
        wait_until(lambda: self.scrape(service).value("chapps_up", part="state") == 0, "Redis seen to hang")
        redis.go_on()
        wait_until(lambda: self.scrape(service).value("chapps_up", part="state") == 1, "Redis seen to be back")

    def test_errors_of_redis_are_detected_and_logged_once(self) -> None:
        redis = self.start_redis()
        service = self.start(on_redis(redis))
        for begin, end in (
            (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
            (("ACL", "SETUSER", "default", "-evalsha"), ("ACL", "SETUSER", "default", "+evalsha")),
        ):
            told = service.log().count("cannot be used: it answers:")
            with service.client() as client:
                self.assertEqual(client.ask(outbound()), "DUNNO")
                redis.command(*begin)
                for _ in range(3):
                    self.assertRegex(client.ask(outbound()), "^DEFER_IF_PERMIT 4.3.0 ")
                self.assertEqual(self.scrape(service).value("chapps_up", part="state"), 0)
                self.assertEqual(service.http("/ready")[0], 503)
                redis.command(*end)
                self.assertEqual(client.ask(outbound()), "DUNNO")
            wait_until(lambda: self.scrape(service).value("chapps_up", part="state") == 1, "Redis seen to be well")
            service.wait_ready()
            sentence = "cannot be used: it answers:"
            self.assertEqual(service.log(sentence, told + 1).count(sentence), told + 1)

    def test_pending_invalidations_are_counted(self) -> None:
        redis, service = self.redis, self.service
        self.assertEqual(self.scrape(service).value("chapps_waiting_drops"), 0)
        redis.kill()
        wait_until(lambda: self.scrape(service).value("chapps_up", part="state") == 0, "Redis seen to be away")
        status, _ = service.http("/users/", "DELETE", [1])
        self.assertEqual(status, 200)
        self.assertGreater(self.scrape(service).value("chapps_waiting_drops"), 0)
        redis.start()
        wait_until(lambda: self.scrape(service).value("chapps_waiting_drops") == 0, "the changes in force")

    def test_lost_lines_of_the_decision_log_are_counted(self) -> None:
        service = self.start({"Log": {"file": "/dev/full"}})
        self.assertEqual(self.scrape(service).value("chapps_log_lines_lost_total"), 0)
        with service.client() as client:
            for _ in range(3):
                client.ask(outbound())
        wait_until(lambda: self.scrape(service).value("chapps_log_lines_lost_total") == 3, "three lines lost")


class FormTests(ServiceTestCase):
    def test_needs_a_token(self) -> None:
        service = shared_service()
        with self.assertRaises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"http://127.0.0.1:{service.ports['api']}/metrics", timeout=10)
        self.assertEqual(caught.exception.code, 401)
        caught.exception.close()

    def test_promtool_accepts_the_metrics_and_knows_dashboard_and_alerts(self) -> None:
        promtool = program("promtool")
        used = used_names(alert_expressions()) | used_names(dashboard_expressions())
        self.assertGreater(len(used), 25)
        shown: set[str] = set()
        notify = {"webhook": "http://127.0.0.1:9/", "webhook_events": "at_limit", "webhook_secret": "whsec_" + "x" * 32}
        several = {"CHAPPS": {"processes": 2}, **on_redis(self.start_redis()), "Notify": notify}
        for service in (shared_service(), self.start(several)):
            with service.client() as client:
                client.ask(outbound())
            text = scrape(service)
            checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True)
            self.assertEqual((checked.returncode, checked.stdout + checked.stderr), (0, ""))
            shown |= Scraped(text).names
        # Prometheus itself says whether it could read them.
        self.assertEqual(used - shown - {"up"}, set())

    def test_the_dashboard_shows_every_metric(self) -> None:
        service = shared_service()
        ours = {re.sub("_(bucket|count|sum)$", "", name) for name in Scraped(scrape(service)).names if "chapps" in name}
        drawn = {re.sub("_(bucket|count|sum)$", "", name) for name in used_names(dashboard_expressions())}
        self.assertEqual(ours - drawn, set())

    def test_collecting_is_fast(self) -> None:
        service = shared_service()
        scrape(service)
        before = service.cpu_seconds()
        for _ in range(20):
            scrape(service)
        # In the thread that answers Postfix. What this machine has to do besides is not counted.
        self.assertLess((service.cpu_seconds() - before) / 20, 0.05)


def alert_expressions() -> list[str]:
    groups = yaml.safe_load((CONF / "prometheus" / "chapps.rules.yml").read_text())["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def dashboard_expressions() -> list[str]:
    panels = json.loads((CONF / "grafana" / "chapps.json").read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def used_names(expressions: list[str]) -> set[str]:
    """The metrics that some queries read."""
    return {name for text in expressions for name in re.findall(r"\b(?:chapps|process)_\w+|\bup\b", unlabelled(text))}


def unlabelled(expression: str) -> str:
    return re.sub(r"\{[^}]*\}", "", expression)
