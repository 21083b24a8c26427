"""The running service and inbound mail: when DNS never answers, when Redis is away, when clients come back early."""

from __future__ import annotations

import selectors
import threading
import time
import unittest
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from http.client import HTTPConnection
from itertools import count, cycle
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

from tests.support.load import Asked, Load
from tests.support.policy_client import encode, inbound, outbound
from tests.support.servers.common import HANGS, wait_until
from tests.support.servers.dns import LONG, NEVER, DnsServer, txt
from tests.support.servers.redis import RedisProcess
from tests.support.servers.service import PATIENT, Options, Service, new_name

# Wants SPF, and greylisting as well.
CHECKED, GREY = "bob@checked.example", "bob@grey.example"

GREYLISTED = "DEFER_IF_PERMIT Service temporarily unavailable - greylisted, retry in "
TEMPERROR = "451 4.4.3 SPF record(s) temporarily unavailable: "
TEMPORARY = "DEFER_IF_PERMIT 4.3.0 "
HEADER = "PREPEND Received-SPF: pass "

STUCK = 150
SPF_TIMEOUT = 8.0
# Seconds that Postfix waits longer than for SPF, as it is told to in main.cf.example.
MARGIN = 5.0

# How much time there is where none is looked at.
AMPLE: Options = {"CHAPPS": {"request_timeout": 60}, "SPFEnforcementPolicy": {"spf_query_timeout": 100}}

# Seconds between an answer and the next question.
PAUSE = 0.01
# More answers than come, on however busy a machine, in a time in which something holds them up: one or none.
ENOUGH = 2
# What two clocks may have against each other in a few seconds.
CLOCKS = 0.01

ANSWERING = [f"answers{number}.example" for number in range(2000)]

# One that was not asked about before.
DOMAINS = cycle(ANSWERING)

USUAL = {"outbound": "DUNNO", "inbound": HEADER, "/health": "200", "/live/quota": "200"}


