"""Decisions: the last ones, those being made, and those kept in the history."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import click

from chapps_tw.cli import sentences
from chapps_tw.cli.client import path
from chapps_tw.cli.command import Remote, Seconds, pass_session
from chapps_tw.cli.output import as_csv, as_json_line, local, plain
from chapps_tw.cli.session import Session

F = TypeVar("F", bound=Callable[..., Any])

RING: Final = path("live", "decisions")
HISTORY: Final = path("history")
_PAGE: Final = 1000
_BY: Final = ("hour", "day", "user", "reason", "client_network")
_GROUPS: Final = ("key", "decisions", "refused", "refused_share", "senders", "recipients")
_SINCE = "a duration before now, such as 3d, a time with its zone, or epoch seconds."
_FILTERS: Final = {
    "user": "Only decisions about this user.",
    "sender": "Only mail from this address; from a domain as @example.com.",
    "recipient": "Only mail to this address; to a domain as @example.com.",
    "client": "Only mail from this client address or network.",
    "instance": "Only the message with this instance.",
    "queue_id": "Only the message with this queue id.",
}
_HISTORY_FILTERS: Final = {
    **_FILTERS,
    "listener": "Only decisions of this listener.",
    "policy": "Only decisions of this policy.",
    "reason": "Only decisions with this reason code.",
    "action": "Only decisions with this action, such as REJECT.",
    "node": "Only decisions of this node.",
    "since": f"The earliest time: {_SINCE}",
    "until": f"The time before which they are: {_SINCE}",
}


def add_to(main: click.Group) -> None:
    """Add the commands."""
    for command in (decisions, history):
        main.add_command(command)


def _filtered(filters: dict[str, str]) -> Callable[[F], F]:
    """Return a decorator that adds options."""

    def decorate(function: F) -> F:
        for name, help in reversed(filters.items()):
            function = click.option(f"--{name.replace('_', '-')}", default="", help=help)(function)
        return function

    return decorate


def meanings(session: Session) -> dict[str, str]:
    """Return what each reason code means."""
    return {str(reason): reason.meaning for reason in session.registry.reasons}


@click.command(cls=Remote)
@_filtered(_FILTERS)
@click.option("--limit", type=click.IntRange(1, 1000), default=20, help="How many of the last ones; default: 20.")
@click.option("--follow", "-f", is_flag=True, help="Go on with each new decision until Ctrl-C.")
@click.option("--interval", type=Seconds(), default=1.0, help="With --follow: how often to ask; default: 1.")
@pass_session
def decisions(session: Session, /, limit: int, follow: bool, interval: float, **filters: str) -> None:
    """Show the last decisions of this node, oldest first."""
    sender = {name: filters[name].removeprefix("@") for name in ("sender", "recipient")}
    wanted = {**filters, **sender}
    answer = session.api.get(RING, limit=limit, **wanted)
    rows = answer.response[::-1]
    if not follow:
        session.show(rows, lambda: _lines(session, rows, answer.remarks))
        return
    printer = _Printer(session)
    printer.add(rows)
    after = answer.beside["last_sequence"]
    while True:
        if len(answer.response) < _PAGE:
            time.sleep(interval)
        answer = session.api.get(RING, limit=_PAGE, after=after, **wanted)
        after = answer.beside["last_sequence"]
        if answer.beside["dropped"]:
            session.warn(answer.remarks)
        printer.add(answer.response)


class _Printer:
    """Prints decisions one by one."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._meanings = {} if session.format else meanings(session)
        self._started = False

    def add(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            self._session.say(self._line(row))

    def _line(self, row: dict[str, Any]) -> str:
        if self._session.format == "json":
            return as_json_line(row)
        if self._session.format == "csv":
            header, _, line = as_csv([row]).partition("\n")
            started, self._started = self._started, True
            return line if started else f"{header}\n{line}"
        return _line(row, self._session.now, self._meanings)


def _line(row: dict[str, Any], now: float, known: dict[str, str]) -> str:
    verdict = sentences.verdict(row)
    color = {"Accepted": "green", "Held": "yellow", "Deferred": "yellow"}.get(verdict, "red")
    why = sentences.because(row, now, known)
    return f"{local(row['time'], seconds=True)} {click.style(verdict, fg=color)} {sentences.about(row)}: {why}"


def _lines(session: Session, rows: list[dict[str, Any]], remarks: list[str]) -> Iterator[str]:
    known = meanings(session)
    yield from (_line(row, session.now, known) for row in rows)
    yield from map(plain, remarks)


@click.command(cls=Remote)
@_filtered(_HISTORY_FILTERS)
@click.option("--refused", is_flag=True, help="Only mail that was refused, deferred or discarded.")
@click.option("--limit", type=click.IntRange(1), default=100, help="The most decisions or groups; default: 100.")
@click.option(
    "--by", type=click.Choice(["hour", "day", "user", "reason", "client_network"]), help="Count them by this."
)
@pass_session
def history(session: Session, /, refused: bool, limit: int, by: str | None, **filters: str) -> None:
    """Search the kept decisions of all nodes, newest first; or count them."""
    wanted: dict[str, Any] = {**filters, "refused": refused}
    if by:
        answer = session.api.get(path("history", "counts"), by=by, limit=min(limit, _PAGE), **wanted)
        columns = ("start", *_GROUPS[1:4]) if by in ("hour", "day") else _GROUPS
        session.table(answer.response, columns, "No decisions were found.")
        session.warn(answer.remarks)
        return
    rows, remarks = search(session, limit, **wanted)
    session.show(rows, lambda: _lines(session, rows, remarks if rows else ["No decisions were found.", *remarks]))


def search(session: Session, limit: int, **wanted: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """Return decisions of the history, newest first, and remarks."""
    rows: list[dict[str, Any]] = []
    remarks: list[str] = []
    before = None
    while len(rows) < limit:
        answer = session.api.get(HISTORY, before=before, limit=min(_PAGE, limit - len(rows)), **wanted)
        rows += answer.response
        remarks, before = answer.remarks, answer.beside["next"]
        if before is None:
            break
    return rows, remarks
