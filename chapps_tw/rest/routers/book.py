"""Users, domains, emails and quotas: list, show, create, change and delete."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from twisted.internet.defer import DeferredLock

from chapps_tw.interfaces.book import Create, Delete, Entry, Update
from chapps_tw.interfaces.writable_book import WritableBook
from chapps_tw.rest import answers as a
from chapps_tw.rest.models import book as m
from chapps_tw.rest.models.base import Input
from chapps_tw.rest.models.listings import LISTINGS, wanted
from chapps_tw.rest.routers import limits
from chapps_tw.rest.routers.associations import Associations
from chapps_tw.rest.routers.changes import changed, lost_by_users, when_in_effect
from chapps_tw.rest.routers.kinds import KINDS, LINKS, Kind, missing, missing_name, shown, shown_beside, unknown_ids
from chapps_tw.rest.routing import Link, Reply, Route
from chapps_tw.rest.slices import Slices
from chapps_tw.security.tokens import Scope

MAX_SHOWN = 1000

# Fields of a domain that are ids of quotas: 0 removes it.
_PLANS = ("each_quota", "pool_quota")

# Appended to the notes of the routes that change and delete.
_ABOUT_CHANGE = {
    "user": " Usage is counted by name: a renamed user starts at zero.",
}
_ABOUT_NAME = {
    "user": "In any spelling. Of several, the one that policies use.",
    "domain": "In any spelling. Of several, the one that policies use.",
    "email": "In any spelling. Of several, the one that policies use.",
    "quota": "Spelled exactly.",
}
_ABOUT_DELETE = {
    "user": " Usage is counted by name: a new user of the same name inherits it.",
    "domain": " `remarks` also says how many users were linked.",
    "email": " `remarks` also says how many users were linked.",
    "quota": " `remarks` also says how many users now have no quota of their own.",
}


def routes(book: WritableBook, list_lock: DeferredLock, slices: Slices) -> Iterator[Route[Any]]:
    """Return all routes of this family but those of users.

    :param list_lock: allows one long list to be read at a time: reading occupies the interpreter from any thread, and
        delays policies.
    :param slices: for long answers.
    """
    for kind in ("domains", "emails", "quotas"):
        yield from Collection(KINDS[kind], book, list_lock, slices).routes()


def _next(kind: Kind) -> Iterator[Link]:
    """Return the routes that can be called for a new object."""
    p, id = kind.plural, "$response.body#/response/id"
    yield Link(f"get_{p}_id", {"id": id})
    yield Link(f"put_{p}", body="$response.body#/response")
    yield Link(f"delete_{p}", {f"{kind.singular}_ids": id})
    yield Link(f"delete_{p}_id", {"id": id})
    yield Link(f"get_{p}_by-name_name", {"name": "$response.body#/response/name"})
    if p == "quotas":
        yield Link("get_quotas_id_limits", {"id": id})
        yield Link("post_quotas_id_limits", {"id": id})
    for one, other in LINKS:
        if one == p:
            yield Link(f"get_{p}_id_{other}", {"id": id})


class Collection:
    """The routes of one kind of entry. Parameters as for :func:`routes`."""

    def __init__(self, kind: Kind, book: WritableBook, list_lock: DeferredLock, slices: Slices) -> None:
        self._slices = slices
        self._associations = Associations(book, slices)
        self._list_lock = list_lock
        self._kind = kind
        self._book = book

    def routes(self) -> Iterator[Route[Any]]:
        kind, path = self._kind, f"/{self._kind.plural}/"
        p = kind.singular
        beside = f"The answer includes what is linked to the {p}" if kind.linked else ""
        given = f" {beside}, if the request set it." if beside else ""
        yield Route("GET", path, f"List {kind.plural}", self.listed, LISTINGS[kind.plural], kind.many, tag=kind.plural)
        yield Route(
            "POST", path, f"Create {kind.with_article}", self.create, kind.new, kind.one, body="*", query=False,
            wrapped=(p, kind.new_wrapped), status=201, errors=(409,), scope=Scope.FULL, tag=kind.plural,
            note=f"The answer includes its id.{given}", follow=tuple(_next(kind)),
        )  # fmt: skip
        yield Route(
            "PUT", path, f"Change {kind.with_article}", self.change, kind.changed, kind.one, body="*", query=False,
            wrapped=(p, kind.changed_wrapped), errors=(404, 409), scope=Scope.FULL, tag=kind.plural,
            note=f"Fields that are omitted, null or an empty list are left unchanged.{_ABOUT_CHANGE.get(p, '')}{given}",
        )  # fmt: skip
        yield Route(
            "DELETE", path, f"Delete {kind.plural}", self.delete, kind.ids, a.Said, body=f"{p}_ids",
            errors=(409,), scope=Scope.FULL, tag=kind.plural,
            note=f"Their links are deleted too. `remarks` lists ids that do not exist.{_ABOUT_DELETE[p]}",
        )  # fmt: skip
        yield Route(
            "DELETE", path + "{id}/", f"Delete {kind.with_article}", self.delete_one, m.ById, a.Said,
            errors=(404, 409), scope=Scope.FULL, tag=kind.plural,
            note=f"Its links are deleted too.{_ABOUT_DELETE[p]}",
        )  # fmt: skip
        yield Route(
            "GET", path + "{id}/", f"Show {kind.with_article}", self.show, m.ById, kind.one, errors=(404,),
            tag=kind.plural, note=f"{beside}: at most {MAX_SHOWN} of each kind." if beside else "",
        )  # fmt: skip
        yield Route(
            "GET", path + "by-name/{name}/", f"Show {kind.with_article} by its name", self.show_by_name, kind.by_name,
            kind.one, errors=(404,), tag=kind.plural, query=False, note=_ABOUT_NAME[p],
        )  # fmt: skip

    async def listed(self, page: m.Listing) -> Reply:
        kind = self._kind.plural
        async with self._list_lock:
            found = await self._book.entries(kind, page.q, page.skip, page.limit, sort=page.sort)
            nested = await self._associations.read(kind, found, wanted(page))
            total = await self._total(page, len(found)) if page.total else None
        return Reply(await self._associations.nested(kind, found, nested), {"total": total})

    async def _total(self, page: m.Listing, found: int) -> int:
        """Return how many entries match. They are counted, which reads all names, unless they end with this page."""
        if found < page.limit and (found or not page.skip):
            return page.skip + found
        return await self._book.total(self._kind.plural, page.q)

    async def show(self, which: m.ById) -> Reply:
        found = await self._book.by_ids(self._kind.plural, [which.id])
        if not found:
            raise missing(self._kind.plural, which.id)
        return await self._shown(found[0])

    async def show_by_name(self, which: Any) -> Reply:
        found = await self._book.by_name(self._kind.plural, which.name)
        if found is None:
            raise missing_name(self._kind.plural, which.name)
        return await self._shown(found)

    async def _shown(self, entry: Entry) -> Reply:
        beside: dict[str, Any] = {}
        remarks = []
        for other in self._kind.linked:
            linked = await self._book.entries(other, limit=MAX_SHOWN + 1, linked=(self._kind.plural, entry.id))
            if len(linked) > MAX_SHOWN:
                remarks.append(f"Only the first {MAX_SHOWN} {other} are shown; use skip to list the rest.")
            beside |= await self._association(other, linked[:MAX_SHOWN])
        if self._kind.plural == "quotas":
            beside["limits"] = list(await limits.shown(await self._book.rules("limits", ("quotas", entry.id))))
        return Reply(shown(self._kind.plural, entry), beside, remarks)

    async def create(self, new: Any) -> Reply:
        links, _ = self._links(new)
        reply = await self._change("creating", Create(self._kind.plural, self._fields(new), links))
        return reply._replace(headers={"Location": f"/{self._kind.plural}/{reply.response['id']}/"})

    async def change(self, given: Any) -> Reply:
        links, empty = self._links(given)
        fields = {name: value for name, value in self._fields(given).items() if getattr(given, name) is not None}
        reply = await self._change("updating", Update(self._kind.plural, given.id, fields, links))
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
        deletion = await changed(self._book, "deleting", Delete(kind, ids))
        remarks = unknown_ids(kind, ids, found) + lost_by_users(kind, deletion)
        return Reply("deleted", remarks=remarks + when_in_effect(deletion))

    async def _change(self, doing: str, edit: Create | Update) -> Reply:
        change = await changed(self._book, doing, edit)
        assert isinstance(change.entry, Entry)
        beside: dict[str, Any] = {}
        for other in self._kind.linked:
            linked = await self._book.by_ids(other, edit.links[other]) if other in edit.links else None
            beside |= await self._association(other, linked)
        return Reply(shown(self._kind.plural, change.entry), beside, when_in_effect(change))

    def _fields(self, given: Input) -> dict[str, Any]:
        fields = {name: getattr(given, name) for name in ("name", *self._kind.fields)}
        return {name: value or None if name in _PLANS else value for name, value in fields.items()}

    def _links(self, given: Any) -> tuple[dict[str, list[int]], list[str]]:
        """Return the ids to link, by kind, and the kinds for which quota 0 or an empty list was given."""
        links, empty = {}, []
        for other in self._kind.linked:
            ids = getattr(given, "quota" if other == "quotas" else other)
            if ids:
                links[other] = [ids] if other == "quotas" else list(dict.fromkeys(ids))
            elif ids is not None:
                empty.append(other)
        return links, empty

    def _nothing_changed(self, id: int, other: str) -> str:
        """Return a remark for a client that may have meant to remove the links. To CHAPPS it meant no change."""
        what, path = ("quota 0", "quota") if other == "quotas" else (f"an empty list of {other}", other)
        return f"{what.capitalize()} changes nothing: use DELETE /{self._kind.plural}/{id}/{path}/ to remove links."

    async def _association(self, other: str, linked: Sequence[Entry] | None) -> dict[str, Any]:
        if other == "quotas":
            return {"quota": shown_beside(other, linked[0]) if linked else None}
        if linked is None:
            return {other: None}
        return {other: await self._slices.collect(shown_beside(other, entry) for entry in linked)}
