"""The running service and inbound mail: when DNS never answers, when Redis is away, when clients come back early."""

from __future__ import annotations

import multiprocessing
import selectors
import threading
import time
import unittest
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, NamedTuple

import pytest

from tests.support.policy_client import PolicyClient, encode, inbound, outbound
from tests.support.servers.common import wait_until
from tests.support.servers.dns import LONG, NEVER, DnsServer, txt
from tests.support.servers.redis import RedisProcess
from tests.support.servers.service import Options, Service

# Wants SPF, and greylisting as well.
CHECKED, GREY = "bob@checked.example", "bob@grey.example"

pytestmark = [pytest.mark.alone, pytest.mark.timed]

GREYLISTED = "DEFER_IF_PERMIT Service temporarily unavailable - greylisted, retry in "
TEMPERROR = "451 4.4.3 SPF record(s) temporarily unavailable: "
TEMPORARY = "DEFER_IF_PERMIT 4.3.0 "
HEADER = "PREPEND Received-SPF: pass "

STUCK = 150
SPF_TIMEOUT = 4.0

# Seconds after which the embedded state has been looked after for the first time, in a thread.
CHECKPOINT_SECONDS = 5.0

# Seconds between two questions of one kind.
PERIOD = 0.02

ANSWERING = [f"answers{number}.example" for number in range(2000)]

spawning = multiprocessing.get_context("spawn")


class Asked(NamedTuple):
    """One question. Moments are of ``time.monotonic``.

    :ivar due: when it was to be asked.
    """

    due: float
    end: float
    answer: str


class Asker(threading.Thread):
    """Asks a question again and again, one every so many seconds, until it is over.

    One that the answer before held up still counts from the moment when it was due, so that nothing
    is left out of a standstill.
    """

    def __init__(self, ask: Callable[[], str], period: float, over: Any) -> None:
        super().__init__()
        self.asked: list[Asked] = []
        self._ask, self._period, self._over = ask, period, over

    def run(self) -> None:
        due = time.monotonic()
        while not self._over.is_set():
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                answer = self._ask()
            except OSError as error:
                answer = repr(error)
            self.asked.append(Asked(due, time.monotonic(), answer))
            due += self._period

    def between(self, first: float, last: float) -> set[str]:
        """The answers to what was asked between two moments."""
        return {asked.answer for asked in self.asked if first <= asked.due < last}


