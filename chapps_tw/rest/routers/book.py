"""Users, domains, emails and quotas."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel
from twisted.internet.defer import DeferredSemaphore

from chapps_tw.interfaces.book import BookConflict, BookKeeper, ChangeUncertain, Entry, Touched
from chapps_tw.rest import answers as a
from chapps_tw.rest import models as m
from chapps_tw.rest.routing import Link, Refusal, Reply, Route

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

T = TypeVar("T")
Drop = Callable[[Touched], Awaitable[list[str]]]


class Kind(NamedTuple):
    """What is particular to one of the four kinds.

    :ivar fields: what its objects hold beside id and name.
    :ivar linked: the kinds it can be linked to. A user's quota is one id, else they are lists.
    """

    plural: str
    singular: str
    fields: tuple[str, ...]
    linked: tuple[str, ...]
    many: type[BaseModel]
    one: type[BaseModel]
    new: type[m.Input]
    new_wrapped: type[m.Input]
    changed: type[m.Input]
    changed_wrapped: type[m.Input]
    ids: type[m.Input]
    ids_of: type[m.Input]

    @property
    def with_article(self) -> str:
        return f"{'an' if self.singular == 'email' else 'a'} {self.singular}"


KINDS = {
    "users": Kind(
        "users", "user", (), ("quotas", "domains", "emails"), a.UserList, a.OneUser, m.NewUser, m.WrappedUser,
        m.ChangedUser, m.WrappedUserChanges, m.UserIds, m.UsersOf,
    ),
    "domains": Kind(
        "domains", "domain", ("greylist", "check_spf"), ("users",), a.DomainList, a.OneDomain, m.NewDomain,
        m.WrappedDomain, m.ChangedDomain, m.WrappedDomainChanges, m.DomainIds, m.DomainsOf,
    ),
    "emails": Kind(
        "emails", "email", (), ("users",), a.EmailList, a.OneEmail, m.NewEmail, m.WrappedEmail, m.ChangedEmail,
        m.WrappedEmailChanges, m.EmailIds, m.EmailsOf,
    ),
    "quotas": Kind(
        "quotas", "quota", ("quota",), (), a.QuotaList, a.OneQuota, m.NewQuota, m.WrappedQuota, m.ChangedQuota,
        m.WrappedQuotaChanges, m.QuotaIds, m.QuotaIds,
    ),
}  # fmt: skip

LINKS = (("users", "domains"), ("users", "emails"), ("domains", "users"), ("emails", "users"))


def routes(book: BookKeeper, drop: Drop, lane: Lane) -> Iterator[Route[Any]]:
    """All routes of this family.

    :param drop: drops the cached copies that a change touched; returns remarks.
    :param lane: for long lists.
    """
    for kind in KINDS.values():
        yield from _Collection(kind, book, drop, lane).routes()
    for one, other in LINKS:
        yield from _Links(KINDS[one], KINDS[other], book, drop, lane).routes()


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


class Lane:
    """Lets one long list through at a time.

    Each keeps the interpreter busy, in whatever thread it is read, and policies wait for it.
    """

    def __init__(self) -> None:
        self._free = DeferredSemaphore(1)

    async def run(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The result of a question, asked when it is its turn."""
        await self._free.acquire()
        try:
            return await ask()
        finally:
            self._free.release()


def shown(kind: str, entry: Entry) -> dict[str, Any]:
    """An entry as the object that the API shows."""
    found: dict[str, Any] = {"id": entry.id, "name": entry.name}
    for name in KINDS[kind].fields:
        found[name] = getattr(entry, name)
    return found


def missing(kind: str, id: int) -> Refusal:
    """The 404 for an id."""
    return Refusal(404, f"There is no {KINDS[kind].singular} with id {id}.")


def unknown_ids(kind: str, ids: Sequence[int], found: Sequence[Entry]) -> list[str]:
    """A remark about ids that were not found, if there are any."""
    left = sorted(set(ids).difference(entry.id for entry in found))
    if not left:
        return []
    some = ", ".join(str(id) for id in left[:10]) + (" and others" if len(left) > 10 else "")
    return [f"There is no {KINDS[kind].singular} with id {some}."]


def _left_without(kind: str, deleted: Touched) -> list[str]:
    """A remark about the users that lose something with what was deleted, if there are any."""
    lost, sentence = set(deleted.limits), "has no quota now, and may send nothing."
    if kind != "quotas":
        lost, sentence = {user for user, _ in deleted.senders}, "may no longer send from there, unless by another link."
    if kind == "users":
        return []
    if deleted.many:
        return [f"Thousands of users {sentence.replace('has', 'have')}"]
    if not lost:
        return []
    return [f"1 user {sentence}" if len(lost) == 1 else f"{len(lost)} users {sentence.replace('has', 'have')}"]


