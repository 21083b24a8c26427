"""Actions that make and end overrides and exemptions."""

from __future__ import annotations

from chapps_tw.rest.routing import Refusal
from chapps_tw.ui.action import REASON, UNTIL, Action, Done, Field, Question, card_of, moment, remarks, subject, whole
from chapps_tw.ui.views import Fields, Visit, url

_SUBJECT = ("user", "domain")
_OVERRIDE, _EXEMPTION = "/overrides/{id}/", "/exemptions/{id}/"

_KINDS = (
    ("client", "Client: an address or a network"),
    ("sender", "Sender: an address"),
    ("sender_domain", "Domain of senders; with a dot before it, also what is under it"),
    ("recipient", "Recipient: an address"),
)
_SCOPES = (("spf", "SPF"), ("greylisting", "Greylisting"), ("sender_authorization", "Sender authorization"))
_SHOWN_REASON = REASON._replace(hint="Shown to the user, and to other administrators.")
_ACTION = Field("action", "Mail is", "choice", "refuse", (("refuse", "refused"), ("defer", "deferred")))


def _card(form: Fields) -> str:
    view, name = card_of(form)
    return url(view, name=name)


async def _ask_raise(visit: Visit, about: Fields) -> Question:
    _, name = card_of(about)
    whose = f"{name} may send more" if about["user"] else f"The pool of {name} has more room"
    says = f"{whose}, on every node from the next message. It ends by itself."
    return Question([says], [Field("value", "How much more", "number", "100"), UNTIL, REASON])


async def _raise(visit: Visit, form: Fields) -> Done:
    value = whole(form, "value", "How much more")
    fields = {"kind": "extra", "value": value, "until": moment(form), "reason": form["reason"]}
    reply = await visit.call("POST", "/overrides/", **subject(form), **fields)
    until = reply.response["until_iso"]
    return Done([f"{card_of(form)[1]} has {value} more until {until}.", *remarks(reply)], _card(form))


async def _ask_suspend(visit: Visit, about: Fields) -> Question:
    who = about["user"] or f"All users of {about['domain']}"
    says = f"{who} cannot send mail, on every node from the next message. It ends by itself."
    return Question([says], [UNTIL, _SHOWN_REASON, _ACTION])


async def _suspend(visit: Visit, form: Fields) -> Done:
    fields = {"kind": "suspended", "until": moment(form), "reason": form["reason"], "action": form["action"]}
    reply = await visit.call("POST", "/overrides/", **subject(form), **fields)
    says = f"{card_of(form)[1]} is suspended until {reply.response['until_iso']}."
    return Done([says, *remarks(reply)], _card(form))


async def _ask_end(visit: Visit, about: Fields) -> Question:
    override = (await visit.call("GET", _OVERRIDE, id=whole(about, "id", "Id"))).response
    what = {"extra": f"{override['value']} more", "unlimited": "No limit", "suspended": "Suspended"}[override["kind"]]
    reason = f": {override['reason']}" if override["reason"] else ""
    says = f"{what}{reason}. By {override['author'] or 'nobody in particular'}, until {override['until_iso']}."
    return Question([says, f"It ends now for {card_of(about)[1]}."])


async def _end(visit: Visit, form: Fields) -> Done:
    reply = await visit.call("DELETE", _OVERRIDE, id=whole(form, "id", "Id"))
    return Done([f"It has ended for {card_of(form)[1]}.", *remarks(reply)], _card(form))


async def _ask_exempt(visit: Visit, about: Fields) -> Question:
    limits = (await visit.call("GET", "/live/rate-limits/")).response
    scopes = [*_SCOPES, *((f"limit:{each['name']}", f"Limit {each['name']}") for each in limits)]
    scope = about["scope"]
    if scope == "limit:":
        if not limits:
            raise Refusal(404, "The configuration has no [Limit NAME].")
        scope = f"limit:{limits[0]['name']}"
    fields = [
        Field("kind", "Who", "choice", about["kind"] or "client", _KINDS),
        Field("value", "Which", value=about["value"]),
        Field("scope", "From", "choice", scope or "spf", scopes),
        UNTIL._replace(value="4w"),
        REASON,
    ]
    says = "The mail is not checked for that, on every node from the next request. It ends by itself."
    return Question([says], fields)


async def _exempt(visit: Visit, form: Fields) -> Done:
    fields = {name: form[name] for name in ("kind", "value", "scope", "reason")}
    reply = await visit.call("POST", "/exemptions/", **fields, until=moment(form))
    made = reply.response
    says = f"{made['value']} is exempt from {made['scope']} until {made['until_iso']}."
    return Done([says, *remarks(reply)], _exempted_card(made["kind"], made["value"]))


async def _ask_unexempt(visit: Visit, about: Fields) -> Question:
    made = (await visit.call("GET", _EXEMPTION, id=whole(about, "id", "Id"))).response
    says = f"{made['value']} is exempt from {made['scope']} until {made['until_iso']}."
    return Question([says, "The exemption ends now."])


async def _unexempt(visit: Visit, form: Fields) -> Done:
    id = whole(form, "id", "Id")
    made = (await visit.call("GET", _EXEMPTION, id=id)).response
    reply = await visit.call("DELETE", _EXEMPTION, id=id)
    says = f"{made['value']} is no longer exempt from {made['scope']}."
    return Done([says, *remarks(reply)], _exempted_card(made["kind"], made["value"]))


def _exempted_card(kind: str, value: str) -> str:
    if kind == "client":
        return url("client", address=value)
    return url("domain", name=value.removeprefix(".")) if kind == "sender_domain" else url("address", name=value)


_NEW_OVERRIDE, _NEW_EXEMPTION = ("POST", "/overrides/"), ("POST", "/exemptions/")

ACTIONS = (
    Action("raise", "Raise until a date", _NEW_OVERRIDE, _SUBJECT, _ask_raise, _raise),
    Action("suspend", "Suspend", _NEW_OVERRIDE, _SUBJECT, _ask_suspend, _suspend, danger=True),
    Action("release", "Release", ("DELETE", _OVERRIDE), ("id", *_SUBJECT), _ask_end, _end),
    Action("end", "End it now", ("DELETE", _OVERRIDE), ("id", *_SUBJECT), _ask_end, _end),
    Action("exempt", "Exempt", _NEW_EXEMPTION, (), _ask_exempt, _exempt),
    Action("unexempt", "End the exemption", ("DELETE", _EXEMPTION), ("id",), _ask_unexempt, _unexempt),
)
