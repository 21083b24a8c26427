"""What signals do to the running service."""

from __future__ import annotations

import signal
import unittest
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import Request, urlopen

from tests.support.policy_client import encode, inbound, outbound
from tests.support.servers.common import wait_until
from tests.support.servers.dns import NEVER, DnsServer
from tests.support.servers.redis import RedisProcess
from tests.support.servers.service import PATIENT, Options, Service

CLEAN = (0, -signal.SIGTERM)


def started(test: unittest.TestCase, options: Options | None = None) -> Service:
    service = Service(options)
    test.addCleanup(service.remove)
    return service.start().wait_ready()


class UserSignalTests(unittest.TestCase):
    def test_sigusr1_opens_the_log_again_with_nothing_to_write(self) -> None:
        service = started(self)
        log = service.directory / "decisions.log"
        log.rename(service.directory / "moved")
        service.signal(signal.SIGUSR1)
        wait_until(log.exists, "the log opened again")
        wait_until(lambda: "SIGUSR1: the log is opened again" in service.log(), "the line in the log")
        self.check_alive(service)

    def test_sigusr2_does_nothing(self) -> None:
        service = started(self)
        service.signal(signal.SIGUSR2)
        self.check_alive(service)

    def check_alive(self, service: Service) -> None:
        with service.client() as client:
            client.ask(outbound())
        self.assertEqual(service.http("/health")[0], 200)
        self.assertIn(service.stop(), CLEAN)


class StopTests(unittest.TestCase):
    """A stop while somebody waits for what does not answer."""

    def answer_at_the_stop(self, service: Service, listener: str, request: bytes, asked: Callable[[], object]) -> str:
        with service.client(listener) as client:
            client.send(request)
            wait_until(asked, "the question under way")
            service.signal(signal.SIGTERM)
            answer = client.answer()
            self.assertTrue(client.is_closed())
        self.assertIn(service.stop(), CLEAN)
        return answer

    def test_what_waits_for_dns_gets_the_action_for_a_temperror(self) -> None:
        dns = DnsServer({}, moods={"example.net": NEVER})
        self.addCleanup(dns.stop)
        options = {"nameservers": f"127.0.0.1:{dns.port}"}
        service = started(self, {"SPFEnforcementPolicy": options, "PostfixSPFActions": {"temperror": "451 4.4.3 DNS"}})
        service.add_domain("example.com", check_spf=True)
        asked = partial(dns.asked, "example.net", "TXT")
        self.assertEqual(self.answer_at_the_stop(service, "inbound", encode(inbound()), asked), "451 4.4.3 DNS")

    def test_what_waits_for_redis_is_answered_by_on_failure(self) -> None:
        redis = RedisProcess(Path(self.enterContext(TemporaryDirectory(prefix="redis-"))))
        self.addCleanup(redis.stop)
        redis.start()
        service = started(self, {**PATIENT, "Redis": {"server": "127.0.0.1", "port": redis.port}})
        service.add_user("ann", 9, ["example.com"])
        redis.hang()
        self.addCleanup(redis.go_on)
        pending = partial(self.in_flight, service)
        self.assertIn(" 4.3.0 ", self.answer_at_the_stop(service, "outbound", encode(outbound()), pending))

    def in_flight(self, service: Service) -> bool:
        with urlopen(Request(f"http://127.0.0.1:{service.ports['api']}/metrics", headers=bearer(service))) as reply:
            return 'chapps_in_flight{listener="outbound"} 1' in reply.read().decode()


def bearer(service: Service) -> dict[str, str]:
    return {"Authorization": f"Bearer {service.token}"}
