"""Random steps on several LiveStates side by side, and on a model that is plainly right.

The model keeps everything for ever and works each answer out anew. Steps are synchronous, so that a
state whose answers take a reactor can be driven from a thread.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from operator import methodcaller
from typing import Any, NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from chapps_tw.interfaces.state import (
    NO_QUOTA,
    UNKNOWN_USER,
    Fill,
    GreylistAttempt,
    GreylistResult,
    GreylistRules,
    LiveState,
    Outcome,
    Rules,
    Spend,
    Spent,
)
from tests.support.examples import examples

START = 1_700_000_000.0
# Ends that no sum of steps meets: what happens at that very moment is nobody's promise. Some of Redis' keys
# expire in real time, which goes on too: hence seconds to spare.
TTL = 43.1
# Of what was deferred, of what has passed, and of a tally.
LIFETIMES = (60.1, 90.1, 120.1)
INTERVAL = 100.0
USERS = ("bob", "alice")
CLIENTS = ("192.0.2.0/24", "example.net")
DOMAINS = ("our.example", "other.example")
NAMES = ("a", "b")


class Subject(NamedTuple):
    """A state to be compared.

    :ivar run: waits for an answer.
    :ivar advance: lets its time go on.
    :ivar close: puts it away.
    """

    name: str
    state: LiveState
    run: Callable[[Awaitable[Any]], Any]
    advance: Callable[[float], None]
    close: Callable[[], None]


@dataclass
class Message:
    first: float
    cost: int
    seen: set[str] = field(default_factory=set)


@dataclass
class Model:
    """What a LiveState is to answer."""

    now: float = START
    copies: dict[str, tuple[int, float]] = field(default_factory=dict)
    messages: dict[str, dict[str, Message]] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    tuples: dict[tuple[str, str, str], tuple[float, float]] = field(default_factory=dict)
    tallies: dict[str, dict[str, float]] = field(default_factory=dict)
    ends: dict[str, float] = field(default_factory=dict)
    names: Any = field(default_factory=count)

    def copy(self, name: str) -> int | None:
        value, fresh = self.copies.get(name, (0, 0.0))
        return value if fresh > self.now else None

    def counted(self, user: str) -> dict[str, Message]:
        mine = self.messages.setdefault(user, {})
        for instance in [name for name, message in mine.items() if message.first + INTERVAL <= self.now]:
            del mine[instance]
        return mine

    def used(self, user: str) -> int:
        return sum(message.cost for message in self.counted(user).values())

    def spend(self, spend: Spend, rules: Rules, limit: int) -> Spent:
        if limit < 0:
            return Spent(Outcome.UNKNOWN_USER if limit == UNKNOWN_USER else Outcome.NO_QUOTA, 0, 0, 0.0, "")
        mine, used = self.counted(spend.user), self.used(spend.user)
        instance = spend.instance or f"\0{next(self.names)}"
        known = mine.get(instance)
        message = known or Message(self.now, 0)
        if spend.recipient:
            target = message.cost + (spend.recipient not in message.seen)
        else:
            target = spend.cost or max(message.cost, 1)
        if target == message.cost:
            return Spent(Outcome.REPEATED, limit, used, 0.0, "")
        if not known and spend.user in self.last and self.now - self.last[spend.user] < rules.min_delta:
            return Spent(Outcome.TOO_SOON, limit, used, self.last[spend.user] + rules.min_delta - self.now, "")
        total = used - message.cost + target
        most = limit + rules.margin_count + math.floor(limit * rules.margin_ratio)
        if target > message.cost and not ((known or used < limit) and total <= most):
            if known and not spend.recipient:
                del mine[instance]
            wait = min((each.first for each in mine.values()), default=self.now - INTERVAL) + INTERVAL - self.now
            return Spent(Outcome.EXCEEDED, limit, self.used(spend.user), wait, "")
        if not known:
            self.last[spend.user] = self.now
        message.cost = target
        message.seen |= {spend.recipient} - {""}
        mine[instance] = message
        return Spent(Outcome.ACCEPTED, limit, total, 0.0, "")

    def reset(self, user: str) -> int:
        used = self.used(user)
        self.messages.pop(user, None)
        self.last.pop(user, None)
        return used

    def tally(self, client: str) -> list[tuple[str, float]]:
        if self.ends.get(client, 0.0) <= self.now:
            self.tallies.pop(client, None)
        return sorted(self.tallies.get(client, {}).items(), key=lambda item: (item[1], item[0]))

    def check_greylist(self, attempt: GreylistAttempt, rules: GreylistRules, flag: int | None) -> GreylistResult:
        if not flag and not attempt.forced:
            return GreylistResult(Outcome.NOT_GREYLISTED, 0.0, 0, "")
        names = [name for name in (attempt.spf_domain, attempt.client) if name]
        known_as = [name for name in names if 0 < rules.threshold <= len(self.tally(name))]
        if known_as:
            return GreylistResult(Outcome.KNOWN_CLIENT, 0.0, self.count(known_as[0], attempt.instance, rules), "")
        tuples = [(name, attempt.sender, attempt.recipient) for name in names]
        firsts = [first for first in (self.first_met(each, rules) for each in tuples) if first is not None]
        first = min(firsts, default=self.now)
        self.tuples |= dict.fromkeys(tuples, (first, self.now))
        wait = first + rules.deferral - self.now
        if wait > 0:
            return GreylistResult(Outcome.EARLY if firsts else Outcome.FIRST, wait, len(self.tally(names[0])), "")
        return GreylistResult(Outcome.PASSED, 0.0, self.count(names[0], attempt.instance, rules), "")

    def first_met(self, name: tuple[str, str, str], rules: GreylistRules) -> float | None:
        """When a tuple was first met, while it is remembered."""
        first, last = self.tuples.get(name, (0.0, 0.0))
        passed = last - first >= rules.deferral
        return first if self.now - last <= (rules.pass_ttl if passed else rules.retry_window) else None

    def count(self, client: str, instance: str, rules: GreylistRules) -> int:
        tally = dict(self.tally(client))
        if rules.threshold and instance and instance not in tally:
            self.tallies.setdefault(client, {})[instance] = self.now
            self.ends[client] = self.now + rules.tally_ttl
            kept = self.tally(client)[-rules.threshold :]
            self.tallies[client] = dict(kept)
            return len(kept)
        return len(tally)


steps_of_time = st.sampled_from([0.25, 5.0, 10.0, 25.0, 25.0, 50.0, 50.0, 99.75, 100.0, 200.0])
spends = st.builds(
    Spend,
    user=st.sampled_from(USERS),
    instance=st.sampled_from(["", "i1", "i2", "i3", "i4"]),
    recipient=st.sampled_from(["", "", "r1", "r2", "r3"]),
    cost=st.integers(0, 6),
)
rules_used = st.builds(
    Rules,
    interval=st.just(INTERVAL),
    margin_count=st.sampled_from([0, 0, 1, 3]),
    margin_ratio=st.sampled_from([0.0, 0.0, 0.25, 0.5]),
    min_delta=st.sampled_from([0.0, 0.0, 10.0]),
)
limits = st.sampled_from([NO_QUOTA, UNKNOWN_USER, 0, 1, 4, 4, 8])
attempts = st.builds(
    GreylistAttempt,
    client=st.sampled_from(CLIENTS),
    sender=st.sampled_from(["", "s@example.net"]),
    recipient=st.sampled_from(["r@our.example"]),
    domain=st.sampled_from(DOMAINS),
    instance=st.sampled_from(["", "i1", "i2", "i3", "i4"]),
    forced=st.sampled_from([False, False, True]),
    spf_domain=st.sampled_from(["", "", *CLIENTS[1:]]),
)
# What happens between MISSING and the fill.
meanwhiles = st.sampled_from(["", "", "", "drop it", "drop another", "time"])


class Comparison(RuleBasedStateMachine):
    """The steps. :func:`compare` makes a class of it that has subjects."""

    factories: tuple[Callable[[], Subject], ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.subjects = [make() for make in self.factories]

    def teardown(self) -> None:
        for subject in self.subjects:
            subject.close()

    def same(self, expected: Any, ask: Callable[[LiveState], Awaitable[Any]]) -> None:
        for subject in self.subjects:
            answer = _comparable(subject.run(ask(subject.state)))
            assert answer == _comparable(expected), (subject.name, answer, expected)

    def tokens(self, ask: Callable[[LiveState], Awaitable[Any]]) -> list[str]:
        """The tokens that come with MISSING."""
        answers = [subject.run(ask(subject.state)) for subject in self.subjects]
        assert all(answer.outcome == Outcome.MISSING for answer in answers), answers
        return [answer.token for answer in answers]

    def each(self, do: Callable[[LiveState], Awaitable[Any]]) -> None:
        for subject in self.subjects:
            subject.run(do(subject.state))

    def go_on(self, seconds: float) -> None:
        self.model.now += seconds
        for subject in self.subjects:
            subject.advance(seconds)

    @rule(seconds=steps_of_time)
    def advance(self, seconds: float) -> None:
        self.go_on(seconds)

    @rule(spend=spends, rules=rules_used, limit=limits, meanwhile=meanwhiles)
    def spend(self, spend: Spend, rules: Rules, limit: int, meanwhile: str) -> None:
        known = self.model.copy(spend.user)
        if known is not None:
            self.asked(spend, rules, known, [None] * len(self.subjects))
            return
        tokens = self.tokens(lambda state: state.spend(spend, rules))
        other = USERS[spend.user == USERS[0]]
        if meanwhile == "time":
            self.go_on(5.0)
        elif meanwhile:
            self.drop_limits([spend.user if meanwhile == "drop it" else other])
        fills: list[Fill | None] = [Fill(token, limit, TTL) for token in tokens]
        self.asked(spend, rules, limit, fills)
        if meanwhile != "drop it":
            self.model.copies[spend.user] = (limit, self.model.now + TTL)

    def asked(self, spend: Spend, rules: Rules, limit: int, fills: list[Fill | None]) -> None:
        peeked = [
            _comparable(subject.run(subject.state.peek_spend(spend, rules, fill)))
            for subject, fill in zip(self.subjects, fills, strict=True)
        ]
        expected = _comparable(self.model.spend(spend, rules, limit))
        for subject, fill, seen in zip(self.subjects, fills, peeked, strict=True):
            answer = _comparable(subject.run(subject.state.spend(spend, rules, fill)))
            assert answer == expected, (subject.name, answer, expected)
            assert seen == expected, (subject.name, "peek", seen, expected)

    @rule(users=st.lists(st.sampled_from(USERS), max_size=2))
    def drop_limits(self, users: list[str]) -> None:
        self.each(lambda state: state.drop_limits(users))
        for user in users:
            self.model.copies.pop(user, None)

    @rule(user=st.sampled_from(USERS))
    def reset_usage(self, user: str) -> None:
        self.same(self.model.reset(user), lambda state: state.reset_usage(user, INTERVAL))

    @invariant()
    def usage_is_the_same(self) -> None:
        model = self.model
        for subject in self.subjects:
            found = subject.run(subject.state.usage(USERS, INTERVAL))
            for user, usage in zip(USERS, found, strict=True):
                assert usage[:2] == (model.copy(user), model.used(user)), (subject.name, user, usage)
                # A user who sent nothing in all of the window may be forgotten.
                last = model.last.get(user, 0.0)
                if model.now - last < INTERVAL:
                    assert round(usage.last, 3) == last, (subject.name, user, usage, last)

    @rule(
        attempt=attempts,
        deferral=st.sampled_from([0.0, 10.0, 30.0]),
        threshold=st.sampled_from([0, 1, 3]),
        flag=st.sampled_from([0, 1, 1]),
        meanwhile=meanwhiles,
    )
    def check_greylist(
        self, attempt: GreylistAttempt, deferral: float, threshold: int, flag: int, meanwhile: str
    ) -> None:
        rules = GreylistRules(deferral, *LIFETIMES, threshold)
        known = self.model.copy("@" + attempt.domain)
        if known is not None or attempt.forced:
            self.met(attempt, rules, known, [None] * len(self.subjects))
            return
        tokens = self.tokens(lambda state: state.check_greylist(attempt, rules))
        other = DOMAINS[attempt.domain == DOMAINS[0]]
        if meanwhile == "time":
            self.go_on(5.0)
        elif meanwhile:
            self.drop_flags([attempt.domain if meanwhile == "drop it" else other])
        fills: list[Fill | None] = [Fill(token, flag, TTL) for token in tokens]
        self.met(attempt, rules, flag, fills)
        if meanwhile != "drop it":
            self.model.copies["@" + attempt.domain] = (flag, self.model.now + TTL)

    def met(self, attempt: GreylistAttempt, rules: GreylistRules, flag: int | None, fills: list[Fill | None]) -> None:
        peeked = [
            _comparable(subject.run(subject.state.peek_greylist(attempt, rules, fill)))
            for subject, fill in zip(self.subjects, fills, strict=True)
        ]
        expected = _comparable(self.model.check_greylist(attempt, rules, flag))
        for subject, fill, seen in zip(self.subjects, fills, peeked, strict=True):
            answer = _comparable(subject.run(subject.state.check_greylist(attempt, rules, fill)))
            assert answer == expected, (subject.name, answer, expected)
            assert seen == expected, (subject.name, "peek", seen, expected)

    @rule(domains=st.lists(st.sampled_from(DOMAINS), max_size=2))
    def drop_flags(self, domains: list[str]) -> None:
        self.each(lambda state: state.drop_flags(domains))
        for domain in domains:
            self.model.copies.pop("@" + domain, None)

    @rule(client=st.sampled_from(CLIENTS))
    def clear_tally(self, client: str) -> None:
        self.each(lambda state: state.clear_tally(client))
        self.model.tallies.pop(client, None)

    @invariant()
    def greylisting_is_the_same(self) -> None:
        for client in CLIENTS:
            self.same(self.model.tally(client), methodcaller("tally", client))
        for names, (_, last) in self.model.tuples.items():
            if self.model.now - last <= LIFETIMES[0]:
                self.same(last, methodcaller("last_attempt", *names))

    @rule(
        name=st.sampled_from(NAMES),
        owner=st.sampled_from(USERS),
        allowed=st.booleans(),
        meanwhile=meanwhiles,
    )
    def keep_verdict(self, name: str, owner: str, allowed: bool, meanwhile: str) -> None:
        found = [subject.run(subject.state.verdicts("sda", owner, [name]))[0] for subject in self.subjects]
        if meanwhile == "time":
            self.go_on(5.0)
        elif meanwhile:
            self.drop_verdicts([name if meanwhile == "drop it" else NAMES[name == NAMES[0]]], owner)
        for subject, verdict in zip(self.subjects, found, strict=True):
            subject.run(subject.state.keep_verdicts("sda", owner, [(name, allowed, verdict.token)], TTL))
        if meanwhile != "drop it":
            self.model.copies[f"{owner}:{name}"] = (int(allowed), self.model.now + TTL)

    @rule(names=st.lists(st.sampled_from(NAMES), max_size=3, unique=True), owner=st.sampled_from(USERS))
    def drop_verdicts(self, names: list[str], owner: str) -> None:
        were = [self.verdict(owner, name) for name in names]
        self.same(were, lambda state: state.drop_verdicts("sda", owner, names))
        for name in names:
            self.model.copies.pop(f"{owner}:{name}", None)

    def verdict(self, owner: str, name: str) -> bool | None:
        value = self.model.copy(f"{owner}:{name}")
        return None if value is None else value == 1

    @invariant()
    def verdicts_are_the_same(self) -> None:
        for owner in USERS:
            expected = [self.verdict(owner, name) for name in NAMES]
            for subject in self.subjects:
                found = subject.run(subject.state.verdicts("sda", owner, NAMES))
                assert [each.allowed for each in found] == expected, (subject.name, found, expected)

    @rule(name=st.sampled_from(NAMES))
    def first_time(self, name: str) -> None:
        first = self.model.copy("!" + name) is None
        if first:
            self.model.copies["!" + name] = (1, self.model.now + TTL)
        self.same(first, lambda state: state.first_time("prepend", name, TTL))


def _comparable(answer: Any) -> Any:
    """An answer without its token, times to the millisecond."""
    if hasattr(answer, "outcome"):
        return tuple(round(part, 3) for part in answer[:-1])
    if isinstance(answer, list | tuple):
        return [_comparable(part) for part in answer]
    return round(answer, 3) if isinstance(answer, float) else answer


def compare(*factories: Callable[[], Subject], tries: int = 100, steps: int = 40) -> None:
    """Drive new subjects through random steps, and fail where one is not as the model.

    Blocks; where answers come from a running reactor, to be called in a thread.

    :param factories: make the subjects of each example; their time begins at :data:`START`.
    :param tries: examples; see :func:`~tests.support.examples.examples`.
    """
    machine = type("Comparison", (Comparison,), {"factories": factories})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples(tries),
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
