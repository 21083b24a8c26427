"""The table of decisions, and its ids."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Double, Index, Integer, MetaData, SmallInteger, String, Table, Text, text

from chapps_tw.database.models import MARIADB

# Lengths of the texts, in characters.
LENGTHS: Final = {
    "node": 64, "listener": 128, "policy": 128, "action": 512, "verb": 32, "reason": 64, "user": 320, "sender": 320,
    "sender_domain": 320, "recipient": 320, "recipient_domain": 320, "client": 64, "client_key": 33, "instance": 128,
    "queue_id": 64, "stage": 32, "shadow": 512, "detail": 512, "source": 64, "also": 512,
}  # fmt: skip

# What is searched by an index. Each is followed by the order of a search.
INDEXED: Final = (
    "user", "sender", "sender_domain", "recipient", "recipient_domain", "client_key", "instance", "queue_id", "refused",
)  # fmt: skip


def make_table(name: str = "history", *, in_file: bool = False) -> Table:
    """Return the table of decisions. Texts that are empty are NULL.

    ``sender_domain`` and ``recipient_domain`` are what follows the last ``@``. ``client_key`` is the address as text
    that sorts like addresses, see :func:`~chapps_tw.history.rows.client_key`. ``verb`` is the first word of the action.

    :param in_file: whether it is in an SQLite file, where the end of each index is the id.
    """
    texts = [Column(each, String(length)) for each, length in LENGTHS.items()]
    return Table(
        name,
        MetaData(),
        Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
        Column("time", Double, nullable=False),
        Column("refused", SmallInteger, nullable=False),
        *texts,
        Column("figures", Text),
        *(_index(name, first, in_file) for first in INDEXED),
        **MARIADB,
    )


def index_name(table: str, first: str) -> str:
    """Return the name of an index, by its first column."""
    return f"ix_{table}_{first}"


def _index(table: str, first: str, in_file: bool) -> Index:
    # That of users has all that counting by day needs.
    others = ["id", "refused"] if first == "user" else [] if in_file else ["id"]
    # Most decisions refuse nothing, and have only some of the texts.
    where = text("refused = 1" if first == "refused" else f'"{first}" IS NOT NULL')
    return Index(index_name(table, first), first, *others, sqlite_where=where, postgresql_where=where)


HISTORY: Final = make_table()
"""On a database server. In an SQLite file, there are several, with a number in their name."""

# --- ids ---

# An id has the milliseconds since the epoch, a random number of the process, and a number within the millisecond.
_PROCESS_BITS: Final = 11
_NUMBER_BITS: Final = 10
_SHIFT: Final = _PROCESS_BITS + _NUMBER_BITS

MAX_ID: Final = 2**63 - 1
IDS_PER_SECOND: Final = 1000 << _SHIFT

PROCESSES: Final = 1 << _PROCESS_BITS

# Milliseconds by which the clock may be set back before the ids of a process are no longer in the order of writing.
_JUMP: Final = 60_000


def id_at(seconds: float) -> int:
    """Return the lowest id at a time in epoch seconds."""
    return max(0, min(int(seconds * 1000) << _SHIFT, MAX_ID))


def time_of(id: int) -> float:
    """Return the epoch seconds of an id."""
    return (id >> _SHIFT) / 1000


class Ids:
    """Makes ids that are unique and increase. They follow the clock when it is set back.

    :param process: a random number below :data:`PROCESSES`: that of other processes should be different.
    """

    def __init__(self, process: int) -> None:
        self._process = process << _NUMBER_BITS
        self._last = 0

    def next(self, seconds: float) -> int:
        """Return an id for a decision at a time in epoch seconds."""
        moment = int(seconds * 1000) << _NUMBER_BITS
        if moment <= self._last < moment + (_JUMP << _NUMBER_BITS):
            moment = self._last + 1
        self._last = moment
        milliseconds, number = divmod(moment, 1 << _NUMBER_BITS)
        return milliseconds << _SHIFT | self._process | number
