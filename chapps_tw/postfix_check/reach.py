"""Whether those are asked about who should be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from chapps_tw.postfix_check.calls import at
from chapps_tw.postfix_check.evaluation import ENDS, Client, Server, Site
from chapps_tw.postfix_check.finding import Finding, Severity
from chapps_tw.postfix_check.listeners import OurListener
from chapps_tw.postfix_check.restrictions import Restriction

_SUBMISSION = "In master.cf, below the submission service: -o smtpd_relay_restrictions=permit_sasl_authenticated,reject"


def of_reach(site: Site, server: Server, listener: OurListener, elsewhere: bool) -> Iterator[Finding]:
    """Find places that the wrong clients get to, or none.

    :param elsewhere: whether another server asks the listener.
    """
    if not site.reached_by:
        # What main.cf says to all servers need not apply to each of them.
        if site.list in server.service.overrides or not elsewhere:
            yield _of_nobody(site, server, listener)
        return
    if site.restriction.is_warning:
        problem = "warn_if_reject is ahead of it"
        effect = "What it refuses or defers is only logged, and the mail passes"
        remedy = "Remove warn_if_reject; to try a policy out, set its mode = shadow in chapps.ini."
        yield at(site, server, Severity.WARNING, "warn-if-reject", problem, effect, remedy)
    yield from _of_mynetworks(site, server, listener)
    if listener.is_outbound:
        yield from _of_outbound(site, server, listener)
    elif listener.is_inbound:
        yield from _of_inbound(site, server, listener)


def _of_nobody(site: Site, server: Server, listener: OurListener) -> Finding:
    effect = f"Listener {listener.name} is not asked here"
    if listener.is_outbound and not server.has_login:
        problem = "nobody can log in here, and nobody else gets to it"
        remedy = "Write: -o smtpd_sasl_auth_enable=yes"
        parameter = "smtpd_sasl_auth_enable"
        return at(site, server, Severity.ERROR, "no-login", problem, effect, remedy, parameter=parameter)
    problem = f"no client gets to it: {_decider(site.ahead)} decides first"
    return at(site, server, Severity.ERROR, "unreachable", problem, effect, f"Write {listener.call} ahead of that.")


def _decider(ahead: Sequence[Restriction]) -> str:
    return next((f"{each.name}, ahead of it," for each in ahead if each.name in ENDS), "an earlier list")


def _of_outbound(site: Site, server: Server, listener: OurListener) -> Iterator[Finding]:
    reached = site.reached_by
    if Client.STRANGER in reached:
        severity = Severity.WARNING if listener.is_shadow else Severity.ERROR
        problem = f"listener {listener.name} is for logged-in users, and is asked here about mail from the world"
        effect = "It refuses all incoming mail, since that names no user"
        if listener.is_shadow:
            effect += " (not yet, in shadow mode)"
        remedy = f"{_SUBMISSION} -o {{ smtpd_data_restrictions = {listener.call} }}"
        yield at(site, server, severity, "outbound-for-world", problem, effect, remedy)
    elif Client.NETWORK in reached and not listener.is_shadow:
        problem = f"clients in mynetworks get to listener {listener.name} without a login"
        effect = "It refuses their mail, since that names no user"
        remedy = f"{_SUBMISSION} (without permit_mynetworks)"
        yield at(site, server, Severity.WARNING, "outbound-for-mynetworks", problem, effect, remedy)
    if server.has_login and not _has(server, listener, Client.LOGIN):
        problem = "permit_sasl_authenticated is ahead of it"
        effect = f"Listener {listener.name} is never asked about logged-in users: they send without limit"
        remedy = f"Write {listener.call} ahead of permit_sasl_authenticated, or in smtpd_data_restrictions."
        yield at(site, server, Severity.ERROR, "login-permitted-ahead", problem, effect, remedy)


def _has(server: Server, listener: OurListener, kind: Client) -> bool:
    return any(site.listener == listener and kind in site.reached_by for site in server.sites)


def _of_inbound(site: Site, server: Server, listener: OurListener) -> Iterator[Finding]:
    if Client.LOGIN in site.reached_by:
        problem = f"listener {listener.name} is asked about logged-in users too"
        effect = "SPF and greylisting let them through"
        yield at(site, server, Severity.NOTE, "login-on-inbound", problem, effect)


def _of_mynetworks(site: Site, server: Server, listener: OurListener) -> Iterator[Finding]:
    if Client.NETWORK in server.passing and any(each.name == "permit_mynetworks" for each in site.ahead):
        problem = f"permit_mynetworks is ahead of listener {listener.name}"
        effect = "Mail from mynetworks is not judged by it"
        yield at(site, server, Severity.NOTE, "mynetworks-permitted", problem, effect)
