"""When notices are sent, tried again, and lost."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from email import message_from_bytes
from itertools import pairwise
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from chapps_tw.config.settings import Notify
from chapps_tw.interfaces.book import BookUnavailable
from chapps_tw.interfaces.events import EventsWanted, KeptEvent
from chapps_tw.interfaces.state import LiveState
from chapps_tw.notify import intake
from chapps_tw.notify.counts import Counts
from chapps_tw.notify.delivery import Delivery
from chapps_tw.notify.facts import Facts
from chapps_tw.notify.intake import Intake
from chapps_tw.notify.message import Message
from chapps_tw.notify.notice import Channel, Notice, Outcome, notice, notices_of
from chapps_tw.notify.outbox import Outbox, Upkeep
from chapps_tw.notify.report import Report
from chapps_tw.notify.senders import Mailer
from chapps_tw.notify.smtp import Relay
from chapps_tw.policies.events import LimitEvent

NOW = 1_790_000_000.0
EVENT = LimitEvent("at_limit", "oqp", "ann@example.com", "hour", "user", 5, 5, 3600.0, NOW, "messages")


class FakeOutbox:
    """Keeps notices in memory, with the time at which each is due; :attr:`problem` makes it unavailable."""

    def __init__(self) -> None:
        self.due: dict[Notice, float] = {}
        self.problem = ""
        self.room = 1000
        self.given_up: dict[tuple[str, str], int] = {}

    def _require(self) -> None:
        if self.problem:
            raise BookUnavailable(self.problem)

    async def add(self, notices: Sequence[Notice]) -> Sequence[Notice]:
        self._require()
        self.due |= dict.fromkeys(notices[: self.room], 0.0)
        return notices[self.room :]

    async def lease(self, channel: Channel, now: float, count: int) -> list[Notice]:
        self._require()
        found = [each for each, due in self.due.items() if due <= now][:count]
        leased = [each._replace(attempts=each.attempts + 1) for each in found]
        self.due = {each: due for each, due in self.due.items() if each not in found} | dict.fromkeys(leased, now + 60)
        return leased

    async def settle(self, sent: Collection[Notice], failed: Mapping[Notice, float]) -> None:
        self._require()
        self.due = {each: due for each, due in self.due.items() if each not in sent} | dict(failed)

    async def maintain(self, now: float) -> Upkeep:
        return Upkeep({("user", "at_limit"): len(self.due)}, self.given_up)


class DeliveryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.outbox = FakeOutbox()
        self.counts = Counts()
        self.answer: Callable[[Notice], str] = lambda _: ""
        self.is_final = False
        self.attempts: list[tuple[float, str]] = []
        outbox, now = cast(Outbox, self.outbox), self.clock.seconds
        self.delivery = Delivery(Channel.USER, outbox, self.send, 2, self.counts, 8.0, self.clock, now)

    def send(self, notices: Sequence[Notice]) -> Awaitable[Sequence[Outcome]]:
        self.attempts += [(self.clock.seconds(), each.id) for each in notices]
        return succeed([Outcome(self.answer(each), self.is_final) for each in notices])

    def add(self, count: int) -> list[Notice]:
        made = [notice(Channel.USER, "at_limit", {"number": number}, 0.0) for number in range(count)]
        self.outbox.due |= dict.fromkeys(made, 0.0)
        return made

    def pass_time(self, seconds: int) -> None:
        self.clock.pump([0.25] * 4 * seconds)

    def test_all_that_is_due_is_sent_at_once(self) -> None:
        self.add(5)
        self.delivery.loop.start()
        self.pass_time(1)
        self.assertEqual((len(self.attempts), self.outbox.due), (5, {}))
        self.assertEqual(dict(self.counts.sent), {("user", "at_limit"): 5})
        self.successResultOf(Deferred.fromCoroutine(self.delivery.loop.stop()))

    def test_one_that_is_refused_waits_twice_as_long_each_time_and_holds_no_other_back(self) -> None:
        bad, *_ = self.add(4)
        self.answer = lambda each: "550 who?" if each.id == bad.id else ""
        self.delivery.loop.start()
        self.pass_time(100)
        self.assertEqual([int(at) for at, id in self.attempts if id == bad.id][:2], [0, 8])
        self.assertEqual(len([at for at, id in self.attempts if id != bad.id]), 3)
        times = [at for at, id in self.attempts if id == bad.id]
        pauses = [later - earlier for earlier, later in pairwise(times)]
        for pause, least in zip(pauses, (8, 16, 32), strict=True):
            # The loop looks every eight seconds.
            self.assertTrue(least <= pause <= least + 8, pauses)

    def test_what_is_refused_for_good_is_dropped_and_counted_and_delays_no_other(self) -> None:
        self.add(5)
        self.answer, self.is_final = lambda _: "550 who?", True
        self.delivery.loop.start()
        self.pass_time(1)
        self.assertEqual((len(self.attempts), self.outbox.due), (5, {}))
        self.assertEqual((dict(self.counts.sent), self.counts.failed["user", "at_limit"]), ({}, 5))

    def test_while_nothing_is_taken_few_are_tried_and_after_it_all_are(self) -> None:
        self.add(50)
        self.answer = lambda _: "no connection"
        self.delivery.loop.start()
        self.pass_time(30)
        self.assertLessEqual(len(self.attempts), 12)
        self.answer = lambda _: ""
        self.pass_time(120)
        self.assertEqual((self.counts.sent["user", "at_limit"], self.outbox.due), (50, {}))

    def test_what_was_sent_while_the_database_is_away_is_recorded_later_and_not_sent_again(self) -> None:
        self.add(1)

        def sent(_: Notice) -> str:
            self.outbox.problem = "away"
            return ""

        self.answer = sent
        self.delivery.loop.start()
        self.pass_time(10)
        self.assertEqual(len(self.outbox.due), 1)
        self.outbox.problem = ""
        self.pass_time(100)
        self.assertEqual((len(self.attempts), self.outbox.due), (1, {}))


class MailerTests(SynchronousTestCase):
    def test_what_cannot_be_composed_holds_no_other_back(self) -> None:
        sent: list[str] = []

        class FakeRelay:
            async def send(self, messages: Sequence[Message]) -> list[Outcome]:
                sent.extend(each.recipient for each in messages)
                return [Outcome()] * len(messages)

        options = replace(Notify(), from_address="a@example.com")
        facts = Facts(options, cast(LiveState, None), "mx1")
        mailer = Mailer(options, facts, cast(Report, None), cast(Relay, FakeRelay()), in_thread, lambda: NOW)
        event = EVENT._replace(unit="")
        texts = [event._replace(account="nobody")._asdict(), {"new": "form"}, event._asdict()]
        notices = [notice(Channel.USER, "at_limit", text, NOW) for text in texts]
        problems = self.successResultOf(Deferred.fromCoroutine(mailer.send(notices)))
        self.assertEqual(sent, ["ann@example.com"])
        self.assertEqual([bool(each.problem) for each in problems], [True, True, False])

    def test_several_events_for_the_administrator_are_one_mail(self) -> None:
        sent: list[Message] = []

        class FakeRelay:
            async def send(self, messages: Sequence[Message]) -> list[Outcome]:
                sent.extend(messages)
                return [Outcome("later")] * len(messages)

        options = replace(Notify(), from_address="a@example.com", admin_address="ops@example.com")
        facts = Facts(options, cast(LiveState, None), "mx1")
        mailer = Mailer(options, facts, cast(Report, None), cast(Relay, FakeRelay()), in_thread, lambda: NOW)
        suspended = KeptEvent(7, NOW, "suspended", "", "desk", "bob@example.com", "password stolen", {})
        told = [
            ("at_limit", EVENT._replace(unit="")._asdict()),
            ("suspended", suspended._asdict()),
            ("test", {"at": NOW}),
        ]
        notices = [notice(Channel.ADMIN, kind, content, NOW) for kind, content in told]
        outcomes = self.successResultOf(Deferred.fromCoroutine(mailer.send(notices)))
        self.assertEqual(outcomes, [Outcome("later")] * 3)
        test, digest = (message_from_bytes(each.data) for each in sent)
        self.assertEqual(test["Subject"], "A test of the notices")
        self.assertEqual(digest["Subject"], "2 events: at limit, suspended")
        text = digest.get_payload()
        assert isinstance(text, str)
        self.assertIn("ann@example.com has used 5 of 5 messages", text)
        self.assertIn("bob@example.com: suspended (password stolen), by desk", text)


async def in_thread(work: Callable[..., Any], *arguments: Any) -> Any:
    return work(*arguments)


class State:
    """The list of events."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    async def events(self, count: int) -> list[str]:
        return self.texts[:count]


class IntakeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.outbox, self.state, self.counts = FakeOutbox(), State(), Counts()
        self.options = replace(Notify(), user_events=("at_limit",), admin_events=("suspended",))
        self.events: list[KeptEvent] = []
        self.noted: list[tuple[str, str, str]] = []
        self.intake = Intake(
            self.options, cast(LiveState, self.state), cast(Outbox, self.outbox), self.counts, lambda: None,
            self.clock, self.clock.seconds, self.run_now, self.kept, lambda *told: self.noted.append(told),
        )  # fmt: skip

    async def kept(self, wanted: EventsWanted) -> list[KeptEvent]:
        return [each for each in self.events if each.kind in wanted.kinds and each.id > wanted.after]

    def run_now(self, work: Callable[..., Any], *arguments: Any) -> Awaitable[Any]:
        return succeed(work(*arguments))

    def added(self) -> list[str]:
        return sorted(json.loads(each.content)["account"] for each in self.outbox.due)

    def event(self, name: str, ago: float = 0.0) -> LimitEvent:
        return EVENT._replace(account=f"{name}@example.com", at=NOW - ago)

    def test_events_wait_while_the_database_is_away(self) -> None:
        self.outbox.problem = "away"
        self.intake.loop.start()
        for number in range(250):
            self.intake.note(self.event(f"u{number}"))
        self.clock.advance(2)
        self.assertEqual(self.outbox.due, {})
        self.outbox.problem = ""
        self.clock.advance(2)
        self.assertEqual(len(self.added()), 250)
        self.assertEqual(dict(self.counts.failed), {})

    def test_what_has_no_room_is_counted(self) -> None:
        self.patch(intake, "MAX_WAITING", 3)
        for number in range(5):
            self.intake.note(self.event(f"u{number}"))
        self.outbox.room = 2
        self.intake.loop.start()
        self.assertEqual(self.added(), ["u0@example.com", "u1@example.com"])
        self.assertEqual(dict(self.counts.failed), {("user", "at_limit"): 3})

    def test_events_of_the_last_hour_that_nobody_added_are_added_once(self) -> None:
        told = [self.event("old", 3601), self.event("lost", 3599), self.event("new", 1)]
        self.state.texts = [json.dumps(each._asdict()) for each in told] + ["{"]
        self.intake.loop.start()
        self.assertEqual(self.added(), ["lost@example.com"])
        self.clock.advance(10)
        self.clock.pump([10.0] * 6)
        self.assertEqual(self.added(), ["lost@example.com", "new@example.com"])
        [first, second] = [each for event in told[1:] for each in notices_of(event, self.options)]
        self.assertEqual(set(self.outbox.due), {first, second})
        self.outbox.due = {}
        self.clock.pump([10.0] * 12)
        self.assertEqual(self.outbox.due, {})

    def test_events_in_the_database_are_told_once_and_not_those_of_yesterday(self) -> None:
        def kept(id: int, ago: float) -> KeptEvent:
            return KeptEvent(id, NOW - ago, "suspended", "", "desk", "bob@example.com", "", {})

        self.events = [kept(1, 3601.0), kept(2, 60.0)]
        self.intake.loop.start()
        self.assertEqual([json.loads(each.content)["id"] for each in self.outbox.due], [2])
        self.outbox.due = {}
        # Noticed long ago by a node that could not keep it.
        self.events.append(kept(3, 7200.0))
        self.clock.pump([10.0] * 6)
        self.assertEqual([json.loads(each.content)["id"] for each in self.outbox.due], [3])

    def test_that_notices_were_given_up_is_an_event(self) -> None:
        self.outbox.given_up = {("webhook", "at_limit"): 4}
        self.intake.loop.start()
        self.assertEqual(self.noted, [("notices_given_up", "webhook", "4 of at_limit")])
