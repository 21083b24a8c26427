"""Users: those near a limit, their quota, and what is linked to several users."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from twisted.internet.defer import DeferredLock

from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.book import AddLinks, BookUnavailable, Entry, Update
from chapps_tw.interfaces.writable_book import WritableBook
from chapps_tw.rest import answers as a
from chapps_tw.rest.models import book as m
from chapps_tw.rest.models.listings import wanted
from chapps_tw.rest.routers.book import Collection
from chapps_tw.rest.routers.changes import changed, when_in_effect
from chapps_tw.rest.routers.kinds import KINDS, unknown_ids
from chapps_tw.rest.routers.live_users import limit_row
from chapps_tw.rest.routers.near import NearLimits
from chapps_tw.rest.routers.new_users import NewUsers
from chapps_tw.rest.routing import Refusal, Reply, Route
from chapps_tw.rest.slices import Slices
from chapps_tw.security.tokens import Scope


def routes(
    settings: Settings, book: WritableBook, near: NearLimits, list_lock: DeferredLock, slices: Slices
) -> Iterator[Route[Any]]:
    """Return all routes of users, but their links.

    :param near: finds users near a limit.
    :param list_lock, slices: as for :func:`chapps_tw.rest.routers.book.routes`.
    """
    yield from _Users(NewUsers(settings, book), near, KINDS["users"], book, list_lock, slices).routes()
    yield from _UserMaps(book, list_lock, slices).routes()
    yield from _UserQuota(book).routes()


class _Users(Collection):
    """The users.

    :param new_users: knows what a new one still needs.
    :param near: finds those near a limit.
    """

    def __init__(self, new_users: NewUsers, near: NearLimits, *common: Any) -> None:
        super().__init__(*common)
        self._new_users = new_users
        self._near = near

    async def listed(self, page: Any) -> Reply:
        if page.near is None:
            return await super().listed(page)
        found, remarks = await self._near.find(page.near, page.q)
        of_page = found[page.skip : page.skip + page.limit]
        limits = {each.login: each.limits for each in of_page}
        async with self._list_lock:
            # Some may have been deleted since they were measured.
            by_login = await self._book.by_names("users", list(limits))
            entries = list(by_login.values())
            nested = await self._associations.read("users", entries, list(dict.fromkeys(("domains", *wanted(page)))))
        rows = await self._associations.nested("users", entries, nested)
        shown_limits = ([limit_row(*pair) for pair in limits[login]] for login in by_login)
        for row, each in zip(rows, await self._slices.collect(shown_limits), strict=True):
            row["limits"] = each
        return Reply(rows, remarks=remarks)

    async def create(self, new: Any) -> Reply:
        reply = await super().create(new)
        user = Entry(reply.response["id"], reply.response["name"])
        remarks = list(reply.remarks)
        # The user is created, whatever cannot be found out.
        with suppress(BookUnavailable):
            remarks += await self._new_users.remarks(user, self._links(new)[0])
        return reply._replace(remarks=remarks)


class _UserQuota:
    """The quota of one user."""

    def __init__(self, book: WritableBook) -> None:
        self._book = book

    def routes(self) -> Iterator[Route[Any]]:
        path = "/users/{id}/quota/"
        yield Route(
            "PUT", path + "{quota_id}/", "Set the quota of a user", self.put, m.UserQuota, a.Said, query=False,
            errors=(404, 409), scope=Scope.FULL, tag="users", note="It replaces the previous one.",
        )  # fmt: skip
        yield Route(
            "DELETE", path, "Remove the quota of a user", self.delete, m.ById, a.Said, query=False, errors=(404, 409),
            scope=Scope.FULL, tag="users",
            note="That of the domain applies then, or `default_quota`; without any, a user may not send.",
        )  # fmt: skip

    async def put(self, which: m.UserQuota) -> Reply:
        change = AddLinks("users", which.id, "quotas", [which.quota_id])
        return Reply("Updated.", remarks=when_in_effect(await changed(self._book, "updating", change)))

    async def delete(self, which: m.ById) -> Reply:
        before = await self._book.links("users", [which.id], "quotas")
        change = await changed(self._book, "updating", Update("users", which.id, {}, {"quotas": []}))
        assert isinstance(change.entry, Entry)
        remarks = [] if before.get(which.id) else [f"User {change.entry.name} had no quota."]
        return Reply("Updated.", remarks=remarks + when_in_effect(change))


class _UserMaps:
    """Ids of what is linked to each of several users."""

    def __init__(self, book: WritableBook, list_lock: DeferredLock, slices: Slices) -> None:
        self._slices = slices
        self._book = book
        self._list_lock = list_lock

    def routes(self) -> Iterator[Route[Any]]:
        for other, handler, answer in (
            ("quotas", self.quotas, a.UserQuotaIds),
            ("domains", self.domains, a.UserDomainIds),
            ("emails", self.emails, a.UserEmailIds),
        ):
            taken = m.QuotasOf if other == "quotas" else m.UserIds
            yield Route(
                "GET", f"/users/{other}/", f"List the {other} of several users", handler, taken, answer,
                body="user_ids", errors=(404,), tag="users",
            )  # fmt: skip

    async def quotas(self, which: m.QuotasOf) -> Reply:
        users, linked, remarks = await self._of(which, "quotas")
        ids = {user.id: quotas[0].id for user in users if (quotas := linked.get(user.id))}
        rows = (
            {"user_name": user.name, "quota_id": ids.get(user.id)} for user in users if which.nulls or user.id in ids
        )
        return Reply(await self._slices.collect(rows), remarks=remarks)

    async def domains(self, which: m.UserIds) -> Reply:
        return await self._lists(which, "domains", "domain_ids")

    async def emails(self, which: m.UserIds) -> Reply:
        return await self._lists(which, "emails", "email_ids")

    async def _lists(self, which: m.UserIds, other: str, key: str) -> Reply:
        users, linked, remarks = await self._of(which, other)
        rows = ({"user_name": user.name, key: [each.id for each in linked.get(user.id, [])]} for user in users)
        return Reply(await self._slices.collect(rows), remarks=remarks)

    async def _of(self, which: m.UserIds, other: str) -> tuple[list[Entry], dict[int, list[Entry]], list[str]]:
        users = await self._book.by_ids("users", which.user_ids)
        if which.user_ids and not users:
            raise Refusal(404, " ".join(unknown_ids("users", which.user_ids, users)))
        async with self._list_lock:
            linked = await self._book.links("users", [user.id for user in users], other)
        return users, linked, unknown_ids("users", which.user_ids, users)
