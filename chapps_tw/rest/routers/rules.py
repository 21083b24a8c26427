"""What limits, overrides and exemptions have in common: show one, create, change and delete."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from twisted.internet.defer import DeferredLock

from chapps_tw.interfaces.book import Create, Delete, Update
from chapps_tw.interfaces.writable_book import Changed, Rule, WritableBook
from chapps_tw.rest.models.book import ById, Page
from chapps_tw.rest.routers.changes import changed, when_in_effect
from chapps_tw.rest.routers.kinds import missing, unknown_ids
from chapps_tw.rest.routing import Link, Reply
from chapps_tw.rest.slices import Slices

Shown = Callable[[Sequence[Any]], Awaitable[Iterator[dict[str, Any]]]]


def links_of(kind: str) -> tuple[Link, ...]:
    """Return the links from a rule that was created to the routes that show, change and delete it."""
    id = {"id": "$response.body#/response/id"}
    return tuple(Link(f"{method}_{kind}_id", id) for method in ("get", "put", "delete"))


class Rules:
    """The rules of one kind.

    :param kind: ``limits``, ``overrides`` or ``exemptions``.
    :param shown: returns rules as the objects that the API shows.
    :param list_lock: as for :func:`chapps_tw.rest.routers.book.routes`.
    :param slices: for long lists.
    """

    def __init__(self, book: WritableBook, kind: str, shown: Shown, list_lock: DeferredLock, slices: Slices) -> None:
        self._book = book
        self._kind = kind
        self._shown = shown
        self._list_lock = list_lock
        self._slices = slices

    async def listed(self, page: Page, of: tuple[str, int] | None = None, after: float = 0.0) -> Reply:
        """Return a page of rules. Parameters as for :meth:`~chapps_tw.interfaces.writable_book.WritableBook.rules`."""
        async with self._list_lock:
            found = await self._book.rules(self._kind, of, after, page.skip, page.limit)
        return Reply(await self._slices.collect(await self._shown(found)))

    async def show(self, which: ById) -> Reply:
        """Return one rule. Raises :exc:`~chapps_tw.rest.routing.Refusal` 404."""
        return Reply(next(await self._shown([await self._one(which.id)])))

    async def create(self, fields: Mapping[str, Any]) -> Reply:
        """Add a rule."""
        reply = await self._reply(await changed(self._book, "creating", Create(self._kind, fields)))
        return reply._replace(headers={"Location": f"/{self._kind}/{reply.response['id']}/"})

    async def update(self, id: int, fields: Mapping[str, Any]) -> Reply:
        """Change a rule. Fields that are ``None`` are left unchanged."""
        given = {name: value for name, value in fields.items() if value is not None}
        return await self._reply(await changed(self._book, "updating", Update(self._kind, id, given)))

    async def delete(self, ids: Sequence[int]) -> Reply:
        """Delete rules. A remark lists ids that do not exist."""
        found = await self._book.rules_by_ids(self._kind, ids)
        deletion = await changed(self._book, "deleting", Delete(self._kind, ids))
        return Reply("deleted", remarks=unknown_ids(self._kind, ids, found) + when_in_effect(deletion))

    async def delete_one(self, which: ById) -> Reply:
        """Delete a rule. Raises :exc:`~chapps_tw.rest.routing.Refusal` 404."""
        await self._one(which.id)
        return await self.delete([which.id])

    async def _one(self, id: int) -> Rule:
        found = await self._book.rules_by_ids(self._kind, [id])
        if not found:
            raise missing(self._kind, id)
        return found[0]

    async def _reply(self, change: Changed) -> Reply:
        return Reply(next(await self._shown([change.entry])), remarks=when_in_effect(change))
