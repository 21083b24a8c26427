"""Quota usage: what users may still send."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from chapps_tw.interfaces import value_keys
from chapps_tw.interfaces.book import Entry
from chapps_tw.interfaces.state import LiveState
from chapps_tw.interfaces.writable_book import WritableBook
from chapps_tw.policies.limits import ActiveLimit
from chapps_tw.rest import answers as a
from chapps_tw.rest.models import live as m
from chapps_tw.rest.models.book import UserIds
from chapps_tw.rest.routers.kinds import unknown_ids
from chapps_tw.rest.routers.live_senders import WORKERS
from chapps_tw.rest.routers.live_users import LiveUsers, Measured, left_of, quota_of
from chapps_tw.rest.routing import Refusal, Reply, Route
from chapps_tw.rest.slices import Slices
from chapps_tw.security.tokens import Scope


class LiveQuotas:
    """Routes for quota usage. The limit comes from the book, the usage from the state."""

    def __init__(self, users: LiveUsers, state: LiveState, book: WritableBook, slices: Slices) -> None:
        self._users = users
        self._slices = slices
        self._state = state
        self._book = book

    def routes(self) -> Iterator[Route[Any]]:
        path = "/live/quota/{user_id}"
        yield Route(
            "GET", "/live/quota/", "Show what several users may send now", self.several, UserIds, a.AvailableList,
            body="user_ids", tag="live",
        )  # fmt: skip
        yield Route(
            "GET", "/live/quota/by-name/", "Show what several users may send now, by their names", self.several_named,
            m.UserNames, a.AvailableList, body="names", tag="live",
        )  # fmt: skip
        for method, summary, handler, scope in (
            ("GET", "Show what a user may send now", self.left, Scope.READ),
            ("DELETE", "Reset the usage of a user", self.reset, Scope.OPERATOR),
            ("POST", "Reload the limit of a user", self.refresh, Scope.OPERATOR),
        ):
            yield Route(
                method, path, summary, handler, m.Who, a.Count, body="name", errors=(400, 404), scope=scope,
                tag="live",
            )  # fmt: skip

    async def several(self, which: UserIds) -> Reply:
        users = await self._book.by_ids("users", which.user_ids)
        return await self._several(users, unknown_ids("users", which.user_ids, users))

    async def several_named(self, which: m.UserNames) -> Reply:
        return await self._several(*await self._users.find_all(which.names))

    async def _several(self, users: Sequence[Entry], remarks: Sequence[str]) -> Reply:
        measured = await self._slices.each(users, partial(self._users.of, compare=True), WORKERS)
        without = (
            None if quota_of(each.limits) else f"User {user.name} has no quota."
            for user, each in zip(users, measured, strict=True)
        )
        rows = (
            {"user_name": user.name, "quota_avail": left_of(each)} for user, each in zip(users, measured, strict=True)
        )
        remarks = [*remarks, *await self._slices.collect(without)]
        return Reply(await self._slices.collect(rows), remarks=remarks)

    async def left(self, who: m.Who) -> Reply:
        user, remarks = await self._users.find(who)
        cached = await self._users.cached_quota(user)
        measured = await self._users.of(user, compare=True)
        return Reply(left_of(measured), remarks=remarks + _about(user, measured, cached))

    async def reset(self, who: m.Who) -> Reply:
        user, remarks = await self._users.find(who)
        dropped = await self._users.reset(self._users.key(user))
        if not dropped:
            remarks.append(f"Nothing was counted for user {user.name}.")
        return Reply(dropped, remarks=remarks)

    async def refresh(self, who: m.Who) -> Reply:
        user, remarks = await self._users.find(who)
        # Dropped before the book is read, so that the next request does not use an older limit than is shown.
        await self._state.drop_values([value_keys.user_plan(self._users.key(user))])
        measured = await self._users.of(user, compare=True)
        quota = quota_of(measured.limits)
        if quota is None:
            raise Refusal(404, f"User {user.name} has no quota.")
        return Reply(left_of(measured), remarks=[*remarks, f"The limit is {quota.amount}, from quota {quota.quota}."])


def _about(user: Entry, measured: Measured, cached: ActiveLimit | None) -> list[str]:
    remarks = []
    last = max((usage.last for _, usage in measured.usages), default=0.0)
    if last:
        when = datetime.fromtimestamp(last, UTC).isoformat(timespec="seconds")
        remarks.append(f"The last attempt was at {when}.")
    else:
        remarks.append(f"Nothing was counted for user {user.name}.")
    quota = quota_of(measured.limits)
    if quota is None:
        remarks.append(f"User {user.name} has no quota.")
    if cached is None:
        remarks.append(f"There is no cached limit for user {user.name}.")
    elif quota is not None and quota.amount != cached.amount:
        remarks.append(f"The cached limit was {cached.amount}; the quota of {quota.amount} applies now.")
    return remarks
