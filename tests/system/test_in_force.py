"""A change over HTTP is in force for the next question that any other process is asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from http.client import HTTPException
from itertools import cycle
from signal import SIGCONT, SIGSTOP
from typing import Any

from sqlalchemy import Engine, select

from chapps_tw.config.settings import PolicyConfigAdapter
from chapps_tw.database.changes import apply
from chapps_tw.database.engine import make_engine
from chapps_tw.database.models import invalidation_outbox
from chapps_tw.database.transaction import Permit, transact
from chapps_tw.interfaces.book import RemoveLinks
from tests.support.api_case import APITestCase
from tests.support.policy_client import encode, inbound, outbound
from tests.support.rest_client import ask
from tests.support.servers.dns import DnsServer, txt
from tests.support.servers.redis import RedisProcess
from tests.support.servers.service import PATIENT, Options, Service

OVER_QUOTA = "REJECT Rejected - outbound quota fulfilled"
NOT_ALLOWED = "REJECT Rejected - not allowed to send mail from this domain"
GREYLISTED = "DEFER_IF_PERMIT Service temporarily unavailable - greylisted"
SPF_FAILED = "550 5.7.1 SPF check failed"

STATE_AWAY = (
    "The change is stored, but the state store is unavailable. It takes effect when the store is available again."
)

# Moments at which a node is stopped: how many, and how far apart, in seconds.
STEPS, STEP = 60, 0.0001

# Method, path and perhaps a body; and what is answered when that is in force.
Call = tuple[Any, ...]
Flip = tuple[Call, str]

OPTIONS: Options = {
    "OutboundQuotaPolicy": {"margin": 0, "rejection_message": OVER_QUOTA, "too_large_message": OVER_QUOTA},
    "SenderDomainAuthPolicy": {"rejection_message": NOT_ALLOWED},
}


class InForceTestCase(APITestCase):
    """What is changed is changed on the first node; what is asked is asked on the second."""

    redis: RedisProcess
    here: Service
    there: Service

    @classmethod
    def run_both(cls, redis: RedisProcess, options: Options | None = None) -> None:
        cls.redis = redis
        cls.here, cls.there = cls.run_nodes(redis, {**OPTIONS, **(options or {})})

    def setUp(self) -> None:
        """Ann may send one transmission, and as example.com."""
        self.quota = self.create(self.here, "quotas", name="small", quota=1)
        self.domain = self.create(self.here, "domains", name="example.com")
        self.ann = self.create(self.here, "users", name="ann", quota=self.quota, domains=[self.domain])
        self.clients = {name: self.there.client(name) for name in ("outbound", "greylisting", "inbound")}
        for client in self.clients.values():
            self.addCleanup(client.close)

    def tearDown(self) -> None:
        for kind in ("users", "domains", "emails", "quotas"):
            there = self.expect(200, self.here, "GET", f"/{kind}/")["response"]
            self.change("DELETE", f"/{kind}/", [each["id"] for each in there])
        self.redis.command("FLUSHALL")

    def change(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.expect(200, self.here, method, path, body)
        self.assertNotIn(STATE_AWAY, answer["remarks"])
        return answer

    def sent(self, **changes: str) -> str:
        return self.clients["outbound"].ask(outbound(**changes))

    def received(self, listener: str, **changes: str) -> str:
        return self.clients[listener].ask(inbound(**changes))


class NextQuestionTests(InForceTestCase):
    @classmethod
    def setUpClass(cls) -> None:
        dns = DnsServer({"example.net": [txt("v=spf1 -all")]})
        cls.addClassCleanup(dns.stop)
        cls.run_both(cls.run_redis(), {**PATIENT, "SPFEnforcementPolicy": {"nameservers": f"127.0.0.1:{dns.port}"}})
        cls.addClassCleanup(lambda: cls.there.signal(SIGCONT))

    def test_another_quota_for_a_user(self) -> None:
        self.assertEqual([self.sent(), self.sent()], ["DUNNO", OVER_QUOTA])
        two = self.create(self.here, "quotas", name="two", quota=2)
        self.change("PUT", f"/users/{self.ann}/quota/{two}")
        self.assertEqual([self.sent(), self.sent()], ["DUNNO", OVER_QUOTA])
        three = self.create(self.here, "quotas", name="three", quota=3)
        self.change("PUT", "/users/", {"user": {"id": self.ann}, "quota": three})
        self.assertEqual([self.sent(), self.sent()], ["DUNNO", OVER_QUOTA])

    def test_another_limit_of_a_quota_for_all_its_users(self) -> None:
        self.create(self.here, "users", name="bob", quota=self.quota, domains=[self.domain])
        for user in ("ann", "bob"):
            self.assertEqual([self.sent(sasl_username=user) for _ in range(2)], ["DUNNO", OVER_QUOTA])
        self.change("PUT", "/quotas/", {"quota": {"id": self.quota, "quota": 2}})
        for user in ("ann", "bob"):
            self.assertEqual([self.sent(sasl_username=user) for _ in range(2)], ["DUNNO", OVER_QUOTA])
        self.change("PUT", "/quotas/", {"quota": {"id": self.quota, "quota": 0}})
        self.assertEqual(self.sent(), OVER_QUOTA)

    def test_a_quota_that_is_gone(self) -> None:
        self.change("PUT", "/quotas/", {"quota": {"id": self.quota, "quota": 100}})
        self.assertEqual(self.sent(), "DUNNO")
        self.change("DELETE", "/quotas/", [self.quota])
        self.assertTrue(self.sent().startswith("REJECT"))

    def test_a_domain_that_a_user_has_no_more_and_has_again(self) -> None:
        self.change("PUT", "/quotas/", {"quota": {"id": self.quota, "quota": 100}})
        for path, id in ((f"/users/{self.ann}/domains/", self.domain), (f"/domains/{self.domain}/users/", self.ann)):
            self.assertEqual(self.sent(), "DUNNO")
            self.change("DELETE", path, [id])
            self.assertEqual(self.sent(), NOT_ALLOWED)
            self.change("PUT", path, [id])
        other = self.create(self.here, "domains", name="other.example")
        self.change("PUT", "/users/", {"user": {"id": self.ann}, "domains": [other]})
        self.assertEqual(self.sent(), NOT_ALLOWED)
        self.change("PUT", "/domains/", {"domain": {"id": self.domain}, "users": [self.ann]})
        self.assertEqual(self.sent(), "DUNNO")
        self.change("PUT", "/domains/", {"domain": {"id": self.domain, "name": "example.org"}})
        self.assertEqual(self.sent(), NOT_ALLOWED)
        self.change("DELETE", "/domains/", [self.domain])
        self.assertEqual(self.sent(sender="ann@example.org"), NOT_ALLOWED)

    def test_an_address_that_a_user_may_send_as(self) -> None:
        self.change("PUT", "/quotas/", {"quota": {"id": self.quota, "quota": 100}})
        address = {"sender": "ann@example.org"}
        self.assertEqual(self.sent(**address), NOT_ALLOWED)
        email = self.create(self.here, "emails", name="ann@example.org", users=[self.ann])
        self.assertEqual(self.sent(**address), "DUNNO")
        self.change("DELETE", f"/users/{self.ann}/emails/", [email])
        self.assertEqual(self.sent(**address), NOT_ALLOWED)

    def test_a_user_that_comes_goes_and_is_named_anew(self) -> None:
        self.assertEqual(self.sent(sasl_username="bob"), NOT_ALLOWED)
        bob = self.create(self.here, "users", name="bob", quota=self.quota, domains=[self.domain])
        self.assertEqual(self.sent(sasl_username="bob"), "DUNNO")
        self.change("PUT", "/users/", {"user": {"id": bob, "name": "carl"}})
        self.assertEqual(self.sent(sasl_username="bob"), NOT_ALLOWED)
        self.assertEqual(self.sent(sasl_username="carl"), "DUNNO")
        self.change("DELETE", "/users/", [bob])
        self.assertEqual(self.sent(sasl_username="carl"), NOT_ALLOWED)

    def test_the_flags_of_a_domain(self) -> None:
        for listener, flag, answer in (
            ("greylisting", "greylist", GREYLISTED),
            ("inbound", "greylist", GREYLISTED),
            ("inbound", "check_spf", SPF_FAILED),
        ):
            with self.subTest(listener=listener, flag=flag):
                passed = "DUNNO" if listener == "greylisting" else "PREPEND Received-SPF: fail"
                for value, begin in ((False, passed), (True, answer), (False, passed)):
                    self.change("PUT", "/domains/", {"domain": {"id": self.domain, flag: value}})
                    self.assertTrue(self.received(listener).startswith(begin))

    def test_the_flags_of_a_domain_that_was_not_there(self) -> None:
        self.assertEqual(self.received("greylisting", recipient="bob@new.example"), "DUNNO")
        self.create(self.here, "domains", name="new.example", greylist=True)
        self.assertTrue(self.received("greylisting", recipient="bob@new.example").startswith(GREYLISTED))

    # A node that stands still during a change goes on with what it has read before. It is stopped at ever later moments
    # of a question; at some of them it has read the book, and not yet kept the copy.

    def check(self, listener: str, question: Callable[[], Mapping[str, str]], clear: Call, *flips: Flip) -> None:
        """Change something to and fro; the question after each change is answered by the new state.

        :param clear: drops the copy, so that the book is asked.
        """
        client = self.clients[listener]
        for step, (change, answer) in zip(range(STEPS), cycle(flips), strict=False):
            self.expect(200, self.here, *clear)
            client.send(encode(question()))
            time.sleep(step * STEP)
            self.there.signal(SIGSTOP)
            self.change(*change)
            self.there.signal(SIGCONT)
            client.answer()
            next_answer = client.ask(question())
            self.assertTrue(next_answer.startswith(answer), f"stopped after {1000 * step * STEP:.1f} ms: {next_answer}")

    def test_it_keeps_no_limit_that_is_another_one_now(self) -> None:
        plenty = self.create(self.here, "quotas", name="plenty", quota=1_000_000)
        none = self.create(self.here, "quotas", name="none", quota=0)
        path = f"/users/{self.ann}/quota"
        self.check(
            "outbound",
            outbound,
            ("POST", f"/live/quota/{self.ann}"),
            (("PUT", f"{path}/{plenty}"), "DUNNO"),
            (("PUT", f"{path}/{none}"), OVER_QUOTA),
        )

    def test_it_keeps_no_verdict_that_is_another_one_now(self) -> None:
        self.change("PUT", "/quotas/", {"quota": {"id": self.quota, "quota": 1_000_000}})
        path, ids = f"/users/{self.ann}/domains/", [self.domain]
        self.check(
            "outbound",
            outbound,
            ("DELETE", "/live/sda/example.com/for/ann"),
            (("DELETE", path, ids), NOT_ALLOWED),
            (("PUT", path, ids), "DUNNO"),
        )

    def test_it_keeps_no_flag_that_is_another_one_now(self) -> None:
        on, off = ({"domain": {"id": self.domain, "greylist": flag}} for flag in (True, False))
        self.check(
            "greylisting",
            inbound,
            ("DELETE", "/live/grl/option_cache/example.com"),
            (("PUT", "/domains/", on), GREYLISTED),
            (("PUT", "/domains/", off), "DUNNO"),
        )


class StateAwayTests(InForceTestCase):
    """The state store goes away with the copies in it, and comes back with them."""

    ANN = "/live/sda/example.com/for/ann"

    @classmethod
    def setUpClass(cls) -> None:
        cls.run_both(cls.run_redis(appendonly="yes", appendfsync="always"))

    def tearDown(self) -> None:
        self.redis.go_on()
        if self.here.has_ended:
            self.here.start()
        super().tearDown()

    def unlink(self) -> Any:
        """Take the domain from Ann; returns the envelope."""
        return self.expect(200, self.here, "DELETE", f"/users/{self.ann}/domains/", [self.domain])

    def wait_in_force(self, seconds: float = 60.0) -> None:
        """Wait until the stale copy is dropped; nobody asks about Ann by policy requests meanwhile."""

        def dropped() -> bool:
            status, found = self.there.http(self.ANN)
            return status == 200 and found["response"] == "NOT CACHED"

        self.wait_for("the invalidation of the stale value", dropped, seconds)
        self.assertEqual(self.sent(), NOT_ALLOWED)

    def test_a_change_while_it_hangs(self) -> None:
        self.check(self.redis.hang, self.redis.go_on)

    def test_a_change_while_it_is_not_running(self) -> None:
        self.check(self.redis.kill, self.redis.start)

    def check(self, go: Callable[[], object], back: Callable[[], object]) -> None:
        self.assertEqual([self.sent(), self.sent()], ["DUNNO", OVER_QUOTA])
        self.assertEqual(self.received("greylisting"), "DUNNO")
        go()
        self.change_all()
        self.assertEqual(self.expect(200, self.there, "GET", f"/users/{self.ann}/domains/")["response"], [])
        self.expect(503, self.there, "GET", self.ANN)
        self.assertGreater(self.waiting_drops(), 0)
        back()
        # Nobody asks about Ann by policy requests meanwhile.
        self.wait_for("the invalidation of the stale values", lambda: not self.waiting_drops())
        self.assertEqual(self.expect(200, self.there, "GET", self.ANN)["response"], "NOT CACHED")
        self.assertIn("There is no cached limit for user ann.", self.remarks("/live/quota/0?name=ann"))
        self.assertEqual(self.sent(), NOT_ALLOWED)
        self.assertTrue(self.received("greylisting").startswith(GREYLISTED))

    def change_all(self) -> None:
        for method, path, body in (
            ("DELETE", f"/users/{self.ann}/domains/", [self.domain]),
            ("PUT", "/quotas/", {"quota": {"id": self.quota, "quota": 5}}),
            ("PUT", "/domains/", {"domain": {"id": self.domain, "greylist": True}}),
        ):
            self.assertEqual(self.expect(200, self.here, method, path, body)["remarks"], [STATE_AWAY])

    def remarks(self, path: str) -> list[str]:
        found: list[str] = self.expect(200, self.there, "GET", path)["remarks"]
        return found

    def waiting_drops(self) -> float:
        """How many operations on the state the first node still has to try again."""
        text = ask(self.here.ports["api"], "GET", "/metrics", token=self.here.token).body.decode()
        [line] = [line for line in text.splitlines() if line.startswith("chapps_waiting_drops ")]
        return float(line.split()[1])

    # The node that made a change is killed before the stale copies are dropped.

    def test_it_is_started_again_before_the_state_is_back(self) -> None:
        self.assertEqual(self.sent(), "DUNNO")
        self.redis.hang()
        self.assertEqual(self.unlink()["remarks"], [STATE_AWAY])
        self.here.kill()
        self.here.start()
        self.redis.go_on()
        self.wait_in_force()

    def test_it_stays_away_and_another_node_does_its_work(self) -> None:
        self.assertEqual(self.sent(), "DUNNO")
        self.redis.kill()
        self.assertEqual(self.unlink()["remarks"], [STATE_AWAY])
        self.here.kill()
        self.redis.start()
        self.wait_in_force()

    def test_it_is_killed_between_the_commit_and_the_drop(self) -> None:
        self.assertEqual(self.sent(), "DUNNO")
        self.redis.hang()
        asking = threading.Thread(target=self.ask_in_vain)
        asking.start()
        domains = f"/users/{self.ann}/domains/"
        self.wait_for("the commit", lambda: self.there.http(domains)[1]["response"] == [])
        self.here.kill()
        asking.join()
        # What the node has sent is lost with the server that never goes on to read it; the copies are not.
        assert self.redis.process is not None
        self.redis.process.popen.kill()
        self.redis.kill()
        self.redis.start()
        self.expect_stale()
        self.here.start()
        self.wait_in_force()

    def ask_in_vain(self) -> None:
        with suppress(ConnectionError, HTTPException):
            self.unlink()

    def expect_stale(self) -> None:
        self.wait_for("Redis", lambda: self.there.http(self.ANN)[0] == 200)
        self.assertEqual(self.expect(200, self.there, "GET", self.ANN)["response"], "AUTHORIZED")


class EmbeddedTests(APITestCase):
    """Everything in one process, which is killed between the commit and the drop."""

    def test_the_start_drops_what_was_left(self) -> None:
        service = self.run_service({**OPTIONS, **PATIENT})
        domain = self.create(service, "domains", name="example.com")
        quota = self.create(service, "quotas", name="plenty", quota=100)
        ann = self.create(service, "users", name="ann", quota=quota, domains=[domain])
        with service.client() as client:
            self.assertEqual(client.ask(outbound()), "DUNNO")
        service.kill()
        engine = make_engine(PolicyConfigAdapter(), "", str(service.directory))
        self.addCleanup(engine.dispose)
        unlink = partial(apply, edit=RemoveLinks("users", ann, "domains", [domain]), author="", now=0.0)
        transact(engine, unlink, Permit(), "taken")
        service.start()
        self.wait_for("the drop", lambda: not self.rows(engine))
        with service.client() as client:
            self.assertEqual(client.ask(outbound()), NOT_ALLOWED)

    def rows(self, engine: Engine) -> int:
        with engine.connect() as connection:
            return len(connection.execute(select(invalidation_outbox)).all())
