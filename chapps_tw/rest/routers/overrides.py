"""Overrides: temporary exceptions of users and domains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from twisted.internet.defer import DeferredLock

from chapps_tw.interfaces.writable_book import OverrideEntry, WritableBook
from chapps_tw.rest import answers as a
from chapps_tw.rest import rule_answers as r
from chapps_tw.rest.models import rules as m
from chapps_tw.rest.models.book import ById
from chapps_tw.rest.moments import with_iso
from chapps_tw.rest.routers.kinds import KINDS, missing, missing_name
from chapps_tw.rest.routers.rules import Rules, links_of
from chapps_tw.rest.routing import Reply, Route
from chapps_tw.rest.slices import Slices
from chapps_tw.security.tokens import Scope

_NOTE = (
    "For a user or a domain, by id or by name. It is in force on every node from the next message, and ends by "
    "itself. For a domain, `extra` and `unlimited` apply to its pool, `suspended` to all of its users."
)


def routes(
    book: WritableBook, list_lock: DeferredLock, slices: Slices, now: Callable[[], float]
) -> Iterator[Route[Any]]:
    """Return all routes of this family.

    :param list_lock, slices: as for :class:`~chapps_tw.rest.routers.rules.Rules`.
    :param now: epoch seconds.
    """
    yield from _Overrides(book, list_lock, slices, now).routes()


class _Overrides:
    def __init__(self, book: WritableBook, list_lock: DeferredLock, slices: Slices, now: Callable[[], float]) -> None:
        self._book = book
        self._now = now
        self._rules = Rules(book, "overrides", self._shown, list_lock, slices)

    def routes(self) -> Iterator[Route[Any]]:
        path, one, tag = "/overrides/", "/overrides/{id}/", "overrides"
        yield Route(
            "GET", path, "List overrides, of all or of one user or domain", self.listed, m.OverrideListing,
            r.OverrideList, errors=(404,), tag=tag,
        )  # fmt: skip
        yield Route(
            "POST", path, "Create an override", self.create, m.NewOverride, r.OneOverride, body="*", query=False,
            status=201, errors=(404, 409), scope=Scope.OPERATOR, tag=tag, follow=links_of("overrides"), note=_NOTE,
        )  # fmt: skip
        yield Route(
            "DELETE", path, "End overrides", self.delete, m.OverrideIds, a.Said, body="override_ids", errors=(409,),
            scope=Scope.OPERATOR, tag=tag, note="They are deleted. `remarks` lists ids that do not exist.",
        )  # fmt: skip
        yield Route("GET", one, "Show an override", self._rules.show, ById, r.OneOverride, errors=(404,), tag=tag)
        yield Route(
            "PUT", one, "Change an override", self.change, m.ChangedOverride, r.OneOverride, body="*", query=False,
            errors=(404, 409), scope=Scope.OPERATOR, tag=tag,
            note="Fields that are omitted or null are left unchanged.",
        )  # fmt: skip
        yield Route(
            "DELETE", one, "End an override", self._rules.delete_one, ById, a.Said, errors=(404, 409),
            scope=Scope.OPERATOR, tag=tag, note="It is deleted; the audit trail keeps it.",
        )  # fmt: skip

    async def listed(self, page: m.OverrideListing) -> Reply:
        of = await self._find(page) if page.given else None
        return await self._rules.listed(page, of, self._now() if page.active else 0.0)

    async def create(self, new: m.NewOverride) -> Reply:
        kind, id = await self._find(new)
        fields = {KINDS[kind].singular: id, **new.model_dump(exclude={*m.About.model_fields, "begin", "until"})}
        return await self._rules.create(_given({**fields, **self._times(new)}))

    async def change(self, given: m.ChangedOverride) -> Reply:
        fields = given.model_dump(exclude={"id", "begin", "until"})
        return await self._rules.update(given.id, {**fields, **self._times(given)})

    async def delete(self, which: m.OverrideIds) -> Reply:
        return await self._rules.delete(which.override_ids)

    def _times(self, given: m.NewOverride | m.ChangedOverride) -> dict[str, float | None]:
        now = self._now()
        return {
            "begin": given.begin.ahead(now) if given.begin else None,
            "until": given.until.ahead(now) if given.until else None,
        }

    async def _find(self, about: m.About) -> tuple[str, int]:
        """Return the kind and the id of the only entry that is given.

        :raises Refusal: 404 if it does not exist.
        """
        [field] = about.given
        value = getattr(about, field)
        kind = "users" if field.startswith("user") else "domains"
        if isinstance(value, int):
            if not await self._book.by_ids(kind, [value]):
                raise missing(kind, value)
            return kind, value
        entry = await self._book.by_name(kind, value)
        if entry is None:
            raise missing_name(kind, value)
        return kind, entry.id

    async def _shown(self, overrides: Sequence[OverrideEntry]) -> Iterator[dict[str, Any]]:
        users = await self._names("users", (each.user for each in overrides))
        domains = await self._names("domains", (each.domain for each in overrides))
        now = self._now()
        return (
            {
                **with_iso(each._asdict(), "begin", "until", "created"),
                "user_id": each.user,
                "user": users.get(each.user),
                "domain_id": each.domain,
                "domain": domains.get(each.domain),
                "active": each.begin <= now < each.until,
            }
            for each in overrides
        )

    async def _names(self, kind: str, ids: Iterable[int | None]) -> dict[int | None, str]:
        wanted = {id for id in ids if id is not None}
        return {entry.id: entry.name for entry in (await self._book.by_ids(kind, sorted(wanted)) if wanted else [])}


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
