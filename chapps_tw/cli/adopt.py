"""Moving over from CHAPPS 0.5."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import click

from chapps_tw.cli.command import CONFIG, DEFAULT_PATH, FORMATS, Local, pass_session
from chapps_tw.cli.output import plain
from chapps_tw.cli.session import Session

_PARTS: Final = ("configuration", "database", "state")
# Lines of a list that are shown to people.
_SHOWN: Final = 20


class _Reporting(Local):
    """A command that works without the service, and prints a report."""

    common = (FORMATS[0], CONFIG)


def add_to(main: click.Group) -> None:
    """Add the command."""
    main.add_command(adopt)


@click.command(cls=_Reporting)
@click.option("--from", "source", metavar="OLD", required=True, help="chapps.ini of CHAPPS 0.5.")
@click.option(
    "--to", "target", metavar="NEW", help="chapps.ini of this version, written if it does not exist; default: --config."
)
@click.option("--only", type=click.Choice(_PARTS), multiple=True, help="Do this part; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Change nothing; report what would be done.")
@pass_session
def adopt(session: Session, source: str, target: str | None, only: Sequence[str], dry_run: bool) -> None:
    """Move over from CHAPPS 0.5: its configuration, database, counts and greylisting.

    It can be repeated: what was moved already is not counted twice. CHAPPS 0.5 may be in use meanwhile.
    """
    new = target or session.config or os.environ.get("CHAPPS_CONFIG") or DEFAULT_PATH
    report = session.dependencies.adopt(source, new, session.registry.added, only or _PARTS, dry_run)
    session.show(report, lambda: _lines(report))


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    if report["dry_run"]:
        yield "Nothing was changed. Without --dry-run, this would be done:"
    for part, show in (("configuration", _configuration), ("database", _database), ("state", _state)):
        if part in report:
            yield from show(report[part], report["dry_run"])


def _configuration(found: Mapping[str, Any], dry_run: bool) -> Iterator[str]:
    done = "is kept as it is" if found["kept"] else "would be written" if dry_run else "was written, mode 0600"
    yield f"Configuration: {found['from']}; {found['to']} {done}"
    yield from _list("Options without effect", found["without_effect"])
    yield from _list("Not in the file, as CHAPPS 0.5 takes it", found["assumed"])
    yield from _list("To decide", found["to_decide"])
    yield from _list("Other values than in the old file", found["differences"])


def _database(found: Mapping[str, Any], dry_run: bool) -> Iterator[str]:
    to = "in place" if found["in_place"] else f"copied to {found['to']}"
    yield f"Database: {found['from']}, {to}"
    yield f"  {', '.join(f'{found[kind]} {kind}' for kind in ('users', 'domains', 'emails', 'quotas', 'links'))}"
    flagged = [
        f"{each['name']}: {', '.join(name for name in ('greylist', 'check_spf') if each[name])}"
        for each in found["domains_with_flags"]
    ]
    yield from _list("Domains with flags", flagged, found["domains_with_flags_total"])
    yield from _list("Users without a quota", found["users_without_quota"], found["users_without_quota_total"])
    yield from _list("Names", found["names"])
    yield from _list("Tables", found.get("done", []))
    if "added" in found:
        yield f"  Added: {', '.join(f'{number} {kind}' for kind, number in found['added'].items())}"
        yield f"  There before: {', '.join(f'{number} {kind}' for kind, number in found['known'].items())}"
        yield from _list("Left out", found["left_out"], found["left_out_total"])


def _state(found: Mapping[str, Any], dry_run: bool) -> Iterator[str]:
    keys, added = found["found"], found["added"]
    yield f"Live state: {found['from']}, carried over to {found['to']}"
    yield f"  Counts: {keys['counts']} users, {found['transmissions']} transmissions"
    yield f"  Greylisting: {keys['tuples']} tuples, {keys['tallies']} tallies of clients"
    yield f"  Read from the database instead: {keys['cached']} cached values"
    if not dry_run:
        new = f"{added['counts']} messages, {added['tuples']} tuples, {added['tallies']} messages in tallies"
        yield f"  Not there before: {new}"
    yield from _list("Users in another spelling", found["respelled"], found["respelled_total"])
    unreadable = [f"{each['key']} {each['why']}" for each in found["unreadable"]]
    yield from _list("Keys that cannot be read", unreadable, found["unreadable_total"])


def _list(title: str, items: Sequence[str], total: int | None = None) -> Iterator[str]:
    """Yield a list with a title, unless it is empty.

    :param total: if there are more items than those.
    """
    total = len(items) if total is None else total
    if total:
        yield f"  {title}: {total}"
        yield from (f"    {plain(each)}" for each in items[:_SHOWN])
        if total > _SHOWN:
            yield f"    and {total - _SHOWN} more"
