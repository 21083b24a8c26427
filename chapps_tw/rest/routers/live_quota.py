"""Quota usage: what users may still send."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.book import Entry
from chapps_tw.interfaces.state import NO_QUOTA, LiveState, Usage
from chapps_tw.interfaces.writable_book import WritableBook
from chapps_tw.mail.addresses import normal_name
from chapps_tw.rest import answers as a
from chapps_tw.rest.models import live as m
from chapps_tw.rest.models.book import UserIds
from chapps_tw.rest.routers.kinds import missing, unknown_ids
from chapps_tw.rest.routing import Refusal, Reply, Route
from chapps_tw.rest.slices import Slices

# Names per operation on the state.
BATCH = 100


class LiveQuotas:
    """Routes for quota usage. The limit comes from the book, the usage from the state."""

    def __init__(self, settings: Settings, state: LiveState, book: WritableBook, slices: Slices) -> None:
        self._slices = slices
        self._interval = settings.oqp.interval
        self._fold_case = settings.chapps.fold_case
        self._state = state
        self._book = book

    def routes(self) -> Iterator[Route[Any]]:
        path = "/live/quota/{user_id}"
        yield Route(
            "GET", "/live/quota/", "Show what several users may send now", self.several, UserIds, a.AvailableList,
            body="user_ids", tag="live",
        )  # fmt: skip
        for method, summary, handler, changes in (
            ("GET", "Show what a user may send now", self.left, False),
            ("DELETE", "Reset the usage of a user", self.reset, True),
            ("POST", "Reload the limit of a user", self.refresh, True),
        ):
            yield Route(
                method, path, summary, handler, m.Who, a.Count, body="name", errors=(400, 404), changes=changes,
                tag="live",
            )  # fmt: skip

    async def several(self, which: UserIds) -> Reply:
        users = await self._book.by_ids("users", which.user_ids)
        quotas = await self._book.links("users", [user.id for user in users], "quotas")
        keys = list(map(self._key, users))
        usages = await self._slices.in_parts(keys, BATCH, lambda batch: self._state.usage(batch, self._interval))
        remarks = unknown_ids("users", which.user_ids, users)
        rows = []
        for user, usage in zip(users, usages, strict=True):
            await self._slices.pause()
            quota = _only(quotas.get(user.id, []))
            if quota is None:
                remarks.append(f"User {user.name} has no quota.")
            await self._refresh_cached_limit(user, quota, usage)
            rows.append({"user_name": user.name, "quota_avail": _available(quota, usage)})
        return Reply(rows, remarks=remarks)

    async def left(self, who: m.Who) -> Reply:
        user, remarks = await self._find(who)
        quota, usage = await self._quota_and_usage(user)
        return Reply(_available(quota, usage), remarks=remarks + _about(user, quota, usage))

    async def reset(self, who: m.Who) -> Reply:
        user, remarks = await self._find(who)
        dropped = await self._state.reset_usage(self._key(user), self._interval)
        if not dropped:
            remarks.append(f"Nothing was counted for user {user.name}.")
        return Reply(dropped, remarks=remarks)

    async def refresh(self, who: m.Who) -> Reply:
        user, remarks = await self._find(who)
        # Dropped before the book is read, so that the next request does not use an older limit than is shown.
        await self._state.drop_limits([self._key(user)])
        quota, usage = await self._quota_and_usage(user)
        if quota is None:
            raise Refusal(404, f"User {user.name} has no quota.")
        return Reply(
            _available(quota, usage), remarks=[*remarks, f"The limit is {_limit(quota)}, from quota {quota.name}."]
        )

    async def _quota_and_usage(self, user: Entry) -> tuple[Entry | None, Usage]:
        quotas = await self._book.links("users", [user.id], "quotas")
        [usage] = await self._state.usage([self._key(user)], self._interval)
        quota = _only(quotas.get(user.id, []))
        await self._refresh_cached_limit(user, quota, usage)
        return quota, usage

    async def _refresh_cached_limit(self, user: Entry, quota: Entry | None, usage: Usage) -> None:
        """Drop a cached limit that differs from the book, which may have been changed in the database by hand."""
        if usage.limit not in (None, _limit(quota) if quota else NO_QUOTA):
            await self._state.drop_limits([self._key(user)])

    async def _not_used(self, user: Entry) -> list[str]:
        """Return a remark if policies use another user instead, whose name differs only in spelling."""
        if user.name == self._key(user):
            return []
        used = await self._book.by_name("users", user.name)
        if used is None or used.id == user.id:
            return []
        return [f"User {user.name} is not used: a login by that name is user {used.name}, id {used.id}."]

    def _key(self, user: Entry) -> str:
        """Return the user's name in the state."""
        return normal_name(user.name, self._fold_case)

    async def _find(self, who: m.Who) -> tuple[Entry, list[str]]:
        """Return a user by id or by name, and remarks."""
        if not who.user_id and who.name is None:
            raise Refusal(400, "The id or the name of a user is required.")
        if who.user_id:
            found = await self._book.by_ids("users", [who.user_id])
            if found:
                return found[0], await self._not_used(found[0])
            if who.name is None:
                raise missing("users", who.user_id)
        user = await self._book.by_name("users", who.name or "")
        if user is None:
            by_id = f"id {who.user_id} or " if who.user_id else ""
            raise Refusal(404, f"There is no user with {by_id}name {who.name}.")
        remark = f"There is no user with id {who.user_id}: found by name {who.name}."
        return user, [remark] if who.user_id else []


def _only(entries: Sequence[Entry]) -> Entry | None:
    return entries[0] if entries else None


def _limit(quota: Entry) -> int:
    """Return the limit of a quota. A negative number, written to the table by hand, counts as 0."""
    return max(0, quota.quota)


def _available(quota: Entry | None, usage: Usage) -> int:
    return max(0, quota.quota - usage.used) if quota else 0


def _about(user: Entry, quota: Entry | None, usage: Usage) -> list[str]:
    remarks = []
    if usage.last:
        when = datetime.fromtimestamp(usage.last, UTC).isoformat(timespec="seconds")
        remarks.append(f"The last attempt was at {when}.")
    else:
        remarks.append(f"Nothing was counted for user {user.name}.")
    if quota is None:
        remarks.append(f"User {user.name} has no quota.")
    if usage.limit is None:
        remarks.append(f"There is no cached limit for user {user.name}.")
    elif quota is not None and usage.limit != _limit(quota):
        remarks.append(f"The cached limit was {max(0, usage.limit)}; the quota of {_limit(quota)} applies now.")
    return remarks
