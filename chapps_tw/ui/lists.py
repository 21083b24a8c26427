"""Lists of users, domains, addresses and plans: search, sort, page, edit in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from chapps_tw.rest.refusals import refusal_of
from chapps_tw.rest.routing import Refusal
from chapps_tw.rest.slices import Slices
from chapps_tw.ui.action import whole
from chapps_tw.ui.buttons import button
from chapps_tw.ui.export import export
from chapps_tw.ui.views import Answer, Fields, Html, View, Visit, sentences, url

SHOWN = 50


class Column(NamedTuple):
    """A column besides the name, which can be edited.

    :ivar kind: ``flag``, ``number`` or ``plan``.
    """

    name: str
    title: str
    kind: str


class Listed(NamedTuple):
    """A kind of entries.

    :ivar view: of the card of one.
    :ivar new: name of the action that creates one.
    :ivar many: names and titles of the actions for several.
    """

    kind: str
    title: str
    view: str
    new: str
    columns: tuple[Column, ...]
    many: tuple[str, ...]


KINDS = (
    Listed("users", "Users", "user", "new-user", (Column("quota", "Plan", "plan"),), ("plan-users", "delete-users")),
    Listed(
        "domains",
        "Domains",
        "domain",
        "new-domain",
        (Column("greylist", "Greylisting", "flag"), Column("check_spf", "SPF enforced", "flag")),
        ("flag-domains", "delete-domains"),
    ),
    Listed("emails", "Addresses", "address", "new-address", (), ("delete-emails",)),
    Listed("quotas", "Plans", "plan", "new-plan", (Column("quota", "In its interval", "number"),), ("delete-quotas",)),
)


class Lists:
    """The views of lists."""

    def __init__(self, slices: Slices) -> None:
        self._slices = slices

    def views(self) -> Iterator[View]:
        for listed in KINDS:
            yield View("GET", f"/ui/{listed.kind}", partial(_show, listed))
            yield View("GET", f"/ui/{listed.kind}/row", partial(_row, listed))
            yield View("GET", f"/ui/{listed.kind}/edit", partial(_edit, listed))
            yield View("POST", f"/ui/{listed.kind}/edit", partial(_save, listed))
            yield View("GET", f"/ui/{listed.kind}/export", partial(export, self._slices, listed.kind))


async def _show(listed: Listed, visit: Visit) -> Answer:
    text, skip = visit.query["name"], visit.query.whole("skip", 0)
    sort = visit.query["sort"] if visit.query["sort"] in ("id", "-id", "name", "-name") else "name"
    more: dict[str, Any] = {"total": True, **({"with": "quota"} if listed.kind == "users" else {})}
    reply = await visit.call("GET", f"/{listed.kind}/", q=text, skip=skip, limit=SHOWN + 1, sort=sort, **more)
    rows = reply.response
    same: dict[str, object] = {"name": text, "sort": sort}
    values = {
        "listed": listed,
        "rows": rows[:SHOWN],
        "text": text,
        "sort": sort,
        "first": skip + 1,
        "total": reply.beside["total"],
        "newer": url(listed.kind, **same, skip=max(0, skip - SHOWN)) if skip else "",
        "older": url(listed.kind, **same, skip=skip + SHOWN) if len(rows) > SHOWN else "",
        "sorts": _sorts(listed, text, sort),
        "export": url(f"{listed.kind}/export", name=text),
        "new": button(visit, listed.new),
        "many": [button(visit, action) for action in listed.many],
        "can_edit": visit.can("PUT", f"/{listed.kind}/"),
    }
    return Html("list.html", values)


def _sorts(listed: Listed, text: str, sort: str) -> Mapping[str, str]:
    """Return the addresses that sort by a column; the one that is sorted by is turned."""
    return {
        column: url(listed.kind, name=text, sort=f"-{column}" if sort == column else column)
        for column in ("name", "id")
    }


async def _entry(listed: Listed, visit: Visit, fields: Fields) -> dict[str, Any]:
    """Return an entry as the list has it. Raises :class:`Refusal` 404."""
    reply = await visit.call("GET", f"/{listed.kind}/{{id}}/", id=whole(fields, "id", "Id"))
    beside = {"quota": reply.beside["quota"]} if listed.kind == "users" else {}
    return {**reply.response, **beside}


async def _row(listed: Listed, visit: Visit) -> Answer:
    row = await _entry(listed, visit, visit.query)
    return Html("list-row.html", {"listed": listed, "row": row, "can_edit": visit.can("PUT", f"/{listed.kind}/")})


async def _edit(listed: Listed, visit: Visit) -> Answer:
    _check(listed, visit)
    row = await _entry(listed, visit, visit.query)
    return await _form(listed, visit, row)


async def _form(listed: Listed, visit: Visit, row: Mapping[str, Any], problems: tuple[str, ...] = ()) -> Answer:
    plans = (await visit.call("GET", "/quotas/", limit=1000)).response if listed.kind == "users" else []
    return Html("list-edit.html", {"listed": listed, "row": row, "plans": plans, "problems": problems})


async def _save(listed: Listed, visit: Visit) -> Answer:
    """Save a row; answer with the row, or with what is wrong beside what was entered."""
    _check(listed, visit)
    before = await _entry(listed, visit, visit.form)
    try:
        await _change(listed, visit, before)
    except Exception as error:
        refusal = refusal_of(error)
        if refusal is None or refusal.status == 403:
            raise
        return await _form(listed, visit, {**before, "name": visit.form["name"]}, tuple(sentences(refusal)))
    return Html("list-row.html", {"listed": listed, "row": await _entry(listed, visit, visit.form), "can_edit": True})


async def _change(listed: Listed, visit: Visit, before: Mapping[str, Any]) -> None:
    """Change what the form has otherwise. Raises :class:`Refusal`."""
    form = visit.form
    changes: dict[str, str | bool | int] = {}
    if form["name"] != before["name"]:
        changes["name"] = form["name"]
    for column in listed.columns:
        if column.kind == "flag":
            changes[column.name] = bool(form[column.name])
        elif column.kind == "number" and form[column.name]:
            changes[column.name] = whole(form, column.name, column.title)
    if changes:
        await visit.call("PUT", f"/{listed.kind}/", id=before["id"], **changes)
    if listed.kind == "users":
        await _set_plan(visit, before, whole(form, "quota", "Plan"))


async def _set_plan(visit: Visit, user: Mapping[str, Any], plan: int) -> None:
    present = user["quota"]["id"] if user["quota"] else 0
    if plan and plan != present:
        await visit.call("PUT", "/users/{id}/quota/{quota_id}/", id=user["id"], quota_id=plan)
    elif present and not plan:
        await visit.call("DELETE", "/users/{id}/quota/", id=user["id"])


def _check(listed: Listed, visit: Visit) -> None:
    if not visit.can("PUT", f"/{listed.kind}/"):
        raise Refusal(403, "The scope of the token does not include changes of the book.")
