"""Whether an answer can make an open relay, and what is asked more often than necessary."""

from __future__ import annotations

from collections.abc import Iterator

from chapps_tw.postfix_check.calls import ACTION, at, permits
from chapps_tw.postfix_check.evaluation import EARLY, RECIPIENT, RELAY, Client, Server, Site, guards, met_by
from chapps_tw.postfix_check.finding import Finding, Severity
from chapps_tw.postfix_check.listeners import OurListener

_RELAYING = (RELAY, RECIPIENT)


def of_order(server: Server) -> Iterator[Finding]:
    """Find answers that would let strangers relay, and requests about mail that is refused anyway."""
    asked = [site for site in server.sites if site.listener and Client.STRANGER in site.reached_by]
    ahead = [site for site in asked if site.list in _RELAYING and not site.is_guarded]
    opening = [site for site in ahead if _opener(site, server)]
    is_open = bool(opening) and not _is_guarded(server, [site.list for site in opening])
    for site in ahead:
        if is_open and site in opening:
            yield _open_relay(site, server)
        elif not _is_guarded_before(site, server):
            yield _ahead(site, server)
    for site in asked:
        if site.list in EARLY and site.stage == "RCPT":
            yield _ahead(site, server)


def _opener(site: Site, server: Server) -> str:
    """Return what accepts for good, as the subject of a sentence; empty if nothing does."""
    if site.listener and site.listener.accepts_with_ok:
        return f"[{site.listener.accepts_with_ok}] acceptance_message is OK"
    action = site.call.default_action or server.parameters[ACTION]
    return f"default_action is {action}" if permits(action) else ""


def _is_guarded(server: Server, but: list[str]) -> bool:
    """Return whether a list other than some keeps strangers from relaying."""
    # An early list that refuses strangers lets none of them get to the sites at all.
    return any(_guards(server, name) for name in _RELAYING if name not in but)


def _is_guarded_before(site: Site, server: Server) -> bool:
    """Return whether a list that is evaluated earlier keeps strangers from relaying."""
    names = list(server.lists)
    return any(_guards(server, name) for name in names[: names.index(site.list)] if name in _RELAYING)


def _guards(server: Server, name: str) -> bool:
    return any(map(guards, met_by(Client.STRANGER, server.lists[name])))


def _open_relay(site: Site, server: Server) -> Finding:
    problem = f"{_opener(site, server)}, and it is ahead of reject_unauth_destination"
    effect = "Postfix relays mail from anybody to anywhere: an open relay"
    listener = site.listener
    what = "acceptance_message = DUNNO in chapps.ini" if listener and listener.accepts_with_ok else "DUNNO"
    remedy = f"Write reject_unauth_destination ahead of {site.restriction.name}, and {what}."
    return at(site, server, Severity.ERROR, "open-relay", problem, effect, remedy)


def _ahead(site: Site, server: Server) -> Finding:
    problem = "it is ahead of reject_unauth_destination"
    effect = "It is asked about mail that Postfix refuses anyway; an answer of OK could make an open relay"
    remedy = f"Write it in {RECIPIENT}, after reject_unauth_destination."
    return at(site, server, Severity.WARNING, "ahead-of-reject-unauth", problem, effect, remedy)


def of_repetition(server: Server) -> Iterator[Finding]:
    """Find policies that are asked more than once about the same."""
    asked = [site for site in server.sites if site.listener and site.reached_by]
    for place, site in enumerate(asked):
        for other in asked[:place]:
            if twice := _twice(site, other):
                where = "in the same list" if other.list == site.list else f"in {other.list} too"
                problem = f"{twice} is asked at {site.stage} {where}"
                effect = "A repeated request counts once, but takes time"
                remedy = "Remove one of the two."
                yield at(site, server, Severity.WARNING, "asked-twice", problem, effect, remedy)
                break
    for listener in dict.fromkeys(site.listener for site in asked):
        if listener is not None:
            yield from _of_stages(server, listener, [site for site in asked if site.listener == listener])


def _twice(site: Site, other: Site) -> str:
    """Return what both places ask at the same stage about the same clients; empty if nothing."""
    if site.stage != other.stage or not site.reached_by & other.reached_by or not (site.listener and other.listener):
        return ""
    if site.listener == other.listener:
        return f"listener {site.listener.name}"
    return ", ".join(name for name in site.listener.policies if name in other.listener.policies)


def _of_stages(server: Server, listener: OurListener, sites: list[Site]) -> Iterator[Finding]:
    stages = list(dict.fromkeys(site.stage for site in sites))
    useful = [stage for stage in stages if all(need.is_met([stage]) for need in listener.needs)]
    if len(useful) > 1 and useful == stages:
        problem = f"listener {listener.name} is asked at {' and '.join(stages)}"
        effect = "A message costs what the last of them says, not the sum"
        yield at(sites[-1], server, Severity.NOTE, "several-stages", problem, effect)