async def made(kind: str, doing: str, change: Awaitable[T], drop: Drop) -> T:
    """The result of a change.

    :param kind: of what is changed.
    :param doing: ``creating`` or the like.
    :param drop: told what may have been touched, when it is not known whether the change is in force.
    :raises Refusal: 404 when it is not there, 409 for a name that is taken and for a link to what
        is not there.
    """
    try:
        return await change
    except ChangeUncertain as uncertain:
        await drop(uncertain.touched)
        raise
    except BookConflict as conflict:
        sentence = f"Unique key conflict {doing} {KINDS[kind].singular}."
        raise Refusal(409, sentence, beside={"remarks": [str(conflict)]}) from None
    except KeyError as error:
        refusal = missing(*error.args[0])
        raise refusal if error.args[0][0] == kind else Refusal(409, str(refusal.detail)) from None


class _Collection:
    """One kind of object."""

    def __init__(self, kind: Kind, book: BookKeeper, drop: Drop, lane: Lane) -> None:
        self._lane = lane
        self._kind = kind
        self._book = book
        self._drop = drop

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
        found = await self._lane.run(lambda: self._book.entries(self._kind.plural, page.q, page.skip, page.limit))
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
        entry, touched = await made(
            self._kind.plural, "creating", self._book.create(self._kind.plural, self._fields(new), links), self._drop
        )
        reply = await self._changed(entry, touched, links)
        return reply._replace(headers={"Location": f"/{self._kind.plural}/{entry.id}/"})

    async def change(self, changed: Any) -> Reply:
        links, empty = self._links(changed)
        entry, touched = await made(
            self._kind.plural,
            "updating",
            self._book.update(self._kind.plural, changed.id, self._fields(changed), links),
            self._drop,
        )
        reply = await self._changed(entry, touched, links)
        return reply._replace(
            remarks=[self._nothing_changed(changed.id, other) for other in empty] + list(reply.remarks)
        )

    async def delete(self, which: Any) -> Reply:
        return await self._delete(list(getattr(which, f"{self._kind.singular}_ids")))

    async def delete_one(self, which: m.ById) -> Reply:
        if not await self._book.by_ids(self._kind.plural, [which.id]):
            raise missing(self._kind.plural, which.id)
        return await self._delete([which.id])

    async def _delete(self, ids: list[int]) -> Reply:
        found = await self._book.by_ids(self._kind.plural, ids)
        _, touched = await made(self._kind.plural, "deleting", self._book.delete(self._kind.plural, ids), self._drop)
        remarks = unknown_ids(self._kind.plural, ids, found) + _left_without(self._kind.plural, touched)
        return Reply("deleted", remarks=remarks + await self._drop(touched))

    async def _changed(self, entry: Entry, touched: Touched, links: dict[str, list[int]]) -> Reply:
        remarks = await self._drop(touched)
        beside: dict[str, Any] = {}
        for other in self._kind.linked:
            linked = await self._book.by_ids(other, links[other]) if other in links else None
            beside |= self._association(other, linked)
        return Reply(shown(self._kind.plural, entry), beside, remarks)

    def _fields(self, given: m.Input) -> dict[str, Any]:
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


class _Links:
    """What is linked to one object."""

    def __init__(self, kind: Kind, other: Kind, book: BookKeeper, drop: Drop, lane: Lane) -> None:
        self._lane = lane
        self._kind = kind
        self._other = other
        self._book = book
        self._drop = drop
        self._ids = f"{other.singular}_ids"

    def routes(self) -> Iterator[Route[Any]]:
        path = f"/{self._kind.plural}/{{id}}/{self._other.plural}/"
        model, tag, one, others = self._other.ids_of, self._kind.plural, self._kind.with_article, self._other.plural
        yield Route(
            "GET", path, f"List the {others} of {one}", self.listed, m.LinkedListing, self._other.many, errors=(404,),
            tag=tag,
        )  # fmt: skip
        yield Route(
            "PUT", path, f"Add {others} to {one}", self.add, model, a.Said, body=self._ids, query=False,
            errors=(404, 409), changes=True, tag=tag, note="Those that are there already stay.",
        )  # fmt: skip
        yield Route(
            "DELETE", path, f"Remove {others} from {one}", self.remove, model, a.Said, body=self._ids,
            errors=(404, 409), changes=True, tag=tag, note="Those that are not there are passed over.",
        )  # fmt: skip

    async def listed(self, page: m.LinkedListing) -> Reply:
        if not await self._book.by_ids(self._kind.plural, [page.id]):
            raise missing(self._kind.plural, page.id)
        linked = (self._kind.plural, page.id)
        found = await self._lane.run(
            lambda: self._book.entries(self._other.plural, page.q, page.skip, page.limit, linked)
        )
        return Reply([shown(self._other.plural, entry) for entry in found])

    async def add(self, which: Any) -> Reply:
        return await self._change(self._book.link, which)

    async def remove(self, which: Any) -> Reply:
        return await self._change(self._book.unlink, which)

    async def _change(self, change: Callable[..., Awaitable[tuple[None, Touched]]], which: Any) -> Reply:
        ids = list(dict.fromkeys(getattr(which, self._ids)))
        changed = change(self._kind.plural, which.id, self._other.plural, ids)
        _, touched = await made(self._kind.plural, "updating", changed, self._drop)
        return Reply("Updated.", remarks=await self._drop(touched))
