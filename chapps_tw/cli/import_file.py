"""``chapps-cli import-file``: many permissions and quotas at once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, TypeVar

import click

from chapps_tw.cli.client import Answer, path
from chapps_tw.cli.command import Remote, pass_session
from chapps_tw.cli.session import CommandError, Session

T = TypeVar("T")

# Longer than the service takes for the largest file.
_TIMEOUT = 180.0


def add_to(main: click.Group) -> None:
    """Add the commands."""
    main.add_command(import_file)


@click.command(cls=Remote)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--create/--no-create", help="Create domains and addresses of allow that do not exist.")
@pass_session
def import_file(session: Session, file: Path, create: bool) -> None:
    """Allow and deny senders to users, and give them quotas, by the lines of FILE: all of them, or none.

    The lines are allow:USER:DOMAIN, allow:USER:ADDRESS, deny:USER:DOMAIN, deny:USER:ADDRESS and quota:USER:QUOTA. Empty
    lines and lines that begin with # are ignored.
    """
    try:
        with file.open("rb") as content:
            answer = _send(session, content, file.stat().st_size, create)
    except OSError as error:
        raise CommandError(f"{file}: cannot be read: {error.strerror}") from None
    done = answer.response
    session.warn(answer.remarks)
    session.show(
        done,
        lambda: [
            f"{done['lines']} lines imported: {done['allowed']} allowed, {done['denied']} denied, "
            f"{done['quotas']} quotas set, {done['created']} domains and addresses created."
        ],
    )


def _send(session: Session, content: IO[bytes], size: int, create: bool) -> Answer:
    def send(body: IO[bytes]) -> Answer:
        return session.api.upload(path("import"), body, size, _TIMEOUT, create=create)

    return _with_progress(send, content, size) if sys.stderr is not None and sys.stderr.isatty() else send(content)


def _with_progress(send: Callable[[IO[bytes]], T], content: IO[bytes], size: int) -> T:
    """Show how much is sent, then that the service is at work."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        sending = progress.add_task("Sending", total=size)

        class Watched:
            """The file, which tells the bar what was read of it."""

            def read(self, length: int = -1) -> bytes:
                data = content.read(length)
                progress.advance(sending, len(data))
                if not data:
                    progress.remove_task(sending)
                    progress.add_task("Importing", total=None)
                return data

        return send(Watched())  # type: ignore[arg-type]
