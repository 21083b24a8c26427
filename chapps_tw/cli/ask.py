"""``chapps-cli ask``: what the service answers to a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from chapps_tw.cli.command import Local, Seconds, pass_session
from chapps_tw.cli.session import CommandError, Session

# SPF may take 20 s by default; Postfix itself waits 100 s.
_TIMEOUT = 30.0


def add_to(main: click.Group) -> None:
    """Add the commands."""
    main.add_command(ask)


_MAIL = (
    click.option("--user", default="", help="The authenticated user (sasl_username)."),
    click.option("--sender", default="", help="Envelope sender; empty is the null sender."),
    click.option("--recipient", default="", help="Envelope recipient."),
    click.option("--client", default="192.0.2.1", metavar="ADDRESS", help="IP address of the SMTP client."),
)


def about_mail(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which mail a command is about."""
    for option in reversed(_MAIL):
        command = option(command)
    return command


def attributes(given: tuple[str, ...]) -> dict[str, str]:
    """Return attributes that are given as ``NAME=VALUE``.

    :raises CommandError: for one without ``=``.
    """
    found = {}
    for each in given:
        name, equals, found[name] = each.partition("=")
        if not equals:
            raise CommandError(f"{each!r} must be NAME=VALUE")
    return found


@click.command(cls=Local)
@about_mail
@click.option(
    "--listener", default="", help="Configured listener; default: the first outbound one with --user, else inbound."
)
@click.option("--host", help="Host of the service, instead of a configured listener (127.0.0.1 with --port).")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the service (10225 with --host).")
@click.option("--socket", metavar="PATH", help="Unix socket of the service.")
@click.option("--timeout", type=Seconds(), default=_TIMEOUT, help=f"Default: {_TIMEOUT:g}.")
@click.argument("others", nargs=-1, metavar="[NAME=VALUE]...")
@pass_session
def ask(
    session: Session,
    user: str,
    sender: str,
    recipient: str,
    client: str,
    listener: str,
    host: str | None,
    port: int | None,
    socket: str | None,
    timeout: float,
    others: tuple[str, ...],
) -> None:
    """Send one request to the running service, as Postfix would at RCPT.

    It counts like a real message: it spends quota and starts greylisting. "explain" costs nothing.
    """
    from chapps_tw.cli import policy_request as policy

    data = policy.request(user, sender, recipient, client, attributes(others))
    where: tuple[str, int] | str = socket or (host or "127.0.0.1", port or 10225)
    if not (socket or host or port):
        where = policy.address_of(session.settings.listeners, listener, bool(user), session.registry)
    answer = policy.ask(where, data, timeout)
    session.warn(["the request counts like a real message"])
    session.say(answer)
