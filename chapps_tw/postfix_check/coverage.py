"""Which listeners nothing asks, and which mail no policy sees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from chapps_tw.postfix_check.evaluation import RECIPIENT, RELAY, Client, Server, server_of
from chapps_tw.postfix_check.finding import Finding, Severity
from chapps_tw.postfix_check.listeners import OurListener
from chapps_tw.postfix_check.parameters import Parameters
from chapps_tw.postfix_check.source import Source

_LOGIN = "permit_sasl_authenticated"


def of_overrides(source: Source, servers: Sequence[Server], listeners: Sequence[OurListener]) -> Iterator[Finding]:
    """Find listeners that main.cf asks, in a list that master.cf overrides for a server where users log in."""
    outbound = [each for each in listeners if each.is_outbound]
    for server in servers:
        if not server.has_login:
            continue
        base = server_of(server.service._replace(overrides={}), Parameters(source), listeners)
        for site in base.sites:
            listener = site.listener
            if listener in outbound and site.list in server.service.overrides and not _mentions(server, listener):
                value = server.service.overrides[site.list]
                problem = f"it overrides what main.cf says, with {value!r}, which does not ask listener {listener.name}"
                effect = "Users of this service send as anybody, and without limit"
                remedy = f"Write: -o {{ smtpd_data_restrictions = {listener.call} }}"
                yield Finding(
                    Severity.ERROR, "overridden", "master.cf", server.service.label, site.list, problem, effect, remedy
                )


def _mentions(server: Server, listener: OurListener) -> bool:
    return any(site.listener == listener for site in server.sites)


def of_unchecked_logins(servers: Sequence[Server], but: Sequence[str]) -> Iterator[Finding]:
    """Find servers where users log in and nothing outbound is asked, while another server asks.

    :param but: services about which this is known.
    """
    if not any(_checks_logins(server) for server in servers):
        return
    for server in servers:
        permitted = any(each.name == _LOGIN for name in (RELAY, RECIPIENT) for each in server.lists[name])
        asks = any(site.listener and site.listener.is_outbound for site in server.sites)
        if permitted and Client.LOGIN in server.passing and not asks and server.service.label not in but:
            yield Finding(
                Severity.WARNING, "login-unchecked", server.parameters.file("smtpd_sasl_auth_enable"),
                server.service.label, "smtpd_sasl_auth_enable",
                "users can log in here, and no outbound listener is asked, as another service does",
                "Users who send here send as anybody, and without limit",
                "Write the same -o lines below this service, or -o smtpd_sasl_auth_enable=no.",
            )  # fmt: skip


def _checks_logins(server: Server) -> bool:
    return any(site.listener and site.listener.is_outbound and Client.LOGIN in site.reached_by for site in server.sites)


def of_listeners(
    servers: Sequence[Server], listeners: Sequence[OurListener], but: Sequence[OurListener]
) -> Iterator[Finding]:
    """Find listeners that nothing asks.

    :param but: those for which the reason is known.
    """
    mentioned = [each for each in listeners if any(_mentions(server, each) for server in servers)]
    if not mentioned and not but and not any(server.unread for server in servers):
        yield _nothing(listeners)
        return
    covered = {name for each in (*mentioned, *but) for name in each.policies}
    for listener in listeners:
        is_optional = covered.issuperset(listener.policies) or listener.is_part_of(listeners)
        if listener not in mentioned and listener not in but and not is_optional:
            yield _not_asked(listener, servers)
        elif listener.is_inbound and listener in mentioned:
            yield from _of_inbound(servers, listener)


def _nothing(listeners: Sequence[OurListener]) -> Finding:
    lines = "; ".join(f"{each.name}: {each.call}" for each in listeners) or "configure a listener first"
    return Finding(
        Severity.ERROR, "nothing-asked", "main.cf", "", "", "no SMTP server of this Postfix asks any of our listeners",
        "No policy sees any mail", f"Write, for the listeners that you want: {lines}",
    )  # fmt: skip


def _not_asked(listener: OurListener, servers: Sequence[Server]) -> Finding:
    classes = sorted({name for server in servers for name in server.unread})
    severity = Severity.ERROR if listener.is_explicit and not classes else Severity.NOTE
    problem = f"no SMTP server of this Postfix asks listener {listener.name}"
    effect = f"No mail is seen by {' and '.join(listener.policies)}"
    if classes:
        effect += f", unless a table that was not looked into names {' or '.join(classes)}"
    return Finding(severity, "not-asked", "chapps.ini", "", listener.name, problem, effect, f"Write: {listener.call}")


def _of_inbound(servers: Sequence[Server], listener: OurListener) -> Iterator[Finding]:
    sites = [site for server in servers for site in server.sites if site.listener == listener and site.reached_by]
    if sites and not any(Client.STRANGER in site.reached_by for site in sites):
        problem = f"listener {listener.name} is asked only about clients that it lets through"
        effect = "Mail from the world is neither checked by SPF nor greylisted"
        remedy = f"In main.cf, in {RECIPIENT}, after reject_unauth_destination: {listener.call}"
        site = sites[0]
        yield Finding(
            Severity.ERROR, "inbound-not-for-world", "main.cf", site.service.label, site.list, problem, effect, remedy
        )


def of_local_mail(source: Source, servers: Sequence[Server]) -> Iterator[Finding]:
    """Note which mail is not seen, if users are checked: that of local programs, and of clients in mynetworks."""
    if not any(map(_checks_logins, servers)) or not any(each.command == "pickup" for each in source.services):
        return
    problem = "mail that local programs send with sendmail(1) does not come by SMTP"
    effect = "No policy sees it"
    if relaying := [server.service.label for server in servers if _relays_mynetworks(server)]:
        effect += f", and no outbound policy sees what clients in mynetworks send through {' and '.join(relaying)}"
    remedy = "To restrict who may use it: authorized_submit_users = root, www-data in main.cf."
    yield Finding(Severity.NOTE, "local-mail", "master.cf", "pickup/unix", "", problem, effect, remedy)


def _relays_mynetworks(server: Server) -> bool:
    permitted = any(each.name == "permit_mynetworks" for name in (RELAY, RECIPIENT) for each in server.lists[name])
    asked = any(
        site.listener and site.listener.is_outbound and Client.NETWORK in site.reached_by for site in server.sites
    )
    return permitted and Client.NETWORK in server.passing and not asked
