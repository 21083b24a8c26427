"""Actions that create and delete entries of the book."""

from __future__ import annotations

from typing import Any

from chapps_tw.ui.action import Action, Done, Field, Question, ids_of, remarks, whole
from chapps_tw.ui.views import Fields, Visit, url

_NAME = Field("name", "Name")
# What one is called; also the name of its view.
_TITLES = {"users": "user", "domains": "domain", "emails": "address", "quotas": "plan"}


def _new(kind: str, title: str, *fields: Field) -> Action:
    """Return the action that creates an entry of a kind."""

    async def ask(visit: Visit, about: Fields) -> Question:
        filled = [_NAME._replace(value=about["name"]), *fields]
        return Question([f"A new {_TITLES[kind]} of the book."], filled)

    async def act(visit: Visit, form: Fields) -> Done:
        values: dict[str, Any] = {"name": form["name"]}
        for field in fields:
            values[field.name] = (
                bool(form[field.name]) if field.kind == "flag" else whole(form, field.name, field.label)
            )
        reply = await visit.call("POST", f"/{kind}/", **values)
        name = reply.response["name"]
        return Done([f"{name} was created.", *remarks(reply)], url(_TITLES[kind], name=name))

    return Action(f"new-{_TITLES[kind]}", title, ("POST", f"/{kind}/"), (), ask, act)


def _delete(kind: str) -> Action:
    """Return the action that deletes entries of a kind, by their ids."""

    async def ask(visit: Visit, about: Fields) -> Question:
        count = len(ids_of(about))
        what = f"1 {_TITLES[kind]} is" if count == 1 else f"{count} entries are"
        return Question([f"{what} deleted from the book, with their links. It cannot be undone."])

    async def act(visit: Visit, form: Fields) -> Done:
        ids = {f"{kind.removesuffix('s')}_ids": ids_of(form)}
        reply = await visit.call("DELETE", f"/{kind}/", **ids)
        return Done(["Deleted.", *remarks(reply)], url(kind))

    return Action(f"delete-{kind}", "Delete", ("DELETE", f"/{kind}/"), ("id",), ask, act, danger=True)


ACTIONS = (
    _new("users", "Create a user"),
    _new(
        "domains",
        "Add a domain",
        Field("greylist", "Greylist mail to it", "flag", required=False),
        Field("check_spf", "Enforce SPF for mail to it", "flag", required=False),
    ),
    _new("emails", "Add an address"),
    _new("quotas", "Add a plan", Field("quota", "Transmissions in its interval", "number", "200")),
    *(_delete(kind) for kind in _TITLES),
)
