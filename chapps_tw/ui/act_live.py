"""Actions on the live state: counts, and greylisting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from chapps_tw.policies.quota_answers import in_units
from chapps_tw.ui.action import Action, Done, Question, remarks
from chapps_tw.ui.views import Fields, Visit, url

_USER, _POOL = "/live/limits/{user}", "/live/pools/{domain}"
_LIMIT = "/live/rate-limits/{name}/{what}"
_TALLY = "/live/grl/tally/{client_address}"
_TUPLE = ("client", "sender", "recipient")


async def _ask_reset(visit: Visit, about: Fields) -> Question:
    user = about["user"]
    used = await _used(visit, _USER, user=user)
    return Question([f"{user} has used {used or 'nothing'}.", "All of it is forgotten, on every node."])


async def _reset(visit: Visit, form: Fields) -> Done:
    user = form["user"]
    before = await _used(visit, _USER, user=user)
    reply = await visit.call("DELETE", _USER, user=user)
    after = await _used(visit, _USER, user=user)
    says = f"The count of {user} was reset. Before: {before or 'nothing used'}. Now: {after or 'nothing used'}."
    return Done([says, *remarks(reply)], url("user", name=user))


async def _ask_reset_pool(visit: Visit, about: Fields) -> Question:
    used = await _used(visit, _POOL, domain=about["domain"])
    return Question([f"The users of {about['domain']} have together used {used or 'nothing'}.", "It is forgotten."])


async def _reset_pool(visit: Visit, form: Fields) -> Done:
    domain = form["domain"]
    before = await _used(visit, _POOL, domain=domain)
    reply = await visit.call("DELETE", _POOL, domain=domain)
    after = await _used(visit, _POOL, domain=domain)
    says = f"The pool of {domain} was reset. Before: {before or 'nothing used'}. Now: {after or 'nothing used'}."
    return Done([says, *remarks(reply)], url("domain", name=domain))


async def _used(visit: Visit, path: str, **values: str) -> str:
    """Return what is used of each limit in words; ``""`` if that is nothing."""
    limits: Sequence[Mapping[str, Any]] = (await visit.call("GET", path, **values)).response["limits"]
    if path == _USER:
        limits = [each for each in limits if each["level"] != "domain pool"]
    return ", ".join(_in_words(each) for each in limits if each["used"])


def _in_words(limit: Mapping[str, Any]) -> str:
    of = "" if limit["amount"] is None else f" of {limit['amount']}"
    return f"{limit['used']}{of} {limit['unit'].replace('_', ' ')} in {in_units(limit['window'])}"


async def _ask_reset_limit(visit: Visit, about: Fields) -> Question:
    use = (await visit.call("GET", _LIMIT, name=about["limit"], what=about["what"])).response
    says = f"{use['what']} has used {use['used']} of {use['amount']} of the limit {about['limit']}."
    return Question([says, "It is forgotten, on every node."])


async def _reset_limit(visit: Visit, form: Fields) -> Done:
    reply = await visit.call("DELETE", _LIMIT, name=form["limit"], what=form["what"])
    says = f"The limit {form['limit']} of {form['what']} was reset. Before: {reply.response}. Now: 0."
    return Done([says], url("search", q=form["what"]))


async def _ask_forget(visit: Visit, about: Fields) -> Question:
    count = len((await visit.call("GET", _TALLY, client_address=about["client"])).response)
    says = f"{about['client']} has {count} messages in its tally. Without it, new senders there are greylisted again."
    return Question([says])


async def _forget(visit: Visit, form: Fields) -> Done:
    await visit.call("DELETE", _TALLY, client_address=form["client"])
    return Done([f"The tally of {form['client']} was cleared."], url("client", address=form["client"]))


async def _ask_pass(visit: Visit, about: Fields) -> Question:
    sender = about["sender"] or "the null sender"
    says = f"Mail from {sender} to {about['recipient']} by {about['client']} passes greylisting at its next attempt."
    return Question([says, "The three are known from then on, as after a retry."])


async def _pass(visit: Visit, form: Fields) -> Done:
    names = {"client_address": form["client"], "sender": form["sender"], "recipient": form["recipient"]}
    reply = await visit.call("POST", "/live/grl/tuple/", **names)
    says = "The message passes at its next attempt."
    return Done([says, *remarks(reply)], url("client", address=form["client"]))


ACTIONS = (
    Action("reset", "Reset the count", ("DELETE", _USER), ("user",), _ask_reset, _reset),
    Action("reset-pool", "Reset the pool", ("DELETE", _POOL), ("domain",), _ask_reset_pool, _reset_pool),
    Action("reset-limit", "Reset", ("DELETE", _LIMIT), ("limit", "what"), _ask_reset_limit, _reset_limit),
    Action("forget", "Clear the tally", ("DELETE", _TALLY), ("client",), _ask_forget, _forget, danger=True),
    Action("pass", "Let it pass now", ("POST", "/live/grl/tuple/"), _TUPLE, _ask_pass, _pass),
)
