"""Exemptions from a policy or a limit, until a date."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from twisted.internet.defer import DeferredLock

from chapps_tw.interfaces.book import Exemption
from chapps_tw.interfaces.writable_book import WritableBook
from chapps_tw.rest import answers as a
from chapps_tw.rest import rule_answers as r
from chapps_tw.rest.models import rules as m
from chapps_tw.rest.models.book import ById
from chapps_tw.rest.moments import with_iso
from chapps_tw.rest.routers.rules import Rules, links_of
from chapps_tw.rest.routing import Reply, Route
from chapps_tw.rest.slices import Slices
from chapps_tw.security.tokens import Scope


def routes(
    book: WritableBook, list_lock: DeferredLock, slices: Slices, now: Callable[[], float]
) -> Iterator[Route[Any]]:
    """Return all routes of this family.

    :param list_lock, slices: as for :class:`~chapps_tw.rest.routers.rules.Rules`.
    :param now: epoch seconds.
    """
    yield from _Exemptions(book, list_lock, slices, now).routes()


class _Exemptions:
    def __init__(self, book: WritableBook, list_lock: DeferredLock, slices: Slices, now: Callable[[], float]) -> None:
        self._now = now
        self._rules = Rules(book, "exemptions", self._shown, list_lock, slices)

    def routes(self) -> Iterator[Route[Any]]:
        path, one, tag = "/exemptions/", "/exemptions/{id}/", "exemptions"
        yield Route("GET", path, "List exemptions", self.listed, m.ExemptionListing, r.ExemptionList, tag=tag)
        yield Route(
            "POST", path, "Create an exemption", self.create, m.NewExemption, r.OneExemption, body="*", query=False,
            status=201, errors=(409,), scope=Scope.OPERATOR, tag=tag, follow=links_of("exemptions"),
            note="It is in force on every node from the next request, and ends by itself.",
        )  # fmt: skip
        yield Route(
            "DELETE", path, "End exemptions", self.delete, m.ExemptionIds, a.Said, body="exemption_ids",
            errors=(409,), scope=Scope.OPERATOR, tag=tag,
            note="They are deleted. `remarks` lists ids that do not exist.",
        )  # fmt: skip
        yield Route("GET", one, "Show an exemption", self._rules.show, ById, r.OneExemption, errors=(404,), tag=tag)
        yield Route(
            "PUT", one, "Change an exemption", self.change, m.ChangedExemption, r.OneExemption, body="*", query=False,
            errors=(404, 409), scope=Scope.OPERATOR, tag=tag,
            note="Fields that are omitted or null are left unchanged.",
        )  # fmt: skip
        yield Route(
            "DELETE", one, "End an exemption", self._rules.delete_one, ById, a.Said, errors=(404, 409),
            scope=Scope.OPERATOR, tag=tag, note="It is deleted; the audit trail keeps it.",
        )  # fmt: skip

    async def listed(self, page: m.ExemptionListing) -> Reply:
        return await self._rules.listed(page, after=self._now() if page.active else 0.0)

    async def create(self, new: m.NewExemption) -> Reply:
        return await self._rules.create({**new.model_dump(), "until": new.until.ahead(self._now())})

    async def change(self, given: m.ChangedExemption) -> Reply:
        until = given.until.ahead(self._now()) if given.until else None
        return await self._rules.update(given.id, {**given.model_dump(exclude={"id"}), "until": until})

    async def delete(self, which: m.ExemptionIds) -> Reply:
        return await self._rules.delete(which.exemption_ids)

    async def _shown(self, exemptions: Sequence[Exemption]) -> Iterator[dict[str, Any]]:
        now = self._now()
        return ({**with_iso(each._asdict(), "until", "created"), "active": now < each.until} for each in exemptions)
