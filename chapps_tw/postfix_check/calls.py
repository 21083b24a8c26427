"""Whether Postfix can use what ``check_policy_service`` names, and what it does while we do not answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Final

from chapps_tw.postfix_check.evaluation import Server, Site, is_chrooted
from chapps_tw.postfix_check.finding import Finding, Severity
from chapps_tw.postfix_check.listeners import OurListener
from chapps_tw.postfix_check.restrictions import CHECK, misspelled, seconds
from chapps_tw.postfix_check.source import Service

TIMEOUT: Final = "smtpd_policy_service_timeout"
ACTION: Final = "smtpd_policy_service_default_action"
_UNKNOWN: Final = "Postfix logs an error, and answers with 451 4.3.5 Server configuration error"
_FATAL: Final = "The SMTP server logs an error and does not start: it accepts no mail at all"
_PERMITTING: Final = ("OK", "PERMIT")


def permits(action: str) -> bool:
    """Return whether an action ends the list and accepts (access(5))."""
    verb = action.partition(" ")[0].upper()
    return verb in _PERMITTING or (verb.isdigit() and verb[:1] not in "45")


def at(site: Site, server: Server, severity: Severity, code: str, *words: str, parameter: str = "") -> Finding:
    """Return a finding about a place in a list, or about a parameter of its service."""
    name = parameter or site.list
    return Finding(severity, code, server.parameters.file(name), site.service.label, name, *words)


def of_names(server: Server) -> Iterator[Finding]:
    """Find lists that cannot be read, and restrictions that are probably meant to be ``check_policy_service``."""
    for name, why in server.broken.items():
        yield Finding(
            Severity.ERROR, "list-invalid", server.parameters.file(name), server.service.label, name,
            f"it cannot be read: {why}", _FATAL, "Write a } for each {, in the order in which they are opened.",
        )  # fmt: skip
    for name, restrictions in server.lists.items():
        for each in restrictions:
            if misspelled(each.name):
                yield Finding(
                    Severity.ERROR, "restriction-unknown", server.parameters.file(name), server.service.label, name,
                    f"{each.name} is no restriction", _UNKNOWN, f"Write {CHECK} in place of {each.name}.",
                )  # fmt: skip


def of_addresses(
    server: Server, services: Sequence[Service], idle: Sequence[OurListener]
) -> Iterator[tuple[Finding, OurListener | None]]:
    """Find addresses that are invalid, or not ours; each with the listener that is probably meant.

    :param services: all of master.cf.
    :param idle: listeners that nothing asks.
    """
    for site in server.sites:
        if site.call.problem:
            yield _invalid(site, server), None
        elif site.listener is None and not _is_of_postfix(site, services):
            yield _unknown(site, server, idle)


def _invalid(site: Site, server: Server) -> Finding:
    remedy = f"Write for example: {CHECK} {{ inet:127.0.0.1:10225, timeout=5s }}"
    problem = f"{CHECK} cannot be used: {site.call.problem}"
    effect = _FATAL if site.restriction.argument else _UNKNOWN
    return at(site, server, Severity.ERROR, "service-invalid", problem, effect, remedy)


def _is_of_postfix(site: Site, services: Sequence[Service]) -> bool:
    """Return whether Postfix itself starts the policy service."""
    name = site.call.endpoint.removeprefix("unix:private/")
    return any(each.name == name and each.type == "unix" for each in services)


def _unknown(site: Site, server: Server, idle: Sequence[OurListener]) -> tuple[Finding, OurListener | None]:
    kind, _, place = site.call.endpoint.partition(":")
    if kind == "unix" and is_chrooted(site.service, server.parameters):
        for listener in idle:
            if listener.listens_at(place):
                return _outside(site, server, listener), listener
    meant = _meant(kind, place, idle)
    if meant is None:
        problem = f"{site.call.endpoint} is none of our listeners"
        effect = "What it answers is not part of this check."
        return at(site, server, Severity.NOTE, "service-of-others", problem, effect), None
    problem = f"nothing of ours listens on {site.call.endpoint}; listener {meant.name} is {meant.endpoint}"
    effect = "Postfix cannot connect, and answers the default action; the listener is not asked"
    remedy = f"Write: {meant.call}"
    return at(site, server, Severity.ERROR, "address-unknown", problem, effect, remedy), meant


def _outside(site: Site, server: Server, listener: OurListener) -> Finding:
    queue = server.parameters["queue_directory"]
    problem = f"the service runs in a chroot (column 5 of master.cf) and cannot reach {listener.path}"
    effect = "Postfix cannot connect, and answers the default action; the listener is not asked"
    remedy = (
        f"In chapps.ini: listen = unix:{queue}/chapps/{listener.name}; here: unix:chapps/{listener.name}. Or use inet:."
    )
    return at(site, server, Severity.ERROR, "socket-outside-chroot", problem, effect, remedy)


def _meant(kind: str, place: str, idle: Sequence[OurListener]) -> OurListener | None:
    """Return the listener that is probably meant by an address."""
    if kind == "unix":
        names = {each.path.rpartition("/")[2]: each for each in idle if each.path}
        near = get_close_matches(place.rpartition("/")[2], names, 1, 0.7)
    else:
        names = {str(each.port): each for each in idle if each.port > 0}
        near = get_close_matches(place.rpartition(":")[2], names, 1, 0.7)
    return names[near[0]] if near else None


def of_waiting(site: Site, server: Server, listener: OurListener) -> Iterator[Finding]:
    """Find timeouts that are too short or too long, and default actions that do not fit."""
    wait = site.call.timeout or seconds(server.parameters[TIMEOUT]) or 0.0
    name = site.list if site.call.timeout else TIMEOUT
    if wait < listener.deadline:
        problem = f"it waits {wait:g} s, and listener {listener.name} may take {listener.deadline:g} s"
        effect = "When it takes long, Postfix asks again, and then answers the default action instead of ours"
        yield at(
            site, server, Severity.WARNING, "timeout-short", problem, effect, f"Write: {listener.call}", parameter=name
        )
    elif not site.call.timeout and not server.parameters.is_set(TIMEOUT):
        problem = f"it has no timeout, so that the default of {wait:g} s applies"
        effect = "If the service hangs, SMTP clients wait for two attempts of that time"
        yield at(site, server, Severity.WARNING, "timeout-default", problem, effect, f"Write: {listener.call}")
    yield from _of_action(site, server, listener)


def _of_action(site: Site, server: Server, listener: OurListener) -> Iterator[Finding]:
    action, remedy = site.call.default_action, f"Write: {listener.call}"
    if not action and not server.parameters.is_set(ACTION):
        problem = "it has no default_action"
        effect = "While the service is down, mail is answered with 451 4.3.5 Server configuration problem"
        yield at(site, server, Severity.WARNING, "default-action-missing", problem, effect, remedy)
        return
    name, action = (site.list, action) if action else (ACTION, server.parameters[ACTION])
    if listener.is_outbound and (action.upper() == "DUNNO" or permits(action)):
        problem = f"default_action is {action}"
        effect = "While the service is down, users send as anybody, and without limit"
        yield at(site, server, Severity.WARNING, "default-action-accepts", problem, effect, remedy, parameter=name)
