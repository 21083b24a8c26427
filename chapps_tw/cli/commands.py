"""``chapps-cli``: the administrator's commands."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from signal import SIGINT
from time import gmtime, strftime
from typing import NamedTuple

import chapps_tw
from chapps_tw.cli import notify
from chapps_tw.cli.ask import AskError, address_of, ask, request
from chapps_tw.cli.parser import make_parser
from chapps_tw.config.checks import Finding
from chapps_tw.config.load import DEFAULT_PATH, load
from chapps_tw.config.settings import ConfigError, Settings
from chapps_tw.config.write import write
from chapps_tw.interfaces.book import BookConflict, BookUnavailable
from chapps_tw.policies.registry import installed
from chapps_tw.security.passcode import make_hash
from chapps_tw.security.private_files import explain
from chapps_tw.security.tokens import TokenError, TokenStore


class CommandError(Exception):
    """A command failed. The text is one sentence."""


class Dependencies(NamedTuple):
    """What the commands need, besides files.

    :ivar set_up: creates or upgrades the database's tables, or, if the second argument is true, reports what that
        would do; returns a report, one sentence per line.
    :ivar add_examples: adds the example users that are missing; returns a sentence. Both raise
        :class:`BookUnavailable`, :class:`BookConflict` and :class:`CommandError`.
    :ivar now: returns epoch seconds.
    :ivar check: yields what prevents settings from working on this machine.
    :ivar warn: yields sentences about what they name and the database does not contain.
    """

    set_up: Callable[[Settings, bool], str]
    add_examples: Callable[[Settings], str]
    now: Callable[[], float]
    check: Callable[[Settings], Iterable[Finding]]
    warn: Callable[[Settings], Iterable[str]]


def run(arguments: Sequence[str], dependencies: Dependencies) -> int:
    """Run one command.

    :returns: the exit status: 0, or 1 after a sentence for each problem on standard error.
    :raises SystemExit: with 2, if the arguments are invalid.
    """
    options = make_parser(_COMMANDS).parse_args(arguments)
    try:
        options.command(options, dependencies)
    except ConfigError as error:
        return _failed(error.problems)
    except (AskError, BookConflict, BookUnavailable, CommandError, TokenError, notify.NotifyError) as error:
        return _failed([str(error)])
    except KeyboardInterrupt:
        return 128 + SIGINT
    return 0


def _say(text: str) -> None:
    """Print the output of a command and flush it.

    :raises CommandError: if it cannot be written.
    """
    if sys.stdout is None:
        raise CommandError("there is no standard output to write to")
    try:
        print(text, flush=True)
    except OSError as error:
        # Otherwise the interpreter would flush the buffer again at exit, and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise CommandError(f"the output cannot be written: {error.strerror}") from None


def _failed(problems: Sequence[str]) -> int:
    for problem in problems:
        print(f"chapps-cli: {problem}", file=sys.stderr)
    return 1


def _settings(options: argparse.Namespace) -> Settings:
    return load(options.config, os.environ, added=installed().added)


def _version(options: argparse.Namespace, dependencies: Dependencies) -> None:
    _say(f"CHAPPS-TW v{chapps_tw.__version__}")


def _check_config(options: argparse.Namespace, dependencies: Dependencies) -> None:
    registry = installed()
    settings = load(options.config, os.environ, dependencies.check, registry.added)
    for warning in (*settings.warnings, *dependencies.warn(settings)):
        print(f"chapps-cli: {warning}", file=sys.stderr)
    lines = [f"{settings.path or 'built-in defaults'}: ok"]
    lines += [f"  {each.name}: {each.listen}: {', '.join(each.policies)}" for each in settings.listeners]
    if settings.api.listen:
        lines.append(f"  HTTP API: {settings.api.listen}")
    lines += [f"  {name}: of {package}" for name, package in registry.packages.items()]
    lines += [
        f"  helo_whitelist: {entry} applies while {entry.name} has {entry.wanted}"
        for entry in settings.chapps.helo_whitelist
        if entry.wanted
    ]
    _say("\n".join(lines))


def _db_setup(options: argparse.Namespace, dependencies: Dependencies) -> None:
    _say(dependencies.set_up(_settings(options), options.dry_run))


def _add_examples(options: argparse.Namespace, dependencies: Dependencies) -> None:
    _say(dependencies.add_examples(_settings(options)))


def _flush_config(options: argparse.Namespace, dependencies: Dependencies) -> None:
    settings = _settings(options)
    target = write(settings, options.to or settings.path or DEFAULT_PATH)
    found = target.stat()
    _say(f"{target} written, mode {found.st_mode & 0o7777:04o}, owner {found.st_uid}:{found.st_gid}")


def _passcode(options: argparse.Namespace, dependencies: Dependencies) -> None:
    try:
        passcode = _read_passcode()
    except (EOFError, OSError, UnicodeDecodeError) as error:
        raise CommandError(f"the passcode cannot be read: {str(error) or 'the input ended'}") from None
    if not passcode:
        raise CommandError("the passcode is empty")
    _say(f"password = {make_hash(passcode)}")


def _read_passcode() -> str:
    """Prompt twice on a terminal; otherwise read the first line of standard input."""
    if sys.stdin is None:
        raise EOFError
    if sys.stdin.isatty():
        passcode = getpass.getpass("Passcode: ")
        if getpass.getpass("Again: ") != passcode:
            raise CommandError("the two passcodes differ")
    else:
        passcode = sys.stdin.readline().rstrip("\r\n")
    return passcode


def _token_show(options: argparse.Namespace, dependencies: Dependencies) -> None:
    path = Path(_settings(options).token_path)
    try:
        token = path.read_text("utf-8").strip()
    except FileNotFoundError:
        raise CommandError(f"{path}: does not exist; the service creates it at its first start") from None
    except OSError as error:
        raise CommandError(f"{path}: cannot be read ({explain(path, error)})") from error
    except UnicodeDecodeError:
        raise CommandError(f"{path}: not a token") from None
    if not token:
        raise CommandError(f"{path}: the first token was revoked; create another with chapps-cli token create")
    _say(token)


def _token_list(options: argparse.Namespace, dependencies: Dependencies) -> None:
    tokens = TokenStore(_settings(options).token_path).list()
    if tokens:
        lines = [
            f"{strftime('%Y-%m-%dT%H:%M:%SZ', gmtime(each.created))}  {each.scope:8}  {each.name}" for each in tokens
        ]
        _say("\n".join(lines))


def _token_create(options: argparse.Namespace, dependencies: Dependencies) -> None:
    store = TokenStore(_settings(options).token_path)
    token = store.create(options.name, options.scope, dependencies.now())
    try:
        _say(token)
    except CommandError:
        # It was not shown, and cannot be retrieved later.
        store.revoke(options.name)
        raise


def _token_revoke(options: argparse.Namespace, dependencies: Dependencies) -> None:
    if not TokenStore(_settings(options).token_path).revoke(options.name):
        raise CommandError(f"there is no token named {options.name!r}")


def _ask(options: argparse.Namespace, dependencies: Dependencies) -> None:
    others = {}
    for each in options.others:
        name, equals, others[name] = each.partition("=")
        if not equals:
            raise AskError(f"{each!r} must be NAME=VALUE")
    data = request(options.user, options.sender, options.recipient, options.client, others)
    where: tuple[str, int] | str = options.socket or (options.host or "127.0.0.1", options.port or 10225)
    if not (options.socket or options.host or options.port):
        registry = installed()
        settings = load(options.config, os.environ, added=registry.added)
        where = address_of(settings.listeners, options.listener, bool(options.user), registry)
    answer = ask(where, data, options.timeout)
    print("chapps-cli: the request was counted like a real message", file=sys.stderr)
    _say(answer)


def _notify_test(options: argparse.Namespace, dependencies: Dependencies) -> None:
    _say(notify.test(_settings(options)))


_COMMANDS = {
    "check-config": _check_config,
    "version": _version,
    "admin db-setup": _db_setup,
    "admin add-examples": _add_examples,
    "admin flush-config": _flush_config,
    "admin passcode": _passcode,
    "token show": _token_show,
    "token list": _token_list,
    "token create": _token_create,
    "token revoke": _token_revoke,
    "ask": _ask,
    "notify test": _notify_test,
}