def slowest(asked: Sequence[Asked]) -> float:
    """Seconds that 99 of 100 questions were answered in."""
    took = sorted(each.end - each.due for each in asked)
    return took[len(took) * 99 // 100]


def questions(ports: Mapping[str, int], token: str) -> dict[str, Callable[[], str]]:
    """What is measured, each over a connection of its own."""

    def client(listener: str) -> PolicyClient:
        return PolicyClient(("127.0.0.1", ports[listener]))

    def get(path: str) -> Callable[[], str]:
        api = HTTPConnection("127.0.0.1", ports["api"], timeout=10)

        def ask() -> str:
            api.request("GET", path, headers={"Authorization": f"Bearer {token}"})
            response = api.getresponse()
            response.read()
            return str(response.status)

        return ask

    sending, receiving, domains = client("outbound"), client("inbound"), iter(ANSWERING)
    return {
        "outbound": lambda: sending.ask(outbound()),
        "inbound": lambda: receiving.ask(inbound(sender=f"carl@{next(domains)}", recipient=CHECKED)),
        "/health": get("/health"),
        "/live/quota": get("/live/quota/0?name=ann"),
    }


def measure(ports: Mapping[str, int], token: str, over: Any, results: Any) -> None:
    """What the process of :class:`Measuring` does."""
    askers = {name: Asker(ask, PERIOD, over) for name, ask in questions(ports, token).items()}
    for asker in askers.values():
        asker.start()
    results.put("started")
    for asker in askers.values():
        asker.join()
    results.put({name: asker.asked for name, asker in askers.items()})


class Measuring:
    """Asks the service all the time, from another process: what this one is busy with is not measured.

    :ivar asked: what was asked, by name; there when it is over.
    """

    def __init__(self, service: Service) -> None:
        self._over, self._results = spawning.Event(), spawning.Queue()
        arguments = (service.ports, service.token, self._over, self._results)
        self._process = spawning.Process(target=measure, args=arguments, daemon=True)
        self.asked: dict[str, list[Asked]] = {}

    def __enter__(self) -> Measuring:
        self._process.start()
        self._results.get(timeout=30)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self.asked = self._results.get(timeout=30)
        self._process.join(30)


class ServiceTestCase(unittest.TestCase):
    def start_dns(self, moods: Mapping[Any, str | float] | None = None) -> DnsServer:
        dns = DnsServer({domain: [txt("v=spf1 ip4:198.51.100.0/24 -all")] for domain in ANSWERING}, moods)
        self.addCleanup(dns.stop)
        return dns

    def start_redis(self) -> RedisProcess:
        redis = RedisProcess(Path(self.enterContext(TemporaryDirectory(prefix="redis-"))))
        self.addCleanup(redis.stop)
        return redis.start()

    def start_service(self, dns: DnsServer, options: Options) -> Service:
        service = Service({"SPFEnforcementPolicy": {"nameservers": f"127.0.0.1:{dns.port}"}})
        self.addCleanup(service.remove)
        service.write_config(options)
        service.start().wait_ready()
        service.add_user("ann", 1_000_000, ["example.com"])
        service.add_domain("checked.example", check_spf=True)
        service.add_domain("grey.example", greylist=True, check_spf=True)
        return service


class SilentDnsTests(ServiceTestCase):
    """Messages of many domains whose name server never answers, all at once."""

    def setUp(self) -> None:
        self.dns = self.start_dns({".silent.example": NEVER})
        options: Options = {
            "SPFEnforcementPolicy": {"spf_query_timeout": SPF_TIMEOUT},
            # So few connections that all of them are soon open.
            "PolicyConfigAdapter": {"pool_size": 2},
        }
        self.service = self.start_service(self.dns, options)
        self.domains = (f"d{number}.silent.example" for number in count())

    def send_at_once(self, messages: Sequence[Mapping[str, str]]) -> Iterator[Asked]:
        """Ask about all the messages at once, each over a connection of its own; gives the answers as they come."""
        clients = [self.service.client("inbound", 2 * SPF_TIMEOUT) for _ in messages]
        with selectors.DefaultSelector() as selector:
            for client, message in zip(clients, messages, strict=True):
                client.send(encode(message))
                selector.register(client.socket, selectors.EVENT_READ, (client, time.monotonic()))
            while selector.get_map():
                for key, _ in selector.select(2 * SPF_TIMEOUT):
                    client, begin = key.data
                    yield Asked(begin, time.monotonic(), client.answer())
                    selector.unregister(client.socket)
                    client.close()

    def stuck(self) -> dict[str, str]:
        return inbound(sender=f"carl@{next(self.domains)}", recipient=CHECKED)

    def fill_pools(self) -> dict[str, float]:
        """Have everything opened that is opened once and kept: threads, and connections to the database.

        Returns how slow each kind of question is on this machine when nothing is stuck.
        """
        senders = ANSWERING[-40:]
        messages = [inbound(sender=f"carl@{sender}", recipient=f"bob@new.{sender}") for sender in senders]
        self.assertEqual(len(list(self.send_at_once(messages))), len(senders))
        with Measuring(self.service) as measuring:
            time.sleep(CHECKPOINT_SECONDS)
        time.sleep(0.5)
        return {name: slowest(asked) for name, asked in measuring.asked.items()}

    def held(self) -> tuple[int, int]:
        """How many threads the service has, and how many files and sockets."""
        process = Path(f"/proc/{self.service.pid}")
        return len(list((process / "task").iterdir())), len(list((process / "fd").iterdir()))

    def test_they_hold_up_nothing_else_and_leave_nothing_behind(self) -> None:
        usual = self.fill_pools()
        before, others = self.held(), defaultdict[str, list[Asked]](list)
        for _ in range(3):
            with Measuring(self.service) as measuring:
                stuck = list(self.send_at_once([self.stuck() for _ in range(STUCK)]))
            self.check_stuck(stuck)
            for name, asked in measuring.asked.items():
                others[name] += [each for each in asked if stuck[0].due <= each.due < stuck[-1].end]
            wait_until(lambda: self.held() == before, f"{before} threads and files again, not {self.held()}", 30)
        self.check_others(others, usual)
        self.assertNotIn("Traceback", self.service.log())
        # And never a line for each message, or each question to DNS.
        self.assertLess(len(self.service.log().splitlines()), 60)

    def check_stuck(self, stuck: Sequence[Asked]) -> None:
        self.assertEqual(len(stuck), STUCK)
        for each in stuck:
            self.assertTrue(each.answer.startswith(TEMPERROR), each)
            self.assertGreater(each.end - each.due, SPF_TIMEOUT - 0.5)
            self.assertLess(each.end - each.due, SPF_TIMEOUT + 1)

    def check_others(self, others: Mapping[str, Sequence[Asked]], usual: Mapping[str, float]) -> None:
        expected = {"outbound": "DUNNO", "inbound": HEADER, "/health": "200", "/live/quota": "200"}
        self.assertEqual(set(others), set(expected))
        for name, asked in others.items():
            self.assertGreater(len(asked), 3 * SPF_TIMEOUT / PERIOD / 2, name)
            self.assertEqual({each.answer for each in asked if not each.answer.startswith(expected[name])}, set())
            # A message that needs DNS takes its turn behind those that came before it. What else this machine has
            # to do is no fault of theirs.
            bound = max(0.25 if name == "inbound" else 0.05, 3 * usual[name])
            print(
                f"{name}: {1000 * usual[name]:.1f} ms, and {1000 * slowest(asked):.1f} ms with {STUCK} that are stuck"
            )
            self.assertLess(slowest(asked), bound, name)


class CostlyDnsTests(ServiceTestCase):
    """Many messages at once whose DNS is made to cost much."""

    def check(self, dns: DnsServer, senders: Sequence[str], expected: str) -> None:
        service = self.start_service(dns, {})
        with Measuring(service) as measuring:
            answers = list(self.ask_at_once(service, senders))
        self.assertEqual({answer for answer in answers if not answer.startswith(expected)}, set())
        self.assertLess(slowest(measuring.asked["outbound"]), 0.75)
        self.assertLess(slowest(measuring.asked["/health"]), 0.75)
        self.assertNotIn("Traceback", service.log())

    def ask_at_once(self, service: Service, senders: Sequence[str]) -> Iterator[str]:
        clients = [service.client("inbound", 30) for _ in senders]
        for client, sender in zip(clients, senders, strict=True):
            self.addCleanup(client.close)
            client.send(encode(inbound(sender=sender, recipient=CHECKED)))
        return (client.answer() for client in clients)

    def test_long_answers_hold_up_nothing_else(self) -> None:
        dns = self.start_dns({".long.example": LONG})
        self.check(dns, [f"carl@d{number}.long.example" for number in range(STUCK)], GREYLISTED)

    def test_long_records_hold_up_nothing_else(self) -> None:
        dns = self.start_dns()
        macros = " ".join(f"x{number}=" + "%{sr}" * 70 + "." * 127 for number in range(8))
        for number in range(9):
            text = f"v=spf1 include:c{number + 1}.costly.example {macros}"
            dns.zones[f"c{number}.costly.example"] = [txt(*[text[at : at + 250] for at in range(0, len(text), 250)])]
        dns.zones["c9.costly.example"] = [txt("v=spf1 +all")]
        senders = [f"carl{number}@c0.costly.example" for number in range(STUCK)]
        self.check(dns, senders, HEADER)


class RedisAwayTests(ServiceTestCase):
    def test_inbound_mail_flows_and_outbound_mail_is_deferred(self) -> None:
        redis = self.start_redis()
        service = self.start_service(self.start_dns(), {"Redis": {"server": "127.0.0.1", "port": redis.port}})
        self.run_through(service, redis.kill, redis.start)
        self.run_through(service, redis.hang, redis.go_on)
        self.assertNotIn("Traceback", service.log())

    def run_through(self, service: Service, go: Callable[[], object], back: Callable[[], object]) -> None:
        """Take Redis away for three seconds while mail comes and goes, and look at every answer."""
        over, usual = threading.Event(), {"inbound": GREYLISTED, "greylisting": GREYLISTED, "outbound": "DUNNO"}
        askers = {name: Asker(self.question(service, name), 0.01, over) for name in usual}
        for asker in askers.values():
            asker.start()
        time.sleep(0.5)
        gone = time.monotonic()
        go()
        time.sleep(3)
        back()
        returned = time.monotonic()
        time.sleep(3)
        over.set()
        for name, asker in askers.items():
            asker.join()
            self.assertLess(max(each.end - each.due for each in asker.asked), 4, name)
            self.only(usual[name], asker.between(0, gone - 0.1))
            away = TEMPORARY if name == "outbound" else "DUNNO"
            self.only(away, asker.between(gone + 0.1, returned))
            self.only(usual[name], asker.between(returned + 2, time.monotonic()))

    def question(self, service: Service, listener: str) -> Callable[[], str]:
        client = service.client(listener)
        self.addCleanup(client.close)
        if listener == "outbound":
            return lambda: client.ask(outbound())
        domains = iter(ANSWERING)
        return lambda: client.ask(inbound(sender=f"carl@{next(domains)}", recipient=GREY))

    def only(self, begin: str, answers: set[str]) -> None:
        self.assertNotEqual(answers, set())
        self.assertEqual({answer for answer in answers if not answer.startswith(begin)}, set())


class RetryTests(ServiceTestCase):
    """A client that comes back every third of the deferral."""

    DEFERRAL = 2.4

    def test_it_passes_as_soon_as_the_deferral_is_over(self) -> None:
        redis = self.start_redis()
        dns = self.start_dns()
        stores: list[Options] = [{}, {"Redis": {"server": "127.0.0.1", "port": redis.port}}]
        for store in stores:
            options = {**store, "GreylistingPolicy": {"minimum_deferral": self.DEFERRAL}}
            service = self.start_service(dns, options)
            self.check(service, "greylisting", "DUNNO")
            self.check(service, "inbound", HEADER)

    def check(self, service: Service, listener: str, passed: str) -> None:
        with service.client(listener) as client:

            def ask() -> str:
                return client.ask(inbound(sender=f"{listener}@{ANSWERING[0]}", recipient=GREY))

            begin = time.monotonic()
            self.assertEqual(ask(), f"{GREYLISTED}3 seconds")
            first = time.monotonic()
            for third, left in ((1, "2 s"), (2, "1 s")):
                time.sleep(begin + third * self.DEFERRAL / 3 - time.monotonic())
                self.assertEqual(ask(), GREYLISTED + left)
            time.sleep(begin + self.DEFERRAL - 0.1 - time.monotonic())
            self.assertEqual(ask(), f"{GREYLISTED}1 second")
            time.sleep(max(0.0, first + self.DEFERRAL - time.monotonic()))
            self.assertTrue(ask().startswith(passed))


class CostTests(ServiceTestCase):
    """What a request costs the store, once flags and SPF results are known."""

    def test_one_look_and_one_meeting_and_one_more_step_only_for_a_header(self) -> None:
        self.redis = self.start_redis()
        service = self.start_service(self.start_dns(), {"Redis": {"server": "127.0.0.1", "port": self.redis.port}})
        with service.client("inbound") as client:
            for recipient, answer, scripts in ((CHECKED, HEADER, 2), (GREY, GREYLISTED, 1)):
                question = {"sender": f"carl@{ANSWERING[0]}", "recipient": recipient}
                client.ask(inbound(**question))
                self.redis.command("CONFIG", "RESETSTAT")
                for _ in range(10):
                    self.assertTrue(client.ask(inbound(**question)).startswith(answer))
                self.assertEqual((self.calls("mget"), self.calls("evalsha")), (10, 10 * scripts))

    def calls(self, command: str) -> int:
        lines = str(self.redis.command("INFO", "commandstats")).splitlines()
        found = [line for line in lines if line.startswith(f"cmdstat_{command}:")]
        return sum(int(line.partition("calls=")[2].partition(",")[0]) for line in found)
