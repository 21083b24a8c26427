"""Random reads and changes of what is cached, and random mail that is greylisted, compared with a model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from operator import methodcaller
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from chapps_tw.interfaces.greylist import Fill, GreylistAttempt, GreylistResult, GreylistRules
from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import Fresh, LiveState, ValueKey
from tests.support.state_machine import START, Comparison, comparable

# Ends that no sum of steps meets: what happens at that very moment is nobody's promise. Some of Redis' keys expire in
# real time, which goes on too: hence some ten seconds to spare, for a machine that is slow.
TTL = 172.4
# Of what was deferred, of what has passed, and of a tally.
LIFETIMES = (240.4, 360.4, 480.4)
# Seconds that an example may last: a token need not be good for longer.
LONGEST = 3500.0
CLIENTS = ("192.0.2.0/24", "example.net")
DOMAINS = ("our.example", "other.example")
KEYS = tuple(
    ValueKey(space, owner, name)
    for space, owner, name in (("sda", "bob", "a"), ("sda", "bob", "b"), ("sda", "alice", "a"), ("user", "bob", ""))
)
NAMES = ("a", "b")


@dataclass
class Model:
    """What a LiveState is to answer."""

    now: float = START
    copies: dict[object, tuple[str, float]] = field(default_factory=dict)
    tuples: dict[tuple[str, str, str], tuple[float, float]] = field(default_factory=dict)
    tallies: dict[str, dict[str, float]] = field(default_factory=dict)
    ends: dict[str, float] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)

    def copy(self, name: object) -> str | None:
        value, fresh = self.copies.get(name, ("", 0.0))
        return value if fresh > self.now else None

    def keep(self, name: object, value: str) -> None:
        self.copies[name] = (value, self.now + TTL)

    def once(self, name: object) -> bool:
        """Return whether something is new, and remember it."""
        is_new = self.copy(name) is None
        if is_new:
            self.keep(name, "")
        return is_new

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


steps_of_time = st.sampled_from([1.0, 20.0, 40.0, 100.0, 100.0, 200.0, 200.0, 399.0, 400.0, 800.0])
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


class Caching(Comparison):
    """Values, flags, greylisted mail, and what happens once."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()

    def go_on(self, seconds: float) -> None:
        if self.now + seconds < START + LONGEST:
            super().go_on(seconds)
            self.model.now = self.now

    def tokens(self, ask: Callable[[LiveState], Awaitable[Any]]) -> list[str]:
        """Return the tokens that come with MISSING."""
        answers = self.each(ask)
        assert all(answer.outcome == Outcome.MISSING for answer in answers), answers
        return [answer.token for answer in answers]

    @rule(seconds=steps_of_time)
    def advance(self, seconds: float) -> None:
        self.go_on(seconds)

    @rule(
        attempt=attempts,
        deferral=st.sampled_from([0.0, 40.0, 120.0]),
        threshold=st.sampled_from([0, 1, 3]),
        flag=st.sampled_from([0, 1, 1]),
        meanwhile=meanwhiles,
    )
    def check_greylist(
        self, attempt: GreylistAttempt, deferral: float, threshold: int, flag: int, meanwhile: str
    ) -> None:
        rules = GreylistRules(deferral, *LIFETIMES, threshold)
        known = self.flag(attempt.domain)
        if known is not None or attempt.forced:
            self.met(attempt, rules, known, [None] * len(self.subjects))
            return
        tokens = self.tokens(lambda state: state.check_greylist(attempt, rules))
        other = DOMAINS[attempt.domain == DOMAINS[0]]
        if meanwhile == "time":
            self.go_on(20.0)
        elif meanwhile:
            self.drop_flags([attempt.domain if meanwhile == "drop it" else other])
        fills: list[Fill | None] = [Fill(token, flag, TTL) for token in tokens]
        self.met(attempt, rules, flag, fills)
        if meanwhile != "drop it":
            self.model.keep(("flag", attempt.domain), str(flag))

    def flag(self, domain: str) -> int | None:
        value = self.model.copy(("flag", domain))
        return None if value is None else int(value)

    def met(self, attempt: GreylistAttempt, rules: GreylistRules, flag: int | None, fills: list[Fill | None]) -> None:
        peeked = [
            comparable(subject.run(subject.state.peek_greylist(attempt, rules, fill)))
            for subject, fill in zip(self.subjects, fills, strict=True)
        ]
        expected = comparable(self.model.check_greylist(attempt, rules, flag))
        for subject, fill, seen in zip(self.subjects, fills, peeked, strict=True):
            answer = comparable(subject.run(subject.state.check_greylist(attempt, rules, fill)))
            assert answer == expected, (subject.name, answer, expected)
            assert seen == expected, (subject.name, "peek", seen, expected)

    @rule(domains=st.lists(st.sampled_from(DOMAINS), max_size=2))
    def drop_flags(self, domains: list[str]) -> None:
        self.each(lambda state: state.drop_flags(domains))
        for domain in domains:
            self.model.copies.pop(("flag", domain), None)

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
        keys=st.lists(st.sampled_from(KEYS), max_size=3, unique=True),
        value=st.sampled_from(["0", "1", "", "{}"]),
        meanwhile=meanwhiles,
    )
    def keep_values(self, keys: list[ValueKey], value: str, meanwhile: str) -> None:
        found = self.each(lambda state: state.values(keys))
        dropped: list[ValueKey] = []
        if meanwhile == "time":
            self.go_on(20.0)
        elif meanwhile:
            dropped = [each for each in KEYS if (each in keys[:1]) == (meanwhile == "drop it")]
            self.drop_values(dropped)
        for subject, cached in zip(self.subjects, found, strict=True):
            fresh = [Fresh(key, value, each.token) for key, each in zip(keys, cached, strict=True)]
            subject.run(subject.state.keep_values(fresh, TTL))
        for key in set(keys) - set(dropped):
            self.model.keep(key, value)

    @rule(keys=st.lists(st.sampled_from(KEYS), max_size=3, unique=True))
    def drop_values(self, keys: list[ValueKey]) -> None:
        self.same([self.model.copy(key) for key in keys], lambda state: state.drop_values(keys))
        for key in keys:
            self.model.copies.pop(key, None)

    @invariant()
    def values_are_the_same(self) -> None:
        expected = [self.model.copy(key) for key in KEYS]
        for subject in self.subjects:
            found = [each.value for each in subject.run(subject.state.values(KEYS))]
            assert found == expected, (subject.name, found, expected)

    @rule(keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=2, unique=True))
    def confirm(self, keys: list[ValueKey]) -> None:
        """What a store recalls right after it was read is right."""
        for subject in self.subjects:
            subject.run(subject.state.values(keys))
            recalled = {key: subject.state.recall(key) for key in keys}
            assert all(value in (None, self.model.copy(key)) for key, value in recalled.items()), (
                subject.name,
                recalled,
            )
            assert subject.run(subject.state.confirm(subject.state.version())), subject.name

    @rule(name=st.sampled_from(NAMES))
    def first_time(self, name: str) -> None:
        self.same(self.model.once(("first", name)), lambda state: state.first_time("prepend", name, TTL))

    @rule(name=st.sampled_from(NAMES), event=st.sampled_from(["near", "over"]))
    def note_event(self, name: str, event: str) -> None:
        is_new = self.model.once(("event", name))
        if is_new:
            self.model.events.insert(0, event)
        self.same(is_new, lambda state: state.note_event(name, TTL, event))

    @invariant()
    def events_are_the_same(self) -> None:
        for count in (2, 1000):
            self.same(self.model.events[:count], methodcaller("events", count))
