"""``chapps-cli postfix-check``: what Postfix asks, and what is wrong with that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from chapps_tw.cli.client import path
from chapps_tw.cli.command import Remote, pass_session
from chapps_tw.cli.output import plain
from chapps_tw.cli.session import CommandError, Session

if TYPE_CHECKING:
    from chapps_tw.policies.stages import Need
    from chapps_tw.postfix_check.check import Report
    from chapps_tw.postfix_check.evaluation import Site

# The longest list of limits that the API answers.
_MANY: Final = 1000


def add_to(main: click.Group) -> None:
    """Add the commands."""
    main.add_command(postfix_check)


@click.command(cls=Remote)
@click.option("--config-dir", metavar="DIR", help="Postfix' configuration directory; default: that of this machine.")
@click.option("--postconf", metavar="FILE", help="Output of postconf -n, or a main.cf; with --master.")
@click.option("--master", metavar="FILE", help="Output of postconf -M, or a master.cf; with --postconf.")
@pass_session
def postfix_check(session: Session, config_dir: str | None, postconf: str | None, master: str | None) -> None:
    """Check what Postfix asks, in which restriction list, and what is wrong with that.

    Reads the configuration of Postfix and of the service, and asks the running service, if it can, what it was asked.
    Changes nothing. The exit status is 1 if there are errors; warnings and notes do not count.
    """
    from chapps_tw.cli.postfix_files import read_source
    from chapps_tw.postfix_check.check import check
    from chapps_tw.postfix_check.finding import Severity
    from chapps_tw.postfix_check.listeners import listeners_of

    remarks: list[str] = []
    source = read_source(config_dir, postconf, master, remarks)
    running, needs = _running(session, remarks)
    report = check(source, listeners_of(session.settings, session.registry, needs), running)
    session.show(_data(report, remarks, session.format), lambda: _lines(report, remarks))
    errors = sum(each.severity is Severity.ERROR for each in report.findings)
    if errors:
        raise CommandError("1 error" if errors == 1 else f"{errors} errors")


def _running(session: Session, remarks: list[str]) -> tuple[list[dict[str, Any]] | None, Iterable[Need]]:
    """Return what the running service was asked, and what its quotas need; add a remark if it cannot be reached."""
    from chapps_tw.interfaces.state import Unit
    from chapps_tw.policies.stages import of_units

    try:
        asked: list[dict[str, Any]] = session.api.get(path("live", "listeners")).response
        limits = session.api.get(path("limits"), limit=_MANY).response
    except CommandError as error:
        remarks.append(f"the running service could not tell what it was asked, and which limits quotas have: {error}")
        return None, ()
    if len(limits) == _MANY:
        remarks.append(f"there are more than {_MANY} limits of quotas: the others were not looked at")
    return asked, tuple(of_units("limits of quotas", {Unit(each["unit"]) for each in limits}))


def _data(report: Report, remarks: list[str], format: str) -> Any:
    findings = [{**each._asdict(), "severity": str(each.severity)} for each in report.findings]
    if format == "csv":
        return findings
    return {"findings": findings, "asks": [_row(site) for site in report.sites], "remarks": remarks}


def _row(site: Site) -> dict[str, Any]:
    return {
        "service": site.service.label,
        "parameter": site.list,
        "stage": site.stage,
        "endpoint": site.call.endpoint,
        "listener": site.listener.name if site.listener else None,
        "classes": list(site.restriction.via),
        "asked_about": sorted(kind.value for kind in site.reached_by),
    }


def _lines(report: Report, remarks: list[str]) -> Iterator[str]:
    for site in report.sites:
        row = {name: plain(value) for name, value in _row(site).items()}
        where = f"{row['service']} asks {row['listener'] or row['endpoint']} at {row['stage']} ({row['parameter']})"
        yield f"{where} about {row['asked_about'] or 'nobody'}"
    for each in report.findings:
        yield f"{each.severity}: {plain(each.where)}: {plain(each.problem)}."
        yield f"  {plain(each.effect)}."
        if each.remedy:
            yield f"  {plain(each.remedy)}"
    yield from (f"remark: {plain(remark)}" for remark in remarks)
    if not report.findings:
        yield "Nothing is wrong."
