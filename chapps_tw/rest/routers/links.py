"""Links between users and domains or emails, from either side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import DeferredLock

from chapps_tw.interfaces.book import AddLinks, RemoveLinks
from chapps_tw.interfaces.writable_book import WritableBook
from chapps_tw.rest import answers as a
from chapps_tw.rest.models.listings import LINKED_LISTINGS, wanted
from chapps_tw.rest.routers.associations import Associations
from chapps_tw.rest.routers.changes import changed, when_in_effect
from chapps_tw.rest.routers.kinds import KINDS, LINKS, Kind, missing
from chapps_tw.rest.routing import Reply, Route
from chapps_tw.rest.slices import Slices
from chapps_tw.security.tokens import Scope


def routes(book: WritableBook, list_lock: DeferredLock, slices: Slices) -> Iterator[Route[Any]]:
    """Return all routes of this family.

    :param list_lock, slices: as for :func:`chapps_tw.rest.routers.book.routes`.
    """
    for one, other in LINKS:
        yield from _Links(KINDS[one], KINDS[other], book, list_lock, slices).routes()


class _Links:
    """The links of one entry."""

    def __init__(self, kind: Kind, other: Kind, book: WritableBook, list_lock: DeferredLock, slices: Slices) -> None:
        self._associations = Associations(book, slices)
        self._list_lock = list_lock
        self._kind = kind
        self._other = other
        self._book = book
        self._ids = f"{other.singular}_ids"

    def routes(self) -> Iterator[Route[Any]]:
        path = f"/{self._kind.plural}/{{id}}/{self._other.plural}/"
        model, tag, one, others = self._other.ids_of, self._kind.plural, self._kind.with_article, self._other.plural
        yield Route(
            "GET", path, f"List the {others} of {one}", self.listed, LINKED_LISTINGS[others], self._other.many,
            errors=(404,), tag=tag,
        )  # fmt: skip
        if self._kind.plural == "quotas":
            # Set from the side of the user, who has one.
            return
        yield Route(
            "PUT", path, f"Add {others} to {one}", self.add, model, a.Said, body=self._ids, query=False,
            errors=(404, 409), scope=Scope.FULL, tag=tag, note="Existing links are kept.",
        )  # fmt: skip
        yield Route(
            "DELETE", path, f"Remove {others} from {one}", self.remove, model, a.Said, body=self._ids,
            errors=(404, 409), scope=Scope.FULL, tag=tag, note="Ids that are not linked are ignored.",
        )  # fmt: skip

    async def listed(self, page: Any) -> Reply:
        if not await self._book.by_ids(self._kind.plural, [page.id]):
            raise missing(self._kind.plural, page.id)
        other, linked = self._other.plural, (self._kind.plural, page.id)
        async with self._list_lock:
            found = await self._book.entries(other, page.q, page.skip, page.limit, linked, page.sort)
            nested = await self._associations.read(other, found, wanted(page))
            total = await self._book.total(other, page.q, linked) if page.total else None
        return Reply(await self._associations.nested(other, found, nested), {"total": total})

    async def add(self, which: Any) -> Reply:
        return await self._change(AddLinks, which)

    async def remove(self, which: Any) -> Reply:
        return await self._change(RemoveLinks, which)

    async def _change(self, edit: type[AddLinks] | type[RemoveLinks], which: Any) -> Reply:
        ids = list(dict.fromkeys(getattr(which, self._ids)))
        change = edit(self._kind.plural, which.id, self._other.plural, ids)
        return Reply("Updated.", remarks=when_in_effect(await changed(self._book, "updating", change)))
