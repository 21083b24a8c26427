"""Users, domains, emails and quotas: lists, and one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from twisted.internet.defer import DeferredLock

from chapps_tw.interfaces.book import Create, Delete, Entry, Update, WritableBook
from chapps_tw.rest import answers as a
from chapps_tw.rest.models import book as m
from chapps_tw.rest.models.base import Input
from chapps_tw.rest.routers.changes import changed, lost_by_users, when_in_effect
from chapps_tw.rest.routers.kinds import KINDS, LINKS, Kind, missing, shown, unknown_ids
from chapps_tw.rest.routing import Link, Reply, Route

MAX_SHOWN = 1000

# What more there is to say about a change, and about deleting.
_ABOUT_CHANGE = {
    "user": " What was counted stays with the name: with another one, a user begins at nothing.",
}
_ABOUT_DELETE = {
    "user": " What was counted stays with the name: a new user of the same name goes on from there.",
    "domain": " How many users were linked to them is told there too.",
    "email": " How many users were linked to them is told there too.",
    "quota": " How many users have none now is told there too; without one, a user may send nothing.",
}


def routes(book: WritableBook, list_lock: DeferredLock) -> Iterator[Route[Any]]:
    """All routes of this family.

    :param list_lock: held while a long list is read, one at a time: reading keeps the interpreter busy in whatever
        thread it is done, and policies wait for it.
    """
    for kind in KINDS.values():
        yield from _Collection(kind, book, list_lock).routes()


def _next(kind: Kind) -> Iterator[Link]:
    """What can be asked about an object that was created."""
    p, id = kind.plural, "$response.body#/response/id"
    yield Link(f"get_{p}_id", {"id": id})
    yield Link(f"put_{p}", body="$response.body#/response")
    yield Link(f"delete_{p}", {f"{kind.singular}_ids": id})
    yield Link(f"delete_{p}_id", {"id": id})
    for one, other in LINKS:
        if one == p:
            yield Link(f"get_{p}_id_{other}", {"id": id})


class _Collection:
    """One kind of object."""

    def __init__(self, kind: Kind, book: WritableBook, list_lock: DeferredLock) -> None:
        self._list_lock = list_lock
        self._kind = kind
        self._book = book

    def routes(self) -> Iterator[Route[Any]]:
        kind, path = self._kind, f"/{self._kind.plural}/"
        p = kind.singular
        beside = f"What is linked to the {p} stands beside it" if kind.linked else ""
        given = f" {beside}, if it was given." if beside else ""
        yield Route("GET", path, f"List {kind.plural}", self.listed, m.Listing, kind.many, tag=kind.plural)
        yield Route(
            "POST", path, f"Create {kind.with_article}", self.create, kind.new, kind.one, body="*", query=False,
            wrapped=(p, kind.new_wrapped), status=201, errors=(409,), changes=True, tag=kind.plural,
            note=f"The answer has its id.{given}", follow=tuple(_next(kind)),
        )  # fmt: skip
        yield Route(
            "PUT", path, f"Change {kind.with_article}", self.change, kind.changed, kind.one, body="*", query=False,
            wrapped=(p, kind.changed_wrapped), errors=(404, 409), changes=True, tag=kind.plural,
            note=f"What is not given, null, or an empty list stays as it is.{_ABOUT_CHANGE.get(p, '')}{given}",
        )  # fmt: skip
        yield Route(
            "DELETE", path, f"Delete {kind.plural}", self.delete, kind.ids, a.Said, body=f"{p}_ids",
            errors=(409,), changes=True, tag=kind.plural,
            note=f"Their links go with them. Ids that nothing has are named in `remarks`.{_ABOUT_DELETE[p]}",
        )  # fmt: skip
        yield Route(
            "DELETE", path + "{id}/", f"Delete {kind.with_article}", self.delete_one, m.ById, a.Said,
            errors=(404, 409), changes=True, tag=kind.plural,
            note=f"Its links go with it.{_ABOUT_DELETE[p]}",
        )  # fmt: skip
        yield Route(
            "GET", path + "{id}/", f"Show {kind.with_article}", self.show, m.ById, kind.one, errors=(404,),
            tag=kind.plural, note=f"{beside}, at most {MAX_SHOWN} of each kind." if beside else "",
        )  # fmt: skip

    async def listed(self, page: m.Listing) -> Reply:
        async with self._list_lock:
            found = await self._book.entries(self._kind.plural, page.q, page.skip, page.limit)
        return Reply([shown(self._kind.plural, entry) for entry in found])

    async def show(self, which: m.ById) -> Reply:
        found = await self._book.by_ids(self._kind.plural, [which.id])
        if not found:
            raise missing(self._kind.plural, which.id)
        beside: dict[str, Any] = {}
        remarks = []
        for other in self._kind.linked:
            linked = await self._book.entries(other, limit=MAX_SHOWN + 1, linked=(self._kind.plural, which.id))
            if len(linked) > MAX_SHOWN:
                remarks.append(f"Only {MAX_SHOWN} {other} are shown; list the rest with skip.")
            beside |= self._association(other, linked[:MAX_SHOWN])
        return Reply(shown(self._kind.plural, found[0]), beside, remarks)

    async def create(self, new: Any) -> Reply:
        links, _ = self._links(new)
        reply = await self._change("creating", Create(self._kind.plural, self._fields(new), links))
        return reply._replace(headers={"Location": f"/{self._kind.plural}/{reply.response['id']}/"})

    async def change(self, given: Any) -> Reply:
        links, empty = self._links(given)
        reply = await self._change("updating", Update(self._kind.plural, given.id, self._fields(given), links))
        return reply._replace(remarks=[self._nothing_changed(given.id, other) for other in empty] + list(reply.remarks))

    async def delete(self, which: Any) -> Reply:
        return await self._delete(list(getattr(which, f"{self._kind.singular}_ids")))

    async def delete_one(self, which: m.ById) -> Reply:
        if not await self._book.by_ids(self._kind.plural, [which.id]):
            raise missing(self._kind.plural, which.id)
        return await self._delete([which.id])

    async def _delete(self, ids: list[int]) -> Reply:
        kind = self._kind.plural
        found = await self._book.by_ids(kind, ids)
        deletion = await changed(kind, "deleting", self._book.change(Delete(kind, ids)))
        remarks = unknown_ids(kind, ids, found) + lost_by_users(kind, deletion)
        return Reply("deleted", remarks=remarks + when_in_effect(deletion))

    async def _change(self, doing: str, edit: Create | Update) -> Reply:
        change = await changed(self._kind.plural, doing, self._book.change(edit))
        assert change.entry is not None
        beside: dict[str, Any] = {}
        for other in self._kind.linked:
            linked = await self._book.by_ids(other, edit.links[other]) if other in edit.links else None
            beside |= self._association(other, linked)
        return Reply(shown(self._kind.plural, change.entry), beside, when_in_effect(change))

    def _fields(self, given: Input) -> dict[str, Any]:
        names = ("name", *self._kind.fields)
        return {name: getattr(given, name) for name in names if getattr(given, name) is not None}

    def _links(self, given: Any) -> tuple[dict[str, list[int]], list[str]]:
        """The ids that are to be linked by kind, and the kinds for which none is given: no quota, an empty list."""
        links, empty = {}, []
        for other in self._kind.linked:
            ids = getattr(given, "quota" if other == "quotas" else other)
            if ids:
                links[other] = [ids] if other == "quotas" else list(dict.fromkeys(ids))
            elif ids is not None:
                empty.append(other)
        return links, empty

    def _nothing_changed(self, id: int, other: str) -> str:
        """What a client is told that may have meant to take links away; to clients of CHAPPS it means nothing."""
        what, path = ("quota 0", "quota") if other == "quotas" else (f"an empty list of {other}", other)
        return (
            f"{what.capitalize()} changes nothing: DELETE /{self._kind.plural}/{id}/{path}/ takes away what is there."
        )

    def _association(self, other: str, linked: Sequence[Entry] | None) -> dict[str, Any]:
        if other == "quotas":
            return {"quota": shown(other, linked[0]) if linked else None}
        return {other: None if linked is None else [shown(other, entry) for entry in linked]}
