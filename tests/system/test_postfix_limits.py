"""Limits, pools, defaults and overrides through a real Postfix.

What SMTP says, what ``/live/limits/`` shows, and what ``/live/explain/`` answers agree.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

from tests.support.policy_client import outbound
from tests.support.postfix_case import PostfixTestCase
from tests.support.servers.common import wait_until
from tests.support.servers.service import PATIENT, Options, Service, new_name
from tests.support.smtp_client import Replies, SMTPClient

REFUSED, DEFERRED = 554, 450
DAY = 86400
RESERVED = 1.5
TEXT = "Subject: test\r\n\r\nHello\r\n"

OPTIONS: Options = {
    **PATIENT,
    "SenderDomainAuthPolicy": {"mode": "shadow"},
    "OutboundQuotaPolicy": {
        "margin": 0,
        "default_quota": "everybody",
        "reservation_ttl": RESERVED,
        "rejection_message": "REJECT {level} limit {limit_name}: {used} of {limit} in {window}, again in {retry_in}",
    },
}


class LimitsTestCase(PostfixTestCase):
    """A service for all tests of the class, and a Postfix for each that asks it at some stages.

    :ivar domain: of the users of the test.
    :ivar user: one of them.
    """

    service: ClassVar[Service]

    @classmethod
    def setUpClass(cls) -> None:
        cls.service = Service(OPTIONS)
        cls.addClassCleanup(cls.service.remove)
        cls.service.start().wait_ready()

    def setUp(self) -> None:
        self.domain = f"{new_name('d')}.example"
        self.user = f"ann@{self.domain}"

    def ask_at(self, *stages: str) -> None:
        """Start a Postfix that asks the service at these stages."""
        self.run_postfix({stage: [self.service.endpoint()] for stage in stages})

    def api(self, method: str, path: str, body: object = None, status: int = 200) -> Any:
        code, answer = self.service.http(path, method, body)
        self.assertEqual(code, status, answer)
        return answer["response"]

    def quota(self, number: int | None, *limits: Mapping[str, object]) -> int:
        """Create a quota with limits; return its id."""
        name = new_name("q")
        id = int(self.api("POST", "/quotas/", {"name": name, "quota": number}, 201)["id"])
        for each in limits:
            self.api("POST", f"/quotas/{id}/limits/", each, 201)
        return id

    def add_user(self, quota: int) -> None:
        self.api("POST", "/users/", {"name": self.user, "quota": quota}, 201)

    def session(self, user: str = "") -> SMTPClient:
        client = SMTPClient(self.postfix.port)
        self.addCleanup(client.close)
        client.xclient(ADDR="203.0.113.5", NAME="laptop.example.net", LOGIN=user or self.user)
        return client

    def send(self, recipients: int = 1, user: str = "", text: str = TEXT) -> Replies:
        names = [f"{new_name('r')}@example.net" for _ in range(recipients)]
        with self.session(user) as client:
            return client.message(user or self.user, names, text)

    def delivered(self, times: int, recipients: int = 1, user: str = "") -> list[int]:
        """Send messages; return for how many recipients each was accepted."""
        return [self.send(recipients, user).delivered for _ in range(times)]

    def limits(self, user: str = "") -> dict[str, tuple[int, int]]:
        """Return what is used and left of each limit of a user."""
        shown = self.api("GET", f"/live/limits/{user or self.user}")
        return {each["name"] or each["level"]: (each["used"], each["left"]) for each in shown["limits"]}

    def explain(self, stage: str, recipients: int = 1, user: str = "", **attributes: str) -> Any:
        """Return what the quota would decide about a new message."""
        user = user or self.user
        request = outbound(
            protocol_state=stage, sasl_username=user, sender=user, recipient_count=str(recipients), **attributes
        )
        code, answer = self.service.http("/live/explain/?listener=outbound", "POST", request)
        self.assertEqual(code, 200, answer)
        return answer["response"][-1]

    def assertRefused(self, reply: tuple[int, str] | None, decision: Any, *words: str) -> None:
        """What the client was told is what the explanation answers."""
        assert reply is not None
        self.assertEqual(reply[0], REFUSED)
        self.assertEqual(decision["reason"], "quota_exceeded")
        text = decision["action"].removeprefix("REJECT ")
        for word in (text.partition(", again")[0], *words):
            self.assertIn(word, reply[1])


class PlanTests(LimitsTestCase):
    def test_an_hour_and_a_day_hold_at_once_at_data(self) -> None:
        self.ask_at("DATA")
        self.add_user(self.quota(8, {"name": "hour", "amount": 5, "window": "1h"}))
        self.assertEqual(self.delivered(3, 2), [2, 2, 0])
        self.assertEqual(self.limits(), {"user": (4, 4), "hour": (4, 1)})
        self.assertRefused(
            self.send(2).data, self.explain("DATA", 2, recipient=""), "user limit hour: 4 of 5 in 1 hour"
        )
        self.assertEqual(self.delivered(1, 1), [1])
        self.assertEqual(self.limits(), {"user": (5, 3), "hour": (5, 0)})

    def test_the_longer_window_refuses_while_the_shorter_one_has_room(self) -> None:
        self.ask_at("DATA")
        self.add_user(self.quota(3, {"name": "second", "amount": 2, "window": "1s"}))
        self.assertEqual(self.delivered(1, 2), [2])
        wait_until(lambda: self.limits()["second"][1] == 2, "room in the shorter window")
        self.assertRefused(self.send(2).data, self.explain("DATA", 2, recipient=""), "2 of 3 in 1 day")

    def test_bytes_for_each_recipient_at_the_end_of_the_message(self) -> None:
        self.ask_at("END-OF-MESSAGE")
        self.add_user(self.quota(None, {"name": "volume", "unit": "bytes", "amount": 100_000, "window": "1d"}))
        large = "Subject: large\r\n\r\n" + ("x" * 70 + "\r\n") * 450
        told = [self.send(2, text=large), self.send(2, text=large), self.send(1, text=large)]
        self.assertEqual([each.delivered for each in told], [2, 0, 1])
        used, left = self.limits()["volume"]
        self.assertEqual(used + left, 100_000)
        self.assertGreater(used, 3 * 450 * 72)
        decision = self.explain("END-OF-MESSAGE", 2, recipient="", size="33000")
        self.assertRefused(self.send(2, text=large).end, decision, "user limit volume", f"{used} of 100000")

    def test_distinct_recipients_at_rcpt(self) -> None:
        self.ask_at("RCPT")
        limit = {"name": "people", "unit": "distinct_recipients", "amount": 3, "window": "1h"}
        self.add_user(self.quota(None, limit))
        people = [f"{name}@example.net" for name in ("p", "q", "r")]
        with self.session() as client:
            self.assertEqual(client.message(self.user, people).delivered, 3)
            self.assertEqual(client.message(self.user, people).delivered, 3)
            self.assertEqual(client.message(self.user, ["s@example.net", *people[:1]]).codes, [REFUSED, 250])
            told = client.message(self.user, ["s@example.net"]).recipients[0]
        self.assertRefused(told, self.explain("RCPT", 0, recipient="s@example.net"), "user limit people: 3 of 3")
        self.assertEqual(self.explain("RCPT", 0, recipient="p@example.net")["action"], "DUNNO")
        self.assertEqual(self.limits(), {"people": (3, 0)})

    def test_a_domain_gives_each_user_a_quota_and_shares_a_pool(self) -> None:
        self.ask_at("DATA")
        plans = {"each_quota": self.quota(3), "pool_quota": self.quota(7)}
        self.api("POST", "/domains/", {"name": self.domain, **plans}, 201)
        users = [f"{name}@{self.domain}" for name in ("ann", "ben", "cid")]
        self.assertEqual([self.delivered(2, 2, user) for user in users], [[2, 0], [2, 0], [2, 0]])
        self.assertEqual(self.limits(users[0]), {"domain": (2, 1), "domain pool": (6, 1)})
        self.assertEqual(self.delivered(1, 1, users[0]), [1])
        told = self.send(1, users[1]).data
        self.assertRefused(
            told, self.explain("DATA", 1, users[1], recipient=""), "domain pool limit", "7 of 7 in 1 day"
        )
        self.assertEqual(self.limits(users[1]), {"domain": (2, 1), "domain pool": (7, 0)})
        self.assertEqual(self.api("GET", f"/live/pools/{self.domain}")["limits"][0]["used"], 7)
        self.api("DELETE", f"/live/limits/{users[1]}")
        self.assertEqual(self.limits(users[1]), {"domain": (0, 3), "domain pool": (7, 0)})
        self.assertEqual(self.api("DELETE", f"/live/pools/{self.domain}"), 7)
        self.assertEqual(self.delivered(1, 2, users[1]), [2])

    def test_who_was_never_entered_has_the_default_quota(self) -> None:
        self.ask_at("DATA")
        self.assertEqual(self.send().data, (REFUSED, self.unknown))
        plan = self.quota(2)
        self.api("PUT", "/quotas/", {"id": plan, "name": "everybody"})
        self.assertEqual(self.delivered(3), [1, 1, 0])
        told = self.send().data
        self.assertRefused(told, self.explain("DATA", recipient=""), "default limit everybody: 2 of 2")
        shown = self.api("GET", f"/live/limits/{self.user}")
        self.assertEqual((shown["known"], shown["may_send"]), (False, True))
        self.assertEqual(self.limits(), {"default": (2, 0)})

    @property
    def unknown(self) -> str:
        return f"5.7.1 <DATA>: Data command rejected: Rejected - {self.user} may not send mail here; ask your provider"

    def test_a_change_of_a_quota_is_in_force_for_the_next_message(self) -> None:
        self.ask_at("DATA")
        plan = self.quota(1)
        self.add_user(plan)
        self.assertEqual(self.delivered(2), [1, 0])
        self.api("PUT", "/quotas/", {"id": plan, "quota": 3})
        self.assertEqual(self.delivered(3), [1, 1, 0])
        self.api("POST", f"/quotas/{plan}/limits/", {"name": "hour", "amount": 0, "window": "1h"}, 201)
        self.assertEqual(self.explain("DATA", recipient="")["detail"], "user:" + self.name_of(plan) + "/hour")

    def name_of(self, plan: int) -> str:
        return str(self.api("GET", f"/quotas/{plan}/")["name"])


class ActionTests(LimitsTestCase):
    def test_a_limit_may_defer_and_another_hold(self) -> None:
        self.ask_at("DATA")
        limits = (
            {"name": "hour", "amount": 1, "window": "1h", "action": "defer"},
            {"name": "letters", "unit": "messages", "amount": 9, "window": "1d", "action": "hold"},
        )
        self.add_user(self.quota(None, *limits))
        self.assertEqual(self.delivered(1), [1])
        told = self.send().data
        assert told is not None
        self.assertEqual(told[0], DEFERRED)
        self.assertIn("user limit hour: 1 of 1 in 1 hour", told[1])

    def test_a_message_on_hold_is_accepted_and_waits_in_the_queue(self) -> None:
        self.ask_at("DATA")
        self.add_user(self.quota(None, {"name": "hour", "amount": 1, "window": "1h", "action": "hold"}))
        self.assertEqual(self.delivered(2), [1, 1])
        hold = self.postfix.directory / "queue" / "hold"
        self.assertEqual(sum(path.is_file() for path in hold.rglob("*")), 1)


class RefusedAtTheEndTests(LimitsTestCase):
    """A client that goes on after a refusal at the end of its message, without RSET."""

    def test_the_next_message_costs_the_recipients_that_postfix_counts(self) -> None:
        self.ask_at("RCPT", "DATA", "END-OF-MESSAGE")
        self.add_user(self.quota(9, {"name": "volume", "unit": "bytes", "amount": 10, "window": "1d"}))
        with self.session() as client:
            self.assertEqual(client.command(f"MAIL FROM:<{self.user}>")[0], 250)
            self.begin(client)
            self.assertEqual(client.text(TEXT)[0], REFUSED)
            self.assertEqual(self.limits()["user"], (0, 9))
            self.api("POST", "/overrides/", {"user": self.user, "kind": "unlimited", "until": "1d"}, 201)
            again = client.command(f"MAIL FROM:<{self.user}>")[0]
            self.assertEqual(again, 250 if self.ends_refused_transactions else 503)
            self.begin(client)
            self.assertEqual(client.text(TEXT)[0], 250)
        self.assertEqual(len(self.postfix.delivered(1)), 1)
        # In the transaction that goes on, Postfix still counts the recipient of the refused message.
        self.assertEqual(self.limits()["user"][0], 1 if self.ends_refused_transactions else 2)

    def begin(self, client: SMTPClient) -> None:
        """Add a recipient, and begin the text."""
        self.assertEqual(client.command(f"RCPT TO:<{new_name('r')}@example.net>")[0], 250)
        self.assertEqual(client.command("DATA")[0], 354)


class OverrideTests(LimitsTestCase):
    def override(self, **fields: object) -> int:
        return int(self.api("POST", "/overrides/", {"user": self.user, **fields}, 201)["id"])

    def test_suspended_until_a_time(self) -> None:
        self.ask_at("DATA")
        self.add_user(self.quota(9))
        self.assertEqual(self.delivered(1), [1])
        self.override(kind="suspended", until=time.time() + 2.0, reason="password stolen")
        told = self.send().data
        assert told is not None
        self.assertEqual(told[0], REFUSED)
        self.assertIn(f"{self.user} is suspended from sending mail: password stolen", told[1])
        self.assertEqual(self.explain("DATA", recipient="")["reason"], "suspended")
        shown = self.api("GET", f"/live/limits/{self.user}")
        self.assertEqual((shown["may_send"], [each["kind"] for each in shown["overrides"]]), (False, ["suspended"]))
        wait_until(lambda: self.explain("DATA", recipient="")["reason"] != "suspended", "the end of the suspension")
        self.assertEqual(self.delivered(1), [1])

    def test_a_suspended_user_may_be_deferred(self) -> None:
        self.ask_at("DATA")
        self.add_user(self.quota(9))
        self.override(kind="suspended", until="1h", action="defer", reason="please call us")
        told = self.send().data
        assert told is not None
        self.assertEqual((told[0], "please call us" in told[1]), (DEFERRED, True))

    def test_extra_and_unlimited_are_in_force_at_once_and_end_when_they_are_deleted(self) -> None:
        self.ask_at("DATA")
        self.add_user(self.quota(1))
        self.assertEqual(self.delivered(2), [1, 0])
        extra = self.override(kind="extra", value=2, until="1d")
        self.assertEqual(self.delivered(3), [1, 1, 0])
        self.assertEqual(self.limits(), {"user": (3, 0)})
        unlimited = self.override(kind="unlimited", until="1d")
        self.assertEqual(self.delivered(2), [1, 1])
        for id in (extra, unlimited):
            self.api("DELETE", f"/overrides/{id}/")
        self.assertEqual(self.delivered(1), [0])
        self.assertEqual(self.limits(), {"user": (5, 0)})


class ReservationTests(LimitsTestCase):
    def give_up(self, recipients: int) -> None:
        """Name recipients, and leave without DATA."""
        with self.session() as client:
            client.command(f"MAIL FROM:<{self.user}>")
            codes = [client.command(f"RCPT TO:<{new_name('r')}@example.net>")[0] for _ in range(recipients)]
            self.assertEqual(codes, [250] * recipients)

    def test_a_message_given_up_after_rcpt_is_given_back_where_data_is_asked_about(self) -> None:
        self.ask_at("RCPT", "DATA")
        self.add_user(self.quota(9))
        self.assertEqual(self.delivered(1, 2), [2])
        self.give_up(3)
        self.assertEqual(self.limits(), {"user": (5, 4)})
        wait_until(lambda: self.limits()["user"] == (2, 7), "the reservation given back")
        self.assertEqual(self.delivered(1, 7), [7])


class EventTests(LimitsTestCase):
    def test_near_and_at_the_limit_are_listed_logged_and_counted_once(self) -> None:
        self.ask_at("DATA")
        self.add_user(self.quota(5))
        self.assertEqual(self.delivered(7), [1] * 5 + [0] * 2)
        mine = [each for each in self.api("GET", "/live/events/?limit=1000") if each["account"] == self.user]
        told = [(each["kind"], each["level"], each["used"], each["amount"]) for each in mine]
        self.assertEqual(told, [("at_limit", "user", 5, 5), ("near_limit", "user", 4, 5)])
        self.assertEqual(self.service.log().count(f"{self.user!r} has used 4 of 5 (near_limit)"), 1)
        near = [each["account"] for each in self.api("GET", "/live/events/?kind=near_limit&limit=1000")]
        self.assertEqual(near.count(self.user), 1)