class Asking:
    """Asks everything that a service can be asked, all the time, each over a connection of its own.

    :ivar asked: what was asked, by the names of :data:`USUAL`.
    """

    def __init__(self, service: Service) -> None:
        self.asked: dict[str, list[Asked]] = {name: [] for name in USUAL}
        self._service = service
        self._over = threading.Event()
        questions = {
            "outbound": self._policy("outbound", outbound),
            "inbound": self._policy("inbound", lambda: inbound(sender=f"carl@{next(DOMAINS)}", recipient=CHECKED)),
            "/health": self._get("/health"),
            "/live/quota": self._get("/live/quota/0?name=ann"),
        }
        self._threads = [threading.Thread(target=self._run, args=each) for each in questions.items()]

    def _policy(self, listener: str, question: Callable[[], Mapping[str, str]]) -> Callable[[], str]:
        client = self._service.client(listener)
        return lambda: client.ask(question())

    def _get(self, path: str) -> Callable[[], str]:
        api = HTTPConnection("127.0.0.1", self._service.ports["api"], timeout=HANGS)

        def ask() -> str:
            api.request("GET", path, headers={"Authorization": f"Bearer {self._service.token}"})
            response = api.getresponse()
            response.read()
            return str(response.status)

        return ask

    def _run(self, name: str, ask: Callable[[], str]) -> None:
        while not self._over.wait(PAUSE):
            begin = time.monotonic()
            try:
                answer = ask()
            except OSError as error:
                answer = repr(error)
            self.asked[name].append(Asked(begin, time.monotonic(), answer))

    def __enter__(self) -> Asking:
        for thread in self._threads:
            thread.start()
        wait_until(lambda: all(self.asked.values()), "an answer to each")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def whole(self, name: str, first: float, last: float) -> int:
        """How many questions were asked, and answered, between two moments."""
        return sum(first <= each.begin and each.end <= last for each in self.asked[name])


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
        clients = [self.service.client("inbound") for _ in messages]
        with selectors.DefaultSelector() as selector:
            for client, message in zip(clients, messages, strict=True):
                client.send(encode(message))
                selector.register(client.socket, selectors.EVENT_READ, (client, time.monotonic()))
            while selector.get_map():
                for key, _ in selector.select(2 * (SPF_TIMEOUT + MARGIN)):
                    client, begin = key.data
                    yield Asked(begin, time.monotonic(), client.answer())
                    selector.unregister(client.socket)
                    client.close()

    def stuck(self) -> dict[str, str]:
        return inbound(sender=f"carl@{next(self.domains)}", recipient=CHECKED)

    def held(self) -> tuple[int, int]:
        """How many threads the service has, and how many files and sockets."""
        process = Path(f"/proc/{self.service.pid}")
        return len(list((process / "task").iterdir())), len(list((process / "fd").iterdir()))

    def test_they_hold_up_nothing_else_and_leave_nothing_behind(self) -> None:
        with Asking(self.service) as asking:
            before = self.held()
            self.check_stuck(asking)
            wait_until(lambda: self.is_settled(before), f"threads and files as before, {before}")
        for name, expected in USUAL.items():
            wrong = {each.answer for each in asking.asked[name] if not each.answer.startswith(expected)}
            self.assertEqual(wrong, set(), name)
        self.assertNotIn("Traceback", self.service.log())
        # And never a line for each message, or each question to DNS.
        self.assertLess(len(self.service.log().splitlines()), 60)

    def is_settled(self, before: tuple[int, int]) -> bool:
        """Whether nothing is held for the messages; a few threads and files are opened once and kept."""
        return all(now <= then + STUCK // 10 for now, then in zip(self.held(), before, strict=True))

    def check_stuck(self, asking: Asking) -> None:
        """Have many messages wait for DNS at once. While all of them do, everything else is answered."""
        stuck = list(self.send_at_once([self.stuck() for _ in range(STUCK)]))
        self.assertEqual(len(stuck), STUCK)
        for each in stuck:
            self.assertTrue(each.answer.startswith(TEMPERROR), each)
            self.assertLess(each.end - each.begin, SPF_TIMEOUT + MARGIN)
        all_sent = max(each.begin for each in stuck)
        for name in USUAL:
            self.assertGreater(asking.whole(name, all_sent, stuck[0].end), ENOUGH, name)


class CostlyDnsTests(ServiceTestCase):
    """Many messages at once whose DNS is made to cost much."""

    def check(self, dns: DnsServer, senders: Sequence[str], expected: str) -> None:
        service = self.start_service(dns, AMPLE)
        with Asking(service) as asking:
            begin = time.monotonic()
            answers = list(self.ask_at_once(service, senders))
            end = time.monotonic()
        self.assertEqual({answer for answer in answers if not answer.startswith(expected)}, set())
        for name in ("outbound", "/health"):
            self.assertGreater(asking.whole(name, begin, end), ENOUGH, name)
        self.assertNotIn("Traceback", service.log())

    def ask_at_once(self, service: Service, senders: Sequence[str]) -> Iterator[str]:
        clients = [service.client("inbound") for _ in senders]
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
        """Take Redis away while mail comes and goes, give it back, and look at every answer."""
        usual = {"inbound": GREYLISTED, "greylisting": GREYLISTED, "outbound": "DUNNO"}
        away = {"inbound": "DUNNO", "greylisting": "DUNNO", "outbound": TEMPORARY}
        with ExitStack() as stack:
            loads = {name: stack.enter_context(self.load(service, name)) for name in usual}

            def wait_for(answers: Mapping[str, str]) -> None:
                for name, load in loads.items():
                    load.wait_for(answers[name], 30)

            wait_for(usual)
            begin = time.monotonic()
            go()
            gone = time.monotonic()
            wait_for(away)
            end = time.monotonic()
            back()
            wait_for(usual)
        for name, load in loads.items():
            self.assertLess(load.slowest, MARGIN, name)
            self.only(usual[name], load.between(0, begin))
            self.only(away[name], load.between(gone, end))

    def load(self, service: Service, listener: str) -> Load:
        def question() -> Mapping[str, str]:
            if listener == "outbound":
                return outbound()
            return inbound(sender=f"carl@{next(DOMAINS)}", recipient=f"{new_name('bob')}@grey.example")

        return Load([service], 1, pause=0.01, listener=listener, question=question)

    def only(self, begin: str, answers: set[str]) -> None:
        self.assertNotEqual(answers, set())
        self.assertEqual({answer for answer in answers if not answer.startswith(begin)}, set())


class RetryTests(ServiceTestCase):
    """A client that comes back every third of the deferral."""

    DEFERRAL = 1.4

    def test_it_passes_as_soon_as_the_deferral_is_over(self) -> None:
        redis = self.start_redis()
        dns = self.start_dns()
        stores: list[Options] = [{}, {"Redis": {"server": "127.0.0.1", "port": redis.port}}]
        for store in stores:
            options = {**PATIENT, **store, "GreylistingPolicy": {"minimum_deferral": self.DEFERRAL}}
            service = self.start_service(dns, options)
            loads = {name: self.load(service, name) for name in ("greylisting", "inbound")}
            with loads["greylisting"], loads["inbound"]:
                loads["greylisting"].wait_for("DUNNO", 1)
                loads["inbound"].wait_for(HEADER, 1)
            for load in loads.values():
                self.check(load.asked)

    def load(self, service: Service, listener: str) -> Load:
        """One client, that asks again and again about one message to one recipient."""
        question = inbound(sender=f"{listener}@{ANSWERING[0]}", recipient=GREY)
        return Load([service], 1, pause=self.DEFERRAL / 50, listener=listener, question=lambda: question)

    def check(self, asked: Sequence[Asked]) -> None:
        first = asked[0]
        self.assertEqual(first.answer, f"{GREYLISTED}2 seconds")
        deferred = [each for each in asked if each.answer.startswith(GREYLISTED)]
        self.assertGreater(len(asked), len(deferred))
        for each in asked:
            # What is left at some moment between question and answer, if the wait began at one between the first two.
            least = self.DEFERRAL - (each.end - first.begin) - CLOCKS
            most = self.DEFERRAL - (each.begin - first.end) + CLOCKS
            if each.answer.startswith(GREYLISTED):
                self.assertIn(int(each.answer.split()[-2]), range(ceil(max(least, 0.1)), ceil(most) + 1))
            else:
                self.assertLessEqual(least, 0.0)


class CostTests(ServiceTestCase):
    """What a request costs the store, once flags and SPF results are known."""

    def test_one_operation_and_one_more_only_for_a_header(self) -> None:
        self.redis = self.start_redis()
        service = self.start_service(self.start_dns(), {"Redis": {"server": "127.0.0.1", "port": self.redis.port}})
        with service.client("inbound") as client:
            for recipient, answer, scripts in ((CHECKED, HEADER, 2), (GREY, GREYLISTED, 1)):
                question = {"sender": f"carl@{ANSWERING[0]}", "recipient": recipient}
                # The first caches what was looked up, the second reads it.
                for _ in range(2):
                    client.ask(inbound(**question))
                self.redis.command("CONFIG", "RESETSTAT")
                for _ in range(10):
                    self.assertTrue(client.ask(inbound(**question)).startswith(answer))
                # The flags are in the memory of the process, and their version is confirmed with the rest.
                self.assertEqual((self.calls("mget"), self.calls("evalsha")), (0, 10 * scripts))

    def calls(self, command: str) -> int:
        lines = str(self.redis.command("INFO", "commandstats")).splitlines()
        found = [line for line in lines if line.startswith(f"cmdstat_{command}:")]
        return sum(int(line.partition("calls=")[2].partition(",")[0]) for line in found)
