"""``python -m bench.history``: fills a history with made-up decisions, and measures writing and searching."""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from ipaddress import ip_network
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, NamedTuple

from chapps_tw.config.settings import PolicyConfigAdapter
from chapps_tw.config.values import Secret
from chapps_tw.database import schema
from chapps_tw.database.engine import make_engine
from chapps_tw.history.counts import counts
from chapps_tw.history.files import FileStore
from chapps_tw.history.rows import row_of
from chapps_tw.history.search import search
from chapps_tw.history.servers import ServerStore
from chapps_tw.history.store import BATCH, Bounds, Store
from chapps_tw.history.table import Ids
from chapps_tw.interfaces.history import GroupBy, Wanted
from chapps_tw.observe.decision_record import Record

DAY = 86400.0
DAYS = 30
# Epoch seconds of the newest decision.
END = 1_790_000_000.0

_USERS, _CLIENTS, _SENDERS, _RECIPIENTS = 20_000, 200_000, 3_000_000, 1_000_000
_FIGURES = {"limit": 200, "used": 12, "remaining": 188}
_UNBOUNDED = Bounds(365 * DAY, 1 << 50)

# What is searched, by name.
SEARCHES: Mapping[str, Mapping[str, Any]] = {
    "newest": {},
    "last refusals": {"refused": True},
    "user": {"user": "user7@dom7.example"},
    "user, refused": {"user": "user7@dom7.example", "refused": True},
    "rare user": {"user": "user19000@dom0.example"},
    "no such user": {"user": "nobody"},
    "sender": {"sender": "user7@dom7.example"},
    "recipient": {"recipient": "user7@dom7.example"},
    "recipient domain": {"recipient": "@dom7.example"},
    "client": {"client": ip_network("10.0.0.7")},
    "network": {"client": ip_network("80.0.7.0/24")},
    "no such queue id": {"queue_id": "NONE"},
    "no such instance": {"instance": "none"},
    "part of a sender": {"sender": "user77"},
    "reason": {"reason": "greylist_first"},
}
# What is counted, by name: in groups, and of the last so many days.
COUNTS: Mapping[str, tuple[GroupBy, float, Mapping[str, Any]]] = {
    "a user, 30 days by day": (GroupBy.DAY, DAYS, {"user": "user0@dom0.example"}),
    "top senders of 5 min": (GroupBy.USER, 300 / DAY, {}),
    "top senders of 1 h": (GroupBy.USER, 3600 / DAY, {}),
    "top senders of 24 h": (GroupBy.USER, 1, {}),
    "reasons of 24 h": (GroupBy.REASON, 1, {}),
    "networks of 1 h": (GroupBy.CLIENT, 3600 / DAY, {}),
}


class Measured(NamedTuple):
    """A measurement.

    :ivar found: number of decisions, or of groups.
    """

    name: str
    milliseconds: float
    found: int


def decisions(number: int, seed: int = 1) -> Iterator[Record]:
    """Yield decisions of 30 days, oldest first: some users, clients and recipients have many, most have few."""
    chance = random.Random(seed)
    for place in range(number):
        time = round(END - DAYS * DAY * (1 - (place + 1) / number), 3)
        user, refused = int(_USERS * chance.random() ** 3), chance.random() < 0.08
        name = f"user{user}@dom{user % 500}.example"
        instance = f"{chance.randrange(4000):x}.{int(time):x}.{chance.randrange(100_000):x}.0"
        make = _sent if chance.random() < 0.6 else _received
        record = make(chance, user, name, refused)
        yield record._replace(time=time, instance=instance, queue_id=f"{chance.randrange(1 << 44):011X}")


def _sent(chance: random.Random, user: int, name: str, refused: bool) -> Record:
    recipient = int(_RECIPIENTS * chance.random() ** 2)
    return Record(
        0.0, "outbound", "OutboundQuotaPolicy", "REJECT Rejected - outbound quota fulfilled" if refused else "DUNNO",
        "quota_exceeded" if refused else "within_quota", _FIGURES, name, name,
        f"r{recipient}@d{recipient % 30_000}.example", f"10.0.{user // 256}.{user % 256}", "", "", "RCPT", "", "",
        "cache", "",
    )  # fmt: skip


def _received(chance: random.Random, user: int, name: str, refused: bool) -> Record:
    sender, client = int(_SENDERS * chance.random() ** 2), int(_CLIENTS * chance.random() ** 2)
    return Record(
        0.0, "inbound", "GreylistingPolicy", "DEFER_IF_PERMIT Try again later" if refused else "DUNNO",
        "greylist_first" if refused else "greylist_passed", {}, "", f"s{sender}@e{sender % 50_000}.example", name,
        f"80.{client >> 16}.{client >> 8 & 255}.{client & 255}", "", "", "RCPT", "", "client 192.0.2.0/24", "cache", "",
    )  # fmt: skip


def fill(store: Store, number: int, told: Callable[[int, float], None] = lambda rows, speed: None) -> None:
    """Write decisions as the writer does.

    :param told: called after each tenth with the number of rows so far, and the rows per second of this tenth.
    """
    ids, records, spent, told_at = Ids(1), decisions(number), 0.0, 0
    for done in range(0, number, BATCH):
        batch = list(islice(records, BATCH))
        began = perf_counter()
        store.write([row_of(ids.next(record.time), "mx1", record) for record in batch])
        store.maintain(batch[-1].time)
        spent += perf_counter() - began
        written = done + len(batch)
        if written - told_at >= number / 10 or written == number:
            told(written, (written - told_at) / spent)
            spent, told_at = 0.0, written
    while store.maintain(END):
        pass


def measured(store: Store) -> Iterator[Measured]:
    """Measure each search and each count once."""
    for name, wanted in SEARCHES.items():
        began = perf_counter()
        page = search(store, Wanted(**wanted), None, 100, lambda: False)
        yield Measured(name, 1000 * (perf_counter() - began), len(page.decisions))
    for name, (by, days, wanted) in COUNTS.items():
        began = perf_counter()
        found = counts(store, Wanted(**wanted, since=END - days * DAY), by, 100, lambda: False)
        yield Measured(name, 1000 * (perf_counter() - began), len(found.groups))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.history", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="(default %(default)s)")
    parser.add_argument("--url", default="", help="of an empty database on a server; by default an SQLite file is used")
    chosen = parser.parse_args()
    with ExitStack() as stack:
        store = _store(stack, chosen.url)
        fill(store, chosen.rows, lambda rows, speed: print(f"{rows:12} rows: {speed:.0f} rows/s", flush=True))
        for name, milliseconds, found in measured(store):
            print(f"{milliseconds:10.1f} ms  {found:5} found  {name}", flush=True)


def _store(stack: ExitStack, url: str) -> Store:
    if url:
        engine = make_engine(PolicyConfigAdapter(db_url=Secret(url), pool_size=3), "", "")
        schema.upgrade(engine)
        return ServerStore(engine, _UNBOUNDED)
    directory = stack.enter_context(TemporaryDirectory(prefix="history-"))
    return FileStore(str(Path(directory, "history.sqlite3")), _UNBOUNDED)


if __name__ == "__main__":
    main()
