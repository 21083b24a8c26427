"""Messages and charges as tests write them."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from chapps_tw.interfaces.state import Account, Charge, LiveState, Message, Spent, Unit, Usage, Window

SPACE = "oqp"
WINDOW = 1000.0
LIMIT = 5


def whole(instance: str, recipient: str = "") -> Message:
    """Return a request about a whole message."""
    return Message(instance, recipient, True)


def rcpt(instance: str, recipient: str, reserve: float = 0.0) -> Message:
    """Return a request about one more recipient of a message."""
    return Message(instance, recipient, False, reserve)


def charge(
    name: str = "bob",
    amount: int = 1,
    limit: int = LIMIT,
    window: float = WINDOW,
    unit: Unit = Unit.RECIPIENTS,
    margin: int = 0,
    min_delta: float = 0.0,
    space: str = SPACE,
) -> Charge:
    """Return a charge of the account of a user, or of another account."""
    return Charge(Account(space, name), unit, amount, limit, window, margin, min_delta)


def window_of(charge: Charge) -> Window:
    """Return the window that a charge is judged by."""
    return Window(charge.account, charge.unit, charge.window)


def spend_one(
    state: LiveState, name: str, instance: str, amount: int = 1, limit: int = 10**6, window: float = WINDOW
) -> Awaitable[Spent]:
    """Count a message of a user in a single charge."""
    return state.spend(whole(instance), [charge(name, amount, limit, window)])


async def count_many(state: LiveState, name: str, count: int, windows: Sequence[float]) -> None:
    """Count so many messages of a user, 500 at a time."""
    charges = [charge(name, limit=10**6, window=window) for window in windows]
    for start in range(0, count, 500):
        numbers = range(start, min(start + 500, count))
        for asked in [state.spend(whole(f"many{number}"), charges) for number in numbers]:
            await asked


async def usage_of(state: LiveState, name: str = "bob", window: float = WINDOW) -> Usage:
    """Return what the window of a user contains."""
    return (await state.usage([Window(Account(SPACE, name), Unit.RECIPIENTS, window)]))[0]
