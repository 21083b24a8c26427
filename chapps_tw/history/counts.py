"""Counting decisions in groups, for a limited time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, case, func, literal_column, select

from chapps_tw.history.conditions import conditions_of
from chapps_tw.history.search import Expired, bounds, execute
from chapps_tw.history.store import Span, Store
from chapps_tw.history.table import HISTORY, IDS_PER_SECOND, time_of
from chapps_tw.interfaces.history import MAX_FOUND, Counts, Group, GroupBy, Wanted

# Groups in memory, and different addresses of all groups that are shown.
_MAX_GROUPS: Final = 100_000
_MAX_ADDRESSES: Final = 200_000

_SECONDS: Final = {GroupBy.HOUR: 3600, GroupBy.DAY: 86400}
_WITH_ADDRESSES: Final = (GroupBy.USER, GroupBy.CLIENT)

_KEY = HISTORY.c.client_key
# The version, and the first bytes in hexadecimal: 24 bits of IPv4, 64 of IPv6.
_NETWORK = case((_KEY.like("4%"), func.substr(_KEY, 1, 7)), else_=func.substr(_KEY, 1, 17))

_GROUPED: Final[dict[GroupBy, ColumnElement[Any]]] = {
    GroupBy.USER: HISTORY.c.user,
    GroupBy.REASON: HISTORY.c.reason,
    GroupBy.CLIENT: _NETWORK,
    **{by: HISTORY.c.id // literal_column(str(seconds * IDS_PER_SECOND)) for by, seconds in _SECONDS.items()},
}
# Groups are named by the label: to a database, two expressions with parameters are never the same.
_LABEL: Final = "grouped"


def counts(store: Store, wanted: Wanted, by: GroupBy, limit: int, expired: Expired) -> Counts:
    """Count decisions, see :meth:`~chapps_tw.interfaces.history.History.counts`. Blocks.

    :raises sqlalchemy.exc.SQLAlchemyError, OSError: if the store is unavailable.
    """
    most = max(1, min(limit, MAX_FOUND))
    with store.reading() as connection:
        counting = _Counting(store, connection, wanted, by, expired)
        numbers = counting.numbers()
        keys = _largest(numbers)[:most]
        if by in _SECONDS:
            keys = sorted(numbers)[-most:]
        addresses = counting.addresses([key for key in keys if key]) if by in _WITH_ADDRESSES else {}
    groups = [_group(by, key, numbers[key], addresses.get(key)) for key in keys]
    return Counts(groups, time_of(counting.low) if counting.low else 0.0)


def _largest(numbers: Mapping[Any, tuple[int, int]]) -> list[Any]:
    """Sort keys by the number of decisions, the largest first."""
    return sorted(numbers, key=lambda key: (-numbers[key][0], str(key)))


class _Counting:
    """Counts in one transaction.

    :ivar low: the lowest id that was counted, 0 for all.
    """

    def __init__(self, store: Store, connection: Connection, wanted: Wanted, by: GroupBy, expired: Expired) -> None:
        self.low = 0
        self._store = store
        self._connection = connection
        self._expired = expired
        self._conditions = conditions_of(wanted)
        self._first, self._end = bounds(wanted)
        self._key = _GROUPED[by]

    def numbers(self) -> dict[Any, tuple[int, int]]:
        """Return, by key, the number of decisions, and of those that refused mail."""
        query = select(self._key.label(_LABEL), func.count(), func.sum(HISTORY.c.refused)).where(*self._conditions.all)
        query = query.group_by(literal_column(_LABEL))
        found: dict[Any, tuple[int, int]] = {}
        for number, span in enumerate(self._spans()):
            if number and (self._expired() or len(found) > _MAX_GROUPS):
                self.low = span.high
                break
            for key, decisions, refused in execute(self._connection, query, span):
                before = found.get(key, (0, 0))
                found[key] = before[0] + decisions, before[1] + int(refused)
        return found

    def addresses(self, keys: Sequence[Any]) -> dict[Any, tuple[int, int]]:
        """Return, by key, the numbers of different senders and recipients; nothing if there is no time to count all."""
        found: dict[Any, tuple[set[str], set[str]]] = {key: (set(), set()) for key in keys}
        conditions = (*self._conditions.all, self._key.in_(keys))
        for span in self._spans():
            for side, column in enumerate((HISTORY.c.sender, HISTORY.c.recipient)):
                query = select(self._key.label(_LABEL), column).where(*conditions, column.is_not(None)).distinct()
                for key, address in execute(self._connection, query, span):
                    found[key][side].add(address)
            total = sum(len(senders) + len(recipients) for senders, recipients in found.values())
            if self._expired() or total > _MAX_ADDRESSES:
                return {}
        return {key: (len(senders), len(recipients)) for key, (senders, recipients) in found.items()}

    def _spans(self) -> Iterator[Span]:
        return self._store.spans(self._connection, self._conditions, max(self._first, self.low), self._end)


def _group(by: GroupBy, key: Any, numbers: tuple[int, int], addresses: tuple[int, int] | None) -> Group:
    start = float(int(key) * _SECONDS[by]) if by in _SECONDS else 0.0
    name = "" if by in _SECONDS or key is None else _network(key) if by is GroupBy.CLIENT else str(key)
    return Group(name, start, *numbers, *(addresses or (None, None)))


def _network(key: str) -> str:
    """Return the network of the first part of a client's key."""
    version, prefix = key[0], key[1:]
    size = 4 if version == "4" else 16
    address = ip_address(bytes.fromhex(prefix.ljust(2 * size, "0")))
    return str(ip_network((address, 4 * len(prefix))))
