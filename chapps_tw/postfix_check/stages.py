"""Whether policies are asked at the stages at which they work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from chapps_tw.policies.stages import Need
from chapps_tw.postfix_check.calls import at
from chapps_tw.postfix_check.evaluation import EARLY, Server, Site
from chapps_tw.postfix_check.finding import Finding, Severity
from chapps_tw.postfix_check.listeners import OurListener


def of_stages(servers: Sequence[Server], listeners: Sequence[OurListener]) -> Iterator[Finding]:
    """Find policies and limits that are never asked where they work, and requests that have no effect."""
    for listener in listeners:
        everywhere = {stage for server in servers for stage in server.stages(listener)}
        for server in servers:
            sites = [site for site in server.sites if site.listener == listener and site.reached_by]
            asked = server.stages(listener)
            missing = [need for need in listener.needs if asked and not need.is_met(asked)]
            for need in missing:
                yield _missing(server, sites[0], need, need.is_met(everywhere))
            if not missing:
                yield from _useless(server, listener, sites)


def _missing(server: Server, site: Site, need: Need, elsewhere: bool) -> Finding:
    problem = f"it asks at {site.stage}, where {need.what} cannot be applied: {need.why}"
    effect = f"This mail passes without {need.what}"
    remedy = f"Write: {need.lists} = {site.listener.call if site.listener else ''}"
    if _is_early(site):
        remedy = f"{remedy} (or smtpd_delay_reject = yes)"
    severity = Severity.WARNING if elsewhere else Severity.ERROR
    return at(site, server, severity, "stage-unfit", problem, effect, remedy)


def _useless(server: Server, listener: OurListener, sites: Sequence[Site]) -> Iterator[Finding]:
    for site in sites:
        if listener.needs and not any(need.is_met([site.stage]) for need in listener.needs):
            problem = f"it asks at {site.stage}, where no policy of listener {listener.name} works"
            effect = "The request takes time, and has no effect"
            remedy = f"Remove it from {site.list}" + (" (or write smtpd_delay_reject = yes)" if _is_early(site) else "")
            yield at(site, server, Severity.WARNING, "stage-useless", problem, effect, remedy)


def _is_early(site: Site) -> bool:
    return site.list in EARLY and site.stage != "RCPT"
