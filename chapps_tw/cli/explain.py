"""``chapps-cli explain``: what each policy would decide, at no cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from chapps_tw.cli import sentences
from chapps_tw.cli.ask import about_mail, attributes
from chapps_tw.cli.client import Answer, path
from chapps_tw.cli.command import Remote, pass_session
from chapps_tw.cli.decisions import meanings
from chapps_tw.cli.output import plain
from chapps_tw.cli.session import Session


def add_to(main: click.Group) -> None:
    """Add the commands."""
    main.add_command(explain)


@click.command(cls=Remote)
@about_mail
@click.option("--listener", default="", help="Listener; default: the first one that accepts the request.")
@click.argument("others", nargs=-1, metavar="[NAME=VALUE]...")
@pass_session
def explain(
    session: Session,
    user: str,
    sender: str,
    recipient: str,
    client: str,
    listener: str,
    others: tuple[str, ...],
) -> None:
    """Show what each policy would decide about a message now, and why. It costs nothing."""
    asked = {
        "sasl_username": user,
        "sender": sender,
        "recipient": recipient,
        "client_address": client,
        "protocol_state": "RCPT",
        **attributes(others),
    }
    answer = session.api.send("POST", path("live", "explain"), asked, listener=listener)
    session.show(answer.response, lambda: _lines(session, answer))


def _lines(session: Session, answer: Answer) -> Iterator[str]:
    known = meanings(session)
    given: dict[str, Any] = answer.beside["answer"]
    yield f"Postfix would get: {plain(given['action'])}"
    for record in answer.response:
        mark = "*" if record == given else " "
        why = sentences.because(record, session.now, known)
        yield f"{mark} {plain(record['policy'])}: {sentences.verdict(record)}: {why}"
    yield from map(plain, answer.remarks)
