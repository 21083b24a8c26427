"""Limits of quotas, besides the quota's own number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from twisted.internet.defer import DeferredLock

from chapps_tw.interfaces.writable_book import Rule, WritableBook
from chapps_tw.rest import answers as a
from chapps_tw.rest import rule_answers as r
from chapps_tw.rest.models import rules as m
from chapps_tw.rest.models.book import ById, Page
from chapps_tw.rest.routers.kinds import missing
from chapps_tw.rest.routers.rules import Rules, links_of
from chapps_tw.rest.routing import Reply, Route
from chapps_tw.rest.slices import Slices
from chapps_tw.security.tokens import Scope


def routes(book: WritableBook, list_lock: DeferredLock, slices: Slices) -> Iterator[Route[Any]]:
    """Return all routes of this family. Parameters as for :class:`~chapps_tw.rest.routers.rules.Rules`."""
    yield from _Limits(book, list_lock, slices).routes()


async def shown(limits: Sequence[Rule]) -> Iterator[dict[str, Any]]:
    """Return limits as the objects that the API shows."""
    return (limit._asdict() for limit in limits)


class _Limits:
    def __init__(self, book: WritableBook, list_lock: DeferredLock, slices: Slices) -> None:
        self._book = book
        self._rules = Rules(book, "limits", shown, list_lock, slices)

    def routes(self) -> Iterator[Route[Any]]:
        of_quota = "/quotas/{id}/limits/"
        yield Route(
            "GET", of_quota, "List the limits of a quota", self.of_quota, m.QuotaLimitListing, r.LimitList,
            errors=(404,), tag="limits",
        )  # fmt: skip
        yield Route(
            "POST", of_quota, "Add a limit to a quota", self.create, m.NewLimit, r.OneLimit, body="*", query=False,
            status=201, errors=(404, 409), scope=Scope.FULL, tag="limits", follow=links_of("limits"),
            note="It applies to all users of the quota, from their next message.",
        )  # fmt: skip
        yield Route("GET", "/limits/", "List limits", self.listed, Page, r.LimitList, tag="limits")
        yield Route(
            "DELETE", "/limits/", "Delete limits", self.delete, m.LimitIds, a.Said, body="limit_ids", errors=(409,),
            scope=Scope.FULL, tag="limits", note="`remarks` lists ids that do not exist.",
        )  # fmt: skip
        one = "/limits/{id}/"
        yield Route("GET", one, "Show a limit", self._rules.show, ById, r.OneLimit, errors=(404,), tag="limits")
        yield Route(
            "PUT", one, "Change a limit", self.change, m.ChangedLimit, r.OneLimit, body="*", query=False,
            errors=(404, 409), scope=Scope.FULL, tag="limits",
            note="Fields that are omitted or null are left unchanged.",
        )  # fmt: skip
        yield Route(
            "DELETE", one, "Delete a limit", self._rules.delete_one, ById, a.Said, errors=(404, 409), scope=Scope.FULL,
            tag="limits",
        )  # fmt: skip

    async def listed(self, page: Page) -> Reply:
        return await self._rules.listed(page)

    async def of_quota(self, page: m.QuotaLimitListing) -> Reply:
        await self._require_quota(page.id)
        return await self._rules.listed(page, ("quotas", page.id))

    async def create(self, new: m.NewLimit) -> Reply:
        await self._require_quota(new.id)
        return await self._rules.create({"quota": new.id, **new.model_dump(exclude={"id"})})

    async def change(self, given: m.ChangedLimit) -> Reply:
        return await self._rules.update(given.id, given.model_dump(exclude={"id"}))

    async def delete(self, which: m.LimitIds) -> Reply:
        return await self._rules.delete(which.limit_ids)

    async def _require_quota(self, id: int) -> None:
        if not await self._book.by_ids("quotas", [id]):
            raise missing("quotas", id)
