"""``chapps-cli top``: what the service does now, on one screen."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import click

from chapps_tw.cli import sentences
from chapps_tw.cli.client import Invalid, path
from chapps_tw.cli.command import Remote, Seconds, pass_session
from chapps_tw.cli.decisions import RING
from chapps_tw.cli.output import make_table, plain
from chapps_tw.cli.session import Session, Unreachable

# Decisions in an answer; more than that in an interval are counted, but not looked at.
_MOST: Final = 1000
_ROWS: Final = 8
# The history is counted again after so many seconds, or so many times what it took: there may be a million decisions.
_COUNT_EVERY: Final = 10.0
_SHARE: Final = 20.0

Shown = dict[str, Any]


def add_to(main: click.Group) -> None:
    """Add the commands."""
    main.add_command(top)


@click.command(cls=Remote)
@click.option("--interval", type=Seconds(), default=2.0, help="Seconds between two looks; default: 2.")
@click.option("--since", default="5m", help="Of the top senders and reasons: how far back; default: 5m.")
@click.option("--once", is_flag=True, help="Look once, and end.")
@pass_session
def top(session: Session, interval: float, since: str, once: bool) -> None:
    """Show the top senders, refusals, and users near a limit, again and again; q or Ctrl-C ends it."""
    look = _Look(session, since)
    shown = look.take()
    if once or session.format or not (sys.stdin.isatty() and sys.stdout.isatty()):
        session.show(shown, lambda: [_printed(shown)])
        return
    _live(look, shown, interval)


class _Look:
    """Asks the service.

    :param since: how far back senders and reasons are counted.
    """

    def __init__(self, session: Session, since: str) -> None:
        self._session = session
        self._since = since
        self._sequence: int | None = None
        self._at = 0.0
        self._counts: Shown = {}
        self._count_at = 0.0

    def take(self) -> Shown:
        """Return what there is to show now."""
        api = self._session.api
        if self._session.now >= self._count_at:
            self._count()
        return {
            "time": self._session.now,
            "since": self._since,
            **self._rates(),
            "parts": self._parts(),
            "nodes": self._nodes(),
            **self._counts,
            "near": self._near(),
            "events": api.get(path("live", "events"), limit=_ROWS).response,
        }

    def _count(self) -> None:
        begin = self._session.now
        for name, by in (("senders", "user"), ("reasons", "reason")):
            answer = self._session.api.get(path("history", "counts"), by=by, since=self._since, limit=_ROWS)
            self._counts[name] = answer.response
        self._count_at = begin + max(_COUNT_EVERY, _SHARE * (self._session.now - begin))

    def _rates(self) -> Shown:
        """Return decisions and refusals a second since the last look; ``None`` for the first one."""
        now, before = self._session.now, self._sequence
        answer = self._session.api.get(RING, limit=1 if before is None else _MOST, after=before)
        # An answer may end before the newest decision: the next one continues there.
        last = self._sequence = int(answer.beside["last_sequence"])
        seconds, self._at = now - self._at, now
        if before is None or seconds <= 0 or last < before:
            return {"decisions_per_second": None, "not_accepted_per_second": None}
        verdicts = Counter(sentences.verdict(each) for each in answer.response)
        refused = sum(verdicts.values()) - verdicts["Accepted"]
        share = refused / len(answer.response) if answer.response else 0.0
        rate = (last - before) / seconds
        return {"decisions_per_second": round(rate, 1), "not_accepted_per_second": round(rate * share, 1)}

    def _near(self) -> list[Shown]:
        # Refused if the domains of these users are too many to be nested.
        with suppress(Invalid):
            near: list[Shown] = self._session.api.get(path("users"), near=80, limit=_ROWS).response
            return near
        return []

    def _parts(self) -> list[Shown]:
        try:
            parts: list[Shown] = self._session.api.get(path("ready")).response
            return parts
        except Unreachable as error:
            return [{"name": "service", "up": False, "problem": str(error)}]

    def _nodes(self) -> list[str]:
        with suppress(Unreachable):
            return [each["name"] for each in self._session.api.get(path("nodes")).response]
        return []


# --- the screen ---


def _screen(shown: Shown) -> Any:
    """Return what to print with Rich."""
    from rich.console import Group
    from rich.text import Text

    senders = [{**row, "user": row["key"] or "(no user)"} for row in shown["senders"]]
    reasons = [{**row, "reason": row["key"]} for row in shown["reasons"]]
    near = [{"user": row["name"], "used": _most_used(row["limits"])} for row in shown["near"]]
    since = shown["since"]
    return Group(
        _header(shown),
        Text(),
        make_table(senders, ("user", "decisions", "refused", "senders", "recipients"), f"Top senders of {since}"),
        Text(),
        make_table(reasons, ("reason", "decisions", "refused"), f"Reasons of {since}"),
        Text(),
        make_table(near, ("user", "used"), "Near a limit") if near else Text("No user is near a limit."),
        Text(),
        make_table(shown["events"], ("at", "kind", "account", "limit", "used", "amount"), "Events"),
    )


def _most_used(limits: list[Shown]) -> str:
    return ", ".join(f"{each['used']} of {each['amount']} {each['unit']}" for each in limits)


def _header(shown: Shown) -> Any:
    from rich.text import Text

    text = Text(f"{sentences.clock(shown['time'], shown['time'])}  ")
    rate, refused = shown["decisions_per_second"], shown["not_accepted_per_second"]
    if rate is not None:
        text.append(f"{rate:g} decisions/s, {refused:g}/s not accepted  ")
    if len(shown["nodes"]) > 1:
        text.append(f"nodes {plain(', '.join(shown['nodes']))}  ")
    for part in shown["parts"]:
        problem = "" if part["up"] else f": {plain(part['problem'])}"
        text.append(
            f"{plain(part['name'])} {'up' if part['up'] else 'down'}{problem}  ", "green" if part["up"] else "red"
        )
    return text


def _printed(shown: Shown) -> str:
    from rich.console import Console

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    with console.capture() as captured:
        console.print(_screen(shown))
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _live(look: _Look, shown: Shown, interval: float) -> None:
    from rich.live import Live

    with _keys() as pressed, Live(_screen(shown), screen=True, auto_refresh=False, transient=True) as live:
        live.refresh()
        while pressed(interval) not in ("q", "Q"):
            try:
                shown = look.take()
            except Unreachable as error:
                shown = {**shown, "parts": [{"name": "service", "up": False, "problem": str(error)}]}
            live.update(_screen(shown), refresh=True)


@contextmanager
def _keys() -> Iterator[Any]:
    """Let keys be read without Enter; yield a function that waits for one, at most so many seconds."""
    import select
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select([descriptor], [], [], seconds)
        return sys.stdin.read(1) if ready else ""

    try:
        tty.setcbreak(descriptor)
        yield pressed
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
