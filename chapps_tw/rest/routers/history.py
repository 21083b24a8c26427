"""The history: decisions of all nodes, searched and counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_network
from typing import Any

from chapps_tw.interfaces.history import Group, GroupBy, History, KeptDecision, Wanted
from chapps_tw.mail.addresses import normal_name
from chapps_tw.rest import history_answers as answers
from chapps_tw.rest.models import history as m
from chapps_tw.rest.moments import iso, with_iso
from chapps_tw.rest.routing import Reply, Route
from chapps_tw.rest.slices import Slices

_TAG = "history"
_SEARCH_NOTE = (
    "Decisions of every node are kept for `[History] keep`, and shown within a second or two. `/live/decisions/` has "
    "the last ones of this node. Senders and recipients are in lower case.\n\n"
    "For the next page, set `before` to `next`. A search that takes longer than three seconds returns what it has "
    "found by then; `remarks` say how far back it got, and the next page continues there. Users, addresses, domains, "
    "clients, queue ids, instances, and `refused` have indexes; other conditions take longer."
)
_COUNTS_NOTE = (
    "With `by=user` and `since=1h`, these are the top senders of the last hour. IPv4 networks are /24, IPv6 networks "
    "/64. A message has a decision for each protocol state that Postfix asks about. Counting ends after five seconds; "
    "`remarks` then say how far back it got."
)


def routes(history: History, slices: Slices, now: Callable[[], float], fold_case: bool) -> Iterator[Route[Any]]:
    """Return all routes of this family.

    :param slices: for long lists.
    :param now: epoch seconds.
    :param fold_case: ``[CHAPPS] fold_case``.
    """

    async def search(asked: m.HistorySearch) -> Reply:
        before = int(asked.before, 16) if asked.before else None
        wanted = _wanted(asked, now(), fold_case)
        page = await history.search(wanted, before, asked.limit)
        shown = await slices.collect(map(_decision, page.decisions))
        remarks = _about(wanted)
        if page.next is not None and len(shown) < asked.limit:
            remarks.append(f"Searched back to {iso(page.searched_since)}: the next page continues there.")
        return Reply(shown, {"next": None if page.next is None else f"{page.next:016x}"}, remarks)

    async def count(asked: m.HistoryCounts) -> Reply:
        wanted = _wanted(asked, now(), fold_case)
        found = await history.counts(wanted, GroupBy(asked.by), asked.limit)
        since, remarks = found.counted_since or None, _about(wanted)
        if since:
            remarks.append(f"Counted back to {iso(since)}: there was no time for more.")
        return Reply(
            await slices.collect(map(_group, found.groups)),
            with_iso({"counted_since": since}, "counted_since"),
            remarks,
        )

    yield Route(
        "GET", "/history/", "Search the decisions of all nodes, newest first", search, m.HistorySearch,
        answers.KeptDecisionList, tag=_TAG, note=_SEARCH_NOTE,
    )  # fmt: skip
    yield Route(
        "GET", "/history/counts/", "Count decisions by hour, day, user, reason or client network", count,
        m.HistoryCounts, answers.DecisionCounts, tag=_TAG, note=_COUNTS_NOTE,
    )  # fmt: skip


def _wanted(asked: m.HistoryFilter, now: float, fold_case: bool) -> Wanted:
    since = asked.since.ago(now) if asked.since else 0.0
    # To the history, 0 means no filter.
    until = max(0.001, asked.until.ago(now)) if asked.until else 0.0
    same = ("sender", "recipient", "queue_id", "instance", "listener", "policy", "reason", "action", "node", "refused")
    is_address = asked.client not in ("", "unknown")
    return Wanted(
        user=normal_name(asked.user, fold_case),
        client=ip_network(asked.client) if is_address else None,
        unknown_client=asked.client == "unknown",
        since=max(0.0, since),
        until=until,
        **{name: getattr(asked, name) for name in same},
    )


def _about(wanted: Wanted) -> list[str]:
    return ["There is no time between since and until."] if 0 < wanted.until <= wanted.since else []


def _decision(kept: KeptDecision) -> dict[str, Any]:
    return with_iso({**kept._asdict(), "id": f"{kept.id:016x}"}, "time")


def _group(group: Group) -> dict[str, Any]:
    share = round(group.refused / group.decisions, 4)
    return with_iso({**group._asdict(), "start": group.start or None, "refused_share": share}, "start")
