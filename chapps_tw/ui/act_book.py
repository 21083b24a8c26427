"""Actions that change the book: flags, plans and links."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chapps_tw.rest.routing import Refusal
from chapps_tw.ui.action import Action, Done, Field, Question, remarks, whole
from chapps_tw.ui.views import Fields, Visit, url

_LINKED = {"domains": "domain", "emails": "address"}
_NO_PLAN = ("0", "none")
# A choice of plans.
_PLANS = 1000


async def _one(visit: Visit, kind: str, name: str) -> Mapping[str, Any]:
    """Return an entry by its name. Raises :class:`Refusal` 404."""
    reply = await visit.call("GET", f"/{kind}/by-name/{{name}}/", name=name)
    return {**reply.beside, **reply.response}


async def _plans(visit: Visit) -> list[tuple[str, str]]:
    plans = (await visit.call("GET", "/quotas/", limit=_PLANS)).response
    return [_NO_PLAN, *((str(each["id"]), each["name"]) for each in plans)]


def _flag(name: str, label: str, is_on: bool) -> Field:
    return Field(name, label, "flag", "1" if is_on else "", required=False)


async def _ask_flags(visit: Visit, about: Fields) -> Question:
    domain = await _one(visit, "domains", about["domain"])
    fields = [
        _flag("greylist", "Greylist mail to it", domain["greylist"]),
        _flag("check_spf", "Enforce SPF for mail to it", domain["check_spf"]),
    ]
    return Question([f"For mail to {domain['name']}, on every node from the next request."], fields)


async def _flags(visit: Visit, form: Fields) -> Done:
    domain = await _one(visit, "domains", form["domain"])
    flags = {name: bool(form[name]) for name in ("greylist", "check_spf")}
    reply = await visit.call("PUT", "/domains/", id=domain["id"], **flags)
    now = ", ".join(f"{name.replace('_', ' ')} {'on' if on else 'off'}" for name, on in flags.items())
    return Done([f"{domain['name']}: {now}.", *remarks(reply)], url("domain", name=domain["name"]))


async def _ask_plan(visit: Visit, about: Fields) -> Question:
    user = await _one(visit, "users", about["user"])
    plan = user["quota"]
    has = f"{user['name']} has the plan {plan['name']}." if plan else f"{user['name']} has no plan of their own."
    field = Field("plan", "Plan", "choice", str(plan["id"]) if plan else "0", await _plans(visit))
    return Question([has, "What was counted stays counted."], [field])


async def _plan(visit: Visit, form: Fields) -> Done:
    user, plan = await _one(visit, "users", form["user"]), whole(form, "plan", "Plan")
    if plan:
        reply = await visit.call("PUT", "/users/{id}/quota/{quota_id}/", id=user["id"], quota_id=plan)
    else:
        reply = await visit.call("DELETE", "/users/{id}/quota/", id=user["id"])
    return Done([f"The plan of {user['name']} was changed.", *remarks(reply)], url("user", name=user["name"]))


async def _ask_domain_plan(visit: Visit, about: Fields) -> Question:
    domain, plans = await _one(visit, "domains", about["domain"]), await _plans(visit)
    fields = [
        Field("each_quota", "Each user without a plan has", "choice", str(domain["each_quota"] or 0), plans),
        Field("pool_quota", "All users together have", "choice", str(domain["pool_quota"] or 0), plans),
    ]
    return Question([f"Plans of {domain['name']}:"], fields)


async def _domain_plan(visit: Visit, form: Fields) -> Done:
    domain = await _one(visit, "domains", form["domain"])
    plans = {name: whole(form, name, "Plan") for name in ("each_quota", "pool_quota")}
    reply = await visit.call("PUT", "/domains/", id=domain["id"], **plans)
    return Done([f"The plans of {domain['name']} were changed.", *remarks(reply)], url("domain", name=domain["name"]))


async def _ask_link(visit: Visit, about: Fields) -> Question:
    fields = [
        Field("name", "Domain or address", hint="Such as example.com, or news@example.com."),
        _flag("create", "Create it if it does not exist", False),
    ]
    return Question([f"{about['user']} may then send from there."], fields)


async def _link(visit: Visit, form: Fields) -> Done:
    user, name = await _one(visit, "users", form["user"]), form["name"]
    kind = "emails" if "@" in name else "domains"
    entry = await visit.find(f"/{kind}/by-name/{{name}}/", name=name)
    if entry is None and form["create"]:
        reply = await visit.call("POST", f"/{kind}/", name=name, users=[user["id"]])
    elif entry is None:
        raise Refusal(404, f"There is no {_LINKED[kind]} named {name}. It can be created with it.")
    else:
        ids = {f"{kind.removesuffix('s')}_ids": [entry.response["id"]]}
        reply = await visit.call("PUT", f"/users/{{id}}/{kind}/", id=user["id"], **ids)
    return Done([f"{user['name']} may send from {name}.", *remarks(reply)], url("user", name=user["name"]))


async def _ask_unlink(visit: Visit, about: Fields) -> Question:
    return Question([f"{about['user']} may no longer send from {about['name']}, unless another link allows it."])


async def _unlink(visit: Visit, form: Fields) -> Done:
    user, name = await _one(visit, "users", form["user"]), form["name"]
    kind = "emails" if "@" in name else "domains"
    entry = await _one(visit, kind, name)
    ids = {f"{kind.removesuffix('s')}_ids": [entry["id"]]}
    reply = await visit.call("DELETE", f"/users/{{id}}/{kind}/", id=user["id"], **ids)
    return Done([f"{user['name']} may no longer send from {name}.", *remarks(reply)], url("user", name=user["name"]))


ACTIONS = (
    Action("flags", "Set flags", ("PUT", "/domains/"), ("domain",), _ask_flags, _flags),
    Action("plan", "Give a plan", ("PUT", "/users/{id}/quota/{quota_id}/"), ("user",), _ask_plan, _plan),
    Action("domain-plan", "Give plans", ("PUT", "/domains/"), ("domain",), _ask_domain_plan, _domain_plan),
    Action("link", "Let send from", ("PUT", "/users/{id}/domains/"), ("user",), _ask_link, _link),
    Action("unlink", "Remove", ("DELETE", "/users/{id}/domains/"), ("user", "name"), _ask_unlink, _unlink, danger=True),
)
