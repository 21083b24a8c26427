"""Everything that can be found about a Postfix and a configuration of ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from chapps_tw.postfix_check import calls, coverage, order, reach, running, stages
from chapps_tw.postfix_check.evaluation import Server, Site, servers_of
from chapps_tw.postfix_check.finding import Finding, Severity
from chapps_tw.postfix_check.listeners import OurListener
from chapps_tw.postfix_check.source import Source


class Report(NamedTuple):
    """The result.

    :ivar findings: errors first.
    :ivar sites: the places in which a policy service is asked.
    """

    findings: Sequence[Finding]
    sites: Sequence[Site]


def check(source: Source, listeners: Sequence[OurListener], asked: Sequence[Mapping[str, Any]] | None) -> Report:
    """Compare a Postfix with our listeners.

    :param asked: what the running service says of its listeners; ``None`` if it did not.
    """
    servers = servers_of(source, listeners)
    found = list(_all(source, servers, listeners))
    if asked is not None:
        found += running.of_running(asked, servers, listeners)
    ranks = list(Severity)
    findings = sorted(_merged(found), key=lambda each: ranks.index(each.severity))
    return Report(findings, [site for server in servers for site in server.sites])


def _all(source: Source, servers: Sequence[Server], listeners: Sequence[OurListener]) -> Iterator[Finding]:
    wanted = [each for each in listeners if not each.is_part_of(listeners)]
    idle = [each for each in wanted if not any(server.asks(each) for server in servers)]
    explained: list[OurListener] = []
    for server in servers:
        yield from calls.of_names(server)
        for finding, meant in calls.of_addresses(server, source.services, idle):
            yield finding
            explained += [meant] if meant else []
        yield from _of_sites(server, [each for each in servers if each is not server])
        yield from order.of_order(server)
        yield from order.of_repetition(server)
    yield from stages.of_stages(servers, listeners)
    overridden = list(coverage.of_overrides(source, servers, listeners))
    yield from overridden
    yield from coverage.of_unchecked_logins(servers, [each.service for each in overridden])
    explained += [each for each in listeners if overridden and each.is_outbound]
    yield from coverage.of_listeners(servers, listeners, explained)
    yield from coverage.of_local_mail(source, servers)


def _of_sites(server: Server, others: Sequence[Server]) -> Iterator[Finding]:
    for site in server.sites:
        if site.listener is not None and not site.call.problem:
            elsewhere = any(other.asks(site.listener) for other in others)
            yield from reach.of_reach(site, server, site.listener, elsewhere)
            if site.reached_by:
                yield from calls.of_waiting(site, server, site.listener)


def _merged(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Yield findings that differ only in their service as one."""
    services: dict[Finding, list[str]] = {}
    for each in findings:
        services.setdefault(each._replace(service=""), []).append(each.service)
    for finding, names in services.items():
        yield finding._replace(service=", ".join(dict.fromkeys(name for name in names if name)))
