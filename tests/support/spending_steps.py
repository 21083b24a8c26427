"""Random messages with their charges, compared with :class:`~tests.support.spending_model.SpendingModel`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from chapps_tw.interfaces.state import Account, Charge, Message, Unit, Window
from tests.support.spending_model import SpendingModel
from tests.support.state_machine import START, Comparison


class Kind(NamedTuple):
    """An account with the windows that its messages are counted in: always the longest, and some of the others."""

    account: Account
    unit: Unit
    windows: tuple[float, ...]


KINDS = (
    Kind(Account("oqp", "bob"), Unit.RECIPIENTS, (100.0, 50.0, 10.0)),
    Kind(Account("pool", "bob"), Unit.BYTES, (200.0, 25.0)),
    Kind(Account("limit:a", "bob"), Unit.MESSAGES, (100.0, 60.0)),
    Kind(Account("limit:b", "bob"), Unit.DISTINCT_RECIPIENTS, (100.0, 50.0, 10.0)),
)
WINDOWS = [Window(kind.account, kind.unit, seconds) for kind in KINDS for seconds in (*kind.windows, 75.0)]

messages = st.one_of(
    st.builds(
        Message,
        instance=st.sampled_from(["", "i1", "i2", "i3", "i4"]),
        recipient=st.sampled_from(["r1", "r2", "r3", "r4"]),
        whole=st.just(False),
        reserve=st.sampled_from([0.0, 0.0, 30.0, 150.0]),
    ),
    st.builds(
        Message,
        instance=st.sampled_from(["", "i1", "i2", "i3", "i4"]),
        recipient=st.sampled_from(["", "r1", "r2"]),
        whole=st.just(True),
        # Ignored.
        reserve=st.sampled_from([0.0, 0.0, 30.0]),
    ),
)
steps_of_time = st.sampled_from([0.25, 5.0, 10.0, 25.0, 25.0, 50.0, 50.0, 99.75, 100.0, 200.0])


@st.composite
def charges_of_a_message(draw: st.DrawFn) -> list[Charge]:
    """Draw 1 to 4 charges of one or two accounts, in any order."""
    charges = []
    for kind in draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=2, unique=True)):
        amount = draw(st.integers(0, 6))
        others = draw(st.lists(st.sampled_from(kind.windows), max_size=1))
        charges += [
            Charge(
                kind.account,
                kind.unit,
                amount,
                limit=draw(st.sampled_from([0, 1, 4, 4, 8, 12])),
                window=window,
                margin=draw(st.sampled_from([0, 0, 1, 3])),
                min_delta=draw(st.sampled_from([0.0, 0.0, 0.0, 10.0])),
            )
            for window in (kind.windows[0], *others)
        ]
    return draw(st.permutations(charges))


class Spending(Comparison):
    """Messages, resets, and a clock that goes on and is set back."""

    def __init__(self) -> None:
        super().__init__()
        self.model = SpendingModel(START)
        # A store may still have what the model has removed.
        self.ends: set[float] = set()

    def go_on(self, seconds: float) -> None:
        self.ends.update(self.ends_now())
        super().go_on(seconds)
        self.model.now = self.now

    @rule(seconds=steps_of_time)
    def advance(self, seconds: float) -> None:
        self.go_on(seconds)

    @rule(message=messages, charges=charges_of_a_message())
    def spend(self, message: Message, charges: list[Charge]) -> None:
        self.same(self.model.peek(message, charges), lambda state: state.peek(message, charges))
        self.same(self.model.spend(message, charges), lambda state: state.spend(message, charges))

    @rule(message=messages, charges=charges_of_a_message())
    def repeat(self, message: Message, charges: list[Charge]) -> None:
        for _ in range(2):
            self.spend(message, charges)

    @rule(message=messages, charges=charges_of_a_message(), seconds=st.sampled_from([0.25, 10.0, 60.0, 300.0]))
    def set_back(self, message: Message, charges: list[Charge], seconds: float) -> None:
        """Set the clock back, and have each account counted at once: what is ahead counts from that moment."""
        # Whether what has left a window comes back with the clock is nobody's promise.
        if any(self.now - seconds <= end <= self.now for end in self.ends.union(self.ends_now())):
            return
        self.go_on(-seconds)
        for kind in KINDS:
            self.count(kind)
        self.spend(message, charges)

    def count(self, kind: Kind) -> None:
        message = Message("", "r1", True)
        charges = [Charge(kind.account, kind.unit, 1, 10**6, window) for window in kind.windows]
        self.same(self.model.spend(message, charges), lambda state: state.spend(message, charges))

    def ends_now(self) -> Iterator[float]:
        """Yield when something leaves a window or is given back, or when an account may be forgotten."""
        for account, _, seconds in WINDOWS:
            yield self.model.last.get(account, 0.0) + seconds
            for entry in self.model.accounts.get(account, {}).values():
                yield entry.time + min(seconds, entry.held)

    @rule(kinds=st.lists(st.sampled_from(KINDS), max_size=2), number=st.integers(0, 1))
    def reset(self, kinds: list[Kind], number: int) -> None:
        windows = [Window(kind.account, kind.unit, kind.windows[number]) for kind in kinds]
        self.same(self.model.reset(windows), lambda state: state.reset(windows))

    @invariant()
    def usage_is_the_same(self) -> None:
        expected = self.model.usage(WINDOWS)
        for subject in self.subjects:
            found = subject.run(subject.state.usage(WINDOWS))
            for window, right, usage in zip(WINDOWS, expected, found, strict=True):
                where = (subject.name, window, usage, right)
                assert (usage.used, round(usage.oldest, 3)) == (right.used, round(right.oldest, 3)), where
                # A user who sent nothing in all of the longest window may be forgotten.
                if self.now - right.last < window.seconds:
                    assert round(usage.last, 3) == round(right.last, 3), where
